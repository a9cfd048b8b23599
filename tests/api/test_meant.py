"""What was sent is what was meant: nothing that a client says is dropped without a word.

Why whole tables of members and not examples: each member that a body may hold is a place where something can be
dropped, and the one that nobody thought of is the one that hands out a key with all rights.
"""

from typing import Any

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, places, problem

REQUIRED = {
    "workspaces": ["name"], "projects": ["name"], "tasks": ["name"], "comments": ["task_id", "body"],
    "templates": ["name"], "users": ["name"], "api-keys": ["name"], "webhooks": ["url"],
}  # fmt: skip
RIGHTS = {"api-keys": ["scopes", "workspace_ids", "project_ids", "allowed_ips"]}
"""Null in them is refused: it must not come to mean everything."""
READ_ONLY = {
    "workspaces": ["workspace_id"], "projects": ["archived_at"], "tasks": ["completed_at"],
    "comments": ["author", "project_id"], "templates": [], "users": [],
    "api-keys": ["workspace_id", "prefix", "last_used_at", "user_id"],
    "webhooks": ["user_id", "disabled_at", "disabled_reason", "public_key"],
}  # fmt: skip
ALWAYS = ["created_by", "created_at", "updated_at", "version"]
TRASHED = ["workspaces", "projects", "tasks", "comments", "templates", "users"]
OTHERS: dict[str, Any] = {
    "version": 7, "prefix": "tsk_x", "public_key": "whpk_x", "disabled_reason": "gone",
    "workspace_id": ids.new("ws"), "project_id": ids.new("proj"), "created_by": ids.new("user"),
    "author": ids.new("user"), "user_id": ids.new("user"),
}  # fmt: skip
A_TIME = "2001-02-03T04:05:06.000Z"
RESOURCES = list(REQUIRED)


@pytest.fixture
def body_of(a_task):
    """The least that makes one of a kind."""

    def body(resource: str) -> dict[str, Any]:
        special = {
            "comments": {"task_id": a_task["id"], "body": "Fine"},
            "tasks": {"name": "x", "project_id": a_task["project_id"]},
            "users": {"name": "x", "email": f"{ids.new('user')}@example.com"},
            "webhooks": {"url": "http://127.0.0.1:59999/matrix", "project_id": a_task["project_id"]},
        }
        return special.get(resource, {"name": "x"})

    return body


@pytest.fixture
def end(api):
    """Removes what a test has made, as the people of a server share their lists."""

    def run(resource: str, made: dict[str, Any]) -> None:
        if resource in ("workspaces", "webhooks", "api-keys"):
            assert api.delete(f"/v1/{resource}/{made['id']}").status_code == 204

    return run


# ---- null ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_client_that_writes_null_for_whatever_is_unset_gets_the_defaults(api, body_of, end, resource):
    plain = create(api, resource, **body_of(resource))
    end(resource, plain)
    least = body_of(resource)
    rights = RIGHTS.get(resource, [])
    nulls = {name: None for name in plain if name not in (*least, *rights, "secret")}
    made = create(api, resource, **least, **nulls)
    end(resource, made)
    own = ("id", "email", "handle", "position", "prefix", "secret", "public_key", "created_at", "updated_at")
    drop = {*own, *({"workspace_id"} if resource == "workspaces" else set())}
    assert {k: v for k, v in made.items() if k not in drop} == {k: v for k, v in plain.items() if k not in drop}


@pytest.mark.parametrize("resource", RESOURCES)
def test_null_never_stands_for_what_has_to_be_said(api, body_of, heads, resource):
    for name in (*REQUIRED[resource], *RIGHTS.get(resource, [])):
        before = heads()
        refused = problem(api.post(f"/v1/{resource}", json={**body_of(resource), name: None}), 422)
        assert places(refused) == [f"/{name}"] and name in refused["detail"]
        assert heads() == before


@pytest.mark.parametrize("name", ["name", "type", "options"])
def test_null_inside_of_an_object_stands_for_what_is_left_out(api, name):
    whole = {"key": "a", "name": "A", "type": "text", "options": []}
    left_out = api.post("/v1/projects", json={"name": "x", "fields": [{k: v for k, v in whole.items() if k != name}]})
    null = api.post("/v1/projects", json={"name": "x", "fields": [{**whole, name: None}]})
    assert null.status_code == left_out.status_code
    if null.status_code == 201:
        assert null.json()["fields"] == left_out.json()["fields"]


