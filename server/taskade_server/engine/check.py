"""Asks a database whether it is sound: its file, its schema, its log, its tables, and what its rows refer to.

Why the log is replayed: a row that was changed behind the log's back looks like any other row, and only its history
gives it away. It takes one pass, and memory for a short digest of each object rather than for its text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from taskade_server.engine import audit_check, renewal
from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.kit import json
from taskade_server.store import schema
from taskade_server.store.database import ChangedMigration, NewerDatabase, StoreError, Tx
from taskade_server.store.transfer import pages

MAX_FAULTS: Final = 20
_EVENTS: Final = ("workspace_id", "seq", "resource", "object_id", "type", "data")


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer: what was looked at, and the faults in plain words (the first 20)."""

    name: str
    looked_at: str
    faults: list[str]


def run(tx: Tx) -> Iterator[Finding]:
    """All questions, in the order in which an operator wants to know; each is asked only when it is reached."""
    if tx.dialect == "sqlite":
        yield finding("integrity", "every page and index of the file", _integrity(tx))
    version = _version(tx)
    yield version
    if version.faults:
        return  # the tables are not those that this program knows
    events, workspaces = _numbers(tx, "SELECT count(*) FROM events", "SELECT count(*) FROM log_heads")
    yield finding("log", f"the numbers of {events:,} events in {workspaces:,} workspaces", _gaps(tx))
    yield finding("audit", "entries against the hashes kept of them", audit_check.of_database(tx).faults)
    rows = sum(_numbers(tx, *(f"SELECT count(*) FROM {resource.table}" for resource in REGISTRY.values())))
    yield finding("tables", f"{rows:,} rows against a replay of the log", _replay(tx))
    yield finding("references", "that what live rows belong to exists", chain(_orphans(tx), _opened(tx)))
    yield finding("search", "that searches know every row", chain(_unindexed(tx), _outdated(tx)))
    if tx.dialect == "postgresql":
        yield finding("sequences", "that the next rows get new numbers", _late_sequences(tx))


def damage(tx: Tx) -> list[str]:
    """What is broken, in plain words. An older schema is not: then only the file is looked at."""
    return [fault for found in run(tx) if found.name != "schema" for fault in found.faults]


def replay(tx: Tx) -> list[str]:
    """Compare the tables with what replaying the whole log gives; returns the differences in plain words."""
    return list(chain(_gaps(tx), _replay(tx)))


def finding(name: str, looked_at: str, faults: Iterable[str]) -> Finding:
    """Ask a question: the first faults, or why it could not be asked."""
    try:
        return Finding(name, looked_at, list(islice(faults, MAX_FAULTS)))
    except StoreError as error:
        return Finding(name, looked_at, [" ".join(str(error).split())])


def _numbers(tx: Tx, *queries: str) -> list[int]:
    return [int(tx.all(sql)[0][0]) for sql in queries]


def _opened(tx: Tx) -> Iterator[str]:
    """Purged projects whose past every member may read although the log does not say that they were open."""
    sql = (
        "SELECT p.id FROM purged_projects p WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.object_id = p.id"
        " AND e.workspace_id = p.workspace_id AND e.type = 'project.purged'"
        ' AND e.data LIKE \'%"visibility":"workspace"%\') ORDER BY p.id'
    )
    yield from (f"the purged project {name} counts as open, which the log does not say" for (name,) in tx.all(sql))


# ---- the file and the schema -----------------------------------------------------------------------------------------


