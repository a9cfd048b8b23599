"""Exceptions as the problem documents that clients get (RFC 9457)."""

import logging
from typing import Any, Final

from taskade_server.http.wire.negotiation import preflight
from taskade_server.http.wire.reply import PROBLEM_TYPE, Reply
from taskade_server.http.wire.request import Request
from taskade_server.kit import json
from taskade_server.kit.budget import BudgetSpent
from taskade_server.kit.errors import Clash, Internal, OutcomeUnknown, Problem, TooExpensive, TooMuchWork, Unavailable
from taskade_server.store import database as store

logger: Final = logging.getLogger("taskade")
_TOO_MUCH: Final = (
    "The request needs more work than one request may cause; nothing was written. Send it in parts, with fewer"
    " operations, objects or characters each."
)


class Preflight(Exception):
    """OPTIONS: answered with what the path supports."""

    def __init__(self, methods: list[str]) -> None:
        super().__init__()
        self.methods = methods


def as_problem(error: Exception, request: Request) -> Problem | Preflight:
    """What a client is told of an exception; whatever is not foreseen is logged and told nothing of."""
    if isinstance(error, Problem | Preflight):
        return error
    retry = {"retry-after": "1"}
    if isinstance(error, store.OutcomeUnknown):
        return OutcomeUnknown(headers={"retry-after": "2"})
    if isinstance(error, store.QueryTooExpensive):
        return TooExpensive(headers=retry)
    if isinstance(error, BudgetSpent):
        return TooMuchWork(_TOO_MUCH)
    if isinstance(error, store.StorageFull):
        return Unavailable("The disk of the server is full; nothing was written.", headers={"retry-after": "60"})
    if isinstance(error, store.Unavailable):
        return Unavailable(headers=retry)
    if isinstance(error, store.Conflict):
        return Clash("Another object has the same unique value; nothing was written.")
    logger.error("%s %s failed", request.method, request.path, exc_info=error, extra={"request_id": request.request_id})
    return Internal()


def problem_reply(request: Request, problem: Problem | Preflight) -> Reply:
    """An RFC 9457 document with the problem's headers."""
    if isinstance(problem, Preflight):
        requested = request.headers.get(b"access-control-request-headers", b"")
        return Reply(204, None, preflight(problem.methods, requested))
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers.items()]
    document: dict[str, Any] = problem.to_dict(request.path[:500], request.request_id)
    try:
        body = json.encode(document)
    except (UnicodeEncodeError, ValueError):
        body = json.encode({**document, "instance": "", "errors": [], "detail": problem.title})
    return Reply(problem.status, body, headers, PROBLEM_TYPE)
