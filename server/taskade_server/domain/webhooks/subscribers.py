"""Webhooks as they are matched against events."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from taskade_server.domain.webhooks.resources import WEBHOOK
from taskade_server.domain.webhooks.rights import owner_with
from taskade_server.engine import access, log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.subscriptions import FILTER_INVALID, FILTER_REASONS, Condition, Subscription
from taskade_server.kit import json
from taskade_server.store.database import StoreError, Tx

logger: Final = logging.getLogger("taskade")


def subscriptions(tx: Tx, workspace_id: str, position: int) -> list[Subscription]:
    """The webhooks of a workspace that are or were told of what is behind a position of the log."""
    condition = "workspace_id = ? AND (enabled = 1 OR until > ?)"
    return _subscriptions(tx, condition, (workspace_id, position))


def subscription(tx: Tx, webhook_id: str) -> Subscription | None:
    """One webhook as it is matched against events; None if it has been deleted."""
    found = _subscriptions(tx, "id = ?", (webhook_id,))
    return found[0] if found else None


def _subscriptions(tx: Tx, condition: str, params: Sequence[Any]) -> list[Subscription]:
    """With each, what its owner may know now."""
    found = []
    owners: dict[str, Principal] = {}
    rows = tx.all(f"SELECT id, workspace_id, rights, spans, doc FROM webhooks WHERE {condition} ORDER BY n", params)
    for webhook_id, workspace_id, rights, spans, text in rows:
        doc = json.decode(text)
        who = f"{doc['user_id']}\n{rights}"
        if who not in owners:
            owners[who] = owner_with(tx, doc["user_id"], rights)
        made = Subscription(
            id=webhook_id,
            workspace_id=workspace_id,
            project_id=doc["project_id"],
            patterns=doc["events"],
            principal=owners[who],
            trees=None,
            spans=[(begin, end) for begin, end in json.decode(spans)],
            enabled=doc["enabled"],
        )
        if doc["filter"] is not None:
            made.trees = {}
            try:
                if doc["disabled_reason"] in FILTER_REASONS:
                    made.fault = doc["disabled_reason"]
                else:
                    made.prepare(tx, doc["filter"])
            except StoreError:
                raise
            except Exception:
                # Nobody foresaw it, and the events of all other webhooks of the workspace wait for this one.
                logger.exception("The filter of the webhook %s cannot be made ready; the webhook ends.", webhook_id)
                made.trees, made.fault, made.keeps_names = {}, made.fault or FILTER_INVALID, False
        found.append(made)
    return found


def resolve_names(tx: Tx, webhook_id: str) -> None:
    """Replace the names of objects in a stored filter by their ids; it is unchanged if that cannot be done."""
    found = tx.one(f"SELECT n, rights, doc FROM webhooks WHERE id = ?{tx.for_update}", (webhook_id,))
    before = json.decode(found[2]) if found else None
    if found is None or before is None or before["filter"] is None:
        return
    owner = owner_with(tx, before["user_id"], found[1])
    try:
        document, issues = Condition(before["filter"], before["events"]).resolve_names(tx, owner)
    except StoreError:
        raise
    except Exception:
        logger.exception("The names in the filter of the webhook %s cannot be replaced.", webhook_id)
        return
    if not issues and not json.same(document, before["filter"]):
        after = {**before, "filter": document}
        log.apply(tx, Actor(None), [Change(WEBHOOK, "updated", after, before, found[0])])


def existing(tx: Tx, names: Sequence[str]) -> set[str]:
    """Which of some webhooks there are."""
    if not names:
        return set()
    condition, params = access.among("id", names, tx.dialect)
    return {row[0] for row in tx.all(f"SELECT id FROM webhooks WHERE {condition}", params)}
