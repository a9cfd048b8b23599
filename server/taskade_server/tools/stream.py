"""A workspace's events as they happen, over `GET /v1/events/stream`, across lost connections.

Why the position moves only when the next event is asked for: until then the one at hand may not be dealt with, and who
is interrupted must be given it again.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.kit import json
from taskade_server.tools.client import Api, Failed, Lost, reason

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 15.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of Server-Sent Events. `type` is empty for one that only moves the position.

    `event_id` is its id as the server gave it, `seq` the number in it; None and "" for a message without one.
    """

    type: str
    data: str
    seq: int | None
    event_id: str


@dataclass(slots=True)
class Happening:
    """An event, and its JSON text as the server sent it."""

    text: str
    event: dict[str, Any]


class Listener:
    """Follows the events that `parameters` choose, from behind `after` (None: from now on).

    `say` gets the messages for the person at the terminal. `ready` is called once, with the workspace and the
    position from which nothing will be missed.
    """

    def __init__(
        self,
        api: Api,
        parameters: dict[str, Any],
        after: int | None,
        say: Callable[[str], None],
        ready: Callable[[str, int], None],
    ) -> None:
        self._api = api
        self._parameters = parameters
        self._say = say
        self._ready = ready
        self._met = False
        self._retry = FIRST_PAUSE
        self._event_id = "" if after is None else str(after)
        self.position = after

    def events(self) -> Iterator[Happening]:
        """The events, for ever. Failed when the server says that there will be no more."""
        pause = FIRST_PAUSE
        while True:
            try:
                for frame in self._frames():
                    pause = FIRST_PAUSE
                    if frame.type and not self._is_control_frame(frame) and (frame.seq or 0) > (self.position or 0):
                        yield Happening(frame.data, json.decode(frame.data))
                    if frame.seq is not None:
                        # Only after a restore from a backup does the server go back.
                        self.position = max(frame.seq, 0 if frame.type == "resync" else self.position or 0)
                        self._event_id = frame.event_id
                # It ended in good order, as that of a server does which is replaced by another.
                time.sleep(self._retry)
            except Lost as lost:
                if not self._met:
                    raise Failed(lost.message) from lost
                self._say(f"{lost.message} Trying again in {pause:g} s.")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _is_control_frame(self, frame: Frame) -> bool:
        """Act on a frame about the stream itself; False for an event."""
        if frame.type == "ready":
            document = json.decode(frame.data)
            if not self._met:
                self._met = True
                self._ready(document["workspace_id"], document["seq"])
            return True
        if frame.type == "resync":
            self._resync(json.decode(frame.data))
            return True
        if frame.type == "access.revoked":
            return True
        if frame.type == "end":
            raise Failed(f"The server ends the stream: {json.decode(frame.data).get('detail', frame.data)}")
        return False

    def _resync(self, document: dict[str, Any]) -> None:
        if document.get("reason") == "log" and (self.position or 0) > document["seq"]:
            self._say(f"The log of {document['workspace_id']} ends at {document['seq']}: going on from there.")
        elif document.get("reason") == "log":
            self._say(f"The log no longer reaches back so far: what was before {document['seq']} is missed.")
        else:
            self._say("The key may see less than before.")

    def _frames(self) -> Iterator[Frame]:
        with self._api.stream("/events/stream", **self._parameters, after=self._event_id or None) as response:
            try:
                yield from self._read(response)
            except (OSError, http.client.HTTPException) as error:
                raise Lost(f"The connection to {self._api.address.text} was lost: {reason(error)}.") from error

    def _read(self, response: http.client.HTTPResponse) -> Iterator[Frame]:
        kind, data, seq, event_id = "", [], None, ""
        while line := response.readline():
            name, _, value = line.decode().rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id" and value.rpartition("-")[2].isdigit():
                event_id, seq = value, int(value.rpartition("-")[2])
            elif name == "retry" and value.isdigit():
                self._retry = max(0.1, int(value) / 1000)
            elif line in (b"\n", b"\r\n"):
                if data or seq is not None:
                    yield Frame(kind if data else "", "\n".join(data), seq, event_id)
                kind, data, seq, event_id = "", [], None, ""
