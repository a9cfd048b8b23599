"""The OpenAPI document, assembled from the routes and the resource declarations.

SDKs, the command line, the explorer and the tests all read it, so it has to say exactly what the server does; a test
compares it with every answer. What an operation says about itself is the `Document` of its route.
"""

import json
from functools import cache
from typing import Final

from taskade_server import __version__
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine.schema import Schema, ref, title
from taskade_server.http.api.route import Route
from taskade_server.http.documents.headers import HEADERS, JSON
from taskade_server.http.documents.parameters import operation_parameters, shared_parameters
from taskade_server.http.documents.responses import operation_responses, shared_responses
from taskade_server.http.documents.schemas import shared_schemas
from taskade_server.http.documents.webhooks import DELIVERY_PARAMETERS, webhooks
from taskade_server.http.routes import all_routes

ABOUT: Final = """\
Workspaces hold projects, and projects hold tasks. Everything is JSON in UTF-8 with names in snake_case. Times are RFC
3339 in UTC with milliseconds, dates are `YYYY-MM-DD`.

**Credentials.** Send `Authorization: Bearer <API key>`. Each operation names the scope that the key needs.

**Nothing is ignored.** An unknown member, parameter, operator, include, sort key or reference is an error that names
it and says what is allowed. A body that changes an object may hold its read-only members as they were read, so that a
client can send the whole object back; a body that creates one may hold null for them.

**Lists** are plain arrays. `Link: <...>; rel="next"` is the address of the next page; `limit` is 100 by default and at
most 1000. Filter with `field=value`, with `field=a&field=b` for any of several values, and with `field[$op]=value` for
the operators `$eq $ne $gt $gte $lt $lte $in $nin $contains $prefix $exists`. `$or[0][status]=...`, `$and` and `$not`
group conditions; `custom_fields.key=value` and `custom_fields[key][$gte]=value` filter by custom fields. `filter={...}`
takes all of this as one JSON document. The method QUERY takes the document as its body, and so does `POST .../query`
for clients that cannot send QUERY: OpenAPI 3.1 has no place for that method, so it is under `x-query` of its path.
A URL of more than 64 KiB is answered with 414 and no body; a query document may be larger.

**Changes.** PATCH and PUT are the same, a JSON merge patch: what is left out stays as it is, null clears, objects
merge. `ETag` is the version of a resource; with `If-Match`, a write fails with 412 if somebody else was faster.

**Repeating.** With `Idempotency-Key: <anything unique>`, a write can be sent again: it takes effect once and gets the
same response each time. `?dry_run=true` shows what a write would answer, without writing. `POST /batch` runs up to
1,000 operations in one transaction. The `Commit-Seq` of a write is the `min_seq` of a read that must see it.

**Headers of every response.** `X-Request-Id` names the request in the server's log. `RateLimit-Policy` and `RateLimit`
have the limits and what is left of them, and so do `X-RateLimit-Limit`, `X-RateLimit-Remaining` and
`X-RateLimit-Reset`. The operations below do not repeat them.

**Errors** are problem documents (RFC 9457, `application/problem+json`). Their `code` is stable, and `errors` names
every fault and its place.
"""
_TAGS: Final = {
    "Batch": "Several operations in one request.",
    "Event types": "What can happen, and what webhooks are sent.",
    "Events": "What has happened, and what is happening now.",
    "Sync": "For clients that work offline.",
    "Audit": "Who did what, when and from where, and what was refused.",
    "Stream tickets": "Short-lived credentials for streams in browsers.",
}


@cache
def render(*, pretty: bool = False) -> str:
    """The document as JSON text: without spaces, as the server sends it, or indented for people."""
    if pretty:
        return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    return json.dumps(document(), separators=(",", ":"), ensure_ascii=False)


def document() -> Schema:
    """The document."""
    routes = all_routes()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Taskade API",
            "version": __version__,
            "summary": "Workspaces, projects and tasks for programs.",
            "description": ABOUT,
            "contact": {"name": "The people who run this server"},
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
            *({"name": name, "description": text} for name, text in _TAGS.items()),
        ],
        "paths": _paths(routes),
        "webhooks": webhooks(),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. `taskade keys create --name NAME` or `POST /api-keys` creates one.",
                }
            },
            "schemas": shared_schemas(routes),
            "parameters": shared_parameters(routes) | DELIVERY_PARAMETERS,
            "headers": HEADERS,
            "responses": shared_responses(),
        },
    }


def _paths(routes: list[Route]) -> Schema:
    paths: Schema = {}
    for route in routes:
        if route.method == "QUERY":
            paths.setdefault(route.path, {})["x-query"] = {
                "operationId": route.operation_id,
                "summary": route.summary,
                "description": f"Everything but the method is as in `POST {route.path}/query`. {_needs(route)}",
            }
        else:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, routes)
    return dict(sorted(paths.items()))


def _operation(route: Route, routes: list[Route]) -> Schema:
    operation: Schema = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": _description(route),
        "tags": [_tag(route.path.split("/")[1])],
        "parameters": operation_parameters(route),
    }
    body = _body(route)
    if body is not None:
        operation["requestBody"] = body
    operation["responses"] = operation_responses(route, routes)
    operation["x-required-scope"] = route.scope or None
    operation["x-batchable"] = route.batchable
    return operation


def _tag(plural: str) -> str:
    return plural.replace("-", " ").capitalize().replace("Api", "API")


def _description(route: Route) -> str:
    return f"{route.document.notes} {_needs(route)}".strip()


def _needs(route: Route) -> str:
    return f"Needs the scope `{route.scope}`." if route.scope else "Needs no scope."


def _body(route: Route) -> Schema | None:
    if route.body in ("", "empty"):
        return None
    media: Schema = {"schema": ref(route.document.body or _usual_body(route))}
    examples = route.document.examples
    if examples:
        media["examples"] = {name: {"summary": text, "value": value} for name, (text, value) in examples.items()}
    return {"required": route.document.body_required, "content": {JSON: media}}


def _usual_body(route: Route) -> str:
    """The schema of a body that all resources have."""
    return f"{title(route.about)}{ {'create': 'Create', 'patch': 'Update', 'query': 'Query'}[route.body] }"
