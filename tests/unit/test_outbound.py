"""The client for strangers' addresses, against real sockets: what it refuses, and what it puts up with.

Why every case counts packets: that a request ended in an error does not show that nothing was sent.
"""

import asyncio
import contextlib
import datetime
import email.utils
import gzip
import ipaddress
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.config import Config, ConfigError, check, parse_outbound
from taskade_server.outbound.client import ERRORS, Outbound
from taskade_server.outbound.connection import Exchange, Limits

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
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
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
            f"http://127.0.0.1:{port}/hook", body=b'{"a":1}', headers={}, timeout=more.pop("timeout", 60.0), **more
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


# ---- what the other side may do --------------------------------------------------------------------------------------


def exchange_with(run: Any, handle: Handler, **more: Any) -> Exchange:
    async def main() -> Exchange:
        async with receiver(handle) as port:
            return await sent(port, **more)

    found: Exchange = run(main())
    return found


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer(run, status):
    """The trap stands where the redirect leads, and on this machine: nobody comes."""
    visitors: list[int] = []

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(1)

    async def main() -> Exchange:
        async with receiver(visited) as trap:
            place = b"http://127.0.0.1:%d/" % trap
            moved = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, place)
            async with receiver(answering(moved)) as port:
                return await sent(port)

    found = run(main())
    assert (found.status, found.error, found.ok, visitors) == (status, None, False, [])


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 401, 404, 410, 418, 429, 500, 502, 503, 599])
def test_every_status_is_an_answer(run, status):
    found = exchange_with(run, answering(b"HTTP/1.1 %d Any Words\r\nContent-Length: 0\r\n\r\n" % status))
    assert (found.status, found.error, found.ok) == (status, None, status < 300)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("120", 120, 120), ("0", 0, 0), ("999999999", 999999999, 999999999), ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        ("in an hour", 3500, 3600), ("-5", None, None), ("soon", None, None),
        ("1.5", None, None), ("9" * 400, None, None), ("", None, None), ("Fri, 99 Dec 9999 99:99:99 GMT", None, None),
    ],
)  # fmt: skip
def test_how_long_to_wait(run, text, least, most):
    if text == "in an hour":
        text = email.utils.formatdate(time.time() + 3600, usegmt=True)
    found = exchange_with(
        run, answering(b"HTTP/1.1 429 No\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % text.encode())
    )
    assert found.status == 429
    assert (found.retry_after is None) if least is None else (least <= found.retry_after <= most)


def test_provisional_answers_come_before_the_answer(run):
    provisional = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    found = exchange_with(run, answering(provisional, OK))
    assert (found.status, found.body, found.error) == (200, b"ok", None)


def test_provisional_answers_without_end(run):
    found = exchange_with(run, answering(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 50, close=False))
    assert (found.status, found.error) == (None, "malformed_response")


async def drip(writer: asyncio.StreamWriter, text: bytes) -> None:
    for letter in text:
        writer.write(bytes([letter]))
        await writer.drain()
        await asyncio.sleep(0.02)


PATIENCE = (0.3, 3.0, 10.0)
"""How many seconds to give an exchange that takes too long: more where the beginning of it needs more."""


@pytest.mark.parametrize(
    ("at_once", "slowly", "status"),
    [
        (b"", b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 999, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"a" * 999, 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 99, 200),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 999, 200),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 99, None),
    ],
    ids=["head", "body", "chunks", "without-length", "provisional"],
)
def test_an_answer_that_drips_is_given_up(run, at_once, slowly, status):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(at_once)
        await drip(writer, slowly)

    for seconds in PATIENCE:
        found = exchange_with(run, handle, timeout=seconds)
        assert (found.error, found.ok) == ("timeout", False)
        assert f"{seconds} seconds" in (found.detail or "")
        if found.status == status:
            break
    assert found.status == status


def test_no_answer_at_all(run):
    for seconds in PATIENCE:
        found = exchange_with(run, answering(close=False), timeout=seconds)
        assert (found.status, found.error) == (None, "timeout")
        if "connect" in found.phases:
            break
    assert found.detail == f"There was no answer within {seconds} seconds."


