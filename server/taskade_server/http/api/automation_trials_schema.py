"""What the operations that explain automations say about themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.http.api.automations import ONE_RUN
from taskade_server.http.api.document import Answer, Document

_TEXT: Final[Schema] = {"type": "string"}
_MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_ANYTHING: Final[Schema] = {"type": "object", "additionalProperties": True}
_Members = Mapping[str, tuple[Schema, str]]
_CHECK_SAMPLE: Final = {
    "check": "condition",
    "holds": False,
    "detail": "The condition does not hold.",
    "tree": {"all": [{"field": "priority", "operator": "$in", "actual": "low", "holds": False}], "holds": False},
}
_TREE_TEXT: Final = (
    "What the condition asks for, with `holds` at each part: an object with `all`, `any` or `not`, or a comparison with"
    " `field`, `operator` and the `actual` value. Null for other checks."
)
_CHECK: Final[_Members] = {
    "check": (
        _TEXT,
        "What is asked: `enabled`, `trigger`, `types`, `object`, `project`, `rights`, `changed`,"
        " `condition`, `loop` or `origin`.",
    ),
    "holds": (_FLAG, "Whether it is so."),
    "detail": (_TEXT, "The same in a sentence."),
    "tree": (or_null(_ANYTHING), _TREE_TEXT),
}
_CHECKS: Final[Schema] = {"type": "array", "items": ref("AutomationCheck")}
_TRIAL: Final[_Members] = {
    "state": (
        {"type": "string"},
        "How the run would end: a state of runs, or `unfinished` for one that goes on for"
        " longer than a trial does, or waits for what cannot be tried.",
    ),
    "reason": (_MAYBE_TEXT, "Why it would end so, as a word: of what starts nothing, the check that does not hold."),
    "detail": (_MAYBE_TEXT, "Why it would end so, in a sentence."),
    "timeline": (
        {"type": "array", "items": ref("RunStep")},
        "What it would do, in order. A wait has `would_wait_until` in its `detail`.",
    ),
    "hidden_changes": (_COUNT, "How many changes it would make that you cannot see."),
    "changes": (
        {"type": "array", "items": ref("RevertChange")},
        "The changes that it would make, as far as you see them.",
    ),
}
_TESTED: Final[_Members] = {
    "starts": (_FLAG, "Whether what it was tried with starts a run; always true for an object."),
    "checks": (_CHECKS, "What the event had to satisfy; empty if it was tried with an object, or with nothing."),
    "limited": (
        _FLAG,
        "Whether it was tried with another key than that which it acts with: what only that one sees is"
        " then left out, and may make a difference.",
    ),
    **_TRIAL,
}
_TEST_SAMPLE: Final = {
    "starts": False,
    "checks": [_CHECK_SAMPLE],
    "limited": False,
    "state": "skipped",
    "reason": "condition",
    "detail": "The condition does not hold.",
    "timeline": [],
    "hidden_changes": 0,
    "changes": [],
}


_EXPLAINED: Final[_Members] = {
    "event_id": (ref("EventId"), "The event."),
    "version": (
        {"type": ["integer", "null"]},
        "The version of the automation that held when it happened; null if it was not enabled then, or there was none.",
    ),
    "starts": (_FLAG, "Whether all checks hold."),
    "checks": (_CHECKS, "What the event had to satisfy, one after another."),
    "pending": (_FLAG, "Whether the server has not come to it yet."),
    "run": (
        or_null(ref("Run")),
        "The run that it started: its `state` and `reason` say what became of it. A `loop` or"
        " a spent `budget` is a run in the state `skipped`.",
    ),
}
_EXPLAINED_SAMPLE: Final = {
    "event_id": sample_id("evt"),
    "version": 1,
    "starts": False,
    "checks": [_CHECK_SAMPLE],
    "pending": False,
    "run": None,
}


def members(properties: _Members, text: str, example: Any = None) -> Schema:
    """The schema of an answer, all of whose members are always there."""
    described = {name: {**part, "description": words} for name, (part, words) in properties.items()}
    found: Schema = {"type": "object", "description": text, "properties": described, "required": list(described)}
    return found if example is None else {**found, "examples": [example]}


def _tests() -> Mapping[str, Schema]:
    sample = closed(
        {
            "type": {
                "type": ["string", "null"],
                "description": "The type of the event. Default: one that the trigger is about.",
            },
            "data": {**_ANYTHING, "description": "The object as it would be; what is left out is null."},
            "previous": {
                **or_null(_ANYTHING),
                "description": "The values before, of what changed; null if it was created.",
            },
        },
        required=["data"],
        description="An event that is made up.",
    )
    body = closed(
        {
            "event_id": {**_MAYBE_TEXT, "description": "An event: it is first asked whether it starts a run at all."},
            "object_id": {**_MAYBE_TEXT, "description": "An object, as if an event had just told of it as it is."},
            "sample": {**or_null(ref("AutomationSample")), "description": "An event that is made up."},
            "input": {**or_null(_ANYTHING), "description": "What the actions find as `input`."},
        },
        description="What to try an automation with. Only one that no event starts can be tried with nothing.",
    )
    return {
        "AutomationSample": sample,
        "AutomationTest": body,
        "AutomationCheck": members(_CHECK, "One thing that an event has to satisfy to start a run.", _CHECK_SAMPLE),
        "AutomationTested": members(_TESTED, "What an automation would do.", _TEST_SAMPLE),
    }


def _explanations() -> Mapping[str, Schema]:
    return {
        "AutomationExplain": closed(
            {"event_id": ref("EventId", "The event.")}, required=["event_id"], description="What to explain."
        ),
        "AutomationExplained": members(_EXPLAINED, "Why an event has started a run, or why not.", _EXPLAINED_SAMPLE),
    }


def _retries() -> Mapping[str, Schema]:
    beginning = {
        "type": ["string", "null"],
        "enum": ["failure", "start", None],
        "default": "failure",
        "description": "From where it failed, with what it knew, by the version that it began with; or anew,"
        " by the present one.",
    }
    return {"RunRetry": closed({"from": beginning}, description="Where to begin.")}


RETRY: Final = Document(
    notes="It becomes a run of its own, with the cause `retry`. Actions that are one transaction with the one that"
    " failed are done again: they were taken back with it.",
    body="RunRetry",
    body_required=False,
    examples={"start": ("Anew", {"from": "start"})},
    in_path=ONE_RUN,
    answer=Answer("Run", "The new run."),
    problems=(409,),
    schemas=_retries,
)


def _reverts() -> Mapping[str, Schema]:
    done: _Members = {
        "reverted": ({"type": "array", "items": ref("EventId")}, "The events that were undone."),
        "changes": ({"type": "array", "items": ref("RevertChange")}, "What was done for that, in order."),
        "not_undone": ({"type": "array", "items": ref("RunStep")}, "Steps that cannot be undone: requests to others."),
    }
    example = {"reverted": [sample_id("evt")], "changes": [], "not_undone": []}
    return {"RunReverted": members(done, "What was undone of a run.", example)}


REVERT: Final = Document(
    notes="Undoes everything that the run changed, all or nothing, by the rules of `POST /events/revert`: with the"
    " rights of the caller, and refused if somebody has changed the same since. It starts no automation, but those that"
    " `include` says so of. `dry_run` gives a preview.",
    in_path=ONE_RUN,
    answer=Answer("RunReverted", "What was undone, or with `dry_run` what would be."),
    problems=(409,),
    schemas=_reverts,
)
_START: Final[_Members] = {
    "event_id": (ref("EventId"), "The event."),
    "seq": ({"type": "integer"}, "Its number in the workspace."),
    "type": (_TEXT, "Its type."),
    "timestamp": (dict(schema.TIME), "When it happened."),
    "object_id": (_TEXT, "The object that the run would have been about."),
}
_START_SAMPLE: Final = {
    "event_id": sample_id("evt"),
    "seq": 42,
    "type": "task.updated",
    "timestamp": "2024-01-15T10:30:00.000Z",
    "object_id": sample_id("task"),
}
_OBJECT_COUNT: Final[_Members] = {
    "object_id": (_TEXT, "The object."),
    "starts": (_COUNT, "How often a run about it would have been started."),
}
_PREVIEWED: Final[_Members] = {
    "looked": (_COUNT, "How many events were looked at."),
    "count": (_COUNT, "How often it would have run."),
    "circles": (_COUNT, "How often it would have been skipped because of the automations that led to the event."),
    "starts": (
        {"type": "array", "items": ref("AutomationWouldStart"), "maxItems": 100},
        "The first events that would have started a run.",
    ),
    "objects": (
        {"type": "array", "items": ref("AutomationObjectCount"), "maxItems": 100},
        "The objects with most runs.",
    ),
    "object_count": (_COUNT, "How many objects it would have run about."),
    "next_after_seq": (
        {"type": ["integer", "null"]},
        "There is more: go on with this as `after_seq`. Null if that was all.",
    ),
    "disabled_reason": (_MAYBE_TEXT, "Why the server would have disabled it at this place; null if it would not."),
    "limited": (_FLAG, "Whether it was tried with another key than that which it acts with."),
    "trials": (
        {"type": "array", "items": ref("AutomationTrial"), "maxItems": 10},
        "What the first runs would do, each by itself, with the objects as they are now.",
    ),
}
_PREVIEW_SAMPLE: Final = {
    "looked": 1200,
    "count": 1,
    "circles": 0,
    "starts": [_START_SAMPLE],
    "objects": [{"object_id": sample_id("task"), "starts": 1}],
    "object_count": 1,
    "next_after_seq": None,
    "disabled_reason": None,
    "limited": False,
    "trials": [],
}


def _previews() -> Mapping[str, Schema]:
    body = closed(
        {
            "automation": {**or_null(ref("AutomationCreate")), "description": "An automation that need not exist."},
            "automation_id": {**or_null(id_schema("automation")), "description": "One that there is."},
            "since": {**or_null(ref("Moment")), "description": "From when on. Default: 30 days ago."},
            "after_seq": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "Behind which event to begin, in place of `since`.",
            },
            "trials": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": 10,
                "default": 10,
                "description": "How many runs to carry out and take back. With 0 it looks at most events.",
            },
        },
        description="Which automation to try, and on what.",
    )
    event: tuple[Schema, str] = (ref("AutomationWouldStart"), "The event.")
    return {
        "AutomationPreview": body,
        "AutomationWouldStart": members(_START, "An event that would have started a run.", _START_SAMPLE),
        "AutomationObjectCount": members(_OBJECT_COUNT, "How often an automation would have run about an object."),
        "AutomationTrial": members({"event": event, **_TRIAL}, "What a run would do."),
        "AutomationPreviewed": members(_PREVIEWED, "When an automation would have run.", _PREVIEW_SAMPLE),
    }


PREVIEW: Final = Document(
    notes="Tells when an automation would have run, by what reads the log for those that there are; of what the caller"
    " sees. Its mode, and how often it may start, are not considered. At most 100,000 events are looked at, or as"
    " many as one request may.",
    body="AutomationPreview",
    examples={
        "stored": ("One that there is", {"automation_id": sample_id("auto"), "since": "-30d"}),
        "count": ("Only count", {"automation_id": sample_id("auto"), "since": "-90d", "trials": 0}),
    },
    answer=Answer("AutomationPreviewed", "When it would have run."),
    problems=(409,),
    schemas=_previews,
)


def _warnings() -> Mapping[str, Schema]:
    warning: _Members = {
        "code": ({"type": "string", "enum": ["possible_circle"]}, "What may go wrong."),
        "pointer": (_TEXT, "The operation or action that it begins with, as a JSON Pointer."),
        "detail": (_TEXT, "The same in a sentence."),
        "automation_ids": (
            {"type": "array", "items": _MAYBE_TEXT},
            "The automations that lead to each other, up to this one; null for one that you cannot see.",
        ),
    }
    example = {
        "code": "possible_circle",
        "pointer": "/actions/0/operations/0",
        "detail": "What this action changes may start the automation again.",
        "automation_ids": [sample_id("auto")],
    }
    return {"AutomationWarning": members(warning, "Something that may go wrong with an automation.", example)}


WARNINGS: Final = Document(
    notes="By what the automation and the enabled ones of its workspace say: whether what it changes may start it"
    " again, by itself or through others. Conditions are not considered. Nothing is refused because of that: runs that"
    " a circle leads to are skipped, unless the automation is `reentrant`.",
    answer=Answer("AutomationWarning", "What may go wrong; empty if nothing is known.", many=True),
    schemas=_warnings,
)
EXPLAIN: Final = Document(
    notes="By the definition that held when it happened, and by the rights that the automation has now.",
    body="AutomationExplain",
    examples={"event": ("An event", {"event_id": sample_id("evt")})},
    answer=Answer("AutomationExplained", "What the event had to satisfy, and what became of it."),
    problems=(404, 422),
    cached=False,
    schemas=_explanations,
)
TEST: Final = Document(
    notes="The run itself, of which nothing is kept: no change, no event and no request to others. What it waits for is"
    " taken to come at once. It has the rights of the automation's key, as far as they are about what you can see; an"
    " automation of somebody else takes the role admin.",
    body="AutomationTest",
    examples={
        "event": ("With an event", {"event_id": sample_id("evt")}),
        "object": ("With an object", {"object_id": sample_id("task")}),
        "sample": ("With an event that is made up", {"sample": {"data": {"name": "A task", "priority": "high"}}}),
    },
    answer=Answer("AutomationTested", "What it would do."),
    problems=(409,),
    schemas=_tests,
)
