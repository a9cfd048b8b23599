"""From an API key to the principal that it stands for."""

import ipaddress
from collections.abc import Iterable

from taskade_server.domain.identity.grants import grants_of
from taskade_server.engine.access import Principal
from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import Unauthenticated
from taskade_server.store.database import Tx


def authenticate(tx: Tx, secret: bytes, token: str) -> tuple[Principal, list[str], int | None]:
    """Return the principal of an API key, its allowed networks and its expiry (epoch ms); or raise Unauthenticated."""
    parsed = signing.parse_key(token)
    if parsed is None:
        raise Unauthenticated(
            "This is not an API key of this server: its form or checksum is wrong. Was it copied whole?"
        )
    return _principal_of(tx, parsed.id, signing.digest(secret, token))


def holder(tx: Tx, key_id: str) -> tuple[Principal, list[str], int | None]:
    """Return the principal of a key that was authenticated before, with its allowed networks and expiry (epoch ms).

    Unauthenticated if the key is no longer good.
    """
    return _principal_of(tx, key_id, None)


def _principal_of(tx: Tx, key_id: str, digest: str | None) -> tuple[Principal, list[str], int | None]:
    row = tx.one(
        "SELECT k.hash, k.doc, k.expires_at, u.id, u.timezone FROM api_keys k JOIN users u ON u.id = k.user_id"
        " WHERE k.id = ? AND u.deleted_at IS NULL",
        (key_id,),
    )
    if row is None or (digest is not None and row[0] != digest):
        raise Unauthenticated("This API key does not exist or was revoked.")
    key = json.decode(row[1])
    if row[2] is not None and row[2] <= time.now_ms():
        raise Unauthenticated(f"This API key expired at {key['expires_at']}.")
    grants = grants_of(tx, row[3], key["workspace_ids"], key["project_ids"])
    # The oldest membership. The workspace that invited the user has it until they leave: whoever adds them again later
    # must not get what they create elsewhere without naming a workspace.
    home = next((name for name in grants if grants[name].live), None)
    principal = Principal(row[3], key_id, frozenset(key["scopes"]), grants, home, key["rate_limit"], row[4])
    return principal, key["allowed_ips"], row[2]


def ip_allowed(networks: Iterable[str], address: str) -> bool:
    """Whether an address lies in one of the networks (an empty list allows all)."""
    rules = list(networks)
    if not rules:
        return True
    try:
        client = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(client in ipaddress.ip_network(rule, strict=False) for rule in rules)
