"""GET /users/me."""

from collections.abc import Iterator

from taskade_server.domain import identity
from taskade_server.engine import query
from taskade_server.http.api import resources_schema
from taskade_server.http.api.generic import one
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.store.database import Tx


def me(call: Call, tx: Tx) -> Reply:
    """GET /users/me."""
    row = query.get(tx, call.principal, identity.USER, call.principal.user_id)
    if row is None:
        # A user without any workspace still is somebody.
        found = tx.one("SELECT doc FROM users WHERE id = ?", (call.principal.user_id,))
        return one(call, tx, identity.USER, found[0] if found else "{}")
    return one(call, tx, identity.USER, row.document)


def routes() -> Iterator[Route]:
    """The route of the caller's own user."""
    yield Route(
        "GET", "/users/me", "users.me", "", me, identity.USER, "Read the user of this key", document=resources_schema.ME
    )
