"""Prefixed identifiers: a resource prefix and a UUIDv7 (RFC 9562) in 26 lower-case Crockford base32 characters.

Why UUIDv7: ids of one process sort in the order of creation, so they are kind to B-trees and readable in logs, and a
client that works offline can make its own.
"""

import os
import random
import re
import threading
import time
from functools import lru_cache
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
PATTERN_26: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_BASE32HEX: Final = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_PAIRS: Final = [a + b for a in ALPHABET for b in ALPHABET]
_CHARACTERS: Final = bytes(ord(ALPHABET[byte & 31]) for byte in range(256))
_RULE: Final = re.compile(PATTERN_26)

_random = random.Random()
# What is random in the next ids, made many at a time.
_endings: list[str] = []


def _begin_anew() -> None:
    """A forked process must not go on with its parent's numbers."""
    _random.seed()
    _endings.clear()


os.register_at_fork(after_in_child=_begin_anew)
_lock = threading.Lock()
_last_ms = 0
_counter = 0


def _take_ticks(count: int) -> range:
    """The next numbers of milliseconds (all bits but 12) and a counter (the last 12 bits).

    They strictly increase in this process even when the clock steps back.
    """
    global _last_ms, _counter
    now = time.time_ns() // 1_000_000
    # A random start in the lower quarter keeps two processes from colliding in the same millisecond.
    first = now << 12 | _random.getrandbits(10) if now > _last_ms else (_last_ms << 12 | _counter) + 1
    _last_ms, _counter = divmod(first + count - 1, 1 << 12)
    return range(first, first + count)


def new(prefix: str) -> str:
    """A fresh id such as `task_01j9...`, greater than every id this process made before."""
    with _lock:
        tick = _take_ticks(1)[0]
        if not _endings:
            _endings.extend(_random_endings(256))
        rest = _endings.pop()
    head = 0x70008 | (tick & 0xFFF) << 4 | _random.getrandbits(2)
    return f"{prefix}_{_time_part(tick >> 12)}{_PAIRS[head >> 10]}{_PAIRS[head & 1023]}{rest}"


def many(prefix: str, count: int) -> list[str]:
    """Return `count` ids as `new` makes them, in order; of a thousand each costs half as much."""
    if count == 1:
        return [new(prefix)]
    with _lock:
        ticks = _take_ticks(count)
    pairs, part, found = _PAIRS, _time_part, []
    for tick, bits, rest in zip(ticks, _random.randbytes(count), _random_endings(count), strict=True):
        head = 0x70008 | (tick & 0xFFF) << 4 | bits & 3
        found.append(f"{prefix}_{part(tick >> 12)}{pairs[head >> 10]}{pairs[head & 1023]}{rest}")
    return found


def _random_endings(count: int) -> list[str]:
    """Return `count` times the last 12 characters of an id.

    Ids need to be unique, not secret, so a generator seeded by the system is enough. It gives a byte for each
    character, of which 5 bits count: much sooner done than cutting up a number.
    """
    text = _random.randbytes(12 * count).translate(_CHARACTERS).decode()
    return [text[place : place + 12] for place in range(0, len(text), 12)]


@lru_cache(64)
def _time_part(ms: int) -> str:
    """The first 10 characters, which are the time and two zero bits."""
    return _text(ms, 40)


def _text(value: int, top: int) -> str:
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(top, -1, -10)])


def encode(value: int) -> str:
    """A 128-bit integer as 26 base32 characters."""
    return _text(value, 120)


def number(text: str) -> int:
    """The 128 bits of an id, for protocols that have a form of their own for such numbers."""
    return int(text[-26:].translate(_BASE32HEX), 32)


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id of that prefix."""
    return len(text) == len(prefix) + 27 and _has_form(text, prefix)


@lru_cache(1024)
def _has_form(text: str, prefix: str) -> bool:
    """Whether a text of the right length has the form of an id.

    Apart from `is_id`, because a longer text, which may be a megabyte, must not be remembered.
    """
    cut = len(prefix)
    return text[cut] == "_" and text[:cut] == prefix and _RULE.fullmatch(text, cut + 1) is not None


def pattern(prefix: str) -> str:
    """The regular expression of an id, for JSON Schema."""
    return f"^{prefix}_{PATTERN_26}$"
