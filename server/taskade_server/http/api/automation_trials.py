"""What makes automations understandable and reversible: trying one out, and what has become of an event.

Why a trial is no simulation: it is the run itself, by the same code, in a unit of work that is rolled back; so it can
promise nothing that a run would not do.
"""

from collections.abc import Iterator
from typing import Any, Final

from taskade_server.consumers.automations import previewing
from taskade_server.consumers.automations.previewing import MAX_TRIALS, Preview
from taskade_server.consumers.follower import document_of
from taskade_server.domain import automations
from taskade_server.domain.automations import AUTOMATION, Cause, Circle, Services, Trial, Trying
from taskade_server.engine import access, edit, events, log, query
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Checker, Resource
from taskade_server.http.api import automation_trials_schema as documented
from taskade_server.http.api.automated import AutomatedOperations
from taskade_server.http.api.automations import automation_of, run_of, shown, shown_step
from taskade_server.http.api.operations import Operations
from taskade_server.http.api.route import Route
from taskade_server.http.api.undo import event_of, moment, of_run, shown_change, undone
from taskade_server.http.api.weight import Weight
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import ids, json, time, zones
from taskade_server.kit.errors import Clash, Invalid, Issue, Malformed
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs

SOURCES: Final = ("event_id", "object_id", "sample")
OUTSIDE: Final = ("http",)
"""Actions whose effects nobody can take back: they happen elsewhere."""
BEGINNINGS: Final = ("failure", "start")
PREVIEW: Final = ("automation", "automation_id", "since", "after_seq", "trials")
USUAL_DAYS: Final = 30
CIRCLE_STEPS: Final = 200
"""For each automation of a workspace: what finding circles takes."""
SAMPLE: Final = ("type", "data", "previous")


def body_of(call: Call, example: str) -> dict[str, Any]:
    """The body, without members that are null. Malformed if it is no object."""
    if call.body is not None and not isinstance(call.body, dict):
        raise Malformed(f"The body is a JSON object such as {example}.")
    return {name: value for name, value in (call.body or {}).items() if value is not None}


def require_own(call: Call, automation: dict[str, Any]) -> None:
    """Forbidden for a caller who is neither the user of an automation nor administers its workspace."""
    if automation["user_id"] != call.principal.user_id:
        access.require_workspace(
            call.principal, automation["workspace_id"], "admin", "try out an automation of somebody else"
        )


def warnings(call: Call, tx: Tx) -> Reply:
    """GET /automations/{id}/warnings."""
    call.no_parameters()
    automation = automation_of(call, tx)
    rows = tx.all("SELECT doc FROM automations WHERE workspace_id = ? AND enabled = 1", (automation["workspace_id"],))
    others = [json.decode(row[0]) for row in rows]
    tx.budget.spend(len(others) * CIRCLE_STEPS)
    seen = {one["id"] for one in others if query.get(tx, call.principal, AUTOMATION, one["id"]) is not None}
    found = [_shown_circle(circle, automation["id"], seen) for circle in automations.circles(automation, others)]
    return Reply(200, json.encode(found))


def _shown_circle(circle: Circle, own: str, seen: set[str]) -> dict[str, Any]:
    """A circle as clients see it: of the automations that the caller cannot see only that there is one."""
    names = [name if name == own or name in seen else None for name in circle.automation_ids]
    way = " -> ".join(name or "one that you cannot see" for name in (own, *names))
    detail = f"What this action changes may start the automation again: {way}. Such runs are skipped."
    return {"code": "possible_circle", "pointer": circle.pointer, "detail": detail, "automation_ids": names}


