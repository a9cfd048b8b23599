"""The audit log: who did what, when, from where, through which key; and what was refused to whom."""

import time

import pytest
from taskade_server.engine import audit
from taskade_server.kit import ids

from tests.api.asking import codes, create, expire, problem


def entries(client, **params):
    """The audit log as asked for."""
    names = {name.rstrip("_"): value for name, value in params.items()}
    response = client.get("/v1/audit", params=names)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def refused(api):
    """What is on record of a refusal, once it is."""

    def read(response, **params):
        until = time.monotonic() + 60
        while True:
            found = entries(api, request_id=response.headers["x-request-id"], **params)
            if found:
                return found[0]
            assert time.monotonic() < until, "nothing was written down"
            time.sleep(0.05)

    return read


@pytest.fixture
def installation(database_of):
    """The newest entry of the installation's own log that a request made."""

    def read(response):
        until = time.monotonic() + 60
        while True:
            row = database_of.read_sync(
                lambda tx: tx.one(
                    "SELECT workspace_id, action, outcome, key_id, address, times FROM accesses WHERE request_id = ?",
                    (response.headers["x-request-id"],),
                )
            )
            if row:
                return row
            assert time.monotonic() < until, "nothing was written down"
            time.sleep(0.05)

    return read


# ---- what was changed ------------------------------------------------------------------------------------------------


def test_who_changed_the_due_date_of_this_task_from_where_and_through_which_key(server, api, me, a_project):
    """The story: a due date has moved, and somebody wants to know."""
    task = create(api, "tasks", name="Ship it", project_id=a_project["id"], due_date="2024-01-31")
    key = create(api, "api-keys", name="Nightly import", scopes=["tasks:write"])
    with server.client(key["secret"]) as importer:
        importer.headers["user-agent"] = "nightly-import/2.1"
        response = importer.patch(f"/v1/tasks/{task['id']}", json={"due_date": "2024-02-15", "priority": "high"})
        assert response.status_code == 200
    assert api.delete(f"/v1/api-keys/{key['id']}").status_code == 204, "and the key is gone by now"
    newest, first = entries(api, object_id=task["id"])
    assert newest["action"] == "task.updated" and newest["outcome"] == "success"
    assert newest["changes"]["due_date"] == {"from": "2024-01-31", "to": "2024-02-15"}
    assert newest["changes"]["priority"] == {"from": "none", "to": "high"}
    assert newest["actor"] == {"type": "user", "id": me["id"], "name": me["name"], "email": me["email"]}
    assert newest["key"] == {"id": key["id"], "name": "Nightly import", "prefix": key["prefix"]}
    assert (newest["address"], newest["user_agent"]) == ("127.0.0.1", "nightly-import/2.1")
    assert newest["request_id"] == response.headers["x-request-id"]
    assert newest["timestamp"] == response.json()["updated_at"]
    assert first["action"] == "task.created" and first["changes"]["name"] == {"from": None, "to": "Ship it"}
    assert [entry["id"] for entry in entries(api, key=key["id"], resource="task")] == [newest["id"]]
    assert [entry["id"] for entry in entries(api, key=key["prefix"], resource="task")] == [newest["id"]]


def test_the_whole_documents_on_request(api, a_task):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "Another name"})
    newest = entries(api, object_id=a_task["id"], include="data")[0]
    assert newest["data"]["name"] == "Another name" and newest["previous"]["name"] == "A task"
    assert "data" not in entries(api, object_id=a_task["id"])[0]


@pytest.mark.parametrize("how", ["alone", "batch", "bulk"])
def test_the_address_is_recorded_however_a_change_comes(api, a_project, how):
    body = {"name": "x", "project_id": a_project["id"]}
    headers = {"User-Agent": "a tool"}
    if how == "alone":
        response = api.post("/v1/tasks", json=body, headers=headers)
    elif how == "batch":
        operations = [{"method": "POST", "path": "/tasks", "body": body}]
        response = api.post("/v1/batch", json={"operations": operations}, headers=headers)
    else:
        response = api.post("/v1/tasks/bulk", json={"tasks": [body]}, headers=headers)
    assert response.status_code < 300, response.text
    (entry,) = entries(api, request_id=response.headers["x-request-id"])
    assert (entry["address"], entry["user_agent"]) == ("127.0.0.1", "a tool")


@pytest.mark.parametrize("trusted", [True, False])
def test_proxies_are_believed_if_they_are_trusted(start_server, trusted):
    server = start_server(*(["--trusted-proxies", "127.0.0.1"] if trusted else []))
    with server.client() as client:
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
        response = client.post("/v1/projects", json={"name": "x"}, headers=headers)
        (entry,) = entries(client, request_id=response.headers["x-request-id"])
        assert entry["address"] == ("203.0.113.9" if trusted else "127.0.0.1")


