"""What is noted of a request: numbers that cannot grow without end, and a log line that tells no secret."""

import json
import os
from typing import Any

import pytest
from taskade_server.http.observe import metrics
from taskade_server.http.observe.requests import Observer
from taskade_server.http.wire.request import Request
from taskade_server.kit import defaults
from taskade_server.kit.logs import Later, Sink

KEY = "tsk_01j9zq3v5kfg8wt2m4n6p8r0s2_5oZ3mXk8Qp2Rt7Vw9Ya4Bc6De1Fg0Hj5Kl8Mn3Pq_2f6Xk1"
SECRET = KEY.split("_")[2]


class Log(Sink):
    """A sink that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))
        self.lines: list[str] = []

    def put(self, line: bytes | Later, *, at_once: bool = False) -> None:
        self.lines.append((line if isinstance(line, bytes) else line.render()).decode())


def request(path: str = "/v1/tasks", query: bytes = b"", method: str = "GET", **headers: str) -> Request:
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "query_string": query, "client": ("192.0.2.7", 5000),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    return Request(scope)


def noted(
    asked: Request, status: int = 200, operation: str = "tasks.list", key_id: str | None = None, **options: Any
) -> list[str]:
    """The lines of one exchange."""
    log = Log()
    observer = Observer(sink=log, **options)
    observer.started()
    observer.finished(asked, operation, status, 0.0123456, 512, key_id)
    return log.lines


def line(asked: Request, status: int = 200, key_id: str | None = None) -> Any:
    (text,) = noted(asked, status, key_id=key_id)
    assert "\n" not in text
    return json.loads(text)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_route_method_and_status():
    observer = Observer(log_requests="off")
    for _ in range(3):
        observer.finished(request(), "tasks.list", 200, 0.001, 100)
    observer.finished(request(method="HEAD"), "tasks.list", 200, 4.0, 0)
    observer.finished(request(), "tasks.list", 404, 99.0, 50)
    observer.finished(request(), "", 404, 0.0, 10)
    numbers = observer.numbers()
    total = "taskade_http_requests_total"
    assert {key[1:]: values for key, values in numbers.items() if key[0] == total} == {
        ("tasks.list", "GET", "200"): [3],
        ("tasks.list", "HEAD", "200"): [1],
        ("tasks.list", "GET", "404"): [1],
        ("none", "GET", "404"): [1],
    }
    assert numbers["taskade_http_response_bytes_total", "tasks.list"] == [350]
    text = metrics.text_of(numbers)
    name = "taskade_http_request_duration_seconds"
    assert f'{name}_bucket{{le="0.0005",route="tasks.list"}} 0.0' in text
    assert f'{name}_bucket{{le="0.001",route="tasks.list"}} 3.0' in text
    assert f'{name}_bucket{{le="2.5",route="tasks.list"}} 3.0' in text
    assert f'{name}_bucket{{le="5.0",route="tasks.list"}} 4.0' in text
    assert f'{name}_bucket{{le="+Inf",route="tasks.list"}} 5.0' in text
    assert f'{name}_count{{route="tasks.list"}} 5.0' in text
    assert f'{name}_sum{{route="tasks.list"}} 103.003' in text


def test_clients_cannot_make_up_labels():
    observer = Observer(log_requests="off")
    for number in range(100):
        observer.finished(request(method=f"BREW{number}"), "", 405, 0.001, 0)
    assert observer.numbers()["taskade_http_requests_total", "none", "other", "405"] == [100]
    assert len(observer._counts) == 1


def test_requests_in_flight():
    observer = Observer(log_requests="off")
    observer.started()
    observer.started()
    assert observer.numbers()["taskade_http_requests_in_flight",] == [2]
    observer.finished(request(), "tasks.list", 200, 0.001, 0)
    assert observer.numbers()["taskade_http_requests_in_flight",] == [1]


def test_numbers_of_other_parts():
    stats = metrics.of_stats(lambda: {"postgresql_retries_total": 2, "sqlite_wal_pages": 7, "unheard_of": 1}, "replica")
    limits = metrics.of_limits(lambda: {"default": 4}, lambda: False)
    numbers = Observer(sources=[stats, limits]).numbers()
    assert numbers["taskade_postgresql_retries_total", "replica"] == [2]
    assert numbers["taskade_sqlite_wal_pages",] == [7]
    assert numbers["taskade_limiter_refused_total", "default"] == [4]
    assert numbers["taskade_limiter_shared",] == [0]
    assert not any("unheard_of" in key[0] for key in numbers)


# ---- the line of a request -------------------------------------------------------------------------------------------


def test_a_line_says_what_happened():
    asked = request(query=b"limit=5&status=pending")
    found = line(asked, key_id="key_1")
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "message": "request",
        "request_id": asked.request_id,
        "method": "GET",
        "path": "/v1/tasks?limit=5&status=pending",
        "route": "tasks.list",
        "status": 200,
        "ms": 12.345,
        "bytes": 512,
        "client": "192.0.2.7",
        "key_id": "key_1",
    }


def test_a_line_for_people():
    asked = request(query=b"limit=5")
    (text,) = noted(asked, log_format="text")
    assert text[23:] == f"Z info     200 GET /v1/tasks?limit=5 12.3 ms 512 bytes 192.0.2.7 - {asked.request_id}"


@pytest.mark.parametrize("path", ["/v1/tasks/a\nb", "/v1/\x1b[2J\r", "/v1/\x00\u2028\u202e", "/v1/\ud800", '/v1/"\\'])
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_path_cannot_forge_a_line(path, form):
    (text,) = noted(request(path), log_format=form)
    assert len(text.split("\n")) == 1
    assert all(character not in text for character in "\n\r\x1b\x00")
    if form == "text":
        assert text.isprintable()
    else:
        assert json.loads(text)["path"].startswith("/v1/")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (f"q={KEY}", "q=***"),
        (f"q=%20{KEY}", "q=***"),
        ("q=tsk%5F01j9zq3v5kfg8wt2m4n6p8r0s2%5Fabc", "q=***"),
        ("access_token=abc&limit=5", "access_token=***&limit=5"),
        ("limit=5&%61pi%4Bey=abc", "limit=5&%61pi%4Bey=***"),
        ("code=abc&state=xyz", "code=***&state=xyz"),
        ("client_secret=&x=1", "client_secret=***&x=1"),
        ("PASSWORD=abc", "PASSWORD=***"),
        ("filter[%24gte]=2024-01-01&name=caf%C3%A9", "filter[%24gte]=2024-01-01&name=caf%C3%A9"),
        ("bare&=&x", "bare&=&x"),
    ],
)
def test_secrets_in_a_query_string_are_not_shown(query, shown):
    assert line(request(query=query.encode()))["path"] == f"/v1/tasks?{shown}"


def test_no_header_is_shown_and_no_key_in_a_path():
    for form in defaults.LOG_FORMATS:
        asked = request(f"/v1/{KEY}/x", authorization=f"Bearer {KEY}", cookie="sid=1")
        (text,) = noted(asked, log_format=form)
        assert SECRET not in text
        assert "Bearer" not in text
        assert "cookie" not in text
        assert KEY.split("_")[1] in text  # which key it is may be known


def test_a_path_is_not_shown_without_end():
    assert len(line(request("/v1/" + "x" * 50_000))["path"]) < 1100


@pytest.mark.parametrize(
    ("wanted", "level", "logged"),
    [
        ("all", "info", [200, 304, 404, 500]),
        ("all", "debug", [200, 304, 404, 500]),
        ("all", "warning", [404, 500]),
        ("all", "error", [500]),
        ("all", "critical", []),
        ("errors", "info", [404, 500]),
        ("errors", "error", [500]),
        ("off", "info", []),
    ],
)
def test_which_requests_are_logged(wanted, level, logged):
    found = [
        status for status in (200, 304, 404, 500) if noted(request(), status, log_requests=wanted, log_level=level)
    ]
    assert found == logged


def test_levels():
    assert [line(request(), status)["level"] for status in (200, 304, 400, 429, 500, 503)] == [
        "info",
        "info",
        "warning",
        "warning",
        "error",
        "error",
    ]


def test_probes_are_logged_when_they_fail():
    for path in ("/health", "/ready", "/metrics"):
        assert noted(request(path), 200, path) == []
        assert len(noted(request(path), 503, path)) == 1


def test_the_trace_of_the_caller_is_in_the_line():
    asked = request(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert line(asked)["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert "trace_id" not in line(request(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"))
