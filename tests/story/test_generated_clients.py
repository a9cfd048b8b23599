"""Clients that widely used generators make from the OpenAPI document: they compile, and their calls work.

Why with their output thrown away: what counts is that anybody can run these generators on the document as it is
served, and get types that one can program with.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from taskade_server.http.documents import openapi

from tests.story.conftest import HERE
from tests.support import toolchains
from tests.support.server import Server

PROGRAMS = HERE / "generated"
MODULES = HERE / "node" / "node_modules"
STEP_SECONDS = 300


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the document as servers send it, and the programs that use what is generated from it.

    Without a server, so that one generation serves the tests on both databases.
    """
    if not (MODULES / "openapi-typescript").is_dir():
        pytest.fail("openapi-typescript is not installed: run the tests with `make test`")
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(openapi.render(), encoding="utf-8")
    for program in PROGRAMS.iterdir():
        if program.is_file():
            shutil.copy(program, folder)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    yield folder
    shutil.rmtree(folder)


def run(folder: Path, *command: str | Path, server: Server | None = None) -> str:
    """What a command prints. `server`: the one that the command calls."""
    environment = dict(os.environ)
    if server is not None:
        environment |= {"TASKADE_URL": server.url, "TASKADE_API_KEY": server.key}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def tool(folder: Path, name: str, *arguments: str) -> str:
    """What a program of the node modules prints."""
    return run(folder, toolchains.node(), MODULES / ".bin" / name, *arguments)


def said(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


@pytest.fixture(scope="module")
def compiled(workshop: Path) -> Path:
    """The folder of the two TypeScript programs, compiled with what the generators made for them."""
    tool(workshop, "openapi-typescript", "openapi.json", "-o", "openapi.ts")
    tool(workshop, "openapi-ts", "--file", "openapi-ts.config.mjs", "--silent")
    tool(workshop, "tsc", "--project", "tsconfig.json")
    return workshop / "built"


def test_a_typescript_program_with_openapi_fetch(compiled: Path, server: Server) -> None:
    found = said(run(compiled, toolchains.node(), "openapi_fetch.js", server=server))
    assert found == {
        "names": ["Announce it"],
        "hours": 2,
        "completed": True,
        "project": ["Launch"],
        "code": "not-found",
        "priorities": ["high"],
    }


def test_a_typescript_program_with_hey_api(compiled: Path, server: Server) -> None:
    found = said(run(compiled, toolchains.node(), "hey_api.js", server=server))
    assert found == {
        "names": ["Announce it"],
        "labels": ["web"],
        "completed": True,
        "priorities": ["low"],
        "statuses": [200],
        "pointers": ["/name"],
    }


@pytest.fixture(scope="module")
def generated(workshop: Path) -> Path:
    """The folder of the Python program, with the client that it uses."""
    generator = Path(sys.executable).parent / "openapi-python-client"
    (workshop / "python.yaml").write_text("post_hooks: []\n")
    arguments = ("generate", "--path", "openapi.json", "--output-path", "generated", "--meta", "none")
    report = run(workshop, generator, *arguments, "--config", "python.yaml")
    assert "WARNING" not in report, report
    assert "ERROR" not in report, report
    return workshop


def test_a_python_program_with_openapi_python_client(generated: Path, server: Server) -> None:
    found = said(run(generated, sys.executable, "python_client.py", server=server))
    assert found == {
        "names": ["Announce it"],
        "listed": True,
        "labels": ["web"],
        "priority": "high",
        "completed": True,
        "code": "not-found",
    }
