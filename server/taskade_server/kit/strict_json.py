"""Decodes JSON from strangers: bounded in depth and size, with the place of each fault (RFC 8259, RFC 6901)."""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

import msgspec

from taskade_server.kit.json import decoder

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 100_000
MAX_MEMBERS: Final = 1_000


# A text, even one that is cut off: what begins like one must not be looked through again from its next quote.
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


# What a number must look like to be beyond 64 bits.
_LARGE: Final = re.compile(r"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
_LONGEST: Final = 19
"""How many characters decide whether a number is as long as that."""
PIECE: Final = 1 << 18
"""How many characters are looked through at a time: a search holds the interpreter's lock, 50 ms for 8 MB in one go."""
_LIMIT: Final = 2**63
HALF: Final = re.compile("[\ud800-\udfff]")


# With any of these in it, counting what looks like a key would not tell how many there are, or a text may hold NUL.
_DOUBTFUL: Final = (b"\\u0000", b" :", b"\n:", b"\t:", b"\r:")


# Where a value stands: the place of what holds it, and its key or index there; None for the whole.
Place = tuple["Place", str | int] | None


class _DoubtError(Exception):
    """The quick parser cannot tell whether the text is acceptable."""


class Faulty(ValueError):
    """The text is not acceptable JSON; the message says why and `pointer` where, when that is known."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


def decode_strict(body: bytes) -> Any:
    """Read JSON from outside.

    Faulty: bad UTF-8, syntax, duplicate keys, NaN, numbers over 64 bits, depth over 32, NUL, lone surrogates, and
    more than 100,000 values, or 1,000 members of one object: a few megabytes of brackets are a gigabyte of lists.
    """
    if len(body) > 2 * MAX_VALUES and _has_too_many(body):
        raise Faulty(f"There are more than {MAX_VALUES:,} values.")
    try:
        return _decode_plain(body)
    except (_DoubtError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_doubtful(body)


def _has_too_many(body: bytes) -> bool:
    """Whether a text holds more values than are allowed: each but the first is behind a comma, or first in a list."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") < MAX_VALUES or _marks(body) < MAX_VALUES:
        return False
    # Far more texts than that many values and their keys could have are not even looked for.
    if body.count(b'"') - body.count(b'\\"') > 4 * MAX_VALUES:
        return True
    return _marks(_TEXT.sub(b"", body)) >= MAX_VALUES


def _marks(body: bytes) -> int:
    opened = body.count(b"[") + body.count(b"{") - body.count(b"[]") - body.count(b"{}")
    return body.count(b",") + opened


def _decode_plain(body: bytes) -> Any:
    """Read a text that is certainly acceptable; any exception means that it may not be.

    Each key is followed by `":` when no space stands between, and a string adds to those at most: if the text has as
    many as the tree has keys, no key was lost to one of the same name.
    """
    for mark in _DOUBTFUL:
        if mark[0] in body and mark in body:  # a single byte is found, or not, ten times as fast
            raise _DoubtError
    value = decoder.decode(body)
    if _count_keys([value], MAX_DEPTH + 1) != body.count(b'":'):
        raise _DoubtError
    return value


def _count_keys(node: dict[str, Any] | list[Any], depth: int) -> int:
    """How many keys a tree has; doubtful if it is too deep or has a number that may be too large."""
    if depth == 0:
        raise _DoubtError
    count = len(node) if type(node) is dict else 0
    if count > MAX_MEMBERS:
        raise _DoubtError
    items: Iterable[Any] = node.values() if type(node) is dict else node
    for item in items:
        kind = type(item)
        if kind is str:
            continue
        if kind is dict or kind is list:
            count += _count_keys(item, depth - 1)
        elif (kind is int or kind is float) and not -_LIMIT <= item < _LIMIT:
            raise _DoubtError
    return count


def _decode_doubtful(body: bytes) -> Any:
    """Read any text, and say what is wrong with it."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Faulty(f"The text is not UTF-8 at byte {error.start}.") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise Faulty(f"Not JSON at line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise Faulty(f"Nested deeper than {MAX_DEPTH} levels.") from error
    except Faulty:
        raise
    except ValueError as error:
        raise Faulty("A number has too many digits.") from error
    deep, escapes = body.count(b"[") + body.count(b"{") > MAX_DEPTH, b"\\u" in body
    check_tree(value, deep=deep, escapes=escapes, large=_may_have_large_number(text))
    return value


def _may_have_large_number(text: str) -> bool:
    """Whether some number, or something in a text that looks like one, may be beyond 64 bits."""
    return any(_LARGE.search(text, start, start + PIECE + _LONGEST) for start in range(0, len(text), PIECE))


def check_tree(value: Any, *, deep: bool = True, escapes: bool = True, large: bool = True) -> None:
    """Refuse depth over 32, and texts and numbers no database can hold; the flags say which of these can occur."""
    if not deep and not escapes and not large:
        return
    pending: list[tuple[Any, Place, int]] = [(value, None, 1)]
    while pending:
        node, place, depth = pending.pop()
        kind = type(node)
        if kind is dict:
            for key, item in node.items():
                _check_text(key, place)
                pending.append((item, (place, key), depth + 1))
        elif kind is list:
            pending.extend((item, (place, index), depth + 1) for index, item in enumerate(node))
        elif kind is str:
            _check_text(node, place)
        elif (kind is int or kind is float) and not _fits(node):
            raise Faulty("A number is out of range: 64 bits are the limit.", pointer_to(place))
        if depth > MAX_DEPTH and (kind is dict or kind is list):
            raise Faulty(f"Nested deeper than {MAX_DEPTH} levels.", pointer_to(place))


def pointer_to(place: Place) -> str:
    """A place as a JSON Pointer."""
    tokens = []
    while place is not None:
        place, token = place
        tokens.append(f"/{escape_pointer(token) if isinstance(token, str) else token}")
    return "".join(reversed(tokens))


def _fits(number: float) -> bool:
    return -(2**63) <= number < 2**63 if isinstance(number, int) else isfinite(number)


def escape_pointer(key: str) -> str:
    """One reference token of a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _check_text(text: str, place: Place) -> None:
    if "\x00" in text:
        raise Faulty("A text must not contain the NUL character (U+0000).", pointer_to(place))
    if not text.isascii() and HALF.search(text):
        raise Faulty("A text contains half of a surrogate pair, which is not a character.", pointer_to(place))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(pairs) > MAX_MEMBERS:
        raise Faulty(f"An object has more than {MAX_MEMBERS:,} members.")
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Faulty(f"The key {json.dumps(twice)} stands twice in one object.")
    return result


def _constant(name: str) -> Any:
    raise Faulty(f"{name} is not a JSON value.")
