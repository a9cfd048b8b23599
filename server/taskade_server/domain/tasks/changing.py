"""Changing one task, or giving several their former values back."""

from collections.abc import Mapping
from typing import Any

from taskade_server.domain import projects
from taskade_server.domain.tasks.lookups import Edit, Lookups
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.workflow import is_done
from taskade_server.domain.tasks.writing import write_changes
from taskade_server.engine import edit
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Checker
from taskade_server.store.database import Tx


def update(tx: Tx, context: Context, task_id: str, body: Any) -> str:
    """Change a task by merge patch."""
    row, before = edit.load(tx, context, TASK, task_id)
    lookups = Lookups(tx, context)
    lookups.project(before["project_id"])
    checker = Checker()
    values = checker.body(TASK, body, creating=False, current=before)
    return write_changes(lookups, [Edit(row, before, {**before, **values}, "")], checker.issues)[0]


def restore_values(tx: Tx, context: Context, former: Mapping[str, dict[str, Any]]) -> list[str]:
    """Give tasks, by id, members that they had before, all together; what they had may refer to each other."""
    lookups = Lookups(tx, context, former=former)
    edits: list[Edit] = []
    for task_id, members in former.items():
        row, before = edit.load(tx, context, TASK, task_id)
        lookups.project(before["project_id"])
        after = lookups.tasks[task_id] = {**before, **members}
        lookups.kept.add(task_id)
        edits.append(Edit(row, before, after, f"/{task_id}"))
    return write_changes(lookups, edits)


def set_status(tx: Tx, context: Context, task_id: str, category: str) -> str:
    """Complete (`done`) or reopen (`todo`) a task by moving it to the first status of that category."""
    row, before = edit.load(tx, context, TASK, task_id)
    lookups = Lookups(tx, context)
    project = lookups.project(before["project_id"])
    if project is None or is_done(project, before) == (category == "done"):
        return row.document
    status = projects.first_status(project, category)
    return write_changes(lookups, [Edit(row, before, {**before, "status": status}, "")])[0]
