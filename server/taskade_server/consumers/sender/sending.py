"""All endpoints of one share of the webhooks: looking for what is due, and sending it."""

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final

from taskade_server.consumers.pace import Pace
from taskade_server.consumers.runner import Lease
from taskade_server.consumers.sender.attempts import (
    INTERNAL,
    body_of,
    fault_of,
    not_sent,
    outcome_of,
    request_headers,
    test_event,
)
from taskade_server.consumers.sender.endpoint_queue import EndpointQueue, clock
from taskade_server.consumers.sender.outcomes import OutcomeWriter, logger
from taskade_server.domain import webhooks
from taskade_server.domain.webhooks import Endpoint
from taskade_server.engine import events, log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.kit import time
from taskade_server.outbound.client import SHORTAGE, Outbound
from taskade_server.outbound.connection import Exchange
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import Delivery, Outcome

TIMEOUT_SECONDS: Final = 20.0

PREFETCH: Final = 200

RECORD_AT_ONCE: Final = 500

ATTEMPT_STEPS: Final = 500
"""Reading one delivery, and again signing and sending it: about half a millisecond each on the event loop, in steps of
`kit.budget`."""

ANSWER_STEPS: Final = 200
"""What judging the answer to a delivery takes, in steps of `kit.budget`."""

IDLE_SECONDS: Final = 1.0

# How long a sender may not notice what another process has made.
LOOK_SECONDS: Final = {"sqlite": 1.0, "postgresql": 0.2}


