"""Generated requests, right and wrong ones, against a running server: whatever it answers, the document says so.

Why the command and not its Python interface: this is what a developer runs by hand with more examples
(`make fuzz`), with the same configuration in schemathesis.toml.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from taskade_server.http.routes import all_routes

from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--phases", "examples,fuzzing", "--max-examples", "2")


def test_generated_requests(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        report, statuses = tmp_path / "report.json", tmp_path / "statuses.json"
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            str(ROOT / "openapi.json"),
            "--url",
            f"{server.url}/v1",
        ]
        done = subprocess.run(
            [*command, *SHORT, "--report-json-path", str(report)],
            cwd=ROOT,
            env={**os.environ, "TASKADE_URL": server.url, "TASKADE_KEY": server.key, "TASKADE_STATUSES": str(statuses)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.stop()
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert json.loads(report.read_text())["test_cases"]["with_failures"] == 0
    answered = json.loads(statuses.read_text())
    assert set(answered) == {f"{route.method} {route.path}" for route in all_routes()}
    assert [label for label, found in answered.items() if not any(200 <= status < 300 for status in found)] == []
    assert "ERROR" not in server.said()
