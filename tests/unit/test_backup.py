"""Backups of either database come back in either database, whole; and nothing that is unsound comes or goes.

Why every way across: a backup that was never restored is a hope, and moving from SQLite to PostgreSQL is a restore.
"""

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from taskade_server import installation
from taskade_server.config import Config
from taskade_server.domain import ordering, resources
from taskade_server.domain.tasks import TASK
from taskade_server.engine import check as checks
from taskade_server.engine import log
from taskade_server.engine.log import Change
from taskade_server.kit import ids
from taskade_server.kit import json as documents
from taskade_server.store import backup, transfer
from taskade_server.store.database import Tx
from taskade_server.store.tables import last_used

from tests.support.installation import Installation, everything, shared_tables
from tests.unit import world

assert resources.RESOURCES, "all resources are declared by now"
KINDS = ["sqlite", "postgresql"]
NewPlace = Callable[[str], Installation]


@pytest.fixture(scope="module")
def new_place(tmp_path_factory, request) -> NewPlace:
    """An empty place for an installation: `new_place("postgresql")`."""

    def make(kind: str) -> Installation:
        data = tmp_path_factory.mktemp("place") / "data"
        return Installation(data, request.getfixturevalue("postgres").create_database() if kind == "postgresql" else "")

    return make


def a_task(tx: Tx, name: str, **members: Any) -> Change:
    """A new task in the newest project."""
    row = tx.one("SELECT id, workspace_id FROM projects ORDER BY n DESC LIMIT 1")
    assert row is not None
    task_id = ids.new("task")
    place = {"project_id": row[0], "workspace_id": row[1], "position": ordering.initial(task_id)}
    return world.created(TASK, id=task_id, name=name, status="pending", **place, **members)


def fill(place: Installation) -> None:
    """What is easily lost on the way: accents, numbers, trash, a row gone for good, and one with another name now."""
    with place.open() as db:
        made = db.read_sync(some_tasks)
        docs = [documents.decode(text) for text in db.write_sync(lambda tx: log.apply(tx, world.ACTOR, made))]
        trashed, gone, renamed = docs[2:]
        changes = [
            Change(TASK, "deleted", dict(trashed), trashed, made[2].n, private={"trash_root": trashed["id"]}),
            Change(TASK, "purged", dict(gone), gone, made[3].n),
            Change(TASK, "updated", {**renamed, "name": "After", "labels": ["new"]}, renamed, made[4].n),
        ]
        db.write_sync(lambda tx: log.apply(tx, world.ACTOR, changes))
        db.write_sync(lambda tx: last_used.note(tx, docs[0]["id"], 1_700_000_000_000))


def some_tasks(tx: Tx) -> list[Change]:
    return [
        a_task(tx, "Größe, 世界 🎉 'quoted' \\ $1 ?", description="é\ttab\nline", labels=["b", "Größe"], estimate=2.5),
        a_task(tx, "", custom_fields={"n": 1, "f": 0.1, "t": "1", "l": ["x", "y"], "b": True}, estimate=3),
        a_task(tx, "To the trash"),
        a_task(tx, "For good", labels=["gone"]),
        a_task(tx, "Before", blocked_by=[]),
    ]


def a_full(place: Installation) -> Installation:
    """The same place with a secret, an owner and data of all kinds."""
    place.does("demo")
    fill(place)
    return place


