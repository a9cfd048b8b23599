"""What only SQLite has to do, with a disk that can be made to fail."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import apsw

from taskade_server.store.conformance.common import Conformance
from taskade_server.store.conformance.support import (
    ADD,
    LIMIT_SECONDS,
    Factory,
    add,
    add_row,
    failed,
    ids,
    item,
    raised,
    until,
    with_database,
)
from taskade_server.store.interface import (
    Conflict,
    Corrupt,
    Database,
    OutcomeUnknown,
    QueryTooExpensive,
    StorageFull,
    StoreError,
    Tx,
    Unavailable,
)


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

        with_database(factory, test, read_steps=200_000)

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
            await until(lambda: bool(fatal))
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
            await until(lambda: bool(fatal))
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
                assert go_on.wait(LIMIT_SECONDS)

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
