"""A receiver of webhooks put to the test: deliveries that it has to take, and others that it must not.

Why both: a receiver that takes everything passes any test of deliveries that are right, and one that refuses an event
which it does not know is sent that event again and again, and then switched off.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from taskade_server.engine import event_schema, events
from taskade_server.kit import ids, webhook_signatures
from taskade_server.kit import time as moments
from taskade_server.kit.portable_json import portable
from taskade_server.tools.client import Failed
from taskade_server.tools.forward import Outcome, Receiver, signed

LARGE_BYTES: Final = 300 << 10
FAR_SECONDS: Final = 600
SLOW_MS: Final = 5000
_STRANGER: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent, and whether a correct receiver takes it. `why` is said when it does otherwise."""

    name: str
    takes: bool
    body: bytes
    headers: Mapping[str, str]
    why: str
    plain: bool = True
    """Whether a receiver can tell by X-Taskade-Signature alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one delivery. `passed` is None where the receiver cannot know."""

    name: str
    expected: str
    status: int
    milliseconds: float
    error: str
    passed: bool | None
    why: str


class Kit:
    """The deliveries for one secret, about one type of event, each event new."""

    def __init__(self, secret: str, kind: str) -> None:
        self._secret = secret
        self._sample = event_schema.sample(events.catalogue()[kind], webhook=True)
        self._seq = 1000

    def event(self, **changes: Any) -> dict[str, Any]:
        """Another event; `data` of all of them is the same object."""
        self._seq += 1
        now = moments.format_ms(moments.now_ms())
        known = {"id": ids.new("evt"), "timestamp": now, "seq": self._seq, "previous_seq": self._seq - 1}
        return {**self._sample, **known, **changes}

    def deliveries(self) -> Iterator[Delivery]:
        """All of them, in order."""
        yield from self._right()
        yield from self._wrong()

    def _delivery(self, name: str, event: Mapping[str, Any], why: str, ago: int = 0) -> Delivery:
        body = portable(dict(event)).encode()
        return Delivery(name, True, body, signed(event, body, [self._secret], ago), why)

    def _right(self) -> Iterator[Delivery]:
        first, second = self.event(), self.event()
        data = self._sample["data"]
        yield self._delivery("good", first, "it is signed as it should be: compare the secret, and sign the raw bytes")
        yield self._delivery("duplicate", first, "the same event comes again after a timeout: answer 2xx, do nothing")
        later = self.event()
        yield self._delivery("later first", later, "events may come out of order after a failure")
        yield self._delivery("earlier then", second, "answer 2xx; compare seq or data.version to keep what is newer")
        yield self._two_signatures("new secret first", first=True)
        yield self._two_signatures("new secret last", first=False)
        yield self._unknown_version()
        yield self._delivery(
            "unknown type",
            self.event(type=f"{self._sample['type']}.twice"),
            "a type of a later version: answer 2xx, or it is sent again and the webhook switched off",
        )
        yield self._delivery(
            "unknown member",
            self.event(extension={"of": "a later version"}),
            "members may be added to an event; ignore those you do not know",
        )
        text = 'Ünïcode  "quotes" \\ / 🚲 \u2028 </script>'
        yield self._delivery(
            "any text",
            self.event(data={**data, "name": text, "body": text}),
            "verify the bytes as they came, not text that was decoded and encoded",
        )
        big = {f"field_{number}": "x" * 5000 for number in range(LARGE_BYTES // 5000)}
        yield self._delivery(
            "large body",
            self.event(data={**data, "custom_fields": big}),
            f"{LARGE_BYTES >> 10} KiB; some frameworks take 100 KB unless configured otherwise",
        )

    def _two_signatures(self, name: str, *, first: bool) -> Delivery:
        """While a secret is being replaced there are two signatures; the plain header has room for one."""
        event = self.event()
        body = portable(event).encode()
        keys = [_STRANGER, self._secret] if first else [self._secret, _STRANGER]
        headers = signed(event, body, keys)
        why = "a secret is being replaced: one signature of those in webhook-signature has to fit"
        return Delivery(name, True, body, headers, why, plain=not first)

    def _unknown_version(self) -> Delivery:
        delivery = self._delivery("unknown signature", self.event(), "signatures of a kind you do not know are ignored")
        signature = f"v9,bm90aGluZw== {delivery.headers[webhook_signatures.SIGNATURE]}"
        headers = {**delivery.headers, webhook_signatures.SIGNATURE: signature}
        return Delivery(delivery.name, True, delivery.body, headers, delivery.why)

    def _wrong(self) -> Iterator[Delivery]:
        def bad(
            name: str, change: Callable[[bytes, dict[str, str]], bytes], why: str, *, plain: bool = True, ago: int = 0
        ) -> Delivery:
            good = self._delivery(name, self.event(), why, ago)
            headers = dict(good.headers)
            return Delivery(name, False, change(good.body, headers), headers, why, plain)

        def unsigned(body: bytes, headers: dict[str, str]) -> bytes:
            for name in (webhook_signatures.SIGNATURE, webhook_signatures.PLAIN_SIGNATURE):
                del headers[name]
            return body

        def by_stranger(body: bytes, headers: dict[str, str]) -> bytes:
            message, stamp = headers[webhook_signatures.ID], int(headers[webhook_signatures.TIMESTAMP])
            headers.update(webhook_signatures.headers(message, stamp, body, [_STRANGER]))
            return body

        def renamed(body: bytes, headers: dict[str, str]) -> bytes:
            headers[webhook_signatures.ID] = ids.new("evt")
            return body

        yield bad("flipped byte", _flip, "the body was changed on its way")
        yield bad("bad signature", by_stranger, "it was signed with another secret")
        yield bad("no signature", unsigned, "anybody could have sent it")
        yield bad(
            "stale timestamp",
            _same,
            "it is ten minutes old: somebody may have recorded it",
            plain=False,
            ago=FAR_SECONDS,
        )
        yield bad(
            "future timestamp",
            _same,
            "it is from ten minutes ahead, and could be sent again for that long",
            plain=False,
            ago=-FAR_SECONDS,
        )
        yield bad(
            "wrong id", renamed, "webhook-id is signed, too; with another one a repetition looks new", plain=False
        )


def _same(body: bytes, headers: dict[str, str]) -> bytes:
    return body


def _flip(body: bytes, headers: dict[str, str]) -> bytes:
    """Another letter in a text, so that the body is still JSON."""
    index = body.rindex(b'"type":"') + 8
    return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]


def run(receiver: Receiver, kit: Kit, *, plain: bool) -> Iterator[Finding]:
    """Send all deliveries of a kit. Failed if nothing listens there.

    `plain`: the receiver looks at X-Taskade-Signature alone.
    """
    for number, delivery in enumerate(kit.deliveries()):
        outcome = receiver.post(delivery.body, delivery.headers)
        if number == 0 and outcome.error and not outcome.status:
            raise Failed(f"The receiver {receiver.address.text} cannot be tested: {outcome.error}.")
        yield _judged(delivery, outcome, plain)


def _judged(delivery: Delivery, outcome: Outcome, plain: bool) -> Finding:
    expected = "2xx" if delivery.takes else "4xx"
    right = outcome.taken if delivery.takes else 400 <= outcome.status < 500 and not outcome.error
    passed = None if plain and not delivery.plain else right
    why = delivery.why
    if right and outcome.milliseconds > SLOW_MS:
        why, passed = "it took too long: answer first, and do the work afterwards", False
    return Finding(delivery.name, expected, outcome.status, round(outcome.milliseconds, 1), outcome.error, passed, why)


def document(url: str, findings: list[Finding]) -> dict[str, Any]:
    """The findings for programs."""
    return {
        "url": url,
        "passed": all(one.passed is not False for one in findings),
        "cases": [asdict(one) for one in findings],
    }


def line(finding: Finding) -> str:
    """One finding for people."""
    mark = {True: "ok", False: "FAIL", None: "-"}[finding.passed]
    said = finding.error or str(finding.status)
    text = f"{mark:<5} {finding.name:<18} {said} in {finding.milliseconds:,.0f} ms"
    if finding.passed is None:
        return f"{text}  cannot be detected by X-Taskade-Signature alone"
    return text if finding.passed else f"{text}, not {finding.expected}: {finding.why}"
