"""The least a Python server can do here: Granian, set up as ours is, answers every request with the same bytes.

What remains between this and our server is the price of our own code, and nothing else. Run with a port; the path
says how many bytes to answer with, and which answer of that size: `/600/7`.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server
from taskade_server.http.admission import connections
from taskade_server.kit.defaults import MAX_CONNECTIONS

Message = dict[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def messages(size: int) -> tuple[Message, Message]:
    body = b'{"name":"' + b"x" * (size - 11) + b'"}'
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    return start, {"type": "http.response.body", "body": body}


def application() -> Application:
    known: dict[str, tuple[Message, Message]] = {}

    async def answer(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        path = scope["path"]
        if path not in known:
            known[path] = messages(int(path[1:].partition("/")[0] or 100))
        start, end = known[path]
        await send(start)
        await send(end)

    return answer


async def serve(port: int) -> None:
    # ASGINL only leaves out the start and stop messages; the rest is what taskade_server.serving.process gives Granian.
    server = Server(
        application(),
        port=port,
        interface=Interfaces.ASGINL,
        http=connections.MODE,
        http1_settings=connections.HTTP1,
        websockets=True,
        log_enabled=False,
        backlog=1024,
        backpressure=MAX_CONNECTIONS,
    )
    await server.serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
