"""Background jobs: one process at a time does each, and whatever fails is tried again."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from taskade_server.consumers import runner
from taskade_server.consumers.runner import Job, Lease, Runner
from taskade_server.store.database import Database, Unavailable
from taskade_server.store.tables import leases

LEASE = 0.5  # seconds
LONG = 60.0
"""A lease that ends in no test, however long the machine stands still."""


@pytest.fixture
def name() -> str:
    return f"job-{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(runner, "STOP_SECONDS", 120.0)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(300):
            await scene()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run_of(db: Database, name: str) -> dict[str, object]:
    row = db.read_sync(lambda tx: tx.one("SELECT holder, until FROM leases WHERE name = ?", (name,)))
    return {"holder": row[0], "until": row[1]} if row else {}


def test_two_runners_never_do_a_job_at_once(db, name):
    inside: list[int] = []
    most = runs = 0

    async def work(lease: Lease) -> None:
        nonlocal most, runs
        inside.append(1)
        most, runs = max(most, len(inside)), runs + 1
        await asyncio.sleep(0.01)
        inside.pop()

    async def scene() -> None:
        both = [Runner(db, [Job(name, 0.0, work)], LONG) for _ in range(2)]
        for one in both:
            one.start()
        await until(lambda: runs >= 20)
        for one in both:
            await one.stop()

    play(scene)
    assert most == 1


def test_a_seldom_job_is_done_once_for_all(db, name):
    done: list[str] = []

    async def work(lease: Lease) -> None:
        done.append(lease.holder)

    async def scene() -> None:
        many = [Runner(db, [Job(name, 3600, work)], LONG) for _ in range(3)]
        for one in many:
            one.start()
        await until(lambda: bool(done) and run_of(db, name)["holder"] == "")
        await asyncio.sleep(3 * LEASE)
        for one in many:
            await one.stop()
        again = Runner(db, [Job(name, 3600, work)], LONG)  # nor does a restart do it again
        again.start()
        await asyncio.sleep(LEASE)
        await again.stop()

    play(scene)
    assert len(done) == 1


def test_a_stopped_runner_leaves_the_job_to_others_at_once(db, name):
    begun: list[str] = []

    async def work(lease: Lease) -> None:
        begun.append(lease.holder)
        await asyncio.sleep(3600)

    async def scene() -> None:
        first, second = (Runner(db, [Job(name, 3600, work)], 30.0) for _ in range(2))
        first.start()
        await until(lambda: len(begun) == 1)
        await first.stop()
        second.start()
        await until(lambda: len(begun) == 2)
        await second.stop()

    play(scene)
    assert begun[0] != begun[1]


def test_what_takes_longer_than_a_lease_is_not_begun_by_others(db, name):
    begun: list[str] = []
    done: list[str] = []
    seconds = LEASE

    async def work(lease: Lease) -> None:
        begun.append(lease.holder)
        await asyncio.sleep(4 * seconds)
        await db.write(lease.hold)
        assert lease.held
        done.append(lease.holder)

    async def scene() -> None:
        both = [Runner(db, [Job(name, 3600, work)], seconds) for _ in range(2)]
        for one in both:
            one.start()
        await until(lambda: bool(done))
        for one in both:
            await one.stop()

    # Whoever stands still for longer than a lease loses it, so a machine that does gets a longer one.
    for seconds in (LEASE, 10 * LEASE, 40 * LEASE):  # noqa: B007  # the functions above use it
        begun.clear()
        done.clear()
        db.write_sync(lambda tx: tx.run("DELETE FROM leases WHERE name = ?", (name,)))
        play(scene)
        if begun == done:
            break
    assert begun == done


def test_who_loses_the_lease_is_broken_off(db, name):
    begun: list[Lease] = []
    ended: list[bool] = []

    async def work(lease: Lease) -> None:
        begun.append(lease)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(lease.held)

    def rob(tx):
        tx.run("UPDATE leases SET holder = 'somebody', until = until + 600000 WHERE name = ?", (name,))

    async def scene() -> None:
        one = Runner(db, [Job(name, 3600, work)], 9.0)  # it is noticed when it is to be renewed, after a third
        one.start()
        await until(lambda: bool(begun))
        await db.write(rob)
        await until(lambda: bool(ended))
        await one.stop()

    play(scene)
    assert len(begun) == 1
    assert run_of(db, name)["holder"] == "somebody"


def test_a_job_that_fails_is_tried_again_ever_more_slowly(db, name, caplog):
    failures = [RuntimeError("a fault"), Unavailable("the database is away"), RuntimeError("a fault")]
    done = False

    async def work(lease: Lease) -> None:
        nonlocal done
        if failures:
            raise failures.pop()
        done = True

    async def scene() -> None:
        one = Runner(db, [Job(name, 3600, work)], LONG)
        one.start()
        await until(lambda: done)
        await one.stop()

    play(scene)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]
    assert runner._retry_seconds(1) < runner._retry_seconds(4) < runner._retry_seconds(100) <= 375


def test_nobody_waits_for_the_dead(db, name):
    """The holder was a process of this machine, killed without a chance to give its lease back."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    runs: list[Lease] = []

    async def work(lease: Lease) -> None:
        runs.append(lease)

    def forget(tx):
        runs.clear()
        tx.run("DELETE FROM leases WHERE name = ?", (name,))

    async def scene() -> None:
        one = Runner(db, [Job(name, 3600, work)], 30.0)
        host, machine, pid, token = one._holder.rsplit("/", 3)
        for dead in (f"{host}/{machine}/{ended.pid}/{token}", f"{host}/{machine}/{pid}/of-a-former-life"):
            await db.write(forget)
            await db.write(partial(leases.take, name=name, holder=dead, ms=60_000))
            one.start()
            await until(lambda: bool(runs))
            await one.stop()
        for alive in (f"{host}/elsewhere/{ended.pid}/{token}", f"{host}/{machine}/{os.getppid()}/{token}", one._holder):
            assert not runner._has_died(alive)

    play(scene)


