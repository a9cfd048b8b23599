"""People and their keys: who gets in, with which rights, and that taking a right away works at once.

Why "at once" is tested with the very next request: a cache that serves a revoked key for one more second is a
door that stays open for one more second.
"""

from typing import Any

import pytest
from taskade_server.kit import ids, time

from tests.api.asking import codes, create, expire, listed, places, problem
from tests.support.server import Server


def an_email():
    return f"{ids.new('user')}@example.com"


def in_ms(milliseconds):
    return time.format_ms(time.now_ms() + milliseconds)


# ---- users -----------------------------------------------------------------------------------------------------------


def test_an_invitation_makes_a_member_with_a_handle(api, home):
    name = ids.new("user")
    user = create(api, "users", name="Ana Lima", email=f"{name}.Lima@Example.com")
    assert user["id"].startswith("user_")
    assert (user["workspace_id"], user["kind"]) == (home, "person")
    assert user["email"] == f"{name}.lima@example.com", "addresses are compared without regard to case"
    assert user["handle"].startswith("user_") and user["handle"].endswith("lima")
    (member,) = listed(api, f"workspaces/{home}/members", user=user["id"])
    assert member["role"] == "member"
    for reference in (user["id"], user["handle"], user["email"], user["email"].upper()):
        task = create(api, "tasks", name="x", assignee=reference)
        assert task["assignee"] == user["id"]
        assert [found["id"] for found in listed(api, "tasks", assignee=reference)] == [task["id"]]
        api.delete(f"/v1/tasks/{task['id']}")


def test_handles_made_of_names_do_not_collide(api):
    name = ids.new("user")
    first, second = (create(api, "users", name="x", email=f"{name}@{host}.example.com") for host in ("one", "two"))
    assert first["handle"] != second["handle"]


def test_an_invitation_can_choose_role_workspace_and_kind(api):
    workspace = create(api, "workspaces", name="Robots")["id"]
    robot = create(api, "users", name="Robot", kind="service", role="guest", workspace_id=workspace)
    assert (robot["kind"], robot["email"]) == ("service", None)
    (member,) = listed(api, f"workspaces/{workspace}/members", user=robot["id"])
    assert member["role"] == "guest"


def test_what_an_invitation_refuses(api, heads):
    before = heads()
    faulty = {
        "a person without an address": ({"name": "x"}, "/email"),
        "no name": ({"email": an_email()}, "/name"),
        "no address at all": ({"name": "x", "email": "nobody"}, "/email"),
        "an unknown role": ({"name": "x", "email": an_email(), "role": "king"}, "/role"),
        "a role of projects": ({"name": "x", "email": an_email(), "role": "viewer"}, "/role"),
        "a role of no type": ({"name": "x", "email": an_email(), "role": ["admin"]}, "/role"),
        "a handle with a space": ({"name": "x", "email": an_email(), "handle": "a b"}, "/handle"),
        "an unknown kind": ({"name": "x", "email": an_email(), "kind": "robot"}, "/kind"),
        "a picture that is a script": ({"name": "x", "email": an_email(), "avatar_url": "javascript:1"}, "/avatar_url"),
        "a password": ({"name": "x", "email": an_email(), "password": "x"}, "/password"),
    }
    for case, (body, place) in faulty.items():
        assert places(problem(api.post("/v1/users", json=body), 422)) == [place], case
    assert heads() == before


def test_addresses_and_handles_are_unique(api, a_member, heads):
    taken = api.get(f"/v1/users/{a_member.id}").json()
    other = create(api, "users", name="Other", email=an_email())
    before = heads()
    both = {"name": "x", "email": taken["email"].upper(), "handle": taken["handle"]}
    refused = problem(api.post("/v1/users", json=both), 409, "conflict")
    assert places(refused) == ["/email", "/handle"]
    assert codes(refused) == ["email_in_use", "handle_in_use"]
    path = f"/v1/users/{other['id']}"
    assert places(problem(api.patch(path, json={"email": taken["email"]}), 409)) == ["/email"]
    assert places(problem(api.patch(path, json={"handle": taken["handle"]}), 409)) == ["/handle"]
    assert heads() == before
    same = api.patch(path, json={"email": other["email"], "handle": other["handle"]}).json()
    assert same["version"] == 1, "to keep what one has is no conflict and no change"


