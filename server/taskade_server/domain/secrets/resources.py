"""What a secret is, and how many and how large they may be."""

from typing import Final

from taskade_server.engine.model import Field, Relation, Resource

MAX_SECRETS: Final = 200
"""In one workspace."""

MAX_VALUE: Final = 4_096
"""Bytes of a value in UTF-8."""

MAX_HOSTS: Final = 20

NAME: Final = r"[a-z][a-z0-9_-]{0,63}"

# The value is no member: what is not in a document can be in no answer, event, audit entry or filter.
SECRET: Final = Resource(
    "secret", "secrets", "sec",
    "A credential of another system, which requests to its hosts can be sent with. Nobody can read its value.",
    (
        Field("name", "key", "What it is referred to by, unique in its workspace.", "crm", required=True,
              nullable=False, min_length=1, max_length=64, pattern=NAME, sortable=True),
        Field("description", "text", "What it is for. All members of the workspace can read it.",
              "The token of the billing robot.", max_length=500, column=False),
        Field("hosts", "strings", "The only hosts that the value is sent to: names or addresses, without a port."
              " Changing them takes the value.",
              ["api.crm.example"], required=True, nullable=False, column=False, max_length=253, max_items=MAX_HOSTS),
        Field("user_id", "user", "Who gave the value. A change by anybody else takes the value.", target="user",
              writable=False, nullable=False),
        Field("value_set_at", "time", "When the value was last given.", "2024-01-15T10:30:00.000Z", writable=False,
              nullable=False, sortable=True, moving=True),
    ),
    visibility="workspace", trash=False, private=(("sealed", "text"),),
    relations=(
        Relation("user", "user", "one", "user_id", "The user who gave the value."),
        Relation("created_by", "user", "one", "created_by", "The user who created it.", replaces=True),
    ),
)  # fmt: skip
