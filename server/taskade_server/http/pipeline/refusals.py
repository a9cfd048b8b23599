"""Notes refused requests, failed logins and secrets that were read, for the audit log."""

from collections.abc import Iterator
from typing import Final

from taskade_server.consumers.access_log import DENIED, FAILED, AccessEntry, Refusals
from taskade_server.engine import audit
from taskade_server.http.admission.caller import Caller
from taskade_server.http.wire.addresses import subscriber
from taskade_server.http.wire.call import MAX_USER_AGENT
from taskade_server.kit import ids
from taskade_server.kit.errors import Forbidden, Problem

MAX_REASON: Final = 500


def note_refusal(log: Refusals, caller: Caller, operation: str, problem: Problem) -> None:
    """Have a refusal written down: of a caller who is known (403), or of one who only claimed to be (401).

    A request without any credential is neither. `problem` may stand for another one, that of an operation of a batch.
    """
    request, principal = caller.request, caller.principal
    if problem.status not in (401, 403) or (principal is None and not _has_credential(caller)):
        return
    inner = problem.__cause__ if isinstance(problem.__cause__, Problem) else problem
    failed = problem.status == 401
    source = subscriber(request.client) if principal is None else principal.caller_id
    log.note(
        _noted(
            caller,
            operation,
            FAILED if failed else DENIED,
            "failed" if failed else "denied",
            problem.status,
            problem.detail[:MAX_REASON],
            inner.workspace_id if isinstance(inner, Forbidden) else "",
        ),
        source,
        request.request_id,
        principal,
    )


def note_reading(log: Refusals, caller: Caller, operation: str, action: str, workspace_id: str) -> None:
    """Have it written down that the caller read a secret, or exported the audit log.

    `workspace_id` is the workspace that it was about, "" if the object that was read tells.
    """
    principal = caller.principal
    if principal is not None:
        request_id = caller.request.request_id
        noted = _noted(caller, operation, action, audit.SUCCESS, 200, None, workspace_id)._replace(one=request_id)
        log.note(noted, f"{action} {principal.caller_id}", request_id, principal)


def _noted(
    caller: Caller, operation: str, action: str, outcome: str, status: int, reason: str | None, workspace_id: str
) -> AccessEntry:
    request, principal = caller.request, caller.principal
    return AccessEntry(
        action,
        outcome,
        status,
        reason,
        operation or None,
        next(_ids(request.path), None),
        principal.user_id if principal else None,
        principal.key_id if principal else None,
        None if principal else caller.claimed_key,
        workspace_id,
        request.client or None,
        request.header(b"user-agent")[:MAX_USER_AGENT] or None,
    )


def _ids(path: str) -> Iterator[str]:
    return (part for part in path.split("/") if ids.is_id(part, part.rpartition("_")[0]))


def _has_credential(caller: Caller) -> bool:
    """Whether the request has a key or a ticket, right or wrong."""
    scheme, _, token = caller.request.header(b"authorization").partition(" ")
    return caller.claimed_key is not None or (scheme.lower() == "bearer" and bool(token.strip()))
