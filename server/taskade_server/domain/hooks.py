"""Webhooks: what somebody wants to be told, where it is sent, and what proves that it came from here.

Why a webhook keeps the rights of the key that made it: it tells its owner what happens as long as they may know it, and
never more than that key could have read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.domain import identity, projects
from taskade_server.engine import access, edit, events, filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change, Event
from taskade_server.engine.model import REGISTRY, Checker, Field, Relation, Resource
from taskade_server.kit import destinations, ids, json, signing, time, vault, webhook_signatures
from taskade_server.kit.errors import Clash, Forbidden, InvalidQuery, Issue, NotFound
from taskade_server.store import cursors, deliveries, replays
from taskade_server.store.database import Tx
from taskade_server.store.deliveries import Delivery
from taskade_server.store.replays import Replay

READER: Final = "webhooks"
"""The reader of the log that makes deliveries."""
MAX_WEBHOOKS: Final = 200
"""In one workspace."""
MAX_HEADERS: Final = 20
MAX_OLD_SECRETS: Final = 10
OVERLAP_HOURS: Final = 24
MAX_OVERLAP_HOURS: Final = 168

WEBHOOK: Final = Resource(
    "webhook", "webhooks", "wh",
    "A subscription to events: each is sent to the URL as a signed POST, in order for each object, until it is taken.",
    (
        Field("user_id", "ref", "On whose behalf it is told of events.", target="user", writable=False, nullable=False),
        Field("project_id", "ref", "If given, only events in this project.", target="project"),
        Field("url", "text", "Where events are sent.", "https://example.com/hooks/taskade", required=True,
              nullable=False, min_length=1, max_length=2000),
        Field("description", "text", "What it is for.", "Tells the billing system.", max_length=500),
        Field("events", "strings", "Which events: types, patterns such as `task.*`, or `*`.",
              ["task.created", "task.completed"], nullable=False, default=["*"], column=False, max_length=60),
        Field("filter", "filter", "If given, only events whose `data` fits this filter, written as for lists.",
              {"priority": {"$in": ["high", "urgent"]}}, max_length=16_384),
        Field("headers", "object", "Headers to send along; their values are shown to whoever sees the webhook.",
              {"X-Environment": "staging"}, nullable=False, default={}, max_length=8_192),
        Field("enabled", "bool", "Whether events are sent. What happens while they are not is not sent later.", True,
              nullable=False, default=True),
        Field("disabled_at", "time", "When it was disabled.", writable=False),
        Field("disabled_reason", "text", "Why the server disabled it: `gone` (answered 410) or `failing`.",
              writable=False),
        Field("rate_limit", "integer", "The most deliveries a minute; null for no limit.", 600, minimum=1,
              maximum=1_000_000),
        Field("max_concurrency", "integer", "The most deliveries at a time.", 10, nullable=False, default=10, minimum=1,
              maximum=100),
        Field("payload", "enum", "What is sent of an object: all of it, or (`thin`) its id only.", "full",
              nullable=False, default="full", values=("full", "thin")),
        Field("public_key", "text", "Verifies the `v1a` signatures (Ed25519).",
              "whpk_1P5BBRnlcyMm9jVYFpb5oBzvHkXnRmrL9l5QqE7XTqE=", writable=False),
    ),
    visibility="managed", trash=False, private=(("secrets", "text"), ("rights", "text"), ("spans", "text"),
                                             ("until", "bigint")),
    relations=(
        Relation("user", "user", "one", "user_id", "The user it acts for."),
        Relation("project", "project", "one", "project_id", "The project it is about."),
    ),
    narrower_events={"webhook.disabled": "Disabled by the server, because its endpoint is gone or failing."},
)  # fmt: skip


# ---- writing ---------------------------------------------------------------------------------------------------------


def create(tx: Tx, context: Context, body: Any) -> tuple[str, str]:
    """A new webhook, as (document, secret)."""
    values = edit.fields(WEBHOOK, body, extra=["secret"])
    chosen = body.get("secret")
    project = _project(tx, context, values["project_id"])
    workspace_id = values["workspace_id"] or (project["workspace_id"] if project else None)
    workspace_id = workspace_id or context.principal.default_workspace or ""
    access.require_workspace(context.principal, workspace_id, "guest" if project else "member", "create a webhook")
    issues = _faults(tx, context, values)
    if chosen is not None:
        issues += _secret_faults(chosen)
    if project and project["workspace_id"] != workspace_id:
        issues.append(Issue("mismatch", "The project lies in another workspace.", pointer="/project_id"))
    if len(tx.all("SELECT 1 FROM webhooks WHERE workspace_id = ?", (workspace_id,))) >= MAX_WEBHOOKS:
        issues.append(Issue("too_many", f"A workspace may have {MAX_WEBHOOKS} webhooks.", pointer=""))
    edit.fail(issues)
    webhook_id = edit.new_id(tx, WEBHOOK, values.get("id"))
    secret = chosen or webhook_signatures.new_secret()
    pair = webhook_signatures.new_key_pair()
    doc = {
        **values, "id": webhook_id, "workspace_id": workspace_id, "user_id": context.principal.user_id,
        "disabled_at": None, "disabled_reason": None, "public_key": pair.public,
    }  # fmt: skip
    _mark(doc)
    keys = _Keys(secret, pair.private, [])
    private = {
        "secrets": keys.close(context.secret, webhook_id),
        "rights": _rights(tx, context),
        **_begin(tx, workspace_id, []),
    }  # fmt: skip
    return edit.create(tx, context, WEBHOOK, doc, **private), secret


def update(tx: Tx, context: Context, webhook_id: str, body: Any) -> str:
    """Change a webhook; the owner's rights stay those of the key that made it."""
    row, before = _load(tx, context, webhook_id)
    values = edit.fields(WEBHOOK, body, current=before)
    after = {**before, **values}
    changed = {name: value for name, value in values.items() if not json.same(before[name], value)}
    issues = _faults(tx, context, {**changed, "events": after["events"]})
    if changed.get("project_id"):
        project = _project(tx, context, after["project_id"])
        if project and project["workspace_id"] != row.workspace_id:
            issues.append(Issue("mismatch", "The project lies in another workspace.", pointer="/project_id"))
    edit.fail(issues)
    if after["enabled"] == before["enabled"]:
        return edit.update(tx, context, WEBHOOK, row, before, after)
    _mark(after)
    private = _turn(tx, row.n, row.workspace_id, after["enabled"])
    return log.apply(tx, context.actor, [Change(WEBHOOK, "updated", after, before, row.n, private=private)])[0]


