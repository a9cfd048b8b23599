"""Disks that misbehave, as SQLite sees them: file systems of APSW that stand before the real one.

Why not a fake in memory: SQLite's shared memory can only be had from a real file system. So the files are real and hold
what the operating system would show; what a power loss would leave of them is kept beside.
"""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import apsw

SECTOR: Final = 512
Loss = Literal["none", "random", "reordered", "torn"]
LOSSES: Final[tuple[Loss, ...]] = ("none", "random", "reordered", "torn")
_numbers = itertools.count(1)


class Disk(apsw.VFS):
    """Tells `before` and `after` of everything that changes a database, its log or a temporary file ("").

    Both may raise; that is the failure SQLite then sees. `what` is open, write, sync, truncate or delete.
    """

    def __init__(self, *, default: bool = False) -> None:
        self.name = f"selftest-{next(_numbers)}"
        self.base = apsw.vfs_names()[0]
        super().__init__(self.name, self.base, makedefault=default)

    def before(self, what: str, file: "File | None", path: str, offset: int = 0, data: bytes = b"") -> None:
        """The operation is about to happen."""

    def after(self, what: str, file: "File | None", path: str, offset: int = 0, data: bytes = b"") -> None:
        """The operation has happened."""

    def xOpen(self, name: "str | apsw.URIFilename | None", flags: list[int]) -> "File":
        path = _text(name)
        self.before("open", None, path)
        file = File(self, name, flags)
        self.after("open", file, path)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.before("delete", None, filename)
        super().xDelete(filename, syncdir)
        self.after("delete", None, filename)


class File(apsw.VFSFile):
    """One open file of a `Disk`."""

    def __init__(self, disk: Disk, name: "str | apsw.URIFilename | None", flags: list[int]) -> None:
        self._disk = disk
        self.path = _text(name)
        self.syncs_folder = kind(self.path) in ("wal", "journal")
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        written = bytes(data)
        self._disk.before("write", self, self.path, offset, written)
        super().xWrite(written, offset)
        self._disk.after("write", self, self.path, offset, written)

    def xTruncate(self, newsize: int) -> None:
        self._disk.before("truncate", self, self.path, newsize)
        super().xTruncate(newsize)
        self._disk.after("truncate", self, self.path, newsize)

    def xSync(self, flags: int) -> None:
        self._disk.before("sync", self, self.path)
        # Not passed on: what is durable is what the disk says, and a real fsync would only cost time.
        if not isinstance(self._disk, VolatileDisk):
            super().xSync(flags)
        self._disk.after("sync", self, self.path)

    def write_half(self, data: bytes, offset: int) -> None:
        """What is left of a write when the process dies in its middle."""
        super().xWrite(data[: len(data) // 2], offset)


def _text(name: "str | apsw.URIFilename | None") -> str:
    return name.filename() if isinstance(name, apsw.URIFilename) else name or ""


def kind(path: str) -> str:
    """`database`, `wal`, `journal` (SQLite's older kind of log) or `temporary`."""
    return "temporary" if not path else path.rpartition("-")[2] if path.endswith(("-wal", "-journal")) else "database"


@dataclass(slots=True)
class _Kept:
    """What the platter holds of a file, and what is still on its way there.

    `entry` tells whether the folder's entry is durable; `old` is a deleted file whose deletion is not.
    """

    durable: bytearray
    entry: bool
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    old: "_Kept | None" = None

    def sync(self) -> None:
        for write in self.pending:
            _put(self.durable, *write)
        self.pending.clear()

    def left(self, random: Random, loss: Loss) -> bytes | None:
        """The content after a power loss; None if the file is gone."""
        if not self.entry:
            gone = self.old.left(random, loss) if self.old is not None else None
            if loss == "none" or random.random() < 0.5:
                return gone
        image = bytearray(self.durable)
        for offset, data in _survivors(self.pending, random, loss):
            _put(image, offset, data)
        return bytes(image)


def _survivors(pending: list[tuple[int, bytes | None]], random: Random, loss: Loss) -> list[tuple[int, bytes | None]]:
    """The unsynced writes that reached the platter, in the order in which they did."""
    if loss == "none" or not pending:
        return []
    if loss == "torn":
        # As if the current broke while the queue was written in order: whole up to a point, and a few behind it.
        cut = random.randrange(len(pending))
        behind = [write for write in pending[cut : cut + 8] for write in _sectors(write, random)]
        return pending[:cut] + behind
    share = random.random()
    kept = [write for write in pending if random.random() < share]
    if loss == "reordered":
        random.shuffle(kept)
    return kept


def _sectors(write: tuple[int, bytes | None], random: Random) -> list[tuple[int, bytes | None]]:
    """Some of the sectors of a write."""
    offset, data = write
    if data is None:
        return [write] if random.random() < 0.5 else []
    cuts = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
    return [(offset + start, data[start:end]) for start, end in itertools.pairwise(cuts) if random.random() < 0.5]


def _put(content: bytearray, offset: int, data: bytes | None) -> None:
    """Apply a write, or (without data) a truncation to `offset` bytes."""
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class VolatileDisk(Disk):
    """A disk with a cache that forgets: only what was synced is sure to survive a power loss.

    `moment` is called before and after every operation, with its name: the places where the power may go.
    """

    def __init__(self, moment: Callable[[str], None]) -> None:
        self._moment = moment
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        super().__init__()

    def lose_power(self, random: Random, loss: Loss, folder: Path) -> bool:
        """Write what would be left into another folder; whether anything was on its way.

        Shared memory is left out: it is no file on the platter.
        """
        with self._lock:
            images = {path: kept.left(random, loss) for path, kept in self._kept.items()}
            busy = any(kept.pending for kept in self._kept.values())
        for path, image in images.items():
            if image is not None:
                (folder / Path(path).name).write_bytes(image)
        return busy

    def before(self, what: str, file: File | None, path: str, offset: int = 0, data: bytes = b"") -> None:
        if path and what == "open":
            with self._lock:
                if path not in self._kept:
                    there = Path(path).exists()
                    self._kept[path] = _Kept(bytearray(Path(path).read_bytes() if there else b""), there)
        elif path:
            self._moment(what)

    def after(self, what: str, file: File | None, path: str, offset: int = 0, data: bytes = b"") -> None:
        if not path or what == "open":
            return
        with self._lock:
            kept = self._kept.setdefault(path, _Kept(bytearray(), True))
            if what == "write":
                kept.pending.append((offset, data))
            elif what == "truncate":
                kept.pending.append((offset, None))
            elif what == "sync":
                kept.sync()
                if file is not None and file.syncs_folder:
                    # SQLite's own file system syncs the folder with the first sync of a log that it opened.
                    file.syncs_folder = False
                    self._sync_folder()
            elif what == "delete":
                # It does not wait for a deletion to be durable.
                self._kept[path] = _Kept(bytearray(), False, old=kept)
        self._moment(what)

    def _sync_folder(self) -> None:
        for path, kept in list(self._kept.items()):
            kept.old, kept.entry = None, True
            if not Path(path).exists():
                del self._kept[path]
