"""A filter means one thing: SQL on SQLite, SQL on PostgreSQL and `filters.holds` pick the same tasks; and paging
shows each of them once, in order, whatever is added meanwhile.

Why properties: the filter language has more combinations of operator, type, null and index than anybody can
list, and a list that silently leaves out one row is worse than one that fails.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from taskade_server.domain.tasks import TASK
from taskade_server.engine import access, filters, query
from taskade_server.engine.access import Principal
from taskade_server.engine.query import parsing
from taskade_server.engine.query import plan as planner
from taskade_server.kit import json, text, time
from taskade_server.kit.errors import InvalidQuery
from taskade_server.store.database import Database

from tests.unit import world
from tests.unit.examples import examples
from tests.unit.world import NOW, PROJECTS, SECRET, USERS, WORKSPACES


@pytest.fixture(scope="module")
def worlds(databases: list[Database]) -> list[Database]:
    with world.frozen_clock(lambda: NOW):
        for db in databases:
            db.write_sync(world.found_world)
    return databases


def rows_are_rare_below(bound: int) -> Any:
    """Below this many rows SQLite's planner starts from a condition, beyond it walks an index: both must be right.

    While it walks, it gathers a common condition's rows first, or asks the side table row by row.
    """
    return mock.patch.multiple(planner, RARE=bound, COMMON=5000 if bound == 0 else 0)


# ---- made-up filters -------------------------------------------------------------------------------------------------

ANY_OF = ("$in", "$nin")
RANGES = ("$gt", "$gte", "$lt", "$lte")
MOMENTS = [
    *world.MOMENTS,
    "today",
    "yesterday",
    "-1d",
    "+1w",
    "-1m",
    "now",
    "2024-01-15T10:30:00+00:00",
    "2024-01-15 12:00",
]
OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "text": world.TEXTS,
    "key": st.sampled_from([*world.STATUSES, "b", "bb", "c"]),
    "enum": st.sampled_from(["none", "low", "medium", "high", "urgent"]),
    "user": st.sampled_from([*USERS, *world.HANDLES, "ana@example.com", "ANA", "me"]),
    "day": st.sampled_from(MOMENTS),
    "time": st.sampled_from(MOMENTS),
    "number": st.sampled_from([*world.NUMBERS, -1, 1.5]),
    "integer": st.sampled_from([0, 1, 2, 1.5]),
    "strings": st.sampled_from([*world.LABELS, "urge", "nobody's"]),
    "custom": world.CUSTOM_VALUES.filter(lambda value: not isinstance(value, list)),
}
REFERENCES = {"workspace_id": WORKSPACES, "project_id": PROJECTS}


def operands_of(name: str) -> st.SearchStrategy[Any]:
    if name in REFERENCES:
        return st.sampled_from(REFERENCES[name])
    kind = TASK.fields[name].kind if name in TASK.fields else "custom"
    return OPERANDS.get(kind, st.integers(1, 8).map(lambda number: world.an_id("task", number)))


def operators_of(name: str) -> list[str]:
    kind = TASK.fields[name].kind if name in TASK.fields else "custom"
    common = ["$eq", "$ne", "$in", "$nin", "$exists"]
    if kind in ("enum", "number", "integer", "text", "key", "day", "time", "custom"):
        common += RANGES
    return [*common, "$contains", "$prefix"] if kind in ("text", "key", "custom", "strings") else common


FILTERABLE = [name for name in TASK.filterable if name != "custom_fields"]
FIELDS = st.sampled_from([*FILTERABLE, *[f"custom_fields.{key}" for key in (*world.CUSTOM_KEYS, "never_set")]])


@st.composite
def a_condition(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(FIELDS)
    operator = draw(st.sampled_from(operators_of(name)))
    operands = operands_of(name)
    if operator == "$exists":
        return {name: {operator: draw(st.booleans())}}
    if operator in ANY_OF:
        return {name: {operator: draw(st.lists(operands | st.none(), max_size=3))}}
    if operator in ("$eq", "$ne"):
        operands |= st.none()
    if operator in ("$contains", "$prefix"):
        operands = operands.filter(lambda value: isinstance(value, str) and value != "")
    operand = draw(operands)
    return {name: operand} if operator == "$eq" and draw(st.booleans()) else {name: {operator: operand}}


def groups(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda parts: {"$and": parts}),
        several.map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    )


def depth(document: Any) -> int:
    if isinstance(document, dict):
        return max([0, *(depth(value) + (name in filters.GROUPS) for name, value in document.items())])
    return max([0, *(depth(value) for value in document)]) if isinstance(document, list) else 0


FILTERS = st.recursive(a_condition(), groups, max_leaves=6).filter(lambda document: depth(document) < filters.MAX_DEPTH)
WORDS = st.lists(st.sampled_from(["a", "ab", "strasse", "cafe", "Café", "50", "10", "1", "ΣΣ", "中", "i"]), max_size=2)


@st.composite
def a_question(draw: st.DrawFn) -> dict[str, Any]:
    """The body of `POST /tasks/query`."""
    body: dict[str, Any] = {
        "filter": draw(FILTERS),
        "limit": 1000,
        "count": True,
        "deleted": draw(st.integers(0, 4)) == 0,
    }
    words = " ".join(draw(WORDS))
    zone = draw(st.sampled_from([None, "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati"]))
    body |= {"timezone": zone} if zone else {}
    return body | {"q": words} if words else body


# ---- the answers -----------------------------------------------------------------------------------------------------


def answer(db: Database, principal: Principal, body: dict[str, Any]) -> tuple[query.Query, list[str], int | None]:
    """What the question was understood as, the ids that SQL finds, and how many it counts."""

    def unit(tx: Any) -> Any:
        parsed = query.parse(tx, principal, TASK, SECRET, [], body, strict=False)
        page = query.run(tx, principal, parsed, SECRET)
        return parsed, [json.decode(document)["id"] for document in page.documents], page.total

    parsed, found, total = db.read_sync(unit)
    return parsed, found, total


def expected(where: filters.Node, principal: Principal, body: dict[str, Any], docs: list[dict[str, Any]]) -> list[str]:
    words = text.sought(body.get("q", ""))
    return [
        doc["id"]
        for doc in docs
        if access.sees(principal, TASK, doc["workspace_id"], doc["project_id"], is_open=True)
        and (doc["deleted_at"] is not None) == body["deleted"]
        and filters.holds(where, filters.Facts(TASK, doc))
        and filters.begin_words(words, sorted(TASK.words(doc)))
    ]


def in_order_of(sort: list[query.SortKey], docs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A filter that bounds a time gives its order, ties that of creation; what has no such time fits no such filter."""
    if not sort:
        return docs
    (key,) = sort
    column = TASK.fields[key.name].to_column
    return sorted((doc for doc in docs if doc[key.name] is not None), key=lambda doc: column(doc[key.name]))


