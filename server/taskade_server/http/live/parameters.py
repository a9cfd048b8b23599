"""The parameters of a request for events, and the members of a subscription, understood one by one."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from taskade_server.consumers.follower import EventSelection
from taskade_server.engine import events, filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.filters import Node
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.parameters import Faults
from taskade_server.kit import ids
from taskade_server.kit.errors import Gone, InvalidQuery, Issue, with_allowed
from taskade_server.kit.numbers import whole
from taskade_server.kit.strict_json import Faulty, decode_strict, escape_pointer
from taskade_server.store.database import Tx

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_WAIT: Final = 60
MAX_SECONDS: Final = 86_400
_POSITION: Final = re.compile(r"(?:([0-9]{1,17})-)?([0-9]{1,17})")
"""A seq, behind the generation of the log if that was ever restored from a backup."""
CHOOSING: Final = ("types", "workspace_id", "project_id", "object_id", "filter")


class Reading(Faults):
    """The parameters of a request for events, or the members of a subscription, with every fault there is in them."""

    def __init__(self, values: Mapping[str, Any], allowed: Iterable[str], *, typed: bool = False) -> None:
        """`typed`: the values come from a JSON document, where a number is a number."""
        super().__init__()
        self.values = values
        self.typed = typed
        self._document: Any = None
        self.generations: dict[str, int | None] = {}
        """The generation that each position says it is from, if it does."""
        names = sorted(allowed)
        for name in values:
            if name not in names:
                detail = with_allowed(f'There is no "{name[:80]}" here.', name, names)
                self.fault(name, "unknown_field" if typed else "unknown_parameter", detail)

    def fault(self, name: str, code: str, detail: str) -> None:
        """Note what is wrong with the parameter or member of this name."""
        place = {"pointer": f"/{escape_pointer(name)}"} if self.typed else {"parameter": name}
        self.issues.append(Issue(code, detail, **place))

    def number(self, name: str, least: int, most: int) -> int | None:
        """A whole number, None if there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and not self.typed:
            value = whole(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(name, "out_of_range", f"{name} is a whole number from {least} to {most}.")
            return None
        return value

    def text(self, name: str) -> str | None:
        """One text, None if there is none."""
        value = self.values.get(name)
        if value is not None and not (isinstance(value, str) and value):
            self.fault(name, "wrong_type", f"{name} takes one text that is not empty; leave it out otherwise.")
            return None
        return value

    def types(self, name: str) -> frozenset[str] | None:
        """The types of events that the patterns stand for; None for all of them."""
        value = self.values.get(name)
        if value is None:
            return None
        patterns = [value] if isinstance(value, str) else value
        if not isinstance(patterns, list) or not all(isinstance(item, str) for item in patterns):
            self.fault(name, "wrong_type", f"{name} takes types of events such as task.created, or task.* or *.")
            return None
        patterns = [part.strip() for item in patterns for part in item.split(",")]
        for pattern in patterns:
            wrong = events.fault(pattern)
            if wrong is not None:
                self.fault(name, "unknown_event", wrong)
        found = frozenset(kind for kind in events.catalogue() if events.fits(patterns, kind))
        return None if len(found) == len(events.catalogue()) else found

    def workspace(self, principal: Principal) -> str:
        """The workspace whose log it is about; "" after a fault."""
        name = self.text("workspace_id")
        if name is None and isinstance(position := self.values.get("after"), str) and ":" in position:
            name = position.rpartition(":")[0]
        name = name or principal.default_workspace
        if name is None:
            self.fault("workspace_id", "required", "You belong to no workspace whose events there could be.")
        elif principal.grant(name) is None:
            self.fault("workspace_id", "unknown_reference", f"There is no workspace {name[:80]} that you can see.")
            name = None
        return name or ""

    def position(self, name: str, workspace_id: str) -> int | None:
        """A seq, alone or as Commit-Seq (`<workspace>:<seq>`) or the id of a streamed event has it."""
        value = self.values.get(name)
        if isinstance(value, str) and ":" in value:
            place, _, value = value.rpartition(":")
            if place != workspace_id:
                self.fault(name, "other_workspace", f"{name} is a position in the log of another workspace.")
                return None
        if isinstance(value, str) and (found := _POSITION.fullmatch(value)):
            self.generations[name] = int(found[1]) if found[1] else None
            value = int(found[2])
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            self.fault(name, "invalid_format", f"{name} is the seq of an event, such as 123.")
            return None
        return value

    def beginning(self, workspace_id: str) -> int | None:
        """Behind which seq a stream begins; None for what happens from now on, which `latest` says, too."""
        return None if self.values.get("after") == "latest" else self.position("after", workspace_id)

    def wanted(
        self, tx: Tx, principal: Principal, secret: bytes, types_name: str = "types", *, lasting: bool = True
    ) -> EventSelection:
        """Which events; look at the faults afterwards. `lasting`: of those to come, too, not of one page only."""
        types = self.types(types_name)
        workspace_id = self.workspace(principal)
        project_id, object_id = self.text("project_id"), self.text("object_id")
        if project_id is not None and query.resolve(tx, principal, "project", project_id) is None:
            detail = query.absence(tx, principal, REGISTRY["project"], project_id)
            self.fault("project_id", "unknown_reference", detail)
        if object_id is not None and not any(ids.is_id(object_id, kind.prefix) for kind in REGISTRY.values()):
            self.fault("object_id", "invalid_format", "object_id is the id of a task, a project or the like.")
        condition = self._condition(tx, principal, secret, types, types_name)
        if condition is not None and lasting and (refusal := filters.subscription_refusal(self._document)):
            self.fault("filter", "too_expensive", refusal)
        return EventSelection(workspace_id, types, project_id, object_id, condition)

    def _condition(
        self, tx: Tx, principal: Principal, secret: bytes, types: frozenset[str] | None, types_name: str
    ) -> tuple[Resource, Node] | None:
        document = self.values.get("filter")
        if document is None:
            return None
        resources = {events.catalogue()[name].resource.name for name in types or events.catalogue()}
        if len(resources) > 1:
            detail = f"A filter looks at one kind of object: name it in {types_name}, for example task.*."
            self.fault("filter", "not_allowed", detail)
            return None
        resource = REGISTRY[resources.pop()]
        if not self.typed:
            try:
                document = decode_strict(str(document).encode())
            except Faulty as error:
                self.fault("filter", "malformed_json", f"filter={{...}} must be one JSON document. {error}")
                return None
        self._document = document
        parsed = parsed_query(tx, principal, resource, secret, {"filter": document}, self)
        return None if parsed is None or parsed.where == filters.EVERYTHING else (resource, parsed.where)


def parsed_query(
    tx: Tx, principal: Principal, resource: Resource, secret: bytes, body: Any, reading: Reading
) -> query.Query | None:
    """A list request that means the same at any time; otherwise the faults are noted."""
    try:
        parsed = query.parse(tx, principal, resource, secret, [], body, strict=False)
    except InvalidQuery as error:
        for issue in error.errors:
            if reading.typed:
                reading.issues.append(issue)
            else:
                reading.fault("filter", issue.code, f"{issue.detail} (at {issue.pointer or 'the top'})")
        return None
    if not parsed.lasting:
        detail = "today, -7d and the like mean something else tomorrow; a filter that lasts needs a date."
        reading.fault("filter", "not_allowed", detail)
        return None
    return parsed


def parameters(call: Call, allowed: Iterable[str]) -> Reading:
    """Those of a request."""
    tree = filters.tree_of(call.pairs())
    # `types[0]=...` is a list by now; what was repeated is one, too.
    values = {
        name: value["$eq"] if isinstance(value, dict) and set(value) == {"$eq"} else value
        for name, value in tree.items()
    }
    return Reading(values, allowed)


def check_position(tx: Tx, workspace_id: str, after: int, generation: int | None) -> tuple[int, int]:
    """The bounds of a log, once `after` lies within it.

    `generation` is the one that the position says it is from, None if it does not say so. Gone if the log no longer
    reaches back so far, or if the position is not from this log: as after a restore from a backup that was older.
    """
    first, head = log.bounds(tx, workspace_id)
    if after > head or (generation is not None and generation != log.generation(tx)):
        why = f"The log of {workspace_id} ends at {head}, and {after} is not from there: some changes were lost."
    elif after + 1 < first:
        why = f"The log of {workspace_id} begins at {first} by now."
    else:
        return first, head
    raise Gone(f"{why} Read everything again, then go on after {head}.", extra={"first_seq": first, "seq": head})
