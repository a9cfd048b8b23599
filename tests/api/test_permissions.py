"""Who may do what, as one table over every operation; and that what somebody may not see does not exist for them.

Why a table: a right that nobody wrote down is a right that somebody has by accident. An operation without a row
fails the test.
"""

import time
from typing import Any, NamedTuple

import httpx2
import pytest
from taskade_server.http.api.route import Route
from taskade_server.http.routes import all_routes
from taskade_server.kit import ids

from tests.api.asking import codes, create, hand_over, listed, names, problem

NOWHERE = "http://127.0.0.1:59999/matrix"
PRINCIPALS = ("owner", "admin", "member", "guest editor", "guest viewer", "outsider", "wrong scope")

# One status for each principal. A dash: the list comes, without the object in question.
EVERYBODY_INSIDE = "200 200 200 200 200 404 403"
LISTED_INSIDE = "200 200 200 200 200 - 403"
EDITORS = "200 200 200 200 403 404 403"
EDITORS_DELETE = "204 204 204 204 403 404 403"
ADMINS = "200 200 403 403 403 404 403"
ADMINS_ADD = "201 201 403 403 403 404 403"
ADMINS_DELETE = "204 204 403 403 403 404 403"
MEMBERS = "200 200 200 404 404 404 403"
MEMBERS_LIST = "200 200 200 - - - 403"
MEMBERS_CREATE = "201 201 201 403 403 404 403"
THE_OWNER = "200 403 403 403 403 404 403"
ONLY_ME = "200 404 404 404 404 404 403"
ONLY_ME_LIST = "200 - - - - - 403"
MANAGERS = "200 200 404 404 404 404 403"
MANAGERS_LIST = "200 200 - - - - 403"
MEMBERS_CREATE_HERE = "201 201 201 403 403 404 403"
ANYBODY_CREATES = "201 201 201 201 201 201 403"
IN_A_PROJECT = "201 201 201 201 403 422 403"
SEVERAL = "200 200 200 200 403 422 403"

