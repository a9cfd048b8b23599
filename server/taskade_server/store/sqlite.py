"""SQLite: one writer with group commit on the event loop, inline reads under a step budget.

Why on the event loop: a short statement costs a few microseconds, a hop to a thread costs ten times that.
Only what takes long leaves the loop: the fsync of a commit, which carries all units that queued meanwhile,
checkpoints, units marked heavy, and reads that use up their budget.
"""

import asyncio
import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from taskade_server.store.interface import (
    OVER,
    BadQuery,
    Conflict,
    ConstraintFailed,
    Corrupt,
    Database,
    OutcomeUnknown,
    Overloaded,
    Params,
    QueryTooExpensive,
    Row,
    StorageFull,
    StoreError,
    Tx,
    Unavailable,
)
from taskade_server.store.turns import Turns

logger = logging.getLogger("taskade")
T = TypeVar("T")
FOREVER = float("inf")
Deferred = list[tuple[str, Sequence[Params]]]

# Older versions can corrupt a WAL database that has more than one connection.
OLDEST_SQLITE = (3, 51, 3)

# Reads in a row after which holding a lock for all of them pays, and for how long.
ANCHOR_READS = 8
ANCHOR_SECONDS = 0.05

GROUP_UNITS = 256
GROUP_SECONDS = 0.01
QUEUE_LIMIT = 10_000
HEAVY_LIMIT = 100
# What has waited longer is refused unrun: its client has most likely given up, and those behind it can be served.
QUEUE_SECONDS = 10.0
BUSY_SECONDS = 10.0
# A commit that fails for want of space leaves its outcome open, so writing stops before that point. Asking how
# much is left costs 50 us.
RESERVED_BYTES = 16 << 20
SPACE_CHECK_SECONDS = 0.05
# Then the log gives back what it holds, if that is worth the trouble; a reader may prevent that for a while.
RECLAIM_BYTES = 1 << 20
RECLAIM_SECONDS = 1.0
# As many as the first segment of SQLite's index of the log holds: reading slows down beyond.
CHECKPOINT_PAGES = 4000

READER_THREADS = 4
READER_NICENESS = 10
READ_QUEUE_LIMIT = 200
READ_QUEUE_SECONDS = 5.0
# Budgets of reads, in steps of SQLite's virtual machine: about 1 ms on the loop. In a thread it is time that counts,
# since a step may be as long as the text it looks through. A tick is a call into Python, which in a thread has to wait
# for the loop's turn to end; so it ticks seldom there.
INLINE_TICK, INLINE_TICKS = 5_000, 10
THREAD_TICK, THREAD_TICKS = 1_000_000, 500
THREAD_SECONDS = 5.0
UNLIMITED_TICKS = 2**62
# What a unit that writes may spend on a single query: on the loop some 20 ms, then it moves to a thread, too. All
# others that write wait for it.
WRITER_TICK, WRITER_TICKS = 100_000, 5
WRITER_SECONDS = 2.0

STATEMENT_CACHE = 500
WRITER_PRAGMAS = "PRAGMA cache_size = -32000; PRAGMA journal_size_limit = 67108864"
# Memory-mapping would save 2 us on a random row outside the cache, but lets the resident size grow with the file. The
# reader threads, as the writer, may spill to temporary files: no statement can exhaust memory.
READER_PRAGMAS = "PRAGMA query_only = ON"
INLINE_PRAGMAS = f"{READER_PRAGMAS}; PRAGMA cache_size = -48000; PRAGMA temp_store = MEMORY"
# With a third of this, long queries among a million rows take twice the time: they look up scattered rows.
THREAD_PRAGMAS = f"{READER_PRAGMAS}; PRAGMA cache_size = -24000"

_UNIQUE = {apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_ROWID}


def translate(error: Exception, path: Path | str = "The database") -> StoreError:
    """The store's own error for one of SQLite's."""
    match error:
        case apsw.ConstraintError():
            if getattr(error, "extendedresult", 0) in _UNIQUE:
                return _conflict(str(error))
            return ConstraintFailed(str(error))
        case OverflowError():
            return ConstraintFailed("A number is out of range.")
        case UnicodeError():
            return ConstraintFailed("A text holds half of a character.")
        case apsw.FullError():
            return StorageFull("The disk is full.")
        case apsw.NotADBError():
            return Corrupt(f"{path} is not a SQLite database.")
        case apsw.CorruptError():
            return Corrupt(f"{path} is damaged ({error}). Restore it from a backup.")
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return Unavailable(f"{path} cannot be opened for writing: check that its folder exists and is writable.")
        case apsw.BusyError() | apsw.LockedError():
            return Overloaded("Another process holds the database.")
        case apsw.InterruptError():
            return QueryTooExpensive("The query takes too long; ask for less at a time.")
        case apsw.NoMemError():
            return Overloaded("SQLite ran out of memory.")
        case apsw.IOError():
            return Unavailable(f"{path} cannot be read or written: {error}.")
        case _:
            return BadQuery(str(error))


