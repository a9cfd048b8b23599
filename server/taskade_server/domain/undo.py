"""Undo: the inverse of changes in the log, made by the same verbs that anybody would use, in one transaction.

Why by the verbs: an old document is not simply written back. Undoing is a change of its own, so it needs the right to
make it, keeps the rules of today (statuses, cycles, the last owner), and tells its events to everybody who listens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Final

from taskade_server.domain import hooks, identity, projects, tasks, workspaces
from taskade_server.engine import edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json
from taskade_server.kit.errors import Invalid, Issue, NotRevertible, RevertConflict
from taskade_server.store.database import Tx

MAX_CHANGES: Final = 1000
MAX_CONFLICTS: Final = 100
_ABSENT: Final = object()
# Follows from other members, yet belongs to what was.
_KEPT: Final = ("completed_at", "archived_at")
# What the tasks of a project have to fit.
_RULES: Final = ("statuses", "fields")
_BY_KEY: Final = ("custom", "object")
_CONTAINERS: Final = ("project_id", "parent_id", "task_id")
_GIVE_RIGHTS: Final = ("project", "workspace", "member")
_WITH_SECRET: Final = ("api_key", "webhook")
_CHANGE: Final[dict[str, Callable[[Tx, Context, str, Any], str]]] = {
    "workspace": workspaces.update, "project": projects.update, "comment": tasks.update_comment,
    "template": projects.update_template, "user": identity.update_user, "api_key": identity.update_key,
    "webhook": hooks.update,
}  # fmt: skip
_REMOVE: Final[dict[str, Callable[[Tx, Context, str], None]]] = {
    "workspace": workspaces.delete, "project": projects.delete, "task": tasks.delete, "comment": tasks.delete_comment,
    "template": projects.delete_template, "user": identity.delete_user, "api_key": identity.delete_key,
    "webhook": hooks.delete,
}  # fmt: skip
_RESTORE: Final[dict[str, Callable[[Tx, Context, str], str]]] = {
    "workspace": workspaces.restore, "project": projects.restore, "task": tasks.restore,
    "comment": tasks.restore_comment, "template": projects.restore_template, "user": identity.restore_user,
}  # fmt: skip

_Path = tuple[str, str]
"""A member, and the key within it where each key stands for itself (custom fields, settings)."""


@dataclass(slots=True)
class _Step:
    """One change of one object, as the log has it."""

    event: Event
    action: str


@dataclass(slots=True)
class _Item:
    """An object with those of its changes that are to be undone, and what it then has to be."""

    resource: Resource
    steps: list[_Step]
    former: dict[_Path, Any] = field(default_factory=dict)
    shared: bool = False
    """Whether others have changed it since, too, and so have a part in it that stays."""

    @property
    def id(self) -> str:
        return self.steps[0].event.object_id

    @property
    def workspace_id(self) -> str:
        return self.steps[0].event.workspace_id

    @property
    def first(self) -> int:
        """The position of the first change."""
        return self.steps[0].event.seq

    @property
    def began(self) -> str:
        """What the first change was; before it was restored, it lay in the trash, whatever happened to it there."""
        actions = [step.action for step in self.steps]
        return next((action for action in actions if action != "updated"), "updated")

    @property
    def doomed(self) -> bool:
        """Whether it did not exist before, or lay in the trash."""
        return self.began in ("created", "restored")

    def whole(self) -> dict[_Path, Any]:
        """All that is known of what it was before: of what was deleted, everything."""
        gone = next((step for step in self.steps if step.action == "deleted"), None)
        if gone is None or self.shared:
            return self.former
        doc = json.decode(gone.event.data)
        members = {(name, ""): doc[name] for name, member in self.resource.fields.items()
                   if (member.writable and not member.create_only) or name in _KEPT if name in doc}  # fmt: skip
        keyed = {name for name, key in self.former if key}
        return {path: value for path, value in members.items() if path[0] not in keyed} | self.former

    def data(self) -> dict[str, Any]:
        """The document after the first change."""
        found: dict[str, Any] = json.decode(self.steps[0].event.data)
        return found


@dataclass(slots=True)
class _Desk:
    """One undoing: the caller, whose rights it may change, and the objects by id."""

    tx: Tx
    context: Context
    items: dict[str, _Item]
    altered: int = 0

    def refresh(self) -> None:
        """Let the caller have the rights that this unit has given or taken."""
        if log.altered_grants(self.tx) == self.altered:
            return
        self.altered = log.altered_grants(self.tx)
        principal, key = self.context.principal, identity.own_key(self.tx, self.context)
        grants = identity.grants_of(
            self.tx, principal.user_id, key.get("workspace_ids") or (), key.get("project_ids") or ()
        )
        self.context = replace(self.context, principal=replace(principal, grants=grants, queries={}))


def revert(tx: Tx, context: Context, found: Sequence[Event], origin: dict[str, Any]) -> list[str]:
    """Undo the changes that some events tell of; the ids of the events that this was about.

    RevertConflict where others have changed the same since; NotRevertible for what cannot be undone at all.
    """
    steps = _steps(tx, found)
    if len(steps) > MAX_CHANGES:
        detail = (
            f"These are {len(steps):,} changes; at most {MAX_CHANGES:,} can be undone at once. Choose a shorter time."
        )
        raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
    items: dict[str, _Item] = {}
    for step in steps:
        items.setdefault(step.event.object_id, _Item(REGISTRY[step.event.resource], [])).steps.append(step)
    actor = replace(context.actor, origin=json.encode(origin))
    desk = _Desk(tx, replace(context, actor=actor, if_match=None, if_none_match=None), items)
    _hold(desk)
    _check(desk)
    present = [item for item in items.values() if not _comes_with_another(desk, item)]
    _go_back(desk, present)
    return [step.event.id for step in steps]


def _hold(desk: _Desk) -> None:
    """Let nobody change the objects between the look at their history and what is made of it."""
    if desk.tx.for_update:
        for name in sorted(desk.items):
            table = desk.items[name].resource.table
            desk.tx.one(f"SELECT n FROM {table} WHERE id = ?{desk.tx.for_update}", (name,))


def _steps(tx: Tx, found: Iterable[Event]) -> list[_Step]:
    """The changes behind events, oldest first, each once: `task.completed` stands for the change that it came with."""
    steps: dict[str, _Step] = {}
    for event in found:
        general = event
        if _action(event) is None:
            near = log.select(
                tx, event.workspace_id, event.seq - 8, event.seq, limit=8, descending=True, object_id=event.object_id
            )
            general = next((other for other in near if _action(other) and other.data == event.data), event)
        action = _action(general)
        if action is None or action == "purged":
            raise _impossible(event, "what was removed for good cannot be brought back")
        steps[general.id] = _Step(general, action)
    return sorted(steps.values(), key=lambda step: (step.event.workspace_id, step.event.seq))


def _action(event: Event) -> str | None:
    """What an event says of its object; None if it only says more narrowly what another one does."""
    resource = REGISTRY[event.resource]
    return next((action for action in resource.actions if resource.event_type(action) == event.type), None)


def _impossible(event: Event, why: str) -> NotRevertible:
    return NotRevertible(
        f"The {event.type} of {event.object_id} cannot be undone: {why}.", extra={"event_id": event.id}
    )


# ---- what stands in the way ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Conflict:
    """Something that was changed after the change which is to be undone."""

    item: _Item
    member: str | None
    later: Event | None

    def shown(self) -> dict[str, Any]:
        return {
            "resource": self.item.resource.name, "object_id": self.item.id, "member": self.member,
            "event_id": self.item.steps[0].event.id, "later_event_id": self.later.id if self.later else None,
        }  # fmt: skip


def _check(desk: _Desk) -> None:
    conflicts: list[_Conflict] = []
    for item in desk.items.values():
        ended = item.steps[-1].action == "deleted"
        if item.resource.name in _WITH_SECRET and ended and item.began != "created":
            raise _impossible(item.steps[-1].event, "its secret is gone; create another one")
        if not _comes_with_another(desk, item):
            conflicts += _conflicts_of(desk, item)
        if len(conflicts) >= MAX_CONFLICTS:
            break
    _refuse(conflicts)


def _refuse(conflicts: Sequence[_Conflict]) -> None:
    if conflicts:
        one = conflicts[0]
        what = f"its {one.member} was" if one.member else "it was"
        more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        detail = f"The {one.item.resource.name} {one.item.id} stands in the way: {what} changed since{more}."
        shown = [conflict.shown() for conflict in conflicts[:MAX_CONFLICTS]]
        raise RevertConflict(detail, extra={"conflicts": shown})


def _conflicts_of(desk: _Desk, item: _Item) -> Iterator[_Conflict]:
    """Collect what the object was before, and name what others have done to the same since."""
    mine = {step.event.seq for step in item.steps}
    since: dict[_Path, int] = {}
    for step in item.steps:
        if step.action == "updated":
            for path, old in _changed(item.resource, step.event).items():
                if path not in since:
                    since[path], item.former[path] = step.event.seq, old
    if item.began == "created" and item.resource.name == "workspace":
        yield from _others_inside_workspace(desk, item)
    last: _Step | None = None
    for other in _later(desk.tx, item):
        last = other
        if other.event.seq in mine:
            continue
        if other.action == "purged":
            raise _impossible(item.steps[-1].event, "the object has been removed for good since")
        if other.action == "updated":
            item.shared = True
            paths = _changed(item.resource, other.event)
            known = next(
                (path for path in paths if item.doomed or since.get(path, other.event.seq) < other.event.seq), None
            )
            if known is not None:
                yield _Conflict(item, ".".join(part for part in known if part), other.event)
    if last is not None and last.event.seq not in mine and last.action == "deleted" and not item.doomed:
        yield _Conflict(item, "deleted_at" if item.resource.trash else None, last.event)


def _later(tx: Tx, item: _Item) -> Iterator[_Step]:
    """All that happened to the object from its first change on."""
    position = item.first - 1
    while True:
        found = log.select(tx, item.workspace_id, position, log.MAX_SEQ, limit=1000, object_id=item.id)
        for event in found:
            action = _action(event)
            if action is not None:
                yield _Step(event, action)
        if not found:
            return
        position = found[-1].seq


def _changed(resource: Resource, event: Event) -> dict[_Path, Any]:
    """The old values that an update replaced, of members that can be put back."""
    previous, data = json.decode(event.previous or "{}"), json.decode(event.data)
    found: dict[_Path, Any] = {}
    for name, old in previous.items():
        member = resource.fields.get(name)
        if member is None or (not member.writable and name not in _KEPT):
            continue
        if member.kind in _BY_KEY:
            new = data.get(name) or {}
            for key in {**(old or {}), **new}:
                before, after = (old or {}).get(key, _ABSENT), new.get(key, _ABSENT)
                if before is _ABSENT or after is _ABSENT or not json.same(before, after):
                    found[name, key] = before
        else:
            found[name, ""] = old
    return found


def _others_inside_workspace(desk: _Desk, item: _Item) -> Iterator[_Conflict]:
    """A new workspace goes as a whole, with what others may have put into it."""
    known = {step.event.seq for other in desk.items.values() for step in other.steps if other.workspace_id == item.id}
    later = log.read_after(desk.tx, item.id, max(known), 100)
    yield from (_Conflict(item, None, event) for event in later if not _same_request(event, item))


def _comes_with_another(desk: _Desk, item: _Item) -> bool:
    """Whether something that goes as a whole takes the object along: a new workspace, the members of what is new."""
    home = desk.items.get(item.workspace_id)
    if home is not None and home is not item and home.began == "created":
        return item.resource is not identity.USER
    if item.resource is not identity.MEMBER:
        return False
    doc = item.data()
    return any(
        (other := desk.items.get(doc[name] or "")) is not None and other.began == "created"
        for name in ("user", "project_id")
    )


# ---- undoing ---------------------------------------------------------------------------------------------------------


def _state(desk: _Desk, item: _Item) -> dict[str, Any] | None:
    """The object as it is now, also in the trash; None if there is none."""
    row = desk.tx.one(f"SELECT doc FROM {item.resource.table} WHERE id = ?", (item.id,))
    return json.decode(row[0]) if row else None


def _scope(desk: _Desk, item: _Item) -> None:
    resource = item.resource
    if resource is identity.MEMBER:
        resource = workspaces.WORKSPACE if item.data()["project_id"] is None else projects.PROJECT
    edit.scope(desk.context, resource, "write")


def _bring_back(desk: _Desk, object_id: str) -> None:
    """Restore what was deleted, with what went along, and before it what it lies in, if that was deleted as well."""
    item = desk.items.get(object_id)
    row = None
    if item is not None and item.resource.trash:
        row = desk.tx.one(f"SELECT trash_root, doc FROM {item.resource.table} WHERE id = ?", (object_id,))
    doc = json.decode(row[1]) if row else {}
    if item is None or row is None or doc["deleted_at"] is None:
        return
    if row[0] != object_id and row[0] in desk.items:
        _bring_back(desk, row[0])
        return
    for name in _CONTAINERS:
        if doc.get(name):
            _bring_back(desk, doc[name])
    desk.refresh()
    _scope(desk, item)
    _RESTORE[item.resource.name](desk.tx, desk.context, object_id)


def _readmit(desk: _Desk, item: _Item) -> None:
    """A membership begins anew, with the role of then."""
    doc = item.data()
    role = item.former.get(("role", ""), doc["role"])
    place = "project_id IS NULL" if doc["project_id"] is None else "project_id = ?"
    params = (doc["workspace_id"], doc["user"], *([doc["project_id"]] if doc["project_id"] else []))
    row = desk.tx.one(f'SELECT doc FROM members WHERE workspace_id = ? AND "user" = ? AND {place}', params)
    if row is not None:
        present = json.decode(row[0])
        if present["role"] != role:
            _refuse([_Conflict(item, "role", log.newest(desk.tx, present["workspace_id"], present["id"]))])
        return
    if doc["project_id"] is None:
        workspaces.readmit(desk.tx, desk.context, doc["workspace_id"], doc["user"], role)
    else:
        projects.add_member(desk.tx, desk.context, doc["project_id"], {"user": doc["user"], "role": role})


def _go_back(desk: _Desk, present: Sequence[_Item]) -> None:
    """From the latest change to the first: old values are put back, and what was deleted comes back.

    All at once as far as the order does not matter. It does where something comes back, and where a project's workflow
    or fields change: tasks have to leave a status before it goes, and it has to be there before they come back.
    """
    doomed = [item for item in present if item.doomed]
    segment: dict[str, dict[_Path, Any]] = {}
    steps = [(step, item) for item in present if not item.doomed for step in item.steps]
    for step, item in sorted(steps, key=_latest_first):
        former = _changed(item.resource, step.event) if step.action == "updated" else {}
        if step.action == "deleted" and item.resource.trash:
            _put_back(desk, segment)
            segment = {}
            _bring_back(desk, item.id)
        elif item.resource is projects.PROJECT and any(name in _RULES for name, _ in former):
            _put_back(desk, segment)
            segment = {}
            _take_away(desk, [one for one in doomed if one.workspace_id == item.workspace_id], all_of_them=False)
            _put_back(desk, {item.id: former})
        elif former:
            segment.setdefault(item.id, {}).update(former)
    _put_back(desk, segment)
    for item in present:
        if item.resource is identity.MEMBER and not item.doomed and _state(desk, item) is None:
            desk.refresh()
            _scope(desk, item)
            _readmit(desk, item)
    # What moved along with something in between, or was fitted to a workflow of the moment.
    _put_back(desk, {item.id: item.whole() for item in present if not item.doomed and item.resource is tasks.TASK})
    _take_away(desk, doomed)


def _latest_first(pair: tuple[_Step, _Item]) -> tuple[str, int]:
    return pair[1].workspace_id, -pair[0].event.seq


def _put_back(desk: _Desk, former: dict[str, dict[_Path, Any]]) -> None:
    """Old values of several objects; those of tasks together, as they may refer to each other."""
    together: dict[str, dict[str, Any]] = {}
    others: list[tuple[_Item, dict[str, Any], dict[str, Any]]] = []
    desk.refresh()
    for name, paths in former.items():
        item = desk.items[name]
        now = _state(desk, item)
        members = _members(paths, now) if now is not None else {}
        if now is not None and members:
            _scope(desk, item)
            if item.resource is tasks.TASK:
                together[name] = members
            else:
                others.append((item, now, members))
    if together:
        tasks.put_back(desk.tx, desk.context, together)
    for item, now, members in sorted(others, key=_rights_last):
        desk.refresh()
        _put_one_back(desk, item, now, members)


def _rights_last(row: tuple[_Item, dict[str, Any], dict[str, Any]]) -> int:
    """Whoever takes a right from themselves does so at the end."""
    name = row[0].resource.name
    return _GIVE_RIGHTS.index(name) + 1 if name in _GIVE_RIGHTS else 0


def _members(former: dict[_Path, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The members that are to be put back, whole, as far as they are not so already."""
    wanted: dict[str, Any] = {}
    for (name, key), old in former.items():
        if not key:
            wanted[name] = old
            continue
        inner = wanted.setdefault(name, dict(now[name]))
        inner.pop(key, None)
        if old is not _ABSENT:
            inner[key] = old
    return {name: value for name, value in wanted.items() if not json.same(now.get(name), value)}


