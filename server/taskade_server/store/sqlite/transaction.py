"""A unit of work on an SQLite connection: its statements, its budget, and SQLite's errors as ours."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from taskade_server.kit import json
from taskade_server.kit.budget import UNLIMITED, Budget
from taskade_server.store.interface import (
    OVER,
    READ_A_STEP,
    BadQuery,
    Conflict,
    ConstraintFailed,
    Corrupt,
    Overloaded,
    Params,
    QueryTooExpensive,
    Row,
    StorageFull,
    StoreError,
    Tx,
    Unavailable,
)

FOREVER = float("inf")
# Rows that are written are counted one by one before; what writing them takes of SQLite's machine counts for an eighth.
WRITING_SHARE = 8
Deferred = list[tuple[str, Sequence[Params]]]
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

    def __init__(self, cursor: apsw.Cursor, *, writable: bool, budget: Budget | None = None) -> None:
        super().__init__(writable=writable, budget=budget or Budget(UNLIMITED))
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
                    break
            self.budget.spend(size // READ_A_STEP)
            return rows, size > most
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
        self.cause = None  # its traceback knows this unit, and with it all that the unit has read

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


class SpentError(Exception):
    """An inline read has used up its budget, or met a lock: it has to move to a thread."""


class Meter:
    """Charges what a connection does to the budget of the unit that runs; interrupts its queries when that is spent."""

    __slots__ = ("_budget", "_clock_until", "_cost", "_until", "interrupts")

    def __init__(self, connection: apsw.Connection, tick: int, cost: int) -> None:
        """`cost`: what every `tick` steps of the virtual machine take from the budget."""
        self._cost = cost
        # What is written is not interrupted: SQLite would roll the whole transaction back.
        self.interrupts = False
        self.charge(Budget(UNLIMITED), FOREVER)
        connection.set_progress_handler(self._tick, tick)
        connection.create_scalar_function("text_at", self._text_at, 3, deterministic=True)

    def charge(self, budget: Budget, seconds: float, clock_seconds: float = FOREVER) -> None:
        """From here on charge this budget, and allow queries so much time.

        `seconds`: of the processor, in the thread that calls this. `clock_seconds`: by the clock.
        """
        self._budget = budget
        self._until = FOREVER if seconds == FOREVER else time.thread_time() + seconds
        self._clock_until = FOREVER if clock_seconds == FOREVER else time.monotonic() + clock_seconds

    def _tick(self) -> bool:
        self._budget.left -= self._cost if self.interrupts else self._cost // WRITING_SHARE
        return self.interrupts and (self._budget.left < 0 or self._late())

    def _late(self) -> bool:
        if self._until != FOREVER and time.thread_time() > self._until:
            return True
        return self._clock_until != FOREVER and time.monotonic() > self._clock_until

    def _text_at(self, *arguments: Any) -> str | None:
        """SQL function of (JSON document, member, key): the text that this object in it has under the key, or None.

        A document may be long and takes one step of the virtual machine, so it is charged by its length.
        """
        doc, member, key = arguments
        self._budget.left -= 1 + len(doc) // READ_A_STEP
        if self.interrupts and self._budget.left < 0:
            raise apsw.InterruptError("interrupted")
        text = (json.decode(doc).get(member) or {}).get(key)
        return text if isinstance(text, str) else None


class WriterTx(SqliteTx):
    """A unit that writes. Its queries are interrupted when its budget is spent, its changes are not."""

    __slots__ = ("_meter", "_others")

    def __init__(
        self, cursor: apsw.Cursor, meter: Meter, budget: tuple[int, float], others: Deferred | None = None
    ) -> None:
        """`budget`: steps, and seconds. `others`: what the units before it in its group have deferred."""
        steps, seconds = budget
        super().__init__(cursor, writable=True, budget=Budget(steps))
        self._meter = meter
        meter.charge(self.budget, seconds)
        self._others = others

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        # As in SqliteTx, without a call of its own: it runs several times for each change.
        self._meter.interrupts = True
        try:
            return self._execute(sql, params).fetchall()
        except (apsw.Error, OverflowError, UnicodeError) as error:
            raise self._spoil(error) from error
        finally:
            self._meter.interrupts = False

    def write_deferred(self) -> None:
        # In the order of the units, or an older text of a row would be written over this unit's.
        if self._others:
            self.deferred[:0] = self._others
            self._others.clear()
        super().write_deferred()

    def page(self, sql: str, params: Params, most: int) -> tuple[list[Row], bool]:
        self._meter.interrupts = True
        try:
            return super().page(sql, params, most)
        finally:
            self._meter.interrupts = False
