"""Changing and deleting many tasks in one request, all or none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from taskade_server.domain.tasks.deleting import trash_trees
from taskade_server.domain.tasks.limits import CHECK_STEPS, LOOKUP_STEPS, MAX_BULK
from taskade_server.domain.tasks.lookups import Edit, Lookups
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.writing import write_changes
from taskade_server.engine import edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.filters import Node, excludes_nothing
from taskade_server.engine.model import Checker
from taskade_server.kit import json
from taskade_server.kit.errors import MAX_ISSUES, Invalid, Issue, PreconditionFailed
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx

CHECKED_A_STEP: Final = 100
"""How many characters of a patch are checked and merged in one step."""

MAX_BULK_TEXT: Final = 32 << 20

_EVERY_TASK: Final = (
    "filter is an object of conditions; without one that could exclude a task it would mean every task."
)
_CHOICES: Final = {
    False: "either ids or filter",
    True: "either ids or filter, and what to set; or tasks, each with its id and its own values",
}


def selection(body: Any, *, wants_set: bool) -> tuple[list[str] | None, Any, Any]:
    """The parts of a bulk body: ids or filter, and what to set; Invalid unless it has ids or filter, not both."""
    checker = Checker()
    allowed = ("ids", "filter", "set", "tasks") if wants_set else ("ids", "filter")
    if not isinstance(body, dict):
        checker.fault("", "wrong_type", f"The body is an object with {_CHOICES[wants_set]}.")
        body = {}
    for key in body:
        if key not in allowed:
            checker.unknown(f"/{escape_pointer(key)}", key, allowed, "bulk change")
    body = {key: value for key, value in body.items() if value is not None}
    chosen = body.get("ids")
    if not checker.issues and ("ids" in body) == ("filter" in body):
        checker.fault("", "required", f"Give {_CHOICES[wants_set]}.")
    if "ids" in body and (
        not isinstance(chosen, list)
        or not 1 <= len(chosen) <= MAX_BULK
        or not all(isinstance(one, str) for one in chosen)
    ):
        checker.fault("/ids", "wrong_type", f"ids is a list of 1 to {MAX_BULK:,} task ids.")
    if "filter" in body and not (isinstance(body["filter"], dict) and body["filter"]):
        checker.fault("/filter", "wrong_type", _EVERY_TASK)
    if wants_set and not isinstance(body.get("set"), dict):
        checker.fault("/set", "required", "set is the merge patch to apply to each task.")
    edit.fail(checker.issues)
    return chosen, body.get("filter"), body.get("set")


def require_condition(where: Node) -> None:
    """Invalid if a filter excludes nothing: a value that its writer has lost must not change every task."""
    if excludes_nothing(where):
        edit.fail([Issue("wrong_type", _EVERY_TASK, pointer="/filter")])


def update_bulk(tx: Tx, context: Context, chosen: Sequence[str], patch: Any, *, by_filter: bool = False) -> list[str]:
    """Apply one merge patch to many tasks, all or none; returns the documents.

    `by_filter`: a filter in the body has chosen them, so that faults have no id there to point to.
    """
    lookups = Lookups(tx, context)
    edits: list[Edit] = []
    # The same patch is checked, merged and written once for each task.
    size = len(json.encode(patch))
    pointers = _pointers(chosen, by_filter=by_filter)
    for row, before in _load_all(tx, context, pointers):
        tx.budget.spend(CHECK_STEPS + size // CHECKED_A_STEP)
        with edit.about_entry(pointers[before["id"]], before["id"]):
            lookups.project(before["project_id"])
        checker = Checker("/set")
        values = checker.body(TASK, patch, creating=False, current=before)
        edit.fail(checker.issues)
        edits.append(Edit(row, before, {**before, **values}, "/set"))
    return write_changes(lookups, edits)


def update_each(
    tx: Tx, context: Context, body: Any, versions: Sequence[frozenset[str] | None], faults: Sequence[Issue] = ()
) -> list[str]:
    """Apply to each task a merge patch of its own (`{tasks: [{id, if_match?, ...}]}`), all or none.

    `versions` are what the `if_match` of each entry names, and `faults` what was wrong with them.
    """
    issues = list(faults)
    named = _entries_by_id(body, issues)
    lookups = Lookups(tx, context)
    edits: list[Edit] = []
    for row, before in _load_all(tx, context, {task_id: f"/tasks/{index}/id" for task_id, index in named.items()}):
        index = named[before["id"]]
        pointer, patch = f"/tasks/{index}", body["tasks"][index]
        try:
            edit.expect(replace(context, if_match=versions[index]), TASK, before)
        except PreconditionFailed as stale:
            stale.extra["pointer"] = f"{pointer}/if_match"
            raise
        tx.budget.spend(CHECK_STEPS + len(json.encode(patch)) // CHECKED_A_STEP)
        with edit.about_entry(pointer, before["id"]):
            lookups.project(before["project_id"])
        checker = Checker(pointer)
        values = checker.body(TASK, patch, creating=False, current=before, extra=("if_match",))
        issues += checker.issues
        edits.append(Edit(row, before, {**before, **values}, pointer))
        if len(issues) > MAX_ISSUES:
            break
    return write_changes(lookups, edits, issues)


def _entries_by_id(body: Mapping[str, Any], issues: list[Issue]) -> dict[str, int]:
    """The ids of the tasks to change, each with its index in the list. Invalid if some cannot be read."""
    checker = Checker()
    for key in body:
        if key != "tasks":
            checker.unknown(f"/{escape_pointer(key)}", key, ("tasks",), "bulk change with values for each task")
    entries = body["tasks"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BULK:
        checker.fault("/tasks", "wrong_type", f"tasks is a list of 1 to {MAX_BULK:,} changes, each with an id.")
        entries = []
    named: dict[str, int] = {}
    for index, entry in enumerate(entries):
        task_id = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            checker.fault(f"/tasks/{index}", "wrong_type", "A change is an object with the id of a task.")
        elif not isinstance(task_id, str):
            checker.fault(f"/tasks/{index}/id", "required", "id names the task to change.")
        elif task_id in named:
            detail = f"Entry {named[task_id]} changes the same task; put both changes into one."
            checker.fault(f"/tasks/{index}/id", "duplicate", detail)
        else:
            named[task_id] = index
    edit.fail([*issues, *checker.issues] if checker.issues else [])
    return named


def delete_bulk(tx: Tx, context: Context, chosen: Sequence[str], *, by_filter: bool = False) -> list[str]:
    """Move many tasks to the trash, all or none; returns their documents in the order of `chosen`.

    It is one deletion, whatever the order of the ids: what lies below another chosen task goes and comes back with it.
    """
    pointers = _pointers(chosen, by_filter=by_filter)
    return trash_trees(tx, context, _load_all(tx, context, pointers), pointers)


def _pointers(chosen: Sequence[str], *, by_filter: bool) -> dict[str, str]:
    """Ids without repetitions, each with the JSON Pointer to where the body has it first.

    That is the filter if one has chosen them.
    """
    pointers: dict[str, str] = {}
    for index, task_id in enumerate(chosen):
        pointers.setdefault(task_id, "/filter" if by_filter else f"/ids/{index}")
    return pointers


def _load_all(tx: Tx, context: Context, pointers: Mapping[str, str]) -> list[tuple[query.Row, dict[str, Any]]]:
    """The rows of tasks, locked; Invalid if some cannot be seen, which is told with their pointers."""
    loaded = []
    issues = []
    size = 0
    for task_id, pointer in pointers.items():
        row = query.get(tx, context.principal, TASK, task_id, lock=True)
        if row is None:
            tx.budget.spend(LOOKUP_STEPS)
            detail = query.absence(tx, context.principal, TASK, task_id)
            issues.append(Issue("unknown_reference", detail, pointer=pointer))
        else:
            tx.budget.spend(LOOKUP_STEPS + len(row.document) // log.WRITTEN_A_STEP)
            loaded.append((row, json.decode(row.document)))
            size += len(row.document)
            if size > MAX_BULK_TEXT:
                detail = f"Together the tasks have more than {MAX_BULK_TEXT >> 20} MiB; name fewer at once."
                raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
    edit.fail(issues)
    return loaded
