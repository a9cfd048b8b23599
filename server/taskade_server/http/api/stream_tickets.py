"""POST /stream-tickets: a ticket for the stream of a browser, which cannot send a header."""

from collections.abc import Iterator, Mapping
from typing import Final

from taskade_server.engine import event_schema, schema
from taskade_server.engine.schema import Schema
from taskade_server.http.admission import tickets
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.generic import no_body
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import json, time
from taskade_server.kit.errors import Forbidden
from taskade_server.store.database import Tx


def create(call: Call, tx: Tx) -> Reply:
    """POST /stream-tickets."""
    call.no_parameters()
    no_body(call)
    if call.principal.key_id is None:
        raise Forbidden("Tickets are for API keys.")
    ticket, expires = tickets.seal(call.secret, call.principal.key_id)
    document = {"ticket": ticket, "expires_at": time.format_ms(expires)}
    return Reply(201, json.encode(document), [(b"cache-control", b"no-store")])


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------


def _ticket() -> Mapping[str, Schema]:
    return {
        "StreamTicket": {
            "type": "object",
            "required": ["ticket", "expires_at"],
            "description": "A short-lived credential for a stream in a browser.",
            "properties": {
                "ticket": {"type": "string", "description": "The ticket."},
                "expires_at": {**schema.TIME, "description": "Until when it can open streams."},
            },
            "examples": [{"ticket": "pVx2o1mN0u8Wd7cRWyJ0aWNrZXQiLDE3M10", "expires_at": event_schema.SAMPLE_TIME}],
        }
    }


TICKET: Final = Document(
    notes="The ticket goes into `?ticket=` of `/events/stream` or `/realtime`, where a browser cannot send a header. It"
    " has the rights of the key and opens streams for one minute; open streams continue after that.",
    answer=Answer("StreamTicket", "The ticket.", headers=("Cache-Control",)),
    problems=(422,),
    schemas=_ticket,
)


def routes() -> Iterator[Route]:
    """The route of tickets."""
    yield Route(
        "POST",
        "/stream-tickets",
        "stream-tickets.create",
        "",
        create,
        None,
        "Create a ticket for a browser's stream",
        body="empty",
        answer="ticket",
        status=201,
        batchable=False,
        document=TICKET,
    )
