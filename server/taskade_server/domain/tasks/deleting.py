"""Moving tasks to the trash, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from taskade_server.domain.tasks.hierarchy import ancestors, comments_of, depth_of, subtree
from taskade_server.domain.tasks.limits import MAX_LEVELS
from taskade_server.domain.tasks.lookups import Loaded, Lookups
from taskade_server.domain.tasks.narrower_events import events_of_change
from taskade_server.domain.tasks.placing import assign_positions
from taskade_server.domain.tasks.resources import COMMENT, TASK
from taskade_server.domain.tasks.workflow import fitting_status
from taskade_server.engine import access, edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Resource
from taskade_server.kit.errors import Clash
from taskade_server.store.database import Tx


def delete(tx: Tx, context: Context, task_id: str) -> None:
    """Move a task to the trash with its subtasks and comments."""
    row, doc = edit.load(tx, context, TASK, task_id)
    trash_trees(tx, context, [(row, doc)])


def restore(tx: Tx, context: Context, task_id: str) -> str:
    """Bring a task back with what went to the trash with it; its project and its parent have to be live.

    What comes back fits the place as it is now: the parent's project, the project's workflow, the order of the
    siblings. An assignee who has left the workspace meanwhile stays, as with tasks that were live then.
    """
    row, doc = edit.load(tx, context, TASK, task_id, deleted=True)
    lookups = Lookups(tx, context)
    parent = lookups.task(doc["parent_id"], keep=True) if doc["parent_id"] else None
    # If the parent was moved meanwhile, the task leaves its project for the parent's: that takes the right in both.
    lookups.project(doc["project_id"])
    project = lookups.project(parent["project_id"] if parent else doc["project_id"])
    if project is None:
        raise Clash("The task's project is in the trash; restore the project first.")
    if doc["parent_id"] and parent is None:
        raise Clash("The task's parent is in the trash; restore the parent first.")
    rows = [(TASK, row, doc), *edit.trashed_with(tx, task_id, ("task", "comment"))]
    lookups.lock(doc["workspace_id"])
    pairs = [(resource, found, before, {**before, "project_id": project["id"]}) for resource, found, before in rows]
    returning = [(before, after) for resource, _, before, after in pairs if resource is TASK]
    for _, after in returning:
        after["status"] = fitting_status(project, after)
    if (
        parent is not None
        and len(ancestors(lookups, parent["id"])) + depth_of([after for _, after in returning]) > MAX_LEVELS
    ):
        raise Clash(
            f"Below its parent, which was moved meanwhile, the task or what comes back with it would be deeper"
            f" than {MAX_LEVELS} levels; move the parent up first."
        )
    renewed = assign_positions(lookups, [({}, returning[0][1])])
    changes = []
    for resource, found, before, after in pairs:
        also = events_of_change(before, after) if resource is TASK else ()
        changes.append(edit.restored(resource, found, before, after, also))
    return log.apply(tx, context.actor, [*changes, *renewed])[0]


def trash_trees(tx: Tx, context: Context, chosen: Sequence[Loaded], pointers: Mapping[str, str] = {}) -> list[str]:
    """Move tasks to the trash with all that lies below them; returns the documents of those that were chosen.

    What lies below the topmost of them comes back together, in whatever order they were named. `pointers` are the
    JSON Pointers to the ids in the body, if the tasks are named there.
    """
    for row, doc in chosen:
        with edit.about_entry(pointers.get(doc["id"], ""), doc["id"]):
            access.require_project(context.principal, row.workspace_id, doc["project_id"], "editor", "delete the task")
    trees = {doc["id"]: (row, doc) for row, doc in chosen}
    for row, doc in subtree(tx, list(trees)):
        trees.setdefault(doc["id"], (row, doc))
    roots: dict[str, str] = {}
    for task_id in trees:
        path = [task_id]
        while path[-1] not in roots and (parent := trees[path[-1]][1]["parent_id"]) in trees and parent not in path:
            path.append(parent)
        roots.update(dict.fromkeys(path, roots.get(path[-1], path[-1])))
    rows: list[tuple[Resource, query.Row, dict[str, Any]]] = [(TASK, *loaded) for loaded in trees.values()]
    for row, doc in comments_of(tx, list(trees)):
        rows.append((COMMENT, row, doc))
        roots[doc["id"]] = roots[doc["task_id"]]
    return edit.trash(tx, context, rows, roots)[: len(chosen)]
