"""Prefer: return=minimal (RFC 7240): who does not need the answer's body is not sent it."""

import pytest
from taskade_server.kit import ids

from tests.api.asking import create, listed, problem

MINIMAL = {"Prefer": "return=minimal"}


def test_creating(api, a_project):
    response = api.post("/v1/tasks", json={"name": "x", "project_id": a_project["id"]}, headers=MINIMAL)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["preference-applied"] == "return=minimal"
    assert response.headers["content-length"] == "0"
    assert response.headers["etag"] == '"1"'
    assert "commit-seq" in response.headers
    assert api.get(response.headers["location"]).json()["name"] == "x"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_changing(method, api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    response = api.request(method, path, json={"name": "New"}, headers=MINIMAL)
    assert (response.status_code, response.content, response.headers["etag"]) == (204, b"", '"2"')
    assert api.get(path).json()["name"] == "New"


def test_verbs_bulk_and_members(api, a_project, a_task, a_member):
    members = f"projects/{a_project['id']}/members"
    for method, path, body, status in (
        ("POST", f"tasks/{a_task['id']}/complete", None, 204),
        ("POST", "tasks/bulk", {"project_id": a_project["id"], "tasks": [{"name": "a"}]}, 201),
        ("PATCH", "tasks/bulk", {"ids": [a_task["id"]], "set": {"name": "b"}}, 204),
        ("POST", members, {"user": a_member.id, "role": "viewer"}, 201),
        ("PATCH", f"{members}/{a_member.id}", {"role": "editor"}, 204),
        ("DELETE", "tasks/bulk", {"ids": [a_task["id"]]}, 204),
    ):
        response = api.request(method, f"/v1/{path}", headers=MINIMAL, **({} if body is None else {"json": body}))
        assert (response.status_code, response.content) == (status, b""), path
        assert response.headers["preference-applied"] == "return=minimal"


def test_a_deletion_never_had_a_body(api, a_task):
    response = api.delete(f"/v1/tasks/{a_task['id']}", headers=MINIMAL)
    assert (response.status_code, response.headers.get("preference-applied")) == (204, None)


def test_the_secret_of_a_key_is_given_all_the_same(api):
    response = api.post("/v1/api-keys", json={"name": "x"}, headers=MINIMAL)
    assert response.status_code == 201
    assert response.json()["secret"].startswith("tsk_")
    assert "preference-applied" not in response.headers


def test_errors_and_reads_keep_their_bodies(api, a_task):
    problem(api.post("/v1/tasks", json={"name": ""}, headers=MINIMAL), 422)
    for path in (f"tasks/{a_task['id']}", "tasks?limit=1", "users/me"):
        response = api.get(f"/v1/{path}", headers=MINIMAL)
        assert response.json() and "preference-applied" not in response.headers
    assert api.post("/v1/tasks/query", json={"limit": 1}, headers=MINIMAL).json()


@pytest.mark.parametrize("value", ["return=minimal", 'return="minimal"', "Return = Minimal", "wait=10, return=minimal"])
def test_spellings(value, api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    assert api.patch(path, json={"name": ids.new("task")}, headers={"Prefer": value}).status_code == 204


@pytest.mark.parametrize("value", ["return=representation", "respond-async", "handling=strict", "minimal", ""])
def test_other_preferences_change_nothing(value, api, a_task):
    response = api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}, headers={"Prefer": value})
    assert (response.status_code, response.json()["name"]) == (200, "x")
    assert "preference-applied" not in response.headers


def test_a_dry_run_without_a_body(api, a_task):
    response = api.patch(f"/v1/tasks/{a_task['id']}?dry_run=true", json={"name": "x"}, headers=MINIMAL)
    assert (response.status_code, response.headers["dry-run"], response.content) == (204, "true", b"")
    assert listed(api, "tasks", id=a_task["id"]) == [a_task]


def test_members_that_were_asked_for_are_not_sent_either(api):
    project = create(api, "projects", name="x")["id"]
    response = api.patch(f"/v1/projects/{project}?include=tasks&fields=id", json={"name": "y"}, headers=MINIMAL)
    assert (response.status_code, response.content) == (204, b"")
