"""Delta sync: whatever happens to objects and to rights, a client that folds the answers has what its user may see.

Why random: the ways in which changes of objects, of rights and of the client's place in them can follow each other are
too many to think of. A client is its token and what it has folded; answers get lost, come twice, and are of any size.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, places, problem

KINDS = ("workspaces", "users", "templates", "projects", "members", "tasks", "comments")


@dataclass
class Client:
    """An offline client: what it asks for, its token, and what it has by now."""

    http: httpx2.Client
    workspace: str
    more: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    has: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, limit: int) -> Any:
        first = {"workspace_id": self.workspace, **self.more}
        return self.http.get(
            "/v1/sync", params={**(first if self.token is None else {"since": self.token}), "limit": limit}
        )

    def step(self, limit: int = 1000) -> bool:
        """One answer, folded; whether there is more."""
        response = self.ask(limit)
        if response.status_code == 410 and self.token is not None:  # too many changes of the key meanwhile
            self.token, self.has = None, {}
            response = self.ask(limit)
        assert response.status_code == 200, response.text
        answer = response.json()
        self.fold(answer)
        self.token = answer["next"]
        return bool(answer["has_more"])

    def fold(self, answer: Any) -> None:
        for kind, change in answer["changes"].items():
            for document in change["created"] + change["updated"]:
                self.has.setdefault(kind, {})[document["id"]] = document
            for name in change["deleted"]:
                self.has.setdefault(kind, {}).pop(name, None)

    def finish(self, limit: int = 1000) -> None:
        for _ in range(2000):
            if not self.step(limit):
                return
        raise AssertionError("it never ends")


def everything(http: httpx2.Client, resource: str, workspace: str) -> dict[str, Any]:
    """A fresh listing."""
    response = http.get(f"/v1/{resource}", params={"workspace_id": workspace, "limit": 1000})
    if response.status_code == 400:
        return {}  # the workspace itself is not to be seen
    assert response.status_code == 200 and "link" not in response.headers, response.text
    return {item["id"]: item for item in response.json()}


def visible(client: Client) -> dict[str, dict[str, Any]]:
    """What the client's caller may see of the workspace, listed anew."""
    http, workspace = client.http, client.workspace
    whole = http.get(f"/v1/workspaces/{workspace}")
    found = {kind: everything(http, kind, workspace) for kind in ("templates", "projects", "tasks", "comments")}
    found["workspaces"] = {workspace: whole.json()} if whole.status_code == 200 else {}
    people = listed(http, f"workspaces/{workspace}/members", limit=1000) if found["workspaces"] else []
    shown = {item["id"]: item for item in listed(http, "users", limit=1000)}
    found["users"] = {item["user"]: shown[item["user"]] for item in people if item["user"] in shown}
    found["members"] = {item["id"]: item for item in people}
    for project in found["projects"]:
        found["members"] |= {item["id"]: item for item in listed(http, f"projects/{project}/members", limit=1000)}
    return found


def agree(client: Client) -> None:
    """What the client has is what there is to see."""
    expected = visible(client)
    chosen = client.more.get("project_id")
    for kind in client.more.get("resources", ",".join(KINDS)).split(","):
        wanted, has = expected[kind], client.has.get(kind, {})
        if kind == "members":  # a membership outlives its project in the trash
            has = {
                name: item
                for name, item in has.items()
                if item["project_id"] is None or item["project_id"] in expected["projects"]
            }
        if chosen is not None and kind in ("projects", "members", "tasks", "comments"):
            key = "id" if kind == "projects" else "project_id"
            wanted = {name: item for name, item in wanted.items() if item[key] in (chosen, None)}
        assert set(has) == set(wanted), (kind, set(has) ^ set(wanted))
        assert has == wanted


