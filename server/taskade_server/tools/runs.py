"""Automations and their runs: asking a server for them, and showing them to people."""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

from taskade_server.kit import json
from taskade_server.tools.client import Api, Failed

_NEXT: Final = re.compile(r"[?&]cursor=([^&>]+)")


# ---- asking ----------------------------------------------------------------------------------------------------------


def pages(api: Api, path: str, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    """A list, page by page."""
    cursor = None
    while True:
        found, headers = api.exchange("GET", path, cursor=cursor, **parameters)
        yield found
        following = _NEXT.search(headers.get("link", ""))
        if following is None:
            return
        cursor = unquote(following[1])


def path_of(api: Api, automation: str) -> str:
    """The path of an automation by its id or its name. Failed if there is none, or several."""
    if automation.startswith("auto_"):
        return f"/automations/{quote(automation, safe='')}"
    filters = json.encode({"name": automation})
    found = api.ask("GET", "/automations", filter=filters, fields="id", limit=2)
    if not found:
        raise Failed(f'There is no automation "{automation[:80]}"; `taskade automations list` shows which there are.')
    if len(found) > 1:
        raise Failed(f'Several automations have the name "{automation[:80]}"; give the id of one: auto_...')
    return f"/automations/{found[0]['id']}"


def find_run(api: Api, run: str, automation: str | None) -> dict[str, Any]:
    """A run with its timeline; without its automation, those of all that there are. Failed if none has it."""
    paths = [path_of(api, automation)] if automation else _all_paths(api)
    for path in paths:
        try:
            found: dict[str, Any] = api.ask("GET", f"{path}/runs/{quote(run, safe='')}")
        except Failed as error:
            if error.status != 404 or automation:
                raise
        else:
            return found
    raise Failed(f"No automation that this key can see has a run {run[:80]} on record.")


def _all_paths(api: Api) -> Iterator[str]:
    for page in pages(api, "/automations", fields="id", limit=1000, sort="-updated_at"):
        for automation in page:
            yield f"/automations/{automation['id']}"


# ---- showing ---------------------------------------------------------------------------------------------------------


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


def rule_line(automation: dict[str, Any]) -> str:
    """One automation, for people."""
    state = "enabled" if automation["enabled"] else f"disabled {automation['disabled_reason'] or ''}".rstrip()
    return f"{automation['id']}  {state:<17}  {automation['trigger']['on']:<8}  {automation['name']}"


def run_line(run: dict[str, Any]) -> str:
    """One run, for people."""
    words = [
        _moment(run["created_at"]), run["id"], f"{run['state']:<10}", f"{run['cause']:<8}",
        run["object_id"] or "-",
    ]  # fmt: skip
    if run["reason"]:
        words.append(f"{run['reason']}: {' '.join((run['detail'] or '').split())[:120]}".rstrip(": "))
    return "  ".join(words)


def timeline(run: dict[str, Any]) -> str:
    """A run with its steps, for people."""
    cause = [run["cause"], run["event_id"], run["object_id"]]
    about = [
        ("automation", f"{run['automation_id']}  version {run['version']}"),
        ("cause", "  ".join(filter(None, cause))),
        ("led to by", " -> ".join(run["chain"])),
        ("changes", run["request_id"]),
        ("created", _moment(run["created_at"])),
        ("goes on", _moment(run["continues_at"] or "")),
        ("finished", _moment(run["finished_at"] or "")),
        ("reason", run["reason"]),
        ("detail", run["detail"]),
    ]
    lines = [f"{run['id']}  {run['state']}", *(f"  {name:<10}  {value}" for name, value in about if value), ""]
    return "\n".join([*lines, *steps_shown(run["timeline"])]).rstrip()


def steps_shown(steps: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a timeline."""
    for step in steps:
        took = f"{step['duration_ms']:,.0f} ms"
        yield f"  {step['number']}  {step['state']:<9}  {step['do']:<5}  {step['action']}  {took}"
        yield from (f"     {line}" for line in step_lines(step))


def step_lines(step: dict[str, Any]) -> Iterator[str]:
    """What one step did, for people."""
    detail = dict(step["detail"])
    if (problem := detail.pop("problem", None)) is not None:
        yield f"{problem['code']} ({problem['status']}): {problem['detail']}"
    operations = detail.pop("operations", [])
    for one in operations if isinstance(operations, list) else []:
        yield f"{one['method']} {one['path']}{' -> ' + one['id'] if one.get('id') else ''}"
    rest = {name: value for name, value in detail.items() if name != "events"}
    if rest:
        yield ", ".join(
            f"{name}: {value if isinstance(value, str) else json.encode(value)}" for name, value in rest.items()
        )
