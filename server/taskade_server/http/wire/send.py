"""Sends replies and streams, compressed if the client takes that."""

import asyncio
import gzip
from contextlib import aclosing
from functools import lru_cache, partial
from typing import Any, Final

import zstandard

from taskade_server.http.wire.body import OFF_LOOP_BYTES
from taskade_server.http.wire.negotiation import CORS, VARY, tagged
from taskade_server.http.wire.reply import Headers, Reply, Stream
from taskade_server.http.wire.request import Receive, Request, Send

COMPRESS_FROM: Final = 16_384
PIECE_BYTES: Final = 32 << 10
PLAIN_OFF_LOOP: Final = 1 << 20
"""A text with more characters becomes bytes in a thread, even without compression: 8 million take 12 ms."""
PIECE_CHARACTERS: Final = 256 << 10
"""So many characters become bytes at once: encoding holds the interpreter's lock, and the event loop wants it, too."""


# A larger answer goes out piece by piece as the client takes it; a smaller one is handed over whole.
WHOLE_BYTES: Final = 64 << 10
_NO_HEADERS: Final[Headers] = []
LENGTH: Final = "taskade.length"
"""In the message that begins a larger answer: how many bytes will follow. It may be refused with Unavailable."""


async def send(request: Request, reply: Reply, respond: Send, more: Headers = _NO_HEADERS) -> int:
    """Write a reply, compressed if it is large and the client can read that; how many bytes its body had.

    `more` are headers that do not come from the handler, such as those of the rate limit. Unavailable, before anything
    is written, if there is no room for a large answer.
    """
    headers: Headers = [(b"x-request-id", request.request_id.encode()), VARY, *more, *reply.headers]
    body = b""
    if reply.body is not None:
        headers.append((b"content-type", reply.content_type))
        encoding = b""
        if len(reply.body) >= COMPRESS_FROM:
            encoding = _encoding(request.headers.get(b"accept-encoding", b""))
            headers.append((b"vary", b"accept-encoding"))
            if encoding:
                headers = [*map(partial(tagged, encoding), headers), (b"content-encoding", encoding)]
        large = len(reply.body) > (4 * OFF_LOOP_BYTES if encoding else PLAIN_OFF_LOOP)
        body = await asyncio.to_thread(_pack, reply, encoding) if large else _pack(reply, encoding)
    if reply.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    if b"origin" in request.headers:
        headers += CORS
    if request.method == "HEAD":
        body = b""
    start: dict[str, Any] = {"type": "http.response.start", "status": reply.status, "headers": headers}
    if len(body) > WHOLE_BYTES:
        start[LENGTH] = len(body)
    await respond(start)
    await respond({"type": "http.response.body", "body": body})
    return len(body)


async def send_stream(
    request: Request, stream: Stream, receive: Receive, respond: Send, more: Headers
) -> tuple[int, bool]:
    """Write a stream until it ends, or its client does; how many bytes it had, and whether the client was too slow."""
    headers = [(b"x-request-id", request.request_id.encode()), *more, *stream.headers]
    headers.append((b"content-type", stream.content_type))
    if b"origin" in request.headers:
        headers += CORS
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


def _utf8(text: str) -> bytes:
    """The bytes of a text; half a surrogate pair becomes a question mark."""
    if len(text) <= PIECE_CHARACTERS:
        return text.encode("utf-8", "replace")
    places = range(0, len(text), PIECE_CHARACTERS)
    return b"".join([text[place : place + PIECE_CHARACTERS].encode("utf-8", "replace") for place in places])


def _pack(reply: Reply, encoding: bytes) -> bytes:
    """The bytes of a body, kept for the next time if the reply is one that is given again."""
    known = None if reply.packed is None else reply.packed.get(encoding)
    if known is not None:
        return known
    body = _utf8(reply.body or "")
    if encoding == b"zstd":
        body = zstandard.ZstdCompressor(level=1).compress(body)
    elif encoding == b"gzip":
        body = gzip.compress(body, compresslevel=1, mtime=0)
    if reply.packed is not None:
        reply.packed[encoding] = body
    return body
