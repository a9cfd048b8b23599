"""The WebSocket: events and lists on one connection, who is looking, and what a client may not do."""

import json
import random
import threading
import time
from contextlib import contextmanager
from typing import Any

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, everything, listed, problem
from tests.support.listening import Listener, eventually
from tests.support.server import Server
from tests.support.websocket import BINARY, PING, TEXT, WebSocket

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def connect(server):
    """Opens WebSockets, with the owner's key unless another is given."""
    opened = []

    def run(key=None, path="/v1/realtime", server=server):
        opened.append(WebSocket(server.url, server.key if key is None else key, path))
        return opened[-1]

    yield run
    for socket in opened:
        socket.close()


# ---- events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/realtime", "/v1/realtime"])
def test_events_as_they_happen(api, connect, a_project, path):
    socket = connect(path=path)
    assert socket.until_type("hello")["heartbeat_seconds"] == 15
    socket.send(type="subscribe", id="mine", events=["task.*"], project_id=a_project["id"])
    ack = socket.until_type("subscribed", id="mine")
    assert ack["workspace_id"] == a_project["workspace_id"]
    task = create(api, "tasks", name="Now", project_id=a_project["id"])
    told = socket.until_type("event", subscription="mine")
    assert told["event"] == listed(api, "events", object_id=task["id"])[0]
    assert told["seq"] == told["event"]["seq"] > ack["seq"]


def test_several_subscriptions_each_at_their_own_place(api, connect, a_project):
    first = create(api, "tasks", name="Before", project_id=a_project["id"])
    after = everything(api, "events", project_id=a_project["id"])[0]["seq"]
    socket = connect()
    socket.send(type="subscribe", id="all", after=after, project_id=a_project["id"])
    socket.send(
        type="subscribe", id="urgent", events="task.*", filter={"priority": "urgent"}, project_id=a_project["id"]
    )
    socket.until_type("subscribed", id="urgent")
    assert socket.until_type("event", subscription="all")["event"]["data"] == first
    create(api, "tasks", name="Urgent", priority="urgent", project_id=a_project["id"])
    assert socket.until_type("event", subscription="urgent")["event"]["data"]["name"] == "Urgent"
    assert socket.until_type("event", 2, subscription="all")["event"]["data"]["name"] == "Urgent"
    socket.send(type="unsubscribe", id="urgent")
    socket.until_type("unsubscribed", id="urgent")
    create(api, "tasks", name="Urgent again", priority="urgent", project_id=a_project["id"])
    socket.until_type("event", 3, subscription="all")
    names = [item["subscription"] for item in socket.messages if item["type"] == "event"]
    assert (names.count("all"), names.count("urgent")) == (3, 1)


def test_positions_are_told_on_request(api, connect, a_project):
    socket = connect()
    socket.send(type="subscribe", id="s", events=["comment.*"])
    socket.until_type("subscribed", id="s")
    written = api.post("/v1/tasks", json={"name": "Nothing to do with it", "project_id": a_project["id"]})
    seq = int(written.headers["commit-seq"].rpartition(":")[2])

    def there():
        count = [item["type"] for item in socket.messages].count("pong")
        socket.send(type="ping", id="p")
        return socket.until_type("pong", count + 1)

    eventually(lambda: there()["positions"]["s"] >= seq)
    assert there()["id"] == "p"


def test_a_place_before_the_log(api, connect, database_of):
    workspace = create(api, "workspaces", name="With a short memory")["id"]
    forget = "UPDATE log_heads SET first_seq = 4 WHERE workspace_id = ?"
    database_of.write_sync(lambda tx: tx.run(forget, (workspace,)))
    socket = connect()
    socket.send(type="subscribe", id="old", workspace_id=workspace, after=1)
    resync = socket.until_type("resync", subscription="old")
    assert (resync["reason"], resync["first_seq"]) == ("log", 4)
    assert socket.until_type("subscribed", id="old")["seq"] == resync["seq"]


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_without_a_key_there_is_no_connection(connect, server):
    for key in ("", "tsk_wrong"):
        socket = connect(key=key)
        assert socket.status == 401 and socket.problem()["code"] == "unauthenticated"
    socket = connect(path="/v1/realtme")
    assert socket.status == 404 and "/v1/realtime" in socket.problem()["detail"]
    socket = connect(path="/v1/realtime?key=1")
    assert socket.status == 400 and codes(socket.problem()) == ["unknown_parameter"]


