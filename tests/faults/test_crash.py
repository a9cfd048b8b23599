"""Nothing that was acknowledged is lost, whatever happens to the process, its disk or the power.

The parts of `taskade selftest` in their short form, on real processes and simulated disks; `taskade selftest --crash`
tries the same at length. A test that only ever passes proves nothing, so the ones at the end break something
on purpose, and see that it is noticed.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.selftest import exhaustion, faults, kill, points, power, suite
from taskade_server.selftest.checker import Checker
from taskade_server.selftest.disk import LOSSES, VolatileDisk, _Kept
from taskade_server.selftest.host import FILE, Host
from taskade_server.selftest.ledger import Ledger, Operation, judge, recall
from taskade_server.selftest.parts import Options, Report
from taskade_server.selftest.power import PowerTest
from taskade_server.selftest.workload import Writer
from taskade_server.store.sqlite.writer import Writer as _Writer


def quiet(line: str) -> None:
    pass


@pytest.fixture
def options():
    return Options(seed=11, say=quiet)


def assert_held(report: Report) -> None:
    assert report.faults == []
    assert report.figures["acknowledged writes lost"] == report.figures["bulks and batches torn"] == 0
    assert report.figures["writes acknowledged"]


def running_in(folder: Path) -> list[int]:
    """The processes whose command names something in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(f"{folder}/") in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_a_selftest_that_is_ended_leaves_nothing_behind(tmp_path):
    """Neither its servers nor its folders."""
    command = [sys.executable, "-m", "taskade_server", "selftest", "kill"]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not running_in(tmp_path):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.terminate()
    assert process.wait(120) == 128 + signal.SIGTERM
    assert running_in(tmp_path) == [] and [*tmp_path.iterdir()] == []


# ---- the parts -------------------------------------------------------------------------------------------------------


def test_kills_lose_nothing(options, database, fresh_database):
    options.rounds = 4
    options.database_url = fresh_database if database == "postgresql" else ""
    assert_held(kill.run(options))


def test_kills_at_named_places_lose_nothing(options):
    assert_held(points.run(options))


def test_a_power_loss_takes_only_what_was_not_promised_to_stay(options):
    report = power.run(options)
    assert report.faults == []
    assert int(report.figures["power losses"]) >= 100
    assert int(report.figures["of them with writes on their way"]) >= 50
    assert report.figures["acknowledged writes lost"] == report.figures["bulks and batches torn"] == 0
    # Without waiting for the disk some are lost: so the test would see it.
    assert report.figures["with NORMAL: acknowledged writes lost"]


def test_a_server_outlives_a_failing_disk(options):
    report = faults.run(options)
    assert_held(report)
    assert report.figures["servers stopped and opened anew"]
    # Those whose commit failed were not cut off: they were answered 503 outcome-unknown.
    assert report.figures["of them told so by a real server (503)"]