def test_a_role_that_is_null_is_the_default_one(api, a_member, a_project):
    made = create(api, "users", name="x", email=f"{ids.new('user')}@example.com", role=None)
    assert create(api, f"projects/{a_project['id']}/members", user=made["id"], role=None)["role"] == "editor"
    project = create(api, "projects", name="x", members=[{"user": a_member.id, "role": None}])
    assert [one["role"] for one in listed(api, f"projects/{project['id']}/members")] == ["editor"]


def test_a_client_that_writes_null_in_other_requests_means_the_same_as_without(server, a_task, a_project):
    with server.client(event_hooks={}) as client:
        second = create(client, "tasks", name="y", project_id=a_project["id"])
        hook = create(client, "webhooks", url="http://127.0.0.1:59999/null", project_id=a_project["id"])
        task, past = f"/v1/tasks/{a_task['id']}", "2020-01-01T00:00:00Z"
        ids_ = {"ids": [a_task["id"]], "filter": None}
        names = ("sort", "limit", "cursor", "fields", "count", "include", "q", "deleted")
        for method, path, body, status in (
            ("POST", f"{task}/move", {"before": second["id"], "after": None, "project_id": None}, 200),
            ("POST", "/v1/tasks/query", {"filter": None, **dict.fromkeys(names)}, 200),
            ("POST", "/v1/tasks/bulk", {"tasks": [{"name": "x", "project_id": None}], "project_id": None}, 201),
            ("PATCH", "/v1/tasks/bulk", {**ids_, "set": {"name": "z"}}, 200),
            ("DELETE", "/v1/tasks/bulk", ids_, 200),
            ("POST", f"/v1/webhooks/{hook['id']}/rotate-secret", {"secret": None, "overlap_hours": None}, 200),
            (
                "POST",
                f"/v1/webhooks/{hook['id']}/replay",
                {"after_seq": 0, **dict.fromkeys(["to_seq", "from", "to", "events", "missing_only"])},
                202,
            ),
        ):
            answer = client.request(method, path, json=body)
            assert answer.status_code == status, (method, path, answer.text)
        seen = client.get("/v1/events", params={"object_id": a_task["id"], "order": "desc", "limit": 1}).json()
        revert = {"request_id": seen[0]["request_id"], **dict.fromkeys(["api_key_id", "since", "until", "event_ids"])}
        assert client.post("/v1/events/revert", json=revert).status_code == 200
        operation = {"id": None, "method": "GET", "path": "/tasks?limit=1", "body": None, "if_match": None}
        assert client.post("/v1/batch", json={"operations": [operation]}).status_code == 200
        problem(client.post(f"/v1/webhooks/{hook['id']}/recover", json={"since": None}), 422)
        for body in ({"ids": None, "filter": None, "set": {}}, {"ids": None, "filter": None}):
            problem(client.request("PATCH" if "set" in body else "DELETE", "/v1/tasks/bulk", json=body), 422)
        problem(client.post(f"/v1/webhooks/{hook['id']}/recover", json={"since": past, "until": 1}), 422)
        assert client.delete(f"/v1/webhooks/{hook['id']}").status_code == 204


# ---- what only the server sets ---------------------------------------------------------------------------------------


def _read_only(resource: str) -> list[str]:
    return [*READ_ONLY[resource], *ALWAYS, *(["deleted_at"] if resource in TRASHED else [])]


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_new_one_cannot_be_told_what_only_the_server_sets(api, body_of, heads, resource):
    for name in _read_only(resource):
        before = heads()
        body = {**body_of(resource), name: OTHERS.get(name, A_TIME)}
        refused = problem(api.post(f"/v1/{resource}", json=body), 422)
        assert places(refused) == [f"/{name}"], name
        assert name in refused["detail"] or name == "user_id"
        assert codes(refused)[0] == (
            "unknown_reference" if (resource, name) == ("api-keys", "user_id") else "read_only"
        )
        assert heads() == before, f"{name}: something was written"
    body = {**body_of(resource), "created_at": A_TIME, "nmae": "x"}
    assert sorted(places(problem(api.post(f"/v1/{resource}", json=body), 422))) == ["/created_at", "/nmae"]


@pytest.mark.parametrize("resource", RESOURCES)
def test_what_a_new_one_will_be_may_be_said(api, me, body_of, end, home, resource):
    known: dict[str, Any] = {"version": 1, "created_by": me["id"]}
    known |= {name: me["id"] for name in ("author", "user_id") if name in READ_ONLY[resource]}
    if resource == "api-keys":
        known["workspace_id"] = home
    made = create(api, resource, **body_of(resource), **known)
    end(resource, made)
    assert {name: made[name] for name in known} == known


