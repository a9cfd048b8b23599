"""Filters of webhooks over HTTP: whatever becomes of the people that they name, no event is lost without a word."""

import json
import time

import pytest

from tests.api.asking import codes, create, everything, places, problem
from tests.support.listening import Listener
from tests.support.receiver import Receiver
from tests.support.websocket import WebSocket


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


@pytest.fixture
def hook(api, a_project, receiver):
    """Makes a webhook about `a_project`, which is gone afterwards."""
    made = []

    def make(document, **more):
        body = {"url": receiver.url, "events": ["task.*"], "project_id": a_project["id"], "filter": document, **more}
        made.append(create(api, "webhooks", **body))
        return made[-1]

    yield make
    for webhook in made:
        api.delete(f"/v1/webhooks/{webhook['id']}")


@pytest.fixture
def lea(invite, api):
    """Somebody who can leave, with a handle."""
    person = invite("member")
    handle = f"lea-{person.id[-12:]}"
    assert api.patch(f"/v1/users/{person.id}", json={"handle": handle}).status_code == 200
    return person, handle


def add(api, project, **body):
    return create(api, "tasks", **{"name": "A task", "project_id": project["id"], **body})["id"]


def told(receiver, number):
    """The ids of the tasks that events arrived about."""
    return {found.event["data"]["id"] for found in receiver.wait(number)}


def leave(api, home, person):
    assert api.delete(f"/v1/workspaces/{home}/members/{person.id}").status_code == 204


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_a_filter_is_kept_with_the_ids_of_the_people_it_names(api, hook, lea, me):
    person, handle = lea
    made = hook({"$or": [{"assignee": handle}, {"assignee": {"$in": [person.email, "me"]}}]})
    kept = {"$or": [{"assignee": person.id}, {"assignee": {"$in": [person.id, me["id"]]}}]}
    assert made["filter"] == kept
    path = f"/v1/webhooks/{made['id']}"
    assert api.patch(path, json={"filter": {"created_by": "me"}}).json()["filter"] == {"created_by": me["id"]}
    read = api.get(path).json()
    again = api.put(path, json=read)
    assert (again.status_code, again.json()["version"]) == (200, read["version"])


def test_a_handle_that_nobody_has_is_refused(api, a_project):
    body = {"url": "https://example.com/", "project_id": a_project["id"], "filter": {"assignee": "nobody-at-all"}}
    refused = problem(api.post("/v1/webhooks", json=body), 422)
    assert (codes(refused), places(refused)) == (["unknown_reference"], ["/filter/assignee"])


def test_other_events_must_still_suit_the_filter(api, hook):
    made = hook({"priority": "urgent"})
    refused = problem(api.patch(f"/v1/webhooks/{made['id']}", json={"events": ["comment.*"]}), 422)
    assert places(refused) == ["/filter/priority"]


def test_a_filter_that_is_too_expensive_is_refused_when_it_is_made_or_changed(api, hook, a_project):
    document = {"$or": [{f"custom_fields.a{number}": {"$contains": "zz"}} for number in range(190)]}
    body = {"url": "https://example.com/", "project_id": a_project["id"], "filter": document}
    for refused in (
        problem(api.post("/v1/webhooks", json=body), 422),
        problem(api.patch(f"/v1/webhooks/{hook({'priority': 'low'})['id']}", json={"filter": document}), 422),
    ):
        assert (codes(refused), places(refused)) == (["too_expensive"], ["/filter"])
        assert "190" in refused["errors"][0]["detail"] and "50" in refused["errors"][0]["detail"]


# ---- whoever leaves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ne", "not", "or"])
def test_a_filter_that_names_somebody_who_has_left_goes_on(form, api, hook, lea, a_project, home, receiver):
    person, _ = lea
    document = {
        "ne": {"assignee": {"$ne": person.id}},
        "not": {"$not": {"created_by": person.id}},
        "or": {"$or": [{"assignee": person.id}, {"priority": "urgent"}]},
    }[form]
    made = hook(document, events=["task.updated"])
    task, theirs = add(api, a_project), add(api, a_project, assignee=person.id)
    leave(api, home, person)
    expected = {task, theirs} if form in ("not", "or") else {task}
    for name in (task, theirs):
        body = {"priority": "urgent"} if name == task else {"description": "Left over."}
        assert api.patch(f"/v1/tasks/{name}", json=body).status_code == 200
    assert told(receiver, len(expected)) == expected
    state = api.get(f"/v1/webhooks/{made['id']}/health").json()
    assert state["disabled_reason"] is None
    # And it can be made like that, and changed.
    assert hook(document)["filter"] == document
    assert api.patch(f"/v1/webhooks/{made['id']}", json={"filter": document, "description": "x"}).status_code == 200


