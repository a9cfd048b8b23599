"""A client of WebSockets (RFC 6455), small enough to send wrong frames with it, too; it reads in a thread.

Why our own: libraries refuse to send what a server must survive, and answer for a test what it wants to see.
"""

import base64
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE = 60.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """A connection. `status` is that of the answer; `messages` are the JSON of all text frames that came.

    A deaf one reads nothing more than the answer.
    """

    def __init__(self, url: str, key: str, path: str = "/v1/realtime", *, deaf: bool = False) -> None:
        parts = urlsplit(url)
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        if deaf:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((parts.hostname, parts.port))
        nonce = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {nonce}",
        ]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._rest = b""
        try:
            self.status = int(self._head().split(" ")[1])
        except (OSError, ValueError):
            self._socket.close()
            raise
        self.messages: list[Any] = []
        self.code: int | None = None
        self.ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if self.status == 101 and not deaf:
            self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def problem(self) -> Any:
        """The document of a refusal."""
        while True:
            with suppress(ValueError):
                return json.loads(self._rest)
            self._rest += self._socket.recv(65536)

    def send(self, **message: Any) -> None:
        """Send a message."""
        self.frame(TEXT, json.dumps(message).encode())

    def frame(self, kind: int, data: bytes) -> None:
        """Send a frame, masked with zeros."""
        length = len(data)
        head = bytes([0x80 | kind])
        if length < 126:
            head += bytes([0x80 | length])
        else:
            head += (
                bytes([0x80 | 126]) + struct.pack(">H", length)
                if length < 65536
                else (bytes([0x80 | 127]) + struct.pack(">Q", length))
            )
        self._socket.sendall(head + bytes(4) + data)

    def until(self, enough: Callable[[list[Any]], Any], seconds: float = PATIENCE) -> list[Any]:
        """The messages, once they are enough."""
        with self._changed:
            if not self._changed.wait_for(lambda: enough(self.messages), seconds):
                raise AssertionError(f"not within {seconds} s: {str(self.messages)[-2000:]}")
            return list(self.messages)

    def until_type(self, name: str, count: int = 1, **members: Any) -> Any:
        """The latest message of a type (and with these members), once there are so many."""

        def fitting(messages: list[Any]) -> list[Any]:
            return [item for item in messages if {**item, "type": name, **members} == item]

        return fitting(self.until(lambda messages: len(fitting(messages)) >= count))[-1]

    def until_end(self, seconds: float = PATIENCE) -> list[Any]:
        """The messages, once the server has closed the connection; `code` says why."""
        self._reader.join(seconds)
        assert not self._reader.is_alive(), "the connection stays open"
        return list(self.messages)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader.is_alive():
            self._reader.join(PATIENCE)
        self._socket.close()

    def _head(self) -> str:
        while b"\r\n\r\n" not in self._rest:
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the server hung up")
            self._rest += more
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        return head.decode("latin-1")

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the server hung up")
            self._rest += more
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _read(self) -> None:
        with suppress(OSError):
            self._socket.settimeout(None)
            while self.code is None:
                first, length = self._take(2)
                if length == 126:
                    (length,) = struct.unpack(">H", self._take(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", self._take(8))
                data = self._take(length)
                with self._changed:
                    if first & 15 == TEXT:
                        self.messages.append(json.loads(data))
                    elif first & 15 == CLOSE:
                        self.code = struct.unpack(">H", data[:2])[0] if data else 1005
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()
