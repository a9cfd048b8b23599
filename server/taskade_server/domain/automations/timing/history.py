"""What the log tells of an object: when something was last done with it, and since when a filter has been true."""

from collections.abc import Iterator
from typing import Final

from taskade_server.domain.automations.timing.watch import Watch, document_of, types_of
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Tx

COMMENTS: Final = 20
EVENTS: Final = 50
MAX_EVENTS: Final = 500
"""How many events about one object are looked at; what is older counts from the oldest of them."""


def last_activity(tx: Tx, watch: Watch, object_id: str, after: int = 0) -> Event | None:
    """The newest event about a task or a comment on it behind a seq; None if there is none.

    Changes that the automation itself led to do not count. Of comments, the twenty that were changed last are looked
    at.
    """
    workspace_id = watch.document["workspace_id"]
    comments = tx.all(
        f"SELECT id FROM comments WHERE task_id = ? ORDER BY updated_at DESC, n DESC LIMIT {COMMENTS}", (object_id,)
    )
    newest: Event | None = None
    for resource, about in (("task", object_id), *(("comment", row[0]) for row in comments)):
        types = [name for name in types_of(REGISTRY[resource]) if not name.endswith(".purged")]
        found = log.select(
            tx,
            workspace_id,
            max(after, newest.seq if newest else 0),
            log.MAX_SEQ,
            limit=EVENTS,
            descending=True,
            types=types,
            object_id=about,
        )
        newest = next((event for event in found if not watch.is_own(event.origin)), newest)
    return newest


def held_since(tx: Tx, watch: Watch, object_id: str, budget: Budget) -> Event | None:
    """The event since which the filter of a trigger has been true of an object; None if it is not true now."""
    since: Event | None = None
    for event in _newest_first(tx, watch, object_id, 0):
        if not watch.fits(document_of(event), budget):
            break
        since = event
    return since


def is_held(tx: Tx, watch: Watch, object_id: str, after: int, budget: Budget) -> bool:
    """Whether the filter of a trigger has been true of an object at each event behind a seq."""
    return all(watch.fits(document_of(event), budget) for event in _newest_first(tx, watch, object_id, after))


def _newest_first(tx: Tx, watch: Watch, object_id: str, after: int) -> Iterator[Event]:
    """The events about an object behind a seq, newest first, at most so many as are looked at."""
    before, types = log.MAX_SEQ, types_of(watch.resource)
    for _ in range(MAX_EVENTS // EVENTS):
        page = log.select(
            tx,
            watch.document["workspace_id"],
            after,
            before,
            limit=EVENTS,
            descending=True,
            types=types,
            object_id=object_id,
        )
        yield from page
        if not page:
            return
        before = page[-1].seq
