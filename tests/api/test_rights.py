"""One door per right: what restricts a person or a key cannot be lifted by that person or key.

Why apart from the matrix of permissions: each of these takes several requests that are allowed one by one.
"""

from typing import Any

import pytest
from taskade_server.domain.identity import MAX_WORKSPACES_BY_OTHERS
from taskade_server.kit import ids, time

from tests.api.asking import codes, create, everything, listed, problem


def restricted(api: Any, person: Any, role: str) -> tuple[str, str]:
    """A project of everybody in which somebody has a role, and a task in it."""
    project = create(api, "projects", name="Restricted", members=[{"user": person.id, "role": role}])["id"]
    return project, create(api, "tasks", name="A task", project_id=project)["id"]


# ---- roles in a project ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "commenter"])
@pytest.mark.parametrize("who", ["me", "id"])
def test_a_restricted_member_who_leaves_a_project_is_no_editor(role, who, api, a_member):
    project, task = restricted(api, a_member, role)
    client = a_member.client
    refused = problem(client.delete(f"/v1/projects/{project}/members/{'me' if who == 'me' else a_member.id}"), 403)
    assert "editor" in refused["detail"]
    problem(client.patch(f"/v1/tasks/{task}", json={"name": "Mine now"}), 403)
    problem(client.delete(f"/v1/projects/{project}"), 403)


def test_a_viewer_cannot_leave_by_batch_or_by_undoing_the_membership_either(api, a_member):
    project, task = restricted(api, a_member, "viewer")
    client = a_member.client
    leave = {"method": "DELETE", "path": f"/projects/{project}/members/me"}
    edit = {"method": "PATCH", "path": f"/tasks/{task}", "body": {"name": "Mine now"}}
    problem(client.post("/v1/batch", json={"operations": [leave, edit]}), 403, "batch-failed")
    (added,) = everything(api, "events", types="member.added", project_id=project)
    problem(client.post(f"/v1/events/{added['id']}/revert"), 403)
    problem(client.patch(f"/v1/tasks/{task}", json={"name": "Mine now"}), 403)


def test_a_viewer_cannot_undo_being_made_a_viewer(api, a_member):
    project, task = restricted(api, a_member, "editor")
    api.patch(f"/v1/projects/{project}/members/{a_member.id}", json={"role": "viewer"})
    (changed,) = everything(api, "events", types="member.updated", project_id=project)
    problem(a_member.client.post(f"/v1/events/{changed['id']}/revert"), 403)
    problem(a_member.client.patch(f"/v1/projects/{project}/members/me", json={"role": "editor"}), 403)
    problem(a_member.client.post(f"/v1/projects/{project}/members", json={"user": "me", "role": "editor"}), 403)
    problem(a_member.client.patch(f"/v1/tasks/{task}", json={"name": "Mine now"}), 403)


def test_an_editor_ends_a_restricting_membership_for_a_viewer(api, a_member):
    project, task = restricted(api, a_member, "viewer")
    assert api.delete(f"/v1/projects/{project}/members/{a_member.id}").status_code == 204
    assert a_member.client.patch(f"/v1/tasks/{task}", json={"name": "Allowed"}).status_code == 200


def test_whom_leaving_takes_all_access_from_may_leave(api, a_member, a_guest):
    private = create(
        api, "projects", name="Private", visibility="private", members=[{"user": a_member.id, "role": "viewer"}]
    )["id"]
    assert a_member.client.delete(f"/v1/projects/{private}/members/me").status_code == 204
    problem(a_member.client.get(f"/v1/projects/{private}"), 404)
    project, _ = restricted(api, a_guest, "viewer")
    assert a_guest.client.delete(f"/v1/projects/{project}/members/me").status_code == 204
    problem(a_guest.client.get(f"/v1/projects/{project}"), 404)


@pytest.mark.parametrize("person", ["a_member", "a_guest"])
def test_a_commenter_made_viewer_cannot_touch_comments_any_more(person, api, request):
    who = request.getfixturevalue(person)
    project, task = restricted(api, who, "commenter")
    kept, gone = (create(who.client, "comments", task_id=task, body="Mine")["id"] for _ in range(2))
    assert who.client.delete(f"/v1/comments/{gone}").status_code == 204
    api.patch(f"/v1/projects/{project}/members/{who.id}", json={"role": "viewer"})
    problem(who.client.post("/v1/comments", json={"task_id": task, "body": "x"}), 403)
    problem(who.client.patch(f"/v1/comments/{kept}", json={"body": "x"}), 403)
    problem(who.client.delete(f"/v1/comments/{kept}"), 403)
    problem(who.client.post(f"/v1/comments/{gone}/restore"), 403)
    api.patch(f"/v1/projects/{project}/members/{who.id}", json={"role": "commenter"})
    assert who.client.patch(f"/v1/comments/{kept}", json={"body": "Again"}).status_code == 200


