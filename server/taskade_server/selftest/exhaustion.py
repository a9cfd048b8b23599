"""Part `exhaustion`: a disk that is full, no file descriptors left, a reader that never lets go.

Why nobody restarts the server here: what is short comes back by itself, and so must the server.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from taskade_server.selftest.checker import Checker, heads
from taskade_server.selftest.client import Answer, HttpClient
from taskade_server.selftest.host import FILE
from taskade_server.selftest.installation import prepare
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server
from taskade_server.selftest.writing_clients import WRITERS, WritingClients
from taskade_server.store.database import connect

SECONDS: Final = 30.0
# The server stops writing when 16 MiB are left.
DISK_MIB: Final = 28
DESCRIPTORS: Final = 64
CONNECTIONS: Final = 100
READS: Final = (
    "/v1/tasks?limit=50",
    "/v1/tasks?sort=-name&limit=100&count=true",
    "/v1/tasks?q=w0&limit=20",
    "/v1/projects",
)


class Scene:
    """A server short of something, its writers, and a reader. `wrong` collects what must not happen."""

    def __init__(self, server: Server, clients: WritingClients, reader: HttpClient, title: str) -> None:
        self.server = server
        self.clients = clients
        self.wrong: list[str] = []
        self._title = title
        self._reader = reader

    def until(self, what: str, reached: Callable[[], bool], seconds: float = SECONDS) -> bool:
        """Wait; to wait in vain is wrong."""
        limit = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > limit or not self.server.alive:
                self.wrong.append(f"{self._title}: {what}: not within {seconds:.0f} s: {self.server.said()[-1500:]}")
                return False
            time.sleep(0.02)
        return True

    def ask(self, path: str) -> Answer:
        """One read, whatever becomes of it."""
        return self._reader.ask("GET", path)

    def refuses_writes(self) -> bool:
        """Wait until writes are refused."""
        before = self.clients.tally.counts["refused"]
        return self.until("writes are refused", lambda: self.clients.tally.counts["refused"] > before + 8)

    def writes_again(self) -> bool:
        """Wait until writes are acknowledged again."""
        before = self.clients.acknowledged
        return self.until("writes are acknowledged again", lambda: self.clients.acknowledged > before + 8)

    def read(self, rounds: int = 5) -> int:
        """Reads, all of which have to succeed; how many."""
        for path in READS * rounds:
            answer = self._reader.ask("GET", path)
            if answer.status != 200:
                self.wrong.append(f"{self._title}: GET {path} was answered {answer.status} {answer.body[:200]!r}")
        return len(READS) * rounds


@contextmanager
def _scene(
    title: str, report: Report, server: Server, checker: Checker, options: Options, writers: int = WRITERS
) -> Iterator[Scene]:
    """A running server and its clients; at the end what the clients were promised is compared."""
    clients = WritingClients(server, checker, options.seed, writers=writers)
    with HttpClient(server.port, server.key) as reader:
        scene = Scene(server, clients, reader, title)
        try:
            server.start()
            clients.start()
            scene.until("writes are acknowledged", lambda: clients.acknowledged > 20)
            yield scene
        finally:
            clients.stop()
            server.kill()
    report.faults += scene.wrong + clients.close()
    options.say(title)


# ---- a full disk -----------------------------------------------------------------------------------------------------


def _private_mount() -> Sequence[str] | None:
    """The beginning of a command that runs another one where it may mount a disk that nobody else sees."""
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        probe = [*command, "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return None


def _full_disk(options: Options, report: Report) -> None:
    """Write until writes are refused, fill the rest, start anew on the full disk, then make room."""
    mount = _private_mount()
    if mount is None:
        report.notes.append("full disk: left out, since this user may not mount a small one (Linux with unshare).")
        return
    with folder("full") as directory:
        key = prepare(directory, say=options.say)
        (directory / "data").rename(directory / "fresh")
        (directory / "data").mkdir()
        script = f'mount -t tmpfs -o size={DISK_MIB}m none "$0/data" && cp -a "$0/fresh/." "$0/data/" && exec "$@"'
        server = Server(directory, key, wrap=[*mount, "sh", "-c", script, str(directory)])
        with connect(directory / "fresh" / FILE) as db:
            checker = Checker(directory / "copy" / FILE, db.read_sync(heads))
        with _scene("full disk", report, server, checker, options) as scene:
            report.figures |= _fill(scene)
            scene.clients.stop()
            _copy_out(server, directory / "copy")


def _fill(scene: Scene) -> dict[str, int | float | str]:
    clients, server = scene.clients, scene.server
    ballast = _seen_from_outside(server) / "ballast"
    # So suddenly that the server cannot see it coming, and its next commit fails.
    _fill_up(ballast)
    scene.refuses_writes()
    reads = scene.read()
    ballast.unlink()
    scene.writes_again()
    # Slowly, by its own writes, so that it stops in time; then the rest.
    scene.refuses_writes()
    reads += scene.read()
    _fill_up(ballast)
    reads += scene.read()
    # It replaces itself: that it has to write nothing for that is what is tried here.
    before = server.incarnations
    os.kill(server.pid, signal.SIGHUP)
    scene.until("it replaces itself on a full disk", lambda: server.incarnations > before)
    scene.until("it answers on a full disk", lambda: scene.ask("/v1/projects").status == 200)
    reads += scene.read()
    ballast.unlink()
    scene.writes_again()
    return {"full disk: reads meanwhile": reads, "full disk: writes refused": clients.tally.counts["refused"]}


def _fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def _seen_from_outside(server: Server) -> Path:
    """The data folder as the server sees it."""
    return Path(f"/proc/{server.pid}/root{server.data}")


def _copy_out(server: Server, target: Path) -> None:
    """Copy the database out of the server's own disk, while nothing happens to it."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        target.mkdir()
        for name in (FILE, f"{FILE}-wal"):
            shutil.copy(_seen_from_outside(server) / name, target / name)
    finally:
        os.kill(server.pid, signal.SIGCONT)


