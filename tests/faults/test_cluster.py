"""Three servers and two background workers lose one part after another, and no client loses anything.

The long form: `python -m tests.faults.cluster --rounds 10`.
"""

from pathlib import Path

import pytest

from tests.faults.cluster import perform

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes by /proc")


def test_a_cluster_keeps_its_promises(own_postgres, valkey, tmp_path):
    lines: list[str] = []
    try:
        perform(tmp_path, own_postgres, valkey, say=lines.append)
    finally:
        print("\n".join(lines))
