"""Whose turn it is at the database: everybody's who asks, one after another.

Why by caller: in a queue in the order of arrival, one caller with twenty long units makes everybody else wait for all
of them. So callers take turns, none ever has every place, and who has waited too long is told to come again.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

from taskade_server.store.interface import Overloaded

CALLER: Final[ContextVar[Callable[[], Hashable]]] = ContextVar("caller", default=lambda: None)
"""Says on whose behalf the present task asks; whoever takes requests sets it."""


class Turns:
    """So many `places` for all; at most `waiting` wait, each for at most so many `seconds`."""

    def __init__(self, places: int, *, waiting: int, seconds: float) -> None:
        self._free = places
        self._share = max(1, places - 1)
        self._limit = waiting
        self._seconds = seconds
        self._running: Counter[Hashable] = Counter()
        # In the order of whose turn is next.
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._watchers: list[asyncio.Future[None]] = []
        self.waiting = 0

    @property
    def running(self) -> int:
        """How many places are taken."""
        return self._running.total()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place for the present caller. Overloaded if none gets free in time."""
        caller = CALLER.get()()
        if self._free and self._may(caller):
            self._begin(caller)
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._end(caller)

    async def over(self) -> None:
        """Return when nobody has a place or waits for one any more. Whoever closes lets nobody in from then on."""
        while self._running:
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    def _may(self, caller: Hashable) -> bool:
        """Whether a caller may have one more place. Nobody in particular may have them all."""
        return caller is None or self._running[caller] < self._share

    def _begin(self, caller: Hashable) -> None:
        self._free -= 1
        self._running[caller] += 1

    async def _wait(self, caller: Hashable) -> None:
        if self.waiting >= self._limit:
            raise Overloaded("Too many requests are waiting for the database.")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(place)
        self.waiting += 1
        try:
            await asyncio.wait({place}, timeout=self._seconds)
            if not place.done():
                raise Overloaded("The database is busy with what came before.")
        except BaseException:
            if place.done():
                self._end(caller)
            else:
                self._leave(caller, place)
            raise
        finally:
            self.waiting -= 1

    def _leave(self, caller: Hashable, place: asyncio.Future[None]) -> None:
        queue = self._queues[caller]
        queue.remove(place)
        if not queue:
            del self._queues[caller]

    def _end(self, caller: Hashable) -> None:
        """Hand the place to the first whose turn it is and who does not have his share yet."""
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        for following, queue in self._queues.items():
            if self._may(following):
                queue.popleft().set_result(None)
                self._begin(following)
                del self._queues[following]
                if queue:
                    self._queues[following] = queue  # at the end: the others come first now
                return
        if not self._running:
            for watcher in self._watchers:
                if not watcher.done():  # he may have given up
                    watcher.set_result(None)
            self._watchers.clear()
