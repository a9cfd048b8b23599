"""Filters that are kept and compared with every event: their size, and the ids of what they name."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from taskade_server.engine.filters.language import GROUPS

MAX_SUBSCRIPTION_CONDITIONS: Final = 50
"""How many conditions a filter may have which is compared with every event of a log."""

MAX_SUBSCRIPTION_WEIGHT: Final = 150
"""The weight that a filter may have which is compared with every event of a log; see `Size`."""

TEXT_WEIGHT: Final = 5

VALUES_PER_WEIGHT: Final = 20


class Size(NamedTuple):
    """How large a filter document is.

    `conditions` counts comparisons. `weight` is what comparing costs: 1 for each condition, 5 for `$contains` and
    `$prefix`, and 1 more for every 20 values of a list.
    """

    conditions: int
    weight: int


def size(document: Any) -> Size:
    """The size of a filter document, whichever resource it speaks of and whether or not it is correct."""
    if isinstance(document, list):
        return _sum(map(size, document))
    if not isinstance(document, dict):
        return Size(1, 1)
    found = []
    for name, value in document.items():
        if name in GROUPS:
            found.append(size(value))
        elif name == "custom_fields" and isinstance(value, dict):
            found += [_size_of_field(inner) for inner in value.values()]
        else:
            found.append(_size_of_field(value))
    return _sum(found)


def _size_of_field(value: Any) -> Size:
    operands = value if isinstance(value, dict) else {"$in": value}
    weight = sum(
        TEXT_WEIGHT
        if name in ("$contains", "$prefix")
        else 1 + (len(operand) // VALUES_PER_WEIGHT if isinstance(operand, list) else 0)
        for name, operand in operands.items()
    )
    return Size(len(operands), weight)


def _sum(sizes: Iterable[Size]) -> Size:
    conditions = weight = 0
    for found in sizes:
        conditions, weight = conditions + found.conditions, weight + found.weight
    return Size(conditions, weight)


def subscription_refusal(document: Any) -> str | None:
    """Why a filter is too expensive to be compared with every event of a log, in one sentence; None if it is not."""
    found = size(document)
    if found.conditions > MAX_SUBSCRIPTION_CONDITIONS:
        return (
            f"The filter has {found.conditions} conditions; one that is compared with every event may have"
            f" {MAX_SUBSCRIPTION_CONDITIONS}. Join values of a field with $in."
        )
    if found.weight > MAX_SUBSCRIPTION_WEIGHT:
        return (
            f"The filter has a weight of {found.weight}; one that is compared with every event may have"
            f" {MAX_SUBSCRIPTION_WEIGHT}. A condition weighs 1, $contains and $prefix {TEXT_WEIGHT}, and every"
            f" {VALUES_PER_WEIGHT} values of a list 1 more."
        )
    return None


def with_ids(document: Mapping[str, Any], references: Mapping[tuple[str, ...], Mapping[str, str]]) -> dict[str, Any]:
    """A filter document as it is to be kept: with ids in the place of what a parser found to be names of objects.

    What was named by a handle then goes on to mean the same object when the handle changes.
    """
    found: dict[str, Any] = copy.deepcopy(dict(document))
    for tokens, known in references.items():
        node: Any = found
        for token in tokens[:-1]:
            node = node[int(token)] if isinstance(node, list) else node[token]
        value = node[tokens[-1]]
        if isinstance(value, list):
            node[tokens[-1]] = [known.get(item, item) if isinstance(item, str) else item for item in value]
        else:
            node[tokens[-1]] = known.get(value, value)
    return found