A_RULE = {"name": "A rule", "trigger": {"on": "manual"}, "actions": [{"do": "wait", "for": "P1D"}], "mode": "parallel"}
MATRIX = {
    "workspaces.list": LISTED_INSIDE,
    "workspaces.query": LISTED_INSIDE,
    "workspaces.query_post": LISTED_INSIDE,
    "workspaces.get": EVERYBODY_INSIDE,
    "workspaces.create": ANYBODY_CREATES,
    "workspaces.update": ADMINS,
    "workspaces.put": ADMINS,
    "workspaces.delete": "204 403 403 403 403 404 403",
    "workspaces.restore": THE_OWNER,
    "workspaces.members.list": EVERYBODY_INSIDE,
    "workspaces.members.add": ADMINS_ADD,
    "workspaces.members.update": ADMINS,
    "workspaces.members.put": ADMINS,
    "workspaces.members.remove": ADMINS_DELETE,
    "projects.list": LISTED_INSIDE,
    "projects.query": LISTED_INSIDE,
    "projects.query_post": LISTED_INSIDE,
    "projects.get": EVERYBODY_INSIDE,
    "projects.create": MEMBERS_CREATE,
    "projects.update": EDITORS,
    "projects.put": EDITORS,
    "projects.delete": EDITORS_DELETE,
    "projects.restore": EDITORS,
    "projects.archive": EDITORS,
    "projects.unarchive": EDITORS,
    "projects.members.list": EVERYBODY_INSIDE,
    "projects.members.add": "201 201 201 201 403 404 403",
    "projects.members.update": EDITORS,
    "projects.members.put": EDITORS,
    "projects.members.remove": EDITORS_DELETE,
    "tasks.list": LISTED_INSIDE,
    "tasks.query": LISTED_INSIDE,
    "tasks.query_post": LISTED_INSIDE,
    "tasks.get": EVERYBODY_INSIDE,
    "tasks.create": IN_A_PROJECT,
    "tasks.create_bulk": IN_A_PROJECT,
    "tasks.update_bulk": SEVERAL,
    "tasks.delete_bulk": SEVERAL,
    "tasks.update": EDITORS,
    "tasks.put": EDITORS,
    "tasks.delete": EDITORS_DELETE,
    "tasks.restore": EDITORS,
    "tasks.complete": EDITORS,
    "tasks.reopen": EDITORS,
    "tasks.move": EDITORS,
    "comments.list": LISTED_INSIDE,
    "comments.query": LISTED_INSIDE,
    "comments.query_post": LISTED_INSIDE,
    "comments.get": EVERYBODY_INSIDE,
    "comments.create": IN_A_PROJECT,
    "comments.update": THE_OWNER,
    "comments.put": THE_OWNER,
    "comments.delete": EDITORS_DELETE,
    "comments.restore": EDITORS,
    "templates.list": MEMBERS_LIST,
    "templates.query": MEMBERS_LIST,
    "templates.query_post": MEMBERS_LIST,
    "templates.get": MEMBERS,
    "templates.create": MEMBERS_CREATE,
    "templates.update": MEMBERS,
    "templates.put": MEMBERS,
    "templates.delete": "204 204 204 404 404 404 403",
    "templates.restore": MEMBERS,
    "users.list": LISTED_INSIDE,
    "users.query": LISTED_INSIDE,
    "users.query_post": LISTED_INSIDE,
    "users.get": EVERYBODY_INSIDE,
    "users.me": "200 200 200 200 200 200 200",
    "users.create": ADMINS_ADD,
    "users.update": ADMINS,
    "users.put": ADMINS,
    "users.delete": ADMINS_DELETE,
    "users.restore": ADMINS,
    "api-keys.list": ONLY_ME_LIST,
    "api-keys.query": ONLY_ME_LIST,
    "api-keys.query_post": ONLY_ME_LIST,
    "api-keys.get": ONLY_ME,
    "api-keys.create": ANYBODY_CREATES,
    "api-keys.update": ONLY_ME,
    "api-keys.put": ONLY_ME,
    "api-keys.delete": "204 404 404 404 404 404 403",
    "event-types.catalogue": "200 200 200 200 200 200 200",
    "webhooks.list": MANAGERS_LIST,
    "webhooks.query": MANAGERS_LIST,
    "webhooks.query_post": MANAGERS_LIST,
    "webhooks.get": MANAGERS,
    "webhooks.create": MEMBERS_CREATE_HERE,
    "webhooks.update": MANAGERS,
    "webhooks.put": MANAGERS,
    "webhooks.delete": "204 204 404 404 404 404 403",
    "webhooks.secret": MANAGERS,
    "webhooks.rotate_secret": MANAGERS,
    "webhooks.deliveries": MANAGERS,
    "webhooks.delivery": MANAGERS,
    "webhooks.resend": "202 202 404 404 404 404 403",
    "webhooks.health": MANAGERS,
    "webhooks.test": "202 202 404 404 404 404 403",
    "webhooks.recover": "202 202 404 404 404 404 403",
    "webhooks.replay": "202 202 404 404 404 404 403",
    "webhooks.replays": "- - 404 404 404 404 403",
    "webhooks.get_replay": MANAGERS,
    "webhooks.cancel_replay": MANAGERS,
    "automations.list": MANAGERS_LIST,
    "automations.query": MANAGERS_LIST,
    "automations.query_post": MANAGERS_LIST,
    "automations.get": MANAGERS,
    "automations.create": "201 201 201 201 403 422 403",
    "automations.update": MANAGERS,
    "automations.put": MANAGERS,
    "automations.delete": "204 204 404 404 404 404 403",
    "automations.runs": MANAGERS,
    "automations.run": MANAGERS,
    "automations.start": "202 202 404 404 404 404 403",
    "automations.cancel_run": MANAGERS,
    "automations.health": MANAGERS,
    "automations.warnings": "- - 404 404 404 404 403",
    "automations.explain": MANAGERS,
    "automations.test": MANAGERS,
    "automations.preview": "200 200 422 422 422 422 403",
    "automations.revert_run": MANAGERS,
    "automations.retry_run": "202 202 404 404 404 404 403",
    "secrets.list": MEMBERS_LIST,
    "secrets.query": MEMBERS_LIST,
    "secrets.query_post": MEMBERS_LIST,
    "secrets.get": MEMBERS,
    "secrets.create": "201 201 403 403 403 404 403",
    "secrets.update": "200 200 403 404 404 404 403",
    "secrets.put": "200 200 403 404 404 404 403",
    "secrets.delete": "204 204 403 404 404 404 403",
    **dict.fromkeys(
        ("audit.entries", "audit.checkpoint", "audit.proof", "audit.key", "audit.export"), "200 200 403 403 403 404 403"
    ),
    "batch": EDITORS,
    "events.revert": "200 200 200 200 403 404 404",
    "events.revert_many": "200 200 200 200 403 404 404",
    "sync": "200 200 200 200 200 200 200",
    "events.list": "200 200 200 200 200 200 200",
    "events.get": "200 200 200 200 200 404 404",
    "stream-tickets.create": "201 201 201 201 201 201 201",
    "events.stream": "200 200 200 200 200 200 200",
}


