"""Counters of the installation, by name."""

from collections.abc import Sequence

from taskade_server.store.interface import Tx


def values(tx: Tx, names: Sequence[str]) -> dict[str, int]:
    """Return those of some counters that exist."""
    rows = tx.all(f"SELECT name, value FROM counters WHERE name IN ({', '.join('?' * len(names))})", names)
    return {name: int(value) for name, value in rows}


def increment(tx: Tx, name: str) -> None:
    """Raise a counter that exists by one."""
    tx.run("UPDATE counters SET value = value + 1 WHERE name = ?", (name,))
