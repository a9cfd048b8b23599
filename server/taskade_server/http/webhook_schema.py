"""What webhooks answer beside the resource itself, as JSON Schema: deliveries, their attempts, secrets.

Why apart from the handlers: the OpenAPI document imports the routes, so the routes cannot import the document.
"""

from typing import Any, Final

from taskade_server.domain import hooks
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.kit import ids
from taskade_server.store import deliveries, replays

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
    "replay_id": ({"type": ["string", "null"]}, "The replay that sends it again."),
    "created_at": (_TIME, "When it was made."),
    "finished_at": (_MAYBE_TIME, "When it was over."),
}
_DELIVERY_SAMPLE: Final = {
    "id": sample_id("dlv"), "webhook_id": sample_id("wh"), "workspace_id": sample_id("ws"),
    "event_id": sample_id("evt"), "seq": 42, "previous_seq": 41, "type": "task.completed",
    "object_id": sample_id("task"), "state": "pending", "attempts": 1,
    "next_attempt_at": "2024-01-15T10:30:05.000Z", "last_status": 503, "last_error": "bad_status", "replay_id": None,
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
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_HEALTH: Final[dict[str, tuple[Schema, str]]] = {
    "pending": (_COUNT, "How many deliveries are not yet taken."),
    "oldest_pending_at": (_MAYBE_TIME, "When the oldest of them was made."),
    "last_success_at": (_MAYBE_TIME, "When the endpoint last took something."),
    "last_failure_at": (_MAYBE_TIME, "When an attempt last failed."),
    "failing_since": (_MAYBE_TIME, "Since when it has taken nothing; null while it takes things."),
    "paused_until": (_MAYBE_TIME, "Until when it is left alone, because it asked for that or too much has failed."),
}
_HEALTH_SAMPLE: Final = {"pending": 3, "oldest_pending_at": "2024-01-15T10:30:00.000Z",
                         "last_success_at": "2024-01-15T10:29:00.000Z", "last_failure_at": "2024-01-15T10:30:00.000Z",
                         "failing_since": "2024-01-15T10:30:00.000Z", "paused_until": None}  # fmt: skip
_REPLAY: Final[dict[str, tuple[Schema, str]]] = {
    "id": ({"type": "string", "pattern": ids.pattern("rpl")}, "Unique id."),
    "webhook_id": (id_schema("webhook"), "The webhook."),
    "workspace_id": (id_schema("workspace"), "The webhook's workspace."),
    "kind": ({"type": "string", "enum": [replays.RECOVER, replays.REPLAY]}, "What is sent: what has failed, or all."),
    "state": ({"type": "string", "enum": list(replays.STATES)}, "`done`: all is queued, if not yet taken."),
    "after_seq": (_COUNT, "It begins behind this event."),
    "to_seq": (_COUNT, "It ends with this event."),
    "position": (_COUNT, "The event up to which it has come."),
    "events": ({"type": "array", "items": {"type": "string"}}, "Only these types or patterns."),
    "missing_only": ({"type": "boolean"}, "Only what the webhook was never sent."),
    "since": (_MAYBE_TIME, "Only deliveries made since then."),
    "queued": (_COUNT, "How many deliveries it has queued so far."),
    "deliveries": (closed({state: {**_COUNT, "description": f"How many are {state}."} for state in deliveries.STATES},
                          required=list(deliveries.STATES)),
                   "How many of these are in which state."),
    "created_by": ({"type": ["string", "null"]}, "Who began it."),
    "created_at": (_TIME, "When it was begun."),
    "finished_at": (_MAYBE_TIME, "When it was over."),
}  # fmt: skip
_REPLAY_SAMPLE: Final = {
    "id": sample_id("rpl"), "webhook_id": sample_id("wh"), "workspace_id": sample_id("ws"), "kind": "replay",
    "state": "running", "after_seq": 0, "to_seq": 4200, "position": 1500, "events": ["task.*"], "missing_only": False,
    "since": None, "queued": 700, "deliveries": {"pending": 500, "succeeded": 200, "failed": 0, "cancelled": 0},
    "created_by": sample_id("user"), "created_at": "2024-01-15T10:30:00.000Z", "finished_at": None,
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
        "WebhookHealth": _object(_HEALTH, "How an endpoint is doing.", _HEALTH_SAMPLE),
        "WebhookReplayState": _object(_REPLAY, "Sending again, and how far that is.", _REPLAY_SAMPLE),
        "WebhookRecover": closed(
            {"since": {**_TIME, "description": "Deliveries that were made since then.",
                       "examples": ["2024-01-15T00:00:00Z"]}},
            required=["since"], description="Which failed deliveries to send again."),
        "WebhookReplay": closed(
            {"after_seq": {"type": ["integer", "null"], "minimum": 0, "description": "Behind this event."},
             "to_seq": {"type": ["integer", "null"], "minimum": 0, "description": "Up to this one; now if not given."},
             "from": {**_MAYBE_TIME, "description": "Not before this time."},
             "to": {**_MAYBE_TIME, "description": "Before this time."},
             "events": {"type": "array", "items": text, "minItems": 1, "default": ["*"],
                        "description": "Only these, of what the webhook wants."},
             "missing_only": {"type": "boolean", "default": False,
                              "description": "Only what it was never sent: from before it was made, or while it was"
                                             " disabled."}},
            description="Which events to send: `after_seq` or `from` says where to begin."),
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
    "webhooks.test": ("Delivery", "The delivery, which is about to be sent.", _DELIVERY_SAMPLE),
    "webhooks.health": ("WebhookHealth", "How the endpoint is doing.", _HEALTH_SAMPLE),
    "webhooks.recover": ("WebhookReplayState", "The replay that has begun.", _REPLAY_SAMPLE),
    "webhooks.replay": ("WebhookReplayState", "The replay that has begun.", _REPLAY_SAMPLE),
    "webhooks.replays": ("[WebhookReplayState]", "Replays in a bare array.", [_REPLAY_SAMPLE]),
    "webhooks.get_replay": ("WebhookReplayState", "The replay.", _REPLAY_SAMPLE),
    "webhooks.cancel_replay": ("WebhookReplayState", "The replay as it ended.", _REPLAY_SAMPLE),
    "webhooks.resend": ("Delivery", "The delivery, pending again.", _DELIVERY_SAMPLE),
}
"""By operation: the schema (in brackets: a list of it), what it is, and an example."""
_STATES: Final[Schema] = {"type": "array", "maxItems": 50, "items": {"type": "string", "enum": list(deliveries.STATES)}}


def _several(name: str, text: str) -> Schema:
    return {"name": name, "in": "query", "style": "form", "explode": False, "description": text,
            "schema": {"type": "array", "items": {"type": "string"}, "maxItems": 50}}  # fmt: skip


PARAMETERS: Final[dict[str, Schema]] = {
    "Delivery": {"name": "delivery", "in": "path", "required": True, "example": sample_id("dlv"),
                 "schema": {"type": "string", "pattern": "^[^/]+$"},
                 "description": "The id of a delivery, or of its event."},
    "Replay": {"name": "replay", "in": "path", "required": True, "example": sample_id("rpl"),
               "schema": {"type": "string", "pattern": "^[^/]+$"}, "description": "The id of a replay."},
    "DeliveryState": {"name": "state", "in": "query", "style": "form", "explode": False, "schema": _STATES,
                      "description": "Only deliveries in one of these states."},
    "DeliveryType": _several("type", "Only events of one of these types."),
    "DeliveryLimit": {"name": "limit", "in": "query", "description": "How many at most.",
                      "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    "DeliveryObject": _several("object_id", "Only events about one of these objects."),
    "DeliveryEvent": _several("event_id", "Only these events."),
    "DeliveryReplay": _several("replay_id", "Only what one of these replays sends."),
    "DeliveryAfter": {"name": "after", "in": "query", "schema": _TIME, "description": "Made then or later."},
    "DeliveryBefore": {"name": "before", "in": "query", "schema": _TIME, "description": "Made before."},
    "DeliveryCursor": {"name": "cursor", "in": "query", "schema": {"type": "string"},
                       "description": "Where to go on; `Link` has it for the next page."},
}  # fmt: skip
OF_LIST: Final = (
    "DeliveryState", "DeliveryType", "DeliveryObject", "DeliveryEvent", "DeliveryReplay", "DeliveryAfter",
    "DeliveryBefore", "DeliveryLimit", "DeliveryCursor",
)  # fmt: skip
