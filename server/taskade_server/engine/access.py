"""Who may see and do what: a principal's grants, and the predicate every query carries.

Why a predicate: a list that filters after reading leaks through counts, cursors and includes; one that cannot be
built without the predicate cannot leak. Effective right = role within a workspace, cut by the key's scopes and limits,
computed anew for each request. An object that may not be read does not exist (404); one that may be read but not
changed answers 403.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Self

from taskade_server.engine.model import Resource
from taskade_server.kit import json, zones
from taskade_server.kit.errors import Forbidden, Invalid, Issue, NotFound

WORKSPACE_ROLES: Final = ("guest", "member", "admin", "owner")
PROJECT_ROLES: Final = ("viewer", "commenter", "editor")
MANY: Final = 50


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal may reach in one workspace. It never changes: a verb that gives a right makes another grant.

    `only` (guests, limited keys): the visible projects; `hidden`: private projects of others. `project_roles`: explicit
    project memberships. `live` is False for a workspace in the trash, whose own row alone stays visible.
    """

    workspace_id: str
    role: str
    only: frozenset[str] | None = None
    hidden: frozenset[str] = frozenset()
    project_roles: Mapping[str, str] = field(default_factory=dict)
    live: bool = True
    timezone: str = zones.DEFAULT

    def __post_init__(self) -> None:
        object.__setattr__(self, "project_roles", MappingProxyType(dict(self.project_roles)))

    def with_project(self, project_id: str, role: str) -> Self:
        """A grant that has this role in the project, too."""
        return replace(self, project_roles={**self.project_roles, project_id: role})

    def sees_project(self, workspace_id: str, project_id: str | None, *, is_open: bool) -> bool:
        """Whether a project of a workspace is visible.

        `is_open` says what is known of the project itself: that every member of the workspace may see it. Of a project
        whose row was just read, or that an object whose row was just read lies in, True is right: `hidden` has the
        private ones. For one that is named in the log it comes with the event (`log.Sight`). A project of which nothing
        is known is visible to nobody whose rights do not name it, and in another workspace none is.
        """
        if workspace_id != self.workspace_id or project_id is None:
            return False
        if self.only is not None:
            return project_id in self.only
        if self.role in ("admin", "owner") or project_id in self.project_roles:
            return True
        return is_open and project_id not in self.hidden

    def project_role(self, project_id: str) -> str:
        """`editor`, `commenter` or `viewer`; workspace members edit unless a membership says less."""
        if self.role in ("owner", "admin"):
            return "editor"
        return self.project_roles.get(project_id, "viewer" if self.role == "guest" else "editor")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: a user, usually through an API key, with grants by workspace id.

    One principal serves many requests, so nothing about its rights can be changed; `with_grant` makes another one.
    """

    user_id: str
    key_id: str | None
    scopes: frozenset[str]
    grants: Mapping[str, Grant]
    default_workspace: str | None
    rate: int | None = None
    timezone: str | None = None
    """The user's own time zone, if they have chosen one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grants", MappingProxyType(dict(self.grants)))

    @property
    def caller_id(self) -> str:
        """The id under which limits and caches know the caller: that of the API key, without one the user's."""
        return self.key_id or self.user_id

    def with_grant(self, grant: Grant) -> Self:
        """Return this caller with a grant in place of the one for its workspace, if there was one."""
        return replace(self, grants={**self.grants, grant.workspace_id: grant})

    def allows(self, scope: str) -> bool:
        """Whether the scopes cover one such as `tasks:read` ("" needs none); write implies read, `*` everything."""
        if "*" in self.scopes or scope in self.scopes or not scope:
            return True
        resource, _, verb = scope.partition(":")
        return verb == "read" and f"{resource}:write" in self.scopes

    def fingerprint(self) -> str:
        """A digest of all that the caller may reach, whatever the scopes; the same on every process."""
        grants = [
            [
                g.workspace_id,
                g.role,
                g.live,
                None if g.only is None else sorted(g.only),
                sorted(g.hidden),
                sorted(g.project_roles.items()),
            ]
            for g in sorted(self.grants.values(), key=attrgetter("workspace_id"))
        ]
        return hashlib.sha256(json.encode([self.user_id, grants]).encode()).hexdigest()

    def zone(self, workspace_id: str | None = None) -> str:
        """The name of the time zone that the caller's days are counted in: the user's, else the workspace's.

        Where no workspace of theirs is named, it is the one in which they create what names none.
        """
        if self.timezone is not None:
            return self.timezone
        grant = self.grant(workspace_id) or self.grant(self.default_workspace)
        return zones.DEFAULT if grant is None else grant.timezone

    def grant(self, workspace_id: str | None) -> Grant | None:
        """The grant in a live workspace."""
        found = self.grants.get(workspace_id or "")
        return found if found is not None and found.live else None