def test_a_request_that_is_no_websocket_is_told_so(api):
    assert "ws://" in problem(api.get("/v1/realtime"), 404)["detail"]


def faults_of(socket, count, **message):
    socket.send(**message)
    said = socket.until_type("error", count)
    return said, [(item.get("pointer"), item["code"]) for item in said["problem"].get("errors", [])]


def test_wrong_messages_are_answered_and_the_connection_goes_on(connect, a_project):
    socket = connect()
    cases: list[Any] = [
        ({"type": "subscrib"}, [("/type", "not_allowed")]),
        ({}, [("/type", "not_allowed")]),
        ({"type": "subscribe"}, [("/id", "required")]),
        ({"type": "subscribe", "id": "s", "evnts": ["*"]}, [("/evnts", "unknown_field")]),
        ({"type": "subscribe", "id": "s", "events": ["task.complete"]}, [("/events", "unknown_event")]),
        ({"type": "subscribe", "id": "s", "events": ["task.*"], "filter": {"statsu": 1}},
         [("/filter/statsu", "unknown_parameter")]),
        ({"type": "subscribe", "id": "s", "after": -1}, [("/after", "invalid_format")]),
        ({"type": "subscribe", "id": "s", "workspace_id": ids.new("ws")}, [("/workspace_id", "unknown_reference")]),
        ({"type": "subscribe", "id": "s", "query": {"resource": "task"}}, [("/query", "not_allowed")]),
        ({"type": "subscribe", "id": "s", "query": {"resource": "users"}}, [("/query", "not_allowed")]),
        ({"type": "subscribe", "id": "s", "query": {"resource": "tasks", "sort": "nam"}},
         [("/query/sort", "unknown_sort")]),
        ({"type": "subscribe", "id": "s", "query": {"resource": "tasks", "include": "project"}},
         [("/query", "not_allowed")]),
        ({"type": "subscribe", "id": "s", "query": {"resource": "tasks", "filter": {"due_date": {"$lt": "today"}}}},
         [("/query/filter", "not_allowed")]),
        ({"type": "unsubscribe", "id": "s"}, [("/id", "unknown_reference")]),
        ({"type": "presence"}, [("/project_id", "required")]),
        ({"type": "presence", "project_id": a_project["id"], "state": "here"}, [("/state", "wrong_type")]),
    ]  # fmt: skip
    for count, (message, expected) in enumerate(cases, start=1):
        said, found = faults_of(socket, count, **message)
        assert found == expected, message
        assert said["subscription"] == message.get("id")
    socket.frame(TEXT, b"{")
    assert socket.until_type("error", len(cases) + 1)["problem"]["code"] == "malformed-request"
    socket.frame(BINARY, b"\x00")
    assert socket.until_type("error", len(cases) + 2)["problem"]["code"] == "malformed-request"
    socket.frame(PING, b"")
    socket.send(type="presence", project_id=ids.new("proj"))
    assert socket.until_type("error", len(cases) + 3)["problem"]["code"] == "not-found"
    socket.send(type="ping", id="still there")
    socket.until_type("pong", id="still there")


def test_an_id_stands_for_one_subscription_and_there_are_so_many(connect):
    socket = connect()
    for number in range(50):
        socket.send(type="subscribe", id=f"s{number}", events=["comment.*"])
    socket.until_type("subscribed", 50)
    assert faults_of(socket, 1, type="subscribe", id="s1")[1] == [("/id", "not_allowed"), ("/id", "too_many")]
    assert faults_of(socket, 2, type="subscribe", id="new")[1] == [("/id", "too_many")]


def test_too_large_a_message_ends_the_connection(connect):
    socket = connect()
    socket.frame(TEXT, b'{"type": "ping", "id": "' + b"x" * 70_000 + b'"}')
    said = socket.until_end()
    assert (said[-1]["problem"]["code"], socket.code) == ("body-too-large", 1009)