class Life:
    """Random changes in one workspace by a few people."""

    def __init__(self, api, people, workspace, seed):
        self.api, self.people, self.workspace = api, people, workspace
        self.chance = random.Random(seed)
        self.projects = [create(api, "projects", name=f"P{n}", workspace_id=workspace)["id"] for n in range(3)]
        self.tasks: list[str] = []
        self.comments: list[str] = []
        self.limited: list[str] = []

    def do(self, method: str, path: str, http: Any = None, **body: Any) -> Any:
        http = http or self.chance.choice([self.api, self.api, *(person.client for person in self.people)])
        response = http.request(method, f"/v1/{path}", **({"json": body} if body else {}))
        assert response.status_code < 500, response.text
        return response.json() if response.status_code == 201 else None

    def write(self) -> None:
        pick = self.chance.choice
        project = pick(self.projects)
        kind = self.chance.randrange(13)
        if kind < 3 or not self.tasks:
            made = self.do("POST", "tasks", name=str(self.chance.random()), project_id=project)
            self.tasks += [made["id"]] if made else []
        elif kind == 3:
            made = self.do("POST", "comments", task_id=pick(self.tasks), body="x")
            self.comments += [made["id"]] if made else []
        elif kind == 4:
            self.do("DELETE", f"tasks/{pick(self.tasks)}")
        elif kind == 5:
            self.do("POST", f"tasks/{pick(self.tasks)}/restore")
        elif kind in (6, 7):
            self.do("POST", f"tasks/{pick(self.tasks)}/move", self.api, project_id=project)
        elif kind == 8 and self.comments:
            self.do(
                pick(["DELETE", "PATCH"]), f"comments/{pick(self.comments)}", **({"body": "y"} if pick([0, 1]) else {})
            )
        elif kind == 9:
            visibility = pick(["private", "workspace"])
            made = self.do("POST", "projects", name="New", workspace_id=self.workspace, visibility=visibility)
            self.projects += [made["id"]] if made else []
        elif kind == 12:  # in the log of the workspace that invited them
            person = pick(self.people)
            self.do("PATCH", f"users/{person.id}", person.client, name=str(self.chance.random()))
        elif kind == 10:
            self.do("POST", "tasks/bulk", project_id=project, tasks=[{"name": f"t{n}"} for n in range(7)])
        else:
            self.do("PATCH", f"tasks/{pick(self.tasks)}", name=str(self.chance.random()))

    def rights(self) -> None:
        pick = self.chance.choice
        person, project = pick(self.people), pick(self.projects)
        members = f"workspaces/{self.workspace}/members"
        kind = self.chance.randrange(10)
        if kind == 0:
            self.do("POST", members, self.api, user=person.id, role=pick(["guest", "member", "admin"]))
        elif kind == 1:
            self.do("DELETE", f"{members}/{person.id}", self.api)
        elif kind in (2, 3):
            self.do("POST", f"projects/{project}/members", self.api, user=person.id, role="editor")
        elif kind == 4:
            self.do("DELETE", f"projects/{project}/members/{person.id}", self.api)
        elif kind in (5, 6):
            self.do("PATCH", f"projects/{project}", self.api, visibility=pick(["private", "workspace"]))
        elif kind == 7:
            self.do(pick(["DELETE", "POST"]), f"projects/{project}" + pick(["", "/restore"]), self.api)
        elif kind == 8 and self.chance.randrange(4) == 0:
            self.do("DELETE", f"workspaces/{self.workspace}", self.api)
            if pick([0, 1]):
                self.write()
            self.do("POST", f"workspaces/{self.workspace}/restore", self.api)
        elif self.limited:
            limit = self.chance.sample(self.projects, self.chance.randrange(min(4, len(self.projects) + 1)))
            scopes = pick(
                [["*"], ["tasks:read", "projects:read"], ["*"], ["workspaces:read", "users:read", "comments:write"]]
            )
            self.do("PATCH", f"api-keys/{pick(self.limited)}", self.api, project_ids=limit, scopes=scopes)


@pytest.fixture(scope="module")
def people(invite):
    """Two who come and go; their home is another workspace."""
    return [invite("member"), invite("guest")]


