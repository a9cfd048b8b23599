"""The changes that wait to be written: run in groups, on the event loop or on a thread, and committed together.

Why two queues: short changes do not wait for all long ones that came before them, only for one group of these; and of
the long ones, callers have theirs in turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw

from taskade_server.kit.budget import LIGHT, UNLIMITED, WRITE
from taskade_server.store.interface import OutcomeUnknown, Overloaded, StoreError, Tx, Unavailable
from taskade_server.store.sqlite.transaction import FOREVER, translate
from taskade_server.store.sqlite.writer import Checkpointer, T, Unit, Writer
from taskade_server.store.turns import FairQueue

BUSY_SECONDS = 10.0
"""How long a group waits for another process that is writing to the database."""
GROUP_UNITS = 256
"""How many light units are committed together at most: the first of them waits for the last."""
GROUP_HEAVY = 8
"""How many heavy units are committed together at most: light ones wait for all of them."""
QUEUE_LIMIT = 10_000
"""How many light units may wait; one more is refused (Overloaded)."""
HEAVY_LIMIT = 100
"""How many heavy units may wait, all callers together."""
WRITER_SECONDS = 0.25
"""How much processor time a heavy unit may take. Not time by the clock: a busy machine must not make a change fail."""


class _Waiting:
    """The units that wait: short ones in order, heavy ones by caller in turn."""

    def __init__(self) -> None:
        self._light: deque[Unit[Any]] = deque()
        self._heavy: FairQueue[Unit[Any]] = FairQueue(HEAVY_LIMIT)
        self._last_was_heavy = False

    def __len__(self) -> int:
        return len(self._light) + len(self._heavy)

    def is_full(self, caller: Hashable, *, heavy: bool) -> bool:
        """Whether no more units of a kind may wait."""
        return self._heavy.full(caller) if heavy else len(self._light) >= QUEUE_LIMIT

    def append(self, unit: Unit[Any]) -> None:
        """Let a unit wait behind the others of its kind."""
        if unit.heavy:
            self._heavy.append(unit.caller, unit)
        else:
            self._light.append(unit)

    def put_back(self, units: Sequence[Unit[Any]]) -> None:
        """Let units be the first in the next group of their kind."""
        for unit in reversed(units):
            if unit.heavy:
                self._heavy.put_back(unit.caller, unit)
            else:
                self._light.appendleft(unit)

    def take(self) -> list[Unit[Any]]:
        """The next group: units of one kind, so that short ones do not wait for the commit of a heavy one.

        The kinds take turns when units of both wait.
        """
        light, heavy = self._light, self._heavy
        take_heavy = self._last_was_heavy = bool(heavy) and not (light and self._last_was_heavy)
        most = GROUP_HEAVY if take_heavy else GROUP_UNITS
        units: list[Unit[Any]] = []
        now = time.monotonic()
        while (heavy if take_heavy else light) and len(units) < most:
            unit = heavy.pop() if take_heavy else light.popleft()
            if now > unit.late:
                unit.fail(Overloaded("The database is busy with what came before."))
                unit.settle()
            else:
                units.append(unit)
        return units or (self.take() if light or heavy else [])

    def take_all(self) -> list[Unit[Any]]:
        """Every unit, in no particular order; none is left."""
        found = [*self._light, *self._heavy]
        self._light.clear()
        self._heavy.clear()
        return found


class WriteQueue:
    """Runs units of work on the only writer, in groups, and tells those who wait once a group is on disk.

    After a failure of the disk nothing is written any more: `failure` then holds the error, and `on_fatal` is called
    on the event loop, once.
    """

    def __init__(
        self,
        writer: Writer,
        checkpointer: Checkpointer,
        *,
        wait_for_disk: bool,
        patient: bool,
        on_begin: Callable[[], None],
        on_stop: Callable[[StoreError], None],
        on_fatal: Callable[[BaseException], None] | None,
    ) -> None:
        """`wait_for_disk`: a commit syncs, and is worth a thread. `patient`: units have no budget.

        `on_begin` is called on the event loop when writing begins after a pause; `on_stop` on any thread when the disk
        has failed, with the error for all who want to use the database from then on.
        """
        self._writer = writer
        self._checkpointer = checkpointer
        self._wait_for_disk = wait_for_disk
        self._light_budget = LIGHT, FOREVER
        self._heavy_budget = (UNLIMITED, FOREVER) if patient else (WRITE, WRITER_SECONDS)
        self._on_begin = on_begin
        self._on_stop = on_stop
        self._on_fatal = on_fatal
        self._waiting = _Waiting()
        self.running = False
        self._running_loop: asyncio.AbstractEventLoop | None = None
        self._waiting_for_end: list[asyncio.Future[None]] = []
        self._checkpointing = False
        self._commit_thread = ThreadPoolExecutor(1, "sqlite-commit")
        self._checkpoint_thread = ThreadPoolExecutor(1, "sqlite-checkpoint")
        self._commits = self._units = 0
        self._commit_seconds = 0.0
        self.failure: BaseException | None = None

    # -- from outside

    async def write(self, fn: Callable[[Tx], T], *, heavy: bool, caller: Hashable) -> T:
        """Run a unit for a caller, and return or raise once its outcome is on disk. Overloaded if too many wait."""
        if self._waiting.is_full(caller, heavy=heavy):
            raise Overloaded("Too many changes are waiting to be written.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        unit = Unit(fn, future, heavy, self._heavy_budget if heavy else self._light_budget, caller)
        self._waiting.append(unit)
        # If the loop that was running the queue is closed (a command may run several), this one takes over.
        if not self.running or (self._running_loop is not None and self._running_loop.is_closed()):
            self.running, self._running_loop = True, loop
            self._on_begin()
            loop.call_soon(self._run_next_group, loop)
        try:
            return await future
        finally:
            del future, unit  # breaks the cycle error -> traceback -> frame -> future -> error

    def write_sync(self, fn: Callable[[Tx], T]) -> T:
        """Run a unit without a budget, on any thread outside the event loop."""
        unit = Unit(fn, None, True, (UNLIMITED, FOREVER))
        with self._writer.lock:
            self._run_and_commit([unit])
            self._checkpoint()
        self._report_failure()
        if unit.error is not None:
            raise unit.error
        return unit.result  # type: ignore[return-value]  # T may include None

    async def finish(self) -> None:
        """Wait until nothing is left to write."""
        if self.running:
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_for_end.append(ended)
            await ended

    def close(self) -> None:
        """End the threads; what they do at the moment they finish."""
        self._commit_thread.shutdown()
        self._checkpoint_thread.shutdown()

    def stats(self) -> dict[str, float]:
        """Figures for the metrics."""
        return {
            "sqlite_writer_queue": len(self._waiting),
            "sqlite_commits_total": self._commits,
            "sqlite_commit_seconds_total": self._commit_seconds,
            "sqlite_units_total": self._units,
            "sqlite_wal_pages": self._writer.wal_pages,
            "sqlite_checkpoints_total": self._writer.checkpoints,
            "sqlite_checkpoints_incomplete_total": self._writer.checkpoints_incomplete,
        }

    # -- on the event loop

    def _run_next_group(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the next group: here on the loop if it is short work, all but its commit."""
        if self.failure is not None:
            self._refuse_all()
        writer, units = self._writer, self._waiting.take()
        if not units:
            self.running = False
            for ended in self._waiting_for_end:
                if not ended.done():  # its waiter may have given up
                    ended.set_result(None)
            self._waiting_for_end.clear()
            return
        if units[0].heavy or not writer.lock.acquire(blocking=False):
            self._commit_thread.submit(self._group_on_thread, units, loop)
            return
        try:
            ran = writer.transact(units, wait=0)
        except apsw.BusyError:  # another process is writing: wait for it elsewhere
            writer.lock.release()
            self._commit_thread.submit(self._group_on_thread, units, loop)
            return
        except Exception as error:
            self._stop(units, error)
            ran = len(units)
        self._waiting.put_back(units[ran:])
        if not self._wait_for_disk and not writer.checkpoint_due:
            # Without an fsync a commit is cheaper than the way to the thread and back.
            self._commit(units[:ran])
            writer.lock.release()
            self._settle(units[:ran])
            loop.call_soon(self._run_next_group, loop)
        else:
            self._commit_thread.submit(self._commit_on_thread, units[:ran], loop)

    def _settle(self, units: list[Unit[Any]], left: Sequence[Unit[Any]] = ()) -> None:
        """Tell those who wait; units that need a larger budget begin again as heavy ones."""
        self._waiting.put_back(left)
        for unit in units:
            if unit.moves:
                unit.move(self._heavy_budget)
                self._waiting.append(unit)
            else:
                unit.settle()

    def _refuse_all(self) -> None:
        for unit in self._waiting.take_all():
            unit.fail(self._refusal())
            unit.settle()
        self._report_failure()

    def _report_failure(self) -> None:
        if self.failure is not None and self._on_fatal is not None:
            report, self._on_fatal = self._on_fatal, None
            report(self.failure)

    # -- on a thread

    def _group_on_thread(self, units: list[Unit[Any]], loop: asyncio.AbstractEventLoop) -> None:
        with self._writer.lock:
            ran = self._run_and_commit(units)
            loop.call_soon_threadsafe(self._settle, units[:ran], units[ran:])
            self._begin_checkpoint(loop)
        loop.call_soon_threadsafe(self._run_next_group, loop)

    def _commit_on_thread(self, units: list[Unit[Any]], loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._commit(units)
            loop.call_soon_threadsafe(self._settle, units)
            self._begin_checkpoint(loop)
        finally:
            self._writer.lock.release()
        loop.call_soon_threadsafe(self._run_next_group, loop)

    def _begin_checkpoint(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a checkpoint that lets others write, unless one is under way."""
        if self.failure is None and self._writer.checkpoint_due and not self._checkpointing:
            self._checkpointing = True
            self._checkpoint_thread.submit(self._checkpoint_on_thread, loop)

    def _checkpoint_on_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._checkpointer.advance()
            with self._writer.lock:
                self._checkpoint()
        except Exception as error:
            with self._writer.lock:
                self._stop([], error)
        finally:
            self._checkpointing = False
        if self.failure is not None:
            loop.call_soon_threadsafe(self._report_failure)

    # -- on any thread, holding the writer's lock

    def _run_and_commit(self, units: list[Unit[Any]]) -> int:
        """Run units and commit them. Returns how many were run; the caller puts the rest back into the queue."""
        try:
            ran = self._writer.transact(units, wait=BUSY_SECONDS)
        except apsw.BusyError as error:
            for unit in units:
                unit.fail(translate(error))
            return len(units)
        except Exception as error:
            self._stop(units, error)
            return len(units)
        self._commit(units[:ran])
        return ran

    def _commit(self, units: list[Unit[Any]]) -> None:
        if self.failure is not None:
            # The disk has failed: nothing is committed; units that have an error of their own keep it.
            for unit in units:
                unit.fail(unit.error or self._refusal())
            return
        began = time.perf_counter()
        try:
            self._writer.commit()
        except Exception as error:
            self._stop(units, error)
            return
        self._commits += 1
        self._units += len(units)
        self._commit_seconds += time.perf_counter() - began

    def _checkpoint(self) -> None:
        if self.failure is None and self._writer.checkpoint_due:
            try:
                self._writer.checkpoint()
            except Exception as error:
                self._stop([], error)

    def _stop(self, units: list[Unit[Any]], error: BaseException) -> None:
        """Refuse all further work: what the file holds now, only the recovery at the next start can tell."""
        self.failure = error.__cause__ or error
        self._on_stop(self._refusal())
        self._writer.abandon()
        for unit in units:
            unit.fail(OutcomeUnknown(f"The disk failed while this was being written: {self.failure}."))

    def _refusal(self) -> StoreError:
        """Why nothing is written any more; a new exception each time, or its tracebacks would pile up."""
        return Unavailable(f"The database stopped after a failure of the disk: {self.failure}.")
