"""One holder at a time, by the database's clock, whoever asks and however long they were away."""

import threading
import uuid

import pytest
from taskade_server.store.database import Database
from taskade_server.store.tables import leases
from taskade_server.store.tables.leases import LeaseLost


@pytest.fixture
def name() -> str:
    return f"job-{uuid.uuid4().hex}"


def take(db: Database, name: str, holder: str, ms: int = 60_000) -> int:
    return db.write_sync(lambda tx: leases.take(tx, name, holder, ms))


def expire(db: Database, name: str) -> None:
    """As if its holder had been away for long."""
    db.write_sync(lambda tx: tx.run("UPDATE leases SET until = 0 WHERE name = ?", (name,)))


def test_the_second_is_told_how_long_to_wait(db, name):
    assert take(db, name, "a") == 0
    assert 0 < take(db, name, "b") <= 60_000


def test_the_holder_may_take_it_again(db, name):
    assert take(db, name, "a", 1000) == 0
    assert take(db, name, "a") == 0
    assert take(db, name, "b") > 1000


def test_it_ends_by_itself(db, name):
    take(db, name, "a")
    expire(db, name)
    assert take(db, name, "b") == 0


def test_given_back_it_is_free_at_once_or_later(db, name):
    take(db, name, "a")
    db.write_sync(lambda tx: leases.give_back(tx, name, "a"))
    assert take(db, name, "b") == 0
    db.write_sync(lambda tx: leases.give_back(tx, name, "b", 60_000))
    assert take(db, name, "a") > 0
    assert take(db, name, "b") > 0


def test_nobody_gives_back_or_renews_what_is_not_theirs(db, name):
    take(db, name, "a")
    expire(db, name)
    take(db, name, "b")
    assert db.write_sync(lambda tx: leases.renew(tx, name, "a", 60_000)) is False
    db.write_sync(lambda tx: leases.give_back(tx, name, "a"))
    assert take(db, name, "c") > 0
    assert db.write_sync(lambda tx: leases.renew(tx, name, "b", 60_000)) is True


def test_work_of_a_former_holder_is_not_committed(db, name):
    take(db, name, "a")

    def unit(tx):
        leases.hold(tx, name, "a")
        tx.run("INSERT INTO settings (name, value) VALUES (?, 'a')", (name,))

    expire(db, name)
    db.write_sync(unit)  # late, but nobody else has begun
    take(db, name, "b")
    with pytest.raises(LeaseLost):
        db.write_sync(unit)


def test_it_does_not_change_hands_while_a_unit_holds_it(postgresql_db, name):
    """SQLite has one writer, so that this can only go wrong on PostgreSQL."""
    take(postgresql_db, name, "a")
    expire(postgresql_db, name)
    taken = threading.Event()

    def rob() -> None:
        assert take(postgresql_db, name, "b") == 0
        taken.set()

    robber = threading.Thread(target=rob)

    def unit(tx):
        leases.hold(tx, name, "a")
        robber.start()
        assert not taken.wait(0.5)

    postgresql_db.write_sync(unit)
    assert taken.wait(180)
    robber.join()


def test_of_many_at_once_one_gets_it(db, name):
    waits: list[int] = []
    threads = [threading.Thread(target=lambda n=n: waits.append(take(db, name, f"holder {n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wait > 0 for wait in waits) == [False] + [True] * 7