def test_private_projects_are_in_it(api, an_admin, a_member):
    project = create(a_member.client, "projects", name="Mine", visibility="private")
    task = create(a_member.client, "tasks", name="Mine", project_id=project["id"])
    assert an_admin.client.get(f"/v1/tasks/{task['id']}").status_code in (200, 404)
    assert [entry["action"] for entry in entries(an_admin.client, object_id=task["id"])] == ["task.created"]
    problem(a_member.client.get("/v1/audit"), 403)


# ---- filters and pages -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(api, invite):
    """A workspace of its own in which a few things happened, some of them refused."""
    workspace = create(api, "workspaces", name="Busy")["id"]
    member = invite("member", workspace_id=workspace)
    project = create(api, "projects", name="x", workspace_id=workspace)["id"]
    for number in range(12):
        task = create(member.client, "tasks", name=f"Task {number}", project_id=project)
        if number % 3 == 0:
            api.patch(f"/v1/tasks/{task['id']}", json={"priority": "high"})
    problem(member.client.delete(f"/v1/workspaces/{workspace}"), 403)
    problem(member.client.patch(f"/v1/workspaces/{workspace}", json={"name": "x"}), 403)
    until = time.monotonic() + 60
    while len(entries(api, workspace_id=workspace, outcome="denied")) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    return workspace, member, project


def test_newest_first_and_oldest_first_are_the_same_list(api, busy):
    workspace = busy[0]
    down = entries(api, workspace_id=workspace)
    up = entries(api, workspace_id=workspace, order="asc")
    assert down == up[::-1]
    changes = [entry["seq"] for entry in up if entry["log"] == "changes"]
    assert changes == list(range(1, len(changes) + 1))
    assert {entry["log"] for entry in up} == set(audit.LOGS)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_put_together_are_the_list(api, busy, order, limit):
    whole = entries(api, workspace_id=busy[0], order=order)
    response = api.get("/v1/audit", params={"workspace_id": busy[0], "order": order, "limit": limit})
    found = response.json()
    while "next" in response.links:
        response = api.get(response.links["next"]["url"])
        assert len(response.json()) <= limit
        found += response.json()
    assert found == whole


def test_filters(api, busy, me):
    workspace, member, project = busy

    def found(**params):
        return entries(api, workspace_id=workspace, **params)

    everything = found()

    def chosen(condition):
        return [entry for entry in everything if condition(entry)]

    cases = {
        ("action", "task.*"): lambda entry: entry["action"].startswith("task."),
        ("action", "task.updated,member.added"): lambda entry: entry["action"] in ("task.updated", "member.added"),
        ("action", "access.denied"): lambda entry: entry["action"] == "access.denied",
        ("action", "*"): lambda entry: True,
        ("actor", me["id"]): lambda entry: entry["actor"]["id"] == me["id"],
        ("actor", "me"): lambda entry: entry["actor"]["id"] == me["id"],
        ("actor", member.email): lambda entry: entry["actor"]["id"] == member.id,
        ("resource", "task"): lambda entry: entry["resource"] == "task",
        ("resource", "task,member"): lambda entry: entry["resource"] in ("task", "member"),
        ("project_id", project): lambda entry: entry["project_id"] == project,
        ("outcome", "denied"): lambda entry: entry["outcome"] == "denied",
        ("outcome", "success"): lambda entry: entry["outcome"] == "success",
        ("address", "127.0.0.1"): lambda entry: entry["address"] == "127.0.0.1",
        ("address", "192.0.2.1"): lambda entry: False,
        ("from", "2020-01-01"): lambda entry: True,
        ("to", "2020-01-01"): lambda entry: False,
        ("from", "+1d"): lambda entry: False,
    }
    for (name, value), condition in cases.items():
        assert found(**{name: value}) == chosen(condition), (name, value)
    middle = everything[len(everything) // 2]["timestamp"]
    assert found(from_=middle) == chosen(lambda entry: entry["timestamp"] >= middle)
    assert found(to=middle) == chosen(lambda entry: entry["timestamp"] < middle)
    both = {"action": "task.*", "actor": member.id}
    assert found(**both) == chosen(lambda entry: entry["actor"]["id"] == member.id and entry["resource"] == "task")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"acton": "task.*"}, "unknown_parameter"),
        ({"action": "task.finished"}, "unknown_action"),
        ({"action": "access.denid"}, "unknown_action"),
        ({"actor": "nobody-at-all"}, "unknown_reference"),
        ({"key": "CI"}, "invalid_format"),
        ({"resource": "taks"}, "not_allowed"),
        ({"outcome": "ok"}, "not_allowed"),
        ({"from": "yesterdayish"}, "invalid_format"),
        ({"limit": "0"}, "out_of_range"),
        ({"limit": "1001"}, "out_of_range"),
        ({"order": "down"}, "not_allowed"),
        ({"include": "everything"}, "not_allowed"),
        ({"cursor": "abc"}, "invalid_cursor"),
        ({"cursor": "é"}, "invalid_cursor"),
        ({"project_id": "x"}, "invalid_format"),
        ({"request_id": "x"}, "invalid_format"),
        ({"limit": ["1", "2"]}, "repeated"),
    ],
)
def test_what_cannot_be_understood(api, params, code):
    assert codes(problem(api.get("/v1/audit", params=params), 400)) == [code]


