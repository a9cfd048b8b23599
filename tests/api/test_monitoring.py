"""What an operator sees of a running server: metrics, log lines and traces, each telling of the same requests.

Why whole servers: who counts is one thing, that nothing is counted twice, lost between processes or written with a
secret in it shows only from outside.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from taskade_server.http.observe.metrics import METRICS
from taskade_server.kit import ids

from tests.api.asking import create, problem
from tests.support.collector import Collector
from tests.support.processes import free_port
from tests.support.server import Server

Numbers = dict[tuple[str, ...], float]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def scrape(client: httpx2.Client, **headers: str) -> Numbers:
    """All samples by name and label values (in the order of the labels' names)."""
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = (sample for family in text_string_to_metric_families(response.text) for sample in family.samples)
    return {(sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value for sample in samples}


def with_database(client: httpx2.Client) -> str:
    """The text of the metrics, if the database has answered in time; else an empty one."""
    text: str = client.get("/metrics").text
    return text if "\ntaskade_database_up 1.0\n" in text else ""


def until(check: Callable[[], Any], what: str) -> Any:
    """Ask again until the answer is true."""
    for _ in range(1800):
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"in vain: {what}")


def requests(numbers: Numbers, route: str, method: str = "GET", status: int = 200) -> float:
    return numbers.get(("taskade_http_requests_total", method, route, str(status)), 0.0)


def lines(server: Server) -> list[Any]:
    """The records in a server's log."""
    return [json.loads(line) for line in server.log.read_text().split("\n") if line.startswith("{")]


def line_of(server: Server, response: httpx2.Response) -> Any:
    """The log line of a request, which is written a moment later."""
    wanted = response.headers["x-request-id"]
    return until(
        lambda: next((line for line in lines(server) if line.get("request_id") == wanted), None),
        "the line of a request",
    )


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_requests_are_counted(api):
    before = scrape(api)
    task = create(api, "tasks", name="Counted")["id"]
    for _ in range(3):
        assert api.get(f"/v1/tasks/{task}").status_code == 200
    assert api.head(f"/v1/tasks/{task}").status_code == 200
    assert api.get("/v1/tasks/nowhere").status_code == 404
    assert api.get("/v1/nowhere").status_code == 404
    after = scrape(api)

    def more(*key: Any) -> float:
        return requests(after, *key) - requests(before, *key)

    assert more("tasks.create", "POST", 201) == 1
    assert more("tasks.get") == 3
    assert more("tasks.get", "HEAD") == 1
    assert more("tasks.get", "GET", 404) == 1
    assert more("none", "GET", 404) == 1
    assert requests(after, "/metrics") >= 1
    name = "taskade_http_request_duration_seconds"
    assert after[f"{name}_count", "tasks.get"] - before.get((f"{name}_count", "tasks.get"), 0) == 5
    assert after[f"{name}_bucket", "+Inf", "tasks.get"] == after[f"{name}_count", "tasks.get"]
    assert after[f"{name}_sum", "tasks.get"] > before.get((f"{name}_sum", "tasks.get"), 0)
    assert after["taskade_http_response_bytes_total", "tasks.get"] > 500
    assert after["taskade_http_requests_in_flight",] == 1  # the scrape itself


def test_the_database_is_told_of(api, database):

    def answered() -> Numbers | None:
        numbers = scrape(api)
        return numbers if numbers["taskade_database_up",] else None

    before = until(answered, "an answer of the database")
    for number in range(3):
        create(api, "tasks", name=f"Task {number}")
    after = until(answered, "an answer of the database")
    assert after["taskade_events_total",] - before["taskade_events_total",] >= 3
    assert after["taskade_database_up",] == 1
    if database == "sqlite":
        assert after["taskade_sqlite_commits_total",] - before["taskade_sqlite_commits_total",] >= 3
        assert after["taskade_sqlite_units_total",] - before["taskade_sqlite_units_total",] >= 3
        assert after["taskade_sqlite_commit_seconds_total",] > before["taskade_sqlite_commit_seconds_total",]
        assert after["taskade_sqlite_wal_pages",] > 0
    else:
        assert after["taskade_postgresql_pool_size", "primary"] == 8
        assert after["taskade_postgresql_connects_total", "primary"] >= 1
        assert after["taskade_postgresql_pool_in_use", "primary"] <= 8


def test_the_process_is_told_of(api, database):
    numbers = scrape(api)
    assert numbers["process_cpu_seconds_total",] > 0
    assert numbers["process_resident_memory_bytes",] > 10_000_000
    assert 5 < numbers["process_open_fds",] < numbers["process_max_fds",]
    assert numbers["taskade_processes",] == 1
    (build,) = [key for key in numbers if key[0] == "taskade_build_info"]
    assert build[1] == database


def test_what_is_declared_is_served(start_server, database):
    """The guide's table is compared with the declarations; here these are compared with a server that has it all."""
    server = start_server(environment={"TASKADE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"})
    with server.client() as client:
        client.get("/v1/projects")
        # The database is asked for two seconds, which a busy machine may need more of.
        text = until(lambda: with_database(client), "an answer of the database")
    served = [re.fullmatch(r"# TYPE (\S+) (\S+)", line) for line in text.split("\n")]
    other = "postgresql" if database == "sqlite" else "sqlite"
    elsewhere = {metric.name for metric in METRICS if metric.name.startswith(f"taskade_{other}_")}
    elsewhere |= {"taskade_limiter_shared"}  # it needs a Valkey
    assert [(match[1], match[2]) for match in served if match] == [
        (metric.name, metric.kind) for metric in METRICS if metric.name not in elsewhere
    ]


def test_without_a_token_metrics_are_for_this_machine(api):
    for header in ("X-Forwarded-For", "Forwarded", "Origin", "Sec-Fetch-Site"):
        problem(api.get("/metrics", headers={header: "x"}), 403, "forbidden")
    problem(api.post("/metrics"), 405)


def test_with_a_token_metrics_are_for_who_knows_it(start_server, database):
    if database == "postgresql":
        pytest.skip("the same code on both")
    token = "0123456789abcdef"
    server = start_server(environment={"TASKADE_METRICS_TOKEN": token})
    with server.client("") as client:
        answer = client.get("/metrics")
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        problem(client.get("/metrics", headers={"Authorization": f"Bearer {server.key}"}), 401)
        assert scrape(client, Authorization=f"Bearer {token}", X_Forwarded_For="192.0.2.1")
        assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    server.stop()
    assert token not in server.log.read_text()


@pytest.fixture
def several(start_server, database) -> Server:
    if database == "sqlite":
        pytest.skip("SQLite has one process")
    server: Server = start_server("--workers", "2")
    return server


def workers(server: Server) -> list[int]:
    found = [re.fullmatch(r"Worker (\d+) starts\.", line["message"]) for line in lines(server)]
    return [int(match[1]) for match in found if match]


def test_a_scrape_tells_of_all_processes(several):
    def fresh() -> httpx2.Client:
        """A connection of its own, which may reach any of the processes."""
        client: httpx2.Client = several.client()
        return client

    answers = 0
    by_process: set[float] = set()
    for _ in range(40):
        with fresh() as client:
            assert client.get("/v1/projects").status_code == 200
            answers += 1
            by_process.add(scrape(client)["process_start_time_seconds",])
    with fresh() as client:
        until(lambda: requests(scrape(client), "projects.list") == answers, "the sum of all processes")
        numbers = scrape(client)
    assert numbers["taskade_processes",] == 2
    assert numbers["taskade_postgresql_pool_size", "primary"] == 16

    first, _ = workers(several)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(workers(several)) == 3, "a worker in the place of the dead one")
    shown = 0.0
    for _ in range(60):
        with fresh() as client:
            count = requests(scrape(client), "projects.list")
        assert count >= shown, "a counter fell"
        shown = count
    assert shown == answers
    with fresh() as client:
        until(lambda: scrape(client)["taskade_processes",] == 2, "two processes again")


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_a_line_for_each_request(server, api):
    response = api.get("/v1/projects?limit=5&sort=-name")
    found = line_of(server, response)
    key_id = "key_" + server.key.split("_")[1]
    assert found["message"] == "request"
    assert (found["method"], found["path"], found["route"]) == (
        "GET",
        "/v1/projects?limit=5&sort=-name",
        "projects.list",
    )
    assert (found["status"], found["level"], found["client"]) == (200, "info", "127.0.0.1")
    assert found["key_id"] == key_id
    assert found["bytes"] == int(response.headers["content-length"])
    assert 0 < found["ms"] < 60_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])


