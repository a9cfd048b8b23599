"""What events do with timers: set, move and remove them, in the unit that moves the reader's cursor.

An event that changes nothing that a timer goes by leaves it alone: it may be due, and not have been looked at yet.
"""

from typing import Any

from taskade_server.domain.automations.timing.watch import Watch
from taskade_server.engine import query
from taskade_server.engine.log import Event
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Tx
from taskade_server.store.tables import timers
from taskade_server.store.tables.timers import Timer


def follow(tx: Tx, watch: Watch, event: Event, document: dict[str, Any], budget: Budget, now: int) -> None:
    """Do with the timer of an event's object what the event asks for; `document` is the event's `data`."""
    project = watch.document["project_id"]
    if project is not None and project not in (event.project_id, event.moved_from):
        return
    at = min(event.at, now)
    if watch.kind == "date":
        _follow_date(tx, watch, event, document, budget, at)
    elif watch.kind == "idle":
        _follow_idle(tx, watch, event, document, budget, at)
    else:
        _follow_held(tx, watch, event, document, budget, at)


def timer_of(
    watch: Watch, object_id: str, due: int, since: int, seq: int | None = None, pending: str | None = None
) -> Timer:
    """A timer of an object."""
    workspace_id = watch.document["workspace_id"]
    return Timer(watch.document["id"], object_id, workspace_id, watch.version, due, since, seq, pending)


def _remove(tx: Tx, watch: Watch, object_id: str) -> None:
    timers.remove(tx, watch.document["id"], object_id)


def _follow_date(tx: Tx, watch: Watch, event: Event, document: dict[str, Any], budget: Budget, at: int) -> None:
    due = watch.date(document) if watch.fits(document, budget) else None
    before = _before(event, document)
    if before is not None and watch.fits(before, budget) and due is not None and watch.date(before) == due:
        return
    if due is None or due <= at:
        _remove(tx, watch, event.object_id)
    else:
        timers.put(tx, timer_of(watch, event.object_id, due, at))


def _follow_idle(tx: Tx, watch: Watch, event: Event, document: dict[str, Any], budget: Budget, at: int) -> None:
    task_id = event.object_id
    if event.resource == "comment":
        task_id = document["task_id"]
        found = query.get(tx, watch.principal, watch.resource, task_id)
        if found is None:
            return
        document = json.decode(found.document)
    if not watch.fits(document, budget):
        _remove(tx, watch, task_id)
    elif not event.type.endswith(".purged") and not watch.is_own(event.origin):
        timers.put(tx, timer_of(watch, task_id, watch.after(at), at, event.seq))


def _follow_held(tx: Tx, watch: Watch, event: Event, document: dict[str, Any], budget: Budget, at: int) -> None:
    if not watch.fits(document, budget):
        _remove(tx, watch, event.object_id)
        return
    before = _before(event, document)
    if before is None or not watch.fits(before, budget):
        timers.put(tx, timer_of(watch, event.object_id, watch.after(at), at, event.seq))


def _before(event: Event, document: dict[str, Any]) -> dict[str, Any] | None:
    """The object before an event; None if there was none, or its past lies where the event does not tell of it."""
    return None if event.previous is None else {**document, **json.decode(event.previous)}
