"""A collector of traces on this machine: takes what an exporter sends over OTLP, and can be away for a while.

Why a real one: whether spans arrive is decided by their encoding, not by the calls that made them.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Span = dict[str, Any]


class Collector:
    """Listens on 127.0.0.1 from `start` to `stop`, on the same port each time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.paths: set[str] = set()
        self.resources: list[dict[str, Any]] = []
        self._port = port
        self._spans: list[Span] = []
        self._more = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> "Collector":
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, path: str, message: ExportTraceServiceRequest) -> None:
        with self._more:
            self.paths.add(path)
            for resource in message.resource_spans:
                self.resources.append(_attributes(MessageToDict(resource.resource)))
                for scope in resource.scope_spans:
                    self._spans += [_readable(span) for span in scope.spans]
            self._more.notify_all()

    def span(self, request_id: str, seconds: float = 180) -> Span:
        """The span of a request, once it has arrived."""
        with self._more:
            found: list[Span] = []

            def arrived() -> bool:
                found[:] = [span for span in self._spans if span["attributes"].get("taskade.request_id") == request_id]
                return bool(found)

            assert self._more.wait_for(arrived, seconds), f"no span of {request_id} in {len(self._spans)}"
            assert len(found) == 1
            return found[0]

    def __len__(self) -> int:
        return len(self._spans)


def _readable(span: Any) -> Span:
    more = MessageToDict(span)
    return {
        **more,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        "attributes": _attributes(more),
    }


def _attributes(document: dict[str, Any]) -> dict[str, Any]:
    pairs = ((item["key"], next(iter(item["value"].items()))) for item in document.get("attributes", []))
    return {key: int(value) if kind == "intValue" else value for key, (kind, value) in pairs}