@pytest.fixture(scope="session")
def bystander(api):
    """Somebody in the workspace to whom things are done."""
    email = f"{ids.new('user')}@example.com"
    return create(api, "users", name="A bystander", email=email)["id"]


@pytest.fixture(scope="session")
def principals(api, an_admin, a_member, a_guest, a_viewer, a_stranger, key_with):
    """The clients of the table's columns; the last one has one key for most operations and one for the others."""
    clients = [api, an_admin.client, a_member.client, a_guest.client, a_viewer.client, a_stranger.client]
    return {
        **dict(zip(PRINCIPALS, clients, strict=False)),
        "wrong scope": key_with(["api-keys:write"]),
        "another wrong scope": key_with(["tasks:write"]),
    }


class Target(NamedTuple):
    """An object to which things are done: its id, the project, workspace or task that it is in, perhaps an event."""

    id: str
    parent: str = ""
    event: str = ""


@pytest.fixture
def place(api, home, bystander, an_admin, a_member, a_guest, a_viewer):
    """Makes what an operation needs, anew for each principal: what one of them did must not help the next."""

    workspaces: list[str] = []
    kept: list[str] = []

    def project() -> Target:
        roles = {a_guest.id: "editor", a_viewer.id: "viewer", bystander: "viewer"}
        members = [{"user": user, "role": role} for user, role in roles.items()]
        return Target(create(api, "projects", name="A project", members=members)["id"], home)

    def workspace() -> Target:
        made = create(api, "workspaces", name="A workspace")["id"]
        workspaces.append(made)
        roles = {an_admin.id: "admin", a_member.id: "member", bystander: "member"}
        for user, role in {**roles, a_guest.id: "guest", a_viewer.id: "guest"}.items():
            create(api, f"workspaces/{made}/members", user=user, role=role)
        return Target(made, made)

    def task() -> Target:
        inside = project().id
        return Target(create(api, "tasks", name="A task", project_id=inside)["id"], inside)

    def comment() -> Target:
        inside = task().id
        return Target(create(api, "comments", task_id=inside, body="A remark")["id"], inside)

    def template() -> Target:
        return Target(create(api, "templates", name="A template")["id"], home)

    def user() -> Target:
        email = f"{ids.new('user')}@example.com"
        return Target(create(api, "users", name="Somebody", email=email)["id"], home)

    def key() -> Target:
        return Target(create(api, "api-keys", name="A key", scopes=["tasks:read"])["id"], home)

    def webhook() -> Target:
        """One of the owner's that has a delivery."""
        inside = create(api, "projects", name="A project")["id"]
        made = create(api, "webhooks", url=NOWHERE, project_id=inside)["id"]
        create(api, "tasks", name="A task", project_id=inside)
        while not api.get(f"/v1/webhooks/{made}/deliveries").json():
            time.sleep(0.01)
        return Target(made, home)

    def automation() -> Target:
        """One of the owner's that has a run which waits."""
        inside = project().id
        made = create(api, "automations", project_id=inside, **A_RULE)["id"]
        api.post(f"/v1/automations/{made}/runs").raise_for_status()
        return Target(made, inside, listed(api, "events", object_id=inside)[0]["id"])

    def secret() -> Target:
        made = create(api, "secrets", name=f"s{ids.new('x')[-12:]}", hosts=["a.example"], value="x")["id"]
        kept.append(made)
        return Target(made, home)

    def event() -> Target:
        inside = task()
        return Target(listed(api, "events", object_id=inside.id)[0]["id"], inside.id)

    yield {
        "events": event,
        "stream-tickets": task,
        "workspaces": workspace,
        "projects": project,
        "tasks": task,
        "comments": comment,
        "templates": template,
        "users": user,
        "api-keys": key,
        "batch": task,
        "event-types": task,
        "sync": task,
        "webhooks": webhook,
        "audit": template,
        "secrets": secret,
        "automations": automation,
    }
    heir = user().id if workspaces else ""
    for made in workspaces:
        hand_over(api, made, heir)
    for made in api.get("/v1/webhooks", params={"url": NOWHERE}).json():
        api.delete(f"/v1/webhooks/{made['id']}")
    for made in kept:
        api.delete(f"/v1/secrets/{made}")