@pytest.mark.parametrize("seed", range(3))
def test_a_client_has_what_its_user_may_see(api, server, people, seed):
    workspace = create(api, "workspaces", name="Shared")["id"]
    life = Life(api, people, workspace, seed)
    create(api, "users", name="Native", email=f"{ids.new('user')}@example.com", workspace_id=workspace)
    for person, role in zip(people, ("member", "guest"), strict=True):
        create(api, f"workspaces/{workspace}/members", user=person.id, role=role)
    key = create(api, "api-keys", name="limited", scopes=["*"], project_ids=life.projects[:1])
    life.limited.append(key["id"])
    everyone = [api, *(person.client for person in people)]
    clients = [Client(http, workspace) for http in everyone]
    clients += [Client(http, workspace, {"project_id": life.projects[0]}) for http in everyone]
    clients.append(Client(api, workspace, {"resources": "tasks,members"}))
    chance = random.Random(-seed)
    with server.client(key["secret"]) as narrow:
        limited = Client(narrow, workspace)
        for step in range(220):
            life.write() if chance.random() < 0.7 else life.rights()
            if step > 10 and chance.random() < 0.6:
                client = chance.choice([*clients, limited])
                limit = chance.choice([1, 2, 3, 5, 20, 1000])
                if client.token is None and client.ask(limit).status_code >= 400:
                    continue  # not a member at the moment
                before, had = client.token, {kind: dict(items) for kind, items in client.has.items()}
                client.step(limit)
                match chance.randrange(5):
                    case 0:  # the answer never arrived
                        client.token, client.has = before, had
                    case 1 if client is not limited and before is not None:  # it was folded, and its token was lost
                        client.token = before
                    case 2 if client is not limited and before is not None:  # so was another one for the same token
                        client.token = before
                        client.step(chance.choice([1, 4, 1000]))
        for client in clients:
            if client.token is not None or client.ask(1).status_code < 400:
                client.finish(chance.choice([1, 3, 50, 1000]))
                agree(client)
        # A key with fewer scopes cannot list everything: it is given back what it needs for the comparison.
        if limited.token is not None or limited.ask(1).status_code < 400:
            limited.finish(3)
            api.patch(f"/v1/api-keys/{key['id']}", json={"scopes": ["*"]})
            limited.finish(2)
            agree(limited)


# ---- the wire --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(api):
    """A workspace with a project of its own."""
    workspace = create(api, "workspaces", name="A place")["id"]
    return workspace, create(api, "projects", name="A project", workspace_id=workspace)["id"]


