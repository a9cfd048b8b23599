"""What time starts: when each timer is due, that it fires once, and what becomes of what was missed.

Why with a clock of the tests: zones, weeks without a server and clocks that are set back cannot be waited for.
"""

import asyncio
import dataclasses
import random
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import pytest
from taskade_server.consumers.automations.timers import Timers
from taskade_server.consumers.runner import Lease
from taskade_server.domain import automations
from taskade_server.domain.automations import Firing, firing
from taskade_server.domain.automations.firing import chosen_of
from taskade_server.domain.automations.rights import RightsLost
from taskade_server.domain.automations.timing import scanning
from taskade_server.engine import log
from taskade_server.kit import ids, json, time
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import runs, timers

from tests.unit import world
from tests.unit.automation_stage import HOME, Stage, ms, staged

PROJECT, OTHER = world.PROJECTS[:2]
BERLIN = "Europe/Berlin"
MINUTE = 60_000
DAY = time.DAY_MS


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


@pytest.fixture
def stage(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(db, monkeypatch) as found:
        yield found


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_a_schedule_runs_at_each_of_its_times_once(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * *"}, timezone=BERLIN)
    assert stage.due(rule) == "2024-01-16T08:00:00.000Z"
    stage.fire("2024-01-16T07:59:59.999Z")
    assert stage.causes(rule) == []
    for _ in range(2):
        stage.fire("2024-01-16T08:00:00.200Z")
    stage.fire("2024-01-17T08:00:00Z")
    assert stage.causes(rule) == ["2024-01-16T08:00:00.000Z", "2024-01-17T08:00:00.000Z"]


@pytest.mark.parametrize(
    ("begin", "trigger", "expected"),
    [
        # 02:30 does not exist on 31 March: it runs when the gap is over.
        ("2024-03-30T12:00:00Z", {"cron": "30 2 * * *"}, ["2024-03-31T01:00:00.000Z", "2024-04-01T00:30:00.000Z"]),
        # 02:30 comes twice on 27 October: it runs the first time.
        ("2024-10-26T12:00:00Z", {"cron": "30 2 * * *"}, ["2024-10-27T00:30:00.000Z", "2024-10-28T01:30:00.000Z"]),
        ("2024-03-30T12:00:00Z", {"rrule": "FREQ=WEEKLY;BYDAY=SU", "at": "02:30"},
         ["2024-03-31T01:00:00.000Z", "2024-04-07T00:30:00.000Z"]),
    ],
)  # fmt: skip
def test_a_schedule_runs_once_where_the_clocks_are_changed(stage, begin, trigger, expected):
    stage.now = ms(begin)
    rule = stage.automation({"on": "schedule", **trigger}, timezone=BERLIN)
    for moment in range(ms(begin), ms(expected[-1]) + MINUTE, 10 * MINUTE):
        stage.fire(moment)
    assert stage.causes(rule) == expected


@pytest.mark.parametrize(
    ("policy", "expected"), [("latest", ["15:00"]), ("all", ["13:00", "14:00", "15:00"]), ("skip", [])]
)
def test_of_the_times_that_no_server_saw_those_run_that_catch_up_says(stage, policy, expected):
    stage.now = ms("2024-01-15T12:30:00Z")
    rule = stage.automation({"on": "schedule", "cron": "0 * * * *"}, catch_up=policy)
    stage.fire("2024-01-15T15:30:00Z", watched="2024-01-15T15:30:00Z")
    assert [cause[11:16] for cause in stage.causes(rule)] == expected
    skipped = [run for run in stage.runs(rule) if run.state == "skipped"]
    assert [run.reason for run in skipped] == ["missed"] * (policy != "all")
    stage.fire("2024-01-15T16:00:00Z", watched="2024-01-15T15:30:00Z")
    assert [cause[11:16] for cause in stage.causes(rule)] == [*expected, "16:00"]


def test_what_a_server_is_a_little_late_for_is_not_missed(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 * * * *"}, catch_up="skip")
    stage.fire("2024-01-15T11:00:45Z", watched="2024-01-15T11:00:45Z")
    assert stage.causes(rule) == ["2024-01-15T11:00:00.000Z"]


@pytest.mark.parametrize(("policy", "count"), [("latest", 1), ("all", 100), ("skip", 0)])
def test_after_a_week_without_a_server_no_more_than_a_day_is_made_up_for(stage, policy, count):
    stage.now = ms("2024-01-15T12:00:30Z")
    rule = stage.automation({"on": "schedule", "cron": "* * * * *"}, catch_up=policy)
    stage.fire("2024-01-22T12:00:30Z", watched="2024-01-22T12:05:00Z")
    causes = stage.causes(rule)
    assert len(causes) == count
    assert causes[-1:] == ["2024-01-22T12:00:00.000Z"][:count]
    (left,) = [run for run in stage.runs(rule) if run.state == "skipped"]
    assert (left.reason, left.finished_at) == ("missed", stage.now)
    assert "2024-01-15T12:01:00.000Z" in (left.detail or "")


def test_what_was_missed_longer_than_a_day_ago_runs_no_more(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * 2"})
    stage.fire("2024-01-18T09:00:00Z", watched="2024-01-18T09:00:00Z")
    assert stage.causes(rule) == []
    (left,) = stage.runs(rule)
    assert (left.state, left.reason, left.detail) == (
        "skipped",
        "missed",
        "It was due at 2024-01-16T09:00:00.000Z, when no server ran; catch_up is latest.",
    )
    assert stage.due(rule) == "2024-01-23T09:00:00.000Z"


def test_a_slow_server_misses_nothing(stage):
    rule = stage.automation({"on": "schedule", "cron": "*/10 * * * *"}, catch_up="skip")
    stage.fire("2024-01-15T11:00:00Z")
    assert len(stage.causes(rule)) == 3


def test_catching_up_chooses_among_what_was_missed_only():
    moments = [*range(1, 301)]
    assert chosen_of(moments, "latest", 200) == [*range(200, 301)]
    assert chosen_of(moments, "latest", 1_000) == [300]
    assert chosen_of(moments, "all", 1_000) == moments[-100:]
    assert chosen_of(moments, "skip", 300) == [300]
    assert chosen_of([], "latest", 5) == []


def test_a_schedule_may_start_a_run_for_each_object_of_a_filter(stage):
    trigger = {"on": "schedule", "cron": "0 9 * * *", "each": {"in": "tasks", "filter": {"status": "review"}}}
    rule = stage.automation(trigger, project_id=PROJECT)
    wanted = [stage.task(status="review") for _ in range(3)]
    stage.task()
    stage.task(status="review", project_id=OTHER)
    with mock.patch.object(firing, "OBJECTS_AT_ONCE", 2):
        stage.fire("2024-01-16T09:00:00Z")
    found = stage.runs(rule)
    assert sorted(run.object_id or "" for run in found) == sorted(task["id"] for task in wanted)
    assert {run.project_id for run in found} == {PROJECT}
    assert stage.due(rule) == "2024-01-17T09:00:00.000Z"


def test_a_filter_of_too_many_objects_is_put_on_record(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * *", "each": {"in": "tasks"}})
    for _ in range(3):
        stage.task()
    with mock.patch.object(firing, "MAX_OBJECTS", 2):
        stage.fire("2024-01-16T09:00:00Z")
    assert len([run for run in stage.runs(rule) if run.state == "queued"]) == 2
    assert [run.reason for run in stage.runs(rule) if run.state == "skipped"] == ["too_many"]


def test_a_schedule_that_is_over_waits_for_nothing(stage):
    rule = stage.automation({"on": "schedule", "rrule": "FREQ=DAILY;BYDAY=TU;UNTIL=20240117", "at": "09:00"})
    stage.fire("2024-01-16T09:00:00Z")
    assert stage.causes(rule) == ["2024-01-16T09:00:00.000Z"]
    assert stage.due(rule) is None


# ---- dates -----------------------------------------------------------------------------------------------------------

DUE = {"on": "date", "field": "due_date", "offset": "-P1D", "at": "09:00"}


def test_a_date_is_waited_for_as_long_as_it_stands(stage):
    rule = stage.automation(DUE, timezone=BERLIN)
    stage.scan()
    task = stage.task(due_date="2024-01-20")
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-19T08:00:00.000Z"
    stage.change(task, due_date="2024-01-25")
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-24T08:00:00.000Z"
    stage.fire("2024-01-19T08:00:00Z")
    assert stage.causes(rule) == []
    stage.change(task, name="Another name")
    stage.read()
    stage.fire("2024-01-24T08:00:00Z")
    assert stage.causes(rule) == [task["id"]]
    assert stage.due(rule, task["id"]) is None


@pytest.mark.parametrize(
    ("away", "back"),
    [
        ({"completed_at": "2024-01-16T00:00:00Z"}, {"completed_at": None}),
        ({"due_date": None}, {"due_date": "2024-01-20"}),
        ({"deleted_at": "2024-01-16T00:00:00Z"}, {"deleted_at": None}),
    ],
)
def test_a_date_of_what_is_over_is_not_waited_for(stage, away, back):
    rule = stage.automation(DUE)
    stage.scan()
    task = stage.task(due_date="2024-01-20")
    stage.read()
    stage.change(task, **away)
    stage.read()
    assert stage.due(rule, task["id"]) is None
    stage.change(task, **back)
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-19T09:00:00.000Z"


def test_a_change_that_the_reader_has_not_come_to_counts_when_the_timer_is_due(stage):
    rule = stage.automation(DUE)
    stage.scan()
    moved, done = stage.task(due_date="2024-01-20"), stage.task(due_date="2024-01-20")
    stage.read()
    stage.change(moved, due_date="2024-01-25")
    stage.change(done, completed_at="2024-01-18T00:00:00Z")
    stage.fire("2024-01-19T09:00:00Z")
    assert stage.causes(rule) == []
    assert stage.due(rule, moved["id"]) == "2024-01-24T09:00:00.000Z"
    assert stage.due(rule, done["id"]) is None


def test_a_date_that_is_set_into_the_past_starts_nothing(stage):
    rule = stage.automation(DUE)
    stage.scan()
    stage.task(due_date="2024-01-15")
    task = stage.task(due_date="2024-01-20")
    stage.change(task, due_date="2024-01-14")
    stage.read()
    stage.fire("2024-02-01T00:00:00Z")
    assert stage.runs(rule) == []


def test_a_task_is_due_once_however_often_its_date_is_moved(stage):
    rule = stage.automation({"on": "date", "field": "due_date", "at": "09:00"})
    stage.scan()
    task = stage.task(due_date="2024-01-20")
    stage.read()
    stage.fire("2024-01-20T09:00:00Z")
    for due in ("2024-01-30", "2024-01-20", "2024-01-30"):
        stage.change(task, due_date=due)
        stage.read()
    stage.fire("2024-01-30T09:00:00Z")
    assert [run.cause.split(":")[2] for run in stage.runs(rule)] == [
        str(ms("2024-01-20T09:00:00Z")),
        str(ms("2024-01-30T09:00:00Z")),
    ]


@pytest.mark.parametrize(
    ("value", "trigger", "due"),
    [
        ("2024-01-20", {}, "2024-01-19T23:00:00.000Z"),
        ("2024-01-20", {"offset": "PT3H"}, "2024-01-20T02:00:00.000Z"),
        ("2024-01-20", {"at": "09:30"}, "2024-01-20T08:30:00.000Z"),
        ("2024-01-20T15:00:00.000Z", {}, "2024-01-20T15:00:00.000Z"),
        ("2024-01-20T15:00:00.000Z", {"offset": "-PT90M"}, "2024-01-20T13:30:00.000Z"),
        ("2024-01-20T23:30:00.000Z", {"at": "09:00"}, "2024-01-21T08:00:00.000Z"),
        ("2024-03-31", {"at": "02:30"}, "2024-03-31T01:00:00.000Z"),
        ("2024-04-01", {"at": "02:30", "offset": "-P1D"}, "2024-03-31T01:00:00.000Z"),
        ("2024-10-27", {"at": "02:30"}, "2024-10-27T00:30:00.000Z"),
        ("2024-10-28T01:30:00.000Z", {"offset": "-P1D"}, "2024-10-27T00:30:00.000Z"),
        ("2024-10-28T01:30:00.000Z", {"offset": "-PT24H"}, "2024-10-27T01:30:00.000Z"),
        ("2024-03-31", {"offset": "-P1M", "at": "09:00"}, "2024-02-29T08:00:00.000Z"),
    ],
)
def test_a_date_counts_in_the_zone_of_the_automation(stage, value, trigger, due):
    rule = stage.automation({"on": "date", "field": "due_date", **trigger}, timezone=BERLIN)
    stage.scan()
    task = stage.task(due_date=value)
    stage.read()
    assert stage.due(rule, task["id"]) == due


def test_start_dates_and_custom_dates_are_dates_too(stage):
    first = stage.automation({"on": "date", "field": "start_date"})
    second = stage.automation({"on": "date", "field": "custom_fields.review"})
    stage.scan()
    task = stage.task(start_date="2024-01-20", custom_fields={"review": "2024-01-21"})
    stage.task(custom_fields={"review": "soon"})
    stage.read()
    assert stage.due(first, task["id"]) == "2024-01-20T00:00:00.000Z"
    assert stage.due(second, task["id"]) == "2024-01-21T00:00:00.000Z"
    assert stage.db.read_sync(lambda tx: tx.one("SELECT count(*) FROM automation_timers")) == (2,)


@pytest.mark.parametrize(
    ("policy", "hours", "state"),
    [
        ("latest", 20, "queued"),
        ("all", 20, "queued"),
        ("skip", 20, "skipped"),
        ("latest", 30, "skipped"),
        ("skip", 0, "queued"),
    ],
)
def test_a_date_that_no_server_saw_runs_as_catch_up_says(stage, policy, hours, state):
    rule = stage.automation(DUE, catch_up=policy)
    stage.scan()
    stage.task(due_date="2024-01-20")
    stage.read()
    back = ms("2024-01-19T09:00:00Z") + hours * 3_600_000
    stage.fire(back, watched=back)
    (run,) = stage.runs(rule)
    assert (run.state, run.reason) == (state, "missed" if state == "skipped" else None)


def test_what_happened_while_no_server_ran_and_was_due_meanwhile_is_not_lost(stage):
    rule = stage.automation(DUE)
    stage.scan()
    task = stage.task(due_date="2024-01-20")  # and the server ends before the reader has come to it
    stage.now = ms("2024-01-19T20:00:00Z")
    stage.read()
    stage.fire(watched=stage.now)
    assert stage.causes(rule) == [task["id"]]


# ---- idle ------------------------------------------------------------------------------------------------------------

IDLE = {"on": "idle", "filter": {"status": "pending"}, "for": "P14D"}


def test_nothing_for_so_long_starts_a_run_and_comments_count(stage):
    rule = stage.automation(IDLE)
    stage.scan()
    task, other = stage.task(), stage.task()
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-29T10:30:00.000Z"
    stage.now = ms("2024-01-20T00:00:00Z")
    stage.comment(task)
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-02-03T00:00:00.000Z"
    stage.fire("2024-01-29T10:30:00Z")
    assert stage.causes(rule) == [other["id"]]
    stage.fire("2024-02-03T00:00:00Z")
    stage.fire("2024-03-03T00:00:00Z")
    assert stage.causes(rule) == [other["id"], task["id"]]


def test_what_does_not_fit_any_more_is_not_waited_for(stage):
    rule = stage.automation(IDLE)
    stage.scan()
    task = stage.task()
    stage.read()
    stage.change(task, status="completed")
    stage.read()
    assert stage.due(rule, task["id"]) is None
    stage.comment(task)
    stage.read()
    assert stage.due(rule, task["id"]) is None


def test_what_the_automation_does_itself_is_no_activity(stage):
    rule = stage.automation(IDLE)
    stage.scan()
    task = stage.task()
    stage.read()
    stage.fire("2024-01-29T10:30:00Z")
    own = json.encode({"type": "automation", "automation_id": rule["id"], "run_id": ids.new("run"), "chain": []})
    stage.comment(task, origin=own)
    stage.change(task, name="Stale", origin=own)
    stage.read()
    assert stage.due(rule, task["id"]) is None
    stage.comment(task)
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-02-12T10:30:00.000Z"


def test_activity_that_the_reader_has_not_come_to_moves_the_timer(stage):
    rule = stage.automation(IDLE)
    stage.scan()
    task = stage.task()
    stage.read()
    stage.now = ms("2024-01-29T00:00:00Z")
    stage.comment(task)
    stage.fire("2024-01-29T10:30:00Z")
    assert stage.causes(rule) == []
    assert stage.due(rule, task["id"]) == "2024-02-12T00:00:00.000Z"


def test_idleness_of_tasks_that_there_are_already_is_found_in_the_log(stage):
    early = stage.task()
    stage.now = ms("2024-01-20T00:00:00Z")
    task, left = stage.task(), stage.task(status="review")
    stage.now = ms("2024-01-21T00:00:00Z")
    stage.comment(task)
    stage.now = ms("2024-01-31T00:00:00Z")
    plain, asking = stage.automation(IDLE), stage.automation({**IDLE, "existing": "run"})
    stage.settle()
    assert [stage.due(plain, one["id"]) for one in (early, task, left)] == [None, "2024-02-04T00:00:00.000Z", None]
    stage.fire()
    assert (stage.causes(plain), stage.causes(asking)) == ([], [early["id"]])


def test_however_long_no_server_ran_what_is_idle_is_idle(stage):
    rule = stage.automation(IDLE)
    stage.scan()
    task = stage.task()
    stage.read()
    stage.fire("2024-06-01T00:00:00Z", watched="2024-06-01T00:00:00Z")
    assert stage.causes(rule) == [task["id"]]


# ---- held ------------------------------------------------------------------------------------------------------------

HELD = {"on": "held", "filter": {"status": "review"}, "for": "P2D"}


def test_what_has_been_so_for_long_enough_starts_a_run(stage):
    rule = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review")
    stage.read()
    stage.now += DAY
    stage.change(task, name="Another name")
    stage.comment(task)
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-17T10:30:00.000Z"
    stage.fire("2024-01-17T10:30:00Z")
    stage.change(task, name="Yet another")
    stage.read()
    stage.fire("2024-02-17T10:30:00Z")
    assert stage.causes(rule) == [task["id"]]


def test_it_counts_anew_each_time_that_it_becomes_so(stage):
    rule = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review")
    stage.now += DAY
    stage.change(task, status="pending")
    stage.read()
    assert stage.due(rule, task["id"]) is None
    stage.now += DAY
    stage.change(task, status="review")
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-19T10:30:00.000Z"
    stage.fire("2024-01-19T10:30:00Z")
    stage.now += DAY
    for status in ("pending", "review"):
        stage.change(task, status=status)
    stage.read()
    stage.fire("2024-01-22T10:30:00Z")
    assert len(stage.causes(rule)) == 2


def test_since_when_it_is_so_is_computed_from_the_log(stage):
    task, late = stage.task(), stage.task()
    stage.now = ms("2024-01-18T00:00:00Z")
    stage.change(task, status="review")
    stage.now = ms("2024-01-19T00:00:00Z")
    stage.change(task, name="Another name")
    stage.change(late, status="review")
    rule = stage.automation(HELD)
    stage.settle()
    assert stage.due(rule, task["id"]) == "2024-01-20T00:00:00.000Z"
    assert stage.due(rule, late["id"]) == "2024-01-21T00:00:00.000Z"


def test_another_condition_counts_from_when_that_was_so(stage):
    rule = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review", priority="low")
    stage.read()
    stage.now = ms("2024-01-16T00:00:00Z")
    stage.change(task, priority="high")
    stage.read()
    stage.now = ms("2024-01-17T00:00:00Z")
    rule = stage.alter(rule, trigger={**HELD, "filter": {"status": "review", "priority": "high"}})
    stage.settle()
    assert stage.due(rule, task["id"]) == "2024-01-18T00:00:00.000Z"
    stage.fire("2024-01-17T10:30:00Z")  # when it was due by what the automation said before
    assert stage.causes(rule) == []
    stage.fire("2024-01-18T00:00:00Z")
    (run,) = stage.runs(rule)
    assert (run.object_id, run.version) == (task["id"], rule["version"])


def test_an_automation_that_is_only_changed_in_what_it_does_goes_on_waiting(stage):
    rule = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review")
    stage.read()
    stage.now += DAY
    rule = stage.alter(rule, actions=[{"do": "stop"}, {"do": "stop"}])
    stage.settle()
    stage.fire("2024-01-17T10:30:00Z")
    (run,) = stage.runs(rule)
    assert (run.object_id, run.version) == (task["id"], rule["version"])


def test_a_lapse_that_the_reader_has_not_come_to_ends_the_wait(stage):
    rule = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review")
    stage.read()
    stage.now = ms("2024-01-17T00:00:00Z")
    for status in ("pending", "review"):
        stage.change(task, status=status)
    stage.fire("2024-01-17T10:30:00Z")
    assert stage.causes(rule) == []
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-19T00:00:00.000Z"


def test_coming_into_the_project_is_when_it_begins_to_be_so(stage):
    rule = stage.automation(HELD, project_id=PROJECT)
    stage.scan()
    task = stage.task(status="review", project_id=OTHER)
    stage.now += DAY
    stage.change(task, project_id=PROJECT)
    stage.read()
    assert stage.due(rule, task["id"]) == "2024-01-18T10:30:00.000Z"
    again = stage.automation(HELD, project_id=PROJECT)
    stage.settle()
    assert stage.due(again, task["id"]) == "2024-01-18T10:30:00.000Z"
    stage.change(task, project_id=OTHER)
    stage.fire("2024-01-18T10:30:00Z")
    assert stage.runs(rule) == []


# ---- the automation itself -------------------------------------------------------------------------------------------


def test_what_is_disabled_waits_for_nothing(stage):
    schedule = stage.automation({"on": "schedule", "cron": "0 9 * * *"})
    held = stage.automation(HELD)
    stage.scan()
    stage.task(status="review")
    stage.read()
    schedule, held = (stage.alter(rule, enabled=False) for rule in (schedule, held))
    stage.fire("2024-01-17T10:30:00Z")
    assert (stage.runs(schedule), stage.runs(held)) == ([], [])
    stage.scan()
    assert stage.db.read_sync(lambda tx: tx.one("SELECT count(*) FROM automation_timers")) == (0,)
    stage.alter(schedule, enabled=True)
    assert stage.due(schedule) == "2024-01-18T09:00:00.000Z"


def test_what_is_deleted_waits_for_nothing(stage):
    rule = stage.automation(HELD)
    stage.scan()
    stage.task(status="review")
    stage.read()

    def unit(tx: Tx) -> None:
        runs.close_versions(tx, rule["id"], log.head(tx, HOME))
        scanning.end(tx, rule["id"], HOME, stage.now)

    stage.db.write_sync(unit)
    stage.scan()
    stage.fire("2024-02-01T00:00:00Z")
    assert stage.runs(rule) == []
    for table in ("automation_timers", "automation_scans"):
        assert stage.db.read_sync(partial(Tx.one, sql=f"SELECT count(*) FROM {table}")) == (0,)


def test_timers_of_what_the_automation_said_before_are_removed_a_few_at_a_time(stage):
    rule = stage.automation(HELD)
    stage.scan()
    for _ in range(5):
        stage.task(status="review")
    stage.read()
    rule = stage.alter(rule, trigger={"on": "schedule", "cron": "0 9 * * *"})
    with mock.patch.object(scanning, "REMOVED_AT_ONCE", 2):
        stage.scan()
    left = stage.db.read_sync(lambda tx: tx.all("SELECT object_id, version FROM automation_timers"))
    assert left == [("", rule["version"])]


def test_what_was_due_before_it_was_enabled_again_does_not_run(stage):
    rule = stage.automation({"on": "date", "field": "due_date", "at": "09:00"})
    stage.scan()
    task = stage.task(due_date="2024-01-16")
    stage.read()
    rule = stage.alter(rule, enabled=False)
    stage.now = ms("2024-01-17T00:00:00Z")
    rule = stage.alter(rule, enabled=True)
    stage.settle()
    stage.fire("2024-01-18T00:00:00Z")
    assert stage.runs(rule) == []
    assert stage.due(rule, task["id"]) is None


def test_a_new_automation_is_given_its_timers_in_pages_that_a_restart_does_not_lose(stage):
    tasks = [stage.task(due_date="2024-01-20") for _ in range(5)]
    rule = stage.automation(DUE)
    for _ in range(2):
        stage.db.write_sync(lambda tx: automations.scan(tx, world.SECRET, stage.now, 2))
    count = "SELECT count(*) FROM automation_timers"
    assert stage.db.read_sync(lambda tx: tx.one(count)) == (4,)
    stage.change(tasks[4], due_date="2024-01-25")
    stage.settle()
    assert [stage.due(rule, task["id"]) for task in tasks] == ["2024-01-19T09:00:00.000Z"] * 4 + [
        "2024-01-24T09:00:00.000Z"
    ]
    assert not stage.db.read_sync(timers.is_scanning)


def test_a_unit_that_is_not_kept_fires_nothing_and_loses_nothing(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * *"})
    stage.now = ms("2024-01-16T09:00:00Z")

    def unit(tx: Tx) -> None:
        automations.fire(tx, Firing(0), rule["id"], "", stage.now)
        raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        stage.db.write_sync(unit)
    assert stage.runs(rule) == []
    stage.fire()
    assert stage.causes(rule) == ["2024-01-16T09:00:00.000Z"]


def test_whoever_may_read_no_tasks_any_more_waits_for_none(stage, monkeypatch):
    rule, schedule = (
        stage.automation(HELD),
        stage.automation({"on": "schedule", "cron": "0 9 * * *", "each": {"in": "tasks"}}),
    )
    stage.scan()
    stage.task(status="review")
    stage.read()
    limited = dataclasses.replace(world.a_member(HOME), scopes=frozenset(["projects:read"]))
    monkeypatch.setattr(firing, "principal_of", lambda tx, document: limited)
    for moment in ("2024-01-16T09:00:00Z", "2024-01-17T10:30:00Z"):
        stage.fire(moment)
    assert (stage.runs(rule), stage.causes(schedule)) == ([], [])
    assert {run.reason for run in stage.runs(schedule)} == {"rights"}


@pytest.mark.parametrize("trigger", [DUE, IDLE, HELD], ids=["date", "idle", "held"])
@pytest.mark.parametrize("seed", range(8))
def test_following_the_log_and_looking_at_what_there_is_come_to_the_same(stage, trigger, seed):
    chance = random.Random(seed)
    days = ["2024-01-20", "2024-01-25", "2024-02-20", None]
    rule = stage.automation(trigger, project_id=chance.choice([None, PROJECT]))
    stage.scan()
    tasks = [stage.task(status=chance.choice(["pending", "review"]), due_date=chance.choice(days)) for _ in range(4)]
    for _ in range(30):
        stage.now += chance.randrange(DAY // 2)
        task = chance.choice(tasks)
        members: dict[str, list[Any]] = {
            "status": ["pending", "review"], "due_date": days, "deleted_at": [None, "2024-01-16T00:00:00Z"],
            "completed_at": [None, "2024-01-16T00:00:00Z"], "project_id": [PROJECT, OTHER], "name": ["A", "B"],
        }  # fmt: skip
        name = chance.choice([*members, "comment"])
        if name == "comment":
            stage.comment(task)
        else:
            stage.change(task, **{name: chance.choice(members[name])})
        if chance.random() < 0.5:
            stage.read()
    stage.read()
    twin = stage.automation(trigger, project_id=rule["project_id"])
    stage.settle()

    def waits(rule: dict[str, Any], task: dict[str, Any]) -> str | None:
        due = stage.due(rule, task["id"])
        return due if due is not None and due > time.format_ms(stage.now) else None

    found = [[waits(one, task) for task in tasks] for one in (rule, twin)]
    assert found[0] == found[1]


# ---- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_ahead_delays_nothing(stage):
    stage.now = ms("2025-01-15T10:30:00Z")
    schedule = stage.automation({"on": "schedule", "cron": "0 9 * * *"})
    held = stage.automation(HELD)
    stage.scan()
    task = stage.task(status="review")
    stage.read()
    stage.restart_with("2024-01-15T10:30:00Z")
    assert stage.due(schedule) == "2024-01-16T09:00:00.000Z"
    assert stage.due(held, task["id"]) == "2024-01-17T10:30:00.000Z"
    stage.fire("2024-01-17T10:30:00Z")
    assert stage.causes(held) == [task["id"]]


def test_dates_that_seemed_to_be_over_by_a_clock_that_was_ahead_are_waited_for(stage):
    rule = stage.automation(DUE)
    stage.scan()
    stage.now = ms("2025-01-15T10:30:00Z")
    task = stage.task(due_date="2024-01-20")
    other = stage.task(due_date="2025-12-01")
    stage.read()
    assert stage.due(rule, task["id"]) is None
    stage.restart_with("2024-01-15T11:00:00Z")
    stage.scan()
    assert stage.due(rule, task["id"]) == "2024-01-19T09:00:00.000Z"
    assert stage.due(rule, other["id"]) == "2025-11-30T09:00:00.000Z"


def test_a_clock_that_goes_back_fires_nothing_twice(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * *"})
    stage.fire("2024-01-18T09:00:00Z", watched="2024-01-18T09:00:00Z")
    assert stage.causes(rule) == ["2024-01-18T09:00:00.000Z"]
    stage.restart_with("2024-01-15T11:00:00Z")
    for day in ("16", "17", "18", "19"):
        stage.fire(f"2024-01-{day}T09:00:00Z")
    assert sorted(stage.causes(rule)) == [f"2024-01-{day}T09:00:00.000Z" for day in ("16", "17", "18", "19")]


def test_a_clock_that_jumps_ahead_is_as_a_time_without_a_server(stage):
    rule = stage.automation({"on": "schedule", "cron": "0 * * * *"})
    stage.fire("2024-01-16T10:30:00Z", watched="2024-01-16T10:30:00Z")
    assert stage.causes(rule) == ["2024-01-16T10:00:00.000Z"]


# ---- the job ---------------------------------------------------------------------------------------------------------


def look(stage: Stage, times: int = 1) -> int:
    """Let the job look so many times for what is due; how often it has told of runs."""
    told: list[bool] = []

    async def scene() -> None:
        lease = Lease("automations/timers", ids.new("x"), 60.0)
        stage.db.write_sync(lambda tx: tx.run("DELETE FROM leases"))
        assert await lease.take(stage.db) == 0
        job = Timers(stage.db, world.SECRET, lease, lambda: told.append(True))
        for _ in range(times):
            await job.look()

    asyncio.run(scene())
    return len(told)


def test_the_job_sets_timers_and_fires_what_is_due(stage):
    task = stage.task(due_date="2024-01-14")
    rule = stage.automation({**DUE, "existing": "run"})
    assert look(stage, 3) == 1
    assert stage.causes(rule) == [task["id"]]
    assert look(stage) == 0


def test_a_timer_that_cannot_be_fired_holds_up_no_other(stage):
    bad, good = (stage.automation({"on": "schedule", "cron": "0 9 * * *"}) for _ in range(2))
    broken = "UPDATE automation_versions SET doc = replace(doc, '0 9 * * *', 'nonsense') WHERE automation_id = ?"
    stage.db.write_sync(lambda tx: tx.run(broken, (bad["id"],)))
    stage.now = ms("2024-01-16T09:00:00Z")
    look(stage)
    assert stage.causes(good) == ["2024-01-16T09:00:00.000Z"]
    assert stage.due(bad) == "2024-01-16T09:01:00.000Z"


def test_an_automation_that_may_do_nothing_any_more_ends_when_it_is_due(stage, monkeypatch):
    rule = stage.automation({"on": "schedule", "cron": "0 9 * * *"})

    def lost(tx: Tx, document: dict[str, Any]) -> Any:
        raise RightsLost("The key is gone.")

    monkeypatch.setattr(firing, "principal_of", lost)
    stage.now = ms("2024-01-16T09:00:00Z")
    look(stage)
    found = stage.db.read_sync(lambda tx: tx.one("SELECT doc FROM automations WHERE id = ?", (rule["id"],)))
    assert found is not None
    assert json.decode(found[0])["disabled_reason"] == "rights"
    assert (stage.runs(rule), stage.due(rule)) == ([], None)


# ---- many ------------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_timers_cost_no_more_than_those_that_are_due(stage):
    rule = stage.automation(DUE)
    row = (rule["id"], HOME, 1, stage.now)
    many = [(row[0], f"task_{n:026}", *row[1:3], stage.now + n * 1000, row[3], None, None) for n in range(100_000)]
    insert = f"INSERT INTO automation_timers ({', '.join(timers.Timer._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    stage.db.write_sync(lambda tx: tx.many(insert, many))
    found = stage.db.read_sync(partial(timers.due, now=stage.now + 10**9, limit=500))
    assert [object_id for _, object_id in found] == [row[1] for row in many[:500]]
    assert stage.db.read_sync(timers.next_due) == stage.now
    sql = "SELECT automation_id, object_id FROM automation_timers WHERE due_at <= ? ORDER BY due_at LIMIT 500"
    assert "automation_timers_by_due" in plan(stage.db, sql, stage.now)
    assert "automation_timers_by_due" in plan(stage.db, "SELECT min(due_at) FROM automation_timers")


def plan(db: Database, sql: str, *params: Any) -> str:
    """How the database answers a query, in its own words."""
    explain = "EXPLAIN QUERY PLAN" if db.dialect == "sqlite" else "EXPLAIN"

    def unit(tx: Tx) -> str:
        if tx.dialect != "sqlite":
            tx.script("ANALYZE automation_timers")
        return "\n".join(str(row[-1]) for row in tx.all(f"{explain} {sql}", params))

    return db.write_sync(unit)
