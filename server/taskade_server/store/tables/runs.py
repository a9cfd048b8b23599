"""Runs of automations: what started each, how far it has come, and the steps that it took.

Why the order is in the rows: of all runs in one lane (those of which only one goes on at a time) only the first has a
time to wake at, so whoever carries out what is due keeps their order, and never waits for another lane.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from taskade_server.kit import json
from taskade_server.store.interface import Tx

QUEUED: Final = "queued"
WAITING: Final = "waiting"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
SUPERSEDED: Final = "superseded"
DROPPED: Final = "dropped"
SKIPPED: Final = "skipped"
OPEN: Final = (QUEUED, WAITING)
STATES: Final = (*OPEN, SUCCEEDED, FAILED, CANCELLED, SUPERSEDED, DROPPED, SKIPPED)

RETRIABLE: Final = (FAILED, CANCELLED)
KEPT_MEMORY: Final = 16_384
"""Characters of what a run knew, as JSON, that are kept for running it again."""

SHARDS: Final = 4
"""Into how many shares the runs are divided, each carried out by one process at a time."""


class Run(NamedTuple):
    """One run. Times are epoch ms; `memory` and `chain` are JSON texts.

    `position` is the number of the instruction with which it goes on, `wake_at` when:
    None while another run of the lane comes first, and when it is over. `attempts` are those at the present step.
    `chain` are the automations whose runs led to it, the first one first.
    """

    id: str
    workspace_id: str
    automation_id: str
    version: int
    cause: str
    event_seq: int | None
    event_id: str | None
    object_id: str | None
    project_id: str | None
    lane: str
    shard: int
    state: str
    reason: str | None
    detail: str | None
    position: int
    memory: str
    chain: str
    request_id: str
    steps: int
    attempts: int
    wake_at: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class Step(NamedTuple):
    """What a run did at one action; `detail` is a JSON text. `action` is its JSON Pointer in the definition."""

    run_id: str
    number: int
    workspace_id: str
    action: str
    kind: str
    state: str
    at: int
    duration_ms: float
    first_seq: int | None
    last_seq: int | None
    error: str | None
    detail: str


_RUN: Final = Run._fields
_STEP: Final = Step._fields
_SELECT: Final = f"SELECT {', '.join(_RUN)} FROM automation_runs"
_BEHIND: Final = (
    "FROM log_heads h LEFT JOIN cursors c ON c.reader = ? AND c.workspace_id = h.workspace_id"
    " WHERE h.seq > COALESCE(c.seq, 0) AND EXISTS (SELECT 1 FROM automation_versions v"
    " WHERE v.workspace_id = h.workspace_id AND v.reads_log = 1"
    " AND (v.until IS NULL OR v.until > COALESCE(c.seq, 0)))"
)
_UNFINISHED: Final = "finished_at IS NULL"


def shard_of(lane: str) -> int:
    """Which share of the runs a lane belongs to."""
    return int.from_bytes(hashlib.blake2b(lane.encode(), digest_size=4).digest()) % SHARDS


def lock(tx: Tx, lanes: Iterable[str]) -> None:
    """Make units that add to the same lanes, or end runs in them, wait for each other on PostgreSQL.

    Otherwise a run could be put behind one that a second unit ends just then, and would never wake.
    """
    if tx.locks_rows:
        for lane in sorted(set(lanes)):
            digest = hashlib.blake2b(f"run {lane}".encode(), digest_size=8).digest()
            tx.one("SELECT pg_advisory_xact_lock(?)", (int.from_bytes(digest, signed=True),))


def marks(count: int) -> str:
    return ", ".join("?" * count)


# ---- making ----------------------------------------------------------------------------------------------------------


def add(tx: Tx, fresh: Sequence[Run]) -> None:
    """Write new runs; one whose cause has started a run of the automation before is left out."""
    if fresh:
        sql = f"INSERT INTO automation_runs ({', '.join(_RUN)}) VALUES ({marks(len(_RUN))}) ON CONFLICT DO NOTHING"
        tx.many(sql, fresh)


def has_cause(tx: Tx, automation_id: str, cause: str) -> bool:
    """Whether a cause has started a run of an automation, or was put on record."""
    sql = "SELECT 1 FROM automation_runs WHERE automation_id = ? AND cause = ?"
    return tx.one(sql, (automation_id, cause)) is not None


def open_in_lane(tx: Tx, lane: str) -> list[Run]:
    """The runs of a lane that are not over, in the order in which they go on."""
    return [Run(*row) for row in tx.all(f"{_SELECT} WHERE lane = ? AND {_UNFINISHED} ORDER BY n", (lane,))]


def started_since(tx: Tx, automation_id: str, since: int, limit: int, object_id: str | None = None) -> int:
    """How many runs of an automation were started since a time, about one object if it is named; `limit` at most.

    Those that were skipped were never started.
    """
    about, params = ("", []) if object_id is None else (" AND object_id = ?", [object_id])
    row = tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM automation_runs WHERE automation_id = ? AND created_at >= ?"
        f"{about} AND state <> '{SKIPPED}' LIMIT {int(limit)}) AS started",
        (automation_id, since, *params),
    )
    return int(row[0]) if row else 0


# ---- going on --------------------------------------------------------------------------------------------------------


def due(tx: Tx, shard: int, now: int, limit: int) -> list[tuple[str, int]]:
    """The ids of runs of a share that go on now, with when they should have; the longest due first."""
    sql = (
        "SELECT id, wake_at FROM automation_runs WHERE shard = ? AND wake_at IS NOT NULL AND wake_at <= ?"
        f" ORDER BY wake_at, n LIMIT {int(limit)}"
    )
    return [(row[0], row[1]) for row in tx.all(sql, (shard, now))]


def next_due(tx: Tx, shard: int) -> int | None:
    """When the next run of a share goes on; None if none does."""
    row = tx.one("SELECT min(wake_at) FROM automation_runs WHERE shard = ? AND wake_at IS NOT NULL", (shard,))
    return None if row is None else row[0]


def find(tx: Tx, run_id: str, *, lock: bool = False) -> Run | None:
    """One run by its id; None if it is not on record."""
    row = tx.one(f"{_SELECT} WHERE id = ?{tx.for_update if lock else ''}", (run_id,))
    return None if row is None else Run(*row)


def go_on(tx: Tx, run: Run) -> None:
    """Write how far a run has come."""
    tx.run(
        "UPDATE automation_runs SET state = ?, reason = ?, detail = ?, position = ?, memory = ?, steps = ?,"
        " attempts = ?, wake_at = ?, started_at = ?, finished_at = ? WHERE id = ?",
        (
            run.state,
            run.reason,
            run.detail,
            run.position,
            run.memory,
            run.steps,
            run.attempts,
            run.wake_at,
            run.started_at,
            run.finished_at,
            run.id,
        ),
    )


def end(tx: Tx, run: Run, state: str, now: int, reason: str | None = None, detail: str | None = None) -> Run:
    """End a run, and let the next one of its lane go on."""
    lock(tx, [run.lane])
    over = run._replace(
        state=state,
        reason=reason,
        detail=detail,
        wake_at=None,
        finished_at=now,
        memory=kept_memory(run.memory, state),
        started_at=run.started_at or now,
    )
    go_on(tx, over)
    wake_next(tx, run.lane, now)
    return over


def kept_memory(memory: str, state: str) -> str:
    """What a run keeps of its memory once it is over: what running it again needs, of one that may be run again.

    Of a memory that is too large only its beginning, the input, is kept, with the mark `forgotten`.
    """
    if state not in RETRIABLE:
        return "{}"
    if len(memory) <= KEPT_MEMORY:
        return memory
    given = json.decode(memory).get("input")
    return json.encode({"forgotten": True, **({"input": given} if given else {})})


def wake_next(tx: Tx, lane: str, now: int) -> None:
    """Let the first run of a lane go on, if it is not waiting for something else."""
    tx.run(
        "UPDATE automation_runs SET wake_at = ? WHERE n = (SELECT min(n) FROM automation_runs WHERE lane = ?"
        f" AND {_UNFINISHED}) AND wake_at IS NULL AND state = '{QUEUED}'",
        (now, lane),
    )


def wake(tx: Tx, run_id: str, now: int) -> None:
    """Let a run that waits look again at what it waits for."""
    tx.run(f"UPDATE automation_runs SET wake_at = ? WHERE id = ? AND {_UNFINISHED}", (now, run_id))


def open_of(tx: Tx, automation_id: str, limit: int) -> list[Run]:
    """The runs of an automation that are not over, oldest first."""
    sql = f"{_SELECT} WHERE automation_id = ? AND {_UNFINISHED} ORDER BY n LIMIT {int(limit)}"
    return [Run(*row) for row in tx.all(sql, (automation_id,))]


def waiting_about(tx: Tx, objects: Sequence[str]) -> list[tuple[str, str]]:
    """The ids of waiting runs about some objects, each with the object."""
    if not objects:
        return []
    among = marks(len(objects))
    sql = f"SELECT id, object_id FROM automation_runs WHERE object_id IN ({among}) AND state = '{WAITING}'"
    return [(row[0], row[1]) for row in tx.all(sql, objects)]


# ---- steps -----------------------------------------------------------------------------------------------------------


def add_steps(tx: Tx, steps: Sequence[Step]) -> None:
    """Write what a run has done."""
    if steps:
        sql = f"INSERT INTO automation_steps ({', '.join(_STEP)}) VALUES ({marks(len(_STEP))}) ON CONFLICT DO NOTHING"
        tx.many(sql, steps)


def steps_of(tx: Tx, run_id: str) -> list[Step]:
    """What a run has done, in order."""
    sql = f"SELECT {', '.join(_STEP)} FROM automation_steps WHERE run_id = ? ORDER BY number"
    return [Step(*row) for row in tx.all(sql, (run_id,))]


# ---- reading ---------------------------------------------------------------------------------------------------------


class Filter(NamedTuple):
    """Which runs are wanted; what is empty or None is not asked for. Times are epoch ms."""

    states: Sequence[str] = ()
    objects: Sequence[str] = ()
    events: Sequence[str] = ()
    after: int | None = None
    before: int | None = None


def newest(tx: Tx, automation_id: str, wanted: Filter, cursor: str | None, limit: int) -> list[Run]:
    """The wanted runs of an automation, newest first, behind the one whose id is `cursor`."""
    where, params = ["automation_id = ?"], list[Any]([automation_id])
    for column, values in (("state", wanted.states), ("object_id", wanted.objects), ("event_id", wanted.events)):
        if values:
            where.append(f"{column} IN ({marks(len(values))})")
            params += values
    for operator, value in ((">=", wanted.after), ("<", wanted.before)):
        if value is not None:
            where.append(f"created_at {operator} ?")
            params.append(value)
    if cursor is not None:
        where.append("n < (SELECT n FROM automation_runs WHERE id = ?)")
        params.append(cursor)
    sql = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY n DESC LIMIT {int(limit)}"
    return [Run(*row) for row in tx.all(sql, params)]


def since(tx: Tx, automation_id: str, at: int, limit: int) -> list[Run]:
    """The runs of an automation that were started since a time (epoch ms), oldest first."""
    sql = f"{_SELECT} WHERE automation_id = ? AND created_at >= ? ORDER BY n LIMIT {int(limit)}"
    return [Run(*row) for row in tx.all(sql, (automation_id, at))]


def at_work_since(tx: Tx, automation_id: str, at: int, limit: int) -> list[Run]:
    """The runs of an automation that may have changed something since a time (epoch ms), oldest first."""
    sql = (
        f"{_SELECT} WHERE automation_id = ? AND (finished_at IS NULL OR finished_at >= ?) AND started_at IS NOT NULL"
        f" ORDER BY n LIMIT {int(limit)}"
    )
    return [Run(*row) for row in tx.all(sql, (automation_id, at))]


def retries_of(tx: Tx, automation_id: str, run_id: str) -> int:
    """How often a run was run again."""
    sql = "SELECT count(*) FROM automation_runs WHERE automation_id = ? AND cause LIKE ?"
    row = tx.one(sql, (automation_id, f"retry:{run_id}:%"))
    return int(row[0]) if row else 0


def counts(tx: Tx, automation_id: str) -> dict[str, int]:
    """How many runs of an automation are on record, by state."""
    sql = "SELECT state, count(*) FROM automation_runs WHERE automation_id = ? GROUP BY state"
    return {row[0]: row[1] for row in tx.all(sql, (automation_id,))}


def open_counts(tx: Tx) -> dict[str, int]:
    """How many runs of all automations are not over, by state."""
    found = tx.all(f"SELECT state, count(*) FROM automation_runs WHERE {_UNFINISHED} GROUP BY state")
    return {**dict.fromkeys(OPEN, 0), **{row[0]: row[1] for row in found}}


def backlog(tx: Tx, now: int) -> tuple[int, int | None]:
    """How many runs could go on now (epoch ms) and have not yet, and since when the first of them could."""
    row = tx.one(
        "SELECT count(*), min(wake_at) FROM automation_runs WHERE wake_at IS NOT NULL AND wake_at <= ?", (now,)
    )
    return (int(row[0]), row[1]) if row else (0, None)


def lag(tx: Tx, reader: str) -> int:
    """How many events it was not yet decided of whether they start runs."""
    row = tx.one(f"SELECT COALESCE(SUM(h.seq - COALESCE(c.seq, 0)), 0) {_BEHIND}", (reader,))
    return int(row[0]) if row else 0


# ---- forgetting ------------------------------------------------------------------------------------------------------


def forget(tx: Tx, before: int, failed_before: int, limit: int) -> int:
    """Remove runs that were over before a time, and failed ones before another (epoch ms); returns how many."""
    found = tx.all(
        "SELECT id FROM automation_runs WHERE finished_at IS NOT NULL AND finished_at < ?"
        f" AND (state <> '{FAILED}' OR finished_at < ?) ORDER BY finished_at LIMIT {int(limit)}",
        (before, failed_before),
    )
    tx.many("DELETE FROM automation_steps WHERE run_id = ?", found)
    tx.many("DELETE FROM automation_runs WHERE id = ?", found)
    return len(found)


def forget_versions(tx: Tx, limit: int) -> int:
    """Remove what automations said that are deleted and have no runs on record any more; returns how many versions."""
    found = tx.all(
        "SELECT automation_id, version FROM automation_versions v WHERE until IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM automations a WHERE a.id = v.automation_id)"
        " AND NOT EXISTS (SELECT 1 FROM automation_runs r WHERE r.automation_id = v.automation_id)"
        f" LIMIT {int(limit)}"
    )
    tx.many("DELETE FROM automation_versions WHERE automation_id = ? AND version = ?", found)
    return len(found)


# ---- versions and states ---------------------------------------------------------------------------------------------


class Version(NamedTuple):
    """What an automation said from behind the seq `since` up to `until`; `doc` is its JSON document of then."""

    automation_id: str
    version: int
    workspace_id: str
    reads_log: int
    since: int
    until: int | None
    doc: str


_VERSION: Final = Version._fields


def close_versions(tx: Tx, automation_id: str, until: int) -> None:
    """End the version of an automation that holds: it concerns no event behind `until`."""
    tx.run("UPDATE automation_versions SET until = ? WHERE automation_id = ? AND until IS NULL", (until, automation_id))


def add_version(tx: Tx, version: Version) -> None:
    """Write what an automation says from now on."""
    tx.run(f"INSERT INTO automation_versions ({', '.join(_VERSION)}) VALUES ({marks(len(_VERSION))})", version)


def versions_after(tx: Tx, workspace_id: str, position: int) -> list[Version]:
    """The versions of a workspace's automations that concern events behind a position of the log."""
    sql = (
        f"SELECT {', '.join(_VERSION)} FROM automation_versions WHERE workspace_id = ? AND reads_log = 1"
        " AND (until IS NULL OR until > ?) ORDER BY automation_id, version"
    )
    return [Version(*row) for row in tx.all(sql, (workspace_id, position))]


