"""Stream tickets: a minute's right to open a stream, for browsers, whose streams cannot send a header.

Why sealed and not stored: any process can open one without asking the others, and what it allows is what its key
allows, looked up when the stream opens and ever after. It is good for several openings within its minute, because a
browser that loses its stream asks again with the same address.
"""

from typing import Final

from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import Unauthenticated

SECONDS: Final = 60
_KIND: Final = "ticket"
_MAX_LENGTH: Final = 200
# A header cannot hold a NUL, so no client can send this as a credential.
_MARK: Final = b"\0ticket "


def seal(secret: bytes, key_id: str) -> tuple[str, int]:
    """A ticket for a key, and when it ends, in milliseconds since 1970."""
    expires = time.now_ms() + SECONDS * 1000
    return signing.seal(secret, json.encode_bytes([_KIND, expires, key_id])), expires


def credential(secret: bytes, ticket: str) -> bytes:
    """What a ticket stands for among the credentials. Unauthenticated if it is none, or no longer one."""
    payload = signing.unseal(secret, ticket) if len(ticket) <= _MAX_LENGTH and ticket.isascii() else None
    found = None if payload is None else json.decode(payload)
    if not isinstance(found, list) or len(found) != 3 or found[0] != _KIND:
        raise Unauthenticated("This is no stream ticket of this server; POST /v1/stream-tickets makes one.")
    # One that would be good for longer was made while the clock was ahead.
    if not 0 < found[1] - time.now_ms() <= SECONDS * 1000 + time.BRIDGED_MS:
        raise Unauthenticated(f"This ticket has expired: it was good for {SECONDS} seconds. Ask for another.")
    return _MARK + str(found[2]).encode()


def key_of(credential: bytes) -> str:
    """The id of the key that a ticket's credential stands for; "" for any other credential."""
    return credential.removeprefix(_MARK).decode() if credential.startswith(_MARK) else ""
