"""Clients that mean harm: the server refuses them as documented, and everybody else hardly notices.

Why a healthy client is the measure: a server can refuse every attack and still be of no use to anybody else meanwhile.
Its waits are compared with those in peace, so that a slow machine is no failure; `-s` shows the figures.
"""

import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from taskade_server.selftest.parts import Report

from tests.faults.hostile_clients import CLIENTS, GREEDY, LARGE, Target, attack_with_clients, attack_with_requests
from tests.faults.hostile_requests import attacks
from tests.faults.load_clients import LoadClients, ask, behaviours, head
from tests.support.server import Server

KINDS = behaviours("", LARGE)
SECONDS = 1.5


def furnished(server: Server) -> Server:
    """A server with enough in it for answers of a megabyte, and queries that take a while."""
    with server.start().client(event_hooks={}) as client:
        for _ in range(3):
            tasks = [{"name": f"Task {number}", "description": "words " * 50} for number in range(1000)]
            assert client.post("/v1/tasks/bulk", json={"tasks": tasks}).status_code == 201
    return server


@pytest.fixture(scope="module")
def attacked(make_server) -> Server:
    """A server on each database."""
    return furnished(make_server())


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Iterator[Server]:
    """One on SQLite, for what no database has a part in."""
    server = Server(tmp_path_factory.mktemp("embedded") / "data")
    yield furnished(server)
    server.stop()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Server]]:
    """Starts one for this test alone."""
    started: list[Server] = []

    def one(*arguments: str) -> Server:
        started.append(Server(tmp_path / "data", "", *arguments))
        return started[-1].start()

    yield one
    for server in started:
        server.stop()


def target_of(server: Server) -> Target:
    # The other tests run at the same time, on the same processors.
    return Target(server.port, server.pid, server.key, SECONDS, patience=4)


@pytest.fixture
def report(capsys):
    """What a scene finds; its figures are shown."""
    made = Report("hostile")
    yield made
    print(*(f"{name}: {figure}" for name, figure in made.figures.items()), sep="\n")
    assert made.faults == []


def test_a_healthy_client_among_hundreds_of_slow_ones(attacked, report):
    target = target_of(attacked)
    report.figures["in peace: healthy p99 (ms)"] = round(target.calm, 1)
    attack_with_clients(
        target, "slow", [kind for kind in behaviours(target.key, LARGE).values() if not kind.greedy], CLIENTS, report
    )


def test_a_healthy_client_among_greedy_ones(embedded, report):
    target = target_of(embedded)
    attack_with_clients(
        target, "greedy", [kind for kind in behaviours(target.key, LARGE).values() if kind.greedy], GREEDY, report
    )


def test_a_healthy_client_beside_single_hostile_requests(embedded, report):
    attack_with_requests(target_of(embedded), report)


def test_each_hostile_request_is_answered_as_documented(embedded):
    wrong = {}
    for request in attacks(embedded.key):
        status, answer = ask(embedded.port, *request.parts())
        body = answer.partition(b"\r\n\r\n")[2]
        # What is no HTTP is refused below us, without a document.
        told = not body or status < 400 or json.loads(body)["status"] == status
        if status not in request.statuses or not told or (status >= 400 and len(body) > 100_000):
            wrong[request.name] = (status, answer[:300], len(body))
    assert wrong == {}
    assert ask(embedded.port, head("GET", "/v1/users/me", embedded.key))[0] == 200


@pytest.mark.parametrize("kind", ["silence", "idle after an answer"])
def test_idle_clients_take_all_connections_and_a_newcomer_gets_in(kind, start):
    """What is idle is closed to make room, long before its time is over."""
    server = start("--max-connections", "40")
    with LoadClients(server.port, KINDS[kind], 60) as group:
        time.sleep(0.5)
        assert ask(server.port, head("GET", "/v1/users/me", server.key), timeout=12)[0] == 200
        assert group.ended > 0
    assert ask(server.port, head("GET", "/v1/users/me", server.key))[0] == 200


def test_as_many_connections_as_allowed_work_and_the_next_one_waits(start):
    server = start("--max-connections", "20")
    request = head("GET", "/v1/users/me", server.key)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in range(21)]
        for client in clients:
            client.sendall(request)
        answered, _, _ = select.select(clients, [], [], 20)
        until = time.monotonic() + 60
        while len(answered) < 20 and time.monotonic() < until:
            answered, _, _ = select.select(clients, [], [], 0.1)
        assert len(answered) == 20
        waiting = next(client for client in clients if client not in answered)
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200"), "when one of the others has gone"


