"""Asking one document whether it satisfies a filter."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

from taskade_server.engine.filters.nodes import And, Leaf, Node, Not, Or
from taskade_server.engine.model import Field, Resource
from taskade_server.kit import text
from taskade_server.kit.budget import Budget

# Steps: so many values of a list are compared in one, and so many characters of a text are searched.
_VALUES_A_STEP: Final = 16

_CHARACTERS_A_STEP: Final = 64


class Facts:
    """The values of one document in the form that filters compare, each worked out once for any number of filters."""

    __slots__ = ("_columns", "_folded", "_sides", "document", "resource")

    def __init__(self, resource: Resource, doc: Mapping[str, Any]) -> None:
        self.resource = resource
        self.document = doc
        self._columns: dict[str, Any] = {}
        self._folded: dict[str, str | None] = {}
        self._sides: dict[str, dict[str, list[tuple[str, float | None]]]] = {}

    def column(self, member: Field) -> Any:
        """The value of a member as its typed column holds it."""
        if member.name not in self._columns:
            self._columns[member.name] = member.to_column(self.document[member.name])
        return self._columns[member.name]

    def folded(self, member: Field) -> str | None:
        """The value of a text member as it is compared without regard to case."""
        if member.name not in self._folded:
            value = self.column(member)
            self._folded[member.name] = None if value is None else text.fold(value)
        return self._folded[member.name]

    def side(self, member: Field, name: str) -> list[tuple[str, float | None]]:
        """The (text, number) of each value that a field of a multi-valued member has; the texts are whole."""
        rows = self._sides.get(member.name)
        if rows is None:
            rows = self._sides[member.name] = {}
            for key, value, number in member.side_texts(self.document[member.name]):
                rows.setdefault(key, []).append((value, number))
        return rows.get(name, [])


def holds(node: Node, facts: Facts, budget: Budget | None = None) -> bool:
    """Whether a document satisfies a filter; the same answer as the SQL of `query`.

    A step of the budget is spent for each comparison, and more for long lists of values and for long texts that are
    searched. BudgetSpent if there are not enough.
    """
    if isinstance(node, And):
        return all(holds(part, facts, budget) for part in node.parts)
    if isinstance(node, Or):
        return any(holds(part, facts, budget) for part in node.parts)
    if isinstance(node, Not):
        return not holds(node.part, facts, budget)
    if node.side is not None:
        rows = facts.side(node.member, node.side)
        if budget is not None:
            budget.spend(1 + _steps(node, [value for value, _ in rows]) // 2)
        return any(_compare_side(node, value, number) for value, number in rows)
    searched = node.op in ("contains", "prefix") and node.member.folded
    value = facts.folded(node.member) if searched else facts.column(node.member)
    if budget is not None:
        budget.spend(1 + _steps(node, [value]))
    return value is not None and _compare(node.op, value, node.values)


def _steps(node: Leaf, values: list[Any]) -> int:
    """What comparing some values with a condition takes, beyond the step of the condition."""
    if node.op == "contains":
        return len(values) + sum(map(len, filter(None, values))) // _CHARACTERS_A_STEP
    return len(values) * (1 + len(node.values) // _VALUES_A_STEP)


def begin_words(words: list[str], present: list[str]) -> bool:
    """Whether each word begins some word of a document's searchable members, as `q=` asks: `present`, sorted."""
    for word in words:
        place = bisect_left(present, word)  # what begins with a word comes directly behind it
        if place == len(present) or not present[place].startswith(word):
            return False
    return True


def _compare_side(node: Leaf, value: str, number: float | None) -> bool:
    if node.op in ("gt", "gte", "lt", "lte") and isinstance(node.values[0], float):
        return number is not None and _compare(node.op, number, node.values)
    if node.op in ("gt", "gte", "lt", "lte") and number is not None:
        return False
    return _compare(node.op, value, node.values)


def _compare(op: str, value: Any, operands: tuple[Any, ...]) -> bool:
    if op == "exists":
        return True
    if op in ("eq", "in"):
        return value in operands
    if op == "timed":
        return bool(value & 1 == operands[0])
    operand = operands[0]
    if op == "contains":
        return operand in value
    if op == "prefix":
        return bool(value.startswith(operand))
    return bool({"gt": value > operand, "gte": value >= operand, "lt": value < operand, "lte": value <= operand}[op])
