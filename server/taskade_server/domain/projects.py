"""Projects, their statuses, custom field definitions and members; and templates, from which projects are made.

Why a project carries its workflow: a status means something only inside its project, so tasks ask the project what
is done and what is not, and a template can bring a whole way of working along.
"""

from functools import cache
from importlib import resources
from typing import Any, Final

from taskade_server.domain import identity, workspaces
from taskade_server.engine import access, edit, log, query
from taskade_server.engine.access import PROJECT_ROLES
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import REGISTRY, Field, Relation, Resource
from taskade_server.kit import json, time
from taskade_server.kit.errors import Forbidden, Issue
from taskade_server.store.database import Tx

TYPES: Final = ("list", "board", "table", "calendar", "gantt", "mindmap", "orgchart")
CATEGORIES: Final = ("todo", "doing", "done")
FIELD_TYPES: Final = ("text", "number", "select", "multi", "date", "user", "checkbox", "url")
PRIORITIES: Final = ("none", "low", "medium", "high", "urgent")
MAX_MEMBERS: Final = 500
KEY: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
DEFAULT_STATUSES: Final = [
    {"key": "pending", "name": "Pending", "category": "todo"},
    {"key": "in_progress", "name": "In progress", "category": "doing"},
    {"key": "completed", "name": "Completed", "category": "done"},
]

_STATUSES: Final = Field(
    "statuses", "list", "The workflow, in order; tasks start in the first todo status.", DEFAULT_STATUSES,
    nullable=False,
    default=DEFAULT_STATUSES, max_items=50,
    members=(
        Field("key", "key", "What a task's status holds.", "pending", required=True, nullable=False, min_length=1,
              max_length=63, pattern=KEY),
        Field("name", "text", "What people see.", "Pending", max_length=100),
        Field("category", "enum", "todo, doing or done; entering done completes a task.", "todo", required=True,
              nullable=False, values=CATEGORIES),
    ),
)  # fmt: skip
_FIELDS: Final = Field(
    "fields", "list", "Custom field definitions; a task's value under a defined key must have its type.",
    [{"key": "estimated_hours", "name": "Estimated hours", "type": "number", "options": []}], nullable=False,
    default=[],
    members=(
        Field("key", "key", "The key in custom_fields.", "estimated_hours", required=True, nullable=False,
              min_length=1, max_length=63, pattern=KEY),
        Field("name", "text", "What people see.", "Estimated hours", max_length=100),
        Field("type", "enum", "The type of its values.", "number", required=True, nullable=False, values=FIELD_TYPES),
        Field("options", "strings", "The allowed values of select and multi.", ["easy", "medium"], nullable=False,
              default=[], max_items=200),
    ),
)  # fmt: skip
CUSTOM: Final = Field(
    "custom_fields", "custom",
    "Your own values: strings, numbers, booleans and lists of strings by key. Updates merge, null removes a key.",
    {"customer_id": "cust_42"}, nullable=False, default={},
)  # fmt: skip

PROJECT: Final = Resource(
    "project", "projects", "proj",
    "A container of tasks with its own workflow, custom fields and members.",
    (
        Field("name", "text", "Name.", "Customer Onboarding", required=True, nullable=False, min_length=1,
              max_length=500,
              folded=True, sortable=True),
        Field("description", "text", "What it is about (Markdown).", "From contract to first login.",
              max_length=100_000, column=False),
        Field("type", "enum", "The view it opens in.", "list", nullable=False, values=TYPES, default="list"),
        Field("visibility", "enum",
              "workspace: all its members; private: the project's members and the workspace's admins.", "workspace",
              nullable=False, values=("workspace", "private"), default="workspace"),
        Field("color", "text", "A color name or #rrggbb.", "#3b82f6", max_length=32, filterable=False),
        Field("start_date", "day", "First day or time.", "2024-01-15", sortable=True),
        Field("due_date", "day", "Last day or time.", "2024-02-01", sortable=True),
        Field("archived_at", "time", "When it was archived; null while it is active.", writable=False, sortable=True),
        Field("template_id", "ref", "The template it was made from.", target="template", create_only=True),
        _STATUSES, _FIELDS, CUSTOM,
    ),
    visibility="project", project_column="id", search=("name", "description"), grants=("visibility",),
    relations=(
        Relation("tasks", "task", "reverse", "project_id", "Its tasks (1,000 at most)."),
        Relation("members", "member", "reverse", "project_id", "Its explicit members."),
        Relation("workspace", "workspace", "one", "workspace_id", "Its workspace."),
        Relation("template", "template", "one", "template_id", "The template it was made from."),
        Relation("created_by", "user", "one", "created_by", "The user who created it.", replaces=True),
    ),
    private=(("trash_root", "text"), ("inbox_of", "text")),
    narrower_events={"project.archived": "Archived.", "project.unarchived": "Made active again."},
)  # fmt: skip


