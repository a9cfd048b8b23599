"""What all kinds of actions have in common: what one is asked when it is saved, and when it is carried out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation
from taskade_server.kit import json


@dataclass(slots=True)
class Done:
    """The action is done, and the run goes on with the next one, or with instruction `target`.

    `value` is what later references find under the action's id; `detail` is shown in the run's step.
    """

    detail: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    target: int = -1
    quiet: bool = False
    """Whether no step is shown for it."""


@dataclass(slots=True)
class Sleep:
    """The run waits until a time (epoch ms; None: until somebody wakes it), and then comes back to this action."""

    until: int | None
    state: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Ended:
    """The run is over."""

    state: str
    reason: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


Outcome = Done | Sleep | Ended


class Kind(NamedTuple):
    """One kind of action. `check` notes what is wrong with one at a JSON Pointer; `perform` does it."""

    name: str
    members: tuple[str, ...]
    check: Callable[[Checking, dict[str, Any], str], None]
    perform: Callable[[Situation, Instruction], Outcome]


def shortened(value: Any, most: int = 4_000) -> Any:
    """A value as a step shows it: a large one as the beginning of its JSON text."""
    text = json.encode(value)
    return value if len(text) <= most else f"{text[:most]}..."
