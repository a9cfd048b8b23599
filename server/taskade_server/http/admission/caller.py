"""`Caller`: who makes a request, what they may do, and what the request costs them.

Why a caller is looked up more than once: a read is answered in one unit of work, which looks the caller up (`admit`). A
write lets its caller in before the body is read, so that no unknown client can send megabytes, and does so from memory
where that is possible (`presume`). The unit that writes looks again (`confirm`), because the right may have gone while
the body was on its way.
"""

import asyncio
from functools import partial
from typing import Final

import msgspec

from taskade_server.engine import log
from taskade_server.engine.access import Principal, require_scope
from taskade_server.http.admission import tickets
from taskade_server.http.admission.credentials import CachedCaller, Credentials, challenge, check
from taskade_server.http.admission.limits import Charge
from taskade_server.http.wire.call import ParsedQueries
from taskade_server.http.wire.reply import Headers
from taskade_server.http.wire.request import Request
from taskade_server.kit.errors import InvalidQuery, Issue, Problem, RateLimited, Unauthenticated
from taskade_server.store.database import Tx

_NOT_CACHEABLE: Final = -1
"""The version of rights of a look-up in a unit that has changed rights: no entry of the cache ever has it."""


class Caller(msgspec.Struct, eq=False):
    """The caller of one request, made of the request, what the server knows of callers, and the header Authorization.

    What follows is filled in by its own methods: `principal` is None until the caller was looked up, `rights_version`
    and `data_version` are the versions of rights and of the database at the last look-up (0: unknown), `rate_headers`
    are the headers that tell the client about its rate limit, `queries` the lists that it has asked for, parsed.
    `credential` is the value of the header Authorization, or what stands for it (`use_ticket`); `key_id` is the id of
    the API key, set once the key has been accepted.
    """

    request: Request
    credentials: Credentials
    credential: bytes
    principal: Principal | None = None
    key_id: str | None = None
    rights_version: int = 0
    data_version: int = 0
    rate_headers: Headers = []
    queries: ParsedQueries | None = None
    _charge: Charge | None = None

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Caller({self.request.request_id!r})"

    @property
    def principal_or_fail(self) -> Principal:
        """The principal of a caller who was looked up; RuntimeError if they were not."""
        if self.principal is None:
            raise RuntimeError("The caller was not looked up yet.")
        return self.principal

    @property
    def claimed_key(self) -> str | None:
        """The id of the key that the credential claims to be, whether there is such a key or not."""
        return self.credentials.claimed_key(self.credential)

    def use_ticket(self, ticket: str) -> None:
        """Take a stream ticket in place of the header Authorization, which a browser's stream cannot send."""
        if self.credential:
            detail = "Send either a ticket or the header Authorization."
            raise InvalidQuery(errors=[Issue("not_allowed", detail, parameter="ticket")])
        try:
            self.credential = tickets.credential(self.credentials.secret, ticket)
        except Unauthenticated as error:
            self._charge_address()
            raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error

    # -- presumed, admitted, confirmed

    async def presume(self, scope: str, most: int = 1) -> bool:
        """Let in who is known from memory, without asking the database; whether that was possible.

        What is remembered may be out of date, so it never refuses anybody: for whatever looks like a refusal the answer
        is False, and `admit` decides. Only RateLimited is raised, if the rights are still those that are remembered.
        """
        try:
            if self.recall(self.credentials.latest_rights_version) is None:
                return False
            enter = partial(self._enter, scope, most)
            if self.credentials.limits.waits:
                await asyncio.to_thread(enter)
            else:
                enter()
        except Problem as problem:
            if isinstance(problem, RateLimited) and (
                await self.credentials.db.read(log.rights_version, caller=self.request.claimed_caller)
                == self.rights_version
            ):
                raise
            self.principal = None
            return False
        return True

    def _enter(self, scope: str, most: int) -> None:
        principal = self.charge(most)
        require_scope(principal, scope)

    def admit(self, tx: Tx, scope: str = "", most: int = 1) -> Principal:
        """Look the caller up in a unit of work, and charge the request to them if it was not charged yet.

        `scope` is what the caller's key has to have, if that is not checked later (by `operation.run`); `most` is how
        far the charge may be raised once more is known. Unauthenticated, Forbidden or RateLimited.
        """
        principal = self.confirm(tx)
        if self._charge is None:
            self.charge(most)
        if scope:
            require_scope(principal, scope)
        return principal

    def confirm(self, tx: Tx) -> Principal:
        """Look the caller up in a unit of work, whatever was known before. Unauthenticated or Forbidden."""
        self.principal = None
        credentials, credential = self.credentials, self.credential
        self.rights_version, self.data_version = credentials.versions(tx)
        cached = credentials.cache.get(credential)
        if cached is None or cached.rights_version != self.rights_version:
            cached = self._look_up(tx, self.rights_version)
            # Nothing is cached from a unit that may write: it can be rolled back, and its version of rights with it.
            # And only the usual spelling is cached (one space), or one key could fill the cache.
            if not tx.writable and credential.count(b" ") == 1:
                credentials.keep(credential, cached)
        return self._accept(cached)

    def refresh(self, tx: Tx) -> Principal:
        """Look the caller up as this unit has made them: for what follows in a unit that changed rights."""
        return self._accept(self._look_up(tx, _NOT_CACHEABLE))

    def recall(self, rights_version: int) -> Principal | None:
        """The caller from memory, as looked up at one version of rights; None if it has no such entry."""
        self.rights_version = rights_version
        cached = self.credentials.cache.get(self.credential)
        return None if cached is None or cached.rights_version != rights_version else self._accept(cached)

    def _accept(self, cached: CachedCaller) -> Principal:
        principal = self.principal = cached.principal
        self.queries = cached.queries
        if cached.networks or cached.expires_at is not None:
            check(cached, self.request)
        if principal.key_id is not None:
            self.key_id = principal.key_id
            self.credentials.used.add(principal.key_id)
        return principal

    def _look_up(self, tx: Tx, rights_version: int) -> CachedCaller:
        try:
            return self.credentials.look_up(tx, self.credential, rights_version, self.request)
        except Unauthenticated:
            if self.credentials.is_missing(self.credential):
                self._charge_address()
            raise

    # -- what the request costs

    def charge(self, most: int = 1) -> Principal:
        """Charge one request to the caller, who was looked up; RateLimited if the budget does not allow it.

        `most` is how far the charge may be raised.
        """
        principal = self.principal or self.principal_or_fail
        # As `caller_id`, which would be one more call for each request.
        caller_id, user_id = principal.key_id or principal.user_id, principal.user_id
        charge = self._charge = self.credentials.limits.charge(caller_id, 1, principal.rate, most, user=user_id)
        self.rate_headers = charge.headers
        return principal

    async def raise_charge_to(self, cost: int) -> None:
        """Raise the charge to what the request costs in all. RateLimited, and nothing charged, if that is too much."""
        charge = self._charge
        assert charge is not None
        self.rate_headers = []  # a refusal brings its own
        raising = partial(charge.raise_to, cost)
        self.rate_headers = await asyncio.to_thread(raising) if self.credentials.limits.waits else raising()

    async def charge_again(self) -> None:
        """Charge one more request, for a further message on a connection. RateLimited if the budget is used up."""
        if self.credentials.limits.waits:
            await asyncio.to_thread(self.charge)
        else:
            self.charge()

    async def charge_address(self) -> None:
        """Charge the address: for what takes no key, or has not come as far as to need one."""
        if self.credentials.limits.waits:
            await asyncio.to_thread(self._charge_address)
        else:
            self._charge_address()

    def _charge_address(self) -> None:
        self.rate_headers = self.credentials.limits.anonymous(self.request.client)

    def give_back(self) -> None:
        """Charge nothing after all: a 304 or a repeated answer is free."""
        if self._charge is not None:
            self.rate_headers = self._charge.give_back()
