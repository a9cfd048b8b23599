"""JSON documents: copies, merge patches, and references that an include has expanded."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.kit import json

NOTHING: Final[Mapping[str, Any]] = {}


def unexpanded(value: Any) -> Any:
    """The id of a reference that an include has expanded, so that a client can send back what it read."""
    return value["id"] if isinstance(value, dict) and isinstance(value.get("id"), str) else value


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): members merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def copy_of(value: Any) -> Any:
    kind = type(value)
    if kind is list or kind is dict:
        return json.decode(json.encode(value)) if value else kind()
    return value
