"""?dry_run=true: the answer that a write would get, and no trace of it.

Why every operation: a dry run that writes is worse than none, and each verb has its own way to leave something behind.
"""

import time
from typing import Any

import pytest
from taskade_server.http.routes import all_routes
from taskade_server.kit import ids

from tests.api.asking import codes, create, hand_over, listed, places, problem
from tests.support.rates import Budget

NOWHERE = "http://127.0.0.1:59999/dry"
WRITES = [route for route in all_routes() if route.writes and not route.rolls_back]
TABLES = (
    "workspaces", "projects", "tasks", "comments", "templates", "users", "api_keys", "members", "events", "replies",
    "task_values", "project_values", "webhooks", "webhook_replays", "secrets",
    "automations", "automation_versions", "automation_runs",
)  # fmt: skip


@pytest.fixture
def rows(database_of):
    """Counts the rows of every table."""

    def count() -> dict[str, int]:
        def unit(tx: Any) -> dict[str, int]:
            return {table: tx.one(f"SELECT COUNT(*) FROM {table}")[0] for table in TABLES if exists(tx, table)}

        return dict(database_of.read_sync(unit))

    return count


def exists(tx: Any, table: str) -> bool:
    if tx.dialect == "postgresql":
        return bool(tx.one("SELECT to_regclass(?) IS NOT NULL", (table,))[0])
    return tx.one("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)) is not None


A_RULE = {"name": "A rule", "trigger": {"on": "manual"}, "actions": [{"do": "stop"}]}


def a_name() -> str:
    """A name that no secret has."""
    return f"s{ids.new('x')[-12:]}"


class Scene:
    """What each operation needs, made before anybody counts."""

    def __init__(self, api: Any) -> None:
        self.api = api
        email = f"{ids.new('user')}@example.com"
        self.user = create(api, "users", name="Somebody", email=email)["id"]
        self.heir = create(api, "users", name="An heir", email=f"{ids.new('user')}@example.com")["id"]
        self.project = create(api, "projects", name="P", members=[self.user])["id"]
        self.workspace = create(api, "workspaces", name="W")["id"]
        create(api, f"workspaces/{self.workspace}/members", user=self.user, role="member")
        self.task = create(api, "tasks", name="T", project_id=self.project)["id"]
        self.objects = {
            "workspaces": self.workspace,
            "projects": self.project,
            "tasks": self.task,
            "comments": create(api, "comments", task_id=self.task, body="x")["id"],
            "templates": create(api, "templates", name="x", tasks=[{"name": "a"}])["id"],
            "users": self.user,
            "api-keys": create(api, "api-keys", name="x")["id"],
            "webhooks": create(api, "webhooks", url=NOWHERE, project_id=self.project)["id"],
            "automations": create(api, "automations", project_id=self.project, **A_RULE)["id"],
            "secrets": create(api, "secrets", name=a_name(), hosts=["a.example"], value="x")["id"],
        }
        made = listed(api, "events", object_id=self.objects["comments"])
        self.objects["events"] = made[0]["id"]

    def end(self) -> None:
        """Nothing more is sent to nobody, and the workspace is somebody else's."""
        hand_over(self.api, self.workspace, self.heir)
        for webhook in listed(self.api, "webhooks", url=NOWHERE):
            self.api.delete(f"/v1/webhooks/{webhook['id']}")
        self.api.delete(f"/v1/secrets/{self.objects['secrets']}")

    def creation(self, kind: str) -> dict[str, Any]:
        """A body for a new object."""
        return {
            "workspaces": {"name": "New"},
            "projects": {"name": "New", "template_id": self.objects["templates"]},
            "tasks": {"name": "New", "project_id": self.project, "labels": ["a", "b"], "custom_fields": {"a": 1}},
            "comments": {"task_id": self.task, "body": "New"},
            "templates": {"name": "New"},
            "users": {"name": "New", "email": f"{ids.new('user')}@example.com"},
            "api-keys": {"name": "New"},
            "webhooks": {"url": NOWHERE},
            "secrets": {"name": a_name(), "hosts": ["a.example"], "value": "x"},
            "automations": A_RULE,
        }[kind]

    def body(self, route: Any) -> Any:
        """A body with which the operation succeeds and changes something."""
        kind = route.path.split("/")[1]
        named = {"comments": "body", "webhooks": "description", "secrets": "description"}
        new = {named.get(kind, "name"): "Changed"}
        operation = {"method": "POST", "path": "/tasks", "body": {"name": "New", "project_id": self.project}}
        return {
            "create": lambda: self.creation(kind),
            "patch": lambda: new,
            "bulk_create": lambda: {"tasks": [self.creation("tasks")] * 3},
            "bulk_update": lambda: {"ids": [self.task], "set": new},
            "bulk_delete": lambda: {"ids": [self.task]},
            "member": lambda: {"user": "owner", "role": "viewer" if kind == "projects" else "owner"},
            "member_role": lambda: {"role": "viewer" if kind == "projects" else "guest"},
            "move": lambda: {"project_id": create(self.api, "projects", name="Q")["id"]},
            "batch": lambda: {"operations": [operation, {"method": "DELETE", "path": f"/tasks/{self.task}"}]},
            "rotate_secret": dict,
            "recover": lambda: {"since": "2024-01-15T10:30:00Z"},
            "replay": lambda: {"after_seq": 0},
            "start": dict,
            "revert": lambda: {"event_ids": [self.objects["events"]]},
            "empty": dict,
            "": lambda: None,
        }[route.body]()

    def path(self, route: Any) -> str:
        thing = self.objects.get(route.path.split("/")[1], "")
        path = f"/v1{route.path}".replace("{id}", thing).replace("{user}", self.user)
        if "{run}" in path:
            waiting = {**A_RULE, "actions": [{"do": "wait", "for": "P1D"}], "project_id": self.project}
            thing = create(self.api, "automations", **waiting)["id"]
            started = self.api.post(f"/v1/automations/{thing}/runs").json()
            path = path.replace(self.objects["automations"], thing).replace("{run}", started[0]["id"])
            if not path.endswith("/cancel"):
                self.api.post(f"/v1/automations/{thing}/runs/{started[0]['id']}/cancel").raise_for_status()
            return path
        if "{delivery}" in path:
            create(self.api, "tasks", name="To be told of", project_id=self.project)
            while not (found := self.api.get(f"/v1/webhooks/{thing}/deliveries").json()):
                time.sleep(0.01)
            path = path.replace("{delivery}", found[0]["id"])
        if "{replay}" in path:
            begun = self.api.post(f"/v1/webhooks/{thing}/recover", json={"since": "2024-01-15T10:30:00Z"})
            path = path.replace("{replay}", begun.json()["id"])
        return path


def shape(value: Any) -> Any:
    """Which members there are; a dry run cannot know the ids and times of the real one."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


@pytest.fixture
def scene(api):
    found = Scene(api)
    yield found
    found.end()


# What is sent to a webhook changes nothing that the log tells of; a membership that is there already stays as it is.
SILENT = (
    "members.add",
    "webhooks.resend",
    "webhooks.test",
    "webhooks.recover",
    "webhooks.replay",
    "webhooks.cancel_replay",
    "automations.start",
    "automations.cancel_run",
    "automations.retry_run",
    "automations.revert_run",
)


@pytest.mark.parametrize("route", WRITES, ids=lambda route: route.operation_id)
def test_every_write_can_be_tried(route, api, scene, heads, rows):
    kind = route.path.split("/")[1]
    if route.operation_id.endswith(".restore"):
        assert api.delete(f"/v1/{kind}/{scene.objects[kind]}").status_code == 204
    if route.operation_id == "tasks.reopen":
        api.post(f"/v1/tasks/{scene.task}/complete")
    if route.operation_id == "projects.unarchive":
        api.post(f"/v1/projects/{scene.project}/archive")
    path, body = scene.path(route), scene.body(route)
    options = {} if body is None else {"json": body}
    before = (heads(), rows())
    for value in ("true", "1"):
        dry = api.request(route.method, path, params={"dry_run": value}, **options)
        assert dry.status_code == route.status, dry.text
        assert dry.headers["dry-run"] == "true"
        assert "commit-seq" not in dry.headers
    assert (heads(), rows()) == before
    real = api.request(route.method, path, params={"dry_run": "false"}, **options)
    assert (real.status_code, "dry-run" in real.headers) == (route.status, False)
    assert (real.headers.get("etag"), "location" in real.headers) == (
        dry.headers.get("etag"),
        "location" in dry.headers,
    )
    assert bool(real.content) == bool(dry.content)
    if real.content:
        assert shape(dry.json()) == shape(real.json())
    assert heads() != before[0] or route.operation_id.endswith(SILENT)


def test_what_was_tried_is_nowhere_to_be_found(api, a_project):
    word = ids.new("task")
    dry = api.post("/v1/tasks", params={"dry_run": "true"}, json={"name": word, "project_id": a_project["id"]}).json()
    problem(api.get(f"/v1/tasks/{dry['id']}"), 404)
    assert listed(api, "tasks", q=word) == listed(api, "tasks", project_id=a_project["id"]) == []
    assert listed(api, "tasks", id=dry["id"]) == []


def test_a_key_that_was_only_tried_opens_nothing(api, server):
    dry = api.post("/v1/api-keys", params={"dry_run": "true"}, json={"name": "x"}).json()
    with server.client(dry["secret"]) as client:
        problem(client.get("/v1/tasks"), 401)


def test_a_workspace_that_was_only_tried_gives_no_rights(api):
    dry = api.post("/v1/workspaces", params={"dry_run": "true"}, json={"name": "x"}).json()
    problem(api.get(f"/v1/workspaces/{dry['id']}"), 404)
    refused = problem(api.post("/v1/projects", json={"name": "x", "workspace_id": dry["id"]}), 404)
    assert refused["code"] == "not-found"


def test_a_role_that_was_only_tried_is_not_lost(api, a_guest):
    project = create(api, "projects", name="P", members=[{"user": a_guest.id, "role": "editor"}])["id"]
    path = f"/v1/projects/{project}/members/{a_guest.id}"
    assert api.delete(path, params={"dry_run": "true"}).status_code == 204
    create(a_guest.client, "tasks", name="Still here", project_id=project)


FAULTY = {
    "a wrong body": ("POST", "tasks", {"name": "", "priority": "hgih"}, 422),
    "an unknown member": ("POST", "tasks", {"name": "x", "asignee": "me"}, 422),
    "an unknown person": ("POST", "tasks", {"name": "x", "assignee": "nobody"}, 422),
    "an unknown object": ("PATCH", "tasks/task_00000000000000000000000000", {"name": "x"}, 404),
    "a wrong task of several": ("POST", "tasks/bulk", {"tasks": [{"name": "a"}, {"name": ""}]}, 422),
    "a wrong operation": ("POST", "batch", {"operations": [{"method": "DELETE", "path": "/tasks/x"}]}, 404),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faults_are_told_as_the_write_would(case, api, heads):
    method, path, body, status = FAULTY[case]
    before = heads()
    dry = problem(api.request(method, f"/v1/{path}?dry_run=true", json=body), status)
    real = problem(api.request(method, f"/v1/{path}", json=body), status)
    assert (dry["code"], dry["detail"], places(dry), codes(dry)) == (
        real["code"],
        real["detail"],
        places(real),
        codes(real),
    )
    assert heads() == before


def test_rights_and_versions_count(api, as_viewer, a_task, key_with):
    path = f"/v1/tasks/{a_task['id']}?dry_run=true"
    problem(as_viewer.patch(path, json={"name": "x"}), 403)
    problem(key_with(["tasks:read"]).patch(path, json={"name": "x"}), 403)
    document = problem(api.patch(path, json={"name": "x"}, headers={"If-Match": '"9"'}), 412)
    assert document["current"]["version"] == 1


def test_a_clash_is_found(api, a_task):
    problem(api.post("/v1/tasks?dry_run=true", json={"id": a_task["id"], "name": "x"}), 409)


@pytest.mark.parametrize("value", ["yes", "2", "TRUE", "null"])
def test_other_values_are_refused(value, api, heads):
    before = heads()
    document = problem(api.post("/v1/tasks", params={"dry_run": value}, json={"name": "x"}), 400)
    assert (codes(document), places(document)) == (["invalid_value"], ["dry_run"])
    twice = problem(api.post("/v1/tasks?dry_run=true&dry_run=false", json={"name": "x"}), 400)
    assert codes(twice) == ["repeated"]
    assert heads() == before


def test_a_read_has_no_dry_run(api):
    assert codes(problem(api.get("/v1/tasks?dry_run=true"), 400)) == ["unknown_parameter"]


def test_it_goes_with_what_shapes_the_answer(api, a_task):
    response = api.patch(f"/v1/tasks/{a_task['id']}?fields=name&dry_run=true", json={"name": "Dry"})
    assert response.json() == {"name": "Dry"}
    assert api.get(f"/v1/tasks/{a_task['id']}").json() == a_task


def test_a_try_costs_a_request(start_server):
    server = start_server(rate_limit="2/minute")
    with server.client() as client:
        Budget(2, 2).after(client.post("/v1/tasks?dry_run=true", json={"name": "x"}), cost=1)


def test_a_dry_run_leaves_no_role_behind(api, as_member, a_member):
    name = ids.new("proj")
    members = [{"user": a_member.id, "role": "viewer"}]
    dry = as_member.post("/v1/projects?dry_run=true", json={"id": name, "name": "Tried", "members": members})
    assert dry.status_code == 201, dry.text
    create(api, "projects", id=name, name="Made")
    assert as_member.patch(f"/v1/projects/{name}", json={"name": "Mine"}).status_code == 200
