"""A real server in a process of its own on a fresh database, reached only by its command and its port.

Why a process: what starts, crashes, recovers and shuts down in the tests is what does so in production.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner
from taskade_server.commands.keys import keys
from taskade_server.selftest.process import GREETING

from tests.support import conformity
from tests.support.processes import free_port

START_SECONDS = 240
STOP_SECONDS = 180


class Server:
    """`taskade serve` on a free port. `url` and `key` are all that a client needs.

    `database_url` is "" for SQLite in `data`. `arguments` are added to the command line, `environment` to the
    environment; ambient TASKADE_* and OTEL_* variables are left out.
    """

    def __init__(
        self,
        data: Path,
        database_url: str = "",
        *arguments: str,
        rate_limit: str = "off",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.database_url = database_url
        self.log = data.with_name(data.name + ".log")
        self.port = 0
        self._arguments = ("--rate-limit", rate_limit, *arguments)
        self._environment = _environment(data, database_url) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._key = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """An API key of the owner, with every scope."""
        if not self._key:
            self._key = self.create_key("tests")
        return self._key

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> "Server":
        """Start it, on the port it had before if it had one, and wait until it answers."""
        if self._process is not None:
            raise RuntimeError("the server is already running")
        for attempt in range(3):
            self.port = self.port or free_port()
            written = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*_COMMAND, "serve", "--host", "127.0.0.1", "--port", str(self.port), *self._arguments],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if self._answers(written):
                return self
            self.kill()
            if attempt == 2 or not re.search(r"address (already )?in use", self.said(), re.IGNORECASE):
                break
            self.port = 0  # somebody else took the port between our look and the server's
        raise RuntimeError(f"the server did not start:\n{self.said()}")

    def begin_to_stop(self) -> None:
        """Ask it to shut down, without waiting for it; `stop` waits."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to shut down and wait; returns its exit code. Not to obey is an error."""
        self.begin_to_stop()
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not stop within {STOP_SECONDS} s:\n{self.said()}") from None

    def kill(self) -> None:
        """Pull the plug."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> "Server":
        self.stop()
        return self.start()

    def command(self, *arguments: str) -> str:
        """What another `taskade` command prints, run on this server's database."""
        done = subprocess.run(
            [*_COMMAND, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"taskade {' '.join(arguments)} failed ({done.returncode}):\n{done.stderr}{done.stdout}")
        return done.stdout.strip()

    def create_key(self, name: str, *arguments: str) -> str:
        """A new key's secret: `create_key("reader", "--scopes", "tasks:read")`.

        The command runs in this process: nearly every server needs a key, and a process takes a quarter of a second.
        """
        without = {name: None for name in os.environ if name.startswith(AMBIENT)}
        with _IN_PROCESS:
            command = ["create", "--name", name, *arguments]
            done = CliRunner().invoke(keys, command, env={**without, **self._environment})
        if done.exit_code != 0:
            raise RuntimeError(f"taskade keys {' '.join(command)} failed ({done.exit_code}):\n{done.output}")
        return done.stdout.strip()

    def client(self, key: str | None = None, **options: Any) -> httpx2.Client:
        """An HTTP client with this address and a key (the owner's unless another is given; "" for none).

        It fails on every exchange that the OpenAPI document does not describe.
        """
        secret = self.key if key is None else key
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        options.setdefault("event_hooks", {"response": [conformity.watch]})
        # No server of the tests speaks TLS, and reading the machine's certificates takes 15 ms for each client.
        options.setdefault("verify", False)
        return httpx2.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False, **options)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-8000:] if self.log.exists() else ""

    def errors(self) -> list[str]:
        """The lines of its log that tell of an error of its own; an answer with a status such as 503 may be right."""
        with self.log.open(errors="replace") as lines:
            return [line for line in lines if '"level":"error"' in line and '"message":"request"' not in line]

    def _answers(self, written: int) -> bool:
        """Wait until it answers, as it has said in its log beyond so many bytes; False if it ends.

        Without a look at the log a stranger that took the port before us would be taken for it.
        """
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        with httpx2.Client(base_url=self.url, timeout=60, trust_env=False, verify=False) as client:
            while time.monotonic() < until and self._process.poll() is None:
                try:
                    if GREETING in self.log.read_bytes()[written:] and client.get("/health").status_code == 200:
                        return True
                except httpx2.TransportError:
                    pass
                time.sleep(0.01)
        return False


AMBIENT = ("TASKADE_", "OTEL_")
_IN_PROCESS = threading.Lock()
"""A command that runs in this process has its standard output, which threads share."""
_COMMAND = (sys.executable, "-m", "taskade_server")


def _environment(data: Path, database_url: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(AMBIENT)}
    environment["TASKADE_DATA"] = str(data)
    # Receivers of webhooks are on this machine.
    environment["TASKADE_OUTBOUND_ALLOW"] = "127.0.0.0/8,::1/128"
    # Tests of durability ask for `full`; the others need not wait for the disk.
    environment["TASKADE_SQLITE_SYNCHRONOUS"] = "normal"
    if database_url:
        environment["TASKADE_DATABASE_URL"] = database_url
    return environment
