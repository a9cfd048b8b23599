"""Lists that were asked for before: answered from memory, and never a moment out of date.

Why so many ways to change something: a cache is wrong in the way nobody thought of. Every test here reads twice first,
so that the second answer comes from memory, and then looks for the change in the very next one.
"""

from typing import Any

import httpx2
import pytest
import zstandard
from taskade_server.kit import ids

from tests.api.asking import create, problem


def read(client: httpx2.Client, path: str, tag: str = "") -> httpx2.Response:
    response = client.get(f"/v1/{path}", headers={"If-None-Match": tag} if tag else {})
    assert response.status_code in (200, 304), response.text
    return response


def remembered(client: httpx2.Client, path: str) -> httpx2.Response:
    """An answer that the server has in memory."""
    first, second, third = (read(client, path) for _ in range(3))
    assert first.content == second.content == third.content
    assert first.headers["etag"] == third.headers["etag"]
    assert first.headers["x-request-id"] != third.headers["x-request-id"]
    return third


def fresh(client: httpx2.Client, path: str, before: httpx2.Response) -> Any:
    """The list as it is now, which is another one than before."""
    tag = before.headers["etag"]
    after = read(client, path, tag)
    assert after.status_code == 200, "the validator has not changed"
    assert after.headers["etag"] != tag
    assert after.content != before.content
    assert read(client, path).content == after.content
    return after.json()


# ---- 304 -------------------------------------------------------------------------------------------------------------

LISTS = ("tasks", "projects", "comments", "templates", "users", "workspaces")


@pytest.mark.parametrize("kind", LISTS)
def test_what_one_has_is_not_sent_again(kind, api, a_task):
    create(api, "comments", task_id=a_task["id"], body="x")
    path = f"{kind}?limit=3"
    tag = remembered(api, path).headers["etag"]
    assert tag.startswith('W/"')
    for header in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        response = read(api, path, header)
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in response.headers
    assert read(api, path, '"other"').status_code == 200


def test_members_too(api, a_project):
    path = f"projects/{a_project['id']}/members"
    before = remembered(api, path)
    assert read(api, path, before.headers["etag"]).status_code == 304
    assert read(api, path).json() == before.json()


def test_a_304_costs_nothing(start_server):
    server = start_server(rate_limit="3/minute")
    with server.client() as client:
        first = read(client, "tasks")
        assert first.headers["x-ratelimit-remaining"] == "2"
        for _ in range(8):
            again = read(client, "tasks", first.headers["etag"])
            assert (again.status_code, again.headers["x-ratelimit-remaining"]) == (304, "2")
        assert read(client, "tasks").headers["x-ratelimit-remaining"] == "1", "an answer from memory costs its request"


def test_api_keys_have_no_validator(api):
    """When a key was last used is no change of it."""
    assert "etag" not in read(api, "api-keys").headers


def test_documents_of_queries_have_none(api):
    assert "etag" not in api.post("/v1/tasks/query", json={"limit": 1}).headers


def test_head_is_a_get_without_a_body(api, a_task):
    path = f"tasks?project_id={a_task['project_id']}"
    got = remembered(api, path)
    for _ in range(2):
        head = api.head(f"/v1/{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == got.headers["etag"]
        assert head.headers["content-length"] == got.headers["content-length"]
    assert read(api, path).content == got.content


# ---- whatever changes ------------------------------------------------------------------------------------------------

CHANGES = {
    "a task": lambda api, task, _: api.patch(f"/v1/tasks/{task['id']}", json={"name": ids.new("task")}),
    "a new task": lambda api, task, _: api.post("/v1/tasks", json={"name": "x", "project_id": task["project_id"]}),
    "a deleted task": lambda api, task, _: api.delete(f"/v1/tasks/{task['id']}"),
    "a project": lambda api, task, _: api.patch(f"/v1/projects/{task['project_id']}", json={"name": ids.new("proj")}),
    "a person": lambda api, _, person: api.patch(f"/v1/users/{person}", json={"name": ids.new("user")}),
    "many tasks": lambda api, task, _: api.patch(
        "/v1/tasks/bulk", json={"ids": [task["id"]], "set": {"priority": "high"}}
    ),
    "a batch": lambda api, task, _: api.post(
        "/v1/batch", json={"operations": [{"method": "POST", "path": f"/tasks/{task['id']}/complete"}]}
    ),
    "a subtask": lambda api, task, _: api.post("/v1/tasks", json={"name": "x", "parent_id": task["id"]}),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_next_answer_shows_it(case, api, a_task, a_member):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"assignee": a_member.id})
    path = f"tasks?project_id={a_task['project_id']}&include=assignee,project&count=true"
    before = remembered(api, path)
    assert CHANGES[case](api, a_task, a_member.id).status_code in (200, 201, 204)
    after = fresh(api, path, before)
    assert (
        after
        == api.post(
            "/v1/tasks/query", json={"filter": {"project_id": a_task["project_id"]}, "include": "assignee,project"}
        ).json()
    )


