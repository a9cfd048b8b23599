"""What operations of workspaces, projects, comments, templates, users, API keys and secrets say about themselves."""

from collections.abc import Mapping
from typing import Final

from taskade_server.domain import identity, projects, secrets
from taskade_server.engine import access, schema
from taskade_server.engine.schema import Schema, closed, extended, or_null, ref, sample_id
from taskade_server.http.api.crud_schema import RENAME, ResourceDocuments, documents
from taskade_server.http.api.document import Document

_SECRET: Final = f"tsk_{schema.SAMPLE_ID}_5oZ3mXk8Qp2Rt7Vw9Ya4Bc6De1Fg0Hj5Kl8Mn3Pq_2f6Xk1"

WORKSPACES: Final = documents(
    create={"workspace": ("A workspace", {"name": "Product team", "settings": {"theme": "dark"}})},
    update={"settings": ("Settings merge", {"settings": {"notifications": True}})},
)


def _projects() -> Mapping[str, Schema]:
    members = {
        "type": ["array", "null"],
        "maxItems": projects.MAX_MEMBERS,
        "items": ref("FirstMember"),
        "description": "The first members, who must be members of the workspace.",
    }
    return {
        "ProjectCreate": schema.creation(projects.PROJECT, {"members": members}),
        "FirstMember": {
            "anyOf": [ref("UserReference"), ref("ProjectMemberCreate")],
            "description": "A user, or a user with the role in the project.",
        },
    }


PROJECTS: Final = documents(
    create={
        "board": ("A board", {"name": "Customer Onboarding", "type": "board", "due_date": "2024-02-01"}),
        "template": ("From a template", {"name": "Customer Onboarding", "template_id": sample_id("tmpl")}),
    },
    update={"dates": ("Set one date and clear another", {"due_date": "2024-02-01", "start_date": None})},
    query={"active": ("Active boards", {"filter": {"type": "board", "archived_at": {"$exists": False}}})},
    created=Document(schemas=_projects),
)
ARCHIVE: Final = Document(notes="Its tasks stay as they are. An archived project stays as it is.")
UNARCHIVE: Final = Document(notes="An active project stays as it is.")

COMMENTS: Final = documents(
    create={"comment": ("A comment", {"task_id": sample_id("task"), "body": "Looks good to me."})},
    update={"body": ("Another text", {"body": "Looks *very* good to me."})},
)
TEMPLATES: Final = documents(
    create={
        "template": ("Two tasks", {
            "name": "Customer onboarding", "project": {"type": "board"},
            "tasks": [{"name": "Kick-off call", "due_in_days": 3}, {"name": "Training", "due_in_days": 14}],
        }),
    },
    update=RENAME,
)  # fmt: skip


def _users() -> Mapping[str, Schema]:
    text = "The role of the user in the workspace. Default: `member`."
    role = {**or_null(ref("WorkspaceRole")), "description": text}
    return {"UserCreate": schema.creation(identity.USER, {"role": role})}


USERS: Final = documents(
    create={"person": ("Invite a person", {"name": "Ana Lima", "email": "ana@example.com", "handle": "ana"})},
    update=RENAME,
    query={"people": ("People by name", {"filter": {"kind": "person"}, "sort": "name"})},
    created=Document(notes="A person needs an `email`; a service account (`kind`: `service`) does not.",
                     schemas=_users),
)  # fmt: skip
ME: Final = Document(notes="The user whose API key the request carries.")


def _keys() -> Mapping[str, Schema]:
    text = "The secret of the key, for the header `Authorization`. No other response has it."
    return {
        "ApiKeyCreated": extended(
            "ApiKey", {"secret": {"type": "string", "description": text}}, ["secret"],
            description="A new API key with its secret.",
            examples=[{**schema.sample(identity.API_KEY), "secret": _SECRET}],
        )
    }  # fmt: skip


API_KEYS: Final = documents(
    create={"reader": ("A key that can only read tasks", {"name": "Dashboard", "scopes": ["tasks:read"]})},
    update={"limit": ("Restrict it", {"scopes": ["tasks:read"], "rate_limit": 60})},
    created=Document(notes="The response has the `secret`, which no other response has: store it at once.",
                     schemas=_keys),
    delete=Document(notes="The key stops working at once."),
)  # fmt: skip


