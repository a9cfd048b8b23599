"""Processes end, are replaced, killed and started again, and those who ask do not notice.

Why by signals and sockets alone: a supervisor, a balancer and an operator have nothing else.
"""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.support.load import Client, Load
from tests.support.processes import is_alive
from tests.support.server import Server

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes by /proc")


@pytest.fixture
def pool(database: str) -> list[str]:
    """Several processes where there may be."""
    return ["--workers", "2"] if database == "postgresql" else []


def wait_until(condition: Callable[[], object], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def workers(server: Server) -> list[int]:
    """The processes below the server's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == server.pid:
                found.append(int(entry.name))
    return sorted(found)


PATIENCE = """
from taskade_server.http.wire import body
from taskade_server.serving import process

body.RECEIVE_SECONDS = process.STOP_SECONDS = 600.0
"""


@pytest.fixture
def patient(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a server that waits long for the rest of a request, as on a busy machine it must."""
    folder = tmp_path_factory.mktemp("patient")
    (folder / "sitecustomize.py").write_text(PATIENCE)
    return {"PYTHONPATH": str(folder)}


def half_a_request(server: Server) -> socket.socket:
    """A write that is under way, and of which the second half of the body is still to come."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=180)
    connection.sendall(
        b"POST /v1/tasks HTTP/1.1\r\nHost: tests\r\nContent-Type: application/json\r\nContent-Length: 16\r\n"
        b"Expect: 100-continue\r\nAuthorization: Bearer " + server.key.encode() + b"\r\n\r\n"
    )
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n", "it is read by the server"
    connection.sendall(b'{"name":')
    return connection


def rest_of_it(connection: socket.socket) -> bytes:
    connection.sendall(b' "late"}')
    return b"".join(iter(lambda: connection.recv(4096), b""))


# ---- ending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_is_finished(number, start_server, pool, patient):
    server: Server = start_server(*pool, environment=patient)
    unfinished = half_a_request(server)
    os.kill(server.pid, number)
    wait_until(lambda: refuses(server))
    answer = rest_of_it(unfinished)
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nconnection: close\r\n" in answer
    unfinished.close()
    assert server.stop() == 0
    server.start()
    with Client(server.url, server.key) as client:
        assert b'"late"' in client.ask("GET", "/v1/tasks?fields=name")[2]


def can_be_stopped(pid: int) -> bool:
    """Whether a process catches SIGTERM, as it does from when it serves."""
    (caught,) = re.findall(r"(?m)^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_who_came_before_it_was_told_to_stop_is_answered(start_server, pool):
    """Also who has not been let in yet, as on a busy machine."""
    server: Server = start_server(*pool)
    processes = [server.pid, *workers(server)]
    wait_until(lambda: all(map(can_be_stopped, processes)))  # one of several answers before the others do
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=180) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: tests\r\n\r\n")
    os.kill(server.pid, signal.SIGTERM)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        client.close()
    assert server.stop() == 0


def refuses(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it met a socket that was about to go
    return False


def test_while_it_drains_it_serves_but_is_not_ready(start_server, pool):
    server: Server = start_server(*pool, "--drain-seconds", "3600")
    with Client(server.url, server.key) as client:
        assert client.ask("GET", "/ready")[0] == 200
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: client.ask("GET", "/ready")[0] == 503)
        status, headers, _ = client.ask("POST", "/v1/tasks", {"name": "to the last"})
        assert (status, headers["connection"]) == (201, "close")
        status, headers, _ = client.ask("GET", "/ready")
        assert (status, headers["retry-after"], headers["content-type"]) == (503, "1", "application/problem+json")
    os.kill(server.pid, signal.SIGINT)  # enough of it
    assert server.stop() == 0


def test_who_presses_ctrl_c_twice_does_not_wait(start_server, pool, patient):
    server: Server = start_server(*pool, environment=patient)
    unfinished = half_a_request(server)
    os.kill(server.pid, signal.SIGINT)
    wait_until(lambda: refuses(server))
    os.kill(server.pid, signal.SIGINT)
    assert server.stop() == 0
    assert "cut off" in server.said()
    unfinished.close()


IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "taskade_server", "serve", "--port", "0", "--data", sys.argv[1]])
"""


def test_a_server_ends_with_its_terminal(tmp_path):
    """There SIGHUP does not mean to reload: nobody would ever stop the server again."""
    ours, theirs = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, str(tmp_path / "data")], stdin=theirs, stdout=log, stderr=log
        )
    os.close(theirs)
    wait_until(lambda: "listening" in (tmp_path / "log").read_text())
    with Client((tmp_path / "log").read_text().split("listening")[1].split()[0], "") as client:
        assert client.ask("GET", "/health")[0] == 200
    os.close(ours)
    assert server.wait(180) == 0


def test_an_early_answer_does_not_cost_the_connection(server):
    """The answer leaves before the body was read: it is read all the same, or the answer says that it is over."""
    with Client(server.url, "wrong") as client:
        for _ in range(20):
            status, headers, _ = client.ask("POST", "/v1/tasks", {"name": "x" * 1000})
            assert (status, headers.get("connection")) == (401, None)
        status, headers, _ = client.ask("POST", "/v1/tasks", {"name": "x" * 200_000})
        assert (status, headers.get("connection")) == (401, "close")


# ---- being replaced --------------------------------------------------------------------------------------------------


