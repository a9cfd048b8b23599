"""Deliveries: which event goes to which webhook, how often that was tried, and what became of it.

Why their order is in the rows: of all pending deliveries about one object to one webhook only the first has a time for
its next attempt, so whoever sends what is due sends each object's events in order, and never waits for another object.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from taskade_server.store.interface import Tx

PENDING: Final = "pending"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
STATES: Final = (PENDING, SUCCEEDED, FAILED, CANCELLED)
_COLUMNS: Final = (
    "id", "webhook_id", "workspace_id", "seq", "event_id", "type", "object_id", "previous_seq", "state", "attempts",
    "next_at", "created_at", "finished_at", "last_status", "last_error",
)  # fmt: skip
_ATTEMPT: Final = (
    "delivery_id", "number", "workspace_id", "at", "duration_ms", "address", "request_headers", "status",
    "response_headers", "response_body", "error", "detail",
)  # fmt: skip
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM deliveries"


class Delivery(NamedTuple):
    """One event for one webhook. Times are epoch ms."""

    id: str
    webhook_id: str
    workspace_id: str
    seq: int
    event_id: str
    type: str
    object_id: str
    previous_seq: int | None
    state: str
    attempts: int
    next_at: int | None
    created_at: int
    finished_at: int | None
    last_status: int | None
    last_error: str | None


class Attempt(NamedTuple):
    """One try; headers are JSON texts, `error` a code and `detail` a sentence."""

    delivery_id: str
    number: int
    workspace_id: str
    at: int
    duration_ms: float
    address: str | None
    request_headers: str
    status: int | None
    response_headers: str
    response_body: str
    error: str | None
    detail: str | None


class Outcome(NamedTuple):
    """What an attempt leads to: `next_at` is the time of the next one, None if the delivery is over in `state`."""

    delivery: Delivery
    attempt: Attempt
    state: str
    next_at: int | None


# ---- making ----------------------------------------------------------------------------------------------------------


def add(tx: Tx, new: Sequence[Delivery]) -> None:
    """Add pending deliveries of one webhook in the order of their events; those that exist already stay as they are."""
    if not new:
        return
    waiting = _pending_objects(tx, new[0].webhook_id, {delivery.object_id for delivery in new})
    rows: list[Sequence[Any]] = []
    for delivery in new:
        first = delivery.object_id not in waiting
        waiting.add(delivery.object_id)
        rows.append(delivery if first else delivery._replace(next_at=None))
    marks = ", ".join("?" * len(_COLUMNS))
    tx.many(f"INSERT INTO deliveries ({', '.join(_COLUMNS)}) VALUES ({marks}) ON CONFLICT DO NOTHING", rows)


def _pending_objects(tx: Tx, webhook_id: str, objects: Iterable[str]) -> set[str]:
    found: set[str] = set()
    names = sorted(objects)
    for start in range(0, len(names), 500):
        part = names[start : start + 500]
        sql = (
            f"SELECT DISTINCT object_id FROM deliveries WHERE webhook_id = ? AND state = '{PENDING}'"
            f" AND object_id IN ({', '.join('?' * len(part))})"
        )
        found |= {row[0] for row in tx.all(sql, (webhook_id, *part))}
    return found


def behind(tx: Tx, reader: str, limit: int = 100) -> list[tuple[str, int]]:
    """The workspaces with enabled webhooks whose log goes on beyond a reader's position, with that position."""
    found = tx.all(
        "SELECT h.workspace_id, COALESCE(c.seq, 0) FROM log_heads h LEFT JOIN cursors c"
        " ON c.reader = ? AND c.workspace_id = h.workspace_id WHERE h.seq > COALESCE(c.seq, 0) AND h.workspace_id IN"
        " (SELECT workspace_id FROM webhooks WHERE enabled = 1) ORDER BY h.workspace_id LIMIT ?",
        (reader, limit),
    )
    return [(name, int(seq)) for name, seq in found]


def last_seq(tx: Tx, webhook_id: str) -> int | None:
    """The seq of the event that a webhook was sent, or will be sent, last."""
    row = tx.one("SELECT last_seq FROM webhook_states WHERE webhook_id = ?", (webhook_id,))
    return row[0] if row else None


def set_last_seq(tx: Tx, webhook_id: str, workspace_id: str, seq: int) -> None:
    """Note which event a webhook was sent last."""
    tx.run(
        "INSERT INTO webhook_states (webhook_id, workspace_id, last_seq) VALUES (?, ?, ?)"
        " ON CONFLICT (webhook_id) DO UPDATE SET last_seq = excluded.last_seq",
        (webhook_id, workspace_id, seq),
    )


# ---- sending ---------------------------------------------------------------------------------------------------------


def due_times(tx: Tx, webhooks: Sequence[str]) -> dict[str, int]:
    """When the next attempt of each webhook is due (epoch ms); webhooks that have nothing to do are left out."""
    found: dict[str, int] = {}
    for start in range(0, len(webhooks), 500):
        part = webhooks[start : start + 500]
        sql = (
            "SELECT w.id, (SELECT MIN(d.next_at) FROM deliveries d WHERE d.webhook_id = w.id AND d.next_at IS NOT NULL)"
            f" FROM webhooks w WHERE w.id IN ({', '.join('?' * len(part))})"
        )
        found |= {name: int(at) for name, at in tx.all(sql, part) if at is not None}
    return found


