"""What the routes of webhooks do beside the usual: secrets, and the deliveries with their attempts.

Why deliveries are no resource like the others: they are kept by the million, change with every attempt, and have no
events, or each delivery would lead to the next.
"""

from collections.abc import Iterator
from typing import Any, Final

from taskade_server.consumers.access_log import SECRET_READ
from taskade_server.domain import webhooks
from taskade_server.domain.webhooks import WEBHOOK
from taskade_server.engine import query
from taskade_server.http.api import webhooks_schema as of
from taskade_server.http.api.crud import Options
from taskade_server.http.api.route import Route
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.parameters import Parameters
from taskade_server.http.wire.reply import Reply
from taskade_server.kit import json, time
from taskade_server.kit.errors import InvalidQuery, Issue, Malformed, NotFound, did_you_mean
from taskade_server.store.database import Tx
from taskade_server.store.tables import deliveries, replays
from taskade_server.store.tables.deliveries import Attempt, Delivery, Filter
from taskade_server.store.tables.replays import Replay

MAX_LIMIT: Final = 1000
_PATH: Final = "/webhooks/{id}"
_READ: Final = "webhooks:read"
_WRITE: Final = "webhooks:write"
_LISTS: Final = ("state", "type", "object_id", "event_id", "replay_id")
_PARAMETERS: Final = (*_LISTS, "after", "before", "limit", "cursor")


def create(call: Call, tx: Tx) -> Reply:
    """POST /webhooks: the answer holds the secret."""
    call.no_parameters()
    if call.body is None:
        raise Malformed('The request needs a JSON body such as {"url": "https://example.com/hook", "events": ["*"]}.')
    document, secret = webhooks.create(tx, call.context(), call.body)
    webhook = json.decode(document)
    etag = f'"{webhook["version"]}"'.encode()
    headers = [(b"location", f"/v1/webhooks/{webhook['id']}".encode()), (b"etag", etag)]
    return Reply(201, json.encode({**webhook, "secret": secret}), headers, secret="sealed")


