"""What answers that take their time have in common: how many there may be, who the caller is by now, and when to end.

Why a session asks anew who calls, for each piece: a key that is revoked, or a membership that ends, must stop an answer
that began before. The state of rights is one number, read once for all who ask at the same moment.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Final, TypeVar

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import Shown
from taskade_server.consumers.presence import Presence
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.credentials import Credentials
from taskade_server.http.limits import Limits
from taskade_server.http.wire import Call, Request
from taskade_server.kit.errors import TooManyStreams, Unavailable
from taskade_server.store.database import Database, StoreError, Tx

T = TypeVar("T")
logger: Final = logging.getLogger("taskade")
MAX_STREAMS: Final = 3000
MAX_STREAMS_A_CALLER: Final = 200
# How long a right that ended in another process may go unnoticed by a stream on which nothing happens.
RIGHTS_SECONDS: Final = 0.5


class Hub:
    """The long answers of one process. `start` before use; `end` makes them end in good order."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        *,
        most: int = MAX_STREAMS,
        most_a_caller: int = MAX_STREAMS_A_CALLER,
    ) -> None:
        self.db = db
        self.feed = feed
        self.shown = Shown()
        self.presence = Presence(db)
        self.ended = False
        self.sent = 0
        self.evicted = 0
        self._most, self._most_a_caller = most, most_a_caller
        self._open: Counter[str] = Counter()
        self._asking: asyncio.Task[int] | None = None
        self._stirred = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch who may still do what."""
        self._watching = asyncio.create_task(self._watch())
        self.presence.start()

    def end(self) -> None:
        """Let all of them end: their clients go on with another process."""
        self.ended = True
        self._stir()

    def _stir(self) -> None:
        self.feed.stir()
        self._stirred.set()
        self._stirred = asyncio.Event()

    async def stirred(self, seconds: float) -> bool:
        """Until somebody's rights have changed, or all is to end, at most so long; whether so."""
        if self.ended:
            return True
        try:
            async with asyncio.timeout(seconds):
                return await self._stirred.wait()
        except TimeoutError:
            return False

    async def stop(self) -> None:
        """End at once."""
        self.end()
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self.presence.stop()

    def enter(self, caller: str) -> Callable[[], None]:
        """Count one more; the result counts it off, once. TooManyStreams or Unavailable if there are enough."""
        if self.ended:
            raise Unavailable("The server is about to end; another one will answer.", headers={"retry-after": "1"})
        if self._open[caller] >= self._most_a_caller:
            detail = f"{self._most_a_caller} streams of this caller are open here; close one of them first."
            raise TooManyStreams(detail, headers={"retry-after": "5"})
        if self._open.total() >= self._most:
            raise Unavailable("The server has as many streams as it may.", headers={"retry-after": "5"})
        self._open[caller] += 1
        open_here = [True]

        def leave() -> None:
            if open_here.pop() if open_here else False:
                self._open[caller] -= 1
                if not self._open[caller]:
                    del self._open[caller]

        return leave

    def evict(self, request: Request) -> None:
        """Note that a client did not read what it was sent."""
        self.evicted += 1
        logger.warning("A stream was given up: its client does not read.", extra={"request_id": request.request_id})

    async def epoch(self) -> int:
        """The state of rights, as of no earlier than this call."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), context=Context())  # on behalf of all who ask
        return await asyncio.shield(self._asking)

    async def _ask(self) -> int:
        self._asking = None  # who comes from here on needs a later answer
        return await self.db.read(log.rights)

    async def _watch(self) -> None:
        known = -1
        while True:
            await asyncio.sleep(RIGHTS_SECONDS)
            if not self._open:
                continue
            try:
                epoch = await self.epoch()
            except StoreError:
                continue
            if epoch != known:
                self.feed.rights = max(self.feed.rights, epoch)
                self._stir()
            known = epoch

    def stats(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "streams_open": self._open.total(),
            "stream_events_sent_total": self.sent,
            "streams_evicted_total": self.evicted,
        }


class Session:
    """A caller who is in touch with the server for longer than one unit of work takes."""

    def __init__(
        self, hub: Hub, credentials: Credentials, admit: Callable[[Tx], None], request: Request, call: Call,
        limits: Limits,
    ) -> None:  # fmt: skip
        """`admit` tells the call who calls, or raises the Problem that ends it."""
        self.hub = hub
        self.request = request
        self.call = call
        self._credentials = credentials
        self._admit = admit
        self._limits = limits

    async def read(self, fn: Callable[[Call, Tx], T], *, snapshot: bool = False, heavy: bool = False) -> T:
        """A unit of work of whoever the caller is by now. The Problem if that is nobody."""

        def unit(tx: Tx) -> T:
            self._admit(tx)
            return fn(self.call, tx)

        return await self.hub.db.read(unit, snapshot=snapshot, heavy=heavy)

    async def caller(self, epoch: int | None = None) -> Principal:
        """The same, for nothing but to know, mostly without asking the database; in a state of rights that is known."""
        if epoch is None:
            epoch = await self.hub.epoch()
        known = self._credentials.known_principal(self.request, epoch)
        if known is not None:
            self.call.principal = known
            return known
        return await self.read(lambda call, _: call.principal)

    async def charge(self) -> None:
        """One more request's worth of the caller's budget. RateLimited if that is used up."""
        principal = self.call.principal
        charge = partial(self._limits.charge, principal.key_id or principal.user_id, 1, principal.rate)
        if self._limits.waits:
            await asyncio.to_thread(charge)
        else:
            charge()

    def enter(self) -> Callable[[], None]:
        """Take a place among the long answers; the result gives it back."""
        principal = self.call.principal
        return self.hub.enter(principal.key_id or principal.user_id)
