"""Taking values of secrets out of a text, however they are spelled in it.

Why the text is read in several ways, and not searched for several spellings: percent-encoding and JSON let a writer
choose for each character, so that a value has more spellings than could be listed.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_PLUS: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+|\+")
_ESCAPE: Final = re.compile(
    r'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]'
)
_SIXTY_FOUR: Final = re.compile(r"[A-Za-z0-9+/_-]?")
_END: Final = re.compile(r"[A-Za-z0-9+/_-]?(?:={1,2}|(?:%3[dD]){1,2})?")
_LEAST: Final = 8
"""How many characters of base64 a value must decide, so that they are no coincidence."""

_View = tuple[str, list[int] | None]
"""A reading of the text, and for each of its characters, and its end, where that begins; None if it is the text."""
_Span = tuple[int, int, str]
"""Beginning, end and name of a secret."""


def mask(text: str, values: Mapping[str, str]) -> str:
    """The text with `[secret NAME]` in place of each value (by the name of its secret).

    Values are found as they are, percent-encoded (also as forms do it), escaped as in JSON, and in base64 of either
    alphabet, also inside of more that was encoded with it. Of a value under 7 bytes only the base64 of it alone is
    found. Takes time in proportion to the length of the text, for each value.
    """
    spans: list[_Span] = []
    views = list(_views(text))
    for name, value in values.items():
        if value:
            needles = _needles(value)
            spans += [(*place, name) for view in views for place in _places(view, needles)]
    return _replaced(text, spans)


def _replaced(text: str, spans: list[_Span]) -> str:
    parts: list[str] = []
    last = 0
    for begin, end, name in _merged(spans):
        parts += (text[last:begin], f"[secret {name}]")
        last = end
    return "".join([*parts, text[last:]])


def _merged(spans: list[_Span]) -> list[_Span]:
    """The spans in order, those that overlap as one, which has the name of the first, and of that the longest."""
    found: list[_Span] = []
    for begin, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        if found and begin < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), found[-1][2])
        else:
            found.append((begin, end, name))
    return found


# ---- what is looked for ----------------------------------------------------------------------------------------------


def _needles(value: str) -> list[tuple[str, bool]]:
    """The value, and the characters that it alone decides in base64 of any text with it; with whether it is those."""
    raw = value.encode("utf-8", "surrogatepass")
    found = {(value, False), (base64.b64encode(raw).decode(), True), (base64.urlsafe_b64encode(raw).decode(), True)}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        decided = whole[-(-8 * before // 6) : 8 * (before + len(raw)) // 6].decode()
        if len(decided) >= _LEAST:
            found |= {(decided, True), (decided.replace("+", "-").replace("/", "_"), True)}
    return sorted(found)


def _places(view: _View, needles: list[tuple[str, bool]]) -> Iterator[tuple[int, int]]:
    """Where the needles stand, in places of the text itself."""
    read, starts = view
    for needle, encoded in needles:
        at = read.find(needle)
        while at >= 0:
            begin, end = at, at + len(needle)
            if encoded:  # the characters beside them tell some bits of the value, too
                begin -= bool(begin and _SIXTY_FOUR.fullmatch(read[begin - 1]))
                end = _end_of(read, end)
            yield (begin, end) if starts is None else (starts[begin], starts[end])
            at = read.find(needle, at + 1)


def _end_of(read: str, end: int) -> int:
    found = _END.match(read, end)
    return end if found is None else found.end()


# ---- how the text is read --------------------------------------------------------------------------------------------


def _views(text: str) -> Iterator[_View]:
    yield text, None
    if "%" in text:
        yield _read(text, _PERCENT, _unquoted)
    if "+" in text:
        yield _read(text, _PLUS, _unquoted)
    if "\\" in text:
        yield _read(text, _ESCAPE, _unescaped)


def _read(text: str, pattern: re.Pattern[str], decoded: Callable[[str], Iterator[tuple[str, int]]]) -> _View:
    """The text with what fits the pattern decoded; `decoded` gives each character with the length of its spelling."""
    parts: list[str] = []
    starts: list[int] = []
    last = 0
    for found in pattern.finditer(text):
        parts.append(text[last : found.start()])
        starts += range(last, found.start())
        at = found.start()
        for char, length in decoded(found[0]):
            parts.append(char)
            starts.append(at)
            at += length
        last = found.end()
    parts.append(text[last:])
    return "".join(parts), [*starts, *range(last, len(text) + 1)]


def _unquoted(run: str) -> Iterator[tuple[str, int]]:
    if run == "+":
        yield " ", 1
        return
    # Bytes that are no UTF-8 become one character each, which no value has.
    for char in unquote_to_bytes(run).decode("utf-8", "surrogateescape"):
        yield char, 3 * len(char.encode("utf-8", "surrogateescape"))


def _unescaped(run: str) -> Iterator[tuple[str, int]]:
    yield json.loads(f'"{run}"'), len(run)