def body_for(route: Route, target: Target, bystander: str) -> Any:
    """A body with which the operation succeeds for those who may."""
    kind = route.path.split("/")[1]
    creations: dict[str, dict[str, Any]] = {
        "workspaces": {"name": "New"},
        "projects": {"name": "New", "workspace_id": target.parent},
        "tasks": {"name": "New", "project_id": target.parent},
        "comments": {"body": "New", "task_id": target.parent},
        "templates": {"name": "New", "workspace_id": target.parent},
        "users": {"name": "New", "email": f"{ids.new('user')}@example.com", "workspace_id": target.parent},
        "api-keys": {"name": "New", "scopes": ["tasks:read"]},
        "webhooks": {"url": NOWHERE, "workspace_id": target.parent},
        "secrets": {"name": f"s{ids.new('x')[-12:]}", "hosts": ["a.example"], "value": "x",
                    "workspace_id": target.parent},
        "automations": {**A_RULE, "project_id": target.parent},
    }  # fmt: skip
    changes = {"comments": {"body": "Changed"}, "webhooks": {"description": "Changed"}, "secrets": {"value": "Changed"}}
    return {
        "create": creations.get(kind),
        "patch": changes.get(kind, {"name": "Changed"}),
        "query": {"filter": {"id": target.id}},
        "bulk_create": {"tasks": [creations["tasks"]]},
        "bulk_update": {"ids": [target.id], "set": {"name": "Changed"}},
        "bulk_delete": {"ids": [target.id]},
        "member": {"user": bystander, "role": "admin" if kind == "workspaces" else "editor"},
        "member_role": {"role": "guest" if kind == "workspaces" else "commenter"},
        "move": {"parent_id": None},
        "batch": {"operations": [{"method": "PATCH", "path": f"/tasks/{target.id}", "body": {"name": "Changed"}}]},
        "rotate_secret": {},
        "revert": {"event_ids": [target.id]},
        "recover": {"since": "2024-01-15T10:30:00Z"},
        "replay": {"after_seq": 0},
        "start": {
            "automations.preview": {"automation_id": target.id, "trials": 0},
            "automations.explain": {"event_id": target.event},
        }.get(route.operation_id, {}),
        "empty": {},
        "": None,
    }[route.body]


def test_every_operation_is_in_the_table():
    assert {route.operation_id for route in all_routes()} == set(MATRIX)


def alone(client: httpx2.Client, method: str, path: str, body: Any) -> tuple[int, Any]:
    """An operation's status and answer."""
    if path == "/events/stream":
        with client.stream(method, f"/v1{path}") as stream:
            return stream.status_code, None
    response = client.request(method, f"/v1{path}", **({} if body is None else {"json": body}))
    if response.status_code >= 400:
        problem(response, response.status_code)
        return response.status_code, None
    is_json = response.headers.get("content-type") == "application/json"
    return response.status_code, response.json() if is_json else None


def batched(client: httpx2.Client, method: str, path: str, body: Any) -> tuple[int, Any]:
    """The same of an operation that came in a batch."""
    response = client.post("/v1/batch", json={"operations": [{"method": method, "path": path, "body": body}]})
    if response.status_code >= 400:
        inner = problem(response, response.status_code, "batch-failed")["operation"]["problem"]
        assert inner["status"] == response.status_code
        return response.status_code, None
    (result,) = response.json()["results"]
    return result["status"], result["body"]


