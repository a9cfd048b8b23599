"""What others have done since that stands in the way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from taskade_server.domain import secrets
from taskade_server.domain.undo.changes import (
    Item,
    Path,
    Step,
    UndoRun,
    action_of,
    cannot_be_undone,
    comes_with_another,
    replaced_values,
    same_request,
)
from taskade_server.engine import events, log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.kit import json
from taskade_server.kit.errors import RevertConflict
from taskade_server.store.database import Tx

MAX_CONFLICTS: Final = 100

_GONE: Final[Mapping[str, str]] = MappingProxyType({"api_key": "secret", "webhook": "secret", "secret": "value"})
"""What a kind of resource has that goes with it and that the log does not know."""


@dataclass(slots=True)
class Conflict:
    """Something that was changed after the change which is to be undone."""

    item: Item
    member: str | None
    later: Event | None

    def shown(self, principal: Principal) -> dict[str, Any]:
        """Return the conflict for a response. A later change that the caller cannot see is only said to exist."""
        hidden = self.later is not None and not events.sees(principal, self.later)
        later = None if hidden or self.later is None else self.later.id
        return {
            "resource": self.item.resource.name,
            "object_id": self.item.id,
            "member": None if hidden else self.member,
            "event_id": self.item.steps[0].event.id,
            "later_event_id": later,
        }


def refuse_conflicts(run: UndoRun) -> None:
    conflicts: list[Conflict] = []
    for item in run.items.values():
        if item.first_action != "created":
            _refuse_secret(run, item)
        if not comes_with_another(run, item):
            conflicts += _conflicts_of(run, item)
        if len(conflicts) >= MAX_CONFLICTS:
            break
    refuse(run, conflicts)


def _refuse_secret(run: UndoRun, item: Item) -> None:
    """NotRevertible for what would take a secret that is kept nowhere."""
    lost = _GONE.get(item.resource.name)
    if lost is not None and item.steps[-1].action == "deleted":
        raise cannot_be_undone(item.steps[-1].event, f"its {lost} is gone; create another one")
    if item.resource is not secrets.SECRET:
        return
    row = run.tx.one("SELECT doc FROM secrets WHERE id = ?", (item.id,))
    present = json.decode(row[0]) if row else None
    for step in item.steps:
        previous = json.decode(step.event.previous or "{}")
        why = secrets.cannot_be_undone_because(previous, present, run.context.principal.user_id)
        if why is not None:
            raise cannot_be_undone(step.event, why)


def refuse(run: UndoRun, conflicts: Sequence[Conflict]) -> None:
    if conflicts:
        one = conflicts[0]
        shown = [conflict.shown(run.context.principal) for conflict in conflicts[:MAX_CONFLICTS]]
        what = f"its {shown[0]['member']} was" if shown[0]["member"] else "it was"
        more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        detail = f"The {one.item.resource.name} {one.item.id} stands in the way: {what} changed since{more}."
        raise RevertConflict(detail, extra={"conflicts": shown})


def _conflicts_of(run: UndoRun, item: Item) -> Iterator[Conflict]:
    """Collect what the object was before, and name what others have done to the same since."""
    mine = {step.event.seq for step in item.steps}
    since: dict[Path, int] = {}
    for step in item.steps:
        if step.action == "updated":
            for path, old in replaced_values(item.resource, step.event).items():
                if path not in since:
                    since[path], item.former[path] = step.event.seq, old
    if item.first_action == "created" and item.resource.name == "workspace":
        yield from _others_inside_workspace(run, item)
    last: Step | None = None
    for other in _later(run.tx, item):
        last = other
        if other.event.seq in mine:
            continue
        if other.action == "purged":
            raise cannot_be_undone(item.steps[-1].event, "the object has been removed for good since")
        if other.action == "updated":
            item.shared = True
            paths = replaced_values(item.resource, other.event)
            known = next(
                (path for path in paths if item.is_new or since.get(path, other.event.seq) < other.event.seq), None
            )
            if known is not None:
                yield Conflict(item, ".".join(part for part in known if part), other.event)
    if last is not None and last.event.seq not in mine and last.action == "deleted" and not item.is_new:
        yield Conflict(item, "deleted_at" if item.resource.trash else None, last.event)


def _later(tx: Tx, item: Item) -> Iterator[Step]:
    """All that happened to the object from its first change on."""
    position = item.first - 1
    while True:
        found = log.select(tx, item.workspace_id, position, log.MAX_SEQ, limit=1000, object_id=item.id)
        for event in found:
            action = action_of(event)
            if action is not None:
                yield Step(event, action)
        if not found:
            return
        position = found[-1].seq


def _others_inside_workspace(run: UndoRun, item: Item) -> Iterator[Conflict]:
    """A new workspace goes as a whole, with what others may have put into it."""
    known = {step.event.seq for other in run.items.values() for step in other.steps if other.workspace_id == item.id}
    later = log.read_after(run.tx, item.id, max(known), 100)
    yield from (Conflict(item, None, event) for event in later if not same_request(event, item))
