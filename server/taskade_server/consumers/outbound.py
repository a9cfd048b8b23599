"""The one way out: every request that this server sends to an address somebody typed goes through here.

Why the name is resolved here and not by the library that connects: between a check and a second look-up the answer can
change. A name is looked up once for each attempt, all of its addresses are vetted, and one of these is connected to.
"""

import asyncio
import email.utils
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import h11

from taskade_server import __version__
from taskade_server.kit.destinations import Address, Destination, Network, Refused, Rules

USER_AGENT: Final = f"Taskade-API-server/{__version__}"
Headers = list[tuple[str, str]]
Resolver = Callable[[str], Awaitable[Sequence[str]]]
ERRORS: Final = {
    "bad_url": "the URL cannot be sent to, however its name resolves",
    "bad_header": "one of the given headers cannot be sent",
    "denied_address": "an address of the destination is not public, so that nothing was sent",
    "dns_failure": "the name was not found",
    "connect_failed": "no address of the destination took a connection",
    "tls_failure": "no encrypted connection, or a certificate that is not valid for the name",
    "timeout": "the exchange was not over in time",
    "reset": "the connection was closed before the answer was complete",
    "malformed_response": "the answer is not HTTP/1.1",
    "too_large": "the head of the answer is too large",
}
_RESERVED: Final = re.compile(
    "host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|accept-encoding|proxy-.*",
    re.IGNORECASE,
)
_NAME: Final = re.compile("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_VALUE: Final = re.compile("(?:[!-~](?:[ -~]{0,4094}[!-~])?)?")
_SECONDS: Final = re.compile("[0-9]{1,9}")
_SOCKET_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer and one client may take."""

    body: int = 16 * 1024
    head: int = 32 * 1024
    headers: int = 100
    informational: int = 8
    addresses: int = 4
    idle: int = 512
    idle_per_destination: int = 32
    idle_seconds: float = 15.0
    lookups: int = 64


@dataclass(slots=True)
class Exchange:
    """What became of a request. It was answered in full, or up to the cap of the body, if `error` is None.

    `status` may be known although there is an error: the body was cut off. `error` is one of ERRORS, `detail` says
    it in a sentence. `phases` has the milliseconds of dns, connect, tls and first_byte, as far as they came about.
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

    @property
    def ok(self) -> bool:
        """Whether the other side has taken it: a 2xx, and nothing went wrong."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


class _Failed(Exception):
    """The exchange did not come off; `detail` is a sentence."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        self.detail = detail


def header_refusal(name: str, value: str) -> str | None:
    """Why a header cannot be sent, in one sentence; None if it can."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a header's name: letters, digits and hyphens are."
    if _RESERVED.fullmatch(name):
        return f"The header {name} is set by the connection itself."
    if not _VALUE.fullmatch(value):
        return f"The value of {name} must be printable ASCII of at most 4,096 characters, without spaces around it."
    return None


# ---- one connection --------------------------------------------------------------------------------------------------


class _Wire(asyncio.Protocol):
    """A connection, and the exchange on it. What arrives is read at once and never piles up.

    Why a protocol of the event loop and not streams: reading ends where the cap is, without a task or a buffer between.
    """

    def __init__(self, limits: Limits, address: str) -> None:
        self.address = address
        self.usable = True
        self.answered = False  # whether anything of the answer has arrived
        self.idle_since = 0.0
        self._limits = limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._done: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._room = 0
        self._informational = 0
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    async def exchange(self, method: str, target: str, body: bytes, exchange: Exchange, began: float) -> None:
        """Send a request and read its answer into `exchange`. _Failed if that does not come off."""
        assert self._transport is not None
        self._exchange, self._began, self.answered = exchange, began, False
        self._chunks, self._room, self._informational = [], self._limits.body, 0
        self._done = asyncio.get_running_loop().create_future()
        try:
            if not self.usable:
                raise _Failed("reset", "The connection was closed before the request was sent.")
            request = h11.Request(method=method, target=target, headers=exchange.request_headers)
            text = self._http.send(request) or b""
            if body:
                text += self._http.send(h11.Data(body)) or b""
            self._transport.write(text + (self._http.send(h11.EndOfMessage()) or b""))
            await self._done
        finally:
            exchange.body = b"".join(self._chunks)
            self._done = self._exchange = None
            if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE} or self._unsent():
                self.abort()
            elif self.usable:
                self._http.start_next_cycle()

    def _unsent(self) -> bool:
        """Whether the answer came before the request was through."""
        return self._transport is None or self._transport.get_write_buffer_size() > 0

    def abort(self) -> None:
        """Close at once, whatever is still to come."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection as one should."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self.abort()  # nobody asked
            return
        if not self.answered and self._exchange is not None:
            self.answered = True
            self._exchange.phases["first_byte"] = _since(self._began)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        self.usable = False
        if self._done is not None and not self._done.done():
            if self.answered:
                self._http.receive_data(b"")
                self._advance()
            self._finish(_Failed("reset", self._cut_off()))

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if isinstance(error, ssl.SSLError):
            self._finish(_Failed("tls_failure", f"The encrypted connection broke: {_reason(error)}."))
        else:
            self._finish(_Failed("reset", self._cut_off()))

    def _cut_off(self) -> str:
        if not self.answered:
            return "The connection was closed without an answer."
        return "The connection was closed in the middle of the answer."

    def _finish(self, failure: _Failed | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if failure is None:
            self._done.set_result(None)
        else:
            self.usable = False
            self._done.set_exception(failure)

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
                self._finish(
                    _Failed("too_large", f"The head of the answer is longer than {self._limits.head:,} bytes.")
                )
            elif not self.usable:
                self._finish(_Failed("reset", self._cut_off()))
            else:
                self._finish(_Failed("malformed_response", f"The answer is not HTTP/1.1: {error}."))

    def _take(self, event: Any) -> None:
        assert self._exchange is not None
        if isinstance(event, h11.Data):
            self._take_data(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._finish()
        elif isinstance(event, h11.Response):
            if len(event.headers) > self._limits.headers:
                self._finish(_Failed("too_large", f"The answer has more than {self._limits.headers} headers."))
                return
            self._exchange.status = event.status_code
            self._exchange.response_headers = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
            ]
        elif isinstance(event, h11.InformationalResponse):
            self._informational += 1
            if self._informational > self._limits.informational:
                self._finish(_Failed("malformed_response", "The answer never gets beyond provisional ones (1xx)."))
        else:
            self._finish(_Failed("reset", self._cut_off()))

    def _take_data(self, data: bytes) -> None:
        assert self._exchange is not None
        self._chunks.append(data[: self._room])
        if len(data) > self._room:
            self._exchange.truncated = True
            self._finish()
        self._room = max(0, self._room - len(data))


# ---- names -----------------------------------------------------------------------------------------------------------


class SystemResolver:
    """The system's resolver, one thread for each name that is being looked up.

    Why threads of its own that nobody waits for at the end: a look-up cannot be given up, and one that hangs must hold
    up neither other names nor the end of the process. Attempts to one name at the same time share its look-up.
    """

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._running: dict[str, asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str) -> list[str]:
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = asyncio.create_task(self._look_up(host))
            running.add_done_callback(partial(self._forget, host))
        return await asyncio.shield(running)

    def _forget(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._running[host]
        if not task.cancelled():
            task.exception()  # seen, even if whoever asked has left

    async def _look_up(self, host: str) -> list[str]:
        async with self._free:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[list[str]] = loop.create_future()
            threading.Thread(target=_ask_system, args=(loop, answer, host), daemon=True, name="look-up").start()
            return await answer

    def cancel(self) -> None:
        """Leave what is running to itself."""
        for task in list(self._running.values()):
            task.cancel()


def _ask_system(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[str]]", host: str) -> None:
    """In a thread: put a name's addresses, or why there are none, into `answer`."""
    found: list[str] = []
    failure: OSError | None = None
    try:
        # As bytes: Python would prepare a text by the rules of 2003 for international names.
        answers = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)
        found = [str(entry[4][0]) for entry in answers]
    except OSError as error:
        failure = error

    def settle() -> None:
        if answer.done():
            return
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has ended meanwhile


# ---- the client ------------------------------------------------------------------------------------------------------


class Outbound:
    """A client for addresses that strangers chose. It belongs to the event loop it is first used in."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolver: Resolver | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.rules = Rules(allowed)
        self._limits = limits
        self._system = SystemResolver(limits.lookups) if resolver is None else None
        self._resolve: Resolver = resolver or self._system or SystemResolver(limits.lookups)
        self._idle: dict[tuple[str, str, int, Address], deque[_Wire]] = {}
        self._idle_count = 0
        self._sweeping: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def refusal(self, url: str) -> str | None:
        """Why a URL cannot be registered, in one sentence; None if nothing is wrong with it so far."""
        return self.rules.refusal(url)

    async def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str] | Headers,
        timeout: float = 20.0,
        method: str = "POST",
    ) -> Exchange:
        """Send one request; what the other side does or fails to do is in the result, and nothing is raised for it.

        `timeout` bounds the whole: name, connection, request, and the answer to its last byte. A redirect is an answer
        like any other. If a kept connection turns out to be closed, the request is sent once more on a new one.
        """
        began = time.perf_counter()
        exchange = Exchange()
        try:
            async with asyncio.timeout(timeout):
                destination = self.rules.parse(url)
                exchange.request_headers = _headers(destination, method, body, headers)
                await self._attempt(destination, method, body, exchange, began)
        except Refused as refused:
            exchange.error, exchange.detail = refused.code, str(refused)
        except _Failed as failed:
            exchange.error, exchange.detail = failed.error, failed.detail
        except TimeoutError:
            exchange.error, exchange.detail = "timeout", _timeout_detail(exchange, timeout)
        exchange.duration_ms = _since(began)
        exchange.retry_after = _retry_after(exchange.response_headers)
        return exchange

    async def close(self) -> None:
        """Close the connections that are kept."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for wires in self._idle.values():
            for wire in wires:
                wire.abort()
        self._idle.clear()
        if self._system is not None:
            self._system.cancel()
        await asyncio.sleep(0)  # the transports say goodbye in the next turn of the loop

    async def _attempt(
        self, destination: Destination, method: str, body: bytes, exchange: Exchange, began: float
    ) -> None:
        addresses = await self._vetted(destination, exchange)
        wire = self._take_idle(destination, addresses)
        if wire is not None:
            exchange.reused, exchange.address = True, wire.address
            try:
                await self._carry(wire, destination, method, body, exchange, began)
                return
            except _Failed as failed:
                if failed.error != "reset" or wire.answered:
                    raise
                exchange.reused = False
        wire = await self._connect(destination, addresses, exchange)
        await self._carry(wire, destination, method, body, exchange, began)

    async def _carry(
        self, wire: _Wire, destination: Destination, method: str, body: bytes, exchange: Exchange, began: float
    ) -> None:
        await wire.exchange(method, destination.target, body, exchange, began)
        self._keep(wire, destination)

    # -- addresses

    async def _vetted(self, destination: Destination, exchange: Exchange) -> list[Address]:
        if destination.literal is not None:
            return self.rules.vet(destination.host, [str(destination.literal)])
        began = time.perf_counter()
        try:
            answers = await self._resolve(destination.host)
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise _Failed("dns_failure", f"The name {destination.host} was not found: {_reason(error)}.") from error
        exchange.phases["dns"] = _since(began)
        return self.rules.vet(destination.host, answers)

    # -- connections

    async def _connect(self, destination: Destination, addresses: list[Address], exchange: Exchange) -> _Wire:
        """A connection to the first of the vetted addresses that takes one."""
        candidates = addresses[: self._limits.addresses]
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for number, address in enumerate(candidates, 1):
            exchange.address = (
                f"[{address}]:{destination.port}" if address.version == 6 else f"{address}:{destination.port}"
            )
            # One that does not answer must leave time for the next.
            share = None if number == len(candidates) else 3.0
            sock: socket.socket | None = None
            try:
                sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
                async with asyncio.timeout(share):
                    await loop.sock_connect(sock, (str(address), destination.port))
            except (OSError, TimeoutError) as error:
                if sock is not None:
                    sock.close()
                if number == len(candidates):
                    raise _Failed(
                        "connect_failed", f"No connection to {exchange.address}: {_reason(error)}."
                    ) from error
            except BaseException:
                if sock is not None:
                    sock.close()
                raise
            else:
                exchange.phases["connect"] = _since(began)
                return await self._speak(sock, destination, exchange)
        raise AssertionError("there is at least one address")

    async def _speak(self, sock: socket.socket, destination: Destination, exchange: Exchange) -> _Wire:
        """HTTP on a connected socket, through TLS if that is asked for."""
        assert exchange.address is not None
        wire = _Wire(self._limits, exchange.address)
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        secure: dict[str, Any] = {}
        if destination.scheme == "https":
            secure = {"ssl": self._context(), "server_hostname": destination.host}
        try:
            await loop.create_connection(lambda: wire, sock=sock, **secure)
        except ssl.SSLError as error:
            raise _Failed("tls_failure", f"No encrypted connection to {destination.host}: {_reason(error)}.") from error
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            code = "tls_failure" if secure else "connect_failed"
            raise _Failed(code, f"No connection to {destination.host}: {_reason(error)}.") from error
        except BaseException:
            wire.abort()
            raise
        if secure:
            exchange.phases["tls"] = _since(began)
        return wire

    def _context(self) -> ssl.SSLContext:
        """Trusts what the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name other authorities."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    # -- connections that are kept

    def _take_idle(self, destination: Destination, addresses: list[Address]) -> _Wire | None:
        """A kept connection to one of the addresses that this attempt has vetted."""
        oldest = time.monotonic() - self._limits.idle_seconds
        for address in addresses:
            wires = self._idle.get((destination.scheme, destination.host, destination.port, address))
            while wires:
                wire = wires.pop()
                self._idle_count -= 1
                if wire.usable and wire.idle_since > oldest:
                    return wire
                wire.close()
        return None

    def _keep(self, wire: _Wire, destination: Destination) -> None:
        if not wire.usable:
            return
        text = wire.address.rpartition(":")[0].strip("[]")
        (address,) = self.rules.vet(destination.host, [text])
        wires = self._idle.setdefault((destination.scheme, destination.host, destination.port, address), deque())
        if self._closed or self._idle_count >= self._limits.idle or len(wires) >= self._limits.idle_per_destination:
            wire.close()
            return
        wire.idle_since = time.monotonic()
        wires.append(wire)
        self._idle_count += 1
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        self._sweeping = None
        oldest = time.monotonic() - self._limits.idle_seconds
        for key, wires in list(self._idle.items()):
            while wires and (wires[0].idle_since <= oldest or not wires[0].usable):
                wires.popleft().close()
                self._idle_count -= 1
            if not wires:
                del self._idle[key]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(self._limits.idle_seconds / 2, self._sweep)


# ---- small parts -----------------------------------------------------------------------------------------------------


def _headers(destination: Destination, method: str, body: bytes, given: Mapping[str, str] | Headers) -> Headers:
    """All headers of a request. Refused if one of the given cannot be sent."""
    pairs = list(given.items()) if isinstance(given, Mapping) else list(given)
    for name, value in pairs:
        reason = header_refusal(name, value)
        if reason is not None:
            raise Refused("bad_header", reason)
    names = {name.lower() for name, _ in pairs}
    headers = [("Host", destination.authority)]
    headers += [pair for pair in (("User-Agent", USER_AGENT), ("Accept", "*/*")) if pair[0].lower() not in names]
    headers += [("Accept-Encoding", "identity"), *pairs]
    if body or method not in ("GET", "HEAD"):
        headers.append(("Content-Length", str(len(body))))
    return headers


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _reason(error: BaseException) -> str:
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


def _timeout_detail(exchange: Exchange, timeout: float) -> str:
    phases = exchange.phases
    if exchange.status is not None:
        what = "The answer began but did not end"
    elif "first_byte" in phases:
        what = "The head of the answer did not end"
    elif exchange.reused or "connect" in phases:
        what = "There was no answer"
    elif exchange.address is not None:
        what = f"There was no connection to {exchange.address}"
    else:
        what = "The name was not resolved"
    return f"{what} within {timeout:g} seconds."


def _retry_after(headers: Headers) -> float | None:
    """How many seconds the other side asks to be left alone, in either of the header's forms."""
    text = next((value.strip() for name, value in headers if name == "retry-after"), None)
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
