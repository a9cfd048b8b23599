"""POST /events/{id}/revert and POST /events/revert: which changes are to be undone, and what that did.

Why the answer lists the events that undoing causes: with `dry_run` it is the preview, without it the receipt, and both
come from what was really written, so neither can promise what the other does not do.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec.structs import replace

from taskade_server.domain import undo
from taskade_server.engine import edit, events, log, schema
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Checker
from taskade_server.engine.schema import Schema, closed, id_schema, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.events import EVENT_ID
from taskade_server.http.api.generic import no_body
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import ids, json, time, zones
from taskade_server.kit.errors import Forbidden, Invalid, Issue, Malformed, NotFound
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run

MEMBERS: Final = ("request_id", "api_key_id", "automation_id", "since", "until", "event_ids", "workspace_id")
# A change has up to four events.
MAX_EVENTS: Final = 4 * undo.MAX_CHANGES
MAX_RUNS: Final = 1_000
KEPT_DAYS: Final = 30
"""For how long it is on record at least which runs an automation had."""
_WAYS: Final = ("request_id", "api_key_id", "automation_id", "event_ids")
_TIMED: Final[dict[str, tuple[str, ...]]] = {
    "since": ("api_key_id", "automation_id"),
    "until": ("api_key_id", "automation_id"),
    "workspace_id": ("api_key_id",),
}


def one(call: Call, tx: Tx) -> Reply:
    """POST /events/{id}/revert."""
    call.no_parameters()
    no_body(call, " POST /v1/events/revert takes one.")
    return undone(call, tx, [event_of(call, tx, call.path[0])], {"type": "revert", "event_id": call.path[0]})


def many(call: Call, tx: Tx) -> Reply:
    """POST /events/revert."""
    call.no_parameters()
    if not isinstance(call.body, dict):
        raise Malformed(
            'The body is a JSON object such as {"request_id": "req_..."} or {"api_key_id": ..., "since": ...}.'
        )
    checker = Checker()
    call = replace(call, body={name: value for name, value in call.body.items() if value is not None})
    body = call.body
    for name in body:
        if name not in MEMBERS:
            checker.unknown(f"/{escape_pointer(name)}", name, MEMBERS, "revert")
    ways = [name for name in _WAYS if name in body]
    if len(ways) != 1 and not checker.issues:
        checker.fault("", "required", f"Name the changes in one way: by {', '.join(_WAYS[:-1])} or {_WAYS[-1]}.")
    for name, others in _TIMED.items():
        if name in body and ways and ways[0] not in others:
            checker.fault(f"/{name}", "not_allowed", f"{name} goes with {' or '.join(others)} only.")
    edit.fail(checker.issues)
    choose = {
        "request_id": _of_request,
        "api_key_id": _of_key,
        "automation_id": _of_automation,
        "event_ids": _listed,
    }[ways[0]]
    found, origin = choose(call, tx, checker)
    return undone(call, tx, found, {"type": "revert", **origin})


def undone(call: Call, tx: Tx, found: list[Event], origin: dict[str, Any], more: str = "") -> Reply:
    """Undo, and list what that did: of what comes along (the tasks of a project) as far as the key's scopes go.

    `more` is the text of further members of the answer, each behind a comma.
    """
    names = undo.revert(tx, call.context(), found, origin) if found else []
    changes = [
        shown_change(done)
        for done in log.written(tx)
        if call.principal.allows(events.read_scope(REGISTRY[done.resource], done.project_id))
    ]
    return Reply(200, f'{{"reverted":{json.encode(names)},"changes":{json.array(changes)}{more}}}')


def shown_change(done: log.Written) -> str:
    """A change as this unit has made it, as JSON text."""
    return (
        f'{{"type":"{done.type}","workspace_id":"{done.workspace_id}","resource":"{done.resource}",'
        f'"object_id":"{done.object_id}","data":{done.data},"previous":{done.previous or "null"}}}'
    )


def event_of(call: Call, tx: Tx, name: str) -> Event:
    """An event that the caller sees all of. NotFound, or Forbidden if they see it without what was before."""
    event = log.find(tx, name)
    if event is None or not events.sees(call.principal, event):
        raise NotFound(f"There is no event {name[:80]} that this key can see.")
    if not events.sees_previous(call.principal, event):
        raise Forbidden(
            f"The event {name} moved its object out of a project that this key cannot see into this one;"
            " this takes somebody who sees both."
        )
    return event


_Chosen = tuple[list[Event], dict[str, Any]]


def _listed(call: Call, tx: Tx, checker: Checker) -> _Chosen:
    names = call.body["event_ids"]
    if (
        not isinstance(names, list)
        or not 1 <= len(names) <= undo.MAX_CHANGES
        or not all(isinstance(name, str) for name in names)
    ):
        checker.fault("/event_ids", "wrong_type", f"event_ids is a list of 1 to {undo.MAX_CHANGES:,} ids of events.")
    edit.fail(checker.issues)
    return [event_of(call, tx, name) for name in dict.fromkeys(names)], {"event_ids": len(names), "event_id": names[0]}


def _of_request(call: Call, tx: Tx, checker: Checker) -> _Chosen:
    name = call.body["request_id"]
    if not isinstance(name, str) or not ids.is_id(name, "req"):
        checker.fault("/request_id", "invalid_format", "request_id is the X-Request-Id of an answer: req_...")
    edit.fail(checker.issues)
    found = _seen(call, _whole(*log.of_request(tx, name, MAX_EVENTS + 1)), f"the request {name}")
    if not found:
        raise NotFound(f"There is no request {name} that changed anything which this key can see.")
    return found, {"request_id": name}


def of_run(call: Call, tx: Tx, run: Run) -> list[Event]:
    """The events of all that a run changed. Forbidden if the caller sees only some of them."""
    return _seen(call, _whole(*log.of_request(tx, run.request_id, MAX_EVENTS + 1)), f"the run {run.id}")


def _of_automation(call: Call, tx: Tx, checker: Checker) -> _Chosen:
    name = call.body["automation_id"]
    if not isinstance(name, str) or not ids.is_id(name, "auto"):
        checker.fault("/automation_id", "invalid_format", "automation_id is the id of an automation: auto_...")
    zone = zones.get(call.principal.zone())
    since, until = moment(call.body, "since", checker, zone), moment(call.body, "until", checker, zone)
    if "since" not in call.body:
        checker.fault("/since", "required", "since says from when on: a time, a date or a while ago such as -1h.")
    elif since is not None and since < time.now_ms() - KEPT_DAYS * time.DAY_MS:
        detail = f"Runs are on record for {KEPT_DAYS} days; name what is older by api_key_id."
        checker.fault("/since", "out_of_range", detail)
    edit.fail(checker.issues)
    at_work = runs.at_work_since(tx, name, since or 0, MAX_RUNS + 1)
    if len(at_work) > MAX_RUNS:
        detail = f"The automation had over {MAX_RUNS:,} runs since; choose a shorter time."
        raise Invalid(detail, errors=[Issue("too_many", detail, pointer="/since")])
    found: list[Event] = []
    for run in at_work:
        if len(found) <= MAX_EVENTS:
            found += _whole(*log.of_request(tx, run.request_id, MAX_EVENTS + 1 - len(found)))
    found = [event for event in found if event.at >= (since or 0) and (until is None or event.at <= until)]
    seen = _seen(call, found, f"the automation {name}")
    if not seen:
        raise NotFound(f"There is no automation {name} that changed anything since which this key can see.")
    return seen, {"automation_id": name, "since": time.format_ms(since or 0)}


def _of_key(call: Call, tx: Tx, checker: Checker) -> _Chosen:
    name, workspace_id = call.body["api_key_id"], call.body.get("workspace_id")
    if not isinstance(name, str) or not ids.is_id(name, "key"):
        checker.fault("/api_key_id", "invalid_format", "api_key_id is the id of a key: key_...")
    if workspace_id is not None and (not isinstance(workspace_id, str) or call.principal.grant(workspace_id) is None):
        detail = f"There is no workspace {str(workspace_id)[:80]} that you can see."
        checker.fault("/workspace_id", "unknown_reference", detail)
    zone = zones.get(call.principal.zone(workspace_id if isinstance(workspace_id, str) else None))
    since, until = moment(call.body, "since", checker, zone), moment(call.body, "until", checker, zone)
    if "since" not in call.body:
        checker.fault("/since", "required", "since says from when on: a time, a date or a while ago such as -1h.")
    edit.fail(checker.issues)
    found: list[Event] = []
    places = [place for place in sorted(call.principal.grants) if call.principal.grants[place].live]
    for place in [workspace_id] if workspace_id else places:
        first = log.seq_before(tx, place, since or 0)
        last = log.head(tx, place) if until is None else log.seq_before(tx, place, until + 1)
        found += _whole(*log.of_key(tx, place, name, first, last, MAX_EVENTS + 1 - len(found)))
        if len(found) > MAX_EVENTS:
            break
    if not found and not any(log.of_key(tx, place, name, 0, log.MAX_SEQ, 1)[0] for place in places):
        raise NotFound(f"There is no key {name} that changed anything which this key can see.")
    return _seen(call, found, f"the key {name}"), {"api_key_id": name, "since": time.format_ms(since or 0)}


def moment(body: dict[str, Any], name: str, checker: Checker, zone: zones.Zone) -> int | None:
    """A member that is a time in the past, in epoch ms; None if there is none, or after noting a fault of it."""
    value = body.get(name)
    if value is None:
        return None
    now = time.now_ms()
    try:
        moment = time.moment_ms(value if isinstance(value, str) else "", now, zone)
    except ValueError:
        moment = now + 1
    if moment > now:
        detail = f"{name} is a time in the past, a date or a while ago such as -1h."
        checker.fault(f"/{name}", "invalid_format", detail)
        return None
    return moment


def _whole(found: list[Event], cut: bool) -> list[Event]:
    if cut:
        detail = "The objects are too large to be undone at once; choose a shorter time, or name the events."
        raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
    return found


def _seen(call: Call, found: list[Event], what: str) -> list[Event]:
    """All of the events; Forbidden if the caller may see some and not others, for half of it is not what was meant."""
    seen = [event for event in found if events.sees(call.principal, event)]
    whole = [event for event in seen if events.sees_previous(call.principal, event)]
    if seen and len(whole) < len(found):
        raise Forbidden(f"Some of what {what} did is beyond this key; somebody who sees all of it can undo it.")
    return seen


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------

_RULES: Final = (
    " The same rules apply as to a change by hand: it needs the same rights and scopes, and it makes new events, whose"
    " `origin` says what was undone. What was created goes to the trash, what was deleted comes back, and what was"
    " changed gets its old values. `dry_run` gives a preview. 409 `revert-conflict` means that somebody has changed the"
    " same since; 422 `not-revertible` means that it was removed for good."
)
_EXAMPLES: Final[dict[str, tuple[str, Any]]] = {
    "key": ("What an integration did in the last hour", {"api_key_id": sample_id("key"), "since": "-1h"}),
    "automation": ("What an automation did today", {"automation_id": sample_id("auto"), "since": "today"}),
    "request": ("What one request did", {"request_id": sample_id("req")}),
}
_ANSWER: Final = Answer("Reverted", "What was undone, or with `dry_run` what would be.")


def _bodies() -> Mapping[str, Schema]:
    events: Schema = {
        "type": "array", "items": ref("EventId"), "minItems": 1, "maxItems": undo.MAX_CHANGES,
        "description": "The events whose changes are to be undone.",
    }  # fmt: skip
    ways: dict[str, Schema] = {
        "RevertRequest": closed(
            {"request_id": ref("RequestId", "The `X-Request-Id` of the response to that request.")},
            required=["request_id"],
            description="Undo everything that one request did.",
        ),
        "RevertApiKey": closed(
            {
                "api_key_id": ref("ApiKeyId", "The API key."),
                "since": ref("Moment", "From when on."),
                "until": ref("Moment", "Up to when. Default: now."),
                "workspace_id": ref("WorkspaceId", "Only changes in this workspace."),
            },
            required=["api_key_id", "since"],
            description="Undo everything that one API key did since a time.",
        ),
        "RevertAutomation": closed(
            {
                "automation_id": {**id_schema("automation"), "description": "The automation; it may be deleted."},
                "since": ref("Moment", "From when on: at most 30 days ago."),
                "until": ref("Moment", "Up to when. Default: now."),
            },
            required=["automation_id", "since"],
            description="Undo everything that the runs of one automation did since a time.",
        ),
        "RevertEvents": closed(
            {"event_ids": events}, required=["event_ids"], description="Undo the changes behind these events."
        ),
    }
    whole = {"oneOf": [ref(name) for name in ways], "description": "Which changes to undo."}
    return {**ways, "EventRevert": whole}


def _results() -> Mapping[str, Schema]:
    change: Schema = {
        "type": {"type": "string", "description": "The type of event that this is, or would be."},
        "workspace_id": {**id_schema("workspace"), "description": "The workspace."},
        "resource": ref("ResourceName"),
        "object_id": {"type": "string", "description": "The object."},
        "data": {"type": "object", "additionalProperties": True, "description": "The whole object afterwards."},
        "previous": {
            "type": ["object", "null"],
            "additionalProperties": True,
            "description": "The values before, of what changes.",
        },
    }
    done: Schema = {
        "reverted": {"type": "array", "items": ref("EventId"), "description": "The events that were undone."},
        "changes": {"type": "array", "items": ref("RevertChange"), "description": "What was done for that, in order."},
    }
    example = {
        "type": "task.updated", "workspace_id": sample_id("ws"), "resource": "task", "object_id": sample_id("task"),
        "data": schema.sample(REGISTRY["task"]), "previous": {"name": "WRONG"},
    }  # fmt: skip
    return {
        "RevertChange": {
            "type": "object",
            "properties": change,
            "required": list(change),
            "description": "One change that undoing makes.",
        },
        "Reverted": {
            "type": "object",
            "properties": done,
            "required": list(done),
            "description": "What was undone.",
            "examples": [{"reverted": [sample_id("evt")], "changes": [example]}],
        },
    }


REVERT: Final = Document(
    notes="Undoes the change behind one event." + _RULES, in_path=EVENT_ID, answer=_ANSWER, schemas=_results
)
REVERT_MANY: Final = Document(
    notes="Undoes everything that one request did, everything that one API key or one automation did since a time, or"
    f" the changes behind some events: at most {undo.MAX_CHANGES:,} changes, all or none." + _RULES,
    body="EventRevert",
    examples=_EXAMPLES,
    answer=_ANSWER,
    problems=(404,),
    schemas=_bodies,
)


def routes() -> Iterator[Route]:
    """The routes of undo."""
    yield Route(
        "POST",
        "/events/{id}/revert",
        "events.revert",
        "",
        one,
        None,
        "Undo a change",
        writes=True,
        heavy=True,
        body="empty",
        answer="document",
        batchable=False,
        document=REVERT,
    )
    yield Route(
        "POST",
        "/events/revert",
        "events.revert_many",
        "",
        many,
        None,
        "Undo all changes of a request, a key or an automation, or of some events",
        writes=True,
        heavy=True,
        body="revert",
        answer="document",
        batchable=False,
        document=REVERT_MANY,
    )
