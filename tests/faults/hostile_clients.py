"""Part `hostile`: hundreds of clients that mean harm, and how long a healthy one among them has to wait.

Why a healthy client is the measure: a server can refuse every attack and still be of no use to anybody else meanwhile.
"""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Final

from taskade_server.selftest.installation import prepare
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server

from tests.faults.hostile_requests import attacks
from tests.faults.load_clients import Behaviour, LoadClients, ask, behaviours, head, measured

CLIENTS: Final = 500
GREEDY: Final = 40
WAIT_MS: Final = 250.0
# Each takes the work of a hundred ordinary requests, and there is always one of them.
REQUEST_WAIT_MS: Final = 500.0
GROWTH_MIB: Final = 100.0
TASKS: Final = 3000
LARGE: Final = "/v1/tasks?limit=1000"
SENDERS: Final = 3


class Target:
    """A server under attack and its healthy client; `calm` is the wait (ms, p99) of that client without an attack.

    `patience` is for machines that have much else to do: so many times as long it may wait.
    """

    def __init__(self, port: int, pid: int, key: str, seconds: float, patience: float = 1.0) -> None:
        self.patience = patience
        self.port = port
        self.pid = pid
        self.key = key
        self.seconds = seconds
        task = b'{"name":"healthy"}'
        post = head("POST", "/v1/tasks", key, "Content-Type: application/json", f"Content-Length: {len(task)}")
        self.requests = [head("GET", "/v1/users/me", key), head("GET", "/v1/tasks?limit=10", key), post + task]
        measured(port, self.requests, 0.5)
        self.calm = measured(port, self.requests, seconds / 2).at(0.99)
        self.memory = resident_mib(pid)

    def measure(self, title: str, report: Report, wait: float = WAIT_MS) -> None:
        """Measure while an attack goes on; a bad figure is measured again, since others may use the machine."""
        limit = self.patience * max(wait, 5 * self.calm)
        for _ in range(6):
            found = measured(self.port, self.requests, self.seconds)
            if found.at(0.99) <= limit:
                break
        growth = resident_mib(self.pid) - self.memory
        report.figures |= {
            f"{title}: healthy p99 (ms)": round(found.at(0.99), 1),
            f"{title}: memory (MiB)": f"{growth:+.0f}",
        }
        if found.at(0.99) > limit:
            report.faults.append(f"{title}: a healthy client waits {found.at(0.99):.0f} ms, more than {limit:.0f}")
        if growth > GROWTH_MIB:
            report.faults.append(f"{title}: the server grew by {growth:.0f} MiB")
        wrong = {status: count for status, count in found.statuses.items() if status not in (200, 201, 503)}
        if wrong or found.unexcused:
            report.faults.append(f"{title}: a healthy client was answered {dict(found.statuses)}")

    def recover(self, title: str, report: Report) -> None:
        """Check that after the attack a healthy client is served as before it."""
        for _ in range(60):  # a busy machine needs a while to end what was under way
            found = measured(self.port, self.requests, 0.3, least=10)
            if not set(found.statuses) - {200, 201}:
                return
        if set(found.statuses) - {200, 201}:
            report.faults.append(f"{title}: afterwards a healthy client is answered {dict(found.statuses)}")


def resident_mib(pid: int) -> float:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS")) / 1024
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(said.stdout) / 1024


@contextmanager
def load(port: int, kinds: Sequence[Behaviour], clients: int) -> Iterator[list[LoadClients]]:
    """Clients of all these kinds at once, in equal parts."""
    with ExitStack() as stack:
        yield [stack.enter_context(LoadClients(port, kind, max(1, clients // len(kinds)))) for kind in kinds]


def attack_with_clients(target: Target, title: str, kinds: Sequence[Behaviour], clients: int, report: Report) -> None:
    """Load of these kinds, and whether the healthy client is served meanwhile and afterwards."""
    with load(target.port, kinds, clients) as there:
        target.measure(f"{title} ({clients})", report)
    wrong = {status for group in there for status in group.statuses if status >= 500 and status != 503}
    if wrong:
        report.faults.append(f"{title}: the attackers were answered {sorted(wrong)}")
    target.recover(title, report)


def attack_with_requests(target: Target, report: Report) -> None:
    """Single hostile requests, over and over, from several threads."""
    over = threading.Event()
    sent: list[str] = []

    # Made beforehand: what this process computes meanwhile would be counted as the server's.
    prepared = [(request, request.parts()) for request in attacks(target.key)]

    def send(order: Iterator[int]) -> None:
        while not over.is_set():
            request, parts = prepared[next(order) % len(prepared)]
            status, _ = ask(target.port, *parts)
            sent.append(request.name)
            if status not in request.statuses and status not in (0, 503):
                report.faults.append(f"{request.name}: answered {status}, not one of {request.statuses}")

    threads = [
        threading.Thread(target=send, args=(cycle(range(start, 1000)),)) for start in range(0, 30, 30 // SENDERS)
    ]
    for thread in threads:
        thread.start()
    target.measure("single requests", report, REQUEST_WAIT_MS)
    over.set()
    for thread in threads:
        thread.join()
    report.figures["single requests: sent"] = len(sent)
    target.recover("single requests", report)


def run(options: Options) -> Report:
    """All of it, on a server of its own; the long form tries each kind of client alone."""
    report = Report("hostile")
    with folder("hostile") as place:
        key = prepare(place, options.database_url, tasks=TASKS, say=options.say)
        server = Server(place, key, database_url=options.database_url)
        server.start()
        try:
            target = Target(server.port, server.pid, key, 15.0 if options.long else 4.0)
            report.figures["in peace: healthy p99 (ms)"] = round(target.calm, 1)
            kinds = behaviours(key, LARGE)
            slow = [kind for kind in kinds.values() if not kind.greedy]
            greedy = [kind for kind in kinds.values() if kind.greedy]
            for kind in slow if options.long else []:
                options.say(kind.name)
                attack_with_clients(target, kind.name, [kind], CLIENTS, report)
            attack_with_clients(target, "slow clients of all kinds", slow, CLIENTS, report)
            for kind in greedy if options.long else []:
                options.say(kind.name)
                attack_with_clients(target, kind.name, [kind], GREEDY, report)
            attack_with_clients(target, "greedy clients of all kinds", greedy, GREEDY, report)
            attack_with_requests(target, report)
            server.stop()
        finally:
            server.kill()
    return report
