"""The comparison: the same requests to our server, to PocketBase and to a bare Granian, turn by turn.

Peers take turns run by run, so that a machine that slows down slows all of them; each figure is the median of its runs.
A run in which other programs took part of the server's core is repeated, as far as that helps, and the calmest count.
Reads come first, while every store holds what it was filled with; then creates; then bulk, which grows the most.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import data, load, machine, report, siege
from benchmarks.load import Sample, Work
from benchmarks.peers import BATCH, BULK, PAGE, Ceiling, Peer, PocketBase, Store, Taskade
from benchmarks.report import Measurement, Verdict

CONNECTIONS = 32
BULK_CONNECTIONS = 2
NAMES = {
    "read": "Read one task",
    "list": f"Filtered list of {PAGE}",
    "vary": f"Filtered list of {PAGE}, each different",
    "create": "Create a task",
    "create-normal": "Create a task, both synchronous NORMAL",
    "batch": f"A batch of {BATCH}: creations and changes",
    "bulk": "Create tasks in bulk",
}
MEMORY_LIMIT_MB = 200
SLOW_CLIENTS = 500
SIEGE_LIMIT_MS = 250
CONDITIONS = """
Every store holds the same tasks and answers the same requests, each on the same single core, with its rate limit off.
PocketBase runs as it ships (WAL, synchronous NORMAL, request log on), with a signed-in ordinary user, rules that
check it, an index on a task's project and one on its due date, and lists without a total. Ours runs as it ships:
synchronous FULL, so that what it has acknowledged survives a power cut; where a line says NORMAL, both may lose the
last moments then. More cores would help PocketBase's one process more than ours, which would want several of them.
Bare Granian answers with fixed bytes: as many as our answers have, and as many different answers. The lists are asked
for again and again, so that ours come from the cache; "each different" does not. Slow clients are connections that send
a request a byte at a time.
""".strip()


@dataclass(frozen=True)
class Plan:
    """How much of everything. Projects are of 500 tasks in both, so that a list costs the same."""

    tasks: int
    runs: int  # many short ones: a machine's speed wanders, and turns even that out
    seconds: float
    warmup: float
    bulk_runs: int
    bulk_seconds: float

    @property
    def shape(self) -> data.Shape:
        return data.Shape(tasks=self.tasks, projects=max(1, self.tasks // 500))


FULL = Plan(tasks=100_000, runs=9, seconds=1.2, warmup=0.3, bulk_runs=5, bulk_seconds=4)
QUICK = Plan(tasks=20_000, runs=5, seconds=0.6, warmup=0.2, bulk_runs=3, bulk_seconds=2)
PEERS = ("taskade", "pocketbase", "ceiling")


class Comparison:
    """One run of the scenario: the started peers, and what was measured so far."""

    def __init__(self, plan: Plan, names: Sequence[str], folder: Path) -> None:
        self.plan = plan
        self.names = names
        self.folder = folder
        self.stores: list[Store] = []
        self.measured: list[Measurement] = []
        self.memory: dict[str, int] = {}
        self.versions: dict[str, str] = {}
        self.besieged: float | None = None

    def run(self) -> None:
        kinds: dict[str, type[Store]] = {"taskade": Taskade, "pocketbase": PocketBase}
        self.stores = [kinds[name](self.folder) for name in self.names if name in kinds]
        started: list[Peer] = [*self.stores]
        try:
            for store in self.stores:
                self._begin(store)
            self._reads(started)
            self._writes()
        finally:
            for peer in started:
                peer.stop()

    def _begin(self, store: Store) -> None:
        say(f"{store.label}: starting, and creating {self.plan.tasks:,} tasks")
        store.start()
        store.fill(self.plan.shape)
        self.versions[store.label] = store.version()
        works = store.works()
        for key, expected in (("read", 1), ("list", PAGE), ("vary", PAGE)):
            store.check(works[key], expected)

    def _reads(self, started: list[Peer]) -> None:
        works = {store.key: store.works() for store in self.stores}
        ceiling = Ceiling(self.folder) if "ceiling" in self.names else None
        if ceiling is not None:
            started.append(ceiling)
            ceiling.start()
        for key in ("read", "list", "vary"):
            turns: list[tuple[Peer, Work]] = [(store, works[store.key][key]) for store in self.stores]
            if ceiling is not None and key != "vary":
                turns.append((ceiling, self._ceiling_of(key)))
            self._measure(key, turns)
        for store in self.stores:
            if (used := store.memory()) is not None:
                self.memory[store.key] = used
            if isinstance(store, Taskade):
                self.besieged = self._besiege(store, works[store.key]["read"])

    def _besiege(self, store: Store, work: Work) -> float:
        """The slowest hundredth of a healthy client's requests, in milliseconds, while others drip."""
        say(f"Measuring: {NAMES['read']} beside {SLOW_CLIENTS} slow clients")
        with siege.slow_clients(store.port, SLOW_CLIENTS):
            return load.run(work, store.port, store.pid, connections=1, seconds=5, warmup=1).result.p99_ms

    def _ceiling_of(self, key: str) -> Work:
        """What the ceiling moves: the mean size of our own answers, and as many of them."""
        for store in self.stores:
            work = store.works()[key]
            size = load.run(work, store.port, store.pid, connections=1, seconds=10, requests=200).result.bytes
            return Ceiling.work(size, len(work.paths))
        return Ceiling.work(600, 1)

    def _writes(self) -> None:
        self._measure("create", [(store, store.works()["create"]) for store in self.stores])
        for store in self.stores:
            if isinstance(store, Taskade):
                restart(store, synchronous="normal")
        self._measure("create-normal", [(store, store.works()["create"]) for store in self.stores])
        for store in self.stores:
            if isinstance(store, Taskade):
                restart(store, synchronous="full")
            store.check(store.works()["batch"], BATCH)
            store.check(store.works()["bulk"], BULK)
        self._measure("batch", [(store, store.works()["batch"]) for store in self.stores])
        self._measure("bulk", [(store, store.works()["bulk"]) for store in self.stores])

    def _measure(self, key: str, turns: list[tuple[Peer, Work]]) -> None:
        bulk = key in ("bulk", "batch")
        runs = self.plan.bulk_runs if bulk else self.plan.runs
        samples: dict[str, list[Sample]] = {peer.key: [] for peer, _ in turns}
        say(f"Measuring: {NAMES[key]}")
        for number in range(2 * runs):
            for peer, work in turns:
                calm = sum(not sample.disturbed for sample in samples[peer.key])
                if number >= runs and calm >= runs:
                    continue
                sample = load.run(
                    work,
                    peer.port,
                    peer.pid,
                    connections=BULK_CONNECTIONS if bulk else CONNECTIONS,
                    seconds=self.plan.bulk_seconds if bulk else self.plan.seconds,
                    warmup=self.plan.warmup,
                )
                samples[peer.key].append(sample)
        for peer, _ in turns:
            calmest = sorted(samples[peer.key], key=lambda sample: (sample.disturbed, sample.others_busy))
            self.measured.append(summary(key, peer, calmest[:runs]))

    def verdicts(self) -> list[Verdict]:
        """What the figures come to."""
        found = {(m.key, m.peer): m for m in self.measured}

        def ratio(name: str, key: str, peer: str, target: float | None) -> Verdict:
            unit = "tasks/s" if key in ("batch", "bulk", "create", "create-normal") else "requests/s"
            return Verdict.ratio(name, found.get((key, "taskade")), found.get((key, peer)), target, unit)

        out = [
            ratio(f"{NAMES['read']}, against PocketBase", "read", "pocketbase", 3),
            ratio(f"{NAMES['read']}, against bare Granian", "read", "ceiling", 0.5),
            ratio(f"{NAMES['list']}, against PocketBase", "list", "pocketbase", 25),
            ratio(f"{NAMES['list']}, against bare Granian", "list", "ceiling", 0.6),
            ratio(f"{NAMES['vary']}, against PocketBase", "vary", "pocketbase", None),
            ratio("Create, ours FULL, PocketBase NORMAL", "create", "pocketbase", 1.2),
            ratio("Create, both NORMAL", "create-normal", "pocketbase", 2),
            ratio(f"A batch of {BATCH}, ours FULL", "batch", "pocketbase", None),
            ratio(f"Create {BULK:,} in one request, ours FULL", "bulk", "pocketbase", 5),
        ]
        if self.besieged is not None:
            name = f"p99 of reading one task beside {SLOW_CLIENTS} slow clients"
            out.append(Verdict.limit(name, self.besieged, None, SIEGE_LIMIT_MS, "ms"))
        ours, theirs = (self._megabytes(key) for key in ("taskade", "pocketbase"))
        name = f"Resident memory at {self.plan.tasks:,} tasks"
        return [*out, Verdict.limit(name, ours, theirs, MEMORY_LIMIT_MB, "MB")]

    def _megabytes(self, key: str) -> float | None:
        return self.memory[key] / 1e6 if key in self.memory else None


