"""Backups: one sealed file, whichever database it comes from and whichever it goes to.

Why an SQLite file with the usual schema: it is the one form in which all of it can be verified, migrated and read, so
that a backup is proven sound before it gets its name, and again before it replaces anything. It holds the
installation's secret, too: without that no API key would work after a restore.
"""

import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

import apsw

from taskade_server.kit.budget import UNLIMITED
from taskade_server.store import schema, transfer
from taskade_server.store.database import connect, is_postgresql
from taskade_server.store.interface import Corrupt, Database, StorageFull, StoreError, Tx
from taskade_server.store.sqlite.database import SqliteDatabase
from taskade_server.store.sqlite.transaction import SqliteTx, translate
from taskade_server.store.sqlite.writer import RESERVED_BYTES
from taskade_server.store.transfer import Progress, Words

# The header of an SQLite file has two fields for its application: one says that it is a backup of ours, the other
# holds the checksum of all the rest. A flipped bit inside a value would pass every check that SQLite makes.
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
CHECKSUM = slice(60, 64)
APPLICATION = slice(68, 72)
APPLICATION_ID = int.from_bytes(b"Tsk1")

STEP_PAGES = 2000
BUSY_MS = 10_000
CHUNK = 1 << 20
# Rows of the table `settings`: where PostgreSQL keeps the secret, and what a backup says about itself.
SECRET = "secret"
LABEL = "backup"
# Which secret a database is used with, as a fingerprint: noted at the first start, and carried along by backups.
FINGERPRINT = "secret_fingerprint"
STAGING = ".restoring"

Damage = Callable[[Tx], Sequence[str]]
"""Looks at a whole database; its faults in plain words."""
Renew = Callable[[Database, Progress], bool]
"""Brings what the rows are found and sorted by up to date after a migration; whether there was anything to do."""


class Refused(StoreError):
    """A backup or a restore cannot be done as it was asked for; nothing was changed."""


@dataclass(frozen=True)
class Contents:
    """What a backup holds. `secret` is a fingerprint of the installation's secret, "" if that is unknown."""

    made_at: str
    source: str
    schema: str
    rows: dict[str, int]
    heads: dict[str, int]
    has_secret: bool
    secret: str


def fingerprint(secret: bytes | None) -> str:
    """Tells whether two secrets are the same, without telling them."""
    return hmac.digest(secret, b"taskade backup", hashlib.sha256).hex()[:16] if secret else ""


# ---- making one ------------------------------------------------------------------------------------------------------


def save(
    source: str | Path,
    file: Path,
    *,
    secret_file: Path,
    given: bytes | None,
    with_secret: bool,
    damage: Damage,
    force: bool,
    progress: Progress,
) -> Contents:
    """Back up a database, while others write to it; the file appears under its name once it is proven sound.

    The secret is taken from `secret_file`, or from PostgreSQL; a `given` one is kept by those who gave it.
    """
    if os.path.lexists(file) and not force:
        raise Refused(f"{file} exists already: choose another name, or replace it with --force.")
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise Refused(f"{file} is a link, a folder or the like: choose the name of a file.")
    with _plain_errors(), _partial(file) as partial:
        if is_postgresql(source):
            _copy_rows(str(source), partial, progress)
        else:
            _copy_pages(Path(source), partial, progress)
        with _open(partial) as copy:
            secret = given or _secret_of(copy, None if is_postgresql(source) else secret_file)
            _refuse_wrong_secret(copy, secret, needed=with_secret)
            kept = secret if with_secret and not given else None
            contents = copy.write_sync(
                lambda tx: _label(tx, "PostgreSQL" if is_postgresql(source) else "SQLite", secret, kept)
            )
            progress("verifying", 0, 0)
            _refuse_damage(copy, damage, "No backup was made, because the database is damaged")
        _seal(partial)
        if os.path.lexists(file) and not force:
            raise Refused(f"{file} exists already: it was made meanwhile.")
        os.replace(partial, file)
        _sync(file.parent)
    return contents


