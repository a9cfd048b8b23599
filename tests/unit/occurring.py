"""Completes a task in thought: when a rule makes it due again."""

from datetime import UTC
from typing import Any

from taskade_server.domain import occurrences
from taskade_server.domain.occurrences import Occurrence
from taskade_server.kit import time, zones


def following(
    rule: str, due: str | None, zone: str = "UTC", spend: Any = lambda steps: None, **more: Any
) -> Occurrence | None:
    """The next occurrence of a task that is completed now, unless `completed_at` says when."""
    now = time.format_ms(time.now_ms())
    task = {"due_date": due, "start_date": None, "completed_at": now, "recurrence_from": "due_date", **more}
    return occurrences.following(task, rule, UTC if zone == "UTC" else zones.get(zone), spend)


def next_due(rule: str, due: str | None, zone: str = "UTC", spend: Any = lambda steps: None, **more: Any) -> str | None:
    """When it is due then; None if never again."""
    found = following(rule, due, zone, spend, **more)
    return None if found is None else found.at
