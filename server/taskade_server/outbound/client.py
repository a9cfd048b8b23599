"""The one way out: every request that this server sends to an address somebody typed goes through here.

Why the name is resolved here and not by the library that connects: between a check and a second look-up the answer can
change. A name is looked up once for each attempt, all of its addresses are vetted, and one of these is connected to.
"""

import asyncio
import email.utils
import errno
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.kit.destinations import (
    Address,
    Destination,
    Network,
    Refused,
    Rules,
    header_refusal,
    split_proxy,
)
from taskade_server.outbound.connection import (
    DEFAULT_LIMITS,
    Attempt,
    Exchange,
    Failed,
    Headers,
    Key,
    Limits,
    Wire,
    reason,
    since,
)
from taskade_server.outbound.names import Resolver, SystemResolver
from taskade_server.outbound.proxy import USER_AGENT, connected, through_proxy
from taskade_server.outbound.slots import Slots, capacity

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
SHORTAGE: Final = "internal_error"
"""Not the other side's failure: this process or machine lacks what a connection needs."""
_LACKING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)
_SECONDS: Final = re.compile("[0-9]{1,9}")


# ---- one connection --------------------------------------------------------------------------------------------------


# ---- names -----------------------------------------------------------------------------------------------------------


# ---- the client ------------------------------------------------------------------------------------------------------


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
        limits: Limits = DEFAULT_LIMITS,
        proxy: str | None = None,
    ) -> None:
        self.rules = Rules(allowed)
        self.slots = Slots(capacity())
        """Connections that may be open at a time; the caller takes a slot before each `post`."""
        self._limits = limits
        self._most_idle = min(limits.idle, self.slots.most)
        self._system = SystemResolver(limits.lookups)
        self._resolve: Resolver = resolver or self._system
        self._proxy = split_proxy(proxy) if proxy else None
        self._idle: dict[Key, deque[Wire]] = {}
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
                await self._carry(destination, Attempt(method, body, timeout, exchange))
        except Refused as refused:
            exchange.error, exchange.detail = refused.code, str(refused)
        except Failed as failed:
            exchange.error, exchange.detail = failed.error, failed.detail
            exchange.lacking = failed.error == SHORTAGE
        except TimeoutError:
            exchange.error, exchange.detail = "timeout", _timeout_detail(exchange, timeout)
        except (OSError, RuntimeError, MemoryError) as error:
            if not _is_lacking(error):
                raise
            exchange.error, exchange.detail = SHORTAGE, f"This server lacks resources: {reason(error)}."
            exchange.lacking = True
        exchange.duration_ms = since(began)
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

    async def _carry(self, destination: Destination, attempt: Attempt) -> None:
        exchange = attempt.exchange
        addresses = await self._vetted(destination, attempt)
        wire = self._take_idle(destination, addresses)
        if wire is not None:
            exchange.reused, exchange.address = True, wire.address
            try:
                await wire.carry(destination.target, attempt)
                self._keep(wire)
                return
            except Failed as failed:
                if failed.error != "reset" or wire.answered:
                    raise
                exchange.reused = False
        wire = await self._connect(destination, addresses, attempt)
        await wire.carry(destination.target, attempt)
        self._keep(wire)

    async def _vetted(self, destination: Destination, attempt: Attempt) -> Sequence[Address | None]:
        """The addresses that may be connected to for this attempt."""
        if self._proxy is not None:
            return [None]
        if destination.literal is not None:
            return self.rules.vet(destination.host, [str(destination.literal)])
        began = time.perf_counter()
        try:
            answers = await self._resolve(destination.host)
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError) or _is_lacking(error):
                raise
            raise Failed("dns_failure", f"The name {destination.host} was not found: {reason(error)}.") from error
        attempt.refine("dns", began)
        return self.rules.vet(destination.host, answers)

    # -- connections

    async def _connect(self, destination: Destination, addresses: Sequence[Address | None], attempt: Attempt) -> Wire:
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
                    sock = await connected(host, port)
            except OSError as error:
                if _is_lacking(error) or (error.errno == errno.EADDRNOTAVAIL and ":" not in host):
                    raise Failed(SHORTAGE, f"This server lacks resources: {reason(error)}.") from error
                if last:
                    where = attempt.exchange.address
                    raise Failed("connect_failed", f"No connection to {where}: {reason(error)}.") from error
            else:
                attempt.refine("connect", began)
                if self._proxy is not None:
                    await through_proxy(sock, destination, self._limits)
                key = (destination.scheme, destination.host, destination.port, address)
                return await self._speak(sock, key, attempt)
        raise AssertionError("there is at least one address")

    async def _speak(self, sock: socket.socket, key: Key, attempt: Attempt) -> Wire:
        """HTTP on a connected socket, through TLS if that is asked for."""
        scheme, host, _, _ = key
        wire = Wire(self._limits, key, attempt.exchange.address or "")
        began = time.perf_counter()
        secure: dict[str, Any] = {"ssl": self._context(), "server_hostname": host} if scheme == "https" else {}
        code = "tls_failure" if secure else "connect_failed"
        try:
            await asyncio.get_running_loop().create_connection(lambda: wire, sock=sock, **secure)
        except (OSError, ValueError) as error:
            sock.close()
            if _is_lacking(error):
                raise
            raise Failed(code, f"No encrypted connection to {host}: {reason(error)}.") from error
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
            if _is_lacking(error):
                raise
            raise Failed("connect_failed", f"The proxy {host} was not found: {reason(error)}.") from error

    # -- connections that are kept

    def _take_idle(self, destination: Destination, addresses: Sequence[Address | None]) -> Wire | None:
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

    def _keep(self, wire: Wire) -> None:
        if not wire.usable:
            return
        wires = self._idle.setdefault(wire.key, deque())
        if self._closed or self._idle_count >= self._most_idle or len(wires) >= self._limits.idle_per_destination:
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


# ---- a proxy ---------------------------------------------------------------------------------------------------------


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


def _is_lacking(error: BaseException) -> bool:
    """Whether something failed for want of files, memory or threads in this process or machine.

    A missing local port looks like this, too, but with IPv6 it may as well mean that there is no IPv6 here.
    """
    if isinstance(error, socket.gaierror):
        return error.errno in (socket.EAI_MEMORY, socket.EAI_SYSTEM)
    if isinstance(error, OSError):
        return error.errno in _LACKING
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "new thread" in str(error))


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
