"""GET /sync: the parameters of delta sync, and its answer.

Why a token says it all: a client that gives nothing but `since` gets what it asked for the first time, so that no
parameter can be forgotten half-way; one that is given again has to be the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from taskade_server.domain import identity, projects, sync
from taskade_server.domain.sync import KINDS, MAX_LIMIT, MAX_PROJECTS, SyncSelection
from taskade_server.engine import query, schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, id_schema, ref, sample_id, title
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.route import Route
from taskade_server.http.live.parameters import Reading, parameters
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.kit.errors import Forbidden, with_allowed
from taskade_server.store.database import Tx

PARAMETERS: Final = ("since", "workspace_id", "resources", "project_id", "limit")


def handle(call: Call, tx: Tx) -> Reply:
    """GET /sync."""
    reading = parameters(call, PARAMETERS)
    since = reading.text("since")
    limit = reading.number("limit", 1, MAX_LIMIT) or sync.DEFAULT_LIMIT
    given = _given(reading)
    reading.fail()
    _require_scopes(call, given.get("resources", ()))
    key = identity.own_key(tx, call.context())
    if since is None:
        token = sync.begin(tx, call.principal, key, _wanted(call, tx, reading, given))
    else:
        token = sync.accept(call.secret, since, call.principal, given)
    text = sync.proceed(tx, call.principal, key, token, limit, call.secret)
    return Reply(200, text, [(b"cache-control", b"no-store")])


def _given(reading: Reading) -> dict[str, Any]:
    """What the request says of the extent, checked as far as it can be without looking anything up."""
    given: dict[str, Any] = {}
    if (workspace_id := reading.text("workspace_id")) is not None:
        given["workspace_id"] = workspace_id
    kinds = _names(reading, "resources")
    if kinds is not None:
        for kind in kinds:
            if kind not in KINDS:
                detail = with_allowed(f'There is no resource "{kind[:80]}" to sync.', kind, KINDS)
                reading.fault("resources", "not_allowed", detail)
        given["resources"] = tuple(kind for kind in KINDS if kind in kinds)
    named = _names(reading, "project_id")
    if named is not None:
        if len(named) > MAX_PROJECTS:
            reading.fault("project_id", "too_many", f"At most {MAX_PROJECTS} projects can be named.")
        given["project_id"] = tuple(sorted(set(named)))
    return given


def _names(reading: Reading, name: str) -> list[str] | None:
    """A parameter with several values: separated by commas, or repeated."""
    value = reading.values.get(name)
    if value is None:
        return None
    entries = value if isinstance(value, list) else [value]
    names = [part.strip() for entry in entries for part in str(entry).split(",")]
    if isinstance(value, dict) or not all(names):
        reading.fault(name, "wrong_type", f"{name} takes one or several values; leave it out for all.")
        return None
    return names


def _require_scopes(call: Call, kinds: tuple[str, ...]) -> None:
    """What is asked for by name must not be left out silently."""
    for kind in kinds:
        scopes = ("workspaces", "projects") if kind == "members" else (kind,)
        if not any(call.principal.allows(f"{scope}:read") for scope in scopes):
            raise Forbidden(f"To sync {kind}, the scope {scopes[0]}:read is needed; this key lacks it.")


def _wanted(call: Call, tx: Tx, reading: Reading, given: dict[str, Any]) -> SyncSelection:
    """The extent of a first request."""
    workspace_id = reading.workspace(call.principal)
    for project_id in given.get("project_id", ()):
        row = query.get(tx, call.principal, projects.PROJECT, project_id)
        if row is None or row.workspace_id != workspace_id:
            detail = f"There is no project {project_id[:80]} in this workspace that you can see."
            reading.fault("project_id", "unknown_reference", detail)
    reading.fail()
    return SyncSelection(workspace_id, given.get("resources"), given.get("project_id", ()))


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

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


def routes() -> Iterator[Route]:
    """The route of delta sync."""
    yield Route(
        "GET",
        "/sync",
        "sync",
        "",
        handle,
        None,
        "Sync a client that works offline",
        answer="document",
        batchable=False,
        consistent=True,
        document=SYNC,
    )