def _secrets() -> Mapping[str, Schema]:
    value: Schema = {
        "type": "string", "minLength": 1, "maxLength": secrets.MAX_VALUE, "examples": ["pat-eu1-3f9c27"],
        "description": f"What is kept: a token, a password. At most {secrets.MAX_VALUE:,} bytes in UTF-8. No response"
        " has it.",
    }  # fmt: skip
    again = f"{value['description']} Required if `hosts` changes, and if somebody else gave the present value."
    hosts = {**schema.sent(secrets.SECRET.fields["hosts"], creating=False), "type": "array", "minItems": 1}
    created = schema.creation(secrets.SECRET, {"hosts": hosts, "value": value})
    changed = schema.update(secrets.SECRET)
    more = {"hosts": hosts, "value": {**value, "description": again}}
    return {
        "SecretCreate": {**created, "required": [*created["required"], "value"]},
        "SecretUpdate": {**changed, "properties": {**changed["properties"], **more}},
    }


SECRETS: Final = documents(
    create={
        "token": ("A token for one host", {"name": "crm", "hosts": ["api.crm.example"], "value": "pat-eu1-3f9c27"}),
    },
    update={
        "rotate": ("Another value", {"value": "pat-eu1-8b06d4"}),
        "hosts": ("One more host", {"hosts": ["api.crm.example", "eu.crm.example"], "value": "pat-eu1-3f9c27"}),
    },
    query={"old": ("Values that were given long ago", {"filter": {"value_set_at": {"$lt": "-365d"}}})},
    created=Document(notes="No response has the `value`, not even this one.", schemas=_secrets),
    delete=Document(notes="The value is gone at once. Nothing brings it back."),
)

# ---- members ---------------------------------------------------------------------------------------------------------

_ROLES: Final = {
    "workspaces": ("Workspace", access.WORKSPACE_ROLES, "member"),
    "projects": ("Project", access.PROJECT_ROLES, "editor"),
}
_MEMBER: Final[Mapping[str, Schema]] = {
    "PathUser": {
        "name": "user", "in": "path", "required": True, "example": "ana",
        "schema": {"type": "string", "pattern": "^[^/]+$", "minLength": 1, "maxLength": 320},
        "description": "The member: the id, handle or e-mail address of the user.",
    }
}  # fmt: skip


def adding_member(owner: str) -> Document:
    """POST of a user to the members of a workspace or project."""
    name, _, _ = _ROLES[owner]
    user = {"workspaces": "ana", "projects": "ana@example.com"}[owner]
    role = {"workspaces": "admin", "projects": "viewer"}[owner]
    return Document(
        notes="A user who is a member already gets the role.",
        body=f"{name}MemberCreate",
        examples={"member": ("A user and a role", {"user": user, "role": role})},
        schemas=lambda: _member_schemas(owner),
    )


def changing_member(owner: str, *, put: bool = False) -> Document:
    """PATCH or PUT of a member."""
    name, _, default = _ROLES[owner]
    notes = "PUT is the same as PATCH. " if put else ""
    return Document(
        notes=f"{notes}The last owner of a workspace stays its owner.",
        body=f"{name}MemberUpdate",
        examples={"role": ("A role", {"role": default})},
        in_path=_MEMBER,
    )


REMOVE_MEMBER: Final = Document(notes="Members may end their own membership.", in_path=_MEMBER)


def _member_schemas(owner: str) -> Mapping[str, Schema]:
    name, roles, default = _ROLES[owner]
    others = [member.name for member in identity.MEMBER.fields.values() if member.name not in ("user", "role")]
    role = ref(f"{name}Role", "The role of the member.")
    optional = {**or_null(ref(f"{name}Role")), "description": f"The role of the member. Default: `{default}`."}
    unchanged = {name: ref("ReadOnly") for name in ["user", *others]}
    lower = name.lower()
    return {
        f"{name}Role": {"type": "string", "enum": list(roles), "description": f"What a member of a {lower} may do."},
        f"{name}MemberCreate": closed(
            {"user": ref("UserReference"), "role": optional, "workspace_id": ref("ReadOnly"),
             "project_id": ref("ReadOnly")}, required=["user"],
            description=f"A user and the role in the {lower}.",
        ),
        f"{name}MemberUpdate": closed(
            {"role": role, **unchanged}, required=["role"], description="The new role of a member.",
        ),
    }  # fmt: skip


BY_RESOURCE: Final[Mapping[str, ResourceDocuments]] = {
    "workspaces": WORKSPACES,
    "projects": PROJECTS,
    "comments": COMMENTS,
    "templates": TEMPLATES,
    "users": USERS,
    "api-keys": API_KEYS,
    "secrets": SECRETS,
}
