"""The request bin of development mode: takes what webhooks send, shows it, and fails in the ways receivers fail.

Why inside the server: whoever tries webhooks out needs a receiver before they have written one, and one that is down,
slow or wrong whenever they want to see what happens then. It takes no key, so it exists only where it was asked for,
and no page of another site may use it: no CORS, by default no other host name than this machine's, and nothing for what
a browser sends on behalf of another site. Webhooks are sent by no browser.
"""

import asyncio
import re
import time as clock
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from taskade_server.http.admission import connections
from taskade_server.http.pages import request_bin_page
from taskade_server.http.wire.body import read_body
from taskade_server.http.wire.reply import Headers
from taskade_server.http.wire.request import Receive, Request, Scope, Send
from taskade_server.kit import json, time, webhook_signatures
from taskade_server.kit.destinations import is_loopback
from taskade_server.kit.errors import Forbidden, InvalidQuery, Issue, MethodNotAllowed, NotFound, Problem, did_you_mean

PREFIX: Final = "/dev/bin/"
MAX_BINS: Final = 50
MAX_REQUESTS: Final = 100
MAX_MESSAGES: Final = 10_000
MAX_BODY: Final = 1 << 20
MAX_KEPT: Final = 32 << 20
"""Bytes of all bins together; beyond that the bins that were used least lately lose what they have."""
KEPT_BODY: Final = 64 << 10
MAX_SIZE: Final = 64 << 20
MAX_SECONDS: Final = 120.0
ASYMMETRIC: Final = (webhook_signatures.PRIVATE, webhook_signatures.PUBLIC)
_PIECE: Final = 64 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TAKES: Final = ("POST", "PUT", "PATCH")

Keys = Callable[[str], Awaitable[Sequence[str]]]
"""The secrets of the webhooks that point to the bin at a path."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How to answer, as the query says."""

    status: int = 0
    delay: float = 0.0
    fail: int = 0
    reset: int = 0
    drip: float = 0.0
    size: int = 0
    redirect: str = ""
    retry_after: int = 0
    secret: str = ""


_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "status": (200, 599),
    "delay": (0, MAX_SECONDS),
    "fail": (0, 1_000_000),
    "reset": (0, 1),
    "drip": (0, MAX_SECONDS),
    "size": (0, MAX_SIZE),
    "retry_after": (1, 86_400),
}


@dataclass(slots=True)
class Captured:
    """One request that came, and what it was answered. `verdict` is None where no signature could be checked."""

    number: int
    at: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: str
    size: int
    verdict: str | None = None
    sound: bool | None = None
    answered: str = ""

    @property
    def kept(self) -> int:
        """About how many bytes it takes."""
        return len(self.target) + 4 * len(self.body) + sum(len(name) + len(value) for name, value in self.headers)

    def shown(self) -> dict[str, Any]:
        """For programs."""
        return {
            "number": self.number,
            "at": self.at,
            "method": self.method,
            "target": self.target,
            "headers": dict(self.headers),
            "body": self.body,
            "size": self.size,
            "signature": self.verdict,
            "verified": self.sound,
            "answered": self.answered,
        }


@dataclass(slots=True)
class _Bin:
    """The requests of one name, the last ones of many."""

    total: int = 0
    kept: int = 0
    """Bytes of what is kept."""
    taken: deque[Captured] = field(default_factory=deque)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    _attempts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, taken: Captured) -> None:
        """Keep a request, and no more of the oldest ones than there is room for."""
        self.taken.append(taken)
        self.kept += taken.kept
        while len(self.taken) > MAX_REQUESTS:
            self.drop()

    def drop(self) -> None:
        """Forget the oldest request."""
        self.kept -= self.taken.popleft().kept

    def fails(self, message: str, query: str, times: int) -> bool:
        """Whether this is one of the first attempts at a message with this query; without an id all are one message."""
        if not times:
            return False
        if len(self._attempts) > MAX_MESSAGES:
            self._attempts.clear()
        self._attempts[message, query] += 1
        return self._attempts[message, query] <= times


