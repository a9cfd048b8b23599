"""The members of a project."""

from typing import Any, Final

from taskade_server.domain import identity, workspaces
from taskade_server.domain.projects.resources import PROJECT
from taskade_server.engine import access, edit
from taskade_server.engine.access import PROJECT_ROLES
from taskade_server.engine.edit import Context
from taskade_server.kit.errors import Issue
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx

MAX_MEMBERS: Final = 500


def initial_members(tx: Tx, context: Context, workspace_id: str, entries: Any) -> tuple[dict[str, str], list[Issue]]:
    if entries is None:
        return {}, []
    if not isinstance(entries, list) or len(entries) > MAX_MEMBERS:
        detail = f"members is a list of at most {MAX_MEMBERS} {{user, role}}."
        return {}, [Issue("wrong_type", detail, pointer="/members")]
    members: dict[str, str] = {}
    issues = []
    for index, entry in enumerate(entries):
        for key in entry if isinstance(entry, dict) else {}:
            if key not in ("user", "role"):
                detail = f'A member here has no field "{key[:80]}". Allowed: user, role.'
                issues.append(Issue("unknown_field", detail, pointer=f"/members/{index}/{escape_pointer(key)}"))
        user = entry.get("user") if isinstance(entry, dict) else entry
        role = entry.get("role") if isinstance(entry, dict) else None
        role = "editor" if role is None else role
        user_id = identity.resolve_user(tx, context, workspace_id, user) if isinstance(user, str) else None
        if user_id is None:
            issues.append(
                Issue(
                    "unknown_reference",
                    f'"{str(user)[:80]}" is no member of the workspace.',
                    pointer=f"/members/{index}/user",
                )
            )
        elif role not in PROJECT_ROLES:
            issues.append(
                Issue("not_allowed", f"role is one of {', '.join(PROJECT_ROLES)}.", pointer=f"/members/{index}/role")
            )
        else:
            members[user_id] = role
    return members, issues


def add_member(tx: Tx, context: Context, project_id: str, body: Any) -> str:
    """Give a member of the workspace a role in the project."""
    row, _ = edit.load(tx, context, PROJECT, project_id, target=False)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "add members")
    within: dict[str, str | None] = {"workspace_id": row.workspace_id, "project_id": project_id}
    reference, role = workspaces.new_member(body, PROJECT_ROLES, "editor", **within)
    user_id = identity.resolve_user(tx, context, row.workspace_id, reference)
    if user_id is None:
        edit.fail(
            [
                Issue(
                    "unknown_reference",
                    f'"{reference[:80]}" is no member of the workspace; add them there first.',
                    pointer="/user",
                )
            ]
        )
    return identity.add_member(tx, context, row.workspace_id, project_id, str(user_id), role)


def change_member(tx: Tx, context: Context, project_id: str, user: str, body: Any) -> str:
    """Change a member's role in the project."""
    row, _ = edit.load(tx, context, PROJECT, project_id, target=False)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "change roles")
    user_id = workspaces.member_id(tx, context, row.workspace_id, user)
    member = workspaces.found_member(identity.membership(tx, row.workspace_id, project_id, user_id), user)
    role = workspaces.changed_role(body, PROJECT_ROLES, member)
    workspaces.require_live(tx, user_id)
    return workspaces.found_member(
        identity.change_member(tx, context, row.workspace_id, project_id, user_id, role), user
    )


def remove_member(tx: Tx, context: Context, project_id: str, user: str) -> None:
    """End a project membership: an editor anybody's, everybody their own unless it restricts them.

    A member of the workspace edits its projects unless a membership says less, so whoever is a viewer or commenter
    by such a membership would become an editor by ending it. Where ending it takes all access away, it may be ended.
    """
    row, doc = edit.load(tx, context, PROJECT, project_id, target=False)
    user_id = workspaces.member_id(tx, context, row.workspace_id, user)
    grant = access.require_workspace(context.principal, row.workspace_id, "guest", "end a membership")
    restricts = grant.role != "guest" and doc["visibility"] == "workspace"
    if user_id != context.principal.user_id or restricts:
        doing = "remove members, or to end a membership of your own that restricts you"
        access.require_project(context.principal, row.workspace_id, project_id, "editor", doing)
    removed = identity.remove_member(tx, context, row.workspace_id, project_id, user_id)
    workspaces.found_member("" if removed else None, user)