def done(number: int, when: str) -> world.Made:
    place = {"workspace_id": WORKSPACES[0], "project_id": PROJECTS[0], "position": "b"}
    doc = {"id": world.an_id("task", number), "name": "a", "status": "completed", "completed_at": when}
    return world.Made(world.whole(TASK, **place, **doc), False)


@examples(150)
@example(
    tasks=[done(1, "2024-01-15T10:30:00.000Z"), done(2, "2024-01-14T10:30:00.000Z")],
    questions=[{"filter": {"completed_at": {"$lt": "2024-01-16"}}, "limit": 1000, "count": True, "deleted": False}],
    rare=0,
    principal=world.a_member(WORKSPACES[0]),
)
@given(
    tasks=world.some_tasks(),
    questions=st.lists(a_question(), min_size=1, max_size=8),
    rare=st.sampled_from([0, 2, 5000]),
    principal=world.a_principal(),
)
def test_both_databases_and_python_agree_on_every_filter(worlds, tasks, questions, rare, principal):
    reader = world.a_member(*WORKSPACES)  # sees whatever a filter may refer to
    with world.frozen_clock(lambda: NOW), rows_are_rare_below(rare):
        for db in worlds:
            db.write_sync(world.forget_tasks)
            docs = world.plant(db, tasks)
            for body in questions:
                for who in (reader, principal):
                    try:
                        parsed, found, total = answer(db, who, body)
                    except InvalidQuery as refusal:
                        assert {issue.code for issue in refusal.errors} == {"unknown_reference"}
                        assert who is principal or refers_to_nothing(body, docs)
                        continue
                    note(f"{db.dialect}, {body}")
                    assert found == expected(parsed.where, who, body, in_order_of(parsed.sort, docs))
                    assert total == len(found)


