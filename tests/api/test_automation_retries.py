"""Running failed runs again, what disables automations, and how they are measured."""

import time

import pytest

from tests.api.asking import create, problem
from tests.api.test_automations import PATIENCE, UPDATED, a_task_in, batch, faults, patch, runs_of, settled, timeline


def path_of(run, what="retry"):
    return f"/v1/automations/{run['automation_id']}/runs/{run['id']}/{what}"


def again(client, run, **body):
    answer = client.post(path_of(run), json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def over(client, rule, run):
    until = time.monotonic() + PATIENCE
    while True:
        found = client.get(f"/v1/automations/{rule['id']}/runs/{run['id']}").json()
        if found["finished_at"]:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


def a_rule_that_fails_late(automate, a_project):
    """It makes a task, waits, and then needs a task whose name begins with the label that it was given."""
    made = {
        "id": "made",
        "method": "POST",
        "path": "/tasks",
        "body": {"name": "Follow-up", "project_id": a_project["id"]},
    }
    return automate(
        batch(made),
        {"do": "wait", "for": "PT1S"},
        batch(patch('/tasks/{"$ref": "made.id"}', status={"$ref": "now.custom_fields.next"})),
        condition={"name": "A task"},
    )


def test_a_failed_run_goes_on_from_where_it_failed_with_what_it_knew(api, a_project, automate):
    rule = a_rule_that_fails_late(automate, a_project)
    task = a_task_in(api, a_project, custom_fields={"next": "nonsense"})
    (run,) = settled(api, rule)
    assert run["state"] == "failed"
    api.patch(f"/v1/tasks/{task['id']}", json={"custom_fields": {"next": "in_progress"}})
    fresh = again(api, run)
    assert (fresh["cause"], fresh["version"], fresh["object_id"]) == ("retry", 1, task["id"])
    assert fresh["id"] != run["id"] and fresh["request_id"] != run["request_id"]
    found = over(api, rule, fresh)
    # It begins with the wait, whose time has come long ago: what was done behind it was taken back.
    actions = [step["action"] for step in timeline(api, found)]
    assert (found["state"], actions) == ("succeeded", ["/actions/1", "/actions/2"])
    (made,) = api.get("/v1/tasks", params={"project_id": a_project["id"], "name": "Follow-up"}).json()
    assert made["status"] == "in_progress"
    assert api.get(f"/v1/automations/{rule['id']}/runs/{run['id']}").json()["state"] == "failed"


def test_a_failed_run_is_begun_anew_by_the_present_version(api, a_project, automate):
    rule = automate(batch(patch(labels=["x"])), batch(patch(status="nonsense")))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    api.patch(f"/v1/automations/{rule['id']}", json={"actions": [batch(patch(labels=["y"]))]})
    assert over(api, rule, again(api, run))["state"] == "failed"
    found = over(api, rule, again(api, run, **{"from": "start"}))
    assert (found["state"], found["version"]) == ("succeeded", 2)
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == ["y"]


def test_a_run_that_is_begun_anew_has_the_input_of_the_first(api, a_project, a_task, automate):
    rule = automate(
        batch(patch('/tasks/{"$ref": "now.id"}', status={"$ref": "input.to"})),
        trigger={"on": "manual", "input": {"to": "text"}},
    )
    api.post(f"/v1/automations/{rule['id']}/runs", json={"object_ids": [a_task["id"]], "input": {"to": "nonsense"}})
    (run,) = settled(api, rule)
    for body in ({}, {"from": "start"}):
        found = over(api, rule, again(api, run, **body))
        assert (found["state"], "nonsense" in found["detail"]) == ("failed", True)


def test_a_cancelled_run_goes_on(api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D", "until": {"priority": "high"}}, batch(patch(labels=["x"])))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule, 1, "waiting")
    api.post(path_of(run, "cancel"))
    fresh = again(api, run)
    api.patch(f"/v1/tasks/{task['id']}", json={"priority": "high"})
    assert over(api, rule, fresh)["state"] == "succeeded"
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == ["x"]


def test_what_cannot_be_run_again_is_told(api, a_project, automate, key_with):
    rule = automate({"do": "stop"})
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    problem(api.post(path_of(run)), 409)
    problem(key_with(["automations:read"]).post(path_of(run)), 403)
    document = problem(api.post(path_of(run), json={"from": "end", "to": 1}), 422)
    assert faults(document) == {"/to": "unknown_field", "/from": "not_allowed"}
    failing = automate(batch(patch(status="nonsense")))
    a_task_in(api, a_project)
    (run,) = settled(api, failing)
    api.patch(f"/v1/automations/{failing['id']}", json={"enabled": False})
    problem(api.post(path_of(run)), 409)


# ---- what disables an automation -------------------------------------------------------------------------------------


def disabled(client, rule):
    until = time.monotonic() + PATIENCE
    while (found := client.get(f"/v1/automations/{rule['id']}").json())["enabled"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_ten_failures_in_a_row_disable_an_automation(api, a_project, automate):
    rule = automate(batch(patch(status={"$ref": "event.data.name"})), mode="parallel")
    create(api, "tasks", name="nonsense", project_id=a_project["id"])
    settled(api, rule)
    create(api, "tasks", name="in_progress", project_id=a_project["id"])  # a success begins the count anew
    settled(api, rule, 2)
    for _ in range(9):
        create(api, "tasks", name="nonsense", project_id=a_project["id"])
    settled(api, rule, 11)
    assert api.get(f"/v1/automations/{rule['id']}").json()["enabled"]
    create(api, "tasks", name="nonsense", project_id=a_project["id"])
    found = disabled(api, rule)
    assert found["disabled_reason"] == "failing"
    (event,) = api.get("/v1/events", params={"object_id": rule["id"], "types": "automation.disabled"}).json()
    assert (event["data"]["disabled_reason"], event["actor"]["type"]) == ("failing", "system")
    health = api.get(f"/v1/automations/{rule['id']}/health").json()
    assert (health["failures_in_a_row"], health["disabled_reason"]) == (10, "failing")
    api.patch(f"/v1/automations/{rule['id']}", json={"enabled": True})
    assert api.get(f"/v1/automations/{rule['id']}/health").json()["failures_in_a_row"] == 0


def test_a_trigger_that_takes_too_much_work_disables_an_automation(api, a_project, automate):
    changed = {"custom_fields.words": {"to": [{"$contains": f"z{number}"} for number in range(50)]}}
    rule = automate({"do": "stop"}, trigger={"on": "event", "types": ["task.*"], "changed": changed})
    words = [f"{number} {'long ' * 39}" for number in range(100)]
    task = a_task_in(api, a_project, custom_fields={"words": words})
    assert disabled(api, rule)["disabled_reason"] == "filter_too_expensive"
    assert runs_of(api, rule) == []
    body = {"automation_id": rule["id"], "trials": 0}
    found = api.post("/v1/automations/preview", json=body).json()
    assert (found["count"], found["disabled_reason"]) == (0, "filter_too_expensive")
    api.delete(f"/v1/tasks/{task['id']}")


# ---- how they are measured -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        'taskade_automation_runs_open{state="waiting"}',
        'taskade_automation_runs_ended_total{state="succeeded"}',
        "taskade_automation_runs_due ",
        "taskade_automation_oldest_due_seconds ",
        'taskade_reader_lag_events{reader="automations"}',
    ],
)
def test_how_automations_are_doing_is_measured(api, a_project, automate, line):
    rule = automate({"do": "wait", "for": "P1D"}, trigger=UPDATED)
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    settled(api, rule, 1, "waiting")
    assert len(runs_of(api, rule)) == 1
    text = api.get("/metrics").text
    assert f"\n{line}" in text
