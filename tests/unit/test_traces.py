"""W3C Trace Context: what a traceparent has to look like, and which trace a request belongs to."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from taskade_server.http.observe import traces
from taskade_server.http.observe.traces import Parent
from taskade_server.http.wire.request import Request
from taskade_server.kit import ids

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def request(*traceparents: str) -> Request:
    headers = [(b"host", b"x"), *((b"traceparent", value.encode("latin-1")) for value in traceparents)]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers})


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", True),
        (f"fe-{TRACE}-{SPAN}-01-", True),
    ],
)
def test_sound_ones(value, sampled):
    assert traces.parent_of(request(value)) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-011",
        f"01-{TRACE}-{SPAN}-01x",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.replace('f', 'F')}-01",
        f"00-{TRACE}-{SPAN}-0G",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u00b2-{SPAN}-01",
    ],
)
def test_unsound_ones_begin_a_new_trace(value):
    assert traces.parent_of(request(value)) is None


def test_two_are_as_good_as_none():
    assert traces.parent_of(request(f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01")) is None


def test_a_trace_that_begins_here_has_the_number_of_its_request():
    asked = request()
    trace_id = traces.own_trace_id(asked)
    assert len(trace_id) == 32
    assert ids.encode(int(trace_id, 16)) == asked.request_id.removeprefix("req_")
    assert trace_id[12] == "7"  # a UUID of version 7


def test_a_collector_that_answers_without_end_costs_nothing():
    """Its head says that the batch was taken; what comes behind it is not read."""
    sent: list[int] = []

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while len(sent) < 10_000:
                    self.wfile.write(b"x" * 65_536)
                    sent.append(1)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        session = traces._session()
        answer = session.post(f"http://127.0.0.1:{server.server_port}/v1/traces", data=b"x", timeout=120)
        assert (answer.status_code, answer.content) == (200, b"")
    finally:
        server.shutdown()
        server.server_close()
    assert len(sent) < 1_000, "the connection was closed"
