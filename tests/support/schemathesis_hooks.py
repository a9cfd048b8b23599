"""Helps schemathesis to requests that can succeed, and holds every answer against the document.

Why: a schema says what a request looks like, not which objects exist or which fields must agree. So references in
requests that are meant to succeed are pointed at real objects, and contradictions between fields are taken out; the
fields themselves stay as they were generated. Writes get objects of their own, so that no test can saw off the branch
that the others sit on. Reads TASKADE_URL and TASKADE_KEY; with TASKADE_STATUSES it leaves there, as JSON, which
statuses each operation answered with.
"""

import atexit
import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine import schema
from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.kit import text

from tests.support import conformity, described

PLURALS = {resource.plural: resource for resource in RESOURCES}
STATUSES = [
    {"key": "pending", "name": None, "category": "todo"},
    {"key": "completed", "name": None, "category": "done"},
]
NUMBERS = itertools.count(1)
LONGEST_QUERY = 20_000
seen: dict[str, set[int]] = defaultdict(set)


# ---- objects that exist ----------------------------------------------------------------------------------------------


class World:
    """Objects to point at. `anchor` ones stay as they are; a `target` is there to be changed once."""

    def __init__(self) -> None:
        headers = {"Authorization": f"Bearer {os.environ['TASKADE_KEY']}"}
        base = f"{os.environ['TASKADE_URL']}/v1"
        self.client = httpx2.Client(base_url=base, headers=headers, trust_env=False, timeout=120)
        self.client.event_hooks = {"response": [conformity.watch]}
        self.me = self.read("/users/me")
        self.anchors: dict[str, str] = {"workspace": self.me["workspace_id"], "user": self.make("user")}
        for name in ("project", "task", "template", "comment", "api_key", "webhook", "secret", "automation"):
            self.anchors[name] = self.make(name)
        self.sibling = self.make("task")
        self.side_workspace = self.make("workspace")
        self.targets: dict[str, str] = {}
        keys = [key["id"] for key in self.read("/api-keys")]
        self.protected = {*self.anchors.values(), *keys, self.me["id"], self.sibling, self.side_workspace}

    def read(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def make(self, name: str) -> str:
        """A new object of a kind."""
        number = len(seen) + os.getpid()
        body: dict[str, Any] = {"name": f"Made for a test {number}"}
        if name == "task":
            body["project_id"] = self.anchors["project"]
        elif name == "comment":
            body = {"task_id": self.anchors["task"], "body": "A remark"}
        elif name == "user":
            body["kind"] = "service"
        elif name == "api_key":
            body["scopes"] = ["tasks:read"]
        elif name == "webhook":
            body = WEBHOOK_RULES
        elif name == "automation":
            body = {"name": "A rule", **AUTOMATION_RULES}
        elif name == "secret":
            body = {**SECRET_RULES, "name": f"made-{next(NUMBERS)}-{os.getpid()}", "value": "The value"}
        made = self.client.post(f"/{REGISTRY[name].plural}", json=body).raise_for_status().json()
        return str(made["id"])

    def target(self, name: str, *, trashed: bool = False) -> str:
        """An object that the next request may change or delete; it serves until one does."""
        kind = f"{name} in the trash" if trashed else name
        if kind not in self.targets:
            self.targets[kind] = self.make(name)
            if trashed:
                self.client.delete(f"/{REGISTRY[name].plural}/{self.targets[kind]}").raise_for_status()
        return self.targets[kind]

    def part(self, webhook_id: str, name: str) -> str:
        """A delivery of a webhook, a replay that is there to be looked at or cancelled, or a run of an automation."""
        if name == "run":
            started = self.client.post(f"/automations/{webhook_id}/runs")
            return str(started.json()[0]["id"]) if started.is_success else schema.sample_id("run")
        if name == "delivery":
            made = self.client.post(f"/webhooks/{webhook_id}/test")
        else:
            made = self.client.post(f"/webhooks/{webhook_id}/recover", json={"since": "2024-01-15T10:30:00Z"})
        if made.status_code == 409:
            return str(self.read(f"/webhooks/{webhook_id}/replays")[0]["id"])
        return str(made.json()["id"]) if made.is_success else schema.sample_id("dlv" if name == "delivery" else "rpl")

    def change(self) -> str:
        """A change that can be undone."""
        return str(self.read(f"/events?object_id={self.make('task')}&order=desc&limit=1")[0]["id"])

    def used(self, object_id: str) -> None:
        """Note that a request changed an object."""
        self.targets = {kind: found for kind, found in self.targets.items() if found != object_id}

    def enrol(self, owner: str, object_id: str) -> str:
        """Make the anchor user a member of a workspace or project."""
        self.client.post(f"/{owner}/{object_id}/members", json={"user": self.anchors["user"], "role": ROLES[owner]})
        return self.anchors["user"]


ROLES = {"workspaces": "member", "projects": "viewer"}


@cache
def world() -> World:
    return World()


# ---- making requests consistent --------------------------------------------------------------------------------------


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Give QUERY the place it has in OpenAPI 3.2, which schemathesis reads, and say what the document has in words."""
    found = described.with_patches(described.with_queries(raw_schema))
    found = described.without_read_only(described.with_typed_text(described.with_cut_answers(found)))
    raw_schema |= {**found, "openapi": "3.2.0"}
    for item in raw_schema["paths"].values():
        for operation in item.values():
            operation["responses"]["414"] = {"description": "The URL is too long. There is no body."}
        if "x-query" in item:
            item["query"] = item.pop("x-query")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Point a request at real objects, where it is not meant to be wrong."""
    meta = case.meta
    if len(json.dumps(case.query or {})) > LONGEST_QUERY:
        case.query = _shortened(case.query)

    def is_wrong(location: ParameterLocation) -> bool:
        return meta is not None and bool(meta.is_negative_at(location))

    if case.path_parameters and not is_wrong(ParameterLocation.PATH) and not case.path.startswith("/events"):
        _aim(case, chosen=meta is not None and meta.phase.name == "stateful")
    if not is_wrong(ParameterLocation.HEADER):
        _repair_headers(case)
    if meta is not None and meta.phase.name == "stateful" and case.operation.method.upper() == "DELETE":
        (case.query or {}).pop("dry_run", None)  # it is to be gone then
    if (case.query or {}).get("dry_run") == "":
        case.query["dry_run"] = "perhaps"  # alone, a flag's name sets it
    if case.path.startswith("/events"):
        _aim_at_events(case, is_wrong)
        return
    if case.path.startswith("/audit"):
        if not is_wrong(ParameterLocation.QUERY):
            case.query = _aim_at_audit(case.path, case.query or {})
        return
    if case.path == "/sync" and case.query and not is_wrong(ParameterLocation.QUERY):
        case.query.pop("since", None)
    resource = _resource(case.path)
    if case.query and not is_wrong(ParameterLocation.QUERY):
        _repair_query(resource, case.query)
    if isinstance(case.body, list) and not is_wrong(ParameterLocation.BODY):
        case.body = _repair_steps(case.body)
    if isinstance(case.body, dict) and not is_wrong(ParameterLocation.BODY):
        case.body = _repair_body(case.method, case.path, resource, case.body)


def _shortened(value: Any) -> Any:
    """Fewer values of each list: the connection's parser refuses a URL that is too long, and then nothing is tried."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    return value[:10] if isinstance(value, list) else value


def _resource(path: str) -> Resource:
    """The kind of thing that a path is about."""
    if path == "/batch":
        return REGISTRY["task"]
    return REGISTRY["member"] if "/members" in path else PLURALS.get(path.split("/")[1], REGISTRY["user"])


def _aim_at_events(case: Any, is_wrong: Callable[[ParameterLocation], bool]) -> None:
    """Positions that are in the log, objects that exist; and a stream must end before its reader does."""
    if case.path_parameters and not is_wrong(ParameterLocation.PATH):
        case.path_parameters["id"] = world().change()
    if case.path == "/events/revert" and isinstance(case.body, dict) and not is_wrong(ParameterLocation.BODY):
        case.body = {"event_ids": [world().change()]}  # there are several ways to name changes, of which one is taken
    if "Last-Event-ID" in case.headers and not is_wrong(ParameterLocation.HEADER):
        case.headers["Last-Event-ID"] = "0"
    if is_wrong(ParameterLocation.QUERY):
        return
    query = {name: value for name, value in (case.query or {}).items() if name not in ("filter", "wait", "ticket")}
    real = {
        "after": "0",
        "before": "5",
        "project_id": "project",
        "workspace_id": "workspace",
        "object_id": "task",
        "min_seq": "1",
    }
    query |= {name: world().anchors.get(value, value) for name, value in real.items() if name in query}
    case.query = query | ({"seconds": 1} if case.path == "/events/stream" else {})


def _aim_at_audit(path: str, query: dict[str, Any]) -> dict[str, Any]:
    """Who and what there is, times that are some, and a proof of what the log certainly holds."""
    real = {"workspace_id": "workspace", "actor": "me", "key": world().anchors["api_key"], "action": "task.*",
            "project_id": "project", "from": "-7d", "to": "+1d", "wait": "0", "min_seq": "1",
            "timezone": ZONE}  # fmt: skip
    query = {name: value for name, value in query.items() if name not in ("cursor", "event", "second", "size")}
    query |= {name: world().anchors.get(value, value) for name, value in real.items() if name in query}
    return query | ({"first": "1", "log": "changes"} if path == "/audit/proof" else {})


def _aim(case: Any, *, chosen: bool) -> None:
    """Fill in the path. `chosen`: an earlier answer named the object, so it stays unless others need it."""
    found, owner = world(), case.path.split("/")[1]
    name = PLURALS[owner].name
    if not chosen or case.path_parameters.get("id") in found.protected:
        reads = case.operation.method.upper() == "GET" or "/members" in case.path
        if case.path.endswith("/restore"):
            object_id = found.target(name, trashed=True)
        elif "/members" in case.path and owner == "workspaces":
            object_id = found.side_workspace
        else:
            object_id = found.anchors[name] if reads else found.target(name)
        case.path_parameters["id"] = object_id
    for part in {"delivery", "replay", "run"} & set(case.path_parameters):
        case.path_parameters[part] = found.part(case.path_parameters["id"], part)
    if case.path.endswith(("/runs/{run}/retry", "/runs/{run}/revert")):  # which take runs that are over
        found.client.post(f"/automations/{case.path_parameters['id']}/runs/{case.path_parameters['run']}/cancel")
    if "user" in case.path_parameters:
        case.path_parameters["user"] = found.enrol(owner, case.path_parameters["id"])


def _repair_headers(case: Any) -> None:
    if "Idempotency-Key" in case.headers:
        # Each request is one of its own: a key that comes back by chance would be refused.
        case.headers["Idempotency-Key"] = f"{case.headers['Idempotency-Key'][:200]}-{next(NUMBERS)}"
    if case.headers.get("Prefer") == "return=minimal":
        # An answer comes without its body then, which the document says in words.
        case.headers["Prefer"] = "return=representation"
    if "If-Match" in case.headers:
        case.headers["If-Match"] = "*"
    if "If-None-Match" in case.headers and case.operation.method.upper() != "GET":
        case.headers["If-None-Match"] = '"0"'


def _real(member: Field) -> str:
    """A real object that a member can refer to; an id of its own need only look like one."""
    if member.kind == "id":
        return schema.sample_id(REGISTRY[member.target].prefix)
    return "owner" if member.kind == "user" else world().anchors[member.target]


def _repair_query(resource: Resource, query: dict[str, Any]) -> None:
    query.pop("cursor", None)
    if "min_seq" in query:
        query["min_seq"] = "1"
    if "timezone" in query:
        query["timezone"] = ZONE
    if "as_of" in query:
        query["as_of"] = "now"
        query.pop("include", None)  # which is as it is now, and so does not go with it
    if not text.sought(str(query.get("q", "a"))):
        query["q"] = "mock"
    if isinstance(query.get("sort"), list):
        query["sort"] = _each_once(query["sort"])
    elif isinstance(query.get("sort"), str):
        query["sort"] = ",".join(_each_once(query["sort"].split(",")))
    for name, value in list(query.items()):
        member = resource.fields.get(re.split(r"[\[.]", name)[0])
        if name == "filter":
            query[name] = json.dumps(_repair_filter(resource, json.loads(value) if isinstance(value, str) else value))
        elif member is not None and "$exists" not in name:
            query[name] = _repair_condition(member, value)


def _repair_filter(resource: Resource, document: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    """A filter whose references exist, within the limits for depth and number, which a schema cannot express."""
    repaired: dict[str, Any] = {}
    for name, value in list(document.items())[: None if depth == 1 else 5]:
        if name.startswith("$") and depth >= 3:
            continue
        if name in ("$and", "$or"):
            repaired[name] = [_repair_filter(resource, item, depth + 1) for item in value[:3]]
        elif name == "$not":
            repaired[name] = _repair_filter(resource, value, depth + 1)
        else:
            member = resource.fields.get(name)
            repaired[name] = value if member is None else _repair_condition(member, value)
    return repaired


def _repair_condition(member: Field, value: Any) -> Any:
    if member.kind in ("day", "time"):
        return _with_few_dates(value)
    if member.kind not in ("id", "ref", "refs", "user") and member.name != "status":
        return value
    if isinstance(value, dict):
        return {name: inner if name == "$exists" else _repair_condition(member, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_repair_condition(member, item) for item in value]
    if value is None:
        return None
    return TASK_RULES["status"] if member.name == "status" else _real(member)


def _with_few_dates(value: Any) -> Any:
    """Each date of a list is a condition of its own, of which a filter may have only so many."""
    if isinstance(value, dict):
        return {name: _with_few_dates(inner) for name, inner in value.items()}
    return value[:3] if isinstance(value, list) else value


def _repair_steps(steps: list[Any]) -> list[Any]:
    """A JSON Patch of which every step can be done: what stands at a place decides that, which no schema says."""
    return [{"op": "test", "path": "/deleted_at", "value": None} for _ in steps[:3]]


def _repair_batch(body: dict[str, Any]) -> dict[str, Any]:
    """A batch of as many operations, each of which can succeed; their names stay."""
    operations = []
    for number, operation in enumerate(body["operations"][:5]):
        name = f"{operation['id'][:50]}-{number}" if operation.get("id") else None
        reading = {"method": "GET", "path": f"/tasks/{world().anchors['task']}", "id": name}
        writing = {"method": "POST", "path": "/tasks", "body": {"name": "By a batch"}, "id": name}
        operations.append(writing if number % 2 else reading)
    return {"operations": operations}


def _repair_body(method: str, path: str, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
    if path == "/batch":
        return _repair_batch(body)
    if path.endswith("/query") or method.upper() == "QUERY":
        return _repair_search(resource, body)
    if path == "/tasks/bulk":
        return _repair_bulk(method, resource, body)
    if path.startswith("/webhooks/{id}/"):
        return _repair_webhook_part(path, body)
    if path.startswith(("/automations/{id}/", "/automations/preview")):
        return _repair_automation_part(path)
    if "/members" in path:
        return {**body, "user": world().anchors["user"]} if "user" in body else body
    if path == "/users" and not body.get("email"):
        body = {**body, "kind": "service"}
    if path.endswith("/move"):
        repaired = _repair_members(resource, body)
        if repaired.get("before") or repaired.get("after"):  # which says in which project and below what it is
            repaired = {name: repaired[name] for name in ("before", "after") if repaired.get(name)}
            repaired = dict(list(repaired.items())[:1])
        return {name: world().sibling if name in ("before", "after") else repaired[name] for name in repaired}
    return _repair_members(resource, body)


def _repair_automation_part(path: str) -> dict[str, Any]:
    """What to start or to try an automation with: its trigger takes no input; objects and events have to be there."""
    if path.endswith("/preview"):
        return {"automation_id": world().anchors["automation"], "trials": 1}
    if path.endswith("/test"):
        return {"object_id": world().anchors["task"]}
    return {"event_id": world().change()} if path.endswith("/explain") else {}


def _repair_webhook_part(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What is to be sent again, or which secret comes next."""
    if path.endswith("/replay"):
        return {**body, "after_seq": 0} | ({"events": ["task.*"]} if "events" in body else {})
    return {**body, "secret": WEBHOOK_SECRET} if body.get("secret") else body


def _each_once(keys: list[Any]) -> list[Any]:
    """Keys of `sort`, without those that name a member again: no schema can say that `name` and `-name` are one key."""
    return list({str(key).removeprefix("-"): key for key in keys}.values())


def _repair_search(resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
    body = {name: ZONE if name == "timezone" else value for name, value in body.items() if name != "cursor"}
    if not text.sought(body.get("q") or "a"):
        body["q"] = "mock"
    names = {"sort": "created_at", "fields": "id", "include": "".join(list(resource.includes)[:1])}
    body |= {name: names[name] for name in names if isinstance(body.get(name), str)}
    if isinstance(body.get("sort"), list):
        body["sort"] = _each_once(body["sort"])
    return {**body, "filter": _repair_filter(resource, body["filter"])} if body.get("filter") else body


def _repair_bulk(method: str, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
    repaired = _repair_members(resource, {name: value for name, value in body.items() if name == "project_id"})
    if "tasks" in body and method.upper() == "PATCH":
        # A task that is there, once, at whatever version.
        change = {name: value for name, value in body["tasks"][0].items() if name != "if_match"}
        repaired["tasks"] = [{**_repair_members(resource, change), "id": world().target("task")}]
    elif "tasks" in body:
        repaired["tasks"] = [_repair_members(resource, task) for task in body["tasks"]]
    if "ids" in body:
        repaired["ids"] = [world().target("task")]
    if "filter" in body:
        # It must not reach the tasks of other tests.
        repaired["filter"] = {"$and": [{"id": world().target("task")}, _repair_filter(resource, body["filter"])]}
    if "timezone" in body:
        repaired["timezone"] = ZONE
    if "set" in body:
        repaired["set"] = _repair_members(resource, body["set"])
    return repaired


def _repair_members(resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
    """The body of a create or update request with references that exist and fields that agree."""
    repaired = dict(body)
    for name, value in body.items():
        member = resource.fields.get(name)
        if value is None or member is None or not member.writable:
            continue
        if member.kind in ("ref", "user"):
            repaired[name] = _real(member)
        elif member.kind == "refs":
            repaired[name] = [_real(member)] if value else []
        elif member.kind == "zone":
            repaired[name] = ZONE
        elif member.kind == "object":
            repaired[name] = _with_small_numbers(value)
    if repaired.get("start_date") and repaired.get("due_date"):
        del repaired["due_date"]
    _repair_own_rules(resource.name, repaired)
    return repaired


def _with_small_numbers(value: Any) -> Any:
    """Numbers of more than 64 bits are refused wherever they stand; saying so in a schema would hide the rest of it."""
    if isinstance(value, dict):
        return {name: _with_small_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_small_numbers(inner) for inner in value]
    return value % 2**53 if isinstance(value, int) and abs(value) > 2**53 else value


def _repair_own_rules(name: str, body: dict[str, Any]) -> None:
    """What a kind of resource demands beyond its schema."""
    if name == "task":
        body.update({key: value for key, value in TASK_RULES.items() if body.get(key) is not None})
        if body.get("parent_id"):
            body["project_id"] = world().anchors["project"]
    elif name == "project":
        _repair_workflow(body)
        if body.get("members"):
            body["members"] = ["owner"]
    elif name == "template":
        if body.get("project"):
            _repair_workflow(body["project"])
        for task in body.get("tasks") or []:
            _repair_blueprint(task)
    elif name == "api_key":
        body.update({key: value for key, value in KEY_RULES.items() if body.get(key)})
    elif name == "webhook":
        if body.get("secret"):
            body["secret"] = WEBHOOK_SECRET
        # A filter speaks of some resource, which must be one of those that the events are about.
        body.update({key: value for key, value in WEBHOOK_RULES.items() if body.get(key) is not None})
        body.pop("filter", None)
        body.pop("enabled", None)
    elif name == "automation":
        body.update({key: value for key, value in AUTOMATION_RULES.items() if key in body})
        for key in ("condition", "now", "enabled"):
            body.pop(key, None)
    elif name == "secret":
        # Each has a name of its own, and other hosts take the value.
        body.update({key: value for key, value in SECRET_RULES.items() if key in body})
        if "name" in body:
            body["name"] = f"sent-{next(NUMBERS)}-{os.getpid()}"


ZONE = "Europe/Berlin"
TASK_RULES = {"status": "completed", "recurrence": "FREQ=WEEKLY;BYDAY=MO"}
WEBHOOK_SECRET = "your_webhook_secret"
WEBHOOK_RULES = {"url": "http://127.0.0.1:59999/nobody", "events": ["task.*"], "headers": {"X-Environment": "tests"}}
AUTOMATION_RULES = {"trigger": {"on": "manual"}, "actions": [{"do": "stop"}]}
SECRET_RULES = {"hosts": ["api.example.com"]}
KEY_RULES = {"expires_at": f"{datetime.now(UTC).date() + timedelta(days=30)}", "allowed_ips": ["127.0.0.0/8"]}


def _repair_workflow(project: dict[str, Any]) -> None:
    if project.get("statuses") is not None:
        project["statuses"] = STATUSES
    by_key = {definition["key"]: definition for definition in project.get("fields") or []}
    for definition in by_key.values():
        if definition["type"] in ("select", "multi") and not definition.get("options"):
            definition["options"] = ["easy", "hard"]
    if project.get("fields"):
        project["fields"] = list(by_key.values())


def _repair_blueprint(task: dict[str, Any]) -> None:
    if task.get("status") is not None:
        task["status"] = "completed"
    if task.get("start_in_days") is not None:
        task.pop("due_in_days", None)
    for below in task.get("subtasks") or []:
        _repair_blueprint(below)


# ---- looking at answers ----------------------------------------------------------------------------------------------


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Note the status, and that a changed object cannot serve again."""
    seen[case.operation.label].add(response.status_code)
    if response.status_code < 300 and case.operation.method.upper() != "GET":
        sent = json.dumps(case.body) if isinstance(case.body, dict) else ""
        for object_id in [*case.path_parameters.values(), *re.findall(r"task_[0-9a-z]{26}", sent)]:
            world().used(str(object_id))


@schemathesis.check
def conforms(context: Any, response: Any, case: Any) -> None:
    """Nothing but what the document describes, members and headers included."""
    request = response.request
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    headers = {name.lower(): ", ".join(values) for name, values in response.headers.items()}
    conformity.verify(
        conformity.Exchange(request.method, request.url, body, response.status_code, headers, response.content)
    )


@atexit.register
def leave_statuses() -> None:
    """For the test that asks whether every operation succeeded at least once."""
    if "TASKADE_STATUSES" in os.environ:
        found = {label: sorted(statuses) for label, statuses in sorted(seen.items())}
        Path(os.environ["TASKADE_STATUSES"]).write_text(json.dumps(found, indent=1))
