"""Every change of existing tasks: checked together and written together, with all that follows from it.

New tasks are written by `creating`, deletions by `deleting`.
"""

from collections.abc import Sequence
from typing import Any, Final

from taskade_server.domain import ordering
from taskade_server.domain.tasks.carrying import descendants_of_moved, fit_carried, moved_comments
from taskade_server.domain.tasks.hierarchy import lock_below
from taskade_server.domain.tasks.lookups import Carried, Edit, Lookups, Pair
from taskade_server.domain.tasks.narrower_events import events_of_change, events_of_creation
from taskade_server.domain.tasks.placing import assign_positions
from taskade_server.domain.tasks.recurring import hand_rule_on, subtasks_to_repeat
from taskade_server.domain.tasks.references import check_references
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.workflow import is_done
from taskade_server.engine import edit, log, query
from taskade_server.engine.log import Change
from taskade_server.engine.model import Checker
from taskade_server.kit import json, time
from taskade_server.kit.errors import Invalid, Issue

_COMPARED: Final = frozenset((*TASK.search, *(member.name for member in TASK.multiple)))
"""The members whose change is more than one of a column."""


def write_changes(lookups: Lookups, edits: Sequence[Edit], faults: Sequence[Issue] = ()) -> list[str]:
    """Check all changes; write them only if neither these checks nor `faults` found anything wrong.

    Returns the documents of all edited tasks (JSON texts) in the order of `edits`. Invalid with all that is wrong.
    """
    issues = list(faults)
    next_occurrences: list[dict[str, Any]] = []
    for _, before, after, _ in edits:
        after["project_id"] = after["project_id"] or before["project_id"]
        after["position"] = after["position"] or ordering.initial(before["id"])
        lookups.pending[before["id"]] = after
    moving = _with_new_position_or_blockers(lookups, edits)
    subtasks = subtasks_to_repeat(lookups, edits)
    carried = _lock_affected(lookups, edits, moving) if moving else {}
    accepted: list[tuple[query.Row, dict[str, Any], dict[str, Any]]] = []
    for row, before, after, pointer in edits:
        if json.same(after, before) and before["id"] not in lookups.beside:
            continue
        checker = Checker(pointer)
        with edit.about_entry(pointer, before["id"]):
            project = check_references(lookups, checker, after, before)
        if project is not None and not checker.issues and not issues:
            _require_same_workspace(project, after)
            _apply_consequences(lookups, project, before, after, is_carried=before["id"] in carried)
            carried.pop(before["id"], None)  # it is written as an edit
            if after["recurrence"] and after["completed_at"] and not before["completed_at"]:
                next_occurrences += hand_rule_on(lookups, project, after, subtasks.get(before["id"], []))
            accepted.append((row, before, after))
        issues += checker.issues
    issues += fit_carried(lookups, carried) if not issues else []
    edit.fail(issues)
    texts = _write(lookups, accepted, carried, renumber=bool(moving))
    if next_occurrences:
        made = [Change(TASK, "created", doc, also=events_of_creation(doc)) for doc in next_occurrences]
        log.apply(lookups.tx, lookups.context.actor, made)
    return [texts.get(before["id"], row.document) for row, before, _, _ in edits]


def _write(
    lookups: Lookups,
    accepted: Sequence[tuple[query.Row, dict[str, Any], dict[str, Any]]],
    carried: Carried,
    *,
    renumber: bool,
) -> dict[str, str]:
    """Write accepted changes and all tasks and comments that change with them; returns their documents by id.

    `renumber`: some tasks change their position, so that they or their siblings may need other order keys.
    """
    renumbered_siblings: list[Change] = []
    if renumber:
        moved_descendants = {task_id: after for task_id, (_, _, after) in carried.items()}
        pairs = [(before, after) for _, before, after in accepted]
        renumbered_siblings = assign_positions(lookups, pairs, moved_descendants)
    changes: list[Change] = []
    for row, before, after in (*accepted, *carried.values()):
        changed = [
            name
            for name, value in after.items()
            if (old := before.get(name)) is not value and not json.same(value, old)
        ]
        if changed:
            # What is searched or has rows of its own is for the log to compare; of the others it need not look again.
            stamped = dict.fromkeys((*changed, "updated_at", "version"))
            touched = None if _COMPARED.intersection(changed) else tuple(stamped)
            also = events_of_change(before, after)
            changes.append(Change(TASK, "updated", after, before, row.n, also, touched=touched))
    changes += moved_comments(lookups.tx, changes)
    changes += renumbered_siblings
    texts = log.apply(lookups.tx, lookups.context.actor, changes)
    return {change.doc["id"]: text for change, text in zip(changes, texts, strict=True)}


def _with_new_position_or_blockers(lookups: Lookups, edits: Sequence[Edit]) -> list[Pair]:
    """The tasks, before and after, that change their position in the tree or get other blockers. Most do neither."""
    return [
        (before, after)
        for _, before, after, _ in edits
        if after["position"] != before["position"]
        or after["parent_id"] != before["parent_id"]
        or after["project_id"] != before["project_id"]
        or before["id"] in lookups.beside
        or (after["blocked_by"] and not set(after["blocked_by"]) <= set(before["blocked_by"]))
    ]


def _lock_affected(lookups: Lookups, edits: Sequence[Edit], moving: Sequence[Pair]) -> Carried:
    """Lock what rules about several tasks look at, rows first; returns the subtasks that move to another project.

    An edited subtask of a moved task gets the new project in its `after`, unless it has a new one of its own. A task
    that changes neither its position nor its blockers needs no lock but that of its own row.
    """
    carried = descendants_of_moved(lookups, moving)
    for _, before, after, _ in edits:
        if before["id"] in carried and after["project_id"] == before["project_id"]:
            after["project_id"] = carried[before["id"]][2]["project_id"]
    pointers = {edited.before["id"]: edited.pointer for edited in edits}
    for before, after in moving:
        pointer = pointers[before["id"]]
        with edit.about_entry(pointer and f"{pointer}/project_id", before["id"]):
            lookups.project(after["project_id"])
        if after["parent_id"] is not None and after["parent_id"] != before["parent_id"]:
            lookups.task(after["parent_id"], keep=True)
            lock_below(lookups.tx, before["id"])
    for workspace_id in sorted({before["workspace_id"] for before, _ in moving}):
        lookups.lock(workspace_id)
    return carried


def _require_same_workspace(project: dict[str, Any], after: dict[str, Any]) -> None:
    """Invalid if a task's new project lies in another workspace."""
    if after["workspace_id"] != project["workspace_id"]:
        raise Invalid(
            "A task cannot move to another workspace.",
            errors=[Issue("mismatch", "The project lies in another workspace.", pointer="/project_id")],
        )


def _apply_consequences(
    lookups: Lookups, project: dict[str, Any], before: dict[str, Any], after: dict[str, Any], *, is_carried: bool
) -> None:
    """Set in `after` what follows from a change that has been checked: `completed_at`, and leaving the parent.

    `is_carried`: the task moves to another project together with its parent, which it keeps.
    """
    done = is_done(project, after)
    if done and before["completed_at"] is None:
        former = lookups.former.get(before["id"])
        after["completed_at"] = (former or {}).get("completed_at") or time.format_ms(time.now_ms())
    elif not done:
        after["completed_at"] = None
    if after["project_id"] != before["project_id"] and after["parent_id"] and not is_carried:
        parent = lookups.task(after["parent_id"])
        if parent is not None and parent["project_id"] != after["project_id"]:
            after["parent_id"] = None
