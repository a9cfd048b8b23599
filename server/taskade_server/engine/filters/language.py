"""The words of the filter language, and how large a filter may be."""

from typing import Final

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

RESERVED: Final = ("filter", "sort", "limit", "cursor", "include", "fields", "q", "count", "deleted", "timezone")

SINGLE: Final = ("limit", "cursor", "q", "count", "deleted", "filter", "timezone")
"""Those of them that take one value."""
