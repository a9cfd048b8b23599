"""What waits for one endpoint, and how much of it may be sent now."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from taskade_server.consumers.sender.attempts import MAX_RETRY_AFTER, OWN, THROTTLED, jitter
from taskade_server.domain.webhooks import Endpoint
from taskade_server.kit import time
from taskade_server.outbound.connection import Exchange
from taskade_server.store.tables.deliveries import Delivery

THROTTLE_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""How long an endpoint that says so without a Retry-After is spared, the first time, the second, ... in a row."""

SHORTAGE_SECONDS: Final = 2.0
"""How soon an attempt is made again for which this server lacked something."""

OPEN_AFTER: Final = 8
"""After this many failures in a row an endpoint is left alone for a while; then one attempt tells if it is back."""

OPEN_SECONDS: Final = (10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(slots=True)
class EndpointQueue:
    """What a sender knows of one endpoint: what is waiting, what is under way, and whether it answers."""

    endpoint: Endpoint
    waiting: deque[Delivery] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    """The deliveries that are waiting here, under way, or done but not yet recorded."""
    under_way: int = 0
    failures: int = 0
    throttles: int = 0
    paused_until: float = 0.0
    tokens: float = 1.0
    refilled_at: float = 0.0

    def change(self, endpoint: Endpoint) -> None:
        """Take over a webhook that was changed. A change that may have repaired it ends the pause."""
        before, self.endpoint = self.endpoint, endpoint
        if (before.url, before.headers, before.closed) != (endpoint.url, endpoint.headers, endpoint.closed):
            self.failures = self.throttles = 0
            self.paused_until = 0.0

    def spare(self, now: float) -> None:
        """Begin nothing for a moment, because this server lacks something."""
        self.paused_until = max(self.paused_until, now + SHORTAGE_SECONDS * jitter())

    def room(self, now: float) -> int:
        """How many attempts may begin now (monotonic seconds)."""
        if now < self.paused_until:
            return 0
        most = 1 if self.failures >= OPEN_AFTER else self.endpoint.max_concurrency
        room = max(0, most - self.under_way)
        if self.endpoint.rate_limit is None or not room:
            return room
        a_second = self.endpoint.rate_limit / 60
        burst = max(1.0, a_second)
        self.tokens = min(burst, self.tokens + (now - self.refilled_at) * a_second)
        self.refilled_at = now
        return min(room, int(self.tokens))

    def opens_at(self, now: float) -> float:
        """When there may be room again, as far as that does not depend on what is under way."""
        if now < self.paused_until:
            return self.paused_until
        if self.endpoint.rate_limit is not None and self.tokens < 1:
            return now + (1 - self.tokens) * 60 / self.endpoint.rate_limit
        return now

    def begin(self) -> Delivery:
        """The next delivery, whose attempt begins."""
        self.under_way += 1
        if self.endpoint.rate_limit is not None:
            self.tokens -= 1
        return self.waiting.popleft()

    def end(self, exchange: Exchange | None, now: float) -> None:
        """An attempt is over: a row of failures means to leave the endpoint alone, and a success that it is back.

        None: there was no attempt after all. What fails in this server says nothing about the endpoint.
        """
        self.under_way -= 1
        if exchange is None or exchange.error in OWN:
            return
        if exchange.ok:
            self.failures = self.throttles = 0
            return
        self.failures += 1
        pause = 0.0
        if exchange.status in THROTTLED:
            self.throttles += 1
            spared = THROTTLE_SECONDS[min(self.throttles, len(THROTTLE_SECONDS)) - 1] * jitter()
            pause = spared if exchange.retry_after is None else min(exchange.retry_after, MAX_RETRY_AFTER)
        if self.failures >= OPEN_AFTER:
            left_alone = OPEN_SECONDS[min(self.failures - OPEN_AFTER, len(OPEN_SECONDS) - 1)] * jitter()
            pause = max(pause, left_alone)
        self.paused_until = max(self.paused_until, now + pause)


def epoch_ms_of(moment: float) -> int | None:
    """A moment of the event loop's clock in epoch ms; None if it is over."""
    rest = moment - clock()
    return time.now_ms() + int(rest * 1000) if rest > 0 else None


def clock() -> float:
    return asyncio.get_running_loop().time()
