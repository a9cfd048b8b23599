"""The statuses of a project, as its tasks have them."""

from collections.abc import Mapping
from typing import Any

from taskade_server.domain import projects
from taskade_server.engine.model import Checker


def check_status(checker: Checker, project: dict[str, Any], doc: dict[str, Any], before: Mapping[str, Any]) -> None:
    status = doc["status"]
    if status is None:
        doc["status"] = projects.first_status(project, "todo")
    elif before and status == before["status"]:
        doc["status"] = fitting_status(project, doc)
    elif projects.status_category(project, status) is None:
        keys = [entry["key"] for entry in project["statuses"]]
        checker.fault(
            "/status",
            "unknown_status",
            f'The project has no status "{status[:63]}". Its statuses: {", ".join(keys)}.',
        )


def fitting_status(project: dict[str, Any], doc: Mapping[str, Any]) -> str:
    """The status of a task that comes into a workflow: its own, if it means there what it meant before.

    Otherwise the first that does: a completed task stays completed, and an open one open.
    """
    done = doc["completed_at"] is not None
    category = projects.status_category(project, doc["status"])
    if category is not None and (category == "done") == done:
        return str(doc["status"])
    return projects.first_status(project, "done" if done else "todo")


def is_done(project: dict[str, Any], doc: Mapping[str, Any]) -> bool:
    return projects.status_category(project, doc["status"]) == "done"
