"""The only writer: a row cannot change without its event, because `apply` does both in one transaction.

Why one function: webhooks, live streams, sync and audit read the events, so whoever could change a row elsewhere
would make all of them lie. `seq` is gapless per workspace and in commit order on both databases, because the
workspace's counter row is updated last in the transaction and stays locked until the commit is visible.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.kit import ids, json, time
from taskade_server.store.database import Tx

_EVENTS: Final = "events"
_EVENT_COLUMNS: Final = (
    "workspace_id", "seq", "id", "type", "resource", "object_id", "project_id",
    "actor_id", "key_id", "request_id", "at", "data", "previous", "address", "user_agent", "origin",
)  # fmt: skip


_DATA: Final = _EVENT_COLUMNS.index("data")
_BESIDE_DATA: Final = (*_EVENT_COLUMNS[:_DATA], *_EVENT_COLUMNS[_DATA + 1 :])
_PENDING_DATA: Final = _DATA - _EVENT_COLUMNS.index("type")
MAX_PAGE_TEXT: Final = 4 << 20
MAX_SEQ: Final = 2**62
MAX_WHOLE_TEXT: Final = 32 << 20
_PROJECT: Final = _EVENT_COLUMNS.index("project_id") - _EVENT_COLUMNS.index("type")


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf a change happens, and from where: recorded with every event.

    `origin` is a JSON text that says what led to a change that nobody asked for directly.
    """

    user_id: str | None
    key_id: str | None = None
    request_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    origin: str | None = None


@dataclass(slots=True)
class Change:
    """One row to write. `doc` is the whole new document, `before` the stored one (None on creation).

    `action` is created, updated, deleted, restored or purged. `also` names further event types for the same change
    (`task.completed`). `private` sets columns outside the document; None leaves them as they are.
    """

    resource: Resource
    action: str
    doc: dict[str, Any]
    before: Mapping[str, Any] | None = None
    n: int = 0
    also: Sequence[str] = ()
    private: Mapping[str, Any] | None = None


class Event(NamedTuple):
    """One entry of a workspace's log as stored; `data`, `previous` and `origin` are JSON texts."""

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


@dataclass(slots=True)
class _Pending:
    """What one unit of work has yet to write at its end."""

    events: dict[str, list[list[Any]]] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    places: set[tuple[str, str | None]] = field(default_factory=set)
    altered_grants: int = 0


class StoredReply(NamedTuple):
    """The answer to a write that carried an Idempotency-Key; `headers` and `places` are JSON texts."""

    digest: str
    status: int
    headers: str
    body: str | None
    places: str


def apply(tx: Tx, actor: Actor, changes: Sequence[Change]) -> list[str]:
    """Write rows and their events; returns the rendered documents (JSON texts) in order.

    All changes of one call to the same resource and action are written together, so a thousand cost little more than
    the rows themselves. `updated_at` and `version` are set here.
    """
    now = time.now_ms()
    stamp = time.format_ms(now)
    rendered: list[str] = []
    groups: dict[tuple[str, str], list[tuple[Change, str]]] = {}
    for change in changes:
        _stamp(change, actor, stamp)
        text = json.encode(change.doc)
        rendered.append(text)
        groups.setdefault((change.resource.name, change.action), []).append((change, text))
    for (name, action), group in groups.items():
        resource = REGISTRY[name]
        if action == "created":
            _insert(tx, resource, group)
        elif action == "purged" or (action == "deleted" and not resource.trash):
            _purge(tx, resource, group)
        else:
            _update(tx, resource, group)
        if resource.grants and any(resource.alters_grants(change.before, change.doc) for change, _ in group):
            tx.run("UPDATE counters SET value = value + 1 WHERE name = 'grants'")
            _pending(tx).altered_grants += 1
    pending = _pending(tx)
    for change, text in zip(changes, rendered, strict=True):
        _append(pending, actor, change, text, now)
    return rendered


def commit_seqs(tx: Tx) -> dict[str, int]:
    """At the end of a unit: the log position of each workspace that it wrote to."""
    return _pending(tx).heads


def places(tx: Tx) -> set[tuple[str, str | None]]:
    """At the end of a unit: the workspace and project (None: outside any) of all that it wrote."""
    return _pending(tx).places


