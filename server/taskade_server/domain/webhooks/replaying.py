"""Deliveries that somebody asks for: tests, single events once more, and replays of parts of the log."""

from collections.abc import Mapping, Sequence
from typing import Any

from taskade_server.domain.webhooks.checking import is_whole
from taskade_server.domain.webhooks.resources import WEBHOOK
from taskade_server.engine import edit, events, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.model import Checker
from taskade_server.kit import ids, json, time
from taskade_server.kit.errors import Clash, Issue, NotFound
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx
from taskade_server.store.tables import deliveries, replays
from taskade_server.store.tables.deliveries import Delivery
from taskade_server.store.tables.replays import Replay


def test(tx: Tx, context: Context, webhook_id: str) -> Delivery:
    """Queue a delivery that tells of nothing, to see what the endpoint does with it. It is tried once."""
    _, webhook = _load_enabled(tx, context, webhook_id)
    workspace_id = webhook["workspace_id"]
    made = Delivery.queued(
        webhook_id=webhook_id,
        workspace_id=workspace_id,
        seq=log.head(tx, workspace_id),
        event_id=ids.new("evt"),
        type=deliveries.TEST,
        object_id=webhook_id,
        previous_seq=deliveries.last_seq(tx, webhook_id),
        now=time.now_ms(),
    )
    deliveries.add(tx, [made])
    return made


def resend(tx: Tx, context: Context, webhook_id: str, name: str) -> Delivery:
    """Send a delivery once more, whatever has become of it; named by its id or its event's."""
    _, webhook = _load_enabled(tx, context, webhook_id)
    found = deliveries.find(tx, webhook_id, webhook["workspace_id"], name)
    if found is None:
        raise NotFound(f"The webhook has no delivery {name[:80]}; name a delivery or its event.")
    deliveries.queue_again(tx, [found], time.now_ms())
    return deliveries.find(tx, webhook_id, webhook["workspace_id"], found.id) or found


def recover(tx: Tx, context: Context, webhook_id: str, body: Any) -> Replay:
    """Begin to send what has failed since a time once more."""
    _, webhook = _load_enabled(tx, context, webhook_id)
    values, issues = _members_of(body, {"since"})
    since = _time_of(values, "since", issues)
    if values.get("since") is None:
        detail = "Say since when, as in 2024-01-15T10:30:00Z."
        issues.append(Issue("required", detail, pointer="/since"))
    edit.fail(issues)
    workspace_id = webhook["workspace_id"]
    return _begin_replay(tx, context, webhook, replays.RECOVER, (0, log.head(tx, workspace_id)), since=since)


def replay(tx: Tx, context: Context, webhook_id: str, body: Any) -> Replay:
    """Begin to send the events of a range as if they happened now; `missing_only`: those it was never sent."""
    _, webhook = _load_enabled(tx, context, webhook_id)
    values, issues = _members_of(body, {"after_seq", "to_seq", "from", "to", "events", "missing_only"})
    workspace_id = webhook["workspace_id"]
    head = log.head(tx, workspace_id)
    begin, end = _seq_of(values, "after_seq", issues), _seq_of(values, "to_seq", issues)
    since, until = _time_of(values, "from", issues), _time_of(values, "to", issues)
    if all(values.get(name) is None for name in ("after_seq", "from")):
        detail = "Say where to begin: after_seq, or from with a time."
        issues.append(Issue("required", detail, pointer="/after_seq"))
    patterns = values.get("events", ["*"])
    if not isinstance(patterns, list) or not patterns or not all(isinstance(name, str) for name in patterns):
        issues.append(Issue("wrong_type", "events is a list of types or patterns.", pointer="/events"))
    else:
        faults = [(index, events.fault(name)) for index, name in enumerate(patterns)]
        issues += [Issue("unknown_event", text, pointer=f"/events/{index}") for index, text in faults if text]
    if not isinstance(values.get("missing_only", False), bool):
        issues.append(Issue("wrong_type", "missing_only is true or false.", pointer="/missing_only"))
    edit.fail(issues)
    first = max(begin or 0, log.seq_before(tx, workspace_id, since) if since is not None else 0)
    last = min(head if end is None else end, head)
    if until is not None:
        last = min(last, log.seq_before(tx, workspace_id, until))
    return _begin_replay(
        tx,
        context,
        webhook,
        replays.REPLAY,
        (first, max(first, last)),
        patterns=patterns,
        missing_only=values.get("missing_only", False),
    )


def cancel_replay(tx: Tx, context: Context, webhook_id: str, replay_id: str) -> Replay:
    """Break a replay off, with what it has queued and nobody has taken yet; one that is over stays as it is."""
    row, _ = edit.load(tx, context, WEBHOOK, webhook_id, target=False)
    found = replays.find(tx, webhook_id, row.workspace_id, replay_id)
    if found is None:
        raise NotFound(f"The webhook has no replay {replay_id[:80]}.")
    if found.state == replays.RUNNING or replays.pending(tx, found.id, 1):
        replays.cancel(tx, found, time.now_ms())
    return replays.find(tx, webhook_id, row.workspace_id, replay_id) or found


def _load_enabled(tx: Tx, context: Context, webhook_id: str) -> tuple[query.Row, dict[str, Any]]:
    row, webhook = edit.load(tx, context, WEBHOOK, webhook_id, target=False)
    if not webhook["enabled"]:
        raise Clash('The webhook is disabled, so that nothing is sent: PATCH it with {"enabled": true} first.')
    return row, webhook


def _begin_replay(
    tx: Tx,
    context: Context,
    webhook: Mapping[str, Any],
    kind: str,
    span: tuple[int, int],
    *,
    patterns: Sequence[str] = ("*",),
    missing_only: bool = False,
    since: int | None = None,
) -> Replay:
    other = replays.running_of(tx, webhook["id"], webhook["workspace_id"])
    if other is not None:
        raise Clash(f"The replay {other.id} of this webhook is under way; wait for its end, or cancel it.")
    made = Replay.begun(
        webhook_id=webhook["id"],
        workspace_id=webhook["workspace_id"],
        kind=kind,
        from_seq=span[0],
        to_seq=span[1],
        patterns=json.encode(list(patterns)),
        missing_only=missing_only,
        since=since,
        created_by=context.principal.user_id,
        now=time.now_ms(),
    )
    replays.begin(tx, made)
    return made


def _members_of(body: Any, allowed: set[str]) -> tuple[dict[str, Any], list[Issue]]:
    """The members of a body that is no resource."""
    body = {} if body is None else body
    if not isinstance(body, dict):
        return {}, [Issue("wrong_type", f"The body is a JSON object with {', '.join(sorted(allowed))}.", pointer="")]
    checker = Checker()
    for name in body:
        if name not in allowed:
            checker.unknown(f"/{escape_pointer(name)}", name, allowed, "request of this kind")
    return {name: value for name, value in body.items() if name in allowed and value is not None}, checker.issues


def _time_of(values: Mapping[str, Any], name: str, issues: list[Issue]) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    try:
        return time.parse_ms(value)
    except (TypeError, ValueError):
        issues.append(Issue("invalid_format", f"{name} is a time such as 2024-01-15T10:30:00Z.", pointer=f"/{name}"))
        return None


def _seq_of(values: Mapping[str, Any], name: str, issues: list[Issue]) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if not is_whole(value) or not 0 <= value < 2**53:
        issues.append(Issue("wrong_type", f"{name} is the seq of an event: a whole number.", pointer=f"/{name}"))
        return None
    return int(value)