WAYS = [pytest.param(alone, route, id=route.operation_id) for route in all_routes()]
WAYS += [
    pytest.param(batched, route, id=f"{route.operation_id} in a batch") for route in all_routes() if route.batchable
]


@pytest.mark.parametrize("way, route", WAYS)
def test_matrix(way, route, api, principals, place, bystander):
    kind = route.path.split("/")[1]
    expected = dict(zip(PRINCIPALS, MATRIX[route.operation_id].split(), strict=True))
    found = {}
    for name in PRINCIPALS:
        target = place[kind]()
        if route.operation_id.endswith(".restore"):
            assert api.delete(f"/v1/{kind}/{target.id}").status_code == 204
        wrong = "another wrong scope" if kind == "api-keys" else "wrong scope"
        client = principals[wrong if name == "wrong scope" else name]
        path = route.path.replace("{id}", target.id).replace("{user}", bystander)
        if "{delivery}" in path:
            (delivery, *_) = api.get(f"/v1/webhooks/{target.id}/deliveries").json()
            path = path.replace("{delivery}", delivery["id"])
        if "{run}" in path:
            (run, *_) = api.get(f"/v1/automations/{target.id}/runs").json()
            if not path.endswith("/cancel"):
                api.post(f"/v1/automations/{target.id}/runs/{run['id']}/cancel").raise_for_status()
            path = path.replace("{run}", run["id"])
        if "{replay}" in path:
            begun = api.post(f"/v1/webhooks/{target.id}/recover", json={"since": "2024-01-15T10:30:00Z"})
            replay = begun.json()
            path = path.replace("{replay}", replay["id"])
        if route.listing and "members" not in route.path:
            path += f"?id={target.id}"
        if kind == "audit":
            path += f"?workspace_id={target.parent}{'&first=1' if path.endswith('/proof') else ''}"
        status, answer = way(client, route.method, path, body_for(route, target, bystander))
        found[name] = "-" if answer == [] else str(status)
    assert found == expected


# ---- what one may not see does not exist -----------------------------------------------------------------------------


@pytest.fixture
def secrets(api, me, home):
    """Ids of the owner's workspace, by prefix, all of things that are there."""
    project = create(api, "projects", name="Our secret plan")["id"]
    task = create(api, "tasks", name="Our secret task", project_id=project, assignee="me")["id"]
    return {
        "ws": home, "proj": project, "task": task, "user": me["id"],
        "cmt": create(api, "comments", task_id=task, body="Our secret remark")["id"],
        "tmpl": create(api, "templates", name="Our secret template")["id"],
        "key": create(api, "api-keys", name="Our secret key")["id"],
    }  # fmt: skip


def told(response, *places_of_ids):
    """An answer without what is different in any two: ids that were sent, and the request's own."""
    document = response.json()
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key not in ("request_id", "instance")}
    text = f"{response.status_code} {document}"
    for name in places_of_ids:
        text = text.replace(name, "<id>")
    return text


