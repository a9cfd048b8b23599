"""What automations need of the API: operations as `POST /batch` runs them, checked when a rule is saved and run later.

Why an interface: the routes stand above the domain, which must not know them; whoever puts the server together passes
them in.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from taskade_server.engine.access import Principal
from taskade_server.engine.log import Actor
from taskade_server.kit.destinations import Rules
from taskade_server.kit.errors import Issue
from taskade_server.store.database import Tx


@dataclass(frozen=True, slots=True)
class Acting:
    """In whose name operations run: their rights, what events say of them, and where requests may be sent."""

    principal: Principal
    actor: Actor
    secret: bytes
    destinations: Rules
    refresh: Callable[[Tx], Principal]
    """Looks the rights up again, after an operation has changed rights."""


class Operations(Protocol):
    """The batchable operations of the API."""

    def check(self, operations: list[Any], prefix: str, known: Collection[str] = ()) -> list[Issue]:
        """What is wrong with a list of operations that stands at a JSON Pointer.

        References may name what is `known`, and earlier operations of the list.
        """

    def perform(self, tx: Tx, acting: Acting, operations: list[Any], given: Mapping[str, Any]) -> list[str]:
        """Run checked operations in order, within the unit; the JSON text of what each answered, "" for nothing.

        References find what is `given`, and the results of earlier operations. BatchFailed for the first that fails.
        """
