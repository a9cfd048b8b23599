"""POST /batch: any batchable operations, in order, in one transaction, all or nothing.

`operations` checks and runs them; this is what a request that holds them weighs, and how it is answered.
"""

from collections.abc import Iterator
from typing import Any, Final

from taskade_server.http.api import batch_schema
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
            document=batch_schema.BATCH,
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
