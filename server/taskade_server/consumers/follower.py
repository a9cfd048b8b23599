"""Follows a workspace's log for one subscriber: what it wants and may see, and what it may see no longer.

Why the position is all that a subscriber is to us: nothing is queued for it, so a slow one costs nothing but its place,
and one that comes back, on whatever process, goes on where it was.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from taskade_server.consumers.feed import Feed
from taskade_server.consumers.pace import DECODED_A_STEP, MATCH_STEPS
from taskade_server.engine import events, filters
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.filters import Facts, Node
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json
from taskade_server.kit.budget import Budget, BudgetSpent
from taskade_server.kit.errors import InvalidQuery, Issue, NotFound

T = TypeVar("T")
REVOKED: Final = "access.revoked"
RESYNC: Final = "resync"
_KEPT: Final = 256
_KEPT_TEXT: Final = 64 << 10


Caller = Callable[[int | None], Awaitable[Principal]]
"""Gives the principal of now, or of a version of rights that was seen; raises why there is none."""


class Frame(NamedTuple):
    """One thing to tell: its type and JSON text. `seq` is where to go on from once it is told; None: where it was."""

    type: str
    data: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class EventSelection:
    """Which events of a workspace somebody wants; what is None is not asked for. `condition` is a filter of `data`."""

    workspace_id: str
    types: frozenset[str] | None = None
    project_id: str | None = None
    object_id: str | None = None
    condition: tuple[Resource, Node] | None = None

    def fits(self, event: Event, facts: Callable[[Event], Facts], budget: Budget) -> bool:
        """Whether an event is one of them; the facts of its document are asked for only if that matters.

        BudgetSpent if that takes more than the budget has.
        """
        if self.types is not None and event.type not in self.types:
            return False
        if self.project_id is not None and event.project_id != self.project_id:
            return False
        if self.object_id is not None and event.object_id != self.object_id:
            return False
        if self.condition is None:
            return True
        resource, node = self.condition
        return event.resource == resource.name and filters.holds(node, facts(event), budget)


def document_of(event: Event) -> dict[str, Any]:
    """What an event tells of, with every member that its resource has by now."""
    members = dict.fromkeys(REGISTRY[event.resource].fields)
    return {**members, **json.decode(event.data)}


def facts_of(event: Event) -> Facts:
    """The values of an event's document that filters compare."""
    return Facts(REGISTRY[event.resource], document_of(event))


class RenderedEvents:
    """Events as their readers are shown them, made once for all who follow the same log and see the same of them.

    `spent` counts the steps of decoding documents.
    """

    def __init__(self) -> None:
        self.spent = 0
        self._texts: OrderedDict[_Key, str] = OrderedDict()
        self._facts: OrderedDict[_Key, Facts] = OrderedDict()
        self._words: OrderedDict[_Key, list[str]] = OrderedDict()

    def text(self, event: Event) -> str:
        """Its JSON text."""
        return _remembered(self._texts, event, events.render)

    def facts(self, event: Event) -> Facts:
        """The values of the event's document that filters compare."""
        return _remembered(self._facts, event, self._make_facts)

    def words(self, event: Event) -> list[str]:
        """The words of its document that a search looks at, sorted."""
        return _remembered(self._words, event, self._make_words)

    def _make_facts(self, event: Event) -> Facts:
        self.spent += len(event.data) // DECODED_A_STEP
        return facts_of(event)

    def _make_words(self, event: Event) -> list[str]:
        self.spent += len(event.data) // DECODED_A_STEP
        return sorted(REGISTRY[event.resource].words(self.facts(event).document))


_Key = tuple[str, int, bool]
"""The workspace, the seq, and whether the event is shown without what its object held before it was moved."""


def _remembered(known: "OrderedDict[_Key, T]", event: Event, make: Callable[[Event], T]) -> T:
    key = (event.workspace_id, event.seq, event.previous == events.MOVED_IN)
    found = known.get(key)
    if found is None:
        found = make(event)
        if len(event.data) <= _KEPT_TEXT:
            known[key] = found
            if len(known) > _KEPT:
                known.popitem(last=False)
    return found


