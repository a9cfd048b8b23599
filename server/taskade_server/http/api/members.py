"""The members of workspaces and projects: their routes, and what answers them."""

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from taskade_server.domain import identity, projects, workspaces
from taskade_server.engine import access
from taskade_server.engine.edit import Context
from taskade_server.engine.schema import Schema, closed, or_null, ref
from taskade_server.http.api import crud_schema, generic
from taskade_server.http.api.document import Document
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


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_ROLES: Final = {
    "workspaces": ("Workspace", access.WORKSPACE_ROLES, "member"),
    "projects": ("Project", access.PROJECT_ROLES, "editor"),
}
_MEMBER: Final[Mapping[str, Schema]] = {
    "PathUser": {
        "name": "user",
        "in": "path",
        "required": True,
        "example": "ana",
        "schema": {"type": "string", "pattern": "^[^/]+$", "minLength": 1, "maxLength": 320},
        "description": "The member: the id, handle or e-mail address of the user.",
    }
}


def _adding(owner: str) -> Document:
    """POST of a user to the members of a workspace or project."""
    name, _, _ = _ROLES[owner]
    user = {"workspaces": "ana", "projects": "ana@example.com"}[owner]
    role = {"workspaces": "admin", "projects": "viewer"}[owner]
    return Document(
        notes="A user who is a member already gets the role.",
        body=f"{name}MemberCreate",
        examples={"member": ("A user and a role", {"user": user, "role": role})},
        schemas=lambda: _member_schemas(owner),
    )


def _changing(owner: str, *, put: bool = False) -> Document:
    """PATCH or PUT of a member."""
    name, _, default = _ROLES[owner]
    notes = "PUT is the same as PATCH. " if put else ""
    return Document(
        notes=f"{notes}The last owner of a workspace stays its owner.",
        body=f"{name}MemberUpdate",
        examples={"role": ("A role", {"role": default})},
        in_path=_MEMBER,
    )


REMOVE_MEMBER: Final = Document(notes="Members may end their own membership.", in_path=_MEMBER)


def _member_schemas(owner: str) -> Mapping[str, Schema]:
    name, roles, default = _ROLES[owner]
    others = [member.name for member in identity.MEMBER.fields.values() if member.name not in ("user", "role")]
    role = ref(f"{name}Role", "The role of the member.")
    optional = {**or_null(ref(f"{name}Role")), "description": f"The role of the member. Default: `{default}`."}
    unchanged = {name: ref("ReadOnly") for name in ["user", *others]}
    lower = name.lower()
    return {
        f"{name}Role": {"type": "string", "enum": list(roles), "description": f"What a member of a {lower} may do."},
        f"{name}MemberCreate": closed(
            {"user": ref("UserReference"), "role": optional, "workspace_id": ref("ReadOnly"),
             "project_id": ref("ReadOnly")}, required=["user"],
            description=f"A user and the role in the {lower}.",
        ),
        f"{name}MemberUpdate": closed(
            {"role": role, **unchanged}, required=["role"], description="The new role of a member.",
        ),
    }  # fmt: skip


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
        document=_adding(name),
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
            document=_changing(name, put=method == "PUT"),
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
        document=REMOVE_MEMBER,
    )
