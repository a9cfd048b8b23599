"""Templates: the built-in ones, and creating, changing, deleting and restoring others."""

from functools import cache
from importlib import resources
from typing import Any

from taskade_server.domain.projects.resources import MAX_TEMPLATE_TASKS, TEMPLATE
from taskade_server.domain.projects.rights import require_creator
from taskade_server.domain.projects.workflow import check_workflow, status_category
from taskade_server.engine import edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import Checker
from taskade_server.kit import json
from taskade_server.kit.errors import Invalid, Issue
from taskade_server.store.database import Tx


@cache
def builtin_templates() -> list[dict[str, Any]]:
    """The templates every new workspace starts with, as create bodies."""
    found: list[dict[str, Any]] = json.decode(
        resources.files(__package__).joinpath("builtin_templates.json").read_bytes()
    )
    return found


def add_builtin_templates(tx: Tx, context: Context, workspace_id: str) -> None:
    """Write the built-in templates into a new workspace."""
    changes = []
    for body in builtin_templates():
        values = edit.fields(TEMPLATE, body)
        doc = {**values, "id": edit.new_id(tx, TEMPLATE, None), "workspace_id": workspace_id}
        changes.append(Change(TEMPLATE, "created", doc))
    log.apply(tx, context.actor, changes)


def create_template(tx: Tx, context: Context, body: Any) -> str:
    """Create a template."""
    values = edit.fields(TEMPLATE, body, given=edit.given(context))
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    require_creator(context, workspace_id)
    edit.fail(_check_template(values))
    return edit.create(
        tx,
        context,
        TEMPLATE,
        {**values, "id": edit.new_id(tx, TEMPLATE, values.get("id")), "workspace_id": workspace_id},
    )


def update_template(tx: Tx, context: Context, template_id: str, body: Any) -> str:
    """Change a template; `project` and `tasks` are replaced whole."""
    row, before = edit.load(tx, context, TEMPLATE, template_id)
    require_creator(context, row.workspace_id)
    after = {**before, **edit.fields(TEMPLATE, body, current=before)}
    if not all(json.same(after[name], before[name]) for name in ("project", "tasks")):
        edit.fail(_check_template(after))
    return edit.update(tx, context, TEMPLATE, row, before, after)


def delete_template(tx: Tx, context: Context, template_id: str) -> None:
    """Move a template to the trash; projects made from it stay."""
    row, doc = edit.load(tx, context, TEMPLATE, template_id)
    require_creator(context, row.workspace_id)
    edit.trash(tx, context, [(TEMPLATE, row, doc)], template_id)


def restore_template(tx: Tx, context: Context, template_id: str) -> str:
    """Bring a template back from the trash."""
    row, _ = edit.load(tx, context, TEMPLATE, template_id, deleted=True)
    require_creator(context, row.workspace_id)
    return edit.untrash(tx, context, TEMPLATE, template_id, ())


def require_sound_template(doc: dict[str, Any]) -> None:
    """Invalid if a stored template, perhaps from an earlier version of this program, would break rules of today."""
    checker = Checker()
    checker.body(TEMPLATE, {name: doc[name] for name in TEMPLATE.writable if name in doc}, creating=True)
    faults = checker.issues or _check_template(doc)
    if faults:
        detail = (
            f"The template breaks a rule at {faults[0].pointer}; change it with PATCH /templates/{doc['id']} first:"
            f" {faults[0].detail}"
        )
        raise Invalid(detail, errors=[Issue(faults[0].code, detail, pointer="/template_id")])


def _check_template(doc: dict[str, Any]) -> list[Issue]:
    project = doc["project"]
    issues = [issue.below("/project") for issue in check_workflow(project)]

    def walk(tasks: list[dict[str, Any]], pointer: str) -> None:
        for index, task in enumerate(tasks):
            if task["status"] is not None and status_category(project, task["status"]) is None:
                keys = ", ".join(status["key"] for status in project["statuses"])
                issues.append(
                    Issue(
                        "unknown_status", f"The blueprint's statuses are {keys}.", pointer=f"{pointer}/{index}/status"
                    )
                )
            start, due = task["start_in_days"], task["due_in_days"]
            if start is not None and due is not None and start > due:
                detail = "due_in_days lies before start_in_days."
                issues.append(Issue("invalid_range", detail, pointer=f"{pointer}/{index}/due_in_days"))
            walk(task.get("subtasks", []), f"{pointer}/{index}/subtasks")

    issues += check_template_size(doc)
    if not issues:
        walk(doc["tasks"], "/tasks")
    return issues


def check_template_size(doc: dict[str, Any]) -> list[Issue]:
    """The fault of a template that has too many tasks, those below others included."""
    count, pending = 0, list(doc["tasks"])
    while pending:
        task = pending.pop()
        count += 1
        pending += task.get("subtasks", [])
    if count <= MAX_TEMPLATE_TASKS:
        return []
    detail = f"The template has {count:,} tasks, those below others included; {MAX_TEMPLATE_TASKS} are allowed."
    return [Issue("too_many", detail, pointer="/tasks")]
