"""What an automation is: a rule that watches the log or the clock, and does something when its trigger fires."""

from typing import Final

from taskade_server.engine.model import Field, Relation, Resource

READER: Final = "automations"
"""The reader of the log that starts runs."""

MAX_AUTOMATIONS: Final = 500
"""In one workspace."""

MAX_DEFINITION: Final = 65_536
"""Characters of the actions as JSON."""

MODES: Final = ("queued", "single", "restart", "parallel")

CATCH_UP: Final = ("latest", "all", "skip")

INCLUDED: Final = ("revert", "import")
"""Changes that trigger nothing unless an automation asks for them."""

DEFINITION: Final = (
    "project_id", "timezone", "trigger", "condition", "now", "actions", "mode", "key", "on_error", "include",
    "reentrant", "catch_up",
)  # fmt: skip
"""The members that say what an automation does. Whoever changes one of them becomes the user it acts for."""

AUTOMATION: Final = Resource(
    "automation", "automations", "auto",
    "A rule: when its trigger fires and its conditions hold, its actions run, with the rights of the API key that"
    " last changed what it does.",
    (
        Field("user_id", "ref", "The user it acts for: whoever last changed what it does.", target="user",
              writable=False, nullable=False),
        Field("api_key_id", "ref", "The API key whose rights it has. It ends with the key.", target="api_key",
              writable=False, filterable=False),
        Field("project_id", "ref", "If given, only events in this project trigger it.", target="project"),
        Field("name", "text", "What it is called.", "Escalate what waits for review", required=True, nullable=False,
              min_length=1, folded=True, sortable=True),
        Field("description", "text", "What it is for.", "Nobody should wait two days for a review.", max_length=2_000),
        Field("enabled", "bool", "Whether its trigger is watched. What happens while it is not starts nothing later.",
              True, nullable=False, default=True),
        Field("disabled_at", "time", "When it was disabled.", writable=False),
        Field("disabled_reason", "text", "Why the server disabled it: `rights` (its API key or user is gone, or may no"
              " longer do this), `failing` (ten runs in a row failed), `filter_invalid` or `filter_too_expensive`.",
              writable=False),
        Field("timezone", "zone", "The IANA time zone of its schedule and of its dates; null for that of the user it"
              " acts for, else the workspace's.", "Europe/Berlin", filterable=False),
        Field("mode", "enum", "What happens when it is triggered while a run with the same key is not over: `queued`"
              " (one after the other), `single` (the new one is dropped), `restart` (the old one ends), `parallel`.",
              "queued", nullable=False, default="queued", values=MODES),
        Field("key", "enum", "What counts as the same for `mode`: runs about the same object, or all runs.", "object",
              nullable=False, default="object", values=("object", "automation")),
        Field("on_error", "enum", "Whether a run ends at an action that fails, or goes on with the next.", "stop",
              nullable=False, default="stop", values=("stop", "continue")),
        Field("include", "strings", "Changes that trigger it although they trigger nothing otherwise: `revert` (an"
              " undo) and `import`.", ["revert"], nullable=False, default=[], column=False, values=INCLUDED),
        Field("reentrant", "bool", "Whether it is triggered by changes that it led to itself, up to a depth of 10.",
              False, nullable=False, default=False, filterable=False),
        Field("catch_up", "enum", "What is done about times that passed while no server ran, within a day: the"
              " `latest`, `all` (100 at most), or `skip`.", "latest", nullable=False, default="latest",
              values=CATCH_UP, filterable=False),
        Field("trigger", "document", "What starts it.",
              {"on": "event", "types": ["task.updated"], "changed": {"status": {"to": ["review"]}}},
              required=True, nullable=False, max_length=16_384),
        Field("condition", "filter", "A filter, written as for lists, of the event's `data` as it was.",
              {"priority": {"$in": ["high", "urgent"]}}, max_length=16_384),
        Field("now", "filter", "A filter of the object as it is when the run begins.",
              {"assignee": None}, max_length=16_384),
        Field("actions", "documents", "What is done, in order.",
              [{"do": "batch", "operations": [{"method": "POST", "path": "/comments", "body": {
                  "task_id": '{"$ref": "event.data.id"}', "body": "Who can review this?"}}]}],
              required=True, nullable=False, max_length=MAX_DEFINITION, max_items=50),
    ),
    visibility="managed", trash=False, search=("name", "description"),
    relations=(
        Relation("user", "user", "one", "user_id", "The user it acts for."),
        Relation("project", "project", "one", "project_id", "The project it is about."),
    ),
    narrower_events={
        "automation.disabled": "was disabled by the server: `data.disabled_reason` says why.",
    },
)  # fmt: skip
