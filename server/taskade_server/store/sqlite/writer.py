"""The thread that writes: units of work are committed together, and begun again alone when one fails."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from taskade_server.kit.budget import BudgetSpent
from taskade_server.store.interface import StorageFull, Tx
from taskade_server.store.sqlite.transaction import Deferred, Meter, SqliteTx, WriterTx, translate

T = TypeVar("T")
GROUP_SECONDS = 0.01


# What has waited longer is refused unrun: its client has most likely given up, and those behind it can be served.
QUEUE_SECONDS = 10.0


# A commit that fails for want of space leaves its outcome open, so writing stops before that point. Asking how
# much is left costs 50 us.
RESERVED_BYTES = 16 << 20
SPACE_CHECK_SECONDS = 0.05


# Then the log gives back what it holds, if that is worth the trouble; a reader may prevent that for a while.
RECLAIM_BYTES = 1 << 20
RECLAIM_SECONDS = 1.0


# As many as the first segment of SQLite's index of the log holds: reading slows down beyond.
CHECKPOINT_PAGES = 4000
CHECKPOINT_PASSES = 3


# Steps of SQLite's virtual machine, and what they cost of a unit's budget: 20,000 take some 3.5 ms.
WRITER_TICK, WRITER_COST = 20_000, 4_000


class Unit(Generic[T]):
    """A unit of work that waits, or ran.

    `final`: not to be run again with its group. `moves`: to be run again as a heavy one.
    """

    __slots__ = ("budget", "caller", "error", "final", "fn", "future", "heavy", "late", "moves", "result")

    def __init__(
        self,
        fn: Callable[[Tx], T],
        future: "asyncio.Future[T] | None",
        heavy: bool,
        budget: tuple[int, float],
        caller: Hashable = None,
    ) -> None:
        self.caller = caller
        self.fn = fn
        self.future = future
        self.heavy = heavy
        self.budget = budget
        self.late = time.monotonic() + QUEUE_SECONDS
        self.final = self.moves = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.result = None
        self.moves = False

    def move(self, budget: tuple[int, float]) -> None:
        """Begin anew as a heavy one."""
        self.heavy, self.budget = True, budget
        self.error = None
        self.final = self.moves = False

    def settle(self) -> None:
        """Tell the one who waits, and keep nothing of the outcome."""
        # The traceback of an error knows this unit: if the unit kept it, only the garbage collector would end both.
        future, self.future = self.future, None
        error, self.error = self.error, None
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(self.result)  # type: ignore[arg-type]  # T may include None


class _ReplayError(Exception):
    """Nothing of the group was kept: run its units again (`args`: carefully or not), without those that are final."""


class _FatalError(Exception):
    """The disk failed: what was written may or may not survive."""


class Writer:
    """The one connection that writes. Whoever uses it holds `lock`, which may pass from thread to thread."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self.meter = Meter(connection, WRITER_TICK, WRITER_COST)
        self.lock = threading.Lock()
        self._path = path
        self._wal_pages = 0
        self._checkpoint_at = CHECKPOINT_PAGES
        self._space_check = 0.0
        self._space_left = True
        self._reclaim = False
        self._reclaim_after = 0.0
        self.checkpoints = self.checkpoints_incomplete = 0
        connection.set_wal_hook(self._count_pages)

    def _count_pages(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    @property
    def wal_pages(self) -> int:
        return self._wal_pages

    @property
    def checkpoint_due(self) -> bool:
        return self._wal_pages >= self._checkpoint_at or self._reclaim

    def transact(self, units: list[Unit[Any]], *, wait: float) -> int:
        """Run a group, all but its COMMIT; how many units it got to. A BusyError means that nothing was begun.

        Several heavy units are run carefully from the start: to run one of them twice would cost more than savepoints.
        """
        now = time.monotonic()
        if not self._has_space(now):
            for unit in units:
                unit.fail(StorageFull("The disk is nearly full: free some space to write again."))
            return len(units)
        self.connection.set_busy_timeout(int(wait * 1000))
        careful = len(units) > 1 and units[0].heavy
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except apsw.IOError as error:
                raise _FatalError from error
            try:
                return self._run_group(units, time.monotonic() + GROUP_SECONDS, careful)
            except _ReplayError as replay:
                (careful,) = replay.args
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def _has_space(self, now: float) -> bool:
        if now >= self._space_check:
            self._space_check = now + SPACE_CHECK_SECONDS
            self._space_left = shutil.disk_usage(self._path.parent).free >= RESERVED_BYTES
            if not self._space_left and now >= self._reclaim_after:
                self._reclaim_after = now + RECLAIM_SECONDS
                log = Path(f"{self._path}-wal")
                self._reclaim = log.exists() and log.stat().st_size >= RECLAIM_BYTES
        return self._space_left

    def _run_group(self, units: list[Unit[Any]], deadline: float, careful: bool) -> int:
        """Run units until the time is up; how many.

        The first run is not careful: it cannot undo a single unit, which spares a quarter of the cost of a small one.
        It need not, as long as each succeeds or fails before it wrote anything; else the group is run again carefully.
        """
        deferred: Deferred = []
        ran = 0
        for unit in units:
            if ran and time.monotonic() > deadline:
                break
            ran += 1
            if unit.final or (unit.future is not None and unit.future.cancelled()):
                continue
            if careful:
                self._run_carefully(unit)
            else:
                deferred += self._run_quickly(unit, deferred, alone=len(units) == 1)
        try:
            for sql, rows in deferred:
                self.connection.executemany(sql, rows)
        except apsw.IOError as error:
            raise _FatalError from error
        except Exception as error:
            # Run again with each unit writing its own, to find out whose rows they are.
            raise _ReplayError(True) from error
        return ran

    def _run_quickly(self, unit: Unit[Any], others: Deferred, *, alone: bool) -> Deferred:
        """Run one unit; what it deferred, to be written with that of the others."""
        tx = WriterTx(self._cursor, self.meter, unit.budget, others)
        changes = self.connection.total_changes()
        unit.error = None
        try:
            unit.result = tx.perform(unit.fn)
            return tx.deferred
        except BaseException as error:
            self._note(unit, tx, error, _ReplayError(False))
            if tx.wrote or self.connection.total_changes() != changes:
                if not alone:
                    raise _ReplayError(True) from error
                self.connection.execute("ROLLBACK")
            return []
        finally:
            tx.end()

    def _run_carefully(self, unit: Unit[Any]) -> None:
        """Run one unit, with what it deferred, in a savepoint."""
        tx = WriterTx(self._cursor, self.meter, unit.budget)
        unit.error = None
        self.connection.execute("SAVEPOINT unit")
        try:
            unit.result = tx.perform(unit.fn)
            for sql, rows in tx.deferred:
                tx.many(sql, rows)
            self.connection.execute("RELEASE unit")
        except BaseException as error:
            self._note(unit, tx, error, _ReplayError(True))
            self.connection.execute("ROLLBACK TO unit; RELEASE unit")
        finally:
            tx.end()

    def _note(self, unit: Unit[Any], tx: SqliteTx, error: BaseException, replay: _ReplayError) -> None:
        """Keep a unit's failure. Replay the group without it if SQLite has rolled everything back by itself."""
        if isinstance(error, apsw.IOError) or isinstance(tx.cause, apsw.IOError):
            raise _FatalError from error
        unit.fail(translate(error) if isinstance(error, apsw.Error) else error)
        # With others it would have to be short.
        spent = isinstance(error, BudgetSpent) or isinstance(tx.cause, apsw.InterruptError)
        unit.final = unit.moves = spent and not unit.heavy
        if not self.connection.in_transaction:
            unit.final = True
            raise replay from error

    def commit(self) -> None:
        if not self.connection.in_transaction:
            return
        try:
            self.connection.execute("COMMIT")
        except apsw.Error as error:
            raise _FatalError from error

    def abandon(self) -> None:
        """After a failure of the disk: leave the log as it is, for the recovery at the next start."""
        with suppress(apsw.Error):
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        with suppress(apsw.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Move the log into the database, as far as no reader needs it; the next commit then begins a new log.

        Nobody can write meanwhile, so `Checkpointer.advance` has moved most of it before.
        """
        complete = False
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if self._reclaim else apsw.SQLITE_CHECKPOINT_PASSIVE
        self._reclaim = False
        self.connection.set_busy_timeout(0)
        try:
            pages, moved = self.connection.wal_checkpoint(mode=mode)
            complete = moved >= pages
        except (apsw.BusyError, apsw.LockedError, apsw.FullError):
            pass  # nothing is lost: the log is kept
        except apsw.Error as error:
            raise _FatalError from error
        self.checkpoints += 1
        self.checkpoints_incomplete += not complete
        # A long read may hold it up: trying again at each commit would only slow them down.
        self._checkpoint_at = CHECKPOINT_PAGES if complete else self._wal_pages + CHECKPOINT_PAGES
        self._wal_pages = 0


class Checkpointer:
    """A connection of its own that moves pages of the log into the database while the writer goes on writing."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        connection.set_busy_timeout(0)

    def advance(self) -> None:
        """Move what is in the log now, then what was added to it meanwhile, until that is little or a reader needs it.

        Raises apsw.Error if the disk fails.
        """
        for _ in range(CHECKPOINT_PASSES):
            try:
                pages, moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except (apsw.BusyError, apsw.LockedError, apsw.FullError):
                return  # nothing is lost: the log is kept
            if pages - moved < CHECKPOINT_PAGES // 10:
                return