def _task_tree(depth: int) -> Field:
    own = (
        Field("name", "text", "Name.", "Kick-off call", required=True, nullable=False, min_length=1, max_length=500),
        Field("description", "text", "Markdown.", max_length=20_000),
        Field("status", "key", "A status key of the blueprint; null for the first.", max_length=63),
        Field("priority", "enum", "Urgency.", "none", nullable=False, values=PRIORITIES, default="none"),
        Field("labels", "strings", "Labels.", [], nullable=False, default=[], max_length=100),
        Field(
            "start_in_days", "integer", "Start date, in days after the project is made.", minimum=-3650, maximum=3650
        ),
        Field("due_in_days", "integer", "Due date, in days after the project is made.", 3, minimum=-3650, maximum=3650),
        Field("estimate", "number", "Estimated effort."),
    )
    below = (_task_tree(depth - 1),) if depth > 1 else ()
    name = "tasks" if depth == 3 else "subtasks"
    return Field(name, "list", "Tasks to create, each with subtasks." if depth == 3 else "Tasks below this one.",
                 nullable=False,
                 default=[], members=(*own, *below), max_items=200)  # fmt: skip


TEMPLATE: Final = Resource(
    "template", "templates", "tmpl",
    "A blueprint: POST /projects with its template_id creates it with its tasks. Every workspace starts with six.",
    (
        Field("name", "text", "Name.", "Customer onboarding", required=True, nullable=False, min_length=1,
              folded=True, sortable=True),
        Field("description", "text", "What it is for.", "The first four weeks with a new customer.",
              max_length=10_000, column=False),
        Field("project", "record", "The project it makes.", nullable=False, default={
                "description": None, "type": "list", "color": None, "statuses": DEFAULT_STATUSES, "fields": []},
                members=(
            Field("description", "text", "Description of the project.", max_length=20_000),
            Field("type", "enum", "The view it opens in.", "board", nullable=False, values=TYPES, default="list"),
            Field("color", "text", "A color name or #rrggbb.", max_length=32),
            _STATUSES, _FIELDS)),
        _task_tree(3),
    ),
    visibility="workspace", search=("name", "description"), private=(("trash_root", "text"),),
    relations=(Relation("created_by", "user", "one", "created_by", "The user who created it.", replaces=True),),
)  # fmt: skip


# ---- projects --------------------------------------------------------------------------------------------------------


def create(tx: Tx, context: Context, body: Any, *, blueprint: dict[str, Any] | None = None) -> str:
    """Create a project; `blueprint` (of a template) supplies what the body leaves out."""
    values = edit.fields(PROJECT, body, extra=["members"])
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    if values["workspace_id"] is None and blueprint is not None:
        workspace_id = blueprint["workspace_id"]
    for name, default in (blueprint or {}).get("project", {}).items():
        if body.get(name) is None:
            values[name] = default
    grant = _require_creator(context, workspace_id)
    checked = _check_workflow(values) + _check_dates(values)
    members, member_issues = _members_of(tx, context, workspace_id, body.get("members"))
    edit.fail(checked + member_issues)
    project_id = edit.new_id(tx, PROJECT, values.get("id"))
    doc = {**values, "id": project_id, "workspace_id": workspace_id, "archived_at": None}
    rendered = edit.create(tx, context, PROJECT, doc)
    if values["visibility"] == "private" and context.principal.user_id not in members:
        members[context.principal.user_id] = "editor"
    for user_id, role in members.items():
        identity.add_member(tx, context, workspace_id, project_id, user_id, role)
    if grant.role == "member":
        grant.project_roles[project_id] = members.get(context.principal.user_id, "editor")
    return rendered


def create_inbox(tx: Tx, context: Context, workspace_id: str) -> str:
    """Make the caller's inbox, a private project of the caller alone; returns its id."""
    _require_creator(context, workspace_id)
    user_id = context.principal.user_id
    values = edit.fields(
        PROJECT, {"name": "Inbox", "description": "Tasks without a project of their own.", "visibility": "private"}
    )
    doc = {**values, "id": edit.new_id(tx, PROJECT, None), "workspace_id": workspace_id, "archived_at": None}
    edit.create(tx, context, PROJECT, doc, inbox_of=user_id)
    identity.add_member(tx, context, workspace_id, doc["id"], user_id, "editor")
    return str(doc["id"])


def _require_creator(context: Context, workspace_id: str) -> access.Grant:
    grant = access.require_workspace(context.principal, workspace_id, "member", "create projects")
    if grant.only is not None:
        raise Forbidden("This key is limited to some projects, so it cannot create another.")
    return grant


