"""POST /batch: any batchable operations, in order, in one transaction, all or nothing.

`operations` checks and runs them; this is what a request that holds them weighs, and how it is answered.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from taskade_server.domain import projects
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.operations import Operation, Operations, below_v1, find, unknown
from taskade_server.http.api.route import MIB, Route
from taskade_server.http.api.weight import MAX_COST, MAX_LISTED, Weight, cost_of, listed
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import decoded_path
from taskade_server.kit import json, references
from taskade_server.kit.errors import Invalid, Issue, Malformed
from taskade_server.kit.references import FaultyReference
from taskade_server.store.database import Tx

MAX_OPERATIONS: Final = MAX_LISTED
HEAVY_FROM: Final = 20
MAX_WEIGHED: Final = 300
"""How many characters of a path are looked at to weigh an operation; those of bulk operations are shorter."""


class Batch:
    """POST /batch, over a table of routes."""

    def __init__(self, routes: list[Route], operations: Operations | None = None) -> None:
        """`routes` are all others; the batch puts its own route beside them, to say that no batch holds a batch.

        `operations`, if given, are completed with all of these.
        """
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
        self._operations = operations or Operations()
        self._operations.complete([*routes, self.route])

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
        path = _route_path(below_v1(str(operation.get("path"))[:MAX_WEIGHED]))
        found = self._operations.table.find(decoded_path(path[1:]))
        return None if found is None else found[0].get(str(operation.get("method")).upper())

    def scopes(self, body: Any) -> Iterator[str]:
        """The scopes of the operations of a batch that has run before."""
        for item in body["operations"]:
            yield find(self._operations.table, item["method"].upper(), _route_path(below_v1(item["path"])))[0].scope

    def handle(self, call: Call, tx: Tx) -> Reply:
        """POST /batch: `{operations: [{id?, method, path, body?, if_match?}]}`.

        Invalid, with every fault of every operation, before anything runs; BatchFailed for the first one that fails.
        """
        call.no_parameters()
        operations = self._read(call.body)
        base_url = call.url.rstrip("/").removesuffix("batch").rstrip("/")
        results = self._operations.run(tx, call, operations, {}, base_url)
        return Reply(200, '{"results":' + json.array([result.to_json() for result in results]) + "}")

    def _read(self, body: Any) -> list[Operation]:
        """The operations, or Invalid with every fault of all of them."""
        if body is None:
            raise Malformed(
                'The body is a JSON object such as {"operations": [{"method": "POST", "path": "/tasks", ...}]}.'
            )
        items = body.get("operations") if isinstance(body, dict) else None
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_OPERATIONS:
            detail = f"operations is a list of 1 to {MAX_OPERATIONS:,} operations."
            raise Invalid(detail, errors=[Issue("wrong_type", detail, pointer="/operations")])
        found, faults = self._operations.prepare(items, "/operations")
        issues = [*(unknown("", name, ("operations",)) for name in body if name != "operations"), *faults]
        if issues:
            many = f"The batch has {len(issues)} faults; nothing was run." if len(issues) > 1 else None
            raise Invalid(many, errors=issues)
        return found


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
    return MAX_LISTED if any(map(references.is_reference, parts)) else max(1, listed(body))


def _route_path(path: str) -> str:
    """What of a path, which may be cut off, is enough to find its route."""
    try:
        return references.template(path).shape
    except FaultyReference:
        return path.partition("?")[0]


# ---- what the OpenAPI document says of them --------------------------------------------------------------------------

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


def _operation() -> Schema:
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


def _schemas() -> Mapping[str, Schema]:
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
        "BatchOperation": _operation(),
        "BatchResults": {"type": "object", "required": ["results"], "properties": {"results": results},
                         "description": "One result for each operation.", "examples": [_results()]},
        "BatchResult": result,
    }  # fmt: skip


BATCH: Final = Document(
    notes="The operations run in their order. Every `x-batchable` operation is allowed. A later operation refers to the"
    " result of an earlier one by its id or index:"
    ' `{"$ref": "operation.field"}` in place of a value or within a text, `{operation.field}` within a path.'
    " Beside `$ref` there may be `default`, the value for when there is no such field (null stays null), and `format`:"
    " `date`, `number`, `json`, `upper`, `lower` or `truncate:N`. What is put in is never read again for references."
    " If one operation fails, nothing is written: the response has the status of that operation and the code"
    " `batch-failed`, and `pointer` names it. For the rate limit, a batch counts as one request per operation.",
    body="Batch",
    examples=_EXAMPLES,
    answer=Answer("BatchResults", "The results, in the order of the operations."),
    problems=(404, 412),
    schemas=_schemas,
)
