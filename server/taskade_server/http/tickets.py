"""Stream tickets: a minute's right to open a stream, for browsers, whose streams cannot send a header.

Why sealed and not stored: any process can open one without asking the others, and what it allows is what its key
allows, looked up when the stream opens and ever after. It is good for several openings within its minute, because a
browser that loses its stream asks again with the same address.
"""

from typing import Final

from taskade_server.http.wire import Call, Reply
from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import Forbidden, Invalid, Issue, Unauthenticated
from taskade_server.store.database import Tx

SECONDS: Final = 60
_KIND: Final = "ticket"
_MAX_LENGTH: Final = 200
# A header cannot hold a NUL, so that nobody can send one of these by himself.
_MARK: Final = b"\0ticket "


def create(call: Call, tx: Tx) -> Reply:
    """POST /stream-tickets."""
    call.no_parameters()
    if call.body not in (None, {}):
        detail = "Send no body, or {}."
        raise Invalid("A ticket takes no body.", errors=[Issue("not_allowed", detail, pointer="")])
    if call.principal.key_id is None:
        raise Forbidden("Tickets are for API keys.")
    expires = time.now_ms() + SECONDS * 1000
    ticket = signing.seal(call.secret, json.encode_bytes([_KIND, expires, call.principal.key_id]))
    document = {"ticket": ticket, "expires_at": time.format_ms(expires)}
    return Reply(201, json.encode(document), [(b"cache-control", b"no-store")])


def credential(secret: bytes, ticket: str) -> bytes:
    """What a ticket stands for among the credentials. Unauthenticated if it is none, or no longer one."""
    payload = signing.unseal(secret, ticket) if len(ticket) <= _MAX_LENGTH and ticket.isascii() else None
    found = None if payload is None else json.decode(payload)
    if not isinstance(found, list) or len(found) != 3 or found[0] != _KIND:
        raise Unauthenticated("This is no stream ticket of this server; POST /v1/stream-tickets makes one.")
    if found[1] <= time.now_ms():
        raise Unauthenticated(f"This ticket has expired: it was good for {SECONDS} seconds. Ask for another.")
    return _MARK + str(found[2]).encode()


def key_of(credential: bytes) -> str:
    """The id of the key that a ticket's credential stands for; "" for any other credential."""
    return credential.removeprefix(_MARK).decode() if credential.startswith(_MARK) else ""
