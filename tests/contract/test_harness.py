"""The harness itself: what the other tests stand on must not fail quietly.

Why here: a database with another encoding or collation would sort and compare differently, and every test
about order would then be about the harness.
"""

import subprocess
import sys

import apsw
import psycopg
import pytest

from tests.support.postgres import PostgreSQL

WORDS = '["a", "Z", "é", "z"]'


def test_a_fresh_database_is_empty_and_compares_text_by_bytes(fresh_database, database):
    if database == "postgresql":
        with psycopg.connect(fresh_database) as postgres:
            assert postgres.execute("SHOW server_encoding").fetchone() == ("UTF8",)
            tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            assert postgres.execute(tables).fetchall() == []
            words = "SELECT value FROM json_array_elements_text(%s::json) AS t (value) ORDER BY value"
            rows = postgres.execute(words, (WORDS,)).fetchall()
    else:
        sqlite = apsw.Connection(fresh_database)
        assert sqlite.execute("SELECT name FROM sqlite_schema").fetchall() == []
        rows = sqlite.execute("SELECT value FROM json_each(?) ORDER BY value", (WORDS,)).fetchall()
        sqlite.close()
    assert [row[0] for row in rows] == ["Z", "a", "z", "é"]


def test_every_fresh_database_is_another_one(new_database):
    assert new_database() != new_database()


@pytest.mark.parametrize("whose", ["nobody's any more", "a stranger's"])
def test_cleaning_up_after_a_killed_run_spares_whoever_has_its_process_number_now(tmp_path, whose):
    """A killed run leaves the number of a PostgreSQL that is gone; the next run must start, and stop nobody else."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        if whose != "a stranger's":
            process.kill()
            process.wait()
        (tmp_path / "pg").mkdir()
        (tmp_path / "pg" / "postmaster.pid").write_text(f"{process.pid}\n{tmp_path / 'pg'}\n0\n")
        (tmp_path / "pg.port").write_text("5432")
        PostgreSQL(tmp_path).stop()
        assert not (tmp_path / "pg.port").exists()
        assert process.poll() is None or whose != "a stranger's"
    finally:
        process.kill()
        process.communicate()
