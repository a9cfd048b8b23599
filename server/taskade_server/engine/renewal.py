"""Brings a database to this program's schema, and the words and sort keys of its rows to this program's rules.

Why not in the migration: SQL cannot tell words, and one transaction over millions of rows would hold up everybody and
begin anew when it is killed. A migration that changes the rules notes that they have changed; here the rows follow, a
page in each transaction, from where the last one left off.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from taskade_server.engine import log
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.store import schema
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import settings

PENDING: Final = "texts_to_renew"
"""The row of `settings` that tells how far it has come, as `table:n`; there is none when all rows are up to date."""
PAGE_ROWS: Final = 500
SAY_SECONDS: Final = 5.0

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

logger: Final = logging.getLogger("taskade")


def upgrade(db: Database) -> list[str]:
    """Bring a database up to date; the names of the migrations that were applied.

    Any number of processes may call it at once: they take turns with the pages.
    """
    applied = schema.migrate(db)
    renew(db)
    return applied


def renew(db: Database, progress: Progress | None = None) -> bool:
    """Bring words and sort keys up to date if they are not; whether there was anything to do."""
    if not db.read_sync(is_pending):
        return False
    total, said = db.read_sync(_total), monotonic()
    tell = progress or _log
    tell("indexing texts", 0, total)
    done = 0
    while (count := db.write_sync(_page)) is not None:
        done += count
        if monotonic() - said >= SAY_SECONDS or progress is not None:
            said = monotonic()
            tell("indexing texts", min(done, total), total)
    tell("indexing texts", total, total)
    return True


def is_pending(tx: Tx) -> bool:
    """Whether some rows may still have words and sort keys by older rules."""
    return settings.get(tx, PENDING) is not None


def begin_anew(tx: Tx) -> None:
    """Have the next `renew` look at all rows."""
    settings.delete(tx, PENDING)
    settings.get_or_create(tx, PENDING, "")


def _resources() -> list[Resource]:
    return [resource for resource in REGISTRY.values() if resource.search or resource.folded]


def _total(tx: Tx) -> int:
    counts = [tx.one(f"SELECT count(*) FROM {resource.table}") for resource in _resources()]
    return sum(int(row[0]) for row in counts if row)


def _page(tx: Tx) -> int | None:
    """Bring the next rows up to date; how many, or None when there are no more."""
    place = settings.get_locked(tx, PENDING)
    if place is None:
        return None  # another process has brought it to the end
    resources = _resources()
    table, _, last = place.partition(":")
    index = next((index for index, resource in enumerate(resources) if resource.table == table), 0)
    count, after = log.renew_texts(tx, resources[index], int(last or -1), PAGE_ROWS)
    if after is not None:
        settings.replace(tx, PENDING, f"{resources[index].table}:{after}")
    elif index + 1 < len(resources):
        settings.replace(tx, PENDING, f"{resources[index + 1].table}:-1")
    else:
        settings.delete(tx, PENDING)
        log.bump_rights_version(tx)  # answers that were made before may lack rows, though no row of the log says so
    return count


def _log(what: str, done: int, total: int) -> None:
    logger.info("%s: %d of %d rows", what, done, total)