def test_a_cursor_belongs_to_its_question(api, busy):
    response = api.get("/v1/audit", params={"workspace_id": busy[0], "limit": 1})
    url = response.links["next"]["url"] + "&action=task.*"
    assert codes(problem(api.get(url), 400)) == ["cursor_of_another_query"]


def test_a_rare_entry_is_found_over_several_pages(api, busy, monkeypatch, database_of):
    """A page looks at so many entries only, and the order is kept where one log has not been looked through yet."""
    workspace = busy[0]
    monkeypatch.setattr(audit, "WINDOW", 4)
    for newest_first in (True, False):
        for wanted in (
            audit.AuditQuery(workspace, ("task.updated", "access.*")),
            audit.AuditQuery(workspace),
            audit.AuditQuery(workspace, ("workspace.created",)),
        ):
            position, found, more = audit.Position(), [], True
            while more:
                page = database_of.read_sync(
                    lambda tx, at=position, w=wanted, n=newest_first: audit.find(tx, w, at, 3, newest_first=n)
                )
                found += page.entries
                position, more = page.position, page.more
            monkeypatch.setattr(audit, "WINDOW", 10_000)
            whole = database_of.read_sync(
                lambda tx, w=wanted, n=newest_first: audit.find(tx, w, audit.Position(), 1000, newest_first=n)
            )
            monkeypatch.setattr(audit, "WINDOW", 4)
            assert [entry.id for entry in found] == [entry.id for entry in whole.entries]
            assert found


# ---- who may read it -------------------------------------------------------------------------------------------------


def test_it_takes_the_scope_and_the_role_and_a_key_that_reaches_everything(api, a_project, key_with, home):
    problem(key_with(["tasks:read"]).get("/v1/audit"), 403)
    assert key_with(["audit:read"]).get("/v1/audit").status_code == 200
    problem(key_with(["audit:read"], project_ids=[a_project["id"]]).get("/v1/audit"), 403)
    elsewhere = create(api, "workspaces", name="Elsewhere")["id"]
    limited = key_with(["audit:read"], workspace_ids=[elsewhere])
    problem(limited.get("/v1/audit", params={"workspace_id": home}), 404)
    assert limited.get("/v1/audit", params={"workspace_id": elsewhere}).status_code == 200


def test_one_workspace_knows_nothing_of_another(api, outsider, a_task):
    assert entries(outsider, object_id=a_task["id"]) == []
    problem(outsider.get("/v1/audit", params={"workspace_id": a_task["workspace_id"]}), 404)


# ---- what was refused ------------------------------------------------------------------------------------------------


def test_a_missing_scope_is_on_record(api, a_task, key_with, refused, me):
    weak = key_with(["tasks:read"])
    entry = refused(weak.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}, headers={"User-Agent": "a tool"}))
    assert (entry["action"], entry["outcome"]) == ("access.denied", "denied")
    assert (entry["operation"], entry["object_id"], entry["resource"]) == ("tasks.update", a_task["id"], "task")
    assert entry["actor"]["id"] == me["id"] and entry["key"]["name"] == "tests"
    assert (entry["address"], entry["user_agent"]) == ("127.0.0.1", "a tool")
    assert "tasks:write" in entry["reason"] and entry["id"].startswith("acc_")


def test_a_role_too_low_is_on_record_in_the_workspace_that_it_is_about(api, invite, refused, me, home):
    workspace = create(api, "workspaces", name="Another")["id"]
    member = invite("member")
    create(api, f"workspaces/{workspace}/members", user=member.id, role="member")
    response = member.client.post("/v1/users", json={"name": "x", "email": "x@example.com", "workspace_id": workspace})
    problem(response, 403)
    entry = refused(response, workspace_id=workspace)
    assert entry["actor"]["id"] == member.id and entry["operation"] == "users.create"
    assert entries(api, request_id=response.headers["x-request-id"]) == []


