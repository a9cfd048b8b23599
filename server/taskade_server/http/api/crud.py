"""The routes that all resources have: create, read, list, change, delete and restore."""

from collections.abc import Iterator
from typing import Final

from taskade_server.domain import identity
from taskade_server.domain.resources import CREATE, DELETE, RESTORE, UPDATE
from taskade_server.engine.model import Resource
from taskade_server.http.api import crud_schema, generic, resources_schema, tasks_schema, webhooks, webhooks_schema
from taskade_server.http.api.keys import create_key
from taskade_server.http.api.projects import weigh_project
from taskade_server.http.api.route import Route

_DOCUMENTS: Final = {
    **resources_schema.BY_RESOURCE,
    "tasks": tasks_schema.TASKS,
    "webhooks": webhooks_schema.WEBHOOKS,
}
_WITHOUT_EXAMPLES: Final = crud_schema.documents(create={}, update={})
_WITH_SECRET: Final = {"api-keys": create_key, "webhooks": webhooks.create}


def _deletion(resource: Resource, one: str) -> str:
    if resource.trash:
        return f"Move {one} to the trash"
    return f"Revoke {one}" if resource is identity.API_KEY else f"Delete {one} for good"


def read_routes(resource: Resource) -> Iterator[Route]:
    name, one = resource.plural, resource.one
    scope, path = f"{name}:read", f"/{name}"
    nouns = resource.nouns
    yield Route(
        "GET",
        path,
        f"{name}.list",
        scope,
        generic.listing(resource),
        resource,
        f"List {nouns}",
        answer="list",
        listing=True,
        document=crud_schema.LIST,
    )
    yield Route(
        "GET",
        f"{path}/{{id}}",
        f"{name}.get",
        scope,
        generic.reading(resource),
        resource,
        f"Read {one}",
        document=crud_schema.GET,
    )
    own = _DOCUMENTS.get(name, _WITHOUT_EXAMPLES)
    for method, where, suffix, document in (
        ("QUERY", path, "query", own.query),
        ("POST", f"{path}/query", "query_post", own.query_post),
    ):
        yield Route(
            method,
            where,
            f"{name}.{suffix}",
            scope,
            generic.querying(resource),
            resource,
            f"Query {nouns} with a JSON document",
            body="query",
            answer="list",
            document=document,
        )


def write_routes(resource: Resource) -> Iterator[Route]:
    """The routes that create, change, delete and restore."""
    yield _create_route(resource)
    yield from _change_routes(resource)


def _create_route(resource: Resource) -> Route:
    name, one = resource.plural, resource.one
    scope, path = f"{name}:write", f"/{name}"
    own = _DOCUMENTS.get(name, _WITHOUT_EXAMPLES)
    if name in _WITH_SECRET:
        return Route(
            "POST",
            path,
            f"{name}.create",
            scope,
            _WITH_SECRET[name],
            resource,
            f"Create {one}",
            writes=True,
            body="create",
            answer="key",
            status=201,
            batchable=False,
            document=own.create,
        )
    return Route(
        "POST",
        path,
        f"{name}.create",
        scope,
        generic.creating(resource, CREATE[resource.name]),
        resource,
        f"Create {one}",
        weigh=weigh_project if name == "projects" else None,
        writes=True,
        body="create",
        status=201,
        document=own.create,
    )


def _change_routes(resource: Resource) -> Iterator[Route]:
    name, one = resource.plural, resource.one
    scope, path = f"{name}:write", f"/{name}"
    own = _DOCUMENTS.get(name, _WITHOUT_EXAMPLES)
    change = generic.changing(resource, UPDATE[resource.name])
    for method, suffix, document in (("PATCH", "update", own.patch), ("PUT", "put", own.put)):
        yield Route(
            method,
            f"{path}/{{id}}",
            f"{name}.{suffix}",
            scope,
            change,
            resource,
            f"Change {one} by merge patch",
            writes=True,
            body="patch",
            document=document,
        )
    yield Route(
        "DELETE",
        f"{path}/{{id}}",
        f"{name}.delete",
        scope,
        generic.deleting(DELETE[resource.name]),
        resource,
        _deletion(resource, one),
        writes=True,
        answer="none",
        status=204,
        heavy=name == "projects",
        document=own.delete,
    )
    if resource.trash:
        yield Route(
            "POST",
            f"{path}/{{id}}/restore",
            f"{name}.restore",
            scope,
            generic.restoring(resource, RESTORE[resource.name]),
            resource,
            f"Bring {one} back from the trash",
            writes=True,
            body="empty",
            heavy=name == "projects",
            document=crud_schema.RESTORE,
        )