BODIES = {
    "a task's project": ("tasks", {"name": "x", "project_id": "proj"}),
    "a task's parent": ("tasks", {"name": "x", "parent_id": "task"}),
    "a task's blocker": ("tasks", {"name": "x", "blocked_by": ["task"]}),
    "a task's assignee": ("tasks", {"name": "x", "assignee": "user"}),
    "a task's workspace": ("tasks", {"name": "x", "workspace_id": "ws"}),
    "a project's workspace": ("projects", {"name": "x", "workspace_id": "ws"}),
    "a project's template": ("projects", {"name": "x", "template_id": "tmpl"}),
    "a project's members": ("projects", {"name": "x", "members": [{"user": "user", "role": "viewer"}]}),
    "a template's workspace": ("templates", {"name": "x", "workspace_id": "ws"}),
    "a comment's task": ("comments", {"body": "x", "task_id": "task"}),
    "a user's workspace": ("users", {"name": "x", "email": "new@example.com", "workspace_id": "ws"}),
    "a key's workspace": ("api-keys", {"name": "x", "workspace_ids": ["ws"]}),
    "a key's project": ("api-keys", {"name": "x", "project_ids": ["proj"]}),
    "several tasks": ("tasks/bulk", {"tasks": [{"name": "x"}], "project_id": "proj"}),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_foreign_id_in_a_body_is_as_unknown_as_one_that_never_was(case, outsider, secrets, heads):
    resource, body = BODIES[case]
    before = heads()

    def filled(node: Any, known: dict[str, str]) -> Any:
        if isinstance(node, dict):
            return {key: filled(value, known) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value, known) for value in node]
        return known.get(node, node)

    made_up = {prefix: ids.new(prefix) for prefix in secrets}
    foreign = outsider.post(f"/v1/{resource}", json=filled(body, secrets))
    unknown = outsider.post(f"/v1/{resource}", json=filled(body, made_up))
    assert foreign.status_code in (404, 422), foreign.text
    assert told(foreign, *secrets.values()) == told(unknown, *made_up.values())
    assert heads() == before


FILTERS = [
    ("tasks", "project_id", "proj"), ("tasks", "assignee", "user"), ("tasks", "parent_id", "task"),
    ("tasks", "blocked_by", "task"), ("tasks", "workspace_id", "ws"), ("tasks", "created_by", "user"),
    ("tasks", "id", "task"), ("projects", "id", "proj"), ("projects", "workspace_id", "ws"),
    ("projects", "template_id", "tmpl"), ("comments", "task_id", "task"), ("comments", "author", "user"),
    ("users", "id", "user"), ("workspaces", "id", "ws"), ("templates", "id", "tmpl"), ("api-keys", "id", "key"),
]  # fmt: skip


@pytest.mark.parametrize("resource, field, prefix", FILTERS, ids=lambda value: value)
def test_a_foreign_id_in_a_filter_finds_nothing_and_tells_nothing(resource, field, prefix, outsider, secrets):
    made_up = ids.new(prefix)
    for name in (field, f"{field}[$ne]", f"{field}[$in]"):
        foreign = outsider.get(f"/v1/{resource}", params={name: secrets[prefix], "count": "true"})
        unknown = outsider.get(f"/v1/{resource}", params={name: made_up, "count": "true"})
        assert told(foreign, secrets[prefix], made_up) == told(unknown, secrets[prefix], made_up)
        assert foreign.headers.get("total-count") == unknown.headers.get("total-count")
        assert "secret" not in foreign.text


def test_foreign_handles_and_addresses_are_unknown_too(outsider, a_member):
    for reference in ("owner", "owner@localhost", a_member.email):
        assert codes(problem(outsider.get("/v1/tasks", params={"assignee": reference}), 400)) == ["unknown_reference"]
        refused = problem(outsider.post("/v1/tasks", json={"name": "x", "assignee": reference}), 422)
        assert codes(refused) == ["unknown_reference"]


def test_foreign_things_are_in_no_list_search_or_count(outsider, secrets):
    for resource in ("tasks", "projects", "comments", "templates", "users", "workspaces", "api-keys"):
        for document in ({}, {"deleted": True}, {"q": "secret"}):
            if resource == "api-keys" and document:
                continue
            response = outsider.post(f"/v1/{resource}/query", json={**document, "count": True, "limit": 1000})
            assert response.status_code == 200
            assert not {item["id"] for item in response.json()} & set(secrets.values())
            assert int(response.headers["total-count"]) == len(response.json())
            assert not ("q" in document and response.json())


def test_a_cursor_is_good_for_its_owner_only(api, outsider, a_project):
    for index in range(3):
        create(api, "tasks", name=str(index), project_id=a_project["id"])
    link = api.get("/v1/tasks", params={"limit": 1}).headers["link"]
    path = link[link.index("/v1/") : link.index(">")]
    assert api.get(path).status_code == 200
    assert codes(problem(outsider.get(path), 400)) == ["cursor_of_another_query"]


