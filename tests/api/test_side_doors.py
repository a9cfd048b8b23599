"""No side doors: nothing can be read through another object that its own route refuses.

Generated from the resources: every relation, by every way of asking for it, with every scope, several limited keys and
every role. The judge is the server itself, asked by the direct route with the same key.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import httpx2
import pytest
from taskade_server.domain.identity import SCOPES
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine.model import REGISTRY, Relation, Resource
from taskade_server.kit.ids import new as new_id

from tests.api.asking import create, listed

READS = [f"{resource.plural}:read" for resource in RESOURCES]
WRITABLE = ("name", "description", "body")
"""A member that most resources have and that the owner may write."""


class World(NamedTuple):
    """One object of each resource, by plural name, and the two projects that they lie in."""

    ids: dict[str, str]
    project: str
    private: str


class Door(NamedTuple):
    """A path of one or two relations from a resource, and the resources whose scopes direct reading would take."""

    resource: Resource
    path: str
    takes: tuple[str, ...]


def taken(owner: Resource, relation: Relation) -> str:
    """Whose route reads the target of a relation: members are read at what they are members of."""
    return owner.plural if relation.target == "member" else REGISTRY[relation.target].plural


def doors(depth: int) -> Iterator[Door]:
    for resource in RESOURCES:
        for relation in resource.relations:
            here = Door(resource, relation.name, (taken(resource, relation),))
            if depth == 1:
                yield here
                continue
            target = REGISTRY[relation.target]
            for deeper in target.relations:
                path, takes = f"{here.path}.{deeper.name}", (*here.takes, taken(target, deeper))
                yield Door(resource, path, takes)


@pytest.fixture(scope="module")
def world(api: httpx2.Client, a_member: Any, a_guest: Any, a_viewer: Any) -> World:
    """Tasks of an open project that refer to tasks of a private one, and the other way round."""
    template = create(api, "templates", name="T", tasks=[{"name": "Planted"}])["id"]
    members = [{"user": a_guest.id, "role": "editor"}, {"user": a_viewer.id, "role": "viewer"}]
    project = create(api, "projects", name="Open", template_id=template, members=members)["id"]
    private = create(api, "projects", name="Closed", visibility="private")["id"]
    ids = {"projects": project, "templates": template}
    ids["users"] = create(api, "users", name="Somebody", email=f"{new_id('user')}@door.example")["id"]
    hidden = create(api, "tasks", name="Hidden", project_id=private)["id"]
    above = create(api, "tasks", name="Above", project_id=project, assignee=a_member.id)["id"]
    ids["tasks"] = create(
        api, "tasks", name="Seen", project_id=project, parent_id=above, blocked_by=[hidden, above], assignee="me"
    )["id"]
    create(api, "tasks", name="Hidden, too", project_id=private, blocked_by=[ids["tasks"]], parent_id=hidden)
    create(api, "tasks", name="Below", project_id=project, parent_id=ids["tasks"])
    create(api, "comments", task_id=hidden, body="Hidden remark")
    ids["comments"] = create(api, "comments", task_id=ids["tasks"], body="Remark")["id"]
    ids["workspaces"] = api.get(f"/v1/projects/{project}").json()["workspace_id"]
    ids["api-keys"] = listed(api, "api-keys", limit=1)[0]["id"]
    ids["webhooks"] = create(api, "webhooks", url="http://127.0.0.1:59999/door", project_id=project)["id"]
    rule = {"name": "door", "trigger": {"on": "manual"}, "actions": [{"do": "stop"}]}
    ids["automations"] = create(api, "automations", project_id=project, **rule)["id"]
    ids["secrets"] = create(api, "secrets", name="door", hosts=["a.example"], value="x")["id"]
    return World(ids, project, private)


@pytest.fixture(scope="module")
def open_key(server: Any, api: httpx2.Client) -> Iterator[Callable[..., httpx2.Client]]:
    """Clients with a key of the owner, the same one for the same rights; what they say is not looked at closely."""
    known: dict[str, httpx2.Client] = {}

    def run(*scopes: str, **limits: Any) -> httpx2.Client:
        name = f"{sorted(scopes)} {limits}"
        if name not in known:
            secret = create(api, "api-keys", name="door", scopes=list(scopes), **limits)["secret"]
            known[name] = server.client(secret, event_hooks={})
        return known[name]

    yield run
    for client in known.values():
        client.close()


def refused(client: httpx2.Client, plural: str) -> bool:
    """Whether a key may not read a kind of resource by its own route."""
    status = client.get(f"/v1/{plural}?limit=1").status_code
    assert status in (200, 403)
    return status == 403


# ---- scopes ----------------------------------------------------------------------------------------------------------


def ways(resource: Resource, object_id: str, path: str) -> dict[str, tuple[str, str, Any]]:
    """All the ways to ask for an include: method, path and body."""
    plural, one = resource.plural, f"{resource.plural}/{object_id}"
    found: dict[str, tuple[str, str, Any]] = {
        "read": ("GET", f"{one}?include={path}", None),
        "list": ("GET", f"{plural}?id={object_id}&include={path}", None),
        "brackets": ("GET", f"{plural}?id={object_id}&include[]={path}&fields=id", None),
        "QUERY": ("QUERY", plural, {"filter": {"id": object_id}, "include": [path]}),
        "POST query": ("POST", f"{plural}/query", {"filter": {"id": object_id}, "include": path}),
    }
    # A key changes a webhook only if it reaches as far as the one that made it.
    if plural != "webhooks":
        found["answer of a change"] = ("PATCH", f"{one}?include={path}", {})
        found["tried change"] = ("PUT", f"{one}?include={path}&dry_run=true", {})
    if resource.trash:
        found["answer of a verb"] = ("POST", f"{one}/restore?include={path}", None)
    inner = {"method": "GET", "path": f"/{found['read'][1]}"}
    found["batch"] = ("POST", "batch", {"operations": [inner]})
    asked = {"method": "POST", "path": f"/{plural}/query", "body": {"filter": {"id": object_id}, "include": path}}
    found["batched query"] = ("POST", "batch", {"operations": [asked]})
    return found


def test_an_include_takes_the_scope_of_what_it_shows_by_every_way(open_key, world):
    faults, cases = [], 0
    for door in doors(1):
        for scope in {f"{door.resource.plural}:write", *(f"{plural}:read" for plural in door.takes)}:
            client = open_key(f"{door.resource.plural}:write", scope)
            closed = [plural for plural in door.takes if refused(client, plural)]
            for way, (method, path, body) in ways(door.resource, world.ids[door.resource.plural], door.path).items():
                answer = client.request(method, f"/v1/{path}", **({} if body is None else {"json": body}))
                cases += 1
                if answer.status_code != (403 if closed else 200):
                    faults.append((door.resource.plural, door.path, way, scope, answer.status_code, answer.text[:200]))
                elif closed and f"{closed[0]}:read" not in answer.text:
                    faults.append((door.resource.plural, door.path, way, scope, "names no scope", answer.text[:200]))
    assert faults == []
    assert cases > 300


def test_an_include_through_another_takes_the_scopes_of_both(open_key, world):
    faults, cases = [], 0
    for door in doors(2):
        one = f"/v1/{door.resource.plural}/{world.ids[door.resource.plural]}?include={door.path}"
        first, second = door.takes
        for scopes in ({first}, {second}, {first, second}):
            client = open_key(*sorted(f"{plural}:read" for plural in {door.resource.plural, *scopes}))
            closed = any(refused(client, plural) for plural in door.takes)
            status = client.get(one).status_code
            cases += 1
            if status != (403 if closed else 200):
                faults.append((one, sorted(scopes), status))
    assert faults == []
    assert cases > 200


@pytest.mark.parametrize("scope", SCOPES)
def test_a_single_scope_opens_one_kind_of_resource(scope, open_key, world):
    """Whatever a key with one scope is shown, by any list with any include, is of a kind that it may read directly."""
    client = open_key(scope)
    may = {resource.plural for resource in RESOURCES if not refused(client, resource.plural)}
    for resource in RESOURCES:
        names = ",".join(resource.includes)
        for include in {names, *resource.includes, ""}:
            found = client.get(f"/v1/{resource.plural}/{world.ids[resource.plural]}?include={include}")
            assert found.status_code in (200, 403)
            if found.status_code == 200:
                shown = {plural for plural, _, _ in embedded(found.json())}
                assert shown <= may, (resource.plural, include)
        told = client.get(f"/v1/events?object_id={world.ids[resource.plural]}")
        assert told.status_code == 200 and (resource.plural in may or told.json() == [])


@pytest.mark.parametrize("way", ["alone", "dry run", "batch"])
def test_a_template_takes_the_right_to_read_it_and_to_make_its_tasks(way, open_key, world):
    faults = []
    body = {"name": "From a template", "template_id": world.ids["templates"]}
    for extra in ("templates:read", "templates:write", "tasks:read", "tasks:write", "projects:read", "users:read"):
        for more in ("templates:read", "tasks:write", "comments:write"):
            client = open_key("projects:write", extra, more)
            reads = client.get(f"/v1/templates/{world.ids['templates']}").status_code == 200
            makes = "tasks:write" in (extra, more)
            if way == "batch":
                operation = {"method": "POST", "path": "/projects", "body": body}
                status = client.post("/v1/batch", json={"operations": [operation]}).status_code
                right = 200
            else:
                status = client.post(
                    f"/v1/projects{'?dry_run=true' if way == 'dry run' else ''}", json=body
                ).status_code
                right = 201
            if status != (right if reads and makes else 403):
                faults.append((extra, more, status))
    assert faults == []


def test_a_template_without_tasks_needs_no_right_to_make_tasks(api, open_key):
    bare = create(api, "templates", name="Bare")["id"]
    client = open_key("projects:write", "templates:read")
    assert client.post("/v1/projects", json={"name": "x", "template_id": bare}).status_code == 201


@pytest.mark.parametrize("way", ["events/revert?dry_run=true", "events/revert"])
def test_the_receipt_of_an_undo_shows_nothing_beyond_the_scopes(way, api, open_key):
    project = create(api, "projects", name="Undone")["id"]
    task = create(api, "tasks", name="Inside", project_id=project)["id"]
    create(api, "comments", task_id=task, body="Inside, too")
    client = open_key("projects:write")
    assert client.delete(f"/v1/projects/{project}").status_code == 204
    (event,) = listed(api, "events", types="project.deleted", object_id=project)
    done = client.post(f"/v1/{way}", json={"event_ids": [event["id"]]})
    assert done.status_code == 200, done.text
    assert {change["resource"] for change in done.json()["changes"]} == {"project"}


def test_a_kept_answer_is_not_given_to_a_key_that_lost_the_scope_of_an_include(server, api, world):
    made = create(api, "api-keys", name="door", scopes=["tasks:write", "comments:read"])
    asked = f"/v1/tasks/{world.ids['tasks']}?include=comments"
    with server.client(made["secret"]) as client:
        options = {"json": {"name": "Seen"}, "headers": {"Idempotency-Key": made["id"]}}
        assert "Remark" in client.patch(asked, **options).text
        api.patch(f"/v1/api-keys/{made['id']}", json={"scopes": ["tasks:write"]})
        again = client.patch(asked, **options)
        assert (again.status_code, "Remark" in again.text) == (403, False)


# ---- roles and limited keys ------------------------------------------------------------------------------------------


def embedded(node: Any, top: bool = True) -> Iterator[tuple[str, str, Any]]:
    """The objects inside of a document, as (plural name, id, document)."""
    if isinstance(node, dict):
        if not top and isinstance(node.get("id"), str):
            prefix = node["id"].partition("_")[0]
            for resource in RESOURCES:
                if resource.prefix == prefix:
                    yield resource.plural, node["id"], node
        yield from chain.from_iterable(embedded(value, False) for value in node.values())
    elif isinstance(node, list):
        yield from chain.from_iterable(embedded(value, False) for value in node)


CALLERS = (
    "owner",
    "admin",
    "member",
    "guest editor",
    "guest viewer",
    "stranger",
    "one project",
    "another project",
    "another workspace",
)


@pytest.fixture(scope="module")
def callers(server: Any, api: httpx2.Client, world: World, open_key: Any, request: Any) -> dict[str, httpx2.Client]:
    """A client for each role, and some whose key is limited."""
    people = {
        "admin": "an_admin",
        "member": "a_member",
        "guest editor": "a_guest",
        "guest viewer": "a_viewer",
        "stranger": "a_stranger",
    }
    elsewhere = create(api, "workspaces", name="Another")["id"]
    return {
        "owner": open_key("*"),
        **{name: request.getfixturevalue(fixture).client for name, fixture in people.items()},
        "one project": open_key("*", project_ids=[world.project]),
        "another project": open_key("*", project_ids=[world.private]),
        "another workspace": open_key("*", workspace_ids=[elsewhere]),
    }


def unreadable(client: httpx2.Client, found: Iterator[tuple[str, str, Any]], known: dict[str, Any]) -> list[Any]:
    """Those objects that the direct route does not show as they are shown here."""
    faults = []
    for plural, object_id, shown in found:
        if object_id not in known:
            answer = client.get(f"/v1/{plural}/{object_id}")
            if answer.status_code == 404:  # people in the trash stay members, and a list shows who they are
                (found_there,) = client.get(f"/v1/{plural}?deleted=true&id={object_id}").json() or [answer.status_code]
                known[object_id] = found_there
            else:
                known[object_id] = answer.json() if answer.status_code == 200 else answer.status_code
        direct = known[object_id]
        names = () if isinstance(direct, int) else ("name", "body", "project_id", "email")
        if isinstance(direct, int) or any(shown.get(name, direct.get(name)) != direct.get(name) for name in names):
            faults.append((plural, object_id, direct))
    return faults


@pytest.fixture(scope="module")
def everything(api: httpx2.Client, world: World) -> dict[str, list[str]]:
    """The ids of all objects of the world, by plural name."""
    found = {plural: [name] for plural, name in world.ids.items()}
    for plural in ("tasks", "comments"):
        for project in (world.project, world.private):
            found[plural] += [item["id"] for item in listed(api, plural, project_id=project)]
    found["projects"].append(world.private)
    return found


@pytest.mark.parametrize("caller", CALLERS)
def test_what_an_include_shows_the_direct_route_shows_too(caller, callers, everything):
    client, faults = callers[caller], []
    known: dict[str, Any] = {}
    for door in (*doors(1), *doors(2)):
        for object_id in everything[door.resource.plural]:
            answer = client.get(f"/v1/{door.resource.plural}/{object_id}?include={door.path}")
            if answer.status_code == 200:
                faults += [(door, fault) for fault in unreadable(client, embedded(answer.json()), known)]
            else:
                assert answer.status_code == 404, answer.text
    assert faults == []


@pytest.mark.parametrize("caller", CALLERS)
def test_events_and_sync_tell_of_what_the_direct_route_shows(caller, callers, world, everything):
    client = callers[caller]
    direct = {
        name: client.get(f"/v1/{plural}/{name}").status_code == 200
        for plural in everything
        for name in everything[plural]
    }
    # Of people and workspaces events tell their part in this one, and not what they are today.
    for name in chain.from_iterable(
        everything[plural] for plural in ("projects", "tasks", "comments", "templates", "secrets")
    ):
        assert direct[name] or client.get(f"/v1/events?object_id={name}").json() == [], name
    for project in (world.project, world.private):
        answer = client.get(f"/v1/sync?workspace_id={world.ids['workspaces']}&project_id={project}")
        assert (answer.status_code == 200) == direct[project], answer.text
        if answer.status_code == 200:
            assert unreadable(client, embedded(answer.json()), {}) == []


@pytest.mark.parametrize("caller", CALLERS)
def test_lists_and_searches_show_what_the_direct_route_shows(caller, callers, world):
    client = callers[caller]
    known: dict[str, Any] = {}
    hidden = client.get(f"/v1/projects/{world.private}").status_code != 200
    for plural in ("tasks", "projects", "comments"):
        for asked in ("", "q=Hidden", "sort=-created_at", "created_by=me", 'filter={"name":{"$prefix":"H"}}'):
            answer = client.get(f"/v1/{plural}?{asked}&limit=20&count=true")
            if answer.status_code == 200:
                assert unreadable(client, embedded(answer.json()), known) == []
                assert not (hidden and "Hidden" in answer.text)
        query = {"filter": {"project_id" if plural != "projects" else "id": world.private}, "count": True}
        answer = client.post(f"/v1/{plural}/query", json=query)
        assert answer.headers.get("total-count", "0") == "0" or not hidden
