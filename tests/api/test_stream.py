"""GET /events/stream: everything once, in order, across breaks of any kind; and an end as soon as a right ends."""

import random
import socket
import threading
from contextlib import ExitStack

import pytest

from tests.api.asking import codes, create, listed, places, problem
from tests.support.listening import Listener, eventually
from tests.support.websocket import WebSocket


@pytest.fixture
def listen(server):
    """Opens streams: `listen(types="task.*")`; with `key=` another's."""
    opened = []

    def run(key=None, **given):
        opened.append(Listener(server.url, server.key if key is None else key, **given))
        return opened[-1]

    yield run
    for listener in opened:
        listener.close()


def test_what_happens_is_told_at_once(api, listen, a_project):
    stream = listen(project_id=a_project["id"])
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-store"
    assert stream.headers["x-accel-buffering"] == "no"
    ready = stream.until_type("ready")
    assert ready.data == {"workspace_id": a_project["workspace_id"], "seq": int(ready.id)}
    assert stream.lines[0].startswith("retry: ")
    task = create(api, "tasks", name="Now", project_id=a_project["id"])
    told = stream.until_type("task.created")
    assert told.data == listed(api, "events", object_id=task["id"])[0]
    assert told.id == str(told.data["seq"]) and int(told.id) > int(ready.id)


def test_only_what_is_wanted(api, listen, a_project):
    other = create(api, "projects", name="Another")["id"]
    stream = listen(project_id=a_project["id"], types="task.*", filter='{"priority": "urgent"}')
    stream.until_type("ready")
    create(api, "tasks", name="Elsewhere", project_id=other, priority="urgent")
    create(api, "tasks", name="Of no urgency", project_id=a_project["id"])
    wanted = create(api, "tasks", name="Urgent", project_id=a_project["id"], priority="urgent")["id"]
    stream.until_type("task.created")
    assert [message.data["data"]["id"] for message in stream.messages[1:]] == [wanted]


def test_a_stream_goes_on_where_it_ended(api, listen, a_project):
    first = listen(project_id=a_project["id"])
    ready = first.until_type("ready")
    create(api, "tasks", name="One", project_id=a_project["id"])
    first.until_type("task.created")
    first.close()
    create(api, "tasks", name="Two", project_id=a_project["id"])
    by_header = listen(project_id=a_project["id"], last_event_id=first.last_id, after=ready.id)
    by_parameter = listen(project_id=a_project["id"], after=first.last_id)
    for stream in (by_header, by_parameter):
        assert stream.until_type("task.created").data["data"]["name"] == "Two"
        assert [message.type for message in stream.messages] == ["ready", "task.created"]
        assert stream.messages[0].id == first.last_id


def test_a_break_anywhere_loses_and_doubles_nothing(api, listen, server):
    """Writers write; readers hang up at random and come back with what they got last."""
    workspace = create(api, "workspaces", name="Busy")["id"]
    project = create(api, "projects", name="Busy", workspace_id=workspace)["id"]
    start = listen(workspace_id=workspace).until_type("ready").id
    writing = [threading.Thread(target=write, args=(server, project, seed)) for seed in range(3)]
    for thread in writing:
        thread.start()
    found: dict[int, list[int]] = {}
    readers = [
        threading.Thread(
            target=lambda seed: found.__setitem__(seed, read(listen, workspace, start, writing, seed)), args=(seed,)
        )
        for seed in range(4)
    ]
    for thread in readers:
        thread.start()
    for thread in (*writing, *readers):
        thread.join(60)
    head = int(api.get("/v1/events", params={"workspace_id": workspace, "after": "latest"}).headers["next-after"])
    assert head - int(start) > 150
    assert found == {seed: list(range(int(start) + 1, head + 1)) for seed in range(4)}


def write(server, project, seed):
    chance = random.Random(seed)
    with server.client() as client:
        made = [create(client, "tasks", name="First", project_id=project)["id"]]
        for number in range(40):
            match chance.randrange(3):
                case 0:
                    made.append(create(client, "tasks", name=f"Task {number}", project_id=project)["id"])
                case 1:
                    client.patch(f"/v1/tasks/{chance.choice(made)}", json={"name": f"Changed {seed} {number}"})
                case 2:
                    body = {"tasks": [{"name": f"Bulk {index}"} for index in range(5)], "project_id": project}
                    assert client.post("/v1/tasks/bulk", json=body).status_code == 201


def read(listen, workspace, place, writing, seed):
    """The seqs in the order in which they came, over many connections."""
    chance, got = random.Random(100 + seed), []
    while True:
        over = not any(thread.is_alive() for thread in writing)
        stream, most = listen(workspace_id=workspace, last_event_id=place, seconds=1), chance.randrange(1, 30)
        if over:
            stream.until_end()
        else:
            stream.until(lambda messages, stream=stream, most=most: len(messages) > most or stream.ended)
        stream.close()
        got += [int(message.id) for message in stream.messages if message.type != "ready"]
        place = stream.last_id
        if over:
            return got


