"""The sending side of a WebSocket: messages one after another, a client that is too slow, and the end."""

import asyncio
from collections.abc import Callable
from typing import Final

from taskade_server.http.live.sse import SLOW_SECONDS
from taskade_server.http.wire.request import Request, Send
from taskade_server.kit import json
from taskade_server.kit.errors import Problem

BYTES_A_SECOND: Final = 64 << 10
"""How fast a client has to take a message, beyond the first seconds."""
# Close codes: 1000-1999 are the protocol's (RFC 6455), 4000-4999 ours.
NORMAL, GOING_AWAY, TOO_BIG, FAULT, TRY_LATER, UNAUTHENTICATED = 1000, 1001, 1009, 1011, 1013, 4401


class Channel:
    """What is sent on one WebSocket. `over` is set once the connection is to end; `evict` is told of a slow client."""

    def __init__(self, request: Request, send: Send, evict: Callable[[Request], None]) -> None:
        self.over = asyncio.Event()
        self._request = request
        self._send = send
        self._evict = evict
        self._turn = asyncio.Lock()
        self._code, self._reason = NORMAL, ""

    async def tell(self, text: str) -> None:
        """Send a message. A client that does not take it is given up."""
        async with self._turn:
            if self.over.is_set():
                return
            try:
                async with asyncio.timeout(SLOW_SECONDS + len(text) / BYTES_A_SECOND):
                    await self._send({"type": "websocket.send", "text": text})
            except TimeoutError:
                self._evict(self._request)
                self.end(TRY_LATER, "too slow")
            except (OSError, RuntimeError):
                self.end(NORMAL, "")  # it is gone

    async def fail(self, problem: Problem, name: str | None = None, kind: str = "error") -> None:
        """Send a problem; `name` is the subscription that it is about, `kind` the type of the message."""
        request = self._request
        document = problem.to_dict(request.path, request.request_id)
        await self.tell(json.encode({"type": kind, "subscription": name, "problem": document}))

    def end(self, code: int, reason: str) -> None:
        """Have the connection end with a close code and a reason, unless it is about to end already."""
        if not self.over.is_set():
            self._code, self._reason = code, reason
            self.over.set()

    async def close(self) -> None:
        """Send the close frame."""
        try:
            async with asyncio.timeout(1.0):
                await self._send({"type": "websocket.close", "code": self._code, "reason": self._reason})
        except Exception:
            pass  # it is gone, or does not read