def refers_to_nothing(body: dict[str, Any], docs: list[dict[str, Any]]) -> bool:
    named = set(re.findall(r"task_\w{26}", json.encode(body)))
    return bool(named - {doc["id"] for doc in docs})


# ---- parameters ------------------------------------------------------------------------------------------------------


def flattened(document: Any, key: str) -> Iterator[tuple[str, Any]]:
    """A filter document as bracketed parameters, the way qs writes it."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from flattened(value, f"{key}[{name}]" if key else name)
    elif isinstance(document, list):
        for place, value in enumerate(document):
            yield from flattened(value, f"{key}[{place}]")
    else:
        yield key, document if isinstance(document, str) else json.encode(document)


def means_the_same_as_text(document: Any) -> bool:
    """Parameters are texts: they know no empty list, `null` is null and not a word, a comma separates, 1.0 is not 1."""
    if isinstance(document, dict | list):
        parts = document.values() if isinstance(document, dict) else document
        return len(document) > 0 and all(means_the_same_as_text(part) for part in parts)
    if isinstance(document, str):
        return document not in ("", "null") and "," not in document
    return not isinstance(document, float)


@examples(100)
@given(document=FILTERS.filter(means_the_same_as_text), raw=st.booleans())
@example(document={"custom_fields": {"2024": "a"}}, raw=False)
@example(document={"custom_fields": {"x.y": {"$gt": 1, "$lte": 3}}}, raw=False)
def test_parameters_say_the_same_as_a_document(worlds, document, raw):
    def understood(pairs: list[tuple[str, str]], body: Any) -> filters.Node | list[str]:
        principal = world.a_member(*WORKSPACES)
        try:
            parsed: query.Query = worlds[0].read_sync(
                lambda tx: query.parse(tx, principal, TASK, SECRET, pairs, body, strict=False)
            )
            return parsed.where
        except InvalidQuery as refusal:
            return [issue.code for issue in refusal.errors]

    with world.frozen_clock(lambda: NOW):
        encoded = urlencode(list(flattened(document, "")))
        pairs = [("filter", json.encode(document))] if raw else parse_qsl(encoded, keep_blank_values=True)
        assert understood(pairs, None) == understood([], {"filter": document})


# ---- paging ----------------------------------------------------------------------------------------------------------

SORTABLE = [item.name for item in TASK.fields.values() if item.sortable]
SORT_NAMES = st.sampled_from([*SORTABLE, *[f"custom_fields.{key}" for key in world.CUSTOM_KEYS]])
SORTS = st.lists(st.tuples(SORT_NAMES, st.booleans()), max_size=3, unique_by=lambda key: key[0])
SELECTIONS = st.sampled_from(
    [
        {},
        {"filter": {"labels": "urgent"}},
        {"filter": {"labels": {"$in": ["urgent", "a"]}}},
        {"filter": {"assignee": {"$exists": True}}},
        {"filter": {"assignee": "ana"}},
        {"filter": {"project_id": PROJECTS[0]}},
        {"filter": {"due_date": {"$gte": "2024-01-15"}}},
        {"filter": {"due_date": {"$gte": "2024-01-15", "$lt": "2024-01-16"}, "custom_fields.size": {"$exists": True}}},
        {"filter": {"custom_fields.size": {"$gt": 1}}},
        {"filter": {"parent_id": None}},
        {"q": "a"},
        {"q": "a", "filter": {"labels": "urgent"}},
    ]
)


def sort_values(doc: dict[str, Any], name: str) -> list[Any]:
    """What a task is sorted by: numbers before texts for custom fields, the least of several.

    A custom text is sorted by its first 160 characters.

    Names that are alike but for accents and case are told apart by them. `test_text` judges that by an oracle.
    """
    if name.startswith("custom_fields."):
        rows = [row for row in TASK.side_rows(doc) if row[0] == name[len("custom_fields") :]]
        numbers = [number for _, _, number in rows if number is not None]
        return [min(numbers, default=None), min([value[:160] for _, value, _ in rows], default=None)]
    value = TASK.fields[name].to_column(doc[name])
    return [text.sort_key(value), value] if TASK.fields[name].folded else [value]


def in_order(docs: list[dict[str, Any]], sort: list[tuple[str, bool]]) -> list[str]:
    """The ids as a list must have them: nulls last, ties in the order of creation in the last key's direction."""
    rows = list(docs)
    if sort and sort[-1][1]:
        rows.reverse()
    for name, descending in reversed(sort):
        for place in reversed(range(len(sort_values(rows[0], name)) if rows else 0)):
            there = [doc for doc in rows if sort_values(doc, name)[place] is not None]
            there.sort(key=lambda doc: sort_values(doc, name)[place], reverse=descending)
            rows = there + [doc for doc in rows if sort_values(doc, name)[place] is None]
    return [doc["id"] for doc in rows]


