"""What a task and a comment are: their fields, relations and events."""

from typing import Final

from taskade_server.domain import occurrences, ordering, projects
from taskade_server.engine.model import Field, Relation, Resource

TASK: Final = Resource(
    "task", "tasks", "task",
    "A unit of work in a project.",
    (
        Field("project_id", "ref", "Its project; without one, the caller's inbox project.", target="project",
              filled=True, narrow=True),
        Field("parent_id", "ref", "The task it is a subtask of.", target="task", narrow=True),
        Field("name", "text", "Name.", "Design mockups", required=True, nullable=False, min_length=1, max_length=500,
              folded=True, sortable=True),
        Field("description", "text", "Markdown.", "Three screens: **list**, detail, settings.", max_length=100_000,
              column=False),
        Field("status", "key", "A key of the project's statuses; the first todo status by default.", "pending",
              max_length=63, sortable=True, filled=True, keys_of=("project_id", "statuses")),
        Field("priority", "enum", "Urgency.", "none", nullable=False, values=projects.PRIORITIES, default="none",
              sortable=True),
        Field("assignee", "user", "Who works on it: an id, handle or e-mail; the response carries the id.",
              target="user", indexed="due_date"),
        Field("labels", "strings", "Free labels, without commas.", ["urgent", "client-work"], nullable=False,
              default=[], max_length=100,
              max_items=50),
        Field("start_date", "day", "A date or a time.", "2024-01-15", sortable=True),
        Field("due_date", "day", "A date or a time.", "2024-01-31", sortable=True, indexed="due_date"),
        Field("completed_at", "time", "When it entered a done status; null while it is open.", writable=False,
              sortable=True, indexed="completed_at"),
        Field("position", "key", "Order key among its siblings: text that sorts.", "01j9zq3v5kfg8wt2h",
              max_length=200, pattern=ordering.PATTERN, sortable=True, filled=True),
        Field("estimate", "number", "Estimated effort in your own unit.", 3, minimum=0, maximum=1_000_000,
              sortable=True),
        Field("recurrence", "text", "An RRULE (RFC 5545); completing the task makes the next one.",
              "FREQ=WEEKLY;BYDAY=MO", max_length=occurrences.MAX_RULE,
              filterable=True),
        Field("recurrence_from", "enum", "What the next date of the rule is counted from.", "due_date", nullable=False,
              values=("due_date", "completion"), default="due_date", column=False),
        Field("timezone", "zone", "The IANA time zone in which its rule counts: the caller's, when a rule is set.",
              "Europe/Berlin", column=False),
        Field("blocked_by", "refs", "Tasks of the workspace that must be done first.", [], target="task",
              nullable=False, default=[],
              max_items=100),
        projects.CUSTOM,
    ),
    visibility="project", project_column="project_id", search=("name", "description"),
    relations=(
        Relation("assignee", "user", "one", "assignee", "The assignee as a user.", replaces=True),
        Relation("project", "project", "one", "project_id", "Its project."),
        Relation("parent", "task", "one", "parent_id", "The task above it."),
        Relation("workspace", "workspace", "one", "workspace_id", "Its workspace."),
        Relation("subtasks", "task", "reverse", "parent_id", "The tasks directly below it."),
        Relation("comments", "comment", "reverse", "task_id", "Its comments."),
        Relation("blocked_by", "task", "many", "blocked_by", "The tasks that block it.", replaces=True),
        Relation("created_by", "user", "one", "created_by", "The user who created it.", replaces=True),
    ),
    private=(("trash_root", "text"),), later=("recurrence_from", "timezone"),
    narrower_events={
        "task.assigned": "got an assignee, also on creation.",
        "task.completed": "entered a done status, also on creation.",
        "task.reopened": "left the done statuses.",
        "task.moved": "changed its project, parent or position.",
    },
)  # fmt: skip

COMMENT: Final = Resource(
    "comment", "comments", "cmt",
    "A remark on a task.",
    (
        Field("task_id", "ref", "The task.", target="task", required=True, nullable=False, create_only=True,
              narrow=True),
        Field("project_id", "ref", "The task's project.", target="project", writable=False, nullable=False,
              narrow=True),
        Field("author", "user", "Who wrote it.", target="user", writable=False, nullable=False),
        Field("body", "text", "Markdown.", "Looks good to me.", required=True, nullable=False, min_length=1,
              max_length=50_000, column=False),
    ),
    visibility="project", project_column="project_id", search=("body",),
    relations=(
        Relation("author", "user", "one", "author", "The author as a user.", replaces=True),
        Relation("task", "task", "one", "task_id", "The task."),
        Relation("project", "project", "one", "project_id", "The task's project."),
    ),
    private=(("trash_root", "text"),),
)  # fmt: skip
