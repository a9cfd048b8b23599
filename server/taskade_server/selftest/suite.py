"""The parts of the selftest by name, and what a run of them prints.

Why every figure is printed and not only "ok": a record that others shall believe says how often it was tried.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TextIO

import apsw

from taskade_server.kit import json
from taskade_server.selftest import exhaustion, faults, kill, once, points, power
from taskade_server.selftest.parts import Options, Report

Part = Callable[[Options], Report]
Parts = Mapping[str, tuple[str, Part]]
"""By name: what a part tries, in words, and the function that does."""
PARTS: Final[Parts] = {
    "kill": ("a server killed at random moments, over and over", kill.run),
    "points": ("a server that dies at named places", points.run),
    "power": ("power losses that take what was not synced", power.run),
    "faults": ("a disk that refuses single operations", faults.run),
    "exhaustion": ("a full disk, no file descriptors, an endless reader", exhaustion.run),
    "once": ("one key, many requests at once", once.run),
}
PAUSE_SECONDS: Final = 5.0
MOST_FAULTS: Final = 20
CRASH: Final = ("kill", "points", "power", "faults", "exhaustion")


def run(names: Sequence[str], options: Options, parts: Parts) -> list[Report]:
    """Run these of the parts, one after the other."""
    for name in [name for name in os.environ if name.startswith("TASKADE_")]:
        del os.environ[name]  # the settings of the real server are none of theirs
    reports = []
    for name in names:
        title, part = parts[name]
        options.say(f"{name}: {title}")
        began = time.monotonic()
        try:
            report = part(options)
        except Exception as error:  # whatever it was, the others can still be run
            report = Report(name, faults=[f"the part itself failed: {type(error).__name__}: {error}"])
        report.seconds = time.monotonic() - began
        reports.append(report)
    return reports


class Progress:
    """Says how far a run is: on a terminal in one line, elsewhere every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._next = 0.0

    def __call__(self, text: str) -> None:
        if self._terminal:
            self._stream.write(f"\r\033[K{text[:100]}")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE_SECONDS
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for what comes next."""
        if self._terminal:
            self._stream.write("\r\033[K")


def environment() -> str:
    """Where it was run, for the record."""
    return f"SQLite {apsw.sqlite_lib_version()}, Python {platform.python_version()}, {platform.platform(terse=True)}"


def table(reports: Sequence[Report], seed: int, parts: Parts) -> str:
    """A run in words and figures."""
    lines = [f"seed {seed}; {environment()}", ""]
    for report in reports:
        title, _ = parts[report.part]
        lines.append(f"{report.part:<13}{'FAILED' if report.faults else 'ok':<8}{report.seconds:6.0f} s  {title}")
        lines += [f"    {name:<44}{_shown(figure):>12}" for name, figure in report.figures.items()]
        lines += [f"    note: {note}" for note in report.notes]
        lines += [f"    FAULT: {fault}" for fault in report.faults[:MOST_FAULTS]]
        if len(report.faults) > MOST_FAULTS:
            lines.append(f"    and {len(report.faults) - MOST_FAULTS} more faults")
        lines.append("")
    wrong = sum(len(report.faults) for report in reports)
    lines.append(f"{wrong} faults were found." if wrong else "Everything held.")
    return "\n".join(lines)


def document(reports: Sequence[Report], seed: int) -> str:
    """The same for programs."""
    parts: list[dict[str, Any]] = [
        {
            "part": report.part,
            "ok": not report.faults,
            "seconds": round(report.seconds, 1),
            "figures": report.figures,
            "notes": report.notes,
            "faults": report.faults,
        }
        for report in reports
    ]
    ok = all(part["ok"] for part in parts)
    return json.encode({"ok": ok, "seed": seed, "environment": environment(), "parts": parts})


def _shown(figure: int | float | str) -> str:
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
