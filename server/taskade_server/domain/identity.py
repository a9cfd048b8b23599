"""Users, API keys, memberships, and how a bearer token becomes a principal.

Why memberships live here: what somebody may see is derived from nothing but the token and these rows, so one module
can be read to know who gets in.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from taskade_server.engine import access, edit, log, query
from taskade_server.engine.access import WORKSPACE_ROLES, Grant, Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import Field, Relation, Resource
from taskade_server.kit import ids, json, signing, text, time
from taskade_server.kit.errors import Clash, Forbidden, Issue, Unauthenticated, did_you_mean
from taskade_server.store.database import Tx

ROLES: Final = (*access.PROJECT_ROLES, *WORKSPACE_ROLES)
MAX_KEY_DAYS: Final = 365
HANDLE: Final = r"[a-z0-9][a-z0-9_.-]{0,62}"
SCOPED: Final = ("workspaces", "projects", "tasks", "comments", "templates", "users", "api-keys", "webhooks")
SCOPES: Final = ("*", *(f"{name}:{verb}" for name in SCOPED for verb in ("read", "write")), "audit:read")

USER: Final = Resource(
    "user", "users", "user",
    "A person or a service account. Users see the users they share a workspace with.",
    (
        Field("workspace_id", "ref", "The workspace that invited the user.", target="workspace", create_only=True),
        Field("name", "text", "Full name.", "Ana Lima", required=True, nullable=False, min_length=1, folded=True,
              sortable=True),
        Field("email", "text", "E-mail address, unique in the installation; service accounts may have none.",
              "ana@example.com",
              max_length=254, pattern=r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+", sortable=True),
        Field("handle", "key", "Short unique name, usable wherever a user is named.", "ana", pattern=HANDLE,
              max_length=63, sortable=True, filled=True),
        Field("kind", "enum", "A person, or a service that acts by API key only.", "person", nullable=False,
              values=("person", "service"), default="person"),
        Field("avatar_url", "text", "Address of a picture.", "https://example.com/ana.png", max_length=2000, pattern=r"https?://[A-Za-z0-9._~:@%-]+([/?#][!-~]*)?",
              filterable=False),
    ),
    visibility="shared", alternate_keys=("handle", "email"), search=("name", "email", "handle"), grants=("*",),
    lasting=True,
    relations=(Relation("created_by", "user", "one", "created_by", "The user who invited this one.", replaces=True),),
    private=(("trash_root", "text"),),
)  # fmt: skip

MEMBER: Final = Resource(
    "member", "members", "mem",
    "A user's role in a workspace, or in one project.",
    (
        Field("project_id", "ref", "The project, or null for the workspace itself.", target="project",
              create_only=True),
        Field("user", "user", "The member.", target="user", required=True, nullable=False, create_only=True),
        Field("role", "enum", "guest, member, admin or owner in a workspace; viewer, commenter or editor in a project.",
              "member", nullable=False, values=ROLES, required=True),
    ),
    visibility="member", project_column="project_id", trash=False, grants=("*",),
    event_names={"created": "member.added", "deleted": "member.removed"},
    relations=(Relation("user", "user", "one", "user", "The member as a user.", replaces=True),),
)  # fmt: skip

API_KEY: Final = Resource(
    "api_key", "api-keys", "key",
    "A credential of its user. The secret is shown once, on creation; the server keeps a keyed hash.",
    (
        Field("workspace_id", "ref", "The workspace whose log records it.", target="workspace", writable=False),
        Field("user_id", "ref", "The user the key acts as.", target="user", writable=False, nullable=False),
        Field("name", "text", "What the key is for.", "CI on the build server", required=True, nullable=False,
              min_length=1, sortable=True),
        Field("prefix", "key", "The part of the secret that identifies the key.", "tsk_01j9zq3v5kfg8wt2m4n6p8r0s2",
              writable=False, nullable=False),
        Field("scopes", "strings", "What the key may do: * or resource:read, resource:write.", ["tasks:read"],
              nullable=False, default=["*"], column=False, values=SCOPES),
        Field("workspace_ids", "refs", "If not empty, the only workspaces the key reaches.", [], target="workspace",
              nullable=False,
              default=[], column=False),
        Field("project_ids", "refs", "If not empty, the only projects the key reaches.", [], target="project",
              nullable=False,
              default=[], column=False),
        Field("allowed_ips", "strings", "If not empty, the only addresses or networks the key works from.",
              ["192.0.2.0/24"],
              nullable=False, default=[], column=False),
        Field("rate_limit", "integer",
              "Requests per minute, up to what the operator allows; null for the installation's.", 60, minimum=1,
              maximum=1_000_000, filterable=False),
        Field("expires_at", "time", "When it stops working.", "2027-01-01T00:00:00.000Z", sortable=True),
        Field("last_used_at", "time", "When it was last used, to the minute.", "2024-01-15T10:30:00.000Z",
              writable=False, column=False,
              filterable=False),
    ),
    visibility="owner", trash=False, grants=("*",), private=(("hash", "text"),),
)  # fmt: skip


# ---- authentication --------------------------------------------------------------------------------------------------


def authenticate(tx: Tx, secret: bytes, token: str) -> tuple[Principal, list[str], int | None]:
    """The principal of an API key, with its allowed networks and expiry (epoch ms); Unauthenticated otherwise."""
    parsed = signing.parse_key(token)
    if parsed is None:
        raise Unauthenticated(
            "This is not an API key of this server: its form or checksum is wrong. Was it copied whole?"
        )
    return _holder(tx, parsed.id, signing.digest(secret, token))


def holder(tx: Tx, key_id: str) -> tuple[Principal, list[str], int | None]:
    """The same for a key that somebody has shown before; Unauthenticated if it is no longer good."""
    return _holder(tx, key_id, None)


def _holder(tx: Tx, key_id: str, digest: str | None) -> tuple[Principal, list[str], int | None]:
    row = tx.one(
        "SELECT k.hash, k.doc, k.expires_at, u.id, u.workspace_id FROM api_keys k JOIN users u ON u.id = k.user_id"
        " WHERE k.id = ? AND u.deleted_at IS NULL",
        (key_id,),
    )
    if row is None or (digest is not None and row[0] != digest):
        raise Unauthenticated("This API key does not exist or was revoked.")
    key = json.decode(row[1])
    if row[2] is not None and row[2] <= time.now_ms():
        raise Unauthenticated(f"This API key expired at {key['expires_at']}.")
    grants = grants_of(tx, row[3], key["workspace_ids"], key["project_ids"])
    home = (
        row[4]
        if row[4] in grants and grants[row[4]].live
        else next((name for name in grants if grants[name].live), None)
    )
    principal = Principal(row[3], key_id, frozenset(key["scopes"]), grants, home, key["rate_limit"])
    return principal, key["allowed_ips"], row[2]


def grants_of(tx: Tx, user_id: str, workspaces: Iterable[str] = (), projects: Iterable[str] = ()) -> dict[str, Grant]:
    """A user's grants by workspace, cut to the limits of a key."""
    only_workspaces, only_projects = frozenset(workspaces), frozenset(projects)
    roles: dict[str, dict[str, str]] = {}
    for workspace_id, project_id, role in tx.all(
        'SELECT workspace_id, project_id, role FROM members WHERE "user" = ? AND project_id IS NOT NULL', (user_id,)
    ):
        roles.setdefault(workspace_id, {})[project_id] = ROLES[role]
    grants: dict[str, Grant] = {}
    for workspace_id, role, deleted_at in tx.all(
        "SELECT m.workspace_id, m.role, w.deleted_at FROM members m JOIN workspaces w ON w.id = m.workspace_id"
        ' WHERE m."user" = ? AND m.project_id IS NULL ORDER BY m.n',
        (user_id,),
    ):
        if only_workspaces and workspace_id not in only_workspaces:
            continue
        mine = roles.get(workspace_id, {})
        only = frozenset(mine) if ROLES[role] == "guest" else None
        hidden = (
            frozenset() if ROLES[role] in ("guest", "admin", "owner") else _private(tx, workspace_id) - frozenset(mine)
        )
        if only_projects:
            only = (only_projects if only is None else only & only_projects) - hidden
            only &= _projects_in(tx, workspace_id, only)
        grants[workspace_id] = Grant(workspace_id, ROLES[role], only, hidden, mine, deleted_at is None)
    return grants


