"""References: what stands in a path or a body for a value that is known only when the operation is run.

`{"$ref": "project.id"}` names a value and the way into it, through members and positions in lists. It may stand in
place of a value, which keeps its type, or within a text, where it becomes text; a path has the short form
`{project.id}`, too. Beside `$ref` there may be `default`, for when the way leads nowhere, and `format`.

Why a value that was put in is never looked through again: it may come from anybody who can name a task. What it holds
is data, whatever it looks like, so it cannot become a reference, another segment of a path or another parameter.
"""

import json as texts
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC
from itertools import islice
from math import isfinite
from typing import Any, Final
from urllib.parse import quote

import msgspec

from taskade_server.kit import json, time, zones
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import MAX_ISSUES, Invalid, Issue, did_you_mean, with_allowed
from taskade_server.kit.numbers import whole
from taskade_server.kit.strict_json import Faulty, Place, check_tree, pointer_to
from taskade_server.kit.zones import Zone

FILLED_A_STEP: Final = 10
"""How many characters a reference puts in for one step: each value of them is looked at once more."""
MAX_FILLED_BYTES: Final = 16 << 20
"""What references put into paths and bodies. Each is a few bytes long and may stand for a whole list."""
MAX_GUESSED: Final = 100
FORMATS: Final = ("date", "number", "json", "upper", "lower", "truncate:N")
MEMBERS: Final = ("$ref", "default", "format")
_MARK: Final = '"$ref"'
_TRUNCATE: Final = "truncate:"
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_STRING: Final = r'"(?:[^"\\]|\\.)*+"'
# Most references have nothing but a name, and are read without a parser. What has more begins with members that are
# plain values, then `$ref`. Possessive, so that no text is looked through twice from the same place.
_PLAIN: Final = r'\{\s*+"\$ref"\s*+:\s*+"(?P<plain>[^"\\]*+)"\s*+\}'
_BEGIN: Final = rf'\{{\s*+(?:(?!"\$ref"){_STRING}\s*+:\s*+(?:{_STRING}|[-+.\w]++)\s*+,\s*+)*+"\$ref"\s*+:'
_SHORT: Final = r"\{(?P<short>[A-Za-z0-9_-]++\.[A-Za-z0-9_.-]++)\}"
_IN_TEXT: Final = re.compile(f"{_PLAIN}|{_BEGIN}", re.DOTALL)
_IN_PATH: Final = re.compile(f"{_PLAIN}|{_SHORT}|{_BEGIN}", re.DOTALL)
_SEGMENT: Final = re.compile(r"[\w.@+-]+")


class Reference(msgspec.Struct, frozen=True, eq=False):
    """One reference: a path such as `project.labels.0`, what to make of the value, and what stands in for none."""

    path: str
    format: str = ""
    default: Any = msgspec.UNSET

    @property
    def name(self) -> str:
        """What it refers to: the id of an operation, or another name."""
        return self.path.partition(".")[0]


