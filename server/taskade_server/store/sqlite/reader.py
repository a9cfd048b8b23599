"""Connections that only read, with a budget for each unit of work."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import apsw

from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.store.interface import Tx
from taskade_server.store.sqlite.transaction import FOREVER, Meter, SpentError, SqliteTx
from taskade_server.store.sqlite.writer import T

# Reads in a row after which holding a lock for all of them pays, and for how long.
ANCHOR_READS = 8
ANCHOR_SECONDS = 0.05
READER_NICENESS = 10


def step_back() -> None:
    """Let the event loop go first when there are fewer processors than long queries."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), READER_NICENESS)


class Reader:
    """A connection that only reads, with a budget for each unit."""

    def __init__(
        self,
        connection: apsw.Connection,
        tick: tuple[int, int],
        steps: int,
        seconds: float,
        clock_seconds: float = FOREVER,
    ) -> None:
        """`tick`: as for Meter. Each unit has so many steps, processor time of its thread, and time by the clock."""
        self.connection = connection
        self._cursor = connection.cursor()
        self._version = connection.cursor()
        self._meter = Meter(connection, *tick)
        self._steps = steps
        self._times = seconds, clock_seconds

    def run(self, fn: Callable[[Tx], T], snapshot: bool) -> T:
        tx = SqliteTx(self._cursor, writable=False, budget=Budget(self._steps))
        self._meter.charge(tx.budget, *self._times)
        self._meter.interrupts = True
        try:
            if snapshot:
                tx._control("BEGIN")
            return tx.perform(fn)
        except Exception as error:
            if isinstance(error, BudgetSpent) or isinstance(tx.cause, (apsw.InterruptError, apsw.BusyError)):
                raise SpentError from error
            raise
        finally:
            # The budget that this unit has spent must interrupt nothing that comes after it.
            self._meter.interrupts = False
            tx.end()
            if snapshot and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def data_version(self) -> int:
        # Perhaps in the midst of a unit whose budget is spent: that may not interrupt this.
        within, self._meter.interrupts = self._meter.interrupts, False
        try:
            version: int = self._version.execute("PRAGMA data_version").get
        finally:
            self._meter.interrupts = within
        return version


class Anchor:
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
