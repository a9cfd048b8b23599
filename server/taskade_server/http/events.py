"""GET /events and GET /events/stream: a workspace's log for programs, as pages, by long polling, and as it happens.

Why every answer says how far it has looked: somebody who may see none of the last thousand events must not look at
them again, and one who comes back must neither miss an event nor get one twice.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.consumers.follower import RESYNC, Follower, Frame, Wanted, document_of, revocation
from taskade_server.engine import events, filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.filters import Node
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.http.live import Session
from taskade_server.http.wire import PIECE_BYTES, Call, Headers, Reply, Stream
from taskade_server.kit import ids, json
from taskade_server.kit.errors import Gone, InvalidQuery, Issue, NotFound, Problem, did_you_mean
from taskade_server.store.database import StoreError, Tx

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_WAIT: Final = 60
MAX_SECONDS: Final = 86_400
# So far one answer looks for events that fit.
SCAN: Final = 20_000
PAGE_TEXT: Final = 8 << 20
HEARTBEAT_SECONDS: Final = 15.0
# A client that does not take a piece of 32 KiB in this time is not reading.
SLOW_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 1.0
RETRY_MS: Final = 2000
SSE: Final = b"text/event-stream"

CHOOSING: Final = ("types", "workspace_id", "project_id", "object_id", "filter")
LIST_PARAMETERS: Final = ("after", "before", "order", "limit", "wait", *CHOOSING)
STREAM_PARAMETERS: Final = ("after", "seconds", *CHOOSING)


# ---- what is wanted --------------------------------------------------------------------------------------------------


class Reading:
    """The parameters of a request for events, or the members of a subscription, with every fault there is in them."""

    def __init__(self, values: Mapping[str, Any], allowed: Iterable[str], *, typed: bool = False) -> None:
        """`typed`: the values come from a JSON document, where a number is a number."""
        self.values = values
        self.typed = typed
        self.issues: list[Issue] = []
        names = sorted(allowed)
        for name in values:
            if name not in names:
                detail = f'There is no "{name[:80]}" here.{did_you_mean(name, names)} Allowed: {", ".join(names)}.'
                self.fault(name, "unknown_field" if typed else "unknown_parameter", detail)

    def fault(self, name: str, code: str, detail: str) -> None:
        """Note what is wrong with one of them."""
        place = {"pointer": f"/{json.escape_pointer(name)}"} if self.typed else {"parameter": name}
        self.issues.append(Issue(code, detail, **place))

    def fail(self) -> None:
        """InvalidQuery if anything is wrong."""
        if self.issues:
            raise InvalidQuery(errors=self.issues)

    def number(self, name: str, least: int, most: int) -> int | None:
        """A whole number, None if there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and not self.typed and value.isascii() and value.isdigit() and len(value) < 18:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(name, "out_of_range", f"{name} is a whole number from {least} to {most}.")
            return None
        return value

    def text(self, name: str) -> str | None:
        """One text, None if there is none."""
        value = self.values.get(name)
        if value is not None and not (isinstance(value, str) and value):
            self.fault(name, "wrong_type", f"{name} takes one text that is not empty; leave it out otherwise.")
            return None
        return value

    def types(self, name: str) -> frozenset[str] | None:
        """The types of events that the patterns stand for; None for all of them."""
        value = self.values.get(name)
        if value is None:
            return None
        patterns = [value] if isinstance(value, str) else value
        if not isinstance(patterns, list) or not all(isinstance(item, str) for item in patterns):
            self.fault(name, "wrong_type", f"{name} takes types of events such as task.created, or task.* or *.")
            return None
        patterns = [part.strip() for item in patterns for part in item.split(",")]
        for pattern in patterns:
            wrong = events.fault(pattern)
            if wrong is not None:
                self.fault(name, "unknown_event", wrong)
        found = frozenset(kind for kind in events.catalogue() if events.fits(patterns, kind))
        return None if len(found) == len(events.catalogue()) else found

    def workspace(self, principal: Principal) -> str:
        """The workspace whose log it is about; "" after a fault."""
        name = self.text("workspace_id")
        if name is None and isinstance(position := self.values.get("after"), str) and ":" in position:
            name = position.rpartition(":")[0]
        name = name or principal.default_workspace
        if name is None:
            self.fault("workspace_id", "required", "You belong to no workspace whose events there could be.")
        elif principal.grant(name) is None:
            self.fault("workspace_id", "unknown_reference", f"There is no workspace {name[:80]} that you can see.")
            name = None
        return name or ""

    def position(self, name: str, workspace_id: str) -> int | None:
        """A seq, alone or as Commit-Seq has it (`<workspace>:<seq>`)."""
        value = self.values.get(name)
        if isinstance(value, str) and ":" in value:
            place, _, value = value.rpartition(":")
            if place != workspace_id:
                self.fault(name, "other_workspace", f"{name} is a position in the log of another workspace.")
                return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18:
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            self.fault(name, "invalid_format", f"{name} is the seq of an event, such as 123.")
            return None
        return value

    def wanted(self, tx: Tx, principal: Principal, secret: bytes, types_name: str = "types") -> Wanted:
        """Which events; look at the faults afterwards."""
        types = self.types(types_name)
        workspace_id = self.workspace(principal)
        project_id, object_id = self.text("project_id"), self.text("object_id")
        if project_id is not None and query.resolve(tx, principal, "project", project_id) is None:
            self.fault("project_id", "unknown_reference", f"There is no project {project_id[:80]} that you can see.")
        if object_id is not None and not any(ids.is_id(object_id, kind.prefix) for kind in REGISTRY.values()):
            self.fault("object_id", "invalid_format", "object_id is the id of a task, a project or the like.")
        condition = self._condition(tx, principal, secret, types, types_name)
        return Wanted(workspace_id, types, project_id, object_id, condition)

    def _condition(
        self, tx: Tx, principal: Principal, secret: bytes, types: frozenset[str] | None, types_name: str
    ) -> tuple[Resource, Node] | None:  # fmt: skip
        document = self.values.get("filter")
        if document is None:
            return None
        resources = {events.catalogue()[name].resource.name for name in types or events.catalogue()}
        if len(resources) > 1:
            detail = f"A filter looks at one kind of object: name it in {types_name}, for example task.*."
            self.fault("filter", "not_allowed", detail)
            return None
        resource = REGISTRY[resources.pop()]
        if not self.typed:
            try:
                document = json.decode_strict(str(document).encode())
            except json.Faulty as error:
                self.fault("filter", "malformed_json", f"filter={{...}} must be one JSON document. {error}")
                return None
        parsed = parsed_query(tx, principal, resource, secret, {"filter": document}, self)
        return None if parsed is None or parsed.where == filters.EVERYTHING else (resource, parsed.where)


