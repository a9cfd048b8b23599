"""A backup that is made while clients write holds a moment of their work: all of it up to some point, and no more.

Why the log says which moment: every change is numbered, so that what is missing, or came too early, shows.
"""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from taskade_server.engine import check, log
from taskade_server.store.database import Tx, connect

from tests.api.asking import create, listed
from tests.support.server import Server

WRITERS = 3


@contextmanager
def constant_writes(server: Server):
    """Clients that create, change and delete without a pause; gives the acknowledged numbers, as they come in."""
    stop, acknowledged = threading.Event(), []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with server.client() as client:
                while not stop.is_set():
                    tasks = [
                        {"name": f"Written {number}", "labels": ["x"], "custom_fields": {"n": n}} for n in range(5)
                    ]
                    answer = client.post("/v1/tasks/bulk", json={"tasks": tasks})
                    assert answer.status_code == 201
                    path = f"/v1/tasks/{answer.json()[0]['id']}"
                    changed = client.patch(path, json={"name": f"Changed {number}", "labels": ["y"]})
                    assert changed.status_code == 200
                    assert client.delete(f"/v1/tasks/{answer.json()[1]['id']}").status_code == 204
                    acknowledged.append(changed.headers["Commit-Seq"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        while len(acknowledged) < 10 and not failures:
            threading.Event().wait(0.01)
        yield acknowledged
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []


@pytest.fixture
def elsewhere(tmp_path, postgres) -> Callable[[str], tuple[Path, str]]:
    """An empty place for an installation on one of the databases: its folder and its URL."""
    return lambda kind: (tmp_path / "elsewhere", postgres.create_database() if kind == "postgresql" else "")


def events(place: str | Path) -> dict[str, list[log.Event]]:
    """The whole log of each workspace."""

    def unit(tx: Tx) -> dict[str, list[log.Event]]:
        names = [row[0] for row in tx.all("SELECT workspace_id FROM log_heads")]
        return {name: log.read_after(tx, name, 0, 1_000_000) for name in names}

    with connect(place, patient=True) as db:
        return db.read_sync(unit, snapshot=True)


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_under_constant_writes(target, start_server, elsewhere, tmp_path):
    server = start_server()
    file = tmp_path / "a.backup"
    with constant_writes(server) as acknowledged:
        before = list(acknowledged)
        assert "verified" in server.command("backup", str(file))
        assert "is sound" in server.command("check")
        assert len(acknowledged) > len(before), "nobody wrote meanwhile"
    data, url = elsewhere(target)
    Server(data, url).command("restore", str(file))
    there, here = events(server.database_url or server.data / "taskade.db"), events(url or data / "taskade.db")
    assert here.keys() == there.keys()
    for name, restored in here.items():
        assert restored == there[name][: len(restored)]
    assert all(int(seq) <= len(here[name]) for name, _, seq in (text.partition(":") for text in before))
    with connect(url or data / "taskade.db", patient=True) as db:
        assert db.read_sync(check.replay, snapshot=True) == []


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_restored_server_goes_on_as_the_old_one(target, start_server, elsewhere, tmp_path):
    """The same keys, the same lists, cursors that were given out before, and numbers that nobody has yet."""
    server = start_server()
    with server.client() as client:
        project = create(client, "projects", name="Kept", custom_fields={"size": 3})
        tasks = [{"name": f"Word{n} söme", "labels": ["a"] * (n % 2), "project_id": project["id"]} for n in range(30)]
        create(client, "tasks/bulk", tasks=tasks)
        listing = client.get("/v1/tasks", params={"sort": "-name", "limit": 7})
        following = listing.links["next"]["url"].partition("/v1/")[2]
        expected = {path: client.get(f"/v1/{path}").content for path in (following, "projects", "tasks?q=some")}
    assert len(expected["tasks?q=some"]) > 1000
    server.command("backup", str(tmp_path / "a.backup"))
    data, url = elsewhere(target)
    restored = Server(data, url)
    restored.command("restore", str(tmp_path / "a.backup"))
    restored.start()
    try:
        with restored.client(server.key) as client:
            assert {path: client.get(f"/v1/{path}").content for path in expected} == expected
            made = create(client, "tasks", name="Afterwards", project_id=project["id"])
            assert listed(client, "tasks", q="afterwards") == [made]
        assert "is sound" in restored.command("check")
    finally:
        restored.stop()
