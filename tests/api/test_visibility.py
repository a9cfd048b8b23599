"""What readers of the event log may see: on every surface an event is shown exactly when a plain rule says so.

One workspace has a project for each thing that can happen to a project, twice: open to the workspace, and private. What
happened there is read by people of every role, through every surface, and compared with `sees_project` below, which
knows nothing of the server but who was a member of which project in the end.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
from taskade_server.domain import identity, projects, tasks
from taskade_server.engine import edit, log
from taskade_server.engine.log import Actor, Event
from taskade_server.kit import ids
from taskade_server.store.database import Database, Tx

from tests.api.asking import create, everything, listed, problem
from tests.api.conftest import Invite, KeyWith, Person
from tests.support.listening import Listener, eventually
from tests.support.receiving import receiver
from tests.support.server import Server
from tests.support.websocket import WebSocket

STATES = ("alive", "in the trash", "purged", "moved out", "moved in", "turned around", "left")
"""What became of a project, or of the task in it. "turned around": private became open, and open became private."""
KINDS = ("open", "private")
READERS = (
    "owner",
    "admin",
    "member outside",
    "member inside",
    "guest outside",
    "guest inside",
    "limited key",
    "leaver",
)
SURFACES = ("list", "backwards", "by type", "by object", "one", "poll", "stream", "socket", "replay")
NO_WEBHOOK = ("guest outside", "guest inside", "limited key", "leaver")
"""Those who cannot have a webhook that is told of a whole workspace, or cannot see the one that they made."""


@dataclass
class Project:
    """A project as it is in the end, in words that need no knowledge of the server."""

    id: str
    exists: bool = True
    open: bool = False
    members: set[str] = field(default_factory=set)


@dataclass
class World:
    """The workspace after all that happened in it; `labels` and `tasks` are the projects and tasks by (state, kind)."""

    id: str
    projects: dict[str, Project]
    labels: dict[tuple[str, str], str]
    tasks: dict[tuple[str, str], str]
    clients: dict[str, httpx2.Client]
    tokens: dict[str, str]
    events: list[Event]
    departed: str
    departed_events: list[Event]
    last_seq: int


# ---- the rule --------------------------------------------------------------------------------------------------------


def sees_project(reader: str, project: Project) -> bool:
    """Who may read what happened in a project."""
    if reader == "leaver":
        return False
    if reader in ("owner", "admin"):
        return True
    if reader == "limited key":  # an owner's, limited to all the private projects
        return project.exists and "limited key" in project.members
    if reader in project.members:
        return True
    return project.open and reader.startswith("member")


def expected(world: World, reader: str, event: Event) -> dict[str, Any] | None:
    """The `data` and `previous` that a reader gets of an event in a project; None if it is invisible."""
    assert event.project_id is not None
    if not sees_project(reader, world.projects[event.project_id]):
        return None
    previous = json.loads(event.previous) if event.previous else None
    former = (previous or {}).get("project_id")
    if former is not None and not sees_project(reader, world.projects[former]):
        previous = {"project_id": None}
    return {"data": json.loads(event.data), "previous": previous}


# ---- the world -------------------------------------------------------------------------------------------------------


def purge(db: Database, project_id: str) -> None:
    """Remove a project in the trash and all in it for good, by the job's own function."""

    def age(tx: Tx) -> None:
        for table in ("comments", "tasks"):
            tx.run(f"UPDATE {table} SET deleted_at = 1 WHERE project_id = ?", (project_id,))
        tx.run("UPDATE projects SET deleted_at = 1 WHERE id = ?", (project_id,))

    db.write_sync(age)
    rows: list[tuple[Any, tuple[Any, ...]]] = [
        (tasks.COMMENT, ()), (tasks.TASK, ()), (projects.PROJECT, (identity.MEMBER,))
    ]  # fmt: skip
    for resource, below in rows:
        db.write_sync(partial(edit.purge, actor=Actor(None), resource=resource, before_ms=2, below=below))


def told_in(db: Database, workspace_id: str) -> list[Event]:
    found: list[Event] = []
    after = 0
    while page := db.read_sync(partial(log.read_after, workspace_id=workspace_id, seq=after)):
        found += page
        after = page[-1].seq
    return found


def delete(client: httpx2.Client, path: str) -> None:
    response = client.delete(f"/v1/{path}")
    assert response.status_code == 204, response.text


def change(client: httpx2.Client, path: str, **body: Any) -> None:
    response = client.patch(f"/v1/{path}", json=body)
    assert response.status_code == 200, response.text


