"""JSON Schema and samples of events, one schema for each resource, all from the catalogue.

Why beside the catalogue and not in the documents: webhooks, the list of event types, OpenAPI and AsyncAPI show the same
event, and a type that one of them forgets does not exist for half of the readers.
"""

from collections.abc import Mapping
from typing import Final

from taskade_server.engine import events, schema
from taskade_server.engine.events import EventType
from taskade_server.engine.model import Resource
from taskade_server.engine.schema import TIME, Schema, closed, extended, id_schema, or_null, ref, sample_id, title

SAMPLE_TIME: Final = "2024-01-15T10:30:00.000Z"
_LATER: Final = "2024-01-16T08:15:00.000Z"
SAMPLE_SEQ: Final = 123
THIN: Final = "ThinEvent"
"""The schema of what webhooks with `"payload": "thin"` are sent, and of a test."""
# What a sample shows after the change, and what was there before. Without a row the name or the like has changed.
_CHANGES: Final[Mapping[str, tuple[Schema, Schema]]] = {
    "deleted": ({"deleted_at": _LATER}, {"deleted_at": None}),
    "restored": ({"deleted_at": None}, {"deleted_at": SAMPLE_TIME}),
    "task.completed": (
        {"status": "completed", "completed_at": _LATER},
        {"status": "in_progress", "completed_at": None},
    ),
    "task.reopened": (
        {"status": "pending", "completed_at": None},
        {"status": "completed", "completed_at": SAMPLE_TIME},
    ),
    "task.assigned": ({"assignee": sample_id("user")}, {"assignee": None}),
    "task.moved": ({"parent_id": None}, {"parent_id": sample_id("task")}),
    "member.updated": ({"role": "admin"}, {"role": "member"}),
    "project.archived": ({"archived_at": _LATER}, {"archived_at": None}),
    "project.unarchived": ({"archived_at": None}, {"archived_at": SAMPLE_TIME}),
}


def name_of(resource: Resource) -> str:
    """The name of the schema of a resource's events: `TaskEvent`."""
    return f"{title(resource)}Event"


