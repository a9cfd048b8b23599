"""The log: one line a record whatever is in it, no secrets, and a reader that stands still holds nobody up."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from taskade_server.kit import logs
from taskade_server.kit.logs import Sink

KEY = "tsk_01j9zq3v5kfg8wt2m4n6p8r0s2_5oZ3mXk8Qp2Rt7Vw9Ya4Bc6De1Fg0Hj5Kl8Mn3Pq_2f6Xk1"
PRELUDE = """
import logging, sys
from taskade_server.kit import logs
log = logging.getLogger("taskade")
logs.configure(FORM, "info")
"""


def said(program: str, form: str = "json", status: int = 0) -> list[str]:
    """The lines that a program writes to standard error."""
    text = PRELUDE.replace("FORM", repr(form)) + program
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr.decode()
    lines = done.stderr.decode().split("\n")
    assert lines.pop() == ""
    return lines


# ---- what a record looks like ----------------------------------------------------------------------------------------

RECORDS = f"""
log.info("%d of %s", 3, "seven")
log.warning("late", extra={{"request_id": "req_1", "tries": 2}})
log.error("with a member", extra={{"workspace": "ws_1"}})
logging.getLogger("elsewhere").warning("from a library")
log.debug("too much to know")
log.info("a\\nb\\x1b[31m\\x00 \\ud800 \\u2028 %s", object)
log.info("Bearer {KEY} of postgresql://ana:hush@db/x: {KEY}")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken", extra={{"request_id": "req_2"}})
import warnings
warnings.warn("old")
raise RuntimeError("nobody\\ncatches it")
"""


def test_json_records():
    records = [json.loads(line) for line in said(RECORDS, "json", 1)]
    messages = [record["message"] for record in records]
    assert messages[:4] == ["3 of seven", "late", "with a member", "from a library"]
    assert [record["level"] for record in records[:4]] == ["info", "warning", "error", "warning"]
    assert (records[1]["request_id"], records[1]["tries"]) == ("req_1", 2)
    assert records[2]["workspace"] == "ws_1"
    assert records[3]["logger"] == "elsewhere"
    assert "too much to know" not in str(records)
    assert "a\nb" in messages[4] or r"a\nb" in messages[4]
    assert list(records[0])[:3] == ["time", "level", "message"]
    assert records[6]["request_id"] == "req_2"
    assert records[6]["exception"].endswith("ZeroDivisionError: division by zero")
    assert "\n" in records[6]["exception"]
    assert records[7]["logger"] == "py.warnings"
    assert records[8]["level"] == "critical"
    assert "RuntimeError: nobody\ncatches it" in records[8]["exception"]


def test_no_secret_is_logged():
    text = "\n".join([*said(RECORDS, "json", 1), *said(RECORDS, "text", 1)])
    assert KEY.split("_")[2] not in text
    assert "hush" not in text
    assert "postgresql://ana:***@db/x" in text


def test_text_records_cannot_forge_a_line():
    lines = said(RECORDS, "text", 1)
    starts = [line for line in lines if not line.startswith("    | ")]
    assert len(starts) == 9
    assert all(line[:4].isdigit() and line[23] == "Z" for line in starts)
    assert [line for line in lines if "\x1b" in line or "\x00" in line] == []
    assert starts[1].endswith("warning  late request_id=req_1 tries=2")
    assert any(line.startswith("    | Traceback") for line in lines)


def test_the_time_is_now():
    before = time.time()
    stamp = logs.stamp(time.time())
    assert logs.stamp(int(before)).endswith(".000Z")
    assert stamp[:19] in {
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in (before, before + 1, time.time())
    }
    assert logs.stamp(1705314600.0499) == "2024-01-15T10:30:00.049Z"


# ---- how lines get out -----------------------------------------------------------------------------------------------


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            pass


def read_all(reading: int) -> list[bytes]:
    with os.fdopen(os.dup(reading), "rb") as file:
        return file.read().splitlines()


@pytest.fixture
def hasty_threads():
    """Threads take turns as often as they can, so that what must not be interrupted is."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_every_line_arrives_whole_and_in_order(pipe, hasty_threads):
    reading, writing = pipe
    sink = Sink(writing)
    sink.start()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(read_all(reading)))
    reader.start()

    def write(number: int) -> None:
        for count in range(3000):
            sink.put(b"%d %d" % (number, count))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        sink.flush()
    sink.close()
    os.close(writing)
    reader.join()
    assert sink.dropped == 0
    for number in range(3):
        mine = [line for line in found if line.startswith(b"%d " % number)]
        assert mine == [b"%d %d" % (number, count) for count in range(3000)]


