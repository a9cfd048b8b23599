"""What is said on the WebSocket, in both directions, as JSON Schema: for the AsyncAPI document.

Why closed on what a client sends and open on what it receives: an unknown member of a message is its sender's fault,
and a later version of the server may tell more.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from taskade_server.consumers.follower import RESYNC, REVOKED
from taskade_server.engine.event_schema import SAMPLE_TIME
from taskade_server.engine.schema import Schema, sample_id

BESIDE: Final = "./openapi.json#/components/schemas/"


class Said(NamedTuple):
    """One type of message: what it is for, its members beside `type`, an example, which members may be missing."""

    summary: str
    members: Mapping[str, Schema]
    example: Mapping[str, Any]
    optional: tuple[str, ...] = ()


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


_NAME: Final = _text("The subscription, as the client has named it.", minLength=1, maxLength=64)
_SEQ: Final[Schema] = {"type": "integer", "minimum": 0, "description": "The position of the log."}
_POSITIONS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "integer"},
                             "description": "How far each subscription has been told, by its name."}  # fmt: skip
_PROJECT: Final = _text("The project.")
_WORKSPACE: Final = _text("The workspace.")
_FILTER: Final[Schema] = {"type": "object", "description": "A filter document, as for lists."}
_ITEM: Final[Schema] = {"type": "object", "description": "The whole object."}
_PROBLEM: Final[Schema] = {"$ref": f"{BESIDE}Problem"}
_PROJECT_ID, _TASK_ID, _WS_ID, _USER_ID = (sample_id(prefix) for prefix in ("proj", "task", "ws", "user"))
_TASK: Final[Schema] = {"id": _TASK_ID, "name": "Design mockups", "version": 2}

FROM_CLIENT: Final[Mapping[str, Said]] = {
    "subscribe.events": Said(
        "Follow events.",
        {
            "id": _NAME,
            "events": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                       "description": "Types or patterns such as `task.*`; all unless given."},
            "after": {"type": ["integer", "string"], "description": "Begin behind this `seq`; otherwise from now on."},
            "workspace_id": _WORKSPACE, "project_id": _PROJECT, "object_id": _text("An object."), "filter": _FILTER,
        },
        {"type": "subscribe", "id": "mine", "events": ["task.*"], "project_id": _PROJECT_ID, "after": 120},
        ("events", "after", "workspace_id", "project_id", "object_id", "filter"),
    ),
    "subscribe.list": Said(
        "Keep a list current.",
        {
            "id": _NAME, "workspace_id": _WORKSPACE,
            "query": {"type": "object", "required": ["resource"],
                      "properties": {"resource": _text("Which list: `tasks`, `projects` ...")},
                      "description": "A list request, as the body of QUERY: `filter`, `sort`, `limit`, `q`."},
        },
        {"type": "subscribe", "id": "urgent",
         "query": {"resource": "tasks", "filter": {"priority": "urgent"}, "sort": "due_date", "limit": 50}},
        ("workspace_id",),
    ),
    "unsubscribe": Said("End a subscription.", {"id": _NAME}, {"type": "unsubscribe", "id": "mine"}),
    "presence": Said(
        "Say who is looking at a project.",
        {"id": _text("Comes back with an error."), "project_id": _PROJECT,
         "state": {"type": ["object", "null"], "description": "What others are shown; null: not looking any more."}},
        {"type": "presence", "project_id": _PROJECT_ID, "state": {"task_id": _TASK_ID}}, ("id", "state"),
    ),
    "ping": Said(
        "Ask for a sign of life.", {"id": {"description": "Comes back."}}, {"type": "ping", "id": "1"}, ("id",)
    ),
}  # fmt: skip

_OF: Final = {"subscription": _NAME}
_PERSON: Final[Schema] = {
    "type": "object", "required": ["user_id", "connection_id", "state", "since"],
    "properties": {"user_id": _text("The user."), "connection_id": _text("The connection."),
                   "state": {"type": "object", "description": "What they have said."},
                   "since": _text("Since when.", format="date-time")},
}  # fmt: skip

FROM_SERVER: Final[Mapping[str, Said]] = {
    "hello": Said(
        "The first message.",
        {"connection_id": _text("The connection, as others see it."),
         "heartbeat_seconds": {"type": "number", "description": "So often something comes; otherwise it is dead."}},
        {"type": "hello", "connection_id": sample_id("conn"), "heartbeat_seconds": 15},
    ),
    "subscribed": Said(
        "A subscription has begun: whatever is behind `seq` will be told.",
        {"id": _NAME, "workspace_id": _WORKSPACE, "seq": _SEQ},
        {"type": "subscribed", "id": "mine", "workspace_id": _WS_ID, "seq": 120},
    ),
    "unsubscribed": Said("A subscription has ended.", {"id": _NAME}, {"type": "unsubscribed", "id": "mine"}),
    "event": Said(
        "An event.", {**_OF, "seq": _SEQ, "event": {"$ref": f"{BESIDE}Event"}},
        {},
    ),
    "snapshot": Said(
        "A list as it is; what follows changes this copy.",
        {**_OF, "seq": _SEQ, "items": {"type": "array", "items": _ITEM, "description": "The list."}},
        {"type": "snapshot", "subscription": "urgent", "seq": 123, "items": [_TASK]},
    ),
    **{
        name: Said(
            summary,
            {**_OF, "seq": _SEQ, "id": _text("The object."), "item": _ITEM,
             "after": {"type": ["string", "null"], "description": "Behind which object it stands; null: the first."}},
            {"type": name, "subscription": "urgent", "seq": 124, "id": _TASK_ID, "after": None, "item": _TASK},
        )
        for name, summary in (("added", "Put an object into the list."), ("changed", "Put it in anew, here."))
    },
    "removed": Said(
        "Take an object out of the list.", {**_OF, "seq": _SEQ, "id": _text("The object.")},
        {"type": "removed", "subscription": "urgent", "seq": 125, "id": _TASK_ID},
    ),
    "ready": Said(
        "The copy of a list is that of this position.", {**_OF, "seq": _SEQ},
        {"type": "ready", "subscription": "urgent", "seq": 125},
    ),
    RESYNC: Said(
        "What is shown has to be read anew.",
        {**_OF, "seq": _SEQ, "reason": _text("`log`: it no longer reaches back; `access`: the key may see less.")},
        {"type": RESYNC, "subscription": "mine", "seq": 123, "reason": "log"},
    ),
    REVOKED: Said(
        "An object cannot be seen any more, nor what is in it: forget it.",
        {**_OF, "resource": _text("What kind of object."), "id": _text("Which one."), "workspace_id": _WORKSPACE,
         "seq": {"type": ["integer", "null"], "description": "The event by which it went, if it was one."}},
        {"type": REVOKED, "subscription": "mine", "resource": "task", "id": _TASK_ID, "workspace_id": _WS_ID,
         "seq": 124},
    ),
    "presence": Said(
        "Who is looking at a project, each time that this changes.",
        {"project_id": _PROJECT, "present": {"type": "array", "items": _PERSON, "description": "All of them."}},
        {"type": "presence", "project_id": _PROJECT_ID,
         "present": [{"user_id": _USER_ID, "connection_id": sample_id("conn"), "state": {}, "since": SAMPLE_TIME}]},
    ),
    "heartbeat": Said(
        "Nothing has happened.", {"positions": _POSITIONS}, {"type": "heartbeat", "positions": {"mine": 123}}
    ),
    "pong": Said(
        "The answer to a ping.", {"id": {"description": "As it came."}, "positions": _POSITIONS},
        {"type": "pong", "id": "1", "positions": {"mine": 123}},
    ),
    "error": Said(
        "A message could not be understood or done, or a subscription has ended, as a problem document.",
        {"subscription": {"type": ["string", "null"], "description": "Which one."}, "problem": _PROBLEM},
        {},
    ),
    "end": Said(
        "Why the connection ends.",
        {"subscription": {"type": ["string", "null"], "description": "None."}, "problem": _PROBLEM},
        {},
    ),
}  # fmt: skip


def payload(name: str, said: Said, *, closed: bool) -> Schema:
    """The schema of a message."""
    properties = {"type": {"const": name.partition(".")[0] if closed else name}, **said.members}
    required = [member for member in properties if member not in said.optional]
    schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if closed else schema
