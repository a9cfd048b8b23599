"""The `taskade` command: serve, keys, migrate, demo.

Why every failure is one line and status 1: an operator at three in the morning reads the last line of a log, and a
supervisor reads the status.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from taskade_server import __version__, app, demo
from taskade_server.config import DEFAULT_DATA, DEFAULT_RATE, Config, ConfigError, check, parse_rate, prepare_folder
from taskade_server.domain import identity
from taskade_server.engine import edit, query
from taskade_server.http import openapi
from taskade_server.kit import time
from taskade_server.kit.errors import Problem
from taskade_server.store.database import StoreError, connect
from taskade_server.store.schema import migrate as run_migrations

P = ParamSpec("P")
R = TypeVar("R")


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn foreseen failures into one line on stderr and exit status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Problem as error:
            raise click.ClickException(" ".join(issue.detail for issue in error.errors) or error.detail) from error
        except (StoreError, ConfigError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error

    return run


def database_options(command: Callable[P, R]) -> Callable[P, R]:
    """--data and --database-url."""
    command = click.option("--database-url", envvar="TASKADE_DATABASE_URL", metavar="URL", show_envvar=True,
                           help="PostgreSQL instead of SQLite: postgresql://user@host/name.")(command)  # fmt: skip
    return click.option("--data", type=click.Path(path_type=Path), default=DEFAULT_DATA, envvar="TASKADE_DATA",
                        metavar="DIR",
                        show_default=True, show_envvar=True,
                        help="Folder of the SQLite database.")(command)  # fmt: skip


def configured(data: Path, database_url: str | None, **more: Any) -> Config:
    """The configuration of a command."""
    synchronous = os.environ.get("TASKADE_SQLITE_SYNCHRONOUS", "full").lower()
    return Config(data=data, database_url=database_url or None, synchronous=synchronous,
                  public_url=(os.environ.get("TASKADE_PUBLIC_URL") or "").rstrip("/") or None, **more)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="taskade")
def main() -> None:
    """The Taskade API server: workspaces, projects and tasks for programs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


