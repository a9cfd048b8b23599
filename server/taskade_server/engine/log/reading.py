"""Reading the log: pages of events, positions, and what is known of objects that may be long gone."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from taskade_server.engine.access import among
from taskade_server.engine.log.appending import OBJECT, pending_events
from taskade_server.engine.log.event import COLUMNS, DATA, Event, Sight
from taskade_server.engine.log.rows import marks
from taskade_server.engine.model import REGISTRY
from taskade_server.store.database import Tx

_BESIDE_DATA: Final = (*COLUMNS[:DATA], *COLUMNS[DATA + 1 :])

MAX_PAGE_TEXT: Final = 4 << 20

MAX_SEQ: Final = 2**62

MAX_WHOLE_TEXT: Final = 32 << 20

_AT_ONCE: Final = 500


def lock(tx: Tx, workspace_id: str) -> None:
    """Make units that check a rule across rows of one workspace (such as cycles) wait for each other on PostgreSQL."""
    if tx.locks_rows:
        tx.one("SELECT seq FROM log_heads WHERE workspace_id = ? FOR UPDATE", (workspace_id,))


def head(tx: Tx, workspace_id: str) -> int:
    """The seq of the newest event of a workspace; 0 before the first."""
    row = tx.one("SELECT seq FROM log_heads WHERE workspace_id = ?", (workspace_id,))
    return int(row[0]) if row else 0


def heads(tx: Tx, workspaces: Sequence[str]) -> list[tuple[str, int]]:
    """The positions of several workspaces, in the order of ids.

    They differ after any change in one of them, so they can serve as a validator.
    """
    sql = f"SELECT workspace_id, seq FROM log_heads WHERE workspace_id IN ({marks(len(workspaces))}) ORDER BY 1"
    return [(name, seq) for name, seq in tx.all(sql, workspaces)]


def read_after(tx: Tx, workspace_id: str, seq: int, limit: int = 1000) -> list[Event]:
    """The events after a position, oldest first; nothing can appear later at or below a seq that was returned."""
    rows = tx.all(
        f"SELECT {', '.join(COLUMNS)} FROM events WHERE workspace_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (workspace_id, seq, limit),
    )
    return with_sight(tx, [Event(*row) for row in rows])


def bounds(tx: Tx, workspace_id: str) -> tuple[int, int]:
    """The seq of the oldest event that is kept, and of the newest (0 before the first)."""
    row = tx.one("SELECT first_seq, seq FROM log_heads WHERE workspace_id = ?", (workspace_id,))
    return (int(row[0]), int(row[1])) if row else (1, 0)


def select(
    tx: Tx,
    workspace_id: str,
    after: int,
    before: int,
    *,
    limit: int,
    descending: bool = False,
    types: Iterable[str] | None = None,
    project_id: str | None = None,
    object_id: str | None = None,
    most: int = MAX_PAGE_TEXT,
) -> list[Event]:
    """The first events with after < seq < before, from either end; at least one if there is one.

    Fewer than `limit` come if there are no more, or if their documents have more than `most` characters.
    """
    where, params = ["workspace_id = ?", "seq > ?", "seq < ?"], [workspace_id, after, before]
    if types is not None:
        names = sorted(types)
        where.append(f"type IN ({marks(len(names))})" if names else "1 = 0")
        params += names
    for column, value in (("project_id", project_id), ("object_id", object_id)):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    order = "DESC" if descending else "ASC"
    rows, _ = tx.page(
        f"SELECT data AS doc, {', '.join(_BESIDE_DATA)} FROM events WHERE {' AND '.join(where)}"
        f" ORDER BY seq {order} LIMIT {int(limit)}",
        params,
        most,
    )
    return with_sight(tx, [_event_of(row) for row in rows])


def seq_before(tx: Tx, workspace_id: str, at: int) -> int:
    """The seq of the last event before a time (epoch ms); 0 if there is none.

    A binary search by time, so that the result is approximate where the clocks of several servers differed.
    """
    low, high = 0, head(tx, workspace_id)
    while low < high:
        middle = (low + high + 1) // 2
        row = tx.one("SELECT at FROM events WHERE workspace_id = ? AND seq = ?", (workspace_id, middle))
        if row is None or row[0] < at:
            low = middle
        else:
            high = middle - 1
    return low


def of_request(tx: Tx, request_id: str, limit: int) -> tuple[list[Event], bool]:
    """The events of one request, in every workspace; and whether they were cut off at `MAX_WHOLE_TEXT` characters."""
    return _whole(tx, "request_id = ?", (request_id,), limit)


def of_key(tx: Tx, workspace_id: str, key_id: str, after: int, until: int, limit: int) -> tuple[list[Event], bool]:
    """What a key did in a workspace after a position, up to another; and whether that was cut off (as `of_request`)."""
    condition = "workspace_id = ? AND seq > ? AND seq <= ? AND key_id = ?"
    return _whole(tx, condition, (workspace_id, after, until, key_id), limit)


def _whole(tx: Tx, condition: str, params: tuple[Any, ...], limit: int) -> tuple[list[Event], bool]:
    rows, cut = tx.page(
        f"SELECT data AS doc, {', '.join(_BESIDE_DATA)} FROM events WHERE {condition}"
        f" ORDER BY workspace_id, seq LIMIT {int(limit)}",
        params,
        MAX_WHOLE_TEXT,
    )
    return with_sight(tx, [_event_of(row) for row in rows]), cut


def _event_of(row: Sequence[Any]) -> Event:
    """An event whose document was selected first."""
    values: list[Any] = [*row[1 : DATA + 1], row[0], *row[DATA + 1 :]]
    return Event(*values)


def with_sight(tx: Tx, page: list[Event]) -> list[Event]:
    """Return events with their `sight`, which costs one statement, and another one if some are about users."""
    named: set[tuple[str, str]] = set()
    users: list[str] = []
    for event in page:
        named |= {
            (event.workspace_id, project) for project in (event.project_id, event.moved_from) if project is not None
        }
        if REGISTRY[event.resource].visibility == "shared":
            users.append(event.id)
    if not named and not users:
        return page
    sight = Sight(open_projects(tx, named), _absent(tx, users))
    return [event._replace(sight=sight) for event in page]


def open_projects(tx: Tx, named: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Return those of some projects, as (workspace, project), that are open to their workspace or were at their end."""
    wanted = set(named)
    if not wanted:
        return frozenset()
    condition, params = among("id", sorted(project for _, project in wanted), tx.dialect)
    rows = tx.all(
        f"SELECT workspace_id, id FROM projects WHERE {condition} AND visibility = 0"
        f" UNION ALL SELECT workspace_id, id FROM purged_projects WHERE {condition}",
        (*params, *params),
    )
    return frozenset((row[0], row[1]) for row in rows) & wanted


