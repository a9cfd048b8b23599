"""Receivers in JavaScript, tried with the tools: by the conformance kit, and by what really happens in a workspace."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.kit import webhook_signatures

from tests.story.conftest import HERE
from tests.support import toolchains
from tests.support.processes import free_port

SECRET = "your_webhook_secret"


@pytest.fixture(scope="module")
def receivers() -> Iterator[str]:
    """Where the two receivers listen."""
    if not (HERE / "node" / "node_modules" / "standardwebhooks").is_dir():
        pytest.fail("standardwebhooks is not installed: run the tests with `make test`")
    secrets = {"SECRET": SECRET, "STANDARD_SECRET": webhook_signatures.standard_form(SECRET)}
    process = subprocess.Popen(
        [toolchains.node(), HERE / "node" / "receiver.mjs"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **secrets},
    )
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()
    process.stdout.close()


GUIDES = HERE.parents[1] / "docs" / "guides"


def printed(page: str, name: str) -> str:
    """A program as a guide prints it."""
    found = re.search(rf"^```js[a-z ]*\n(// {re.escape(name)}\n.*?)^```$", (GUIDES / page).read_text(), re.M | re.S)
    assert found is not None, f"{page} no longer prints {name}"
    return found[1]


@pytest.fixture
def receiver_of_the_guide(tmp_path: Path) -> Iterator[str]:
    """Where the receiver listens that the guide prints, run as it is."""
    (tmp_path / "receiver.mjs").write_text(printed("webhooks.md", "receiver.mjs"))
    (tmp_path / "node_modules").symlink_to(HERE / "node" / "node_modules")
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "STANDARD_SECRET": webhook_signatures.standard_form(SECRET)}
    process = subprocess.Popen(
        [toolchains.node(), "receiver.mjs"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < until, "it does not listen"
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/hooks/taskade"
    process.kill()
    process.wait()


def test_the_receiver_that_the_guide_prints_passes(receiver_of_the_guide):
    status, said = taskade("webhooks", "verify", "--url", receiver_of_the_guide, "--secret", SECRET)
    assert (status, said.splitlines()[-1]) == (0, "17 deliveries, none answered wrongly."), said


def taskade(*arguments):
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stdout


@pytest.mark.parametrize("arguments", [("/library",), ("/plain", "--plain")], ids=["library", "plain"])
def test_both_pass(receivers, arguments):
    path, *options = arguments
    status, printed = taskade("webhooks", "verify", "--url", receivers + path, "--secret", SECRET, *options)
    assert (status, printed.splitlines()[-1]) == (0, "17 deliveries, none answered wrongly.")


def test_a_receiver_that_has_one_header_cannot_know_everything(receivers):
    status, printed = taskade("webhooks", "verify", "--url", f"{receivers}/plain", "--secret", SECRET, "--json")
    wrong = [case["name"] for case in json.loads(printed)["cases"] if not case["passed"]]
    assert (status, wrong) == (1, ["new secret first", "stale timestamp", "future timestamp", "wrong id"])


@pytest.mark.parametrize("path", ["/library", "/plain"])
def test_what_happens_reaches_them(receivers, path, server, api):
    project = api.post("/v1/projects", json={"name": "Übergabe"}).json()["id"]
    # 1.50 and a key of digits: what JavaScript writes otherwise than it came.
    body = {
        "name": "Entwürfe \u2028",
        "project_id": project,
        "estimate": 1.50,
        "custom_fields": {"b": 1, "2": 1e21 / 1e6},
    }
    assert api.post("/v1/tasks", json=body).status_code == 201
    status, printed = taskade(
        "listen",
        "--url",
        server.url,
        "--key",
        server.key,
        "--forward-to",
        receivers + path,
        "--secret",
        SECRET,
        "--project",
        project,
        "--since",
        "0",
        "--limit",
        "2",
        "--json",
    )
    told = [json.loads(line) for line in printed.splitlines()]
    assert status == 0
    assert [(one["status"], one["body"]) for one in told] == [(200, "OK project.created"), (200, "OK task.created")]
