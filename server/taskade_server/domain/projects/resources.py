"""What a project and a template are: their fields, workflows and custom fields."""

from typing import Final

from taskade_server.engine.model import Field, Relation, Resource

TYPES: Final = ("list", "board", "table", "calendar", "gantt", "mindmap", "orgchart")

CATEGORIES: Final = ("todo", "doing", "done")

FIELD_TYPES: Final = ("text", "number", "select", "multi", "date", "user", "checkbox", "url")

PRIORITIES: Final = ("none", "low", "medium", "high", "urgent")

MAX_TEMPLATE_TASKS: Final = 200

KEY: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"

DEFAULT_STATUSES: Final = [
    {"key": "pending", "name": "Pending", "category": "todo"},
    {"key": "in_progress", "name": "In progress", "category": "doing"},
    {"key": "completed", "name": "Completed", "category": "done"},
]

_STATUSES: Final = Field(
    "statuses",
    "list",
    "The workflow, in order; tasks start in the first todo status.",
    DEFAULT_STATUSES,
    nullable=False,
    default=DEFAULT_STATUSES,
    max_items=50,
    members=(
        Field(
            "key",
            "key",
            "What a task's status holds.",
            "pending",
            required=True,
            nullable=False,
            min_length=1,
            max_length=63,
            pattern=KEY,
        ),
        Field("name", "text", "What people see.", "Pending", max_length=100),
        Field(
            "category",
            "enum",
            "todo, doing or done; entering done completes a task.",
            "todo",
            required=True,
            nullable=False,
            values=CATEGORIES,
        ),
    ),
)

_FIELDS: Final = Field(
    "fields",
    "list",
    "Custom field definitions; a task's value under a defined key must have its type.",
    [{"key": "estimated_hours", "name": "Estimated hours", "type": "number", "options": []}],
    nullable=False,
    default=[],
    members=(
        Field(
            "key",
            "key",
            "The key in custom_fields.",
            "estimated_hours",
            required=True,
            nullable=False,
            min_length=1,
            max_length=63,
            pattern=KEY,
        ),
        Field("name", "text", "What people see.", "Estimated hours", max_length=100),
        Field("type", "enum", "The type of its values.", "number", required=True, nullable=False, values=FIELD_TYPES),
        Field(
            "options",
            "strings",
            "The allowed values of select and multi.",
            ["easy", "medium"],
            nullable=False,
            default=[],
            max_items=200,
        ),
    ),
)

CUSTOM: Final = Field(
    "custom_fields",
    "custom",
    "Your own values: strings, numbers, booleans and lists of strings by key. Updates merge, null removes a key.",
    {"customer_id": "cust_42"},
    nullable=False,
    default={},
)

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
              "Who sees it. `workspace`: all its members; `private`: the project's members and the workspace's admins.",
              "workspace",
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
    narrower_events={"project.archived": "was archived.", "project.unarchived": "was made active again."},
)  # fmt: skip


def _task_tree(depth: int) -> Field:
    own = (
        Field("name", "text", "Name.", "Kick-off call", required=True, nullable=False, min_length=1, max_length=500),
        Field("description", "text", "Markdown.", max_length=20_000),
        Field("status", "key", "A status key of the blueprint; null for the first.", max_length=63),
        Field("priority", "enum", "Urgency.", "none", nullable=False, values=PRIORITIES, default="none"),
        Field("labels", "strings", "Labels.", [], nullable=False, default=[], max_length=100, max_items=50),
        Field(
            "start_in_days", "integer", "Start date, in days after the project is made.", minimum=-3650, maximum=3650
        ),
        Field("due_in_days", "integer", "Due date, in days after the project is made.", 3, minimum=-3650, maximum=3650),
        Field("estimate", "number", "Estimated effort.", minimum=0, maximum=1_000_000),
    )
    below = (_task_tree(depth - 1),) if depth > 1 else ()
    name = "tasks" if depth == 3 else "subtasks"
    about = (
        f"Tasks to create, each with subtasks; {MAX_TEMPLATE_TASKS} in all." if depth == 3 else "Tasks below this one."
    )
    return Field(name, "list", about, nullable=False, default=[], members=(*own, *below), max_items=MAX_TEMPLATE_TASKS)


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