def _private(tx: Tx, workspace_id: str) -> frozenset[str]:
    return frozenset(
        row[0] for row in tx.all("SELECT id FROM projects WHERE workspace_id = ? AND visibility = 1", (workspace_id,))
    )


def _projects_in(tx: Tx, workspace_id: str, wanted: frozenset[str]) -> frozenset[str]:
    found = [
        tx.one("SELECT id FROM projects WHERE id = ? AND workspace_id = ?", (name, workspace_id))
        for name in sorted(wanted)
    ]
    return frozenset(row[0] for row in found if row)


def ip_allowed(networks: Iterable[str], address: str) -> bool:
    """Whether an address lies in one of the networks (an empty list allows all)."""
    rules = list(networks)
    if not rules:
        return True
    try:
        client = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(client in ipaddress.ip_network(rule, strict=False) for rule in rules)


# ---- users -----------------------------------------------------------------------------------------------------------


def create_user(tx: Tx, context: Context, body: Any) -> str:
    """Create (invite) a user into a workspace; needs the role admin there."""
    values = edit.fields(USER, body, extra=["role"])
    role = body.get("role", "member")
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    issues = (
        []
        if role in WORKSPACE_ROLES
        else [Issue("not_allowed", f"role is one of {', '.join(WORKSPACE_ROLES)}.", pointer="/role")]
    )
    if values["email"] is None and values["kind"] == "person":
        issues.append(
            Issue("required", "A person needs an email; only service accounts may have none.", pointer="/email")
        )
    edit.fail(issues)
    grant = access.require_workspace(context.principal, workspace_id, "admin", "invite users")
    if role == "owner" and grant.role != "owner":
        raise Forbidden("Only an owner can make another owner.")
    user_id = edit.new_id(tx, USER, values.get("id"))
    email = text.fold(values["email"]) if values["email"] else None
    handle = values["handle"] or _free_handle(tx, values["name"], email)
    _require_unique(tx, user_id, email, values["handle"])
    doc = {**values, "id": user_id, "workspace_id": workspace_id, "email": email, "handle": handle}
    rendered = edit.create(tx, context, USER, doc)
    add_member(tx, context, workspace_id, None, user_id, role)
    return rendered


