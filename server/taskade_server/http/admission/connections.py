"""Connections before there is a request on them: how many there may be, what an idle one costs, and who has too many.

Why the process closes sockets by their descriptor: the HTTP server has no limit for each address and no time limit for
a client that does not read, and at the limit of open files it spins. The kernel knows every connection, whatever state
the server above it believes it to be in.
"""

import asyncio
import fcntl
import logging
import os
import resource
import socket
import stat
import termios
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from typing import Final

from granian.constants import HTTPModes
from granian.http import HTTP1Settings

from taskade_server.http.wire.addresses import subscriber
from taskade_server.kit.defaults import MAX_CONNECTIONS

logger: Final = logging.getLogger("taskade")
Peer = tuple[str, str]
"""The other end of a connection: address and port."""

# Files that are no connections: the database, its log and threads, PostgreSQL, Valkey, log and metrics files.
RESERVED_FILES: Final = 128
HEAD_BYTES: Final = 64 << 10
HEAD_SECONDS: Final = 15
# What the kernel keeps of an answer for a client that does not read; by itself it would take megabytes.
SEND_BYTES: Final = 256 << 10
# A client that does not read, or is gone without a word, keeps its connection for so long.
STALLED_SECONDS: Final = 30
# HTTP/2 without TLS is of use to nobody, and a connection that might become one has no time limit.
MODE: Final = HTTPModes.http1
HTTP1: Final = HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000, max_buffer_size=HEAD_BYTES)

TRIM_SECONDS: Final = 1.0
# So full the process may be before those who have the most lose what they do not use, and so full it is afterwards.
TRIM_FROM: Final = 0.75
TRIM_TO: Final = 0.5


def capacity(wanted: int = MAX_CONNECTIONS) -> int:
    """How many connections this process can have at once: those wanted, as far as the limit of open files allows."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # Granian has raised it as far as it may
    if files == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, files - min(RESERVED_FILES, files // 2)))


def harden(listener: socket.socket) -> None:
    """What connections inherit from the socket that accepts them: bounds for clients that take nothing any more."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, STALLED_SECONDS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, STALLED_SECONDS // 3)


# ---- who has too many ------------------------------------------------------------------------------------------------


class Trimmer:
    """Closes idle connections of those who have the most, when the process is nearly full.

    `busy` tells the (host, port) of the clients whose requests are under way.
    """

    def __init__(self, port: int, most: int, busy: Callable[[], Set[Peer]]) -> None:
        self._port = port
        self._most = most
        self._busy = busy
        self.trimmed = 0

    def stats(self) -> dict[str, float]:
        """For the metrics."""
        return {"connections_max": self._most, "connections_trimmed_total": self.trimmed}

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            # To list the descriptors is cheap; only a process that is nearly full looks at each of them.
            if len(os.listdir("/dev/fd")) > self._most * TRIM_FROM:
                await asyncio.to_thread(self.trim)

    def trim(self) -> None:
        """Close what is too much; those who have more than others come first."""
        by_client: dict[str, list[tuple[int, Peer]]] = defaultdict(list)
        for number in map(int, os.listdir("/dev/fd")):
            with _duplicate(number) as connection:
                peer = _peer(connection, self._port)
            if peer is not None:
                by_client[subscriber(peer[0])].append((number, peer))
        busy = self._busy()
        share = fair_share(map(len, by_client.values()), int(self._most * TRIM_TO))
        for client, found in by_client.items():
            idle = [entry for entry in found if entry[1] not in busy]
            surplus = idle[: max(0, len(found) - share)]
            closed = sum(_hang_up(number, self._port, peer) for number, peer in surplus)
            if closed:
                logger.warning("%d idle connections of %s were closed: it has too many.", closed, client)
            self.trimmed += closed


def hang_up(port: int, peer: Peer) -> None:
    """End the connection of one client, whatever is under way on it."""
    for number in map(int, os.listdir("/dev/fd")):
        if _hang_up(number, port, peer):
            return


def _hang_up(number: int, port: int, peer: Peer) -> bool:
    """End a connection, if the descriptor is still its own."""
    with _duplicate(number) as connection:
        if connection is None or _peer(connection, port) != peer:
            return False
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return True


def unread(port: int) -> bool:
    """Whether something has arrived on a connection that this process has not read yet."""
    for number in map(int, os.listdir("/dev/fd")):
        with _duplicate(number) as connection:
            if connection is not None and _peer(connection, port) is not None:
                waiting = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
                if any(waiting):
                    return True
    return False


def fair_share(counts: Iterable[int], total: int) -> int:
    """How many each may have so that all together have no more than `total`; who has less leaves the rest to others."""
    waiting = sorted(counts)
    for place, count in enumerate(waiting):
        share = total // (len(waiting) - place)
        if count > share:
            return share
        total -= count
    return max(waiting, default=0)


@contextmanager
def _duplicate(number: int) -> Iterator[socket.socket | None]:
    """A duplicate of a descriptor that is a socket: the descriptor itself may become something else at any moment."""
    connection = None
    try:
        # Hands off files: to close a duplicate of the database's would give up SQLite's locks on it.
        if _is_socket(number):
            copy = os.dup(number)
            if _is_socket(copy):  # if it has just become a file, better one descriptor lost than its locks
                connection = socket.socket(fileno=copy)
    except OSError:
        pass  # it has just been closed
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _is_socket(number: int) -> bool:
    return stat.S_ISSOCK(os.fstat(number).st_mode)


def _peer(connection: socket.socket | None, port: int) -> Peer | None:
    """The other end of a connection to our port; None if it is none."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        if connection.getsockname()[1] != port:
            return None
        host, place = connection.getpeername()[:2]
        return host, str(place)
    except OSError:
        return None  # it listens, or has been closed
