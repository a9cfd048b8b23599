"""Subscriptions: who is told of which events, for webhooks and whatever else acts on the log by a filter.

Why here: which events a subscription is about, what its owner may know, and what its filter means must not depend on
what is done with the events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from taskade_server.engine import events, filters, query
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json, time, zones
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import InvalidQuery, Issue
from taskade_server.store.database import Tx

FILTER_INVALID: Final = "filter_invalid"
FILTER_TOO_EXPENSIVE: Final = "filter_too_expensive"
FILTER_REASONS: Final = (FILTER_INVALID, FILTER_TOO_EXPENSIVE)
"""Why a subscription ends whose filter can no longer be compared with events."""


class Condition:
    """A subscription's filter: of the resources with wanted events, it is about those that have all its members."""

    def __init__(self, document: dict[str, Any], patterns: Sequence[str]) -> None:
        self._document = document
        kinds = {kind.resource.name: None for kind in events.catalogue().values() if events.fits(patterns, kind.name)}
        self._resources = [REGISTRY[name] for name in kinds]

    def resolve_names(self, tx: Tx, principal: Principal) -> tuple[dict[str, Any], list[Issue]]:
        """Return the document with ids in the place of handles, e-mail addresses and `me`, and what is wrong with it.

        It is right if it is right for one of the resources and names nobody whom the principal does not know; if it is
        wrong, the document is as it was.
        """
        document, faults, is_right = self._document, list[Issue](), False
        for resource in self._resources:
            parser, _ = self._parse(resource, tx, principal)
            if parser.only_people_unknown:
                return document, parser.issues
            if not parser.issues:
                document, is_right = filters.with_ids(document, parser.references), True
            elif not faults or len(parser.issues) < len(faults):
                faults = parser.issues
        return document, [] if is_right else faults

    def excludes_nothing(self, tx: Tx, principal: Principal) -> bool:
        """Whether the filter lets everything through, of every resource that it is about."""
        nodes = self.trees(tx, principal).nodes.values()
        return bool(nodes) and all(map(filters.excludes_nothing, nodes))

    def trees(self, tx: Tx | None = None, principal: Principal | None = None, zone: str = zones.DEFAULT) -> "Trees":
        """Return the filter parsed for each resource that it is about. Without a principal every name is unknown."""
        nodes: dict[str, filters.Node] = {}
        relative = named = False
        for resource in self._resources:
            parser, node = self._parse(resource, tx, principal, zone)
            if not parser.issues:
                nodes[resource.name] = node
            relative, named = relative or parser.relative, named or parser.only_people_unknown
        return Trees(nodes, relative, named)

    def _parse(
        self, resource: Resource, tx: Tx | None, principal: Principal | None, zone: str = zones.DEFAULT
    ) -> tuple[filters.Parser, filters.Node]:
        def resolve(target: str, reference: str) -> str | None:
            return query.resolve(tx, principal, target, reference) if tx is not None and principal else None

        of_owner = zones.get(zone)
        parser = filters.Parser(resource, resolve, time.now_ms(), typed=True, prefix="/filter", zone=of_owner)
        try:
            return parser, parser.parse(self._document)
        except InvalidQuery as error:
            parser.issues += error.errors
            return parser, filters.EVERYTHING


@dataclass(frozen=True, slots=True)
class Trees:
    """A filter parsed for each resource (by name) that it is about.

    `relative`: it means something else tomorrow (`today`). `named`: it names a person who is not known, so that it may
    be about more resources than these.
    """

    nodes: dict[str, filters.Node]
    relative: bool
    named: bool


@lru_cache(512)
def _parsed_once(document: str, patterns: tuple[str, ...], zone: str) -> Trees:
    """Return a filter from its JSON text, parsed once. One that is relative has to be parsed again for each use."""
    return Condition(json.decode(document), patterns).trees(zone=zone)


@dataclass(slots=True)
class Subscription:
    """Who is told of which events: types, place, filter, and the owner, whose rights bound it."""

    id: str
    workspace_id: str
    project_id: str | None
    patterns: list[str]
    principal: Principal
    trees: dict[str, filters.Node] | None
    spans: list[tuple[int, int | None]]
    """When it was enabled: parts of the log, each from behind one seq up to another, which is None while it lasts."""
    enabled: bool = True
    fault: str | None = None
    """Why its filter cannot be compared with events: one of FILTER_REASONS."""
    keeps_names: bool = False
    """Whether its filter was stored with names in the place of ids."""

    def prepare(self, tx: Tx, document: dict[str, Any]) -> None:
        """Parse the filter, or set `fault` if it cannot be compared with events."""
        if filters.subscription_refusal(document):
            self.fault = FILTER_TOO_EXPENSIVE
            return
        zone = self.principal.zone(self.workspace_id)
        trees = _parsed_once(json.encode(document), tuple(self.patterns), zone)
        if trees.named:
            self.keeps_names = True
            trees = Condition(document, self.patterns).trees(tx, self.principal, zone)
        elif trees.relative:
            trees = Condition(document, self.patterns).trees(zone=zone)
        self.trees = trees.nodes
        if trees.named or not trees.nodes:
            self.fault = FILTER_INVALID

    def was_enabled(self, seq: int) -> bool:
        """Whether it was enabled when the event with this seq happened."""
        return any(begin < seq and (end is None or seq <= end) for begin, end in self.spans)

    def concerns(self, event: Event) -> bool:
        """Whether an event is of a wanted type and place, and visible to the owner."""
        if event.object_id == self.id or not events.fits(self.patterns, event.type):
            return False
        if self.project_id is not None and event.project_id != self.project_id:
            return False
        return events.sees(self.principal, event)

    def fits(self, event: Event, facts: Callable[[], filters.Facts], budget: Budget) -> bool:
        """Whether an event's document satisfies the filter; `facts` returns its values.

        BudgetSpent if the comparison takes more steps than the budget has.
        """
        if self.trees is None:
            return True
        tree = self.trees.get(event.resource)
        return tree is not None and filters.holds(tree, facts(), budget)
