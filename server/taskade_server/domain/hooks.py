"""Webhooks: what somebody wants to be told, where it is sent, and what proves that it came from here.

Why a webhook keeps the rights of the key that made it: it tells its owner what happens as long as they may know it, and
never more than that key could have read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.domain import identity, projects
from taskade_server.engine import access, edit, events, filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change, Event
from taskade_server.engine.model import REGISTRY, Field, Relation, Resource
from taskade_server.kit import destinations, json, signing, time, vault, webhook_signatures
from taskade_server.kit.errors import Forbidden, InvalidQuery, Issue, NotFound
from taskade_server.store import cursors
from taskade_server.store.database import Tx

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
        Field("public_key", "text", "Verifies the `v1a` signatures (Ed25519).",
              "whpk_1P5BBRnlcyMm9jVYFpb5oBzvHkXnRmrL9l5QqE7XTqE=", writable=False),
    ),
    visibility="managed", trash=False, private=(("secrets", "text"), ("rights", "text"), ("since", "bigint")),
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
        "since": _begin(tx, workspace_id),
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
    private = {"since": _begin(tx, row.workspace_id)} if after["enabled"] else None
    return log.apply(tx, context.actor, [Change(WEBHOOK, "updated", after, before, row.n, private=private)])[0]


def delete(tx: Tx, context: Context, webhook_id: str) -> None:
    """End a webhook: nothing more is sent, not even what is waiting."""
    row, doc = _load(tx, context, webhook_id)
    log.apply(tx, context.actor, [Change(WEBHOOK, "deleted", dict(doc), doc, row.n)])


def disable(tx: Tx, webhook_id: str, reason: str) -> bool:
    """What the server does about an endpoint that is gone or failing; False if it was disabled already."""
    found = tx.one(f"SELECT n, doc FROM webhooks WHERE id = ?{tx.for_update}", (webhook_id,))
    before = json.decode(found[1]) if found else None
    if found is None or before is None or not before["enabled"]:
        return False
    after = {**before, "enabled": False, "disabled_reason": reason}
    _mark(after, reason)
    log.apply(tx, Actor(None), [Change(WEBHOOK, "updated", after, before, found[0], ["webhook.disabled"])])
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


def _begin(tx: Tx, workspace_id: str) -> int:
    """The seq after which a webhook that is enabled now is told of events.

    While nobody wanted any, the reader of the log has not moved; it need not read what nobody is told of.
    """
    log.lock(tx, workspace_id)
    head = log.head(tx, workspace_id)
    if tx.one("SELECT 1 FROM webhooks WHERE workspace_id = ? AND enabled = 1 LIMIT 1", (workspace_id,)) is None:
        cursors.move(tx, READER, workspace_id, head)
    return head


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
    if isinstance(hours, bool) or not isinstance(hours, int) or not 0 <= hours <= MAX_OVERLAP_HOURS:
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
        old.append((keys.secret, now + hours * 3_600_000))
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
    """An enabled webhook as it is matched against events."""

    id: str
    workspace_id: str
    project_id: str | None
    patterns: list[str]
    principal: Principal
    trees: dict[str, filters.Node] | None
    since: int
    """The head of the log when it was enabled: it is told of what happens afterwards."""

    def wants(self, event: Event) -> bool:
        """Whether an event is to be sent: of a wanted type and place, visible to the owner, and as the filter says."""
        if event.seq <= self.since or event.object_id == self.id or not events.fits(self.patterns, event.type):
            return False
        if self.project_id is not None and event.project_id != self.project_id:
            return False
        if not events.sees(self.principal, event):
            return False
        if self.trees is None:
            return True
        tree = self.trees.get(event.resource)
        return tree is not None and filters.matches(tree, REGISTRY[event.resource], json.decode(event.data))


def subscriptions(tx: Tx, workspace_id: str) -> list[Subscription]:
    """The enabled webhooks of a workspace, each with what its owner may know now."""
    found = []
    owners: dict[str, Principal] = {}
    for webhook_id, rights, since, text in tx.all(
        "SELECT id, rights, since, doc FROM webhooks WHERE workspace_id = ? AND enabled = 1 ORDER BY n",
        (workspace_id,),
    ):
        doc = json.decode(text)
        who = f"{doc['user_id']}\n{rights}"
        if who not in owners:
            owners[who] = _owner(tx, doc["user_id"], rights)
        trees = Condition(doc["filter"], doc["events"]).trees(tx, owners[who]) if doc["filter"] is not None else None
        found.append(
            Subscription(webhook_id, workspace_id, doc["project_id"], doc["events"], owners[who], trees, since)
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
    version: int
    closed: str

    def signing_keys(self, secret: bytes, now: int) -> list[str]:
        """The keys that sign at a moment (epoch ms). vault.Unreadable if they were encrypted elsewhere."""
        return _Keys.open(secret, self.id, self.closed).signing(now)


def endpoints(tx: Tx) -> list[Endpoint]:
    """All enabled webhooks of live workspaces."""
    rows = tx.all(
        "SELECT h.id, h.workspace_id, h.secrets, h.doc FROM webhooks h JOIN workspaces w ON w.id = h.workspace_id"
        " WHERE h.enabled = 1 AND w.deleted_at IS NULL ORDER BY h.n"
    )
    found = []
    for webhook_id, workspace_id, closed, text in rows:
        doc = json.decode(text)
        found.append(
            Endpoint(
                webhook_id, workspace_id, doc["url"], doc["headers"], doc["rate_limit"], doc["max_concurrency"],
                doc["version"], closed,
            )
        )  # fmt: skip
    return found


def is_shard(webhook_id: str, shard: int, shards: int) -> bool:
    """Whether a webhook's deliveries are sent by one of so many senders."""
    return int.from_bytes(signing.digest(b"shard", webhook_id).encode()[:8]) % shards == shard
