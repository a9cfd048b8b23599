"""Turns events into deliveries: one reader of the log decides who gets them, replays what was missed, and forgets.

Why in three steps. Which events a webhook is sent is decided outside of any transaction, in short slices, because
filters may be expensive and belong to strangers. What was decided is written in one short transaction that also moves
the reader's cursor, if that is still where it was: no delivery is forgotten and none is made twice. And sending, which
may take days, holds nobody up.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.log_reader import PAGE, TURN_STEPS, LogReader, Overtaken, Reading
from taskade_server.consumers.matching import EventPage, Match
from taskade_server.consumers.runner import Job, Lease, now_for_removing
from taskade_server.consumers.sender import INTERNAL, Sender, attempt_of
from taskade_server.domain import webhooks
from taskade_server.domain.webhooks import READER
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.kit import json, time
from taskade_server.kit.budget import Budget
from taskade_server.outbound.client import Outbound
from taskade_server.outbound.connection import Exchange
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import cursors, deliveries, replays
from taskade_server.store.tables.deliveries import FAILED, PENDING, Delivery, Outcome
from taskade_server.store.tables.replays import Replay

logger: Final = logging.getLogger("taskade")

SHARDS: Final = 4
REPLAYED_AHEAD: Final = 500
"""How many deliveries of a replay may be pending; the next are queued when there are fewer."""
IDLE_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.005
REPLAY_SECONDS: Final = 0.1
CLEAN_SECONDS: Final = 3600.0
CLEAN_AT_ONCE: Final = 1000


# ---- which events a webhook is sent ----------------------------------------------------------------------------------


def read_page(tx: Tx, workspace_id: str, position: int, limit: int = PAGE) -> EventPage:
    """Read the next events of a workspace, and the webhooks that they may concern."""
    head = log.head(tx, workspace_id)
    found = log.select(tx, workspace_id, position, head + 1, limit=limit)
    # Read after the events, so that rights which one of them has ended are ended here, too.
    page = EventPage(workspace_id, position, found, webhooks.subscriptions(tx, workspace_id, position))
    page.decided = position if found else head  # of events that are not kept any more nobody can hear
    return page


# ---- what happens ----------------------------------------------------------------------------------------------------


def write_deliveries(tx: Tx, page: EventPage) -> None:
    """Write the deliveries of a page and move the cursor behind them. Overtaken if the cursor was moved meanwhile."""
    # Rows of webhooks are locked before their deliveries are, as wherever one is deleted or sends again.
    _update_webhooks(tx, page)
    present = webhooks.existing(tx, [*page.matches])
    for webhook_id, matches in page.matches.items():
        if webhook_id in present:
            _deliver(tx, webhook_id, matches)
    if not cursors.advance(tx, READER, page.workspace_id, page.position, page.decided):
        raise Overtaken


def _update_webhooks(tx: Tx, page: EventPage) -> None:
    """Disable the webhooks whose filter cannot be compared any more, and store names in other filters as ids."""
    for webhook_id, reason in page.ended.items():
        webhooks.disable(tx, webhook_id, reason)
    for subscription in page.subscriptions:
        if subscription.keeps_names and subscription.enabled and subscription.id not in page.ended:
            webhooks.resolve_names(tx, subscription.id)


def _deliver(tx: Tx, webhook_id: str, matches: Sequence[Match]) -> None:
    """Make one webhook's deliveries."""
    previous, now = deliveries.last_seq(tx, webhook_id), time.now_ms()
    fresh, spoilt = [], []
    for event, fits in ((item.event, item.fits) for item in matches):
        delivery = _delivery(webhook_id, event, previous, now)
        previous = event.seq
        if fits is None:
            delivery = delivery.failed(now)
            spoilt.append(delivery)
        fresh.append(delivery)
    deliveries.add(tx, fresh)
    deliveries.record(tx, [_unmatched(delivery, now) for delivery in spoilt])
    deliveries.set_last_seq(tx, webhook_id, matches[-1].event.workspace_id, matches[-1].event.seq)


