"""Signatures of webhooks: Standard Webhooks 1.0.0 (`v1`, `v1a`), and the plain HMAC of the body.

Why two readings of one secret: a receiver's library turns `whsec_...` into bytes, while a handler of ten lines uses the
secret's text as it stands. The Standard Webhooks headers follow the first, `X-Taskade-Signature` the second.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
PLAIN_SIGNATURE: Final = "X-Taskade-Signature"
SECRET: Final = "whsec_"
PRIVATE: Final = "whsk_"
PUBLIC: Final = "whpk_"
TOLERANCE: Final = 300
MIN_CHOSEN: Final = 8
MAX_CHOSEN: Final = 256
_SIZES: Final = range(24, 65)
_MAX_SIGNATURES: Final = 32
_UNIX: Final = re.compile("[0-9]{1,12}")


class Unverified(ValueError):
    """A delivery is not to be trusted: `code` is for programs, the message is one sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class KeyPair(NamedTuple):
    """An Ed25519 key: `private` (whsk_...) signs and stays here, `public` (whpk_...) verifies and is for everybody."""

    private: str
    public: str


# ---- keys ------------------------------------------------------------------------------------------------------------


def new_secret(size: int = 32) -> str:
    """Return a symmetric secret of `size` random bytes, 24 to 64."""
    if size not in _SIZES:
        raise ValueError("A secret has 24 to 64 bytes.")
    return SECRET + _encode(os.urandom(size))


def new_key_pair() -> KeyPair:
    """A key pair for asymmetric signatures. The private key is 64 bytes: the seed, then the public key."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return KeyPair(PRIVATE + _encode(key.private_bytes_raw() + public), PUBLIC + _encode(public))


def public_key(private: str) -> str:
    """The public key (whpk_...) of a private one (whsk_...)."""
    return PUBLIC + _encode(_private(private).public_key().public_bytes_raw())


def secret_refusal(secret: str) -> str | None:
    """Why a text cannot be a client's own secret, in one sentence; None if it can."""
    if secret.startswith((PRIVATE, PUBLIC)):
        return f"A secret does not begin with {PRIVATE} or {PUBLIC}, as keys of asymmetric signatures do."
    if secret.startswith(SECRET):
        raw = _decode(secret.removeprefix(SECRET))
        if raw is None or len(raw) not in _SIZES:
            return f"After {SECRET} there must be the base64 form of 24 to 64 bytes; any other text is used as it is."
        return None
    if not MIN_CHOSEN <= len(secret) <= MAX_CHOSEN:
        return f"A secret has {MIN_CHOSEN} to {MAX_CHOSEN} characters."
    if not secret.isprintable() or secret != secret.strip():
        return "A secret must not contain line ends or other invisible characters, nor spaces around it."
    return None


def secret_bytes(secret: str) -> bytes:
    """The bytes that a secret stands for: what `whsec_` encodes, or any other text as it is, in UTF-8."""
    if not secret.startswith(SECRET):
        return secret.encode()
    raw = _decode(secret.removeprefix(SECRET))
    if not raw:
        raise ValueError(f"After {SECRET} there must be base64.")
    return raw


def standard_form(secret: str) -> str:
    """A secret as the libraries of Standard Webhooks take it, whatever text was chosen."""
    return SECRET + _encode(secret_bytes(secret))


# ---- signing ---------------------------------------------------------------------------------------------------------


def sign(message_id: str, timestamp: int, body: bytes, keys: Sequence[str]) -> str:
    """The value of `webhook-signature`: one signature for each key, `v1a` for whsk_... and `v1` for any other.

    `timestamp` is the attempt's, in seconds. While a secret is being replaced, the old and the new one both sign.
    """
    if "." in message_id or not message_id.isascii() or not message_id.isprintable() or not message_id:
        raise ValueError("A message's id is printable ASCII without a dot.")
    if not keys:
        raise ValueError("There is no key to sign with.")
    content = _content(message_id, str(timestamp), body)
    return " ".join(_sign(content, key) for key in keys)


