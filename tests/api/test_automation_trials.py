"""What makes automations understandable: trying one out, and why an event started a run or not."""

from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids

from tests.api.asking import create, problem
from tests.api.test_automations import UPDATED, a_task_in, batch, comment, faults, patch, runs_of, settled

MANUAL = {"on": "manual", "input": {"reason": "text"}}


def tried(client: httpx2.Client, automation: Any, **body: Any) -> Any:
    response = client.post(f"/v1/automations/{automation['id']}/test", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def event_about(client: httpx2.Client, object_id: str, kind: str = "task.created") -> Any:
    (event,) = client.get("/v1/events", params={"object_id": object_id, "types": kind}).json()
    return event


# ---- trying out ------------------------------------------------------------------------------------------------------


def test_a_trial_tells_what_a_run_would_do_and_keeps_nothing(api, a_project, a_task, automate, expect_events):
    rule = automate(batch(patch(priority="high")), comment("Seen"))
    event = event_about(api, a_task["id"])
    with expect_events():
        found = tried(api, rule, event_id=event["id"])
    assert (found["starts"], found["state"], found["limited"], found["hidden_changes"]) == (True, "succeeded", False, 0)
    assert [step["do"] for step in found["timeline"]] == ["batch", "batch"]
    assert [change["type"] for change in found["changes"]] == ["task.updated", "comment.created"]
    first = found["changes"][0]
    assert (first["object_id"], first["data"]["priority"]) == (a_task["id"], "high")
    assert first["previous"]["priority"] == a_task["priority"]
    assert api.get(f"/v1/tasks/{a_task['id']}").json() == a_task
    assert runs_of(api, rule) == []


def test_what_does_not_start_a_run_is_not_carried_out(api, a_project, a_task, automate):
    rule = automate(batch(patch(labels=["x"])), condition={"priority": "urgent"})
    found = tried(api, rule, event_id=event_about(api, a_task["id"])["id"])
    assert (found["starts"], found["state"], found["reason"]) == (False, "skipped", "condition")
    assert (found["timeline"], found["changes"]) == ([], [])
    assert [check["check"] for check in found["checks"] if not check["holds"]] == ["condition"]


def test_an_object_is_tried_as_if_an_event_had_just_told_of_it(api, a_project, a_task, automate):
    rule = automate(batch(patch(description='Was {"$ref": "event.data.name"}')), trigger=UPDATED)
    found = tried(api, rule, object_id=a_task["id"])
    assert (found["starts"], found["checks"], found["state"]) == (True, [], "succeeded")
    assert found["changes"][0]["data"]["description"] == f"Was {a_task['name']}"


def test_a_rule_is_tried_with_an_event_that_is_made_up(api, a_project, automate):
    create_task = {
        "method": "POST",
        "path": "/tasks",
        "body": {"name": 'Review {"$ref": "event.data.name"}', "project_id": a_project["id"]},
    }
    changed = {"priority": {"from": ["low"], "to": ["high"]}}
    rule = automate(batch(create_task), trigger={**UPDATED, "changed": changed})
    data = {"name": "It", "priority": "high", "project_id": a_project["id"]}
    found = tried(api, rule, sample={"data": data, "previous": {"priority": "low"}})
    assert found["starts"], found
    assert found["changes"][0]["data"]["name"] == "Review It"
    found = tried(api, rule, sample={"data": data, "previous": {"priority": "none"}})
    assert (found["starts"], found["reason"]) == (False, "changed")


def test_waits_are_told_and_not_waited_for(api, a_project, a_task, automate):
    rule = automate({"do": "wait", "for": "P2D"}, batch(patch(labels=["late"])))
    found = tried(api, rule, object_id=a_task["id"])
    assert [step["do"] for step in found["timeline"]] == ["wait", "batch"]
    assert found["timeline"][0]["detail"]["would_wait_until"] > a_task["created_at"]
    assert found["changes"][0]["data"]["labels"] == ["late"]


def test_what_fails_takes_back_its_stretch_and_no_more(api, a_project, a_task, automate):
    wrong = batch(patch(status="no such status"))
    rule = automate(batch(patch(labels=["one"])), {"do": "wait", "for": "P1D"}, batch(patch(labels=["two"])), wrong)
    found = tried(api, rule, object_id=a_task["id"])
    assert (found["state"], found["reason"]) == ("failed", "batch-failed")
    assert "/actions/3" in found["detail"]
    assert [(step["action"], step["state"]) for step in found["timeline"]] == [
        ("/actions/0", "succeeded"),
        ("/actions/1", "succeeded"),
        ("/actions/3", "failed"),
    ]
    assert [change["data"]["labels"] for change in found["changes"]] == [["one"]]


def test_a_rule_that_goes_on_behind_a_failure_does_so_in_a_trial(api, a_project, a_task, automate):
    rule = automate(
        batch(patch(labels=["one"])), batch(patch(status="nonsense")), batch(patch(estimate=5)), on_error="continue"
    )
    found = tried(api, rule, object_id=a_task["id"])
    assert [step["state"] for step in found["timeline"]] == ["succeeded", "failed", "succeeded"]
    assert [step["number"] for step in found["timeline"]] == [0, 1, 2]
    assert (found["state"], [change["data"]["estimate"] for change in found["changes"]]) == ("succeeded", [None, 5])


def test_one_that_is_started_by_hand_is_tried_with_its_input(api, a_project, a_task, automate):
    rule = automate(batch(patch('/tasks/{"$ref": "now.id"}', description={"$ref": "input.reason"})), trigger=MANUAL)
    found = tried(api, rule, object_id=a_task["id"], input={"reason": "Because"})
    assert found["changes"][0]["data"]["description"] == "Because"
    assert tried(api, rule)["state"] == "failed"  # without an object there is no now.id


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "", "required"),
        ({"event_id": "evt_x", "object_id": "task_x"}, "", "required"),
        ({"object_id": ids.new("task")}, "/object_id", "unknown_reference"),
        ({"object": "x"}, "/object", "unknown_field"),
        ({"sample": {}}, "/sample", "wrong_type"),
        ({"sample": {"data": {}, "type": "task.eaten"}}, "/sample/type", "unknown_event"),
        ({"sample": {"data": {"due_date": 7}}}, "/sample/data/due_date", "wrong_type"),
        ({"sample": {"data": {}, "previous": {"nam": "x"}}}, "/sample/previous/nam", "unknown_field"),
        ({"object_id": "x", "input": {"a": 1}}, "/input/a", "unknown_field"),
    ],
)
def test_what_cannot_be_tried_is_told_with_its_place(api, automate, body, pointer, code):
    rule = automate(batch(patch(labels=["x"])))
    document = problem(api.post(f"/v1/automations/{rule['id']}/test", json=body), 422)
    assert faults(document)[pointer] == code