def rights(tx: Tx) -> int:
    """The number of the state of rights: every change of what anybody may see or do raises it."""
    row = tx.one("SELECT value FROM counters WHERE name = 'grants'")
    return int(row[0]) if row else 0


def altered_grants(tx: Tx) -> int:
    """How often this unit has so far changed what somebody may see or do."""
    return _pending(tx).altered_grants


def lock(tx: Tx, workspace_id: str) -> None:
    """Make units that check a rule across rows of one workspace (such as cycles) wait for each other on PostgreSQL."""
    if tx.for_update:
        tx.one("SELECT seq FROM log_heads WHERE workspace_id = ? FOR UPDATE", (workspace_id,))


def head(tx: Tx, workspace_id: str) -> int:
    """The seq of the newest event of a workspace; 0 before the first."""
    row = tx.one("SELECT seq FROM log_heads WHERE workspace_id = ?", (workspace_id,))
    return int(row[0]) if row else 0


def heads(tx: Tx, workspaces: Sequence[str]) -> list[tuple[str, int]]:
    """The positions of several workspaces, by id; together they change with every change in any of them."""
    sql = f"SELECT workspace_id, seq FROM log_heads WHERE workspace_id IN ({_marks(len(workspaces))}) ORDER BY 1"
    return [(name, seq) for name, seq in tx.all(sql, workspaces)]


def read_after(tx: Tx, workspace_id: str, seq: int, limit: int = 1000) -> list[Event]:
    """The events after a position, oldest first; nothing can appear later at or below a seq that was returned."""
    rows = tx.all(
        f"SELECT {', '.join(_EVENT_COLUMNS)} FROM events WHERE workspace_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (workspace_id, seq, limit),
    )
    return [Event(*row) for row in rows]


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
        where.append(f"type IN ({_marks(len(names))})" if names else "1 = 0")
        params += names
    for column, value in (("project_id", project_id), ("object_id", object_id)):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    order = "DESC" if descending else "ASC"
    rows, _ = tx.page(
        f"SELECT data AS doc, {', '.join(_BESIDE_DATA)} FROM events WHERE {' AND '.join(where)}"
        f" ORDER BY seq {order} LIMIT {int(limit)}", params, most,
    )  # fmt: skip
    return [_event_of(row) for row in rows]


def seq_before(tx: Tx, workspace_id: str, at: int) -> int:
    """The seq of the last event before a time (epoch ms); 0 if there is none. It halves the log again and again."""
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
    """The events of one request, in every workspace, and whether they are too large to be had at once."""
    return _whole(tx, "request_id = ?", (request_id,), limit)


def of_key(tx: Tx, workspace_id: str, key_id: str, after: int, until: int, limit: int) -> tuple[list[Event], bool]:
    """What a key did in a workspace after a position, up to another; and whether it is too large to be had at once."""
    condition = "workspace_id = ? AND seq > ? AND seq <= ? AND key_id = ?"
    return _whole(tx, condition, (workspace_id, after, until, key_id), limit)


def _whole(tx: Tx, condition: str, params: tuple[Any, ...], limit: int) -> tuple[list[Event], bool]:
    rows, cut = tx.page(
        f"SELECT data AS doc, {', '.join(_BESIDE_DATA)} FROM events WHERE {condition}"
        f" ORDER BY workspace_id, seq LIMIT {int(limit)}", params, MAX_WHOLE_TEXT,
    )  # fmt: skip
    return [_event_of(row) for row in rows], cut


def _event_of(row: Sequence[Any]) -> Event:
    """An event whose document was selected first."""
    return Event._make([*row[1 : _DATA + 1], row[0], *row[_DATA + 1 :]])


def newest(tx: Tx, workspace_id: str, object_id: str) -> Event | None:
    """The newest event about an object."""
    found = select(tx, workspace_id, 0, MAX_SEQ, limit=1, descending=True, object_id=object_id)
    return found[0] if found else None


class Written(NamedTuple):
    """An event that this unit will have written when it ends; `data` and `previous` are JSON texts."""

    workspace_id: str
    type: str
    resource: str
    object_id: str
    data: str
    previous: str | None


