"""Credentials and the principals they stand for, each valid for one state of users, keys and memberships.

Why by state and not by time: a revoked key or a lost role takes effect with its commit, on every process, because the
cached principal is good for one value of a counter that is read in the same transaction.
"""

from dataclasses import dataclass, field
from typing import Final

from taskade_server.domain import identity
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.admission import tickets
from taskade_server.http.admission.limits import Limits
from taskade_server.http.wire.call import ParsedQueries
from taskade_server.http.wire.request import Request
from taskade_server.kit import signing, time
from taskade_server.kit.errors import Forbidden, Unauthenticated
from taskade_server.store.database import Database, Tx

_MAX_CACHED: Final = 10_000
_MAX_TOKEN: Final = 200


@dataclass(slots=True)
class CachedCaller:
    """A caller as looked up at one version of rights, with the lists that they have asked for since, parsed.

    Whatever a parsed list refers to cannot change without a new version of rights.
    """

    rights_version: int
    principal: Principal
    networks: list[str]
    expires_at: int | None
    queries: ParsedQueries = field(default_factory=dict)


@dataclass(slots=True)
class Credentials:
    """What the server remembers of callers, and how it looks them up: once for each version of rights.

    A unit may run on another thread and see an older state than the event loop does, so each entry says which state it
    belongs to instead of the cache being emptied when the state changes.
    """

    db: Database
    secret: bytes
    limits: Limits = field(default_factory=Limits)
    cache: dict[bytes, CachedCaller] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    """The ids of the keys that were used since the time of their last use was written down."""
    latest_rights_version: int = -1
    """The latest version of rights that any unit has met."""
    _seen: tuple[int, int] = (0, -1)

    def versions(self, tx: Tx) -> tuple[int, int]:
        """The versions of rights and of the database that a unit sees; the latter is 0 in a unit that may write.

        The latter spares most looks at the counter of rights.
        """
        data_version = self.db.data_version() if not tx.writable else 0
        if data_version and data_version == self._seen[0]:
            return self._seen[1], data_version
        rights_version = self.latest_rights_version = log.rights_version(tx)
        if data_version:
            self._seen = (data_version, rights_version)
        return rights_version, data_version

    def look_up(self, tx: Tx, credential: bytes, rights_version: int, request: Request) -> CachedCaller:
        """Ask the database who a credential stands for. Unauthenticated; RateLimited for an address that guesses."""
        if key_id := tickets.key_of(credential):
            try:
                return CachedCaller(rights_version, *identity.holder(tx, key_id))
            except Unauthenticated as error:
                raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error
        token = _token_of(credential)
        if not token:
            raise Unauthenticated("Send the header Authorization: Bearer <API key>.", headers=challenge(""))
        if credential not in self.cache:
            # A known credential is not refused for the guesses of others at the same address, also when rights change.
            self.limits.login_check(request.client)
        try:
            return CachedCaller(rights_version, *identity.authenticate(tx, self.secret, token.strip()))
        except Unauthenticated as error:
            self.cache.pop(credential, None)
            self.limits.login_failed(request.client)
            raise Unauthenticated(error.detail, headers=challenge("invalid_token")) from error

    @staticmethod
    def is_missing(credential: bytes) -> bool:
        """Whether a credential is none at all, neither a key nor a ticket, right or wrong."""
        return not tickets.key_of(credential) and not _token_of(credential)

    @staticmethod
    def claimed_key(credential: bytes) -> str | None:
        """The id of the key that a credential claims to be; None if it has not the form of a key or a ticket."""
        if key_id := tickets.key_of(credential):
            return key_id
        claimed = signing.parse_key(_token_of(credential).strip())
        return claimed.id if claimed else None

    def keep(self, credential: bytes, cached: CachedCaller) -> None:
        """Remember a caller. Of two versions of rights the later one is kept."""
        if len(self.cache) >= _MAX_CACHED:
            self.cache.clear()
        present = self.cache.get(credential)
        # A long read may end after a change of rights that it has not seen.
        if present is None or present.rights_version <= cached.rights_version:
            self.cache[credential] = cached


def check(cached: CachedCaller, request: Request) -> None:
    """Unauthenticated if the key has expired, Forbidden from an address that it is not for."""
    if cached.expires_at is not None and cached.expires_at <= time.now_ms():
        raise Unauthenticated("This API key has expired.", headers=challenge("invalid_token"))
    if cached.networks and not identity.ip_allowed(cached.networks, request.client):
        raise Forbidden(f"This API key does not work from the address {request.client}.")


def _token_of(credential: bytes) -> str:
    """The API key in a header Authorization; "" if there is none, or one too long to be looked at."""
    scheme, _, token = credential.decode("latin-1").partition(" ")
    return token if scheme.lower() == "bearer" and len(token) <= _MAX_TOKEN else ""


def challenge(error: str) -> dict[str, str]:
    """The header that a 401 has."""
    return {"www-authenticate": 'Bearer realm="taskade"' + (f', error="{error}"' if error else "")}
