"""A receiver of webhooks on this machine: it keeps what comes, and answers as a function says."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

Judge = Callable[[Mapping[str, str], bytes], tuple[int, str]]
"""From the headers, in lower case, and the body to a status and a text."""
PATIENCE_SECONDS: Final = 180


@dataclass
class Receiver:
    """What came so far, and how to answer from now on."""

    judge: Judge
    url: str = ""
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int) -> list[tuple[dict[str, str], bytes]]:
        """Everything, once so much has come."""
        with self.grown:
            assert self.grown.wait_for(lambda: len(self.taken) >= count, PATIENCE_SECONDS), self.taken
            return list(self.taken)


def takes_all(headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    """Whatever it is."""
    return 200, "thanks"


@contextmanager
def receiver(judge: Judge = takes_all, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One that runs inside a block."""
    here = Receiver(judge)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            status, text = here.judge(headers, body)
            with here.grown:
                here.taken.append((headers, body))
                here.grown.notify_all()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    here.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/hooks"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
