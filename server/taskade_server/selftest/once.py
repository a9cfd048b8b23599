"""Part `once`: many identical requests at the same moment with one Idempotency-Key, and one effect of them all.

Why at the same moment: the second attempt of a client whose first one hangs arrives while that is still at work.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from taskade_server.kit import ids, json
from taskade_server.selftest.client import REPLAYED, Answer, HttpClient
from taskade_server.selftest.installation import prepare, schema
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server

AT_ONCE: Final = 50
IN_USE: Final = "idempotency-key-in-use"
REUSED: Final = "idempotency-key-reused"


def run(options: Options) -> Report:
    """50 identical requests at once, round after round; on PostgreSQL to two servers by turns."""
    report = Report("once")
    rounds = options.count(10, 200)
    totals = {"first": 0, "replayed": 0, "in use": 0}
    with folder("once") as directory, schema(options.database_url) as url:
        key = prepare(directory, url, 0, options.say)
        servers = [Server(directory, key, database_url=url) for _ in range(2 if url else 1)]
        try:
            for server in servers:
                server.start()
            clients = [HttpClient(servers[n % len(servers)].port, key) for n in range(AT_ONCE)]
            with ThreadPoolExecutor(AT_ONCE) as threads:
                for number in range(rounds):
                    _round(number, clients, threads, totals, report.faults)
                    if number % 50 == 49:
                        options.say(f"{number + 1} of {rounds} rounds")
            for client in clients:
                client.close()
            for server in servers:
                server.stop()
        finally:
            for server in servers:
                server.kill()
    report.figures = {
        "database": "PostgreSQL" if options.database_url else "SQLite",
        "servers": len(servers),
        "rounds": rounds,
        "requests at once": AT_ONCE,
        "answers of first attempts": totals["first"],
        "answers given again": totals["replayed"],
        "told to wait": totals["in use"],
    }
    return report


def _round(
    number: int, clients: Sequence[HttpClient], threads: ThreadPoolExecutor, totals: dict[str, int], faults: list[str]
) -> None:
    name = f"round {number} {ids.new('req')}"
    method, path, body = _request(number, name, clients[0])
    together = threading.Barrier(len(clients))

    def attempt(client: HttpClient) -> Answer:
        together.wait()
        return client.ask(method, path, body, name)

    answers = list(threads.map(attempt, clients))
    again = clients[0].ask(method, path, body, name)
    first = [answer for answer in answers if 200 <= answer.status < 300 and REPLAYED not in answer.headers]
    replays = [answer for answer in [*answers, again] if answer.headers.get(REPLAYED) == "true"]
    waiting = [answer for answer in answers if answer.code == IN_USE]
    totals["first"] += len(first)
    totals["replayed"] += len(replays)
    totals["in use"] += len(waiting)
    if len(first) != 1 or len(first) + len(replays) + len(waiting) != len(answers) + 1:
        faults.append(
            f"{name}: {len(first)} first answers, {len(replays)} replays, {len(waiting)} told to wait of"
            f" {len(answers) + 1}; others: {_others(answers)}"
        )
    if first and any(replay.body != first[0].body or replay.status != first[0].status for replay in replays):
        faults.append(f"{name}: a replay differs from the first answer")
    faults += _effects(name, clients[0])
    other = clients[0].ask(method, path, {**body, "description": "another body"}, name)
    if other.code not in (REUSED, "batch-failed", "validation-failed") or 200 <= other.status < 300:
        faults.append(f"{name}: another body with the same key was answered {other.status}")


def _request(number: int, name: str, client: HttpClient) -> tuple[str, str, dict[str, Any]]:
    """A create, a bulk create, a batch or a change, by turns; each leaves the name on one task."""
    match number % 4:
        case 0:
            return "POST", "/v1/tasks", {"name": name}
        case 1:
            return "POST", "/v1/tasks/bulk", {"tasks": [{"name": name}, {"name": "beside it"}]}
        case 2:
            operations = [{"method": "POST", "path": "/tasks", "body": {"name": name}}]
            return "POST", "/v1/batch", {"operations": operations}
        case _:
            made = client.ask("POST", "/v1/tasks", {"name": "to be renamed"})
            return "PATCH", f"/v1/tasks/{json.decode(made.body)['id']}", {"name": name}


def _effects(name: str, client: HttpClient) -> list[str]:
    found = json.decode(client.ask("POST", "/v1/tasks/query", {"filter": {"name": name}}).body)
    if len(found) != 1:
        return [f"{name}: {len(found)} tasks came of it"]
    expected = 2 if found[0]["created_at"] != found[0]["updated_at"] else 1
    return [] if found[0]["version"] == expected else [f"{name}: the task is at version {found[0]['version']}"]


def _others(answers: Sequence[Answer]) -> str:
    odd = [answer for answer in answers if not 200 <= answer.status < 300 and answer.code != IN_USE]
    return ", ".join(f"{answer.status} {answer.body[:200]!r}" for answer in odd[:3]) or "none"
