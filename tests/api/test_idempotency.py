"""Idempotency-Key: a write that is sent again has its effect once, and gets its first answer every time.

Why the bytes are compared and not the values: a client cannot know which difference between two answers to the same
request means that something happened twice.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from taskade_server.http.pipeline import idempotency
from taskade_server.kit import ids, time
from taskade_server.store.database import Database
from taskade_server.store.tables import replies

from tests.api.asking import codes, create, listed, places, problem
from tests.api.conftest import Person
from tests.support.rates import Budget

KEPT = ("etag", "location", "commit-seq", "preference-applied", "content-type")


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": ids.new("req")}


def same(first: httpx2.Response, again: httpx2.Response) -> None:
    """The second answer is the first one, and says so."""
    assert (again.status_code, again.content) == (first.status_code, first.content), again.text
    assert {name: again.headers.get(name) for name in KEPT} == {name: first.headers.get(name) for name in KEPT}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


# ---- every kind of write ---------------------------------------------------------------------------------------------


@pytest.fixture
def writes(api, me, a_project, a_task, a_member, invite):
    """One write of each kind: method, path, body."""
    comment = create(api, "comments", task_id=a_task["id"], body="x")["id"]
    template = create(api, "templates", name="x")["id"]
    key = create(api, "api-keys", name="x")["id"]
    project, task = a_project["id"], a_task["id"]
    tasks = create(api, "tasks/bulk", project_id=project, tasks=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
    trashed = tasks[2]["id"]
    assert api.delete(f"/v1/tasks/{trashed}").status_code == 204
    bulk = {"ids": [item["id"] for item in tasks[:2]]}
    operations = [{"method": "POST", "path": "/tasks", "body": {"name": "x", "project_id": project}}]
    return {
        "create a task": ("POST", "tasks", {"name": "x", "project_id": project}),
        "create a project": ("POST", "projects", {"name": "x", "members": [a_member.id]}),
        "create a project from a template": ("POST", "projects", {"name": "x", "template_id": template}),
        "create a workspace": ("POST", "workspaces", {"name": "x"}),
        "create a comment": ("POST", "comments", {"task_id": task, "body": "x"}),
        "create a template": ("POST", "templates", {"name": "x"}),
        "create a user": ("POST", "users", {"name": "x", "email": f"{ids.new('user')}@example.com"}),
        "create a key": ("POST", "api-keys", {"name": "x", "scopes": ["tasks:read"]}),
        "create tasks": ("POST", "tasks/bulk", {"project_id": project, "tasks": [{"name": "a"}, {"name": "b"}]}),
        "change tasks": ("PATCH", "tasks/bulk", {**bulk, "set": {"priority": "high"}}),
        "change each task": ("PATCH", "tasks/bulk", {"tasks": [{"id": tasks[0]["id"], "priority": "low"}]}),
        "delete tasks": ("DELETE", "tasks/bulk", bulk),
        "put": ("PUT", f"tasks/{task}", {"name": "New"}),
        "patch": ("PATCH", f"comments/{comment}", {"body": "New"}),
        "patch a key": ("PATCH", f"api-keys/{key}", {"name": "New"}),
        "delete": ("DELETE", f"comments/{comment}", None),
        "delete a project": ("DELETE", f"projects/{project}", None),
        "restore": ("POST", f"tasks/{trashed}/restore", None),
        "complete": ("POST", f"tasks/{task}/complete", None),
        "move": ("POST", f"tasks/{task}/move", {"parent_id": None}),
        "archive": ("POST", f"projects/{project}/archive", {}),
        "add a member": ("POST", f"projects/{project}/members", {"user": a_member.id, "role": "viewer"}),
        "batch": ("POST", "batch", {"operations": operations}),
        "with an include": ("PATCH", f"tasks/{task}?include=project&fields=name,project", {"name": "New"}),
    }  # fmt: skip


CASES = (
    "create a task", "create a project", "create a project from a template", "create a workspace", "create a comment",
    "create a template", "create a user", "create a key", "create tasks", "change tasks", "change each task",
    "delete tasks", "put", "patch", "patch a key", "delete", "delete a project", "restore", "complete", "move",
    "archive", "add a member", "batch", "with an include",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_second_time_nothing_happens_and_the_answer_is_the_same(case, api, writes, heads):
    assert set(writes) == set(CASES)
    method, path, body = writes[case]
    options = {"headers": new_key(), **({} if body is None else {"json": body})}
    first = api.request(method, f"/v1/{path}", **options)
    assert first.status_code in (200, 201, 204), first.text
    before = heads()
    for _ in range(2):
        same(first, api.request(method, f"/v1/{path}", **options))
    assert heads() == before


def test_what_happened_since_does_not_change_the_answer(api, a_task):
    path, options = f"/v1/tasks/{a_task['id']}", {"headers": new_key(), "json": {"name": "Mine"}}
    first = api.patch(path, **options)
    api.patch(path, json={"name": "Theirs"})
    same(first, api.patch(path, **options))
    assert api.get(path).json()["name"] == "Theirs", "the replay writes nothing"
    api.delete(path)
    same(first, api.patch(path, **options))


def test_a_version_that_has_passed_is_no_obstacle_to_a_replay(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    options = {"headers": {**new_key(), "If-Match": '"1"'}, "json": {"name": "Mine"}}
    same(api.patch(path, **options), api.patch(path, **options))


def test_a_change_of_nothing_can_be_repeated_too(api, a_task):
    path, options = f"/v1/tasks/{a_task['id']}", {"headers": new_key(), "json": {"name": a_task["name"]}}
    first = api.patch(path, **options)
    assert "commit-seq" not in first.headers
    api.patch(path, json={"name": "Theirs"})
    same(first, api.patch(path, **options))
    assert api.get(path).json()["name"] == "Theirs"


def test_an_answer_without_a_body(api, a_project):
    headers = {**new_key(), "Prefer": "return=minimal"}
    options = {"headers": headers, "json": {"name": "Quiet", "project_id": a_project["id"]}}
    first = api.post("/v1/tasks", **options)
    assert first.content == b""
    same(first, api.post("/v1/tasks", **options))


def test_after_a_restart(start_server):
    server = start_server()
    options = {"headers": new_key(), "json": {"name": "Once"}}
    with server.client() as client:
        first = client.post("/v1/tasks", **options)
    server.restart()
    with server.client() as client:
        same(first, client.post("/v1/tasks", **options))
        assert len(listed(client, "tasks")) == 1


def test_after_a_crash(start_server):
    server = start_server()
    options = {"headers": new_key(), "json": {"name": "Once"}}
    with server.client() as client:
        first = client.post("/v1/tasks", **options)
    server.kill()
    server.start()
    with server.client() as client:
        same(first, client.post("/v1/tasks", **options))
        assert len(listed(client, "tasks")) == 1


def batch_with_a_project() -> dict[str, Any]:
    """A batch, with an Idempotency-Key, that creates a project; repeatable only as long as the rights are the same."""
    operations = [{"method": "POST", "path": "/projects", "body": {"name": "Once"}}]
    return {"headers": new_key(), "json": {"operations": operations}}


def test_a_members_batch_with_a_new_project_is_replayed_after_an_unrelated_change_of_rights(api, as_member):
    options = batch_with_a_project()
    first = as_member.post("/v1/batch", **options)
    same(first, as_member.post("/v1/batch", **options))
    create(api, "api-keys", name="unrelated", scopes=["tasks:read"])
    same(first, as_member.post("/v1/batch", **options))


def test_a_members_batch_with_a_new_project_is_replayed_after_a_restart(start_server):
    server, options = start_server(), batch_with_a_project()
    with server.client() as owner:
        create(owner, "users", name="A member", email="member@example.com", role="member")
    secret = server.create_key("theirs", "--user", "member@example.com")
    with server.client(secret) as client:
        first = client.post("/v1/batch", **options)
        assert first.status_code == 200
    server.restart()
    with server.client(secret) as client:
        same(first, client.post("/v1/batch", **options))


# ---- the secret of a new key -----------------------------------------------------------------------------------------


def test_a_new_keys_secret_is_given_again_although_nobody_has_kept_it(start_server):
    server = start_server()
    options = {"headers": new_key(), "json": {"name": "Lost on the way", "scopes": ["tasks:read"]}}
    with server.client() as client:
        first = client.post("/v1/api-keys", **options)
        secret = first.json()["secret"]
        same(first, client.post("/v1/api-keys", **options))
        with server.client(secret) as reader:
            assert reader.get("/v1/tasks").status_code == 200
        another = client.post("/v1/api-keys", **options | {"headers": new_key()}).json()
        assert another["secret"].rpartition("_")[0] != secret.rpartition("_")[0]
    server.stop()
    random_part = secret.split("_", 2)[2]
    if not server.database_url:
        stored = b"".join(path.read_bytes() for path in server.data.iterdir() if path.is_file())
        assert b"Lost on the way" in stored
        assert random_part.encode() not in stored
    server.start()
    with server.client() as client:
        same(first, client.post("/v1/api-keys", **options))


def test_no_column_of_the_stored_answers_holds_a_secret(api, database_of):
    headers = new_key()
    made = api.post("/v1/api-keys", json={"name": "x"}, headers=headers).json()
    rows = database_of.read_sync(lambda tx: tx.all("SELECT * FROM replies ORDER BY at DESC LIMIT 20"))
    found = [row for row in rows if made["id"] in str(row)]
    assert len(found) == 1
    assert made["secret"].split("_", 2)[2] not in str(found)
    assert headers["Idempotency-Key"] not in str(rows), "nor is the client's key kept as it was sent"


def test_the_same_key_of_two_people_makes_two_secrets(api, an_admin):
    options: Any = {"headers": new_key(), "json": {"name": "x", "scopes": ["tasks:read"]}}
    mine, theirs = (client.post("/v1/api-keys", **options).json() for client in (api, an_admin.client))
    assert mine["id"] != theirs["id"]
    assert mine["secret"] != theirs["secret"]


# ---- what makes it the same request ----------------------------------------------------------------------------------


def test_quoted_and_bare_keys_are_the_same(api, a_project):
    body, key = {"name": "x", "project_id": a_project["id"]}, ids.new("req")
    first = api.post("/v1/tasks", json=body, headers={"Idempotency-Key": key})
    same(first, api.post("/v1/tasks", json=body, headers={"Idempotency-Key": f'"{key}"'}))
    first = api.post("/v1/tasks", json=body, headers={"Idempotency-Key": f'a "b" {key}'})
    same(first, api.post("/v1/tasks", json=body, headers={"Idempotency-Key": f'"a \\"b\\" {key}"'}))


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "schlüssel", "a\tb"])
def test_malformed_keys(key, api, heads):
    before = heads()
    document = problem(
        api.post("/v1/tasks", json={"name": "x"}, headers={"Idempotency-Key": key.encode("latin-1")}), 400
    )
    assert (codes(document), places(document)) == (["invalid_key"], ["Idempotency-Key"])
    assert heads() == before


def test_the_longest_key(api, a_project):
    options = {"headers": {"Idempotency-Key": ids.new("req").ljust(255, "x")}, "json": {"name": "x"}}
    same(api.post("/v1/tasks", **options), api.post("/v1/tasks", **options))


def test_the_order_of_members_and_the_spelling_of_json_do_not_matter(api, a_project):
    headers = {**new_key(), "Content-Type": "application/json"}
    body = {"name": "Ä", "project_id": a_project["id"], "custom_fields": {"a": 1, "b": ["x", "y"]}, "estimate": 3}
    first = api.post("/v1/tasks", content=json.dumps(body), headers=headers)
    turned = {**dict(reversed(body.items())), "custom_fields": {"b": ["x", "y"], "a": 1}}
    for text in (json.dumps(turned), json.dumps(body, indent=4), json.dumps(body, ensure_ascii=False)):
        same(first, api.post("/v1/tasks", content=text.encode(), headers=headers))


def test_another_request_with_the_same_key_is_refused(api, a_project, a_task, heads):
    options: Any = {"headers": new_key()}
    body = {"name": "x", "project_id": a_project["id"], "labels": ["a", "b"]}
    assert api.post("/v1/tasks", json=body, **options).status_code == 201
    before = heads()
    task = f"/v1/tasks/{a_task['id']}"
    for response in (
        api.post("/v1/tasks", json={**body, "name": "y"}, **options),
        api.post("/v1/tasks", json={**body, "labels": ["b", "a"]}, **options),
        api.post("/v1/tasks", json={**body, "description": None}, **options),
        api.post("/v1/tasks?fields=id", json=body, **options),
        api.post("/v1/projects", json={"name": "x"}, **options),
        api.patch(task, json=body, **options),
        api.put(task, json=body, **options),
        api.delete(task, **options),
        api.post("/v1/batch", json={"operations": [{"method": "DELETE", "path": task}]}, **options),
    ):
        problem(response, 422, "idempotency-key-reused")
    assert heads() == before
    put, patch = ({"headers": new_key(), "json": {"name": "z"}} for _ in range(2))
    assert (api.put(task, **put).status_code, api.patch(task, **patch).status_code) == (200, 200)
    problem(api.patch(task, **put), 422, "idempotency-key-reused")
    changed = {"headers": {**put["headers"], "If-Match": '"1"'}, "json": {"name": "z"}}
    problem(api.put(task, **changed), 422, "idempotency-key-reused")


def test_numbers_and_booleans_are_not_the_same(api, a_project):
    headers = new_key()
    body = {"name": "x", "project_id": a_project["id"], "custom_fields": {"flag": True}}
    assert api.post("/v1/tasks", json=body, headers=headers).status_code == 201
    problem(api.post("/v1/tasks", json={**body, "custom_fields": {"flag": 1}}, headers=headers), 422)


def test_each_credential_has_keys_of_its_own(api, a_member, key_with, a_project):
    """Also another API key of the same user: what one key may be told, another may not."""
    options: Any = {"headers": new_key(), "json": {"name": "x", "project_id": a_project["id"]}}
    clients = [api, a_member.client, key_with(["*"])]
    made = [client.post("/v1/tasks", **options) for client in clients]
    assert [response.status_code for response in made] == [201] * 3
    assert len({response.json()["id"] for response in made}) == 3
    for client, first in zip(clients, made, strict=True):
        same(first, client.post("/v1/tasks", **options))


def test_reads_take_no_notice_of_it(api, a_task):
    headers = new_key()
    for path in (f"tasks/{a_task['id']}", "tasks?limit=1"):
        assert "idempotent-replayed" not in api.get(f"/v1/{path}", headers=headers).headers
    response = api.post("/v1/tasks/query", json={"limit": 1}, headers=headers)
    assert (response.status_code, "idempotent-replayed" in response.headers) == (200, False)


# ---- what failed, and what is no longer allowed ----------------------------------------------------------------------


def test_a_failed_write_leaves_the_key_free(api, a_project, a_task, heads):
    headers = new_key()
    right = {"name": "x", "project_id": a_project["id"]}
    problem(api.post("/v1/tasks", json={**right, "name": ""}, headers=headers), 422, "validation-failed")
    problem(api.post("/v1/tasks", json={**right, "asignee": "x"}, headers=headers), 422, "validation-failed")
    problem(api.get("/v1/tasks/none", headers=headers), 404)
    problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}, headers={**headers, "If-Match": '"9"'}), 412)
    problem(api.post("/v1/tasks", content="{", headers={**headers, "Content-Type": "application/json"}), 400)
    first = api.post("/v1/tasks", json=right, headers=headers)
    assert first.status_code == 201
    same(first, api.post("/v1/tasks", json=right, headers=headers))


def test_a_dry_run_leaves_the_key_free(api, a_project):
    options = {"headers": new_key(), "json": {"name": "x", "project_id": a_project["id"]}}
    for _ in range(2):
        dry = api.post("/v1/tasks?dry_run=true", **options)
        assert (dry.status_code, dry.headers["dry-run"]) == (201, "true")
        assert "idempotent-replayed" not in dry.headers
    first = api.post("/v1/tasks", **options)
    same(first, api.post("/v1/tasks", **options))
    same(first, api.post("/v1/tasks?dry_run=false", **options))


def test_who_lost_sight_of_it_gets_no_answer(api, an_admin):
    workspace = create(api, "workspaces", name="Shared")["id"]
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="member")
    project = create(api, "projects", name="P", workspace_id=workspace)["id"]
    options: Any = {"headers": new_key(), "json": {"name": "Confidential", "project_id": project}}
    first = an_admin.client.post("/v1/tasks", **options)
    member = f"/v1/workspaces/{workspace}/members/{an_admin.id}"
    assert api.delete(member).status_code == 204
    gone = an_admin.client.post("/v1/tasks", **options)
    assert "Confidential" not in problem(gone, 404)["detail"]
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="member")
    same(first, an_admin.client.post("/v1/tasks", **options))
    api.patch(f"/v1/projects/{project}", json={"visibility": "private"})
    problem(an_admin.client.post("/v1/tasks", **options), 404)


def test_who_lost_sight_of_a_part_gets_no_answer(api, a_guest):
    here, there = (create(api, "projects", name=name, members=[a_guest.id])["id"] for name in "ab")
    operations = [{"method": "POST", "path": "/tasks", "body": {"name": "x", "project_id": p}} for p in (here, there)]
    options: Any = {"headers": new_key(), "json": {"operations": operations}}
    same(a_guest.client.post("/v1/batch", **options), a_guest.client.post("/v1/batch", **options))
    assert api.delete(f"/v1/projects/{there}/members/{a_guest.id}").status_code == 204
    problem(a_guest.client.post("/v1/batch", **options), 404, "not-found")


def test_who_ended_their_own_membership_can_still_repeat_it(api, an_admin):
    workspace = create(api, "workspaces", name="Shared")["id"]
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="member")
    path, options = f"/v1/workspaces/{workspace}/members/{an_admin.id}", {"headers": new_key()}
    same(an_admin.client.delete(path, **options), an_admin.client.delete(path, **options))


def test_a_revoked_key_is_told_nothing(server, api):
    made = create(api, "api-keys", name="x", scopes=["tasks:write"])
    options: Any = {"headers": new_key(), "json": {"name": "x"}}
    with server.client(made["secret"]) as client:
        assert client.post("/v1/tasks", **options).status_code == 201
        assert api.delete(f"/v1/api-keys/{made['id']}").status_code == 204
        problem(client.post("/v1/tasks", **options), 401, "unauthenticated")


def test_a_key_that_lost_its_scope(server, api, a_project):
    made = create(api, "api-keys", name="x", scopes=["tasks:write"])
    task: Any = {"headers": new_key(), "json": {"name": "x", "project_id": a_project["id"]}}
    operation = {"method": "POST", "path": "/tasks", "body": task["json"]}
    several: Any = {"headers": new_key(), "json": {"operations": [operation]}}
    with server.client(made["secret"]) as client:
        assert client.post("/v1/tasks", **task).status_code == 201
        assert client.post("/v1/batch", **several).status_code == 200
        api.patch(f"/v1/api-keys/{made['id']}", json={"scopes": ["projects:read"]})
        problem(client.post("/v1/tasks", **task), 403, "forbidden")
        problem(client.post("/v1/batch", **several), 403)


def test_a_key_that_was_limited_to_another_project(server, api, a_project):
    made = create(api, "api-keys", name="x", scopes=["tasks:write"])
    other = create(api, "projects", name="Another")["id"]
    options: Any = {"headers": new_key(), "json": {"name": "x", "project_id": a_project["id"]}}
    with server.client(made["secret"]) as client:
        assert client.post("/v1/tasks", **options).status_code == 201
        api.patch(f"/v1/api-keys/{made['id']}", json={"project_ids": [other]})
        problem(client.post("/v1/tasks", **options), 404)


def test_what_a_batch_has_read_is_not_given_again_to_whom_it_is_closed_now(server, api, a_project):
    """The project that was read is not one that was written to, so that only the rights as a whole can tell."""
    other = create(api, "projects", name="Read only")["id"]
    create(api, "tasks", name="to be read", project_id=other)
    made = create(api, "api-keys", name="x", project_ids=[a_project["id"], other])
    operations = [
        {"method": "POST", "path": "/tasks", "body": {"name": "x", "project_id": a_project["id"]}},
        {"method": "GET", "path": f"/tasks?project_id={other}"},
    ]
    options: Any = {"headers": new_key(), "json": {"operations": operations}}
    with server.client(made["secret"]) as client:
        first = client.post("/v1/batch", **options)
        assert "to be read" in first.text
        assert client.post("/v1/batch", **options).content == first.content
        api.patch(f"/v1/api-keys/{made['id']}", json={"project_ids": [a_project["id"]]})
        problem(client.post("/v1/batch", **options), 404)


# ---- at the same time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tasks", "batch"])
def test_many_at_once_have_one_effect(kind, api, server, a_project):
    task = {"name": "Once", "project_id": a_project["id"]}
    body = {"operations": [{"method": "POST", "path": "/tasks", "body": task}] * 30} if kind == "batch" else task
    for round_number in range(1, 6):
        options: Any = {"headers": new_key(), "json": body}
        with ThreadPoolExecutor(10) as threads, server.client() as client:
            answers = list(threads.map(lambda _, o=options: client.post(f"/v1/{kind}", **o), range(20)))
        done = [answer for answer in answers if answer.status_code != 409]
        for answer in answers:
            if answer.status_code == 409:
                problem(answer, 409, "idempotency-key-in-use")
                assert answer.headers["retry-after"] == "1"
        assert len({answer.content for answer in done}) == 1
        assert len([answer for answer in done if "idempotent-replayed" not in answer.headers]) == 1
        assert done[0].status_code in (200, 201)
        expected = round_number * (30 if kind == "batch" else 1)
        assert len(listed(api, "tasks", project_id=a_project["id"], limit=1000)) == expected
        assert api.post(f"/v1/{kind}", **options).headers["idempotent-replayed"] == "true"


def test_two_processes_share_the_keys(start_server, database):
    if database == "sqlite":
        pytest.skip("one process serves an SQLite database")
    server = start_server("--workers", "2")
    assert server.key, "made once, not by each thread"
    options: Any = {"headers": new_key(), "json": {"name": "Once"}}
    with ThreadPoolExecutor(8) as threads:

        def attempt(_):
            with server.client() as client:  # a connection of its own, so that it may reach either process
                return client.post("/v1/tasks", **options)

        answers = list(threads.map(attempt, range(24)))
    done = [answer for answer in answers if answer.status_code != 409]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in done}) == 1
    with server.client() as client:
        assert len(listed(client, "tasks")) == 1


def test_a_replay_costs_nothing(start_server):
    server = start_server("--rate-burst", "20", rate_limit="1/minute")
    options: Any = {"headers": new_key(), "json": {"name": "x"}}
    with server.client() as client:
        budget = Budget(20)
        first = budget.after(client.post("/v1/tasks", **options))
        for _ in range(10):
            same(first, budget.after(client.post("/v1/tasks", **options), cost=0))


# ---- what is kept ----------------------------------------------------------------------------------------------------


def kept(db: Database) -> int:
    """How many answers are kept."""
    row = db.read_sync(lambda tx: tx.one("SELECT COUNT(*) FROM replies"))
    return row[0] if row else 0


def test_a_batch_that_only_reads_keeps_no_answer(api, database_of, a_project, a_task):
    """So a key that may only read cannot fill the disk; what has no effect may be done again."""
    asked = f"/tasks?project_id={a_project['id']}"
    operations = [{"method": "GET", "path": asked}, {"method": "POST", "path": "/tasks/query", "body": {"limit": 1}}]
    before, header = kept(database_of), new_key()
    for _ in range(2):
        answer = api.post("/v1/batch", json={"operations": operations}, headers=header)
        assert answer.status_code == 200 and "idempotent-replayed" not in answer.headers
    assert kept(database_of) == before
    operations.append({"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {}})
    same(*(api.post("/v1/batch", json={"operations": operations}, headers=header) for _ in range(2)))
    assert kept(database_of) == before + 1


def reading_much(person: Person, size: int) -> list[dict[str, Any]]:
    """A small write, and reads whose answers together have more than so many characters."""
    task = create(person.client, "tasks", name="Long", description="x" * 90_000)["id"]
    reads = [{"method": "GET", "path": f"/tasks/{task}"}] * (size // 90_000 + 1)
    return [{"method": "PATCH", "path": f"/tasks/{task}", "body": {"priority": "high"}}, *reads]


def test_what_is_kept_of_large_answers_is_bounded_for_each_user(invite, database_of, heads):
    person, other = invite("member"), invite("member")
    hours, room = replies.KEPT_HOURS, idempotency.MAX_KEPT - 500_000
    database_of.write_sync(lambda tx: replies.count_kept(tx, person.id, room, hours))
    operations = reading_much(person, 300_000)
    first_key = new_key()
    first = person.client.post("/v1/batch", json={"operations": operations}, headers=first_key)
    same(first, person.client.post("/v1/batch", json={"operations": operations}, headers=first_key))
    before = heads()
    changed = reading_much(person, 700_000)
    before = heads()
    refused = person.client.post("/v1/batch", json={"operations": changed}, headers=new_key())
    document = problem(refused, 400)
    assert [(entry["code"], entry["parameter"]) for entry in document["errors"]] == [("too_many", "Idempotency-Key")]
    assert heads() == before, "a refused request writes nothing"
    assert person.client.post("/v1/batch", json={"operations": changed}).status_code == 200
    short = {**new_key(), "Prefer": "return=minimal"}
    assert person.client.post("/v1/batch", json={"operations": changed}, headers=short).status_code in (200, 204)
    theirs = reading_much(other, 700_000)
    assert other.client.post("/v1/batch", json={"operations": theirs}, headers=new_key()).status_code == 200


def test_answers_that_are_as_large_as_what_was_written_are_always_kept(invite, database_of):
    person = invite("member")
    database_of.write_sync(lambda tx: replies.count_kept(tx, person.id, idempotency.MAX_KEPT, replies.KEPT_HOURS))
    tasks = [{"name": f"Task {number}", "description": "x" * 1000} for number in range(200)]
    header = new_key()
    same(*(person.client.post("/v1/tasks/bulk", json={"tasks": tasks}, headers=header) for _ in range(2)))


def test_what_was_counted_goes_with_the_answers(database_of):
    user, hour = ids.new("user"), replies.HOUR_MS
    database_of.write_sync(lambda tx: replies.count_kept(tx, user, 7, 1))
    assert database_of.write_sync(lambda tx: replies.count_kept(tx, user, 5, 1)) == 12
    names = "SELECT name FROM counters WHERE name LIKE ?"
    database_of.write_sync(lambda tx: replies.delete_old(tx, time.now_ms() - 2 * hour, 0))
    assert database_of.read_sync(lambda tx: tx.all(names, (f"%{user}",))) != []
    database_of.write_sync(lambda tx: replies.delete_old(tx, time.now_ms() + 2 * hour, 0))
    assert database_of.read_sync(lambda tx: tx.all(names, (f"%{user}",))) == []


def test_an_answer_belongs_to_its_user_too(api, database_of, a_project):
    """Were a key's id ever given to somebody else, its answers would not be theirs."""
    header, body = new_key(), {"name": "Once", "project_id": a_project["id"]}
    assert api.post("/v1/tasks", json=body, headers=header).status_code == 201
    newest = "SELECT owner, key, places FROM replies ORDER BY at DESC LIMIT 1"
    owner, key, needs = database_of.read_sync(lambda tx: tx.one(newest)) or ("", "", "{}")
    foreign = json.dumps({**json.loads(needs), "user": ids.new("user")})
    change = "UPDATE replies SET places = ? WHERE owner = ? AND key = ?"
    database_of.write_sync(lambda tx: tx.run(change, (foreign, owner, key)))
    problem(api.post("/v1/tasks", json=body, headers=header), 422, "idempotency-key-reused")
