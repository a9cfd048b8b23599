"""The memory budget: bounds what all requests of a process hold together, and how long an answer may take to leave.

Why before the pipeline, and not in it: a bound that each handler has to remember is missing from the next one. Here it
costs a small request a microsecond, and whatever reads a body or answers at length is counted.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from taskade_server.http.wire.request import Receive, Scope, Send, claimed_caller
from taskade_server.http.wire.send import LENGTH, WHOLE_BYTES
from taskade_server.kit.errors import Malformed, Unavailable

Message = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HELD_BYTES: Final = 64 << 20
# One caller never has all of it, so that the others can be answered.
CALLER_SHARE: Final = 2
# A body of this part of it, which is 4 KiB, is not counted: as many as there can be connections are a quarter of it.
SMALL_SHARE: Final = 16_384
# Each piece of a body costs a turn of the event loop, however small it is.
FREE_PIECES: Final = 1000
PIECE_BYTES: Final = 64
DRAIN_SECONDS: Final = 30.0
DRAIN_BYTES_A_SECOND: Final = 64 << 10
_RETRY: Final = {"retry-after": "1"}


class Guard:
    """An ASGI application before another, which answers what is raised here. A caller is a credential or an address."""

    def __init__(
        self,
        application: Application,
        *,
        held_bytes: int = HELD_BYTES,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._application = application
        self._held_bytes = held_bytes
        self.small_bytes = held_bytes // SMALL_SHARE
        self._drain_seconds = drain_seconds
        self._callers: dict[bytes, int] = {}
        self._under_way: set[_Exchange] = set()
        self._sockets: dict[int, Scope] = {}
        self.asked = 0
        self.bytes_held = 0
        self.refused = 0
        self.cut = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and what it takes and gives only as far as there is room."""
        exchange = _Exchange(self, scope, receive, send)
        self.asked += 1
        self._under_way.add(exchange)
        try:
            await self._application(scope, exchange.receive, exchange.send)
        finally:
            self._under_way.discard(exchange)
            if exchange.held:
                self.release(exchange.caller(), exchange.held)

    async def socket(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a WebSocket as under way while it is open. What it holds is bounded elsewhere."""
        self.asked += 1
        self._sockets[id(scope)] = scope
        try:
            await application(scope, receive, send)
        finally:
            del self._sockets[id(scope)]

    @property
    def under_way(self) -> int:
        """How many requests are being answered, and WebSockets open."""
        return len(self._under_way) + len(self._sockets)

    def clients(self) -> set[tuple[str, str]]:
        """The (host, port) of the clients whose requests are under way, or who have a WebSocket open."""
        scopes = [*(exchange.scope for exchange in list(self._under_way)), *list(self._sockets.values())]
        found = (scope.get("client") for scope in scopes)
        return {(str(client[0]), str(client[1])) for client in found if client}

    def hold(self, caller: bytes, number: int, *, force: bool = False) -> None:
        """Count bytes that a request of this caller keeps in memory. Unavailable if that would be too many."""
        if not force and not self.has_room(caller, number):
            self.refused += 1
            raise _no_room()
        self._callers[caller] = self._callers.get(caller, 0) + number
        self.bytes_held += number

    def holds(self, caller: bytes) -> bool:
        """Whether a request of this caller keeps anything in memory."""
        return caller in self._callers

    def has_room(self, caller: bytes, number: int) -> bool:
        """Whether this caller may hold `number` bytes more."""
        mine = self._callers.get(caller, 0) + number
        return self.bytes_held + number <= self._held_bytes and mine <= self._held_bytes // CALLER_SHARE

    def release(self, caller: bytes, number: int) -> None:
        """Count off bytes that a request of this caller no longer keeps."""
        left = self._callers[caller] - number
        if left:
            self._callers[caller] = left
        else:
            del self._callers[caller]
        self.bytes_held -= number

    def drain_limit(self, number: int) -> float:
        """The seconds that a client has to read `number` bytes."""
        return self._drain_seconds + number / DRAIN_BYTES_A_SECOND

    def stats(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "guard_held_bytes": self.bytes_held,
            "guard_refused_total": self.refused,
            "guard_cut_off_total": self.cut,
        }


def _caller_of(scope: Scope) -> bytes:
    credentials = (value for name, value in scope["headers"] if name == b"authorization" and value)
    return claimed_caller(next(credentials, None), scope.get("client"))


def _no_room() -> Unavailable:
    return Unavailable("The server holds as many large requests and answers as it has room for.", headers=_RETRY)


class _Exchange(msgspec.Struct, eq=False):
    """One request and its answer on their way through the guard.

    Nothing that it refers to may refer back to it: such a circle would stay in memory until the collector runs.
    """

    guard: Guard
    scope: Scope
    _receive: Receive
    _send: Send
    _caller: bytes | None = None
    _pieces: int = 0
    _size: int = 0
    held: int = 0

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Exchange({self.scope['method']} {self.scope['path']})"

    def caller(self) -> bytes:
        """The caller: a credential or an address. Most requests end before this is needed."""
        if self._caller is None:
            self._caller = _caller_of(self.scope)
        return self._caller

    async def receive(self) -> Message:
        """A piece of the body. Unavailable or Malformed if the server does not want it."""
        message = await self._receive()
        body = message.get("body")
        if body and (message.get("more_body") or self._pieces or len(body) > self.guard.small_bytes):
            self._pieces += 1
            self._size += len(body)
            if self._pieces > FREE_PIECES + self._size // PIECE_BYTES:
                raise Malformed("The body comes in too many small pieces; send larger ones.")
            self.guard.hold(self.caller(), len(body))
            self.held += len(body)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """A part of the answer. Unavailable at its beginning if there is no room for a large one."""
        body = message.get("body")
        if body is None:
            if LENGTH in message:
                self._require_room(message[LENGTH])
            return self._send(message)
        return self._send(message) if len(body) <= WHOLE_BYTES else self._send_slowly(message)

    async def _send_slowly(self, message: Message) -> None:
        """Pass a large part on as fast as the client takes it, and give it up when that takes too long."""
        body, more = message["body"], message.get("more_body", False)
        self.guard.hold(self.caller(), len(body), force=True)
        self.held += len(body)
        try:
            async with asyncio.timeout(self.guard.drain_limit(len(body))):
                for start in range(0, len(body), WHOLE_BYTES):
                    piece = body[start : start + WHOLE_BYTES]
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                if not more:
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # An answer that is shorter than it said ends the connection.
            self.guard.cut += 1

    def _require_room(self, number: int) -> None:
        """Unavailable if there is no room for an answer of so many bytes, for a caller who holds something already.

        What was written is written, and is answered whatever it takes.
        """
        guard, scope = self.guard, self.scope
        reads = scope["method"] in ("GET", "QUERY") or scope["path"].rstrip("/").endswith("/query")
        if reads and guard.holds(self.caller()) and not guard.has_room(self.caller(), number):
            guard.refused += 1
            raise _no_room()
