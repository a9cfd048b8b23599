"""What people do with automations beside changing them: start one, cancel a run, and run a failed one again."""

from typing import Any, Final

from taskade_server.domain.automations.resources import AUTOMATION
from taskade_server.domain.automations.rights import RightsLost, principal_of
from taskade_server.domain.automations.situation import resource_of
from taskade_server.domain.automations.starting import Cause, start, start_by_hand
from taskade_server.engine import edit, query
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Checker
from taskade_server.kit import json, time
from taskade_server.kit.errors import Clash, NotFound
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run

MAX_OBJECTS: Final = 100
MAX_INPUT: Final = 65_536
_KINDS: Final[dict[str, Any]] = {"text": str, "number": (int, float), "boolean": bool, "date": str, "id": str}


def start_for(tx: Tx, context: Context, automation_id: str, body: dict[str, Any]) -> list[Run]:
    """Start a run of an automation about each of the objects that the body names, or one about none."""
    row, document = edit.load(tx, context, AUTOMATION, automation_id, target=False)
    if document["trigger"]["on"] != "manual":
        raise Clash(
            'Only an automation with the trigger {"on": "manual"} can be started by hand; try this one with'
            f" POST /v1/automations/{automation_id}/test."
        )
    if not document["enabled"]:
        raise Clash("The automation is disabled. Enable it first.")
    checker = Checker()
    for name in body:
        if name not in ("object_ids", "input"):
            checker.unknown(f"/{escape_pointer(name)}", name, ("object_ids", "input"), "start")
    given = body.get("input") or {}
    check_input(checker, given, document["trigger"].get("input") or {})
    objects = _objects(tx, context, checker, body.get("object_ids"), row.workspace_id)
    edit.fail(checker.issues)
    now = time.now_ms()
    request = context.actor.request_id
    return [
        start_by_hand(tx, document, f"manual:{request}:{index}", given, object_id, now)
        for index, object_id in enumerate(objects)
    ]


def _objects(tx: Tx, context: Context, checker: Checker, wanted: Any, workspace_id: str) -> list[str | None]:
    from_body = [] if wanted is None else wanted
    if not isinstance(from_body, list) or len(from_body) > MAX_OBJECTS:
        checker.fault("/object_ids", "wrong_type", f"object_ids is a list of at most {MAX_OBJECTS} ids.")
        return []
    for index, object_id in enumerate(from_body):
        resource = resource_of(object_id) if isinstance(object_id, str) else None
        row = None if resource is None else query.get(tx, context.principal, resource, object_id)
        if row is None or row.workspace_id != workspace_id:
            detail = f"There is no object {str(object_id)[:80]} in this workspace that this key can see."
            checker.fault(f"/object_ids/{index}", "unknown_reference", detail)
    return list(dict.fromkeys(from_body)) or [None]


def check_input(checker: Checker, given: Any, members: dict[str, str]) -> None:
    """Note what is wrong with the input that an automation is started with by hand."""
    if not isinstance(given, dict) or len(json.encode(given)) > MAX_INPUT:
        checker.fault("/input", "wrong_type", f"input is an object of at most {MAX_INPUT:,} bytes as JSON.")
        return
    for name, value in given.items():
        if name not in members:
            checker.unknown(f"/input/{escape_pointer(name)}", name, members, "input")
        elif value is not None and (
            not isinstance(value, _KINDS[members[name]]) or (isinstance(value, bool) and members[name] != "boolean")
        ):
            checker.fault(f"/input/{escape_pointer(name)}", "wrong_type", f"{name} is a {members[name]}.")


def cancel(tx: Tx, context: Context, automation_id: str, run_id: str) -> Run:
    """Cancel a run that is not over."""
    edit.load(tx, context, AUTOMATION, automation_id, target=False)
    run = runs.find(tx, run_id, lock=True)
    if run is None or run.automation_id != automation_id:
        raise NotFound(f"The automation has no run {run_id[:80]} on record.")
    if run.finished_at is not None:
        raise Clash(f"The run is over: {run.state}.")
    return runs.end(tx, run, runs.CANCELLED, time.now_ms(), "cancelled", f"Cancelled by {context.principal.user_id}.")


def retry(tx: Tx, context: Context, automation_id: str, run_id: str, *, anew: bool) -> Run:
    """Run a failed or cancelled run again, as a run of its own.

    From where it failed, with what it knew and by the version that it began with; or anew, by the present one. Actions
    that are one transaction with the one that failed are done again, since they were taken back with it.
    """
    _, automation = edit.load(tx, context, AUTOMATION, automation_id, target=False)
    run = runs.find(tx, run_id, lock=True)
    if run is None or run.automation_id != automation_id:
        raise NotFound(f"The automation has no run {run_id[:80]} on record.")
    if run.state not in runs.RETRIABLE:
        raise Clash(f"Only a run that failed or was cancelled can be run again; this one is {run.state}.")
    if not automation["enabled"]:
        raise Clash("The automation is disabled. Enable it first.")
    memory = json.decode(run.memory)
    number = runs.retries_of(tx, automation_id, run_id) + 1
    cause = Cause(
        f"retry:{run_id}:{number}",
        time.now_ms(),
        run.event_seq,
        run.event_id,
        run.object_id,
        run.project_id,
        memory.get("input"),
        json.decode(run.chain),
    )
    if anew:
        return start(tx, automation, automation["version"], cause, cause.at)
    version = runs.version(tx, automation_id, run.version)
    if memory.get("forgotten") or version is None:
        raise Clash('What the run knew was too large to be kept. Begin anew with {"from": "start"}.')
    document = json.decode(version.doc)
    try:
        principal_of(tx, document)
    except RightsLost as error:
        raise Clash(f'{error} Or begin anew with {{"from": "start"}}.') from error
    return start(tx, document, run.version, cause, cause.at, (run.position, run.memory))
