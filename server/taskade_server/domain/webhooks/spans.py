"""The parts of the log in which a webhook was enabled: it is sent what happened in them, however late."""

from typing import Any

from taskade_server.domain.webhooks.resources import READER
from taskade_server.engine import log
from taskade_server.kit import json, time
from taskade_server.store.database import Tx
from taskade_server.store.tables import cursors


def is_behind(tx: Tx, workspace_id: str) -> bool:
    return cursors.position(tx, READER, workspace_id) < log.head(tx, workspace_id)


def after_switching(tx: Tx, n: int, workspace_id: str, enabled: bool) -> dict[str, Any]:
    """The private columns of a webhook that is enabled or disabled now.

    What happened before it was disabled is told even if nobody has looked at it yet.
    """
    found = tx.one("SELECT spans FROM webhooks WHERE n = ?", (n,))
    spans = json.decode(found[0]) if found else []
    if enabled:
        return begin_span(tx, workspace_id, spans)
    head = log.head(tx, workspace_id)
    spans[-1][1] = head
    return {"spans": json.encode(spans), "until": head}


def begin_span(tx: Tx, workspace_id: str, spans: list[list[int | None]]) -> dict[str, Any]:
    """The private columns of a webhook that is sent events from now on.

    While nobody wanted any, the reader of the log has not moved; it need not read what nobody is told of.
    """
    log.lock(tx, workspace_id)
    head, position = log.head(tx, workspace_id), cursors.position(tx, READER, workspace_id)
    wanted = "SELECT 1 FROM webhooks WHERE workspace_id = ? AND (enabled = 1 OR until > ?) LIMIT 1"
    if tx.one(wanted, (workspace_id, position)) is None:
        cursors.move(tx, READER, workspace_id, head)
    unread = [span for span in spans if (span[1] or 0) > position]
    return {"spans": json.encode([*unread, [head, None]]), "until": None}


def mark_disabled(doc: dict[str, Any], reason: str | None = None) -> None:
    doc["disabled_at"] = None if doc["enabled"] else time.format_ms(time.now_ms())
    doc["disabled_reason"] = None if doc["enabled"] else reason
