"""Connections through an HTTP proxy (CONNECT, RFC 9110, section 9.3.6)."""

import asyncio
import socket
from typing import Final

import h11

from taskade_server import __version__
from taskade_server.kit.destinations import Destination
from taskade_server.outbound.connection import SOCKET_BYTES, Failed, Limits, reason

USER_AGENT: Final = f"Taskade-API-server/{__version__}"


async def connected(host: str, port: int) -> socket.socket:
    """A socket connected to a numeric address."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def through_proxy(sock: socket.socket, destination: Destination, limits: Limits) -> None:
    """Have the proxy connect the socket to a destination. Failed if it does not; the socket is closed then."""
    loop = asyncio.get_running_loop()
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head)
    target = f"[{destination.host}]" if ":" in destination.host else destination.host
    target = f"{target}:{destination.port}"
    try:
        request = h11.Request(method="CONNECT", target=target, headers=[("Host", target), ("User-Agent", USER_AGENT)])
        await loop.sock_sendall(sock, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        while True:
            event = http.next_event()
            if isinstance(event, h11.Response):
                break
            if event is h11.NEED_DATA:
                http.receive_data(await loop.sock_recv(sock, 4096))
        if not 200 <= event.status_code < 300:
            raise Failed("connect_failed", f"The proxy refused to connect to {target}: {event.status_code}.")
        if http.trailing_data[0]:
            raise Failed("malformed_response", "The proxy spoke before it was spoken to.")
    except (OSError, h11.RemoteProtocolError) as error:
        sock.close()
        raise Failed("connect_failed", f"The proxy did not connect to {target}: {reason(error)}.") from error
    except BaseException:
        sock.close()
        raise
