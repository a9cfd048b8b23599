"""The metrics: what there are, how those of several processes become one, and the page that serves them.

Why our own sharing instead of the client library's: its counters are mapped files that cost microseconds at each
increment. Here every process counts in plain lists and writes them down each second; a scrape adds the files up.
"""

import asyncio
import fcntl
import hmac
import os
import platform
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from taskade_server import __version__
from taskade_server.domain import automations, webhooks
from taskade_server.http.wire.addresses import parse
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Request
from taskade_server.kit import ids, time
from taskade_server.kit.errors import Forbidden, Unauthenticated
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import deliveries, runs

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DATABASE_SECONDS: Final = 2.0

Numbers = dict[tuple[str, ...], list[float]]
"""Values by the metric's name and its labels' values: one value, or a histogram's counts by bucket and its sum."""


class Metric(NamedTuple):
    """One metric. `combine` says how the values of several processes become one: sum, max or min."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    combine: str = "sum"


METRICS: Final = (
    Metric("taskade_http_requests_total", "counter", "Requests answered.", ("route", "method", "status")),
    Metric("taskade_http_request_duration_seconds", "histogram", "From a request's head to the end of its answer.",
           ("route",)),
    Metric("taskade_http_response_bytes_total", "counter", "Bytes of the answers' bodies as sent.", ("route",)),
    Metric("taskade_http_requests_in_flight", "gauge", "Requests under way."),
    Metric("taskade_idempotent_replays_total", "counter", "Answers repeated for an Idempotency-Key seen before."),
    Metric("taskade_limiter_refused_total", "counter", "Requests refused because a budget was spent.", ("limit",)),
    Metric("taskade_limiter_shared", "gauge", "1 while the limits are counted together with other processes, else 0.",
           (), "min"),
    Metric("taskade_cache_hits_total", "counter", "Answers taken from the response cache."),
    Metric("taskade_cache_misses_total", "counter", "Answers that the response cache did not have."),
    Metric("taskade_cache_bytes", "gauge", "Bytes held by the response cache."),
    Metric("taskade_guard_held_bytes", "gauge", "Bytes of requests and large answers in memory."),
    Metric("taskade_guard_refused_total", "counter", "Requests refused because there was no room for them."),
    Metric("taskade_guard_cut_off_total", "counter", "Answers given up because the client read them too slowly."),
    Metric("taskade_connections_max", "gauge", "Connections that may be open."),
    Metric("taskade_connections_trimmed_total", "counter", "Idle connections closed because a client had too many."),
    Metric("taskade_streams_open", "gauge", "Streams, WebSockets and long polls that are open."),
    Metric("taskade_stream_events_sent_total", "counter", "Events sent on streams and WebSockets."),
    Metric("taskade_streams_evicted_total", "counter", "Streams given up because the client did not read them."),
    Metric("taskade_database_up", "gauge", "1 if the database answered within two seconds, else 0."),
    Metric("taskade_webhook_attempts_total", "counter", "Attempts to deliver to webhooks, by what became of them.",
           ("outcome",)),
    Metric("taskade_webhook_pending", "gauge", "Deliveries to enabled webhooks that are not yet taken."),
    Metric("taskade_webhook_oldest_pending_seconds", "gauge", "How long the oldest of them has been waiting."),
    Metric("taskade_automation_runs_open", "gauge", "Runs of automations that are not over.", ("state",)),
    Metric("taskade_automation_runs_ended_total", "counter", "Runs of automations that were carried out to their end.",
           ("state",)),
    Metric("taskade_automation_runs_due", "gauge", "Runs of automations that could go on and have not yet."),
    Metric("taskade_automation_oldest_due_seconds", "gauge", "How long the first of them has been waiting."),
    Metric("taskade_reader_lag_events", "gauge", "Events that a reader of the log has not yet looked at.", ("reader",)),
    Metric("taskade_events_total", "counter", "Events in the logs of all workspaces, counted in the database."),
    Metric("taskade_sqlite_writer_queue", "gauge", "Changes that wait to be written."),
    Metric("taskade_sqlite_commits_total", "counter", "Commits, each of a group of changes."),
    Metric("taskade_sqlite_commit_seconds_total", "counter", "Time spent in commits, most of it waiting for the disk."),
    Metric("taskade_sqlite_units_total", "counter", "Changes in these groups."),
    Metric("taskade_sqlite_wal_pages", "gauge", "Pages in the write-ahead log since the last checkpoint."),
    Metric("taskade_sqlite_checkpoints_total", "counter", "Checkpoints."),
    Metric("taskade_sqlite_checkpoints_incomplete_total", "counter", "Checkpoints that a reader held up."),
    Metric("taskade_sqlite_long_reads", "gauge", "Long reads under way or waiting in the reader threads."),
    Metric("taskade_sqlite_reads_moved_total", "counter", "Reads that used up their budget and moved to a thread."),
    Metric("taskade_postgresql_pool_size", "gauge", "Connections that may be open.", ("role",)),
    Metric("taskade_postgresql_pool_in_use", "gauge", "Connections at work.", ("role",)),
    Metric("taskade_postgresql_waiting", "gauge", "Units of work under way or waiting for a connection.", ("role",)),
    Metric("taskade_postgresql_connects_total", "counter", "Connections opened.", ("role",)),
    Metric("taskade_postgresql_retries_total", "counter", "Units run again after a conflict or a lost connection.",
           ("role",)),
    Metric("taskade_log_lines_dropped_total", "counter", "Log lines dropped because nobody read standard error."),
    Metric("taskade_spans_sent_total", "counter", "Spans that the collector took."),
    Metric("taskade_spans_failed_total", "counter", "Spans that the collector did not take."),
    Metric("taskade_processes", "gauge", "Server processes behind this address."),
    Metric("taskade_build_info", "gauge", "1; the labels tell the versions.", ("version", "python", "database"), "max"),
    Metric("process_cpu_seconds_total", "counter", "CPU time of all processes."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of all processes."),
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory of all processes."),
    Metric("process_open_fds", "gauge", "Open files of all processes."),
    Metric("process_max_fds", "gauge", "Files that all processes together may open."),
    Metric("process_start_time_seconds", "gauge", "When the youngest process started.", (), "max"),
)  # fmt: skip
# Headers of proxies, and those that browsers add to what a page asks for.
_SPEAKING_FOR_OTHERS: Final = (
    b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via", b"origin", b"referer", b"sec-fetch-site",
)  # fmt: skip
BY_NAME: Final = {metric.name: metric for metric in METRICS}

_process: Final = ProcessCollector(registry=None)


Source = Callable[[], Numbers]
_COMBINE: Final[dict[str, Callable[[Iterable[float]], float]]] = {"sum": sum, "max": max, "min": min}


def of_stats(stats: Callable[[], Mapping[str, float]], *labels: str) -> Source:
    """Numbers from a part that knows nothing of metrics: by name without `taskade_`; others than METRICS are left out.

    The labels go to those metrics that have any.
    """

    def numbers() -> Numbers:
        found = ((BY_NAME.get(f"taskade_{name}"), value) for name, value in stats().items())
        return {(metric.name, *labels[: len(metric.labels)]): [value] for metric, value in found if metric is not None}

    return numbers


def of_limits(refused: Callable[[], Mapping[str, int]], shared: Callable[[], bool | None]) -> Source:
    """Numbers of the limits: refusals by limit, and whether they are shared if they should be."""

    def numbers() -> Numbers:
        found: Numbers = {("taskade_limiter_refused_total", name): [count] for name, count in refused().items()}
        together = shared()
        if together is not None:
            found[("taskade_limiter_shared",)] = [together]
        return found

    return numbers


def of_attempts(counts: Mapping[str, int]) -> Source:
    """Numbers of the attempts to deliver, by outcome; successes are told from the start, so that rates can be made."""
    return lambda: {
        ("taskade_webhook_attempts_total", outcome): [count] for outcome, count in {"succeeded": 0, **counts}.items()
    }


def of_runs(counts: Mapping[str, int]) -> Source:
    """Numbers of the runs of automations that this process has carried out to their end, by state."""
    usual = dict.fromkeys((runs.SUCCEEDED, runs.FAILED), 0)
    return lambda: {
        ("taskade_automation_runs_ended_total", state): [count] for state, count in {**usual, **counts}.items()
    }


def of_process() -> Numbers:
    """What the system says about this process; nothing where there is no /proc."""
    samples = (sample for family in _process.collect() for sample in family.samples)
    return {(sample.name,): [sample.value] for sample in samples if sample.name in BY_NAME}


def merge(parts: Iterable[Numbers]) -> Numbers:
    """The numbers of several processes as one."""
    merged: Numbers = {}
    for part in parts:
        for key, values in part.items():
            known = merged.get(key)
            if known is None:
                merged[key] = list(values)
            else:
                combine = _COMBINE[BY_NAME[key[0]].combine]
                merged[key] = [combine(pair) for pair in zip(known, values, strict=True)]
    return merged


# ---- the text --------------------------------------------------------------------------------------------------------


class _Families(Collector):
    """The numbers as the client library wants them for its text format."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Family]:
        by_name: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, *labels), values in sorted(self._numbers.items()):
            by_name.setdefault(name, []).append((tuple(labels), values))
        for metric in METRICS:
            if metric.name in by_name:
                yield _family(metric, by_name[metric.name])


