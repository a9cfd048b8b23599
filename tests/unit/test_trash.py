"""The trash is emptied after 30 days: for good, with its events, and with what has no trash of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from taskade_server.config import TRASH_DAYS
from taskade_server.consumers import housekeeping, webhooks
from taskade_server.consumers.runner import Lease
from taskade_server.domain import identity, projects, secrets, tasks, workspaces
from taskade_server.domain import webhooks as domain_webhooks
from taskade_server.engine import check, edit, log
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import json, time
from taskade_server.kit.errors import Invalid, NotFound
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import deliveries

from tests.unit import world

HOME = world.WORKSPACES[0]
ANA, TOM, MIA = world.USERS
NOW = time.now_ms()


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


@pytest.fixture(scope="module")
def postgresql_db(postgresql_db: Database) -> Database:
    """The same."""
    postgresql_db.write_sync(world.found_world)
    return postgresql_db


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
            [job] = [job for job in housekeeping.jobs(db, TRASH_DAYS) if job.name == "trash"]
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


def test_only_a_project_that_was_open_is_remembered_as_open(db):
    def unit(tx: Tx, visibility: str) -> str:
        made = json.decode(projects.create(tx, context(), {"name": "Over", "visibility": visibility}))
        projects.delete(tx, context(), made["id"])
        return str(made["id"])

    with world.frozen_clock(lambda: NOW - 31 * time.DAY_MS):
        was_open, was_private = (db.write_sync(partial(unit, visibility=name)) for name in ("workspace", "private"))
    empty_trash(db)
    rows = [(HOME, was_open), (HOME, was_private)]
    assert db.read_sync(lambda tx: log.open_projects(tx, rows)) == {(HOME, was_open)}
    assert db.read_sync(lambda tx: log.open_projects(tx, [("ws_elsewhere", was_open)])) == frozenset()
    forged = "INSERT INTO purged_projects (id, workspace_id) VALUES (?, ?)"
    db.write_sync(lambda tx: tx.run(forged, (was_private, HOME)))
    found = [fault for finding in db.read_sync(lambda tx: list(check.run(tx))) for fault in finding.faults]
    assert f"the purged project {was_private} counts as open, which the log does not say" in found
    db.write_sync(lambda tx: tx.run("DELETE FROM purged_projects WHERE id = ?", (was_private,)))


def test_a_webhook_goes_after_it_has_told_that_its_project_is_gone(db):
    def unit(tx: Tx) -> str:
        project = json.decode(projects.create(tx, context(), {"name": "Over"}))["id"]
        body = {"url": "https://example.com/", "project_id": project, "events": ["project.purged"]}
        made = json.decode(domain_webhooks.create(tx, context(), body)[0])
        projects.delete(tx, context(), project)
        return str(made["id"])

    def is_there() -> bool:
        db.write_sync(lambda tx: webhooks.clean(tx, 0))
        return db.read_sync(lambda tx: tx.one("SELECT 1 FROM webhooks WHERE id = ?", (webhook,))) is not None

    with world.frozen_clock(lambda: NOW - 31 * time.DAY_MS):
        webhook = db.write_sync(unit)
    assert is_there()
    empty_trash(db)
    assert is_there(), "nobody was told yet"
    world.fan_out(db)
    (waiting,) = db.read_sync(lambda tx: deliveries.newest(tx, webhook, HOME, deliveries.Filter(), None, 10))
    assert (waiting.type, waiting.state) == ("project.purged", deliveries.PENDING)
    assert is_there(), "it is still to be sent"
    done = (waiting.id, webhook, waiting.object_id)
    db.write_sync(lambda tx: deliveries.cancel(tx, [done], NOW))
    assert not is_there()
    last = "SELECT type, actor_id FROM events WHERE object_id = ? ORDER BY seq DESC LIMIT 1"
    assert db.read_sync(lambda tx: tx.one(last, (webhook,))) == ("webhook.deleted", None)
    assert db.read_sync(check.replay) == []


def test_a_crowd_goes_in_several_units(db):
    crowd = [made_and_deleted(db, 40, TOM, MIA) for _ in range(5)]
    purge = partial(edit.purge, actor=Actor(None), resource=projects.PROJECT, before_ms=NOW - 35 * time.DAY_MS, limit=4)
    counts = [db.write_sync(partial(purge, below=[identity.MEMBER])) for _ in range(4)]
    assert counts == [6, 6, 3, 0], "whole projects, and few beyond the limit"
    assert [members_of(db, project) for project in crowd] == [[]] * 5
    assert {events_about(db, project)[-1][0] for project in crowd} == {"project.purged"}
    assert db.read_sync(check.replay) == []


# ---- at the same moment: on SQLite one of the two comes first in any case


def meet(db: Database, first: Callable[[Tx], object], second: Callable[[], object]) -> None:
    """Begin `second` when `first` is done but not committed yet, and let it wait for that."""
    done, leave = threading.Event(), threading.Event()

    def unit(tx: Tx) -> None:
        first(tx)
        done.set()
        leave.wait(20)

    with ThreadPoolExecutor(2) as threads:
        try:
            begun = threads.submit(db.write_sync, unit)
            assert done.wait(20)
            other = threads.submit(second)
            while not db.read_sync(lambda tx: tx.one("SELECT 1 FROM pg_locks WHERE NOT granted")):
                assert not other.done(), "the second has not waited for the first"
        finally:
            leave.set()
        begun.result(20)
        other.result(20)
    assert db.read_sync(check.replay) == []


def test_what_is_brought_back_at_the_last_moment_stays(postgresql_db):
    db = postgresql_db
    project = made_and_deleted(db, 31, TOM)
    meet(db, lambda tx: projects.restore(tx, context(), project), partial(empty_trash, db))
    assert members_of(db, project) == [TOM]
    assert events_about(db, project)[-1] == ("project.restored", ANA)


def test_what_is_gone_at_the_last_moment_is_not_brought_back(postgresql_db):
    db = postgresql_db

    def tree(tx: Tx) -> tuple[str, str]:
        parent = json.decode(tasks.create(tx, context(), {"name": "Above", "project_id": world.PROJECTS[0]}))["id"]
        child = json.decode(tasks.create(tx, context(), {"name": "Below", "parent_id": parent}))["id"]
        tasks.delete(tx, context(), parent)
        return parent, child

    def purge_child(tx: Tx) -> None:
        n, text = tx.all("SELECT n, doc FROM tasks WHERE id = ?", (child,))[0]
        before = json.decode(text)
        log.apply(tx, Actor(None), [Change(tasks.TASK, "purged", dict(before), before, n)])

    parent, child = db.write_sync(tree)
    meet(db, purge_child, lambda: db.write_sync(lambda tx: tasks.restore(tx, context(), parent)))
    assert db.read_sync(lambda tx: tx.all("SELECT id FROM tasks WHERE id IN (?, ?)", (parent, child))) == [(parent,)]


def family(tx: Tx) -> dict[str, str]:
    """The ids of a project and of what lies in it."""
    made = {"project": json.decode(projects.create(tx, context(), {"name": "P"}))["id"]}
    made["task"] = json.decode(tasks.create(tx, context(), {"name": "T", "project_id": made["project"]}))["id"]
    made["subtask"] = json.decode(tasks.create(tx, context(), {"name": "S", "parent_id": made["task"]}))["id"]
    made["comment"] = json.decode(tasks.create_comment(tx, context(), {"body": "C", "task_id": made["task"]}))["id"]
    return made


PATHS = {
    "a subtask": ("subtask", "task", "name"),
    "a comment of a task": ("comment", "task", "body"),
    "a comment of a project": ("comment", "project", "body"),
    "a task of a project": ("task", "project", "name"),
}


@pytest.mark.parametrize(("changed", "deleted", "member"), PATHS.values(), ids=PATHS)
def test_what_has_just_changed_goes_to_the_trash_as_it_is(postgresql_db, changed, deleted, member):
    db = postgresql_db
    made = db.write_sync(family)

    def change(tx: Tx) -> None:
        update = tasks.update_comment if changed == "comment" else tasks.update
        update(tx, context(), made[changed], {member: "the newest"})

    def delete(tx: Tx) -> None:
        (projects if deleted == "project" else tasks).delete(tx, context(), made[deleted])

    meet(db, change, lambda: db.write_sync(delete))
    table = "comments" if changed == "comment" else "tasks"
    [(text,)] = db.read_sync(lambda tx: tx.all(f"SELECT doc FROM {table} WHERE id = ?", (made[changed],)))
    found = json.decode(text)
    assert (found[member], found["version"], found["deleted_at"] is None) == ("the newest", 3, False)


NEW = {
    "a task in a project": ("project", "tasks", {"name": "New"}, "project_id"),
    "a subtask": ("task", "tasks", {"name": "New"}, "parent_id"),
    "a subtask of a subtask": ("task", "tasks", {"name": "New"}, "parent_id"),
    "a comment on a task": ("task", "comments", {"body": "New"}, "task_id"),
    "a comment on a task of a project": ("project", "comments", {"body": "New"}, "task_id"),
}


@pytest.mark.parametrize("deleted_first", [True, False])
@pytest.mark.parametrize("case", NEW)
def test_nothing_new_is_left_behind_by_what_goes_to_the_trash(postgresql_db, case, deleted_first):
    db = postgresql_db
    made = db.write_sync(family)
    deleted, table, body, member = NEW[case]
    above = made["subtask"] if case == "a subtask of a subtask" else made["task" if table == "comments" else deleted]
    refused = []

    def create(tx: Tx) -> None:
        new = tasks.create_comment if table == "comments" else tasks.create
        try:
            new(tx, context(), body | {member: above})
        except Invalid as error:
            refused.append(error)

    def delete(tx: Tx) -> None:
        (projects if deleted == "project" else tasks).delete(tx, context(), made[deleted])

    first, second = (delete, create) if deleted_first else (create, delete)
    meet(db, first, lambda: db.write_sync(second))
    assert len(refused) == deleted_first
    sql = f"SELECT count(*) FROM {table} WHERE project_id = ? AND deleted_at IS NULL"
    assert db.read_sync(lambda tx: tx.one(sql, (made["project"],))) == (0,)


def test_the_secrets_of_a_workspace_in_the_trash_are_shut_away_and_removed_after_30_days(db):
    """The workspace itself stays in the trash for ever."""

    def over(tx: Tx) -> str:
        owner = Principal(ANA, None, frozenset("*"), {HOME: Grant(HOME, "owner")}, HOME)
        own = Context(owner, Actor(ANA), world.SECRET)
        name = str(json.decode(workspaces.create(tx, own, {"name": "Over"}))["id"])
        body = {"name": "crm", "hosts": ["a.example"], "value": "the value", "workspace_id": name}
        secrets.create(tx, own, body)
        workspaces.delete(tx, own, name)
        return name

    def left(workspace_id: str) -> int:
        return len(db.read_sync(lambda tx: tx.all("SELECT 1 FROM secrets WHERE workspace_id = ?", (workspace_id,))))

    with world.frozen_clock(lambda: NOW - 31 * time.DAY_MS):
        long_ago = db.write_sync(over)
    lately = db.write_sync(over)
    for workspace_id in (long_ago, lately):
        with pytest.raises(NotFound):
            db.read_sync(lambda tx, name=workspace_id: secrets.open_for(tx, world.SECRET, name, "crm", "a.example"))
    empty_trash(db)
    assert (left(long_ago), left(lately)) == (0, 1)
    last = "SELECT type, actor_id FROM events WHERE workspace_id = ? ORDER BY seq DESC LIMIT 1"
    assert db.read_sync(lambda tx: tx.one(last, (long_ago,))) == ("secret.deleted", None)
    assert db.read_sync(check.replay) == []
