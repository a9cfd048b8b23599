"""The Merkle trees over the logs, in tiles, and the checkpoints that were signed of them."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from taskade_server.kit.merkle import Tiles
from taskade_server.store.interface import Tx
from taskade_server.store.tables import cursors

READERS: Final = {"changes": "audit", "access": "audit/access"}
"""The reader of each log that puts its entries into the tree."""
_HEADS: Final = {"changes": "log_heads", "access": "access_heads"}


def size(tx: Tx, workspace_id: str, log: str) -> int:
    """How many entries of a log are in its tree."""
    return cursors.position(tx, READERS[log], workspace_id)


def behind(tx: Tx, log: str, after: str | None = None, limit: int = 100) -> list[tuple[str, int, int]]:
    """The workspaces whose log is longer than its tree, as (workspace, size of the tree, length of the log).

    They come in the order of their names, `after` one of them.
    """
    found = tx.all(
        f"SELECT h.workspace_id, COALESCE(c.seq, 0), h.seq FROM {_HEADS[log]} h LEFT JOIN cursors c"
        " ON c.reader = ? AND c.workspace_id = h.workspace_id WHERE h.seq > COALESCE(c.seq, 0)"
        f"{'' if after is None else ' AND h.workspace_id > ?'} ORDER BY h.workspace_id LIMIT ?",
        (READERS[log], *(() if after is None else (after,)), limit),
    )
    return [(name, int(done), int(head)) for name, done, head in found]


def head(tx: Tx, workspace_id: str, log: str) -> int:
    """The number of a log's newest entry; 0 before the first."""
    row = tx.one(f"SELECT seq FROM {_HEADS[log]} WHERE workspace_id = ?", (workspace_id,))
    return int(row[0]) if row else 0


def open(tx: Tx, workspace_id: str, log: str, size: int) -> Tiles:
    """The tree as it was kept at a size, good for this unit of work."""
    return Tiles(partial(_load, tx, workspace_id, log), size)


def _load(tx: Tx, workspace_id: str, log: str, height: int, number: int) -> bytes:
    sql = "SELECT hashes FROM tree_tiles WHERE workspace_id = ? AND log = ? AND height = ? AND number = ?"
    row = tx.one(sql, (workspace_id, log, height, number))
    return bytes(row[0]) if row else b""


def keep(tx: Tx, workspace_id: str, log: str, tiles: Tiles) -> None:
    """Keep what was added, and that it was: the reader moves in the transaction of its effect."""
    changed: Mapping[tuple[int, int], bytes] = tiles.changed
    tx.many(
        "INSERT INTO tree_tiles (workspace_id, log, height, number, hashes) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (workspace_id, log, height, number) DO UPDATE SET hashes = excluded.hashes",
        [(workspace_id, log, height, number, hashes) for (height, number), hashes in sorted(changed.items())],
    )
    cursors.move(tx, READERS[log], workspace_id, tiles.size)


def add_checkpoint(tx: Tx, workspace_id: str, log: str, size: int, at: int, note: str) -> None:
    """Keep a signed checkpoint; of each size the first."""
    tx.run(
        "INSERT INTO checkpoints (workspace_id, log, size, at, note) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (workspace_id, log, size, at, note),
    )


def checkpoints(tx: Tx, workspace_id: str, log: str) -> list[str]:
    """All signed checkpoints of a log, smallest first."""
    sql = "SELECT note FROM checkpoints WHERE workspace_id = ? AND log = ? ORDER BY size"
    return [row[0] for row in tx.all(sql, (workspace_id, log))]


def all_logs(tx: Tx) -> list[tuple[str, str]]:
    """Every log that has a head, a tree or a checkpoint, as (workspace, log)."""
    found = {(name, log) for log, table in _HEADS.items() for (name,) in tx.all(f"SELECT workspace_id FROM {table}")}
    found |= {(name, log) for name, log in tx.all("SELECT DISTINCT workspace_id, log FROM checkpoints")}
    return sorted(found)
