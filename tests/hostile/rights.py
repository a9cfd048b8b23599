"""Who had the right to read which text, and when: a small model, made from the log's rows and from nothing else.

Why made from rows: the server decides with its own code, so a fault of that code must not decide here, too. The log
says where each text has been and who was a member of what at which moment; the rules for that are a page in the guide.
"""

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

# No id has a "u".
MARKER: Final = re.compile(r"zqu[0-9a-z]{11}")
ADMINS: Final = ("admin", "owner")
ALWAYS: Final = 0
_SCOPES: Final = {
    "task": "tasks", "comment": "comments", "project": "projects", "template": "templates", "user": "users",
    "past_user": "users", "workspace": "workspaces", "api_key": "api-keys", "webhook": "webhooks", "member": "projects",
    "secret": "secrets", "automation": "automations",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What the model needs of an event. `data` is the JSON text of the object.

    `at` is when the event could be seen, in milliseconds since 1970: on PostgreSQL that of the commit.
    """

    workspace_id: str
    seq: int
    type: str
    resource: str
    object_id: str
    project_id: str | None
    at: int
    data: str
    previous: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text was: an object of a resource, in a workspace and perhaps a project, of a user if it is personal."""

    resource: str
    workspace_id: str
    project_id: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose rights are asked about. `key_id` None: all that the user may do; a scope of "" is needed for nothing."""

    user_id: str | None
    key_id: str | None


@dataclass(slots=True)
class History:
    """Values over time: what holds from a moment on, in milliseconds since 1970."""

    moments: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def note(self, at: int, value: Any) -> None:
        """Values of several logs may come out of order: they are put where they belong."""
        place = bisect_right(self.moments, at)
        self.moments.insert(place, at)
        self.values.insert(place, value)

    def at(self, moment: int) -> Any:
        """The value at a moment; None before the first."""
        place = bisect_right(self.moments, moment)
        return self.values[place - 1] if place else None

    def told(self) -> str:
        """The whole of it, for a report."""
        return ", ".join(f"{value} from {moment}" for moment, value in zip(self.moments, self.values, strict=True))

    def during(self, begin: int, end: int) -> Iterator[int]:
        """The moments at which the value changes between these two."""
        yield from self.moments[bisect_right(self.moments, begin) : bisect_right(self.moments, end)]


class Rights:
    """The model. Feed it the rows of all logs, in the order of each log."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[Place, int]] = defaultdict(dict)
        """Where each marker has been, and since when."""
        self.urls: dict[str, set[str]] = defaultdict(set)
        """The users whose webhooks have had a url, by the url's last segment."""
        self._members: dict[tuple[str, str], History] = defaultdict(History)
        self._visibility: dict[str, History] = defaultdict(History)
        self._live: dict[str, History] = defaultdict(History)
        self._keys: dict[str, History] = defaultdict(History)
        self._known: dict[tuple[Caller, Place], int] = {}
        self._workspaces_of: dict[str, set[str]] = defaultdict(set)

    def feed(self, rows: Iterable[Row]) -> None:
        """Take in what has happened."""
        for row in rows:
            data = json.loads(row.data)
            self._note(row, data)
            if row.type.endswith((".deleted", ".purged")) and row.resource in ("api_key",):
                continue
            owner = row.object_id if row.resource == "user" else data.get("user_id")
            place = Place(row.resource, row.workspace_id, row.project_id or data.get("project_id"), owner)
            for marker in MARKER.findall(row.data):
                self.texts[marker].setdefault(place, row.at)
            if row.resource == "user" and self._was_told(row):
                # What they were called until then as well: the members of that moment saw it.
                for marker in MARKER.findall(f"{row.data} {row.previous}"):
                    self.texts[marker].setdefault(replace(place, resource="past_user"), row.at)

    def _was_told(self, row: Row) -> bool:
        """Whether the user was a member when an event told of them: it stays in the log for members of then and now."""
        member = self._members[row.workspace_id, row.object_id].at(row.at)
        return row.type == "user.created" or member is not None

    def _note(self, row: Row, data: dict[str, Any]) -> None:
        gone = row.type.endswith((".deleted", ".removed", ".purged"))
        match row.resource:
            case "member":
                where = data["project_id"] or data["workspace_id"]
                self._members[where, data["user"]].note(row.at, None if gone else data["role"])
                if data["project_id"] is None:
                    self._workspaces_of[data["user"]].add(row.workspace_id)
            case "project":
                self._visibility[row.object_id].note(row.at, data["visibility"])
            case "workspace":
                self._live[row.object_id].note(row.at, not gone)
            case "api_key":
                limits = (data["scopes"], data["workspace_ids"], data["project_ids"])
                self._keys[row.object_id].note(row.at, None if gone else limits)
            case "webhook":
                self.urls[str(data.get("url", "")).rpartition("/")[2]].add(data["user_id"])

    def may_read(self, caller: Caller, marker: str, begin: int, end: int, audit: bool = False) -> bool:
        """Whether the caller had the right to a text at some moment from `begin` to `end`, after the text was there."""
        places = self.texts.get(marker, {})
        return any(
            since <= end and self._ever(caller, place, max(begin, since), end, audit) for place, since in places.items()
        )

    def _ever(self, caller: Caller, place: Place, begin: int, end: int, audit: bool) -> bool:
        known = self._known.get((caller, place))
        if known is not None and begin <= known <= end and not audit:
            return True
        for moment in sorted({begin, end, *self._changes(caller, place, begin, end)}, reverse=True):
            if self._at(caller, place, moment, audit):
                if not audit:
                    self._known[caller, place] = moment
                return True
        return False

    def _changes(self, caller: Caller, place: Place, begin: int, end: int) -> Iterator[int]:
        """When the answer may have become another one."""
        user = caller.user_id or ""
        histories = [self._members.get((place.workspace_id, user)), self._members.get((place.project_id or "", user)),
                     self._visibility.get(place.project_id or ""), self._keys.get(caller.key_id or ""),
                     self._live.get(place.workspace_id)]  # fmt: skip
        if place.resource == "user":
            for workspace in self._workspaces_of[user] | self._workspaces_of[place.user_id or ""]:
                histories += [
                    self._members.get((workspace, user)),
                    self._live.get(workspace),
                    self._members.get((workspace, place.user_id or "")),
                ]
        for history in histories:
            if history is not None:
                yield from history.during(begin, end)

    def _at(self, caller: Caller, place: Place, moment: int, audit: bool) -> bool:
        """The rules of the guide at one moment."""
        if caller.user_id is None:
            return False
        scopes, workspaces, projects = ["*"], [], []
        if caller.key_id is not None:
            limits = self._keys[caller.key_id].at(moment)
            if limits is None:
                return False
            scopes, workspaces, projects = limits
        if not _covers(scopes, place, own=place.resource == "user" and place.user_id == caller.user_id, audit=audit):
            return False
        if workspaces and place.workspace_id not in workspaces and place.resource not in ("user", "api_key"):
            return False
        if audit and place.resource in ("api_key", "user") and self._was_there(caller.user_id, place, moment):
            return True
        return self._by_role(caller.user_id, place, moment, set(projects))

    def _was_there(self, admin: str, place: Place, moment: int) -> bool:
        """Whether somebody administers a workspace in which a user or the user of a key may have acted.

        An audit log names them as they are called now.
        """
        homes = self._workspaces_of[place.user_id or ""]
        return any(self._members[home, admin].at(moment) in ADMINS for home in homes)

    def _by_role(self, user: str, place: Place, moment: int, projects: set[str]) -> bool:
        role = self._members[place.workspace_id, user].at(moment)
        if place.resource == "api_key":
            return place.user_id == user or role in ADMINS
        if place.resource == "user":
            return place.user_id == user or self._share_a_workspace(user, place.user_id or "", moment)
        if role is None:
            return False
        if place.resource == "workspace":
            return True
        if self._live[place.workspace_id].at(moment) is False:
            return False
        if place.resource == "past_user":
            return True
        limited = bool(projects) and place.project_id not in projects
        if place.resource in ("webhook", "automation"):
            return role in ADMINS or (place.user_id == user and not limited)
        if place.resource in ("template", "secret"):
            return role != "guest" and not projects
        if limited:
            return False
        if role in ADMINS:
            return True
        member = self._members[place.project_id or "", user].at(moment) is not None
        return member or (role == "member" and self._visibility[place.project_id or ""].at(moment) != "private")

    def _share_a_workspace(self, one: str, other: str, moment: int) -> bool:
        return any(
            self._members[workspace, one].at(moment) and self._members[workspace, other].at(moment)
            for workspace in self._workspaces_of[one] & self._workspaces_of[other]
        )

    def explain(self, marker: str) -> str:
        """Where a text has been since when, and when its user was a member there, for a report."""
        places = self.texts.get(marker)
        if not places:
            return "it was never stored"
        return "; ".join(
            f"{place.resource} of {place.user_id or '-'} in {place.project_id or place.workspace_id} since {since}"
            f" (a member: {self._members[place.workspace_id, place.user_id or ''].told()})"
            for place, since in places.items()
        )


def _covers(scopes: list[str], place: Place, *, own: bool, audit: bool) -> bool:
    """Whether a key's scopes are enough to read a resource. Workspaces and projects have their own members."""
    name = _SCOPES[place.resource]
    enough = {"*", f"{name}:read", f"{name}:write"}
    return own or bool(enough & set(scopes)) or (audit and "audit:read" in scopes)
