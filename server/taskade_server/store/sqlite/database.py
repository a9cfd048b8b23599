"""SQLite: one writer with group commit on the event loop, inline reads, and a budget for every unit.

Why on the event loop: a short statement costs a few microseconds, a hop to a thread costs ten times that.
Only what takes long leaves the loop: the fsync of a commit, which carries all units that queued meanwhile,
checkpoints, units marked heavy, and units that use up the budget of the loop. These begin again on a thread.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import apsw

from taskade_server.kit.budget import LIGHT, READ, UNLIMITED, BudgetSpent
from taskade_server.store.interface import (
    Database,
    StoreError,
    Tx,
    Unavailable,
)
from taskade_server.store.sqlite.reader import Anchor, Reader, step_back
from taskade_server.store.sqlite.transaction import FOREVER, SpentError, translate
from taskade_server.store.sqlite.write_queue import WriteQueue
from taskade_server.store.sqlite.writer import Checkpointer, T, Writer
from taskade_server.store.turns import Turns

logger = logging.getLogger("taskade")

# Older versions can corrupt a WAL database that has more than one connection.
OLDEST_SQLITE = (3, 51, 3)

BUSY_SECONDS = 10.0
READER_THREADS = 4
READ_QUEUE_LIMIT = 200
READ_QUEUE_SECONDS = 5.0
# A tick is so many steps of SQLite's virtual machine, and what each costs of the unit's budget. A tick is a call into
# Python, which in a thread has to wait for the loop's turn to end; so it ticks seldom there. On the loop a tick of a
# read costs more than it takes: one that is long moves to a thread after a millisecond, which no short one needs.
INLINE_TICK, INLINE_COST = 5_000, 2_500
THREAD_TICK, THREAD_COST = 1_000_000, 10_000
# A step may be as long as the text that it looks through, so time counts, too: for a read that of the clock, since it
# keeps others from reading.
THREAD_SECONDS = 5.0

STATEMENT_CACHE = 500
WRITER_PRAGMAS = "PRAGMA cache_size = -32000; PRAGMA journal_size_limit = 67108864"
# Memory-mapping would save 2 us on a random row outside the cache, but lets the resident size grow with the file. The
# reader threads, as the writer, may spill to temporary files: no statement can exhaust memory.
READER_PRAGMAS = "PRAGMA query_only = ON"
INLINE_PRAGMAS = f"{READER_PRAGMAS}; PRAGMA cache_size = -48000; PRAGMA temp_store = MEMORY"
# With a third of this, long queries among a million rows take twice the time: they look up scattered rows.
THREAD_PRAGMAS = f"{READER_PRAGMAS}; PRAGMA cache_size = -24000"


class SqliteDatabase(Database):
    """One SQLite file, written by this process and, now and then, by a command."""

    dialect = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str = "full",
        on_fatal: Callable[[BaseException], None] | None = None,
        vfs: str | None = None,
        read_steps: int = READ,
    ) -> None:
        """`read_steps`: the budget of a read on a thread; with UNLIMITED there is no bound to any unit."""
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous is 'full' or 'normal', not {synchronous!r}.")
        self._path = path
        self._synchronous = synchronous
        self._vfs = vfs
        patient = read_steps == UNLIMITED
        self._thread_budget = read_steps, FOREVER if patient else THREAD_SECONDS
        self._patient = patient
        self._on_fatal = on_fatal
        self._stopped: StoreError | None = Unavailable("The database is not open.")
        self._writer: Writer | None = None
        self._inline: Reader | None = None
        self._anchor: Anchor | None = None
        self._checkpointer: Checkpointer | None = None
        self._writes: WriteQueue | None = None
        self._idle_readers: deque[Reader] = deque()
        self._turns = Turns(READER_THREADS, waiting=READ_QUEUE_LIMIT, seconds=READ_QUEUE_SECONDS)
        self._reads_moved = 0
        self._loop_thread = 0
        self._closing = threading.Lock()

    # -- opening and closing

    def open_sync(self) -> None:
        if self._inline is not None:
            return
        version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
        if version < OLDEST_SQLITE:
            raise Unavailable(
                f"SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed: update the apsw package."
            )
        try:
            # It holds secrets, if only hashed: nobody else may read it. SQLite gives its log the same rights. (A file
            # that exists is left alone: to close it would give up the locks that this process may have on it.)
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be opened: {error.strerror}.") from error
        try:
            self._writer = Writer(self._connect(WRITER_PRAGMAS), self._path)
            self._inline = Reader(self._connect(INLINE_PRAGMAS), (INLINE_TICK, INLINE_COST), LIGHT, FOREVER)
            self._anchor = Anchor(self._connect(READER_PRAGMAS))
            self._checkpointer = Checkpointer(self._connect(READER_PRAGMAS))
        except apsw.Error as error:
            raise translate(error, self._path) from error
        self._writes = WriteQueue(
            self._writer,
            self._checkpointer,
            wait_for_disk=self._synchronous != "normal",
            patient=self._patient,
            on_begin=self._anchor.let_go,
            on_stop=self._stop,
            on_fatal=self._on_fatal,
        )
        self._threads = ThreadPoolExecutor(READER_THREADS, "sqlite-read", initializer=step_back)
        self._stopped = None

    def _connect(self, pragmas: str) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), vfs=self._vfs, statementcachesize=STATEMENT_CACHE)
        connection.set_busy_timeout(int(BUSY_SECONDS * 1000))
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != [("wal",)]:
            connection.close()
            raise Unavailable(f"{self._path} is on a file system without shared memory: keep it on a local disk.")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}; PRAGMA foreign_keys = ON; {pragmas}").fetchall()
        connection.set_busy_timeout(0)
        return connection

    def close_sync(self) -> None:
        with self._closing:
            self._close()

    def _close(self) -> None:
        if self._writer is None or self._inline is None or self._writes is None:
            return
        self._stopped = self._stopped or Unavailable("The database is closed.")
        self._writes.close()
        self._threads.shutdown()
        beside = [one.connection for one in (self._anchor, self._checkpointer) if one is not None]
        others = [*beside, self._inline.connection, *(reader.connection for reader in self._idle_readers)]
        self._anchor = self._checkpointer = None
        with self._writer.lock:
            for connection in [*others, self._writer.connection]:
                try:
                    connection.close()
                except apsw.Error as error:  # what is committed is in the log, which the next start finds
                    logger.warning("%s was not closed in good order: %r", self._path, error)
        self._writer = self._inline = self._writes = None
        self._idle_readers.clear()

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.open_sync)
        self._loop_thread = threading.get_ident()

    async def close(self) -> None:
        self._stopped = self._stopped or Unavailable("The database is closed.")
        if self._writes is not None:
            await self._writes.finish()
        await self._turns.over()
        await asyncio.get_running_loop().run_in_executor(None, self.close_sync)

    # -- reading

    async def read(
        self, fn: Callable[[Tx], T], *, snapshot: bool = False, heavy: bool = False, caller: Hashable = None
    ) -> T:
        if self._stopped or self._inline is None:
            raise self._refusal()
        if not heavy:
            self._loop_thread = threading.get_ident()
            if self._anchor is not None and self._writes is not None and not self._writes.running:
                self._anchor.note_read()
            try:
                return self._inline.run(fn, snapshot)
            except SpentError:
                self._reads_moved += 1
        async with self._turns.turn(caller):
            job = partial(self.read_sync, fn, snapshot=snapshot)
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    def read_sync(self, fn: Callable[[Tx], T], *, snapshot: bool = False) -> T:
        if self._stopped:
            raise self._refusal()
        reader = self._borrow_reader()
        try:
            return reader.run(fn, snapshot)
        except SpentError as spent:
            error = _refused(spent)
        finally:
            self._idle_readers.append(reader)
        try:
            raise error  # here, or it would have `spent` as its context, which has it as its cause
        finally:
            del error  # its traceback knows this frame

    def _borrow_reader(self) -> Reader:
        try:
            return self._idle_readers.pop()
        except IndexError:
            pass
        try:
            reader = Reader(self._connect(THREAD_PRAGMAS), (THREAD_TICK, THREAD_COST), *self._thread_budget)
        except apsw.Error as error:
            raise translate(error, self._path) from error
        reader.connection.set_busy_timeout(int(BUSY_SECONDS * 1000))
        return reader

    def data_version(self) -> int:
        if self._stopped or self._inline is None:
            raise self._refusal()
        # A unit that moved to a thread may ask too, but the inline connection is the loop's.
        return self._inline.data_version() if threading.get_ident() == self._loop_thread else 0

    def stats(self) -> dict[str, float]:
        return {
            **({} if self._writes is None else self._writes.stats()),
            "sqlite_long_reads": self._turns.running + self._turns.waiting,
            "sqlite_reads_moved_total": self._reads_moved,
        }

    # -- writing

    async def write(self, fn: Callable[[Tx], T], *, heavy: bool = False, caller: Hashable = None) -> T:
        if self._stopped or self._writes is None:
            raise self._refusal()
        return await self._writes.write(fn, heavy=heavy, caller=caller)

    def write_sync(self, fn: Callable[[Tx], T]) -> T:
        if self._stopped or self._writes is None:
            raise self._refusal()
        return self._writes.write_sync(fn)

    def _stop(self, refusal: StoreError) -> None:
        self._stopped = refusal

    def _refusal(self) -> StoreError:
        # A fresh one each time: an exception that is raised twice drags its tracebacks along.
        return type(self._stopped)(*self._stopped.args) if self._stopped else Unavailable("The database is not open.")


def _refused(spent: SpentError) -> Exception:
    """What the caller of a read is told that needs more work than it may."""
    cause = spent.__cause__
    return cause if isinstance(cause, StoreError | BudgetSpent) else translate(apsw.InterruptError())
