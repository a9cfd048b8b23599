"""Trying an automation out: a run that is carried out from its first action to its end, of which nothing is kept."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from taskade_server.domain.automations import starting
from taskade_server.domain.automations.program import Instruction, compile
from taskade_server.domain.automations.rights import RightsLost, principal_of, seen_by
from taskade_server.domain.automations.rules import Rule, rule_of
from taskade_server.domain.automations.running import (
    Services,
    StepFailed,
    carry_out,
    failed_step,
    situation_of,
    words_of,
)
from taskade_server.domain.automations.situation import Situation
from taskade_server.domain.automations.starting import Cause
from taskade_server.engine import events, log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import ids
from taskade_server.kit.budget import BudgetSpent
from taskade_server.kit.errors import Clash
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Step, Version

MAX_STEPS: Final = 1_000
MAX_WORDS: Final = 2_000
BREAKS: Final = ("wait", "http", "approve")
"""Actions between which a run is one transaction."""
UNFINISHED: Final = "unfinished"
WAITS: Final = "It would wait here for what a trial cannot bring."


@dataclass(slots=True)
class Trial:
    """What a run would do: its steps, how it would end, and the changes that it would make, as the caller sees them.

    `state` is one of a run, or `unfinished`. `hidden` is how many changes the caller does not see.
    """

    state: str
    reason: str | None = None
    detail: str | None = None
    steps: list[Step] = field(default_factory=list)
    changes: list[log.Written] = field(default_factory=list)
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Trying:
    """Who tries an automation, by whose rights, and with what it carries out actions.

    `document` is the automation; it need not be stored. `principal` has what the automation may do, as far as it is
    about what the caller sees.
    """

    document: dict[str, Any]
    caller: Principal
    principal: Principal
    services: Services
    now: int

    @property
    def limited(self) -> bool:
        """Whether the automation itself may reach more than the trial does."""
        return self.principal.key_id != self.caller.key_id


def trying(tx: Tx, document: dict[str, Any], caller: Principal, services: Services, now: int) -> Trying:
    """What a caller needs to try a stored automation. Clash if it may do nothing any more."""
    try:
        principal = principal_of(tx, document)
    except RightsLost as error:
        raise Clash(str(error)) from error
    return Trying(document, caller, seen_by(principal, caller), services, now)


def rule_for(tx: Tx, document: dict[str, Any], principal: Principal) -> Rule:
    """An automation as it would be matched with any event of the log, however old, though it be disabled."""
    version = Version(document["id"], document["version"], document["workspace_id"], 1, -1, None, "")
    return rule_of(tx, version, document, principal)


def try_out(tx: Tx, trying: Trying, cause: Cause, made_up: dict[str, Any] | None = None) -> Trial:
    """Carry a run out from its first action to its end, as if all that it waits for came at once.

    The unit of work has to be rolled back afterwards. Requests to others are not sent, and nobody is asked.
    """
    document = trying.document
    run = starting.new(document, document["version"], cause, trying.now)._replace(started_at=trying.now)
    situation = situation_of(tx, run, document, trying.services, trying.principal, trying.now, trying=True)
    situation.acting = replace(situation.acting, refresh=lambda tx: seen_by(principal_of(tx, document), trying.caller))
    situation.made_up = made_up
    if document["now"] is not None and not situation.condition(document["now"]):
        return Trial(runs.SKIPPED, "condition", "The object does not fit the condition `now`.")
    before = _counts(tx)
    trial = Trial(UNFINISHED, None, "It goes on for longer than a trial does.")
    _carry_out(situation, trial)
    _note_changes(tx, trying, trial, before)
    return trial


def _carry_out(situation: Situation, trial: Trial) -> None:
    """Carry out stretch by stretch; of one that fails nothing is kept, as `running` has it."""
    program, goes_on = compile(situation.document["actions"]), situation.document["on_error"] == "continue"
    over = False
    while not over:
        steps, run = len(trial.steps), situation.run
        try:
            with log.part(situation.tx):
                over = _stretch(situation, trial, program, one=goes_on)
        except StepFailed as failed:
            if isinstance(failed.problem, BudgetSpent):
                raise failed.problem from failed  # what the request may take is spent, so that it has to end
            del trial.steps[steps:]
            run = run._replace(steps=len(trial.steps))
            trial.steps.append(failed_step(run, failed, situation.now))
            if not goes_on:
                code, _, words = words_of(failed.problem)
                trial.state, trial.reason = runs.FAILED, code
                trial.detail = f"{failed.instruction.pointer}: {words}"[:MAX_WORDS]
                return
            situation.run = run._replace(position=failed.position + 1, steps=len(trial.steps))


def _stretch(situation: Situation, trial: Trial, program: list[Instruction], *, one: bool) -> bool:
    """Carry out actions up to the next that would wait, or one alone; whether the trial is over."""
    while True:
        if len(trial.steps) >= MAX_STEPS:
            return True
        progress = carry_out(situation, program, one_by_one=True)
        trial.steps += progress.steps
        situation.run = run = progress.run
        if run.finished_at is not None:
            trial.state, trial.reason, trial.detail = run.state, run.reason, run.detail
            return True
        if not progress.steps and run.state != runs.QUEUED:
            place = program[run.position].pointer if run.position < len(program) else ""
            trial.detail = f"{place}: {WAITS}"
            return True
        if one or (progress.steps and progress.steps[-1].kind in BREAKS):
            return False


# ---- what it changed -------------------------------------------------------------------------------------------------


def _counts(tx: Tx) -> dict[str, int]:
    counts: dict[str, int] = {}
    for done in log.written(tx):
        counts[done.workspace_id] = counts.get(done.workspace_id, 0) + 1
    return counts


def _note_changes(tx: Tx, trying: Trying, trial: Trial, before: dict[str, int]) -> None:
    """Note what was written since: as the caller would see its events if they were kept."""
    left = dict(before)
    found: list[log.Written] = []
    for done in log.written(tx):
        if left.get(done.workspace_id, 0) > 0:
            left[done.workspace_id] -= 1
        else:
            found.append(done)
    for done, event in zip(found, log.with_sight(tx, [_event(one, trying.now) for one in found]), strict=True):
        shown = events.shown_to(trying.caller, event)
        if shown is None:
            trial.hidden += 1
        else:
            trial.changes.append(done._replace(previous=shown.previous))


def _event(done: log.Written, now: int) -> Event:
    """What was written, as an event that has no place in the log."""
    return Event(
        done.workspace_id,
        0,
        ids.new("evt"),
        done.type,
        done.resource,
        done.object_id,
        done.project_id,
        None,
        None,
        None,
        now,
        done.data,
        done.previous,
        None,
        None,
        None,
    )


# ---- causes ----------------------------------------------------------------------------------------------------------


def kind_for(document: dict[str, Any], resource: str) -> str | None:
    """The type of event about a resource that starts an automation, by which it is tried; None if none does."""
    trigger = document["trigger"]
    patterns = trigger["types"] if trigger["on"] == "event" else ["*"]
    names = [name for name, kind in events.catalogue().items() if kind.resource.name == resource]
    changed = REGISTRY[resource].event_type("updated")
    names.sort(key=lambda name: name != changed)
    return next((name for name in names if events.fits(patterns, name)), None)
