"""Work beside the requests outlives errors that nobody foresaw, and says so."""

import asyncio

import pytest
from taskade_server.consumers.feed import Feed
from taskade_server.kit import ids
from taskade_server.kit.background import keep_on


def test_it_begins_again_after_an_error_and_says_so(caplog):
    outcomes = iter([RuntimeError("once"), ValueError("twice"), None])

    async def work():
        if (outcome := next(outcomes)) is not None:
            raise outcome

    asyncio.run(keep_on("Counting", work, pause=0))
    assert [record.message for record in caplog.records] == ["Counting failed; it begins again in 0 s."] * 2
    assert "once" in caplog.text and "twice" in caplog.text


def test_it_can_be_cancelled():
    async def run():
        task = asyncio.create_task(keep_on("Waiting", lambda: asyncio.sleep(3600)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_whoever_waits_for_the_log_is_woken_although_looking_at_it_failed_once(db, monkeypatch):
    read, failures = db.read, iter([RuntimeError("nobody foresaw this")])

    async def failing(*args, **options):
        for error in failures:
            raise error
        return await read(*args, **options)

    async def run():
        feed = Feed(db)
        feed.start()
        try:
            # The second look wakes it: the log of no workspace is at 0.
            return await feed.wait({ids.new("ws"): -1}, 60)
        finally:
            await feed.stop()

    monkeypatch.setattr(db, "read", failing)
    assert asyncio.run(run())
    assert next(failures, None) is None
