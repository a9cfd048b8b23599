"""The webhooks of the OpenAPI document: what the server sends to the addresses that webhooks name, by type of event."""

from typing import Final

from taskade_server.engine import event_schema, events
from taskade_server.engine.schema import Schema, ref, sample_id
from taskade_server.http.documents.headers import JSON
from taskade_server.store.tables import deliveries

_TEXT: Final[Schema] = {"type": "string"}
_ROWS: Final[tuple[tuple[str, str, Schema, str, str], ...]] = (
    ("DeliveredId", "webhook-id", {"type": "string", "pattern": r"^[^.\s]+$"}, sample_id("evt"),
     "The id of the event, the same in every attempt. Remember it, to notice a delivery that comes twice."),
    ("DeliveredTimestamp", "webhook-timestamp", {"type": "string", "pattern": "^[0-9]+$"}, "1705393200",
     "When this attempt was made, in seconds since 1970. Refuse deliveries that are more than five minutes old."),
    ("DeliveredSignature", "webhook-signature",
     {"type": "string", "pattern": "^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$"},
     "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
     "Signatures of `{webhook-id}.{webhook-timestamp}.{body}` as in Standard Webhooks, separated by spaces. Accept the"
     " delivery if one of them is right."),
    ("TaskadeEvent", "x-taskade-event", _TEXT, "task.completed", "The type of the event."),
    ("TaskadeDelivery", "x-taskade-delivery", ref("DeliveryId"), sample_id("dlv"),
     "The id of the delivery, for `GET /webhooks/{id}/deliveries/{delivery}`."),
    ("TaskadeSignature", "x-taskade-signature", {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"},
     f"sha256={'0f' * 32}", "HMAC-SHA256 of the body alone, for receivers that check nothing else."),
)  # fmt: skip
DELIVERY_PARAMETERS: Final[Schema] = {
    key: {"name": name, "in": "header", "required": True, "schema": form, "description": text, "example": example}
    for key, name, form, example, text in _ROWS
}
RECEIVERS: Final = {
    "2XX": ("WebhookTaken", "The delivery was accepted. The body is kept in the log of attempts, no more."),
    "410": ("WebhookGone", "The receiver is gone for good. The server disables the webhook."),
    "default": ("WebhookRefused", "The delivery was not accepted. The server sends it again later, and not before the"
                " time in `Retry-After` if the response has one."),
}  # fmt: skip
"""What a receiver can answer: by status, the name of the response and its description."""
THIN: Final = "thin"
"""The name under which the document has the body of all thin deliveries."""


def receiver_responses() -> Schema:
    """The components of what a receiver can answer."""
    return {name: {"description": text} for name, text in RECEIVERS.values()}


def webhooks() -> Schema:
    """One entry for each type of event, one for thin deliveries of any type, and one for tests."""
    found = {}
    for kind in events.catalogue().values():
        group = kind.name.partition(".")[0]
        text = f"Sent to webhooks whose `events` contain `{kind.name}`, `{group}.*` or `*`."
        found[kind.name] = _webhook(kind.name, kind.summary, text, event_schema.name_of(kind.resource))
    text = (
        'Sent instead of the whole event to webhooks with `"payload": "thin"`: `data` has nothing but the id, so that'
        " the receiver reads the object itself, with its own rights."
    )
    found[THIN] = _webhook(THIN, "An event of any type, without its data.", text, event_schema.THIN)
    text = "Sent when a webhook is tested, whatever its `events` are. It is in no log."
    found[deliveries.TEST] = _webhook(deliveries.TEST, "A test of the webhook.", text, event_schema.THIN)
    return found


def _webhook(name: str, summary: str, text: str, body: str) -> Schema:
    operation = {
        "operationId": f"on.{name}",
        "summary": summary,
        "description": text,
        "tags": ["Event types"],
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{parameter}"} for parameter in DELIVERY_PARAMETERS],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref(body)}}},
        "responses": {status: {"$ref": f"#/components/responses/{known}"} for status, (known, _) in RECEIVERS.items()},
    }
    return {"post": operation}
