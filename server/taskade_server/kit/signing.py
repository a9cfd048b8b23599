"""Keyed hashes: API key secrets, signed cursors, and the server secret they hang on.

Why HMAC and not a password hash: an API key carries 256 random bits, so it cannot be guessed; a keyed hash makes a
copied database useless and costs a microsecond per request.
"""

import base64
import hashlib
import hmac
import secrets
import zlib
from typing import Final, NamedTuple

KEY_PREFIX: Final = "tsk"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43
_CHECK_LENGTH: Final = 6


class KeyText(NamedTuple):
    """An API key as its holder sees it, taken apart: `tsk_<id>_<43 random base62>_<6 base62 CRC-32>`."""

    id: str
    text: str


def new_key(key_id: str, secret: bytes = b"", seed: str = "") -> KeyText:
    """A new API key for the resource id `key_...` (256 bits of randomness, a checksum that scanners can verify).

    With a seed the bits are derived from it and the installation's secret (HMAC as a pseudo-random function), so that
    the same request, sent again, can be given the same key although nobody stored it.
    """
    bits = secrets.randbits(256)
    if seed:
        bits = int.from_bytes(hmac.digest(secret, f"api key\n{key_id}\n{seed}".encode(), hashlib.sha256))
    body = f"{KEY_PREFIX}_{key_id.removeprefix('key_')}_{_base62(bits, _SECRET_LENGTH)}"
    return KeyText(key_id, f"{body}_{_checksum(body)}")


def parse_key(text: str) -> KeyText | None:
    """The key's id if the text has the form and checksum of a key, so that a typo never costs a query."""
    parts = text.split("_")
    if len(parts) != 4 or parts[0] != KEY_PREFIX or len(parts[1]) != 26 or len(parts[2]) != _SECRET_LENGTH:
        return None
    if not hmac.compare_digest(_checksum(text[: -_CHECK_LENGTH - 1]).encode(), parts[3].encode()):
        return None
    return KeyText(f"key_{parts[1]}", text)


def digest(secret: bytes, text: str) -> str:
    """HMAC-SHA-256 of a text in hexadecimal, as stored for API keys."""
    return hmac.digest(secret, text.encode(), hashlib.sha256).hex()


def seal(secret: bytes, payload: bytes) -> str:
    """A payload with a 96-bit authentication tag, in URL-safe base64; it is signed, not secret."""
    tag = _tag(secret, payload)
    return base64.urlsafe_b64encode(tag + payload).rstrip(b"=").decode()


def unseal(secret: bytes, text: str) -> bytes | None:
    """The payload of a sealed text, or None if it was not made with this secret."""
    try:
        raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    tag, payload = raw[:12], raw[12:]
    return payload if hmac.compare_digest(_tag(secret, payload), tag) else None


def _tag(secret: bytes, payload: bytes) -> bytes:
    """Keyed BLAKE2b (RFC 7693), which is its own MAC and the fastest one at hand."""
    return hashlib.blake2b(payload, key=secret[:64], digest_size=12).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_LENGTH)


def _base62(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
