"""What the operations of events, streams and tickets say about themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Final

from taskade_server.engine import event_schema, schema
from taskade_server.engine.schema import Schema, id_schema, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.live.parameters import DEFAULT_LIMIT, MAX_LIMIT, MAX_SECONDS, MAX_WAIT
from taskade_server.http.live.sse import NAMES
from taskade_server.kit import ids

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


def _ticket() -> Mapping[str, Schema]:
    return {
        "StreamTicket": {
            "type": "object",
            "required": ["ticket", "expires_at"],
            "description": "A short-lived credential for a stream in a browser.",
            "properties": {
                "ticket": {"type": "string", "description": "The ticket."},
                "expires_at": {**schema.TIME, "description": "Until when it can open streams."},
            },
            "examples": [{"ticket": "pVx2o1mN0u8Wd7cRWyJ0aWNrZXQiLDE3M10", "expires_at": event_schema.SAMPLE_TIME}],
        }
    }


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
TICKET: Final = Document(
    notes="The ticket goes into `?ticket=` of `/events/stream` or `/realtime`, where a browser cannot send a header. It"
    " has the rights of the key and opens streams for one minute; open streams continue after that.",
    answer=Answer("StreamTicket", "The ticket.", headers=("Cache-Control",)),
    problems=(422,),
    schemas=_ticket,
)
TYPES: Final = Document(
    notes="The same for every caller. `sample` is an event with made-up values, for tools to show.",
    answer=Answer("EventType", "Every type of event.", many=True, headers=("ListETag",)),
)
