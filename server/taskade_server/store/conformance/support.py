"""What all tests of a database share: a small schema, units of work, and waiting for what must happen."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from taskade_server.store.interface import (
    Database,
    Tx,
)
from taskade_server.store.schema import render

E = TypeVar("E", bound=BaseException)

SCHEMA = """
    CREATE TABLE items (id {{bigint}} NOT NULL PRIMARY KEY, name {{text}} NOT NULL UNIQUE, part {{bigint}} NOT NULL,
        place {{bigint}} NOT NULL, UNIQUE (part, place)) {{strict}};
    CREATE TABLE counters (id {{bigint}} NOT NULL PRIMARY KEY, value {{bigint}} NOT NULL) {{strict}};
    INSERT INTO counters (id, value) VALUES (1, 0), (2, 0);
"""
ADD = "INSERT INTO items (id, name, part, place) VALUES (?, ?, ?, ?)"
# After so long something hangs. Nothing here takes as long on a busy machine.
LIMIT_SECONDS = 60


class Factory(Protocol):
    """Another `Database` on the storage of this test."""

    def __call__(self, **options: Any) -> Database: ...


def item(number: int) -> tuple[int, str, int, int]:
    return (number, f"item {number}", 1, number)


def add(*numbers: int) -> Callable[[Tx], None]:
    """A unit that adds these items."""
    return lambda tx: tx.many(ADD, [item(number) for number in numbers])


def add_row(row: tuple[Any, ...]) -> Callable[[Tx], int]:
    return lambda tx: tx.run(ADD, row)


def ids(tx: Tx) -> list[int]:
    return [row[0] for row in tx.all("SELECT id FROM items ORDER BY id")]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; AssertionError if it never does."""
    end = asyncio.get_running_loop().time() + LIMIT_SECONDS
    while not holds():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.001)


def bump(counter: int) -> Callable[[Tx], int]:
    """A unit that counts up by one, and returns the new value."""

    def unit(tx: Tx) -> int:
        row = tx.one(f"SELECT value FROM counters WHERE id = ?{tx.for_update}", (counter,))
        value: int = row[0] + 1 if row else 0
        tx.run("UPDATE counters SET value = ? WHERE id = ?", (value, counter))
        return value

    return unit


def raised(kind: type[E], call: Callable[..., Any], *arguments: Any) -> E:
    """The error of this kind that the call must raise."""
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


async def failed(kind: type[E], call: Coroutine[Any, Any, Any]) -> E:
    """The error of this kind that the awaited call must raise."""
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def with_database(factory: Factory, test: Callable[[Database], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run an asynchronous test on an open database that has the schema above."""

    async def main() -> None:
        async with factory(**options) as db:
            await db.write(lambda tx: tx.script(render(SCHEMA, tx.dialect)))
            await test(db)

    asyncio.run(main())


@contextmanager
def prepared(factory: Factory) -> Iterator[Database]:
    """An open database that has the schema above, for synchronous tests."""
    with factory() as db:
        db.write_sync(lambda tx: tx.script(render(SCHEMA, tx.dialect)))
        yield db
