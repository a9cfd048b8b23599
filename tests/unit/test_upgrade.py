"""`taskade upgrade` brings a database of any earlier version to this one, with a backup, and whole when it was killed.

Why the data of each version is kept in a file: made by today's code it would be today's data, and a migration that
forgets to bring old rows up to date would never be noticed.
"""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from taskade_server import installation
from taskade_server.config import Config
from taskade_server.domain import resources
from taskade_server.domain.tasks import COMMENT, TASK
from taskade_server.engine import log, query, renewal
from taskade_server.engine.model import Resource
from taskade_server.store import schema
from taskade_server.store.database import Tx

from tests.support.installation import Installation, everything, shared_tables
from tests.unit import world

assert resources.RESOURCES, "all resources are declared by now"
FOLDER = Path(__file__).parent / "databases"
VERSIONS = [path.stem for path in sorted(FOLDER.glob("*.jsonl"))]
WANTED = [str(migration) for migration in schema.shipped()]


def insert(tx: Tx, lines: list[dict[str, Any]]) -> None:
    for name in {line["table"] for line in lines}:
        tx.run(f"DELETE FROM {name}")  # the rows of the migrations themselves
    for line in lines:
        row = dict(line["row"])
        if "words" in line and tx.dialect == "sqlite":
            tx.run(f"INSERT INTO {line['table']}_fts (rowid, words) VALUES (?, ?)", (row["n"], line["words"]))
        marks = ["?"] * len(row)
        if "words" in line and tx.dialect == "postgresql":
            row["search"] = line["words"].split()
            marks.append("array_to_tsvector(?::text[])")
        names = ", ".join(f'"{name}"' for name in row)
        tx.run(f"INSERT INTO {line['table']} ({names}) VALUES ({', '.join(marks)})", list(row.values()))
    if tx.dialect == "postgresql":
        for name in {line["table"] for line in lines if "n" in line["row"] and "doc" in line["row"]}:
            tx.all(f"SELECT setval('{name}_n_seq', (SELECT max(n) FROM {name}))")


@pytest.fixture
def old(tmp_path, request) -> Callable[[str, str], Installation]:
    """A database with the schema and the data of an earlier version: `old("sqlite", "0001_core")`."""

    def make(kind: str, version: str) -> Installation:
        data = tmp_path / "old"
        data.mkdir()
        (data / "secret.key").write_bytes(b"s" * 32)
        url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
        place = Installation(data, url)
        lines = [json.loads(line) for line in (FOLDER / f"{version}.jsonl").read_text(encoding="utf-8").splitlines()]
        with place.open() as db:
            schema.migrate(db, schema.shipped()[: WANTED.index(version) + 1])
            db.write_sync(lambda tx: insert(tx, lines))
        return place

    return make


@pytest.fixture
def empty(tmp_path) -> Installation:
    return Installation(tmp_path / "empty")


def version_of(place: Installation) -> str:
    with place.open() as db:
        number, name, _ = db.read_sync(schema.past)[-1]
    return f"{number:04}_{name}"


def test_an_older_database_is_upgraded_in_the_folder(old, empty):
    place = old("sqlite", "0001_core")
    said = place.does("upgrade")
    assert "\n".join(f"applied {name}" for name in WANTED[1:]) in said and said.endswith("The database is sound.\n")
    assert place.check() == {}
    [file] = place.data.glob(f"before-{WANTED[-1]}-*.backup")
    assert f"{file}: " in said
    empty.does("restore", "--move", file)
    tables = shared_tables(place.data)
    assert everything(empty, tables) == everything(place, tables)


@pytest.mark.parametrize("version", VERSIONS[: len(WANTED) - 1])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_database_is_upgraded(kind, version, old, tmp_path):
    place, file = old(kind, version), tmp_path / "first.backup"
    assert f"{version}, verified" in place.does("upgrade", "--backup", file)
    assert version_of(place) == WANTED[-1]
    assert place.check() == {}
    assert place.does("upgrade") == f"The schema is up to date ({WANTED[-1]}).\n"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_an_older_log_holds_is_judged_by_the_rules_of_today(kind, old, tmp_path):
    """One private and one open project were purged in it, and somebody left, was renamed, and came back."""
    place = old(kind, "0003_readers")
    place.does("upgrade", "--backup", tmp_path / "first.backup")
    named = "SELECT e.data FROM events e JOIN purged_projects p ON p.id = e.object_id WHERE e.type = 'project.purged'"
    absent = "SELECT e.data FROM events e JOIN absent_users a ON a.event_id = e.id"
    with place.open() as db:
        for sql, name in ((named, "Purged, open"), (absent, "Mia, gone")):
            assert [json.loads(text)["name"] for (text,) in db.read_sync(lambda tx, sql=sql: tx.all(sql))] == [name]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_dry_run_changes_nothing(kind, old, tmp_path):
    place = old(kind, "0001_core")
    said = place.does("upgrade", "--dry-run")
    assert re.findall(r"would apply (\w+)", said) == WANTED[1:]
    assert version_of(place) == "0001_core"
    assert sorted(path.name for path in place.data.iterdir() if path.suffix == ".backup") == []


