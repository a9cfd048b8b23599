"""A newcomer's first five minutes: start the server in an empty folder, paste the line it prints, look.

It runs on the default database only, because a newcomer has not heard of another.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from tests.support.processes import free_port

PATIENCE = 180  # seconds, for slow machines


class Terminal:
    """A terminal in which `taskade serve` runs, and what has been printed there."""

    def __init__(self, folder, port):
        self._file = folder / "terminal.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKADE_")}
        with self._file.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taskade_server", "serve", "--port", str(port)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def printed(self):
        return self._file.read_text(errors="replace")

    def wait_for(self, pattern):
        """The group of the first text like that, as soon as it is there."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = re.search(pattern, self.printed())
            if found:
                return found[1]
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        return pytest.fail(f"the server never printed {pattern!r}:\n{self.printed()}", pytrace=False)

    def interrupt(self):
        """Ctrl-C; returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return pytest.fail(f"Ctrl-C did not stop the server:\n{self.printed()}", pytrace=False)


@pytest.fixture
def serve(tmp_path):
    """Starts `taskade serve` in an empty folder, with no option but a port that is free."""
    port = free_port()
    terminals = []

    def start():
        terminals.append(Terminal(tmp_path, port))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.interrupt()


def test_from_nothing_to_an_answer(serve, shell, tmp_path):
    terminal = serve()
    # The line may go on after a backslash, as such lines do.
    pasted = terminal.wait_for(r"(?m)^[ $]*(curl (?:[^\n]*\\\n)*[^\n]+)\n")
    assert "Authorization: Bearer" in pasted

    def ask(command):
        body, _, status = shell(f"{command} -w '\\n%{{http_code}}'").rpartition("\n")
        return int(status), json.loads(body)

    (root,) = re.findall(r"https?://[^/\s\"']+", pasted)
    wait_until_ready(root)
    status, answer = ask(pasted)
    assert status == 200
    assert isinstance(answer, list)
    assert (tmp_path / "taskade-data").is_dir()

    # The next thing one tries: create something and see it.
    (key,) = re.findall(r"Bearer ([^\s\"']+)", pasted)
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    status, task = ask(f"""curl -s {headers} {root}/v1/tasks -d '{{"name": "My first task"}}'""")
    assert (status, task["name"]) == (201, "My first task")

    # Stopping and starting again loses nothing, and makes no second key.
    assert terminal.interrupt() == 0, terminal.printed()
    again = serve()
    wait_until_ready(root)
    assert ask(f"curl -s {headers} {root}/v1/tasks/{task['id']}") == (200, task)
    status, keys = ask(f"curl -s {headers} {root}/v1/api-keys")
    assert (status, len(keys)) == (200, 1)
    assert key not in again.printed()
    assert again.interrupt() == 0, again.printed()


def wait_until_ready(root):
    """A person takes longer than this to paste a line."""
    until = time.monotonic() + PATIENCE
    with httpx2.Client(base_url=root, timeout=60, trust_env=False) as client:
        while time.monotonic() < until:
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
    pytest.fail(f"nothing answers at {root}")
