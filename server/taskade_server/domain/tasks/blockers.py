"""Which tasks must be done before a task: they must be visible, and form no cycle."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from taskade_server.domain.tasks.lookups import Lookups
from taskade_server.domain.tasks.resources import TASK
from taskade_server.engine import access
from taskade_server.engine.model import Checker
from taskade_server.store.database import Tx

MAX_BLOCKER_LINKS: Final = 20_000


def check_blockers(lookups: Lookups, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any]) -> None:
    known = before.get("blocked_by", ())
    fresh = [(index, blocker) for index, blocker in enumerate(doc["blocked_by"]) if blocker not in known]
    if not fresh:
        return
    project = lookups.project(doc["project_id"])
    seen = []
    for index, blocker in fresh:
        task = lookups.blocker(blocker)
        if task is None or project is None or task["workspace_id"] != project["workspace_id"]:
            elsewhere = f"The task {blocker} lies in another workspace."
            detail = elsewhere if task and project else lookups.absence(TASK, blocker)
            checker.fault(f"/blocked_by/{index}", "unknown_reference", detail)
        else:
            seen.append((index, blocker))
    if before:  # nothing can be blocked by a task that is new
        for index, fault in _blockers_in_cycles(lookups, before["id"], seen):
            checker.fault(f"/blocked_by/{index}", *fault)


def _blockers_in_cycles(
    lookups: Lookups, task_id: str, blockers: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, tuple[str, str]]]:
    """The blockers that wait, directly or not, for the task itself: the index of each, with code and text of the fault.

    Tasks in the trash and in projects that the caller cannot see count as well: the former may come back.
    """
    unknown = [blocker for _, blocker in blockers if blocker not in lookups.blockers and blocker not in lookups.pending]
    if unknown:
        lookups.blockers |= _stored_blockers(lookups.tx, unknown)
    harmless: set[str] = set()  # the task is not behind any of these
    for index, blocker in blockers:
        fault = _cycle_fault(lookups, task_id, blocker, harmless)
        if fault:
            harmless.clear()
            yield index, fault


def _cycle_fault(lookups: Lookups, task_id: str, blocker: str, seen: set[str]) -> tuple[str, str] | None:
    """The code and text of the fault if the task is behind a blocker. Nothing in `seen` is looked at again."""
    pending = [blocker]
    while pending:
        current = pending.pop()
        lookups.tx.budget.spend(1)
        if current == task_id:
            return "cycle", "The tasks would block each other in a circle."
        if current in seen:
            continue
        seen.add(current)
        changed = lookups.pending.get(current)
        if changed is None and current not in lookups.blockers:
            lookups.blockers |= _stored_blockers(lookups.tx, [current])
        if len(lookups.blockers) > MAX_BLOCKER_LINKS:
            return "too_many", f"More than {MAX_BLOCKER_LINKS:,} tasks would have to be done before this one."
        behind = lookups.blockers[current] if changed is None else changed["blocked_by"]
        lookups.tx.budget.spend(len(behind) // 10)
        pending += [name for name in behind if name not in seen]
    return None


def _stored_blockers(tx: Tx, tasks: Sequence[str]) -> dict[str, list[str]]:
    """What tasks wait for, directly and indirectly: the blockers of each task; too many if they exceed the bound."""
    found: dict[str, list[str]] = {name: [] for name in tasks}
    among, params = access.among("id", list(tasks), tx.dialect)
    rows = tx.all(
        f"WITH RECURSIVE behind (id) AS (SELECT id FROM tasks WHERE {among} UNION SELECT v.value FROM behind b"
        " JOIN tasks t ON t.id = b.id JOIN task_values v ON v.n = t.n AND v.field = 'blocked_by')"
        " SELECT t.id, v.value FROM behind b JOIN tasks t ON t.id = b.id"
        f" JOIN task_values v ON v.n = t.n AND v.field = 'blocked_by' LIMIT {MAX_BLOCKER_LINKS + 1}",
        params,
    )
    if len(rows) > MAX_BLOCKER_LINKS:
        return {**found, **{f"{index}": [] for index in range(MAX_BLOCKER_LINKS)}}
    for name, blocker in rows:
        found.setdefault(name, []).append(blocker)
        found.setdefault(blocker, [])
    return found
