"""An installation without a server: a place for the data, and the commands of `taskade` on it, in this process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from click.testing import CliRunner, Result
from taskade_server.__main__ import main
from taskade_server.store import transfer
from taskade_server.store.database import Database, Tx, connect, is_postgresql
from taskade_server.store.schema import migrate


@dataclass(frozen=True)
class Installation:
    """A data folder, and the URL of a PostgreSQL database or "" for SQLite in the folder."""

    data: Path
    url: str = ""

    @property
    def target(self) -> str | Path:
        return self.url or self.data / "taskade.db"

    @property
    def secret_file(self) -> Path:
        return self.data / "secret.key"

    @property
    def _place(self) -> list[str]:
        """The options that name it."""
        return ["--data", str(self.data), *(["--database-url", self.url] if self.url else [])]

    def open(self) -> Database:
        return connect(self.target, patient=True)

    def run(self, command: str, *arguments: object, environment: dict[str, str] | None = None) -> Result:
        """What `taskade COMMAND ARGUMENTS` does here."""
        words = [str(word) for word in arguments]
        place = self._place
        # Past the group, which would set up logging for the whole test process.
        return CliRunner(env=environment).invoke(main.commands[command], [*words, *place], catch_exceptions=False)

    def killed(self, point: str, command: str, *arguments: object) -> None:
        """As `killed_at`, here."""
        killed_at(point, command, *arguments, *self._place)

    def does(self, command: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
        """As `run`, and it must succeed; what it printed on stdout."""
        result = self.run(command, *arguments, environment=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refuses(self, command: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
        """As `run`, and it must fail with one line, which is returned."""
        result = self.run(command, *arguments, environment=environment)
        assert result.exit_code == 1, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("Error: "), result.output
        return lines[0]

    def check(self) -> dict[str, list[str]]:
        """What `taskade check` finds: the faults of each check that has some."""
        result = self.run("check", "--json")
        report = json.loads(result.stdout)
        assert result.exit_code == (0 if report["sound"] else 1)
        return {one["name"]: one["faults"] for one in report["checks"] if one["faults"]}


def killed_at(point: str, command: str, *arguments: object) -> None:
    """Run `taskade COMMAND ARGUMENTS` in a process of its own up to a call of a function, and pull the plug there.

    `point` is `module:function`, and `module:function:2` its second call.
    """
    script = f"""
import importlib, sys, time
from taskade_server.__main__ import main
module, name, count = ({point!r} + ":1").split(":")[:3]
place = importlib.import_module(module)
whole, left = getattr(place, name), int(count)
def stop(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        print("there", flush=True)
        time.sleep(600)
    return whole(*arguments, **options)
setattr(place, name, stop)
main.commands[sys.argv[1]](sys.argv[2:])
"""
    words = [command, *(str(argument) for argument in arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKADE_")}
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        reached = any(line == "there\n" for line in process.stdout)
        process.kill()
    assert reached, f"{command} never came to {point}"


def shared_tables(folder: Path) -> list[transfer.Table]:
    """The tables that both databases have; a database to ask is made in the folder."""
    with connect(folder / "shape.db", synchronous="normal") as db:
        migrate(db)
        return db.read_sync(transfer.tables)


def everything(place: Installation, tables: list[transfer.Table]) -> dict[str, Any]:
    """All rows of all tables and what their search indexes hold, so that two installations can be compared."""

    def unit(tx: Tx) -> dict[str, Any]:
        found: dict[str, Any] = {table.name: list(_rows(tx, table)) for table in tables}
        found["settings"] = [row for row in found["settings"] if not row[0].startswith("secret")]
        return found

    with place.open() as db:
        found = db.read_sync(unit, snapshot=True)
        if is_postgresql(place.target):
            return found | db.read_sync(lambda tx: _words_in_postgresql(tx, tables))
    return found | _words_in_sqlite(Path(place.target), tables)


def _rows(tx: Tx, table: transfer.Table) -> Iterator[Any]:
    for page in transfer.pages(tx, table.name, table.columns, table.key):
        yield from page


def _words_in_postgresql(tx: Tx, tables: list[transfer.Table]) -> dict[str, Any]:
    sql = "SELECT n, unnest(tsvector_to_array(search)) FROM {} ORDER BY 1, 2"
    return {f"words of {table.name}": tx.all(sql.format(table.name)) for table in tables if table.searchable}


def _words_in_sqlite(path: Path, tables: list[transfer.Table]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with closing(apsw.Connection(str(path))) as connection:
        for name in (table.name for table in tables if table.searchable):
            connection.execute(f"CREATE VIRTUAL TABLE temp.v_{name} USING fts5vocab(main, {name}_fts, instance)")
            rows = connection.execute(f"SELECT doc, term FROM temp.v_{name} ORDER BY 1, 2")
            found[f"words of {name}"] = rows.fetchall()
    return found
