"""Workspaces: a team's space with its settings, its people and everything in it."""

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, names, places, problem


@pytest.fixture
def a_workspace(api):
    return create(api, "workspaces", name="API Development Workspace", description="For custom API integrations")


def test_who_makes_a_workspace_owns_it(as_member, a_member):
    response = as_member.post("/v1/workspaces", json={"name": "Mine", "description": "My own"})
    workspace = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/workspaces/{workspace['id']}"
    assert as_member.get(response.headers["location"]).json() == workspace
    assert (workspace["name"], workspace["description"], workspace["settings"]) == ("Mine", "My own", {})
    assert (workspace["workspace_id"], workspace["version"]) == (workspace["id"], 1)
    [member] = listed(as_member, f"workspaces/{workspace['id']}/members")
    assert (member["user"], member["role"], member["project_id"]) == (a_member.id, "owner", None)


def test_a_workspace_comes_with_templates(api, a_workspace):
    found = listed(api, "templates", workspace_id=a_workspace["id"])
    assert len(found) >= 3
    assert all(template["tasks"] and template["project"]["statuses"] for template in found)


def test_settings_merge(api, a_workspace):
    path = f"/v1/workspaces/{a_workspace['id']}"
    first = {"theme": "dark", "notifications": True, "views": {"board": {"columns": 3}, "list": 1}}
    assert api.put(path, json={"settings": first}).json()["settings"] == first
    merged = api.put(path, json={"settings": {"theme": None, "views": {"board": {"rows": 2}}, "sizes": [1, 2]}}).json()
    assert merged["settings"] == {
        "notifications": True,
        "views": {"board": {"columns": 3, "rows": 2}, "list": 1},
        "sizes": [1, 2],
    }
    assert merged["name"] == a_workspace["name"]
    assert api.put(path, json={"settings": None}).json()["settings"] == {}


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({}, "/name", "required"),
        ({"name": ""}, "/name", "too_short"),
        ({"name": "x" * 201}, "/name", "too_long"),
        ({"name": "x", "settings": []}, "/settings", "wrong_type"),
        ({"name": "x", "settings": {"a": "x" * 33_000}}, "/settings", "too_long"),
        ({"name": "x", "plan": "pro"}, "/plan", "unknown_field"),
        ({"name": "x", "id": "ws_1"}, "/id", "invalid_id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_told_with_its_place(api, heads, body, place, code):
    before = heads()
    refused = problem(api.post("/v1/workspaces", json=body), 422)
    assert (places(refused), codes(refused)) == ([place], [code])
    assert heads() == before


def test_each_sees_the_workspaces_they_belong_to(api, as_member, outsider, a_workspace, a_member):
    for client, seen in ((api, True), (as_member, False), (outsider, False)):
        assert (a_workspace["id"] in [entry["id"] for entry in listed(client, "workspaces", limit=1000)]) is seen
        assert client.get(f"/v1/workspaces/{a_workspace['id']}").status_code == (200 if seen else 404)
    create(api, f"workspaces/{a_workspace['id']}/members", user=a_member.id, role="guest")
    assert names(as_member, "workspaces", id=a_workspace["id"]) == [a_workspace["name"]]


def test_members_are_added_changed_and_removed(api, a_workspace, as_member, a_member):
    members = f"workspaces/{a_workspace['id']}/members"
    added = create(api, members, user=a_member.email)
    assert (added["user"], added["role"]) == (a_member.id, "member")
    project = create(as_member, "projects", name="x", workspace_id=a_workspace["id"])
    assert api.put(f"/v1/{members}/{a_member.id}", json={"role": "guest"}).json()["role"] == "guest"
    problem(as_member.get(f"/v1/projects/{project['id']}"), 404)
    assert api.patch(f"/v1/{members}/{a_member.email}", json={"role": "admin"}).json()["role"] == "admin"
    assert as_member.patch(f"/v1/workspaces/{a_workspace['id']}", json={"name": "By an admin"}).status_code == 200
    assert [entry["user"] for entry in listed(api, members, role="admin")] == [a_member.id]
    assert api.delete(f"/v1/{members}/{a_member.id}").status_code == 204
    problem(as_member.get(f"/v1/workspaces/{a_workspace['id']}"), 404)
    problem(api.patch(f"/v1/{members}/{a_member.id}", json={"role": "guest"}), 404)


def test_members_in_the_trash_can_be_removed(api, a_workspace, invite, home):
    members = f"workspaces/{a_workspace['id']}/members"
    gone = invite("member")
    create(api, members, user=gone.id, role="member")
    assert api.delete(f"/v1/users/{gone.id}").status_code == 204
    assert gone.id in [entry["user"] for entry in listed(api, members)]
    for refused in (
        api.patch(f"/v1/{members}/{gone.email}", json={"role": "guest"}),
        api.post(f"/v1/{members}", json={"user": gone.id, "role": "guest"}),
        api.delete(f"/v1/workspaces/{home}/members/{gone.id}"),  # nobody could restore the user then
    ):
        assert "restore the user first" in problem(refused, 409)["detail"]
    assert api.delete(f"/v1/{members}/{gone.id}").status_code == 204
    assert gone.id not in [entry["user"] for entry in listed(api, members)]
    assert api.post(f"/v1/users/{gone.id}/restore").status_code == 200


def test_whom_a_workspace_has_invited_it_can_have_back(api, a_workspace, invite, a_member, as_member):
    members = f"workspaces/{a_workspace['id']}/members"
    former = invite("member", workspace_id=a_workspace["id"])
    elsewhere = create(as_member, "workspaces", name="Elsewhere")["id"]
    for name in (former.id, former.email.upper()):
        assert api.delete(f"/v1/{members}/{former.id}").status_code == 204
        problem(api.get(f"/v1/users/{former.id}"), 404)
        refused = as_member.post(f"/v1/workspaces/{elsewhere}/members", json={"user": name})
        assert places(problem(refused, 422)) == ["/user"]
        assert create(api, members, user=name, role="guest")["user"] == former.id
        assert api.get(f"/v1/users/{former.id}").status_code == 200


def test_an_owner_in_the_trash_is_not_the_last_owner(api, a_workspace, invite, me):
    members = f"/v1/workspaces/{a_workspace['id']}/members"
    other = invite("admin")
    assert api.post(members, json={"user": other.id, "role": "owner"}).status_code == 201
    assert api.delete(f"/v1/users/{other.id}").status_code == 204
    problem(api.delete(f"{members}/{me['id']}"), 409)
    assert api.post(f"/v1/users/{other.id}/restore").status_code == 200
    assert api.delete(f"{members}/{me['id']}").status_code == 204


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"role": "guest"}, "/user"),
        ({"user": "nobody"}, "/user"),
        ({"user": "me", "role": "editor"}, "/role"),
        ({"user": "me", "rights": "all"}, "/rights"),
        ([], ""),
    ],
    ids=str,
)
def test_what_is_no_member(api, a_workspace, body, place):
    refused = problem(api.post(f"/v1/workspaces/{a_workspace['id']}/members", json=body), 422)
    assert place in places(refused)


