"""Creating tasks, one or many at once."""

from collections.abc import Sequence
from typing import Any

from taskade_server.domain import ordering, projects
from taskade_server.domain.tasks.limits import CHECK_STEPS, MAX_BULK
from taskade_server.domain.tasks.lookups import Lookups
from taskade_server.domain.tasks.narrower_events import events_of_creation
from taskade_server.domain.tasks.placing import assign_positions
from taskade_server.domain.tasks.references import check_references
from taskade_server.domain.tasks.resources import TASK
from taskade_server.domain.tasks.workflow import is_done
from taskade_server.engine import edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import Checker
from taskade_server.kit import ids, time
from taskade_server.kit.errors import Clash, Invalid, Issue
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx


def create(tx: Tx, context: Context, body: Any) -> str:
    """Create one task."""
    return _create_all(Lookups(tx, context), [body], [""])[0]


def create_bulk(tx: Tx, context: Context, body: Any) -> list[str]:
    """Create up to 1,000 tasks (`{tasks, project_id?}`), all or none; faults are named by their place in the list."""
    entries, project_id = _bulk_body(body)
    if project_id is not None:
        entries = [{"project_id": project_id, **entry} if isinstance(entry, dict) else entry for entry in entries]
    return _create_all(Lookups(tx, context), entries, [f"/tasks/{index}" for index in range(len(entries))])


def _bulk_body(body: Any) -> tuple[list[Any], Any]:
    checker = Checker()
    if not isinstance(body, dict):
        checker.fault("", "wrong_type", 'The body is an object: {"tasks": [...], "project_id": "..."}.')
    else:
        for key in body:
            if key not in ("tasks", "project_id"):
                checker.unknown(f"/{escape_pointer(key)}", key, ("tasks", "project_id"), "bulk creation")
        entries = body.get("tasks")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BULK:
            checker.fault("/tasks", "wrong_type", f"tasks is a list of 1 to {MAX_BULK:,} tasks.")
    edit.fail(checker.issues)
    return body["tasks"], body.get("project_id")


def _create_all(lookups: Lookups, bodies: Sequence[Any], pointers: Sequence[str]) -> list[str]:
    issues: list[Issue] = []
    docs: list[dict[str, Any]] = []
    given = edit.given(lookups.context)
    used = edit.used_ids(lookups.tx, TASK, [body.get("id") for body in bodies if isinstance(body, dict)])
    for body, pointer, spare_id in zip(bodies, pointers, ids.many("task", len(bodies)), strict=True):
        checker = Checker(pointer)
        lookups.tx.budget.spend(CHECK_STEPS)
        values = checker.body(TASK, body, creating=True, given=given)
        # Faults of form and faults of reference are reported together: the members that are well-formed are looked up.
        if values:
            with edit.about_entry(pointer):
                _prepare(lookups, checker, values, used, spare_id)
        issues += checker.issues
        if not checker.issues:
            docs.append(values)
            lookups.tasks[values["id"]] = lookups.pending[values["id"]] = values
            lookups.kept.add(values["id"])
        if len(issues) > 100:
            break
    if any(issue.code == "id_in_use" for issue in issues):
        raise Clash("An id is in use already; nothing was written.", errors=issues)
    edit.fail(issues)
    placed = [doc for doc in docs if doc["position"] != ordering.initial(doc["id"])]
    for workspace_id in sorted({doc["workspace_id"] for doc in placed}):
        lookups.lock(workspace_id)
    renewed = assign_positions(lookups, [({}, doc) for doc in placed]) if placed else []
    changes = [Change(TASK, "created", doc, also=events_of_creation(doc)) for doc in docs]
    return log.apply(lookups.tx, lookups.context.actor, [*changes, *renewed])[: len(docs)]


def _prepare(lookups: Lookups, checker: Checker, values: dict[str, Any], used: set[str], spare_id: str) -> None:
    """Complete a checked create body into a document: id, project, references, status, order, completion."""
    if values["project_id"] is None:
        parent = lookups.task(values["parent_id"], keep=True) if values["parent_id"] else None
        values["project_id"] = parent["project_id"] if parent else _inbox(lookups)
    wanted = values["workspace_id"]
    project = check_references(lookups, checker, values, {})
    if project is None:
        return
    if wanted is not None and wanted != project["workspace_id"]:
        checker.fault("/workspace_id", "mismatch", "The project lies in another workspace; leave workspace_id out.")
    values["workspace_id"] = project["workspace_id"]
    task_id = values.get("id")
    if task_id is not None and task_id in used:
        checker.fault("/id", "id_in_use", edit.id_in_use(TASK, task_id))
    values["id"] = task_id or spare_id
    used.add(values["id"])
    if values["position"] is None:
        values["position"] = ordering.initial(values["id"])
    values["completed_at"] = time.format_ms(time.now_ms()) if is_done(project, values) else None


def _inbox(lookups: Lookups) -> str:
    """The id of the caller's inbox project in the default workspace, made on first use.

    Who left the workspace and comes back finds the inbox of then, and is made a member of it again.
    """
    context, tx = lookups.context, lookups.tx
    workspace_id = context.principal.default_workspace
    if workspace_id is None:
        detail = "You belong to no workspace: give a project_id, or create a workspace with POST /workspaces."
        raise Invalid(detail, errors=[Issue("required", detail, pointer="/project_id")])
    inbox_id = projects.find_inbox(tx, workspace_id, context.principal.user_id)
    if inbox_id is None:
        log.lock(tx, workspace_id)
        inbox_id = projects.find_inbox(tx, workspace_id, context.principal.user_id)
    if inbox_id is None:
        return projects.create_inbox(tx, context, workspace_id)
    grant = context.principal.grant(workspace_id)
    if grant is not None and not grant.sees_project(workspace_id, inbox_id, is_open=True):
        lookups.context = projects.return_to_inbox(tx, context, workspace_id, inbox_id)
    return inbox_id