class FaultyReference(ValueError):
    """What looks like a reference is none; the message says why, `member` where (empty: as a whole)."""

    def __init__(self, code: str, message: str, member: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.member = member


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(node: Mapping[str, Any]) -> Reference:
    """The reference that an object with the member `$ref` is. FaultyReference for other members and wrong values."""
    path = node["$ref"]
    if len(node) == 1 and type(path) is str:
        return Reference(path)
    for name in node:
        if name not in MEMBERS:
            said = f'An object with "$ref" is a reference, which has no field "{name[:80]}".'
            raise FaultyReference("unknown_field", with_allowed(said, name, MEMBERS), name)
    if not isinstance(path, str):
        raise FaultyReference("wrong_type", '"$ref" is a text such as "project.id".', "$ref")
    form = node.get("format", "")
    if "format" in node and not _is_format(form):
        said = '"format" is none that there is: truncate takes a number of characters from 1, as in "truncate:80".'
        raise FaultyReference("invalid_value", with_allowed(said, str(form)[:80], FORMATS), "format")
    default = node.get("default", msgspec.UNSET)
    if _has_mark(default):
        said = '"default" is put in as it is, so it holds no reference; give a value.'
        raise FaultyReference("not_allowed", said, "default")
    return Reference(path, form, default)


def parts(text: str, *, path: bool = False) -> list[str | Reference]:
    """A text as its references and what stands between them; a `path` may have them in the short form.

    FaultyReference for the first that cannot be read: what begins like one has to be one.
    """
    pattern = _IN_PATH if path else _IN_TEXT
    found: list[str | Reference] = []
    end = 0
    while (match := pattern.search(text, end)) is not None:
        start = match.start()
        if start > end:
            found.append(text[end:start])
        kind = match.lastgroup
        if kind is None:
            reference, end = _parse(text, start)
        else:
            reference, end = Reference(match[kind]), match.end()
        found.append(reference)
    if end < len(text):
        found.append(text[end:])
    return found


def is_reference(node: Any) -> bool:
    """Whether another value will stand in the place of this."""
    if isinstance(node, dict):
        return "$ref" in node
    match = _IN_TEXT.match(node) if isinstance(node, str) else None
    if match is None:
        return False
    try:
        return (_parse(node, 0)[1] if match.lastgroup is None else match.end()) == len(node)
    except FaultyReference:
        return False


class Template(msgspec.Struct, frozen=True, eq=False):
    """A path that may have references: the parts of the path itself, and those of its parameters."""

    segments: list[str | Reference]
    parameters: list[str | Reference]

    @property
    def shape(self) -> str:
        """The path without parameters, and with a word in place of each reference: enough to find its route."""
        return "".join([part if isinstance(part, str) else "-" for part in self.segments])


def template(path: str) -> Template:
    """A path taken apart. FaultyReference for a reference in it that cannot be read."""
    if "{" not in path:
        before, _, after = path.partition("?")
        return Template([before], [after])
    found = parts(path, path=True)
    for index, part in enumerate(found):
        if isinstance(part, str) and "?" in part:
            before, _, after = part.partition("?")
            return Template([*found[:index], before], [after, *found[index + 1 :]])
    return Template(found, [])


def _is_format(form: Any) -> bool:
    if not isinstance(form, str):
        return False
    if form.startswith(_TRUNCATE):
        return bool(whole(form[len(_TRUNCATE) :]))
    return form in FORMATS


def _has_mark(node: Any) -> bool:
    """Whether a value holds what looks like a reference."""
    if isinstance(node, dict):
        return "$ref" in node or any(map(_has_mark, node.values()))
    if isinstance(node, list):
        return any(map(_has_mark, node))
    return isinstance(node, str) and _IN_TEXT.search(node) is not None


def _parse(text: str, start: int) -> tuple[Reference, int]:
    """The reference that begins at a place of a text, and where it ends."""
    try:
        node, end = _decoder.raw_decode(text, start)
        check_tree(node)
    except (ValueError, RecursionError) as error:
        said = (
            f'{text[start : start + 80]} begins like a reference and is none: it is a JSON object such as {{"$ref": '
            '"project.id", "default": "none", "format": "upper"}.'
        )
        raise FaultyReference("invalid_format", said) from error
    return read(node), end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


_decoder: Final = texts.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


# ---- checking --------------------------------------------------------------------------------------------------------


class Found(msgspec.Struct, eq=False):
    """All references of an operation, and what is wrong with those that cannot be read.

    The pointers of `issues` are below the operation: `/path`, `/body/name`.
    """

    references: list[Reference]
    issues: list[Issue]

    def unknown(self, known: Collection[str], advice: str) -> list[Issue]:
        """An issue without a place for each reference to a name that is not known; `advice` says what is.

        They are at most as many as one answer lists, and name the nearest of those that are known.
        """
        bad = (reference for reference in self.references if reference.name not in known)
        return [
            Issue(
                "unknown_reference",
                f'"{reference.path[:80]}" {advice}'
                f"{did_you_mean(reference.name, known) if len(known) <= MAX_GUESSED else ''}",
                pointer="",
            )
            for reference in islice(bad, MAX_ISSUES)
        ]


def find(path: str, body: Any) -> Found:
    """Everything that the path and the body of an operation refer to."""
    found: list[Reference] = []
    issues: list[Issue] = []
    if "{" in path:
        try:
            found += [part for part in parts(path, path=True) if isinstance(part, Reference)]
        except FaultyReference as fault:
            issues.append(_issue(fault, "/path"))
    # In an object of its own, so that a body that is a text is looked at like every other text.
    pending: list[tuple[Any, Place]] = [({"body": body}, None)]
    while pending and len(issues) < MAX_ISSUES:
        node, place = pending.pop()
        if type(node) is dict and "$ref" in node:
            try:
                found.append(read(node))
            except FaultyReference as fault:
                issues.append(_issue(fault, pointer_to(place)))
            continue
        for key, value in node.items() if type(node) is dict else enumerate(node):
            kind = type(value)
            if kind is str:
                if _MARK not in value:
                    continue
                try:
                    found += [part for part in parts(value) if isinstance(part, Reference)]
                except FaultyReference as fault:
                    issues.append(_issue(fault, pointer_to((place, key))))
            elif kind is dict or kind is list:
                pending.append((value, (place, key)))
    return Found(found, issues)


def _issue(fault: FaultyReference, pointer: str) -> Issue:
    member = pointer_to((None, fault.member)) if fault.member else ""
    return Issue(fault.code, str(fault), pointer=f"{pointer}{member}")


# ---- putting values in -----------------------------------------------------------------------------------------------


class _Named:
    """A value with a name: JSON text that is parsed when something refers to it, or the value itself."""

    __slots__ = ("_text", "_value", "size")

    def __init__(self, value: Any, text: str | None) -> None:
        self._value = value
        self._text = text
        self.size = len(json.encode_bytes(value)) if text is None else len(text)
        """How many characters it has as JSON."""

    @property
    def value(self) -> Any:
        if self._text is not None:
            self._value, self._text = json.decode(self._text or "null"), None
        return self._value


class Values:
    """Values by name, for references to stand for; it counts what they put in, and charges a budget with it.

    `given` are JSON values that are known from the beginning; `zone` says which day a time is in, for `date`.
    Whatever puts a value in raises Invalid: if the way leads nowhere, for a value that the format or the place cannot
    take, and for more than 16 MiB.
    """

    __slots__ = ("_budget", "_filled", "_named", "_zone")

    def __init__(self, budget: Budget, given: Mapping[str, Any], zone: Zone = UTC) -> None:
        self._budget = budget
        self._named = {name: _Named(value, None) for name, value in given.items()}
        self._zone = zone
        self._filled = 0

    def add(self, names: Iterable[str], text: str) -> None:
        """Let names stand for a JSON text; an empty one is null."""
        named = _Named(None, text)
        for name in names:
            self._named[name] = named

    def get(self, reference: Reference) -> Any:
        """The value of a reference."""
        first, *steps = reference.path.split(".")
        named = self._named.get(first)
        if named is None:
            return self._instead(reference, first)
        value = named.value
        for step in steps:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and (place := whole(step)) is not None and place < len(value):
                value = value[place]
            else:
                return self._instead(reference, step)
        self._charge(len(value) if isinstance(value, str) else named.size)
        if not reference.format:
            return value
        made = formatted(value, reference.format, self._zone)
        if isinstance(made, str) and (not isinstance(value, str) or len(made) > len(value)):
            self._charge(len(made))
        return made

    def body(self, body: Any) -> Any:
        """A body with values in place of its references; one that could have been sent, or Invalid."""
        filled = self._fill(body)
        try:
            check_tree(filled)
        except (Faulty, RecursionError) as error:
            raise Invalid(str(error), errors=[Issue("malformed_json", str(error), pointer="")]) from error
        return filled

    def path(self, path: Template) -> tuple[str, str]:
        """A path and its parameters with values in place of its references; in the path each stays one segment."""
        return self._join(path.segments, segment), self._join(path.parameters, _quoted)

    def _instead(self, reference: Reference, step: str) -> Any:
        """The default of a reference whose way ends at a step."""
        default = reference.default
        if default is msgspec.UNSET:
            raise _invalid(
                "unknown_reference",
                f'There is no "{step[:80]}" where "{reference.path[:80]}" refers to it. Correct the reference, or give'
                ' it a "default".',
            )
        self._charge(len(default) if isinstance(default, str) else 0)
        return default

    def _charge(self, size: int) -> None:
        self._filled += size
        self._budget.spend(1 + size // FILLED_A_STEP)
        if self._filled > MAX_FILLED_BYTES:
            raise Invalid(f"The references put in more than {MAX_FILLED_BYTES >> 20} MiB.")

    def _fill(self, node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return self.get(read(node))
            return {name: self._fill(value) for name, value in node.items()}
        if isinstance(node, list):
            return [self._fill(value) for value in node]
        if isinstance(node, str) and _MARK in node:
            found = parts(node)
            if len(found) == 1 and isinstance(found[0], Reference):
                return self.get(found[0])
            return self._join(found, as_text)
        return node

    def _join(self, found: list[str | Reference], form: Callable[[Any], str]) -> str:
        return "".join([part if isinstance(part, str) else form(self.get(part)) for part in found])


def segment(value: Any) -> str:
    """A value as a part of a path; Invalid for one that is no plain word, such as one with a slash."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not _SEGMENT.fullmatch(str(value)):
        raise Invalid("Only an id or another plain word can be put into a path.")
    return str(value)


def as_text(value: Any) -> str:
    """A value within a text: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.encode(value)


def formatted(value: Any, form: str, zone: Zone = UTC) -> Any:
    """A value in one of the formats. Null stays null except as `json`. Invalid for a value that it is not for."""
    if form == "json":
        return json.encode(value)
    if value is None:
        return None
    if form == "date":
        return _as_date(value, zone)
    if form == "number":
        return _as_number(value)
    if isinstance(value, bool | dict | list):
        raise _invalid("invalid_value", f'The format "{form}" is for texts and numbers.')
    text = as_text(value)
    if form == "upper":
        return text.upper()
    if form == "lower":
        return text.lower()
    return text[: int(form[len(_TRUNCATE) :])]


def _quoted(value: Any) -> str:
    return quote(as_text(value), safe="")


def _as_date(value: Any, zone: Zone) -> str:
    """The day of a date or a time, in the zone."""
    try:
        if not isinstance(value, str):
            raise ValueError("must be a date or a time, which are texts")
        ms = time.parse_ms(value)
    except ValueError as error:
        said = f'The format "date" cannot be used here: {error}.'
        raise _invalid("invalid_value", said) from error
    return value if time.is_date(value) else zones.day_of(ms, zone).isoformat()


def _as_number(value: Any) -> float:
    """A number, or the one that a text says in the spelling of JSON."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    number = None if found is None else float(found[0]) if found[1] or found[2] else int(found[0])
    if number is None or not isfinite(number):
        raise _invalid("invalid_value", 'The format "number" is for numbers, and for texts such as "12" or "-0.5".')
    return number


def _invalid(code: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[Issue(code, detail, pointer="")])
