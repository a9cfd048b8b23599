"""Clients that mean harm, hundreds of one kind on one thread, and a healthy one among them that measures its waits.

Why nothing but sockets: a client library repairs or refuses exactly what is of interest here.
"""

import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

HOST: Final = "127.0.0.1"
OPEN_AT_ONCE: Final = 50
TURN_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How clients of one kind behave: what they send first, what then and how often, and whether they read.

    `greedy`: they send `then` as fast as they are let.
    """

    name: str
    first: bytes
    then: bytes = b""
    pause: float = 1.0
    reads: bool = True
    greedy: bool = False


def head(method: str, path: str, key: str, *lines: str) -> bytes:
    """The head of a request."""
    credential = [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {HOST}", *credential, *lines, "", ""]).encode()


def behaviours(key: str, large: str) -> dict[str, Behaviour]:
    """All kinds of clients, by name. `large` is the path of a long answer."""
    json = "Content-Type: application/json"
    post = head("POST", "/v1/tasks", key, json, "Content-Length: 1000000")
    chunked = head("POST", "/v1/tasks", key, json, "Transfer-Encoding: chunked")
    half = head("GET", "/v1/tasks", key)[:-2]
    found = (
        Behaviour("silence", b""),
        Behaviour("slow heads", half + b"X-Drip: ", b"a"),
        Behaviour("heads without end", half, b"X-More: " + b"a" * 4000 + b"\r\n", greedy=True),
        Behaviour("slow bodies", post, b" "),
        Behaviour("slow chunks", chunked, b"1\r\n \r\n"),
        Behaviour("tiny chunks", chunked, b"1\r\n \r\n" * 2000, greedy=True),
        Behaviour("bodies without end", chunked, b"10000\r\n" + b" " * 65536 + b"\r\n", greedy=True),
        Behaviour("slow readers", head("GET", large, key), reads=False),
        Behaviour("pipelines", head("GET", large, key) * 20, head("GET", large, key), reads=False),
        Behaviour("idle after an answer", head("GET", "/health", "")),
        Behaviour("another protocol", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        Behaviour("noise", bytes(range(256)) * 4),
    )
    return {behaviour.name: behaviour for behaviour in found}


class LoadClients:
    """So many clients of one kind, while it is entered; who is thrown out comes again.

    `statuses` counts what those that read were answered, `ended` how many connections the server closed.
    """

    def __init__(self, port: int, behaviour: Behaviour, count: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.ended = 0
        self._port = port
        self._behaviour = behaviour
        self._count = count
        self._due: dict[socket.socket, float] = {}
        self._left: dict[socket.socket, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._all_there = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._all_there.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._fill_up()
                for key, _ in self._selector.select(TURN_SECONDS):
                    self._listen(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
                self._speak()
        finally:
            for client in [*self._due]:
                self._forget(client)
            self._selector.close()

    def _fill_up(self) -> None:
        for _ in range(min(OPEN_AT_ONCE, self._count - len(self._due))):
            client = socket.socket()
            if not self._behaviour.reads:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            client.connect_ex((HOST, self._port))
            self._due[client] = 0.0
            self._left[client] = self._behaviour.first
            if self._behaviour.reads:
                self._selector.register(client, selectors.EVENT_READ)
        if len(self._due) == self._count:
            self._all_there.set()

    def _listen(self, client: socket.socket) -> None:
        try:
            said = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said.startswith(b"HTTP/1.1 ") and said[9:12] != b"100":
            self.statuses[int(said[9:12])] += 1
        if not said:
            self._forget(client)
            self.ended += 1

    def _speak(self) -> None:
        now = time.monotonic()
        for client, due in [*self._due.items()]:
            if not self._left[client]:
                if now < due or not self._behaviour.then:
                    continue
                self._left[client] = self._behaviour.then
            try:
                sent = client.send(self._left[client])
                self._left[client] = self._left[client][sent:]
                self._due[client] = now if self._behaviour.greedy else now + self._behaviour.pause
            except BlockingIOError:
                pass
            except OSError:
                if not self._behaviour.reads:  # the others hear of it
                    self._forget(client)
                    self.ended += 1

    def _forget(self, client: socket.socket) -> None:
        if self._behaviour.reads:
            self._selector.unregister(client)
        client.close()
        del self._due[client], self._left[client]


# ---- a healthy client among them -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Waits:
    """How long a healthy client waited (ms), and the statuses it was answered with."""

    waits: list[float]
    statuses: Counter[int]
    unexcused: int

    def at(self, share: float) -> float:
        """The wait that so large a share of all stayed below."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def measured(port: int, requests: list[bytes], seconds: float, *, least: int = 100, pause: float = 0.01) -> Waits:
    """Make these requests in turn, each on a connection of its own, for so long and at least so often."""
    found = Waits([], Counter(), 0)
    until, latest = time.monotonic() + seconds, time.monotonic() + 20 * seconds
    number = 0
    while (number < least or time.monotonic() < until) and time.monotonic() < latest:
        began = time.perf_counter()
        status, answer = ask(port, requests[number % len(requests)])
        found.waits.append((time.perf_counter() - began) * 1000)
        found.statuses[status] += 1
        if status >= 500 and (status != 503 or b"\r\nretry-after: " not in answer.lower()):
            found.unexcused += 1
        number += 1
        time.sleep(pause)
    return found


def ask(port: int, *parts: bytes, timeout: float = 120.0) -> tuple[int, bytes]:
    """Send these bytes and read to the end of the connection, or of the first answer. The status is 0 without one."""
    received = b""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as client:
            try:
                for part in parts:
                    client.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have been answered before all was sent
            while not _complete(received):
                more = client.recv(65536)
                if not more:
                    break
                received += more
    except OSError:
        pass
    return (int(received[9:12]) if received[9:12].isdigit() else 0), received


def _complete(received: bytes) -> bool:
    top, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in top.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return top[9:12] in (b"204", b"304")
