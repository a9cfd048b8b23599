"""Idempotency-Key: a write that is sent again has its effect once, and its first answer every time.

Why in the transaction of the effect: an answer kept anywhere else can be lost when the effect is not, or the other way
round. Only answers to writes that succeeded are kept; a failed one has changed nothing, so that its key stays free.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine import log
from taskade_server.engine.access import Principal, require_scope
from taskade_server.http.admission.caller import Caller
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Request
from taskade_server.kit import json, signing, vault
from taskade_server.kit.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Issue,
    Malformed,
    NotFound,
)
from taskade_server.store.database import Tx
from taskade_server.store.tables import replies
from taskade_server.store.tables.replies import StoredReply

MAX_KEY: Final = 255
SMALL: Final = 16 << 10
"""How many characters an answer may have, beside twice what its request wrote, without being counted."""
MAX_KEPT: Final = 32 << 20
"""How many characters beyond that are kept for one user, whichever keys they use."""
REPLAYED: Final = (b"idempotent-replayed", b"true")
_KEPT: Final = frozenset({b"etag", b"location", b"commit-seq", b"preference-applied", b"total-count"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a write: whose key it is, and what exactly is asked. `text` is the key as the client sent it.

    `owner` is the id of the API key, which no other user ever gets; of a caller without one, the user's.
    """

    user_id: str
    owner: str
    text: str
    key: str
    digest: str


def key_of(request: Request) -> str:
    """The key of a request, empty if it has none. Malformed if it is no key (quoted or bare, up to 255 characters)."""
    raw = request.headers.get(b"idempotency-key")
    if raw is None:
        return ""
    text = raw.decode("latin-1").strip(" \t")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 0 < len(text) <= MAX_KEY or not all(" " <= char <= "~" for char in text):
        detail = f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters; a UUID is a good one."
        raise Malformed(detail, errors=[Issue("invalid_key", detail, parameter="Idempotency-Key")])
    return text


def attempt_of(text: str, caller: Caller, query_string: str, body: Any) -> Attempt:
    """The attempt that a request is: another method, path, parameter, version or body makes it another one.

    `text` is the key as the client sent it, `query_string` what the handler will see.
    """
    request, principal = caller.request, caller.principal_or_fail
    owner = principal.caller_id
    asked = [
        request.method,
        request.path,
        query_string,
        request.header(b"if-match"),
        request.header(b"if-none-match"),
        json.canonical(body),
    ]
    secret = caller.credentials.secret
    # Keyed: with a plain hash, whoever has a copy of the database could try which credential a body held.
    digest = hmac.digest(secret, "\n".join(asked).encode("utf-8", "surrogatepass"), hashlib.sha256).hex()
    return Attempt(principal.user_id, owner, text, signing.digest(secret, f"{owner}\n{text}"), digest)


def recall(tx: Tx, attempt: Attempt, call: Call) -> Reply | None:
    """The first answer to this request, None if there is none yet.

    IdempotencyKeyReused for another request with the key, IdempotencyKeyInUse while the first one is under way,
    NotFound when the caller may no longer see what it changed.
    """
    try:
        found = replies.recall(tx, attempt.owner, attempt.key)
    except replies.KeyBusy as error:
        raise in_use() from error
    if found is None:
        return None
    needs = json.decode(found.places)
    if found.digest != attempt.digest or needs.get("user", attempt.user_id) != attempt.user_id:
        raise IdempotencyKeyReused
    for scope in needs.get("scopes", []):
        require_scope(call.principal, scope)
    named = log.open_projects(tx, [(name, project) for name, project in needs["places"] if project is not None])
    visible = all(
        _sees(call.principal, name, project, is_open=(name, project) in named) for name, project in needs["places"]
    )
    if not visible or needs["rights"] not in ("", call.principal.fingerprint()):
        raise NotFound("What this request answered may no longer be seen with this key.")
    headers = [(name.encode(), value.encode("latin-1")) for name, value in json.decode(found.headers)]
    body = _unlocked(found.body, needs["secret"], attempt, call)
    return Reply(found.status, body, [*headers, REPLAYED])


