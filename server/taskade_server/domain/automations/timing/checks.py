"""What may be wrong with a trigger that time starts."""

import re
from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain.automations.checking import Checking
from taskade_server.engine import query
from taskade_server.engine.model import CUSTOM_KEY, REGISTRY
from taskade_server.engine.subscriptions import Condition
from taskade_server.kit import durations, json, schedules, time, zones
from taskade_server.kit.errors import Issue, Problem, did_you_mean

CUSTOM: Final = "custom_fields."
PLACES: Final[Mapping[str, str]] = {"tasks": "task", "projects": "project"}
"""What `in` may name, each with its resource."""
DATES: Final = ("due_date", "start_date")
MAX_OBJECTS: Final = 1_000
"""For how many objects a schedule starts a run each time."""
_AT: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)

SCHEDULE_MEMBERS: Final = (*schedules.MEMBERS, "each")
DATE_MEMBERS: Final = ("in", "field", "offset", "at", "existing")
IDLE_MEMBERS: Final = ("filter", "for", "existing")
HELD_MEMBERS: Final = ("in", "filter", "for", "existing")


def check_schedule(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    """Note what is wrong with cron or a rule, and with the filter of `each`."""
    own = {name: value for name, value in trigger.items() if name in schedules.MEMBERS}
    faults = schedules.check(own, "/trigger")
    _note(checking, faults)
    if not faults and schedules.Schedule.of(own, zones.DEFAULT).next(time.now_ms()) is None:
        checking.fault("/trigger", "out_of_range", "This schedule never runs again: give a later UNTIL, or none.")
    each = trigger.get("each")
    checking.known.discard("event")
    if each is None:
        checking.known.discard("now")
        return ()
    if not isinstance(each, dict):
        detail = 'each says for which objects a run is started: {"in": "tasks", "filter": {"status": "review"}}.'
        checking.fault("/trigger/each", "wrong_type", detail)
        return ()
    checking.members(each, "/trigger/each", ("in", "filter"), "each")
    if _check_place(checking, {"in": each.get("in")}, "/trigger/each"):
        _check_list(checking, PLACES[each["in"]], each.get("filter"))
    return ()


def check_date(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    """Note what is wrong with the field, the offset and the time of day."""
    checking.known.discard("event")
    _check_place(checking, trigger)
    _check_existing(checking, trigger)
    name = trigger.get("field")
    if not isinstance(name, str) or not _is_date(name):
        allowed = (*DATES, f"{CUSTOM}KEY")
        detail = f"field is the member with the date: {', '.join(allowed)}.{did_you_mean(str(name)[:80], allowed)}"
        checking.fault("/trigger/field", "required" if name is None else "not_allowed", detail)
    elif name.startswith(CUSTOM):
        _check_custom(checking, name.removeprefix(CUSTOM))
    offset = trigger.get("offset")
    faults = [] if offset is None else durations.check(offset, "/trigger/offset", negative=True)
    _note(checking, faults)
    at = trigger.get("at")
    if at is None:
        return ()
    if not isinstance(at, str) or not _AT.fullmatch(at):
        short = f' Write "0{at[:4]}".' if isinstance(at, str) and _AT.fullmatch(f"0{at}") else ""
        detail = f'at is a time of day as HH:MM, from "00:00" to "23:59".{short}'
        checking.fault("/trigger/at", "invalid_format", detail)
    elif offset is not None and not faults and (found := durations.parse(offset)) is not None and found.seconds:
        detail = "at is the time of day, so the offset has days, weeks or months only; leave at out, or the hours."
        checking.fault("/trigger/at", "not_allowed", detail)
    return ()


def check_idle(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    """Note what is wrong with the filter and the duration."""
    _check_place(checking, {})
    _check_lasting(checking, trigger, "task")
    return ()


def check_held(checking: Checking, trigger: dict[str, Any]) -> tuple[str, ...]:
    """Note what is wrong with the place, the filter and the duration."""
    if _check_place(checking, trigger):
        _check_lasting(checking, trigger, PLACES[trigger.get("in", "tasks")])
    return ()


# ---- parts -----------------------------------------------------------------------------------------------------------


def _note(checking: Checking, faults: list[Issue]) -> None:
    for issue in faults:
        checking.fault(issue.pointer or "", issue.code, issue.detail)


def _is_date(name: str) -> bool:
    return name in DATES or (name.startswith(CUSTOM) and re.fullmatch(CUSTOM_KEY, name[len(CUSTOM) :]) is not None)


def _check_place(checking: Checking, document: dict[str, Any], pointer: str = "/trigger") -> bool:
    """Whether `in` names a kind of objects, which the automation has to be able to read."""
    place = document.get("in", "tasks")
    if not checking.choice(place, f"{pointer}/in", tuple(PLACES), "in"):
        return False
    if not checking.context.principal.allows(f"{place}:read"):
        detail = f"The automation acts with this API key, which may not read {place}: give it the scope {place}:read."
        checking.fault(f"{pointer}/in", "not_allowed", detail)
    return True


def _check_existing(checking: Checking, trigger: dict[str, Any]) -> None:
    if trigger.get("existing") is not None:
        checking.choice(trigger["existing"], "/trigger/existing", ("skip", "run"), "existing")


def _check_custom(checking: Checking, key: str) -> None:
    """The fault of a key that the automation's project defines as something else than a date."""
    project = None
    if checking.project_id is not None:
        project = query.get(checking.tx, checking.context.principal, REGISTRY["project"], checking.project_id)
    if project is None:
        return
    defined = {field["key"]: field["type"] for field in json.decode(project.document)["fields"]}
    if defined.get(key, "date") != "date":
        dates = [f"{CUSTOM}{name}" for name, kind in defined.items() if kind == "date"]
        detail = f"In this project {key} is a {defined[key]}, not a date. Dates: {', '.join([*DATES, *dates])}."
        checking.fault("/trigger/field", "wrong_type", detail)


def _check_lasting(checking: Checking, trigger: dict[str, Any], resource: str) -> None:
    """What `idle` and `held` have in common: a filter that only events can change, and how long."""
    checking.known.discard("event")
    _check_existing(checking, trigger)
    types = [f"{resource}.*"]
    before = len(checking.issues)
    trigger["filter"] = checking.condition(trigger.get("filter"), "/trigger/filter", types)
    if len(checking.issues) == before and Condition(trigger["filter"], types).trees().relative:
        detail = (
            "This filter becomes true or false as time goes by, without an event; give dates, or put the comparison"
            " with today into `now`, which is asked when a run begins."
        )
        checking.fault("/trigger/filter", "not_allowed", detail)
    _note(checking, durations.check(trigger.get("for"), "/trigger/for"))
    found = durations.parse(trigger["for"]) if isinstance(trigger.get("for"), str) else None
    if found is not None and not (found.months or found.days or found.seconds):
        checking.fault("/trigger/for", "out_of_range", "for is at least a second: PT1S.")


def _check_list(checking: Checking, resource: str, document: Any) -> None:
    """The faults of a filter as lists take it."""
    if document is not None and not isinstance(document, dict):
        checking.fault("/trigger/each/filter", "wrong_type", "filter is a filter document, written as for lists.")
        return
    body = {"filter": document or {}, "limit": 1}
    try:
        query.parse(checking.tx, checking.context.principal, REGISTRY[resource], checking.context.secret, [], body)
    except Problem as error:
        for issue in error.errors:
            checking.fault(f"/trigger/each{issue.pointer or '/filter'}", issue.code, issue.detail)
