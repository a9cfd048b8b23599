"""Workspaces: the containers of everything else, and who belongs to them.

Why deleting one touches a single row: access to a workspace's content hangs on the workspace being live, so its
projects and tasks vanish and come back with it.
"""

from typing import Any, Final, TypeVar

from taskade_server.domain import identity
from taskade_server.engine import access, edit, query
from taskade_server.engine.access import WORKSPACE_ROLES, Grant
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Checker, Field, Relation, Resource
from taskade_server.kit import zones
from taskade_server.kit.errors import Clash, Forbidden, Issue, NotFound
from taskade_server.store.database import Tx

_Found = TypeVar("_Found")

WORKSPACE: Final = Resource(
    "workspace", "workspaces", "ws",
    "A team's space: it holds projects, people and templates, and has its own log.",
    (
        Field("workspace_id", "ref", "The same as id.", target="workspace", writable=False, filterable=False,
              nullable=False),
        Field("name", "text", "Name.", "Product team", required=True, nullable=False, min_length=1, folded=True,
              sortable=True),
        Field("description", "text", "What it is for.", "Everything about the product.", max_length=10_000,
              column=False),
        Field("settings", "object", "Free settings of clients; updates merge into it, null removes a key.",
              {"theme": "dark", "notifications": True}, nullable=False, default={}, max_length=32_768),
        Field("timezone", "zone", "The IANA time zone of its days, for members who have set none of their own.",
              "Europe/Berlin", nullable=False, default=zones.DEFAULT, filterable=False),
    ),
    visibility="self", search=("name", "description"), grants=("*",), lasting=True, later=("timezone",),
    relations=(
        Relation("members", "member", "reverse", "workspace_id", "Who belongs to it."),
        Relation("created_by", "user", "one", "created_by", "The user who created it.", replaces=True),
    ),
    private=(("trash_root", "text"),),
)  # fmt: skip


def create(tx: Tx, context: Context, body: Any) -> str:
    """Create a workspace; the caller becomes its owner."""
    identity.require_unlimited(tx, context, "create a workspace")
    own = body.get("id") if isinstance(body, dict) else None
    values = edit.fields(WORKSPACE, body, given=edit.given(context, **({"workspace_id": own} if own else {})))
    workspace_id = edit.new_id(tx, WORKSPACE, values.get("id"))
    rendered = edit.create(tx, context, WORKSPACE, {**values, "id": workspace_id, "workspace_id": workspace_id})
    identity.add_member(tx, context, workspace_id, None, context.principal.user_id, "owner")
    # The same unit of work goes on inside the new workspace: it gets its templates.
    context.grant(Grant(workspace_id, "owner", timezone=values["timezone"]))
    return rendered


def update(tx: Tx, context: Context, workspace_id: str, body: Any) -> str:
    """Change a workspace; needs the role admin."""
    row, before = edit.load(tx, context, WORKSPACE, workspace_id)
    access.require_workspace(context.principal, workspace_id, "admin", "change the workspace")
    values = edit.fields(WORKSPACE, body, current=before)
    return edit.update(tx, context, WORKSPACE, row, before, {**before, **values})


def delete(tx: Tx, context: Context, workspace_id: str) -> None:
    """Move a workspace to the trash with everything in it; needs the role owner."""
    row, doc = edit.load(tx, context, WORKSPACE, workspace_id)
    access.require_workspace(context.principal, workspace_id, "owner", "delete the workspace")
    edit.trash(tx, context, [(WORKSPACE, row, doc)], workspace_id)


def restore(tx: Tx, context: Context, workspace_id: str) -> str:
    """Bring a workspace back from the trash."""
    grant = context.principal.grants.get(workspace_id)
    if grant is not None and (grant.role != "owner" or grant.only is not None):
        raise Forbidden("To restore the workspace, the role owner is needed, and a key not limited to projects.")
    return edit.untrash(tx, context, WORKSPACE, workspace_id, ())


# ---- members ---------------------------------------------------------------------------------------------------------


def add_member(tx: Tx, context: Context, workspace_id: str, body: Any) -> str:
    """Give a user a role in the workspace; `user` is an id, handle or e-mail.

    It names somebody you share a workspace with, or whom this workspace once invited.
    """
    edit.load(tx, context, WORKSPACE, workspace_id, target=False)
    grant = access.require_workspace(context.principal, workspace_id, "admin", "add members")
    reference, role = new_member(body, WORKSPACE_ROLES, "member", workspace_id=workspace_id, project_id=None)
    _require_may_give(grant, role)
    user_id = query.resolve(tx, context.principal, "user", reference) or identity.invited(tx, workspace_id, reference)
    if user_id is None:
        edit.fail(
            [
                Issue(
                    "unknown_reference",
                    f'There is no user "{reference[:80]}" that you can see; POST /users invites one.',
                    pointer="/user",
                )
            ]
        )
    return _admit(tx, context, workspace_id, str(user_id), role)


