"""Why an event starts an automation, or why not: each thing that has to be so, and whether it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taskade_server.domain.automations import starting
from taskade_server.domain.automations.resources import READER
from taskade_server.domain.automations.rights import RightsLost, principal_of
from taskade_server.domain.automations.rules import Rule, maker_of, rule_of
from taskade_server.engine import events, filters
from taskade_server.engine.filters import And, Facts, Leaf, Node, Not, Or
from taskade_server.engine.log import Event
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Tx
from taskade_server.store.tables import cursors, runs
from taskade_server.store.tables.runs import Filter, Run, Version


@dataclass(frozen=True, slots=True)
class Explanation:
    """What has become of an event. `checks` are as `explain` gives them, by the `version` that held at the time.

    `pending`: it was not decided yet whether it starts a run.
    """

    version: int | None
    checks: list[dict[str, Any]]
    pending: bool
    run: Run | None


def explanation(tx: Tx, automation: dict[str, Any], event: Event, document: dict[str, Any]) -> Explanation:
    """Why an event has started a run of an automation, or why not, and what has become of the run.

    By the rights that the automation has now, and by nothing but the event: who sees that may see the answer.
    """
    version = runs.version_at(tx, automation["id"], event.seq)
    definition = automation if version is None else json.decode(version.doc)
    try:
        principal = principal_of(tx, definition)
    except RightsLost:
        principal = None
    held = version or Version(automation["id"], automation["version"], event.workspace_id, 0, event.seq, event.seq, "")
    rule = rule_of(tx, held, definition, principal)
    run = next(iter(runs.newest(tx, automation["id"], Filter(events=[event.id]), None, 1)), None)
    return Explanation(
        version=None if version is None else version.version,
        checks=explain(rule, event, document, tx.budget),
        pending=version is not None and run is None and cursors.position(tx, READER, event.workspace_id) < event.seq,
        run=run,
    )


def explain(rule: Rule, event: Event, document: dict[str, Any], budget: Budget) -> list[dict[str, Any]]:
    """The checks that an event passes or not on its way to a run.

    Each has `check` (its name), `holds`, a `detail` in words, and `tree`: of the condition what it asks for, else None.
    All hold if, and only if, the event starts a run. `document` is the event's `data`, with every member that its
    resource has. BudgetSpent if comparing them takes too much work.
    """
    return [{"tree": None, **check} for check in _checks(rule, event, document, budget)]


def _checks(rule: Rule, event: Event, document: dict[str, Any], budget: Budget) -> Iterator[dict[str, Any]]:
    subscription, trigger = rule.subscription, rule.document["trigger"]
    yield _check(
        "enabled",
        subscription.was_enabled(event.seq),
        "The automation was enabled then.",
        "The automation was not enabled then, or there was none yet.",
    )
    if trigger["on"] != "event":
        detail = f"The trigger is {trigger['on']}: no event starts it."
        yield _check("trigger", False, "", detail)
        return
    types = ", ".join(trigger["types"])
    fits = events.fits(trigger["types"], event.type)
    yield _check("types", fits, f"{event.type} is one of {types}.", f"{event.type} is none of {types}.")
    own = event.object_id != rule.subscription.id
    yield _check("object", own, "It is about something else than the automation.", "It is about the automation itself.")
    project = rule.document["project_id"]
    if project is not None:
        yield _check(
            "project",
            event.project_id == project,
            f"It happened in {project}.",
            f"It happened in {event.project_id or 'no project'}, not in {project}.",
        )
    seen = events.sees(subscription.principal, event)
    yield _check("rights", seen, "The automation's key sees it.", "The automation's key does not see it, or is gone.")
    if rule.changes is not None:
        shown = events.shown_to(subscription.principal, event)
        changed = shown is not None and rule.changes.happened(shown, document, budget)
        yield _check(
            "changed",
            changed,
            "What the trigger asks for has changed.",
            "It does not change what the trigger asks for: a member that `previous` lacks has not changed, and"
            " the old and new value have to be among `from` and `to`.",
        )
    if subscription.trees is not None:
        tree = subscription.trees.get(event.resource)
        if tree is None:
            yield _check("condition", False, "", f"The condition cannot be about a {event.resource}.")
        else:
            facts = Facts(_resource(event), document)
            held = filters.holds(tree, facts, budget)
            found = _check("condition", held, "The condition holds.", "The condition does not hold.")
            yield {**found, "tree": tree_of(tree, facts, budget)}
    yield from _causes(rule, event)


def _causes(rule: Rule, event: Event) -> Iterator[dict[str, Any]]:
    circle = starting.circle_of(rule.document, starting.chain_of(event.origin))
    yield _check("loop", circle is None, "No circle of automations has led to it.", circle or "")
    kind = maker_of(event)
    if kind is not None:
        yield _check(
            "origin",
            kind in rule.document["include"],
            f"Changes by {kind} are included.",
            f"It was made by {kind}; name it in `include` if that shall start runs.",
        )


def _check(name: str, holds: bool, yes: str, no: str) -> dict[str, Any]:
    return {"check": name, "holds": holds, "detail": yes if holds else no}


def _resource(event: Event) -> Any:
    return events.catalogue()[event.type].resource


def tree_of(node: Node, facts: Facts, budget: Budget) -> dict[str, Any]:
    """A filter with the truth of each of its parts: `all`, `any` or `not` with parts, or a comparison of a `field`."""
    holds = filters.holds(node, facts, budget)
    if isinstance(node, And):
        return {"all": [tree_of(part, facts, budget) for part in node.parts], "holds": holds}
    if isinstance(node, Or):
        return {"any": [tree_of(part, facts, budget) for part in node.parts], "holds": holds}
    if isinstance(node, Not):
        return {"not": tree_of(node.part, facts, budget), "holds": holds}
    return _leaf(node, facts, holds)


def _leaf(node: Leaf, facts: Facts, holds: bool) -> dict[str, Any]:
    name = node.member.name
    actual = facts.document.get(name)
    key = node.side.removeprefix(".") if node.side is not None and node.side.startswith(".") else None
    if key is not None:
        name, actual = f"{name}.{key}", (actual or {}).get(key)
    return {"field": name, "operator": f"${node.op}", "actual": actual, "holds": holds}
