"""The API as one table: method, path, operation id, scope, handler and what the documentation needs.

Why a table: dispatch, the OpenAPI document, the permission matrix and whatever is generated later read the same
rows, so an operation cannot exist in one of them only.
"""

from collections.abc import Mapping
from typing import Final

from taskade_server.domain.resources import RESOURCES
from taskade_server.http.api import (
    audit,
    audit_proofs,
    comments,
    crud,
    event_types,
    events,
    keys,
    members,
    projects,
    stream_tickets,
    sync,
    tasks,
    templates,
    undo,
    users,
    webhooks,
    workspaces,
)
from taskade_server.http.api.batch import Batch
from taskade_server.http.api.route import Route

_FILES = (tasks, projects, webhooks, audit, audit_proofs, event_types, events, undo, stream_tickets, sync, users)

_OPTIONS: Final[Mapping[str, crud.Options]] = {
    "workspaces": workspaces.OPTIONS,
    "projects": projects.OPTIONS,
    "tasks": tasks.OPTIONS,
    "comments": comments.OPTIONS,
    "templates": templates.OPTIONS,
    "users": users.OPTIONS,
    "api-keys": keys.OPTIONS,
    "webhooks": webhooks.OPTIONS,
}
"""By the plural of a resource; one that has nothing of its own is missing."""
_NONE: Final = crud.Options()


def all_routes() -> list[Route]:
    """Every operation under /v1."""
    found: list[Route] = []
    for resource in RESOURCES:
        found += crud.routes(resource, _OPTIONS.get(resource.plural, _NONE))
    for name in ("workspaces", "projects"):
        found += members.routes(name)
    for file in _FILES:
        found += file.routes()
    return [*found, Batch(found).route]
