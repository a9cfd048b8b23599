"""POST /batch: any batchable operations, in order, in one transaction, all or nothing.

Why through the route table: an operation of a batch is the same function with the same checks as one that came by a
socket, so a batch can do neither more nor less. A result is put where `{"$ref": "operation.field"}` stands.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from taskade_server.engine import log
from taskade_server.engine.access import Principal, require_scope
from taskade_server.http import wire
from taskade_server.http.wire import Call, Handler, Reply
from taskade_server.kit import json
from taskade_server.kit.errors import (
    MAX_ISSUES,
    BatchFailed,
    Invalid,
    Issue,
    Malformed,
    NotFound,
    Problem,
    did_you_mean,
)
from taskade_server.store.database import Conflict, Tx

MAX_OPERATIONS: Final = 1000
HEAVY_FROM: Final = 20
MAX_RESULT_BYTES: Final = 32 << 20
# What references put into paths and bodies. Each is a few bytes long and may stand for a whole list.
MAX_FILLED_BYTES: Final = 16 << 20
MAX_GUESSED: Final = 100
_MEMBERS: Final = ("id", "method", "path", "body", "if_match")
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# As a value, and inside of a text; the short form in braces is for paths.
_REFERENCE: Final = re.compile(r'\{\s*"\$ref"\s*:\s*"([^"]*)"\s*\}')
_SHORT: Final = re.compile(r"\{([A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+)\}")
_SHOWN: Final = {b"etag": "ETag", b"location": "Location", b"link": "Link", b"total-count": "Total-Count"}


@dataclass(frozen=True, slots=True)
class Target:
    """What the route table knows of an operation's path and method."""

    handler: Handler
    scope: str
    operation_id: str
    body: bool
    versioned: bool


@dataclass(slots=True)
class Api:
    """What a batch needs of the pipeline.

    `find` gives the route of a method and path, or a Problem if it cannot be part of a batch; `refreshed` the caller as
    he is after a change of rights.
    """

    find: Callable[[str, str], tuple[Target, list[str]]]
    refreshed: Callable[[Tx], Principal]
    base_url: str


@dataclass(slots=True)
class _Operation:
    index: int
    name: str
    method: str
    path: str
    target: Target
    body: Any = None
    if_match: frozenset[str] | None = None
    references: bool = False


@dataclass(slots=True)
class _Run:
    """The results so far; bodies are parsed when something refers to them."""

    replies: list[Reply] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    parsed: dict[int, Any] = field(default_factory=dict)
    size: int = 0
    filled: int = 0


def cost(body: Any) -> int:
    """How many requests a batch counts for."""
    operations = body.get("operations") if isinstance(body, dict) else None
    # One that is refused for its length is not worth more than the longest that is not.
    return min(max(1, len(operations)), MAX_OPERATIONS) if isinstance(operations, list) else 1


def is_heavy(body: Any) -> bool:
    """Whether a batch may touch so many rows that it has no place on the event loop."""
    operations = body.get("operations") if isinstance(body, dict) else None
    if not isinstance(operations, list):
        return False
    paths = [str(item.get("path")) for item in operations if isinstance(item, dict)]
    return len(operations) > HEAVY_FROM or any("/bulk" in path or "/projects" in path for path in paths)


def handle(call: Call, tx: Tx) -> Reply:
    """POST /batch: `{operations: [{id?, method, path, body?, if_match?}]}`.

    Invalid, with every fault of every operation, before anything runs; BatchFailed for the first one that fails.
    """
    call.no_parameters()
    if call.if_match is not None or call.unless_match is not None:
        detail = "If-Match names the version of one object; give each operation its own if_match."
        raise Malformed(detail, errors=[Issue("not_allowed", detail, parameter="If-Match")])
    api: Api = call.batch
    operations = _operations(call.body, api)
    run = _Run()
    principal, altered = call.principal, 0
    for operation in operations:
        try:
            if log.altered_grants(tx) != altered:
                principal, altered = api.refreshed(tx), log.altered_grants(tx)
            reply = _perform(operation, call, tx, api, principal, run)
        except (Problem, Conflict) as error:
            raise _failed(operation, error, call.request_id) from error
        run.size += len(reply.body or "")
        if run.size > MAX_RESULT_BYTES:
            too_much = Invalid(f"The results are over {MAX_RESULT_BYTES >> 20} MiB; ask for less in one batch.")
            raise _failed(operation, too_much, call.request_id)
        run.replies.append(reply)
        run.names[str(operation.index)] = operation.index
        if operation.name:
            run.names[operation.name] = operation.index
    results = [_result(operation, reply) for operation, reply in zip(operations, run.replies, strict=True)]
    return Reply(200, '{"results":' + json.array(results) + "}")


def require_scopes(call: Call) -> None:
    """Forbidden unless the caller's key has every scope of a batch that has run before; for its replay."""
    for item in call.body["operations"]:
        target, _ = call.batch.find(item["method"].upper(), _route_path(_below_v1(item["path"])))
        if target.scope:
            require_scope(call.principal, target.scope)


