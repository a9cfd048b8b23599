"""Part `faults`: the disk refuses one write, sync, truncation or opening: the first, the second, up to the hundredth.

Why the process must not go on after some of them: a write that failed may yet reach the disk, or the next sync may say
that all is well although it is not. Only opening the file anew tells what is stored.
"""

import asyncio
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Final

import apsw

from taskade_server.selftest.checker import Checker, heads
from taskade_server.selftest.disk import File, VolatileDisk, kind
from taskade_server.selftest.host import FILE, Host, frequent_checkpoints
from taskade_server.selftest.installation import prepare
from taskade_server.selftest.ledger import Ledger, judge
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server
from taskade_server.selftest.workload import Writer
from taskade_server.selftest.writing_clients import WritingClients
from taskade_server.store.database import StoreError

EIO: Final = "EIO"
ENOSPC: Final = "ENOSPC"
WRITERS: Final = 4
# How many requests each writer sends before one looks whether the fault has come by now, and how often one looks.
REQUESTS: Final = 10
LOOKS: Final = 30
SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """An operation on one kind of file that fails. `code` is what SQLite's own file system makes of the error."""

    what: str
    kind: str
    error: str
    code: int
    fatal: bool

    @property
    def title(self) -> str:
        return f"{self.error} on {self.what} {self.kind}"


# A failed sync is EIO to SQLite whatever it was; a full disk is what it can wait out.
FAULTS: Final = (
    Fault("sync", "wal", EIO, apsw.SQLITE_IOERR_FSYNC, True),
    Fault("write", "wal", EIO, apsw.SQLITE_IOERR_WRITE, True),
    Fault("write", "wal", ENOSPC, apsw.SQLITE_FULL, True),
    Fault("sync", "database", EIO, apsw.SQLITE_IOERR_FSYNC, True),
    Fault("write", "database", EIO, apsw.SQLITE_IOERR_WRITE, True),
    Fault("write", "database", ENOSPC, apsw.SQLITE_FULL, False),
    Fault("truncate", "database", EIO, apsw.SQLITE_IOERR_TRUNCATE, True),
)
# Where only a start can meet them.
START_FAULTS: Final = (
    Fault("open", "database", EIO, apsw.SQLITE_CANTOPEN, True),
    Fault("open", "wal", EIO, apsw.SQLITE_CANTOPEN, True),
    Fault("write", "wal", ENOSPC, apsw.SQLITE_FULL, True),
    Fault("sync", "wal", EIO, apsw.SQLITE_IOERR_FSYNC, True),
)


class FailingDisk(VolatileDisk):
    """One operation fails, as soon as the disk is `armed`, when it is the nth of its kind."""

    def __init__(self, fault: Fault, nth: int) -> None:
        self.armed = self.fired = False
        self._fault = fault
        self._left = nth
        super().__init__(lambda what: None)

    def before(self, what: str, file: File | None, path: str, offset: int = 0, data: bytes = b"") -> None:
        if self.armed and not self.fired and what == self._fault.what and kind(path) == self._fault.kind:
            self._left -= 1
            if self._left == 0:
                self.fired = True
                raise apsw.exception_for(self._fault.code)
        super().before(what, file, path, offset, data)


def run(options: Options) -> Report:
    """Many faults in this process, and some in a real one, which has to recover by itself."""
    report = Report("faults")
    # The first of its kind, and others; in a short run a few of them.
    nths = list(range(1, 101)) if options.long else [1, *options.random("faults").sample(range(2, 31), 2)]
    nths = nths[: options.rounds]
    with folder("faults") as directory, frequent_checkpoints():
        sweep = Sweep(directory, options.seed)
        for number, (fault, nth) in enumerate(product(FAULTS, nths), start=1):
            sweep.inject(fault, nth)
            if number % 10 == 0:
                options.say(f"{number} of {len(FAULTS) * len(nths)} faults of the disk")
        for fault, nth in product(START_FAULTS, nths):
            sweep.inject_at_start(fault, nth)
        options.say(f"{len(START_FAULTS) * len(nths)} faults in a first start")
    with folder("failing") as directory:
        clients, restarts, injected = _in_a_server(directory, options)
        report.faults += sweep.faults + clients.close()
    counts = sweep.counts + clients.tally.counts
    report.figures = {
        "faults injected": counts["fired"] + injected,
        "of them into a real server": injected,
        "servers stopped and opened anew": counts["stopped"] + restarts,
        "writes acknowledged": counts["acknowledged"],
        "acknowledged writes lost": counts["lost"] + clients.lost,
        "bulks and batches torn": counts["torn"] + clients.torn,
        "left open, and sent again": counts["sent again"],
        "of them told so by a real server (503)": clients.tally.counts["told so"],
    }
    if counts["never"]:
        report.notes.append(f"{counts['never']} faults never came: the operation is too rare.")
    return report