def delete(tx: Tx, context: Context, webhook_id: str) -> None:
    """End a webhook: nothing more is sent, not even what is waiting."""
    row, doc = _load(tx, context, webhook_id)
    _end(tx, context.actor, row.n, doc)


def forget_aimless(tx: Tx, limit: int) -> int:
    """End webhooks about projects that are gone for good, after they have told of that; returns how many."""
    # In this order: whatever is committed meanwhile makes the later questions keep more, and not less.
    found = tx.all(
        "SELECT n, id, workspace_id, doc FROM webhooks w WHERE project_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = w.project_id)"
        f" ORDER BY n LIMIT {int(limit)}{tx.for_update}"
    )
    ended = 0
    for n, webhook_id, workspace_id, text in found:
        doc = json.decode(text)
        if doc["enabled"] and (_is_behind(tx, workspace_id) or deliveries.has_pending(tx, webhook_id)):
            continue
        _end(tx, Actor(None), n, doc)
        ended += 1
    return ended


def _is_behind(tx: Tx, workspace_id: str) -> bool:
    return cursors.position(tx, READER, workspace_id) < log.head(tx, workspace_id)


def _end(tx: Tx, actor: Actor, n: int, doc: dict[str, Any]) -> None:
    running = replays.running_of(tx, doc["id"])
    if running is not None:
        replays.cancel(tx, running, time.now_ms())
    log.apply(tx, actor, [Change(WEBHOOK, "deleted", dict(doc), doc, n)])


def disable(tx: Tx, webhook_id: str, reason: str) -> bool:
    """What the server does about an endpoint that is gone or failing; False if it was disabled already."""
    found = tx.one(f"SELECT n, doc FROM webhooks WHERE id = ?{tx.for_update}", (webhook_id,))
    before = json.decode(found[1]) if found else None
    if found is None or before is None or not before["enabled"]:
        return False
    after = {**before, "enabled": False, "disabled_reason": reason}
    _mark(after, reason)
    private = _turn(tx, found[0], before["workspace_id"], False)
    log.apply(tx, Actor(None), [Change(WEBHOOK, "updated", after, before, found[0], ["webhook.disabled"], private)])
    return True


