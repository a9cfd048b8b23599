"""One server uses an SQLite folder at a time, and a dead one is in nobody's way.

Why with real processes: what has to let go of the folder is the system's doing when a process ends, however it ends.
"""

import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from tests.support.processes import free_port
from tests.support.server import Server


@pytest.fixture
def first(tmp_path):
    server = Server(tmp_path / "data").start()
    yield server
    server.kill()


def second_on(data) -> subprocess.CompletedProcess[str]:
    """What becomes of another server on the same folder."""
    command = [sys.executable, "-m", "taskade_server", "serve", "--port", str(free_port()), "--data", str(data)]
    known = {name: value for name, value in os.environ.items() if not name.startswith(("TASKADE_", "OTEL_"))}
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=known, check=False)


def test_a_second_server_on_a_folder_is_refused_and_told_who_is_there(first):
    done = second_on(first.data)
    assert done.returncode == 1 and done.stdout == ""
    assert f"process {first.pid}, {first.url}" in done.stderr and "--data" in done.stderr
    assert "Traceback" not in done.stderr
    assert first.command("keys", "create", "--name", "beside it"), "commands may run beside a server"
    assert httpx2.get(f"{first.url}/health", timeout=120).status_code == 200


def test_a_killed_server_is_in_nobodys_way(first):
    first.kill()
    assert (first.data / "server.lock").exists()
    first.start()
    assert httpx2.get(f"{first.url}/health", timeout=120).status_code == 200


def test_a_reload_keeps_the_folder(first):
    before = _started(first)
    os.kill(first.pid, signal.SIGHUP)
    until = time.monotonic() + 180
    while _started(first) == before:
        assert time.monotonic() < until, first.said()
        time.sleep(0.1)
    done = second_on(first.data)
    assert done.returncode == 1 and f"process {first.pid}" in done.stderr, "it is the same process, and has the folder"


def _started(server: Server) -> int:
    """How often the process has taken the folder, by what it says when it serves."""
    return server.said().count("Taskade API server")
