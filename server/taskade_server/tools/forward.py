"""Sends a body to a receiver as a webhook would, and tells what became of it.

Why the answer's body is kept: it is where a receiver says what it did not like, and the first thing one looks for.
"""

import base64
import hashlib
import hmac
import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from taskade_server.consumers import sender
from taskade_server.engine import events
from taskade_server.kit import ids, time, webhook_signatures
from taskade_server.outbound.proxy import USER_AGENT
from taskade_server.tools.client import Address, reason
from taskade_server.tools.stream import Happening

SECONDS: Final = 30.0
KEPT: Final = 64 << 10
CUT: Final = 200


@dataclass(slots=True)
class Outcome:
    """What a receiver answered; `error` says in words why there is no answer."""

    status: int = 0
    milliseconds: float = 0.0
    body: str = ""
    error: str = ""

    @property
    def taken(self) -> bool:
        """Whether a webhook would count it as delivered."""
        return 200 <= self.status < 300 and not self.error


@dataclass(slots=True)
class Receiver:
    """Where to send. Redirects are not followed, as webhooks do not."""

    address: Address
    headers: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False
    seconds: float = SECONDS

    def post(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """One delivery."""
        connection = self.address.connect(self.seconds, insecure=self.insecure)
        outcome, began = Outcome(), perf_counter()
        given = {"User-Agent": USER_AGENT, "Accept": "*/*", **headers, **self.headers}
        try:
            connection.request("POST", self.address.target, body, given)
            response = connection.getresponse()
            outcome.status = response.status
            outcome.body = response.read(KEPT).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            outcome.error = reason(error)
        finally:
            connection.close()
        outcome.milliseconds = (perf_counter() - began) * 1000
        return outcome


def signed(event: Mapping[str, Any], body: bytes, keys: list[str], ago: int = 0) -> dict[str, str]:
    """The headers of a delivery that is sent now, or was so many seconds ago."""
    at = time.now_ms() - ago * 1000
    return sender.request_headers(keys, event["id"], event["type"], ids.new("dlv"), at, body)


@dataclass(slots=True)
class Tally:
    """What was forwarded so far. `previous` is the position of the last one."""

    taken: int = 0
    refused: int = 0
    unanswered: int = 0
    previous: int | None = None

    def forward(self, happening: Happening, receiver: Receiver, secret: str) -> Outcome:
        """Send an event on, as a webhook with this secret would."""
        body = events.webhook_body(happening.text, self.previous)
        self.previous = happening.event["seq"]
        outcome = receiver.post(body, signed(happening.event, body, [secret]))
        self.taken += outcome.taken
        self.unanswered += bool(outcome.error)
        self.refused += not outcome.taken and not outcome.error
        return outcome

    def summary(self) -> str:
        """All of it in one sentence."""
        total = self.taken + self.refused + self.unanswered
        rest = f", {self.refused} refused, {self.unanswered} without an answer" if total > self.taken else ""
        return f"Forwarded {total} event{'' if total == 1 else 's'}: {self.taken} taken{rest}."


def brief(event: Mapping[str, Any]) -> str:
    """An event in a line."""
    data = event["data"]
    name = " ".join(str(data.get("name") or data.get("body") or "").split())
    text = f"{event['timestamp']}  {event['seq']:>6}  {event['type']:<20} {data['id']}"
    return f"{text}  {name[:60]}" if name else text


def shown(happening: Happening, outcome: Outcome) -> str:
    """An event and what became of it, for people."""
    event = happening.event
    if outcome.error:
        answer = f"not delivered: {outcome.error}"
    else:
        answer = f"{outcome.status} in {outcome.milliseconds:,.0f} ms"
        if said := " ".join(outcome.body.split()):
            answer += f"  {said[:CUT]}{'...' if len(said) > CUT else ''}"
    return f"{event['seq']:>6}  {event['type']:<20} {event['id']}  {answer}"


def as_record(happening: Happening, outcome: Outcome) -> dict[str, Any]:
    """A delivery and its outcome as a JSON object, for programs."""
    event = happening.event
    return {
        "id": event["id"],
        "type": event["type"],
        "seq": event["seq"],
        "object_id": event["data"]["id"],
        "status": outcome.status or None,
        "milliseconds": round(outcome.milliseconds, 1),
        "body": outcome.body,
        "error": outcome.error or None,
        "taken": outcome.taken,
    }


def secret_of(key: str) -> str:
    """The secret with which `listen` signs unless another is given: always the same for one API key."""
    digest = hmac.digest(key.encode(), b"taskade listen", hashlib.sha256)
    return webhook_signatures.SECRET + base64.b64encode(digest).decode()
