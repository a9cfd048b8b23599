"""A clock that jumps ahead, for a second or a month, and back: nothing is delayed, prolonged or removed by it.

Why the system's clock is what the tests set: whoever reads the time in a way of their own is tried, too.
"""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from taskade_server.config import TRASH_DAYS
from taskade_server.consumers import housekeeping
from taskade_server.consumers.pace import Pace
from taskade_server.consumers.runner import Lease
from taskade_server.consumers.sender import Sender
from taskade_server.consumers.webhooks import Webhooks
from taskade_server.domain import projects, webhooks
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.http.admission import tickets
from taskade_server.kit import ids, json, signing, time
from taskade_server.kit.errors import Unauthenticated
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import deliveries, leases, presence, replies
from taskade_server.store.tables.deliveries import Attempt, Delivery
from taskade_server.store.tables.presence import Present
from taskade_server.store.tables.replies import StoredReply

from tests.unit import world

HOUR = replies.HOUR_MS
JUMPS = [HOUR, 31 * time.DAY_MS]
HOME = world.WORKSPACES[0]
assert webhooks.READER, "all tables are declared by now"


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


# ---- what waits ------------------------------------------------------------------------------------------------------


def waiting(number: int, at: int, *, attempts: int = 0, wait: int = 0) -> tuple[Delivery, Attempt | None]:
    """A delivery whose last attempt, if there was one, was made at a time, and the next is due so much later."""
    name = f"dlv_{number}"
    one = Delivery(
        name,
        "wh_a",
        HOME,
        number,
        f"evt_{number}",
        "task.updated",
        f"task_{number}",
        None,
        deliveries.PENDING,
        attempts,
        0,
        at + wait,
        at,
        None,
        None,
        None,
        None,
    )
    tried = Attempt(name, attempts, HOME, at, 1.0, None, "[]", 500, "[]", "", "bad_status", None)
    return one, tried if attempts else None


def put(tx: Tx, rows: list[tuple[Delivery, Attempt | None]]) -> None:
    tx.run("DELETE FROM deliveries")
    tx.run("DELETE FROM attempts")
    deliveries.add(tx, [one for one, _ in rows])
    for _, tried in rows:
        if tried is not None:
            tx.run(f"INSERT INTO attempts VALUES ({', '.join('?' * len(tried))})", tried)


def next_times(db: Database) -> list[int]:
    return [int(row[0]) for row in db.read_sync(lambda tx: tx.all("SELECT next_at FROM deliveries ORDER BY seq"))]


@pytest.mark.parametrize("jump", JUMPS)
def test_retries_wait_as_long_as_they_were_to_wait(db, a_clock, jump):
    """A sender looks at them when it begins, and whenever the clock was set back."""
    real = time.now_ms()
    a_clock.offset_ms = jump
    ahead = time.now_ms()
    rows = [
        waiting(1, ahead, attempts=1, wait=5_000),
        waiting(2, ahead),
        waiting(3, real - 1000, attempts=3, wait=2 * HOUR),
        waiting(4, ahead, attempts=2, wait=300_000),
    ]
    db.write_sync(lambda tx: put(tx, rows))
    nobody: Any = None
    lease: Any = SimpleNamespace(hold=lambda tx: None, held=True, leaving=asyncio.Event())

    async def scene() -> None:
        sender = Sender(db, nobody, b"", lease, asyncio.Event(), (0, 1), Counter(), Pace())
        await sender._look()
        a_clock.offset_ms = 0
        await sender._look()

    asyncio.run(scene())
    assert next_times(db) == [real + 5_000, real, real - 1000 + 2 * HOUR, real + 300_000]


def test_a_sender_that_begins_mends_what_another_has_left(db, a_clock):
    real = time.now_ms()
    db.write_sync(lambda tx: put(tx, [waiting(1, real + HOUR, attempts=1, wait=5_000)]))
    assert db.write_sync(lambda tx: deliveries.correct_times(tx, real)) == 1
    assert next_times(db) == [real + 5_000]
    assert db.write_sync(lambda tx: deliveries.correct_times(tx, real)) == 0


@pytest.mark.parametrize("jump", JUMPS)
def test_an_endpoint_is_not_taken_for_one_that_has_failed_for_days(db, jump):
    now, hook = time.now_ms(), ids.new("wh")

    def fail(at: int) -> int:
        return int(db.write_sync(lambda tx: deliveries.note_failure(tx, hook, HOME, at, None)))

    assert fail(now) == now
    ahead = now + jump
    assert ahead - fail(ahead) < 5 * time.DAY_MS
    assert fail(now + 1000) in (now, now + 1000)
    day = time.DAY_MS
    assert [fail(now + number * day) - now <= 1000 for number in range(1, 7)] == [True] * 6, "days of failures count"