def _unmatched(delivery: Delivery, now: int) -> Outcome:
    detail = (
        "Whether the event fits the webhook's filter could not be told; disabled_reason of the webhook or the server's"
        " log says why. Resend it to have it."
    )
    return Outcome(delivery, attempt_of(delivery, now, Exchange(error=INTERNAL, detail=detail)), FAILED, None)


def _delivery(webhook_id: str, event: Event, previous: int | None, now: int, replay_id: str | None = None) -> Delivery:
    return Delivery.queued(
        webhook_id=webhook_id,
        workspace_id=event.workspace_id,
        seq=event.seq,
        event_id=event.id,
        type=event.type,
        object_id=event.object_id,
        previous_seq=previous,
        now=now,
        replay_id=replay_id,
    )


# ---- what was missed -------------------------------------------------------------------------------------------------


def recover(tx: Tx, replay: Replay) -> None:
    """Queue the next failed deliveries of a replay."""
    found = deliveries.between(
        tx,
        replay.webhook_id,
        replay.workspace_id,
        replay.position,
        replay.to_seq,
        PAGE,
        state=FAILED,
        since=replay.since or 0,
    )
    deliveries.queue_again(tx, found, time.now_ms(), replay.id)
    position = found[-1].seq if len(found) == PAGE else replay.to_seq
    replays.advance(tx, replay, position, len(found), time.now_ms())


def read_replay_page(tx: Tx, replay: Replay) -> EventPage:
    """Read the next events of a replay."""
    found = log.select(tx, replay.workspace_id, replay.position, replay.to_seq + 1, limit=PAGE)
    subscription = webhooks.subscription(tx, replay.webhook_id)
    if subscription is not None:
        subscription.spans = [(0, None)]  # what happened while it was disabled is sent, too
    subscriptions = [subscription] if subscription else []
    page = EventPage(replay.workspace_id, replay.position, found, subscriptions, json.decode(replay.patterns))
    page.decided = replay.position if found else replay.to_seq
    return page


def write_replayed_deliveries(tx: Tx, replay: Replay, page: EventPage) -> None:
    """Queue what was decided, unless the replay was broken off or has gone on meanwhile."""
    present = replays.find(tx, replay.webhook_id, replay.workspace_id, replay.id)
    if present is None or (present.state, present.position) != (replay.state, replay.position):
        return
    known = {
        delivery.event_id: delivery
        for delivery in deliveries.between(
            tx, replay.webhook_id, replay.workspace_id, replay.position, page.decided, PAGE * 2
        )
    }
    again, now = list[Delivery](), time.now_ms()
    fresh, spoilt = list[Delivery](), list[Delivery]()
    for match in page.matches.get(replay.webhook_id, ()):
        old = known.get(match.event.id)
        made = _delivery(replay.webhook_id, match.event, None, now, replay.id)
        if old is None:
            (spoilt if match.fits is None else fresh).append(made)
        elif match.fits and old.state != PENDING and not replay.missing_only:
            again.append(old)
    lost = [delivery.failed(now) for delivery in spoilt]
    _update_webhooks(tx, page)
    deliveries.add(tx, lost)
    deliveries.record(tx, [_unmatched(delivery, now) for delivery in lost])
    _queue(tx, again, fresh, replay.id, now)
    replays.advance(tx, replay, page.decided, len(again) + len(fresh), now)


def _queue(tx: Tx, again: Sequence[Delivery], fresh: Sequence[Delivery], replay_id: str, now: int) -> None:
    """Make old and new deliveries pending in one order, so that those about one object are sent in the order of events.

    New ones are first added as failed, which does not make them due: `queue_again` then decides for old and new ones
    together which delivery about each object is sent first.
    """
    deliveries.add(tx, [delivery.failed(now) for delivery in fresh])
    deliveries.queue_again(tx, sorted([*again, *fresh], key=lambda delivery: delivery.seq), now, replay_id)


