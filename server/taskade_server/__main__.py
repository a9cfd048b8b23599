"""The `taskade` command: serve, worker, keys, audit, backup, restore, check, upgrade, demo, and the tools.

Why every failure is one line and status 1: an operator at three in the morning reads the last line of a log, and a
supervisor reads the status.
"""

import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path
from time import monotonic
from typing import Any, ParamSpec, TypeVar

import click

from taskade_server import __version__, app, demo
from taskade_server.config import (
    DEFAULT_ANONYMOUS,
    DEFAULT_DATA,
    DEFAULT_LOGIN,
    DEFAULT_RATE,
    DELIVERY_DAYS,
    DEV_MODES,
    MAX_RATE,
    Config,
    ConfigError,
    check,
    observing,
    parse_networks,
    prepare_folder,
    rates,
    reachable,
)
from taskade_server.domain import identity
from taskade_server.engine import check as checks
from taskade_server.engine import edit, query
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.http import asyncapi, openapi
from taskade_server.http.connections import MAX_CONNECTIONS
from taskade_server.kit import logs, time
from taskade_server.kit.destinations import SETTING
from taskade_server.kit.errors import Problem
from taskade_server.selftest import kill, suite
from taskade_server.selftest.parts import Orders
from taskade_server.store import backup, schema
from taskade_server.store.database import StoreError, connect
from taskade_server.tools import auditing
from taskade_server.tools.commands import COMMANDS

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


def outbound_options(command: Callable[P, R]) -> Callable[P, R]:
    """Where requests of the server's own may go, and how long their outcome is kept."""
    command = click.option("--outbound-proxy", metavar="URL", envvar="TASKADE_OUTBOUND_PROXY", show_envvar=True,
                           help="An HTTP proxy that webhooks go through, and that vets names: http://host:port.",
                           )(command)  # fmt: skip
    days = click.option("--delivery-days", default=DELIVERY_DAYS, type=click.IntRange(1),
                        envvar="TASKADE_DELIVERY_DAYS", show_default=True, show_envvar=True,
                        help="How long deliveries to webhooks are on record after they are over.")  # fmt: skip
    return click.option("--outbound-allow", default="", metavar="NETWORKS", envvar=SETTING, show_envvar=True,
                        help="Addresses that webhooks may go to although they are not public, for example 10.1.2.3/32.",
                        )(days(command))  # fmt: skip


def dev_option(command: Callable[P, R]) -> Callable[P, R]:
    """Development mode; `--dev` alone is `--dev on`."""
    return click.option("--dev", type=click.Choice(DEV_MODES), is_flag=False, flag_value="on", default="off",
                        envvar="TASKADE_DEV", show_envvar=True,
                        help="Development mode: request bins at /dev/bin/NAME, and webhooks to this machine.",
                        )(command)  # fmt: skip


