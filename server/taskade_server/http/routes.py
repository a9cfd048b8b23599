"""The API as one table: method, path, operation id, scope, handler and what the documentation needs.

Why a table: dispatch, the OpenAPI document, the permission matrix and whatever is generated later read the same
rows, so an operation cannot exist in one of them only.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from taskade_server.consumers.refusals import EXPORTED, SECRET_READ
from taskade_server.domain import hooks, identity, projects, tasks, workspaces
from taskade_server.engine.model import Resource
from taskade_server.http import audit, audit_proofs, batch, events, sync, tickets, undo, webhooks
from taskade_server.http import resources as do
from taskade_server.http.live import Session
from taskade_server.http.wire import Handler, Reply, Stream

MIB: Final = 1 << 20
Body = Literal[
    "",
    "create",
    "patch",
    "query",
    "bulk_create",
    "bulk_update",
    "bulk_delete",
    "member",
    "member_role",
    "move",
    "empty",
    "batch",
    "rotate_secret",
    "recover",
    "revert",
    "replay",
]
Answer = Literal[
    "one", "list", "none", "key", "batch", "event_types", "document", "events", "event", "stream", "ticket",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `path` is below /v1 with {id} and {user}; `heavy` ones may touch thousands of rows."""

    method: str
    path: str
    operation_id: str
    scope: str
    handler: Handler
    resource: Resource
    summary: str
    writes: bool = False
    heavy: bool = False
    body: Body = ""
    answer: Answer = "one"
    status: int = 200
    max_body: int = MIB
    listing: bool = False
    batchable: bool = True
    live: Callable[[Session], Awaitable[Reply | Stream]] | None = None
    """Answers in place of `handler`, and may take its time: by waiting, or with a stream."""
    media: tuple[str, ...] = ("application/json",)
    noted: str = ""
    """As what reading it is on record in the log of accesses; empty: it is not."""
    consistent: bool = False
    """Everything that it reads has to be of one moment, also without parameters."""

    @property
    def versioned(self) -> bool:
        """Whether it changes one object, which If-Match can name the version of."""
        return self.writes and "{id}" in self.path and self.body != "member" and not self.path.startswith("/events/")


RESOURCES: Final = (
    workspaces.WORKSPACE, projects.PROJECT, tasks.TASK, tasks.COMMENT, projects.TEMPLATE, identity.USER,
    identity.API_KEY, hooks.WEBHOOK,
)  # fmt: skip

_CREATE: Final = {
    "workspaces": do.create_workspace,
    "projects": do.create_project,
    "tasks": tasks.create,
    "comments": tasks.create_comment,
    "templates": projects.create_template,
    "users": identity.create_user,
}
_UPDATE: Final = {
    "workspaces": workspaces.update,
    "projects": projects.update,
    "tasks": tasks.update,
    "comments": tasks.update_comment,
    "templates": projects.update_template,
    "users": identity.update_user,
    "api-keys": identity.update_key,
    "webhooks": hooks.update,
}
_DELETE: Final = {
    "workspaces": workspaces.delete,
    "projects": projects.delete,
    "tasks": tasks.delete,
    "comments": tasks.delete_comment,
    "templates": projects.delete_template,
    "users": identity.delete_user,
    "api-keys": identity.delete_key,
    "webhooks": hooks.delete,
}


_WITH_SECRET: Final = {"api-keys": do.create_key, "webhooks": webhooks.create}


def all_routes() -> list[Route]:
    """Every operation under /v1."""
    found: list[Route] = []
    for resource in RESOURCES:
        found += _reads(resource)
        found += _writes(resource)
    found += [
        *_task_routes(),
        *_project_routes(),
        *_webhook_routes(),
        *_member_routes("workspaces"),
        *_member_routes("projects"),
    ]
    found.append(Route("POST", "/batch", "batch", "", batch.handle, tasks.TASK,
                       "Run up to 1,000 operations in one transaction, all or none", writes=True, body="batch",
                       answer="batch", max_body=8 * MIB, batchable=False))  # fmt: skip
    found += _audit_routes()
    found.append(Route("GET", "/event-types", "event-types.catalogue", "", do.event_types, identity.USER,
                       "List the types of events", answer="event_types"))  # fmt: skip
    found += _event_routes()
    found.append(Route("GET", "/sync", "sync", "", sync.handle, tasks.TASK, "Sync a client that works offline",
                       answer="document", batchable=False, consistent=True))  # fmt: skip
    found.append(Route("GET", "/users/me", "users.me", "", do.me, identity.USER, "The user this key acts as"))
    return found


