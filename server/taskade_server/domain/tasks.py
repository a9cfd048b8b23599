"""Tasks and comments: the units of work, with everything that happens to them.

Why every path goes through `_write`: completion, assignment and moves emit their own events beside `task.updated`, and
a path that set a status without passing there would complete a task that nobody hears of.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from time import perf_counter
from typing import Any, Final

from dateutil import rrule

from taskade_server.domain import identity, ordering, projects
from taskade_server.engine import access, edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import Checker, Field, Relation, Resource
from taskade_server.kit import ids, json, time
from taskade_server.kit.errors import Clash, Forbidden, Invalid, Issue
from taskade_server.store.database import Tx

MAX_BULK: Final = 1000
MAX_LEVELS: Final = 20
MAX_RECURRENCE_STEPS: Final = 10_000
MAX_RECURRENCE_SECONDS: Final = 2.0
MAX_DAILY_SKIP: Final = 30
_CONDITIONS: Final = {"BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY", "BYEASTER"}
MAX_RECURRENCE_TIMES: Final = 100
MAX_BULK_TEXT: Final = 32 << 20

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
              max_length=63, sortable=True, filled=True),
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
              "FREQ=WEEKLY;BYDAY=MO", max_length=500,
              filterable=True),
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
    private=(("trash_root", "text"),),
    narrower_events={
        "task.assigned": "Got an assignee, also on creation.",
        "task.completed": "Entered a done status, also on creation.",
        "task.reopened": "Left the done statuses.",
        "task.moved": "Changed its project, parent or position.",
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


@dataclass(slots=True)
class _Desk:
    """What one request has looked up already, so that a thousand tasks of one project read it once."""

    tx: Tx
    context: Context
    projects: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    users: dict[tuple[str, str], str | None] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    fields: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    searched: float = 0.0
    former: Mapping[str, Any] = field(default_factory=dict)
    """Tasks that become again what they were: one that is completed again has no new successor."""

    def project(self, project_id: str) -> dict[str, Any] | None:
        """A visible project's document; its row stays as it is until the commit."""
        if project_id not in self.projects:
            row = query.get(self.tx, self.context.principal, projects.PROJECT, project_id, keep=True)
            self.projects[project_id] = json.decode(row.document) if row else None
            if row is not None:
                access.require_project(
                    self.context.principal, row.workspace_id, project_id, "editor", "write its tasks"
                )
        return self.projects[project_id]

    def user(self, workspace_id: str, reference: str) -> str | None:
        """The id of a member of the workspace."""
        key = (workspace_id, reference)
        if key not in self.users:
            self.users[key] = identity.resolve_user(self.tx, self.context, workspace_id, reference)
        return self.users[key]

    def task(self, task_id: str, *, keep: bool = False) -> dict[str, Any] | None:
        """A visible task's document; with `keep` its row stays as it is until the commit."""
        if task_id not in self.tasks or (keep and task_id not in self.kept):
            row = query.get(self.tx, self.context.principal, TASK, task_id, keep=keep)
            self.tasks[task_id] = json.decode(row.document) if row else None
            if keep:
                self.kept.add(task_id)
        return self.tasks[task_id]

    def blocker(self, task_id: str) -> dict[str, Any] | None:
        """A visible task that shall block another; as part of what was, it may lie in the trash."""
        found = self.task(task_id)
        if found is None and self.former:
            row = query.get(self.tx, self.context.principal, TASK, task_id, deleted=True)
            found = json.decode(row.document) if row else None
        return found

    def following(self, rule: str, due: str | None) -> str | None:
        """The next date by an RRULE. Others wait to write meanwhile, so one request may search for so long only."""
        if self.searched > MAX_RECURRENCE_SECONDS:
            detail = "The recurrences of these tasks take too long to work out; send fewer tasks at once."
            raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
        begun = perf_counter()
        try:
            return next_occurrence(rule, due)
        finally:
            self.searched += perf_counter() - begun


# ---- creating --------------------------------------------------------------------------------------------------------


def create(tx: Tx, context: Context, body: Any) -> str:
    """Create one task."""
    return _create_all(_Desk(tx, context), [body], [""])[0]


def create_bulk(tx: Tx, context: Context, body: Any) -> list[str]:
    """Create up to 1,000 tasks (`{tasks, project_id?}`), all or none; faults are named by their place in the list."""
    entries, project_id = _bulk_body(body)
    if project_id is not None:
        entries = [{"project_id": project_id, **entry} if isinstance(entry, dict) else entry for entry in entries]
    return _create_all(_Desk(tx, context), entries, [f"/tasks/{index}" for index in range(len(entries))])


def _bulk_body(body: Any) -> tuple[list[Any], Any]:
    checker = Checker()
    if not isinstance(body, dict):
        checker.fault("", "wrong_type", 'The body is an object: {"tasks": [...], "project_id": "..."}.')
    else:
        for key in body:
            if key not in ("tasks", "project_id"):
                checker.unknown(f"/{json.escape_pointer(key)}", key, ("tasks", "project_id"), "bulk creation")
        entries = body.get("tasks")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BULK:
            checker.fault("/tasks", "wrong_type", f"tasks is a list of 1 to {MAX_BULK:,} tasks.")
    edit.fail(checker.issues)
    return body["tasks"], body.get("project_id")


