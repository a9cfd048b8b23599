"""What webhooks answer beside the resource itself, as JSON Schema: deliveries, their attempts, secrets.

Why apart from the handlers: the OpenAPI document imports the routes, so the routes cannot import the document.
"""

from typing import Any, Final

from taskade_server.domain import hooks
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.kit import ids
from taskade_server.store import deliveries

_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_TIME: Final[Schema] = dict(schema.TIME)
_MAYBE_TIME: Final[Schema] = or_null(_TIME)
_ID: Final[Schema] = {"type": "string", "pattern": ids.pattern("dlv")}
_HEADERS: Final[Schema] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
}


def _object(properties: dict[str, tuple[Schema, str]], text: str, example: dict[str, Any]) -> Schema:
    described = {name: {**part, "description": words} for name, (part, words) in properties.items()}
    return {"type": "object", "description": text, "properties": described, "required": list(described),
            "examples": [example]}  # fmt: skip


_DELIVERY: Final[dict[str, tuple[Schema, str]]] = {
    "id": (_ID, "Unique id."),
    "webhook_id": (id_schema("webhook"), "The webhook."),
    "workspace_id": (id_schema("workspace"), "The webhook's workspace."),
    "event_id": ({"type": "string", "pattern": ids.pattern("evt")}, "The event; also the header `webhook-id`."),
    "seq": ({"type": "integer"}, "The event's number in the workspace."),
    "previous_seq": ({"type": ["integer", "null"]}, "The seq of the event that the webhook was given before."),
    "type": ({"type": "string"}, "The event's type."),
    "object_id": ({"type": "string"}, "What the event is about; its events are delivered one after another."),
    "state": ({"type": "string", "enum": list(deliveries.STATES)}, "What has become of it."),
    "attempts": ({"type": "integer"}, "How many attempts there were."),
    "next_attempt_at": (
        _MAYBE_TIME,
        "When the next is due; null while an earlier event about the same object is pending, and when it is over.",
    ),
    "last_status": ({"type": ["integer", "null"]}, "The HTTP status of the last attempt, if there was an answer."),
    "last_error": ({"type": ["string", "null"]}, "Why the last attempt failed, as a code."),
    "created_at": (_TIME, "When it was made."),
    "finished_at": (_MAYBE_TIME, "When it was over."),
}
_DELIVERY_SAMPLE: Final = {
    "id": sample_id("dlv"), "webhook_id": sample_id("wh"), "workspace_id": sample_id("ws"),
    "event_id": sample_id("evt"), "seq": 42, "previous_seq": 41, "type": "task.completed",
    "object_id": sample_id("task"), "state": "pending", "attempts": 1,
    "next_attempt_at": "2024-01-15T10:30:05.000Z", "last_status": 503, "last_error": "bad_status",
    "created_at": "2024-01-15T10:30:00.000Z", "finished_at": None,
}  # fmt: skip
_ATTEMPT: Final[dict[str, tuple[Schema, str]]] = {
    "number": ({"type": "integer"}, "1 for the first."),
    "at": (_TIME, "When it began."),
    "duration_ms": ({"type": "number"}, "How long it took, from looking up the name to the answer's last byte."),
    "address": ({"type": ["string", "null"]}, "The address and port that were connected to."),
    "request_headers": (_HEADERS, "What was sent, as pairs of name and value."),
    "status": ({"type": ["integer", "null"]}, "The HTTP status, if there was an answer."),
    "response_headers": (_HEADERS, "What came back, as pairs of name and value."),
    "response_body": ({"type": "string"}, "The first 4,096 bytes of the answer."),
    "error": ({"type": ["string", "null"]}, "Why it failed, as a code; null for a success."),
    "detail": ({"type": ["string", "null"]}, "Why it failed, in a sentence."),
}
_ATTEMPT_SAMPLE: Final = {
    "number": 1, "at": "2024-01-15T10:30:00.000Z", "duration_ms": 84.2, "address": "203.0.113.7:443",
    "request_headers": [["webhook-id", sample_id("evt")]], "status": 503, "response_headers": [["Retry-After", "5"]],
    "response_body": "busy", "error": "bad_status",
    "detail": "The endpoint answered 503; only 200 to 299 mean that it has taken the delivery.",
}  # fmt: skip
_LOGGED_SAMPLE: Final = {**_DELIVERY_SAMPLE, "attempt_log": [_ATTEMPT_SAMPLE]}
_SECRETS_SAMPLE: Final = {"secret": _SECRET, "standard_secret": _SECRET,
                          "public_key": hooks.WEBHOOK.fields["public_key"].example, "previous": []}  # fmt: skip


