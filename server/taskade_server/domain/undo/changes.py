"""The changes that are to be undone, by the objects that they changed."""

from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.domain import identity
from taskade_server.engine import log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json
from taskade_server.kit.errors import NotRevertible
from taskade_server.store.database import Tx

ABSENT: Final = object()

# Follows from other members, yet belongs to what was.
DERIVED: Final = ("completed_at", "archived_at")

_BY_KEY: Final = ("custom", "object")

Path = tuple[str, str]
"""A member, and the key within it where each key stands for itself (custom fields, settings)."""


@dataclass(slots=True)
class Step:
    """One change of one object, as the log has it."""

    event: Event
    action: str


@dataclass(slots=True)
class Item:
    """An object with those of its changes that are to be undone, and what it then has to be."""

    resource: Resource
    steps: list[Step]
    former: dict[Path, Any] = field(default_factory=dict)
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
    def first_action(self) -> str:
        """What the first change was; before it was restored, it lay in the trash, whatever happened to it there."""
        actions = [step.action for step in self.steps]
        return next((action for action in actions if action != "updated"), "updated")

    @property
    def is_new(self) -> bool:
        """Whether it did not exist before, or lay in the trash."""
        return self.first_action in ("created", "restored")

    def whole(self) -> dict[Path, Any]:
        """All that is known of what it was before: of what was deleted, everything."""
        gone = next((step for step in self.steps if step.action == "deleted"), None)
        if gone is None or self.shared:
            return self.former
        doc = json.decode(gone.event.data)
        members = {
            (name, ""): doc[name]
            for name, member in self.resource.fields.items()
            if (member.writable and not member.create_only) or name in DERIVED
            if name in doc
        }
        keyed = {name for name, key in self.former if key}
        return {path: value for path, value in members.items() if path[0] not in keyed} | self.former

    def data(self) -> dict[str, Any]:
        """The document after the first change."""
        found: dict[str, Any] = json.decode(self.steps[0].event.data)
        return found


@dataclass(slots=True)
class UndoRun:
    """One undoing: the caller, whose rights it may change, and the objects by id."""

    tx: Tx
    context: Context
    items: dict[str, Item]
    altered: int = 0

    def refresh(self) -> None:
        """Let the caller have the rights that this unit has given or taken."""
        if log.rights_changes(self.tx) == self.altered:
            return
        self.altered = log.rights_changes(self.tx)
        self.context = identity.with_present_rights(self.tx, self.context)


def action_of(event: Event) -> str | None:
    """What an event says of its object; None if it only says more narrowly what another one does."""
    resource = REGISTRY[event.resource]
    return next((action for action in resource.actions if resource.event_type(action) == event.type), None)


def cannot_be_undone(event: Event, why: str) -> NotRevertible:
    return NotRevertible(
        f"The {event.type} of {event.object_id} cannot be undone: {why}.", extra={"event_id": event.id}
    )


def replaced_values(resource: Resource, event: Event) -> dict[Path, Any]:
    """The old values that an update replaced, of members that can be put back."""
    previous, data = json.decode(event.previous or "{}"), json.decode(event.data)
    found: dict[Path, Any] = {}
    for name, old in previous.items():
        member = resource.fields.get(name)
        if member is None or (not member.writable and name not in DERIVED):
            continue
        if member.kind in _BY_KEY:
            new = data.get(name) or {}
            for key in {**(old or {}), **new}:
                before, after = (old or {}).get(key, ABSENT), new.get(key, ABSENT)
                if before is ABSENT or after is ABSENT or not json.same(before, after):
                    found[name, key] = before
        else:
            found[name, ""] = old
    return found


def comes_with_another(run: UndoRun, item: Item) -> bool:
    """Whether something that goes as a whole takes the object along: a new workspace, the members of what is new."""
    home = run.items.get(item.workspace_id)
    if home is not None and home is not item and home.first_action == "created":
        return item.resource is not identity.USER
    if item.resource is not identity.MEMBER:
        return False
    doc = item.data()
    return any(
        (other := run.items.get(doc[name] or "")) is not None and other.first_action == "created"
        for name in ("user", "project_id")
    )


def same_request(event: Event, item: Item) -> bool:
    request_id = item.steps[0].event.request_id
    return request_id is not None and event.request_id == request_id
