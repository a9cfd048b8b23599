"""Requests and replies as the handlers see them, and their translation from and to ASGI.

Why an own layer this thin: a framework's request object costs more than reading a task from the database does. And why
structs: making one with its defaults takes a third of what an `__init__` takes.
"""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, quote, unquote_plus

import msgspec
import zstandard

from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.http.addresses import DIRECT, Proxies
from taskade_server.kit import ids, json
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.kit.errors import InvalidQuery, Issue, Malformed, RequestTimeout, TooLarge, UnsupportedMediaType
from taskade_server.store.database import Tx

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

RECEIVE_SECONDS: Final = 15.0
COMPRESS_FROM: Final = 16_384
# Parsing so much takes a millisecond at worst, and so does compressing four times as much.
OFF_LOOP_BYTES: Final = 32_768
PIECE_BYTES: Final = 32 << 10
# A larger answer goes out piece by piece as the client takes it; a smaller one is handed over whole.
WHOLE_BYTES: Final = 64 << 10
LENGTH: Final = "taskade.length"
"""In the message that begins a larger answer: how many bytes will follow. It may be refused with Unavailable."""
MAX_PARAMETERS: Final = 400
MAX_USER_AGENT: Final = 200
JSON_TYPE: Final = b"application/json"
PROBLEM_TYPE: Final = b"application/problem+json"
# One at a time: parsing needs the interpreter's lock, and with several the event loop would be one of many to want it.
_parser: Final = ThreadPoolExecutor(1, "parse")
_ASCII: Final = "".join(map(chr, range(128)))
JSON_PATCH: Final = "application/json-patch+json"
# Headers of which there can be but one: two parsers that choose differently are how requests are smuggled.
_SINGLE: Final = frozenset(
    {b"host", b"authorization", b"content-length", b"content-type", b"content-encoding", b"transfer-encoding",
     b"idempotency-key"}
)  # fmt: skip
_JSON_BODIES: Final = frozenset({"application/json", "application/merge-patch+json", "text/json"})


class ClientGone(Exception):
    """The client closed its side of the connection before its request was complete."""


class JsonPatch(list[Any]):
    """The operations of a body that was sent as JSON Patch (RFC 6902)."""


class Reply(msgspec.Struct, eq=False):
    """What a handler answers: status, body text (None: no body) and headers beside the usual ones.

    `etag` is not empty when the answer stays the same until the log of a visible workspace moves; `heads` says how far
    they were. `secret` marks a body that must not be stored as it is: its `secret` can be made again ("derived"), or
    all of it is encrypted ("sealed"). `packed` keeps the bytes, by encoding, of an
    answer that is given again.
    """

    status: int = 200
    body: str | None = None
    headers: Headers = []
    content_type: bytes = JSON_TYPE
    etag: str = ""
    heads: tuple[tuple[str, int], ...] = ()
    secret: Literal["", "derived", "sealed"] = ""
    packed: dict[bytes, bytes] | None = None


