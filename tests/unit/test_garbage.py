"""Requests leave nothing for the garbage collector: what refers to itself costs each of them a tenth of its time."""

import asyncio
import gc

import pytest
from taskade_server.kit import json
from taskade_server.selftest.host import Host

REQUESTS = 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/tasks/{task}", None),
        ("GET", "/v1/tasks?limit=5", None),
        ("GET", "/v1/tasks?limit=5&sort=-name&count=true", None),
        ("GET", "/v1/tasks/{task}x", None),
        ("POST", "/v1/tasks", {"name": "Another"}),
        ("PATCH", "/v1/tasks/{task}", {"name": "Renamed"}),
        ("POST", "/v1/tasks/query", {"filter": {"priority": "high"}}),
    ],
)
def test_a_request_refers_to_nothing_that_refers_to_it(tmp_path, method, path, body):
    async def scene(host: Host) -> int:
        """How much garbage the requests made in the best of three rounds: background work may make some, too."""
        task = json.decode((await host.ask("POST", "/v1/tasks", {"name": "One"})).body)["id"]
        for _ in range(20):  # what is made once
            await host.ask(method, path.format(task=task), body)
        found = []
        gc.disable()
        try:
            for _ in range(3):
                gc.collect()
                for _ in range(REQUESTS):
                    await host.ask(method, path.format(task=task), body)
                found.append(gc.collect())
                if found[-1] < REQUESTS:
                    break
            return min(found)
        finally:
            gc.enable()
            await host.db.close()

    left = asyncio.run(scene(Host(tmp_path).open()))
    assert left < REQUESTS, f"{left / REQUESTS:.1f} objects for each request"