@pytest.fixture(scope="session")
def world(api: httpx2.Client, invite: Invite, key_with: KeyWith, database_of: Database) -> World:
    """The same for all tests of a database: nothing in it changes any more."""
    here = create(api, "workspaces", name="What was seen")["id"]
    people = {
        name: invite(name.split()[0], workspace_id=here)
        for name in ("admin", "member outside", "member inside", "guest outside", "guest inside")
    }
    people["leaver"] = invite("member", workspace_id=here)
    inside = ("member inside", "guest inside", "leaver")
    shared = create(api, "projects", name="Shared", workspace_id=here)["id"]
    found = {shared: Project(shared, open=True, members={"guest inside", "limited key"})}
    create(api, f"projects/{shared}/members", user=people["guest inside"].id, role="editor")
    labels: dict[tuple[str, str], str] = {}
    for state in STATES:
        for kind in KINDS:
            made = create(
                api,
                "projects",
                name=f"{state} {kind}",
                workspace_id=here,
                visibility="private" if kind == "private" else "workspace",
            )["id"]
            labels[state, kind] = made
            found[made] = Project(made, open=kind == "open", members={*inside, "limited key"})
            for name in inside:
                create(api, f"projects/{made}/members", user=people[name].id, role="editor")
    limited = key_with(["*"], workspace_ids=[here], project_ids=[shared, *labels.values()])
    clients = {"owner": api, "limited key": limited, **{name: person.client for name, person in people.items()}}
    first = {
        place: create(
            api,
            "tasks",
            project_id=shared if place[0] == "moved in" else project,
            name=f"name {' '.join(place)}",
            description=f"text {' '.join(place)}",
        )["id"]
        for place, project in labels.items()
    }
    for task in first.values():
        create(api, "comments", task_id=task, body=f"comment on {task}")
    tokens = {name: sync_token(client, here) for name, client in clients.items()}
    for kind in KINDS:
        happen(api, database_of, people, labels, first, kind, shared, found)
    departed = leave_and_change(api, people["leaver"], here, invite)
    delete(api, f"workspaces/{here}/members/{people['leaver'].id}")
    change(api, f"workspaces/{here}", name="All is done")
    events = told_in(database_of, here)
    return World(
        here,
        found,
        labels,
        first,
        clients,
        tokens,
        [event for event in events if event.project_id is not None],
        departed,
        [event for event in events if event.object_id == departed],
        events[-1].seq,
    )


def happen(
    api: httpx2.Client,
    db: Database,
    people: dict[str, Person],
    labels: dict[tuple[str, str], str],
    first: dict[tuple[str, str], str],
    kind: str,
    shared: str,
    found: dict[str, Project],
) -> None:
    """What happens to the projects of a kind, and what that makes of them."""
    delete(api, f"projects/{labels['in the trash', kind]}")
    gone = labels["purged", kind]
    delete(api, f"projects/{gone}")
    purge(db, gone)
    found[gone].exists, found[gone].members = False, set()
    clean = {"name": "clean", "description": None}
    change(api, f"tasks/{first['moved out', kind]}", project_id=shared, **clean)
    change(api, f"tasks/{first['moved in', kind]}", project_id=labels["moved in", kind], name="hidden by now")
    turned = labels["turned around", kind]
    change(api, f"projects/{turned}", visibility="workspace" if kind == "private" else "private")
    found[turned].open = kind == "private"
    left = labels["left", kind]
    for name in ("member inside", "guest inside"):
        delete(api, f"projects/{left}/members/{people[name].id}")
    found[left].members = {"leaver", "limited key"}


def leave_and_change(api: httpx2.Client, leaver: Person, here: str, invite: Invite) -> str:
    """Somebody changes their profile as a member, leaves, changes it again, and comes back: the id of that user."""
    somebody = invite("member", workspace_id=here)
    change(somebody.client, f"users/{somebody.id}", name="While a member")
    elsewhere = create(somebody.client, "workspaces", name="Of their own")["id"]
    delete(api, f"workspaces/{here}/members/{somebody.id}")
    change(somebody.client, f"users/{somebody.id}", name="After leaving", email=f"{ids.new('x')}@example.com")
    assert elsewhere
    return somebody.id


def sync_token(client: httpx2.Client, workspace_id: str) -> str:
    answer = client.get("/v1/sync", params={"workspace_id": workspace_id}).json()
    while answer["has_more"]:
        answer = client.get("/v1/sync", params={"since": answer["next"]}).json()
    return str(answer["next"])


