"""Webhooks: what somebody wants to be told, where it is sent, and what proves that it came from here.

Why a webhook keeps the rights of the key that made it: it tells its owner what happens as long as they may know it, and
never more than that key could have read. Everybody else imports from here.
"""

from taskade_server.domain.webhooks.changing import create, delete, delete_orphaned, disable, update
from taskade_server.domain.webhooks.checking import header_fault
from taskade_server.domain.webhooks.endpoint import Endpoint, endpoints, is_shard, live_versions
from taskade_server.domain.webhooks.replaying import cancel_replay, recover, replay, resend, test
from taskade_server.domain.webhooks.resources import (
    MAX_HEADERS,
    MAX_OVERLAP_HOURS,
    MAX_TOTAL_WEIGHT,
    MAX_WEBHOOKS,
    OVERLAP_HOURS,
    READER,
    WEBHOOK,
)
from taskade_server.domain.webhooks.rights import owner
from taskade_server.domain.webhooks.signing_keys import rotate, secrets
from taskade_server.domain.webhooks.subscribers import (
    existing,
    resolve_names,
    subscription,
    subscriptions,
)

__all__ = [
    "MAX_HEADERS",
    "MAX_OVERLAP_HOURS",
    "MAX_TOTAL_WEIGHT",
    "MAX_WEBHOOKS",
    "OVERLAP_HOURS",
    "READER",
    "WEBHOOK",
    "Endpoint",
    "cancel_replay",
    "create",
    "delete",
    "delete_orphaned",
    "disable",
    "endpoints",
    "existing",
    "header_fault",
    "is_shard",
    "live_versions",
    "owner",
    "recover",
    "replay",
    "resend",
    "resolve_names",
    "rotate",
    "secrets",
    "subscription",
    "subscriptions",
    "test",
    "update",
]
