"""The usual lists use the index that was made for them, however many rows there are.

Why plans and not times: a list that reads a whole table is fast in a test and slow at a customer's; what SQLite means
to do, it tells at any size. `few` and `many` are what the engine's own planner believes about each condition.
"""

from typing import Any
from unittest import mock

import pytest
from taskade_server.domain.projects import PROJECT
from taskade_server.domain.tasks import COMMENT, TASK
from taskade_server.engine import log, query
from taskade_server.engine.model import Resource
from taskade_server.engine.query import plan as planner

from tests.unit import world
from tests.unit.world import NOW, PROJECTS, SECRET, WORKSPACES

A_PROJECT = ("project_id", PROJECTS[0])
A_TASK = world.an_id("task", 1)
SORTED = "USE TEMP B-TREE FOR ORDER BY"


class Recorder:
    """A unit of work that notes what it is asked."""

    def __init__(self, tx: Any) -> None:
        self.tx = tx
        self.asked: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)

    def all(self, sql: str, params: Any = ()) -> Any:
        self.asked.append((sql, params))
        return self.tx.all(sql, params)

    def page(self, sql: str, params: Any, most: int) -> Any:
        self.asked.append((sql, params))
        return self.tx.page(sql, params, most)

    def one(self, sql: str, params: Any = ()) -> Any:
        return self.tx.one(sql, params)


@pytest.fixture(scope="module")
def db(sqlite_db):
    with world.frozen_clock(lambda: NOW):
        sqlite_db.write_sync(world.found_world)
        a_task = {"workspace_id": WORKSPACES[0], "project_id": PROJECTS[0], "name": "A task", "status": "pending"}
        sqlite_db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [world.created(TASK, id=A_TASK, **a_task)]))
    return sqlite_db


def plans(db: Any, pairs: Any, rows: str, teams: list[str] | None = None, resource: Resource = TASK) -> list[str]:
    """What SQLite means to do for each statement that reads the list."""
    principal = world.a_member(*(teams or WORKSPACES[:1]))

    def unit(tx: Any) -> list[str]:
        parsed = query.parse(tx, principal, resource, SECRET, pairs)
        recorder: Any = Recorder(tx)
        with mock.patch.object(planner, "RARE", {"few": 5000, "many": 0}[rows]):
            query.run(recorder, principal, parsed, SECRET)
        return [
            " | ".join(step[3] for step in tx.all(f"EXPLAIN QUERY PLAN {sql}", params))
            for sql, params in recorder.asked
        ]

    found: list[str] = db.read_sync(unit)
    return found


@pytest.fixture(params=["few", "many"])
def rows(request):
    return request.param


# Lists whose order an index has: nothing is sorted, whatever the number of rows.
IN_ORDER = {
    "all tasks of a workspace": ([], "tasks_by_workspace_id "),
    "the newest first": ([("sort", "-created_at")], "tasks_by_workspace_id_created_at "),
    "what changed last": ([("sort", "-updated_at")], "tasks_by_workspace_id_updated_at "),
    "by due date": ([("sort", "due_date")], "tasks_by_workspace_id_due_date "),
    "a project": ([A_PROJECT], "tasks_by_project_id "),
    "a project by due date": ([A_PROJECT, ("sort", "due_date")], "tasks_by_project_id_due_date "),
    "a project, the last due first": ([A_PROJECT, ("sort", "-due_date")], "tasks_by_project_id_due_date "),
    "open tasks of a project": ([A_PROJECT, ("status", "pending")], "tasks_by_project_id "),
    "somebody's by due date": (
        [("assignee", "ana"), ("sort", "due_date")],
        "tasks_by_workspace_id_assignee_due_date ",
    ),
    "due from a day, by due date": (
        [("due_date[$gte]", "today"), ("sort", "due_date")],
        "tasks_by_workspace_id_due_date ",
    ),
    "changed since": (
        [("updated_at[$gt]", "-1d"), ("sort", "updated_at")],
        "tasks_by_workspace_id_updated_at ",
    ),
    "completed since, the last first": (
        [("completed_at[$gte]", "yesterday"), ("sort", "-completed_at")],
        "tasks_by_workspace_id_completed_at ",
    ),
    "subtasks": ([("parent_id", A_TASK)], "tasks_by_parent_id "),
    "one by its id": ([("id", A_TASK)], "sqlite_autoindex_tasks_1 "),
}


@pytest.mark.parametrize("what", IN_ORDER)
def test_a_list_in_the_order_of_an_index(db, what, rows):
    pairs, index = IN_ORDER[what]
    for plan in plans(db, pairs, rows):
        assert f"SEARCH t USING INDEX {index}" in f"{plan} "
        assert "SCAN" not in plan
        assert SORTED not in plan


@pytest.mark.parametrize("what", [name for name in IN_ORDER if "workspace_id" in IN_ORDER[name][1]])
def test_across_workspaces_each_is_walked_in_order_and_merged(db, what, rows):
    pairs, index = IN_ORDER[what]
    for plan in plans(db, pairs, rows, teams=WORKSPACES):
        walks = plan.split("SEARCH t ")[1:]
        assert len(walks) == len(WORKSPACES)
        assert all(f"{walk} ".startswith(f"USING INDEX {index}") for walk in walks)
        assert "SCAN t" not in plan