@dataclass(frozen=True, slots=True)
class Visible:
    """A proof of access for the query builder: only `visible()` makes one.

    `sql` is a condition on the table alias `t` with its `params`; `workspaces` are those that it lets through, and
    none if it does not go by workspaces.
    """

    sql: str
    params: tuple[Any, ...]
    workspaces: tuple[str, ...]
    unindexed: str
    """The condition in a form that keeps SQLite from walking the index of the workspace. On PostgreSQL it is `sql`."""

    def within(self, workspace_id: str) -> "Visible":
        """Return the rule within one of its workspaces, in a form whose order an index can give."""
        rest = f"t.workspace_id = ? AND {self.unindexed}"
        return Visible(rest, (workspace_id, *self.params), (workspace_id,), rest)


def visible(principal: Principal, resource: Resource, dialect: str, *, within: Iterable[str] | None = None) -> Visible:
    """The SQL predicate (on table alias `t`) for the rows a principal may see, optionally within some workspaces."""
    chosen = [
        grant
        for grant in principal.grants.values()
        if (grant.live or resource.visibility == "self") and (within is None or grant.workspace_id in within)
    ]
    names = tuple(grant.workspace_id for grant in chosen)
    if resource.visibility == "owner":
        return _owned(principal, chosen, dialect)
    if not chosen:
        return _anywhere("1 = 0", ())
    if resource.visibility == "self":
        return _anywhere(_in("t.id", names), names)
    if resource.visibility == "shared":
        inner = f"SELECT m.user FROM members m WHERE {_in('m.workspace_id', names)} AND m.project_id IS NULL"
        return _anywhere(f"t.id IN ({inner})", names)
    parts: list[str] = []
    params: list[Any] = list(names)
    for grant in chosen:
        limits = _managed if resource.visibility == "managed" else _project_limits
        sql, more = limits(principal, resource, grant, dialect)
        if sql:
            parts.append(sql if len(chosen) == 1 else f"(t.workspace_id <> ? OR {sql})")
            params += [grant.workspace_id, *more] if len(chosen) > 1 else more
    sql = " AND ".join([_in("t.workspace_id", names), *parts])
    return Visible(sql, tuple(params), names, sql if dialect == "postgresql" else f"+{sql}")


def _anywhere(sql: str, params: tuple[str, ...]) -> Visible:
    """A rule that is bound to no workspace."""
    return Visible(sql, params, (), sql)


def _in(column: str, names: tuple[str, ...]) -> str:
    return f"{column} = ?" if len(names) == 1 else f"{column} IN ({', '.join('?' * len(names))})"


