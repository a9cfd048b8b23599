"""JSON Schema and samples of events, one schema for each resource, all from the catalogue.

Why beside the catalogue and not in the documents: webhooks, the list of event types, OpenAPI and AsyncAPI show the same
event, and a type that one of them forgets does not exist for half of the readers.
"""

from collections.abc import Mapping
from typing import Final

from taskade_server.engine import events, schema
from taskade_server.engine.events import EventType
from taskade_server.engine.model import Resource
from taskade_server.engine.schema import TIME, Schema, closed, id_schema, or_null, ref, sample_id, title
from taskade_server.kit import ids

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
        "description": "Something that happened. `type` says which of these it is.",
        "oneOf": [ref(name) for name in found],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return {"Event": whole, "EventActor": _actor(), "EventType": _listed(), THIN: _thin(), **found}


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
    noun = resource.name.replace("_", " ").replace("api", "API")
    data = {**ref(title(resource)), "description": f"The whole {noun} after the change, as an answer has it."}
    previous = {"type": ["object", "null"], "propertyNames": {"enum": schema.field_names(resource)},
                "description": "The old values of the members that changed; null where there was nothing."}  # fmt: skip
    names = {"type": "string", "enum": [kind.name for kind in kinds]}
    return _event(f"Something that happened to a {noun}.", names, data, previous)


def _thin() -> Schema:
    members = {
        "id": {"type": "string", "description": "Which object."},
        "message": {"type": "string", "description": "Only in a test."},
    }
    data = closed(members, required=["id"], description="Only which object it is about.")
    text = 'An event for webhooks with `"payload": "thin"`, and what a test of a webhook sends.'
    names = {"type": "string", "pattern": r"^[a-z_]+\.[a-z]+$"}
    return _event(text, names, data, {"type": "null", "description": "Nothing."})


def _event(text: str, names: Schema, data: Schema, previous: Schema) -> Schema:
    properties: Schema = {
        "id": {"type": "string", "pattern": ids.pattern("evt"), "examples": [sample_id("evt")],
               "description": "Unique id; the `webhook-id` of its deliveries, and the same in each attempt."},
        "type": {**names, "description": "What happened."},
        "timestamp": {**TIME, "description": "When, to the millisecond.", "examples": [SAMPLE_TIME]},
        "workspace_id": {**id_schema("workspace"), "description": "The workspace whose log it is in."},
        "seq": {"type": "integer", "minimum": 1, "examples": [SAMPLE_SEQ],
                "description": "Its number in the workspace: without gaps, in the order of the commits."},
        "actor": {**ref("EventActor"), "description": "Who made the change."},
        "request_id": {"type": ["string", "null"], "examples": [sample_id("req")],
                       "description": "The request that made the change; null for what the server does by itself."},
        "origin": {"type": ["object", "null"],
                   "description": "What led to a change that nobody asked for directly; otherwise null."},
        "data": data,
        "previous": previous,
        "previous_seq": {"type": ["integer", "null"],
                         "description": "In webhooks only: the `seq` of the event before it that this webhook was"
                         " given; null for its first."},
    }  # fmt: skip
    required = [name for name in properties if name != "previous_seq"]
    return {"type": "object", "description": text, "properties": properties, "required": required}


def _actor() -> Schema:
    properties = {
        "type": {"type": "string", "enum": ["user", "system"],
                 "description": "`system` for what the server does by itself, such as emptying the trash."},
        "id": {**or_null(id_schema("user")), "description": "The user."},
        "api_key_id": {**or_null(id_schema("api_key")), "description": "The key that the request was made with."},
    }  # fmt: skip
    return {"type": "object", "description": "Who made a change.", "properties": properties,
            "required": list(properties)}  # fmt: skip


def _listed() -> Schema:
    names = list(events.catalogue())
    resources = list(dict.fromkeys(kind.resource.name for kind in events.catalogue().values()))
    properties: Schema = {
        "name": {"type": "string", "enum": names, "description": "The type, as `events` of a webhook names it."},
        "resource": {"type": "string", "enum": resources, "description": "What `data` of such an event is."},
        "summary": {"type": "string", "description": "What has happened, in words."},
        "sample": {**ref("Event"), "description": "An event as it would be, with values that are made up."},
    }
    return {"type": "object", "description": "A type of event.", "properties": properties,
            "required": list(properties)}  # fmt: skip
