"""Actions as a list of instructions, so that a run can stop at any of them and go on there, after a restart too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

IF: Final = "if"
ELSE: Final = "else"
EACH: Final = "each"
AGAIN: Final = "again"


@dataclass(slots=True)
class Instruction:
    """One action, or a jump that branches and loops are made of.

    `pointer` is where the action stands in the definition (a JSON Pointer, `/actions/2/then/0`), `target` the number of
    the instruction that a jump leads to: behind the branch, behind the loop, or back to the loop's beginning.
    """

    do: str
    action: dict[str, Any]
    pointer: str
    target: int = -1


def compile(actions: Sequence[dict[str, Any]], pointer: str = "/actions") -> list[Instruction]:
    """The instructions of a list of actions; a run is over when it comes behind the last."""
    program: list[Instruction] = []
    _append(program, actions, pointer)
    return program


def _append(program: list[Instruction], actions: Sequence[dict[str, Any]], pointer: str) -> None:
    for index, action in enumerate(actions):
        place = f"{pointer}/{index}"
        here = Instruction(action["do"], action, place)
        program.append(here)
        if here.do == IF:
            _append(program, action["then"], f"{place}/then")
            if action.get("else"):
                jump = Instruction(ELSE, action, place)
                program.append(jump)
                here.target = len(program)
                _append(program, action["else"], f"{place}/else")
                jump.target = len(program)
            else:
                here.target = len(program)
        elif here.do == EACH:
            begin = len(program) - 1
            _append(program, action["actions"], f"{place}/actions")
            program.append(Instruction(AGAIN, action, place, begin))
            here.target = len(program)


def walk(actions: Any, pointer: str = "/actions") -> Iterator[tuple[dict[str, Any], str]]:
    """Every action of a checked definition with its JSON Pointer, those within branches and loops too."""
    for index, action in enumerate(actions or ()):
        place = f"{pointer}/{index}"
        yield action, place
        for name in ("then", "else", "actions"):
            if isinstance(action.get(name), list):
                yield from walk(action[name], f"{place}/{name}")
