"""The audit log over HTTP: for admins and owners of a workspace, everything in it, private projects too.

Why all of it: whoever answers for a workspace must be able to see what was done in it. Taking the log away as a file is
on record itself.
"""

import hashlib
import time as clock
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from taskade_server.consumers import refusals
from taskade_server.consumers.refusals import DENIED, FAILED, Noted, Refusals
from taskade_server.engine import access, audit, events, query
from taskade_server.engine.audit import Position, Wanted
from taskade_server.engine.model import REGISTRY
from taskade_server.http.addresses import subscriber
from taskade_server.http.live import Session
from taskade_server.http.wire import MAX_USER_AGENT, Call, Headers, Reply, Request
from taskade_server.kit import ids, json, signing, time
from taskade_server.kit.errors import Forbidden, InvalidQuery, Issue, Problem, did_you_mean
from taskade_server.store import trees
from taskade_server.store.database import Tx

MAX_LIMIT: Final = 1000
MAX_WAIT: Final = 60
ACCESS_SECONDS: Final = 1.0
LATEST: Final = "latest"
"""The cursor of who wants to hear of nothing but what comes."""
MAX_VALUES: Final = 50
MAX_REASON: Final = 500
DOING: Final = "read the audit log"
_LISTS: Final = ("action", "actor", "address", "key", "object_id", "outcome", "project_id", "request_id", "resource")
_SINGLE: Final = ("cursor", "from", "include", "limit", "order", "to", "wait", "workspace_id")
PARAMETERS: Final = tuple(sorted((*_LISTS, *_SINGLE)))


def listing(call: Call, tx: Tx) -> Reply:
    """GET /audit, as it is at this moment."""
    return _look(call, tx)[0]


async def waiting(session: Session) -> Reply:
    """GET /audit: with `wait`, not before there is something to tell or the time is over."""
    reply, position, seconds, name = await session.read(_look, snapshot=True)
    if not seconds or reply.body != "[]":
        return reply
    leave, until = session.enter(), clock.monotonic() + seconds
    try:
        while reply.body == "[]" and not session.hub.ended and (left := until - clock.monotonic()) > 0:
            # The log of accesses wakes nobody: it is looked at every second.
            await session.hub.feed.wait({name: position.changes or 0}, min(left, ACCESS_SECONDS))
            reply, position, _, _ = await session.read(partial(_look, position=position), snapshot=True)
        return reply
    finally:
        leave()


def _look(call: Call, tx: Tx, position: Position | None = None) -> tuple[Reply, Position, int, str]:
    """The answer, how far that looked, how long may be waited for another, and in which workspace."""
    asked = Asked(call, tx, PARAMETERS)
    wanted, newest, limit = asked.wanted(), asked.choice("order", ("desc", "asc")) != "asc", asked.number("limit", 100)
    whole = asked.choice("include", ("data",)) == "data"
    seconds = asked.number("wait", 0, MAX_WAIT, 0)
    if seconds and newest:
        asked.fault("wait", "not_allowed", "Only order=asc has something to wait for.")
    start = asked.position(newest)
    asked.check()
    if position is None:
        position = start
    page = audit.find(tx, wanted, position, limit, newest_first=newest)
    names = audit.Names(tx, page.entries)
    headers: Headers = []
    if page.more or asked.text("wait") is not None:
        headers.append((b"link", f'<{asked.next_url(page.position, newest)}>; rel="next"'.encode()))
    body = json.encode([audit.shown(entry, names, whole=whole) for entry in page.entries])
    return Reply(200, body, headers), page.position, seconds, asked.workspace_id


def workspace_of(call: Call, given: str | None) -> str:
    """The workspace whose audit log somebody asks for, if they may. NotFound, Forbidden."""
    workspace_id = given or call.principal.default_workspace or ""
    try:
        access.require_workspace(call.principal, workspace_id, "admin", DOING)
    except Problem as problem:
        for issue in problem.errors:
            issue.pointer, issue.parameter = None, "workspace_id"
        raise
    return workspace_id


