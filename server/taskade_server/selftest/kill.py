"""Part `kill`: a server killed at random moments under load and started again, over and over.

Why also while it starts: a crash loop is the worst time for recovery to be interrupted.
"""

import time
from typing import Any, Final

from taskade_server.selftest.checker import Checker
from taskade_server.selftest.installation import prepare, schema
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server
from taskade_server.selftest.writing_clients import WritingClients

TASKS: Final = 100_000
LIMIT_SECONDS: Final = 2.0
# Looking at every row takes seconds with many of them; what is new is looked at each time.
WHOLE_EVERY: Final = 40


def _figures(clients: WritingClients, starts: list[float]) -> dict[str, Any]:
    """What became of the writes, and how long the starts took."""
    counts = clients.tally.counts
    return {
        "writes acknowledged": clients.acknowledged,
        "of them in bulk or batch": counts["in bulk or batch"],
        "acknowledged writes lost": clients.lost,
        "bulks and batches torn": clients.torn,
        "left open by a kill": counts["found there"] + counts["found absent"],
        "of them stored": counts["found there"],
        "start to first answer, median (s)": round(sorted(starts)[len(starts) // 2], 2),
        "start to first answer, longest (s)": round(max(starts), 2),
    }


def run(options: Options) -> Report:
    """Kill -9 with a ledger of what was acknowledged."""
    report = Report("kill")
    random = options.random("kill")
    rounds, longest = options.count(6, 200), 1.5 if options.long else 0.6
    tasks = (TASKS if options.long else 0) if options.tasks is None else options.tasks
    starts: list[float] = []
    killed_starting = 0
    with folder("kill") as directory, schema(options.database_url) as url:
        key = prepare(directory, url, tasks, options.say)
        server = Server(directory, key, database_url=url)
        checker = Checker(url or server.data / "taskade.db")
        checker.begin()
        clients = WritingClients(server, checker, options.seed)
        try:
            server.start()
            for number in range(1, rounds + 1):
                clients.start()
                clients.wait(random.uniform(0.02, longest))
                server.kill()
                clients.stop()
                if random.random() < 0.15:
                    server.launch()
                    time.sleep(random.uniform(0.1, 1.0))
                    server.kill()
                    killed_starting += 1
                server.answers_at = clients.last_task() or server.answers_at
                starts.append(server.start())
                clients.reckon(sound=number % WHOLE_EVERY == 0 or not tasks, whole=number % WHOLE_EVERY == 0)
                options.say(
                    f"{number} of {rounds} kills, {clients.acknowledged} writes acknowledged,"
                    f" up again after {starts[-1]:.2f} s"
                )
            server.stop()
        finally:
            server.kill()
        report.faults += clients.close()
    report.figures = {
        "database": "PostgreSQL" if options.database_url else "SQLite",
        "tasks before the first kill": tasks,
        "kills": rounds + killed_starting,
        "of them while starting": killed_starting,
        **_figures(clients, starts),
    }
    if options.long and max(starts) > LIMIT_SECONDS:
        report.faults.append(f"a start took {max(starts):.2f} s, more than {LIMIT_SECONDS:.0f} s")
    return report