def test_a_receiver_that_does_not_read(run):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main() -> Exchange:
        async with receiver(handle, limit=1024) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(f"http://127.0.0.1:{port}/", body=bytes(20_000_000), headers={}, timeout=0.3)
            await client.close()
            return found

    assert run(main()).error == "timeout"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
    ids=["never-ending", "a-gigabyte", "one-chunk", "http-1.0"],
)
def test_reading_stops_at_the_cap(run, head):
    written: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while True:  # until the other side has closed
            writer.write(b"z" * 65536)
            written.append(65536)
            await writer.drain()

    found = exchange_with(run, handle)
    assert (found.status, found.error, found.ok, found.truncated) == (200, None, True, True)
    assert found.body == b"z" * 16384
    assert sum(written) < 64 * 1024 * 1024


def test_a_body_of_just_the_cap_is_whole(run):
    for size, truncated in ((16384, False), (16385, True)):
        found = exchange_with(run, answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"z" * size))
        assert (found.truncated, len(found.body)) == (truncated, 16384)


def test_a_bomb_is_not_unpacked(run):
    bomb = gzip.compress(bytes(50_000_000))[:16000]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    found = exchange_with(run, answering(head, bomb))
    assert (found.status, found.body) == (200, bomb)
    assert dict(found.request_headers)["Accept-Encoding"] == "identity"


def test_a_body_wrapped_in_more_than_it_is(run):
    chunk = b"1;" + b"x" * 8000 + b"\r\na\r\n"
    found = exchange_with(
        run, answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 200, close=False)
    )
    assert found.error == "too_large"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(101)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000,
        b"HTTP/1.1 200 " + b"O" * 40_000,
        b"a" * 40_000,
    ],
    ids=["one-long", "many", "endless", "reason", "no-line"],
)
def test_a_flood_of_headers(run, head):
    found = exchange_with(run, answering(head, close=False))
    assert (found.error, found.body) == ("too_large", b"")


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"<html>hi</html>\n\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_not_http(run, text):
    found = exchange_with(run, answering(text, close=False))
    assert found.error == "malformed_response"
    assert "HTTP/1.1" in (found.detail or "")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 200),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_ends_too_early(run, text, status, reset):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(text)
        await writer.drain()
        await asyncio.sleep(0.05)  # so that what was written has arrived
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    found = exchange_with(run, handle)
    assert (found.status, found.error, found.ok) == (status, "reset", False)
    assert found.detail == (
        "The connection was closed " + ("in the middle of the answer." if text else "without an answer.")
    )


