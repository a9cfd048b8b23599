"""Moving a task to another project, parent or place among its siblings."""

from typing import Any

from taskade_server.domain.tasks.lookups import Edit, Lookups
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.writing import write_changes
from taskade_server.engine import edit
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Checker
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx


def move(tx: Tx, context: Context, task_id: str, body: Any) -> str:
    """Move a task to a project, below a parent (null: the top), or before or after a sibling."""
    row, before = edit.load(tx, context, TASK, task_id)
    lookups = Lookups(tx, context)
    lookups.project(before["project_id"])
    after = {**before, **_target(lookups, before, body)}
    return write_changes(lookups, [Edit(row, before, after, "")])[0]


def _target(lookups: Lookups, before: dict[str, Any], body: Any) -> dict[str, Any]:
    checker = Checker()
    allowed = ("project_id", "parent_id", "before", "after")
    if not isinstance(body, dict) or not body:
        checker.fault("", "wrong_type", f"The body names the place: {', '.join(allowed)}.")
        body = {}
    for key in body:
        if key not in allowed:
            checker.unknown(f"/{escape_pointer(key)}", key, allowed, "move")
    body = {key: value for key, value in body.items() if value is not None or key == "parent_id"}
    target: dict[str, Any] = {}
    for key in ("project_id", "parent_id"):
        if key in body:
            target[key] = checker.value(TASK.fields[key], body[key], f"/{key}")
    if target.get("project_id", "") is None:
        del target["project_id"]
    if "before" in body and "after" in body:
        checker.fault("/after", "not_allowed", "Give before or after, not both.")
    anchor_key = "before" if "before" in body else "after" if "after" in body else None
    if anchor_key is not None:
        anchor = lookups.task(body[anchor_key]) if isinstance(body[anchor_key], str) else None
        if anchor is None or anchor["id"] == before["id"]:
            same = f"{anchor_key} names the task itself; name another one."
            detail = same if anchor else lookups.absence(TASK, str(body[anchor_key]))
            checker.fault(f"/{anchor_key}", "unknown_reference", detail)
        else:
            for key in target:
                if target[key] != anchor[key] and not checker.issues:
                    checker.fault(f"/{key}", "mismatch", f"The task to move to has another {key}; leave {key} out.")
            target = {"project_id": anchor["project_id"], "parent_id": anchor["parent_id"]}
            lookups.beside[before["id"]] = (anchor["id"], anchor_key == "before")
    edit.fail(checker.issues)
    if target.get("project_id", before["project_id"]) != before["project_id"] and "parent_id" not in target:
        target["parent_id"] = None
    return target
