"""Which events each verb emits, and what they say: webhooks, streams, automations and the audit read nothing else."""

import json

import pytest
from taskade_server.engine import log
from taskade_server.kit import ids

from tests.api.asking import create, problem


def send(client, method, path, **body):
    response = client.request(method, f"/v1/{path}", **({"json": body} if body else {}))
    assert response.status_code < 300, response.text
    return response


@pytest.fixture
def things(api, a_project, a_task):
    """Something of each kind, by the name of its resource; deleting the workspace is left to a test of its own."""
    return {
        "workspaces": create(api, "workspaces", name="A workspace")["id"],
        "projects": a_project["id"],
        "tasks": a_task["id"],
        "comments": create(api, "comments", task_id=a_task["id"], body="A remark")["id"],
        "templates": create(api, "templates", name="A template")["id"],
        "users": create(api, "users", name="Somebody", email=f"{ids.new('user')}@example.com")["id"],
        "api-keys": create(api, "api-keys", name="A key")["id"],
    }


# ---- which -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", ["projects", "templates", "tasks"])
def test_the_life_of_a_thing(api, a_project, expect_events, resource):
    kind = resource[:-1]
    inside = {"project_id": a_project["id"]} if resource == "tasks" else {}
    with expect_events(f"{kind}.created"):
        path = f"{resource}/{create(api, resource, name='x', **inside)['id']}"
    with expect_events(f"{kind}.updated"):
        send(api, "PATCH", path, name="y")
    with expect_events():
        send(api, "PUT", path, name="y")
        send(api, "GET", path)
    with expect_events(f"{kind}.deleted"):
        send(api, "DELETE", path)
    with expect_events(f"{kind}.restored"):
        send(api, "POST", f"{path}/restore")


def test_the_life_of_a_workspace(api, expect_events, home):
    with expect_events("workspace.created", "member.added", *["template.created"] * 6):
        workspace = create(api, "workspaces", name="x")["id"]
    with expect_events("workspace.updated"):
        send(api, "PATCH", f"workspaces/{workspace}", settings={"theme": "dark"})
    with expect_events("workspace.deleted"):
        send(api, "DELETE", f"workspaces/{workspace}")
    with expect_events("workspace.restored"):
        send(api, "POST", f"workspaces/{workspace}/restore")


def test_the_life_of_a_user(api, expect_events):
    with expect_events("user.created", "member.added"):
        user = create(api, "users", name="x", email=f"{ids.new('user')}@example.com")["id"]
    with expect_events("user.updated"):
        send(api, "PATCH", f"users/{user}", name="y")
    with expect_events("user.deleted"):
        send(api, "DELETE", f"users/{user}")
    with expect_events("user.restored"):
        send(api, "POST", f"users/{user}/restore")


def test_the_life_of_a_key(api, expect_events):
    with expect_events("api_key.created"):
        key = create(api, "api-keys", name="x")["id"]
    with expect_events("api_key.updated"):
        send(api, "PATCH", f"api-keys/{key}", name="y")
    with expect_events("api_key.deleted"):
        send(api, "DELETE", f"api-keys/{key}")


def test_the_life_of_a_comment(api, a_task, expect_events):
    with expect_events("comment.created"):
        comment = create(api, "comments", task_id=a_task["id"], body="x")["id"]
    with expect_events("comment.updated"):
        send(api, "PATCH", f"comments/{comment}", body="y")
    with expect_events("comment.deleted"):
        send(api, "DELETE", f"comments/{comment}")
    with expect_events("comment.restored"):
        send(api, "POST", f"comments/{comment}/restore")


@pytest.mark.parametrize("place", ["workspaces", "projects"])
def test_members(api, things, a_member, expect_events, place):
    members = f"{place}/{things[place]}/members"
    one, other = ("guest", "member") if place == "workspaces" else ("viewer", "editor")
    with expect_events("member.added"):
        create(api, members, user=a_member.id, role=one)
    with expect_events("member.updated"):
        send(api, "PATCH", f"{members}/{a_member.id}", role=other)
    with expect_events():
        send(api, "PATCH", f"{members}/{a_member.id}", role=other)
        create(api, members, user=a_member.id, role=other)
    with expect_events("member.removed"):
        send(api, "DELETE", f"{members}/{a_member.id}")


