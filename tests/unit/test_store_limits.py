"""What one unit of work may take from the others: of the only writer, of the event loop, of the places of readers."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from taskade_server.kit.budget import LIGHT, READ, WRITE, BudgetSpent
from taskade_server.store.database import Database, Overloaded, QueryTooExpensive, Tx, Unavailable, connect
from taskade_server.store.postgresql import PostgresDatabase
from taskade_server.store.sqlite import database as sqlite
from taskade_server.store.sqlite import write_queue, writer
from taskade_server.store.sqlite.database import SqliteDatabase

from tests.support.postgres import PostgreSQL

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
MUCH, FAR_TOO_MUCH = 1_000_000, 10**12
# Too much for the loop, but within the budget of a change.
SOME = 60_000


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
        leave.wait(60)

    return unit


def rows(tx: Tx) -> list[int]:
    return [row[0] for row in tx.all("SELECT a FROM t ORDER BY a")]


Scene = Callable[[Database], Coroutine[Any, Any, None]]


async def with_table(db: Database, scene: Scene) -> None:
    async with db:
        await db.write(lambda tx: tx.script("CREATE TABLE t (a INTEGER)"))
        await scene(db)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], None]:
    """Runs a scene on a database with an empty table `t`. A test that is about a limit of time sets it itself."""
    for module, limit in (
        (write_queue, "WRITER_SECONDS"),
        (sqlite, "THREAD_SECONDS"),
        (sqlite, "READ_QUEUE_SECONDS"),
        (writer, "QUEUE_SECONDS"),
    ):
        monkeypatch.setattr(module, limit, 600.0)
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
        units = [db.write(add(1)), db.write(counting(SOME, seen, 2, before=before)), db.write(add(3))]
        assert await asyncio.gather(*units) == [1, SOME, 1]
        assert await db.read(rows) == [1, 2, 3], "each once"
        assert seen[0] == threading.get_ident() != seen[-1]

    play(scene)


def spending(steps: int, seen: list[int], row: int) -> Callable[[Tx], int]:
    """A unit that does work in Python, in portions of a thousand steps, behind a row that it writes."""

    def unit(tx: Tx) -> int:
        seen.append(threading.get_ident())
        tx.run("INSERT INTO t VALUES (?)", (row,))
        for _ in range(0, steps, 1000):
            tx.budget.spend(1000)
        return tx.budget.used

    return unit


def test_work_in_python_leaves_the_loop_as_a_long_query_does(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []
        assert await db.write(spending(LIGHT, seen, 1)) == LIGHT
        assert seen == [threading.get_ident()]
        units = [db.write(add(2)), db.write(spending(LIGHT + 1000, seen, 3)), db.write(add(4))]
        assert await asyncio.gather(*units) == [1, LIGHT + 1000, 1]
        assert seen[1] == threading.get_ident() != seen[-1]
        assert await db.read(rows) == [1, 2, 3, 4], "each once"

    play(scene)


def test_a_change_that_needs_more_work_than_a_request_may_leaves_nothing_behind(play):
    async def scene(db: Database) -> None:
        assert await db.write(spending(WRITE, [], 1), heavy=True) == WRITE
        for heavy in (False, True):
            with pytest.raises(BudgetSpent):
                await db.write(spending(WRITE + 1000, [], 2), heavy=heavy)
        assert await db.read(rows) == [1]

    play(scene)


def test_postgresql_counts_the_same(play_on_postgresql):
    async def scene(db: Database) -> None:
        assert await db.write(spending(WRITE, [], 1)) == WRITE
        with pytest.raises(BudgetSpent):
            await db.write(spending(WRITE + 1000, [], 2))
        with pytest.raises(BudgetSpent):
            await db.read(lambda tx: tx.budget.spend(READ + 1))
        assert await db.read(rows) == [1]

    play_on_postgresql(scene)


def test_a_read_that_works_in_python_leaves_the_loop_and_ends_at_its_budget(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []

        def unit(tx: Tx) -> None:
            seen.append(threading.get_ident())
            tx.budget.spend(LIGHT + 1)

        await db.read(unit)
        assert seen[0] == threading.get_ident() != seen[1]
        with pytest.raises(BudgetSpent):
            await db.read(lambda tx: tx.budget.spend(READ + 1))

    play(scene)


def test_looking_for_texts_in_long_documents_is_charged_by_their_length(play):
    document = '{"m": {"a": "x", "b": ["x"]}, "long": "' + "y" * 1_000_000 + '"}'
    again = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count({}) FROM n"
    seen = []

    def unit(key, times):
        def run(tx):
            seen.append(threading.get_ident())
            # Another document each time, or SQLite would ask once for all rows.
            found = tx.one(again.format("text_at(? || substr(' ', 1, i % 2), 'm', ?)"), (times, document, key))
            return found[0], tx.budget.used

        return run

    async def scene(db: Database) -> None:
        assert await db.read(lambda tx: tx.one("SELECT text_at(?, 'm', 'b')", ('{"m": {"b": ["x"]}}',))) == (None,)
        found, used = await db.read(unit("a", 10))
        assert found == 10
        assert used >= 10 * len(document) // 250
        assert seen[-1] != threading.get_ident(), "it stayed on the loop"
        with pytest.raises(QueryTooExpensive):
            await db.read(unit("a", 10**9))
        assert (await db.read(unit("b", 1)))[0] == 0

    play(scene)


def test_a_spent_budget_interrupts_nothing_but_its_own_unit(play):
    """What looks for changes uses the connection of the unit, between units and within them, for as long as it runs."""

    async def scene(db: Database) -> None:
        def overdrawn(tx: Tx) -> None:
            if threading.get_ident() == here:
                tx.budget.left = -1
                looks.extend(db.data_version() for _ in range(20_000))
                raise BudgetSpent

        here, looks = threading.get_ident(), list[int]()
        await db.read(overdrawn)
        looks.extend(db.data_version() for _ in range(20_000))
        assert len(looks) == 40_000 and set(looks) == {db.data_version()}

    play(scene)


def test_heavy_changes_take_turns_by_caller(play):
    async def scene(db: Database) -> None:
        order: list[str] = []

        async def ask(name: str) -> None:
            await db.write(lambda tx: order.append(name), heavy=True, caller=name[0])

        asked = [ask(name) for name in ("a1", "a2", "a3", "a4", "b1")]
        await asyncio.gather(*asked)
        assert order.index("b1") <= 1
        assert [name for name in order if name[0] == "a"] == ["a1", "a2", "a3", "a4"]

    play(scene)


def test_one_caller_cannot_fill_the_queue_of_heavy_changes(play, monkeypatch):
    monkeypatch.setattr(write_queue, "HEAVY_LIMIT", 4)

    async def scene(db: Database) -> None:
        async def ask(caller: str) -> None:
            await db.write(lambda tx: None, heavy=True, caller=caller)

        ends = await asyncio.gather(*(ask(name) for name in "aaaab"), return_exceptions=True)
        assert [type(end) for end in ends] == [type(None)] * 2 + [Overloaded] * 2 + [type(None)]

    play(scene)


def test_a_query_and_work_in_python_share_one_budget(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []
        await db.write(counting(SOME // 10, seen, 1))
        assert len(seen) == 1, "neither is too much alone"
        await db.write(spending(LIGHT - 1000, seen, 2))
        assert len(seen) == 2

        def both(tx: Tx) -> None:
            spending(LIGHT - 1000, seen, 3)(tx)
            counting(SOME // 10, seen)(tx)

        await db.write(both)
        assert seen[2] == threading.get_ident() != seen[-1]

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
    monkeypatch.setattr(write_queue, "WRITER_SECONDS", 0.05)

    async def scene(db: Database) -> None:
        units = [
            db.write(add(1)), db.write(counting(FAR_TOO_MUCH, [], 2, before=before), heavy=heavy), db.write(add(3)),
        ]  # fmt: skip
        ends = await asyncio.gather(*units, return_exceptions=True)
        assert [type(end) for end in ends] == [int, QueryTooExpensive, int]
        assert await db.read(rows) == [1, 3]

    play(scene)


def test_what_a_change_writes_may_take_as_long_as_it_takes(play, monkeypatch):
    monkeypatch.setattr(write_queue, "WRITER_SECONDS", 0.0)
    monkeypatch.setattr(writer, "WRITER_COST", 10**12)  # the first tick spends any budget

    async def scene(db: Database) -> None:
        many = [(number,) for number in range(200_000)]
        await db.write(lambda tx: tx.many("INSERT INTO t VALUES (?)", many))
        assert await db.write(lambda tx: tx.run("UPDATE t SET a = a + 1")) == 200_000
        await db.write(lambda tx: tx.script("CREATE INDEX t_a ON t (a)"))

    play(scene)


def test_commands_have_all_the_time_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr(write_queue, "WRITER_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "THREAD_SECONDS", 0.0)
    with connect(tmp_path / "x.db", patient=True) as db:
        db.write_sync(lambda tx: tx.script("CREATE TABLE t (a INTEGER)"))
        assert db.write_sync(counting(MUCH, [], 1)) == MUCH
        assert db.read_sync(counting(MUCH, [])) == MUCH
        assert asyncio.run(db.write(counting(MUCH, []), heavy=True)) == MUCH


def test_reading_is_limited_in_time_not_only_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "THREAD_SECONDS", 0.05)
    with SqliteDatabase(tmp_path / "x.db", read_steps=10**13) as db:
        with pytest.raises(QueryTooExpensive):
            db.read_sync(counting(100 * MUCH, []))
        assert db.read_sync(lambda tx: tx.one("SELECT 1")) == (1,)


def test_asking_for_changes_in_the_midst_of_a_unit_does_not_lift_its_budget(play):
    async def scene(db: Database) -> None:
        seen: list[int] = []

        def unit(tx: Tx) -> int:
            db.data_version()
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

        short = [write("short", False) for _ in range(3 * write_queue.GROUP_UNITS)]
        await asyncio.gather(*short, write("heavy", True))
        assert order.index("heavy") < len(order) - 1

    play(scene)


def test_changes_that_have_waited_too_long_are_refused_unrun(play, monkeypatch):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()
        first = asyncio.create_task(db.write(hold(inside, leave), heavy=True))
        assert await asyncio.to_thread(inside.acquire, timeout=60)
        with monkeypatch.context() as patched:
            patched.setattr(writer, "QUEUE_SECONDS", 0.02)
            units = (db.write(add(1)), db.write(add(2), heavy=True), db.write(add(3)))
            late = [asyncio.create_task(unit) for unit in units]
            await asyncio.sleep(0.1)
        leave.set()
        ends = await asyncio.gather(*late, return_exceptions=True)
        assert {type(end) for end in ends} == {Overloaded}
        await first
        await db.write(add(4))
        assert await db.read(rows) == [4]

    play(scene)


def test_so_many_heavy_changes_may_wait(play):
    async def scene(db: Database) -> None:
        units = [db.write(add(number), heavy=True) for number in range(write_queue.HEAVY_LIMIT + 1)]
        ends = await asyncio.gather(*units, return_exceptions=True)
        assert [type(end) for end in ends] == [int] * write_queue.HEAVY_LIMIT + [Overloaded]
        assert await db.write(add(1000)) == 1

    play(scene)


def test_one_caller_cannot_take_every_reader(play):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()

        async def ask(caller: str, unit: Callable[[Tx], Any]) -> Any:
            return await db.read(unit, heavy=True, caller=caller)

        greedy = [asyncio.create_task(ask("ana", hold(inside, leave))) for _ in range(10)]
        for _ in range(3):
            assert await asyncio.to_thread(inside.acquire, timeout=60)
        assert await ask("tom", rows) == [], "while hers go on"
        assert not any(task.done() for task in greedy)
        leave.set()
        await asyncio.gather(*greedy, return_exceptions=True)  # on a busy machine some have waited too long

    play(scene)


def test_one_caller_cannot_take_every_writer(play_on_postgresql):
    async def scene(db: Database) -> None:
        inside, leave = threading.Semaphore(0), threading.Event()

        async def ask(caller: str, unit: Callable[[Tx], Any]) -> Any:
            return await db.write(unit, caller=caller)

        greedy = [asyncio.create_task(ask("ana", hold(inside, leave))) for _ in range(10)]
        for _ in range(3):
            assert await asyncio.to_thread(inside.acquire, timeout=60)
        assert await ask("tom", add(1)) == 1, "while hers go on"
        assert not any(task.done() for task in greedy)
        leave.set()
        await asyncio.gather(*greedy, return_exceptions=True)  # on a busy machine some have waited too long

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
        assert await asyncio.to_thread(inside.acquire, timeout=60)
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


class Held:
    """Something that a unit holds, and that a test can ask whether it is still there."""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("error", [BudgetSpent, ValueError])
@pytest.mark.parametrize("way", ["read", "write"])
def test_what_a_failed_unit_held_goes_without_the_garbage_collector(request, kind, heavy, error, way):
    """Or a collection would end thousands of documents at once, on whatever thread it happens to run."""
    kept: list[weakref.ref[Held]] = []

    def unit(tx: Tx) -> None:
        held = Held()
        kept.append(weakref.ref(held))
        if way == "write":
            tx.run("INSERT INTO t VALUES (1)")
        tx.all("SELECT a FROM t")
        raise error(str(held))

    async def scene(db: Database) -> None:
        gc.collect()
        gc.disable()
        try:
            for _ in range(2):
                with suppress(error):
                    await (db.write(unit, heavy=heavy) if way == "write" else db.read(unit, heavy=heavy))
            for _ in range(1000):  # a thread may be about to leave its frame
                if any(ref() is not None for ref in kept):
                    await asyncio.sleep(0.01)
            assert [ref() for ref in kept if ref() is not None] == []
        finally:
            gc.enable()

    request.getfixturevalue("play" if kind == "sqlite" else "play_on_postgresql")(scene)


def test_heavy_changes_in_a_group_run_once_each_even_when_one_fails(play, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_SECONDS", 600.0)

    async def scene(db: Database) -> None:
        seen: list[int] = []
        units = [db.write(spending(1000, seen, row), heavy=True) for row in (1, 2)]
        units[1:1] = [db.write(spending(WRITE + 1000, seen, 3), heavy=True)]
        first, spent, last = await asyncio.gather(*units, return_exceptions=True)
        assert (first, last) == (1000, 1000) and isinstance(spent, BudgetSpent)
        assert len(seen) == 3
        assert await db.read(rows) == [1, 2]

    play(scene)


def test_changes_are_written_during_a_checkpoint(play, monkeypatch):
    inside, leave = threading.Semaphore(0), threading.Event()
    advance = writer.Checkpointer.advance

    def slowly(self: writer.Checkpointer) -> None:
        inside.release()
        leave.wait(600)
        advance(self)

    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 1)
    monkeypatch.setattr(writer.Checkpointer, "advance", slowly)

    async def scene(db: Database) -> None:
        try:
            for row in range(5):  # one of them begins a checkpoint, which cannot go on
                await asyncio.wait_for(db.write(add(row)), 60)
            assert inside.acquire(timeout=60)
            assert await asyncio.wait_for(db.write(add(5)), 60) == 1
        finally:
            leave.set()
        assert await db.write(add(6)) == 1
        assert await db.read(rows) == list(range(7))

    play(scene)
