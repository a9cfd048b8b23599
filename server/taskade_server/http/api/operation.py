"""Runs one operation in a unit of work, for requests and for operations of a batch alike.

Why in one place: an operation must be checked in the same way, however it was called.
"""

from taskade_server.engine.access import Principal, require_scope
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.store.database import Tx


def run(route: Route, call: Call, tx: Tx) -> Reply:
    """Check that the caller's key has the route's scope, and answer. Any Problem that the handler raises, or Forbidden.

    The handler checks everything else that depends on the object: roles, visibility, versions.
    """
    require_scope(call.principal, route.scope)
    return route.handler(call, tx)


def authorize(route: Route, principal: Principal, body: object) -> None:
    """Forbidden unless the caller's key has all scopes that running the operation with this body would ask for.

    For an answer that is given again without being run again.
    """
    require_scope(principal, route.scope)
    if route.scopes_of is not None:
        for scope in route.scopes_of(body):
            require_scope(principal, scope)