def secret(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/secret."""
    call.no_parameters()
    return Reply(200, json.encode(webhooks.secrets(tx, call.context(), call.path[0])))


def rotate(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/rotate-secret."""
    call.no_parameters()
    if call.body is not None and not isinstance(call.body, dict):
        raise Malformed('The body is empty or a JSON object such as {"overlap_hours": 24}.')
    shown = webhooks.rotate(tx, call.context(), call.path[0], call.body)
    return Reply(200, json.encode(shown), secret="sealed")


def list_deliveries(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/deliveries, newest event first."""
    workspace_id = _webhook(call, tx).workspace_id
    parameters = Parameters(call.pairs(), _PARAMETERS, _LISTS)
    wanted, cursor, limit = _wanted(parameters), parameters.text("cursor"), parameters.number("limit", 100, MAX_LIMIT)
    parameters.fail()
    if cursor is not None and deliveries.find(tx, call.path[0], workspace_id, cursor) is None:
        detail = "The delivery is not on record any more; begin anew without the cursor."
        raise InvalidQuery(errors=[Issue("invalid_cursor", detail, parameter="cursor")])
    found = deliveries.newest(tx, call.path[0], workspace_id, wanted, cursor, limit + 1)
    headers = []
    if len(found) > limit:
        headers.append(call.link_to_next("cursor", found[limit - 1].id))
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
    return Reply(202, json.encode(_shown(webhooks.resend(tx, call.context(), *call.path))))


def test(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/test."""
    call.no_parameters()
    return Reply(202, json.encode(_shown(webhooks.test(tx, call.context(), call.path[0]))))


def health(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/health."""
    call.no_parameters()
    row = _webhook(call, tx)
    state = deliveries.state_of(tx, call.path[0], row.workspace_id)._asdict()
    shown = {name: value if name == "pending" else _time(value) for name, value in state.items()}
    return Reply(200, json.encode({**shown, "disabled_reason": json.decode(row.document)["disabled_reason"]}))


def recover(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/recover."""
    call.no_parameters()
    return _begun(call, tx, webhooks.recover(tx, call.context(), call.path[0], call.body))


def replay(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/replay."""
    call.no_parameters()
    return _begun(call, tx, webhooks.replay(tx, call.context(), call.path[0], call.body))


def _begun(call: Call, tx: Tx, begun: Replay) -> Reply:
    place = f"/v1/webhooks/{begun.webhook_id}/replays/{begun.id}"
    return Reply(202, json.encode(_shown_replay(tx, begun)), [(b"location", place.encode())])


def list_replays(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/replays, newest first."""
    call.no_parameters()
    found = replays.newest(tx, call.path[0], _webhook(call, tx).workspace_id, 100)
    return Reply(200, json.encode([_shown_replay(tx, one) for one in found]))


def get_replay(call: Call, tx: Tx) -> Reply:
    """GET /webhooks/{id}/replays/{replay}."""
    call.no_parameters()
    found = replays.find(tx, call.path[0], _webhook(call, tx).workspace_id, call.path[1])
    if found is None:
        raise NotFound(f"The webhook has no replay {call.path[1][:80]}.")
    return Reply(200, json.encode(_shown_replay(tx, found)))


def cancel_replay(call: Call, tx: Tx) -> Reply:
    """POST /webhooks/{id}/replays/{replay}/cancel."""
    call.no_parameters()
    found = webhooks.cancel_replay(tx, call.context(), *call.path)
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


def _webhook(call: Call, tx: Tx) -> query.Row:
    row = query.get(tx, call.principal, WEBHOOK, call.path[0])
    if row is None:
        raise NotFound(f"There is no webhook {call.path[0][:80]} that this key can see.")
    return row


def _delivery(call: Call, tx: Tx) -> Delivery:
    found = deliveries.find(tx, call.path[0], _webhook(call, tx).workspace_id, call.path[1])
    if found is None:
        raise NotFound(f"The webhook has no delivery {call.path[1][:80]}; name a delivery or its event.")
    return found


def _wanted(parameters: Parameters) -> Filter:
    """Which deliveries are wanted."""
    for state in parameters.several("state"):
        if state not in deliveries.STATES:
            detail = f"state is one of {', '.join(deliveries.STATES)}.{did_you_mean(state, deliveries.STATES)}"
            parameters.fault("state", "not_allowed", detail)
    return Filter(
        states=parameters.several("state"),
        types=parameters.several("type"),
        objects=parameters.several("object_id"),
        events=parameters.several("event_id"),
        replays=parameters.several("replay_id"),
        after=parameters.instant("after"),
        before=parameters.instant("before"),
    )


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


OPTIONS: Final = Options(documents=of.WEBHOOKS, create=create)


def routes() -> Iterator[Route]:
    """The routes of webhooks that other resources have not, of their deliveries and their replays."""
    yield from _secret_routes()
    yield from _delivery_routes()
    yield from _endpoint_routes()
    yield from _replay_routes()


def _secret_routes() -> Iterator[Route]:
    # With the secret, anybody can pretend to be this server: reading it takes the right to change the webhook.
    yield Route(
        "GET",
        f"{_PATH}/secret",
        "webhooks.secret",
        _WRITE,
        secret,
        WEBHOOK,
        "Read the secrets that sign a webhook's deliveries",
        answer="document",
        batchable=False,
        read_action=SECRET_READ,
        document=of.SECRET,
    )
    yield Route(
        "POST",
        f"{_PATH}/rotate-secret",
        "webhooks.rotate_secret",
        _WRITE,
        rotate,
        WEBHOOK,
        "Replace a webhook's secret",
        writes=True,
        body="rotate_secret",
        answer="document",
        batchable=False,
        document=of.ROTATE,
    )


def _delivery_routes() -> Iterator[Route]:
    yield Route(
        "GET",
        f"{_PATH}/deliveries",
        "webhooks.deliveries",
        _READ,
        list_deliveries,
        WEBHOOK,
        "List a webhook's deliveries, newest event first",
        answer="document",
        document=of.DELIVERIES,
    )
    yield Route(
        "GET",
        f"{_PATH}/deliveries/{{delivery}}",
        "webhooks.delivery",
        _READ,
        get_delivery,
        WEBHOOK,
        "Read a delivery with its attempts",
        answer="document",
        document=of.DELIVERY,
    )
    yield Route(
        "POST",
        f"{_PATH}/deliveries/{{delivery}}/resend",
        "webhooks.resend",
        _WRITE,
        resend,
        WEBHOOK,
        "Send a delivery again",
        writes=True,
        body="empty",
        answer="document",
        status=202,
        document=of.RESEND,
    )


def _endpoint_routes() -> Iterator[Route]:
    yield Route(
        "GET",
        f"{_PATH}/health",
        "webhooks.health",
        _READ,
        health,
        WEBHOOK,
        "See how a webhook's endpoint is doing",
        answer="document",
        document=of.HEALTH,
    )
    yield Route(
        "POST",
        f"{_PATH}/test",
        "webhooks.test",
        _WRITE,
        test,
        WEBHOOK,
        "Send a test",
        writes=True,
        body="empty",
        answer="document",
        status=202,
        document=of.TEST,
    )
    yield Route(
        "POST",
        f"{_PATH}/recover",
        "webhooks.recover",
        _WRITE,
        recover,
        WEBHOOK,
        "Send again what has failed",
        writes=True,
        body="recover",
        answer="document",
        status=202,
        document=of.RECOVER,
    )


def _replay_routes() -> Iterator[Route]:
    yield Route(
        "POST",
        f"{_PATH}/replay",
        "webhooks.replay",
        _WRITE,
        replay,
        WEBHOOK,
        "Send the events of a range",
        writes=True,
        body="replay",
        answer="document",
        status=202,
        document=of.REPLAY,
    )
    yield Route(
        "GET",
        f"{_PATH}/replays",
        "webhooks.replays",
        _READ,
        list_replays,
        WEBHOOK,
        "List a webhook's replays, newest first",
        answer="document",
        document=of.REPLAYS,
    )
    yield Route(
        "GET",
        f"{_PATH}/replays/{{replay}}",
        "webhooks.get_replay",
        _READ,
        get_replay,
        WEBHOOK,
        "See how far a replay is",
        answer="document",
        document=of.ONE_REPLAY,
    )
    yield Route(
        "POST",
        f"{_PATH}/replays/{{replay}}/cancel",
        "webhooks.cancel_replay",
        _WRITE,
        cancel_replay,
        WEBHOOK,
        "Cancel a replay",
        writes=True,
        body="empty",
        answer="document",
        document=of.CANCEL,
    )