# ---- whose rights a trial has ----------------------------------------------------------------------------------------


def test_only_its_user_and_admins_try_a_rule(api, a_project, a_task, a_member, an_admin, as_guest, automate):
    rule = automate(batch(patch(labels=["x"])))
    path, body = f"/v1/automations/{rule['id']}/test", {"object_id": a_task["id"]}
    problem(a_member.client.post(path, json=body), 404)
    problem(as_guest.post(path, json=body), 404)
    assert an_admin.client.post(path, json=body).json()["changes"][0]["data"]["labels"] == ["x"]


def test_a_trial_needs_the_scope_to_run_automations(api, a_project, a_task, automate, key_with):
    rule = automate(batch(patch(labels=["x"])))
    reader = key_with(["automations:write", "tasks:read"])
    problem(reader.post(f"/v1/automations/{rule['id']}/test", json={"object_id": a_task["id"]}), 403)
    runner = key_with(["automations:read", "automations:run", "tasks:read"])
    found = tried(runner, rule, object_id=a_task["id"])
    # What it writes is what the automation may write; nothing of it is kept.
    assert (found["state"], found["limited"]) == ("succeeded", True)
    assert found["changes"][0]["data"]["labels"] == ["x"]


def test_a_trial_reads_nothing_for_somebody_who_may_not(api, a_project, a_task, automate, key_with):
    create(api, "comments", task_id=a_task["id"], body="Not for everybody")
    read = {"id": "found", "method": "GET", "path": f"/comments?task_id={a_task['id']}"}
    rule = automate(batch(read), batch(patch(description='{"$ref": "found.0.body"}')))
    runner = key_with(["automations:run", "automations:read", "tasks:read"])
    path = f"/v1/automations/{rule['id']}/test"
    answer = runner.post(path, json={"object_id": a_task["id"]})
    assert answer.status_code == 200
    assert answer.json()["state"] == "failed"
    assert "Not for everybody" not in answer.text
    assert "Not for everybody" in api.post(path, json={"object_id": a_task["id"]}).text


