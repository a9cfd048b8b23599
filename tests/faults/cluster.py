"""A cluster under load while its parts end, one after another. `python -m tests.faults.cluster --rounds 10`

Why a ledger: what the clients were told is written down as they are told, and at the end the database has to agree with
all of it; who looks only at statuses does not see a write that was acknowledged and is gone.
"""

import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from taskade_server.engine import check
from taskade_server.store.database import connect

from tests.support import cluster as clusters
from tests.support.balancer import Balancer
from tests.support.cluster import Cluster
from tests.support.load import Client
from tests.support.postgres import PostgreSQL
from tests.support.processes import make_run_folder, remove
from tests.support.server import Server
from tests.support.valkey import Valkey

CLIENTS = 6
PATIENCE_SECONDS = 60.0
LIMIT = 30


@dataclass
class Ledger:
    """What the clients were told, and what they should not have been told."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # as last acknowledged, by id
    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    steps: int = 0


class Worker(threading.Thread):
    """A client with a project of its own, in which it creates, changes, reads and counts tasks.

    A request without an answer is sent again with its Idempotency-Key until it has one, so that in the end each has had
    exactly one effect.
    """

    def __init__(self, ledger: Ledger, url: str, key: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._ledger, self._over = ledger, over
        self._client = Client(url, key)
        self._mine = 0

    def run(self) -> None:
        with self._client:
            try:
                project = self._until_answered("POST", "/v1/projects", {"name": "Ledger"})[0]["id"]
                while not self._over.is_set():
                    self._step(project)
                    self._ledger.steps += 1
            except Exception as error:
                self._ledger.faults.append(f"a client gave up: {error!r}")
                raise

    def _step(self, project: str) -> None:
        body = {"name": uuid.uuid4().hex, "project_id": project}
        task, _ = self._until_answered("POST", "/v1/tasks", body)
        self._mine += 1
        self._remember(task)
        self._check(task)
        task, headers = self._until_answered("PATCH", f"/v1/tasks/{task['id']}", {"name": f"{body['name']} changed"})
        self._remember(task)
        self._check(task, f"?min_seq={headers['commit-seq']}")
        _, headers = self._until_answered("GET", f"/v1/tasks?project_id={project}&limit=1&count=true")
        if int(headers["total-count"]) != self._mine:
            self._ledger.faults.append(f"a list of {self._mine} tasks has {headers['total-count']}")

    def _remember(self, task: dict[str, Any]) -> None:
        self._ledger.tasks[task["id"]] = task

    def _check(self, task: dict[str, Any], query: str = "") -> None:
        read, _ = self._until_answered("GET", f"/v1/tasks/{task['id']}{query}")
        if read != task:
            self._ledger.faults.append(f"stale: {read} instead of {task}")

    def _until_answered(self, method: str, path: str, body: Any = None) -> tuple[Any, dict[str, str]]:
        headers = {} if method == "GET" else {"Idempotency-Key": uuid.uuid4().hex}
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                status, received, text = self._client.ask(method, path, body, **headers)
            except (OSError, http.client.HTTPException) as error:
                self._ledger.broken[repr(error)] += 1
                time.sleep(0.05)
                continue
            self._ledger.statuses[status] += 1
            if status in (200, 201):
                return json.loads(text), received
            if "retry-after" not in received or status not in (503, 409):
                self._ledger.faults.append(f"{method} {path} answered {status}: {text[:300]!r}")
            time.sleep(0.05)
        raise TimeoutError(f"{method} {path} was not answered for {PATIENCE_SECONDS:.0f} s")


@dataclass
class Play:
    """One performance: a cluster, its clients, and what is done to it."""

    cluster: Cluster
    balancer: Balancer
    postgres: PostgreSQL
    valkey: Valkey
    ledger: Ledger
    say: Callable[[str], None]

    @contextmanager
    def act(self, title: str, *, refusals: bool = False, broken: int = 0) -> Iterator[None]:
        """Note what the clients saw meanwhile; refusals (503) and broken connections only where they are said to be."""
        ledger = self.ledger
        statuses, lost, steps = ledger.statuses.copy(), ledger.broken.total(), ledger.steps
        began = time.monotonic()
        yield
        self.go_on()
        seen = ledger.statuses - statuses
        lost = ledger.broken.total() - lost
        self.say(
            f"{title:<32} {time.monotonic() - began:5.1f} s  {ledger.steps - steps:5} rounds  {dict(seen)}"
            f"{f'  {lost} connections lost' if lost else ''}"
        )
        if lost > broken:
            ledger.faults.append(f"{title}: {lost} connections were lost: {ledger.broken} {self.balancer.lost[-3:]}")
        if not refusals and (seen[503] or seen[409]):
            ledger.faults.append(f"{title}: {seen}")

    def go_on(self, steps: int = 10) -> None:
        """Until every client has surely got through once more."""
        goal, until = self.ledger.steps + steps + CLIENTS, time.monotonic() + PATIENCE_SECONDS
        while self.ledger.steps < goal:
            if time.monotonic() > until or self.ledger.faults:
                raise AssertionError(f"no progress: {self.ledger.faults[:3]} {self.cluster.said()[-4000:]}")
            time.sleep(0.02)

    def round(self) -> None:
        """Everything that may happen to a cluster, once."""
        with self.act("all is well"):
            pass
        with self.act("PostgreSQL restarts", refusals=True):
            self.postgres.shut_down()
            self.postgres.start_again()
        with self.act("PostgreSQL is killed", refusals=True):
            self.postgres.kill()
            self.postgres.start_again()
        with self.act("a server is killed", refusals=True, broken=CLIENTS):
            self.cluster.servers[0].kill()
            self.go_on()
            self.cluster.servers[0].start()
        with self.act("a server is reloaded"):
            self._reload(self.cluster.servers[-1])
        with self.act("the servers are replaced"):
            for server in self.cluster.servers:
                assert server.stop() == 0
                server.start()
                self._until_used(server.port)
        with self.act("a background worker is killed"):
            self.cluster.helpers[0].kill()
            self.cluster.helpers[0].wait()
            self.cluster.helpers[0] = self.cluster.helper()
        with self.act("the limit holds"):
            self._spend()
        with self.act("Valkey is killed"):
            self.valkey.kill()
            self.go_on()
            self.valkey.start()

    def _reload(self, server: Server) -> None:
        starts = server.log.read_text().count("  listening ")
        os.kill(server.pid, signal.SIGHUP)
        while server.log.read_text().count("  listening ") == starts:
            time.sleep(0.05)
        self._until_used(server.port)

    def _until_used(self, port: int) -> None:
        """The others must not go before the balancer has found this one."""
        before, until = self.balancer.answered[port], time.monotonic() + PATIENCE_SECONDS
        while self.balancer.answered[port] < before + 5:
            assert time.monotonic() < until
            time.sleep(0.02)

    def _spend(self) -> None:
        """One key asks all servers at once: together they admit what one alone would."""
        with Client(self.balancer.url, self.cluster.servers[0].key) as owner:
            made = owner.ask("POST", "/v1/api-keys", {"name": "limited", "rate_limit": LIMIT})
            secret = json.loads(made[2])["secret"]

        def ask(_: int) -> int:
            with Client(self.balancer.url, secret) as client:
                return client.ask("GET", "/v1/projects")[0]

        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as askers:
            answers = Counter(askers.map(ask, range(3 * LIMIT)))
        more = (time.monotonic() - began) * LIMIT / 60
        self.say(f"{'':<32} of {3 * LIMIT} requests at {LIMIT}/minute {answers[200]} were admitted")
        if not LIMIT <= answers[200] <= LIMIT + more + 1 or set(answers) != {200, 429}:
            self.ledger.faults.append(f"a limit of {LIMIT} admitted {answers} in {more:.1f} beyond it")


def perform(
    folder: Path, postgres: PostgreSQL, valkey: Valkey, rounds: int = 1, say: Callable[[str], None] = print
) -> Ledger:
    """Play so many rounds; AssertionError unless all that was promised was kept."""
    ledger, over = Ledger(), threading.Event()
    url = postgres.create_database()
    with clusters.running(folder, url, valkey.patient_url) as (cluster, balancer):
        key = cluster.servers[0].key
        clients = [Worker(ledger, balancer.url, key, over) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        play = Play(cluster, balancer, postgres, valkey, ledger, say)
        try:
            for _ in range(rounds):
                play.round()
        finally:
            over.set()
            for client in clients:
                client.join(PATIENCE_SECONDS + 60)
        ended = cluster.stop()
    assert ledger.faults == []
    assert set(ended) == {0}, ended
    assert "Traceback" not in cluster.said()
    _verify(ledger, url)
    say(f"{len(ledger.tasks)} tasks as acknowledged, none lost, none twice; the log and the tables agree")
    return ledger


def _verify(ledger: Ledger, url: str) -> None:
    with connect(url, patient=True) as db:
        stored = db.read_sync(lambda tx: [json.loads(doc) for (doc,) in tx.all("SELECT doc FROM tasks")])
        assert {task["id"]: task for task in stored} == ledger.tasks
        assert db.read_sync(check.replay, snapshot=True) == []


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often everything happens.")
def main(rounds: int) -> None:
    """A cluster under load while PostgreSQL restarts, servers are killed and replaced, and Valkey goes away."""
    folder = make_run_folder()
    postgres = PostgreSQL.of_its_own(folder)
    valkey = Valkey(folder).start()
    try:
        perform(folder, postgres, valkey, rounds, click.echo)
    finally:
        valkey.kill()
        postgres.stop()
        remove(folder)


if __name__ == "__main__":
    main()
