"""Answers requests that only read: from the cache, in a unit of work, on a replica, or by a session that goes on."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.admission.caller import Caller
from taskade_server.http.api import operation
from taskade_server.http.api.route import Route
from taskade_server.http.live.sessions import Session
from taskade_server.http.pipeline.cache import Entry, Key, Question, ResponseCache
from taskade_server.http.pipeline.receiving import receive_body
from taskade_server.http.pipeline.refusals import note_reading
from taskade_server.http.pipeline.services import Services
from taskade_server.http.wire.body import has_body, refuse_body
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import accepts_json, names_etag
from taskade_server.http.wire.query_string import take
from taskade_server.http.wire.reply import Reply, Stream
from taskade_server.http.wire.request import Receive, Request
from taskade_server.kit.errors import Behind, InvalidQuery, Issue
from taskade_server.kit.numbers import whole
from taskade_server.store import database as store
from taskade_server.store.database import Database, Tx

logger: Final = logging.getLogger("taskade")
VISIBLE_SECONDS: Final = 5.0
"""How long a read waits for the position that it must see."""
REPLICA_SECONDS: Final = 0.2
"""How long it waits for a replica to be there, before it goes to the primary."""
CACHE_BYTES: Final = 32 << 20
Position = tuple[str, int]
"""A workspace's id, and the number of an event in its log."""


