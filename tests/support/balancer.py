"""A reverse proxy such as one puts before several servers: round robin, health checks, connections that are kept.

Why so strict: it never sends a write a second time, since the first may have been done, and it keeps connections to the
servers open between requests. So a server that ends a connection without a word costs a request here, as it would
with nginx or HAProxy.
"""

import asyncio
import json
import threading
from collections import Counter

CHECK_SECONDS = 0.2
ANSWER_SECONDS = 120.0
RETRY = json.dumps({"type": "about:blank", "status": 503, "title": "no server is ready"}).encode()
NOBODY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(RETRY), RETRY)
)
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LostError(Exception):
    """A server ended the connection before its answer was complete. `begun`: it may have seen the request."""


class _Server:
    """One of those behind the balancer."""

    def __init__(self, port: int, opened: list[asyncio.StreamWriter]) -> None:
        self.port = port
        self._opened = opened
        self.ready = False
        self.idle: list[Connection] = []

    async def ask(self, request: bytes) -> bytes:
        """Pass a request on. OSError if it cannot have arrived, LostError if it may have."""
        connection = self._kept() or await self._connect()
        reader, writer = connection
        try:
            writer.write(request)
            async with asyncio.timeout(ANSWER_SECONDS):
                head, body = await _message(reader, request.startswith(b"HEAD "))
        except (OSError, EOFError, TimeoutError) as error:
            writer.close()
            raise LostError(f"{self.port}: {error!r}") from error
        lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        if len(kept) == len(lines):
            self.idle.append(connection)
        else:
            writer.close()
        return b"\r\n".join(kept) + body

    async def _connect(self) -> Connection:
        connection = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self._opened.append(connection[1])
        return connection

    def _kept(self) -> Connection | None:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def check(self) -> None:
        try:
            async with asyncio.timeout(60):
                answer = await self.ask(b"GET /ready HTTP/1.1\r\nHost: balancer\r\n\r\n")
            self.ready = answer.startswith(b"HTTP/1.1 200 ")
        except (OSError, LostError, TimeoutError):
            self.ready = False


class Balancer:
    """Listens on a free port, in a thread of its own, until the end of the `with` block."""

    def __init__(self, ports: list[int]) -> None:
        self.port = 0
        self.lost: list[str] = []
        self.answered: Counter[int] = Counter()  # by server
        self._opened: list[asyncio.StreamWriter] = []  # to be closed in an orderly way at the end
        self._servers = [_Server(port, self._opened) for port in ports]
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Balancer":
        self._thread.start()
        self._up.wait(240)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(240)
        self._loop.close()

    async def _run(self) -> None:
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        self.port = listening.sockets[0].getsockname()[1]
        checking = [asyncio.create_task(self._check(server)) for server in self._servers]
        while not any(server.ready for server in self._servers):
            await asyncio.sleep(0.02)
        self._up.set()
        await self._over.wait()
        listening.close()
        others = {*asyncio.all_tasks(), *checking} - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._opened), return_exceptions=True)

    async def _check(self, server: _Server) -> None:
        while True:
            await server.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All requests of one client's connection."""
        self._opened.append(writer)
        try:
            while True:
                head, body = await _message(reader, False)
                lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
                writer.write(await self._answer(b"\r\n".join(lines) + body))
                await writer.drain()
        except (OSError, EOFError):
            pass
        except LostError as error:
            self.lost.append(str(error))
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        repeatable = request.startswith((b"GET ", b"HEAD "))
        for _ in self._servers:
            server = self._next()
            if server is None:
                break
            try:
                answer = await server.ask(request)
            except OSError:
                server.ready = False
            except LostError:
                server.ready = False
                if not repeatable:
                    raise
            else:
                self.answered[server.port] += 1
                return answer
        return NOBODY

    def _next(self) -> _Server | None:
        for _ in self._servers:
            self._turn = (self._turn + 1) % len(self._servers)
            if self._servers[self._turn].ready:
                return self._servers[self._turn]
        return None


async def _message(reader: asyncio.StreamReader, is_head: bool) -> tuple[bytes, bytes]:
    """The head of a request or an answer, with its empty line, and the body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"),
        0,
    )
    return head, await reader.readexactly(0 if is_head else length)
