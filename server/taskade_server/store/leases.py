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


class LeaseLost(StoreError):
    """Somebody else may do this work now; nothing of this unit was kept."""


def take(tx: Tx, name: str, holder: str, ms: int) -> int:
    """Have a lease for so long, if it is free or already the holder's: 0. Otherwise how many ms to wait for it."""
    now = _NOW[tx.dialect]
    taken = tx.run(
        f"INSERT INTO leases (name, holder, until) VALUES (?, ?, {now} + ?) ON CONFLICT (name) DO UPDATE"
        " SET holder = excluded.holder, until = excluded.until"
        f" WHERE leases.until <= {now} OR leases.holder = excluded.holder",
        (name, holder, ms),
    )
    if taken:
        return 0
    row = tx.one(f"SELECT until - {now} FROM leases WHERE name = ?", (name,))
    return max(1, int(row[0])) if row else 1


def renew(tx: Tx, name: str, holder: str, ms: int) -> bool:
    """Keep a lease for so long from now; False when it has gone to somebody else."""
    now = _NOW[tx.dialect]
    return tx.run(f"UPDATE leases SET until = {now} + ? WHERE name = ? AND holder = ?", (ms, name, holder)) > 0


def give_back(tx: Tx, name: str, holder: str, ms: int = 0) -> None:
    """End a lease. With `ms` nobody gets it for so long, so that work which was just done is not done again."""
    now = _NOW[tx.dialect]
    tx.run(
        f"UPDATE leases SET holder = ?, until = {now} + ? WHERE name = ? AND holder = ?", (_NOBODY, ms, name, holder)
    )


def holder_of(tx: Tx, name: str) -> str:
    """Who has a lease; empty if nobody does."""
    row = tx.one("SELECT holder FROM leases WHERE name = ?", (name,))
    return str(row[0]) if row else _NOBODY


def hold(tx: Tx, name: str, holder: str) -> None:
    """Make sure that the lease is the holder's until the end of this unit. LeaseLost if it is not."""
    sql = f"SELECT 1 FROM leases WHERE name = ? AND holder = ?{tx.for_share}"
    if tx.one(sql, (name, holder)) is None:
        raise LeaseLost(f"The lease on {name} is not held any more.")


def attend(tx: Tx, place: str, holder: str, ms: int) -> list[str]:
    """Be at a place for so long from now; the holders that are there, oneself among them."""
    now = _NOW[tx.dialect]
    tx.run(
        f"INSERT INTO leases (name, holder, until) VALUES (?, ?, {now} + ?)"
        " ON CONFLICT (name) DO UPDATE SET until = excluded.until",
        (f"{place}/{holder}", holder, ms),
    )
    tx.run(f"DELETE FROM leases WHERE name LIKE ? AND until <= {now}", (f"{place}/%",))
    return [row[0] for row in tx.all("SELECT holder FROM leases WHERE name LIKE ? ORDER BY name", (f"{place}/%",))]


def depart(tx: Tx, place: str, holder: str) -> None:
    """Be at a place no more."""
    tx.run("DELETE FROM leases WHERE name = ?", (f"{place}/{holder}",))
