"""Timers of automations: what waits for a time, and which automations are still being given timers.

Why rows and no memory: a restart, another process or a week without a server changes nothing about what is waited for.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from taskade_server.store.interface import Tx


class Timer(NamedTuple):
    """One timer of an automation, for an object or (`object_id` is "") for its schedule. Times are epoch ms.

    `due_at` is when to look at it, `since` from when on it counts, `seq` the event from which it counts, if it does
    from one. `pending` is a JSON text: what is left of a firing that takes several units.
    """

    automation_id: str
    object_id: str
    workspace_id: str
    version: int
    due_at: int
    since: int
    seq: int | None = None
    pending: str | None = None


class Scan(NamedTuple):
    """An automation whose timers are being set for the objects that there are.

    `position` is a cursor of their list, "" at its beginning; None as long as timers of earlier versions are removed.
    """

    automation_id: str
    workspace_id: str
    version: int
    existing: int
    begun_at: int
    turn: int = 0
    position: str | None = None


_TIMER: Final = Timer._fields
_SCAN: Final = Scan._fields
_SELECT: Final = f"SELECT {', '.join(_TIMER)} FROM automation_timers"
_INSERT: Final = f"INSERT INTO automation_timers ({', '.join(_TIMER)}) VALUES ({', '.join('?' * len(_TIMER))})"
_CHANGED: Final = ", ".join(f"{name} = excluded.{name}" for name in _TIMER[2:])
_PUT: Final = (
    f"{_INSERT} ON CONFLICT (automation_id, object_id) DO UPDATE SET {_CHANGED}"
    " WHERE automation_timers.version <= excluded.version"
)
_ADD: Final = (
    f"{_INSERT} ON CONFLICT (automation_id, object_id) DO UPDATE SET {_CHANGED}"
    " WHERE automation_timers.version < excluded.version"
)


# ---- setting ---------------------------------------------------------------------------------------------------------


def put(tx: Tx, timer: Timer) -> None:
    """Set a timer, in the place of the one that there was, if that is not of a later version."""
    tx.run(_PUT, timer)


def add(tx: Tx, timers: Sequence[Timer]) -> None:
    """Set timers where there are none of the same version: those tell of something newer."""
    tx.many(_ADD, timers)


def postpone(tx: Tx, automation_id: str, object_id: str, until: int) -> None:
    """Look at a timer later."""
    sql = "UPDATE automation_timers SET due_at = ? WHERE automation_id = ? AND object_id = ?"
    tx.run(sql, (until, automation_id, object_id))


def remove(tx: Tx, automation_id: str, object_id: str) -> None:
    """Remove a timer, if there is one."""
    tx.run("DELETE FROM automation_timers WHERE automation_id = ? AND object_id = ?", (automation_id, object_id))


def remove_others(tx: Tx, automation_id: str, version: int | None, limit: int) -> int:
    """Remove timers of an automation that are not of a version (None: any), at most so many; returns how many."""
    rows = tx.all(
        f"SELECT automation_id, object_id FROM automation_timers WHERE automation_id = ? AND version <> ?"
        f" LIMIT {int(limit)}",
        (automation_id, -1 if version is None else version),
    )
    tx.many("DELETE FROM automation_timers WHERE automation_id = ? AND object_id = ?", rows)
    return len(rows)


# ---- looking ---------------------------------------------------------------------------------------------------------


def due(tx: Tx, now: int, limit: int) -> list[tuple[str, str]]:
    """The automation and object of timers to look at now, the longest due first."""
    sql = f"SELECT automation_id, object_id FROM automation_timers WHERE due_at <= ? ORDER BY due_at LIMIT {int(limit)}"
    return [(row[0], row[1]) for row in tx.all(sql, (now,))]


def next_due(tx: Tx) -> int | None:
    """When the next timer is to be looked at; None if there is none."""
    row = tx.one("SELECT min(due_at) FROM automation_timers")
    return None if row is None else row[0]


def find(tx: Tx, automation_id: str, object_id: str, *, lock: bool = False) -> Timer | None:
    """One timer; None if there is none."""
    sql = f"{_SELECT} WHERE automation_id = ? AND object_id = ?{tx.for_update if lock else ''}"
    row = tx.one(sql, (automation_id, object_id))
    return None if row is None else Timer(*row)


def has_any(tx: Tx, automation_id: str) -> bool:
    """Whether an automation has any timer."""
    return tx.one("SELECT 1 FROM automation_timers WHERE automation_id = ? LIMIT 1", (automation_id,)) is not None


def schedules_ahead(tx: Tx, now: int) -> list[Timer]:
    """Timers of schedules that count from a time that is still to come: the clock was ahead."""
    return [Timer(*row) for row in tx.all(f"{_SELECT} WHERE since > ? AND object_id = ''", (now,))]


def correct_times(tx: Tx, now: int) -> int:
    """Let timers of objects that count from a time to come, as the clock was ahead, count from now.

    Those that wait for so long since an event are due as much sooner; those of dates are due when they are. Returns how
    many there were.
    """
    return tx.run(
        "UPDATE automation_timers SET due_at = CASE WHEN seq IS NULL THEN due_at ELSE due_at - (since - ?) END,"
        " since = ? WHERE since > ? AND object_id <> ''",
        (now, now, now),
    )


# ---- scans -----------------------------------------------------------------------------------------------------------


def begin_scan(tx: Tx, scan: Scan) -> None:
    """Note that timers of an automation are to be set, or only removed, from the beginning."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in _SCAN[1:])
    tx.run(
        f"INSERT INTO automation_scans ({', '.join(_SCAN)}) VALUES ({', '.join('?' * len(_SCAN))})"
        f" ON CONFLICT (automation_id) DO UPDATE SET {changed}",
        scan,
    )


def next_scan(tx: Tx) -> Scan | None:
    """The automation whose turn it is: that which has had the fewest."""
    sql = f"SELECT {', '.join(_SCAN)} FROM automation_scans ORDER BY turn, automation_id LIMIT 1{tx.for_update}"
    row = tx.one(sql)
    return None if row is None else Scan(*row)


def is_scanning(tx: Tx) -> bool:
    """Whether any automation is still being given its timers."""
    return tx.one("SELECT 1 FROM automation_scans LIMIT 1") is not None


def move_scan(tx: Tx, scan: Scan, position: str | None) -> None:
    """Note how far a scan has come, and let others have their turn."""
    sql = "UPDATE automation_scans SET position = ?, turn = turn + 1 WHERE automation_id = ? AND version = ?"
    tx.run(sql, (position, scan.automation_id, scan.version))


def end_scan(tx: Tx, scan: Scan) -> None:
    """Note that all timers are set."""
    sql = "DELETE FROM automation_scans WHERE automation_id = ? AND version = ?"
    tx.run(sql, (scan.automation_id, scan.version))
