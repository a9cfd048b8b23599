"""What is noted of each request once it is answered: numbers for the metrics, a log line, a span.

Why plain lists instead of the libraries' own counters and loggers, and lines that are made later: reading a task costs
some twenty microseconds in all, and this is added to every one of them.
"""

import asyncio
import logging
import re
import time
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Final
from urllib.parse import unquote

import msgspec

from taskade_server.http.observe import metrics, traces
from taskade_server.http.observe.metrics import Folder, Numbers, Source
from taskade_server.http.wire.request import Request, decoded_query
from taskade_server.kit import logs
from taskade_server.kit.background import keep_on
from taskade_server.kit.logs import Sink, encode_json, printable, redact, stamp

logger: Final = logging.getLogger("taskade")
PUBLISH_SECONDS: Final = 1.0
MAX_PATH: Final = 1024
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})
# Asked every few seconds by machines: worth a line or a span only when they fail.
PROBES: Final = frozenset({"/health", "/ready", "/metrics"})
_FROM_STATUS: Final = {"all": 0, "errors": 400, "off": 1000}
_LEVEL_FROM_STATUS: Final = {"debug": 0, "info": 0, "warning": 400, "error": 500, "critical": 1000}
_SECRET_NAME: Final = re.compile(r"ticket|token|secret|passw|pwd|key|code|signature|auth|credential|session|jwt", re.I)


class Observer:
    """Notes every exchange of one process. All of it runs on the event loop.

    `sources` have further numbers, and are asked at each scrape.
    """

    def __init__(
        self,
        *,
        log_format: str = "json",
        log_level: str = "info",
        log_requests: str = "all",
        sources: Iterable[Source] = (),
        spans: traces.Spans | None = None,
        folder: Folder | None = None,
        sink: Sink = logs.SINK,
    ) -> None:
        self.in_flight = 0
        self.sources = [*sources, *([metrics.of_stats(spans.stats)] if spans is not None else [])]
        self.folder = folder
        self._spans = spans
        self._sink = sink
        self._log_from = max(_FROM_STATUS[log_requests], _LEVEL_FROM_STATUS[log_level])
        self._line = _JsonLine if log_format == "json" else _TextLine
        # By route, method and status: how many, and the route's durations, which end in their sum and the bytes sent.
        self._counts: dict[tuple[str, str, int], tuple[list[int], list[float]]] = {}
        self._routes: dict[str, list[float]] = {}
        self._publisher: asyncio.Task[None] | None = None

    # -- once per exchange

    def started(self) -> None:
        """An exchange begins; `finished` ends it."""
        self.in_flight += 1

    def finished(
        self, request: Request, operation: str, status: int, seconds: float, sent: int, key_id: str | None = None
    ) -> None:
        """An exchange has ended: its answer is sent, or its client gone. `operation` is "" where there is none.

        `sent` is how many bytes the body had, `key_id` the API key that was used, if any.
        """
        self.in_flight -= 1
        found = self._counts.get((operation, request.method, status))
        if found is None:
            found = self._series(operation, request.method, status)
        count, durations = found
        count[0] += 1
        durations[bisect_left(metrics.BOUNDS, seconds)] += 1
        durations[-2] += seconds
        durations[-1] += sent
        spans = self._spans
        if (spans is None and status < self._log_from) or (status < 400 and operation in PROBES):
            return
        parent, query = traces.parent_of(request), request.scope["query_string"]
        if status >= self._log_from:
            trace_id = parent.trace_id if parent else traces.own_trace_id(request) if spans is not None else ""
            line = self._line(
                time.time(),
                request.request_id,
                request.method,
                request.path,
                query,
                operation,
                status,
                seconds,
                sent,
                request.client,
                key_id,
                trace_id,
            )
            self._sink.put(line, at_once=status >= 500)
        if spans is not None:
            spans.record(request, operation, shown_path(request.path, query), status, seconds, parent)

    def _series(self, operation: str, method: str, status: int) -> tuple[list[int], list[float]]:
        # The method is the client's own word: whatever it makes up counts as one.
        key = (operation, method if method in _METHODS else "other", status)
        if key not in self._counts:
            durations = self._routes.setdefault(operation, [0.0] * (len(metrics.BOUNDS) + 3))
            self._counts[key] = ([0], durations)
        return self._counts[key]

    # -- beside the requests

    def numbers(self) -> Numbers:
        """All numbers of this process at this moment."""
        numbers: Numbers = {
            ("taskade_http_requests_in_flight",): [self.in_flight],
            ("taskade_log_lines_dropped_total",): [self._sink.dropped],
            ("taskade_processes",): [1],
            **metrics.of_process(),
        }
        for (operation, method, status), (count, _) in self._counts.items():
            numbers["taskade_http_requests_total", operation or "none", method, str(status)] = [count[0]]
        for operation, durations in self._routes.items():
            route = operation or "none"
            numbers["taskade_http_request_duration_seconds", route] = durations[:-1]
            numbers["taskade_http_response_bytes_total", route] = durations[-1:]
        for source in self.sources:
            numbers |= source()
        return numbers

    def start(self) -> None:
        """Begin to write the log from a thread, and to share numbers with the other processes of this server."""
        self._sink.start()
        if self.folder is not None and self._publisher is None:
            self._publisher = asyncio.create_task(keep_on("Sharing metrics", partial(self._publish, self.folder)))

    async def _publish(self, folder: Folder) -> None:
        sound = True
        while True:
            try:
                folder.publish(self.numbers())
                sound = True
            except OSError as error:
                if sound:
                    logger.warning("Metrics of this process cannot be shared with the others: %s", error)
                sound = False
            await asyncio.sleep(PUBLISH_SECONDS)

    async def stop(self) -> None:
        """Hand over what is left: the last numbers, spans and lines."""
        if self._publisher is not None:
            self._publisher.cancel()
        if self.folder is not None:
            with suppress(OSError):
                self.folder.publish(self.numbers())
            self.folder.close()
        loop = asyncio.get_running_loop()
        if self._spans is not None:
            await loop.run_in_executor(None, self._spans.close)
        await loop.run_in_executor(None, self._sink.close)