@contextmanager
def _partial(file: Path) -> Iterator[Path]:
    """An empty file beside the wanted one; whatever happens, it is gone afterwards, or has become that one."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        # What lies there is emptied: a link to somebody's file, symbolic or hard, is not.
        descriptor = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise Refused(f"{partial} is in the way and is not a file of ours: remove it.") from error
        raise
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            raise Refused(f"{partial} is in the way and is not a file of ours: remove it.")
        _claim(descriptor, file)
        for path in _files(partial)[1:]:  # of a run that was killed
            path.unlink(missing_ok=True)
        os.truncate(descriptor, 0)
        os.fchmod(descriptor, 0o600)
        try:
            yield partial
        finally:
            for path in _files(partial):
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _copy_pages(source: Path, target: Path, progress: Progress) -> None:
    size, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if free - size < RESERVED_BYTES:
        raise StorageFull(f"{target.parent} has {free >> 20} MiB left, and the backup needs {size >> 20} MiB.")
    flags = apsw.SQLITE_OPEN_READWRITE
    try:
        with closing(apsw.Connection(str(source), flags=flags)) as reader, closing(apsw.Connection(str(target))) as out:
            reader.set_busy_timeout(BUSY_MS)
            out.execute("PRAGMA synchronous = OFF").fetchall()
            # One snapshot for all steps: without it each commit of the server would make the copy begin anew.
            reader.execute("BEGIN")
            _versions(SqliteTx(reader.cursor(), writable=False))
            with out.backup("main", reader, "main") as copy:
                while not copy.done:
                    copy.step(STEP_PAGES)
                    progress("copying pages", copy.page_count - copy.remaining, copy.page_count)
    except apsw.Error as error:
        raise translate(error, source) from error


def _copy_rows(url: str, target: Path, progress: Progress) -> None:
    known = schema.shipped()

    def unit(tx: Tx) -> None:
        with _open(target) as copy:
            schema.migrate(copy, known[: _versions(tx)])
            tables = copy.read_sync(transfer.tables)
            transfer.from_postgresql(tx, copy.write_sync, tables, progress)

    with connect(url, patient=True) as source:
        source.read_sync(unit, snapshot=True)


def _versions(tx: Tx) -> int:
    """How many of this program's migrations a database has."""
    past = schema.past(tx)
    schema.check(past, schema.shipped())
    if not past:
        raise Refused("There is nothing to back up: the database has no tables of this program yet.")
    return len(past)


def _seal(file: Path) -> None:
    """Make it one file, whose header tells whether each of its bytes is as it was written."""
    with closing(apsw.Connection(str(file))) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 0").fetchall()
    checksum = _checksum(file)
    with file.open("r+b") as out:
        out.seek(CHECKSUM.start)
        out.write(checksum)
    _sync(file)


# ---- bringing one back -----------------------------------------------------------------------------------------------


def restore(
    file: Path,
    target: str | Path,
    *,
    secret_file: Path,
    words: Words,
    damage: Damage,
    renew: Renew,
    force: bool,
    move: bool = False,
    progress: Progress,
) -> Contents:
    """Bring a backup back, into an empty place. With `force` an SQLite database that is there is kept aside.

    With `move` it is the last state of its installation, so that no client can know of anything later. Otherwise a new
    generation begins, so that what clients know of the lost future is not taken for the new one.
    Nothing is touched before the backup is unpacked, migrated to this program's schema and proven sound.
    """
    with _plain_errors():
        _examine(file)
        if is_postgresql(target):
            return _into_postgresql(file, str(target), words, damage, renew, move, progress)
        return _into_sqlite(file, Path(target), secret_file, damage, renew, force, move, progress)


