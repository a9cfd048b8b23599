"""GET /event-types: every type of event with its schema and an example."""

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Final

from taskade_server.engine import event_schema, events
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import names_etag
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import json
from taskade_server.store.database import Tx


@cache
def _event_types() -> tuple[str, str]:
    text = json.encode([event_schema.listed(kind) for kind in events.catalogue().values()])
    return text, f'W/"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'


def event_types(call: Call, tx: Tx) -> Reply:
    """GET /event-types: the same for everybody, and for as long as the program is the same."""
    call.no_parameters()
    text, etag = _event_types()
    headers = [(b"etag", etag.encode())]
    if call.cached_etags is not None and names_etag(call.cached_etags, etag):
        return Reply(304, None, headers)
    return Reply(200, text, headers)


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

TYPES: Final = Document(
    notes="The same for every caller. `sample` is an event with made-up values, for tools to show.",
    answer=Answer("EventType", "Every type of event.", many=True, headers=("ListETag",)),
)


def routes() -> Iterator[Route]:
    """The route of the types of events."""
    yield Route(
        "GET",
        "/event-types",
        "event-types.catalogue",
        "",
        event_types,
        None,
        "List the types of events",
        answer="event_types",
        document=TYPES,
    )
