"""The first token of a client, and each answer."""

from typing import Any, Final

from taskade_server.domain.sync.answer import Answer, SyncRun
from taskade_server.domain.sync.following import follow_log
from taskade_server.domain.sync.foreign_members import foreign_digest, tell_of_foreign_members
from taskade_server.domain.sync.kinds import BY_DEFAULT, KINDS, SCOPES
from taskade_server.domain.sync.token import SyncSelection, Token, Walk, seal
from taskade_server.domain.sync.walking import go_on_walking
from taskade_server.domain.visibility_history import history_of, key_limits_of
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.kit import time
from taskade_server.kit.errors import TokenExpired
from taskade_server.store.database import Tx

DEFAULT_LIMIT: Final = 500

MAX_LIMIT: Final = 1000

MAX_PROJECTS: Final = 50

MAX_KEY_LIMITS: Final = 8


def begin(tx: Tx, principal: Principal, key: dict[str, Any], wanted: SyncSelection) -> Token:
    """The token of a client that has nothing yet."""
    head = log.head(tx, wanted.workspace_id)
    limits = key_limits_of(principal, key, wanted.workspace_id, SCOPES)
    foreign, walk = foreign_digest(tx, wanted.workspace_id), Walk(True, False, head, 0, "", 0, 0)
    return Token(principal.user_id, wanted, head, head, head, head, 0, [limits], foreign, walk, log.generation(tx))


def proceed(tx: Tx, principal: Principal, key: dict[str, Any], token: Token, limit: int, secret: bytes) -> str:
    """The next answer for a client, as JSON text. TokenExpired if the log cannot tell any more what it missed."""
    wanted = token.wanted
    first, head = log.bounds(tx, wanted.workspace_id)
    if token.generation != log.generation(tx) or token.seen > head:
        raise TokenExpired("This token is from before the server was restored from a backup; some changes were lost.")
    limits = key_limits_of(principal, key, wanted.workspace_id, SCOPES)
    turned = limits != token.key_limits[-1]
    if turned:
        token.key_limits = [*(known for known in token.key_limits if known != limits), limits]
    history = history_of(tx, principal, wanted.workspace_id, token.rights, token.key_limits)
    if token.done + 1 < first or history is None or len(token.key_limits) > MAX_KEY_LIMITS:
        raise TokenExpired("What has happened since this token was made can no longer be told.")
    if turned or history.last_change > (token.walked if token.walk is None else token.walk.begun):
        token.walk = Walk(token.walk is not None and token.walk.full, False, head, 0, "", 0, 0)
    kinds = frozenset(wanted.kinds or BY_DEFAULT)
    inner = kinds | ({"project-members"} if "members" in kinds else set())
    run = SyncRun(tx, principal, token, history, inner, limit, Answer(wanted), head)
    if token.walk is None or go_on_walking(run):
        token.walk, token.walked = None, head
        follow_log(run)
    more = token.walk is not None or token.done < head
    if not more:
        tell_of_foreign_members(run)
        token.rights, token.key_limits = head, [limits]
    token.seen, token.at = head, time.now_ms()
    shown = [kind for kind in KINDS if kind in (wanted.kinds or BY_DEFAULT)]
    return run.answer.render(shown, seal(secret, token), more=more, seq=head)
