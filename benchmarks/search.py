"""The cost of full-text search by script: the size of its index, and the processor time to write a task.

Beside today's rules stand those of before, which took for a word whatever stands between spaces. Both are written into
an index like the server's own, in memory and in one process, so that nothing but the rules differs. What a whole
creation costs is then asked of a server.
"""

import random
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median

import apsw
from taskade_server.kit import text

from benchmarks import machine, report
from benchmarks.client import Client
from benchmarks.compare import say
from benchmarks.peers import Taskade
from benchmarks.report import Report

TASKS, ROUNDS, QUICK_TASKS = 5_000, 5, 500
WORDS = 3_000
LENGTH = 400
BULK = 250
"""Tasks of one request: a thousand of long Chinese texts are more work than one may cause."""
SEED = 20_261_201
INDEX = "CREATE VIRTUAL TABLE found USING fts5(words, content='', contentless_delete=1, tokenize='ascii')"
LATIN = "eeeeetttaaaooinshrdlucmwfgypbvk"
SCRIPTS: dict[str, tuple[str, bool]] = {
    "English": (LATIN, True),
    "Polish": (LATIN + "łłąęóżźćńś", True),
    "Vietnamese": (LATIN + "ăâđêôơưạảấầẩẫậắằặẹẻẽếềểễệ", True),
    "Russian": ("оооееааинтсрвлкмдпуяыьгзбчйхжшюцщэф", True),
    "Arabic": ("االلينمهورتبكعفدقسحج", True),
    "Hindi": ("कखगघचछजटडतथदनपबमयरलवसहािीुेो", True),
    "Korean": ("".join(map(chr, range(0xAC00, 0xD7A4, 11))), True),
    "Chinese": ("".join(map(chr, range(0x4E00, 0x5400))), False),
    "Japanese": ("のにをはがでとたしるいかな" * 20 + "".join(map(chr, range(0x4E00, 0x5200))), False),
    "Thai": ("กขคงจชซญดตถทนบปผพมยรลวสหอะาิีึุูเแโไ่้", False),
}
"""The letters that texts are made of, the more frequent ones several times, and whether words stand between spaces."""


@dataclass(frozen=True)
class Cost:
    """Of one script: bytes of the index and microseconds of a processor a task, before and now; of a server, now."""

    script: str
    before_bytes: float
    now_bytes: float
    before_us: float
    now_us: float
    server_us: float


def texts(script: str, count: int) -> list[tuple[str, str]]:
    """Names and descriptions of made-up words, of which few are frequent and most are rare, as in any language."""
    letters, spaced = SCRIPTS[script]
    chance = random.Random(f"{SEED} {script}")
    lengths = range(2, 9) if spaced and script != "Korean" else range(1, 4)
    words = ["".join(chance.choices(letters, k=chance.choice(lengths))) for _ in range(WORDS)]
    weights = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))  # Zipf's law

    def some(length: int) -> str:
        joint = " " if spaced else ""
        return joint.join(chance.choices(words, cum_weights=weights, k=length // 3))[:length].strip()

    return [(f"{some(40)} {number}", some(LENGTH)) for number in range(count)]


def words_between_spaces(*found: str) -> list[str]:
    """The rules of before: words as they stand between spaces, in lower case and without accents."""
    plain = unicodedata.normalize("NFKD", " ".join(found).casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return list(dict.fromkeys(word[:64] for word in re.findall(r"\w+", plain)))[:2_000]


def indexed(rules: Callable[..., list[str]], tasks: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Bytes of the index, and microseconds to find the words and write them, both a task."""
    connection = apsw.Connection(":memory:")
    connection.execute(INDEX)
    began = time.process_time()
    with connection:
        rows = [(number, " ".join(rules(*task))) for number, task in enumerate(tasks)]
        connection.executemany("INSERT INTO found (rowid, words) VALUES (?, ?)", rows)
    spent = time.process_time() - began
    connection.execute("INSERT INTO found (found) VALUES ('optimize')")
    size = connection.execute("SELECT sum(length(block)) FROM found_data").get
    return size / len(tasks), 1e6 * spent / len(tasks)


def run(folder: Path, *, quick: bool = False) -> Report:
    """Measure each script: the two rules in turns, then a server that is sent the same tasks in bulk."""
    count = QUICK_TASKS if quick else TASKS
    server = Taskade(folder)
    server.start()
    try:
        client = Client(server.port, server.headers)
        project = client.call("POST", "/v1/projects", {"name": "Search"})["id"]
        costs = [_cost(server, client, project, script, count) for script in SCRIPTS]
        settings = {"tasks_of_each_script": count, "rounds": ROUNDS, "characters_of_a_description": LENGTH}
        return report.search(machine.facts(folder), {"taskade": server.version()}, settings, costs)
    finally:
        server.stop()


def _cost(server: Taskade, client: Client, project: str, script: str, count: int) -> Cost:
    tasks = texts(script, count)
    before, now = [], []
    for _ in range(ROUNDS):
        before.append(indexed(words_between_spaces, tasks))
        now.append(indexed(text.tokens, tasks))
    began = machine.cpu_seconds(server.pid)
    for start in range(0, count, BULK):
        some = [{"name": name, "description": description} for name, description in tasks[start : start + BULK]]
        client.call("POST", "/v1/tasks/bulk", {"project_id": project, "tasks": some})
    spent = machine.cpu_seconds(server.pid) - began
    cost = Cost(
        script,
        before_bytes=before[0][0],
        now_bytes=now[0][0],
        before_us=median(us for _, us in before),
        now_us=median(us for _, us in now),
        server_us=1e6 * spent / count,
    )
    say(f"{script}: {cost}")
    return cost
