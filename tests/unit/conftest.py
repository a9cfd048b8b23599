"""Both databases side by side, for tests that ask them the same and compare the answers.

Why not the `database` fixture: it runs a test once on each, and what differs between them shows only when
one test holds both answers.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from taskade_server.store.database import Database, connect
from taskade_server.store.schema import migrate

from tests.support.postgres import PostgreSQL

# No deadline: the machine is shared. Where a failure must be the same for everybody (CI), nothing is left to chance.
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("usual", deadline=None, suppress_health_check=_QUIET)
settings.register_profile("ci", settings.get_profile("usual"), derandomize=True)
# pytest --hypothesis-profile=thorough: for an evening after the query engine was changed.
settings.register_profile("thorough", settings.get_profile("usual"), max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "usual")


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
