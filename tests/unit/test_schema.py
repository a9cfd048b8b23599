"""The migrated schema is the one that the resources declare, on both databases.

Why: migrations are written by hand and never edited again; a member that is declared without a column, or a column
that nothing fills, must not wait for a customer to be noticed.
"""

from typing import Any

import pytest
from taskade_server.domain import resources
from taskade_server.domain.tasks.siblings import Siblings
from taskade_server.engine.model import REGISTRY

assert resources.RESOURCES, "all resources are declared by now"
TYPES = {
    "sqlite": {"text": "TEXT", "bigint": "INTEGER", "real": "REAL"},
    "postgresql": {"text": "text", "bigint": "bigint", "real": "double precision"},
}


def columns(db, table):
    """Name, type and NOT NULL of each column."""
    if db.dialect == "sqlite":
        rows = db.read_sync(lambda tx: tx.all(f"SELECT name, type, \"notnull\" FROM pragma_table_info('{table}')"))
    else:
        sql = (
            "SELECT column_name, data_type, CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ?"
        )
        rows = db.read_sync(lambda tx: tx.all(sql, (table,)))
    return {name: (kind, bool(required)) for name, kind, required in rows}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_each_declared_member_has_its_column_and_nothing_else_is_there(db, name):
    resource = REGISTRY[name]
    found = columns(db, resource.table)
    extra = {"n", "doc", *(["search"] if resource.search and db.dialect == "postgresql" else [])}
    assert set(found) - extra == {column for column, _ in resource.columns}
    assert {column: found[column][0] for column, _ in resource.columns} == {
        column: TYPES[db.dialect][kind] for column, kind in resource.columns
    }
    assert found["doc"] == (TYPES[db.dialect]["text"], True)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_clients_must_give_cannot_be_null(db, name):
    resource = REGISTRY[name]
    found = columns(db, resource.table)
    for member in resource.stored:
        for column, _ in member.sql_columns():
            derived = column == f"{member.name}_sort"  # null where it is the same as the folded text
            if member.writable and not member.nullable and not derived:
                assert found[column][1], f"{column} lacks NOT NULL"
            elif member.writable and member.name != "workspace_id":
                assert not found[column][1], f"{column} may be null in a document"


@pytest.mark.parametrize("name", [name for name, resource in sorted(REGISTRY.items()) if resource.multiple])
def test_multi_valued_members_have_a_side_table(db, name):
    assert set(columns(db, REGISTRY[name].side_table)) == {"workspace_id", "field", "value", "number", "n"}


@pytest.mark.parametrize("name", [name for name, resource in sorted(REGISTRY.items()) if resource.search])
def test_searchable_resources_have_a_full_text_index(db, name):
    table = REGISTRY[name].table
    if db.dialect == "sqlite":
        assert set(columns(db, f"{table}_fts")) == {"words"}
    else:
        assert columns(db, table)["search"][0] == "tsvector"
        indexes = db.read_sync(lambda tx: tx.all("SELECT indexdef FROM pg_indexes WHERE tablename = ?", (table,)))
        assert any("USING gin (search)" in row[0] for row in indexes)


def test_every_table_carries_its_workspace(db):
    """So that it can be the distribution key when PostgreSQL is spread over several machines."""
    for resource in REGISTRY.values():
        assert "workspace_id" in columns(db, resource.table)
        if resource.multiple:
            assert "workspace_id" in columns(db, resource.side_table)
    assert "workspace_id" in columns(db, "events")


def test_text_is_compared_by_bytes(db):
    """Or the two databases would sort differently, and cursors would depend on the server's locale."""
    if db.dialect == "sqlite":
        sql = "SELECT sql FROM sqlite_schema WHERE sql LIKE '%COLLATE%'"
    else:
        sql = (
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        )
    assert db.read_sync(lambda tx: tx.all(sql)) == []


@pytest.mark.parametrize("parent", [None, "task_parent"], ids=["top of a project", "subtasks"])
def test_the_neighbours_of_a_position_are_found_without_reading_the_whole_project(db, parent):
    """Otherwise one task that is moved in a project of 20,000 keeps the event loop for a fifth of a second."""
    plans = []

    class Explaining:
        def __init__(self, tx):
            self._tx = tx

        def all(self, sql, params):
            explain = "EXPLAIN QUERY PLAN" if db.dialect == "sqlite" else "EXPLAIN"
            plans.append("\n".join(str(row[-1]) for row in self._tx.all(f"{explain} {sql}", params)))
            return []

    def unit(tx):
        if db.dialect == "postgresql":  # which would rather read a table that is empty
            for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
                tx.all(f"SELECT set_config('{setting}', 'off', true)")
        explaining: Any = Explaining(tx)
        Siblings(explaining, "proj_1", parent, (), whole=False)._read_near("h")

    db.write_sync(unit)
    assert [plan.count("_id_position") for plan in plans] == [2], plans
    assert "Sort" not in plans[0] and "TEMP B-TREE" not in plans[0]