def due(tx: Tx, webhook_id: str, now: int, limit: int) -> list[Delivery]:
    """The deliveries of a webhook whose attempt is due, those that have waited longest first."""
    rows = tx.all(
        f"{_SELECT} WHERE webhook_id = ? AND next_at IS NOT NULL AND next_at <= ? ORDER BY next_at, seq LIMIT ?",
        (webhook_id, now, limit),
    )
    return [Delivery(*row) for row in rows]


def record(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    """Keep attempts and what they lead to; what is over lets the next event about the same object go."""
    marks = ", ".join("?" * len(_ATTEMPT))
    tx.many(
        f"INSERT INTO attempts ({', '.join(_ATTEMPT)}) VALUES ({marks}) ON CONFLICT DO NOTHING",
        [outcome.attempt for outcome in outcomes],
    )
    tx.many(
        "UPDATE deliveries SET state = ?, attempts = ?, next_at = ?, finished_at = ?, last_status = ?, last_error = ?"
        " WHERE id = ?",
        [
            (
                state,
                attempt.number,
                next_at,
                None if next_at is not None else attempt.at,
                attempt.status,
                attempt.error,
                delivery.id,
            )
            for delivery, attempt, state, next_at in outcomes
        ],
    )
    over = [outcome for outcome in outcomes if outcome.next_at is None]
    tx.many(
        "UPDATE deliveries SET next_at = ? WHERE n = (SELECT n FROM deliveries WHERE webhook_id = ? AND object_id = ?"
        f" AND state = '{PENDING}' ORDER BY seq LIMIT 1) AND next_at IS NULL",
        [(attempt.at, delivery.webhook_id, delivery.object_id) for delivery, attempt, _, _ in over],
    )


def note_success(tx: Tx, webhook_id: str, workspace_id: str, at: int) -> None:
    """The endpoint has taken something."""
    tx.run(
        "INSERT INTO webhook_states (webhook_id, workspace_id, last_success_at) VALUES (?, ?, ?) ON CONFLICT"
        " (webhook_id) DO UPDATE SET last_success_at = excluded.last_success_at, failing_since = NULL",
        (webhook_id, workspace_id, at),
    )


def note_failure(tx: Tx, webhook_id: str, workspace_id: str, at: int) -> int:
    """The endpoint has taken nothing; since when that is so."""
    row = tx.one(
        "INSERT INTO webhook_states (webhook_id, workspace_id, last_failure_at, failing_since) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (webhook_id) DO UPDATE SET last_failure_at = excluded.last_failure_at,"
        " failing_since = COALESCE(webhook_states.failing_since, excluded.failing_since) RETURNING failing_since",
        (webhook_id, workspace_id, at, at),
    )
    return int(row[0]) if row else at


# ---- looking ---------------------------------------------------------------------------------------------------------


def find(tx: Tx, webhook_id: str, delivery_id: str) -> Delivery | None:
    """One delivery of a webhook, by its id or that of its event."""
    row = tx.one(f"{_SELECT} WHERE webhook_id = ? AND (id = ? OR event_id = ?)", (webhook_id, delivery_id, delivery_id))
    return Delivery(*row) if row else None


def newest(
    tx: Tx, webhook_id: str, *, states: Sequence[str] = (), types: Sequence[str] = (), below: int | None = None,
    limit: int = 100,
) -> list[Delivery]:  # fmt: skip
    """A webhook's deliveries, newest event first; `below` is the seq to go on from."""
    conditions, params = ["webhook_id = ?"], [webhook_id]
    for column, values in (("state", states), ("type", types)):
        if values:
            conditions.append(f"{column} IN ({', '.join('?' * len(values))})")
            params += values
    more: list[Any] = [*params]
    if below is not None:
        conditions.append("seq < ?")
        more.append(below)
    rows = tx.all(f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?", (*more, limit))
    return [Delivery(*row) for row in rows]


def attempts_of(tx: Tx, delivery_id: str) -> list[Attempt]:
    """All attempts of a delivery, in order."""
    rows = tx.all(f"SELECT {', '.join(_ATTEMPT)} FROM attempts WHERE delivery_id = ? ORDER BY number", (delivery_id,))
    return [Attempt(*row) for row in rows]


def requeue(tx: Tx, delivery: Delivery, at: int) -> None:
    """Send it again, at once or, while an earlier event about the object is pending, behind that."""
    earlier = tx.one(
        f"SELECT 1 FROM deliveries WHERE webhook_id = ? AND object_id = ? AND state = '{PENDING}' AND seq < ?",
        (delivery.webhook_id, delivery.object_id, delivery.seq),
    )
    tx.run(
        f"UPDATE deliveries SET state = '{PENDING}', next_at = ?, finished_at = NULL WHERE id = ?",
        (None if earlier else at, delivery.id),
    )


class State(NamedTuple):
    """How an endpoint is doing. Times are epoch ms."""

    pending: int
    oldest_pending_at: int | None
    last_success_at: int | None
    last_failure_at: int | None
    failing_since: int | None


def state_of(tx: Tx, webhook_id: str) -> State:
    """How the endpoint of a webhook is doing."""
    count = tx.one(
        f"SELECT COUNT(*), MIN(created_at) FROM deliveries WHERE webhook_id = ? AND state = '{PENDING}'", (webhook_id,)
    )
    row = tx.one(
        "SELECT last_success_at, last_failure_at, failing_since FROM webhook_states WHERE webhook_id = ?",
        (webhook_id,),
    )
    return State(*(count or (0, None)), *(row or (None, None, None)))