@pytest.mark.parametrize("resource", RESOURCES)
def test_what_was_read_can_be_sent_back_and_nothing_else(api, body_of, end, heads, resource):
    made = create(api, resource, **body_of(resource))
    path = f"/v1/{resource}/{made['id']}"
    read = api.get(path).json()
    assert api.put(path, json=read).json()["version"] == read["version"]
    stale = {**read, "version": 99, "updated_at": A_TIME}
    assert api.put(path, json=stale).status_code == 200, "both move by themselves, so they are never compared"
    moving = ("version", "updated_at", "last_used_at")
    for name in _read_only(resource):
        if name in moving or name not in read:
            continue
        before = heads()
        refused = problem(api.patch(path, json={name: OTHERS.get(name, A_TIME)}), 422)
        assert (places(refused), codes(refused)) == ([f"/{name}"], ["read_only"]) and name in refused["detail"]
        assert heads() == before
    end(resource, made)


@pytest.mark.parametrize("resource", ["tasks", "projects", "comments", "templates", "users", "workspaces"])
def test_what_includes_have_added_can_be_sent_back_and_not_changed(api, body_of, resource):
    made = create(api, resource, **body_of(resource))
    path = f"/v1/{resource}/{made['id']}"
    names = {
        "tasks": "assignee,project,parent,workspace,subtasks,comments,blocked_by,created_by",
        "projects": "tasks,members,workspace,created_by", "comments": "author,task,project",
        "templates": "created_by", "users": "created_by", "workspaces": "members,created_by",
    }  # fmt: skip
    read = api.get(path, params={"include": names[resource]}).json()
    assert api.put(path, json=read).status_code == 200
    if resource == "tasks":
        for name, value in (("project", {"id": ids.new("proj")}), ("project", "x"), ("subtasks", {}), ("parent", "x")):
            refused = problem(api.patch(path, json={name: value}), 422)
            assert (places(refused), codes(refused)) == ([f"/{name}"], ["read_only"])


def test_members_say_no_more_than_who_and_what(api, a_project, a_member, heads):
    path = f"/v1/projects/{a_project['id']}/members"
    body = {"user": a_member.id, "role": "viewer"}
    for name, value in (
        ("id", ids.new("mem")),
        ("created_at", A_TIME),
        ("project_id", ids.new("proj")),
        ("workspace_id", ids.new("ws")),
        ("version", 2),
        ("nmae", "x"),
    ):
        before = heads()
        assert places(problem(api.post(path, json={**body, name: value}), 422)) == [f"/{name}"]
        assert heads() == before
    made = create(api, f"projects/{a_project['id']}/members", **body, project_id=a_project["id"])
    back = api.put(f"{path}/{a_member.id}", json={**made, "role": "commenter"})
    assert back.status_code == 200 and back.json()["role"] == "commenter"
    others: dict[str, Any] = {
        "id": ids.new("mem"), "user": ids.new("user"), "project_id": None, "created_at": A_TIME,
    }  # fmt: skip
    for name, value in others.items():
        refused = problem(api.patch(f"{path}/{a_member.id}", json={"role": "viewer", name: value}), 422)
        assert (places(refused), codes(refused)) == ([f"/{name}"], ["read_only"])


def test_a_comment_cannot_be_put_into_another_workspace_than_its_task(api, a_task):
    body = {"task_id": a_task["id"], "body": "x", "workspace_id": ids.new("ws")}
    assert places(problem(api.post("/v1/comments", json=body), 422)) == ["/workspace_id"]


# ---- keys for others -------------------------------------------------------------------------------------------------


@pytest.fixture
def a_service(api):
    """A service user of the owner's workspace."""
    return create(api, "users", name="Robot", kind="service", handle=f"robot_{ids.new('user')[-8:]}")