def version(tx: Tx, automation_id: str, number: int) -> Version | None:
    """One version of an automation."""
    sql = f"SELECT {', '.join(_VERSION)} FROM automation_versions WHERE automation_id = ? AND version = ?"
    row = tx.one(sql, (automation_id, number))
    return None if row is None else Version(*row)


def open_version(tx: Tx, automation_id: str) -> Version | None:
    """The version of an automation that holds; None if it is gone."""
    sql = f"SELECT {', '.join(_VERSION)} FROM automation_versions WHERE automation_id = ? AND until IS NULL"
    row = tx.one(sql, (automation_id,))
    return None if row is None else Version(*row)


def watching_versions(tx: Tx) -> list[Version]:
    """The versions of all automations that hold, and that events concern."""
    sql = f"SELECT {', '.join(_VERSION)} FROM automation_versions WHERE until IS NULL AND reads_log = 1"
    return [Version(*row) for row in tx.all(sql)]


def version_at(tx: Tx, automation_id: str, seq: int) -> Version | None:
    """The version of an automation that an event of this seq is matched with; None if none is."""
    sql = (
        f"SELECT {', '.join(_VERSION)} FROM automation_versions WHERE automation_id = ? AND reads_log = 1"
        " AND since < ? AND (until IS NULL OR until >= ?)"
    )
    row = tx.one(sql, (automation_id, seq, seq))
    return None if row is None else Version(*row)


