"""What the routes of webhooks do beside the usual: secrets, and the deliveries with their attempts.

Why deliveries are no resource like the others: they are kept by the million, change with every attempt, and have no
events, or each delivery would lead to the next.
"""

from typing import Any, Final

from taskade_server.domain import hooks
from taskade_server.engine import query
from taskade_server.http.wire import Call, Reply
from taskade_server.kit import json, time
from taskade_server.kit.errors import InvalidQuery, Issue, Malformed, NotFound, did_you_mean
from taskade_server.store import deliveries, replays
from taskade_server.store.database import Tx
from taskade_server.store.deliveries import Attempt, Delivery, Filter
from taskade_server.store.replays import Replay

MAX_LIMIT: Final = 1000
MAX_VALUES: Final = 50
_LISTS: Final = ("state", "type", "object_id", "event_id", "replay_id")
_PARAMETERS: Final = (*_LISTS, "after", "before", "limit", "cursor")


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
    wanted, cursor, limit = _options(call.pairs())
    if cursor is not None and deliveries.find(tx, call.path[0], cursor) is None:
        detail = "The delivery is not on record any more; begin anew without the cursor."
        raise InvalidQuery(errors=[Issue("invalid_cursor", detail, parameter="cursor")])
    found = deliveries.newest(tx, call.path[0], wanted, cursor, limit + 1)
    headers = []
    if len(found) > limit:
        kept = [part for part in call.query_string.split("&") if part and part.partition("=")[0] != "cursor"]
        following = "&".join([*kept, f"cursor={found[limit - 1].id}"])
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
    return Reply(202, json.encode(_shown(hooks.resend(tx, call.context(), *call.path))))


def test(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/test."""
    call.no_parameters()
    return Reply(202, json.encode(_shown(hooks.test(tx, call.context(), call.path[0]))))


def health(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/health."""
    call.no_parameters()
    _webhook(call, tx)
    state = deliveries.state_of(tx, call.path[0])._asdict()
    shown = {name: value if name == "pending" else _time(value) for name, value in state.items()}
    return Reply(200, json.encode(shown))


def recover(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/recover."""
    call.no_parameters()
    return _begun(call, tx, hooks.recover(tx, call.context(), call.path[0], call.body))


def replay(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/replay."""
    call.no_parameters()
    return _begun(call, tx, hooks.replay(tx, call.context(), call.path[0], call.body))


def _begun(call: Call, tx: Tx, begun: Replay) -> Reply:
    place = f"/v1/webhooks/{begun.webhook_id}/replays/{begun.id}"
    return Reply(202, json.encode(_shown_replay(tx, begun)), [(b"location", place.encode())])


def list_replays(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/replays, newest first."""
    call.no_parameters()
    _webhook(call, tx)
    found = replays.newest(tx, call.path[0], 100)
    return Reply(200, json.encode([_shown_replay(tx, one) for one in found]))


def get_replay(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/replays/{replay}."""
    call.no_parameters()
    _webhook(call, tx)
    found = replays.find(tx, *call.path)
    if found is None:
        raise NotFound(f"The webhook has no replay {call.path[1][:80]}.")
    return Reply(200, json.encode(_shown_replay(tx, found)))


def cancel_replay(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/replays/{replay}/cancel."""
    call.no_parameters()
    found = hooks.cancel_replay(tx, call.context(), *call.path)
    return Reply(200, json.encode(_shown_replay(tx, found)))


def _shown_replay(tx: Tx, found: Replay) -> dict[str, Any]:
    counts = replays.counts(tx, found.id)
    return {
        "id": found.id,
        "webhook_id": found.webhook_id,
        "workspace_id": found.workspace_id,
        "kind": found.kind,
        "state": found.state,
        "after_seq": found.from_seq,
        "to_seq": found.to_seq,
        "position": found.position,
        "events": json.decode(found.patterns),
        "missing_only": bool(found.missing_only),
        "since": _time(found.since),
        "queued": found.queued,
        "deliveries": {state: counts.get(state, 0) for state in deliveries.STATES},
        "created_by": found.created_by,
        "created_at": _time(found.created_at),
        "finished_at": _time(found.finished_at),
    }


def _webhook(call: Call, tx: Tx) -> None:
    if query.get(tx, call.principal, hooks.WEBHOOK, call.path[0]) is None:
        raise NotFound(f"There is no webhook {call.path[0][:80]} that this key can see.")


def _delivery(call: Call, tx: Tx) -> Delivery:
    _webhook(call, tx)
    found = deliveries.find(tx, call.path[0], call.path[1])
    if found is None:
        raise NotFound(f"The webhook has no delivery {call.path[1][:80]}; name a delivery or its event.")
    return found


def _options(pairs: list[tuple[str, str]]) -> tuple[Filter, str | None, int]:
    """Which deliveries are wanted, the cursor and the limit."""
    issues: list[Issue] = []
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    times: dict[str, int] = {}
    cursor, limit = None, 100
    for name, value in pairs:
        if name in lists:
            lists[name] += value.split(",")
        elif name in ("after", "before"):
            try:
                times[name] = time.parse_ms(value)
            except ValueError:
                detail = f"{name} is a time such as 2024-01-15T10:30:00Z."
                issues.append(Issue("invalid_format", detail, parameter=name))
        elif name == "cursor":
            cursor = value
        elif name != "limit":
            detail = f'There is no parameter "{name[:80]}".{did_you_mean(name, _PARAMETERS)}'
            issues.append(Issue("unknown_parameter", f"{detail} Allowed: {', '.join(_PARAMETERS)}.", parameter=name))
        elif not value.isdecimal() or not 1 <= int(value) <= MAX_LIMIT:
            issues.append(Issue("out_of_range", f"limit is a number from 1 to {MAX_LIMIT:,}.", parameter=name))
        else:
            limit = int(value)
    for state in lists["state"]:
        if state not in deliveries.STATES:
            detail = f"state is one of {', '.join(deliveries.STATES)}.{did_you_mean(state, deliveries.STATES)}"
            issues.append(Issue("not_allowed", detail, parameter="state"))
    for name, values in lists.items():
        if len(values) > MAX_VALUES:
            issues.append(Issue("too_many", f"{name} takes at most {MAX_VALUES} values.", parameter=name))
    if issues:
        raise InvalidQuery(errors=issues)
    wanted = Filter(
        states=lists["state"],
        types=lists["type"],
        objects=lists["object_id"],
        events=lists["event_id"],
        replays=lists["replay_id"],
        after=times.get("after"),
        before=times.get("before"),
    )
    return wanted, cursor, limit


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
        "replay_id": delivery.replay_id,
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
