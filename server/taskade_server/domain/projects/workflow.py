"""The statuses, custom fields and dates of a project, and what may be wrong with them."""

from collections.abc import Mapping
from typing import Any

from taskade_server.domain import occurrences
from taskade_server.kit import zones
from taskade_server.kit.errors import Issue
from taskade_server.store.database import Tx


def status_category(project: dict[str, Any], key: str) -> str | None:
    """todo, doing or done; None when the project has no such status."""
    for status in project["statuses"]:
        if status["key"] == key:
            return str(status["category"])
    return None


def first_status(project: dict[str, Any], category: str) -> str:
    """The first status of a category (todo or done); without a todo status the first that is not done."""
    statuses = project["statuses"]
    found = [status["key"] for status in statuses if status["category"] == category]
    return str(found[0] if found else next(status["key"] for status in statuses if status["category"] != "done"))


def check_workflow(doc: dict[str, Any]) -> list[Issue]:
    issues = []
    for name in ("statuses", "fields"):
        keys = [entry.get("key") for entry in doc[name]]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                issues.append(Issue("duplicate", f"The key {key} stands twice.", pointer=f"/{name}/{index}/key"))
    categories = [entry.get("category") for entry in doc["statuses"]]
    if not doc["statuses"] or "done" not in categories or all(category == "done" for category in categories):
        issues.append(
            Issue(
                "invalid_workflow",
                "A workflow needs at least one done status and one that is not.",
                pointer="/statuses",
            )
        )
    for index, entry in enumerate(doc["fields"]):
        if entry.get("type") in ("select", "multi") and not entry.get("options"):
            issues.append(
                Issue("required", f"A {entry['type']} field needs options.", pointer=f"/fields/{index}/options")
            )
    return issues


def dates_cross(doc: Mapping[str, Any], zone: zones.Zone) -> bool:
    """Whether the day of the start is behind the day of the end, in a zone."""
    start, due = doc["start_date"], doc["due_date"]
    return bool(start and due and occurrences.day_in(start, zone) > occurrences.day_in(due, zone))


def check_dates(doc: dict[str, Any], zone: str) -> list[Issue]:
    if dates_cross(doc, zones.get(zone)):
        return [Issue("invalid_range", "due_date lies before start_date.", pointer="/due_date")]
    return []


def check_removed_statuses(tx: Tx, project_id: str, before: dict[str, Any], after: dict[str, Any]) -> list[Issue]:
    kept = {entry["key"]: entry["category"] for entry in after["statuses"]}
    for entry in before["statuses"]:
        if (entry["category"] == "done") != (kept.get(entry["key"]) == "done") or entry["key"] not in kept:
            found = tx.one(
                "SELECT 1 FROM tasks WHERE project_id = ? AND status = ? AND deleted_at IS NULL LIMIT 1",
                (project_id, entry["key"]),
            )
            if found:
                return [
                    Issue(
                        "status_in_use",
                        f"Tasks are in the status {entry['key']}; move them to another one first.",
                        pointer="/statuses",
                    )
                ]
    return []
