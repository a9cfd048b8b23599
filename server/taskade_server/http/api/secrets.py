"""Secrets: what their ordinary operations say about themselves."""

from collections.abc import Mapping
from typing import Final

from taskade_server.domain import secrets
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Document


def _secrets() -> Mapping[str, Schema]:
    value: Schema = {
        "type": "string", "minLength": 1, "maxLength": secrets.MAX_VALUE, "examples": ["pat-eu1-3f9c27"],
        "description": f"What is kept: a token, a password. At most {secrets.MAX_VALUE:,} bytes in UTF-8. No response"
        " has it.",
    }  # fmt: skip
    again = f"{value['description']} Required if `hosts` changes, and if somebody else gave the present value."
    hosts = {**schema.sent(secrets.SECRET.fields["hosts"], creating=False), "type": "array", "minItems": 1}
    created = schema.creation(secrets.SECRET, {"hosts": hosts, "value": value})
    changed = schema.update(secrets.SECRET)
    more = {"hosts": hosts, "value": {**value, "description": again}}
    return {
        "SecretCreate": {**created, "required": [*created["required"], "value"]},
        "SecretUpdate": {**changed, "properties": {**changed["properties"], **more}},
    }


_DOCUMENTS: Final = documents(
    create={
        "token": ("A token for one host", {"name": "crm", "hosts": ["api.crm.example"], "value": "pat-eu1-3f9c27"}),
    },
    update={
        "rotate": ("Another value", {"value": "pat-eu1-8b06d4"}),
        "hosts": ("One more host", {"hosts": ["api.crm.example", "eu.crm.example"], "value": "pat-eu1-3f9c27"}),
    },
    query={"old": ("Values that were given long ago", {"filter": {"value_set_at": {"$lt": "-365d"}}})},
    created=Document(notes="No response has the `value`, not even this one.", schemas=_secrets),
    delete=Document(notes="The value is gone at once. Nothing brings it back."),
)
OPTIONS: Final = Options(documents=_DOCUMENTS)