def test_a_deleted_workspace_takes_everything_along_and_brings_it_back(api, a_workspace):
    inside = {"workspace_id": a_workspace["id"]}
    project = create(api, "projects", name="Inside", **inside)["id"]
    task = create(api, "tasks", name="Inside", project_id=project)["id"]
    path = f"/v1/workspaces/{a_workspace['id']}"
    assert api.delete(path).status_code == 204
    for gone in (path, f"/v1/projects/{project}", f"/v1/tasks/{task}"):
        problem(api.get(gone), 404)
    assert a_workspace["id"] in [entry["id"] for entry in listed(api, "workspaces", deleted="true", limit=1000)]
    problem(api.post("/v1/projects", json={"name": "x", **inside}), 404)
    problem(api.post("/v1/tasks", json={"name": "x", "project_id": project}), 422)
    assert api.post(f"{path}/restore").json()["deleted_at"] is None
    assert names(api, "projects", **inside) == ["Inside"]
    assert api.get(f"/v1/tasks/{task}").status_code == 200


def test_a_key_whose_home_is_gone_works_elsewhere(server, api, home, invite):
    """The default workspace is where one was invited to; without it, the next one takes its place."""
    workspace = create(api, "workspaces", name="A home")["id"]
    someone = invite("member", workspace_id=workspace)
    create(api, f"workspaces/{home}/members", user=someone.id, role="member")
    assert create(someone.client, "projects", name="x")["workspace_id"] == workspace
    api.delete(f"/v1/workspaces/{workspace}")
    assert create(someone.client, "projects", name="x")["workspace_id"] == home


def test_who_belongs_nowhere_is_told_what_to_do(api, invite):
    workspace = create(api, "workspaces", name="A home")["id"]
    someone = invite("member", workspace_id=workspace)
    api.delete(f"/v1/workspaces/{workspace}/members/{someone.id}")
    assert listed(someone.client, "projects") == []
    assert someone.client.get("/v1/users/me").json()["id"] == someone.id
    for resource in ("projects", "tasks", "templates"):
        refused = problem(someone.client.post(f"/v1/{resource}", json={"name": "x"}), 422)
        assert "workspace" in refused["errors"][0]["detail"]
    assert create(someone.client, "workspaces", name="A new beginning")["name"] == "A new beginning"


def test_clients_may_choose_the_id(api):
    wanted = ids.new("ws")
    assert create(api, "workspaces", name="x", id=wanted)["id"] == wanted
    assert codes(problem(api.post("/v1/workspaces", json={"name": "x", "id": wanted}), 409)) == ["id_in_use"]
