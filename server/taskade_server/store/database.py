"""The door to the store: `connect`, and the names a caller needs.

Why it is not `interface`: the two drivers implement the interface and this module chooses between them, so
keeping both in one place would make a cycle.
"""

from collections.abc import Callable
from pathlib import Path

from taskade_server.kit.budget import READ, UNLIMITED
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
from taskade_server.store.sqlite.database import SqliteDatabase

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
    "is_postgresql",
]


def connect(
    target: str | Path,
    *,
    synchronous: str = "full",
    on_fatal: Callable[[BaseException], None] | None = None,
    pool_size: int = 8,
    patient: bool = False,
    required: bool = True,
) -> Database:
    """The database at a `postgresql://` URL, or in the SQLite file at a path; it is not opened yet.

    `on_fatal` is called when the database had to stop for good: the process should end, and recover by
    starting anew. `patient` is for commands that look at all there is: their queries may take as long as they take.
    Without `required` a PostgreSQL that is away is not missed before something is asked of it.
    """
    if is_postgresql(target):
        # An eighth of the memory of a server on SQLite, and of the time that it takes to start.
        from taskade_server.store.postgresql import PostgresDatabase

        return PostgresDatabase(str(target), pool_size=pool_size, patient=patient, required=required)
    steps = UNLIMITED if patient else READ
    return SqliteDatabase(Path(target), synchronous=synchronous, on_fatal=on_fatal, read_steps=steps)


def is_postgresql(target: str | Path) -> bool:
    """Whether it is a URL of a PostgreSQL database, and not the path of a file."""
    return str(target).startswith(("postgresql://", "postgres://"))