# ---- reading the request ---------------------------------------------------------------------------------------------


def _operations(body: Any, api: Api) -> list[_Operation]:
    """The operations, or Invalid with every fault of all of them."""
    if body is None:
        raise Malformed(
            'The body is a JSON object such as {"operations": [{"method": "POST", "path": "/tasks", ...}]}.'
        )
    listed = body.get("operations") if isinstance(body, dict) else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_OPERATIONS:
        detail = f"operations is a list of 1 to {MAX_OPERATIONS:,} operations."
        raise Invalid(detail, errors=[Issue("wrong_type", detail, pointer="/operations")])
    issues = [_unknown("", name, ("operations",)) for name in body if name != "operations"]
    known: set[str] = set()
    found = []
    for index, item in enumerate(listed):
        if len(issues) >= MAX_ISSUES:
            break  # nobody reads more, and each takes work to word
        before = len(issues)
        operation = _operation(index, item, known, api, issues)
        if operation is not None and len(issues) == before:
            found.append(operation)
        known |= {str(index), *([item["id"]] if isinstance(item, dict) and isinstance(item.get("id"), str) else [])}
    if issues:
        raise Invalid(f"The batch has {len(issues)} fault{'s' * (len(issues) > 1)}; nothing was run.", errors=issues)
    return found


def _operation(index: int, item: Any, known: set[str], api: Api, issues: list[Issue]) -> _Operation | None:
    place = f"/operations/{index}"
    if not isinstance(item, dict):
        issues.append(Issue("wrong_type", "An operation is an object with a method and a path.", pointer=place))
        return None
    issues += [_unknown(place, name, _MEMBERS) for name in item if name not in _MEMBERS]
    name, method, path = item.get("id"), item.get("method"), item.get("path")
    if name is not None and (not isinstance(name, str) or not _ID.fullmatch(name)):
        detail = "An id begins with a letter and has up to 64 letters, digits, _ and -."
        issues.append(Issue("invalid_format", detail, pointer=f"{place}/id"))
    elif name in known:
        issues.append(Issue("duplicate", f'Two operations have the id "{name}".', pointer=f"{place}/id"))
    if not isinstance(method, str):
        issues.append(Issue("required", "method is GET, POST, PUT, PATCH, DELETE or QUERY.", pointer=f"{place}/method"))
    if not isinstance(path, str) or not path.startswith("/"):
        issues.append(Issue("required", "path is a text such as /tasks or /v1/tasks.", pointer=f"{place}/path"))
    if not isinstance(method, str) or not isinstance(path, str) or not path.startswith("/"):
        return None
    path = _below_v1(path)
    used = _used(path, item.get("body"))
    bad = (reference for reference in used if reference.partition(".")[0] not in known)
    issues += [_bad_reference(place, reference, known) for reference in islice(bad, MAX_ISSUES)]
    try:
        target, _ = api.find(method.upper(), _route_path(path))
    except Problem as problem:
        code = "not_allowed" if isinstance(problem, Invalid) else problem.code.replace("-", "_")
        issues.append(Issue(code, problem.detail, pointer=f"{place}/path"))
        return None
    if item.get("body") is not None and not target.body:
        issues.append(Issue("not_allowed", "This operation takes no body.", pointer=f"{place}/body"))
    version = _version(item.get("if_match"), place, issues)
    if version is not None and not target.versioned:
        detail = "This operation changes no single object that could have a version; leave if_match out."
        issues.append(Issue("not_allowed", detail, pointer=f"{place}/if_match"))
    return _Operation(index, name or "", method.upper(), path, target, item.get("body"), version, bool(used))


def _below_v1(path: str) -> str:
    return path.removeprefix("/v1") if path.startswith("/v1/") else path


def _route_path(path: str) -> str:
    """A path without parameters, and with a word in place of each reference: enough to find its route."""
    return _SHORT.sub("-", _REFERENCE.sub("-", path)).partition("?")[0]


def _version(given: Any, place: str, issues: list[Issue]) -> frozenset[str] | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        detail = 'if_match is a version or an ETag, such as 3 or "\\"3\\"".'
        issues.append(Issue("wrong_type", detail, pointer=f"{place}/if_match"))
        return None
    return wire.versions(str(given).encode("latin-1", "replace"))


def _unknown(place: str, name: str, allowed: tuple[str, ...]) -> Issue:
    detail = f'There is no member "{name[:80]}".{did_you_mean(name, allowed)} Allowed: {", ".join(allowed)}.'
    return Issue("unknown_field", detail, pointer=f"{place}/{json.escape_pointer(name)}")


def _bad_reference(place: str, reference: str, known: set[str]) -> Issue:
    first = reference.partition(".")[0]
    return Issue(
        "unknown_reference",
        f'"{reference[:80]}" names no earlier operation: give the id or index of one before this, and a field of its'
        f" result, such as 0.id.{did_you_mean(first, known) if len(known) <= MAX_GUESSED else ''}",
        pointer=place,
    )


