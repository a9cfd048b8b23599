"""One connection to a receiver: its bounds, its bytes, and what came of an exchange."""

import asyncio
import os
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final, cast

import h11

from taskade_server.kit.destinations import Address

Headers = list[tuple[str, str]]
SOCKET_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer and one client may take. `connect_seconds` is for an address that has another one after it."""

    body: int = 16 * 1024
    head: int = 32 * 1024
    headers: int = 100
    informational: int = 8
    addresses: int = 4
    connect_seconds: float = 3.0
    idle: int = 512
    idle_per_destination: int = 32
    idle_seconds: float = 15.0
    lookups: int = 64

    @property
    def raw(self) -> int:
        """Bytes of an answer with all that is around its body: chunks may be small, but not mostly wrapping."""
        return self.head * (self.informational + 1) + self.body * 8


DEFAULT_LIMITS: Final = Limits()


@dataclass(slots=True)
class Exchange:
    """What became of a request. It was answered in full, or up to the cap of the body, if `error` is None.

    `status` may be known although there is an error: the body was cut off. `error` is one of ERRORS or SHORTAGE,
    `detail` says it in a sentence. `phases` has the milliseconds spent on dns, connect, tls and the wait for the
    first_byte. `reused`: on a connection that was kept.
    """

    status: int | None = None
    address: str | None = None
    request_headers: Headers = field(default_factory=list)
    response_headers: Headers = field(default_factory=list)
    body: bytes = b""
    truncated: bool = False
    duration_ms: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    detail: str | None = None
    retry_after: float | None = None
    reused: bool = False
    lacking: bool = False
    """Whether nothing was sent because this server lacks files, memory or ports: then `error` is SHORTAGE."""

    @property
    def ok(self) -> bool:
        """Whether the other side has taken it: a 2xx, and nothing went wrong."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


