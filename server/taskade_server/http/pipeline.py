"""From a request to its answer: route, credential, limits, body, one unit of work, reply. Every route takes this road.

Why authentication happens inside the unit: the right that a write needs may go while its body is on its way, and a
replay of an earlier answer needs it as much as the first attempt did.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.refusals import Refusals
from taskade_server.domain import tasks
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http import audit, batch, events, observe, once, realtime, resources, tickets, wire
from taskade_server.http.addresses import DIRECT, Proxies
from taskade_server.http.cache import Key, Question, ResponseCache
from taskade_server.http.credentials import Credentials, challenge
from taskade_server.http.limits import Limits
from taskade_server.http.live import Hub, Session
from taskade_server.http.observe import Observer
from taskade_server.http.once import Once
from taskade_server.http.realtime import Connection
from taskade_server.http.routes import Route, Table, all_routes
from taskade_server.http.wire import Call, ClientGone, Receive, Reply, Request, Scope, Send, Stream
from taskade_server.kit import json
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.kit.errors import (
    Behind,
    Clash,
    Internal,
    Invalid,
    InvalidQuery,
    Issue,
    Malformed,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    OutcomeUnknown,
    Problem,
    RateLimited,
    TooExpensive,
    Unauthenticated,
    Unavailable,
    did_you_mean,
)
from taskade_server.store import database as store
from taskade_server.store.database import Database, Tx

logger: Final = logging.getLogger("taskade")
Page = Callable[[Request], Awaitable[Reply]]
VISIBLE_SECONDS: Final = 5.0
REPLICA_SECONDS: Final = 0.2
CACHE_BYTES: Final = 32 << 20
_NOBODY: Final = Principal("", None, frozenset(), {}, None)
"""Stands in a call until the caller is known."""


SOCKET: Final = Route("GET", "/realtime", "realtime", "", events.listing, tasks.TASK, "Subscribe on a WebSocket")
"""Not in the table: OpenAPI has no words for what is said on a WebSocket."""


class _DryRun(Exception):
    """Ends a unit that shall leave nothing behind, and carries what it would have answered."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Pipeline:
    """The ASGI application. `pages` answers paths outside /v1 by exact path, `page_prefixes` by their beginning."""

    def __init__(
        self,
        db: Database,
        secret: bytes,
        *,
        limits: Limits,
        pages: dict[str, Page],
        page_prefixes: dict[str, Page],
        observer: Observer | None = None,
        public_url: str | None = None,
        proxies: Proxies = DIRECT,
        replica: Database | None = None,
        feed: Feed | None = None,
        refusals: Refusals | None = None,
        destinations: Rules = NOWHERE_INSIDE,
        hub: Hub | None = None,
    ) -> None:
        self.db = db
        self.secret = secret
        self.limits = limits
        self.pages = pages
        self.page_prefixes = page_prefixes
        self.observer = observer
        self.public_url = public_url
        self.proxies = proxies
        self.replica = replica
        self.feed = feed
        self.refusals = refusals
        self.destinations = destinations
        self.hub = hub
        self.cache = ResponseCache(CACHE_BYTES)
        self.table = Table(all_routes())
        self.credentials = Credentials(db, secret, limits)
        self.replays = 0
        self._under_way: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] != "http":
            return
        request, status, sent = Request(scope, self.proxies), 499, 0
        observer, began = self.observer, time.perf_counter()
        if observer is not None:
            observer.started()
        try:
            try:
                if len(request.headers) != len(scope["headers"]):
                    wire.check_headers(request)
                reply = self._at_once(request) or await self._answer(request, receive)
            except Exception as error:
                reply = self._refused(request, error)
            if isinstance(reply, Stream):
                status = 200
                sent = await self._stream(request, reply, receive, send)
                return
            try:
                sent = await wire.send(request, reply, send)
            except Problem as refusal:  # the guard has no room for the answer
                reply = problem_reply(request, refusal)
                sent = await wire.send(request, reply, send)
            status = reply.status
        finally:
            if observer is not None:
                observer.finished(request, request.operation, status, time.perf_counter() - began, sent)

    async def _stream(self, request: Request, stream: Stream, receive: Receive, send: Send) -> int:
        """What is wrong by now can only be told by the end."""
        try:
            sent, slow = await wire.send_stream(request, stream, receive, send)
            if slow and self.hub is not None:
                self.hub.evict(request)
            return sent
        except Exception as error:
            as_problem(error, request)
            return 0

    def _refused(self, request: Request, error: Exception) -> Reply:
        if isinstance(error, ClientGone):
            # Perhaps only its sending half is closed, and it still listens.
            return problem_reply(request, Malformed("The body ended before it was complete; nothing was written."))
        problem = as_problem(error, request)
        if self.refusals is not None and isinstance(problem, Problem):
            audit.note_refusal(self.refusals, request, problem)
        return problem_reply(request, problem)

    def _at_once(self, request: Request) -> Reply | None:
        """The answer to a list that is asked for again while nothing at all was committed: it takes no unit of work."""
        if not self.cache.knows(request.path):
            return None
        entry = self.cache.recent(request.path, self._question(request))
        if entry is None or entry.stamp != self.db.changed() or not entry.stamp:
            return None
        principal = self.credentials.known_principal(request, entry.epoch)
        if principal is None or not wire.accepts_json(request.header(b"accept")):
            return None
        request.operation = entry.operation
        self._charge(request, principal)
        reply = self._hit(entry.reply, request.headers.get(b"if-none-match"))
        if reply.status == 304:
            self._give_back(request)
        return reply

    @staticmethod
    def _question(request: Request) -> Question:
        """All that a list's answer depends on beside its path, links included, as the client has spelled it."""
        header, query = request.headers.get, request.scope["query_string"]
        return header(b"authorization"), request.method, query, header(b"host"), header(b"x-forwarded-proto")

    async def _answer(self, request: Request, receive: Receive) -> Reply | Stream:
        try:
            route, parameters = self._route(request)
        except (NotFound, MethodNotAllowed):
            await self._charge_address(request)
            raise
        if route is None:
            return await self._page(request)
        request.operation = route.operation_id
        accept = request.headers.get(b"accept")
        if accept is not None and not wire.accepts(accept.decode("latin-1"), route.media):
            raise NotAcceptable(f"This answer has the type {' or '.join(route.media)}.")
        call = Call(_NOBODY, self.secret, request.request_id, parameters, request.query_string)
        if b"if-match" in request.headers:
            call.if_match = wire.versions(request.headers[b"if-match"])
            if not route.versioned:
                detail = "If-Match names the version of one object to change, which this request has not; leave it out."
                raise Malformed(detail, errors=[Issue("not_allowed", detail, parameter="If-Match")])
        if route.answer in ("list", "document", "events"):
            call.url = f"{self.public_url or request.base_url}{request.path}"
        if route.writes:
            call.unless_match = wire.versions(request.headers.get(b"if-none-match"))
            call.address = request.client
            call.destinations = self.destinations
            call.user_agent = request.header(b"user-agent")[: wire.MAX_USER_AGENT] or None
            return await self._write(route, request, call, receive)
        call.if_none_match = request.headers.get(b"if-none-match")
        if route.body:
            await self._receive(route, request, call, receive)
        if route.answer == "stream":
            self._accept_ticket(request, call)
        if route.live is not None and self.hub is not None:
            return await self._live(route.live, self.hub, route, request, call)
        wanted = call.take("min_seq") if call.query_string else None
        if wanted is not None:
            reply = await self._read_from(wanted, route, request, call)
        else:
            reply = await self.db.read(partial(self._read, route, request, call), snapshot=_snapshot(route, call))
        if route.noted:
            self._note_reading(route, request)
        return reply

    def _note_reading(self, route: Route, request: Request) -> None:
        if self.refusals is not None:
            audit.note_reading(self.refusals, request, route.noted)

    async def _live(
        self, answer: Callable[[Session], Awaitable[Reply | Stream]], hub: Hub, route: Route, request: Request,
        call: Call,
    ) -> Reply | Stream:  # fmt: skip
        """An answer that takes its time; `min_seq` is over by the time it begins."""
        wanted = call.take("min_seq")
        if wanted is not None:
            positions = await self.db.read(lambda tx: self._positions(wanted, route, request, call, tx))
            if not await self._reaches(self.db, positions, VISIBLE_SECONDS):
                raise _behind(wanted)
        reply = await answer(self._session(hub, route, request, call))
        if route.noted:
            self._note_reading(route, request)
        return reply

    def _session(self, hub: Hub, route: Route, request: Request, call: Call) -> Session:
        return Session(hub, self.credentials, partial(self._admit, route, request, call), request, call, self.limits)

    async def socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a WebSocket, which is logged as a request when it ends."""
        request, status = Request({**scope, "method": "GET"}, self.proxies), 499
        observer, began = self.observer, time.perf_counter()
        if observer is not None:
            observer.started()
        try:
            await receive()  # that it would like to connect
            try:
                session = await self._invite(request)
                leave = session.enter()
            except Exception as error:
                reply = self._refused(request, error)
                status = reply.status
                await wire.send(request, reply, partial(_denied, send))
                return
            status = 101
            try:
                await send({"type": "websocket.accept"})
                await Connection(session, receive, send).run()
            finally:
                leave()
        finally:
            if observer is not None:
                observer.finished(request, request.operation, status, time.perf_counter() - began, 0)

    async def _invite(self, request: Request) -> Session:
        """The session of who may have a WebSocket."""
        if len(request.headers) != len(request.scope["headers"]):
            wire.check_headers(request)
        if request.path not in realtime.PATHS or self.hub is None:
            await self._charge_address(request)
            raise NotFound(f"There is no WebSocket at {request.path[:200]}; it is at {realtime.PATHS[-1]}.")
        request.operation = SOCKET.operation_id
        call = Call(_NOBODY, self.secret, request.request_id, [], request.query_string)
        self._accept_ticket(request, call)
        call.no_parameters()
        session = self._session(self.hub, SOCKET, request, call)
        await session.read(lambda call, tx: None)
        return session

    def _accept_ticket(self, request: Request, call: Call) -> None:
        """A ticket in the address stands for the header that a browser's stream cannot send."""
        ticket = call.take("ticket")
        if ticket is None:
            return
        if request.credential:
            detail = "Send either a ticket or the header Authorization."
            raise InvalidQuery(errors=[Issue("not_allowed", detail, parameter="ticket")])
        try:
            request.credential = tickets.credential(self.secret, ticket)
        except Unauthenticated as error:
            request.limits = self.limits.anonymous(request.client)
            raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error

    def _route(self, request: Request) -> tuple[Route | None, list[str]]:
        path = request.path
        if not path.startswith("/v1/"):
            return None, []
        routes, parameters = self._find(path[4:], path)
        route = routes.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            methods = sorted({*routes, "OPTIONS", *(["HEAD"] if "GET" in routes else [])})
            if request.method == "OPTIONS":
                raise _Preflight(methods)
            raise MethodNotAllowed(
                f"{path[:200]} supports {', '.join(methods)}.", headers={"allow": ", ".join(methods)}
            )
        return route, parameters

    def _find(self, below: str, path: str) -> tuple[dict[str, Route], list[str]]:
        found = self.table.find(below)
        if path in realtime.PATHS:
            raise NotFound(f"{path} is a WebSocket: open it as one, at ws:// or wss://.")
        if found is None:
            first = below.partition("/")[0]
            hint = did_you_mean(first, self.table.paths()) if first not in self.table.paths() else ""
            raise NotFound(f"There is no path {path[:200]}.{hint} GET /openapi.json lists them all.")
        if "\x00" in below:
            raise NotFound("No id contains NUL (%00).")  # and PostgreSQL could not even be asked
        return found

    async def _page(self, request: Request) -> Reply:
        path = request.path
        page = self.pages.get(path)
        if page is None:
            path = next((start for start in self.page_prefixes if request.path.startswith(start)), "")
            page = self.page_prefixes.get(path)
        request.operation = path if page is not None else ""
        if request.operation not in observe.PROBES:
            await self._charge_address(request)
        if page is not None:
            if request.method == "OPTIONS":
                raise _Preflight(["GET", "HEAD", "OPTIONS"])
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(
                    f"{request.path[:200]} supports GET and HEAD.", headers={"allow": "GET, HEAD, OPTIONS"}
                )
            return await page(request)
        first = request.path.strip("/").partition("/")[0]
        hint = f" Did you mean /v1{request.path[:100]}?" if first in self.table.paths() else ""
        raise NotFound(f"There is no path {request.path[:200]}.{hint}")

    async def _charge_address(self, request: Request) -> None:
        """For what takes no key, or has not come as far as to need one."""
        charge = partial(self.limits.anonymous, request.client)
        request.limits = await asyncio.to_thread(charge) if self.limits.waits else charge()

    def _admit(self, route: Route, request: Request, call: Call, tx: Tx) -> None:
        """Who calls, whether the key covers the route, and whether its budget does."""
        self._welcome(route, request, call, self.credentials.principal(tx, request))

    def _welcome(self, route: Route, request: Request, call: Call, principal: Principal) -> None:
        call.principal, call.epoch = principal, request.epoch
        if request.charge is None:
            self._charge(request, principal, batch.MAX_OPERATIONS if route.body == "batch" else 1)
        resources.require(call, route.scope)

    async def _receive(
        self, route: Route, request: Request, call: Call, receive: Receive, *, patch: bool = False
    ) -> None:  # fmt: skip
        """Let the caller in and read the body. The unit asks again, so whoever is known need not be asked about before.

        Only a refusal is never given by what was known. A batch is charged by its length, and asks at once.
        """
        presumed = route.body != "batch" and await self._presume(route, request, call)
        if not presumed:
            await self.db.read(partial(self._admit, route, request, call))
        try:
            call.body = await wire.read_json(request, receive, route.max_body, patch=patch)
        except Problem:
            if presumed:
                request.caller = None
                await self.db.read(partial(self._admit, route, request, call))
            raise

    async def _presume(self, route: Route, request: Request, call: Call) -> bool:
        """Let in who is known, charge included; False if he is not known, or perhaps not refused by now."""
        try:
            principal = self.credentials.presumed(request)
            if principal is None:
                return False
            welcome = partial(self._welcome, route, request, call, principal)
            if self.limits.waits:
                await asyncio.to_thread(welcome)
            else:
                welcome()
        except Problem as problem:
            if isinstance(problem, RateLimited) and await self.db.read(log.rights) == request.epoch:
                raise
            request.caller = None
            return False
        return True

    def _charge(self, request: Request, principal: Principal, might_cost: int = 1) -> None:
        caller = principal.key_id or principal.user_id
        charge = request.charge = self.limits.charge(caller, 1, principal.rate, might_cost)
        request.limits = charge.headers

    @staticmethod
    def _give_back(request: Request) -> None:
        """A 304 or a replay costs nothing."""
        request.limits = request.charge.give_back()

    # -- reading

    def _read(self, route: Route, request: Request, call: Call, tx: Tx) -> Reply:
        self._admit(route, request, call, tx)
        reply = self._cached(route, request, call, tx) if route.listing else route.handler(call, tx)
        if reply.status == 304:
            self._give_back(request)
        return reply

    def _cached(self, route: Route, request: Request, call: Call, tx: Tx) -> Reply:
        """A list, from the cache when nothing that the caller can see has changed since."""
        caller = call.principal.key_id or call.principal.user_id
        key: Key = (caller, request.epoch, call.url, call.query_string, request.method)
        entry = self.cache.get(key)
        if entry is not None:
            if request.stamp and entry.stamp == request.stamp:
                return self._hit(entry.reply, call.if_none_match)
            if self.cache.holds(entry, log.heads(tx, entry.workspaces)):
                entry.stamp = request.stamp
                return self._hit(entry.reply, call.if_none_match)
        self.cache.misses += 1
        reply = route.handler(call, tx)
        if reply.etag and reply.status == 200:
            self.cache.put(key, request.path, self._question(request), request.operation, reply, request.stamp)
        return reply

    def _hit(self, reply: Reply, if_none_match: bytes | None) -> Reply:
        self.cache.hits += 1
        if if_none_match is not None and wire.names_etag(if_none_match, reply.etag):
            return Reply(304, None, [(b"etag", reply.etag.encode())])
        return reply

    async def _read_from(self, wanted: str, route: Route, request: Request, call: Call) -> Reply:
        """A read that must see the positions in `min_seq`: on the replica if that is there yet, else here."""
        positions = await self.db.read(lambda tx: self._positions(wanted, route, request, call, tx))
        if self.replica is not None and await self._reaches(self.replica, positions, REPLICA_SECONDS):
            # The caller is known from the primary, where a revoked right is gone at once.
            try:
                reply = await self.replica.read(partial(route.handler, call), snapshot=True)
                if reply.status == 304:
                    self._give_back(request)
                return reply
            except store.Unavailable:
                logger.warning("The replica does not answer; the primary does its work.")
        if not await self._reaches(self.db, positions, VISIBLE_SECONDS):
            raise _behind(wanted)
        return await self.db.read(partial(self._read, route, request, call), snapshot=_snapshot(route, call))

    def _positions(self, wanted: str, route: Route, request: Request, call: Call, tx: Tx) -> list[tuple[str, int]]:
        self._admit(route, request, call, tx)
        found = []
        for part in wanted.split(","):
            name, _, seq = part.strip().rpartition(":")
            workspace_id = name or call.principal.default_workspace or ""
            if not seq.isdecimal() or len(seq) > 18 or workspace_id not in call.principal.grants:
                detail = "min_seq is the Commit-Seq of an earlier answer: <workspace>:<number>, or a number alone."
                raise InvalidQuery(errors=[Issue("invalid_format", detail, parameter="min_seq")])
            found.append((workspace_id, int(seq)))
        return found

    async def _reaches(self, db: Database, positions: list[tuple[str, int]], seconds: float) -> bool:
        until, pause = time.monotonic() + seconds, 0.005
        while True:
            try:
                if await db.read(lambda tx: all(log.head(tx, name) >= seq for name, seq in positions)):
                    return True
            except store.Unavailable:
                if db is self.db:
                    raise
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.25)

    # -- writing

    async def _write(self, route: Route, request: Request, call: Call, receive: Receive) -> Reply:
        key = once.key_of(request)
        dry_run = _flag(call.take("dry_run"))
        json_patch = route.body == "patch" and route.method == "PATCH"
        await self._receive(route, request, call, receive, patch=json_patch)
        heavy = route.heavy
        if route.body == "batch":
            heavy, cost = batch.is_heavy(call.body), batch.cost(call.body)
            request.limits = []  # a refusal brings its own
            if self.limits.waits:
                request.limits = await asyncio.to_thread(request.charge.raise_to, cost)
            else:
                request.limits = request.charge.raise_to(cost)
            refreshed = partial(self.credentials.refreshed, request=request)
            call.batch = batch.Api(self._operation, refreshed, self.public_url or request.base_url)
        attempt = once.attempt(key, request, call) if key and not dry_run else None
        call.seed = once.seed(attempt)
        unit = partial(self._unit, route, request, call, attempt, dry_run)
        if attempt is None:
            try:
                return await self._commit(unit, heavy)
            except _DryRun as done:
                return done.reply
        if attempt.key in self._under_way:
            raise once.in_use()
        self._under_way.add(attempt.key)
        try:
            return await self._commit(unit, heavy)
        finally:
            self._under_way.discard(attempt.key)

    async def _commit(self, unit: Callable[[Tx], Reply], heavy: bool) -> Reply:
        reply = await self.db.write(unit, heavy=heavy)
        if self.feed is not None:
            self.feed.poke()
        return reply

    def _unit(
        self, route: Route, request: Request, call: Call, attempt: Once | None, dry_run: bool, tx: Tx
    ) -> Reply:  # fmt: skip
        # Once more inside the transaction: the right may have gone while the body was on its way.
        request.caller = None
        call.principal = self.credentials.principal(tx, request)
        resources.require(call, route.scope)
        known = None if attempt is None else once.recall(tx, attempt, call)
        if known is not None:
            if route.body == "batch":
                batch.require_scopes(call)
            self._give_back(request)
            self.replays += 1
            return known
        reply = route.handler(call, tx)
        if wire.prefers_minimal(request):
            reply = _minimal(reply)
        if dry_run:
            reply.headers.append((b"dry-run", b"true"))
            raise _DryRun(reply)
        # At the end of the unit, where the positions are known.
        tx.before_commit.append(partial(self._seal, route, request, call, attempt, reply, tx))
        return reply

    def _seal(
        self, route: Route, request: Request, call: Call, attempt: Once | None, reply: Reply, tx: Tx
    ) -> None:  # fmt: skip
        seqs = log.commit_seqs(tx)
        if seqs:
            reply.headers.append((b"commit-seq", ", ".join(f"{name}:{seq}" for name, seq in seqs.items()).encode()))
        if attempt is not None:
            try:
                after = self.credentials.refreshed(tx, request) if log.altered_grants(tx) else call.principal
            except Problem:  # the caller has just ended his own rights
                after = _NOBODY
            reads = route.body == "batch" or bool(call.query_string)
            once.remember(tx, attempt, after, reply, self.secret, reads=reads)

    def _operation(self, method: str, path: str) -> tuple[batch.Target, list[str]]:
        """The route of an operation of a batch. NotFound, MethodNotAllowed, or Invalid if it cannot be part of one."""
        routes, parameters = self._find(unquote(path.lstrip("/")), path)
        route = routes.get(method)
        if route is None:
            raise MethodNotAllowed(f"{path[:200]} supports {', '.join(sorted(routes))}.")
        if not route.batchable:
            raise Invalid(f"{method} {path[:200]} cannot be part of a batch.")
        return batch.Target(
            route.handler, route.scope, route.operation_id, bool(route.body), route.versioned
        ), parameters