# ---- the owner of a workspace, and power over other people -----------------------------------------------------------


def test_nobody_else_deletes_or_renames_the_owner_of_another_workspace(api, home, invite, an_admin):
    theirs = invite("member")
    workspace = create(theirs.client, "workspaces", name="Theirs")["id"]
    for admin in (api, an_admin.client):
        problem(admin.delete(f"/v1/users/{theirs.id}"), 403)
        problem(admin.patch(f"/v1/users/{theirs.id}", json={"email": "taken@example.com"}), 403)
        problem(admin.patch(f"/v1/users/{theirs.id}", json={"handle": "taken"}), 403)
    assert theirs.client.get(f"/v1/workspaces/{workspace}").status_code == 200
    assert api.delete(f"/v1/workspaces/{home}/members/{theirs.id}").status_code == 204


def test_a_leaver_who_is_taken_back_is_in_nobodys_power(api, home, invite):
    leaver = invite("member")
    assert leaver.client.delete(f"/v1/workspaces/{home}/members/me").status_code == 204
    problem(api.delete(f"/v1/users/{leaver.id}"), 404)
    create(api, f"workspaces/{home}/members", user=leaver.id, role="guest")
    refused = problem(api.delete(f"/v1/users/{leaver.id}"), 403)
    assert f"DELETE /v1/workspaces/{home}/members/{leaver.id}" in refused["detail"]
    problem(api.patch(f"/v1/users/{leaver.id}", json={"email": "taken@example.com"}), 403)
    assert leaver.client.patch(f"/v1/users/{leaver.id}", json={"name": "Still mine"}).status_code == 200


def test_somebody_in_another_workspace_is_in_nobodys_power_who_does_not_administer_that(api, home, invite, an_admin):
    theirs, other = invite("member"), invite("member")
    workspace = create(other.client, "workspaces", name="Another")["id"]
    create(other.client, f"workspaces/{workspace}/members", user=theirs.id, role="guest")
    for admin in (api, an_admin.client):
        refused = problem(admin.delete(f"/v1/users/{theirs.id}"), 403)
        assert f"DELETE /v1/workspaces/{home}/members/{theirs.id}" in refused["detail"]
    assert theirs.client.delete(f"/v1/workspaces/{workspace}/members/me").status_code == 204
    assert an_admin.client.patch(f"/v1/users/{theirs.id}", json={"name": "Renamed"}).status_code == 200


def test_an_admin_still_changes_deletes_and_restores_whom_the_workspace_invited(api, home, an_admin):
    user = create(api, "users", name="Hired", email=f"{ids.new('user')}@example.com")["id"]
    assert an_admin.client.patch(f"/v1/users/{user}", json={"name": "Renamed"}).status_code == 200
    assert an_admin.client.delete(f"/v1/users/{user}").status_code == 204
    assert an_admin.client.post(f"/v1/users/{user}/restore").status_code == 200


def test_two_owners_who_delete_each_other_at_once_leave_one(api, invite):
    workspace = create(api, "workspaces", name="Two owners")["id"]
    one, two = (invite("owner", workspace_id=workspace) for _ in range(2))
    api.delete(f"/v1/workspaces/{workspace}/members/me")
    statuses = sorted(a.client.delete(f"/v1/users/{b.id}").status_code for a, b in ((one, two), (two, one)))
    assert statuses == [204, 401]


def test_others_may_add_somebody_to_so_many_workspaces_only(invite):
    victim, other = invite("member"), invite("member")
    names = [create(other.client, "workspaces", name=f"Unasked {n}")["id"] for n in range(MAX_WORKSPACES_BY_OTHERS)]
    asked = {"user": victim.id, "role": "guest"}
    for name in names[1:]:
        create(other.client, f"workspaces/{name}/members", **asked)
    refused = problem(other.client.post(f"/v1/workspaces/{names[0]}/members", json=asked), 409)
    assert str(MAX_WORKSPACES_BY_OTHERS) in refused["detail"]
    create(victim.client, "workspaces", name="My own")
    assert victim.client.delete(f"/v1/workspaces/{names[1]}/members/me").status_code == 204
    create(other.client, f"workspaces/{names[0]}/members", **asked)


# ---- what is limited in a key ----------------------------------------------------------------------------------------


@pytest.fixture
def keyed(server, api):
    """Somebody of their own, with an unlimited key and a client that uses it."""
    user = create(api, "users", name="Keyed", email=f"{ids.new('user')}@example.com", role="admin")
    client = server.client(server.create_key("theirs", "--user", user["email"]))
    yield user, client
    client.close()


def limited_key(server: Any, client: Any, **limits: Any) -> Any:
    """A client with a key of the same user that has some limits."""
    return server.client(create(client, "api-keys", name="limited", **limits)["secret"])


