"""What the migration to days makes of earlier rows: columns that tell dates from times, members with zones."""

import json
from typing import Any

import pytest
from taskade_server.engine.model import day_column
from taskade_server.store import schema
from taskade_server.store.database import Database

from tests.support.installation import Installation
from tests.unit.test_upgrade import FOLDER, insert

BEFORE = "0004_visibility"
DATES = ["2024-01-15", "2024-01-15T00:00:00.000Z", "2024-01-15T18:30:00.000Z", "1969-12-31", "1969-12-31T23:59:59.999Z"]
NAMED = {"due_date": "2020-01-01", "timezone": "mine", "recurrence_from": "mine"}


def with_dates(lines: list[dict[str, Any]]) -> int:
    """Give the projects and tasks of the earlier data dates, and custom fields that are called like members."""
    number = 0
    for line in [line for line in lines if line["table"] in ("tasks", "projects")]:
        start, due = DATES[number % len(DATES)], DATES[(number + 1) % len(DATES)]
        number += 1
        before = line["row"]["doc"]
        after = {**json.loads(before), "start_date": start, "due_date": due}
        if line["table"] == "tasks":
            after["custom_fields"] = NAMED
            row = {"workspace_id": after["workspace_id"], "n": line["row"]["n"], "number": None}
            lines += [
                {"table": "task_values", "row": {**row, "field": f".{name}", "value": value}}
                for name, value in NAMED.items()
            ]
        text = json.dumps(after, separators=(",", ":"), ensure_ascii=False)
        for other in lines:
            if other["row"].get("data") == before:
                other["row"]["data"] = text
        # As the columns were: milliseconds, whether date or time.
        line["row"] |= {"doc": text, "start_date": day_column(start) // 2, "due_date": day_column(due) // 2}
    return number


def all_of(db: Database, sql: str) -> list[Any]:
    """The rows that a statement finds."""
    return db.read_sync(lambda tx: tx.all(sql))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_earlier_rows_are_as_if_made_today(kind, tmp_path, request):
    data = tmp_path / "old"
    data.mkdir()
    (data / "secret.key").write_bytes(b"s" * 32)
    url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
    place = Installation(data, url)
    lines = [json.loads(line) for line in (FOLDER / f"{BEFORE}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert with_dates(lines) >= len(DATES)
    shipped = schema.shipped()
    with place.open() as db:
        schema.migrate(db, shipped[: [str(one) for one in shipped].index(BEFORE) + 1])
        db.write_sync(lambda tx: insert(tx, lines))
    place.does("upgrade", "--backup", tmp_path / "before.backup")
    with place.open() as db:
        added: dict[str, dict[str, str | None]] = {
            "workspaces": {"timezone": "UTC"},
            "users": {"timezone": None},
            "tasks": {"recurrence_from": "due_date", "timezone": None},
        }
        for table, members in added.items():
            rows = all_of(db, f"SELECT doc FROM {table}")
            assert rows
            for (text,) in rows:
                document = json.loads(text)
                assert {name: document[name] for name in members} == members

        for table in ("tasks", "projects"):
            rows = all_of(db, f"SELECT start_date, due_date, doc FROM {table}")
            for start, due, text in rows:
                document = json.loads(text)
                assert (start, due) == (day_column(document["start_date"]), day_column(document["due_date"]))
    assert place.check() == {}
