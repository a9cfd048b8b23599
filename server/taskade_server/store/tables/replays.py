"""Replays: sending again what a webhook has missed, as work that survives a restart, can be watched and broken off.

Why a little at a time: a replay of a hundred thousand events must not stand before what happens now, so its next
deliveries are queued only as those before them are taken.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

from taskade_server.kit import ids
from taskade_server.store.interface import Tx
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import PENDING

RUNNING: Final = "running"
DONE: Final = "done"
CANCELLED: Final = "cancelled"
STATES: Final = (RUNNING, DONE, CANCELLED)
RECOVER: Final = "recover"
REPLAY: Final = "replay"
_COLUMNS: Final = (
    "id",
    "webhook_id",
    "workspace_id",
    "kind",
    "state",
    "from_seq",
    "to_seq",
    "position",
    "patterns",
    "missing_only",
    "since",
    "queued",
    "created_by",
    "created_at",
    "finished_at",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM webhook_replays"


class Replay(NamedTuple):
    """One replay of the events behind `from_seq` up to `to_seq`. Times are epoch ms; `patterns` is a JSON text."""

    id: str
    webhook_id: str
    workspace_id: str
    kind: str
    state: str
    from_seq: int
    to_seq: int
    position: int
    patterns: str
    missing_only: int
    since: int | None
    queued: int
    created_by: str | None
    created_at: int
    finished_at: int | None

    @classmethod
    def begun(
        cls,
        *,
        webhook_id: str,
        workspace_id: str,
        kind: str,
        from_seq: int,
        to_seq: int,
        patterns: str,
        missing_only: bool,
        since: int | None,
        created_by: str | None,
        now: int,
    ) -> Self:
        """Return a new replay that has looked at no event yet; `now` is epoch ms."""
        return cls(
            id=ids.new("rpl"),
            webhook_id=webhook_id,
            workspace_id=workspace_id,
            kind=kind,
            state=RUNNING,
            from_seq=from_seq,
            to_seq=to_seq,
            position=from_seq,
            patterns=patterns,
            missing_only=int(missing_only),
            since=since,
            queued=0,
            created_by=created_by,
            created_at=now,
            finished_at=None,
        )


def begin(tx: Tx, replay: Replay) -> None:
    """Write down what is to be done."""
    tx.run(f"INSERT INTO webhook_replays ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", replay)


def running(tx: Tx) -> list[Replay]:
    """Return the replays that are under way, without those of webhooks that are not enabled, which wait."""
    enabled = "webhook_id IN (SELECT id FROM webhooks WHERE enabled = 1)"
    return [Replay(*row) for row in tx.all(f"{_SELECT} WHERE state = '{RUNNING}' AND {enabled} ORDER BY id")]


def running_of(tx: Tx, webhook_id: str, workspace_id: str) -> Replay | None:
    """The one that a webhook has under way."""
    row = tx.one(
        f"{_SELECT} WHERE webhook_id = ? AND workspace_id = ? AND state = '{RUNNING}' LIMIT 1",
        (webhook_id, workspace_id),
    )
    return Replay(*row) if row else None


def find(tx: Tx, webhook_id: str, workspace_id: str, replay_id: str) -> Replay | None:
    """One replay of a webhook of a workspace."""
    row = tx.one(
        f"{_SELECT} WHERE webhook_id = ? AND workspace_id = ? AND id = ?", (webhook_id, workspace_id, replay_id)
    )
    return Replay(*row) if row else None


def newest(tx: Tx, webhook_id: str, workspace_id: str, limit: int) -> list[Replay]:
    """The replays of a webhook of a workspace, newest first."""
    rows = tx.all(
        f"{_SELECT} WHERE webhook_id = ? AND workspace_id = ? ORDER BY created_at DESC, id DESC LIMIT ?",
        (webhook_id, workspace_id, limit),
    )
    return [Replay(*row) for row in rows]


def advance(tx: Tx, replay: Replay, position: int, queued: int, at: int) -> None:
    """Note that `queued` more deliveries are queued and all events up to `position` were looked at."""
    done = position >= replay.to_seq
    tx.run(
        "UPDATE webhook_replays SET position = ?, queued = queued + ?, state = ?, finished_at = ? WHERE id = ?"
        f" AND state = '{RUNNING}'",
        (position, queued, DONE if done else RUNNING, at if done else None, replay.id),
    )


def counts(tx: Tx, replay_id: str) -> dict[str, int]:
    """How many of its deliveries are in each state."""
    found = tx.all("SELECT state, COUNT(*) FROM deliveries WHERE replay_id = ? GROUP BY state", (replay_id,))
    return {state: int(count) for state, count in found}


def pending(tx: Tx, replay_id: str, limit: int) -> int:
    """How many of its deliveries are not yet taken, counted up to a limit."""
    row = tx.one(
        f"SELECT COUNT(*) FROM (SELECT 1 FROM deliveries WHERE replay_id = ? AND state = '{PENDING}' LIMIT ?) AS few",
        (replay_id, limit),
    )
    return int(row[0]) if row else 0


def cancel(tx: Tx, replay: Replay, at: int) -> None:
    """Break it off, and with it what it has queued and nobody has taken yet."""
    tx.run(
        f"UPDATE webhook_replays SET state = '{CANCELLED}', finished_at = ? WHERE id = ? AND state = '{RUNNING}'",
        (at, replay.id),
    )
    found: Sequence[Sequence[Any]] = tx.all(
        f"SELECT id, webhook_id, object_id FROM deliveries WHERE replay_id = ? AND state = '{PENDING}'", (replay.id,)
    )
    deliveries.cancel(tx, found, at)


def forget(tx: Tx, before: int, limit: int) -> int:
    """Remove those that were over before a time; returns how many."""
    return tx.run(
        "DELETE FROM webhook_replays WHERE id IN (SELECT id FROM webhook_replays WHERE finished_at < ? LIMIT ?)",
        (before, limit),
    )