def limit_options(command: Callable[P, R]) -> Callable[P, R]:
    """What each key and each address may do, and where that is counted."""
    rate = partial(click.option, metavar="off|N/minute", show_envvar=True)
    options = (
        rate("--rate-limit", default=DEFAULT_RATE, show_default=True, envvar="TASKADE_RATE_LIMIT",
             help="Requests a minute for each API key."),
        click.option("--rate-burst", type=click.IntRange(1, MAX_RATE), metavar="N", show_envvar=True,
                     envvar="TASKADE_RATE_BURST", help="Requests a key may make at once; by default a minute's."),
        rate("--max-rate-limit", metavar="N/minute", envvar="TASKADE_MAX_RATE_LIMIT",
             help="The highest rate a key may be given of its own; by default the rate limit."),
        rate("--anonymous-limit", envvar="TASKADE_ANONYMOUS_LIMIT",
             help=f"Requests a minute without a key, for each address; by default {DEFAULT_ANONYMOUS}."),
        rate("--login-limit", envvar="TASKADE_LOGIN_LIMIT",
             help=f"Wrong keys a minute, for each address; by default {DEFAULT_LOGIN}."),
        click.option("--valkey-url", metavar="URL", envvar="TASKADE_VALKEY_URL", show_envvar=True,
                     help="Valkey or Redis, where several processes count together: valkey://host:6379/0."),
        click.option("--trusted-proxies", default="", metavar="NETWORKS", envvar="TASKADE_TRUSTED_PROXIES",
                     show_envvar=True, help="Proxies whose X-Forwarded-For is believed, for example 10.0.0.0/8."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def configured(data: Path, database_url: str | None, **more: Any) -> Config:
    """The configuration of a command."""
    synchronous = os.environ.get("TASKADE_SQLITE_SYNCHRONOUS", "full").lower()
    return Config(data=data, database_url=database_url or None, synchronous=synchronous,
                  public_url=(os.environ.get("TASKADE_PUBLIC_URL") or "").rstrip("/") or None,
                  observing=observing(os.environ, sys.stderr.isatty()), **more)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="taskade")
@plain_errors
def main() -> None:
    """The Taskade API server: workspaces, projects and tasks for programs."""
    settings = observing(os.environ, sys.stderr.isatty())
    logs.configure(settings.log_format, settings.log_level)


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
@limit_options
@outbound_options
@dev_option
@click.option("--workers", default=1, type=int, envvar="TASKADE_WORKERS", show_default=True, show_envvar=True,
              help="Server processes (more than one needs PostgreSQL).")  # fmt: skip
@click.option("--replica-url", envvar="TASKADE_REPLICA_URL", metavar="URL", show_envvar=True,
              help="A streaming replica, for reads that say with min_seq what they must see.")  # fmt: skip
@click.option("--drain-seconds", default=0.0, type=click.FloatRange(0, 3600), envvar="TASKADE_DRAIN_SECONDS",
              show_default=True, show_envvar=True,
              help="How long to go on serving, not ready any more, once told to stop.")  # fmt: skip
@click.option("--max-connections", default=MAX_CONNECTIONS, type=click.IntRange(1), envvar="TASKADE_MAX_CONNECTIONS",
              show_default=True, show_envvar=True, help="Open connections of one process.")  # fmt: skip
@click.option("--background/--no-background", default=True, envvar="TASKADE_BACKGROUND", show_default=True,
              show_envvar=True,
              help="Do background work in the server, or leave it to `taskade worker`.")  # fmt: skip
@plain_errors
def serve(
    data: Path, database_url: str | None, rate_limit: str, max_rate_limit: str | None, anonymous_limit: str | None,
    login_limit: str | None, valkey_url: str | None, trusted_proxies: str, outbound_allow: str, dev: str, **more: Any
) -> None:  # fmt: skip
    """Serve the API. On an empty database, make an owner, a workspace and a key, and print a first request."""
    limits = rates(rate_limit, max_rate_limit, anonymous_limit, login_limit)
    config = configured(
        data,
        database_url,
        **limits,
        valkey_url=valkey_url or None,
        trusted_proxies=parse_networks(trusted_proxies),
        outbound_allow=reachable(outbound_allow, dev),
        dev=dev,
        **more,
    )
    sys.exit(app.serve(config, _greet))


@main.command()
@database_options
@outbound_options
@dev_option
@plain_errors
def worker(
    data: Path, database_url: str | None, outbound_allow: str, outbound_proxy: str | None, dev: str, delivery_days: int
) -> None:
    """Do background work for the servers on the same database; start as many as you like."""
    outbound = {"outbound_allow": reachable(outbound_allow, dev), "outbound_proxy": outbound_proxy or None}
    app.work(_existing(data, database_url, **outbound, delivery_days=delivery_days))


def _greet(config: Config, key: str | None) -> None:
    shown = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{shown}:{config.port}"
    limit = "off" if config.rate_limit is None else f"{config.rate_limit} requests a minute for each key"
    if config.counts_alone:
        logging.getLogger("taskade").warning(
            "Each of the %d processes counts rate limits for itself, so that a key gets up to %d times its rate."
            " Give --valkey-url to count them together.",
            config.workers,
            config.workers,
        )
    lines = [
        f"Taskade API server {__version__}",
        f"  listening   {url}",
        f"  database    {config.place}",
        f"  rate limit  {limit}",
    ]
    if config.developing:
        lines.append(f"  development request bins at {url}/dev/bin/NAME; webhooks may go to this machine")
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


def _existing(data: Path, database_url: str | None, **more: Any) -> Config:
    """The configuration of a command that works on a database which is there already."""
    config = configured(data, database_url, **more)
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


@main.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--without-secret", is_flag=True, help="Leave the installation's secret out; keep it elsewhere then.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@database_options
@plain_errors
def backup_command(file: Path, without_secret: bool, force: bool, data: Path, database_url: str | None) -> None:
    """Write a verified backup to FILE, while servers go on."""
    _back_up(_existing(data, database_url), file, force=force, with_secret=not without_secret)


def _back_up(config: Config, file: Path, **options: bool) -> None:
    began, given = monotonic(), os.environ.get("TASKADE_SECRET", "").encode() or None
    contents = backup.save(config.target, file, secret_file=config.secret_file, given=given, damage=checks.damage,
                           progress=_progress(), **options)  # fmt: skip
    size = file.stat().st_size / (1 << 20)
    click.echo(f"{file}: {size:,.1f} MiB, {contents.schema}, verified, in {monotonic() - began:.1f} s")
    _describe(contents)
    if contents.has_secret:
        click.echo("  The installation's secret is in it: keep it where nobody else can read it.")
    else:
        kept = "TASKADE_SECRET" if given else "it was left out" if contents.secret else "there is none"
        click.echo(f"  The installation's secret is not in it ({kept}): without it API keys do not work.")


def _describe(contents: backup.Contents) -> None:
    rows = contents.rows
    click.echo("  " + ", ".join(f"{name} {rows[name]:,}" for name in ("workspaces", "projects", "tasks", "events")))
    positions = [f"{workspace_id}:{seq}" for workspace_id, seq in sorted(contents.heads.items())]
    more = f" and {len(positions) - 5:,} more" if len(positions) > 5 else ""
    click.echo(f"  log position {', '.join(positions[:5])}{more}")


def _progress() -> Callable[[str, int, int], None]:
    """Says on stderr how far a long command is, every few seconds."""
    said = monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal said
        if monotonic() - said > 3:
            said = monotonic()
            click.echo(f"  {what}: {done:,} of {total:,}" if total else f"  {what}...", err=True)

    return tell


@main.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Keep an SQLite database that is there aside, and take its place.")
@database_options
@plain_errors
def restore_command(file: Path, force: bool, data: Path, database_url: str | None) -> None:
    """Bring a backup back, into an empty folder or an empty PostgreSQL database, whichever it came from."""
    config, began = configured(data, database_url), monotonic()
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    words = {item.table: partial(_words, item) for item in REGISTRY.values() if item.search}
    contents = backup.restore(file, config.target, secret_file=config.secret_file, words=words, damage=checks.damage,
                              force=force, progress=_progress())  # fmt: skip
    click.echo(f"{config.place}: restored the backup of {contents.made_at}, verified, in {monotonic() - began:.1f} s")
    _describe(contents)
    given = os.environ.get("TASKADE_SECRET", "").encode()
    if given and backup.fingerprint(given) != contents.secret:
        click.echo("  TASKADE_SECRET is not the secret of this backup: its API keys will not work.")
    elif not given and not contents.has_secret and not _knows_secret(config, contents):
        click.echo("  The backup holds no secret: bring back its own before a server starts, or no API key will work.")


def _words(resource: Resource, doc: str) -> str:
    return resource.search_text(json.loads(doc))


def _knows_secret(config: Config, contents: backup.Contents) -> bool:
    path = config.secret_file
    return config.database_url is None and path.exists() and backup.fingerprint(path.read_bytes()) == contents.secret


@main.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@database_options
@plain_errors
def check_command(as_json: bool, data: Path, database_url: str | None) -> None:
    """Look for damage, while servers go on; exit status 1 if there is any."""
    config = _existing(data, database_url)
    findings: list[checks.Finding] = []

    def unit(tx: Any) -> None:
        findings.clear()
        for finding in checks.run(tx):
            findings.append(finding)
            if not as_json:
                click.echo(f"{'FAULTY' if finding.faults else 'ok':<8}{finding.name:<12}{finding.looked_at}")
                for fault in finding.faults:
                    click.echo(f"          - {fault}")

    with connect(config.target, patient=True) as db:
        db.read_sync(unit, snapshot=True)
    sound = not any(finding.faults for finding in findings)
    if as_json:
        click.echo(json.dumps({"database": config.place, "sound": sound, "checks": [asdict(one) for one in findings]}))
    else:
        click.echo(f"{config.place} is sound." if sound else f"{config.place} is not sound.")
    sys.exit(0 if sound else 1)


@main.group("audit")
def audit_group() -> None:
    """Show, export and verify the audit log."""


def workspace_option(command: Callable[P, R]) -> Callable[P, R]:
    """--workspace."""
    return click.option("--workspace", metavar="ID", default="",
                        help="A workspace (ws_...); the installation's own log by default.")(command)  # fmt: skip


@audit_group.command("list")
@workspace_option
@click.option("--outcome", type=click.Choice(["success", "denied", "failed"]), help="Only these.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
@database_options
@plain_errors
def audit_list(
    workspace: str, outcome: str | None, limit: int, as_json: bool, data: Path, database_url: str | None
) -> None:  # fmt: skip
    """Show the newest entries, newest first: by default failed logins with keys that nobody knows."""
    with connect(_existing(data, database_url).target, patient=True) as db:
        for entry in db.read_sync(lambda tx: auditing.entries(tx, workspace, outcome, limit)):
            click.echo(json.dumps(entry) if as_json else auditing.sentence(entry))


@audit_group.command("checkpoints")
@workspace_option
@click.option("--log", type=click.Choice(["changes", "access"]), default="changes", show_default=True,
              help="Which of the two logs.")  # fmt: skip
@database_options
@plain_errors
def audit_checkpoints(workspace: str, log: str, data: Path, database_url: str | None) -> None:
    """Print the checkpoints that were signed, oldest first."""
    with connect(_existing(data, database_url).target, patient=True) as db:
        click.echo(db.read_sync(lambda tx: auditing.checkpoints(tx, workspace, log)), nl=False)


@audit_group.command("export")
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@workspace_option
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True,
              help="JSON Lines prove themselves; CSV is for spreadsheets.")  # fmt: skip
@click.option("--from", "since", metavar="TIME", help="From this time on: 2024-01-31, 2024-01-31T10:30:00Z, -7d.")
@click.option("--to", "until", metavar="TIME", help="Before this time.")
@database_options
@plain_errors
def audit_export(
    file: Any, workspace: str, form: str, since: str | None, until: str | None, data: Path, database_url: str | None
) -> None:  # fmt: skip
    """Write the log to FILE, by default to stdout."""
    db, secret = app.open_database(_existing(data, database_url))
    with db:
        for piece in auditing.export(db, secret, workspace, form, since, until):
            file.write(piece)


@audit_group.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--checkpoint", "notes", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              metavar="FILE", help="A checkpoint that was kept; repeatable.")  # fmt: skip
@click.option("--key", "keys_", multiple=True, metavar="KEY", help="The public key (GET /v1/audit/key); repeatable.")
@click.option("--workspace", metavar="ID", help="Only the logs of this workspace.")
@database_options
@plain_errors
def audit_verify(
    file: Path | None, notes: tuple[Path, ...], keys_: tuple[str, ...], workspace: str | None, data: Path,
    database_url: str | None,
) -> None:  # fmt: skip
    """Look for changed, removed, added and moved entries; exit status 1 if there are any.

    With FILE, an export in JSON Lines, without the server or its database.
    """
    if file is not None:
        report, remark = auditing.verify_file(file, list(keys_), list(notes))
    else:
        config, remark = _existing(data, database_url), ""
        db, secret = app.open_database(config)
        db.close_sync()
        with connect(config.target, patient=True) as db:
            report = auditing.verify_database(db, secret, list(keys_), list(notes), workspace)
    click.echo("\n".join(auditing.told(report)))
    if remark:
        click.echo(remark, err=True)
    sys.exit(1 if report.faults else 0)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--backup", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Where to put the backup; by default beside an SQLite database.")  # fmt: skip