def written(tx: Tx) -> list[Written]:
    """What this unit has done so far, in order."""
    return [
        Written(workspace_id, event[0], event[1], event[2], event[_PENDING_DATA], event[_PENDING_DATA + 1])
        for workspace_id, events in _pending(tx).events.items()
        for event in events
    ]


class State(NamedTuple):
    """An object after an event: the type of that, the project it lay in, and its document (JSON text)."""

    type: str
    project_id: str | None
    data: str


def state_at(tx: Tx, workspace_id: str, object_id: str, seq: int) -> State | None:
    """An object as the newest event at or before a position left it; None if there was none."""
    row = tx.one(
        "SELECT type, project_id, data FROM events WHERE object_id = ? AND seq <= ? AND workspace_id = ?"
        " ORDER BY seq DESC LIMIT 1",
        (object_id, seq, workspace_id),
    )
    return State(*row) if row else None


class Touch(NamedTuple):
    """That an event touched an object. `previous` only if it tells of another project, `data` only of a membership."""

    seq: int
    type: str
    resource: str
    object_id: str
    project_id: str | None
    previous: str | None
    data: str | None


def touches(tx: Tx, workspace_id: str, after: int, until: int, limit: int) -> list[Touch]:
    """What the events after one position up to another touched, oldest first, without their documents."""
    rows = tx.all(
        "SELECT seq, type, resource, object_id, project_id,"
        " CASE WHEN previous LIKE '%\"project_id\"%' THEN previous END, CASE WHEN resource = 'member' THEN data END"
        " FROM events WHERE workspace_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (workspace_id, after, until, limit),
    )
    return [Touch(*row) for row in rows]


def changes_of_rights(tx: Tx, workspace_id: str, after: int, user_id: str, limit: int) -> list[Event]:
    """The events after a position that may have changed what a user sees in a workspace, oldest first."""
    rows = tx.all(
        f"SELECT {', '.join(_EVENT_COLUMNS)} FROM events WHERE workspace_id = ? AND seq > ?"
        " AND resource IN ('member', 'project', 'workspace')"  # in the words of their index
        " AND CASE resource WHEN 'member' THEN data LIKE ? WHEN 'workspace' THEN type <> 'workspace.updated'"
        " ELSE type IN ('project.created', 'project.purged') OR previous LIKE '%\"visibility\"%' END"
        " ORDER BY seq LIMIT ?",
        (workspace_id, after, f"%{user_id}%", limit),
    )
    return [Event(*row) for row in rows]


def find(tx: Tx, event_id: str) -> Event | None:
    """One event by its id."""
    row = tx.one(f"SELECT {', '.join(_EVENT_COLUMNS)} FROM events WHERE id = ?", (event_id,))
    return Event(*row) if row else None


def touch(tx: Tx, object_id: str, at: int) -> None:
    """Note when something was last used; that is no change of it, so it has no event."""
    tx.run(
        "INSERT INTO last_used (id, at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
        (object_id, at),
    )


