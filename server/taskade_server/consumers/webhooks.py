"""Sends events to webhooks: one reader of the log makes the deliveries, senders carry them out.

Why two steps: a delivery is written in the transaction that moves the reader's cursor, so none is forgotten and none is
made twice; and sending, which may take days, holds nobody up. A sender owns a share of the webhooks by its lease, so
that what it knows of an endpoint (how much is under way, whether it answers at all) is known in one place.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.outbound import Exchange, Outbound
from taskade_server.consumers.runner import Job, Lease
from taskade_server.domain import hooks
from taskade_server.domain.hooks import READER, Endpoint
from taskade_server.engine import events, log
from taskade_server.engine.log import Event
from taskade_server.kit import ids, json, time, webhook_signatures
from taskade_server.store import cursors, deliveries
from taskade_server.store.database import Database, Tx
from taskade_server.store.deliveries import FAILED, PENDING, SUCCEEDED, Attempt, Delivery, Outcome

logger: Final = logging.getLogger("taskade")

SHARDS: Final = 4
PAGE: Final = 500
"""So many events are turned into deliveries in one unit."""
SCHEDULE: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait after the first failure, the second, ...; after the last there is no further attempt."""
JITTER: Final = 0.2
TIMEOUT_SECONDS: Final = 20.0
MAX_RETRY_AFTER: Final = 86_400.0
THROTTLED: Final = (429, 502, 503, 504)
GONE: Final = 410
FAILING_DAYS: Final = 5
"""An endpoint that has taken nothing for so long is disabled."""
OPEN_AFTER: Final = 8
"""So many failures in a row, and an endpoint is left alone for a while; then one attempt tells whether it is back."""
OPEN_SECONDS: Final = (10.0, 30.0, 60.0, 120.0, 300.0)
PREFETCH: Final = 200
RECORD_AT_ONCE: Final = 500
KEPT_BODY: Final = 4_096
IDLE_SECONDS: Final = 1.0
# How long a sender may not notice what another process has made.
LOOK_SECONDS: Final = {"sqlite": 1.0, "postgresql": 0.2}
GATHER_SECONDS: Final = 0.005


# ---- from events to deliveries ---------------------------------------------------------------------------------------


def fan_out(tx: Tx) -> int:
    """Turn the next events of each workspace that has some into deliveries; how many events that were."""
    done = 0
    for workspace_id, position in deliveries.behind(tx, READER):
        page = log.read_after(tx, workspace_id, position, PAGE)
        for subscription in hooks.subscriptions(tx, workspace_id):
            _deliver(tx, subscription, page)
        cursors.move(tx, READER, workspace_id, page[-1].seq)
        done += len(page)
    return done


def _deliver(tx: Tx, subscription: hooks.Subscription, page: Iterable[Event]) -> None:
    wanted = [event for event in page if subscription.wants(event)]
    if not wanted:
        return
    previous = deliveries.last_seq(tx, subscription.id)
    new, now = [], time.now_ms()
    for event in wanted:
        new.append(_delivery(subscription.id, event, previous, now))
        previous = event.seq
    deliveries.add(tx, new)
    deliveries.set_last_seq(tx, subscription.id, subscription.workspace_id, new[-1].seq)


def _delivery(webhook_id: str, event: Event, previous: int | None, now: int) -> Delivery:
    return Delivery(
        ids.new("dlv"), webhook_id, event.workspace_id, event.seq, event.id, event.type, event.object_id, previous,
        PENDING, 0, now, now, None, None, None,
    )  # fmt: skip


def body_of(event: Event, previous_seq: int | None) -> bytes:
    """What is sent: the event, and the seq of what this endpoint was sent before, so that it can notice a gap."""
    return events.webhook_body(events.render(event), previous_seq)


# ---- what follows from an attempt ------------------------------------------------------------------------------------


