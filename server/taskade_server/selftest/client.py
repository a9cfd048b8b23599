"""The selftest's clients: one over HTTP with nothing but the standard library, one that calls the application directly.

Why a lost answer is not a failure: the client cannot know what became of its request, and that is what the selftest is
about.
"""

import http.client
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from taskade_server.http.wire.request import Scope
from taskade_server.kit import json
from taskade_server.selftest.ledger import Fate

TIMEOUT_SECONDS: Final = 120.0
REPLAYED: Final = "idempotent-replayed"


@dataclass(slots=True)
class Answer:
    """What a client knows after a request. `status` is 0 without an answer; `left`: the request went out."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    left: bool = True

    @property
    def fate(self) -> Fate:
        """What the answer promises."""
        if 200 <= self.status < 300:
            return "acknowledged"
        if self.status == 0:
            return "unknown" if self.left else "refused"
        return "unknown" if self.code == "outcome-unknown" else "refused"

    @property
    def code(self) -> str:
        """The code of a problem."""
        try:
            return str(json.decode(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def in_order(self) -> bool:
        """Whether a server in trouble may answer so: with success, or 503 that says when to come again."""
        refused = self.status == HTTPStatus.SERVICE_UNAVAILABLE and self.headers.get("retry-after", "").isdigit()
        return 200 <= self.status < 300 or self.status == 0 or refused


def judged_again(name: str, happened: bool, answer: Answer) -> list[str]:
    """What is wrong with the answer to a request that was sent again with its key, once its first fate was known."""
    if answer.fate != "acknowledged":
        return [f"{name}, sent again, was answered {answer.status} {answer.body[:300]!r}"]
    if (answer.headers.get(REPLAYED) == "true") is not happened:
        return [f"{name}, sent again, was {'applied again' if happened else 'taken for applied'}"]
    return []


def headers_for(key: str, body: bytes | None, idempotency_key: str = "") -> dict[str, str]:
    """The headers of a request."""
    headers = {"authorization": f"Bearer {key}"}
    if body is not None:
        headers["content-type"] = "application/json"
    if idempotency_key:
        headers["idempotency-key"] = idempotency_key
    return headers


class HttpClient(AbstractContextManager["HttpClient"]):
    """One connection at a time, kept open while the server keeps it."""

    def __init__(self, port: int, key: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._key = key

    def ask(self, method: str, path: str, body: Any = None, idempotency_key: str = "") -> Answer:
        """Send one request, once."""
        content = None if body is None else json.encode_bytes(body)
        headers = headers_for(self._key, content, idempotency_key)
        connection = self._connection
        left = False
        try:
            if connection.sock is None:
                connection.connect()
            left = True
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        except (OSError, http.client.HTTPException):
            connection.close()
            return Answer(0, left=left)

    def close(self) -> None:
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()


async def ask_application(
    application: Any, key: str, method: str, path: str, body: Any = None, idempotency_key: str = ""
) -> Answer:
    """One request straight into an ASGI application."""
    content = None if body is None else json.encode_bytes(body)
    url = urlsplit(path)
    headers = {"host": "selftest", **headers_for(key, content, idempotency_key)}
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    answer = Answer(0)
    chunks: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content or b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            chunks.append(message.get("body", b""))

    await application(scope, receive, send)
    answer.body = b"".join(chunks)
    return answer