def test_a_place_before_the_log_is_told_once(api, listen, database_of):
    workspace = create(api, "workspaces", name="With a short memory")["id"]
    forget = "UPDATE log_heads SET first_seq = 4 WHERE workspace_id = ?"
    database_of.write_sync(lambda tx: tx.run(forget, (workspace,)))
    stream = listen(workspace_id=workspace, last_event_id="1", seconds=1)
    resync, ready = stream.until_end()
    assert (resync.type, ready.type) == ("resync", "ready")
    assert resync.data == {"workspace_id": workspace, "reason": "log", "first_seq": 4, "seq": int(ready.id)}
    again = listen(workspace_id=workspace, last_event_id=stream.last_id, seconds=1)
    assert [message.type for message in again.until_end()] == ["ready"]


@pytest.mark.parametrize("place", ["999999999", "7-1"])
def test_a_place_that_is_not_from_this_log_is_told_once(listen, place):
    """As after a restore from an older backup."""
    stream = listen(last_event_id=place, seconds=1)
    assert [message.type for message in stream.until_end()] == ["resync", "ready"]
    again = listen(last_event_id=stream.last_id, seconds=1)
    assert [message.type for message in again.until_end()] == ["ready"]


def test_the_time_can_be_limited(listen):
    stream = listen(seconds=1)
    assert [message.type for message in stream.until_end()] == ["ready"]


def test_events_without_names_are_all_messages(api, listen, a_project):
    """So that one handler of a browser's EventSource gets every event; what is no event of the log keeps its name."""
    stream = listen(project_id=a_project["id"], names="off")
    stream.until_type("ready")
    task = create(api, "tasks", name="Now", project_id=a_project["id"], assignee="me")
    stream.until_type("message", 2)
    told = [message.data for message in stream.messages[1:]]
    assert [event["type"] for event in told] == ["task.created", "task.assigned"]
    assert told == listed(api, "events", object_id=task["id"])
    assert "event: task" not in "\n".join(stream.lines)
    refused = problem(api.get("/v1/events/stream", params={"names": "none"}), 400)
    assert (places(refused), codes(refused)) == (["names"], ["not_allowed"])


def test_faults_are_named(api, listen, home):
    assert places(listen(tpyes="task.*").problem()) == ["tpyes"]
    assert codes(listen(last_event_id="x").problem()) == ["invalid_format"]
    assert places(listen(seconds=0, wait=3).problem()) == ["wait", "seconds"]
    assert listen(key="").status == 401
    refused = problem(api.get("/v1/events/stream", headers={"Accept": "application/json"}), 406)
    assert "text/event-stream" in refused["detail"]


# ---- rights that end -------------------------------------------------------------------------------------------------


def test_a_revoked_key_ends_its_stream(api, listen, somebody, server):
    _, key, secret = somebody("member")
    stream = listen(key=secret)
    stream.until_type("ready")
    with server.client(secret) as client:
        assert client.delete(f"/v1/api-keys/{key}").status_code == 204
    last = stream.until_end()[-1]
    assert (last.type, last.data["code"], last.data["status"]) == ("end", "unauthenticated", 401)


def test_the_end_of_a_membership_ends_the_stream(api, listen, somebody, home):
    user, _, secret = somebody("member")
    stream = listen(key=secret, workspace_id=home)
    stream.until_type("ready")
    assert api.delete(f"/v1/workspaces/{home}/members/{user}").status_code == 204
    *_, revoked, end = stream.until_end()
    assert (revoked.type, revoked.data["resource"], revoked.data["id"]) == ("access.revoked", "workspace", home)
    assert (end.type, end.data["code"]) == ("end", "not-found")


def test_nothing_is_told_of_what_became_private(api, listen, somebody, a_project):
    _, _, secret = somebody("member")
    stream = listen(key=secret)
    stream.until_type("ready")
    api.patch(f"/v1/projects/{a_project['id']}", json={"visibility": "private"})
    told = stream.until_type("access.revoked").data
    assert (told["resource"], told["id"]) == ("project", a_project["id"])
    create(api, "tasks", name="A secret", project_id=a_project["id"])
    later = create(api, "projects", name="Behind it in the log")["id"]
    stream.until(lambda messages: any(about(message, later) for message in messages))
    api.patch(f"/v1/projects/{a_project['id']}", json={"visibility": "workspace"})
    back = stream.until(lambda messages: any(about(message, a_project["id"]) for message in messages))
    assert [message.type for message in back if about(message, a_project["id"])] == ["project.updated"]
    assert [message.type for message in back].count("access.revoked") == 1
    assert "A secret" not in str(back)


def about(message, object_id):
    return message.type not in ("ready", "access.revoked") and message.data["data"]["id"] == object_id