def test_an_admin_makes_the_key_of_a_service_user(api, an_admin, server, a_service, home, key_with):
    made = create(an_admin.client, "api-keys", name="robot", user_id=a_service["handle"], scopes=["tasks:read"])
    assert (made["user_id"], made["workspace_id"], made["workspace_ids"]) == (a_service["id"], home, [home])
    assert made["created_by"] == an_admin.id
    with server.client(made["secret"]) as robot:
        assert robot.get("/v1/users/me").json()["id"] == a_service["id"]
        problem(robot.post("/v1/tasks", json={"name": "x"}), 403)
    # All who administer the workspace look after it.
    path = f"/v1/api-keys/{made['id']}"
    assert made["id"] in [key["id"] for key in listed(an_admin.client, "api-keys")]
    assert made["id"] in [key["id"] for key in listed(api, "api-keys", user_id=a_service["id"])]
    assert api.get(path).json()["created_by"] == an_admin.id
    assert an_admin.client.patch(path, json={"name": "R2"}).json()["name"] == "R2"
    refused = problem(an_admin.client.patch(path, json={"workspace_ids": []}), 422)
    assert places(refused) == ["/workspace_ids"]
    events = listed(an_admin.client, "events", object_id=made["id"])
    assert [event["type"] for event in events] == ["api_key.created", "api_key.updated"]
    assert listed(api, "events", object_id=made["id"]) == events
    assert an_admin.client.delete(path).status_code == 204
    with server.client(made["secret"]) as robot:
        problem(robot.get("/v1/users/me"), 401)


def test_people_make_their_own_keys(api, an_admin, a_member, a_service, a_stranger, heads):
    before = heads()
    for who, whose, code in (
        (an_admin.client, a_member.id, "read_only"),
        (api, a_member.email, "read_only"),
        (a_member.client, a_service["id"], "read_only"),
        (a_stranger.client, a_service["id"], "unknown_reference"),
        (api, "nobody", "unknown_reference"),
    ):
        refused = problem(who.post("/v1/api-keys", json={"name": "x", "user_id": whose}), 422)
        assert (places(refused), codes(refused)) == (["/user_id"], [code]), whose
        assert refused["detail"] == refused["errors"][0]["detail"]
    assert heads() == before


def test_the_key_of_a_service_user_is_within_its_maker(api, an_admin, a_service, home, key_with, a_project):
    refused = problem(
        api.post("/v1/api-keys", json={"name": "x", "user_id": a_service["id"], "workspace_ids": [ids.new("ws")]}), 422
    )
    assert "/workspace_ids" in places(refused)
    small = key_with(["api-keys:write", "users:read"])
    refused = problem(small.post("/v1/api-keys", json={"name": "x", "user_id": a_service["id"]}), 422)
    assert places(refused) == ["/scopes/0"]
    limited = key_with(["*"], project_ids=[a_project["id"]])
    problem(limited.post("/v1/api-keys", json={"name": "x", "user_id": a_service["id"]}), 422)
    owner = create(api, "users", name="Robot", kind="service", role="owner")
    refused = problem(an_admin.client.post("/v1/api-keys", json={"name": "x", "user_id": owner["id"]}), 422)
    assert places(refused) == ["/user_id"], "an admin has no power over an owner"
    problem(an_admin.client.post("/v1/batch", json={"operations": [{"method": "POST", "path": "/api-keys"}]}), 422)


def test_only_the_workspace_that_invited_a_service_user_makes_its_keys(api, a_service, invite, home):
    as_member = invite("member").client
    mine = create(as_member, "workspaces", name="Mine")
    create(as_member, f"workspaces/{mine['id']}/members", user=a_service["id"])
    body = {"name": "x", "user_id": a_service["id"]}
    for more in ({}, {"workspace_ids": [mine["id"]]}):
        refused = problem(as_member.post("/v1/api-keys", json=body | more), 422)
        assert places(refused) == ["/user_id"] and home in refused["detail"]
    assert places(problem(api.post("/v1/api-keys", json=body | {"workspace_ids": [ids.new("ws")]}), 422)) == [
        "/workspace_ids"
    ]
    made = create(api, "api-keys", **body)
    assert (made["workspace_id"], made["workspace_ids"]) == (home, [home])
    problem(as_member.get(f"/v1/api-keys/{made['id']}"), 404)
    assert api.delete(f"/v1/api-keys/{made['id']}").status_code == 204
    assert as_member.delete(f"/v1/workspaces/{mine['id']}").status_code == 204


def test_nobody_becomes_a_service_user_or_a_person(api, invite, a_service):
    person = invite("member")
    for client, path, kind in (
        (api, f"/v1/users/{person.id}", "service"),
        (person.client, f"/v1/users/{person.id}", "service"),
        (api, f"/v1/users/{a_service['id']}", "person"),
    ):
        refused = problem(client.patch(path, json={"kind": kind}), 422)
        assert (places(refused), codes(refused)) == (["/kind"], ["read_only"])


