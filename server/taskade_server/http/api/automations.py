"""What the routes of automations do beside the usual: checking the operations in them, runs, and starting by hand.

Why runs are no resource like the others: they change with every step and have no events, or each run would lead to the
next.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from taskade_server.domain import automations
from taskade_server.domain.automations import AUTOMATION
from taskade_server.engine import query, schema
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Resource
from taskade_server.engine.schema import Schema, closed, id_schema, or_null, ref, sample_id
from taskade_server.http.api.automated import AutomatedOperations
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import ResourceDocuments, documents
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.operations import Operations
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.parameters import Parameters
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import ids, json, time
from taskade_server.kit.errors import InvalidQuery, Issue, Malformed, NotFound, did_you_mean
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Filter, Run, Step

MAX_LIMIT: Final = 1000
MAX_BY_HAND: Final = 100
_LISTS: Final = ("state", "object_id", "event_id")
_PARAMETERS: Final = (*_LISTS, "after", "before", "limit", "cursor")


# ---- what all resources have, with the operations checked ------------------------------------------------------------


def options(operations: Operations) -> Options:
    """How the ordinary operations of automations differ: what they say is checked against the operations of the API."""
    checked = AutomatedOperations(operations)

    def create(tx: Tx, context: Context, body: Any) -> str:
        return automations.create(tx, context, checked, body)

    def update(tx: Tx, context: Context, automation_id: str, body: Any) -> str:
        return automations.update(tx, context, checked, automation_id, body)

    return Options(documents=DOCUMENTS, verbs=(create, update))


# ---- runs ------------------------------------------------------------------------------------------------------------


def list_runs(call: Call, tx: Tx) -> Reply:
    """GET /automations/{id}/runs, newest first."""
    automation = automation_of(call, tx)
    parameters = Parameters(call.pairs(), _PARAMETERS, _LISTS)
    for state in parameters.several("state"):
        if state not in runs.STATES:
            detail = f"state is one of {', '.join(runs.STATES)}.{did_you_mean(state, runs.STATES)}"
            parameters.fault("state", "not_allowed", detail)
    wanted = Filter(
        states=parameters.several("state"),
        objects=parameters.several("object_id"),
        events=parameters.several("event_id"),
        after=parameters.instant("after"),
        before=parameters.instant("before"),
    )
    cursor, limit = parameters.text("cursor"), parameters.number("limit", 100, MAX_LIMIT)
    parameters.fail()
    if cursor is not None and _find(tx, automation["id"], cursor) is None:
        detail = "The run is not on record any more; begin anew without the cursor."
        raise InvalidQuery(errors=[Issue("invalid_cursor", detail, parameter="cursor")])
    found = runs.newest(tx, automation["id"], wanted, cursor, limit + 1)
    headers = [call.link_to_next("cursor", found[limit - 1].id)] if len(found) > limit else []
    return Reply(200, json.encode([shown(run) for run in found[:limit]]), headers)


def get_run(call: Call, tx: Tx) -> Reply:
    """GET /automations/{id}/runs/{run}, with its steps."""
    call.no_parameters()
    run = run_of(call, tx)
    return Reply(200, json.encode({**shown(run), "timeline": [shown_step(step) for step in runs.steps_of(tx, run.id)]}))


def start(call: Call, tx: Tx) -> Reply:
    """POST /automations/{id}/runs: start it by hand, once or for each of some objects."""
    call.no_parameters()
    if call.body is not None and not isinstance(call.body, dict):
        raise Malformed('The body is empty or a JSON object such as {"object_ids": ["task_..."], "input": {...}}.')
    started = automations.start_for(tx, call.context(), call.path[0], call.body or {})
    return Reply(202, json.encode([shown(run) for run in started]))


def cancel(call: Call, tx: Tx) -> Reply:
    """POST /automations/{id}/runs/{run}/cancel."""
    call.no_parameters()
    over = automations.cancel(tx, call.context(), *call.path)
    return Reply(200, json.encode(shown(over)))


def health(call: Call, tx: Tx) -> Reply:
    """GET /automations/{id}/health."""
    call.no_parameters()
    automation = automation_of(call, tx)
    failures, last, failed = runs.state_of(tx, automation["id"])
    counts = runs.counts(tx, automation["id"])
    return Reply(
        200,
        json.encode(
            {
                "failures_in_a_row": failures,
                "last_run_at": _time(last),
                "last_failure_at": _time(failed),
                "runs": {state: counts.get(state, 0) for state in runs.STATES},
                "disabled_reason": automation["disabled_reason"],
            }
        ),
    )


def automation_of(call: Call, tx: Tx) -> dict[str, Any]:
    """The automation that the path names. NotFound if it is none that the caller sees."""
    row = query.get(tx, call.principal, AUTOMATION, call.path[0])
    if row is None:
        raise NotFound(f"There is no automation {call.path[0][:80]} that this key can see.")
    found: dict[str, Any] = json.decode(row.document)
    return found


def _find(tx: Tx, automation_id: str, run_id: str) -> Run | None:
    run = runs.find(tx, run_id)
    return run if run is not None and run.automation_id == automation_id else None


def run_of(call: Call, tx: Tx) -> Run:
    """The run that the path names. NotFound if the automation, or the run, is none that the caller sees."""
    run = _find(tx, automation_of(call, tx)["id"], call.path[1])
    if run is None:
        raise NotFound(f"The automation has no run {call.path[1][:80]} on record.")
    return run


def shown(run: Run) -> dict[str, Any]:
    """A run as clients see it."""
    cause = run.cause.partition(":")[0]
    return {
        "id": run.id,
        "automation_id": run.automation_id,
        "workspace_id": run.workspace_id,
        "version": run.version,
        "state": run.state,
        "reason": run.reason,
        "detail": run.detail,
        "cause": cause,
        "event_id": run.event_id,
        "event_seq": run.event_seq,
        "object_id": run.object_id,
        "project_id": run.project_id,
        "chain": json.decode(run.chain),
        "request_id": run.request_id,
        "steps": run.steps,
        "continues_at": _time(run.wake_at),
        "created_at": _time(run.created_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
    }


def shown_step(step: Step) -> dict[str, Any]:
    """A step of a run as clients see it."""
    return {
        "number": step.number,
        "action": step.action,
        "do": step.kind,
        "state": step.state,
        "at": _time(step.at),
        "duration_ms": step.duration_ms,
        "error": step.error,
        "detail": json.decode(step.detail),
    }


def _time(at: int | None) -> str | None:
    return None if at is None else time.format_ms(at)


# ---- what the operations say about themselves ------------------------------------------------------------------------

_TIME: Final[Schema] = dict(schema.TIME)
_MAYBE_TIME: Final[Schema] = or_null(_TIME)
_MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_RUN: Final[dict[str, tuple[Schema, str]]] = {
    "id": (ref("RunId"), "The id."),
    "automation_id": (id_schema("automation"), "The automation."),
    "workspace_id": (id_schema("workspace"), "The workspace."),
    "version": ({"type": "integer"}, "The version of the automation that it began with, and goes on with."),
    "state": (ref("RunState"), "How far it is."),
    "reason": (_MAYBE_TEXT, "Why it ended so, as a word; null if it simply succeeded."),
    "detail": (_MAYBE_TEXT, "Why it ended so, in a sentence."),
    "cause": ({"type": "string"}, "What started it: `event`, `manual`, `run` (another automation), `retry`, or time:"
              " `schedule`, `date`, `idle` or `held`."),
    "event_id": (_MAYBE_TEXT, "The event that started it."),
    "event_seq": ({"type": ["integer", "null"]}, "The number of that event in the workspace."),
    "object_id": (_MAYBE_TEXT, "The object that it is about."),
    "project_id": (_MAYBE_TEXT, "The project in which that was."),
    "chain": ({"type": "array", "items": {"type": "string"}}, "The automations that led to it, the first one first."),
    "request_id": (ref("RequestId"), "What the events of its changes have as `request_id`."),
    "steps": (_COUNT, "How many steps it has taken."),
    "continues_at": (_MAYBE_TIME, "When it goes on; null if it is over, or waits for another run or for somebody."),
    "created_at": (_TIME, "When it was triggered."),
    "started_at": (_MAYBE_TIME, "When its first action began."),
    "finished_at": (_MAYBE_TIME, "When it was over."),
}  # fmt: skip
_STEP: Final[dict[str, tuple[Schema, str]]] = {
    "number": (_COUNT, "Its place in the run, from 0."),
    "action": ({"type": "string"}, "Where the action stands in the automation, as a JSON Pointer."),
    "do": ({"type": "string"}, "The kind of action."),
    "state": (ref("RunState"), "How it ended."),
    "at": (_TIME, "When it began."),
    "duration_ms": ({"type": "number"}, "How long it took."),
    "error": (_MAYBE_TEXT, "The code of what went wrong; null for a success."),
    "detail": ({"type": "object", "additionalProperties": True}, "What it did."),
}
_RUN_SAMPLE: Final = {
    "id": sample_id("run"), "automation_id": sample_id("auto"), "workspace_id": sample_id("ws"), "version": 1,
    "state": "succeeded", "reason": None, "detail": None, "cause": "event", "event_id": sample_id("evt"),
    "event_seq": 42, "object_id": sample_id("task"), "project_id": sample_id("proj"), "chain": [],
    "request_id": sample_id("req"), "steps": 1, "continues_at": None, "created_at": "2024-01-15T10:30:00.000Z",
    "started_at": "2024-01-15T10:30:00.010Z", "finished_at": "2024-01-15T10:30:00.014Z",
}  # fmt: skip
_STEP_SAMPLE: Final = {
    "number": 0, "action": "/actions/0", "do": "batch", "state": "succeeded", "at": "2024-01-15T10:30:00.010Z",
    "duration_ms": 4.0, "error": None,
    "detail": {"operations": [{"method": "POST", "path": "/comments", "id": sample_id("cmt")}], "events": 1},
}  # fmt: skip


def _object(properties: Mapping[str, tuple[Schema, str]], text: str, example: dict[str, Any]) -> Schema:
    described = {name: {**part, "description": words} for name, (part, words) in properties.items()}
    return {
        "type": "object",
        "description": text,
        "properties": described,
        "required": list(described),
        "examples": [example],
    }


def _runs() -> Mapping[str, Schema]:
    timeline: tuple[Schema, str] = ({"type": "array", "items": ref("RunStep")}, "What it did, in order.")
    return {
        "RunId": {"type": "string", "pattern": ids.pattern("run"), "examples": [sample_id("run")],
                  "description": "The id of a run."},
        "RunState": {"type": "string", "enum": list(runs.STATES), "description": "How far a run is, or how it ended."},
        "Run": _object(_RUN, "One run of an automation.", _RUN_SAMPLE),
        "RunStep": _object(_STEP, "What a run did at one action.", _STEP_SAMPLE),
        "RunWithTimeline": _object({**_RUN, "timeline": timeline}, "A run with its steps.",
                                   {**_RUN_SAMPLE, "timeline": [_STEP_SAMPLE]}),
    }  # fmt: skip


def _start() -> Mapping[str, Schema]:
    return {
        "AutomationStart": closed(
            {
                "object_ids": {
                    "type": ["array", "null"],
                    "items": {"type": "string"},
                    "maxItems": MAX_BY_HAND,
                    "description": "Start a run about each of these objects. Default: one run about none.",
                },
                "input": {
                    "type": ["object", "null"],
                    "additionalProperties": True,
                    "description": "What the actions find as `input`.",
                },
            },
            description="What to start an automation with.",
        ),
    }


def _health() -> Mapping[str, Schema]:
    counts = closed(
        {state: {**_COUNT, "description": f"How many are `{state}`."} for state in runs.STATES},
        required=list(runs.STATES),
    )
    rows: dict[str, tuple[Schema, str]] = {
        "failures_in_a_row": (_COUNT, "How many of the last runs have failed; after ten it is disabled."),
        "last_run_at": (_MAYBE_TIME, "When a run last ended."),
        "last_failure_at": (_MAYBE_TIME, "When a run last failed."),
        "runs": (counts, "How many runs are on record, by state."),
        "disabled_reason": (_MAYBE_TEXT, "Why the server disabled the automation; null if it has not."),
    }
    example = {
        "failures_in_a_row": 0,
        "last_run_at": "2024-01-15T10:30:00.000Z",
        "last_failure_at": None,
        "runs": dict.fromkeys(runs.STATES, 0),
        "disabled_reason": None,
    }
    return {"AutomationHealth": _object(rows, "How an automation is doing.", example)}


def _several(name: str, text: str, items: Schema | None = None) -> Schema:
    form = {"type": "array", "items": items or {"type": "string"}, "maxItems": 50}
    return {"name": name, "in": "query", "style": "form", "explode": False, "description": text, "schema": form}


_LISTING: Final[dict[str, Schema]] = {
    "RunInState": _several("state", "Only runs in one of these states.", ref("RunState")),
    "RunObject": _several("object_id", "Only runs about one of these objects."),
    "RunEvent": _several("event_id", "Only runs that one of these events has started."),
    "RunAfter": {"name": "after", "in": "query", "schema": _TIME, "description": "Created at or after this time."},
    "RunBefore": {"name": "before", "in": "query", "schema": _TIME, "description": "Created before this time."},
    "RunLimit": {"name": "limit", "in": "query", "description": "How many to return at most.",
                 "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100}},
    "RunCursor": {"name": "cursor", "in": "query", "schema": {"type": "string"},
                  "description": "Where the last page ended. `Link` has the whole address of the next page."},
}  # fmt: skip
ONE_RUN: Final[dict[str, Schema]] = {
    "PathRun": {
        "name": "run",
        "in": "path",
        "required": True,
        "example": sample_id("run"),
        "schema": {"type": "string", "pattern": "^[^/]+$"},
        "description": "The id of a run.",
    },
}
_COMMENT: Final = {
    "do": "batch",
    "operations": [
        {
            "method": "POST",
            "path": "/comments",
            "body": {"task_id": '{"$ref": "event.data.id"}', "body": "Who can review this?"},
        }
    ],
}
DOCUMENTS: Final[ResourceDocuments] = documents(
    create={
        "review": (
            "Ask for a review",
            {
                "name": "Ask for a review",
                "trigger": {"on": "event", "types": ["task.updated"], "changed": {"status": {"to": ["review"]}}},
                "actions": [_COMMENT],
            },
        ),
        "waiting": (
            "Remind after two days",
            {
                "name": "Remind after two days",
                "trigger": {"on": "event", "types": ["task.updated"], "changed": {"status": {"to": ["review"]}}},
                "actions": [
                    {"do": "wait", "for": "P2D", "until": {"status": {"$ne": "review"}}},
                    {"do": "if", "condition": {"status": "review"}, "then": [_COMMENT]},
                ],
            },
        ),
    },
    update={"pause": ("Start nothing for now", {"enabled": False})},
    query={"stopped": ("Those that the server has disabled", {"filter": {"disabled_at": {"$exists": True}}})},
    created=Document(notes="It acts for the caller, with the rights of the API key of this request."),
    delete=Document(notes="Its runs that are not over are cancelled."),
)
_LIST: Final = Document(
    parameters=_LISTING, answer=Answer("Run", "The runs, as an array.", many=True, headers=("Link",)), schemas=_runs
)
_GET: Final = Document(answer=Answer("RunWithTimeline", "The run."), in_path=ONE_RUN)
_BEGIN: Final = Document(
    notes="For automations with the trigger `manual`. The runs have the rights of the automation, not of the caller.",
    body="AutomationStart",
    body_required=False,
    examples={"task": ("About a task", {"object_ids": [sample_id("task")], "input": {"reason": "Customer called"}})},
    answer=Answer("Run", "The runs, as an array.", many=True),
    schemas=_start,
)
_CANCEL: Final = Document(
    notes="What it has done stays done.", answer=Answer("Run", "The run as it ended."), in_path=ONE_RUN
)
_HEALTH: Final = Document(answer=Answer("AutomationHealth", "How it is doing."), schemas=_health)


def routes() -> Iterator[Route]:
    """The routes of automations that other resources have not, and of their runs."""
    path, rule, read = "/automations/{id}", AUTOMATION, "automations:read"
    yield Route(
        "GET",
        f"{path}/runs",
        "automations.runs",
        read,
        list_runs,
        rule,
        "List an automation's runs, newest first",
        answer="document",
        document=_LIST,
    )
    yield Route(
        "POST",
        f"{path}/runs",
        "automations.start",
        "automations:run",
        start,
        rule,
        "Start an automation by hand",
        writes=True,
        body="start",
        answer="document",
        status=202,
        document=_BEGIN,
    )
    yield Route(
        "GET",
        f"{path}/health",
        "automations.health",
        read,
        health,
        rule,
        "See how an automation is doing",
        answer="document",
        document=_HEALTH,
    )
    yield from _run_routes(rule, f"{path}/runs/{{run}}")


def _run_routes(rule: Resource, path: str) -> Iterator[Route]:
    yield Route(
        "GET",
        path,
        "automations.run",
        "automations:read",
        get_run,
        rule,
        "Read a run with its steps",
        answer="document",
        document=_GET,
    )
    yield Route(
        "POST",
        f"{path}/cancel",
        "automations.cancel_run",
        "automations:write",
        cancel,
        rule,
        "Cancel a run",
        writes=True,
        body="empty",
        answer="document",
        document=_CANCEL,
    )
