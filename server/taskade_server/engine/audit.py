"""The audit log: what was changed and what was refused, as one list, newest or oldest first.

Why two logs are merged on reading: each has numbers without gaps, which is what makes it provable; only their order
among each other is by time. Why a page looks at so many entries at most: whatever is asked for, it is answered soon,
and `Position` says where to go on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from taskade_server.engine.log import STORED, WRITTEN_A_STEP, Event
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json, time
from taskade_server.store.database import Tx
from taskade_server.store.tables.access_log import Access

CHANGES: Final = "changes"
ACCESS: Final = "access"
LOGS: Final = (CHANGES, ACCESS)
SUCCESS: Final = "success"
OUTCOMES: Final = (SUCCESS, "denied", "failed")
SYSTEM: Final = "system"
WINDOW: Final = 20_000
MAX_PAGE_TEXT: Final = 8 << 20
"""So many characters of documents are read for a page, and so many of entries shown; at least one entry is."""
# Times are not quite in the order of the numbers: a long unit takes its time at the beginning, clocks differ.
_SLACK_MS: Final = 3_600_000
_TABLES: Final = {CHANGES: ("events", "log_heads"), ACCESS: ("accesses", "access_heads")}
_COLUMNS: Final = {CHANGES: STORED, ACCESS: Access._fields}
LARGEST: Final = {CHANGES: "data", ACCESS: "id"}
"""The column of each log that has the most characters."""
_FILTERS: Final = {
    "actor": "actor_id",
    "key": "key_id",
    "resource": "resource",
    "object_id": "object_id",
    "project_id": "project_id",
    "address": "address",
    "request_id": "request_id",
    "outcome": "outcome",
}
_INDEXED: Final = ("object_id", "request_id")
_DULL: Final = ("updated_at", "version")


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries of a workspace's audit log. `values` are alternatives by filter; None among actors is the system.

    `actions` are types or patterns (`task.*`); `since` and `until` (epoch ms) bound the time, the latter exclusively.
    """

    workspace_id: str
    actions: tuple[str, ...] = ()
    values: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None

    def logs(self) -> list[str]:
        """The logs that may hold any of them."""
        found = [CHANGES] if SUCCESS in self.values.get("outcome", OUTCOMES) else []
        return found if "project_id" in self.values else [*found, ACCESS]


class Position(NamedTuple):
    """How far a list has come in each log: the last number that it has looked at, None before the first."""

    changes: int | None = None
    access: int | None = None


class Page(NamedTuple):
    """Some entries in order, where to go on, and whether there may be more."""

    entries: list[Event | Access]
    position: Position
    more: bool


