"""Automations: what starts one, what it does, and that it does it once."""

import time
from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, places, problem

PATIENCE = 120
UPDATED = {"on": "event", "types": ["task.updated"]}


def batch(*operations: Any, **more: Any) -> dict[str, Any]:
    return {"do": "batch", "operations": list(operations), **more}


def patch(path: str = '/tasks/{"$ref": "event.data.id"}', **body: Any) -> dict[str, Any]:
    return {"method": "PATCH", "path": path, "body": body}


def comment(text: str) -> dict[str, Any]:
    body = {"task_id": {"$ref": "event.data.id"}, "body": text}
    return batch({"method": "POST", "path": "/comments", "body": body})


def runs_of(client: httpx2.Client, automation: Any, **parameters: Any) -> Any:
    response = client.get(f"/v1/automations/{automation['id']}/runs", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def settled(client: httpx2.Client, automation: Any, count: int = 1, *states: str) -> list[Any]:
    """The runs of an automation, oldest first, once there are so many in one of these states (default: over)."""
    until = time.monotonic() + PATIENCE
    while True:
        found = runs_of(client, automation)
        there = [run for run in found if (run["state"] in states if states else run["finished_at"])]
        if len(there) >= count:
            assert len(found) == count, found
            return list(reversed(found))
        assert time.monotonic() < until, found
        time.sleep(0.05)


def timeline(client: httpx2.Client, run: Any) -> Any:
    return client.get(f"/v1/automations/{run['automation_id']}/runs/{run['id']}").json()["timeline"]


def faults(document: Any) -> dict[str, str]:
    """The faults of a problem: their codes by their places."""
    return dict(zip(places(document), codes(document), strict=True))


def a_task_in(client: httpx2.Client, project: Any, **more: Any) -> Any:
    return create(client, "tasks", name="A task", project_id=project["id"], **more)


# ---- events ----------------------------------------------------------------------------------------------------------


def test_an_event_starts_a_run_that_does_what_the_actions_say(api, a_project, automate):
    rule = automate(batch(patch(priority="high")))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert (run["state"], run["cause"], run["object_id"]) == ("succeeded", "event", task["id"])
    assert api.get(f"/v1/tasks/{task['id']}").json()["priority"] == "high"
    (step,) = timeline(api, run)
    assert (step["do"], step["state"], step["detail"]["events"]) == ("batch", "succeeded", 1)
    (event,) = api.get("/v1/events", params={"object_id": task["id"], "types": "task.updated"}).json()
    assert event["request_id"] == run["request_id"]
    assert event["actor"]["id"] == rule["user_id"]
    assert event["origin"] == {
        "type": "automation",
        "automation_id": rule["id"],
        "run_id": run["id"],
        "chain": [],
    }


def test_only_what_fits_the_condition_starts_a_run(api, a_project, automate):
    rule = automate(batch(patch(labels=["seen"])), condition={"priority": {"$in": ["high", "urgent"]}})
    a_task_in(api, a_project, priority="low")
    urgent = a_task_in(api, a_project, priority="urgent")
    (run,) = settled(api, rule)
    assert run["object_id"] == urgent["id"]


def test_a_change_has_to_be_from_and_to_what_the_trigger_says(api, a_project, automate):
    changed = {"status": {"from": ["pending"], "to": ["in_progress"]}}
    rule = automate(
        batch(patch(labels=["begun"])), trigger={"on": "event", "types": ["task.updated"], "changed": changed}
    )
    task = a_task_in(api, a_project)
    for body in ({"name": "B"}, {"status": "completed"}, {"status": "in_progress"}, {"status": "pending"}):
        api.patch(f"/v1/tasks/{task['id']}", json=body)
    begun = api.patch(f"/v1/tasks/{task['id']}", json={"status": "in_progress"})
    (run,) = settled(api, rule)
    event = api.get(f"/v1/events/{run['event_id']}").json()
    assert event["data"]["version"] == begun.json()["version"]


def test_what_happened_before_and_while_it_is_disabled_starts_nothing(api, a_project, automate):
    a_task_in(api, a_project)
    rule = automate(batch(patch(labels=["seen"])))
    api.patch(f"/v1/automations/{rule['id']}", json={"enabled": False})
    a_task_in(api, a_project)
    api.patch(f"/v1/automations/{rule['id']}", json={"enabled": True})
    last = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert run["object_id"] == last["id"]


def test_a_rule_that_changes_what_it_listens_to_ends(api, a_project, automate):
    rule = automate(batch(patch(estimate=3)), trigger={"on": "event", "types": ["task.updated"]})
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    first, second = settled(api, rule, 2)
    assert (first["state"], second["state"], second["reason"]) == ("succeeded", "skipped", "loop")


def test_automations_that_lead_to_each_other_end(api, a_project, automate):
    trigger = {"on": "event", "types": ["task.updated"]}
    # Each run changes something, whatever the runs before it did.
    one, other = (automate(batch(patch(description={"$ref": "run.id"})), trigger=trigger) for _ in range(2))
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    # Each is started by the person and by the other; by what it did itself, and what the other did of that, it is not.
    states = [run["state"] for rule in (one, other) for run in settled(api, rule, 5)]
    assert sorted(states) == ["skipped"] * 6 + ["succeeded"] * 4


def test_what_an_undo_changes_starts_nothing_unless_it_is_asked_for(api, a_project, automate):
    trigger = {"on": "event", "types": ["task.updated"], "changed": {"priority": {"to": ["none"]}}}
    plain = automate(comment("plain"), trigger=trigger)
    asking = automate(comment("asking"), trigger=trigger, include=["revert"])
    task = a_task_in(api, a_project)
    changed = api.patch(f"/v1/tasks/{task['id']}", json={"priority": "high"})
    reverted = api.post("/v1/events/revert", json={"request_id": changed.headers["x-request-id"]})
    assert reverted.status_code == 200
    (run,) = settled(api, asking)
    assert run["state"] == "succeeded"
    assert runs_of(api, plain) == []


# ---- actions ---------------------------------------------------------------------------------------------------------


def test_later_actions_know_what_earlier_ones_have_made(api, a_project, automate):
    rule = automate(
        batch(
            {
                "id": "note",
                "method": "POST",
                "path": "/comments",
                "body": {"task_id": {"$ref": "event.data.id"}, "body": 'About {"$ref": "event.data.name"}'},
            }
        ),
        batch({"method": "PATCH", "path": '/comments/{"$ref": "note.id"}', "body": {"body": '{"$ref": "note.body"}!'}}),
    )
    task = a_task_in(api, a_project)
    settled(api, rule)
    (comment,) = api.get("/v1/comments", params={"task_id": task["id"]}).json()
    assert comment["body"] == "About A task!"


def test_what_a_text_holds_is_never_taken_for_a_reference(api, a_project, automate):
    rule = automate(batch(patch(description='Was {"$ref": "event.data.name"}')))
    name = '{"$ref": "event.data.id"} {{7*7}} ../..%2f\r\nX: y'
    task = create(api, "tasks", name=name, project_id=a_project["id"])
    (run,) = settled(api, rule)
    assert run["state"] == "succeeded", run
    assert api.get(f"/v1/tasks/{task['id']}").json()["description"] == f"Was {task['name']}"


def test_actions_between_waits_are_done_together_or_not_at_all(api, a_project, automate):
    rule = automate(batch(patch(labels=["done"])), batch(patch(status="no such status")))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert (run["state"], run["reason"]) == ("failed", "batch-failed")
    assert "no such status" in run["detail"]
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == []
    (step,) = timeline(api, run)
    assert (step["action"], step["state"]) == ("/actions/1", "failed")


def test_a_rule_may_go_on_behind_an_action_that_fails(api, a_project, automate):
    rule = automate(
        batch(patch(labels=["one"])), batch(patch(status="nonsense")), batch(patch(estimate=5)), on_error="continue"
    )
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    found = api.get(f"/v1/tasks/{task['id']}").json()
    assert (run["state"], found["labels"], found["estimate"]) == ("succeeded", ["one"], 5)
    assert [step["state"] for step in timeline(api, run)] == ["succeeded", "failed", "succeeded"]


def test_a_condition_chooses_between_actions(api, a_project, automate):
    choose = {
        "do": "if", "condition": {"priority": "urgent"},
        "then": [batch(patch(labels=["urgent"]))], "else": [batch(patch(labels=["calm"])), {"do": "stop"}],
    }  # fmt: skip
    rule = automate(choose, batch(patch(estimate=1)))
    urgent, calm = a_task_in(api, a_project, priority="urgent"), a_task_in(api, a_project)
    settled(api, rule, 2)
    found = [api.get(f"/v1/tasks/{task['id']}").json() for task in (urgent, calm)]
    assert [(task["labels"], task["estimate"]) for task in found] == [(["urgent"], 1), (["calm"], None)]


def test_a_loop_does_its_actions_for_each_object(api, a_project, automate):
    for name in "abc":
        create(api, "tasks", name=name, project_id=a_project["id"], labels=["old"])
    each = {
        "do": "each", "in": "tasks", "filter": {"project_id": a_project["id"], "labels": "old"},
        "actions": [batch(patch('/tasks/{"$ref": "item.id"}', description='Task {"$ref": "item.name"}'))],
    }  # fmt: skip
    rule = automate(each, batch(patch(estimate=3)))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert run["state"] == "succeeded", run
    found = api.get("/v1/tasks", params={"project_id": a_project["id"], "labels": "old", "sort": "name"}).json()
    assert [one["description"] for one in found] == ["Task a", "Task b", "Task c"]
    assert api.get(f"/v1/tasks/{task['id']}").json()["estimate"] == 3


def test_operations_refer_to_earlier_ones_of_their_action_in_each_round(api, a_project, automate):
    tasks = [create(api, "tasks", name=name, project_id=a_project["id"], labels=["old"]) for name in "ab"]
    note = [
        {"id": "found", "method": "GET", "path": "/tasks/{item.id}"},
        {
            "method": "POST",
            "path": "/comments",
            "body": {"task_id": {"$ref": "found.id"}, "body": 'About {"$ref": "found.name"}'},
        },
    ]
    each = {"do": "each", "in": "tasks", "filter": {"project_id": a_project["id"], "labels": "old"}}
    rule = automate({**each, "actions": [batch(*note)]})
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert run["state"] == "succeeded", run
    found = [api.get("/v1/comments", params={"task_id": task["id"]}).json() for task in tasks]
    assert [[comment["body"] for comment in comments] for comments in found] == [["About a"], ["About b"]]


def test_a_run_waits_until_a_condition_holds(api, a_project, automate):
    rule = automate({"do": "wait", "for": "P2D", "until": {"status": "completed"}}, batch(patch(labels=["thanks"])))
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule, 1, "waiting")
    assert run["continues_at"] > run["created_at"]
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "Not yet"})
    api.patch(f"/v1/tasks/{task['id']}", json={"status": "completed"})
    (run,) = settled(api, rule)
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == ["thanks"]
    assert timeline(api, run)[0]["detail"]["reason"] == "until"