@examples(80)
@given(
    tasks=world.some_tasks(most=10),
    newcomers=st.lists(world.a_task(500), max_size=6),
    selection=SELECTIONS,
    sort=SORTS,
    limit=st.integers(1, 4),
    rare=st.sampled_from([0, 3, 5000]),
    teams=st.sampled_from([WORKSPACES, WORKSPACES[:1]]),
)
def test_paging_shows_each_row_once_and_in_order(worlds, tasks, newcomers, selection, sort, limit, rare, teams):
    principal = world.a_member(*teams)
    body = {**selection, "sort": [f"{'-' if down else ''}{name}" for name, down in sort], "limit": limit}
    for db in worlds:
        ticks = iter(range(NOW, NOW + 10_000))
        with world.frozen_clock(partial(next, ticks)), rows_are_rare_below(rare):
            db.write_sync(world.forget_tasks)
            docs = world.plant(db, [task for task in tasks if not task.trashed])
            arriving = iter(newcomers)
            seen: list[str] = []
            pairs: list[tuple[str, str]] = []
            while True:
                where, page = read_page(db, principal, pairs, body)
                seen += [json.decode(document)["id"] for document in page.documents]
                assert len(page.documents) <= limit
                assert len(seen) <= len(docs) + len(newcomers), "round in circles"
                if page.cursor is None:
                    break
                pairs = [("cursor", page.cursor)]
                insert_another(db, next(arriving, None))
        note(f"{db.dialect}, {body}")
        present = {doc["id"] for doc in docs}
        wanted = [doc for doc in docs if doc["id"] in expected(where, principal, {"deleted": False, **body}, docs)]
        # Without a sort, a list that is bounded in time comes in the order of that time.
        order = sort or ([("due_date", False)] if "due_date" in body.get("filter", {}) else [])
        assert [task_id for task_id in seen if task_id in present] == in_order(wanted, order)
        assert len(set(seen)) == len(seen)


def test_a_cursor_from_when_names_were_sorted_otherwise_is_refused(worlds):
    """Its position has other values than the order of today."""
    principal, body = world.a_member(*WORKSPACES), {"sort": "name", "limit": 1}
    with world.frozen_clock(lambda: NOW):
        for db in worlds:
            db.write_sync(world.forget_tasks)
            world.plant(db, [done(1, "2024-01-15T10:30:00.000Z"), done(2, "2024-01-15T10:30:00.000Z")])
            with mock.patch.object(parsing, "_bound_by", lambda names, keys: names):
                _, page = read_page(db, principal, [], body)
            with pytest.raises(InvalidQuery) as refused:
                read_page(db, principal, [("cursor", page.cursor)], body)
            assert [issue.code for issue in refused.value.errors] == ["cursor_of_another_query"]


def read_page(db: Database, principal: Principal, pairs: Any, body: Any) -> tuple[filters.Node, query.Page]:
    def unit(tx: Any) -> Any:
        parsed = query.parse(tx, principal, TASK, SECRET, pairs, body, strict=False)
        return parsed.where, query.run(tx, principal, parsed, SECRET)

    where, page = db.read_sync(unit)
    return where, page


def insert_another(db: Database, task: world.Made | None) -> None:
    if task is not None:
        number = time.now_ms() % 10_000
        task.doc["id"] = world.an_id("task", 1000 + number)
        world.plant(db, [world.Made(task.doc | {"parent_id": None, "blocked_by": []}, False)])
