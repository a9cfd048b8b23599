"""An object as it was: the newest event about it at or before a position of the log, or a moment.

Why today's rights and the place of then: whoever lost an object must not read on in its past, and who sees it now need
not have been let into the project in which it lay then.
"""

from typing import Final

from taskade_server.engine import access, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.model import Resource
from taskade_server.kit import json, time
from taskade_server.kit.errors import Gone, InvalidQuery, Issue, NotFound
from taskade_server.store.database import Tx

NAME: Final = "as_of"
_FORM: Final = (
    "as_of is a seq such as 123, a Commit-Seq (ws_...:123), a time (2024-01-15T10:30:00Z), a date, which means its"
    " beginning in UTC, or a while ago such as -2h or -7d."
)


def read(tx: Tx, principal: Principal, resource: Resource, object_id: str, wanted: str) -> str:
    """The document as it was then. NotFound if there was none; InvalidQuery for a position that is none, or to come."""
    row = query.get(tx, principal, resource, object_id, deleted=None)
    if row is None:
        raise NotFound(f"There is no {resource.name} {object_id[:80]} that this key can see.")
    seq = position(tx, row.workspace_id, wanted)
    found = log.state_at(tx, row.workspace_id, object_id, seq)
    if found is None:
        raise NotFound(f"The {resource.name} {object_id} did not exist at {wanted[:80]}.")
    if resource.project_column and not _sees(principal, resource, row.workspace_id, found.project_id, object_id):
        raise NotFound(f"The {resource.name} {object_id} was in a place at {wanted[:80]} that this key cannot see.")
    gone = not resource.trash and found.type == resource.event_type("deleted")
    if gone or json.decode(found.data).get("deleted_at") is not None:
        raise NotFound(f"The {resource.name} {object_id} was deleted at {wanted[:80]}.")
    return found.data


def _sees(
    principal: Principal, resource: Resource, workspace_id: str, project_id: str | None, object_id: str
) -> bool:  # fmt: skip
    if resource.visibility in ("shared", "owner", "managed"):
        return True
    return access.sees(principal, resource, workspace_id, project_id, object_id)


def position(tx: Tx, workspace_id: str, wanted: str) -> int:
    """The seq that a text means in a workspace's log. Gone if the log no longer reaches back so far."""
    first, head = log.bounds(tx, workspace_id)
    place, _, number = wanted.rpartition(":")
    if number.isascii() and number.isdigit() and len(number) < 18 and place in ("", workspace_id):
        seq = int(number)
        if seq > head:
            raise _refused("out_of_range", f"The log of {workspace_id} ends at {head}; {seq} is still to come.")
    else:
        seq = _at(tx, workspace_id, wanted)
    if seq + 1 < first:
        raise Gone(f"The log of {workspace_id} begins at {first} by now.", extra={"first_seq": first, "seq": head})
    return seq


def _at(tx: Tx, workspace_id: str, wanted: str) -> int:
    now = time.now_ms()
    relative = time.relative_ms(wanted, now)
    try:
        moment = relative[0] if relative is not None else time.parse_ms(wanted)
    except ValueError as error:
        if wanted.startswith("ws_"):
            raise _refused("other_workspace", "The position is one of another workspace's log.") from error
        raise _refused("invalid_format", _FORM) from error
    if moment > now:
        raise _refused("out_of_range", f"{wanted[:80]} is still to come.")
    return log.seq_before(tx, workspace_id, moment + 1)


def _refused(code: str, detail: str) -> InvalidQuery:
    return InvalidQuery(errors=[Issue(code, detail, parameter=NAME)])