class Asked:
    """The parameters of a request about the audit log, understood one by one; `check` says what is wrong with them."""

    def __init__(self, call: Call, tx: Tx, allowed: tuple[str, ...]) -> None:
        self.call = call
        self.issues: list[Issue] = []
        self._tx = tx
        self._values: dict[str, list[str]] = {}
        for name, value in call.pairs():
            if name not in allowed:
                detail = f'There is no parameter "{name[:80]}".{did_you_mean(name, allowed)}'
                self.fault(name[:100], "unknown_parameter", f"{detail} Allowed: {', '.join(allowed)}.")
            elif name in self._values and name not in _LISTS:
                self.fault(name, "repeated", f"{name} stands more than once.")
            else:
                self._values.setdefault(name, []).extend(value.split(",") if name in _LISTS else [value])
        self.workspace_id = workspace_of(call, self.text("workspace_id"))

    def check(self) -> None:
        """InvalidQuery, with everything that is wrong."""
        if self.issues:
            raise InvalidQuery(errors=self.issues)

    def text(self, name: str) -> str | None:
        """A parameter as it is."""
        return self._values.get(name, [None])[0]

    def number(self, name: str, default: int, most: int = MAX_LIMIT, least: int = 1) -> int:
        """A whole number."""
        value = self.text(name)
        if value is None:
            return default
        if not value.isdecimal() or len(value) > 18 or not least <= int(value) <= most:
            self.fault(name, "out_of_range", f"{name} is a number from {least} to {most:,}.")
            return default
        return int(value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.text(name)
        if value is not None and value not in allowed:
            self.fault(name, "not_allowed", f"{name} is {' or '.join(allowed)}.{did_you_mean(value, allowed)}")
        return value

    def moment(self, name: str) -> int | None:
        """A time, a date (its start in UTC), or a relative value such as -7d."""
        value = self.text(name)
        if value is None:
            return None
        relative = time.relative_ms(value, time.now_ms())
        if relative is not None:
            return relative[0]
        try:
            return time.parse_ms(value)
        except ValueError as error:
            self.fault(name, "invalid_format", f"{name} {error}, or a relative value such as -7d.")
            return None

    def wanted(self) -> Wanted:
        """Which entries are asked for."""
        readers: dict[str, Callable[[str], str | None]] = {
            "actor": self._actor, "key": self._key, "resource": self._resource, "outcome": self._outcome,
            "project_id": self._id("project_id", "proj"), "request_id": self._id("request_id", "req"),
        }  # fmt: skip
        values: dict[str, tuple[str | None, ...]] = {}
        for name in _LISTS:
            if name in self._values and name != "action":
                read = readers.get(name, str)
                values[name] = tuple(read(value) for value in self._values[name])
        for name in _LISTS:
            if len(self._values.get(name, ())) > MAX_VALUES:
                self.fault(name, "too_many", f"{name} takes at most {MAX_VALUES} values.")
        since, until = self.moment("from"), self.moment("to")
        return Wanted(self.workspace_id, self._actions(), values, since, until)

    def position(self, newest: bool) -> Position:
        """Where the page before ended."""
        value = self.text("cursor")
        if value is None:
            return Position()
        if value == LATEST:
            return Position(*(trees.head(self._tx, self.workspace_id, log) for log in audit.LOGS))
        payload = signing.unseal(self.call.secret, value) if value.isascii() else None
        if payload is None:
            detail = "This is no cursor of this server. Start without one and follow the Link header."
            self.fault("cursor", "invalid_cursor", detail)
            return Position()
        fingerprint, *numbers = json.decode(payload)
        if fingerprint != self._fingerprint(newest):
            detail = "This cursor belongs to another question. Keep the parameters the same while paging."
            self.fault("cursor", "cursor_of_another_query", detail)
            return Position()
        return Position(*numbers)

    def next_url(self, position: Position, newest: bool) -> str:
        """The address of the next page."""
        cursor = signing.seal(self.call.secret, json.encode_bytes([self._fingerprint(newest), *position]))
        kept = [part for part in self.call.query_string.split("&") if part and part.partition("=")[0] != "cursor"]
        return f"{self.call.url}?{'&'.join([*kept, f'cursor={cursor}'])}"

    def _fingerprint(self, newest: bool) -> str:
        kept = {
            name: sorted(values) for name, values in self._values.items() if name not in ("cursor", "limit", "wait")
        }
        text = json.canonical(["audit", self.workspace_id, newest, kept])
        return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()

    def _actions(self) -> tuple[str, ...]:
        patterns = self._values.get("action", [])
        for pattern in patterns:
            if not events.fits([pattern], refusals.DENIED) and not any(
                events.fits([pattern], action) for action in refusals.ACTIONS
            ):
                fault = events.fault(pattern)
                if fault is not None:
                    known = ", ".join(refusals.ACTIONS)
                    hint = did_you_mean(pattern, refusals.ACTIONS)
                    self.fault("action", "unknown_action", f"{fault} Of the log of accesses: {known}.{hint}")
        return tuple(patterns)

    def _actor(self, value: str) -> str | None:
        if value == audit.SYSTEM:
            return None
        if ids.is_id(value, "user"):
            return value
        found = query.resolve(self._tx, self.call.principal, "user", value)
        if found is None:
            detail = f"There is no user {value[:80]} that you can see; give an id, a handle, an e-mail, me or system."
            self.fault("actor", "unknown_reference", detail)
        return found

    def _key(self, value: str) -> str | None:
        name = f"key_{value.split('_')[1]}" if value.startswith("tsk_") else value
        if not ids.is_id(name, "key"):
            self.fault("key", "invalid_format", "key is the id of an API key (key_...) or its prefix (tsk_...).")
        return name

    def _id(self, name: str, prefix: str) -> Callable[[str], str]:
        def read(value: str) -> str:
            if not ids.is_id(value, prefix):
                self.fault(name, "invalid_format", f"{name} is an id of the form {prefix}_ and 26 characters.")
            return value

        return read

    def _resource(self, value: str) -> str:
        if value not in REGISTRY:
            known = ", ".join(sorted(REGISTRY))
            self.fault("resource", "not_allowed", f"resource is one of {known}.{did_you_mean(value, REGISTRY)}")
        return value

    def _outcome(self, value: str) -> str:
        if value not in audit.OUTCOMES:
            known = ", ".join(audit.OUTCOMES)
            self.fault("outcome", "not_allowed", f"outcome is one of {known}.{did_you_mean(value, audit.OUTCOMES)}")
        return value

    def fault(self, name: str, code: str, detail: str) -> None:
        """Something is wrong with a parameter."""
        self.issues.append(Issue(code, detail, parameter=name))


# ---- what is noted ---------------------------------------------------------------------------------------------------


def note_refusal(log: Refusals, request: Request, problem: Problem) -> None:
    """Have a refusal written down: of somebody who is known (403), or of somebody who only claimed to be (401).

    A request without any credential is neither. `problem` may stand for another one, that of an operation of a batch.
    """
    caller = request.caller
    if problem.status not in (401, 403) or (caller is None and not _tries(request)):
        return
    inner = problem.__cause__ if isinstance(problem.__cause__, Problem) else problem
    failed = problem.status == 401
    source = subscriber(request.client) if caller is None else caller.key_id or caller.user_id
    log.note(_noted(request, FAILED if failed else DENIED, "failed" if failed else "denied", problem.status,
                    problem.detail[:MAX_REASON], inner.place if isinstance(inner, Forbidden) else ""),
             source, request.request_id, caller)  # fmt: skip


def note_reading(log: Refusals, request: Request, action: str) -> None:
    """Have it written down that somebody read what is secret, or took the audit log away."""
    caller = request.caller
    if caller is not None:
        noted = _noted(request, action, audit.SUCCESS, 200, None, request.place)._replace(one=request.request_id)
        log.note(noted, f"{action} {caller.key_id or caller.user_id}", request.request_id, caller)


def _noted(request: Request, action: str, outcome: str, status: int, reason: str | None, place: str) -> Noted:
    caller = request.caller
    return Noted(
        action, outcome, status, reason, request.operation or None, next(_ids(request.path), None),
        caller.user_id if caller else None, caller.key_id if caller else None,
        None if caller else request.claimed, place, request.client or None,
        request.header(b"user-agent")[:MAX_USER_AGENT] or None,
    )  # fmt: skip


def _ids(path: str) -> Iterator[str]:
    return (part for part in path.split("/") if ids.is_id(part, part.rpartition("_")[0]))


def _tries(request: Request) -> bool:
    scheme, _, token = request.header(b"authorization").partition(" ")
    return request.claimed is not None or (scheme.lower() == "bearer" and bool(token.strip()))
