"""Part `points`: a server that dies at a named place, each of which has been the grave of somebody's data.

Why places and not only moments: the window between a commit and its answer is open for microseconds, so that random
kills hit it by chance only.
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Final

from taskade_server.selftest.checker import Checker
from taskade_server.selftest.host import FILE
from taskade_server.selftest.installation import prepare
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server, ServerFailed
from taskade_server.selftest.writing_clients import WritingClients
from taskade_server.store.schema import migrate, shipped
from taskade_server.store.sqlite.database import SqliteDatabase

SECONDS: Final = 120.0
# A place is: a statement, or an operation on the database's file or its log. The number is the most that is skipped.
POINTS: Final[Mapping[str, tuple[str, int]]] = {
    "behind the commit, before the answer": ("after commit", 40),
    "behind the sync of the log": ("after sync wal", 40),
    "between the effect and its idempotency key": ("before insert replies", 60),
    "behind a row, before its event": ("before insert events", 8),
    "in a checkpoint, amid a page": ("amid write database", 60),
    "before the log is synced": ("before sync wal", 40),
    "before the log begins anew": ("before begin wal", 2),
    "amid a write to the log": ("amid write wal", 600),
    "before the commit": ("before commit", 40),
    "in a checkpoint, behind its sync": ("after sync database", 3),
    "in a checkpoint, before its sync": ("before sync database", 3),
    "in a checkpoint, before the first page": ("before write database", 60),
    "before the group of units": ("before begin immediate", 40),
    "before a row": ("before insert tasks", 60),
    "behind the event": ("after insert events", 12),
    "behind the idempotency key": ("after insert replies", 60),
    "before the events get their numbers": ("before update log_heads", 60),
    "behind the numbers, before the events": ("after update log_heads", 60),
    "amid the rows of the full-text index": ("after insert tasks_fts", 60),
}
FIRST_PLACES: Final[Mapping[str, tuple[str, int]]] = {
    "in the first start, behind its key": ("after insert api_keys", 1),
    "amid the tables of a migration": ("before create table", 20),
    "amid the indexes of a migration": ("after create index", 30),
    "before a migration is noted": ("before insert schema_migrations", 1),
    "behind the note of a migration": ("after insert schema_migrations", 2),
    "before the commit of a migration": ("before commit", 2),
    "amid the log of a migration": ("amid write wal", 200),
    "behind the commit of a migration": ("after commit", 2),
    "in the first start, before its key": ("before insert api_keys", 1),
}
UPGRADE_PLACES: Final = ("before create table", "before insert schema_migrations", "amid write wal", "before commit")


def run(options: Options) -> Report:
    """Kill at each place, in the order above for a start."""
    report = Report("points")
    random = options.random("points")
    rounds = options.count(6, 6 * len(POINTS))
    first = options.count(1, 3 * len(FIRST_PLACES))
    with folder("points") as directory:
        clients = _while_working(directory, options, rounds, random)
        report.faults += clients.close()
    with folder("starts") as directory:
        starts, faults = _while_starting(directory, options, first, random)
        report.faults += faults
    report.figures = {
        "kills while working": rounds,
        "places": min(rounds, len(POINTS)),
        "kills in a first start or an upgrade": starts,
        "writes acknowledged": clients.acknowledged,
        "acknowledged writes lost": clients.lost,
        "bulks and batches torn": clients.torn,
        "left open by a kill": clients.tally.counts["found there"] + clients.tally.counts["found absent"],
        "of them stored": clients.tally.counts["found there"],
    }
    return report


def _in_turn(points: Mapping[str, tuple[str, int]], random: Random) -> Iterator[tuple[str, dict[str, object]]]:
    """All points, over and over, each time with another number of visits to let pass."""
    titles = [*points]
    while True:
        for title in titles:
            at, most = points[title]
            yield title, {"at": at, "nth": random.randint(1, most)}
        random.shuffle(titles)


def _while_working(directory: Path, options: Options, rounds: int, random: Random) -> WritingClients:
    key = prepare(directory, say=options.say)
    server = Server(directory, key, with_faults=True)
    checker = Checker(server.data / FILE)
    checker.begin()
    clients = WritingClients(server, checker, options.seed)
    try:
        server.start()
        for number, (title, trap) in enumerate(itertools.islice(_in_turn(POINTS, random), rounds), start=1):
            server.trap(trap)
            clients.start()
            code = server.wait_for_end(SECONDS)
            clients.stop()
            if code is None:
                clients.faults.append(f"the place was never reached: {title}")
            server.kill()
            server.start()
            clients.reckon(whole=number % 10 == 0)
            options.say(f"{number} of {rounds} places: {title}")
        server.stop()
    finally:
        server.kill()
    return clients


def _while_starting(directory: Path, options: Options, rounds: int, random: Random) -> tuple[int, list[str]]:
    """Kill it in its first start, and (if there is an older schema) in an upgrade."""
    plan: list[tuple[str, dict[str, object], int]] = [
        (title, trap, 0) for title, trap in itertools.islice(_in_turn(FIRST_PLACES, random), rounds)
    ]
    for version in range(1, len(shipped())):
        at = random.sample(UPGRADE_PLACES, len(UPGRADE_PLACES) if options.long else 1)
        plan += [(f"in the upgrade from {version}: {name}", {"at": name}, version) for name in at]
    faults: list[str] = []
    for number, (title, trap, version) in enumerate(plan):
        options.say(f"{number + 1} of {len(plan)} starts: {title}")
        faults += [f"{title}: {fault}" for fault in _killed_start(directory / str(number), trap, version)]
    return len(plan), faults


def _killed_start(directory: Path, trap: Mapping[str, object], version: int) -> list[str]:
    data = directory / "data"
    data.mkdir(parents=True)
    if version:
        with SqliteDatabase(data / FILE) as db:
            migrate(db, shipped()[:version])
    server = Server(directory, "", with_faults=True)
    try:
        server.launch(trap)
        if server.wait_for_end(SECONDS) is None:
            return ["the place was never reached"]
        server.kill()
        server.launch()
        server.answers_at = "/health"
        server.wait_for_answer()
        # The first key may have been made but never shown; so an operator makes another.
        server.key = _new_key(data)
        server.answers_at = "/v1/projects"
        server.wait_for_answer()
        faults = Checker(data / FILE).look(whole=True)
        server.stop()
    except (ServerFailed, subprocess.CalledProcessError) as error:
        return [f"it does not start again: {error}"]
    finally:
        server.kill()
    return faults


def _new_key(data: Path) -> str:
    command = [sys.executable, "-m", "taskade_server", "keys", "create", "--name", "selftest", "--data", str(data)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