def test_an_admin_has_no_power_over_the_key_of_a_service_user_who_became_an_owner(api, an_admin, a_service, home):
    admin, name = an_admin.client, a_service["id"]
    made = create(admin, "api-keys", name="x", user_id=name, scopes=["tasks:read", "tasks:write"])
    path = f"/v1/api-keys/{made['id']}"
    assert admin.patch(path, json={"scopes": ["tasks:read"]}).status_code == 200
    narrowed = listed(admin, "events", object_id=made["id"])[-1]["id"]
    assert api.patch(f"/v1/workspaces/{home}/members/{name}", json={"role": "owner"}).status_code == 200
    assert admin.patch(path, json={"scopes": ["*"]}).status_code in (403, 404)
    assert admin.post(f"/v1/events/{narrowed}/revert").status_code in (403, 404)
    assert admin.delete(path).status_code in (403, 404)
    assert api.get(path).json()["scopes"] == ["tasks:read"]
    assert api.delete(path).status_code == 204
    assert api.patch(f"/v1/workspaces/{home}/members/{name}", json={"role": "member"}).status_code == 200


def test_whoever_no_longer_administers_the_workspace_has_no_power_over_the_key(api, somebody, server, a_service, home):
    user_id, _, secret = somebody("admin")
    body, again = {"name": "x", "user_id": a_service["id"]}, {"Idempotency-Key": ids.new("key")}
    with server.client(secret) as client:
        made = client.post("/v1/api-keys", json=body, headers=again).json()
        replayed = client.post("/v1/api-keys", json=body, headers=again)
        assert replayed.json()["secret"] == made["secret"]
        assert api.patch(f"/v1/workspaces/{home}/members/{user_id}", json={"role": "member"}).status_code == 200
        problem(client.post("/v1/api-keys", json=body, headers=again), 404)
        problem(client.get(f"/v1/api-keys/{made['id']}"), 404)
        problem(client.delete(f"/v1/api-keys/{made['id']}"), 404)
        assert listed(client, "events", object_id=made["id"]) == []
    # Nobody's key is left behind: an owner sees it, and undoes what that admin did.
    assert made["id"] in [key["id"] for key in listed(api, "api-keys", user_id=a_service["id"])]
    created = listed(api, "events", object_id=made["id"])[0]["id"]
    assert api.post(f"/v1/events/{created}/revert").status_code == 200
    with server.client(made["secret"]) as robot:
        problem(robot.get("/v1/users/me"), 401)


# ---- what looks the same is the same ---------------------------------------------------------------------------------


def test_labels_that_look_the_same_are_one(api, a_project):
    task = create(
        api, "tasks", name="x", project_id=a_project["id"], labels=["urgent ", " urgent", "cafe\u0301", "café"]
    )
    assert task["labels"] == ["urgent", "café"]
    for wanted in ("urgent", " urgent ", "cafe\u0301", "café"):
        for query in ({"labels": wanted}, {"labels[$contains]": wanted}, {"labels[$in]": f"x,{wanted}"}):
            assert [one["id"] for one in listed(api, "tasks", project_id=a_project["id"], **query)] == [task["id"]]


def test_nothing_is_named_by_spaces(api, a_project):
    for key in (" ", "  ", "\u00a0", " a"):
        body = {"name": "x", "project_id": a_project["id"], "custom_fields": {key: 1}}
        assert codes(problem(api.post("/v1/tasks", json=body), 422)) == ["invalid_key"]


def test_an_empty_text_is_nobody(api, a_task):
    for body in ({"assignee": ""}, {"assignee": None}):
        answer = api.patch(f"/v1/tasks/{a_task['id']}", json=body)
        assert answer.status_code == (200 if body["assignee"] is None else 422)
    said = problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"assignee": ""}), 422)["detail"]
    assert said == "assignee must not be empty: give an id, a handle, an e-mail or null."


def test_a_stream_begins_at_latest_as_a_list_does(server):
    with server.client(event_hooks={}) as client:
        for path in ("/v1/events?after=latest&limit=1", "/v1/events/stream?after=latest&seconds=1"):
            assert client.get(path).status_code == 200, path


def test_answers_to_browsers_and_others_are_kept_apart(api, a_task):
    for headers in ({}, {"Origin": "https://app.example.com"}):
        answer = api.get(f"/v1/tasks/{a_task['id']}", headers=headers)
        assert "origin" in answer.headers["vary"].lower()
        assert ("access-control-allow-origin" in answer.headers) == bool(headers)
