"""Folding and word-splitting of text, done here so that both databases and Python agree on every character.

Why not the databases' own: SQLite folds ASCII only and PostgreSQL folds by locale, so the same search would find
different rows; with folded text stored, both only compare bytes.
"""

import unicodedata
from typing import Final

MAX_TOKENS: Final = 2_000
MAX_TOKEN_LENGTH: Final = 64


def fold(text: str) -> str:
    """Text for comparing and sorting without regard to case: compatibility-normalised and case-folded."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def tokens(*texts: str) -> list[str]:
    """The distinct words of some texts, folded and without accents, in order of appearance (2,000 at most)."""
    words = " ".join(map(_strip, texts)).split()
    return list(dict.fromkeys([word[:MAX_TOKEN_LENGTH] for word in words]))[:MAX_TOKENS]


def _strip(text: str) -> str:
    if text.isascii():
        return text.encode().translate(_ASCII_WORDS).decode()
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join([_token_char(char) for char in folded]).lower()


def _token_char(char: str) -> str:
    if char.isalnum() or unicodedata.category(char) == "Mc":
        return char
    return "" if unicodedata.combining(char) else " "


_ASCII_WORDS: Final = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)
