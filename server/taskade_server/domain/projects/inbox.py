"""The inbox: the project of a user's tasks that name no other."""

from taskade_server.domain import identity
from taskade_server.domain.projects.resources import PROJECT
from taskade_server.domain.projects.rights import require_creator
from taskade_server.engine import edit, log
from taskade_server.engine.edit import Context
from taskade_server.store.database import Tx


def create_inbox(tx: Tx, context: Context, workspace_id: str) -> str:
    """Make the caller's inbox, a private project of the caller alone; returns its id."""
    require_creator(context, workspace_id)
    user_id = context.principal.user_id
    values = edit.fields(
        PROJECT, {"name": "Inbox", "description": "Tasks without a project of their own.", "visibility": "private"}
    )
    doc = {**values, "id": edit.new_id(tx, PROJECT, None), "workspace_id": workspace_id, "archived_at": None}
    edit.create(tx, context, PROJECT, doc, inbox_of=user_id)
    identity.add_member(tx, context, workspace_id, doc["id"], user_id, "editor")
    return str(doc["id"])


def find_inbox(tx: Tx, workspace_id: str, user_id: str) -> str | None:
    """The id of a user's inbox in a workspace; None if there is none yet, or if it is in the trash."""
    found = tx.one(
        "SELECT id FROM projects WHERE workspace_id = ? AND inbox_of = ? AND deleted_at IS NULL ORDER BY n LIMIT 1",
        (workspace_id, user_id),
    )
    return str(found[0]) if found else None


def return_to_inbox(tx: Tx, context: Context, workspace_id: str, project_id: str) -> Context:
    """Make the caller a member of the own inbox again; the context with the rights that follow."""
    require_creator(context, workspace_id)
    log.lock(tx, workspace_id)
    identity.add_member(tx, context, workspace_id, project_id, context.principal.user_id, "editor")
    return identity.with_present_rights(tx, context)
