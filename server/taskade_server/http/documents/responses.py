"""Responses of operations in the OpenAPI document. What several operations answer alike is a component."""

from typing import Final

from taskade_server.domain.resources import RESOURCES
from taskade_server.engine.schema import Schema, ref, title
from taskade_server.http.api.route import Route
from taskade_server.http.documents.headers import JSON, WRITTEN, header_refs
from taskade_server.http.documents.problems import error_responses, problem_responses
from taskade_server.http.documents.webhooks import receiver_responses

_LISTED: Final = ("Link", "Total-Count")


def operation_responses(route: Route, routes: list[Route]) -> Schema:
    """What an operation can answer, by status."""
    found: dict[str, Schema] = {str(route.status): _success(route, routes)}
    if route.method == "GET" and route.document.cached:
        found["304"] = _component("NotModified" if route.answer == "one" else "ListNotModified")
    return {**dict(sorted(found.items())), **error_responses(route)}


def shared_responses() -> Schema:
    """The components."""
    unchanged = "Nothing has changed: `If-None-Match` has the current ETag."
    found: Schema = {
        "Deleted": {"description": "The object is deleted.", "headers": header_refs(*WRITTEN)},
        "NotModified": {"description": unchanged, "headers": header_refs("ETag")},
        "ListNotModified": {"description": unchanged, "headers": header_refs("ListETag")},
    }
    for resource in RESOURCES:
        name = title(resource)
        found[name] = _json(f"The {resource.noun}.", ref(name), "ETag")
        text = f"The {resource.noun} after the change."
        found[f"{name}Changed"] = _json(text, ref(name), "ETag", *WRITTEN)
        text = f"The {resource.nouns} that were found, as an array."
        found[f"{name}Found"] = _json(text, _array(name), *_LISTED)
    return found | problem_responses() | receiver_responses()


def _component(name: str) -> Schema:
    return {"$ref": f"#/components/responses/{name}"}


def _json(text: str, body: Schema, *headers: str) -> Schema:
    found: Schema = {"description": text, "headers": header_refs(*headers), "content": {JSON: {"schema": body}}}
    return found if headers else {name: value for name, value in found.items() if name != "headers"}


def _array(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def _success(route: Route, routes: list[Route]) -> Schema:
    if route.document.answer is not None:
        return _own(route)
    if route.answer == "none":
        return _component("Deleted")
    resource, written = route.about, WRITTEN if route.writes else ()
    name = title(resource)
    if route.answer == "list" and route.writes:
        return _json(f"The {resource.nouns} after the change, as an array.", _array(name), *written)
    if route.answer == "list" and route.body == "query":
        return _component(f"{name}Found")
    if route.answer == "list":
        return _json(f"The {resource.nouns}, as an array.", _array(name), *_LISTED, "ListETag")
    if route.status == 201:
        return _created(route, routes)
    if resource not in RESOURCES:
        return _json(f"The {resource.noun}.", ref(name), "ETag", *written)
    return _component(f"{name}Changed" if route.writes else name)


def _created(route: Route, routes: list[Route]) -> Schema:
    name = title(route.about) + ("Created" if route.answer == "key" else "")
    headers = ["ETag", *WRITTEN]
    if route.body != "create":
        return _json(f"The {route.about.noun}.", ref(name), *headers)
    found = _json(f"The new {route.about.noun}.", ref(name), "Location", *headers)
    return {**found, "links": _links(route, routes)}


def _own(route: Route) -> Schema:
    """The response that the route describes itself."""
    answer = route.document.answer
    assert answer is not None
    headers = [*(WRITTEN if route.writes else ()), *answer.headers]
    if answer.media:
        found: Schema = {"description": answer.description, "content": dict(answer.media)}
        return {**found, "headers": header_refs(*headers)} if headers else found
    return _json(answer.description, _array(answer.schema) if answer.many else ref(answer.schema), *headers)


def _links(route: Route, routes: list[Route]) -> Schema:
    """What can be done next with what was created."""
    return {
        other.operation_id: {"operationId": other.operation_id, "parameters": {"id": "$response.body#/id"}}
        for other in routes
        if other.path == f"{route.path}/{{id}}" and other.method in ("GET", "PATCH", "DELETE")
    }
