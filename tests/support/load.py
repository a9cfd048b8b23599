"""Clients that ask without a pause, and note every answer that they should not have been given.

Why plain connections instead of a client library: a library tries again in silence, and what is tried again in silence
is just what these tests look for.
"""

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from taskade_server.serving.process import QUIET_SECONDS

from tests.support.standstill import Standstill

DISTANCE_SECONDS = 0.03


@dataclass
class Ledger:
    """What was acknowledged, and what went wrong. Filled by many threads."""

    written: dict[str, str] = field(default_factory=dict)  # task ids by the name they were given
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)  # connections that ended without an answer


class Client:
    """One connection, made anew only when the server has said that it would close it, or did.

    Without `keep_alive` there is one for each request, and a moment between the two, as there is on a long way.
    """

    def __init__(self, url: str, key: str, *, keep_alive: bool = True) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._keep_alive = keep_alive
        if not keep_alive:
            self._headers["Connection"] = "close"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """The status, headers (names in lower case) and body of an answer. OSError or HTTPException without one."""
        try:
            if not self._keep_alive:
                self._connection.connect()
                time.sleep(DISTANCE_SECONDS)
            sent = None if body is None else json.dumps(body).encode()
            self._connection.request(method, path, sent, {**self._headers, **headers})
            answer = self._connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class Load:
    """Threads that write a task and read it back, over and over, until the end of the `with` block."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        clients: int = 4,
        fresh: int = 2,
        allowed: tuple[int, ...] = (),
        positions: bool = False,
    ) -> None:
        """`allowed` are the statuses beside success; with `positions` each read says what it must see."""
        self.ledger = Ledger()
        self._url, self._key = url, key
        self._positions = positions
        self._allowed = allowed
        self._over = threading.Event()
        self._standstill = Standstill()
        self._threads = [
            threading.Thread(target=self._work, args=(number, number < clients), daemon=True)
            for number in range(clients + fresh)
        ]

    def __enter__(self) -> "Load":
        self._standstill.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(200)
        self._standstill.__exit__()

    @property
    def in_time(self) -> bool:
        """Whether all requests came within QUIET_SECONDS of the one before, as far as this process is concerned.

        Otherwise one may meet a connection that a server which is being replaced has just closed.
        """
        return self._standstill.longest < QUIET_SECONDS / 2

    def wait_for(self, more: int, seconds: float = 180) -> None:
        """Until so many more writes were acknowledged."""
        goal, until = len(self.ledger.written) + more, time.monotonic() + seconds
        while len(self.ledger.written) < goal:
            if time.monotonic() > until:
                raise AssertionError(f"no progress: {self.ledger.statuses} {self.ledger.faults} {self.ledger.broken}")
            time.sleep(0.02)

    def _work(self, number: int, keep_alive: bool) -> None:
        count = 0
        with Client(self._url, self._key, keep_alive=keep_alive) as client:
            while not self._over.is_set():
                count += 1
                try:
                    self._write_and_read(client, f"load {number} {count}")
                except (OSError, http.client.HTTPException) as error:
                    self.ledger.broken[f"{'kept' if keep_alive else 'fresh'} connection: {error!r}"] += 1
                    time.sleep(0.05)

    def _write_and_read(self, client: Client, name: str) -> None:
        written, headers = self._ask(client, "POST", "/v1/tasks", {"name": name})
        if written is None:
            return
        self.ledger.written[name] = written["id"]
        position = f"?min_seq={headers['commit-seq']}" if self._positions else ""
        read, _ = self._ask(client, "GET", f"/v1/tasks/{written['id']}{position}")
        if read is not None and read["name"] != name:
            self.ledger.faults.append(f"{written['id']} reads {read['name']!r} instead of {name!r}")

    def _ask(self, client: Client, method: str, path: str, body: Any = None) -> tuple[Any, dict[str, str]]:
        """The document of an answer and its headers; None if it is none, which is noted."""
        status, headers, text = client.ask(method, path, body)
        self.ledger.statuses[status] += 1
        if status in (200, 201):
            return json.loads(text), headers
        if status not in self._allowed:
            self.ledger.faults.append(f"{method} {path} answered {status}: {text[:200]!r}")
        elif "retry-after" not in headers:
            self.ledger.faults.append(f"{method} {path} answered {status} without Retry-After")
        time.sleep(0.02)
        return None, headers
