"""Background work: named jobs, each done by one process at a time, again and again, until it is told to stop.

Why leases instead of a leader: any process may end at any moment, so that nothing but the work itself is handed over,
and processes that only have some of the jobs get along with those that have all.
"""

import asyncio
import hashlib
import logging
import math
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from taskade_server.kit import time as moments
from taskade_server.kit.background import keep_on
from taskade_server.store.database import Database, StoreError, Tx, Unavailable
from taskade_server.store.tables import leases
from taskade_server.store.tables.leases import LeaseLost

logger: Final = logging.getLogger("taskade")

LEASE_SECONDS: Final = 30.0
# A job that comes again sooner than this keeps its lease in between.
KEEP_SECONDS: Final = 60.0
FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 300.0
STOP_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 5.0
"""How often it is checked whether the holder of a lease has died."""
GROUP: Final = "sharing"
"""The lease under which the processes register that share jobs out among each other."""
_OURS: Final[set[str]] = set()
"""The last parts of the names under which this process holds leases."""


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that is done again `every` seconds after it was done, by the holder of its lease.

    Each unit of work begins with `lease.hold(tx)`, so that none is committed by somebody who has lost the lease.
    Jobs that are `shared` are spread evenly over the processes that do them: their `run` looks at `lease.leaving`.
    """

    name: str
    every: float
    run: Callable[["Lease"], Awaitable[object]]
    shared: bool = False


@dataclass(slots=True)
class Lease:
    """The right to do one job. It lasts as long as it is renewed."""

    name: str
    holder: str
    seconds: float
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the work is to come to its end in good order: to begin nothing more, and finish what is under way."""
    _until: float = 0.0

    def hold(self, tx: Tx) -> None:
        """Make sure of the lease until the end of this unit; LeaseLost if somebody else has it."""
        leases.hold(tx, self.name, self.holder)

    @property
    def left(self) -> float:
        """For how many more seconds it certainly is held; less than 0 when it may be somebody else's."""
        return self._until - time.monotonic()

    @property
    def held(self) -> bool:
        """Whether it certainly is held, for work whose effects are outside the database: ask before each."""
        return time.monotonic() < self._until

    async def take(self, db: Database) -> float:
        """Try to get it; how many seconds to wait before it is worth another try, 0 if it is ours."""
        asked = time.monotonic()

        def take(tx: Tx) -> int:
            return leases.take(tx, self.name, self.holder, int(self.seconds * 1000))

        wait = await db.write(take)
        if wait:
            other = await db.read(partial(leases.holder_of, name=self.name))
            if _has_died(other):
                await db.write(partial(leases.give_back, name=self.name, holder=other))
                wait = await db.write(take)
        if wait == 0:
            self._until = asked + self.seconds
        return wait / 1000

    async def keep(self, db: Database) -> None:
        """Renew it again and again; returns when it is lost."""
        renew = partial(leases.renew, name=self.name, holder=self.holder, ms=int(self.seconds * 1000))
        while self.held:
            await asyncio.sleep(min(self.seconds / 3, self._until - time.monotonic()))
            asked = time.monotonic()
            try:
                async with asyncio.timeout(self._until - asked):
                    if not await db.write(renew):
                        return
                self._until = asked + self.seconds
            except (StoreError, TimeoutError) as error:
                logger.warning("The lease on %s could not be renewed: %s", self.name, error)

    async def give_back(self, db: Database, after: float) -> None:
        """Let others have it, in `after` seconds. When the database is away it ends by itself."""
        self._until = 0.0
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await db.write(partial(leases.give_back, name=self.name, holder=self.holder, ms=int(after * 1000)))


async def now_for_removing(db: Database, lease: Lease, every: float) -> int | None:
    """Return the time (epoch ms) by which a job that runs each `every` seconds may remove what is old.

    None if the clock has jumped ahead since its last run, as far as anybody can tell: then nothing is removed before
    the next run.
    """
    now = moments.now_ms()

    def unit(tx: Tx) -> bool:
        lease.hold(tx)
        return leases.note_run(tx, lease.name, now, int(2 * every * 1000))

    if await db.write(unit):
        return now
    logger.info("By the clock, %s last ran long ago; it removes nothing before its next run.", lease.name)
    return None


