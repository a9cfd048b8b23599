"""The ASGI application: each request from its bytes to its answer, told to the log and the metrics at the end.

`dispatch` finds what answers a request, `reads` and `writes` answer it, `problems` tell what is wrong with it.
"""

import time
from collections.abc import Awaitable, MutableMapping
from functools import partial
from typing import Any, Final

import msgspec

from taskade_server.engine.access import Principal
from taskade_server.http.admission.caller import Caller
from taskade_server.http.live import websocket
from taskade_server.http.live.sessions import Session
from taskade_server.http.live.websocket import Connection
from taskade_server.http.observe import requests as request_log
from taskade_server.http.pages.mounts import Mounts
from taskade_server.http.pipeline.dispatch import API, Dispatch
from taskade_server.http.pipeline.problems import as_problem, problem_reply
from taskade_server.http.pipeline.reads import Reads, accept_ticket
from taskade_server.http.pipeline.refusals import note_refusal
from taskade_server.http.pipeline.services import Services
from taskade_server.http.pipeline.writes import Writes, no_version
from taskade_server.http.wire.body import ClientGone
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import accepts
from taskade_server.http.wire.query_string import refuse_parameters
from taskade_server.http.wire.reply import Reply, Stream
from taskade_server.http.wire.request import Receive, Request, Scope, Send, check_headers
from taskade_server.http.wire.send import send as send_reply
from taskade_server.http.wire.send import send_stream
from taskade_server.kit.errors import Malformed, MethodNotAllowed, NotAcceptable, NotFound, Problem

_NOT_SENT: Final = 499
"""What the log shows of a request whose client has gone before its answer."""


class _Exchange(msgspec.Struct, eq=False):
    """What is known of one request so far: who makes it, and which operation, or which mount, answers it."""

    request: Request
    caller: Caller
    operation: str = ""

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Exchange({self.request.request_id!r})"


