"""Fresh installations for the selftest: in a temporary folder, or in a schema of its own on PostgreSQL.

Why never an existing one: a selftest must be safe to run beside the real thing.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from taskade_server import app, installation
from taskade_server.kit import ids
from taskade_server.selftest.client import ask_application
from taskade_server.selftest.host import quiet
from taskade_server.store.database import Database, connect

BULK: Final = 1000
WORDS: Final = ["review", "plan", "release", "everybody", "budget", "write", "customer", "invoice", "deploy", "garden"]


def prepare(folder: Path, database_url: str = "", tasks: int = 0, say: Callable[[str], None] = print) -> str:
    """Make an installation in `folder/data` with so many tasks; its API key."""
    config = quiet(folder / "data", database_url)
    db, secret = installation.open_database(config)
    with db:
        key = db.write_sync(lambda tx: installation.first_start(tx, secret))
        assert key is not None
        if tasks:
            asyncio.run(_fill(app.Application(config, db, secret), key, tasks, say))
    return key


async def _fill(application: Any, key: str, tasks: int, say: Callable[[str], None]) -> None:
    project = {"id": ids.new("proj"), "name": "What was there before"}
    await ask_application(application, key, "POST", "/v1/projects", project)
    for start in range(0, tasks, BULK):
        body = {"tasks": [_task(n) for n in range(start, min(start + BULK, tasks))], "project_id": project["id"]}
        answer = await ask_application(application, key, "POST", "/v1/tasks/bulk", body)
        assert answer.status == 201, answer.body
        if start % 20_000 == 0:
            say(f"made {start:,} of {tasks:,} tasks")


def _task(number: int) -> dict[str, Any]:
    words = [WORDS[(number * step) % len(WORDS)] for step in range(1, 7)]
    priority = ("none", "low", "medium", "high", "urgent")[number % 5]
    return {
        "name": f"{' '.join(words)} {number}",
        "priority": priority,
        "labels": [words[0], words[1]],
        "estimate": number % 13,
        "description": " ".join(words * 4),
    }


@contextmanager
def schema(url: str) -> Iterator[str]:
    """A URL that leads to an empty schema of this database, which is removed at the end; "" for ""."""
    if not url:
        yield ""
        return
    name = f"selftest_{secrets.token_hex(6)}"
    with connect(url) as db:
        _administer(db, f"CREATE SCHEMA {name}")
    try:
        yield f"{url}{'&' if '?' in url else '?'}options={quote(f'-csearch_path={name}')}"
    finally:
        with connect(url) as db:
            _administer(db, f"DROP SCHEMA {name} CASCADE")


def _administer(db: Database, sql: str) -> None:
    db.write_sync(lambda tx: tx.script(sql))
