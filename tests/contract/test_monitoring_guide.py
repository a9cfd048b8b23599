"""The guide to monitoring: its table is the list of the metrics, and its rules ask for metrics that exist."""

import re
from pathlib import Path

from taskade_server.http.observe.metrics import BY_NAME, METRICS

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "monitoring.md").read_text(encoding="utf-8")


def test_the_table_lists_the_metrics():
    rows = re.findall(r"^\| `((?:taskade|process)_\w+)` \| (\w+) \|([^|]*)\| [^|]+ \|$", GUIDE, re.M)
    found = [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]
    assert found == [(metric.name, metric.kind, metric.labels) for metric in METRICS]


def test_the_rules_ask_for_metrics_that_exist():
    rules = re.search(r"```yaml\ngroups:(.*?)```", GUIDE, re.S)
    assert rules is not None
    names = re.findall(r"\b((?:taskade|process)_\w+)", rules[1])
    assert len(names) > 10
    known = {*BY_NAME, *(f"{name}_{part}" for name in BY_NAME for part in ("bucket", "sum", "count"))}
    assert [name for name in names if name not in known] == []
    for name, labels in re.findall(r"\b(taskade_\w+)\{([^}]*)\}", rules[1]):
        declared = BY_NAME[re.sub(r"_(bucket|sum|count)$", "", name)].labels
        assert set(re.findall(r"(\w+)[=!]", labels)) <= {*declared, "job", "instance"}
