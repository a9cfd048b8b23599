"""What a user may see in a workspace now, and might have seen at any moment since a position of its log.

Why from the log: an offline client has to be told of everything that it may no longer keep, and what it was sent
depended on rights that have changed meanwhile. Rights are rows like any other, so their history is in the log, and
nobody has to remember for each client what it was shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from taskade_server.domain.identity import ROLES
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.kit import json
from taskade_server.store.database import Tx

MAX_CHANGES: Final = 20_000
# A location is a project, by its id, or one of these.
SHARED: Final = ""
"""The location of what every member of a workspace sees: its own row, its people."""
INTERNAL: Final = "internal"
"""The location of what members see and guests do not, such as templates."""
OWN: Final = "own"
_SEE_ALL: Final = ("admin", "owner")


class KeyLimits(NamedTuple):
    """What the caller's key lets through, beside the user's rights.

    `readable` are kinds of resources, `projects` the only projects (None: all), `reaches` whether the key reaches the
    workspace. Apart from the rights, because a key is changed in another log than that of the workspace.
    """

    readable: tuple[str, ...]
    projects: tuple[str, ...] | None
    reaches: bool

    def allow(self, location: str) -> bool:
        """Whether they let a location through."""
        if location == OWN:
            return True
        limited = self.projects is not None and location != SHARED and location not in self.projects
        return self.reaches and not limited


class WorkspaceRights(NamedTuple):
    """The user's role (None: no member) before the event `seq`, and whether the workspace was live."""

    seq: int
    role: str | None
    live: bool


class ProjectRights(NamedTuple):
    """Whether the user was a member of a project before the event `seq`, and whether the project was private."""

    seq: int
    member: bool
    private: bool


@dataclass(slots=True)
class VisibilityHistory:
    """A user's rights in a workspace, now and at every moment since a position of its log."""

    role: str | None
    live: bool
    memberships: frozenset[str]
    """The projects that the user is a member of now."""
    private: set[str]
    """The private projects."""
    key_limits: Sequence[KeyLimits]
    """The limits of the key at the times of earlier answers, and last of all now."""
    workspace_changes: list[WorkspaceRights] = field(default_factory=list)
    """The latest change first, as in `project_changes`."""
    project_changes: dict[str, list[ProjectRights]] = field(default_factory=dict)
    """By the id of the project."""
    created: set[str] = field(default_factory=set)
    """Projects that were created since the position."""
    last_change: int = 0
    """The last position at which rights changed that are more than the creation of a project."""
    _known: dict[str, tuple[list[bool], list[bool], list[bool]]] = field(default_factory=dict)

    def sees_now(self, kind: str, location: str) -> bool:
        """Whether the caller sees that kind of resource in that location."""
        return kind in self.key_limits[-1].readable and self._seen(location)[0][-1]

    def ever_saw(self, kind: str, location: str) -> bool:
        """Whether the caller saw it at any moment."""
        seen = self._seen(location)[1]
        return any(kind in limits.readable and seen[index] for index, limits in enumerate(self.key_limits))

    def always_saw(self, kind: str, location: str) -> bool:
        """Whether the caller saw it all the time, so that nothing was kept from them."""
        seen = self._seen(location)[2]
        return all(kind in limits.readable and seen[index] for index, limits in enumerate(self.key_limits))

    def changed_everywhere(self) -> bool:
        """Whether a change concerned all projects, and not only those with changes of their own."""
        return bool(self.workspace_changes or len(self.key_limits) > 1)

    def _seen(self, location: str) -> tuple[list[bool], list[bool], list[bool]]:
        """For each of the key's limits whether the location is seen now, was ever seen, and was always seen."""
        found = self._known.get(location)
        if found is None:
            states = list(self._states(location))
            rows = [[limits.allow(location) and seen for seen in states] for limits in self.key_limits]
            # A project that was created meanwhile kept nothing back before: all in it is newer than the position.
            always = [True] * len(rows) if location in self.created else [all(row) for row in rows]
            found = self._known[location] = ([row[0] for row in rows], [any(row) for row in rows], always)
        return found

    def _states(self, location: str) -> Iterator[bool]:
        """Whether the user's rights showed the location, from now backwards."""
        role, live = self.role, self.live
        member, private = location in self.memberships, location in self.private
        yield _shows(location, role, live, member, private)
        changes: list[WorkspaceRights | ProjectRights] = [
            *self.workspace_changes,
            *self.project_changes.get(location, []),
        ]
        for change in sorted(changes, key=_latest_first):
            if isinstance(change, WorkspaceRights):
                role, live = change.role, change.live
            else:
                member, private = change.member, change.private
            yield _shows(location, role, live, member, private)

    def note(self, event: Event, user_id: str) -> None:
        """Note what was so before an event. Events have to come from the latest to the earliest."""
        previous = json.decode(event.previous) if event.previous else {}
        if event.resource == "member":
            self._note_membership(event, previous, user_id)
        elif event.resource == "workspace":
            if event.type in ("workspace.deleted", "workspace.restored"):
                self._note_workspace(event.seq, live=event.type == "workspace.deleted")
        elif event.type == "project.created":
            self.created.add(event.object_id)
            self.project_changes.setdefault(event.object_id, [])
        elif event.type == "project.purged":
            private = json.decode(event.data)["visibility"] == "private"
            if private:  # and so it stays: its members are no members any more, and nobody else ever saw it
                self.private.add(event.object_id)
            self._note_project(event.object_id, event.seq, private=private)
        elif "visibility" in previous:
            self._note_project(event.object_id, event.seq, private=previous["visibility"] == "private")

    def _note_membership(self, event: Event, previous: dict[str, Any], user_id: str) -> None:
        doc = json.decode(event.data)
        if doc["user"] != user_id:
            return
        existed = event.type != "member.added"
        if event.project_id is not None:
            self._note_project(event.project_id, event.seq, member=existed)
            return
        _, live = self._workspace_before()
        role = previous.get("role", doc["role"]) if existed else None
        self.workspace_changes.append(WorkspaceRights(event.seq, role, live))
        self.last_change = max(self.last_change, event.seq)

    def _note_workspace(self, seq: int, *, live: bool) -> None:
        role, _ = self._workspace_before()
        self.workspace_changes.append(WorkspaceRights(seq, role, live))
        self.last_change = max(self.last_change, seq)

    def _workspace_before(self) -> tuple[str | None, bool]:
        """Role and liveness before the earliest change that was noted so far."""
        if not self.workspace_changes:
            return self.role, self.live
        earliest = self.workspace_changes[-1]
        return earliest.role, earliest.live

    def _note_project(
        self, project_id: str, seq: int, *, member: bool | None = None, private: bool | None = None
    ) -> None:
        """Note a change of one project; None: that was the same before it."""
        noted = self.project_changes.setdefault(project_id, [])
        was_member = noted[-1].member if noted else project_id in self.memberships
        was_private = noted[-1].private if noted else project_id in self.private
        noted.append(
            ProjectRights(seq, was_member if member is None else member, was_private if private is None else private)
        )
        self.last_change = max(self.last_change, seq)


