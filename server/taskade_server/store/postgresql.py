"""PostgreSQL through psycopg 3: a thread for each unit under way, a connection for each thread.

Why synchronous in threads: the layers above are synchronous so that one code serves both databases, and this
way it reaches about four fifths of what an asynchronous driver does. Deadlocks and lost connections are
retried here, so that nobody above has to know of them; and whatever the server or the network does, who waits is
answered within a bounded time.
"""

import asyncio
import itertools
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader, PyFormat
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.types.numeric import Int4Dumper, IntDumper
from psycopg.types.string import StrDumper

from taskade_server.kit.budget import READ, UNLIMITED, WRITE, Budget
from taskade_server.store.interface import (
    READ_A_STEP,
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

T = TypeVar("T")

OLDEST_SERVER = 14
CONNECT_SECONDS = 5
# For so long a failed attempt to connect answers for all others, which would each have to wait for their own.
DOWN_SECONDS = 0.5
QUEUE_LIMIT = 10_000
# What has waited longer is refused unrun: its client has most likely given up, and those behind it can be served.
QUEUE_SECONDS = 5.0
# Beyond this nobody waits for a server that has stopped to answer, such as one whose machine hangs. Longer than the
# server's own limits, which end a unit in an orderly way.
UNIT_SECONDS = 45.0
ATTEMPTS = 8
# A machine that is gone does not say so: without these a connection to it would look alive for hours.
NETWORK = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
PREPARE_AFTER = 2
PREPARED_STATEMENTS = 500
SESSION = """
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET client_min_messages = 'warning'
"""
# A unit that only reads waits for no lock; if it takes longer than this, it keeps others from reading.
READ_SECONDS = 5.0
# All statements of a unit together may take twice as long. In one that writes they may take this, since it may have to
# wait for locks.
CHANGE_SECONDS = 30.0
FOREVER = float("inf")
# For commands that read or write all there is.
PATIENT = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"


class _IntDumper(IntDumper):
    """Two sizes of integers, not four: a statement is prepared once for each combination of its parameters' types."""

    def upgrade(self, obj: int, format: PyFormat) -> Dumper:
        return self._int4_dumper if -(2**31) <= obj < 2**31 else self._int8_dumper


class _BoolDumper(Dumper):
    """Booleans are 0 and 1 in both databases."""

    oid = Int4Dumper.oid

    def dump(self, obj: bool) -> Buffer:
        return b"1" if obj else b"0"


class _NumberLoader(Loader):
    """The sum of integers is an integer, as in SQLite, and other exact numbers are floats."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


def _adapters() -> AdaptersMap:
    # Strings are TEXT: otherwise PostgreSQL is left to guess what they are.
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, _IntDumper)
    adapters.register_dumper(bool, _BoolDumper)
    adapters.register_dumper(str, StrDumper)
    adapters.register_loader("numeric", _NumberLoader)
    return adapters


ADAPTERS = _adapters()

_PLACES = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|\?""")


@lru_cache(maxsize=2000)
def numbered(sql: str) -> bytes:
    """The statement with `$1`, `$2`... for each `?` that is not part of a string, a name or a comment."""
    numbers = itertools.count(1)
    return _PLACES.sub(lambda place: f"${next(numbers)}" if place[0] == "?" else place[0], sql).encode()


class _ContentionError(Overloaded):
    """A deadlock or a serialization failure: the unit is worth another attempt."""


_BY_STATE: dict[str, tuple[type[StoreError], str]] = {
    "08P01": (BadQuery, "The statement and its parameters do not fit together."),
    "40001": (_ContentionError, "Too many changes to the same rows at once."),
    "40P01": (_ContentionError, "Too many changes to the same rows at once."),
    "55P03": (Overloaded, "The rows are locked by another change."),
    "57014": (QueryTooExpensive, "The query takes too long; ask for less at a time."),
    "53100": (StorageFull, "The disk of the PostgreSQL server is full."),
    "25P03": (Unavailable, "The PostgreSQL server has ended a unit of work that stood still."),
    "25006": (Unavailable, "The PostgreSQL server only allows reading: is it a standby?"),
    "XX001": (Corrupt, "The PostgreSQL server reports damaged data."),
    "XX002": (Corrupt, "The PostgreSQL server reports a damaged index."),
}
_BY_CLASS: dict[str, type[StoreError]] = {
    "08": Unavailable,
    "22": ConstraintFailed,
    "23": ConstraintFailed,
    "53": Overloaded,
    "57": Unavailable,
}


