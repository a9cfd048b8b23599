"""The client for strangers' addresses, against real sockets: what it refuses, and what it puts up with.

Why every case counts packets: that a request ended in an error does not show that nothing was sent.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from taskade_server.consumers.outbound import Exchange, Limits, Outbound

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on the event loop of the worker command and on the standard library's."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


@contextlib.asynccontextmanager
async def receiver(handle: Handler, host: str = "127.0.0.1", **more: Any) -> AsyncIterator[int]:
    """A server whose every connection is handled by `handle`; its port."""
    open_now: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            open_now.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0, **more)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers and the body of one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return first, headers, await reader.readexactly(int(headers.get("content-length", "0")))


def answering(*texts: bytes, close: bool = True) -> Handler:
    """A handler that reads a request and answers with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for text in texts:
            writer.write(text)
            await writer.drain()
        if not close:
            await asyncio.Event().wait()

    return handle


async def sent(port: int, *, limits: Limits | None = None, **more: Any) -> Exchange:
    """One exchange with a receiver on this machine."""
    client = Outbound(LOOPBACK, limits=limits or Limits())
    try:
        return await client.post(
            f"http://127.0.0.1:{port}/hook", body=b'{"a":1}', headers={}, timeout=more.pop("timeout", 5.0), **more
        )
    finally:
        await client.close()


def test_a_request_as_it_arrives(run):
    seen: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 202 Accepted\r\nX-Mark: 1\r\nContent-Length: 5\r\n\r\nthank")

    async def main() -> Exchange:
        async with receiver(handle) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(
                f"http://localhost:{port}/a%20b/ä?q=1", body=b"{}", headers={"Content-Type": "application/json"}
            )
            await client.close()
            return found

    found = run(main())
    first, headers, body = seen[0]
    assert first == "POST /a%20b/%C3%A4?q=1 HTTP/1.1"
    assert body == b"{}"
    assert headers["host"].startswith("localhost:")
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert dict(found.request_headers)["Host"] == headers["host"]
    assert (found.status, found.body, found.ok, found.error) == (202, b"thank", True, None)
    assert ("x-mark", "1") in found.response_headers
    assert found.address is not None
    assert found.address.startswith("127.0.0.1:")
    assert {"dns", "connect", "first_byte"} <= set(found.phases)
