"""What a trigger that waits for times of objects means for one object: whether it is about it, and when it is due.

A `date` is due so long before or after a date of the object. In one without a time, and if the trigger says `at`, it
goes by the day in the automation's zone; a time of day that the clocks skip is the first moment behind the gap, one
that comes twice the first. `idle` is due so long after the last event about a task or a comment on it, `held` so long
after the event since which a filter has been true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as time_of_day
from functools import lru_cache
from typing import Any, Final

from taskade_server.domain.automations.rights import zone_of
from taskade_server.domain.automations.timing.checks import CUSTOM, PLACES
from taskade_server.engine import filters
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.engine.subscriptions import Condition
from taskade_server.kit import durations, json, time, zones
from taskade_server.kit.budget import Budget
from taskade_server.kit.durations import Duration
from taskade_server.kit.zones import Zone

LASTING: Final = ("idle", "held")
OF_OBJECTS: Final = ("date", *LASTING)
"""The kinds of triggers that have a timer for each object."""
NOTHING: Final = Duration()


@dataclass(slots=True)
class Watch:
    """A trigger of one of these kinds, ready to be compared with objects. `tree` is its filter; a date has none."""

    document: dict[str, Any]
    version: int
    resource: Resource
    tree: filters.Node | None
    zone: Zone
    principal: Principal

    @property
    def kind(self) -> str:
        """Which kind of trigger it is."""
        return str(self.document["trigger"]["on"])

    @property
    def trigger(self) -> dict[str, Any]:
        """The trigger's document."""
        found: dict[str, Any] = self.document["trigger"]
        return found

    def fits(self, document: dict[str, Any], budget: Budget) -> bool:
        """Whether it waits for anything about an object as this document has it."""
        project = self.document["project_id"]
        if document.get("deleted_at") is not None:
            return False
        if project is not None and project != document["id" if self.resource.name == "project" else "project_id"]:
            return False
        if self.kind == "date":
            return document.get("completed_at") is None and document.get("archived_at") is None
        return self.tree is not None and filters.holds(self.tree, filters.Facts(self.resource, document), budget)

    def date(self, document: dict[str, Any]) -> int | None:
        """When the date of an object is due (epoch ms); None if it has none."""
        name = self.trigger["field"]
        value = (
            (document["custom_fields"] or {}).get(name[len(CUSTOM) :]) if name.startswith(CUSTOM) else document[name]
        )
        if not isinstance(value, str):
            return None
        try:
            moment = time.parse_ms(value)
        except ValueError:
            return None
        offset = durations.parse(self.trigger.get("offset") or "P0D") or NOTHING
        at = self.trigger.get("at")
        if not time.is_date(value) and at is None:
            return offset.after(moment, self.zone)
        day = time.day(value) if time.is_date(value) else zones.day_of(moment, self.zone)
        shown = time_of_day(int(at[:2]), int(at[3:])) if at is not None else time_of_day()
        try:
            there = time.add_months(day, offset.months) + timedelta(days=offset.days)
        except OverflowError:
            return None
        return zones.first_moment(datetime.combine(there, shown), self.zone) + offset.seconds * 1000

    def after(self, since: int) -> int:
        """When what has lasted since a moment has lasted for long enough (epoch ms)."""
        return (durations.parse(self.trigger["for"]) or NOTHING).after(since, self.zone)

    def is_own(self, origin: str | None) -> bool:
        """Whether an event with this `origin` is a change that the automation itself led to, and does not count."""
        found = json.decode(origin) if origin else {}
        if self.document["reentrant"] or found.get("type") != "automation":
            return False
        return self.document["id"] in (*found.get("chain", ()), found["automation_id"])


def watch_of(document: dict[str, Any], version: int, principal: Principal) -> Watch | None:
    """The trigger of an automation; None if it is not one that waits for times of objects."""
    trigger = document["trigger"]
    if trigger["on"] not in OF_OBJECTS:
        return None
    resource = REGISTRY[PLACES[trigger.get("in", "tasks")]]
    zone = zone_of(document, principal)
    tree = None
    if trigger["on"] in LASTING:
        tree = _tree(json.encode(trigger["filter"]), resource.name, str(zone))
    return Watch(document, version, resource, tree, zone, principal)


@lru_cache(512)
def _tree(document: str, name: str, zone: str) -> filters.Node | None:
    """A filter of a resource from its JSON text; it names no relative times, so that it means the same tomorrow."""
    resource = REGISTRY[name]
    return Condition(json.decode(document), types_of(resource)).trees(zone=zone).nodes.get(name)


def patterns(trigger: dict[str, Any]) -> list[str]:
    """The types of events that may change when such a trigger is due; empty for other triggers.

    Those that say more narrowly what another one tells of are not among them.
    """
    if trigger["on"] not in OF_OBJECTS:
        return []
    kinds = [REGISTRY[PLACES[trigger.get("in", "tasks")]]]
    if trigger["on"] == "idle":
        kinds.append(REGISTRY["comment"])
    return [name for kind in kinds for name in types_of(kind)]


def types_of(resource: Resource) -> Sequence[str]:
    """The general types of events about a resource."""
    return [resource.event_type(action) for action in resource.actions]


def document_of(event: Event) -> dict[str, Any]:
    """What an event tells of, with every member that its resource has by now."""
    return {**dict.fromkeys(REGISTRY[event.resource].fields), **json.decode(event.data)}
