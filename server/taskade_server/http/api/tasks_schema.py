"""What the operations of tasks say about themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Final

from taskade_server.domain import tasks
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Document

_PROJECT: Final = sample_id("proj")
_MOST: Final = f"At most {tasks.MAX_BULK:,} tasks, all or none."

TASKS: Final = documents(
    create={
        "short": ("A name is enough", {"name": "API Test Task"}),
        "full": (
            "With details",
            {
                "name": "Design mockups",
                "project_id": _PROJECT,
                "assignee": "ana",
                "priority": "high",
                "labels": ["client-work"],
                "due_date": "2024-01-31",
                "custom_fields": {"estimated_hours": 8},
            },
        ),
    },
    update={
        "status": ("Complete it by its status", {"status": "completed"}),
        "custom": ("Custom fields merge", {"custom_fields": {"difficulty": "medium", "estimated_hours": None}}),
    },
    query={
        "due": (
            "What is due soon and matters",
            {
                "filter": {"$or": [{"priority": {"$in": ["high", "urgent"]}}, {"due_date": {"$lte": "+7d"}}]},
                "sort": ["-due_date", "name"],
                "include": ["assignee", "project"],
                "limit": 50,
            },
        ),
        "search": ("By words", {"q": "mock", "count": True}),
    },
)


def _move() -> Mapping[str, Schema]:
    project_id, task_id = or_null(id_schema("project")), or_null(id_schema("task"))
    return {
        "TaskMove": closed(
            {
                "project_id": {**project_id, "description": "The project to move to; null to stay in this one."},
                "parent_id": {**task_id, "description": "The task to move below; null for the top level."},
                "before": {**task_id, "description": "The task to stand before."},
                "after": {**task_id, "description": "The task to stand after."},
            },
            minProperties=1,
            description="Where a task is to go. `before` and `after` exclude each other.",
        )
    }


def _chosen() -> dict[str, dict[str, Schema]]:
    """The two ways to choose tasks: by id, and by a filter."""
    ids = {"type": "array", "items": id_schema("task"), "minItems": 1, "maxItems": tasks.MAX_BULK}
    zone = {**schema.ZONE, "description": "The IANA time zone of dates in the filter.", "examples": ["Europe/Berlin"]}
    return {
        "Ids": {"ids": {**ids, "description": "The ids of the tasks."}},
        "Filter": {
            "filter": {**ref("TaskFilter"), "minProperties": 1, "description": "Which tasks to take."},
            "timezone": zone,
        },
    }


def _bulk_create() -> Mapping[str, Schema]:
    several = {"type": "array", "items": ref("TaskCreate"), "minItems": 1, "maxItems": tasks.MAX_BULK}
    project_id = {**or_null(id_schema("project")), "description": "The project of all tasks that name none."}
    properties = {"tasks": {**several, "description": "The tasks."}, "project_id": project_id}
    return {"TaskBulkCreate": closed(properties, required=["tasks"], description="Tasks to create together.")}


def _bulk_update() -> Mapping[str, Schema]:
    version = {
        "type": ["string", "integer", "null"],
        "examples": [3],
        "description": "The version that the task must have, as in `If-Match`.",
    }
    each = {**schema.update(tasks.TASK)["properties"], "id": id_schema("task"), "if_match": version}
    several = {"type": "array", "items": ref("TaskBulkChange"), "minItems": 1, "maxItems": tasks.MAX_BULK}
    found: dict[str, Schema] = {
        f"TaskBulkUpdateBy{way}": closed(
            {**properties, "set": ref("TaskUpdate", "The changes to each of them.")},
            required=[next(iter(properties)), "set"],
            description="The same changes to several tasks.",
        )
        for way, properties in _chosen().items()
    }
    found["TaskBulkUpdateEach"] = closed(
        {"tasks": {**several, "description": "The tasks with their changes."}},
        required=["tasks"],
        description="Different changes to several tasks.",
    )
    found["TaskBulkChange"] = closed(
        each, required=["id"], description="A JSON merge patch for one task, with the id of the task in it."
    )
    return {
        **found,
        "TaskBulkUpdate": {
            "oneOf": [ref(name) for name in found if name != "TaskBulkChange"],
            "description": "Which tasks to change, and how.",
        },
    }


def _bulk_delete() -> Mapping[str, Schema]:
    found: dict[str, Schema] = {
        f"TaskBulkDeleteBy{way}": closed(
            properties, required=[next(iter(properties))], description="Tasks to move to the trash."
        )
        for way, properties in _chosen().items()
    }
    return {
        **found,
        "TaskBulkDelete": {"oneOf": [ref(name) for name in found], "description": "Which tasks to move to the trash."},
    }


BULK_CREATE: Final = Document(
    notes=f"{_MOST} A fault answers 422 and names its place, such as `/tasks/17/name`.",
    body="TaskBulkCreate",
    examples={
        "three": (
            "Three tasks of a project",
            {
                "project_id": _PROJECT,
                "tasks": [{"name": "Design mockups"}, {"name": "Write documentation"}, {"name": "Code review"}],
            },
        )
    },
    schemas=_bulk_create,
)
BULK_UPDATE: Final = Document(
    notes=f"One change to the tasks that `ids` or `filter` choose, or to each of `tasks` a change of its own. {_MOST}",
    body="TaskBulkUpdate",
    examples={
        "ids": ("By id", {"ids": [sample_id("task")], "set": {"priority": "high"}}),
        "filter": ("By filter", {"filter": {"labels": "stale"}, "set": {"status": "completed"}}),
        "tasks": ("Different changes", {"tasks": [{"id": sample_id("task"), "if_match": 3, "priority": "high"}]}),
    },
    schemas=_bulk_update,
    problems=(412,),
)
BULK_DELETE: Final = Document(
    notes=f"Moves the tasks that `ids` or `filter` choose to the trash, and returns them. {_MOST}",
    body="TaskBulkDelete",
    examples={"ids": ("By id", {"ids": [sample_id("task")]})},
    schemas=_bulk_delete,
)
MOVE: Final = Document(
    notes="To another project, below another task (`parent_id`), or to a place before or after another task.",
    body="TaskMove",
    examples={
        "project": ("To another project", {"project_id": _PROJECT}),
        "top": ("Out of its parent", {"parent_id": None}),
    },
    schemas=_move,
)
COMPLETE: Final = Document(
    notes="Sets `completed_at`. A recurring task gets its successor. A completed task stays as it is."
)
REOPEN: Final = Document(notes="Clears `completed_at`. An open task stays as it is.")
