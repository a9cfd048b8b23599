"""POST /stream-tickets: a ticket for the stream of a browser, which cannot send a header."""

from collections.abc import Iterator

from taskade_server.http.admission import tickets
from taskade_server.http.api import events_schema
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
        document=events_schema.TICKET,
    )