@pytest.mark.parametrize("limit", ["project_ids", "workspace_ids"])
def test_a_limited_key_changes_neither_its_user_nor_unlimited_keys(limit, server, home, keyed):
    user, client = keyed
    project = create(client, "projects", name="P")["id"]
    (unlimited,) = listed(client, "api-keys")
    values = {"project_ids": [project], "workspace_ids": [home]}[limit]
    with limited_key(server, client, **{limit: values}) as limited:
        problem(limited.patch(f"/v1/users/{user['id']}", json={"name": "Other"}), 403)
        problem(limited.patch(f"/v1/api-keys/{unlimited['id']}", json={"name": "Other"}), 403)
        problem(limited.patch(f"/v1/api-keys/{unlimited['id']}", json={limit: []}), 403)
        problem(limited.delete(f"/v1/api-keys/{unlimited['id']}"), 403)
        own = next(key for key in listed(limited, "api-keys") if key["name"] == "limited")
        problem(limited.patch(f"/v1/api-keys/{own['id']}", json={limit: []}), 422)
        assert limited.patch(f"/v1/api-keys/{own['id']}", json={"name": "limited, still"}).status_code == 200
        assert codes(problem(limited.post("/v1/api-keys", json={"name": "child"}), 422)) == ["exceeds_own_limits"]
        assert limited.delete(f"/v1/api-keys/{own['id']}").status_code == 204, "every key may end itself"


def test_a_project_limited_key_cannot_end_its_users_membership(server, home, keyed):
    _, client = keyed
    project = create(client, "projects", name="P")["id"]
    with limited_key(server, client, project_ids=[project]) as limited:
        problem(limited.delete(f"/v1/workspaces/{home}/members/me"), 403)
    assert client.get(f"/v1/workspaces/{home}").status_code == 200


@pytest.mark.parametrize(
    "limits",
    [
        {"scopes": ["api-keys:write"]},
        {"allowed_ips": ["127.0.0.1"]},
        {"rate_limit": 60},
        {"expires_at": "soon"},
    ],
    ids=lambda limits: next(iter(limits)),
)
def test_no_key_changes_or_revokes_one_that_reaches_further(limits, server, keyed):
    _, client = keyed
    project = create(client, "projects", name="P")["id"]
    further = create(client, "api-keys", name="further", project_ids=[project])["id"]
    if "expires_at" in limits:
        limits = {"expires_at": time.format_ms(time.now_ms() + time.DAY_MS)}
    with limited_key(server, client, **limits) as limited:
        problem(limited.patch(f"/v1/api-keys/{further}", json={"project_ids": []}), 403)
        problem(limited.patch(f"/v1/api-keys/{further}", json={"name": "x"}), 403)
        problem(limited.delete(f"/v1/api-keys/{further}"), 403)
    assert client.patch(f"/v1/api-keys/{further}", json={"project_ids": []}).status_code == 200


def test_undoing_a_change_of_a_key_takes_as_far_a_reach(server, keyed):
    _, client = keyed
    key = create(client, "api-keys", name="B", scopes=["*"])["id"]
    client.patch(f"/v1/api-keys/{key}", json={"scopes": ["tasks:read"]})
    (changed,) = listed(client, "events", types="api_key.updated", object_id=key)
    with limited_key(server, client, scopes=["api-keys:write"]) as limited:
        problem(limited.post(f"/v1/events/{changed['id']}/revert"), 403)


# ---- somebody without a workspace ------------------------------------------------------------------------------------


WRITES = {
    "api-keys": {"name": "x"},
    "projects": {"name": "x"},
    "tasks": {"name": "x"},
    "templates": {"name": "x"},
    "users": {"name": "x", "email": "nowhere@example.com"},
    "webhooks": {"url": "http://127.0.0.1:59999/nowhere"},
    "secrets": {"name": "x", "hosts": ["a.example"], "value": "x"},
    "automations": {"name": "x", "trigger": {"on": "manual"}, "actions": [{"do": "stop"}]},
    "tasks/bulk": {"tasks": [{"name": "x"}]},
}


def test_somebody_without_a_workspace_is_told_to_create_one(api, home, invite):
    leaver = invite("member")
    assert leaver.client.delete(f"/v1/workspaces/{home}/members/me").status_code == 204
    for path, body in WRITES.items():
        response = leaver.client.post(f"/v1/{path}", json=body)
        assert response.status_code in (403, 404, 409, 422), (path, response.text)
        assert "POST /v1/workspaces" in response.text or "POST /workspaces" in response.text, (path, response.text)
    assert leaver.client.get("/v1/users/me").status_code == 200
    (key,) = listed(leaver.client, "api-keys")
    assert leaver.client.patch(f"/v1/api-keys/{key['id']}", json={"name": "renamed"}).status_code == 200
    create(leaver.client, "workspaces", name="A new home")
    create(leaver.client, "api-keys", name="now it goes")


