"""Order keys: strings that sort between any two others, so that moving one task rewrites one row.

Why not numbers: a gap between two numbers fills up, a string only gets longer. A key is read as the digits of a
fraction in base 32 and never ends in the lowest digit, so there is always room before it.
"""

import re
from typing import Final

from taskade_server.kit.ids import ALPHABET, PATTERN_26

PATTERN: Final = "[0-9a-hjkmnp-tv-z]{0,199}[1-9a-hjkmnp-tv-z]"
MAX_LENGTH: Final = 200
"""The longest key that a client may send, and so the longest that may ever be given."""
LONG: Final = 40
"""A key above this length is a reason to give the neighbours new ones."""
_BASE: Final = len(ALPHABET)
_VALUE: Final = {digit: value for value, digit in enumerate(ALPHABET)}
_RESERVED: Final = re.compile(f"{PATTERN_26}h")


def initial(object_id: str) -> str:
    """The key of a new row: behind those made before, because ids grow, and unique, because ids are."""
    return object_id.partition("_")[2] + "h"


def is_initial(key: str) -> bool:
    """Whether the key has the form of `initial`. Such a key belongs to the row with that id, whether it exists or not:
    a new row takes its key without a look at the other rows."""
    return len(key) == 27 and _RESERVED.fullmatch(key) is not None


def between(low: str | None, high: str | None) -> str:
    """A key after `low` (None: the start) and before `high` (None: the end), which is nobody's `initial` key.

    ValueError unless low < high.
    """
    key = _between(low, high)
    while is_initial(key):
        key = _between(key, high)
    return key


def _between(low: str | None, high: str | None) -> str:
    """Any key in between.

    At an open end the next digit is taken and not the middle one: tasks are moved to the top a thousand times, and
    keys grow by a character in thirty moves then, not in five.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError("the lower key must sort before the higher one")
    floor, ceiling, key = low or "", high, ""
    while True:
        index = len(key)
        a = ALPHABET.index(floor[index]) if index < len(floor) else 0
        b = ALPHABET.index(ceiling[index]) if ceiling is not None and index < len(ceiling) else _BASE
        if b - a > 1:
            return key + ALPHABET[b - 1 if low is None else a + 1 if high is None else (a + b) // 2]
        if b != a:
            # Neighbouring digits: stay at the lower one and find room behind the lower key.
            ceiling = None
        key += ALPHABET[a]


def spread(low: str | None, high: str | None, count: int) -> list[str]:
    """Return `count` short keys in order between two others, evenly apart, none of which is the `initial` key of a row.

    ValueError unless low < high.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError("the lower key must sort before the higher one")
    length = 1
    while _room(low, high, length) < 2 * (count + 1):
        length += 1
    bottom = _number(low or "", length)
    room = _room(low, high, length)
    keys = []
    for index in range(1, count + 1):
        value = bottom + index * room // (count + 1)
        # Neighbours differ by two at least, so that the next number is free where one ends in a zero.
        key = _text(value if value % _BASE else value + 1, length)
        keys.append(f"{key}1" if is_initial(key) else key)
    return keys


def _room(low: str | None, high: str | None, length: int) -> int:
    """How far two keys are apart, counted in digits of that place."""
    top = _BASE**length if high is None else _number(high, length)
    return top - _number(low or "", length)


def _number(key: str, length: int) -> int:
    """The first digits of a key as a whole number."""
    value = 0
    for digit in key[:length].ljust(length, "0"):
        value = value * _BASE + _VALUE[digit]
    return value


def _text(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        value, digit = divmod(value, _BASE)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
