"""GET /events: what happened, page by page or by waiting, and never more than the caller may see."""

import threading
import time

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, everything, listed, places, problem


def seqs(response):
    assert response.status_code == 200, response.text
    return [event["seq"] for event in response.json()]


def link(response):
    """The path of the next page."""
    header = response.headers.get("link", "")
    return header[header.index("/v1/") : header.index(">")] if header else ""


@pytest.fixture
def six(api, a_project):
    """Six events in a project: its creation, three tasks, and the completion of the last."""
    tasks = [create(api, "tasks", name=f"Task {number}", project_id=a_project["id"]) for number in range(3)]
    assert api.post(f"/v1/tasks/{tasks[-1]['id']}/complete", json={}).status_code == 200
    return everything(api, "events", project_id=a_project["id"])


def test_an_event_has_all_that_one_needs_to_know(api, me, a_project):
    before = int(api.get("/v1/events", params={"after": "latest"}).headers["next-after"])
    response = api.post("/v1/tasks", json={"name": "Ring the bell", "project_id": a_project["id"]})
    (event,) = listed(api, "events", after=before, project_id=a_project["id"])
    assert event["type"] == "task.created"
    assert event["data"] == response.json()
    assert response.headers["commit-seq"] == f"{event['workspace_id']}:{event['seq']}"
    assert event["actor"] == {"type": "user", "id": me["id"], "api_key_id": event["actor"]["api_key_id"]}
    assert event["request_id"] == response.headers["x-request-id"]
    assert event["previous"] is None and event["origin"] is None
    assert api.get(f"/v1/events/{event['id']}").json() == event


def test_an_unknown_event_is_not_there(api, outsider, six):
    problem(api.get(f"/v1/events/{ids.new('evt')}"), 404)
    problem(outsider.get(f"/v1/events/{six[0]['id']}"), 404)
    problem(api.get(f"/v1/events/{six[0]['id']}", params={"fields": "id"}), 400)


def test_pages_lead_through_the_log_without_gap_or_overlap(api, a_project, six):
    path, found = f"/v1/events?project_id={a_project['id']}&limit=2&after={six[0]['seq'] - 1}", []
    for _ in range(10):
        response = api.get(path)
        found += response.json()
        if not link(response):
            break
        path = link(response)
    assert found == six
    types = [event["type"] for event in six]
    assert types == ["project.created", *["task.created"] * 3, "task.updated", "task.completed"]
    assert [event["seq"] for event in six] == sorted(event["seq"] for event in six)


def test_newest_first(api, a_project, six):
    where = {"project_id": a_project["id"]}
    newest = [event["seq"] for event in reversed(six)]
    first = api.get("/v1/events", params={**where, "order": "desc", "limit": 4})
    assert seqs(first) == newest[:4]
    assert "next-after" not in first.headers
    assert seqs(api.get(link(first))) == newest[4:]
    assert seqs(api.get("/v1/events", params={**where, "before": newest[1]})) == newest[2:]
    between = {**where, "before": newest[0], "after": newest[3]}
    assert seqs(api.get("/v1/events", params=between)) == newest[1:3][::-1]


@pytest.mark.parametrize("types, expected", [
    ("task.created", 3), ("task.*", 5), ("project.*,task.completed", 2), ("*", 6), (["project.*", "task.updated"], 2),
])  # fmt: skip
def test_types_are_named_or_meant_by_patterns(api, a_project, six, types, expected):
    assert len(everything(api, "events", project_id=a_project["id"], types=types)) == expected
    assert len(everything(api, "events", project_id=a_project["id"], **{"types[]": types})) == expected


def test_events_of_one_object_and_by_what_it_is(api, a_project, six):
    done = six[-1]["data"]["id"]
    assert [event["type"] for event in listed(api, "events", object_id=done)] == [
        "task.created",
        "task.updated",
        "task.completed",
    ]
    where = {"project_id": a_project["id"], "types": "task.*"}
    assert len(everything(api, "events", **where, filter='{"status": "completed"}')) == 2
    assert len(everything(api, "events", **where, filter='{"name": {"$prefix": "Task"}}')) == 5


def test_who_sees_nothing_still_gets_on(api, outsider, as_guest, a_project, six):
    hidden = create(api, "projects", name="Not for guests")["id"]
    create(api, "tasks", name="Nor this", project_id=hidden)
    response = as_guest.get("/v1/events", params={"after": six[-1]["seq"]})
    told = response.json()
    assert not [event for event in told if hidden in (event["data"]["id"], event["data"].get("project_id"))]
    assert int(response.headers["next-after"]) >= six[-1]["seq"] + 2
    assert listed(outsider, "events", object_id=six[1]["data"]["id"]) == []


def test_scopes_decide_what_is_told(key_with, a_project, six):
    reader = key_with(["projects:read"])
    assert {event["type"] for event in everything(reader, "events", project_id=a_project["id"])} == {"project.created"}


def test_latest_is_from_now_on(api):
    response = api.get("/v1/events", params={"after": "latest"})
    assert response.json() == [] and not link(response)
    create(api, "projects", name="New")
    after = response.headers["next-after"]
    assert [event["type"] for event in listed(api, "events", after=after)] == ["project.created"]


