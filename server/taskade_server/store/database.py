"""The door to the store: `connect`, and the names a caller needs.

Why it is not `interface`: the two drivers implement the interface and this module chooses between them, so
keeping both in one place would make a cycle.
"""

from collections.abc import Callable
from pathlib import Path

from taskade_server.store.interface import (
    BadQuery,
    ChangedMigration,
    Conflict,
    ConstraintFailed,
    Corrupt,
    Database,
    NewerDatabase,
    OutcomeUnknown,
    Overloaded,
    Params,
    QueryTooExpensive,
    Row,
    StorageFull,
    StoreError,
    Tx,
    Unavailable,
)
from taskade_server.store.postgresql import PostgresDatabase
from taskade_server.store.sqlite import SqliteDatabase

__all__ = [
    "BadQuery",
    "ChangedMigration",
    "Conflict",
    "ConstraintFailed",
    "Corrupt",
    "Database",
    "NewerDatabase",
    "OutcomeUnknown",
    "Overloaded",
    "Params",
    "QueryTooExpensive",
    "Row",
    "StorageFull",
    "StoreError",
    "Tx",
    "Unavailable",
    "connect",
]


def connect(
    target: str | Path,
    *,
    synchronous: str = "full",
    on_fatal: Callable[[BaseException], None] | None = None,
    pool_size: int = 8,
) -> Database:
    """The database at a `postgresql://` URL, or in the SQLite file at a path; it is not opened yet.

    `on_fatal` is called when the database had to stop for good: the process should end, and recover by
    starting anew.
    """
    if str(target).startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(str(target), pool_size=pool_size)
    return SqliteDatabase(Path(target), synchronous=synchronous, on_fatal=on_fatal)
