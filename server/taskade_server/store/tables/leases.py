"""Leases: who may do a named piece of work, until when, by the database's own clock.

Why that clock: the machines of a cluster disagree about the time, and a lease that ends at two different moments has
two holders in between. Why `hold` inside each unit: a process that was suspended wakes up believing in a lease that
others have had since; only the transaction that does the work can know.
"""

from typing import Final

from taskade_server.store.interface import StoreError, Tx

_NOW: Final = {
    "sqlite": "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
_NOBODY: Final = ""
LONGEST_MS: Final = 7_200_000
"""No lease lasts longer, and none is kept from others longer: one that seems to was made while the clock was wrong."""


class LeaseLost(StoreError):
    """Somebody else may do this work now; nothing of this unit was kept."""


def take(tx: Tx, name: str, holder: str, ms: int) -> int:
    """Take a lease for `ms` if it is free or the holder's, and return 0; else return how many ms to wait for it."""
    now = _NOW[tx.dialect]
    taken = tx.run(
        f"INSERT INTO leases (name, holder, until) VALUES (?, ?, {now} + ?) ON CONFLICT (name) DO UPDATE"
        " SET holder = excluded.holder, until = excluded.until"
        f" WHERE leases.until <= {now} OR leases.until > {now} + ? OR leases.holder = excluded.holder",
        (name, holder, ms, LONGEST_MS),
    )
    if taken:
        return 0
    row = tx.one(f"SELECT until - {now} FROM leases WHERE name = ?", (name,))
    return max(1, int(row[0])) if row else 1


def renew(tx: Tx, name: str, holder: str, ms: int) -> bool:
    """Renew a lease for `ms` from now; False when it has gone to another holder."""
    now = _NOW[tx.dialect]
    return tx.run(f"UPDATE leases SET until = {now} + ? WHERE name = ? AND holder = ?", (ms, name, holder)) > 0


def give_back(tx: Tx, name: str, holder: str, ms: int = 0) -> None:
    """End a lease. Nobody gets it for `ms` more, so that work which was just done is not done again."""
    now = _NOW[tx.dialect]
    tx.run(
        f"UPDATE leases SET holder = ?, until = {now} + ? WHERE name = ? AND holder = ?", (_NOBODY, ms, name, holder)
    )


def holder_of(tx: Tx, name: str) -> str:
    """Return the holder of a lease; empty if nobody has it."""
    row = tx.one("SELECT holder FROM leases WHERE name = ?", (name,))
    return str(row[0]) if row else _NOBODY


def hold(tx: Tx, name: str, holder: str) -> None:
    """Make sure that the lease is the holder's until the end of this unit. LeaseLost if it is not."""
    sql = f"SELECT 1 FROM leases WHERE name = ? AND holder = ?{tx.for_share}"
    if tx.one(sql, (name, holder)) is None:
        raise LeaseLost(f"The lease on {name} is not held any more.")


def attend(tx: Tx, group: str, holder: str, ms: int) -> list[str]:
    """Note that a holder is in a group for `ms` from now; return the holders that are there, this one among them."""
    now = _NOW[tx.dialect]
    tx.run(
        f"INSERT INTO leases (name, holder, until) VALUES (?, ?, {now} + ?)"
        " ON CONFLICT (name) DO UPDATE SET until = excluded.until",
        (f"{group}/{holder}", holder, ms),
    )
    over = f"(until <= {now} OR until > {now} + ?)"
    tx.run(f"DELETE FROM leases WHERE name LIKE ? AND {over}", (f"{group}/%", LONGEST_MS))
    return [row[0] for row in tx.all("SELECT holder FROM leases WHERE name LIKE ? ORDER BY name", (f"{group}/%",))]


def depart(tx: Tx, group: str, holder: str) -> None:
    """Leave a group."""
    tx.run("DELETE FROM leases WHERE name = ?", (f"{group}/{holder}",))


def note_run(tx: Tx, name: str, now: int, most: int) -> bool:
    """Note that a job runs now (epoch ms); False if it last ran more than `most` ms ago.

    Then the clock has jumped ahead, or nobody was there to run it: what removes things by their age should wait for
    the next run, which tells the one from the other.
    """
    key = f"run/{name}"
    row = tx.one("SELECT value FROM settings WHERE name = ?", (key,))
    tx.run(
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (key, str(now)),
    )
    return row is None or now - int(row[0]) <= most