def test_an_answer_whose_end_is_the_end_of_the_connection(run):
    found = exchange_with(run, answering(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it"))
    assert (found.status, found.body, found.error) == (200, b"all of it", None)


def test_nobody_listens(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = run(sent(unused.getsockname()[1]))
    assert (found.error, found.address) == ("connect_failed", f"127.0.0.1:{unused_port(found)}")
    assert "onnection refused" in (found.detail or "")


def unused_port(found: Exchange) -> int:
    return int(str(found.address).rpartition(":")[2])


# ---- names -----------------------------------------------------------------------------------------------------------


def resolving(*rounds: list[str] | BaseException) -> tuple[Any, list[str]]:
    """A resolver that gives these answers, one after another, and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        answer = rounds[min(len(asked), len(rounds)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return resolve, asked


def test_a_name_that_changes_its_mind(run):
    """127.0.0.2 is allowed here and 127.0.0.1 is not: each attempt looks the name up once, and believes no other."""
    resolve, asked = resolving(["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.2"])
    came: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("sockname")[0])
        while True:
            await read_request(reader)
            writer.write(OK)

    async def main() -> list[Exchange]:
        async with receiver(handle, host="0.0.0.0") as port:
            client = Outbound([ipaddress.ip_network("127.0.0.2/32")], resolver=resolve)
            found = [await client.post(f"http://a.example:{port}/", body=b"", headers={}) for _ in range(4)]
            await client.close()
            return found

    found = run(main())
    assert [exchange.error for exchange in found] == [None, "denied_address", "denied_address", None]
    assert asked == ["a.example"] * 4
    assert came == ["127.0.0.2"], "the kept connection is used again, once the name leads there again"
    assert found[3].reused


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "dns_failure"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "dns_failure"),
        (OSError("broken"), "dns_failure"),
        (UnicodeError("label too long"), "dns_failure"),
        ([], "dns_failure"),
    ],
)
def test_a_name_without_an_address(run, answer, error):
    async def main() -> Exchange:
        return await Outbound(resolver=resolving(answer)[0]).post("http://a.example/", body=b"", headers={})

    found = run(main())
    assert (found.error, found.address) == (error, None)


def test_a_name_that_is_never_resolved(run):
    async def never(host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async def main() -> Exchange:
        return await Outbound(resolver=never).post("http://a.example/", body=b"", headers={}, timeout=0.1)

    found = run(main())
    assert (found.error, found.detail) == ("timeout", "The name was not resolved within 0.1 seconds.")


def test_an_ipv6_only_name(run):
    async def main() -> Exchange:
        async with receiver(answering(OK), host="::1") as port:
            client = Outbound(LOOPBACK, resolver=resolving(["::1"])[0])
            found = await client.post(f"http://six.example:{port}/", body=b"", headers={})
            await client.close()
            assert found.address == f"[::1]:{port}"
            return found

    assert run(main()).ok


def test_a_dead_address_does_not_hide_a_living_one(run):
    async def main() -> Exchange:
        async with receiver(answering(OK), host="127.0.0.2") as port:
            client = Outbound(LOOPBACK, resolver=resolving(["::1", "127.0.0.3", "127.0.0.2"])[0])
            found = await client.post(f"http://a.example:{port}/", body=b"", headers={})
            await client.close()
            return found

    found = run(main())
    assert found.ok
    assert found.address.startswith("127.0.0.2:")


@contextlib.contextmanager
def deaf(host: str, port: int = 0) -> Iterator[int]:
    """An address that takes no connection, and does not refuse one either: its queue is full."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_an_address_that_does_not_answer(run):
    with deaf("127.0.0.1") as port:
        found = run(sent(port, timeout=0.3))
    assert (found.error, found.detail) == (
        "timeout",
        f"There was no connection to 127.0.0.1:{port} within 0.3 seconds.",
    )


def test_a_silent_address_leaves_time_for_the_next(run):
    async def main(seconds: float) -> Exchange:
        async with receiver(answering(OK), host="127.0.0.2") as port:
            with deaf("127.0.0.3", port):
                limits = Limits(connect_seconds=seconds)
                client = Outbound(LOOPBACK, resolver=resolving(["127.0.0.3", "127.0.0.2"])[0], limits=limits)
                found = await client.post(f"http://a.example:{port}/", body=b"", headers={}, timeout=60)
                await client.close()
                return found

    # So long it may take to connect to the second one, too.
    assert any(run(main(seconds)).ok for seconds in PATIENCE)


def test_attempts_to_one_name_share_a_look_up(run, monkeypatch):
    asked: list[Any] = []

    def look_up(host: bytes, *more: Any, **other: Any) -> Any:
        asked.append(host)
        time.sleep(0.05)
        if host == b"no.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]

    async def main() -> list[Exchange]:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        client = Outbound()
        urls = ["http://a.example/"] * 20 + ["http://no.example/"] * 20
        found = await asyncio.gather(*(client.post(url, body=b"", headers={}) for url in urls))
        again = await client.post("http://a.example/", body=b"", headers={})
        await client.close()
        return [*found, again]

    found = run(main())
    assert [exchange.error for exchange in found] == ["denied_address"] * 20 + ["dns_failure"] * 20 + ["denied_address"]
    assert sorted(asked) == [b"a.example", b"a.example", b"no.example"], "nothing is remembered"


def test_look_ups_that_hang_are_bounded(run, monkeypatch):
    hanging = threading.Event()
    asked: list[bytes] = []

    def look_up(host: bytes, *more: Any, **other: Any) -> Any:
        asked.append(host)
        hanging.wait(120)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def main() -> list[Exchange]:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        client = Outbound(limits=Limits(lookups=3))
        urls = [f"http://a{number}.example/" for number in range(10)]
        found = await asyncio.gather(*(client.post(url, body=b"", headers={}, timeout=0.1) for url in urls))
        while len(asked) < 3:  # a thread may be about to begin
            await asyncio.sleep(0.01)
        await client.close()
        return found

    try:
        assert {exchange.error for exchange in run(main())} == {"timeout"}
    finally:
        hanging.set()
    assert len(asked) == 3


def test_a_look_up_that_is_given_up_at_the_end_is_a_failure_and_no_cancellation(run, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [hanging.wait(120)][1:])

    async def main() -> Exchange:
        client = Outbound()
        under_way = asyncio.create_task(client.post("http://a.example/", body=b"", headers={}, timeout=60))
        await asyncio.sleep(0.01)
        await client.close()
        return await under_way

    try:
        assert run(main()).error == "dns_failure"
    finally:
        hanging.set()


def test_proxies_of_the_environment_are_not_asked(run, monkeypatch):
    visitors: list[int] = []

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(1)

    async def main() -> Exchange:
        async with receiver(visited) as trap, receiver(answering(OK)) as port:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{trap}")
            return await sent(port)

    assert run(main()).ok
    assert visitors == []


# ---- connections -----------------------------------------------------------------------------------------------------


def serving_many(connections: list[list[str]], *, end_after: int = 10**9) -> Handler:
    """Answers requests, `end_after` on each connection, and closes without saying so beforehand."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[str] = []
        connections.append(requests)
        while len(requests) < end_after:
            first, headers, _ = await read_request(reader)
            requests.append(f"{first} {headers['host']}")
            writer.write(OK)

    return handle


async def several(port: int, hosts: list[str], said: asyncio.Event | None = None) -> list[Exchange]:
    """One exchange after the other. `said`: what the other side sets when it has said all about the one before."""
    client = Outbound(LOOPBACK, resolver=resolving(["127.0.0.1"])[0])
    found = []
    for host in hosts:
        found.append(await client.post(f"http://{host}:{port}/", body=b"{}", headers={}))
        if said is not None:
            await said.wait()
            said.clear()
        await asyncio.sleep(0.02)  # so that the other side's goodbye, if any, has arrived or not: both are to work
    await client.close()
    return found


def test_a_connection_is_kept_for_its_name_alone(run):
    connections: list[list[str]] = []

    async def main() -> list[Exchange]:
        async with receiver(serving_many(connections)) as port:
            return await several(port, ["a.example", "a.example", "b.example", "a.example"])

    found = run(main())
    assert [exchange.ok for exchange in found] == [True] * 4
    assert [exchange.reused for exchange in found] == [False, True, False, True]
    assert sorted(map(len, connections)) == [1, 3]


@pytest.mark.parametrize("pause", [0, 0.02])
def test_a_kept_connection_that_was_closed_meanwhile(run, pause):
    connections: list[list[str]] = []

    async def main() -> list[Exchange]:
        async with receiver(serving_many(connections, end_after=1)) as port:
            client = Outbound(LOOPBACK)
            found = []
            for _ in range(3):
                found.append(await client.post(f"http://127.0.0.1:{port}/", body=b"{}", headers={}))
                await asyncio.sleep(pause)
            await client.close()
            return found

    assert [exchange.ok for exchange in run(main())] == [True] * 3
    assert [len(requests) for requests in connections] == [1, 1, 1]


@pytest.mark.parametrize(("text", "expected"), [(b"", (True, None)), (b"HTTP/1.1 20", (False, "reset"))])
def test_a_kept_connection_that_ends_under_a_request(run, text, expected):
    """Without a byte of an answer the request is sent once more, on a new connection; with one it may have counted."""
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        number = len(connections)
        while True:
            await read_request(reader)
            connections[number - 1] += 1
            if number == 1 and connections[0] == 2:
                writer.write(text)
                return
            writer.write(OK)

    async def main() -> list[Exchange]:
        async with receiver(handle) as port:
            return await several(port, ["a.example"] * 2)

    found = run(main())
    assert (found[0].ok, found[0].reused) == (True, False)
    assert (found[1].ok, found[1].error) == expected
    assert connections == ([2, 1] if expected[0] else [2])


def test_a_name_that_moves_takes_its_requests_along(run):
    """A kept connection to an address the name no longer has is not used, although nothing is wrong with either."""
    came: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            came.append(writer.get_extra_info("sockname")[0])
            writer.write(OK)

    async def main() -> None:
        resolve, _ = resolving(["127.0.0.2"], ["127.0.0.3"], ["127.0.0.3", "127.0.0.2"])
        async with receiver(handle, host="0.0.0.0") as port:
            client = Outbound(LOOPBACK, resolver=resolve)
            for _ in range(3):
                assert (await client.post(f"http://a.example:{port}/", body=b"", headers={})).ok
            await client.close()

    run(main())
    assert came == ["127.0.0.2", "127.0.0.3", "127.0.0.3"]


def test_an_answer_nobody_asked_for_answers_nothing(run):
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(OK + forged)

    async def main() -> list[Exchange]:
        async with receiver(handle) as port:
            return await several(port, ["a.example"] * 3)

    assert [(exchange.body, exchange.reused) for exchange in run(main())] == [(b"ok", False)] * 3


def test_what_comes_while_nothing_was_asked_ends_the_connection(run):
    async def main() -> list[Exchange]:
        said = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_request(reader)
                writer.write(OK)
                await asyncio.sleep(0.005)
                writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
                await asyncio.sleep(0)  # it is sent at the end of a turn of the loop
                said.set()

        async with receiver(handle) as port:
            return await several(port, ["a.example"] * 2, said)

    assert [(exchange.status, exchange.reused) for exchange in run(main())] == [(200, False)] * 2


def test_connection_close_is_respected(run):
    ending = OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")

    async def main() -> list[Exchange]:
        async with receiver(answering(ending, close=False)) as port:
            return await several(port, ["a.example"] * 2)

    assert [(exchange.status, exchange.reused) for exchange in run(main())] == [(200, False)] * 2


def test_an_early_answer_is_an_answer(run):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async def main() -> Exchange:
        async with receiver(handle, limit=1024) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(f"http://127.0.0.1:{port}/", body=bytes(20_000_000), headers={}, timeout=60)
            await client.close()
            return found

    found = run(main())
    assert (found.status, found.error) == (413, None)


def test_idle_connections_are_closed(run):
    connections: list[list[str]] = []
    ended = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serving_many(connections)(reader, writer)
        except asyncio.IncompleteReadError:
            ended.append(1)

    async def main() -> int:
        async with receiver(handle) as port:
            client = Outbound(LOOPBACK, limits=Limits(idle_seconds=0.05, idle_per_destination=2))
            url = f"http://127.0.0.1:{port}/"
            await asyncio.gather(*(client.post(url, body=b"", headers={}) for _ in range(5)))
            async with asyncio.timeout(60):
                while len(ended) < 5:
                    await asyncio.sleep(0.01)
            await client.close()
            return client._idle_count

    assert run(main()) == 0
    assert len(connections) == 5


def test_who_leaves_takes_the_connection_along(run):
    async def main() -> None:
        arrived, closed = asyncio.Event(), asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            arrived.set()
            assert await reader.read() == b""
            closed.set()

        async with receiver(handle) as port:
            client = Outbound(LOOPBACK)
            task = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", body=b"", headers={}))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(closed.wait(), 60)
            await client.close()

    run(main())


# ---- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator makes a private authority known."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def context_of(certificate: trustme.LeafCert, names: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    return context


def encrypted(run: Any, certificate: trustme.LeafCert, host: str = "a.example") -> tuple[Exchange, list[str | None]]:
    names: list[str | None] = []

    async def main() -> Exchange:
        async with receiver(answering(OK), ssl=context_of(certificate, names)) as port:
            client = Outbound(LOOPBACK, resolver=resolving(["127.0.0.1"])[0])
            found = await client.post(f"https://{host}:{port}/", body=b"{}", headers={}, timeout=60)
            await client.close()
            return found

    return run(main()), names


def test_a_certificate_of_the_name(run, authority, trusting):
    found, names = encrypted(run, authority.issue_cert("a.example"))
    assert (found.status, found.error, names) == (200, None, ["a.example"])
    assert str(found.address).startswith("127.0.0.1:")
    assert "tls" in found.phases


def test_a_certificate_of_an_address(run, authority, trusting):
    assert encrypted(run, authority.issue_cert("127.0.0.1"), "127.0.0.1")[0].ok


@pytest.mark.parametrize("fault", ["expired", "other-name", "address-of-the-name", "self-signed", "early"])
def test_a_certificate_that_proves_nothing(run, authority, trusting, fault):
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = {
        "expired": lambda: authority.issue_cert("a.example", not_before=now - 2 * day, not_after=now - day),
        "early": lambda: authority.issue_cert("a.example", not_before=now + day, not_after=now + 2 * day),
        "other-name": lambda: authority.issue_cert("b.example"),
        "address-of-the-name": lambda: authority.issue_cert("127.0.0.1"),
        "self-signed": lambda: trustme.CA().issue_cert("a.example"),
    }[fault]()
    found, _ = encrypted(run, certificate)
    assert (found.status, found.error) == (None, "tls_failure")
    assert "certificate verification failed" in str(found.detail)


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\x00" * 50, b""]
)
def test_what_is_not_tls(run, text):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(text)

    async def main() -> Exchange:
        async with receiver(handle) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(f"https://127.0.0.1:{port}/", body=b"{}", headers={}, timeout=60)
            await client.close()
            return found

    assert run(main()).error == "tls_failure"


def test_a_handshake_that_never_ends(run):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> Exchange:
        async with receiver(handle) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(f"https://127.0.0.1:{port}/", body=b"{}", headers={}, timeout=0.2)
            await client.close()
            return found

    assert run(main()).error == "timeout"


def test_reading_stops_at_the_cap_through_tls_too(run, authority, trusting):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"z" * 65536)
            await writer.drain()

    async def main() -> Exchange:
        async with receiver(handle, ssl=context_of(authority.issue_cert("127.0.0.1"), [])) as port:
            client = Outbound(LOOPBACK)
            found = await client.post(f"https://127.0.0.1:{port}/", body=b"{}", headers={}, timeout=60)
            await client.close()
            return found

    found = run(main())
    assert (found.status, found.truncated, len(found.body)) == (200, True, 16384)


# ---- through a proxy -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxy(asked: list[str], leads_to: dict[str, int], refusal: bytes = b"") -> AsyncIterator[str]:
    """A proxy that connects names to ports of this machine; its URL."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, _ = await read_request(reader)
        method, target, _ = first.split(" ")
        asked.append(f"{method} {target}")
        if refusal:
            writer.write(refusal)
            return
        there, back = await asyncio.open_connection("127.0.0.1", leads_to[target])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            back.transport.abort()

    async with receiver(handle) as port:
        yield f"http://127.0.0.1:{port}"


def test_through_a_proxy(run, authority, trusting):
    asked: list[str] = []
    names: list[str | None] = []
    connections: list[list[str]] = []

    async def main() -> list[Exchange]:
        secure = context_of(authority.issue_cert("b.example"), names)
        async with receiver(serving_many(connections)) as plain, receiver(answering(OK), ssl=secure) as encrypted:
            leads_to = {"a.example:80": plain, "b.example:443": encrypted}
            async with proxy(asked, leads_to) as url:
                client = Outbound(proxy=url, resolver=resolving(AssertionError("looked up"))[0])
                urls = [
                    "http://a.example/",
                    "http://a.example/",
                    "https://b.example/",
                    "http://10.0.0.1/",
                    "http://0x7f.1/",
                ]
                found = [await client.post(url, body=b"{}", headers={}, timeout=60) for url in urls]
                await client.close()
                return found

    found = run(main())
    assert [exchange.error for exchange in found] == [None, None, None, "denied_address", "bad_url"]
    assert [exchange.reused for exchange in found[:3]] == [False, True, False]
    assert asked == ["CONNECT a.example:80", "CONNECT b.example:443"]
    assert connections == [["POST / HTTP/1.1 a.example"] * 2]
    assert names == ["b.example"]


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 407 No\r\n\r\n",
    ],
)
def test_a_proxy_that_refuses(run, refusal):
    async def main() -> Exchange:
        async with proxy([], {}, refusal) as url:
            client = Outbound(proxy=url)
            found = await client.post("https://a.example/", body=b"{}", headers={}, timeout=60)
            await client.close()
            return found

    found = run(main())
    assert (found.error, found.status) == ("connect_failed", None)
    assert "proxy" in found.detail


def test_no_proxy(run):
    found = run(Outbound(proxy="http://127.0.0.1:9").post("https://a.example/", body=b"", headers={}))
    assert (found.error, found.address) == ("connect_failed", "127.0.0.1:9")


@pytest.mark.parametrize(
    "url", ["proxy:80", "https://proxy:80", "http://u:p@proxy:80", "http://proxy", "http://proxy:99999"]
)
def test_what_is_not_a_proxy(url):
    with pytest.raises(ValueError, match="http://host:port"):
        Outbound(proxy=url)


# ---- what is left behind, and what is configured ---------------------------------------------------------------------


def test_no_exchange_leaves_anything_open(run):
    """Descriptors are counted: what a loop in C keeps open, no warning of Python's tells."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    async def main() -> tuple[int, int, list[Exchange]]:
        found: list[Exchange] = []
        endless = answering(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 99999)
        handlers = [answering(OK), answering(b"nonsense\r\n\r\n"), endless, mute, rude]
        async with contextlib.AsyncExitStack() as opened:
            ports = [await opened.enter_async_context(receiver(handle)) for handle in handlers]
            for round_number in range(6):
                client = Outbound(LOOPBACK)
                for scheme in ("http", "https"):
                    for handle, port in zip(handlers, ports, strict=True):
                        # Who reads no head, or waits for the end of one where a handshake comes, never answers.
                        never = handle is mute or (scheme == "https" and handle is not rude)
                        url = f"{scheme}://127.0.0.1:{port}/"
                        found.append(await client.post(url, body=b"{}", headers={}, timeout=0.05 if never else 60))
                found.append(await client.post(f"http://127.0.0.3:{ports[0]}/", body=b"", headers={}))
                await client.close()
                await asyncio.sleep(0.05)
                if round_number == 0:
                    before = len(os.listdir("/proc/self/fd"))
            for _ in range(6000):  # the other sides close theirs, too, if not at once
                after = len(os.listdir("/proc/self/fd"))
                if after <= before:
                    break
                await asyncio.sleep(0.01)
        return before, after, found

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list open descriptors")
    before, after, found = run(main())
    assert after <= before
    expected = {None, "malformed_response", "timeout", "tls_failure", "connect_failed", "reset"}
    assert {exchange.error for exchange in found} == expected


def test_settings():
    assert [str(network) for network in parse_outbound("127.0.0.0/8, 10.1.2.3/32,::1")] == [
        "127.0.0.0/8",
        "10.1.2.3/32",
        "::1/128",
    ]
    assert parse_outbound("") == ()
    for text in ("localhost", "10.0.0.0/33", "10.0.0", "10.0.0.0/8;::1"):
        with pytest.raises(ConfigError, match="TASKADE_OUTBOUND_ALLOW"):
            parse_outbound(text)
    check(Config(outbound_proxy="http://proxy.example:4750"))
    with pytest.raises(ConfigError, match="TASKADE_OUTBOUND_PROXY"):
        check(Config(outbound_proxy="https://proxy.example"))


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize(
    ("variable", "value"), [("TASKADE_OUTBOUND_ALLOW", "10.0.0.0/99"), ("TASKADE_OUTBOUND_PROXY", "proxy:80")]
)
def test_a_wrong_setting_is_one_line(command, variable, value, tmp_path):
    (tmp_path / "taskade.db").touch()
    done = CliRunner().invoke(main, [command, "--data", str(tmp_path)], env={variable: value})
    assert done.exit_code == 1
    assert variable in done.output
    assert len(done.output.strip().split("\n")) == 1


def test_every_error_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "guides" / "outbound.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z_]+)` \|", page, re.M) == list(ERRORS)