def test_postgresql_is_not_upgraded_without_a_backup(old):
    place = old("postgresql", "0001_core")
    said = place.run("upgrade")
    assert said.exit_code == 1 and "--backup FILE, or --no-backup" in said.stderr
    assert version_of(place) == "0001_core"
    place.does("upgrade", "--no-backup")
    assert version_of(place) == WANTED[-1]


def test_without_a_backup_nothing_is_upgraded(old, tmp_path):
    place, file = old("sqlite", "0001_core"), tmp_path / "taken"
    file.write_text("something else")
    assert place.run("upgrade", "--backup", file).exit_code == 1
    assert version_of(place) == "0001_core"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_empty_place_needs_no_backup(kind, empty, request):
    url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
    place = Installation(empty.data, url)
    assert place.does("upgrade", "--dry-run").count("would apply") == len(WANTED)
    assert place.does("upgrade").count("applied") == len(WANTED)
    assert place.check() == {}


def test_check_says_that_an_older_database_is_to_be_upgraded(old):
    place = old("sqlite", "0001_core")
    assert "taskade upgrade" in place.check()["schema"][0]


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_a_backup_of_an_older_database_is_restored_as_a_new_one(source, target, old, empty, tmp_path, request):
    old(source, "0001_core").does("backup", tmp_path / "old.backup")
    url = request.getfixturevalue("postgres").create_database() if target == "postgresql" else ""
    here = Installation(empty.data, url)
    here.does("restore", tmp_path / "old.backup")
    assert version_of(here) == WANTED[-1]
    assert here.check() == {}


def test_a_damaged_old_database_is_noticed_after_the_upgrade(old):
    place = old("sqlite", "0001_core")
    with place.open() as db:
        db.write_sync(lambda tx: tx.run("UPDATE tasks SET doc = replace(doc, 'Renamed', 'Forged')"))
    result = place.run("upgrade")
    assert result.exit_code == 1 and "damaged" in result.stderr and "taskade check" in result.stderr


# ---- the words and sort keys of older rows ---------------------------------------------------------------------------

FOUND = {
    "準備": ["会議の準備をする"],
    "印刷": ["会議の準備をする"],
    "자료": ["회의자료"],
    "lodz": ["Łódź trip"],
    "softhyphen": ["soft\u00adhyphen"],
    "task": ["A task", "Task 2", "Task 10"],
}


def asked(place: Installation, resource: Resource, q: str, field: str) -> list[str]:
    """What a list with a search shows, in the order of names if there are any."""
    caller = world.a_member("ws_01hm6aqh20e008000000000001")
    question = [("q", q), *([("sort", "name")] if field == "name" else [])]

    def unit(tx: Tx) -> list[str]:
        parsed = query.parse(tx, caller, resource, world.SECRET, question)
        return [json.loads(text)[field] for text in query.run(tx, caller, parsed, world.SECRET).documents]

    with place.open() as db:
        return db.read_sync(unit)


def rights(place: Installation) -> int:
    with place.open() as db:
        return db.read_sync(log.rights_version)


def is_found(place: Installation) -> None:
    assert {q: asked(place, TASK, q, "name") for q in FOUND} == FOUND
    assert asked(place, COMMENT, "ทีม", "body") == ["ประชุมทีม"]
    assert place.check() == {}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_an_older_version_wrote_is_found_and_sorted_by_the_rules_of_today(kind, old):
    place = old(kind, "0005_positions")
    before = rights(place)
    place.does("upgrade", "--no-backup")
    is_found(place)
    # The validators of lists are made of this number and of positions of the log, which have not moved.
    assert rights(place) > before


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_server_brings_words_up_to_date_by_itself(kind, old, monkeypatch):
    place = old(kind, "0005_positions")
    monkeypatch.setenv("TASKADE_SECRET", "s" * 32)
    db, _ = installation.open_database(Config(data=place.data, database_url=place.url or None))
    db.close_sync()
    is_found(place)


