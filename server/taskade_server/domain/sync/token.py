"""The token that a client carries from one answer to the next."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from taskade_server.domain.visibility_history import KeyLimits
from taskade_server.engine.access import Principal
from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import InvalidQuery, Issue, TokenExpired

DAYS: Final = 30

_VERSION: Final = 1


class SyncSelection(NamedTuple):
    """What is synced. `kinds` None: all that the key may read; `projects` empty: all."""

    workspace_id: str
    kinds: tuple[str, ...] | None
    projects: tuple[str, ...]


@dataclass(slots=True)
class Token:
    """How far a client is.

    Up to `done` the log is in what it has; what it was sent since `rights` depended on the rights of the time and on
    the `key_limits`. Changes of rights up to `walked` are in what it has, too. `seen` is the log's end when it was last
    answered. `walk` is where the walk through rows goes on, if one is under way; `foreign` what was known of users whom
    other workspaces invited.
    """

    user_id: str
    wanted: SyncSelection
    done: int
    rights: int
    walked: int
    seen: int
    at: int
    key_limits: list[KeyLimits]
    foreign: str
    walk: "Walk | None"
    generation: int


class Walk(NamedTuple):
    """A walk through the rows: of everything (`full`), or where rights have changed; `location` is the next leg."""

    full: bool
    wide: bool
    begun: int
    section: int
    location: str
    rank: int
    n: int

    @property
    def at_start(self) -> bool:
        """Whether nothing has been walked through."""
        return (self.section, self.location, self.rank, self.n) == (0, "", 0, 0)


def seal(secret: bytes, token: Token) -> str:
    """A token as its client carries it: signed, so that it can be neither made nor altered."""
    key_limits = [[limits.readable, limits.projects, limits.reaches] for limits in token.key_limits]
    payload = [
        "sync",
        _VERSION,
        token.user_id,
        token.wanted,
        token.done,
        token.rights,
        token.walked,
        token.seen,
        token.at,
        key_limits,
        token.foreign,
        token.walk,
        token.generation,
    ]
    return signing.seal(secret, json.encode_bytes(payload))


def unseal(secret: bytes, text: str) -> Token | None:
    """What `seal` made; None for anything else."""
    payload = signing.unseal(secret, text) if text.isascii() else None
    found = json.decode(payload) if payload is not None else None
    if not isinstance(found, list) or found[:2] != ["sync", _VERSION]:
        return None
    user_id, (workspace_id, kinds, projects), done, rights, walked, seen, at, key_limits, foreign, walk = found[2:12]
    wanted = SyncSelection(workspace_id, None if kinds is None else tuple(kinds), tuple(projects))
    known = [
        KeyLimits(tuple(readable), None if limit is None else tuple(limit), reaches)
        for readable, limit, reaches in key_limits
    ]
    generation = found[12] if len(found) > 12 else 0  # tokens of earlier versions have none
    return Token(
        user_id, wanted, done, rights, walked, seen, at, known, foreign, Walk(*walk) if walk else None, generation
    )


def accept(secret: bytes, text: str, principal: Principal, given: dict[str, Any]) -> Token:
    """The caller's own token; InvalidQuery if it is another's, or for something else than `given` says.

    TokenExpired when it is older than the server promises to look back.
    """
    token = unseal(secret, text)
    if token is None:
        raise _refused("since", "invalid_token", "This is no token of this server: give the next of an earlier answer.")
    if token.user_id != principal.user_id:
        raise _refused("since", "token_of_another_caller", "This token belongs to another user; start without one.")
    workspace_id, kinds, projects = token.wanted
    own = {"workspace_id": workspace_id, "resources": kinds, "project_id": projects}
    for name, value in given.items():
        if value != own[name]:
            detail = f"This token was made with another {name}. Leave {name} out, or start without a token."
            raise _refused(name, "token_of_another_query", detail)
    if time.now_ms() - token.at > DAYS * time.DAY_MS:
        raise TokenExpired(f"This token is older than {DAYS} days.")
    return token


def _refused(name: str, code: str, detail: str) -> InvalidQuery:
    return InvalidQuery(errors=[Issue(code, detail, parameter=name)])
