"""Who may see and do what: a principal's grants, and the predicate every query carries.

Why a predicate: a list that filters after reading leaks through counts, cursors and includes; one that cannot be
built without the predicate cannot leak. Effective right = role within a workspace, cut by the key's scopes and limits,
computed anew for each request. An object that may not be read does not exist (404); one that may be read but not
changed answers 403.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from taskade_server.engine.model import Resource
from taskade_server.kit import json
from taskade_server.kit.errors import Forbidden, Invalid, Issue, NotFound

WORKSPACE_ROLES: Final = ("guest", "member", "admin", "owner")
PROJECT_ROLES: Final = ("viewer", "commenter", "editor")
MANY: Final = 50


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal may reach in one workspace.

    `only` (guests, limited keys): the visible projects; `hidden`: private projects of others. `project_roles`: explicit
    project memberships. `live` is False for a workspace in the trash, whose own row alone stays visible.
    """

    workspace_id: str
    role: str
    only: frozenset[str] | None = None
    hidden: frozenset[str] = frozenset()
    project_roles: dict[str, str] = field(default_factory=dict)
    live: bool = True

    def sees_project(self, project_id: str | None) -> bool:
        """Whether the project, or with None something outside any project, is visible."""
        if self.only is not None:
            return project_id is not None and project_id in self.only
        return project_id not in self.hidden

    def project_role(self, project_id: str) -> str:
        """`editor`, `commenter` or `viewer`; workspace members edit unless a membership says less."""
        if self.role in ("owner", "admin"):
            return "editor"
        return self.project_roles.get(project_id, "viewer" if self.role == "guest" else "editor")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: a user, usually through an API key, with grants by workspace id."""

    user_id: str
    key_id: str | None
    scopes: frozenset[str]
    grants: dict[str, Grant]
    default_workspace: str | None
    rate: int | None = None
    queries: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)
    """Lists this caller has asked for, parsed; whatever they refer to cannot change without a new principal."""

    def allows(self, scope: str) -> bool:
        """Whether the scopes cover `tasks:read`; write implies read, `*` everything."""
        if "*" in self.scopes or scope in self.scopes:
            return True
        resource, _, verb = scope.partition(":")
        return verb == "read" and f"{resource}:write" in self.scopes

    def fingerprint(self) -> str:
        """A digest of all that the caller may reach, whatever the scopes; the same on every process."""
        grants = [
            [g.workspace_id, g.role, g.live, None if g.only is None else sorted(g.only), sorted(g.hidden),
             sorted(g.project_roles.items())]
            for g in sorted(self.grants.values(), key=attrgetter("workspace_id"))
        ]  # fmt: skip
        return hashlib.sha256(json.encode([self.user_id, grants]).encode()).hexdigest()

    def grant(self, workspace_id: str | None) -> Grant | None:
        """The grant in a live workspace."""
        found = self.grants.get(workspace_id or "")
        return found if found is not None and found.live else None


@dataclass(frozen=True, slots=True)
class Visible:
    """A proof of access for the query builder: only `visible()` makes one."""

    sql: str
    params: tuple[Any, ...]
    workspaces: tuple[str, ...]


def visible(principal: Principal, resource: Resource, dialect: str, *, within: Iterable[str] | None = None) -> Visible:
    """The SQL predicate (on table alias `t`) for the rows a principal may see, optionally within some workspaces."""
    chosen = [
        grant
        for grant in principal.grants.values()
        if (grant.live or resource.visibility == "self") and (within is None or grant.workspace_id in within)
    ]
    names = tuple(grant.workspace_id for grant in chosen)
    if resource.visibility == "owner":
        return Visible("t.user_id = ?", (principal.user_id,), ())
    if not chosen:
        return Visible("1 = 0", (), ())
    if resource.visibility == "self":
        return Visible(_in("t.id", names), names, ())
    if resource.visibility == "shared":
        inner = f"SELECT m.user FROM members m WHERE {_in('m.workspace_id', names)} AND m.project_id IS NULL"
        return Visible(f"t.id IN ({inner})", names, ())
    parts: list[str] = []
    params: list[Any] = list(names)
    for grant in chosen:
        limits = _managed if resource.visibility == "managed" else _project_limits
        sql, more = limits(principal, resource, grant, dialect)
        if sql:
            parts.append(sql if len(chosen) == 1 else f"(t.workspace_id <> ? OR {sql})")
            params += [grant.workspace_id, *more] if len(chosen) > 1 else more
    return Visible(" AND ".join([_in("t.workspace_id", names), *parts]), tuple(params), names)


def _in(column: str, names: tuple[str, ...]) -> str:
    return f"{column} = ?" if len(names) == 1 else f"{column} IN ({', '.join('?' * len(names))})"


def _managed(principal: Principal, resource: Resource, grant: Grant, dialect: str) -> tuple[str, list[Any]]:
    """One's own and, for who administers the workspace, everybody's; with some projects only, one's own in these."""
    if grant.only is not None:
        sql, params = _in_list("t.project_id", sorted(grant.only), dialect)
        return f"(t.user_id = ? AND {sql})", [principal.user_id, *params]
    return ("", []) if grant.role in ("admin", "owner") else ("t.user_id = ?", [principal.user_id])


