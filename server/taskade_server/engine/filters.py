"""The filter language: parameters or a JSON document in, a small tree out, and `matches` to ask it about one document.

Why a tree of its own: the same filter must mean the same in a list, a webhook, a live stream and an automation, so its
meaning is fixed here, once, and SQL (`query`) and Python (`matches`) are two readers of it, tested against each other.
Leaves are two-valued: a missing value makes a comparison false, and `$ne`, `$nin` and `$not` true.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine.model import CUSTOM_KEY, Field, Resource, side_value
from taskade_server.kit import ids, json, text, time
from taskade_server.kit.errors import MAX_ISSUES, InvalidQuery, Issue, did_you_mean

MAX_LEAVES: Final = 200
MAX_DEPTH: Final = 5
MAX_VALUES: Final = 1000
OPERATORS: Final = (
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$contains",
    "$prefix",
    "$exists",
)
GROUPS: Final = ("$and", "$or", "$not")
_RANGE: Final = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_KEY: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
NUMBER: Final = r"[+-]?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?"
_NUMBER: Final = re.compile(NUMBER, re.ASCII)

Resolver = Callable[[str, str], str | None]
"""Turns (target resource, reference text) into the id it means, or None if there is no such visible object."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison: `op` is eq, in, gt, gte, lt, lte, contains, prefix or exists; `side` a side-table field."""

    member: Field
    op: str
    values: tuple[Any, ...] = ()
    side: str | None = None


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; with no parts, everything matches."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Node"


Node = Leaf | And | Or | Not
EVERYTHING: Final = And(())


# ---- parameters to a document ----------------------------------------------------------------------------------------