def _owned(principal: Principal, grants: Iterable[Grant], dialect: str) -> Visible:
    """One's own, and those of service users whom a workspace invited that one administers.

    Of a service user who is an owner, for owners only.
    """
    places = [grant for grant in grants if administers(grant)]
    if not places:
        return _anywhere("t.user_id = ?", (principal.user_id,))
    names = tuple(grant.workspace_id for grant in places)
    owned = tuple(grant.workspace_id for grant in places if grant.role == "owner")
    is_owner = (
        f'EXISTS (SELECT 1 FROM members m WHERE m.workspace_id = u.workspace_id AND m."user" = u.id'
        f" AND m.project_id IS NULL AND m.role = {len(PROJECT_ROLES) + WORKSPACE_ROLES.index('owner')})"
    )
    allowed = f"({_in('u.workspace_id', owned)} OR NOT {is_owner})" if owned else f"NOT {is_owner}"

    def condition(workspace: str) -> str:
        services = (
            f"SELECT u.id FROM users u WHERE u.kind = 1 AND u.workspace_id = {workspace}"
            f" AND {_in('u.workspace_id', names)} AND {allowed}"
        )
        return f"(t.user_id = ? OR t.user_id IN ({services}))"

    sql = condition("t.workspace_id")
    unindexed = sql if dialect == "postgresql" else condition("+t.workspace_id")
    return Visible(sql, (principal.user_id, *names, *owned), (), unindexed)


def administers(grant: Grant | None) -> bool:
    """Whether a grant is that of an admin, whose key is not limited to some projects."""
    return grant is not None and grant.live and grant.only is None and grant.role in ("admin", "owner")


def _managed(principal: Principal, resource: Resource, grant: Grant, dialect: str) -> tuple[str, list[Any]]:
    """One's own and, for who administers the workspace, everybody's; with some projects only, one's own in these."""
    if grant.only is not None:
        sql, params = _in_list("t.project_id", sorted(grant.only), dialect)
        return f"(t.user_id = ? AND {sql})", [principal.user_id, *params]
    return ("", []) if grant.role in ("admin", "owner") else ("t.user_id = ?", [principal.user_id])


def _project_limits(principal: Principal, resource: Resource, grant: Grant, dialect: str) -> tuple[str, list[Any]]:
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


def sees(principal: Principal, resource: Resource, workspace_id: str, project_id: str | None, *, is_open: bool) -> bool:
    """Whether a principal may see one object, by the rule of `visible`.

    Not for `shared`, `owner` and `managed` resources, whose rule needs the database.

    `is_open`: as `Grant.sees_project` has it, of the object's project.
    """
    grant = principal.grants.get(workspace_id)
    if grant is None or not (grant.live or resource.visibility == "self"):
        return False
    if resource.visibility == "self":
        return True
    if resource.visibility == "project":
        return grant.sees_project(workspace_id, project_id, is_open=is_open)
    if resource.visibility == "member":
        return project_id is None or grant.sees_project(workspace_id, project_id, is_open=is_open)
    return resource.visibility == "workspace" and grant.only is None


# ---- what may be done ------------------------------------------------------------------------------------------------


def require_scope(principal: Principal, scope: str, purpose: str = "") -> None:
    """Forbidden unless the key's scopes cover it. `purpose` says what it is needed for, as in `to include comments`."""
    if not principal.allows(scope):
        what = f"{scope}, which it needs {purpose}" if purpose else scope
        raise Forbidden(f"This key lacks the scope {what}. It has: {', '.join(sorted(principal.scopes)) or 'none'}.")


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
    """Forbidden unless the role in the project is at least `role`; NotFound when the project is invisible.

    The row of the project, or of an object in it, was read before.
    """
    grant = principal.grant(workspace_id)
    if grant is None or not grant.sees_project(workspace_id, project_id, is_open=True):
        raise NotFound(f"There is no project {project_id} that this key can see.")
    actual = grant.project_role(project_id)
    if PROJECT_ROLES.index(actual) < PROJECT_ROLES.index(role):
        raise _forbidden(workspace_id, f"To {doing}, the project role {role} is needed; yours is {actual}.")


def _forbidden(workspace_id: str, detail: str) -> Forbidden:
    found = Forbidden(detail)
    found.workspace_id = workspace_id
    return found