def test_a_frequent_job_keeps_its_lease(db, name):
    runs: list[str] = []

    async def work(lease: Lease) -> None:
        runs.append(lease.holder)

    async def scene() -> None:
        one = Runner(db, [Job(name, 3 * LEASE, work)], LONG)
        one.start()
        await until(lambda: len(runs) == 1)
        await asyncio.sleep(2 * LEASE)
        assert run_of(db, name)["holder"] == runs[0]
        await until(lambda: len(runs) == 2)
        await one.stop()

    play(scene)
    assert run_of(db, name)["holder"] == ""


def test_without_a_database_it_waits_for_one(db, name, monkeypatch):
    done = False
    away = True
    take = leases.take

    def taken(tx, *details):
        if away:
            raise Unavailable("away")
        return take(tx, *details)

    async def work(lease: Lease) -> None:
        nonlocal done
        done = True

    async def scene() -> None:
        nonlocal away
        monkeypatch.setattr(leases, "take", taken)
        one = Runner(db, [Job(name, 3600, work)], LONG)
        one.start()
        await asyncio.sleep(0.2)
        assert not done
        away = False
        await until(lambda: done)
        await one.stop()

    play(scene)


def test_a_lease_that_is_got_while_the_runner_stops_is_given_back(db, name):
    class Slow:
        """A database whose answers take a moment longer than the work itself."""

        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def read(self, *args: object, **more: object) -> object:
            return await db.read(*args, **more)

        async def write(self, *args: object, **more: object) -> object:
            self.asked.set()
            done = await db.write(*args, **more)
            await asyncio.sleep(0.05)
            return done

    async def work(lease: Lease) -> None:
        await asyncio.sleep(60)

    async def scene() -> None:
        slow = Slow()
        runner = Runner(slow, [Job(name, 0.0, work)], 30.0)  # type: ignore[arg-type]
        runner.start()
        await slow.asked.wait()
        await runner.stop()
        assert run_of(db, name)["holder"] == ""

    play(scene)


