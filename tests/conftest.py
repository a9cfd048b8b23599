"""Fixtures: real servers on both databases.

A test that takes `server`, `api`, `database` or `fresh_database` runs twice, with ids that contain `sqlite`
and `postgresql`. The servers live as long as the test process does; tests share them, so each makes what it
needs and counts on nothing being alone there. `start_server` gives a test one of its own.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from taskade_server.engine import check
from taskade_server.store.database import connect

from tests.support import postgres as postgres_servers
from tests.support import valkey as valkey_servers
from tests.support.postgres import PostgreSQL
from tests.support.processes import abandoned_run_folders, make_run_folder, remove
from tests.support.server import Server
from tests.support.valkey import Valkey

RUN_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """The process that begins the run makes its folder; the workers are told where it is."""
    told = getattr(config, "workerinput", {}).get("run_folder")
    if told is None:
        for folder in abandoned_run_folders():
            postgres_servers.stop_all(folder)
            valkey_servers.stop_abandoned(folder)
            remove(folder)
    config.stash[RUN_FOLDER] = Path(told) if told else make_run_folder()
    if sys.dont_write_bytecode:
        # Each process that a test starts would compile all of the server anew, which takes a third of its start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.stash[RUN_FOLDER] / "bytecode")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:  # type: ignore[no-untyped-def]  # pytest-xdist has no types
    node.workerinput["run_folder"] = str(node.config.stash[RUN_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(RUN_FOLDER, None)
    if folder is not None and not hasattr(config, "workerinput"):
        postgres_servers.stop_all(folder)
        valkey_servers.stop_abandoned(folder)
        remove(folder)


@pytest.fixture
def valkey(pytestconfig: pytest.Config) -> Iterator[Valkey]:
    """A Valkey for this test alone, running: `.url`, `.kill()`, `.start()`, `.pause()`, `.resume()`."""
    server = Valkey(pytestconfig.stash[RUN_FOLDER])
    yield server.start()
    server.kill()


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> PostgreSQL:
    """The run's PostgreSQL, started by the first test that needs it."""
    shared = PostgreSQL(pytestconfig.stash[RUN_FOLDER])
    shared.ensure_started()
    return shared


@pytest.fixture(scope="module")
def _own_postgres(pytestconfig: pytest.Config) -> Iterator[PostgreSQL]:
    server = PostgreSQL.of_its_own(pytestconfig.stash[RUN_FOLDER])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def _own_replica(_own_postgres: PostgreSQL) -> Iterator[PostgreSQL]:
    replica = _own_postgres.replicate()
    yield replica
    replica.stop()


@pytest.fixture
def own_postgres(_own_postgres: PostgreSQL) -> Iterator[PostgreSQL]:
    """A PostgreSQL for one test at a time, which it may shut down, kill, suspend and start again."""
    yield _own_postgres
    _own_postgres.ensure_running()


@pytest.fixture
def own_replica(own_postgres: PostgreSQL, _own_replica: PostgreSQL) -> Iterator[PostgreSQL]:
    """A streaming replica of it."""
    yield _own_replica
    _own_replica.ensure_running()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database this round of tests is about."""
    return str(request.param)


@pytest.fixture(scope="session")
def new_database(
    database: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes an empty database at each call: a PostgreSQL URL, or the path of an SQLite file to be made."""
    if database == "postgresql":
        postgres: PostgreSQL = request.getfixturevalue("postgres")
        return postgres.create_database
    return lambda: str(tmp_path_factory.mktemp("sqlite") / "taskade.db")


@pytest.fixture
def fresh_database(new_database: Callable[[], str]) -> str:
    """One empty database, for this test alone."""
    return new_database()


@pytest.fixture(scope="session")
def make_server(
    database: str, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Makes servers that are not started yet; what still runs at the end of the round is stopped."""
    made: list[Server] = []

    def make(*arguments: str, **options: Any) -> Server:
        data = tmp_path_factory.mktemp("server") / "data"
        url = new_database() if database == "postgresql" else ""
        made.append(Server(data, url, *arguments, **options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """The server that the tests of one process share, without a rate limit.

    When they are over, it has to have met no error that nobody foresaw, and replaying its log has to give its tables.
    """
    shared = make_server().start()
    yield shared
    assert shared.errors() == []
    with connect(shared.database_url or shared.data / "taskade.db", patient=True) as db:
        assert db.read_sync(check.replay, snapshot=True) == []


@pytest.fixture
def start_server(make_server: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    """Starts servers for this test alone: `start_server("--workers", "2", rate_limit="5/minute")`.

    They are told to stop when the test is over; that each has done so is seen at the end of the round, as it takes a
    third of a second in which the next test can begin.
    """
    started: list[Server] = []

    def start(*arguments: str, **options: Any) -> Server:
        started.append(make_server(*arguments, **options))
        return started[-1].start()

    yield start
    for server in started:
        server.begin_to_stop()


@pytest.fixture(scope="session")
def api(server: Server) -> Iterator[httpx2.Client]:
    """An HTTP client for the shared server, with the owner's key: `api.get("/v1/tasks")`."""
    with server.client() as client:
        yield client
