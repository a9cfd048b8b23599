"""Turns events into deliveries: one reader of the log decides who is told, replays what was missed, and forgets.

Why in two steps, deciding and sending: a delivery is written in the transaction that moves the reader's cursor, so none
is forgotten and none is made twice; and sending, which may take days, holds nobody up.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.outbound import Exchange, Outbound
from taskade_server.consumers.runner import Job, Lease
from taskade_server.consumers.sender import INTERNAL, Sender, attempt_of
from taskade_server.domain import hooks
from taskade_server.domain.hooks import READER, Subscription
from taskade_server.engine import events, log
from taskade_server.engine.log import Event
from taskade_server.kit import ids, json, time
from taskade_server.store import cursors, deliveries, replays
from taskade_server.store.database import Database, Tx
from taskade_server.store.deliveries import FAILED, PENDING, Delivery, Outcome
from taskade_server.store.replays import Replay

logger: Final = logging.getLogger("taskade")

SHARDS: Final = 4
PAGE: Final = 500
"""So many events are turned into deliveries in one unit."""
REPLAYED_AHEAD: Final = 500
"""So many deliveries of a replay may be pending; the next are queued when there are fewer."""
IDLE_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.005
REPLAY_SECONDS: Final = 0.1
CLEAN_SECONDS: Final = 3600.0
CLEAN_AT_ONCE: Final = 1000


# ---- what happens ----------------------------------------------------------------------------------------------------


def fan_out(tx: Tx) -> int:
    """Turn the next events into deliveries, those of each workspace in turn; how many events that were."""
    done = 0
    for workspace_id, position in deliveries.behind(tx, READER):
        if done >= PAGE:
            break
        page = log.read_after(tx, workspace_id, position, PAGE)
        for subscription in hooks.subscriptions(tx, workspace_id, position):
            _deliver(tx, subscription, [event for event in page if subscription.was_enabled(event.seq)])
        # What is not kept any more nobody can be told of.
        cursors.move(tx, READER, workspace_id, page[-1].seq if page else log.head(tx, workspace_id))
        done += len(page)
    return done


def _deliver(tx: Tx, subscription: Subscription, page: Iterable[Event]) -> None:
    """Make one webhook's deliveries of a page."""
    previous = first = deliveries.last_seq(tx, subscription.id)
    fresh, spoilt, now = [], [], time.now_ms()
    for event in page:
        wanted = _wants(subscription, event)
        if wanted is False:
            continue
        delivery = _delivery(subscription.id, event, previous, now)
        previous = event.seq
        if wanted is None:
            delivery = delivery._replace(state=FAILED, next_at=None, finished_at=now)
            spoilt.append(delivery)
        fresh.append(delivery)
    deliveries.add(tx, fresh)
    deliveries.record(tx, [_unmatched(delivery, now) for delivery in spoilt])
    if previous is not None and previous != first:
        deliveries.set_last_seq(tx, subscription.id, subscription.workspace_id, previous)


def _wants(subscription: Subscription, event: Event) -> bool | None:
    """Whether an event is to be sent; None if nobody can say, which is on record then, and holds up no other event."""
    try:
        concerned = subscription.concerns(event)
    except Exception:
        logger.exception("Whether the event %s concerns the webhook %s cannot be told.", event.id, subscription.id)
        return False
    try:
        return concerned and subscription.fits(event)
    except Exception:
        logger.exception("The filter of the webhook %s fails at the event %s.", subscription.id, event.id)
        return None


def _unmatched(delivery: Delivery, now: int) -> Outcome:
    detail = (
        "Whether the event fits the webhook's filter could not be told; see the server's log. Resend it to have it."
    )
    return Outcome(delivery, attempt_of(delivery, now, Exchange(error=INTERNAL, detail=detail)), FAILED, None)


def _delivery(webhook_id: str, event: Event, previous: int | None, now: int) -> Delivery:
    return Delivery(
        ids.new("dlv"), webhook_id, event.workspace_id, event.seq, event.id, event.type, event.object_id, previous,
        PENDING, 0, 0, now, now, None, None, None, None,
    )  # fmt: skip


# ---- what was missed -------------------------------------------------------------------------------------------------


def go_on(tx: Tx) -> int:
    """Queue the next deliveries of each replay that has room for more; how many replays that were."""
    moved = 0
    for replay in replays.running(tx):
        if replays.pending(tx, replay.id, REPLAYED_AHEAD) < REPLAYED_AHEAD:
            moved += 1
            (_recover if replay.kind == replays.RECOVER else _replay)(tx, replay)
    return moved


def _recover(tx: Tx, replay: Replay) -> None:
    found = deliveries.between(
        tx, replay.webhook_id, replay.position, replay.to_seq, PAGE, state=FAILED, since=replay.since or 0
    )
    deliveries.queue_again(tx, found, time.now_ms(), replay.id)
    position = found[-1].seq if len(found) == PAGE else replay.to_seq
    replays.advance(tx, replay, position, len(found), time.now_ms())