def next_wait(attempts: int, exchange: Exchange) -> float | None:
    """After so many attempts, the last of which failed: how many seconds until the next; None if that was the last."""
    if attempts > len(SCHEDULE):
        return None
    wait = SCHEDULE[attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    if exchange.retry_after is not None and exchange.status in THROTTLED:
        wait = max(wait, min(exchange.retry_after, MAX_RETRY_AFTER))
    return wait


def fault_of(exchange: Exchange) -> tuple[str | None, str | None]:
    """Why an exchange is no success, as a code and a sentence; both None if it is one."""
    if exchange.ok or exchange.error is not None:
        return exchange.error, exchange.detail
    status = exchange.status or 0
    if 300 <= status < 400:
        return "redirect", f"The endpoint answered {status}; redirects are not followed: register the final URL."
    if status == GONE:
        return "gone", "The endpoint answered 410: it wants no more deliveries, and the webhook was disabled."
    return "bad_status", f"The endpoint answered {status}; only 200 to 299 mean that it has taken the delivery."


def attempt_of(delivery: Delivery, at: int, exchange: Exchange) -> Attempt:
    """An exchange as it is kept."""
    error, detail = fault_of(exchange)
    body = exchange.body[:KEPT_BODY].decode("utf-8", "replace").replace("\x00", "\ufffd")
    return Attempt(
        delivery.id, delivery.attempts + 1, delivery.workspace_id, at, exchange.duration_ms, exchange.address,
        json.encode(exchange.request_headers), exchange.status, json.encode(exchange.response_headers), body, error,
        detail,
    )  # fmt: skip


def outcome_of(delivery: Delivery, at: int, exchange: Exchange) -> Outcome:
    """What an exchange at a time (epoch ms) means for its delivery."""
    attempt = attempt_of(delivery, at, exchange)
    if attempt.error is None:
        return Outcome(delivery, attempt, SUCCEEDED, None)
    wait = None if exchange.status == GONE else next_wait(attempt.number, exchange)
    if wait is None:
        return Outcome(delivery, attempt, FAILED, None)
    return Outcome(delivery, attempt, PENDING, at + int((exchange.duration_ms / 1000 + wait) * 1000))


# ---- sending ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Line:
    """What a sender knows of one endpoint: what is waiting, what is under way, and whether it answers."""

    endpoint: Endpoint
    waiting: deque[Delivery] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    """The deliveries that are waiting here, under way, or done but not yet recorded."""
    under_way: int = 0
    failures: int = 0
    paused_until: float = 0.0
    tokens: float = 1.0
    refilled_at: float = 0.0

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

    def end(self, exchange: Exchange, now: float) -> None:
        """An attempt is over: a row of failures means to leave the endpoint alone, and a success that it is back."""
        self.under_way -= 1
        if exchange.ok:
            self.failures = 0
            return
        self.failures += 1
        if exchange.status in THROTTLED and exchange.retry_after is not None:
            self.paused_until = max(self.paused_until, now + min(exchange.retry_after, MAX_RETRY_AFTER))
        if self.failures >= OPEN_AFTER:
            pause = OPEN_SECONDS[min(self.failures - OPEN_AFTER, len(OPEN_SECONDS) - 1)]
            self.paused_until = max(self.paused_until, now + pause * random.uniform(1 - JITTER, 1 + JITTER))


class Sender:
    """Carries out the deliveries of one share of the webhooks, for as long as it has the lease on them."""

    def __init__(
        self, db: Database, outbound: Outbound, secret: bytes, lease: Lease, news: asyncio.Event, shard: int
    ) -> None:
        self._db = db
        self._look_seconds = LOOK_SECONDS[db.dialect]
        self._outbound = outbound
        self._secret = secret
        self._lease = lease
        self._mine = partial(hooks.is_shard, shard=shard, shards=SHARDS)
        self._lines: dict[str, Line] = {}
        self._outcomes: list[tuple[Line, Outcome]] = []
        self._attempts: set[asyncio.Task[None]] = set()
        self._news = news
        """Set when there are new deliveries, and when an attempt is over."""

    async def run(self) -> None:
        """Send until the lease is lost or somebody breaks it off; what is under way then is sent again by the next."""
        try:
            while self._lease.held:
                self._news.clear()
                await self._record()
                wait = await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, self._look_seconds)):
                        await self._news.wait()
        finally:
            for attempt in self._attempts:
                attempt.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)

    # -- what is due

    async def _look(self) -> float:
        """Begin what may begin; how many seconds until there may be more to begin."""
        now = time.now_ms()
        known, due = await self._db.read(self._due)
        self._keep(known)
        nearest = IDLE_SECONDS
        for line in self._lines.values():
            at = due.get(line.endpoint.id)
            if at is not None and at <= now and len(line.waiting) < line.endpoint.max_concurrency:
                await self._fetch(line, now)
            self._begin(line)
            if at is not None and not line.under_way:
                opens = line.opens_at(_clock()) - _clock()
                nearest = min(nearest, max((at - now) / 1000, opens, 0.01))
        return nearest

    def _due(self, tx: Tx) -> tuple[list[Endpoint], dict[str, int]]:
        mine = [endpoint for endpoint in hooks.endpoints(tx) if self._mine(endpoint.id)]
        return mine, deliveries.due_times(tx, [endpoint.id for endpoint in mine])

    def _keep(self, endpoints: Iterable[Endpoint]) -> None:
        found = {endpoint.id: endpoint for endpoint in endpoints}
        for name in [name for name in self._lines if name not in found]:
            del self._lines[name]
        for name, endpoint in found.items():
            line = self._lines.get(name)
            if line is None:
                self._lines[name] = Line(endpoint, refilled_at=_clock())
            elif line.endpoint.version != endpoint.version:
                # Whoever changes an endpoint has mended it, perhaps.
                line.endpoint, line.failures, line.paused_until = endpoint, 0, 0.0

    async def _fetch(self, line: Line, now: int) -> None:
        if line.room(_clock()) == 0:
            return
        limit = PREFETCH + len(line.known)
        found = await self._db.read(partial(deliveries.due, webhook_id=line.endpoint.id, now=now, limit=limit))
        fresh = [delivery for delivery in found if delivery.id not in line.known]
        line.waiting.extend(fresh)
        line.known |= {delivery.id for delivery in fresh}

    def _begin(self, line: Line) -> None:
        for _ in range(min(line.room(_clock()), len(line.waiting))):
            attempt = asyncio.create_task(self._try(line, line.begin()))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)

    # -- an attempt

    async def _try(self, line: Line, delivery: Delivery) -> None:
        at = time.now_ms()
        exchange = Exchange(error="cancelled", detail="The server was about to end.")
        try:
            exchange = await self._send(line.endpoint, delivery, at)
        except Exception:
            logger.exception("The delivery %s failed in the server itself.", delivery.id)
            exchange = Exchange(error="internal_error", detail="The delivery could not be made; see the server's log.")
        finally:
            line.end(exchange, _clock())
            if exchange.error != "cancelled":
                self._outcomes.append((line, outcome_of(delivery, at, exchange)))
                self._begin(line)
                self._news.set()

    async def _send(self, endpoint: Endpoint, delivery: Delivery, at: int) -> Exchange:
        if not self._lease.held:
            raise asyncio.CancelledError
        event = await self._db.read(partial(log.find, event_id=delivery.event_id))
        if event is None:
            return Exchange(error="internal_error", detail="The event is not in the log any more.")
        body = body_of(event, delivery.previous_seq)
        keys = endpoint.signing_keys(self._secret, at)
        headers = {**endpoint.headers, **request_headers(keys, delivery.event_id, delivery.type, delivery.id, at, body)}
        return await self._outbound.post(endpoint.url, body=body, headers=headers, timeout=TIMEOUT_SECONDS)

    # -- what became of it

    async def _record(self) -> None:
        """Write what has come to an end, together."""
        while self._outcomes:
            batch, self._outcomes = self._outcomes[:RECORD_AT_ONCE], self._outcomes[RECORD_AT_ONCE:]
            await self._db.write(partial(self._write, [outcome for _, outcome in batch]))
            for line, outcome in batch:
                line.known.discard(outcome.delivery.id)

    def _write(self, outcomes: list[Outcome], tx: Tx) -> None:
        self._lease.hold(tx)
        deliveries.record(tx, outcomes)
        for webhook_id in dict.fromkeys(outcome.delivery.webhook_id for outcome in outcomes):
            own = [outcome for outcome in outcomes if outcome.delivery.webhook_id == webhook_id]
            _note(tx, webhook_id, own)


