"""Timers that are due: each one starts a run in the transaction that moves or removes it, so once, whatever happens.

A schedule and a date name moments. Those that passed while no server ran are missed: `catch_up` says which of the last
day run all the same, and what is left out is put on record as one skipped run. `idle` and `held` name what still is so:
it is looked at in the log whether it is, and then they run, however late.

A timer is compared with the object, and the log, as they are: the reader may not have come so far.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.domain.automations import starting
from taskade_server.domain.automations.rights import RightsLost, principal_of
from taskade_server.domain.automations.starting import Cause
from taskade_server.domain.automations.timing import scanning
from taskade_server.domain.automations.timing.checks import MAX_OBJECTS, PLACES
from taskade_server.domain.automations.timing.following import timer_of
from taskade_server.domain.automations.timing.history import is_held, last_activity
from taskade_server.domain.automations.timing.scanning import EXISTING, schedule_of
from taskade_server.domain.automations.timing.watch import Watch, watch_of
from taskade_server.engine import query
from taskade_server.engine.access import Principal
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json, time
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import Problem
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs, timers
from taskade_server.store.tables.timers import Timer

LATE_MS: Final = 60_000
"""What is later by no more was not missed: others may have had to take over first."""
CATCH_UP_MS: Final = time.DAY_MS
MAX_CATCH_UP: Final = 100
MAX_MOMENTS: Final = 1_441
"""How many times a schedule has in a day at most, with both of its ends."""
OBJECTS_AT_ONCE: Final = 50
"""For how many objects one unit starts runs."""
HELD_STEPS: Final = 1_000_000

MISSED: Final = "missed"
TOO_MANY: Final = "too_many"


@dataclass(slots=True)
class Firing:
    """What firing some timers has come to: how many runs it has started, and whose automations may do nothing more."""

    watched: int
    """Since when (epoch ms) it was looked again and again for what is due."""
    started: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    """Why an automation may do nothing any more, by its id."""
    _known: dict[str, tuple[int, dict[str, Any], Principal] | None] = field(default_factory=dict)

    def automation(self, tx: Tx, timer: Timer) -> tuple[dict[str, Any], Principal] | None:
        """The automation of a timer and whom it acts for; None if the timer is of an earlier version, or it is lost."""
        name = timer.automation_id
        if name not in self._known:
            version = runs.open_version(tx, name)
            document = {"enabled": False} if version is None else json.decode(version.doc)
            self._known[name] = None
            if version is not None and document["enabled"]:
                try:
                    self._known[name] = version.version, document, principal_of(tx, document)
                except RightsLost as error:
                    self.lost[name] = str(error)
        known = self._known[name]
        return None if known is None or known[0] != timer.version else known[1:]


def fire(tx: Tx, firing: Firing, automation_id: str, object_id: str, now: int) -> None:
    """Do what one timer asks for, if it is due."""
    timer = timers.find(tx, automation_id, object_id, lock=True)
    if timer is None or timer.due_at > now:
        return
    found = firing.automation(tx, timer)
    if found is None:
        timers.remove(tx, automation_id, object_id)
        return
    document, principal = found
    if document["trigger"]["on"] == "schedule":
        _fire_schedule(tx, firing, timer, document, principal, now)
        return
    watch, row = watch_of(document, timer.version, principal), None
    if watch is not None and principal.allows(f"{watch.resource.plural}:read"):
        row = query.get(tx, principal, watch.resource, object_id)
    shown = None if row is None else json.decode(row.document)
    budget = Budget(HELD_STEPS)
    if watch is None or shown is None or not watch.fits(shown, budget):
        timers.remove(tx, automation_id, object_id)
    elif watch.kind == "date":
        _fire_date(tx, firing, watch, timer, shown, now)
    elif watch.kind == "idle":
        _fire_idle(tx, firing, watch, timer, shown, now)
    else:
        _fire_held(tx, firing, watch, timer, shown, budget, now)


def correct_times(tx: Tx, now: int, *, stepped: bool = False) -> int:
    """Let what counts from a time to come, as the clock was ahead, count from now. Returns how many timers did.

    If the clock was ahead (`stepped`, or it shows), dates that seemed to be over are looked for again.
    """
    corrected = timers.correct_times(tx, now)
    for timer in timers.schedules_ahead(tx, now):
        found = Firing(now).automation(tx, timer)
        due = now if found is None else schedule_of(*found).next(now)
        if due is None:
            timers.remove(tx, timer.automation_id, "")
        else:
            timers.put(tx, timer._replace(due_at=now if timer.pending else due, since=now))
        corrected += 1
    if corrected or stepped:
        scanning.look_again(tx, now)
    return corrected


def _start(tx: Tx, firing: Firing, document: dict[str, Any], version: int, cause: Cause, now: int) -> None:
    """Start a run, if the cause has not started one before."""
    if not runs.has_cause(tx, document["id"], cause.name):
        starting.start(tx, document, version, cause, now)
        firing.started += 1


# ---- objects ---------------------------------------------------------------------------------------------------------


def _cause(watch: Watch, shown: dict[str, Any], name: int, due: int, since: int | None = None) -> Cause:
    project = shown["id"] if watch.resource.name == "project" else shown["project_id"]
    given = {"due": time.format_ms(due), **({} if since is None else {"since": time.format_ms(since)})}
    return Cause(f"{watch.kind}:{shown['id']}:{name}", due, object_id=shown["id"], project_id=project, input=given)


def _fire_date(tx: Tx, firing: Firing, watch: Watch, timer: Timer, shown: dict[str, Any], now: int) -> None:
    due = watch.date(shown)
    if due is not None and due > now:
        timers.put(tx, timer._replace(due_at=due, pending=None))
        return
    timers.remove(tx, timer.automation_id, timer.object_id)
    if due is None or due <= timer.since:
        return
    cause, document = _cause(watch, shown, due, due), watch.document
    missed = due < firing.watched - LATE_MS and timer.pending != EXISTING
    if not missed or (document["catch_up"] != "skip" and due > now - CATCH_UP_MS):
        _start(tx, firing, document, timer.version, cause, now)
    else:
        detail = f"It was due at {time.format_ms(due)}, when no server ran."
        starting.skip(tx, document, timer.version, cause, now, (MISSED, detail))


def _fire_idle(tx: Tx, firing: Firing, watch: Watch, timer: Timer, shown: dict[str, Any], now: int) -> None:
    event = last_activity(tx, watch, timer.object_id, timer.seq or 0)
    if event is not None:
        since = min(event.at, now)
        due = watch.after(since)
        timers.put(tx, timer_of(watch, timer.object_id, due, since, event.seq))
        return
    timers.remove(tx, timer.automation_id, timer.object_id)
    cause = _cause(watch, shown, timer.seq or 0, timer.due_at, timer.since)
    _start(tx, firing, watch.document, timer.version, cause, now)


def _fire_held(
    tx: Tx, firing: Firing, watch: Watch, timer: Timer, shown: dict[str, Any], budget: Budget, now: int
) -> None:
    timers.remove(tx, timer.automation_id, timer.object_id)
    seq = timer.seq or 0
    if is_held(tx, watch, timer.object_id, seq, budget):  # otherwise the reader will come to where it is true again
        cause = _cause(watch, shown, seq, timer.due_at, timer.since)
        _start(tx, firing, watch.document, timer.version, cause, now)


# ---- schedules -------------------------------------------------------------------------------------------------------


def _fire_schedule(
    tx: Tx, firing: Firing, timer: Timer, document: dict[str, Any], principal: Principal, now: int
) -> None:
    schedule = schedule_of(document, principal)
    if timer.pending is not None:
        pending = json.decode(timer.pending)
    else:
        older = schedule.between(timer.since, now - CATCH_UP_MS, MAX_MOMENTS)
        recent = schedule.between(max(timer.since, now - CATCH_UP_MS), now, MAX_MOMENTS)
        chosen = chosen_of(recent, document["catch_up"], firing.watched - LATE_MS)
        if left := [*older, *sorted({*recent} - {*chosen})]:
            _skip(tx, document, timer, left, now)
        timer = timer._replace(since=now)
        pending = {"moments": chosen}
        if document["trigger"].get("each") is None:
            for moment in chosen:
                cause = Cause(f"schedule:{moment}", moment, input={"due": time.format_ms(moment)})
                _start(tx, firing, document, timer.version, cause, now)
            pending = {"moments": []}
    if pending["moments"]:
        pending = _start_each(tx, firing, timer, document, principal, pending, now)
    if pending["moments"]:
        timers.put(tx, timer._replace(due_at=now, pending=json.encode(pending)))
        return
    due = schedule.next(timer.since)
    if due is None:
        timers.remove(tx, timer.automation_id, "")
    else:
        timers.put(tx, timer._replace(due_at=due, pending=None))


def chosen_of(moments: list[int], catch_up: str, watched: int) -> list[int]:
    """Those of the times that have come that are to run: what was missed, before `watched`, as `catch_up` says."""
    missed = [moment for moment in moments if moment < watched]
    fresh = moments[len(missed) :]
    if catch_up == "all":
        return moments[-MAX_CATCH_UP:] if missed else fresh
    if catch_up == "latest" and not fresh:
        return missed[-1:]
    return fresh


def _skip(tx: Tx, document: dict[str, Any], timer: Timer, left: list[int], now: int) -> None:
    """Put on record which times of a schedule were left out, the oldest of them if there are very many."""
    first, last = time.format_ms(left[0]), time.format_ms(left[-1])
    count = f"{len(left):,} times" if len(left) < MAX_MOMENTS else f"{len(left):,} times or more"
    detail = (
        f"{count} from {first} to {last} were missed, as no server ran; catch_up is {document['catch_up']}."
        if len(left) > 1
        else f"It was due at {first}, when no server ran; catch_up is {document['catch_up']}."
    )
    starting.skip(tx, document, timer.version, Cause(f"schedule:{left[0]}:{MISSED}", left[0]), now, (MISSED, detail))


def _start_each(
    tx: Tx,
    firing: Firing,
    timer: Timer,
    document: dict[str, Any],
    principal: Principal,
    pending: dict[str, Any],
    now: int,
) -> dict[str, Any]:
    """Start the runs of a schedule's time for the next objects; returns what is left to do."""
    moment = pending["moments"][0]
    resource = REGISTRY[PLACES[document["trigger"]["each"]["in"]]]
    found = pending.get("ids")
    if found is None:
        found = _objects(tx, timer, document, principal, moment, now)
    for object_id in found[:OBJECTS_AT_ONCE]:
        row = query.get(tx, principal, resource, object_id)
        if row is not None:
            given = {"due": time.format_ms(moment)}
            name = f"schedule:{moment}:{object_id}"
            cause = Cause(name, moment, object_id=object_id, project_id=row.project_id, input=given)
            _start(tx, firing, document, timer.version, cause, now)
    left = found[OBJECTS_AT_ONCE:]
    return {"moments": pending["moments"], "ids": left} if left else {"moments": pending["moments"][1:]}


