"""The documents, read by tools that many people use: linters of OpenAPI, and the parser of all tools of AsyncAPI.

The rules and every exception to them are in `redocly.yaml` and `.spectral.yaml`, beside the documents.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import toolchains

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "tests" / "story" / "node" / "node_modules"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
STEP_SECONDS = 300
PARSE = """
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[1], "utf8"));
for (const found of diagnostics) console.log(found.severity, found.code, found.message, found.path.join("/"));
console.log(document === undefined ? "no document" : `${document.allMessages().length} messages`);
"""


def run(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    if not (MODULES / "@redocly").is_dir():
        pytest.fail("The linters are not installed: run the tests with `make test`")
    return subprocess.run(
        [toolchains.node(), *command],
        cwd=folder,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )


def test_redocly_has_nothing_to_say():
    """With its strict rules, where what is recommended is an error."""
    done = run(MODULES / ".bin" / "redocly", "lint", "openapi.json", "--format=stylish")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr


def test_spectral_has_nothing_to_say():
    done = run(MODULES / ".bin" / "spectral", "lint", "openapi.json", "--fail-severity=hint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_linter_sees_what_is_wrong(tmp_path):
    """Otherwise the two tests above would mean nothing."""
    text = (ROOT / "openapi.json").read_text(encoding="utf-8")
    wrong = tmp_path / "openapi.json"
    wrong.write_text(text.replace('"#/components/schemas/TaskPriority"', '"#/components/schemas/Priority"'))
    done = run(MODULES / ".bin" / "redocly", "lint", wrong, "--format=stylish")
    assert done.returncode != 0
    assert "no-unresolved-refs" in done.stdout


def test_the_parser_of_asyncapi_reads_the_document():
    done = run("--input-type=module", "--eval", PARSE, ROOT / "asyncapi.json", folder=MODULES.parent)
    assert done.stdout.splitlines() == ["76 messages"], done.stdout + done.stderr