@click.option("--no-backup", is_flag=True, help="Do without one, because there is another.")
@database_options
@plain_errors
def upgrade(dry_run: bool, file: Path | None, no_backup: bool, data: Path, database_url: str | None) -> None:
    """Bring the database to this version's schema, after a backup (serve does so by itself, without one)."""
    config = configured(data, database_url)
    check(config)
    if config.database_url is None and not dry_run:
        prepare_folder(config.data)
    current, missing = _schema_of(config)
    if not missing:
        click.echo(f"The schema is up to date ({current}).")
        return
    click.echo(f"The schema is {current}, this program's is {missing[-1]}.")
    if dry_run:
        click.echo("\n".join(f"would apply {name}" for name in missing))
        return
    if current != "empty" and not no_backup:
        if file is None and config.database_url is not None:
            raise ConfigError("Make a backup first: give --backup FILE, or --no-backup if you have one of your own.")
        stamp = time.format_ms(time.now_ms())[:19].replace("-", "").replace(":", "")
        _back_up(config, file or config.data / f"before-{missing[-1]}-{stamp}Z.backup", force=False, with_secret=True)
    with connect(config.target, patient=True) as db:
        click.echo("\n".join(f"applied {name}" for name in schema.migrate(db)))
        if faults := db.read_sync(checks.damage, snapshot=True):
            raise ConfigError(f"The database is damaged: {faults[0]}. `taskade check` says more.")
    click.echo("The database is sound.")


