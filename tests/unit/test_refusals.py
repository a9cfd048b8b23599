"""What is written down of refusals: each thing soon, a flood as a count, and nothing lost that could still be written.

Why with a clock of its own: "once a minute" is not tested by waiting for one.
"""

import asyncio

import pytest
from taskade_server.consumers import access_log as refusals
from taskade_server.consumers.access_log import DENIED, MORE, AccessEntry, Refusals
from taskade_server.engine import audit
from taskade_server.engine.access import Grant, Principal
from taskade_server.kit import ids
from taskade_server.store.database import Unavailable

from tests.unit.world import NOW, USERS, WORKSPACES, frozen_clock


@pytest.fixture
def workspace():
    return ids.new("ws")


@pytest.fixture
def clock():
    now = [NOW]
    with frozen_clock(lambda: now[0]):
        yield now


def noted(reason, workspace_id="", **more):
    values = {
        "action": DENIED,
        "outcome": "denied",
        "status": 403,
        "reason": reason,
        "workspace_id": workspace_id,
        "actor_id": USERS[0],
    }
    return AccessEntry(**{**dict.fromkeys(AccessEntry._fields), **values, **more})


def caller(workspace):
    return Principal(USERS[0], None, frozenset("*"), {workspace: Grant(workspace, "member")}, workspace)


def written(db, workspace):
    found = db.read_sync(
        lambda tx: audit.find(tx, audit.AuditQuery(workspace), audit.Position(), 1000, newest_first=False).entries
    )
    assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
    return [(entry.action, entry.reason, entry.times, entry.at - NOW, entry.last_at - NOW) for entry in found]


def flush(log, **options):
    asyncio.run(log.flush(**options))


def test_the_first_is_written_at_once_and_the_others_are_counted_for_a_minute(db, workspace, clock):
    log = Refusals(db)

    def refuse(times):
        for _ in range(times):
            log.note(noted("a"), "key", None, caller(workspace))

    refuse(1)
    flush(log)
    assert written(db, workspace) == [(DENIED, "a", 1, 0, 0)]
    clock[0] += 10_000
    refuse(70)
    flush(log)
    clock[0] += 49_999
    flush(log)
    assert len(written(db, workspace)) == 1
    clock[0] += 1
    flush(log)
    assert written(db, workspace)[1:] == [(DENIED, "a", 70, 10_000, 10_000)]
    refuse(2)
    flush(log)
    assert written(db, workspace)[2:] == [(DENIED, "a", 2, 60_000, 60_000)], "and it begins anew"


def test_of_one_caller_only_so_many_different_things_are_written(db, workspace, clock):
    log = Refusals(db)
    for number in range(100):
        log.note(noted(f"reason {number}"), "key", None, caller(workspace))
    log.note(noted("of another"), "another key", None, caller(workspace))
    flush(log)
    found = written(db, workspace)
    assert len(found) == refusals.PER_CALLER + 2
    assert [times for action, _, times, _, _ in found if action == MORE] == [70]
    assert "of another" in [reason for _, reason, _, _, _ in found]


def test_what_is_kept_in_memory_is_bounded(db, workspace, clock):
    log = Refusals(db)
    for number in range(3 * refusals.IN_ALL):
        log.note(noted(f"{number}"), f"address {number}", None, caller(workspace))
    assert len(log._tallies) <= refusals.IN_ALL + 1
    flush(log, everything=True)
    clock[0] += 60_000
    flush(log)
    assert not log._tallies and not log._sources
    assert len(written(db, workspace)) >= refusals.IN_ALL - 1


def test_while_the_database_is_away_nothing_is_lost(db, workspace, clock, monkeypatch):
    log = Refusals(db)
    log.note(noted("a"), "key", None, caller(workspace))

    async def away(unit):
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(db, "write", away)
        with pytest.raises(Unavailable):
            flush(log)
        asyncio.run(log.finish())  # says so, and lets the server end
    log.note(noted("a"), "key", None, caller(workspace))
    flush(log)
    assert written(db, workspace) == [(DENIED, "a", 2, 0, 0)]


def test_an_end_writes_what_is_left(db, workspace, clock):
    log = Refusals(db)
    log.note(noted("a"), "key", None, caller(workspace))
    flush(log)
    log.note(noted("a"), "key", None, caller(workspace))
    asyncio.run(log.finish())
    assert [times for _, _, times, _, _ in written(db, workspace)] == [1, 1]


def test_an_end_in_the_midst_of_a_write_does_not_make_it_twice(db, workspace, clock, monkeypatch):
    """As when a server stops: the task that writes is cancelled, and what it began is done all the same."""
    log, write = Refusals(db), db.write
    log.note(noted("a"), "key", None, caller(workspace))

    async def run():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(unit):
            await write(unit)
            begun.set()
            await go_on.wait()

        monkeypatch.setattr(db, "write", slow)
        writer = asyncio.create_task(log.flush())
        await begun.wait()
        writer.cancel()
        await asyncio.wait([writer])
        monkeypatch.setattr(db, "write", write)
        end = asyncio.create_task(log.finish())
        await asyncio.sleep(0)
        go_on.set()
        await end

    asyncio.run(run())
    assert [times for _, _, times, _, _ in written(db, workspace)] == [1]


def test_several_processes_number_their_entries_without_gaps(db, workspace, clock):
    logs = [Refusals(db) for _ in range(4)]

    async def run():
        for number in range(10):
            for log in logs:
                log.note(noted(f"{number}"), f"key {number % 3}", None, caller(workspace))
            await asyncio.gather(*(log.flush() for log in logs))

    asyncio.run(run())
    assert len(written(db, workspace)) == 40


def test_a_workspace_counts_only_for_who_has_a_part_in_it(db, workspace, clock):
    log = Refusals(db)
    log.note(noted("a", WORKSPACES[0]), "key", None, caller(workspace))
    log.note(noted("b", workspace), "key", None, caller(workspace))
    flush(log)
    assert [reason for _, reason, _, _, _ in written(db, workspace)] == ["a", "b"]
