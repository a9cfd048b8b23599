"""The trash is emptied after 30 days: for good, with its events, and with what has no trash of its own."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from taskade_server import app
from taskade_server.consumers.runner import Lease
from taskade_server.domain import identity, projects
from taskade_server.engine import check, edit
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.kit import json, time
from taskade_server.store.database import Database, Tx

from tests.unit import world

HOME = world.WORKSPACES[0]
ANA, TOM, MIA = world.USERS
NOW = time.now_ms()


@pytest.fixture(scope="module", autouse=True)
def people(databases: list[Database]) -> None:
    for db in databases:
        db.write_sync(world.found_world)


def context() -> Context:
    return Context(world.a_member(HOME), Actor(ANA), world.SECRET)


def made_and_deleted(db: Database, days_ago: int, *members: str) -> str:
    """The id of a project that has been in the trash for so many days."""

    def unit(tx: Tx) -> str:
        body = {"name": "Over", "members": [{"user": user, "role": "viewer"} for user in members]}
        made = json.decode(projects.create(tx, context(), body))
        projects.delete(tx, context(), made["id"])
        return str(made["id"])

    with world.frozen_clock(lambda: NOW - days_ago * time.DAY_MS):
        return db.write_sync(unit)


def empty_trash(db: Database) -> None:
    async def scene() -> None:
        async with asyncio.timeout(60):
            [job] = [job for job in app.background_jobs(db) if job.name == "trash"]
            lease = Lease("trash", "test", 60.0)
            assert await lease.take(db) == 0
            await job.run(lease)

    asyncio.run(scene())


def members_of(db: Database, project_id: str) -> list[str]:
    rows = db.read_sync(lambda tx: tx.all('SELECT "user" FROM members WHERE project_id = ? ORDER BY n', (project_id,)))
    return [user for (user,) in rows]


def events_about(db: Database, project_id: str) -> list[tuple[Any, ...]]:
    sql = "SELECT type, actor_id FROM events WHERE project_id = ? ORDER BY workspace_id, seq"
    return db.read_sync(lambda tx: tx.all(sql, (project_id,)))


def test_memberships_go_with_their_project(db):
    old, new = made_and_deleted(db, 31, TOM, MIA), made_and_deleted(db, 29, TOM)
    empty_trash(db)
    assert (members_of(db, old), members_of(db, new)) == ([], [TOM])
    assert events_about(db, old)[-3:] == [("member.removed", None), ("member.removed", None), ("project.purged", None)]
    assert [kind for kind, _ in events_about(db, new)] == ["project.created", "member.added", "project.deleted"]
    roles = db.read_sync(lambda tx: identity.grants_of(tx, TOM))[HOME].project_roles
    assert old not in roles and new in roles
    assert db.read_sync(check.replay) == []


def test_a_crowd_goes_in_several_units(db):
    crowd = [made_and_deleted(db, 40, TOM, MIA) for _ in range(5)]
    purge = partial(edit.purge, actor=Actor(None), resource=projects.PROJECT, before_ms=NOW - 35 * time.DAY_MS, limit=4)
    counts = [db.write_sync(partial(purge, below=[identity.MEMBER])) for _ in range(4)]
    assert counts == [6, 6, 3, 0], "whole projects, and few beyond the limit"
    assert [members_of(db, project) for project in crowd] == [[]] * 5
    assert {events_about(db, project)[-1][0] for project in crowd} == {"project.purged"}
    assert db.read_sync(check.replay) == []


def test_what_is_brought_back_at_the_last_moment_stays(postgresql_db):
    """On SQLite one of the two comes first in any case."""
    db = postgresql_db
    project = made_and_deleted(db, 31, TOM)
    restored, leave = threading.Event(), threading.Event()

    def restore(tx: Tx) -> None:
        projects.restore(tx, context(), project)
        restored.set()
        leave.wait(20)

    units = [threading.Thread(target=db.write_sync, args=[restore]), threading.Thread(target=empty_trash, args=[db])]
    try:
        units[0].start()
        assert restored.wait(20)
        units[1].start()
        while not db.read_sync(lambda tx: tx.one("SELECT 1 FROM pg_locks WHERE NOT granted")):
            assert units[1].is_alive(), "the purge has not waited"
    finally:
        leave.set()
    for unit in units:
        unit.join()
    assert members_of(db, project) == [TOM]
    assert [kind for kind, _ in events_about(db, project)][-1] == "project.restored"
    assert db.read_sync(check.replay) == []
