"""What a sender of deliveries needs to know of webhooks: their addresses, headers and keys.

The sending itself is in `consumers.sender`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from taskade_server.domain.webhooks.signing_keys import SigningKeys
from taskade_server.engine import access
from taskade_server.kit import json, signing
from taskade_server.store.database import Tx


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
        return SigningKeys.open(secret, self.id, self.closed).signing(now)


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
                id=webhook_id,
                workspace_id=workspace_id,
                url=doc["url"],
                headers=doc["headers"],
                rate_limit=doc["rate_limit"],
                max_concurrency=doc["max_concurrency"],
                thin=doc["payload"] == "thin",
                user_id=doc["user_id"],
                version=doc["version"],
                closed=closed,
            )
        )
    return found


def is_shard(webhook_id: str, shard: int, shards: int) -> bool:
    """Whether a webhook's deliveries are sent by the sender number `shard` of `shards`."""
    return int.from_bytes(signing.digest(b"shard", webhook_id).encode()[:8]) % shards == shard
