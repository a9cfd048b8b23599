"""What goes along with tasks that move to another project: their subtasks and comments."""

from collections.abc import Iterable, Sequence
from typing import Any

from taskade_server.domain.tasks.custom_fields import check_custom_fields
from taskade_server.domain.tasks.hierarchy import comments_of, subtree
from taskade_server.domain.tasks.lookups import Carried, Lookups
from taskade_server.domain.tasks.resources import COMMENT
from taskade_server.domain.tasks.workflow import fitting_status
from taskade_server.engine.log import Change
from taskade_server.engine.model import Checker
from taskade_server.kit.errors import Issue
from taskade_server.store.database import Tx


def descendants_of_moved(lookups: Lookups, moving: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> Carried:
    """What lies below tasks that change their project: it goes along."""
    target = {
        before["id"]: after["project_id"] for before, after in moving if after["project_id"] != before["project_id"]
    }
    found: Carried = {}
    for row, doc in subtree(lookups.tx, list(target)):
        project_id = target.setdefault(doc["id"], target[doc["parent_id"]])
        found[doc["id"]] = row, doc, {**doc, "project_id": project_id}
    if lookups.tx.locks_rows:
        comments_of(lookups.tx, [*target], trashed=True)
    return found


def moved_comments(tx: Tx, changes: Sequence[Change]) -> list[Change]:
    """The comments of tasks that change their project go along, also those in the trash."""
    moved = {
        change.doc["id"]: change.doc["project_id"]
        for change in changes
        if change.before and change.doc["project_id"] != change.before["project_id"]
    }
    return [
        Change(COMMENT, "updated", {**before, "project_id": moved[before["task_id"]]}, before, row.n)
        for row, before in comments_of(tx, list(moved), trashed=True)
    ]


def fit_carried(lookups: Lookups, carried: Carried) -> list[Issue]:
    """Fit what goes along into the workflow and the fields of the other project."""
    issues = []
    for task_id, (_, before, after) in carried.items():
        project = lookups.project(after["project_id"])
        if project is None:
            continue
        after["status"] = fitting_status(project, after)
        checker = Checker()
        check_custom_fields(lookups, checker, project, after, before)
        issues += [
            Issue(issue.code, f"The subtask {task_id} does not fit in there: {issue.detail}", pointer="/project_id")
            for issue in checker.issues
        ]
    return issues
