"""Carries out the runs of one share: what is due, many at a time, each lane in its order."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final

from taskade_server.consumers.runner import Lease
from taskade_server.domain import automations
from taskade_server.domain.automations import FAILING, MAX_FAILURES, RIGHTS, Progress, Services, StepFailed
from taskade_server.kit import time
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run

logger: Final = logging.getLogger("taskade")

AT_ONCE: Final = 32
"""How many runs of one share are under way at a time."""
LOOK_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 1.0


class Executor:
    """The runs of one share, for as long as it has the lease on them."""

    def __init__(
        self,
        db: Database,
        services: Services,
        lease: Lease,
        news: asyncio.Event,
        shard: int,
        ended: Counter[str],
    ) -> None:
        """`ended` counts the runs that come to their end, by state."""
        self._db = db
        self._services = services
        self._lease = lease
        self._news = news
        self._shard = shard
        self._ended = ended
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Carry out what is due until the lease is lost or is to be left; what is under way then comes to its end."""
        try:
            while self._lease.held and not self._lease.leaving.is_set():
                self._news.clear()
                wait = await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._news.wait()
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _look(self) -> float:
        """Begin what is due and has room; how many seconds until there may be more."""
        now = time.now_ms()
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return LOOK_SECONDS
        found = await self._db.read(partial(runs.due, shard=self._shard, now=now, limit=AT_ONCE + room))
        fresh = [run_id for run_id, _ in found if run_id not in self._under_way][:room]
        for run_id in fresh:
            task = asyncio.create_task(self._carry_out(run_id))
            self._under_way[run_id] = task
            task.add_done_callback(partial(self._over, run_id))
        if fresh:
            return LOOK_SECONDS
        due = await self._db.read(partial(runs.next_due, shard=self._shard))
        return LOOK_SECONDS if due is None else min(max((due - now) / 1000, 0.01), LOOK_SECONDS)

    def _over(self, run_id: str, task: "asyncio.Task[None]") -> None:
        self._under_way.pop(run_id, None)
        self._news.set()

    async def _carry_out(self, run_id: str) -> None:
        """Carry out a run as far as it goes now. A fault of the database is met by trying again later."""
        try:
            while self._lease.held and await self._advance(run_id):
                pass
        except StoreError as error:
            logger.warning("The run %s could not go on (%s); it is tried again.", run_id, error)
            await asyncio.sleep(PAUSE_SECONDS)
        except Exception:
            logger.exception("The run %s failed in a way that nobody foresaw; it ends.", run_id)
            await self._db.write(partial(self._break_off, run_id=run_id))

    async def _advance(self, run_id: str) -> bool:
        """Carry out one stretch; whether the run goes on at once."""

        def unit(tx: Tx) -> Progress | None:
            self._lease.hold(tx)
            progress = automations.advance(tx, run_id, self._services, time.now_ms())
            if progress is not None and progress.lost is not None:
                automations.disable(tx, progress.run.automation_id, RIGHTS, progress.lost)
            return progress

        try:
            progress = await self._db.write(unit)
        except StepFailed as failed:
            return self._goes_on(await self._db.write(partial(self._fail, run_id=run_id, failed=failed)))
        return self._goes_on(None if progress is None else progress.run)

    def _goes_on(self, run: Run | None) -> bool:
        if run is not None and run.finished_at is not None:
            self._ended[run.state] += 1
            return False
        return run is not None and run.wake_at is not None and run.wake_at <= time.now_ms()

    def _fail(self, tx: Tx, run_id: str, failed: StepFailed) -> Run | None:
        self._lease.hold(tx)
        found = automations.record_failure(tx, run_id, failed, time.now_ms())
        if found is None:
            return None
        run, in_a_row = found
        if in_a_row >= MAX_FAILURES:
            detail = f"{in_a_row} runs in a row have failed, the last one at {run.detail}"
            automations.disable(tx, run.automation_id, FAILING, detail)
        return run

    def _break_off(self, tx: Tx, run_id: str) -> None:
        self._lease.hold(tx)
        run = runs.find(tx, run_id, lock=True)
        if run is not None and run.finished_at is None:
            detail = "The server failed to carry it out; its log says more under the id of the run."
            runs.end(tx, run, runs.FAILED, time.now_ms(), "internal", detail)
