"""Projects: creating, changing, archiving, deleting and restoring them."""

from typing import Any

from taskade_server.domain import identity
from taskade_server.domain.projects.inbox import find_inbox
from taskade_server.domain.projects.members import initial_members
from taskade_server.domain.projects.resources import PROJECT
from taskade_server.domain.projects.rights import require_creator
from taskade_server.domain.projects.workflow import check_dates, check_removed_statuses, check_workflow
from taskade_server.engine import access, edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import time
from taskade_server.store.database import Tx


def create(tx: Tx, context: Context, body: Any, *, blueprint: dict[str, Any] | None = None) -> str:
    """Create a project; `blueprint` (of a template) supplies what the body leaves out."""
    values = edit.fields(PROJECT, body, extra=["members"], given=edit.given(context))
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    if values["workspace_id"] is None and blueprint is not None:
        workspace_id = blueprint["workspace_id"]
    for name, default in (blueprint or {}).get("project", {}).items():
        if body.get(name) is None:
            values[name] = default
    grant = require_creator(context, workspace_id)
    checked = check_workflow(values) + check_dates(values, context.principal.zone(workspace_id))
    members, member_issues = initial_members(tx, context, workspace_id, body.get("members"))
    edit.fail(checked + member_issues)
    project_id = edit.new_id(tx, PROJECT, values.get("id"))
    doc = {**values, "id": project_id, "workspace_id": workspace_id, "archived_at": None}
    rendered = edit.create(tx, context, PROJECT, doc)
    if values["visibility"] == "private" and context.principal.user_id not in members:
        members[context.principal.user_id] = "editor"
    for user_id, role in members.items():
        identity.add_member(tx, context, workspace_id, project_id, user_id, role)
    if grant.role == "member":
        context.grant(grant.with_project(project_id, members.get(context.principal.user_id, "editor")))
    return rendered


def update(tx: Tx, context: Context, project_id: str, body: Any) -> str:
    """Change a project; needs the project role editor. Statuses in use cannot be removed."""
    row, before = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "change the project")
    values = edit.fields(PROJECT, body, current=before)
    after = {**before, **values}
    issues = check_workflow(after) + check_dates(after, context.principal.zone(after["workspace_id"]))
    if "statuses" in values and not issues:
        issues += check_removed_statuses(tx, project_id, before, after)
    edit.fail(issues)
    hides = after["visibility"] == "private" != before["visibility"]
    grant = access.require_workspace(context.principal, row.workspace_id, "guest", "change the project")
    if hides and project_id not in grant.project_roles and grant.role == "member":
        # Who makes a project private means to stay in it.
        identity.add_member(tx, context, row.workspace_id, project_id, context.principal.user_id, "editor")
    return edit.update(tx, context, PROJECT, row, before, after)


def archive(tx: Tx, context: Context, project_id: str, *, archived: bool, at: str | None = None) -> str:
    """Archive a project (`at`: as of a time in the past), or make it active again; doing so twice changes nothing."""
    row, before = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "archive the project")
    if (before["archived_at"] is not None) == archived:
        return row.document
    after = {**before, "archived_at": (at or time.format_ms(time.now_ms())) if archived else None}
    return edit.update(
        tx, context, PROJECT, row, before, after, ["project.archived" if archived else "project.unarchived"]
    )


def delete(tx: Tx, context: Context, project_id: str) -> None:
    """Move a project to the trash with its tasks and their comments."""
    row, doc = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "delete the project")
    rows = [(PROJECT, row, doc)]
    for name in ("task", "comment"):
        resource = REGISTRY[name]
        found = edit.below(tx, resource, "project_id", [project_id], edit.MAX_TOGETHER)
        rows += [(resource, *loaded) for loaded in found]
    edit.trash(tx, context, rows, project_id)


def restore(tx: Tx, context: Context, project_id: str) -> str:
    """Bring a project back with what went to the trash with it.

    Its tasks fit it as they did: nothing in it could change in the trash. An inbox whose owner has another one by now
    comes back as a project like others.
    """
    row, _ = edit.load(tx, context, PROJECT, project_id, deleted=True)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "restore the project")
    private: dict[str, Any] = {}
    found = tx.one("SELECT inbox_of FROM projects WHERE n = ?", (row.n,))
    if found is not None and found[0] is not None:
        log.lock(tx, row.workspace_id)
        if find_inbox(tx, row.workspace_id, found[0]) is not None:
            private["inbox_of"] = None
    return edit.untrash(tx, context, PROJECT, project_id, ("task", "comment"), **private)
