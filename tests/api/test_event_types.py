"""The list of event types: everything that can happen, each with a sample."""

from taskade_server.engine import events

from tests.api.asking import listed, problem


def test_every_type_is_listed_with_a_sample(api):
    found = listed(api, "event-types")
    assert [item["name"] for item in found] == list(events.catalogue())
    for item in found:
        assert item["sample"]["type"] == item["name"]
        assert item["summary"] == events.catalogue()[item["name"]].summary
    completed = next(item for item in found if item["name"] == "task.completed")
    assert completed["resource"] == "task"
    assert completed["sample"]["data"]["status"] == "completed"
    assert completed["sample"]["previous"]["status"] == "in_progress"


def test_it_stays_the_same(api):
    first = api.get("/v1/event-types")
    again = api.get("/v1/event-types", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_it_takes_no_parameters_and_a_key(api, server):
    problem(api.get("/v1/event-types", params={"types": "task.*"}), 400, "invalid-query")
    with server.client("") as nobody:
        problem(nobody.get("/v1/event-types"), 401)
