"""Sessions: what streams, long polls and WebSockets share. How many there may be, who the caller is now, when to end.

Why a session looks its caller up again for each piece of its answer: a key that is revoked, or a membership that ends,
must stop an answer that began before. The version of rights is one number, read once for all sessions that ask at the
same moment.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import RenderedEvents
from taskade_server.consumers.presence import Presence
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.admission.caller import Caller
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.request import Request
from taskade_server.kit.background import keep_on
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
        self.shown = RenderedEvents()
        self.presence = Presence(db)
        self.ended = False
        self.sent = 0
        self.evicted = 0
        self._most, self._most_a_caller = most, most_a_caller
        self._open: Counter[str] = Counter()
        self._asking: asyncio.Task[int] | None = None
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch who may still do what."""
        self._watching = asyncio.create_task(keep_on("Watching rights", self._watch))
        self.presence.start()

    def end(self) -> None:
        """Let all of them end: their clients go on with another process."""
        self.ended = True
        self._wake_all()

    def _wake_all(self) -> None:
        self.feed.wake_all()
        self._woken.set()
        self._woken = asyncio.Event()

    async def woken(self, seconds: float) -> bool:
        """Wait until rights have changed or the server ends, for `seconds` at most; whether one of these happened."""
        if self.ended:
            return True
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
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

    async def rights_version(self) -> int:
        """The version of rights, as of no earlier than this call."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> int:
        self._asking = None  # who comes from here on needs a later answer
        found = await self.db.read(log.rights_version, caller=None)  # for all who ask
        # Pages of the log are read for the present version of rights.
        self.feed.rights_version = max(self.feed.rights_version, found)
        return found

    async def _watch(self) -> None:
        known = -1
        while True:
            await asyncio.sleep(RIGHTS_SECONDS)
            if not self._open:
                continue
            try:
                present = await self.rights_version()
            except StoreError:
                continue
            if present != known:
                self.feed.rights_version = max(self.feed.rights_version, present)
                self._wake_all()
            known = present

    def stats(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "streams_open": self._open.total(),
            "stream_events_sent_total": self.sent,
            "streams_evicted_total": self.evicted,
        }


class Session:
    """A caller who is in touch with the server for longer than one unit of work takes.

    `make_call` makes the call of a unit, for the principal who the caller is by then; `scope` is what each unit needs
    that names no scope of its own.
    """

    def __init__(self, hub: Hub, caller: Caller, make_call: Callable[[Principal], Call], scope: str) -> None:
        self.hub = hub
        self.request = caller.request
        self._caller = caller
        self._make_call = make_call
        self._scope = scope

    @property
    def user_id(self) -> str:
        """The id of the user, who is known from the first unit on."""
        return self._caller.principal_or_fail.user_id

    @property
    def call(self) -> Call:
        """A call of the caller as last looked up, who is known from the first unit on."""
        return self._make_call(self._caller.principal_or_fail)

    async def read(
        self, fn: Callable[[Call, Tx], T], *, scope: str | None = None, snapshot: bool = False, heavy: bool = False
    ) -> T:
        """Run a unit of work for whoever the caller is by now. The Problem if they may not do this any more.

        `scope` is what the unit needs; None: the scope of the session.
        """
        needed = self._scope if scope is None else scope

        def unit(tx: Tx) -> T:
            return fn(self._make_call(self._caller.admit(tx, needed)), tx)

        return await self.hub.db.read(unit, snapshot=snapshot, heavy=heavy, caller=self.request.claimed_caller)

    async def principal(self, rights_version: int | None = None) -> Principal:
        """Return who the caller is by now, from memory where possible; the Problem if they may not go on.

        `rights_version` is the version of rights to answer for; None: the present one, which takes a look at the
        database that is shared with all who ask at the same moment.
        """
        if rights_version is None:
            rights_version = await self.hub.rights_version()
        known = self._caller.recall(rights_version)
        return known if known is not None else await self.read(lambda call, _: call.principal)

    async def charge(self) -> None:
        """Charge one more request to the caller. RateLimited if the budget is used up."""
        await self._caller.charge_again()

    def enter(self) -> Callable[[], None]:
        """Take a slot among the long answers of all keys of the user; the result gives it back."""
        return self.hub.enter(self.user_id)