def _used(path: str, body: Any) -> list[str]:
    """Everything that a path and a body refer to."""
    found = [*_REFERENCE.findall(path), *_SHORT.findall(path)]
    pending = [body]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if set(node) == {"$ref"} and isinstance(node["$ref"], str):
                found.append(node["$ref"])
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, str) and '"$ref"' in node:
            found += _REFERENCE.findall(node)
    return found


# ---- running ---------------------------------------------------------------------------------------------------------


def _perform(operation: _Operation, call: Call, tx: Tx, api: Api, principal: Principal, run: _Run) -> Reply:
    path, _, query_string = operation.path.partition("?")
    body = operation.body
    if operation.references:
        path = _filled(path, run, _segment)
        query_string = _filled(query_string, run, lambda value: quote(_as_text(value), safe=""))
        body = _checked(_resolved(body, run))
    target, parameters = api.find(operation.method, path)
    if target.operation_id != operation.target.operation_id:
        raise NotFound(f"There is no path {path[:200]}.")
    if target.scope:
        require_scope(principal, target.scope)
    inner = Call(principal, call.secret, call.request_id, parameters, query_string, body)
    inner.address, inner.user_agent, inner.destinations = call.address, call.user_agent, call.destinations
    inner.if_match = operation.if_match
    inner.url = f"{api.base_url}/v1{path}"
    return target.handler(inner, tx)


def _checked(body: Any) -> Any:
    """A body with results put into it must be one that could have been sent."""
    try:
        json.check_tree(body)
    except (json.Faulty, RecursionError) as error:
        raise Invalid(str(error), errors=[Issue("malformed_json", str(error), pointer="")]) from error
    return body


def _filled(text: str, run: _Run, form: Callable[[Any], str]) -> str:
    return _SHORT.sub(lambda found: form(_value(found[1], run)),
                      _REFERENCE.sub(lambda found: form(_value(found[1], run)), text))  # fmt: skip


def _segment(value: Any) -> str:
    """A result as a part of a path; one with a slash would make it another path."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(r"[\w.@+-]+", str(value)):
        raise Invalid("Only an id or another plain word can be put into a path.")
    return str(value)


def _resolved(node: Any, run: _Run) -> Any:
    if isinstance(node, dict):
        if set(node) == {"$ref"} and isinstance(node["$ref"], str):
            return _value(node["$ref"], run)
        return {name: _resolved(value, run) for name, value in node.items()}
    if isinstance(node, list):
        return [_resolved(value, run) for value in node]
    if isinstance(node, str) and '"$ref"' in node:
        whole = _REFERENCE.fullmatch(node)
        return _value(whole[1], run) if whole else _REFERENCE.sub(lambda found: _as_text(_value(found[1], run)), node)
    return node


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.encode(value)


def _value(reference: str, run: _Run) -> Any:
    first, *steps = reference.split(".")
    index = run.names[first]
    if index not in run.parsed:
        run.parsed[index] = json.decode(run.replies[index].body or "null")
    value = run.parsed[index]
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            detail = f'The result of operation {index} has no "{step[:80]}" (in the reference "{reference[:80]}").'
            raise Invalid(detail, errors=[Issue("unknown_reference", detail, pointer="")])
    run.filled += len(value if isinstance(value, str) else run.replies[index].body or "")
    if run.filled > MAX_FILLED_BYTES:
        raise Invalid(f"The references of the batch put in more than {MAX_FILLED_BYTES >> 20} MiB.")
    return value


def _result(operation: _Operation, reply: Reply) -> str:
    named = f'"id":{json.encode(operation.name)},' if operation.name else ""
    # The validator of a list says how far the log is, and the batch has not moved it yet.
    shown = [(name, value) for name, value in reply.headers if name in _SHOWN and not (name == b"etag" and reply.etag)]
    headers = {_SHOWN[name]: value.decode("latin-1") for name, value in shown}
    return f'{{{named}"status":{reply.status},"headers":{json.encode(headers)},"body":{reply.body or "null"}}}'


def _failed(operation: _Operation, error: Problem | Conflict, request_id: str) -> BatchFailed:
    """The whole batch's failure, with the answer that the operation would have had alone."""
    if isinstance(error, Conflict):
        error = Invalid("Another object has the same unique value.")
    place = f"/operations/{operation.index}"
    shown = f'"{operation.name}" ' if operation.name else ""
    inner = error.to_dict(f"/v1{operation.path}"[:500], request_id)
    issues = [
        Issue(issue.code, issue.detail, pointer=f"{place}/path")
        if issue.pointer is None
        else issue.below(f"{place}/body")
        for issue in error.errors
    ]
    return BatchFailed(
        f"Operation {operation.index} {shown}({operation.method} {operation.path[:200]}) failed: {error.detail}",
        status=error.status,
        errors=issues,
        headers=error.headers,
        extra={
            "pointer": place,
            "operation": {
                "index": operation.index,
                **({"id": operation.name} if operation.name else {}),
                "problem": inner,
            },
        },
    )