def _is_for_another(reply: Reply, attempt: Attempt) -> bool:
    """Whether an answer holds the secret of another user's key: it is for whoever may make that key, and no longer."""
    return bool(reply.secret) and json.decode(reply.body or b"{}").get("user_id") != attempt.user_id


def remember(
    tx: Tx, attempt: Attempt, principal: Principal, reply: Reply, secret: bytes, *, reads: bool, mixed: bool
) -> None:
    """Keep an answer at the end of its unit. `principal` is the caller with the rights that they have after the unit.

    `reads` says that it may hold more than what was written; it is then good for the very same rights only, and as long
    as the key has the scopes that it has now. `mixed` says that its route has no scope of its own, because it may be
    about any resource: the scopes have to stay then, too.
    Malformed, so that nothing is written, if more would be kept for the user than `MAX_KEPT`.
    """
    _check_room(tx, attempt, reply)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in reply.headers if name in _KEPT]
    needs = {
        "places": [scope for scope in log.scopes_written(tx) if _sees(principal, *scope, is_open=True)],
        "rights": principal.fingerprint() if reads or _is_for_another(reply, attempt) else "",
        "scopes": sorted(principal.scopes) if reads or mixed else [],
        "secret": reply.secret,
        "user": attempt.user_id,
    }
    body = _locked(reply, attempt, secret)
    stored = StoredReply(attempt.digest, reply.status, json.encode(headers), body, json.encode(needs))
    replies.remember(tx, attempt.owner, attempt.key, stored)


def _check_room(tx: Tx, attempt: Attempt, reply: Reply) -> None:
    """Count an answer that is large beside what its request wrote, since it costs the server more than the caller."""
    excess = len(reply.body or "") - SMALL - 2 * log.size_written(tx)
    if excess <= 0 or replies.count_kept(tx, attempt.user_id, excess, replies.KEPT_HOURS) <= MAX_KEPT:
        return
    detail = (
        f"The answers kept for your Idempotency-Keys are too large: over {MAX_KEPT >> 20} MiB in"
        f" {replies.KEPT_HOURS} hours."
        " Nothing was written. Send the request with Prefer: return=minimal, read less in it, or leave the key out."
    )
    raise Malformed(detail, errors=[Issue("too_many", detail, parameter="Idempotency-Key")])


def in_use() -> IdempotencyKeyInUse:
    """The first request with the key has not been answered yet."""
    return IdempotencyKeyInUse(headers={"retry-after": "1"})


def _sees(principal: Principal, workspace_id: str, project_id: str | None, *, is_open: bool) -> bool:
    grant = principal.grants.get(workspace_id)
    return grant is not None and (project_id is None or grant.sees_project(workspace_id, project_id, is_open=is_open))


def seed(attempt: Attempt | None) -> str:
    """What a secret that is made by this request is derived from, so that it need not be stored to be given again."""
    return f"{attempt.owner}\n{attempt.text}" if attempt is not None else ""


def _locked(reply: Reply, attempt: Attempt, secret: bytes) -> str | None:
    """The body as it may be stored."""
    if not reply.secret or reply.body is None:
        return reply.body
    if reply.secret == "sealed":
        return vault.close(secret, attempt.key, reply.body)
    document: dict[str, Any] = json.decode(reply.body)
    return json.encode({**document, "secret": ""})


def _unlocked(body: str | None, kind: str, attempt: Attempt, call: Call) -> str | None:
    """The body as it was answered."""
    if not kind or body is None:
        return body
    if kind == "sealed":
        return vault.open(call.secret, attempt.key, body)
    document: dict[str, Any] = json.decode(body)
    return json.encode({**document, "secret": signing.new_key(document["id"], call.secret, seed(attempt)).text})
