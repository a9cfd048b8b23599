"""JSON Patch (RFC 6902) as the merge patch (RFC 7396) that comes to the same.

Why translated: a verb then has one kind of body to check, whatever the client sent, and the same rules hold for both.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

import jsonpatch

from taskade_server.engine.model import Resource
from taskade_server.http.wire import JsonPatch
from taskade_server.kit import json
from taskade_server.kit.errors import Clash, Invalid, Issue

MAX_OPERATIONS: Final = 1000
_MISSING: Final = object()


def merge_patch(resource: Resource, document: dict[str, Any], operations: JsonPatch) -> dict[str, Any]:
    """What the operations change in a document.

    Invalid for an operation that is none, or that alters a member which cannot be changed; Clash for a `test` that
    fails. All operations count, or none.
    """
    after = _apply(document, operations)
    changed = {name for name in {*document, *after} if document.get(name, _MISSING) != after.get(name, _MISSING)}
    fixed = sorted(
        name for name in changed if name == "id" or (name in resource.fields and not resource.fields[name].writable)
    )
    if fixed:
        issues = [Issue("read_only", f"{name} is set by the server.", pointer=f"/{name}") for name in fixed]
        raise Invalid("The patch changes what only the server sets; nothing was written.", errors=issues)
    return {name: _difference(document.get(name), after.get(name)) for name in sorted(changed)}


def _apply(document: dict[str, Any], operations: JsonPatch) -> dict[str, Any]:
    if len(operations) > MAX_OPERATIONS:
        raise Invalid(f"A patch has at most {MAX_OPERATIONS:,} operations.")
    after: Any = copy.deepcopy(document)
    for index, operation in enumerate(operations):
        try:
            after = jsonpatch.apply_patch(after, [operation], in_place=True)
        except jsonpatch.JsonPatchTestFailed as error:
            detail = f"The test of operation {index} failed; nothing was written."
            raise Clash(detail, errors=[Issue("test_failed", detail, pointer=f"/{index}")]) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, ValueError) as error:
            detail = f"Operation {index} cannot be applied: {str(error)[:300] or 'it is no operation of RFC 6902'}."
            raise Invalid(detail, errors=[Issue("invalid_operation", detail, pointer=f"/{index}")]) from error
    if not isinstance(after, dict):
        raise Invalid("The patch replaces the whole object by something that is none; nothing was written.")
    json.check_tree(after)
    return after


def _difference(before: Any, after: Any) -> Any:
    """The merge patch from one value to another: null removes, objects merge, everything else replaces."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    return {
        name: _difference(before.get(name), after.get(name))
        for name in {*before, *after}
        if before.get(name, _MISSING) != after.get(name, _MISSING)
    }
