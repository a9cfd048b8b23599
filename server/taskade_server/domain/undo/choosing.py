"""From events to the changes behind them, with what belongs to those."""

from collections.abc import Container, Iterable
from typing import Any, Final

from taskade_server.domain import tasks
from taskade_server.domain.undo.changes import Step, action_of, cannot_be_undone
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.kit import json
from taskade_server.store.database import Tx

MAX_EVENTS: Final = 10_000
"""How many events of one request are looked at: more than the largest bulk request or batch makes."""


def changes_behind(tx: Tx, found: Iterable[Event]) -> list[Step]:
    """The changes behind events, oldest first, each once: `task.completed` stands for the change that it came with."""
    steps: dict[str, Step] = {}
    for event in found:
        general = event
        if action_of(event) is None:
            near = log.select(
                tx, event.workspace_id, event.seq - 8, event.seq, limit=8, descending=True, object_id=event.object_id
            )
            general = next((other for other in near if action_of(other) and other.data == event.data), event)
        action = action_of(general)
        if action is None or action == "purged":
            raise cannot_be_undone(event, "what was removed for good cannot be brought back")
        steps[general.id] = Step(general, action)
    made: dict[str, dict[str, tuple[Event, dict[str, Any]]]] = {}
    for step in list(steps.values()):
        event = step.event
        rule = _given_rule(event)
        if rule is None or event.request_id is None:
            continue
        if event.request_id not in made:
            made[event.request_id] = _made_by(tx, event.request_id, steps)
        data = json.decode(event.data)
        for successor, doc in made[event.request_id].values():
            if successor.seq > event.seq and tasks.is_successor(doc, data, rule):
                for one in _with_subtasks(successor, doc, made[event.request_id].values()):
                    steps[one.id] = Step(one, "created")
                    del made[event.request_id][one.id]
                break
    return sorted(steps.values(), key=lambda step: (step.event.workspace_id, step.event.seq))


def _given_rule(event: Event) -> str | None:
    """The recurrence that a task handed on to the next occurrence when it was completed; None if it did not.

    The two are one change: undone without the other, the series would go on twice.
    """
    if event.resource != tasks.TASK.name:
        return None
    rule, data = json.decode(event.previous or "{}").get("recurrence"), json.decode(event.data)
    return str(rule) if rule and not data["recurrence"] and data["completed_at"] else None


def _made_by(tx: Tx, request_id: str, known: Container[str]) -> dict[str, tuple[Event, dict[str, Any]]]:
    """The events of a request that made tasks, by id, with the tasks; without those that are known."""
    found, _ = log.of_request(tx, request_id, MAX_EVENTS)
    made = tasks.TASK.event_type("created")
    return {
        event.id: (event, json.decode(event.data)) for event in found if event.type == made and event.id not in known
    }


def _with_subtasks(event: Event, doc: dict[str, Any], made: Iterable[tuple[Event, dict[str, Any]]]) -> list[Event]:
    """The event that made a task, and those that made the tasks below it in the same request."""
    names, found = {doc["id"]}, [event]
    for other, task in sorted(made, key=lambda one: one[0].seq):
        if task["parent_id"] in names:
            names.add(task["id"])
            found.append(other)
    return found
