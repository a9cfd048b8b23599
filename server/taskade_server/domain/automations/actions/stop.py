"""`stop`: the run is over, with success."""

from typing import Any, Final

from taskade_server.domain.automations.actions.kind import Ended, Kind, Outcome
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation
from taskade_server.store.tables import runs


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """There is nothing to be wrong."""


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """End the run."""
    return Ended(runs.SUCCEEDED, "stopped")


KIND: Final = Kind("stop", (), check, perform)
