"""Reads and decodes the body of a request."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Final

from taskade_server.http.wire.request import MAX_LENGTH_DIGITS, Receive, Request
from taskade_server.kit.errors import Issue, Malformed, RequestTimeout, TooLarge, UnsupportedMediaType
from taskade_server.kit.strict_json import Faulty, decode_strict

RECEIVE_SECONDS: Final = 15.0


# Parsing so much takes a millisecond at worst, and so does compressing four times as much.
OFF_LOOP_BYTES: Final = 32_768

TAKES_NO_BODY: Final = "This operation takes no body."
SEND_NO_BODY: Final = Issue("not_allowed", "Send no body, or {}.", pointer="")
REFUSED_BYTES: Final = 65_536
"""So much of a body that is refused anyway is read, so that the connection can be used for the next request."""

# One at a time: parsing needs the interpreter's lock, and with several the event loop would be one of many to want it.
_parser: Final = ThreadPoolExecutor(1, "parse")
JSON_PATCH: Final = "application/json-patch+json"
_JSON_BODIES: Final = frozenset({"application/json", "application/merge-patch+json", "text/json"})


class ClientGone(Exception):
    """The client closed its side of the connection before its request was complete."""


class JsonPatch(list[Any]):
    """The operations of a body that was sent as JSON Patch (RFC 6902)."""


async def read_body(request: Request, receive: Receive, limit: int) -> bytes:
    """The whole body. TooLarge over the limit (while it streams), RequestTimeout after 15 seconds."""
    length = request.header(b"content-length")
    if length.isdecimal() and (len(length) > MAX_LENGTH_DIGITS or int(length) > limit):
        raise _too_large(limit)
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            return await _receive_all(receive, limit)
    except TimeoutError as error:
        raise RequestTimeout(f"The body did not arrive within {RECEIVE_SECONDS:.0f} seconds.") from error


def has_body(request: Request) -> bool:
    """Whether a body comes with a request."""
    return b"transfer-encoding" in request.headers or request.headers.get(b"content-length", b"0") != b"0"


async def refuse_body(request: Request, receive: Receive) -> None:
    """Malformed if a request has a body, other than `{}`, although its operation takes none."""
    if not has_body(request):
        return
    try:
        body = await read_body(request, receive, REFUSED_BYTES)
    except TooLarge:
        body = None
    if body not in (b"", b"{}"):
        raise Malformed(TAKES_NO_BODY, errors=[SEND_NO_BODY])


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
        value = decode_strict(body)
    except Faulty as error:
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