def _note(tx: Tx, webhook_id: str, outcomes: list[Outcome]) -> None:
    """What attempts tell about their endpoint; one that is gone or fails for days is disabled."""
    last = outcomes[-1]
    workspace_id, at = last.delivery.workspace_id, last.attempt.at
    if any(outcome.attempt.status == GONE for outcome in outcomes):
        hooks.disable(tx, webhook_id, "gone")
    if any(outcome.state == SUCCEEDED for outcome in outcomes):
        deliveries.note_success(tx, webhook_id, workspace_id, at)
        return
    since = deliveries.note_failure(tx, webhook_id, workspace_id, at)
    if at - since > FAILING_DAYS * time.DAY_MS:
        hooks.disable(tx, webhook_id, "failing")


def request_headers(
    keys: list[str], event_id: str, kind: str, delivery_id: str, at: int, body: bytes
) -> dict[str, str]:  # fmt: skip
    """The headers of one attempt at a time (epoch ms): what it is, and what proves where it comes from."""
    signed = webhook_signatures.headers(event_id, at // 1000, body, keys)
    return {
        "Content-Type": "application/json", **signed, "X-Taskade-Event": kind, "X-Taskade-Delivery": delivery_id,
    }  # fmt: skip


def _clock() -> float:
    return asyncio.get_running_loop().time()


# ---- jobs ------------------------------------------------------------------------------------------------------------


class _News:
    """Tells the senders of this process that there are new deliveries; those of others look by themselves."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Event] = []

    def subscribe(self) -> asyncio.Event:
        """An event that is set whenever there is news."""
        self._listeners.append(asyncio.Event())
        return self._listeners[-1]

    def tell(self) -> None:
        """There are new deliveries."""
        for listener in self._listeners:
            listener.set()


def jobs(db: Database, feed: Feed, outbound: Outbound, secret: bytes) -> list[Job]:
    """What is to be done for webhooks: making deliveries, and sending each share of them."""
    made = _News()

    async def make(lease: Lease) -> None:
        def unit(tx: Tx) -> int:
            lease.hold(tx)
            return fan_out(tx)

        while lease.held:
            seen = feed.version
            if await db.read(lambda tx: bool(deliveries.behind(tx, READER, 1))):
                await db.write(unit)
                made.tell()
                # What is committed meanwhile is done in one go.
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await feed.changed(seen, IDLE_SECONDS)

    def send(shard: int) -> Callable[[Lease], Awaitable[None]]:
        async def run(lease: Lease) -> None:
            await Sender(db, outbound, secret, lease, made.subscribe(), shard).run()

        return run

    senders = [Job(f"webhooks/{shard}", 0.0, send(shard)) for shard in range(SHARDS)]
    return [Job("webhooks", 0.0, make), *senders]
