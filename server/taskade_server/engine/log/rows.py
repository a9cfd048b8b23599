"""The rows of resources: their typed columns, side tables and words for search."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from taskade_server.engine.log.change import Change
from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.kit import json
from taskade_server.kit.text import FOLDED_A_STEP
from taskade_server.store.database import Tx

SIDE_STEPS: Final = 8

ROWS_TOGETHER: Final = 20
"""How many rows of a side table, or events, are written by one statement."""

WRITTEN_A_STEP: Final = 250

WORDS_A_STEP: Final = 2


def insert_rows(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    numbers = _allocate(tx, resource, len(group))
    rows, side = [], []
    searchable = []
    for (change, text), n in zip(group, numbers, strict=True):
        change.n = n
        row = [n, *resource.to_columns(change.doc, change.private or {}), text]
        for index in resource.folded:
            tx.budget.spend(len(row[1 + index] or "") // FOLDED_A_STEP)
        if resource.search:
            words = _words(tx, resource, change.doc)
            searchable.append((n, " ".join(words)))
            if tx.dialect == "postgresql":
                row.append(words)
        rows.append(row)
        workspace_id = change.doc["workspace_id"]
        values = resource.side_rows(change.doc)
        tx.budget.spend(SIDE_STEPS * len(values))
        side += [(workspace_id, name, value, number, n) for name, value, number in values]
    write_many(tx, _insert_sql(resource.name, tx.dialect), rows)
    if side:
        _write_side_rows(tx, resource, side)
    if searchable and tx.dialect == "sqlite":
        tx.defer(f"INSERT INTO {resource.table}_fts (rowid, words) VALUES (?, ?)", searchable)


def update_rows(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    statements: dict[str, list[list[Any]]] = {}
    searchable = []
    for change, text in group:
        before = change.before or {}
        stored = resource.stored
        if change.touched is not None:
            stored = [item for name in change.touched if (item := resource.fields[name]).stored]
        changed = [item for item in stored if before.get(item.name) != change.doc[item.name]]
        names, values = _changed_columns(changed, change)
        if any(item.folded for item in changed):
            tx.budget.spend(sum(len(value) for value in values if isinstance(value, str)) // FOLDED_A_STEP)
        if (
            resource.search
            and change.touched is None
            and any(before.get(name) != change.doc[name] for name in resource.search)
        ):
            words = _words(tx, resource, change.doc)
            searchable.append((change.n, " ".join(words)))
            if tx.dialect == "postgresql":
                names, values = [*names, "search"], [*values, words]
        sql = _update_sql(resource.table, tuple(names))
        statements.setdefault(sql, []).append([*values, text, change.n])
        if resource.multiple and change.touched is None:
            _update_side(tx, resource, change)
    for sql, rows in statements.items():
        write_many(tx, sql, rows)
    if searchable and tx.dialect == "sqlite":
        tx.defer(f"INSERT OR REPLACE INTO {resource.table}_fts (rowid, words) VALUES (?, ?)", searchable)


def renew_texts(tx: Tx, resource: Resource, above: int, limit: int) -> tuple[int, int | None]:
    """Make the words and sort keys of up to `limit` rows anew, those with a number above `above`. No event is written.

    What is up to date is not written. ASCII texts are skipped: no version of the rules changed their words. Returns how
    many rows were looked at, and the number of the last one; None for that if no rows are left.
    """
    members = [item for item in resource.stored if item.folded]
    names = [name for item in members for name, _ in item.sql_columns()]
    columns = ", ".join(["n", "doc", *names])
    rows = tx.all(
        f"SELECT {columns} FROM {resource.table} WHERE n > ? ORDER BY n LIMIT ?{tx.for_update}", (above, limit)
    )
    searchable, statements = [], []
    for n, doc, *old in rows:
        # A folded field has three columns, of which the first holds its value.
        document = dict(zip((item.name for item in members), old[::3], strict=True))
        new = [value for item in members for value in resource.column_values(item, document)]
        sets, values = (names, new) if new != old else ([], [])
        if resource.search and not doc.isascii():
            words = resource.words({**dict.fromkeys(resource.fields), **json.decode(doc)})
            searchable.append((n, " ".join(words)))
            if tx.dialect == "postgresql":
                sets, values = [*sets, "search"], [*values, words]
        if sets:
            statements.append((_update_sql(resource.table, tuple(sets), doc=False), [*values, n]))
    for sql, row in statements:
        tx.run(sql, row)
    if searchable and tx.dialect == "sqlite":
        tx.many(f"INSERT OR REPLACE INTO {resource.table}_fts (rowid, words) VALUES (?, ?)", searchable)
    return len(rows), rows[-1][0] if len(rows) == limit else None


def _words(tx: Tx, resource: Resource, doc: Mapping[str, Any]) -> list[str]:
    """The words that a document is found by."""
    words = resource.words(doc, tx.budget)
    tx.budget.spend(len(words) // WORDS_A_STEP)
    return words


def _changed_columns(changed: list[Field], change: Change) -> tuple[list[str], list[Any]]:
    names = [name for item in changed for name, _ in item.sql_columns()]
    values = [value for item in changed for value in change.resource.column_values(item, change.doc)]
    for name, value in (change.private or {}).items():
        names.append(name)
        values.append(value)
    return names, values


def _update_side(tx: Tx, resource: Resource, change: Change) -> None:
    old, new = map(resource.side_rows, _changed_values(resource, change.before or change.doc, change.doc))
    workspace_id = change.doc["workspace_id"]
    tx.budget.spend(SIDE_STEPS * len(old ^ new))
    if gone := old - new:
        tx.many(
            f"DELETE FROM {resource.side_table} WHERE workspace_id = ? AND field = ? AND value = ? AND n = ?",
            [(workspace_id, name, value, change.n) for name, value, _ in gone],
        )
    if fresh := new - old:
        _write_side_rows(tx, resource, [(workspace_id, name, value, number, change.n) for name, value, number in fresh])


def _changed_values(
    resource: Resource, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The multi-valued members before and after a change: those that differ, and of custom fields only these values.

    A task may have 10,000 values: to make the rows of all of them twice would take longer than all else about it.
    """
    old, new = {}, {}
    for item in resource.multiple:
        was, value = before.get(item.name), after[item.name]
        if isinstance(was, dict) and isinstance(value, dict):
            keys = json.difference(was, value)
            was, value = ({key: entries[key] for key in keys if key in entries} for entries in (was, value))
        elif json.same(was, value):
            was = value = None
        old[item.name], new[item.name] = was, value
    return old, new


