"""Values, statements and their errors, in any database."""

import asyncio
from typing import Any

from taskade_server.store.conformance.support import (
    ADD,
    Factory,
    add,
    add_row,
    failed,
    ids,
    item,
    prepared,
    raised,
)
from taskade_server.store.interface import (
    BadQuery,
    Conflict,
    ConstraintFailed,
    StoreError,
    Tx,
    Unavailable,
)
from taskade_server.store.schema import render


class Statements:
    """Statements and the values and errors that come of them."""

    def test_values_come_back_as_they_were(self, factory: Factory) -> None:
        table = "CREATE TABLE kinds (n {{identity}}, i {{bigint}}, r {{real}}, t {{text}}, b {{blob}}) {{strict}}"
        rows = [
            (0, 0.0, "", b""),
            (2**63 - 1, 1e308, "Grüße, 世界 🎉 'quoted' \"twice\" ? % \\ $1", bytes(range(256))),
            (-(2**63), -0.5, "line\nline", b"\0"),
            (None, None, None, None),
        ]
        with factory() as db:
            db.write_sync(lambda tx: tx.script(render(table, tx.dialect)))
            db.write_sync(lambda tx: tx.many("INSERT INTO kinds (i, r, t, b) VALUES (?, ?, ?, ?)", rows))
            found = db.read_sync(lambda tx: tx.all("SELECT i, r, t, b FROM kinds ORDER BY n"))
            assert found == rows
            assert [[type(value) for value in row] for row in found] == [[type(v) for v in row] for row in rows]
            assert db.read_sync(lambda tx: tx.one("SELECT n FROM kinds WHERE i = ?", (0,))) == (1,)

    def test_a_page_ends_where_it_is_large_enough(self, factory: Factory) -> None:
        rows = [(number, "é" * 1000 * number, 1, number) for number in range(1, 6)]
        sql = "SELECT name AS doc, id, place FROM items WHERE part = ? ORDER BY id LIMIT 4"
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, rows))

            def page(most: int) -> tuple[list[int], bool]:
                found, cut = db.read_sync(lambda tx: tx.page(sql, (1,), most))
                assert all(len(row) == 3 and len(row[0]) == 1000 * row[1] for row in found)
                return [row[1] for row in found], cut

            # The sizes are counted in characters or in bytes, as the database knows them.
            assert page(0) == page(1) == ([1], True)
            assert page(4000) in (([1, 2], True), ([1, 2, 3], True))
            assert page(1_000_000) == ([1, 2, 3, 4], False)
            assert db.read_sync(lambda tx: tx.page(sql, (2,), 0)) == ([], False)
            assert db.write_sync(lambda tx: tx.page(sql, (1,), 1)[1]) is True

    def test_booleans_and_sums_are_integers(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, [(1, "a", True, 1), (2, "b", False, 2)]))
            rows = db.read_sync(lambda tx: tx.all("SELECT part FROM items ORDER BY id"))
            assert rows == [(1,), (0,)] and type(rows[0][0]) is int
            total = db.read_sync(lambda tx: tx.one("SELECT sum(place), count(*) FROM items WHERE part >= ?", (False,)))
            assert total == (3, 2) and type(total[0]) is int

    def test_question_marks_in_text_are_text(self, factory: Factory) -> None:
        query = """SELECT '?', 'it''s ?', "name" AS "a?", '100%' -- why?
                   FROM items WHERE id = ? AND name LIKE ? AND '%s' <> ?"""
        with prepared(factory) as db:
            db.write_sync(add(7))
            row = db.read_sync(lambda tx: tx.one(query, (7, "item%", "x")))
            assert row == ("?", "it's ?", "item 7", "100%")
            row = db.read_sync(lambda tx: tx.one("SELECT substr(name, ?, ?) FROM items", (1, 4)))
            assert row == ("item",)

    def test_rows_and_counts(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(add(1, 2, 3))
            assert db.read_sync(lambda tx: tx.one("SELECT id FROM items WHERE id = ?", (9,))) is None
            assert db.read_sync(lambda tx: tx.all("SELECT id FROM items WHERE id = ?", (9,))) == []
            assert db.write_sync(lambda tx: tx.run("UPDATE items SET part = ? WHERE id > ?", (2, 1))) == 2
            assert db.write_sync(lambda tx: tx.run("DELETE FROM items WHERE id > ?", (5,))) == 0
            assert db.write_sync(lambda tx: tx.all("DELETE FROM items WHERE id < ? RETURNING id", (3,))) in (
                [(1,), (2,)],
                [(2,), (1,)],
            )
            again = f"{ADD} ON CONFLICT (id) DO NOTHING"
            assert db.write_sync(lambda tx: [tx.run(again, item(n)) for n in (3, 4)]) == [0, 1]

    def test_text_sorts_by_bytes(self, factory: Factory) -> None:
        names = ["Zoe", "_", "a", "ab", "b", "É", "é", "\N{PARTY POPPER}"]
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.many(ADD, [(i, name, 1, i) for i, name in enumerate(reversed(names))]))
            assert [row[0] for row in db.read_sync(lambda tx: tx.all("SELECT name FROM items ORDER BY name"))] == names

    def test_a_conflict_names_the_key(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(add(1))
            for row, columns in (
                ((1, "x", 5, 5), ("id",)),
                ((2, "item 1", 5, 5), ("name",)),
                ((2, "x", 1, 1), ("part", "place")),
            ):
                error = raised(Conflict, db.write_sync, add_row(row))
                assert (error.table, error.columns) == ("items", columns)

    def test_errors_have_the_same_kinds(self, factory: Factory) -> None:
        def error(sql: str, *params: Any) -> StoreError:
            return raised(StoreError, db.write_sync, lambda tx: tx.run(sql, params))

        with prepared(factory) as db:
            assert type(error(ADD, 1, None, 1, 1)) is ConstraintFailed
            assert type(error(ADD, 2**63, "x", 1, 1)) is ConstraintFailed
            assert type(error(ADD, 1, "\ud83d", 1, 1)) is ConstraintFailed
            assert type(error("INSERT INTO nothing (id) VALUES (?)", 1)) is BadQuery
            assert type(error("SELEC ?", 1)) is BadQuery
            assert type(error(ADD, 1)) is BadQuery

    def test_a_failed_statement_spoils_its_unit(self, factory: Factory) -> None:
        def swallow(tx: Tx) -> None:
            tx.run(ADD, item(2))
            raised(Conflict, tx.run, ADD, item(1))

        def go_on(tx: Tx) -> None:
            swallow(tx)
            raised(BadQuery, tx.run, ADD, item(3))
            raised(BadQuery, tx.all, "SELECT 1")
            raised(BadQuery, tx.many, ADD, [item(3)])

        with prepared(factory) as db:
            db.write_sync(add(1))
            for unit in (swallow, go_on):
                raised(Conflict, db.write_sync, unit)
            assert db.read_sync(ids) == [1]

    def test_a_savepoint_undoes_what_is_inside_it(self, factory: Factory) -> None:
        called: list[int] = []

        def attempt(tx: Tx, number: int) -> None:
            with tx.savepoint():
                tx.before_commit.append(lambda: called.append(number))
                tx.defer(ADD, [item(number + 100)])
                tx.run(ADD, item(number + 10))
                tx.run(ADD, item(number))

        def unit(tx: Tx) -> None:
            tx.run(ADD, item(2))
            raised(Conflict, attempt, tx, 1)
            attempt(tx, 3)
            with tx.savepoint():
                raised(Conflict, attempt, tx, 2)
                tx.run(ADD, item(4))

        with prepared(factory) as db:
            db.write_sync(add(1))
            db.write_sync(unit)
            assert db.read_sync(ids) == [1, 2, 3, 4, 13, 103]
            assert called == [3]

    def test_a_read_cannot_write(self, factory: Factory) -> None:
        with prepared(factory) as db:
            raised(BadQuery, db.read_sync, add(1))
            raised(BadQuery, db.read_sync, lambda tx: tx.run("DELETE FROM items"))
            raised(BadQuery, db.read_sync, lambda tx: tx.defer(ADD, [item(1)]))
            assert db.read_sync(lambda tx: tx.writable) is False
            assert db.write_sync(lambda tx: tx.writable) is True

    def test_a_unit_of_work_cannot_be_kept(self, factory: Factory) -> None:
        with prepared(factory) as db:
            for tx in (db.write_sync(lambda tx: tx), db.read_sync(lambda tx: tx)):
                raised(BadQuery, tx.all, "SELECT 1")
                raised(BadQuery, tx.many, ADD, [item(1)])

    def test_a_closed_database_says_so(self, factory: Factory) -> None:
        async def main() -> None:
            await failed(Unavailable, db.read(ids))
            await failed(Unavailable, db.write(add(1)))
            await db.close()

        with prepared(factory) as db:
            pass
        raised(Unavailable, db.read_sync, ids)
        raised(Unavailable, db.write_sync, add(1))
        asyncio.run(main())