def schemas() -> dict[str, Schema]:
    """Every schema by name: `Event` for any of them, and what they have in common."""
    kinds: dict[str, list[EventType]] = {}
    for kind in events.catalogue().values():
        kinds.setdefault(kind.resource.name, []).append(kind)
    found = {name_of(group[0].resource): _of_resource(group) for group in kinds.values()}
    mapping = {kind.name: ref(name_of(kind.resource))["$ref"] for kind in events.catalogue().values()}
    whole: Schema = {
        "description": "Something that happened. `type` says what, and which schema `data` has.",
        "oneOf": [ref(name) for name in found],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    common = {"EventBase": _base(), "EventActor": _actor(), "EventType": _listed(), **_type_names()}
    return {"Event": whole, **common, THIN: _thin(), **found}


def sample(kind: EventType, *, webhook: bool = False) -> Schema:
    """An event as an example shows it; with `webhook`, as a webhook's body is."""
    data = schema.sample(kind.resource)
    after, before = _CHANGES.get(kind.name) or _CHANGES.get(kind.name.rpartition(".")[2], ({}, {}))
    if kind.has_previous:
        data |= {name: value for name, value in after.items() if name in data}
        data |= {"updated_at": _LATER, "version": 2}
        before = {name: value for name, value in before.items() if name in data} or _earlier(kind.resource, data)
    event: Schema = {
        "id": sample_id("evt"),
        "type": kind.name,
        "timestamp": _LATER if kind.has_previous else SAMPLE_TIME,
        "workspace_id": sample_id("ws"),
        "seq": SAMPLE_SEQ,
        "actor": {"type": "user", "id": sample_id("user"), "api_key_id": sample_id("key")},
        "request_id": sample_id("req"),
        "origin": None,
        "data": data,
        "previous": {**before, "updated_at": SAMPLE_TIME, "version": 1} if kind.has_previous else None,
    }
    return {**event, "previous_seq": SAMPLE_SEQ - 2} if webhook else event


def listed(kind: EventType) -> Schema:
    """A type as the list of types shows it."""
    return {"name": kind.name, "resource": kind.resource.name, "summary": kind.summary, "sample": sample(kind)}


def _earlier(resource: Resource, data: Schema) -> Schema:
    """A text that the resource had before."""
    name = next((name for name in ("name", "body") if name in data), "")
    return {name: f"{data[name]} (draft)"} if name else {}


def test_sample(kind: str) -> Schema:
    """What a webhook is sent when it is tested."""
    data = {"id": sample_id("wh"), "message": "A test: nothing has happened."}
    actor = {"type": "user", "id": sample_id("user"), "api_key_id": None}
    some = sample(events.catalogue()["task.created"], webhook=True)
    return {**some, "type": kind, "actor": actor, "request_id": None, "data": data}


def _of_resource(kinds: list[EventType]) -> Schema:
    resource = kinds[0].resource
    text = f"The old values of what changed; null if {resource.one} was not changed but created or removed."
    if resource.visibility == "project" and "project_id" in resource.fields:
        text += f" It is `{events.MOVED_IN}` if the object came from a project that the reader cannot see."
    previous = {
        "type": ["object", "null"],
        "additionalProperties": True,
        "description": text,
        "propertyNames": ref(f"{title(resource)}FieldName"),
    }
    names = {"type": "string", "enum": [kind.name for kind in kinds]}
    data = ref(title(resource), f"The whole {resource.noun} after the change.")
    return _event(f"Something that happened to {resource.one}.", names, data, previous)


def _thin() -> Schema:
    members = {
        "id": {"type": "string", "description": "The id of the object."},
        "message": {"type": "string", "description": "What this is; only in a test of a webhook."},
    }
    data = closed(members, required=["id"], description="The object that the event is about.")
    text = 'An event for a webhook with `"payload": "thin"`, or a test of a webhook.'
    names = {"type": "string", "pattern": r"^[a-z_]+\.[a-z]+$"}
    return _event(text, names, data, {"type": "null", "description": "Always null: a thin event has no values."})


def _event(text: str, names: Schema, data: Schema, previous: Schema) -> Schema:
    properties = {"type": {**names, "description": "What happened."}, "data": data, "previous": previous}
    return extended("EventBase", properties, list(properties), description=text)


def _base() -> Schema:
    request_id = or_null(ref("RequestId"))
    properties: Schema = {
        "id": ref("EventId", "The id of the event. Webhooks send it as `webhook-id`, the same in every attempt."),
        "timestamp": {**TIME, "description": "When it happened, to the millisecond."},
        "workspace_id": {**id_schema("workspace"), "description": "The workspace whose log the event is in."},
        "seq": {"type": "integer", "minimum": 1, "examples": [SAMPLE_SEQ],
                "description": "The number of the event in its workspace. Numbers rise by one with each event."},
        "actor": ref("EventActor", "Who made the change."),
        "request_id": {**request_id, "description": "The request that made the change; null for the server itself."},
        "origin": {"type": ["object", "null"], "additionalProperties": True,
                   "description": "What led to a change that nobody asked for directly; otherwise null."},
        "previous_seq": {"type": ["integer", "null"],
                         "description": "Only in webhooks: the `seq` of the last event that this webhook was sent, or"
                         " null if this is the first. A gap shows that something was missed."},
    }  # fmt: skip
    required = [name for name in properties if name != "previous_seq"]
    return {
        "type": "object",
        "description": "What all events have in common.",
        "properties": properties,
        "required": required,
    }


def _actor() -> Schema:
    properties = {
        "type": {"type": "string", "enum": ["user", "system"],
                 "description": "`system` for what the server does by itself, such as emptying the trash."},
        "id": {**or_null(id_schema("user")), "description": "The user; null for the server itself."},
        "api_key_id": {**or_null(id_schema("api_key")), "description": "The API key of the request."},
    }  # fmt: skip
    return {
        "type": "object",
        "description": "Who made a change.",
        "properties": properties,
        "required": list(properties),
    }


def _type_names() -> dict[str, Schema]:
    names = list(events.catalogue())
    groups = sorted({f"{name.partition('.')[0]}.*" for name in names})
    text = "A type of event, all types of one kind of object, or all."
    return {
        "EventTypeName": {"type": "string", "enum": names, "description": "A type of event."},
        "EventTypePattern": {"type": "string", "enum": ["*", *groups, *names], "description": text},
    }


def _listed() -> Schema:
    properties: Schema = {
        "name": ref("EventTypeName", "The type, as the `events` of a webhook name it."),
        "resource": ref("ResourceName", "The kind of object in `data`."),
        "summary": {"type": "string", "description": "What happened, in words."},
        "sample": ref("Event", "An event of this type with made-up values."),
    }
    return {"type": "object", "description": "A type of event.", "properties": properties, "required": list(properties)}