def _load(tx: Tx, context: Context, webhook_id: str) -> tuple[query.Row, dict[str, Any]]:
    """The webhook, for who may decide where its events go: a key that reaches less must not read through it."""
    row, doc = edit.load(tx, context, WEBHOOK, webhook_id)
    found = tx.one("SELECT rights FROM webhooks WHERE n = ?", (row.n,))
    scopes, *limits = json.decode(found[0]) if found else ([], [], [])
    key = identity.own_key(tx, context)
    lacking = [scope for scope in scopes if not _allows(context.principal, scope)]
    within = (
        not key.get(name) or (limit and set(limit) <= set(key[name]))
        for name, limit in zip(("workspace_ids", "project_ids"), limits, strict=True)
    )
    if lacking or not all(within):
        raise Forbidden("This webhook was made with a key that reaches further than yours; use one that does, too.")
    return row, doc


def _allows(principal: Principal, scope: str) -> bool:
    return "*" in principal.scopes if scope == "*" else principal.allows(scope)


def _turn(tx: Tx, n: int, workspace_id: str, enabled: bool) -> dict[str, Any]:
    """The private columns of a webhook that is enabled or disabled now.

    What happened before it was disabled is told even if nobody has looked at it yet.
    """
    found = tx.one("SELECT spans FROM webhooks WHERE n = ?", (n,))
    spans = json.decode(found[0]) if found else []
    if enabled:
        return _begin(tx, workspace_id, spans)
    head = log.head(tx, workspace_id)
    spans[-1][1] = head
    return {"spans": json.encode(spans), "until": head}


def _begin(tx: Tx, workspace_id: str, spans: list[list[int | None]]) -> dict[str, Any]:
    """The same for one that is told of events from now on.

    While nobody wanted any, the reader of the log has not moved; it need not read what nobody is told of.
    """
    log.lock(tx, workspace_id)
    head, position = log.head(tx, workspace_id), cursors.position(tx, READER, workspace_id)
    wanted = "SELECT 1 FROM webhooks WHERE workspace_id = ? AND (enabled = 1 OR until > ?) LIMIT 1"
    if tx.one(wanted, (workspace_id, position)) is None:
        cursors.move(tx, READER, workspace_id, head)
    unread = [span for span in spans if (span[1] or 0) > position]
    return {"spans": json.encode([*unread, [head, None]]), "until": None}


def _mark(doc: dict[str, Any], reason: str | None = None) -> None:
    doc["disabled_at"] = None if doc["enabled"] else time.format_ms(time.now_ms())
    doc["disabled_reason"] = None if doc["enabled"] else reason


def _project(tx: Tx, context: Context, project_id: str | None) -> dict[str, Any] | None:
    if project_id is None:
        return None
    row = query.get(tx, context.principal, projects.PROJECT, project_id)
    if row is None:
        detail = f"There is no project {project_id} that you can see."
        edit.fail([Issue("unknown_reference", detail, pointer="/project_id")])
        raise NotFound(detail)
    found: dict[str, Any] = json.decode(row.document)
    return found


def _rights(tx: Tx, context: Context) -> str:
    key = identity.own_key(tx, context)
    scopes = sorted(context.principal.scopes)
    return json.encode([scopes, key.get("workspace_ids") or [], key.get("project_ids") or []])


# ---- sending what was not asked for by an event ----------------------------------------------------------------------


def test(tx: Tx, context: Context, webhook_id: str) -> Delivery:
    """Queue a delivery that tells of nothing, to see what the endpoint does with it. It is tried once."""
    _, webhook = _enabled(tx, context, webhook_id)
    workspace_id, now = webhook["workspace_id"], time.now_ms()
    made = Delivery(
        ids.new("dlv"), webhook_id, workspace_id, log.head(tx, workspace_id), ids.new("evt"), deliveries.TEST,
        webhook_id,
        deliveries.last_seq(tx, webhook_id), deliveries.PENDING, 0, 0, now, now, None, None, None, None,
    )  # fmt: skip
    deliveries.add(tx, [made])
    return made


