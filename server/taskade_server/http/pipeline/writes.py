"""Answers requests that write: once, in one unit of work, with its answer kept for the Idempotency-Key.

Why the caller is looked up inside the unit: the right that a write needs may go while its body is on its way, and a
replay of an earlier answer needs it as much as the first attempt did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from taskade_server.engine import log
from taskade_server.engine.access import Principal, require_scope
from taskade_server.http.admission.caller import Caller
from taskade_server.http.api import operation
from taskade_server.http.api.route import Route
from taskade_server.http.api.weight import Weight
from taskade_server.http.pipeline import idempotency
from taskade_server.http.pipeline.idempotency import Attempt
from taskade_server.http.pipeline.receiving import receive_body
from taskade_server.http.pipeline.services import Services
from taskade_server.http.wire.call import MAX_USER_AGENT, Call
from taskade_server.http.wire.negotiation import prefers_minimal, versions
from taskade_server.http.wire.query_string import take
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Receive
from taskade_server.kit.errors import InvalidQuery, Issue, Malformed, Problem
from taskade_server.store.database import Tx

_NOBODY: Final = Principal("", None, frozenset(), {}, None)
"""Stands for a caller whose own write has just revoked their key."""
_ONE_WRITE: Final = Weight()


class _DryRun(Exception):
    """Ends a unit that shall leave nothing behind, and carries what it would have answered."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _Write:
    """One request that writes, once its body is there. `attempt` is None if its answer is not kept."""

    route: Route
    caller: Caller
    make_call: Callable[[Principal], Call]
    attempt: Attempt | None
    dry_run: bool


class Writes:
    """The path of requests that write."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._db = services.db
        self.replays = 0
        self._under_way: set[str] = set()
        """The Idempotency-Keys of the writes that this process is at, as they are stored."""

    async def answer(self, route: Route, path: list[str], caller: Caller, receive: Receive) -> Reply:
        """Answer a request; `path` holds the path's parameters."""
        request, services = caller.request, self._services
        if_match = versions(request.headers.get(b"if-match"))
        if_none_match = versions(request.headers.get(b"if-none-match"))
        if if_none_match is not None and not route.versioned:
            raise no_version("If-None-Match")
        url = _url(route, caller, services.public_url)
        key = idempotency.key_of(request)
        # What is always rolled back has no such parameter.
        dry_run, query_string = (True, request.query_string) if route.rolls_back else _dry_run(request.query_string)
        body = await receive_body(self._db, route, caller, receive)
        weight = _ONE_WRITE if route.weigh is None else route.weigh(body)
        if weight.cost > 1:
            await caller.raise_charge_to(weight.cost)
        # A batch that only reads does not use the writer, and its answer is not kept for the Idempotency-Key.
        kept = key and not dry_run and weight.writes
        attempt = idempotency.attempt_of(key, caller, query_string, body) if kept else None

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
                if_match,
                None,
                if_none_match,
                request.client,
                request.header(b"user-agent")[:MAX_USER_AGENT] or None,
                services.destinations,
                idempotency.seed(attempt),
                caller.refresh,
                caller.queries,
            )

        unit = partial(self._unit, _Write(route, caller, make_call, attempt, dry_run))
        heavy, asker = route.heavy or weight.heavy, request.claimed_caller
        if attempt is not None:
            return await self._commit_once(attempt, unit, heavy=heavy, caller=asker)
        try:
            if not weight.writes:
                return await self._db.read(unit, snapshot=True, heavy=heavy, caller=asker)
            return await self._commit(unit, heavy=heavy, caller=asker)
        except _DryRun as done:
            return done.reply

    async def _commit(self, unit: Callable[[Tx], Reply], *, heavy: bool, caller: bytes) -> Reply:
        reply = await self._db.write(unit, heavy=heavy, caller=caller)
        if self._services.feed is not None:
            self._services.feed.notify()
        return reply

    async def _commit_once(self, attempt: Attempt, unit: Callable[[Tx], Reply], *, heavy: bool, caller: bytes) -> Reply:
        """Commit, unless this process is just doing so for the same key: IdempotencyKeyInUse."""
        if attempt.key in self._under_way:
            raise idempotency.in_use()
        self._under_way.add(attempt.key)
        try:
            return await self._commit(unit, heavy=heavy, caller=caller)
        finally:
            self._under_way.discard(attempt.key)

    def _unit(self, write: _Write, tx: Tx) -> Reply:
        call = write.make_call(write.caller.confirm(tx))
        if write.attempt is not None:
            require_scope(call.principal, write.route.scope)
            known = idempotency.recall(tx, write.attempt, call)
            if known is not None:
                operation.authorize(write.route, call.principal, call.body)
                write.caller.give_back()
                self.replays += 1
                return known
        reply = operation.run(write.route, call, tx)
        if prefers_minimal(write.caller.request):
            reply = _minimal(reply)
        if write.dry_run:
            reply.headers.append((b"dry-run", b"true"))
            raise _DryRun(reply)
        # At the end of the unit, where the positions are known.
        tx.before_commit.append(partial(self._seal, write, call, reply, tx))
        return reply

    def _seal(self, write: _Write, call: Call, reply: Reply, tx: Tx) -> None:
        """Add the header Commit-Seq, and store the answer for the Idempotency-Key."""
        seqs = log.commit_seqs(tx)
        if seqs:
            reply.headers.append((b"commit-seq", ", ".join(f"{name}:{seq}" for name, seq in seqs.items()).encode()))
        if write.attempt is not None:
            try:
                after = write.caller.refresh(tx) if log.rights_changes(tx) else call.principal
            except Problem:  # the caller has just ended their own rights
                after = _NOBODY
            route = write.route
            reads = route.body == "batch" or bool(call.query_string)  # the answer may contain what was only read
            mixed = not route.scope  # no single scope allows all that the answer contains
            idempotency.remember(tx, write.attempt, after, reply, call.secret, reads=reads, mixed=mixed)


def _url(route: Route, caller: Caller, public_url: str | None) -> str:
    """The address of a request without its query string, for answers that have links; "" for others."""
    links = route.answer in ("list", "document", "events", "batch")
    return f"{public_url or caller.request.base_url}{caller.request.path}" if links else ""


def no_version(header: str) -> Malformed:
    """The problem of a precondition on a request that changes no single object."""
    detail = f"{header} names the version of one object to change, which this request has not; leave it out."
    return Malformed(detail, errors=[Issue("not_allowed", detail, parameter=header)])


def _dry_run(query_string: str) -> tuple[bool, str]:
    """Whether a query string asks for a dry run, and the query string without that. InvalidQuery for anything else."""
    text, rest = take(query_string, "dry_run")
    if text not in (None, "true", "false", "1", "0", ""):
        raise InvalidQuery(errors=[Issue("invalid_value", "dry_run is true or false.", parameter="dry_run")])
    return text in ("true", "1", ""), rest


def _minimal(reply: Reply) -> Reply:
    """The answer without its body (RFC 7240), unless the body holds what no other answer ever will."""
    if reply.secret or reply.body is None or reply.status not in (200, 201):
        return reply
    status = 204 if reply.status == 200 else reply.status
    return Reply(status, None, [*reply.headers, (b"preference-applied", b"return=minimal")])