def _create_all(desk: _Desk, bodies: Sequence[Any], places: Sequence[str]) -> list[str]:
    issues: list[Issue] = []
    docs: list[dict[str, Any]] = []
    fresh: set[str] = set()
    names = iter(ids.many("task", len(bodies)))
    for body, place in zip(bodies, places, strict=True):
        checker = Checker(place)
        values = checker.body(TASK, body, creating=True)
        # Faults of form and faults of reference are reported together: the members that are well-formed are looked up.
        if values:
            _prepare(desk, checker, values, fresh, next(names))
        issues += checker.issues
        if not checker.issues:
            docs.append(values)
            desk.tasks[values["id"]] = values
            desk.kept.add(values["id"])
        if len(issues) > 100:
            break
    if any(issue.code == "id_in_use" for issue in issues):
        raise Clash("An id is in use already; nothing was written.", errors=issues)
    edit.fail(issues)
    changes = [Change(TASK, "created", doc, also=_first_events(doc)) for doc in docs]
    return log.apply(desk.tx, desk.context.actor, changes)


def _prepare(desk: _Desk, checker: Checker, values: dict[str, Any], fresh: set[str], name: str) -> None:
    """Complete a checked create body into a document: project, references, status, order, completion.

    `name` is its id if the client has made none.
    """
    if values["project_id"] is None:
        parent = desk.task(values["parent_id"], keep=True) if values["parent_id"] else None
        values["project_id"] = parent["project_id"] if parent else inbox(desk.tx, desk.context)
    wanted = values["workspace_id"]
    project = _settle(desk, checker, values, {})
    if project is None:
        return
    if wanted is not None and wanted != project["workspace_id"]:
        checker.fault("/workspace_id", "mismatch", "The project lies in another workspace; leave workspace_id out.")
    values["workspace_id"] = project["workspace_id"]
    task_id = values.get("id")
    if task_id is not None and (task_id in fresh or desk.tx.one("SELECT 1 FROM tasks WHERE id = ?", (task_id,))):
        checker.fault("/id", "id_in_use", f"A task with the id {task_id} exists already.")
    values["id"] = task_id or name
    fresh.add(values["id"])
    if values["position"] is None:
        values["position"] = ordering.initial(values["id"])
    values["completed_at"] = time.format_ms(time.now_ms()) if _is_done(project, values) else None


def _settle(desk: _Desk, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any] | None:
    """Check and resolve whatever refers beyond the task itself; returns its project."""
    project = desk.project(doc["project_id"])
    if project is None:
        checker.fault("/project_id", "unknown_reference", f"There is no project {doc['project_id']} that you can see.")
        return None
    _settle_status(checker, project, doc, before)
    if doc["assignee"] is not None and doc["assignee"] != before.get("assignee"):
        user_id = desk.user(project["workspace_id"], doc["assignee"])
        if user_id is None:
            detail = f'"{doc["assignee"][:80]}" is no member of the workspace; give an id, handle or e-mail of one.'
            checker.fault("/assignee", "unknown_reference", detail)
        doc["assignee"] = user_id
    if doc["parent_id"] is not None and doc["parent_id"] != before.get("parent_id"):
        _check_parent(desk, checker, doc, before)
    for index, blocker in enumerate(doc["blocked_by"]):
        if blocker not in before.get("blocked_by", ()):
            _check_blocker(desk, checker, doc, before, blocker, index)
    if doc["recurrence"] is not None and doc["recurrence"] != before.get("recurrence"):
        _check_recurrence(desk, checker, doc)
    if doc["start_date"] and doc["due_date"] and doc["start_date"][:10] > doc["due_date"][:10]:
        checker.fault("/due_date", "invalid_range", "due_date lies before start_date.")
    if project["fields"] and not json.same(doc["custom_fields"], before.get("custom_fields")):
        _check_custom(desk, checker, project, doc, before.get("custom_fields", {}))
    return project


def _settle_status(checker: Checker, project: dict[str, Any], doc: dict[str, Any], before: Mapping[str, Any]) -> None:
    status = doc["status"]
    if status is None:
        doc["status"] = projects.first_status(project, "todo")
    elif projects.status_category(project, status) is None:
        keys = [entry["key"] for entry in project["statuses"]]
        if before and status == before["status"]:
            # A moved or restored task whose status the project lacks starts there anew, or stays done.
            doc["status"] = projects.first_status(project, "done" if before["completed_at"] else "todo")
        else:
            checker.fault(
                "/status",
                "unknown_status",
                f'The project has no status "{status[:63]}". Its statuses: {", ".join(keys)}.',
            )


def _is_done(project: dict[str, Any], doc: Mapping[str, Any]) -> bool:
    return projects.status_category(project, doc["status"]) == "done"


