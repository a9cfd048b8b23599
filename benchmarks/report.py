"""Turns figures into a table for people and a document for programs; both say the same, and what they were measured on.

A missed target is printed as plainly as a met one: a benchmark that only shows what is good would soon be ignored.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import DISTURBED
from benchmarks.machine import Facts

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Measurement:
    """One kind of request to one server: medians of its runs. Shares are of one core."""

    key: str
    name: str
    peer: str
    label: str
    per_second: float
    p50_ms: float
    p99_ms: float
    bytes: int
    failed: int
    first_failure: str
    server_busy: float
    client_busy: float
    others_busy: float
    runs: list[float]

    @property
    def doubtful(self) -> bool:
        """Whether most runs were disturbed by other programs."""
        return self.others_busy > DISTURBED


@dataclass(frozen=True)
class Verdict:
    """A figure beside the one it is compared with, and beside what it should be."""

    name: str
    ours: float | None
    theirs: float | None
    unit: str
    value: float | None  # the ratio, or our figure where only that counts
    target: float | None
    at_least: bool
    doubtful: bool = False

    @classmethod
    def ratio(
        cls, name: str, ours: Measurement | None, theirs: Measurement | None, target: float | None, unit: str
    ) -> "Verdict":
        first, second = (None if side is None or side.failed else side.per_second for side in (ours, theirs))
        value = first / second if first and second else None
        doubtful = any(side is not None and side.doubtful for side in (ours, theirs))
        return cls(name, first, second, unit, value, target, at_least=True, doubtful=doubtful)

    @classmethod
    def limit(cls, name: str, ours: float | None, theirs: float | None, target: float, unit: str) -> "Verdict":
        return cls(name, ours, theirs, unit, ours, target, at_least=False)

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value < self.target

    def row(self) -> list[str]:
        target = "" if self.target is None else f"{'≥' if self.at_least else '<'} {self.target:g}"
        ratio = self.ours / self.theirs if self.ours and self.theirs else None
        said = {True: "met", False: "**missed**", None: "not measured" if self.value is None else ""}[self.met]
        doubt = " (in doubt)" if self.doubtful and said else ""
        unit = "×" if self.at_least else f" {self.unit}"
        return [
            self.name,
            _figure(self.ours, self.unit),
            _figure(self.theirs, self.unit),
            "" if ratio is None else f"{ratio:.2f}×",
            f"{target}{unit if target else ''}",
            said + doubt,
        ]


@dataclass(frozen=True)
class Latency:
    """One kind of question to a large workspace."""

    name: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    limit_ms: float
    rows: float
    bytes: int
    requests: int
    failed: int
    first_failure: str
    others_busy: float

    @property
    def met(self) -> bool:
        return not self.failed and self.p99_ms < self.limit_ms

    def row(self) -> list[str]:
        times = [f"{value:.1f} ms" for value in (self.p50_ms, self.p99_ms, self.max_ms)]
        said = ("met" if self.met else "**missed**") + (" (in doubt)" if self.others_busy > DISTURBED else "")
        return [self.name, *times, f"{self.rows:.0f}", f"{self.requests:,}", _failed(self.failed), said]


@dataclass(frozen=True)
class Report:
    """What is printed and kept."""

    text: str
    document: dict[str, Any] = field(repr=False)

    def write(self, name: str) -> None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(self.text, encoding="utf-8")
        encoded = msgspec.json.format(msgspec.json.encode(self.document), indent=2)
        (RESULTS / f"{name}.json").write_bytes(encoded + b"\n")


def comparison(
    facts: Facts,
    versions: dict[str, str],
    conditions: str,
    settings: dict[str, int],
    verdicts: list[Verdict],
    measured: list[Measurement],
) -> Report:
    head = ["what", "ours", "other", "ratio", "target", ""]
    detail = ["request", "server", "per second", "p50", "p99", "failed", "server core", "client core"]
    sections = [
        "# Beside its peers",
        _paragraph(settings),
        _table(head, [verdict.row() for verdict in verdicts if verdict.ours or verdict.theirs]),
        "## In detail",
        "Medians. Create and bulk count tasks. The last columns say how busy each side's core was: a client near\n"
        "100 % would mean that the load generator was measured, and not the server.",
        _table(detail, [_detail(m) for m in measured]),
        *_complaints(measured),
        "## Conditions",
        conditions,
        _machine(facts, versions),
    ]
    document = {
        "scenario": "peers",
        **_common(facts, versions, settings),
        "verdicts": [{**asdict(v), "met": v.met} for v in verdicts],
        "measurements": [asdict(m) for m in measured],
    }
    return Report("\n\n".join(sections) + "\n", document)


def million(facts: Facts, versions: dict[str, str], settings: dict[str, int], latencies: list[Latency]) -> Report:
    limit = latencies[0].limit_ms
    head = ["question", "p50", "p99", "slowest", "tasks in an answer", "requests", "failed", f"p99 < {limit:g} ms"]
    failures = [f"- {one.name}: {one.first_failure}" for one in latencies if one.failed]
    sections = [
        "# A large workspace",
        _paragraph(settings),
        "Every request is a different one, over HTTP, on one connection. In doubt: other programs were busy meanwhile.",
        _table(head, [latency.row() for latency in latencies]),
        *(["\n".join(failures)] if failures else []),
        _machine(facts, versions),
    ]
    document = {
        "scenario": "million",
        **_common(facts, versions, settings),
        "latencies": [{**asdict(one), "met": one.met} for one in latencies],
    }
    return Report("\n\n".join(sections) + "\n", document)


def scaling(facts: Facts, versions: dict[str, str], settings: dict[str, int], rows: Sequence[Any]) -> Report:
    """One process beside two; a row has a name and both figures."""
    head = ["request", "one process", "two processes", "ratio"]
    cells = [[r.name, f"{r.one:,.0f}/s", f"{r.two:,.0f}/s", f"{r.two / r.one:.2f}×"] for r in rows]
    text = "PostgreSQL, the servers and the load generator share all cores."
    shared = replace(facts, pinned=False)
    sections = [
        "# A second process on PostgreSQL",
        _paragraph(settings),
        _table(head, cells),
        text,
        _machine(shared, versions).replace("everything on the same core", "nothing pinned"),
    ]
    document = {"scenario": "scaling", **_common(shared, versions, settings), "rows": [asdict(row) for row in rows]}
    return Report("\n\n".join(sections) + "\n", document)


def webhooks(facts: Facts, versions: dict[str, str], settings: dict[str, int], figures: dict[str, Any]) -> Report:
    """How fast a backlog is delivered, and how long a change takes to arrive."""
    rows = [
        ["deliveries to healthy endpoints", f"{figures['deliveries']:,} in {figures['seconds']:,.1f} s"],
        ["deliveries a second", f"{figures['per_second']:,.0f}"],
        ["taken by the slow endpoint meanwhile", f"{figures['slow']:,}"],
        ["from the request to the receiver, p50", f"{figures['p50_ms']:,.1f} ms"],
        ["p99", f"{figures['p99_ms']:,.1f} ms"],
        ["slowest", f"{figures['max_ms']:,.1f} ms"],
    ]
    text = "A backlog first, then single changes, with a slow and a dead endpoint among the healthy ones all the time."
    sections = ["# Webhooks", _paragraph(settings), text, _table(["what", ""], rows), _machine(facts, versions)]
    document = {"scenario": "webhooks", **_common(facts, versions, settings), "figures": figures}
    return Report("\n\n".join(sections) + "\n", document)


def hostile(facts: Facts, versions: dict[str, str], settings: dict[str, int], waits: Sequence[Any]) -> Report:
    """The longest that others waited under each attack."""
    head = ["attack", "requests", "answers", "took", "event loop", "writer", ""]
    rows = [
        [
            wait.name,
            str(wait.requests),
            ", ".join(f"{count} x {status}" for status, count in sorted(wait.answers.items())),
            f"{wait.seconds:.1f} s",
            f"{wait.loop_ms:.0f} ms",
            f"{wait.writer_ms:.0f} ms",
            "met" if wait.met else "**missed**",
        ]
        for wait in waits
    ]
    text = (
        "The longest that somebody else waited meanwhile: for /health on a new connection, and for a small change.\n"
        "The aim is less than 50 ms for the first and 200 ms for the second. Both include a request of the probe's\n"
        "own, and on a machine with few cores its wait for a processor."
    )
    sections = ["# Under attack", _paragraph(settings), text, _table(head, rows), _machine(facts, versions)]
    figures = [{**asdict(wait), "met": wait.met} for wait in waits]
    document = {"scenario": "hostile", **_common(facts, versions, settings), "attacks": figures}
    return Report("\n\n".join(sections) + "\n", document)


def search(facts: Facts, versions: dict[str, str], settings: dict[str, int], costs: Sequence[Any]) -> Report:
    """A table by script: bytes of the search index and time to write a task, today and with whole words alone."""
    head = [
        "script",
        "index, before",
        "index, now",
        "ratio",
        "words, before",
        "words, now",
        "ratio",
        "a whole creation",
    ]
    rows = [
        [
            cost.script,
            f"{cost.before_bytes:,.0f} B",
            f"{cost.now_bytes:,.0f} B",
            f"{cost.now_bytes / cost.before_bytes:.2f}",
            f"{cost.before_us:,.0f} us",
            f"{cost.now_us:,.0f} us",
            f"{cost.now_us / cost.before_us:.2f}",
            f"{cost.server_us:,.0f} us",
        ]
        for cost in costs
    ]
    text = (
        "A task is a name of 40 characters and a description. Before: words as they stand between spaces. Now: pieces\n"
        "of two or three characters, too, of scripts that write none. The words are found and written into an index\n"
        "in memory; a whole creation is what a server's processor needs for a task of a bulk request, all included."
    )
    sections = ["# Words of every script", _paragraph(settings), text, _table(head, rows), _machine(facts, versions)]
    document = {"scenario": "search", **_common(facts, versions, settings), "scripts": [asdict(cost) for cost in costs]}
    return Report("\n\n".join(sections) + "\n", document)


# ------------------------------------------------------------------------------------------------ pieces


def _common(facts: Facts, versions: dict[str, str], settings: dict[str, int]) -> dict[str, Any]:
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "machine": asdict(facts), "versions": versions, "settings": settings}


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.0f} {unit}"


def _failed(count: int) -> str:
    return f"**{count:,}**" if count else "0"


def _detail(m: Measurement) -> list[str]:
    times = (f"{m.p50_ms:,.2f} ms", f"{m.p99_ms:,.2f} ms")
    shares = (f"{m.server_busy:.0%}", f"{m.client_busy:.0%}")
    return [m.name, m.label, f"{m.per_second:,.0f}", *times, _failed(m.failed), *shares]


def _complaints(measured: list[Measurement]) -> list[str]:
    lines = [f"- {m.name}, {m.label}: {m.failed:,} requests failed: {m.first_failure}" for m in measured if m.failed]
    lines += [
        f"- {m.name}, {m.label}: other programs used {m.others_busy:.0%} of the server's core; the figure is in doubt."
        for m in measured
        if m.doubtful
    ]
    return ["\n".join(lines)] if lines else []


def _paragraph(settings: dict[str, int]) -> str:
    return ", ".join(f"{name}: {value:,}" for name, value in settings.items()) + "."


def _machine(facts: Facts, versions: dict[str, str]) -> str:
    pinned = "servers on one core, the load generator on another" if facts.pinned else "everything on the same core"
    named = ", ".join(f"{name} {version}" for name, version in {**versions, **facts.packages}.items())
    memory = f", {facts.memory_gb:g} GB" if facts.memory_gb else ""
    return (
        f"Measured on {datetime.now(UTC).date()}: {facts.processor}, {facts.cores} cores{memory}, {facts.system}, "
        f"{facts.filesystem} (an fsync takes {facts.fsync_us:,.0f} µs); {pinned}.\n{facts.python}, {named}."
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that also reads well as plain text."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])