@pytest.mark.parametrize("trial", exhaustion.TRIALS, ids=lambda trial: trial.__name__.strip("_"))
def test_a_server_outlives_a_shortage(trial, options):
    report = Report("exhaustion")
    trial(options, report)
    if report.notes:
        pytest.skip(report.notes[0])
    assert report.faults == []


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_needs_nothing_but_the_server_and_reports_for_programs(tmp_path):
    """Run where no test library may be imported, from a folder that must stay empty."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['pytest', 'httpx2', 'hypothesis', 'requests']))\n"
        "from taskade_server.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "selftest", "power", "--rounds", "5", "--seed", "3", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["seed"] == 3
    assert result["parts"][0]["figures"]["power losses"] >= 5
    assert list(tmp_path.iterdir()) == []


def test_the_command_fails_when_something_was_found(monkeypatch):
    def broken(options: Options) -> Report:
        return Report("kill", figures={"kills": options.count(1, 2)}, faults=["acknowledged but lost: w0-1 (1)"])

    def raising(options: Options) -> Report:
        raise LookupError("the part is broken")

    monkeypatch.setattr(suite, "PARTS", {"kill": ("kills", broken), "power": ("power losses", raising)})
    done = CliRunner().invoke(main, ["selftest", "kill", "power"])
    assert done.exit_code == 1
    assert "FAULT: acknowledged but lost: w0-1 (1)" in done.stdout and "LookupError" in done.stdout
    assert "2 faults were found." in done.stdout


# ---- the judges themselves -------------------------------------------------------------------------------------------


def operation(name: str, fate: str, *marks: str) -> Operation:
    return Operation(name, "", "", "", None, "", Counter({("task.created", mark): 1 for mark in marks}), fate=fate)  # type: ignore[arg-type]  # a literal


def test_the_judge_sees_what_is_lost_torn_doubled_unwanted_or_unasked():
    operations = [
        operation("kept", "acknowledged", "a"),
        operation("lost", "acknowledged", "b", "c"),
        operation("torn", "acknowledged", "d", "e"),
        operation("torn too", "unknown", "f", "g"),
        operation("doubled", "unknown", "h"),
        operation("ghost", "refused", "i"),
        operation("open, there", "unknown", "j", "k"),
        operation("open, absent", "sent", "l"),
        operation("forgotten later", "there", "m"),
        operation("late", "absent", "n"),
    ]
    found = Counter({("task.created", mark): 1 for mark in "adfijkn"})
    verdict = judge(operations, found + Counter({("task.created", "h"): 2, ("task.created", "z"): 1}))
    assert verdict.lost == ["lost", "forgotten later"]
    assert verdict.torn == ["torn", "torn too"]
    assert verdict.twice == ["doubled"]
    assert verdict.ghosts == ["ghost", "late"]
    assert verdict.strangers == ["z"]
    assert [found.name for found in verdict.there] == ["open, there"]
    assert [found.name for found in verdict.absent] == ["open, absent"]
    assert len(verdict.faults()) == 5


def test_a_ledger_is_read_back_as_it_was_written_but_for_a_torn_line(tmp_path):
    path = tmp_path / "w.ledger"
    ledger = Ledger(path)
    for name, fate in (("a", "acknowledged"), ("b", "unknown"), ("c", "refused")):
        ledger.sent(operation(name, "sent", name))
        ledger.settled(ledger.operations[-1], fate)  # type: ignore[arg-type]  # a literal
    ledger.sent(operation("d", "sent", "d"))
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"acknowledged":"d"')
    assert [(found.name, found.fate) for found in recall(path)] == [
        ("a", "acknowledged"),
        ("b", "unknown"),
        ("c", "refused"),
        ("d", "sent"),
    ]
    assert [found.marks for found in recall(path)] == [found.marks for found in ledger.operations]


def test_what_a_power_loss_leaves_lies_between_what_was_synced_and_what_was_written():
    random = Random(5)
    seen: dict[str, set[bytes | None]] = {loss: set() for loss in LOSSES}
    for loss in LOSSES:
        for _ in range(200):
            kept = _Kept(bytearray(b"." * 2048), entry=True)
            kept.pending += [(0, b"a" * 1024), (512, b"b" * 1024), (1536, b"c" * 512)]
            seen[loss].add(kept.left(random, loss))
    assert seen["none"] == {b"." * 2048}
    whole = b"a" * 512 + b"b" * 1024 + b"c" * 512
    assert whole in seen["random"] and b"a" * 1024 + b"." * 1024 in seen["random"]
    assert b"a" * 1024 + b"b" * 512 + b"." * 512 in seen["reordered"]  # the second write came before the first
    assert b"a" * 512 + b"." * 1536 in seen["torn"]
    assert all(
        (image or b"")[start : start + 512] in {letter * 512 for letter in (b".", b"a", b"b", b"c")}
        for images in seen.values()
        for image in images
        for start in range(0, 2048, 512)
    )


# ---- broken on purpose -----------------------------------------------------------------------------------------------


def test_a_disk_that_lies_about_its_syncs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(_Kept, "sync", lambda kept: None)
    summary = PowerTest(tmp_path, 1, "full").run(20, quiet)
    assert summary.lost and any("acknowledged but lost" in fault for fault in summary.faults)


def test_an_answer_before_its_commit_is_noticed(tmp_path, monkeypatch):
    """As if the writer answered first and committed later, which is the classic mistake."""
    commit, skipped = _Writer.commit, Counter[str]()

    def lazy(writer: _Writer) -> None:
        skipped["commits"] += 1
        if skipped["commits"] % 10:
            commit(writer)
        else:
            writer.connection.execute("ROLLBACK")

    monkeypatch.setattr(_Writer, "commit", lazy)
    summary = PowerTest(tmp_path, 1, "full").run(20, quiet)
    assert summary.lost and any("acknowledged but lost" in fault for fault in summary.faults)


def test_a_server_that_goes_on_after_a_failed_sync_is_noticed(tmp_path, monkeypatch):
    def careless(writer: _Writer) -> None:
        try:
            writer.connection.execute("COMMIT")
        except Exception:
            writer.connection.execute("ROLLBACK") if writer.connection.in_transaction else None

    monkeypatch.setattr(_Writer, "commit", careless)
    sweep = faults.Sweep(tmp_path, 1)
    sweep.inject(faults.FAULTS[0], 3)
    assert any("the server went on" in fault for fault in sweep.faults)
    assert any("acknowledged but lost" in fault for fault in sweep.faults)


def test_a_bulk_that_is_not_one_transaction_is_noticed(tmp_path):
    """Its halves are committed apart; the process dies between them."""
    host = Host(tmp_path).open()
    writer, ledger = Writer("w", 1), Ledger()

    async def work() -> None:
        await host.work([writer], [ledger], 12)
        bulk = writer._bulk_create("torn")
        ledger.sent(bulk)
        half = {"tasks": bulk.body["tasks"][: len(bulk.body["tasks"]) // 2]}
        assert (await host.ask("POST", "/v1/tasks/bulk", half)).status == 201

    asyncio.run(work())
    try:
        checker = Checker(tmp_path / FILE)
        assert checker.look_into(host.db, whole=True) == []
        assert judge(ledger.operations, checker.found).torn == ["torn"]
    finally:
        host.close()


def test_a_volatile_disk_needs_no_real_one(tmp_path):
    """What it calls synced is what it says, whatever the operating system has done so far."""
    disk = VolatileDisk(lambda what: None)
    host = Host(tmp_path, vfs=disk.name).open()
    left = tmp_path / "left"
    left.mkdir()
    disk.lose_power(Random(1), "none", left)
    host.close()
    assert not (left / "taskade.db-shm").exists()
    again = Host(left, key=host.key).open()
    assert again.key == host.key  # it has had its first start
    again.close()
