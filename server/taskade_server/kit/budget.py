"""A count of the work that one request, or one page of a reader of the log, may still make the server do.

Why a count and not a clock: the same request then gets the same answer on a slow machine, on a busy one and in a test.
One step stands for about a microsecond of processor time on the machine that the figures in docs/decisions were
measured on: comparing one value costs one step, writing one row with its event about thirty-five.
"""

from typing import Final

LIGHT: Final = 20_000
"""A unit of work that runs on the event loop. One that needs more begins again on a thread, with a larger budget."""
READ: Final = 5_000_000
"""A unit that only reads, on a thread: it keeps nobody from writing."""
WRITE: Final = 250_000
"""A unit that writes: all other changes wait for it meanwhile, so this is how long one request may make them wait."""
UNLIMITED: Final = 2**62
"""Commands and migrations, which an operator starts."""


class BudgetSpent(Exception):
    """The work exceeds the budget. What set the budget decides what follows: a slower lane, or a refusal."""


class Budget:
    """Counts down from `steps`. `spend` raises BudgetSpent at the first step too many, and at every later one."""

    __slots__ = ("left", "steps")

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.left = steps

    def spend(self, steps: int) -> None:
        """Account for work that is about to be done."""
        self.left -= steps
        if self.left < 0:
            raise BudgetSpent

    @property
    def used(self) -> int:
        """The steps that were accounted for so far, those beyond the budget included."""
        return self.steps - self.left