def test_foreign_members_cannot_be_read_or_changed(outsider, a_stranger, secrets, me):
    user, ours = me["id"], {"ws": "workspaces", "proj": "projects"}
    for prefix, resource in ours.items():
        path = f"/v1/{resource}/{secrets[prefix]}/members"
        problem(outsider.get(path), 404)
        problem(outsider.post(path, json={"user": a_stranger.id, "role": "viewer"}), 404)
        problem(outsider.patch(f"{path}/{user}", json={"role": "viewer"}), 404)
        problem(outsider.delete(f"{path}/{user}"), 404)
    workspace = outsider.get("/v1/users/me").json()["workspace_id"]
    refused = problem(outsider.post(f"/v1/workspaces/{workspace}/members", json={"user": user}), 422)
    assert codes(refused) == ["unknown_reference"]


# ---- inside a workspace ----------------------------------------------------------------------------------------------


def test_a_private_project_is_hidden_from_members_and_open_to_admins(api, as_member, an_admin, a_member):
    project = create(api, "projects", name="A private plan", visibility="private")["id"]
    task = create(api, "tasks", name="A private task", project_id=project)["id"]
    open_project = create(api, "projects", name="An open plan")["id"]
    blocked = create(api, "tasks", name="Blocked", project_id=open_project, blocked_by=[task])["id"]

    problem(as_member.get(f"/v1/tasks/{task}"), 404)
    problem(as_member.get(f"/v1/projects/{project}"), 404)
    assert listed(as_member, "tasks", id=task) == []
    assert names(as_member, "tasks", q="private") == names(as_member, "projects", q="private") == []
    assert names(as_member, "tasks", project_id=project) == []
    seen = as_member.get(f"/v1/tasks/{blocked}", params={"include": "blocked_by"}).json()
    assert seen["blocked_by"] == [task], "the id stays, the task behind it is not told"
    assert an_admin.client.get(f"/v1/tasks/{task}").json()["name"] == "A private task"

    create(api, f"projects/{project}/members", user=a_member.id, role="viewer")
    assert names(as_member, "tasks", project_id=project) == ["A private task"]
    problem(as_member.patch(f"/v1/tasks/{task}", json={"name": "x"}), 403)
    assert api.delete(f"/v1/projects/{project}/members/{a_member.id}").status_code == 204
    problem(as_member.get(f"/v1/tasks/{task}"), 404)


def test_making_a_project_private_hides_it_at_once(api, as_member, a_task):
    assert as_member.get(f"/v1/tasks/{a_task['id']}").status_code == 200
    api.patch(f"/v1/projects/{a_task['project_id']}", json={"visibility": "private"})
    problem(as_member.get(f"/v1/tasks/{a_task['id']}"), 404)


def test_a_guest_sees_their_projects_only(api, as_guest, a_project, a_task):
    hidden = create(api, "projects", name="Not for guests")["id"]
    task = create(api, "tasks", name="Not for guests", project_id=hidden, blocked_by=[a_task["id"]])["id"]
    assert a_project["id"] in [item["id"] for item in listed(as_guest, "projects", limit=1000)]
    assert hidden not in [item["id"] for item in listed(as_guest, "projects", limit=1000)]
    problem(as_guest.get(f"/v1/tasks/{task}"), 404)
    problem(as_guest.get(f"/v1/projects/{hidden}/members"), 404)
    (workspace,) = listed(as_guest, "workspaces", id=a_project["workspace_id"], include="members")
    projects = {member["project_id"] for member in workspace["members"]}
    assert projects == {None}, "memberships of hidden projects are not told"
    problem(as_guest.post("/v1/tasks", json={"name": "x", "project_id": hidden}), 422)
    problem(as_guest.post(f"/v1/tasks/{a_task['id']}/move", json={"project_id": hidden}), 422)


def test_a_commenter_may_comment_and_nothing_else(api, a_viewer, as_viewer, a_project, a_task):
    problem(as_viewer.post("/v1/comments", json={"task_id": a_task["id"], "body": "x"}), 403)
    api.patch(f"/v1/projects/{a_project['id']}/members/{a_viewer.id}", json={"role": "commenter"})
    comment = create(as_viewer, "comments", task_id=a_task["id"], body="x")["id"]
    problem(as_viewer.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}), 403)
    assert as_viewer.patch(f"/v1/comments/{comment}", json={"body": "y"}).status_code == 200
    assert as_viewer.delete(f"/v1/comments/{comment}").status_code == 204