def sign_plain(body: bytes, secret: str) -> str:
    """The value of `X-Taskade-Signature`: HMAC-SHA256 of the body, keyed with the text of the secret as it stands."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def headers(message_id: str, timestamp: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """All headers that let a receiver verify a delivery; the first secret makes the plain signature."""
    signed = {ID: message_id, TIMESTAMP: str(timestamp), SIGNATURE: sign(message_id, timestamp, body, keys)}
    secret = next((key for key in keys if not key.startswith(PRIVATE)), None)
    return signed if secret is None else {**signed, PLAIN_SIGNATURE: sign_plain(body, secret)}


def _content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return b".".join((message_id.encode(), timestamp.encode(), body))


def _sign(content: bytes, key: str) -> str:
    if key.startswith(PRIVATE):
        return "v1a," + _encode(_private(key).sign(content))
    return "v1," + _encode(hmac.digest(secret_bytes(key), content, hashlib.sha256))


# ---- verifying -------------------------------------------------------------------------------------------------------


def verify(
    received: Mapping[str, str], body: bytes, keys: Sequence[str], *, now: float, tolerance: int = TOLERANCE
) -> None:
    """Check the three headers of a delivery with any of these keys: secrets, or public keys. Unverified says why not.

    `tolerance` is how many seconds the attempt may lie in the past, against replays, or in the future, for clocks.
    """
    given = {name.lower(): value for name, value in received.items()}
    for name in (ID, TIMESTAMP, SIGNATURE):
        if not given.get(name):
            raise Unverified("missing_header", f"The header {name} is missing.")
    if not _UNIX.fullmatch(given[TIMESTAMP]):
        raise Unverified("bad_timestamp", f"The header {TIMESTAMP} is not a time in whole seconds since 1970.")
    age = now - int(given[TIMESTAMP])
    if abs(age) > tolerance:
        when = "ago" if age > 0 else "ahead"
        raise Unverified("stale", f"The delivery was sent {abs(age):.0f} seconds {when}; {tolerance} are tolerated.")
    content = _content(given[ID], given[TIMESTAMP], body)
    signatures = given[SIGNATURE].split(" ")[:_MAX_SIGNATURES]
    found = [_fits(content, key, signatures) for key in keys]
    if not any(found):
        known = any(signature.startswith(("v1,", "v1a,")) for signature in signatures)
        reason = "None of the signatures fits" if known else "There is no signature of the kind v1 or v1a"
        raise Unverified("bad_signature", f"{reason}: the body was changed on its way, or the secret is another one.")


def verify_plain(signature: str, body: bytes, secret: str) -> bool:
    """Whether a value of `X-Taskade-Signature` is right."""
    return hmac.compare_digest(signature.encode(), sign_plain(body, secret).encode())


def _fits(content: bytes, key: str, signatures: Sequence[str]) -> bool:
    """Whether one of some signatures is the one of this key. Only its canonical spelling is.

    A key that can sign does so once, however many signatures there are: both kinds have one signature for one content.
    """
    if key.startswith(PUBLIC):
        return any(_is_by(content, key, signature) for signature in signatures)
    wanted = _sign(content, key).encode()
    return any(hmac.compare_digest(signature.encode(), wanted) for signature in signatures)


def _is_by(content: bytes, key: str, signature: str) -> bool:
    """Whether the owner of a public key made a signature."""
    version, _, text = signature.partition(",")
    raw = _decode(text)
    if version != "v1a" or raw is None or _encode(raw) != text:
        return False
    try:
        _public(key).verify(raw, content)
    except InvalidSignature:
        return False
    return True


def _private(text: str) -> Ed25519PrivateKey:
    """Both forms in use: the seed alone (32 bytes), or followed by its public key (64)."""
    raw = _decode(text.removeprefix(PRIVATE))
    if not text.startswith(PRIVATE) or raw is None or len(raw) not in (32, 64):
        raise ValueError(f"A private key is {PRIVATE} and the base64 form of 32 or 64 bytes.")
    key = Ed25519PrivateKey.from_private_bytes(raw[:32])
    if raw[32:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError("The private key's two halves do not belong together.")
    return key


def _public(text: str) -> Ed25519PublicKey:
    raw = _decode(text.removeprefix(PUBLIC))
    if raw is None or len(raw) != 32:
        raise ValueError(f"A public key is {PUBLIC} and the base64 form of 32 bytes.")
    return Ed25519PublicKey.from_public_bytes(raw)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes | None:
    """Standard base64, padded or not; None for anything else."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except ValueError:
        return None
