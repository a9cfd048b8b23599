"""Reading the comparisons of a filter: the values that it gives, as columns hold them."""

import math
import re
import sys
from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

from taskade_server.engine.filters.dates import date_comparison
from taskade_server.engine.filters.language import MAX_LEAVES, MAX_VALUES
from taskade_server.engine.filters.nodes import EVERYTHING, Leaf, Node, Not, Or
from taskade_server.engine.model import REGISTRY, Field, Resource, canonical
from taskade_server.kit import ids, json, text, time, zones
from taskade_server.kit.budget import UNLIMITED, Budget
from taskade_server.kit.errors import Issue, did_you_mean
from taskade_server.kit.strict_json import escape_pointer

CONDITION_STEPS: Final = 5
"""What a condition takes of the budget of its request, in steps."""
NUMBER: Final = r"[+-]?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?"
_NUMBER: Final = re.compile(NUMBER, re.ASCII)
_RANGE: Final = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_COMMA_KINDS: Final = ("id", "ref", "refs", "user", "enum", "key", "strings")
"""Kinds whose values never hold a comma, so that `a,b` in a parameter means either."""

Resolver = Callable[[str, str], str | None]
"""Turns (target resource, reference text) into the id it means, or None if there is no such visible object."""


class ComparisonParser:
    """Reads the comparisons of one filter document for a resource, and collects their faults in `issues`.

    `resolve` finds the ids of what is named otherwise, `now` (epoch ms) and `zone` say what `today` means. `typed` is
    False for parameters, whose values are all text; `prefix` is where the document stands: the JSON Pointer of a member
    of a body, or the name of a parameter.
    """

    def __init__(
        self,
        resource: Resource,
        resolve: Resolver,
        now: int,
        *,
        typed: bool,
        prefix: str = "",
        budget: Budget | None = None,
        zone: zones.Zone = UTC,
    ) -> None:
        self.zone = zone
        self.budget = budget or Budget(UNLIMITED)
        self.resource = resource
        self.resolve = resolve
        self.now = now
        self.typed = typed
        self.prefix = prefix
        self.issues: list[Issue] = []
        self.leaves = 0
        self.relative = False
        self.references: dict[tuple[str, ...], dict[str, str]] = {}
        """The ids of what was named otherwise (handle, e-mail, `me`), by the place in the document and the name."""
        self.keys: list[tuple[tuple[str, ...], Field, str]] = []
        """The values that are keys of a list in another object (see `Field.keys_of`), with their places."""
        self.nobody = False
        """Whether a person was named whom the resolver does not know."""

    @property
    def only_people_unknown(self) -> bool:
        """Whether nothing is wrong with the filter but that it names a person whom the resolver does not know."""
        return self.nobody and all(issue.code == "unknown_reference" for issue in self.issues)

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
        self.budget.spend(number * CONDITION_STEPS)
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
        self.budget.spend(len(operands))
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
                if member.kind == "strings" and isinstance(value, str) and text.tidy(value) != value:
                    values.append(text.tidy(value))  # as it is stored by now; it was not always put in order
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
            value, number = canonical(operand)
            if number is not None or (not isinstance(operand, bool) and _NUMBER.fullmatch(value)):
                number = self._finite(member, value, tokens)
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
            return Leaf(member, "in", (operand, text.tidy(operand)), side)
        if member.kind not in ("text", "key", "custom", "strings"):
            self._fault(tokens, "not_allowed", f"{member.name} is no text; {name} does not apply.")
            return EVERYTHING
        if not member.folded:
            return Leaf(member, name[1:], (operand,), side)
        folded = text.fold(operand)
        self.budget.spend(0 if operand.isascii() else len(folded) // text.FOLDED_A_STEP)
        return Leaf(member, name[1:], (folded,), side)

    def _moment(self, member: Field, op: str, operand: Any, tokens: tuple[str, ...]) -> Node:
        if not isinstance(operand, str):
            self._fault(
                tokens, "wrong_type", f"{member.name} takes a date, a time or a relative value such as today or -7d."
            )
            return EVERYTHING
        if not self.typed and " " in operand[10:]:
            # So does the sign of an offset: 2024-01-31T10:00:00 01:00.
            operand = operand.replace(" ", "+") if operand[10:11] in "Tt" else operand
        if operand.startswith(" "):  # an unencoded "+" in a URL arrives as a space
            operand = "+" + operand[1:]
        try:
            self.relative = self.relative or time.relative(operand, self.now) is not None
            meant = time.meant(operand, self.now, self.zone)
        except ValueError as error:
            self._fault(
                tokens,
                "invalid_date",
                f"{member.name}: {error}; relative values such as today, -7d, +2w work too.",
            )
            return EVERYTHING
        return date_comparison(member, op, meant, self.zone)

    def _value(self, member: Field, side: str | None, operand: Any, tokens: tuple[str, ...]) -> Any:
        if isinstance(operand, list | dict):
            return self._fault(tokens, "wrong_type", "Takes a single value here.")
        if member.kind == "custom":
            return canonical(operand)[0]
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
            is_number = isinstance(operand, int | float) and not isinstance(operand, bool)
            if is_number or (isinstance(operand, str) and _NUMBER.fullmatch(operand)):
                return self._finite(member, operand, tokens)
            return self._fault(tokens, "wrong_type", f"{member.name} takes a number.")
        value = operand if isinstance(operand, str) else json.encode(operand)
        if member.keys_of:
            self.keys.append((tokens, member, value))
        return value

    def _finite(self, member: Field, operand: str | float, tokens: tuple[str, ...]) -> float | None:
        """The number, or None after noting that it is larger than any."""
        number = float(operand)
        if math.isfinite(number):
            return number
        self._fault(tokens, "out_of_range", f"{member.name} is compared with numbers up to {sys.float_info.max:.4g}.")
        return None

    def _reference(self, member: Field, operand: Any, tokens: tuple[str, ...]) -> str | None:
        target = member.target or self.resource.name
        # An id is compared as it is, whatever has become of its object: documents keep the ids of people who have left.
        if isinstance(operand, str) and ids.is_id(operand, REGISTRY[target].prefix):
            return operand
        found = self.resolve(target, operand) if isinstance(operand, str) else None
        if found is None:
            is_id = any(ids.is_id(str(operand), kind.prefix) for kind in REGISTRY.values())
            self.nobody = self.nobody or (target == "user" and not is_id)
            forms = "id, handle or e-mail" if member.kind == "user" else "id"
            self._fault(
                tokens,
                "unknown_reference",
                f'There is no {target} "{str(operand)[:80]}" that you can see; give its {forms}.',
            )
        else:
            self.references.setdefault(tokens, {})[operand] = found
        return found

    def _is_null(self, member: Field, item: Any) -> bool:
        if self.typed:
            return item is None
        return item == "null" or (item == "" and member.kind not in ("text", "key", "custom", "strings"))

    def judge_keys(self, refusal: Callable[[Field, str], str | None]) -> None:
        """Note each key of another object's list that cannot be meant; `refusal` says why, or None if it can."""
        for tokens, member, value in self.keys:
            detail = refusal(member, value)
            if detail is not None:
                self._fault(tokens, f"unknown_{member.name}", detail)

    def _fault(self, tokens: tuple[str, ...], code: str, detail: str) -> None:
        if self.typed:
            pointer = "".join(f"/{escape_pointer(token)}" for token in tokens)
            if self.prefix.startswith("/"):
                self.issues.append(Issue(code, detail, pointer=self.prefix + pointer))
            else:
                self.issues.append(Issue(code, f"{detail} (at {pointer or 'the top'})", parameter=self.prefix))
        else:
            name = tokens[0] + "".join(f"[{token}]" for token in tokens[1:]) if tokens else ""
            self.issues.append(Issue(code, detail, parameter=name))


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(value.lower()) if isinstance(value, str) else None