class RequestBin:
    """An ASGI application for the paths below PREFIX. `keys` finds secrets; `anywhere` lets any host name in."""

    def __init__(self, port: int, keys: Keys, *, anywhere: bool = False) -> None:
        self._port = port
        self._keys = keys
        self._anywhere = anywhere
        self._bins: OrderedDict[str, _Bin] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take, show or empty."""
        request = Request(scope)
        try:
            name = self._name(request)
            _refuse_other_sites(request)
            if request.method in _TAKES:
                await self._take(name, request, receive, send)
            elif request.method in ("GET", "HEAD"):
                await self._show(name, request, send)
            elif request.method == "DELETE":
                self._bins.pop(name, None)
                await _send(send, 204)
            else:
                allowed = ", ".join((*_TAKES, "GET", "HEAD", "DELETE"))
                raise MethodNotAllowed(f"A request bin takes {allowed}.", headers={"allow": allowed})
        except Problem as problem:
            document = json.encode(problem.to_dict(request.path[:500], request.request_id))
            headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
            headers.append((b"x-request-id", request.request_id.encode()))
            await _send(send, problem.status, document, b"application/problem+json", headers)

    def _name(self, request: Request) -> str:
        host = _host(request.header(b"host"))
        if not self._anywhere and not is_loopback(host):
            # A page of another site may have its own name lead here, and would read what webhooks sent.
            raise NotFound("A request bin answers to the names of this machine only, such as 127.0.0.1.")
        name = request.path.removeprefix(PREFIX)
        if not _NAME.fullmatch(name):
            raise NotFound(f"A request bin is {PREFIX} and a name of letters, digits, - and _: {PREFIX}orders.")
        return name

    def _bin(self, name: str) -> _Bin:
        found = self._bins.setdefault(name, _Bin())
        self._bins.move_to_end(name)
        if len(self._bins) > MAX_BINS:
            self._bins.popitem(last=False)
        return found

    def _make_room(self, name: str) -> None:
        """Forget the oldest requests of the bins that were used least lately, last those of this one."""
        kept = sum(box.kept for box in self._bins.values())
        for other in list(self._bins):
            box = self._bins[other]
            while kept > MAX_KEPT and len(box.taken) > (other == name):
                kept -= box.taken[0].kept
                box.drop()

    # -- taking

    async def _take(self, name: str, request: Request, receive: Receive, send: Send) -> None:
        faults = _faults(request.query_string)
        body = await read_body(request, receive, MAX_BODY)
        box = self._bin(name)
        box.total += 1
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in request.scope["headers"]]
        target = request.path + (f"?{request.query_string}" if request.query_string else "")
        taken = Captured(
            box.total,
            time.format_ms(time.now_ms()),
            request.method,
            target,
            headers,
            body[:KEPT_BODY].decode("utf-8", "replace"),
            len(body),
        )
        keys = [faults.secret] if faults.secret else await self._keys(request.path)
        taken.verdict, taken.sound = verdict(dict(headers), body, keys)
        failing = box.fails(request.header(webhook_signatures.ID.encode()), request.query_string, faults.fail)
        box.add(taken)
        self._make_room(name)
        box.grown.set()
        box.grown = asyncio.Event()
        await self._answer(taken, faults, failing, request, send)

    async def _answer(self, taken: Captured, faults: Faults, failing: bool, request: Request, send: Send) -> None:
        if faults.delay:
            taken.answered = f"after {faults.delay:g} s"
            await asyncio.sleep(faults.delay)
        if faults.reset and (failing or not faults.fail):
            taken.answered = "connection closed"
            host, port = request.scope["client"]
            await asyncio.to_thread(connections.hang_up, self._port, (host, str(port)))
            return
        status = (faults.status or 503) if failing else (200 if faults.fail else faults.status or 200)
        headers: Headers = []
        if faults.redirect:
            status, headers = 302, [(b"location", faults.redirect.encode("ascii", "ignore"))]
        if faults.retry_after and status >= 400:
            headers.append((b"retry-after", b"%d" % faults.retry_after))
        taken.answered = f"{status}{' ' + taken.answered if taken.answered else ''}"
        if faults.drip:
            await _drip(send, status, headers, faults.drip)
        elif faults.size:
            await _flood(send, status, headers, faults.size)
        else:
            await _send(send, status, json.encode({"taken": taken.number, "signature": taken.verdict}), headers=headers)

    # -- showing

    async def _show(self, name: str, request: Request, send: Send) -> None:
        given = _numbers(request.query_string, {"count": (1, MAX_REQUESTS), "wait": (0, MAX_SECONDS)})
        if "count" in given:
            await self._wait(name, int(given["count"]), given.get("wait", 10.0))
        box = self._bins.get(name, _Bin())
        if "text/html" in request.header(b"accept"):
            address = f"{request.base_url}{request.path}"
            page = request_bin_page.render(name, address, box.total, [item.shown() for item in reversed(box.taken)])
            await _send(send, 200, page, b"text/html; charset=utf-8", request_bin_page.HEADERS, request.method)
        else:
            document = {"name": name, "total": box.total, "requests": [item.shown() for item in box.taken]}
            await _send(send, 200, json.encode(document), method=request.method)

    async def _wait(self, name: str, count: int, seconds: float) -> None:
        """Until so many requests have come, or the time is over."""
        until = clock.monotonic() + seconds
        while (box := self._bin(name)).total < count and (left := until - clock.monotonic()) > 0:
            try:
                await asyncio.wait_for(box.grown.wait(), left)
            except TimeoutError:
                return


def _refuse_other_sites(request: Request) -> None:
    """Forbidden for what a browser sends because a page of another site wants it: a form, a script, a frame, an image.

    A person who follows a link to a bin is welcome.
    """
    site = request.header(b"sec-fetch-site")
    follows = request.header(b"sec-fetch-mode") == "navigate" and request.header(b"sec-fetch-dest") == "document"
    is_foreign = site in ("cross-site", "same-site") and not (follows and request.method in ("GET", "HEAD"))
    origin = request.header(b"origin")
    if request.method not in ("GET", "HEAD") and origin and _authority(origin) != request.header(b"host"):
        is_foreign = True  # of browsers that do not tell the site
    if is_foreign:
        raise Forbidden("A request bin takes nothing from pages of other sites.")


def _authority(origin: str) -> str:
    return origin.partition("://")[2]


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def verdict(headers: Mapping[str, str], body: bytes, keys: Sequence[str]) -> tuple[str | None, bool | None]:
    """What there is to say about a signature, and whether it is right; None where there is none to check."""
    signed = webhook_signatures.SIGNATURE in headers
    plain = headers.get(webhook_signatures.PLAIN_SIGNATURE.lower())
    if not signed and plain is None:
        return None, None
    if not keys:
        return "signed, but no webhook points to this bin: give its secret as ?secret=...", None
    if plain is not None and not any(
        webhook_signatures.verify_plain(plain, body, key) for key in keys if not key.startswith(ASYMMETRIC)
    ):
        return f"{webhook_signatures.PLAIN_SIGNATURE} does not fit the body", False
    if signed:
        try:
            webhook_signatures.verify(headers, body, keys, now=clock.time())
        except webhook_signatures.Unverified as error:
            return str(error), False
        except ValueError:
            return "the secret is not one", False
    return "right", True


# ---- the query -------------------------------------------------------------------------------------------------------


def _faults(query: str) -> Faults:
    texts = {"redirect", "secret"}
    given = {name: value for name, value in parse_qsl(query, keep_blank_values=True) if name in texts}
    numbers = _numbers(query, _RANGES, texts)
    return Faults(
        status=int(numbers.get("status", 0)),
        delay=numbers.get("delay", 0.0),
        fail=int(numbers.get("fail", 0)),
        reset=int(numbers.get("reset", 0)),
        drip=numbers.get("drip", 0.0),
        size=int(numbers.get("size", 0)),
        retry_after=int(numbers.get("retry_after", 0)),
        **given,
    )


def _numbers(
    query: str, ranges: Mapping[str, tuple[float, float]], texts: frozenset[str] | set[str] = frozenset()
) -> dict[str, float]:
    """The numbers that a query gives. InvalidQuery for one that is out of its range, or for another parameter."""
    found, issues = {}, []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in texts:
            continue
        if name not in ranges:
            hint = did_you_mean(name, [*ranges, *texts])
            detail = f'A request bin knows no "{name[:80]}".{hint} Known: {", ".join(sorted([*ranges, *texts]))}.'
            issues.append(Issue("unknown_parameter", detail, parameter=name[:80]))
            continue
        low, high = ranges[name]
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", value) or not low <= float(value) <= high:
            detail = f"{name} is a number from {low:g} to {high:g}."
            issues.append(Issue("invalid_value", detail, parameter=name))
            continue
        found[name] = float(value)
    if issues:
        raise InvalidQuery(errors=issues)
    return found


# ---- answers ---------------------------------------------------------------------------------------------------------


async def _send(
    send: Send,
    status: int,
    body: str = "",
    kind: bytes = b"application/json",
    headers: Headers | None = None,
    method: str = "GET",
) -> None:
    content = body.encode("utf-8", "replace")
    known: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), *(headers or [])]
    if status not in (204, 304):
        known += [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": known})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})


async def _drip(send: Send, status: int, headers: Headers, seconds: float) -> None:
    """A body that takes its time: a few bytes each tenth of a second."""
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-type", b"text/plain")]}
    )
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"\n"})


async def _flood(send: Send, status: int, headers: Headers, size: int) -> None:
    """A body of so many bytes."""
    start = [*headers, (b"content-type", b"text/plain"), (b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": status, "headers": start})
    while size > _PIECE:
        await send({"type": "http.response.body", "body": b"." * _PIECE, "more_body": True})
        size -= _PIECE
    await send({"type": "http.response.body", "body": b"." * size})
