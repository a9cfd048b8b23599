"""The background work of automations, as jobs of the runner."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from taskade_server.consumers.automations.executor import Executor
from taskade_server.consumers.automations.starts import read_page, write_runs
from taskade_server.consumers.automations.timers import Timers
from taskade_server.consumers.feed import Feed
from taskade_server.consumers.log_reader import LogReader, Reading
from taskade_server.consumers.runner import Job, Lease, now_for_removing
from taskade_server.domain.automations import READER, Services
from taskade_server.kit import time
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import SHARDS

CLEAN_SECONDS: Final = 3600.0
CLEAN_AT_ONCE: Final = 1000
KEPT_DAYS: Final = 30
FAILURES_KEPT_DAYS: Final = 90


class Automations:
    """Starting runs by events and by time, carrying out each share of them, and forgetting them."""

    def __init__(self, db: Database, feed: Feed, services: Services) -> None:
        self._db = db
        self._services = services
        self.ended: Counter[str] = Counter()
        """How many runs this process has carried out to their end, by state."""
        self._news = {shard: asyncio.Event() for shard in range(SHARDS)}
        reading = Reading("runs of automations", partial(runs.behind, reader=READER), read_page, write_runs)
        self._reader = LogReader(db, feed, reading, self.wake)

    def wake(self) -> None:
        """Let the executors of this process look for what is due; those of others look by themselves."""
        for news in self._news.values():
            news.set()

    def jobs(self) -> list[Job]:
        """What is done for all processes together, each by one of them."""
        shares = [Job(f"automations/{shard}", 0.0, self._executing(shard), shared=True) for shard in range(SHARDS)]
        return [
            Job("automations", 0.0, self._reader.run),
            *shares,
            Job("automations/timers", 0.0, self._watch),
            Job("automations/old", CLEAN_SECONDS, self._clean),
        ]

    def _executing(self, shard: int) -> Callable[[Lease], Awaitable[None]]:
        async def run(lease: Lease) -> None:
            await Executor(self._db, self._services, lease, self._news[shard], shard, self.ended).run()

        return run

    async def _watch(self, lease: Lease) -> None:
        await Timers(self._db, self._services.secret, lease, self.wake).run()

    async def _clean(self, lease: Lease) -> None:
        def unit(tx: Tx, now: int) -> int:
            lease.hold(tx)
            failed_before = now - FAILURES_KEPT_DAYS * time.DAY_MS
            forgotten = runs.forget(tx, now - KEPT_DAYS * time.DAY_MS, failed_before, CLEAN_AT_ONCE)
            return max(forgotten, runs.forget_versions(tx, CLEAN_AT_ONCE))

        now = await now_for_removing(self._db, lease, CLEAN_SECONDS)
        if now is None:
            return
        while await self._db.write(partial(unit, now=now), heavy=True) >= CLEAN_AT_ONCE:
            pass