def parsed_query(
    tx: Tx, principal: Principal, resource: Resource, secret: bytes, body: Any, reading: Reading
) -> query.Query | None:  # fmt: skip
    """A list request that means the same at any time; otherwise the faults are noted."""
    try:
        parsed = query.parse(tx, principal, resource, secret, [], body)
    except InvalidQuery as error:
        for issue in error.errors:
            if reading.typed:
                reading.issues.append(issue)
            else:
                reading.fault("filter", issue.code, f"{issue.detail} (at {issue.pointer or 'the top'})")
        return None
    if not parsed.lasting:
        detail = "today, -7d and the like mean something else tomorrow; a filter that lasts needs a date."
        reading.fault("filter", "not_allowed", detail)
        return None
    return parsed


def parameters(call: Call, allowed: Iterable[str]) -> Reading:
    """Those of a request."""
    tree = filters.tree_of(call.pairs())
    # `types[0]=...` is a list by now; what was repeated is one, too.
    values = {
        name: value["$eq"] if isinstance(value, dict) and set(value) == {"$eq"} else value
        for name, value in tree.items()
    }
    return Reading(values, allowed)


def check_position(tx: Tx, workspace_id: str, after: int, reading: Reading, name: str) -> tuple[int, int]:
    """The bounds of a log, once `after` lies within it. Gone if the log no longer reaches back so far."""
    first, head = log.bounds(tx, workspace_id)
    if after > head:
        reading.fault(name, "beyond_log", f"The log of {workspace_id} ends at {head}: {after} is not from there.")
        reading.fail()
    if after + 1 < first:
        detail = f"The log of {workspace_id} begins at {first} by now: read everything anew, then go on after {head}."
        raise Gone(detail, extra={"first_seq": first, "seq": head})
    return first, head


# ---- as a page -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Asked:
    """A request for a page, understood. The events lie between `after` and `before`, both left out."""

    wanted: Wanted
    limit: int
    descending: bool
    after: int
    before: int | None


@dataclass(slots=True)
class _Page:
    """The events that were found, up to where was looked, and whether there is more at once."""

    found: list[str]
    position: int
    more: bool


def listing(call: Call, tx: Tx) -> Reply:
    """GET /events, which does not wait as part of a batch."""
    reading = parameters(call, LIST_PARAMETERS)
    if reading.number("wait", 0, MAX_WAIT):
        reading.fault("wait", "not_allowed", "A batch does not wait.")
    asked = _asked(call, tx, reading)
    return _replied(call, asked, _look(call, tx, asked))