def tree_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Bracketed parameters as one document: `a[$in][0]=x&a[$in][1]=y` gives `{"a": {"$in": ["x", "y"]}}`.

    Accepts what axios, qs, URLSearchParams, httpx, requests and url.Values write. InvalidQuery on unbalanced brackets.
    """
    root: dict[str, Any] = {}
    for key, value in pairs:
        if "[" not in key and "]" not in key and key and key not in root and value != "[object Object]":
            root[key] = value
            continue
        found = _KEY.fullmatch(key)
        if found is None:
            raise InvalidQuery(
                errors=[
                    Issue(
                        "malformed_parameter",
                        "Brackets must be balanced: name[$op]=value.",
                        parameter=key[:100],
                    )
                ]
            )
        tokens = [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]
        if value == "[object Object]":
            detail = "A JavaScript object was turned into text. Serialise parameters with qs, or send filter={JSON}."
            raise InvalidQuery(errors=[Issue("malformed_parameter", detail, parameter=key[:100])])
        if len(tokens) > 2 * MAX_DEPTH + 4:
            raise InvalidQuery(
                errors=[Issue("too_deep", f"Filters may nest {MAX_DEPTH} levels deep.", parameter=key[:100])]
            )
        _insert(root, tokens, value)
    return _entries(root)


def _insert(node: dict[str, Any], tokens: list[str], value: str) -> None:
    for index, token in enumerate(tokens):
        if index == len(tokens) - 1 or (index == len(tokens) - 2 and tokens[-1] == ""):
            present = node.get(token)
            if isinstance(present, dict):
                node, token, present = present, "$eq", present.get("$eq")
            as_list = tokens[-1] == "" and index == len(tokens) - 2
            if present is None:
                node[token] = [value] if as_list else value
            else:
                node[token] = [*(present if isinstance(present, list) else [present]), value]
            return
        present = node.get(token)
        if present is None:
            present = node[token] = {}
        elif not isinstance(present, dict):
            present = node[token] = {"$eq": present}
        node = present


def _entries(node: dict[str, Any]) -> dict[str, Any]:
    # A custom field may be called 2024: below custom_fields a key of digits is no place in a list.
    return {
        key: _entries(value) if key == "custom_fields" and isinstance(value, dict) else _lists(value)
        for key, value in node.items()
    }


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    entries = _entries(node)
    if entries and all(key.isascii() and key.isdigit() and len(key) < 6 for key in entries):
        return [entries[key] for key in sorted(entries, key=int)]
    return entries


# ---- a document to a tree --------------------------------------------------------------------------------------------


class Parser:
    """Reads one filter document for a resource, collecting every fault.

    `typed` is False for parameters,
    whose values are all text. `locate` turns the tokens of a place into the fields of an
    Issue (a parameter name or a JSON Pointer).
    """

    def __init__(self, resource: Resource, resolve: Resolver, now: int, *, typed: bool, prefix: str = "") -> None:
        self.resource = resource
        self.resolve = resolve
        self.now = now
        self.typed = typed
        self.prefix = prefix
        self.issues: list[Issue] = []
        self.leaves = 0
        self.relative = False

    def parse(self, document: Any, tokens: tuple[str, ...] = (), depth: int = 1) -> Node:
        """The tree of a document; look at `issues` afterwards."""
        if not isinstance(document, dict):
            self._fault(tokens, "wrong_type", "A filter is an object of fields and conditions.")
            return EVERYTHING
        if depth > MAX_DEPTH:
            self._fault(tokens, "too_deep", f"Filters may nest {MAX_DEPTH} levels deep.")
            return EVERYTHING
        if not document:
            self._count(1, tokens)
        parts = [self._entry(name, value, (*tokens, name), depth) for name, value in document.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _entry(self, name: str, value: Any, tokens: tuple[str, ...], depth: int) -> Node:
        if len(self.issues) > MAX_ISSUES:
            return EVERYTHING  # it is refused anyway
        if name in GROUPS:
            return self._group(name, value, tokens, depth)
        if name == "custom_fields" and name in self.resource.fields and isinstance(value, dict):
            return And(tuple(self._custom(key, inner, (*tokens, key)) for key, inner in value.items()))
        if name.startswith("custom_fields") and name[13:14] in ("", ".") and "custom_fields" in self.resource.fields:
            return self._custom(name[14:], value, tokens)
        member, implied = self._member(name)
        if member is None:
            allowed = sorted(self.resource.filterable)
            hint = did_you_mean(name, [*allowed, *RESERVED, *GROUPS])
            detail = f'There is no filter or parameter "{name[:80]}".{hint} Filters: {", ".join(allowed)}.'
            self._fault(tokens, "unknown_parameter", detail)
            return EVERYTHING
        if implied:
            value = {implied: value}
        return self._field(member, member.name if member.multiple else None, value, tokens)

    def _custom(self, key: str, value: Any, tokens: tuple[str, ...]) -> Node:
        if not re.fullmatch(CUSTOM_KEY, key):
            detail = "Name the custom field: custom_fields.key or custom_fields[key]."
            self._fault(tokens, "malformed_parameter", detail)
            return EVERYTHING
        return self._field(self.resource.fields["custom_fields"], f".{key}", value, tokens)

    def _member(self, name: str) -> tuple[Field | None, str]:
        member = self.resource.fields.get(name)
        if member is not None and member.name in self.resource.filterable:
            return member, ""
        stem, _, word = name.rpartition("_")
        if word in ("before", "after") and stem:
            for candidate in (f"{stem}_date", f"{stem}_at"):
                found = self.resource.fields.get(candidate)
                if found is not None and found.filterable:
                    return found, "$lt" if word == "before" else "$gt"
        return None, ""

    def _group(self, name: str, value: Any, tokens: tuple[str, ...], depth: int) -> Node:
        if name == "$not":
            return Not(self.parse(value, tokens, depth + 1))
        documents = [value] if isinstance(value, dict) and not self.typed else value
        if not isinstance(documents, list) or not documents:
            self._fault(tokens, "wrong_type", f"{name} takes a list of filters.")
            return EVERYTHING
        parts = tuple(self.parse(item, (*tokens, str(index)), depth + 1) for index, item in enumerate(documents))
        return Or(parts) if name == "$or" else And(parts)

    def _field(self, member: Field, side: str | None, value: Any, tokens: tuple[str, ...]) -> Node:
        if isinstance(value, dict):
            parts = []
            if not value:
                # `{$gte: undefined}` arrives like this; to take it for "all" would be dear in a bulk deletion.
                self._fault(tokens, "wrong_type", f"Give {member.name} a value, or an operator such as $gte with one.")
            for name, operand in value.items():
                if len(self.issues) > MAX_ISSUES:
                    break
                if name not in OPERATORS:
                    hint = did_you_mean(name, OPERATORS)
                    detail = f'There is no operator "{name[:40]}".{hint} Operators: {" ".join(OPERATORS)}.'
                    self._fault((*tokens, name), "unknown_operator", detail)
                    continue
                parts.append(self._condition(member, side, name, operand, (*tokens, name)))
            return And(tuple(parts))
        return self._condition(member, side, "$in" if isinstance(value, list) else "$eq", value, tokens)

    def _condition(self, member: Field, side: str | None, name: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        self._count(1, tokens)
        if name == "$exists":
            wanted = _boolean(operand)
            if wanted is None:
                self._fault(tokens, "wrong_type", "$exists takes true or false.")
            leaf = Leaf(member, "exists", side=side)
            return leaf if wanted else Not(leaf)
        if name in ("$eq", "$in", "$ne", "$nin"):
            positive = self._any_of(member, side, name, operand, tokens)
            return Not(positive) if name in ("$ne", "$nin") else positive
        if isinstance(operand, list | dict):
            self._fault(tokens, "wrong_type", f"{name} takes one value.")
            return EVERYTHING
        if name in ("$contains", "$prefix"):
            return self._text(member, side, name, operand, tokens)
        return self._range(member, side, name, operand, tokens)

    def _count(self, number: int, tokens: tuple[str, ...]) -> None:
        """Count conditions, empty ones too: each becomes a step of the database's expression."""
        before = self.leaves
        self.leaves += number
        if before <= MAX_LEAVES < self.leaves:
            self._fault(tokens, "too_many", f"A filter may have {MAX_LEAVES} conditions.")

    def _any_of(self, member: Field, side: str | None, name: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        operands = operand if isinstance(operand, list) else [operand]
        if not self.typed and (member.kind in _COMMA_KINDS or (member.kind == "custom" and name in ("$in", "$nin"))):
            operands = [piece for item in operands for piece in (item.split(",") if isinstance(item, str) else [item])]
        if len(operands) > MAX_VALUES:
            self._fault(tokens, "too_many", f"A list of values may have {MAX_VALUES:,} entries.")
            return EVERYTHING
        values: list[Any] = []
        others: list[Node] = []
        if member.kind in ("day", "time"):
            self._count(len(operands) - 1, tokens)  # a date is a condition of its own: from its start to its end
        for item in operands:
            if self._is_null(member, item):
                if not any(isinstance(other, Not) for other in others):
                    others.append(Not(Leaf(member, "exists", side=side)))
            elif member.kind in ("day", "time"):
                others.append(self._moment(member, "eq", item, tokens))
            else:
                value = self._value(member, side, item, tokens)
                if value is not None:
                    values.append(value)
        if values or not others:
            others.insert(0, Leaf(member, "eq" if len(values) == 1 else "in", tuple(values), side))
        return others[0] if len(others) == 1 else Or(tuple(others))

    def _range(self, member: Field, side: str | None, name: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        op = _RANGE[name]
        if operand is None:
            self._fault(tokens, "wrong_type", f"{name} takes a value, not null.")
            return EVERYTHING
        if member.kind in ("day", "time"):
            return self._moment(member, op, operand, tokens)
        if member.kind == "custom":
            value, number = side_value(operand)
            if number is None and not isinstance(operand, bool) and _NUMBER.fullmatch(value):
                number = float(value)
            return Leaf(member, op, (value if number is None else number,), side)
        if member.kind not in ("enum", "number", "integer", "text", "key"):
            self._fault(
                tokens,
                "not_allowed",
                f"{member.name} cannot be compared with {name}; use $eq, $ne, $in, $nin or $exists.",
            )
            return EVERYTHING
        value = self._value(member, side, operand, tokens)
        return EVERYTHING if value is None else Leaf(member, op, (value,), side)

    def _text(self, member: Field, side: str | None, name: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        if not isinstance(operand, str) or not operand:
            self._fault(tokens, "wrong_type", f"{name} takes a text that is not empty.")
            return EVERYTHING
        if member.kind == "strings" and name == "$contains":
            return Leaf(member, "eq", (operand,), side)
        if member.kind not in ("text", "key", "custom", "strings"):
            self._fault(tokens, "not_allowed", f"{member.name} is no text; {name} does not apply.")
            return EVERYTHING
        return Leaf(member, name[1:], (text.fold(operand) if member.folded else operand,), side)

    def _moment(self, member: Field, op: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        if not isinstance(operand, str):
            self._fault(tokens, "wrong_type", "Must be a date, a time or a relative value such as today or -7d.")
            return EVERYTHING
        if not self.typed and " " in operand[10:]:
            # So does the sign of an offset: 2024-01-31T10:00:00 01:00.
            operand = operand.replace(" ", "+") if operand[10:11] in "Tt" else operand
        try:
            relative = time.relative_ms(operand, self.now)
            # An unencoded "+" in a URL arrives as a space.
            if relative is None and operand.startswith(" "):
                relative = time.relative_ms("+" + operand[1:], self.now)
            self.relative = self.relative or relative is not None
            start, whole_day = relative or (time.parse_ms(operand), time.is_date(operand))
        except ValueError as error:
            self._fault(
                tokens,
                "invalid_date",
                f"{member.name}: {error}; relative values such as today, -7d, +2w work too.",
            )
            return EVERYTHING
        if op == "eq":
            if not whole_day:
                return Leaf(member, "eq", (start,))
            return And((Leaf(member, "gte", (start,)), Leaf(member, "lt", (start + time.DAY_MS,))))
        if op == "lte" and whole_day:
            return Leaf(member, "lt", (start + time.DAY_MS,))
        return Leaf(member, op, (start,))

    def _value(self, member: Field, side: str | None, operand: Any, tokens: tuple[str, ...]) -> Any:
        if isinstance(operand, list | dict):
            return self._fault(tokens, "wrong_type", "Takes a single value here.")
        if member.kind == "custom":
            return side_value(operand)[0]
        if member.kind in ("id", "ref", "refs", "user"):
            return self._reference(member, operand, tokens)
        if member.kind == "enum":
            if operand in member.values:
                return member.values.index(operand)
            hint = did_you_mean(str(operand), member.values)
            return self._fault(tokens, "not_allowed", f"{member.name} is one of {', '.join(member.values)}.{hint}")
        if member.kind == "bool":
            flag = _boolean(operand)
            return (
                self._fault(tokens, "wrong_type", f"{member.name} takes true or false.") if flag is None else int(flag)
            )
        if member.kind in ("number", "integer"):
            if isinstance(operand, str) and _NUMBER.fullmatch(operand):
                return float(operand)
            if isinstance(operand, int | float) and not isinstance(operand, bool):
                return float(operand)
            return self._fault(tokens, "wrong_type", f"{member.name} takes a number.")
        return operand if isinstance(operand, str) else json.encode(operand)

    def _reference(self, member: Field, operand: Any, tokens: tuple[str, ...]) -> str | None:
        target = member.target or self.resource.name
        if isinstance(operand, str) and member.kind == "id" and ids.is_id(operand, self.resource.prefix):
            return operand
        found = self.resolve(target, operand) if isinstance(operand, str) else None
        if found is None:
            forms = "id, handle or e-mail" if member.kind == "user" else "id"
            self._fault(
                tokens,
                "unknown_reference",
                f'There is no {target} "{str(operand)[:80]}" that you can see; give its {forms}.',
            )
        return found

    def _is_null(self, member: Field, item: Any) -> bool:
        if self.typed:
            return item is None
        return item == "null" or (item == "" and member.kind not in ("text", "key", "custom", "strings"))

    def _fault(self, tokens: tuple[str, ...], code: str, detail: str) -> None:
        if self.typed:
            pointer = "".join(f"/{json.escape_pointer(token)}" for token in tokens)
            if self.prefix.startswith("/"):
                self.issues.append(Issue(code, detail, pointer=self.prefix + pointer))
            else:
                self.issues.append(Issue(code, f"{detail} (at {pointer or 'the top'})", parameter=self.prefix))
        else:
            name = tokens[0] + "".join(f"[{token}]" for token in tokens[1:]) if tokens else ""
            self.issues.append(Issue(code, detail, parameter=name))


RESERVED: Final = ("filter", "sort", "limit", "cursor", "include", "fields", "q", "count", "deleted")


_COMMA_KINDS: Final = ("id", "ref", "refs", "user", "enum", "key", "strings")
"""Kinds whose values never hold a comma, so that `a,b` in a parameter means either."""


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(value.lower()) if isinstance(value, str) else None


# ---- asking one document ---------------------------------------------------------------------------------------------


def matches(node: Node, resource: Resource, doc: Mapping[str, Any]) -> bool:
    """Whether a document satisfies a filter; the same answer as the SQL of `query`."""
    if isinstance(node, And):
        return all(matches(part, resource, doc) for part in node.parts)
    if isinstance(node, Or):
        return any(matches(part, resource, doc) for part in node.parts)
    if isinstance(node, Not):
        return not matches(node.part, resource, doc)
    if node.side is not None:
        rows = [row for row in node.member.side_rows(doc[node.member.name]) if row[0] == node.side]
        return any(_holds_side(node, value, number) for _, value, number in rows)
    value = node.member.to_column(doc[node.member.name])
    if node.op in ("contains", "prefix") and node.member.folded and value is not None:
        value = text.fold(value)
    return value is not None and _holds(node.op, value, node.values)


def matches_words(words: list[str], resource: Resource, doc: Mapping[str, Any]) -> bool:
    """Whether every word starts some word of the document's searchable members, as `q=` asks."""
    present = resource.search_text(doc).split()
    return all(any(token.startswith(word) for token in present) for word in words)


def _holds_side(node: Leaf, value: str, number: float | None) -> bool:
    if node.op in ("gt", "gte", "lt", "lte") and isinstance(node.values[0], float):
        return number is not None and _holds(node.op, number, node.values)
    if node.op in ("gt", "gte", "lt", "lte") and number is not None:
        return False
    return _holds(node.op, value, node.values)


def _holds(op: str, value: Any, operands: tuple[Any, ...]) -> bool:
    if op == "exists":
        return True
    if op in ("eq", "in"):
        return value in operands
    operand = operands[0]
    if op == "contains":
        return operand in value
    if op == "prefix":
        return bool(value.startswith(operand))
    return bool({"gt": value > operand, "gte": value >= operand, "lt": value < operand, "lte": value <= operand}[op])
