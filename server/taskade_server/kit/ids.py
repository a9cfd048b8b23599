"""Prefixed identifiers: a resource prefix and a UUIDv7 (RFC 9562) in 26 lower-case Crockford base32 characters.

Why UUIDv7: ids of one process sort in the order of creation, so they are kind to B-trees and readable in logs, and a
client that works offline can make its own.
"""

import os
import re
import threading
import time
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
PATTERN_26: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_PAIRS: Final = [a + b for a in ALPHABET for b in ALPHABET]
_RULE: Final = re.compile(PATTERN_26)

_lock = threading.Lock()
_last_ms = 0
_counter = 0


def _next_tick() -> tuple[int, int]:
    """Milliseconds and a 12-bit counter, strictly increasing in this process even when the clock steps back."""
    global _last_ms, _counter
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            # A random start in the lower half keeps two processes from colliding in the same millisecond.
            _last_ms, _counter = now, int.from_bytes(os.urandom(2)) & 0x3FF
        elif _counter < 0xFFF:
            _counter += 1
        else:
            _last_ms, _counter = _last_ms + 1, 0
        return _last_ms, _counter


def new(prefix: str) -> str:
    """A fresh id such as `task_01j9...`, greater than every id this process made before."""
    ms, counter = _next_tick()
    rest = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return f"{prefix}_{encode((ms << 80) | (7 << 76) | (counter << 64) | (2 << 62) | rest)}"


def encode(value: int) -> str:
    """A 128-bit integer as 26 base32 characters."""
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id of that prefix."""
    cut = len(prefix)
    return (
        len(text) == cut + 27
        and text[cut] == "_"
        and text[:cut] == prefix
        and _RULE.fullmatch(text, cut + 1) is not None
    )


def pattern(prefix: str) -> str:
    """The regular expression of an id, for JSON Schema."""
    return f"^{prefix}_{PATTERN_26}$"