def update(tx: Tx, context: Context, project_id: str, body: Any) -> str:
    """Change a project; needs the project role editor. Statuses in use cannot be removed."""
    row, before = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "change the project")
    values = edit.fields(PROJECT, body, current=before)
    after = {**before, **values}
    issues = _check_workflow(after) + _check_dates(after)
    if "statuses" in values and not issues:
        issues += _check_removed_statuses(tx, project_id, before, after)
    edit.fail(issues)
    hides = after["visibility"] == "private" != before["visibility"]
    grant = access.require_workspace(context.principal, row.workspace_id, "guest", "change the project")
    if hides and project_id not in grant.project_roles and grant.role == "member":
        # Who makes a project private means to stay in it.
        identity.add_member(tx, context, row.workspace_id, project_id, context.principal.user_id, "editor")
    return edit.update(tx, context, PROJECT, row, before, after)


def archive(tx: Tx, context: Context, project_id: str, *, archived: bool, at: str | None = None) -> str:
    """Archive a project (`at`: as of a time in the past), or make it active again; doing so twice changes nothing."""
    row, before = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "archive the project")
    if (before["archived_at"] is not None) == archived:
        return row.document
    after = {**before, "archived_at": (at or time.format_ms(time.now_ms())) if archived else None}
    return edit.update(
        tx, context, PROJECT, row, before, after, ["project.archived" if archived else "project.unarchived"]
    )


def delete(tx: Tx, context: Context, project_id: str) -> None:
    """Move a project to the trash with its tasks and their comments."""
    row, doc = edit.load(tx, context, PROJECT, project_id)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "delete the project")
    rows = [(PROJECT, row, doc)]
    for name in ("task", "comment"):
        below = REGISTRY[name]
        found = tx.all(
            f"SELECT n, doc FROM {below.table} WHERE project_id = ? AND deleted_at IS NULL ORDER BY n{tx.for_update}",
            (project_id,),
        )
        rows += [(below, query.Row(n, row.workspace_id, project_id, text), json.decode(text)) for n, text in found]
    edit.trash(tx, context, rows, project_id)


def restore(tx: Tx, context: Context, project_id: str) -> str:
    """Bring a project back with what went to the trash with it."""
    row, _ = edit.load(tx, context, PROJECT, project_id, deleted=True)
    access.require_project(context.principal, row.workspace_id, project_id, "editor", "restore the project")
    return edit.untrash(tx, context, PROJECT, project_id, ("task", "comment"))


def status_category(project: dict[str, Any], key: str) -> str | None:
    """todo, doing or done; None when the project has no such status."""
    for status in project["statuses"]:
        if status["key"] == key:
            return str(status["category"])
    return None


def first_status(project: dict[str, Any], category: str) -> str:
    """The first status of a category, or of the workflow when it has none."""
    statuses = project["statuses"]
    return str(next((status["key"] for status in statuses if status["category"] == category), statuses[0]["key"]))


def _check_workflow(doc: dict[str, Any]) -> list[Issue]:
    issues = []
    for name in ("statuses", "fields"):
        keys = [entry.get("key") for entry in doc[name]]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                issues.append(Issue("duplicate", f"The key {key} stands twice.", pointer=f"/{name}/{index}/key"))
    categories = [entry.get("category") for entry in doc["statuses"]]
    if not doc["statuses"] or "done" not in categories or all(category == "done" for category in categories):
        issues.append(
            Issue(
                "invalid_workflow",
                "A workflow needs at least one done status and one that is not.",
                pointer="/statuses",
            )
        )
    for index, entry in enumerate(doc["fields"]):
        if entry.get("type") in ("select", "multi") and not entry.get("options"):
            issues.append(
                Issue("required", f"A {entry['type']} field needs options.", pointer=f"/fields/{index}/options")
            )
    return issues


def _check_dates(doc: dict[str, Any]) -> list[Issue]:
    if (
        doc["start_date"]
        and doc["due_date"]
        and time.parse_ms(doc["start_date"][:10]) > time.parse_ms(doc["due_date"][:10])
    ):
        return [Issue("invalid_range", "due_date lies before start_date.", pointer="/due_date")]
    return []


def _check_removed_statuses(tx: Tx, project_id: str, before: dict[str, Any], after: dict[str, Any]) -> list[Issue]:
    kept = {entry["key"]: entry["category"] for entry in after["statuses"]}
    for entry in before["statuses"]:
        if (entry["category"] == "done") != (kept.get(entry["key"]) == "done") or entry["key"] not in kept:
            found = tx.one(
                "SELECT 1 FROM tasks WHERE project_id = ? AND status = ? AND deleted_at IS NULL LIMIT 1",
                (project_id, entry["key"]),
            )
            if found:
                return [
                    Issue(
                        "status_in_use",
                        f"Tasks are in the status {entry['key']}; move them to another one first.",
                        pointer="/statuses",
                    )
                ]
    return []