@pytest.fixture(scope="module")
def full(new_place: NewPlace) -> Callable[[str], Installation]:
    """A full installation that nobody changes: `full("sqlite")`."""
    made: dict[str, Installation] = {}

    def get(kind: str) -> Installation:
        if kind not in made:
            made[kind] = a_full(new_place(kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> list[transfer.Table]:
    return shared_tables(tmp_path_factory.mktemp("shape"))


@pytest.fixture
def file(tmp_path) -> Path:
    return Path(tmp_path / "a.backup")


def secret_of(place: Installation) -> bytes:
    """The secret, as a server would find it."""
    db, secret = installation.open_database(Config(data=place.data, database_url=place.url or None))
    db.close_sync()
    return secret


# ---- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_a_backup_brings_everything_back(source, target, full, new_place, tables, file):
    there, here = full(source), new_place(target)
    before = everything(there, tables)
    said = there.does("backup", file)
    assert re.search(r"workspaces 2, projects 6, tasks 204, events \d+\n  log position ws_\w+:\d+, ", said), said
    assert file.stat().st_mode & 0o077 == 0, "it holds the secret"
    assert "tasks 204" in here.does("restore", "--move", file)
    after = everything(here, tables)
    for name in before:
        assert after[name] == before[name], name
    assert len(before["tasks"]) == 204 and len(before["words of tasks"]) > 500
    assert secret_of(here) == secret_of(there)
    assert here.check() == {}


@pytest.mark.parametrize("target", KINDS)
def test_work_goes_on_after_a_restore(target, full, new_place, file):
    """New rows get numbers of their own, and searches find them."""
    here = new_place(target)
    full("sqlite" if target == "postgresql" else "postgresql").does("backup", file)
    here.does("restore", file)
    with here.open() as db:
        newest = db.read_sync(lambda tx: tx.one("SELECT max(n) FROM tasks"))[0]
        db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [a_task(tx, "Afterwards")]))
        assert db.read_sync(lambda tx: tx.one("SELECT max(n) FROM tasks"))[0] == newest + 1
    assert here.check() == {}


def test_a_backup_is_one_moment_however_often_somebody_writes(new_place, file, monkeypatch):
    """And it comes to an end: SQLite would begin anew after each write that it notices."""
    place, writes = a_full(new_place("sqlite")), 0
    monkeypatch.setattr(backup, "STEP_PAGES", 20)
    with place.open() as db:
        before = len(db.read_sync(lambda tx: tx.all("SELECT id FROM last_used")))

        def write(what: str, done: int, total: int) -> None:
            nonlocal writes
            writes += 1
            assert writes < 1000, "it never ends"
            db.write_sync(lambda tx: last_used.note(tx, f"key_{writes}", writes))

        contents = backup.save(
            place.target,
            file,
            secret_file=place.secret_file,
            given=None,
            with_secret=True,
            damage=checks.damage,
            force=False,
            progress=write,
        )
    assert writes > 10
    assert contents.rows["last_used"] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_backup_can_be_backed_up_again(kind, full, new_place, tables, tmp_path):
    here = new_place(kind)
    full(kind).does("backup", tmp_path / "first")
    here.does("restore", "--move", tmp_path / "first")
    here.does("backup", tmp_path / "second")
    again = new_place("sqlite")
    again.does("restore", "--move", tmp_path / "second")
    assert everything(again, tables) == everything(full(kind), tables)


def test_both_databases_have_the_same_tables(new_place, tables):
    """Or a backup would silently leave out what only one of them has."""
    place = new_place("postgresql")
    place.does("upgrade")
    sql = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name <> 'schema_migrations' AND (column_name <> 'search' OR data_type <> 'tsvector')"
    )
    with place.open() as db:
        found = set(db.read_sync(lambda tx: tx.all(sql)))
    assert found == {(table.name, column) for table in tables for column in table.columns}
    assert [table.name for table in tables if not table.key] == []


# ---- the secret ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_secret_is_left_out_when_asked(kind, full, new_place, file):
    there, here = full(kind), new_place("sqlite")
    secret = secret_of(there)
    assert "not in it (it was left out)" in there.does("backup", "--without-secret", file)
    content = file.read_bytes()
    assert secret not in content and secret.hex().encode() not in content
    assert "The backup holds no secret" in here.does("restore", file)
    assert not here.secret_file.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_of_the_environment_stays_there(kind, full, new_place, file):
    there, here = new_place(kind), new_place(kind)
    given = {"TASKADE_SECRET": "kept somewhere else, in safety, by those who run it"}
    there.does("demo", environment=given)
    assert "not in it (TASKADE_SECRET)" in there.does("backup", file, environment=given)
    assert given["TASKADE_SECRET"].encode() not in file.read_bytes()
    said = here.does("restore", file, environment={"TASKADE_SECRET": "another one that is long enough as well"})
    assert "TASKADE_SECRET is not the secret of this backup" in said
    assert "secret" not in new_place(kind).does("restore", file, environment=given)