def _check_parent(desk: _Desk, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any]) -> None:
    parent = desk.task(doc["parent_id"], keep=True)
    if parent is None:
        return checker.fault(
            "/parent_id", "unknown_reference", f"There is no task {doc['parent_id']} that you can see."
        )
    if parent["project_id"] != doc["project_id"]:
        return checker.fault(
            "/parent_id", "mismatch", "The parent lies in another project; a subtask lives in its parent's project."
        )
    if before:
        log.lock(desk.tx, before["workspace_id"])
    level = 1
    current: dict[str, Any] | None = parent
    while current is not None:
        if before and current["id"] == before["id"]:
            return checker.fault("/parent_id", "cycle", "A task cannot lie below itself.")
        level += 1
        current = desk.task(current["parent_id"]) if current["parent_id"] else None
    if level + (_levels_below(desk.tx, before["id"]) if before else 0) > MAX_LEVELS:
        checker.fault("/parent_id", "too_deep", f"Subtasks may nest {MAX_LEVELS} levels deep.")
    return None


def _levels_below(tx: Tx, task_id: str) -> int:
    """How deep the subtasks of a task nest, which come along when it moves."""
    found = tx.one(
        "WITH RECURSIVE below (id, level) AS (SELECT id, 1 FROM tasks WHERE parent_id = ? AND deleted_at IS NULL"
        " UNION ALL SELECT t.id, b.level + 1 FROM tasks t JOIN below b ON t.parent_id = b.id"
        f" WHERE t.deleted_at IS NULL AND b.level <= {MAX_LEVELS}) SELECT COALESCE(MAX(level), 0) FROM below",
        (task_id,),
    )
    return int(found[0]) if found else 0


def _check_blocker(
    desk: _Desk, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any], blocker: str, index: int
) -> None:
    task = desk.blocker(blocker)
    project = desk.project(doc["project_id"])
    if task is None or project is None or task["workspace_id"] != project["workspace_id"]:
        return checker.fault(
            f"/blocked_by/{index}",
            "unknown_reference",
            f"There is no task {blocker} in this workspace that you can see.",
        )
    if not before:
        return None
    log.lock(desk.tx, before["workspace_id"])
    pending, seen = [blocker], set()
    while pending:
        current = pending.pop()
        if current == before["id"]:
            return checker.fault(f"/blocked_by/{index}", "cycle", "The tasks would block each other in a circle.")
        if current not in seen:
            seen.add(current)
            pending += (desk.blocker(current) or {}).get("blocked_by", [])
    return None


def _check_recurrence(desk: _Desk, checker: Checker, doc: dict[str, Any]) -> None:
    try:
        parts = _rule_parts(doc["recurrence"])
        if desk.following(doc["recurrence"], doc["due_date"]) is None and not parts.keys() & {"COUNT", "UNTIL"}:
            raise ValueError("such a day never comes")
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        checker.fault(
            "/recurrence", "invalid_rrule", f"Must be an RRULE such as FREQ=WEEKLY;BYDAY=MO ({str(error)[:120]})."
        )


# ---- custom fields ---------------------------------------------------------------------------------------------------


def _check_custom(
    desk: _Desk, checker: Checker, project: dict[str, Any], doc: dict[str, Any], before: Mapping[str, Any]
) -> None:
    definitions = {entry["key"]: entry for entry in project["fields"]}
    custom = dict(doc["custom_fields"])
    for key, value in custom.items():
        definition = definitions.get(key)
        if definition is None or (key in before and before[key] == value):
            continue
        custom[key], fault = _typed(desk, project, definition, value)
        if fault:
            checker.fault(
                f"/custom_fields/{json.escape_pointer(key)}",
                "wrong_type",
                f"{key} is a {definition['type']} field: {fault}.",
            )
    doc["custom_fields"] = custom


def _typed(desk: _Desk, project: dict[str, Any], definition: dict[str, Any], value: Any) -> tuple[Any, str]:
    """A value as its definition wants it, and what is wrong with it otherwise."""
    kind, options = definition["type"], definition["options"]
    if kind == "number":
        return value, "" if isinstance(value, int | float) and not isinstance(value, bool) else "give a number"
    if kind == "checkbox":
        return value, "" if isinstance(value, bool) else "give true or false"
    if kind == "multi":
        wrong = not isinstance(value, list) or any(entry not in options for entry in value)
        return value, f"give a list of {', '.join(options)}" if wrong else ""
    if not isinstance(value, str):
        return value, "give a string"
    if kind == "select":
        return value, "" if value in options else f"choose one of {', '.join(options)}"
    if kind == "url":
        return value, "" if value.startswith(("http://", "https://")) else "give an http or https address"
    if kind == "date":
        try:
            return time.normalize(value), ""
        except ValueError as error:
            return value, str(error)
    if kind == "user":
        user_id = desk.user(project["workspace_id"], value)
        return user_id or value, "" if user_id else f'"{value[:80]}" is no member of the workspace'
    return value, ""


# ---- changing --------------------------------------------------------------------------------------------------------


def update(tx: Tx, context: Context, task_id: str, body: Any) -> str:
    """Change a task by merge patch."""
    row, before = edit.load(tx, context, TASK, task_id)
    desk = _Desk(tx, context)
    desk.project(before["project_id"])
    checker = Checker()
    values = checker.body(TASK, body, creating=False, current=before)
    return _write(desk, [(row, before, {**before, **values}, "")], checker.issues)[0]