def _conflict(message: str) -> Conflict:
    """`UNIQUE constraint failed: t.a, t.b`, or `...: index 'name'` for an index on an expression."""
    _, _, what = message.partition(": ")
    if what.startswith("index "):
        return Conflict(message, constraint=what.removeprefix("index ").strip("'"))
    places = [place.strip().partition(".") for place in what.split(",")]
    return Conflict(message, table=places[0][0], columns=tuple(place[2] for place in places), constraint=what)


class SqliteTx(Tx):
    """A unit of work on one APSW connection.

    All units of a connection share its cursor: to make one for each statement takes half as long as a short statement.
    """

    dialect = "sqlite"

    __slots__ = ("_connection", "_cursor", "_execute", "cause", "wrote")

    def __init__(self, cursor: apsw.Cursor, *, writable: bool) -> None:
        super().__init__(writable=writable)
        self._cursor = cursor
        self._connection = cursor.connection
        self._execute = cursor.execute
        self.cause: Exception | None = None
        self.wrote = False

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        try:
            return self._execute(sql, params).fetchall()
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error

    def page(self, sql: str, params: Params, most: int) -> tuple[list[Row], bool]:
        self._check_usable()
        rows: list[Row] = []
        size = 0
        try:
            cursor = self._connection.execute(sql, params)
            for row in cursor:
                rows.append(row)
                size += len(row[0])
                if size > most:
                    cursor.close()
                    return rows, True
            return rows, False
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error

    def run(self, sql: str, params: Params = ()) -> int:
        self._check_writable()
        self.wrote = True
        try:
            self._execute(sql, params).fetchall()
            return self._connection.changes()
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error

    def many(self, sql: str, rows: Sequence[Params]) -> None:
        self._check_writable()
        self._check_usable()
        self.wrote = True
        try:
            self._connection.executemany(sql, rows)
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error

    def script(self, sql: str) -> None:
        self._check_writable()
        self._check_usable()
        self.wrote = True
        # A statement that returns rows holds up those behind it until they are fetched.
        SqliteTx.all(self, sql)

    def end(self) -> None:
        super().end()
        self._execute = _over

    def _control(self, sql: str) -> None:
        try:
            self._connection.execute(sql)
        except apsw.Error as error:
            raise self._spoil(error) from error

    def _lost(self) -> bool:
        # After a full disk or an I/O error SQLite rolls the whole transaction back by itself.
        return self.failed is not None and not self._connection.in_transaction

    def _recover(self) -> None:
        super()._recover()
        self._execute = self._cursor.execute

    def _spoil(self, error: apsw.Error | OverflowError | UnicodeError) -> StoreError:
        self.cause = error
        self.failed = translate(error)
        self._execute = self._refuse
        return self.failed

    def _refuse(self, *_: Any, **__: Any) -> apsw.Cursor:
        # It stands in for `execute`, so that a sound unit does not pay for the check.
        self._check_usable()
        raise AssertionError("only called when the unit is spoiled")


def _over(*_: Any, **__: Any) -> apsw.Cursor:
    """Stands in for `execute` once a unit is over. It does not know the unit, which would be a cycle."""
    raise BadQuery(*OVER.args)


class _SpentError(Exception):
    """An inline read has used up its budget, or met a lock: it has to move to a thread."""


class _Meter:
    """Interrupts the statements of a connection once they have used up their budget."""

    __slots__ = ("ticks", "until")

    def __init__(self, connection: apsw.Connection, tick: int) -> None:
        self.allow()
        connection.set_progress_handler(self._tick, tick)

    def allow(self, ticks: int = UNLIMITED_TICKS, seconds: float = FOREVER) -> None:
        """The budget from here on."""
        self.ticks = ticks
        self.until = FOREVER if seconds == FOREVER else time.monotonic() + seconds

    def _tick(self) -> bool:
        self.ticks -= 1
        return self.ticks < 0 or time.monotonic() > self.until


