"""What makes the audit log provable: the bytes that stand for an entry, the trees over them, and checkpoints.

Why the bytes are lengths and texts instead of JSON: every language writes JSON a little differently, and a proof is
worth nothing if two honest programs disagree about what was hashed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from taskade_server.engine.audit import ACCESS, CHANGES, LARGEST
from taskade_server.engine.log import STORED, Event
from taskade_server.kit import merkle, time
from taskade_server.kit.merkle import Tiles
from taskade_server.kit.notes import Checkpoint, Signer
from taskade_server.store.database import Tx
from taskade_server.store.tables import trees
from taskade_server.store.tables.access_log import Access

NAME: Final = "taskade.audit"
"""The name of the key, and the beginning of every log's name."""
INSTALLATION: Final = "installation"
MOST_NEWER: Final = 5000
"""How many entries that are not in the tree yet are put into a proof on demand."""
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {CHANGES: STORED, ACCESS: Access._fields}
PAGE: Final = 500
MAX_READ_TEXT: Final = 1 << 20
"""When the documents of some entries have so many characters, no more are read at once."""
_TABLES: Final = {CHANGES: "events", ACCESS: "accesses"}
_MAKE: Final[Mapping[str, Callable[..., Any]]] = {CHANGES: Event, ACCESS: Access}
_FORM: Final = {log: f"{NAME}/{log}/v1\n" for log in COLUMNS}
_INTEGERS: Final = frozenset({"seq", "at", "last_at", "times", "status"})


def columns_of(entry: Event | Access) -> dict[str, Any]:
    """An entry's columns by name, without those that are null."""
    names = COLUMNS[CHANGES if isinstance(entry, Event) else ACCESS]
    return {name: value for name, value in zip(names, entry, strict=False) if value is not None}


def leaf(log: str, columns: Mapping[str, Any]) -> bytes:
    """The bytes that stand for an entry: a line that names the form, then for each column that is not null its name,
    the number of its bytes in UTF-8, and these. ValueError if it has columns that no entry has.
    """
    if unknown := set(columns) - set(COLUMNS[log]):
        raise ValueError(f"an entry has no column {min(unknown)}")
    for name, value in columns.items():
        if value is not None and type(value) is not (int if name in _INTEGERS else str):
            raise ValueError(f"the column {name} has the wrong type")
    return _bytes(log, map(columns.get, COLUMNS[log]))


def _bytes(log: str, values: Iterable[Any]) -> bytes:
    parts = [_FORM[log]]
    for name, value in zip(COLUMNS[log], values, strict=True):
        if value is not None:
            text = str(value)
            parts.append(f"{name} {len(text) if text.isascii() else len(text.encode())}\n{text}\n")
    return "".join(parts).encode()


def hashed(entry: Event | Access) -> bytes:
    """The hash of an entry in the tree."""
    log = CHANGES if isinstance(entry, Event) else ACCESS
    return merkle.leaf_hash(_bytes(log, entry[: len(COLUMNS[log])]))


def origin(workspace_id: str, log: str) -> str:
    """The name of a log in its checkpoints."""
    return f"{NAME}/{workspace_id or INSTALLATION}/{log}"


@lru_cache(4)
def signer(secret: bytes) -> Signer:
    """What signs the checkpoints of an installation."""
    return Signer(secret, NAME)


def read(tx: Tx, workspace_id: str, log: str, after: int, last: int, limit: int = PAGE) -> list[Event | Access]:
    """The entries behind a number, up to another, oldest first; fewer than `limit` if their documents are long."""
    # The size of a page is counted by its first column, `doc`.
    columns = sorted(COLUMNS[log], key=lambda column: column != LARGEST[log])
    selected = ", ".join([f"{columns[0]} AS doc", *columns[1:]])
    rows, _ = tx.page(
        f"SELECT {selected} FROM {_TABLES[log]} WHERE workspace_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (workspace_id, after, last, limit),
        MAX_READ_TEXT,
    )
    return [_MAKE[log](**dict(zip(columns, row, strict=True))) for row in rows]


def stored(tx: Tx, workspace_id: str, log: str) -> Iterator[Event | Access]:
    """All entries of a log, page by page."""
    after = -(2**62)
    while page := read(tx, workspace_id, log, after, 2**62):
        yield from page
        after = page[-1].seq


def find(tx: Tx, entry_id: str) -> Event | Access | None:
    """An entry by its id."""
    log = ACCESS if entry_id.startswith("acc_") else CHANGES
    row = tx.one(f"SELECT {', '.join(COLUMNS[log])} FROM {_TABLES[log]} WHERE id = ?", (entry_id,))
    found: Event | Access | None = _MAKE[log](*row) if row else None
    return found


def tree(tx: Tx, workspace_id: str, log: str) -> Tiles:
    """The tree of a log, with what is newer than the kept one, as far as that is not too much."""
    size = trees.size(tx, workspace_id, log)
    tiles = trees.open(tx, workspace_id, log, size)
    last = min(trees.head(tx, workspace_id, log), size + MOST_NEWER)
    while size < last and (page := read(tx, workspace_id, log, size, last)):
        tiles.add([hashed(entry) for entry in page])
        size = page[-1].seq
    return tiles


def checkpoint(workspace_id: str, log: str, tiles: Tiles, at: int) -> Checkpoint:
    """What can be said of a tree at a time."""
    root = merkle.root(tiles.node, tiles.size)
    return Checkpoint(origin(workspace_id, log), tiles.size, root, time.format_ms(at))
