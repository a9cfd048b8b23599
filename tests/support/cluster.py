"""Several servers and background workers on one PostgreSQL and one Valkey, behind a balancer.

Why servers on ports of their own: on one machine they stand for several, of which each can end by itself.
"""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.balancer import Balancer
from tests.support.server import START_SECONDS, Server

ARGUMENTS = ("--no-background", "--drain-seconds", "1")


@dataclass
class Cluster:
    """What there is of it, for a test to kill."""

    folder: Path
    database_url: str
    valkey_url: str
    servers: list[Server] = field(default_factory=list)
    helpers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, servers: int, helpers: int) -> None:
        """The first server alone, which makes the tables, and then all others at once."""
        arguments = ("--valkey-url", self.valkey_url, *ARGUMENTS)
        self.servers = [
            Server(self.folder / f"server{number}", self.database_url, *arguments, rate_limit="1000000/minute")
            for number in range(servers)
        ]
        self.servers[0].start()
        with ThreadPoolExecutor(servers) as starters:
            list(starters.map(Server.start, self.servers[1:]))
        self.helpers = [self.helper() for _ in range(helpers)]

    def helper(self) -> "subprocess.Popen[bytes]":
        """A new `taskade worker`, at work."""
        place = self.folder / f"helper-{uuid.uuid4().hex}.log"
        with place.open("wb") as log:
            helper = subprocess.Popen(
                [sys.executable, "-m", "taskade_server", "worker", "--database-url", self.database_url],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + START_SECONDS
        while "Background work begins" not in place.read_text():
            if time.monotonic() > until or helper.poll() is not None:
                raise RuntimeError(f"a background worker did not start:\n{place.read_text()}")
            time.sleep(0.05)
        return helper

    def stop(self) -> list[int]:
        """End everything in an orderly way; the exit statuses."""
        for helper in self.helpers:
            helper.terminate()
        with ThreadPoolExecutor(len(self.servers)) as stoppers:
            statuses = list(stoppers.map(Server.stop, self.servers))
        return [*statuses, *(helper.wait(60) for helper in self.helpers)]

    def said(self) -> str:
        """What all of it has logged."""
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))


@contextmanager
def running(
    folder: Path, database_url: str, valkey_url: str, servers: int = 3, helpers: int = 2
) -> Iterator[tuple[Cluster, Balancer]]:
    """A cluster and the balancer before it; whatever is left of it at the end is killed."""
    cluster = Cluster(folder, database_url, valkey_url)
    try:
        cluster.start(servers, helpers)
        with Balancer([server.port for server in cluster.servers]) as balancer:
            yield cluster, balancer
    finally:
        for server in cluster.servers:
            server.kill()
        for helper in cluster.helpers:
            helper.kill()
            helper.wait()
