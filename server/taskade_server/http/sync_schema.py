"""What delta sync answers and takes, as JSON Schema.

Why apart from the handler: the OpenAPI document imports the routes, so the routes cannot import the document.
"""

from typing import Any, Final

from taskade_server.consumers import sync
from taskade_server.engine import schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, id_schema, ref, sample_id, title

TOKEN: Final = "kZ0yR1b7c2x5bmMiLDEsInVzZXJfMDFq"
PARAMETERS: Final = ("SyncSince", "SyncWorkspace", "SyncResources", "SyncProject", "SyncLimit")
NOTE: Final = (
    "Without `since`: everything that the key may see, by pages. With the `next` of an earlier answer: what has changed"
    " since then, and as `deleted` also what the key may not see any more. Put what is `created` or `updated`, forget"
    " what is `deleted`, keep `next`, and ask again at once while `has_more` is true. Asking twice does no harm. A"
    f" token is good for {sync.DAYS} days; later the answer is 410 `token-expired`: begin anew."
)


def schemas() -> dict[str, Schema]:
    """The components."""
    changes = {kind: _changes(kind) for kind in sync.KINDS}
    properties: Schema = {
        "workspace_id": {**id_schema("workspace"), "description": "The workspace that is synced."},
        "changes": {"type": "object", "properties": changes, "additionalProperties": False,
                    "description": "By resource; those that are not synced are missing."},
        "next": {"type": "string", "description": "The `since` of the next request.", "examples": [TOKEN]},
        "has_more": {"type": "boolean", "description": "Whether there is more to get at once."},
        "seq": {"type": "integer", "minimum": 0, "description": "How far the workspace's log is."},
    }  # fmt: skip
    return {
        "Sync": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "description": "What a client has to put and to forget.",
        }
    }


def _changes(kind: str) -> Schema:
    resource = REGISTRY[sync.KINDS[kind]]
    documents: Schema = {"type": "array", "items": ref(title(resource))}
    properties: Schema = {
        "created": {**documents, "description": "New to the client. Put them; one may be there already."},
        "updated": {**documents, "description": "Changed. Put them; one may be missing so far."},
        "deleted": {"type": "array", "items": id_schema(resource.name),
                    "description": "Deleted, or no longer visible. Forget them; one may be unknown."},
    }  # fmt: skip
    return {"type": "object", "properties": properties, "required": list(properties),
            "description": f"Changes of {kind.replace('-', ' ')}."}  # fmt: skip


def answer() -> tuple[str, str, Any]:
    """The schema, what it is, and an example."""
    task = {"created": [], "updated": [schema.sample(REGISTRY["task"])], "deleted": [sample_id("task")]}
    example = {"workspace_id": sample_id("ws"), "changes": {"tasks": task}, "next": TOKEN, "has_more": False,
               "seq": 123}  # fmt: skip
    return "Sync", "What has changed for the client.", example


def parameters() -> dict[str, Schema]:
    """The parameters by the name of their component."""
    kinds: Schema = {"type": "array", "items": {"type": "string", "enum": list(sync.KINDS)}}
    several: Schema = {"type": "array", "items": id_schema("project"), "maxItems": sync.MAX_PROJECTS}
    rows: list[tuple[str, str, Schema, str, Any]] = [
        ("SyncSince", "since", {"type": "string", "minLength": 1},
         "The `next` of the answer before; without it, everything. It knows the other parameters.", None),
        ("SyncWorkspace", "workspace_id", id_schema("workspace"),
         "The workspace; the caller's default workspace unless given.", None),
        ("SyncResources", "resources", kinds,
         f"Only these; {', '.join(sync.BY_DEFAULT)} unless given, as far as the key may read them.", ["tasks"]),
        ("SyncProject", "project_id", several, "Of what lies in projects only what lies in these.", None),
        ("SyncLimit", "limit", {"type": "integer", "minimum": 1, "maximum": sync.MAX_LIMIT,
                                "default": sync.DEFAULT_LIMIT}, "About how many changes to return at most.", 50),
    ]  # fmt: skip
    found: dict[str, Schema] = {}
    for key, name, form, text, example in rows:
        found[key] = {"name": name, "in": "query", "schema": form, "description": text}
        if form.get("type") == "array":
            found[key] |= {"style": "form", "explode": False}
        if example is not None:
            found[key]["example"] = example
    return found