# ---- what is over ----------------------------------------------------------------------------------------------------


def clean(tx: Tx, before: int) -> int:
    """Remove deliveries and replays that were over before a time (epoch ms), and what has lost its object.

    That is: webhooks about projects that are gone for good are deleted, pending deliveries of deleted webhooks are
    cancelled. Returns the largest number of rows that one of these steps changed; each changes up to `CLEAN_AT_ONCE`.
    """
    orphaned = webhooks.delete_orphaned(tx, CLEAN_AT_ONCE)
    gone = deliveries.cancel_orphans(tx, time.now_ms(), CLEAN_AT_ONCE)
    old = deliveries.forget(tx, before, CLEAN_AT_ONCE)
    return max(orphaned, gone, old, replays.forget(tx, before, CLEAN_AT_ONCE))


# ---- jobs ------------------------------------------------------------------------------------------------------------


class _Wakeups:
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
        self._news = _Wakeups()
        self._reader = LogReader(
            db,
            feed,
            Reading("deliveries of webhooks", partial(deliveries.behind, reader=READER), read_page, write_deliveries),
            self._news.tell,
        )
        self.attempts: Counter[str] = Counter()
        """How many attempts there were in this process, by the code of their fault or `succeeded`."""

    def jobs(self) -> list[Job]:
        """Making deliveries, sending each share of them, and forgetting them."""
        senders = [Job(f"webhooks/{shard}", 0.0, self._sending(shard), shared=True) for shard in range(SHARDS)]
        return [
            Job("webhooks", 0.0, self._reader.run),
            *senders,
            Job("webhooks/replays", 0.0, self._replay),
            Job("webhooks/old", CLEAN_SECONDS, self._clean),
        ]

    async def _replay(self, lease: Lease) -> None:
        while lease.held:
            seen = self._feed.version
            running = await self._db.read(replays.running)
            if not running:
                await self._feed.changed(seen, IDLE_SECONDS)
            elif await self._advance_replays(lease, running):
                self._news.tell()
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await asyncio.sleep(REPLAY_SECONDS)

    async def _advance_replays(self, lease: Lease, running: Sequence[Replay]) -> int:
        """Queue the next deliveries of each replay that has room for more; how many replays that were."""
        moved = 0
        for replay in running:
            waiting = await self._db.read(partial(replays.pending, replay_id=replay.id, limit=REPLAYED_AHEAD))
            if waiting >= REPLAYED_AHEAD:
                continue
            moved += 1
            step = partial(recover, replay=replay)
            if replay.kind != replays.RECOVER:
                page = await self._db.read(partial(read_replay_page, replay=replay))
                await self._reader.match(page, Budget(TURN_STEPS))
                step = partial(write_replayed_deliveries, replay=replay, page=page)

            def unit(tx: Tx, step: Callable[[Tx], None] = step) -> None:
                lease.hold(tx)
                step(tx)

            await self._db.write(unit)
        return moved

    def _sending(self, shard: int) -> Callable[[Lease], Awaitable[None]]:
        async def run(lease: Lease) -> None:
            news = self._news.of(shard)
            await Sender(
                self._db,
                self._outbound,
                self._secret,
                lease,
                news,
                (shard, SHARDS),
                self.attempts,
                self._feed.pace,
            ).run()

        return run

    async def _clean(self, lease: Lease) -> None:
        def unit(tx: Tx, before: int) -> int:
            lease.hold(tx)
            return clean(tx, before)

        now = await now_for_removing(self._db, lease, CLEAN_SECONDS)
        if now is None:
            return
        before = now - self._days * time.DAY_MS
        while await self._db.write(partial(unit, before=before), heavy=True) >= CLEAN_AT_ONCE:
            pass
