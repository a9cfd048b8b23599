"""Memberships of workspaces and projects. A workspace always has an owner."""

from typing import Any, Final

from taskade_server.domain.identity.resources import MEMBER, ROLES
from taskade_server.engine import edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.kit import ids, json
from taskade_server.kit.errors import Clash, Forbidden
from taskade_server.store.database import Tx

MAX_WORKSPACES_BY_OTHERS: Final = 50
"""In so many workspaces somebody may be whom others have added; those that they created themselves do not count."""


def add_member(tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str, role: str) -> str:
    """Write a membership; a user who is a member already gets the role.

    The membership of the workspace stays until the commit: who leaves at this moment leaves the project, too.
    """
    if project_id is not None and not _stays_member(tx, workspace_id, user_id):
        raise Clash(f"The user {user_id} is not a member of the workspace any more.")
    found = find_membership(tx, workspace_id, project_id, user_id)
    if found is not None:
        _keep_an_owner(tx, context, found, role)
        return _set_role(tx, context, found, role)
    doc = {"id": ids.new("mem"), "workspace_id": workspace_id, "project_id": project_id, "user": user_id, "role": role}
    return edit.create(tx, context, MEMBER, doc)


def require_room(tx: Tx, workspace_id: str, user_id: str) -> None:
    """Clash if others have added somebody to as many workspaces as they may; only the user can end such memberships."""
    row = tx.one(
        "SELECT COUNT(*) FROM members"
        ' WHERE "user" = ? AND project_id IS NULL AND created_by <> ? AND workspace_id <> ?',
        (user_id, user_id, workspace_id),
    )
    if row is not None and row[0] >= MAX_WORKSPACES_BY_OTHERS:
        raise Clash(
            f"Others have added this user to {MAX_WORKSPACES_BY_OTHERS} workspaces, which is as many as they may. The"
            " user has to leave one first: DELETE /v1/workspaces/<id>/members/me."
        )


def change_member(
    tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str, role: str
) -> str | None:
    """Change a role; None if there is no such member. The last owner of a workspace stays owner."""
    found = find_membership(tx, workspace_id, project_id, user_id)
    if found is None:
        return None
    edit.expect(context, MEMBER, json.decode(found[1]))
    _keep_an_owner(tx, context, found, role)
    return _set_role(tx, context, found, role)


def remove_member(tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str) -> bool:
    """End a membership; leaving a workspace ends those in its projects too. False if there was none."""
    found = find_membership(tx, workspace_id, project_id, user_id)
    if found is None:
        return False
    edit.expect(context, MEMBER, json.decode(found[1]))
    _keep_an_owner(tx, context, found, None)
    rows = [found]
    if project_id is None:
        rows += tx.all(
            'SELECT n, doc FROM members WHERE workspace_id = ? AND "user" = ? AND project_id IS NOT NULL'
            f" ORDER BY n{tx.for_update}",
            (workspace_id, user_id),
        )
    changes = []
    for n, rendered in rows:
        doc = json.decode(rendered)
        changes.append(Change(MEMBER, "deleted", dict(doc), doc, n))
    log.apply(tx, context.actor, changes)
    return True


def membership(tx: Tx, workspace_id: str, project_id: str | None, user_id: str) -> dict[str, Any] | None:
    """The document of a membership, locked; None if there is none."""
    found = find_membership(tx, workspace_id, project_id, user_id)
    return None if found is None else json.decode(found[1])


def _stays_member(tx: Tx, workspace_id: str, user_id: str) -> bool:
    sql = f'SELECT n FROM members WHERE workspace_id = ? AND "user" = ? AND project_id IS NULL{tx.for_share}'
    return tx.one(sql, (workspace_id, user_id)) is not None


def find_membership(tx: Tx, workspace_id: str, project_id: str | None, user_id: str) -> tuple[int, str] | None:
    condition = "project_id IS NULL" if project_id is None else "project_id = ?"
    params = (workspace_id, user_id) if project_id is None else (workspace_id, user_id, project_id)
    row = tx.one(
        f'SELECT n, doc FROM members WHERE workspace_id = ? AND "user" = ? AND {condition}{tx.for_update}', params
    )
    return (row[0], row[1]) if row else None


def _set_role(tx: Tx, context: Context, found: tuple[int, str], role: str) -> str:
    before = json.decode(found[1])
    if before["role"] == role:
        return found[1]
    return log.apply(tx, context.actor, [Change(MEMBER, "updated", {**before, "role": role}, before, found[0])])[0]


def _keep_an_owner(tx: Tx, context: Context, found: tuple[int, str], role: str | None) -> None:
    doc = json.decode(found[1])
    if doc["project_id"] is not None or doc["role"] != "owner" or role == "owner":
        return
    grant = context.principal.grant(doc["workspace_id"])
    if grant is None or grant.role != "owner":
        raise Forbidden("Only an owner can take the role owner from another.")
    require_another_owner(tx, doc["workspace_id"], doc["user"])


def require_another_owner(tx: Tx, workspace_id: str, user_id: str) -> None:
    """Clash if nobody but this user is an owner of the workspace, the users in the trash not counted."""
    log.lock(tx, workspace_id)
    row = tx.one(
        'SELECT COUNT(*) FROM members m JOIN users u ON u.id = m."user"'
        ' WHERE m.workspace_id = ? AND m.project_id IS NULL AND m.role = ? AND m."user" <> ? AND u.deleted_at IS NULL',
        (workspace_id, ROLES.index("owner"), user_id),
    )
    if row is None or row[0] == 0:
        raise Clash(f"The workspace {workspace_id} needs an owner; make somebody else an owner first.")


def workspaces_owned(tx: Tx, user_id: str) -> list[str]:
    """The live workspaces that a user is an owner of."""
    rows = tx.all(
        "SELECT m.workspace_id FROM members m JOIN workspaces w ON w.id = m.workspace_id"
        ' WHERE m."user" = ? AND m.project_id IS NULL AND m.role = ? AND w.deleted_at IS NULL ORDER BY m.workspace_id',
        (user_id, ROLES.index("owner")),
    )
    return [row[0] for row in rows]
