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

from taskade_server.selftest.crowds import Crowd, Habit, ask, habits, head, watch
from taskade_server.selftest.installation import prepare
from taskade_server.selftest.parts import Orders, Report, folder
from taskade_server.selftest.process import Server
from taskade_server.selftest.shots import shots

CLIENTS: Final = 500
GREEDY: Final = 40
WAIT_MS: Final = 250.0
# Each takes the work of a hundred ordinary requests, and there is always one of them.
SHOT_WAIT_MS: Final = 500.0
GROWTH_MIB: Final = 100.0
TASKS: Final = 3000
LARGE: Final = "/v1/tasks?limit=1000"
SHOOTERS: Final = 3


class Siege:
    """A server and its healthy client; `calm` is what that waits when nobody else is there (ms).

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
        watch(port, self.requests, 0.5)
        self.calm = watch(port, self.requests, seconds / 2).at(0.99)
        self.memory = resident_mib(pid)

    def suffer(self, title: str, report: Report, wait: float = WAIT_MS) -> None:
        """Measure while an attack is going on; what looks bad, twice, since others may use the machine."""
        limit = self.patience * max(wait, 5 * self.calm)
        found = watch(self.port, self.requests, self.seconds)
        if found.at(0.99) > limit:
            found = watch(self.port, self.requests, self.seconds)
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
        """Afterwards it is as if nothing had been."""
        found = watch(self.port, self.requests, 0.3, least=10)
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
def crowds(port: int, kinds: Sequence[Habit], clients: int) -> Iterator[list[Crowd]]:
    """Clients of all these kinds at once, in equal parts."""
    with ExitStack() as stack:
        yield [stack.enter_context(Crowd(port, kind, max(1, clients // len(kinds)))) for kind in kinds]


def besiege(siege: Siege, title: str, kinds: Sequence[Habit], clients: int, report: Report) -> None:
    """One scene with a crowd."""
    with crowds(siege.port, kinds, clients) as there:
        siege.suffer(f"{title} ({clients})", report)
    wrong = {status for crowd in there for status in crowd.statuses if status >= 500 and status != 503}
    if wrong:
        report.faults.append(f"{title}: the attackers were answered {sorted(wrong)}")
    siege.recover(title, report)


def bombard(siege: Siege, report: Report) -> None:
    """Single hostile requests, over and over, from several threads."""
    over = threading.Event()
    fired: list[str] = []

    # Made beforehand: what this process computes meanwhile would be counted as the server's.
    volley = [(shot, shot.parts()) for shot in shots(siege.key)]

    def shoot(order: Iterator[int]) -> None:
        while not over.is_set():
            shot, parts = volley[next(order) % len(volley)]
            status, _ = ask(siege.port, *parts)
            fired.append(shot.name)
            if status not in shot.statuses and status not in (0, 503):
                report.faults.append(f"{shot.name}: answered {status}, not one of {shot.statuses}")

    threads = [
        threading.Thread(target=shoot, args=(cycle(range(start, 1000)),)) for start in range(0, 30, 30 // SHOOTERS)
    ]
    for thread in threads:
        thread.start()
    siege.suffer("single requests", report, SHOT_WAIT_MS)
    over.set()
    for thread in threads:
        thread.join()
    report.figures["single requests: sent"] = len(fired)
    siege.recover("single requests", report)


def run(orders: Orders) -> Report:
    """All of it, on a server of its own; the long form tries each kind of client alone."""
    report = Report("hostile")
    with folder("hostile") as place:
        key = prepare(place, orders.database_url, tasks=TASKS, say=orders.say)
        server = Server(place, key, database_url=orders.database_url)
        server.start()
        try:
            siege = Siege(server.port, server.pid, key, 15.0 if orders.long else 4.0)
            report.figures["in peace: healthy p99 (ms)"] = round(siege.calm, 1)
            kinds = habits(key, LARGE)
            slow = [kind for kind in kinds.values() if not kind.greedy]
            greedy = [kind for kind in kinds.values() if kind.greedy]
            for kind in slow if orders.long else []:
                orders.say(kind.name)
                besiege(siege, kind.name, [kind], CLIENTS, report)
            besiege(siege, "slow clients of all kinds", slow, CLIENTS, report)
            for kind in greedy if orders.long else []:
                orders.say(kind.name)
                besiege(siege, kind.name, [kind], GREEDY, report)
            besiege(siege, "greedy clients of all kinds", greedy, GREEDY, report)
            bombard(siege, report)
            server.stop()
        finally:
            server.kill()
    return report