def _put_one_back(desk: _Desk, item: _Item, now: dict[str, Any], members: dict[str, Any]) -> None:
    name = item.resource.name
    if item.resource is identity.MEMBER:
        module, place = _place_of(now)
        module.change_member(desk.tx, desk.context, place, now["user"], {"role": members["role"]})
        return
    body = {key: json.difference(now[key], value) for key, value in members.items() if key not in _KEPT}
    if body:
        _CHANGE[name](desk.tx, desk.context, item.id, body)
    if "archived_at" in members:
        at = members["archived_at"]
        projects.archive(desk.tx, desk.context, item.id, archived=at is not None, at=at)


def _take_away(desk: _Desk, doomed: Sequence[_Item], *, all_of_them: bool = True) -> None:
    """What was not there before goes, unless something took it along or it has gone already.

    If not all of them have to go now, what still holds something that stays waits until that has left it.
    """
    for item in sorted(doomed, key=_is_workspace):
        now = _state(desk, item)
        if now is None or now.get("deleted_at") is not None or not (all_of_them or _is_free(desk, item)):
            continue
        desk.refresh()
        _scope(desk, item)
        _remove(desk, item, now)


def _is_free(desk: _Desk, item: _Item) -> bool:
    return item.resource in (tasks.TASK, tasks.COMMENT) and not _strangers(desk, item)


