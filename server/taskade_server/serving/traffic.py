"""Counts the requests under way, so that a process that ends can finish them."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Requests(Protocol):
    """What counts the requests of a process."""

    asked: int
    """How many requests there have been."""

    @property
    def under_way(self) -> int:
        """How many have no response yet."""


@dataclass(slots=True)
class Traffic:
    """Whether the process is about to stop, and what to call when it does."""

    ending: bool = False
    leaving: list[Callable[[], None]] = field(default_factory=list)
    """Called once no new connections are accepted: it ends streams, which would go on otherwise."""

    def carry(self, application: Application, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on. While the process is stopping, the response closes the connection."""
        if self.ending or scope["method"] not in _BODILESS:
            exchange = _Exchange(self, scope, receive, send)
            receive, send = exchange.receive, exchange.send
        return application(scope, receive, send)


_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LEFT_SECONDS: Final = 1.0
_LEFT_BYTES: Final = 64 << 10


class _Exchange:
    """A request and its response, so that the client knows whether the connection stays open.

    Why it matters: Granian closes a connection without saying so when a response is sent before the whole request was
    read, as happens for a wrong key; the next request of the client on it would be lost. So what is left of a small
    body is read first, and for a large one the response says that the connection closes.
    """

    __slots__ = ("_receive", "_scope", "_send", "_traffic", "_unread")

    def __init__(self, traffic: Traffic, scope: Message, receive: Receive, send: Send) -> None:
        self._traffic, self._scope, self._receive, self._send = traffic, scope, receive, send
        self._unread = scope["method"] not in _BODILESS

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = bool(message.get("more_body"))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if (self._unread or self._traffic.ending) and message["type"] == "http.response.start":
            return self._send_head(message)
        return self._send(message)

    async def _send_head(self, message: Message) -> None:
        if self._unread:
            await self._read_what_is_left()
        if self._unread or self._traffic.ending:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def _read_what_is_left(self) -> None:
        if any(name == b"expect" for name, _ in self._scope["headers"]):
            return  # it waits for our word before it sends the body
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEFT_SECONDS):
                while self._unread and size <= _LEFT_BYTES:
                    size += len((await self.receive()).get("body", b""))