# ---- the surfaces ----------------------------------------------------------------------------------------------------

Found = dict[str, dict[str, Any]]
"""Events by id, as a surface showed them."""


def by_id(events: list[dict[str, Any]]) -> Found:
    return {event["id"]: event for event in events}


def in_pages(world: World, client: httpx2.Client, **params: Any) -> Found:
    return by_id(everything(client, "events", workspace_id=world.id, limit=1000, **params))


def by_type(world: World, client: httpx2.Client) -> Found:
    """With a filter that fits everything, of each kind of object on its own."""
    filters = {
        "task": {"version": {"$gte": 1}},
        "comment": {"version": {"$gte": 1}},
        "project": {"version": {"$gte": 1}},
        "member": {"version": {"$gte": 1}},
    }
    found: Found = {}
    for name, condition in filters.items():
        found |= in_pages(world, client, types=f"{name}.*", filter=json.dumps(condition))
    return found


def by_object(world: World, client: httpx2.Client) -> Found:
    found: Found = {}
    for name in sorted({event.object_id for event in world.events}):
        found |= in_pages(world, client, object_id=name)
    return found


def one_by_one(world: World, client: httpx2.Client) -> Found:
    found = {}
    for event in world.events:
        response = client.get(f"/v1/events/{event.id}")
        assert response.status_code in (200, 404), response.text
        if response.status_code == 200:
            found[event.id] = response.json()
    return found


def by_polling(world: World, client: httpx2.Client) -> Found:
    found: Found = {}
    after = 0
    while after < world.last_seq:
        response = client.get("/v1/events", params={"workspace_id": world.id, "after": after, "wait": 20, "limit": 500})
        assert response.status_code == 200, response.text
        found |= by_id(response.json())
        after = int(response.headers["next-after"])
    return found


def by_stream(world: World, client: httpx2.Client, server: Server) -> Found:
    with Listener(server.url, secret_of(client), after=0, workspace_id=world.id) as listener:
        messages = listener.until_seq(world.last_seq)
    return by_id([message.data for message in messages if "data" in message.data])


def by_socket(world: World, client: httpx2.Client, server: Server) -> Found:
    with WebSocket(server.url, secret_of(client)) as socket:
        socket.send(type="subscribe", id="all", after=0, workspace_id=world.id)
        messages = socket.until(
            lambda said: any(item.get("seq") == world.last_seq and item["type"] == "event" for item in said)
        )
    return by_id([item["event"] for item in messages if item["type"] == "event"])


def by_replay(world: World, client: httpx2.Client) -> Found:
    """A webhook that is made when all is over, and asks for all that happened."""
    with receiver() as endpoint:
        webhook = create(client, "webhooks", url=endpoint.url, workspace_id=world.id, events=["*"])
        try:
            response = client.post(
                f"/v1/webhooks/{webhook['id']}/replay", json={"after_seq": 0, "to_seq": world.last_seq}
            )
            assert response.status_code in (200, 201, 202), response.text
            eventually(lambda: any(json.loads(body)["seq"] == world.last_seq for _, body in list(endpoint.taken)))
            path = f"/v1/webhooks/{webhook['id']}/deliveries"
            eventually(lambda: client.get(path, params={"state": "pending"}).json() == [])
        finally:
            client.delete(f"/v1/webhooks/{webhook['id']}")
    return by_id([json.loads(body) for _, body in endpoint.taken])


def secret_of(client: httpx2.Client) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


Reading = Callable[[str, str], Found]


@pytest.fixture(scope="session")
def read(world: World, server: Server) -> Iterator[Reading]:
    """What a surface shows to a reader: asked once, looked at by many tests."""
    known: dict[tuple[str, str], Found] = {}
    surfaces: dict[str, Callable[[httpx2.Client], Found]] = {
        "list": partial(in_pages, world),
        "backwards": lambda client: in_pages(world, client, order="desc"),
        "by type": partial(by_type, world),
        "by object": partial(by_object, world),
        "one": partial(one_by_one, world),
        "poll": partial(by_polling, world),
        "stream": lambda client: by_stream(world, client, server),
        "socket": lambda client: by_socket(world, client, server),
        "replay": partial(by_replay, world),
    }

    def run(surface: str, reader: str) -> Found:
        if (surface, reader) not in known:
            known[surface, reader] = surfaces[surface](world.clients[reader])
        return known[surface, reader]

    yield run


