"""What a database is to the layers above: units of work that run whole, or not at all.

A unit is a synchronous function of a `Tx`. It is never suspended half-way, so nothing above needs an async
twin, a lock or a session; and since it may be run again (after a deadlock, or when it moves to another
thread), its only effects are what it does through its `Tx`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from taskade_server.kit.budget import Budget

T = TypeVar("T")
Row = tuple[Any, ...]
Params = Sequence[Any]


class StoreError(Exception):
    """Base of all that the store raises on its own account."""


class BadQuery(StoreError):
    """The SQL, its parameters or their use are wrong: a fault of the program, not of the data."""


class ConstraintFailed(StoreError):
    """The row breaks a rule of the schema: NOT NULL, CHECK, a foreign key, or the type of a column."""


class Conflict(ConstraintFailed):
    """A row with this key exists already.

    `columns` are those of the key; `constraint` is its name, which SQLite only tells for indexes on expressions.
    """

    def __init__(self, message: str, *, table: str = "", columns: tuple[str, ...] = (), constraint: str = "") -> None:
        super().__init__(message)
        self.table = table
        self.columns = columns
        self.constraint = constraint


class QueryTooExpensive(StoreError):
    """The query was stopped because it went on for too long."""


class StorageFull(StoreError):
    """There is no room left on the disk; nothing of this unit was kept."""


class Unavailable(StoreError):
    """The database cannot be reached or opened now; nothing of this unit was kept."""


class Overloaded(Unavailable):
    """Too much work is waiting, or another process holds the database; nothing of this unit was kept."""


class OutcomeUnknown(StoreError):
    """The commit failed in a way that leaves open whether this unit was kept. Only asking again can tell."""


class Corrupt(StoreError):
    """The file is damaged, or is no database at all."""


class NewerDatabase(StoreError):
    """The database was written by a newer version of this program."""


class ChangedMigration(StoreError):
    """A migration that was applied to this database reads differently now."""


# What "spoils" a unit that has ended, so that one which leaks its Tx cannot write into a later unit.
OVER = BadQuery("This unit of work is over: a Tx must not be kept.")


READ_A_STEP = 250
"""How many characters of documents a page brings for one step of the unit's budget."""


