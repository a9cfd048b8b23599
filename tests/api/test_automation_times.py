"""Automations that time starts: schedules, dates of objects, and states that last for so long."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.api.asking import create, problem
from tests.api.test_automations import PATIENCE, batch, faults, patch, runs_of, settled, timeline

Timed = Callable[..., Any]
NOW_ID = '/tasks/{"$ref": "now.id"}'


@pytest.fixture
def timed(api: httpx2.Client, a_project: Any) -> Iterator[Timed]:
    """Makes automations of the project with a trigger, which are gone after the test."""
    made: list[str] = []

    def run(trigger: Any, *actions: Any, client: httpx2.Client = api, **more: Any) -> Any:
        body = {
            "name": "A timed rule",
            "project_id": a_project["id"],
            "trigger": trigger,
            "actions": list(actions) or [label("seen")],
            **more,
        }
        found = create(client, "automations", **body)
        made.append(found["id"])
        return found

    yield run
    for automation_id in made:
        api.delete(f"/v1/automations/{automation_id}")


def label(name: str) -> dict[str, Any]:
    return batch(patch(NOW_ID, labels=[name]))


def a_task_in(api: httpx2.Client, project: Any, **more: Any) -> Any:
    return create(api, "tasks", name="A task", project_id=project["id"], **more)


def in_time(make: Callable[[str], tuple[Any, str]]) -> Any:
    """What `make` makes with a time that is soon; it also returns when (by the server) it was done with it.

    On a machine that is so busy that the time had passed by then, it is made anew with a later one.
    """
    for seconds in (2, 8, 32, 128):
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        due = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found, done_at = make(due)
        if done_at < due:
            return found
    raise AssertionError("the machine is too busy for this test")


def a_task_due(api: httpx2.Client, project: Any, field: str = "due_date") -> Any:
    """A task that is due soon."""

    def make(due: str) -> tuple[Any, str]:
        value = {"custom_fields": {field: due}} if field == "review" else {field: due}
        task = a_task_in(api, project, **value)
        return task, task["created_at"]

    return in_time(make)


def until(answer: Callable[[], Any]) -> Any:
    """What a question is answered, as soon as that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := answer()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


# ---- dates -----------------------------------------------------------------------------------------------------------


def test_a_date_starts_a_run_about_its_task(api, a_project, timed):
    rule = timed({"on": "date", "field": "due_date"}, batch(patch(NOW_ID, description={"$ref": "input.due"})))
    task = a_task_due(api, a_project)
    (run,) = settled(api, rule)
    assert (run["state"], run["cause"], run["object_id"]) == ("succeeded", "date", task["id"])
    assert (run["event_id"], run["project_id"]) == (None, a_project["id"])
    assert api.get(f"/v1/tasks/{task['id']}").json()["description"] == task["due_date"]


def test_a_date_that_is_moved_is_waited_for_anew(api, a_project, timed):
    rule = timed({"on": "date", "field": "due_date"})
    task = a_task_in(api, a_project, due_date="2999-01-01")

    def move(due: str) -> tuple[Any, str]:
        moved = api.patch(f"/v1/tasks/{task['id']}", json={"due_date": due}).json()
        return moved, moved["updated_at"]

    in_time(move)
    (run,) = settled(api, rule)
    assert (run["state"], run["object_id"]) == ("succeeded", task["id"])


def test_tasks_from_before_the_automation_are_waited_for_too(api, a_project, timed):
    a_task_in(api, a_project, due_date="2020-01-01")

    def make(due: str) -> tuple[Any, str]:
        task = a_task_in(api, a_project, due_date=due)
        rule = timed({"on": "date", "field": "due_date"})
        return (task, rule), rule["created_at"]

    task, rule = in_time(make)
    (run,) = settled(api, rule)
    assert run["object_id"] == task["id"]


