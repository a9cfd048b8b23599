"""Writes down who was refused what, and who read a secret, shortly after it happened and together with others.

Why counted and bounded: a flood of refusals must neither slow the server down nor fill its disk. The same thing is
written once when it is new and once more, with a count, a minute later; and of each caller only so many different ones.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from taskade_server.engine.access import Principal
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json, time
from taskade_server.store.database import Database, StoreError, Tx
from taskade_server.store.tables import access_log as accesses
from taskade_server.store.tables.access_log import INSTALLATION, Access

logger: Final = logging.getLogger("taskade")

FLUSH_SECONDS: Final = 1.0
MINUTE: Final = 60_000
PER_CALLER: Final = 30
"""How many different entries one caller may cause in a minute."""
IN_ALL: Final = 1000
DENIED: Final = "access.denied"
FAILED: Final = "login.failed"
SECRET_READ: Final = "secret.read"  # the name of an action, and no secret
EXPORTED: Final = "audit.exported"
MORE: Final = "access.more"
ACTIONS: Final = (DENIED, FAILED, SECRET_READ, EXPORTED, MORE)


class AccessEntry(NamedTuple):
    """One entry for the access log; equal entries of a request are stored once, with their number.

    `claimed` is the id of the key that a caller presented and that was refused; `workspace_id` the workspace that the
    entry is about, if it is known by now. `one` is a text that keeps an entry from being equal to any other.
    """

    action: str
    outcome: str
    status: int
    reason: str | None
    operation: str | None
    object_id: str | None
    actor_id: str | None
    key_id: str | None
    claimed: str | None
    workspace_id: str
    address: str | None
    user_agent: str | None
    one: str | None = None


@dataclass(slots=True)
class _Tally:
    """How often something happened since it was last written, and all there is to know of the first time."""

    principal: Principal | None
    request_id: str | None
    source: str
    began: int
    first: int
    last: int
    times: int = 0
    written: bool = False


@dataclass(slots=True)
class Refusals:
    """What has yet to be written, of one process. `flush` again and again, and once more at the end."""

    db: Database
    _tallies: dict[AccessEntry, _Tally] = field(default_factory=dict)
    _sources: Counter[str] = field(default_factory=Counter)
    _writing: "asyncio.Task[None] | None" = None

    def note(self, entry: AccessEntry, source: str, request_id: str | None, principal: Principal | None = None) -> None:
        """Something happened. `source` is who is answerable for it: a key, or an address."""
        now = time.now_ms()
        tally = self._tallies.get(entry)
        if tally is None:
            entry = self._bounded(entry, source)
            tally = self._tallies.get(entry)
        if tally is None:
            tally = self._tallies[entry] = _Tally(principal, request_id, source, now, now, now)
            self._sources[source] += 1
        if not tally.times:
            tally.first = now
        tally.times += 1
        tally.last = now

    def _bounded(self, entry: AccessEntry, source: str) -> AccessEntry:
        """Return the entry, or one that stands for all further entries when there are too many."""
        if len(self._tallies) >= IN_ALL:
            reason = "More happened than is written down in a minute."
            return AccessEntry(MORE, "denied", 0, reason, None, None, None, None, None, INSTALLATION, None, None)
        if self._sources[source] < PER_CALLER:
            return entry
        reason = f"More than {PER_CALLER} different things in a minute; these are counted together."
        return AccessEntry(
            MORE, entry.outcome, 0, reason, None, None, entry.actor_id, entry.key_id, None, "", entry.address, None
        )

    async def flush(self, *, everything: bool = False) -> None:
        """Write what is new, and what has been counted for a minute. StoreError: it is tried again next time.

        Whoever is cancelled while it waits leaves the write to go on, and the next call waits for its end first:
        a write whose outcome nobody looked at would be made, and counted, twice.
        """
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
        self._writing = asyncio.create_task(self._write(everything))
        await asyncio.shield(self._writing)

    async def _write(self, everything: bool) -> None:
        now = time.now_ms()
        due = [
            (entry, tally, tally.times)
            for entry, tally in self._tallies.items()
            if tally.times and (everything or not tally.written or not 0 <= now - tally.began < MINUTE)
        ]
        if due:

            def unit(tx: Tx) -> None:
                accesses.add(tx, [_entry(tx, entry, tally, times) for entry, tally, times in due])

            await self.db.write(unit)
            for _, tally, times in due:
                tally.times -= times
                tally.written = True
        for entry, tally in list(self._tallies.items()):
            if not 0 <= now - tally.began < MINUTE and not tally.times:
                del self._tallies[entry]
                self._sources[tally.source] -= 1
                if not self._sources[tally.source]:
                    del self._sources[tally.source]

    async def run(self) -> None:
        """Flush every second, for ever."""
        failing = False
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
                failing = False
            except StoreError as error:
                if not failing:
                    logger.warning("Refusals cannot be written down for now: %s", error)
                failing = True

    async def finish(self) -> None:
        """Write all there is, if that can be done at all."""
        try:
            await self.flush(everything=True)
        except StoreError as error:
            logger.warning("The last refusals were not written down: %s", error)


# ---- whom and what it is about ---------------------------------------------------------------------------------------


def _entry(tx: Tx, entry: AccessEntry, tally: _Tally, times: int) -> Access:
    actor_id, key_id, workspace_id = entry.actor_id, entry.key_id, entry.workspace_id
    resource, home = _object(tx, entry.object_id)
    if entry.claimed is not None:
        key_id = entry.claimed
        workspace_id, actor_id = _claimed(tx, entry.claimed)
    elif tally.principal is not None:
        # Nobody writes into the log of a workspace that they have no part in.
        reach = tally.principal.grants
        workspace_id = next(
            (name for name in (workspace_id, home) if name in reach), tally.principal.default_workspace or ""
        )
    return Access(
        workspace_id=workspace_id or INSTALLATION,
        seq=0,
        id="",
        action=entry.action,
        outcome=entry.outcome,
        status=entry.status or None,
        reason=entry.reason,
        operation=entry.operation,
        resource=resource,
        object_id=entry.object_id,
        actor_id=actor_id,
        key_id=key_id,
        request_id=tally.request_id,
        at=tally.first,
        last_at=tally.last,
        times=times,
        address=entry.address,
        user_agent=entry.user_agent,
    )


def _object(tx: Tx, object_id: str | None) -> tuple[str | None, str]:
    """What an id names, by its prefix, and the workspace that it lies in, if it exists."""
    prefix = (object_id or "").rpartition("_")[0]
    resource = next((known for known in REGISTRY.values() if known.prefix == prefix), None)
    if resource is None:
        return None, ""
    row = tx.one(f"SELECT workspace_id FROM {resource.table} WHERE id = ?", (object_id,))
    return resource.name, str(row[0] or "") if row else ""


def _claimed(tx: Tx, key_id: str) -> tuple[str, str | None]:
    """The workspace and the user of a key that is or once was."""
    row = tx.one("SELECT workspace_id, user_id FROM api_keys WHERE id = ?", (key_id,))
    if row is not None:
        return row[0] or "", row[1]
    row = tx.one(
        "SELECT workspace_id, data FROM events WHERE object_id = ? AND resource = 'api_key' ORDER BY seq DESC LIMIT 1",
        (key_id,),
    )
    return (row[0], json.decode(row[1])["user_id"]) if row else ("", None)
