"""Webhooks: a backlog for ten healthy endpoints, a slow one and a dead one; then how long a change takes to arrive.

Why a dead and a slow one among them: a sender that is only fast while everybody answers is not fast. The receiver is a
process of its own, whose work is counted against us: server and receiver share the machine.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, ClassVar

import msgspec
import uvloop

from benchmarks import machine, report
from benchmarks.client import Client, Failed, wait_until_up
from benchmarks.compare import say
from benchmarks.peers import Taskade
from benchmarks.report import Report
from tests.support.processes import free_port

HEALTHY = 10
FULL, QUICK = 10_000, 1_000  # events, each to all endpoints
BULK = 1_000
TRICKLE = 300
PAUSE = 0.02
SLOW_SECONDS = 2.0
PATIENCE = 900.0


# ---- the receiver ----------------------------------------------------------------------------------------------------


class _Sink(asyncio.Protocol):
    """Takes what comes and answers 200, on /slow after a while; it knows just enough of HTTP/1.1."""

    arrived: ClassVar[Counter[str]] = Counter()
    latencies: ClassVar[list[float]] = []
    began = ended = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one by its methods
        self.text = b""

    def data_received(self, data: bytes) -> None:
        self.text += data
        head, blank, body = self.text.partition(b"\r\n\r\n")
        if not blank:
            return
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(body) < length:
            return
        self.text = body[length:]
        path = head.split(b" ", 2)[1].decode()
        if path == "/figures":
            self._answer(
                msgspec.json.encode(
                    {"arrived": _Sink.arrived, "latencies": _Sink.latencies, "began": _Sink.began, "ended": _Sink.ended}
                )
            )
            return
        if path == "/reset":
            _Sink.arrived.clear()
            _Sink.latencies.clear()
            _Sink.began = 0.0
            self._answer(b"{}")
            return
        self._take(path, body[:length])

    def _take(self, path: str, body: bytes) -> None:
        now = time.time()
        _Sink.arrived[path] += 1
        if path == "/slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._answer, b"")
            return
        _Sink.began, _Sink.ended = _Sink.began or now, now
        start = body.index(b'"name":"sent at ') + 16 if b'"name":"sent at ' in body else 0
        if start:
            _Sink.latencies.append(now - float(body[start : body.index(b'"', start)]))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def _receive(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# ---- the measurement -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What came out. Times are seconds; latencies go from just before the request to the receiver."""

    deliveries: int
    seconds: float
    per_second: float
    slow: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class _Server(Taskade):
    """Ours, with receivers on this machine, and first without background work."""

    background = False

    def command(self) -> list[str]:
        return [
            *super().command(),
            "--outbound-allow",
            "127.0.0.0/8",
            "--background" if self.background else "--no-background",
        ]


def run(folder: Path, events: int) -> Report:
    """Pile the backlog up, drain it, then look how long single changes take."""
    facts = machine.facts(folder)
    sink_port, dead_port = free_port(), free_port()
    sink = subprocess.Popen([sys.executable, "-m", "benchmarks.webhooks", str(sink_port)])
    server = _Server(folder)
    try:
        server.start()
        project = _pile_up(server, sink_port, dead_port, events)
        server.stop()
        server.background = True
        receiver = Client(sink_port)
        wait_until_up(sink_port, "/reset", sink)
        say(f"Draining {events * HEALTHY:,} deliveries to {HEALTHY} healthy endpoints, beside a slow and a dead one")
        server.start()
        drained = _drain(receiver, events)
        say(f"Watching {TRICKLE} single changes arrive")
        figures = Figures(**drained, **_trickle(server, receiver, project))
        settings = {"events": events, "healthy endpoints": HEALTHY, "slow": 1, "dead": 1}
        return report.webhooks(facts, {"Taskade server": server.version()}, settings, asdict(figures))
    finally:
        server.stop()
        sink.kill()
        sink.wait()


def _pile_up(server: _Server, sink_port: int, dead_port: int, events: int) -> str:
    say(f"Making {HEALTHY + 2} webhooks and {events:,} events that nobody sends yet")
    client = Client(server.port, server.headers)
    project = client.call("POST", "/v1/projects", {"name": "A project"})["id"]
    urls = [f"http://127.0.0.1:{sink_port}/{number}" for number in range(HEALTHY)]
    for url in (*urls, f"http://127.0.0.1:{sink_port}/slow", f"http://127.0.0.1:{dead_port}/dead"):
        client.call("POST", "/v1/webhooks", {"url": url, "events": ["task.created"], "project_id": project})
    for start in range(0, events, BULK):
        tasks = [{"name": f"Task {number}"} for number in range(start, min(start + BULK, events))]
        client.call("POST", "/v1/tasks/bulk", {"tasks": tasks, "project_id": project})
    return str(project)


def _drain(receiver: Client, events: int) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    while True:
        found = receiver.call("GET", "/figures", {})
        arrived = {path: count for path, count in found["arrived"].items() if path != "/slow"}
        if sum(arrived.values()) >= events * HEALTHY:
            break
        if time.monotonic() > until:
            raise Failed(f"only {sum(arrived.values()):,} of {events * HEALTHY:,} deliveries arrived")
        time.sleep(0.25)
    seconds = found["ended"] - found["began"]
    total = events * HEALTHY
    return {
        "deliveries": total,
        "seconds": seconds,
        "per_second": total / seconds,
        "slow": found["arrived"].get("/slow", 0),
    }


def _trickle(server: _Server, receiver: Client, project: str) -> dict[str, Any]:
    receiver.call("POST", "/reset", {})
    client = Client(server.port, server.headers)
    for _ in range(TRICKLE):
        client.call("POST", "/v1/tasks", {"name": f"sent at {time.time()}", "project_id": project})
        time.sleep(PAUSE)
    until = time.monotonic() + 30
    while len(found := receiver.call("GET", "/figures", {})["latencies"]) < TRICKLE * HEALTHY:
        if time.monotonic() > until:
            raise Failed(f"only {len(found):,} of {TRICKLE * HEALTHY:,} deliveries arrived")
        time.sleep(0.1)
    cuts = quantiles(found, n=100)
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000, "max_ms": max(found) * 1000}


if __name__ == "__main__":
    uvloop.run(_receive(int(sys.argv[1])))
