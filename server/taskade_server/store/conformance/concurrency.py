"""Several units of work at once, in any database."""

import asyncio
import threading

from taskade_server.store.conformance.support import (
    LIMIT_SECONDS,
    Factory,
    add,
    bump,
    ids,
    prepared,
    with_database,
)
from taskade_server.store.interface import (
    Database,
    Overloaded,
    Tx,
)


class Concurrency:
    """What several units of work, threads and processes see of each other."""

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
                seen = [db.data_version()]
                await db.write(add(1))
                seen.append(db.data_version())
                await asyncio.to_thread(other.write_sync, add(2))
                seen.append(db.data_version())
                still = db.data_version()
                assert (still == seen[-1] and len(set(seen)) == 3) or set(seen) == {0}
                assert await db.read(lambda tx: db.data_version(), heavy=True) == 0

        with_database(factory, test)

    def test_one_event_loop_after_another(self, factory: Factory) -> None:
        """As soon as a write is answered its loop may end, whatever was still to be done behind it."""
        with prepared(factory) as db:
            for number in range(30):
                asyncio.run(asyncio.wait_for(db.write(add(number)), LIMIT_SECONDS))
            assert db.read_sync(ids) == list(range(30))

    def test_too_many_waiting_writes_are_refused(self, factory: Factory) -> None:
        """Counted while the first of them stands still, so that it does not matter how fast the others are."""

        async def test(db: Database) -> None:
            started, go_on = threading.Event(), threading.Event()

            def first(tx: Tx) -> None:
                started.set()
                go_on.wait(LIMIT_SECONDS)

            held = asyncio.ensure_future(db.write(first, heavy=True))
            await asyncio.to_thread(started.wait, LIMIT_SECONDS)
            writes = [asyncio.ensure_future(db.write(lambda tx: None)) for _ in range(11_000)]
            for _ in range(3):
                await asyncio.sleep(0)  # each has begun: it waits, or was refused
            refused = [write for write in writes if write.done() and isinstance(write.exception(), Overloaded)]
            for write in writes:
                write.cancel()
            go_on.set()
            await held
            await asyncio.gather(*writes, return_exceptions=True)
            assert 1 <= len(refused) <= 1000, len(refused)
            await db.write(add(1))

        with_database(factory, test)