class Runner:
    """Does jobs, as far as nobody else is doing them, between `start` and `stop`."""

    def __init__(self, db: Database, jobs: Sequence[Job], lease_seconds: float = LEASE_SECONDS) -> None:
        self._db = db
        self._jobs = jobs
        self._lease_seconds = lease_seconds
        token = os.urandom(4).hex()
        _OURS.add(token)
        self._holder = f"{socket.gethostname()}/{_MACHINE}/{os.getpid()}/{token}"
        self._tasks: list[asyncio.Task[None]] = []
        self._sharing: asyncio.Task[None] | None = None
        self._shared = Counter(_group(job.name) for job in jobs if job.shared)
        self._share: Mapping[str, int] = self._shared
        """How many of the shared jobs of each group are one's part; a group is what the names have before the slash."""
        self._grown = asyncio.Event()
        """Set when one's part of the shared jobs has grown; then there is a new one."""
        self._held: list[Lease] = []
        """The leases on shared jobs that are being done here."""

    def start(self) -> None:
        """Begin, in tasks of the running event loop."""
        self._tasks = [asyncio.create_task(keep_on(job.name, partial(self._tend, job))) for job in self._jobs]
        # Only one process has an SQLite database.
        if self._shared and self._db.dialect != "sqlite":
            self._sharing = asyncio.create_task(keep_on("Sharing jobs", self._share_out))

    async def stop(self) -> None:
        """Give the leases back: shared jobs come to their end, if that is soon, and others are broken off."""
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.gather(self._sharing, return_exceptions=True)
        self._share = dict.fromkeys(self._shared, 0)
        self._leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._held:
                    await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _share_out(self) -> None:
        """Find out again and again how many processes there are, and do no more of the shared jobs than one's part."""
        pause = min(LOOK_SECONDS, self._lease_seconds / 3)
        attend = partial(leases.attend, group=GROUP, holder=self._holder, ms=int(3 * pause * 1000))
        attending: asyncio.Future[list[str]] | None = None
        try:
            while True:
                attending = asyncio.ensure_future(self._db.write(attend))
                with suppress(StoreError):
                    # Shielded: whoever is broken off in it may be there all the same, and has to go first.
                    there = [holder for holder in await asyncio.shield(attending) if not _has_died(holder)]
                    before = self._share
                    self._share = {group: math.ceil(count / len(there)) for group, count in self._shared.items()}
                    self._leave()
                    if any(self._share[group] > before[group] for group in before):
                        self._grown.set()
                        self._grown = asyncio.Event()
                await asyncio.sleep(pause)
        finally:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    if attending is not None:
                        await asyncio.wait({attending})
                    await self._db.write(partial(leases.depart, group=GROUP, holder=self._holder))

    def _leave(self) -> None:
        """Let go of what is more than one's part of the shared jobs."""
        for group, share in self._share.items():
            for lease in self._held_of(group)[share:]:
                lease.leaving.set()

    def _held_of(self, group: str) -> list[Lease]:
        """The leases on shared jobs of a group that are being done here, the oldest first."""
        return [lease for lease in self._held if _group(lease.name) == group]

    async def _tend(self, job: Job) -> None:
        """One job for ever: get the lease, do the work while it is ours, and again."""
        failures = 0
        while True:
            group = _group(job.name)
            if job.shared and len(self._held_of(group)) >= self._share[group]:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._grown.wait()
                continue
            lease = Lease(job.name, self._holder, self._lease_seconds)
            try:
                wait = await self._take(lease)
            except StoreError as error:
                failures += 1
                wait = _retry_seconds(failures)
                logger.warning("The lease on %s could not be had (%s); again in %.0f s.", job.name, error, wait)
            else:
                if not wait:
                    failures = await self._work(job, lease, failures)
                    continue
            await asyncio.sleep(min(wait, max(job.every, LOOK_SECONDS)) * random.uniform(1.0, 1.1))

    async def _take(self, lease: Lease) -> float:
        """As `lease.take`. Whoever is broken off meanwhile may have got it all the same, and gives it back."""
        taking = asyncio.ensure_future(lease.take(self._db))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    if not await taking:
                        await lease.give_back(self._db, 0.0)
            raise

    async def _work(self, job: Job, lease: Lease, failures: int) -> int:
        """Do a job while its lease is ours: once, or, if it comes again soon, many times. The failures in a row."""
        after = 0.0
        keeping = asyncio.create_task(lease.keep(self._db))
        if job.shared:
            self._held.append(lease)
            self._leave()
        try:
            while True:
                failures = 0 if await self._run(job, lease, keeping) else failures + 1
                after = job.every if not failures else _retry_seconds(failures)
                if not lease.held or keeping.done() or failures or job.every > KEEP_SECONDS or lease.leaving.is_set():
                    return failures
                await asyncio.sleep(job.every)
                after = 0.0
        except asyncio.CancelledError:
            after = 0.0
            raise
        finally:
            keeping.cancel()
            await lease.give_back(self._db, after)
            if job.shared:
                self._held.remove(lease)

    async def _run(self, job: Job, lease: Lease, keeping: asyncio.Task[None]) -> bool:
        """Do a job once, or as far as the lease lasts; whether it succeeded."""
        running = asyncio.ensure_future(job.run(lease))
        try:
            await asyncio.wait({running, keeping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise
        running.cancel()
        # Not awaited by itself: that would take our own cancellation for the job's.
        await asyncio.wait({running})
        if running.cancelled():
            logger.warning("%s was broken off: the lease on it was lost.", job.name)
            return False
        error = running.exception()
        if isinstance(error, Unavailable | LeaseLost):
            logger.warning("%s failed: %s", job.name, error)
        elif error is not None:
            logger.error("%s failed.", job.name, exc_info=error)
        return error is None


def _group(name: str) -> str:
    """What the names of the shares of one kind of work have in common."""
    return name.partition("/")[0]


def _machine() -> str:
    """What tells processes that can see each other's numbers from others; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return hashlib.blake2b(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode(), digest_size=6).hexdigest()
    except OSError:
        return ""


_MACHINE: Final = _machine()


def _has_died(holder: str) -> bool:
    """Whether a holder certainly is a process of this machine that has ended: nobody need wait for its lease."""
    parts = holder.rsplit("/", 3)
    if len(parts) != 4 or not _MACHINE or parts[1] != _MACHINE or not parts[2].isdecimal():
        return False
    if int(parts[2]) == os.getpid():
        return parts[3] not in _OURS
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _retry_seconds(failures: int) -> float:
    """Twice as long after each failure, and never the same for two processes."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20), LAST_RETRY_SECONDS) * random.uniform(0.75, 1.25)
