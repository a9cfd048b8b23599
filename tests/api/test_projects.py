"""Projects: their workflow, their own fields, their members, and what goes with them into the archive and the trash."""

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, names, places, problem

TYPES = ["list", "board", "table", "calendar", "gantt", "mindmap", "orgchart"]
DEFAULT_STATUSES = [
    {"key": "pending", "name": "Pending", "category": "todo"},
    {"key": "in_progress", "name": "In progress", "category": "doing"},
    {"key": "completed", "name": "Completed", "category": "done"},
]


def change(client, project, **body):
    response = client.patch(f"/v1/projects/{project['id']}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


# ---- creating and changing -------------------------------------------------------------------------------------------


def test_a_name_is_enough(api, me, home):
    response = api.post("/v1/projects", json={"name": "Customer Onboarding"})
    project = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/projects/{project['id']}"
    assert api.get(response.headers["location"]).json() == project
    made = {"id", "created_at", "updated_at"}
    assert {name: value for name, value in project.items() if name not in made} == {
        "workspace_id": home,
        "name": "Customer Onboarding",
        "description": None,
        "type": "list",
        "visibility": "workspace",
        "color": None,
        "start_date": None,
        "due_date": None,
        "archived_at": None,
        "template_id": None,
        "created_by": me["id"],
        "version": 1,
        "deleted_at": None,
        "statuses": DEFAULT_STATUSES,
        "fields": [],
        "custom_fields": {},
    }


@pytest.mark.parametrize("kind", TYPES)
def test_kinds_of_projects(api, kind):
    project = create(api, "projects", name="x", type=kind)
    assert project["type"] == kind
    assert listed(api, "projects", id=project["id"], type=kind) == [project]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_leaves_what_it_does_not_mention(api, method):
    project = create(
        api, "projects", name="x", description="Kept", custom_fields={"kept": "a", "gone": 1}, type="board"
    )
    body = {"due_date": "2024-02-01", "custom_fields": {"gone": None, "status": "active"}, "updated_at": "2030-01-01"}
    changed = api.request(method, f"/v1/projects/{project['id']}", json=body).json()
    assert changed["custom_fields"] == {"kept": "a", "status": "active"}
    differ = {name for name in project if project[name] != changed[name]}
    assert differ == {"due_date", "custom_fields", "updated_at", "version"}
    assert changed["updated_at"] < "2030"


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({}, "/name", "required"),
        ({"name": "x", "type": "bord"}, "/type", "not_allowed"),
        ({"name": "x", "colour": "red"}, "/colour", "unknown_field"),
        ({"name": "x", "visibility": "public"}, "/visibility", "not_allowed"),
        ({"name": "x", "start_date": "2024-02-02", "due_date": "2024-02-01"}, "/due_date", "invalid_range"),
        ({"name": "x", "template_id": "tmpl_00000000000000000000000000"}, "/template_id", "unknown_reference"),
        ({"name": "x", "members": "ana"}, "/members", "wrong_type"),
        ({"name": "x", "members": [{"user": "nobody", "role": "viewer"}]}, "/members/0/user", "unknown_reference"),
        ({"name": "x", "members": [{"user": "me", "role": "owner"}]}, "/members/0/role", "not_allowed"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_wrong_is_told_with_its_place(api, heads, body, place, code):
    before = heads()
    refused = problem(api.post("/v1/projects", json=body), 422)
    assert (places(refused), codes(refused)) == ([place], [code])
    assert heads() == before


# ---- the workflow ----------------------------------------------------------------------------------------------------

TODO, DOING, DONE = ({"key": key, "category": key} for key in ("todo", "doing", "done"))


@pytest.mark.parametrize(
    ("statuses", "place", "code"),
    [
        ([], "/statuses", "invalid_workflow"),
        ([TODO, DOING], "/statuses", "invalid_workflow"),
        ([DONE], "/statuses", "invalid_workflow"),
        ([TODO, DONE, TODO], "/statuses/2/key", "duplicate"),
        ([TODO, {"key": "done"}], "/statuses/1/category", "required"),
        ([TODO, DONE, {"category": "doing"}], "/statuses/2/key", "required"),
        ([TODO, DONE | {"key": "a b"}], "/statuses/1/key", "invalid_format"),
        ([TODO, DONE | {"color": "red"}], "/statuses/1/color", "unknown_field"),
        (["todo", "done"], "/statuses/0", "wrong_type"),
        ("todo,done", "/statuses", "wrong_type"),
    ],
    ids=str,
)
def test_a_workflow_has_a_beginning_and_an_end(api, statuses, place, code):
    refused = problem(api.post("/v1/projects", json={"name": "x", "statuses": statuses}), 422)
    assert (place, code) in list(zip(places(refused), codes(refused), strict=True))


def test_a_status_in_use_stays(api):
    project = create(api, "projects", name="x", statuses=[TODO, DOING, DONE])
    task = create(api, "tasks", name="x", project_id=project["id"], status="doing")
    for statuses in ([TODO, DONE], [TODO, DOING | {"category": "done"}, DONE]):
        refused = problem(api.patch(f"/v1/projects/{project['id']}", json={"statuses": statuses}), 422)
        assert (places(refused), codes(refused)) == (["/statuses"], ["status_in_use"])
    change(api, project, statuses=[DOING | {"name": "Being done", "category": "todo"}, TODO, DONE])
    api.patch(f"/v1/tasks/{task['id']}", json={"status": "done"})
    assert change(api, project, statuses=[TODO, DONE])["statuses"] == [TODO | {"name": None}, DONE | {"name": None}]


def test_a_task_in_the_trash_uses_no_status_and_comes_back_to_one_that_is_there(api):
    project = create(api, "projects", name="x", statuses=[TODO, DOING, DONE])
    task = create(api, "tasks", name="x", project_id=project["id"], status="doing")
    api.delete(f"/v1/tasks/{task['id']}")
    change(api, project, statuses=[TODO, DONE])
    api.post(f"/v1/tasks/{task['id']}/restore")
    back = api.patch(f"/v1/tasks/{task['id']}", json={"name": "Renamed"})
    assert back.status_code == 200, "a status that is gone does not lock the task"
    assert back.json()["status"] in ("todo", "doing")


@pytest.mark.parametrize(
    ("fields", "place", "code"),
    [
        ([{"key": "a", "type": "number"}, {"key": "a", "type": "text"}], "/fields/1/key", "duplicate"),
        ([{"key": "a", "type": "select"}], "/fields/0/options", "required"),
        ([{"key": "a", "type": "colour"}], "/fields/0/type", "not_allowed"),
        ([{"type": "text"}], "/fields/0/key", "required"),
    ],
    ids=str,
)
def test_declarations_of_fields_are_checked(api, fields, place, code):
    refused = problem(api.post("/v1/projects", json={"name": "x", "fields": fields}), 422)
    assert (places(refused), codes(refused)) == ([place], [code])


# ---- the archive and the trash ---------------------------------------------------------------------------------------


def test_a_project_is_archived_and_made_active_again(api, a_project, expect_events):
    path = f"/v1/projects/{a_project['id']}"
    with expect_events("project.updated", "project.archived"):
        archived = api.post(f"{path}/archive").json()
        assert api.post(f"{path}/archive").json() == archived, "once more changes nothing"
    assert archived["archived_at"]
    assert listed(api, "projects", id=a_project["id"], archived_at="null") == []
    assert listed(api, "projects", id=a_project["id"]) == [archived], "it is still there"
    active = api.post(f"{path}/unarchive").json()
    assert active["archived_at"] is None
    assert api.post(f"{path}/unarchive").json() == active


def test_a_deleted_project_takes_its_tasks_and_brings_them_back(api, a_project, a_task):
    before = create(api, "tasks", name="Thrown away before", project_id=a_project["id"])
    create(api, "tasks", name="Below", parent_id=a_task["id"])
    create(api, "comments", task_id=a_task["id"], body="A remark")
    api.delete(f"/v1/tasks/{before['id']}")
    assert api.delete(f"/v1/projects/{a_project['id']}").status_code == 204
    problem(api.get(f"/v1/projects/{a_project['id']}"), 404)
    problem(api.get(f"/v1/tasks/{a_task['id']}"), 404)
    problem(api.post("/v1/tasks", json={"name": "x", "project_id": a_project["id"]}), 422)
    assert api.post(f"/v1/projects/{a_project['id']}/restore").status_code == 200
    assert names(api, "tasks", project_id=a_project["id"]) == ["A task", "Below"]
    assert len(listed(api, "comments", project_id=a_project["id"])) == 1
    assert names(api, "tasks", project_id=a_project["id"], deleted="true") == ["Thrown away before"]


# ---- members ---------------------------------------------------------------------------------------------------------


def test_members_are_added_changed_and_removed(api, a_project, a_guest):
    members = f"projects/{a_project['id']}/members"
    response = api.post(f"/v1/{members}", json={"user": a_guest.email, "role": "viewer"})
    member = response.json()
    assert (response.status_code, member["user"], member["role"]) == (201, a_guest.id, "viewer")
    assert member["project_id"] == a_project["id"]
    assert a_guest.client.get(f"/v1/projects/{a_project['id']}").status_code == 200
    assert api.patch(f"/v1/{members}/{a_guest.id}", json={"role": "editor"}).json()["role"] == "editor"
    assert [entry["role"] for entry in listed(api, members)] == ["editor"]
    assert api.post(f"/v1/{members}", json={"user": a_guest.id, "role": "commenter"}).json()["id"] == member["id"]
    assert [entry["role"] for entry in listed(api, members, role="commenter")] == ["commenter"]
    assert api.delete(f"/v1/{members}/{a_guest.id}").status_code == 204
    assert listed(api, members) == []
    problem(a_guest.client.get(f"/v1/projects/{a_project['id']}"), 404)
    problem(api.delete(f"/v1/{members}/{a_guest.id}"), 404)
    problem(api.patch(f"/v1/{members}/{a_guest.id}", json={"role": "viewer"}), 404)


def test_members_come_with_the_project(api, a_guest, a_member):
    entries = [{"user": a_guest.id, "role": "viewer"}, {"user": a_member.email, "role": "editor"}]
    project = create(api, "projects", name="x", members=entries)
    found = listed(api, f"projects/{project['id']}/members", include="user")
    assert [(entry["user"]["id"], entry["role"]) for entry in found] == [
        (a_guest.id, "viewer"),
        (a_member.id, "editor"),
    ]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"role": "viewer"}, "/user"),
        ({"user": "nobody", "role": "viewer"}, "/user"),
        ({"user": "me", "role": "admin"}, "/role"),
        ({"user": "me", "rol": "viewer"}, "/rol"),
        ({"user": "me", "role": ""}, "/role"),
        ({"user": "me", "role": "viewer", "created_at": "2024-01-15T10:30:00.000Z"}, "/created_at"),
    ],
    ids=str,
)
def test_what_is_no_member(api, a_project, body, place):
    refused = problem(api.post(f"/v1/projects/{a_project['id']}/members", json=body), 422)
    assert place in places(refused)


