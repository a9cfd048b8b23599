"""A plain JSON client for what is not measured: setting up, filling and checking. One keep-alive connection."""

import http.client
import socket
import subprocess
import time
from typing import Any

import msgspec


class Failed(Exception):
    """A server answered something else than success; the message is its answer."""


class Client:
    def __init__(self, port: int, headers: dict[str, str] | None = None, timeout: float = 120) -> None:
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def raw(self, method: str, path: str, body: bytes | None = None) -> bytes:
        if self._connection.sock is None:
            self._connection.connect()
            connected: Any = self._connection.sock  # typeshed says Any | None, and connect() has just set it
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.request(method, path, body, self.headers)
        response = self._connection.getresponse()
        answer = response.read()
        if not 200 <= response.status < 300:
            text = answer[:600].decode("utf-8", "replace")
            raise Failed(f"{method} {path[:200]} answered {response.status}: {text}")
        return answer

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.raw(method, path, None if body is None else msgspec.json.encode(body))
        return msgspec.json.decode(answer) if answer else None


def wait_until_up(port: int, path: str, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Return when a path answers 2xx; say so when the server has ended or takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"the server ended with status {process.returncode} while starting")
        try:
            Client(port, timeout=2).raw("GET", path)
            return
        except (OSError, http.client.HTTPException, Failed):
            time.sleep(0.05)
    raise Failed(f"the server did not answer {path} within {seconds:.0f} seconds")