def test_a_run_waits_for_a_time(api, a_project, automate):
    rule = automate({"do": "wait", "for": "PT1S"}, batch(patch(labels=["later"])))
    a_task_in(api, a_project)
    (run,) = settled(api, rule)
    waited = timeline(api, run)[0]["detail"]
    assert (run["state"], waited["reason"]) == ("succeeded", "time")
    assert run["finished_at"] >= waited["due"]


# ---- modes -----------------------------------------------------------------------------------------------------------


def test_runs_about_one_object_go_on_one_after_the_other(api, a_project, automate):
    rule = automate(
        {"do": "wait", "for": "P1D", "until": {"labels": "go"}}, trigger={"on": "event", "types": ["task.updated"]}
    )
    task = a_task_in(api, a_project)
    for name in "bcd":
        api.patch(f"/v1/tasks/{task['id']}", json={"name": name})
    until = time.monotonic() + PATIENCE
    while len(runs_of(api, rule)) < 3 or not runs_of(api, rule, state="waiting"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert sorted(run["state"] for run in runs_of(api, rule)) == ["queued", "queued", "waiting"]


def test_a_new_run_takes_the_place_of_one_that_waits(api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D"}, trigger={"on": "event", "types": ["task.updated"]}, mode="restart")
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    settled(api, rule, 1, "waiting")
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "C"})
    first, second = settled(api, rule, 2, "waiting", "superseded")
    assert (first["state"], second["state"]) == ("superseded", "waiting")