def test_refusals_are_logged_too(server, api):
    found = line_of(server, api.get("/v1/tasks/task_x?fields=nonsense"))
    assert (found["status"], found["level"]) in {(400, "warning"), (404, "warning")}
    stranger = httpx2.Client(
        base_url=server.url, headers={"Authorization": "Bearer tsk_wrong"}, trust_env=False, timeout=120
    )
    with closing(stranger):
        found = line_of(server, stranger.get("/v1/tasks"))
    assert found["status"] == 401
    assert "key_id" not in found
    twice = api.get("/v1/tasks", headers=[("content-type", "a"), ("content-type", "b")])
    assert (twice.status_code, line_of(server, twice)["status"]) == (400, 400)


def test_probes_leave_no_lines(server, api):
    asked = {api.get(path).headers["x-request-id"] for path in ("/health", "/ready", "/metrics")}
    line_of(server, api.get("/v1/projects"))
    assert not [line for line in lines(server) if line.get("request_id") in asked]


def test_no_secret_and_no_forged_line_in_the_log(server, api):
    secret = server.key.split("_")[2]
    for path in (f"/v1/tasks?q={server.key}", f"/v1/tasks/{server.key}", "/v1/tasks?access_token=hush-hush"):
        line_of(server, api.get(path))
    forged = api.get("/v1/tasks/x%0A%7B%22message%22%3A%22forged%22%7D%0D%1B%5B2J")
    assert "forged" in line_of(server, forged)["path"]
    assert not [line for line in lines(server) if line["message"] == "forged"]
    text = "".join(line for line in server.log.read_text().split("\n") if line.startswith("{"))
    assert secret not in text
    assert "hush-hush" not in text
    assert "\x1b" not in text
    assert "Bearer" not in text


