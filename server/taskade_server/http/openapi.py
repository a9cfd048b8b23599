"""The OpenAPI document, derived from the routes and the resource declarations.

Why derived: SDKs, the command line, the explorer and the tests all read it, so it has to say exactly what the server
does; a test compares it with every answer. OpenAPI 3.1 has no place for the QUERY method, so those operations stand
under `x-query` of their path, in the form that 3.2 gives them under `query`.
"""

import json
from functools import cache
from typing import Any, Final

from taskade_server import __version__
from taskade_server.domain import identity, projects, tasks
from taskade_server.engine import access, event_schema, events, query, schema
from taskade_server.engine.model import CUSTOM_KEY, Resource
from taskade_server.engine.schema import Schema, closed, or_null, ref, sample_id, title
from taskade_server.http import audit_schema, batch, patching, sync_schema, undo_schema, webhook_schema
from taskade_server.http import events as live_events
from taskade_server.http.routes import RESOURCES, Route, all_routes
from taskade_server.kit import ids
from taskade_server.kit.errors import Issue, NotFound, Problem, problem_classes
from taskade_server.store import deliveries

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
ABOUT: Final = """\
Workspaces hold projects, projects hold tasks. Everything is JSON in UTF-8 with snake_case names; times are RFC
3339 in UTC with milliseconds, dates are `YYYY-MM-DD`.

**Credentials.** Send `Authorization: Bearer <API key>`. Each operation names the scope that the key needs.

**Nothing is ignored silently.** An unknown member, parameter, operator, include, sort key or reference is an error
that names it and what is allowed. Read-only members in a body are the exception: they are ignored, so that what
was read can be sent back.

**Lists** are bare arrays. `Link: <...>; rel="next"` leads to the next page; `limit` is 100 unless given and at
most 1000. Filter with `field=value`, `field=a&field=b` (any of) and `field[$op]=value` with the operators `$eq $ne
$gt $gte $lt $lte $in $nin $contains $prefix $exists`; `$or[0][status]=...`, `$and` and `$not` group conditions;
`custom_fields.key=value` and `custom_fields[key][$gte]=value` reach custom fields. `filter={...}` says the same as
one JSON document, and the QUERY method takes that document as a body (`POST .../query` does, too, for clients that
cannot send QUERY).

**Changing.** PATCH and PUT are both a JSON merge patch: what is left out stays, null clears, objects merge. `ETag`
is the version of a resource; `If-Match` makes a write fail with 412 when somebody else was faster.

**Repeating.** `Idempotency-Key: <anything unique>` on a write makes it safe to send again: it has its effect once, and
its first answer every time. `?dry_run=true` answers what a write would have answered, and writes nothing. `POST /batch`
runs up to 1,000 operations in one transaction. `Commit-Seq` of a write is the `min_seq` of a read that must see it.

**Errors** are `application/problem+json` (RFC 9457); `code` is stable, `errors` names every fault and its place.
"""


