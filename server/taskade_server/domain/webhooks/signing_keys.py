"""The secrets that sign deliveries: kept encrypted, shown to their owner, and rotated.

The signatures are made in `kit.webhook_signatures`.
"""

from dataclasses import dataclass
from typing import Any

from taskade_server.domain.webhooks.checking import is_whole, secret_faults
from taskade_server.domain.webhooks.resources import MAX_OLD_SECRETS, MAX_OVERLAP_HOURS, OVERLAP_HOURS, WEBHOOK
from taskade_server.domain.webhooks.rights import load_changeable
from taskade_server.engine import edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.kit import json, time, vault, webhook_signatures
from taskade_server.kit.errors import Clash, Issue
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Tx


@dataclass(slots=True)
class SigningKeys:
    """What signs: the secret, the private key of `v1a`, and earlier secrets with the moment (epoch ms) they end."""

    secret: str
    private: str
    old: list[tuple[str, int]]

    def close(self, secret: bytes, webhook_id: str) -> str:
        return vault.close(secret, webhook_id, json.encode([self.secret, self.private, self.old]))

    @classmethod
    def open(cls, secret: bytes, webhook_id: str, closed: str) -> "SigningKeys":
        current, private, old = json.decode(vault.open(secret, webhook_id, closed))
        return cls(current, private, [(text, until) for text, until in old])

    def signing(self, now: int) -> list[str]:
        """Every key that signs now: the secret, earlier ones that have not ended, the private key."""
        return [self.secret, *(text for text, until in self.old if until > now), self.private]


def secrets(tx: Tx, context: Context, webhook_id: str) -> dict[str, Any]:
    """The secrets of a webhook, for whoever may change it."""
    row, _ = load_changeable(tx, context, webhook_id)
    return _shown(_stored(tx, context, row))


def rotate(tx: Tx, context: Context, webhook_id: str, body: Any) -> dict[str, Any]:
    """Replace the secret. The old one goes on signing beside the new one for `overlap_hours` (24 unless given)."""
    row, before = load_changeable(tx, context, webhook_id)
    body = body or {}
    issues = [] if body.get("secret") is None else secret_faults(body["secret"])
    hours = OVERLAP_HOURS if body.get("overlap_hours") is None else body["overlap_hours"]
    if not is_whole(hours) or not 0 <= hours <= MAX_OVERLAP_HOURS:
        detail = f"overlap_hours is a whole number from 0 to {MAX_OVERLAP_HOURS}."
        issues.append(Issue("out_of_range", detail, pointer="/overlap_hours"))
    unknown = set(body) - {"secret", "overlap_hours"}
    issues += [
        Issue("unknown_field", "Allowed: overlap_hours, secret.", pointer=f"/{escape_pointer(name)}")
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
    keys = SigningKeys(fresh, keys.private, old)
    private = {"secrets": keys.close(context.secret, webhook_id)}
    log.apply(tx, context.actor, [Change(WEBHOOK, "updated", dict(before), before, row.n, private=private)])
    return _shown(keys)


def _stored(tx: Tx, context: Context, row: query.Row) -> SigningKeys:
    found = tx.one("SELECT id, secrets FROM webhooks WHERE n = ?", (row.n,))
    assert found is not None
    try:
        return SigningKeys.open(context.secret, found[0], found[1])
    except vault.Unreadable as error:
        detail = "The secrets of this webhook were encrypted with a secret that is gone: delete it and make another."
        raise Clash(detail) from error


def _shown(keys: SigningKeys) -> dict[str, Any]:
    now = time.now_ms()
    old = [{"secret": text, "expires_at": time.format_ms(until)} for text, until in keys.old if until > now]
    return {
        "secret": keys.secret,
        "standard_secret": webhook_signatures.standard_form(keys.secret),
        "public_key": webhook_signatures.public_key(keys.private),
        "previous": old,
    }