def update_user(tx: Tx, context: Context, user_id: str, body: Any) -> str:
    """Change a user: oneself, or as an admin of the workspace that invited the user."""
    row, before = edit.load(tx, context, USER, user_id)
    _require_control(tx, context, before)
    values = edit.fields(USER, body, current=before)
    if values.get("email"):
        values["email"] = text.fold(values["email"])
    if "handle" in values and values["handle"] is None:
        values["handle"] = _free_handle(tx, values.get("name", before["name"]), values.get("email", before["email"]))
    _require_unique(tx, user_id, values.get("email"), values.get("handle"))
    return edit.update(tx, context, USER, row, before, {**before, **values})


def delete_user(tx: Tx, context: Context, user_id: str) -> None:
    """Move a user to the trash; the keys stop working at once."""
    row, doc = edit.load(tx, context, USER, user_id)
    _require_control(tx, context, doc)
    if user_id == context.principal.user_id:
        raise Clash("You cannot delete yourself; ask another admin.")
    edit.trash(tx, context, [(USER, row, doc)], user_id)


def restore_user(tx: Tx, context: Context, user_id: str) -> str:
    """Bring a user back from the trash."""
    _, doc = edit.load(tx, context, USER, user_id, deleted=True)
    _require_control(tx, context, doc)
    return edit.untrash(tx, context, USER, user_id, ())


def _require_control(tx: Tx, context: Context, user: dict[str, Any]) -> None:
    if user["id"] == context.principal.user_id:
        return
    grant = context.principal.grant(user["workspace_id"])
    if grant is None or grant.only is not None or grant.role not in ("admin", "owner"):
        raise Forbidden("Only the user, or an admin of the workspace that invited the user, may do that.")
    found = _membership(tx, user["workspace_id"], None, user["id"])
    if found is not None and json.decode(found[1])["role"] == "owner" and grant.role != "owner":
        raise Forbidden("Only an owner may do that to another owner.")


def _require_unique(tx: Tx, user_id: str, email: str | None, handle: str | None) -> None:
    issues = []
    for name, value in (("email", email), ("handle", handle)):
        if value is not None and tx.one(f"SELECT 1 FROM users WHERE {name} = ? AND id <> ?", (value, user_id)):
            issues.append(Issue(f"{name}_in_use", f"Another user has the {name} {value}.", pointer=f"/{name}"))
    if issues:
        raise Clash(issues[0].detail, errors=issues)


def _free_handle(tx: Tx, name: str, email: str | None) -> str:
    base = re.sub(r"[^a-z0-9]+", "_", (email or name).split("@")[0].lower()).strip("_")[:40] or "user"
    handle = base
    while tx.one("SELECT 1 FROM users WHERE handle = ?", (handle,)):
        handle = f"{base}_{ids.new('x')[-6:]}"
    return handle


def resolve_user(tx: Tx, context: Context, workspace_id: str, reference: str, *, trashed: bool = False) -> str | None:
    """The id of a member of a workspace, from an id, handle, e-mail or `me`; `trashed` admits deleted users."""
    return query.resolve(tx, context.principal, "user", reference, within=workspace_id, trashed=trashed)


