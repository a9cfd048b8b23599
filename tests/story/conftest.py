"""Stories: each request of the examples, made with a client that people use, against a real server.

Why a server of their own: a newcomer's server is empty, so that lists without a filter stay short enough to
be looked at whole.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.story.world import January, invite_people, plant_january
from tests.support import toolchains
from tests.support.server import Server

HERE = Path(__file__).parent
PROGRAM_SECONDS = 300

Program = Callable[..., Any]
"""Runs a program as a user would: called with a server, a story and what it is given; returns its answer."""


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """The server that the stories of one process share, without a rate limit."""
    return make_server().start()


@pytest.fixture(scope="session")
def api(server: Server) -> Iterator[httpx2.Client]:
    """For what a story needs before it begins, and to look at afterwards: `api.get("/v1/tasks")`."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def people(api: httpx2.Client) -> dict[str, str]:
    """The ids of the examples' people by handle."""
    return invite_people(api)


@pytest.fixture(scope="session")
def january(api: httpx2.Client, people: dict[str, str]) -> January:
    return plant_january(api)


@pytest.fixture(scope="session")
def node() -> Program:
    """Runs a script of the folder `node` for a server: `node(server, "tasks.mjs", project_id=...)`."""
    if not (HERE / "node" / "node_modules" / "axios").is_dir():
        pytest.fail("axios and qs are not installed: run the tests with `make test`")

    def run(server: Server, script: str, **given: object) -> Any:
        return _run([str(toolchains.node()), str(HERE / "node" / script)], server, given)

    return run


@pytest.fixture(scope="session")
def go(pytestconfig: pytest.Config) -> Program:
    """Runs a story of the program in the folder `go`: `go(server, "tasks", project_id=...)`."""
    # Compiling net/http takes half a minute, so what was compiled is kept between runs, and the processes of
    # a run take turns: the second finds everything done.
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("go")
    program = folder / "story"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = subprocess.run(
            [str(toolchains.go()), "build", "-o", str(program), "."],
            cwd=HERE / "go",
            env=toolchains.go_environment(folder),
            capture_output=True,
            text=True,
            check=False,
        )
    if built.returncode != 0:
        pytest.fail(f"go build failed:\n{built.stderr}")

    def run(server: Server, story: str, **given: object) -> Any:
        return _run([str(program), story], server, given)

    return run


@pytest.fixture(scope="session")
def shell() -> Callable[[str], str]:
    """Runs a pasted command line; returns what it prints on standard output."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed on this machine")

    def run(command: str) -> str:
        return _output(["sh", "-c", command], {})

    return run


def _run(command: list[str], server: Server, given: dict[str, object]) -> Any:
    values = {"BASE_URL": f"{server.url}/v1", "API_KEY": server.key, "GIVEN": json.dumps(given)}
    return json.loads(_output(command, values))


def _output(command: list[str], values: dict[str, str]) -> str:
    # Nothing else of our environment: a proxy or an option set on this machine is no part of the story.
    environment = {"PATH": os.environ["PATH"]} | values
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stderr}{done.stdout}", pytrace=False)
    return done.stdout