def _objects(tx: Tx, timer: Timer, document: dict[str, Any], principal: Principal, moment: int, now: int) -> list[str]:
    """The objects for which a schedule starts runs; what is wrong with their filter, or left out, is put on record."""
    each = document["trigger"]["each"]
    resource = REGISTRY[PLACES[each["in"]]]
    own = {"workspace_id": document["workspace_id"]}
    if document["project_id"] is not None:
        own["id" if resource.name == "project" else "project_id"] = document["project_id"]
    body = {"filter": {"$and": [own, each["filter"]]} if each.get("filter") else own}
    cause = Cause(f"schedule:{moment}:each", moment)
    if not principal.allows(f"{resource.plural}:read"):
        detail = f"The API key of the automation may not read {resource.plural}."
        starting.skip(tx, document, timer.version, cause, now, ("rights", detail))
        return []
    try:
        parsed = query.parse(tx, principal, resource, b"", [], body, strict=False)
    except Problem as error:
        reasons = " ".join(issue.detail for issue in error.errors) or error.detail
        detail = f"The filter of each can no longer be used: {reasons}"[:2_000]
        starting.skip(tx, document, timer.version, cause, now, ("filter_invalid", detail))
        return []
    found = query.select_ids(tx, principal, parsed, MAX_OBJECTS)
    if len(found) > MAX_OBJECTS:
        detail = f"The filter fits more than {MAX_OBJECTS:,} objects; for the others no run was started."
        starting.skip(tx, document, timer.version, cause, now, (TOO_MANY, detail))
    return found[:MAX_OBJECTS]
