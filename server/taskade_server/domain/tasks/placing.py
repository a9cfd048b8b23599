"""The order keys of tasks that enter a place among their siblings."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.domain import ordering
from taskade_server.domain.tasks.lookups import Lookups
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.siblings import Siblings
from taskade_server.engine import query
from taskade_server.engine.log import Change
from taskade_server.engine.model import NOTHING
from taskade_server.kit import json
from taskade_server.kit.errors import Clash

_PLACE: Final = ("project_id", "parent_id", "position")


def assign_positions(
    lookups: Lookups,
    pairs: Sequence[tuple[Mapping[str, Any], dict[str, Any]]],
    along: Mapping[str, dict[str, Any]] = NOTHING,
) -> list[Change]:
    """Give a key of its own to each task that enters a place or gets another key.

    `pairs` are tasks as they were (empty for new ones) and as they will be, `along` those that stay below their
    parent and are written, too. Returns the changes of other neighbours that get new keys. The lock of the workspace
    has to be held.
    """
    entering: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for before, after in pairs:
        moved = not before or any(after[name] != before[name] for name in _PLACE)
        if after["id"] in lookups.beside or (moved and after["position"] != ordering.initial(after["id"])):
            entering.setdefault((after["project_id"], after["parent_id"]), []).append(after)
    leaving = {after["id"] for before, after in pairs if any(after[name] != before.get(name) for name in _PLACE)}
    documents = {**along, **{after["id"]: after for _, after in pairs}}
    changes: list[Change] = []
    for (project_id, parent_id), tasks in entering.items():
        absent = leaving | {task["id"] for task in tasks}
        siblings = Siblings(lookups.tx, project_id, parent_id, absent, whole=len(tasks) > 1)
        for task in tasks:
            task["position"] = _position_of(lookups, siblings, task)
        changes += _renewed_neighbours(siblings, documents)
    return changes


def _position_of(lookups: Lookups, siblings: Siblings, task: dict[str, Any]) -> str:
    wanted = lookups.beside.get(task["id"])
    if wanted is None:
        return siblings.enter(task["id"], task["position"])
    anchor_id, before = wanted
    row = query.get(lookups.tx, lookups.context.principal, TASK, anchor_id)
    anchor = json.decode(row.document) if row else {}
    if any(anchor.get(name) != task[name] for name in ("project_id", "parent_id")):
        raise Clash("The task to move to was moved or deleted at the same moment; try again.")
    return siblings.beside(task["id"], anchor, before=before)


def _renewed_neighbours(siblings: Siblings, documents: Mapping[str, dict[str, Any]]) -> list[Change]:
    """The changes of neighbours that get new keys; what is written in this request anyway gets its key there."""
    changes = []
    for task_id, key in siblings.renewed.items():
        if task_id in documents:
            documents[task_id]["position"] = key
        else:
            row, before = siblings.rows[task_id]
            changes.append(Change(TASK, "updated", {**before, "position": key}, before, row.n, ["task.moved"]))
    return changes
