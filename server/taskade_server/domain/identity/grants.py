"""The grants of a user: which workspaces and projects they see, and in which role, within the limits of their key."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from taskade_server.domain.identity.resources import ROLES
from taskade_server.engine.access import Grant
from taskade_server.engine.edit import Context
from taskade_server.kit import json
from taskade_server.kit.errors import Forbidden
from taskade_server.store.database import Tx


def grants_of(tx: Tx, user_id: str, workspaces: Iterable[str] = (), projects: Iterable[str] = ()) -> dict[str, Grant]:
    """A user's grants by workspace, cut to the limits of a key."""
    only_workspaces, only_projects = frozenset(workspaces), frozenset(projects)
    roles: dict[str, dict[str, str]] = {}
    for workspace_id, project_id, role in tx.all(
        'SELECT workspace_id, project_id, role FROM members WHERE "user" = ? AND project_id IS NOT NULL', (user_id,)
    ):
        roles.setdefault(workspace_id, {})[project_id] = ROLES[role]
    grants: dict[str, Grant] = {}
    for workspace_id, role, deleted_at, timezone in tx.all(
        "SELECT m.workspace_id, m.role, w.deleted_at, w.timezone FROM members m"
        " JOIN workspaces w ON w.id = m.workspace_id"
        ' WHERE m."user" = ? AND m.project_id IS NULL ORDER BY m.n',
        (user_id,),
    ):
        if only_workspaces and workspace_id not in only_workspaces:
            continue
        mine = roles.get(workspace_id, {})
        only = frozenset(mine) if ROLES[role] == "guest" else None
        hidden = (
            frozenset() if ROLES[role] in ("guest", "admin", "owner") else _private(tx, workspace_id) - frozenset(mine)
        )
        if only_projects:
            only = (only_projects if only is None else only & only_projects) - hidden
            only &= _projects_in(tx, workspace_id, only)
        grants[workspace_id] = Grant(workspace_id, ROLES[role], only, hidden, mine, deleted_at is None, timezone)
    return grants


def with_present_rights(tx: Tx, context: Context) -> Context:
    """Return the context with the rights that the caller has now, after a change of rights in this unit."""
    principal, key = context.principal, own_key(tx, context)
    grants = grants_of(tx, principal.user_id, key.get("workspace_ids") or (), key.get("project_ids") or ())
    return replace(context, principal=replace(principal, grants=grants))


def _private(tx: Tx, workspace_id: str) -> frozenset[str]:
    return frozenset(
        row[0] for row in tx.all("SELECT id FROM projects WHERE workspace_id = ? AND visibility = 1", (workspace_id,))
    )


def _projects_in(tx: Tx, workspace_id: str, wanted: frozenset[str]) -> frozenset[str]:
    found = [
        tx.one("SELECT id FROM projects WHERE id = ? AND workspace_id = ?", (name, workspace_id))
        for name in sorted(wanted)
    ]
    return frozenset(row[0] for row in found if row)


def require_unlimited(
    tx: Tx, context: Context, doing: str, limits: Iterable[str] = ("workspace_ids", "project_ids")
) -> None:
    """Forbidden if the key that calls has one of these limits: what it is about lies beyond them."""
    key = own_key(tx, context)
    if any(key.get(name) for name in limits):
        raise Forbidden(f"This key is limited to some workspaces or projects, so it cannot {doing}.")


def own_key(tx: Tx, context: Context) -> dict[str, Any]:
    """The key that calls, whose limits hold for whatever it makes; empty for a caller without one.

    Forbidden if this unit of work has revoked the key: its limits are gone with it, and so are the caller's rights.
    """
    if context.principal.key_id is None:
        return {}
    row = tx.one("SELECT doc FROM api_keys WHERE id = ?", (context.principal.key_id,))
    if row is None:
        raise Forbidden("This request revokes the key that it was sent with, so it can do nothing after that.")
    found: dict[str, Any] = json.decode(row[0])
    return found