def test_the_secret_that_waits_in_the_folder_is_recognised(full, new_place, file):
    there, here = full("sqlite"), new_place("sqlite")
    there.does("backup", "--without-secret", file)
    here.data.mkdir()
    here.secret_file.write_bytes(secret_of(there))
    assert "secret" not in here.does("restore", file)
    assert secret_of(here) == secret_of(there)


def test_another_secret_is_not_overwritten_unasked(full, new_place, file):
    here = new_place("sqlite")
    full("sqlite").does("backup", file)
    here.data.mkdir()
    here.secret_file.write_bytes(b"x" * 32)
    assert "another secret" in here.refuses("restore", file)
    assert here.secret_file.read_bytes() == b"x" * 32 and not Path(here.target).exists()
    here.does("restore", "--force", file)
    assert [path.read_bytes() for path in here.data.glob("before-restore-*/secret.key")] == [b"x" * 32]


def test_a_restored_file_keeps_no_trace_of_the_secret(full, new_place, file):
    """It would be in later backups that are to be without."""
    here = new_place("sqlite")
    full("postgresql").does("backup", file)
    here.does("restore", file)
    assert secret_of(here).hex().encode() not in Path(here.target).read_bytes()


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_file_is_not_overwritten_unasked(full, file):
    file.write_text("something else")
    assert "exists already" in full("sqlite").refuses("backup", file)
    assert file.read_text() == "something else"
    full("sqlite").does("backup", "--force", file)
    assert backup.MAGIC in file.read_bytes()[:20]


@pytest.mark.parametrize("kind", KINDS)
def test_there_must_be_something_to_back_up(kind, new_place, file):
    place = new_place(kind)
    place.refuses("backup", file)
    if kind == "sqlite":
        place.data.mkdir()
        with place.open():
            pass  # a file without tables
        assert "nothing to back up" in place.refuses("backup", file)
    assert list(file.parent.iterdir()) == []


def test_a_folder_that_does_not_exist_is_one_clear_line(full, tmp_path):
    assert "No such file" in full("sqlite").refuses("backup", tmp_path / "missing" / "file")