# ---- every surface, state and role -----------------------------------------------------------------------------------


def about(world: World, state: str, kind: str) -> list[Event]:
    """What happened in a project, or to a task that was at some time in it."""
    project, task = world.labels[state, kind], world.tasks[state, kind]
    return [
        event
        for event in world.events
        if project in (event.project_id, event.object_id) or event.object_id == task or task in event.data
    ]


@pytest.mark.parametrize("reader", [name for name in READERS if name != "leaver"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("surface", SURFACES)
def test_an_event_is_shown_exactly_when_the_rule_says_so(world, read, surface, kind, state, reader):
    if surface == "replay" and reader in NO_WEBHOOK:
        pytest.skip("no webhook of a guest is told of a whole workspace")
    found, wrong = read(surface, reader), []
    events = about(world, state, kind)
    assert len(events) >= 5
    for event in events:
        shown, right = found.get(event.id), expected(world, reader, event)
        if (shown and {"data": shown["data"], "previous": shown["previous"]}) != right:
            wrong.append((event.type, event.seq, "expected", right, "shown", shown))
    assert wrong == []


def test_the_rule_says_something_else_for_everybody(world):
    """So that a surface which shows all or nothing to everybody cannot pass."""
    visible = {
        reader: frozenset(event.id for event in world.events if expected(world, reader, event) is not None)
        for reader in READERS
    }
    assert visible["owner"] == visible["admin"] == {event.id for event in world.events}
    assert visible["leaver"] == frozenset()
    others = [visible[name] for name in ("member outside", "member inside", "guest inside", "limited key")]
    assert len(set(others)) == len(others) and all(others)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "leaver"])
@pytest.mark.parametrize("surface", [name for name in SURFACES if name not in ("by type", "by object", "one")])
def test_a_change_of_somebody_who_has_left_the_workspace_is_shown_to_nobody(world, read, surface, reader):
    if surface == "replay" and reader in NO_WEBHOOK:
        pytest.skip("no webhook of a guest is told of a whole workspace")
    found = read(surface, reader)
    names = [found[event.id]["data"]["name"] for event in world.departed_events if event.id in found]
    assert names == ["A member", "While a member"]
    hidden = [event for event in world.departed_events if "After leaving" in event.data]
    assert len(hidden) == 1 and "After leaving" not in json.dumps(found)


def test_who_has_left_a_workspace_reads_nothing_of_it(world):
    leaver = world.clients["leaver"]
    problem(leaver.get("/v1/events", params={"workspace_id": world.id}), 400)
    for event in world.events:
        problem(leaver.get(f"/v1/events/{event.id}"), 404)
    changes = leaver.get("/v1/sync", params={"since": world.tokens["leaver"]}).json()["changes"]
    told = [name for name, change in changes.items() if change["created"] or change["updated"]]
    assert told == [], "only what is to be forgotten is named"


@pytest.mark.parametrize("reader", [name for name in READERS if name != "leaver"])
def test_an_earlier_state_is_shown_only_of_a_place_that_is_visible(world, reader):
    client = world.clients[reader]
    for event in world.events:
        if event.type not in ("task.created", "task.updated"):
            continue
        response = client.get(f"/v1/tasks/{event.object_id}", params={"as_of": event.seq})
        if expected(world, reader, event) is None:
            problem(response, 404)
        elif response.status_code == 200:
            assert response.json() == json.loads(event.data)
    moved = world.tasks["moved out", "private"]
    assert client.get(f"/v1/tasks/{moved}").status_code == (404 if reader == "guest outside" else 200)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "leaver"])
def test_a_preview_of_undoing_tells_nothing_of_what_is_invisible(world, reader):
    client = world.clients[reader]
    for event in world.events:
        response = client.post(f"/v1/events/{event.id}/revert", params={"dry_run": "true"}, json={})
        right = expected(world, reader, event)
        if right is None:
            problem(response, 404)
        elif right["previous"] == {"project_id": None}:
            problem(response, 403)
        hidden = [one.id for one in world.projects.values() if not sees_project(reader, one)]
        own = json.dumps(right["data"]) if right else ""
        assert not [name for name in hidden if name in response.text and name not in own], response.text