def test_people_change_themselves_and_admins_whom_their_workspace_invited(an_admin, invite):
    a_member = invite("member")
    as_member, path = a_member.client, f"/v1/users/{a_member.id}"
    assert as_member.patch(path, json={"name": "By myself"}).json()["name"] == "By myself"
    assert an_admin.client.patch(path, json={"name": "By an admin"}).json()["name"] == "By an admin"
    assert as_member.get("/v1/users/me").json()["name"] == "By an admin"
    assert as_member.patch(path, json={"handle": None}).json()["handle"], "nobody is without one"
    problem(as_member.patch(f"/v1/users/{an_admin.id}", json={"name": "x"}), 403)
    problem(as_member.patch(path, json={"role": "owner"}), 422)


def test_an_admin_elsewhere_has_no_say_about_people_who_only_visit(api, invite, a_member):
    workspace = create(api, "workspaces", name="Visited")["id"]
    admin = invite("admin", workspace_id=workspace)
    create(api, f"workspaces/{workspace}/members", user=a_member.id, role="member")
    path = f"/v1/users/{a_member.id}"
    assert admin.client.get(path).status_code == 200
    problem(admin.client.patch(path, json={"email": an_email()}), 403)
    problem(admin.client.delete(path), 403)


def test_an_admin_has_no_say_about_an_owner(api, invite):
    workspace = create(api, "workspaces", name="Theirs")["id"]
    admin, owner = invite("admin", workspace_id=workspace), invite("owner", workspace_id=workspace)
    path = f"/v1/users/{owner.id}"
    problem(admin.client.patch(path, json={"email": an_email()}), 403)
    problem(admin.client.delete(path), 403)
    assert owner.client.patch(f"/v1/users/{admin.id}", json={"name": "Renamed"}).status_code == 200
    assert api.delete(path).status_code == 204, "another owner may"
    problem(admin.client.post(f"{path}/restore"), 403)


def test_with_a_user_their_keys_die_and_come_back(api, invite):
    person = invite("member")
    path = f"/v1/users/{person.id}"
    task = create(person.client, "tasks", name="Mine")
    assert api.delete(path).status_code == 204
    refused = problem(person.client.get("/v1/users/me"), 401, "unauthenticated")
    assert "revoked" in refused["detail"]
    problem(person.client.post("/v1/tasks", json={"name": "x"}), 401)
    assert "trash" in problem(api.get(path), 404)["detail"]
    assert person.id in [user["id"] for user in listed(api, "users", deleted="true", limit=1000)]
    assert api.post(f"{path}/restore").status_code == 200
    assert person.client.get(f"/v1/tasks/{task['id']}").status_code == 200


def test_nobody_deletes_themselves(api, me):
    problem(api.delete(f"/v1/users/{me['id']}"), 409)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_the_secret_is_shown_once(server, api):
    response = api.post("/v1/api-keys", json={"name": "Once"})
    key = response.json()
    assert response.headers["location"] == f"/v1/api-keys/{key['id']}"
    assert key["secret"].startswith(key["prefix"]) and key["prefix"] == f"tsk_{key['id'].removeprefix('key_')}"
    hidden = key["secret"].removeprefix(key["prefix"])
    for read in (api.get(response.headers["location"]), api.get("/v1/api-keys", params={"limit": 1000})):
        assert hidden not in read.text and "hash" not in read.text
    assert "secret" not in api.patch(response.headers["location"], json={"name": "Renamed"}).json()
    with server.client(key["secret"]) as client:
        assert client.get("/v1/users/me").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Basic b3duZXI6b3duZXI=",
        "Bearer nonsense",
        "Bearer tsk_01j9zq3v5kfg8wt2m4n6p8r0s2_abc_def",
        "Bearer \u00e9\u00e9",
        "tsk_1",
    ],
)
def test_without_a_key_nobody_gets_in(server, authorization):
    with server.client("") as client:
        response = client.get("/v1/tasks", headers={"Authorization": authorization.encode("latin-1")})
    problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith('Bearer realm="taskade"')