# Conditions that pick few rows are where the reading starts; what they pick is sorted.
SELECTIVE = {
    "somebody's": ([("assignee", "ana")], "SEARCH t USING INDEX tasks_by_workspace_id_assignee_due_date "),
    "due within a week": (
        [("due_date[$gte]", "today"), ("due_date[$lte]", "+7d")],
        "SEARCH t USING INDEX tasks_by_workspace_id_due_date ",
    ),
    "completed since": (
        [("completed_at[$gte]", "yesterday")],
        "SEARCH t USING INDEX tasks_by_workspace_id_completed_at ",
    ),
    "with a label": ([("labels", "urgent")], "SEARCH v USING PRIMARY KEY (workspace_id=? AND field=? AND value=?)"),
    "with one of some labels": (
        [("labels[$in]", "urgent,late")],
        "SEARCH v USING PRIMARY KEY (workspace_id=? AND field=? AND value=?)",
    ),
    "with a custom field": (
        [("custom_fields.customer", "42")],
        "SEARCH v USING PRIMARY KEY (workspace_id=? AND field=? AND value=?)",
    ),
    "with a custom number above": (
        [("custom_fields.size[$gt]", "1")],
        "SEARCH v USING COVERING INDEX task_values_by_number (workspace_id=? AND field=? AND number>?)",
    ),
    "blocked by a task": (
        [("blocked_by", A_TASK)],
        "SEARCH v USING PRIMARY KEY (workspace_id=? AND field=? AND value=?)",
    ),
    "found by words": ([("q", "mockups")], "SCAN tasks_fts VIRTUAL TABLE INDEX"),
}


@pytest.mark.parametrize("sort", ["", "name", "-due_date", "custom_fields.size"])
@pytest.mark.parametrize("what", SELECTIVE)
def test_a_condition_that_picks_few_rows_comes_first(db, what, sort):
    pairs, beginning = SELECTIVE[what]
    for plan in plans(db, [*pairs, *([("sort", sort)] if sort else [])], "few"):
        assert beginning in f"{plan} "
        assert "SCAN t" not in plan.replace("SCAN tasks_fts", "")


@pytest.mark.parametrize("what", SELECTIVE)
def test_a_condition_that_picks_many_rows_is_asked_while_walking_in_order(db, what):
    """Sorting half of a large workspace for each page would cost seconds; walking finds a page of them soon."""
    pairs, _ = SELECTIVE[what]
    for plan in plans(db, pairs, "many"):
        assert SORTED not in plan
        assert "SCAN t" not in plan.replace("SCAN tasks_fts", "")


@pytest.mark.parametrize("teams", [WORKSPACES[:1], WORKSPACES], ids=["one workspace", "two"])
@pytest.mark.parametrize(
    "pairs",
    [
        [("sort", "name")],
        [("status", "pending"), ("sort", "-priority,name")],
        [("$or[0][assignee]", "ana"), ("$or[1][labels]", "urgent")],
        [("name[$contains]", "a")],
        [("custom_fields.size[$exists]", "false")],
        [("deleted", "true")],
        [("deleted", "true"), A_PROJECT],
    ],
    ids=str,
)
def test_no_list_of_tasks_reads_the_whole_table(db, pairs, teams, rows):
    for plan in plans(db, pairs, rows, teams):
        assert "SCAN t" not in plan


@pytest.mark.parametrize(
    ("resource", "pairs", "index"),
    [
        (PROJECT, [], "projects_by_workspace_id "),
        (PROJECT, [("type", "board")], "projects_by_workspace_id "),
        (COMMENT, [], "comments_by_workspace_id "),
        (COMMENT, [("task_id", A_TASK)], "comments_by_task_id "),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_other_resources(db, resource, pairs, index, rows):
    for plan in plans(db, pairs, rows, resource=resource):
        assert f"USING INDEX {index}" in f"{plan} "
        assert "SCAN" not in plan
        assert SORTED not in plan


def test_a_later_page_is_found_without_reading_those_before_it(db):
    principal = world.a_member(WORKSPACES[0])
    for sort, bound in (("due_date", "due_date>?"), ("created_at", "created_at>?"), ("", "n>?")):
        pairs = [("sort", sort)] if sort else []

        def unit(tx: Any, pairs: Any = pairs, sort: str = sort) -> str:
            parsed = query.parse(tx, principal, TASK, SECRET, pairs)
            parsed.after = [NOW, 1] if sort else [1]
            recorder: Any = Recorder(tx)
            query.run(recorder, principal, parsed, SECRET)
            sql, params = recorder.asked[0]
            return " | ".join(step[3] for step in tx.all(f"EXPLAIN QUERY PLAN {sql}", params))

        assert bound in db.read_sync(unit)


@pytest.mark.parametrize(("word", "charged"), [("a", True), ("t", True), ("ta", False), ("task", False)])
def test_a_short_word_is_charged_by_the_size_of_the_table(db, word, charged):
    """The index finds all words that begin with a letter in one step, which no other count sees."""
    principal = world.a_member(WORKSPACES[0])

    def unit(tx: Any) -> bool:
        rows = int(tx.one("SELECT max(n) FROM tasks")[0])
        parsed = query.parse(tx, principal, TASK, SECRET, [("q", word)])
        before = tx.budget.used
        query.run(tx, principal, parsed, SECRET)
        return bool(tx.budget.used - before >= rows * 1_000_000)

    with mock.patch.object(planner, "ROWS_A_STEP", (1 / 1_000_000, 1_000_000)):
        assert db.read_sync(unit) is charged
