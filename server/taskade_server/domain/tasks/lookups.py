"""What one request looks up about tasks, read once and locked where a rule depends on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskade_server.domain import identity, projects
from taskade_server.domain.tasks.limits import LOOKUP_STEPS
from taskade_server.domain.tasks.resources import TASK
from taskade_server.engine import access, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Resource
from taskade_server.kit import json
from taskade_server.store.database import Tx


@dataclass(slots=True)
class Lookups:
    """What one request has looked up already, so that a thousand tasks of one project read it once."""

    tx: Tx
    context: Context
    projects: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    users: dict[tuple[str, str], str | None] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    fields: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    former: Mapping[str, Any] = field(default_factory=dict)
    """Tasks that become again what they were: one that is completed again has no new successor."""
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What tasks become in this request, by id; rules that follow references see this, not the stored rows."""
    parents: dict[str, str | None] = field(default_factory=dict)
    blockers: dict[str, list[str]] = field(default_factory=dict)
    """The stored parents and blockers by task, read under the lock."""
    beside: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Tasks that come to stand next to another: its id, and whether they come before it."""

    def lock(self, workspace_id: str) -> None:
        """Hold back all other changes of a workspace, as rules about several tasks have to be judged.

        It comes after the locks of rows: a request that waits for a row while it holds back all others would wait for
        one that waits for it.
        """
        log.lock(self.tx, workspace_id)
        self.parents.clear()
        self.blockers.clear()

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
            self.tx.budget.spend(LOOKUP_STEPS)
            self.users[key] = identity.resolve_user(self.tx, self.context, workspace_id, reference)
        return self.users[key]

    def task(self, task_id: str, *, keep: bool = False) -> dict[str, Any] | None:
        """A visible task's document; with `keep` its row stays as it is until the commit."""
        if task_id not in self.tasks or (keep and task_id not in self.kept):
            self.tx.budget.spend(LOOKUP_STEPS)
            row = query.get(self.tx, self.context.principal, TASK, task_id, keep=keep)
            self.tasks[task_id] = json.decode(row.document) if row else None
            if keep:
                self.kept.add(task_id)
        return self.tasks[task_id]

    def absence(self, resource: Resource, object_id: str) -> str:
        """Why there is no such live object."""
        self.tx.budget.spend(LOOKUP_STEPS)
        return query.absence(self.tx, self.context.principal, resource, object_id)

    def blocker(self, task_id: str) -> dict[str, Any] | None:
        """A visible task that shall block another; as part of what was, it may lie in the trash."""
        found = self.task(task_id)
        if found is None and self.former:
            row = query.get(self.tx, self.context.principal, TASK, task_id, deleted=True)
            found = json.decode(row.document) if row else None
        return found


Loaded = tuple[query.Row, dict[str, Any]]


class Edit(NamedTuple):
    """A task to be changed: its row, its document before and after, and the pointer to it in the request's body."""

    row: query.Row
    before: dict[str, Any]
    after: dict[str, Any]
    pointer: str


Carried = dict[str, tuple[query.Row, dict[str, Any], dict[str, Any]]]
"""By id: a task that goes along with one above it, as it was and as it will be."""

Pair = tuple[dict[str, Any], dict[str, Any]]
