"""Errors in the OpenAPI document: which operation answers which, with an example of each."""

from typing import Final

from taskade_server.domain import tasks
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, ref, sample_id
from taskade_server.http.admission.limits import KEYS
from taskade_server.http.api.route import Route
from taskade_server.http.documents.headers import EVERYWHERE, PROBLEM, TASK, header_refs
from taskade_server.kit.errors import Issue, NotFound, Problem, TooMuchWork, problem_classes

PROBLEM_NAMES: Final = {
    400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Gone", 412: "PreconditionFailed",
    422: "UnprocessableContent",
}  # fmt: skip
"""The errors that operations name. All others can come from any operation: they are `DEFAULT` together."""
DEFAULT: Final = "Problem"
_PROBLEM_HEADERS: Final = {
    401: ("WWW-Authenticate",), 405: ("Allow",), 409: ("Retry-After",), 412: ("ETag",), 429: ("Retry-After",),
    503: ("Retry-After",),
}  # fmt: skip


def error_responses(route: Route) -> Schema:
    """References to the errors that an operation can answer with, by status."""
    found = {str(status): _response(PROBLEM_NAMES[status]) for status in _statuses(route)}
    return {**dict(sorted(found.items())), "default": _response(DEFAULT)}


def _response(name: str) -> Schema:
    return {"$ref": f"#/components/responses/{name}"}


def _statuses(route: Route) -> set[int]:
    """The errors that follow from a route's declaration, and those that it names itself."""
    found = {400, 403, *route.document.problems}
    if "{" in route.path or route.body == "create":
        found.add(404)
    if route.method == "GET" and route.path.endswith("/{id}") and route.answer == "one":
        found.add(410)
    if route.writes:
        found |= {409, 422}
    if route.versioned:
        found.add(412)
    return found


def problem_responses() -> Schema:
    """The components: one response for each status that operations name, and one for all others."""
    by_name: dict[str, list[type[Problem]]] = {}
    for cls in problem_classes():
        by_name.setdefault(PROBLEM_NAMES.get(cls.status, DEFAULT), []).append(cls)
    return {name: _problem_response(name, classes) for name, classes in by_name.items()}


def _problem_response(name: str, classes: list[type[Problem]]) -> Schema:
    statuses = {cls.status for cls in classes}
    if name == DEFAULT:
        text = "An error that any request can meet. "
        text += " ".join(f"{cls.status} `{cls.code}`: {cls.title}. {cls.advice}" for cls in classes)
    else:
        text = " ".join(f"`{cls.code}`: {cls.title}. {cls.advice}" for cls in classes)
    headers = [header for status in sorted(statuses) for header in _PROBLEM_HEADERS.get(status, ())]
    examples = {cls.code: {"summary": cls.title, "value": _problem_example(cls)} for cls in classes}
    return {
        "description": text,
        "headers": header_refs(*headers, *EVERYWHERE),
        "content": {PROBLEM: {"schema": ref("Problem"), "examples": examples}},
    }


def _problem_example(cls: type[Problem]) -> Schema:
    path, detail, errors, extra = _FAULTS.get(cls.code, ("/v1/tasks", cls.title, [], {}))
    return cls(detail, errors=errors, extra=extra).to_dict(path, sample_id("req"))


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
    "not-found": (TASK, f"There is no task {sample_id('task')} that this key can see.", [], {}),
    "method-not-allowed": ("/v1/users/me", "/v1/users/me supports GET, HEAD, OPTIONS.", [], {}),
    "not-acceptable": ("/v1/tasks", "The server answers in JSON only", [], {}),
    "request-timeout": ("/v1/tasks", "The body did not arrive within 15 seconds.", [], {}),
    "conflict": (
        "/v1/tasks", "An id is in use already; nothing was written.",
        [Issue("id_in_use", f"The id {sample_id('task')} was given to a task before, and an id is given only once.",
               pointer="/id")], {},
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
        TASK, "The task is at version 4 now.", [], {"current": {**schema.sample(tasks.TASK), "version": 4}},
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
        "/v1/tasks", KEYS.format(rate=600, wait=3), [], {"violated-policies": ["default"]},
    ),
    "internal": ("/v1/tasks", "Something went wrong on the server", [], {}),
    "outcome-unknown": ("/v1/tasks", "The write may or may not have been stored", [], {}),
    "too-much-work": ("/v1/batch", TooMuchWork.title, [], {}),
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
            f"There is no task {sample_id('task')} that this key can see.").to_dict(TASK, sample_id("req"))}},
    ),
    "too-many-streams": (
        "/v1/events/stream", "200 streams of this caller are open here; close one of them first.", [], {},
    ),
    "unavailable": ("/v1/tasks", "The server cannot answer right now", [], {}),
}  # fmt: skip