def sync(client, **params):
    response = client.get("/v1/sync", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_first_answer_has_everything_and_the_next_only_what_changed(api, place):
    workspace, project = place
    task = create(api, "tasks", name="One", project_id=project)
    first = sync(api, workspace_id=workspace)
    assert list(first["changes"]) == list(KINDS[:3]) + list(KINDS[3:])
    assert first["changes"]["tasks"] == {"created": [task], "updated": [], "deleted": []}
    assert len(first["changes"]["templates"]["created"]) == 6
    assert not first["has_more"]
    renamed = api.patch(f"/v1/tasks/{task['id']}", json={"name": "Uno"}).json()
    other = create(api, "tasks", name="Two", project_id=project)
    second = sync(api, since=first["next"])
    assert second["changes"]["tasks"] == {"created": [other], "updated": [renamed], "deleted": []}
    api.delete(f"/v1/tasks/{task['id']}")
    third = sync(api, since=second["next"])
    assert third["changes"]["tasks"] == {"created": [], "updated": [], "deleted": [task["id"]]}
    back = api.post(f"/v1/tasks/{task['id']}/restore").json()
    fourth = sync(api, since=third["next"])
    assert fourth["changes"]["tasks"]["updated"] == [back]
    assert sync(api, since=fourth["next"])["changes"]["tasks"] == {"created": [], "updated": [], "deleted": []}


def test_many_changes_of_one_object_are_told_once(api, place):
    task = create(api, "tasks", name="0", project_id=place[1])["id"]
    token = sync(api, workspace_id=place[0])["next"]
    for name in range(5):
        last = api.patch(f"/v1/tasks/{task}", json={"name": str(name)}).json()
    assert sync(api, since=token)["changes"]["tasks"]["updated"] == [last]


def test_losing_a_right_is_told_as_removal_and_gaining_one_brings_everything(api, invite, place):
    workspace, project = place
    person = invite("member")
    create(api, f"workspaces/{workspace}/members", user=person.id)
    task = create(api, "tasks", name="A task", project_id=project)
    comment = create(api, "comments", task_id=task["id"], body="A remark")
    token = sync(person.client, workspace_id=workspace)["next"]
    api.patch(f"/v1/projects/{project}", json={"visibility": "private"})
    gone = sync(person.client, since=token)
    assert gone["changes"]["projects"]["deleted"] == [project]
    assert gone["changes"]["tasks"]["deleted"] == [task["id"]]
    assert gone["changes"]["comments"]["deleted"] == [comment["id"]]
    secret = create(api, "tasks", name="Not for them", project_id=project)
    api.delete(f"/v1/tasks/{secret['id']}")
    quiet = sync(person.client, since=gone["next"])
    assert secret["id"] not in str(quiet), "not even that there was one"
    create(api, f"projects/{project}/members", user=person.id, role="viewer")
    back = sync(person.client, since=quiet["next"])
    assert back["changes"]["tasks"]["created"] == [task]
    api.delete(f"/v1/workspaces/{workspace}/members/{person.id}")
    out = sync(person.client, since=back["next"])
    assert out["changes"]["workspaces"]["deleted"] == [workspace]
    assert out["changes"]["tasks"]["deleted"] == [task["id"]]
    assert len(out["changes"]["templates"]["deleted"]) == 6
    assert "Not for them" not in str(out)
    empty = sync(person.client, since=out["next"])
    assert all(not any(change.values()) for change in empty["changes"].values())


def test_resources_are_chosen_by_name_and_need_their_scope(api, key_with, place):
    only = sync(api, workspace_id=place[0], resources="tasks,api-keys")
    assert list(only["changes"]) == ["api-keys", "tasks"]
    reader = key_with(["tasks:read"])
    assert sync(reader, workspace_id=place[0])["changes"]["projects"]["created"] == []
    refused = problem(reader.get("/v1/sync", params={"resources": "tasks,projects"}), 403, "forbidden")
    assert "projects:read" in refused["detail"]


def test_a_token_is_bound_to_its_user_and_to_what_it_was_made_for(api, a_member, place):
    token = sync(api, workspace_id=place[0], resources="tasks", project_id=place[1])["next"]
    assert sync(api, since=token, resources="tasks", project_id=place[1], workspace_id=place[0])["next"]

    def refused(client=api, **params):
        document = problem(client.get("/v1/sync", params=params), 400, "invalid-query")
        return codes(document)[0], places(document)[0]

    assert refused(a_member.client, since=token) == ("token_of_another_caller", "since")
    assert refused(since=token, resources="tasks,projects") == ("token_of_another_query", "resources")
    assert refused(since=token, project_id=ids.new("proj")) == ("token_of_another_query", "project_id")
    assert refused(since=token, workspace_id=ids.new("ws")) == ("token_of_another_query", "workspace_id")
    flipped = ("B" if token[0] == "A" else "A") + token[1:]
    for forged in (flipped, token[:-4], "x", "é", "AAAA" * 9, token + "AAAA"):
        assert refused(since=forged) == ("invalid_token", "since")
    cursor = api.get("/v1/tasks", params={"limit": 1}).headers.get("link", "")
    if "cursor=" in cursor:
        assert refused(since=cursor.partition("cursor=")[2].partition(">")[0]) == ("invalid_token", "since")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "out_of_range"),
        ({"limit": "1001"}, "out_of_range"),
        ({"limit": "many"}, "out_of_range"),
        ({"sinc": "x"}, "unknown_parameter"),
        ({"since": ""}, "wrong_type"),
        ({"resources": "task"}, "not_allowed"),
        ({"resources": ""}, "wrong_type"),
        ({"project_id": "proj_x"}, "unknown_reference"),
        ({"project_id": ",".join(["proj_x"] * 51)}, "too_many"),
        ({"workspace_id": "ws_x"}, "unknown_reference"),
    ],
)
def test_what_is_wrong_is_named(api, params, code):
    document = problem(api.get("/v1/sync", params=params), 400, "invalid-query")
    assert codes(document)[0] == code
    assert places(document)[0] == next(iter(params))


def test_an_answer_is_as_long_as_it_was_asked_to_be(api, place):
    create(api, "tasks/bulk", project_id=place[1], tasks=[{"name": str(n)} for n in range(30)])
    client = Client(api, place[0], {"resources": "tasks"})
    sizes = []
    more = True
    while more:
        had = len(client.has.get("tasks", {}))
        more = client.step(7)
        sizes.append(len(client.has["tasks"]) - had)
    assert sizes == [7, 7, 7, 7, 2]
    agree(client)


def test_what_happens_while_the_first_pages_are_read_comes_after_them(api, place):
    made = create(api, "tasks/bulk", project_id=place[1], tasks=[{"name": str(n)} for n in range(10)])
    client = Client(api, place[0], {"resources": "tasks"})
    client.step(4)
    api.delete(f"/v1/tasks/{made[0]['id']}")
    api.patch(f"/v1/tasks/{made[1]['id']}", json={"name": "Changed"})
    create(api, "tasks", name="New", project_id=place[1])
    client.finish(4)
    agree(client)
