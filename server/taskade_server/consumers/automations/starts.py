"""Turns events into runs, and into timers: which automations each event starts, or lets wait for another time.

That is decided by the definitions that held at the time.
"""

from dataclasses import dataclass, field

from taskade_server.consumers.follower import document_of
from taskade_server.consumers.log_reader import PAGE, Overtaken
from taskade_server.consumers.matching import EventPage
from taskade_server.consumers.pace import MATCH_STEPS
from taskade_server.domain import automations
from taskade_server.domain.automations import READER, Rule
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.engine.subscriptions import FILTER_TOO_EXPENSIVE
from taskade_server.kit import time
from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.store.database import Tx
from taskade_server.store.tables import cursors, runs

WHY: dict[str, str] = {
    "rights": "The API key or the user that the automation acts for may do nothing here any more.",
    "filter_invalid": "Its condition can no longer be compared with events.",
    "filter_too_expensive": "Comparing its condition with an event takes too much work.",
}


@dataclass(slots=True)
class RulePage(EventPage):
    """The next events of one workspace, and the automations that they may start."""

    rules: dict[str, list[Rule]] = field(default_factory=dict)
    """By the automation's id; several if its definition was changed within this part of the log."""


def read_page(tx: Tx, workspace_id: str, position: int, limit: int = PAGE) -> RulePage:
    """Read the next events of a workspace, and the automations that they may concern."""
    head = log.head(tx, workspace_id)
    found = log.select(tx, workspace_id, position, head + 1, limit=limit)
    # Read after the events, so that rights which one of them has ended are ended here, too.
    rules = automations.rules(tx, workspace_id, position)
    page = RulePage(workspace_id, position, found, [rule.subscription for rule in rules])
    for rule in rules:
        page.rules.setdefault(rule.subscription.id, []).append(rule)
    page.decided = position if found else head  # of events that are not kept any more nobody can hear
    return page


def write_runs(tx: Tx, page: EventPage) -> None:
    """Start the runs of a page, and move the cursor behind it. Overtaken if the cursor was moved meanwhile."""
    assert isinstance(page, RulePage)
    now = time.now_ms()
    for automation_id in sorted(page.matches):
        for match in page.matches[automation_id]:
            if match.fits:
                _start(tx, page, automation_id, match.event, now)
    for automation_id, reason in page.ended.items():
        automations.disable(tx, automation_id, reason, WHY[reason])
    _wake(tx, page, now)
    if not cursors.advance(tx, READER, page.workspace_id, page.position, page.decided):
        raise Overtaken


def _start(tx: Tx, page: RulePage, automation_id: str, event: Event, now: int) -> None:
    rule = next(rule for rule in page.rules[automation_id] if rule.subscription.was_enabled(event.seq))
    if rule.watch is not None:
        _follow(tx, page, rule, event, now)
        return
    try:
        if not rule.started_by(event, lambda: document_of(event), Budget(MATCH_STEPS)):
            return
    except BudgetSpent:
        page.ended[automation_id] = FILTER_TOO_EXPENSIVE
        return
    automations.start(tx, rule.document, rule.version.version, automations.cause_of(event), now)


def _follow(tx: Tx, page: RulePage, rule: Rule, event: Event, now: int) -> None:
    """Set, move or remove the timer of an event's object. One of an earlier version is removed in any case."""
    if rule.watch is None or rule.version.until is not None:
        return
    try:
        automations.follow(tx, rule.watch, event, document_of(event), Budget(MATCH_STEPS), now)
    except BudgetSpent:
        page.ended[rule.subscription.id] = FILTER_TOO_EXPENSIVE


def _wake(tx: Tx, page: RulePage, now: int) -> None:
    """Let runs that wait for a condition look again, if their object has changed."""
    objects = sorted({event.object_id for event in page.events if event.seq <= page.decided})
    for run_id, _ in runs.waiting_about(tx, objects):
        runs.wake(tx, run_id, now)
