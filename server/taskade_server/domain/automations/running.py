"""Carrying out a run by stretches: the actions up to the next wait are one transaction, which moves the run, too.

Why one transaction: if it is committed, its effects and the run's new position are both there; if the process ends
before, neither is, and the stretch is done anew. So what a run changes it changes once.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.domain.automations import actions
from taskade_server.domain.automations.actions import Done, Ended, Sleep
from taskade_server.domain.automations.operations import Acting, Operations
from taskade_server.domain.automations.program import AGAIN, Instruction, compile
from taskade_server.domain.automations.rights import RightsLost, principal_of, zone_of
from taskade_server.domain.automations.situation import Memory, Situation
from taskade_server.engine import log
from taskade_server.engine.log import Actor
from taskade_server.kit import json, time
from taskade_server.kit.budget import BudgetSpent
from taskade_server.kit.destinations import Rules
from taskade_server.kit.errors import Problem
from taskade_server.store.database import Conflict, Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run, Step

STRETCH: Final = 100
"""How many instructions are carried out in one unit; then the others go on."""
MAX_FAILURES: Final = 10
"""After so many failed runs in a row an automation is disabled."""
MAX_ATTEMPTS: Final = 3
RETRY_MS: Final = 1_000
AGENT: Final = "taskade-automation"
MAX_STEPS: Final = 10_000
MAX_MEMORY: Final = 262_144
MAX_DETAIL: Final = 8_192


class StepFailed(Exception):
    """An action failed: nothing of its stretch is kept, and `record_failure` notes it in a unit of its own."""

    def __init__(self, position: int, instruction: Instruction, problem: Exception) -> None:
        super().__init__(str(problem))
        self.position = position
        self.instruction = instruction
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Services:
    """What carrying out runs needs beside the database."""

    operations: Operations
    secret: bytes
    destinations: Rules


@dataclass(slots=True)
class Progress:
    """How far a stretch has come."""

    run: Run
    steps: list[Step] = field(default_factory=list)
    lost: str | None = None
    """Why the automation may do nothing any more."""


def advance(tx: Tx, run_id: str, services: Services, now: int) -> Progress | None:
    """Carry out the next stretch of a run, and write how far it has come; None if there is nothing to be done.

    A run of an automation that was disabled or deleted meanwhile is cancelled. StepFailed if an action fails.
    """
    run = runs.find(tx, run_id, lock=True)
    if run is None or run.finished_at is not None or run.wake_at is None or run.wake_at > now:
        return None
    version = runs.version(tx, run.automation_id, run.version)
    live = tx.one("SELECT enabled FROM automations WHERE id = ?", (run.automation_id,))
    if version is None or live is None:
        runs.end(tx, run, runs.CANCELLED, now, "deleted", "The automation was deleted.")
        return None
    if not live[0]:
        runs.end(tx, run, runs.CANCELLED, now, "disabled", "The automation was disabled.")
        return None
    document = json.decode(version.doc)
    try:
        principal = principal_of(tx, document)
    except RightsLost as error:
        over = runs.end(tx, run, runs.FAILED, now, "rights", str(error))
        return Progress(over, lost=str(error))
    situation = situation_of(tx, run, document, services, principal, now)
    if run.started_at is None:
        run = situation.run = run._replace(started_at=now)
        if document["now"] is not None and run.position == 0 and not situation.condition(document["now"]):
            runs.end(tx, run, runs.SKIPPED, now, "condition", "The object does not fit the condition `now`.")
            return None
    progress = carry_out(situation, compile(document["actions"]), one_by_one=document["on_error"] == "continue")
    _write(tx, situation, progress, now)
    return progress


def situation_of(
    tx: Tx, run: Run, document: dict[str, Any], services: Services, principal: Any, now: int, *, trying: bool = False
) -> Situation:
    """Where a run stands, with everything that its actions may ask for."""
    origin = {
        "type": "automation",
        "automation_id": run.automation_id,
        "run_id": run.id,
        "chain": json.decode(run.chain),
    }
    actor = Actor(principal.user_id, principal.key_id, run.request_id, None, AGENT, json.encode(origin))
    acting = Acting(principal, actor, services.secret, services.destinations, lambda tx: principal_of(tx, document))
    memory = Memory.of(run.memory)
    zone = zone_of(document, principal)
    return Situation(tx, run, document, memory, acting, services.operations, now, zone, trying)


def carry_out(situation: Situation, program: list[Instruction], *, one_by_one: bool = False) -> Progress:
    """Carry out instructions until the run is over, waits, or has done enough for one unit; writes nothing of the run.

    `one_by_one`: at most one action, so that those before one that fails are kept. StepFailed if one fails.
    """
    progress = Progress(situation.run)
    done = 0
    while progress.run.finished_at is None:
        run = progress.run
        if run.position >= len(program):
            progress.run = _over(run, runs.SUCCEEDED, situation.now)
            break
        if done >= STRETCH or (one_by_one and progress.steps):
            progress.run = run._replace(wake_at=situation.now)
            break
        instruction = program[run.position]
        if _does(situation, progress, instruction):
            break
        done += 1
    return progress


def _does(situation: Situation, progress: Progress, instruction: Instruction) -> bool:
    """Do one instruction, and note what that came to; whether the stretch ends here."""
    run, begun = progress.run, time.now_ms()
    situation.run = run
    if run.steps >= MAX_STEPS:
        detail = f"The run has taken {MAX_STEPS:,} steps; use bulk operations instead of one step for each object."
        progress.run = _over(run, runs.FAILED, situation.now, "too_long", detail)
        return True
    before = len(log.written(situation.tx))
    try:
        outcome = actions.perform(situation, instruction)
    except BudgetSpent as error:
        raise StepFailed(run.position, instruction, error) from error
    except (Problem, Conflict) as error:
        raise StepFailed(run.position, instruction, error) from error
    if isinstance(outcome, Sleep):
        progress.run = run._replace(state=outcome.state, wake_at=outcome.until)
        return True
    state = runs.SUCCEEDED if isinstance(outcome, Done) else outcome.state
    if not (isinstance(outcome, Done) and outcome.quiet):
        events = len(log.written(situation.tx)) - before
        shown = {**outcome.detail, **({"events": events} if events else {})}
        progress.steps.append(_step(run, instruction, state, begun, json.encode(shown)))
        run = run._replace(steps=run.steps + 1)
    if isinstance(outcome, Ended):
        progress.run = _over(run, outcome.state, situation.now, outcome.reason)
        return True
    name = instruction.action.get("id")
    if name is not None and instruction.do != AGAIN:
        situation.memory.results[name] = outcome.value
    position = run.position + 1 if outcome.target < 0 else outcome.target
    progress.run = run._replace(position=position, state=runs.QUEUED, attempts=0, wake_at=situation.now)
    return False


def _over(run: Run, state: str, now: int, reason: str | None = None, detail: str | None = None) -> Run:
    return run._replace(state=state, reason=reason, detail=detail, wake_at=None, finished_at=now)


def _step(run: Run, instruction: Instruction, state: str, begun: int, detail: str, error: str | None = None) -> Step:
    return Step(
        run_id=run.id,
        number=run.steps,
        workspace_id=run.workspace_id,
        action=instruction.pointer,
        kind=instruction.do,
        state=state,
        at=begun,
        duration_ms=float(time.now_ms() - begun),
        first_seq=None,
        last_seq=None,
        error=error,
        detail=detail if len(detail) <= MAX_DETAIL else json.encode({"shortened": detail[:MAX_DETAIL]}),
    )


def _write(tx: Tx, situation: Situation, progress: Progress, now: int) -> None:
    """Write the steps and the run's new position; if it is over, the next of its lane goes on."""
    runs.add_steps(tx, progress.steps)
    run, memory = progress.run, situation.memory.text()
    if run.finished_at is None and len(memory) > MAX_MEMORY:
        detail = f"The results that the run keeps are over {MAX_MEMORY:,} bytes; give ids only to actions you refer to."
        run = _over(run, runs.FAILED, now, "too_large", detail)
    if run.finished_at is None:
        runs.go_on(tx, run._replace(memory=memory))
        return
    runs.end(tx, run._replace(memory=memory), run.state, now, run.reason, run.detail)
    runs.note_end(tx, run.automation_id, run.workspace_id, now, failed=run.state == runs.FAILED)


