"""The listening socket, opened here or handed over by the process before."""

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.config import ConfigError

INHERIT: Final = "TASKADE_INHERIT"
BACKLOG: Final = 1024
# Of the kernel's `struct tcp_info`; of a socket that listens, this member says how many connections are in its queue.
_INFO_BYTES: Final = 104
_QUEUED: Final = struct.Struct("=24xI")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a process inherits when it is started: the listening socket, and a control socket to its parent."""

    listener: socket.socket | None = None
    control: socket.socket | None = None


def inherited() -> Inherited:
    """The sockets of this process's own predecessor or parent, or of systemd. They are taken once."""
    given = os.environ.pop(INHERIT, "")
    if given:
        sockets = [socket.socket(fileno=int(number)) for number in given.split(",")]
        for handed in sockets:
            handed.set_inheritable(False)
        return Inherited(*sockets)
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()) and os.environ.pop("LISTEN_FDS", "") == "1":
        return Inherited(socket.socket(fileno=3))
    return Inherited()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens (on a free port for 0). ConfigError when that is impossible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return bound(family, address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be used: {error.strerror}. Choose another one with --host and --port."
        ) from error


def bound(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def queued(listener: socket.socket) -> int:
    """How many connections wait to be accepted from a socket; 0 where the system does not tell (it is not Linux)."""
    with suppress(OSError, AttributeError, struct.error):
        return int(_QUEUED.unpack_from(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES))[0])
    return 0
