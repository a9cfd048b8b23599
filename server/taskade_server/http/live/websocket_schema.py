"""The messages of the WebSocket in both directions, as JSON Schema for the AsyncAPI document.

Messages of clients may have no other members, since an unknown member is a mistake of the sender. Messages of the
server may get more members in a later version.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from taskade_server.consumers.follower import RESYNC, REVOKED
from taskade_server.engine.event_schema import SAMPLE_TIME
from taskade_server.engine.schema import Schema, ref, sample_id


class MessageType(NamedTuple):
    """One type of message: what it is for, its members beside `type`, an example, which members may be missing."""

    summary: str
    members: Mapping[str, Schema]
    example: Mapping[str, Any]
    optional: tuple[str, ...] = ()


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


_NAME: Final = _text("The name that the client gave to the subscription.", minLength=1, maxLength=64)
_SEQ: Final[Schema] = {"type": "integer", "minimum": 0, "description": "The position in the log."}
_POSITIONS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "The last position sent to each subscription, by its name.",
}
_PROJECT: Final = _text("The project.")
_WORKSPACE: Final = _text("The workspace.")
_FILTER: Final[Schema] = {
    "type": "object",
    "additionalProperties": True,
    "description": "A filter document, as for lists.",
}
_ITEM: Final[Schema] = {"type": "object", "additionalProperties": True, "description": "The whole object."}
_PROBLEM: Final = ref("Problem", "The error.")
_PROJECT_ID, _TASK_ID, _WS_ID, _USER_ID = (sample_id(prefix) for prefix in ("proj", "task", "ws", "user"))
_TASK: Final[Schema] = {"id": _TASK_ID, "name": "Design mockups", "version": 2}

FROM_CLIENT: Final[Mapping[str, MessageType]] = {
    "subscribe.events": MessageType(
        "Follow events.",
        {
            "id": _NAME,
            "events": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                       "description": "Types, or patterns such as `task.*`. Default: all."},
            "after": {"type": ["integer", "string"], "description": "Begin after this `seq`. Default: now."},
            "workspace_id": _WORKSPACE, "project_id": _PROJECT, "filter": _FILTER,
            "object_id": _text("Only events of this object."),
        },
        {"type": "subscribe", "id": "mine", "events": ["task.*"], "project_id": _PROJECT_ID, "after": 120},
        ("events", "after", "workspace_id", "project_id", "object_id", "filter"),
    ),
    "subscribe.list": MessageType(
        "Keep a list up to date.",
        {
            "id": _NAME, "workspace_id": _WORKSPACE,
            "query": {"type": "object", "required": ["resource"],
                      "properties": {"resource": _text("The plural name of the resource, as in paths.")},
                      "description": "Which list, as in the body of a query: `filter`, `sort`, `limit`, `q`."},
        },
        {"type": "subscribe", "id": "urgent",
         "query": {"resource": "tasks", "filter": {"priority": "urgent"}, "sort": "due_date", "limit": 50}},
        ("workspace_id",),
    ),
    "unsubscribe": MessageType("End a subscription.", {"id": _NAME}, {"type": "unsubscribe", "id": "mine"}),
    "presence": MessageType(
        "Say that the caller is looking at a project.",
        {"id": _text("A name that errors about this message carry."), "project_id": _PROJECT,
         "state": {"type": ["object", "null"], "description": "What others are shown; null if the caller has left."}},
        {"type": "presence", "project_id": _PROJECT_ID, "state": {"task_id": _TASK_ID}}, ("id", "state"),
    ),
    "ping": MessageType(
        "Ask for a `pong`.", {"id": {"description": "A value that comes back with the `pong`."}},
        {"type": "ping", "id": "1"}, ("id",),
    ),
}  # fmt: skip

_OF: Final = {"subscription": _NAME}
_PERSON: Final[Schema] = {
    "type": "object", "required": ["user_id", "connection_id", "state", "since"],
    "properties": {"user_id": _text("The user."), "connection_id": _text("The connection."),
                   "state": {"type": "object", "description": "The state that they sent."},
                   "since": _text("Since when they have been there.", format="date-time")},
}  # fmt: skip

FROM_SERVER: Final[Mapping[str, MessageType]] = {
    "hello": MessageType(
        "The first message.",
        {"connection_id": _text("The id of the connection, as others see it."),
         "heartbeat_seconds": {
             "type": "number", "description": "A message comes at least this often, or the connection is lost."}},
        {"type": "hello", "connection_id": sample_id("conn"), "heartbeat_seconds": 15},
    ),
    "subscribed": MessageType(
        "A subscription has begun: everything after `seq` will be sent.",
        {"id": _NAME, "workspace_id": _WORKSPACE, "seq": _SEQ},
        {"type": "subscribed", "id": "mine", "workspace_id": _WS_ID, "seq": 120},
    ),
    "unsubscribed": MessageType("A subscription has ended.", {"id": _NAME}, {"type": "unsubscribed", "id": "mine"}),
    "event": MessageType(
        "An event.", {**_OF, "seq": _SEQ, "event": ref("Event")},
        {},
    ),
    "snapshot": MessageType(
        "The list as it is now. Later messages change this copy.",
        {**_OF, "seq": _SEQ, "items": {"type": "array", "items": _ITEM, "description": "The list."}},
        {"type": "snapshot", "subscription": "urgent", "seq": 123, "items": [_TASK]},
    ),
    **{
        name: MessageType(
            summary,
            {**_OF, "seq": _SEQ, "id": _text("The object."), "item": _ITEM,
             "after": {"type": ["string", "null"],
                       "description": "The object before it in the list; null for the first place."}},
            {"type": name, "subscription": "urgent", "seq": 124, "id": _TASK_ID, "after": None, "item": _TASK},
        )
        for name, summary in (
            ("added", "Put an object into the list."),
            ("changed", "Replace an object of the list, and put it in this place."),
        )
    },
    "removed": MessageType(
        "Take an object out of the list.", {**_OF, "seq": _SEQ, "id": _text("The object.")},
        {"type": "removed", "subscription": "urgent", "seq": 125, "id": _TASK_ID},
    ),
    "ready": MessageType(
        "The copy of the list is now complete up to this position.", {**_OF, "seq": _SEQ},
        {"type": "ready", "subscription": "urgent", "seq": 125},
    ),
    RESYNC: MessageType(
        "Read everything again: events are missing.",
        {**_OF, "seq": _SEQ, "reason": _text(
            "`log`: the log no longer reaches back that far. `access`: the key may see less.")},
        {"type": RESYNC, "subscription": "mine", "seq": 123, "reason": "log"},
    ),
    REVOKED: MessageType(
        "An object, and what belongs to it, can no longer be seen: remove it.",
        {**_OF, "resource": _text("The kind of object."), "id": _text("The object."), "workspace_id": _WORKSPACE,
         "seq": {"type": ["integer", "null"], "description": "The event that took it away, if there was one."}},
        {"type": REVOKED, "subscription": "mine", "resource": "task", "id": _TASK_ID, "workspace_id": _WS_ID,
         "seq": 124},
    ),
    "presence": MessageType(
        "Who is looking at a project. Sent whenever that changes.",
        {"project_id": _PROJECT, "present": {
            "type": "array", "items": _PERSON, "description": "Everybody who is there."}},
        {"type": "presence", "project_id": _PROJECT_ID,
         "present": [{"user_id": _USER_ID, "connection_id": sample_id("conn"), "state": {}, "since": SAMPLE_TIME}]},
    ),
    "heartbeat": MessageType(
        "Nothing has happened; the connection is alive.", {"positions": _POSITIONS},
        {"type": "heartbeat", "positions": {"mine": 123}}
    ),
    "pong": MessageType(
        "The answer to a ping.", {"id": {"description": "The `id` of the `ping`."}, "positions": _POSITIONS},
        {"type": "pong", "id": "1", "positions": {"mine": 123}},
    ),
    "error": MessageType(
        "A message could not be understood or carried out, or a subscription has ended.",
        {"subscription": {"type": ["string", "null"], "description": "The subscription; null if it is about none."},
         "problem": _PROBLEM},
        {},
    ),
    "end": MessageType(
        "Why the connection ends.",
        {"subscription": {"type": ["string", "null"], "description": "Always null: all subscriptions end."},
         "problem": _PROBLEM},
        {},
    ),
}  # fmt: skip


def payload(name: str, said: MessageType, *, closed: bool) -> Schema:
    """The schema of a message."""
    properties = {"type": {"const": name.partition(".")[0] if closed else name}, **said.members}
    required = [member for member in properties if member not in said.optional]
    schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if closed else schema
