"""POST /api-keys, whose answer holds the secret once."""

from taskade_server.domain import identity
from taskade_server.http.api.generic import body_of, id, version_of
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import json
from taskade_server.store.database import Tx


def create_key(call: Call, tx: Tx) -> Reply:
    """POST /api-keys: the only answer that ever holds the secret."""
    call.no_parameters()
    document, secret = identity.create_key(tx, call.context(), body_of(call))
    location = f"/v1/api-keys/{id(document)}"
    return Reply(
        201,
        json.encode({**json.decode(document), "secret": secret}),
        [(b"location", location.encode()), (b"etag", f'"{version_of(document)}"'.encode())],
        secret="derived",
    )