class Pipeline:
    """The ASGI application, made of what the server has and of what is mounted outside /v1."""

    def __init__(self, services: Services, mounts: Mounts) -> None:
        self._services = services
        self.dispatch = Dispatch(mounts)
        self.reads = Reads(services)
        self.writes = Writes(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] != "http":
            return
        path, services = scope["path"], self._services
        if not path.startswith(API):
            mount = self.dispatch.mounts.find(path)
            if mount is not None and mount.application is not None:
                await mount.application(scope, receive, send)
                return
        request = Request(scope, services.proxies)
        credential = request.headers.get(b"authorization", b"")
        exchange = _Exchange(request, Caller(request, services.credentials, credential))
        status, sent = _NOT_SENT, 0
        observer, began = services.observer, time.perf_counter()
        if observer is not None:
            observer.started()
        try:
            reply: Reply | Stream
            try:
                # Headers are a dict: if it has fewer than were sent, one was repeated, which is worth looking at.
                if len(request.headers) != len(scope["headers"]) or not request.headers.get(b"host"):
                    check_headers(request)
                # A list that is asked for again unchanged is answered here, without dispatch or a unit of work.
                entry = self.reads.repeated(exchange.caller)
                if entry is None:
                    reply = await self._answer(exchange, receive)
                else:
                    exchange.operation = entry.operation
                    reply = self.reads.repeat(entry, exchange.caller)
            except Exception as error:
                reply = self._refused(exchange, error)
            if isinstance(reply, Stream):
                status = 200
                sent = await self._stream(exchange, reply, receive, send)
                return
            try:
                sent = await send_reply(request, reply, send, exchange.caller.rate_headers)
            except Problem as refusal:  # the guard has no room for the answer
                reply = problem_reply(request, refusal)
                sent = await send_reply(request, reply, send, exchange.caller.rate_headers)
            status = reply.status
        finally:
            if observer is not None:
                seconds = time.perf_counter() - began
                observer.finished(request, exchange.operation, status, seconds, sent, exchange.caller.key_id)

    def _answer(self, exchange: _Exchange, receive: Receive) -> Awaitable[Reply | Stream]:
        """What answers a request. Raises at once what can be told without waiting; the awaitable raises the rest."""
        request, caller = exchange.request, exchange.caller
        if not request.path.startswith(API):
            return self._answer_mount(exchange, receive)
        try:
            route, path = self.dispatch.route(request)
        except (NotFound, MethodNotAllowed) as problem:
            return _refuse_by_address(caller, problem)
        exchange.operation = route.operation_id
        accept = request.headers.get(b"accept")
        if accept is not None and accept != b"*/*" and not accepts(accept.decode("latin-1"), route.media):
            raise NotAcceptable(f"This answer has the type {' or '.join(route.media)}.")
        if b"if-match" in request.headers and not route.versioned:
            raise no_version("If-Match")
        if route.writes:
            return self.writes.answer(route, path, caller, receive)
        return self.reads.answer(route, path, caller, receive)

    async def _answer_mount(self, exchange: _Exchange, receive: Receive) -> Reply:
        request, dispatch = exchange.request, self.dispatch
        mount = dispatch.mount(request)
        exchange.operation = "" if mount is None else mount.path
        if exchange.operation not in request_log.PROBES:
            await exchange.caller.charge_address()
        return await dispatch.check_method(request, mount).answer(request, receive)

    async def _stream(self, exchange: _Exchange, stream: Stream, receive: Receive, send: Send) -> int:
        """Send a stream; how many bytes it had. What goes wrong by now can only be told by its end."""
        request, hub = exchange.request, self._services.hub
        try:
            sent, slow = await send_stream(request, stream, receive, send, exchange.caller.rate_headers)
            if slow and hub is not None:
                hub.evict(request)
            return sent
        except Exception as error:
            as_problem(error, request)
            return 0

    def _refused(self, exchange: _Exchange, error: Exception) -> Reply:
        request, refusals = exchange.request, self._services.refusals
        if isinstance(error, ClientGone):
            # Perhaps only its sending half is closed, and it still listens.
            return problem_reply(request, Malformed("The body ended before it was complete; nothing was written."))
        problem = as_problem(error, request)
        if refusals is not None and isinstance(problem, Problem):
            note_refusal(refusals, exchange.caller, exchange.operation, problem)
        return problem_reply(request, problem)

    # -- WebSockets

    async def socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a WebSocket, which is logged as a request when it ends."""
        services = self._services
        request = Request({**scope, "method": "GET"}, services.proxies)
        credential = request.headers.get(b"authorization", b"")
        exchange = _Exchange(request, Caller(request, services.credentials, credential))
        status = _NOT_SENT
        observer, began = services.observer, time.perf_counter()
        if observer is not None:
            observer.started()
        try:
            await receive()  # the message websocket.connect
            try:
                session = await self._session(exchange)
                leave = session.enter()
            except Exception as error:
                reply = self._refused(exchange, error)
                status = reply.status
                await send_reply(request, reply, partial(_send_denial, send), exchange.caller.rate_headers)
                return
            status = 101
            try:
                await send({"type": "websocket.accept"})
                await Connection(session, receive, send).run()
            finally:
                leave()
        finally:
            if observer is not None:
                seconds = time.perf_counter() - began
                observer.finished(request, exchange.operation, status, seconds, 0, exchange.caller.key_id)

    async def _session(self, exchange: _Exchange) -> Session:
        """The session of a caller who may have a WebSocket; the Problem if they may not."""
        request, caller, services = exchange.request, exchange.caller, self._services
        if len(request.headers) != len(request.scope["headers"]):
            check_headers(request)
        if request.path not in websocket.PATHS or services.hub is None:
            await caller.charge_address()
            raise NotFound(f"There is no WebSocket at {request.path[:200]}; it is at {websocket.PATHS[-1]}.")
        exchange.operation = websocket.OPERATION
        query_string = accept_ticket(caller, request.query_string)
        refuse_parameters(query_string)

        def make_call(principal: Principal) -> Call:
            return Call(principal, services.secret, request.request_id, [])

        session = Session(services.hub, caller, make_call, scope="")
        await session.read(lambda call, tx: None)  # reads nothing, only to have the caller admitted
        return session


async def _refuse_by_address(caller: Caller, problem: Problem) -> Reply:
    """Charge the address, then raise `problem` (an unknown path or method, which needs no key). RateLimited."""
    await caller.charge_address()
    raise problem


async def _send_denial(send: Send, message: MutableMapping[str, Any]) -> None:
    """Send a part of the answer that a client gets in place of a WebSocket."""
    await send({**message, "type": f"websocket.{message['type']}"})