def test_leaving_a_workspace_is_leaving_its_projects(api, a_member, expect_events):
    workspace = create(api, "workspaces", name="x")["id"]
    project = create(api, "projects", name="x", workspace_id=workspace)["id"]
    create(api, f"workspaces/{workspace}/members", user=a_member.id)
    create(api, f"projects/{project}/members", user=a_member.id, role="editor")
    with expect_events("member.removed", "member.removed"):
        send(api, "DELETE", f"workspaces/{workspace}/members/{a_member.id}")


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"name": "y"}, []),
        ({"status": "in_progress"}, []),
        ({"status": "completed"}, ["task.completed"]),
        ({"assignee": "me"}, ["task.assigned"]),
        ({"assignee": "me", "status": "completed"}, ["task.completed", "task.assigned"]),
        ({"position": "b"}, ["task.moved"]),
        ({"priority": "high", "labels": ["a"], "custom_fields": {"a": 1}}, []),
    ],
    ids=str,
)
def test_what_a_change_of_a_task_means(api, a_task, expect_events, change, more):
    with expect_events("task.updated", *more):
        send(api, "PATCH", f"tasks/{a_task['id']}", **change)


def test_verbs_of_a_task(api, a_project, a_task, expect_events):
    path = f"tasks/{a_task['id']}"
    other = create(api, "tasks", name="Another", project_id=a_project["id"])["id"]
    with expect_events("task.updated", "task.completed"):
        send(api, "POST", f"{path}/complete")
    with expect_events():
        send(api, "POST", f"{path}/complete")
    with expect_events("task.updated", "task.reopened"):
        send(api, "POST", f"{path}/reopen")
    with expect_events("task.updated", "task.moved"):
        send(api, "POST", f"{path}/move", after=other)
    with expect_events("task.updated", "task.moved"):
        send(api, "POST", f"{path}/move", parent_id=other)


def test_a_new_task_may_be_somebodys_and_done_already(api, a_project, expect_events):
    inside = {"project_id": a_project["id"]}
    with expect_events("task.created", "task.assigned"):
        create(api, "tasks", name="x", assignee="me", **inside)
    with expect_events("task.created", "task.completed"):
        create(api, "tasks", name="x", status="completed", **inside)


def test_giving_a_task_back_assigns_it_to_nobody(api, a_project, expect_events):
    task = create(api, "tasks", name="x", project_id=a_project["id"], assignee="me")
    with expect_events("task.updated"):
        send(api, "PATCH", f"tasks/{task['id']}", assignee=None)


def test_a_recurring_task_and_the_next(api, a_project, expect_events):
    task = create(api, "tasks", name="x", project_id=a_project["id"], assignee="me", recurrence="FREQ=DAILY")
    with expect_events("task.updated", "task.completed", "task.created", "task.assigned"):
        send(api, "POST", f"tasks/{task['id']}/complete")


def test_what_goes_along_has_events_of_its_own(api, a_project, a_task, expect_events):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    create(api, "comments", task_id=below["id"], body="x")
    there = create(api, "projects", name="There")["id"]
    with expect_events("task.updated", "task.moved", "task.updated", "task.moved", "comment.updated"):
        send(api, "POST", f"tasks/{a_task['id']}/move", project_id=there)
    with expect_events("task.deleted", "task.deleted", "comment.deleted"):
        send(api, "DELETE", f"tasks/{a_task['id']}")
    with expect_events("task.restored", "task.restored", "comment.restored"):
        send(api, "POST", f"tasks/{a_task['id']}/restore")
    with expect_events("project.deleted", "task.deleted", "task.deleted", "comment.deleted"):
        send(api, "DELETE", f"projects/{there}")
    with expect_events("project.restored", "task.restored", "task.restored", "comment.restored"):
        send(api, "POST", f"projects/{there}/restore")