def invited(tx: Tx, workspace_id: str, reference: str) -> str | None:
    """The id of a user whom a workspace has invited, member or not, from an id, handle or e-mail."""
    folded = text.fold(reference)
    row = tx.one(
        "SELECT id FROM users WHERE (id = ? OR email = ? OR handle = ?) AND workspace_id = ?",
        (reference, folded, folded, workspace_id),
    )
    return str(row[0]) if row else None


# ---- members ---------------------------------------------------------------------------------------------------------


def add_member(tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str, role: str) -> str:
    """Write a membership; a user who is a member already gets the role."""
    found = _membership(tx, workspace_id, project_id, user_id)
    if found is not None:
        _keep_an_owner(tx, context, found, role)
        return _set_role(tx, context, found, role)
    doc = {"id": ids.new("mem"), "workspace_id": workspace_id, "project_id": project_id, "user": user_id, "role": role}
    return edit.create(tx, context, MEMBER, doc)


def change_member(
    tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str, role: str
) -> str | None:
    """Change a role; None if there is no such member. The last owner of a workspace stays owner."""
    found = _membership(tx, workspace_id, project_id, user_id)
    if found is None:
        return None
    edit.expect(context, MEMBER, json.decode(found[1]))
    _keep_an_owner(tx, context, found, role)
    return _set_role(tx, context, found, role)


def remove_member(tx: Tx, context: Context, workspace_id: str, project_id: str | None, user_id: str) -> bool:
    """End a membership; leaving a workspace ends those in its projects too. False if there was none."""
    found = _membership(tx, workspace_id, project_id, user_id)
    if found is None:
        return False
    edit.expect(context, MEMBER, json.decode(found[1]))
    _keep_an_owner(tx, context, found, None)
    rows = [found]
    if project_id is None:
        rows += tx.all(
            'SELECT n, doc FROM members WHERE workspace_id = ? AND "user" = ? AND project_id IS NOT NULL'
            f" ORDER BY n{tx.for_update}",
            (workspace_id, user_id),
        )
    changes = []
    for n, rendered in rows:
        doc = json.decode(rendered)
        changes.append(Change(MEMBER, "deleted", dict(doc), doc, n))
    log.apply(tx, context.actor, changes)
    return True


def _membership(tx: Tx, workspace_id: str, project_id: str | None, user_id: str) -> tuple[int, str] | None:
    place = "project_id IS NULL" if project_id is None else "project_id = ?"
    params = (workspace_id, user_id) if project_id is None else (workspace_id, user_id, project_id)
    row = tx.one(f'SELECT n, doc FROM members WHERE workspace_id = ? AND "user" = ? AND {place}{tx.for_update}', params)
    return (row[0], row[1]) if row else None


def _set_role(tx: Tx, context: Context, found: tuple[int, str], role: str) -> str:
    before = json.decode(found[1])
    if before["role"] == role:
        return found[1]
    return log.apply(tx, context.actor, [Change(MEMBER, "updated", {**before, "role": role}, before, found[0])])[0]


def _keep_an_owner(tx: Tx, context: Context, found: tuple[int, str], role: str | None) -> None:
    doc = json.decode(found[1])
    if doc["project_id"] is not None or doc["role"] != "owner" or role == "owner":
        return
    grant = context.principal.grant(doc["workspace_id"])
    if grant is None or grant.role != "owner":
        raise Forbidden("Only an owner can take the role owner from another.")
    log.lock(tx, doc["workspace_id"])
    row = tx.one(
        'SELECT COUNT(*) FROM members m JOIN users u ON u.id = m."user"'
        ' WHERE m.workspace_id = ? AND m.project_id IS NULL AND m.role = ? AND m."user" <> ? AND u.deleted_at IS NULL',
        (doc["workspace_id"], ROLES.index("owner"), doc["user"]),
    )
    if row is None or row[0] == 0:
        raise Clash("A workspace needs an owner; make somebody else an owner first.")


# ---- API keys --------------------------------------------------------------------------------------------------------


def create_key(tx: Tx, context: Context, body: Any) -> tuple[str, str]:
    """A new key of the caller, as (document, secret); it cannot have more rights than the key that makes it."""
    values = edit.fields(API_KEY, body)
    check_key(context, values)
    _check_limits(tx, context, values)
    return new_key(tx, context, context.principal.user_id, context.principal.default_workspace, values)


def new_key(
    tx: Tx, context: Context, user_id: str, workspace_id: str | None, values: dict[str, Any]
) -> tuple[str, str]:
    """Write a key for a user; used by the API and by the command line."""
    key = signing.new_key(edit.new_id(tx, API_KEY, values.get("id")), context.secret, context.seed)
    prefix = key.text.rsplit("_", 2)[0]
    doc = {
        "last_used_at": None,
        **values,
        "id": key.id,
        "workspace_id": workspace_id,
        "user_id": user_id,
        "prefix": prefix,
    }
    return edit.create(tx, context, API_KEY, doc, hash=signing.digest(context.secret, key.text)), key.text


