"""How many connections a process has, and who loses his when there are too many."""

import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from taskade_server.http.admission.connections import Trimmer, fair_share, harden, unread
from taskade_server.serving.sockets import queued

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is but one address to come from")


class Door:
    """A listening socket, and clients who come in by it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(120)
        self.port: int = self.listener.getsockname()[1]
        self.inside: list[socket.socket] = []
        self.outside: list[socket.socket] = []

    def enter(self, address: str, count: int) -> list[socket.socket]:
        """Clients from an address."""
        for _ in range(count):
            self.outside.append(socket.create_connection(("127.0.0.1", self.port), source_address=(address, 0)))
            self.inside.append(self.listener.accept()[0])
        return self.outside[-count:]

    def left(self, address: str) -> int:
        """How many from an address are still connected."""
        return sum(one.getsockname()[0] == address and _is_open(one) for one in self.outside)

    def close(self) -> None:
        for one in (self.listener, *self.inside, *self.outside):
            one.close()


def _is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def trim(door: Door, most: int, busy: Callable[[], set[tuple[str, str]]] = set) -> int:
    trimmer = Trimmer(door.port, most, busy)
    trimmer.trim()
    assert trimmer.stats() == {"connections_max": most, "connections_trimmed_total": trimmer.trimmed}
    return trimmer.trimmed


@linux_only
def test_who_has_most_loses_what_is_too_much(door):
    door.enter("127.0.0.1", 12)
    door.enter("127.0.0.2", 4)
    assert trim(door, 20) == 6
    assert (door.left("127.0.0.1"), door.left("127.0.0.2")) == (6, 4)
    for one in door.inside:
        if not _is_open(one):
            one.close()  # as the server does that hears of it
    assert trim(door, 20) == 0


@linux_only
def test_afterwards_nobody_who_lost_some_has_fewer_than_another(door):
    for number, count in enumerate((12, 6, 1), 1):
        door.enter(f"127.0.0.{number}", count)
    assert trim(door, 20) == 10
    assert [door.left(f"127.0.0.{number}") for number in range(1, 4)] == [4, 4, 1]


@pytest.mark.parametrize(
    ("counts", "total", "share"),
    [
        ([], 5, 0),
        ([3], 5, 3),
        ([7], 5, 5),
        ([12, 4], 10, 6),
        ([5, 5, 5, 5], 10, 2),
        ([12, 6, 1], 10, 4),
        ([2, 2], 4, 2),
    ],
)
def test_the_share_of_each(counts, total, share):
    assert fair_share(counts, total) == share


def test_connections_in_use_are_left_alone(door):
    working = [(client.getsockname()[0], str(client.getsockname()[1])) for client in door.enter("127.0.0.1", 8)]
    door.enter("127.0.0.1", 4)
    assert trim(door, 10, lambda: set(working)) == 4
    assert all(_is_open(client) for client in door.outside[:8])


def test_connections_of_others_are_left_alone(door):
    other = Door()
    try:
        other.enter("127.0.0.1", 20)
        assert trim(door, 2) == 0
        assert other.left("127.0.0.1") == 20
    finally:
        other.close()


def test_files_are_not_touched(door, tmp_path):
    """To close any descriptor of a file gives up all locks of the process on it: SQLite's, for example."""
    path = tmp_path / "locked"
    door.enter("127.0.0.1", 8)
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        before = len(os.listdir("/dev/fd"))
        assert trim(door, 2) == 7
        assert len(os.listdir("/dev/fd")) == before, "no duplicate is left open"
        attempt = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        done = subprocess.run([sys.executable, "-c", attempt, str(path)], capture_output=True, check=False)
        assert done.returncode == 1 and b"BlockingIOError" in done.stderr


@linux_only
def test_what_connections_inherit(door):
    harden(door.listener)
    door.enter("127.0.0.1", 1)
    accepted = door.inside[0]
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 1 << 20


def test_a_socket_of_another_kind_needs_no_bounds():
    with socket.socket(socket.AF_UNIX) as listener:
        harden(listener)


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room"),
    [
        (64, 64, 4096, 32),
        (256, 256, 4096, 128),
        (256, 2048, 4096, 1920),
        (256, 2048, 100, 100),
        (256, 2048, 1920, 1920),
    ],
)
def test_how_many_connections_there_may_be(soft, hard, wanted, room):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this process may not open so many files itself")
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from taskade_server.http.admission.connections import capacity
print(capacity({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(room), str(hard)], "and as many files as it may open at all"


def test_what_has_arrived_and_was_not_read_is_seen(door):
    (client,) = door.enter("127.0.0.1", 1)
    assert not unread(door.port)
    client.sendall(b"GET")
    assert select.select(door.inside, [], [], 120)[0]
    assert unread(door.port) and not unread(door.port + 1)
    door.inside[0].recv(10)
    assert not unread(door.port)


@linux_only
def test_how_many_wait_to_be_accepted_is_known(door):
    assert queued(door.listener) == 0
    for count in (1, 2):
        door.outside.append(socket.create_connection(("127.0.0.1", door.port)))
        assert queued(door.listener) == count
    door.inside.append(door.listener.accept()[0])
    assert queued(door.listener) == 1
