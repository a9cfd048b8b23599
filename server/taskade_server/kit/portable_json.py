"""JSON texts that JavaScript would write the same, for signatures over them."""

import json
import re
from decimal import Decimal
from math import isfinite
from typing import Any, Final

from taskade_server.kit.json import encode, encoder
from taskade_server.kit.strict_json import HALF

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
    if HALF.search(text):
        return HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
    return encoder.encode(text).decode()


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
