"""Both databases side by side, for tests that ask them the same and compare the answers.

Why not the `database` fixture: it runs a test once on each, and what differs between them shows only when
one test holds both answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

import pytest
from taskade_server.kit import time
from taskade_server.store.database import Database, connect
from taskade_server.store.schema import migrate

from tests.support.postgres import PostgreSQL


@contextmanager
def migrated(kind: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database that nobody has written to."""
    if kind == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("unit")
        with connect(folder / "taskade.db", synchronous="normal") as db:
            migrate(db)
            yield db
        return
    postgres: PostgreSQL = request.getfixturevalue("postgres")
    url = postgres.create_database()
    with connect(url) as db:
        migrate(db)
        yield db
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def sqlite_db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated SQLite database."""
    with migrated("sqlite", request) as db:
        yield db


@pytest.fixture(scope="module")
def postgresql_db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated PostgreSQL database."""
    with migrated("postgresql", request) as db:
        yield db


@pytest.fixture(scope="module")
def databases(sqlite_db: Database, postgresql_db: Database) -> list[Database]:
    return [sqlite_db, postgresql_db]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """One of them at a time.

    Empty each time: a process that takes over tests of another may come back to one of them, and what the module's
    other fixtures build in it, they build again.
    """
    with migrated(request.param, request) as db:
        yield db


@dataclass
class Clock:
    """The system's clock, which stands still but for what a test sets it forward or back."""

    offset_ms: int = 0


@pytest.fixture
def a_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test sets; what the process remembers of the real one is forgotten, before and afterwards."""
    clock, base = Clock(), time_ns()
    monkeypatch.setattr("time.time_ns", lambda: base + clock.offset_ms * 1_000_000)
    monkeypatch.setattr(time, "_last", 0)
    return clock
