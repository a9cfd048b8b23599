"""Carries deliveries out: what is due goes to its endpoint, and what follows from the answer is written down.

Why an endpoint's state is here and not in the database: how much is under way, and whether the other side answers at
all, changes with every request. Only one process has an endpoint at a time, by its lease: one memory is enough.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from taskade_server.consumers.outbound import Exchange, Outbound
from taskade_server.consumers.runner import Lease
from taskade_server.domain import hooks
from taskade_server.domain.hooks import Endpoint
from taskade_server.engine import events, log
from taskade_server.engine.log import Event
from taskade_server.kit import json, time, webhook_signatures
from taskade_server.store import deliveries
from taskade_server.store.database import BadQuery, ConstraintFailed, Database, Tx
from taskade_server.store.deliveries import FAILED, PENDING, SUCCEEDED, Attempt, Delivery, Outcome

logger: Final = logging.getLogger("taskade")

SCHEDULE: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait after the first failure, the second, ...; after the last there is no further attempt."""
JITTER: Final = 0.2
TIMEOUT_SECONDS: Final = 20.0
MAX_RETRY_AFTER: Final = 86_400.0
THROTTLED: Final = (429, 502, 503, 504)
THROTTLE_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""How long an endpoint that says so without a Retry-After is spared, the first time, the second, ... in a row."""
GONE: Final = 410
INTERNAL: Final = "internal_error"
FAILING_DAYS: Final = 5
"""An endpoint that has taken nothing for so long is disabled."""
OPEN_AFTER: Final = 8
"""So many failures in a row, and an endpoint is left alone for a while; then one attempt tells whether it is back."""
OPEN_SECONDS: Final = (10.0, 30.0, 60.0, 120.0, 300.0)
PREFETCH: Final = 200
RECORD_AT_ONCE: Final = 500
KEPT_BODY: Final = 4_096
IDLE_SECONDS: Final = 1.0
# How long a sender may not notice what another process has made.
LOOK_SECONDS: Final = {"sqlite": 1.0, "postgresql": 0.2}


# ---- what is sent ----------------------------------------------------------------------------------------------------


def body_of(event: Event, previous_seq: int | None, *, thin: bool = False) -> bytes:
    """What is sent: the event, and the seq of what this endpoint was sent before, so that it can notice a gap.

    A thin one tells only what happened to which object.
    """
    if thin:
        event = event._replace(data=json.encode({"id": event.object_id}), previous=None)
    return events.webhook_body(events.render(event), previous_seq)


def test_event(delivery: Delivery, user_id: str) -> Event:
    """What a test sends, which is no event of the log: `data` names the webhook."""
    data = json.encode({"id": delivery.webhook_id, "message": "A test: nothing has happened."})
    return Event(
        delivery.workspace_id, delivery.seq, delivery.event_id, delivery.type, "webhook", delivery.webhook_id, None,
        user_id, None, None, delivery.created_at, data, None, None, None, None,
    )  # fmt: skip


def request_headers(
    keys: list[str], event_id: str, kind: str, delivery_id: str, at: int, body: bytes
) -> dict[str, str]:  # fmt: skip
    """The headers of one attempt at a time (epoch ms): what it is, and what proves where it comes from."""
    signed = webhook_signatures.headers(event_id, at // 1000, body, keys)
    return {
        "Content-Type": "application/json", **signed, "X-Taskade-Event": kind, "X-Taskade-Delivery": delivery_id,
    }  # fmt: skip


# ---- what follows from an attempt ------------------------------------------------------------------------------------


def next_wait(attempts: int, exchange: Exchange) -> float | None:
    """After so many attempts, the last of which failed: how many seconds until the next; None if that was the last."""
    if attempts > len(SCHEDULE):
        return None
    wait = SCHEDULE[attempts - 1] * _jitter()
    if exchange.retry_after is not None and exchange.status in THROTTLED:
        wait = max(wait, min(exchange.retry_after, MAX_RETRY_AFTER))
    return wait


def fault_of(exchange: Exchange) -> tuple[str | None, str | None]:
    """Why an exchange is no success, as a code and a sentence; both None if it is one."""
    if exchange.ok or exchange.error is not None:
        return exchange.error, exchange.detail
    status = exchange.status or 0
    if 300 <= status < 400:
        return "redirect", f"The endpoint answered {status}; redirects are not followed: register the final URL."
    if status == GONE:
        return "gone", "The endpoint answered 410: it wants no more deliveries, and the webhook was disabled."
    return "bad_status", f"The endpoint answered {status}; only 200 to 299 mean that it has taken the delivery."


def attempt_of(delivery: Delivery, at: int, exchange: Exchange) -> Attempt:
    """An exchange as it is kept."""
    error, detail = fault_of(exchange)
    body = exchange.body[:KEPT_BODY].decode("utf-8", "replace").replace("\x00", "\ufffd")
    return Attempt(
        delivery.id, delivery.attempts + 1, delivery.workspace_id, at, exchange.duration_ms, exchange.address,
        json.encode(exchange.request_headers), exchange.status, json.encode(exchange.response_headers), body, error,
        detail,
    )  # fmt: skip


def outcome_of(delivery: Delivery, at: int, exchange: Exchange) -> Outcome:
    """What an exchange at a time (epoch ms) means for its delivery."""
    attempt = attempt_of(delivery, at, exchange)
    if attempt.error is None:
        return Outcome(delivery, attempt, SUCCEEDED, None)
    last = exchange.status == GONE or delivery.type == deliveries.TEST
    wait = None if last else next_wait(attempt.number - delivery.base, exchange)
    if wait is None:
        return Outcome(delivery, attempt, FAILED, None)
    return Outcome(delivery, attempt, PENDING, at + int((exchange.duration_ms / 1000 + wait) * 1000))


# ---- an endpoint -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Line:
    """What a sender knows of one endpoint: what is waiting, what is under way, and whether it answers."""

    endpoint: Endpoint
    waiting: deque[Delivery] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    """The deliveries that are waiting here, under way, or done but not yet recorded."""
    under_way: int = 0
    failures: int = 0
    throttles: int = 0
    paused_until: float = 0.0
    tokens: float = 1.0
    refilled_at: float = 0.0

    def change(self, endpoint: Endpoint) -> None:
        """Somebody has changed the webhook, and perhaps mended it."""
        self.endpoint = endpoint
        self.failures = self.throttles = 0
        self.paused_until = 0.0

    def room(self, now: float) -> int:
        """How many attempts may begin now (monotonic seconds)."""
        if now < self.paused_until:
            return 0
        most = 1 if self.failures >= OPEN_AFTER else self.endpoint.max_concurrency
        room = max(0, most - self.under_way)
        if self.endpoint.rate_limit is None or not room:
            return room
        a_second = self.endpoint.rate_limit / 60
        burst = max(1.0, a_second)
        self.tokens = min(burst, self.tokens + (now - self.refilled_at) * a_second)
        self.refilled_at = now
        return min(room, int(self.tokens))

    def opens_at(self, now: float) -> float:
        """When there may be room again, as far as that does not depend on what is under way."""
        if now < self.paused_until:
            return self.paused_until
        if self.endpoint.rate_limit is not None and self.tokens < 1:
            return now + (1 - self.tokens) * 60 / self.endpoint.rate_limit
        return now

    def begin(self) -> Delivery:
        """The next delivery, whose attempt begins."""
        self.under_way += 1
        if self.endpoint.rate_limit is not None:
            self.tokens -= 1
        return self.waiting.popleft()

    def end(self, exchange: Exchange | None, now: float) -> None:
        """An attempt is over: a row of failures means to leave the endpoint alone, and a success that it is back.

        None: there was no attempt after all. What fails in this server says nothing about the endpoint.
        """
        self.under_way -= 1
        if exchange is None or exchange.error == INTERNAL:
            return
        if exchange.ok:
            self.failures = self.throttles = 0
            return
        self.failures += 1
        pause = 0.0
        if exchange.status in THROTTLED:
            self.throttles += 1
            spared = THROTTLE_SECONDS[min(self.throttles, len(THROTTLE_SECONDS)) - 1] * _jitter()
            pause = spared if exchange.retry_after is None else min(exchange.retry_after, MAX_RETRY_AFTER)
        if self.failures >= OPEN_AFTER:
            left_alone = OPEN_SECONDS[min(self.failures - OPEN_AFTER, len(OPEN_SECONDS) - 1)] * _jitter()
            pause = max(pause, left_alone)
        self.paused_until = max(self.paused_until, now + pause)


# ---- all endpoints of a share ----------------------------------------------------------------------------------------


class Sender:
    """Carries out the deliveries of one share of the webhooks, for as long as it has the lease on them."""

    def __init__(
        self,
        db: Database,
        outbound: Outbound,
        secret: bytes,
        lease: Lease,
        news: asyncio.Event,
        share: tuple[int, int],
        counts: Counter[str],
    ) -> None:
        """`news` is set when there are new deliveries, and by the attempts that are over; `share` is (which, of)."""
        self._db = db
        self._look_seconds = LOOK_SECONDS[db.dialect]
        self._outbound = outbound
        self._secret = secret
        self._lease = lease
        self._share = share
        self._counts = counts
        self._lines: dict[str, Line] = {}
        self._outcomes: list[tuple[Line, Outcome]] = []
        self._attempts: set[asyncio.Task[None]] = set()
        self._news = news
        self._ended = False

    async def run(self) -> None:
        """Send until the lease is lost or somebody breaks it off; what is under way then is sent again by the next.

        When the lease is to be left, what is under way comes to its end first.
        """
        stirring = asyncio.create_task(self._stir())
        try:
            while self._lease.held and not self._lease.leaving.is_set():
                self._news.clear()
                await self._record()
                wait = await self._look()
                await self._rest(min(wait, self._look_seconds))
            while self._lease.held and (self._attempts or self._outcomes):
                self._news.clear()
                await self._record()
                if self._attempts:
                    await self._rest(IDLE_SECONDS)
        finally:
            self._ended = True
            for task in (stirring, *self._attempts):
                task.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)

    async def _stir(self) -> None:
        """To be asked to leave is news, too."""
        await self._lease.leaving.wait()
        self._news.set()

    async def _rest(self, seconds: float) -> None:
        """Until there is news, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    # -- what is due

    async def _look(self) -> float:
        """Begin what may begin; how many seconds until there may be more to begin."""
        now = time.now_ms()
        due = await self._due()
        nearest = IDLE_SECONDS
        for line in list(self._lines.values()):
            at = due.get(line.endpoint.id)
            if at is not None and at <= now and len(line.waiting) < line.endpoint.max_concurrency:
                await self._fetch(line, now)
            self._begin(line)
            if line.waiting:
                nearest = min(nearest, max(line.opens_at(_clock()) - _clock(), 0.01))
            elif at is not None and not line.known:
                nearest = min(nearest, max((at - now) / 1000, line.opens_at(_clock()) - _clock(), 0.01))
        return nearest

    async def _due(self) -> dict[str, int]:
        """When the next attempt is due, for each endpoint that has one; lines come and go with them."""
        versions = {name: line.endpoint.version for name, line in self._lines.items()}

        def unit(tx: Tx) -> tuple[dict[str, int], dict[str, int], list[Endpoint]]:
            due = {name: at for name, at in deliveries.due_times(tx).items() if hooks.is_shard(name, *self._share)}
            live = hooks.live_versions(tx, [*due])
            changed = [name for name, version in live.items() if versions.get(name) != version]
            return due, live, hooks.endpoints(tx, changed) if changed else []

        due, live, changed = await self._db.read(unit)
        for name in [name for name, line in self._lines.items() if name not in live and not line.known]:
            del self._lines[name]
        for endpoint in changed:
            if endpoint.id in self._lines:
                self._lines[endpoint.id].change(endpoint)
            else:
                self._lines[endpoint.id] = Line(endpoint, refilled_at=_clock())
        return {name: at for name, at in due.items() if name in live}

    async def _fetch(self, line: Line, now: int) -> None:
        if line.room(_clock()) == 0:
            return
        limit = PREFETCH + len(line.known)
        found = await self._db.read(partial(deliveries.due, webhook_id=line.endpoint.id, now=now, limit=limit))
        fresh = [delivery for delivery in found if delivery.id not in line.known]
        line.waiting.extend(fresh)
        line.known |= {delivery.id for delivery in fresh}

    def _begin(self, line: Line) -> None:
        if self._ended or not self._lease.held or self._lease.leaving.is_set():
            return
        for _ in range(min(line.room(_clock()), len(line.waiting))):
            attempt = asyncio.create_task(self._try(line, line.begin()))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._end_attempt)

    def _end_attempt(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._news.set()

    # -- an attempt

    async def _try(self, line: Line, waiting: Delivery) -> None:
        delivery, exchange, at = waiting, None, time.now_ms()
        try:
            found, event = await self._db.read(partial(_ready, delivery_id=waiting.id))
            if found is None:
                line.known.discard(waiting.id)
                return
            delivery, at = found, time.now_ms()
            exchange = await self._send(line.endpoint, delivery, event, at)
        except Exception:
            logger.exception("The delivery %s failed in the server itself.", delivery.id)
            exchange = Exchange(error=INTERNAL, detail="The delivery could not be made; see the server's log.")
        finally:
            line.end(exchange, _clock())
            if exchange is not None:
                self._outcomes.append((line, outcome_of(delivery, at, exchange)))
                self._counts[fault_of(exchange)[0] or "succeeded"] += 1
            self._begin(line)

    async def _send(self, endpoint: Endpoint, delivery: Delivery, event: Event | None, at: int) -> Exchange:
        left = self._lease.left
        if left <= 0:
            raise asyncio.CancelledError
        if delivery.type == deliveries.TEST:
            event = test_event(delivery, endpoint.user_id)
        if event is None:
            return Exchange(error=INTERNAL, detail="The event is not in the log any more.")
        body = body_of(event, delivery.previous_seq, thin=endpoint.thin)
        keys = endpoint.signing_keys(self._secret, at)
        headers = {**endpoint.headers, **request_headers(keys, delivery.event_id, delivery.type, delivery.id, at, body)}
        # When the lease ends, whoever has it next may send the next event: this one must be over by then.
        timeout = min(TIMEOUT_SECONDS, left)
        return await self._outbound.post(endpoint.url, body=body, headers=headers, timeout=timeout)

    # -- what became of it

    async def _record(self) -> None:
        """Write what has come to an end, together."""
        while self._outcomes:
            batch, self._outcomes = self._outcomes[:RECORD_AT_ONCE], self._outcomes[RECORD_AT_ONCE:]
            await self._keep(batch)
            for line, outcome in batch:
                line.known.discard(outcome.delivery.id)

    async def _keep(self, batch: Sequence[tuple[Line, Outcome]]) -> None:
        """Write outcomes. One that the database does not take is kept without what came back, and holds up no other."""
        paused = {line.endpoint.id: _epoch(line.paused_until) for line, _ in batch}
        try:
            await self._db.write(partial(self._write, [outcome for _, outcome in batch], paused))
        except (BadQuery, ConstraintFailed):
            if len(batch) > 1:
                for one in batch:
                    await self._keep([one])
                return
            outcome = batch[0][1]
            logger.exception("The attempt on %s cannot be kept as it was.", outcome.delivery.id)
            bare = outcome.attempt._replace(response_headers="[]", response_body="")
            await self._db.write(partial(self._write, [outcome._replace(attempt=bare)], paused))

    def _write(self, outcomes: Sequence[Outcome], paused: Mapping[str, int | None], tx: Tx) -> None:
        self._lease.hold(tx)
        deliveries.record(tx, outcomes)
        for webhook_id, paused_until in paused.items():
            own = [outcome for outcome in outcomes if outcome.delivery.webhook_id == webhook_id]
            if own:
                note(tx, own, paused_until)


def _ready(tx: Tx, delivery_id: str) -> tuple[Delivery | None, Event | None]:
    found = deliveries.ready(tx, delivery_id)
    return found, log.find(tx, found.event_id) if found else None


def note(tx: Tx, outcomes: Sequence[Outcome], paused_until: int | None) -> None:
    """What attempts tell about their endpoint; one that is gone or fails for days is disabled."""
    last = outcomes[-1]
    webhook_id, workspace_id, at = last.delivery.webhook_id, last.delivery.workspace_id, last.attempt.at
    if any(outcome.attempt.status == GONE for outcome in outcomes):
        hooks.disable(tx, webhook_id, "gone")
    if any(outcome.state == SUCCEEDED for outcome in outcomes):
        deliveries.note_success(tx, webhook_id, workspace_id, at)
        return
    if all(outcome.attempt.error == INTERNAL for outcome in outcomes):
        return
    since = deliveries.note_failure(tx, webhook_id, workspace_id, at, paused_until)
    if at - since > FAILING_DAYS * time.DAY_MS:
        hooks.disable(tx, webhook_id, "failing")


def _jitter() -> float:
    return random.uniform(1 - JITTER, 1 + JITTER)


def _epoch(moment: float) -> int | None:
    """A moment of the event loop's clock in epoch ms; None if it is over."""
    rest = moment - _clock()
    return time.now_ms() + int(rest * 1000) if rest > 0 else None


def _clock() -> float:
    return asyncio.get_running_loop().time()
