"""Receives the body of a request, once its caller was admitted."""

from typing import Any

from taskade_server.http.admission.caller import Caller
from taskade_server.http.api.route import Route
from taskade_server.http.wire.body import read_json
from taskade_server.http.wire.request import Receive
from taskade_server.kit.errors import Problem
from taskade_server.store.database import Database, Tx


async def receive_body(db: Database, route: Route, caller: Caller, receive: Receive) -> Any:
    """Let the caller in and read the body as JSON: None if it is empty, a JsonPatch if it was sent as one.

    The unit of work that answers looks the caller up again. So a caller in the cache is let in without asking the
    database. The cache can only let somebody in: whatever looks like a refusal, and every batch (whose cost is not
    known yet), is decided by the database. What is wrong with a body is told only to those who may send it.
    """

    def admit(tx: Tx) -> None:
        caller.admit(tx, route.scope, route.most_cost)

    presumed = route.body != "batch" and await caller.presume(route.scope, route.most_cost)
    if not presumed:
        await db.read(admit, caller=caller.request.claimed_caller)
    try:
        patch = route.body == "patch" and route.method == "PATCH"
        return await read_json(caller.request, receive, route.max_body, patch=patch)
    except Problem:
        if presumed:
            await db.read(admit, caller=caller.request.claimed_caller)
        raise
