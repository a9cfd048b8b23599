"""Tasks: bulk requests, and the routes that they have beyond the usual ones."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from taskade_server.domain import tasks
from taskade_server.engine import query, schema
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.http.api import crud, generic, weight
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Document
from taskade_server.http.api.generic import body_of
from taskade_server.http.api.route import MIB, Route
from taskade_server.http.api.weight import MAX_COST
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import named_version
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import json
from taskade_server.kit.errors import Invalid, Issue
from taskade_server.store.database import Tx


def create_tasks(call: Call, tx: Tx) -> Reply:
    """POST /tasks/bulk."""
    call.no_parameters()
    return Reply(201, json.array(tasks.create_bulk(tx, call.context(), body_of(call))))


def update_tasks(call: Call, tx: Tx) -> Reply:
    """PATCH /tasks/bulk."""
    call.no_parameters()
    body = body_of(call)
    if isinstance(body, dict) and "tasks" in body:
        faults: list[Issue] = []
        entries = body["tasks"][: tasks.MAX_BULK] if isinstance(body["tasks"], list) else []
        given = [entry.get("if_match") if isinstance(entry, dict) else None for entry in entries]
        versions = [named_version(one, f"/tasks/{index}", faults) for index, one in enumerate(given)]
        return Reply(200, json.array(tasks.update_each(tx, call.context(), body, versions, faults)))
    body, zone = _zoned(body)
    chosen, condition, patch = tasks.selection(body, wants_set=True)
    named = _chosen(call, tx, chosen, condition, zone)
    documents = tasks.update_bulk(tx, call.context(), named, patch, by_filter=chosen is None)
    return Reply(200, json.array(documents))


def delete_tasks(call: Call, tx: Tx) -> Reply:
    """DELETE /tasks/bulk."""
    call.no_parameters()
    body, zone = _zoned(body_of(call))
    chosen, condition, _ = tasks.selection(body, wants_set=False)
    named = _chosen(call, tx, chosen, condition, zone)
    documents = tasks.delete_bulk(tx, call.context(), named, by_filter=chosen is None)
    return Reply(200, json.array(documents))


def _zoned(body: Any) -> tuple[Any, dict[str, Any]]:
    """A body without the time zone that its filter is meant in, and that."""
    if not isinstance(body, dict) or "filter" not in body:
        return body, {}
    rest = dict(body)
    return rest, {name: rest.pop(name) for name in ("timezone",) if name in rest}


def _chosen(call: Call, tx: Tx, chosen: list[str] | None, condition: Any, zone: dict[str, Any]) -> list[str]:
    if chosen is not None:
        return chosen
    parsed = query.parse(tx, call.principal, tasks.TASK, call.secret, [], {"filter": condition, **zone})
    tasks.require_condition(parsed.where)
    found = query.select_ids(tx, call.principal, parsed, tasks.MAX_BULK)
    if len(found) > tasks.MAX_BULK:
        detail = f"The filter selects more than {tasks.MAX_BULK:,} tasks; narrow it and send several requests."
        raise Invalid(detail, errors=[Issue("too_many", detail, pointer="/filter")])
    return found


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_PROJECT: Final = sample_id("proj")
_MOST: Final = f"At most {tasks.MAX_BULK:,} tasks, all or none."

_DOCUMENTS: Final = documents(
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
OPTIONS: Final = crud.Options(documents=_DOCUMENTS)


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


def _ways_to_choose() -> dict[str, dict[str, Schema]]:
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
        for way, properties in _ways_to_choose().items()
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
        for way, properties in _ways_to_choose().items()
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


def routes() -> Iterator[Route]:
    """The routes of tasks that other resources have not."""
    yield from _routes_of_many()
    yield from _routes_of_one()


def _routes_of_many() -> Iterator[Route]:
    many: Any = {"heavy": True, "weigh": weight.bulk, "most_cost": MAX_COST, "max_body": 8 * MIB}
    yield Route(
        "POST",
        "/tasks/bulk",
        "tasks.create_bulk",
        "tasks:write",
        create_tasks,
        tasks.TASK,
        "Create up to 1,000 tasks, all or none",
        writes=True,
        body="bulk_create",
        **many,
        answer="list",
        status=201,
        document=BULK_CREATE,
    )
    yield Route(
        "PATCH",
        "/tasks/bulk",
        "tasks.update_bulk",
        "tasks:write",
        update_tasks,
        tasks.TASK,
        "Change up to 1,000 tasks, all or none",
        writes=True,
        body="bulk_update",
        **many,
        answer="list",
        document=BULK_UPDATE,
    )
    yield Route(
        "DELETE",
        "/tasks/bulk",
        "tasks.delete_bulk",
        "tasks:write",
        delete_tasks,
        tasks.TASK,
        "Move up to 1,000 tasks to the trash",
        writes=True,
        body="bulk_delete",
        **many,
        answer="list",
        document=BULK_DELETE,
    )


def _routes_of_one() -> Iterator[Route]:
    for verb, category, summary, document in (
        ("complete", "done", "Complete a task: move it to the first done status", COMPLETE),
        ("reopen", "todo", "Reopen a task: move it to the first todo status", REOPEN),
    ):
        yield Route(
            "POST",
            f"/tasks/{{id}}/{verb}",
            f"tasks.{verb}",
            "tasks:write",
            generic.acting(tasks.TASK, partial(tasks.set_status, category=category)),
            tasks.TASK,
            summary,
            writes=True,
            body="empty",
            document=document,
        )
    yield Route(
        "POST",
        "/tasks/{id}/move",
        "tasks.move",
        "tasks:write",
        generic.changing(tasks.TASK, tasks.move),
        tasks.TASK,
        "Move a task to a project, parent or place among its siblings",
        writes=True,
        body="move",
        document=MOVE,
    )
