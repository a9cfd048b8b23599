"""Turns events into deliveries: one reader of the log decides who gets them, replays what was missed, and forgets.

Why in three steps. Which events a webhook is sent is decided outside of any transaction, in short slices, because
filters may be expensive and belong to strangers. What was decided is written in one short transaction that also moves
the reader's cursor, if that is still where it was: no delivery is forgotten and none is made twice. And sending, which
may take days, holds nobody up.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import document_of
from taskade_server.consumers.pace import DECODED_A_STEP, MATCH_STEPS
from taskade_server.consumers.runner import Job, Lease, now_for_removing
from taskade_server.consumers.sender import INTERNAL, Sender, attempt_of
from taskade_server.domain import webhooks
from taskade_server.domain.webhooks import READER
from taskade_server.engine import events, filters, log
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.subscriptions import FILTER_INVALID, FILTER_TOO_EXPENSIVE, Subscription
from taskade_server.kit import json, time
from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.outbound.client import Outbound
from taskade_server.outbound.connection import Exchange
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import cursors, deliveries, replays
from taskade_server.store.tables.deliveries import FAILED, PENDING, Delivery, Outcome
from taskade_server.store.tables.replays import Replay

logger: Final = logging.getLogger("taskade")

SHARDS: Final = 4
PAGE: Final = 500
"""How many events are turned into deliveries in one unit."""
TURN_STEPS: Final = 50_000
"""How much work is done for that, in steps of `kit.budget`; then it is the turn of the workspaces that cost least."""
WORKSPACES_AT_ONCE: Final = 1_000
MANY_WEBHOOKS: Final = 20
"""A workspace with more webhooks is read in a thread of its own."""
WRITE_STEPS: Final = 40
"""How many steps of a turn writing a delivery takes."""
FORGOTTEN_BELOW: Final = 100.0
REPLAYED_AHEAD: Final = 500
"""How many deliveries of a replay may be pending; the next are queued when there are fewer."""
IDLE_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.005
REPLAY_SECONDS: Final = 0.1
CLEAN_SECONDS: Final = 3600.0
CLEAN_AT_ONCE: Final = 1000


# ---- which events a webhook is sent ----------------------------------------------------------------------------------


class Overtaken(Exception):
    """Somebody else has moved the reader's cursor meanwhile: nothing of this unit is kept, and it is tried again."""


@dataclass(slots=True)
class Match:
    """An event for one webhook. `fits` is None if nobody can tell whether it fits the filter, which goes on record."""

    event: Event
    fits: bool | None


@dataclass(slots=True)
class EventPage:
    """The next events of one workspace after `position`, and which of them its webhooks are sent."""

    workspace_id: str
    position: int
    events: list[Event]
    subscriptions: list[Subscription]
    patterns: Sequence[str] = ("*",)
    decided: int = 0
    """The seq of the last event that was matched with all webhooks."""
    looked: int = 0
    """How many events were matched."""
    matches: dict[str, list[Match]] = field(default_factory=dict)
    """By the webhook's id, in the order of the log."""
    ended: dict[str, str] = field(default_factory=dict)
    """Webhooks that are to be disabled, and why."""


def read_page(tx: Tx, workspace_id: str, position: int, limit: int = PAGE) -> EventPage:
    """Read the next events of a workspace, and the webhooks that they may concern."""
    head = log.head(tx, workspace_id)
    found = log.select(tx, workspace_id, position, head + 1, limit=limit)
    # Read after the events, so that rights which one of them has ended are ended here, too.
    page = EventPage(workspace_id, position, found, webhooks.subscriptions(tx, workspace_id, position))
    page.decided = position if found else head  # of events that are not kept any more nobody can hear
    return page


def match_events(page: EventPage, turn: Budget) -> Iterator[int]:
    """Fill in what the webhooks of a page are sent, event by event, until the turn's budget is spent.

    Yields the steps of each small piece of work, so that the caller can let others work in between. At least one event
    is matched.
    """
    for subscription in page.subscriptions:
        if subscription.enabled and subscription.fault is not None:
            page.ended[subscription.id] = subscription.fault
    for event in page.events:
        seen = _Seen(event)
        if events.fits(page.patterns, event.type):
            for subscription in page.subscriptions:
                if subscription.was_enabled(event.seq):
                    yield from _match_one(page, subscription, seen)
        page.decided, page.looked = event.seq, page.looked + 1
        steps, seen.steps = 1 + seen.steps, 0
        turn.left -= steps + seen.spent
        yield steps
        if turn.left <= 0:
            return


def _match_one(page: EventPage, subscription: Subscription, seen: "_Seen") -> Iterator[int]:
    budget = Budget(MATCH_STEPS)
    wanted = _wants(page, subscription, seen, budget)
    if wanted is not False:
        page.matches.setdefault(subscription.id, []).append(Match(seen.event, wanted))
        seen.spent += WRITE_STEPS
    if REGISTRY[seen.event.resource].visibility in ("owner", "managed"):
        seen.steps += len(seen.event.data) // DECODED_A_STEP  # it was decoded to see whose it is
    steps = 1 + budget.used + seen.steps
    seen.spent, seen.steps = seen.spent + steps, 0
    yield steps