@pytest.mark.parametrize("reader", [name for name in READERS if name != "leaver"])
def test_sync_names_nothing_of_a_project_that_was_never_visible(world, reader):
    client, text, since = world.clients[reader], "", world.tokens[reader]
    while since:
        response = client.get("/v1/sync", params={"since": since})
        assert response.status_code == 200, response.text
        text += json.dumps(response.json()["changes"])
        since = response.json()["next"] if response.json()["has_more"] else ""
    inside = reader in ("owner", "admin", "member inside", "guest inside", "limited key")
    for (state, kind), project in world.labels.items():
        ever = inside or (reader == "member outside" and (kind == "open" or state == "turned around"))
        if not ever:
            assert project not in text, (state, kind)
            if state not in ("moved in", "moved out"):
                assert world.tasks[state, kind] not in text, (state, kind)
    assert "After leaving" not in text


# ---- in sentences ----------------------------------------------------------------------------------------------------


def test_a_private_project_that_was_purged_stays_private(api, invite, database_of, a_member, as_member):
    ana = invite("member")
    made = create(ana.client, "projects", name="M&A", visibility="private")
    task = create(ana.client, "tasks", name="BUY-EVILCORP", description="for 3 billion", project_id=made["id"])
    comment = create(ana.client, "comments", task_id=task["id"], body="SECRET-COMMENT")
    token = sync_token(as_member, made["workspace_id"])
    with receiver() as endpoint:
        webhook = create(as_member, "webhooks", url=endpoint.url, events=["*"])
        delete(ana.client, f"projects/{made['id']}")
        purge(database_of, made["id"])
        after = create(as_member, "projects", name="Something to wait for")
        eventually(lambda: any(after["id"] in body.decode() for _, body in list(endpoint.taken)))
        assert not [body for _, body in endpoint.taken if made["id"] in body.decode()]
        delete(as_member, f"webhooks/{webhook['id']}")
    for name in (made["id"], task["id"], comment["id"]):
        assert listed(as_member, "events", object_id=name) == []
        assert name not in as_member.get("/v1/sync", params={"since": token}).text
    evil = {"types": "task.*", "filter": '{"name": {"$contains": "EVIL"}}'}
    assert everything(as_member, "events", **evil) == []
    assert len(everything(api, "events", **evil)) == 3, "the owner of the workspace may look into its past"


def test_a_purged_project_that_was_open_keeps_its_history(api, database_of, as_member):
    made = create(api, "projects", name="For all to see")
    delete(api, f"projects/{made['id']}")
    purge(database_of, made["id"])
    told = [event["type"] for event in listed(as_member, "events", object_id=made["id"])]
    assert told == ["project.created", "project.deleted", "project.purged"]


def test_the_state_of_then_in_a_purged_private_project_is_not_shown(api, database_of, as_member):
    private = create(api, "projects", name="Private", visibility="private")["id"]
    shared = create(api, "projects", name="Shared")["id"]
    task = create(api, "tasks", name="SECRETNAME", project_id=private)["id"]
    (event,) = listed(api, "events", object_id=task)
    change(api, f"tasks/{task}", name="clean", project_id=shared)
    delete(api, f"projects/{private}")
    purge(database_of, private)
    problem(as_member.get(f"/v1/tasks/{task}", params={"as_of": event["seq"]}), 404)
    assert api.get(f"/v1/tasks/{task}", params={"as_of": event["seq"]}).json()["name"] == "SECRETNAME"


def test_what_a_task_held_in_a_private_project_is_not_in_the_event_that_moved_it(api, as_member, me):
    private = create(api, "projects", name="Private", visibility="private")["id"]
    shared = create(api, "projects", name="Shared")["id"]
    with receiver() as endpoint:
        webhook = create(as_member, "webhooks", url=endpoint.url, events=["task.*"])
        task = create(api, "tasks", name="SECRETNAME", description="SECRETTEXT", project_id=private)["id"]
        change(api, f"tasks/{task}", name="clean", description=None, project_id=shared)
        body = json.loads(endpoint.wait(1)[0][1])
        delete(as_member, f"webhooks/{webhook['id']}")
    seen, moved = listed(as_member, "events", object_id=task)
    assert moved["type"] == "task.moved" and moved["previous"] == {"project_id": None}
    assert seen["previous"] == body["previous"] == {"project_id": None}
    assert seen["data"]["name"] == "clean"
    known = listed(api, "events", object_id=task)[-1]
    assert known["previous"]["name"] == "SECRETNAME" and known["previous"]["project_id"] == private
    assert problem(as_member.post(f"/v1/events/{seen['id']}/revert", params={"dry_run": "true"}, json={}), 403)
    by_request = {"request_id": seen["request_id"]}
    problem(as_member.post("/v1/events/revert", params={"dry_run": "true"}, json=by_request), 403)


