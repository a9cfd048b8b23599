"""A client of event streams: it reads in a thread, so that a test can write meanwhile and then wait for what came.

Why our own reader of the format: a library that reconnects by itself would hide what the server did.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

PATIENCE = 180.0


class Message(NamedTuple):
    """One message of a stream. `data` is what its JSON says."""

    type: str
    id: str
    data: Any


class Listener:
    """A stream that is open. `status` and `headers` are those of the answer; `lines` holds all that came."""

    def __init__(self, url: str, key: str, *, last_event_id: str = "", path: str = "/v1/events/stream", **given: Any):
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
        headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        query = urlencode({name: value for name, value in given.items() if value is not None})
        self._connection.request("GET", f"{path}?{query}", headers=headers)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.messages: list[Message] = []
        self.lines: list[str] = []
        self.last_id = last_event_id
        self.ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if self.status == 200:
            self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def problem(self) -> Any:
        """The document of a refusal."""
        return json.loads(self._response.read())

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError, AttributeError):
            self._connection.sock.shutdown(2)
        if self._reader.is_alive():
            self._reader.join(PATIENCE)
        self._connection.close()

    def until(self, enough: Callable[[list[Message]], bool], seconds: float = PATIENCE) -> list[Message]:
        """The messages, once they are enough."""
        with self._changed:
            if not self._changed.wait_for(lambda: enough(self.messages), seconds):
                raise AssertionError(f"not within {seconds} s: {[message[:2] for message in self.messages]}")
            return list(self.messages)

    def until_type(self, name: str, count: int = 1) -> Message:
        """The latest message of a type, once there are so many."""
        found = self.until(lambda messages: [message.type for message in messages].count(name) >= count)
        return [message for message in found if message.type == name][-1]

    def until_seq(self, seq: int) -> list[Message]:
        """The messages, once the client's place has come so far."""
        return self.until(lambda _: int(self.last_id or 0) >= seq)

    def until_end(self, seconds: float = PATIENCE) -> list[Message]:
        """The messages, once the server has ended the stream."""
        self._reader.join(seconds)
        assert not self._reader.is_alive(), "the stream goes on"
        return list(self.messages)

    def _read(self) -> None:
        name, place, data = "", "", []
        with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            for raw in self._response:
                line = raw.decode().rstrip("\n")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                with self._changed:
                    self.lines.append(line)
                    if field == "event":
                        name = value
                    elif field == "id":
                        place = value
                    elif field == "data":
                        data.append(value)
                    elif not line:
                        self.last_id = place or self.last_id
                        if data:
                            self.messages.append(Message(name or "message", place, json.loads("\n".join(data))))
                        name, place, data = "", "", []
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something that a test can only look at."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