def record_failure(tx: Tx, run_id: str, failed: StepFailed, now: int) -> tuple[Run, int] | None:
    """Note that an action of a run failed, in a unit of its own: what its stretch had done is not kept.

    The run is tried again, goes on with the next action, or is over, as the fault and the automation have it. Returns
    the run, and how many runs of the automation have failed in a row; None if the run has been ended meanwhile.
    """
    run = runs.find(tx, run_id, lock=True)
    if run is None or run.finished_at is not None:
        return None
    version = runs.version(tx, run.automation_id, run.version)
    document = json.decode(version.doc) if version else {}
    code, status, detail = words_of(failed.problem)
    run = run._replace(started_at=run.started_at or now)
    if status in (409, 412, 503) and run.attempts + 1 < MAX_ATTEMPTS:
        again = run._replace(attempts=run.attempts + 1, wake_at=now + RETRY_MS * 2**run.attempts)
        runs.go_on(tx, again)
        return again, 0
    runs.add_steps(tx, [failed_step(run, failed, now)])
    run = run._replace(steps=run.steps + 1)
    if document.get("on_error") == "continue":
        after = run._replace(position=failed.position + 1, attempts=0, wake_at=now)
        runs.go_on(tx, after)
        return after, 0
    over = runs.end(tx, run, runs.FAILED, now, code, f"{failed.instruction.pointer}: {detail}"[:2_000])
    return over, runs.note_end(tx, run.automation_id, run.workspace_id, now, failed=True)


def failed_step(run: Run, failed: StepFailed, now: int) -> Step:
    """The step of an action that failed."""
    code, status, detail = words_of(failed.problem)
    about = json.encode({"problem": {"code": code, "status": status, "detail": detail}})
    return _step(run, failed.instruction, runs.FAILED, now, about, code)


def words_of(problem: Exception) -> tuple[str, int, str]:
    """The code, the HTTP status and the sentence of what went wrong."""
    if isinstance(problem, Problem):
        return problem.code, problem.status, problem.detail
    if isinstance(problem, Conflict):
        return "conflict", 409, "Another object has the same unique value."
    return "too-expensive", 422, "The action takes more work than one transaction may; let it do less."
