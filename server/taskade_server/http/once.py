"""Idempotency-Key: a write that is sent again has its effect once, and its first answer every time.

Why in the transaction of the effect: an answer kept anywhere else can be lost when the effect is not, or the other way
round. Only answers to writes that succeeded are kept; a failed one has changed nothing, so that its key stays free.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import StoredReply
from taskade_server.http.wire import Call, Reply, Request
from taskade_server.kit import json, signing, vault
from taskade_server.kit.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Issue,
    Malformed,
    NotFound,
)
from taskade_server.store.database import Tx

MAX_KEY: Final = 255
REPLAYED: Final = (b"idempotent-replayed", b"true")
_KEPT: Final = frozenset({b"etag", b"location", b"commit-seq", b"preference-applied", b"total-count"})


@dataclass(frozen=True, slots=True)
class Once:
    """One attempt at a write: whose key it is, and what exactly is asked. `text` is the key as the client sent it."""

    owner: str
    text: str
    key: str
    digest: str


def key_of(request: Request) -> str:
    """The key of a request, empty if it has none. Malformed if it is no key (quoted or bare, up to 255 characters)."""
    raw = request.headers.get(b"idempotency-key")
    if raw is None:
        return ""
    text = raw.decode("latin-1").strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 0 < len(text) <= MAX_KEY or not all(" " <= char <= "~" for char in text):
        detail = f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters; a UUID is a good one."
        raise Malformed(detail, errors=[Issue("invalid_key", detail, parameter="Idempotency-Key")])
    return text


def attempt(text: str, request: Request, call: Call) -> Once:
    """The attempt that a request is: another method, path, parameter, version or body makes it another one."""
    principal = call.principal
    owner = principal.key_id or principal.user_id
    asked = [request.method, request.path, call.query_string, request.header(b"if-match"),
             request.header(b"if-none-match"), json.canonical(call.body)]  # fmt: skip
    digest = hashlib.sha256("\n".join(asked).encode("utf-8", "surrogatepass")).hexdigest()
    return Once(owner, text, signing.digest(call.secret, f"{owner}\n{text}"), digest)


def recall(tx: Tx, once: Once, call: Call) -> Reply | None:
    """The first answer to this request, None if there is none yet.

    IdempotencyKeyReused for another request with the key, IdempotencyKeyInUse while the first one is under way,
    NotFound when the caller may no longer see what it changed.
    """
    try:
        found = log.recall_reply(tx, once.owner, once.key)
    except BlockingIOError as error:
        raise in_use() from error
    if found is None:
        return None
    if found.digest != once.digest:
        raise IdempotencyKeyReused
    needs = json.decode(found.places)
    visible = all(_sees(call.principal, *place) for place in needs["places"])
    if not visible or needs["rights"] not in ("", call.principal.fingerprint()):
        raise NotFound("What this request answered may no longer be seen with this key.")
    headers = [(name.encode(), value.encode("latin-1")) for name, value in json.decode(found.headers)]
    body = _unlocked(found.body, needs["secret"], once, call)
    return Reply(found.status, body, [*headers, REPLAYED])


def remember(tx: Tx, once: Once, principal: Principal, reply: Reply, secret: bytes, *, reads: bool) -> None:
    """Keep an answer at the end of its unit. `principal` is the caller as the unit left him.

    `reads` says that it may hold more than what was written; it is then good for the very same rights only.
    """
    headers = [(name.decode(), value.decode("latin-1")) for name, value in reply.headers if name in _KEPT]
    needs = {
        "places": [place for place in log.places(tx) if _sees(principal, *place)],
        "rights": principal.fingerprint() if reads else "",
        "secret": reply.secret,
    }
    body = _locked(reply, once, secret)
    log.remember_reply(
        tx, once.owner, once.key, StoredReply(once.digest, reply.status, json.encode(headers), body, json.encode(needs))
    )


def in_use() -> IdempotencyKeyInUse:
    """The first request with the key has not been answered yet."""
    return IdempotencyKeyInUse(headers={"retry-after": "1"})


def _sees(principal: Principal, workspace_id: str, project_id: str | None) -> bool:
    grant = principal.grants.get(workspace_id)
    return grant is not None and (project_id is None or grant.sees_project(project_id))


def seed(once: Once | None) -> str:
    """What a secret that is made by this request is derived from, so that it need not be stored to be given again."""
    return f"{once.owner}\n{once.text}" if once is not None else ""


def _locked(reply: Reply, once: Once, secret: bytes) -> str | None:
    """The body as it may be stored."""
    if not reply.secret or reply.body is None:
        return reply.body
    if reply.secret == "sealed":
        return vault.close(secret, once.key, reply.body)
    document: dict[str, Any] = json.decode(reply.body)
    return json.encode({**document, "secret": ""})


def _unlocked(body: str | None, kind: str, once: Once, call: Call) -> str | None:
    """The body as it was answered."""
    if not kind or body is None:
        return body
    if kind == "sealed":
        return vault.open(call.secret, once.key, body)
    document: dict[str, Any] = json.decode(body)
    return json.encode({**document, "secret": signing.new_key(document["id"], call.secret, seed(once)).text})
