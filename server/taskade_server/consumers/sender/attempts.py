"""One attempt: what is sent, how its answer is judged, and when the next attempt comes."""

import random
from typing import Final

from taskade_server.engine import events
from taskade_server.engine.log import Event
from taskade_server.kit import json, webhook_signatures
from taskade_server.outbound.client import SHORTAGE
from taskade_server.outbound.connection import Exchange, Headers
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import FAILED, PENDING, SUCCEEDED, Attempt, Delivery, Outcome

SCHEDULE: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait after the first failure, the second, ...; after the last there is no further attempt."""

JITTER: Final = 0.2

MAX_RETRY_AFTER: Final = 86_400.0

THROTTLED: Final = (429, 502, 503, 504)

GONE: Final = 410

INTERNAL: Final = SHORTAGE

INVISIBLE: Final = "not_visible"
"""The webhook's owner may not see the event any more: nothing is sent, and nothing will be."""

OWN: Final = (INTERNAL, INVISIBLE)
"""Failures that say nothing about the endpoint."""

KEPT_BODY: Final = 4_096

KEPT_HEADERS: Final = 4_096
"""Characters of an answer's headers that are kept: the first ones, each whole."""


def body_of(event: Event, previous_seq: int | None, *, thin: bool = False) -> bytes:
    """Return the JSON body of a delivery: the event, and the seq of the event that was sent to the endpoint before it.

    By the latter a receiver notices a gap. A `thin` body has of the object only its id.
    """
    if thin:
        event = event._replace(data=json.encode({"id": event.object_id}), previous=None)
    return events.webhook_body(events.render(event), previous_seq)


def test_event(delivery: Delivery, user_id: str) -> Event:
    """Return the event that a test delivery sends. It is not in the log; its `data` has the id of the webhook."""
    data = json.encode({"id": delivery.webhook_id, "message": "A test: nothing has happened."})
    return Event(
        workspace_id=delivery.workspace_id,
        seq=delivery.seq,
        id=delivery.event_id,
        type=delivery.type,
        resource="webhook",
        object_id=delivery.webhook_id,
        project_id=None,
        actor_id=user_id,
        key_id=None,
        request_id=None,
        at=delivery.created_at,
        data=data,
        previous=None,
        address=None,
        user_agent=None,
        origin=None,
    )


def request_headers(
    keys: list[str], event_id: str, kind: str, delivery_id: str, at: int, body: bytes
) -> dict[str, str]:
    """The headers of one attempt at a time (epoch ms): what it is, and what proves where it comes from."""
    signed = webhook_signatures.headers(event_id, at // 1000, body, keys)
    return {
        "Content-Type": "application/json",
        **signed,
        "X-Taskade-Event": kind,
        "X-Taskade-Delivery": delivery_id,
    }


def next_wait(attempts: int, exchange: Exchange) -> float | None:
    """Return the seconds until the next attempt, after `attempts` that failed; None if there is none."""
    if attempts > len(SCHEDULE):
        return None
    wait = SCHEDULE[attempts - 1] * jitter()
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
    return Attempt(
        delivery_id=delivery.id,
        number=delivery.attempts + 1,
        workspace_id=delivery.workspace_id,
        at=at,
        duration_ms=exchange.duration_ms,
        address=exchange.address,
        request_headers=json.encode(exchange.request_headers),
        status=exchange.status,
        response_headers=json.encode(_first_headers(exchange.response_headers)),
        response_body=exchange.body[:KEPT_BODY].decode("utf-8", "replace").replace("\x00", "\ufffd"),
        error=error,
        detail=detail,
    )


def _first_headers(headers: Headers) -> Headers:
    size, kept = 0, []
    for name, value in headers:
        size += len(name) + len(value)
        if size > KEPT_HEADERS:
            break
        kept.append((name, value))
    return kept


def outcome_of(delivery: Delivery, at: int, exchange: Exchange) -> Outcome:
    """What an exchange at a time (epoch ms) means for its delivery."""
    attempt = attempt_of(delivery, at, exchange)
    if attempt.error is None:
        return Outcome(delivery, attempt, SUCCEEDED, None)
    last = exchange.status == GONE or delivery.type == deliveries.TEST or exchange.error == INVISIBLE
    wait = None if last else next_wait(attempt.number - delivery.base, exchange)
    if wait is None:
        return Outcome(delivery, attempt, FAILED, None)
    return Outcome(delivery, attempt, PENDING, at + int((exchange.duration_ms / 1000 + wait) * 1000))


def not_sent() -> Exchange:
    return Exchange(
        error=INVISIBLE, detail="The owner of the webhook may not see this event any more; it was not sent."
    )


def jitter() -> float:
    return random.uniform(1 - JITTER, 1 + JITTER)