def test_what_changes_nothing_visible_in_the_list_changes_only_its_validator(api, a_project):
    path = f"tasks?project_id={a_project['id']}"
    before = remembered(api, path)
    create(api, "projects", name="Another")
    after = read(api, path, before.headers["etag"])
    assert (after.status_code, after.content) == (200, before.content)


def test_what_was_refused_or_only_tried_changes_nothing(api, a_task):
    path = f"tasks?project_id={a_task['project_id']}"
    tag = remembered(api, path).headers["etag"]
    problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": ""}), 422)
    api.patch(f"/v1/tasks/{a_task['id']}?dry_run=true", json={"name": "Dry"})
    operations = [{"method": "DELETE", "path": f"/tasks/{a_task['id']}"}, {"method": "GET", "path": "/tasks/x"}]
    problem(api.post("/v1/batch", json={"operations": operations}), 404)
    assert read(api, path, tag).status_code == 304
    assert read(api, path).json() == [a_task]


def test_what_happens_elsewhere_leaves_it_alone(api, outsider, a_task):
    path = f"tasks?project_id={a_task['project_id']}"
    create(outsider, "tasks", name="With the first one comes an inbox, and rights in it")
    tag = remembered(api, path).headers["etag"]
    create(outsider, "tasks", name="Elsewhere")
    assert read(api, path, tag).status_code == 304


# ---- whoever asks ----------------------------------------------------------------------------------------------------


def test_each_caller_gets_what_they_may_see(api, as_viewer, outsider, key_with, a_project, a_task):
    other = create(api, "tasks", name="Hidden")["id"]
    reader = key_with(["tasks:read"], project_ids=[a_project["id"]])
    path = f"tasks?id={a_task['id']}&id={other}&sort=created_at"
    callers = {"owner": api, "viewer": as_viewer, "outsider": outsider, "limited": reader}
    expected = {"owner": 2, "viewer": 1, "outsider": 0, "limited": 1}
    for _ in range(2):
        found = {name: remembered(client, path) for name, client in callers.items()}
        assert {name: len(response.json()) for name, response in found.items()} == expected
        assert len({response.headers["etag"] for response in found.values()}) == 4, "nor does a validator pass"
    for name, client in callers.items():
        for other_name, response in found.items():
            status = read(client, path, response.headers["etag"]).status_code
            assert status == (304 if name == other_name else 200), (name, other_name)


def test_a_key_in_another_spelling_or_none(api, server, a_task):
    path = f"/v1/tasks?id={a_task['id']}"
    remembered(api, f"tasks?id={a_task['id']}")
    with server.client("") as nobody:
        problem(nobody.get(path), 401)
        problem(nobody.get(path, headers={"Authorization": f"Bearer {server.key}x"}), 401)
        assert nobody.get(path, headers={"Authorization": f"bearer {server.key}"}).json() == [a_task]


def test_a_key_without_the_scope(key_with, api, a_task):
    remembered(api, f"tasks?id={a_task['id']}")
    problem(key_with(["projects:read"]).get(f"/v1/tasks?id={a_task['id']}"), 403)


def test_joining_and_leaving_a_project(api, a_guest, a_task):
    client, project = a_guest.client, a_task["project_id"]
    path = f"tasks?id={a_task['id']}"
    nothing = remembered(client, path)
    create(api, f"projects/{project}/members", user=a_guest.id, role="viewer")
    assert fresh(client, path, nothing) == [a_task]
    something = remembered(client, path)
    api.delete(f"/v1/projects/{project}/members/{a_guest.id}")
    assert fresh(client, path, something) == []


def test_joining_and_leaving_a_workspace(api, an_admin):
    workspace = create(api, "workspaces", name="W")["id"]
    path = f"projects?workspace_id={workspace}"
    project = create(api, "projects", name="P", workspace_id=workspace)
    everything = "projects?limit=1000"
    without = remembered(an_admin.client, everything)
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="member")
    assert project in fresh(an_admin.client, everything, without)
    inside = remembered(an_admin.client, path)
    assert inside.json() == [project]
    api.delete(f"/v1/workspaces/{workspace}/members/{an_admin.id}")
    gone = an_admin.client.get(f"/v1/{path}", headers={"If-None-Match": inside.headers["etag"]})
    assert gone.status_code in (200, 400)
    assert project["id"] not in gone.text
    assert project not in read(an_admin.client, everything).json()


