"""Who may create projects and templates, and which project somebody means."""

from typing import Any

from taskade_server.domain.projects.resources import PROJECT
from taskade_server.engine import access, edit, query
from taskade_server.engine.edit import Context
from taskade_server.kit import json
from taskade_server.kit.errors import Forbidden, Issue, NotFound
from taskade_server.store.database import Tx


def require_creator(context: Context, workspace_id: str) -> access.Grant:
    grant = access.require_workspace(context.principal, workspace_id, "member", "create projects")
    if grant.only is not None:
        raise Forbidden("This key is limited to some projects, so it cannot create another.")
    return grant


def visible(tx: Tx, context: Context, project_id: str | None) -> dict[str, Any] | None:
    """The document of the project that `project_id` of a body names; None for none. Invalid if the caller sees none."""
    if project_id is None:
        return None
    row = query.get(tx, context.principal, PROJECT, project_id)
    if row is None:
        detail = query.absence(tx, context.principal, PROJECT, project_id)
        edit.fail([Issue("unknown_reference", detail, pointer="/project_id")])
        raise NotFound(detail)
    found: dict[str, Any] = json.decode(row.document)
    return found
