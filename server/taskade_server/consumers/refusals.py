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
from taskade_server.store import accesses
from taskade_server.store.accesses import INSTALLATION, Access
from taskade_server.store.database import Database, StoreError, Tx

logger: Final = logging.getLogger("taskade")

FLUSH_SECONDS: Final = 1.0
MINUTE: Final = 60_000
PER_CALLER: Final = 30
"""So many different things are noted of one caller in a minute."""
IN_ALL: Final = 1000
DENIED: Final = "access.denied"
FAILED: Final = "login.failed"
SECRET_READ: Final = "secret.read"  # not one
EXPORTED: Final = "audit.exported"
MORE: Final = "access.more"
ACTIONS: Final = (DENIED, FAILED, SECRET_READ, EXPORTED, MORE)


class Noted(NamedTuple):
    """What is noted. Equal ones are counted instead. `claimed` is a key that somebody claimed to have.

    `place` is the workspace that it is about, if that is known by now; `one` makes something unlike all others.
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
    place: str
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
    _tallies: dict[Noted, _Tally] = field(default_factory=dict)
    _sources: Counter[str] = field(default_factory=Counter)

    def note(self, noted: Noted, source: str, request_id: str | None, principal: Principal | None = None) -> None:
        """Something happened. `source` is who is answerable for it: a key, or an address."""
        now = time.now_ms()
        tally = self._tallies.get(noted)
        if tally is None:
            noted = self._bounded(noted, source)
            tally = self._tallies.get(noted)
        if tally is None:
            tally = self._tallies[noted] = _Tally(principal, request_id, source, now, now, now)
            self._sources[source] += 1
        if not tally.times:
            tally.first = now
        tally.times += 1
        tally.last = now

    def _bounded(self, noted: Noted, source: str) -> Noted:
        """The same, or what stands for it when there is too much of it."""
        if len(self._tallies) >= IN_ALL:
            reason = "More happened than is written down in a minute."
            return Noted(MORE, "denied", 0, reason, None, None, None, None, None, INSTALLATION, None, None)
        if self._sources[source] < PER_CALLER:
            return noted
        reason = f"More than {PER_CALLER} different things in a minute; these are counted together."
        return Noted(
            MORE, noted.outcome, 0, reason, None, None, noted.actor_id, noted.key_id, None, "", noted.address, None
        )

    async def flush(self, *, everything: bool = False) -> None:
        """Write what is new, and what has been counted for a minute. StoreError: it is tried again next time."""
        now = time.now_ms()
        due = [
            (noted, tally, tally.times)
            for noted, tally in self._tallies.items()
            if tally.times and (everything or not tally.written or now - tally.began >= MINUTE)
        ]
        if due:

            def unit(tx: Tx) -> None:
                accesses.add(tx, [_entry(tx, noted, tally, times) for noted, tally, times in due])

            await self.db.write(unit)
            for _, tally, times in due:
                tally.times -= times
                tally.written = True
        for noted, tally in list(self._tallies.items()):
            if now - tally.began >= MINUTE and not tally.times:
                del self._tallies[noted]
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


def _entry(tx: Tx, noted: Noted, tally: _Tally, times: int) -> Access:
    actor_id, key_id, place = noted.actor_id, noted.key_id, noted.place
    resource, home = _object(tx, noted.object_id)
    if noted.claimed is not None:
        key_id = noted.claimed
        place, actor_id = _claimed(tx, noted.claimed)
    elif tally.principal is not None:
        # Nobody writes into the log of a workspace that they have no part in.
        reach = tally.principal.grants
        place = next((name for name in (place, home) if name in reach), tally.principal.default_workspace or "")
    return Access(
        place or INSTALLATION, 0, "", noted.action, noted.outcome, noted.status or None, noted.reason, noted.operation,
        resource, noted.object_id, actor_id, key_id, tally.request_id, tally.first, tally.last, times, noted.address,
        noted.user_agent,
    )  # fmt: skip


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
