"""Creating, changing and deleting automations, and what the server does about those that cannot go on."""

from typing import Any, Final

from taskade_server.domain import projects
from taskade_server.domain.automations import actions, triggers
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.operations import Operations
from taskade_server.domain.automations.resources import AUTOMATION, DEFINITION, MAX_AUTOMATIONS, READER
from taskade_server.domain.automations.timing import scanning
from taskade_server.engine import access, edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import json, time
from taskade_server.kit.errors import Forbidden, Issue
from taskade_server.store.database import Tx
from taskade_server.store.tables import cursors, runs
from taskade_server.store.tables.runs import Version

END_AT_ONCE: Final = 1_000


def create(tx: Tx, context: Context, operations: Operations, body: Any) -> str:
    """Create an automation, which acts for the caller with the rights of the key that creates it."""
    doc = draft(tx, context, operations, body)
    workspace_id = doc["workspace_id"]
    log.lock(tx, workspace_id)  # two that count at once would both be the last one
    if len(tx.all("SELECT 1 FROM automations WHERE workspace_id = ?", (workspace_id,))) >= MAX_AUTOMATIONS:
        edit.fail([Issue("too_many", f"A workspace may have {MAX_AUTOMATIONS} automations.", pointer="")])
    doc["id"] = edit.new_id(tx, AUTOMATION, doc.get("id"))
    _mark(doc)
    document = edit.create(tx, context, AUTOMATION, doc)
    _begin_version(tx, json.decode(document), existing=True)
    return document


def draft(tx: Tx, context: Context, operations: Operations, body: Any) -> dict[str, Any]:
    """The document of an automation as the caller could create it, without an id unless the body has one."""
    me = context.principal
    values = edit.fields(AUTOMATION, body, given=edit.given(context, user_id=me.user_id, api_key_id=me.key_id))
    project = projects.visible(tx, context, values["project_id"])
    workspace_id = values["workspace_id"] or (project["workspace_id"] if project else None)
    workspace_id = workspace_id or me.default_workspace or ""
    _require(context, workspace_id, values["project_id"])
    if project and project["workspace_id"] != workspace_id:
        edit.fail([Issue("mismatch", "The project lies in another workspace.", pointer="/project_id")])
    _check(tx, context, operations, workspace_id, values)
    return {
        **values,
        "workspace_id": workspace_id,
        "user_id": me.user_id,
        "api_key_id": me.key_id,
        "disabled_at": None,
        "disabled_reason": None,
    }


def update(tx: Tx, context: Context, operations: Operations | None, automation_id: str, body: Any) -> str:
    """Change an automation. Whoever changes what it does, or enables it, becomes the user it acts for.

    Without `operations` what it does is not checked: it was once, and is brought back.
    """
    row, before = edit.load(tx, context, AUTOMATION, automation_id)
    values = edit.fields(AUTOMATION, body, current=before)
    after = {**before, **values}
    altered = [name for name in DEFINITION if not json.same(before[name], after[name])]
    begins = after["enabled"] and not before["enabled"]
    if altered or begins:
        project = projects.visible(tx, context, after["project_id"])
        _require(context, row.workspace_id, after["project_id"])
        if project and project["workspace_id"] != row.workspace_id:
            edit.fail([Issue("mismatch", "The project lies in another workspace.", pointer="/project_id")])
        if operations is not None:
            _check(tx, context, operations, row.workspace_id, after)
        after["user_id"], after["api_key_id"] = context.principal.user_id, context.principal.key_id
    if json.same(before, after):
        return row.document
    if after["enabled"] != before["enabled"]:
        _mark(after)
    document = log.apply(tx, context.actor, [Change(AUTOMATION, "updated", after, before, row.n)])[0]
    changed = json.decode(document)
    if altered or after["enabled"] != before["enabled"]:
        _begin_version(tx, changed, existing=begins or "trigger" in altered)
    if begins:
        runs.reset_failures(tx, automation_id)
    if before["enabled"] and not after["enabled"]:
        end_runs(tx, automation_id, "disabled", "The automation was disabled.")
    return document


