"""The tree of a filter.

Comparisons are true or false: with a missing value false, and `$ne`, `$nin` and `$not` true.
"""

from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine.model import Field


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison: `op` is eq, in, gt, gte, lt, lte, contains, prefix, exists or timed; `side` a side-table field.

    `timed` asks of a date or time which of them it is: 1 for a time, 0 for a date.
    """

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


def excludes_nothing(node: Node) -> bool:
    """Whether no condition of a filter could exclude anything, like `{"$and": [{}]}` and `{"labels": {"$nin": []}}`.

    Conditions are not compared with one another: "high, or not high" counts as two that could.
    """
    return _constant(node) is True


def _constant(node: Node) -> bool | None:
    """What a filter says of every document, whatever it holds; None if that depends on the document."""
    if isinstance(node, Not):
        inner = _constant(node.part)
        return None if inner is None else not inner
    if isinstance(node, And | Or):
        found = [_constant(part) for part in node.parts]
        decides = isinstance(node, Or)  # one part that holds decides an Or, one that does not decides an And
        return decides if decides in found else None if None in found else not decides
    if node.op == "in" and not node.values:
        return False
    is_set = node.side is None and (not node.member.nullable or node.member.filled)
    return True if node.op == "exists" and is_set else None
