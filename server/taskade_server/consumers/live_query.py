"""A list that stays current: first as it is, then what has to be done to it, so that a copy becomes the list of now.

Why the list is read again instead of being worked out from the events: order, limit, search and rights then mean what
they mean in any list. The events only tell when that is worth while, and most of the time it is not.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import Caller, Shown
from taskade_server.engine import events, filters
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Event
from taskade_server.engine.query import Query
from taskade_server.kit import json
from taskade_server.kit.errors import NotFound

VISIBILITIES: Final = ("workspace", "project")
"""What is seen in one workspace by its own log; people and keys are seen across several."""
REST_SECONDS: Final = 0.05


class Picture(NamedTuple):
    """A list as it is at a position of the log: rendered documents in order."""

    seq: int
    documents: list[str]


class Step(NamedTuple):
    """What to do to a copy. `after` is the id of what it stands behind; null: it is the first.

    kind `added`, `changed`: take the item out if it is there, put it in behind `after`; `removed`: take it out.
    """

    kind: str
    id: str
    after: str | None = None
    document: str | None = None


@dataclass(slots=True)
class _Known:
    """The list as it was told last: a fingerprint of each document by id, in order."""

    prints: dict[str, int] = field(default_factory=dict)


def id_of(document: str) -> str:
    """A rendered document begins with its id."""
    return document[7 : document.index('"', 7)]


def steps(before: Mapping[str, int], documents: list[str]) -> tuple[list[Step], dict[str, int]]:
    """What makes a list with the fingerprints `before` one of these documents, and their fingerprints.

    What did not change keeps its place relative to the others: it is sorted by what it holds.
    """
    after = {id_of(document): hash(document) for document in documents}
    found = [Step("removed", name) for name in before if name not in after]
    previous = None
    for document in documents:
        name = id_of(document)
        if name not in before:
            found.append(Step("added", name, previous, document))
        elif before[name] != after[name]:
            found.append(Step("changed", name, previous, document))
        previous = name
    return found, after


class LiveQuery:
    """One subscriber's list. `read` gives it as the caller of now sees it, `caller` that caller, or raises."""

    def __init__(
        self, feed: Feed, shown: Shown, query: Query, workspace_id: str, read: Callable[[], Awaitable[Picture]],
        caller: Caller,
    ) -> None:  # fmt: skip
        self.workspace_id = workspace_id
        self.position = 0
        self._feed = feed
        self._shown = shown
        self._query = query
        self._read = read
        self._caller = caller
        self._grant: Grant | None = None
        self._scopes: frozenset[str] = frozenset()
        self._known = _Known()

    async def first(self) -> Picture:
        """The list as it is."""
        self._remember(await self._caller(None))
        picture = await self._read()
        self.position = picture.seq
        _, self._known.prints = steps({}, picture.documents)
        return picture

    async def next(self, seconds: float) -> list[Step]:
        """What has happened to the list by `position`, if anything did within so many seconds.

        As `Follower.next` when the caller may not see the workspace any more.
        """
        if self._feed.reached(self.workspace_id) <= self.position:
            await self._feed.wait({self.workspace_id: self.position}, seconds)
        head = self._feed.reached(self.workspace_id)
        principal = await self._caller(self._feed.rights if head > self.position else None)
        stale = self._remember(principal)
        position = self.position
        while position < head and not stale:
            page = await self._feed.page(self.workspace_id, position, head)
            stale = any(self._matters(event, principal) for event in page)
            position = page[-1].seq if page else head
        if not stale:
            self.position = position
            return []
        picture = await self._read()
        found, self._known.prints = steps(self._known.prints, picture.documents)
        self.position = picture.seq
        return found

    def _remember(self, principal: Principal) -> bool:
        """Note what the caller may see; whether that has changed."""
        grant = principal.grant(self.workspace_id)
        if grant is None:
            raise NotFound(f"There is no workspace {self.workspace_id} that this key can see any more.")
        changed = grant != self._grant or principal.scopes != self._scopes
        self._grant, self._scopes = grant, principal.scopes
        return changed

    def _matters(self, event: Event, principal: Principal) -> bool:
        """Whether an event may alter the list: it is about something in it, or something that belongs in it."""
        resource = self._query.resource
        if event.resource != resource.name:
            return False
        if event.object_id in self._known.prints:
            return True
        if not events.sees(principal, event):
            return False
        document = self._shown.document(event)
        if document.get("deleted_at") is not None:
            return False
        words = self._query.words
        return filters.matches(self._query.where, resource, document) and (
            not words or filters.matches_words(words, resource, document)
        )


def encoded(step: Step, subscription: str, seq: int) -> str:
    """A step as a message."""
    head = json.encode({"type": step.kind, "subscription": subscription, "seq": seq, "id": step.id})
    if step.document is None:
        return head
    return f'{head[:-1]},"after":{json.encode(step.after)},"item":{step.document}}}'
