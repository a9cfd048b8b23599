"""Whole numbers in what clients send as text.

Why not `int`: it takes digits of every script, spaces and signs, and fails on texts of more than 4,300 digits.
"""

from typing import Final

DIGITS: Final = 17
"""Longer numbers count nothing that there is, and fit in no column."""


def whole(text: str, digits: int = DIGITS) -> int | None:
    """The number that a text is, of ASCII digits only and not of too many; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None
