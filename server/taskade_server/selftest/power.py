"""Part `power`: at any moment of a disk's work, some of what was not synced is gone.

Why so many in so little time: a power loss here is a copy of what would be left, taken while the work goes on. Each
copy is opened as a server would open it, and compared with the promises that were out at that moment.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Final

from taskade_server.selftest.checker import Checker, heads
from taskade_server.selftest.disk import LOSSES, VolatileDisk
from taskade_server.selftest.host import FILE, Host, frequent_checkpoints
from taskade_server.selftest.ledger import LOST, OPEN, Fate, Ledger, Mark, Operation, judge
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.workload import Writer
from taskade_server.store.database import StoreError

WRITERS: Final = 4
REQUESTS: Final = 20
PER_LIFE: Final = 30
LIVES: Final = 5
# Moments are mostly writes, of which there are dozens for each sync; the others deserve as much attention.
WEIGHTS: Final[Mapping[str, float]] = {"write": 1.0, "sync": 8.0, "truncate": 20.0, "delete": 20.0}


@dataclass(slots=True)
class Summary:
    """The counts of one run."""

    losses: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    left_open: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.losses.values())


@dataclass(slots=True)
class _Wreck:
    """What a power loss left, and what had been promised. Before the first start `seen` is None."""

    folder: Path
    loss: str
    fates: dict[str, Fate]
    seen: Mapping[str, int] | None


class PowerTest:
    """Installations one after the other; each lives several times, from what a power loss of its last life left."""

    def __init__(self, folder: Path, seed: int, synchronous: str) -> None:
        self.summary = Summary()
        self._folder = folder
        self._seed = seed
        self._synchronous = synchronous
        self._random = Random(f"{seed}/power/{synchronous}")
        self._numbers = count(1)
        self._chance = 0.01
        self._moments = 0.0
        self._begin(0)

    def run(self, losses: int, say: Callable[[str], None]) -> Summary:
        """Simulate so many power losses, and a few more."""
        installations = count(1)
        with frequent_checkpoints():
            while self.summary.total < losses:
                self._begin(next(installations))
                life: Path | None = self._new_folder()
                for _ in range(LIVES):
                    if life is None or self.summary.total >= losses:
                        break
                    self._live(life)
                    life = self._examine()
                    say(f"{self.summary.total} of {losses} power losses, synchronous={self._synchronous}")
                if life is not None:
                    shutil.rmtree(life)
        return self.summary

    def _begin(self, installation: int) -> None:
        """A new installation, with nothing promised."""
        self._writers = [Writer(f"i{installation}w{n}", self._seed) for n in range(WRITERS)]
        self._ledgers = [Ledger() for _ in self._writers]
        self._key = ""
        self._seen: Mapping[str, int] | None = None
        self._wrecks: list[_Wreck] = []

    def _new_folder(self) -> Path:
        folder = self._folder / f"{next(self._numbers)}"
        folder.mkdir()
        return folder

    # -- living

    def _live(self, folder: Path) -> None:
        """Start, work, stop; at some moments of all that, note what a power loss would leave."""
        self._moments, self._wrecks = 0.0, []
        self._disk = VolatileDisk(self._moment)
        host = Host(folder, vfs=self._disk.name, synchronous=self._synchronous, key=self._key).open()
        try:
            self._key = host.key
            self._seen = self._seen or host.db.read_sync(heads)
            self.summary.faults += asyncio.run(host.work(self._writers, self._ledgers, REQUESTS))
        finally:
            host.close()
        self._note_wreck()
        self._chance = PER_LIFE / max(self._moments, 1.0)
        shutil.rmtree(folder)

    def _moment(self, what: str) -> None:
        weight = WEIGHTS[what]
        self._moments += weight
        if self._random.random() < self._chance * weight:
            self._note_wreck()

    def _note_wreck(self) -> None:
        # The promises first: what is promised later may be missing from the files.
        fates = {operation.name: operation.fate for operation in self._operations()}
        folder, loss = self._new_folder(), LOSSES[self.summary.total % len(LOSSES)]
        self.summary.busy += self._disk.lose_power(self._random, loss, folder)
        self.summary.losses[loss] += 1
        self._wrecks.append(_Wreck(folder, loss, fates, self._seen))

    def _operations(self) -> list[Operation]:
        return list(chain.from_iterable(ledger.operations for ledger in self._ledgers))

    # -- judging

    def _examine(self) -> Path | None:
        """Judge all wrecks; one of them is where the next life begins, if it can be opened at all."""
        heir = self._random.choice(self._wrecks)
        for wreck in self._wrecks:
            if wreck is not heir:
                self._judge(wreck)
                shutil.rmtree(wreck.folder)
        copy = self._new_folder()
        shutil.copytree(heir.folder, copy, dirs_exist_ok=True)
        found = self._judge(heir)
        shutil.rmtree(heir.folder)
        if found is None:
            shutil.rmtree(copy)
            return None
        self._inherit(heir, found)
        return copy

    def _judge(self, wreck: _Wreck) -> Counter[Mark] | None:
        """Open what is left as a server would; what its log tells, None if that cannot be told."""
        checker = Checker(wreck.folder / FILE, wreck.seen)
        try:
            host = Host(wreck.folder, key=self._key).open()
        except StoreError as error:
            self._fault(wreck, f"it cannot be opened: {error}")
            return None
        try:
            if not host.db.read_sync(heads).keys() >= (wreck.seen or {}).keys():
                self._write_off(wreck)
                return None
            found = checker.look_into(host.db, whole=True)
        except StoreError as error:
            self._fault(wreck, f"it cannot be read: {error}")
            return None
        finally:
            host.close()
        for fault in found:
            self._fault(wreck, fault)
        if wreck.seen is not None:
            verdict = judge(self._as_of(wreck), checker.found)
            self.summary.acknowledged += sum(fate == "acknowledged" for fate in wreck.fates.values())
            self.summary.lost += len(verdict.lost)
            self.summary.torn += len(verdict.torn)
            for fault in verdict.faults():
                self._fault(wreck, fault)
        return checker.found

    def _write_off(self, wreck: _Wreck) -> None:
        """The first start itself is lost, and with it all that came after; another has taken its place."""
        promised = sum(fate == "acknowledged" for fate in wreck.fates.values())
        self.summary.acknowledged += promised
        self.summary.lost += promised
        self._fault(wreck, f"{LOST}: the first start and {promised} operations")

    def _as_of(self, wreck: _Wreck) -> list[Operation]:
        """All operations as they stood then; those that were sent later may be there in part of the files."""
        return [replace(operation, fate=wreck.fates.get(operation.name, "sent")) for operation in self._operations()]

    def _inherit(self, wreck: _Wreck, found: Counter[Mark]) -> None:
        """The next life knows only what this wreck holds."""
        self._seen = wreck.seen
        for writer, ledger in zip(self._writers, self._ledgers, strict=True):
            for operation in ledger.operations:
                operation.fate = "there" if all(mark in found for mark in operation.marks) else "absent"
            writer.resume(ledger.operations)
            if self._synchronous == "normal":
                continue  # with parts of the past lost, what was asked later may make no sense any more
            writer.unsettled = [
                operation for operation in ledger.operations if wreck.fates.get(operation.name, "sent") in OPEN
            ]
            self.summary.left_open += len(writer.unsettled)
            for operation in writer.unsettled:
                # Sent once more: from now on both outcomes are right, until it is answered.
                operation.fate = operation.fate if operation.fate == "there" else "sent"

    def _fault(self, wreck: _Wreck, text: str) -> None:
        self.summary.faults.append(f"after a power loss ({wreck.loss}): {text}")


def run(options: Options) -> Report:
    """With FULL nothing may be lost; with NORMAL something must be, or this test could not see a loss at all."""
    report = Report("power")
    with folder("power") as directory:
        full = PowerTest(directory, options.seed, "full").run(options.count(100, 2000), options.say)
    with folder("detector") as directory:
        normal = PowerTest(directory, options.seed, "normal").run(options.count(40, 200), options.say)
    report.faults += full.faults
    # What NORMAL does promise: the files stay sound, and what is together stays together.
    report.faults += [f"with NORMAL, {fault}" for fault in normal.faults if LOST not in fault]
    if not normal.lost:
        report.faults.append("with NORMAL nothing was lost: the test does not see what it is there for")
    else:
        report.notes.append(f"The detector works: with synchronous=NORMAL it found {normal.lost:,} writes lost.")
    report.figures = {
        "power losses": full.total,
        "of them with writes on their way": full.busy,
        **{f"of them keeping unsynced writes: {loss}": count for loss, count in full.losses.items()},
        "promises checked": full.acknowledged,
        "acknowledged writes lost": full.lost,
        "bulks and batches torn": full.torn,
        "left open, and sent again": full.left_open,
        "with NORMAL: power losses": normal.total,
        "with NORMAL: promises checked": normal.acknowledged,
        "with NORMAL: acknowledged writes lost": normal.lost,
    }
    return report