def explain(call: Call, tx: Tx) -> Reply:
    """POST /automations/{id}/explain."""
    call.no_parameters()
    automation = automation_of(call, tx)
    body, checker = body_of(call, '{"event_id": "evt_..."}'), Checker()
    for name in body:
        if name != "event_id":
            checker.unknown(f"/{escape_pointer(name)}", name, ("event_id",), "explain")
    if not isinstance(body.get("event_id"), str):
        checker.fault("/event_id", "required", "event_id is the id of an event: evt_...")
    edit.fail(checker.issues)
    event = event_of(call, tx, body["event_id"])
    if event.workspace_id != automation["workspace_id"]:
        checker.fault("/event_id", "mismatch", "The event happened in another workspace.")
        edit.fail(checker.issues)
    found = automations.explanation(tx, automation, event, document_of(event))
    return Reply(
        200,
        json.encode(
            {
                "event_id": event.id,
                "version": found.version,
                "starts": all(check["holds"] for check in found.checks),
                "checks": found.checks,
                "pending": found.pending,
                "run": None if found.run is None else shown(found.run),
            }
        ),
    )


def revert_run(call: Call, tx: Tx) -> Reply:
    """POST /automations/{id}/runs/{run}/revert: undo all that a run changed."""
    call.no_parameters()
    if call.body not in (None, {}):
        raise Invalid("This operation takes no body.")
    run = run_of(call, tx)
    if run.finished_at is None:
        raise Clash("The run is not over, and may change more. Cancel it first.")
    left = [shown_step(step) for step in runs.steps_of(tx, run.id) if step.kind in OUTSIDE]
    origin = {"type": "revert", "automation_id": run.automation_id, "run_id": run.id, "request_id": run.request_id}
    return undone(call, tx, of_run(call, tx, run), origin, f',"not_undone":{json.encode(left)}')


def retry_run(call: Call, tx: Tx) -> Reply:
    """POST /automations/{id}/runs/{run}/retry."""
    call.no_parameters()
    body, checker = body_of(call, '{"from": "start"}'), Checker()
    for name in body:
        if name != "from":
            checker.unknown(f"/{escape_pointer(name)}", name, ("from",), "retry")
    place = body.get("from", BEGINNINGS[0])
    if place not in BEGINNINGS:
        checker.fault("/from", "not_allowed", f"from is one of {', '.join(BEGINNINGS)}.")
    edit.fail(checker.issues)
    again = automations.retry(tx, call.context(), *call.path, anew=place == BEGINNINGS[1])
    return Reply(202, json.encode(shown(again)))