class _WriterTx(SqliteTx):
    """A unit that writes. Its queries have a budget, each its own; what it writes has none."""

    __slots__ = ("_budget", "_meter", "_others")

    def __init__(
        self, cursor: apsw.Cursor, meter: _Meter, budget: tuple[int, float], others: Deferred | None = None
    ) -> None:
        """`others`: what the units before it in its group have deferred."""
        super().__init__(cursor, writable=True)
        self._meter = meter
        self._budget = budget
        self._others = others

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        self._meter.allow(*self._budget)
        try:
            return self._execute(sql, params).fetchall()
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error
        finally:
            self._meter.ticks, self._meter.until = UNLIMITED_TICKS, FOREVER

    def write_deferred(self) -> None:
        # In the order of the units, or an older text of a row would be written over this unit's.
        if self._others:
            self.deferred[:0] = self._others
            self._others.clear()
        super().write_deferred()

    def page(self, sql: str, params: Params, most: int) -> tuple[list[Row], bool]:
        self._meter.allow(*self._budget)
        try:
            return super().page(sql, params, most)
        finally:
            self._meter.allow()


def _step_back() -> None:
    """Let the event loop go first when there are fewer processors than long queries."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), READER_NICENESS)


class _Reader:
    """A connection that only reads, with a budget for each unit."""

    def __init__(self, connection: apsw.Connection, tick: int, ticks: int, seconds: float) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self._version = connection.cursor()
        self._meter = _Meter(connection, tick)
        self._ticks, self._seconds = ticks, seconds

    def run(self, fn: Callable[[Tx], T], snapshot: bool) -> T:
        meter = self._meter  # set without a call of its own: what is short is asked thousands of times a second
        meter.ticks = self._ticks
        if self._seconds != FOREVER:
            meter.until = time.monotonic() + self._seconds
        tx = SqliteTx(self._cursor, writable=False)
        try:
            if snapshot:
                tx._control("BEGIN")
            return tx.perform(fn)
        except Exception as error:
            if isinstance(tx.cause, (apsw.InterruptError, apsw.BusyError)):
                raise _SpentError from error
            raise
        finally:
            tx.end()
            meter.ticks, meter.until = UNLIMITED_TICKS, FOREVER
            if snapshot and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def data_version(self) -> int:
        # Perhaps in the midst of a unit, whose budget it leaves as it is.
        version: int = self._version.execute("PRAGMA data_version").get
        return version


class _Anchor:
    """A read transaction that is held while nothing is written, so that the short reads need not lock anything.

    SQLite takes its locks for the process and counts who shares them, so only the first costs system calls, 3 us for
    each statement. It would keep the log from beginning anew, so it goes before every write, and after a moment.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._reads = 0

    def note_read(self) -> None:
        """Count a read on the loop; several in a row are worth the holding."""
        self._reads += 1
        if self._reads == ANCHOR_READS:
            with suppress(apsw.Error):
                self.connection.execute("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            asyncio.get_running_loop().call_later(ANCHOR_SECONDS, self.let_go)

    def let_go(self) -> None:
        """Hold nothing, until there are several reads again."""
        self._reads = 0
        with suppress(apsw.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")


class _Unit(Generic[T]):
    """A unit of work that waits, or ran.

    `final`: not to be run again with its group. `moves`: to be run again as a heavy one.
    """

    __slots__ = ("budget", "error", "final", "fn", "future", "heavy", "late", "moves", "result")

    def __init__(
        self, fn: Callable[[Tx], T], future: "asyncio.Future[T] | None", heavy: bool, budget: tuple[int, float]
    ) -> None:
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
        """Tell the one who waits."""
        if self.future is None or self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # T may include None


class _ReplayError(Exception):
    """Nothing of the group was kept: run its units again (`args`: carefully or not), without those that are final."""


class _FatalError(Exception):
    """The disk failed: what was written may or may not survive."""


class _Writer:
    """The one connection that writes. Whoever uses it holds `lock`, which may pass from thread to thread."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self.meter = _Meter(connection, WRITER_TICK)
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

    def transact(self, units: list[_Unit[Any]], *, wait: float) -> int:
        """Run a group, all but its COMMIT; how many units it got to. A BusyError means that nothing was begun."""
        now = time.monotonic()
        if not self._has_space(now):
            for unit in units:
                unit.fail(StorageFull("The disk is nearly full: free some space to write again."))
            return len(units)
        self.connection.set_busy_timeout(int(wait * 1000))
        careful = False
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

    def _run_group(self, units: list[_Unit[Any]], deadline: float, careful: bool) -> int:
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

    def _run_quickly(self, unit: _Unit[Any], others: Deferred, *, alone: bool) -> Deferred:
        """Run one unit; what it deferred, to be written with that of the others."""
        tx = _WriterTx(self._cursor, self.meter, unit.budget, others)
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

    def _run_carefully(self, unit: _Unit[Any]) -> None:
        """Run one unit, with what it deferred, in a savepoint."""
        tx = _WriterTx(self._cursor, self.meter, unit.budget)
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

    def _note(self, unit: _Unit[Any], tx: SqliteTx, error: BaseException, replay: _ReplayError) -> None:
        """Keep a unit's failure. Replay the group without it if SQLite has rolled everything back by itself."""
        if isinstance(error, apsw.IOError) or isinstance(tx.cause, apsw.IOError):
            raise _FatalError from error
        unit.fail(translate(error) if isinstance(error, apsw.Error) else error)
        # With others it would have to be short.
        unit.final = unit.moves = not unit.heavy and isinstance(tx.cause, apsw.InterruptError)
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
        """Move the log into the database, as far as no reader needs it; the next commit then begins a new log."""
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
        thread_ticks: int = THREAD_TICKS,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous is 'full' or 'normal', not {synchronous!r}.")
        self._path = path
        self._synchronous = synchronous
        self._vfs = vfs
        patient = thread_ticks == UNLIMITED_TICKS
        self._thread_budget = thread_ticks, FOREVER if patient else THREAD_SECONDS
        self._heavy_budget = UNLIMITED_TICKS, FOREVER if patient else WRITER_SECONDS
        self._light_budget = WRITER_TICKS, FOREVER
        self._on_fatal = on_fatal
        self._stopped: StoreError | None = Unavailable("The database is not open.")
        self._writer: _Writer | None = None
        self._inline: _Reader | None = None
        self._anchor: _Anchor | None = None
        self._idle_readers: deque[_Reader] = deque()
        self._turns = Turns(READER_THREADS, waiting=READ_QUEUE_LIMIT, seconds=READ_QUEUE_SECONDS)
        self._reads_moved = 0
        self._commits = self._units = 0
        self._commit_seconds = 0.0
        self._loop_thread = 0
        # Short units do not wait for all the heavy ones that came before, only for one group of them.
        self._queues: tuple[deque[_Unit[Any]], deque[_Unit[Any]]] = (deque(), deque())
        self._was_heavy = False
        self._draining = False
        self._draining_loop: asyncio.AbstractEventLoop | None = None
        self._drained: list[asyncio.Future[None]] = []
        self._closing = threading.Lock()
        self._fatal: BaseException | None = None

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
            self._writer = _Writer(self._connect(WRITER_PRAGMAS), self._path)
            self._inline = _Reader(self._connect(INLINE_PRAGMAS), INLINE_TICK, INLINE_TICKS, FOREVER)
            self._anchor = _Anchor(self._connect(READER_PRAGMAS))
        except apsw.Error as error:
            raise translate(error, self._path) from error
        self._committer = ThreadPoolExecutor(1, "sqlite-commit")
        self._threads = ThreadPoolExecutor(READER_THREADS, "sqlite-read", initializer=_step_back)
        self._stopped = self._fatal = None

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
        if self._writer is None or self._inline is None:
            return
        self._stopped = self._stopped or Unavailable("The database is closed.")
        self._committer.shutdown()
        self._threads.shutdown()
        anchored = [] if self._anchor is None else [self._anchor.connection]
        others = [*anchored, self._inline.connection, *(reader.connection for reader in self._idle_readers)]
        self._anchor = None
        with self._writer.lock:
            for connection in [*others, self._writer.connection]:
                try:
                    connection.close()
                except apsw.Error as error:  # what is committed is in the log, which the next start finds
                    logger.warning("%s was not closed in good order: %r", self._path, error)
        self._writer = self._inline = None
        self._idle_readers.clear()

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.open_sync)
        self._loop_thread = threading.get_ident()

    async def close(self) -> None:
        self._stopped = self._stopped or Unavailable("The database is closed.")
        loop = asyncio.get_running_loop()
        if self._draining:
            drained: asyncio.Future[None] = loop.create_future()
            self._drained.append(drained)
            await drained
        await self._turns.over()
        await loop.run_in_executor(None, self.close_sync)

    # -- reading

    async def read(self, fn: Callable[[Tx], T], *, snapshot: bool = False, heavy: bool = False) -> T:
        if self._stopped or self._inline is None:
            raise self._refusal()
        if not heavy:
            self._loop_thread = threading.get_ident()
            if self._anchor is not None and not self._draining:
                self._anchor.note_read()
            try:
                return self._inline.run(fn, snapshot)
            except _SpentError:
                self._reads_moved += 1
        async with self._turns.turn():
            job = partial(self.read_sync, fn, snapshot=snapshot)
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    def read_sync(self, fn: Callable[[Tx], T], *, snapshot: bool = False) -> T:
        if self._stopped:
            raise self._refusal()
        reader = self._borrow_reader()
        try:
            return reader.run(fn, snapshot)
        except _SpentError as spent:
            cause = spent.__cause__
            raise (cause if isinstance(cause, StoreError) else translate(apsw.InterruptError())) from cause
        finally:
            self._idle_readers.append(reader)

    def _borrow_reader(self) -> _Reader:
        try:
            return self._idle_readers.pop()
        except IndexError:
            pass
        try:
            reader = _Reader(self._connect(THREAD_PRAGMAS), THREAD_TICK, *self._thread_budget)
        except apsw.Error as error:
            raise translate(error, self._path) from error
        reader.connection.set_busy_timeout(int(BUSY_SECONDS * 1000))
        return reader

    def changed(self) -> int:
        if self._stopped or self._inline is None:
            raise self._refusal()
        # A unit that moved to a thread may ask too, but the inline connection is the loop's.
        return self._inline.data_version() if threading.get_ident() == self._loop_thread else 0

    def stats(self) -> dict[str, float]:
        writer = self._writer
        return {
            "sqlite_writer_queue": sum(map(len, self._queues)),
            "sqlite_commits_total": self._commits,
            "sqlite_commit_seconds_total": self._commit_seconds,
            "sqlite_units_total": self._units,
            "sqlite_wal_pages": writer.wal_pages if writer else 0,
            "sqlite_checkpoints_total": writer.checkpoints if writer else 0,
            "sqlite_checkpoints_incomplete_total": writer.checkpoints_incomplete if writer else 0,
            "sqlite_long_reads": self._turns.running + self._turns.waiting,
            "sqlite_reads_moved_total": self._reads_moved,
        }

    def _refusal(self) -> StoreError:
        # A fresh one each time: an exception that is raised twice drags its tracebacks along.
        return type(self._stopped)(*self._stopped.args) if self._stopped else Unavailable("The database is not open.")

    # -- writing

    async def write(self, fn: Callable[[Tx], T], *, heavy: bool = False) -> T:
        if self._stopped:
            raise self._refusal()
        queue = self._queues[heavy]
        if len(queue) >= (HEAVY_LIMIT if heavy else QUEUE_LIMIT):
            raise Overloaded("Too many changes are waiting to be written.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        queue.append(_Unit(fn, future, heavy, self._heavy_budget if heavy else self._light_budget))
        # A loop that has ended (a command may run several) does not go on with it.
        if not self._draining or (self._draining_loop is not None and self._draining_loop.is_closed()):
            self._draining, self._draining_loop = True, loop
            if self._anchor is not None:
                self._anchor.let_go()
            loop.call_soon(self._drain, loop)
        return await future

    def write_sync(self, fn: Callable[[Tx], T]) -> T:
        if self._stopped or self._writer is None:
            raise self._refusal()
        writer, unit = self._writer, _Unit(fn, None, True, (UNLIMITED_TICKS, FOREVER))
        with writer.lock:
            self._run_and_commit(writer, [unit])
            self._checkpoint(writer)
        self._report_fatal()
        if unit.error is not None:
            raise unit.error
        return unit.result  # type: ignore[return-value]  # T may include None

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the next group: here on the loop if it is short work, all but its commit."""
        if self._fatal is not None:
            self._refuse_queue()
        writer, units = self._writer, self._take()
        if writer is None or not units:
            self._draining = False
            for drained in self._drained:
                if not drained.done():  # he may have given up
                    drained.set_result(None)
            self._drained.clear()
            return
        if units[0].heavy or not writer.lock.acquire(blocking=False):
            self._committer.submit(self._group_on_thread, writer, units, loop)
            return
        try:
            ran = writer.transact(units, wait=0)
        except apsw.BusyError:  # another process is writing: wait for it elsewhere
            writer.lock.release()
            self._committer.submit(self._group_on_thread, writer, units, loop)
            return
        except Exception as error:
            self._stop(writer, units, error)
            ran = len(units)
        self._put_back(units[ran:])
        if self._synchronous == "normal" and not writer.checkpoint_due:
            # Without an fsync a commit is cheaper than the way to the thread and back.
            self._commit(writer, units[:ran])
            writer.lock.release()
            self._settle(units[:ran])
            loop.call_soon(self._drain, loop)
        else:
            self._committer.submit(self._commit_on_thread, writer, units[:ran], loop)

    def _take(self) -> list[_Unit[Any]]:
        """The next group: units of one kind, so that short ones do not wait for the commit of a heavy one."""
        light, heavy = self._queues
        self._was_heavy = bool(heavy) and not (light and self._was_heavy)
        queue = self._queues[self._was_heavy]
        units: list[_Unit[Any]] = []
        now = time.monotonic()
        while queue and len(units) < GROUP_UNITS:
            unit = queue.popleft()
            if now > unit.late:
                unit.fail(Overloaded("The database is busy with what came before."))
                unit.settle()
            else:
                units.append(unit)
        return units or (self._take() if light or heavy else [])

    def _put_back(self, units: Sequence[_Unit[Any]]) -> None:
        """What a group did not get to is first in the next of its kind."""
        if units:
            self._queues[units[0].heavy].extendleft(reversed(units))

    def _group_on_thread(self, writer: _Writer, units: list[_Unit[Any]], loop: asyncio.AbstractEventLoop) -> None:
        with writer.lock:
            ran = self._run_and_commit(writer, units)
            loop.call_soon_threadsafe(self._settle, units[:ran], units[ran:])
            self._checkpoint(writer)
        loop.call_soon_threadsafe(self._drain, loop)

    def _commit_on_thread(self, writer: _Writer, units: list[_Unit[Any]], loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._commit(writer, units)
            loop.call_soon_threadsafe(self._settle, units)
            self._checkpoint(writer)
        finally:
            writer.lock.release()
        loop.call_soon_threadsafe(self._drain, loop)

    def _settle(self, units: list[_Unit[Any]], left: Sequence[_Unit[Any]] = ()) -> None:
        """Answer those who wait, on the loop."""
        self._put_back(left)
        for unit in units:
            if unit.moves:
                unit.move(self._heavy_budget)
                self._queues[True].append(unit)
            else:
                unit.settle()

    def _refuse_queue(self) -> None:
        for queue in self._queues:
            for unit in queue:
                unit.fail(self._refusal())
                unit.settle()
            queue.clear()
        self._report_fatal()

    # -- on any thread, holding the writer's lock

    def _run_and_commit(self, writer: _Writer, units: list[_Unit[Any]]) -> int:
        try:
            ran = writer.transact(units, wait=BUSY_SECONDS)
        except apsw.BusyError as error:
            for unit in units:
                unit.fail(translate(error))
            return len(units)
        except Exception as error:
            self._stop(writer, units, error)
            return len(units)
        self._commit(writer, units[:ran])
        return ran

    def _commit(self, writer: _Writer, units: list[_Unit[Any]]) -> None:
        if self._fatal is not None:  # it came while these waited for the writer, and they were run in vain
            for unit in units:
                unit.fail(unit.error or self._refusal())
            return
        began = time.perf_counter()
        try:
            writer.commit()
        except Exception as error:
            self._stop(writer, units, error)
        self._commits += 1
        self._units += len(units)
        self._commit_seconds += time.perf_counter() - began

    def _checkpoint(self, writer: _Writer) -> None:
        if self._fatal is None and writer.checkpoint_due:
            try:
                writer.checkpoint()
            except Exception as error:
                self._stop(writer, [], error)

    def _stop(self, writer: _Writer, units: list[_Unit[Any]], error: BaseException) -> None:
        """Refuse all further work: what the file holds now, only the recovery at the next start can tell."""
        self._fatal = error.__cause__ or error
        self._stopped = Unavailable(f"The database stopped after a failure of the disk: {self._fatal}.")
        writer.abandon()
        for unit in units:
            unit.fail(OutcomeUnknown(f"The disk failed while this was being written: {self._fatal}."))

    def _report_fatal(self) -> None:
        if self._fatal is not None and self._on_fatal is not None:
            report, self._on_fatal = self._on_fatal, None
            report(self._fatal)
