"""A receiver of webhooks on a port of its own: it keeps what it got, and answers as it is told.

Why a real socket and not a mock: what a receiver may do wrong it does on the wire.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Received(NamedTuple):
    """One request: when (epoch seconds), its path, its headers by lower-case name, its body."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Answer = Callable[[Received], tuple[int, dict[str, str]]]


def taken(received: Received) -> tuple[int, dict[str, str]]:
    """The usual answer."""
    return 200, {}


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Whoever sends may be killed in the middle of it."""


class Receiver:
    """Receives at `url` within a `with` block; `answer` decides on the status and the headers of each answer."""

    def __init__(self, answer: Answer = taken) -> None:
        self.answer = answer
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                found = Received(time.time(), self.path, headers, body)
                status, more = receiver.answer(found)
                receiver.received.append(found)
                self.send_response(status)
                for name, value in {"content-length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Not into the tests' output."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, count: int, seconds: float = 180.0) -> list[Received]:
        """What was received, once that is so many requests."""
        until = time.monotonic() + seconds
        while len(self.received) < count:
            assert time.monotonic() < until, f"{len(self.received)} of {count} requests arrived within {seconds} s"
            time.sleep(0.005)
        return list(self.received)
