"""What only PostgreSQL has to do."""

import asyncio
import itertools
import threading
from collections.abc import Callable

from taskade_server.store.conformance.common import Conformance
from taskade_server.store.conformance.support import (
    ADD,
    LIMIT_SECONDS,
    Factory,
    add,
    bump,
    ids,
    item,
    prepared,
    raised,
    with_database,
)
from taskade_server.store.interface import (
    Database,
    OutcomeUnknown,
    QueryTooExpensive,
    StoreError,
    Tx,
    Unavailable,
)


class PostgresConformance(Conformance):
    """What only PostgreSQL has to do."""

    def test_a_deadlock_is_resolved(self, factory: Factory) -> None:
        contexts: list[dict[str, object]] = []
        both = threading.Barrier(2, timeout=LIMIT_SECONDS)

        def unit(first: int, second: int) -> Callable[[Tx], None]:
            attempts = itertools.count()

            def work(tx: Tx) -> None:
                assert tx.context == {}
                tx.context["used"] = True
                contexts.append(tx.context)
                bump(first)(tx)
                if next(attempts) == 0:
                    both.wait()
                bump(second)(tx)

            return work

        async def test(db: Database) -> None:
            await asyncio.gather(db.write(unit(1, 2)), db.write(unit(2, 1)))
            assert await db.read(lambda tx: tx.all("SELECT value FROM counters")) == [(2,), (2,)]
            # The unit that was undone may run again before the other has taken the locks: then they meet once more.
            assert len(contexts) >= 3

        with_database(factory, test)

    def test_a_serialization_failure_is_tried_again_and_then_given_up(self, factory: Factory) -> None:
        attempts: list[int] = []
        refusal = "DO $$ BEGIN RAISE EXCEPTION 'so it goes' USING ERRCODE = '40001'; END $$"

        def unit(succeeds_at: int) -> Callable[[Tx], None]:
            def work(tx: Tx) -> None:
                attempts.append(1)
                tx.run(ADD, item(succeeds_at))
                if len(attempts) < succeeds_at:
                    try:
                        tx.script(refusal)
                    except StoreError as error:
                        raise LookupError from error  # a layer above may have its own word for it

            return work

        with prepared(factory) as db:
            db.write_sync(unit(3))
            assert len(attempts) == 3 and db.read_sync(ids) == [3]
            attempts.clear()
            raised(LookupError, db.write_sync, unit(100))
            assert 5 <= len(attempts) <= 10 and db.read_sync(ids) == [3]

    def test_a_lost_connection_is_replaced(self, factory: Factory) -> None:
        with prepared(factory) as db, factory() as other:

            def cut(tx: Tx) -> None:
                mine = tx.all("SELECT pg_backend_pid()")[0][0]
                other.write_sync(lambda tx: tx.all("SELECT pg_terminate_backend(CAST(? AS INTEGER))", (mine,)))

            def unit(tx: Tx) -> int:
                attempts.append(1)
                if len(attempts) == 1:
                    if tx.writable:
                        tx.run(ADD, item(1))
                    cut(tx)
                tx.all("SELECT 1")
                return len(attempts)

            for run in (db.read_sync, db.write_sync):
                attempts: list[int] = []
                assert run(unit) == 2
            assert db.read_sync(ids) == []
            db.read_sync(lambda tx: None)
            other.write_sync(
                lambda tx: tx.all(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            db.write_sync(add(5))
            assert db.read_sync(ids) == [5]

    def test_a_connection_lost_at_the_commit_leaves_the_outcome_open(self, factory: Factory) -> None:
        # A deferred trigger runs inside COMMIT, and cuts the connection there.
        trap = """
            CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON items
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut();
        """
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.script(trap))
            raised(OutcomeUnknown, db.write_sync, add(1))
            assert db.read_sync(ids) == []

    def test_an_unreachable_server_is_one_clear_line(self, factory: Factory) -> None:
        error = raised(Unavailable, lambda: factory(url="postgresql://ana:secret@127.0.0.1:1/none").open_sync())
        assert "127.0.0.1" in str(error) and "secret" not in str(error) and "\n" not in str(error)

    def test_a_long_query_is_stopped(self, factory: Factory) -> None:
        with prepared(factory) as db:
            db.write_sync(lambda tx: tx.script("SET statement_timeout = '50ms'"))
            raised(QueryTooExpensive, db.write_sync, lambda tx: tx.all("SELECT pg_sleep(5)"))
        with factory(read_seconds=0.05) as db:
            raised(QueryTooExpensive, db.read_sync, lambda tx: tx.all("SELECT pg_sleep(5)"))
