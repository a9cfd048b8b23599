"""Looks into a database after a crash: is it sound, does its log agree with its tables, and with what was promised?

Why past the server: what a server says of itself is not evidence.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from taskade_server.domain import soundness
from taskade_server.engine import check, log
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.selftest.ledger import Mark
from taskade_server.selftest.workload import mark_of
from taskade_server.store.database import Database, StoreError, Tx, connect

_PAGE = 5000


def heads(tx: Tx) -> dict[str, int]:
    """The length of each workspace's log."""
    return {str(row[0]): int(row[1]) for row in tx.all("SELECT workspace_id, seq FROM log_heads")}


class Checker:
    """Follows one database. What was in its log at the beginning (`seen`) is not looked at again."""

    def __init__(self, target: str | Path, seen: Mapping[str, int] | None = None) -> None:
        self._target = target
        self._seen = dict(seen or {})
        self.found: Counter[Mark] = Counter()

    def copy(self) -> "Checker":
        """One that has seen as much."""
        return Checker(self._target, self._seen)

    def begin(self) -> None:
        """What is there now is none of the writers' doing."""
        with connect(self._target) as db:
            self._seen = db.read_sync(heads)

    def look(self, *, whole: bool = False, sound: bool = True) -> list[str]:
        """Read what is new in the log into `found`; the faults of the database in words.

        `whole` asks all that `taskade check` does, `sound` only SQLite whether its file is.
        """
        try:
            with connect(self._target) as db:
                return self.look_into(db, whole=whole, sound=sound)
        except StoreError as error:
            return [f"the database cannot be read: {error}"]

    def look_into(self, db: Database, *, whole: bool = False, sound: bool = True) -> list[str]:
        """As `look`, in a database that is open."""
        faults = db.read_sync(self._follow, snapshot=True)
        if whole:
            with connect(self._target, patient=True) as fresh:
                faults += fresh.read_sync(check.damage, snapshot=True)
                faults += fresh.read_sync(soundness.broken, snapshot=True)
        elif sound and db.dialect == "sqlite":
            # On a new connection: one that has read the full-text index before takes it for what it was then.
            with connect(self._target, patient=True) as fresh:
                found = fresh.read_sync(lambda tx: tx.all("PRAGMA integrity_check"))
            faults += [row[0] for row in found if row[0] != "ok"]
        return faults

    def _follow(self, tx: Tx) -> list[str]:
        faults: list[str] = []
        newest: dict[tuple[str, str], Event] = {}
        found: Counter[Mark] = Counter()
        now = heads(tx)
        for workspace_id, head in now.items():
            seq = self._seen.get(workspace_id, 0)
            while page := log.read_after(tx, workspace_id, seq, _PAGE):
                if [event.seq for event in page] != list(range(seq + 1, seq + len(page) + 1)):
                    faults.append(f"the log has a gap behind {seq}")
                for event in page:
                    newest[event.resource, event.object_id] = event
                    found[mark_of(event)] += 1
                seq = page[-1].seq
            if seq != head:
                faults.append(f"the log ends at {seq}, but its head says {head}")
        faults += [fault for event in newest.values() for fault in _differs(tx, event)]
        # Only now, since a unit may be run twice.
        self.found += found
        self._seen = now
        return faults


def _differs(tx: Tx, event: Event) -> list[str]:
    """Whether the row is what its newest event says."""
    row = tx.one(f"SELECT doc FROM {REGISTRY[event.resource].table} WHERE id = ?", (event.object_id,))
    if row is None:
        return [f"{event.resource} {event.object_id} is in the log but not in its table"]
    return [] if row[0] == event.data else [f"{event.resource} {event.object_id} differs"]
