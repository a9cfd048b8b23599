"""Who is looking at which project, told to those who look, too; across processes by leases in the database.

Why a list and not "came" and "went": whoever misses a message is right again with the next one, and a client that is
slow is told what is, not what was.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from taskade_server.kit import json, time
from taskade_server.kit.background import keep_on
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import presence as store
from taskade_server.store.tables.presence import Present

logger: Final = logging.getLogger("taskade")

LOOK_SECONDS: Final = 1.0
RENEW_SECONDS: Final = 10.0
LEASE_MS: Final = store.LEASE_MS
MAX_SHOWN: Final = 200


class Viewer:
    """One connection. `news` is set when there is something new about the projects in `changed`.

    `projects` has since when (epoch ms) each project is looked at, `homes` the workspace of each.
    """

    def __init__(self, connection_id: str, user_id: str) -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self.projects: dict[str, int] = {}
        self.homes: dict[str, str] = {}
        self.changed: set[str] = set()
        self.news = asyncio.Event()


class Presence:
    """The viewers of one process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._viewers: dict[str, set[Viewer]] = {}
        self._shown: dict[str, list[Present]] = {}
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after the leases."""
        self._task = asyncio.create_task(keep_on("Renewing presence", self._run))

    async def stop(self) -> None:
        """End, and give up the leases that are left."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for viewer in {viewer for viewers in self._viewers.values() for viewer in viewers}:
            with suppress(StoreError):
                await self.leave(viewer)

    async def enter(self, viewer: Viewer, workspace_id: str, project_id: str, state: str) -> None:
        """A viewer looks at a project, in a state (a JSON text)."""
        since = viewer.projects.get(project_id) or time.now_ms()
        who = Present(project_id, viewer.connection_id, viewer.user_id, state, since)
        await self._db.write(partial(store.enter, workspace_id=workspace_id, who=who, expires=since_now(LEASE_MS)))
        viewer.projects[project_id], viewer.homes[project_id] = since, workspace_id
        self._viewers.setdefault(project_id, set()).add(viewer)
        if project_id in self._shown:
            self._tell(viewer, project_id)  # also if it is no news for the others
        self._look.set()

    async def leave(self, viewer: Viewer, project_id: str | None = None) -> None:
        """A viewer no longer looks at a project, or at any."""
        gone = list(viewer.projects) if project_id is None else [project_id]
        if not viewer.projects:
            return
        for name in gone:
            viewer.projects.pop(name, None)
            viewer.homes.pop(name, None)
            viewer.changed.discard(name)
            viewers = self._viewers.get(name, set())
            viewers.discard(viewer)
            if not viewers:
                self._viewers.pop(name, None)
                self._shown.pop(name, None)
        await self._db.write(partial(store.leave, connection_id=viewer.connection_id, project_id=project_id))
        self._look.set()

    def message(self, project_id: str) -> str:
        """Return who looks at a project, as clients are told."""
        people = ",".join(
            f'{json.encode({"user_id": one.user_id, "connection_id": one.connection_id})[:-1]},"state":{one.state},'
            f'"since":"{time.format_ms(one.since)}"}}'
            for one in self._shown.get(project_id, [])
        )
        return f'{{"type":"presence","project_id":{json.encode(project_id)},"present":[{people}]}}'

    @staticmethod
    def _tell(viewer: Viewer, project_id: str) -> None:
        viewer.changed.add(project_id)
        viewer.news.set()

    async def _run(self) -> None:
        renewed = monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self._viewers else RENEW_SECONDS):
                    await self._look.wait()
            self._look.clear()
            try:
                if self._viewers:
                    await self._see()
                if self._viewers and monotonic() - renewed >= RENEW_SECONDS:
                    await self._db.write(self._renew)
                    renewed = monotonic()
            except StoreError as error:
                logger.warning("Presence cannot be told: %s", error)
                await asyncio.sleep(LOOK_SECONDS)

    async def _see(self) -> None:
        projects = sorted(self._viewers)
        read: Callable[[Tx], list[Present]] = partial(
            store.of_projects, projects=projects, now=time.now_ms(), limit=MAX_SHOWN
        )
        found: dict[str, list[Present]] = {}
        for one in await self._db.read(read):
            found.setdefault(one.project_id, []).append(one)
        for name in projects:
            if name in self._viewers and found.get(name, []) != self._shown.get(name):
                self._shown[name] = found.get(name, [])
                for viewer in self._viewers[name]:
                    self._tell(viewer, name)

    def _renew(self, tx: Tx) -> None:
        mine = {viewer.connection_id for viewers in self._viewers.values() for viewer in viewers}
        store.renew(tx, sorted(mine), since_now(LEASE_MS))
        store.expire(tx, time.now_ms())


def since_now(ms: int) -> int:
    """Return the moment (epoch ms) that lies some milliseconds ahead."""
    return time.now_ms() + ms