@cache
def render() -> str:
    """The document as JSON text."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def document() -> Schema:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Taskade API",
            "version": __version__,
            "summary": "Workspaces, projects and tasks for programs.",
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": "/v1", "description": "The server that serves this document."},
            {
                "url": "http://{address}/v1",
                "description": "A server of your own.",
                "variables": {"address": {"default": "127.0.0.1:8000", "description": "Host and port."}},
            },
        ],
        "security": [{"bearer": []}],
        "tags": [
            *({"name": _tag(resource.plural), "description": resource.description} for resource in RESOURCES),
            {"name": "Batch", "description": "Several operations as one."},
            {"name": "Event types", "description": "What can happen."},
            {"name": "Events", "description": "What has happened and what happens."},
            {"name": "Sync", "description": "For clients that work offline."},
            {"name": "Audit", "description": "Who did what, when, from where, and what was refused."},
            {"name": "Stream tickets", "description": "Credentials for the streams of browsers."},
        ],
        "paths": _paths(),
        "webhooks": _webhooks(),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `taskade keys create --name NAME` or `POST /api-keys` makes one.",
                }
            },
            "schemas": _schemas(),
            "parameters": _parameters(),
            "headers": _HEADERS,
            "responses": _problem_responses(),
        },
    }


# ---- operations ------------------------------------------------------------------------------------------------------


def _paths() -> Schema:
    paths: Schema = {}
    for route in all_routes():
        key = "x-query" if route.method == "QUERY" else route.method.lower()
        paths.setdefault(route.path, {})[key] = _operation(route)
    return dict(sorted(paths.items()))


def _operation(route: Route) -> Schema:
    operation: Schema = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": _description(route),
        "tags": [_tag(route.path.split("/")[1])],
        "parameters": _operation_parameters(route),
    }
    body = _body(route)
    if body is not None:
        operation["requestBody"] = body
    operation["responses"] = _responses(route)
    operation["x-required-scope"] = route.scope or None
    operation["x-batchable"] = route.batchable
    return operation


def _tag(plural: str) -> str:
    return plural.replace("-", " ").capitalize().replace("Api", "API")


def _description(route: Route) -> str:
    notes = {
        "create": "Answers with the whole resource and its address in `Location`. A client may choose the `id`.",
        "patch": "A JSON merge patch (RFC 7396): what the body leaves out stays, null clears, objects merge.",
        "query": "The same as the list, with everything in a JSON document instead of the URL.",
        "bulk_create": f"All or none: a wrong entry answers 422 with its place, such as `/tasks/17/name`."
        f" At most {tasks.MAX_BULK:,} tasks.",
        "bulk_update": "Applies one merge patch to the tasks that `ids` or `filter` choose, all or none."
        f" At most {tasks.MAX_BULK:,} tasks.",
        "bulk_delete": "Moves the tasks that `ids` or `filter` choose to the trash, all or none; answers with them."
        f" At most {tasks.MAX_BULK:,} tasks.",
        "member": "Somebody who is a member already gets the role.",
        "member_role": "The last owner of a workspace stays owner.",
        "batch": "The operations run in order; each is one that could be sent alone (`x-batchable`), with or without"
        ' `/v1`. `{"$ref": "operation.field"}`, as a value, within a text or in a path, stands for a part of an earlier'
        " result, named by the operation's id or index; in a path `{operation.field}` is enough. If one fails, nothing"
        " is written: the answer has its status and the code `batch-failed`, and `pointer` names it. Counts as as many"
        " requests as it has operations.",
        "move": "Names a project, a parent (null: the top) or a task that it shall stand before or after.",
    }  # fmt: skip
    text = notes.get(route.body, _NOTES.get(route.operation_id, _NOTES.get(route.operation_id.rpartition(".")[2], "")))
    if route.method == "PATCH" and route.body == "patch":
        text += " A JSON Patch (RFC 6902) is taken as well, by its content type."
    if route.method == "PUT" and route.body == "patch":
        text = f"The same as PATCH. {text}"
    if route.method == "POST" and route.body == "query":
        text += " For clients that cannot send the method QUERY (RFC 10008), which this path's parent takes."
    needs = f"Needs the scope `{route.scope}`." if route.scope else "Needs no scope."
    return f"{text} {needs}".strip()


_NOTES: Final = {
    "list": "In the order of `sort`; without it in that of creation, or of the time by which the filter is bounded."
    " A page holds `limit` of them, and `Link` leads on.",
    "get": "`If-None-Match` with the ETag of an earlier answer gives 304.",
    "event-types.catalogue": "The same for everybody, in the order of the resources; `sample` is for tools to show.",
    "events.list": "Oldest first, behind `after`; `order=desc` or `before` gives the newest first. With `wait`, an"
    " answer without events comes only after so many seconds. `Next-After` is the `after` to go on with, also when"
    " there was nothing to tell. What the key may not see is left out. 410 when the log no longer reaches back so far.",
    "events.get": "An event that the key may see.",
    "stream-tickets.create": "For `?ticket=` of `/events/stream` and `/realtime`, where a browser cannot send a header."
    " It has the rights of the key, and opens streams for a minute; those that are open by then go on.",
    "events.stream": "Server-Sent Events: `id` is the `seq`, `event` the type, `data` the event. The first message is"
    " `ready`: from its `seq` on nothing is missed. `Last-Event-ID`, which browsers send by themselves, or `after` goes"
    " on where a stream ended. `resync`: read everything anew; `access.revoked`: something cannot be seen any more;"
    " `end`: why there is nothing more.",
    **audit_schema.NOTES,
    "sync": sync_schema.NOTE,
    **undo_schema.NOTES,
    "me": "The user whose key the request carries.",
    "delete": "It can be restored for 30 days; what belongs to it goes along.",
    "api-keys.delete": "The key stops working at once.",
    "webhooks.create": "The answer holds the `secret`, with which deliveries are signed.",
    "webhooks.delete": "Nothing more is sent, not even what is waiting.",
    "webhooks.secret": "For who may change the webhook, with a key that reaches as far as the one that made it.",
    "webhooks.rotate_secret": "The old secret goes on signing beside the new one for a while.",
    "webhooks.test": "A delivery of the type `webhook.test`, which is tried once; read it to see what became of it.",
    "webhooks.recover": "As a replay, which goes on after a restart: all failed deliveries made since then.",
    "webhooks.replay": "It goes on after a restart, a little at a time; what was delivered keeps its `webhook-id`.",
    "webhooks.cancel_replay": "What it has queued and nobody has taken yet is cancelled, too.",
    "webhooks.resend": "With the same `webhook-id`, so that a receiver can tell that it is the same.",
    "restore": "With it comes what went to the trash together with it.",
    "complete": "Sets `completed_at`; a recurring task gets its successor. A completed task stays as it is.",
    "reopen": "Clears `completed_at`. An open task stays as it is.",
    "archive": "Its tasks stay as they are. Doing so twice changes nothing.",
    "unarchive": "Doing so twice changes nothing.",
    "api-keys.create": "The answer holds the `secret`, which no other answer ever does: store it at once.",
    "remove": "Members may end their own membership.",
}


def _operation_parameters(route: Route) -> list[Schema]:
    own = _OWN_PARAMETERS.get(route.operation_id)
    if own is not None:
        return [{"$ref": f"#/components/parameters/{name}"} for name in (*own, "MinSeq")]
    found = []
    if route.path.startswith("/events/{id}"):
        found.append("EventId")
    elif "{id}" in route.path:
        owner = next(resource for resource in RESOURCES if resource.plural == route.path.split("/")[1])
        found.append(f"{title(owner)}Id")
    if "{user}" in route.path:
        found.append("Member")
    found += [name.title() for name in ("delivery", "replay") if f"{{{name}}}" in route.path]
    if route.operation_id == "webhooks.deliveries":
        found += webhook_schema.OF_LIST
    name = title(route.resource)
    if route.listing:
        found += [f"{name}Sort", "Limit", "Cursor", "Count"]
        found += ["Search"] if route.resource.search else []
        found += ["Deleted"] if route.resource.trash else []
    if route.body == "query":
        found.append("Cursor")
    elif _shaped(route):
        found += [f"{name}Include", f"{name}Fields"] if route.resource.relations else [f"{name}Fields"]
    if route.method == "GET" and route.path.endswith("/{id}"):
        found.append("AsOf")
    if route.method == "GET":
        found.append("IfNoneMatch")
    if route.versioned:
        found += ["IfMatch", "UnlessMatch"]
    if route.writes:
        found += ["DryRun", "IdempotencyKey", "Prefer"]
    else:
        found.append("MinSeq")
    references = [{"$ref": f"#/components/parameters/{name}"} for name in found]
    return references + (_filter_parameters(route.resource) if route.listing else [])


def _shaped(route: Route) -> bool:
    """Whether the operation takes `include` and `fields`."""
    return route.answer == "one" or route.listing or route.body == "query"


def _filter_parameters(resource: Resource) -> list[Schema]:
    found: list[Schema] = []
    for name, member in resource.filterable.items():
        condition = ref(schema.condition_name(resource, member))
        if member.kind == "custom":
            keys = {"pattern": f"^{CUSTOM_KEY}$"}
            condition = {"type": "object", "propertyNames": keys, "additionalProperties": condition}
        found.append({
            "name": name, "in": "query", "style": "deepObject", "explode": True, "schema": condition,
            "description": f"Filter. {member.description}", "x-filter": True,
        })  # fmt: skip
    for name, text, moment in schema.aliases(resource):
        alias = {"name": name, "in": "query", "schema": moment, "description": f"Filter. {text}"}
        found.append({**alias, "x-filter": True})
    found.append({
        "name": "filter", "in": "query", "content": {JSON: {"schema": ref(f"{title(resource)}Filter")}},
        "description": "Filter. All conditions as one JSON document, with `$and`, `$or` and `$not`.", "x-filter": True,
    })  # fmt: skip
    return found


def _body(route: Route) -> Schema | None:
    if route.body in ("", "empty"):
        return None
    media: Schema = {"schema": ref(_body_name(route))}
    examples = _EXAMPLES.get(route.operation_id) or _EXAMPLES.get(f"{route.path.split('/')[1]}.{route.body}")
    if examples:
        media["examples"] = {name: {"summary": text, "value": value} for name, (text, value) in examples.items()}
    content = {JSON: media}
    if route.method == "PATCH" and route.body == "patch":
        content["application/merge-patch+json"] = media
        rename = [{"op": "test", "path": "/version", "value": 3}, {"op": "replace", "path": "/name", "value": "New"}]
        content["application/json-patch+json"] = {
            "schema": ref("JsonPatch"),
            "examples": {"rename": {"summary": "Rename version 3", "value": rename}},
        }
    return {"required": route.body != "rotate_secret", "content": content}


def _body_name(route: Route) -> str:
    name = title(route.resource)
    owner = route.path.split("/")[1]
    return {
        "create": f"{name}Create", "patch": f"{name}Update", "query": f"{name}Query", "move": f"{name}Move",
        "bulk_create": f"{name}BulkCreate", "bulk_update": f"{name}BulkUpdate", "bulk_delete": f"{name}BulkDelete",
        "batch": "Batch",
        "rotate_secret": "WebhookRotateSecret", "recover": "WebhookRecover", "replay": "WebhookReplay",
        "revert": "EventRevert",
        "member": f"{title(owner[:-1])}MemberCreate", "member_role": f"{title(owner[:-1])}MemberUpdate",
    }[route.body]  # fmt: skip


def _responses(route: Route) -> Schema:
    found: dict[str, Schema] = {str(route.status): _success(route)}
    if route.writes and route.status == 200:
        headers = _headers(*([] if route.answer in ("list", "batch") else ["ETag"]), *_WRITTEN)
        found["204"] = {"description": "Done; the client preferred `return=minimal`.", "headers": headers}
    if route.method == "GET" and route.operation_id not in _OWN_PARAMETERS:
        headers = _headers("ETag" if route.answer == "one" else "ListETag")
        found["304"] = {"description": "Not modified: `If-None-Match` names the present version.", "headers": headers}
    if route.listing:
        found["414"] = {"$ref": "#/components/responses/UriTooLong"}
    for status in _problem_statuses(route):
        found[str(status)] = {"$ref": f"#/components/responses/{_PROBLEM_NAMES[status]}"}
    return dict(sorted(found.items()))


def _success(route: Route) -> Schema:
    name = title(route.resource)
    extra = list(_WRITTEN) if route.writes else []
    if route.answer == "batch":
        media = {"schema": ref("BatchResults"), "example": _BATCH_RESULTS}
        return {"description": "The results in the order of the operations.", "headers": _headers(*extra),
                "content": {JSON: media}}  # fmt: skip
    if route.answer == "event_types":
        content = {JSON: {"schema": {"type": "array", "items": ref("EventType")}, "example": _SOME_TYPES}}
        return {"description": "Every type of event.", "headers": _headers("ListETag"), "content": content}
    if route.operation_id == "audit.export":
        headers = _headers("Cache-Control", "Content-Disposition")
        return {"description": "The audit log.", "headers": headers, "content": audit_schema.EXPORT}
    if route.answer == "document":
        return _document_answer(route, extra)
    if route.answer in ("events", "event", "stream", "ticket"):
        return _told(route)
    if route.answer == "none":
        return {"description": "Done; there is nothing to say.", "headers": _headers(*extra)}
    if route.answer == "key":
        whole: Schema = ref(f"{name}Created")
    else:
        whole = {"anyOf": [ref(name), ref(f"{name}Selection")]} if _shaped(route) else ref(name)
    example = schema.sample(route.resource) | ({"secret": _secret(route)} if route.answer == "key" else {})
    if route.answer == "list":
        extra += [] if route.writes else ["Link", "Total-Count"]
        extra += ["ListETag"] if route.method == "GET" else []
        content = {JSON: {"schema": {"type": "array", "items": whole}, "example": [example]}}
        return {"description": f"{name}s in a bare array.", "headers": _headers(*extra), "content": content}
    extra.append("ETag")
    if route.status == 201 and route.body == "create":
        extra.append("Location")
    answer: Schema = {"description": f"The {_noun(route.resource)}.", "headers": _headers(*extra),
                      "content": {JSON: {"schema": whole, "example": example}}}  # fmt: skip
    if route.status == 201 and route.body == "create":
        answer["links"] = _links(route)
    return answer


def _secret(route: Route) -> str:
    return _SECRET if route.resource is identity.API_KEY else webhook_schema.SAMPLE_SECRET


def _document_answer(route: Route, extra: list[str]) -> Schema:
    answers = webhook_schema.ANSWERS | audit_schema.ANSWERS | {"sync": sync_schema.answer()} | undo_schema.answers()
    name, text, example = answers[route.operation_id]
    extra = [*extra, "Location"] if route.body in ("recover", "replay") else extra
    whole: Schema = ref(name.strip("[]"))
    if name.startswith("["):
        whole, extra = {"type": "array", "items": whole}, [*extra, "Link"]
    if route.operation_id == "sync":
        extra = ["Cache-Control"]
    return {"description": text, "headers": _headers(*extra),
            "content": {JSON: {"schema": whole, "example": example}}}  # fmt: skip


def _told(route: Route) -> Schema:
    """An answer that is about events."""
    if route.answer == "stream":
        media: Schema = {"schema": {"description": "Server-Sent Events."}, "example": _SOME_STREAM}
        text = "Messages without end: `ready`, then events by their type."
        return {"description": text, "headers": _headers("Cache-Control", "X-Accel-Buffering"),
                "content": {route.media[0]: media}}  # fmt: skip
    if route.answer == "ticket":
        example = {"ticket": "pVx2o1mN0u8Wd7cRWyJ0aWNrZXQiLDE3M10", "expires_at": event_schema.SAMPLE_TIME}
        return {"description": "The ticket.", "headers": _headers("Cache-Control"),
                "content": {JSON: {"schema": ref("StreamTicket"), "example": example}}}  # fmt: skip
    if route.answer == "event":
        return {"description": "The event.", "headers": _headers(),
                "content": {JSON: {"schema": ref("Event"), "example": _SOME_EVENT}}}  # fmt: skip
    media = {"schema": {"type": "array", "items": ref("Event")}, "example": [_SOME_EVENT]}
    return {"description": "Events in a bare array.", "headers": _headers("Link", "Next-After", "Cache-Control"),
            "content": {JSON: media}}  # fmt: skip


def _noun(resource: Resource) -> str:
    return resource.name.replace("_", " ").replace("api", "API")


def _headers(*names: str) -> Schema:
    return {_HEADER_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in (*names, *_EVERYWHERE)}


def _links(route: Route) -> Schema:
    """What can be done next with what was created."""
    found = {}
    for other in all_routes():
        if other.path == f"{route.path}/{{id}}" and other.method in ("GET", "PATCH", "DELETE"):
            found[other.operation_id] = {
                "operationId": other.operation_id,
                "parameters": {"id": "$response.body#/id"},
                "description": f"{other.summary}.",
            }
    return found


# ---- webhooks --------------------------------------------------------------------------------------------------------


def _webhooks() -> Schema:
    """What the server sends to the addresses that webhooks name, by the type of the event."""
    found = {}
    for kind in events.catalogue().values():
        group = kind.name.partition(".")[0]
        text = (
            f'Sent to webhooks whose `events` has `{kind.name}`, `{group}.*` or `*`; with `"payload": "thin"`, `data`'
        )
        body = {"anyOf": [ref(event_schema.name_of(kind.resource)), ref(event_schema.THIN)]}
        example = event_schema.sample(kind, webhook=True)
        found[kind.name] = _webhook(
            kind.name, kind.summary, f'{text} With `"payload": "thin"`, `data` has the `id` only.', body, example
        )
    body, example = ref(event_schema.THIN), event_schema.test_sample(deliveries.TEST)
    text = "Sent when a webhook is tested, whatever its `events` are; it is in no log."
    return {**found, deliveries.TEST: _webhook(deliveries.TEST, "A test of the webhook.", text, body, example)}


def _webhook(name: str, summary: str, text: str, body: Schema, example: Any) -> Schema:
    operation = {
        "operationId": f"on.{name}",
        "summary": summary,
        "description": text,
        "tags": ["Event types"],
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{parameter}"} for parameter in _DELIVERY_PARAMETERS],
        "requestBody": {"required": True, "content": {JSON: {"schema": body, "example": example}}},
        "responses": {status: {"$ref": f"#/components/responses/{known}"} for status, (known, _) in _RECEIVERS.items()},
    }
    return {"post": operation}


_RECEIVERS: Final = {
    "2XX": ("WebhookTaken", "Taken; the body is kept in the log of attempts, and means nothing beyond that."),
    "410": ("WebhookGone", "The receiver is gone: the webhook is disabled."),
    "default": ("WebhookRefused", "Not taken: it is sent again later, not before `Retry-After` if the answer has it."),
}


# ---- problems --------------------------------------------------------------------------------------------------------

_PROBLEM_NAMES: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
    406: "NotAcceptable", 408: "RequestTimeout", 409: "Conflict", 410: "Gone", 412: "PreconditionFailed",
    413: "ContentTooLarge", 415: "UnsupportedMediaType", 422: "UnprocessableContent", 429: "TooManyRequests",
    500: "InternalServerError", 503: "ServiceUnavailable",
}  # fmt: skip
_PROBLEM_HEADERS: Final = {
    401: "WWW-Authenticate", 405: "Allow", 409: "RetryInUse", 412: "ETag", 429: "Retry-After", 503: "Retry-After",
}  # fmt: skip


def _problem_statuses(route: Route) -> list[int]:
    """Every error an operation can answer with."""
    found = [400, 401, 403, 406, 429, 500, 503]
    if route.body == "batch":
        return sorted([*found, 404, 405, 408, 409, 412, 413, 415, 422])
    named = route.body == "create" or route.operation_id in audit_schema.OF
    named = named or route.path.startswith("/events/")
    if "{" in route.path or named or route.answer == "events":
        found.append(404)
    past = route.method == "GET" and route.path.endswith("/{id}") and route.answer == "one"
    if route.answer == "events" or route.operation_id == "sync" or past:
        found.append(410)
    if route.writes:
        found += [408, 409, 413, 415, 422]
    if route.body == "query" or route.answer == "ticket":
        found += [408, 413, 415]
    if route.answer == "ticket":
        found.append(422)
    if route.versioned:
        found.append(412)
    return sorted(found)


def _problem_responses() -> Schema:
    by_status: dict[int, list[type[Problem]]] = {}
    for cls in problem_classes():
        by_status.setdefault(cls.status, []).append(cls)
    found = {_PROBLEM_NAMES[status]: _problem_response(status, classes) for status, classes in by_status.items()}
    # The one error without a document: the connection's parser answers before the server has a request.
    text = "The URL is longer than 64 KiB: send the conditions as the body of QUERY or POST .../query. Has no body."
    receivers = {name: {"description": words} for name, words in _RECEIVERS.values()}
    return {**found, "UriTooLong": {"description": text}, **receivers}


def _problem_response(status: int, classes: list[type[Problem]]) -> Schema:
    names = [_PROBLEM_HEADERS[status]] if status in _PROBLEM_HEADERS else []
    return {
        "description": " ".join(f"`{cls.code}`: {cls.title}. {cls.advice}" for cls in classes),
        "headers": _headers(*names),
        "content": {
            PROBLEM: {
                "schema": ref("Problem"),
                "examples": {cls.code: {"summary": cls.title, "value": _problem_example(cls)} for cls in classes},
            }
        },
    }


def _problem_example(cls: type[Problem]) -> Schema:
    path, detail, errors, extra = _FAULTS.get(cls.code, ("/v1/tasks", cls.title, [], {}))
    return cls(detail, errors=errors, extra=extra).to_dict(path, sample_id("req"))


_TASK: Final = f"/v1/tasks/{sample_id('task')}"
_FAULTS: Final[dict[str, tuple[str, str, list[Issue], Schema]]] = {
    "malformed-request": (
        "/v1/tasks", "Not JSON at line 1, column 10: Expecting value.",
        [Issue("malformed_json", "Not JSON at line 1, column 10: Expecting value.", pointer="")], {},
    ),
    "invalid-query": (
        "/v1/tasks", "A query parameter is not valid",
        [Issue("unknown_parameter", 'There is no filter or parameter "asignee". Did you mean "assignee"?',
               parameter="asignee")], {},
    ),
    "unauthenticated": ("/v1/tasks", "This API key does not exist or was revoked.", [], {}),
    "forbidden": ("/v1/tasks", "This key lacks the scope tasks:write. It has: tasks:read.", [], {}),
    "not-found": (_TASK, f"There is no task {sample_id('task')} that this key can see.", [], {}),
    "method-not-allowed": ("/v1/users/me", "/v1/users/me supports GET, HEAD, OPTIONS.", [], {}),
    "not-acceptable": ("/v1/tasks", "The server answers in JSON only", [], {}),
    "request-timeout": ("/v1/tasks", "The body did not arrive within 15 seconds.", [], {}),
    "conflict": (
        "/v1/tasks", "An id is in use already; nothing was written.",
        [Issue("id_in_use", f"A task with the id {sample_id('task')} exists already.", pointer="/id")], {},
    ),
    "gone": ("/v1/tasks", "The log no longer reaches back that far.", [], {}),
    "revert-conflict": (
        f"/v1/events/{sample_id('evt')}/revert",
        f"The task {sample_id('task')} stands in the way: its name was changed since.", [],
        {"conflicts": [{"resource": "task", "object_id": sample_id("task"), "member": "name",
                        "event_id": sample_id("evt"), "later_event_id": sample_id("evt")}]},
    ),
    "not-revertible": (
        f"/v1/events/{sample_id('evt')}/revert",
        f"The api_key.deleted of {sample_id('key')} cannot be undone: its secret is gone; create another one.", [],
        {"event_id": sample_id("evt")},
    ),
    "token-expired": ("/v1/sync", "This token is older than 30 days.", [], {}),
    "precondition-failed": (
        _TASK, "The task is at version 4 now.", [], {"current": {**schema.sample(tasks.TASK), "version": 4}},
    ),
    "body-too-large": ("/v1/tasks", "The body is over 1,024 KiB. Split the work into several requests.", [], {}),
    "unsupported-media-type": ("/v1/tasks", 'The Content-Type is "text/plain"; send application/json.', [], {}),
    "validation-failed": (
        "/v1/tasks", "The body has 2 faults; nothing was written.",
        [Issue("required", "name is required.", pointer="/name"),
         Issue("not_allowed", "priority must be one of none, low, medium, high, urgent. Did you mean \"high\"?",
               pointer="/priority")], {},
    ),
    "quota-exceeded": (
        "/v1/tasks", "The limit is 100 requests a minute; wait 3 s.", [], {"violated-policies": ["default"]},
    ),
    "internal": ("/v1/tasks", "Something went wrong on the server", [], {}),
    "outcome-unknown": ("/v1/tasks", "The write may or may not have been stored", [], {}),
    "query-too-expensive": ("/v1/tasks", "The query needs too much work", [], {}),
    "idempotency-key-in-use": (
        "/v1/tasks", "The first request with this Idempotency-Key is still under way", [], {},
    ),
    "idempotency-key-reused": ("/v1/tasks", "This Idempotency-Key was used for another request", [], {}),
    "position-not-reached": ("/v1/tasks", f"The position {sample_id('ws')}:123 was not reached within 5 s.", [], {}),
    "batch-failed": (
        "/v1/batch", f"Operation 1 (PUT /tasks/{sample_id('task')}) failed: There is no task {sample_id('task')} that"
        " this key can see.", [],
        {"pointer": "/operations/1", "operation": {"index": 1, "problem": NotFound(
            f"There is no task {sample_id('task')} that this key can see.").to_dict(_TASK, sample_id("req"))}},
    ),
    "too-many-streams": (
        "/v1/events/stream", "200 streams of this caller are open here; close one of them first.", [], {},
    ),
    "unavailable": ("/v1/tasks", "The server cannot answer right now", [], {}),
}  # fmt: skip


# ---- components ------------------------------------------------------------------------------------------------------

_SECRET: Final = f"tsk_{schema.SAMPLE_ID}_5oZ3mXk8Qp2Rt7Vw9Ya4Bc6De1Fg0Hj5Kl8Mn3Pq_2f6Xk1"


def _schemas() -> Schema:
    found: Schema = {}
    for resource in (*RESOURCES, identity.MEMBER):
        name = title(resource)
        found[name] = schema.received(resource)
        found[f"{name}Selection"] = schema.selection(resource)
        found[f"{name}Filter"] = schema.filter_document(resource)
        if resource is not identity.MEMBER:
            found[f"{name}Create"] = schema.creation(resource, _CREATE_EXTRA.get(name), **_CREATE_RULES.get(name, {}))
            found[f"{name}Update"] = schema.update(resource)
            found[f"{name}Query"] = _query_schema(resource)
    found |= _key_schemas() | _member_schemas() | _task_schemas()
    found |= schema.conditions([*RESOURCES, identity.MEMBER]) | event_schema.schemas() | webhook_schema.schemas()
    found |= audit_schema.schemas() | sync_schema.schemas() | undo_schema.schemas()
    return found | _batch_schemas() | _problem_schemas()


_USER_REFERENCE: Final[Schema] = {
    "type": "string", "minLength": 1, "maxLength": 320, "examples": ["ana"],
    "description": "A user's id, handle or e-mail.",
}  # fmt: skip
_CREATE_EXTRA: Final[dict[str, Schema]] = {
    "Webhook": webhook_schema.CREATE_EXTRA,
    "Project": {
        "members": {
            "type": ["array", "null"],
            "maxItems": projects.MAX_MEMBERS,
            "items": {
                "anyOf": [
                    _USER_REFERENCE,
                    closed(
                        {
                            "user": _USER_REFERENCE,
                            "role": {"type": "string", "enum": list(access.PROJECT_ROLES), "default": "editor",
                                     "description": "What the member may do in the project."},
                        },
                        required=["user"],
                    ),
                ]
            },
            "description": "Explicit members, who must be members of the workspace.",
        }
    },
    "User": {
        "role": {"type": "string", "enum": list(access.WORKSPACE_ROLES), "default": "member",
                 "description": "The user's role in the workspace."}
    },
}  # fmt: skip
_CREATE_RULES: Final[dict[str, Schema]] = {
    "User": {
        "anyOf": [
            {"properties": {"email": {"type": "string"}}, "required": ["email"]},
            {"properties": {"kind": {"const": "service"}}, "required": ["kind"]},
        ]
    },
}


def _query_schema(resource: Resource) -> Schema:
    words = {"description": "Names, separated by commas or as a list."}
    properties: Schema = {
        "filter": {**ref(f"{title(resource)}Filter"), "description": "Which ones."},
        "sort": {**_names(_sort_pattern(resource), query.MAX_SORT_KEYS), **words, "examples": ["-created_at"]},
        "limit": _LIMIT,
        "cursor": {"type": ["string", "null"], "description": "The cursor of the page before, or null for the first."},
        "fields": {**_names(_one_of(schema.field_names(resource))), **words, "examples": [["id", "version"]]},
        "count": {"type": "boolean", "default": False, "description": "Whether Total-Count says how many there are."},
    }
    if resource.relations:
        includes = _one_of(schema.include_names(resource))
        properties["include"] = {**_names(includes, query.MAX_INCLUDES), **words,
                                 "examples": [[resource.relations[0].name]]}  # fmt: skip
    if resource.search:
        properties["q"] = {"type": "string", "description": f"Words to find in {' and '.join(resource.search)}."}
    if resource.trash:
        properties["deleted"] = {"type": "boolean", "default": False, "description": "Whether to list the trash."}
    return closed(properties, description=f"Which {resource.plural} to list, and how.")


def _sort_pattern(resource: Resource) -> str:
    key = CUSTOM_KEY.replace("[^", "[^,")  # keys with a comma cannot stand in a list of names
    custom = [rf"custom_fields\.{key}"] if "custom_fields" in resource.fields else []
    return f"-?({'|'.join([*schema.sort_names(resource), *custom])})"


def _one_of(names: list[str]) -> str:
    return f"({'|'.join(name.replace('.', chr(92) + '.') for name in names)})"


def _names(pattern: str, most: int | None = None) -> Schema:
    """One name, several separated by commas, or a list."""
    repeat = "*" if most is None else f"{{0,{most - 1}}}"
    several: Schema = {"type": "array", "items": {"type": "string", "pattern": f"^{pattern}$"}}
    return {
        "anyOf": [
            {"type": "string", "pattern": f"^{pattern}(,{pattern}){repeat}$"},
            several if most is None else {**several, "maxItems": most},
        ]
    }


def _key_schemas() -> Schema:
    secret = {"type": "string", "description": "The credential itself, which no other answer holds.", "readOnly": True,
              "examples": [_SECRET]}  # fmt: skip
    whole = schema.received(identity.API_KEY, {"secret": secret})
    return {"ApiKeyCreated": {**whole, "description": "A new API key with its secret.",
                              "examples": [{**schema.sample(identity.API_KEY), "secret": _SECRET}]}}  # fmt: skip


def _member_schemas() -> Schema:
    found: Schema = {}
    ignored = {
        member.name: schema.ignored(member)
        for member in identity.MEMBER.fields.values()
        if member.name not in ("user", "role")
    }
    for owner, roles, default in (
        ("Workspace", access.WORKSPACE_ROLES, "member"),
        ("Project", access.PROJECT_ROLES, "editor"),
    ):
        role = {"type": "string", "enum": list(roles), "description": "The role.", "examples": [default]}
        found[f"{owner}MemberCreate"] = closed(
            {"user": _USER_REFERENCE, "role": {**role, "default": default}, **ignored},
            required=["user"], description=f"A user and the role in the {owner.lower()}.",
        )  # fmt: skip
        user = {"description": "Named by the path; ignored in the body.", "readOnly": True}
        found[f"{owner}MemberUpdate"] = closed(
            {"role": role, "user": user, **ignored}, required=["role"], description="The new role."
        )
    return found


def _task_schemas() -> Schema:
    task_id, project_id = schema.id_schema("task"), schema.id_schema("project")
    chosen = {
        "ids": {"type": "array", "items": task_id, "minItems": 1, "maxItems": tasks.MAX_BULK,
                "description": "The tasks by id."},
        "filter": {**ref("TaskFilter"), "minProperties": 1, "description": "The tasks that satisfy a filter."},
    }  # fmt: skip
    either = {"oneOf": [{"required": ["ids"]}, {"required": ["filter"]}]}
    return {
        "TaskMove": closed(
            {
                "project_id": {**or_null(project_id), "description": "The project to move to; null: stay."},
                "parent_id": {**or_null(task_id), "description": "The parent to move below; null: the top."},
                "before": {**task_id, "description": "The task to stand before."},
                "after": {**task_id, "description": "The task to stand after."},
            },
            minProperties=1,
            description="Where a task shall go; give `before` or `after`, not both.",
            **{"not": {"required": ["before", "after"]}},
        ),
        "TaskBulkCreate": closed(
            {
                "tasks": {"type": "array", "items": ref("TaskCreate"), "minItems": 1, "maxItems": tasks.MAX_BULK,
                          "description": "The tasks to create."},
                "project_id": {**or_null(project_id), "description": "The project of tasks that name none."},
            },
            required=["tasks"], description="Tasks to create together.",
        ),
        "TaskBulkUpdate": closed(
            {**chosen, "set": {**ref("TaskUpdate"), "description": "The merge patch for each of them."}},
            required=["set"], description="Which tasks to change, and how.", **either,
        ),
        "TaskBulkDelete": closed(chosen, description="Which tasks to move to the trash.", **either),
    }  # fmt: skip


_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "QUERY")


def _batch_schemas() -> Schema:
    operation = closed(
        {
            "id": {"type": ["string", "null"], "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$", "examples": ["project"],
                   "description": "A name for references to the result."},
            "method": {"type": "string", "enum": [*_METHODS, *map(str.lower, _METHODS)], "examples": ["POST"],
                       "description": "The method."},
            "path": {"type": "string", "pattern": "^/", "examples": ["/tasks"],
                     "description": "The path and parameters, below /v1 or with it; may hold references."},
            "body": {"description": "The body, if the operation takes one; may hold references."},
            "if_match": {"type": ["string", "integer", "null"], "examples": [3],
                         "description": "The version that the object must have."},
        },
        required=["method", "path"], description="One operation.",
    )  # fmt: skip
    result = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The operation's id, if it has one."},
            "status": {"type": "integer", "description": "Its HTTP status."},
            "headers": {"type": "object", "additionalProperties": {"type": "string"},
                        "description": "ETag, Location, Link and Total-Count, as far as there are any."},
            "body": {"description": "What it would have answered alone; null for none."},
        },
        "required": ["status", "headers", "body"],
    }  # fmt: skip
    step = closed(
        {
            "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"],
                   "description": "What to do."},
            "path": {"type": "string", "description": "JSON Pointer (RFC 6901) to the place."},
            "from": {"type": "string", "description": "Where `move` and `copy` take the value from."},
            "value": {"description": "The value of `add`, `replace` and `test`."},
        },
        required=["op", "path"], description="One step.",
    )  # fmt: skip
    return {
        "Batch": closed(
            {"operations": {"type": "array", "items": operation, "minItems": 1, "maxItems": batch.MAX_OPERATIONS,
                            "description": "What to do, in order."}},
            required=["operations"], description="Operations that take effect together or not at all.",
        ),
        "BatchResults": {
            "type": "object", "required": ["results"], "description": "One result for each operation, in order.",
            "properties": {"results": {"type": "array", "items": result, "description": "The results."}},
        },
        "JsonPatch": {"type": "array", "items": step, "maxItems": patching.MAX_OPERATIONS,
                      "description": "A JSON Patch (RFC 6902): steps that take effect together or not at all."},
    }  # fmt: skip


def _problem_schemas() -> Schema:
    issue = {
        "pointer": {"type": "string", "description": "JSON Pointer (RFC 6901) to the place in the body."},
        "parameter": {"type": "string", "description": "The query parameter."},
        "code": {"type": "string", "pattern": "^[a-z0-9_]+$", "description": "A stable word for the kind of fault."},
        "detail": {"type": "string", "description": "What is wrong and what is allowed."},
    }
    codes = [cls.code for cls in problem_classes()]
    statuses = sorted({cls.status for cls in problem_classes()})
    request_id = {"type": "string", "pattern": ids.pattern("req"), "examples": [sample_id("req")]}
    problem = {
        "type": {"type": "string", "format": "uri-reference", "description": "A page about this kind of error."},
        "title": {"type": "string", "description": "The kind of error in words; the same for all of its code."},
        "status": {"type": "integer", "enum": statuses, "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened this time and what to do."},
        "instance": {"type": "string", "description": "The path of the request."},
        "code": {"type": "string", "enum": codes, "description": "The kind of error, stable."},
        "request_id": {**request_id, "description": "Quote this to the operator; it is in the server's log."},
        "errors": {"type": "array", "items": ref("Issue"), "minItems": 1,
                   "description": "Every fault, with its place."},
        "pointer": {"type": "string", "description": "With batch-failed: the operation that failed."},
        "operation": {"type": "object", "description": "With batch-failed: its index, id and problem."},
        "current": {"type": "object", "description": "With 412: the resource as it is now."},
        "first_seq": {"type": "integer", "description": "With 410: where the log begins by now."},
        "seq": {"type": "integer", "description": "With 410: where the log ends; go on behind it."},
        "conflicts": {"type": "array", "items": {"type": "object"},
                      "description": "With revert-conflict: the objects and members that others changed since."},
        "event_id": {"type": "string", "description": "With not-revertible: the event."},
        "violated-policies": {"type": "array", "items": {"type": "string"},
                              "description": "With 429: the names of the limits that were reached."},
    }  # fmt: skip
    required = ["type", "title", "status", "detail", "instance", "code", "request_id"]
    return {
        "StreamTicket": {
            "type": "object", "required": ["ticket", "expires_at"], "description": "A ticket for a browser's stream.",
            "properties": {
                "ticket": {"type": "string", "description": "The ticket."},
                "expires_at": {**schema.TIME, "description": "Until when it opens streams."},
            },
        },
        "Problem": {"type": "object", "properties": problem, "required": required,
                    "description": "An error (RFC 9457, `application/problem+json`)."},
        "Issue": {"type": "object", "properties": issue, "required": ["code", "detail"],
                  "oneOf": [{"required": ["pointer"]}, {"required": ["parameter"]}],
                  "description": "One fault of a request."},
    }  # fmt: skip


_LIMIT: Final[Schema] = {
    "type": "integer", "minimum": 1, "maximum": query.MAX_LIMIT, "default": query.DEFAULT_LIMIT,
    "description": "How many to return at most.",
}  # fmt: skip


def _parameters() -> Schema:
    found: Schema = {}
    for resource in RESOURCES:
        found[f"{title(resource)}Id"] = {
            "name": "id", "in": "path", "required": True, "schema": schema.id_schema(resource.name),
            "description": f"The id of the {_noun(resource)}.", "example": sample_id(resource.prefix),
        }  # fmt: skip
    found["Member"] = {"name": "user", "in": "path", "required": True, "example": "ana",
                       "schema": {**_USER_REFERENCE, "pattern": "^[^/]+$"},
                       "description": "The member: a user's id, handle or e-mail."}  # fmt: skip
    for resource in (*RESOURCES, identity.MEMBER):
        found |= _list_parameters(resource)
    found |= audit_schema.parameters() | sync_schema.parameters()
    return found | _COMMON_PARAMETERS | _DELIVERY_PARAMETERS | webhook_schema.PARAMETERS | _event_parameters()


def _list_parameters(resource: Resource) -> Schema:
    name, style = title(resource), {"in": "query", "style": "form", "explode": False}
    sort: Schema = {"type": "array", "maxItems": query.MAX_SORT_KEYS,
                    "items": {"type": "string", "pattern": f"^{_sort_pattern(resource)}$"}}  # fmt: skip
    custom = " or `custom_fields.<key>`" if "custom_fields" in resource.fields else ""
    found = {
        f"{name}Sort": {
            "name": "sort", **style, "schema": sort, "example": ["-created_at"],
            "description": f"Sort keys, `-` for descending: {', '.join(schema.sort_names(resource))}{custom}."
            " Nulls come last.",
        },
        f"{name}Fields": {
            "name": "fields", **style, "example": ["id", "version"], "description": "Return only these members.",
            "schema": {"type": "array", "items": {"type": "string", "enum": schema.field_names(resource)}},
        },
    }  # fmt: skip
    if resource.relations:
        includes = {"type": "string", "enum": schema.include_names(resource)}
        found[f"{name}Include"] = {
            "name": "include", **style, "example": [resource.relations[0].name],
            "schema": {"type": "array", "items": includes, "maxItems": query.MAX_INCLUDES},
            "description": "Expand references in place, or add what belongs to it; one dot goes a level deeper.",
        }  # fmt: skip
    return found


_CHOOSING: Final = ("EventTypes", "EventWorkspace", "EventProject", "EventObject", "EventFilter")
_OWN_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    **audit_schema.OF,
    "events.list": ("EventsAfter", "EventsBefore", "EventsOrder", "Limit", "EventsWait", *_CHOOSING),
    "events.get": ("EventId",),
    "events.stream": ("StreamAfter", "LastEventId", "StreamSeconds", "StreamTicket", *_CHOOSING),
    "stream-tickets.create": (),
    "sync": sync_schema.PARAMETERS,
}


def _event_parameters() -> Schema:
    groups = sorted({f"{name.partition('.')[0]}.*" for name in events.catalogue()})
    position: Schema = {"type": "string", "pattern": f"^({ids.pattern('ws')[1:-1]}:)?[0-9]{{1,17}}$"}
    patterns: Schema = {"type": "array", "items": {"type": "string", "enum": ["*", *groups, *events.catalogue()]}}
    anything: Schema = {"type": "object", "description": "A filter as the list of that resource takes it."}
    rows: list[tuple[str, str, str, Schema, str, Any]] = [
        ("EventsAfter", "query", "after", {"anyOf": [{"const": "latest"}, position]},
         "Only events behind this `seq`, or `latest`: what comes from now on. A `Commit-Seq` will do.", "123"),
        ("StreamAfter", "query", "after", position, "Begin behind this `seq`; without it, from now on.", "123"),
        ("EventsBefore", "query", "before", position, "Only events before this `seq`, the newest first.", "123"),
        ("EventsOrder", "query", "order", {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
         "`desc`: the newest first.", "desc"),
        ("EventsWait", "query", "wait", {"type": "integer", "minimum": 0, "maximum": live_events.MAX_WAIT,
                                         "default": 0},
         "Wait for something to tell for so many seconds.", 0),
        ("StreamSeconds", "query", "seconds", {"type": "integer", "minimum": 1, "maximum": live_events.MAX_SECONDS},
         "End the stream after so many seconds.", 60),
        ("StreamTicket", "query", "ticket", {"type": "string"},
         "A ticket of `POST /stream-tickets` instead of the header Authorization.", None),
        ("LastEventId", "header", "Last-Event-ID", position, "The `id` that came last; stands above `after`.", "123"),
        ("EventTypes", "query", "types", patterns, "Types of events, also by pattern: `task.*`.", ["task.*"]),
        ("EventWorkspace", "query", "workspace_id", schema.id_schema("workspace"),
         "The workspace; the caller's default workspace unless given.", sample_id("ws")),
        ("EventProject", "query", "project_id", schema.id_schema("project"),
         "Only events in this project.", sample_id("proj")),
        ("EventObject", "query", "object_id", {"type": "string"}, "Only events of this object.", sample_id("task")),
    ]  # fmt: skip
    found: Schema = {}
    for key, place, name, form, text, example in rows:
        found[key] = {"name": name, "in": place, "schema": form, "description": text}
        found[key] |= {} if example is None else {"example": example}
    found["EventTypes"] |= {"style": "form", "explode": False}
    found["EventFilter"] = {
        "name": "filter", "in": "query", "content": {JSON: {"schema": anything}},
        "description": "Conditions for `data` as one JSON document; `types` then names one resource.", "x-filter": True,
    }  # fmt: skip
    found["EventId"] = {
        "name": "id", "in": "path", "required": True, "example": sample_id("evt"),
        "schema": {"type": "string", "pattern": ids.pattern("evt")}, "description": "The id of the event.",
    }  # fmt: skip
    return found


_COMMON_PARAMETERS: Final[Schema] = {
    "Limit": {"name": "limit", "in": "query", "schema": _LIMIT, "example": 50,
              "description": "How many to return at most."},
    "Cursor": {"name": "cursor", "in": "query", "schema": {"type": "string", "minLength": 1},
               "description": "Where the page before ended; `Link` holds the whole address of the next page."},
    "Count": {"name": "count", "in": "query", "schema": {"type": "boolean", "default": False},
              "description": "Whether `Total-Count` says how many there are on all pages together."},
    "Search": {"name": "q", "in": "query", "schema": {"type": "string"}, "example": "mock",
               "description": "Full-text search: every word must begin some word of the object."},
    "Deleted": {"name": "deleted", "in": "query", "schema": {"type": "boolean", "default": False},
                "description": "Whether to list the trash instead."},
    "IfMatch": {"name": "If-Match", "in": "header", "schema": {"type": "string"}, "example": '"3"',
                "description": "Write only if this ETag (or one of several) is the present one; otherwise 412."},
    "IfNoneMatch": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"},
                    "example": '"2"',
                    "description": "Answer 304 without a body if this ETag (or one of several) is the present one."},
    "AsOf": {"name": "as_of", "in": "query", "schema": {"type": "string", "minLength": 1}, "example": "now",
             "description": "Read the object as it was: after the event with this `seq` (a `Commit-Seq` will do), or at"
             " a time, a date or a while ago such as `-2h`. Not with `include`."},
    "DryRun": {"name": "dry_run", "in": "query", "schema": {"type": "boolean", "default": False},
               "description": "Answer what the write would have answered, and write nothing."},
    "IdempotencyKey": {"name": "Idempotency-Key", "in": "header", "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
                       "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                       "description": "Makes the write safe to repeat: sent again with the same key within 24 hours,"
                       " it has no second effect and gets the first answer."},
    "Prefer": {"name": "Prefer", "in": "header", "example": "return=representation",
               "schema": {"type": "string"},
               "description": "`return=minimal` asks for an answer without a body (RFC 7240); what is not known is"
                              " ignored."},
    "MinSeq": {"name": "min_seq", "in": "query", "schema": {"type": "string"},
               "description": "The `Commit-Seq` of a write that the answer must show; waits for it if need be."},
    "UnlessMatch": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}, "example": '"2"',
                    "description": "Write only if none of these ETags is the present one; otherwise 412."},
}  # fmt: skip

_DELIVERY_PARAMETERS: Final[Schema] = {
    "DeliveredId": {"name": "webhook-id", "in": "header", "required": True, "example": sample_id("evt"),
                  "schema": {"type": "string", "pattern": r"^[^.\s]+$"},
                  "description": "The id of the event, the same in each attempt: remember it to do nothing twice."},
    "DeliveredTimestamp": {"name": "webhook-timestamp", "in": "header", "required": True, "example": "1705393200",
                         "schema": {"type": "string", "pattern": "^[0-9]+$"},
                         "description": "When this attempt was made, in seconds since 1970: refuse it after five"
                         " minutes."},
    "DeliveredSignature": {"name": "webhook-signature", "in": "header", "required": True,
                         "example": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                         "schema": {"type": "string", "pattern": "^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$"},
                         "description": "Signatures of `{webhook-id}.{webhook-timestamp}.{body}` (Standard Webhooks),"
                         " separated by spaces; one of them has to fit."},
    "TaskadeEvent": {"name": "x-taskade-event", "in": "header", "required": True, "example": "task.completed",
                     "schema": {"type": "string"}, "description": "The type of the event."},
    "TaskadeDelivery": {"name": "x-taskade-delivery", "in": "header", "required": True, "example": sample_id("dlv"),
                        "schema": {"type": "string", "pattern": ids.pattern("dlv")},
                        "description": "The delivery, as `GET /webhooks/{id}/deliveries` names it."},
    "TaskadeSignature": {"name": "x-taskade-signature", "in": "header", "required": True,
                         "example": f"sha256={'0f' * 32}",
                         "schema": {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"},
                         "description": "HMAC-SHA256 of the body alone, for receivers that have nothing else."},
}  # fmt: skip

_HEADER_NAMES: Final = {"ListETag": "ETag", "RetryInUse": "Retry-After"}
_WRITTEN: Final = ("Commit-Seq", "Idempotent-Replayed", "Preference-Applied", "Dry-Run")
_EVERYWHERE: Final = (
    "X-Request-Id", "RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip
_HEADERS: Final[Schema] = {
    "X-Request-Id": {"required": True, "schema": {"type": "string", "pattern": ids.pattern("req")},
                     "description": "The id of the request in the server's log.", "example": sample_id("req")},
    "ETag": {"required": True, "schema": {"type": "string", "pattern": '^"[0-9]+(-[0-9a-f]+)?"$'}, "example": '"3"',
             "description": "The version, for If-Match and If-None-Match; with includes or fields it has a suffix."},
    "Location": {"required": True, "schema": {"type": "string", "format": "uri-reference"},
                 "description": "The address of what was created.", "example": _TASK},
    "Link": {"schema": {"type": "string"}, "description": "The address of the next page, if there is one (RFC 8288).",
             "example": '<http://127.0.0.1:8000/v1/tasks?limit=50&cursor=AbC...>; rel="next"'},
    "Next-After": {"schema": {"type": "integer", "minimum": 0}, "example": 123,
                   "description": "The `after` to go on with: so far the log was looked through. Absent in `desc`."},
    "X-Accel-Buffering": {"schema": {"type": "string"}, "example": "no",
                          "description": "That a proxy is to pass on each piece at once."},
    "Content-Disposition": {"schema": {"type": "string"}, "description": "A name for the file.",
                            "example": 'attachment; filename="audit.jsonl"'},
    "Cache-Control": {"schema": {"type": "string"}, "example": "no-store",
                      "description": "That the answer is not to be kept."},
    "Total-Count": {"schema": {"type": "integer", "minimum": 0}, "example": 1234,
                    "description": "How many there are on all pages together; only with `count=true`."},
    "Commit-Seq": {"schema": {"type": "string", "pattern": r"^ws_[0-9a-z]{26}:[0-9]+(, ws_[0-9a-z]{26}:[0-9]+)*$"},
                   "description": "The workspace and its log position after the write; absent if nothing changed.",
                   "example": f"{sample_id('ws')}:123"},
    "ListETag": {"schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'}, "example": 'W/"5f2d9c1e0a7b4c3d2e1f0a9b"',
                 "description": "Changes with every change that the caller can see; for If-None-Match."},
    "Idempotent-Replayed": {"schema": {"type": "string", "const": "true"}, "example": "true",
                            "description": "This is the answer of an earlier request with the same key."},
    "Preference-Applied": {"schema": {"type": "string"}, "example": "return=minimal",
                           "description": "Which preference was followed (RFC 7240)."},
    "Dry-Run": {"schema": {"type": "string", "const": "true"}, "example": "true",
                "description": "Nothing was written: the request was a dry run."},
    "Allow": {"required": True, "schema": {"type": "string"}, "description": "The methods that the path supports.",
              "example": "GET, HEAD, OPTIONS"},
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}, "example": 'Bearer realm="taskade"',
                         "description": "How to authenticate (RFC 6750)."},
    "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}, "example": 3,
                    "description": "The seconds to wait; a request sent then succeeds."},
    "RetryInUse": {"schema": {"type": "integer", "minimum": 1}, "example": 1,
                   "description": "With idempotency-key-in-use: the seconds to wait."},
    "RateLimit-Policy": {"schema": {"type": "string"}, "example": '"default";q=100;w=60',
                         "description": "The limits that apply (draft-ietf-httpapi-ratelimit-headers)."},
    "RateLimit": {"schema": {"type": "string"}, "example": '"default";r=42;t=17',
                  "description": "What is left of the limits."},
    "X-RateLimit-Limit": {"schema": {"type": "integer", "minimum": 1}, "example": 100,
                          "description": "Requests that may be made at once."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer", "minimum": 0}, "example": 42,
                              "description": "Requests that are left now."},
    "X-RateLimit-Reset": {"schema": {"type": "integer", "minimum": 0}, "example": 17,
                          "description": "Seconds until all are available again."},
}  # fmt: skip


# ---- examples of bodies ----------------------------------------------------------------------------------------------

_PROJECT_ID: Final = sample_id("proj")
_PAGE: Final = {"first": ("The newest ten", {"sort": "-created_at", "limit": 10})}
_RENAME: Final = {"rename": ("Change one member", {"name": "A better name"})}
_BATCH_RESULTS: Final = {
    "results": [
        {"id": "project", "status": 201, "headers": {"ETag": '"1"', "Location": f"/v1/projects/{_PROJECT_ID}"},
         "body": schema.sample(projects.PROJECT)},
        {"status": 204, "headers": {}, "body": None},
    ]
}  # fmt: skip
_SOME_EVENT: Final = event_schema.sample(events.catalogue()["task.completed"])
_SOME_STREAM: Final = (
    f'id: 122\nevent: ready\ndata: {{"workspace_id":"{sample_id("ws")}","seq":122}}\n\n'
    f"id: 123\nevent: task.completed\ndata: {json.dumps(_SOME_EVENT, separators=(',', ':'))}\n\n"
)
_SOME_TYPES: Final = [event_schema.listed(events.catalogue()["task.completed"])]
_EXAMPLES: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    **undo_schema.EXAMPLES,
    "webhooks.create": {
        "tasks": ("What happens to tasks", {
            "url": "https://your-app.com/webhook/task-updated",
            "events": ["task.created", "task.updated", "task.completed"], "secret": "your_webhook_secret",
        }),
        "urgent": ("Urgent work in one project", {
            "url": "https://example.com/urgent", "events": ["task.*"], "project_id": _PROJECT_ID,
            "filter": {"priority": {"$in": ["high", "urgent"]}},
        }),
    },
    "webhooks.patch": {"pause": ("Send nothing for now", {"enabled": False})},
    "webhooks.query": {"failing": ("Those the server has disabled", {"filter": {"disabled_at": {"$exists": True}}})},
    "webhooks.recover": {"day": ("What has failed since midnight", {"since": "2024-01-15T00:00:00Z"})},
    "webhooks.replay": {
        "gap": ("Close a gap that was noticed", {"after_seq": 41, "to_seq": 57}),
        "missing": ("What happened before it was made", {"from": "2024-01-01T00:00:00Z", "missing_only": True,
                                                         "events": ["task.created"]}),
    },
    "webhooks.rotate_secret": {"week": ("Keep the old one for a week", {"overlap_hours": 168})},
    "batch": {
        "mixed": ("Change, create and delete", {"operations": [
            {"method": "PUT", "path": f"/tasks/{sample_id('task')}", "body": {"status": "completed"}},
            {"method": "POST", "path": "/tasks", "body": {"name": "Follow-up task", "project_id": _PROJECT_ID}},
            {"method": "DELETE", "path": f"/tasks/{sample_id('task')}"},
        ]}),
        "references": ("A project and a task in it", {"operations": [
            {"id": "project", "method": "POST", "path": "/projects", "body": {"name": "Launch"}},
            {"method": "POST", "path": "/tasks", "body": {"name": "Kick-off", "project_id": {"$ref": "project.id"}}},
            {"method": "POST", "path": "/projects/{project.id}/archive"},
        ]}),
    },
    "workspaces.create": {"workspace": ("A workspace", {"name": "Product team", "settings": {"theme": "dark"}})},
    "workspaces.patch": {"settings": ("Settings merge", {"settings": {"notifications": True}})},
    "workspaces.query": _PAGE,
    "workspaces.member": {"member": ("By handle", {"user": "ana", "role": "admin"})},
    "workspaces.member_role": {"role": ("A role", {"role": "member"})},
    "projects.create": {
        "board": ("A board", {"name": "Customer Onboarding", "type": "board", "due_date": "2024-02-01"}),
        "template": ("From a template", {"name": "Customer Onboarding", "template_id": sample_id("tmpl")}),
    },
    "projects.patch": {"dates": ("Set a date, clear another", {"due_date": "2024-02-01", "start_date": None})},
    "projects.query": {"active": ("Active boards", {"filter": {"type": "board", "archived_at": {"$exists": False}}})},
    "projects.member": {"member": ("By e-mail", {"user": "ana@example.com", "role": "viewer"})},
    "projects.member_role": {"role": ("A role", {"role": "commenter"})},
    "tasks.create": {
        "short": ("A name is enough", {"name": "API Test Task"}),
        "full": ("With details", {
            "name": "Design mockups", "project_id": _PROJECT_ID, "assignee": "ana", "priority": "high",
            "labels": ["client-work"], "due_date": "2024-01-31", "custom_fields": {"estimated_hours": 8},
        }),
    },
    "tasks.patch": {
        "status": ("Complete it by its status", {"status": "completed"}),
        "custom": ("Custom fields merge", {"custom_fields": {"difficulty": "medium", "estimated_hours": None}}),
    },
    "tasks.query": {
        "due": ("What is due soon and matters", {
            "filter": {"$or": [{"priority": {"$in": ["high", "urgent"]}}, {"due_date": {"$lte": "+7d"}}]},
            "sort": ["-due_date", "name"], "include": ["assignee", "project"], "limit": 50,
        }),
        "search": ("By words", {"q": "mock", "count": True}),
    },
    "tasks.bulk_create": {"three": ("Three tasks of a project", {
        "project_id": _PROJECT_ID,
        "tasks": [{"name": "Design mockups"}, {"name": "Write documentation"}, {"name": "Code review"}],
    })},
    "tasks.bulk_update": {
        "ids": ("By id", {"ids": [sample_id("task")], "set": {"priority": "high"}}),
        "filter": ("By filter", {"filter": {"labels": "stale"}, "set": {"status": "completed"}}),
    },
    "tasks.bulk_delete": {"ids": ("By id", {"ids": [sample_id("task")]})},
    "tasks.move": {
        "project": ("To another project", {"project_id": _PROJECT_ID}),
        "top": ("Out of its parent", {"parent_id": None}),
    },
    "comments.create": {"comment": ("A comment", {"task_id": sample_id("task"), "body": "Looks good to me."})},
    "comments.patch": {"body": ("Another text", {"body": "Looks *very* good to me."})},
    "comments.query": _PAGE,
    "templates.create": {"template": ("Two tasks", {
        "name": "Customer onboarding", "project": {"type": "board"},
        "tasks": [{"name": "Kick-off call", "due_in_days": 3}, {"name": "Training", "due_in_days": 14}],
    })},
    "templates.patch": _RENAME,
    "templates.query": _PAGE,
    "users.create": {"person": ("Invite a person", {"name": "Ana Lima", "email": "ana@example.com", "handle": "ana"})},
    "users.patch": _RENAME,
    "users.query": {"people": ("People by name", {"filter": {"kind": "person"}, "sort": "name"})},
    "api-keys.create": {"reader": ("A key that can only read", {"name": "Dashboard", "scopes": ["tasks:read"]})},
    "api-keys.patch": {"limit": ("Narrow it", {"scopes": ["tasks:read"], "rate_limit": 60})},
    "api-keys.query": _PAGE,
}  # fmt: skip
