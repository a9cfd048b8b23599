"""The feed wakes who waits for a workspace, for what this process commits and for what others do, and nobody else."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from taskade_server.consumers.feed import PAGE, Feed
from taskade_server.domain.workspaces import WORKSPACE
from taskade_server.engine import log
from taskade_server.kit import ids
from taskade_server.store.database import Database, connect

from tests.unit.world import ACTOR, created

LONG = 30.0


def add(db: Database, name: str, count: int = 1) -> None:
    """Write events into a workspace's log, past the feed: as another process would."""

    def unit(tx) -> None:
        changes = [created(WORKSPACE, id=ids.new("ws"), workspace_id=name, name="A team") for _ in range(count)]
        log.apply(tx, ACTOR, changes)

    db.write_sync(unit)


@pytest.fixture
def place(db):
    """Where the database is, to open it once more."""
    return db._path if db.dialect == "sqlite" else db._url


def play(place, scene: Callable[[Feed, Database], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), connect(place) as db:
            feed = Feed(db)
            feed.start()
            try:
                await scene(feed, db)
            finally:
                await feed.stop()

    asyncio.run(run())


def test_what_another_process_commits_wakes_those_who_wait_for_that_workspace(db, place):
    mine, other = ids.new("ws"), ids.new("ws")
    add(db, mine)

    async def scene(feed: Feed, _: Database) -> None:
        waiting = asyncio.create_task(feed.wait({mine: 1}, LONG))
        elsewhere = asyncio.create_task(feed.wait({other: 0}, LONG))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.to_thread(add, db, mine, 3)
        assert await waiting
        assert not elsewhere.done()
        assert await feed.heads([mine, other]) == {mine: 4, other: 0}
        assert [event.seq for event in await feed.page(mine, 1, 4)] == [2, 3, 4]
        elsewhere.cancel()

    play(place, scene)


def test_whoever_is_behind_already_does_not_wait(db, place):
    mine = ids.new("ws")
    add(db, mine, 2)

    async def scene(feed: Feed, _: Database) -> None:
        assert await feed.wait({mine: 1}, LONG)
        assert not await feed.wait({mine: 2}, 0.0)

    play(place, scene)


def test_a_page_is_read_once_for_all(db, place):
    mine = ids.new("ws")
    add(db, mine, PAGE + 5)

    async def scene(feed: Feed, own: Database) -> None:
        reads = 0
        read = own.read

        async def counted(*args, **more):
            nonlocal reads
            reads += 1
            return await read(*args, **more)

        own.read = counted  # type: ignore[method-assign]
        pages = await asyncio.gather(*(feed.page(mine, 0, PAGE + 5) for _ in range(50)))
        assert reads == 1
        assert all([event.seq for event in page] == list(range(1, PAGE + 1)) for page in pages)
        assert [event.seq for event in await feed.page(mine, PAGE, PAGE + 5)][-1] == PAGE + 5

    play(place, scene)


def test_the_end_wakes_all(db, place):
    async def scene(feed: Feed, _: Database) -> None:
        waits = [asyncio.create_task(feed.wait({ids.new("ws"): 0}, LONG)) for _ in range(3)]
        await asyncio.sleep(0)
        await feed.stop()
        assert await asyncio.gather(*waits) == [False] * 3
        assert not await feed.wait({"x": 0}, LONG)

    play(place, scene)


def test_many_events_and_many_waiters_and_none_is_missed(db, place):
    """Each reader goes from its position to the head again and again: it must end with every number, once."""
    mine = ids.new("ws")
    total = 120

    async def follow(feed: Feed) -> list[int]:
        seen: list[int] = []
        while len(seen) < total:
            last = seen[-1] if seen else 0
            if await feed.wait({mine: last}, LONG):
                head = (await feed.heads([mine]))[mine]
                seen += [event.seq for event in await feed.page(mine, last, head)]
        return seen

    async def scene(feed: Feed, own: Database) -> None:
        readers = [asyncio.create_task(follow(feed)) for _ in range(10)]
        for number in range(total // 4):
            await asyncio.to_thread(partial(add, db, mine, 3))
            change = [created(WORKSPACE, id=ids.new("ws"), workspace_id=mine, name=f"Team {number}")]
            await own.write(partial(log.apply, actor=ACTOR, changes=change))
            feed.notify()
        assert all(seen == list(range(1, total + 1)) for seen in await asyncio.gather(*readers))

    play(place, scene)


def test_who_gives_up_at_once_leaves_the_others_their_turn(db, place):
    """A watcher that finds nobody to wake must still let the event loop go on."""
    mine = ids.new("ws")
    add(db, mine)

    async def scene(feed: Feed, _: Database) -> None:
        curious = asyncio.create_task(feed.changed(feed.version, LONG))
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        waiting = feed.wait({mine: 1}, LONG)
        waiting.send(None)  # it waits,
        waiting.close()  # and is gone before anybody else had a turn
        await asyncio.sleep(0.2)
        curious.cancel()

    signal.alarm(20)  # a loop that spins cannot time itself out
    try:
        play(place, scene)
    finally:
        signal.alarm(0)