def readmit(tx: Tx, context: Context, workspace_id: str, user_id: str, role: str) -> str:
    """Make a former member, whom the caller may no longer see, a member again."""
    grant = access.require_workspace(context.principal, workspace_id, "admin", "add members")
    _require_may_give(grant, role)
    return _admit(tx, context, workspace_id, user_id, role)


def _admit(tx: Tx, context: Context, workspace_id: str, user_id: str, role: str) -> str:
    require_live(tx, user_id)
    if user_id != context.principal.user_id:
        identity.require_room(tx, workspace_id, user_id)
    return identity.add_member(tx, context, workspace_id, None, user_id, role)


def require_live(tx: Tx, user_id: str) -> None:
    """Clash if a user is in the trash. Until the commit nobody else deletes the user, or adds it to a workspace."""
    if tx.one(f"SELECT 1 FROM users WHERE id = ? AND deleted_at IS NULL{tx.for_update}", (user_id,)) is None:
        raise Clash(f"The user {user_id} is in the trash; restore the user first.")


def change_member(tx: Tx, context: Context, workspace_id: str, user: str, body: Any) -> str:
    """Change a member's role."""
    edit.load(tx, context, WORKSPACE, workspace_id, target=False)
    grant = access.require_workspace(context.principal, workspace_id, "admin", "change roles")
    user_id = member_id(tx, context, workspace_id, user)
    role = changed_role(body, WORKSPACE_ROLES, _membership(tx, workspace_id, user_id, user))
    _require_may_give(grant, role)
    require_live(tx, user_id)
    return found_member(identity.change_member(tx, context, workspace_id, None, user_id, role), user)


def _membership(tx: Tx, workspace_id: str, user_id: str, user: str) -> dict[str, Any]:
    return found_member(identity.membership(tx, workspace_id, None, user_id), user)


def remove_member(tx: Tx, context: Context, workspace_id: str, user: str) -> None:
    """End a membership; members may end their own.

    Whom the workspace has invited can be restored by its admins alone, so in the trash they stay a member.
    """
    edit.load(tx, context, WORKSPACE, workspace_id, target=False)
    user_id = member_id(tx, context, workspace_id, user)
    if user_id != context.principal.user_id:
        access.require_workspace(context.principal, workspace_id, "admin", "remove members")
    else:
        identity.require_unlimited(tx, context, "end the membership in the workspace", ("project_ids",))
    if tx.one("SELECT 1 FROM users WHERE id = ? AND workspace_id = ?", (user_id, workspace_id)):
        require_live(tx, user_id)
    found_member("" if identity.remove_member(tx, context, workspace_id, None, user_id) else None, user)


def _require_may_give(grant: Grant, role: str) -> None:
    if role == "owner" and grant.role != "owner":
        raise Forbidden("Only an owner can make another owner.")


def new_member(body: Any, roles: tuple[str, ...], default: str, **within: str | None) -> tuple[str, str]:
    """`{user, role}` of somebody to add, checked against the roles of the place."""
    if not isinstance(body, dict):
        edit.fail([_no_object(roles)])
    checker = Checker()
    own = {name: value for name, value in body.items() if name not in ("user", "role") or value is not None}
    if own.pop("id", None) is not None:
        checker.fault("/id", "read_only", "id is read-only: the server sets it. Leave it out.")
    values = checker.body(identity.MEMBER, {"role": default, **own}, creating=True, given=within)
    for name, known in within.items():
        if values.get(name) not in (None, known):
            checker.fault(f"/{name}", "mismatch", f"{name} is another one than that of the path; leave it out.")
    if not checker.issues and values["role"] not in roles:
        checker.fault("/role", "not_allowed", f"role is one of {', '.join(roles)}.")
    edit.fail(checker.issues)
    return str(values["user"]), str(values["role"])


def changed_role(body: Any, roles: tuple[str, ...], member: dict[str, Any]) -> str:
    """The role in `{role}`, checked against those of the place; what else is in the body has to be as it is."""
    if not isinstance(body, dict):
        edit.fail([_no_object(roles)])
    checker = Checker()
    values = checker.body(identity.MEMBER, body, creating=False, current=member)
    if "role" not in body:
        checker.fault("/role", "required", f"role is required: one of {', '.join(roles)}.")
    elif not checker.issues and values["role"] not in roles:
        checker.fault("/role", "not_allowed", f"role is one of {', '.join(roles)}.")
    edit.fail(checker.issues)
    return str(values["role"])


def _no_object(roles: tuple[str, ...]) -> Issue:
    detail = 'The body is an object such as {"user": "ana", "role": "' + roles[-2] + '"}.'
    return Issue("wrong_type", detail, pointer="")


def member_id(tx: Tx, context: Context, workspace_id: str, user: str) -> str:
    """The id of a member named in a path, who may be in the trash; NotFound if there is none."""
    return found_member(identity.resolve_user(tx, context, workspace_id, user, trashed=True), user)


def found_member(value: _Found | None, user: str) -> _Found:
    """The value, or NotFound."""
    if value is None:
        raise NotFound(f"{user[:80]} is not a member here.")
    return value
