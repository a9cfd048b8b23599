"""`batch`: operations of the API, in the transaction that moves the run."""

from typing import Any, Final

from taskade_server.domain.automations.actions.kind import Done, Kind, Outcome, shortened
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation
from taskade_server.kit import json

MAX_OPERATIONS: Final = 100
FORBIDDEN: Final = ("api-keys", "automations", "secrets", "webhooks", "stream-tickets", "audit")
"""What an automation cannot touch, whatever its key may do: it makes no keys, and no further automations."""


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """Note what is wrong with the operations."""
    operations = action.get("operations")
    if not isinstance(operations, list) or not 1 <= len(operations) <= MAX_OPERATIONS:
        detail = f"operations is a list of 1 to {MAX_OPERATIONS} operations, as POST /batch takes them."
        checking.fault(f"{pointer}/operations", "required", detail)
        return
    issues = checking.operations.check(operations, f"{pointer}/operations", checking.known)
    for issue in issues:
        checking.fault(issue.pointer or "", issue.code, issue.detail)
    for index, operation in enumerate(operations):
        if not isinstance(operation, dict):
            continue
        first = str(operation.get("path")).removeprefix("/v1").strip("/").partition("/")[0].partition("?")[0]
        if first in FORBIDDEN:
            detail = f"An automation cannot use /{first}: it changes work, not keys, rules or secrets."
            checking.fault(f"{pointer}/operations/{index}/path", "not_allowed", detail)
        if isinstance(operation.get("id"), str):
            checking.known.add(operation["id"])


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Run the operations. BatchFailed for the first that fails."""
    operations = instruction.action["operations"]
    results = situation.operations.perform(situation.tx, situation.acting, operations, situation.given())
    value = [json.decode(text or "null") for text in results]
    for operation, body in zip(operations, value, strict=True):
        if "id" in operation:
            situation.memory.results[operation["id"]] = body
    shown = [
        {"method": operation["method"].upper(), "path": operation["path"], "id": body.get("id")}
        if isinstance(body, dict)
        else {"method": operation["method"].upper(), "path": operation["path"]}
        for operation, body in zip(operations, value, strict=True)
    ]
    return Done({"operations": shortened(shown)}, value)


KIND: Final = Kind("batch", ("operations",), check, perform)