def put_back(tx: Tx, context: Context, former: Mapping[str, dict[str, Any]]) -> list[str]:
    """Give tasks, by id, members that they had before, all together; what they had may refer to each other."""
    desk = _Desk(tx, context, former=former)
    edits: list[_Edit] = []
    for task_id, members in former.items():
        row, before = edit.load(tx, context, TASK, task_id)
        desk.project(before["project_id"])
        after = desk.tasks[task_id] = {**before, **members}
        desk.kept.add(task_id)
        edits.append((row, before, after, f"/{task_id}"))
    return _write(desk, edits)


def inside(tx: Tx, task_id: str) -> list[str]:
    """The ids of the live subtasks and comments that go to the trash along with a task."""
    below = [doc["id"] for _, doc in _subtree(tx, task_id)]
    found = list(below)
    for name in (task_id, *below):
        found += [row[0] for row in tx.all("SELECT id FROM comments WHERE task_id = ? AND deleted_at IS NULL", (name,))]
    return found


def set_status(tx: Tx, context: Context, task_id: str, category: str) -> str:
    """Complete (`done`) or reopen (`todo`) a task by moving it to the first status of that category."""
    row, before = edit.load(tx, context, TASK, task_id)
    desk = _Desk(tx, context)
    project = desk.project(before["project_id"])
    if project is None or _is_done(project, before) == (category == "done"):
        return row.document
    return _write(desk, [(row, before, {**before, "status": projects.first_status(project, category)}, "")])[0]


def move(tx: Tx, context: Context, task_id: str, body: Any) -> str:
    """Move a task to a project, below a parent (null: the top), or before or after a sibling."""
    row, before = edit.load(tx, context, TASK, task_id)
    desk = _Desk(tx, context)
    desk.project(before["project_id"])
    after = {**before, **_target(desk, before, body)}
    return _write(desk, [(row, before, after, "")])[0]


def _target(desk: _Desk, before: dict[str, Any], body: Any) -> dict[str, Any]:
    checker = Checker()
    allowed = ("project_id", "parent_id", "before", "after")
    if not isinstance(body, dict) or not body:
        checker.fault("", "wrong_type", f"The body names the place: {', '.join(allowed)}.")
        body = {}
    for key in body:
        if key not in allowed:
            checker.unknown(f"/{json.escape_pointer(key)}", key, allowed, "move")
    target: dict[str, Any] = {}
    for key in ("project_id", "parent_id"):
        if key in body:
            target[key] = checker.value(TASK.fields[key], body[key], f"/{key}")
    if "before" in body and "after" in body:
        checker.fault("/after", "not_allowed", "Give before or after, not both.")
    anchor_key = "before" if "before" in body else "after" if "after" in body else None
    if anchor_key is not None:
        anchor = desk.task(body[anchor_key]) if isinstance(body[anchor_key], str) else None
        if anchor is None or anchor["id"] == before["id"]:
            checker.fault(f"/{anchor_key}", "unknown_reference", "There is no such other task that you can see.")
        else:
            target = {"project_id": anchor["project_id"], "parent_id": anchor["parent_id"], **target}
            target["position"] = _position(desk.tx, anchor, anchor_key == "before", before["id"])
    edit.fail(checker.issues)
    if target.get("project_id") not in (None, before["project_id"]) and "parent_id" not in target:
        target["parent_id"] = None
    return {key: value for key, value in target.items() if not (key == "project_id" and value is None)}


def _position(tx: Tx, anchor: dict[str, Any], before: bool, moved: str) -> str:
    """A key directly before or after a task among its siblings."""
    symbol, direction = ("<", "DESC") if before else (">", "ASC")
    parent = "parent_id IS NULL" if anchor["parent_id"] is None else "parent_id = ?"
    params = [anchor["project_id"], anchor["position"], moved, *([anchor["parent_id"]] if anchor["parent_id"] else [])]
    row = tx.one(
        f"SELECT position FROM tasks WHERE project_id = ? AND position {symbol} ? AND id <> ? AND {parent}"
        f" AND deleted_at IS NULL ORDER BY position {direction} LIMIT 1",
        tuple(params),
    )
    neighbour = row[0] if row else None
    return (
        ordering.between(neighbour, anchor["position"]) if before else ordering.between(anchor["position"], neighbour)
    )


_Edit = tuple[query.Row, dict[str, Any], dict[str, Any], str]


def _write(desk: _Desk, edits: Sequence[_Edit], faults: Sequence[Issue] = ()) -> list[str]:
    """Check and write changed tasks, unless `faults` were found before; returns all documents in order."""
    issues = list(faults)
    changes: list[Change] = []
    followers: list[dict[str, Any]] = []
    for _, before, after, _ in edits:
        after["project_id"] = after["project_id"] or before["project_id"]
        after["position"] = after["position"] or ordering.initial(before["id"])
    carried = _carried(desk, edits)
    for row, before, after, place in edits:
        if not json.same(after, before):
            checker = Checker(place)
            project = _settle(desk, checker, after, before)
            if project is not None and not checker.issues and not issues:
                changes += _change(desk, project, row, before, after, followers, carried)
            issues += checker.issues
    edit.fail(issues)
    chosen = {before["id"] for _, before, _, _ in edits}
    for task_id, (row, before, project_id) in carried.items():
        if task_id not in chosen:
            changes += _carry(desk, row, before, desk.project(project_id) or {})
    log.apply(desk.tx, desk.context.actor, changes)
    if followers:
        log.apply(
            desk.tx, desk.context.actor, [Change(TASK, "created", doc, also=_first_events(doc)) for doc in followers]
        )
    texts = {change.doc["id"]: json.encode(change.doc) for change in changes}
    return [texts.get(before["id"], row.document) for row, before, _, _ in edits]