async def _denied(send: Send, message: MutableMapping[str, Any]) -> None:
    """A part of the answer to who will not get a WebSocket."""
    await send({**message, "type": f"websocket.{message['type']}"})


def _snapshot(route: Route, call: Call) -> bool:
    """Whether a read takes several statements that have to agree."""
    return route.consistent or bool(call.query_string)


def _behind(wanted: str) -> Behind:
    detail = f"The position {wanted[:200]} was not reached within {VISIBLE_SECONDS:.0f} s."
    return Behind(detail, headers={"retry-after": "1"})


def _flag(text: str | None) -> bool:
    if text not in (None, "true", "false", "1", "0", ""):
        raise InvalidQuery(
            errors=[Issue("invalid_value", "dry_run is true or false.", parameter="dry_run")]
        )  # fmt: skip
    return text in ("true", "1", "")


def _minimal(reply: Reply) -> Reply:
    """The same without a body (RFC 7240); what only this answer will ever hold is given all the same."""
    if reply.secret or reply.body is None or reply.status not in (200, 201):
        return reply
    status = 204 if reply.status == 200 else reply.status
    return Reply(status, None, [*reply.headers, (b"preference-applied", b"return=minimal")])


class _Preflight(Exception):
    """OPTIONS: answered with what the path supports."""

    def __init__(self, methods: list[str]) -> None:
        super().__init__()
        self.methods = methods