def test_a_key_is_good_to_the_last_character(server, api):
    secret = create(api, "api-keys", name="Whole")["secret"]
    swapped = secret[:40] + ("b" if secret[40] == "a" else "a") + secret[41:]
    for wrong in (secret[:-1], secret + "a", swapped, secret.upper(), secret.replace("tsk_", "key_")):
        with server.client(wrong) as client:
            problem(client.get("/v1/users/me"), 401)
    with server.client("") as client:
        found = client.get("/v1/users/me", headers={"Authorization": f"bEARER   {secret}"})
        assert found.status_code == 200, "the scheme's case and more spaces do not matter"
        assert client.get("/v1/users/me", params={"api_key": secret}).status_code == 401


def test_scopes(api, key_with, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    reader, writer = key_with(["tasks:read"]), key_with(["tasks:write"])
    assert reader.get(path).status_code == writer.get(path).status_code == 200, "who may write may read"
    refused = problem(reader.patch(path, json={"name": "x"}), 403, "forbidden")
    assert "tasks:write" in refused["detail"] and "tasks:read" in refused["detail"]
    assert writer.patch(path, json={"name": "Changed"}).status_code == 200
    for path in ("/v1/projects", "/v1/comments", "/v1/api-keys"):
        problem(writer.get(path), 403)
    assert reader.post("/v1/tasks/query", json={}).status_code == 200, "a query only reads, whatever its method"
    assert api.get(path).json() != []


def test_a_key_without_a_scope_may_only_ask_who_it_is(key_with):
    client = key_with([])
    assert client.get("/v1/users/me").status_code == 200
    assert "none" in problem(client.get("/v1/tasks"), 403)["detail"]


def test_what_a_key_refuses(api, heads):
    before = heads()
    unknown = ids.new("ws")
    faulty: dict[str, tuple[dict[str, Any], list[str]]] = {
        "a scope that is none": ({"scopes": ["task:read"]}, ["/scopes/0"]),
        "two of them": ({"scopes": ["tasks:read", "a", "b"]}, ["/scopes/1", "/scopes/2"]),
        "scopes as a text": ({"scopes": "tasks:read"}, ["/scopes"]),
        "an unknown workspace": ({"workspace_ids": [unknown]}, ["/workspace_ids/0"]),
        "an unknown project": ({"project_ids": [ids.new("proj")]}, ["/project_ids/0"]),
        "an address that is none": ({"allowed_ips": ["127.0.0.1", "300.1.1.1"]}, ["/allowed_ips/1"]),
        "an end in the past": ({"expires_at": "2020-01-01"}, ["/expires_at"]),
        "an end beyond a year": ({"expires_at": in_ms(400 * time.DAY_MS)}, ["/expires_at"]),
        "a day that does not exist": ({"expires_at": "2027-02-30"}, ["/expires_at"]),
        "a rate of nothing": ({"rate_limit": 0}, ["/rate_limit"]),
        "a secret of one's own": ({"secret": "x"}, ["/secret"]),
    }
    for case, (body, expected) in faulty.items():
        assert places(problem(api.post("/v1/api-keys", json={"name": "x", **body}), 422)) == expected, case
    misspelled = problem(api.post("/v1/api-keys", json={"name": "x", "scopes": ["task:read"]}), 422)
    assert 'Did you mean "tasks:read"?' in misspelled["errors"][0]["detail"]
    assert places(problem(api.post("/v1/api-keys", json={}), 422)) == ["/name"]
    assert heads() == before


def test_a_key_expires(api, key_with):
    client = key_with(["*"], expires_at=in_ms(time.DAY_MS))
    (key,) = client.get(
        "/v1/api-keys", params={"expires_at[$exists]": "true", "sort": "-created_at", "limit": 1}
    ).json()
    assert "expired" in problem(expire(api, key["id"], client), 401)["detail"]
    response = client.post("/v1/tasks", json={"name": "x"})
    problem(response, 401)
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_key_that_is_shortened_or_lengthened(api, server):
    key = create(api, "api-keys", name="x")
    path = f"/v1/api-keys/{key['id']}"
    with server.client(key["secret"]) as client:
        problem(expire(api, key["id"], client), 401)
        api.patch(path, json={"expires_at": None})
        assert client.get("/v1/users/me").status_code == 200
        api.patch(path, json={"scopes": ["users:read"]})
        problem(client.get("/v1/tasks"), 403)


def test_a_revoked_key_is_dead_at_once(api, server):
    key = create(api, "api-keys", name="x")
    with server.client(key["secret"]) as client:
        assert client.get("/v1/tasks").status_code == 200
        assert api.delete(f"/v1/api-keys/{key['id']}").status_code == 204
        problem(client.get("/v1/tasks"), 401)
        problem(client.post("/v1/tasks", json={"name": "x"}), 401)
    problem(api.get(f"/v1/api-keys/{key['id']}"), 404)


def test_a_key_can_revoke_itself(api, server):
    key = create(api, "api-keys", name="x")
    with server.client(key["secret"]) as client:
        assert client.delete(f"/v1/api-keys/{key['id']}").status_code == 204
        problem(client.get("/v1/users/me"), 401)


def test_the_command_revokes_in_another_process(api, server):
    key = create(api, "api-keys", name="x")
    with server.client(key["secret"]) as client:
        assert client.get("/v1/tasks").status_code == 200
        server.command("keys", "revoke", key["prefix"])
        problem(client.get("/v1/tasks"), 401)


def test_a_key_of_some_workspaces(api, key_with, home):
    other = create(api, "workspaces", name="Other")["id"]
    there = create(api, "projects", name="There", workspace_id=other)["id"]
    client = key_with(["*"], workspace_ids=[other])
    assert [item["id"] for item in listed(client, "workspaces")] == [other]
    assert [item["id"] for item in listed(client, "projects")] == [there]
    problem(client.get(f"/v1/workspaces/{home}"), 404)
    problem(client.post("/v1/projects", json={"name": "x", "workspace_id": home}), 404)
    assert create(client, "projects", name="x")["workspace_id"] == other, "its default is a workspace it reaches"
    problem(client.post("/v1/workspaces", json={"name": "Out of its reach"}), 403)


def test_a_key_of_some_projects(api, key_with, home, a_task, a_member):
    project = a_task["project_id"]
    other = create(api, "tasks", name="x", project_id=create(api, "projects", name="Other")["id"])
    client = key_with(["*"], project_ids=[project])
    assert [item["id"] for item in listed(client, "projects")] == [project]
    assert [item["id"] for item in listed(client, "tasks")] == [a_task["id"]]
    assert client.patch(f"/v1/tasks/{a_task['id']}", json={"name": "Changed"}).status_code == 200
    problem(client.get(f"/v1/tasks/{other['id']}"), 404)
    problem(client.post("/v1/tasks", json={"name": "x", "project_id": other["project_id"]}), 422)
    problem(client.post(f"/v1/tasks/{a_task['id']}/move", json={"project_id": other["project_id"]}), 422)
    # The owner's role does not let a key out of its projects.
    members = f"/v1/workspaces/{home}/members"
    for response in (
        client.post("/v1/projects", json={"name": "x"}),
        client.post("/v1/workspaces", json={"name": "x"}),
        client.patch(f"/v1/workspaces/{home}", json={"name": "x"}),
        client.delete(f"/v1/workspaces/{home}"),
        client.post("/v1/users", json={"name": "x", "email": an_email()}),
        client.patch(f"/v1/users/{a_member.id}", json={"name": "x"}),
        client.delete(f"/v1/users/{a_member.id}"),
        client.post(members, json={"user": a_member.id, "role": "admin"}),
        client.patch(f"{members}/{a_member.id}", json={"role": "admin"}),
        client.delete(f"{members}/{a_member.id}"),
    ):
        problem(response, 403)


def test_a_key_of_some_addresses(api, key_with):
    assert key_with(["*"], allowed_ips=["127.0.0.0/8"]).get("/v1/tasks").status_code == 200
    for networks in (["192.0.2.0/24"], ["::1"], ["127.0.0.2"]):
        refused = problem(key_with(["*"], allowed_ips=networks).get("/v1/tasks"), 403)
        assert "127.0.0.1" in refused["detail"]


def test_a_key_cannot_make_a_stronger_one(key_with, heads):
    client = key_with(["api-keys:write", "tasks:read"])
    before = heads()
    for scopes in (["*"], ["tasks:write"], ["projects:read"]):
        refused = problem(client.post("/v1/api-keys", json={"name": "x", "scopes": scopes}), 422)
        assert codes(refused) == ["exceeds_own_scopes"]
    assert codes(problem(client.post("/v1/api-keys", json={"name": "x"}), 422)) == ["exceeds_own_scopes"]
    assert heads() == before
    create(client, "api-keys", name="x", scopes=["tasks:read", "api-keys:read"])


def test_a_key_cannot_leave_its_limits_by_way_of_another(api, server, a_project, home):
    limits = {
        "workspace_ids": [home], "project_ids": [a_project["id"]], "allowed_ips": ["127.0.0.0/24"],
        "rate_limit": 50, "expires_at": in_ms(3_600_000),
    }  # fmt: skip
    key = create(api, "api-keys", name="Limited", **limits)
    with server.client(key["secret"]) as client:
        for name in limits:
            rest = {other: value for other, value in limits.items() if other != name}
            none: Any = [] if isinstance(limits[name], list) else None
            for way in (
                client.post("/v1/api-keys", json={"name": "x", **rest}),
                client.patch(f"/v1/api-keys/{key['id']}", json={name: none}),
            ):
                refused = problem(way, 422)
                assert (places(refused), codes(refused)) == ([f"/{name}"], ["exceeds_own_limits"])
        wider = {"allowed_ips": ["127.0.0.0/8"], "rate_limit": 51, "expires_at": in_ms(7_200_000)}
        for name, value in wider.items():
            refused = problem(client.post("/v1/api-keys", json={"name": "x", **limits, name: value}), 422)
            assert places(refused) == [f"/{name}"]
        create(client, "api-keys", name="x", **limits)
        create(client, "api-keys", name="x", **{**limits, "allowed_ips": ["127.0.0.1"], "rate_limit": 10})
        assert client.patch(f"/v1/api-keys/{key['id']}", json={"name": "Renamed"}).status_code == 200


def test_what_another_process_gives_and_takes_counts_for_who_only_writes(api, server, database, a_project, tmp_path):
    """Who writes is let in by what is known of them until their body is read, but is never refused by it."""
    other = Server(tmp_path / "data", server.database_url).start() if database == "postgresql" else server
    key = create(api, "api-keys", name="Writes", scopes=["tasks:read"])
    with server.client(key["secret"]) as writer, other.client(server.key) as owner:

        def write() -> Any:
            return writer.post("/v1/tasks", json={"name": "Written", "project_id": a_project["id"]})

        def change(**more: Any) -> None:
            assert owner.patch(f"/v1/api-keys/{key['id']}", json=more).status_code == 200

        problem(write(), 403)
        change(scopes=["tasks:write"])
        assert write().status_code == 201
        change(rate_limit=1)
        assert [write().status_code for _ in range(3)][1:] == [201, 429], "one request later at most"
        change(rate_limit=100_000)
        assert write().status_code == 201
        change(rate_limit=1)
        write()
        operations = [{"method": "DELETE", "path": f"/tasks/{ids.new('task')}"}] * 5
        batch = {"json": {"operations": operations}}
        problem(writer.post("/v1/batch", **batch), 429)
        change(rate_limit=100_000)
        problem(writer.post("/v1/batch", **batch), 404)
        change(scopes=["tasks:read"])
        problem(write(), 403)
        change(scopes=["tasks:write"])
        assert write().status_code == 201
        assert owner.delete(f"/v1/api-keys/{key['id']}").status_code == 204
        problem(writer.post("/v1/tasks", content=b"{nonsense"), 401)
        problem(write(), 401)
    if other is not server:
        other.stop()
    assert len(listed(api, "tasks", project_id=a_project["id"])) == 6


def test_the_last_use_of_a_key_appears(start_server):
    server = start_server()
    secret = server.create_key("Used", "--scopes", "api-keys:read")
    with server.client(secret) as client:
        (unused,) = listed(client, "api-keys", name="Used")
        assert unused["last_used_at"] is None
        server.restart()  # at the latest now it is written down
    with server.client(secret) as client:
        (used,) = listed(client, "api-keys", name="Used")
        assert used["last_used_at"] is not None and used["version"] == unused["version"]
        assert 0 <= time.now_ms() - time.parse_ms(used["last_used_at"]) <= 3_600_000
        read = client.get(f"/v1/api-keys/{used['id']}")
        assert read.json()["last_used_at"] == used["last_used_at"]