def test_a_project_that_becomes_private(api, a_member, a_task):
    path = f"tasks?id={a_task['id']}"
    before = remembered(a_member.client, path)
    assert before.json() == [a_task]
    api.patch(f"/v1/projects/{a_task['project_id']}", json={"visibility": "private"})
    assert fresh(a_member.client, path, before) == []


def test_a_key_whose_limits_change(api, server, a_task):
    key = create(api, "api-keys", name="x", scopes=["tasks:read"])
    other = create(api, "projects", name="Another")["id"]
    path = f"tasks?id={a_task['id']}"
    with server.client(key["secret"]) as client:
        before = remembered(client, path)
        api.patch(f"/v1/api-keys/{key['id']}", json={"project_ids": [other]})
        assert fresh(client, path, before) == []
        api.patch(f"/v1/api-keys/{key['id']}", json={"scopes": ["projects:read"]})
        problem(client.get(f"/v1/{path}"), 403)
        api.delete(f"/v1/api-keys/{key['id']}")
        problem(client.get(f"/v1/{path}"), 401)


def test_somebody_of_another_workspace_who_is_renamed(api, an_admin, invite):
    """The person's home, where the change is logged, is not among the places that the reader can see."""
    person = invite("member")
    shared = create(an_admin.client, "workspaces", name="Shared")["id"]
    create(an_admin.client, f"workspaces/{shared}/members", user=person.id, role="owner")
    project = create(person.client, "projects", name="P", workspace_id=shared)["id"]
    task = create(person.client, "tasks", name="T", project_id=project, assignee=person.id)["id"]
    path = f"tasks?id={task}&include=assignee"
    people = f"users?id={person.id}"
    before, listed_before = remembered(an_admin.client, path), remembered(an_admin.client, people)
    name = ids.new("user")
    assert person.client.patch(f"/v1/users/{person.id}", json={"name": name}).status_code == 200
    assert fresh(an_admin.client, path, before)[0]["assignee"]["name"] == name
    assert fresh(an_admin.client, people, listed_before)[0]["name"] == name


def test_a_handle_that_means_somebody_else_now(api, invite):
    first, second = invite("member"), invite("member")
    handle = f"h{ids.new('user')[-20:]}"
    project = create(api, "projects", name="P")["id"]
    for person in (first, second):
        create(api, "tasks", name=person.id, project_id=project, assignee=person.id)
    api.patch(f"/v1/users/{first.id}", json={"handle": handle})
    path = f"tasks?project_id={project}&assignee={handle}"
    before = remembered(api, path)
    assert [task["name"] for task in before.json()] == [first.id]
    api.patch(f"/v1/users/{first.id}", json={"handle": f"{handle}x"})
    problem(api.get(f"/v1/{path}"), 400)
    api.patch(f"/v1/users/{second.id}", json={"handle": handle})
    assert [task["name"] for task in fresh(api, path, before)] == [second.id]


# ---- what is asked ---------------------------------------------------------------------------------------------------


def test_each_spelling_of_a_question_is_one_of_its_own(api, a_project):
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": "a"}, {"name": "b"}])
    here = f"project_id={a_project['id']}"
    first, second = made
    for path, expected in (
        (f"tasks?{here}", made),
        (f"tasks?{here}&sort=-name", [second, first]),
        (f"tasks?{here}&limit=1", [first]),
        (f"tasks?{here}&name=b", [second]),
        (f"tasks?{here}&fields=name", [{"name": "a"}, {"name": "b"}]),
        (f"tasks?{here}&deleted=true", []),
        (f"tasks?{here}&q=b", [second]),
    ):
        assert remembered(api, path).json() == expected
    counted = remembered(api, f"tasks?{here}&limit=1&count=true")
    assert counted.headers["total-count"] == "2"
    assert "total-count" not in read(api, f"tasks?{here}&limit=1").headers


def test_pages_have_validators_of_their_own_question(api, a_project):
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": name} for name in "abc"])
    address = f"tasks?project_id={a_project['id']}&limit=1&fields=name"
    found = []
    while address:
        page = remembered(api, address)
        assert read(api, address, page.headers["etag"]).status_code == 304
        found += [task["name"] for task in page.json()]
        address = page.links["next"]["url"].partition("/v1/")[2] if "next" in page.links else ""
    assert found == ["a", "b", "c"]