def test_messages_cost_what_requests_cost(start_server):
    server = start_server(rate_limit="5/minute")
    with WebSocket(server.url, server.key) as socket:
        for number in range(6):
            socket.send(type="subscribe", id=f"s{number}")
        refused = socket.until_type("error")
        assert refused["problem"]["code"] == "quota-exceeded"


# ---- rights ----------------------------------------------------------------------------------------------------------


def test_a_revoked_key_ends_the_connection(connect, somebody, server):
    _, key, secret = somebody("member")
    socket = connect(key=secret)
    socket.send(type="subscribe", id="s")
    socket.until_type("subscribed")
    with server.client(secret) as client:
        assert client.delete(f"/v1/api-keys/{key}").status_code == 204
    said = socket.until_end()
    assert socket.code == 4401
    assert [item["problem"]["code"] for item in said if item["type"] == "end"] == ["unauthenticated"]


def test_a_lost_membership_ends_what_needs_it(api, connect, somebody, home):
    user, _, secret = somebody("member")
    socket = connect(key=secret)
    socket.send(type="subscribe", id="events", workspace_id=home)
    socket.send(type="subscribe", id="list", workspace_id=home, query={"resource": "projects"})
    socket.until_type("snapshot")
    assert api.delete(f"/v1/workspaces/{home}/members/{user}").status_code == 204
    socket.until_type("error", 2)
    assert {item["subscription"] for item in socket.messages if item["type"] == "error"} == {"events", "list"}
    socket.send(type="ping")
    assert socket.until_type("pong")["positions"] == {}


def test_what_is_taken_away_is_told(api, connect, somebody, a_project):
    user, _, secret = somebody("guest")
    create(api, f"projects/{a_project['id']}/members", user=user, role="viewer")
    create(api, "tasks", name="Ours", project_id=a_project["id"])
    socket = connect(key=secret)
    socket.send(type="subscribe", id="events")
    socket.send(type="subscribe", id="tasks", query={"resource": "tasks"})
    assert [item["name"] for item in socket.until_type("snapshot")["items"]] == ["Ours"]
    assert api.delete(f"/v1/projects/{a_project['id']}/members/{user}").status_code == 204
    assert socket.until_type("access.revoked", subscription="events")["id"] == a_project["id"]
    socket.until_type("removed", subscription="tasks")


# ---- lists that stay current -----------------------------------------------------------------------------------------


class Copy:
    """A client's copy of a list, kept by nothing but the messages."""

    def __init__(self, socket, name):
        self.socket, self.name = socket, name
        self.items: list[Any] = []
        self.seq = -1
        self.done = 0

    def fold(self):
        for message in self.socket.messages[self.done :]:
            self.done += 1
            if message.get("subscription") != self.name or message["type"] in ("error", "subscribed"):
                continue
            self.seq = message["seq"]
            if message["type"] == "snapshot":
                self.items = message["items"]
            elif message["type"] in ("added", "changed", "removed"):
                self.items = [item for item in self.items if item["id"] != message["id"]]
                if message["type"] != "removed":
                    names = [item["id"] for item in self.items]
                    place = 0 if message["after"] is None else names.index(message["after"]) + 1
                    self.items.insert(place, message["item"])

    def at(self, seq):
        """The copy once the server says that it is as of this position."""

        def there():
            count = [item["type"] for item in self.socket.messages].count("pong")
            self.socket.send(type="ping")
            return self.socket.until_type("pong", count + 1)["positions"].get(self.name, -1) >= seq

        eventually(there)
        self.fold()
        return self.items


def test_a_list_stays_current(api, connect, a_project):
    kept = create(api, "tasks", name="B", project_id=a_project["id"])
    socket = connect()
    query = {"resource": "tasks", "filter": {"project_id": a_project["id"], "status": "pending"}, "sort": "name"}
    socket.send(type="subscribe", id="q", query=query)
    ack = socket.until_type("subscribed", id="q")
    snapshot = socket.until_type("snapshot", subscription="q")
    assert snapshot["items"] == [kept] and snapshot["seq"] == ack["seq"]
    first = create(api, "tasks", name="A", project_id=a_project["id"])
    added = socket.until_type("added")
    assert (added["item"], added["after"]) == (first, None)
    assert socket.until_type("ready", subscription="q")["seq"] == added["seq"]
    api.patch(f"/v1/tasks/{first['id']}", json={"name": "C"})
    changed = socket.until_type("changed")
    assert (changed["item"]["name"], changed["after"]) == ("C", kept["id"])
    api.post(f"/v1/tasks/{kept['id']}/complete", json={})
    assert socket.until_type("removed")["id"] == kept["id"]
    copy = Copy(socket, "q")
    copy.fold()
    assert [item["name"] for item in copy.items] == ["C"]


