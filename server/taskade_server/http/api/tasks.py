"""Tasks: bulk requests, and the routes that they have beyond the usual ones."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from taskade_server.domain import tasks
from taskade_server.engine import query
from taskade_server.http.api import generic, tasks_schema, weight
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
        document=tasks_schema.BULK_CREATE,
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
        document=tasks_schema.BULK_UPDATE,
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
        document=tasks_schema.BULK_DELETE,
    )


def _routes_of_one() -> Iterator[Route]:
    for verb, category, summary, document in (
        ("complete", "done", "Complete a task: move it to the first done status", tasks_schema.COMPLETE),
        ("reopen", "todo", "Reopen a task: move it to the first todo status", tasks_schema.REOPEN),
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
        document=tasks_schema.MOVE,
    )
