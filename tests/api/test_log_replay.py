"""Replaying the log gives the tables: after all kinds of requests, by several people, also those that fail.

Why again when every run ends with the same check: this one shows which kind of request it was.
"""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from taskade_server.engine import check

from tests.api.asking import create, listed


@pytest.fixture
def replayed(database_of):
    """Asks for the differences between the tables and the replayed log."""

    def ask():
        return database_of.read_sync(check.replay, snapshot=True)

    return ask


def test_a_day_of_work(api, as_member, as_guest, a_member, a_project, replayed):
    project = a_project["id"]
    tasks = [{"name": f"Task {n}", "labels": [f"l{n % 3}"], "custom_fields": {"n": n, "t": str(n)}} for n in range(20)]
    made = create(api, "tasks/bulk", project_id=project, tasks=tasks)
    by_place = [f"/v1/tasks/{task['id']}" for task in made]
    api.patch(by_place[0], json={"custom_fields": {"n": "0", "t": 0, "l": ["a", "b"]}, "labels": [], "name": "Ünïcode"})
    api.patch(by_place[0], json={"custom_fields": {"n": 0, "t": None, "l": ["b"]}, "labels": ["l0", "new"]})
    api.patch(by_place[1], json={"recurrence": "FREQ=DAILY", "due_date": "2024-01-15T10:30:00Z", "estimate": 0.1})
    as_member.post(f"{by_place[1]}/complete")
    as_guest.post(f"{by_place[2]}/move", json={"parent_id": made[3]["id"]})
    create(as_guest, "comments", task_id=made[2]["id"], body="x")
    as_member.post(f"{by_place[3]}/move", json={"project_id": create(as_member, "projects", name="There")["id"]})
    api.request(
        "PATCH", "/v1/tasks/bulk", json={"filter": {"labels": "l1"}, "set": {"priority": "high", "labels": ["x"]}}
    )
    api.request("DELETE", "/v1/tasks/bulk", json={"ids": [made[4]["id"], made[5]["id"]]})
    api.post(f"{by_place[4]}/restore")
    for body in ({"name": ""}, {"status": "done"}, {"assignee": "nobody"}, {"parent_id": made[6]["id"]}):
        api.patch(by_place[6], json=body)
    api.post("/v1/tasks/bulk", json={"project_id": project, "tasks": [{"name": "x"}, {"nam": "x"}]})
    api.patch(f"/v1/projects/{project}", json={"custom_fields": {"a": 1}, "visibility": "private", "color": "red"})
    api.post(f"/v1/projects/{project}/archive")
    template = listed(api, "templates", limit=1)[0]["id"]
    copy = create(api, "projects", name="Copy", template_id=template)["id"]
    api.delete(f"/v1/projects/{copy}")
    api.post(f"/v1/projects/{copy}/restore")
    workspace = create(api, "workspaces", name="x")["id"]
    create(api, f"workspaces/{workspace}/members", user=a_member.id, role="admin")
    api.delete(f"/v1/workspaces/{workspace}/members/{a_member.id}")
    key = create(api, "api-keys", name="x", scopes=["tasks:read"], expires_at=None)["id"]
    api.patch(f"/v1/api-keys/{key}", json={"name": "y", "rate_limit": 5})
    api.delete(f"/v1/api-keys/{key}")
    api.patch(f"/v1/users/{a_member.id}", json={"name": "Renamed", "avatar_url": "https://example.com/a.png"})
    assert replayed() == []


def test_many_at_once(server, api, a_project, replayed):
    """Several clients change the same few tasks, and one after the other wins."""
    tasks = [{"name": str(n)} for n in range(5)]
    paths = [f"/v1/tasks/{task['id']}" for task in create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)]

    def work(seed: int) -> list[int]:
        chance = random.Random(seed)
        with server.client() as client:
            return [step(client, chance, paths, a_project["id"]).status_code for _ in range(25)]

    with ThreadPoolExecutor(6) as pool:
        statuses = [status for answers in pool.map(work, range(6)) for status in answers]
    assert set(statuses) <= {200, 201, 204, 404}, "gone meanwhile is all that may happen"
    assert statuses.count(200) > 50
    assert replayed() == []


def step(client, chance, paths, project):
    path = chance.choice(paths)
    match chance.randrange(6):
        case 0:
            return client.delete(path)
        case 1:
            return client.post(f"{path}/restore")
        case 2:
            return client.post("/v1/tasks", json={"name": "New", "project_id": project, "labels": ["a"]})
        case 3:
            return client.patch(path, json={"labels": chance.sample(["a", "b", "c"], 2)})
        case 4:
            return client.post(f"{path}/{chance.choice(['complete', 'reopen'])}")
    return client.patch(path, json={"custom_fields": {"size": chance.randrange(3)}, "name": str(chance.random())})