def _schema_of(config: Config) -> tuple[str, list[str]]:
    """The name of the database's schema, and of the migrations that it has yet to get."""
    if config.database_url is None and not Path(config.target).exists():
        return "empty", [str(step) for step in schema.shipped()]
    with connect(config.target) as db:
        missing = db.read_sync(schema.missing)
    steps = schema.shipped()
    done = len(steps) - len(missing)
    return str(steps[done - 1]) if done else "empty", [str(step) for step in missing]


@main.command("selftest")
@click.argument("parts", nargs=-1, metavar="[PART]...", type=click.Choice([*suite.PARTS]))
@click.option("--crash", is_flag=True,
              help=f"The long record of crashes ({', '.join(suite.CRASH)}): a quarter of an hour.")  # fmt: skip
@click.option("--long", is_flag=True, help="Every part at length.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="How often each part tries; by default its own.")
@click.option("--tasks", type=click.IntRange(0), metavar="N",
              help=f"Tasks that are there before the kills; {kill.TASKS:,} at length, otherwise none.")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Repeats what another run asked for, if not its timing.")
@click.option("--database-url", metavar="URL",
              help="PostgreSQL for kill, batches, once and consistency, in schemas of their own.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON document on stdout.")
@plain_errors
def selftest(
    parts: tuple[str, ...], crash: bool, long: bool, rounds: int | None, tasks: int | None, seed: int | None,
    database_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Try on this machine that nothing acknowledged is lost, whatever happens. It never touches your data.

    Without a PART all of them are tried.
    """
    names = parts or (suite.CRASH if crash else tuple(suite.PARTS))
    number = secrets.randbelow(1_000_000) if seed is None else seed
    said = suite.Progress(sys.stderr)
    orders = Orders(number, long=long or crash, rounds=rounds, tasks=tasks, database_url=database_url or "", say=said)
    reports = suite.run(names, orders)
    said.clear()
    click.echo(suite.document(reports, number) if as_json else suite.table(reports, number))
    if any(report.faults for report in reports):
        raise SystemExit(1)


@main.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI document of the API."""
    click.echo(openapi.render(), nl=False)


@main.command("asyncapi")
def asyncapi_command() -> None:
    """Print the AsyncAPI document: what is received over connections that stay open."""
    click.echo(asyncapi.render(), nl=False)


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


for tool in COMMANDS:
    main.add_command(tool)


if __name__ == "__main__":
    main()
