"""The brief's webhook: received by its Express handler, and verified by everybody's libraries."""

import os
import subprocess
import time

import httpx2
import pytest
import standardwebhooks
import svix
from taskade_server.kit import webhook_signatures

from tests.story.conftest import HERE
from tests.support import toolchains

SECRET = "your_webhook_secret"
PATIENCE = 60


@pytest.fixture
def receivers():
    """The Express handler and, beside it, one with the libraries: their addresses."""
    if not (HERE / "node" / "node_modules" / "express").is_dir():
        pytest.fail("express is not installed: run the tests with `make test`")
    secrets = {"SECRET": SECRET, "STANDARD_SECRET": webhook_signatures.standard_form(SECRET)}
    process = subprocess.Popen(
        [toolchains.node(), HERE / "node" / "express.mjs"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **secrets},
    )
    assert process.stdout is not None
    ports = sorted(int(process.stdout.readline()) for _ in range(2))
    yield {path: f"http://127.0.0.1:{port}" for port in ports for path in paths_of(port)}
    process.kill()
    process.wait()
    process.stdout.close()


def paths_of(port):
    """Which of the two listens there."""
    answer = httpx2.get(f"http://127.0.0.1:{port}/seen", trust_env=False, verify=False)
    return ["/webhook/task-updated", "/seen"] if answer.status_code == 200 else ["/library", "/kept"]


def asked(receivers, path, count):
    """What a receiver has taken, once there is so much."""
    until = time.monotonic() + PATIENCE
    while len(found := httpx2.get(receivers[path] + path, trust_env=False, verify=False).json()) < count:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def test_the_handler_of_the_brief(api, receivers):
    """It takes what really happens, whatever is in it, and refuses a body of which one byte is another."""
    events = ["task.created", "task.updated", "task.completed"]
    hooks = []
    for path in ("/webhook/task-updated", "/library"):
        made = api.post("/v1/webhooks", json={"url": receivers[path] + path, "events": events, "secret": SECRET})
        assert made.status_code == 201 and made.json()["secret"] == SECRET
        hooks.append(made.json()["id"])
    # Numbers and keys that JavaScript writes otherwise than they came, and text that it escapes otherwise.
    task = {
        "name": "Entwürfe \u2028 😀 </script>",
        "estimate": 1.50,
        "labels": ["a/b", "\x7f"],
        "custom_fields": {"2024": 1.0, "10": 9007199254740991, "small": 1e-7, "e": 0.1},
    }
    response = api.post("/v1/tasks", json=task)
    assert response.status_code == 201, response.text
    made = response.json()
    api.put(f"/v1/tasks/{made['id']}", json={"name": "Updated task name", "priority": "high"})
    api.post(f"/v1/tasks/{made['id']}/complete")

    seen = asked(receivers, "/seen", 4)
    assert [one["type"] for one in seen] == ["task.created", "task.updated", "task.updated", "task.completed"]
    assert [one["name"] for one in seen] == [task["name"], *["Updated task name"] * 3]
    for one in kept_by_libraries(receivers):
        refuses_a_flipped_byte(receivers, one)
    for hook in hooks:
        assert api.get(f"/v1/webhooks/{hook}/deliveries?state=pending,failed").json() == []
        api.delete(f"/v1/webhooks/{hook}")


def kept_by_libraries(receivers):
    """What the libraries in JavaScript have verified; those in Python say the same."""
    found = asked(receivers, "/kept", 4)
    for one in found:
        for library in (standardwebhooks, svix):
            library.Webhook(webhook_signatures.standard_form(SECRET)).verify(one["body"], one["headers"])
    return found


def refuses_a_flipped_byte(receivers, one):
    url = f"{receivers['/webhook/task-updated']}/webhook/task-updated"
    headers = {"Content-Type": "application/json", "X-Taskade-Signature": one["headers"]["x-taskade-signature"]}
    body = one["body"].encode()
    assert httpx2.post(url, content=body, headers=headers, trust_env=False, verify=False).status_code == 200
    at = body.index(b'"name":"') + 8
    flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    assert httpx2.post(url, content=flipped, headers=headers, trust_env=False, verify=False).status_code in (400, 401)
