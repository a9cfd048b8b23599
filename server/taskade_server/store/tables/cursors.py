"""Cursors: how far each reader of the log has come in each workspace.

Why moved in the transaction of the effect: a reader that ends between the two would do its work twice, or never.
"""

from taskade_server.store.interface import Tx


def position(tx: Tx, reader: str, workspace_id: str) -> int:
    """The seq up to which a reader is done; 0 before its first."""
    row = tx.one("SELECT seq FROM cursors WHERE reader = ? AND workspace_id = ?", (reader, workspace_id))
    return int(row[0]) if row else 0


def move(tx: Tx, reader: str, workspace_id: str, seq: int) -> None:
    """A reader is done up to `seq`; never back."""
    tx.run(
        "INSERT INTO cursors (reader, workspace_id, seq) VALUES (?, ?, ?) ON CONFLICT (reader, workspace_id)"
        " DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq",
        (reader, workspace_id, seq),
    )


def advance(tx: Tx, reader: str, workspace_id: str, before: int, seq: int) -> bool:
    """A reader that was at the position `before` is done up to `seq`; False, and nothing moves, if it is elsewhere."""
    moved = tx.run(
        "INSERT INTO cursors (reader, workspace_id, seq) VALUES (?, ?, ?) ON CONFLICT (reader, workspace_id)"
        " DO UPDATE SET seq = excluded.seq WHERE cursors.seq = ?",
        (reader, workspace_id, seq, before),
    )
    return moved == 1
