"""PostgreSQL goes away, comes back, hangs and blocks under load: 503 with Retry-After, never a 500, never a hang.

Why a PostgreSQL of its own for each test: the one that all tests share has to stay up.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from taskade_server.store import postgresql
from taskade_server.store.database import OutcomeUnknown, Overloaded, Unavailable
from taskade_server.store.postgresql import PostgresDatabase, PostgresTx

from tests.support.load import Client, Load
from tests.support.postgres import PostgreSQL
from tests.support.server import Server

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes by /proc")


@pytest.fixture
def url(own_postgres: PostgreSQL) -> str:
    return own_postgres.create_database()


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "data", url).start()
    yield started
    started.stop()


def names(server: Server) -> set[str]:
    with server.client() as client:
        found: set[str] = set()
        page = "/v1/tasks?limit=1000&fields=name"
        while page:
            answer = client.get(page)
            found |= {task["name"] for task in answer.json()}
            page = answer.links["next"]["url"] if "next" in answer.links else ""
        return found


def check(load: Load, server: Server) -> None:
    """Whatever happened: only the allowed answers, no acknowledged write lost, the log and the tables agree."""
    assert load.ledger.faults == []
    assert not load.ledger.broken
    assert set(load.ledger.statuses) <= {200, 201, 503}
    assert set(load.ledger.written) <= names(server)
    assert "Traceback" not in server.said()


OUTAGES: dict[str, Callable[[PostgreSQL], None]] = {
    "stopped": lambda own: own.shut_down("fast"),
    "stopped at once": lambda own: own.shut_down("immediate"),
    "killed": lambda own: own.kill(),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_restart_under_load(outage, own_postgres, server):
    with Load(server.url, server.key, allowed=(503,)) as load:
        for _ in range(2):
            load.wait_for(30)
            outage(own_postgres)
            refused = load.ledger.statuses[503]
            while load.ledger.statuses[503] < refused + 20:
                time.sleep(0.02)
            own_postgres.start_again()
        load.wait_for(30)
    check(load, server)


def test_ready_says_whether_the_database_is_there(own_postgres, server):
    with server.client() as client:
        assert client.get("/ready").status_code == 200
        own_postgres.shut_down()
        answer = client.get("/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/health").status_code == 200
        own_postgres.start_again()
        until = time.monotonic() + 180
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_every_connection_cut_from_outside(own_postgres, server, url):
    """As an administrator, a proxy or a firewall may: what had not been committed is done again by itself."""
    with Load(server.url, server.key, allowed=(503,)) as load, psycopg.connect(url, autocommit=True) as other:
        for _ in range(10):
            load.wait_for(10)
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        load.wait_for(10)
    check(load, server)


def test_a_commit_in_doubt_is_said_to_be(server, url):
    """The connection goes while the commit is under way: only asking again can tell what came of it."""
    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as askers:
        other.execute("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'")
        other.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON tasks DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION dawdle()"
        )
        with Client(server.url, server.key) as client:
            asked = askers.submit(client.ask, "POST", "/v1/tasks", {"name": "in doubt"})
            until = time.monotonic() + 180
            while not other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
            ).fetchall():
                assert time.monotonic() < until
                time.sleep(0.01)
            status, headers, body = asked.result()
            assert (status, headers["retry-after"], b'"outcome-unknown"' in body) == (503, "2", True)
            other.execute("DROP TRIGGER slow ON tasks")
            assert client.ask("POST", "/v1/tasks", {"name": "certain"})[0] == 201


def test_a_primary_that_became_a_standby_is_left(server, url):
    """After a failover the old sessions refuse to write: new ones lead to wherever the new primary is."""
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as other, Client(server.url, server.key) as client:
        assert client.ask("POST", "/v1/tasks", {"name": "before"})[0] == 201
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        ending = other.execute(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
        alive = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)"
        while other.execute(alive, ([pid for pid, _ in ending],)).fetchall():
            time.sleep(0.01)
        status, headers, _ = client.ask("POST", "/v1/tasks", {"name": "meanwhile"})
        assert (status, headers["retry-after"]) == (503, "1")
        assert client.ask("GET", "/v1/tasks")[0] == 200
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert client.ask("POST", "/v1/tasks", {"name": "after"})[0] == 201


def test_a_database_that_hangs(own_postgres, url, monkeypatch):
    """Who waits is answered: that nothing was done if it had not begun, otherwise that nobody knows."""
    monkeypatch.setattr(postgresql, "QUEUE_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "UNIT_SECONDS", 2.0)

    expected = [{Unavailable: 4, Overloaded: 5}, {OutcomeUnknown: 4, Overloaded: 5}]

    async def outcomes(db: PostgresDatabase) -> list[type]:
        one = partial(PostgresTx.all, sql="SELECT 1")
        units = [db.read(one) for _ in range(9)] + [db.write(one) for _ in range(9)]
        return [type(outcome) for outcome in await asyncio.gather(*units, return_exceptions=True)]

    async def scene() -> None:
        db = PostgresDatabase(url)
        await db.open()
        for _ in range(5):  # on a machine that stands still for a second, fewer of them have begun
            while set(await outcomes(db)) != {list}:
                await asyncio.sleep(0.05)
            own_postgres.suspend()
            kinds = await outcomes(db)
            own_postgres.resume()
            seen = [Counter(kinds[:9]), Counter(kinds[9:])]
            assert {Overloaded} < seen[0].keys() | seen[1].keys() <= {Overloaded, Unavailable, OutcomeUnknown}
            if seen == expected:
                break
        assert seen == expected
        while set(await outcomes(db)) != {list}:
            await asyncio.sleep(0.05)
        await db.close()

    async def bounded() -> None:
        async with asyncio.timeout(300):
            await scene()

    asyncio.run(bounded())


def test_blocked_writers_leave_readers_alone(server, url):
    """A lock that somebody else holds makes changes wait, and at last fail; reading goes on meanwhile."""

    def write() -> tuple[int, bool]:
        with Client(server.url, server.key) as client:
            status, headers, _ = client.ask("POST", "/v1/tasks", {"name": "blocked"})
        return status, "retry-after" in headers

    assert write()[0] == 201
    with psycopg.connect(url) as locker, ThreadPoolExecutor(8) as askers, Client(server.url, server.key) as reader:
        locker.execute("SELECT 1 FROM log_heads FOR UPDATE")
        blocked = [askers.submit(write) for _ in range(8)]
        reads = 0
        while not all(each.done() for each in blocked):
            assert reader.ask("GET", "/v1/tasks")[0] == 200
            reads += 1
        assert {each.result() for each in blocked} == {(503, True)}
        assert reads > 10
        locker.rollback()
        assert write()[0] == 201
