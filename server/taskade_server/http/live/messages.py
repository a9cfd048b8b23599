"""Understands what a client says on a WebSocket, and what the caller may have of it."""

from typing import Any, Final

from taskade_server.consumers.follower import EventSelection, Frame
from taskade_server.consumers.live_query import MAX_WORDS, VISIBILITIES
from taskade_server.engine import filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.filters import Leaf
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.engine.query import Query
from taskade_server.http.live.parameters import Reading, check_position, parsed_query
from taskade_server.http.wire.call import Call
from taskade_server.kit import json
from taskade_server.kit.errors import Gone, Malformed, NotFound, did_you_mean
from taskade_server.kit.strict_json import Faulty, decode_strict
from taskade_server.store.database import Tx

Message = dict[str, Any]
MAX_NAME: Final = 64
SCOPE: Final = "projects:read"
"""What a key needs to see who looks at a project, and to be seen."""


def parse_message(text: str) -> Message:
    """A message of a client; Malformed if it is no JSON object."""
    try:
        said = decode_strict(text.encode())
    except (Faulty, UnicodeEncodeError) as error:
        raise Malformed(f"A message is one JSON object. {error}") from error
    if not isinstance(said, dict):
        raise Malformed('A message is one JSON object such as {"type": "ping"}.')
    return said


def subscribed_events(call: Call, tx: Tx, reading: Reading) -> tuple[EventSelection, int, int, Message | None]:
    """What is wanted, behind which position, where the log ends, and what is missing if it does not reach back."""
    wanted = reading.wanted(tx, call.principal, call.secret, "events")
    after = reading.beginning(wanted.workspace_id)
    reading.fail()
    head = log.head(tx, wanted.workspace_id)
    if after is None:
        return wanted, head, head, None
    try:
        check_position(tx, wanted.workspace_id, after, reading.generations.get("after"))
    except Gone as gone:
        return wanted, head, head, {"workspace_id": wanted.workspace_id, "first_seq": gone.extra["first_seq"]}
    return wanted, after, head, None


def _kinds() -> dict[str, Resource]:
    """The resources whose lists can stay current, by their plural."""
    return {kind.plural: kind for kind in REGISTRY.values() if kind.visibility in VISIBILITIES}


def _listed(reading: Reading) -> Resource | None:
    """The resource whose list a subscription names; None if it names none that there is."""
    body = reading.values["query"]
    return _kinds().get(str(body.get("resource"))) if isinstance(body, dict) else None


def list_scope(reading: Reading) -> str:
    """What a key needs for the list that a subscription names; "" if it names none, which is a fault of its own."""
    resource = _listed(reading)
    return "" if resource is None else f"{resource.plural}:read"


def subscribed_list(call: Call, tx: Tx, reading: Reading, workspace_id: str = "") -> tuple[Query, str]:
    """The list that a subscription is to, within one workspace: that one, or the one that the message names."""
    workspace_id = workspace_id or reading.workspace(call.principal)
    body, resource = reading.values["query"], _listed(reading)
    if resource is None:
        kinds = _kinds()
        hint = did_you_mean(str(body.get("resource"))[:MAX_NAME], kinds) if isinstance(body, dict) else ""
        detail = f'query is a list request with its resource: {{"resource": "tasks", "filter": {{...}}}}.{hint}'
        reading.fault("query", "not_allowed", f"{detail} Resources: {', '.join(sorted(kinds))}.")
        reading.fail()
        raise AssertionError
    for name in ("cursor", "include", "fields", "count", "deleted"):
        if body.get(name):
            reading.fault("query", "not_allowed", f"A list that stays current has no {name}.")
    parsed = _lasting(call, tx, resource, body, reading)
    reading.fail()
    assert parsed is not None
    here = Leaf(resource.fields["workspace_id"], "eq", (workspace_id,))
    parsed.where = here if parsed.where == filters.EVERYTHING else filters.And((here, parsed.where))
    return parsed, workspace_id


def _lasting(call: Call, tx: Tx, resource: Resource, body: Message, reading: Reading) -> Query | None:
    """The list request; its faults are noted with their place in the message."""
    inner = Reading({}, (), typed=True)
    rest = {name: value for name, value in body.items() if name != "resource"}
    parsed = parsed_query(tx, call.principal, resource, call.secret, rest, inner)
    if refusal := filters.subscription_refusal(body.get("filter", {})):
        inner.fault("filter", "too_expensive", refusal)
    if parsed is not None and len(parsed.words) > MAX_WORDS:
        inner.fault("q", "too_many", f"A list that stays current looks for {MAX_WORDS} words at most.")
    reading.issues += [issue.below("/query") for issue in inner.issues]
    return parsed


def may_look(principal: Principal, workspace_id: str, project_id: str) -> bool:
    """Whether a caller who once saw a project still may, judged by rights alone, without reading the project."""
    grant = principal.grant(workspace_id)
    readable = grant is not None and grant.sees_project(workspace_id, project_id, is_open=True)
    return readable and principal.allows(SCOPE)


def lost_projects(call: Call, tx: Tx, projects: dict[str, str]) -> list[str]:
    """Those of some projects, each with its workspace, that the caller may not read any more."""
    project, lost = REGISTRY["project"], []
    for project_id, workspace_id in projects.items():
        row = query.get(tx, call.principal, project, project_id)
        if row is None or row.workspace_id != workspace_id or not call.principal.allows(SCOPE):
            lost.append(project_id)
    return lost


def workspace_of_project(call: Call, tx: Tx, project_id: str) -> str:
    """The workspace of a project that the caller may read."""
    row = query.get(tx, call.principal, REGISTRY["project"], project_id)
    if row is None:
        raise NotFound(f"There is no project {project_id[:80]} that this key can see.")
    return row.workspace_id


def event_message(name: str, frame: Frame) -> str:
    """The message that tells of an event, or of the state of the subscription of this name."""
    if "." in frame.type and frame.type != "access.revoked":
        head = json.encode({"type": "event", "subscription": name, "seq": frame.seq})
        return f'{head[:-1]},"event":{frame.data}}}'
    return f"{json.encode({'type': frame.type, 'subscription': name})[:-1]},{frame.data[1:]}"