def _absent(tx: Tx, event_ids: list[str]) -> frozenset[str]:
    if not event_ids:
        return frozenset()
    condition, params = among("event_id", event_ids, tx.dialect)
    return frozenset(row[0] for row in tx.all(f"SELECT event_id FROM absent_users WHERE {condition}", params))


def was_absent(tx: Tx, event_id: str) -> bool:
    """Whether an event is about a user who was no member of the event's workspace at the time."""
    return bool(_absent(tx, [event_id]))


def newest(tx: Tx, workspace_id: str, object_id: str) -> Event | None:
    """The newest event about an object."""
    found = select(tx, workspace_id, 0, MAX_SEQ, limit=1, descending=True, object_id=object_id)
    return found[0] if found else None


class State(NamedTuple):
    """An object after an event: the event's `type` and id, the project it lay in, and its document (JSON text)."""

    type: str
    project_id: str | None
    data: str
    event_id: str


def state_at(tx: Tx, workspace_id: str, object_id: str, seq: int) -> State | None:
    """An object as the newest event at or before a position left it; None if there was none."""
    row = tx.one(
        "SELECT type, project_id, data, id FROM events WHERE object_id = ? AND seq <= ? AND workspace_id = ?"
        " ORDER BY seq DESC LIMIT 1",
        (object_id, seq, workspace_id),
    )
    return State(*row) if row else None


class Touch(NamedTuple):
    """An event as sync needs it. `previous` is there only if it names another project, `data` only for a membership."""

    seq: int
    type: str
    resource: str
    object_id: str
    project_id: str | None
    previous: str | None
    data: str | None


def touches(tx: Tx, workspace_id: str, after: int, until: int, limit: int) -> list[Touch]:
    """What the events after one position up to another touched, oldest first, without their documents.

    Events about users who were no members of the workspace at the time are left out.
    """
    rows = tx.all(
        "SELECT seq, type, resource, object_id, project_id,"
        " CASE WHEN previous LIKE '%\"project_id\"%' THEN previous END, CASE WHEN resource = 'member' THEN data END"
        " FROM events e WHERE workspace_id = ? AND seq > ? AND seq <= ? AND (resource <> 'user'"
        " OR NOT EXISTS (SELECT 1 FROM absent_users a WHERE a.event_id = e.id)) ORDER BY seq LIMIT ?",
        (workspace_id, after, until, limit),
    )
    return [Touch(*row) for row in rows]


def changes_of_rights(tx: Tx, workspace_id: str, after: int, user_id: str, limit: int) -> list[Event]:
    """The events after a position that may have changed what a user sees in a workspace, oldest first."""
    rows = tx.all(
        f"SELECT {', '.join(COLUMNS)} FROM events WHERE workspace_id = ? AND seq > ?"
        " AND resource IN ('member', 'project', 'workspace')"  # in the words of their index
        " AND CASE resource WHEN 'member' THEN data LIKE ? WHEN 'workspace' THEN type <> 'workspace.updated'"
        " ELSE type IN ('project.created', 'project.purged') OR previous LIKE '%\"visibility\"%' END"
        " ORDER BY seq LIMIT ?",
        (workspace_id, after, f"%{user_id}%", limit),
    )
    return [Event(*row) for row in rows]


def find(tx: Tx, event_id: str) -> Event | None:
    """One event by its id."""
    row = tx.one(f"SELECT {', '.join(COLUMNS)} FROM events WHERE id = ?", (event_id,))
    return with_sight(tx, [Event(*row)])[0] if row else None


def ever_used(tx: Tx, object_ids: Iterable[str]) -> set[str]:
    """Return those of some ids that an event was ever about, in any workspace or in this unit, even if long gone.

    It takes one look into an index for each id, in a statement for every 500.
    """
    asked = set(object_ids)
    if not asked:
        return asked
    found = {event[OBJECT] for events in pending_events(tx).events.values() for event in events} & asked
    wanted = sorted(asked)
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        rows = tx.all(
            f"WITH wanted (id) AS (VALUES {', '.join(['(?)'] * len(part))}) SELECT id FROM wanted"
            " WHERE EXISTS (SELECT 1 FROM events e WHERE e.object_id = wanted.id)",
            part,
        )
        found |= {row[0] for row in rows}
    return found