class Trials:
    """The handlers that carry out actions, by the operations of the API."""

    def __init__(self, operations: Operations) -> None:
        self._operations = AutomatedOperations(operations)

    def services(self, call: Call) -> Services:
        """What carrying out a run needs."""
        return Services(self._operations, call.secret, call.destinations)

    def preview(self, call: Call, tx: Tx) -> Reply:
        """POST /automations/preview."""
        call.no_parameters()
        body, checker = body_of(call, '{"automation_id": "auto_...", "since": "-30d"}'), Checker()
        for name in body:
            if name not in PREVIEW:
                checker.unknown(f"/{escape_pointer(name)}", name, PREVIEW, "preview")
        if ("automation" in body) == ("automation_id" in body):
            checker.fault("", "required", "Give an automation, or the automation_id of one that there is.")
        number = body.get("trials", MAX_TRIALS)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_TRIALS:
            checker.fault("/trials", "out_of_range", f"trials is a whole number from 0 to {MAX_TRIALS}.")
        edit.fail(checker.issues)
        trying = self._previewed(call, tx, body)
        after = self._position(call, tx, body, trying.document["workspace_id"])
        found = previewing.preview(tx, trying, after, number)
        return Reply(200, _shown_preview(found, limited=trying.limited))

    def _previewed(self, call: Call, tx: Tx, body: dict[str, Any]) -> Trying:
        """The automation that a preview is about, stored or not."""
        now = time.now_ms()
        if "automation_id" in body:
            name = body["automation_id"]
            row = query.get(tx, call.principal, AUTOMATION, name) if isinstance(name, str) else None
            if row is None:
                detail = f"There is no automation {str(name)[:80]} that this key can see."
                raise Invalid(detail, errors=[Issue("unknown_reference", detail, pointer="/automation_id")])
            automation = json.decode(row.document)
            require_own(call, automation)
            return automations.trying(tx, automation, call.principal, self.services(call), now)
        try:
            values = automations.draft(tx, call.context(), self._operations, body["automation"])
        except Invalid as problem:
            if not problem.errors:
                raise
            raise Invalid(errors=[issue.below("/automation") for issue in problem.errors]) from problem
        document = {**dict.fromkeys(AUTOMATION.fields), **json.decode(json.encode(values))}
        document |= {"id": document["id"] or ids.new(AUTOMATION.prefix), "version": 1}
        return Trying(document, call.principal, call.principal, self.services(call), now)

    def _position(self, call: Call, tx: Tx, body: dict[str, Any], workspace_id: str) -> int:
        """Behind which event of the log a preview begins."""
        checker = Checker()
        zone = zones.get(call.principal.zone(workspace_id))
        since = moment(body, "since", checker, zone) if "since" in body else time.now_ms() - USUAL_DAYS * time.DAY_MS
        after = body.get("after_seq")
        if after is not None and (not isinstance(after, int) or isinstance(after, bool) or after < 0):
            checker.fault("/after_seq", "wrong_type", "after_seq is the next_after_seq of an earlier answer, or a seq.")
        edit.fail(checker.issues)
        return log.seq_before(tx, workspace_id, since or 0) if after is None else int(after)

    def test(self, call: Call, tx: Tx) -> Reply:
        """POST /automations/{id}/test."""
        call.no_parameters()
        automation = automation_of(call, tx)
        require_own(call, automation)
        trying = automations.trying(tx, automation, call.principal, self.services(call), time.now_ms())
        body = body_of(call, '{"event_id": "evt_..."} or {"object_id": "task_..."}')
        source = _Source(call, tx, trying, body)
        if source.event is not None:
            rule = automations.rule_for(tx, automation, trying.principal)
            checks = automations.explain(rule, source.event, document_of(source.event), tx.budget)
        else:
            checks = []
        failed = next((check for check in checks if not check["holds"]), None)
        if failed is None:
            trial = automations.try_out(tx, trying, source.cause, source.made_up)
        else:
            trial = Trial(runs.SKIPPED, failed["check"], failed["detail"])
        head = json.encode({"starts": failed is None, "checks": checks, "limited": trying.limited})
        return Reply(200, f"{head[:-1]},{shown_trial(trial)[1:]}")


def shown_trial(trial: Trial) -> str:
    """A trial as clients see it, as JSON text."""
    changes = json.array([shown_change(done) for done in trial.changes])
    head = json.encode(
        {
            "state": trial.state,
            "reason": trial.reason,
            "detail": trial.detail,
            "timeline": [shown_step(step) for step in trial.steps],
            "hidden_changes": trial.hidden,
        }
    )
    return f'{head[:-1]},"changes":{changes}}}'


def _shown_preview(found: Preview, *, limited: bool) -> str:
    objects = sorted(found.objects.items(), key=lambda item: (-item[1], item[0]))[: previewing.MAX_LISTED]
    trials = [f'{{"event":{json.encode(_shown_start(event))},{shown_trial(trial)[1:]}' for event, trial in found.trials]
    head = json.encode(
        {
            "looked": found.looked,
            "count": found.count,
            "circles": found.circles,
            "starts": [_shown_start(event) for event in found.starts],
            "objects": [{"object_id": name, "starts": count} for name, count in objects],
            "object_count": len(found.objects),
            "next_after_seq": found.next_after,
            "disabled_reason": found.ended,
            "limited": limited,
        }
    )
    return f'{head[:-1]},"trials":{json.array(trials)}}}'


def _shown_start(event: Event) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "seq": event.seq,
        "type": event.type,
        "timestamp": time.format_ms(event.at),
        "object_id": event.object_id,
    }


def _weigh_preview(body: Any) -> Weight:
    """One without trials only reads, so that it may look at more and holds up nobody."""
    return Weight(heavy=True, writes=not isinstance(body, dict) or body.get("trials") != 0)


