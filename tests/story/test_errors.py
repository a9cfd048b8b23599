"""When things go wrong: what an integration is told, and that following the advice works."""

from tests.story.world import create, listed
from tests.support.processes import free_port


def test_errors_as_an_integration_meets_them(node, server, api, people):
    project = create(api, "projects", name="Errors story")["id"]
    deleted = create(api, "tasks", name="Deleted", project_id=project)["id"]
    assert api.delete(f"/v1/tasks/{deleted}").status_code == 204

    found = node(
        server,
        "errors.mjs",
        project_id=project,
        deleted_task_id=deleted,
        unreachable=f"http://127.0.0.1:{free_port()}/v1",
    )
    check_the_401(found["freshKey"])
    check_the_problems(found["problems"])
    assert found["tasks"] == found["resilient"] == [], "a refused request leaves nothing behind"
    assert (found["notRetried"], found["afterClientError"]) == (404, 1)
    assert (found["noAnswer"], found["attempts"]) == (None, 3)


def check_the_401(fresh_key):
    (refusal,) = fresh_key["seen"]
    assert refusal["status"] == refusal["problem"]["status"] == 401
    assert refusal["challenge"].startswith("Bearer")
    assert refusal["problem"]["code"] == "unauthenticated"
    assert refusal["problem"]["request_id"].startswith("req_")
    assert isinstance(fresh_key["projects"], list)


def check_the_problems(problems):
    """Each names the place and, where there is one, the word that was probably meant."""
    assert {name: problem["status"] for name, problem in problems.items()} == {
        "no such task": 404,
        "no such person": 422,
        "one wrong task of three": 422,
        "a misspelled field": 422,
        "a misspelled filter": 400,
        "a misspelled operator": 400,
    }
    places = {
        name: [error.get("pointer") or error.get("parameter") for error in problem["errors"]]
        for name, problem in problems.items()
        if name != "no such task"
    }
    assert places["no such person"] == ["/assignee"]
    assert sorted(places["one wrong task of three"]) == ["/tasks/1/assignee", "/tasks/2/name"]
    assert places["a misspelled field"] == ["/priorty"]
    assert places["a misspelled filter"] == ["asignee"]
    assert places["a misspelled operator"] == ["due_date[$gt3]"]
    assert "priority" in problems["a misspelled field"]["errors"][0]["detail"]
    assert "assignee" in problems["a misspelled filter"]["errors"][0]["detail"]
    assert "$gte" in problems["a misspelled operator"]["errors"][0]["detail"]


def test_a_rate_limit_tells_how_long_to_wait(node, start_server):
    # Slow enough that one caller uses it up on a busy machine, too.
    server = start_server("--rate-burst", "60", rate_limit="30/minute")
    found = node(server, "limits.mjs")
    # The whole burst, and one more for every two seconds in which it was spent.
    assert 60 <= found["served"] <= 61 + found["seconds"] / 2
    assert 1000 <= found["retryAfter"] <= 2000
    assert (found["problem"]["status"], found["problem"]["code"]) == (429, "quota-exceeded")
    assert found["headers"]["x-ratelimit-limit"] == "60"
    assert found["headers"]["x-ratelimit-remaining"] == "0"
    assert isinstance(found["projects"], list)


def test_go(go, server, api, people):
    project = create(api, "projects", name="Go story")["id"]
    found = go(server, "errors", project_id=project)
    for name in ("no key", "wrong key"):
        assert found[name]["status"] == 401
        assert found[name]["challenge"].startswith("Bearer")
    refusal = found["no such person"]
    assert refusal["type"].split(";")[0] == "application/problem+json"
    assert [error["pointer"] for error in refusal["problem"]["errors"]] == ["/assignee"]
    assert listed(api, "tasks", project_id=project) == []
