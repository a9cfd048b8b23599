"""JSON in (strict) and out (fast).

Why two parsers for what comes in: msgspec is five times as fast, but takes duplicate keys, excessive depth, NUL and
numbers beyond 64 bits. What is plainly free of them, it reads alone; whatever leaves a doubt goes to the slow parser,
whose hooks see everything and say where it stands.
"""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 100_000
MAX_MEMBERS: Final = 1_000
# A text, even one that is cut off: what begins like one must not be looked through again from its next quote.
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# What a number must look like to be beyond 64 bits.
_LARGE: Final = re.compile(r"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
_LIMIT: Final = 2**63
_HALF: Final = re.compile("[\ud800-\udfff]")
# With any of these in it, counting what looks like a key would not tell how many there are, or a text may hold NUL.
_DOUBTFUL: Final = (b"\\u0000", b" :", b"\n:", b"\t:", b"\r:")
# A text that JavaScript would write the same: only its escapes, no key that it would move (array indices come first),
# and numbers of few enough digits to be their own shortest form. One that is not recognised costs time only.
_PORTABLE: Final = re.compile(
    r"""(?:
        [][{},:] | true | false | null
      | "(?!(?:0|[1-9][0-9]{0,9})":) [^"\\]*+ (?: \\(?: ["\\bfnrt] | u00(?: 0[0-7bef] | 1[0-9a-f] ) ) [^"\\]*+ )*+ "
      | -?+ (?: [1-9][0-9]{0,14}+ | 0 (?<!-0) ) (?=[],}]|\Z)
      | -?+ (?= [0-9.]{3,16}+ [],}]|[0-9.]{3,16}+\Z ) (?: [1-9][0-9]*+ | 0 (?!\.000000) ) \. [0-9]*+ (?<!0) (?<!\.)
    )*+""",
    re.VERBOSE,
)
_INDEX: Final = re.compile("0|[1-9][0-9]{0,9}")
_MAX_INDEX: Final = 2**32 - 2
_MAX_EXACT: Final = 2**53
_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder()
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


# Where a value stands: the place of what holds it, and its key or index there.
_Place = tuple["_Place", str | int] | None


class _DoubtError(Exception):
    """The quick parser cannot tell whether the text is acceptable."""


class Faulty(ValueError):
    """The text is not acceptable JSON; the message says why and `pointer` where, when that is known."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


def encode(value: Any) -> str:
    """A value as compact JSON text."""
    return _encoder.encode(value).decode()


def encode_bytes(value: Any) -> bytes:
    """A value as compact JSON in UTF-8."""
    return _encoder.encode(value)


def canonical(value: Any) -> str:
    """A value as compact JSON text that is the same however its members were ordered."""
    return _canonical.encode(value).decode()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. To Python true is 1; to a reader of JSON it is not."""
    if one != other:
        return False
    if isinstance(one, dict):
        return all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool)


def portable(value: Any) -> str:
    """JSON that `JSON.stringify(JSON.parse(text))` gives back to the byte, of a JSON text (a str) or any other value.

    A receiver that has only the parsed body can then verify a signature of the bytes. JavaScript writes numbers in its
    own form (1 for 1.0, 1e+21), has none beyond 2**53 exactly, and moves keys like "2024" to the front of an object.
    The text has no duplicate keys, as none that this server wrote or took in has.
    """
    text = value if isinstance(value, str) else encode(value)
    if _PORTABLE.fullmatch(text):
        return text
    pieces: list[str] = []
    _write(json.loads(text, parse_int=_read_integer), pieces)
    return "".join(pieces)


def _read_integer(text: str) -> float:
    return int(text) if len(text) < 17 else float(text)


def _write(value: Any, pieces: list[str]) -> None:
    """Write a value as JavaScript would."""
    if isinstance(value, str):
        pieces.append(_string(value))
    elif isinstance(value, dict):
        mark = "{"
        for key in sorted(value, key=_rank):
            pieces += mark, _string(key), ":"
            _write(value[key], pieces)
            mark = ","
        pieces.append("}" if value else "{}")
    elif isinstance(value, list):
        mark = "["
        for item in value:
            pieces.append(mark)
            _write(item, pieces)
            mark = ","
        pieces.append("]" if value else "[]")
    elif value is None or isinstance(value, bool):
        pieces.append({None: "null", True: "true", False: "false"}[value])
    else:
        pieces.append(_number(value))


def _rank(key: str) -> int:
    """Where JavaScript puts a member: array indices in their order, then the others in the order they have."""
    return min(int(key), _MAX_INDEX + 1) if _INDEX.fullmatch(key) else _MAX_INDEX + 1


def _string(text: str) -> str:
    if _HALF.search(text):
        return _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
    return _encoder.encode(text).decode()


def _number(value: float) -> str:
    """A number as ECMAScript's Number::toString has it: the shortest digits that give it back, like Python's."""
    if isinstance(value, int) and -_MAX_EXACT <= value <= _MAX_EXACT:
        return str(value)
    value = float(value)
    if not isfinite(value):
        return "null"
    if value == 0:
        return "0"
    sign, numbers, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits, minus = "".join(map(str, numbers)), "-" if sign else ""
    point = len(digits) + int(exponent)
    if len(digits) <= point <= 21:
        return minus + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{digits.rjust(len(digits) - point, '0')}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{rest}e{point - 1:+d}"


def difference(before: Any, after: Any) -> Any:
    """The merge patch (RFC 7396) from one value to another: null removes, objects merge, all else replaces."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {
        name: difference(before.get(name), after.get(name))
        for name in {**before, **after}
        if name not in before or name not in after or not same(before[name], after[name])
    }


def array(documents: list[str]) -> str:
    """Rendered documents as one JSON array, with a single large copy."""
    if not documents:
        return "[]"
    documents[0] = "[" + documents[0]
    documents[-1] += "]"
    return ",".join(documents)


def decode(text: str | bytes) -> Any:
    """Read JSON that this server wrote; use `decode_strict` for anything from outside."""
    return _decoder.decode(text)


def decode_members(text: str) -> dict[str, msgspec.Raw]:
    """The members of a stored object, left as raw JSON (for picking some of them)."""
    return _raw_decoder.decode(text)


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
    value = _decoder.decode(body)
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
    check_tree(value, deep=deep, escapes=escapes, large=_LARGE.search(text) is not None)
    return value


def check_tree(value: Any, *, deep: bool = True, escapes: bool = True, large: bool = True) -> None:
    """Refuse depth over 32, and texts and numbers no database can hold; the flags say which of these can occur."""
    if not deep and not escapes and not large:
        return
    pending: list[tuple[Any, _Place, int]] = [(value, None, 1)]
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
            raise Faulty("A number is out of range: 64 bits are the limit.", _pointer(place))
        if depth > MAX_DEPTH and (kind is dict or kind is list):
            raise Faulty(f"Nested deeper than {MAX_DEPTH} levels.", _pointer(place))


def _pointer(place: _Place) -> str:
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


def _check_text(text: str, place: _Place) -> None:
    if "\x00" in text:
        raise Faulty("A text must not contain the NUL character (U+0000).", _pointer(place))
    if not text.isascii() and _HALF.search(text):
        raise Faulty("A text contains half of a surrogate pair, which is not a character.", _pointer(place))


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
