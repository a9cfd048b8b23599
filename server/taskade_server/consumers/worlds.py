"""What somebody may see in a workspace now, and might have seen at any moment since a position of its log.

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
INSIDE: Final = ""
"""The place of what every member of a workspace sees: its own row, its people."""
TEMPLATES: Final = "templates"
OWN: Final = "own"
_FREE: Final = ("admin", "owner")


class Lens(NamedTuple):
    """What the caller's key lets through: kinds of resources, projects (None: all), and whether it reaches the place.

    Beside the user's rights, because a key is changed in another log than that of the workspace.
    """

    readable: tuple[str, ...]
    projects: tuple[str, ...] | None
    reaches: bool

    def shows(self, place: str) -> bool:
        """Whether the key's limits let the place through."""
        if place == OWN:
            return True
        limited = self.projects is not None and place != INSIDE and place not in self.projects
        return self.reaches and not limited


class _Moment(NamedTuple):
    """What was so before an event: of the workspace (role, live) or of one project (member, private)."""

    seq: int
    first: Any
    second: Any


_SAME: Final = object()


@dataclass(slots=True)
class World:
    """A user's rights in a workspace, now and at every moment after `since`."""

    role: str | None
    live: bool
    mine: frozenset[str]
    private: frozenset[str]
    lenses: Sequence[Lens]
    general: list[_Moment] = field(default_factory=list)
    special: dict[str, list[_Moment]] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)
    turned: int = 0
    """The last position at which rights changed that are more than the beginning of a project."""
    _known: dict[str, tuple[list[bool], list[bool], list[bool]]] = field(default_factory=dict)

    def now(self, kind: str, place: str) -> bool:
        """Whether the caller sees that kind of thing in that place."""
        return kind in self.lenses[-1].readable and self._of(place)[0][-1]

    def ever(self, kind: str, place: str) -> bool:
        """Whether the caller saw it at any moment."""
        seen = self._of(place)[1]
        return any(kind in lens.readable and seen[index] for index, lens in enumerate(self.lenses))

    def always(self, kind: str, place: str) -> bool:
        """Whether the caller saw it all the time, so that nothing was kept from them."""
        seen = self._of(place)[2]
        return all(kind in lens.readable and seen[index] for index, lens in enumerate(self.lenses))

    def differs(self) -> bool:
        """Whether there was a change at all that may have brought or taken something."""
        return bool(self.general or self.special or len(self.lenses) > 1)

    def everywhere(self) -> bool:
        """Whether a change concerned all projects, and not only those with changes of their own."""
        return bool(self.general or len(self.lenses) > 1)

    def _of(self, place: str) -> tuple[list[bool], list[bool], list[bool]]:
        """For each lens whether the place is seen now, was ever, was always."""
        found = self._known.get(place)
        if found is None:
            states = list(self._states(place))
            rows = [[lens.shows(place) and seen for seen in states] for lens in self.lenses]
            # A project that began meanwhile kept nothing back before: all in it is newer than the position.
            always = [True] * len(rows) if place in self.born else [all(row) for row in rows]
            found = self._known[place] = ([row[0] for row in rows], [any(row) for row in rows], always)
        return found

    def _states(self, place: str) -> Iterator[bool]:
        """Whether the user's rights showed the place, from now backwards."""
        role, live = self.role, self.live
        member, private = place in self.mine, place in self.private
        yield _shows(place, role, live, member, private)
        own = self.special.get(place, [])
        moments = [(moment.seq, 0, moment) for moment in self.general] + [(moment.seq, 1, moment) for moment in own]
        for _, which, moment in sorted(moments, key=_latest_first):
            if which == 0:
                role = role if moment.first is _SAME else moment.first
                live = live if moment.second is _SAME else moment.second
            else:
                member = member if moment.first is _SAME else moment.first
                private = private if moment.second is _SAME else moment.second
            yield _shows(place, role, live, member, private)


def _latest_first(item: tuple[int, int, _Moment]) -> int:
    return -item[0]


def _shows(place: str, role: str | None, live: bool, member: bool, private: bool) -> bool:
    """The rule of `Grant.sees_project` for one place."""
    if place == OWN:
        return True
    if role is None or not live:
        return False
    if place == INSIDE or role in _FREE:
        return True
    if place == TEMPLATES:
        return role != "guest"
    return member or (role != "guest" and not private)


def world(tx: Tx, principal: Principal, workspace_id: str, since: int, lenses: Sequence[Lens]) -> World | None:
    """The caller's world, the last of `lenses` being the present one; None if too much has changed to tell."""
    changes = log.changes_of_rights(tx, workspace_id, since, principal.user_id, MAX_CHANGES + 1)
    if len(changes) > MAX_CHANGES:
        return None
    found = _present(tx, principal.user_id, workspace_id, lenses)
    for event in reversed(changes):
        _go_back(found, event, principal.user_id)
    return found


def _present(tx: Tx, user_id: str, workspace_id: str, lenses: Sequence[Lens]) -> World:
    role, mine = None, set()
    for project_id, number in tx.all(
        'SELECT project_id, role FROM members WHERE workspace_id = ? AND "user" = ?', (workspace_id, user_id)
    ):
        if project_id is None:
            role = ROLES[number]
        else:
            mine.add(project_id)
    trashed = tx.one("SELECT deleted_at FROM workspaces WHERE id = ?", (workspace_id,))
    private = tx.all("SELECT id FROM projects WHERE workspace_id = ? AND visibility = 1", (workspace_id,))
    live = trashed is not None and trashed[0] is None
    return World(role, live, frozenset(mine), frozenset(row[0] for row in private), lenses)


def _go_back(found: World, event: Event, user_id: str) -> None:
    """Note what was so before an event; they come from the latest to the earliest."""
    previous = json.decode(event.previous) if event.previous else {}
    seq, kind = event.seq, event.type
    if event.resource == "member":
        doc = json.decode(event.data)
        if doc["user"] != user_id:
            return
        there = kind != "member.added"
        if event.project_id is not None:
            _note(found, event.project_id, _Moment(seq, there, _SAME))
        else:
            role = previous.get("role", doc["role"]) if there else None
            found.general.append(_Moment(seq, role, _SAME))
            found.turned = max(found.turned, seq)
    elif event.resource == "workspace":
        if kind in ("workspace.deleted", "workspace.restored"):
            found.general.append(_Moment(seq, _SAME, kind == "workspace.deleted"))
            found.turned = max(found.turned, seq)
    elif kind == "project.created":
        found.born.add(event.object_id)
        found.special.setdefault(event.object_id, [])
    elif kind == "project.purged":
        private = json.decode(event.data)["visibility"] == "private"
        _note(found, event.object_id, _Moment(seq, _SAME, private))
    elif "visibility" in previous:
        _note(found, event.object_id, _Moment(seq, _SAME, previous["visibility"] == "private"))


def _note(found: World, project_id: str, moment: _Moment) -> None:
    found.special.setdefault(project_id, []).append(moment)
    found.turned = max(found.turned, moment.seq)


def lens_of(principal: Principal, key: dict[str, Any], workspace_id: str, kinds: Iterable[tuple[str, str]]) -> Lens:
    """What a key (its document; empty: no key) lets through, of kinds with their scopes."""
    readable = tuple(sorted(kind for kind, scope in kinds if principal.allows(f"{scope}:read")))
    within = key.get("workspace_ids") or [workspace_id]
    return Lens(readable, tuple(sorted(key["project_ids"])) if key.get("project_ids") else None, workspace_id in within)
