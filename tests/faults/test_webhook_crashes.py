"""Every event reaches its webhook, in order for each object, wherever the server dies.

Why at named places: between sending and recording that, or between a delivery and the cursor behind it, there are
microseconds, which a kill at any moment would hit by chance only.
"""

import json
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import pairwise

import httpx2
import pytest
from taskade_server.engine import log
from taskade_server.selftest.installation import prepare
from taskade_server.selftest.process import Server as Killable
from taskade_server.store.database import connect

from tests.support.receiver import Receiver, taken
from tests.support.server import Server

PATIENCE = 60.0
INSIDE = {"TASKADE_OUTBOUND_ALLOW": "127.0.0.0/8", "TASKADE_SQLITE_SYNCHRONOUS": "normal"}
# A statement of the server's, and how many times it may pass.
POINTS = {
    "before the commit": ("before commit", 9),
    "behind the commit, before anybody is told": ("after commit", 9),
    "before the deliveries are written": ("before insert deliveries", 2),
    "behind the deliveries, before the cursor": ("before insert cursors", 2),
    "behind the cursor, before the commit": ("after insert cursors", 2),
    "behind the sending, before its record": ("before insert attempts", 4),
    "behind the attempt, before its outcome": ("after insert attempts", 4),
    "behind the outcome, before the next may go": ("after update deliveries", 5),
}


class Work:
    """Changes tasks until it is told to stop, and does not mind when nobody answers."""

    def __init__(self, url: str, key: str, project: str) -> None:
        self._client = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=5, trust_env=False
        )
        self._project = project
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Work":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        tasks: list[str] = []
        number = 0
        while not self._ended.is_set():
            number += 1
            try:
                if len(tasks) < 5:
                    body = {"name": "A task", "project_id": self._project}
                    tasks.append(self._client.post("/v1/tasks", json=body).json()["id"])
                else:
                    self._client.patch(f"/v1/tasks/{tasks[number % 5]}", json={"name": f"Name {number}"})
            except (httpx2.TransportError, KeyError, ValueError):
                time.sleep(0.01)


def events_of(target, workspace, since):
    """What has happened to tasks, by id."""
    with connect(target) as db:
        found = db.read_sync(lambda tx: log.read_after(tx, workspace, since, 100_000))
    return {event.id: event for event in found if event.type.startswith("task.")}


def check(receiver, events):
    """Each event has arrived, as itself, and none about an object before an earlier one."""
    deadline = time.monotonic() + PATIENCE
    while missing := events.keys() - {found.headers["webhook-id"] for found in list(receiver.received)}:
        assert time.monotonic() < deadline, f"{len(missing)} of {len(events)} events never arrived"
        time.sleep(0.05)
    seen = defaultdict(list)
    bodies = defaultdict(set)
    for found in list(receiver.received):
        event = json.loads(found.body)
        assert found.headers["webhook-id"] == event["id"]
        seen[event["data"]["id"]].append(event["seq"])
        bodies[event["id"]].add(found.body)
    assert all(len(same) == 1 for same in bodies.values()), "a message sent again is the same message"
    for seqs in seen.values():
        assert all(one <= other for one, other in pairwise(seqs)), seqs


def register(url, key, receiver, **more):
    """A project with a webhook, as (project, webhook)."""
    with httpx2.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        project = client.post("/projects", json={"name": "A project"}).json()
        hook = {"url": receiver.url, "events": ["task.*"], "project_id": project["id"], **more}
        return project, client.post("/webhooks", json=hook).json()


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


@pytest.fixture
def killable(tmp_path):
    key = prepare(tmp_path, say=lambda line: None)
    server = Killable(tmp_path, key, with_faults=True, environment=INSIDE)
    server.start()
    yield server
    server.kill()


def url_of(server):
    return f"http://127.0.0.1:{server.port}"


def test_a_server_that_dies_at_any_place(killable, receiver):
    """It is started again each time, and goes on where it was."""
    project, _ = register(url_of(killable), killable.key, receiver)
    with Work(url_of(killable), killable.key, project["id"]):
        for title, (place, nth) in POINTS.items():
            receiver.wait(len(receiver.received) + 10)
            killable.trap({"at": place, "nth": nth})
            assert killable.wait_for_end(PATIENCE) is not None, f"never reached: {title}"
            killable.kill()
            killable.start()
    events = events_of(killable.data / "taskade.db", project["workspace_id"], 0)
    assert len(events) > 3 * len(POINTS)
    check(receiver, events)


def test_a_server_that_dies_while_the_endpoint_thinks(killable, receiver):
    """What was sent is sent again, because nobody knows what became of it."""
    project, _ = register(url_of(killable), killable.key, receiver)
    thinking = threading.Event()
    answered = threading.Event()

    def think(received):
        if not answered.is_set():
            thinking.set()
            answered.wait(PATIENCE)
        return 200, {}

    receiver.answer = think
    with Work(url_of(killable), killable.key, project["id"]):
        assert thinking.wait(PATIENCE)
        killable.kill()
        answered.set()
        killable.start()
        receiver.wait(20)
    check(receiver, events_of(killable.data / "taskade.db", project["workspace_id"], 0))


