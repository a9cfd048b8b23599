"""Circles that automations may go in: what one changes may start another, and so on, back to the first.

By what their definitions say, so that it can be told before it happens. A run that such a circle leads to is skipped
when it comes (`starting.circle_of`); that it may come is told, and never refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.domain.automations.program import walk
from taskade_server.domain.automations.triggers import CUSTOM
from taskade_server.engine import events
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json

MAX_CIRCLES: Final = 20
_WRITES: Final = {"PATCH": "updated", "PUT": "updated", "DELETE": "deleted", "POST": "created"}
_NARROWER: Final = {
    "task.assigned": "assignee",
    "task.completed": "status",
    "task.reopened": "status",
    "task.moved": "project_id",
    "project.archived": "status",
    "project.unarchived": "status",
}
"""Types that only a change of some member has."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What an action may do: events of some types, and the members that it sets; None if they are not known."""

    pointer: str
    types: frozenset[str]
    members: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Circle:
    """A way from an action of an automation back to its trigger, through these automations in their order."""

    pointer: str
    automation_ids: tuple[str, ...]


def circles(automation: dict[str, Any], others: Sequence[dict[str, Any]]) -> list[Circle]:
    """The shortest circle that each action of an automation may begin, through the enabled ones of its workspace."""
    known = {one["id"]: one for one in others if one["enabled"]} | {automation["id"]: automation}
    leads = {name: frozenset(_next(one, known)) for name, one in known.items()}
    found: dict[str, Circle] = {}
    for effect in effects(automation):
        first = [name for name, other in known.items() if _starts(automation, effect, other)]
        way = _back(automation["id"], first, leads)
        if way is not None and effect.pointer not in found:
            found[effect.pointer] = Circle(effect.pointer, way)
    for pointer, name in _started(automation):
        way = _back(automation["id"], [name], leads) if name in known else None
        if way is not None and pointer not in found:
            found[pointer] = Circle(pointer, way)
    return list(found.values())[:MAX_CIRCLES]


def _back(name: str, first: Sequence[str], leads: dict[str, frozenset[str]]) -> tuple[str, ...] | None:
    """The shortest way from any of some automations to one of them, the first included; None if there is none."""
    ways: dict[str, tuple[str, ...]] = {one: (one,) for one in first}
    while ways:
        if name in ways:
            return ways[name]
        further: dict[str, tuple[str, ...]] = {}
        for one, way in ways.items():
            if len(way) <= len(leads):
                for other in sorted(leads[one]):
                    if other not in way:
                        further.setdefault(other, (*way, other))
        ways = further
    return None


def _next(automation: dict[str, Any], known: dict[str, dict[str, Any]]) -> Iterator[str]:
    for effect in effects(automation):
        yield from (name for name, other in known.items() if _starts(automation, effect, other))
    yield from (name for _, name in _started(automation) if name in known)


def _started(automation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The automations that the actions of one start by name."""
    for action, pointer in walk(automation["actions"]):
        if action["do"] == "run":
            yield pointer, action["automation_id"]


def effects(automation: dict[str, Any]) -> Iterator[Effect]:
    """What the operations of an automation may do."""
    for action, pointer in walk(automation["actions"]):
        for index, operation in enumerate(action.get("operations") or ()):
            effect = _effect(operation, f"{pointer}/operations/{index}")
            if effect is not None:
                yield effect


def _effect(operation: dict[str, Any], pointer: str) -> Effect | None:
    method = operation["method"].upper()
    parts = operation["path"].removeprefix("/v1").partition("?")[0].strip("/").split("/")
    resource = next((one for one in REGISTRY.values() if one.plural == parts[0]), None)
    if resource is None or method not in _WRITES:
        return None
    plain = len(parts) == (1 if method == "POST" else 2)
    body = operation.get("body")
    if not plain or not isinstance(body, dict | None):
        # Bulk operations, moves, members: whatever may happen to it.
        return Effect(
            pointer, frozenset(name for name, kind in events.catalogue().items() if kind.resource is resource)
        )
    action = _WRITES[method]
    return Effect(pointer, frozenset(_types(resource, action, body or {})), body or {})


def _types(resource: Resource, action: str, body: dict[str, Any]) -> Iterator[str]:
    yield resource.event_type(action)
    if action in ("created", "updated"):
        for name in resource.narrower_events:
            if _NARROWER.get(name) is None or _NARROWER[name] in body:
                yield name


def _starts(automation: dict[str, Any], effect: Effect, other: dict[str, Any]) -> bool:
    """Whether an effect may be what another automation waits for, as far as its trigger tells."""
    trigger, places = other["trigger"], {automation["project_id"], other["project_id"]} - {None}
    if trigger["on"] != "event" or len(places) > 1:
        return False
    if not any(events.fits(trigger["types"], name) for name in effect.types):
        return False
    changed = trigger.get("changed") or {}
    return effect.members is None or all(_sets(effect.members, name, change) for name, change in changed.items())


def _sets(members: dict[str, Any], name: str, change: dict[str, Any]) -> bool:
    """Whether a body may change a member to what a trigger asks for."""
    member = CUSTOM.removesuffix(".") if name.startswith(CUSTOM) else name
    if member not in members:
        return False
    value, wanted = members[member], change.get("to")
    if wanted is None or isinstance(value, dict | list) or (isinstance(value, str) and "$ref" in value):
        return True
    return any(isinstance(one, dict | list) or json.same(one, value) for one in wanted)
