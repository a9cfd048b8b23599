"""Part `kill`: a server killed at random moments under load and started again, over and over.

Why also while it starts: a crash loop is the worst time for recovery to be interrupted.
"""

import time
from typing import Final

from taskade_server.selftest.checker import Checker
from taskade_server.selftest.crew import Crew
from taskade_server.selftest.installation import prepare, schema
from taskade_server.selftest.parts import Orders, Report, folder
from taskade_server.selftest.process import Server

TASKS: Final = 100_000
LIMIT_SECONDS: Final = 2.0
# Looking at every row takes seconds with many of them; what is new is looked at each time.
WHOLE_EVERY: Final = 40


def run(orders: Orders) -> Report:
    """Kill -9 with a ledger of what was acknowledged."""
    report = Report("kill")
    random = orders.random("kill")
    rounds, longest = orders.count(6, 200), 1.5 if orders.long else 0.6
    tasks = (TASKS if orders.long else 0) if orders.tasks is None else orders.tasks
    starts: list[float] = []
    killed_starting = 0
    with folder("kill") as place, schema(orders.database_url) as url:
        key = prepare(place, url, tasks, orders.say)
        server = Server(place, key, database_url=url)
        checker = Checker(url or server.data / "taskade.db")
        checker.begin()
        crew = Crew(server, checker, orders.seed)
        try:
            server.start()
            for number in range(1, rounds + 1):
                crew.start()
                crew.wait(random.uniform(0.02, longest))
                server.kill()
                crew.stop()
                if random.random() < 0.15:
                    server.launch()
                    time.sleep(random.uniform(0.1, 1.0))
                    server.kill()
                    killed_starting += 1
                server.answers_at = crew.last_task() or server.answers_at
                starts.append(server.start())
                crew.reckon(sound=number % WHOLE_EVERY == 0 or not tasks, whole=number % WHOLE_EVERY == 0)
                orders.say(f"{number} of {rounds} kills, {crew.acknowledged} writes acknowledged,"
                           f" up again after {starts[-1]:.2f} s")  # fmt: skip
            server.stop()
        finally:
            server.kill()
        report.faults += crew.close()
    counts = crew.tally.counts
    report.figures = {
        "database": "PostgreSQL" if orders.database_url else "SQLite",
        "tasks before the first kill": tasks,
        "kills": rounds + killed_starting,
        "of them while starting": killed_starting,
        "writes acknowledged": crew.acknowledged,
        "of them in bulk or batch": counts["in bulk or batch"],
        "acknowledged writes lost": crew.lost,
        "bulks and batches torn": crew.torn,
        "left open by a kill": counts["found there"] + counts["found absent"],
        "of them stored": counts["found there"],
        "start to first answer, median (s)": round(sorted(starts)[len(starts) // 2], 2),
        "start to first answer, longest (s)": round(max(starts), 2),
    }
    if orders.long and max(starts) > LIMIT_SECONDS:
        report.faults.append(f"a start took {max(starts):.2f} s, more than {LIMIT_SECONDS:.0f} s")
    return report
