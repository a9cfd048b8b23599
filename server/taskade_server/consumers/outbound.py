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
from taskade_server.kit.destinations import Address, Destination, Network, Refused, Rules, header_refusal

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
_PROXY: Final = re.compile(r"http://(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[a-z0-9_.-]+)):(?P<port>[0-9]{1,5})/?")
_SECONDS: Final = re.compile("[0-9]{1,9}")
_SOCKET_BYTES: Final = 64 * 1024


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


@dataclass(slots=True)
class Exchange:
    """What became of a request. It was answered in full, or up to the cap of the body, if `error` is None.

    `status` may be known although there is an error: the body was cut off. `error` is one of ERRORS, `detail` says it
    in a sentence. `phases` has the milliseconds spent on dns, connect, tls and the wait for the first_byte. `reused`:
    on a connection that was kept.
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


@dataclass(slots=True)
class _Attempt:
    """One request on its way."""

    method: str
    body: bytes
    timeout: float
    exchange: Exchange

    def refine(self, phase: str, began: float) -> None:
        self.exchange.phases[phase] = _since(began)


# ---- one connection --------------------------------------------------------------------------------------------------


class _Wire(asyncio.Protocol):
    """A connection, and the exchange on it. What arrives is read at once and never piles up.

    Why a protocol of the event loop and not streams: reading ends where the cap is, without a task or a buffer between.
    """

    def __init__(self, limits: Limits, key: "_Key", address: str) -> None:
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

    async def carry(self, target: str, attempt: _Attempt) -> None:
        """Send a request and read its answer into the attempt's exchange. _Failed if that does not come off."""
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

    def _send(self, target: str, attempt: _Attempt) -> None:
        if self._transport is None or not self.usable:
            raise _Failed("reset", "The connection was closed before the request was sent.")
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
            self._exchange.phases["first_byte"] = _since(self._sent)
        self._raw += len(data)
        self._http.receive_data(data)
        self._advance()
        if self._raw > self._limits.raw:
            self._finish(_Failed("too_large", f"The answer has {self._limits.raw:,} bytes around its body."))

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
            self._finish(_Failed("tls_failure", f"The encrypted connection broke: {_reason(error)}."))
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
                self._finish(_Failed("malformed_response", f"The answer is not HTTP/1.1: {error}."))

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
                self._finish(_Failed("malformed_response", "The answer never gets beyond provisional ones (1xx)."))
        else:
            self._finish(self._cut_off())

    def _take_head(self, event: h11.Response) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        if event.http_version not in (b"1.0", b"1.1"):
            self._finish(_Failed("malformed_response", f"The answer is not HTTP/1.1: {event.http_version!r}."))
        elif len(headers) > self._limits.headers:
            self._finish(_Failed("too_large", f"The answer has more than {self._limits.headers} headers."))
        # The parser minds the length of a head that is not there yet; this one came in one piece.
        elif len(event.reason) + sum(len(name) + len(value) for name, value in headers) > self._limits.head:
            self._finish(self._too_long())
        else:
            self._exchange.status, self._exchange.response_headers = event.status_code, headers

    def _too_long(self) -> _Failed:
        return _Failed("too_large", f"The head of the answer is over {self._limits.head:,} bytes.")

    def _take_data(self, data: bytes) -> None:
        self._chunks.append(data[: self._room])
        if len(data) > self._room:
            self._exchange.truncated = True
            self._finish()
        self._room -= min(len(data), self._room)

    def _cut_off(self) -> _Failed:
        if not self.answered:
            return _Failed("reset", "The connection was closed without an answer.")
        return _Failed("reset", "The connection was closed in the middle of the answer.")

    def _finish(self, failure: _Failed | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if failure is None:
            self._done.set_result(None)
        else:
            self.usable = False
            self._done.set_exception(failure)


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
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if running.cancelled() and task is not None and not task.cancelling():
                raise OSError("the client was closed") from None
            raise

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

_Key = tuple[str, str, int, Address | None]
"""Scheme, name, port, and the vetted address; None where a proxy vets."""


class Outbound:
    """A client for addresses that strangers chose. It belongs to the event loop it is first used in.

    `proxy` is the URL of an HTTP proxy through which all requests go (CONNECT). It resolves and vets the names then;
    addresses that are spelled out are still vetted here.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolver: Resolver | None = None,
        limits: Limits = Limits(),
        proxy: str | None = None,
    ) -> None:
        self.rules = Rules(allowed)
        self._limits = limits
        self._system = SystemResolver(limits.lookups)
        self._resolve: Resolver = resolver or self._system
        self._proxy = split_proxy(proxy) if proxy else None
        self._idle: dict[_Key, deque[_Wire]] = {}
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
                await self._carry(destination, _Attempt(method, body, timeout, exchange))
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
        """Close the connections that are kept. Exchanges under way go on."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for wires in self._idle.values():
            for wire in wires:
                wire.abort()
        self._idle.clear()
        self._system.cancel()
        await asyncio.sleep(0)  # the transports say goodbye in the next turn of the loop

    async def _carry(self, destination: Destination, attempt: _Attempt) -> None:
        exchange = attempt.exchange
        addresses = await self._vetted(destination, attempt)
        wire = self._take_idle(destination, addresses)
        if wire is not None:
            exchange.reused, exchange.address = True, wire.address
            try:
                await wire.carry(destination.target, attempt)
                self._keep(wire)
                return
            except _Failed as failed:
                if failed.error != "reset" or wire.answered:
                    raise
                exchange.reused = False
        wire = await self._connect(destination, addresses, attempt)
        await wire.carry(destination.target, attempt)
        self._keep(wire)

    async def _vetted(self, destination: Destination, attempt: _Attempt) -> Sequence[Address | None]:
        """The addresses that may be connected to for this attempt."""
        if self._proxy is not None:
            return [None]
        if destination.literal is not None:
            return self.rules.vet(destination.host, [str(destination.literal)])
        began = time.perf_counter()
        try:
            answers = await self._resolve(destination.host)
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise _Failed("dns_failure", f"The name {destination.host} was not found: {_reason(error)}.") from error
        attempt.refine("dns", began)
        return self.rules.vet(destination.host, answers)

    # -- connections

    async def _connect(self, destination: Destination, addresses: Sequence[Address | None], attempt: _Attempt) -> _Wire:
        """A connection to the first of the vetted addresses that takes one."""
        candidates = addresses[: self._limits.addresses]
        share = min(self._limits.connect_seconds, attempt.timeout / len(candidates))
        began = time.perf_counter()
        for number, address in enumerate(candidates, 1):
            last = number == len(candidates)
            host, port = (str(address), destination.port) if address else await self._proxy_address()
            attempt.exchange.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                # One that does not answer must leave time for the next.
                async with asyncio.timeout(None if last else share):
                    sock = await _connected(host, port)
            except OSError as error:
                if last:
                    where = attempt.exchange.address
                    raise _Failed("connect_failed", f"No connection to {where}: {_reason(error)}.") from error
            else:
                attempt.refine("connect", began)
                if self._proxy is not None:
                    await _through_proxy(sock, destination, self._limits)
                key = (destination.scheme, destination.host, destination.port, address)
                return await self._speak(sock, key, attempt)
        raise AssertionError("there is at least one address")

    async def _speak(self, sock: socket.socket, key: _Key, attempt: _Attempt) -> _Wire:
        """HTTP on a connected socket, through TLS if that is asked for."""
        scheme, host, _, _ = key
        wire = _Wire(self._limits, key, attempt.exchange.address or "")
        began = time.perf_counter()
        secure: dict[str, Any] = {"ssl": self._context(), "server_hostname": host} if scheme == "https" else {}
        code = "tls_failure" if secure else "connect_failed"
        try:
            await asyncio.get_running_loop().create_connection(lambda: wire, sock=sock, **secure)
        except (OSError, ValueError) as error:
            sock.close()
            raise _Failed(code, f"No encrypted connection to {host}: {_reason(error)}.") from error
        except BaseException:
            wire.abort()
            sock.close()
            raise
        if secure:
            attempt.refine("tls", began)
        return wire

    def _context(self) -> ssl.SSLContext:
        """Trusts what the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name other authorities."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _proxy_address(self) -> tuple[str, int]:
        assert self._proxy is not None
        host, port = self._proxy
        try:
            return (await self._system(host))[0], port
        except OSError as error:
            raise _Failed("connect_failed", f"The proxy {host} was not found: {_reason(error)}.") from error

    # -- connections that are kept

    def _take_idle(self, destination: Destination, addresses: Sequence[Address | None]) -> _Wire | None:
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

    def _keep(self, wire: _Wire) -> None:
        if not wire.usable:
            return
        wires = self._idle.setdefault(wire.key, deque())
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


async def _connected(host: str, port: int) -> socket.socket:
    """A socket connected to a numeric address."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


# ---- a proxy ---------------------------------------------------------------------------------------------------------


def split_proxy(url: str) -> tuple[str, int]:
    """Host and port of an HTTP proxy's URL. ValueError, with one sentence, for anything else."""
    found = _PROXY.fullmatch(url.lower())
    if found is None or int(found["port"]) > 65535:
        raise ValueError("A proxy is given as http://host:port, without a user name.")
    return found["six"] or found["host"], int(found["port"])


async def _through_proxy(sock: socket.socket, destination: Destination, limits: Limits) -> None:
    """Have the proxy connect the socket to a destination. _Failed if it does not; the socket is closed then."""
    loop = asyncio.get_running_loop()
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head)
    target = f"[{destination.host}]" if ":" in destination.host else destination.host
    target = f"{target}:{destination.port}"
    try:
        request = h11.Request(method="CONNECT", target=target, headers=[("Host", target), ("User-Agent", USER_AGENT)])
        await loop.sock_sendall(sock, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        while True:
            event = http.next_event()
            if isinstance(event, h11.Response):
                break
            if event is h11.NEED_DATA:
                http.receive_data(await loop.sock_recv(sock, 4096))
        if not 200 <= event.status_code < 300:
            raise _Failed("connect_failed", f"The proxy refused to connect to {target}: {event.status_code}.")
        if http.trailing_data[0]:
            raise _Failed("malformed_response", "The proxy spoke before it was spoken to.")
    except (OSError, h11.RemoteProtocolError) as error:
        sock.close()
        raise _Failed("connect_failed", f"The proxy did not connect to {target}: {_reason(error)}.") from error
    except BaseException:
        sock.close()
        raise


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