def update_key(tx: Tx, context: Context, key_id: str, body: Any) -> str:
    """Change a key's name, scopes, limits or expiry."""
    row, before = edit.load(tx, context, API_KEY, key_id)
    values = edit.fields(API_KEY, body, current=before)
    check_key(context, values)
    _check_limits(tx, context, values)
    return edit.update(tx, context, API_KEY, row, before, {**before, **values})


def delete_key(tx: Tx, context: Context, key_id: str) -> None:
    """Revoke a key; it stops working with this commit."""
    row, doc = edit.load(tx, context, API_KEY, key_id)
    log.apply(tx, context.actor, [Change(API_KEY, "deleted", dict(doc), doc, row.n)])


def check_key(context: Context, values: dict[str, Any]) -> None:
    """Invalid when a key asks for unknown or more rights than its maker has, or expires at a wrong time."""
    issues: list[Issue] = []
    for index, scope in enumerate(values.get("scopes") or []):
        if scope not in SCOPES:
            detail = f'There is no scope "{scope}".{did_you_mean(scope, SCOPES)} Scopes: {", ".join(SCOPES)}.'
            issues.append(Issue("unknown_scope", detail, pointer=f"/scopes/{index}"))
        elif not (context.principal.allows(scope) if scope != "*" else "*" in context.principal.scopes):
            issues.append(
                Issue(
                    "exceeds_own_scopes",
                    f"Your own key lacks {scope}, so it cannot give it.",
                    pointer=f"/scopes/{index}",
                )
            )
    for index, name in enumerate(values.get("workspace_ids") or []):
        if context.principal.grant(name) is None:
            issues.append(
                Issue(
                    "unknown_reference",
                    f"There is no workspace {name} that you can see.",
                    pointer=f"/workspace_ids/{index}",
                )
            )
    for index, network in enumerate(values.get("allowed_ips") or []):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            issues.append(
                Issue("invalid_format", f"{network[:60]} is no IP address or network.", pointer=f"/allowed_ips/{index}")
            )
    if values.get("expires_at"):
        left = time.parse_ms(values["expires_at"]) - time.now_ms()
        if not 0 < left <= (MAX_KEY_DAYS + 1) * time.DAY_MS:
            issues.append(
                Issue(
                    "out_of_range",
                    f"expires_at must lie in the future, at most {MAX_KEY_DAYS} days ahead.",
                    pointer="/expires_at",
                )
            )
    edit.fail(issues)


def own_key(tx: Tx, context: Context) -> dict[str, Any]:
    """The key that calls, whose limits hold for whatever it makes; empty when there is none."""
    row = tx.one("SELECT doc FROM api_keys WHERE id = ?", (context.principal.key_id,))
    return json.decode(row[0]) if row else {}


def _check_limits(tx: Tx, context: Context, values: dict[str, Any]) -> None:
    """Invalid when a key would reach an unknown project, or further than the limits of the key that makes it."""
    issues = [
        Issue("unknown_reference", f"There is no project {name} that you can see.", pointer=f"/project_ids/{index}")
        for index, name in enumerate(values.get("project_ids") or [])
        if query.resolve(tx, context.principal, "project", name) is None
    ]
    own = own_key(tx, context)
    for name, within in _LIMITS.items():
        if own.get(name) and name in values and not (values[name] and within(values[name], own[name])):
            limit = ", ".join(own[name]) if isinstance(own[name], list) else own[name]
            issues.append(
                Issue("exceeds_own_limits", f"Your own key has the {name} {limit}; stay within.", pointer=f"/{name}")
            )
    edit.fail(issues)


def _networks_within(inner: list[str], outer: list[str]) -> bool:
    allowed: list[Any] = [ipaddress.ip_network(name, strict=False) for name in outer]
    wanted: list[Any] = [ipaddress.ip_network(name, strict=False) for name in inner]
    return all(any(one.version == two.version and one.subnet_of(two) for two in allowed) for one in wanted)


_LIMITS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "workspace_ids": lambda inner, outer: set(inner) <= set(outer),
    "project_ids": lambda inner, outer: set(inner) <= set(outer),
    "allowed_ips": _networks_within,
    "rate_limit": lambda inner, outer: bool(inner <= outer),
    "expires_at": lambda inner, outer: bool(inner <= outer),
}
"""Whether a limit of a key lies within the same limit of another; no limit at all never does."""