QUERIES: list[Any] = [
    {"sort": "name"},
    {"sort": "-priority,due_date", "limit": 5},
    {"filter": {"status": {"$ne": "completed"}}, "sort": "-updated_at", "limit": 3},
    {"filter": {"$or": [{"priority": "urgent"}, {"labels": "hot"}]}},
    {"q": "red", "sort": "due_date"},
    {"filter": {"custom_fields": {"points": {"$gte": 2}}}, "sort": "-custom_fields.points"},
]


@pytest.mark.parametrize("seed", range(2))
def test_random_writes_folded_are_a_fresh_list(api, connect, server, seed):
    """Several writers, several lists; at the end, and in between, each copy is what the list says at that moment."""
    workspace = create(api, "workspaces", name="Busy")["id"]
    projects = [create(api, "projects", name=name, workspace_id=workspace)["id"] for name in ("One", "Two")]
    socket = connect()
    copies = []
    for number, query in enumerate(QUERIES):
        socket.send(type="subscribe", id=f"q{number}", workspace_id=workspace, query={"resource": "tasks", **query})
        copies.append(Copy(socket, f"q{number}"))
    socket.until_type("snapshot", len(QUERIES))
    for round_ in range(3):
        writers = [
            threading.Thread(target=scribble, args=(server, workspace, projects, 100 * seed + 10 * round_ + number))
            for number in range(2)
        ]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join(60)
        head = int(api.get("/v1/events", params={"workspace_id": workspace, "after": "latest"}).headers["next-after"])
        for copy, query in zip(copies, QUERIES, strict=True):
            body = {**query, "filter": {"$and": [query.get("filter", {}), {"workspace_id": workspace}]}}
            fresh = api.post("/v1/tasks/query", json=body).json()
            assert copy.at(head) == fresh, query
    assert head > 30


def scribble(server, workspace, projects, seed):
    """Change a workspace's tasks in every way that lists can notice."""
    chance = random.Random(seed)
    with server.client() as client:

        def members():
            return {
                "name": chance.choice(["red", "green", "blue"]) + f" {chance.randrange(20)}",
                "priority": chance.choice(["none", "high", "urgent"]),
                "due_date": chance.choice([None, "2030-01-01", "2030-01-02"]),
                "labels": chance.sample(["hot", "cold"], chance.randrange(3)),
                "custom_fields": {"points": chance.choice([None, 1, 2, 3])},
            }

        for _ in range(15):
            tasks = [task["id"] for task in listed(client, "tasks", workspace_id=workspace, limit=1000)]
            match chance.choice(["create", "create", "change", "change", "complete", "move", "delete", "private"]):
                case "create":
                    create(client, "tasks", project_id=chance.choice(projects), **members())
                case "change" if tasks:
                    client.patch(f"/v1/tasks/{chance.choice(tasks)}", json=members())
                case "complete" if tasks:
                    client.post(f"/v1/tasks/{chance.choice(tasks)}/complete", json={})
                case "move" if tasks:
                    target = {"project_id": chance.choice(projects)}
                    client.post(f"/v1/tasks/{chance.choice(tasks)}/move", json=target)
                case "delete" if tasks:
                    client.delete(f"/v1/tasks/{chance.choice(tasks)}")
                case "private":
                    change = {"visibility": chance.choice(["private", "workspace"])}
                    client.patch(f"/v1/projects/{chance.choice(projects)}", json=change)