def test_nobody_tries_a_rule_with_what_they_do_not_see(api, a_project, automate, key_with):
    rule = automate(batch(patch(labels=["x"])))
    elsewhere = create(api, "projects", name="Elsewhere")
    task = a_task_in(api, elsewhere)
    limited = key_with(["*"], project_ids=[a_project["id"]])
    path = f"/v1/automations/{rule['id']}/test"
    problem(limited.post(path, json={"object_id": task["id"]}), 422)
    problem(limited.post(path, json={"event_id": event_about(api, task["id"])["id"]}), 404)


def test_a_trial_does_nothing_of_a_kind_that_its_caller_may_not_read(api, a_task, automate, key_with):
    rule = automate(batch(patch(labels=["x"])), comment("Not for everybody"), on_error="continue")
    runner = key_with(["automations:run", "automations:read", "tasks:read"])
    answer = runner.post(f"/v1/automations/{rule['id']}/test", json={"object_id": a_task["id"]})
    assert "Not for everybody" not in answer.text
    found = answer.json()
    assert found["limited"]
    assert [step["state"] for step in found["timeline"]] == ["succeeded", "failed"]
    assert "comments:write" in found["timeline"][1]["detail"]["problem"]["detail"]


def test_a_rule_whose_key_is_gone_cannot_be_tried(api, a_project, a_task, automate, somebody, server):
    _, key_id, secret = somebody("member")
    with server.client(secret) as client:
        rule = automate({"do": "stop"}, client=client, trigger=MANUAL)
        client.delete(f"/v1/api-keys/{key_id}")
    problem(api.post(f"/v1/automations/{rule['id']}/test", json={"object_id": a_task["id"]}), 409)


# ---- why -------------------------------------------------------------------------------------------------------------


def explained(client: httpx2.Client, automation: Any, event: Any) -> Any:
    response = client.post(f"/v1/automations/{automation['id']}/explain", json={"event_id": event["id"]})
    assert response.status_code == 200, response.text
    return response.json()


def failing(found: Any) -> list[str]:
    return [check["check"] for check in found["checks"] if not check["holds"]]


def test_an_explanation_names_each_check_and_the_run_that_was_started(api, a_project, automate):
    rule = automate(batch(patch(labels=["x"])), condition={"priority": {"$in": ["high", "urgent"]}})
    task = a_task_in(api, a_project, priority="high")
    (run,) = settled(api, rule)
    found = explained(api, rule, event_about(api, task["id"]))
    assert (found["starts"], found["pending"], found["version"]) == (True, False, 1)
    assert failing(found) == []
    assert [check["check"] for check in found["checks"]] == [
        "enabled",
        "types",
        "object",
        "project",
        "rights",
        "condition",
        "loop",
    ]
    assert found["run"] == run


def test_an_explanation_shows_at_which_comparison_a_condition_fails(api, a_project, automate):
    condition = {"$or": [{"priority": "urgent"}, {"$and": [{"name": "A task"}, {"$not": {"labels": "old"}}]}]}
    rule = automate(batch(patch(labels=["x"])), condition=condition)
    task = a_task_in(api, a_project, priority="low", labels=["old"])
    found = explained(api, rule, event_about(api, task["id"]))
    assert (found["starts"], failing(found)) == (False, ["condition"])
    (check,) = (check for check in found["checks"] if check["check"] == "condition")
    first, second = check["tree"]["any"]
    assert (first["field"], first["actual"], first["holds"]) == ("priority", "low", False)
    name, labels = second["all"]
    assert (name["actual"], name["holds"]) == ("A task", True)
    assert (labels["holds"], labels["not"]["actual"], labels["not"]["holds"]) == (False, ["old"], True)


