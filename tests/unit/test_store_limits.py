"""What one unit of work may take from the others: of the only writer, of the event loop, of the places of readers."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from taskade_server.store import sqlite
from taskade_server.store.database import Database, Overloaded, QueryTooExpensive, Tx, Unavailable, connect
from taskade_server.store.postgresql import PostgresDatabase
from taskade_server.store.sqlite import SqliteDatabase
from taskade_server.store.turns import CALLER

from tests.support.postgres import PostgreSQL

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
MUCH, FAR_TOO_MUCH = 1_000_000, 10**12


def counting(steps: int, seen: list[int], row: int | None = None, *, before: bool = False) -> Callable[[Tx], int]:
    """A unit with a query of so many steps, and a row that it writes before or after it."""

    def unit(tx: Tx) -> int:
        seen.append(threading.get_ident())
        if row is not None and before:
            tx.run("INSERT INTO t VALUES (?)", (row,))
        found = tx.one(ENDLESS, (steps,))
        if row is not None and not before:
            tx.run("INSERT INTO t VALUES (?)", (row,))
        return int(found[0]) if found else 0

    return unit


def add(row: int) -> Callable[[Tx], int]:
    return lambda tx: tx.run("INSERT INTO t VALUES (?)", (row,))


def hold(inside: threading.Semaphore, leave: threading.Event) -> Callable[[Tx], None]:
    """A unit that takes as long as its test wants it to."""

    def unit(tx: Tx) -> None:
        inside.release()
        leave.wait(20)

    return unit


def rows(tx: Tx) -> list[int]:
    return [row[0] for row in tx.all("SELECT a FROM t ORDER BY a")]


Scene = Callable[[Database], Coroutine[Any, Any, None]]


async def with_table(db: Database, scene: Scene) -> None:
    async with db:
        await db.write(lambda tx: tx.script("CREATE TABLE t (a INTEGER)"))
        await scene(db)


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], None]:
    """Runs a scene on a database with an empty table `t`."""
    return lambda scene: asyncio.run(with_table(SqliteDatabase(tmp_path / "x.db"), scene))


@pytest.fixture
def play_on_postgresql(postgres: PostgreSQL) -> Iterator[Callable[[Scene], None]]:
    """The same on the other kind, with four places for writing and four for reading."""
    url = postgres.create_database()
    yield lambda scene: asyncio.run(with_table(PostgresDatabase(url, pool_size=8), scene))
    postgres.drop_database(url)


@pytest.mark.parametrize("before", [False, True])
def test_a_long_query_within_a_change_leaves_the_loop(play, before):
    async def scene(db: Database) -> None:
        seen: list[int] = []
        units = [db.write(add(1)), db.write(counting(MUCH, seen, 2, before=before)), db.write(add(3))]
        assert await asyncio.gather(*units) == [1, MUCH, 1]
        assert await db.read(rows) == [1, 2, 3], "each once"
        assert seen[0] == threading.get_ident() != seen[-1]

    play(scene)


def test_a_short_query_within_a_change_stays_on_the_loop(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []
        assert await db.write(counting(1000, seen, 1)) == 1000
        assert seen == [threading.get_ident()]

    play(scene)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_an_endless_query_within_a_change_is_stopped(play, monkeypatch, before, heavy):
    monkeypatch.setattr(sqlite, "WRITER_SECONDS", 0.05)

    async def scene(db: Database) -> None:
        units = [
            db.write(add(1)), db.write(counting(FAR_TOO_MUCH, [], 2, before=before), heavy=heavy), db.write(add(3)),
        ]  # fmt: skip
        ends = await asyncio.gather(*units, return_exceptions=True)
        assert [type(end) for end in ends] == [int, QueryTooExpensive, int]
        assert await db.read(rows) == [1, 3]

    play(scene)


def test_what_a_change_writes_may_take_as_long_as_it_takes(play, monkeypatch):
    monkeypatch.setattr(sqlite, "WRITER_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "WRITER_TICKS", 0)

    async def scene(db: Database) -> None:
        many = [(number,) for number in range(200_000)]
        await db.write(lambda tx: tx.many("INSERT INTO t VALUES (?)", many))
        assert await db.write(lambda tx: tx.run("UPDATE t SET a = a + 1")) == 200_000
        await db.write(lambda tx: tx.script("CREATE INDEX t_a ON t (a)"))

    play(scene)


def test_commands_have_all_the_time_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "WRITER_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "THREAD_SECONDS", 0.0)
    with connect(tmp_path / "x.db", patient=True) as db:
        db.write_sync(lambda tx: tx.script("CREATE TABLE t (a INTEGER)"))
        assert db.write_sync(counting(3 * MUCH, [], 1)) == 3 * MUCH
        assert db.read_sync(counting(3 * MUCH, [])) == 3 * MUCH
        assert asyncio.run(db.write(counting(3 * MUCH, []), heavy=True)) == 3 * MUCH


def test_reading_is_limited_in_time_not_only_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "THREAD_SECONDS", 0.05)
    with SqliteDatabase(tmp_path / "x.db", thread_ticks=10**9) as db:
        with pytest.raises(QueryTooExpensive):
            db.read_sync(counting(100 * MUCH, []))
        assert db.read_sync(lambda tx: tx.one("SELECT 1")) == (1,)


def test_asking_for_changes_in_the_midst_of_a_unit_does_not_lift_its_budget(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []

        def unit(tx: Tx) -> int:
            db.changed()
            return counting(MUCH, seen)(tx)

        assert await db.read(unit) == MUCH
        assert seen[0] == threading.get_ident() != seen[-1]

    play(scene)


def test_short_changes_pass_by_heavy_ones(play):
    async def scene(db: Database) -> None:
        order: list[str] = []

        async def write(name: str, heavy: bool) -> None:
            await db.write(lambda tx: time.sleep(0.02) if heavy else None, heavy=heavy)
            order.append(name)

        names = [("h1", True), ("h2", True), ("h3", True), ("s1", False), ("s2", False)]
        await asyncio.gather(*(write(*one) for one in names))
        assert order.index("s1") < order.index("h2") < order.index("h3")
        assert order.index("s2") < order.index("h2")

    play(scene)


def test_heavy_changes_are_not_passed_by_for_ever(play):
    async def scene(db: Database) -> None:
        order: list[str] = []

        async def write(name: str, heavy: bool) -> None:
            await db.write(lambda tx: None, heavy=heavy)
            order.append(name)

        short = [write("short", False) for _ in range(3 * sqlite.GROUP_UNITS)]
        await asyncio.gather(*short, write("heavy", True))
        assert order.index("heavy") < len(order) - 1

    play(scene)


def test_changes_that_have_waited_too_long_are_refused_unrun(play, monkeypatch):
    monkeypatch.setattr(sqlite, "QUEUE_SECONDS", 0.02)

    async def scene(db: Database) -> None:
        first = asyncio.create_task(db.write(lambda tx: time.sleep(0.1), heavy=True))
        await asyncio.sleep(0.01)
        late = [db.write(add(1)), db.write(add(2), heavy=True), db.write(add(3))]
        ends = await asyncio.gather(*late, return_exceptions=True)
        assert {type(end) for end in ends} == {Overloaded}
        await first
        await db.write(add(4))
        assert await db.read(rows) == [4]

    play(scene)


def test_so_many_heavy_changes_may_wait(play):
    async def scene(db: Database) -> None:
        units = [db.write(add(number), heavy=True) for number in range(sqlite.HEAVY_LIMIT + 1)]
        ends = await asyncio.gather(*units, return_exceptions=True)
        assert [type(end) for end in ends] == [int] * sqlite.HEAVY_LIMIT + [Overloaded]
        assert await db.write(add(1000)) == 1

    play(scene)


def test_one_caller_cannot_take_every_reader(play):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()

        async def ask(caller: str, unit: Callable[[Tx], Any]) -> Any:
            CALLER.set(lambda: caller)
            return await db.read(unit, heavy=True)

        greedy = [asyncio.create_task(ask("ana", hold(inside, leave))) for _ in range(10)]
        for _ in range(3):
            assert await asyncio.to_thread(inside.acquire, timeout=20)
        assert await ask("tom", rows) == [], "while hers go on"
        assert not any(task.done() for task in greedy)
        leave.set()
        await asyncio.gather(*greedy)

    play(scene)


def test_one_caller_cannot_take_every_writer(play_on_postgresql):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()

        async def ask(caller: str, unit: Callable[[Tx], Any]) -> Any:
            CALLER.set(lambda: caller)
            return await db.write(unit)

        greedy = [asyncio.create_task(ask("ana", hold(inside, leave))) for _ in range(10)]
        for _ in range(3):
            assert await asyncio.to_thread(inside.acquire, timeout=20)
        assert await ask("tom", add(1)) == 1, "while hers go on"
        assert not any(task.done() for task in greedy)
        leave.set()
        await asyncio.gather(*greedy)

    play_on_postgresql(scene)


def test_closing_answers_the_readers_that_wait(play):
    async def scene(db: Database) -> None:
        reads = [asyncio.create_task(db.read(counting(1000, []), heavy=True)) for _ in range(20)]
        await asyncio.sleep(0)
        await db.close()
        ends = await asyncio.gather(*reads, return_exceptions=True)
        assert all(end == 1000 or isinstance(end, Unavailable) for end in ends), ends

    play(scene)


def test_closing_waits_for_all_who_came_before(play_on_postgresql):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()
        first = asyncio.create_task(db.write(hold(inside, leave)))
        later = [asyncio.create_task(db.write(add(number))) for number in range(20)]
        reads = [asyncio.create_task(db.read(counting(1000, []))) for _ in range(20)]
        assert await asyncio.to_thread(inside.acquire, timeout=20)
        closing = [asyncio.create_task(db.close()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await db.write(add(100))
        assert not any(task.done() for task in closing)
        leave.set()
        await asyncio.gather(*closing)
        assert await asyncio.gather(first, *later, *reads) == [None, *[1] * 20, *[1000] * 20]
        db.open_sync()
        assert await db.read(rows) == list(range(20)), "it can be opened again"

    play_on_postgresql(scene)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_closing_twice_at_once_and_giving_one_up(request, kind):
    async def scene(db: Database) -> None:
        unit = asyncio.create_task(db.write(lambda tx: time.sleep(0.05), heavy=True))
        read = asyncio.create_task(db.read(counting(MUCH, []), heavy=True))
        await asyncio.sleep(0.01)
        closing = [asyncio.create_task(db.close()) for _ in range(3)]
        await asyncio.sleep(0)
        closing[1].cancel()
        ends = await asyncio.gather(unit, read, *closing, return_exceptions=True)
        assert ends[0] is None
        assert [type(end) for end in ends[2:]] == [type(None), asyncio.CancelledError, type(None)]
        await db.close()

    request.getfixturevalue("play" if kind == "sqlite" else "play_on_postgresql")(scene)
