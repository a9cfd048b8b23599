"""A WebSocket on which something fails that nobody foresaw: it is closed with a word, and the traceback is logged.

Why with a connection of the test's own: no request makes a sound server fail.
"""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from taskade_server.http.live.websocket import Connection


class Planted(Exception):
    """What nobody foresaw."""


def planted(*_: Any) -> Any:
    raise Planted


async def nothing(*_: Any) -> None:
    pass


async def for_ever(*_: Any) -> bool:
    await asyncio.Event().wait()
    return False


class Scene:
    """A connection with a server and a client that only seem to be there; `said` is what the client was told."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.said: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self._messages = [{"type": "websocket.receive", "text": json.dumps(message)} for message in messages]
        presence = SimpleNamespace(leave=nothing, message=planted)
        self.hub = SimpleNamespace(presence=presence, ended=False, woken=for_ever, sent=0, evict=planted)
        self.session = SimpleNamespace(
            hub=self.hub,
            request=SimpleNamespace(path="/v1/realtime", request_id="req_1"),
            user_id="user_1",
            charge=nothing,
            principal=nothing,
        )
        session: Any = self.session
        self.connection = Connection(session, self._receive, self._send)

    async def _receive(self) -> Any:
        return self._messages.pop(0) if self._messages else await for_ever()

    async def _send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.closed = message["code"], message["reason"]
        else:
            self.said.append(json.loads(message["text"]))

    def play(self) -> None:
        """Until the connection ends."""
        asyncio.run(asyncio.wait_for(self.connection.run(), 30))


def failing_message(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(Connection, "_set_presence", planted)
    return Scene({"type": "ping", "id": "1"}, {"type": "presence", "project_id": "proj_1"})


def failing_subscription(monkeypatch: pytest.MonkeyPatch) -> Scene:
    async def follow(*_: Any) -> None:
        raise Planted

    async def subscribe(self: Connection, said: Any) -> None:
        self._begin(said["id"], follow())

    monkeypatch.setattr(Connection, "_subscribe", subscribe)
    return Scene({"type": "subscribe", "id": "1"})


def failing_watch(_: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    scene.hub.woken = nothing
    scene.session.principal = planted
    return scene


def failing_presence(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr("taskade_server.http.live.websocket.may_look", planted)
    scene = Scene()
    viewer = scene.connection._viewer
    viewer.projects["proj_1"], viewer.homes["proj_1"] = 0, "ws_1"
    viewer.changed.add("proj_1")
    viewer.news.set()
    return scene


@pytest.mark.parametrize("case", [failing_message, failing_subscription, failing_watch, failing_presence])
def test_whatever_fails_the_client_is_told_and_the_connection_ends(case, monkeypatch, caplog):
    scene = case(monkeypatch)
    scene.play()
    assert scene.closed == (1011, "internal error")
    last = scene.said[-1]
    assert last["type"] == "end" and (last["problem"]["code"], last["problem"]["status"]) == ("internal", 500)
    assert "Planted" not in json.dumps(last)
    [record] = [one for one in caplog.records if one.exc_info]
    assert record.exc_info[0] is Planted and record.request_id == "req_1"


def test_a_client_that_is_gone_is_no_fault(monkeypatch, caplog):
    scene = Scene({"type": "ping", "id": "1"})

    async def gone(_: Any) -> None:
        raise RuntimeError("the transport is closed")

    monkeypatch.setattr(scene.connection._channel, "_send", gone)
    scene.play()
    assert not [one for one in caplog.records if one.exc_info]
