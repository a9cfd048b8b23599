"""The log of accesses: what was refused, and which secrets were read. Numbered without gaps, as the log of changes is.

Why apart from the log of changes: its readers (webhooks, streams, sync) tell what happened to things, and a refusal
happened to nothing. Who is refused must not be able to move anybody's position either.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from taskade_server.kit import ids
from taskade_server.store.interface import Tx

INSTALLATION: Final = ""
"""The workspace of what belongs to none: the installation's own log."""


class Access(NamedTuple):
    """One entry. `times` counts what was the same between `at` and `last_at` (epoch ms)."""

    workspace_id: str
    seq: int
    id: str
    action: str
    outcome: str
    status: int | None
    reason: str | None
    operation: str | None
    resource: str | None
    object_id: str | None
    actor_id: str | None
    key_id: str | None
    request_id: str | None
    at: int
    last_at: int
    times: int
    address: str | None
    user_agent: str | None


COLUMNS: Final = Access._fields


def add(tx: Tx, entries: Sequence[Access]) -> None:
    """Append entries; each gets its number and id here. Workspaces in id order, so that two units never cross."""
    by_workspace: dict[str, list[Access]] = {}
    for entry in entries:
        by_workspace.setdefault(entry.workspace_id, []).append(entry)
    rows: list[Access] = []
    for workspace_id, mine in sorted(by_workspace.items()):
        found = tx.one(
            "INSERT INTO access_heads (workspace_id, seq) VALUES (?, ?) ON CONFLICT (workspace_id)"
            " DO UPDATE SET seq = access_heads.seq + excluded.seq RETURNING seq",
            (workspace_id, len(mine)),
        )
        first = (int(found[0]) if found else 0) - len(mine) + 1
        rows += [entry._replace(seq=first + place, id=ids.new("acc")) for place, entry in enumerate(mine)]
    if rows:
        marks = ", ".join("?" * len(COLUMNS))
        tx.many(f"INSERT INTO accesses ({', '.join(COLUMNS)}) VALUES ({marks})", rows)


def head(tx: Tx, workspace_id: str) -> int:
    """The number of the newest entry of a workspace; 0 before the first."""
    row = tx.one("SELECT seq FROM access_heads WHERE workspace_id = ?", (workspace_id,))
    return int(row[0]) if row else 0
