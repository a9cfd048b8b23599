"""Who may create projects and templates."""

from taskade_server.engine import access
from taskade_server.engine.edit import Context
from taskade_server.kit.errors import Forbidden


def require_creator(context: Context, workspace_id: str) -> access.Grant:
    grant = access.require_workspace(context.principal, workspace_id, "member", "create projects")
    if grant.only is not None:
        raise Forbidden("This key is limited to some projects, so it cannot create another.")
    return grant