def _project_limits(
    principal: Principal, resource: Resource, grant: Grant, dialect: str
) -> tuple[str, list[Any]]:  # fmt: skip
    column = f"t.{resource.project_column}" if resource.project_column else ""
    if not column:
        return ("1 = 0", []) if resource.visibility == "workspace" and grant.only is not None else ("", [])
    if grant.only is not None:
        limit = _in_list(column, sorted(grant.only), dialect)
        return limit if resource.visibility == "project" else (f"({column} IS NULL OR {limit[0]})", limit[1])
    if grant.hidden:
        sql, params = _in_list(column, sorted(grant.hidden), dialect)
        return f"({column} IS NULL OR NOT {sql})", params
    return "", []


def _in_list(column: str, values: list[str], dialect: str) -> tuple[str, list[Any]]:
    if not values:
        return "1 = 0", []
    sql, params = among(column, values, dialect)
    return f"({sql})", params


def among(column: str, values: Sequence[Any], dialect: str) -> tuple[str, list[Any]]:
    """The condition that a column has one of some values. Many go as one parameter: SQLite takes 32,766 of them."""
    if dialect == "postgresql":
        return f"{column} = ANY(?)", [list(values)]
    if len(values) > MANY:
        return f"{column} IN (SELECT value FROM json_each(?))", [json.encode(list(values))]
    return f"{column} IN ({', '.join('?' * len(values))})", list(values)


def sees(principal: Principal, resource: Resource, workspace_id: str, project_id: str | None, object_id: str) -> bool:
    """The same rule as `visible` for one row in hand; `shared`, `owner` and `managed` resources need the SQL form."""
    grant = principal.grants.get(workspace_id)
    if grant is None or not (grant.live or resource.visibility == "self"):
        return False
    if resource.visibility == "self":
        return True
    if resource.visibility == "project":
        return grant.sees_project(project_id)
    if resource.visibility == "member":
        return project_id is None or grant.sees_project(project_id)
    return resource.visibility == "workspace" and grant.only is None


# ---- what may be done ------------------------------------------------------------------------------------------------


def require_scope(principal: Principal, scope: str) -> None:
    """Forbidden unless the key's scopes cover it."""
    if not principal.allows(scope):
        raise Forbidden(f"This key lacks the scope {scope}. It has: {', '.join(sorted(principal.scopes)) or 'none'}.")


def require_workspace(principal: Principal, workspace_id: str, role: str, doing: str) -> Grant:
    """The grant, if its role is at least `role`; NotFound if there is none, Forbidden if the role is less."""
    if not workspace_id:
        detail = "You belong to no workspace: name one in workspace_id, or create one with POST /workspaces."
        raise Invalid(detail, errors=[Issue("required", detail, pointer="/workspace_id")])
    grant = principal.grant(workspace_id)
    if grant is None:
        raise NotFound(f"There is no workspace {workspace_id} that this key can see.")
    if WORKSPACE_ROLES.index(grant.role) < WORKSPACE_ROLES.index(role):
        raise _forbidden(workspace_id, f"To {doing}, the workspace role {role} is needed; yours is {grant.role}.")
    if grant.only is not None and role in ("admin", "owner"):
        raise _forbidden(workspace_id, f"This key is limited to some projects, so it cannot {doing}.")
    return grant


def require_project(principal: Principal, workspace_id: str, project_id: str, role: str, doing: str) -> None:
    """Forbidden unless the role in the project is at least `role`; NotFound when the project is invisible."""
    grant = principal.grant(workspace_id)
    if grant is None or not grant.sees_project(project_id):
        raise NotFound(f"There is no project {project_id} that this key can see.")
    actual = grant.project_role(project_id)
    if PROJECT_ROLES.index(actual) < PROJECT_ROLES.index(role):
        raise _forbidden(workspace_id, f"To {doing}, the project role {role} is needed; yours is {actual}.")


def _forbidden(workspace_id: str, detail: str) -> Forbidden:
    found = Forbidden(detail)
    found.place = workspace_id
    return found
