"""A streaming replica serves reads that say what they must see, and never shows less than that.

Why the replica is stopped in its tracks: one that keeps up looks just like a primary.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.load import Client, Load
from tests.support.postgres import PostgreSQL
from tests.support.server import Server

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes by /proc")


@pytest.fixture
def server(own_postgres: PostgreSQL, own_replica: PostgreSQL, tmp_path: Path) -> Iterator[Server]:
    url = own_postgres.create_database()
    name = url.rpartition("/")[2]
    started = Server(tmp_path / "data", url, "--replica-url", own_replica.url(name))
    yield started.start()
    started.stop()
    lag(own_replica, "pg_wal_replay_resume")


@contextmanager
def asked(server: Server, own_replica: PostgreSQL) -> Iterator[Callable[[], int]]:
    """How often the replica was asked for tasks so far."""
    name = server.database_url.rpartition("/")[2]
    with psycopg.connect(own_replica.url(name), autocommit=True) as connection:

        def count() -> int:
            connection.execute("SELECT pg_stat_force_next_flush()")
            row = connection.execute(
                "SELECT coalesce(idx_scan, 0) + seq_scan FROM pg_stat_user_tables WHERE relname = 'tasks'"
            ).fetchone()
            return int(row[0]) if row else 0

        yield count


def lag(own_replica: PostgreSQL, function: str) -> None:
    with psycopg.connect(own_replica.url("postgres"), autocommit=True) as connection:
        connection.execute(f"SELECT {function}()")


def write(client: Client, name: str) -> str:
    """Returns the position of the write."""
    status, headers, _ = client.ask("POST", "/v1/tasks", {"name": name})
    assert status == 201
    return headers["commit-seq"]


def names(client: Client, position: str = "") -> set[str]:
    status, _, body = client.ask("GET", f"/v1/tasks?fields=name&min_seq={position}" if position else "/v1/tasks")
    assert status == 200, body
    return {task["name"] for task in json.loads(body)}


def test_only_what_names_a_position_goes_to_the_replica(server, own_replica):
    with Client(server.url, server.key) as client, asked(server, own_replica) as count:
        position = write(client, "a")
        until = time.monotonic() + 180
        while count() == 0:  # as soon as it follows
            assert "a" in names(client, position)
            assert time.monotonic() < until
        before = count()
        for _ in range(5):
            assert "a" in names(client)
        assert count() == before


def test_a_replica_that_lags_is_passed_by(server, own_replica):
    with Client(server.url, server.key) as client:
        write(client, "before")
        lag(own_replica, "pg_wal_replay_pause")
        position = write(client, "after")
        assert names(client, position) == {"before", "after"}
        assert names(client) == {"before", "after"}
        lag(own_replica, "pg_wal_replay_resume")
        assert names(client, position) == {"before", "after"}


def test_a_right_that_has_gone_is_gone_at_once(server, own_replica):
    key = server.create_key("short-lived")
    with Client(server.url, server.key) as owner, Client(server.url, key) as other:
        position = write(other, "a")
        assert names(other, position) == {"a"}
        lag(own_replica, "pg_wal_replay_pause")
        prefix = "key_" + key.split("_")[1]
        assert owner.ask("DELETE", f"/v1/api-keys/{prefix}")[0] == 204
        assert other.ask("GET", f"/v1/tasks?min_seq={position}")[0] == 401


def test_without_the_replica_the_primary_does_it_all(server, own_replica):
    with Client(server.url, server.key) as client:
        position = write(client, "a")
        for end in (own_replica.shut_down, own_replica.kill):
            end()
            assert names(client, position) == {"a"}
            own_replica.start_again()
            assert names(client, position) == {"a"}


def test_every_client_reads_what_it_wrote(server, own_replica):
    """Under load, with a replica that stands still now and then."""
    with Load(server.url, server.key, positions=True) as load:
        for _ in range(5):
            load.wait_for(20)
            lag(own_replica, "pg_wal_replay_pause")
            load.wait_for(5)
            lag(own_replica, "pg_wal_replay_resume")
    assert (load.ledger.faults, load.ledger.broken) == ([], {})