def _strangers(desk: _Desk, item: _Item) -> list[Event | None]:
    """The last events of what lies in an object that goes and is to stay; what came with the object goes with it."""
    inner = [name for name in _inside(desk, item) if name not in desk.items or not desk.items[name].doomed]
    last = [log.newest(desk.tx, item.workspace_id, name) for name in inner]
    return [event for event in last if event is None or not _same_request(event, item)]


def _same_request(event: Event, item: _Item) -> bool:
    request_id = item.steps[0].event.request_id
    return request_id is not None and event.request_id == request_id


def _is_workspace(item: _Item) -> bool:
    """What can be reached only through a workspace goes before it."""
    return item.resource is workspaces.WORKSPACE


def _remove(desk: _Desk, item: _Item, now: dict[str, Any]) -> None:
    if item.resource is identity.MEMBER:
        module, place = _place_of(now)
        module.remove_member(desk.tx, desk.context, place, now["user"])
        return
    _refuse([_Conflict(item, None, later) for later in _strangers(desk, item)])
    _REMOVE[item.resource.name](desk.tx, desk.context, item.id)


def _place_of(member: dict[str, Any]) -> tuple[ModuleType, str]:
    """The module whose members it is one of, and the id of what it is a member of."""
    if member["project_id"] is None:
        return workspaces, member["workspace_id"]
    return projects, member["project_id"]


def _inside(desk: _Desk, item: _Item) -> list[str]:
    """What would go to the trash along with an object."""
    if item.resource is tasks.TASK:
        return tasks.inside(desk.tx, item.id)
    if item.resource is projects.PROJECT:
        live = "SELECT id FROM {} WHERE project_id = ? AND deleted_at IS NULL"
        return [row[0] for table in ("tasks", "comments") for row in desk.tx.all(live.format(table), (item.id,))]
    return []
