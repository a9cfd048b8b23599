"""The kinds of actions: one table, to which a new kind is added.

Each kind stands in a file of its own, with what is checked when an automation is saved and what is done when it runs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from taskade_server.domain.automations.actions import batch, branch, loop, start, stop, wait
from taskade_server.domain.automations.actions.kind import Done, Ended, Kind, Outcome, Sleep
from taskade_server.domain.automations.actions.loop import again
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import AGAIN, EACH, ELSE, IF, Instruction
from taskade_server.domain.automations.situation import Situation

MAX_ACTIONS: Final = 50
MAX_DEPTH: Final = 5
_COMMON: Final = ("id", "do")
_ID_LENGTH: Final = 64

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {kind.name: kind for kind in (batch.KIND, wait.KIND, branch.KIND, loop.KIND, start.KIND, stop.KIND)}
)
"""By the word that `do` has."""

__all__ = [
    "KINDS",
    "MAX_ACTIONS",
    "MAX_DEPTH",
    "Done",
    "Ended",
    "Kind",
    "Outcome",
    "Sleep",
    "check",
    "perform",
]


def check(checking: Checking, actions: Any, pointer: str = "/actions") -> None:
    """Note what is wrong with a list of actions, and with those within them."""
    if not isinstance(actions, list) or not actions or not all(isinstance(one, dict) for one in actions):
        checking.fault(pointer, "required", "Give a list with at least one action, each an object with `do`.")
        return
    for index, action in enumerate(actions):
        checking.count += 1
        if checking.count > MAX_ACTIONS:
            checking.fault(
                pointer, "too_many", f"An automation has at most {MAX_ACTIONS} actions, nested ones included."
            )
            return
        _check_one(checking, action, f"{pointer}/{index}")


def _check_one(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    if not checking.choice(action.get("do"), f"{pointer}/do", tuple(KINDS), "do"):
        return
    kind = KINDS[action["do"]]
    checking.members(action, pointer, (*_COMMON, *kind.members), f"{kind.name} action")
    kind.check(checking, action, pointer)
    if kind.name == IF:
        _check_inner(checking, action.get("then"), f"{pointer}/then")
        if action.get("else") is not None:
            _check_inner(checking, action["else"], f"{pointer}/else")
    elif kind.name == EACH:
        before, checking.in_loop = checking.in_loop, True
        _check_inner(checking, action.get("actions"), f"{pointer}/actions", "item")
        checking.in_loop = before
    _check_id(checking, action, pointer)


def _check_inner(checking: Checking, actions: Any, pointer: str, *names: str) -> None:
    if checking.depth >= MAX_DEPTH:
        checking.fault(pointer, "too_deep", f"Actions are nested at most {MAX_DEPTH} deep.")
        return
    with checking.knowing(*names):
        check(checking, actions, pointer)


def _check_id(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """An action's id is a name that references behind it may use."""
    name = action.get("id")
    if name is None:
        return
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or len(name) > _ID_LENGTH:
        detail = f"An id begins with a letter and has up to {_ID_LENGTH} letters, digits and _."
        checking.fault(f"{pointer}/id", "invalid_format", detail)
    elif name in checking.ids or name in (*checking.known, "item"):
        checking.fault(f"{pointer}/id", "duplicate", f'"{name}" is the name of something else already.')
    else:
        checking.ids.add(name)
        checking.known.add(name)


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Do one action, or make one jump of the program that actions are compiled to."""
    if instruction.do == ELSE:
        return Done(target=instruction.target, quiet=True)
    if instruction.do == AGAIN:
        return again(situation, instruction)
    return KINDS[instruction.do].perform(situation, instruction)