def test_a_new_run_is_dropped_while_one_is_not_over(api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D"}, trigger={"on": "event", "types": ["task.updated"]}, mode="single")
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    settled(api, rule, 1, "waiting")
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "C"})
    _, second = settled(api, rule, 2, "waiting", "dropped")
    assert (second["state"], second["reason"]) == ("dropped", "busy")


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_an_automation_is_started_by_hand_for_some_objects(api, a_project, automate):
    rule = automate(
        batch(patch('/tasks/{"$ref": "now.id"}', description={"$ref": "input.reason"})),
        trigger={"on": "manual", "input": {"reason": "text"}},
    )
    tasks = [a_task_in(api, a_project) for _ in range(2)]
    body = {"object_ids": [task["id"] for task in tasks], "input": {"reason": "Customer called"}}
    started = api.post(f"/v1/automations/{rule['id']}/runs", json=body)
    assert started.status_code == 202
    settled(api, rule, 2)
    found = [api.get(f"/v1/tasks/{task['id']}").json()["description"] for task in tasks]
    assert found == ["Customer called"] * 2


def test_what_does_not_fit_is_told_before_anything_is_started(api, automate, a_project):
    rule = automate(batch(patch(labels=["x"])), trigger={"on": "manual", "input": {"count": "number"}})
    response = api.post(
        f"/v1/automations/{rule['id']}/runs", json={"object_ids": [ids.new("task")], "input": {"count": "3", "n": 1}}
    )
    found = faults(problem(response, 422))
    assert found == {
        "/object_ids/0": "unknown_reference",
        "/input/count": "wrong_type",
        "/input/n": "unknown_field",
    }
    event = automate(batch(patch(labels=["x"])))
    problem(api.post(f"/v1/automations/{event['id']}/runs"), 409)


