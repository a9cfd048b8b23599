"""What a request weighs that does many things at once: how many requests it counts for, and where it is run."""

from dataclasses import dataclass
from typing import Any, Final

MAX_LISTED: Final = 1000
"""How many things one request may list."""
LISTED_A_REQUEST: Final = 50
MAX_COST: Final = 1 + MAX_LISTED // LISTED_A_REQUEST


@dataclass(frozen=True, slots=True)
class Weight:
    """What a body makes of a request.

    `cost` is how many requests it counts for, `heavy` whether it may touch so many rows that it has no place on the
    event loop, `writes` whether it needs a unit of work that can write.
    """

    cost: int = 1
    heavy: bool = False
    writes: bool = True


def cost_of(listed: int) -> int:
    """How many requests it counts for to list so many things: one, and one more for every 50 of them."""
    # One that is refused for its length is not worth more than the longest that is not.
    return 1 + min(listed, MAX_LISTED) // LISTED_A_REQUEST


def listed(body: Any) -> int:
    """How many tasks the body of a bulk request names; those that a filter chooses are not counted."""
    lists = (body.get("tasks"), body.get("ids")) if isinstance(body, dict) else ()
    return sum(len(names) for names in lists if isinstance(names, list))


def bulk(body: Any) -> Weight:
    """The weight of a bulk request."""
    return Weight(cost_of(listed(body)), heavy=True)
