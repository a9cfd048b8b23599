"""GET /sync: the parameters of delta sync, and its answer.

Why a token says it all: a client that gives nothing but `since` gets what it asked for the first time, so that no
parameter can be forgotten half-way; one that is given again has to be the same.
"""

from collections.abc import Iterator
from typing import Any, Final

from taskade_server.domain import identity, projects, sync
from taskade_server.domain.sync import KINDS, MAX_LIMIT, MAX_PROJECTS, Wanted
from taskade_server.engine import query
from taskade_server.http.api import sync_schema
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


def _wanted(call: Call, tx: Tx, reading: Reading, given: dict[str, Any]) -> Wanted:
    """The extent of a first request."""
    workspace_id = reading.workspace(call.principal)
    for project_id in given.get("project_id", ()):
        row = query.get(tx, call.principal, projects.PROJECT, project_id)
        if row is None or row.workspace_id != workspace_id:
            detail = f"There is no project {project_id[:80]} in this workspace that you can see."
            reading.fault("project_id", "unknown_reference", detail)
    reading.fail()
    return Wanted(workspace_id, given.get("resources"), given.get("project_id", ()))


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
        document=sync_schema.SYNC,
    )
