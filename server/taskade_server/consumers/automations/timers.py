"""Fires the timers of all automations that are due, and sets those of new ones, for whoever has the lease on that.

Nothing of it is in memory: whoever has the lease next finds in the rows what is still to be done.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from taskade_server.consumers.runner import Lease
from taskade_server.domain import automations
from taskade_server.domain.automations import RIGHTS, Firing
from taskade_server.kit import time
from taskade_server.kit.budget import BudgetSpent
from taskade_server.store.database import Database, QueryTooExpensive, StoreError, Tx
from taskade_server.store.tables import timers
from taskade_server.store.tables.leases import LeaseLost

logger: Final = logging.getLogger("taskade")

AT_ONCE: Final = 500
"""How many due timers are looked for at a time."""
UNIT: Final = 50
"""How many of them one unit fires."""
LOOK_SECONDS: Final = 0.5
SOON_SECONDS: Final = 0.01
GAP_MS: Final = 60_000
"""After so long without a look at what is due, nobody was watching."""
POSTPONED_MS: Final = 60_000
SCAN_UNIT: Final = 100


class Timers:
    """The timers, for as long as the lease on them is held. `told` is called when runs were started."""

    def __init__(self, db: Database, secret: bytes, lease: Lease, told: Callable[[], None]) -> None:
        self._db = db
        self._secret = secret
        self._lease = lease
        self._told = told
        self._watched = self._looked = time.now_ms()
        self._steps = -1
        self._scan_unit = SCAN_UNIT
        self._scan_at = 0

    async def run(self) -> None:
        """Fire what is due, and set timers, while the lease is held."""
        while self._lease.held:
            await asyncio.sleep(await self.look())

    async def look(self) -> float:
        """Fire what is due, and set the next timers of new automations; how many seconds until there may be more."""
        now = time.now_ms()
        if (steps := time.steps_back()) != self._steps:
            await self._db.write(partial(self._correct_times, now=now, stepped=self._steps >= 0), heavy=True)
            self._watched, self._steps = now, steps
        elif now - self._looked > GAP_MS:
            self._watched = now
        due = await self._db.read(partial(timers.due, now=now, limit=AT_ONCE))
        for begin in range(0, len(due), UNIT):
            await self._fire(sorted(due[begin : begin + UNIT]))
        scanned = await self._scan()
        wait = 0.0 if len(due) == AT_ONCE or scanned else await self._pause()
        self._looked = time.now_ms()
        return wait

    async def _pause(self) -> float:
        due = await self._db.read(timers.next_due)
        if due is None:
            return LOOK_SECONDS
        return min(max((due - time.now_ms()) / 1000, SOON_SECONDS), LOOK_SECONDS)

    def _correct_times(self, tx: Tx, now: int, stepped: bool) -> None:
        """Correct timers after the clock was set back; once at the start, in case it was before."""
        self._lease.hold(tx)
        if corrected := automations.correct_times(tx, now, stepped=stepped):
            logger.warning("The clock was ahead: %d timers of automations are due sooner than it said.", corrected)

    # -- what is due

    async def _fire(self, due: Sequence[tuple[str, str]]) -> None:
        """Fire some timers in one unit, or if that fails, each in one of its own."""
        try:
            firing = await self._db.write(partial(self._fire_unit, due=due), heavy=True)
        except Exception as error:
            if _is_passing(error):
                raise
            if len(due) > 1:
                for one in due:
                    await self._fire([one])
                return
            await self._postpone(*due[0], error)
            return
        if firing.started:
            self._told()

    def _fire_unit(self, tx: Tx, due: Sequence[tuple[str, str]]) -> Firing:
        self._lease.hold(tx)
        firing, now = Firing(self._watched), time.now_ms()
        for automation_id, object_id in due:
            automations.fire(tx, firing, automation_id, object_id, now)
        for automation_id, why in firing.lost.items():
            automations.disable(tx, automation_id, RIGHTS, why)
        return firing

    async def _postpone(self, automation_id: str, object_id: str, error: Exception) -> None:
        """Look later at a timer that cannot be fired now; others do not wait for it."""
        name = f"{automation_id} {object_id}".strip()
        if isinstance(error, BudgetSpent | QueryTooExpensive):
            logger.warning("The timer %s takes too much work in one unit; it is tried again in a minute.", name)
        else:
            logger.error("The timer %s failed in a way that nobody foresaw.", name, exc_info=error)

        def unit(tx: Tx) -> None:
            self._lease.hold(tx)
            timers.postpone(tx, automation_id, object_id, time.now_ms() + POSTPONED_MS)

        await self._db.write(unit)

    # -- setting timers

    async def _scan(self) -> bool:
        """Set the timers of the next objects of an automation that is new; whether there may be more to do."""
        if time.now_ms() < self._scan_at or not await self._db.read(timers.is_scanning):
            return False

        def unit(tx: Tx) -> bool:
            self._lease.hold(tx)
            return automations.scan(tx, self._secret, time.now_ms(), self._scan_unit)

        try:
            scanned = await self._db.write(unit, heavy=True)
        except Exception as error:
            if _is_passing(error):
                raise
            if isinstance(error, BudgetSpent | QueryTooExpensive) and self._scan_unit > 1:
                self._scan_unit = max(self._scan_unit // 4, 1)  # objects with a long past
                return True
            logger.exception("Timers of an automation could not be set; that is tried again in a minute.")
            self._scan_at = time.now_ms() + POSTPONED_MS
            await self._db.write(self._end_turn)
            return False
        self._scan_unit = min(self._scan_unit * 2, SCAN_UNIT)
        return scanned

    def _end_turn(self, tx: Tx) -> None:
        """Let the next automation have its turn."""
        self._lease.hold(tx)
        found = timers.next_scan(tx)
        if found is not None:
            timers.move_scan(tx, found, found.position)


def _is_passing(error: Exception) -> bool:
    """Whether the database, or the lease, is to blame, and not what was to be done."""
    return isinstance(error, LeaseLost | StoreError) and not isinstance(error, QueryTooExpensive)
