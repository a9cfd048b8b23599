"""How much of tasks one request may hold or change, and what checking them costs of its budget, in steps."""

from typing import Final

MAX_BULK: Final = 1000

MAX_LEVELS: Final = 20

LOOKUP_STEPS: Final = 20

CHECK_STEPS: Final = 10