def resend(tx: Tx, context: Context, webhook_id: str, name: str) -> Delivery:
    """Send a delivery once more, whatever has become of it; named by its id or its event's."""
    _enabled(tx, context, webhook_id)
    found = deliveries.find(tx, webhook_id, name)
    if found is None:
        raise NotFound(f"The webhook has no delivery {name[:80]}; name a delivery or its event.")
    deliveries.queue_again(tx, [found], time.now_ms())
    return deliveries.find(tx, webhook_id, found.id) or found


def recover(tx: Tx, context: Context, webhook_id: str, body: Any) -> Replay:
    """Begin to send what has failed since a time once more."""
    _, webhook = _enabled(tx, context, webhook_id)
    values, issues = _members(body, {"since"})
    since = _moment(values, "since", issues)
    if values.get("since") is None:
        detail = "Say since when, as in 2024-01-15T10:30:00Z."
        issues.append(Issue("required", detail, pointer="/since"))
    edit.fail(issues)
    workspace_id = webhook["workspace_id"]
    return _begin_replay(tx, context, webhook, replays.RECOVER, (0, log.head(tx, workspace_id)), since=since)


def replay(tx: Tx, context: Context, webhook_id: str, body: Any) -> Replay:
    """Begin to send the events of a range as if they happened now; `missing_only`: those it was never sent."""
    _, webhook = _enabled(tx, context, webhook_id)
    values, issues = _members(body, {"after_seq", "to_seq", "from", "to", "events", "missing_only"})
    workspace_id = webhook["workspace_id"]
    head = log.head(tx, workspace_id)
    begin, end = _place(values, "after_seq", issues), _place(values, "to_seq", issues)
    since, until = _moment(values, "from", issues), _moment(values, "to", issues)
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
        tx, context, webhook, replays.REPLAY, (first, max(first, last)), patterns=patterns,
        missing_only=values.get("missing_only", False),
    )  # fmt: skip


def cancel_replay(tx: Tx, context: Context, webhook_id: str, replay_id: str) -> Replay:
    """Break a replay off, with what it has queued and nobody has taken yet; one that is over stays as it is."""
    edit.load(tx, context, WEBHOOK, webhook_id, target=False)
    found = replays.find(tx, webhook_id, replay_id)
    if found is None:
        raise NotFound(f"The webhook has no replay {replay_id[:80]}.")
    if found.state == replays.RUNNING or replays.pending(tx, found.id, 1):
        replays.cancel(tx, found, time.now_ms())
    return replays.find(tx, webhook_id, replay_id) or found


def _enabled(tx: Tx, context: Context, webhook_id: str) -> tuple[query.Row, dict[str, Any]]:
    row, webhook = edit.load(tx, context, WEBHOOK, webhook_id, target=False)
    if not webhook["enabled"]:
        raise Clash('The webhook is disabled, so that nothing is sent: PATCH it with {"enabled": true} first.')
    return row, webhook


def _begin_replay(
    tx: Tx, context: Context, webhook: Mapping[str, Any], kind: str, places: tuple[int, int], *,
    patterns: Sequence[str] = ("*",), missing_only: bool = False, since: int | None = None,
) -> Replay:  # fmt: skip
    other = replays.running_of(tx, webhook["id"])
    if other is not None:
        raise Clash(f"The replay {other.id} of this webhook is under way; wait for its end, or cancel it.")
    made = Replay(
        ids.new("rpl"), webhook["id"], webhook["workspace_id"], kind, replays.RUNNING, *places, places[0],
        json.encode(list(patterns)), int(missing_only), since, 0, context.principal.user_id, time.now_ms(), None,
    )  # fmt: skip
    replays.begin(tx, made)
    return made


def _members(body: Any, allowed: set[str]) -> tuple[dict[str, Any], list[Issue]]:
    """The members of a body that is no resource."""
    body = {} if body is None else body
    if not isinstance(body, dict):
        return {}, [Issue("wrong_type", f"Must be a JSON object with {', '.join(sorted(allowed))}.", pointer="")]
    checker = Checker()
    for name in body:
        if name not in allowed:
            checker.unknown(f"/{json.escape_pointer(name)}", name, allowed, "request of this kind")
    return {name: value for name, value in body.items() if name in allowed}, checker.issues