def test_what_was_due_already_runs_if_the_trigger_asks_for_it(api, a_project, timed):
    task = a_task_in(api, a_project, due_date="2020-01-01")
    a_task_in(api, a_project, due_date="2020-01-01", status="completed")
    a_task_in(api, a_project, due_date="2999-01-01")
    rule = timed({"on": "date", "field": "due_date", "existing": "run"})
    (run,) = settled(api, rule)
    assert (run["object_id"], run["state"]) == (task["id"], "succeeded")
    for enabled in (False, True):  # it does not run for the same date again
        api.patch(f"/v1/automations/{rule['id']}", json={"enabled": enabled})
    other = a_task_due(api, a_project)
    assert [one["object_id"] for one in settled(api, rule, 2)] == [task["id"], other["id"]]


def test_dates_of_projects_and_custom_dates_are_dates_too(api, a_project, timed):
    fields = [{"key": "review", "name": "Review", "type": "date"}]
    api.patch(f"/v1/projects/{a_project['id']}", json={"fields": fields, "start_date": "2020-01-01"})
    custom = timed({"on": "date", "field": "custom_fields.review"})
    project = timed(
        {"on": "date", "in": "projects", "field": "start_date", "existing": "run"},
        batch(patch('/projects/{"$ref": "now.id"}', description="Begun")),
    )
    task = a_task_due(api, a_project, "review")
    assert settled(api, custom)[0]["object_id"] == task["id"]
    (run,) = settled(api, project)
    assert (run["object_id"], run["project_id"], run["state"]) == (a_project["id"], a_project["id"], "succeeded")


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_a_schedule_starts_a_run_or_one_for_each_object_of_a_filter(api, a_project, timed):
    tasks = [a_task_in(api, a_project, priority="high") for _ in range(2)]
    a_task_in(api, a_project)
    task = {"name": "Again", "project_id": a_project["id"]}
    each = {"in": "tasks", "filter": {"priority": "high"}}

    def make(due: str) -> tuple[Any, str]:
        moment = datetime.fromisoformat(due) + timedelta(minutes=1)
        cron = {"on": "schedule", "cron": f"{moment.minute} {moment.hour} {moment.day} {moment.month} *"}
        once = timed(cron, batch({"method": "POST", "path": "/tasks", "body": task}))
        many = timed({**cron, "each": each})
        at = f"{moment.isoformat()[:16]}:00.000Z"
        return (once, many), many["created_at"] if many["created_at"] >= at else ""

    once, many = in_time(make)
    (run,) = settled(api, once)
    assert (run["state"], run["cause"], run["object_id"]) == ("succeeded", "schedule", None)
    found = settled(api, many, 2)
    assert sorted(one["object_id"] for one in found) == sorted(task["id"] for task in tasks)
    assert [api.get(f"/v1/tasks/{task['id']}").json()["labels"] for task in tasks] == [["seen"]] * 2
    assert len(api.get("/v1/tasks", params={"project_id": a_project["id"], "name": "Again"}).json()) == 1


# ---- states that last ------------------------------------------------------------------------------------------------


def test_a_task_with_which_nothing_happens_starts_a_run_once(api, a_project, timed):
    rule = timed({"on": "idle", "filter": {"status": "pending"}, "for": "PT1S"})
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert (run["state"], run["cause"], run["object_id"]) == ("succeeded", "idle", task["id"])
    # What the run did is no activity; a comment by somebody is.
    create(api, "comments", task_id=task["id"], body="Still here?")
    first, second = settled(api, rule, 2)
    assert (first["object_id"], second["object_id"]) == (task["id"], task["id"])


def test_a_filter_that_has_been_true_for_long_enough_starts_a_run(api, a_project, timed):
    rule = timed({"on": "held", "filter": {"priority": "urgent"}, "for": "PT1S"})
    task, calm = a_task_in(api, a_project, priority="urgent"), a_task_in(api, a_project, priority="low")
    (run,) = settled(api, rule)
    assert (run["state"], run["cause"], run["object_id"]) == ("succeeded", "held", task["id"])
    api.patch(f"/v1/tasks/{calm['id']}", json={"priority": "urgent"})
    assert settled(api, rule, 2)[1]["object_id"] == calm["id"]


# ---- restarts, and automations that change ---------------------------------------------------------------------------


