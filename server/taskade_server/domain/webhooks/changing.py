"""Creating, changing and deleting webhooks, and what the server does about those that fail."""

from typing import Any

from taskade_server.domain import projects
from taskade_server.domain.webhooks.checking import faults, secret_faults, settle_filter
from taskade_server.domain.webhooks.resources import MAX_WEBHOOKS, WEBHOOK
from taskade_server.domain.webhooks.rights import load_changeable, require_visible_afterwards, rights_of_key
from taskade_server.domain.webhooks.signing_keys import SigningKeys
from taskade_server.domain.webhooks.spans import after_switching, begin_span, is_behind, mark_disabled
from taskade_server.engine import access, edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import json, time, webhook_signatures
from taskade_server.kit.errors import Issue
from taskade_server.store.database import Tx
from taskade_server.store.tables import deliveries, replays


def create(tx: Tx, context: Context, body: Any) -> tuple[str, str]:
    """A new webhook, as (document, secret)."""
    values = edit.fields(WEBHOOK, body, extra=["secret"], given=edit.given(context, user_id=context.principal.user_id))
    chosen = body.get("secret")
    project = projects.visible(tx, context, values["project_id"])
    workspace_id = values["workspace_id"] or (project["workspace_id"] if project else None)
    workspace_id = workspace_id or context.principal.default_workspace or ""
    access.require_workspace(context.principal, workspace_id, "guest" if project else "member", "create a webhook")
    require_visible_afterwards(context, workspace_id, values["project_id"])
    log.lock(tx, workspace_id)  # two that count at once, webhooks or the weight of filters, would both be the last one
    issues = faults(tx, context, values)
    if not issues:
        issues = settle_filter(tx, context, values, workspace_id, None)
    if chosen is not None:
        issues += secret_faults(chosen)
    if project and project["workspace_id"] != workspace_id:
        issues.append(Issue("mismatch", "The project lies in another workspace.", pointer="/project_id"))
    if len(tx.all("SELECT 1 FROM webhooks WHERE workspace_id = ?", (workspace_id,))) >= MAX_WEBHOOKS:
        issues.append(Issue("too_many", f"A workspace may have {MAX_WEBHOOKS} webhooks.", pointer=""))
    edit.fail(issues)
    webhook_id = edit.new_id(tx, WEBHOOK, values.get("id"))
    secret = chosen or webhook_signatures.new_secret()
    pair = webhook_signatures.new_key_pair()
    doc = {
        **values,
        "id": webhook_id,
        "workspace_id": workspace_id,
        "user_id": context.principal.user_id,
        "disabled_at": None,
        "disabled_reason": None,
        "public_key": pair.public,
    }
    mark_disabled(doc)
    keys = SigningKeys(secret, pair.private, [])
    private = {
        "secrets": keys.close(context.secret, webhook_id),
        "rights": rights_of_key(tx, context),
        **begin_span(tx, workspace_id, []),
    }
    return edit.create(tx, context, WEBHOOK, doc, **private), secret


def update(tx: Tx, context: Context, webhook_id: str, body: Any) -> str:
    """Change a webhook; the owner's rights stay those of the key that made it."""
    row, before = load_changeable(tx, context, webhook_id)
    values = edit.fields(WEBHOOK, body, current=before)
    after = {**before, **values}
    changed = {name: value for name, value in values.items() if not json.same(before[name], value)}
    if "project_id" in changed and after["project_id"] is None:
        access.require_workspace(context.principal, row.workspace_id, "member", "have a webhook without a project")
        require_visible_afterwards(context, row.workspace_id, None)
    issues = faults(tx, context, {**changed, "events": after["events"]})
    if not issues and (changed.keys() & {"filter", "events"} or changed.get("enabled")):
        log.lock(tx, row.workspace_id)
        issues = settle_filter(tx, context, after, row.workspace_id, webhook_id)
    if changed.get("project_id"):
        project = projects.visible(tx, context, after["project_id"])
        if project and project["workspace_id"] != row.workspace_id:
            issues.append(Issue("mismatch", "The project lies in another workspace.", pointer="/project_id"))
    edit.fail(issues)
    if after["enabled"] == before["enabled"]:
        return edit.update(tx, context, WEBHOOK, row, before, after)
    mark_disabled(after)
    private = after_switching(tx, row.n, row.workspace_id, after["enabled"])
    return log.apply(tx, context.actor, [Change(WEBHOOK, "updated", after, before, row.n, private=private)])[0]


def delete(tx: Tx, context: Context, webhook_id: str) -> None:
    """End a webhook: nothing more is sent, not even what is waiting."""
    row, doc = load_changeable(tx, context, webhook_id)
    _delete_with_deliveries(tx, context.actor, row.n, doc)


def delete_orphaned(tx: Tx, limit: int) -> int:
    """End webhooks about projects that are gone for good, after they have told of that; returns how many."""
    # In this order: whatever is committed meanwhile makes the later questions keep more, and not less.
    found = tx.all(
        "SELECT n, id, workspace_id, doc FROM webhooks w WHERE project_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = w.project_id)"
        f" ORDER BY n LIMIT {int(limit)}{tx.for_update}"
    )
    ended = 0
    for n, webhook_id, workspace_id, text in found:
        doc = json.decode(text)
        if doc["enabled"] and (is_behind(tx, workspace_id) or deliveries.has_pending(tx, webhook_id)):
            continue
        _delete_with_deliveries(tx, Actor(None), n, doc)
        ended += 1
    return ended


def _delete_with_deliveries(tx: Tx, actor: Actor, n: int, doc: dict[str, Any]) -> None:
    """Delete a webhook with all that waits for it, in one unit: nothing of it is sent afterwards."""
    running, now = replays.running_of(tx, doc["id"], doc["workspace_id"]), time.now_ms()
    if running is not None:
        replays.cancel(tx, running, now)
    deliveries.end(tx, doc["id"], now)
    log.apply(tx, actor, [Change(WEBHOOK, "deleted", dict(doc), doc, n)])


def disable(tx: Tx, webhook_id: str, reason: str) -> bool:
    """What the server does about an endpoint that is gone or failing; False if it was disabled already."""
    found = tx.one(f"SELECT n, doc FROM webhooks WHERE id = ?{tx.for_update}", (webhook_id,))
    before = json.decode(found[1]) if found else None
    if found is None or before is None or not before["enabled"]:
        return False
    after = {**before, "enabled": False, "disabled_reason": reason}
    mark_disabled(after, reason)
    private = after_switching(tx, found[0], before["workspace_id"], False)
    log.apply(tx, Actor(None), [Change(WEBHOOK, "updated", after, before, found[0], ["webhook.disabled"], private)])
    return True