@pytest.mark.parametrize("condition", ["due_date[$lte]=%2B7d", "due_date=today", "created_at[$gte]=-1d"])
def test_a_question_whose_meaning_moves_with_the_clock(condition, api):
    """Tomorrow "today" is another day, although nothing has changed."""
    assert "etag" not in read(api, f"tasks?{condition}").headers


def test_me_means_the_caller(api, a_member, a_project):
    create(api, f"projects/{a_project['id']}/members", user=a_member.id, role="editor")
    for client in (api, a_member.client):
        create(client, "tasks", name="Mine", project_id=a_project["id"], assignee="me")
    path = f"tasks?project_id={a_project['id']}&assignee=me&fields=assignee"
    mine, theirs = remembered(api, path), remembered(a_member.client, path)
    assert mine.json() != theirs.json()
    assert (len(mine.json()), theirs.json()) == (1, [{"assignee": a_member.id}])


def test_the_address_in_links_is_the_one_that_was_asked(api, server, a_project):
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": "a"}, {"name": "b"}])
    path = f"/v1/tasks?project_id={a_project['id']}&limit=1"
    for host in ("one.example", "two.example", "one.example"):
        link = api.get(path, headers={"Host": host}).headers["link"]
        assert f"://{host}/v1/tasks" in link


def test_compressed_and_plain_answers_are_the_same_list(api, server, a_project):
    tasks = [{"name": f"A task with a long name, number {number}"} for number in range(200)]
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
    path = f"/v1/tasks?project_id={a_project['id']}&limit=200"
    plain = remembered(api, path.removeprefix("/v1/"))
    with server.client(event_hooks={}) as client:
        for _ in range(2):
            packed = client.get(path, headers={"Accept-Encoding": "gzip"})
            assert (packed.headers["content-encoding"], packed.content) == ("gzip", plain.content)
            with client.stream("GET", path, headers={"Accept-Encoding": "zstd"}) as other:
                raw = b"".join(other.iter_raw())
            assert other.headers["content-encoding"] == "zstd"
            assert zstandard.ZstdDecompressor().decompressobj().decompress(raw) == plain.content
            bare = client.get(path, headers={"Accept-Encoding": "identity"})
            assert (bare.headers.get("content-encoding"), bare.content) == (None, plain.content)
            assert {response.headers["etag"] for response in (packed, other, bare)} == {plain.headers["etag"]}
            assert {response.headers["vary"] for response in (packed, other, bare)} == {"origin, accept-encoding"}
    refused = api.get(path, headers={"Accept": "text/html"})
    problem(refused, 406)


# ---- others who write ------------------------------------------------------------------------------------------------


def test_a_key_that_another_process_revokes(start_server):
    server = start_server()
    with server.client() as owner:
        key = create(owner, "api-keys", name="x", scopes=["tasks:read"])
    with server.client(key["secret"]) as client:
        before = remembered(client, "tasks")
        server.command("keys", "revoke", key["id"])
        problem(client.get("/v1/tasks"), 401)
        problem(client.get("/v1/tasks", headers={"If-None-Match": before.headers["etag"]}), 401)


def test_what_another_process_writes(start_server):
    server = start_server()
    with server.client() as client:
        before = remembered(client, "projects")
        users = remembered(client, "users")
        server.command("demo")
        assert read(client, "projects", before.headers["etag"]).status_code == 200
        assert read(client, "users", users.headers["etag"]).status_code == 200


def test_two_server_processes_never_show_the_past(start_server, database):
    if database == "sqlite":
        pytest.skip("one process serves an SQLite database")
    server = start_server("--workers", "2")
    clients = [server.client() for _ in range(6)]
    task = create(clients[0], "tasks", name="0")
    for client in clients:
        remembered(client, "tasks?fields=name")
    for number in range(1, 30):
        writer = clients[number % 6]
        assert writer.patch(f"/v1/tasks/{task['id']}", json={"name": str(number)}).status_code == 200
        for client in clients:
            assert read(client, "tasks?fields=name").json() == [{"name": str(number)}]
    for client in clients:
        client.close()


def test_after_a_restart_the_validator_still_holds(start_server):
    server = start_server()
    with server.client() as client:
        create(client, "tasks", name="x")
        before = remembered(client, "tasks")
    server.restart()
    with server.client() as client:
        assert read(client, "tasks", before.headers["etag"]).status_code == 304
        assert read(client, "tasks").content == before.content
