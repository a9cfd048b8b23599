"""How many examples a property is tried with, the same way everywhere.

Why not hypothesis' profiles: a profile holds for all tests of a run, and cannot say "thirty times as many as usual".
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings

# THOROUGHNESS=30 pytest tests/unit: for an evening after the query engine was changed.
THOROUGHNESS = int(os.environ.get("THOROUGHNESS", "1"))


def examples(usual: int) -> Any:
    """Try so many. No deadline, as the machine is shared; no chance in CI, so that what fails there fails again."""
    return settings(
        max_examples=usual * THOROUGHNESS,
        deadline=None,
        derandomize=bool(os.environ.get("CI")) and THOROUGHNESS == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
