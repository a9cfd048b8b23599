"""Recurring tasks: completing one makes the next, with its subtasks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.domain import occurrences, ordering, projects
from taskade_server.domain.occurrences import Occurrence
from taskade_server.domain.tasks.hierarchy import MAX_TREE
from taskade_server.domain.tasks.limits import CHECK_STEPS
from taskade_server.domain.tasks.lookups import Edit, Lookups, Pair
from taskade_server.domain.tasks.references import DATES, zone_of
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.workflow import is_done
from taskade_server.engine import edit
from taskade_server.kit import ids, json, zones

_INHERITED: Final = ("workspace_id", "project_id", "parent_id", "name", "description", "priority", "labels", "estimate")
"""What the next occurrence of a recurring task takes over, whatever has changed around it."""


def hand_rule_on(
    lookups: Lookups, project: dict[str, Any], after: dict[str, Any], below: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The tasks that come after a completed one, to which its rule goes over; none if it becomes what it once was."""
    made = [] if after["id"] in lookups.former else _next_occurrence(lookups, after, project, below)
    if made:
        after["recurrence"] = None
    return made


def _next_occurrence(
    lookups: Lookups, after: dict[str, Any], project: dict[str, Any], below: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The successor of a completed recurring task and what comes along; empty if there is none.

    It is the same work at the next date, open again, with what lies `below` it, open and as far from its dates as
    before. A stored rule that is not accepted any more, or that leads beyond the year 9999, has no next date: it must
    not keep a task from being completed.
    """
    try:
        found = occurrences.following(after, after["recurrence"], zone_of(lookups, after), lookups.tx.budget.spend)
        if found is None:
            return []
        first = _next_copy(lookups, project, after, found, after["parent_id"])
    except (ValueError, OverflowError):
        return []
    first |= {"recurrence": found.rule, found.member: found.at, "position": ordering.initial(first["id"])}
    first["timezone"] = after["timezone"] or lookups.context.principal.zone(project["workspace_id"])
    new = {after["id"]: first["id"]}
    made = [first]
    for doc in below:
        lookups.tx.budget.spend(CHECK_STEPS)
        changed = {**lookups.pending.get(doc["id"], doc), "recurrence": doc["recurrence"]}
        copy = _next_copy(lookups, project, changed, found, new[doc["parent_id"]])
        new[doc["id"]] = copy["id"]
        copy["blocked_by"] = changed["blocked_by"]
        made.append(copy)
    for copy in made[1:]:
        copy["blocked_by"] = [new[name] for name in copy["blocked_by"] if name in new and name != after["id"]]
    return made


def _next_copy(
    lookups: Lookups, project: dict[str, Any], doc: Mapping[str, Any], found: Occurrence, parent_id: str | None
) -> dict[str, Any]:
    """A task anew, open, with its dates moved; whoever has left the workspace does not get it."""
    assignee = doc["assignee"]
    if assignee is not None:
        assignee = lookups.user(project["workspace_id"], assignee)
    dates = {}
    for name in DATES:
        try:
            dates[name] = found.moved(doc[name])
        except (ValueError, OverflowError):
            dates[name] = None  # beyond the year 9999
    return {
        **doc,
        "id": ids.new("task"),
        "project_id": project["id"],
        "parent_id": parent_id,
        "blocked_by": [],
        "status": projects.first_status(project, "todo"),
        "completed_at": None,
        "created_by": None,
        "assignee": assignee,
        **dates,
    }


def subtasks_to_repeat(lookups: Lookups, edits: Sequence[Edit]) -> dict[str, list[dict[str, Any]]]:
    """What lies below the recurring tasks that are completed now, by their ids: parents before children.

    What this request changes counts as it will be: what leaves the task does not come along, and what enters it does.
    Of a subtask with a rule of its own one occurrence stands for the whole series: the open one, or the last one if
    the series is over. The rows are not locked: they only serve as a pattern.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    entering: dict[str, list[Pair]] = {}
    for _, before, after, _ in edits:
        if after["parent_id"] is not None and after["parent_id"] != before["parent_id"]:
            entering.setdefault(after["parent_id"], []).append((before, after))
    for _, before, after, _ in edits:
        if not after["recurrence"] or before["completed_at"] is not None or after["status"] == before["status"]:
            continue
        project = lookups.project(after["project_id"])
        if project is None or not is_done(project, after) or before["id"] in lookups.former:
            continue
        docs: list[dict[str, Any]] = []
        # The project of each: below a task that moves to another one, what is not moved itself goes along.
        homes = {before["id"]: after["project_id"]}
        level = [before["id"]]
        while level:
            above = set(level)
            rows = edit.below(lookups.tx, TASK, "parent_id", level, MAX_TREE - len(docs), lock=False)
            pairs = [(doc, lookups.pending.get(doc["id"], doc)) for _, doc in rows]
            pairs += [pair for task_id in level for pair in entering.get(task_id, ())]
            siblings = []
            for stored, doc in pairs:
                if doc["parent_id"] not in above or doc["id"] in homes:
                    continue
                home = homes[doc["parent_id"]]
                if doc["project_id"] in (stored["project_id"], home):
                    homes[doc["id"]] = home
                    siblings.append(dict(doc))
            fresh = _one_of_each_series(siblings)
            docs += fresh
            level = [doc["id"] for doc in fresh]
        found[before["id"]] = docs
    return found


def _one_of_each_series(siblings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some tasks below the same parents, without the occurrences of a series that another one stands for.

    A completed occurrence hands its rule on; one that has kept it was the last.
    """
    going_on, over = set[str](), set[str]()
    for doc in siblings:
        if doc["recurrence"]:
            (over if doc["completed_at"] else going_on).add(_series_key(doc))

    def stands(doc: dict[str, Any]) -> bool:
        if not doc["completed_at"]:
            return True
        series = _series_key(doc)
        return series not in going_on and (series not in over or bool(doc["recurrence"]))

    return [doc for doc in siblings if stands(doc)]


def _series_key(doc: Mapping[str, Any]) -> str:
    """What the occurrences of one series have in common, as a text."""
    return json.encode([doc[name] for name in _INHERITED])


def is_successor(made: Mapping[str, Any], completed: Mapping[str, Any], rule: str) -> bool:
    """Whether a new task is the next occurrence of one that was completed while it had a rule."""
    if any(made[name] != completed[name] for name in _INHERITED):
        return False
    try:
        # An older log may hold tasks that do not say where and from when their rule counts.
        task = {"recurrence_from": "due_date", **completed}
        zone = zones.get(made.get("timezone") or zones.DEFAULT)
        ways = [occurrences.following(task, rule, zone)]
        if task["due_date"] is None and task["start_date"] is not None:
            ways.append(occurrences.following_formerly(task, rule, zone))
        return any(
            found is not None and (made[found.member], made["recurrence"]) == (found.at, found.rule) for found in ways
        )
    except (ValueError, OverflowError):
        return False