class Sender:
    """Carries out the deliveries of one share of the webhooks, for as long as it has the lease on them."""

    def __init__(
        self,
        db: Database,
        outbound: Outbound,
        secret: bytes,
        lease: Lease,
        news: asyncio.Event,
        share: tuple[int, int],
        counts: Counter[str],
        pace: Pace,
    ) -> None:
        """`news` is set when there are new deliveries, and by the attempts that are over; `share` is (which, of).

        Attempts are begun and judged at the pace, so that many that begin at once let requests be answered in between.
        """
        self._db = db
        self._look_seconds = LOOK_SECONDS[db.dialect]
        self._outbound = outbound
        self._secret = secret
        self._lease = lease
        self._share = share
        self._counts = counts
        self._pace = pace
        self._queues: dict[str, EndpointQueue] = {}
        self._outcomes: list[tuple[EndpointQueue, Outcome]] = []
        self._outcome_writer = OutcomeWriter(db, lease)
        self._attempts: set[asyncio.Task[None]] = set()
        self._news = news
        self._ended = False
        # What the owners of webhooks may see, by webhook, at one version of rights.
        self._owners: dict[str, Principal] = {}
        self._rights_version = -1
        self._steps = -1

    async def run(self) -> None:
        """Send until the lease is lost or somebody breaks it off; what is under way then is sent again by the next.

        When the lease is to be left, what is under way comes to its end first.
        """
        waking = asyncio.create_task(self._wake_when_leaving())
        try:
            while self._lease.held and not self._lease.leaving.is_set():
                self._news.clear()
                await self._record()
                wait = await self._look()
                await self._rest(min(wait, self._look_seconds))
            while self._lease.held and (self._attempts or self._outcomes):
                self._news.clear()
                await self._record()
                if self._attempts:
                    await self._rest(IDLE_SECONDS)
        finally:
            self._ended = True
            for task in (waking, *self._attempts):
                task.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)

    async def _wake_when_leaving(self) -> None:
        """Wake `run` when it is asked to leave."""
        await self._lease.leaving.wait()
        self._news.set()

    async def _rest(self, seconds: float) -> None:
        """Wait until there are new deliveries or results, at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    # -- what is due

    async def _look(self) -> float:
        """Begin what may begin; how many seconds until there may be more to begin."""
        now = time.now_ms()
        if (steps := time.steps_back()) != self._steps:
            await self._db.write(partial(self._correct_times, now), heavy=True)
            self._steps = steps
        due = await self._due()
        nearest = IDLE_SECONDS
        for queue in list(self._queues.values()):
            at = due.get(queue.endpoint.id)
            if at is not None and at <= now and len(queue.waiting) < queue.endpoint.max_concurrency:
                await self._fetch(queue, now)
            self._begin(queue)
            if queue.waiting:
                nearest = min(nearest, max(queue.opens_at(clock()) - clock(), 0.01))
            elif at is not None and not queue.known:
                nearest = min(nearest, max((at - now) / 1000, queue.opens_at(clock()) - clock(), 0.01))
        return nearest

    def _correct_times(self, now: int, tx: Tx) -> None:
        """Correct the times of deliveries after the clock was set back; once at the start, in case it was before."""
        self._lease.hold(tx)
        if corrected := deliveries.correct_times(tx, now):
            logger.warning("The clock was ahead: %d deliveries are tried sooner than it said.", corrected)

    async def _due(self) -> dict[str, int]:
        """When the next attempt is due, for each endpoint that has one; queues come and go with them."""
        versions = {name: queue.endpoint.version for name, queue in self._queues.items()}

        def unit(tx: Tx) -> tuple[dict[str, int], dict[str, int], list[Endpoint]]:
            due = {name: at for name, at in deliveries.due_times(tx).items() if webhooks.is_shard(name, *self._share)}
            live = webhooks.live_versions(tx, [*due])
            changed = [name for name, version in live.items() if versions.get(name) != version]
            return due, live, webhooks.endpoints(tx, changed) if changed else []

        due, live, changed = await self._db.read(unit)
        for name in [name for name, queue in self._queues.items() if name not in live and not queue.known]:
            del self._queues[name]
        for endpoint in changed:
            if endpoint.id in self._queues:
                self._queues[endpoint.id].change(endpoint)
            else:
                self._queues[endpoint.id] = EndpointQueue(endpoint, refilled_at=clock())
        return {name: at for name, at in due.items() if name in live}

    async def _fetch(self, queue: EndpointQueue, now: int) -> None:
        if queue.room(clock()) == 0:
            return
        limit = PREFETCH + len(queue.known)
        endpoint = queue.endpoint
        due = partial(deliveries.due, webhook_id=endpoint.id, workspace_id=endpoint.workspace_id, now=now, limit=limit)
        found = await self._db.read(due)
        fresh = [delivery for delivery in found if delivery.id not in queue.known]
        queue.waiting.extend(fresh)
        queue.known |= {delivery.id for delivery in fresh}

    def _begin(self, queue: EndpointQueue) -> None:
        if self._ended or not self._lease.held or self._lease.leaving.is_set():
            return
        for _ in range(min(queue.room(clock()), len(queue.waiting))):
            slot = [queue.endpoint.workspace_id]
            if not self._outbound.slots.take(slot[0]):
                return  # it is tried again as soon as slots are free
            attempt = asyncio.create_task(self._try(queue, queue.begin(), slot))
            self._attempts.add(attempt)
            attempt.add_done_callback(partial(self._end_attempt, slot))

    def _end_attempt(self, slot: list[str], attempt: asyncio.Task[None]) -> None:
        self._give_back(slot)  # it may have been broken off before it began
        self._attempts.discard(attempt)
        self._news.set()

    # -- an attempt

    def _give_back(self, slot: list[str]) -> None:
        """Give the slot of an attempt back, once."""
        if slot:
            self._outbound.slots.give(slot.pop())

    async def _try(self, queue: EndpointQueue, waiting: Delivery, slot: list[str]) -> None:
        delivery, exchange, at = waiting, None, time.now_ms()
        try:
            await self._turn(queue, ATTEMPT_STEPS)
            found, event, visible = await self._db.read(partial(self._ready, delivery_id=waiting.id))
            if found is None:
                queue.known.discard(waiting.id)
                return
            await self._turn(queue, ATTEMPT_STEPS)
            delivery, at = found, time.now_ms()
            made = await self._send(queue.endpoint, delivery, event, at) if visible else not_sent()
            await self._turn(queue, ANSWER_STEPS)
            if made.lacking:
                self._postpone(queue, waiting, made.detail)
            else:
                exchange = made
        except StoreError as error:
            self._postpone(queue, waiting, str(error))
        except Exception:
            logger.exception("The delivery %s failed in the server itself.", delivery.id)
            exchange = Exchange(error=INTERNAL, detail="The delivery could not be made; see the server's log.")
        finally:
            self._give_back(slot)
            queue.end(exchange, clock())
            if exchange is not None:
                self._outcomes.append((queue, outcome_of(delivery, at, exchange)))
                self._counts[fault_of(exchange)[0] or "succeeded"] += 1
            self._begin(queue)

    async def _turn(self, queue: EndpointQueue, steps: int) -> None:
        """Wait until there is room for some steps on the event loop, and account for them."""
        await self._pace.turn(queue.endpoint.workspace_id)
        self._pace.add(steps)

    def _ready(self, tx: Tx, delivery_id: str) -> tuple[Delivery | None, Event | None, bool]:
        """A delivery that is still to be made, its event as the webhook's owner may see it now, and whether they may.

        The rights of the moment of sending count: a delivery may have waited for days, or be sent again after months.
        """
        found = deliveries.ready(tx, delivery_id)
        event = log.find(tx, found.event_id) if found else None
        if found is None or event is None:
            return found, None, True
        rights_version = log.rights_version(tx)
        if rights_version != self._rights_version:
            self._owners, self._rights_version = {}, rights_version
        owner = self._owners.get(found.webhook_id)
        if owner is None:
            owner = self._owners[found.webhook_id] = webhooks.owner(tx, found.webhook_id)
        shown = events.shown_to(owner, event)
        return found, shown, shown is not None

    def _postpone(self, queue: EndpointQueue, waiting: Delivery, detail: str | None) -> None:
        """This server lacked what the attempt needs: it is no attempt, and is made soon."""
        logger.warning("The delivery %s has to wait: %s", waiting.id, detail)
        self._counts[SHORTAGE] += 1
        queue.known.discard(waiting.id)
        queue.spare(clock())

    async def _send(self, endpoint: Endpoint, delivery: Delivery, event: Event | None, at: int) -> Exchange:
        left = self._lease.left
        if left <= 0:
            raise asyncio.CancelledError
        if delivery.type == deliveries.TEST:
            event = test_event(delivery, endpoint.user_id)
        if event is None:
            return Exchange(error=INTERNAL, detail="The event is not in the log any more.")
        body = body_of(event, delivery.previous_seq, thin=endpoint.thin)
        keys = endpoint.signing_keys(self._secret, at)
        headers = {**endpoint.headers, **request_headers(keys, delivery.event_id, delivery.type, delivery.id, at, body)}
        # When the lease ends, whoever has it next may send the next event: this one must be over by then.
        timeout = min(TIMEOUT_SECONDS, left)
        return await self._outbound.post(endpoint.url, body=body, headers=headers, timeout=timeout)

    # -- what became of it

    async def _record(self) -> None:
        """Write what has come to an end, together."""
        while self._outcomes:
            batch, self._outcomes = self._outcomes[:RECORD_AT_ONCE], self._outcomes[RECORD_AT_ONCE:]
            await self._outcome_writer.write(batch)
            for queue, outcome in batch:
                queue.known.discard(outcome.delivery.id)
