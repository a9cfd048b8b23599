"""Planted bugs: each of these changes to our own code must make a test fail, or the test is not worth its time.

    python -m tests.faults.planted [--list] [--jobs N] [NAME...]

A copy of the server gets one bug at a time, and the tests that should notice run on the copy; the work tree is never
touched. Each is tried on SQLite first, which is quick, and on PostgreSQL as well only if nothing was noticed there.
Prints a table with the seconds each took, and ends with status 1 if a bug went unnoticed. A NAME is a whole name, or a
part of several. `make planted` does all of it in some minutes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "taskade_server"
NOTHING_CHOSEN = 5
"""How pytest ends when its expression fits no test."""


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
        "store/sqlite/database.py",
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
        "http/pipeline/writes.py",
        "            idempotency.remember(tx, write.attempt, after, reply, call.secret, reads=reads, mixed=mixed)\n",
        "            rows, more = (write.attempt, after, reply, call.secret), {'reads': reads, 'mixed': mixed}\n"
        "            __import__('asyncio').get_running_loop().call_later(\n"
        "                0.5, lambda: self._db.write_sync(lambda later: idempotency.remember(later, *rows, **more))\n"
        "            )\n",
        "tests/api/test_idempotency.py",
    ),
    Bug(
        "a spent budget that interrupts the look for changes",
        "store/sqlite/reader.py",
        "        within, self._meter.interrupts = self._meter.interrupts, False\n",
        "        within = self._meter.interrupts\n",
        "tests/unit/test_store_limits.py",
    ),
    Bug(
        "words that are looked for at no cost",
        "engine/query/plan.py",
        "    if query.words:\n        _charge_words(tx, query)\n",
        "",
        "tests/unit/test_planner.py -k short_word",
    ),
    Bug(
        "a normal form of as many marks as somebody sends",
        "kit/text.py",
        "return unicodedata.normalize(form, _MAYBE_MARKS.sub(_without_excess, text))",
        "return unicodedata.normalize(form, text)",
        "tests/unit/test_text.py -k long_run_of_marks",
    ),
    Bug(
        "a failed unit that keeps its error",
        "store/sqlite/writer.py",
        "        error, self.error = self.error, None\n",
        "        error = self.error\n",
        "tests/unit/test_store_limits.py -k garbage_collector",
    ),
    Bug(
        "a heavy change that runs twice because it failed in a group",
        "store/sqlite/writer.py",
        "        careful = len(units) > 1 and units[0].heavy\n",
        "        careful = False\n",
        "tests/unit/test_store_limits.py -k run_once_each",
    ),
    Bug(
        "a checkpoint that holds up the writer",
        "store/sqlite/write_queue.py",
        "            self._checkpointer.advance()\n",
        "            with self._writer.lock:\n                self._checkpointer.advance()\n",
        "tests/unit/test_store_limits.py -k during_a_checkpoint",
    ),
    Bug(
        "a replay without asking who may see it now",
        "http/pipeline/idempotency.py",
        "    if not visible or needs",
        "    if needs",
        "tests/api/test_idempotency.py",
    ),
    Bug(
        "a cache that forgets who asked",
        "http/pipeline/reads.py",
        "key: Key = (call.principal.caller_id, call.rights_version,",
        'key: Key = ("", call.rights_version,',
        "tests/api/test_caching.py",
    ),
    Bug(
        "a cache that does not look at the log",
        "http/pipeline/cache.py",
        "return entry.reply.heads == tuple(heads)",
        "return True",
        "tests/api/test_caching.py",
    ),
    Bug(
        "a change without its event",
        "engine/log/appending.py",
        "    for kind in (resource.event_type(change.action), *change.also):\n",
        '    for kind in (resource.event_type(change.action), *change.also)[: change.action != "restored"]:\n',
        "tests/api/test_log_replay.py tests/api/test_tasks.py",
    ),
    Bug(
        "a batch that goes on after a failure",
        "http/api/operations.py",
        "                raise _failed(operation, error, call.request_id) from error\n",
        "                reply = Reply(_failed(operation, error, call.request_id).status)\n",
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
        "http/admission/caller.py",
        "if cached is None or cached.rights_version != self.rights_version:",
        "if cached is None:",
        "tests/api/test_users_and_keys.py tests/api/test_permissions.py",
    ),
    Bug(
        "a dry run that writes",
        "http/pipeline/writes.py",
        "            raise _DryRun(reply)\n",
        "            return reply\n",
        "tests/api/test_dry_run.py",
    ),
    Bug(
        "a project of which nothing is known is open",
        "engine/access.py",
        "return is_open and project_id not in self.hidden",
        "return project_id not in self.hidden",
        "tests/api/test_visibility.py -k purged_private",
    ),
    Bug(
        "what an object held in a hidden project is shown when it is moved",
        "engine/events.py",
        "return former is None or _sees_place(principal, resource, event, former)",
        "return True",
        "tests/api/test_visibility.py -k in_the_event_that_moved",
    ),
    Bug(
        "people who left are seen as if they were there",
        "engine/log/applying.py",
        'change.action != "created" and not _is_member(tx, change.doc)',
        "False",
        "tests/api/test_visibility.py -k has_left_the_workspace",
    ),
    Bug(
        "a delivery is sent again without asking who may see it now",
        "consumers/sender/sending.py",
        "return found, shown, shown is not None",
        "return found, event, True",
        "tests/api/test_visibility.py -k sent_again",
    ),
    Bug(
        "presence is told to whoever could once read the project",
        "http/live/websocket.py",
        "if project in viewer.projects and may_look(principal, viewer.homes[project], project):",
        "if project in viewer.projects:",
        "tests/api/test_visibility.py -k presence_ends_with_access",
    ),
    Bug(
        "an include without the scope of its target",
        "engine/query/parsing.py",
        'access.require_scope(principal, included_scope(current, relation), f"to include {name[:80]}")',
        'access.require_scope(principal, f"{resource.plural}:read", f"to include {name[:80]}")',
        "tests/api/test_side_doors.py -k sqlite",
    ),
    Bug(
        "a viewer who leaves a project is an editor",
        "domain/projects/members.py",
        "if user_id != context.principal.user_id or restricts:",
        "if user_id != context.principal.user_id:",
        "tests/api/test_rights.py -k sqlite",
    ),
    Bug(
        "a key changes another that reaches further",
        "domain/identity/api_keys.py",
        "    _require_reach(tx, context, before)\n",
        "",
        "tests/api/test_rights.py -k sqlite",
    ),
    Bug(
        "a grant that is shared and changed",
        "domain/projects/lifecycle.py",
        'context.grant(grant.with_project(project_id, members.get(context.principal.user_id, "editor")))',
        'object.__setattr__(grant, "project_roles", {**grant.project_roles, project_id: "editor"})',
        "tests/api/test_idempotency.py -k sqlite",
    ),
    Bug(
        "an id that is free again once its object is gone",
        "engine/edit.py",
        "    if used_ids(tx, resource, [wanted]):\n",
        '    if tx.one(f"SELECT 1 FROM {resource.table} WHERE id = ?", (wanted,)):\n',
        "tests/api/test_ids.py -k never_free_again",
    ),
    Bug(
        "deliveries that outlive their webhook",
        "domain/webhooks/changing.py",
        '    deliveries.end(tx, doc["id"], now)\n',
        "",
        "tests/api/test_ids.py -k what_waits",
    ),
    Bug(
        "an answer kept for a batch that only reads",
        "http/pipeline/writes.py",
        "        kept = key and not dry_run and weight.writes\n",
        "        kept = key and not dry_run\n",
        "tests/api/test_idempotency.py -k only_reads",
    ),
    Bug(
        "versions of a lost history that are given again",
        "engine/log/applying.py",
        '    doc["version"] = max(int(doc["version"]) + 1, least)\n',
        '    doc["version"] = int(doc["version"]) + 1\n',
        "tests/api/test_restored.py -k etag",
    ),
    Bug(
        "a clock that stands still after a jump",
        "kit/time.py",
        "        _last = max(_last, now) if back <= BRIDGED_MS else now\n",
        "        _last = max(_last, now)\n",
        "tests/unit/test_time.py",
    ),
    Bug(
        "a trash that a jump of the clock empties",
        "store/tables/leases.py",
        "    return row is None or now - int(row[0]) <= most\n",
        "    return True\n",
        "tests/unit/test_clock.py -k month",
    ),
    Bug(
        "a secret that is not compared",
        "installation.py",
        "    if known != backup.fingerprint(secret):\n",
        "    if not secret:\n",
        "tests/unit/test_secret.py",
    ),
    Bug(
        "a number that is read whatever its length",
        "kit/numbers.py",
        " and len(text) <= digits else None",
        " else None",
        "tests/api/test_ids.py -k bodies_and_headers",
    ),
    Bug(
        "a budget for each statement instead of one for the unit",
        "store/sqlite/transaction.py",
        "        self._budget.left -= self._cost if self.interrupts else self._cost // WRITING_SHARE\n        return",
        "        self._budget.left = self._budget.steps - self._cost\n        return",
        "tests/unit/test_store_limits.py -k share_one_budget",
    ),
    Bug(
        "work in Python that nobody counts",
        "engine/log/rows.py",
        "        tx.budget.spend(SIDE_STEPS * len(values))\n",
        "",
        "tests/api/test_budget.py -k custom_fields_and_labels",
    ),
    Bug(
        "a batch of reads among the writers",
        "http/api/batch.py",
        "            writes = writes or (weight.writes and not long)\n",
        "            writes = True\n",
        "tests/unit/test_budget.py -k is_a_read",
    ),
    Bug(
        "a bound for each list of a template",
        "domain/projects/blueprints.py",
        '        pending += task.get("subtasks", [])\n',
        "",
        "tests/unit/test_budget.py -k two_hundred",
    ),
    Bug(
        "a recurrence that is searched for without end",
        "kit/recurrence.py",
        "        spend(len(days) + 1)\n",
        "",
        "tests/unit/test_budget.py -k search_in_vain",
    ),
    Bug(
        "blockers judged before the lock",
        "domain/tasks/lookups.py",
        "        log.lock(self.tx, workspace_id)\n        self.parents.clear()",
        "        self.parents.clear()",
        "tests/api/test_races.py -k circle",
    ),
    Bug(
        "positions that are not looked at when a task comes in",
        "domain/tasks/siblings.py",
        "        if not taken and (own or not ordering.is_initial(wanted)):\n",
        "        if True:\n",
        "tests/api/test_order.py -k twin",
    ),
    Bug(
        "positions that grow without end",
        "domain/tasks/siblings.py",
        "if key is not None and len(key) <= ordering.LONG:",
        "if key is not None:",
        "tests/api/test_order.py -k however_often",
    ),
    Bug(
        "a task restored into a workflow that has changed",
        "domain/tasks/deleting.py",
        '    for _, after in returning:\n        after["status"] = fitting_status(project, after)\n',
        "",
        "tests/api/test_coming_back.py -k comes_back",
    ),
    Bug(
        "a series that fails at its end",
        "domain/tasks/recurring.py",
        "        if found is None:\n            return []\n",
        "",
        "tests/api/test_coming_back.py -k series",
    ),
    Bug(
        "an undone completion that leaves its successor",
        "domain/undo/choosing.py",
        '                    steps[one.id] = Step(one, "created")\n',
        "",
        "tests/api/test_coming_back.py -k undoing",
    ),
    Bug(
        "a bulk deletion in the order of the ids",
        "domain/tasks/deleting.py",
        "        roots.update(dict.fromkeys(path, roots.get(path[-1], path[-1])))\n",
        "        roots[task_id] = task_id\n",
        "tests/api/test_coming_back.py -k bulk_deletion",
    ),
    Bug(
        "a subtask made while one above it moves",
        "domain/tasks/writing.py",
        '            lock_below(lookups.tx, before["id"])\n',
        "",
        "tests/api/test_races.py -k deeper",
    ),
    Bug(
        "the values of a document made anew for each condition",
        "engine/filters/matching.py",
        "        rows = self._sides.get(member.name)\n",
        "        rows = None\n",
        "tests/unit/test_webhook_filters.py -k rows_of_a_document",
    ),
    Bug(
        "a cursor that moves wherever it is",
        "store/tables/cursors.py",
        "WHERE cursors.seq = ?",
        "WHERE cursors.seq = ? OR 1 = 1",
        "tests/unit/test_webhook_filters.py -k moved_meanwhile",
    ),
    Bug(
        "a filter that is kept with the names in it",
        "domain/webhooks/checking.py",
        '    values["filter"] = document\n    return []\n',
        "    return []\n",
        "tests/api/test_webhook_filters.py -k kept_with_the_ids",
    ),
    Bug(
        "an id in a filter that must be of somebody who is there",
        "engine/filters/comparisons.py",
        "if isinstance(operand, str) and ids.is_id(operand, REGISTRY[target].prefix):",
        "if isinstance(operand, str) and member.kind == 'id' and ids.is_id(operand, REGISTRY[target].prefix):",
        "tests/api/test_webhook_filters.py -k found_and_handed_over",
    ),
    Bug(
        "a page of events that looks on however much work it is",
        "http/api/events.py",
        "        asked.steps += steps",
        "        asked.steps += 0 * steps",
        "tests/unit/test_event_pages.py -k so_much_work",
    ),
    Bug(
        "a slice of work for each reader instead of one for all",
        "consumers/pace.py",
        "            if not waiter.done():\n                waiter.set_result(None)\n                break\n",
        "            if not waiter.done():\n                waiter.set_result(None)\n",
        "tests/unit/test_webhook_filters.py -k round_of_the_event_loop",
    ),
    Bug(
        "connections without a share for each workspace",
        "outbound/slots.py",
        "if self._taken[owner] >= self.most - self.taken:",
        "if self.taken >= self.most:",
        "tests/unit/test_slots.py -k half_of_the_slots",
    ),
    Bug(
        "a page of a bin without a bound",
        "http/pages/request_bin_page.py",
        "if found and size > MAX_PAGE:",
        "if found and size > MAX_PAGE * 100:",
        "tests/api/test_request_bin.py -k bounded_as_a_whole",
    ),
    Bug(
        "a route whose parameter comes third and that is not found",
        "http/api/routing.py",
        "        for shape in kind.shapes.get(len(parts), _NONE).values():\n",
        "        for shape in [one for key, one in kind.shapes.get(len(parts), _NONE).items() if key[0]]:\n",
        "tests/unit/test_routes.py",
    ),
    Bug(
        "half a sentence twice in the published text",
        "http/documents/webhooks.py",
        "_webhook(kind.name, kind.summary, text, event_schema.name_of(kind.resource))",
        "_webhook(kind.name, kind.summary, f'{text[:-1]} {text}', event_schema.name_of(kind.resource))",
        "tests/contract/test_prose.py",
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
        plant(bug, Path(made))
        return _failing(bug, Path(made), "not postgresql") or _failing(bug, Path(made), "")


def _failing(bug: Bug, folder: Path, only: str) -> str:
    """The first test of the bug, of those that the expression `only` chooses, that fails in a folder."""
    files, _, chosen = bug.test.partition(" -k ")
    expression = " and ".join(f"({part})" for part in (chosen.strip("'\""), only) if part)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *files.split()]
    command += ["-k", expression] if expression else []
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0 or (done.returncode == NOTHING_CHOSEN and only):
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or found is None:
        raise RuntimeError(f"the tests of {bug.name!r} did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return found[1]


def chosen(names: list[str]) -> list[Bug]:
    """The bugs of these names, or whose names contain one of them; all if there are no names."""
    whole = [bug for bug in BUGS if bug.name in names]
    return whole or [bug for bug in BUGS if not names or any(name in bug.name for name in names)]


def timed(bug: Bug) -> tuple[Bug, str, float]:
    begun = time.monotonic()
    return bug, noticed(bug), time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.planted", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="a bug's name, or a part of some names; all unless given")
    parser.add_argument("--list", action="store_true", help="only print their names and tests")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (default 1)")
    options = parser.parse_args()
    bugs = chosen(options.names)
    if options.list or not bugs:
        print("\n".join(f"{bug.name:48} {bug.test}" for bug in bugs) or f"no bug is called {' '.join(options.names)}")
        return 0 if bugs else 1
    missed = 0
    with ThreadPoolExecutor(options.jobs) as threads:
        for bug, test, seconds in threads.map(timed, bugs):
            missed += not test
            print(f"{'noticed' if test else 'MISSED':8} {seconds:5.0f} s  {bug.name:48} {test or bug.test}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
