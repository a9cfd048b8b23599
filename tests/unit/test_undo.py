"""Undo beside somebody who is about to commit a change of the same object."""

import threading
import time

import pytest
from taskade_server.domain import tasks, undo
from taskade_server.domain.tasks import TASK
from taskade_server.engine import log
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.edit import Context
from taskade_server.kit import ids, json
from taskade_server.kit.errors import RevertConflict
from taskade_server.store.database import Database, Tx

from tests.unit import world

WORKSPACE = world.WORKSPACES[0]
LINGER = 0.5


def context() -> Context:
    grants = {WORKSPACE: Grant(WORKSPACE, "member")}
    return Context(Principal(world.USERS[0], None, frozenset("*"), grants, WORKSPACE), world.ACTOR, world.SECRET)


def rename(tx: Tx, task: str, name: str) -> None:
    tasks.update(tx, context(), task, {"name": name})


def test_a_change_that_is_not_committed_yet_is_waited_for(db: Database):
    task = ids.new("task")
    made = {"id": task, "workspace_id": WORKSPACE, "project_id": world.PROJECTS[0], "name": "As it was"}
    db.write_sync(world.found_world)
    db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [world.created(TASK, **made, status="pending", position="b")]))
    db.write_sync(lambda tx: rename(tx, task, "WRONG"))
    wrong = db.read_sync(lambda tx: log.newest(tx, WORKSPACE, task))
    assert wrong is not None
    begun = threading.Event()

    def slowly(tx: Tx) -> None:
        rename(tx, task, "Right")
        begun.set()
        time.sleep(LINGER)

    other = threading.Thread(target=db.write_sync, args=(slowly,))
    other.start()
    begun.wait()
    with pytest.raises(RevertConflict):
        db.write_sync(lambda tx: undo.revert(tx, context(), [wrong], {"type": "revert"}))
    other.join()
    (text,) = db.read_sync(lambda tx: tx.all("SELECT doc FROM tasks WHERE id = ?", (task,)))[0]
    assert json.decode(text)["name"] == "Right"
