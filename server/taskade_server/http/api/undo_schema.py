"""What undoing says about itself in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain import undo
from taskade_server.engine import schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, closed, id_schema, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.events_schema import EVENT_ID

_RULES: Final = (
    " The same rules apply as to a change by hand: it needs the same rights and scopes, and it makes new events, whose"
    " `origin` says what was undone. What was created goes to the trash, what was deleted comes back, and what was"
    " changed gets its old values. `dry_run` gives a preview. 409 `revert-conflict` means that somebody has changed the"
    " same since; 422 `not-revertible` means that it was removed for good."
)
_EXAMPLES: Final[dict[str, tuple[str, Any]]] = {
    "key": ("What an integration did in the last hour", {"api_key_id": sample_id("key"), "since": "-1h"}),
    "request": ("What one request did", {"request_id": sample_id("req")}),
}
_ANSWER: Final = Answer("Reverted", "What was undone, or with `dry_run` what would be.")


def _bodies() -> Mapping[str, Schema]:
    events: Schema = {
        "type": "array", "items": ref("EventId"), "minItems": 1, "maxItems": undo.MAX_CHANGES,
        "description": "The events whose changes are to be undone.",
    }  # fmt: skip
    ways: dict[str, Schema] = {
        "RevertRequest": closed(
            {"request_id": ref("RequestId", "The `X-Request-Id` of the response to that request.")},
            required=["request_id"],
            description="Undo everything that one request did.",
        ),
        "RevertApiKey": closed(
            {
                "api_key_id": ref("ApiKeyId", "The API key."),
                "since": ref("Moment", "From when on."),
                "until": ref("Moment", "Up to when. Default: now."),
                "workspace_id": ref("WorkspaceId", "Only changes in this workspace."),
            },
            required=["api_key_id", "since"],
            description="Undo everything that one API key did since a time.",
        ),
        "RevertEvents": closed(
            {"event_ids": events}, required=["event_ids"], description="Undo the changes behind these events."
        ),
    }
    whole = {"oneOf": [ref(name) for name in ways], "description": "Which changes to undo."}
    return {**ways, "EventRevert": whole}


def _results() -> Mapping[str, Schema]:
    change: Schema = {
        "type": {"type": "string", "description": "The type of event that this is, or would be."},
        "workspace_id": {**id_schema("workspace"), "description": "The workspace."},
        "resource": ref("ResourceName"),
        "object_id": {"type": "string", "description": "The object."},
        "data": {"type": "object", "additionalProperties": True, "description": "The whole object afterwards."},
        "previous": {
            "type": ["object", "null"],
            "additionalProperties": True,
            "description": "The values before, of what changes.",
        },
    }
    done: Schema = {
        "reverted": {"type": "array", "items": ref("EventId"), "description": "The events that were undone."},
        "changes": {"type": "array", "items": ref("RevertChange"), "description": "What was done for that, in order."},
    }
    example = {
        "type": "task.updated", "workspace_id": sample_id("ws"), "resource": "task", "object_id": sample_id("task"),
        "data": schema.sample(REGISTRY["task"]), "previous": {"name": "WRONG"},
    }  # fmt: skip
    return {
        "RevertChange": {
            "type": "object",
            "properties": change,
            "required": list(change),
            "description": "One change that undoing makes.",
        },
        "Reverted": {
            "type": "object",
            "properties": done,
            "required": list(done),
            "description": "What was undone.",
            "examples": [{"reverted": [sample_id("evt")], "changes": [example]}],
        },
    }


REVERT: Final = Document(
    notes="Undoes the change behind one event." + _RULES, in_path=EVENT_ID, answer=_ANSWER, schemas=_results
)
REVERT_MANY: Final = Document(
    notes="Undoes everything that one request did, everything that one API key did since a time, or the changes behind"
    f" some events: at most {undo.MAX_CHANGES:,} changes, all or none." + _RULES,
    body="EventRevert",
    examples=_EXAMPLES,
    answer=_ANSWER,
    problems=(404,),
    schemas=_bodies,
)
