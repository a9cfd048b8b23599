"""Lists: a request's parameters become one SQL statement that carries the access predicate and pages by keyset.

Why its own small planner: SQLite without statistics picks an index by shape alone, and either choice is a thousand
times slower on the wrong data. Counting a candidate up to a bound costs a fraction of a millisecond and decides safely:
a rare condition drives the query, otherwise the sort order's index is walked until the page is full.
"""

from typing import Any, Final, NamedTuple

from taskade_server.engine import access
from taskade_server.engine.access import Principal, Visible
from taskade_server.engine.query.include import shape
from taskade_server.engine.query.parsing import Query, SortKey
from taskade_server.engine.query.plan import make_plan
from taskade_server.engine.query.sql import Sql, conjuncts, joined_ranges
from taskade_server.engine.query.statement import ListStatement, segments_of, where_of
from taskade_server.kit import json, signing
from taskade_server.store.database import Tx

MAX_PAGE_TEXT: Final = 8 << 20


class Page(NamedTuple):
    """One page: rendered documents, the cursor of the next page, and the total if it was asked for."""

    documents: list[str]
    cursor: str | None
    total: int | None


def run(tx: Tx, principal: Principal, query: Query, secret: bytes) -> Page:
    """One page of a list with its includes and chosen fields."""
    if query.words and tx.writable:
        tx.write_deferred()
    rule = access.visible(principal, query.resource, tx.dialect)
    rows, width, cut = _rows(tx, query, rule)
    more = cut or len(rows) > query.limit
    rows = rows[: query.limit]
    cursor = None
    if more:
        position = list(rows[-1][1 : width + 2])
        cursor = signing.seal(secret, json.encode_bytes([query.fingerprint, *position]))
    documents = shape(tx, principal, query.resource, [row[0] for row in rows], query.include, query.fields)
    return Page(documents, cursor, _total(tx, query, rule) if query.count else None)


def select_ids(tx: Tx, principal: Principal, query: Query, limit: int) -> list[str]:
    """The ids a filter selects, at most `limit` + 1, for bulk changes."""
    query.limit = limit
    rows, _, _ = _rows(tx, query, access.visible(principal, query.resource, tx.dialect), "id")
    return [row[0] for row in rows]


def _total(tx: Tx, query: Query, rule: Visible) -> int:
    parts = joined_ranges(conjuncts(query.where))
    plan = make_plan(tx, query, rule, parts)
    sql = Sql(query.resource, tx.dialect, plan.plain)
    where, params = where_of(query, rule, plan, parts, sql)
    found = tx.one(f"SELECT COUNT(*) FROM {plan.source} WHERE {where}", (*plan.params, *params))
    return int(found[0]) if found else 0


def _rows(tx: Tx, query: Query, rule: Visible, wanted_column: str = "doc") -> tuple[list[tuple[Any, ...]], int, bool]:
    """Rows (document, sort values..., n), one more than the limit if there are more; and the number of sort values.

    The last value tells whether they end before the limit, because they are as large as a page may be.
    """
    parts = joined_ranges(conjuncts(query.where))
    plan = make_plan(tx, query, rule, parts)
    # Without its own sort index a rare set is sorted; a leading "+" keeps SQLite from walking one instead.
    bare = "+" if tx.dialect == "sqlite" and not plan.ordered else ""
    keys = [key._replace(sql=bare + key.sql) for key in query.sort]
    number = SortKey(
        plan.number if plan.ordered or tx.dialect != "sqlite" else "+t.n", (), query.descending, False, "n"
    )
    wanted = query.limit + 1
    rows: list[tuple[Any, ...]] = []
    room, cut = MAX_PAGE_TEXT, False
    of_list = ListStatement(query, rule, plan, parts, [*keys, number], tx.dialect, wanted_column)
    for segment in segments_of(keys, query.after, parts):
        statement, params = of_list.of_segment(segment, wanted - len(rows))
        found, cut = tx.page(statement, params, room)
        rows += found
        if cut or len(rows) >= wanted:
            break
        room -= sum(len(row[0]) for row in found)
    return rows, len(keys), cut
