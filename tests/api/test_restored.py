"""What clients know of a lost future: after an older backup was restored, no number of it is taken for a new one.

Why each is asked twice, at once and when the new history has grown beyond the old one: at first a position is ahead of
the log and easily told; later only its generation tells it from a position of today.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from taskade_server.engine import check
from taskade_server.kit import ids
from taskade_server.store.database import Tx, connect

from tests.api.asking import create, problem
from tests.support.listening import Listener
from tests.support.server import Server
from tests.support.websocket import WebSocket


class World:
    """A server, its backup, what clients learned after that, and the server that was restored from it."""

    def __init__(self, server: Server, here: Server, file: Path, *, grown: bool) -> None:
        self.grown = grown
        with server.client() as client:
            self.project = create(client, "projects", name="Kept")["id"]
            self.path = f"/v1/tasks/{create(client, 'tasks', name='First', project_id=self.project)['id']}"
            self.workspace = client.get(self.path).json()["workspace_id"]
            self.kept_id = int(client.get("/v1/events", params={"after": "latest"}).headers["next-after"])
            self.kept = client.get(self.path)
            hook = create(client, "webhooks", url="https://example.com/hook", events=["task.*"], enabled=False)["id"]
            with connect(server.database_url or server.data / "taskade.db") as db:
                states = "INSERT INTO webhook_states (webhook_id, workspace_id, last_seq) VALUES (?, ?, 1)"
                db.write_sync(lambda tx: tx.run(states, (hook, self.workspace)))
            server.command("backup", str(file))
            # The future that is lost.
            self.made = ids.new("task")
            self.once = {"Idempotency-Key": ids.new("req")}
            self.body = {"id": self.made, "name": "LOST", "project_id": self.project}
            assert client.post("/v1/tasks", json=self.body, headers=self.once).status_code == 201
            self.lost_made = client.get(f"/v1/tasks/{self.made}").headers["etag"]
            lost = client.patch(self.path, json={"name": "LOST"})
            self.etag, self.commit = lost.headers["etag"], lost.headers["commit-seq"]
            listing = client.get("/v1/tasks", params={"project_id": self.project})
            self.list_etag = listing.headers["etag"]
            self.token = self.synced(client)
            self.seq = int(client.get("/v1/events", params={"after": "latest"}).headers["next-after"])
        server.stop()
        here.command("restore", str(file))
        self.here, self.key = here.start(), server.key
        with here.client(self.key) as client:
            problem(client.get("/v1/events", params={"after": self.seq}), 410, "gone")
            if grown:
                self.grow(client)

    def synced(self, client: httpx2.Client) -> str:
        answer = client.get("/v1/sync", params={"workspace_id": self.workspace}).json()
        while answer["has_more"]:
            answer = client.get("/v1/sync", params={"since": answer["next"]}).json()
        return str(answer["next"])

    def grow(self, client: httpx2.Client) -> None:
        """The new history becomes longer than the lost one, with other contents under the same numbers."""
        assert client.patch(self.path, json={"name": "OTHER"}).status_code == 200
        assert client.post("/v1/tasks", json={**self.body, "name": "OTHER"}).status_code == 201
        body = {"tasks": [{"name": "More"} for _ in range(20)], "project_id": self.project}
        assert client.post("/v1/tasks/bulk", json=body).status_code == 201


@pytest.fixture(
    scope="module",
    params=[(kind, grown) for kind in ("sqlite", "postgresql") for grown in (False, True)],
    ids=lambda param: f"{param[0]}, {'later' if param[1] else 'at once'}",
)
def world(request, tmp_path_factory) -> Iterator[World]:
    """One in which nothing has happened since, and one in which the new history has grown, on both databases."""
    folder = tmp_path_factory.mktemp("restored")
    kind, grown = request.param

    def url() -> str:
        made = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
        return str(made)

    server = Server(folder / "old", url()).start()
    here = Server(folder / "new", url())
    try:
        yield World(server, here, folder / "a.backup", grown=grown)
    finally:
        server.stop()
        here.stop()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[httpx2.Client]:
    with world.here.client(world.key) as client:
        yield client


def listen(world: World, place: str) -> Any:
    stream = Listener(world.here.url, world.key, last_event_id=place, seconds=1, workspace_id=world.workspace)
    try:
        return [message.type for message in stream.until_end()], stream.last_id
    finally:
        stream.close()


def test_an_etag_of_the_lost_future_matches_nothing(world, client):
    assert world.etag == '"2"' and world.lost_made == '"1"'
    answer = client.get(world.path, headers={"If-None-Match": world.etag})
    assert answer.status_code == 200 and answer.headers["etag"] != world.etag
    stale = client.patch(world.path, json={"name": "Overwritten"}, headers={"If-Match": world.etag})
    problem(stale, 412, "precondition-failed")
    operation = {"method": "PATCH", "path": world.path, "body": {"name": "x"}, "if_match": 2}
    assert client.post("/v1/batch", json={"operations": [operation]}).status_code == 412
    if world.grown:
        made = client.get(f"/v1/tasks/{world.made}", headers={"If-None-Match": world.lost_made})
        assert made.status_code == 200 and made.json()["name"] == "OTHER"


def test_a_list_of_the_lost_future_is_not_the_present_one(world, client):
    listing = {"params": {"project_id": world.project}, "headers": {"If-None-Match": world.list_etag}}
    assert client.get("/v1/tasks", **listing).status_code == 200


def test_a_sync_token_of_the_lost_future_has_expired(world, client):
    problem(client.get("/v1/sync", params={"since": world.token}), 410, "token-expired")
    assert client.get("/v1/sync", params={"since": world.synced(client)}).status_code == 200


def test_a_stream_goes_on_only_from_a_place_in_this_history(world, client):
    for place in (str(world.seq), f"{world.workspace}:{world.seq}"):
        told, last = listen(world, place)
        assert told == ["resync", "ready"]
    assert listen(world, last)[0] == ["ready"]
    client.patch(world.path, json={"name": "Told"})
    assert listen(world, last)[0] == ["ready", "task.updated"]


def test_a_position_ahead_of_the_log_is_gone(world, client):
    ahead = world.seq + 1000
    for given in ({"after": ahead}, {"after": f"{world.workspace}:{ahead}"}, {"after": f"1-{world.seq}"}):
        problem(client.get("/v1/events", params=given), 410, "gone")
    assert client.get("/v1/events", params={"after": world.kept_id}).status_code == 200


def test_a_subscription_ahead_of_the_log_is_told_to_begin_anew(world):
    with WebSocket(world.here.url, world.key) as socket:
        socket.send(type="subscribe", id="s", after=world.seq + 1000, workspace_id=world.workspace)
        assert socket.until_type("resync")["reason"] == "log"


def test_what_was_read_can_be_put_back(world, client):
    read = client.get(world.path)
    back = client.put(world.path, json=read.json(), headers={"If-Match": read.headers["etag"]})
    assert back.status_code == 200 and back.headers["etag"] == read.headers["etag"]
    changed = client.put(world.path, json={**read.json(), "name": "Put"})
    again = client.put(world.path, json=changed.json(), headers={"If-Match": changed.headers["etag"]})
    assert again.status_code == 200


def test_the_chain_of_a_webhook_begins_anew(world):
    with connect(world.here.database_url or world.here.data / "taskade.db") as db:
        assert db.read_sync(lambda tx: tx.all("SELECT last_seq FROM webhook_states")) == [(None,)]


def test_a_write_that_was_lost_is_done_again(world, client):
    body = {**world.body, "id": ids.new("task")}
    answer = client.post("/v1/tasks", json=body, headers=world.once)
    assert answer.status_code == 201 and "idempotent-replayed" not in answer.headers


def test_the_restored_database_is_sound_and_can_be_restored_again(world, tmp_path):
    """Each restore makes a generation of its own, also two of the same backup."""
    world.here.command("backup", str(tmp_path / "again.backup"))
    with connect(world.here.database_url or world.here.data / "taskade.db", patient=True) as db:
        assert db.read_sync(check.replay, snapshot=True) == []
    found = []
    for name in ("one", "two"):
        Server(tmp_path / name).command("restore", str(tmp_path / "again.backup"))
        found.append(generation_at(tmp_path / name))
    assert found[0] != found[1] and all(number > generation_at(world.here.data, world.here) for number in found)
    Server(tmp_path / "moved").command("restore", "--move", str(tmp_path / "again.backup"))
    assert generation_at(tmp_path / "moved") == generation_at(world.here.data, world.here)


def generation_at(folder: Path, server: Server | None = None) -> int:
    def unit(tx: Tx) -> int:
        row = tx.one("SELECT value FROM counters WHERE name = 'generation'")
        return int(row[0]) if row else 0

    with connect((server and server.database_url) or folder / "taskade.db") as db:
        return db.read_sync(unit)
