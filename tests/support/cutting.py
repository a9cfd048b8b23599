"""A way to a server that breaks now and then: each connection is cut after so many bytes of answers.

Why bytes and not seconds: what is cut is then anywhere within a message, and nowhere on a quiet line.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Cutter:
    """Passes connections on to a port; `cuts` is how many were cut."""

    def __init__(self, port: int, limits: Iterator[int]) -> None:
        self._port = port
        self._limits = limits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0

    def run(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client, next(self._limits)), daemon=True).start()

    def _carry(self, client: socket.socket, limit: int) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server, suppress(OSError):
            threading.Thread(target=self._upward, args=(client, server), daemon=True).start()
            while limit and (piece := server.recv(min(limit, 65536))):
                client.sendall(piece)
                limit -= len(piece)
            self.cuts += not limit
            client.shutdown(socket.SHUT_RDWR)
            server.shutdown(socket.SHUT_RDWR)

    def _upward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def cutter(port: int, limits: Iterator[int]) -> Iterator[Cutter]:
    """One that runs inside a block."""
    here = Cutter(port, limits)
    thread = threading.Thread(target=here.run, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        here.close()
        thread.join()
