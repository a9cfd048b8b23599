"""One process and two on PostgreSQL: what a second one adds on this machine.

PostgreSQL, the servers and the load generator share all cores here, so that this shows a trend and not a limit.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import data, load, machine
from benchmarks.compare import NAMES, say
from benchmarks.peers import Taskade
from benchmarks.report import Report, scaling
from tests.support.postgres import PostgreSQL

CONNECTIONS = 32
RUNS = 5
SECONDS = 2.0
TASKS = 10_000
KINDS = ("read", "vary", "create")


class Shared(Taskade):
    """Our server on PostgreSQL, with a number of processes."""

    def __init__(self, folder: Path, url: str, workers: int) -> None:
        super().__init__(folder / str(workers))
        self.url = url
        self.workers = workers

    def database(self) -> list[str]:
        return ["--database-url", self.url]

    def command(self) -> list[str]:
        return [*super().command(), "--workers", str(self.workers)]


@dataclass(frozen=True)
class Row:
    """Requests per second by number of processes."""

    name: str
    one: float
    two: float


def run(folder: Path) -> Report:
    """Measure, alternating between one process and two, each on a database of its own."""
    facts = machine.facts(folder)
    postgres = PostgreSQL(folder)
    folder.chmod(0o755)  # PostgreSQL may have to run as another user
    postgres.ensure_started()
    servers = [Shared(folder, postgres.create_database(), workers) for workers in (1, 2)]
    try:
        for server in servers:
            say(f"{server.workers} process(es): starting, and creating {TASKS:,} tasks")
            server.start()
            server.fill(data.Shape(tasks=TASKS, projects=TASKS // 500))
        rows = [Row(NAMES[kind], *_measure(kind, servers)) for kind in KINDS]
        return scaling(facts, {"Taskade server": servers[0].version()}, {"tasks": TASKS, "runs": RUNS}, rows)
    finally:
        for server in servers:
            server.stop()
        postgres.stop()


def _measure(kind: str, servers: list[Shared]) -> list[float]:
    say(f"Measuring: {NAMES[kind]}")
    found: dict[int, list[float]] = {server.workers: [] for server in servers}
    for _ in range(RUNS):
        for server in servers:
            work = server.works()[kind]
            sample = load.run(work, server.port, server.pid, connections=CONNECTIONS, seconds=SECONDS, warmup=0.5)
            found[server.workers].append(sample.items_per_second)
    return [median(figures) for figures in found.values()]
