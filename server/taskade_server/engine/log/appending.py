"""The events of a unit of work: gathered while it goes on, and numbered and written at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from taskade_server.engine.log.change import Actor, Change
from taskade_server.engine.log.event import COLUMNS, DATA
from taskade_server.engine.log.rows import insert_together, write_many
from taskade_server.kit import ids, json
from taskade_server.store.database import Tx

_EVENTS: Final = "events"

# A pending event is a list of the values of COLUMNS from "type" on; these are the positions of some of them.
_FIRST: Final = COLUMNS.index("type")
_TYPE: Final = 0
_RESOURCE: Final = COLUMNS.index("resource") - _FIRST
OBJECT: Final = COLUMNS.index("object_id") - _FIRST
_PROJECT: Final = COLUMNS.index("project_id") - _FIRST
_DATA: Final = DATA - _FIRST
_PREVIOUS: Final = COLUMNS.index("previous") - _FIRST


@dataclass(slots=True)
class PendingEvents:
    """What one unit of work has yet to write at its end."""

    events: dict[str, list[list[Any]]] = field(default_factory=dict)
    absent: dict[str, set[int]] = field(default_factory=dict)
    """By workspace, which of its events are about a user who is no member of it."""
    heads: dict[str, int] = field(default_factory=dict)
    scopes: set[tuple[str, str | None]] = field(default_factory=set)
    rights_changes: int = 0
    size: int = 0


def commit_seqs(tx: Tx) -> dict[str, int]:
    """At the end of a unit: the log position of each workspace that it wrote to."""
    return pending_events(tx).heads


def size_written(tx: Tx) -> int:
    """How many characters all the documents have that this unit has written so far."""
    return pending_events(tx).size


def scopes_written(tx: Tx) -> set[tuple[str, str | None]]:
    """At the end of a unit: the workspace and project (None: outside any) of all that it wrote."""
    return pending_events(tx).scopes


def rights_changes(tx: Tx) -> int:
    """How often this unit has so far changed what somebody may see or do."""
    return pending_events(tx).rights_changes


class Written(NamedTuple):
    """An event that this unit will have written when it ends; `data` and `previous` are JSON texts."""

    workspace_id: str
    type: str
    resource: str
    object_id: str
    data: str
    previous: str | None
    project_id: str | None


def written(tx: Tx) -> list[Written]:
    """Return the events of what this unit has done so far, in order."""
    return [
        Written(
            workspace_id,
            event[_TYPE],
            event[_RESOURCE],
            event[OBJECT],
            event[_DATA],
            event[_PREVIOUS],
            event[_PROJECT],
        )
        for workspace_id, events in pending_events(tx).events.items()
        for event in events
    ]


@contextmanager
def part(tx: Tx) -> Iterator[None]:
    """A part of a unit: if an exception leaves it, nothing of it is kept, its events included, and the unit goes on.

    For units that only find something out, and are rolled back: what is found by full text may be wrong afterwards.
    """
    pending = pending_events(tx)  # made outside of the part, or its end would take the hook along
    counts = {name: len(events) for name, events in pending.events.items()}
    absent = {name: set(places) for name, places in pending.absent.items()}
    changes, size = pending.rights_changes, pending.size
    try:
        with tx.savepoint():
            yield
    except BaseException:
        for name, events in pending.events.items():
            del events[counts.get(name, 0) :]
        pending.absent, pending.rights_changes, pending.size = absent, changes, size
        raise


def append_events(pending: PendingEvents, actor: Actor, change: Change, text: str, now: int) -> None:
    resource, doc = change.resource, change.doc
    project = doc["id"] if resource.project_column == "id" else doc.get("project_id")
    previous = None
    if change.before is not None and change.action != "purged":
        if change.touched is None:
            previous = json.encode(
                {
                    name: value
                    for name, value in change.before.items()
                    if (new := doc.get(name)) is not value and not json.same(value, new)
                }
            )
        else:
            previous = json.encode({name: change.before.get(name) for name in change.touched})
    events = pending.events.setdefault(doc["workspace_id"], [])
    who = (actor.user_id, actor.key_id, actor.request_id)
    where = (actor.address, actor.user_agent, actor.origin)
    for kind in (resource.event_type(change.action), *change.also):
        events.append([kind, resource.name, doc["id"], project, *who, now, text, previous, *where])


def pending_events(tx: Tx) -> PendingEvents:
    found = tx.context.get("log")
    if found is None:
        found = tx.context["log"] = PendingEvents()
        tx.before_commit.append(lambda: _flush(tx))
    assert isinstance(found, PendingEvents)
    return found


def _flush(tx: Tx) -> None:
    """Give the buffered events their numbers. Workspaces in id order, so that two units never lock crosswise."""
    pending = pending_events(tx)
    rows: list[list[Any]] = []
    absent: list[list[str]] = []
    for workspace_id in sorted(pending.events):
        events = pending.events[workspace_id]
        last = pending.heads[workspace_id] = _take_seqs(tx, workspace_id, len(events))
        seqs, event_ids = range(last - len(events) + 1, last + 1), ids.many("evt", len(events))
        rows += [
            [workspace_id, seq, event_id, *event] for seq, event_id, event in zip(seqs, event_ids, events, strict=True)
        ]
        pending.scopes |= {(workspace_id, project) for project in {event[_PROJECT] for event in events}}
        absent += [[event_ids[index]] for index in sorted(pending.absent.get(workspace_id, ()))]
    pending.events.clear()
    pending.absent.clear()
    if rows:
        insert_together(tx, f"{_EVENTS} ({', '.join(COLUMNS)})", rows)
    if absent:
        write_many(tx, "INSERT INTO absent_users (event_id) VALUES (?)", absent)


def _take_seqs(tx: Tx, workspace_id: str, count: int) -> int:
    """Take the next numbers of a workspace's log; the row stays locked until the commit."""
    found = tx.one("UPDATE log_heads SET seq = seq + ? WHERE workspace_id = ? RETURNING seq", (count, workspace_id))
    if found is None:
        # The workspace's first events; two units that both begin the log meet in the upsert.
        found = tx.one(
            "INSERT INTO log_heads (workspace_id, seq) VALUES (?, ?)"
            " ON CONFLICT (workspace_id) DO UPDATE SET seq = log_heads.seq + excluded.seq RETURNING seq",
            (workspace_id, count),
        )
    assert found is not None
    return int(found[0])
