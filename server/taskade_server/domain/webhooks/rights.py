"""The rights that a webhook keeps of the key that made it, and who may change it."""

from typing import Any

from taskade_server.domain import identity
from taskade_server.domain.webhooks.resources import WEBHOOK
from taskade_server.engine import edit, query
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.kit import json
from taskade_server.kit.errors import Forbidden, Issue
from taskade_server.store.database import Tx


def load_changeable(tx: Tx, context: Context, webhook_id: str) -> tuple[query.Row, dict[str, Any]]:
    """The webhook, for who may decide where its events go: a key that reaches less must not read through it."""
    row, doc = edit.load(tx, context, WEBHOOK, webhook_id)
    found = tx.one("SELECT rights FROM webhooks WHERE n = ?", (row.n,))
    scopes, *limits = json.decode(found[0]) if found else ([], [], [])
    key = identity.own_key(tx, context)
    lacking = [scope for scope in scopes if not _allows(context.principal, scope)]
    within = (
        not key.get(name) or (limit and set(limit) <= set(key[name]))
        for name, limit in zip(("workspace_ids", "project_ids"), limits, strict=True)
    )
    if lacking or not all(within):
        raise Forbidden("This webhook was made with a key that reaches further than yours; use one that does, too.")
    return row, doc


def _allows(principal: Principal, scope: str) -> bool:
    return "*" in principal.scopes if scope == "*" else principal.allows(scope)


def require_visible_afterwards(context: Context, workspace_id: str, project_id: str | None) -> None:
    """Invalid for a webhook that the key which makes it could not see, nor change or delete, afterwards."""
    grant = context.principal.grant(workspace_id)
    if project_id is None and grant is not None and grant.only is not None:
        detail = (
            "project_id is required: this key is limited to some projects, so it sees only webhooks that are about one"
            f" of them. It reaches: {', '.join(sorted(grant.only)[:20]) or 'none'}."
        )
        edit.fail([Issue("required", detail, pointer="/project_id")])


def rights_of_key(tx: Tx, context: Context) -> str:
    key = identity.own_key(tx, context)
    scopes = sorted(context.principal.scopes)
    return json.encode([scopes, key.get("workspace_ids") or [], key.get("project_ids") or []])


def owner(tx: Tx, webhook_id: str) -> Principal:
    """The owner of a webhook, with what they and the key that made it may see now; nobody if the webhook is gone."""
    row = tx.one("SELECT user_id, rights FROM webhooks WHERE id = ?", (webhook_id,))
    return owner_with(tx, *row) if row else Principal("", None, frozenset(), {}, None)


def owner_with(tx: Tx, user_id: str, rights: str) -> Principal:
    scopes, workspace_ids, project_ids = json.decode(rights)
    live = tx.one("SELECT workspace_id, timezone FROM users WHERE id = ? AND deleted_at IS NULL", (user_id,))
    grants = identity.grants_of(tx, user_id, workspace_ids, project_ids) if live else {}
    home, timezone = live or (None, None)
    return Principal(user_id, None, frozenset(scopes), grants, home, timezone=timezone)
