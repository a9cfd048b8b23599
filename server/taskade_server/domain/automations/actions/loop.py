"""`each`: some actions for each object of a list, at most 1,000."""

from typing import Any, Final

from taskade_server.domain.automations.actions.kind import Done, Kind, Outcome
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation
from taskade_server.engine import query
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json

MAX_ITEMS: Final = 1_000
LISTED: Final = {"tasks": "task", "projects": "project", "comments": "comment", "users": "user"}


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """Note what is wrong with the list; the actions are checked by whoever checks lists of actions."""
    if not checking.choice(action.get("in"), f"{pointer}/in", tuple(LISTED), "in"):
        return
    limit = action.get("limit", MAX_ITEMS)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_ITEMS:
        checking.fault(f"{pointer}/limit", "out_of_range", f"limit is a whole number from 1 to {MAX_ITEMS:,}.")
    checking.values(action.get("filter"), f"{pointer}/filter")
    sort = action.get("sort", "created_at")
    if not isinstance(sort, str):
        checking.fault(f"{pointer}/sort", "wrong_type", "sort is a text such as -due_date,name.")
    elif isinstance(action.get("filter", {}), dict) and "$ref" not in json.encode(action.get("filter") or {}):
        resource = REGISTRY[LISTED[action["in"]]]
        body = {"filter": action.get("filter") or {}, "sort": sort, "limit": 1}
        try:
            query.parse(checking.tx, checking.context.principal, resource, checking.context.secret, [], body)
        except Exception as error:
            issues = getattr(error, "errors", None)
            if issues is None:
                raise
            for issue in issues:
                checking.fault(f"{pointer}/{issue.parameter or 'filter'}", issue.code, issue.detail)


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Find the objects, and begin with the first; nothing is done if there are none."""
    action = instruction.action
    resource = REGISTRY[LISTED[action["in"]]]
    condition = situation.values().body({"filter": action.get("filter") or {}})["filter"]
    workspace = {"workspace_id": situation.run.workspace_id} if "workspace_id" in resource.filterable else {}
    body = {
        "filter": {"$and": [condition, workspace]} if condition and workspace else condition or workspace,
        "sort": action.get("sort", "created_at"),
        "limit": action.get("limit", MAX_ITEMS),
    }
    parsed = query.parse(situation.tx, situation.principal, resource, situation.acting.secret, [], body)
    page = query.run(situation.tx, situation.principal, parsed, situation.acting.secret)
    items = [json.decode(document)["id"] for document in page.documents]
    if not items:
        return Done({"items": 0}, 0, instruction.target)
    situation.memory.loops.append({"items": items, "index": 0})
    return Done({"items": len(items), "more": page.cursor is not None}, len(items))


def again(situation: Situation, instruction: Instruction) -> Outcome:
    """At the end of a loop's actions: begin them anew for the next object, or go on behind the loop."""
    loop = situation.memory.loops[-1]
    loop["index"] += 1
    if loop["index"] < len(loop["items"]):
        return Done(target=instruction.target + 1, quiet=True)
    situation.memory.loops.pop()
    return Done(quiet=True)


KIND: Final = Kind("each", ("in", "filter", "sort", "limit", "actions"), check, perform)