def _event_routes() -> Iterator[Route]:
    yield Route("GET", "/events", "events.list", "", events.listing, tasks.TASK, "List what has happened",
                answer="events", live=events.waiting)  # fmt: skip
    yield Route("GET", "/events/{id}", "events.get", "", events.reading, tasks.TASK, "Read an event", answer="event")
    yield Route("POST", "/stream-tickets", "stream-tickets.create", "", tickets.create, tasks.TASK,
                "Create a ticket for a browser's stream", body="empty", answer="ticket", status=201,
                batchable=False)  # fmt: skip
    yield Route("POST", "/events/{id}/revert", "events.revert", "", undo.one, tasks.TASK, "Undo a change",
                writes=True, heavy=True, body="empty", answer="document", batchable=False)  # fmt: skip
    yield Route("POST", "/events/revert", "events.revert_many", "", undo.many, tasks.TASK,
                "Undo all changes of a request, of a key, or of some events", writes=True, heavy=True, body="revert",
                answer="document", batchable=False)  # fmt: skip
    yield Route("GET", "/events/stream", "events.stream", "", events.listing, tasks.TASK,
                "Follow what happens (Server-Sent Events)", answer="stream", batchable=False, live=events.streaming,
                media=("text/event-stream",))  # fmt: skip


def _article(resource: Resource) -> str:
    noun = resource.name.replace("_", " ").replace("api", "API")
    return f"an {noun}" if noun[0] in "aeiouA" else f"a {noun}"


def _deletion(resource: Resource, one: str) -> str:
    if resource.trash:
        return f"Move {one} to the trash"
    return f"Revoke {one}" if resource is identity.API_KEY else f"Delete {one} for good"


def _reads(resource: Resource) -> Iterator[Route]:
    name, one = resource.plural, _article(resource)
    scope, path = f"{name}:read", f"/{name}"
    nouns = name.replace("-", " ").replace("api", "API")
    yield Route(
        "GET", path, f"{name}.list", scope, do.listing(resource), resource, f"List {nouns}", answer="list", listing=True
    )
    yield Route("GET", f"{path}/{{id}}", f"{name}.get", scope, do.reading(resource), resource, f"Read {one}")
    for method, where, suffix in (("QUERY", path, "query"), ("POST", f"{path}/query", "query_post")):
        yield Route(method, where, f"{name}.{suffix}", scope, do.querying(resource), resource,
                    f"Query {nouns} with a JSON document", body="query", answer="list")  # fmt: skip


def _writes(resource: Resource) -> Iterator[Route]:
    name, one = resource.plural, _article(resource)
    scope, path = f"{name}:write", f"/{name}"
    if name in _WITH_SECRET:
        yield Route("POST", path, f"{name}.create", scope, _WITH_SECRET[name], resource, f"Create {one}", writes=True,
                    body="create",
                    answer="key", status=201, batchable=False)  # fmt: skip
    else:
        yield Route("POST", path, f"{name}.create", scope, do.creating(resource, _CREATE[name]), resource,
                    f"Create {one}",
                    writes=True, body="create", status=201)  # fmt: skip
    change = do.changing(resource, _UPDATE[name])
    for method, suffix in (("PATCH", "update"), ("PUT", "put")):
        yield Route(method, f"{path}/{{id}}", f"{name}.{suffix}", scope, change, resource,
                    f"Change {one} by merge patch",
                    writes=True, body="patch")  # fmt: skip
    yield Route("DELETE", f"{path}/{{id}}", f"{name}.delete", scope, do.deleting(_DELETE[name]), resource,
                _deletion(resource, one), writes=True, answer="none",
                status=204, heavy=name == "projects")  # fmt: skip
    if resource.trash:
        yield Route("POST", f"{path}/{{id}}/restore", f"{name}.restore", scope,
                    do.restoring(resource, do.restore_by_name[name]), resource, f"Bring {one} back from the trash",
                    writes=True, body="empty", heavy=name == "projects")  # fmt: skip


