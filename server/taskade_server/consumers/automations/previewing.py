"""Tries an automation on the past of the log: when it would have run, and what its first runs would do.

Why by the reader's own code (`matching`, and `Rule` for the changes that a trigger asks for): the answer is then what
the reader would have decided, and stays so when that changes.
"""

from dataclasses import dataclass, field
from typing import Final

from taskade_server.consumers.follower import document_of
from taskade_server.consumers.matching import EventPage, match_events
from taskade_server.consumers.pace import MATCH_STEPS
from taskade_server.domain import automations
from taskade_server.domain.automations import Rule, Trial, Trying
from taskade_server.engine import events, log
from taskade_server.engine.log import Event
from taskade_server.engine.subscriptions import FILTER_TOO_EXPENSIVE
from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.store.database import Tx

PAGE: Final = 500
MAX_EVENTS: Final = 100_000
"""How many events one preview looks at."""
MAX_LISTED: Final = 100
MAX_TRIALS: Final = 10


@dataclass(slots=True)
class Preview:
    """What an automation would have done about a part of the log.

    `looked` is how many events that were, `count` how many would have started a run, of which `starts` are the first
    and `objects` says how many each object had. `circles` would have been skipped because of the automations that led
    to them. `next_after` is the seq behind which to go on; None if that was all. `ended` is why the server would have
    disabled the automation at that place.
    """

    looked: int = 0
    count: int = 0
    circles: int = 0
    starts: list[Event] = field(default_factory=list)
    objects: dict[str, int] = field(default_factory=dict)
    trials: list[tuple[Event, Trial]] = field(default_factory=list)
    next_after: int | None = None
    ended: str | None = None


class _Undone(Exception):
    """Ends a trial, so that nothing of it is kept."""


def preview(tx: Tx, trying: Trying, after: int, trials: int) -> Preview:
    """Try an automation on the events behind a position: MAX_EVENTS, or as many as the unit's budget has steps for.

    The first starts, at most `trials`, are carried out and taken back. Modes, and how often an automation may start,
    are not considered.
    """
    found = Preview()
    rule = automations.rule_for(tx, trying.document, trying.principal)
    workspace_id = trying.document["workspace_id"]
    head, position = log.head(tx, workspace_id), after
    kept = tx.budget.steps // (2 if trials else 10)
    while position < head and found.ended is None:
        page_size = min(PAGE, MAX_EVENTS - found.looked)
        if page_size <= 0 or (found.looked and tx.budget.left <= kept):
            found.next_after = position
            break
        page = EventPage(
            workspace_id,
            position,
            log.select(tx, workspace_id, position, head + 1, limit=page_size),
            [rule.subscription],
        )
        if not page.events:
            break
        for steps in match_events(page, Budget(max(1, tx.budget.left - kept))):
            tx.budget.spend(steps)
        _count(tx, trying, rule, page, found)
        found.looked += page.looked
        position = page.decided
    for event in found.starts[:trials]:
        found.trials.append((event, _tried(tx, trying, event)))
    return found


def _count(tx: Tx, trying: Trying, rule: Rule, page: EventPage, found: Preview) -> None:
    """Count which of a page's matches would have started a run."""
    found.ended = next(iter(page.ended.values()), None)
    for match in page.matches.get(rule.subscription.id, ()):
        event, budget = match.event, Budget(MATCH_STEPS)
        if not match.fits or not events.sees(trying.caller, event):
            continue
        try:
            starts = rule.started_by(event, lambda event=event: document_of(event), budget)  # type: ignore[misc]
        except BudgetSpent:
            found.ended = FILTER_TOO_EXPENSIVE
            return
        finally:
            tx.budget.spend(budget.used)
        if not starts:
            continue
        if automations.circle_of(rule.document, automations.chain_of(event.origin)) is not None:
            found.circles += 1
            continue
        found.count += 1
        found.objects[event.object_id] = found.objects.get(event.object_id, 0) + 1
        if len(found.starts) < MAX_LISTED:
            found.starts.append(event)


def _tried(tx: Tx, trying: Trying, event: Event) -> Trial:
    trial = Trial("")
    try:
        with log.part(tx):
            trial = automations.try_out(tx, trying, automations.cause_of(event))
            raise _Undone
    except _Undone:
        return trial
