"""Order keys: strings that sort between any two others, so that moving one task rewrites one row.

Why not numbers: a gap between two numbers fills up, a string only gets longer. A key is read as the digits of a
fraction in base 32 and never ends in the lowest digit, so there is always room before it.
"""

from typing import Final

from taskade_server.kit.ids import ALPHABET

PATTERN: Final = "[0-9a-hjkmnp-tv-z]{0,199}[1-9a-hjkmnp-tv-z]"
_BASE: Final = len(ALPHABET)


def initial(object_id: str) -> str:
    """The key of a new row: behind those made before, because ids grow."""
    return object_id.partition("_")[2][:16] + "h"


def between(low: str | None, high: str | None) -> str:
    """A key after `low` (None: the start) and before `high` (None: the end). ValueError unless low < high.

    At an open end the next digit is taken and not the middle one: tasks are moved to the top a thousand times, and
    keys grow by a character in thirty moves then, not in five.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError("the lower key must sort before the higher one")
    floor, ceiling, key = low or "", high, ""
    while True:
        place = len(key)
        a = ALPHABET.index(floor[place]) if place < len(floor) else 0
        b = ALPHABET.index(ceiling[place]) if ceiling is not None and place < len(ceiling) else _BASE
        if b - a > 1:
            return key + ALPHABET[b - 1 if low is None else a + 1 if high is None else (a + b) // 2]
        if b != a:
            # Neighbouring digits: stay at the lower one and find room behind the lower key.
            ceiling = None
        key += ALPHABET[a]
