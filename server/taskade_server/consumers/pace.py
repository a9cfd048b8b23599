"""Keeps the work of all readers of the log in short slices, so that requests are answered in between.

Why counted and not timed: how often others get their turn then does not depend on how busy the machine is, and a test
can tell the longest slice. Why one for a process: the event loop runs everything that is ready before it looks for
requests again, so a thousand readers with a slice each would keep it as long as one reader with a thousand.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Final

SLICE_STEPS: Final = 2_000
"""About two milliseconds; see `kit.budget`."""
MATCH_STEPS: Final = 8_000
"""Comparing one event with one filter that lasts may take so many. What `filters.subscription_refusal` lets pass takes
fewer, unless a document is made to be expensive."""
DECODED_A_STEP: Final = 256
"""How many characters of a document are decoded in a step."""


class Pace:
    """Counts the steps of work on the event loop. `longest` is the largest slice so far, in steps.

    Work is done in the order `await turn(owner)`, the work, `add(steps)`. When the slice is full, `turn` waits until
    the event loop has looked for other work; of those who wait, each owner gets a turn before any gets a second.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._slice = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._is_ticking = False

    def add(self, steps: int) -> None:
        """Account for work that was done."""
        self._slice += steps
        self.longest = max(self.longest, self._slice)

    async def turn(self, owner: str) -> None:
        """Wait until more may be done: not at all while the slice has room."""
        if self._slice < SLICE_STEPS:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(owner, deque()).append(waiter)
        if not self._is_ticking:
            self._is_ticking = True
            loop.call_soon(self._tick)
        await waiter

    def _tick(self) -> None:
        """Begin a new slice, once in each round of the event loop, for the next of those who wait."""
        self._slice = 0
        while self._waiting:
            owner, line = self._waiting.popitem(last=False)
            waiter = line.popleft()
            if line:
                self._waiting[owner] = line
            if not waiter.done():
                waiter.set_result(None)
                break
        self._is_ticking = bool(self._waiting)
        if self._is_ticking:
            asyncio.get_running_loop().call_soon(self._tick)
