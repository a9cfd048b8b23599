"""The routes that all resources have: create, read, list, change, delete and restore."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.domain import identity
from taskade_server.domain.resources import CREATE, DELETE, RESTORE, UPDATE, Create, Update
from taskade_server.engine.model import Resource
from taskade_server.http.api import crud_schema, generic
from taskade_server.http.api.crud_schema import ResourceDocuments
from taskade_server.http.api.route import Route
from taskade_server.http.api.weight import Weight
from taskade_server.http.wire.call import Handler

_WITHOUT_EXAMPLES: Final = crud_schema.documents(create={}, update={})


@dataclass(frozen=True, slots=True)
class Options:
    """How the ordinary operations of one resource differ from those of others, and what they say about themselves.

    The defaults are for a resource that has nothing of its own.
    """

    documents: ResourceDocuments = _WITHOUT_EXAMPLES
    create: Handler | None = None
    """Answers POST where the answer holds a secret, in place of the general handler."""
    verbs: tuple[Create, Update] | None = None
    """Create and change one, in place of the functions of `domain.resources`. Such operations are no part of a batch,
    which would take the references in their bodies for its own."""
    weigh: Callable[[Any], Weight] | None = None
    """Tells what the body of POST makes of the request."""
    heavy: bool = False
    """Whether deleting and restoring one may touch thousands of rows."""


def routes(resource: Resource, options: Options) -> Iterator[Route]:
    """The routes that all resources have."""
    yield from _read_routes(resource, options.documents)
    yield _create_route(resource, options)
    yield from _change_routes(resource, options)


def _deletion(resource: Resource, one: str) -> str:
    if resource.trash:
        return f"Move {one} to the trash"
    return f"Revoke {one}" if resource is identity.API_KEY else f"Delete {one} for good"


def _read_routes(resource: Resource, own: ResourceDocuments) -> Iterator[Route]:
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


def _create_route(resource: Resource, options: Options) -> Route:
    name, one = resource.plural, resource.one
    scope, path = f"{name}:write", f"/{name}"
    own = options.documents
    if options.create is not None:
        return Route(
            "POST",
            path,
            f"{name}.create",
            scope,
            options.create,
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
        generic.creating(resource, options.verbs[0] if options.verbs else CREATE[resource.name]),
        resource,
        f"Create {one}",
        weigh=options.weigh,
        writes=True,
        body="create",
        status=201,
        batchable=options.verbs is None,
        document=own.create,
    )


def _change_routes(resource: Resource, options: Options) -> Iterator[Route]:
    name, one = resource.plural, resource.one
    scope, path = f"{name}:write", f"/{name}"
    own = options.documents
    change = generic.changing(resource, options.verbs[1] if options.verbs else UPDATE[resource.name])
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
            batchable=options.verbs is None,
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
        heavy=options.heavy,
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
            heavy=options.heavy,
            document=crud_schema.RESTORE,
        )
