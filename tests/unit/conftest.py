"""Both databases side by side, for tests that ask them the same and compare the answers.

Why not the `database` fixture: it runs a test once on each, and what differs between them shows only when
one test holds both answers.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from taskade_server.store.database import Database, connect
from taskade_server.store.schema import migrate

from tests.support.postgres import PostgreSQL


@pytest.fixture(scope="module")
def sqlite_db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated SQLite database."""
    path: Path = tmp_path_factory.mktemp("unit") / "taskade.db"
    with connect(path, synchronous="normal") as db:
        migrate(db)
        yield db


@pytest.fixture(scope="module")
def postgresql_db(postgres: PostgreSQL) -> Iterator[Database]:
    """A migrated PostgreSQL database."""
    url = postgres.create_database()
    with connect(url) as db:
        migrate(db)
        yield db
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def databases(sqlite_db: Database, postgresql_db: Database) -> list[Database]:
    return [sqlite_db, postgresql_db]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Database:
    """One of them at a time."""
    found: Database = request.getfixturevalue(f"{request.param}_db")
    return found