class Follower:
    """One subscriber's way through a log."""

    def __init__(self, feed: Feed, shown: RenderedEvents, wanted: EventSelection, caller: Caller, after: int) -> None:
        self.wanted = wanted
        self.position = after
        self._feed = feed
        self._shown = shown
        self._caller = caller
        self._principal: Principal | None = None
        self._revoked: set[str] = set()

    async def next(self, seconds: float) -> list[Frame]:
        """What comes next, if that happens within so many seconds; the position may move without anything to tell.

        The caller's Problem if the caller is none any more, NotFound if the workspace is out of reach, StoreError.
        """
        name = self.wanted.workspace_id
        if self._principal is None:
            head = (await self._feed.heads([name]))[name]
        else:
            if self._feed.reached(name) <= self.position:
                await self._feed.wait({name: self.position}, seconds)
            head = self._feed.reached(name)
        # Of a state behind the head: whatever rights a change up to there has ended are ended here, too.
        looked = self._principal is not None and head > self.position
        principal = await self._caller(self._feed.rights_version if looked else None)
        frames = self._losses(principal)
        if head > self.position:
            page = await self._feed.page(name, self.position, head)
            for event in page:
                await self._feed.pace.turn(principal.user_id)
                frame = self._frame(principal, event)
                if frame is not None:
                    frames.append(frame)
            self.position = page[-1].seq if page else head
        return frames

    def _frame(self, principal: Principal, event: Event) -> Frame | None:
        shown = events.shown_to(principal, event)
        if shown is not None:
            self._revoked.discard(event.object_id)
            if self._fits(shown):
                return Frame(shown.type, self._shown.text(shown), shown.seq)
            return None
        found = taken(principal, event)
        if found is None or found[1] in self._revoked:
            return None
        if self.wanted.project_id is not None and self.wanted.project_id not in (found[1], found[2]):
            return None
        self._revoked.add(found[1])
        return revocation(found[0], found[1], event.workspace_id, event.seq)

    def _fits(self, event: Event) -> bool:
        budget, before = Budget(MATCH_STEPS), self._shown.spent
        try:
            return self.wanted.fits(event, self._shown.facts, budget)
        except BudgetSpent:
            raise too_expensive(event) from None
        finally:
            self._feed.pace.add(1 + budget.used + self._shown.spent - before)

    def _losses(self, principal: Principal) -> list[Frame]:
        """What the caller could see before and cannot now, as far as that follows from the rights alone."""
        before, self._principal = self._principal, principal
        name = self.wanted.workspace_id
        grant = principal.grant(name)
        if grant is None:
            raise NotFound(f"There is no workspace {name} that this key can see any more.")
        if before is None or before is principal:
            return []
        old = before.grant(name) or grant
        self._revoked = {found for found in self._revoked if not grant.sees_project(name, found, is_open=True)}
        lost = [found for found in _lost_projects(old, grant) if found not in self._revoked]
        if self.wanted.project_id is not None:
            lost = [found for found in lost if found == self.wanted.project_id]
        self._revoked.update(lost)
        frames = [revocation("project", found, name) for found in lost]
        if _is_less(before, old, principal, grant):
            frames.append(Frame(RESYNC, json.encode({"workspace_id": name, "reason": "access"})))
        return frames


def too_expensive(event: Event) -> InvalidQuery:
    """What a subscription ends with whose filter takes too much work at an event."""
    detail = f"Comparing the filter with the event {event.seq} takes too much work; use fewer or simpler conditions."
    return InvalidQuery(errors=[Issue("too_expensive", detail, parameter="filter")])


def taken(principal: Principal, event: Event) -> tuple[str, str, str] | None:
    """What an event took out of a principal's sight: its kind, its id and the project that it was in."""
    name, project = event.workspace_id, event.project_id
    grant = principal.grant(name)
    if grant is None or project is None or event.previous is None:
        return None
    if grant.sees_project(name, project, is_open=(name, project) in event.sight.open):
        return None
    if event.resource == "member":
        mine = json.decode(event.data).get("user") == principal.user_id
        return ("project", project, project) if mine else None
    if event.type != REGISTRY[event.resource].event_type("updated"):
        return None
    previous = json.decode(event.previous)
    if event.resource == "project":
        return ("project", project, project) if previous.get("visibility") == "workspace" else None
    old = previous.get("project_id")
    if old and grant.sees_project(name, old, is_open=(name, old) in event.sight.open):
        return event.resource, event.object_id, old
    return None


def revocation(kind: str, object_id: str, workspace_id: str, seq: int | None = None) -> Frame:
    """The caller may not see an object any more, nor what is in it."""
    document = {"resource": kind, "id": object_id, "workspace_id": workspace_id, "seq": seq}
    return Frame(REVOKED, json.encode(document), seq)


def _lost_projects(old: Grant, new: Grant) -> list[str]:
    hidden = {found for found in new.hidden - old.hidden if old.sees_project(old.workspace_id, found, is_open=True)}
    if old.only is not None and new.only is not None:
        hidden |= old.only - new.only
    return sorted(hidden)


def _is_less(before: Principal, old: Grant, after: Principal, new: Grant) -> bool:
    """Whether so much was lost that it cannot be told object by object."""
    return (old.only is None and new.only is not None) or not all(map(after.allows, before.scopes))