def schemas() -> dict[str, Schema]:
    """The components of what webhooks take and answer."""
    text: Schema = {"type": "string"}
    old = closed(
        {"secret": {**text, "description": "An earlier secret."},
         "expires_at": {**_TIME, "description": "Until when it signs."}},
        required=["secret", "expires_at"],
    )  # fmt: skip
    secrets: dict[str, tuple[Schema, str]] = {
        "secret": (text, "The secret as it was chosen or made: the key of `X-Taskade-Signature`."),
        "standard_secret": (text, "The same secret as libraries of Standard Webhooks take it."),
        "public_key": (text, "Verifies the `v1a` signatures."),
        "previous": ({"type": "array", "items": old}, "Earlier secrets that still sign, and until when."),
    }
    attempts: Schema = {"type": "array", "items": ref("DeliveryAttempt")}
    whole = schema.received(hooks.WEBHOOK, {"secret": {**text, "description": "The secret.", "readOnly": True}})
    return {
        "WebhookCreated": {**whole, "description": "A new webhook with its secret.",
                           "examples": [{**schema.sample(hooks.WEBHOOK), "secret": _SECRET}]},
        "Delivery": _object(_DELIVERY, "One event for one webhook.", _DELIVERY_SAMPLE),
        "DeliveryAttempt": _object(_ATTEMPT, "One attempt to deliver.", _ATTEMPT_SAMPLE),
        "DeliveryWithAttempts": _object(_DELIVERY | {"attempt_log": (attempts, "All attempts, in order.")},
                                        "A delivery with its attempts.", _LOGGED_SAMPLE),
        "WebhookSecrets": _object(secrets, "What signs a webhook's deliveries.", _SECRETS_SAMPLE),
        "WebhookRotateSecret": closed(
            {"secret": {"type": ["string", "null"], "minLength": 8, "maxLength": 256,
                        "description": "The new secret; one is made unless it is given."},
             "overlap_hours": {"type": "integer", "minimum": 0, "maximum": hooks.MAX_OVERLAP_HOURS,
                               "default": hooks.OVERLAP_HOURS, "description": "How long the old one goes on signing."}},
            description="How to replace a secret."),
    }  # fmt: skip


CREATE_EXTRA: Final[Schema] = {
    "secret": {"type": ["string", "null"], "minLength": 8, "maxLength": 256,
               "description": "A secret of your own: any text, or `whsec_` and base64. One is made unless it is given.",
               "examples": ["your_webhook_secret"]},
}  # fmt: skip
SAMPLE_SECRET: Final = _SECRET
ANSWERS: Final[dict[str, tuple[str, str, Any]]] = {
    "webhooks.secret": ("WebhookSecrets", "The secrets.", _SECRETS_SAMPLE),
    "webhooks.rotate_secret": ("WebhookSecrets", "The secrets from now on.", _SECRETS_SAMPLE),
    "webhooks.deliveries": ("[Delivery]", "Deliveries in a bare array.", [_DELIVERY_SAMPLE]),
    "webhooks.delivery": ("DeliveryWithAttempts", "The delivery.", _LOGGED_SAMPLE),
    "webhooks.resend": ("Delivery", "The delivery, pending again.", _DELIVERY_SAMPLE),
}
"""By operation: the schema (in brackets: a list of it), what it is, and an example."""
_STATES: Final[Schema] = {"type": "array", "items": {"type": "string", "enum": list(deliveries.STATES)}}
PARAMETERS: Final[dict[str, Schema]] = {
    "Delivery": {"name": "delivery", "in": "path", "required": True, "example": sample_id("dlv"),
                 "schema": {"type": "string", "pattern": "^[^/]+$"},
                 "description": "The id of a delivery, or of its event."},
    "DeliveryState": {"name": "state", "in": "query", "style": "form", "explode": False, "schema": _STATES,
                      "description": "Only deliveries in one of these states."},
    "DeliveryType": {"name": "type", "in": "query", "style": "form", "explode": False,
                     "schema": {"type": "array", "items": {"type": "string"}},
                     "description": "Only events of one of these types."},
    "DeliveryLimit": {"name": "limit", "in": "query", "description": "How many at most.",
                      "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    "BeforeSeq": {"name": "before_seq", "in": "query", "schema": {"type": "integer", "minimum": 1},
                  "description": "Only events with a lower seq; `Link` has it for the next page."},
}  # fmt: skip
OF_LIST: Final = ("DeliveryState", "DeliveryType", "DeliveryLimit", "BeforeSeq")