def _moment(values: Mapping[str, Any], name: str, issues: list[Issue]) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    try:
        return time.parse_ms(value)
    except (TypeError, ValueError):
        issues.append(Issue("invalid_format", f"{name} is a time such as 2024-01-15T10:30:00Z.", pointer=f"/{name}"))
        return None


def _place(values: Mapping[str, Any], name: str, issues: list[Issue]) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if not _is_whole(value) or not 0 <= value < 2**53:
        issues.append(Issue("wrong_type", f"{name} is the seq of an event: a whole number.", pointer=f"/{name}"))
        return None
    return int(value)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number, however it is written: 24 and 24.0 are the same in JSON."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


# ---- faults ----------------------------------------------------------------------------------------------------------


def _faults(tx: Tx, context: Context, values: Mapping[str, Any]) -> list[Issue]:
    issues = []
    if "url" in values and (refusal := context.destinations.refusal(values["url"])):
        issues.append(Issue("not_allowed", refusal, pointer="/url"))
    for index, pattern in enumerate(values["events"]):
        if fault := events.fault(pattern):
            issues.append(Issue("unknown_event", fault, pointer=f"/events/{index}"))
    if not values["events"]:
        issues.append(Issue("required", "Name at least one event, or leave events out for all.", pointer="/events"))
    for name, value in (values.get("headers") or {}).items():
        if fault := header_fault(name, value):
            issues.append(Issue("not_allowed", fault, pointer=f"/headers/{json.escape_pointer(name)}"))
    if len(values.get("headers") or {}) > MAX_HEADERS:
        issues.append(Issue("too_many", f"At most {MAX_HEADERS} headers are sent along.", pointer="/headers"))
    if values.get("filter") is not None and not issues:
        issues += Condition(values["filter"], values["events"]).faults(tx, context.principal)
    return issues


def header_fault(name: str, value: Any) -> str | None:
    """Why a header cannot be sent along, in one sentence; None if it can."""
    if not isinstance(value, str):
        return f"The value of the header {name[:80]} must be a string."
    lower = name.lower()
    if lower.startswith(("webhook-", "x-taskade-")) or lower in ("content-type", "user-agent", "accept"):
        return f"The header {name[:80]} is the server's own."
    return destinations.header_refusal(name, value)


def _secret_faults(secret: Any) -> list[Issue]:
    if not isinstance(secret, str):
        return [Issue("wrong_type", "secret must be a string.", pointer="/secret")]
    refusal = webhook_signatures.secret_refusal(secret)
    return [Issue("invalid_format", refusal, pointer="/secret")] if refusal else []


# ---- secrets ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Keys:
    """What signs: the secret, the private key of `v1a`, and earlier secrets with the moment (epoch ms) they end."""

    secret: str
    private: str
    old: list[tuple[str, int]]

    def close(self, secret: bytes, webhook_id: str) -> str:
        return vault.close(secret, webhook_id, json.encode([self.secret, self.private, self.old]))

    @classmethod
    def open(cls, secret: bytes, webhook_id: str, closed: str) -> "_Keys":
        current, private, old = json.decode(vault.open(secret, webhook_id, closed))
        return cls(current, private, [(text, until) for text, until in old])

    def signing(self, now: int) -> list[str]:
        """Every key that signs now: the secret, earlier ones that have not ended, the private key."""
        return [self.secret, *(text for text, until in self.old if until > now), self.private]


def secrets(tx: Tx, context: Context, webhook_id: str) -> dict[str, Any]:
    """The secrets of a webhook, for whoever may change it."""
    row, _ = _load(tx, context, webhook_id)
    return _shown(_stored(tx, context, row))