def _task_routes() -> Iterator[Route]:
    scope, task, big = "tasks:write", tasks.TASK, 8 * MIB
    yield Route("POST", "/tasks/bulk", "tasks.create_bulk", scope, do.create_tasks, task,
                "Create up to 1,000 tasks, all or none",
                writes=True, heavy=True, body="bulk_create", answer="list", status=201, max_body=big)  # fmt: skip
    yield Route("PATCH", "/tasks/bulk", "tasks.update_bulk", scope, do.update_tasks, task,
                "Change up to 1,000 tasks, all or none",
                writes=True, heavy=True, body="bulk_update", answer="list", max_body=big)  # fmt: skip
    yield Route("DELETE", "/tasks/bulk", "tasks.delete_bulk", scope, do.delete_tasks, task,
                "Move up to 1,000 tasks to the trash",
                writes=True, heavy=True, body="bulk_delete", answer="list", max_body=big)  # fmt: skip
    for verb, category, summary in (
        ("complete", "done", "Complete a task: move it to the first done status"),
        ("reopen", "todo", "Reopen a task: move it to the first todo status"),
    ):
        yield Route("POST", f"/tasks/{{id}}/{verb}", f"tasks.{verb}", scope,
                    do.acting(task, partial(tasks.set_status, category=category)),
                    task, summary, writes=True, body="empty")  # fmt: skip
    yield Route("POST", "/tasks/{id}/move", "tasks.move", scope, do.changing(task, tasks.move), task,
                "Move a task to a project, parent or place among its siblings", writes=True, body="move")  # fmt: skip


def _project_routes() -> Iterator[Route]:
    for verb, archived in (("archive", True), ("unarchive", False)):
        yield Route("POST", f"/projects/{{id}}/{verb}", f"projects.{verb}", "projects:write",
                    do.acting(projects.PROJECT, partial(projects.archive, archived=archived)),
                    projects.PROJECT, "Archive a project" if archived else "Make an archived project active again",
                    writes=True, body="empty")  # fmt: skip


def _webhook_routes() -> Iterator[Route]:
    path, hook = "/webhooks/{id}", hooks.WEBHOOK
    read, write = "webhooks:read", "webhooks:write"
    # With the secret, anybody can pretend to be this server: reading it takes the right to change the webhook.
    yield Route("GET", f"{path}/secret", "webhooks.secret", write, webhooks.secret, hook,
                "Read the secrets that sign a webhook's deliveries", answer="document", batchable=False,
                noted=SECRET_READ)  # fmt: skip
    yield Route("POST", f"{path}/rotate-secret", "webhooks.rotate_secret", write, webhooks.rotate, hook,
                "Replace a webhook's secret", writes=True, body="rotate_secret", answer="document",
                batchable=False)  # fmt: skip
    yield Route("GET", f"{path}/deliveries", "webhooks.deliveries", read, webhooks.list_deliveries, hook,
                "List a webhook's deliveries, newest event first", answer="document")  # fmt: skip
    yield Route("GET", f"{path}/deliveries/{{delivery}}", "webhooks.delivery", read, webhooks.get_delivery, hook,
                "Read a delivery with its attempts", answer="document")  # fmt: skip
    yield Route("POST", f"{path}/deliveries/{{delivery}}/resend", "webhooks.resend", write, webhooks.resend,
                hook, "Send a delivery again", writes=True, body="empty", answer="document", status=202)  # fmt: skip
    yield Route("GET", f"{path}/health", "webhooks.health", read, webhooks.health, hook,
                "See how a webhook's endpoint is doing", answer="document")  # fmt: skip
    yield Route("POST", f"{path}/test", "webhooks.test", write, webhooks.test, hook, "Send a test",
                writes=True, body="empty", answer="document", status=202)  # fmt: skip
    yield Route("POST", f"{path}/recover", "webhooks.recover", write, webhooks.recover, hook,
                "Send again what has failed", writes=True, body="recover", answer="document", status=202)  # fmt: skip
    yield Route("POST", f"{path}/replay", "webhooks.replay", write, webhooks.replay, hook,
                "Send the events of a range", writes=True, body="replay", answer="document", status=202)  # fmt: skip
    yield Route("GET", f"{path}/replays", "webhooks.replays", read, webhooks.list_replays, hook,
                "List a webhook's replays, newest first", answer="document")  # fmt: skip
    yield Route("GET", f"{path}/replays/{{replay}}", "webhooks.get_replay", read, webhooks.get_replay, hook,
                "See how far a replay is", answer="document")  # fmt: skip
    yield Route("POST", f"{path}/replays/{{replay}}/cancel", "webhooks.cancel_replay", write, webhooks.cancel_replay,
                hook, "Break a replay off", writes=True, body="empty", answer="document")  # fmt: skip


