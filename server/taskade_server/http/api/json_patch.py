"""JSON Patch (RFC 6902) as the merge patch (RFC 7396) that comes to the same.

Why translated: a verb then has one kind of body to check, whatever the client sent, and the same rules hold for both.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

import jsonpatch

from taskade_server.engine.model import Resource
from taskade_server.http.wire.body import JsonPatch
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import Clash, Invalid, Issue
from taskade_server.kit.strict_json import MAX_DEPTH, Faulty, check_tree

MAX_OPERATIONS: Final = 1000
OPERATION_STEPS: Final = 40
VALUE_STEPS: Final = 1
COPY_STEPS: Final = 3
PATCHED_A_STEP: Final = 250
PORTION: Final = 256
"""After how many values the work is taken from the budget: a copy of copies may have millions."""
MAX_WORK: Final = 4 << 20
"""How much all values together may hold that the operations put anywhere: a copy of a copy doubles."""


def merge_patch(resource: Resource, document: dict[str, Any], operations: JsonPatch, budget: Budget) -> dict[str, Any]:
    """What the operations change in a document; what that takes is spent from the budget.

    Invalid for an operation that is none, or that alters a member which cannot be changed; Clash for a `test` that
    fails. All operations count, or none.
    """
    after = _apply(document, operations, budget)
    changed = {name for name in {*document, *after} if _differs(document, after, name)}
    fixed = sorted(
        name for name in changed if name == "id" or (name in resource.fields and not resource.fields[name].writable)
    )
    if fixed:
        issues = [Issue("read_only", f"{name} is set by the server.", pointer=f"/{name}") for name in fixed]
        raise Invalid("The patch changes what only the server sets; nothing was written.", errors=issues)
    return {name: json.difference(document.get(name), after.get(name)) for name in sorted(changed)}


def _apply(document: dict[str, Any], operations: JsonPatch, budget: Budget) -> dict[str, Any]:
    if len(operations) > MAX_OPERATIONS:
        raise Invalid(f"A patch has at most {MAX_OPERATIONS:,} operations.")
    after: Any = copy.deepcopy(document)
    work = 0
    for index, operation in enumerate(operations):
        try:
            budget.spend(OPERATION_STEPS)
            work += _size(after, operation, budget)
            if work > MAX_WORK:
                raise ValueError("the patch copies too much")
            after = jsonpatch.apply_patch(after, [operation], in_place=True)
        except jsonpatch.JsonPatchTestFailed as error:
            detail = f"The test of operation {index} failed; nothing was written."
            raise Clash(detail, errors=[Issue("test_failed", detail, pointer=f"/{index}")]) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, KeyError, TypeError, ValueError) as error:
            detail = f"Operation {index} cannot be applied: {str(error)[:300] or 'it is no operation of RFC 6902'}."
            raise Invalid(detail, errors=[Issue("invalid_operation", detail, pointer=f"/{index}")]) from error
    if not isinstance(after, dict):
        raise Invalid("The patch replaces the whole object by something that is none; nothing was written.")
    try:
        check_tree(after)
    except Faulty as error:
        raise Invalid(f"What the patch makes cannot be stored: {error}") from error
    return after


def _size(document: Any, operation: Any, budget: Budget) -> int:
    """How much the value of an operation holds, in characters and values; what that takes is spent from the budget.

    ValueError if it stands too deep to be put in its place.
    """
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise TypeError
    value, steps = operation.get("value"), VALUE_STEPS
    if operation.get("op") in ("copy", "move"):
        steps = COPY_STEPS
        value = jsonpatch.JsonPointer(operation["from"]).resolve(document, None)
    size, values, pending = 0, 0, [(value, operation["path"].count("/"))]
    while pending:
        node, depth = pending.pop()
        values += 1
        if values % PORTION == 0:
            budget.spend(PORTION * steps)
        if depth > MAX_DEPTH:
            raise ValueError(f"it would nest deeper than {MAX_DEPTH} levels")
        size += len(node) if isinstance(node, str) else 1
        if isinstance(node, dict):
            size += sum(map(len, node))
            pending += [(inner, depth + 1) for inner in node.values()]
        elif isinstance(node, list):
            pending += [(inner, depth + 1) for inner in node]
    budget.spend(values % PORTION * steps + size // PATCHED_A_STEP)
    return size


def _differs(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    """Whether a member is there in one of two objects only, or another; in Python `True == 1`, in JSON it is not."""
    if name not in before or name not in after:
        return True
    return json.canonical(before[name]) != json.canonical(after[name])
