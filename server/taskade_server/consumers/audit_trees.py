"""Puts new entries of the logs into their Merkle trees, and signs how far they are.

Why behind the writes and not in them: a tree is one thing that all writers of a workspace would wait for. What this
costs is a window: until its checkpoint is signed, an entry could be changed unseen by whoever owns the database.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from taskade_server.consumers.runner import Job, Lease
from taskade_server.engine import proofs
from taskade_server.engine.audit import LOGS
from taskade_server.engine.log import Event
from taskade_server.kit import time
from taskade_server.kit.notes import Signer
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import trees
from taskade_server.store.tables.access_log import Access

logger: Final = logging.getLogger("taskade")

EVERY_SECONDS: Final = 10.0
STEP: Final = 2000
"""How many entries are added in one transaction."""


def jobs(db: Database, secret: bytes) -> list[Job]:
    """What is to be done for the audit log."""

    async def run(lease: Lease) -> None:
        await cover(db, proofs.signer(secret), lease.hold)

    return [Job("audit", EVERY_SECONDS, run)]


async def cover(db: Database, signer: Signer, hold: Callable[[Tx], None] = lambda tx: None) -> int:
    """Bring all trees up to their logs and sign them; how many entries were added."""
    added = 0
    for log in LOGS:
        after: str | None = None
        while behind := await db.read(partial(trees.behind, log=log, after=after)):
            for workspace_id, done, head in behind:
                try:
                    added += await _cover(db, signer, hold, workspace_id, log, done, head)
                except Gap as error:
                    logger.critical("%s `taskade audit verify` says more.", error)
            after = behind[-1][0]
    return added


class Gap(Exception):
    """A log lacks an entry, so that its tree cannot grow."""


def _hashed(entries: Sequence[Event | Access]) -> list[bytes]:
    return [proofs.hashed(entry) for entry in entries]


async def _cover(
    db: Database, signer: Signer, hold: Callable[[Tx], None], workspace_id: str, log: str, done: int, head: int
) -> int:
    start = done
    while done < head:
        hashes: list[bytes] = []
        while len(hashes) < STEP and done + len(hashes) < head:
            after = done + len(hashes)
            page = await db.read(partial(proofs.read, workspace_id=workspace_id, log=log, after=after, last=head))
            if not page or [entry.seq for entry in page] != list(range(after + 1, after + len(page) + 1)):
                raise Gap(f"The audit log {proofs.origin(workspace_id, log)} lacks entries behind number {after}.")
            hashes += await asyncio.to_thread(_hashed, page)
        at, last = time.now_ms(), done + len(hashes) == head

        def unit(tx: Tx, done: int = done, hashes: list[bytes] = hashes, at: int = at, last: bool = last) -> bool:
            hold(tx)
            if trees.size(tx, workspace_id, log) != done:
                return False
            tiles = trees.open(tx, workspace_id, log, done)
            tiles.add(hashes)
            trees.keep(tx, workspace_id, log, tiles)
            if last:
                note = signer.sign(proofs.checkpoint(workspace_id, log, tiles, at).text())
                trees.add_checkpoint(tx, workspace_id, log, tiles.size, at, note)
            return True

        if not await db.write(unit):
            break
        done += len(hashes)
    return done - start
