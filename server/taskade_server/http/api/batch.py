"""POST /batch: any batchable operations, in order, in one transaction, all or nothing.

Why through the route table: an operation of a batch is the same function with the same checks as one that came by a
socket, so a batch can do neither more nor less. A result is put where `{"$ref": "operation.field"}` stands.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from taskade_server.domain import projects
from taskade_server.engine import log, schema
from taskade_server.engine.access import Principal
from taskade_server.engine.schema import Schema, closed, ref, sample_id
from taskade_server.http.api import operation as api
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.route import MIB, Route
from taskade_server.http.api.routing import Table, no_path
from taskade_server.http.api.weight import MAX_COST, MAX_LISTED, Weight, cost_of, listed
from taskade_server.http.wire.body import TAKES_NO_BODY
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import named_version
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import decoded_path
from taskade_server.kit import json
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import (
    MAX_ISSUES,
    BatchFailed,
    Invalid,
    Issue,
    Malformed,
    MethodNotAllowed,
    Problem,
    did_you_mean,
    with_allowed,
)
from taskade_server.kit.numbers import whole
from taskade_server.kit.strict_json import Faulty, check_tree, escape_pointer
from taskade_server.store.database import Conflict, Tx

MAX_OPERATIONS: Final = MAX_LISTED
# What an operation takes from the unit's budget beside its own work, and how many characters of its answer one step.
OPERATION_STEPS: Final = 50
ANSWERED_A_STEP: Final = 500
FILLED_A_STEP: Final = 10
"""How many characters a reference puts in for one step: each value of them is looked at once more."""
HEAVY_FROM: Final = 20
MAX_RESULT_BYTES: Final = 32 << 20
# What references put into paths and bodies. Each is a few bytes long and may stand for a whole list.
MAX_FILLED_BYTES: Final = 16 << 20
MAX_GUESSED: Final = 100
MAX_WEIGHED: Final = 300
"""How many characters of a path are looked at to weigh an operation; those of bulk operations are shorter."""
_MEMBERS: Final = ("id", "method", "path", "body", "if_match")
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# As a value, and inside of a text; the short form in braces is for paths.
_REFERENCE: Final = re.compile(r'\{\s*"\$ref"\s*:\s*"([^"]*)"\s*\}')
_SHORT: Final = re.compile(r"\{([A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+)\}")
_SHOWN: Final = {b"etag": "ETag", b"location": "Location", b"link": "Link", b"total-count": "Total-Count"}


@dataclass(slots=True)
class _Operation:
    index: int
    name: str
    method: str
    path: str
    route: Route
    body: Any = None
    if_match: frozenset[str] | None = None
    references: bool = False


@dataclass(slots=True)
class _Run:
    """A batch that is being run, and the results so far; bodies are parsed when something refers to them.

    `base_url` is the address of the API, `principal` the caller as the operations before have made them, `altered` how
    many changes of rights that takes into account.
    """

    table: Table
    call: Call
    base_url: str
    principal: Principal
    budget: Budget
    altered: int = 0
    replies: list[Reply] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    parsed: dict[int, Any] = field(default_factory=dict)
    size: int = 0
    filled: int = 0


class Batch:
    """POST /batch, over a table of routes."""

    def __init__(self, routes: list[Route]) -> None:
        """`routes` are all others; the batch puts its own route beside them, to say that no batch holds a batch."""
        self.route = Route(
            "POST",
            "/batch",
            "batch",
            "",
            self.handle,
            None,
            "Run up to 1,000 operations in one transaction, all or none",
            writes=True,
            body="batch",
            answer="batch",
            max_body=8 * MIB,
            batchable=False,
            weigh=self.weigh,
            most_cost=MAX_COST,
            scopes_of=self.scopes,
            document=BATCH,
        )
        self.table = Table([*routes, self.route])

    def weigh(self, body: Any) -> Weight:
        """What the operations of a batch come to.

        A batch counts for one request, and one more for every 50 things that its operations list. It is heavy if it is
        long or one of its operations is, and needs no writer if none of them can write.
        """
        operations = body.get("operations") if isinstance(body, dict) else None
        if not isinstance(operations, list):
            return Weight()
        # A batch that will be refused for its length costs no more than the longest allowed one, and takes no writer.
        long = len(operations) > MAX_OPERATIONS
        things, heavy, writes = 0, len(operations) > HEAVY_FROM and not long, False
        for item in operations[:MAX_OPERATIONS]:
            # What is no operation is refused, which takes no writer.
            weight = _weight_of(self._route_of(item), item) if isinstance(item, dict) else Weight(writes=False)
            things += weight.cost
            heavy = heavy or (weight.heavy and not long)
            writes = writes or (weight.writes and not long)
        return Weight(cost_of(things), heavy, writes)

    def _route_of(self, operation: dict[str, Any]) -> Route | None:
        """The route of an operation that has not been checked yet; None if there is none, or none that is certain."""
        path = _route_path(_below_v1(str(operation.get("path"))[:MAX_WEIGHED]))
        found = self.table.find(decoded_path(path[1:]))
        return None if found is None else found[0].get(str(operation.get("method")).upper())

    def scopes(self, body: Any) -> Iterator[str]:
        """The scopes of the operations of a batch that has run before."""
        for item in body["operations"]:
            yield find(self.table, item["method"].upper(), _route_path(_below_v1(item["path"])))[0].scope

    def handle(self, call: Call, tx: Tx) -> Reply:
        """POST /batch: `{operations: [{id?, method, path, body?, if_match?}]}`.

        Invalid, with every fault of every operation, before anything runs; BatchFailed for the first one that fails.
        """
        call.no_parameters()
        operations = _operations(call.body, self.table)
        run = _Run(self.table, call, call.url.rstrip("/").removesuffix("batch").rstrip("/"), call.principal, tx.budget)
        for operation in operations:
            try:
                if log.rights_changes(tx) != run.altered:
                    run.principal, run.altered = call.refresh(tx), log.rights_changes(tx)
                reply = _perform(operation, tx, run)
            except (Problem, Conflict) as error:
                raise _failed(operation, error, call.request_id) from error
            size = len(reply.body or "")
            tx.budget.spend(size // ANSWERED_A_STEP)
            run.size += size
            if run.size > MAX_RESULT_BYTES:
                too_much = Invalid(f"The results are over {MAX_RESULT_BYTES >> 20} MiB; ask for less in one batch.")
                raise _failed(operation, too_much, call.request_id)
            run.replies.append(reply)
            run.names[str(operation.index)] = operation.index
            if operation.name:
                run.names[operation.name] = operation.index
        results = [_result(operation, reply) for operation, reply in zip(operations, run.replies, strict=True)]
        return Reply(200, '{"results":' + json.array(results) + "}")


# ---- what operations come to -----------------------------------------------------------------------------------------


def _weight_of(route: Route | None, operation: dict[str, Any]) -> Weight:
    """The weight of one operation of a batch; its `cost` is how many things it lists."""
    if route is None:
        return Weight(writes=str(operation.get("method")).upper() not in ("GET", "QUERY"))  # it is refused
    body = operation.get("body")
    if route.weigh is None:
        return Weight(1, route.heavy, route.writes)
    return Weight(_listed(body) if route.most_cost > 1 else 1, route.heavy or route.weigh(body).heavy, route.writes)


def _listed(body: Any) -> int:
    """How many tasks a bulk request in a batch names: as many as there may be where a reference will put in a list."""
    parts = (body, *((body.get("tasks"), body.get("ids")) if isinstance(body, dict) else ()))
    return MAX_LISTED if any(map(_is_reference, parts)) else max(1, listed(body))


def _is_reference(node: Any) -> bool:
    """Whether a result will stand in the place of this."""
    if isinstance(node, dict):
        return set(node) == {"$ref"}
    return isinstance(node, str) and _REFERENCE.fullmatch(node) is not None


# ---- reading the request ---------------------------------------------------------------------------------------------


def _operations(body: Any, table: Table) -> list[_Operation]:
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
        operation = _operation(index, item, known, table, issues)
        if operation is not None and len(issues) == before:
            found.append(operation)
        known |= {str(index), *([item["id"]] if isinstance(item, dict) and isinstance(item.get("id"), str) else [])}
    if issues:
        many = f"The batch has {len(issues)} faults; nothing was run." if len(issues) > 1 else None
        raise Invalid(many, errors=issues)
    return found


def _operation(index: int, item: Any, known: set[str], table: Table, issues: list[Issue]) -> _Operation | None:
    pointer = f"/operations/{index}"
    if not isinstance(item, dict):
        issues.append(Issue("wrong_type", "An operation is an object with a method and a path.", pointer=pointer))
        return None
    issues += [_unknown(pointer, name, _MEMBERS) for name in item if name not in _MEMBERS]
    name, method, path = item.get("id"), item.get("method"), item.get("path")
    if name is not None and (not isinstance(name, str) or not _ID.fullmatch(name)):
        detail = "An id begins with a letter and has up to 64 letters, digits, _ and -."
        issues.append(Issue("invalid_format", detail, pointer=f"{pointer}/id"))
    elif name in known:
        issues.append(Issue("duplicate", f'Two operations have the id "{name}".', pointer=f"{pointer}/id"))
    if not isinstance(method, str):
        issues.append(
            Issue("required", "method is GET, POST, PUT, PATCH, DELETE or QUERY.", pointer=f"{pointer}/method")
        )
    if not isinstance(path, str) or not path.startswith("/"):
        issues.append(Issue("required", "path is a text such as /tasks or /v1/tasks.", pointer=f"{pointer}/path"))
    if not isinstance(method, str) or not isinstance(path, str) or not path.startswith("/"):
        return None
    path = _below_v1(path)
    used = _used(path, item.get("body"))
    bad = (reference for reference in used if reference.partition(".")[0] not in known)
    issues += [_bad_reference(pointer, reference, known) for reference in islice(bad, MAX_ISSUES)]
    try:
        route, _ = find(table, method.upper(), _route_path(path))
    except Problem as problem:
        code = "not_allowed" if isinstance(problem, Invalid) else problem.code.replace("-", "_")
        issues.append(Issue(code, problem.detail, pointer=f"{pointer}/path"))
        return None
    if item.get("body") is not None and not route.body:
        issues.append(Issue("not_allowed", TAKES_NO_BODY, pointer=f"{pointer}/body"))
    version = named_version(item.get("if_match"), pointer, issues)
    if version is not None and not route.versioned:
        detail = "This operation changes no single object that could have a version; leave if_match out."
        issues.append(Issue("not_allowed", detail, pointer=f"{pointer}/if_match"))
    return _Operation(index, name or "", method.upper(), path, route, item.get("body"), version, bool(used))


def _below_v1(path: str) -> str:
    return path.removeprefix("/v1") if path.startswith("/v1/") else path


def _route_path(path: str) -> str:
    """A path without parameters, and with a word in place of each reference: enough to find its route."""
    if "{" not in path:
        return path.partition("?")[0]
    return _SHORT.sub("-", _REFERENCE.sub("-", path)).partition("?")[0]


def _unknown(pointer: str, name: str, allowed: tuple[str, ...]) -> Issue:
    detail = with_allowed(f'There is no field "{name[:80]}" here.', name, allowed)
    return Issue("unknown_field", detail, pointer=f"{pointer}/{escape_pointer(name)}")


def _bad_reference(pointer: str, reference: str, known: set[str]) -> Issue:
    first = reference.partition(".")[0]
    return Issue(
        "unknown_reference",
        f'"{reference[:80]}" names no earlier operation: give the id or index of one before this, and a field of its'
        f" result, such as 0.id.{did_you_mean(first, known) if len(known) <= MAX_GUESSED else ''}",
        pointer=pointer,
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


def find(table: Table, method: str, path: str) -> tuple[Route, list[str]]:
    """The route of an operation and its path's parameters.

    NotFound, MethodNotAllowed, or Invalid if it cannot be part of a batch.
    """
    routes, parameters = table.require(decoded_path(path[1:]), path)
    route = routes.get(method)
    if route is None:
        raise MethodNotAllowed(f"{path[:200]} supports {', '.join(sorted(routes))}.")
    if not route.batchable:
        raise Invalid(f"{method} {path[:200]} cannot be part of a batch.")
    return route, parameters


def _perform(operation: _Operation, tx: Tx, run: _Run) -> Reply:
    tx.budget.spend(OPERATION_STEPS)
    path, _, query_string = operation.path.partition("?")
    body = operation.body
    if operation.references:
        path = _filled(path, run, _segment)
        query_string = _filled(query_string, run, lambda value: quote(_as_text(value), safe=""))
        body = _checked(_resolved(body, run))
    route, parameters = find(run.table, operation.method, path)
    if route is not operation.route:
        raise no_path(path)
    call = run.call
    inner = Call(
        run.principal,
        call.secret,
        call.request_id,
        parameters,
        query_string,
        body,
        f"{run.base_url}{path}",
        if_match=operation.if_match,
        address=call.address,
        user_agent=call.user_agent,
        destinations=call.destinations,
        queries=call.queries if run.principal is call.principal else None,
    )
    return api.run(route, inner, tx)


def _checked(body: Any) -> Any:
    """A body with results put into it must be one that could have been sent."""
    try:
        check_tree(body)
    except (Faulty, RecursionError) as error:
        raise Invalid(str(error), errors=[Issue("malformed_json", str(error), pointer="")]) from error
    return body


def _filled(text: str, run: _Run, form: Callable[[Any], str]) -> str:
    return _SHORT.sub(
        lambda found: form(_value(found[1], run)), _REFERENCE.sub(lambda found: form(_value(found[1], run)), text)
    )


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


def _index_in(values: list[Any], step: str) -> int | None:
    """The index in a list that a step names, None if there is none."""
    index = whole(step)
    return None if index is None or index >= len(values) else index


def _value(reference: str, run: _Run) -> Any:
    first, *steps = reference.split(".")
    index = run.names[first]
    if index not in run.parsed:
        run.parsed[index] = json.decode(run.replies[index].body or "null")
    value = run.parsed[index]
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and (number := _index_in(value, step)) is not None:
            value = value[number]
        else:
            detail = f'The result of operation {index} has no "{step[:80]}" (in the reference "{reference[:80]}").'
            raise Invalid(detail, errors=[Issue("unknown_reference", detail, pointer="")])
    size = len(value if isinstance(value, str) else run.replies[index].body or "")
    run.filled += size
    run.budget.spend(size // FILLED_A_STEP)
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
    pointer = f"/operations/{operation.index}"
    shown = f'"{operation.name}" ' if operation.name else ""
    inner = error.to_dict(f"/v1{operation.path}"[:500], request_id)
    issues = [
        Issue(issue.code, issue.detail, pointer=f"{pointer}/path")
        if issue.pointer is None
        else issue.below(f"{pointer}/body")
        for issue in error.errors
    ]
    return BatchFailed(
        f"Operation {operation.index} {shown}({operation.method} {operation.path[:200]}) failed: {error.detail}",
        status=error.status,
        errors=issues,
        headers=error.headers,
        extra={
            "pointer": pointer,
            "operation": {
                "index": operation.index,
                **({"id": operation.name} if operation.name else {}),
                "problem": inner,
            },
        },
    )


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "QUERY")
_PROJECT: Final = sample_id("proj")
_EXAMPLES: Final[dict[str, tuple[str, Any]]] = {
    "mixed": (
        "Change, create and delete",
        {
            "operations": [
                {"method": "PUT", "path": f"/tasks/{sample_id('task')}", "body": {"status": "completed"}},
                {"method": "POST", "path": "/tasks", "body": {"name": "Follow-up task", "project_id": _PROJECT}},
                {"method": "DELETE", "path": f"/tasks/{sample_id('task')}"},
            ]
        },
    ),
    "references": (
        "A new project that is archived at once",
        {
            "operations": [
                {"id": "project", "method": "POST", "path": "/projects", "body": {"name": "Launch"}},
                {"method": "POST", "path": "/projects/{project.id}/archive"},
            ]
        },
    ),
}


def _results() -> Schema:
    created = {"status": 201, "headers": {"ETag": '"1"', "Location": f"/v1/projects/{_PROJECT}"}}
    one = {"id": "project", **created, "body": schema.sample(projects.PROJECT)}
    return {"results": [one, {"status": 204, "headers": {}, "body": None}]}


def _operation_schema() -> Schema:
    return closed(
        {
            "id": {
                "type": ["string", "null"],
                "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$",
                "examples": ["project"],
                "description": "A name by which later operations refer to the result of this one.",
            },
            "method": {"type": "string", "enum": list(_METHODS), "description": "The HTTP method."},
            "path": {
                "type": "string",
                "pattern": "^/",
                "examples": ["/tasks"],
                "description": "The path with its parameters, with or without `/v1`.",
            },
            "body": {"description": "The body, if the operation takes one."},
            "if_match": {
                "type": ["string", "integer", "null"],
                "examples": [3],
                "description": "The version that the object must have, as in `If-Match`.",
            },
        },
        required=["method", "path"],
        description="One operation of a batch.",
    )


def _batch_schemas() -> Mapping[str, Schema]:
    result: Schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The id of the operation, if it has one."},
            "status": {"type": "integer", "description": "The HTTP status that it would have had alone."},
            "headers": {"type": "object", "additionalProperties": {"type": "string"},
                        "description": "`ETag`, `Location`, `Link` and `Total-Count`, if it has them."},
            "body": {"description": "The body that it would have had alone; null for none."},
        },
        "required": ["status", "headers", "body"],
        "description": "The result of one operation.",
    }  # fmt: skip
    operations = {
        "type": "array",
        "items": ref("BatchOperation"),
        "minItems": 1,
        "maxItems": MAX_LISTED,
        "description": "What to do, in this order.",
    }
    results = {"type": "array", "items": ref("BatchResult"), "description": "The results, in the same order."}
    return {
        "Batch": closed({"operations": operations}, required=["operations"],
                        description="Operations that take effect together or not at all."),
        "BatchOperation": _operation_schema(),
        "BatchResults": {"type": "object", "required": ["results"], "properties": {"results": results},
                         "description": "One result for each operation.", "examples": [_results()]},
        "BatchResult": result,
    }  # fmt: skip


BATCH: Final = Document(
    notes="The operations run in their order. Every `x-batchable` operation is allowed. A later operation refers to the"
    " result of an earlier one by its id or index:"
    ' `{"$ref": "operation.field"}` in place of a value or within a text, `{operation.field}` within a path.'
    " If one operation fails, nothing is written: the response has the status of that operation and the code"
    " `batch-failed`, and `pointer` names it. For the rate limit, a batch counts as one request per operation.",
    body="Batch",
    examples=_EXAMPLES,
    answer=Answer("BatchResults", "The results, in the order of the operations."),
    problems=(404, 412),
    schemas=_batch_schemas,
)
