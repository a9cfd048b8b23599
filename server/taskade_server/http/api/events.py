"""GET /events and GET /events/stream: a workspace's log for programs, as pages, by long polling, and as it happens.

Why every answer says how far it has looked: somebody who may see none of the last thousand events must not look at
them again, and one who comes back must neither miss an event nor get one twice.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.consumers.follower import EventSelection, facts_of
from taskade_server.consumers.pace import DECODED_A_STEP
from taskade_server.engine import events, log
from taskade_server.engine.log import Event
from taskade_server.engine.schema import Schema, id_schema, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.route import Route
from taskade_server.http.live.parameters import (
    CHOOSING,
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_SECONDS,
    MAX_WAIT,
    Reading,
    check_position,
    parameters,
)
from taskade_server.http.live.sessions import Session
from taskade_server.http.live.sse import NAMES, streaming
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Headers, Reply
from taskade_server.kit import ids, json
from taskade_server.kit.budget import LIGHT, Budget
from taskade_server.kit.errors import NotFound
from taskade_server.store.database import Tx

SCAN: Final = 20_000
"""How many events of a log one statement looks through for those of the wanted types and project."""
PASSED_A_STEP: Final = 2
EVENT_STEPS: Final = 40
"""What the unit's budget pays: one step for each `PASSED_A_STEP` events that a statement passes over, `EVENT_STEPS` for
each event that it gives, whether the caller may see it or not."""
LOOK_STEPS: Final = 50_000
"""How many steps of work one request does to compare events with its filter; the next page goes on from there."""
PAGE_TEXT: Final = 8 << 20
# For one event, the work is counted without a bound: the limits of filters and documents bound it.
_COUNTED: Final = 10**9

LIST_PARAMETERS: Final = ("after", "before", "order", "limit", "wait", *CHOOSING)


# ---- as a page -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _PageRequest:
    """A request for a page, understood. The events lie between `after` and `before`, both left out."""

    wanted: EventSelection
    limit: int
    descending: bool
    after: int
    before: int | None
    steps: int = 0
    """The work that was done to compare events with the filter."""


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

    def first(call: Call, tx: Tx) -> tuple[int, _PageRequest, _Page]:
        reading = parameters(call, LIST_PARAMETERS)
        seconds = reading.number("wait", 0, MAX_WAIT)
        asked = _asked(call, tx, reading)
        return seconds or 0, asked, _look(call, tx, asked)

    # Comparing filters is work for a thread, not for the event loop.
    filtered = b"filter" in session.request.scope["query_string"]
    seconds, asked, page = await session.read(first, heavy=filtered)
    if not seconds or page.found or asked.descending:
        return _replied(session.call, asked, page)
    leave, until = session.enter(), time.monotonic() + seconds
    try:
        while not page.found and not session.hub.ended and (left := until - time.monotonic()) > 0:
            if page.more and asked.steps >= LOOK_STEPS:
                break
            if not page.more:
                await session.hub.feed.wait({asked.wanted.workspace_id: page.position}, left)
            asked.after = page.position
            page = await session.read(lambda call, tx: _look(call, tx, asked), heavy=filtered)
        return _replied(session.call, asked, page)
    finally:
        leave()


def _asked(call: Call, tx: Tx, reading: Reading) -> _PageRequest:
    wanted = reading.wanted(tx, call.principal, call.secret, lasting=False)
    limit = reading.number("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
    order = reading.text("order")
    if order not in (None, "asc", "desc"):
        reading.fault("order", "not_allowed", "order is asc (oldest first, the default) or desc.")
    latest = reading.values.get("after") == "latest"
    after = None if latest else reading.position("after", wanted.workspace_id)
    before = reading.position("before", wanted.workspace_id)
    descending = order == "desc" or (order is None and before is not None and after is None)
    if (descending or before is not None) and reading.values.get("wait") not in (None, "0"):
        detail = "Nothing new comes before a seq, nor in reading backwards; leave wait, or before and order, out."
        reading.fault("wait", "not_allowed", detail)
    reading.fail()
    name = "after" if after is not None or before is None else "before"
    position = after or 0 if name == "after" else max(0, (before or 0) - 1)
    # Without a position it begins where the log does, wherever that is.
    given = after is not None or before is not None
    generation = reading.generations.get(name)
    first, head = (
        check_position(tx, wanted.workspace_id, position, generation) if given else log.bounds(tx, wanted.workspace_id)
    )
    start = head if latest else after if after is not None else first - 1
    return _PageRequest(wanted, limit, descending, start, before)


def _look(call: Call, tx: Tx, asked: _PageRequest) -> _Page:
    """Look for events that fit, until the page is full, the work is spent, or the end is reached."""
    wanted, principal = asked.wanted, call.principal
    if principal.grant(wanted.workspace_id) is None:
        raise NotFound(f"There is no workspace {wanted.workspace_id} that this key can see any more.")
    _, head = log.bounds(tx, wanted.workspace_id)
    low, high = asked.after, head + 1 if asked.before is None else min(asked.before, head + 1)
    # A unit that is light begins again with more when it has used up what it may do; any other keeps half of that.
    reserve = 0 if tx.budget.steps <= LIGHT else tx.budget.left // 2
    position = high if asked.descending else low
    found: list[str] = []
    size = 0

    def is_full() -> bool:
        return len(found) >= asked.limit or size >= PAGE_TEXT or asked.steps >= LOOK_STEPS

    for page, edge in _portions(tx, asked, low, high):
        for event in page:
            if is_full():
                break
            position = event.seq
            shown = events.shown_to(principal, event)
            if shown is not None and _fits(tx, asked, shown):
                found.append(events.render(shown))
                size += len(found[-1])
        else:
            position = edge
        if is_full() or tx.budget.left < reserve:
            break
    more = position > asked.after + 1 if asked.descending else position < high - 1
    return _Page(found, position, more)


def _portions(tx: Tx, asked: _PageRequest, low: int, high: int) -> Iterator[tuple[list[Event], int]]:
    """The wanted events between two positions, in the order that is asked for, each time with how far that was looked.

    The database selects by type and project. No statement goes through more than a piece of the log, and what each
    passes over is taken from the unit's budget.
    """
    wanted, looked = asked.wanted, 0
    # Those of one object are found by an index, wherever they lie; all of them, so that each one looked at is counted.
    whole = wanted.object_id is not None
    selected: dict[str, Any] = (
        {"object_id": wanted.object_id} if whole else {"types": wanted.types, "project_id": wanted.project_id}
    )
    while high - low > 1:
        bottom, top = low, high
        if not whole:
            bottom, top = (max(low, high - SCAN - 1), high) if asked.descending else (low, min(high, low + SCAN + 1))
        # More each time, in case that few of them fit.
        room = min(500, max(looked, asked.limit + 1))
        page = log.select(
            tx,
            wanted.workspace_id,
            bottom,
            top,
            limit=room,
            descending=asked.descending,
            **selected,
        )
        looked += len(page)
        edge = page[-1].seq if page else bottom + 1 if asked.descending else top - 1
        passed = 0 if whole else high - edge if asked.descending else edge - low
        tx.budget.spend(passed // PASSED_A_STEP + EVENT_STEPS * len(page))
        low, high = (low, edge) if asked.descending else (edge, high)
        yield page, edge


def _fits(tx: Tx, asked: _PageRequest, event: Event) -> bool:
    """Whether an event is as the request says; the work of its filter is counted."""
    budget = Budget(_COUNTED)
    fits = asked.wanted.fits(event, facts_of, budget)
    if asked.wanted.condition is not None:
        steps = 1 + budget.used + (len(event.data) // DECODED_A_STEP if budget.used else 0)
        asked.steps += steps
        tx.budget.spend(steps)
    return fits


def _replied(call: Call, asked: _PageRequest, page: _Page) -> Reply:
    step = "before" if asked.descending else "after"
    headers: Headers = [(b"cache-control", b"no-store")]
    if not asked.descending:
        headers.append((b"next-after", str(page.position).encode()))
    if page.more:
        headers.append(call.link_to_next(step, page.position))
    return Reply(200, json.array(page.found), headers)


def reading(call: Call, tx: Tx) -> Reply:
    """GET /events/{id}."""
    call.no_parameters()
    event = log.find(tx, call.path[0])
    shown = None if event is None else events.shown_to(call.principal, event)
    if shown is None:
        raise NotFound(f"There is no event {call.path[0][:80]} that this key can see.")
    return Reply(200, events.render(shown))


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_POSITION: Final[Schema] = {"type": "string", "pattern": f"^({ids.pattern('ws')[1:-1]}:)?[0-9]{{1,17}}$"}
_AFTER: Final[Schema] = {"type": "string", "pattern": f"^(latest|({ids.pattern('ws')[1:-1]}:)?[0-9]{{1,17}})$"}


def _query(name: str, form: Schema, text: str, example: object = None) -> Schema:
    found: Schema = {"name": name, "in": "query", "schema": form, "description": text}
    return found if example is None else {**found, "example": example}


_FILTER: Final[Schema] = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("AnyFilter")}
_CHOOSING: Final[dict[str, Schema]] = {
    "EventTypes": {
        "name": "types", "in": "query", "style": "form", "explode": False, "example": ["task.*"],
        "schema": {"type": "array", "items": ref("EventTypePattern")},
        "description": "Only these types of events, or patterns such as `task.*`.",
    },
    "EventWorkspace": _query(
        "workspace_id", id_schema("workspace"), "The workspace. Default: the default workspace of the caller."
    ),
    "EventProject": _query("project_id", id_schema("project"), "Only events in this project."),
    "EventObject": _query("object_id", {"type": "string"}, "Only events of this object.", sample_id("task")),
    "EventFilter": _query(
        "filter", _FILTER, "Conditions on `data`, as the text of a JSON document; `types` must then name one resource."
    ),
}  # fmt: skip
_LISTING: Final[dict[str, Schema]] = {
    "EventsAfter": _query("after", _AFTER, "Only events after this `seq` (a `Commit-Seq` is taken as well), or"
                          " `latest` for what happens from now on.", "123"),
    "EventsBefore": _query("before", _POSITION, "Only events before this `seq`, newest first.", "123"),
    "EventsOrder": _query("order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
                          "`desc` for the newest first.", "desc"),
    "EventsLimit": _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                    "How many to return at most.", 50),
    "EventsWait": _query("wait", {"type": "integer", "minimum": 0, "maximum": MAX_WAIT, "default": 0},
                         "If there is nothing yet, wait this many seconds for something. Not with `before` or"
                         " `order=desc`, where nothing new appears.", 0),
}  # fmt: skip
_STREAMING: Final[dict[str, Schema]] = {
    "StreamAfter": _query("after", _AFTER, "Begin after this `seq`. Default: `latest`, which is now.", "123"),
    "LastEventId": {"name": "Last-Event-ID", "in": "header", "schema": _POSITION, "example": "123",
                    "description": "The `id` of the last message. Takes precedence over `after`."},
    "StreamSeconds": _query("seconds", {"type": "integer", "minimum": 1, "maximum": MAX_SECONDS},
                            "End the stream after this many seconds.", 60),
    "StreamNames": _query("names", {"type": "string", "enum": [*NAMES], "default": "on"},
                          "`off` leaves out the `event:` lines, so that `onmessage` of an EventSource gets every"
                          " event.", "off"),
    "StreamByTicket": _query("ticket", {"type": "string"},
                           "A ticket from `POST /stream-tickets`, in place of the header `Authorization`."),
}  # fmt: skip
_STREAM: Final = (
    f'id: 122\nevent: ready\ndata: {{"workspace_id":"{sample_id("ws")}","seq":122}}\n\n'
    f'id: 123\nevent: task.completed\ndata: {{"id":"{sample_id("evt")}","type":"task.completed",...}}\n\n'
)


def _any_filter() -> Mapping[str, Schema]:
    text = "A filter as the list of that resource takes it, such as `TaskFilter`."
    return {"AnyFilter": {"type": "object", "additionalProperties": True, "description": text}}


EVENT_ID: Final[dict[str, Schema]] = {
    "PathEventId": {
        "name": "id",
        "in": "path",
        "required": True,
        "example": sample_id("evt"),
        "schema": ref("EventId"),
        "description": "The id of the event.",
    }
}
LIST: Final = Document(
    notes="Oldest first after `after`; `order=desc` or `before` gives the newest first. With `wait`, an empty response"
    " comes only after that many seconds. `Next-After` is the `after` of the next request, even if nothing was found. A"
    " page may be empty and still have a `Link`, since each request does a limited amount of work: it looks through"
    " millions of events by type and project, and through fewer the more complex a filter is. Events that the key may"
    " not see are left out. 410 means that the log no longer reaches back that far.",
    parameters={**_LISTING, **_CHOOSING},
    answer=Answer("Event", "The events, as an array.", many=True, headers=("Link", "Next-After", "Cache-Control")),
    problems=(404, 410),
    cached=False,
    schemas=_any_filter,
)
GET: Final = Document(
    notes="One event that the key may see.", in_path=EVENT_ID, answer=Answer("Event", "The event."), cached=False
)
STREAM: Final = Document(
    notes="Each message of this stream (Server-Sent Events) has the `seq` as its `id`, the type as its `event`, and the"
    " event as its `data`. The first message is `ready`: everything after its `seq` will be sent. `Last-Event-ID`,"
    " which browsers send by themselves, or `after` continues where an earlier stream ended. `resync` means: read"
    " everything again. `access.revoked` means: an object can no longer be seen. `end` says why the stream ends.",
    parameters={**_STREAMING, **_CHOOSING},
    answer=Answer(
        "",
        "A stream of messages: `ready`, then events.",
        headers=("Cache-Control", "X-Accel-Buffering"),
        media={"text/event-stream": {"schema": {"description": "Server-Sent Events."}, "example": _STREAM}},
    ),
    problems=(404, 410),
    cached=False,
)


def routes() -> Iterator[Route]:
    """The routes of the log, as pages and as a stream."""
    yield Route(
        "GET",
        "/events",
        "events.list",
        "",
        listing,
        None,
        "List what has happened",
        answer="events",
        live=waiting,
        document=LIST,
    )
    yield Route(
        "GET",
        "/events/{id}",
        "events.get",
        "",
        reading,
        None,
        "Read an event",
        answer="event",
        document=GET,
    )
    yield Route(
        "GET",
        "/events/stream",
        "events.stream",
        "",
        listing,
        None,
        "Follow what happens (Server-Sent Events)",
        answer="stream",
        batchable=False,
        live=streaming,
        media=("text/event-stream",),
        document=STREAM,
    )