def test_lines_arrive_without_being_asked_for(pipe):
    reading, writing = pipe
    sink = Sink(writing)
    sink.start()
    for line in (b"one", b"two"):
        sink.put(line)
        assert os.read(reading, 100) == line + b"\n"
    sink.close()


def test_a_reader_that_stands_still_stops_nobody(pipe, monkeypatch):
    reading, writing = pipe
    sink = Sink(writing)
    sink.start()
    line = b"x" * 99
    for _ in range(2 * logs.MAX_LINES):
        sink.put(line)
    assert sink.dropped > 0
    sink.close()  # gives up in the end
    monkeypatch.setattr(logs, "CLOSE_SECONDS", 600.0)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(read_all(reading)))
    reader.start()
    sink.close()
    os.close(writing)
    reader.join()
    assert set(found) == {line}
    assert len(found) + sink.dropped == 2 * logs.MAX_LINES


def test_processes_that_share_a_pipe_leave_each_others_lines_whole(pipe):
    reading, writing = pipe
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(read_all(reading)))
    program = "import sys; from taskade_server.kit import logs; from taskade_server.kit.logs import Sink\n"
    program += "logs.CLOSE_SECONDS = 600; sink = Sink(int(sys.argv[1])); sink.start()\n"
    program += "for n in range(5000): sink.put(b'%s %d' % (sys.argv[2].encode() * 200, n))\nsink.close()"
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(writing), letter], pass_fds=[writing]) for letter in "ab"
    ]
    os.close(writing)
    time.sleep(1)  # the pipe is full by now
    reader.start()
    assert [other.wait(300) for other in others] == [0, 0]
    reader.join()
    assert sorted(found) == sorted(letter * 200 + b" %d" % number for letter in (b"a", b"b") for number in range(5000))


def test_lines_are_kept_together():
    lines = [b"x" * length for length in (1, 3000, 1090, 5000, 0, 10_000, 4095, 4096, 4097, 2)]
    data = b"\n".join([*lines, b""])
    pieces = list(logs._pieces(data))
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in pieces)
    assert list(logs._pieces(b"")) == []


def test_a_log_that_is_gone_stops_nobody(pipe):
    reading, writing = pipe
    os.close(reading)
    sink = Sink(writing)
    sink.put(b"nobody")
    sink.start()
    sink.put(b"reads")
    sink.close()
    assert sink.dropped == 2


def test_what_waits_is_written_at_the_end_of_the_process():
    program = "logs.SINK.start()\nfor n in range(1000): logs.SINK.put(b'%d' % n)\nlog.error('last')\nsys.exit(3)"
    lines = said(program, "json", 3)
    assert lines[:1000] == [str(number) for number in range(1000)]
    assert json.loads(lines[1000])["message"] == "last"


@pytest.mark.parametrize("ending", ["STOP", "RELOAD"])
def test_the_last_lines_are_read_although_the_process_leaves_at_once(ending):
    script = (
        "import os, socket; from taskade_server.serving import process, sockets; from taskade_server.kit import logs\n"
        "if sockets.INHERIT in os.environ: os.write(2, b'the next one\\n'); os._exit(0)\n"
        "logs.SINK.start(); logs.SINK.put(b'last words');"
        f" process.leave(process.Ending.{ending}, socket.socket())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=300)
    assert done.stderr == b"last words\n" + (b"the next one\n" if ending == "RELOAD" else b"")
