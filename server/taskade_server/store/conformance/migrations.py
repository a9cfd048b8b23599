"""Migrations, in any database."""

import threading

from taskade_server.store.conformance.support import Factory, raised
from taskade_server.store.interface import (
    BadQuery,
    ChangedMigration,
    NewerDatabase,
)
from taskade_server.store.schema import Migration, migrate


class Migrations:
    """Migrations are applied once and in order."""

    def test_migrations_are_applied_once_and_in_order(self, factory: Factory) -> None:
        steps = [
            Migration(1, "first", "CREATE TABLE one (id {{bigint}} PRIMARY KEY, t {{text}}) {{strict}};"),
            Migration(
                2,
                "second",
                "INSERT INTO one (id, t) VALUES (1, 'all; of -- it');\n-- only: sqlite\n"
                "INSERT INTO one (id, t) VALUES (2, 'sqlite');\n-- end\n-- only: postgresql\n"
                "INSERT INTO one (id, t) VALUES (2, 'postgresql');\n-- end",
            ),
        ]
        with factory() as db:
            assert migrate(db, steps[:1]) == ["0001_first"]
            assert migrate(db, steps) == ["0002_second"]
            assert migrate(db, steps) == []
            rows = db.read_sync(lambda tx: tx.all("SELECT t FROM one ORDER BY id"))
            assert rows == [("all; of -- it",), (db.dialect,)]
            newest = "SELECT version, name, checksum FROM schema_migrations ORDER BY version DESC"
            assert db.read_sync(lambda tx: tx.one(newest)) == (2, "second", steps[1].checksum)

    def test_a_migration_that_fails_leaves_nothing(self, factory: Factory) -> None:
        good = Migration(1, "good", "CREATE TABLE one (id {{bigint}});")
        bad = Migration(2, "bad", "CREATE TABLE two (id {{bigint}}); INSERT INTO nowhere VALUES (1);")
        with factory() as db:
            raised(BadQuery, migrate, db, [good, bad])
            assert db.read_sync(lambda tx: tx.all("SELECT name FROM schema_migrations")) == [("good",)]
            raised(BadQuery, db.read_sync, lambda tx: tx.all("SELECT * FROM two"))
            assert migrate(db, [good, Migration(2, "mended", "CREATE TABLE two (id {{bigint}});")]) == ["0002_mended"]

    def test_a_newer_or_changed_database_is_refused(self, factory: Factory) -> None:
        steps = [Migration(n, f"step_{n}", f"CREATE TABLE t{n} (id {{{{bigint}}}})") for n in (1, 2)]
        with factory() as db:
            migrate(db, steps)
            raised(NewerDatabase, migrate, db, steps[:1])
            changed = Migration(1, "step_1", steps[0].text + " ")
            raised(ChangedMigration, migrate, db, [changed, steps[1]])

    def test_one_of_many_processes_migrates(self, factory: Factory) -> None:
        steps = [Migration(n, f"step_{n}", f"CREATE TABLE t{n} (id {{{{bigint}}}})") for n in range(1, 6)]
        applied: list[str] = []

        def process() -> None:
            with factory() as db:
                applied.extend(migrate(db, steps))

        threads = [threading.Thread(target=process) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(applied) == [str(step) for step in steps]
