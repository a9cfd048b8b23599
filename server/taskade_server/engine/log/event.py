"""An event: one entry of a workspace's log, and what is known of its place."""

from typing import Final, NamedTuple

from taskade_server.kit import json

COLUMNS: Final = (
    "workspace_id",
    "seq",
    "id",
    "type",
    "resource",
    "object_id",
    "project_id",
    "actor_id",
    "key_id",
    "request_id",
    "at",
    "data",
    "previous",
    "address",
    "user_agent",
    "origin",
)

DATA: Final = COLUMNS.index("data")


class Sight(NamedTuple):
    """What is known about the places of some events, beside the rights of who reads them.

    `open`: those projects named by the events, as (workspace, project), that every member of the workspace may see: the
    visibility of a live or deleted project now, and of a purged one at its end. `absent`: ids of events about a user
    who was no member of the event's workspace at the time.
    """

    open: frozenset[tuple[str, str]] = frozenset()
    absent: frozenset[str] = frozenset()


class Event(NamedTuple):
    """One entry of a workspace's log; `data`, `previous` and `origin` are JSON texts.

    All but `sight` is stored. `sight` is looked up when an event is read for others to see; without it, nothing is
    known of the event's project, so that only those whose rights name the project may see the event.
    """

    workspace_id: str
    seq: int
    id: str
    type: str
    resource: str
    object_id: str
    project_id: str | None
    actor_id: str | None
    key_id: str | None
    request_id: str | None
    at: int
    data: str
    previous: str | None
    address: str | None
    user_agent: str | None
    origin: str | None
    sight: Sight = Sight()

    @property
    def moved_from(self) -> str | None:
        """The project that the change took the object out of; None if it stayed in its project."""
        if self.previous is None or '"project_id"' not in self.previous:
            return None
        found: str | None = json.decode(self.previous).get("project_id")
        return found


STORED: Final = COLUMNS
"""The stored members of an event, in order."""
