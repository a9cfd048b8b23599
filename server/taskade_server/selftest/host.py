"""The application inside this process, on a file of its own: for faults that need no real process, by the hundred.

Why checkpoints are made frequent: they are the rarest moments of a database, and those in which it moves the most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from taskade_server import app, installation
from taskade_server.config import Config, Observing
from taskade_server.selftest.client import Answer, ask_application, judged_again
from taskade_server.selftest.ledger import Ledger
from taskade_server.selftest.workload import Writer
from taskade_server.store.schema import migrate
from taskade_server.store.sqlite import writer as sqlite_writer
from taskade_server.store.sqlite.database import SqliteDatabase

FILE: Final = "taskade.db"
SECRET: Final = b"a secret that guards nothing but a selftest"
CHECKPOINT_PAGES: Final = 120


@contextmanager
def frequent_checkpoints() -> Iterator[None]:
    """Databases opened inside move their log after some hundred pages instead of some thousand."""
    usual, sqlite_writer.CHECKPOINT_PAGES = sqlite_writer.CHECKPOINT_PAGES, CHECKPOINT_PAGES
    try:
        yield
    finally:
        sqlite_writer.CHECKPOINT_PAGES = usual


def quiet(folder: Path, database_url: str = "") -> Config:
    """Settings of an application that limits nothing, does nothing by itself and says nothing."""
    return Config(
        data=folder,
        database_url=database_url or None,
        rate_limit=None,
        background=False,
        synchronous="normal",
        observing=Observing(log_level="critical"),
    )


class Host:
    """The whole application but its sockets, for one event loop. `key` is made on first use of the folder."""

    def __init__(self, folder: Path, *, vfs: str | None = None, synchronous: str = "full", key: str = "") -> None:
        self.folder = folder
        self.key = key
        self.fatal: list[BaseException] = []
        self.db = SqliteDatabase(folder / FILE, synchronous=synchronous, vfs=vfs, on_fatal=self.fatal.append)
        self._application: app.Application | None = None

    def open(self) -> "Host":
        """Open the database as `taskade serve` does. StoreError when that is impossible."""
        self.db.open_sync()
        try:
            migrate(self.db)
            self.key = self.db.write_sync(lambda tx: installation.first_start(tx, SECRET)) or self.key
        except BaseException:
            self.db.close_sync()
            raise
        return self

    def close(self) -> None:
        self.db.close_sync()

    async def ask(self, method: str, path: str, body: Any = None, idempotency_key: str = "") -> Answer:
        """One request."""
        if self._application is None:
            self._application = app.Application(quiet(self.folder), self.db, SECRET)
        return await ask_application(self._application, self.key, method, path, body, idempotency_key)

    async def work(self, writers: list[Writer], ledgers: list[Ledger], requests: int) -> list[str]:
        """Let all writers work at once, each on so many requests or until it fails; improper answers in words."""
        pairs = zip(writers, ledgers, strict=True)
        found = await asyncio.gather(*(work(self.ask, *pair, requests) for pair in pairs))
        return [fault for faults in found for fault in faults]


async def work(
    ask: Callable[[str, str, Any, str], Awaitable[Answer]], writer: Writer, ledger: Ledger, requests: int
) -> list[str]:
    """Send again what was left open, then so many new requests, one after the other until one has no success."""
    faults: list[str] = []
    for operation in writer.unsettled:
        happened = operation.fate == "there"
        answer = await ask(operation.method, operation.path, operation.body, operation.key)
        faults += judged_again(operation.name, happened, answer)
        if answer.fate == "acknowledged":
            ledger.settled(operation, "acknowledged")
            if not happened:
                writer.settle(operation, True)
    writer.unsettled.clear()
    for _ in range(requests):
        operation = writer.next()
        ledger.sent(operation)
        answer = await ask(operation.method, operation.path, operation.body, operation.key)
        operation.status, operation.reply = answer.status, answer.body
        ledger.settled(operation, answer.fate)
        if answer.fate == "unknown":
            writer.unsettled.append(operation)
        else:
            writer.settle(operation, answer.fate == "acknowledged")
        if not answer.in_order:
            faults.append(f"{operation.name} ({operation.kind}) was answered {answer.status} {answer.code}")
        if answer.fate != "acknowledged":
            break
    return faults