def test_projects(api, a_project, a_member, expect_events):
    with expect_events("project.created", "member.added"):
        create(api, "projects", name="x", members=[{"user": a_member.id, "role": "viewer"}])
    with expect_events("project.created", "member.added"):
        create(api, "projects", name="x", visibility="private")
    path = f"projects/{a_project['id']}"
    with expect_events("project.updated", "project.archived"):
        send(api, "POST", f"{path}/archive")
    with expect_events("project.updated", "project.unarchived"):
        send(api, "POST", f"{path}/unarchive")


def test_a_project_from_a_template(api, expect_events):
    tasks = [{"name": "a", "subtasks": [{"name": "b"}]}, {"name": "c"}]
    template = create(api, "templates", name="x", tasks=tasks)["id"]
    with expect_events("project.created", *["task.created"] * 3):
        create(api, "projects", name="x", template_id=template)


def test_the_first_task_without_a_project_makes_the_inbox(api, invite, expect_events):
    newcomer = invite("member")
    with expect_events("project.created", "member.added", "task.created"):
        create(newcomer.client, "tasks", name="x")
    with expect_events("task.created"):
        create(newcomer.client, "tasks", name="y")


def test_reading_and_what_is_refused_emit_nothing(api, as_viewer, things, a_task, expect_events):
    with expect_events():
        for resource, object_id in things.items():
            send(api, "GET", f"{resource}/{object_id}")
            send(api, "GET", resource)
            send(api, "POST", f"{resource}/query", limit=1)
        problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": ""}), 422)
        problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}, headers={"If-Match": '"9"'}), 412)
        problem(as_viewer.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}), 403)
        problem(api.post("/v1/tasks", json={"id": a_task["id"], "name": "x"}), 409)


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_an_event_says_what_happened_to_what_by_whom(api, me, home, a_project, a_task, expect_events):
    with expect_events("task.updated", "task.completed") as seen:
        response = send(api, "PATCH", f"tasks/{a_task['id']}", status="completed", priority="high")
    updated, completed = seen
    assert ids.is_id(updated.id, "evt")
    assert updated.id < completed.id
    for event in seen:
        assert (event.resource, event.object_id) == ("task", a_task["id"])
        assert (event.workspace_id, event.project_id) == (home, a_project["id"])
        assert (event.actor_id, event.request_id) == (me["id"], response.headers["x-request-id"])
        assert ids.is_id(event.key_id or "", "key")
        assert event.data == response.text, "the same bytes as the answer"
    before = json.loads(updated.previous or "")
    assert before == {name: a_task[name] for name in ("status", "priority", "completed_at", "updated_at", "version")}
    assert response.headers["commit-seq"] == f"{home}:{completed.seq}"


def test_a_new_thing_has_no_past(api, a_project, expect_events):
    with expect_events("task.created") as seen:
        task = create(api, "tasks", name="x", project_id=a_project["id"])
    assert seen[0].previous is None
    assert json.loads(seen[0].data) == task


def test_each_workspace_has_a_log_of_its_own(api, database_of, home):
    workspace = create(api, "workspaces", name="x")["id"]
    response = api.post("/v1/projects", json={"name": "x", "workspace_id": workspace})
    events = database_of.read_sync(lambda tx: log.read_after(tx, workspace, 0))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert response.headers["commit-seq"] == f"{workspace}:{len(events)}"
    assert {event.workspace_id for event in events} == {workspace}


def test_no_secret_is_ever_in_the_log(api, database_of, home):
    secret = create(api, "api-keys", name="x")["secret"]
    rows = database_of.read_sync(
        lambda tx: tx.all("SELECT data, previous FROM events WHERE resource = 'api_key' AND workspace_id = ?", (home,))
    )
    assert rows
    assert secret not in str(rows)
    assert secret.split("_")[2] not in str(rows)
