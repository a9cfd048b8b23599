"""Planted bugs: each of these changes to our own code must make a test fail, or the test is not worth its time.

    python -m tests.faults.planted [NAME...]

A copy of the server gets one bug at a time, and the tests that should notice run on the copy; the work tree is never
touched. Prints a table, and ends with status 1 if a bug went unnoticed. `make planted` does all of it in some minutes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "taskade_server"


@dataclass(frozen=True)
class Bug:
    """One fault: the text that is replaced in a module of the server, and the test that has to notice."""

    name: str
    module: str
    right: str
    wrong: str
    test: str


BUGS = (
    Bug(
        "no fsync",
        "store/sqlite.py",
        "PRAGMA synchronous = {self._synchronous};",
        "PRAGMA synchronous = off;",
        "tests/faults/test_crash.py -k power_loss_takes",
    ),
    Bug(
        "a query without the workspace predicate",
        "engine/access.py",
        'parts.append(sql if len(chosen) == 1 else f"(t.workspace_id <> ? OR {sql})")',
        'parts.append("1 = 1" if len(chosen) == 1 else f"(t.workspace_id <> ? OR {sql} OR 1 = 1)")',
        "tests/api/test_permissions.py",
    ),
    Bug(
        "an idempotency row in a transaction of its own",
        "http/pipeline.py",
        "            once.remember(tx, attempt, after, reply, self.secret, reads=reads)\n",
        "            rows = (attempt, after, reply, self.secret)\n"
        "            asyncio.get_running_loop().call_later(\n"
        "                0.5, lambda: self.db.write_sync(lambda later: once.remember(later, *rows, reads=reads))\n"
        "            )\n",
        "tests/api/test_idempotency.py",
    ),
    Bug(
        "a replay without asking who may see it now",
        "http/once.py",
        'visible = all(_sees(call.principal, *place) for place in needs["places"])',
        "visible = True",
        "tests/api/test_idempotency.py",
    ),
    Bug(
        "a cache that forgets who asked",
        "http/pipeline.py",
        "key: Key = (caller, request.epoch,",
        'key: Key = ("", request.epoch,',
        "tests/api/test_caching.py",
    ),
    Bug(
        "a cache that does not look at the log",
        "http/cache.py",
        "return entry.reply.heads == tuple(heads)",
        "return True",
        "tests/api/test_caching.py",
    ),
    Bug(
        "a change without its event",
        "engine/log.py",
        "    for kind in (resource.event_type(change.action), *change.also):\n",
        '    for kind in (resource.event_type(change.action), *change.also)[: change.action != "restored"]:\n',
        "tests/api/test_log_replay.py tests/api/test_tasks.py",
    ),
    Bug(
        "a batch that goes on after a failure",
        "http/batch.py",
        "            raise _failed(operation, error, call.request_id) from error\n",
        "            reply = Reply(_failed(operation, error, call.request_id).status)\n",
        "tests/api/test_batch.py",
    ),
    Bug(
        "If-Match that is read and ignored",
        "engine/edit.py",
        "    if (context.if_match is not None and not context.if_match & present) or",
        "    if",
        "tests/api/test_etag.py",
    ),
    Bug(
        "cursors whose signature nobody checks",
        "kit/signing.py",
        "return payload if hmac.compare_digest(_tag(secret, payload), tag) else None",
        "return payload",
        "tests/api/test_bad_input.py",
    ),
    Bug(
        "a right that is looked up once and for all",
        "http/credentials.py",
        "if known is None or known.epoch != epoch:",
        "if known is None:",
        "tests/api/test_users_and_keys.py tests/api/test_permissions.py",
    ),
    Bug(
        "a dry run that writes",
        "http/pipeline.py",
        "            raise _DryRun(reply)\n",
        "            return reply\n",
        "tests/api/test_dry_run.py",
    ),
)


def plant(bug: Bug, folder: Path) -> None:
    """Make a copy of the server with the bug in it. RuntimeError if the code no longer has the place."""
    copy = folder / "taskade_server"
    shutil.copytree(SERVER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / bug.module
    text = module.read_text(encoding="utf-8")
    if text.count(bug.right) != 1:
        raise RuntimeError(f"{bug.module} no longer has the line for {bug.name!r} once: bring the bug up to date.")
    module.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")


def noticed(bug: Bug) -> str:
    """The first test that fails with the bug; empty if none does."""
    with tempfile.TemporaryDirectory(prefix="planted-") as made:
        folder = Path(made)
        plant(bug, folder)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *bug.test.split(),
        ]
        environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or found is None:
        raise RuntimeError(f"the tests of {bug.name!r} did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return found[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.planted", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="only the bugs whose name contains one of these")
    names = parser.parse_args().names
    missed = 0
    for bug in BUGS:
        if names and not any(name in bug.name for name in names):
            continue
        test = noticed(bug)
        missed += not test
        print(f"{'noticed' if test else 'MISSED':8} {bug.name:48} {test or bug.test}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
