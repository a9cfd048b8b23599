"""GET /events/stream: the log as Server-Sent Events (WHATWG HTML, section 9.2)."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Final

from taskade_server.consumers.follower import RESYNC, REVOKED, EventSelection, Follower, Frame, revocation
from taskade_server.engine import log
from taskade_server.http.live.parameters import CHOOSING, MAX_SECONDS, Reading, check_position, parameters
from taskade_server.http.live.sessions import Session
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Stream
from taskade_server.http.wire.send import PIECE_BYTES
from taskade_server.kit import json
from taskade_server.kit.errors import Gone, NotFound, Problem
from taskade_server.store.database import StoreError, Tx

HEARTBEAT_SECONDS: Final = 15.0


# A client that does not take a piece of 32 KiB in this time is not reading.
SLOW_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 1.0
RETRY_MS: Final = 2000
SSE: Final = b"text/event-stream"
STREAM_PARAMETERS: Final = ("after", "seconds", "names", *CHOOSING)
NAMES: Final = ("on", "off")
_SAID: Final = frozenset(["ready", RESYNC, REVOKED, "end"])
"""What a stream tells of itself, and not of the log; always by name."""


async def streaming(session: Session) -> Stream:
    """GET /events/stream: Server-Sent Events."""
    header = session.request.headers.get(b"last-event-id")
    wanted, after, head, (seconds, named), resync, generation = await session.read(
        lambda call, tx: _subscribed(call, tx, None if header is None else header.decode("latin-1"))
    )
    leave = session.enter()
    follower = Follower(session.hub.feed, session.hub.shown, wanted, session.principal, head if resync else after)
    opening = [
        Frame("ready", json.encode({"workspace_id": wanted.workspace_id, "seq": follower.position}), follower.position)
    ]
    if resync is not None:
        opening.insert(0, resync)
    headers = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    mark = f"{generation}-" if generation else ""
    written = _written(session, follower, opening, seconds, mark, named=named)
    return Stream(written, SSE, headers, SLOW_SECONDS, leave)


def _subscribed(
    call: Call, tx: Tx, last_event_id: str | None
) -> tuple[EventSelection, int, int, tuple[int | None, bool], Frame | None, int]:
    """What is wanted, where to begin, where the log ends, for how long, what to say first, and the log's generation.

    With how long goes whether events are named by their types.
    """
    reading = parameters(call, STREAM_PARAMETERS)
    wanted = reading.wanted(tx, call.principal, call.secret)
    seconds, named = reading.number("seconds", 1, MAX_SECONDS), reading.text("names")
    if named not in (None, *NAMES):
        reading.fault("names", "not_allowed", "names is on (the default) or off, for events without a name.")
    how = seconds, named != "off"
    after, present = reading.beginning(wanted.workspace_id), log.generation(tx)
    generation = reading.generations.get("after")
    if last_event_id:
        # A client that comes back has the address it began with, and this beside it.
        given = Reading({"Last-Event-ID": last_event_id}, ["Last-Event-ID"])
        after = given.position("Last-Event-ID", wanted.workspace_id)
        # Unlike a seq, which may be of any event, an id is always one that a stream gave.
        generation = given.generations.get("Last-Event-ID") or 0
        reading.issues += given.issues
    reading.fail()
    try:
        if after is not None:
            check_position(tx, wanted.workspace_id, after, generation)
    except Gone as gone:
        head = gone.extra["seq"]
        document = {"workspace_id": wanted.workspace_id, "reason": "log", **gone.extra}
        return wanted, head, head, how, Frame(RESYNC, json.encode(document), head), present
    head = log.head(tx, wanted.workspace_id)
    return wanted, head if after is None else after, head, how, None, present


async def _written(
    session: Session, follower: Follower, opening: list[Frame], seconds: int | None, mark: str, *, named: bool
) -> AsyncGenerator[bytes, None]:
    """The stream, piece by piece; `mark` begins the id of each frame, and says which generation its seq is from."""
    hub, block = session.hub, partial(_block, mark, named=named)
    yield b"retry: %d\n\n" % RETRY_MS + b"".join(map(block, opening))
    told, beat = follower.position, time.monotonic()
    until = None if seconds is None else beat + seconds
    while not hub.ended:
        now = time.monotonic()
        if until is not None and now >= until:
            yield b": the time is over\n\n"
            return
        if now - beat >= HEARTBEAT_SECONDS:
            # An id alone moves a client's place, and is no event.
            moved = told != follower.position
            yield f": still here\nid: {mark}{follower.position}\n\n".encode() if moved else b": still here\n\n"
            told, beat = follower.position, now
        left = beat + HEARTBEAT_SECONDS - now
        try:
            frames = await follower.next(left if until is None else min(left, until - now))
        except Problem as problem:
            yield _farewell(session, follower.wanted, problem)
            return
        except StoreError:
            await asyncio.sleep(AWAY_SECONDS)
            continue
        for piece in pieces(frames, block):
            hub.sent += piece.count(b"\ndata: ")
            yield piece
            beat = time.monotonic()
        told = next((frame.seq for frame in reversed(frames) if frame.seq is not None), told)
    # Not all at once, so that those who take over are not overrun.
    yield b": this server ends, another one will answer\nretry: %d\n\n" % secrets.randbelow(RETRY_MS)


def pieces(frames: list[Frame], block: Callable[[Frame], bytes]) -> Iterator[bytes]:
    """Frames as they are written: small ones together."""
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        waiting.append(block(frame))
        size += len(waiting[-1])
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _block(mark: str, frame: Frame, *, named: bool = True) -> bytes:
    """A frame as it is written; `mark` begins its id, and says which generation its seq is from.

    What has no name is a `message`, which browsers hand to one handler whatever it tells.
    """
    place = "" if frame.seq is None else f"id: {mark}{frame.seq}\n"
    name = f"event: {frame.type}\n" if named or frame.type in _SAID else ""
    return f"{place}{name}data: {frame.data}\n\n".encode("utf-8", "replace")


def _farewell(session: Session, wanted: EventSelection, problem: Problem) -> bytes:
    """What a client is told last, when it has lost the right to be told anything."""
    frames = []
    if isinstance(problem, NotFound):
        frames.append(revocation("workspace", wanted.workspace_id, wanted.workspace_id))
    document = problem.to_dict(session.request.path, session.request.request_id)
    return b"".join(_block("", frame) for frame in [*frames, Frame("end", json.encode(document))])
