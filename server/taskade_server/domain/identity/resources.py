"""What a user, a membership and an API key are."""

from typing import Final

from taskade_server.engine import access
from taskade_server.engine.access import WORKSPACE_ROLES
from taskade_server.engine.model import Field, Relation, Resource

ROLES: Final = (*access.PROJECT_ROLES, *WORKSPACE_ROLES)

HANDLE: Final = r"[a-z0-9][a-z0-9_.-]{0,62}"

SCOPED: Final = (
    "workspaces",
    "projects",
    "tasks",
    "comments",
    "templates",
    "users",
    "api-keys",
    "webhooks",
    "secrets",
    "automations",
)

SCOPES: Final = (
    "*",
    *(f"{name}:{verb}" for name in SCOPED for verb in ("read", "write")),
    "automations:run",
    "audit:read",
)

_SEEN: Final = (
    r"[^@\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]"
)
"""A character of an e-mail address: of those that nobody sees, none."""

USER: Final = Resource(
    "user", "users", "user",
    "A person or a service account. Users see the users they share a workspace with.",
    (
        Field("workspace_id", "ref", "The workspace that invited the user.", target="workspace", create_only=True),
        Field("name", "text", "Full name.", "Ana Lima", required=True, nullable=False, min_length=1, folded=True,
              sortable=True),
        Field("email", "text", "E-mail address, unique in the installation; service accounts may have none.",
              "ana@example.com",
              max_length=254, pattern=f"{_SEEN}+@{_SEEN}+", sortable=True),
        Field("handle", "key", "Short unique name, usable wherever a user is named.", "ana", pattern=HANDLE,
              max_length=63, sortable=True, filled=True),
        # For good: an admin makes the keys of a service, and nobody makes those of a person.
        Field("kind", "enum", "A person, or a service that acts by API key only.", "person", nullable=False,
              values=("person", "service"), default="person", create_only=True),
        Field("avatar_url", "text", "Address of a picture.", "https://example.com/ana.png", max_length=2000, pattern=r"https?://[A-Za-z0-9._~:@%-]+([/?#][!-~]*)?",
              filterable=False),
        Field("timezone", "zone", "The IANA time zone of the user's days; null for that of the workspace.",
              "Europe/Berlin", filterable=False),
    ),
    visibility="shared", alternate_keys=("handle", "email"), search=("name", "email", "handle"), grants=("*",),
    lasting=True, later=("timezone",),
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
        Field("role", "enum", "In a workspace guest, member, admin or owner; in a project viewer, commenter or editor.",
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
        Field("user_id", "user", "The user the key acts as: you, or a service user of a workspace that you administer.",
              target="user", create_only=True, filled=True),
        Field("name", "text", "What the key is for.", "CI on the build server", required=True, nullable=False,
              min_length=1, folded=True, sortable=True),
        Field("prefix", "key", "The part of the secret that identifies the key.", "tsk_01j9zq3v5kfg8wt2m4n6p8r0s2",
              writable=False, nullable=False),
        Field("scopes", "strings", "What the key may do: * or resource:read, resource:write.", ["tasks:read"],
              nullable=False, default=["*"], column=False, values=SCOPES, explicit=True),
        Field("workspace_ids", "refs", "If not empty, the only workspaces the key reaches.", [], target="workspace",
              nullable=False, default=[], column=False, explicit=True),
        Field("project_ids", "refs", "If not empty, the only projects the key reaches.", [], target="project",
              nullable=False, default=[], column=False, explicit=True),
        Field("allowed_ips", "strings", "If not empty, the only addresses or networks the key works from.",
              ["192.0.2.0/24"], nullable=False, default=[], column=False, explicit=True),
        Field("rate_limit", "integer",
              "Requests per minute, up to what the operator allows; null for the installation's.", 60, minimum=1,
              maximum=1_000_000, filterable=False),
        Field("expires_at", "time", "When it stops working.", "2027-01-01T00:00:00.000Z", sortable=True),
        Field("last_used_at", "time", "When it was last used, to the minute.", "2024-01-15T10:30:00.000Z",
              writable=False, column=False, filterable=False, moving=True),
    ),
    visibility="owner", trash=False, grants=("*",), private=(("hash", "text"),),
)  # fmt: skip
