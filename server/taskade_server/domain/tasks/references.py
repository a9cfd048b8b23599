"""Checks of all values of a task that depend on something else: project, people, other tasks, dates."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain import occurrences, projects
from taskade_server.domain.tasks.blockers import check_blockers
from taskade_server.domain.tasks.custom_fields import check_custom_fields
from taskade_server.domain.tasks.hierarchy import check_parent
from taskade_server.domain.tasks.lookups import Lookups
from taskade_server.domain.tasks.workflow import check_status
from taskade_server.engine.model import Checker
from taskade_server.kit import zones


def check_references(
    lookups: Lookups, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Check and resolve whatever refers beyond the task itself; returns its project.

    A value that does not change is accepted: what the API hands out can be sent back, whatever has changed around it.
    """
    project = lookups.project(doc["project_id"])
    if project is None:
        checker.fault("/project_id", "unknown_reference", lookups.absence(projects.PROJECT, doc["project_id"]))
        return None
    check_status(checker, project, doc, before)
    if doc["assignee"] is not None and doc["assignee"] != before.get("assignee"):
        user_id = lookups.user(project["workspace_id"], doc["assignee"])
        if user_id is None:
            detail = f'"{doc["assignee"][:80]}" is no member of the workspace; give an id, handle or e-mail of one.'
            checker.fault("/assignee", "unknown_reference", detail)
        doc["assignee"] = user_id
    if doc["parent_id"] is not None and doc["parent_id"] != before.get("parent_id"):
        check_parent(lookups, checker, doc, before)
    if doc["blocked_by"]:
        check_blockers(lookups, checker, doc, before)
    if doc["recurrence"] is not None and doc["recurrence"] != before.get("recurrence"):
        doc["timezone"] = doc["timezone"] or lookups.context.principal.zone(project["workspace_id"])
        _check_recurrence(lookups, checker, doc)
    if (
        doc["start_date"]
        and any(doc[name] != before.get(name) for name in (*DATES, "timezone"))
        and projects.dates_cross(doc, zone_of(lookups, {**doc, "workspace_id": project["workspace_id"]}))
    ):
        checker.fault("/due_date", "invalid_range", "due_date lies before start_date.")
    if project["fields"]:
        check_custom_fields(lookups, checker, project, doc, before)
    return project


DATES: Final = ("start_date", "due_date")


def _check_recurrence(lookups: Lookups, checker: Checker, doc: dict[str, Any]) -> None:
    try:
        date = doc["due_date"] or doc["start_date"]
        occurrences.require_day(doc["recurrence"], date, zone_of(lookups, doc), lookups.tx.budget.spend)
    except ValueError as error:
        checker.fault(
            "/recurrence",
            "invalid_rrule",
            f"recurrence takes an RRULE such as FREQ=WEEKLY;BYDAY=MO ({str(error)[:120]}).",
        )


def zone_of(lookups: Lookups, doc: Mapping[str, Any]) -> zones.Zone:
    """The zone in which the days of a task are counted: its own, else the caller's."""
    return zones.get(doc["timezone"] or lookups.context.principal.zone(doc["workspace_id"]))
