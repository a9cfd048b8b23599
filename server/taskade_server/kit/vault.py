"""Secrets that have to be read again, kept encrypted: AES-256-GCM (NIST SP 800-38D) under the installation's secret.

Why encrypted and not hashed, as API keys are: to sign a delivery the server needs the secret itself. A copied database
alone is useless all the same.
"""

import base64
import hashlib
import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE: Final = 12


class Unreadable(ValueError):
    """The text was encrypted under another secret, for something else, or was damaged."""


def close(secret: bytes, purpose: str, text: str) -> str:
    """A text as only this installation can read it; `purpose` binds it to what it belongs to, such as an id."""
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(_key(secret)).encrypt(nonce, text.encode(), purpose.encode())
    return base64.b64encode(nonce + sealed).decode()


def open(secret: bytes, purpose: str, closed: str) -> str:
    """The text again. Unreadable if the secret or the purpose is another."""
    try:
        raw = base64.b64decode(closed, validate=True)
        return AESGCM(_key(secret)).decrypt(raw[:_NONCE], raw[_NONCE:], purpose.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise Unreadable("The stored secret cannot be read with this installation's secret.") from error


def _key(secret: bytes) -> bytes:
    return hmac.digest(secret, b"vault", hashlib.sha256)
