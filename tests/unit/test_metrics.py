"""The numbers of several processes: their sum is exact, never falls, and outlives who counted."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from taskade_server.http.observe import metrics
from taskade_server.http.observe.metrics import Folder
from taskade_server.http.wire.request import Request
from taskade_server.kit.errors import Forbidden, Problem, Unauthenticated

REQUESTS = ("taskade_http_requests_total", "tasks.list", "GET", "200")
DURATIONS = ("taskade_http_request_duration_seconds", "tasks.list")
QUEUE = ("taskade_sqlite_writer_queue",)
START = ("process_start_time_seconds",)
SHARED = ("taskade_limiter_shared",)


def numbers(count: float) -> metrics.Numbers:
    buckets = [0.0] * (len(metrics.BOUNDS) + 2)
    buckets[0] = buckets[-1] = count
    return {REQUESTS: [count], DURATIONS: buckets, QUEUE: [count], START: [count], SHARED: [count]}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], Folder]]:
    """Makes processes, in a manner of speaking: what a process has of the folder that it shares with others."""
    made: list[Folder] = []

    def make() -> Folder:
        made.append(Folder(tmp_path))
        return made[-1]

    yield make
    for folder in made:
        folder.close()


def test_the_sum_of_what_can_be_added(process):
    one, two = process(), process()
    one.publish(numbers(3))
    two.publish(numbers(4))
    for folder in (one, two):
        found = folder.collect()
        assert found[REQUESTS] == [7]
        assert (found[DURATIONS][0], found[DURATIONS][-1]) == (7, 7)
        assert found[QUEUE] == [7]
        assert found[START] == [4]
        assert found[SHARED] == [3]


def _count(path: str, ready: "multiprocessing.synchronize.Event") -> None:
    folder = Folder(Path(path))
    folder.publish(numbers(5))
    ready.set()
    signal.pause()


def test_what_a_killed_process_counted_is_kept(process, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    folder = process()
    folder.publish(numbers(1))
    for round_ in range(1, 4):
        ready = spawn.Event()
        other = spawn.Process(target=_count, args=(str(tmp_path), ready), daemon=True)
        other.start()
        assert ready.wait(180)
        alive = folder.collect()
        assert alive[REQUESTS] == [1 + 5 * round_]
        assert alive[QUEUE] == [6]
        other.kill()
        other.join()
        dead = folder.collect()
        assert dead[REQUESTS] == [1 + 5 * round_]
        assert dead[DURATIONS][-1] == 1 + 5 * round_
        assert dead[QUEUE] == [1]
        # Nothing is left of it but its share.
        assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", "", ".alive", ".numbers"]


def test_scrapes_at_the_same_time_agree(process):
    for _ in range(20):
        ended = process()
        ended.publish(numbers(1))
        ended.close()
    folders = [process() for _ in range(4)]
    for folder in folders:
        folder.publish(numbers(1))
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda one=one: found.append(one.collect()[REQUESTS])) for one in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[24]] * 4


def test_a_process_of_another_version(process):
    folder, other = process(), process()
    folder.publish(numbers(1))
    other.publish({**numbers(1), ("taskade_of_tomorrow_total",): [5], DURATIONS: [1, 2]})
    found = folder.collect()
    assert found[REQUESTS] == [2]
    assert len(found[DURATIONS]) == len(metrics.BOUNDS) + 2
    assert ("taskade_of_tomorrow_total",) not in found
    metrics.text_of(found)


def test_the_text_is_what_prometheus_reads():
    odd = ("taskade_http_requests_total", 'a"b\\c\nd', "GET", "200")
    text = metrics.text_of({**numbers(2), odd: [1], **metrics.of_process()})
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["taskade_http_requests"].type == "counter"
    assert families["taskade_http_request_duration_seconds"].type == "histogram"
    assert families["taskade_sqlite_writer_queue"].type == "gauge"
    assert {sample.labels["route"] for sample in families["taskade_http_requests"].samples} == {odd[1], "tasks.list"}
    if os.path.exists("/proc/self/stat"):
        assert families["process_resident_memory_bytes"].samples[0].value > 1_000_000
        assert families["process_open_fds"].samples[0].value > 2


def test_every_metric_is_declared_soundly():
    for metric in metrics.METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.help.endswith("."), metric
        assert metric.combine == "sum" or metric.kind == "gauge", metric


# ---- who may read them -----------------------------------------------------------------------------------------------


def reader(address: str | None, **headers: str) -> Request:
    scope = {
        "type": "http", "method": "GET", "path": "/metrics", "query_string": b"",
        "client": (address, 5000) if address is not None else None,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    return Request(scope)


def refusal(request: Request, token: str | None) -> type[Problem] | None:
    try:
        metrics.check_reader(request, token)
    except Problem as problem:
        return type(problem)
    return None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_programs_on_the_same_machine_may_read(address):
    assert refusal(reader(address, host="localhost", user_agent="Prometheus"), None) is None


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "", "here", None])
def test_others_may_not(address):
    assert refusal(reader(address), None) is Forbidden


@pytest.mark.parametrize(
    "header", ["x_forwarded_for", "forwarded", "x_real_ip", "via", "origin", "referer", "sec_fetch_site"]
)
def test_who_speaks_for_others_may_not(header):
    assert refusal(reader("127.0.0.1", **{header: "x"}), None) is Forbidden


def test_with_a_token_whoever_knows_it():
    token = "a-token-of-some-length"
    assert refusal(reader("192.0.2.1", authorization=f"Bearer {token}"), token) is None
    assert refusal(reader("192.0.2.1", authorization=f"Bearer {token}", x_forwarded_for="x"), token) is None
    for wrong in (f"Bearer {token}x", f"Bearer {token[:-1]}", token, "Bearer ", "Bearer \u00e9", "Basic x"):
        assert refusal(reader("127.0.0.1", authorization=wrong), token) is Unauthenticated
    assert refusal(reader("127.0.0.1"), token) is Unauthenticated
