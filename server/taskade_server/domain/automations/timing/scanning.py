"""Timers of an automation that is new, was changed or was enabled: set for the objects that there are, page by page.

Why not when it is saved: a workspace may have a million tasks, and whoever saves a rule does not wait for them. What
happens meanwhile the reader of the log does, from the moment on at which the automation was saved.
"""

from typing import Any, Final

from taskade_server.domain.automations.rights import RightsLost, principal_of, zone_of
from taskade_server.domain.automations.timing.following import timer_of
from taskade_server.domain.automations.timing.history import held_since, last_activity
from taskade_server.domain.automations.timing.watch import OF_OBJECTS, Watch, watch_of
from taskade_server.engine import query
from taskade_server.engine.access import Principal
from taskade_server.kit import json, schedules, time
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import InvalidQuery
from taskade_server.kit.schedules import Schedule
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs, timers
from taskade_server.store.tables.timers import Scan, Timer

PAGE: Final = 100
"""How many objects are looked at in one unit."""
REMOVED_AT_ONCE: Final = 500
HELD_STEPS: Final = 1_000_000
"""How many steps comparing the past of one object with a filter may take."""
NO_VERSION: Final = -1
EXISTING: Final = json.encode({"existing": True})
"""What a timer has pending whose time had passed before the automation began to wait."""


def begin(tx: Tx, document: dict[str, Any], now: int, *, existing: bool) -> None:
    """Let an automation wait for times as it says now, and no longer as it said before.

    With `existing` it may also run for what is due already, if its trigger asks for that.
    """
    automation_id, workspace_id, version = document["id"], document["workspace_id"], document["version"]
    kind = document["trigger"]["on"]
    if (document["enabled"] and kind in OF_OBJECTS) or timers.has_any(tx, automation_id):
        runs_existing = int(existing and document["trigger"].get("existing") == "run")
        timers.begin_scan(tx, Scan(automation_id, workspace_id, version, runs_existing, now))
    if document["enabled"] and kind == "schedule":
        try:
            due = schedule_of(document, principal_of(tx, document)).next(now)
        except RightsLost:
            due = now  # whoever looks at it then ends the automation
        if due is not None:
            timers.put(tx, Timer(automation_id, "", workspace_id, version, due, now))


def end(tx: Tx, automation_id: str, workspace_id: str, now: int) -> None:
    """Let an automation that is no more wait for nothing."""
    if timers.has_any(tx, automation_id):
        timers.begin_scan(tx, Scan(automation_id, workspace_id, NO_VERSION, 0, now))


def look_again(tx: Tx, now: int) -> None:
    """Set timers of dates anew where there are none: by a clock that was ahead, they seemed to be over."""
    for version in runs.watching_versions(tx):
        if json.decode(version.doc)["trigger"]["on"] == "date":
            timers.begin_scan(tx, Scan(version.automation_id, version.workspace_id, version.version, 0, now))


def schedule_of(document: dict[str, Any], principal: Principal) -> Schedule:
    """The schedule of an automation, in its zone of now."""
    own = {name: document["trigger"].get(name) for name in schedules.MEMBERS}
    return Schedule.of(own, str(zone_of(document, principal)))


def scan(tx: Tx, secret: bytes, now: int, limit: int = PAGE) -> bool:
    """Look at the next objects for the automation whose turn it is; False if no automation waits for that."""
    found = timers.next_scan(tx)
    if found is None:
        return False
    version = runs.open_version(tx, found.automation_id)
    if found.position is None:
        holding = None if version is None else version.version
        if timers.remove_others(tx, found.automation_id, holding, REMOVED_AT_ONCE) == REMOVED_AT_ONCE:
            timers.move_scan(tx, found, None)
            return True
        timers.move_scan(tx, found, "")
        found = found._replace(position="")
    if version is None or version.version != found.version:
        timers.end_scan(tx, found)
        return True
    document = json.decode(version.doc)
    try:
        principal = principal_of(tx, document)
    except RightsLost:  # which ends it as soon as it would run
        timers.end_scan(tx, found)
        return True
    watch = watch_of(document, version.version, principal) if document["enabled"] else None
    if watch is not None and not principal.allows(f"{watch.resource.plural}:read"):
        watch = None
    position = None if watch is None else _page(tx, watch, found, secret, now, limit)
    if position is None:
        timers.end_scan(tx, found)
    else:
        timers.move_scan(tx, found, position)
    return True


def _page(tx: Tx, watch: Watch, found: Scan, secret: bytes, now: int, limit: int) -> str | None:
    """Set the timers of the next objects; returns a cursor of those behind them, None if there are none."""
    body = {"filter": _candidates(watch), "sort": "created_at", "limit": limit, "cursor": found.position or None}
    try:
        parsed = query.parse(tx, watch.principal, watch.resource, secret, [], body, strict=False)
    except InvalidQuery:
        if not found.position:
            raise
        return ""  # the cursor is from before the server's secret was changed
    page = query.run(tx, watch.principal, parsed, secret)
    fresh = [_timer(tx, watch, found, json.decode(document), now) for document in page.documents]
    timers.add(tx, [timer for timer in fresh if timer is not None])
    return page.cursor


def _candidates(watch: Watch) -> dict[str, Any]:
    """A filter of the objects that there may be a timer for."""
    document, own = watch.document, {"workspace_id": watch.document["workspace_id"]}
    if document["project_id"] is not None:
        own["id" if watch.resource.name == "project" else "project_id"] = document["project_id"]
    if watch.kind == "date":
        is_open = "archived_at" if watch.resource.name == "project" else "completed_at"
        return {**own, watch.trigger["field"]: {"$exists": True}, is_open: None}
    return {"$and": [own, watch.trigger["filter"]]}


def _timer(tx: Tx, watch: Watch, found: Scan, document: dict[str, Any], now: int) -> Timer | None:
    """The timer of one object; None if it waits for nothing about it."""
    object_id = document["id"]
    if not watch.fits(document, Budget(HELD_STEPS)):
        return None
    if watch.kind == "date":
        due = watch.date(document)
        if due is None or (due <= found.begun_at and not found.existing):
            return None
        is_past = due <= found.begun_at
        since = time.MIN_MS if is_past else min(found.begun_at, now)
        wake = max(due, found.begun_at)
        return timer_of(watch, object_id, wake, since, None, EXISTING if is_past else None)
    event = (
        last_activity(tx, watch, object_id)
        if watch.kind == "idle"
        else held_since(tx, watch, object_id, Budget(HELD_STEPS))
    )
    if event is None:
        return None
    since = min(event.at, now)
    due = watch.after(since)
    if due <= found.begun_at and not found.existing:
        return None
    return timer_of(watch, object_id, max(due, found.begun_at), since, event.seq)
