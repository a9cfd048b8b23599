"""Slow clients: connections that send a request byte by byte and never come to its end.

Why a thread and not a program of its own: five hundred sockets that send a byte a second need no speed.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

REQUEST = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Padding: " + b"x" * 4000


@contextmanager
def slow_clients(port: int, count: int) -> Iterator[None]:
    """Keep so many of them connected; one that the server has closed connects again."""
    over = threading.Event()
    thread = threading.Thread(target=_drip, args=(port, count, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _drip(port: int, count: int, over: threading.Event) -> None:
    sockets: dict[int, tuple[socket.socket, int]] = {}
    try:
        while not over.is_set():
            for number in range(count):
                if number not in sockets:
                    with suppress(OSError):
                        sockets[number] = (socket.create_connection(("127.0.0.1", port), timeout=5), 0)
                    continue
                client, sent = sockets[number]
                try:
                    client.send(REQUEST[sent : sent + 1])
                    sockets[number] = (client, (sent + 1) % len(REQUEST))
                except OSError:
                    client.close()
                    del sockets[number]
            over.wait(0.5)
    finally:
        for client, _ in sockets.values():
            client.close()
