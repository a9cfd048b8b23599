"""Handing a value out to what sends a request with it."""

from taskade_server.kit import json, vault
from taskade_server.kit.destinations import Refused, plain_host
from taskade_server.kit.errors import Clash, Forbidden, NotFound
from taskade_server.store.database import Tx


def require_host(tx: Tx, workspace_id: str, name: str, host: str) -> tuple[str, str]:
    """The id and the sealed value of a secret that may be sent to a host (as a URL has it, without the port).

    NotFound if the live workspace has no secret of that name, Forbidden if the host is none of its hosts. Both name the
    secret, and tell what an admin can do about it.
    """
    found = tx.one(
        "SELECT s.id, s.sealed, s.doc FROM secrets s JOIN workspaces w ON w.id = s.workspace_id"
        " WHERE s.workspace_id = ? AND s.name = ? AND w.deleted_at IS NULL",
        (workspace_id, name),
    )
    if found is None:
        raise NotFound(f'There is no secret "{name[:80]}" in the workspace; an admin can create it with POST /secrets.')
    hosts = json.decode(found[2])["hosts"]
    try:
        allowed = plain_host(host) in hosts
    except Refused:
        allowed = False
    if not allowed:
        raise Forbidden(
            f'The secret "{name}" may be sent to {", ".join(hosts)} only, and this request goes to "{host[:253]}".'
            " An admin of the workspace who has the value can add the host to the secret's hosts."
        )
    return str(found[0]), str(found[1])


def open_for(tx: Tx, context_secret: bytes, workspace_id: str, name: str, host: str) -> str:
    """The value of a secret, for a request to a host; `context_secret` is the secret of the installation.

    NotFound and Forbidden as in `require_host`; Clash if the value was sealed under another secret of the installation.
    """
    secret_id, sealed = require_host(tx, workspace_id, name, host)
    try:
        return vault.open(context_secret, secret_id, sealed)
    except vault.Unreadable as error:
        detail = f'The value of the secret "{name}" was encrypted with a key that is gone: PATCH it with the value.'
        raise Clash(detail) from error