def test_a_server_that_dies_in_the_middle_of_a_replay(killable, receiver):
    project, hook = register(url_of(killable), killable.key, receiver)
    with httpx2.Client(
        base_url=f"{url_of(killable)}/v1",
        headers={"Authorization": f"Bearer {killable.key}"},
        trust_env=False,
        timeout=20,
    ) as client:
        tasks = [{"name": f"Task {number}"} for number in range(700)]
        client.post("/tasks/bulk", json={"tasks": tasks, "project_id": project["id"]}).raise_for_status()
        receiver.wait(700)
        path = f"/webhooks/{hook['id']}"
        while client.get(f"{path}/health").json()["pending"]:
            time.sleep(0.05)
        receiver.received.clear()
        for place in ("before update webhook_replays", "after update webhook_replays"):
            killable.trap({"at": place})
            if place.startswith("before"):
                replay = client.post(f"{path}/replay", json={"after_seq": 0}).json()
            assert killable.wait_for_end(PATIENCE) is not None
            killable.kill()
            killable.start()
        deadline = time.monotonic() + PATIENCE
        while (found := client.get(f"{path}/replays/{replay['id']}").json())["deliveries"]["succeeded"] < 700:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
    assert found["state"] == "done" and found["queued"] == 700
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 700


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_servers_share_the_work_and_one_of_them_is_killed(fresh_database, receiver, tmp_path):
    """Whichever has the leases: the other goes on, and nothing is sent out of order by the two."""
    environment = {"TASKADE_SECRET": "a secret of the tests, long enough"}
    servers = [Server(tmp_path / str(number) / "data", fresh_database, environment=environment) for number in (1, 2)]
    try:
        for server in servers:
            server.data.mkdir(parents=True)
            server.start()
        first, second = servers
        project, _ = register(first.url, second.key, receiver)
        with Work(second.url, second.key, project["id"]):
            receiver.wait(30)
            first.kill()
            receiver.wait(len(receiver.received) + 50)
            first.start()
            receiver.wait(len(receiver.received) + 20)
        check(receiver, events_of(fresh_database, project["workspace_id"], 0))
        sent = [found.headers["webhook-id"] for found in receiver.received]
        assert len(sent) - len(set(sent)) <= 10, "only what was under way when the first was killed is sent twice"
    finally:
        for server in servers:
            server.kill()


def test_who_is_told_to_stop_finishes_what_it_has_begun(receiver, tmp_path):
    """A restart in good order is nothing that a receiver would notice."""
    begun, told = threading.Event(), threading.Event()

    def think(received):
        begun.set()
        told.wait(PATIENCE)
        time.sleep(0.2)  # the server is on its way out
        return 200, {}

    receiver.answer = think
    server = Server(tmp_path / "data", environment=INSIDE).start()
    project, _ = register(server.url, server.key, receiver)
    with Work(server.url, server.key, project["id"]):
        assert begun.wait(PATIENCE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.2)
        told.set()
        stopping.join()
        receiver.answer = taken
        server.start()
        receiver.wait(len(receiver.received) + 20)
    check(receiver, events_of(server.data / "taskade.db", project["workspace_id"], 0))
    server.stop()
    sent = [found.headers["webhook-id"] for found in receiver.received]
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_servers_send_each_its_share_and_hand_it_over(fresh_database, receiver, tmp_path):
    """Whoever comes gets a part, whoever goes leaves it; and nothing is sent twice, nor out of order."""
    environment = {"TASKADE_SECRET": "a secret of the tests, long enough"}
    first, second = (Server(tmp_path / name / "data", fresh_database, environment=environment) for name in "ab")
    for server in (first, second):
        server.data.mkdir(parents=True)
    first.start()
    try:
        hooks = [register(first.url, first.key, receiver) for _ in range(12)]
        with ExitStack() as work:
            for project, _ in hooks:
                work.enter_context(Work(first.url, first.key, project["id"]))
            receiver.wait(100)
            second.start()
            deadline = time.monotonic() + PATIENCE
            while sent_by(second) < 50:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            before = sent_by(first)
            receiver.wait(len(receiver.received) + 200)
            assert sent_by(first) > before
            second.stop()
            before = sent_by(first)
            receiver.wait(len(receiver.received) + 200)
            assert sent_by(first) > before + 150
        check(receiver, events_of(fresh_database, hooks[0][0]["workspace_id"], 0))
    finally:
        for server in (first, second):
            server.stop()
    sent = [found.headers["webhook-id"] for found in receiver.received]
    assert len(sent) == len(set(sent))


def sent_by(server):
    """How many deliveries a server process has brought to their end."""
    text = httpx2.get(f"{server.url}/metrics", trust_env=False).text
    return sum(
        float(line.split()[1]) for line in text.splitlines() if line.startswith("taskade_webhook_attempts_total{")
    )


def test_postgresql_restarts_meanwhile(own_postgres, receiver, tmp_path):
    url = own_postgres.create_database()
    server = Server(tmp_path / "data", url).start()
    try:
        project, _ = register(server.url, server.key, receiver)
        with Work(server.url, server.key, project["id"]):
            for outage in (lambda: own_postgres.shut_down("immediate"), own_postgres.kill):
                receiver.wait(len(receiver.received) + 20)
                outage()
                own_postgres.start_again()
            receiver.wait(len(receiver.received) + 20, PATIENCE)
        check(receiver, events_of(url, project["workspace_id"], 0))
    finally:
        server.stop()
