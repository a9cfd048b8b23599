"""The commands for the audit log: list, checkpoints, export and verify."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from taskade_server import installation
from taskade_server.commands import auditing
from taskade_server.commands.options import database_options, existing, plain_errors
from taskade_server.store.database import connect

P = ParamSpec("P")
R = TypeVar("R")


@click.group("audit")
def audit_group() -> None:
    """Show, export and verify the audit log."""


def workspace_option(command: Callable[P, R]) -> Callable[P, R]:
    """--workspace."""
    return click.option(
        "--workspace", metavar="ID", default="", help="A workspace (ws_...); the installation's own log by default."
    )(command)


@audit_group.command("list")
@workspace_option
@click.option("--outcome", type=click.Choice(["success", "denied", "failed"]), help="Only these.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
@database_options
@plain_errors
def audit_list(
    workspace: str, outcome: str | None, limit: int, as_json: bool, data: Path, database_url: str | None
) -> None:
    """Show the newest entries, newest first: by default failed logins with unknown keys."""
    with connect(existing(data, database_url).target, patient=True) as db:
        db.read_sync(partial(auditing.require_log, workspace_id=workspace))
        for entry in db.read_sync(lambda tx: auditing.entries(tx, workspace, outcome, limit)):
            click.echo(json.dumps(entry) if as_json else auditing.sentence(entry))


@audit_group.command("checkpoints")
@workspace_option
@click.option(
    "--log",
    type=click.Choice(["changes", "access"]),
    default="changes",
    show_default=True,
    help="Which of the two logs.",
)
@database_options
@plain_errors
def audit_checkpoints(workspace: str, log: str, data: Path, database_url: str | None) -> None:
    """Print the checkpoints that were signed, oldest first."""
    with connect(existing(data, database_url).target, patient=True) as db:
        db.read_sync(partial(auditing.require_log, workspace_id=workspace))
        click.echo(db.read_sync(lambda tx: auditing.checkpoints(tx, workspace, log)), nl=False)


@audit_group.command("export")
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@workspace_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON Lines prove themselves; CSV is for spreadsheets.",
)
@click.option("--from", "since", metavar="TIME", help="From this time on: 2024-01-31, 2024-01-31T10:30:00Z, -7d.")
@click.option("--to", "until", metavar="TIME", help="Before this time.")
@database_options
@plain_errors
def audit_export(
    file: Any, workspace: str, form: str, since: str | None, until: str | None, data: Path, database_url: str | None
) -> None:
    """Write the log to FILE, by default to stdout."""
    db, secret = installation.open_database(existing(data, database_url))
    with db:
        for piece in auditing.export(db, secret, workspace, form, since, until):
            file.write(piece)


@audit_group.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--checkpoint",
    "notes",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A checkpoint that was kept; repeatable.",
)
@click.option("--key", "keys_", multiple=True, metavar="KEY", help="The public key (GET /v1/audit/key); repeatable.")
@click.option("--workspace", metavar="ID", help="Only the logs of this workspace.")
@database_options
@plain_errors
def audit_verify(
    file: Path | None,
    notes: tuple[Path, ...],
    keys_: tuple[str, ...],
    workspace: str | None,
    data: Path,
    database_url: str | None,
) -> None:
    """Look for changed, removed, added and moved entries; exit status 1 if there are any.

    With FILE, an export in JSON Lines, without the server or its database.
    """
    if file is not None:
        report, remark = auditing.verify_file(file, list(keys_), list(notes))
    else:
        config, remark = existing(data, database_url), ""
        db, secret = installation.open_database(config)
        db.close_sync()
        with connect(config.target, patient=True) as db:
            db.read_sync(partial(auditing.require_log, workspace_id=workspace or ""))
            report = auditing.verify_database(db, secret, list(keys_), list(notes), workspace)
    click.echo("\n".join(auditing.lines_of(report)))
    if remark:
        click.echo(remark, err=True)
    sys.exit(1 if report.faults else 0)