def test_a_private_project_is_its_members_and_the_admins_alone(api, as_member, a_member, an_admin):
    secret = create(as_member, "projects", name="Secret", visibility="private")
    path = f"/v1/projects/{secret['id']}"
    assert [entry["user"] for entry in listed(as_member, f"projects/{secret['id']}/members")] == [a_member.id]
    assert an_admin.client.get(path).status_code == 200
    others = create(api, "projects", name="The owner's own", visibility="private")
    problem(as_member.get(f"/v1/projects/{others['id']}"), 404)
    change(api, others, visibility="workspace")
    assert as_member.get(f"/v1/projects/{others['id']}").status_code == 200
    change(api, others, visibility="private")
    problem(as_member.get(f"/v1/projects/{others['id']}"), 404)
    create(api, f"projects/{others['id']}/members", user=a_member.id, role="viewer")
    assert as_member.get(f"/v1/projects/{others['id']}").status_code == 200
    problem(as_member.patch(f"/v1/projects/{others['id']}", json={"name": "x"}), 403)


def test_projects_are_created_in_another_workspace_by_its_id(api):
    workspace = create(api, "workspaces", name="Elsewhere")["id"]
    project = create(api, "projects", name="x", workspace_id=workspace)
    assert project["workspace_id"] == workspace
    assert listed(api, "projects", workspace_id=workspace) == [project]
    problem(api.post("/v1/projects", json={"name": "x", "workspace_id": ids.new("ws")}), 404)