def test_who_reads_nothing_gets_no_further_large_answers(start):
    """The server keeps a bounded number of bytes for each caller; the others get theirs all the same."""
    server = start()
    other = server.create_key("other")
    with server.client(event_hooks={}) as client:
        for _ in range(13):
            tasks = [{"name": "x", "description": "ab" * 40_000}] * 90
            assert client.post("/v1/tasks/bulk", json={"tasks": tasks}).status_code == 201
    large = head("GET", "/v1/tasks?limit=1000", server.key)
    with LoadClients(server.port, KINDS["silence"], 1), ExitStack() as stack:
        for _ in range(12):  # of 8 MiB each; there is room for less than four
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect(("127.0.0.1", server.port))
            client.sendall(large)
        until = time.monotonic() + 60
        while (found := ask(server.port, large))[0] == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert found[0] == 503 and b"\r\nretry-after: 1\r\n" in found[1].lower()
        assert ask(server.port, head("GET", "/v1/users/me", server.key))[0] == 200, "small ones are given"
        status, answer = ask(server.port, head("GET", "/v1/tasks?limit=1000", other))
        assert status == 200 and len(answer) > 8 << 20
    until = time.monotonic() + 60
    while ask(server.port, large)[0] == 503 and time.monotonic() < until:
        time.sleep(0.05)
    assert ask(server.port, large)[0] == 200, "as soon as those have gone"


def test_one_caller_with_long_queries_does_not_keep_others_waiting(attacked):
    """Whoever asks next is answered while the first one's queries still wait for their turn."""
    other = attacked.create_key("other")
    words = [{"name": {"$contains": f"no such word {number}"}} for number in range(199)]
    body: dict[str, Any] = {"filter": {"$and": [{"$not": {"$or": words[:100]}}, {"$or": words[100:]}]}, "sort": "-name"}
    text = json.dumps(body | {"limit": 1000, "count": True}).encode()

    def long_query(key: str) -> tuple[int, bytes]:
        lines = ("Content-Type: application/json", f"Content-Length: {len(text)}")
        return ask(attacked.port, head("POST", "/v1/tasks/query", key, *lines) + text, timeout=60)

    with ThreadPoolExecutor(40) as threads:
        greedy = [threads.submit(long_query, attacked.key) for _ in range(30)]
        while not any(task.done() for task in greedy):
            time.sleep(0.001)
        mine = threads.submit(long_query, other)
        status, _ = mine.result()
        unanswered = sum(not task.done() for task in greedy)
        answers = [task.result() for task in greedy]
    assert status == 200
    assert unanswered > 0, "it was their turn in between"
    assert {status for status, _ in answers} <= {200, 503}
    assert all(b"retry-after" in answer.lower() for status, answer in answers if status == 503)


def test_times_to_receive_a_request(embedded):
    """A head and a body have 15 seconds each; who is in time is served, who is late is told."""
    post = head("POST", "/v1/tasks", embedded.key, "Content-Type: application/json", "Content-Length: 12")
    ends: dict[str, tuple[float, int]] = {}

    def play(name: str, first: bytes, then: bytes, after: float) -> None:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", embedded.port), timeout=40) as client:
            client.sendall(first)
            if then:
                time.sleep(after)
                client.sendall(then)
            said = client.recv(65536)
        ends[name] = (time.monotonic() - begun, int(said[9:12]) if said else 0)

    scenes = [
        ("a slow head", post[:20], post[20:] + b'{"name":"x"}', 12.0),
        ("a head that is late", post[:20], b"", 0.0),
        ("a slow body", post, b'{"name":"x"}', 12.0),
        ("a body that is late", post + b"{", b"", 0.0),
        ("silence", b"", b"", 0.0),
    ]
    threads = [threading.Thread(target=play, args=scene) for scene in scenes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = {name: status for name, (_, status) in ends.items()}
    assert statuses == {
        "a slow head": 201,
        "a head that is late": 0,
        "a slow body": 201,
        "a body that is late": 408,
        "silence": 0,
    }
    assert all(14 < seconds < 35 for name, (seconds, _) in ends.items() if "slow" not in name), ends


def test_two_requests_in_one_are_never_two(embedded):
    """Whatever a proxy before us made of it, the second one is not run."""
    with embedded.client(event_hooks={}) as client:
        before = client.get("/v1/tasks", params={"q": "smuggled", "count": "true"}).headers["total-count"]
        inner = b'{"name":"smuggled"}'
        second = (
            head("POST", "/v1/tasks", embedded.key, "Content-Type: application/json", f"Content-Length: {len(inner)}")
            + inner
        )
        answers: Counter[int] = Counter()
        for lines in (
            ("Content-Length: 5", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "Content-Length: 5"),
            ("Content-Length: 5", "Content-Length: 6"),
            ("Transfer-Encoding: chunked, identity",),
            ("Transfer-Encoding: xchunked",),
            ("Transfer-Encoding : chunked",),
            ("Content-Length: 0x5",),
        ):
            first = head("POST", "/v1/tasks", embedded.key, "Content-Type: application/json", *lines)
            answers[ask(embedded.port, first + b"0\r\n\r\n" + second)[0]] += 1
        assert set(answers) == {400}
        assert client.get("/v1/tasks", params={"q": "smuggled", "count": "true"}).headers["total-count"] == before
