"""Deliveries: which event goes to which webhook, how often that was tried, and what became of it.

Why their order is in the rows: of all pending deliveries about one object to one webhook only the first has a time for
its next attempt, so whoever sends what is due sends each object's events in order, and never waits for another object.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Self, TypeVar

from taskade_server.kit import ids
from taskade_server.store.interface import Tx

PENDING: Final = "pending"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
TEST: Final = "webhook.test"
"""The type of what a test sends; no event has it."""
STATES: Final = (PENDING, SUCCEEDED, FAILED, CANCELLED)
MANY: Final = 500
END_AT_ONCE: Final = 5_000
SKEW_MS: Final = 10_000
"""So far the clocks of machines may be apart; a time that lies farther ahead was taken while a clock was wrong."""
IN_A_ROW_MS: Final = 172_800_000
"""Failures of an endpoint that lie farther apart are not in a row: retries come within two days."""
_COLUMNS: Final = (
    "id",
    "webhook_id",
    "workspace_id",
    "seq",
    "event_id",
    "type",
    "object_id",
    "previous_seq",
    "state",
    "attempts",
    "base",
    "next_at",
    "created_at",
    "finished_at",
    "last_status",
    "last_error",
    "replay_id",
)
_ATTEMPT: Final = (
    "delivery_id",
    "number",
    "workspace_id",
    "at",
    "duration_ms",
    "address",
    "request_headers",
    "status",
    "response_headers",
    "response_body",
    "error",
    "detail",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM deliveries"
_BEHIND: Final = (
    "FROM log_heads h LEFT JOIN cursors c ON c.reader = ? AND c.workspace_id = h.workspace_id"
    " WHERE h.seq > COALESCE(c.seq, 0) AND EXISTS (SELECT 1 FROM webhooks w WHERE w.workspace_id = h.workspace_id"
    " AND (w.enabled = 1 OR w.until > COALESCE(c.seq, 0)))"
)
T = TypeVar("T")


class Delivery(NamedTuple):
    """One event for one webhook. Times are epoch ms. Of the `attempts`, `base` were made before it was last queued."""

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
    base: int
    next_at: int | None
    created_at: int
    finished_at: int | None
    last_status: int | None
    last_error: str | None
    replay_id: str | None

    @classmethod
    def queued(
        cls,
        *,
        webhook_id: str,
        workspace_id: str,
        seq: int,
        event_id: str,
        type: str,
        object_id: str,
        previous_seq: int | None,
        now: int,
        replay_id: str | None = None,
    ) -> Self:
        """Return a new delivery that is due at once and was never tried; `now` is epoch ms."""
        return cls(
            id=ids.new("dlv"),
            webhook_id=webhook_id,
            workspace_id=workspace_id,
            seq=seq,
            event_id=event_id,
            type=type,
            object_id=object_id,
            previous_seq=previous_seq,
            state=PENDING,
            attempts=0,
            base=0,
            next_at=now,
            created_at=now,
            finished_at=None,
            last_status=None,
            last_error=None,
            replay_id=replay_id,
        )

    def failed(self, now: int) -> Self:
        """Return this delivery as one that is over without success, since `now` (epoch ms)."""
        return self._replace(state=FAILED, next_at=None, finished_at=now)


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


def lock(tx: Tx, webhooks: Iterable[str]) -> None:
    """Make units that change deliveries of the same webhooks wait for each other on PostgreSQL.

    Otherwise one could put a delivery behind another that a second one ends just then, so that it would wait for ever.
    """
    if tx.locks_rows:
        for name in sorted(set(webhooks)):
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            tx.one("SELECT pg_advisory_xact_lock(?)", (int.from_bytes(digest, signed=True),))


# ---- making ----------------------------------------------------------------------------------------------------------


def add(tx: Tx, fresh: Sequence[Delivery]) -> None:
    """Add deliveries of one webhook in the order of their events; those that exist already stay as they are."""
    if not fresh:
        return
    lock(tx, [fresh[0].webhook_id])
    waiting = _pending_objects(tx, fresh[0].webhook_id, {delivery.object_id for delivery in fresh})
    rows: list[Sequence[Any]] = []
    for delivery in fresh:
        first = delivery.state != PENDING or delivery.object_id not in waiting
        if delivery.state == PENDING:
            waiting.add(delivery.object_id)
        rows.append(delivery if first else delivery._replace(next_at=None))
    tx.many(
        f"INSERT INTO deliveries ({', '.join(_COLUMNS)}) VALUES ({_marks(len(_COLUMNS))}) ON CONFLICT DO NOTHING", rows
    )


def _pending_objects(tx: Tx, webhook_id: str, objects: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for part in _parts(sorted(objects)):
        sql = (
            f"SELECT DISTINCT object_id FROM deliveries WHERE webhook_id = ? AND state = '{PENDING}'"
            f" AND object_id IN ({_marks(len(part))})"
        )
        found |= {row[0] for row in tx.all(sql, (webhook_id, *part))}
    return found


def queue_again(tx: Tx, again: Sequence[Delivery], at: int, replay_id: str | None = None) -> None:
    """Send deliveries of one webhook once more, in the order of their events; their schedule begins anew.

    Later events about the same object wait for them, even those that have been tried.
    """
    lock(tx, {delivery.webhook_id for delivery in again})
    tx.many(
        f"UPDATE deliveries SET state = '{PENDING}', base = attempts, next_at = NULL, finished_at = NULL,"
        " replay_id = ? WHERE id = ?",
        [(replay_id, delivery.id) for delivery in again],
    )
    pairs = [*dict.fromkeys((delivery.webhook_id, delivery.object_id) for delivery in again)]
    tx.many(
        f"UPDATE deliveries SET next_at = NULL WHERE webhook_id = ? AND object_id = ? AND state = '{PENDING}'"
        " AND next_at IS NOT NULL",
        pairs,
    )
    _release_next(tx, pairs, at)


def _release_next(tx: Tx, pairs: Iterable[tuple[str, str]], at: int) -> None:
    """The first pending event about each object (webhook, object) may be sent, from a time on."""
    tx.many(
        "UPDATE deliveries SET next_at = ? WHERE n = (SELECT n FROM deliveries WHERE webhook_id = ? AND object_id = ?"
        f" AND state = '{PENDING}' ORDER BY seq, n LIMIT 1) AND next_at IS NULL",
        [(at, *pair) for pair in pairs],
    )


def behind(tx: Tx, reader: str, limit: int = 100) -> list[tuple[str, int]]:
    """The workspaces whose log goes on beyond a reader's position, if a webhook is to be told; with that position."""
    found = tx.all(
        f"SELECT h.workspace_id, COALESCE(c.seq, 0) {_BEHIND} ORDER BY h.workspace_id LIMIT ?",
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


def due_times(tx: Tx) -> dict[str, int]:
    """The webhooks that have something to send, each with the time (epoch ms) at which the next of it is due.

    It costs a look into the index for each of them, however much is waiting.
    """
    rows = tx.all(
        "WITH RECURSIVE busy (id) AS (SELECT MIN(webhook_id) FROM deliveries WHERE next_at IS NOT NULL UNION ALL"
        " SELECT (SELECT MIN(d.webhook_id) FROM deliveries d WHERE d.next_at IS NOT NULL AND d.webhook_id > busy.id)"
        " FROM busy WHERE busy.id IS NOT NULL)"
        " SELECT id, (SELECT MIN(d.next_at) FROM deliveries d WHERE d.webhook_id = busy.id AND d.next_at IS NOT NULL)"
        " FROM busy WHERE id IS NOT NULL"
    )
    return {name: int(at) for name, at in rows if at is not None}


def due(tx: Tx, webhook_id: str, workspace_id: str, now: int, limit: int) -> list[Delivery]:
    """The deliveries of a webhook whose attempt is due, those that have waited longest first."""
    rows = tx.all(
        f"{_SELECT} WHERE webhook_id = ? AND workspace_id = ? AND next_at IS NOT NULL AND next_at <= ?"
        " ORDER BY next_at, seq LIMIT ?",
        (webhook_id, workspace_id, now, limit),
    )
    return [Delivery(*row) for row in rows]


def correct_times(tx: Tx, now: int) -> int:
    """Bring nearer what waits by the time of a clock that was ahead; returns how many deliveries that were.

    A retry waits as long from now on as it was to wait from its last attempt; what was never tried is due.
    """
    rows = tx.all(
        "SELECT d.id, d.next_at, (SELECT a.at FROM attempts a WHERE a.delivery_id = d.id AND a.number = d.attempts)"
        " FROM deliveries d WHERE d.next_at > ? AND (d.attempts = d.base OR EXISTS (SELECT 1 FROM attempts a"
        " WHERE a.delivery_id = d.id AND a.number = d.attempts AND a.at > ?))",
        (now + SKEW_MS, now + SKEW_MS),
    )
    corrected = [
        (now + (next_at - at if at is not None and at > now + SKEW_MS else 0), name, next_at)
        for name, next_at, at in rows
    ]
    tx.many("UPDATE deliveries SET next_at = ? WHERE id = ? AND next_at = ?", corrected)
    return len(corrected)


def ready(tx: Tx, delivery_id: str) -> Delivery | None:
    """A delivery as it is now, if it is still to be sent: meanwhile it may be over, or wait behind another."""
    row = tx.one(f"{_SELECT} WHERE id = ? AND state = '{PENDING}' AND next_at IS NOT NULL", (delivery_id,))
    return Delivery(*row) if row else None


def record(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    """Keep attempts and what they lead to; what is over lets the next event about the same object go."""
    lock(tx, {outcome.delivery.webhook_id for outcome in outcomes})
    tx.many(
        f"INSERT INTO attempts ({', '.join(_ATTEMPT)}) VALUES ({_marks(len(_ATTEMPT))}) ON CONFLICT DO NOTHING",
        [outcome.attempt for outcome in outcomes],
    )
    over = [outcome for outcome in outcomes if outcome.next_at is None]
    tx.many(
        "UPDATE deliveries SET state = ?, attempts = ?, next_at = NULL, finished_at = ?, last_status = ?,"
        " last_error = ? WHERE id = ?",
        [
            (state, attempt.number, attempt.at, attempt.status, attempt.error, delivery.id)
            for delivery, attempt, state, _ in over
        ],
    )
    pairs = [(delivery.webhook_id, delivery.object_id) for delivery, *_ in over]
    _release_next(tx, pairs, max((outcome.attempt.at for outcome in over), default=0))
    # What is tried again waits if somebody has put an earlier event about the object before it meanwhile.
    tx.many(
        "UPDATE deliveries SET attempts = ?, last_status = ?, last_error = ?, next_at = CASE WHEN EXISTS (SELECT 1"
        " FROM deliveries e WHERE e.webhook_id = deliveries.webhook_id AND e.object_id = deliveries.object_id"
        f" AND e.state = '{PENDING}' AND e.seq < deliveries.seq) THEN NULL ELSE ? END"
        f" WHERE id = ? AND state = '{PENDING}'",
        [
            (attempt.number, attempt.status, attempt.error, next_at, delivery.id)
            for delivery, attempt, _, next_at in outcomes
            if next_at is not None
        ],
    )


def note_success(tx: Tx, webhook_id: str, workspace_id: str, at: int) -> None:
    """The endpoint has taken something."""
    tx.run(
        "INSERT INTO webhook_states (webhook_id, workspace_id, last_success_at) VALUES (?, ?, ?) ON CONFLICT"
        " (webhook_id) DO UPDATE SET last_success_at = excluded.last_success_at, failing_since = NULL,"
        " paused_until = NULL",
        (webhook_id, workspace_id, at),
    )


def note_failure(tx: Tx, webhook_id: str, workspace_id: str, at: int, paused_until: int | None) -> int:
    """The endpoint has taken nothing; since when that is so. `paused_until`: it is left alone until then.

    A failure long after the one before, or before it, starts a new row of failures: nobody was
    sending, or the clock was wrong.
    """
    row = tx.one(
        "INSERT INTO webhook_states (webhook_id, workspace_id, last_failure_at, failing_since, paused_until)"
        " VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (webhook_id) DO UPDATE SET last_failure_at = excluded.last_failure_at, failing_since ="
        " CASE WHEN webhook_states.last_failure_at BETWEEN excluded.last_failure_at - ?"
        " AND excluded.last_failure_at + ? AND webhook_states.failing_since <= excluded.last_failure_at"
        " THEN webhook_states.failing_since ELSE excluded.failing_since END, paused_until = excluded.paused_until"
        " RETURNING failing_since",
        (webhook_id, workspace_id, at, at, paused_until, IN_A_ROW_MS, SKEW_MS),
    )
    return int(row[0]) if row else at


# ---- looking ---------------------------------------------------------------------------------------------------------


class Filter(NamedTuple):
    """Which deliveries of a webhook are wanted: all those that have one of the values, where there are any."""

    states: Sequence[str] = ()
    types: Sequence[str] = ()
    objects: Sequence[str] = ()
    events: Sequence[str] = ()
    replays: Sequence[str] = ()
    after: int | None = None
    before: int | None = None


def find(tx: Tx, webhook_id: str, workspace_id: str, name: str) -> Delivery | None:
    """One delivery of a webhook of a workspace, by its id or that of its event."""
    mine, params = "webhook_id = ? AND workspace_id = ?", (webhook_id, workspace_id)
    row = tx.one(f"{_SELECT} WHERE {mine} AND id = ?", (*params, name))
    row = row or tx.one(
        f"{_SELECT} WHERE {mine} AND event_id = ? AND seq = (SELECT seq FROM events WHERE id = ?)",
        (*params, name, name),
    )
    return Delivery(*row) if row else None


def newest(
    tx: Tx, webhook_id: str, workspace_id: str, wanted: Filter, cursor: str | None, limit: int
) -> list[Delivery]:
    """A webhook's deliveries, newest event first; `cursor` is the id of the one to go on behind."""
    conditions, params = ["webhook_id = ?", "workspace_id = ?"], [webhook_id, workspace_id]
    columns = ("state", "type", "object_id", "event_id", "replay_id")
    for column, values in zip(columns, wanted[:5], strict=True):
        if values:
            conditions.append(f"{column} IN ({_marks(len(values))})")
            params += values
    more: list[Any] = [*params]
    for sign, time in ((">=", wanted.after), ("<", wanted.before)):
        if time is not None:
            conditions.append(f"created_at {sign} ?")
            more.append(time)
    if cursor is not None:
        conditions.append("(seq, event_id) < (SELECT c.seq, c.event_id FROM deliveries c WHERE c.id = ?)")
        more.append(cursor)
    rows = tx.all(
        f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY seq DESC, event_id DESC LIMIT ?", (*more, limit)
    )
    return [Delivery(*row) for row in rows]


def between(
    tx: Tx,
    webhook_id: str,
    workspace_id: str,
    after_seq: int,
    to_seq: int,
    limit: int,
    *,
    state: str = "",
    since: int = 0,
) -> list[Delivery]:
    """Deliveries of events in a range (after_seq, to_seq], in the order of these."""
    condition = "" if not state else f" AND state = '{state}'"
    rows = tx.all(
        f"{_SELECT} WHERE webhook_id = ? AND workspace_id = ? AND seq > ? AND seq <= ?{condition}"
        " AND created_at >= ? ORDER BY seq LIMIT ?",
        (webhook_id, workspace_id, after_seq, to_seq, since, limit),
    )
    return [Delivery(*row) for row in rows]


def attempts_of(tx: Tx, delivery_id: str) -> list[Attempt]:
    """All attempts of a delivery, in order."""
    rows = tx.all(f"SELECT {', '.join(_ATTEMPT)} FROM attempts WHERE delivery_id = ? ORDER BY number", (delivery_id,))
    return [Attempt(*row) for row in rows]


class State(NamedTuple):
    """How an endpoint is doing. Times are epoch ms."""

    pending: int
    oldest_pending_at: int | None
    last_success_at: int | None
    last_failure_at: int | None
    failing_since: int | None
    paused_until: int | None


def state_of(tx: Tx, webhook_id: str, workspace_id: str) -> State:
    """How the endpoint of a webhook is doing."""
    count = tx.one(
        "SELECT COUNT(*), MIN(created_at) FROM deliveries"
        f" WHERE webhook_id = ? AND workspace_id = ? AND state = '{PENDING}'",
        (webhook_id, workspace_id),
    )
    row = tx.one(
        "SELECT last_success_at, last_failure_at, failing_since, paused_until FROM webhook_states"
        " WHERE webhook_id = ? AND workspace_id = ?",
        (webhook_id, workspace_id),
    )
    return State(*(count or (0, None)), *(row or (None, None, None, None)))


def lag(tx: Tx, reader: str) -> int:
    """How many events the reader that makes deliveries has yet to look at."""
    row = tx.one(f"SELECT COALESCE(SUM(h.seq - COALESCE(c.seq, 0)), 0) {_BEHIND}", (reader,))
    return int(row[0]) if row else 0


def backlog(tx: Tx) -> tuple[int, int | None]:
    """How many deliveries to enabled webhooks are pending, and when the oldest of them was made (epoch ms)."""
    row = tx.one(
        f"SELECT COUNT(*), MIN(created_at) FROM deliveries WHERE state = '{PENDING}' AND webhook_id IN"
        " (SELECT id FROM webhooks WHERE enabled = 1)"
    )
    return (int(row[0]), row[1]) if row else (0, None)


# ---- forgetting ------------------------------------------------------------------------------------------------------


def forget(tx: Tx, before: int, limit: int) -> int:
    """Remove deliveries that were over before a time, with their attempts; returns how many."""
    found = tx.all("SELECT id FROM deliveries WHERE finished_at < ? ORDER BY finished_at LIMIT ?", (before, limit))
    tx.many("DELETE FROM attempts WHERE delivery_id = ?", found)
    tx.many("DELETE FROM deliveries WHERE id = ?", found)
    return len(found)


def has_pending(tx: Tx, webhook_id: str) -> bool:
    """Whether a webhook has deliveries that are not over."""
    return (
        tx.one(f"SELECT 1 FROM deliveries WHERE webhook_id = ? AND state = '{PENDING}' LIMIT 1", (webhook_id,))
        is not None
    )


def end(tx: Tx, webhook_id: str, at: int) -> None:
    """Cancel what is pending for a webhook that is deleted in this unit, and forget how its endpoint was doing.

    At most `END_AT_ONCE` deliveries, so that the unit stays short; `cancel_orphans` does the rest, and none is sent.
    """
    lock(tx, [webhook_id])
    tx.run(
        f"UPDATE deliveries SET state = '{CANCELLED}', next_at = NULL, finished_at = ? WHERE n IN (SELECT n FROM"
        f" deliveries WHERE webhook_id = ? AND state = '{PENDING}' LIMIT {END_AT_ONCE})",
        (at, webhook_id),
    )
    tx.run("DELETE FROM webhook_states WHERE webhook_id = ?", (webhook_id,))


def cancel_orphans(tx: Tx, at: int, limit: int) -> int:
    """End what is pending for webhooks that have been deleted; returns how many."""
    found = tx.all(
        f"SELECT id, webhook_id, object_id FROM deliveries d WHERE state = '{PENDING}' AND NOT EXISTS"
        " (SELECT 1 FROM webhooks w WHERE w.id = d.webhook_id) LIMIT ?",
        (limit,),
    )
    return cancel(tx, found, at)


def cancel(tx: Tx, found: Sequence[Sequence[Any]], at: int) -> int:
    """End pending deliveries, given as (id, webhook, object); what waits behind them may go. Returns how many."""
    lock(tx, {str(row[1]) for row in found})
    tx.many(
        f"UPDATE deliveries SET state = '{CANCELLED}', next_at = NULL, finished_at = ? WHERE id = ?",
        [(at, row[0]) for row in found],
    )
    _release_next(tx, dict.fromkeys((str(row[1]), str(row[2])) for row in found), at)
    return len(found)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), MANY):
        yield values[start : start + MANY]