def damaged(change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        content = bytearray(file.read_bytes())
        change(content)
        file.write_bytes(content)

    return spoil


def flip(content: bytearray) -> None:
    """One bit, inside the text of a task: SQLite would not mind."""
    content[content.index(b"To the trash")] ^= 1


def cut(share: float) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        del content[int(len(content) * share) :]

    return change


BROKEN = {
    "one bit": damaged(flip),
    "half of it": damaged(cut(0.5)),
    "all but the last byte": damaged(lambda content: content.pop()),
    "a byte too many": damaged(lambda content: content.append(0)),
    "nothing": damaged(cut(0)),
    "text": lambda file: file.write_text("not a backup " * 100),
    "no file": lambda file: file.unlink(),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_backup_is_refused(kind, how, full, new_place, file):
    full("sqlite").does("backup", file)
    BROKEN[how](file)
    here = new_place(kind)
    assert str(file) in here.refuses("restore", file)
    assert nothing_in(here)


def nothing_in(place: Installation) -> bool:
    if not place.url:
        return not place.data.exists() or list(place.data.iterdir()) == []
    with place.open() as db:
        return db.read_sync(transfer.occupied) == []


def resealed(file: Path, sql: str) -> None:
    """Change what a backup holds, as somebody would who knows how it is sealed."""
    with closing(apsw.Connection(str(file))) as connection:
        connection.execute(sql)
    backup._seal(file)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_whose_log_does_not_fit_is_refused(kind, full, new_place, file):
    full("sqlite").does("backup", file)
    resealed(file, "DELETE FROM events WHERE seq = 7")
    here = new_place(kind)
    assert "gaps" in here.refuses("restore", file)
    assert nothing_in(here)


def test_a_backup_that_holds_less_than_its_label_says_is_refused(full, new_place, file):
    full("sqlite").does("backup", file)
    resealed(file, "DELETE FROM last_used")
    here = new_place("sqlite")
    assert "label" in here.refuses("restore", file)
    assert nothing_in(here)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_of_a_newer_program_is_refused(kind, full, new_place, file):
    full("sqlite").does("backup", file)
    resealed(file, "INSERT INTO schema_migrations VALUES (9999, 'later', 0, 'x')")
    here = new_place(kind)
    assert "9999_later" in here.refuses("restore", file) and "update the program" in here.refuses("restore", file)
    assert nothing_in(here)


def test_a_database_of_a_newer_program_is_not_backed_up(new_place, file):
    place = new_place("sqlite")
    place.does("upgrade")
    with place.open() as db:
        db.write_sync(lambda tx: tx.run("INSERT INTO schema_migrations VALUES (9999, 'later', 0, 'x')"))
    assert "update the program" in place.refuses("backup", file)


def test_a_plain_copy_of_a_database_is_no_backup(full, new_place):
    here = new_place("sqlite")
    assert "not a backup" in here.refuses("restore", full("sqlite").target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_target_is_left_alone(kind, full, new_place, tables, file):
    full("sqlite").does("backup", file)
    here = a_full(new_place(kind))
    before = everything(here, tables)
    here.refuses("restore", file)
    if kind == "postgresql":
        assert "createdb" in here.refuses("restore", "--force", file)
    assert everything(here, tables) == before


def test_rows_of_somebody_else_are_noticed(full, new_place, file):
    here = new_place("postgresql")
    full("sqlite").does("backup", file)
    with here.open() as db:
        db.write_sync(lambda tx: tx.script("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)"))
    assert "orders" in here.refuses("restore", file)


def test_what_was_there_is_kept_aside(full, new_place, tables, file):
    full("sqlite").does("backup", file)
    here = a_full(new_place("sqlite"))
    before, secret = everything(here, tables), secret_of(here)
    here.does("restore", "--move", "--force", file)
    assert everything(here, tables) == everything(full("sqlite"), tables)
    [aside] = here.data.glob("before-restore-*")
    old = Installation(aside)
    assert everything(old, tables) == before and secret_of(old) == secret
    assert old.check() == {}
    assert sorted(path.name for path in here.data.iterdir()) == [aside.name, "secret.key", "taskade.db"]


def test_a_database_in_use_is_not_replaced(full, new_place, file):
    full("sqlite").does("backup", file)
    here = a_full(new_place("sqlite"))
    with here.open():
        assert "stop it first" in here.refuses("restore", "--force", file)
    assert here.check() == {} and not list(here.data.glob("before-*"))
    here.does("restore", "--force", file)


def test_a_database_beyond_repair_can_be_replaced(full, new_place, file):
    full("sqlite").does("backup", file)
    here = a_full(new_place("sqlite"))
    Path(here.target).write_bytes(b"rubbish" * 5000)
    here.data.joinpath("taskade.db-wal").write_bytes(b"more rubbish")
    here.does("restore", "--force", file)
    assert here.check() == {}
    [aside] = here.data.glob("before-restore-*")
    assert (aside / "taskade.db").read_bytes().startswith(b"rubbish")
    assert (aside / "taskade.db-wal").read_bytes() == b"more rubbish"


def test_a_log_left_behind_does_not_spoil_what_is_restored(full, new_place, tables, file):
    """SQLite would play back a log that lies beside a database, whoever it belonged to."""
    full("sqlite").does("backup", file)
    here = a_full(new_place("sqlite"))
    with here.open() as db:
        db.write_sync(lambda tx: tx.run("UPDATE tasks SET name = 'from another time'"))
        rest = Path(f"{here.target}-wal").read_bytes()
    here = new_place("sqlite")
    here.data.mkdir()
    Path(f"{here.target}-wal").write_bytes(rest)
    here.does("restore", "--move", file)
    assert everything(here, tables) == everything(full("sqlite"), tables)


# ---- damage ----------------------------------------------------------------------------------------------------------

WRONG = {
    "a row changed behind the log's back": ("tables", "UPDATE tasks SET doc = replace(doc, 'After', 'Later')"),
    "a column": ("tables", "UPDATE tasks SET estimate = 99 WHERE estimate = 3"),
    "a value": ("tables", "DELETE FROM task_values WHERE value = 'Größe'"),
    "a value of no row": ("tables", "INSERT INTO task_values VALUES ('ws_x', 'labels', 'x', NULL, 999999)"),
    "a row removed": ("tables", "DELETE FROM comments WHERE n = (SELECT min(n) FROM comments)"),
    "a row that came back": ("tables", "UPDATE events SET type = 'task.updated' WHERE type = 'task.purged'"),
    "an event in the middle": ("log", "DELETE FROM events WHERE seq = 3"),
    "the newest event": ("log", "DELETE FROM events WHERE type = 'task.purged'"),
    "a head too low": ("log", "UPDATE log_heads SET seq = seq - 1"),
    "a log without a head": ("log", "DELETE FROM log_heads"),
    "a task without its project": ("references", "DELETE FROM projects WHERE n = (SELECT max(n) FROM projects)"),
    "a schema of the future": ("schema", "INSERT INTO schema_migrations VALUES (9999, 'later', 0, 'x')"),
    "an older schema": ("schema", "DELETE FROM schema_migrations WHERE version > 1"),
}
CASES = [
    *((kind, how, *case) for kind in KINDS for how, case in WRONG.items()),
    ("sqlite", "a row that no search finds", "search", "DELETE FROM tasks_fts WHERE rowid = 3"),
    ("postgresql", "a row that no search finds", "search", "UPDATE tasks SET search = NULL WHERE n = 3"),
]


class UndoError(Exception):
    """Takes the damage back."""


@pytest.mark.parametrize(("kind", "how", "where", "sql"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_check_finds_damage(kind, how, where, sql, full):
    found: list[checks.Finding] = []

    def unit(tx: Tx) -> None:
        tx.script(sql)
        found.extend(checks.run(tx))
        raise UndoError

    with full(kind).open() as db, pytest.raises(UndoError):
        db.write_sync(unit)
    assert where in [finding.name for finding in found if finding.faults], how


SPOILED = {
    "a row changed behind the log's back": ("sqlite", "tables", WRONG["a row changed behind the log's back"][1]),
    "an index": (
        "sqlite",
        "integrity",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'IS NULL', 'IS NOT NULL')"
        " WHERE name = 'tasks_by_project_id'",
    ),
    "a full-text index": ("sqlite", "integrity", "DELETE FROM tasks_fts_data WHERE id > 10"),
    "an event": ("postgresql", "log", WRONG["an event in the middle"][1]),
    "a row that no search finds": ("postgresql", "search", "UPDATE tasks SET search = NULL WHERE n = 3"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_damaged_is_not_backed_up(how, full, new_place, file):
    kind, where, sql = SPOILED[how]
    here = new_place(kind)
    full(kind).does("backup", file)
    here.does("restore", file)
    assert here.check() == {}
    with here.open() as db:
        db.write_sync(lambda tx: tx.script(sql))
    assert where in here.check()
    assert "damaged" in here.refuses("backup", file.with_name("b"))
    assert list(file.parent.iterdir()) == [file]


def test_numbers_that_are_taken_are_noticed(full, new_place, file):
    here = new_place("postgresql")
    full("sqlite").does("backup", file)
    here.does("restore", file)
    with here.open() as db:
        db.read_sync(lambda tx: tx.all("SELECT setval('tasks_n_seq', 3)"))
    assert list(here.check()) == ["sequences"]


def test_check_finds_rotten_pages(full, new_place, file):
    here = new_place("sqlite")
    full("sqlite").does("backup", file)
    here.does("restore", file)
    content = bytearray(Path(here.target).read_bytes())
    page = len(content) // 4096 // 2 * 4096
    content[page : page + 4096] = os.urandom(4096)
    Path(here.target).write_bytes(content)
    assert here.run("check").exit_code == 1
    assert here.run("backup", file.with_name("b")).exit_code == 1
    assert not file.with_name("b").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_check_says_what_it_looked_at(kind, full):
    said = full(kind).does("check")
    assert re.search(r"^ok +log +the numbers of \d+ events in 2 workspaces$", said, re.M)
    assert re.search(r"^ok +tables +\d+ rows", said, re.M)
    assert said.splitlines()[-1].endswith(" is sound.")


def test_check_needs_a_database(new_place):
    assert "There is no database" in new_place("sqlite").refuses("check")


# ---- the plug pulled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["backup:_seal", "backup:_checksum", "backup:_refuse_damage"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_backup_leaves_nothing_under_its_name(kind, point, full, file):
    there = full(kind)
    there.killed(f"taskade_server.store.{point}", "backup", file)
    assert file.with_name(f"{file.name}.partial").exists() and not file.exists()
    there.does("backup", file)
    assert list(file.parent.iterdir()) == [file]
    assert there.check() == {}


def test_a_killed_backup_leaves_the_old_one(full, file):
    full("sqlite").does("backup", file)
    before = file.read_bytes()
    full("sqlite").killed("os:replace", "backup", "--force", file)
    assert file.read_bytes() == before


RESTORING = ["shutil:copyfile", "taskade_server.store.backup:_refuse_damage", "os:replace", "os:replace:2"]


@pytest.mark.parametrize("point", RESTORING)
def test_a_killed_restore_leaves_an_empty_folder_empty(point, full, new_place, tables, file):
    """A server that is started there would make a new installation, or find all of the old one."""
    here = new_place("sqlite")
    full("sqlite").does("backup", file)
    here.killed(point, "restore", "--move", file)
    assert not Path(here.target).exists()
    here.does("restore", "--move", file)
    assert everything(here, tables) == everything(full("sqlite"), tables)
    assert sorted(path.name for path in here.data.iterdir()) == ["secret.key", "taskade.db"]


@pytest.mark.parametrize("point", [*RESTORING, "os:link", "taskade_server.store.backup:_bring_to_rest"])
def test_a_killed_restore_leaves_the_old_database(point, full, new_place, tables, file):
    here = a_full(new_place("sqlite"))
    full("postgresql").does("backup", file)
    before = everything(here, tables)
    here.killed(point, "restore", "--move", "--force", file)
    assert everything(here, tables) == before
    if point == "os:replace:2":
        # The secret is in its place, and the database is not yet: no server starts so, and the same command ends it.
        assert here.check().keys() == {"secret"}
        here.does("restore", "--move", "--force", file)
        assert here.check() == {}
        return
    assert here.check() == {}
    # Another second, another name for what is kept aside.
    for aside in here.data.glob("before-restore-*"):
        aside.rename(aside.with_name("killed"))
    here.does("restore", "--move", "--force", file)
    assert everything(here, tables) == everything(full("postgresql"), tables)


def test_a_killed_restore_leaves_postgresql_empty(full, new_place, tables, file):
    here = new_place("postgresql")
    full("sqlite").does("backup", file)
    here.killed("taskade_server.engine.check:damage:2", "restore", "--move", file)
    assert nothing_in(here)
    here.does("restore", "--move", file)
    assert everything(here, tables) == everything(full("sqlite"), tables)