def test_whoever_was_away_is_told_what_was_taken(api, listen, somebody, a_project):
    user, _, secret = somebody("guest")
    create(api, f"projects/{a_project['id']}/members", user=user, role="editor")
    first = listen(key=secret)
    place = first.until_type("ready").id
    first.close()
    assert api.delete(f"/v1/projects/{a_project['id']}/members/{user}").status_code == 204
    create(api, "tasks", name="Not for guests", project_id=a_project["id"])
    stream = listen(key=secret, after=place, seconds=1)
    revoked = [message.data["id"] for message in stream.until_end() if message.type == "access.revoked"]
    assert revoked == [a_project["id"]]
    assert "Not for guests" not in str(stream.messages)


def test_a_task_that_moves_out_of_sight(api, listen, somebody, a_task):
    user, _, secret = somebody("guest")
    create(api, f"projects/{a_task['project_id']}/members", user=user, role="viewer")
    stream = listen(key=secret)
    stream.until_type("ready")
    there = create(api, "projects", name="Out of sight")["id"]
    assert api.post(f"/v1/tasks/{a_task['id']}/move", json={"project_id": there}).status_code == 200
    told = stream.until_type("access.revoked").data
    assert (told["resource"], told["id"]) == ("task", a_task["id"])
    assert there not in str(stream.messages)


def test_a_key_that_may_less_is_told_to_read_anew(api, listen, server):
    key = create(api, "api-keys", name="Less", scopes=["tasks:read", "projects:read"])
    stream = listen(key=key["secret"])
    stream.until_type("ready")
    assert api.patch(f"/v1/api-keys/{key['id']}", json={"scopes": ["projects:read"]}).status_code == 200
    assert stream.until_type("resync").data["reason"] == "access"


# ---- what may be too much --------------------------------------------------------------------------------------------


def deaf_to_a_stream(server):
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", server.port))
    deaf.sendall(request_for_a_stream(server.key))
    return deaf


def deaf_to_a_websocket(server):
    deaf = WebSocket(server.url, server.key, deaf=True)
    deaf.send(type="subscribe", id="s")
    return deaf


def request_for_a_stream(key):
    return f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


@pytest.mark.parametrize("begin", [deaf_to_a_stream, deaf_to_a_websocket])
def test_whoever_does_not_read_is_given_up_and_nobody_else(api, listen, server, database, a_project, begin):
    if database != "sqlite":
        pytest.skip("it takes ten seconds and has nothing to do with the database")
    evicted = number_of("taskade_streams_evicted_total", server)
    with begin(server):
        neighbour = listen(project_id=a_project["id"])
        neighbour.until_type("ready")
        tasks = [{"name": f"Long {number}", "description": "x" * 40_000} for number in range(100)]
        for _ in range(2):
            body = {"project_id": a_project["id"], "tasks": tasks}
            assert api.post("/v1/tasks/bulk", json=body).status_code == 201
        assert neighbour.until_type("task.created", 200)
        eventually(lambda: number_of("taskade_streams_evicted_total", server) == evicted + 1, 40)
        create(api, "tasks", name="And on it goes", project_id=a_project["id"])
        assert neighbour.until_type("task.created", 201).data["data"]["name"] == "And on it goes"


def number_of(name, server):
    with server.client("") as client:
        (line,) = [line for line in client.get("/metrics").text.split("\n") if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_streams_are_counted_and_bounded(server, listen, somebody):
    """Each caller may have 200 in one process; who has them all is told so, and others go on."""
    secret = somebody("member")[2]
    before = number_of("taskade_streams_open", server)
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(200)]
        for stream in opened:
            stream.sendall(request_for_a_stream(secret))
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        assert number_of("taskade_streams_open", server) == before + 200
        with server.client(secret) as client:
            refused = client.get("/v1/events/stream")
            assert problem(refused, 429, "too-many-streams")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/v1/events").status_code == 200
        with WebSocket(server.url, secret) as websocket:
            assert (websocket.status, websocket.problem()["code"]) == (429, "too-many-streams")
        listen().until_type("ready")
        opened[0].close()
        eventually(lambda: number_of("taskade_streams_open", server) == before + 200)
        listen(key=secret).until_type("ready")


def test_a_server_that_ends_sends_its_clients_on(start_server):
    server = start_server()
    with Listener(server.url, server.key) as stream:
        place = stream.until_type("ready").id
        assert server.stop() == 0
        stream.until_end()
        assert any(line.startswith(": this server ends") for line in stream.lines)
        assert [message.type for message in stream.messages] == ["ready"]
    server.start()
    with Listener(server.url, server.key, last_event_id=stream.last_id) as again, server.client() as client:
        again.until_type("ready")
        create(client, "projects", name="After the break")
        assert again.until_type("project.created").id == str(int(place) + 1)
