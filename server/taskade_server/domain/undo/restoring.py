"""Giving objects their former values back, from the latest change to the first."""

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final

from taskade_server.domain import identity, projects, tasks, workspaces
from taskade_server.domain.resources import DELETE, RESTORE, UPDATE
from taskade_server.domain.undo.changes import ABSENT, DERIVED, Item, Path, Step, UndoRun, replaced_values, same_request
from taskade_server.domain.undo.conflicts import Conflict, refuse
from taskade_server.engine import edit, log, query
from taskade_server.engine.log import Event
from taskade_server.kit import json

# What the tasks of a project have to fit.
_RULES: Final = ("statuses", "fields")

_CONTAINERS: Final = ("project_id", "parent_id", "task_id")

_GIVE_RIGHTS: Final = ("project", "workspace", "member")


def _state(run: UndoRun, item: Item) -> dict[str, Any] | None:
    """The object as it is now, also in the trash; None if there is none."""
    row = run.tx.one(f"SELECT doc FROM {item.resource.table} WHERE id = ?", (item.id,))
    return json.decode(row[0]) if row else None


def _scope(run: UndoRun, item: Item) -> None:
    resource = item.resource
    if resource is identity.MEMBER:
        resource = workspaces.WORKSPACE if item.data()["project_id"] is None else projects.PROJECT
    edit.scope(run.context, resource, "write")


def _restore(run: UndoRun, object_id: str) -> None:
    """Restore what was deleted, with what went along, and before it what it lies in, if that was deleted as well."""
    item = run.items.get(object_id)
    row = None
    if item is not None and item.resource.trash:
        row = run.tx.one(f"SELECT trash_root, doc FROM {item.resource.table} WHERE id = ?", (object_id,))
    doc = json.decode(row[1]) if row else {}
    if item is None or row is None or doc["deleted_at"] is None:
        return
    if row[0] != object_id and row[0] in run.items:
        _restore(run, row[0])
        return
    for name in _CONTAINERS:
        if doc.get(name):
            _restore(run, doc[name])
    run.refresh()
    _scope(run, item)
    RESTORE[item.resource.name](run.tx, run.context, object_id)


def _restore_membership(run: UndoRun, item: Item) -> None:
    """A membership begins anew, with the role of then."""
    doc = item.data()
    role = item.former.get(("role", ""), doc["role"])
    condition = "project_id IS NULL" if doc["project_id"] is None else "project_id = ?"
    params = (doc["workspace_id"], doc["user"], *([doc["project_id"]] if doc["project_id"] else []))
    row = run.tx.one(f'SELECT doc FROM members WHERE workspace_id = ? AND "user" = ? AND {condition}', params)
    if row is not None:
        present = json.decode(row[0])
        if present["role"] != role:
            refuse(run, [Conflict(item, "role", log.newest(run.tx, present["workspace_id"], present["id"]))])
        return
    if doc["project_id"] is None:
        workspaces.readmit(run.tx, run.context, doc["workspace_id"], doc["user"], role)
    else:
        projects.add_member(run.tx, run.context, doc["project_id"], {"user": doc["user"], "role": role})


def undo_all(run: UndoRun, present: Sequence[Item]) -> None:
    """From the latest change to the first: old values are put back, and what was deleted comes back.

    All at once as far as the order does not matter. It does where something comes back, and where a project's workflow
    or fields change: tasks have to leave a status before it goes, and it has to be there before they come back.
    """
    is_new = [item for item in present if item.is_new]
    segment: dict[str, dict[Path, Any]] = {}
    steps = [(step, item) for item in present if not item.is_new for step in item.steps]
    for step, item in sorted(steps, key=_latest_first):
        former = replaced_values(item.resource, step.event) if step.action == "updated" else {}
        if step.action == "deleted" and item.resource.trash:
            _restore_values(run, segment)
            segment = {}
            _restore(run, item.id)
        elif item.resource is projects.PROJECT and any(name in _RULES for name, _ in former):
            _restore_values(run, segment)
            segment = {}
            _remove_what_was_not_there(
                run, [one for one in is_new if one.workspace_id == item.workspace_id], all_of_them=False
            )
            _restore_values(run, {item.id: former})
        elif former:
            segment.setdefault(item.id, {}).update(former)
    _restore_values(run, segment)
    for item in present:
        if item.resource is identity.MEMBER and not item.is_new and _state(run, item) is None:
            run.refresh()
            _scope(run, item)
            _restore_membership(run, item)
    # What moved along with something in between, or was fitted to a workflow of the moment.
    _restore_values(run, {item.id: item.whole() for item in present if not item.is_new and item.resource is tasks.TASK})
    _remove_what_was_not_there(run, is_new)


def _latest_first(pair: tuple[Step, Item]) -> tuple[str, int]:
    return pair[1].workspace_id, -pair[0].event.seq


