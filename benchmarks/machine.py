"""Knows the machine: its cores, what a process tree uses of it, and the facts a reader needs beside a figure.

Servers run on one core and the load generator on another, so that no peer can win by taking the other's time. On a
machine with a single core, or without Linux's interfaces, everything shares what there is and the report says so.
"""

import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK") if PROC.exists() else 100
PACKAGES = ("granian", "uvloop", "msgspec", "apsw")


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


_CORES = _allowed()
PINNED = len(_CORES) > 1
SERVER_CORES = frozenset(_CORES[:1])
CLIENT_CORES = frozenset(_CORES[1:2] if PINNED else _CORES[:1])


@contextmanager
def _on(cores: Iterable[int]) -> Iterator[None]:
    """Children inherit the affinity of the thread that starts them, without a moment on the wrong core."""
    if not PINNED:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def share_cores() -> None:
    """Let everything run anywhere, for servers of several processes."""
    global PINNED
    PINNED = False


def join_clients() -> None:
    """Put this program itself on the clients' core, so that filling a server does not take the server's time."""
    if PINNED:
        os.sched_setaffinity(0, CLIENT_CORES)


def spawn(command: list[str], *, cwd: Path, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server on the servers' core; what it prints goes to a file."""
    with _on(SERVER_CORES), log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def run_client(command: list[str], stdin: bytes) -> bytes:
    """Run a load generator on the clients' core to its end, and return what it printed."""
    with _on(CLIENT_CORES):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = process.communicate(stdin)
    if process.returncode:
        raise RuntimeError("the load generator failed; its message is above")
    return output


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as its operator would; insist after ten seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# ------------------------------------------------------------------------------------------- what is used


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for children in (PROC / str(pid) / "task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def memory(root: int) -> int | None:
    """Resident bytes of a process and its descendants; None where /proc is missing."""
    if not PROC.exists():
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int((PROC / str(pid) / "statm").read_text().split()[1]) * page for pid in _tree(root))


def cpu_seconds(root: int) -> float:
    """Processor time that a process and its descendants have used."""
    if not PROC.exists():
        return 0.0
    stats = [(PROC / str(pid) / "stat").read_text().rpartition(")")[2].split() for pid in _tree(root)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def busy_seconds(cores: Iterable[int]) -> float:
    """Processor time that anybody has used, or another machine has taken, on these cores."""
    if not PROC.exists():
        return 0.0
    names = {f"cpu{core}" for core in cores}
    lines = [line.split() for line in (PROC / "stat").read_text().splitlines()]
    return sum(int(line[i]) for line in lines if line[0] in names for i in (1, 2, 3, 8)) / TICKS


# ------------------------------------------------------------------------------------------- what it is


@dataclass(frozen=True)
class Facts:
    """What decides the figures of this machine. Never its name, a path or an address."""

    system: str
    processor: str
    cores: int
    pinned: bool
    memory_gb: float | None
    filesystem: str
    fsync_us: float
    python: str
    packages: dict[str, str]


def facts(directory: Path) -> Facts:
    return Facts(
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        processor=_processor(),
        cores=len(_CORES) or os.cpu_count() or 1,
        pinned=PINNED,
        memory_gb=_memory(),
        filesystem=_filesystem(directory),
        fsync_us=_fsync(directory),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages={name: version for name in PACKAGES if (version := _version(name))},
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = PROC / "cpuinfo"
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _filesystem(directory: Path) -> str:
    """The file system's type: on one in memory (tmpfs) an fsync is free, and creating looks better than it is."""
    mounts = PROC / "self" / "mounts"
    if not mounts.exists():
        return "unknown"
    best = ("", "unknown")
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if directory.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _fsync(directory: Path) -> float:
    """The median time to make 4 KiB durable, in microseconds."""
    probe = directory / "fsync.probe"
    times = []
    file = os.open(probe, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(100):
            os.write(file, bytes(4096))
            started = time.perf_counter()
            os.fsync(file)
            times.append(time.perf_counter() - started)
    finally:
        os.close(file)
        probe.unlink()
    return round(statistics.median(times) * 1e6)


def script(name: str) -> str | None:
    """A program that a package has put beside this Python, or that is on PATH."""
    beside = Path(sys.executable).parent
    for folder in (str(beside), *os.environ.get("PATH", "").split(os.pathsep)):
        if os.access(path := Path(folder) / name, os.X_OK) and path.is_file():
            return str(path)
    return None
