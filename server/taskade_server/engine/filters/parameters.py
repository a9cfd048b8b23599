"""From bracketed parameters, as clients in many languages write them, to one document."""

import re
from collections.abc import Iterable
from typing import Any, Final

from taskade_server.engine.filters.language import MAX_DEPTH, OPERATORS
from taskade_server.kit.errors import InvalidQuery, Issue, did_you_mean

_KEY: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")

_OPEN: Final = re.compile(r"\[([<>!]?)$")


def tree_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Bracketed parameters as one document: `a[$in][0]=x&a[$in][1]=y` gives `{"a": {"$in": ["x", "y"]}}`.

    Accepts what axios, qs, URLSearchParams, httpx, requests and url.Values write. InvalidQuery on unbalanced brackets.
    """
    root: dict[str, Any] = {}
    for key, value in pairs:
        if "[" not in key and "]" not in key and key and key not in root and value != "[object Object]":
            root[key] = value
            continue
        found = _KEY.fullmatch(key)
        if found is None:
            raise InvalidQuery(
                errors=[
                    Issue(
                        "malformed_parameter",
                        f"Brackets must be balanced: name[$op]=value.{_meant_operator(key)}",
                        parameter=key[:100],
                    )
                ]
            )
        tokens = [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]
        if value == "[object Object]":
            detail = "A JavaScript object was turned into text. Serialise parameters with qs, or send filter={JSON}."
            raise InvalidQuery(errors=[Issue("malformed_parameter", detail, parameter=key[:100])])
        if len(tokens) > 2 * MAX_DEPTH + 4:
            raise InvalidQuery(
                errors=[Issue("too_deep", f"Filters may nest {MAX_DEPTH} levels deep.", parameter=key[:100])]
            )
        _insert_value(root, tokens, value)
    return _entries(root)


def _meant_operator(key: str) -> str:
    """In `due_date[>=]=today`, `due_date[>` is taken for the name of the parameter."""
    found = _OPEN.search(key)
    return did_you_mean(f"{found[1]}=", OPERATORS) if found else ""


def _insert_value(node: dict[str, Any], tokens: list[str], value: str) -> None:
    for index, token in enumerate(tokens):
        if index == len(tokens) - 1 or (index == len(tokens) - 2 and tokens[-1] == ""):
            present = node.get(token)
            if isinstance(present, dict):
                node, token, present = present, "$eq", present.get("$eq")
            as_list = tokens[-1] == "" and index == len(tokens) - 2
            if present is None:
                node[token] = [value] if as_list else value
            else:
                node[token] = [*(present if isinstance(present, list) else [present]), value]
            return
        present = node.get(token)
        if present is None:
            present = node[token] = {}
        elif not isinstance(present, dict):
            present = node[token] = {"$eq": present}
        node = present


def _entries(node: dict[str, Any]) -> dict[str, Any]:
    # A custom field may be called 2024: below custom_fields a key of digits is no place in a list.
    return {
        key: _entries(value) if key == "custom_fields" and isinstance(value, dict) else _lists(value)
        for key, value in node.items()
    }


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    entries = _entries(node)
    if entries and all(key.isascii() and key.isdigit() and len(key) < 6 for key in entries):
        return [entries[key] for key in sorted(entries, key=int)]
    return entries
