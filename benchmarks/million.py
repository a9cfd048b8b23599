"""One million tasks: how long the slowest of a hundred requests takes, for each kind of question people ask.

Every request is a new one (other projects, people, days, words), on one connection, so a cache of answers cannot help
and nothing waits in a queue. A filter that is quick on ten thousand tasks and slow on a million is found here.
"""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from benchmarks import data, load, machine, report
from benchmarks.client import Client, Failed
from benchmarks.load import Work
from benchmarks.peers import Taskade
from benchmarks.report import Latency

REQUESTS = 400  # per question
PATIENCE = 60.0  # seconds for all of them: a question that needs more has failed its target long before
PROBES = 12  # more of them, to see how much the answers hold
LIMIT_MS = 25.0
USERS, PROJECTS, CUSTOMERS = 50, 200, 20_000
Parameters = list[tuple[str, str]]
Question = Callable[[random.Random], Parameters]


class Loaded(msgspec.Struct):
    """What is kept beside a filled data folder, so that it can be used again."""

    shape: dict[str, int | bool]
    projects: list[str]
    users: list[str]
    first: datetime  # when the first and the last task were made
    last: datetime
    seconds: float


class Questions:
    """The kinds of question, each with parameters drawn anew."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    def all(self) -> dict[str, Question]:
        return {
            "by project": self._by_project,
            "project, status, by -due_date": self._board,
            "assignee, open status": self._assigned,
            "due in a range, by due_date": self._due,
            "labels $in, by -due_date": self._labels,
            "custom field equals a text": self._customer,
            "custom field in a range, by due_date": self._points,
            "priority, due_before, labels": self._late,
            "$or of assignee and label": self._either,
            "full text, with a status": self._search,
            "completed since, with include": self._completed,
        }

    def paths(self, question: Question, name: str) -> Iterator[str]:
        rng = random.Random(name)
        seen = set()
        while True:
            path = "/v1/tasks?" + urlencode([*question(rng), ("limit", str(rng.randrange(50, 101)))])
            if path not in seen:
                seen.add(path)
                yield path

    def _by_project(self, rng: random.Random) -> Parameters:
        return [("project_id", rng.choice(self.loaded.projects))]

    def _assigned(self, rng: random.Random) -> Parameters:
        return [("assignee", rng.choice(self.loaded.users)), ("status", "pending"), ("status", "in_progress")]

    @staticmethod
    def _customer(rng: random.Random) -> Parameters:
        return [("custom_fields.customer", f"customer-{rng.randrange(CUSTOMERS)}")]

    @staticmethod
    def _due(rng: random.Random) -> Parameters:
        start = data.day(rng)
        end = start + timedelta(days=rng.randrange(1, 60))
        return [("due_date[$gte]", start.isoformat()), ("due_date[$lte]", end.isoformat()), ("sort", "due_date")]

    def _board(self, rng: random.Random) -> Parameters:
        return [*self._by_project(rng), ("status", rng.choice(data.STATUSES)), ("sort", "-due_date")]

    @staticmethod
    def _labels(rng: random.Random) -> Parameters:
        return [*(("labels[$in]", label) for label in rng.sample(data.LABELS, 2)), ("sort", "-due_date")]

    @staticmethod
    def _points(rng: random.Random) -> Parameters:
        low = rng.randrange(1, 950)
        bounds = (("$gte", low), ("$lte", low + rng.randrange(50)))
        return [*((f"custom_fields.points[{op}]", str(value)) for op, value in bounds), ("sort", "due_date")]

    @staticmethod
    def _late(rng: random.Random) -> Parameters:
        labels = [("labels", label) for label in rng.sample(data.LABELS, 2)]
        return [("priority", "high"), ("due_before", data.day(rng).isoformat()), *labels]

    def _either(self, rng: random.Random) -> Parameters:
        return [("$or[0][assignee]", rng.choice(self.loaded.users)), ("$or[1][labels]", rng.choice(data.LABELS))]

    @staticmethod
    def _search(rng: random.Random) -> Parameters:
        verb, thing, rare, _ = data.words(rng)
        text = rng.choice((rare, thing, f"{verb} {thing}", f"{thing} {rare}"))
        return [("q", text), ("status", rng.choice(data.STATUSES))]

    def _completed(self, rng: random.Random) -> Parameters:
        moment = self.loaded.first + rng.random() * (self.loaded.last - self.loaded.first)
        text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return [("completed_at[$gte]", text), ("include", "assignee,project")]


def fill(server: Taskade, shape: data.Shape, marker: Path) -> Loaded:
    """Load the tasks, or learn what was loaded before."""
    if marker.exists():
        return msgspec.json.decode(marker.read_bytes(), type=Loaded)
    first = datetime.now(UTC)
    server.fill(shape, lambda done, rate: say(f"  {done:,} tasks, {rate:,.0f} per second"))
    loaded = Loaded(asdict(shape), server.projects, server.users, first, datetime.now(UTC), server.filling)
    marker.write_bytes(msgspec.json.encode(loaded))
    return loaded


def ask(server: Taskade, name: str, paths: Iterator[str]) -> Latency:
    """Probe a few requests for what they return, then measure others. A refused question does not end the rest."""
    client = Client(server.port, server.headers)
    rows = [0]
    with suppress(Failed):
        rows = [server.rows(client.raw("GET", next(paths))) for _ in range(PROBES)]
    work = Work("GET", [next(paths) for _ in range(REQUESTS)], server.headers)
    sample = load.run(work, server.port, server.pid, connections=1, seconds=PATIENCE, requests=REQUESTS)
    result = sample.result
    return Latency(
        name=name,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        max_ms=result.max_ms,
        limit_ms=LIMIT_MS,
        rows=sum(rows) / len(rows),
        bytes=result.bytes,
        requests=result.requests,
        failed=result.failed,
        first_failure=result.first_failure,
        others_busy=sample.others_busy,
    )


def size(folder: Path) -> float:
    """Megabytes on disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(tasks: int, folder: Path, keep: bool) -> report.Report:
    shape = data.Shape(tasks=tasks, projects=PROJECTS, users=USERS, customers=CUSTOMERS, even=False)
    marker = folder / "loaded.json"
    server = Taskade(folder)
    facts = machine.facts(folder)
    if not marker.exists():
        shutil.rmtree(server.folder)
        server.folder.mkdir()
        say(f"Loading {tasks:,} tasks")
    server.start()
    try:
        loaded = fill(server, shape, marker)
        if loaded.shape != asdict(shape):
            raise SystemExit("The kept folder was filled with another number of tasks: choose another, or delete it.")
        after_load = server.memory()
        questions = Questions(loaded)
        latencies = []
        for name, question in questions.all().items():
            say(f"Asking: {name}")
            latencies.append(ask(server, name, questions.paths(question, name)))
        settings = {
            "tasks": tasks,
            "projects": PROJECTS,
            "users": USERS,
            "loaded per second": round(tasks / loaded.seconds),
            "data folder in MB": round(size(server.folder)),
            "memory in MB before the requests": round((after_load or 0) / 1e6),
            "memory in MB after them": round((server.memory() or 0) / 1e6),
        }
        return report.million(facts, {server.label: server.version()}, settings, latencies)
    finally:
        server.stop()
        if not keep:
            shutil.rmtree(server.folder, ignore_errors=True)