def rotate(tx: Tx, context: Context, webhook_id: str, body: Any) -> dict[str, Any]:
    """Replace the secret. The old one goes on signing beside the new one for `overlap_hours` (24 unless given)."""
    row, before = _load(tx, context, webhook_id)
    body = body or {}
    issues = [] if body.get("secret") is None else _secret_faults(body["secret"])
    hours = body.get("overlap_hours", OVERLAP_HOURS)
    if not _is_whole(hours) or not 0 <= hours <= MAX_OVERLAP_HOURS:
        detail = f"overlap_hours is a whole number from 0 to {MAX_OVERLAP_HOURS}."
        issues.append(Issue("out_of_range", detail, pointer="/overlap_hours"))
    unknown = set(body) - {"secret", "overlap_hours"}
    issues += [
        Issue("unknown_field", "Allowed: overlap_hours, secret.", pointer=f"/{json.escape_pointer(name)}")
        for name in sorted(unknown)
    ]
    keys, now = _stored(tx, context, row), time.now_ms()
    old = [(text, until) for text, until in keys.old if until > now]
    if len(old) >= MAX_OLD_SECRETS:
        detail = f"{MAX_OLD_SECRETS} earlier secrets still sign; wait until some have ended."
        issues.append(Issue("too_many", detail, pointer=""))
    edit.fail(issues)
    fresh = body.get("secret") or webhook_signatures.new_secret()
    if hours:
        old.append((keys.secret, now + int(hours) * 3_600_000))
    keys = _Keys(fresh, keys.private, old)
    private = {"secrets": keys.close(context.secret, webhook_id)}
    log.apply(tx, context.actor, [Change(WEBHOOK, "updated", dict(before), before, row.n, private=private)])
    return _shown(keys)


def _stored(tx: Tx, context: Context, row: query.Row) -> _Keys:
    found = tx.one("SELECT id, secrets FROM webhooks WHERE n = ?", (row.n,))
    assert found is not None
    return _Keys.open(context.secret, found[0], found[1])


def _shown(keys: _Keys) -> dict[str, Any]:
    now = time.now_ms()
    old = [
        {"secret": text, "expires_at": time.format_ms(until)} for text, until in keys.old if until > now
    ]  # fmt: skip
    return {
        "secret": keys.secret,
        "standard_secret": webhook_signatures.standard_form(keys.secret),
        "public_key": webhook_signatures.public_key(keys.private),
        "previous": old,
    }


# ---- which events ----------------------------------------------------------------------------------------------------


class Condition:
    """A webhook's filter: it speaks of the resources that have all the members it names."""

    def __init__(self, document: dict[str, Any], patterns: list[str]) -> None:
        self._document = document
        kinds = {kind.resource.name: None for name, kind in events.catalogue().items() if events.fits(patterns, name)}
        self._resources = [REGISTRY[name] for name in kinds]

    def faults(self, tx: Tx, principal: Principal) -> list[Issue]:
        """What is wrong with it for each of the resources; nothing if it is right for one."""
        faults: list[Issue] = []
        for resource in self._resources:
            _, issues = self._parse(tx, principal, resource)
            if not issues:
                return []
            if not faults or len(issues) < len(faults):
                faults = issues
        return faults

    def trees(self, tx: Tx, principal: Principal) -> dict[str, filters.Node]:
        """The filter as a tree, for each resource that it speaks of."""
        parsed = {resource.name: self._parse(tx, principal, resource) for resource in self._resources}
        return {name: node for name, (node, issues) in parsed.items() if not issues}

    def _parse(self, tx: Tx, principal: Principal, resource: Resource) -> tuple[filters.Node, list[Issue]]:
        def resolve(target: str, reference: str) -> str | None:
            return query.resolve(tx, principal, target, reference)

        parser = filters.Parser(resource, resolve, time.now_ms(), typed=True, prefix="/filter")
        try:
            return parser.parse(self._document), parser.issues
        except InvalidQuery as error:
            return filters.EVERYTHING, error.errors


@dataclass(slots=True)
class Subscription:
    """A webhook as it is matched against events."""

    id: str
    workspace_id: str
    project_id: str | None
    patterns: list[str]
    principal: Principal
    trees: dict[str, filters.Node] | None
    spans: list[tuple[int, int | None]]
    """When it was enabled, as parts of the log: each behind one seq and up to another, if it has ended."""

    def was_enabled(self, seq: int) -> bool:
        """Whether it was enabled when an event happened."""
        return any(begin < seq and (end is None or seq <= end) for begin, end in self.spans)

    def concerns(self, event: Event) -> bool:
        """Whether an event is of a wanted type and place, and visible to the owner."""
        if event.object_id == self.id or not events.fits(self.patterns, event.type):
            return False
        if self.project_id is not None and event.project_id != self.project_id:
            return False
        return events.sees(self.principal, event)

    def fits(self, event: Event) -> bool:
        """Whether an event is as the filter says."""
        if self.trees is None:
            return True
        tree = self.trees.get(event.resource)
        return tree is not None and filters.matches(tree, REGISTRY[event.resource], json.decode(event.data))


