"""What all parts of the selftest share: how they are told what to do, and how they report.

Why figures beside the verdict: "ok" proves little without how often it was tried.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass(slots=True)
class Options:
    """What a part is to do. `rounds` is None for the part's own number; `say` takes a line of progress."""

    seed: int
    long: bool = False
    rounds: int | None = None
    tasks: int | None = None
    database_url: str = ""
    say: Callable[[str], None] = print

    def random(self, part: str) -> Random:
        """Random numbers of this part alone."""
        return Random(f"{self.seed}/{part}")

    def count(self, short: int, long: int) -> int:
        """How many rounds."""
        return self.rounds or (long if self.long else short)


@dataclass(slots=True)
class Report:
    """What a part found: numbers by name, faults and remarks in words."""

    part: str
    figures: dict[str, int | float | str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def folder(part: str) -> Iterator[Path]:
    """A temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"taskade-selftest-{part}-") as path:
        yield Path(path)