def test_a_delivery_that_is_sent_again_asks_what_its_owner_may_see_by_now(api, invite):
    ana = invite("member")
    private = create(api, "projects", name="Private", visibility="private")["id"]
    create(api, f"projects/{private}/members", user=ana.id, role="editor")
    with receiver() as endpoint:
        webhook = create(ana.client, "webhooks", url=endpoint.url, events=["task.*"])["id"]
        create(api, "tasks", name="While a member", project_id=private)
        endpoint.wait(1)
        (delivery,) = eventually_listed(ana.client, f"webhooks/{webhook}/deliveries", state="succeeded")
        delete(api, f"projects/{private}/members/{ana.id}")
        response = ana.client.post(f"/v1/webhooks/{webhook}/deliveries/{delivery['id']}/resend")
        assert response.status_code in (200, 202), response.text
        (failed,) = eventually_listed(ana.client, f"webhooks/{webhook}/deliveries", state="failed")
        assert failed["id"] == delivery["id"] and failed["last_error"] == "not_visible"
        assert len(endpoint.taken) == 1
        delete(ana.client, f"webhooks/{webhook}")


def eventually_listed(client: httpx2.Client, path: str, **params: Any) -> Any:
    eventually(lambda: bool(listed(client, path, **params)))
    return listed(client, path, **params)


# ---- presence --------------------------------------------------------------------------------------------------------


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[str], WebSocket]]:
    opened: list[WebSocket] = []

    def run(key: str) -> WebSocket:
        opened.append(WebSocket(server.url, key))
        return opened[-1]

    yield run
    for socket in opened:
        socket.close()


def are_present(socket: WebSocket, users: set[str]) -> bool:
    return present(socket) == users


def present(socket: WebSocket) -> set[str]:
    """Who was there, by the latest message."""
    said = [item for item in socket.messages if item["type"] == "presence"]
    return {one["user_id"] for one in said[-1]["present"]} if said else set()


def test_presence_ends_with_access_also_for_somebody_with_a_workspace_of_their_own(api, me, server, connect, invite):
    ana = invite("member")
    create(ana.client, "workspaces", name="Of their own")
    private = create(api, "projects", name="Private", visibility="private")["id"]
    create(api, f"projects/{private}/members", user=ana.id, role="editor")
    mine, hers = connect(server.key), connect(secret_of(ana.client))
    for socket in (mine, hers):
        socket.send(type="presence", project_id=private, state={})
    for socket in (mine, hers):
        eventually(partial(are_present, socket, {me["id"], ana.id}))
    delete(api, f"projects/{private}/members/{ana.id}")
    mine.send(type="presence", project_id=private, state={"editing": "SECRET acquisition"})
    eventually(lambda: present(mine) == {me["id"]})
    hers.send(type="ping", id="done")
    hers.until_type("pong", id="done")
    assert "SECRET" not in json.dumps(hers.messages)


def test_presence_ends_when_its_project_is_deleted(api, me, server, connect, a_project):
    socket = connect(server.key)
    socket.send(type="presence", project_id=a_project["id"], state={})
    eventually(lambda: present(socket) == {me["id"]})
    delete(api, f"projects/{a_project['id']}")
    create(api, f"workspaces/{a_project['workspace_id']}/members", user=me["id"], role="owner")  # rights change
    other = create(api, "projects", name="Another")["id"]
    socket.send(type="presence", project_id=a_project["id"], state={"still": "here"})
    assert "There is no project" in socket.until_type("error")["problem"]["detail"]
    socket.send(type="presence", project_id=other, state={})
    eventually(lambda: present(socket) == {me["id"]})


def test_presence_needs_the_right_to_read_projects(key_with, connect, a_project):
    reader = key_with(["comments:read"])
    problem(reader.get(f"/v1/projects/{a_project['id']}"), 403)
    socket = connect(secret_of(reader))
    socket.send(type="presence", project_id=a_project["id"], state={})
    said = socket.until_type("error")["problem"]
    assert said["status"] == 403 and re.search(r"projects:read", said["detail"])


@pytest.mark.parametrize("project_id", ["proj_01hm6aqh20e008000000000001", "invented", ""])
def test_nobody_can_be_present_in_a_project_that_does_not_exist(server, connect, project_id):
    socket = connect(server.key)
    socket.send(type="presence", project_id=project_id, state={})
    assert socket.until_type("error")["problem"]["status"] in (400, 404)