def test_what_waits_is_there_after_a_restart(start_server):
    server = start_server()
    with server.client() as client:
        project = create(client, "projects", name="A project")
        held = a_task_in(client, project, priority="urgent")
        body = {"name": "A rule", "project_id": project["id"], "actions": [label("seen")]}
        triggers = [
            {"on": "date", "field": "due_date"},
            {"on": "held", "filter": {"priority": "urgent"}, "for": "PT3S", "existing": "run"},
        ]
        dated, lasting = (create(client, "automations", **body, trigger=trigger) for trigger in triggers)
        due = a_task_due(client, project)
    server.kill()
    server.start()
    with server.client() as client:
        assert settled(client, dated)[0]["object_id"] == due["id"]
        assert settled(client, lasting)[0]["object_id"] == held["id"]
        found = [client.get(f"/v1/tasks/{task['id']}").json()["labels"] for task in (due, held)]
        assert found == [["seen"], ["seen"]]


def test_what_is_disabled_or_changed_waits_for_nothing_more(api, a_project, timed):
    def make(due: str) -> tuple[Any, str]:
        disabled, changed = (timed({"on": "date", "field": "due_date"}) for _ in range(2))
        task = a_task_in(api, a_project, due_date=due)
        api.patch(f"/v1/automations/{disabled['id']}", json={"enabled": False})
        trigger = {"on": "date", "field": "due_date", "offset": "PT1S"}
        altered = api.patch(f"/v1/automations/{changed['id']}", json={"trigger": trigger}).json()
        return (disabled, altered, task), altered["updated_at"]

    disabled, changed, task = in_time(make)
    (run,) = settled(api, changed)
    assert (run["object_id"], run["version"]) == (task["id"], changed["version"])
    assert runs_of(api, disabled) == []


def test_a_schedule_ends_with_its_key(api, timed, somebody, server):
    _, key_id, secret = somebody("member")
    with server.client(secret) as client:
        rule = timed({"on": "schedule", "cron": "* * * * *"}, {"do": "stop"}, client=client)
        client.delete(f"/v1/api-keys/{key_id}")
    path = f"/v1/automations/{rule['id']}"
    assert until(lambda: api.get(path).json()["disabled_reason"]) == "rights"