async def waiting(session: Session) -> Reply:
    """GET /events: with `wait`, not before there is something to tell or the time is over."""
    call = session.call

    def first(call: Call, tx: Tx) -> tuple[int, _Asked, _Page]:
        reading = parameters(call, LIST_PARAMETERS)
        seconds = reading.number("wait", 0, MAX_WAIT)
        asked = _asked(call, tx, reading)
        return seconds or 0, asked, _look(call, tx, asked)

    seconds, asked, page = await session.read(first)
    if not seconds or page.found or asked.descending:
        return _replied(call, asked, page)
    leave, until = session.enter(), time.monotonic() + seconds
    try:
        while not page.found and not session.hub.ended and (left := until - time.monotonic()) > 0:
            if not page.more:
                await session.hub.feed.wait({asked.wanted.workspace_id: page.position}, left)
            asked.after = page.position
            page = await session.read(lambda call, tx: _look(call, tx, asked))
        return _replied(call, asked, page)
    finally:
        leave()


def _asked(call: Call, tx: Tx, reading: Reading) -> _Asked:
    wanted = reading.wanted(tx, call.principal, call.secret)
    limit = reading.number("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
    order = reading.text("order")
    if order not in (None, "asc", "desc"):
        reading.fault("order", "not_allowed", "order is asc (oldest first, the default) or desc.")
    latest = reading.values.get("after") == "latest"
    after = None if latest else reading.position("after", wanted.workspace_id)
    before = reading.position("before", wanted.workspace_id)
    descending = order == "desc" or (order is None and before is not None and after is None)
    if descending and reading.values.get("wait") not in (None, "0"):
        reading.fault("wait", "not_allowed", "Who reads backwards has nothing to wait for; leave wait out.")
    elif before is not None and reading.values.get("wait") not in (None, "0"):
        reading.fault("wait", "not_allowed", "What lies before a seq is there already; leave wait or before out.")
    reading.fail()
    name = "after" if after is not None or before is None else "before"
    position = after or 0 if name == "after" else max(0, (before or 0) - 1)
    # Without a position it begins where the log does, wherever that is.
    given = after is not None or before is not None
    first, head = check_position(tx, wanted.workspace_id, position, reading, name) if given else log.bounds(
        tx, wanted.workspace_id
    )  # fmt: skip
    start = head if latest else after if after is not None else first - 1
    return _Asked(wanted, limit, descending, start, before)


def _look(call: Call, tx: Tx, asked: _Asked) -> _Page:
    """Look for events that fit, up to so many, and so far."""
    wanted, principal = asked.wanted, call.principal
    if principal.grant(wanted.workspace_id) is None:
        raise NotFound(f"There is no workspace {wanted.workspace_id} that this key can see any more.")
    _, head = log.bounds(tx, wanted.workspace_id)
    low, high = asked.after, head + 1 if asked.before is None else min(asked.before, head + 1)
    if wanted.object_id is None:
        bottom, top = (max(low, high - SCAN - 1), high) if asked.descending else (low, min(high, low + SCAN + 1))
        selected: dict[str, Any] = {"types": wanted.types, "project_id": wanted.project_id}
    else:  # found by an index, wherever they lie; all of the object, so that each one looked at is counted
        bottom, top, selected = low, high, {"object_id": wanted.object_id}
    position, done = (high if asked.descending else low), False
    found: list[str] = []
    size = looked = 0
    while not done and len(found) < asked.limit and size < PAGE_TEXT and looked < SCAN:
        # More each time, in case that few of them fit.
        room = min(500, max(looked, asked.limit - len(found) + 1))
        page = log.select(
            tx, wanted.workspace_id, bottom, top, limit=room, descending=asked.descending, **selected,
        )  # fmt: skip
        done = not page
        looked += len(page)
        for event in page:
            if len(found) >= asked.limit or size >= PAGE_TEXT:
                break
            position = event.seq
            if wanted.fits(event, document_of) and events.sees(principal, event):
                found.append(events.render(event))
                size += len(found[-1])
        bottom, top = (bottom, position) if asked.descending else (position, top)
    if done:
        position = bottom + 1 if asked.descending else max(low, top - 1)
    more = position > asked.after + 1 if asked.descending else position < high - 1
    return _Page(found, position, more)


def _replied(call: Call, asked: _Asked, page: _Page) -> Reply:
    step = "before" if asked.descending else "after"
    headers: Headers = [(b"cache-control", b"no-store")]
    if not asked.descending:
        headers.append((b"next-after", str(page.position).encode()))
    if page.more:
        kept = [part for part in call.query_string.split("&") if part and part.partition("=")[0] != step]
        address = f"{call.url}?{'&'.join([*kept, f'{step}={page.position}'])}"
        headers.append((b"link", f'<{address}>; rel="next"'.encode()))
    return Reply(200, json.array(page.found), headers)


def reading(call: Call, tx: Tx) -> Reply:
    """GET /events/{id}."""
    call.no_parameters()
    event = log.find(tx, call.path[0])
    if event is None or not events.sees(call.principal, event):
        raise NotFound(f"There is no event {call.path[0][:80]} that this key can see.")
    return Reply(200, events.render(event))


# ---- as it happens ---------------------------------------------------------------------------------------------------


async def streaming(session: Session) -> Stream:
    """GET /events/stream: Server-Sent Events."""
    header = session.request.headers.get(b"last-event-id")
    wanted, after, head, seconds, resync = await session.read(
        lambda call, tx: _subscribed(call, tx, None if header is None else header.decode("latin-1"))
    )
    leave = session.enter()
    follower = Follower(session.hub.feed, session.hub.shown, wanted, session.caller, head if resync else after)
    opening = [Frame("ready", json.encode({"workspace_id": wanted.workspace_id, "seq": follower.position}),
                     follower.position)]  # fmt: skip
    if resync is not None:
        opening.insert(0, resync)
    headers = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    return Stream(_written(session, follower, opening, seconds), SSE, headers, SLOW_SECONDS, leave)


def _subscribed(
    call: Call, tx: Tx, last_event_id: str | None
) -> tuple[Wanted, int, int, int | None, Frame | None]:  # fmt: skip
    """What is wanted, where to begin, where the log ends, for how long, and what to say if it does not reach back."""
    reading = parameters(call, STREAM_PARAMETERS)
    wanted = reading.wanted(tx, call.principal, call.secret)
    seconds = reading.number("seconds", 1, MAX_SECONDS)
    after = reading.position("after", wanted.workspace_id)
    if last_event_id:
        # A client that comes back has the address it began with, and this beside it.
        given = Reading({"Last-Event-ID": last_event_id}, ["Last-Event-ID"])
        after = given.position("Last-Event-ID", wanted.workspace_id)
        reading.issues += given.issues
    reading.fail()
    try:
        if after is not None:
            check_position(tx, wanted.workspace_id, after, reading, "Last-Event-ID" if last_event_id else "after")
    except Gone as gone:
        head = gone.extra["seq"]
        document = {"workspace_id": wanted.workspace_id, "reason": "log", **gone.extra}
        return wanted, head, head, seconds, Frame(RESYNC, json.encode(document), head)
    head = log.head(tx, wanted.workspace_id)
    return wanted, head if after is None else after, head, seconds, None


async def _written(
    session: Session, follower: Follower, opening: list[Frame], seconds: int | None
) -> AsyncGenerator[bytes, None]:  # fmt: skip
    hub = session.hub
    yield b"retry: %d\n\n" % RETRY_MS + b"".join(map(_block, opening))
    told, beat = follower.position, time.monotonic()
    until = None if seconds is None else beat + seconds
    while not hub.ended:
        now = time.monotonic()
        if until is not None and now >= until:
            yield b": the time is over\n\n"
            return
        if now - beat >= HEARTBEAT_SECONDS:
            # An id alone moves a client's place, and is no event.
            yield b": still here\n\n" if told == follower.position else b": still here\nid: %d\n\n" % follower.position
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
        for piece in pieces(frames):
            hub.sent += piece.count(b"\ndata: ")
            yield piece
            beat = time.monotonic()
        told = next((frame.seq for frame in reversed(frames) if frame.seq is not None), told)
    # Not all at once, so that those who take over are not overrun.
    yield b": this server ends, another one will answer\nretry: %d\n\n" % secrets.randbelow(RETRY_MS)


def pieces(frames: list[Frame]) -> Iterator[bytes]:
    """Frames as they are written: small ones together."""
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        waiting.append(_block(frame))
        size += len(waiting[-1])
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _block(frame: Frame) -> bytes:
    place = "" if frame.seq is None else f"id: {frame.seq}\n"
    return f"{place}event: {frame.type}\ndata: {frame.data}\n\n".encode("utf-8", "replace")


def _farewell(session: Session, wanted: Wanted, problem: Problem) -> bytes:
    """What a client is told last, when it has lost the right to be told anything."""
    frames = []
    if isinstance(problem, NotFound):
        frames.append(revocation("workspace", wanted.workspace_id, wanted.workspace_id))
    document = problem.to_dict(session.request.path, session.request.request_id)
    return b"".join(map(_block, [*frames, Frame("end", json.encode(document))]))
