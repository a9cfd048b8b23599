"""Who is looking at what, for the moment: leases of connections, which say nothing of the past and are in no log.

Why leases: a process that dies takes its connections along without a word, and nobody may be seen for ever who is gone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from taskade_server.store.interface import Tx

LEASE_MS: Final = 30_000
"""How long a lease lasts. One that would last twice as long was made while the clock was ahead, and is over."""


class Present(NamedTuple):
    """One connection that looks at a project. `state` is a JSON text of its own choosing."""

    project_id: str
    connection_id: str
    user_id: str
    state: str
    since: int


def enter(tx: Tx, workspace_id: str, who: Present, expires: int) -> None:
    """A connection looks at a project, or does so in another state."""
    tx.run(
        "INSERT INTO presence (connection_id, project_id, workspace_id, user_id, state, since, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (connection_id, project_id)"
        " DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at",
        (who.connection_id, who.project_id, workspace_id, who.user_id, who.state, who.since, expires),
    )


def leave(tx: Tx, connection_id: str, project_id: str | None = None) -> None:
    """A connection no longer looks at a project, or at anything."""
    if project_id is None:
        tx.run("DELETE FROM presence WHERE connection_id = ?", (connection_id,))
    else:
        tx.run("DELETE FROM presence WHERE connection_id = ? AND project_id = ?", (connection_id, project_id))


def renew(tx: Tx, connections: Sequence[str], expires: int) -> None:
    """Renew the leases of connections that are still there."""
    tx.many("UPDATE presence SET expires_at = ? WHERE connection_id = ?", [(expires, name) for name in connections])


def expire(tx: Tx, now: int) -> None:
    """Forget those whose lease has run out."""
    tx.run("DELETE FROM presence WHERE expires_at <= ? OR expires_at > ?", (now, now + 2 * LEASE_MS))


def of_projects(tx: Tx, projects: Sequence[str], now: int, limit: int) -> list[Present]:
    """Return who looks at some projects, the first to come first, and at most `limit` for each project."""
    found: list[Present] = []
    for project_id in projects:
        rows = tx.all(
            "SELECT project_id, connection_id, user_id, state, since FROM presence"
            " WHERE project_id = ? AND expires_at > ? AND expires_at <= ? ORDER BY since, connection_id LIMIT ?",
            (project_id, now, now + 2 * LEASE_MS, limit),
        )
        found += [Present(*row) for row in rows]
    return found
