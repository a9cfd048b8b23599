"""The commands for API keys: create, list and revoke."""

import json
import re
from pathlib import Path
from typing import Any

import click

from taskade_server import installation
from taskade_server.commands.options import database_options, existing, plain_errors
from taskade_server.config import ConfigError
from taskade_server.domain import identity, projects, workspaces
from taskade_server.engine import edit, query
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import time

# All that these commands write and read about, so that they start at once: the other resources need more libraries.
REGISTRY.register(
    workspaces.WORKSPACE, projects.PROJECT, projects.TEMPLATE, identity.USER, identity.MEMBER, identity.API_KEY
)


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--user", metavar="EMAIL", help="Whose key it is (or a handle); the owner by default.")
@click.option("--scopes", default="*", show_default=True, metavar="A,B", help="For example tasks:read,projects:write.")
@click.option("--expires", metavar="90d", help="Days or weeks until it expires (90d, 12w); never by default.")
@database_options
@plain_errors
def keys_create(
    name: str, user: str | None, scopes: str, expires: str | None, data: Path, database_url: str | None
) -> None:
    """Create an API key; prints the secret, and nothing else, on stdout."""
    body = {
        "name": name,
        "scopes": [scope.strip() for scope in scopes.split(",") if scope.strip()],
        "expires_at": _expiry(expires),
    }
    db, secret = installation.open_database(existing(data, database_url))
    with db:

        def unit(tx: Any) -> str:
            context, workspace_id = installation.context_of(tx, secret, user)
            values = edit.fields(identity.API_KEY, body)
            identity.check_key(context, values)
            return identity.new_key(tx, context, context.principal.user_id, workspace_id, values)[1]

        click.echo(db.write_sync(unit))


def _expiry(text: str | None) -> str | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,3})([dw])", text)
    if found is None or int(found[1]) == 0:
        raise ConfigError(f'--expires takes days or weeks such as 90d or 12w, not "{text}".')
    return time.format_ms(time.now_ms() + int(found[1]) * (7 if found[2] == "w" else 1) * time.DAY_MS)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
@database_options
@plain_errors
def keys_list(as_json: bool, data: Path, database_url: str | None) -> None:
    """List all API keys of the installation."""
    db, _ = installation.open_database(existing(data, database_url))
    with db:
        rows = db.read_sync(
            lambda tx: tx.all(
                "SELECT k.doc, COALESCE(u.email, u.handle), l.at FROM api_keys k JOIN users u ON u.id = k.user_id"
                " LEFT JOIN last_used l ON l.id = k.id ORDER BY k.n"
            )
        )
    if not rows and not as_json:
        click.echo("No keys. `taskade keys create --name NAME` makes one.", err=True)
    for text, owner, at in rows:
        key = json.loads(text)
        used = time.format_ms(at)[:16] if at else "never"
        if as_json:
            click.echo(json.dumps({**key, "last_used_at": time.format_ms(at) if at else None}))
        else:
            expires = (key["expires_at"] or "never")[:10]
            click.echo(
                f"{key['id']}  {key['name']:<24.24}  {owner:<28.28}  {','.join(key['scopes']):<24}"
                f"  expires {expires}  used {used}"
            )


@keys.command("revoke")
@click.argument("key_id", metavar="KEY")
@database_options
@plain_errors
def keys_revoke(key_id: str, data: Path, database_url: str | None) -> None:
    """Revoke a key, named by its id (key_...) or by the beginning of its secret (tsk_...)."""
    db, secret = installation.open_database(existing(data, database_url))
    wanted = "key_" + key_id.split("_")[1] if key_id.startswith("tsk_") and len(key_id) > 4 else key_id

    def unit(tx: Any) -> bool:
        row = tx.one("SELECT u.email, u.id FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = ?", (wanted,))
        if row is None:
            return False
        context, _ = installation.context_of(tx, secret, row[0])
        if query.get(tx, context.principal, identity.API_KEY, wanted) is None:
            return False
        identity.delete_key(tx, context, wanted)
        return True

    with db:
        if not db.write_sync(unit):
            raise ConfigError(f"There is no key {key_id}. `taskade keys list` shows them.")
    click.echo(f"Revoked {wanted}.", err=True)