def as_problem(error: Exception, request: Request) -> Problem | _Preflight:
    """What a client is told of an exception; whatever is not foreseen is logged and told nothing of."""
    if isinstance(error, Problem | _Preflight):
        return error
    retry = {"retry-after": "1"}
    if isinstance(error, store.OutcomeUnknown):
        return OutcomeUnknown(headers={"retry-after": "2"})
    if isinstance(error, store.QueryTooExpensive):
        return TooExpensive(headers=retry)
    if isinstance(error, store.StorageFull):
        return Unavailable("The disk of the server is full; nothing was written.", headers={"retry-after": "60"})
    if isinstance(error, store.Unavailable):
        return Unavailable(headers=retry)
    if isinstance(error, store.Conflict):
        return Clash("Another object has the same unique value; nothing was written.")
    logger.error("%s %s failed", request.method, request.path, exc_info=error, extra={"request_id": request.request_id})
    return Internal()


def problem_reply(request: Request, problem: Problem | _Preflight) -> Reply:
    """An RFC 9457 document with the problem's headers."""
    if isinstance(problem, _Preflight):
        return Reply(204, None, wire.preflight(problem.methods))
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers.items()]
    document: dict[str, Any] = problem.to_dict(request.path[:500], request.request_id)
    try:
        body = json.encode(document)
    except (UnicodeEncodeError, ValueError):
        body = json.encode({**document, "instance": "", "errors": [], "detail": problem.title})
    return Reply(problem.status, body, headers, wire.PROBLEM_TYPE)
