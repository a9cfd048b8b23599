"""When runs begin, and what becomes of those whose automation is no more.

Why step by step: the reader of the log may be behind, and then it starts runs of automations that have ended meanwhile.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from taskade_server.domain import automations
from taskade_server.domain.automations import AUTOMATION, changing, starting
from taskade_server.engine import log
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import json
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run

from tests.unit import world
from tests.unit.automation_stage import HOME, Stage, staged

CREATED = {"on": "event", "types": ["task.created"]}
HOUR = starting.HOUR_MS


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


@pytest.fixture
def stage(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(db, monkeypatch) as found:
        yield found


def delete(stage: Stage, rule: dict[str, Any]) -> None:
    def unit(tx: Tx) -> None:
        n, doc = tx.one("SELECT n, doc FROM automations WHERE id = ?", (rule["id"],)) or (0, "")
        runs.close_versions(tx, rule["id"], log.head(tx, HOME))
        changing.end_runs(tx, rule["id"], "deleted", "")
        log.apply(tx, Actor(None), [Change(AUTOMATION, "deleted", json.decode(doc), json.decode(doc), n)])

    stage.db.write_sync(unit)


def go_on(stage: Stage, run: Run) -> tuple[str, str | None]:
    """Let an executor come to a run: its state and reason after that."""
    nothing: Any = None  # nothing is carried out
    stage.db.write_sync(lambda tx: automations.advance(tx, run.id, nothing, stage.now))
    found = stage.db.read_sync(lambda tx: runs.find(tx, run.id))
    assert found is not None
    return found.state, found.reason


def test_a_run_that_a_late_reader_starts_for_a_deleted_automation_does_nothing(stage):
    rule = stage.automation(CREATED)
    stage.task()
    delete(stage, rule)
    stage.read()
    (run,) = stage.runs(rule)
    assert run.state == "queued"
    assert go_on(stage, run) == ("cancelled", "deleted")


def test_runs_that_disabling_has_not_come_to_do_nothing_either(stage, monkeypatch):
    monkeypatch.setattr(changing, "END_AT_ONCE", 1)
    rule = stage.automation(CREATED)
    for _ in range(2):
        stage.task()
    stage.read()
    stage.db.write_sync(lambda tx: automations.disable(tx, rule["id"], "failing", ""))
    ended, left = stage.runs(rule)
    assert (ended.state, left.state) == ("cancelled", "queued")
    assert go_on(stage, left) == ("cancelled", "disabled")


def test_more_runs_than_an_hour_may_have_begin_in_the_next_and_very_many_are_skipped(stage, monkeypatch):
    monkeypatch.setattr(starting, "STARTS_AN_HOUR", 2)
    monkeypatch.setattr(starting, "MAX_STARTS", 5)
    rule = stage.automation(CREATED)
    begun = stage.now
    for number in range(6):
        stage.task(name=str(number))
        if number == 3:
            stage.read()  # what is counted in one unit goes on in the next
    stage.read()
    waits = [None if run.wake_at is None else (run.wake_at - begun) // HOUR for run in stage.runs(rule)]
    assert waits == [0, 0, 1, 1, 2, None]
    assert [(run.state, run.reason) for run in stage.runs(rule)][-1] == ("skipped", "budget")
    stage.now += HOUR + 1
    stage.task()
    stage.read()
    assert stage.runs(rule)[-1].wake_at == stage.now


def test_what_an_automation_said_is_forgotten_with_its_last_run(stage):
    rule = stage.automation(CREATED)
    stage.task()
    stage.read()
    delete(stage, rule)
    (run,) = stage.runs(rule)
    assert run.state == "cancelled"
    assert stage.db.write_sync(lambda tx: runs.forget_versions(tx, 10)) == 0
    stage.db.write_sync(lambda tx: runs.forget(tx, stage.now + 1, stage.now + 1, 10))
    assert stage.db.write_sync(lambda tx: runs.forget_versions(tx, 10)) == 1