def test_a_long_poll_is_answered_by_the_event_it_waits_for(api, a_project, home):
    after = api.get("/v1/events", params={"after": "latest"}).headers["next-after"]
    answers = []

    def wait() -> None:
        where = {"after": f"{home}:{after}", "types": "task.completed", "project_id": a_project["id"], "wait": 30}
        answers.append(api.get("/v1/events", params=where))

    waiting = threading.Thread(target=wait)
    waiting.start()
    task = create(api, "tasks", name="Not yet", project_id=a_project["id"])["id"]
    time.sleep(0.2)
    assert not answers, "another type does not end it"
    api.post(f"/v1/tasks/{task}/complete", json={})
    waiting.join(20)
    (event,) = answers[0].json()
    assert (event["type"], event["data"]["id"]) == ("task.completed", task)


def test_a_long_poll_ends_with_nothing_and_a_place_to_go_on(api, a_project):
    where = {"after": "latest", "types": "task.restored", "project_id": a_project["id"]}
    before = int(api.get("/v1/events", params=where).headers["next-after"])
    created = create(api, "tasks", name="Of no interest", project_id=a_project["id"])
    response = api.get("/v1/events", params={**where, "after": before, "wait": 1})
    assert response.json() == [] and created
    assert int(response.headers["next-after"]) > before


def test_faults_are_named(api, outsider, home, six, a_project):
    def refused(**given):
        return problem(api.get("/v1/events", params=given), 400, "invalid-query")

    document = refused(typs="task.*")
    assert places(document) == ["typs"] and "types" in document["errors"][0]["detail"]
    document = refused(types="task.complete")
    assert codes(document) == ["unknown_event"] and "task.completed" in document["errors"][0]["detail"]
    for name, value in (("limit", 0), ("limit", 1001), ("wait", 61), ("wait", -1), ("limit", "many")):
        document = refused(**{name: value})
        assert (places(document), codes(document)) == ([name], ["out_of_range"])
    assert codes(refused(types="")) == ["unknown_event"]
    assert codes(refused(workspace_id="")) == codes(refused(order="")) == ["wrong_type"]
    assert codes(refused(order="newest")) == ["not_allowed"]
    assert codes(refused(after="evt_1")) == ["invalid_format"]
    assert codes(refused(workspace_id=ids.new("ws"))) == ["unknown_reference"]
    assert codes(refused(project_id=ids.new("proj"))) == ["unknown_reference"]
    assert codes(refused(object_id="42")) == ["invalid_format"]
    assert codes(refused(order="desc", wait=5)) == codes(refused(after=1, before=3, wait=5)) == ["not_allowed"]
    assert codes(refused(filter='{"status": "pending"}')) == ["not_allowed"]
    assert codes(refused(types="task.*", filter="{")) == ["malformed_json"]
    assert codes(refused(types="task.*", filter='{"statsu": "pending"}')) == ["unknown_parameter"]
    assert codes(refused(types="task.*", filter='{"due_date": {"$lt": "today"}}')) == ["not_allowed"]
    theirs = outsider.get("/v1/users/me").json()["workspace_id"]
    assert codes(refused(workspace_id=home, after=f"{theirs}:1")) == ["other_workspace"]
    foreign = problem(outsider.get("/v1/events", params={"workspace_id": home}), 400)
    assert codes(foreign) == ["unknown_reference"]
    assert codes(problem(outsider.get("/v1/events", params={"project_id": a_project["id"]}), 400)) == [
        "unknown_reference"
    ]


def test_a_log_that_no_longer_reaches_back_says_so(api, database_of):
    workspace = create(api, "workspaces", name="With a short memory")["id"]
    head = int(api.get("/v1/events", params={"workspace_id": workspace, "after": "latest"}).headers["next-after"])
    assert head > 3
    forget = "UPDATE log_heads SET first_seq = 4 WHERE workspace_id = ?"
    database_of.write_sync(lambda tx: tx.run(forget, (workspace,)))
    gone = problem(api.get("/v1/events", params={"workspace_id": workspace, "after": 2}), 410, "gone")
    assert (gone["first_seq"], gone["seq"]) == (4, head)
    kept = api.get("/v1/events", params={"workspace_id": workspace, "after": 3})
    assert seqs(kept) == seqs(api.get("/v1/events", params={"workspace_id": workspace})) == [*range(4, head + 1)]


def test_events_in_a_batch(api, a_project, six):
    # One answer looks through a part of a long log only, so it begins where the project does.
    path = f"/events?project_id={a_project['id']}&types=task.completed&after={six[0]['seq'] - 1}"
    operations = [
        {"method": "GET", "path": path},
        {"method": "GET", "path": f"/events/{six[0]['id']}"},
    ]
    results = api.post("/v1/batch", json={"operations": operations}).json()["results"]
    assert [result["status"] for result in results] == [200, 200]
    assert results[0]["body"] == [six[-1]] and results[1]["body"] == six[0]
    waits = [{"method": "GET", "path": f"{path}&wait=5"}]
    assert problem(api.post("/v1/batch", json={"operations": waits}), 400)["code"] == "batch-failed"


def test_a_position_that_is_not_from_this_log_is_gone(api):
    """As after a restore from an older backup: whoever has it has to begin anew."""
    for given in ({"after": 10**9}, {"before": 10**9 + 2}, {"after": "7-1"}):
        document = problem(api.get("/v1/events", params=given), 410, "gone")
        assert {"first_seq", "seq"} <= document.keys()
    assert api.get("/v1/events", params={"after": "0-1"}).status_code == 200
