"""What may be wrong with the definition of an automation: its trigger, its conditions and its actions.

What each kind of trigger and action takes stands with the kind, in `triggers` and `actions`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from taskade_server.domain.automations.operations import Operations
from taskade_server.engine import events, filters
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Faults
from taskade_server.engine.subscriptions import Condition
from taskade_server.kit import references
from taskade_server.kit.errors import did_you_mean
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx

ALWAYS_KNOWN: Final = ("event", "input", "now", "run")
"""Names that references may use in every action."""
UNKNOWN: Final = (
    "names nothing that is known here: use event, input, now or run, the id of an earlier action, or item in an `each`."
)


class Checking(Faults):
    """Checks one definition, and collects every fault of it.

    `types` are the event types that can trigger it, empty for triggers without an event; conditions are about their
    resources. `known` are the names that references may use at the action that is being checked.
    """

    def __init__(
        self, tx: Tx, context: Context, operations: Operations, workspace_id: str, project_id: str | None = None
    ) -> None:
        super().__init__()
        self.tx = tx
        self.context = context
        self.operations = operations
        self.workspace_id = workspace_id
        self.project_id = project_id
        self.types: Sequence[str] = ()
        self.known: set[str] = set(ALWAYS_KNOWN)
        self.ids: set[str] = set()
        self.count = 0
        self.depth = 0
        self.in_loop = False

    def members(self, document: Mapping[str, Any], pointer: str, allowed: Iterable[str], noun: str) -> None:
        """Note members that there are not."""
        names = list(allowed)
        for name in document:
            if name not in names:
                self.unknown(f"{pointer}/{escape_pointer(name)}", name, names, noun)

    def choice(self, value: Any, pointer: str, allowed: Sequence[str], what: str) -> bool:
        """Whether a value is one of some words; a fault if it is not."""
        if isinstance(value, str) and value in allowed:
            return True
        hint = did_you_mean(str(value), allowed)
        self.fault(pointer, "not_allowed", f"{what} is one of {', '.join(allowed)}.{hint}")
        return False

    def patterns(self, value: Any, pointer: str) -> bool:
        """Whether a value is a list of event types and patterns; a fault for each that is none."""
        if not isinstance(value, list) or not 1 <= len(value) <= 20 or not all(isinstance(one, str) for one in value):
            self.fault(pointer, "wrong_type", 'types is a list of 1 to 20 event types or patterns such as ["task.*"].')
            return False
        faults = [(index, fault) for index, one in enumerate(value) if (fault := events.fault(one))]
        for index, fault in faults:
            self.fault(f"{pointer}/{index}", "unknown_event", fault)
        return not faults

    def condition(self, value: Any, pointer: str, types: Sequence[str]) -> Any:
        """A filter with ids in the place of names; faults if it is none for the resources of some event types."""
        if not isinstance(value, dict) or not value:
            self.fault(pointer, "wrong_type", "A condition is a filter document, written as for lists.")
            return value
        if refusal := filters.subscription_refusal(value):
            self.fault(pointer, "too_expensive", refusal)
            return value
        condition = Condition(value, types)
        document, issues = condition.resolve_names(self.tx, self.context.principal)
        for issue in issues:
            place = (issue.pointer or "").removeprefix("/filter")
            self.fault(f"{pointer}{place}", issue.code, issue.detail)
        if not issues and condition.excludes_nothing(self.tx, self.context.principal):
            self.fault(pointer, "wrong_type", "This condition excludes nothing; leave it out.")
        return document

    def values(self, value: Any, pointer: str) -> None:
        """Note references in a value (texts, lists, objects) that cannot be read or name nothing that is known."""
        found = references.find("", value)
        for issue in (*found.issues, *found.unknown(self.known, UNKNOWN)):
            self.fault(pointer + (issue.pointer or "").removeprefix("/body"), issue.code, issue.detail)

    @contextmanager
    def knowing(self, *names: str) -> Iterator[None]:
        """Let references use further names in what is checked inside; what is learnt inside is forgotten after it."""
        before = set(self.known)
        self.known |= set(names)
        self.depth += 1
        try:
            yield
        finally:
            self.known = before
            self.depth -= 1
