"""The values of a project's custom fields in its tasks."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain.tasks.lookups import Lookups
from taskade_server.engine.model import Checker
from taskade_server.kit import json, time
from taskade_server.kit.strict_json import escape_pointer

OPTIONS_A_STEP: Final = 20
"""How many options of a custom field are compared in one step."""


def check_custom_fields(
    lookups: Lookups, checker: Checker, project: dict[str, Any], doc: dict[str, Any], before: Mapping[str, Any]
) -> None:
    """Check the values that are new, or that come under another definition because the task changes its project."""
    definitions = {entry["key"]: entry for entry in project["fields"]}
    known, former = before.get("custom_fields", {}), definitions
    if before and doc["project_id"] != before["project_id"] and before["id"] not in lookups.former:
        left = lookups.project(before["project_id"])
        former = {entry["key"]: entry for entry in left["fields"]} if left else {}
    if former is definitions and json.same(doc["custom_fields"], known):
        return
    custom = dict(doc["custom_fields"])
    for key, value in custom.items():
        definition = definitions.get(key)
        if definition is None or (key in known and json.same(known[key], value) and former.get(key) == definition):
            continue
        entries = len(value) if isinstance(value, list) else 1
        lookups.tx.budget.spend(1 + entries * len(definition["options"]) // OPTIONS_A_STEP)
        custom[key], fault = _typed(lookups, project, definition, value)
        if fault:
            checker.fault(
                f"/custom_fields/{escape_pointer(key)}",
                "wrong_type",
                f"{key} is a {definition['type']} field: {fault}.",
            )
    doc["custom_fields"] = custom


def _typed(lookups: Lookups, project: dict[str, Any], definition: dict[str, Any], value: Any) -> tuple[Any, str]:
    """A value as its definition wants it, and what is wrong with it otherwise."""
    kind, options = definition["type"], definition["options"]
    if kind == "number":
        return value, "" if isinstance(value, int | float) and not isinstance(value, bool) else "give a number"
    if kind == "checkbox":
        return value, "" if isinstance(value, bool) else "give true or false"
    if kind == "multi":
        wrong = not isinstance(value, list) or any(entry not in options for entry in value)
        return value, f"give a list of {', '.join(options)}" if wrong else ""
    if not isinstance(value, str):
        return value, "give a string"
    if kind == "select":
        return value, "" if value in options else f"choose one of {', '.join(options)}"
    if kind == "url":
        return value, "" if value.startswith(("http://", "https://")) else "give an http or https address"
    if kind == "date":
        try:
            return time.normalize(value), ""
        except ValueError as error:
            return value, str(error)
    if kind == "user":
        user_id = lookups.user(project["workspace_id"], value)
        return user_id or value, "" if user_id else f'"{value[:80]}" is no member of the workspace'
    return value, ""