def test_a_run_is_cancelled(api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D"})
    a_task_in(api, a_project)
    (run,) = settled(api, rule, 1, "waiting")
    path = f"/v1/automations/{rule['id']}/runs/{run['id']}/cancel"
    assert api.post(path).json()["state"] == "cancelled"
    problem(api.post(path), 409)


# ---- rights ----------------------------------------------------------------------------------------------------------


def test_a_rule_acts_with_the_rights_of_its_key_and_no_others(api, a_project, automate, key_with):
    limited = key_with(["automations:write", "tasks:read", "projects:read"])
    rule = automate(batch(patch(labels=["x"])), client=limited)
    task = a_task_in(api, a_project)
    (run,) = settled(api, rule)
    assert (run["state"], run["reason"]) == ("failed", "batch-failed")
    assert "tasks:write" in run["detail"]
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == []


def test_it_ends_with_its_key(api, a_project, automate, somebody, server):
    user_id, key_id, secret = somebody("member")
    with server.client(secret) as client:
        rule = automate({"do": "wait", "for": "P1D"}, client=client)
    assert rule["user_id"] == user_id
    a_task_in(api, a_project)
    settled(api, rule, 1, "waiting")
    with server.client(secret) as client:
        client.delete(f"/v1/api-keys/{key_id}")
    a_task_in(api, a_project)
    until = time.monotonic() + PATIENCE
    while (found := api.get(f"/v1/automations/{rule['id']}").json())["enabled"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert found["disabled_reason"] == "rights"
    (run,) = settled(api, rule)
    assert (run["state"], run["reason"]) == ("cancelled", "rights")


def test_whoever_changes_what_it_does_is_whom_it_acts_for(api, an_admin, automate, me):
    rule = automate(batch(patch(labels=["x"])))
    assert rule["user_id"] == me["id"]
    renamed = an_admin.client.patch(f"/v1/automations/{rule['id']}", json={"name": "Renamed"})
    assert renamed.json()["user_id"] == me["id"]
    changed = an_admin.client.patch(f"/v1/automations/{rule['id']}", json={"mode": "parallel"})
    assert changed.json()["user_id"] == an_admin.id


def test_members_have_rules_for_projects_and_only_admins_for_the_workspace(api, a_member, a_guest, a_project, automate):
    actions = [batch(patch(labels=["x"]))]
    trigger = {"on": "event", "types": ["task.created"]}
    body = {"name": "Mine", "trigger": trigger, "actions": actions}
    problem(a_member.client.post("/v1/automations", json=body), 403)
    mine = automate(*actions, client=a_member.client)
    problem(a_guest.client.get(f"/v1/automations/{mine['id']}"), 404)
    problem(a_guest.client.post("/v1/automations", json={**body, "project_id": a_project["id"]}), 422)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"trigger": {"on": "evnt"}}, "/trigger/on", "not_allowed"),
        ({"trigger": {"on": "event", "types": ["task.created", "task.eaten"]}}, "/trigger/types/1", "unknown_event"),
        ({"trigger": {"on": "event", "types": ["task.updated"], "changed": {"statis": {}}}}, "/trigger/changed/statis",
         "unknown_field"),
        ({"condition": {"priority": "highest"}}, "/condition/priority", "not_allowed"),
        ({"actions": []}, "/actions", "required"),
        ({"actions": [{"do": "dance"}]}, "/actions/0/do", "not_allowed"),
        ({"actions": [{"do": "batch", "operations": [{"method": "POST", "path": "/nowhere"}]}]},
         "/actions/0/operations/0/path", "not_found"),
        ({"actions": [{"do": "batch", "operations": [{"method": "DELETE", "path": "/webhooks/x"}]}]},
         "/actions/0/operations/0/path", "not_allowed"),
        ({"actions": [{"do": "wait", "for": "2 days"}]}, "/actions/0/for", "invalid_format"),
        ({"actions": [{"do": "if", "condition": {"status": "x"}, "then": [{"do": "stop", "now": 1}]}]},
         "/actions/0/then/0/now", "unknown_field"),
        ({"actions": [batch(patch('/tasks/{"$ref": "evnt.data.id"}', name="x"))]},
         "/actions/0/operations/0", "unknown_reference"),
    ],
)  # fmt: skip
def test_each_fault_has_its_place(api, body, pointer, code):
    whole = {
        "name": "A rule",
        "trigger": {"on": "event", "types": ["task.updated"]},
        "actions": [batch(patch(labels=["x"]))],
        **body,
    }
    assert faults(problem(api.post("/v1/automations", json=whole), 422)) == {pointer: code}