def test_rights_change_a_list_that_nobody_wrote_to(api, connect, somebody, a_project, a_task):
    _, _, secret = somebody("member")
    socket = connect(key=secret)
    socket.send(type="subscribe", id="q", query={"resource": "tasks", "filter": {"project_id": a_project["id"]}})
    assert [item["id"] for item in socket.until_type("snapshot")["items"]] == [a_task["id"]]
    api.patch(f"/v1/projects/{a_project['id']}", json={"visibility": "private"})
    assert socket.until_type("removed")["id"] == a_task["id"]
    api.patch(f"/v1/projects/{a_project['id']}", json={"visibility": "workspace"})
    assert socket.until_type("added")["item"] == api.get(f"/v1/tasks/{a_task['id']}").json()


def test_a_list_follows_the_time_zone_of_its_caller(api, connect, somebody, a_project):
    """Its days are those of the caller, who may move; a list that names a time zone keeps that."""
    user, _, secret = somebody("member")
    late = create(api, "tasks", name="Late", project_id=a_project["id"], due_date="2026-03-01T02:00:00Z")
    socket = connect(key=secret)
    condition = {"project_id": a_project["id"], "due_date": "2026-03-01"}
    socket.send(type="subscribe", id="q", query={"resource": "tasks", "filter": condition})
    socket.send(type="subscribe", id="utc", query={"resource": "tasks", "filter": condition, "timezone": "UTC"})
    for name in ("q", "utc"):
        assert socket.until_type("snapshot", subscription=name)["items"] == [late]
    api.patch(f"/v1/users/{user}", json={"timezone": "America/New_York"}).raise_for_status()
    assert socket.until_type("removed")["id"] == late["id"], "there it was the day before"
    # What happens from now on is compared with the days of the new time zone, too.
    morning = create(api, "tasks", name="Morning", project_id=a_project["id"], due_date="2026-03-02T03:00:00Z")
    assert socket.until_type("added", subscription="q")["item"] == morning
    copy = Copy(socket, "utc")
    copy.fold()
    assert copy.items == [late]


# ---- tickets ---------------------------------------------------------------------------------------------------------


def test_a_ticket_opens_streams_with_the_rights_of_its_key(api, connect, key_with, server, a_project):
    reader = key_with(["tasks:read"])
    response = reader.post("/v1/stream-tickets")
    assert response.status_code == 201 and response.headers["cache-control"] == "no-store"
    ticket = response.json()["ticket"]
    socket = connect(key="", path=f"/v1/realtime?ticket={ticket}")
    socket.send(type="subscribe", id="s", query={"resource": "projects"})
    assert socket.until_type("error")["problem"]["code"] == "forbidden"
    socket.send(type="subscribe", id="t", events=["task.*"])
    socket.until_type("subscribed", id="t")
    with Listener(server.url, "", ticket=ticket, types="task.*") as stream:
        stream.until_type("ready")
        create(api, "tasks", name="For both", project_id=a_project["id"])
        stream.until_type("task.created")
        socket.until_type("event", subscription="t")


def test_a_ticket_is_good_for_streams_only_and_not_for_ever(api, connect, server, monkeypatch):
    ticket = api.post("/v1/stream-tickets").json()["ticket"]
    with server.client("") as nobody:
        problem(nobody.get("/v1/tasks", params={"ticket": ticket}), 401)
        problem(nobody.get("/v1/tasks", headers={"Authorization": f"Bearer {ticket}"}), 401)
        problem(nobody.get("/v1/events", params={"ticket": ticket}), 401)
        problem(nobody.get("/v1/events/stream", params={"ticket": ticket[:-2] + "AA"}), 401)
        problem(nobody.post("/v1/stream-tickets"), 401)
    assert codes(problem(api.post("/v1/stream-tickets", json={"for": 60}), 422)) == ["not_allowed"]
    document = problem(api.get("/v1/events/stream", params={"ticket": ticket}), 400)
    assert codes(document) == ["not_allowed"]
    until = time.monotonic() + 60
    while document["request_id"] not in server.said() and time.monotonic() < until:
        time.sleep(0.05)  # lines are written a moment later
    assert document["request_id"] in server.said()
    assert ticket not in server.said(), "the log does not hold what opens streams"
    # Last, because a cursor is no secret and stands in the log.
    cursor = problem(api.get("/v1/tasks", params={"cursor": ticket}), 400)
    assert codes(cursor) == ["cursor_of_another_query"]