# ---- no descriptors --------------------------------------------------------------------------------------------------


def _no_descriptors(options: Options, report: Report) -> None:
    """Many idle connections to a server that may open few files; whoever is in goes on, and the others come later."""
    with folder("files") as directory:
        key = prepare(directory, say=options.say)
        server = Server(directory, key, wrap=["sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh"])
        checker = Checker(server.data / FILE)
        checker.begin()
        with _scene("no file descriptors", report, server, checker, options) as scene, ExitStack() as stack:
            idle = [stack.enter_context(_connection(server.port)) for _ in range(CONNECTIONS)]
            scene.clients.wait(3.0 if options.long else 1.0)
            for connection in idle:
                connection.close()
            scene.writes_again()
            scene.read(1)
            scene.clients.stop()
            scene.clients.reckon(whole=True)
        report.figures["no file descriptors: idle connections"] = CONNECTIONS


@contextmanager
def _connection(port: int) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
        yield connection


# ---- a reader that never ends ----------------------------------------------------------------------------------------


def _held_reader(options: Options, report: Report) -> None:
    """A read transaction that stays open keeps the log from beginning anew; nothing else, and only so long."""
    seconds = 60.0 if options.long else 2.0
    with folder("held") as directory:
        key = prepare(directory, say=options.say)
        server = Server(directory, key, with_faults=True)  # for its frequent checkpoints
        checker = Checker(server.data / FILE)
        checker.begin()
        # One writer is enough: in a minute the log of all four would outgrow many a disk.
        with _scene("a held reader", report, server, checker, options, writers=1) as scene:
            wal = server.data / f"{FILE}-wal"
            with closing(apsw.Connection(str(server.data / FILE))) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM tasks").fetchall()
                before = _generation(wal)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    scene.read(1)
                    scene.clients.wait(0.2)
                scene.writes_again()
                size = wal.stat().st_size
                # At most once: the reader needs nothing of a log that had been moved completely when it began.
                if _generation(wal) - before > 1:
                    scene.wrong.append("a held reader: the log began anew under it")
                before = _generation(wal)
            scene.until("the log begins anew", lambda: _generation(wal) > before)
            scene.clients.stop()
            refused = scene.clients.tally.counts["refused"]
            if refused:
                scene.wrong.append(f"a held reader: {refused} writes were refused")
            scene.clients.reckon(whole=True)
        report.figures |= {
            "held reader: seconds": seconds,
            "held reader: log grew to (MiB)": round(size / (1 << 20), 1),
        }


def _generation(wal: Path) -> int:
    """How often the log has begun anew: a number in its header."""
    with wal.open("rb") as file:
        return int.from_bytes(file.read(16)[12:], "big")


TRIALS: Final = (_full_disk, _no_descriptors, _held_reader)


def run(options: Options) -> Report:
    """One after the other."""
    report = Report("exhaustion")
    for trial in TRIALS:
        trial(options, report)
    return report