class Reads:
    """The path of requests that only read."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._db = services.db
        self.cache = ResponseCache(CACHE_BYTES)

    # -- from the cache alone

    def repeated(self, caller: Caller) -> Entry | None:
        """What the cache has of a list that is asked for again by its caller while nothing at all was committed.

        That takes no unit of work. None if the answer is not in the cache, or may be out of date.
        """
        request = caller.request
        if not self.cache.knows(request.path) or has_body(request):
            return None
        entry = self.cache.recent(request.path, _question(request))
        if entry is None or entry.data_version != self._db.data_version() or not entry.data_version:
            return None
        if caller.recall(entry.rights_version) is None:
            return None
        accept = request.headers.get(b"accept")
        takes_json = accept is None or accept == b"*/*" or accepts_json(accept.decode("latin-1"))
        return entry if takes_json else None

    def repeat(self, entry: Entry, caller: Caller) -> Reply:
        """The answer that `repeated` has found. RateLimited."""
        caller.charge()
        reply = self._hit(entry.reply, caller.request.headers.get(b"if-none-match"))
        if reply.status == 304:
            caller.give_back()
        return reply

    def _hit(self, reply: Reply, cached_etags: bytes | None) -> Reply:
        self.cache.hits += 1
        if cached_etags is not None and names_etag(cached_etags, reply.etag):
            return Reply(304, None, [(b"etag", reply.etag.encode())])
        return reply

    # -- in a unit of work

    async def answer(self, route: Route, path: list[str], caller: Caller, receive: Receive) -> Reply | Stream:
        """Answer a request; `path` holds the path's parameters."""
        request, services = caller.request, self._services
        query_string, url, min_seq = request.query_string, "", None
        if route.answer in ("list", "document", "events"):
            url = f"{services.public_url or request.base_url}{request.path}"
        body: Any = None
        if route.body:
            body = await receive_body(self._db, route, caller, receive)
        elif has_body(request):
            await refuse_body(request, receive)
        if query_string:
            if route.answer == "stream":
                query_string = accept_ticket(caller, query_string)
            min_seq, query_string = take(query_string, "min_seq")
        cached_etags = request.headers.get(b"if-none-match")

        def make_call(principal: Principal) -> Call:
            return Call(
                principal,
                services.secret,
                request.request_id,
                path,
                query_string,
                body,
                url,
                caller.rights_version,
                None,
                cached_etags,
                queries=caller.queries,
            )

        reply: Reply | Stream
        if route.live is not None and services.hub is not None:
            if min_seq is not None:
                await self._wait_for(min_seq, await self._positions(min_seq, route, caller), caller)
            reply = await route.live(Session(services.hub, caller, make_call, route.scope))
        else:
            unit = partial(self._unit, route, caller, make_call)
            snapshot = route.consistent or bool(query_string)  # several statements that have to agree
            found = None if min_seq is None else await self._read_from(min_seq, route, caller, make_call)
            if found is None:
                found = await self._db.read(unit, snapshot=snapshot, caller=request.claimed_caller)
            reply = found
        if route.read_action is not None and services.refusals is not None:
            about = reply.workspace_id if isinstance(reply, Stream) else ""
            note_reading(services.refusals, caller, route.operation_id, route.read_action, about)
        return reply

    def _unit(self, route: Route, caller: Caller, make_call: Callable[[Principal], Call], tx: Tx) -> Reply:
        # The cache may answer in place of `operation.run`, which checks the scope.
        call = make_call(caller.admit(tx, route.scope if route.listing else ""))
        reply = self._cached(route, caller, call, tx) if route.listing else operation.run(route, call, tx)
        if reply.status == 304:
            caller.give_back()
        return reply

    def _cached(self, route: Route, caller: Caller, call: Call, tx: Tx) -> Reply:
        """A list, from the cache when nothing that the caller can see has changed since."""
        request, data_version = caller.request, caller.data_version
        key: Key = (call.principal.caller_id, call.rights_version, call.url, call.query_string, request.method)
        entry = self.cache.get(key)
        if entry is not None:
            if data_version and entry.data_version == data_version:
                return self._hit(entry.reply, call.cached_etags)
            if self.cache.holds(entry, log.heads(tx, entry.workspaces)):
                entry.data_version = data_version
                return self._hit(entry.reply, call.cached_etags)
        self.cache.misses += 1
        reply = operation.run(route, call, tx)
        if reply.etag and reply.status == 200:
            self.cache.put(key, request.path, _question(request), route.operation_id, reply, data_version)
        return reply

    # -- from a position on

    async def _read_from(
        self, min_seq: str, route: Route, caller: Caller, make_call: Callable[[Principal], Call]
    ) -> Reply | None:
        """Answer from the replica if it has replayed up to `min_seq`; else wait for the primary and return None."""
        positions, replica = await self._positions(min_seq, route, caller), self._services.replica
        if replica is not None and await self._reaches(replica, positions, REPLICA_SECONDS, caller):
            # The caller is known from the primary, where a revoked right is gone at once.
            call = make_call(caller.principal_or_fail)
            try:
                reply = await replica.read(
                    partial(operation.run, route, call), snapshot=True, caller=caller.request.claimed_caller
                )
            except store.Unavailable:
                logger.warning("The replica does not answer; the primary does its work.")
            else:
                if reply.status == 304:
                    caller.give_back()
                return reply
        await self._wait_for(min_seq, positions, caller)
        return None

    async def _wait_for(self, min_seq: str, positions: list[Position], caller: Caller) -> None:
        """Return when the positions in `min_seq` are reached on the primary; Behind if that takes too long."""
        if not await self._reaches(self._db, positions, VISIBLE_SECONDS, caller):
            detail = (
                f"The position {min_seq[:200]} was not reached within {VISIBLE_SECONDS:.0f} s. If the server was"
                " restored from a backup since, what was written there is lost."
            )
            raise Behind(detail, headers={"retry-after": "1"})

    async def _positions(self, min_seq: str, route: Route, caller: Caller) -> list[Position]:
        """The positions that `min_seq` names; the caller is admitted, and may see their workspaces."""

        def unit(tx: Tx) -> list[Position]:
            return _parsed_positions(min_seq, caller.admit(tx, route.scope))

        return await self._db.read(unit, caller=caller.request.claimed_caller)

    async def _reaches(self, db: Database, positions: list[Position], seconds: float, caller: Caller) -> bool:
        """Wait until a database has all positions, for `seconds` at most; whether it has them."""

        def unit(tx: Tx) -> bool:
            return all(log.head(tx, name) >= seq for name, seq in positions)

        until, pause = time.monotonic() + seconds, 0.005
        while True:
            try:
                if await db.read(unit, caller=caller.request.claimed_caller):
                    return True
            except store.Unavailable:
                if db is self._db:
                    raise
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.25)


def accept_ticket(caller: Caller, query_string: str) -> str:
    """Have the ticket in a query string, if there is one, stand for the caller's credential; what is left of it."""
    ticket, rest = take(query_string, "ticket")
    if ticket is not None:
        caller.use_ticket(ticket)
    return rest


def _question(request: Request) -> Question:
    """The raw parts of a request, beside its path, that determine a list's answer and its links (scheme and host)."""
    header, query = request.headers.get, request.scope["query_string"]
    return header(b"authorization"), request.method, query, header(b"host"), header(b"x-forwarded-proto")


def _parsed_positions(min_seq: str, principal: Principal) -> list[Position]:
    """The positions in `min_seq`. InvalidQuery if they have no sense, or are in a workspace that is not visible."""
    found = []
    for part in min_seq.split(","):
        name, _, seq = part.strip().rpartition(":")
        workspace_id = name or principal.default_workspace or ""
        number = whole(seq)
        if number is None or workspace_id not in principal.grants:
            detail = "min_seq is the Commit-Seq of an earlier answer: <workspace>:<number>, or a number alone."
            raise InvalidQuery(errors=[Issue("invalid_format", detail, parameter="min_seq")])
        found.append((workspace_id, number))
    return found