def _replay(tx: Tx, replay: Replay) -> None:
    page = [event for event in log.read_after(tx, replay.workspace_id, replay.position, PAGE)
            if event.seq <= replay.to_seq]  # fmt: skip
    position = page[-1].seq if page else replay.to_seq
    subscription = hooks.subscription(tx, replay.webhook_id)
    patterns = json.decode(replay.patterns)
    wanted = [event for event in page
              if events.fits(patterns, event.type) and _wants(subscription, event)]  # fmt: skip
    known = {
        delivery.event_id: delivery
        for delivery in deliveries.between(tx, replay.webhook_id, replay.position, position, PAGE * 2)
    }
    again, fresh, now = [], [], time.now_ms()
    for event in wanted:
        old = known.get(event.id)
        if old is None:
            fresh.append(_delivery(replay.webhook_id, event, None, now)._replace(replay_id=replay.id))
        elif old.state != PENDING and not replay.missing_only:
            again.append(old)
    _queue(tx, again, fresh, replay.id, now)
    replays.advance(tx, replay, position, len(again) + len(fresh), now)


def _queue(tx: Tx, again: Sequence[Delivery], fresh: Sequence[Delivery], replay_id: str, now: int) -> None:
    """Both kinds together, so that those about the same object keep the order of their events."""
    deliveries.add(tx, [delivery._replace(state=FAILED, next_at=None, finished_at=now) for delivery in fresh])
    deliveries.queue_again(tx, sorted([*again, *fresh], key=lambda delivery: delivery.seq), now, replay_id)


# ---- what is over ----------------------------------------------------------------------------------------------------


def clean(tx: Tx, before: int) -> int:
    """Remove deliveries and replays that were over before a time (epoch ms), and end what nothing is there for."""
    aimless = hooks.forget_aimless(tx, CLEAN_AT_ONCE)
    gone = deliveries.cancel_orphans(tx, time.now_ms(), CLEAN_AT_ONCE)
    old = deliveries.forget(tx, before, CLEAN_AT_ONCE)
    return max(aimless, gone, old, replays.forget(tx, before, CLEAN_AT_ONCE))


# ---- jobs ------------------------------------------------------------------------------------------------------------


class _News:
    """Tells the senders of this process that there are new deliveries; those of others look by themselves."""

    def __init__(self) -> None:
        self._listeners: dict[int, asyncio.Event] = {}

    def of(self, shard: int) -> asyncio.Event:
        """What is set whenever there is news for a sender."""
        return self._listeners.setdefault(shard, asyncio.Event())

    def tell(self) -> None:
        """There are new deliveries."""
        for listener in self._listeners.values():
            listener.set()


class Webhooks:
    """All that is done for webhooks in one process."""

    def __init__(self, db: Database, feed: Feed, outbound: Outbound, secret: bytes, days: int) -> None:
        """`days`: how long deliveries are kept that are over."""
        self._db = db
        self._feed = feed
        self._outbound = outbound
        self._secret = secret
        self._days = days
        self._news = _News()
        self.attempts: Counter[str] = Counter()
        """How many attempts there were in this process, by the code of their fault or `succeeded`."""

    def jobs(self) -> list[Job]:
        """Making deliveries, sending each share of them, and forgetting them."""
        senders = [Job(f"webhooks/{shard}", 0.0, self._sending(shard), shared=True) for shard in range(SHARDS)]
        return [
            Job("webhooks", 0.0, self._make),
            *senders,
            Job("webhooks/replays", 0.0, self._replay),
            Job("webhooks/old", CLEAN_SECONDS, self._clean),
        ]

    async def _make(self, lease: Lease) -> None:
        def unit(tx: Tx) -> int:
            lease.hold(tx)
            return fan_out(tx)

        while lease.held:
            seen = self._feed.version
            if await self._db.read(lambda tx: bool(deliveries.behind(tx, READER, 1))):
                await self._db.write(unit)
                self._news.tell()
                # What is committed meanwhile is done in one go.
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await self._feed.changed(seen, IDLE_SECONDS)

    async def _replay(self, lease: Lease) -> None:
        def unit(tx: Tx) -> int:
            lease.hold(tx)
            return go_on(tx)

        while lease.held:
            seen = self._feed.version
            if not await self._db.read(replays.running):
                await self._feed.changed(seen, IDLE_SECONDS)
            elif await self._db.write(unit):
                self._news.tell()
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await asyncio.sleep(REPLAY_SECONDS)

    def _sending(self, shard: int) -> Callable[[Lease], Awaitable[None]]:
        async def run(lease: Lease) -> None:
            news = self._news.of(shard)
            await Sender(
                self._db, self._outbound, self._secret, lease, news, (shard, SHARDS), self.attempts
            ).run()  # fmt: skip

        return run

    async def _clean(self, lease: Lease) -> None:
        def unit(tx: Tx, before: int) -> int:
            lease.hold(tx)
            return clean(tx, before)

        before = time.now_ms() - self._days * time.DAY_MS
        while await self._db.write(partial(unit, before=before), heavy=True) >= CLEAN_AT_ONCE:
            pass