@pytest.mark.parametrize("call", [1, 4, 7])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_upgrade_killed_among_the_words_goes_on_where_it_was(kind, call, old, monkeypatch):
    """Whatever page it was at; until it is through, a check says so and calls nothing else damaged."""
    place = old(kind, "0005_positions")
    place.killed(f"taskade_server.engine.log:renew_texts:{call}", "upgrade", "--no-backup")
    assert version_of(place) == WANTED[-1]
    faults = place.check()
    assert list(faults) == ["schema"] and "taskade upgrade" in faults["schema"][0]
    monkeypatch.setattr(renewal, "PAGE_ROWS", 2)
    assert "up to date" in place.does("upgrade")
    is_found(place)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_from_among_the_words_is_restored_whole(kind, old, empty, tmp_path, request):
    place = old(kind, "0005_positions")
    with place.open() as db:
        schema.migrate(db)
    place.does("backup", tmp_path / "half.backup")
    url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
    here = Installation(empty.data, url)
    here.does("restore", tmp_path / "half.backup")
    is_found(here)


def as_older_servers_do(tx: Tx) -> None:
    """They know nothing of the sort key, and of words only what they used to be."""
    for n, name, words in tx.all("SELECT n, name, '' FROM tasks WHERE name LIKE 'Task 1%' OR name LIKE '%準備%'"):
        words = name.lower()
        if tx.dialect == "sqlite":
            tx.run("INSERT OR REPLACE INTO tasks_fts (rowid, words) VALUES (?, ?)", (n, words))
            tx.run("UPDATE tasks SET name_sort = NULL WHERE n = ?", (n,))
        else:
            tx.run(
                "UPDATE tasks SET name_sort = NULL, search = array_to_tsvector(?::text[]) WHERE n = ?",
                (words.split(), n),
            )


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_older_servers_wrote_after_the_upgrade_is_brought_up_to_date_when_asked(kind, old):
    place = old(kind, "0005_positions")
    place.does("upgrade", "--no-backup")
    with place.open() as db:
        db.write_sync(as_older_servers_do)
    assert asked(place, TASK, "準備", "name") == []
    faults = place.check()
    assert "tables" in faults and (kind == "sqlite" or "search" in faults)
    assert "up to date" in place.does("upgrade", "--texts")
    is_found(place)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_several_processes_take_turns_with_the_words(kind, old, monkeypatch):
    place = old(kind, "0005_positions")
    monkeypatch.setattr(renewal, "PAGE_ROWS", 1)
    with place.open() as db:
        schema.migrate(db)
    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(place.does, "upgrade") for _ in range(3)]:
            one.result()
    is_found(place)


# The tables of the copy that a backup of PostgreSQL goes to are made by the same function.
IN_THE_MIDDLE = {"sqlite": "taskade_server.store.schema:_note", "postgresql": "taskade_server.store.schema:_note:2"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_upgrade_killed_in_the_middle_of_a_migration_can_be_repeated(kind, old, tmp_path):
    """Its statements were executed, its name was not noted yet."""
    place, file = old(kind, "0001_core"), tmp_path / "first.backup"
    place.killed(IN_THE_MIDDLE[kind], "upgrade", "--backup", file)
    assert version_of(place) == "0001_core" and file.exists()
    place.does("upgrade", "--backup", tmp_path / "second.backup")
    assert version_of(place) == WANTED[-1]
    assert place.check() == {}


def test_an_upgrade_killed_during_its_backup_has_changed_nothing(old, tmp_path):
    place, file = old("sqlite", "0001_core"), tmp_path / "first.backup"
    place.killed("taskade_server.store.backup:_seal", "upgrade", "--backup", file)
    assert version_of(place) == "0001_core" and not file.exists()
    place.does("upgrade", "--backup", file)
    assert place.check() == {}


def test_the_newest_version_is_the_one_of_the_data_that_is_kept():
    """With each new migration comes a file of data from before it."""
    assert WANTED[: len(VERSIONS)] == VERSIONS and len(VERSIONS) >= len(WANTED) - 1, (
        f"add {FOLDER.name}/{WANTED[-2]}.jsonl: the rows of all tables of a database that has not got {WANTED[-1]} yet"
    )
