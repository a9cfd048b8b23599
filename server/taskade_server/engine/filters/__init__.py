"""The filter language: parameters or a JSON document in, a small tree out, and `holds` to ask it about one document.

Why a tree of its own: the same filter must mean the same in a list, a webhook, a live stream and an automation, so its
meaning is fixed here, once, and SQL (`query`) and Python (`holds`) are two readers of it, tested against each other.
Everybody else imports from here.
"""

from taskade_server.engine.filters.comparisons import NUMBER, Resolver
from taskade_server.engine.filters.language import (
    GROUPS,
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_VALUES,
    OPERATORS,
    RESERVED,
    SINGLE,
)
from taskade_server.engine.filters.matching import Facts, begin_words, holds
from taskade_server.engine.filters.nodes import EVERYTHING, And, Leaf, Node, Not, Or, excludes_nothing
from taskade_server.engine.filters.parameters import tree_of
from taskade_server.engine.filters.parsing import Parser
from taskade_server.engine.filters.stored import (
    MAX_SUBSCRIPTION_CONDITIONS,
    MAX_SUBSCRIPTION_WEIGHT,
    Size,
    size,
    subscription_refusal,
    with_ids,
)

__all__ = [
    "EVERYTHING",
    "GROUPS",
    "MAX_DEPTH",
    "MAX_LEAVES",
    "MAX_SUBSCRIPTION_CONDITIONS",
    "MAX_SUBSCRIPTION_WEIGHT",
    "MAX_VALUES",
    "NUMBER",
    "OPERATORS",
    "RESERVED",
    "SINGLE",
    "And",
    "Facts",
    "Leaf",
    "Node",
    "Not",
    "Or",
    "Parser",
    "Resolver",
    "Size",
    "begin_words",
    "excludes_nothing",
    "holds",
    "size",
    "subscription_refusal",
    "tree_of",
    "with_ids",
]