def is_read(tx: Tx, workspace_id: str, position: int) -> bool:
    """Whether any automation of a workspace is concerned with events behind a position of the log."""
    sql = (
        "SELECT 1 FROM automation_versions WHERE workspace_id = ? AND reads_log = 1"
        " AND (until IS NULL OR until > ?) LIMIT 1"
    )
    return tx.one(sql, (workspace_id, position)) is not None


def behind(tx: Tx, reader: str, limit: int) -> list[tuple[str, int]]:
    """Workspaces whose log has events that no run was decided for yet, each with the reader's position."""
    sql = f"SELECT h.workspace_id, COALESCE(c.seq, 0) {_BEHIND} ORDER BY h.workspace_id LIMIT {int(limit)}"
    return [(row[0], row[1]) for row in tx.all(sql, (reader,))]


def note_end(tx: Tx, automation_id: str, workspace_id: str, now: int, *, failed: bool) -> int:
    """Note how a run ended; returns how many have failed in a row."""
    row = tx.one(
        "INSERT INTO automation_states (automation_id, workspace_id, failures, last_run_at, last_failure_at)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (automation_id) DO UPDATE SET last_run_at = excluded.last_run_at,"
        " failures = CASE WHEN excluded.failures = 0 THEN 0 ELSE automation_states.failures + 1 END,"
        " last_failure_at = COALESCE(excluded.last_failure_at, automation_states.last_failure_at) RETURNING failures",
        (automation_id, workspace_id, int(failed), now, now if failed else None),
    )
    return 0 if row is None else int(row[0])


def reset_failures(tx: Tx, automation_id: str) -> None:
    """Forget failures in a row: somebody has looked after the automation."""
    tx.run("UPDATE automation_states SET failures = 0 WHERE automation_id = ?", (automation_id,))


def state_of(tx: Tx, automation_id: str) -> tuple[int, int | None, int | None]:
    """Failures in a row, when the last run ended, and when the last one failed (epoch ms)."""
    row = tx.one(
        "SELECT failures, last_run_at, last_failure_at FROM automation_states WHERE automation_id = ?", (automation_id,)
    )
    return (0, None, None) if row is None else (row[0], row[1], row[2])


def remove_all(tx: Tx, automation_id: str) -> None:
    """Remove what an automation said and how it did; its runs stay on record until they are forgotten."""
    tx.run("DELETE FROM automation_states WHERE automation_id = ?", (automation_id,))
