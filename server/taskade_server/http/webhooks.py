"""What the routes of webhooks do beside the usual: secrets, and the deliveries with their attempts.

Why deliveries are no resource like the others: they are kept by the million, change with every attempt, and have no
events, or each delivery would lead to the next.
"""

from typing import Any, Final

from taskade_server.domain import hooks
from taskade_server.engine import edit, query
from taskade_server.http.wire import Call, Reply
from taskade_server.kit import json, time
from taskade_server.kit.errors import Clash, InvalidQuery, Issue, Malformed, NotFound, did_you_mean
from taskade_server.store import deliveries
from taskade_server.store.database import Tx
from taskade_server.store.deliveries import Attempt, Delivery

MAX_LIMIT: Final = 1000
_PARAMETERS: Final = ("state", "type", "limit", "before_seq")


def create(call: Call, tx: Tx) -> Reply:
    """POST /webhooks: the answer holds the secret."""
    call.no_parameters()
    if call.body is None:
        raise Malformed('The request needs a JSON body such as {"url": "https://example.com/hook", "events": ["*"]}.')
    document, secret = hooks.create(tx, call.context(), call.body)
    webhook = json.decode(document)
    headers = [(b"location", f"/v1/webhooks/{webhook['id']}".encode()), (b"etag", b'"1"')]
    return Reply(201, json.encode({**webhook, "secret": secret}), headers, secret="sealed")


def secret(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/secret."""
    call.no_parameters()
    return Reply(200, json.encode(hooks.secrets(tx, call.context(), call.path[0])))


def rotate(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/rotate-secret."""
    call.no_parameters()
    if call.body is not None and not isinstance(call.body, dict):
        raise Malformed('The body is empty or a JSON object such as {"overlap_hours": 24}.')
    shown = hooks.rotate(tx, call.context(), call.path[0], call.body)
    return Reply(200, json.encode(shown), secret="sealed")


def list_deliveries(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/deliveries, newest event first."""
    _webhook(call, tx)
    options = _options(call.pairs())
    limit = options["limit"]
    found = deliveries.newest(
        tx, call.path[0], states=options["state"], types=options["type"], below=options["before_seq"], limit=limit + 1
    )
    headers = []
    if len(found) > limit:
        kept = [part for part in call.query_string.split("&") if part and part.partition("=")[0] != "before_seq"]
        following = "&".join([*kept, f"before_seq={found[limit - 1].seq}"])
        headers.append((b"link", f'<{call.url}?{following}>; rel="next"'.encode()))
    return Reply(200, json.encode([_shown(delivery) for delivery in found[:limit]]), headers)


def get_delivery(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/deliveries/{delivery}, with its attempts."""
    call.no_parameters()
    delivery = _delivery(call, tx)
    attempts = [_shown_attempt(attempt) for attempt in deliveries.attempts_of(tx, delivery.id)]
    return Reply(200, json.encode({**_shown(delivery), "attempt_log": attempts}))


def resend(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/deliveries/{delivery}/resend."""
    call.no_parameters()
    _, webhook = edit.load(tx, call.context(), hooks.WEBHOOK, call.path[0], target=False)
    delivery = _delivery(call, tx)
    if not webhook["enabled"]:
        raise Clash('The webhook is disabled; PATCH it with {"enabled": true} first.')
    deliveries.requeue(tx, delivery, time.now_ms())
    return Reply(202, json.encode(_shown(_delivery(call, tx))))


def _webhook(call: Call, tx: Tx) -> None:
    if query.get(tx, call.principal, hooks.WEBHOOK, call.path[0]) is None:
        raise NotFound(f"There is no webhook {call.path[0][:80]} that this key can see.")


def _delivery(call: Call, tx: Tx) -> Delivery:
    _webhook(call, tx)
    found = deliveries.find(tx, call.path[0], call.path[1])
    if found is None:
        raise NotFound(f"The webhook has no delivery {call.path[1][:80]}; name a delivery or its event.")
    return found


def _options(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    issues: list[Issue] = []
    found: dict[str, Any] = {"state": [], "type": [], "limit": 100, "before_seq": None}
    for name, value in pairs:
        if name not in _PARAMETERS:
            detail = f'There is no parameter "{name[:80]}".{did_you_mean(name, _PARAMETERS)}'
            issues.append(Issue("unknown_parameter", f"{detail} Allowed: {', '.join(_PARAMETERS)}.", parameter=name))
        elif name in ("limit", "before_seq"):
            most = MAX_LIMIT if name == "limit" else 2**53
            if not value.isdecimal() or not 1 <= int(value) <= most:
                issues.append(Issue("out_of_range", f"{name} is a number from 1 to {most:,}.", parameter=name))
            else:
                found[name] = int(value)
        else:
            found[name] += value.split(",")
    for state in found["state"]:
        if state not in deliveries.STATES:
            detail = f"state is one of {', '.join(deliveries.STATES)}.{did_you_mean(state, deliveries.STATES)}"
            issues.append(Issue("not_allowed", detail, parameter="state"))
    if issues:
        raise InvalidQuery(errors=issues)
    return found


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "workspace_id": delivery.workspace_id,
        "event_id": delivery.event_id,
        "seq": delivery.seq,
        "previous_seq": delivery.previous_seq,
        "type": delivery.type,
        "object_id": delivery.object_id,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt_at": _time(delivery.next_at),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "created_at": _time(delivery.created_at),
        "finished_at": _time(delivery.finished_at),
    }


def _shown_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "at": _time(attempt.at),
        "duration_ms": round(attempt.duration_ms, 3),
        "address": attempt.address,
        "request_headers": json.decode(attempt.request_headers),
        "status": attempt.status,
        "response_headers": json.decode(attempt.response_headers),
        "response_body": attempt.response_body,
        "error": attempt.error,
        "detail": attempt.detail,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else time.format_ms(at)