# ---- jobs that are shared out ----------------------------------------------------------------------------------------


def sharing(db: Database, name: str) -> tuple[Runner, set[str]]:
    """A runner of four shared jobs, and those that it is doing at the moment; each ends when it is asked to."""
    doing: set[str] = set()

    async def work(lease: Lease) -> None:
        doing.add(lease.name)
        try:
            await lease.leaving.wait()
        finally:
            doing.remove(lease.name)

    return Runner(db, [Job(f"{name}/{number}", 0.0, work, shared=True) for number in range(4)], LONG), doing


def test_shared_jobs_are_spread_over_those_who_do_them(db, name, monkeypatch, caplog):
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(runner, "GROUP", f"{name}/sharing")
    if db.dialect == "sqlite":
        pytest.skip("only one process has an SQLite database")

    async def scene() -> None:
        (one, ones), (two, twos), (three, threes) = (sharing(db, name) for _ in range(3))
        one.start()
        await until(lambda: len(ones) == 4)
        two.start()
        await until(lambda: len(ones) == len(twos) == 2)
        three.start()
        await asyncio.sleep(0.5)
        await until(lambda: len(ones) + len(twos) + len(threes) == 4)
        assert len(ones | twos | threes) == 4, "none is done by two"
        await one.stop()
        assert not ones
        await until(lambda: len(twos) == len(threes) == 2)
        await three.stop()
        await until(lambda: len(twos) == 4)
        await two.stop()
        assert (
            db.read_sync(lambda tx: tx.all("SELECT name FROM leases WHERE name LIKE ? AND holder <> ''", (f"{name}%",)))
            == []
        )

    play(scene)
    assert not caplog.records, "nothing was broken off"


def test_the_part_of_who_has_died_is_taken_over(db, name, monkeypatch):
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(runner, "GROUP", f"{name}/sharing")
    if db.dialect == "sqlite":
        pytest.skip("only one process has an SQLite database")

    async def scene() -> None:
        one, ones = sharing(db, name)
        elsewhere = "another.example/0123456789ab/1/00000000"
        await db.write(partial(leases.attend, group=f"{name}/sharing", holder=elsewhere, ms=600_000))
        one.start()
        await until(lambda: len(ones) == 2)
        over = "UPDATE leases SET until = 0 WHERE name = ? AND holder = ?"
        await db.write(lambda tx: tx.run(over, (f"{name}/sharing/{elsewhere}", elsewhere)))
        await until(lambda: len(ones) == 4)
        await one.stop()

    play(scene)


@pytest.mark.parametrize("patient", [True, False])
def test_a_stop_waits_for_shared_jobs_but_not_for_ever(db, name, monkeypatch, patient):
    begun: list[str] = []
    finished: list[str] = []
    enough = False

    async def work(lease: Lease) -> None:
        begun.append(lease.name)
        await lease.leaving.wait()
        while not enough:
            await asyncio.sleep(0.01)
        finished.append(lease.name)

    def held() -> int:
        return sum(bool(run_of(db, f"{name}/{number}").get("holder")) for number in range(4))

    async def scene() -> None:
        nonlocal enough
        one = Runner(db, [Job(f"{name}/{number}", 0.0, work, shared=True) for number in range(4)], LONG)
        begun.clear()
        one.start()
        await until(lambda: len(begun) == 4)
        stopping = asyncio.create_task(one.stop())
        await asyncio.sleep(0.05)
        enough = patient
        await stopping

    # So long it also may take to give a lease back: more on a machine that needs it.
    for seconds in [120.0] if patient else [0.2, 5.0, 30.0]:
        monkeypatch.setattr(runner, "STOP_SECONDS", seconds)
        db.write_sync(lambda tx: tx.run("DELETE FROM leases WHERE name LIKE ?", (f"{name}/%",)))
        play(scene)
        if not held():
            break
    assert held() == 0
    assert len(finished) == (4 if patient else 0)
