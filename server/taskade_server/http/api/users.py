"""Users: GET /users/me, and what their ordinary operations say about themselves."""

from collections.abc import Iterator, Mapping
from typing import Final

from taskade_server.domain import identity
from taskade_server.engine import query, schema
from taskade_server.engine.schema import Schema, or_null, ref
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import RENAME, documents
from taskade_server.http.api.document import Document
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


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------


def _users() -> Mapping[str, Schema]:
    text = "The role of the user in the workspace. Default: `member`."
    role = {**or_null(ref("WorkspaceRole")), "description": text}
    return {"UserCreate": schema.creation(identity.USER, {"role": role})}


_DOCUMENTS: Final = documents(
    create={"person": ("Invite a person", {"name": "Ana Lima", "email": "ana@example.com", "handle": "ana"})},
    update=RENAME,
    query={"people": ("People by name", {"filter": {"kind": "person"}, "sort": "name"})},
    created=Document(
        notes="A person needs an `email`; a service account (`kind`: `service`) does not.", schemas=_users
    ),
)
OPTIONS: Final = Options(documents=_DOCUMENTS)
ME: Final = Document(notes="The user whose API key the request carries.")


def routes() -> Iterator[Route]:
    """The route of the caller's own user."""
    yield Route("GET", "/users/me", "users.me", "", me, identity.USER, "Read the user of this key", document=ME)
