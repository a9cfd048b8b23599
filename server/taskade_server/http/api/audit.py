"""The audit log over HTTP: for admins and owners of a workspace, everything in it, private projects too.

Why all of it: whoever answers for a workspace must be able to see what was done in it. Taking the log away as a file is
on record itself.
"""

import hashlib
import time as clock
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from typing import Final

from taskade_server.consumers import access_log as refusals
from taskade_server.engine import access, audit, events, query
from taskade_server.engine.audit import AuditQuery, Position
from taskade_server.engine.model import REGISTRY
from taskade_server.http.api import audit_schema
from taskade_server.http.api.route import Route
from taskade_server.http.live.sessions import Session
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.parameters import Parameters
from taskade_server.http.wire.reply import Headers, Reply
from taskade_server.kit import ids, json, signing, time, zones
from taskade_server.kit.errors import Problem, did_you_mean
from taskade_server.store.database import Tx
from taskade_server.store.tables import trees

MAX_LIMIT: Final = 1000
MAX_WAIT: Final = 60
ACCESS_SECONDS: Final = 1.0
LATEST: Final = "latest"
"""The cursor of who wants to hear of nothing but what comes."""
DOING: Final = "read the audit log"
SCOPE: Final = "audit:read"
_LISTS: Final = ("action", "actor", "address", "key", "object_id", "outcome", "project_id", "request_id", "resource")
_SINGLE: Final = ("cursor", "from", "include", "limit", "order", "timezone", "to", "wait", "workspace_id")
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
    asked = AuditParameters(call, tx, PARAMETERS)
    wanted, newest, limit = (
        asked.wanted(),
        asked.choice("order", ("desc", "asc")) != "asc",
        asked.number("limit", 100, MAX_LIMIT),
    )
    whole = asked.choice("include", ("data",)) == "data"
    seconds = asked.number("wait", 0, MAX_WAIT, 0)
    if seconds and newest:
        asked.fault("wait", "not_allowed", "Only order=asc has something to wait for.")
    start = asked.position(newest)
    asked.fail()
    if position is None:
        position = start
    page = audit.find(tx, wanted, position, limit, newest_first=newest)
    texts, page = audit.render(tx, page, position, whole=whole)
    headers: Headers = []
    if page.more or asked.text("wait") is not None:
        headers.append(call.link_to_next("cursor", asked.next_cursor(page.position, newest)))
    return Reply(200, json.array(texts), headers), page.position, seconds, asked.workspace_id


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


class AuditParameters(Parameters):
    """The parameters of a request about the audit log; `fail` says what is wrong with them."""

    def __init__(self, call: Call, tx: Tx, allowed: tuple[str, ...]) -> None:
        super().__init__(call.pairs(), allowed, _LISTS)
        self.call = call
        self._tx = tx
        self.workspace_id = workspace_of(call, self.text("workspace_id"))
        self.zone = self._zone()

    def _zone(self) -> zones.Zone:
        try:
            return zones.get(self.text("timezone") or self.call.principal.zone(self.workspace_id))
        except ValueError as error:
            self.fault("timezone", "unknown_timezone", f"timezone: {error}")
            return UTC

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.text(name)
        if value is not None and value not in allowed:
            self.fault(name, "not_allowed", f"{name} is {' or '.join(allowed)}.{did_you_mean(value, allowed)}")
        return value

    def moment(self, name: str) -> int | None:
        """A time, a date (its start in the time zone), or a relative value such as -7d."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return time.moment_ms(value, time.now_ms(), self.zone)
        except ValueError as error:
            self.fault(name, "invalid_format", f"{name} {error}, or a relative value such as -7d.")
            return None

    def wanted(self) -> AuditQuery:
        """Which entries are asked for."""
        readers: dict[str, Callable[[str], str | None]] = {
            "actor": self._actor,
            "key": self._key,
            "resource": self._resource,
            "outcome": self._outcome,
            "project_id": self._id("project_id", "proj"),
            "request_id": self._id("request_id", "req"),
        }
        values: dict[str, tuple[str | None, ...]] = {}
        for name in _LISTS:
            if name in self._values and name != "action":
                read = readers.get(name, str)
                values[name] = tuple(read(value) for value in self._values[name])
        since, until = self.moment("from"), self.moment("to")
        return AuditQuery(self.workspace_id, self._actions(), values, since, until)

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

    def next_cursor(self, position: Position, newest: bool) -> str:
        """The cursor of the next page."""
        return signing.seal(self.call.secret, json.encode_bytes([self._fingerprint(newest), *position]))

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


def routes() -> Iterator[Route]:
    """The route of the entries."""
    yield Route(
        "GET",
        "/audit",
        "audit.entries",
        SCOPE,
        listing,
        None,
        "Read the audit log of a workspace",
        answer="document",
        live=waiting,
        document=audit_schema.ENTRIES,
    )
