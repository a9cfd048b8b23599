"""Part `batches`: random batches of which many fail somewhere, under the eyes of readers that look all the time.

Why readers: that nothing is left of a failed batch says little if somebody could see half of it in between. Each batch
gives all tasks of a board the same number, so that two numbers in one look are half a batch.
"""

import threading
from random import Random
from typing import Any, Final

from taskade_server.kit import ids, json
from taskade_server.selftest.client import HttpClient
from taskade_server.selftest.installation import prepare, schema
from taskade_server.selftest.ledger import Tally
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server

BOARD: Final = 12
READERS: Final = 3
LARGEST: Final = 1000
REFUSALS: Final = ("missing", "invalid", "outdated", "reference")


def run(options: Options) -> Report:
    """Batches of 1 to 1,000 operations, failing at any position; readers see all of one or nothing."""
    report = Report("batches")
    tally = Tally()
    with folder("batches") as place, schema(options.database_url) as url:
        key = prepare(place, url, 0, options.say)
        server = Server(place, key, database_url=url)
        over = threading.Event()
        try:
            server.start()
            board = _Board(HttpClient(server.port, key), options.random("batches"))
            readers = [
                threading.Thread(target=_look, args=(HttpClient(server.port, key), board, over, tally, report.faults))
                for _ in range(READERS)
            ]
            for reader in readers:
                reader.start()
            rounds = options.count(40, 500)
            for number in range(1, rounds + 1):
                report.faults += board.attempt(number, tally)
                if number % 100 == 0:
                    options.say(f"{number} of {rounds} batches")
            over.set()
            for reader in readers:
                reader.join()
            board.close()
            server.stop()
        finally:
            over.set()
            server.kill()
    counts = tally.counts
    report.figures = {
        "database": "PostgreSQL" if options.database_url else "SQLite",
        "batches": counts["kept"] + counts["failed"],
        "operations": counts["operations"],
        "failed on purpose": counts["failed"],
        "looks meanwhile": counts["looks"],
        "looks at half a batch": counts["torn"],
    }
    return report


class _Board:
    """Tasks that always have the same number, and the client that changes them."""

    def __init__(self, client: HttpClient, random: Random) -> None:
        self._client = client
        self._random = random
        self.project = ids.new("proj")
        self.tasks = [ids.new("task") for _ in range(BOARD)]
        client.ask("POST", "/v1/projects", {"id": self.project, "name": "Board"})
        made = [{"id": task, "name": f"Place {n}", "estimate": 0} for n, task in enumerate(self.tasks)]
        client.ask("POST", "/v1/tasks/bulk", {"tasks": made, "project_id": self.project})
        self.address = f"/v1/tasks?project_id={self.project}&labels[$exists]=false&limit=1000"

    def close(self) -> None:
        self._client.close()

    def attempt(self, number: int, tally: Tally) -> list[str]:
        """One batch, perhaps with a fault in it; what is wrong with its outcome."""
        operations = self._operations(number)
        refusal = self._random.choice((*REFUSALS, "", ""))
        at = self._random.randrange(len(operations) + 1)
        if refusal:
            operations.insert(at, _refused(refusal, self.tasks[0]))
        before = self._client.ask("GET", "/v1/tasks?limit=1000&sort=-updated_at")
        answer = self._client.ask("POST", "/v1/batch", {"operations": operations[:LARGEST]})
        after = self._client.ask("GET", "/v1/tasks?limit=1000&sort=-updated_at")
        tally.add("operations", len(operations))
        if not refusal or at >= LARGEST:
            tally.add("kept")
            good = answer.status == 200 and len(json.decode(answer.body)["results"]) == len(operations[:LARGEST])
            return [] if good else [f"batch {number} was answered {answer.status} {answer.body[:300]!r}"]
        tally.add("failed")
        faults = []
        if answer.code not in ("batch-failed", "validation-failed") or 200 <= answer.status < 300:
            faults.append(f"batch {number} ({refusal} at {at}) was answered {answer.status} {answer.body[:300]!r}")
        elif f"/operations/{at}" not in answer.body.decode():
            faults.append(f"batch {number} does not name operation {at}: {answer.body[:300]!r}")
        if after.body != before.body or after.headers.get("etag") != before.headers.get("etag"):
            faults.append(f"batch {number} failed and left something behind")
        return faults

    def _operations(self, number: int) -> list[dict[str, Any]]:
        """All tasks of the board get the number, in any order; in between other tasks come and go."""
        found = [{"method": "PATCH", "path": f"/tasks/{task}", "body": {"estimate": number}} for task in self.tasks]
        for extra in range(self._random.choice((0, 3, 30, 300))):
            made = {"name": f"Passer-by {number}.{extra}", "project_id": self.project, "labels": ["passing"]}
            found.append({"id": f"made{extra}", "method": "POST", "path": "/tasks", "body": made})
        self._random.shuffle(found)
        places = {operation["id"]: place for place, operation in enumerate(found) if "id" in operation}
        gone = [name for name in places if self._random.random() < 0.5]
        return [*found, *({"method": "DELETE", "path": f"/tasks/{{{name}.id}}"} for name in gone)]


def _refused(kind: str, task: str) -> dict[str, Any]:
    """An operation that cannot succeed."""
    match kind:
        case "missing":
            return {"method": "PATCH", "path": f"/tasks/{ids.new('task')}", "body": {"name": "nobody"}}
        case "invalid":
            return {"method": "POST", "path": "/tasks", "body": {"name": ""}}
        case "outdated":
            return {"method": "PATCH", "path": f"/tasks/{task}", "body": {"name": "late"}, "if_match": 999_999}
        case _:
            return {"method": "PATCH", "path": "/tasks/{nowhere.id}", "body": {"name": "nobody"}}


def _look(client: HttpClient, board: _Board, over: threading.Event, tally: Tally, faults: list[str]) -> None:
    while not over.is_set():
        answer = client.ask("GET", board.address)
        if answer.status != 200:
            faults.append(f"a reader was answered {answer.status} {answer.body[:200]!r}")
            break
        seen = {task["estimate"] for task in json.decode(answer.body)}
        tally.add("looks")
        if len(seen) != 1:
            tally.add("torn")
            faults.append(f"a reader saw the numbers {sorted(seen)} at once")
            break
    client.close()
