"""The commands that look after a database: backup, restore, check, upgrade, new-secret and demo."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import Any

import click

from taskade_server import demo, installation
from taskade_server.commands.options import configured, database_options, existing, plain_errors
from taskade_server.config import Config, ConfigError, check, given_secret, kept_secret, prepare_folder
from taskade_server.domain import soundness
from taskade_server.engine import check as checks
from taskade_server.engine import renewal
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import time
from taskade_server.store import backup, schema
from taskade_server.store.database import Database, connect


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--without-secret", is_flag=True, help="Leave the installation's secret out; keep it elsewhere then.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@database_options
@plain_errors
def backup_command(file: Path, without_secret: bool, force: bool, data: Path, database_url: str | None) -> None:
    """Write a verified backup to FILE, while servers go on."""
    _back_up(existing(data, database_url), file, force=force, with_secret=not without_secret)


def _back_up(config: Config, file: Path, **options: bool) -> None:
    began, given = monotonic(), given_secret()
    if given is None and config.database_url is None and options["with_secret"]:
        kept_secret(config.secret_file)  # or it is said what is wrong with it
    contents = backup.save(
        config.target,
        file,
        secret_file=config.secret_file,
        given=given,
        damage=checks.damage,
        progress=_progress(),
        **options,
    )
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


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Keep an SQLite database that is there aside, and take its place.")
@click.option(
    "--move",
    is_flag=True,
    help="Nothing was written after the backup: clients go on with the positions and tokens they have.",
)
@database_options
@plain_errors
def restore_command(file: Path, force: bool, move: bool, data: Path, database_url: str | None) -> None:
    """Bring a backup back, into an empty folder or an empty PostgreSQL database, whichever it came from."""
    config, began = configured(data, database_url), monotonic()
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    words = {item.table: partial(_words, item) for item in REGISTRY.values() if item.search}
    contents = backup.restore(
        file,
        config.target,
        secret_file=config.secret_file,
        words=words,
        damage=checks.damage,
        renew=renewal.renew,
        force=force,
        move=move,
        progress=_progress(),
    )
    click.echo(
        f"{config.location}: restored the backup of {contents.made_at}, verified, in {monotonic() - began:.1f} s"
    )
    _describe(contents)
    given = given_secret()
    if given and backup.fingerprint(given) != contents.secret:
        click.echo("  TASKADE_SECRET is not the secret of this backup: its API keys will not work.")
    elif not given and not contents.has_secret and not _knows_secret(config, contents):
        click.echo("  The backup holds no secret: bring back its own before a server starts, or no API key will work.")


def _words(resource: Resource, doc: str) -> str:
    return resource.search_text(json.loads(doc))


def _knows_secret(config: Config, contents: backup.Contents) -> bool:
    if config.database_url is not None:
        return False
    return backup.fingerprint(kept_secret(config.secret_file)) == contents.secret != ""


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@database_options
@plain_errors
def check_command(as_json: bool, data: Path, database_url: str | None) -> None:
    """Look for damage, while servers go on; exit status 1 if there is any."""
    config = existing(data, database_url)
    findings: list[checks.Finding] = []

    def look(finding: checks.Finding) -> None:
        findings.append(finding)
        if not as_json:
            click.echo(f"{'FAULTY' if finding.faults else 'ok':<8}{finding.name:<12}{finding.looked_at}")
            for fault in finding.faults:
                click.echo(f"          - {fault}")

    def unit(tx: Any) -> None:
        findings.clear()
        for finding in soundness.run(tx):
            look(finding)

    with connect(config.target, patient=True) as db:
        db.read_sync(unit, snapshot=True)
        look(_secret_finding(config, db))
    sound = not any(finding.faults for finding in findings)
    if as_json:
        click.echo(
            json.dumps({"database": config.location, "sound": sound, "checks": [asdict(one) for one in findings]})
        )
    else:
        click.echo(f"{config.location} is sound." if sound else f"{config.location} is not sound.")
    sys.exit(0 if sound else 1)


def _secret_finding(config: Config, db: Database) -> checks.Finding:
    """Whether the secret is the one that the database was used with."""
    faults = []
    try:
        known, secret = installation.present_secret(config, db)
        if secret is None and known is not None:
            faults = ["it is missing: put it back, or restore a backup that holds it"]
        elif secret is not None and known not in (None, backup.fingerprint(secret)):
            faults = ["it is another one, with which no API key works: put the right one back"]
    except ConfigError as error:
        faults = [str(error)]
    return checks.Finding("secret", "that it is the one this database was used with", faults)


@click.command("new-secret")
@database_options
@plain_errors
def new_secret(data: Path, database_url: str | None) -> None:
    """Go on without a secret that is lost for good: API keys and webhooks made before do not work any more.

    It takes the secret that is there, or makes one. Then make keys with `taskade keys create`.
    """
    installation.replace_secret(existing(data, database_url))
    click.echo("The database is used with this secret from now on. Make new API keys, and delete the old webhooks.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--backup",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to put the backup; by default beside an SQLite database.",
)
@click.option("--no-backup", is_flag=True, help="Do without one, because there is another.")
@click.option(
    "--texts",
    is_flag=True,
    help="Look at the words and the sort keys of all rows again, because servers of an older version wrote.",
)
@database_options
@plain_errors
def upgrade(
    dry_run: bool, file: Path | None, no_backup: bool, texts: bool, data: Path, database_url: str | None
) -> None:
    """Bring the database to this version's schema, after a backup (serve does so by itself, without one)."""
    config = configured(data, database_url)
    check(config)
    if config.database_url is None and not dry_run:
        prepare_folder(config.data)
    current, missing = _schema_of(config)
    if not missing:
        click.echo(f"The schema is up to date ({current}).")
        if not dry_run:
            _renew(config, texts)
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
        renewal.renew(db, _progress())
        if faults := db.read_sync(checks.damage, snapshot=True):
            raise ConfigError(f"The database is damaged: {faults[0]}. `taskade check` says more.")
    click.echo("The database is sound.")


def _renew(config: Config, texts: bool) -> None:
    """Finish what a start or an upgrade has left undone; with `texts` look at all rows."""
    with connect(config.target, patient=True) as db:
        if texts:
            db.write_sync(renewal.begin_anew)
        if renewal.renew(db, _progress()):
            click.echo("The words and the sort keys of all rows are up to date.")


def _schema_of(config: Config) -> tuple[str, list[str]]:
    """The name of the database's schema, and of the migrations that it has yet to get."""
    if config.database_url is None and not Path(config.target).exists():
        return "empty", [str(step) for step in schema.shipped()]
    with connect(config.target) as db:
        missing = db.read_sync(schema.missing)
    steps = schema.shipped()
    done = len(steps) - len(missing)
    return str(steps[done - 1]) if done else "empty", [str(step) for step in missing]


@click.command("demo")
@database_options
@plain_errors
def demo_command(data: Path, database_url: str | None) -> None:
    """Fill the database with a workspace that looks like real work: 5 people, 6 projects, 200 tasks."""
    config = configured(data, database_url)
    db, secret = installation.open_database(config)
    with db:
        key = db.write_sync(lambda tx: installation.first_start(tx, secret))
        summary = db.write_sync(lambda tx: demo.load(tx, installation.context_of(tx, secret, None)[0], demo.build()))
    click.echo(summary)
    if key is not None:
        click.echo(f"\nThe owner's API key, shown only this once:\n\n  {key}")
    options = f"--data {quote(str(data))}" if database_url is None else "--database-url ..."
    click.echo(f"\nTo look at it, start a server on it, here or with make: taskade serve {options}")
