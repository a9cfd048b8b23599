"""What a webhook is, and how many and how large they may be."""

from typing import Final

from taskade_server.engine.model import Field, Relation, Resource

READER: Final = "webhooks"
"""The reader of the log that makes deliveries."""

MAX_WEBHOOKS: Final = 200
"""In one workspace."""

MAX_TOTAL_WEIGHT: Final = 2_000
"""Of the filters of all enabled webhooks of a workspace; see `filters.Size`."""

MAX_HEADERS: Final = 20

MAX_OLD_SECRETS: Final = 10

OVERLAP_HOURS: Final = 24

MAX_OVERLAP_HOURS: Final = 168

WEBHOOK: Final = Resource(
    "webhook", "webhooks", "wh",
    "A subscription to events: each is sent to the URL as a signed POST, in order for each object, until it is taken.",
    (
        Field("user_id", "ref", "On whose behalf it is told of events.", target="user", writable=False, nullable=False),
        Field("project_id", "ref", "If given, only events in this project.", target="project"),
        Field("url", "text", "Where events are sent.", "https://example.com/hooks/taskade", required=True,
              nullable=False, min_length=1, max_length=2000),
        Field("description", "text", "What it is for.", "Tells the billing system.", max_length=500),
        Field("events", "strings", "Which events: types, patterns such as `task.*`, or `*`.",
              ["task.created", "task.completed"], nullable=False, default=["*"], column=False, max_length=60),
        Field("filter", "filter", "If given, only events whose `data` fits this filter, written as for lists."
              " It is kept with ids in the place of handles and e-mail addresses.",
              {"priority": {"$in": ["high", "urgent"]}}, max_length=16_384),
        Field("headers", "object", "Headers to send along; their values are shown to whoever sees the webhook.",
              {"X-Environment": "staging"}, nullable=False, default={}, max_length=8_192),
        Field("enabled", "bool", "Whether events are sent. What happens while they are not is not sent later.", True,
              nullable=False, default=True),
        Field("disabled_at", "time", "When it was disabled.", writable=False),
        Field("disabled_reason", "text", "Why the server disabled it: `gone` (answered 410), `failing`,"
              " `filter_invalid` (the filter can no longer be evaluated) or `filter_too_expensive`.",
              writable=False),
        Field("rate_limit", "integer", "The most deliveries a minute; null for no limit.", 600, minimum=1,
              maximum=1_000_000),
        Field("max_concurrency", "integer", "The most deliveries at a time.", 10, nullable=False, default=10, minimum=1,
              maximum=100),
        Field("payload", "enum", "What is sent of an object: all of it, or (`thin`) its id only.", "full",
              nullable=False, default="full", values=("full", "thin")),
        Field("public_key", "text", "Verifies the `v1a` signatures (Ed25519).",
              "whpk_1P5BBRnlcyMm9jVYFpb5oBzvHkXnRmrL9l5QqE7XTqE=", writable=False),
    ),
    visibility="managed", trash=False, private=(("secrets", "text"), ("rights", "text"), ("spans", "text"),
                                             ("until", "bigint")),
    relations=(
        Relation("user", "user", "one", "user_id", "The user it acts for."),
        Relation("project", "project", "one", "project_id", "The project it is about."),
    ),
    narrower_events={"webhook.disabled": "was disabled by the server: `data.disabled_reason` says why."},
)  # fmt: skip