def _latest_first(change: WorkspaceRights | ProjectRights) -> int:
    return -change.seq


def _shows(location: str, role: str | None, live: bool, member: bool, private: bool) -> bool:
    """The rule of `Grant.sees_project` for one location."""
    if location == OWN:
        return True
    if role is None or not live:
        return False
    if location == SHARED or role in _SEE_ALL:
        return True
    if location == INTERNAL:
        return role != "guest"
    return member or (role != "guest" and not private)


def history_of(
    tx: Tx, principal: Principal, workspace_id: str, since: int, key_limits: Sequence[KeyLimits]
) -> VisibilityHistory | None:
    """Return the caller's rights since a position; None if they have changed too often to tell.

    The last of `key_limits` are those of now.
    """
    changes = log.changes_of_rights(tx, workspace_id, since, principal.user_id, MAX_CHANGES + 1)
    if len(changes) > MAX_CHANGES:
        return None
    found = _rights_now(tx, principal.user_id, workspace_id, key_limits)
    for event in reversed(changes):
        found.note(event, principal.user_id)
    return found


def _rights_now(tx: Tx, user_id: str, workspace_id: str, key_limits: Sequence[KeyLimits]) -> VisibilityHistory:
    role, memberships = None, set()
    for project_id, number in tx.all(
        'SELECT project_id, role FROM members WHERE workspace_id = ? AND "user" = ?', (workspace_id, user_id)
    ):
        if project_id is None:
            role = ROLES[number]
        else:
            memberships.add(project_id)
    trashed = tx.one("SELECT deleted_at FROM workspaces WHERE id = ?", (workspace_id,))
    private = tx.all("SELECT id FROM projects WHERE workspace_id = ? AND visibility = 1", (workspace_id,))
    live = trashed is not None and trashed[0] is None
    return VisibilityHistory(role, live, frozenset(memberships), {row[0] for row in private}, key_limits)


def key_limits_of(
    principal: Principal, key: dict[str, Any], workspace_id: str, kinds: Iterable[tuple[str, str]]
) -> KeyLimits:
    """Return what a key (its document; empty: no key) lets through of some kinds, each given with its scope."""
    readable = tuple(sorted(kind for kind, scope in kinds if principal.allows(f"{scope}:read")))
    within = key.get("workspace_ids") or [workspace_id]
    projects = tuple(sorted(key["project_ids"])) if key.get("project_ids") else None
    return KeyLimits(readable, projects, workspace_id in within)
