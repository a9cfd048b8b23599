"""The ledger: what was asked of a server, what it answered, and whether its log agrees.

Why it is on disk before a request is sent, and again before its answer counts: the judge must not be able to forget
what the accused has promised.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from taskade_server.kit import json

Mark = tuple[str, str]
"""An event type and a text that only one operation can have put into such an event."""

Fate = Literal["sent", "acknowledged", "unknown", "refused", "there", "absent"]
"""`there` and `absent` are what became of an unknown one, as a check has found."""

OPEN: Final = ("sent", "unknown")
LOST: Final = "acknowledged but lost"


@dataclass(slots=True)
class Operation:
    """One write request. `marks` are the events it leaves if it happens: each as often as said, or none of them.

    `touched` are the tasks that have to be there for it.
    """

    name: str
    kind: str
    method: str
    path: str
    body: Any
    key: str
    marks: Counter[Mark]
    created: Sequence[str] = ()
    deleted: Sequence[str] = ()
    touched: Sequence[str] = ()
    fate: Fate = "sent"
    status: int = 0
    reply: bytes = b""

    @property
    def together(self) -> bool:
        """Whether it does several things, so that it could be torn."""
        return sum(self.marks.values()) > 1


class Ledger:
    """The operations of one writer, in order; with a path also in a file, every line of it synced."""

    def __init__(self, path: Path | None = None) -> None:
        self.operations: list[Operation] = []
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sent(self, operation: Operation) -> None:
        """Before the request leaves."""
        self._note({"sent": operation.name, "marks": [[*mark, count] for mark, count in operation.marks.items()]})
        self.operations.append(operation)

    def settled(self, operation: Operation, fate: Fate) -> None:
        """After the answer, or after a check has found out."""
        self._note({fate: operation.name})
        operation.fate = fate

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, json.encode(entry).encode() + b"\n")
            os.fdatasync(self._file)


def recall(path: Path) -> Iterator[Operation]:
    """The operations of a ledger's file, with marks and fate only; a torn last line was never acted upon."""
    found: dict[str, Operation] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        (what, name), *more = json.decode(line).items()
        if what == "sent":
            marks = Counter({(kind, text): count for kind, text, count in dict(more)["marks"]})
            found[name] = Operation(name, "", "", "", None, "", marks)
        else:
            found[name].fate = what
    yield from found.values()


@dataclass(slots=True)
class Verdict:
    """What a comparison of operations with a log has found; the lists name operations."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    there: list[Operation] = field(default_factory=list)
    absent: list[Operation] = field(default_factory=list)

    def faults(self) -> list[str]:
        """In words, for a report."""
        words = {
            LOST: self.lost,
            "applied more than once": self.twice,
            "applied in part": self.torn,
            "refused but applied": self.ghosts,
            "in the log, but never asked for": self.strangers,
        }
        return [f"{word}: {', '.join(names[:5])} ({len(names)})" for word, names in words.items() if names]


def judge(operations: Iterable[Operation], found: Counter[Mark]) -> Verdict:
    """Compare with all the marks of the log: neither less than was promised, nor more than was asked for."""
    verdict = Verdict()
    left = found.copy()
    for operation in operations:
        counts = [(left.pop(mark, 0), wanted) for mark, wanted in operation.marks.items()]
        if all(count == wanted for count, wanted in counts):
            if operation.fate in ("refused", "absent"):
                verdict.ghosts.append(operation.name)
            elif operation.fate in OPEN:
                verdict.there.append(operation)
        elif any(count > wanted for count, wanted in counts):
            verdict.twice.append(operation.name)
        elif any(count for count, _ in counts):
            verdict.torn.append(operation.name)
        elif operation.fate in ("acknowledged", "there"):
            verdict.lost.append(operation.name)
        elif operation.fate in OPEN:
            verdict.absent.append(operation)
    verdict.strangers = [text for _, text in left]
    return verdict


class Tally:
    """Counts that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self.counts[name] += count
