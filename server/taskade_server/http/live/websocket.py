"""The WebSocket: many subscriptions on one connection, to events and to lists that stay current, and who is looking.

Why each subscription is a task of its own on the same two mechanisms as everything else (`Follower`, `LiveQuery`): it
has its own place in the log and its own faults, and one that ends says so without ending the others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, TypeVar

from taskade_server.consumers.follower import Follower
from taskade_server.consumers.live_query import REST_SECONDS, LiveQuery, Snapshot, encoded
from taskade_server.consumers.presence import Viewer
from taskade_server.engine import log, query
from taskade_server.engine.query import Query
from taskade_server.http.live.channel import FAULT, GOING_AWAY, NORMAL, TOO_BIG, UNAUTHENTICATED, Channel
from taskade_server.http.live.messages import (
    MAX_NAME,
    SCOPE,
    Message,
    event_message,
    list_scope,
    lost_projects,
    may_look,
    parse_message,
    subscribed_events,
    subscribed_list,
    workspace_of_project,
)
from taskade_server.http.live.parameters import CHOOSING, Reading
from taskade_server.http.live.sessions import Session
from taskade_server.http.live.sse import AWAY_SECONDS
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.request import Send
from taskade_server.kit import ids, json
from taskade_server.kit.errors import (
    Internal,
    Malformed,
    Problem,
    TooLarge,
    Unavailable,
    did_you_mean,
)
from taskade_server.store.database import StoreError, Tx

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

logger: Final = logging.getLogger("taskade")

PATHS: Final = ("/realtime", "/v1/realtime")
OPERATION: Final = "realtime"
"""What logs and metrics call a WebSocket; OpenAPI has no words for it."""
MAX_SUBSCRIPTIONS: Final = 50
MAX_PROJECTS: Final = 20
MAX_MESSAGE: Final = 64 << 10
MAX_STATE: Final = 2 << 10
HEARTBEAT_SECONDS: Final = 15.0
KINDS: Final = ("subscribe", "unsubscribe", "presence", "ping")


class Connection:
    """One WebSocket from its acceptance to its end."""

    def __init__(self, session: Session, receive: Receive, send: Send) -> None:
        self._session = session
        self._hub = session.hub
        self._presence = session.hub.presence
        self._receive = receive
        self._channel = Channel(session.request, send, session.hub.evict)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # The position up to which each subscription was sent, not the one up to which the log was read.
        self._sent_up_to: dict[str, int] = {}
        self._viewer = Viewer(ids.new("conn"), session.user_id)

    async def run(self) -> None:
        """Serve the connection until one side closes it."""
        beat = json.encode(
            {"type": "hello", "connection_id": self._viewer.connection_id, "heartbeat_seconds": HEARTBEAT_SECONDS}
        )
        helpers = [
            asyncio.create_task(self._essential(step)) for step in (self._listen, self._watch, self._send_presence)
        ]
        try:
            await self._channel.tell(beat)
            await self._channel.over.wait()
        finally:
            tasks = [*helpers, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._presence.leave(self._viewer)
            except StoreError:
                pass  # its lease runs out
            await self._channel.close()

    async def _essential(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run what a client relies on; if it fails unexpectedly the connection closes, and the client reconnects."""
        try:
            await work()
        except Exception:
            logger.exception(
                "A WebSocket failed; it is closed.", extra={"request_id": self._session.request.request_id}
            )
            try:
                await self._channel.fail(Internal(), kind="end")
            finally:
                self._channel.end(FAULT, "internal error")

    # -- what goes on by itself

    async def _watch(self) -> None:
        """Heartbeats, and an end as soon as the caller is none any more, or the server ends."""
        while not self._hub.ended:
            woken = await self._hub.woken(HEARTBEAT_SECONDS)
            try:
                await self._session.principal()
                await self._stop_viewing()
            except Problem as problem:
                await self._channel.fail(problem, kind="end")
                self._channel.end(UNAUTHENTICATED, problem.code)
                return
            except StoreError:
                continue
            if not woken:
                await self._channel.tell(json.encode({"type": "heartbeat", "positions": self._sent_up_to}))
        await self._channel.fail(Unavailable("This server ends; another one will answer."), kind="end")
        self._channel.end(GOING_AWAY, "going away")

    async def _stop_viewing(self) -> None:
        """Leave those of the projects looked at that the caller may not read any more, or that are gone."""
        if not self._viewer.projects:
            return
        lost = await self._session.read(partial(lost_projects, projects=dict(self._viewer.homes)))
        for project in lost:
            await self._presence.leave(self._viewer, project)

    async def _send_presence(self) -> None:
        """Tell who looks at the projects that this client looks at, as long as the caller may read them."""
        viewer = self._viewer
        while True:
            await viewer.news.wait()
            viewer.news.clear()
            while viewer.changed:
                project = viewer.changed.pop()
                try:
                    principal = await self._session.principal()
                except (Problem, StoreError):
                    continue  # whether this connection goes on is for `_watch` to say
                if project in viewer.projects and may_look(principal, viewer.homes[project], project):
                    await self._channel.tell(self._presence.message(project))

    async def _follow(self, name: str, follower: Follower) -> None:
        """One subscription to events."""
        while True:
            for frame in await _retried(follower.next):
                await self._channel.tell(event_message(name, frame))
                self._hub.sent += 1
            self._sent_up_to[name] = follower.position

    async def _send_changes(self, name: str, live: LiveQuery, snapshot: Snapshot) -> None:
        """One subscription to a list."""
        head = json.encode({"type": "snapshot", "subscription": name, "seq": snapshot.seq})
        await self._channel.tell(f'{head[:-1]},"items":{json.array(snapshot.documents)}}}')
        self._sent_up_to[name] = snapshot.seq
        while True:
            steps = await _retried(live.next)
            for step in steps:
                await self._channel.tell(encoded(step, name, live.position))
                self._hub.sent += 1
            if steps:
                await self._channel.tell(json.encode({"type": "ready", "subscription": name, "seq": live.position}))
            self._sent_up_to[name] = live.position
            await asyncio.sleep(REST_SECONDS if steps else 0)  # however much is written, there are pauses

    async def _run(self, name: str, work: Awaitable[None]) -> None:
        """A subscription to its end; if that is a Problem, the others go on."""
        try:
            await work
        except Problem as problem:
            self._forget(name)
            await self._channel.fail(problem, name)

    def _forget(self, name: str) -> asyncio.Task[None] | None:
        self._sent_up_to.pop(name, None)
        return self._tasks.pop(name, None)

    # -- from the client

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._channel.end(NORMAL, "")
                return
            text = message.get("text")
            if text is None or len(text) > MAX_MESSAGE:
                if len(text or message.get("bytes") or b"") > MAX_MESSAGE:
                    await self._channel.fail(TooLarge(f"A message may have {MAX_MESSAGE >> 10} KiB."))
                    self._channel.end(TOO_BIG, "message too large")
                    return
                await self._channel.fail(Malformed("Messages are JSON objects in text frames."))
                continue
            name = None
            try:
                message = parse_message(text)
                name = message.get("id") if isinstance(message.get("id"), str) else None
                await self._handle(message)
            except Problem as problem:
                await self._channel.fail(problem, name)
            except StoreError:
                await self._channel.fail(Unavailable(), name)

    async def _handle(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "ping":
            Reading(message, ("type", "id"), typed=True).fail()
            await self._channel.tell(
                json.encode({"type": "pong", "id": message.get("id"), "positions": self._sent_up_to})
            )
            return
        if kind not in KINDS:
            reading = Reading({}, (), typed=True)
            hint = did_you_mean(str(kind)[:MAX_NAME], KINDS)
            reading.fault("type", "not_allowed", f"type is one of {', '.join(KINDS)}.{hint}")
            reading.fail()
        await self._session.charge()
        work = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "presence": self._set_presence}
        await work[str(kind)](message)

    async def _subscribe(self, message: Message) -> None:
        listed = "query" in message
        allowed = ("query", "workspace_id") if listed else ("events", "after", *CHOOSING[1:])
        reading = Reading(message, ("type", "id", *allowed), typed=True)
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
        wanted, after, head, gone = await session.read(lambda call, tx: subscribed_events(call, tx, reading))
        follower = Follower(hub.feed, hub.shown, wanted, session.principal, after)
        ack = {"type": "subscribed", "id": name, "workspace_id": wanted.workspace_id, "seq": after}
        await self._channel.tell(json.encode(ack))
        if gone is not None:
            await self._channel.tell(
                json.encode({"type": "resync", "subscription": name, "seq": head, "reason": "log", **gone})
            )
        self._begin(name, self._follow(name, follower))
        self._sent_up_to[name] = after

    async def _subscribe_list(self, name: str, reading: Reading) -> None:
        hub, session = self._hub, self._session
        parsed, workspace_id = await session.read(partial(subscribed_list, reading=reading), scope=list_scope(reading))
        live = LiveQuery(
            hub.feed,
            hub.shown,
            parsed,
            workspace_id,
            partial(_snapshot, session, reading, workspace_id),
            session.principal,
        )
        snapshot = await live.first()
        ack = {"type": "subscribed", "id": name, "workspace_id": workspace_id, "seq": snapshot.seq}
        await self._channel.tell(json.encode(ack))
        self._begin(name, self._send_changes(name, live, snapshot))

    def _begin(self, name: str, work: Awaitable[None]) -> None:
        self._tasks[name] = asyncio.create_task(self._essential(partial(self._run, name, work)))

    async def _unsubscribe(self, message: Message) -> None:
        reading = Reading(message, ("type", "id"), typed=True)
        name = reading.text("id")
        if name not in self._tasks:
            hint = did_you_mean(str(name)[:MAX_NAME], self._tasks)
            reading.fault("id", "unknown_reference", f"There is no subscription of this id.{hint}")
        reading.fail()
        task = self._forget(str(name))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._channel.tell(json.encode({"type": "unsubscribed", "id": name}))

    async def _set_presence(self, message: Message) -> None:
        reading = Reading(message, ("type", "id", "project_id", "state"), typed=True)
        project_id = reading.text("project_id")
        if project_id is None:
            reading.fault("project_id", "required", "project_id names the project that is looked at.")
        state = message.get("state", {})
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
        workspace_id = await self._session.read(partial(workspace_of_project, project_id=project_id), scope=SCOPE)
        await self._presence.enter(self._viewer, workspace_id, project_id, text)


async def _retried(step: Callable[[float], Awaitable[T]]) -> T:
    """The result of a step that waits for news, tried again while the database does not answer."""
    while True:
        try:
            return await step(HEARTBEAT_SECONDS)
        except StoreError:
            await asyncio.sleep(AWAY_SECONDS)


async def _snapshot(session: Session, reading: Reading, workspace_id: str, listed: Query) -> Snapshot:
    """A list as it is now, with how far the log is that it is read from.

    The subscription is read again if the days of the caller have become those of another time zone.
    """

    def read(call: Call, tx: Tx) -> Snapshot:
        meant = listed
        if not listed.keeps_zone(call.principal):
            meant = subscribed_list(call, tx, reading, workspace_id)[0]
        seq = log.head(tx, workspace_id)
        return Snapshot(seq, query.run(tx, call.principal, meant, call.secret).documents, meant)

    return await session.read(read, scope=list_scope(reading), snapshot=True)
