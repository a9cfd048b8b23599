"""Decides which events of a workspace's log concern whom: for webhooks, automations and whatever else subscribes.

Why outside of any transaction and in short slices: filters may be expensive and belong to strangers.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskade_server.consumers.follower import document_of
from taskade_server.consumers.pace import DECODED_A_STEP, MATCH_STEPS
from taskade_server.engine import events, filters
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.subscriptions import FILTER_INVALID, FILTER_TOO_EXPENSIVE, Subscription
from taskade_server.kit.budget import Budget, BudgetSpent

logger: Final = logging.getLogger("taskade")
WRITE_STEPS: Final = 40
"""How many steps of a turn writing what follows from a match takes."""
FORGOTTEN_BELOW: Final = 100.0


@dataclass(slots=True)
class Match:
    """An event for one subscription; `fits` is None if it cannot be told whether it fits, which is put on record."""

    event: Event
    fits: bool | None


@dataclass(slots=True)
class EventPage:
    """The next events of one workspace after `position`, and whom of its subscribers they concern."""

    workspace_id: str
    position: int
    events: list[Event]
    subscriptions: list[Subscription]
    patterns: Sequence[str] = ("*",)
    decided: int = 0
    """The seq of the last event that was matched with all subscriptions."""
    looked: int = 0
    """How many events were matched."""
    matches: dict[str, list[Match]] = field(default_factory=dict)
    """By the subscription's id, in the order of the log."""
    ended: dict[str, str] = field(default_factory=dict)
    """Subscriptions that are to be disabled, and why."""


def match_events(page: EventPage, turn: Budget) -> Iterator[int]:
    """Fill in which events of a page concern whom, event by event, until the turn's budget is spent.

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
    delivery would tell them that there is such an event. The server's log says which event and which subscription.
    """
    event = seen.event
    try:
        concerned = subscription.concerns(event)
    except Exception:
        logger.exception("Whether the event %s concerns the subscription %s cannot be told.", event.id, subscription.id)
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
        logger.exception("The filter of the subscription %s fails at the event %s.", subscription.id, event.id)
        subscription.fault = page.ended[subscription.id] = FILTER_INVALID
    return None


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
