"""An object as it was: the newest event about it at or before a position of the log, or a moment.

Why today's rights and the place of then: whoever lost an object must not read on in its past, and who sees it now need
not have been let into the project in which it lay then, nor into the workspace whose log tells of it.
"""

from datetime import UTC
from typing import Final

from taskade_server.engine import access, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.log import State
from taskade_server.engine.model import Resource
from taskade_server.kit import json, time, zones
from taskade_server.kit.errors import Gone, InvalidQuery, Issue, NotFound
from taskade_server.kit.numbers import whole
from taskade_server.store.database import Tx

NAME: Final = "as_of"
_FORM: Final = (
    "as_of is a seq such as 123, a Commit-Seq (ws_...:123), a time (2024-01-15T10:30:00Z), a date, which means its"
    " beginning in your time zone, or a while ago such as -2h or -7d."
)


def read(tx: Tx, principal: Principal, resource: Resource, object_id: str, wanted: str) -> str:
    """The document as it was then. NotFound if there was none; InvalidQuery for a position that is none, or to come."""
    row = query.get(tx, principal, resource, object_id, deleted=None)
    if row is None:
        raise NotFound(f"There is no {resource.noun} {object_id[:80]} that this key can see.")
    # Users and keys are seen across workspaces, but their past is in the log of one, and even its length is not told.
    if resource.visibility in ("shared", "owner") and principal.grant(row.workspace_id) is None:
        raise NotFound(f"The past of the {resource.noun} {object_id} is in a workspace that this key cannot see.")
    seq = position(tx, row.workspace_id, wanted, zones.get(principal.zone(row.workspace_id)))
    found = log.state_at(tx, row.workspace_id, object_id, seq)
    if found is None:
        raise NotFound(f"The {resource.noun} {object_id} did not exist {_when(wanted)}.")
    if not _saw(tx, principal, resource, row.workspace_id, found):
        raise NotFound(f"The {resource.noun} {object_id} was {_when(wanted)} in a place that this key cannot see.")
    gone = not resource.trash and found.type == resource.event_type("deleted")
    if gone or json.decode(found.data).get("deleted_at") is not None:
        raise NotFound(f"The {resource.noun} {object_id} was deleted already {_when(wanted)}.")
    return found.data


def _when(wanted: str) -> str:
    """A position as a sentence names it."""
    if wanted == "now":
        return "at this moment (now)"
    return f"so long ago ({wanted[:80]})" if wanted.startswith(("-", "+")) else f"at {wanted[:80]}"


def _saw(tx: Tx, principal: Principal, resource: Resource, workspace_id: str, found: State) -> bool:
    """Whether the caller may see the place in which the object was: a project, or for a user the workspace."""
    if resource.visibility == "shared":
        return not log.was_absent(tx, found.event_id)
    if not resource.project_column or resource.visibility in ("owner", "managed"):
        return True
    place = (workspace_id, found.project_id or "")
    return access.sees(principal, resource, *place, is_open=bool(log.open_projects(tx, [place])))


def position(tx: Tx, workspace_id: str, wanted: str, zone: zones.Zone = UTC) -> int:
    """The seq that a text means in a workspace's log. Gone if the log no longer reaches back so far."""
    first, head = log.bounds(tx, workspace_id)
    place, _, number = wanted.rpartition(":")
    seq = whole(number) if place in ("", workspace_id) else None
    if seq is not None:
        if seq > head:
            raise _refused("out_of_range", f"The log of {workspace_id} ends at {head}; {seq} is still to come.")
    else:
        seq = _at(tx, workspace_id, wanted, zone)
    if seq + 1 < first:
        raise Gone(f"The log of {workspace_id} begins at {first} by now.", extra={"first_seq": first, "seq": head})
    return seq


def _at(tx: Tx, workspace_id: str, wanted: str, zone: zones.Zone) -> int:
    now = time.now_ms()
    try:
        moment = time.moment_ms(wanted, now, zone)
    except ValueError as error:
        if wanted.startswith("ws_"):
            raise _refused("other_workspace", "The position is one of another workspace's log.") from error
        raise _refused("invalid_format", _FORM) from error
    if moment > now:
        raise _refused("out_of_range", f"{wanted[:80]} is still to come.")
    return log.seq_before(tx, workspace_id, moment + 1)


def _refused(code: str, detail: str) -> InvalidQuery:
    return InvalidQuery(errors=[Issue(code, detail, parameter=NAME)])
