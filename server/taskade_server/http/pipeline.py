"""From a request to its answer: route, credential, limits, body, one unit of work, reply. Every route takes this road.

Why authentication happens inside the unit: a revoked key or a lost role takes effect with its commit, on every process,
because the cached principal is good for one value of a counter that is read in the same transaction.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.domain import identity
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http import resources, wire
from taskade_server.http.limits import Limiter
from taskade_server.http.routes import Route, Table, all_routes
from taskade_server.http.wire import Call, ClientGone, Receive, Reply, Request, Scope, Send
from taskade_server.kit import json, time
from taskade_server.kit.errors import (
    Clash,
    Forbidden,
    Internal,
    Malformed,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    OutcomeUnknown,
    Problem,
    TooExpensive,
    Unauthenticated,
    Unavailable,
    did_you_mean,
)
from taskade_server.store import database as store
from taskade_server.store.database import Database, Tx

logger: Final = logging.getLogger("taskade")
_MAX_CACHED: Final = 10_000
Page = Callable[[Request], Awaitable[Reply]]


@dataclass(slots=True)
class _Known:
    """A caller as looked up at one value of the counter that every change of rights raises."""

    epoch: int
    principal: Principal
    networks: list[str]
    expires_at: int | None


@dataclass(slots=True)
class Credentials:
    """Principals by credential, each valid for one state of users, keys and memberships.

    A unit may run on another thread and see an older state than the event loop does, so each entry says which state it
    belongs to instead of the cache being emptied when the state changes.
    """

    db: Database
    secret: bytes
    known: dict[bytes, _Known] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _seen: tuple[int, int] = (0, -1)

    def principal(self, tx: Tx, request: Request) -> Principal:
        """The caller; Unauthenticated or Forbidden. Notes the key as used."""
        epoch = self._epoch(tx)
        credential = request.headers.get(b"authorization", b"")
        known = self.known.get(credential)
        if known is None or known.epoch != epoch:
            known = self._look_up(tx, credential, epoch)
        if known.expires_at is not None and known.expires_at <= time.now_ms():
            raise Unauthenticated("This API key has expired.", headers=_challenge("invalid_token"))
        if known.networks and not identity.ip_allowed(known.networks, request.client):
            raise Forbidden(f"This API key does not work from the address {request.client}.")
        if known.principal.key_id is not None:
            self.used.add(known.principal.key_id)
        return known.principal

    def _epoch(self, tx: Tx) -> int:
        """The state of rights that this unit sees. `changed()` spares most looks at the counter."""
        changed = self.db.changed() if not tx.writable else 0
        if changed and changed == self._seen[0]:
            return self._seen[1]
        row = tx.one("SELECT value FROM counters WHERE name = 'grants'")
        epoch = int(row[0]) if row else 0
        if changed:
            self._seen = (changed, epoch)
        return epoch

    def _look_up(self, tx: Tx, credential: bytes, epoch: int) -> _Known:
        scheme, _, token = credential.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Send the header Authorization: Bearer <API key>.", headers=_challenge(""))
        try:
            known = _Known(epoch, *identity.authenticate(tx, self.secret, token.strip()))
        except Unauthenticated as error:
            raise Unauthenticated(error.detail, headers=_challenge("invalid_token")) from error
        if len(self.known) >= _MAX_CACHED:
            self.known.clear()
        self.known[credential] = known
        return known


def _challenge(error: str) -> dict[str, str]:
    return {"www-authenticate": 'Bearer realm="taskade"' + (f', error="{error}"' if error else "")}


_NOBODY: Final = Principal("", None, frozenset(), {}, None)
"""Stands in a call until the caller is known."""


class Pipeline:
    """The ASGI application. `pages` answers paths outside /v1 by exact path, `page_prefixes` by their beginning."""

    def __init__(self, db: Database, secret: bytes, limiter: Limiter | None, public_url: str | None, pages: dict[str,
    Page],
                 page_prefixes: dict[str, Page]) -> None:  # fmt: skip
        self.db = db
        self.secret = secret
        self.limiter = limiter
        self.public_url = public_url
        self.pages = pages
        self.page_prefixes = page_prefixes
        self.table = Table(all_routes())
        self.credentials = Credentials(db, secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        try:
            reply = await self._answer(request, receive)
        except ClientGone:
            # Perhaps only its sending half is closed, and it still listens.
            reply = problem_reply(request, Malformed("The body ended before it was complete; nothing was written."))
        except Exception as error:
            reply = problem_reply(request, as_problem(error, request))
        await wire.send(request, reply, send)

    async def _answer(self, request: Request, receive: Receive) -> Reply:
        route, parameters = self._route(request)
        if route is None:
            return await self._page(request)
        accept = request.headers.get(b"accept")
        if accept is not None and not wire.accepts_json(accept.decode("latin-1")):
            raise NotAcceptable
        call = Call(_NOBODY, self.secret, request.request_id, parameters, request.query_string)
        call.if_match = wire.versions(request.headers.get(b"if-match"))
        if route.writes:
            call.unless_match = wire.versions(request.headers.get(b"if-none-match"))
        else:
            call.if_none_match = request.headers.get(b"if-none-match")
        if route.answer == "list":
            call.url = f"{self.public_url or request.base_url}{request.path}"
        if route.writes:
            await self.db.read(lambda tx: self._admit(tx, route, request, call))
            call.body = wire.parse_body(request, await wire.read_body(request, receive, route.max_body))
            return await self._write(route, request, call)
        if route.body:
            call.body = wire.parse_body(request, await wire.read_body(request, receive, route.max_body))
        return await self.db.read(lambda tx: self._read(tx, route, request, call), snapshot=bool(call.query_string))

    def _route(self, request: Request) -> tuple[Route | None, list[str]]:
        path = request.path
        if not path.startswith("/v1/"):
            return None, []
        found = self.table.find(path[4:])
        if found is None:
            first = path[4:].partition("/")[0]
            hint = did_you_mean(first, self.table.paths()) if first not in self.table.paths() else ""
            raise NotFound(f"There is no path {path[:200]}.{hint} GET /openapi.json lists them all.")
        routes, parameters = found
        if "\x00" in path:
            raise NotFound("No id contains NUL (%00).")  # and PostgreSQL could not even be asked
        route = routes.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            methods = sorted({*routes, "OPTIONS", *(["HEAD"] if "GET" in routes else [])})
            if request.method == "OPTIONS":
                raise _Preflight(methods)
            raise MethodNotAllowed(
                f"{path[:200]} supports {', '.join(methods)}.", headers={"allow": ", ".join(methods)}
            )
        return route, parameters

    async def _page(self, request: Request) -> Reply:
        page = self.pages.get(request.path)
        if page is None:
            page = next((found for start, found in self.page_prefixes.items() if request.path.startswith(start)), None)
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

    def _admit(self, tx: Tx, route: Route, request: Request, call: Call) -> None:
        """Who calls, whether the key covers the route, and whether its budget does."""
        call.principal = self.credentials.principal(tx, request)
        if self.limiter is not None and request.cost == 0:
            request.cost = 1
            caller = call.principal.key_id or call.principal.user_id
            request.limits = self.limiter.take(caller, 1, call.principal.rate)
        resources.require(call, route.scope)

    def _read(self, tx: Tx, route: Route, request: Request, call: Call) -> Reply:
        self._admit(tx, route, request, call)
        reply = route.handler(call, tx)
        if reply.status == 304 and self.limiter is not None and request.cost:
            self.limiter.give_back(call.principal.key_id or call.principal.user_id, request.cost, call.principal.rate)
            request.cost = 0
        return reply

    async def _write(self, route: Route, request: Request, call: Call) -> Reply:
        units: list[Tx] = []

        def unit(tx: Tx) -> Reply:
            units[:] = [tx]
            # Once more inside the transaction: the right may have gone while the body was on its way.
            call.principal = self.credentials.principal(tx, request)
            resources.require(call, route.scope)
            return route.handler(call, tx)

        reply = await self.db.write(unit, heavy=route.heavy)
        seqs = log.commit_seqs(units[0])
        if seqs:
            reply.headers.append((b"commit-seq", ", ".join(f"{name}:{seq}" for name, seq in seqs.items()).encode()))
        return reply


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
    logger.error("request %s failed: %s %s", request.request_id, request.method, request.path, exc_info=error)
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
