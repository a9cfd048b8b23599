"""Comments: creating, changing, deleting and restoring them."""

from collections.abc import Mapping
from typing import Any

from taskade_server.domain.tasks.resources import COMMENT, TASK
from taskade_server.engine import access, edit, query
from taskade_server.engine.edit import Context
from taskade_server.kit.errors import Clash, Forbidden, Invalid, Issue
from taskade_server.store.database import Tx


def create_comment(tx: Tx, context: Context, body: Any) -> str:
    """Comment on a task; needs the project role commenter."""
    task_id = body.get("task_id") if isinstance(body, dict) else None
    row = query.get(tx, context.principal, TASK, task_id, keep=True) if isinstance(task_id, str) else None
    within = {} if row is None else {"project_id": row.project_id}
    values = edit.fields(COMMENT, body, given=edit.given(context, author=context.principal.user_id, **within))
    if row is None or row.project_id is None:
        detail = query.absence(tx, context.principal, TASK, values["task_id"])
        raise Invalid(errors=[Issue("unknown_reference", detail, pointer="/task_id")])
    if values["workspace_id"] not in (None, row.workspace_id):
        detail = "The task lies in another workspace; leave workspace_id out."
        raise Invalid(errors=[Issue("mismatch", detail, pointer="/workspace_id")])
    access.require_project(context.principal, row.workspace_id, row.project_id, "commenter", "comment")
    doc = {
        **values,
        "id": edit.new_id(tx, COMMENT, values.get("id")),
        "workspace_id": row.workspace_id,
        "project_id": row.project_id,
        "author": context.principal.user_id,
    }
    return edit.create(tx, context, COMMENT, doc)


def update_comment(tx: Tx, context: Context, comment_id: str, body: Any) -> str:
    """Change a comment; only its author may, as long as the author may comment."""
    row, before = edit.load(tx, context, COMMENT, comment_id)
    if before["author"] != context.principal.user_id:
        raise Forbidden("Only its author may change a comment.")
    _require_right_to_comment(context, before, "change a comment")
    return edit.update(tx, context, COMMENT, row, before, {**before, **edit.fields(COMMENT, body, current=before)})


def delete_comment(tx: Tx, context: Context, comment_id: str) -> None:
    """Move a comment to the trash; its author, with the right to comment, or an editor of the project may."""
    row, doc = edit.load(tx, context, COMMENT, comment_id)
    _require_right_to_comment(context, doc, "delete a comment")
    edit.trash(tx, context, [(COMMENT, row, doc)], comment_id)


def restore_comment(tx: Tx, context: Context, comment_id: str) -> str:
    """Bring a comment back from the trash."""
    _, doc = edit.load(tx, context, COMMENT, comment_id, deleted=True)
    _require_right_to_comment(context, doc, "restore a comment")
    if query.get(tx, context.principal, TASK, doc["task_id"], keep=True) is None:
        raise Clash("The comment's task is in the trash; restore the task first.")
    return edit.untrash(tx, context, COMMENT, comment_id, ())


def _require_right_to_comment(context: Context, doc: Mapping[str, Any], doing: str) -> None:
    """Forbidden unless the caller may comment and wrote this one, or is an editor of the project."""
    mine = doc["author"] == context.principal.user_id
    role, what = ("commenter", f"{doing} of yours") if mine else ("editor", f"{doing} of somebody else")
    access.require_project(context.principal, doc["workspace_id"], doc["project_id"], role, what)