class Tx(ABC):
    """One unit of work. It is good for one call of the function it is given to, and for nothing afterwards.

    A statement that failed spoils the unit, on both databases alike: it cannot go on, nor be kept, unless the
    statement ran inside `savepoint`.
    """

    dialect: ClassVar[str]
    locks_rows: ClassVar[bool] = False
    """Whether units that write run side by side and so have to lock rows (PostgreSQL). SQLite has one writer."""
    for_update: ClassVar[str] = ""
    for_share: ClassVar[str] = ""

    __slots__ = ("before_commit", "budget", "context", "deferred", "failed", "writable")

    def __init__(self, *, writable: bool, budget: Budget) -> None:
        self.writable = writable
        # All that the unit may do, its SQL included. A layer above spends from it before work that grows with what a
        # caller sends or has stored; BudgetSpent then ends the unit, and must not be caught by it.
        self.budget = budget
        self.failed: StoreError | None = None
        # Run in order at the end of the unit, while it can still be undone. A hook may add further ones.
        self.before_commit: list[Callable[[], None]] = []
        # Scratch for higher layers; fresh whenever the unit is run, or run again.
        self.context: dict[str, object] = {}
        self.deferred: list[tuple[str, Sequence[Params]]] = []

    @abstractmethod
    def all(self, sql: str, params: Params = ()) -> list[Row]:
        """All rows of the result."""

    @abstractmethod
    def page(self, sql: str, params: Params, most: int) -> tuple[list[Row], bool]:
        """As `all`, but ends with the row whose `doc`, the first column, brings the texts' size beyond `most`.

        The second value tells whether it ended so. What is not returned takes no memory.
        """

    @abstractmethod
    def run(self, sql: str, params: Params = ()) -> int:
        """Execute an INSERT, UPDATE or DELETE; how many rows it changed."""

    @abstractmethod
    def many(self, sql: str, rows: Sequence[Params]) -> None:
        """Execute the statement once for each row of parameters."""

    @abstractmethod
    def script(self, sql: str) -> None:
        """Execute several statements, which take no parameters. For migrations."""

    @abstractmethod
    def _control(self, sql: str) -> None:
        """Execute a transaction control statement, even in a spoiled unit."""

    @abstractmethod
    def _lost(self) -> bool:
        """Whether the failure took the whole transaction with it, so that no savepoint can save the unit."""

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """The first row of the result. The query should have but one: all of them are read."""
        rows = self.all(sql, params)
        return rows[0] if rows else None

    def defer(self, sql: str, rows: Sequence[Params]) -> None:
        """Write these rows just before the commit, in this order, in one go with those of other units.

        For full-text indexes, which flush what they have gathered at every savepoint. A failed unit's are
        dropped; rows that cannot be written fail their unit.
        """
        self._check_writable()
        self.deferred.append((sql, rows))

    def write_deferred(self) -> None:
        """Write what was deferred until now, so that this unit can find it. Not inside of `savepoint`."""
        deferred, self.deferred = self.deferred, []
        for sql, rows in deferred:
            self.many(sql, rows)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what happened inside if an exception leaves it, and only that; the unit can go on.

        Rows, hooks and deferred rows are undone; `context` belongs to its owner, who must undo it.
        """
        self._check_writable()
        self._check_usable()
        hooks, deferred = len(self.before_commit), len(self.deferred)
        self._control("SAVEPOINT inner_unit")
        try:
            yield
            if self.failed:
                raise self.failed
        except BaseException:
            if not self._lost():
                self._recover()
                self._control("ROLLBACK TO SAVEPOINT inner_unit")
                self._control("RELEASE SAVEPOINT inner_unit")
            del self.before_commit[hooks:]
            del self.deferred[deferred:]
            raise
        self._control("RELEASE SAVEPOINT inner_unit")

    def _recover(self) -> None:
        """A savepoint undoes what spoiled the unit."""
        self.failed = None

    def perform(self, fn: "Callable[[Tx], T]") -> T:
        """For drivers: run the unit and its hooks, and do not let a failed statement go unnoticed."""
        try:
            result = fn(self)
            for hook in self.before_commit:
                hook()
        except StopIteration as error:
            # No future can carry it, so who waits for this unit would wait for ever.
            raise RuntimeError("a unit of work raised StopIteration") from error
        if self.failed:
            raise self.failed
        return result

    def end(self) -> None:
        """For drivers: the unit is over. Hooks know their unit, so all of it would wait for the garbage collector."""
        self.failed = OVER
        self.before_commit.clear()
        self.context.clear()

    def _check_writable(self) -> None:
        if not self.writable:
            raise BadQuery("This unit may only read: use write().")

    def _check_usable(self) -> None:
        if self.failed is OVER:
            raise BadQuery(*OVER.args)
        if self.failed:
            raise BadQuery("A statement of this unit failed before, so it cannot go on.") from self.failed


class Database(ABC):
    """Runs units of work: the async methods for one event loop, the `_sync` ones for any thread outside it.

    Where units have to wait, those of different callers take turns. `caller` is whatever tells callers apart; None: the
    unit is run for nobody in particular, such as the server itself.
    """

    dialect: ClassVar[str]

    @abstractmethod
    def open_sync(self) -> None:
        """Connect, or say in one line why that is impossible. Opening twice is harmless."""

    @abstractmethod
    def close_sync(self) -> None:
        """Release everything. Closing twice is harmless."""

    @abstractmethod
    async def open(self) -> None:
        """As `open_sync`, without holding up the event loop."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is waiting, then release everything."""

    @abstractmethod
    async def read(
        self, fn: Callable[[Tx], T], *, snapshot: bool = False, heavy: bool = False, caller: Hashable = None
    ) -> T:
        """Run a unit that only reads, perhaps twice.

        With `snapshot` all its statements see the same state; without it each sees the latest. `heavy` says
        that it is long, which spares the attempt to run it at once. BudgetSpent or QueryTooExpensive if it needs more
        work than a unit may.
        """

    @abstractmethod
    async def write(self, fn: Callable[[Tx], T], *, heavy: bool = False, caller: Hashable = None) -> T:
        """Run a unit, perhaps twice, and return (or raise) only once its outcome is on disk.

        `heavy` says that it touches many rows, which spares the attempt to run it on the event loop. BudgetSpent or
        QueryTooExpensive if it needs more work than a unit may; nothing of it was kept then.
        """

    @abstractmethod
    def read_sync(self, fn: Callable[[Tx], T], *, snapshot: bool = False) -> T:
        """As `read`, for commands and tests."""

    @abstractmethod
    def write_sync(self, fn: Callable[[Tx], T]) -> T:
        """As `write`, for commands and tests."""

    @abstractmethod
    def data_version(self) -> int:
        """A number that differs whenever anyone may have committed since; 0 when that cannot be known.

        Ask before reading what is to be remembered under it, on the event loop: elsewhere the answer is 0.
        """

    @abstractmethod
    def stats(self) -> dict[str, float]:
        """Counts since the start (`..._total`) and present values, by name. Cheap, and at no moment an error."""

    def __enter__(self) -> Self:
        self.open_sync()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close_sync()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()
