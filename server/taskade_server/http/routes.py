"""The API as one table: method, path, operation id, scope, handler and what the documentation needs.

Why a table: dispatch, the OpenAPI document, the permission matrix and whatever is generated later read the same
rows, so an operation cannot exist in one of them only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from taskade_server.domain.resources import RESOURCES
from taskade_server.http.api import (
    audit,
    audit_proofs,
    automation_trials,
    automations,
    comments,
    crud,
    event_types,
    events,
    keys,
    members,
    projects,
    secrets,
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
from taskade_server.http.api.operations import Operations
from taskade_server.http.api.route import Route

_FILES = (
    tasks,
    projects,
    webhooks,
    automations,
    audit,
    audit_proofs,
    event_types,
    events,
    undo,
    stream_tickets,
    sync,
    users,
)

_OPTIONS: Final[Mapping[str, crud.Options]] = {
    "workspaces": workspaces.OPTIONS,
    "projects": projects.OPTIONS,
    "tasks": tasks.OPTIONS,
    "comments": comments.OPTIONS,
    "templates": templates.OPTIONS,
    "users": users.OPTIONS,
    "api-keys": keys.OPTIONS,
    "webhooks": webhooks.OPTIONS,
    "secrets": secrets.OPTIONS,
}
"""By the plural of a resource; one that has nothing of its own is missing."""
_NONE: Final = crud.Options()


@dataclass(frozen=True, slots=True)
class Api:
    """All routes, and what runs operations by them without a request."""

    routes: list[Route]
    operations: Operations


@cache
def build() -> Api:
    """The API: one for the process.

    `operations` is there before the routes, so that those which run operations can be given it; its table is complete
    once all routes are known.
    """
    operations = Operations()
    options = {**_OPTIONS, "automations": automations.options(operations)}
    found: list[Route] = []
    for resource in RESOURCES:
        found += crud.routes(resource, options.get(resource.plural, _NONE))
    for name in ("workspaces", "projects"):
        found += members.routes(name)
    for file in _FILES:
        found += file.routes()
    found += automation_trials.routes(operations)
    return Api([*found, Batch(found, operations).route], operations)


def all_routes() -> list[Route]:
    """Every operation under /v1."""
    return list(build().routes)
