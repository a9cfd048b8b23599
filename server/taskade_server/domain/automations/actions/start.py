"""`run`: start another automation that is triggered by hand, and go on without waiting for it."""

from typing import Any, Final

from taskade_server.domain.automations import starting
from taskade_server.domain.automations.actions.kind import Done, Kind, Outcome
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.resources import AUTOMATION
from taskade_server.domain.automations.situation import Situation
from taskade_server.engine import query
from taskade_server.kit import json
from taskade_server.kit.errors import Invalid


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """Note an automation that there is not, or that cannot be started so."""
    name = action.get("automation_id")
    row = query.get(checking.tx, checking.context.principal, AUTOMATION, name) if isinstance(name, str) else None
    if row is None or row.workspace_id != checking.workspace_id:
        detail = "automation_id is the id of an automation of this workspace that you can see."
        checking.fault(f"{pointer}/automation_id", "unknown_reference", detail)
    elif json.decode(row.document)["trigger"]["on"] != "manual":
        detail = 'Only an automation with the trigger {"on": "manual"} can be run by another.'
        checking.fault(f"{pointer}/automation_id", "not_allowed", detail)
    if "input" in action and not isinstance(action["input"], dict):
        checking.fault(f"{pointer}/input", "wrong_type", "input is an object.")
    checking.values(action.get("input"), f"{pointer}/input")


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Start it, about the same object."""
    action = instruction.action
    row = query.get(situation.tx, situation.principal, AUTOMATION, action["automation_id"])
    if row is None:
        raise Invalid(f"There is no automation {action['automation_id']} any more that this one can see.")
    given = situation.values().body({"input": action.get("input") or {}})["input"]
    loop = situation.memory.loops[-1] if situation.memory.loops else None
    object_id = loop["items"][loop["index"]] if loop else situation.run.object_id
    cause = f"run:{situation.run.id}:{situation.run.steps}"
    started = starting.start_by_hand(
        situation.tx,
        json.decode(row.document),
        cause,
        given,
        object_id,
        situation.now,
        chain=[*json.decode(situation.run.chain), situation.run.automation_id],
    )
    return Done({"run_id": started.id, "state": started.state}, {"id": started.id, "state": started.state})


KIND: Final = Kind("run", ("automation_id", "input"), check, perform)