@main.command()
@click.option(
    "--host",
    default="127.0.0.1",
    envvar="TASKADE_HOST",
    show_default=True,
    show_envvar=True,
    help="Address to listen on.",
)
@click.option("--port", default=8000, type=click.IntRange(0, 65535), envvar="TASKADE_PORT", show_default=True,
              show_envvar=True,
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@database_options
@click.option("--rate-limit", default=DEFAULT_RATE, envvar="TASKADE_RATE_LIMIT", metavar="off|N/minute",
              show_default=True,
              show_envvar=True, help="Requests a minute for each API key.")  # fmt: skip
@click.option("--workers", default=1, type=int, envvar="TASKADE_WORKERS", show_default=True, show_envvar=True,
              help="Server processes (more than one needs PostgreSQL).")  # fmt: skip
@plain_errors
def serve(host: str, port: int, data: Path, database_url: str | None, rate_limit: str, workers: int) -> None:
    """Serve the API. On an empty database, make an owner, a workspace and a key, and print a first request."""
    config = configured(
        data,
        database_url,
        host=host,
        port=app.free_port(host, port),
        rate_limit=parse_rate(rate_limit),
        workers=workers,
    )
    db, secret = app.open_database(config)
    key = db.write_sync(lambda tx: app.first_start(tx, secret))
    try:
        app.serve(config, db, secret, lambda: _greet(config, key))
    except OSError as error:
        raise ConfigError(f"Cannot listen on {host}:{config.port}: {error.strerror}.") from error


def _greet(config: Config, key: str | None) -> None:
    shown = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{shown}:{config.port}"
    limit = "off" if config.rate_limit is None else f"{config.rate_limit} requests a minute for each key"
    lines = [
        f"Taskade API server {__version__}",
        f"  listening   {url}",
        f"  database    {config.place}",
        f"  rate limit  {limit}",
    ]
    if key is not None:
        lines += [
            "",
            f'First start: made the owner {app.OWNER_EMAIL}, the workspace "My workspace" and an API key.',
            "The key is shown only this once:",
            "",
            f"  {key}",
            "",
            "Try it in another terminal:",
            "",
            f'  curl -H "Authorization: Bearer {key}" {url}/v1/projects',
            "",
        ]
    click.echo("\n".join(lines))
    sys.stdout.flush()


@main.group()
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
    db, secret = app.open_database(_existing(data, database_url))
    with db:

        def unit(tx: Any) -> str:
            context, workspace_id = app.context_of(tx, secret, user)
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


def _existing(data: Path, database_url: str | None) -> Config:
    """The configuration of a command that works on a database which is there already."""
    config = configured(data, database_url)
    if config.database_url is None and not Path(config.target).exists():
        raise ConfigError(
            f"There is no database in {data}; start `taskade serve --data {data}` once, or give its folder with --data."
        )
    return config


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
@database_options
@plain_errors
def keys_list(as_json: bool, data: Path, database_url: str | None) -> None:
    """List all API keys of the installation."""
    db, _ = app.open_database(_existing(data, database_url))
    with db:
        rows = db.read_sync(
            lambda tx: tx.all(
                "SELECT k.doc, u.email, l.at FROM api_keys k JOIN users u ON u.id = k.user_id"
                " LEFT JOIN last_used l ON l.id = k.id ORDER BY k.n"
            )
        )
    if not rows and not as_json:
        click.echo("No keys. `taskade keys create --name NAME` makes one.", err=True)
    for text, email, at in rows:
        key = json.loads(text)
        used = time.format_ms(at)[:16] if at else "never"
        if as_json:
            click.echo(json.dumps({**key, "last_used_at": time.format_ms(at) if at else None}))
        else:
            expires = (key["expires_at"] or "never")[:10]
            click.echo(
                f"{key['id']}  {key['name']:<24.24}  {email or '-':<28.28}  {','.join(key['scopes']):<24}"
                f"  expires {expires}  used {used}"
            )


@keys.command("revoke")
@click.argument("key_id", metavar="KEY")
@database_options
@plain_errors
def keys_revoke(key_id: str, data: Path, database_url: str | None) -> None:
    """Revoke a key, named by its id (key_...) or by the beginning of its secret (tsk_...)."""
    db, secret = app.open_database(_existing(data, database_url))
    wanted = "key_" + key_id.split("_")[1] if key_id.startswith("tsk_") and len(key_id) > 4 else key_id

    def unit(tx: Any) -> bool:
        row = tx.one("SELECT u.email, u.id FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = ?", (wanted,))
        if row is None:
            return False
        context, _ = app.context_of(tx, secret, row[0])
        if query.get(tx, context.principal, identity.API_KEY, wanted) is None:
            return False
        identity.delete_key(tx, context, wanted)
        return True

    with db:
        if not db.write_sync(unit):
            raise ConfigError(f"There is no key {key_id}. `taskade keys list` shows them.")
    click.echo(f"Revoked {wanted}.", err=True)


@main.command()
@database_options
@plain_errors
def migrate(data: Path, database_url: str | None) -> None:
    """Bring the database to this version's schema (serve does so by itself)."""
    config = configured(data, database_url)
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    with connect(config.target) as db:
        applied = run_migrations(db)
    click.echo("\n".join(f"applied {name}" for name in applied) if applied else "The schema is up to date.")


@main.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI document of the API."""
    click.echo(openapi.render(), nl=False)


@main.command("demo")
@database_options
@plain_errors
def demo_command(data: Path, database_url: str | None) -> None:
    """Fill the database with a workspace that looks like real work: 5 people, 6 projects, 200 tasks."""
    config = configured(data, database_url)
    db, secret = app.open_database(config)
    with db:
        key = db.write_sync(lambda tx: app.first_start(tx, secret))
        summary = db.write_sync(lambda tx: demo.load(tx, app.context_of(tx, secret, None)[0], demo.build()))
    click.echo(summary)
    if key is not None:
        click.echo(f"\nThe owner's API key, shown only this once:\n\n  {key}\n")


if __name__ == "__main__":
    main()
