"""A table of 500 rows kept as tasks, by somebody with the limits that a fresh server has.

Counted are requests and refusals, not seconds: what took four minutes when a key could make 100 requests a minute was
waiting, and nothing of that shows on a busy machine as reliably as a 429.
"""

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from taskade_server.config import DEFAULT_RATE

from tests.support.server import Server

ROWS = 500


class Mirror:
    """What people write: a session, an Idempotency-Key for each row, and waiting as told."""

    def __init__(self, server: Server, key: str) -> None:
        self._base = f"{server.url}/v1"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self.answers: Counter[int] = Counter()

    def ask(self, method: str, path: str, key: str = "", **options: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            response = self._session.request(method, self._base + path, headers=headers, timeout=180, **options)
            self.answers[response.status_code] += 1
            if response.status_code != 429:
                assert response.ok, response.text
                return response.json()
            time.sleep(int(response.headers["Retry-After"]))


@pytest.fixture
def fresh(start_server: Callable[..., Server]) -> Iterator[Server]:
    """A server with the default limits."""
    yield start_server(rate_limit=DEFAULT_RATE)


@pytest.fixture
def rows() -> list[dict[str, str]]:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["ext_id", "name", "priority"])
    table.writerows([f"T-{n}", f"Row {n}", ("low", "high")[n % 2]] for n in range(ROWS))
    text.seek(0)
    return list(csv.DictReader(text))


def as_task(row: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"name": row["name"], "priority": row["priority"], "custom_fields": {"ext_id": row["ext_id"]}, **more}


def test_row_by_row_nobody_has_to_wait(fresh, rows):
    mirror = Mirror(fresh, fresh.key)
    project = mirror.ask("POST", "/projects", json={"name": "Row by row"})["id"]

    def mirror_row(row: dict[str, str]) -> Any:
        return mirror.ask("POST", "/tasks", f"row {row['ext_id']}", json=as_task(row, project_id=project))

    made = [mirror_row(row) for row in rows]
    assert mirror.answers == {201: ROWS + 1}, "one request for each row, none of them refused"
    again = [mirror_row(row) for row in rows]
    assert again == made and mirror.answers == {201: 2 * ROWS + 1}, "a second run costs nothing and changes nothing"
    assert len(mirror.ask("GET", f"/tasks?project_id={project}&limit=1000")) == ROWS


def test_in_bulk_it_takes_three_requests(fresh, rows):
    mirror = Mirror(fresh, fresh.key)
    project = mirror.ask("POST", "/projects", json={"name": "In bulk"})["id"]
    mirror.ask("POST", "/tasks/bulk", json={"project_id": project, "tasks": [as_task(row) for row in rows]})
    assert mirror.answers == {201: 2}

    # Every row has changed, each in its own way.
    for number, row in enumerate(rows):
        row["name"] = f"Row {number}, revised"
        row["priority"] = ("urgent", "none", "low")[number % 3]
    there = mirror.ask("GET", f"/tasks?project_id={project}&limit=1000")
    known = {task["custom_fields"]["ext_id"]: task for task in there}
    changes = [
        {"id": known[row["ext_id"]]["id"], "if_match": known[row["ext_id"]]["version"], **as_task(row)} for row in rows
    ]
    changed = mirror.ask("PATCH", "/tasks/bulk", json={"tasks": changes})
    assert mirror.answers == {201: 2, 200: 2}, "a list and one request for all changes"
    assert [(task["name"], task["priority"], task["version"]) for task in changed] == [
        (row["name"], row["priority"], 2) for row in rows
    ]
