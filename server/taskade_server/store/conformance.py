"""What every database must do, as a test suite that ships: subclass it, and give its tests a factory.

Why it ships: two drivers that agree on paper drift apart in practice, and whoever writes a third one needs to know
what the layers above rely on. Each `test_` method takes a function that returns another, unopened `Database` on the
same storage, which is empty when the test begins.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import apsw

from taskade_server.store.interface import (
    BadQuery,
    ChangedMigration,
    Conflict,
    ConstraintFailed,
    Corrupt,
    Database,
    NewerDatabase,
    OutcomeUnknown,
    Overloaded,
    QueryTooExpensive,
    StorageFull,
    StoreError,
    Tx,
    Unavailable,
)
from taskade_server.store.schema import Migration, migrate, render

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

SCHEMA = """
    CREATE TABLE items (id {{bigint}} NOT NULL PRIMARY KEY, name {{text}} NOT NULL UNIQUE, part {{bigint}} NOT NULL,
        place {{bigint}} NOT NULL, UNIQUE (part, place)) {{strict}};
    CREATE TABLE counters (id {{bigint}} NOT NULL PRIMARY KEY, value {{bigint}} NOT NULL) {{strict}};
    INSERT INTO counters (id, value) VALUES (1, 0), (2, 0);
"""
ADD = "INSERT INTO items (id, name, part, place) VALUES (?, ?, ?, ?)"


class Factory(Protocol):
    """Another `Database` on the storage of this test."""

    def __call__(self, **options: Any) -> Database: ...


def item(number: int) -> tuple[int, str, int, int]:
    return (number, f"item {number}", 1, number)


def add(*numbers: int) -> Callable[[Tx], None]:
    """A unit that adds these items."""
    return lambda tx: tx.many(ADD, [item(number) for number in numbers])


def add_row(row: tuple[Any, ...]) -> Callable[[Tx], int]:
    return lambda tx: tx.run(ADD, row)


def ids(tx: Tx) -> list[int]:
    return [row[0] for row in tx.all("SELECT id FROM items ORDER BY id")]


def bump(counter: int) -> Callable[[Tx], int]:
    """A unit that counts up by one, and returns the new value."""

    def unit(tx: Tx) -> int:
        row = tx.one(f"SELECT value FROM counters WHERE id = ?{tx.for_update}", (counter,))
        value: int = row[0] + 1 if row else 0
        tx.run("UPDATE counters SET value = ? WHERE id = ?", (value, counter))
        return value

    return unit


def raised(kind: type[E], call: Callable[..., Any], *arguments: Any) -> E:
    """The error of this kind that the call must raise."""
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


async def failed(kind: type[E], call: Coroutine[Any, Any, Any]) -> E:
    """The error of this kind that the awaited call must raise."""
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def with_database(factory: Factory, test: Callable[[Database], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run an asynchronous test on an open database that has the schema above."""

    async def main() -> None:
        async with factory(**options) as db:
            await db.write(lambda tx: tx.script(render(SCHEMA, tx.dialect)))
            await test(db)

    asyncio.run(main())


@contextmanager
def prepared(factory: Factory) -> Iterator[Database]:
    """An open database that has the schema above, for synchronous tests."""
    with factory() as db:
        db.write_sync(lambda tx: tx.script(render(SCHEMA, tx.dialect)))
        yield db


