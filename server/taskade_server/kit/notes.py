"""Signed notes and checkpoints of logs, in the text forms that C2SP defines (signed-note, tlog-checkpoint).

Why these: Go's module proxy and Certificate Transparency use them, so that witnesses and tools for them exist already,
and a checkpoint fits into an e-mail.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_ED25519: Final = b"\x01"
_DASH: Final = "\u2014"
_MAX_NOTE: Final = 10_000
_TIME: Final = "time "


class BadNote(ValueError):
    """A text is no signed note, no checkpoint, or not signed by a key that is trusted. One sentence for people."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: which one it is (`origin`), how long, the root of its tree, and when (RFC 3339)."""

    origin: str
    size: int
    root: bytes
    time: str

    def text(self) -> str:
        """The note's text; the time stands in an extension line."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n{_TIME}{self.time}\n"


class Signer:
    """A key that signs, derived from the installation's secret: nothing more has to be kept or backed up."""

    def __init__(self, secret: bytes, name: str) -> None:
        seed = HKDF(SHA256(), 32, None, f"ed25519 of {name}".encode()).derive(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.name = name
        self.public = self._key.public_key().public_bytes_raw()

    @property
    def verifier(self) -> str:
        """The public key as text (a vkey), which `Verifier` reads."""
        encoded = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{_key_hash(self.name, self.public).hex()}+{encoded}"

    def sign(self, text: str) -> str:
        """The note: the text, an empty line, and one with the signature."""
        signature = _key_hash(self.name, self.public) + self._key.sign(text.encode())
        return f"{text}\n{_DASH} {self.name} {base64.b64encode(signature).decode()}\n"


class Verifier:
    """A public key. BadNote if its text is none."""

    def __init__(self, vkey: str) -> None:
        self.text = vkey.strip()
        parts = self.text.split("+", 2)
        try:
            self.name, given, encoded = parts
            raw = base64.b64decode(encoded, validate=True)
            self._hash = bytes.fromhex(given)
            self._key = Ed25519PublicKey.from_public_bytes(raw[1:])
        except ValueError as error:
            raise BadNote(f'"{vkey.strip()[:60]}" is no public key of the form name+hash+key.') from error
        if raw[:1] != _ED25519 or self._hash != _key_hash(self.name, raw[1:]):
            raise BadNote(f'"{vkey.strip()[:60]}" is no Ed25519 key, or a part of it is missing.')

    def verified(self, note: str) -> str:
        """The text of a note that this key has signed; BadNote otherwise."""
        text, lines = _parts(note)
        for name, raw in lines:
            if name == self.name and raw[:4] == self._hash:
                try:
                    self._key.verify(raw[4:], text.encode())
                except InvalidSignature as error:
                    raise BadNote("The signature does not fit: the checkpoint was changed.") from error
                return text
        raise BadNote("The checkpoint is not signed by this key.")


def checkpoint_of(text: str) -> Checkpoint:
    """The checkpoint that a note's text holds; BadNote if it holds none."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not lines[1].isdecimal() or (lines[1] != "0" and lines[1][0] == "0"):
        raise BadNote("The note is no checkpoint of a log.")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError as error:
        raise BadNote("The root in the checkpoint is not base64.") from error
    if len(root) != 32:
        raise BadNote("The root in the checkpoint has not 32 bytes.")
    time = next((line.removeprefix(_TIME) for line in lines[3:] if line.startswith(_TIME)), "")
    return Checkpoint(lines[0], int(lines[1]), root, time)


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n") or len(note) > _MAX_NOTE:
        raise BadNote("The text is no signed note.")
    found = []
    for line in signatures.removesuffix("\n").split("\n"):
        try:
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise BadNote("A line with a signature cannot be read.") from error
        if dash != _DASH or not name or len(raw) < 5:
            raise BadNote("A line with a signature cannot be read.")
        found.append((name, raw))
    return text + "\n", found


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]
