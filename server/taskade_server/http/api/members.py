"""The members of workspaces and projects: their routes, and what answers them."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from taskade_server.domain import identity, projects, workspaces
from taskade_server.engine.edit import Context
from taskade_server.http.api import crud_schema, generic, resources_schema
from taskade_server.http.api.generic import body_of, no_body, one
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call, Handler
from taskade_server.http.wire.reply import Reply
from taskade_server.store.database import Tx


def adding_member(verb: Callable[[Tx, Context, str, Any], str]) -> Handler:
    """POST /{resource}/{id}/members."""

    def handle(call: Call, tx: Tx) -> Reply:
        return one(call, tx, identity.MEMBER, verb(tx, call.context(), call.path[0], body_of(call)), 201)

    return handle


def changing_member(verb: Callable[[Tx, Context, str, str, Any], str]) -> Handler:
    """PUT or PATCH /{resource}/{id}/members/{user}."""

    def handle(call: Call, tx: Tx) -> Reply:
        return one(call, tx, identity.MEMBER, verb(tx, call.context(), call.path[0], call.path[1], body_of(call)))

    return handle


def removing_member(verb: Callable[[Tx, Context, str, str], None]) -> Handler:
    """DELETE /{resource}/{id}/members/{user}."""

    def handle(call: Call, tx: Tx) -> Reply:
        call.no_parameters()
        no_body(call)
        verb(tx, call.context(), call.path[0], call.path[1])
        return Reply(204)

    return handle


def routes(name: str) -> Iterator[Route]:
    """The routes of the members of `workspaces` or `projects`."""
    module = workspaces if name == "workspaces" else projects
    noun, within = name[:-1], f"{name[:-1]}_id"
    path, member = f"/{name}/{{id}}/members", identity.MEMBER
    yield Route(
        "GET",
        path,
        f"{name}.members.list",
        f"{name}:read",
        generic.listing(member, within),
        member,
        f"List the members of a {noun}",
        answer="list",
        listing=True,
        document=crud_schema.LIST,
    )
    yield Route(
        "POST",
        path,
        f"{name}.members.add",
        f"{name}:write",
        adding_member(module.add_member),
        member,
        f"Add a member to a {noun}",
        writes=True,
        body="member",
        status=201,
        document=resources_schema.adding_member(name),
    )
    yield from _routes_of_one(name, module, f"{path}/{{user}}")


def _routes_of_one(name: str, module: ModuleType, path: str) -> Iterator[Route]:
    """The routes of one member, at a path with `{user}`."""
    for method, suffix in (("PATCH", "update"), ("PUT", "put")):
        yield Route(
            method,
            path,
            f"{name}.members.{suffix}",
            f"{name}:write",
            changing_member(module.change_member),
            identity.MEMBER,
            "Change a member's role",
            writes=True,
            body="member_role",
            document=resources_schema.changing_member(name, put=method == "PUT"),
        )
    yield Route(
        "DELETE",
        path,
        f"{name}.members.remove",
        f"{name}:write",
        removing_member(module.remove_member),
        identity.MEMBER,
        f"Remove a member from a {name[:-1]}",
        writes=True,
        answer="none",
        status=204,
        document=resources_schema.REMOVE_MEMBER,
    )
