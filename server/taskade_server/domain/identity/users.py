"""Users: inviting, changing, deleting, restoring and finding them."""

import re
from typing import Any

from taskade_server.domain.identity.administration import require_inviting_admin, require_power_over
from taskade_server.domain.identity.grants import require_unlimited
from taskade_server.domain.identity.members import require_another_owner, workspaces_owned
from taskade_server.domain.identity.resources import MEMBER, USER
from taskade_server.engine import access, edit, log, query
from taskade_server.engine.access import WORKSPACE_ROLES
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import ids, text
from taskade_server.kit.errors import Clash, Forbidden, Issue
from taskade_server.store.database import Tx


def create_user(tx: Tx, context: Context, body: Any) -> str:
    """Create (invite) a user into a workspace; needs the role admin there."""
    values = edit.fields(USER, body, extra=["role"], given=edit.given(context))
    role = "member" if body.get("role") is None else body["role"]
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    issues = (
        []
        if role in WORKSPACE_ROLES
        else [Issue("not_allowed", f"role is one of {', '.join(WORKSPACE_ROLES)}.", pointer="/role")]
    )
    if values["email"] is None and values["kind"] == "person":
        issues.append(
            Issue("required", "A person needs an email; only service accounts may have none.", pointer="/email")
        )
    edit.fail([*issues, *_email_faults(values["email"])])
    grant = access.require_workspace(context.principal, workspace_id, "admin", "invite users")
    if role == "owner" and grant.role != "owner":
        raise Forbidden("Only an owner can make another owner.")
    user_id = edit.new_id(tx, USER, values.get("id"))
    email = text.fold(values["email"]) if values["email"] else None
    if values["handle"]:
        _check_handle(values["handle"])
    handle = values["handle"] or _free_handle(tx, values["name"], email)
    _require_unique(tx, user_id, email, values["handle"])
    doc = {**values, "id": user_id, "workspace_id": workspace_id, "email": email, "handle": handle}
    member = {
        "id": ids.new("mem"),
        "workspace_id": workspace_id,
        "project_id": None,
        "user": user_id,
        "role": role,
    }
    # In one step, so that both are created at the same time: that tells this membership from a later one.
    return log.apply(tx, context.actor, [Change(USER, "created", doc), Change(MEMBER, "created", member)])[0]


def update_user(tx: Tx, context: Context, user_id: str, body: Any) -> str:
    """Change a user: oneself, or as an admin of the workspace that invited the user (see `_require_power`)."""
    row, before = edit.load(tx, context, USER, user_id)
    if user_id == context.principal.user_id:
        require_unlimited(tx, context, "change the user that it belongs to")
    else:
        require_power_over(tx, context, before)
    values = edit.fields(USER, body, current=before)
    if values.get("email") and values["email"] != before["email"]:
        edit.fail(_email_faults(values["email"]))
        values["email"] = text.fold(values["email"])
    if "handle" in values and values["handle"] is None:
        values["handle"] = _free_handle(tx, values.get("name", before["name"]), values.get("email", before["email"]))
    if values.get("handle") and values["handle"] != before["handle"]:
        _check_handle(values["handle"])
    _require_unique(tx, user_id, values.get("email"), values.get("handle"))
    return edit.update(tx, context, USER, row, before, {**before, **values})


def delete_user(tx: Tx, context: Context, user_id: str) -> None:
    """Move a user to the trash; the keys stop working at once. Clash for the last owner of a workspace."""
    row, doc = edit.load(tx, context, USER, user_id)
    if user_id == context.principal.user_id:
        raise Clash("You cannot delete yourself; ask another admin.")
    require_power_over(tx, context, doc)
    for workspace_id in workspaces_owned(tx, user_id):
        require_another_owner(tx, workspace_id, user_id)
    edit.trash(tx, context, [(USER, row, doc)], user_id)


def restore_user(tx: Tx, context: Context, user_id: str) -> str:
    """Bring a user back from the trash, as an admin of the workspace that invited the user."""
    _, doc = edit.load(tx, context, USER, user_id, deleted=True)
    require_inviting_admin(tx, context, doc)
    return edit.untrash(tx, context, USER, user_id, ())


def _require_unique(tx: Tx, user_id: str, email: str | None, handle: str | None) -> None:
    issues = []
    for name, value in (("email", email), ("handle", handle)):
        if value is not None and tx.one(f"SELECT 1 FROM users WHERE {name} = ? AND id <> ?", (value, user_id)):
            issues.append(Issue(f"{name}_in_use", f"Another user has the {name} {value}.", pointer=f"/{name}"))
    if issues:
        raise Clash(issues[0].detail, errors=issues)


def _email_faults(email: str | None) -> list[Issue]:
    """The faults of an e-mail address of the right form: an invisible character makes two addresses look alike."""
    char = text.unseen(email or "")
    if char is None:
        return []
    detail = f"email has a character that nobody sees, U+{ord(char):04X}; type the address anew."
    return [Issue("invalid_format", detail, pointer="/email")]


def _check_handle(handle: str) -> None:
    """Invalid for a handle that means something else wherever a user may be named: `me`, or an id."""
    if not _is_free_form(handle):
        detail = f'"{handle}" cannot be a handle: it is "me" or has the form of an id, which name a user by themselves.'
        edit.fail([Issue("not_allowed", detail, pointer="/handle")])


def _is_free_form(handle: str) -> bool:
    return handle != "me" and not any(ids.is_id(handle, resource.prefix) for resource in REGISTRY.values())


def _free_handle(tx: Tx, name: str, email: str | None) -> str:
    base = re.sub(r"[^a-z0-9]+", "_", (email or name).split("@")[0].lower()).strip("_")[:40] or "user"
    handle = base
    while not _is_free_form(handle) or tx.one("SELECT 1 FROM users WHERE handle = ?", (handle,)):
        handle = f"{base}_{ids.new('x')[-6:]}"
    return handle


def resolve_user(tx: Tx, context: Context, workspace_id: str, reference: str, *, trashed: bool = False) -> str | None:
    """The id of a member of a workspace, from an id, handle, e-mail or `me`; `trashed` admits deleted users."""
    return query.resolve(tx, context.principal, "user", reference, within=workspace_id, trashed=trashed)


def invited(tx: Tx, workspace_id: str, reference: str) -> str | None:
    """The id of a user whom a workspace has invited, member or not, from an id, handle or e-mail."""
    folded = text.fold(reference)
    row = tx.one(
        "SELECT id FROM users WHERE (id = ? OR email = ? OR handle = ?) AND workspace_id = ?",
        (reference, folded, folded, workspace_id),
    )
    return str(row[0]) if row else None
