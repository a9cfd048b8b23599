"""What may be wrong with the values of a webhook."""

from collections.abc import Mapping
from typing import Any

from taskade_server.domain.webhooks.resources import MAX_HEADERS, MAX_TOTAL_WEIGHT
from taskade_server.engine import events, filters
from taskade_server.engine.edit import Context
from taskade_server.engine.subscriptions import Condition
from taskade_server.kit import destinations, json, webhook_signatures
from taskade_server.kit.errors import Issue
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, however it is written: 24 and 24.0 are the same in JSON."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def faults(tx: Tx, context: Context, values: Mapping[str, Any]) -> list[Issue]:
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
            issues.append(Issue("not_allowed", fault, pointer=f"/headers/{escape_pointer(name)}"))
    if len(values.get("headers") or {}) > MAX_HEADERS:
        issues.append(Issue("too_many", f"At most {MAX_HEADERS} headers are sent along.", pointer="/headers"))
    return issues


def settle_filter(
    tx: Tx, context: Context, values: dict[str, Any], workspace_id: str, webhook_id: str | None
) -> list[Issue]:
    """Put the filter of a webhook that is created or changed into the form that is kept, or say what is wrong with it.

    With the webhook's own, the filters of all enabled webhooks of a workspace stay within their total weight.
    """
    if values["filter"] is None:
        return []
    if refusal := filters.subscription_refusal(values["filter"]):
        return [Issue("too_expensive", refusal, pointer="/filter")]
    condition = Condition(values["filter"], values["events"])
    document, issues = condition.resolve_names(tx, context.principal)
    if not issues and condition.excludes_nothing(tx, context.principal):
        detail = "filter has no condition that could exclude an event; leave it out, or null, for all events."
        return [Issue("wrong_type", detail, pointer="/filter")]
    if issues or not values["enabled"]:
        values["filter"] = values["filter"] if issues else document
        return issues
    rows = tx.all("SELECT id, doc FROM webhooks WHERE workspace_id = ? AND enabled = 1", (workspace_id,))
    others = [json.decode(text)["filter"] for name, text in rows if name != webhook_id]
    total = sum(filters.size(found).weight for found in [document, *others] if found is not None)
    if total > MAX_TOTAL_WEIGHT:
        detail = (
            f"The filters of the workspace's enabled webhooks would have a weight of {total:,};"
            f" {MAX_TOTAL_WEIGHT:,} are allowed. Simplify or disable some of them."
        )
        return [Issue("too_expensive", detail, pointer="/filter")]
    values["filter"] = document
    return []


def header_fault(name: str, value: Any) -> str | None:
    """Why a header cannot be sent along, in one sentence; None if it can."""
    if not isinstance(value, str):
        return f"The value of the header {name[:80]} must be a string."
    lower = name.lower()
    if lower.startswith(("webhook-", "x-taskade-")) or lower in ("content-type", "user-agent", "accept"):
        return f"The header {name[:80]} is the server's own."
    return destinations.header_refusal(name, value)


def secret_faults(secret: Any) -> list[Issue]:
    if not isinstance(secret, str):
        return [Issue("wrong_type", "secret must be a string.", pointer="/secret")]
    refusal = webhook_signatures.secret_refusal(secret)
    return [Issue("invalid_format", refusal, pointer="/secret")] if refusal else []
