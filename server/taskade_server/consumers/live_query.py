"""A list that stays current: first as it is, then what has to be done to it, so that a copy becomes the list of now.

Why the list is read again instead of being worked out from the events: order, limit, search and rights then mean what
they mean in any list. The events only tell when that is worth while, and most of the time it is not.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import Caller, RenderedEvents, too_expensive
from taskade_server.consumers.pace import MATCH_STEPS
from taskade_server.engine import events, filters
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Event
from taskade_server.engine.query import Query
from taskade_server.kit import json
from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.kit.errors import NotFound

VISIBILITIES: Final = ("workspace", "project")
"""What is seen in one workspace by its own log; people and keys are seen across several."""
REST_SECONDS: Final = 0.05
MAX_WORDS: Final = 100
"""How many words, or pieces of a run without spaces, a list that stays current may look for."""


class Snapshot(NamedTuple):
    """A list as it is at a position of the log: rendered documents in order, and the request as it was understood."""

    seq: int
    documents: list[str]
    query: Query


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
    """One subscriber's list.

    `read` gives the list of a request as the caller of now sees it, and means the days of their time zone of now;
    `caller` gives that caller. Both raise if there is none any more.
    """

    def __init__(
        self,
        feed: Feed,
        shown: RenderedEvents,
        query: Query,
        workspace_id: str,
        read: Callable[[Query], Awaitable[Snapshot]],
        caller: Caller,
    ) -> None:
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

    async def first(self) -> Snapshot:
        """The list as it is."""
        self._remember(await self._caller(None))
        snapshot = await self._look()
        _, self._known.prints = steps({}, snapshot.documents)
        return snapshot

    async def _look(self) -> Snapshot:
        snapshot = await self._read(self._query)
        self.position, self._query = snapshot.seq, snapshot.query
        return snapshot

    async def next(self, seconds: float) -> list[Step]:
        """What has happened to the list by `position`, if anything did within so many seconds.

        As `Follower.next` when the caller may not see the workspace any more.
        """
        if self._feed.reached(self.workspace_id) <= self.position:
            await self._feed.wait({self.workspace_id: self.position}, seconds)
        head = self._feed.reached(self.workspace_id)
        principal = await self._caller(self._feed.rights_version if head > self.position else None)
        stale = self._remember(principal)
        position = self.position
        while position < head and not stale:
            page = await self._feed.page(self.workspace_id, position, head)
            for event in page:
                await self._feed.pace.turn(principal.user_id)
                stale = self._matters(event, principal)
                if stale:
                    break
            position = page[-1].seq if page else head
        if not stale:
            self.position = position
            return []
        snapshot = await self._look()
        found, self._known.prints = steps(self._known.prints, snapshot.documents)
        return found

    def _remember(self, principal: Principal) -> bool:
        """Note what the caller may see; whether that has changed, or which days they mean."""
        grant = principal.grant(self.workspace_id)
        if grant is None:
            raise NotFound(f"There is no workspace {self.workspace_id} that this key can see any more.")
        changed = grant != self._grant or principal.scopes != self._scopes
        self._grant, self._scopes = grant, principal.scopes
        return changed or not self._query.keeps_zone(principal)

    def _matters(self, event: Event, principal: Principal) -> bool:
        """Whether an event may alter the list: it is about something in it, or something that belongs in it."""
        resource = self._query.resource
        if event.resource != resource.name:
            return False
        if event.object_id in self._known.prints:
            return True
        if not events.sees(principal, event):
            return False
        budget, before = Budget(MATCH_STEPS), self._shown.spent
        try:
            facts, words = self._shown.facts(event), self._query.words
            if facts.document.get("deleted_at") is not None or not filters.holds(self._query.where, facts, budget):
                return False
            if not words:
                return True
            present = self._shown.words(event)
            budget.spend(len(words))
            return filters.begin_words(words, present)
        except BudgetSpent:
            raise too_expensive(event) from None
        finally:
            self._feed.pace.add(1 + budget.used + self._shown.spent - before)


def encoded(step: Step, subscription: str, seq: int) -> str:
    """A step as a message."""
    head = json.encode({"type": step.kind, "subscription": subscription, "seq": seq, "id": step.id})
    if step.document is None:
        return head
    return f'{head[:-1]},"after":{json.encode(step.after)},"item":{step.document}}}'
