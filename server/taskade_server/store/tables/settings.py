"""Values of the installation: they belong to no workspace, so that a change of them has no event."""

from taskade_server.store.interface import Tx


def get_or_create(tx: Tx, name: str, initial: str) -> str:
    """Return a value of the installation, which is `initial` on first use."""
    tx.run("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, initial))
    row = tx.one("SELECT value FROM settings WHERE name = ?", (name,))
    return str(row[0]) if row else initial


def get(tx: Tx, name: str) -> str | None:
    """Return a value of the installation; None if there is none yet."""
    row = tx.one("SELECT value FROM settings WHERE name = ?", (name,))
    return str(row[0]) if row else None


def get_locked(tx: Tx, name: str) -> str | None:
    """Return a value of the installation as `get` does; nobody else changes it until the end of the unit."""
    row = tx.one(f"SELECT value FROM settings WHERE name = ?{tx.for_update}", (name,))
    return str(row[0]) if row else None


def replace(tx: Tx, name: str, value: str) -> None:
    """Replace a value of the installation that exists."""
    tx.run("UPDATE settings SET value = ? WHERE name = ?", (value, name))


def delete(tx: Tx, name: str) -> None:
    """Remove a value of the installation."""
    tx.run("DELETE FROM settings WHERE name = ?", (name,))