class Sweep:
    """Injects faults into copies of one installation, in this process."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._directory = directory
        self._seed = seed
        self._numbers = count(1)
        self._fresh = directory / "fresh"
        self._fresh.mkdir()
        host = Host(self._fresh).open()
        self._key = host.key
        self._seen = host.db.read_sync(heads)
        host.close()

    def inject(self, fault: Fault, nth: int) -> None:
        """Work until the nth operation has failed, recover as a new process would, and compare."""
        number = next(self._numbers)
        life = self._directory / str(number)
        shutil.copytree(self._fresh, life)
        disk = FailingDisk(fault, nth)
        writers = [Writer(f"f{number}w{n}", self._seed) for n in range(WRITERS)]
        ledgers = [Ledger() for _ in writers]
        host = Host(life, vfs=disk.name, key=self._key).open()
        found: list[str] = []
        try:
            disk.armed = True
            found += asyncio.run(_until_fired(host, disk, writers, ledgers))
        finally:
            host.close()
        self.counts["fired" if disk.fired else "never"] += 1
        self.counts["stopped"] += bool(host.fatal)
        if disk.fired and fault.fatal and not host.fatal:
            found.append("the server went on")
        found += self._recover(life, writers, ledgers)
        self.faults += [f"{fault.title}, the {nth}. time: {text}" for text in found]
        shutil.rmtree(life)

    def inject_at_start(self, fault: Fault, nth: int) -> None:
        """A first start that fails must say so, and leave what the next one can go on from."""
        life = self._directory / str(next(self._numbers))
        life.mkdir()
        disk = FailingDisk(fault, nth)
        disk.armed = True
        try:
            Host(life, vfs=disk.name).open().close()
        except StoreError:
            self.counts["stopped"] += 1
        self.counts["fired" if disk.fired else "never"] += 1
        try:
            Host(life).open().close()
            found = Checker(life / FILE).look(whole=True)
        except StoreError as error:
            found = [f"the next start fails: {error}"]
        self.faults += [f"{fault.title} in a first start, the {nth}. time: {text}" for text in found]
        shutil.rmtree(life)

    def _recover(self, life: Path, writers: list[Writer], ledgers: list[Ledger]) -> list[str]:
        """Open the files anew, compare, send again what was left open, and compare once more."""
        host = Host(life, key=self._key).open()
        checker = Checker(life / FILE, self._seen)
        operations = [operation for ledger in ledgers for operation in ledger.operations]
        found: list[str] = []
        try:
            found += checker.look_into(host.db, whole=True)
            before = judge(operations, checker.found)
            for operation in before.there:
                operation.fate = "there"
            for operation in before.absent:
                operation.fate = "absent"
            self.counts["sent again"] += len(before.there) + len(before.absent)
            found += before.faults() + asyncio.run(host.work(writers, ledgers, 3))
            found += checker.look_into(host.db, whole=True)
            operations = [operation for ledger in ledgers for operation in ledger.operations]
            after = judge(operations, checker.found)
            found += after.faults()
        finally:
            host.close()
        self.counts["acknowledged"] += sum(operation.fate == "acknowledged" for operation in operations)
        self.counts["lost"] += len(before.lost) + len(after.lost)
        self.counts["torn"] += len(before.torn) + len(after.torn)
        return found


async def _until_fired(host: Host, disk: FailingDisk, writers: list[Writer], ledgers: list[Ledger]) -> list[str]:
    found: list[str] = []
    for _ in range(LOOKS):
        found += await host.work(writers, ledgers, REQUESTS)
        if disk.fired:
            break
    await host.db.close()  # with its event loop, so that it can say what it has to say
    return found


def _in_a_server(directory: Path, options: Options) -> tuple[WritingClients, int, int]:
    """The same in a real process. It is never started again: what recovers, recovers by itself."""
    random = options.random("failing")
    server = Server(directory, prepare(directory, say=options.say), with_faults=True)
    checker = Checker(server.data / FILE)
    checker.begin()
    clients = WritingClients(server, checker, options.seed)
    chosen = [fault for fault in FAULTS if fault.fatal]
    chosen = chosen * 4 if options.long else chosen[:3]
    restarts = 0
    try:
        server.start()
        for number, fault in enumerate(chosen, start=1):
            server.trap({"at": f"before {fault.what} {fault.kind}", "nth": random.randint(1, 20), "error": fault.code})
            clients.start()
            found = _outlive(server, clients)
            clients.stop()
            clients.faults += [f"{fault.title}: {text}" for text in found]
            clients.reckon(whole=True)
            restarts = server.incarnations - 1
            options.say(f"{number} of {len(chosen)} faults in a real server: {fault.title}")
        if restarts != len(chosen):
            clients.faults.append(f"after {len(chosen)} faults the server had replaced itself {restarts} times")
        server.stop()
    finally:
        server.kill()
    return clients, restarts, len(chosen)


def _outlive(server: Server, clients: WritingClients) -> list[str]:
    """Wait until the fault has happened and writes are acknowledged again; otherwise what is wrong."""
    until = time.monotonic() + SECONDS
    while not server.fired and time.monotonic() < until:
        clients.wait(0.02)
    if not server.fired:
        return ["it was never reached"]
    clients.wait(0.3)
    before = clients.acknowledged
    while clients.acknowledged < before + WRITERS and time.monotonic() < until:
        if not server.alive:
            return [f"the server ended: {server.said()}"]
        clients.wait(0.02)
    return [] if clients.acknowledged > before else [f"the server did not recover: {server.said()}"]
