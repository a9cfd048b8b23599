"""What the operations of webhooks, deliveries and replays say about themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain import webhooks
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, extended, id_schema, or_null, ref, sample_id
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Answer, Document
from taskade_server.kit import ids
from taskade_server.store.tables import deliveries, replays

_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_TIME: Final[Schema] = dict(schema.TIME)
_MAYBE_TIME: Final[Schema] = or_null(_TIME)
_HEADERS: Final[Schema] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
}


def _object(properties: dict[str, tuple[Schema, str]], text: str, example: dict[str, Any]) -> Schema:
    described = {name: {**part, "description": words} for name, (part, words) in properties.items()}
    return {
        "type": "object",
        "description": text,
        "properties": described,
        "required": list(described),
        "examples": [example],
    }


_DELIVERY: Final[dict[str, tuple[Schema, str]]] = {
    "id": (ref("DeliveryId"), "The id."),
    "webhook_id": (id_schema("webhook"), "The webhook."),
    "workspace_id": (id_schema("workspace"), "The workspace of the webhook."),
    "event_id": (ref("EventId"), "The event, which is also the header `webhook-id`."),
    "seq": ({"type": "integer"}, "The number of the event in the workspace."),
    "previous_seq": ({"type": ["integer", "null"]}, "The `seq` of the event that the webhook was sent before this."),
    "type": ({"type": "string"}, "The type of the event."),
    "object_id": ({"type": "string"}, "The object of the event. Events of one object are delivered one after another."),
    "state": (ref("DeliveryState"), "What has become of it."),
    "attempts": ({"type": "integer"}, "How many attempts there have been."),
    "next_attempt_at": (
        _MAYBE_TIME,
        "When the next attempt is due. Null while an earlier event of the object is pending, and at the end.",
    ),
    "last_status": ({"type": ["integer", "null"]}, "The HTTP status of the last attempt, if there was a response."),
    "last_error": ({"type": ["string", "null"]}, "Why the last attempt failed, as a code."),
    "replay_id": ({"type": ["string", "null"]}, "The replay that sends it again."),
    "created_at": (_TIME, "When it was created."),
    "finished_at": (_MAYBE_TIME, "When it was delivered or given up."),
}
_DELIVERY_SAMPLE: Final = {
    "id": sample_id("dlv"), "webhook_id": sample_id("wh"), "workspace_id": sample_id("ws"),
    "event_id": sample_id("evt"), "seq": 42, "previous_seq": 41, "type": "task.completed",
    "object_id": sample_id("task"), "state": "pending", "attempts": 1,
    "next_attempt_at": "2024-01-15T10:30:05.000Z", "last_status": 503, "last_error": "bad_status", "replay_id": None,
    "created_at": "2024-01-15T10:30:00.000Z", "finished_at": None,
}  # fmt: skip
_ATTEMPT: Final[dict[str, tuple[Schema, str]]] = {
    "number": ({"type": "integer"}, "The number of the attempt, from 1."),
    "at": (_TIME, "When it began."),
    "duration_ms": (
        {"type": "number"},
        "How long it took, from the look-up of the name to the last byte of the response.",
    ),
    "address": ({"type": ["string", "null"]}, "The address and port of the connection."),
    "request_headers": (_HEADERS, "The headers that were sent, as pairs of name and value."),
    "status": ({"type": ["integer", "null"]}, "The HTTP status, if there was a response."),
    "response_headers": (_HEADERS, "The headers of the response, as pairs of name and value."),
    "response_body": ({"type": "string"}, "The first 4,096 bytes of the response."),
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
    "pending": (_COUNT, "How many deliveries have not been accepted yet."),
    "oldest_pending_at": (_MAYBE_TIME, "When the oldest of them was created."),
    "last_success_at": (_MAYBE_TIME, "When the endpoint last accepted a delivery."),
    "last_failure_at": (_MAYBE_TIME, "When an attempt last failed."),
    "failing_since": (_MAYBE_TIME, "Since when it has accepted nothing; null while it accepts deliveries."),
    "paused_until": (
        _MAYBE_TIME,
        "Until when nothing is sent, because the endpoint asked for that or because too much has failed.",
    ),
    "disabled_reason": ({"type": ["string", "null"]}, "Why the server disabled the webhook; null if it has not."),
}
_HEALTH_SAMPLE: Final = {"pending": 3, "oldest_pending_at": "2024-01-15T10:30:00.000Z",
                         "last_success_at": "2024-01-15T10:29:00.000Z", "last_failure_at": "2024-01-15T10:30:00.000Z",
                         "failing_since": "2024-01-15T10:30:00.000Z", "paused_until": None,
                         "disabled_reason": None}  # fmt: skip
_REPLAY: Final[dict[str, tuple[Schema, str]]] = {
    "id": (ref("ReplayId"), "The id."),
    "webhook_id": (id_schema("webhook"), "The webhook."),
    "workspace_id": (id_schema("workspace"), "The workspace of the webhook."),
    "kind": (ref("ReplayKind"), "Whether it sends what has failed, or everything."),
    "state": (ref("ReplayState"), "How far it is. `done`: everything is queued, if perhaps not yet delivered."),
    "after_seq": (_COUNT, "It begins after this event."),
    "to_seq": (_COUNT, "It ends with this event."),
    "position": (_COUNT, "The event that it has reached."),
    "events": ({"type": "array", "items": {"type": "string"}}, "Only these types or patterns of events."),
    "missing_only": ({"type": "boolean"}, "Only events that the webhook was never sent."),
    "since": (_MAYBE_TIME, "Only deliveries that were created since then."),
    "queued": (_COUNT, "How many deliveries it has queued so far."),
    "deliveries": (closed(
        {state: {**_COUNT, "description": f"How many are in the state `{state}`."} for state in deliveries.STATES},
        required=list(deliveries.STATES),
    ), "How many of these are in each state."),
    "created_by": ({"type": ["string", "null"]}, "The user who started it."),
    "created_at": (_TIME, "When it was started."),
    "finished_at": (_MAYBE_TIME, "When it ended."),
}  # fmt: skip
_REPLAY_SAMPLE: Final = {
    "id": sample_id("rpl"), "webhook_id": sample_id("wh"), "workspace_id": sample_id("ws"), "kind": "replay",
    "state": "running", "after_seq": 0, "to_seq": 4200, "position": 1500, "events": ["task.*"], "missing_only": False,
    "since": None, "queued": 700, "deliveries": {"pending": 500, "succeeded": 200, "failed": 0, "cancelled": 0},
    "created_by": sample_id("user"), "created_at": "2024-01-15T10:30:00.000Z", "finished_at": None,
}  # fmt: skip
_LOGGED_SAMPLE: Final = {**_DELIVERY_SAMPLE, "attempt_log": [_ATTEMPT_SAMPLE]}
_SECRETS_SAMPLE: Final = {
    "secret": _SECRET,
    "standard_secret": _SECRET,
    "public_key": webhooks.WEBHOOK.fields["public_key"].example,
    "previous": [],
}


def _secrets() -> Mapping[str, Schema]:
    text: Schema = {"type": "string"}
    earlier = closed(
        {
            "secret": {**text, "description": "The secret."},
            "expires_at": {**_TIME, "description": "Until when it signs deliveries."},
        },
        required=["secret", "expires_at"],
        description="An earlier secret that still signs deliveries.",
    )
    rows: dict[str, tuple[Schema, str]] = {
        "secret": (text, "The secret as it was given or generated: the key of `X-Taskade-Signature`."),
        "standard_secret": (text, "The same secret in the form that libraries of Standard Webhooks take."),
        "public_key": (text, "The public key of the `v1a` signatures."),
        "previous": ({"type": "array", "items": ref("EarlierSecret")}, "Earlier secrets that still sign deliveries."),
    }
    whole = _object(rows, "The secrets that sign the deliveries of a webhook.", _SECRETS_SAMPLE)
    return {"WebhookSecrets": whole, "EarlierSecret": earlier}


def _rotation() -> Mapping[str, Schema]:
    return {
        "WebhookRotateSecret": closed(
            {
                "secret": {
                    "type": ["string", "null"],
                    "minLength": 8,
                    "maxLength": 256,
                    "description": "The new secret. Default: the server generates one.",
                },
                "overlap_hours": {
                    "type": ["integer", "null"],
                    "minimum": 0,
                    "maximum": webhooks.MAX_OVERLAP_HOURS,
                    "description": "How many hours the old secret signs deliveries as well. Default:"
                    f" `{webhooks.OVERLAP_HOURS}`.",
                },
            },
            description="How to replace a secret.",
        ),
    }


def _created() -> Mapping[str, Schema]:
    secret = {"secret": {"type": "string", "description": "The secret that signs the deliveries."}}
    own = {
        "secret": {
            "type": ["string", "null"],
            "minLength": 8,
            "maxLength": 256,
            "examples": ["your_webhook_secret"],
            "description": "A secret of your own: any text, or `whsec_` and base64. Default: the server generates one.",
        },
    }
    return {
        "WebhookCreate": schema.creation(webhooks.WEBHOOK, own),
        "WebhookCreated": extended(
            "Webhook",
            secret,
            ["secret"],
            description="A new webhook with its secret.",
            examples=[{**schema.sample(webhooks.WEBHOOK), "secret": _SECRET}],
        ),
    }


def _deliveries() -> Mapping[str, Schema]:
    states = {"type": "string", "enum": list(deliveries.STATES), "description": "What has become of a delivery."}
    attempts: Schema = {"type": "array", "items": ref("DeliveryAttempt"), "description": "All attempts, in order."}
    return {
        "DeliveryId": {"type": "string", "pattern": ids.pattern("dlv"), "examples": [sample_id("dlv")],
                       "description": "The id of a delivery."},
        "DeliveryState": states,
        "Delivery": _object(_DELIVERY, "One event for one webhook.", _DELIVERY_SAMPLE),
        "DeliveryAttempt": _object(_ATTEMPT, "One attempt to deliver an event.", _ATTEMPT_SAMPLE),
        "DeliveryWithAttempts": extended("Delivery", {"attempt_log": attempts}, ["attempt_log"],
                                         description="A delivery with all attempts.", examples=[_LOGGED_SAMPLE]),
    }  # fmt: skip


def _health() -> Mapping[str, Schema]:
    return {"WebhookHealth": _object(_HEALTH, "Whether an endpoint accepts deliveries.", _HEALTH_SAMPLE)}


def _replays() -> Mapping[str, Schema]:
    kinds = [replays.RECOVER, replays.REPLAY]
    return {
        "ReplayId": {"type": "string", "pattern": ids.pattern("rpl"), "examples": [sample_id("rpl")],
                     "description": "The id of a replay."},
        "ReplayKind": {"type": "string", "enum": kinds, "description": "What a replay sends."},
        "ReplayState": {"type": "string", "enum": list(replays.STATES), "description": "How far a replay is."},
        "WebhookReplayState": _object(_REPLAY, "A replay and how far it is.", _REPLAY_SAMPLE),
    }  # fmt: skip


def _recovery() -> Mapping[str, Schema]:
    since = {
        **_TIME,
        "description": "Take failed deliveries that were created since then.",
        "examples": ["2024-01-15T00:00:00Z"],
    }
    body = closed({"since": since}, required=["since"], description="Which failed deliveries to send again.")
    return {**_replays(), "WebhookRecover": body}


def _replay() -> Mapping[str, Schema]:
    return {
        "WebhookReplay": closed(
            {
                "after_seq": {"type": ["integer", "null"], "minimum": 0, "description": "After this event."},
                "to_seq": {
                    "type": ["integer", "null"],
                    "minimum": 0,
                    "description": "Up to this one. Default: the last.",
                },
                "from": {**_MAYBE_TIME, "description": "From this time on."},
                "to": {**_MAYBE_TIME, "description": "Before this time."},
                "events": {
                    "type": ["array", "null"],
                    "items": {"type": "string"},
                    "minItems": 1,
                    "description": "Only these types or patterns, of those that the webhook asks for. Default: all"
                    " of them.",
                },
                "missing_only": {
                    "type": ["boolean", "null"],
                    "description": "Only events that the webhook was never sent, because it did not exist yet"
                    " or was disabled. Default: `false`.",
                },
            },
            description="Which events to send. `after_seq` or `from` says where to begin.",
        ),
    }


# ---- parameters ------------------------------------------------------------------------------------------------------


def _several(name: str, text: str, items: Schema | None = None) -> Schema:
    form = {"type": "array", "items": items or {"type": "string"}, "maxItems": 50}
    return {"name": name, "in": "query", "style": "form", "explode": False, "description": text, "schema": form}


def _in_path(name: str, text: str, example: str) -> dict[str, Schema]:
    form = {"type": "string", "pattern": "^[^/]+$"}
    found = {"name": name, "in": "path", "required": True, "example": example, "schema": form, "description": text}
    return {f"Path{name.title()}": found}


_ONE_DELIVERY: Final = _in_path("delivery", "The id of a delivery, or of its event.", sample_id("dlv"))
_ONE_REPLAY: Final = _in_path("replay", "The id of a replay.", sample_id("rpl"))
_LISTING: Final[dict[str, Schema]] = {
    "DeliveryInState": _several("state", "Only deliveries in one of these states.", ref("DeliveryState")),
    "DeliveryType": _several("type", "Only events of one of these types."),
    "DeliveryObject": _several("object_id", "Only events of one of these objects."),
    "DeliveryEvent": _several("event_id", "Only these events."),
    "DeliveryReplay": _several("replay_id", "Only deliveries of one of these replays."),
    "DeliveryAfter": {"name": "after", "in": "query", "schema": _TIME, "description": "Created at or after this time."},
    "DeliveryBefore": {"name": "before", "in": "query", "schema": _TIME, "description": "Created before this time."},
    "DeliveryLimit": {"name": "limit", "in": "query", "description": "How many to return at most.",
                      "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    "DeliveryCursor": {"name": "cursor", "in": "query", "schema": {"type": "string"},
                       "description": "Where the last page ended. `Link` has the whole address of the next page."},
}  # fmt: skip

# ---- the operations --------------------------------------------------------------------------------------------------

WEBHOOKS: Final = documents(
    create={
        "tasks": (
            "What happens to tasks",
            {
                "url": "https://your-app.com/webhook/task-updated",
                "events": ["task.created", "task.updated", "task.completed"],
                "secret": "your_webhook_secret",
            },
        ),
        "urgent": (
            "Urgent work in one project",
            {
                "url": "https://example.com/urgent",
                "events": ["task.*"],
                "project_id": sample_id("proj"),
                "filter": {"priority": {"$in": ["high", "urgent"]}},
            },
        ),
    },
    update={"pause": ("Send nothing for now", {"enabled": False})},
    query={"failing": ("Those that the server has disabled", {"filter": {"disabled_at": {"$exists": True}}})},
    created=Document(notes="The response has the `secret` that signs the deliveries.", schemas=_created),
    delete=Document(notes="Nothing more is sent, not even what is waiting."),
)
SECRET: Final = Document(
    notes="The caller must be allowed to change the webhook, and the key must reach as far as the one that created it.",
    answer=Answer("WebhookSecrets", "The secrets."),
    schemas=_secrets,
)
ROTATE: Final = Document(
    notes="For some hours, deliveries are signed with the old secret as well.",
    body="WebhookRotateSecret",
    body_required=False,
    examples={"week": ("Keep the old one for a week", {"overlap_hours": 168})},
    answer=Answer("WebhookSecrets", "The secrets from now on."),
    schemas=_rotation,
)
DELIVERIES: Final = Document(
    parameters=_LISTING,
    answer=Answer("Delivery", "The deliveries, as an array.", many=True, headers=("Link",)),
    schemas=_deliveries,
)
DELIVERY: Final = Document(answer=Answer("DeliveryWithAttempts", "The delivery."), in_path=_ONE_DELIVERY)
RESEND: Final = Document(
    notes="It keeps its `webhook-id`, so that the receiver can tell that it is the same event.",
    answer=Answer("Delivery", "The delivery, which is pending again."),
    in_path=_ONE_DELIVERY,
)
HEALTH: Final = Document(answer=Answer("WebhookHealth", "The state of the endpoint."), schemas=_health)
TEST: Final = Document(
    notes="Sends an event of the type `webhook.test`, which is tried once. Read the delivery to see how it went.",
    answer=Answer("Delivery", "The delivery, which is about to be sent."),
)
RECOVER: Final = Document(
    notes="Sends all failed deliveries since a time again, as a replay, which continues after a restart of the server.",
    body="WebhookRecover",
    examples={"day": ("What has failed since midnight", {"since": "2024-01-15T00:00:00Z"})},
    answer=Answer("WebhookReplayState", "The new replay.", headers=("Location",)),
    schemas=_recovery,
)
REPLAY: Final = Document(
    notes="A replay sends a little at a time and continues after a restart of the server. What was delivered before"
    " keeps its `webhook-id`.",
    body="WebhookReplay",
    examples={
        "gap": ("Close a gap that was noticed", {"after_seq": 41, "to_seq": 57}),
        "missing": (
            "What happened before the webhook existed",
            {
                "from": "2024-01-01T00:00:00Z",
                "missing_only": True,
                "events": ["task.created"],
            },
        ),
    },
    answer=Answer("WebhookReplayState", "The new replay.", headers=("Location",)),
    schemas=_replay,
)
REPLAYS: Final = Document(
    answer=Answer("WebhookReplayState", "The replays, as an array.", many=True, headers=("Link",))
)
ONE_REPLAY: Final = Document(answer=Answer("WebhookReplayState", "The replay."), in_path=_ONE_REPLAY)
CANCEL: Final = Document(
    notes="What it has queued and nobody has accepted yet is cancelled as well.",
    answer=Answer("WebhookReplayState", "The replay as it ended."),
    in_path=_ONE_REPLAY,
)
