"""Several operations at once, and writes that are sent until they are answered, with the clients people use."""

import json
import uuid

import pytest
import requests

from tests.story.world import create, listed


@pytest.fixture
def prepared(api):
    """A project with a task to complete and one to delete."""
    project = create(api, "projects", name="Batch story")["id"]
    tasks = [create(api, "tasks", name=name, project_id=project)["id"] for name in ("To do", "Superfluous")]
    return project, *tasks


def operations(project, task, other):
    """The example's three."""
    return [
        {"method": "PUT", "path": f"/tasks/{task}", "body": {"status": "completed"}},
        {"method": "POST", "path": "/tasks", "body": {"name": "Follow-up task", "project_id": project}},
        {"method": "DELETE", "path": f"/tasks/{other}"},
    ]


def check_the_three(api, prepared, results):
    project, task, _ = prepared
    assert [result["status"] for result in results] == [200, 201, 204]
    assert (results[0]["body"]["id"], results[0]["body"]["status"]) == (task, "completed")
    assert results[0]["body"]["completed_at"] is not None
    assert results[2]["body"] is None
    left = listed(api, "tasks", project_id=project)
    assert [item["name"] for item in left] == ["To do", "Follow-up task"]
    assert left == [results[0]["body"], results[1]["body"]]


def test_with_axios_and_fetch(node, server, api, prepared):
    project, task, other = prepared
    found = node(server, "batch.mjs", project_id=project, task_id=task, other_task_id=other)
    first, again = found["once"]
    assert (first["status"], again["replayed"]) == (201, "true")
    assert again["body"] == first["body"]
    assert api.delete(f"/v1/tasks/{first['body']['id']}").status_code == 204
    check_the_three(api, prepared, found["batchUpdate"]["results"])

    failed = found["failed"]
    assert (failed["code"], failed["status"], failed["pointer"]) == ("batch-failed", 404, "/operations/1")
    assert listed(api, "tasks", name="Never") == []

    made, inside, seen = found["launch"]["body"]["results"]
    assert (made["id"], inside["body"]["project_id"]) == ("project", made["body"]["id"])
    assert seen["body"] == [{"name": "First"}]


def test_with_curl(shell, server, api, prepared):
    body = json.dumps({"operations": operations(*prepared)})
    printed = shell(
        f"curl -s -X POST {server.url}/v1/batch -H 'Authorization: Bearer {server.key}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
    check_the_three(api, prepared, json.loads(printed)["results"])


def test_with_python(server, api, prepared):
    session = requests.Session()
    session.headers.update({"Authorization": f"Bearer {server.key}", "Idempotency-Key": str(uuid.uuid4())})
    address, body = f"{server.url}/v1/batch", {"operations": operations(*prepared)}
    first = session.post(address, json=body, timeout=120)
    check_the_three(api, prepared, first.json()["results"])
    again = session.post(address, data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=120)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    assert len(listed(api, "tasks", project_id=prepared[0])) == 2


def test_with_go(go, server, api, prepared):
    project, task, other = prepared
    found = go(server, "batch", project_id=project, task_id=task, other_task_id=other)
    check_the_three(api, prepared, found["results"])
    assert found["replayed"] == "true"
