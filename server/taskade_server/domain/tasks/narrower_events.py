"""The events that say more exactly what happened to a task than `task.created` and `task.updated`."""

from collections.abc import Mapping
from typing import Any


def events_of_creation(doc: Mapping[str, Any]) -> list[str]:
    return [*(["task.assigned"] if doc["assignee"] else []), *(["task.completed"] if doc["completed_at"] else [])]


def events_of_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    events = []
    if after["completed_at"] is not None and before["completed_at"] is None:
        events.append("task.completed")
    if after["completed_at"] is None and before["completed_at"] is not None:
        events.append("task.reopened")
    if after["assignee"] is not None and after["assignee"] != before["assignee"]:
        events.append("task.assigned")
    if any(after[name] != before[name] for name in ("project_id", "parent_id", "position")):
        events.append("task.moved")
    return events
