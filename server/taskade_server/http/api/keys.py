"""API keys: their creation, whose answer holds the secret once, and what their operations say about themselves."""

from collections.abc import Mapping
from typing import Final

from taskade_server.domain import identity
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, extended
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Document
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


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_SECRET: Final = f"tsk_{schema.SAMPLE_ID}_5oZ3mXk8Qp2Rt7Vw9Ya4Bc6De1Fg0Hj5Kl8Mn3Pq_2f6Xk1"


def _keys() -> Mapping[str, Schema]:
    text = "The secret of the key, for the header `Authorization`. No other response has it."
    return {
        "ApiKeyCreated": extended(
            "ApiKey",
            {"secret": {"type": "string", "description": text}},
            ["secret"],
            description="A new API key with its secret.",
            examples=[{**schema.sample(identity.API_KEY), "secret": _SECRET}],
        )
    }


_DOCUMENTS: Final = documents(
    create={"reader": ("A key that can only read tasks", {"name": "Dashboard", "scopes": ["tasks:read"]})},
    update={"limit": ("Restrict it", {"scopes": ["tasks:read"], "rate_limit": 60})},
    created=Document(
        notes="The response has the `secret`, which no other response has: store it at once.", schemas=_keys
    ),
    delete=Document(notes="The key stops working at once."),
)
OPTIONS: Final = Options(documents=_DOCUMENTS, create=create_key)