# ---- what is good for a while ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", JUMPS)
def test_a_ticket_is_good_for_a_minute_whatever_the_clock_said_when_it_was_made(a_clock, jump):
    def ticket() -> str:
        expires = time.now_ms() + tickets.SECONDS * 1000
        return signing.seal(world.SECRET, json.encode_bytes(["ticket", expires, "key_1"]))

    a_clock.offset_ms = jump
    made = ticket()
    assert tickets.credential(world.SECRET, made)
    a_clock.offset_ms = 0
    with pytest.raises(Unauthenticated):
        tickets.credential(world.SECRET, made)
    assert tickets.credential(world.SECRET, ticket())


@pytest.mark.parametrize("jump", JUMPS)
def test_nobody_is_seen_in_a_project_by_a_lease_from_the_future(db, jump):
    project, now = ids.new("proj"), time.now_ms()
    who = Present(project, "conn_1", world.USERS[0], "{}", now)
    expires = now + jump + presence.LEASE_MS
    db.write_sync(lambda tx: presence.enter(tx, HOME, who, expires))
    assert db.read_sync(lambda tx: presence.of_projects(tx, [project], now, 9)) == []
    db.write_sync(lambda tx: presence.expire(tx, now))
    assert db.read_sync(lambda tx: presence.of_projects(tx, [project], now + jump, 9)) == []


def test_a_job_is_not_kept_from_everybody_by_a_lease_from_the_future(db):
    """As one that was given back, for an hour, while the clock was a month ahead."""
    name = ids.new("x")
    assert db.write_sync(lambda tx: leases.take(tx, name, "a", 30_000)) == 0
    assert db.write_sync(lambda tx: leases.take(tx, name, "b", 30_000)) > 0
    db.write_sync(lambda tx: tx.run("UPDATE leases SET until = until + ? WHERE name = ?", (31 * time.DAY_MS, name)))
    assert db.write_sync(lambda tx: leases.take(tx, name, "b", 30_000)) == 0


# ---- what is removed by its age --------------------------------------------------------------------------------------


def job_named(db: Database, name: str) -> Any:
    nobody: Any = None
    jobs = [*housekeeping.jobs(db, TRASH_DAYS), *Webhooks(db, nobody, nobody, b"", 30).jobs()]
    [found] = [job for job in jobs if job.name == name]
    return found


def run(db: Database, name: str) -> None:
    async def scene() -> None:
        lease = Lease(name, "test", 60.0)
        assert await lease.take(db) == 0
        await job_named(db, name).run(lease)

    asyncio.run(scene())


def in_the_trash(db: Database) -> str:
    context = Context(world.a_member(HOME), Actor(world.USERS[0]), world.SECRET)

    def unit(tx: Tx) -> str:
        made = json.decode(projects.create(tx, context, {"name": "Over"}))
        projects.delete(tx, context, made["id"])
        return str(made["id"])

    return db.write_sync(unit)


def is_there(db: Database, table: str, name: str) -> bool:
    return db.read_sync(lambda tx: tx.one(f"SELECT 1 FROM {table} WHERE id = ?", (name,))) is not None


def kept_reply(db: Database) -> str:
    key = ids.new("req")
    db.write_sync(lambda tx: replies.remember(tx, "key_1", key, StoredReply("", 200, "[]", None, "{}")))
    return key


def a_reply(db: Database, key: str) -> bool:
    return db.read_sync(lambda tx: tx.one("SELECT 1 FROM replies WHERE key = ?", (key,))) is not None


def test_a_jump_of_a_month_empties_no_trash_and_forgets_no_answer(db, a_clock):
    for name in ("trash", "replies", "webhooks/old"):
        run(db, name)
    project, key = in_the_trash(db), kept_reply(db)
    delivery = waiting(1, time.now_ms())[0]._replace(state="succeeded", next_at=None, finished_at=time.now_ms())
    db.write_sync(lambda tx: put(tx, [(delivery, None)]))

    def all_there() -> bool:
        return is_there(db, "projects", project) and a_reply(db, key) and is_there(db, "deliveries", delivery.id)

    for offset in (31 * time.DAY_MS, 0, 31 * time.DAY_MS, HOUR):
        a_clock.offset_ms = offset
        for name in ("trash", "replies", "webhooks/old"):
            run(db, name)
        assert all_there(), f"after a jump to {offset} ms"


def test_what_is_old_goes_once_the_clock_has_gone_on_evenly(db, a_clock):
    """A clock that stays ahead for an hour is right, and so is one after a month without a server."""
    run(db, "trash")
    project = in_the_trash(db)
    a_clock.offset_ms = 31 * time.DAY_MS
    run(db, "trash")
    assert is_there(db, "projects", project)
    a_clock.offset_ms += HOUR
    run(db, "trash")
    assert not is_there(db, "projects", project)


def test_an_answer_from_the_future_is_kept_no_longer_than_one_of_today(db, a_clock):
    a_clock.offset_ms = 31 * time.DAY_MS
    key = kept_reply(db)
    a_clock.offset_ms = 0
    now = time.now_ms()
    db.write_sync(lambda tx: replies.delete_old(tx, now - 25 * HOUR, 100))
    assert a_reply(db, key), "it may be a minute old"
    a_clock.offset_ms = 26 * HOUR
    db.write_sync(lambda tx: replies.delete_old(tx, now + HOUR, 100))
    assert not a_reply(db, key)