def _change(
    desk: _Desk, project: dict[str, Any], row: query.Row, before: dict[str, Any], after: dict[str, Any],
    followers: list[dict[str, Any]], carried: Mapping[str, Any],
) -> list[Change]:  # fmt: skip
    if after["workspace_id"] != project["workspace_id"]:
        raise Invalid("A task cannot move to another workspace.", errors=[
            Issue("mismatch", "The project lies in another workspace.", pointer="/project_id")])  # fmt: skip
    done = _is_done(project, after)
    if done and before["completed_at"] is None:
        former = desk.former.get(before["id"])
        after["completed_at"] = (former or {}).get("completed_at") or time.format_ms(time.now_ms())
        follower = _next_task(desk, after, project) if former is None else None
        if follower is not None:
            followers.append(follower)
            after["recurrence"] = None
    elif not done:
        after["completed_at"] = None
    if json.same(after, before):
        return []
    if after["project_id"] == before["project_id"]:
        return [Change(TASK, "updated", after, before, row.n, _events(before, after))]
    parent = desk.task(after["parent_id"]) if after["parent_id"] and before["id"] not in carried else None
    if parent is not None and parent["project_id"] != after["project_id"]:
        after["parent_id"] = None
    own = Change(TASK, "updated", after, before, row.n, _events(before, after))
    return [own, *_moved_comments(desk, before["id"], project)]


_Carried = dict[str, tuple[query.Row, dict[str, Any], str]]


def _carried(desk: _Desk, edits: Sequence[_Edit]) -> _Carried:
    """What lies below tasks that change their project: it goes along."""
    found: _Carried = {}
    for _, before, after, _ in edits:
        if after["project_id"] != before["project_id"]:
            below = _subtree(desk.tx, before["id"])
            found |= {doc["id"]: (row, doc, after["project_id"]) for row, doc in below}
    return found


def _carry(desk: _Desk, row: query.Row, before: dict[str, Any], project: dict[str, Any]) -> list[Change]:
    after = {**before, "project_id": project["id"]}
    if projects.status_category(project, after["status"]) is None:
        after["status"] = projects.first_status(project, "done" if before["completed_at"] else "todo")
    own = Change(TASK, "updated", after, before, row.n, ["task.moved"])
    return [own, *_moved_comments(desk, before["id"], project)]


def _moved_comments(desk: _Desk, task_id: str, project: dict[str, Any]) -> list[Change]:
    sql = f"SELECT n, doc FROM comments WHERE task_id = ? ORDER BY n{desk.tx.for_update}"
    found = desk.tx.all(sql, (task_id,))
    return [_moved_comment(n, text, project) for n, text in found]


def _moved_comment(n: int, text: str, project: dict[str, Any]) -> Change:
    before = json.decode(text)
    return Change(COMMENT, "updated", {**before, "project_id": project["id"]}, before, n)


def _first_events(doc: Mapping[str, Any]) -> list[str]:
    return [*(["task.assigned"] if doc["assignee"] else []), *(["task.completed"] if doc["completed_at"] else [])]