def translate(error: psycopg.Error | UnicodeError) -> StoreError:
    """The store's own error for one of PostgreSQL's or psycopg's."""
    if isinstance(error, UnicodeError):
        return ConstraintFailed("A text holds half of a character.")
    state = error.sqlstate or ""
    message = " ".join(str(error).split())
    if state == "23505":
        return _conflict(error, message)
    if state in _BY_STATE:
        kind, text = _BY_STATE[state]
        return kind(text)
    if state[:2] in _BY_CLASS:
        return _BY_CLASS[state[:2]](message)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and not state:
        return Unavailable(f"The PostgreSQL server cannot be reached: {message}")
    if isinstance(error, psycopg.DataError):
        return ConstraintFailed(message)
    return BadQuery(message)


def _conflict(error: psycopg.Error, message: str) -> Conflict:
    # The detail reads: Key (a, b)=(1, 2) already exists.
    detail = re.match(r"Key \((.*?)\)=\(", error.diag.message_detail or "")
    columns = tuple(column.strip() for column in detail[1].split(",")) if detail else ()
    table, constraint = error.diag.table_name or "", error.diag.constraint_name or ""
    return Conflict(message, table=table, columns=columns, constraint=constraint)


def _network_defaults(url: str) -> str:
    """The URL with the settings of `NETWORK` that it does not make itself."""
    return make_conninfo(url, **{name: value for name, value in NETWORK.items() if name not in conninfo_to_dict(url)})