def _examine(file: Path) -> None:
    """Refuse what is no backup, a damaged one, and one of a newer program."""
    if file.exists() and not file.is_file():
        raise Refused(f"{file} is not a file: name a backup made by `taskade backup`.")
    with file.open("rb") as data:
        header = data.read(HEADER_BYTES)
    if not header.startswith(MAGIC) or header[APPLICATION] != APPLICATION_ID.to_bytes(4):
        raise Refused(f"{file} is not a backup made by `taskade backup`.")
    if header[CHECKSUM] != _checksum(file):
        raise Corrupt(f"{file} is damaged or incomplete (its checksum is wrong): use another backup.")
    name = f"file:{quote(str(file.absolute()))}?immutable=1"
    try:
        with closing(apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as connection:
            schema.missing(SqliteTx(connection.cursor(), writable=False))
    except apsw.Error as error:
        raise translate(error, file) from error


def _unpack(
    file: Path, staging: Path, damage: Damage, renew: Renew, move: bool, progress: Progress
) -> tuple[Contents, bytes | None]:
    """A copy of the backup as a database of this program's version, sound, and without its secret; and the secret."""
    progress("unpacking", 0, 0)
    shutil.copyfile(file, staging)
    staging.chmod(0o600)
    with _open(staging) as db:
        migrated = bool(schema.migrate(db))
        contents, secret = db.write_sync(_unlabel)
        migrated = renew(db, progress) or migrated
        progress("verifying", 0, 0)
        _refuse_damage(db, damage, f"Nothing was restored, because {file} is damaged")
        found = db.read_sync(_rows, snapshot=True)
    if not migrated and found != contents.rows:
        raise Corrupt(f"Nothing was restored, because {file} does not hold what its label says.")
    if not move:
        with _open(staging) as db:
            db.write_sync(_begin_generation)
    return replace(contents, rows=found), secret


def _into_sqlite(
    file: Path,
    target: Path,
    secret_file: Path,
    damage: Damage,
    renew: Renew,
    force: bool,
    move: bool,
    progress: Progress,
) -> Contents:
    folder = target.parent
    staging = folder / STAGING
    with _claimed(folder):
        if target.exists() and not force:
            raise Refused(f"{folder} holds a database: choose another folder, or keep the old one aside with --force.")
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        staging.mkdir(mode=0o700)
        try:
            contents, secret = _unpack(file, staging / target.name, damage, renew, move, progress)
            old = secret_file.read_bytes() if secret_file.exists() else None
            if secret and old not in (None, secret) and not force:
                raise Refused(f"{secret_file} is another secret than the backup's: keep it aside with --force.")
            if secret:
                _write_secret(staging / secret_file.name, secret)
            _sync(staging / target.name)
            _sync(staging)
            if any(path.exists() for path in _files(target)) or (secret and old not in (None, secret)):
                _set_aside(target, secret_file)
            if secret:
                os.replace(staging / secret_file.name, secret_file)
            os.replace(staging / target.name, target)
            _sync(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return contents


def _set_aside(target: Path, secret_file: Path) -> None:
    """Keep the database that is there, whole, in a folder of its own with its secret."""
    name = time.strftime("before-restore-%Y%m%dT%H%M%SZ", time.gmtime())
    taken = len([*target.parent.glob(f"{name}*")])  # by a restore of the same second that was ended
    aside = target.parent / (f"{name}-{taken + 1}" if taken else name)
    aside.mkdir(mode=0o700)
    database, *journals = _files(target)
    journals = [path for path in journals if path.exists()]
    for path in journals:
        os.link(path, aside / path.name)
    try:
        at_rest = _bring_to_rest(target)
    except BaseException:
        shutil.rmtree(aside)
        raise
    for path in journals:  # beside the new database they would spoil it
        path.unlink(missing_ok=True)
        if at_rest:
            (aside / path.name).unlink()
    for path in (database, secret_file):
        if path.exists():
            os.link(path, aside / path.name)  # so that there is no moment without a database
    _sync(aside)


def _bring_to_rest(target: Path) -> bool:
    """Put all of a database into its one file. Refused while somebody uses it: they would go on writing there."""
    if not target.exists():
        return False
    try:
        with closing(apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.set_busy_timeout(1000)
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except (apsw.BusyError, apsw.LockedError) as error:
        raise Refused(f"A server uses {target}: stop it first.") from error
    except apsw.Error:
        return False  # it is damaged, which may be why it is to be replaced: keep it as it is
    return True


def _files(database: Path) -> list[Path]:
    """A database, and what SQLite may have beside it."""
    return [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


def _into_postgresql(
    file: Path, url: str, words: Words, damage: Damage, renew: Renew, move: bool, progress: Progress
) -> Contents:
    beside = file.parent if os.access(file.parent, os.W_OK) else None
    with (
        connect(url, patient=True) as db,
        tempfile.TemporaryDirectory(prefix=".taskade-restore-", dir=beside) as folder,
    ):
        db.read_sync(_refuse_occupied)
        contents, secret = _unpack(file, Path(folder) / "taskade.db", damage, renew, move, progress)
        schema.migrate(db)

        def fill(source: Tx, target: Tx) -> None:
            tables = transfer.tables(source)
            transfer.lock_postgresql(target, tables)
            _refuse_occupied(target)
            transfer.into_postgresql(source, target, tables, words, progress)
            _put(target, SECRET, secret.hex() if secret else None)
            progress("verifying", 0, 0)
            if faults := damage(target):
                raise Corrupt(f"Nothing was restored, because the copy differs: {faults[0]}.")

        with _open(Path(folder) / "taskade.db") as unpacked:
            unpacked.read_sync(lambda source: db.write_sync(lambda target: fill(source, target)), snapshot=True)
    return contents


def _refuse_occupied(tx: Tx) -> None:
    if names := transfer.occupied(tx):
        raise Refused(
            f"The PostgreSQL database is not empty (there are rows in {names[0]}): make a new one with createdb. "
            "Nothing that is there is ever removed."
        )


# ---- what both need --------------------------------------------------------------------------------------------------


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What the system refuses, in one line."""
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else Refused
        raise kind(f"{error.filename or 'The disk'}: {error.strerror}.") from error


@contextmanager
def _open(path: Path) -> Iterator[SqliteDatabase]:
    """A file that nobody else uses yet: it need not survive a power cut, and its queries may take their time."""
    with SqliteDatabase(path, synchronous="normal", read_steps=UNLIMITED) as db:
        # Deleted rows would leave their bytes behind, a secret that is not to be kept among them.
        db.write_sync(lambda tx: tx.script("PRAGMA secure_delete = ON"))
        yield db


def _label(tx: Tx, source: str, secret: bytes | None, kept: bytes | None) -> Contents:
    """Note in the copy what it is; `kept` is the secret that it is to hold."""
    _put(tx, SECRET, kept.hex() if kept else None)
    version, name, _ = schema.past(tx)[-1]
    contents = Contents(
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        source=source,
        schema=f"{version:04}_{name}",
        rows=_rows(tx),
        heads=dict(tx.all("SELECT workspace_id, seq FROM log_heads")),
        has_secret=kept is not None,
        secret=fingerprint(secret) or _setting(tx, FINGERPRINT),
    )
    _put(tx, LABEL, json.dumps(asdict(contents)))
    return contents


def _unlabel(tx: Tx) -> tuple[Contents, bytes | None]:
    """Take out what only a backup has."""
    tx.script("PRAGMA application_id = 0; PRAGMA user_version = 0")
    settings: dict[str, str] = dict(tx.all("SELECT name, value FROM settings"))
    _put(tx, LABEL, None)
    _put(tx, SECRET, None)
    try:
        contents, secret = Contents(**json.loads(settings[LABEL])), bytes.fromhex(settings.get(SECRET, "")) or None
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt("The backup's label cannot be read: use another backup.") from error
    if contents.secret and FINGERPRINT not in settings:
        _put(tx, FINGERPRINT, contents.secret)
    return contents, secret


def _begin_generation(tx: Tx) -> None:
    """Make sure that no number of the lost future comes again: versions and the count of rights go on higher.

    The numbers of events cannot jump, as the log has no gaps; their positions name the generation instead. The first
    delivery of each webhook has no previous event, which tells its receiver that the chain starts again.
    """
    known: dict[str, int] = dict(tx.all("SELECT name, value FROM counters WHERE name IN ('grants', 'generation')"))
    # In microseconds: no object can have changed as often as they went by, and no two restores begin in the same one.
    number, highest = time.time_ns() // 1000, max(known.values(), default=0)
    if number <= highest:  # by a clock that is wrong
        number = highest + 1_000_000_000 + secrets.randbelow(1_000_000)
    tx.run("DELETE FROM counters WHERE name IN ('grants', 'generation')")
    rows = [("grants", number), ("generation", number)]
    tx.many("INSERT INTO counters (name, value) VALUES (?, ?)", rows)
    tx.run("UPDATE webhook_states SET last_seq = NULL")


def _rows(tx: Tx) -> dict[str, int]:
    """How many rows each table has, but for those of the settings, which a backup adds to."""
    return {table.name: transfer.count(tx, table) for table in transfer.tables(tx) if table.name != "settings"}


def _put(tx: Tx, name: str, value: str | None) -> None:
    tx.run("DELETE FROM settings WHERE name = ?", (name,))
    if value is not None:
        tx.run("INSERT INTO settings (name, value) VALUES (?, ?)", (name, value))


def _setting(tx: Tx, name: str) -> str:
    row = tx.one("SELECT value FROM settings WHERE name = ?", (name,))
    return str(row[0]) if row else ""


def _refuse_wrong_secret(copy: Database, secret: bytes | None, *, needed: bool) -> None:
    """Refused if the secret is another one than the database was used with, or missing where it is `needed`."""
    known = copy.read_sync(lambda tx: _setting(tx, FINGERPRINT))
    if known and fingerprint(secret) != known and (needed or secret is not None):
        what = "is missing" if secret is None else "is not the one that this database was used with"
        raise Refused(f"No backup was made, because the secret {what}: put it back first.")


def _secret_of(copy: Database, secret_file: Path | None) -> bytes | None:
    """The secret as an installation keeps it: in a file beside SQLite, in a row of PostgreSQL."""
    if secret_file is not None:
        return secret_file.read_bytes() if secret_file.exists() else None
    try:
        return bytes.fromhex(copy.read_sync(lambda tx: _setting(tx, SECRET))) or None
    except ValueError as error:
        raise Refused("The row `secret` of the table `settings` is damaged: no backup was made.") from error


def _write_secret(path: Path, secret: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(secret)
        out.flush()
        os.fsync(out.fileno())


def _refuse_damage(db: Database, damage: Damage, consequence: str) -> None:
    if faults := db.read_sync(damage, snapshot=True):
        raise Corrupt(f"{consequence}: {faults[0]}{f' (and {len(faults) - 1} more)' if len(faults) > 1 else ''}.")


def _checksum(file: Path) -> bytes:
    """CRC-32 of all but the field that holds it."""
    with file.open("rb") as data:
        header = bytearray(data.read(HEADER_BYTES))
        header[CHECKSUM] = bytes(4)
        value = zlib.crc32(header)
        while chunk := data.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value.to_bytes(4)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Only one restore at a time works in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _claim(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _claim(descriptor: int, what: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"Another backup or restore works on {what}.") from None


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
