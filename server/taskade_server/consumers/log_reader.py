"""Reads the logs of all workspaces for one purpose: which events matter to whom, and what is written because of that.

Why in two steps. Which events matter is decided outside of any transaction, in short slices, because filters may be
expensive and belong to strangers. What was decided is written in one short transaction that also moves the reader's
cursor, if that is still where it was: nothing is forgotten and nothing is done twice.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.matching import EventPage, FairShare, match_events
from taskade_server.consumers.runner import Lease
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Database, StoreError, Tx

logger: Final = logging.getLogger("taskade")

PAGE: Final = 500
"""How many events are dealt with in one unit."""
TURN_STEPS: Final = 50_000
"""How much work is done for that, in steps of `kit.budget`; then it is the turn of the workspaces that cost least."""
WORKSPACES_AT_ONCE: Final = 1_000
MANY_SUBSCRIPTIONS: Final = 20
"""A workspace with more of them is read in a thread of its own."""
IDLE_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.005


class Overtaken(Exception):
    """Somebody else has moved the reader's cursor meanwhile: nothing of this unit is kept, and it is tried again."""


class Reading(NamedTuple):
    """What one reader of the log does.

    `what` completes "The events of the workspace cannot be turned into ...". `behind(tx, limit=...)` returns workspaces
    with events to read, and the reader's position in each. `read(tx, workspace_id=..., position=...)` returns the next
    events with the subscriptions that they may concern. `write(tx, page)` writes what follows, and moves the cursor.
    """

    what: str
    behind: Callable[..., list[tuple[str, int]]]
    read: Callable[..., EventPage]
    write: Callable[[Tx, EventPage], None]


class LogReader:
    """One reader of the log. `told` is called when it has written something that others may wait for."""

    def __init__(self, db: Database, feed: Feed, reading: Reading, told: Callable[[], None]) -> None:
        self._db = db
        self._feed = feed
        self._reading = reading
        self._told = told
        self._share = FairShare()
        self._large: set[str] = set()

    async def run(self, lease: Lease) -> None:
        """Read while the lease is held."""
        while lease.held:
            seen = self._feed.version
            behind = await self._db.read(partial(self._reading.behind, limit=WORKSPACES_AT_ONCE))
            if behind:
                await self._take_turn(lease, behind)
                self._told()
                # What is committed meanwhile is done in one go.
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await self._feed.changed(seen, IDLE_SECONDS)

    async def match(self, page: EventPage, turn: Budget) -> None:
        """Decide which events of a page matter, and let others work in between."""
        for steps in match_events(page, turn):
            self._feed.pace.add(steps)
            await self._feed.pace.turn(page.workspace_id)

    async def _take_turn(self, lease: Lease, behind: Sequence[tuple[str, int]]) -> None:
        """Deal with the next events of some workspaces: as many as one turn has room and steps for."""
        turn, room = Budget(TURN_STEPS), PAGE
        decided: list[EventPage] = []
        costs: dict[str, int] = {}
        failure: Exception | None = None
        for workspace_id, position in self._share.order(behind):
            before, large = turn.left, workspace_id in self._large
            try:
                read = partial(self._reading.read, workspace_id=workspace_id, position=position)
                page = await self._db.read(read, heavy=large)
                await self.match(page, turn)
            except StoreError:
                raise
            except Exception as error:
                # It comes last from now on, so that it holds up nobody else.
                what = self._reading.what
                logger.exception("The events of the workspace %s cannot be turned into %s.", workspace_id, what)
                costs[workspace_id], failure = TURN_STEPS, error
                continue
            (self._large.add if len(page.subscriptions) > MANY_SUBSCRIPTIONS else self._large.discard)(workspace_id)
            decided.append(page)
            costs[workspace_id] = before - turn.left
            room -= page.looked
            if turn.left <= 0 or room <= 0:
                break
        self._share.charge(costs)
        if failure is not None and not decided:
            raise failure

        def unit(tx: Tx) -> None:
            lease.hold(tx)
            for page in decided:
                self._reading.write(tx, page)

        try:
            await self._db.write(unit)
        except Overtaken:
            logger.info("The reader of the log for %s was moved meanwhile; it looks again.", self._reading.what)