def _write_side_rows(tx: Tx, resource: Resource, rows: Sequence[Sequence[Any]]) -> None:
    into = f"{resource.side_table} (workspace_id, field, value, number, n)"
    ordered = sorted(rows, key=itemgetter(1, 2))  # neighbours in the index are written together
    insert_together(tx, into, ordered, "ON CONFLICT DO NOTHING")


def insert_together(tx: Tx, into: str, rows: Sequence[Sequence[Any]], otherwise: str = "") -> None:
    """Insert rows, many in one statement: beginning one costs as much as writing a short row.

    `into` is the table with its columns, `otherwise` what the statement says behind the values.
    """
    # Who fails here is undone whole, so SQLite need not keep the pages that each statement changes, to undo it alone.
    insert = f"INSERT {'OR FAIL ' if tx.dialect == 'sqlite' else ''}INTO {into}"
    width, last = len(rows[0]), len(rows) - len(rows) % ROWS_TOGETHER
    if last:
        starts = range(0, last, ROWS_TOGETHER)
        many = [list(chain.from_iterable(rows[start : start + ROWS_TOGETHER])) for start in starts]
        write_many(tx, _together_sql(insert, width, ROWS_TOGETHER, otherwise), many)
    if last < len(rows):
        write_many(tx, _together_sql(insert, width, 1, otherwise), rows[last:])


def delete_rows(tx: Tx, resource: Resource, group: list[tuple[Change, str]]) -> None:
    numbers = [(change.n,) for change, _ in group]
    tx.many(f"DELETE FROM {resource.table} WHERE n = ?", numbers)
    if resource.multiple:
        tx.many(f"DELETE FROM {resource.side_table} WHERE n = ?", numbers)
    if resource.search and tx.dialect == "sqlite":
        # Deferred, so that it runs after a deferred INSERT of the same row.
        tx.defer(f"DELETE FROM {resource.table}_fts WHERE rowid = ?", numbers)


def keep_open_projects(tx: Tx, group: list[tuple[Change, str]]) -> None:
    """Note which purged projects were open to their whole workspace, whose members may go on reading their history."""
    tx.many("DELETE FROM purged_projects WHERE id = ?", [(change.doc["id"],) for change, _ in group])
    tx.many(
        "INSERT INTO purged_projects (id, workspace_id) VALUES (?, ?)",
        [
            (change.doc["id"], change.doc["workspace_id"])
            for change, _ in group
            if change.doc["visibility"] == "workspace"
        ],
    )


def _allocate(tx: Tx, resource: Resource, count: int) -> list[int]:
    if tx.dialect == "postgresql":
        found = tx.all(f"SELECT nextval('{resource.table}_n_seq') FROM generate_series(1, ?)", (count,))
        return [int(row[0]) for row in found]
    row = tx.one(f"SELECT COALESCE(MAX(n), 0) FROM {resource.table}")
    start = int(row[0]) + 1 if row else 1
    return list(range(start, start + count))


def write_many(tx: Tx, sql: str, rows: Sequence[Sequence[Any]]) -> None:
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
def _update_sql(table: str, names: tuple[str, ...], *, doc: bool = True) -> str:
    written = (*names, "doc") if doc else names
    sets = [f"{name} = {'array_to_tsvector(?::text[])' if name == 'search' else '?'}" for name in written]
    return f"UPDATE {table} SET {', '.join(sets)} WHERE n = ?"


@cache
def _together_sql(insert: str, width: int, count: int, otherwise: str) -> str:
    return f"{insert} VALUES {', '.join([f'({marks(width)})'] * count)} {otherwise}"


def marks(count: int) -> str:
    return ", ".join("?" * count)