def test_a_ticket_of_a_revoked_key_opens_nothing(connect, somebody, server):
    _, key, secret = somebody("member")
    with server.client(secret) as client:
        ticket = client.post("/v1/stream-tickets").json()["ticket"]
        assert client.delete(f"/v1/api-keys/{key}").status_code == 204
    assert connect(key="", path=f"/v1/realtime?ticket={ticket}").status == 401


# ---- presence --------------------------------------------------------------------------------------------------------


def present(message):
    return [(one["user_id"], one["state"]) for one in message["present"]]


def latest(messages):
    """Who looks, by the last message that says so."""
    return next((present(item) for item in reversed(messages) if item["type"] == "presence"), [])


def test_who_looks_is_told_to_those_who_look(api, connect, somebody, me, a_project, heads):
    user, _, secret = somebody("member")
    mine, theirs = connect(), connect(key=secret)
    before = heads()
    mine.send(type="presence", project_id=a_project["id"], state={"page": "board"})
    assert present(mine.until_type("presence")) == [(me["id"], {"page": "board"})]
    theirs.send(type="presence", project_id=a_project["id"])
    both = [(me["id"], {"page": "board"}), (user, {})]
    theirs.until(lambda messages: any(item["type"] == "presence" and present(item) == both for item in messages))
    mine.until(lambda messages: any(item["type"] == "presence" and present(item) == both for item in messages))
    theirs.send(type="presence", project_id=a_project["id"], state={"typing": True})
    mine.until(lambda messages: latest(messages)[-1:] == [(user, {"typing": True})])
    theirs.close()
    mine.until(lambda messages: latest(messages) == [(me["id"], {"page": "board"})])
    assert heads() == before, "nobody's history holds who looked at what"


def test_presence_ends_with_the_right_to_look(api, connect, somebody, me, a_project):
    user, _, secret = somebody("guest")
    create(api, f"projects/{a_project['id']}/members", user=user, role="viewer")
    mine, theirs = connect(), connect(key=secret)
    mine.send(type="presence", project_id=a_project["id"])
    theirs.send(type="presence", project_id=a_project["id"])
    mine.until(lambda messages: len(latest(messages)) == 2)
    assert api.delete(f"/v1/projects/{a_project['id']}/members/{user}").status_code == 204
    mine.until(lambda messages: latest(messages) == [(me["id"], {})])
    theirs.send(type="presence", project_id=a_project["id"])
    assert theirs.until_type("error")["problem"]["code"] == "not-found"


# ---- several processes -----------------------------------------------------------------------------------------------


def test_two_servers_tell_the_same(start_server, database, tmp_path):
    if database != "postgresql":
        pytest.skip("SQLite has one process")
    one = start_server()
    other = Server(tmp_path / "other", one.database_url)
    with (
        closing_down(other.start()),
        one.client() as client,
        WebSocket(other.url, one.key) as socket,
        Listener(other.url, one.key) as stream,
    ):
        socket.send(type="subscribe", id="q", query={"resource": "projects"})
        socket.until_type("snapshot")
        stream.until_type("ready")
        project = create(client, "projects", name="From the other side")
        assert stream.until_type("project.created").data["data"] == project
        assert socket.until_type("added")["item"] == project
        with WebSocket(one.url, one.key) as here:
            here.send(type="presence", project_id=project["id"], state={"on": "one"})
            socket.send(type="presence", project_id=project["id"], state={"on": "other"})
            socket.until(lambda messages: len(latest(messages)) == 2)
            one.kill()
            socket.until(lambda messages: len(latest(messages)) == 1, 60)
        assert json.dumps(socket.messages[-1]).count('"on": "other"') == 1


@contextmanager
def closing_down(server):
    try:
        yield
    finally:
        server.stop()


def test_a_server_that_ends_says_so(start_server):
    server = start_server()
    with WebSocket(server.url, server.key) as socket:
        socket.until_type("hello")
        assert server.stop() == 0
        said = socket.until_end()
        assert (said[-1]["type"], socket.code) == ("end", 1001)
