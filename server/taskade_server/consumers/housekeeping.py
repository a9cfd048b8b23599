"""Removes what is kept for a limited time only: objects in the trash, and answers kept for Idempotency-Keys."""

from collections.abc import Callable
from functools import partial
from typing import Final

from taskade_server.consumers.runner import Job, Lease, now_for_removing
from taskade_server.domain import secrets
from taskade_server.domain.resources import PURGED_WITH, TRASHED
from taskade_server.engine import edit
from taskade_server.engine.log import Actor
from taskade_server.kit import time
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import replies

EVERY_SECONDS: Final = 3600.0
TRASH_ROWS: Final = 500
"""How many objects one unit of work removes from the trash."""
REPLY_ROWS: Final = 1000
"""How many stored answers one unit of work removes."""


def jobs(db: Database, trash_days: int, reply_hours: int = replies.KEPT_HOURS) -> list[Job]:
    """The jobs that remove what has been in the trash for `trash_days`, and answers older than `reply_hours`."""

    async def empty_trash(lease: Lease) -> None:
        now = await now_for_removing(db, lease, EVERY_SECONDS)
        if now is None:
            return
        before = now - trash_days * time.DAY_MS
        purge = partial(edit.purge, actor=Actor(None), before_ms=before, limit=TRASH_ROWS)
        for resource in TRASHED:
            below = PURGED_WITH.get(resource.name, ())
            await _until_done(db, lease, partial(purge, resource=resource, below=below), TRASH_ROWS)
        # A workspace stays in the trash for ever, and credentials of other systems must not.
        abandoned = partial(secrets.delete_abandoned, before_ms=before, limit=TRASH_ROWS)
        await _until_done(db, lease, abandoned, TRASH_ROWS)

    async def forget_replies(lease: Lease) -> None:
        now = await now_for_removing(db, lease, EVERY_SECONDS)
        if now is None:
            return
        before = now - reply_hours * replies.HOUR_MS
        await _until_done(db, lease, partial(replies.delete_old, before_ms=before, limit=REPLY_ROWS), REPLY_ROWS)

    return [Job("trash", EVERY_SECONDS, empty_trash), Job("replies", EVERY_SECONDS, forget_replies)]


async def _until_done(db: Database, lease: Lease, remove: Callable[[Tx], int], limit: int) -> None:
    """Remove rows, at most `limit` in each unit of work, until a unit removes fewer than that."""

    def unit(tx: Tx) -> int:
        lease.hold(tx)
        return remove(tx)

    while await db.write(unit, heavy=True) >= limit:
        pass