def subscriptions(tx: Tx, workspace_id: str, position: int) -> list[Subscription]:
    """The webhooks of a workspace that are or were told of what is behind a position of the log."""
    condition = "workspace_id = ? AND (enabled = 1 OR until > ?)"
    return _subscriptions(tx, condition, (workspace_id, position))


def subscription(tx: Tx, webhook_id: str) -> Subscription:
    """One webhook as it is matched against events."""
    return _subscriptions(tx, "id = ?", (webhook_id,))[0]


def _subscriptions(tx: Tx, condition: str, params: Sequence[Any]) -> list[Subscription]:
    """With each, what its owner may know now."""
    found = []
    owners: dict[str, Principal] = {}
    rows = tx.all(f"SELECT id, workspace_id, rights, spans, doc FROM webhooks WHERE {condition} ORDER BY n", params)
    for webhook_id, workspace_id, rights, spans, text in rows:
        doc = json.decode(text)
        who = f"{doc['user_id']}\n{rights}"
        if who not in owners:
            owners[who] = _owner(tx, doc["user_id"], rights)
        trees = Condition(doc["filter"], doc["events"]).trees(tx, owners[who]) if doc["filter"] is not None else None
        enabled = [(begin, end) for begin, end in json.decode(spans)]
        found.append(
            Subscription(webhook_id, workspace_id, doc["project_id"], doc["events"], owners[who], trees, enabled)
        )
    return found


def _owner(tx: Tx, user_id: str, rights: str) -> Principal:
    scopes, workspace_ids, project_ids = json.decode(rights)
    live = tx.one("SELECT workspace_id FROM users WHERE id = ? AND deleted_at IS NULL", (user_id,))
    grants = identity.grants_of(tx, user_id, workspace_ids, project_ids) if live else {}
    return Principal(user_id, None, frozenset(scopes), grants, live[0] if live else None)


# ---- where to and how ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An enabled webhook as deliveries are sent to it; `closed` holds its keys, encrypted."""

    id: str
    workspace_id: str
    url: str
    headers: Mapping[str, str]
    rate_limit: int | None
    max_concurrency: int
    thin: bool
    user_id: str
    version: int
    closed: str

    def signing_keys(self, secret: bytes, now: int) -> list[str]:
        """The keys that sign at a moment (epoch ms). vault.Unreadable if they were encrypted elsewhere."""
        return _Keys.open(secret, self.id, self.closed).signing(now)


_LIVE: Final = "FROM webhooks h JOIN workspaces w ON w.id = h.workspace_id WHERE h.enabled = 1 AND w.deleted_at IS NULL"


def live_versions(tx: Tx, names: Sequence[str]) -> dict[str, int]:
    """Which of some webhooks deliveries are sent to, and their versions."""
    if not names:
        return {}
    condition, params = access.among("h.id", names, tx.dialect)
    return {name: int(version) for name, version in tx.all(f"SELECT h.id, h.version {_LIVE} AND {condition}", params)}


def endpoints(tx: Tx, names: Sequence[str] | None = None) -> list[Endpoint]:
    """The enabled webhooks of live workspaces: these, or all."""
    condition, params = ("1 = 1", []) if names is None else access.among("h.id", names, tx.dialect)
    rows = tx.all(f"SELECT h.id, h.workspace_id, h.secrets, h.doc {_LIVE} AND {condition} ORDER BY h.n", params)
    found = []
    for webhook_id, workspace_id, closed, text in rows:
        doc = json.decode(text)
        found.append(
            Endpoint(
                webhook_id, workspace_id, doc["url"], doc["headers"], doc["rate_limit"], doc["max_concurrency"],
                doc["payload"] == "thin", doc["user_id"], doc["version"], closed,
            )
        )  # fmt: skip
    return found


def is_shard(webhook_id: str, shard: int, shards: int) -> bool:
    """Whether a webhook's deliveries are sent by one of so many senders."""
    return int.from_bytes(signing.digest(b"shard", webhook_id).encode()[:8]) % shards == shard
