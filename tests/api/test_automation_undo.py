"""Undoing what automations did: one run, or all runs of an automation since a time."""

import pytest
from taskade_server.kit import ids

from tests.api.asking import create, problem
from tests.api.test_automations import UPDATED, a_task_in, batch, comment, faults, patch, runs_of, settled


def path_of(run):
    return f"/v1/automations/{run['automation_id']}/runs/{run['id']}/revert"


def test_undoing_a_run_takes_back_all_that_it_changed(api, a_project, automate, expect_events):
    made = {"method": "POST", "path": "/tasks", "body": {"name": "Follow-up", "project_id": a_project["id"]}}
    rule = automate(
        batch(patch(priority="high")), batch(patch(labels=["x"]), {"id": "made", **made}), condition={"name": "A task"}
    )
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    with expect_events():
        preview = api.post(f"{path_of(run)}?dry_run=true")
    assert preview.headers["dry-run"] == "true"
    with expect_events("task.updated", "task.deleted"):
        answer = api.post(path_of(run))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (
        [change["type"] for change in found["changes"]]
        == [change["type"] for change in preview.json()["changes"]]
        == ["task.updated", "task.deleted"]
    )
    assert (len(found["reverted"]), found["not_undone"]) == (3, [])
    after = api.get(f"/v1/tasks/{task['id']}").json()
    ours = ("updated_at", "version")
    assert {name: value for name, value in after.items() if name not in ours} == {
        name: value for name, value in task.items() if name not in ours
    }
    event = max(api.get("/v1/events", params={"object_id": task["id"]}).json(), key=lambda one: one["seq"])
    assert event["origin"] == {
        "type": "revert",
        "automation_id": rule["id"],
        "run_id": run["id"],
        "request_id": run["request_id"],
    }


def test_undoing_a_run_starts_nothing(api, a_project, automate):
    rule = automate(batch(patch(priority="high")), trigger={"on": "event", "types": ["task.created"]})
    watching = automate({"do": "stop"}, trigger=UPDATED)
    asking = automate({"do": "stop"}, trigger=UPDATED, include=["revert"])
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert api.post(path_of(run)).status_code == 200
    settled(api, asking, 2)
    assert len(runs_of(api, watching)) == 1


def test_a_run_is_not_undone_over_later_changes_of_others(api, a_project, automate):
    rule = automate(batch(patch(priority="high")))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    api.patch(f"/v1/tasks/{task['id']}", json={"priority": "low"})
    document = problem(api.post(path_of(run)), 409, "revert-conflict")
    assert document["conflicts"][0]["member"] == "priority"


def test_a_run_that_is_not_over_has_to_be_cancelled_first(api, a_project, automate):
    rule = automate(batch(patch(priority="high")), {"do": "wait", "for": "P1D"})
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule, 1, "waiting")
    problem(api.post(path_of(run)), 409)
    api.post(f"/v1/automations/{rule['id']}/runs/{run['id']}/cancel")
    assert api.post(path_of(run)).status_code == 200
    assert api.get(f"/v1/tasks/{task['id']}").json()["priority"] == task["priority"]


def test_undoing_a_run_that_changed_nothing_does_nothing(api, a_project, automate):
    rule = automate({"do": "stop"})
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert api.post(path_of(run)).json() == {"reverted": [], "changes": [], "not_undone": []}


def test_a_run_is_undone_with_the_rights_of_the_caller(api, a_project, automate, key_with):
    rule = automate(batch(patch(priority="high")), comment("Seen"))
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    problem(key_with(["automations:read"]).post(path_of(run)), 403)
    problem(key_with(["automations:write", "tasks:write"]).post(path_of(run)), 403)  # it does not see the comment
    problem(key_with(["automations:write", "tasks:write", "comments:read"]).post(path_of(run)), 403)
    able = key_with(["automations:write", "tasks:write", "comments:write", "projects:read"])
    assert able.post(path_of(run)).status_code == 200
    problem(api.post(f"/v1/automations/{rule['id']}/runs/{ids.new('run')}/revert"), 404)


def test_all_runs_of_an_automation_are_undone_since_a_time(api, a_project, automate):
    rule = automate(batch(patch(priority="high")))
    other = automate(batch(patch(labels=["x"])))
    tasks = [a_task_in(api, a_project) for _ in range(3)]
    settled(api, rule, 3)
    settled(api, other, 3)
    answer = api.post("/v1/events/revert", json={"automation_id": rule["id"], "since": "-1h"})
    assert answer.status_code == 200, answer.text
    assert sorted(change["object_id"] for change in answer.json()["changes"]) == sorted(one["id"] for one in tasks)
    for task in tasks:
        found = api.get(f"/v1/tasks/{task['id']}").json()
        assert (found["priority"], found["labels"]) == (task["priority"], ["x"])


def test_only_what_happened_since_is_undone(api, a_project, automate):
    rule = automate(
        batch(patch(labels=["one"])),
        {"do": "wait", "for": "P1D", "until": {"status": "completed"}},
        batch(patch(estimate=5)),
    )
    task = a_task_in(api, a_project)
    settled(api, rule, 1, "waiting")
    completed = api.patch(f"/v1/tasks/{task['id']}", json={"status": "completed"}).json()
    settled(api, rule)
    body = {"automation_id": rule["id"], "since": completed["updated_at"]}
    assert api.post("/v1/events/revert", json=body).status_code == 200
    found = api.get(f"/v1/tasks/{task['id']}").json()
    assert (found["labels"], found["estimate"]) == (["one"], None)


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"automation_id": "auto_x", "since": "-1h"}, 422, "/automation_id"),
        ({"automation_id": ids.new("auto")}, 422, "/since"),
        ({"automation_id": ids.new("auto"), "since": "-60d"}, 422, "/since"),
        ({"automation_id": ids.new("auto"), "since": "-1h", "workspace_id": "ws_x"}, 422, "/workspace_id"),
        ({"automation_id": ids.new("auto"), "since": "-1h"}, 404, ""),
    ],
)
def test_what_cannot_be_undone_of_an_automation_is_told(api, body, status, pointer):
    document = problem(api.post("/v1/events/revert", json=body), status)
    assert not pointer or pointer in faults(document)


def test_a_stranger_undoes_nothing(api, a_project, automate, outsider):
    rule = automate(batch(patch(priority="high")))
    a_task_in(api, a_project)
    settled(api, rule)
    problem(outsider.post("/v1/events/revert", json={"automation_id": rule["id"], "since": "-1h"}), 404)
    assert create(outsider, "projects", name="Theirs")
