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


def behind(tx: Tx, reader: str, limit: int = 100) -> list[tuple[str, int, int]]:
    """The workspaces whose log goes on beyond a reader's position, as (workspace, position, head)."""
    found = tx.all(
        "SELECT h.workspace_id, COALESCE(c.seq, 0), h.seq FROM log_heads h LEFT JOIN cursors c"
        " ON c.reader = ? AND c.workspace_id = h.workspace_id WHERE h.seq > COALESCE(c.seq, 0)"
        " ORDER BY h.workspace_id LIMIT ?",
        (reader, limit),
    )
    return [(name, int(done), int(head)) for name, done, head in found]