def test_a_reload_costs_no_request(start_server, pool):
    server: Server = start_server(*pool)
    with Load(server.url, server.key) as load:
        for _ in range(3):
            load.wait_for(30)
            before = generation(server, pool)
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: not generation(server, pool) & before)  # noqa: B023  # it is asked in this round only
        load.wait_for(30)
    assert load.ledger.faults == []
    assert not load.ledger.broken or not load.in_time
    with Client(server.url, server.key) as client:
        headers = client.ask("GET", "/v1/tasks?count=true&limit=1")[1]
    assert 0 <= int(headers["total-count"]) - load.ledger.statuses[201] <= load.ledger.broken.total()


def generation(server: Server, pool: list[str]) -> set[int]:
    """What changes when the processes that answer are replaced."""
    return set(workers(server)) if pool else {server.log.read_text().count("Taskade API server")}


def test_who_stops_it_while_it_is_replaced_wants_no_successor(start_server, pool, patient):
    server: Server = start_server(*pool, environment=patient)
    unfinished = half_a_request(server)
    os.kill(server.pid, signal.SIGHUP)
    with Client(server.url, server.key) as client:
        wait_until(lambda: "close" in client.ask("GET", "/health")[1].get("connection", "") or pool)
    os.kill(server.pid, signal.SIGTERM)
    assert rest_of_it(unfinished).startswith(b"HTTP/1.1 201 ")
    unfinished.close()
    wait_until(lambda: os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    assert server.stop() == 0


def test_a_program_that_does_not_run_is_not_loaded(start_server, pool, tmp_path):
    """An upgrade that went wrong: the old program goes on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.path.exists(os.path.join(os.path.dirname(__file__), 'broken')):\n    os._exit(3)\n"
    )
    server: Server = start_server(*pool, environment={"PYTHONPATH": str(tmp_path)})
    assert server.key
    (tmp_path / "broken").touch()
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: "Not reloaded" in server.said())
    with Client(server.url, server.key) as client:
        assert client.ask("GET", "/v1/projects")[0] == 200
        (tmp_path / "broken").unlink()
        before = generation(server, pool)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: not generation(server, pool) & before)
    with Client(server.url, server.key) as client:
        assert client.ask("GET", "/v1/projects")[0] == 200


def test_a_socket_that_somebody_else_keeps(tmp_path):
    """As systemd does: between two servers connections wait instead of being refused."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen(16)
        for _ in range(2):
            with socket.create_connection(kept.getsockname(), timeout=180) as waiting:
                waiting.sendall(b"GET /health HTTP/1.1\r\nHost: tests\r\n\r\n")
                server = activated(kept, tmp_path)
                try:
                    assert waiting.recv(100).startswith(b"HTTP/1.1 200 "), (tmp_path / "log").read_text()
                finally:
                    server.terminate()
                    assert server.wait(180) == 0


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "taskade_server", "serve", "--data", sys.argv[2]])
"""


def activated(kept: socket.socket, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, str(kept.fileno()), str(folder / "data")],
            pass_fds=[kept.fileno()],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


# ---- being killed ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(postgres, tmp_path: Path) -> Iterator[Server]:
    """Two processes on a PostgreSQL."""
    server = Server(tmp_path / "data", postgres.create_database(), "--workers", "2").start()
    yield server
    server.stop()


def test_a_killed_worker_is_replaced(two):
    before = workers(two)
    with Load(two.url, two.key) as load:
        load.wait_for(30)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(workers(two)) == 2 and before[0] not in workers(two))
        load.wait_for(100)
    assert load.ledger.faults == []
    # For each client, what was under way in it, and what waited for it to be let in.
    assert load.ledger.broken.total() <= 12
    assert before[1] in workers(two)


def test_nothing_is_left_of_a_killed_server(two):
    left = workers(two)
    two.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in left))
    two.start()


def test_two_servers_do_not_share_a_port_unawares(two, tmp_path):
    other = subprocess.run(
        [sys.executable, "-m", "taskade_server", "serve", "--port", str(two.port), "--data", str(tmp_path / "other")],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert other.returncode == 1
    assert "Address already in use" in other.stderr


# ---- background work -------------------------------------------------------------------------------------------------


def test_workers_do_what_servers_leave_to_them(postgres, tmp_path):
    url = postgres.create_database()
    server = Server(tmp_path / "data", url, "--no-background").start()
    with Client(server.url, server.key) as client, psycopg.connect(url, autocommit=True) as database:
        task = client.ask("POST", "/v1/tasks", {"name": "rubbish", "id": "task_01jaaaaaaaaaaaaaaaaaaaaaaa"})
        assert task[0] == 201, task
        assert client.ask("DELETE", "/v1/tasks/task_01jaaaaaaaaaaaaaaaaaaaaaaa")[0] == 204
        database.execute("UPDATE tasks SET deleted_at = 1")
        helpers = [background(url, tmp_path, number) for number in range(2)]
        try:
            wait_until(lambda: database.execute("SELECT 1 FROM tasks").fetchone() is None)
            for log in tmp_path.glob("worker*.log"):
                wait_until(lambda: "Background work begins" in log.read_text())  # noqa: B023  # asked at once
        finally:
            for helper in helpers:
                helper.terminate()
        assert [helper.wait(180) for helper in helpers] == [0, 0]
        purged = database.execute("SELECT count(*) FROM events WHERE type = 'task.purged'").fetchone()
        assert purged == (1,)
        assert database.execute("SELECT name FROM leases WHERE holder <> ''").fetchall() == []
    assert server.stop() == 0


def background(url: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    with (folder / f"worker{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "taskade_server", "worker", "--database-url", url],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
