"""What delta sync says about itself in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain import sync
from taskade_server.engine import schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, id_schema, ref, sample_id, title
from taskade_server.http.api.document import Answer, Document

TOKEN: Final = "kZ0yR1b7c2x5bmMiLDEsInVzZXJfMDFq"


def _schemas() -> Mapping[str, Schema]:
    changes = {kind: ref(f"{title(REGISTRY[sync.KINDS[kind]])}Changes") for kind in sync.KINDS}
    properties: Schema = {
        "workspace_id": {**id_schema("workspace"), "description": "The workspace that is synced."},
        "changes": {"type": "object", "properties": changes, "additionalProperties": False,
                    "description": "What has changed, by kind of object. Kinds that are not synced are missing."},
        "next": {"type": "string", "description": "The `since` of the next request.", "examples": [TOKEN]},
        "has_more": {"type": "boolean", "description": "Whether the next request has more to give right away."},
        "seq": {"type": "integer", "minimum": 0, "description": "The position of the workspace's log."},
    }  # fmt: skip
    found: dict[str, Schema] = {
        "Sync": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "description": "What a client has to store and what to remove.",
            "examples": [_sample()],
        }
    }
    return found | {f"{title(REGISTRY[name])}Changes": _changes(kind) for kind, name in sync.KINDS.items()}


def _changes(kind: str) -> Schema:
    resource = REGISTRY[sync.KINDS[kind]]
    documents: Schema = {"type": "array", "items": ref(title(resource))}
    properties: Schema = {
        "created": {**documents, "description": "New to this client. Store them, even if some are there already."},
        "updated": {**documents, "description": "Changed. Store them, even if some are not there yet."},
        "deleted": {"type": "array", "items": id_schema(resource.name),
                    "description": "Deleted or no longer visible. Remove them, if they are there."},
    }  # fmt: skip
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "description": f"Changes of {resource.nouns}.",
    }


def _sample() -> Schema:
    task = {"created": [], "updated": [schema.sample(REGISTRY["task"])], "deleted": [sample_id("task")]}
    return {"workspace_id": sample_id("ws"), "changes": {"tasks": task}, "next": TOKEN, "has_more": False, "seq": 123}


def _parameters() -> dict[str, Schema]:
    kinds: Schema = {"type": "array", "items": {"type": "string", "enum": list(sync.KINDS)}}
    several: Schema = {"type": "array", "items": id_schema("project"), "maxItems": sync.MAX_PROJECTS}
    limit = {"type": "integer", "minimum": 1, "maximum": sync.MAX_LIMIT, "default": sync.DEFAULT_LIMIT}
    rows: list[tuple[str, str, Schema, str, Any]] = [
        ("SyncSince", "since", {"type": "string", "minLength": 1},
         "The `next` of the last response. It stands for the other parameters as well. Without it, everything comes.",
         None),
        ("SyncWorkspace", "workspace_id", id_schema("workspace"),
         "The workspace. Default: the default workspace of the caller.", None),
        ("SyncResources", "resources", kinds,
         f"Only these kinds. Default: those of {', '.join(sync.BY_DEFAULT)} that the key may read.", ["tasks"]),
        ("SyncProject", "project_id", several, "Of everything that is in a project, only what is in these.", None),
        ("SyncLimit", "limit", limit, "About how many changes to return at most.", 50),
    ]  # fmt: skip
    found: dict[str, Schema] = {}
    for key, name, form, text, example in rows:
        found[key] = {"name": name, "in": "query", "schema": form, "description": text}
        if form.get("type") == "array":
            found[key] |= {"style": "form", "explode": False}
        if example is not None:
            found[key]["example"] = example
    return found


SYNC: Final = Document(
    notes="Without `since`, the response has everything that the key may see, page by page. With the `next` of the last"
    " response, it has what has changed since then; `deleted` has what was deleted and what the key may no longer see."
    " Store what is `created` or `updated`, remove what is `deleted`, keep `next`, and continue at once while"
    f" `has_more` is true. A repeated request does no harm. A token is valid for {sync.DAYS} days. After that, the"
    " response is 410 `token-expired`: start again without `since`.",
    parameters=_parameters(),
    answer=Answer("Sync", "What has changed for this client.", headers=("Cache-Control",)),
    problems=(410,),
    cached=False,
    schemas=_schemas,
)
