"""Runs the operations of automations, which no request asks for: as `POST /batch` would, in the automation's name."""

from collections.abc import Collection, Mapping
from typing import Any

from taskade_server.domain.automations import Acting
from taskade_server.http.api.operations import Operations
from taskade_server.http.wire.call import Call
from taskade_server.kit import references
from taskade_server.kit.errors import Invalid, Issue
from taskade_server.store.database import Tx


class AutomatedOperations:
    """The operations of the API as automations use them; see `domain.automations.operations`."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def check(self, operations: list[Any], prefix: str, known: Collection[str] = ()) -> list[Issue]:
        """What is wrong with operations, with pointers below a prefix."""
        return self._operations.check(operations, prefix, known)

    def perform(self, tx: Tx, acting: Acting, operations: list[Any], given: Mapping[str, Any]) -> list[str]:
        """Run operations that were checked once. BatchFailed for the first that fails."""
        prepared, issues = self._operations.prepare(operations, "/operations", _names(operations))
        if issues:
            raise Invalid("The operations can no longer be run as they stand.", errors=issues)
        actor = acting.actor
        call = Call(
            acting.principal,
            acting.secret,
            actor.request_id or "",
            [],
            user_agent=actor.user_agent,
            destinations=acting.destinations,
            refresh=acting.refresh,
            origin=actor.origin,
        )
        return [result.reply.body or "" for result in self._operations.run(tx, call, prepared, given)]


def _names(operations: list[Any]) -> set[str]:
    """All names that references use, but those of the operations, which are known in their order.

    One that nothing stands for (an action that was not done) may have a default.
    """
    found: set[str] = set()
    for operation in operations:
        found |= {one.name for one in references.find(operation["path"], operation.get("body")).references}
    return found - {operation.get("id") for operation in operations}