def test_the_object_as_it_is_when_the_run_begins_may_be_asked_for(api, a_project, timed):
    a_task_in(api, a_project, due_date="2020-01-01")
    rule = timed({"on": "date", "field": "due_date", "existing": "run"}, now={"priority": "high"})
    (run,) = settled(api, rule)
    assert (run["state"], run["reason"]) == ("skipped", "condition")
    assert timeline(api, run) == []


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"on": "schedule"}, {"/trigger": "required"}),
        ({"on": "schedule", "cron": "0 25 * * *"}, {"/trigger/cron": "invalid_cron"}),
        ({"on": "schedule", "cron": "@daily"}, {"/trigger/cron": "invalid_cron"}),
        ({"on": "schedule", "rrule": "FREQ=DAILY;COUNT=2", "at": "09:00"}, {"/trigger/rrule": "invalid_rrule"}),
        ({"on": "schedule", "rrule": "FREQ=WEEKLY;BYDAY=MO", "at": "9:00"}, {"/trigger/at": "invalid_format"}),
        ({"on": "schedule", "rrule": "FREQ=WEEKLY;BYDAY=MO"}, {"/trigger/at": "required"}),
        ({"on": "schedule", "rrule": "FREQ=DAILY;UNTIL=20200101", "at": "09:00"}, {"/trigger": "out_of_range"}),
        ({"on": "schedule", "corn": "0 9 * * *"}, {"/trigger": "required", "/trigger/corn": "unknown_field"}),
        ({"on": "schedule", "cron": "0 9 * * *", "each": "tasks"}, {"/trigger/each": "wrong_type"}),
        ({"on": "schedule", "cron": "0 9 * * *", "each": {"in": "users"}}, {"/trigger/each/in": "not_allowed"}),
        ({"on": "schedule", "cron": "0 9 * * *", "each": {"in": "tasks", "limit": 5}},
         {"/trigger/each/limit": "unknown_field"}),
        ({"on": "schedule", "cron": "0 9 * * *", "each": {"in": "tasks", "filter": {"priority": "highest"}}},
         {"/trigger/each/filter/priority": "not_allowed"}),
        ({"on": "date"}, {"/trigger/field": "required"}),
        ({"on": "date", "field": "due"}, {"/trigger/field": "not_allowed"}),
        ({"on": "date", "field": "due_date", "offset": "1 day"}, {"/trigger/offset": "invalid_format"}),
        ({"on": "date", "field": "due_date", "at": "24:00"}, {"/trigger/at": "invalid_format"}),
        ({"on": "date", "field": "due_date", "at": "09:00", "offset": "-PT2H"}, {"/trigger/at": "not_allowed"}),
        ({"on": "date", "field": "due_date", "existing": "all"}, {"/trigger/existing": "not_allowed"}),
        ({"on": "date", "field": "due_date", "in": "comments"}, {"/trigger/in": "not_allowed"}),
        ({"on": "date", "field": "custom_fields.size"}, {"/trigger/field": "wrong_type"}),
        ({"on": "idle", "for": "P14D"}, {"/trigger/filter": "wrong_type"}),
        ({"on": "idle", "filter": {"status": "pending"}}, {"/trigger/for": "wrong_type"}),
        ({"on": "idle", "filter": {"due_date": {"$lt": "today"}}, "for": "P14D"}, {"/trigger/filter": "not_allowed"}),
        ({"on": "held", "filter": {"status": "pending"}, "for": "-P2D"}, {"/trigger/for": "out_of_range"}),
        ({"on": "held", "filter": {"status": "pending"}, "for": "PT0S"}, {"/trigger/for": "out_of_range"}),
        ({"on": "held", "filter": {"stat": "pending"}, "for": "P2D"}, {"/trigger/filter/stat": "unknown_parameter"}),
    ],
)  # fmt: skip
def test_each_fault_of_a_trigger_has_its_place(api, a_project, trigger, expected):
    fields = [{"key": "size", "name": "Size", "type": "number"}]
    if trigger.get("field") == "custom_fields.size":
        api.patch(f"/v1/projects/{a_project['id']}", json={"fields": fields})
    body = {"name": "A rule", "project_id": a_project["id"], "trigger": trigger, "actions": [{"do": "stop"}]}
    assert faults(problem(api.post("/v1/automations", json=body), 422)) == expected


def test_a_key_that_may_not_read_what_it_waits_for_is_told(api, a_project, key_with):
    limited = key_with(["automations:write", "projects:read"])
    body = {"name": "A rule", "project_id": a_project["id"], "actions": [{"do": "stop"}]}
    for trigger in ({"on": "date", "field": "due_date"}, {"on": "idle", "filter": {"priority": "low"}, "for": "P1D"}):
        problem_found = problem(limited.post("/v1/automations", json={**body, "trigger": trigger}), 422)
        assert faults(problem_found) == {"/trigger/in": "not_allowed"}


@pytest.mark.parametrize(
    ("more", "pointer", "code"),
    [
        ({"now": {"status": "pending"}}, "/now", "not_allowed"),
        ({"condition": {"status": "pending"}}, "/condition", "not_allowed"),
        ({"timezone": "Europe/Berlim"}, "/timezone", "unknown_timezone"),
        ({"actions": [batch(patch(NOW_ID, name="x"))]}, "/actions/0/operations/0", "unknown_reference"),
        ({"actions": [batch(patch(name="x"))]}, "/actions/0/operations/0", "unknown_reference"),
    ],
)
def test_what_a_schedule_has_not_is_not_referred_to(api, more, pointer, code):
    trigger = {"on": "schedule", "cron": "0 9 * * *"}
    body = {"name": "A rule", "trigger": trigger, "actions": [{"do": "stop"}], **more}
    assert faults(problem(api.post("/v1/automations", json=body), 422)) == {pointer: code}