class Failed(Exception):
    """The exchange did not come off; `detail` is a sentence."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        self.detail = detail


@dataclass(slots=True)
class Attempt:
    """One request on its way."""

    method: str
    body: bytes
    timeout: float
    exchange: Exchange

    def refine(self, phase: str, began: float) -> None:
        self.exchange.phases[phase] = since(began)


class Wire(asyncio.Protocol):
    """A connection, and the exchange on it. What arrives is read at once and never piles up.

    Why a protocol of the event loop and not streams: reading ends where the cap is, without a task or a buffer between.
    """

    def __init__(self, limits: Limits, key: "Key", address: str) -> None:
        self.key = key
        self.address = address
        self.usable = True
        self.answered = False
        """Whether anything of the answer has arrived."""
        self.idle_since = 0.0
        self._limits = limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head)
        self._transport: asyncio.Transport | None = None
        self._exchange = Exchange()
        self._done: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._room = self._raw = self._informational = 0
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    async def carry(self, target: str, attempt: Attempt) -> None:
        """Send a request and read its answer into the attempt's exchange. Failed if that does not come off."""
        exchange = self._exchange = attempt.exchange
        self._chunks, self._room, self._raw, self._informational = [], self._limits.body, 0, 0
        self.answered = False
        self._done = asyncio.get_running_loop().create_future()
        try:
            self._send(target, attempt)
            await self._done
        finally:
            exchange.body = b"".join(self._chunks)
            self._done = None
            if not self._is_over():
                self.abort()
            elif self._http.their_state is h11.DONE and self.usable:
                self._http.start_next_cycle()
            else:
                self.close()

    def _send(self, target: str, attempt: Attempt) -> None:
        if self._transport is None or not self.usable:
            raise Failed("reset", "The connection was closed before the request was sent.")
        request = h11.Request(method=attempt.method, target=target, headers=attempt.exchange.request_headers)
        text = self._http.send(request) or b""
        if attempt.body:
            text += self._http.send(h11.Data(attempt.body)) or b""
        self._sent = time.perf_counter()
        self._transport.write(text + (self._http.send(h11.EndOfMessage()) or b""))

    def _is_over(self) -> bool:
        """Whether both sides have said all they had to say, and nothing else was heard."""
        if self._transport is None or self._transport.get_write_buffer_size() > 0 or self._http.trailing_data[0]:
            return False
        ended = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        return self._http.our_state in ended and self._http.their_state in ended

    def abort(self) -> None:
        """Close at once, whatever is still to come."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close as one should."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    # -- what the event loop tells

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self.abort()  # nobody asked
            return
        if not self.answered:
            self.answered = True
            self._exchange.phases["first_byte"] = since(self._sent)
        self._raw += len(data)
        self._http.receive_data(data)
        self._advance()
        if self._raw > self._limits.raw:
            self._finish(Failed("too_large", f"The answer has {self._limits.raw:,} bytes around its body."))

    def eof_received(self) -> None:
        self.usable = False
        if self._done is not None and not self._done.done():
            if self.answered:
                self._http.receive_data(b"")
                self._advance()
            self._finish(self._cut_off())

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if isinstance(error, ssl.SSLError):
            self._finish(Failed("tls_failure", f"The encrypted connection broke: {reason(error)}."))
        else:
            self._finish(self._cut_off())

    # -- what the answer says

    def _advance(self) -> None:
        """Take in what is complete."""
        try:
            while self._done is not None and not self._done.done():
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self._finish(self._too_long())
            elif not self.usable:
                self._finish(self._cut_off())
            else:
                self._finish(Failed("malformed_response", f"The answer is not HTTP/1.1: {error}."))

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Data):
            self._take_data(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._finish()
        elif isinstance(event, h11.Response):
            self._take_head(event)
        elif isinstance(event, h11.InformationalResponse):
            self._informational += 1
            if self._informational > self._limits.informational:
                self._finish(Failed("malformed_response", "The answer never gets beyond provisional ones (1xx)."))
        else:
            self._finish(self._cut_off())

    def _take_head(self, event: h11.Response) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        if event.http_version not in (b"1.0", b"1.1"):
            self._finish(Failed("malformed_response", f"The answer is not HTTP/1.1: {event.http_version!r}."))
        elif len(headers) > self._limits.headers:
            self._finish(Failed("too_large", f"The answer has more than {self._limits.headers} headers."))
        # The parser minds the length of a head that is not there yet; this one came in one piece.
        elif len(event.reason) + sum(len(name) + len(value) for name, value in headers) > self._limits.head:
            self._finish(self._too_long())
        else:
            self._exchange.status, self._exchange.response_headers = event.status_code, headers

    def _too_long(self) -> Failed:
        return Failed("too_large", f"The head of the answer is over {self._limits.head:,} bytes.")

    def _take_data(self, data: bytes) -> None:
        self._chunks.append(data[: self._room])
        if len(data) > self._room:
            self._exchange.truncated = True
            self._finish()
        self._room -= min(len(data), self._room)

    def _cut_off(self) -> Failed:
        if not self.answered:
            return Failed("reset", "The connection was closed without an answer.")
        return Failed("reset", "The connection was closed in the middle of the answer.")

    def _finish(self, failure: Failed | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if failure is None:
            self._done.set_result(None)
        else:
            self.usable = False
            self._done.set_exception(failure)


Key = tuple[str, str, int, Address | None]
"""Scheme, name, port, and the vetted address; None where a proxy vets."""


def since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def reason(error: BaseException) -> str:
    """What the system says, without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"certificate verification failed: {error.verify_message}"
    elif isinstance(error, ssl.SSLError):
        text = (error.reason or "handshake failed").replace("_", " ").lower()
    elif isinstance(error, TimeoutError):
        text = "no answer"
    elif isinstance(error, OSError):
        # The event loop puts its own words, with the address, into a failed connect's.
        number = error.errno or 0
        text = os.strerror(number) if number > 0 else error.strerror or type(error).__name__
    else:
        text = str(error)
    return text[:1].lower() + text[1:].rstrip(".")
