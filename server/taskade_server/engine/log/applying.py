"""Writing rows with their events."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.engine.log.appending import append_events, pending_events
from taskade_server.engine.log.change import Actor, Change
from taskade_server.engine.log.rows import WRITTEN_A_STEP, delete_rows, insert_rows, keep_open_projects, update_rows
from taskade_server.engine.log.state import bump_rights_version, generation
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json, time
from taskade_server.store.database import Tx

# What writing takes from a unit's budget: each row and each of its events, each row of a side table, and so many
# characters of a document, or words of its text, for one step. Measured; see docs/decisions.
ROW_STEPS: Final = 25

EVENT_STEPS: Final = 10


def apply(tx: Tx, actor: Actor, changes: Sequence[Change]) -> list[str]:
    """Write rows and their events; returns the rendered documents (JSON texts) in order.

    All changes of one call to the same resource and action are written together, so a thousand cost little more than
    the rows themselves. `updated_at` and `version` are set here. All of it is taken from the unit's budget, before
    it is written: BudgetSpent when that is not enough.
    """
    now = time.now_ms()
    stamp = time.format_ms(now)
    least = generation(tx)
    rendered: list[str] = []
    groups: dict[tuple[str, str], list[tuple[Change, str]]] = {}
    for change in changes:
        _stamp(change, actor, stamp, least)
        text = json.encode(change.doc)
        tx.budget.spend(ROW_STEPS + EVENT_STEPS * (1 + len(change.also)) + len(text) // WRITTEN_A_STEP)
        rendered.append(text)
        groups.setdefault((change.resource.name, change.action), []).append((change, text))
    for (name, action), group in groups.items():
        resource = REGISTRY[name]
        if action == "created":
            insert_rows(tx, resource, group)
        elif action == "purged" or (action == "deleted" and not resource.trash):
            delete_rows(tx, resource, group)
        else:
            update_rows(tx, resource, group)
        if name == "project" and action == "purged":
            keep_open_projects(tx, group)
        if resource.grants and any(resource.alters_grants(change.before, change.doc) for change, _ in group):
            bump_rights_version(tx)
            pending_events(tx).rights_changes += 1
    pending = pending_events(tx)
    pending.size += sum(map(len, rendered))
    for change, text in zip(changes, rendered, strict=True):
        if change.resource.visibility == "shared" and change.action != "created" and not _is_member(tx, change.doc):
            workspace_id = change.doc["workspace_id"]
            first = len(pending.events.get(workspace_id, ()))
            pending.absent.setdefault(workspace_id, set()).update(range(first, first + 1 + len(change.also)))
        append_events(pending, actor, change, text, now)
    return rendered


def _stamp(change: Change, actor: Actor, stamp: str, least: int) -> None:
    """Set what the server sets. No version is below `least`, so that one of a lost history is never given again."""
    doc = change.doc
    doc["updated_at"] = stamp
    if change.action == "created":
        doc["created_at"], doc["created_by"], doc["version"] = (
            stamp,
            doc.get("created_by") or actor.user_id,
            max(1, least),
        )
        if change.resource.trash:
            doc["deleted_at"] = None
        change.doc = {name: doc[name] for name in change.resource.fields}
        return
    doc["version"] = max(int(doc["version"]) + 1, least)
    if change.resource.trash and change.action in ("deleted", "restored"):
        doc["deleted_at"] = stamp if change.action == "deleted" else None


def _is_member(tx: Tx, user: Mapping[str, Any]) -> bool:
    """Whether a user is a member of the workspace in whose log changes of the user are recorded."""
    sql = 'SELECT 1 FROM members WHERE "user" = ? AND workspace_id = ? AND project_id IS NULL'
    return tx.one(sql, (user["id"], user["workspace_id"])) is not None