def test_a_filter_means_whoever_had_the_handle_when_it_was_written(api, hook, lea, invite, a_project, receiver):
    person, handle = lea
    hook({"$or": [{"assignee": handle}, {"priority": "urgent"}]}, events=["task.created"])
    assert api.patch(f"/v1/users/{person.id}", json={"handle": f"{handle}-2"}).status_code == 200
    other = invite("member")
    assert api.patch(f"/v1/users/{other.id}", json={"handle": handle}).status_code == 200
    add(api, a_project, assignee=other.id)
    expected = {add(api, a_project, assignee=person.id), add(api, a_project, priority="urgent")}
    assert told(receiver, 2) == expected
    time.sleep(0.2)
    assert told(receiver, 2) == expected, "not those of who has the handle now"


def test_a_filter_that_names_somebody_who_was_deleted_goes_on(api, hook, lea, a_project, receiver):
    person, _ = lea
    hook({"$or": [{"assignee": person.id}, {"priority": "urgent"}]}, events=["task.updated"])
    task = add(api, a_project)
    assert api.delete(f"/v1/users/{person.id}").status_code == 204
    api.patch(f"/v1/tasks/{task}", json={"priority": "urgent"})
    assert told(receiver, 1) == {task}


def test_a_project_in_the_trash_may_stand_in_a_filter(api, hook, a_project, receiver):
    other = create(api, "projects", name="Over")["id"]
    hook({"project_id": {"$in": [other, a_project["id"]]}}, events=["task.created"])
    assert api.delete(f"/v1/projects/{other}").status_code == 204
    assert told(receiver, 0) is not None
    task = add(api, a_project)
    assert told(receiver, 1) == {task}


def test_the_tasks_of_somebody_who_has_left_are_found_and_handed_over(api, lea, a_project, home):
    person, handle = lea
    tasks = {add(api, a_project, assignee=person.id) for _ in range(2)}
    leave(api, home, person)
    for given in (
        {"assignee": person.id},
        {"assignee[$in]": f"{person.id},me"},
        {"filter": f'{{"assignee":"{person.id}"}}'},
    ):
        found = api.get("/v1/tasks", params={"project_id": a_project["id"], **given})
        assert found.status_code == 200 and {task["id"] for task in found.json()} == tasks, given
    query = {"filter": {"assignee": person.id, "project_id": a_project["id"]}}
    assert {task["id"] for task in api.post("/v1/tasks/query", json=query).json()} == tasks
    assert codes(problem(api.get("/v1/tasks", params={"assignee": handle}), 400)) == ["unknown_reference"]
    document = f'{{"assignee": "{person.id}"}}'
    told_of = everything(api, "events", types="task.*", project_id=a_project["id"], filter=document)
    assert {event["data"]["id"] for event in told_of} == tasks
    changed = api.patch("/v1/tasks/bulk", json={**query, "set": {"assignee": None}})
    assert changed.status_code == 200
    assert api.get("/v1/tasks", params={"assignee": person.id, "project_id": a_project["id"]}).json() == []


# ---- other readers of the log ----------------------------------------------------------------------------------------

EXPENSIVE = {"$or": [{f"custom_fields.a{number}": {"$contains": "zz"}} for number in range(190)]}


def test_a_stream_whose_filter_names_somebody_who_has_left_can_be_opened_again(server, api, lea, a_project, home):
    person, _ = lea
    leave(api, home, person)
    document = json.dumps({"$or": [{"assignee": person.id}, {"priority": "urgent"}]})
    stream = Listener(server.url, server.key, project_id=a_project["id"], types="task.*", filter=document)
    try:
        stream.until_type("ready")
        task = add(api, a_project, priority="urgent")
        assert stream.until_type("task.created").data["data"]["id"] == task
    finally:
        stream.close()


def test_a_stream_with_a_filter_that_is_too_expensive_is_refused(api, heads):
    given = {"types": "task.*", "filter": json.dumps(EXPENSIVE)}
    refused = problem(api.get("/v1/events/stream", params=given), 400)
    assert codes(refused) == ["too_expensive"] and "190" in refused["errors"][0]["detail"]
    assert api.get("/v1/events", params=given).status_code == 200, "a page may ask more: it ends sooner"


def test_a_subscription_with_a_filter_that_is_too_expensive_is_refused(server, api):
    cases = [
        ({"id": "a", "events": ["task.*"], "filter": EXPENSIVE}, "too_expensive"),
        ({"id": "b", "query": {"resource": "tasks", "filter": EXPENSIVE}}, "too_expensive"),
        ({"id": "c", "query": {"resource": "tasks", "q": " ".join(f"w{n}" for n in range(101))}}, "too_many"),
    ]  # fmt: skip
    with WebSocket(server.url, server.key) as socket:
        for count, (said, code) in enumerate(cases, start=1):
            socket.send(type="subscribe", **said)
            assert codes(socket.until_type("error", count)["problem"]) == [code]
