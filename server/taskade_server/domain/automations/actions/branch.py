"""`if`: one of two lists of actions, as a condition holds for the object of the run or not."""

from typing import Any, Final

from taskade_server.domain.automations.actions.kind import Done, Kind, Outcome
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation, holds


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """Note what is wrong with the condition; the branches are checked by whoever checks lists of actions."""
    if "condition" not in action:
        checking.fault(f"{pointer}/condition", "required", "condition is a filter of the object as it is now.")
    else:
        types = ["task.*"] if checking.in_loop else checking.types or ["task.*", "project.*"]
        action["condition"] = checking.condition(action["condition"], f"{pointer}/condition", types)


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Go on with `then`, or jump to `else`. Within a loop the condition is about its item."""
    condition = instruction.action["condition"]
    if situation.memory.loops:
        loop = situation.memory.loops[-1]
        item = situation.item()
        held = item is not None and holds(situation, condition, item, loop["items"][loop["index"]])
    else:
        held = situation.condition(condition)
    return Done({"held": held}, held, -1 if held else instruction.target)


KIND: Final = Kind("if", ("condition", "then", "else"), check, perform)
