"""Who has power over a user: the admins of the workspace that invited them."""

from typing import Any, Final

from taskade_server.domain.identity.members import find_membership
from taskade_server.domain.identity.resources import ROLES
from taskade_server.engine.access import Grant
from taskade_server.engine.edit import Context
from taskade_server.kit import json, time
from taskade_server.kit.errors import Forbidden
from taskade_server.store.database import Tx

INVITED_WITHIN_MS: Final = 10
"""A membership that began so soon after its user is the one that the user was invited with."""


def require_power_over(tx: Tx, context: Context, user: dict[str, Any]) -> None:
    """Forbidden unless the caller may change or delete somebody: an admin of the workspace that invited the user.

    It ends for good when the user leaves that workspace (also if added again later), and rests while the user belongs
    to a workspace that the caller does not administer.
    """
    member = require_inviting_admin(tx, context, user)
    advice = f"DELETE /v1/workspaces/{user['workspace_id']}/members/{user['id']} ends the membership in this one."
    if time.parse_ms(member["created_at"]) - time.parse_ms(user["created_at"]) > INVITED_WITHIN_MS:
        raise Forbidden(f"The user had left this workspace before, so only they may change or delete it. {advice}")
    others = tx.all(
        'SELECT workspace_id, role FROM members WHERE "user" = ? AND project_id IS NULL AND workspace_id <> ?',
        (user["id"], user["workspace_id"]),
    )
    if not all(_administers(context.principal.grants.get(name), ROLES[role]) for name, role in others):
        raise Forbidden(
            "The user also belongs to a workspace that you do not administer, so only they may change or delete it."
            f" {advice}"
        )


def _administers(grant: Grant | None, role: str) -> bool:
    """Whether a grant gives power over a member with some role: an owner's is for owners only."""
    needed = ("owner",) if role == "owner" else ("admin", "owner")
    return grant is not None and grant.only is None and grant.role in needed


def require_inviting_admin(tx: Tx, context: Context, user: dict[str, Any]) -> dict[str, Any]:
    """The user's membership in the workspace that invited them; Forbidden unless the caller is an admin there."""
    grant = context.principal.grant(user["workspace_id"])
    if grant is None or grant.only is not None or grant.role not in ("admin", "owner"):
        raise Forbidden("Only the user, or an admin of the workspace that invited the user, may do that.")
    found = find_membership(tx, user["workspace_id"], None, user["id"])
    if found is None:
        raise Forbidden("The user has left the workspace that invited them, so only they may change or delete it.")
    member: dict[str, Any] = json.decode(found[1])
    if member["role"] == "owner" and grant.role != "owner":
        raise Forbidden("Only an owner may do that to another owner.")
    return member