class Conformance:
    """What holds for every database."""

    # -- values and statements

    def test_values_come_back_as_they_were(self, factory: Factory) -> None:
        table = "CREATE TABLE kinds (n {{identity}}, i {{bigint}}, r {{real}}, t {{text}}, b {{blob}}) {{strict}}"
        rows = [
            (0, 0.0, "", b""),
            (2**63 - 1, 1e308, "Grüße, 世界 🎉 'quoted' \"twice\" ? % \\ $1", bytes(range(256))),
            (-(2**63), -0.5, "line\nline", b"\0"),
            (None, None, None, None),
        ]
        with factory() as db:
            db.write_sync(lambda tx: tx.script(render(table, tx.dialect)))
            db.write_sync(lambda tx: tx.many("INSERT INTO kinds (i, r, t, b) VALUES (?, ?, ?, ?)", rows))
            found = db.read_sync(lambda tx: tx.all("SELECT i, r, t, b FROM kinds ORDER BY n"))
            assert found == rows
            assert [[type(value) for value in row] for row in found] == [[type(v) for v in row] for row in rows]
            assert db.read_sync(lambda tx: tx.one("SELECT n FROM kinds WHERE i = ?", (0,))) == (1,)

    def test_a_page_ends_where_it_is_large_enough(self, factory: Factory) -> None:
        rows = [(number, "é" * 1000 * number, 1, number) for number in range(1, 6)]
        sql = "SELECT name AS doc, id, place FROM items WHERE part = ? ORDER BY id LIMIT 4"
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, rows))

            def page(most: int) -> tuple[list[int], bool]:
                found, cut = db.read_sync(lambda tx: tx.page(sql, (1,), most))
                assert all(len(row) == 3 and len(row[0]) == 1000 * row[1] for row in found)
                return [row[1] for row in found], cut

            # The sizes are counted in characters or in bytes, as the database knows them.
            assert page(0) == page(1) == ([1], True)
            assert page(4000) in (([1, 2], True), ([1, 2, 3], True))
            assert page(1_000_000) == ([1, 2, 3, 4], False)
            assert db.read_sync(lambda tx: tx.page(sql, (2,), 0)) == ([], False)
            assert db.write_sync(lambda tx: tx.page(sql, (1,), 1)[1]) is True

    def test_booleans_and_sums_are_integers(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, [(1, "a", True, 1), (2, "b", False, 2)]))
            rows = db.read_sync(lambda tx: tx.all("SELECT part FROM items ORDER BY id"))
            assert rows == [(1,), (0,)] and type(rows[0][0]) is int
            total = db.read_sync(lambda tx: tx.one("SELECT sum(place), count(*) FROM items WHERE part >= ?", (False,)))
            assert total == (3, 2) and type(total[0]) is int

    def test_question_marks_in_text_are_text(self, factory: Factory) -> None:
        query = """SELECT '?', 'it''s ?', "name" AS "a?", '100%' -- why?
                   FROM items WHERE id = ? AND name LIKE ? AND '%s' <> ?"""
        with prepared(factory) as db:
            db.write_sync(add(7))
            row = db.read_sync(lambda tx: tx.one(query, (7, "item%", "x")))
            assert row == ("?", "it's ?", "item 7", "100%")
            row = db.read_sync(lambda tx: tx.one("SELECT substr(name, ?, ?) FROM items", (1, 4)))
            assert row == ("item",)

    def test_rows_and_counts(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(add(1, 2, 3))
            assert db.read_sync(lambda tx: tx.one("SELECT id FROM items WHERE id = ?", (9,))) is None
            assert db.read_sync(lambda tx: tx.all("SELECT id FROM items WHERE id = ?", (9,))) == []
            assert db.write_sync(lambda tx: tx.run("UPDATE items SET part = ? WHERE id > ?", (2, 1))) == 2
            assert db.write_sync(lambda tx: tx.run("DELETE FROM items WHERE id > ?", (5,))) == 0
            assert db.write_sync(lambda tx: tx.all("DELETE FROM items WHERE id < ? RETURNING id", (3,))) in (
                [(1,), (2,)],
                [(2,), (1,)],
            )
            again = f"{ADD} ON CONFLICT (id) DO NOTHING"
            assert db.write_sync(lambda tx: [tx.run(again, item(n)) for n in (3, 4)]) == [0, 1]

    def test_text_sorts_by_bytes(self, factory: Factory) -> None:
        names = ["Zoe", "_", "a", "ab", "b", "É", "é", "\N{PARTY POPPER}"]
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, [(i, name, 1, i) for i, name in enumerate(reversed(names))]))
            assert [row[0] for row in db.read_sync(lambda tx: tx.all("SELECT name FROM items ORDER BY name"))] == names

    # -- errors

    def test_a_conflict_names_the_key(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(add(1))
            for row, columns in (
                ((1, "x", 5, 5), ("id",)),
                ((2, "item 1", 5, 5), ("name",)),
                ((2, "x", 1, 1), ("part", "place")),
            ):
                error = raised(Conflict, db.write_sync, add_row(row))
                assert (error.table, error.columns) == ("items", columns)

    def test_errors_have_the_same_kinds(self, factory: Factory) -> None:
        def error(sql: str, *params: Any) -> StoreError:
            return raised(StoreError, db.write_sync, lambda tx: tx.run(sql, params))

        with prepared(factory) as db:
            assert type(error(ADD, 1, None, 1, 1)) is ConstraintFailed
            assert type(error(ADD, 2**63, "x", 1, 1)) is ConstraintFailed
            assert type(error(ADD, 1, "\ud83d", 1, 1)) is ConstraintFailed
            assert type(error("INSERT INTO nothing (id) VALUES (?)", 1)) is BadQuery
            assert type(error("SELEC ?", 1)) is BadQuery
            assert type(error(ADD, 1)) is BadQuery

    def test_a_failed_statement_spoils_its_unit(self, factory: Factory) -> None:
        def swallow(tx: Tx) -> None:
            tx.run(ADD, item(2))
            raised(Conflict, tx.run, ADD, item(1))

        def go_on(tx: Tx) -> None:
            swallow(tx)
            raised(BadQuery, tx.run, ADD, item(3))
            raised(BadQuery, tx.all, "SELECT 1")
            raised(BadQuery, tx.many, ADD, [item(3)])

        with prepared(factory) as db:
            db.write_sync(add(1))
            for unit in (swallow, go_on):
                raised(Conflict, db.write_sync, unit)
            assert db.read_sync(ids) == [1]

    def test_a_savepoint_undoes_what_is_inside_it(self, factory: Factory) -> None:
        called: list[int] = []

        def attempt(tx: Tx, number: int) -> None:
            with tx.savepoint():
                tx.before_commit.append(lambda: called.append(number))
                tx.defer(ADD, [item(number + 100)])
                tx.run(ADD, item(number + 10))
                tx.run(ADD, item(number))

        def unit(tx: Tx) -> None:
            tx.run(ADD, item(2))
            raised(Conflict, attempt, tx, 1)
            attempt(tx, 3)
            with tx.savepoint():
                raised(Conflict, attempt, tx, 2)
                tx.run(ADD, item(4))

        with prepared(factory) as db:
            db.write_sync(add(1))
            db.write_sync(unit)
            assert db.read_sync(ids) == [1, 2, 3, 4, 13, 103]
            assert called == [3]

    def test_a_read_cannot_write(self, factory: Factory) -> None:
        with prepared(factory) as db:
            raised(BadQuery, db.read_sync, add(1))
            raised(BadQuery, db.read_sync, lambda tx: tx.run("DELETE FROM items"))
            raised(BadQuery, db.read_sync, lambda tx: tx.defer(ADD, [item(1)]))
            assert db.read_sync(lambda tx: tx.writable) is False
            assert db.write_sync(lambda tx: tx.writable) is True

    def test_a_unit_of_work_cannot_be_kept(self, factory: Factory) -> None:
        with prepared(factory) as db:
            for tx in (db.write_sync(lambda tx: tx), db.read_sync(lambda tx: tx)):
                raised(BadQuery, tx.all, "SELECT 1")
                raised(BadQuery, tx.many, ADD, [item(1)])

    def test_a_closed_database_says_so(self, factory: Factory) -> None:
        async def main() -> None:
            await failed(Unavailable, db.read(ids))
            await failed(Unavailable, db.write(add(1)))
            await db.close()

        with prepared(factory) as db:
            pass
        raised(Unavailable, db.read_sync, ids)
        raised(Unavailable, db.write_sync, add(1))
        asyncio.run(main())

    # -- units of work

    def test_a_failing_unit_leaves_its_neighbours_alone(self, factory: Factory) -> None:
        def broken(number: int) -> Callable[[Tx], None]:
            def unit(tx: Tx) -> None:
                tx.run(ADD, item(number))
                if number % 4 == 0:
                    raise LookupError(number)
                if number % 4 == 2:
                    tx.run(ADD, item(number))
                if number % 8 == 1:
                    raise StopIteration

            return unit

        async def test(db: Database) -> None:
            results = await asyncio.gather(*(db.write(broken(n)) for n in range(40)), return_exceptions=True)
            kinds = [LookupError, RuntimeError, Conflict, type(None)]
            for number, result in enumerate(results):
                kind = type(None) if number % 8 == 5 else kinds[number % 4]
                assert type(result) is kind, (number, result)
            assert await db.read(ids) == [n for n in range(40) if n % 8 in (3, 5, 7)]

        with_database(factory, test)

    def test_a_reply_comes_after_the_commit(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            with factory() as other:

                async def write(number: int) -> None:
                    await db.write(add(number), heavy=number % 5 == 0)
                    assert number in other.read_sync(ids)

                await asyncio.gather(*(write(number) for number in range(50)))
                error = await failed(Conflict, db.write(add(100, 1)))
                assert error.columns and 100 not in other.read_sync(ids)

        with_database(factory, test)

    def test_a_unit_may_only_read(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            assert await db.write(ids) == []
            assert await db.write(lambda tx: tx.dialect) == db.dialect

        with_database(factory, test)

    def test_units_of_one_task_see_each_other(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            for number in range(20):
                await db.write(add(number))
                assert await db.read(ids) == list(range(number + 1))

        with_database(factory, test)

    def test_hooks_run_at_the_end_of_their_unit(self, factory: Factory) -> None:
        order: list[str] = []

        def unit(tx: Tx) -> None:
            tx.before_commit.append(lambda: order.append("first"))
            tx.before_commit.append(lambda: tx.before_commit.append(lambda: order.append("added by a hook")))
            tx.before_commit.append(lambda: tx.many(ADD, [item(2)]))
            tx.run(ADD, item(1))
            order.append("unit")

        def refused(tx: Tx) -> None:
            tx.run(ADD, item(3))
            tx.before_commit.append(lambda: tx.many(ADD, [item(1)]))

        def broken(tx: Tx) -> None:
            tx.before_commit.append(lambda: order.append("never"))
            raise LookupError

        async def test(db: Database) -> None:
            await db.write(unit)
            calls = (db.write(refused), db.write(broken), db.write(add(4)))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [Conflict, LookupError, type(None)]
            assert order == ["unit", "first", "added by a hook"]
            assert await db.read(ids) == [1, 2, 4]

        with_database(factory, test)

    def test_context_is_fresh_for_each_unit(self, factory: Factory) -> None:
        def unit(tx: Tx) -> int:
            tx.context["n"] = int(str(tx.context.get("n", 0))) + 1
            return int(str(tx.context["n"]))

        async def test(db: Database) -> None:
            assert await asyncio.gather(*(db.write(unit) for _ in range(10))) == [1] * 10

        with_database(factory, test)

    def test_deferred_rows_are_written_in_order(self, factory: Factory) -> None:
        def unit(number: int) -> Callable[[Tx], None]:
            def work(tx: Tx) -> None:
                # Their order matters: the second would find nothing to change, or too much.
                tx.defer(ADD, [item(number)])
                tx.defer("UPDATE items SET place = place + ? WHERE part = 1", [(1000,)])
                tx.defer("UPDATE items SET part = ? WHERE part = 1", [(number + 10,)])
                assert number not in ids(tx)

            return work

        async def test(db: Database) -> None:
            await asyncio.gather(*(db.write(unit(number)) for number in range(8)))
            rows = await db.read(lambda tx: tx.all("SELECT part, place FROM items ORDER BY id"))
            assert rows == [(number + 10, number + 1000) for number in range(8)]

        with_database(factory, test)

    def test_deferred_rows_share_the_fate_of_their_unit(self, factory: Factory) -> None:
        def unit(number: int, deferred: int, fails: bool) -> Callable[[Tx], None]:
            def work(tx: Tx) -> None:
                tx.defer(ADD, [item(deferred)])
                tx.run(ADD, item(number))
                if fails:
                    raise LookupError

            return work

        async def test(db: Database) -> None:
            await db.write(add(1))
            results = await asyncio.gather(
                db.write(unit(2, 102, False)),
                db.write(unit(3, 103, True)),
                db.write(unit(4, 1, False)),  # its deferred row exists: the unit fails, and only this one
                db.write(unit(5, 105, False)),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [type(None), LookupError, Conflict, type(None)]
            assert await db.read(ids) == [1, 2, 5, 102, 105]

        with_database(factory, test)

    def test_a_cancelled_write_is_done_or_not_done(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            tasks = [asyncio.ensure_future(db.write(add(number))) for number in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await db.write(add(100))
            assert set(range(1, 20, 2)) | {100} <= set(await db.read(ids))

        with_database(factory, test)

    def test_closing_finishes_what_is_waiting(self, factory: Factory) -> None:
        async def main() -> list[Any]:
            db = factory()
            await db.open()
            await db.write(lambda tx: tx.script(render(SCHEMA, tx.dialect)))
            writes = [asyncio.ensure_future(db.write(add(number))) for number in range(50)]
            await asyncio.sleep(0)
            await db.close()
            return await asyncio.gather(*writes, return_exceptions=True)

        assert asyncio.run(main()) == [None] * 50
        with factory() as db:
            assert db.read_sync(ids) == list(range(50))

    # -- several at once

    def test_counting_leaves_no_gap(self, factory: Factory) -> None:
        """Threads, tasks and a second `Database` count up one row: every number is given out once."""
        given: list[int] = []

        def command(other: Database) -> None:
            for _ in range(20):
                given.append(other.write_sync(bump(1)))  # noqa: PERF401 - one after the other

        async def test(db: Database) -> None:
            with factory() as other:
                threads = [threading.Thread(target=command, args=(other,)) for _ in range(2)]
                for thread in threads:
                    thread.start()
                given.extend(await asyncio.gather(*(db.write(bump(1), heavy=n % 7 == 0) for n in range(60))))
                await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
            assert sorted(given) == list(range(1, 101))

        with_database(factory, test)

    def test_a_snapshot_does_not_move(self, factory: Factory) -> None:
        with prepared(factory) as db, factory() as other:

            def unit(tx: Tx) -> tuple[list[int], list[int]]:
                before = ids(tx)
                other.write_sync(add(len(before) + 1))
                return before, ids(tx)

            assert db.read_sync(unit, snapshot=True) == ([], [])
            assert db.read_sync(unit) == ([1], [1, 2])

    def test_a_snapshot_on_the_loop_does_not_move(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            with factory() as other:

                def unit(tx: Tx) -> tuple[int, int]:
                    before = len(ids(tx))
                    other.write_sync(add(before + 1))
                    return before, len(ids(tx))

                assert await db.read(unit, snapshot=True) == (0, 0)
                assert await db.read(unit) == (1, 2)
                assert await db.read(unit, snapshot=True, heavy=True) == (2, 2)

        with_database(factory, test)

    def test_change_is_noticed(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            with factory() as other:
                seen = [db.changed()]
                await db.write(add(1))
                seen.append(db.changed())
                await asyncio.to_thread(other.write_sync, add(2))
                seen.append(db.changed())
                still = db.changed()
                assert (still == seen[-1] and len(set(seen)) == 3) or set(seen) == {0}
                assert await db.read(lambda tx: db.changed(), heavy=True) == 0

        with_database(factory, test)

    def test_one_event_loop_after_another(self, factory: Factory) -> None:
        """As soon as a write is answered its loop may end, whatever was still to be done behind it."""
        with prepared(factory) as db:
            for number in range(30):
                asyncio.run(asyncio.wait_for(db.write(add(number)), 30))
            assert db.read_sync(ids) == list(range(30))

    def test_too_many_waiting_writes_are_refused(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            writes = (db.write(lambda tx: None) for _ in range(11_000))
            results = await asyncio.gather(*writes, return_exceptions=True)
            refused = [result for result in results if isinstance(result, Overloaded)]
            assert 1 <= len(refused) <= 1000 and len(refused) + results.count(None) == 11_000
            await db.write(add(1))

        with_database(factory, test)

    # -- migrations

    def test_migrations_are_applied_once_and_in_order(self, factory: Factory) -> None:
        steps = [
            Migration(1, "first", "CREATE TABLE one (id {{bigint}} PRIMARY KEY, t {{text}}) {{strict}};"),
            Migration(
                2,
                "second",
                "INSERT INTO one (id, t) VALUES (1, 'all; of -- it');\n-- only: sqlite\n"
                "INSERT INTO one (id, t) VALUES (2, 'sqlite');\n-- end\n-- only: postgresql\n"
                "INSERT INTO one (id, t) VALUES (2, 'postgresql');\n-- end",
            ),
        ]
        with factory() as db:
            assert migrate(db, steps[:1]) == ["0001_first"]
            assert migrate(db, steps) == ["0002_second"]
            assert migrate(db, steps) == []
            rows = db.read_sync(lambda tx: tx.all("SELECT t FROM one ORDER BY id"))
            assert rows == [("all; of -- it",), (db.dialect,)]
            newest = "SELECT version, name, checksum FROM schema_migrations ORDER BY version DESC"
            assert db.read_sync(lambda tx: tx.one(newest)) == (2, "second", steps[1].checksum)

    def test_a_migration_that_fails_leaves_nothing(self, factory: Factory) -> None:
        good = Migration(1, "good", "CREATE TABLE one (id {{bigint}});")
        bad = Migration(2, "bad", "CREATE TABLE two (id {{bigint}}); INSERT INTO nowhere VALUES (1);")
        with factory() as db:
            raised(BadQuery, migrate, db, [good, bad])
            assert db.read_sync(lambda tx: tx.all("SELECT name FROM schema_migrations")) == [("good",)]
            raised(BadQuery, db.read_sync, lambda tx: tx.all("SELECT * FROM two"))
            assert migrate(db, [good, Migration(2, "mended", "CREATE TABLE two (id {{bigint}});")]) == ["0002_mended"]

    def test_a_newer_or_changed_database_is_refused(self, factory: Factory) -> None:
        steps = [Migration(n, f"step_{n}", f"CREATE TABLE t{n} (id {{{{bigint}}}})") for n in (1, 2)]
        with factory() as db:
            migrate(db, steps)
            raised(NewerDatabase, migrate, db, steps[:1])
            changed = Migration(1, "step_1", steps[0].text + " ")
            raised(ChangedMigration, migrate, db, [changed, steps[1]])

    def test_one_of_many_processes_migrates(self, factory: Factory) -> None:
        steps = [Migration(n, f"step_{n}", f"CREATE TABLE t{n} (id {{{{bigint}}}})") for n in range(1, 6)]
        applied: list[str] = []

        def process() -> None:
            with factory() as db:
                applied.extend(migrate(db, steps))

        threads = [threading.Thread(target=process) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(applied) == [str(step) for step in steps]


class SqliteConformance(Conformance):
    """What only SQLite has to do. Its factory takes the options of `SqliteDatabase`."""

    def test_a_long_query_leaves_the_loop(self, factory: Factory) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT max(i) FROM n"
        threads: list[int] = []

        def count(to: int) -> Callable[[Tx], int]:
            def unit(tx: Tx) -> int:
                threads.append(threading.get_ident())
                row = tx.one(endless, (to,))
                return int(row[0]) if row else 0

            return unit

        def swallow(tx: Tx) -> int:
            try:
                return count(100_000)(tx)
            except StoreError:
                return 0

        async def test(db: Database) -> None:
            here = threading.get_ident()
            assert await db.read(count(100)) == 100
            assert threads == [here]
            assert await db.read(count(100_000)) == 100_000
            assert threads[1] == here != threads[2]
            assert await db.read(swallow) == 100_000
            assert await db.read(count(100), heavy=True) == 100 and threads[-1] != here
            assert await db.read(count(100), snapshot=True) == 100 and threads[-1] == here
            assert await db.read(count(100_000), snapshot=True) == 100_000

        with_database(factory, test)

    def test_an_endless_query_is_stopped(self, factory: Factory) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

        async def test(db: Database) -> None:
            await failed(QueryTooExpensive, db.read(lambda tx: tx.one(endless)))
            assert await db.read(ids) == []

        with_database(factory, test, thread_ticks=20)

    def test_a_failed_commit_stops_everything(self, factory: Factory) -> None:
        """The log cannot be synced: nobody is told that it worked, nor that it did not, and nothing goes on."""
        fatal: list[BaseException] = []
        disk = FaultyDisk()

        async def test(db: Database) -> None:
            await db.write(add(1))
            disk.broken = True
            results = await asyncio.gather(*(db.write(add(n)) for n in (2, 1, 3)), return_exceptions=True)
            assert [type(result) for result in results] == [OutcomeUnknown] * 3
            disk.broken = False
            await asyncio.sleep(0.01)
            assert len(fatal) == 1 and isinstance(fatal[0], apsw.IOError)
            await failed(Unavailable, db.write(add(4)))
            await failed(Unavailable, db.read(ids))
            raised(Unavailable, db.write_sync, add(4))

        with_database(factory, test, vfs=disk.name, on_fatal=fatal.append)
        with factory() as db:
            # What was acknowledged is there, and each of the others wholly or not at all.
            assert db.read_sync(ids) in ([1], [1, 2], [1, 2, 3], [1, 3])
            db.write_sync(add(9))

    def test_a_failed_write_stops_everything(self, factory: Factory) -> None:
        fatal: list[BaseException] = []
        disk = FaultyDisk()

        async def test(db: Database) -> None:
            await db.write(add(1))
            disk.dead = True
            large = [(n, "x" * 10_000 + str(n), 1, n) for n in range(10_000, 15_000)]  # it does not fit the cache
            unit = db.write(lambda tx: tx.many(ADD, large), heavy=True)
            results = await asyncio.gather(unit, db.write(add(2)), return_exceptions=True)
            disk.dead = False
            assert type(results[0]) is OutcomeUnknown and isinstance(results[1], (OutcomeUnknown, Unavailable))
            await asyncio.sleep(0.01)
            assert len(fatal) == 1

        with_database(factory, test, vfs=disk.name, on_fatal=fatal.append)
        with factory() as db:
            assert db.read_sync(ids) == [1]

    def test_a_full_disk_fails_only_those_who_need_room(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            await db.write(lambda tx: tx.all(f"PRAGMA max_page_count = {tx.all('PRAGMA page_count')[0][0] + 2}"))

            def large(tx: Tx) -> None:
                tx.run(ADD, (100, "x" * 100_000, 1, 100))

            def careless(tx: Tx) -> None:
                raised(StorageFull, tx.run, ADD, (100, "x" * 100_000, 1, 100))

            units = (add(1), large, add(2), careless, add(1), add(3))
            results = await asyncio.gather(*(db.write(unit) for unit in units), return_exceptions=True)
            kinds = [type(None), StorageFull, type(None), StorageFull, Conflict, type(None)]
            assert [type(result) for result in results] == kinds
            assert await db.read(ids) == [1, 2, 3]

        with_database(factory, test)

    def test_another_process_does_not_hold_up_the_loop(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            started, go_on = threading.Event(), threading.Event()

            def slow(tx: Tx) -> None:
                tx.run(ADD, item(1))
                started.set()
                assert go_on.wait(5)

            with factory() as other:
                command = asyncio.ensure_future(asyncio.to_thread(other.write_sync, slow))
                await asyncio.to_thread(started.wait)
                write = asyncio.ensure_future(db.write(add(2)))
                for _ in range(20):
                    await asyncio.sleep(0.001)
                    assert await db.read(ids) == [] and not write.done()
                go_on.set()
                await asyncio.gather(write, command)
            assert await db.read(ids) == [1, 2]

        with_database(factory, test)

    def test_the_log_stays_small(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            rows = itertools.count(1)
            for _ in range(40):
                numbers = [next(rows) for _ in range(100)]
                units = (add_row((n, f"{n} " + "x" * 4000, 1, n)) for n in numbers)
                await asyncio.gather(*(db.write(unit) for unit in units))
            size = await db.read(lambda tx: tx.all("PRAGMA wal_checkpoint(PASSIVE)"))
            assert size[0][1] < 6000, size  # pages; all of them would be more than 8,000

        with_database(factory, test)

    def test_reading_in_between_does_not_make_the_log_grow(self, factory: Factory) -> None:
        async def test(db: Database) -> None:
            for start in range(0, 4000, 100):
                units = [add_row((n, f"{n} " + "x" * 4000, 1, n)) for n in range(start, start + 100)]
                await asyncio.gather(*(db.write(unit) for unit in units))
                for _ in range(20):
                    assert len(await db.read(lambda tx: tx.all("SELECT 1 FROM items LIMIT 1"))) == 1
            size = await db.read(lambda tx: tx.all("PRAGMA wal_checkpoint(PASSIVE)"))
            assert size[0][1] < 6000, size

        with_database(factory, test)

    def test_no_fsync_when_asked(self, factory: Factory) -> None:
        disk = FaultyDisk()

        async def test(db: Database) -> None:
            await db.write(add(1))
            disk.broken = True
            await asyncio.gather(*(db.write(add(n)) for n in range(2, 10)))
            disk.broken = False
            assert await db.read(ids) == list(range(1, 10))

        with_database(factory, test, vfs=disk.name, synchronous="normal")

    def test_a_file_that_is_no_database_is_refused(self, factory: Factory) -> None:
        with factory() as db:
            path = db.read_sync(lambda tx: tx.all("PRAGMA database_list"))[0][2]
        with open(path, "wb") as file:
            file.write(b"This is a text, and no database at all. " * 200)
        raised(Corrupt, factory().open_sync)


class PostgresConformance(Conformance):
    """What only PostgreSQL has to do."""

    def test_a_deadlock_is_resolved(self, factory: Factory) -> None:
        contexts: list[dict[str, object]] = []
        both = threading.Barrier(2, timeout=10)

        def unit(first: int, second: int) -> Callable[[Tx], None]:
            attempts = itertools.count()

            def work(tx: Tx) -> None:
                assert tx.context == {}
                tx.context["used"] = True
                contexts.append(tx.context)
                bump(first)(tx)
                if next(attempts) == 0:
                    both.wait()
                bump(second)(tx)

            return work

        async def test(db: Database) -> None:
            await asyncio.gather(db.write(unit(1, 2)), db.write(unit(2, 1)))
            assert await db.read(lambda tx: tx.all("SELECT value FROM counters")) == [(2,), (2,)]
            # Who was undone may come back before the other has taken what he let go: then they meet once more.
            assert len(contexts) >= 3

        with_database(factory, test)

    def test_a_serialization_failure_is_tried_again_and_then_given_up(self, factory: Factory) -> None:
        attempts: list[int] = []
        refusal = "DO $$ BEGIN RAISE EXCEPTION 'so it goes' USING ERRCODE = '40001'; END $$"

        def unit(succeeds_at: int) -> Callable[[Tx], None]:
            def work(tx: Tx) -> None:
                attempts.append(1)
                tx.run(ADD, item(succeeds_at))
                if len(attempts) < succeeds_at:
                    try:
                        tx.script(refusal)
                    except StoreError as error:
                        raise LookupError from error  # a layer above may have its own word for it

            return work

        with prepared(factory) as db:
            db.write_sync(unit(3))
            assert len(attempts) == 3 and db.read_sync(ids) == [3]
            attempts.clear()
            raised(LookupError, db.write_sync, unit(100))
            assert 5 <= len(attempts) <= 10 and db.read_sync(ids) == [3]

    def test_a_lost_connection_is_replaced(self, factory: Factory) -> None:
        with prepared(factory) as db, factory() as other:

            def cut(tx: Tx) -> None:
                mine = tx.all("SELECT pg_backend_pid()")[0][0]
                other.write_sync(lambda tx: tx.all("SELECT pg_terminate_backend(CAST(? AS INTEGER))", (mine,)))

            def unit(tx: Tx) -> int:
                attempts.append(1)
                if len(attempts) == 1:
                    if tx.writable:
                        tx.run(ADD, item(1))
                    cut(tx)
                tx.all("SELECT 1")
                return len(attempts)

            for run in (db.read_sync, db.write_sync):
                attempts: list[int] = []
                assert run(unit) == 2
            assert db.read_sync(ids) == []
            db.read_sync(lambda tx: None)
            other.write_sync(
                lambda tx: tx.all(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            db.write_sync(add(5))
            assert db.read_sync(ids) == [5]

    def test_a_connection_lost_at_the_commit_leaves_the_outcome_open(self, factory: Factory) -> None:
        # A deferred trigger runs inside COMMIT, and cuts the connection there.
        trap = """
            CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON items
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut();
        """
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.script(trap))
            raised(OutcomeUnknown, db.write_sync, add(1))
            assert db.read_sync(ids) == []

    def test_an_unreachable_server_is_one_clear_line(self, factory: Factory) -> None:
        error = raised(Unavailable, lambda: factory(url="postgresql://ana:secret@127.0.0.1:1/none").open_sync())
        assert "127.0.0.1" in str(error) and "secret" not in str(error) and "\n" not in str(error)

    def test_a_long_query_is_stopped(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.script("SET statement_timeout = '50ms'"))
            raised(QueryTooExpensive, db.write_sync, lambda tx: tx.all("SELECT pg_sleep(5)"))
        with factory(read_seconds=0.05) as db:
            raised(QueryTooExpensive, db.read_sync, lambda tx: tx.all("SELECT pg_sleep(5)"))


class FaultyDisk(apsw.VFS):
    """A disk that cannot make anything durable while it is `broken`, nor even take it in when `dead`."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self.name = f"faulty-{next(self._numbers)}"
        self.broken = self.dead = False
        super().__init__(self.name, "")

    def xOpen(self, name: "str | apsw.URIFilename | None", flags: list[int]) -> apsw.VFSFile:
        return _FaultyFile(self, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: "str | apsw.URIFilename | None", flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.broken:
            raise apsw.IOError("the disk does not answer")
        super().xSync(flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._disk.dead:
            raise apsw.IOError("the disk does not answer")
        super().xWrite(data, offset)
