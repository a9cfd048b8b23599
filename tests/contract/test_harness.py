"""The harness itself: what the other tests stand on must not fail quietly.

Why here: a database with another encoding or collation would sort and compare differently, and every test
about order would then be about the harness.
"""

import apsw
import psycopg

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
