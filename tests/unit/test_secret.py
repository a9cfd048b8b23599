"""The secret belongs to its database: a missing or another one is refused, and never replaced without a word.

Why a table of commands and states: each command finds the secret by itself, and the one that forgets to compare makes
an installation in which no key works, or a backup that nobody can use.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from taskade_server import installation
from taskade_server.config import Config, ConfigError
from taskade_server.domain import resources
from taskade_server.store import backup
from taskade_server.store.tables import settings

from tests.support.installation import Installation

assert resources.RESOURCES, "all resources are declared by now"
KINDS = ["sqlite", "postgresql"]
OTHER = "another secret of the environment, long enough"


@pytest.fixture
def place(tmp_path, request) -> Callable[[str], Installation]:
    """An installation with an owner: `place("sqlite")`."""

    def make(kind: str) -> Installation:
        url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
        made = Installation(tmp_path / "data", url)
        made.does("keys", "list") if made.data.exists() else started(made)
        return made

    return make


def started(there: Installation) -> bytes:
    """Open the database as a server does, with a first start; the secret."""
    db, secret = installation.open_database(Config(data=there.data, database_url=there.url or None))
    with db:
        db.write_sync(lambda tx: installation.first_start(tx, secret))
    return secret


def no_longer(there: Installation) -> None:
    """The secret is gone."""
    if there.url:
        with there.open() as db:
            db.write_sync(lambda tx: settings.delete(tx, backup.SECRET))
    else:
        there.secret_file.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def short(path: Path) -> None:
    path.write_bytes(b"x" * 31)


def other(path: Path) -> None:
    path.write_bytes(b"x" * 32)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def missing(path: Path) -> None:
    path.unlink()


SPOILT = [missing, empty, short, other, folder, dangling, pipe]
COMMANDS = [("keys", "list"), ("keys", "create", "--name", "x"), ("demo",), ("audit", "export")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_without_its_secret_is_refused_and_gets_no_new_one(place, kind):
    there = place(kind)
    no_longer(there)
    for command in COMMANDS:
        said = there.refuses(*command)
        assert "secret of this database is missing" in said and "put it back" in said and "new-secret" in said
    with pytest.raises(ConfigError, match="missing"):
        started(there)
    assert not there.secret_file.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_that_noted_no_secret_yet_is_refused_without_one_too(place, kind):
    """As one that an earlier version has used."""
    there = place(kind)
    no_longer(there)
    with there.open() as db:
        db.write_sync(lambda tx: settings.delete(tx, backup.FINGERPRINT))
    assert "missing" in there.refuses("keys", "list")


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_secret_file_that_is_not_the_one_is_one_clear_line_everywhere(place, spoil, tmp_path):
    there = place("sqlite")
    spoil(there.secret_file)
    for command in COMMANDS:
        assert "secret" in there.refuses(*command)
    with pytest.raises(ConfigError, match="secret"):
        started(there)
    assert "secret" in there.refuses("backup", tmp_path / "a.backup")
    assert not (tmp_path / "a.backup").exists()
    assert list(there.check()) == ["secret"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_secret_in_the_environment_is_refused(place, kind, tmp_path):
    there = place(kind)
    for command in (*COMMANDS, ("backup", tmp_path / "a.backup")):
        assert "secret" in there.refuses(*command, environment={"TASKADE_SECRET": OTHER})
    assert "at least 32" in there.refuses("keys", "list", environment={"TASKADE_SECRET": "too short"})
    assert "at least 32" in there.refuses("backup", tmp_path / "a.backup", environment={"TASKADE_SECRET": "too short"})
    assert there.check() == {}
    there.does("backup", tmp_path / "a.backup")


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_without_the_secret_comes_back_to_wait_for_it(place, kind, tmp_path):
    there, file = place("sqlite"), tmp_path / "a.backup"
    there.does("backup", "--without-secret", file)
    here = Installation(tmp_path / "here", there.url)
    here.does("restore", file)
    assert "missing" in here.refuses("keys", "list")
    assert list(here.check()) == ["secret"]
    shutil.copy(there.secret_file, here.secret_file)
    here.does("keys", "list")
    assert here.check() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_secret_can_be_given_up(place, kind):
    there = place(kind)
    secret = backup.fingerprint(started(there))
    assert "nothing was changed" in there.refuses("new-secret")
    no_longer(there)
    there.does("new-secret")
    assert backup.fingerprint(started(there)) != secret
    assert "tsk_" in there.does("keys", "create", "--name", "anew")
    assert there.check() == {}


def test_an_earlier_version_that_noted_nothing_notes_it_at_the_next_start(place):
    there = place("sqlite")
    with there.open() as db:
        db.write_sync(lambda tx: settings.delete(tx, backup.FINGERPRINT))
    secret = started(there)
    with there.open() as db:
        assert db.read_sync(lambda tx: settings.get(tx, backup.FINGERPRINT)) == backup.fingerprint(secret)


def test_a_secret_that_is_no_hexadecimal_number_is_one_clear_line(place, tmp_path):
    there = place("postgresql")
    with there.open() as db:
        db.write_sync(lambda tx: tx.run("UPDATE settings SET value = 'zz' WHERE name = ?", (backup.SECRET,)))
    assert "damaged" in there.refuses("keys", "list")
    assert "damaged" in there.refuses("backup", tmp_path / "a.backup")


# ---- files that are not what they should be --------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [empty, short, folder, dangling], ids=lambda spoil: spoil.__name__)
def test_a_database_file_that_is_none_is_one_clear_line(place, spoil, tmp_path):
    there = place("sqlite")
    spoil(Path(there.target))
    if spoil is empty:  # as SQLite sees it, an empty database, whose tables are gone
        there.refuses("backup", tmp_path / "a.backup")
        return
    for command in (("keys", "list"), ("check",), ("backup", tmp_path / "a.backup")):
        there.refuses(*command)


@pytest.mark.parametrize("spoil", [empty, short, folder, dangling, pipe, missing], ids=lambda spoil: spoil.__name__)
def test_a_backup_file_that_is_none_is_one_clear_line(place, spoil, tmp_path):
    there, file = place("sqlite"), tmp_path / "a.backup"
    there.does("backup", file)
    spoil(file)
    here = Installation(tmp_path / "here")
    here.refuses("restore", file)
    assert not Path(here.target).exists()


def test_a_backup_follows_no_link(place, tmp_path):
    there, victim, file = place("sqlite"), tmp_path / "victim", tmp_path / "a.backup"
    victim.write_text("precious")
    partial = tmp_path / "a.backup.partial"
    for make in (partial.symlink_to, partial.hardlink_to):
        make(victim)
        assert "in the way" in there.refuses("backup", file)
        assert "in the way" in there.refuses("backup", "--force", file)
        partial.unlink()
    partial.mkdir()
    assert "in the way" in there.refuses("backup", file)
    partial.rmdir()
    file.symlink_to(victim)
    assert "exists already" in there.refuses("backup", file)
    assert "is a link" in there.refuses("backup", "--force", file)
    file.unlink()
    file.symlink_to(tmp_path / "nothing")
    assert "exists already" in there.refuses("backup", file)
    assert victim.read_text() == "precious" and not (tmp_path / "nothing").exists()
