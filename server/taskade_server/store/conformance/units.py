"""Units of work, in any database."""

import asyncio
from collections.abc import Callable
from typing import Any

from taskade_server.store.conformance.support import (
    ADD,
    SCHEMA,
    Factory,
    add,
    failed,
    ids,
    item,
    with_database,
)
from taskade_server.store.interface import (
    Conflict,
    Database,
    Tx,
)
from taskade_server.store.schema import render


class Units:
    """Units of work: done as a whole or not at all, and durable when they are answered."""

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
