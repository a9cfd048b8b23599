"""W3C Trace Context, and a span for each request to whatever collector the operator names, over OTLP.

Why the trace id is the request's own number where the caller sent none: who knows a request id, from an error, an event
or a log line, can look its trace up, and nothing has to be remembered in between.
"""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from taskade_server import __version__
from taskade_server.http.wire.request import Request
from taskade_server.kit import ids
from taskade_server.kit.defaults import TRACE_ENDPOINTS

logger: Final = logging.getLogger("taskade")
CLOSE_SECONDS: Final = 3.0
CREDENTIALS: Final = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER"
"""Names a plug-in that makes the exporter's HTTP session, with whatever bounds it has."""

# Version 00 ends after the flags; later ones may go on behind another dash. ff is no version.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


class Parent(NamedTuple):
    """Where in a trace the caller stands: ids in lower-case hexadecimal, and whether the caller records the trace."""

    trace_id: str
    span_id: str
    sampled: bool


def parent_of(request: Request) -> Parent | None:
    """What the caller's traceparent says; None if there is none, more than one, or one that breaks the rules."""
    value = request.headers.get(b"traceparent")
    if value is None:
        return None
    found = _TRACEPARENT.fullmatch(value.decode("latin-1"))
    if found is None or (found[5] is not None and found[1] == "00"):
        return None
    if found[2].strip("0") == "" or found[3].strip("0") == "":
        return None
    if sum(name == b"traceparent" for name, _ in request.scope["headers"]) > 1:
        return None
    return Parent(found[2], found[3], bool(int(found[4], 16) & 1))


def own_trace_id(request: Request) -> str:
    """The id of the trace that begins with this request."""
    return f"{ids.number(request.request_id):032x}"


class Spans:
    """Makes a span of each finished request and sends them in batches, from a thread of its own.

    OpenTelemetry is only loaded when one of these is made. Its standard OTEL_ variables set headers, sampling and the
    name of the service; `endpoint` is the base address of a collector, None for the one that those variables name.
    """

    def __init__(self, endpoint: str | None, paths: Mapping[str, str]) -> None:
        from opentelemetry import context, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.span import TraceState

        self._paths = paths
        self._trace: Any = trace
        self._state: Any = TraceState
        self._nowhere = context.Context()
        given = [endpoint, *map(os.environ.get, TRACE_ENDPOINTS)]
        session = None if os.environ.get(CREDENTIALS) else _session()
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, session=session)
        self._exporter = _Watched(exporter, next(filter(None, given), ""))
        self._ids = _Ids()
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "taskade"}
        resource = Resource.create({**named, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, id_generator=cast(Any, self._ids), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(cast(Any, self._exporter)))
        self._tracer: Any = self._provider.get_tracer("taskade", __version__)

    def record(
        self, request: Request, operation: str, path: str, status: int, seconds: float, parent: Parent | None
    ) -> None:
        """One server span, from `seconds` ago until now; `path` with the query, as it may be shown."""
        end = time.time_ns()
        route = self._paths.get(operation)
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "http.response.status_code": status,
            "url.path": path.partition("?")[0],
            "client.address": request.client,
            "taskade.operation": operation,
            "taskade.request_id": request.request_id,
        }
        if route is not None:
            attributes["http.route"] = route
        if "?" in path:
            attributes["url.query"] = path.partition("?")[2]
        self._ids.trace_id = ids.number(request.request_id)
        context = self._nowhere if parent is None else self._below(parent, request)
        name = f"{request.method} {route}" if route is not None else request.method
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(name, context, kind, attributes, start_time=end - int(seconds * 1e9))
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end)

    def _below(self, parent: Parent, request: Request) -> Any:
        state = request.header(b"tracestate")
        known = self._trace.SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            True,
            self._trace.TraceFlags(int(parent.sampled)),
            self._state.from_header([state]) if state else None,
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(known), self._nowhere)

    def stats(self) -> dict[str, float]:
        """How many spans reached the collector, and how many it would not or could not take."""
        return {"spans_sent_total": self._exporter.sent, "spans_failed_total": self._exporter.failed}

    def close(self) -> None:
        """Send what is waiting, but do not wait long for a collector that is away."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()


def _session() -> Any:
    """An HTTP session that reads no more of an answer than its head: that says whether a batch was taken.

    The body, which may have no end, is left unread with its connection; an empty one leaves the connection usable.
    """
    from requests import PreparedRequest, Response, Session
    from requests.adapters import HTTPAdapter

    class HeadOnly(HTTPAdapter):
        def send(self, request: PreparedRequest, stream: bool = False, *rest: Any, **more: Any) -> Response:
            response = super().send(request, True, *rest, **more)
            if response.headers.get("content-length") != "0":
                response.close()
                response._content = b""
            return response

    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HeadOnly())
    return session


class _Ids:
    """Span ids are random; a trace that begins here has the number that was set for it."""

    trace_id = 0

    def generate_span_id(self) -> int:
        return random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def is_trace_id_random(self) -> bool:
        return True  # the last 62 bits of our ids are


class _Watched:
    """An exporter whose failures are counted, and told once when they begin and once when they end."""

    def __init__(self, exporter: Any, address: str) -> None:
        self._address = address
        self.sent = self.failed = 0
        self._exporter = exporter
        self._away = False
        self._stopped = False
        self._reason = ""
        # The library speaks at every attempt; what it last said becomes the reason in our one line.
        library = logging.getLogger("opentelemetry")
        library.propagate = False
        library.handlers[:] = [_Listener(self._listen)]

    def _listen(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry.exporter"):
            self._reason = self._reason or record.getMessage()

    def export(self, spans: Sequence[Any]) -> Any:
        self._reason = ""
        result = self._exporter.export(spans)
        if result.value == 0:
            self.sent += len(spans)
            if self._away:
                logger.info("Traces are sent again.")
        else:
            self.failed += len(spans)
            if not self._away:
                logger.warning("Traces cannot be sent to %s: %s", self._address, self._reason)
        self._away = result.value != 0
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True

    def shutdown(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._exporter.shutdown()


class _Listener(logging.Handler):
    def __init__(self, listen: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._listen = listen

    def emit(self, record: logging.LogRecord) -> None:
        self._listen(record)