def _restore_values(run: UndoRun, former: dict[str, dict[Path, Any]]) -> None:
    """Old values of several objects; those of tasks together, as they may refer to each other."""
    together: dict[str, dict[str, Any]] = {}
    others: list[tuple[Item, dict[str, Any], dict[str, Any]]] = []
    run.refresh()
    for name, paths in former.items():
        item = run.items[name]
        now = _state(run, item)
        members = _members(paths, now) if now is not None else {}
        if now is not None and members:
            _scope(run, item)
            if item.resource is tasks.TASK:
                together[name] = members
            else:
                others.append((item, now, members))
    if together:
        tasks.restore_values(run.tx, run.context, together)
    for item, now, members in sorted(others, key=_rights_last):
        run.refresh()
        _restore_values_of_one(run, item, now, members)


def _rights_last(row: tuple[Item, dict[str, Any], dict[str, Any]]) -> int:
    """Sort key: what changes rights comes last, since the caller may take a right from themselves."""
    name = row[0].resource.name
    return _GIVE_RIGHTS.index(name) + 1 if name in _GIVE_RIGHTS else 0


def _members(former: dict[Path, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The members that are to be put back, whole, as far as they are not so already."""
    wanted: dict[str, Any] = {}
    for (name, key), old in former.items():
        if not key:
            wanted[name] = old
            continue
        inner = wanted.setdefault(name, dict(now[name]))
        inner.pop(key, None)
        if old is not ABSENT:
            inner[key] = old
    return {name: value for name, value in wanted.items() if not json.same(now.get(name), value)}


def _restore_values_of_one(run: UndoRun, item: Item, now: dict[str, Any], members: dict[str, Any]) -> None:
    name = item.resource.name
    if item.resource is identity.MEMBER:
        module, owner_id = _owner_of(now)
        module.change_member(run.tx, run.context, owner_id, now["user"], {"role": members["role"]})
        return
    body = {key: json.difference(now[key], value) for key, value in members.items() if key not in DERIVED}
    if body:
        UPDATE[name](run.tx, run.context, item.id, body)
    if "archived_at" in members:
        at = members["archived_at"]
        projects.archive(run.tx, run.context, item.id, archived=at is not None, at=at)


def _remove_what_was_not_there(run: UndoRun, is_new: Sequence[Item], *, all_of_them: bool = True) -> None:
    """What was not there before goes, unless something took it along or it has gone already.

    If not all of them have to go now, what still holds something that stays waits until that has left it.
    """
    for item in sorted(is_new, key=partial(_removed_last, run.context.principal.key_id)):
        now = _state(run, item)
        if now is None or now.get("deleted_at") is not None or not (all_of_them or _is_free(run, item)):
            continue
        run.refresh()
        _scope(run, item)
        _remove(run, item, now)


def _is_free(run: UndoRun, item: Item) -> bool:
    return item.resource in (tasks.TASK, tasks.COMMENT) and not _contents_of_others(run, item)


def _contents_of_others(run: UndoRun, item: Item) -> list[Event | None]:
    """The last events of what lies in an object that goes and is to stay; what came with the object goes with it."""
    inner = [name for name in _contents(run, item) if name not in run.items or not run.items[name].is_new]
    run.tx.budget.spend(query.LOOKUP_STEPS * len(inner))
    last = [log.newest(run.tx, item.workspace_id, name) for name in inner]
    return [event for event in last if event is None or not same_request(event, item)]


def _removed_last(own_key: str | None, item: Item) -> tuple[bool, bool]:
    """What can be reached only through a workspace goes before it, and everything before the key that calls."""
    return item.id == own_key, item.resource is workspaces.WORKSPACE


def _remove(run: UndoRun, item: Item, now: dict[str, Any]) -> None:
    if item.resource is identity.MEMBER:
        module, owner_id = _owner_of(now)
        module.remove_member(run.tx, run.context, owner_id, now["user"])
        return
    refuse(run, [Conflict(item, None, later) for later in _contents_of_others(run, item)])
    DELETE[item.resource.name](run.tx, run.context, item.id)


def _owner_of(member: dict[str, Any]) -> tuple[ModuleType, str]:
    """The module whose members it is one of, and the id of what it is a member of."""
    if member["project_id"] is None:
        return workspaces, member["workspace_id"]
    return projects, member["project_id"]


def _contents(run: UndoRun, item: Item) -> list[str]:
    """What would go to the trash along with an object."""
    if item.resource is tasks.TASK:
        return tasks.descendant_ids(run.tx, item.id)
    if item.resource is projects.PROJECT:
        live = "SELECT id FROM {} WHERE project_id = ? AND deleted_at IS NULL"
        return [row[0] for table in ("tasks", "comments") for row in run.tx.all(live.format(table), (item.id,))]
    return []