class _Unreadable(Exception):
    """The document of an event cannot be decoded."""


class _Seen:
    """An event that many filters are compared with; its document is decoded once, if one of them asks for it.

    `steps`: done, and not yet yielded to the pace; `spent`: yielded, and not yet taken from the turn's budget.
    """

    def __init__(self, event: Event) -> None:
        self.event = event
        self.steps = 0
        self.spent = 0
        self._facts: filters.Facts | None = None
        self._unreadable = False

    def facts(self) -> filters.Facts:
        """What filters compare. _Unreadable if the event's document cannot be decoded, which is logged once."""
        if self._facts is None and not self._unreadable:
            self.steps += len(self.event.data) // DECODED_A_STEP
            try:
                self._facts = filters.Facts(REGISTRY[self.event.resource], document_of(self.event))
            except Exception:
                logger.exception("The document of the event %s cannot be read.", self.event.id)
                self._unreadable = True
        if self._facts is None:
            raise _Unreadable
        return self._facts


def _wants(page: EventPage, subscription: Subscription, seen: _Seen, budget: Budget) -> bool | None:
    """Whether an event is to be sent; None if the filter cannot be compared with it, which holds up no other event.

    False, too, if it cannot be told whether the owner may see the event (its stored document cannot be read): a failed
    delivery would tell them that there is such an event. The server's log says which event and which webhook.
    """
    event = seen.event
    try:
        concerned = subscription.concerns(event)
    except Exception:
        logger.exception("Whether the event %s concerns the webhook %s cannot be told.", event.id, subscription.id)
        return False
    if not concerned or subscription.fault is not None:
        return None if concerned else False
    try:
        return subscription.fits(event, seen.facts, budget)
    except BudgetSpent:
        subscription.fault = page.ended[subscription.id] = FILTER_TOO_EXPENSIVE
    except _Unreadable:
        pass  # no filter is to blame, and with the next event each may be right
    except Exception:
        logger.exception("The filter of the webhook %s fails at the event %s.", subscription.id, event.id)
        subscription.fault = page.ended[subscription.id] = FILTER_INVALID
    return None


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


class FairShare:
    """Decides whose turn it is: that of the workspaces whose events have cost least lately."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    def order(self, behind: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Workspaces with their positions, in the order of their turns."""
        return sorted(behind, key=lambda item: self._spent.get(item[0], 0.0))

    def charge(self, costs: dict[str, int]) -> None:
        """Note how many steps were done for each of some workspaces; at each call, earlier steps count half as much."""
        halves = {name: steps / 2 for name, steps in self._spent.items() if steps > FORGOTTEN_BELOW}
        self._spent = {**halves, **{name: halves.get(name, 0.0) + steps for name, steps in costs.items()}}


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
        self._share = FairShare()
        self._large: set[str] = set()
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
        while lease.held:
            seen = self._feed.version
            behind = await self._db.read(partial(deliveries.behind, reader=READER, limit=WORKSPACES_AT_ONCE))
            if behind:
                await self._take_turn(lease, behind)
                self._news.tell()
                # What is committed meanwhile is done in one go.
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await self._feed.changed(seen, IDLE_SECONDS)

    async def _take_turn(self, lease: Lease, behind: Sequence[tuple[str, int]]) -> None:
        """Turn the next events of some workspaces into deliveries: as many as one turn has room and steps for."""
        turn, room = Budget(TURN_STEPS), PAGE
        decided: list[EventPage] = []
        costs: dict[str, int] = {}
        failure: Exception | None = None
        for workspace_id, position in self._share.order(behind):
            before, large = turn.left, workspace_id in self._large
            try:
                page = await self._db.read(
                    partial(read_page, workspace_id=workspace_id, position=position), heavy=large
                )
                await self._match(page, turn)
            except StoreError:
                raise
            except Exception as error:
                # It comes last from now on, so that it holds up nobody else.
                logger.exception("The events of the workspace %s cannot be turned into deliveries.", workspace_id)
                costs[workspace_id], failure = TURN_STEPS, error
                continue
            (self._large.add if len(page.subscriptions) > MANY_WEBHOOKS else self._large.discard)(workspace_id)
            decided.append(page)
            costs[workspace_id] = before - turn.left
            room -= page.looked
            if turn.left <= 0 or room <= 0:
                break
        self._share.charge(costs)
        if failure is not None and not decided:
            raise failure

        def unit(tx: Tx) -> None:
            lease.hold(tx)
            for page in decided:
                write_deliveries(tx, page)

        try:
            await self._db.write(unit)
        except Overtaken:
            logger.info("The reader of the log for webhooks was moved meanwhile; it looks again.")

    async def _match(self, page: EventPage, turn: Budget) -> None:
        for steps in match_events(page, turn):
            self._feed.pace.add(steps)
            await self._feed.pace.turn(page.workspace_id)

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
                await self._match(page, Budget(TURN_STEPS))
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
