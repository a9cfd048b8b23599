"""Whose turn it is at the database: everybody's who asks, one after another.

Why by caller: in a queue in the order of arrival, one caller with twenty long units makes everybody else wait for all
of them. So callers take turns, none ever has every slot, and who has waited too long is told to come again.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from taskade_server.store.interface import Overloaded

T = TypeVar("T")


class Turns:
    """There are `slots` for all; at most `waiting` wait, each for at most `seconds`."""

    def __init__(self, slots: int, *, waiting: int, seconds: float) -> None:
        self._free = slots
        self._share = max(1, slots - 1)
        self._limit = waiting
        self._seconds = seconds
        self._running: Counter[Hashable] = Counter()
        # In the order of whose turn is next.
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._watchers: list[asyncio.Future[None]] = []
        self.waiting = 0

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self._running.total()

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncIterator[None]:
        """A slot for a caller; None: for nobody in particular. Overloaded if none gets free in time."""
        if self._free and self._may(caller):
            self._begin(caller)
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._end(caller)

    async def over(self) -> None:
        """Return when nobody has a slot or waits for one any more. Whoever closes lets nobody in from then on."""
        while self._running:
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    def _may(self, caller: Hashable) -> bool:
        """Whether a caller may have one more slot. Nobody in particular may have them all."""
        return caller is None or self._running[caller] < self._share

    def _begin(self, caller: Hashable) -> None:
        self._free -= 1
        self._running[caller] += 1

    async def _wait(self, caller: Hashable) -> None:
        if self.waiting >= self._limit:
            raise Overloaded("Too many requests are waiting for the database.")
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(slot)
        self.waiting += 1
        try:
            await asyncio.wait({slot}, timeout=self._seconds)
            if not slot.done():
                raise Overloaded("The database is busy with what came before.")
        except BaseException:
            if slot.done():
                self._end(caller)
            else:
                self._leave(caller, slot)
            raise
        finally:
            self.waiting -= 1

    def _leave(self, caller: Hashable, slot: asyncio.Future[None]) -> None:
        queue = self._queues[caller]
        queue.remove(slot)
        if not queue:
            del self._queues[caller]

    def _end(self, caller: Hashable) -> None:
        """Hand the slot to the first caller whose turn it is and who does not have their share yet."""
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
                if not watcher.done():  # they may have given up
                    watcher.set_result(None)
            self._watchers.clear()


class FairQueue(Generic[T]):
    """A queue from which the callers are served in turn: one of the first, one of the second, and so on.

    `full` says that a caller has to come again: all together may have `most` waiting, and one of them half of that.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # In the order of whose turn is next.
        self._queues: dict[Hashable, deque[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for queue in self._queues.values():
            yield from queue

    def full(self, caller: Hashable) -> bool:
        """Whether there is no room for another of this caller. Nobody in particular (None) may have all of it."""
        share = self._most if caller is None else max(1, self._most // 2)
        return self._length >= self._most or len(self._queues.get(caller, ())) >= share

    def append(self, caller: Hashable, item: T) -> None:
        """Put in one at the end of those of its caller."""
        self._queues.setdefault(caller, deque()).append(item)
        self._length += 1

    def put_back(self, caller: Hashable, item: T) -> None:
        """Put in one before all others: it was taken and could not be served."""
        queue = self._queues.pop(caller, deque[T]())
        queue.appendleft(item)
        self._queues = {caller: queue, **self._queues}
        self._length += 1

    def pop(self) -> T:
        """Take out the next one; IndexError if there is none."""
        for caller, queue in self._queues.items():
            item = queue.popleft()
            del self._queues[caller]
            if queue:
                self._queues[caller] = queue
            self._length -= 1
            return item
        raise IndexError

    def clear(self) -> None:
        """Take out all."""
        self._queues.clear()
        self._length = 0