def delete(tx: Tx, context: Context, automation_id: str) -> None:
    """Delete an automation for good; its runs that are not over are cancelled."""
    row, doc = edit.load(tx, context, AUTOMATION, automation_id)
    log.lock(tx, row.workspace_id)
    runs.close_versions(tx, automation_id, log.head(tx, row.workspace_id))
    end_runs(tx, automation_id, "deleted", "The automation was deleted.")
    runs.remove_all(tx, automation_id)
    scanning.end(tx, automation_id, row.workspace_id, time.now_ms())
    log.apply(tx, context.actor, [Change(AUTOMATION, "deleted", dict(doc), doc, row.n)])


def disable(tx: Tx, automation_id: str, reason: str, detail: str) -> bool:
    """What the server does about an automation that cannot go on; False if it is disabled already, or gone."""
    found = tx.one(f"SELECT n, doc FROM automations WHERE id = ?{tx.for_update}", (automation_id,))
    before = json.decode(found[1]) if found else None
    if found is None or before is None or not before["enabled"]:
        return False
    after = {**before, "enabled": False}
    _mark(after, reason)
    change = Change(AUTOMATION, "updated", after, before, found[0], ["automation.disabled"])
    _begin_version(tx, json.decode(log.apply(tx, Actor(None), [change])[0]))
    end_runs(tx, automation_id, reason, detail)
    return True


def end_runs(tx: Tx, automation_id: str, reason: str, detail: str) -> None:
    """Cancel the runs of an automation that are not over, a thousand at most; the others are as soon as they go on."""
    now = time.now_ms()
    for run in runs.open_of(tx, automation_id, END_AT_ONCE):
        over = run._replace(state=runs.CANCELLED, reason=reason, detail=detail, wake_at=None, finished_at=now)
        runs.go_on(tx, over._replace(memory=runs.kept_memory(run.memory, over.state)))


def _require(context: Context, workspace_id: str, project_id: str | None) -> None:
    """What somebody needs for an automation: to edit its project, or to administer its workspace; and a key."""
    me = context.principal
    if project_id is None:
        access.require_workspace(me, workspace_id, "admin", "have an automation for the whole workspace")
    else:
        access.require_workspace(me, workspace_id, "guest", "have an automation")
        access.require_project(me, workspace_id, project_id, "editor", "have an automation in this project")
    if me.key_id is None:
        raise Forbidden("An automation acts with an API key: create it with one.")


def _check(tx: Tx, context: Context, operations: Operations, workspace_id: str, values: dict[str, Any]) -> None:
    """Invalid with all that is wrong with a definition; names in its conditions become ids."""
    checking = Checking(tx, context, operations, workspace_id, values["project_id"])
    for name in ("trigger", "actions"):
        values[name] = json.decode(json.encode(values[name]))  # what is settled in it is not the caller's
    triggers.check(checking, values["trigger"])
    if values["condition"] is not None:
        if checking.types:
            values["condition"] = checking.condition(values["condition"], "/condition", checking.types)
        elif not checking.issues:
            detail = "condition is about the event; this trigger has none. Use now, a filter of the object."
            checking.fault("/condition", "not_allowed", detail)
    if values["now"] is not None and "now" not in checking.known:
        checking.fault("/now", "not_allowed", "A run of this schedule is about no object; give each in the trigger.")
    elif values["now"] is not None:
        values["now"] = checking.condition(values["now"], "/now", checking.types or ["task.*", "project.*"])
    actions.check(checking, values["actions"])
    edit.fail(checking.issues)


def _mark(doc: dict[str, Any], reason: str | None = None) -> None:
    doc["disabled_at"] = None if doc["enabled"] else time.format_ms(time.now_ms())
    doc["disabled_reason"] = None if doc["enabled"] else reason


def _begin_version(tx: Tx, doc: dict[str, Any], *, existing: bool = False) -> None:
    """Let what an automation says now hold for what happens from now on; `existing`: perhaps for what is due, too.

    While no automation of the workspace was about events, the reader of the log has not moved; it need not read what
    starts nothing.
    """
    workspace_id = doc["workspace_id"]
    log.lock(tx, workspace_id)
    head = log.head(tx, workspace_id)
    reads = doc["enabled"] and triggers.KINDS[doc["trigger"]["on"]].reads_log
    if reads and not runs.is_read(tx, workspace_id, cursors.position(tx, READER, workspace_id)):
        cursors.move(tx, READER, workspace_id, head)
    runs.close_versions(tx, doc["id"], head)
    runs.add_version(tx, Version(doc["id"], doc["version"], workspace_id, int(reads), head, None, json.encode(doc)))
    scanning.begin(tx, doc, time.now_ms(), existing=existing)
