"""What the selftest has taught: a full disk, locks that were given up by mistake, a secret that was half there."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import apsw
import pytest
from taskade_server import config, installation
from taskade_server.config import Config, ConfigError
from taskade_server.engine import check
from taskade_server.http.admission import connections
from taskade_server.selftest.faults import FailingDisk, Fault
from taskade_server.selftest.host import FILE, Host
from taskade_server.selftest.installation import prepare
from taskade_server.store.database import OutcomeUnknown, StorageFull, Unavailable
from taskade_server.store.sqlite import writer
from taskade_server.store.tables import last_used

# Who asks the system for SQLite's lock on a database gets it only if nobody has it.
TAKE_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
"""


def is_locked(path) -> bool:
    return (
        subprocess.run([sys.executable, "-c", TAKE_LOCK, str(path)], capture_output=True, check=False).returncode != 0
    )


@pytest.fixture
def full(monkeypatch):
    """A disk that is full whenever one says so."""
    disk = SimpleNamespace(free=1 << 40)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    monkeypatch.setattr(writer, "SPACE_CHECK_SECONDS", 0.0)
    return disk


def test_a_server_comes_up_on_a_full_disk(tmp_path, full):
    """It has nothing to write then, so it must not try to: reading goes on."""
    prepare(tmp_path, say=lambda line: None)
    full.free = 0
    db, secret = installation.open_database(Config(data=tmp_path / "data"))
    with db:
        assert installation.first_key(db, secret) is None
        assert db.read_sync(lambda tx: tx.one("SELECT count(*) FROM users")) == (1,)
        with pytest.raises(StorageFull):
            db.write_sync(lambda tx: last_used.note(tx, "key_1", 1))
        full.free = 1 << 40
        db.write_sync(lambda tx: last_used.note(tx, "key_1", 1))


def test_a_full_disk_gets_back_what_the_log_holds(tmp_path, full):
    """The log's file is kept for what comes next; when nothing can come any more, its room is worth more."""
    host = Host(tmp_path).open()
    with host.db as db:

        def many(tx):
            for n in range(2000):
                last_used.note(tx, f"key_{n}" + "x" * 1000, n)

        db.write_sync(many)
        wal = tmp_path / f"{FILE}-wal"
        assert wal.stat().st_size > writer.RECLAIM_BYTES
        full.free = 0
        with pytest.raises(StorageFull):
            db.write_sync(lambda tx: last_used.note(tx, "key_1", 1))
        assert wal.stat().st_size == 0
        full.free = 1 << 40
        db.write_sync(lambda tx: last_used.note(tx, "key_1", 1))
        assert db.read_sync(lambda tx: tx.one("SELECT count(*) FROM last_used")) == (2001,)


def test_looking_for_idle_connections_leaves_the_locks_of_the_database_alone(tmp_path):
    """To close any descriptor of a file gives up all the locks a process has on it, and then another process takes the
    database for unused and deletes the log that this one goes on writing to.
    """
    host = Host(tmp_path).open()
    with host.db, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0]:
            assert is_locked(tmp_path / FILE)
            trimmer = connections.Trimmer(port, 0, lambda: frozenset())
            trimmer.trim()
            assert trimmer.trimmed == 1 and client.recv(1) == b""
            assert is_locked(tmp_path / FILE)
    assert not is_locked(tmp_path / FILE)


def test_opening_a_database_twice_leaves_the_locks_of_the_first_alone(tmp_path):
    host = Host(tmp_path).open()
    with host.db:
        Host(tmp_path).open().close()
        assert is_locked(tmp_path / FILE)


def test_work_that_was_done_in_vain_is_not_reported_as_done(tmp_path):
    """The disk fails in another thread's commit, while this unit waits for the writer."""
    db = Host(tmp_path).open().db

    def unit(tx):
        last_used.note(tx, "key_1", 1)
        assert db._writes is not None
        db._writes._stop([], apsw.IOError("the disk does not answer"))

    with db, pytest.raises(Unavailable):
        db.write_sync(unit)
    with Host(tmp_path).open().db as again:
        assert again.read_sync(lambda tx: tx.all("SELECT * FROM last_used")) == []


def test_a_commit_that_failed_is_not_counted(tmp_path):
    disk = FailingDisk(Fault("sync", "wal", "EIO", apsw.SQLITE_IOERR_FSYNC, True), 1)
    host = Host(tmp_path, vfs=disk.name).open()
    before = host.db.stats()
    disk.armed = True
    with pytest.raises(OutcomeUnknown):
        host.db.write_sync(lambda tx: last_used.note(tx, "key_1", 1))
    assert disk.fired
    after = host.db.stats()
    for name in ("sqlite_commits_total", "sqlite_units_total", "sqlite_commit_seconds_total"):
        assert after[name] == before[name]
    host.close()


def test_a_document_that_cannot_be_read_is_reported(tmp_path):
    """A check is for damaged databases, so nothing it finds may make it fail."""
    host = Host(tmp_path).open()
    with host.db as db:
        assert db.read_sync(check.damage) == []
        db.write_sync(lambda tx: tx.run("UPDATE templates SET doc = substr(doc, 1, 300) || char(0) WHERE n = 1"))
        db.write_sync(lambda tx: tx.run("UPDATE templates SET doc = '[]' WHERE n = 2"))
        found = db.read_sync(check.damage)
    assert "row 1 of templates has a document that cannot be read" in found
    assert "row 2 of templates has a document that cannot be read" in found


def test_a_disk_that_fails_while_the_database_is_closed_loses_nothing(tmp_path, caplog):
    """What the log holds need not have been moved: the next start finds it there."""
    disk = FailingDisk(Fault("sync", "wal", "EIO", apsw.SQLITE_IOERR_FSYNC, True), 1)
    host = Host(tmp_path, vfs=disk.name).open()
    disk.armed = True
    host.close()
    assert disk.fired and "not closed in good order" in caplog.text
    again = Host(tmp_path, key=host.key).open()
    assert again.db.read_sync(check.replay) == []
    again.close()


def test_the_secret_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    """A process that is killed while it makes one must not leave an empty file, which no server would start with."""
    path = tmp_path / "secret.key"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space"):
            config.file_secret(path)
    assert not path.exists()
    secret = config.file_secret(path)
    assert len(secret) == 32 and config.file_secret(path) == secret
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]