class _Source:
    """What a trial is about, by its body: an event of the log, an object, or an event that is made up.

    `event` is compared with the trigger if there is one; `made_up` is what references find as `event`.
    """

    def __init__(self, call: Call, tx: Tx, trying: Trying, body: dict[str, Any]) -> None:
        self.call, self.tx, self.trying = call, tx, trying
        self.event: Event | None = None
        self.made_up: dict[str, Any] | None = None
        self.checker = Checker()
        allowed = (*SOURCES, "input")
        for name in body:
            if name not in allowed:
                self.checker.unknown(f"/{escape_pointer(name)}", name, allowed, "test")
        sources = [name for name in SOURCES if name in body]
        trigger = trying.document["trigger"]
        if len(sources) > 1 or (not sources and trigger["on"] == "event"):
            self.checker.fault("", "required", f"Say what it is tried with, in one way: {', '.join(SOURCES)}.")
        given = body.get("input") or {}
        automations.check_input(self.checker, given, trigger.get("input") or {})
        edit.fail(self.checker.issues)
        ways = {"event_id": self._event, "object_id": self._object, "sample": self._sample}
        self.cause = ways[sources[0]](body[sources[0]]) if sources else Cause("test", trying.now)
        edit.fail(self.checker.issues)
        self.cause.input = given or None

    def _event(self, name: Any) -> Cause:
        if not isinstance(name, str):
            self.checker.fault("/event_id", "wrong_type", "event_id is the id of an event: evt_...")
            return Cause("test", 0)
        self.event = event_of(self.call, self.tx, name)
        if self.event.workspace_id != self.trying.document["workspace_id"]:
            self.checker.fault("/event_id", "mismatch", "The event happened in another workspace.")
        return automations.cause_of(self.event)

    def _object(self, name: Any) -> Cause:
        resource = automations.resource_of(name) if isinstance(name, str) else None
        row = None if resource is None else query.get(self.tx, self.call.principal, resource, name)
        if resource is None or row is None or row.workspace_id != self.trying.document["workspace_id"]:
            detail = f"There is no object {str(name)[:80]} in the workspace of the automation that this key can see."
            self.checker.fault("/object_id", "unknown_reference", detail)
            return Cause("test", 0)
        data = json.decode(row.document)
        if self.trying.document["trigger"]["on"] == "event":
            kind = automations.kind_for(self.trying.document, resource.name)
            if kind is None:
                detail = f"No event about {resource.one} starts this automation."
                self.checker.fault("/object_id", "not_allowed", detail)
            self.made_up = self._rendered(self._made_up(kind or f"{resource.name}.updated", resource.name, data, {}))
        project = data["id"] if resource.project_column == "id" else data.get("project_id")
        return Cause("test", self.trying.now, object_id=name, project_id=project)

    def _sample(self, sample: Any) -> Cause:
        checker = self.checker
        if not isinstance(sample, dict) or not isinstance(sample.get("data"), dict):
            detail = 'sample is an event such as {"type": "task.updated", "data": {...}, "previous": {...}}.'
            checker.fault("/sample", "wrong_type", detail)
            return Cause("test", 0)
        for name in sample:
            if name not in SAMPLE:
                checker.unknown(f"/sample/{escape_pointer(name)}", name, SAMPLE, "sample")
        usual = (automations.kind_for(self.trying.document, name) for name in ("task", *REGISTRY))
        kind = sample.get("type") or next(filter(None, usual), None)
        found = events.catalogue().get(kind) if isinstance(kind, str) else None
        if found is None:
            fault = events.fault(str(kind)[:80]) or "Give the type of one event."
            checker.fault("/sample/type", "unknown_event", fault)
            return Cause("test", 0)
        resource = found.resource.name
        data, previous = self._values("data", resource, sample["data"]), sample.get("previous")
        if previous is not None:
            previous = self._values("previous", resource, previous)
        whole = {**dict.fromkeys(found.resource.fields), **found.resource.defaults(), **data}
        whole["workspace_id"] = self.trying.document["workspace_id"]
        self.event = self._made_up(found.name, resource, whole, previous)
        self.made_up = self._rendered(self.event)
        object_id = data.get("id")
        return Cause("test", self.trying.now, object_id=object_id, project_id=self.event.project_id)

    def _values(self, part: str, name: str, given: Any) -> dict[str, Any]:
        """Members of a made-up event, each of the kind that the resource has."""
        resource = REGISTRY[name]
        if not isinstance(given, dict):
            self.checker.fault(f"/sample/{part}", "wrong_type", f"{part} is an object with fields of {resource.one}.")
            return {}
        found: dict[str, Any] = {}
        for key, value in given.items():
            member = resource.fields.get(key)
            place = f"/sample/{part}/{escape_pointer(key)}"
            if member is None or member.hidden:
                self.checker.unknown(place, key, resource.public, resource)
            else:
                found[key] = None if value is None else self.checker.value(member, value, place)
        return found

    def _made_up(self, kind: str, resource: str, data: dict[str, Any], previous: Any) -> Event:
        document = self.trying.document
        project = data["id"] if REGISTRY[resource].project_column == "id" else data.get("project_id")
        text = None if previous is None else json.encode(previous)
        event = Event(
            document["workspace_id"],
            0,
            "",
            kind,
            resource,
            data["id"] or "",
            project,
            self.call.principal.user_id,
            self.call.principal.key_id,
            self.call.request_id,
            self.trying.now,
            json.encode(data),
            text,
            None,
            None,
            None,
        )
        return log.with_sight(self.tx, [event])[0]

    def _rendered(self, event: Event) -> dict[str, Any]:
        """An event as references find it; what has none yet is null."""
        return {**json.decode(events.render(event)), "id": None, "seq": None}