def setting(tx: Tx, name: str, initial: str) -> str:
    """A value of the installation, written on first use; it belongs to no workspace, so it has no event."""
    tx.run("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, initial))
    row = tx.one("SELECT value FROM settings WHERE name = ?", (name,))
    return str(row[0]) if row else initial


def recall_reply(tx: Tx, owner: str, key: str) -> StoredReply | None:
    """The answer that this key got before. On PostgreSQL the key is claimed until the end of the unit.

    BlockingIOError when another unit holds the claim, so that nobody waits for a request that is under way.
    """
    if tx.for_update:
        claim = int.from_bytes(hashlib.blake2b(f"{owner}\n{key}".encode(), digest_size=8).digest(), signed=True)
        if tx.one("SELECT pg_try_advisory_xact_lock(?)", (claim,)) != (True,):
            raise BlockingIOError
    row = tx.one("SELECT digest, status, headers, body, places FROM replies WHERE owner = ? AND key = ?", (owner, key))
    return StoredReply(*row) if row else None


def remember_reply(tx: Tx, owner: str, key: str, reply: StoredReply) -> None:
    """Keep an answer with its effect: either both are committed or neither is."""
    tx.run(
        "INSERT INTO replies (owner, key, digest, status, headers, body, places, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (owner, key, *reply, time.now_ms()),
    )


def forget_replies(tx: Tx, before_ms: int, limit: int = 1000) -> int:
    """Remove the oldest answers from before a time; returns how many."""
    return tx.run(
        "DELETE FROM replies WHERE (owner, key) IN (SELECT owner, key FROM replies WHERE at < ? ORDER BY at LIMIT ?)",
        (before_ms, limit),
    )


# ---- writing ---------------------------------------------------------------------------------------------------------


def _stamp(change: Change, actor: Actor, stamp: str) -> None:
    doc = change.doc
    doc["updated_at"] = stamp
    if change.action == "created":
        doc["created_at"], doc["created_by"], doc["version"] = (
            stamp,
            doc.get("created_by") or actor.user_id,
            1,
        )
        if change.resource.trash:
            doc["deleted_at"] = None
        change.doc = {name: doc[name] for name in change.resource.fields}
        return
    doc["version"] = int(doc["version"]) + 1
    if change.resource.trash and change.action in ("deleted", "restored"):
        doc["deleted_at"] = stamp if change.action == "deleted" else None


def _insert(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    first = _allocate(tx, resource, len(group))
    rows, side = [], []
    searchable = []
    for (change, text), n in zip(group, first, strict=True):
        change.n = n
        row = [n, *resource.to_columns(change.doc, change.private or {}), text]
        if resource.search:
            words = resource.search_text(change.doc)
            searchable.append((n, words))
            if tx.dialect == "postgresql":
                row.append(words.split())
        rows.append(row)
        workspace_id = change.doc["workspace_id"]
        side += [(workspace_id, name, value, number, n) for name, value, number in resource.side_rows(change.doc)]
    _write_many(tx, _insert_sql(resource.name, tx.dialect), rows)
    if side:
        side.sort(key=itemgetter(1, 2))  # neighbours in the index are written together
        _write_many(tx, _side_sql(resource.side_table), side)
    if searchable and tx.dialect == "sqlite":
        tx.defer(f"INSERT INTO {resource.table}_fts (rowid, words) VALUES (?, ?)", searchable)


def _update(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    statements: dict[str, list[list[Any]]] = {}
    searchable = []
    for change, text in group:
        before = change.before or {}
        changed = [item for item in resource.stored if before.get(item.name) != change.doc[item.name]]
        names, values = _changed_columns(changed, change)
        if resource.search and any(before.get(name) != change.doc[name] for name in resource.search):
            words = resource.search_text(change.doc)
            searchable.append((change.n, words))
            if tx.dialect == "postgresql":
                names, values = [*names, "search"], [*values, words.split()]
        sql = _update_sql(resource.table, tuple(names))
        statements.setdefault(sql, []).append([*values, text, change.n])
        if resource.multiple:
            _update_side(tx, resource, change)
    for sql, rows in statements.items():
        _write_many(tx, sql, rows)
    if searchable and tx.dialect == "sqlite":
        tx.defer(f"INSERT OR REPLACE INTO {resource.table}_fts (rowid, words) VALUES (?, ?)", searchable)


def _changed_columns(changed: list[Field], change: Change) -> tuple[list[str], list[Any]]:
    names = [name for item in changed for name, _ in item.sql_columns()]
    values = [value for item in changed for value in change.resource.column_values(item, change.doc)]
    for name, value in (change.private or {}).items():
        names.append(name)
        values.append(value)
    return names, values


def _update_side(tx: Tx, resource: Resource, change: Change) -> None:
    if all(json.same((change.before or {}).get(item.name), change.doc[item.name]) for item in resource.multiple):
        return
    old, new = resource.side_rows(change.before or change.doc), resource.side_rows(change.doc)
    workspace_id = change.doc["workspace_id"]
    if gone := old - new:
        tx.many(
            f"DELETE FROM {resource.side_table} WHERE workspace_id = ? AND field = ? AND value = ? AND n = ?",
            [(workspace_id, name, value, change.n) for name, value, _ in gone],
        )
    if fresh := new - old:
        rows = [(workspace_id, name, value, number, change.n) for name, value, number in fresh]
        _write_many(tx, _side_sql(resource.side_table), rows)


def _purge(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    numbers = [(change.n,) for change, _ in group]
    tx.many(f"DELETE FROM {resource.table} WHERE n = ?", numbers)
    if resource.multiple:
        tx.many(f"DELETE FROM {resource.side_table} WHERE n = ?", numbers)
    if resource.search and tx.dialect == "sqlite":
        # Behind what this unit has deferred: it may have made the very row.
        tx.defer(f"DELETE FROM {resource.table}_fts WHERE rowid = ?", numbers)


def _append(pending: _Pending, actor: Actor, change: Change, text: str, now: int) -> None:
    resource, doc = change.resource, change.doc
    project = doc["id"] if resource.project_column == "id" else doc.get("project_id")
    previous = None
    if change.before is not None and change.action != "purged":
        old = change.before.items()
        previous = json.encode({name: value for name, value in old if not json.same(value, doc.get(name))})
    events = pending.events.setdefault(doc["workspace_id"], [])
    for kind in (resource.event_type(change.action), *change.also):
        events.append([kind, resource.name, doc["id"], project, actor.user_id, actor.key_id, actor.request_id,
                       now, text, previous, actor.address, actor.user_agent, actor.origin])  # fmt: skip


def _pending(tx: Tx) -> _Pending:
    found = tx.context.get("log")
    if found is None:
        found = tx.context["log"] = _Pending()
        tx.before_commit.append(lambda: _flush(tx))
    assert isinstance(found, _Pending)
    return found


def _flush(tx: Tx) -> None:
    """Give the buffered events their numbers. Workspaces in id order, so that two units never lock crosswise."""
    pending = _pending(tx)
    rows: list[list[Any]] = []
    for workspace_id in sorted(pending.events):
        events = pending.events[workspace_id]
        last = pending.heads[workspace_id] = _advance(tx, workspace_id, len(events))
        names = ids.many("evt", len(events))
        for seq, name, event in zip(range(last - len(events) + 1, last + 1), names, events, strict=True):
            rows.append([workspace_id, seq, name, *event])
            pending.places.add((workspace_id, event[_PROJECT]))
    pending.events.clear()
    if rows:
        _write_many(
            tx,
            f"INSERT INTO {_EVENTS} ({', '.join(_EVENT_COLUMNS)}) VALUES ({_marks(len(_EVENT_COLUMNS))})",
            rows,
        )


def _advance(tx: Tx, workspace_id: str, count: int) -> int:
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


def _allocate(tx: Tx, resource: Resource, count: int) -> list[int]:
    if tx.dialect == "postgresql":
        found = tx.all(f"SELECT nextval('{resource.table}_n_seq') FROM generate_series(1, ?)", (count,))
        return [int(row[0]) for row in found]
    row = tx.one(f"SELECT COALESCE(MAX(n), 0) FROM {resource.table}")
    start = int(row[0]) + 1 if row else 1
    return list(range(start, start + count))


def _write_many(tx: Tx, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    if len(rows) == 1:
        tx.run(sql, rows[0])
    else:
        tx.many(sql, rows)


@cache
def _insert_sql(name: str, dialect: str) -> str:
    resource = REGISTRY[name]
    columns = ["n", *(column for column, _ in resource.columns), "doc"]
    marks = ["?"] * len(columns)
    if resource.search and dialect == "postgresql":
        columns.append("search")
        marks.append("array_to_tsvector(?::text[])")
    names = ", ".join(f'"{column}"' for column in columns)
    return f"INSERT INTO {resource.table} ({names}) VALUES ({', '.join(marks)})"


@cache
def _update_sql(table: str, names: tuple[str, ...]) -> str:
    sets = [f"{name} = {'array_to_tsvector(?::text[])' if name == 'search' else '?'}" for name in (*names, "doc")]
    return f"UPDATE {table} SET {', '.join(sets)} WHERE n = ?"


def _side_sql(table: str) -> str:
    return f"INSERT INTO {table} (workspace_id, field, value, number, n) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def _marks(count: int) -> str:
    return ", ".join("?" * count)