@dataclass(slots=True)
class Stream:
    """An answer that is written piece by piece, as it comes about; `close` is called when it has ended, however it did.

    `patience` is how many seconds a client may take for a piece before the rest is not sent.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: bytes
    headers: Headers = field(default_factory=list)
    patience: float = 30.0
    close: Callable[[], None] = lambda: None


class Call(msgspec.Struct, eq=False):
    """One operation, whether it came by a socket or inside a batch. `path` holds the path's parameters in order.

    If-None-Match is two things: on a read it asks for a 304 (`if_none_match`), on a write it forbids (`unless_match`).
    """

    principal: Principal
    secret: bytes
    request_id: str
    path: list[str]
    query_string: str = ""
    body: Any = None
    address: str | None = None
    user_agent: str | None = None
    destinations: Rules = NOWHERE_INSIDE
    batch: Any = None
    epoch: int = 0
    seed: str = ""
    url: str = ""
    if_match: frozenset[str] | None = None
    if_none_match: bytes | None = None
    unless_match: frozenset[str] | None = None

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Call({self.request_id!r})"

    def context(self) -> Context:
        """The caller as the domain knows it. Grants are copied: a verb may add one that its rollback must take back."""
        known = self.principal
        principal = Principal(
            known.user_id, known.key_id, known.scopes, dict(known.grants), known.default_workspace, known.rate
        )
        actor = Actor(known.user_id, known.key_id, self.request_id, self.address, self.user_agent)
        return Context(
            principal, actor, self.secret, self.if_match, self.unless_match, self.seed, self.destinations
        )  # fmt: skip

    def take(self, name: str) -> str | None:
        """Take a parameter that is not the handler's business out of the query string; None if it is not there."""
        if name not in self.query_string:
            return None
        parts = [part for part in self.query_string.split("&") if part]
        mine = [part for part in parts if part.partition("=")[0] == name]
        if not mine:
            return None
        if len(mine) > 1:
            raise InvalidQuery(errors=[Issue("repeated", f"{name} stands more than once.", parameter=name)])
        self.query_string = "&".join(part for part in parts if part not in mine)
        return unquote_plus(mine[0].partition("=")[2])

    def pairs(self) -> list[tuple[str, str]]:
        """The query string's parameters, decoded; InvalidQuery if they are not UTF-8 or too many."""
        if not self.query_string:
            return []
        if "%" not in self.query_string and "+" not in self.query_string and "\x00" not in self.query_string:
            parts = [part.partition("=") for part in self.query_string.split("&") if part]
            if len(parts) <= MAX_PARAMETERS:
                return [(name, value) for name, _, value in parts]
        try:
            found = parse_qsl(self.query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
        except UnicodeDecodeError as error:
            raise InvalidQuery("The query string is not percent-encoded UTF-8.") from error
        except ValueError as error:
            raise InvalidQuery(f"A request may have {MAX_PARAMETERS} parameters.") from error
        for name, value in found:
            if "\x00" in name or "\x00" in value:
                raise InvalidQuery(
                    errors=[
                        Issue("invalid_text", "NUL (%00) is not allowed.", parameter=name.replace("\x00", "")[:100])
                    ]
                )
        return found

    def no_parameters(self) -> None:
        """InvalidQuery if the request has parameters although the operation takes none."""
        if self.query_string:
            issues = [
                Issue("unknown_parameter", "This operation takes no parameters.", parameter=name)
                for name, _ in self.pairs()
            ]
            if issues:
                raise InvalidQuery(errors=issues)


Handler = Callable[[Call, Tx], Reply]


class Request(msgspec.Struct, eq=False):
    """The parts of an ASGI request that the pipeline needs. Headers are decoded when somebody asks for them.

    Made of its scope and the proxies alone; all else follows from these, or is noted later.
    """

    scope: Scope
    proxies: Proxies = DIRECT
    method: str = ""
    path: str = ""
    headers: dict[bytes, bytes] = {}
    credential: bytes = b""
    request_id: str = ""
    charge: Any = None
    key_id: str | None = None
    caller: Principal | None = None
    claimed: str | None = None
    place: str = ""
    limits: Headers = []
    operation: str = ""
    epoch: int = 0
    stamp: int = 0
    _client: str | None = None

    def __post_init__(self) -> None:
        scope = self.scope
        self.method = scope["method"]
        self.path = scope["path"]
        headers = self.headers = dict(scope["headers"])
        self.credential = headers.get(b"authorization", b"")
        self.request_id = ids.new("req")

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Request({self.request_id!r})"

    def header(self, name: bytes) -> str:
        """A header by its lower-case name; empty if it is missing."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def query_string(self) -> str:
        """The URL's part behind the question mark, still encoded."""
        return decoded_query(self.scope["query_string"])

    @property
    def client(self) -> str:
        """The address of the client, as far as the proxies in between can be trusted."""
        if self._client is None:
            peer = self.scope.get("client")
            if peer and b"x-forwarded-for" in self.headers:
                self._client = self.proxies.client(peer[0], self.scope["headers"])
            else:
                self._client = peer[0] if peer else ""
        return self._client

    @property
    def base_url(self) -> str:
        """Scheme and host as the client sees them."""
        return f"{self.header(b'x-forwarded-proto') or self.scope.get('scheme', 'http')}://{self.header(b'host')}"


def decoded_query(raw: bytes) -> str:
    """A query string as text, still percent-encoded."""
    # curl sends a URL as it was typed, "é" and all.
    return raw.decode() if raw.isascii() else quote(raw, safe=_ASCII)


def check_headers(request: Request) -> None:
    """Malformed if a header that may stand once stands more often."""
    seen: set[bytes] = set()
    for name, _ in request.scope["headers"]:
        if name in _SINGLE and name in seen:
            raise Malformed(f"The header {name.decode('latin-1')} stands more than once.")
        seen.add(name)


async def read_body(request: Request, receive: Receive, limit: int) -> bytes:
    """The whole body. TooLarge over the limit (while it streams), RequestTimeout after 15 seconds."""
    length = request.header(b"content-length")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            return await _receive_all(receive, limit)
    except TimeoutError as error:
        raise RequestTimeout(f"The body did not arrive within {RECEIVE_SECONDS:.0f} seconds.") from error


async def read_json(request: Request, receive: Receive, limit: int, *, patch: bool = False) -> Any:
    """As `parse_body` of the whole body; a large one is parsed in a thread, so that the others need not wait for it."""
    body = await read_body(request, receive, limit)
    if len(body) > OFF_LOOP_BYTES:
        parse = partial(parse_body, request, body, patch=patch)
        return await asyncio.get_running_loop().run_in_executor(_parser, parse)
    return parse_body(request, body, patch=patch)


async def _receive_all(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks, size = [message.get("body", b"")], len(message.get("body", b""))
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over {limit // 1024:,} KiB. Split the work into several requests.")


def parse_body(request: Request, body: bytes, *, patch: bool = False) -> Any:
    """The JSON of a body, None for an empty one. UnsupportedMediaType or Malformed otherwise.

    `patch` says that JSON Patch is welcome too; it comes back as a JsonPatch.
    """
    if not body:
        return None
    # Compression may be announced in either place.
    encoding = request.header(b"content-encoding") or request.header(b"transfer-encoding")
    if encoding and encoding.strip().lower() not in ("", "identity", "chunked"):
        raise UnsupportedMediaType(f'The Content-Encoding is "{encoding[:100]}"; send the body uncompressed.')
    operations = _media_of(request.header(b"content-type"), patch) == JSON_PATCH
    try:
        value = json.decode_strict(body)
    except json.Faulty as error:
        raise Malformed(str(error), errors=[Issue("malformed_json", str(error), pointer=error.pointer)]) from error
    if operations:
        if not isinstance(value, list):
            raise Malformed("A JSON Patch is an array of operations.")
        return JsonPatch(value)
    return value


@lru_cache(64)
def _media_of(content_type: str, patch: bool) -> str:
    """The media type of a body, if it is one that is welcome: UnsupportedMediaType otherwise."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind not in _JSON_BODIES and not (patch and kind == JSON_PATCH):
        raise UnsupportedMediaType(f'The Content-Type is "{content_type[:100]}"; send application/json.')
    charset = parameters.strip().lower().replace('"', "").removeprefix("charset=")
    if charset not in ("", "utf-8", "utf8") and "charset" in parameters.lower():
        raise UnsupportedMediaType("JSON is sent in UTF-8; leave the charset out.")
    return kind


def accepts(accept: str, media: tuple[str, ...]) -> bool:
    """Whether an Accept header allows one of some types, JSON among them or not."""
    if any(kind.endswith("json") for kind in media) and accepts_json(accept):
        return True
    lower = accept.lower()
    return not accept or "*/*" in lower or any(
        kind in lower or f"{kind.partition('/')[0]}/*" in lower for kind in media
    )  # fmt: skip


def accepts_json(accept: str) -> bool:
    """Whether an Accept header allows JSON."""
    if not accept or accept == "*/*" or "application/json" in accept or "*/*" in accept or "application/*" in accept:
        return True
    lower = accept.lower()
    return "+json" in lower or "application/json" in lower or "application/*" in lower


def names_etag(header: bytes, etag: str) -> bool:
    """Whether an If-None-Match header names an ETag (weak comparison, RFC 9110 section 8.8.3.2)."""
    text = header.decode("latin-1")
    return text.strip() == "*" or etag.removeprefix("W/") in [
        part.strip().removeprefix("W/") for part in text.split(",")
    ]


def prefers_minimal(request: Request) -> bool:
    """Whether the client prefers not to be sent what it wrote (RFC 7240)."""
    header = request.headers.get(b"prefer")
    return header is not None and "return=minimal" in header.decode("latin-1").lower().replace(" ", "").replace('"', "")


def versions(header: bytes | None) -> frozenset[str] | None:
    """The versions an If-Match header names; a suffix behind the version (of a reply with includes) is left out."""
    if header is None:
        return None
    parts = header.decode("latin-1").split(",")
    return frozenset(part.strip().removeprefix("W/").strip('"').partition("-")[0] for part in parts)


async def send(request: Request, reply: Reply, respond: Send) -> int:
    """Write a reply, compressed if it is large and the client can read that; how many bytes its body had.

    Unavailable, before anything is written, if there is no room for a large one.
    """
    headers: Headers = [(b"x-request-id", request.request_id.encode()), *request.limits, *reply.headers]
    body = b""
    if reply.body is not None:
        headers.append((b"content-type", reply.content_type))
        encoding = b""
        if len(reply.body) >= COMPRESS_FROM:
            encoding = _encoding(request.headers.get(b"accept-encoding", b""))
            headers += [(b"vary", b"accept-encoding"), *([(b"content-encoding", encoding)] if encoding else [])]
        large = encoding and len(reply.body) > 4 * OFF_LOOP_BYTES
        body = await asyncio.to_thread(_pack, reply, encoding) if large else _pack(reply, encoding)
    if reply.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    if b"origin" in request.headers:
        headers += _CORS
    if request.method == "HEAD":
        body = b""
    start: dict[str, Any] = {"type": "http.response.start", "status": reply.status, "headers": headers}
    if len(body) > WHOLE_BYTES:
        start[LENGTH] = len(body)
    await respond(start)
    await respond({"type": "http.response.body", "body": body})
    return len(body)


async def send_stream(request: Request, stream: Stream, receive: Receive, respond: Send) -> tuple[int, bool]:
    """Write a stream until it ends, or its client does; how many bytes it had, and whether the client was too slow."""
    headers = [(b"x-request-id", request.request_id.encode()), *request.limits, *stream.headers]
    headers.append((b"content-type", stream.content_type))
    if b"origin" in request.headers:
        headers += _CORS
    await respond({"type": "http.response.start", "status": 200, "headers": headers})
    counted = [0]
    writing = asyncio.create_task(_write_pieces(request, stream, respond, counted))
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            await writing
        return counted[0], False
    except TimeoutError:
        return counted[0], True
    finally:
        for task in (writing, leaving):
            task.cancel()
        await asyncio.gather(writing, leaving, return_exceptions=True)
        stream.close()


async def _write_pieces(request: Request, stream: Stream, respond: Send, counted: list[int]) -> None:
    """TimeoutError if the client does not take them."""
    async with aclosing(stream.chunks) as chunks:
        async for chunk in chunks:
            if request.method == "HEAD":
                break
            for place in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[place : place + PIECE_BYTES]
                async with asyncio.timeout(stream.patience):
                    await respond({"type": "http.response.body", "body": piece, "more_body": True})
                counted[0] += len(piece)
    await respond({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    """Until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


@lru_cache(64)
def _encoding(accepted: bytes) -> bytes:
    """The best encoding that the client can read, empty for none."""
    choices = [part.partition(b";") for part in accepted.lower().replace(b" ", b"").split(b",")]
    # A weight of nothing but q=0.0 forbids what it stands at.
    allowed = {name for name, _, weight in choices if not weight or weight.strip(b"q=0.")}
    return b"zstd" if b"zstd" in allowed else b"gzip" if b"gzip" in allowed else b""


def _pack(reply: Reply, encoding: bytes) -> bytes:
    """The bytes of a body, kept for the next time if the reply is one that is given again."""
    known = None if reply.packed is None else reply.packed.get(encoding)
    if known is not None:
        return known
    body = (reply.body or "").encode("utf-8", "replace")
    if encoding == b"zstd":
        body = zstandard.ZstdCompressor(level=1).compress(body)
    elif encoding == b"gzip":
        body = gzip.compress(body, compresslevel=1, mtime=0)
    if reply.packed is not None:
        reply.packed[encoding] = body
    return body


_EXPOSED: Final = (
    b"ETag, Link, Location, Total-Count, Commit-Seq, Dry-Run, Idempotent-Replayed, Preference-Applied, Retry-After, "
    b"Next-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    b"X-Request-Id"
)
_CORS: Final[Headers] = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]


def preflight(methods: list[str]) -> Headers:
    """The headers of an answer to OPTIONS: what the path supports, and that browsers may use it from any origin.

    Any origin is safe here: credentials travel in the Authorization header only, never in a cookie.
    """
    allow = ", ".join(methods).encode()
    return [
        (b"allow", allow),
        (b"access-control-allow-methods", allow),
        (
            b"access-control-allow-headers",
            b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, "
            b"Traceparent, Tracestate",
        ),
        (b"access-control-max-age", b"86400"),
    ]
