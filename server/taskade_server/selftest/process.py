"""A real `taskade serve` in a process of its own, to be killed and started again.

Why the plain command in a plain process: what crashes and recovers here is what does so in production.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from taskade_server.kit import json
from taskade_server.selftest.client import HttpClient

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.005
FIRED: Final = "fired"
# What a server says whenever it is about to serve.
GREETING: Final = b"  listening "


class ServerFailed(Exception):
    """The server did not do what every server has to: start, or stop when asked to."""


class Server:
    """A server on a data folder, on the same port whenever it is started.

    With `with_faults` it can be told (`trap`) to fail at a certain place: see `fault_injection`. `wrap` goes before the
    command.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        *,
        database_url: str = "",
        with_faults: bool = False,
        wrap: Sequence[str] = (),
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.key = key
        self.port = _free_port()
        self.with_faults = with_faults
        self.answers_at = "/v1/tasks?limit=1"
        self._wrap = wrap
        self._arguments = ["serve", "--port", str(self.port), "--data", str(self.data), "--rate-limit", "off"]
        self._arguments += ["--database-url", database_url] if database_url else []
        self._arguments += arguments
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKADE_")}
        self._environment |= {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self, trap: Mapping[str, object] | None = None) -> None:
        """Start the process, without waiting for it. `trap` is set before it opens its database."""
        module = ["taskade_server"]
        if self.with_faults:
            self._fired.unlink(missing_ok=True)
            module = ["taskade_server.selftest.fault_injection", str(self._fired), json.encode(trap or {})]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrap, sys.executable, "-m", *module, *self._arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> float:
        """Start it and wait for its first answer to a request with a key; the seconds that took."""
        begin = time.monotonic()
        self.launch()
        self.wait_for_answer()
        return time.monotonic() - begin

    def wait_for_answer(self) -> None:
        """ServerFailed when it ends, or does not answer for START_SECONDS."""
        until = time.monotonic() + START_SECONDS
        with HttpClient(self.port, self.key, timeout=30) as client:
            while time.monotonic() < until and self.alive:
                if client.ask("GET", self.answers_at).status == 200:
                    return
                time.sleep(POLL_SECONDS)
        raise ServerFailed(f"the server does not answer:\n{self.said()}")

    def trap(self, trap: Mapping[str, object]) -> None:
        """Tell a with_faults server where to fail next."""
        self._fired.unlink(missing_ok=True)
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.encode_bytes(trap) + b"\n")
        except BrokenPipeError as error:
            raise ServerFailed(f"the server ended:\n{self.said()}") from error

    @property
    def fired(self) -> int:
        """How often the trap has snapped."""
        return self._fired.stat().st_size if self._fired.exists() else 0

    @property
    def incarnations(self) -> int:
        """How often it was started, or has replaced itself."""
        return self._log.read_bytes().count(GREETING)

    @property
    def _fired(self) -> Path:
        return self.folder / FIRED

    def wait_for_end(self, seconds: float) -> int | None:
        """Its exit code (negative for a signal), or None if it goes on."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it without a warning, with all the processes that it has started."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._forget()

    def stop(self) -> None:
        """Ask it to end, and see that it does so properly."""
        if self._process is None:
            return
        self._process.terminate()
        code = self.wait_for_end(STOP_SECONDS)
        if code != 0:
            self.kill()
            raise ServerFailed(f"the server {'did not stop' if code is None else f'ended with {code}'}:\n{self.said()}")
        self._forget()

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