def test_a_refusal_inside_a_batch_is_on_record(api, as_viewer, a_viewer, a_task, refused):
    operations = [{"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"name": "x"}}]
    response = as_viewer.post("/v1/batch", json={"operations": operations})
    problem(response, 403, "batch-failed")
    entry = refused(response)
    assert entry["operation"] == "batch" and entry["actor"]["id"] == a_viewer.id


def test_nobody_writes_into_the_log_of_a_workspace_that_they_have_no_part_in(api, key_with, outsider, a_task, server):
    secret = create(outsider, "api-keys", name="weak", scopes=["tasks:read"])["secret"]
    with server.client(secret) as weak:
        response = weak.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"})
    problem(response, 403)
    until = time.monotonic() + 60
    while not (found := entries(outsider, request_id=response.headers["x-request-id"])):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert found[0]["workspace_id"] != a_task["workspace_id"]
    assert entries(api, request_id=response.headers["x-request-id"]) == []


def test_a_revoked_key_is_a_failed_login_in_its_workspace(api, server, me, refused):
    key = create(api, "api-keys", name="Was revoked")
    api.delete(f"/v1/api-keys/{key['id']}")
    with server.client(key["secret"]) as client:
        response = client.get("/v1/tasks")
    problem(response, 401)
    entry = refused(response)
    assert (entry["action"], entry["outcome"]) == ("login.failed", "failed")
    assert entry["key"] == {"id": key["id"], "name": "Was revoked", "prefix": key["prefix"]}
    assert entry["actor"]["id"] == me["id"] and entry["address"] == "127.0.0.1"


def test_an_expired_key_and_a_wrong_secret_are_failed_logins(api, server, refused):
    key = create(api, "api-keys", name="Short")
    with server.client(key["secret"]) as client:
        response = expire(api, key["id"], client)
    problem(response, 401)
    assert refused(response)["key"]["id"] == key["id"]


def test_an_address_that_is_not_allowed_is_on_record(key_with, refused):
    response = key_with(["*"], allowed_ips=["192.0.2.0/24"]).get("/v1/tasks")
    problem(response, 403)
    entry = refused(response)
    assert entry["outcome"] == "denied" and "127.0.0.1" in entry["reason"]


def test_an_unknown_key_belongs_to_the_installation(server, installation):
    with server.client("nonsense") as client:
        response = client.get("/v1/tasks")
    problem(response, 401)
    assert installation(response) == ("", "login.failed", "failed", None, "127.0.0.1", 1)
    assert "nonsense" not in str(installation(response))


def test_no_credential_is_no_login(server, database_of):
    with server.client() as client:
        del client.headers["authorization"]
        response = client.get("/v1/tasks")
        problem(response, 401)
    with server.client("again") as client:  # something behind it that is written down
        other = client.get("/v1/projects")
    until = time.monotonic() + 60

    def known(answer):
        sql = "SELECT 1 FROM accesses WHERE request_id = ?"
        return database_of.read_sync(lambda tx: tx.one(sql, (answer.headers["x-request-id"],))) is not None

    while not known(other):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not known(response)


def test_reading_a_secret_is_on_record(api, refused, me):
    webhook = create(api, "webhooks", url="https://example.com/x")
    entry = refused(api.get(f"/v1/webhooks/{webhook['id']}/secret"))
    assert (entry["action"], entry["outcome"], entry["object_id"]) == ("secret.read", "success", webhook["id"])
    assert entry["actor"]["id"] == me["id"] and entry["resource"] == "webhook"
    api.delete(f"/v1/webhooks/{webhook['id']}")


def test_refusals_move_nobody(api, as_viewer, a_task, heads, refused):
    before = heads()
    refused(as_viewer.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}))
    assert heads() == before


def test_a_flood_is_counted_not_copied(start_server):
    """Of the same thing two entries a minute at most, of one caller thirty; a normal stop loses nothing."""
    server = start_server()
    with server.client() as owner:
        key = create(owner, "api-keys", name="weak", scopes=["tasks:read"])["secret"]
        with server.client(key) as weak:
            for _ in range(200):
                problem(weak.post("/v1/tasks", json={"name": "x"}), 403)
            for _ in range(50):
                problem(weak.patch(f"/v1/tasks/{ids.new('task')}", json={"name": "x"}), 403)
    server.restart()
    with server.client() as owner:
        found = entries(owner, outcome="denied")
    assert sum(entry["times"] for entry in found) == 250
    assert len(found) < 70
    assert sum(entry["times"] for entry in found if entry["operation"] == "tasks.create") == 200
    assert sum(entry["times"] for entry in found if entry["action"] == "access.more") >= 21
    assert [entry["seq"] for entry in found] == list(range(len(found), 0, -1))
