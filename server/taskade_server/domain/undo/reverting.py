"""Undoing the changes that some events tell of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from taskade_server.domain.undo.changes import Item, UndoRun, comes_with_another
from taskade_server.domain.undo.choosing import changes_behind
from taskade_server.domain.undo.conflicts import refuse_conflicts
from taskade_server.domain.undo.restoring import undo_all
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json
from taskade_server.kit.errors import Invalid, Issue
from taskade_server.store.database import Tx

MAX_CHANGES: Final = 1000


def revert(tx: Tx, context: Context, found: Sequence[Event], origin: dict[str, Any]) -> list[str]:
    """Undo the changes that some events tell of; the ids of the events that this was about.

    RevertConflict where others have changed the same since; NotRevertible for what cannot be undone at all.
    """
    steps = changes_behind(tx, found)
    if len(steps) > MAX_CHANGES:
        detail = (
            f"These are {len(steps):,} changes; at most {MAX_CHANGES:,} can be undone at once. Choose a shorter time."
        )
        raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
    items: dict[str, Item] = {}
    for step in steps:
        items.setdefault(step.event.object_id, Item(REGISTRY[step.event.resource], [])).steps.append(step)
    actor = replace(context.actor, origin=json.encode(origin))
    run = UndoRun(tx, replace(context, actor=actor, if_match=None, if_none_match=None), items)
    _lock_objects(run)
    refuse_conflicts(run)
    present = [item for item in items.values() if not comes_with_another(run, item)]
    undo_all(run, present)
    return [step.event.id for step in steps]


def _lock_objects(run: UndoRun) -> None:
    """Let nobody change the objects between the look at their history and what is made of it."""
    if run.tx.locks_rows:
        for name in sorted(run.items):
            table = run.items[name].resource.table
            run.tx.one(f"SELECT n FROM {table} WHERE id = ?{run.tx.for_update}", (name,))