def routes(operations: Operations) -> Iterator[Route]:
    """The routes that explain automations, and take back what they did."""
    yield from _trial_routes(Trials(operations), AUTOMATION, "/automations/{id}")
    yield from _reading_routes(AUTOMATION, "/automations/{id}")
    yield from _run_routes(AUTOMATION, "/automations/{id}/runs/{run}")


def _trial_routes(trials: Trials, rule: Resource, path: str) -> Iterator[Route]:
    yield Route(
        "POST",
        "/automations/preview",
        "automations.preview",
        "automations:run",
        trials.preview,
        rule,
        "Try an automation on the past",
        writes=True,
        heavy=True,
        body="start",
        answer="document",
        batchable=False,
        rolls_back=True,
        weigh=_weigh_preview,
        document=documented.PREVIEW,
    )
    yield Route(
        "POST",
        f"{path}/test",
        "automations.test",
        "automations:run",
        trials.test,
        rule,
        "Try out what an automation would do",
        writes=True,
        heavy=True,
        body="start",
        answer="document",
        batchable=False,
        rolls_back=True,
        document=documented.TEST,
    )


def _reading_routes(rule: Resource, path: str) -> Iterator[Route]:
    yield Route(
        "POST",
        f"{path}/explain",
        "automations.explain",
        "automations:read",
        explain,
        rule,
        "Explain why an event started an automation, or why not",
        body="start",
        answer="document",
        document=documented.EXPLAIN,
    )
    yield Route(
        "GET",
        f"{path}/warnings",
        "automations.warnings",
        "automations:read",
        warnings,
        rule,
        "List what may go wrong with an automation",
        answer="document",
        document=documented.WARNINGS,
    )


def _run_routes(rule: Resource, path: str) -> Iterator[Route]:
    yield Route(
        "POST",
        f"{path}/revert",
        "automations.revert_run",
        "automations:write",
        revert_run,
        rule,
        "Undo what a run changed",
        writes=True,
        heavy=True,
        body="empty",
        answer="document",
        batchable=False,
        document=documented.REVERT,
    )
    yield Route(
        "POST",
        f"{path}/retry",
        "automations.retry_run",
        "automations:write",
        retry_run,
        rule,
        "Run a failed or cancelled run again",
        writes=True,
        body="start",
        answer="document",
        status=202,
        document=documented.RETRY,
    )