def restart(store: Taskade, synchronous: str) -> None:
    store.stop()
    store.synchronous = synchronous
    store.start()


def summary(key: str, peer: Peer, samples: list[Sample]) -> Measurement:
    """The median run, figure by figure."""
    return Measurement(
        key=key,
        name=NAMES[key],
        peer=peer.key,
        label=peer.label,
        per_second=median(s.items_per_second for s in samples),
        p50_ms=median(s.result.p50_ms for s in samples),
        p99_ms=median(s.result.p99_ms for s in samples),
        bytes=int(median(s.result.bytes for s in samples)),
        failed=sum(s.result.failed for s in samples),
        first_failure=next((s.result.first_failure for s in samples if s.result.failed), ""),
        server_busy=median(s.server_busy for s in samples),
        client_busy=median(s.client_busy for s in samples),
        others_busy=median(s.others_busy for s in samples),
        runs=[round(s.items_per_second, 1) for s in samples],
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(plan: Plan, names: Sequence[str], folder: Path) -> report.Report:
    comparison = Comparison(plan, names, folder)
    facts = machine.facts(folder)
    comparison.run()
    return report.comparison(
        facts,
        comparison.versions,
        CONDITIONS,
        {"tasks": plan.tasks, "projects": plan.shape.projects, "connections": CONNECTIONS, "runs": plan.runs},
        comparison.verdicts(),
        comparison.measured,
    )