# ---- the lines -------------------------------------------------------------------------------------------------------


def level_of(status: int) -> str:
    """A server's fault is an error, a client's a warning."""
    return "info" if status < 400 else "warning" if status < 500 else "error"


class _Line(msgspec.Struct, gc=False):
    """One request, as it came; what it may show is sorted out when it is written."""

    at: float
    request_id: str
    method: str
    path: str
    query: bytes
    route: str
    status: int
    seconds: float
    sent: int
    client: str
    key_id: str | None
    trace_id: str


class _JsonLine(_Line, gc=False):
    def render(self) -> bytes:
        return encode_json(
            _Members(
                stamp(self.at),
                level_of(self.status),
                "request",
                self.request_id,
                self.method,
                shown_path(self.path, self.query),
                self.route,
                self.status,
                int(self.seconds * 1_000_000) / 1000,
                self.sent,
                self.client,
                self.key_id,
                self.trace_id,
            )
        )


class _Members(msgspec.Struct, omit_defaults=True, gc=False):
    """A line as JSON."""

    time: str
    level: str
    message: str
    request_id: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    bytes: int
    client: str = ""
    key_id: str | None = None
    trace_id: str = ""


class _TextLine(_Line, gc=False):
    def render(self) -> bytes:
        return (
            f"{stamp(self.at)} {level_of(self.status):<8} {self.status} {self.method}"
            f" {printable(shown_path(self.path, self.query))} {self.seconds * 1000:.1f} ms {self.sent} bytes"
            f" {self.client} {self.key_id or '-'} {self.request_id}"
            f"{f' trace_id={self.trace_id}' if self.trace_id else ''}"
        ).encode("utf-8", "replace")


def shown_path(path: str, query: bytes) -> str:
    """Path and query as they may be read by others: without what looks like a secret, and not without end."""
    if query:
        show = _shown_query if len(query) <= MAX_PATH else _shown_query.__wrapped__
        path = f"{path}?{show(decoded_query(query))}"
    if "tsk_" in path:
        path = redact(path)
    return path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}..."


@lru_cache(1024)
def _shown_query(query: str) -> str:
    """The query string with the values of parameters that are named like secrets, or hold one, taken out."""
    parts = query.split("&")
    for index, part in enumerate(parts):
        name, equals, value = part.partition("=")
        if _is_secret(name) or "tsk_" in value or ("%" in value and "tsk_" in unquote(value)):
            parts[index] = f"{name}{equals}***"
    return "&".join(parts)


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(unquote(name)) is not None
