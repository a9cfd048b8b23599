"""Both databases keep the promises of the store, and its migration files are read as they are written."""

import re
from pathlib import Path

import pytest
from taskade_server.store.conformance import Factory, PostgresConformance, SqliteConformance
from taskade_server.store.database import Unavailable, connect
from taskade_server.store.postgresql import PostgresDatabase, numbered
from taskade_server.store.schema import load, render, shipped
from taskade_server.store.sqlite.database import SqliteDatabase


class TestSqlite(SqliteConformance):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Factory:
        return lambda **options: SqliteDatabase(tmp_path / "store.db", **options)


@pytest.fixture(scope="module")
def shared_url(postgres) -> str:
    return str(postgres.create_database())


class TestPostgresql(PostgresConformance):
    @pytest.fixture
    def factory(self, shared_url) -> Factory:
        # Much cheaper than a database for each test.
        with PostgresDatabase(shared_url) as db:
            db.write_sync(lambda tx: tx.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        return lambda url=shared_url, **options: PostgresDatabase(url, **options)


def test_the_target_chooses_the_database(tmp_path):
    assert connect("postgresql://localhost/x").dialect == "postgresql"
    assert connect("postgres://localhost/x").dialect == "postgresql"
    assert connect(str(tmp_path / "x.db")).dialect == connect(tmp_path / "x.db").dialect == "sqlite"


def test_a_file_that_cannot_be_made_is_one_clear_line(tmp_path):
    for path in (tmp_path / "missing" / "x.db", tmp_path):
        with pytest.raises(Unavailable, match=re.escape(str(path))) as caught:
            connect(path).open_sync()
        assert "\n" not in str(caught.value)


def test_nobody_else_may_read_the_file(tmp_path):
    with connect(tmp_path / "x.db") as db:
        db.write_sync(lambda tx: tx.script("CREATE TABLE t (a INTEGER)"))
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_placeholders_are_numbered():
    assert numbered("a = ? AND b = '?' -- ?\nAND \"?\" = ?") == b"a = $1 AND b = '?' -- ?\nAND \"?\" = $2"


def test_passages_and_types_belong_to_one_database():
    text = "a {{text}}\n-- only: sqlite\nb\n-- end\n  -- only: postgresql\nc {{identity}}\n-- end\nd -- only: x"
    assert render(text, "sqlite") == "a TEXT\nb\nd -- only: x"
    assert render(text, "postgresql").startswith('a TEXT COLLATE "C"\nc BIGINT GENERATED')


@pytest.mark.parametrize(
    "text",
    [
        "-- only: sqlite\na",
        "a\n-- end",
        "-- only: sqlite\n-- only: sqlite\n-- end",
        "-- only: oracle\n-- end",
        "{{number}}",
    ],
)
def test_a_mistake_in_a_migration_is_refused(text):
    with pytest.raises((ValueError, KeyError)):
        render(text, "sqlite")


def test_migrations_must_be_numbered_without_a_gap(tmp_path):
    for name in ("0001_a.sql", "0003_b.sql"):
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ValueError, match="numbered"):
        load(tmp_path)
    (tmp_path / "0002_c.sql").write_text("SELECT 1")
    assert [str(migration) for migration in load(tmp_path)] == ["0001_a", "0002_c", "0003_b"]


def test_the_shipped_migrations_can_be_read():
    for migration in shipped():
        for dialect in ("sqlite", "postgresql"):
            assert "{{" not in render(migration.text, dialect)