def _family(metric: Metric, found: list[tuple[tuple[str, ...], list[float]]]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, (*counts, total) in found:
            buckets, so_far = [], 0.0
            for bound, count in zip([*map(str, BOUNDS), "+Inf"], counts, strict=True):
                so_far += count
                buckets.append((bound, so_far))
            histogram.add_metric(labels, buckets, total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, values in found:
        family.add_metric(labels, values[0])
    return family


def text_of(numbers: Numbers) -> str:
    """The Prometheus text format."""
    return generate_latest(_Families(numbers)).decode()


# ---- several processes -----------------------------------------------------------------------------------------------


class Folder:
    """Where the processes behind one port leave their numbers for each other.

    A process holds a lock on a file of its own as long as it lives, however it ends. What a dead one has counted is
    kept, so that no counter falls; its gauges are not. Nothing that a scrape has shown is ever taken back: who serves
    it writes its own numbers down first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = ids.new("worker")
        self._alive: IO[bytes] | None = None

    def publish(self, numbers: Numbers) -> None:
        """Write this process's numbers down."""
        if self._alive is None:
            self._alive = _locked(self._path / f"{self._name}.alive")
        os.utime(self._alive.fileno())  # whoever tidies temporary folders goes by age
        _write(self._path / f"{self._name}.numbers", numbers)

    def close(self) -> None:
        """This process counts no more."""
        if self._alive is not None:
            self._alive.close()

    def collect(self) -> Numbers:
        """The sum of all processes, those that have ended included."""
        with _locked(self._path / "lock"):
            ended = _read(self._path / "ended")
            parts = []
            for path in sorted(self._path.glob("*.numbers")):
                alive = path.with_suffix(".alive")
                lives = path.stem == self._name or _is_locked(alive)
                numbers = _read(path)  # of a dead one, then, the last that it wrote
                if lives:
                    parts.append(numbers)
                    continue
                counted = {key: values for key, values in numbers.items() if BY_NAME[key[0]].kind != "gauge"}
                ended = merge([ended, counted])
                _write(self._path / "ended", ended)
                path.unlink()
                alive.unlink(missing_ok=True)
            if ended:
                os.utime(self._path / "ended")
            return merge([ended, *parts])


def _locked(path: Path) -> IO[bytes]:
    """The file, locked until it is closed or its process ends."""
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    os.utime(file.fileno())
    return file


def _is_locked(path: Path) -> bool:
    try:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _write(path: Path, numbers: Numbers) -> None:
    """Replace the file whole: readers find the old numbers or the new ones."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.msgpack.encode([*numbers.items()]))
    fresh.replace(path)


def _read(path: Path) -> Numbers:
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[tuple[str, ...], list[float]]])
    except FileNotFoundError:
        return {}
    # While processes are replaced by those of another version, each may know metrics that the other does not.
    return {key: values for key, values in found if key[0] in BY_NAME and len(values) == _length(BY_NAME[key[0]])}


def _length(metric: Metric) -> int:
    return len(BOUNDS) + 2 if metric.kind == "histogram" else 1


# ---- the page --------------------------------------------------------------------------------------------------------


class Counting(Protocol):
    """What has the numbers of this process, and knows where those of the others are."""

    folder: Folder | None

    def numbers(self) -> Numbers: ...


def page(process: Counting, db: Database, token: str | None) -> Callable[[Request], Awaitable[Reply]]:
    """GET /metrics."""
    build = (__version__, platform.python_version(), db.dialect)

    async def metrics(request: Request) -> Reply:
        check_reader(request, token)
        found = process.numbers()
        if process.folder is not None:
            process.folder.publish(found)
            found = await asyncio.to_thread(process.folder.collect)
        found["taskade_build_info", *build] = [1]
        found |= await _of_database(db, request.claimed_caller)
        text = await asyncio.to_thread(text_of, found)
        return Reply(200, text, [(b"cache-control", b"no-store")], CONTENT_TYPE_PLAIN_0_0_4.encode())

    return metrics


async def _of_database(db: Database, caller: bytes) -> Numbers:
    """Whether the database answers, and what only it knows."""
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            return {("taskade_database_up",): [1], **await db.read(_counted, caller=caller)}
    except (StoreError, TimeoutError):
        return {("taskade_database_up",): [0]}


def _counted(tx: Tx) -> Numbers:
    row = tx.one("SELECT COALESCE(SUM(seq), 0) FROM log_heads")
    pending, oldest = deliveries.backlog(tx)
    age = 0.0 if oldest is None else max(0.0, (time.now_ms() - oldest) / 1000)
    lag = deliveries.lag(tx, webhooks.READER)
    now = time.now_ms()
    due, since = runs.backlog(tx, now)
    return {
        ("taskade_events_total",): [float(row[0]) if row else 0],
        ("taskade_webhook_pending",): [pending],
        ("taskade_webhook_oldest_pending_seconds",): [age],
        ("taskade_reader_lag_events", webhooks.READER): [lag],
        ("taskade_reader_lag_events", automations.READER): [runs.lag(tx, automations.READER)],
        **{("taskade_automation_runs_open", state): [count] for state, count in runs.open_counts(tx).items()},
        ("taskade_automation_runs_due",): [due],
        ("taskade_automation_oldest_due_seconds",): [0.0 if since is None else (now - since) / 1000],
    }


def check_reader(request: Request, token: str | None) -> None:
    """Whoever knows the token, or without one whoever is on this machine; Unauthenticated or Forbidden otherwise."""
    if token is not None:
        given = request.headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + token.encode()):
            raise Unauthenticated(
                "Send the header Authorization: Bearer <TASKADE_METRICS_TOKEN>.",
                headers={"www-authenticate": 'Bearer realm="metrics"'},
            )
        return
    if not _is_local(request):
        raise Forbidden("Without TASKADE_METRICS_TOKEN, metrics are only for programs on the server's own machine.")


def _is_local(request: Request) -> bool:
    # A proxy on this machine speaks for others, and so does a browser for the page that it shows.
    if any(name in request.headers for name in _SPEAKING_FOR_OTHERS):
        return False
    client = request.scope.get("client")
    address = parse(client[0]) if client else None
    return address is not None and address.is_loopback
