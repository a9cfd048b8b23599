"""Automations as they are matched with events: the versions of their definitions that hold for a part of the log."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.domain.automations.resources import INCLUDED
from taskade_server.domain.automations.rights import NOBODY, RightsLost, principal_of, zone_of
from taskade_server.domain.automations.timing.watch import Watch, patterns, watch_of
from taskade_server.domain.automations.triggers import Changes
from taskade_server.engine import events
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.engine.subscriptions import FILTER_INVALID, Subscription
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.store.database import StoreError, Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Version

logger: Final = logging.getLogger("taskade")
RIGHTS: Final = "rights"
FAILING: Final = "failing"


@dataclass(slots=True)
class Rule:
    """One version of an automation, ready to be compared with events."""

    version: Version
    document: dict[str, Any]
    subscription: Subscription
    changes: Changes | None
    watch: Watch | None = None
    """What it waits for, if time starts it."""

    def started_by(self, event: Event, document: Callable[[], dict[str, Any]], budget: Budget) -> bool:
        """Whether an event that its subscription matches starts a run: it tells of the changes that are asked for.

        And it was not made by an undo or an import, unless the rule includes those. BudgetSpent for too much work.
        """
        kind = maker_of(event)
        if kind is not None and kind not in self.document["include"]:
            return False
        if self.changes is None:
            return True
        # Without what an object held in a project that the user cannot see: `from` must not find that out.
        shown = events.shown_to(self.subscription.principal, event)
        return shown is not None and self.changes.happened(shown, document(), budget)


def maker_of(event: Event) -> str | None:
    """What made an event, if that is one of INCLUDED: such changes start nothing unless a rule asks for them."""
    kind = json.decode(event.origin).get("type") if event.origin else None
    return kind if kind in INCLUDED else None


def rules(tx: Tx, workspace_id: str, position: int) -> list[Rule]:
    """The versions of a workspace's automations that are about events behind a position of the log."""
    owners: dict[str, Principal | None] = {}
    found = []
    for version in runs.versions_after(tx, workspace_id, position):
        document = json.decode(version.doc)
        key_id = document["api_key_id"]
        if key_id not in owners:
            try:
                owners[key_id] = principal_of(tx, document)
            except RightsLost:
                owners[key_id] = None
        found.append(rule_of(tx, version, document, owners[key_id]))
    return found


def rule_of(tx: Tx, version: Version, document: dict[str, Any], principal: Principal | None) -> Rule:
    """One version of an automation whose owner has these rights; without any, it matches nothing and is to end."""
    trigger = document["trigger"]
    types = trigger.get("types", []) if trigger["on"] == "event" else patterns(trigger)
    subscription = Subscription(
        id=version.automation_id,
        workspace_id=version.workspace_id,
        # What leaves the project of a timed trigger concerns it, too: it is not waited for any more.
        project_id=document["project_id"] if trigger["on"] == "event" else None,
        patterns=types,
        principal=principal or NOBODY,
        trees=None,
        spans=[(version.since, version.until)],
        enabled=version.until is None,
        fault=None if principal is not None else RIGHTS,
    )
    changes = watch = None
    try:
        if document["condition"] is not None and principal is not None and trigger["on"] == "event":
            subscription.trees = {}
            subscription.prepare(tx, document["condition"])
        if trigger.get("changed") and principal is not None:
            changes = Changes(tx, trigger["changed"], types, zone_of(document, principal))
        if principal is not None:
            watch = watch_of(document, version.version, principal)
    except StoreError:
        raise
    except Exception:
        # Nobody foresaw it, and the events of all other automations of the workspace wait for this one.
        logger.exception("The automation %s cannot be made ready; it ends.", version.automation_id)
        subscription.trees, subscription.fault = {}, FILTER_INVALID
    return Rule(version, document, subscription, changes, watch)
