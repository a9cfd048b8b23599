"""One audit log, whichever process writes it: several servers on one PostgreSQL, two of them stopped on the way."""

import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx2

from tests.support.server import Server

CHANGES, DENIALS, THREADS = 40, 10, 6


class Work:
    """Changes and refused changes through one server after another. `changed` are the requests that were answered."""

    def __init__(self, servers: list[Server], key: str, weak: str, project: str) -> None:
        self._servers, self._key, self._weak, self._project = servers, key, weak, project
        self.changed: list[str] = []
        self.denied = 0
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        for step in range(CHANGES):
            server = self._servers[(number + step) % len(self._servers)]
            body = {"name": f"{number}.{step}", "project_id": self._project}
            self._ask(server, self._key, body, f"owner {number}", 201)
            if step % (CHANGES // DENIALS) == 0:
                self._ask(self._servers[0], self._weak, body, f"weak {number}", 403)

    def _ask(self, server: Server, key: str, body: dict[str, str], agent: str, status: int) -> None:
        headers = {"Authorization": f"Bearer {key}", "User-Agent": agent}
        try:
            answer = httpx2.post(
                f"{server.url}/v1/tasks", json=body, headers=headers, timeout=120, trust_env=False, verify=False
            )
        except httpx2.TransportError:
            return  # that server is not there any more
        assert answer.status_code == status, answer.text
        with self._lock:
            if status == 201:
                self.changed.append(answer.headers["x-request-id"])
            else:
                self.denied += 1


def test_several_processes_write_one_log_that_verifies(postgres, tmp_path):
    """Every change that was answered once, every refusal counted once, no position missing, and all of it proven."""
    url = postgres.create_database()
    servers = [Server(tmp_path / "one", url, "--workers", "2"), *(Server(tmp_path / name, url) for name in ("b", "c"))]
    servers[0].start()
    with ExitStack() as stack:
        for server in servers[1:]:
            server.start()
        for server in servers:
            stack.callback(server.stop)
        first = stack.enter_context(servers[0].client())
        home = first.get("/v1/users/me").json()["workspace_id"]
        project = first.post("/v1/projects", json={"name": "Watched"}).json()["id"]
        weak = first.post("/v1/api-keys", json={"name": "weak", "scopes": ["tasks:read"]}).json()["secret"]
        work = Work(servers, servers[0].key, weak, project)
        threads = [threading.Thread(target=work.run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        early = tmp_path / "early.json"
        early.write_text(first.get("/v1/audit/checkpoint").text)
        servers[2].kill()
        servers[1].stop()
        for thread in threads:
            thread.join()
        key = first.get("/v1/audit/key").json()["key"]
        servers[0].restart()  # writes down what it has counted
        found = read_all(servers[0])
        export = tmp_path / "audit.jsonl"
        servers[0].command("audit", "export", "--workspace", home, str(export))
        told = servers[0].command("audit", "verify", str(export), "--key", key, "--checkpoint", str(early))
        assert told.endswith("nothing was changed, removed, put in or moved.")
        assert "nothing was changed" in servers[0].command("audit", "verify")
    made = Counter(entry["request_id"] for entry in found if entry["action"] == "task.created")
    # A third of them talk to the server that goes on to the end.
    assert len(work.changed) >= THREADS * CHANGES // 3 and not set(work.changed) - made.keys()
    assert set(made.values()) == {1}
    denied = [entry for entry in found if entry["action"] == "access.denied"]
    assert sum(entry["times"] for entry in denied) == work.denied == THREADS * DENIALS
    for log in ("changes", "accesses"):
        positions = [entry["seq"] for entry in found if entry["log"] == log]
        assert positions == list(range(1, len(positions) + 1))


def read_all(server: Server) -> list[dict[str, Any]]:
    """The whole log, oldest first."""
    found: list[dict[str, Any]] = []
    with server.client() as client:
        path: str | None = "/v1/audit?order=asc&limit=1000"
        while path:
            answer = client.get(path)
            found += answer.json()
            path = answer.links.get("next", {}).get("url")
    return found