class _Session:
    """A connection and its one cursor: a new cursor for each statement would cost more than the statement."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection
        self.cursor = psycopg.RawCursor(connection)

    @property
    def closed(self) -> bool:
        return self.connection.closed

    def control(self, sql: str) -> None:
        """Execute BEGIN, COMMIT and the like past the driver's bookkeeping.

        It costs half as much, and a rollback does not make the driver forget its prepared statements.
        """
        result = self.connection.pgconn.exec_(sql.encode())
        if self.closed:
            raise psycopg.OperationalError("the connection is lost")
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)

    def roll_back(self) -> None:
        if self.closed or self.connection.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        try:
            self.control("ROLLBACK")
        except psycopg.Error:
            self.connection.close()


class PostgresTx(Tx):
    """A unit of work on one psycopg connection."""

    dialect = "postgresql"
    locks_rows = True
    for_update = " FOR UPDATE"
    for_share = " FOR SHARE"

    __slots__ = ("_cursor", "_session", "_until", "committing")

    def __init__(self, session: _Session, *, writable: bool, budget: Budget, seconds: float) -> None:
        """`seconds`: after so long no further statement begins; the server itself bounds a single one."""
        super().__init__(writable=writable, budget=budget)
        self._until = time.monotonic() + seconds
        self._session = session
        self._cursor = session.cursor
        self.committing = False

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        self._check_usable()
        try:
            self._cursor.execute(numbered(sql), params)
            result = self._cursor.pgresult
            return self._cursor.fetchall() if result is not None and result.nfields else []
        except (psycopg.Error, UnicodeError) as error:
            raise self._spoil(error) from error

    def page(self, sql: str, params: Params, most: int) -> tuple[list[Row], bool]:
        # The server adds the sizes up, which it knows without reading the texts: the client would read all there is.
        rows = self.all(
            "SELECT * FROM (SELECT found.*, SUM(octet_length(doc)) OVER (ROWS UNBOUNDED PRECEDING) AS _size"
            f" FROM ({sql}) AS found) AS sized WHERE _size - octet_length(doc) <= ?",
            (*params, most),
        )
        size = rows[-1][-1] if rows else 0
        self.budget.spend(size // READ_A_STEP)
        return [row[:-1] for row in rows], size > most

    def run(self, sql: str, params: Params = ()) -> int:
        self._check_writable()
        self._check_usable()
        try:
            return max(0, self._cursor.execute(numbered(sql), params).rowcount)
        except (psycopg.Error, UnicodeError) as error:
            raise self._spoil(error) from error

    def many(self, sql: str, rows: Sequence[Params]) -> None:
        self._check_writable()
        self._check_usable()
        try:
            self._cursor.executemany(numbered(sql), rows)
        except (psycopg.Error, UnicodeError) as error:
            raise self._spoil(error) from error

    def script(self, sql: str) -> None:
        self._check_writable()
        self._check_usable()
        try:
            self._cursor.execute(sql.encode())
        except (psycopg.Error, UnicodeError) as error:
            raise self._spoil(error) from error

    def begin(self, snapshot: bool) -> None:
        if self.writable:
            self._control("BEGIN")
        elif snapshot:
            self._control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def commit(self) -> None:
        for sql, rows in self.deferred:
            self.many(sql, rows)
        self.committing = True
        self._control("COMMIT")

    def _check_usable(self) -> None:
        super()._check_usable()
        if time.monotonic() > self._until:
            self.failed = QueryTooExpensive("The queries take too long; ask for less at a time.")
            raise self.failed

    def _control(self, sql: str) -> None:
        try:
            self._session.control(sql)
        except psycopg.Error as error:
            raise self._spoil(error) from error

    def _lost(self) -> bool:
        return self.disconnected or isinstance(self.failed, _ContentionError)

    @property
    def disconnected(self) -> bool:
        """Whether the session is of no more use: it ended, or its server is going down or became a standby."""
        # A server that goes down says so before it closes the connection, so that it may look open for a moment.
        return self._session.closed or type(self.failed) is Unavailable

    def _spoil(self, error: psycopg.Error | UnicodeError) -> StoreError:
        self.failed = translate(error)
        return self.failed


class PostgresDatabase(Database):
    """One PostgreSQL database, shared with any number of other processes."""

    dialect = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        required: bool = True,
        patient: bool = False,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._url = url
        self._read_seconds = read_seconds
        self._patient = patient
        self._steps = (UNLIMITED, UNLIMITED) if patient else (READ, WRITE)
        self._required = required
        self._half = max(1, pool_size // 2)
        self._readers: ThreadPoolExecutor | None = None
        self._writers: ThreadPoolExecutor | None = None
        # Those for reading and those for writing: a query has less time where others wait to read.
        self._idle: tuple[deque[_Session], deque[_Session]] = (deque(), deque())
        self._read_turns, self._write_turns = (
            Turns(self._half, waiting=QUEUE_LIMIT, seconds=QUEUE_SECONDS) for _ in range(2)
        )
        self._closing = False
        self._one_closes = threading.Lock()
        self._waiting = 0
        self._busy: set[_Session] = set()
        self._connects = self._retries = 0
        self._counting = threading.Lock()
        self._down: tuple[float, str] = (0.0, "")

    # -- opening and closing

    def open_sync(self) -> None:
        if self._writers is not None:
            return
        try:
            session = self._connect(writable=True)
            if session.connection.info.server_version < OLDEST_SERVER * 10_000:
                session.connection.close()
                raise Unavailable(f"PostgreSQL {OLDEST_SERVER} or newer is needed.")
            self._idle[True].append(session)
        except Unavailable:
            if self._required:
                raise
        # Apart, so that changes which wait for each other's locks cannot keep everybody from reading.
        self._readers = ThreadPoolExecutor(self._half, "postgresql-read")
        self._writers = ThreadPoolExecutor(self._half, "postgresql-write")
        self._closing = False

    def _connect(self, *, writable: bool) -> _Session:
        until, why = self._down
        if time.monotonic() < until:
            raise Unavailable(why)
        try:
            url = _network_defaults(self._url)
            connection = psycopg.connect(url, autocommit=True, context=ADAPTERS, client_encoding="utf8")
            connection.prepare_threshold = PREPARE_AFTER
            connection.prepared_max = PREPARED_STATEMENTS
            connection.execute(SESSION)
            if not writable:
                connection.execute(f"SET statement_timeout = {round(self._read_seconds * 1000)}".encode())
            if self._patient:
                connection.execute(PATIENT)
        except psycopg.Error as error:
            why = f"The PostgreSQL server cannot be used: {' '.join(str(error).split())}"
            self._down = (time.monotonic() + DOWN_SECONDS, why)
            raise Unavailable(why) from error
        with self._counting:
            self._connects += 1
        return _Session(connection)

    def close_sync(self) -> None:
        with self._one_closes:
            readers, self._readers = self._readers, None
            writers, self._writers = self._writers, None
            if readers is not None and writers is not None:
                readers.shutdown()
                writers.shutdown()
                self._drop_idle()

    def _drop_idle(self) -> None:
        for sessions in self._idle:
            while sessions:
                sessions.pop().connection.close()

    async def open(self) -> None:
        self._closing = False
        await asyncio.get_running_loop().run_in_executor(None, self.open_sync)

    async def close(self) -> None:
        self._closing = True
        await asyncio.gather(self._read_turns.over(), self._write_turns.over())
        await asyncio.get_running_loop().run_in_executor(None, self.close_sync)

    # -- units of work

    async def read(
        self, fn: Callable[[Tx], T], *, snapshot: bool = False, heavy: bool = False, caller: Hashable = None
    ) -> T:
        self._check_open()
        job = partial(self._run, fn, writable=False, steps=self._steps[False], snapshot=snapshot)
        async with self._read_turns.turn(caller):
            return await self._in_thread(self._readers, job, Unavailable)

    async def write(self, fn: Callable[[Tx], T], *, heavy: bool = False, caller: Hashable = None) -> T:
        self._check_open()
        job = partial(self._run, fn, writable=True, steps=self._steps[True])
        async with self._write_turns.turn(caller):
            return await self._in_thread(self._writers, job, OutcomeUnknown)

    def read_sync(self, fn: Callable[[Tx], T], *, snapshot: bool = False) -> T:
        self._check_open()
        return self._run(fn, writable=False, steps=self._steps[False], snapshot=snapshot)

    def write_sync(self, fn: Callable[[Tx], T]) -> T:
        self._check_open()
        return self._run(fn, writable=True, steps=UNLIMITED)

    def _check_open(self) -> None:
        if self._writers is None or self._closing:
            raise Unavailable("The database is not open.")

    def data_version(self) -> int:
        return 0

    def stats(self) -> dict[str, float]:
        return {
            "postgresql_pool_size": 2 * self._half,
            "postgresql_pool_in_use": len(self._busy),
            "postgresql_waiting": self._waiting + self._read_turns.waiting + self._write_turns.waiting,
            "postgresql_connects_total": self._connects,
            "postgresql_retries_total": self._retries,
        }

    async def _in_thread(
        self, threads: ThreadPoolExecutor | None, job: Callable[[], T], unfinished: type[StoreError]
    ) -> T:
        """Run a job in one of the threads; `unfinished` is what is raised when it has begun and does not end."""
        if threads is None:
            raise Unavailable("The database is not open.")
        if self._waiting >= QUEUE_LIMIT:
            raise Overloaded("Too many requests are waiting for the database.")
        begun = abandoned = False

        def in_turn() -> T:
            nonlocal begun
            # Each side says what it does before it looks at the other: never are both too late.
            begun = True
            if abandoned:
                raise Overloaded("Nobody waits for this any more.")
            return job()

        self._waiting += 1
        answer = asyncio.get_running_loop().run_in_executor(threads, in_turn)
        try:
            await asyncio.wait({answer}, timeout=QUEUE_SECONDS)
            abandoned = not begun
            if begun and not answer.done():
                abandoned = False
                await asyncio.wait({answer}, timeout=UNIT_SECONDS - QUEUE_SECONDS)
            if answer.done():
                return answer.result()
            if begun:
                raise unfinished("The PostgreSQL server does not answer.")
            raise Overloaded("The database is busy with what came before.")
        finally:
            answer.cancel()
            del answer  # the traceback of an error that it carries knows this frame
            self._waiting -= 1

    def _run(self, fn: Callable[[Tx], T], *, writable: bool, steps: int, snapshot: bool = False) -> T:
        """Run a unit until it is done, or not worth another attempt; each attempt has a budget of its own."""
        reconnected = False
        for attempt in itertools.count(1):
            session = self._borrow(writable)
            self._busy.add(session)
            seconds = FOREVER if steps == UNLIMITED else CHANGE_SECONDS if writable else 2 * self._read_seconds
            tx = PostgresTx(session, writable=writable, budget=Budget(steps), seconds=seconds)
            try:
                tx.begin(snapshot)
                result = tx.perform(fn)
                if writable:
                    tx.commit()
                return result
            except BaseException as error:
                if tx.disconnected:
                    session.connection.close()
                    self._drop_idle()  # most likely they are as dead
                    if tx.committing:
                        raise OutcomeUnknown("The connection was lost while this was being committed.") from error
                    if reconnected:
                        raise
                    reconnected = True
                elif not isinstance(tx.failed, _ContentionError) or attempt >= ATTEMPTS:
                    raise
            finally:
                tx.end()
                session.roll_back()
                self._busy.discard(session)
                if not session.closed:
                    self._idle[writable].append(session)
            with self._counting:
                self._retries += 1
            time.sleep(random.uniform(0, 0.002 * 2**attempt))
        raise AssertionError("itertools.count does not end")

    def _borrow(self, writable: bool) -> _Session:
        try:
            return self._idle[writable].pop()
        except IndexError:
            return self._connect(writable=writable)