def test_an_explanation_is_by_what_the_rule_said_at_the_time(api, a_project, automate):
    early = a_task_in(api, a_project)
    rule = automate(batch(patch(labels=["x"])), condition={"priority": "urgent"})
    task = a_task_in(api, a_project)
    api.patch(f"/v1/automations/{rule['id']}", json={"condition": None})
    api.patch(f"/v1/automations/{rule['id']}", json={"enabled": False})
    late = a_task_in(api, a_project)
    found = explained(api, rule, event_about(api, task["id"]))
    assert (failing(found), found["version"]) == (["condition"], 1)
    for other in (early, late):
        found = explained(api, rule, event_about(api, other["id"]))
        assert (failing(found), found["version"]) == (["enabled"], None)


@pytest.mark.parametrize(
    ("more", "failed"),
    [
        ({"trigger": {"on": "event", "types": ["comment.*", "task.deleted"]}}, ["types"]),
        ({"trigger": {"on": "event", "types": ["task.*"], "changed": {"status": {}}}}, ["changed"]),
        ({"trigger": MANUAL}, ["enabled", "trigger"]),
    ],
)
def test_an_explanation_tells_what_the_trigger_is_not_about(api, a_project, automate, more, failed):
    rule = automate({"do": "stop"}, **more)
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    found = explained(api, rule, event_about(api, task["id"], "task.updated"))
    assert failing(found) == failed


def test_an_explanation_tells_of_another_project(api, a_project, automate):
    rule = automate({"do": "stop"})
    elsewhere = create(api, "projects", name="Elsewhere")
    found = explained(api, rule, event_about(api, a_task_in(api, elsewhere)["id"]))
    assert failing(found) == ["project"]


def test_an_explanation_tells_of_circles_and_of_what_an_undo_did(api, a_project, automate):
    rule = automate(batch(patch(estimate=3)), trigger=UPDATED)
    task = a_task_in(api, a_project)
    changed = api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    settled(api, rule, 2)
    _, own = sorted(
        api.get("/v1/events", params={"object_id": task["id"], "types": "task.updated"}).json(),
        key=lambda event: event["seq"],
    )
    found = explained(api, rule, own)
    assert (failing(found), found["run"]["state"], found["run"]["reason"]) == (["loop"], "skipped", "loop")
    api.post("/v1/events/revert", json={"request_id": changed.headers["x-request-id"]})
    events = api.get("/v1/events", params={"object_id": task["id"], "types": "task.updated"}).json()
    found = explained(api, rule, max(events, key=lambda event: event["seq"]))
    assert failing(found) == ["origin"]


def test_nothing_is_explained_of_an_event_that_the_caller_does_not_see(api, a_project, an_admin, automate, key_with):
    rule = automate({"do": "stop"})
    event = event_about(api, a_task_in(api, a_project)["id"])
    path = f"/v1/automations/{rule['id']}/explain"
    problem(key_with(["automations:read"]).post(path, json={"event_id": event["id"]}), 404)
    assert explained(an_admin.client, rule, event)["starts"]
    assert explained(key_with(["automations:read", "tasks:read"]), rule, event)["starts"]