def _audit_routes() -> Iterator[Route]:
    scope, about = "audit:read", workspaces.WORKSPACE
    yield Route("GET", "/audit", "audit.entries", scope, audit.listing, about, "Read the audit log of a workspace",
                answer="document", live=audit.waiting)  # fmt: skip
    yield Route("GET", "/audit/checkpoint", "audit.checkpoint", scope, audit_proofs.checkpoint, about,
                "Read how far the audit log is, signed", answer="document", consistent=True)  # fmt: skip
    yield Route("GET", "/audit/proof", "audit.proof", scope, audit_proofs.proof, about,
                "Prove that an entry is in the audit log, or that the log only grew", answer="document",
                consistent=True)  # fmt: skip
    yield Route("GET", "/audit/key", "audit.key", scope, audit_proofs.key, about,
                "Read the public key that checkpoints are signed with", answer="document")  # fmt: skip
    yield Route("GET", "/audit/export", "audit.export", scope, audit.listing, about, "Export the audit log",
                answer="document", batchable=False, live=audit_proofs.exporting, noted=EXPORTED,
                media=("application/jsonl", "text/csv"))  # fmt: skip


def _member_routes(name: str) -> Iterator[Route]:
    module = workspaces if name == "workspaces" else projects
    noun, within = name[:-1], f"{name[:-1]}_id"
    path, member = f"/{name}/{{id}}/members", identity.MEMBER
    yield Route("GET", path, f"{name}.members.list", f"{name}:read", do.listing(member, within), member,
                f"List the members of a {noun}",
                answer="list", listing=True)  # fmt: skip
    yield Route("POST", path, f"{name}.members.add", f"{name}:write", do.adding_member(module.add_member), member,
                f"Add a member to a {noun}", writes=True, body="member", status=201)  # fmt: skip
    for method, suffix in (("PATCH", "update"), ("PUT", "put")):
        yield Route(method, f"{path}/{{user}}", f"{name}.members.{suffix}", f"{name}:write",
                    do.changing_member(module.change_member),
                    member, "Change a member's role", writes=True, body="member_role")  # fmt: skip
    yield Route("DELETE", f"{path}/{{user}}", f"{name}.members.remove", f"{name}:write",
                do.removing_member(module.remove_member),
                member, f"Remove a member from a {noun}", writes=True, answer="none", status=204)  # fmt: skip


class Table:
    """Finds the routes of a path. Literal segments win over parameters (`/tasks/bulk` over `/tasks/{id}`)."""

    def __init__(self, routes: list[Route]) -> None:
        self._by_shape: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            shape = tuple("*" if part.startswith("{") else part for part in route.path.strip("/").split("/"))
            self._by_shape.setdefault(shape, {})[route.method] = route
        # What most requests are about: one thing of a kind, by its id.
        self._by_kind = {shape[0]: found for shape, found in self._by_shape.items() if shape[1:] == ("*",)}
        self._literal = {"/".join(shape) for shape in self._by_shape if "*" not in shape}

    def find(self, path: str) -> tuple[dict[str, Route], list[str]] | None:
        """The routes of a path below /v1 by method, and its parameters; None if there is no such path."""
        kind, _, name = path.partition("/")
        if name and "/" not in name and path not in self._literal and (one := self._by_kind.get(kind)):
            return one, [name]
        parts = path.strip("/").split("/")
        found = self._by_shape.get(tuple(parts))
        if found is not None and "*" not in parts:  # which is how a shape says that anything may stand there
            return found, []
        parameters = parts[1::2]
        parts[1::2] = "*" * len(parameters)
        found = self._by_shape.get(tuple(parts))
        return None if found is None else (found, parameters)

    def paths(self) -> list[str]:
        """All first segments, for "did you mean"."""
        return sorted({shape[0] for shape in self._by_shape})