# ---- what a key can undo ---------------------------------------------------------------------------------------------


def test_a_limited_key_that_undoes_its_own_creation_is_limited_to_the_end(api, server, a_project, home, invite):
    made = create(api, "api-keys", name="Limited", project_ids=[a_project["id"]])
    wide, somebody = create(api, "api-keys", name="Unlimited")["id"], invite("member")
    own = listed(api, "events", object_id=made["id"])[0]["id"]
    events = listed(api, "events", object_id=wide) + [
        event
        for event in everything(api, "events", types="member.added", limit=1000)
        if event["data"]["user"] == somebody.id
    ]
    assert len(events) == 2
    with server.client(made["secret"]) as limited:
        for event in events:
            for names in ([own, event["id"]], [event["id"], own]):
                problem(limited.post("/v1/events/revert", json={"event_ids": names}), 403)
        assert api.get(f"/v1/api-keys/{wide}").status_code == 200
        assert somebody.client.get(f"/v1/workspaces/{home}").status_code == 200
        assert limited.post("/v1/events/revert", json={"event_ids": [own]}).status_code == 200
        problem(limited.get("/v1/users/me"), 401)


def test_a_key_undoes_what_it_made_and_then_its_own_creation(api, server, a_project):
    made = create(api, "api-keys", name="For once")
    with server.client(made["secret"]) as own:
        task = create(own, "tasks", name="A task", project_id=a_project["id"])["id"]
        child = create(own, "api-keys", name="Made by it")["id"]
        names = [listed(api, "events", object_id=name)[0]["id"] for name in (made["id"], child, task)]
        assert own.post("/v1/events/revert", json={"event_ids": names}).status_code == 200
    for path in (f"tasks/{task}", f"api-keys/{child}", f"api-keys/{made['id']}"):
        problem(api.get(f"/v1/{path}"), 404)


# ---- small ways around -----------------------------------------------------------------------------------------------


def test_adding_a_leaver_again_does_not_get_what_they_create_elsewhere(api, home, invite):
    leaver = invite("member")
    own = create(leaver.client, "workspaces", name="Their own")["id"]
    assert create(leaver.client, "projects", name="At work")["workspace_id"] == home
    assert leaver.client.delete(f"/v1/workspaces/{home}/members/me").status_code == 204
    assert create(leaver.client, "projects", name="After work")["workspace_id"] == own
    create(api, f"workspaces/{home}/members", user=leaver.id, role="member")
    for kind, more in (("projects", {"visibility": "private"}), ("tasks", {}), ("api-keys", {})):
        assert create(leaver.client, kind, name="Still theirs", **more)["workspace_id"] == own


def test_a_viewer_cannot_restore_a_task_out_of_the_project_below_its_moved_parent(api, a_member):
    project, _ = restricted(api, a_member, "viewer")
    other = create(api, "projects", name="Other")["id"]
    parent = create(api, "tasks", name="A parent", project_id=project)["id"]
    task = create(api, "tasks", name="A task", parent_id=parent)["id"]
    assert api.delete(f"/v1/tasks/{task}").status_code == 204
    assert api.post(f"/v1/tasks/{parent}/move", json={"project_id": other}).status_code == 200
    problem(a_member.client.post(f"/v1/tasks/{task}/restore"), 403)
    assert api.post(f"/v1/tasks/{task}/restore").json()["project_id"] == other


def test_a_guest_cannot_take_the_project_from_a_webhook(as_guest, a_project):
    hook = create(as_guest, "webhooks", url="https://example.com/x", project_id=a_project["id"])["id"]
    problem(as_guest.patch(f"/v1/webhooks/{hook}", json={"project_id": None}), 403)
    assert as_guest.get(f"/v1/webhooks/{hook}").json()["project_id"] == a_project["id"]


def test_what_was_undone_is_not_repeated_to_a_key_that_has_lost_the_scope(api, server, a_task):
    made = create(api, "api-keys", name="To be narrowed")
    with server.client(made["secret"]) as narrowed:
        changed = narrowed.patch(f"/v1/tasks/{a_task['id']}", json={"name": "Another name"})
        undo = {"json": {"request_id": changed.headers["x-request-id"]}, "headers": {"Idempotency-Key": "undo-it"}}
        first = narrowed.post("/v1/events/revert", **undo)
        assert first.status_code == 200, first.text
        assert narrowed.post("/v1/events/revert", **undo).text == first.text
        api.patch(f"/v1/api-keys/{made['id']}", json={"scopes": ["projects:read"]}).raise_for_status()
        problem(narrowed.post("/v1/events/revert", **undo), 403)