def test_what_an_object_held_in_a_project_that_is_not_seen_is_not_found_out(api, a_project, automate, key_with):
    trigger = {**UPDATED, "changed": {"name": {"from": ["Not for everybody"]}}}
    limited = key_with(["*"], project_ids=[a_project["id"]])
    rule = automate({"do": "stop"}, trigger=trigger, client=limited)
    elsewhere = create(api, "projects", name="Elsewhere")
    task = create(api, "tasks", name="Not for everybody", project_id=elsewhere["id"])
    api.patch(f"/v1/tasks/{task['id']}", json={"project_id": a_project["id"], "name": "For all"})
    event = event_about(api, task["id"], "task.updated")
    problem(limited.post(f"/v1/automations/{rule['id']}/explain", json={"event_id": event["id"]}), 403)
    assert "changed" in failing(explained(api, rule, event))
    last = a_task_in(api, a_project)  # later in the log, so that by its explanation the reader has come here
    while explained(api, rule, event_about(api, last["id"]))["pending"]:
        pass
    assert runs_of(api, rule) == []


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [({}, "/event_id", "required"), ({"event_id": 7}, "/event_id", "required"), ({"id": "x"}, "/id", "unknown_field")],
)
def test_what_cannot_be_explained_is_told_with_its_place(api, automate, body, pointer, code):
    rule = automate({"do": "stop"})
    document = problem(api.post(f"/v1/automations/{rule['id']}/explain", json=body), 422)
    assert faults(document)[pointer] == code


# ---- circles ---------------------------------------------------------------------------------------------------------


def warned(client: httpx2.Client, automation: Any) -> Any:
    response = client.get(f"/v1/automations/{automation['id']}/warnings")
    assert response.status_code == 200, response.text
    return response.json()


def test_a_rule_that_may_start_itself_is_warned_of(api, automate):
    rule = automate(batch(patch(labels=["x"])), trigger=UPDATED)
    (found,) = warned(api, rule)
    assert (found["code"], found["pointer"]) == ("possible_circle", "/actions/0/operations/0")
    assert found["automation_ids"] == [rule["id"]]


@pytest.mark.parametrize(
    ("changed", "body"),
    [
        ({"status": {}}, {"labels": ["x"]}),
        ({"status": {"to": ["in_progress"]}}, {"status": "completed"}),
        ({"status": {}, "priority": {}}, {"status": "completed"}),
    ],
)
def test_a_rule_that_sets_something_else_is_not_warned_of(api, automate, changed, body):
    assert warned(api, automate(batch(patch(**body)), trigger={**UPDATED, "changed": changed})) == []


def test_a_circle_through_others_is_told_in_its_order(api, automate):
    by_status = {**UPDATED, "changed": {"status": {"to": ["in_progress"]}}}
    by_comment = {"on": "event", "types": ["comment.created"]}
    one = automate(comment("Begun"), trigger=by_status)
    assert warned(api, one) == []
    path = '/tasks/{"$ref": "event.data.task_id"}'
    other = automate(
        {"do": "if", "condition": {"version": 1}, "then": [batch(patch(path, status="in_progress"))]},
        trigger=by_comment,
    )
    assert [found["automation_ids"] for found in warned(api, one)] == [[other["id"], one["id"]]]
    (found,) = warned(api, other)
    assert (found["pointer"], found["automation_ids"]) == ("/actions/0/then/0/operations/0", [one["id"], other["id"]])
    api.patch(f"/v1/automations/{other['id']}", json={"enabled": False})
    assert warned(api, one) == []


def test_a_circle_through_a_rule_that_is_started_by_name_is_told(api, automate):
    by_hand = automate(batch(patch('/tasks/{"$ref": "now.id"}', labels=["x"])), trigger=MANUAL)
    rule = automate({"do": "run", "automation_id": by_hand["id"]}, trigger=UPDATED)
    (found,) = warned(api, rule)
    assert (found["pointer"], found["automation_ids"]) == ("/actions/0", [by_hand["id"], rule["id"]])


def test_of_rules_that_the_caller_does_not_see_no_more_is_told_than_that_there_is_one(api, a_member, automate):
    automate(
        batch(patch('/tasks/{"$ref": "event.data.task_id"}', labels=["x"])),
        trigger={"on": "event", "types": ["comment.created"]},
    )
    rule = automate(comment("Seen"), trigger={**UPDATED, "changed": {"labels": {}}}, client=a_member.client)
    (found,) = warned(a_member.client, rule)
    assert found["automation_ids"] == [None, rule["id"]]