# ---- project members -------------------------------------------------------------------------------------------------


def _members_of(tx: Tx, context: Context, workspace_id: str, entries: Any) -> tuple[dict[str, str], list[Issue]]:
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
                detail = f'A member has no "{key[:80]}". Allowed: user, role.'
                issues.append(Issue("unknown_field", detail, pointer=f"/members/{index}/{json.escape_pointer(key)}"))
        user = entry.get("user") if isinstance(entry, dict) else entry
        role = entry.get("role", "editor") if isinstance(entry, dict) else "editor"
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
    reference, role = workspaces.member_body(body, PROJECT_ROLES, "editor")
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
    _, role = workspaces.member_body({**body, "user": user} if isinstance(body, dict) else body, PROJECT_ROLES, None)
    user_id = workspaces.member_id(tx, context, row.workspace_id, user)
    workspaces.require_live(tx, user_id)
    return workspaces.found_member(
        identity.change_member(tx, context, row.workspace_id, project_id, user_id, role), user
    )


def remove_member(tx: Tx, context: Context, project_id: str, user: str) -> None:
    """End a project membership."""
    row, _ = edit.load(tx, context, PROJECT, project_id, target=False)
    user_id = workspaces.member_id(tx, context, row.workspace_id, user)
    if user_id != context.principal.user_id:
        access.require_project(context.principal, row.workspace_id, project_id, "editor", "remove members")
    removed = identity.remove_member(tx, context, row.workspace_id, project_id, user_id)
    workspaces.found_member("" if removed else None, user)


# ---- templates -------------------------------------------------------------------------------------------------------


@cache
def builtin_templates() -> list[dict[str, Any]]:
    """The templates every new workspace starts with, as create bodies."""
    found: list[dict[str, Any]] = json.decode(
        resources.files(__package__).joinpath("builtin_templates.json").read_bytes()
    )
    return found


def add_builtin_templates(tx: Tx, context: Context, workspace_id: str) -> None:
    """Write the built-in templates into a new workspace."""
    changes = []
    for body in builtin_templates():
        values = edit.fields(TEMPLATE, body)
        doc = {**values, "id": edit.new_id(tx, TEMPLATE, None), "workspace_id": workspace_id}
        changes.append(Change(TEMPLATE, "created", doc))
    log.apply(tx, context.actor, changes)


def create_template(tx: Tx, context: Context, body: Any) -> str:
    """Create a template."""
    values = edit.fields(TEMPLATE, body)
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    _require_creator(context, workspace_id)
    edit.fail(_check_template(values))
    return edit.create(
        tx,
        context,
        TEMPLATE,
        {**values, "id": edit.new_id(tx, TEMPLATE, values.get("id")), "workspace_id": workspace_id},
    )


def update_template(tx: Tx, context: Context, template_id: str, body: Any) -> str:
    """Change a template; `project` and `tasks` are replaced whole."""
    row, before = edit.load(tx, context, TEMPLATE, template_id)
    _require_creator(context, row.workspace_id)
    after = {**before, **edit.fields(TEMPLATE, body, current=before)}
    edit.fail(_check_template(after))
    return edit.update(tx, context, TEMPLATE, row, before, after)


def delete_template(tx: Tx, context: Context, template_id: str) -> None:
    """Move a template to the trash; projects made from it stay."""
    row, doc = edit.load(tx, context, TEMPLATE, template_id)
    _require_creator(context, row.workspace_id)
    edit.trash(tx, context, [(TEMPLATE, row, doc)], template_id)


def restore_template(tx: Tx, context: Context, template_id: str) -> str:
    """Bring a template back from the trash."""
    row, _ = edit.load(tx, context, TEMPLATE, template_id, deleted=True)
    _require_creator(context, row.workspace_id)
    return edit.untrash(tx, context, TEMPLATE, template_id, ())


def _check_template(doc: dict[str, Any]) -> list[Issue]:
    project = doc["project"]
    issues = [issue.below("/project") for issue in _check_workflow(project)]

    def walk(tasks: list[dict[str, Any]], place: str) -> None:
        for index, task in enumerate(tasks):
            if task["status"] is not None and status_category(project, task["status"]) is None:
                keys = ", ".join(status["key"] for status in project["statuses"])
                issues.append(
                    Issue("unknown_status", f"The blueprint's statuses are {keys}.", pointer=f"{place}/{index}/status")
                )
            walk(task.get("subtasks", []), f"{place}/{index}/subtasks")

    if not issues:
        walk(doc["tasks"], "/tasks")
    return issues