def _integrity(tx: Tx) -> Iterator[str]:
    for (text,) in tx.all(f"PRAGMA integrity_check({MAX_FAULTS})"):
        if text != "ok":
            yield str(text)
    for table, row, parent, _ in tx.all("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that does not exist"


def _version(tx: Tx) -> Finding:
    known = schema.shipped()
    past = schema.past(tx)
    newest = f"{past[-1][0]:04}_{past[-1][1]}" if past else "none"
    faults = []
    try:
        schema.check(past, known)
        if len(past) < len(known):
            faults.append(f"it is older than this program ({known[-1]}): run `taskade upgrade`")
        elif renewal.is_pending(tx):
            faults.append("searches and orders of some rows are those of an older program: run `taskade upgrade`")
    except (NewerDatabase, ChangedMigration) as error:
        faults.append(str(error))
    return Finding("schema", newest, faults)


# ---- the log and the tables ------------------------------------------------------------------------------------------


def _gaps(tx: Tx) -> Iterator[str]:
    heads = tx.all(
        "SELECT h.workspace_id, h.seq, count(e.seq), max(e.seq), min(e.seq) FROM log_heads h"
        " LEFT JOIN events e ON e.workspace_id = h.workspace_id GROUP BY h.workspace_id, h.seq ORDER BY h.workspace_id"
    )
    for workspace_id, head, count, newest, oldest in heads:
        if (count, newest, oldest) != (head, head, 1):
            yield f"the log of {workspace_id} has gaps or a wrong head"
    for (workspace_id,) in tx.all(
        "SELECT DISTINCT workspace_id FROM events e"
        " WHERE NOT EXISTS (SELECT 1 FROM log_heads h WHERE h.workspace_id = e.workspace_id)"
    ):
        yield f"the log of {workspace_id} has no head"


def _replay(tx: Tx) -> Iterator[str]:
    expected: dict[str, dict[str, bytes]] = {name: {} for name in REGISTRY}
    ends = {
        resource.event_type("purged" if resource.trash else "deleted"): resource.name for resource in REGISTRY.values()
    }
    for page in pages(tx, "events", _EVENTS, ("workspace_id", "seq")):
        for _, _, name, object_id, kind, data in page:
            if ends.get(kind) == name:
                expected[name].pop(object_id, None)
            elif name in expected:
                expected[name][object_id] = _digest(REGISTRY[name].completed(data))
    for resource in REGISTRY.values():
        yield from _compare(tx, resource, expected[resource.name])


def _compare(tx: Tx, resource: Resource, expected: dict[str, bytes]) -> Iterator[str]:
    columns = ["n", "doc", *(name for item in resource.stored for name, _ in item.sql_columns())]
    last = -(2**63)
    for page in pages(tx, resource.table, columns, ("n",)):
        side = _side_rows(tx, resource, last, page[-1][0])
        for n, doc, *values in page:
            try:
                document = json.decode(doc)
                object_id = document["id"]
            except (ValueError, KeyError, TypeError):
                side.pop(n, None)
                yield f"row {n} of {resource.table} has a document that cannot be read"
                continue
            if expected.pop(object_id, None) != _digest(doc):
                yield f"{resource.name} {object_id} differs from the log"
            yield from _inner_differences(resource, document, values, side.pop(n, set()))
        yield from _strays(resource, side)
        last = page[-1][0]
    yield from _strays(resource, _side_rows(tx, resource, last, 2**63 - 1))
    yield from (f"{resource.name} {object_id} is in the log but not in its table" for object_id in expected)


def _inner_differences(
    resource: Resource, document: Mapping[str, Any], values: list[Any], side: set[tuple[str, str, float | None]]
) -> Iterator[str]:
    """Whether a row's columns and side rows say the same as its document."""
    try:
        if resource.to_columns(document, {})[: len(values)] != values:
            yield f"{resource.name} {document['id']} has columns that differ from its document"
        if resource.side_rows(document) != side:
            yield f"{resource.name} {document['id']} has values that differ from its document"
    except (KeyError, ValueError, TypeError):
        yield f"{resource.name} {document['id']} has a document that is not one of a {resource.name}"


def _side_rows(tx: Tx, resource: Resource, above: int, last: int) -> dict[int, set[tuple[str, str, float | None]]]:
    found: dict[int, set[tuple[str, str, float | None]]] = {}
    if resource.multiple:
        sql = f"SELECT n, field, value, number FROM {resource.side_table} WHERE n > ? AND n <= ?"
        for n, name, value, number in tx.all(sql, (above, last)):
            found.setdefault(n, set()).add((name, value, number))
    return found


def _strays(resource: Resource, side: Iterable[int]) -> Iterator[str]:
    yield from (f"{resource.side_table} has values of row {n}, which does not exist" for n in side)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


# ---- what belongs together -------------------------------------------------------------------------------------------


def _orphans(tx: Tx) -> Iterator[str]:
    """What a live row always lies in (a task's project) must exist, if only in the trash."""
    for resource in REGISTRY.values():
        live = " AND t.deleted_at IS NULL" if resource.trash else ""
        for item in _belongings(resource):
            sql = (
                f'SELECT t.id, t."{item.name}" FROM {resource.table} t WHERE t."{item.name}" IS NOT NULL{live}'
                f' AND NOT EXISTS (SELECT 1 FROM {REGISTRY[item.target].table} p WHERE p.id = t."{item.name}")'
                f" ORDER BY t.n LIMIT {MAX_FAULTS}"
            )
            for object_id, other in tx.all(sql):
                yield f"{resource.name} {object_id} has the {item.name} {other}, which does not exist"


def _belongings(resource: Resource) -> list[Field]:
    return [
        item
        for item in resource.stored
        if item.kind in ("ref", "user") and item.target in REGISTRY and (item.filled or not item.nullable)
    ]


def _unindexed(tx: Tx) -> Iterator[str]:
    for resource in REGISTRY.values():
        if not resource.search:
            continue
        if tx.dialect == "postgresql":
            queries = [f"SELECT n FROM {resource.table} WHERE search IS NULL"]
        else:
            rows, index = f"SELECT n FROM {resource.table}", f"SELECT id FROM {resource.table}_fts_docsize"
            queries = [f"{rows} EXCEPT {index}", f"{index} EXCEPT {rows}"]
        for sql in queries:
            for (n,) in tx.all(f"{sql} LIMIT {MAX_FAULTS}"):
                yield f"row {n} of {resource.table} and the full-text index do not know each other"


def _outdated(tx: Tx) -> Iterator[str]:
    """Rows that are found by other words than those of this program. SQLite keeps no list of a row's words to ask."""
    if tx.dialect != "postgresql":
        return
    for resource in REGISTRY.values():
        if not resource.search:
            continue
        words = "array_to_string(tsvector_to_array(search), ' ')"
        for page in pages(tx, resource.table, ("n", "doc"), ("n",), more=(words,)):
            for n, doc, present in page:
                document = {**dict.fromkeys(resource.fields), **json.decode(doc)}
                if present is not None and set(present.split()) != set(resource.words(document)):
                    yield f"row {n} of {resource.table} has words of an older program: run `taskade upgrade --texts`"


def _late_sequences(tx: Tx) -> Iterator[str]:
    for resource in REGISTRY.values():
        newest, given = _numbers(
            tx,
            f"SELECT COALESCE(MAX(n), 0) FROM {resource.table}",
            f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {resource.table}_n_seq",
        )
        if given < newest:
            yield f"the next {resource.name} would get a number that exists: the sequence is at {given}, not {newest}"
