"""What undoing answers and takes, as JSON Schema.

Why apart from the handlers: the OpenAPI document imports the routes, so the routes cannot import the document.
"""

from typing import Any, Final

from taskade_server.domain import undo
from taskade_server.engine import schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, closed, id_schema, ref, sample_id
from taskade_server.kit import ids

_EVENT: Final[Schema] = {"type": "string", "pattern": ids.pattern("evt")}
_RULES: Final = (
    " It is done by the same rules as a change by hand: it needs the same rights and scopes, and has its own events,"
    " whose `origin` says what was undone. What was created goes to the trash, what was deleted comes back, members get"
    " their old values. With `dry_run` the answer is a preview. 409 `revert-conflict` if others have changed the same"
    " since; 422 `not-revertible` for what was removed for good."
)
NOTES: Final = {
    "events.revert": "Undoes the one change that the event tells of." + _RULES,
    "events.revert_many": "Undoes everything that one request did (`request_id`), that one key did since a time"
    " (`api_key_id`, `since`, perhaps `until`), or what some events tell of (`event_ids`): at most"
    f" {undo.MAX_CHANGES:,} changes, all or none." + _RULES,
}
EXAMPLES: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    "events.revert_many": {
        "key": ("What an integration did in the last hour", {"api_key_id": sample_id("key"), "since": "-1h"}),
        "request": ("What a request did", {"request_id": sample_id("req")}),
    }
}


def schemas() -> dict[str, Schema]:
    """The components."""
    moment: Schema = {"anyOf": [dict(schema.DATE), dict(schema.TIME), schema.RELATIVE]}
    body = closed(
        {
            "request_id": {"type": "string", "pattern": ids.pattern("req"),
                           "description": "The `X-Request-Id` of the answer to what shall be undone."},
            "api_key_id": {**id_schema("api_key"), "description": "The key whose changes shall be undone."},
            "since": {**moment, "description": "With `api_key_id`: from when on."},
            "until": {**moment, "description": "With `api_key_id`: up to when; until now unless given."},
            "event_ids": {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": undo.MAX_CHANGES,
                          "description": "Events whose changes shall be undone."},
            "workspace_id": {**id_schema("workspace"),
                             "description": "With `api_key_id`: only changes in this workspace."},
        },
        description="Which changes to undo.",
        oneOf=[{"required": ["request_id"]}, {"required": ["api_key_id", "since"]}, {"required": ["event_ids"]}],
    )  # fmt: skip
    change: Schema = {
        "type": {"type": "string", "description": "The type of the event that this is, or would be."},
        "workspace_id": {**id_schema("workspace"), "description": "The workspace."},
        "resource": {"type": "string", "enum": sorted(REGISTRY), "description": "The resource."},
        "object_id": {"type": "string", "description": "The object."},
        "data": {"type": "object", "description": "The whole object afterwards."},
        "previous": {"type": ["object", "null"], "description": "The values of before, of what changes."},
    }
    done: Schema = {
        "reverted": {"type": "array", "items": _EVENT, "description": "The events whose changes this undoes."},
        "changes": {"type": "array", "items": ref("RevertChange"), "description": "What it does, in order."},
    }
    return {
        "EventRevert": body,
        "RevertChange": {"type": "object", "properties": change, "required": list(change),
                         "description": "One thing that undoing does."},
        "Reverted": {"type": "object", "properties": done, "required": list(done), "description": "What was undone."},
    }  # fmt: skip


def answers() -> dict[str, tuple[str, str, Any]]:
    """By operation: the schema, what it is, and an example."""
    change = {
        "type": "task.updated", "workspace_id": sample_id("ws"), "resource": "task", "object_id": sample_id("task"),
        "data": schema.sample(REGISTRY["task"]), "previous": {"name": "WRONG"},
    }  # fmt: skip
    example = {"reverted": [sample_id("evt")], "changes": [change]}
    row = ("Reverted", "What was undone; with `dry_run`, what would be.", example)
    return {"events.revert": row, "events.revert_many": row}
