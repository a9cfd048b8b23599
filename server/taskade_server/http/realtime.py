"""The WebSocket: many subscriptions on one connection, to events and to lists that stay current, and who is looking.

Why each subscription is a task of its own on the same two mechanisms as everything else (`Follower`, `LiveQuery`): it
has its own place in the log and its own faults, and one that ends says so without ending the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, TypeVar

from taskade_server.consumers.follower import Follower, Frame, Wanted
from taskade_server.consumers.live_query import REST_SECONDS, VISIBILITIES, LiveQuery, Picture, encoded
from taskade_server.consumers.presence import Viewer
from taskade_server.engine import access, filters, log, query
from taskade_server.engine.filters import Leaf
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.engine.query import Query
from taskade_server.http import events
from taskade_server.http.events import Reading
from taskade_server.http.live import Session
from taskade_server.http.wire import Call, Send
from taskade_server.kit import ids, json
from taskade_server.kit.errors import (
    Gone,
    Malformed,
    NotFound,
    Problem,
    TooLarge,
    Unavailable,
    did_you_mean,
)
from taskade_server.store.database import StoreError, Tx

T = TypeVar("T")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PATHS: Final = ("/realtime", "/v1/realtime")
MAX_SUBSCRIPTIONS: Final = 50
MAX_PROJECTS: Final = 20
MAX_MESSAGE: Final = 64 << 10
MAX_STATE: Final = 2 << 10
MAX_NAME: Final = 64
HEARTBEAT_SECONDS: Final = 15.0
BYTES_A_SECOND: Final = 64 << 10
KINDS: Final = ("subscribe", "unsubscribe", "presence", "ping")
# Close codes: 1000-1999 are the protocol's (RFC 6455), 4000-4999 ours.
NORMAL, GOING_AWAY, TOO_BIG, TRY_LATER, UNAUTHENTICATED = 1000, 1001, 1009, 1013, 4401


class Connection:
    """One WebSocket from its acceptance to its end."""

    def __init__(self, session: Session, receive: Receive, send: Send) -> None:
        self._session = session
        self._hub = session.hub
        self._presence = session.hub.presence
        self._receive = receive
        self._send = send
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()
        self._code, self._reason = NORMAL, ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # How far each subscription's client has been told, not how far we have looked.
        self._told: dict[str, int] = {}
        self._viewer = Viewer(ids.new("conn"), session.call.principal.user_id)

    async def run(self) -> None:
        """Until one side ends it."""
        beat = json.encode(
            {"type": "hello", "connection_id": self._viewer.connection_id, "heartbeat_seconds": HEARTBEAT_SECONDS}
        )
        helpers = [asyncio.create_task(step) for step in (self._listen(), self._watch(), self._show())]
        try:
            await self._tell(beat)
            await self._over.wait()
        finally:
            tasks = [*helpers, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._presence.leave(self._viewer)
            except StoreError:
                pass  # its lease runs out
            await self._close()

    # -- to the client

    async def _tell(self, text: str) -> None:
        """Send a message. A client that does not take it is given up."""
        async with self._turn:
            if self._over.is_set():
                return
            try:
                async with asyncio.timeout(events.SLOW_SECONDS + len(text) / BYTES_A_SECOND):
                    await self._send({"type": "websocket.send", "text": text})
            except TimeoutError:
                self._hub.evict(self._session.request)
                self._end(TRY_LATER, "too slow")

    async def _fail(self, problem: Problem, name: str | None = None, kind: str = "error") -> None:
        request = self._session.request
        document = problem.to_dict(request.path, request.request_id)
        await self._tell(json.encode({"type": kind, "subscription": name, "problem": document}))

    def _end(self, code: int, reason: str) -> None:
        if not self._over.is_set():
            self._code, self._reason = code, reason
            self._over.set()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._send({"type": "websocket.close", "code": self._code, "reason": self._reason})
        except Exception:
            pass  # it is gone, or does not read

    # -- what goes on by itself

    async def _watch(self) -> None:
        """Heartbeats, and an end as soon as the caller is none any more, or the server ends."""
        while not self._hub.ended:
            stirred = await self._hub.stirred(HEARTBEAT_SECONDS)
            try:
                principal = await self._session.caller()
            except Problem as problem:
                await self._fail(problem, kind="end")
                self._end(UNAUTHENTICATED, problem.code)
                return
            except StoreError:
                continue
            for project in list(self._viewer.projects):
                if not any(grant.live and grant.sees_project(project) for grant in principal.grants.values()):
                    await self._presence.leave(self._viewer, project)
            if not stirred:
                await self._tell(json.encode({"type": "heartbeat", "positions": self._told}))
        await self._fail(Unavailable("This server ends; another one will answer."), kind="end")
        self._end(GOING_AWAY, "going away")

    async def _show(self) -> None:
        """Tell who looks at the projects that this client looks at."""
        viewer = self._viewer
        while True:
            await viewer.news.wait()
            viewer.news.clear()
            while viewer.changed:
                project = viewer.changed.pop()
                if project in viewer.projects:
                    await self._tell(self._presence.message(project))

    async def _follow(self, name: str, follower: Follower) -> None:
        """One subscription to events."""
        while True:
            for frame in await self._patiently(follower.next):
                await self._tell(_of_event(name, frame))
                self._hub.sent += 1
            self._told[name] = follower.position

    async def _maintain(self, name: str, live: LiveQuery, picture: Picture) -> None:
        """One subscription to a list."""
        head = json.encode({"type": "snapshot", "subscription": name, "seq": picture.seq})
        await self._tell(f'{head[:-1]},"items":{json.array(picture.documents)}}}')
        self._told[name] = picture.seq
        while True:
            steps = await self._patiently(live.next)
            for step in steps:
                await self._tell(encoded(step, name, live.position))
                self._hub.sent += 1
            if steps:
                await self._tell(json.encode({"type": "ready", "subscription": name, "seq": live.position}))
            self._told[name] = live.position
            # However much is written, the list is not read without a pause.
            await asyncio.sleep(REST_SECONDS if steps else 0)

    async def _patiently(self, step: Callable[[float], Awaitable[T]]) -> T:
        while True:
            try:
                return await step(HEARTBEAT_SECONDS)
            except StoreError:
                await asyncio.sleep(events.AWAY_SECONDS)

    async def _run(self, name: str, work: Awaitable[None]) -> None:
        """A subscription to its end; whatever it is, the others go on."""
        try:
            await work
        except Problem as problem:
            self._forget(name)
            await self._fail(problem, name)

    def _forget(self, name: str) -> asyncio.Task[None] | None:
        self._told.pop(name, None)
        return self._tasks.pop(name, None)

    # -- from the client

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._end(NORMAL, "")
                return
            text = message.get("text")
            if text is None or len(text) > MAX_MESSAGE:
                if len(text or message.get("bytes") or b"") > MAX_MESSAGE:
                    await self._fail(TooLarge(f"A message may have {MAX_MESSAGE >> 10} KiB."))
                    self._end(TOO_BIG, "message too large")
                    return
                await self._fail(Malformed("Messages are JSON objects in text frames."))
                continue
            name = None
            try:
                said = _parsed(text)
                name = said.get("id") if isinstance(said.get("id"), str) else None
                await self._handle(said)
            except Problem as problem:
                await self._fail(problem, name)
            except StoreError:
                await self._fail(Unavailable(), name)

    async def _handle(self, said: Message) -> None:
        kind = said.get("type")
        if kind == "ping":
            Reading(said, ("type", "id"), typed=True).fail()
            await self._tell(json.encode({"type": "pong", "id": said.get("id"), "positions": self._told}))
            return
        if kind not in KINDS:
            reading = Reading({}, (), typed=True)
            reading.fault("type", "not_allowed", f"type is one of {', '.join(KINDS)}."
                          f"{did_you_mean(str(kind)[:MAX_NAME], KINDS)}")  # fmt: skip
            reading.fail()
        await self._session.charge()
        await {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "presence": self._be_present}[str(kind)](
            said
        )

    async def _subscribe(self, said: Message) -> None:
        listed = "query" in said
        allowed = ("query", "workspace_id") if listed else ("events", "after", *events.CHOOSING[1:])
        reading = Reading(said, ("type", "id", *allowed), typed=True)
        name = reading.text("id")
        if name is None or len(name) > MAX_NAME:
            reading.fault("id", "required", f"id names the subscription, with {MAX_NAME} characters at most.")
        elif name in self._tasks:
            reading.fault("id", "not_allowed", "There is a subscription of this id; unsubscribe it first.")
        if len(self._tasks) >= MAX_SUBSCRIPTIONS:
            reading.fault("id", "too_many", f"A connection may have {MAX_SUBSCRIPTIONS} subscriptions.")
        reading.fail()
        assert name is not None
        await (self._subscribe_list if listed else self._subscribe_events)(name, reading)

    async def _subscribe_events(self, name: str, reading: Reading) -> None:
        hub, session = self._hub, self._session
        wanted, after, head, gone = await session.read(lambda call, tx: _place(call, tx, reading))
        follower = Follower(hub.feed, hub.shown, wanted, session.caller, after)
        ack = {"type": "subscribed", "id": name, "workspace_id": wanted.workspace_id, "seq": after}
        await self._tell(json.encode(ack))
        if gone is not None:
            await self._tell(
                json.encode({"type": "resync", "subscription": name, "seq": head, "reason": "log", **gone})
            )
        self._begin(name, self._follow(name, follower))
        self._told[name] = after

    async def _subscribe_list(self, name: str, reading: Reading) -> None:
        hub, session = self._hub, self._session
        parsed, workspace_id = await session.read(lambda call, tx: _listed(call, tx, reading))
        live = LiveQuery(
            hub.feed, hub.shown, parsed, workspace_id, partial(self._picture, parsed, workspace_id), session.caller
        )
        picture = await live.first()
        ack = {"type": "subscribed", "id": name, "workspace_id": workspace_id, "seq": picture.seq}
        await self._tell(json.encode(ack))
        self._begin(name, self._maintain(name, live, picture))

    async def _picture(self, parsed: Query, workspace_id: str) -> Picture:
        def read(call: Call, tx: Tx) -> Picture:
            access.require_scope(call.principal, f"{parsed.resource.plural}:read")
            seq = log.head(tx, workspace_id)
            return Picture(seq, query.run(tx, call.principal, parsed, call.secret).documents)

        return await self._session.read(read, snapshot=True)

    def _begin(self, name: str, work: Awaitable[None]) -> None:
        self._tasks[name] = asyncio.create_task(self._run(name, work))

    async def _unsubscribe(self, said: Message) -> None:
        reading = Reading(said, ("type", "id"), typed=True)
        name = reading.text("id")
        if name not in self._tasks:
            hint = did_you_mean(str(name)[:MAX_NAME], self._tasks)
            reading.fault("id", "unknown_reference", f"There is no subscription of this id.{hint}")
        reading.fail()
        task = self._forget(str(name))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._tell(json.encode({"type": "unsubscribed", "id": name}))

    async def _be_present(self, said: Message) -> None:
        reading = Reading(said, ("type", "id", "project_id", "state"), typed=True)
        project_id = reading.text("project_id")
        if project_id is None:
            reading.fault("project_id", "required", "project_id names the project that is looked at.")
        state = said.get("state", {})
        text = json.encode(state)
        if not isinstance(state, dict | None) or len(text) > MAX_STATE:
            detail = f"state is an object of {MAX_STATE >> 10} KiB at most, or null for nobody is looking any more."
            reading.fault("state", "wrong_type", detail)
        elif len(self._viewer.projects) >= MAX_PROJECTS and project_id not in self._viewer.projects:
            reading.fault("project_id", "too_many", f"A connection may look at {MAX_PROJECTS} projects.")
        reading.fail()
        assert project_id is not None
        if state is None:
            await self._presence.leave(self._viewer, project_id)
            return
        workspace_id = await self._session.read(lambda call, tx: _home(call, tx, project_id))
        await self._presence.enter(self._viewer, workspace_id, project_id, text)


# ---- understanding ---------------------------------------------------------------------------------------------------


def _parsed(text: str) -> Message:
    try:
        said = json.decode_strict(text.encode())
    except (json.Faulty, UnicodeEncodeError) as error:
        raise Malformed(f"A message is one JSON object. {error}") from error
    if not isinstance(said, dict):
        raise Malformed('A message is one JSON object such as {"type": "ping"}.')
    return said


def _place(call: Call, tx: Tx, reading: Reading) -> tuple[Wanted, int, int, Message | None]:
    """What is wanted, behind which position, where the log ends, and what is missing if it does not reach back."""
    wanted = reading.wanted(tx, call.principal, call.secret, "events")
    after = reading.position("after", wanted.workspace_id)
    reading.fail()
    head = log.head(tx, wanted.workspace_id)
    if after is None:
        return wanted, head, head, None
    try:
        events.check_position(tx, wanted.workspace_id, after, reading, "after")
    except Gone as gone:
        return wanted, head, head, {"workspace_id": wanted.workspace_id, "first_seq": gone.extra["first_seq"]}
    return wanted, after, head, None


def _listed(call: Call, tx: Tx, reading: Reading) -> tuple[Query, str]:
    """The list that a subscription is to, within one workspace."""
    workspace_id = reading.workspace(call.principal)
    body = reading.values["query"]
    kinds = {kind.plural: kind for kind in REGISTRY.values() if kind.visibility in VISIBILITIES}
    resource = kinds.get(str(body.get("resource"))) if isinstance(body, dict) else None
    if resource is None:
        hint = did_you_mean(str(body.get("resource"))[:MAX_NAME], kinds) if isinstance(body, dict) else ""
        detail = f'query is a list request with its resource: {{"resource": "tasks", "filter": {{...}}}}.{hint}'
        reading.fault("query", "not_allowed", f"{detail} Resources: {', '.join(sorted(kinds))}.")
        reading.fail()
        raise AssertionError
    access.require_scope(call.principal, f"{resource.plural}:read")
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
    parsed = events.parsed_query(tx, call.principal, resource, call.secret, rest, inner)
    reading.issues += [issue.below("/query") for issue in inner.issues]
    return parsed


def _home(call: Call, tx: Tx, project_id: str) -> str:
    """The workspace of a project that the caller sees."""
    row = query.get(tx, call.principal, REGISTRY["project"], project_id)
    if row is None:
        raise NotFound(f"There is no project {project_id[:80]} that this key can see.")
    return row.workspace_id


def _of_event(name: str, frame: Frame) -> str:
    if "." in frame.type and frame.type != "access.revoked":
        head = json.encode({"type": "event", "subscription": name, "seq": frame.seq})
        return f'{head[:-1]},"event":{frame.data}}}'
    return f"{json.encode({'type': frame.type, 'subscription': name})[:-1]},{frame.data[1:]}"
