"""Making a project with its tasks from a template."""

from collections.abc import Iterable
from typing import Any

from taskade_server.domain import ordering, projects
from taskade_server.domain.tasks.narrower_events import events_of_creation
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.workflow import is_done
from taskade_server.engine import edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.kit import ids, json, time, zones
from taskade_server.kit.errors import Issue
from taskade_server.store.database import Tx


def instantiate(tx: Tx, context: Context, body: Any) -> str:
    """Create a project from `template_id` with its tasks, in one transaction.

    The key needs the scopes to read the template and to create what it makes, as if it did both by themselves.
    """
    edit.scope(context, projects.TEMPLATE, "read", "to make a project from a template")
    template_id = body["template_id"]
    row = None
    if isinstance(template_id, str):
        row = query.get(tx, context.principal, projects.TEMPLATE, template_id, keep=True)
    if row is None:
        edit.fail(
            [
                Issue(
                    "unknown_reference",
                    f'There is no template "{str(template_id)[:80]}" that you can see.',
                    pointer="/template_id",
                )
            ]
        )
    template = json.decode(row.document) if row else {}
    if template["tasks"]:
        edit.scope(context, TASK, "write", "to make the tasks of the template")
    projects.require_sound_template(template)
    rendered = projects.create(tx, context, body, blueprint=template)
    project = json.decode(rendered)
    changes: list[Change] = []
    zone = zones.get(context.principal.zone(project["workspace_id"]))
    _add_tasks(project, template["tasks"], None, changes, zones.day_of(time.now_ms(), zone).isoformat())
    log.apply(tx, context.actor, changes)
    return rendered


def _add_tasks(
    project: dict[str, Any], blueprints: Iterable[dict[str, Any]], parent: str | None, changes: list[Change], today: str
) -> None:
    for blueprint in blueprints:
        task_id = ids.new("task")
        status = blueprint["status"]
        if projects.status_category(project, status or "") is None:
            status = projects.first_status(project, "todo")
        doc = {item.name: None for item in TASK.fields.values()} | {
            "id": task_id,
            "workspace_id": project["workspace_id"],
            "project_id": project["id"],
            "parent_id": parent,
            "name": blueprint["name"],
            "description": blueprint["description"],
            "status": status,
            "priority": blueprint["priority"],
            "labels": blueprint["labels"],
            "estimate": blueprint["estimate"],
            "position": ordering.initial(task_id),
            "blocked_by": [],
            "custom_fields": {},
            "recurrence_from": "due_date",
            "start_date": None
            if blueprint["start_in_days"] is None
            else time.add_days(today, blueprint["start_in_days"]),
            "due_date": None if blueprint["due_in_days"] is None else time.add_days(today, blueprint["due_in_days"]),
        }
        if is_done(project, doc):
            doc["completed_at"] = time.format_ms(time.now_ms())
        changes.append(Change(TASK, "created", doc, also=events_of_creation(doc)))
        _add_tasks(project, blueprint.get("subtasks", []), task_id, changes, today)
