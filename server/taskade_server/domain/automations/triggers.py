"""What starts an automation: the kinds of triggers, and whether an event is one that a rule is about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.timing import checks
from taskade_server.engine import events, filters
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.engine.subscriptions import Condition
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.kit.zones import Zone
from taskade_server.store.database import Tx

CUSTOM: Final = "custom_fields."
MAX_CHANGED: Final = 10
MAX_VALUES: Final = 50
INPUT_KINDS: Final = ("text", "number", "boolean", "date", "id")


@dataclass(frozen=True, slots=True)
class TriggerKind:
    """One kind of trigger. `check` notes what is wrong with one, and says which event types it is about."""

    name: str
    members: tuple[str, ...]
    check: Callable[[Checking, dict[str, Any]], tuple[str, ...]]
    reads_log: bool
    """Whether events can start a run, or change when the next one starts."""


def check(checking: Checking, trigger: Any) -> None:
    """Note what is wrong with a trigger; afterwards `checking.types` are the events it is about."""
    if not isinstance(trigger, dict):
        return
    if not checking.choice(trigger.get("on"), "/trigger/on", tuple(KINDS), "on"):
        return
    kind = KINDS[trigger["on"]]
    checking.members(trigger, "/trigger", ("on", *kind.members), f"{kind.name} trigger")
    checking.types = kind.check(checking, trigger)


# ---- event -----------------------------------------------------------------------------------------------------------


def _check_event(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    if not checking.patterns(trigger.get("types"), "/trigger/types"):
        return ()
    types = tuple(trigger["types"])
    changed = trigger.get("changed")
    if changed is None:
        return types
    if not isinstance(changed, dict) or not 1 <= len(changed) <= MAX_CHANGED:
        detail = f'changed is an object of 1 to {MAX_CHANGED} members, such as {{"status": {{"to": ["review"]}}}}.'
        checking.fault("/trigger/changed", "wrong_type", detail)
        return types
    members = {name for kind in _resources(types) for name in kind.fields}
    for name, change in changed.items():
        _check_change(checking, name, change, members, types)
    return types


def _check_change(checking: Checking, name: str, change: Any, members: set[str], types: tuple[str, ...]) -> None:
    pointer = f"/trigger/changed/{escape_pointer(name)}"
    if name not in members and not (name.startswith(CUSTOM) and len(name) > len(CUSTOM)):
        checking.unknown(pointer, name, [*members, f"{CUSTOM}KEY"], "changed")
        return
    if not isinstance(change, dict):
        detail = 'Give {} for any change, or {"from": [...], "to": [...]} with the values that it had and has.'
        checking.fault(pointer, "wrong_type", detail)
        return
    checking.members(change, pointer, ("from", "to"), "change")
    for side in ("from", "to"):
        if side in change:
            values = change[side] if isinstance(change[side], list) else [change[side]]
            if not 1 <= len(values) <= MAX_VALUES:
                checking.fault(f"{pointer}/{side}", "too_many", f"Give 1 to {MAX_VALUES} values.")
                continue
            settled = [checking.condition({name: value}, f"{pointer}/{side}", types)[name] for value in values]
            change[side] = settled


def _resources(types: tuple[str, ...]) -> list[Resource]:
    kinds = {kind.resource.name for kind in events.catalogue().values() if events.fits(types, kind.name)}
    return [REGISTRY[name] for name in sorted(kinds)]


# ---- manual ----------------------------------------------------------------------------------------------------------


def _check_manual(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    members = trigger.get("input") or {}
    if not isinstance(members, dict) or len(members) > MAX_VALUES:
        detail = f'input is an object of at most {MAX_VALUES} members, such as {{"reason": "text"}}.'
        checking.fault("/trigger/input", "wrong_type", detail)
        return ()
    for name, kind in members.items():
        checking.choice(kind, f"/trigger/input/{escape_pointer(name)}", INPUT_KINDS, f"The kind of {name}")
    return ()


KINDS: Final[Mapping[str, TriggerKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            TriggerKind("event", ("types", "changed"), _check_event, reads_log=True),
            TriggerKind("manual", ("input",), _check_manual, reads_log=False),
            TriggerKind("schedule", checks.SCHEDULE_MEMBERS, checks.check_schedule, reads_log=False),
            TriggerKind("date", checks.DATE_MEMBERS, checks.check_date, reads_log=True),
            TriggerKind("idle", checks.IDLE_MEMBERS, checks.check_idle, reads_log=True),
            TriggerKind("held", checks.HELD_MEMBERS, checks.check_held, reads_log=True),
        )
    }
)
"""By the word that `on` has."""


# ---- changes ---------------------------------------------------------------------------------------------------------


class Changes:
    """Which members have to change for an event trigger, from what and to what; parsed once for many events."""

    def __init__(self, tx: Tx, changed: dict[str, Any], types: list[str], zone: Zone) -> None:
        self._changed = changed
        self._trees: dict[tuple[str, str], dict[str, filters.Node]] = {}
        for name, change in changed.items():
            for side in ("from", "to"):
                if side in change:
                    document = {"$or": [{name: value} for value in change[side]]}
                    self._trees[name, side] = Condition(document, types).trees(zone=str(zone)).nodes

    def happened(self, event: Event, document: dict[str, Any], budget: Budget) -> bool:
        """Whether an event, whose `data` is the document, tells of all these changes."""
        previous = json.decode(event.previous) if event.previous else {}
        return all(self._one(name, event, document, previous, budget) for name in self._changed)

    def _one(self, name: str, event: Event, document: dict[str, Any], previous: dict[str, Any], budget: Budget) -> bool:
        member, _, key = name.partition(".") if name.startswith(CUSTOM) else (name, "", "")
        created = event.previous is None
        if created:
            if document.get(member) in (None, [], {}) or (key and key not in document[member]):
                return False
            before = {**document, member: {} if key else None}
        elif member not in previous:
            return False
        else:
            before = {**document, **previous}
            if key and json.same(before[member].get(key), document[member].get(key)):
                return False
        return self._holds(name, "to", event.resource, document, budget) and self._holds(
            name, "from", event.resource, before, budget
        )

    def _holds(self, name: str, side: str, resource: str, document: dict[str, Any], budget: Budget) -> bool:
        trees = self._trees.get((name, side))
        if trees is None:
            return True
        tree = trees.get(resource)
        return tree is not None and filters.holds(tree, filters.Facts(REGISTRY[resource], document), budget)
