"""`taskade check` names what breaks the rules of the domain: each rule is broken here once, past all that guards it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from taskade_server.domain import soundness
from taskade_server.domain.identity import MEMBER, ROLES
from taskade_server.domain.projects import DEFAULT_STATUSES, PROJECT
from taskade_server.domain.tasks import COMMENT, TASK
from taskade_server.engine import check, log
from taskade_server.engine.log import Change
from taskade_server.kit import ids
from taskade_server.store.database import Database, Tx

from tests.unit import world
from tests.unit.world import HOME, PROJECTS, USERS, WORKSPACES

HERE, SECOND, ELSEWHERE = PROJECTS
NAMES = [world.an_id("task", number) for number in range(60)]


def task(number: int, **members: Any) -> Change:
    project = members.get("project_id", HERE)
    own = {"project_id": HERE, "workspace_id": HOME[project], "position": f"b{number:02}h", "status": "pending"}
    return world.created(TASK, id=NAMES[number], name="x", **own | members)


def project(**members: Any) -> Change:
    own = {"workspace_id": WORKSPACES[0], "name": "x", "statuses": DEFAULT_STATUSES}
    return world.created(PROJECT, id=ids.new("proj"), **own | members)


def member(workspace: str, user: str, role: str, project_id: str | None = None) -> Change:
    return world.created(MEMBER, id=ids.new("mem"), workspace_id=workspace, user=user, role=role, project_id=project_id)


def chain(length: int) -> list[Change]:
    return [task(number, parent_id=NAMES[number - 1] if number else None) for number in range(length)]


def two_inboxes() -> list[Change]:
    made = [project(), project()]
    for change in made:
        change.private = {"inbox_of": USERS[0]}
    return made


def in_the_trash(tx: Tx, table: str, name: str) -> None:
    tx.run(f"UPDATE {table} SET deleted_at = 1 WHERE id = ?", (name,))


BROKEN: dict[str, tuple[list[Change], Callable[[Tx], object] | None, str]] = {
    "two tasks with one position": (
        [task(1, position="b"), task(2, position="b")],
        None,
        f"the tasks {NAMES[1]} and {NAMES[2]} have the same position b at the top of the project {HERE}",
    ),
    "two subtasks with one position": (
        [task(1), task(2, parent_id=NAMES[1], position="b"), task(3, parent_id=NAMES[1], position="b")],
        None,
        f"have the same position b below the task {NAMES[1]}",
    ),
    "a circle of parents": (
        [task(1, parent_id=NAMES[3]), task(2, parent_id=NAMES[1]), task(3, parent_id=NAMES[2])],
        None,
        "lie below each other in a circle",
    ),
    "a circle of blockers": (
        [task(1, blocked_by=[NAMES[2]]), task(2, blocked_by=[NAMES[3]]), task(3, blocked_by=[NAMES[1]])],
        None,
        "block each other in a circle",
    ),
    "21 levels": (chain(21), None, f"the task {NAMES[20]} lies 21 levels deep"),
    "a status that is gone": ([task(1, status="gone")], None, "has the status gone, which the project"),
    "done without a time": ([task(1, status="completed")], None, "has the status completed (done), but completed_at"),
    "a time without being done": (
        [task(1, completed_at="2024-01-15T10:30:00.000Z")],
        None,
        "has the status pending (todo), but completed_at",
    ),
    "another workspace than the project": (
        [task(1, project_id=ELSEWHERE, workspace_id=WORKSPACES[0])],
        None,
        "lies in another workspace than its project",
    ),
    "another project than the parent": (
        [task(1), task(2, parent_id=NAMES[1], project_id=SECOND)],
        None,
        "lies in another project than its parent",
    ),
    "a parent that does not exist": ([task(2, parent_id=NAMES[1])], None, "has the parent"),
    "a parent in the trash": (
        [task(1), task(2, parent_id=NAMES[1])],
        lambda tx: in_the_trash(tx, "tasks", NAMES[1]),
        "is live, and its parent",
    ),
    "a project in the trash": (
        [task(1)],
        lambda tx: in_the_trash(tx, "projects", HERE),
        f"is live, and its project {HERE} is in the trash",
    ),
    "a comment on a task in the trash": (
        [
            task(1),
            world.created(COMMENT, id=ids.new("cmt"), workspace_id=HOME[HERE], project_id=HERE, task_id=NAMES[1],
                          author=USERS[0], body="x"),
        ],
        lambda tx: in_the_trash(tx, "tasks", NAMES[1]),
        "is live, and its task",
    ),
    "a comment elsewhere than its task": (
        [
            task(1),
            world.created(COMMENT, id=ids.new("cmt"), workspace_id=HOME[HERE], project_id=SECOND, task_id=NAMES[1],
                          author=USERS[0], body="x"),
        ],
        None,
        "lies elsewhere than its task",
    ),
    "two inboxes": (two_inboxes(), None, f"{USERS[0]} has two inboxes in the workspace {WORKSPACES[0]}"),
    "no owner": (
        [],
        lambda tx: tx.run("UPDATE members SET role = ? WHERE project_id IS NULL", (ROLES.index("admin"),)),
        f"the workspace {WORKSPACES[0]} has no owner",
    ),
    "an owner in the trash": (
        [],
        lambda tx: in_the_trash(tx, "users", USERS[0]),
        f"the workspace {WORKSPACES[0]} has no owner",
    ),
    "a member of a project of another workspace": (
        [member(WORKSPACES[0], USERS[1], "viewer", ELSEWHERE)],
        None,
        f"is of the project {ELSEWHERE}, which its workspace does not have",
    ),
    "a member of the project alone": (
        [member(WORKSPACES[0], world.an_id("user", 9), "viewer", HERE)],
        None,
        f"of the project {HERE}, and not of its workspace",
    ),
}  # fmt: skip


class _UndoneError(Exception):
    """Ends a unit without keeping anything of it."""


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it, and an owner in each workspace."""

    def unit(tx: Tx) -> None:
        world.found_world(tx)
        tx.run('UPDATE members SET role = ? WHERE "user" = ?', (ROLES.index("owner"), USERS[0]))

    db.write_sync(unit)
    return db


def faults_of(db: Database, changes: list[Change], more: Callable[[Tx], object] | None) -> list[str]:
    """What is found with the changes in the database, which nobody keeps."""
    found: list[str] = []

    def unit(tx: Tx) -> None:
        log.apply(tx, world.ACTOR, changes)
        if more is not None:
            more(tx)
        found[:] = soundness.broken(tx)
        raise _UndoneError

    with suppress(_UndoneError):
        db.write_sync(unit)
    return found


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_named(db, case):
    changes, more, words = BROKEN[case]
    found = faults_of(db, changes, more)
    assert any(words in fault for fault in found), found


def test_a_sound_database_has_no_faults(db):
    tasks = [*chain(20), task(20, parent_id=NAMES[0], position="b01g", blocked_by=[NAMES[5], NAMES[21]]), task(21)]
    assert faults_of(db, tasks, None) == []


def test_a_broken_rule_is_no_damage(db):
    """Backups are refused for damage. What an earlier version allowed must not stand in the way of one."""
    assert "order" in {finding.name for finding in db.read_sync(lambda tx: list(soundness.run(tx)))}
    assert "order" not in {finding.name for finding in db.read_sync(lambda tx: list(check.run(tx)))}
