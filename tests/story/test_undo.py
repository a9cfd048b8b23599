"""An integration went wild: who looks sees what it did, previews the undoing of its last hour, and undoes just that."""

import httpx2

from tests.story.world import create, listed


def test_an_integration_went_wild(server, api):
    project = create(api, "projects", name="Launch")["id"]
    names = ["Press kit", "Pricing page", "Launch party"]
    tasks = [create(api, "tasks", name=name, project_id=project, labels=["launch"]) for name in names]
    remark = create(api, "comments", task_id=tasks[0]["id"], body="Logos are in the drive.")
    party = create(api, "comments", task_id=tasks[2]["id"], body="On the roof.")
    key = create(api, "api-keys", name="Importer", scopes=["tasks:write", "projects:write", "comments:write"])

    with server.client(key["secret"]) as importer:
        go_wild(importer, project, tasks)
    # Somebody goes on working meanwhile.
    assert api.patch(f"/v1/tasks/{tasks[0]['id']}", json={"priority": "high"}).status_code == 200

    # What did it do? Its events say so.
    last = listed(api, "events", order="desc", limit=5)
    assert {event["actor"]["api_key_id"] for event in last[1:]} == {key["id"]}

    hour = {"api_key_id": key["id"], "since": "-1h"}
    preview = api.post("/v1/events/revert", json=hour, params={"dry_run": "true"}).json()
    restored = {change["object_id"] for change in preview["changes"] if change["type"].endswith(".restored")}
    assert restored == {tasks[2]["id"], party["id"]}
    assert len(listed(api, "tasks", project_id=project)) == 40, "a preview changes nothing"

    receipt = api.post("/v1/events/revert", json=hour)
    assert receipt.status_code == 200, receipt.text
    assert receipt.json()["reverted"] == preview["reverted"]
    now = {task["id"]: task for task in listed(api, "tasks", project_id=project)}
    assert [now[task["id"]]["name"] for task in tasks] == names and len(now) == 3
    assert all(task["labels"] == ["launch"] and task["status"] == "pending" for task in now.values())
    assert now[tasks[0]["id"]]["priority"] == "high", "what a person did stays"
    assert api.get(f"/v1/comments/{remark['id']}").json()["body"] == "Logos are in the drive."
    assert api.get(f"/v1/projects/{project}").json()["name"] == "Launch"
    # And it was the importer that was wrong after all? No: then the undoing is undone.
    again = api.post("/v1/events/revert", json={"request_id": receipt.headers["x-request-id"]})
    assert again.status_code == 200, again.text
    assert api.get(f"/v1/projects/{project}").json()["name"] == "IMPORTED"


def go_wild(importer: httpx2.Client, project: str, tasks: list[dict[str, str]]) -> None:
    """Rename, complete, label, delete and create, in one go and one by one."""
    path = [f"/v1/tasks/{task['id']}" for task in tasks]
    assert importer.patch(f"/v1/projects/{project}", json={"name": "IMPORTED"}).status_code == 200
    assert importer.patch(path[0], json={"name": "???", "labels": []}).status_code == 200
    assert importer.patch(path[1], json={"name": "???", "labels": ["imported"]}).status_code == 200
    assert importer.post(f"{path[1]}/complete").status_code == 200
    assert importer.delete(path[2]).status_code == 204
    rubbish = [{"name": f"row {n}", "project_id": project} for n in range(38)]
    assert importer.post("/v1/tasks/bulk", json={"tasks": rubbish}).status_code == 201