def test_lines_for_people_and_only_of_errors(start_server, database):
    if database == "postgresql":
        pytest.skip("the same code on both")
    server = start_server(environment={"TASKADE_LOG_FORMAT": "text", "TASKADE_LOG_REQUESTS": "errors"})
    with server.client() as client:
        fine = client.get("/v1/projects").headers["x-request-id"]
        wrong = client.get("/v1/tasks/x%0Ay").headers["x-request-id"]
    server.stop()  # what waits is written first
    text = server.log.read_text()
    assert fine not in text
    (line,) = [line for line in text.split("\n") if wrong in line]
    assert re.match(r"\S+Z warning  404 GET /v1/tasks/x\\ny \d+\.\d ms \d+ bytes 127\.0\.0\.1 key_\S+ req_\S+$", line)


# ---- traces ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector(free_port()).start()
    yield made
    made.stop()


@pytest.fixture
def traced(start_server, database, collector) -> Server:
    if database == "postgresql":
        pytest.skip("the same code on both")
    environment = {
        "TASKADE_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
    }
    server: Server = start_server(environment=environment)
    return server


def test_a_span_for_each_request(traced, collector):
    with traced.client() as client:
        project = create(client, "projects", name="Traced")["id"]
        response = client.get(f"/v1/projects/{project}?fields=id")
        span = collector.span(response.headers["x-request-id"])
        missing = collector.span(client.get("/nowhere").headers["x-request-id"])
    assert collector.paths == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "taskade"
    assert collector.resources[0]["deployment.environment.name"] == "tests"
    assert span["name"] == "GET /v1/projects/{id}"
    assert span["kind"] == "SPAN_KIND_SERVER"
    assert span["parent_id"] == ""
    assert 0 < span["seconds"] < 60
    assert span["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/v1/projects/{id}",
        "url.path": f"/v1/projects/{project}",
        "url.query": "fields=id",
        "client.address": "127.0.0.1",
        "taskade.operation": "projects.get",
        "taskade.request_id": response.headers["x-request-id"],
    }
    number = int(span["trace_id"], 16)
    assert ids.encode(number) == response.headers["x-request-id"].removeprefix("req_")
    assert line_of(traced, response)["trace_id"] == span["trace_id"]
    assert missing["name"] == "GET"
    assert missing["trace_id"] != span["trace_id"]


def test_a_span_below_the_callers(traced, collector):
    with traced.client() as client:
        sent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
        response = client.get("/v1/projects", headers=sent)
        span = collector.span(response.headers["x-request-id"])
        assert (span["trace_id"], span["parent_id"]) == (TRACE, SPAN)
        assert span["traceState"] == "vendor=1"
        assert line_of(traced, response)["trace_id"] == TRACE
        unsampled = client.get("/v1/projects", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert line_of(traced, unsampled)["trace_id"] == TRACE
        broken = client.get("/v1/projects", headers={"traceparent": f"00-{TRACE}-{'0' * 16}-01"})
        span = collector.span(broken.headers["x-request-id"])
        assert span["trace_id"] != TRACE
        assert span["parent_id"] == ""
    assert len(collector) == 2  # what the caller does not record is not recorded here


def test_a_collector_that_is_away_costs_one_line(traced, collector):
    def warnings() -> list[str]:
        return [line["message"] for line in lines(traced) if line["message"].startswith("Traces ")]

    with traced.client() as client:
        collector.span(client.get("/v1/projects").headers["x-request-id"])
        collector.stop()
        for _ in range(3):
            response = client.get("/v1/projects")
            assert response.status_code == 200
            until(lambda: scrape(client)["taskade_spans_failed_total",] > 0, "a span that cannot be sent")
            time.sleep(0.2)
        until(warnings, "word that it is away")
        assert len(warnings()) == 1
        assert collector.url in warnings()[0]
        collector.start()
        collector.span(client.get("/v1/projects").headers["x-request-id"])
        until(lambda: len(warnings()) == 2, "word that traces are sent again")
        assert scrape(client)["taskade_spans_sent_total",] >= 2
        collector.stop()
        client.get("/v1/projects")
    assert traced.stop() == 0
    assert not [line for line in lines(traced) if line.get("logger", "").startswith("opentelemetry")]