# ---- finding ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """What one log has for a page. `seen` is the last number looked at; `edge` the time there, None at the log's end.

    Of another log nothing beyond the edge may be shown yet: this one may hold something that goes before it.
    """

    rows: list[Any]
    seen: int | None
    edge: int | None
    more: bool


def find(tx: Tx, wanted: AuditQuery, position: Position, limit: int, *, newest_first: bool) -> Page:
    """The next page behind a position."""
    start = {CHANGES: position.changes, ACCESS: position.access}
    parts = {name: _part(tx, name, wanted, start[name], limit, newest_first=newest_first) for name in wanted.logs()}
    entries: list[Event | Access] = []
    reached = dict(start)
    queues = {name: list(reversed(part.rows)) for name, part in parts.items()}
    sign = -1 if newest_first else 1
    edges = [(sign * part.edge, name) for name, part in parts.items() if part.edge is not None]
    while len(entries) < limit:
        heads = [(sign * queue[-1].at, name) for name, queue in queues.items() if queue]
        if not heads:
            break
        at, name = min(heads)
        if any(at > edge for edge, other in edges if other != name and not queues[other]):
            break
        entry = queues[name].pop()
        entries.append(entry)
        reached[name] = entry.seq
    for name, part in parts.items():
        if not queues[name] and part.seen is not None:
            reached[name] = part.seen
    more = any(queues.values()) or any(part.more for part in parts.values())
    return Page(entries, Position(reached[CHANGES], reached[ACCESS]), more)


def render(tx: Tx, page: Page, start: Position, *, whole: bool = False) -> tuple[list[str], Page]:
    """The entries of a page that begins behind `start`, as JSON texts; fewer if those would be longer than a page.

    Returned with the page that they are, whose position is then that of the last one. `whole` as in `shown`.
    """
    names = Names(tx, page.entries)
    texts: list[str] = []
    size = 0
    for entry in page.entries:
        text = json.encode(shown(entry, names, whole=whole))
        tx.budget.spend(len(text) // WRITTEN_A_STEP)
        size += len(text)
        if texts and size > MAX_PAGE_TEXT:
            break
        texts.append(text)
    if len(texts) == len(page.entries):
        return texts, page
    entries = page.entries[: len(texts)]
    reached = {isinstance(entry, Event): entry.seq for entry in entries}
    return texts, Page(entries, Position(reached.get(True, start.changes), reached.get(False, start.access)), more=True)


def _part(tx: Tx, name: str, wanted: AuditQuery, start: int | None, limit: int, *, newest_first: bool) -> _Part:
    table, heads = _TABLES[name]
    row = tx.one(f"SELECT seq FROM {heads} WHERE workspace_id = ?", (wanted.workspace_id,))
    low, high = _bounds(tx, table, wanted, int(row[0]) if row else 0)
    if start is not None:
        low, high = (low, min(high, start - 1)) if newest_first else (max(low, start + 1), high)
    if low > high:
        return _Part([], start, None, more=False)
    first, last, place = low, high, "workspace_id"
    if name == CHANGES and any(indexed in wanted.values for indexed in _INDEXED):
        place = "workspace_id || ''"  # an expression, so that the other condition's index is used
    else:
        first, last = (max(low, high - WINDOW + 1), high) if newest_first else (low, min(high, low + WINDOW - 1))
    conditions, params = _conditions(name, wanted)
    direction = "DESC" if newest_first else "ASC"
    # The size of a page is counted by its first column, `doc`.
    columns = sorted(_COLUMNS[name], key=lambda column: column != LARGEST[name])
    found, cut = tx.page(
        f"SELECT {columns[0]} AS doc, {', '.join(columns[1:])} FROM {table} WHERE {place} = ? AND seq BETWEEN ? AND ?"
        f"{conditions} ORDER BY seq {direction} LIMIT ?",
        (wanted.workspace_id, first, last, *params, limit + 1),
        MAX_PAGE_TEXT,
    )
    make: Callable[..., Any] = Event if name == CHANGES else Access
    rows = [make(**dict(zip(columns, values, strict=True))) for values in found]
    if cut or len(rows) > limit:
        rows = rows[:limit]
        return _Part(rows, rows[-1].seq, rows[-1].at, more=True)
    seen = first if newest_first else last
    more = (first, last) != (low, high)
    return _Part(rows, seen, _time_at(tx, table, wanted.workspace_id, seen) if more else None, more)


def _conditions(name: str, wanted: AuditQuery) -> tuple[str, list[Any]]:
    parts: list[str] = []
    params: list[Any] = []
    if wanted.actions:
        column = "type" if name == CHANGES else "action"
        parts.append(" OR ".join(_action(column, pattern, params) for pattern in wanted.actions))
    for key, values in wanted.values.items():
        if key == "outcome" and name == CHANGES:
            continue
        column = _FILTERS[key]
        plain = [value for value in values if value is not None]
        either = [f"{column} IN ({', '.join('?' * len(plain))})"] if plain else []
        parts.append(" OR ".join([*either, *([f"{column} IS NULL"] if None in values else [])]))
        params += plain
    if wanted.since is not None:
        parts.append("at >= ?")
        params.append(wanted.since)
    if wanted.until is not None:
        parts.append("at < ?")
        params.append(wanted.until)
    return "".join(f" AND ({part})" for part in parts), params


def _action(column: str, pattern: str, params: list[Any]) -> str:
    if pattern == "*":
        return "1 = 1"
    if pattern.endswith(".*"):
        # Everything that begins with "task." lies before "task/".
        params += [pattern[:-1], f"{pattern[:-2]}/"]
        return f"{column} >= ? AND {column} < ?"
    params.append(pattern)
    return f"{column} = ?"


def numbers(tx: Tx, log: str, workspace_id: str, head: int, since: int | None, until: int | None) -> tuple[int, int]:
    """The first and the last number up to `head` of a time, exactly; the last is below the first if there are none."""
    table = _TABLES[log][0]
    low, high = _bounds(tx, table, AuditQuery(workspace_id, since=since, until=until), head)
    first = tx.one(
        f"SELECT seq FROM {table} WHERE workspace_id = ? AND seq BETWEEN ? AND ? AND at >= ? ORDER BY seq LIMIT 1",
        (workspace_id, low, high, -(2**62) if since is None else since),
    )
    last = tx.one(
        f"SELECT seq FROM {table} WHERE workspace_id = ? AND seq BETWEEN ? AND ? AND at < ? ORDER BY seq DESC LIMIT 1",
        (workspace_id, low, high, 2**62 if until is None else until),
    )
    start = int(first[0]) if first else high + 1
    return start, max(start - 1, int(last[0]) if last else 0)


def _bounds(tx: Tx, table: str, wanted: AuditQuery, head: int) -> tuple[int, int]:
    """The numbers between which everything of the wanted time certainly lies."""
    low, high = 1, head
    if wanted.since is not None:
        low = _first_since(tx, table, wanted.workspace_id, head, wanted.since - _SLACK_MS)
    if wanted.until is not None:
        high = _first_since(tx, table, wanted.workspace_id, head, wanted.until + _SLACK_MS) - 1
    return low, high


def _first_since(tx: Tx, table: str, workspace_id: str, head: int, moment: int) -> int:
    """The first number from a time on, by halving: times rise with the numbers, but for the slack."""
    low, high = 1, head + 1
    while low < high:
        middle = (low + high) // 2
        at = _time_at(tx, table, workspace_id, middle)
        if at is None or at < moment:
            low = middle + 1
        else:
            high = middle
    return low


def _time_at(tx: Tx, table: str, workspace_id: str, seq: int) -> int | None:
    row = tx.one(f"SELECT at FROM {table} WHERE workspace_id = ? AND seq = ?", (workspace_id, seq))
    return int(row[0]) if row else None


# ---- showing ---------------------------------------------------------------------------------------------------------


class Names:
    """Return the names of the users and keys whose ids some entries hold, also of keys that were revoked."""

    def __init__(self, tx: Tx, entries: Iterable[Event | Access]) -> None:
        self.users: dict[str, tuple[str | None, str | None]] = {}
        self.keys: dict[str, tuple[str | None, str | None]] = {}
        for entry in entries:
            if entry.actor_id is not None and entry.actor_id not in self.users:
                row = tx.one("SELECT name, email FROM users WHERE id = ?", (entry.actor_id,))
                self.users[entry.actor_id] = (row[0], row[1]) if row else (None, None)
            if entry.key_id is not None and entry.key_id not in self.keys:
                self.keys[entry.key_id] = _key(tx, entry.key_id)


def _key(tx: Tx, key_id: str) -> tuple[str | None, str | None]:
    row = tx.one("SELECT name, prefix FROM api_keys WHERE id = ?", (key_id,))
    if row is not None:
        return row[0], row[1]
    row = tx.one(
        "SELECT data FROM events WHERE object_id = ? AND resource = 'api_key' ORDER BY seq DESC LIMIT 1", (key_id,)
    )
    data = json.decode(row[0]) if row else {}
    return data.get("name"), data.get("prefix")


def shown(entry: Event | Access, names: Names, *, whole: bool = False) -> dict[str, Any]:
    """An entry as clients see it; `whole` adds the documents before and after."""
    change = isinstance(entry, Event)
    user = names.users.get(entry.actor_id or "", (None, None))
    key = names.keys.get(entry.key_id or "", (None, None))
    kind = "user" if entry.actor_id else SYSTEM if change else "unknown"
    found: dict[str, Any] = {
        "id": entry.id,
        "log": CHANGES if change else ACCESS,
        "seq": entry.seq,
        "timestamp": time.format_ms(entry.at),
        "workspace_id": entry.workspace_id or None,
        "action": entry.type if isinstance(entry, Event) else entry.action,
        "outcome": SUCCESS if isinstance(entry, Event) else entry.outcome,
        "reason": None if isinstance(entry, Event) else entry.reason,
        "actor": {"type": kind, "id": entry.actor_id, "name": user[0], "email": user[1]},
        "key": {"id": entry.key_id, "name": key[0], "prefix": key[1]} if entry.key_id else None,
        "resource": entry.resource,
        "object_id": entry.object_id,
        "project_id": entry.project_id if isinstance(entry, Event) else None,
        "operation": None if isinstance(entry, Event) else entry.operation,
        "request_id": entry.request_id,
        "address": entry.address,
        "user_agent": entry.user_agent,
        "origin": json.decode(entry.origin or "null") if isinstance(entry, Event) else None,
        "times": 1 if isinstance(entry, Event) else entry.times,
        "last_at": time.format_ms(entry.at if isinstance(entry, Event) else entry.last_at),
        "changes": _changes(entry) if isinstance(entry, Event) else {},
    }
    if whole:
        found["data"] = json.decode(entry.data) if isinstance(entry, Event) else None
        found["previous"] = json.decode(entry.previous or "null") if isinstance(entry, Event) else None
    return found


def _changes(event: Event) -> dict[str, dict[str, Any]]:
    """What changed, with the values before and after; of something new whatever it has."""
    if event.previous is not None:
        data, previous = json.decode(event.data), json.decode(event.previous)
        pairs: Sequence[tuple[str, Any, Any]] = [(name, old, data.get(name)) for name, old in previous.items()]
    elif event.type != REGISTRY[event.resource].event_type("purged"):
        pairs = [(name, None, value) for name, value in json.decode(event.data).items() if value not in (None, [], {})]
    else:
        pairs = []
    return {name: {"from": old, "to": new} for name, old, new in pairs if name not in _DULL}