def _events(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    events = []
    if after["completed_at"] is not None and before["completed_at"] is None:
        events.append("task.completed")
    if after["completed_at"] is None and before["completed_at"] is not None:
        events.append("task.reopened")
    if after["assignee"] is not None and after["assignee"] != before["assignee"]:
        events.append("task.assigned")
    if any(after[name] != before[name] for name in ("project_id", "parent_id", "position")):
        events.append("task.moved")
    return events


# ---- recurrence ------------------------------------------------------------------------------------------------------


def next_occurrence(rule: str, due: str | None) -> str | None:
    """The next date or time after `due` (None: today) by an RRULE (RFC 5545), None when there is none. ValueError if
    invalid."""
    parts = _rule_parts(rule)
    until = _until(parts.pop("UNTIL", None))
    base = due or time.day_of(time.now_ms())
    start = time.to_datetime(time.parse_ms(base)).replace(tzinfo=None)
    # The calendar repeats every 400 years: searched near its end, a day that never comes is soon found missing.
    ahead = max(0, (9_900 - start.year) // 400 * 400)
    first = start.replace(year=start.year + ahead)
    count = int(parts.pop("COUNT", MAX_RECURRENCE_STEPS))
    apart = _daily_as_yearly(parts)
    text = ";".join(f"{name}={value}" for name, value in parts.items())
    moments = (
        moment
        for moment in rrule.rrulestr(text, dtstart=first)
        if apart == 1 or (moment.date() - first.date()).days % apart == 0
    )
    for moment in islice(moments, min(count, MAX_RECURRENCE_STEPS)):
        if (moment.date() > first.date()) if time.is_date(base) else (moment > first):
            ms = time.parse_ms(moment.replace(year=moment.year - ahead).isoformat())
            if until is not None and ms > until:
                return None
            return time.day_of(ms) if time.is_date(base) else time.format_ms(ms)
    return None


def _rule_parts(rule: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in rule.upper().removeprefix("RRULE:").split(";")]
    parts = {name: value for name, _, value in pairs}
    if len(parts) != len(pairs) or not all(re.fullmatch(r"[A-Z]+", name) and value for name, value in parts.items()):
        raise ValueError("each part is NAME=VALUE and stands once")
    if parts.get("FREQ") not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        raise ValueError("FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY")
    for name in ("INTERVAL", "COUNT"):
        if not re.fullmatch(r"[1-9][0-9]{0,5}", parts.get(name, "1")):
            raise ValueError(f"{name} must be a whole number from 1")
    times = prod(parts.get(name, "").count(",") + 1 for name in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    if times > MAX_RECURRENCE_TIMES:
        raise ValueError(f"a day has {MAX_RECURRENCE_TIMES} times at most")
    if parts["FREQ"] == "DAILY" and "BYSETPOS" in parts:
        raise ValueError("BYSETPOS needs FREQ=WEEKLY, MONTHLY or YEARLY")
    return parts


def _daily_as_yearly(parts: dict[str, str]) -> int:
    """Turn a daily rule with conditions into the yearly one of the same days; how many days apart they have to be.

    The library finds out that a day never comes by going through all of them until the year 9999, and it goes through
    the days of a year far faster than through single days.
    """
    interval = int(parts.get("INTERVAL", "1"))
    if parts["FREQ"] != "DAILY" or not _CONDITIONS & parts.keys() or interval > MAX_DAILY_SKIP:
        return 1
    parts["FREQ"], parts["INTERVAL"] = "YEARLY", "1"
    if "BYDAY" in parts:  # in a daily rule "1MO" is any Monday
        parts["BYDAY"] = re.sub(r"[+-]?\d+", "", parts["BYDAY"])
    if not (_CONDITIONS - {"BYMONTH"}) & parts.keys():
        parts["BYDAY"] = "MO,TU,WE,TH,FR,SA,SU"
    return interval


def _until(text: str | None) -> int | None:
    """The last moment of a rule; of a date, its end."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})(?:T(\d{2}):?(\d{2}):?(\d{2})Z?)?", text, re.ASCII)
    if found is None:
        raise ValueError("UNTIL is a date (20240131) or a time (20240131T103000Z)")
    day = "-".join(found.group(1, 2, 3))
    if found[4] is None:
        return time.parse_ms(day) + time.DAY_MS - 1
    return time.parse_ms(f"{day}T{':'.join(found.group(4, 5, 6))}Z")


def _next_task(desk: _Desk, after: Mapping[str, Any], project: dict[str, Any]) -> dict[str, Any] | None:
    """The successor of a completed recurring task: same work, next date, open again."""
    rule = after["recurrence"]
    due = desk.following(rule, after["due_date"]) if rule else None
    if due is None:
        return None
    days = (time.parse_ms(due) - time.parse_ms(after["due_date"] or time.day_of(time.now_ms()))) // time.DAY_MS
    task_id = ids.new("task")
    return {
        **after, "id": task_id, "status": projects.first_status(project, "todo"), "completed_at": None, "due_date": due,
        "start_date": time.add_days(after["start_date"], days) if after["start_date"] else None,
        "position": ordering.initial(task_id), "blocked_by": [], "recurrence": _counted_down(rule), "created_by": None,
    }  # fmt: skip


def _counted_down(rule: str) -> str:
    parts = []
    for part in rule.split(";"):
        name, _, value = part.partition("=")
        parts.append(f"{name}={int(value) - 1}" if name.upper().endswith("COUNT") and value.isdigit() else part)
    return ";".join(parts)


# ---- many at once ----------------------------------------------------------------------------------------------------


def selection(body: Any, *, wants_set: bool) -> tuple[list[str] | None, Any, Any]:
    """The parts of a bulk body: ids or filter, and what to set; Invalid unless it has ids or filter, not both."""
    checker = Checker()
    allowed = ("ids", "filter", "set") if wants_set else ("ids", "filter")
    if not isinstance(body, dict):
        checker.fault("", "wrong_type", f"The body is an object with {' and '.join(allowed)}.")
        body = {}
    for key in body:
        if key not in allowed:
            checker.unknown(f"/{json.escape_pointer(key)}", key, allowed, "bulk change")
    chosen = body.get("ids")
    if not checker.issues and ("ids" in body) == ("filter" in body):
        checker.fault("", "required", "Give either ids or filter.")
    if "ids" in body and (
        not isinstance(chosen, list)
        or not 1 <= len(chosen) <= MAX_BULK
        or not all(isinstance(one, str) for one in chosen)
    ):
        checker.fault("/ids", "wrong_type", f"ids is a list of 1 to {MAX_BULK:,} task ids.")
    if "filter" in body and not (isinstance(body["filter"], dict) and body["filter"]):
        checker.fault(
            "/filter",
            "wrong_type",
            "filter is an object of conditions; it cannot be empty, which would mean every task.",
        )
    if wants_set and not isinstance(body.get("set"), dict):
        checker.fault("/set", "required", "set is the merge patch to apply to each task.")
    edit.fail(checker.issues)
    return chosen, body.get("filter"), body.get("set")


def update_bulk(tx: Tx, context: Context, chosen: Sequence[str], patch: Any) -> list[str]:
    """Apply one merge patch to many tasks, all or none; returns the documents."""
    desk = _Desk(tx, context)
    edits: list[_Edit] = []
    for row, before in _load_all(tx, context, chosen):
        desk.project(before["project_id"])
        checker = Checker("/set")
        values = checker.body(TASK, patch, creating=False, current=before)
        edit.fail(checker.issues)
        edits.append((row, before, {**before, **values}, "/set"))
    return _write(desk, edits)


def delete_bulk(tx: Tx, context: Context, chosen: Sequence[str]) -> list[str]:
    """Move many tasks to the trash, all or none; returns the documents."""
    wanted = list(dict.fromkeys(chosen))
    loaded = {before["id"]: (row, before) for row, before in _load_all(tx, context, wanted)}
    gone: set[str] = set()
    texts: list[str] = []
    for task_id in wanted:
        if task_id not in gone:
            trashed = _trash_tree(tx, context, *loaded[task_id])
            gone |= {doc["id"] for doc in trashed}
            texts.append(json.encode(trashed[0]))
    return texts


def _load_all(tx: Tx, context: Context, chosen: Sequence[str]) -> list[tuple[query.Row, dict[str, Any]]]:
    loaded = []
    issues = []
    size = 0
    for index, task_id in enumerate(dict.fromkeys(chosen)):
        row = query.get(tx, context.principal, TASK, task_id, lock=True)
        if row is None:
            issues.append(
                Issue(
                    "unknown_reference", f"There is no task {task_id[:80]} that you can see.", pointer=f"/ids/{index}"
                )
            )
        else:
            loaded.append((row, json.decode(row.document)))
            size += len(row.document)
            if size > MAX_BULK_TEXT:
                detail = f"Together the tasks have more than {MAX_BULK_TEXT >> 20} MiB; name fewer at once."
                raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
    edit.fail(issues)
    return loaded


# ---- deleting --------------------------------------------------------------------------------------------------------


def delete(tx: Tx, context: Context, task_id: str) -> None:
    """Move a task to the trash with its subtasks and comments."""
    row, doc = edit.load(tx, context, TASK, task_id)
    _trash_tree(tx, context, row, doc)


def restore(tx: Tx, context: Context, task_id: str) -> str:
    """Bring a task back with what went to the trash with it; its project and its parent have to be live."""
    _, doc = edit.load(tx, context, TASK, task_id, deleted=True)
    desk = _Desk(tx, context)
    parent = desk.task(doc["parent_id"], keep=True) if doc["parent_id"] else None
    if desk.project(parent["project_id"] if parent else doc["project_id"]) is None:
        raise Clash("The task's project is in the trash; restore the project first.")
    if doc["parent_id"] and parent is None:
        raise Clash("The task's parent is in the trash; restore the parent first.")
    rendered = edit.untrash(tx, context, TASK, task_id, ("task", "comment"))
    row = query.get(tx, context.principal, TASK, task_id)
    if parent is None or row is None or parent["project_id"] == doc["project_id"]:
        return rendered
    # The parent has moved meanwhile.
    before = json.decode(row.document)
    return _write(desk, [(row, before, {**before, "project_id": parent["project_id"]}, "")])[0]


def _trash_tree(tx: Tx, context: Context, row: query.Row, doc: dict[str, Any]) -> list[dict[str, Any]]:
    access.require_project(context.principal, row.workspace_id, doc["project_id"], "editor", "delete the task")
    tasks = [(row, doc), *_subtree(tx, doc["id"])]
    rows: list[tuple[Resource, query.Row, dict[str, Any]]] = [(TASK, inner, before) for inner, before in tasks]
    for _, before in tasks:
        found = tx.all(
            f"SELECT n, doc FROM comments WHERE task_id = ? AND deleted_at IS NULL ORDER BY n{tx.for_update}",
            (before["id"],),
        )
        rows += [
            (COMMENT, query.Row(n, row.workspace_id, before["project_id"], text), json.decode(text))
            for n, text in found
        ]
    texts = edit.trash(tx, context, rows, doc["id"])
    return [json.decode(text) for text in texts[: len(tasks)]]


def _subtree(tx: Tx, task_id: str) -> list[tuple[query.Row, dict[str, Any]]]:
    """All live tasks below a task, parents before children, each locked: a change that came first is part of them."""
    found: list[tuple[query.Row, dict[str, Any]]] = []
    level = [task_id]
    while level:
        below: list[str] = []
        for parent in level:
            for n, text in tx.all(
                f"SELECT n, doc FROM tasks WHERE parent_id = ? AND deleted_at IS NULL ORDER BY n{tx.for_update}",
                (parent,),
            ):
                doc = json.decode(text)
                found.append((query.Row(n, doc["workspace_id"], doc["project_id"], text), doc))
                below.append(doc["id"])
        level = below
    return found


# ---- inbox and templates ---------------------------------------------------------------------------------------------


def inbox(tx: Tx, context: Context) -> str:
    """The id of the caller's inbox project in the default workspace, made on first use."""
    workspace_id = context.principal.default_workspace
    if workspace_id is None:
        detail = "You belong to no workspace: give a project_id, or create a workspace with POST /workspaces."
        raise Invalid(detail, errors=[Issue("required", detail, pointer="/project_id")])
    user_id = context.principal.user_id
    inbox_id = tx.one(
        "SELECT id FROM projects WHERE workspace_id = ? AND inbox_of = ? AND deleted_at IS NULL",
        (workspace_id, user_id),
    )
    if inbox_id is not None:
        return str(inbox_id[0])
    log.lock(tx, workspace_id)
    again = tx.one(
        "SELECT id FROM projects WHERE workspace_id = ? AND inbox_of = ? AND deleted_at IS NULL",
        (workspace_id, user_id),
    )
    return str(again[0]) if again else projects.create_inbox(tx, context, workspace_id)


def instantiate(tx: Tx, context: Context, body: Any) -> str:
    """Create a project from `template_id` with its tasks, in one transaction."""
    template_id = body["template_id"]
    row = query.get(tx, context.principal, projects.TEMPLATE, template_id) if isinstance(template_id, str) else None
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
    rendered = projects.create(tx, context, body, blueprint=template)
    project = json.decode(rendered)
    changes: list[Change] = []
    _plant(project, template["tasks"], None, changes)
    log.apply(tx, context.actor, changes)
    return rendered


def _plant(
    project: dict[str, Any], blueprints: Iterable[dict[str, Any]], parent: str | None, changes: list[Change]
) -> None:
    today = time.day_of(time.now_ms())
    for blueprint in blueprints:
        task_id = ids.new("task")
        status = blueprint["status"]
        if projects.status_category(project, status or "") is None:
            status = projects.first_status(project, "todo")
        doc = {item.name: None for item in TASK.fields.values()} | {
            "id": task_id, "workspace_id": project["workspace_id"], "project_id": project["id"], "parent_id": parent,
            "name": blueprint["name"], "description": blueprint["description"], "status": status,
            "priority": blueprint["priority"], "labels": blueprint["labels"], "estimate": blueprint["estimate"],
            "position": ordering.initial(task_id), "blocked_by": [], "custom_fields": {},
            "start_date": None if blueprint["start_in_days"] is None else time.add_days(today,
            blueprint["start_in_days"]),
            "due_date": None if blueprint["due_in_days"] is None else time.add_days(today, blueprint["due_in_days"]),
        }  # fmt: skip
        if _is_done(project, doc):
            doc["completed_at"] = time.format_ms(time.now_ms())
        changes.append(Change(TASK, "created", doc, also=_first_events(doc)))
        _plant(project, blueprint.get("subtasks", []), task_id, changes)


# ---- comments --------------------------------------------------------------------------------------------------------


def create_comment(tx: Tx, context: Context, body: Any) -> str:
    """Comment on a task; needs the project role commenter."""
    values = edit.fields(COMMENT, body)
    row = query.get(tx, context.principal, TASK, values["task_id"], keep=True)
    if row is None or row.project_id is None:
        edit.fail(
            [Issue("unknown_reference", f"There is no task {values['task_id']} that you can see.", pointer="/task_id")]
        )
    task = json.decode(row.document) if row else {}
    access.require_project(context.principal, task["workspace_id"], task["project_id"], "commenter", "comment")
    doc = {
        **values, "id": edit.new_id(tx, COMMENT, values.get("id")), "workspace_id": task["workspace_id"],
        "project_id": task["project_id"], "author": context.principal.user_id,
    }  # fmt: skip
    return edit.create(tx, context, COMMENT, doc)


def update_comment(tx: Tx, context: Context, comment_id: str, body: Any) -> str:
    """Change a comment; only its author may."""
    row, before = edit.load(tx, context, COMMENT, comment_id)
    if before["author"] != context.principal.user_id:
        raise Forbidden("Only its author may change a comment.")
    return edit.update(tx, context, COMMENT, row, before, {**before, **edit.fields(COMMENT, body, current=before)})


def delete_comment(tx: Tx, context: Context, comment_id: str) -> None:
    """Move a comment to the trash; its author or an editor of the project may."""
    row, doc = edit.load(tx, context, COMMENT, comment_id)
    _require_comment(context, doc)
    edit.trash(tx, context, [(COMMENT, row, doc)], comment_id)


def restore_comment(tx: Tx, context: Context, comment_id: str) -> str:
    """Bring a comment back from the trash."""
    _, doc = edit.load(tx, context, COMMENT, comment_id, deleted=True)
    _require_comment(context, doc)
    if query.get(tx, context.principal, TASK, doc["task_id"], keep=True) is None:
        raise Clash("The comment's task is in the trash; restore the task first.")
    return edit.untrash(tx, context, COMMENT, comment_id, ())


def _require_comment(context: Context, doc: Mapping[str, Any]) -> None:
    if doc["author"] != context.principal.user_id:
        access.require_project(
            context.principal, doc["workspace_id"], doc["project_id"], "editor", "remove another's comment"
        )