def test_a_move_needs_rights_on_both_sides(api, as_guest, a_viewer, a_guest, a_task):
    there = create(api, "projects", name="There", members=[{"user": a_guest.id, "role": "viewer"}])["id"]
    for body in ({"project_id": there}, {"project_id": there, "parent_id": None}):
        problem(as_guest.post(f"/v1/tasks/{a_task['id']}/move", json=body), 403)
    problem(as_guest.patch(f"/v1/tasks/{a_task['id']}", json={"project_id": there}), 403)
    api.patch(f"/v1/projects/{there}/members/{a_guest.id}", json={"role": "editor"})
    moved = as_guest.post(f"/v1/tasks/{a_task['id']}/move", json={"project_id": there})
    assert moved.json()["project_id"] == there


# ---- owners ----------------------------------------------------------------------------------------------------------


def test_a_workspace_keeps_an_owner(api, me, an_admin):
    workspace = create(api, "workspaces", name="Ours")["id"]
    members = f"/v1/workspaces/{workspace}/members"
    problem(api.patch(f"{members}/{me['id']}", json={"role": "member"}), 409)
    problem(api.delete(f"{members}/{me['id']}"), 409)
    problem(api.post(members, json={"user": me["id"], "role": "guest"}), 409)
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="owner")
    assert api.delete(f"{members}/{me['id']}").status_code == 204
    problem(api.get(f"/v1/workspaces/{workspace}"), 404)


def test_an_admin_cannot_make_or_unmake_owners(api, me, an_admin, a_member, bystander):
    workspace = create(api, "workspaces", name="Ours")["id"]
    members = f"/v1/workspaces/{workspace}/members"
    for user, role in ((an_admin.id, "admin"), (a_member.id, "owner"), (bystander, "member")):
        create(api, f"workspaces/{workspace}/members", user=user, role=role)
    admin = an_admin.client
    for user in (an_admin.id, bystander):
        problem(admin.patch(f"{members}/{user}", json={"role": "owner"}), 403)
        problem(admin.post(members, json={"user": user, "role": "owner"}), 403)
    email = f"{ids.new('user')}@example.com"
    body = {"name": "x", "email": email, "role": "owner", "workspace_id": workspace}
    problem(admin.post("/v1/users", json=body), 403)
    for owner in (me["id"], a_member.id):
        problem(admin.patch(f"{members}/{owner}", json={"role": "member"}), 403)
        problem(admin.post(members, json={"user": owner, "role": "member"}), 403)
        problem(admin.delete(f"{members}/{owner}"), 403)
    assert {item["role"] for item in listed(api, f"workspaces/{workspace}/members", user=me["id"])} == {"owner"}


def test_leaving_a_workspace_ends_everything_in_it(api, as_member, a_member):
    workspace = create(api, "workspaces", name="Ours")["id"]
    project = create(api, "projects", name="Ours", workspace_id=workspace)["id"]
    create(api, f"workspaces/{workspace}/members", user=a_member.id, role="guest")
    create(api, f"projects/{project}/members", user=a_member.id, role="editor")
    assert as_member.get(f"/v1/projects/{project}").status_code == 200
    assert as_member.delete(f"/v1/workspaces/{workspace}/members/{a_member.id}").status_code == 204
    problem(as_member.get(f"/v1/projects/{project}"), 404)
    assert listed(api, f"projects/{project}/members") == []


def test_a_workspace_in_the_trash_takes_its_content_along(api, as_member, a_member):
    workspace = create(api, "workspaces", name="Going")["id"]
    project = create(api, "projects", name="Going", workspace_id=workspace)["id"]
    create(api, f"workspaces/{workspace}/members", user=a_member.id, role="member")
    assert api.delete(f"/v1/workspaces/{workspace}").status_code == 204
    for client in (api, as_member):
        problem(client.get(f"/v1/projects/{project}"), 404)
        assert listed(client, "projects", id=project) == []
    assert api.post(f"/v1/workspaces/{workspace}/restore").status_code == 200
    assert as_member.get(f"/v1/projects/{project}").status_code == 200
