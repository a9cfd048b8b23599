"""Runs schemathesis against a server of its own; `make fuzz` is this from the command line.

Why one function for both uses: the short form in the tests is then the long one with fewer examples, nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """What a run says: its exit code, what it printed, its report, and the statuses of each operation."""

    code: int
    text: str
    report: dict[str, Any]
    statuses: dict[str, list[int]]


def run(folder: Path, *arguments: str, quiet: bool = True) -> Outcome:
    """Run the command with its configuration in schemathesis.toml; `arguments` come on top."""
    server = Server(folder / "data").start()
    report, statuses = folder / "report.json", folder / "statuses.json"
    environment = {
        "TASKADE_URL": server.url,
        "TASKADE_KEY": server.key,
        "TASKADE_STATUSES": str(statuses),
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--report-json-path", str(report)]
    try:
        done = subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            text=True,
            check=False,
        )
    finally:
        server.stop()
    text = (done.stdout or "") + server.said()
    if not (report.exists() and statuses.exists()):
        return Outcome(done.returncode or 1, text, {}, {})
    return Outcome(done.returncode, text, json.loads(report.read_text()), json.loads(statuses.read_text()))


def never_succeeded(statuses: dict[str, list[int]]) -> list[str]:
    """The operations without any 2xx."""
    return [label for label, found in statuses.items() if not any(200 <= status < 300 for status in found)]


def main() -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), *sys.argv[1:], quiet=False)
    for label in never_succeeded(outcome.statuses):
        print(f"never succeeded: {label}")
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
