"""Who calls: principals by credential, each valid for one state of users, keys and memberships.

Why by state and not by time: a revoked key or a lost role takes effect with its commit, on every process, because the
cached principal is good for one value of a counter that is read in the same transaction.
"""

from dataclasses import dataclass, field
from typing import Final

from taskade_server.domain import identity
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http import tickets
from taskade_server.http.limits import Limits
from taskade_server.http.wire import Request
from taskade_server.kit import signing, time
from taskade_server.kit.errors import Forbidden, Unauthenticated
from taskade_server.store.database import Database, Tx

_MAX_CACHED: Final = 10_000
_MAX_TOKEN: Final = 200


@dataclass(slots=True)
class Known:
    """A caller as looked up at one value of the counter that every change of rights raises."""

    epoch: int
    principal: Principal
    networks: list[str]
    expires_at: int | None


@dataclass(slots=True)
class Credentials:
    """Looks callers up, once for each state of rights.

    A unit may run on another thread and see an older state than the event loop does, so each entry says which state it
    belongs to instead of the cache being emptied when the state changes.
    """

    db: Database
    secret: bytes
    limits: Limits = field(default_factory=Limits)
    known: dict[bytes, Known] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _seen: tuple[int, int] = (0, -1)
    _latest: int = -1

    def principal(self, tx: Tx, request: Request) -> Principal:
        """The caller; Unauthenticated or Forbidden. Notes the key as used, and the state of rights and of the database.

        `request.epoch` and `request.stamp` tell afterwards what was seen.
        """
        epoch = request.epoch = self._epoch(tx, request)
        credential = request.credential
        known = self.known.get(credential)
        if known is None or known.epoch != epoch:
            known = self._look_up(tx, credential, epoch, request)
            # What a write sees may yet be undone, together with the number of the state that it made. And of the many
            # ways to spell a credential one is remembered.
            if not tx.writable and credential.count(b" ") == 1:
                self._keep(credential, known)
        return self._checked(known, request)

    def known_principal(self, request: Request, epoch: int) -> Principal | None:
        """The caller as known in a state of rights; for answers that were made for him in the present one."""
        known = self.known.get(request.credential)
        return None if known is None or known.epoch != epoch else self._checked(known, request)

    def presumed(self, request: Request) -> Principal | None:
        """The caller as of the latest state of rights that a unit has met, which is `request.epoch` afterwards.

        It may be out of date: nobody is asked.
        """
        request.epoch = self._latest
        return self.known_principal(request, request.epoch)

    def refreshed(self, tx: Tx, request: Request) -> Principal:
        """The caller as this unit has made him: for what follows in a unit that changed rights."""
        return self._checked(self._look_up(tx, request.credential, -1, request), request)

    def _checked(self, known: Known, request: Request) -> Principal:
        request.caller = known.principal
        if known.expires_at is not None and known.expires_at <= time.now_ms():
            raise Unauthenticated("This API key has expired.", headers=challenge("invalid_token"))
        if known.networks and not identity.ip_allowed(known.networks, request.client):
            raise Forbidden(f"This API key does not work from the address {request.client}.")
        if known.principal.key_id is not None:
            request.key_id = known.principal.key_id
            self.used.add(known.principal.key_id)
        return known.principal

    def _epoch(self, tx: Tx, request: Request) -> int:
        """The state of rights that this unit sees. `changed()` spares most looks at the counter."""
        changed = request.stamp = self.db.changed() if not tx.writable else 0
        if changed and changed == self._seen[0]:
            return self._seen[1]
        epoch = self._latest = log.rights(tx)
        if changed:
            self._seen = (changed, epoch)
        return epoch

    def _look_up(self, tx: Tx, credential: bytes, epoch: int, request: Request) -> Known:
        """Ask the database; whoever guesses is soon not asked for any more."""
        if key_id := tickets.key_of(credential):
            try:
                return Known(epoch, *identity.holder(tx, key_id))
            except Unauthenticated as error:
                request.claimed = key_id
                raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error
        scheme, _, token = credential.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            request.limits = self.limits.anonymous(request.client)
            raise Unauthenticated("Send the header Authorization: Bearer <API key>.", headers=challenge(""))
        if credential not in self.known:
            # Whoever was let in before does not suffer from a neighbour's guesses when rights change.
            self.limits.login_check(request.client)
        try:
            return Known(epoch, *identity.authenticate(tx, self.secret, token.strip()))
        except Unauthenticated as error:
            self.known.pop(credential, None)
            claimed = signing.parse_key(token.strip())
            request.claimed = claimed.id if claimed else None
            self.limits.login_failed(request.client)
            raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error

    def _keep(self, credential: bytes, known: Known) -> None:
        if len(self.known) >= _MAX_CACHED:
            self.known.clear()
        present = self.known.get(credential)
        # A long read may end after a change of rights that it has not seen.
        if present is None or present.epoch <= known.epoch:
            self.known[credential] = known


def challenge(error: str) -> dict[str, str]:
    """The header that a 401 has."""
    return {"www-authenticate": 'Bearer realm="taskade"' + (f', error="{error}"' if error else "")}
