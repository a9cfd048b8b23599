"""Tells whoever waits that a workspace's log has grown, and hands out what was added, read once for all of them.

Why one watcher for a process: a thousand idle streams must cost a thousand small waits, not a thousand questions a
second; and when something happens, most of them want the very same page of the log.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from taskade_server.consumers.pace import Pace
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.kit.background import keep_on
from taskade_server.store.database import Database, StoreError, Tx

logger: Final = logging.getLogger("taskade")

PAGE: Final = 200
"""How many events are read at once."""
KEPT_PAGES: Final = 32
MAX_REACHED: Final = 10_000
# How long somebody else's commit may go unnoticed: SQLite tells it from a page in shared memory, PostgreSQL is asked.
LOOK_SECONDS: Final = {"sqlite": 0.02, "postgresql": 0.1}
AWAY_SECONDS: Final = 1.0
_Waiter = asyncio.Future[None]


class Feed:
    """The logs of one database, for one event loop. `start` before use, `stop` at the end."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.pace = Pace()
        """The pace that all readers of these logs share."""
        self._look_seconds = LOOK_SECONDS[db.dialect]
        # PostgreSQL does not tell that there was a commit: whoever wants to know has to look.
        self._unseen_seconds = self._look_seconds if db.dialect == "postgresql" else float("inf")
        self._waiters: dict[str, dict[_Waiter, int]] = {}
        self._waiting_for_any: set[_Waiter] = set()
        self.version = 0
        """Rises whenever something may have been committed, as far as that was noticed."""
        self._look = asyncio.Event()
        self._notified = False
        self._reached: dict[str, int] = {}
        self.rights_version = -1
        """The version of rights, no older than anything that `reached` tells."""
        self._pages: OrderedDict[tuple[str, int, int, int], asyncio.Task[list[Event]]] = OrderedDict()
        self._watching: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    def start(self) -> None:
        """Begin to watch, in a task of the running event loop."""
        self._ended.clear()
        self._watching = asyncio.create_task(keep_on("Watching the log", self._watch))

    async def stop(self) -> None:
        """End; whoever waits is woken and told that nothing has come."""
        self._ended.set()
        self.wake_all()
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        for page in self._pages.values():
            page.cancel()
        await asyncio.gather(*self._pages.values(), return_exceptions=True)
        self._pages.clear()

    @property
    def ended(self) -> bool:
        """Whether it was stopped: streams end, so that their clients go on with another process."""
        return self._ended.is_set()

    def notify(self) -> None:
        """Tell that this process has committed something, so that it is looked for at once."""
        self._note_change()
        if self._waiters:
            self._notified = True
            self._look.set()

    def _note_change(self) -> None:
        self.version += 1
        for waiter in self._waiting_for_any:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, seen: int, seconds: float) -> None:
        """Wait until anything may have been committed anywhere since `version` was `seen`, at most `seconds`."""
        if self.ended:
            await asyncio.sleep(self._look_seconds)
            return
        if self.version != seen:
            return
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting_for_any.add(waiter)
        self._look.set()
        try:
            async with asyncio.timeout(min(seconds, self._unseen_seconds)):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting_for_any.discard(waiter)

    async def wait(self, positions: Mapping[str, int], seconds: float) -> bool:
        """Wait until a workspace's log goes beyond its position; False if the time is over or the feed ends first."""
        if self.ended:
            return False
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        for name, seq in positions.items():
            self._waiters.setdefault(name, {})[waiter] = seq
        self._notified = True
        self._look.set()
        try:
            async with asyncio.timeout(seconds):
                await waiter
            return not self.ended
        except TimeoutError:
            return False
        finally:
            for name in positions:
                waiters = self._waiters.get(name, {})
                waiters.pop(waiter, None)
                if not waiters:
                    self._waiters.pop(name, None)

    def reached(self, workspace_id: str) -> int:
        """How far a log was when it was last looked at; 0 if nobody has waited for it."""
        return self._reached.get(workspace_id, 0)

    def wake_all(self) -> None:
        """Wake everybody who waits: something other than the log is to be looked at. They are told that it grew."""
        for waiters in (*self._waiters.values(), self._waiting_for_any):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def page(self, workspace_id: str, after: int, head: int) -> list[Event]:
        """The first events behind `after`, up to `head`, which the log has reached: at least one, if there is one.

        StoreError if the log cannot be read.
        """
        upto = min(head, after + PAGE)
        # An event comes with what everybody may see of its place, which is good for one version of rights.
        key = (workspace_id, after, upto, self.rights_version)
        found = self._pages.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            found = self._pages[key] = asyncio.create_task(self._read(workspace_id, after, upto))
            if len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        if found.done():
            return found.result()
        # One that gives up must not take the page from the others.
        return await asyncio.shield(found)

    async def _read(self, workspace_id: str, after: int, upto: int) -> list[Event]:
        read = partial(log.select, workspace_id=workspace_id, after=after, before=upto + 1, limit=upto - after)
        return await self._db.read(read)

    async def heads(self, workspaces: Iterable[str]) -> dict[str, int]:
        """How far the logs of some workspaces are now."""
        names = sorted(workspaces)
        found = dict(await self._db.read(partial(log.heads, workspaces=names))) if names else {}
        return {name: found.get(name, 0) for name in names}

    async def _watch(self) -> None:
        seen, away = -1, False
        while True:
            if not self._waiters and not self._waiting_for_any:
                self._look.clear()
                await self._look.wait()
            try:
                present = self._db.data_version()
                if present and present != seen:
                    self._note_change()
                # Also if nobody waits any more: a notification that stays would never let the loop rest.
                notified, self._notified = self._notified, False
                if self._waiters and (notified or not present or present != seen):
                    heads, self.rights_version = await self._db.read(partial(_looked, workspaces=sorted(self._waiters)))
                    self._wake(heads)
                seen = present
                away = False
            except StoreError as error:
                if not away:
                    logger.warning("The log cannot be watched: %s", error)
                away = True
            await self._pause(AWAY_SECONDS if away else self._look_seconds)

    def _wake(self, heads: Mapping[str, int]) -> None:
        if len(self._reached) > MAX_REACHED:
            self._reached.clear()
        self._reached.update(heads)
        for name, head in heads.items():
            for waiter, seq in self._waiters.get(name, {}).items():
                if head > seq and not waiter.done():
                    waiter.set_result(None)

    async def _pause(self, seconds: float) -> None:
        """Wait until somebody notifies, at most `seconds`."""
        self._look.clear()
        until = time.monotonic() + seconds
        while not self._notified and (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._look.wait()
                    self._look.clear()


def _looked(tx: Tx, workspaces: list[str]) -> tuple[dict[str, int], int]:
    """How far some logs are, and then the version of rights."""
    found = dict(log.heads(tx, workspaces))
    return {name: found.get(name, 0) for name in workspaces}, log.rights_version(tx)
