"""The command that tries on a machine what is promised."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from taskade_server.commands.options import plain_errors
from taskade_server.config import observing
from taskade_server.kit import logs
from taskade_server.selftest import kill, suite
from taskade_server.selftest.parts import Options


@click.command("selftest")
@click.argument("parts", nargs=-1, metavar="[PART]...", type=click.Choice([*suite.PARTS]))
@click.option(
    "--crash", is_flag=True, help=f"The long record of crashes ({', '.join(suite.CRASH)}): a quarter of an hour."
)
@click.option("--long", is_flag=True, help="Every part at length.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="How often each part tries; by default its own.")
@click.option(
    "--tasks",
    type=click.IntRange(0),
    metavar="N",
    help=f"Tasks that are there before the kills; {kill.TASKS:,} at length, otherwise none.",
)
@click.option("--seed", type=int, metavar="N", help="Repeats what another run asked for, if not its timing.")
@click.option("--database-url", metavar="URL", help="PostgreSQL for kill and once, in schemas of their own.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON document on stdout.")
@plain_errors
def selftest(
    parts: tuple[str, ...],
    crash: bool,
    long: bool,
    rounds: int | None,
    tasks: int | None,
    seed: int | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Try on this machine that nothing acknowledged is lost, whatever happens. It never touches your data.

    Without a PART all of them are tried.
    """
    settings = observing(os.environ, sys.stderr.isatty())
    logs.configure(settings.log_format, settings.log_level)
    names = parts or (suite.CRASH if crash else tuple(suite.PARTS))
    number = secrets.randbelow(1_000_000) if seed is None else seed
    said = suite.Progress(sys.stderr)
    options = Options(number, long=long or crash, rounds=rounds, tasks=tasks, database_url=database_url or "", say=said)
    with _ended_by_sigterm():
        reports = suite.run(names, options, suite.PARTS)
    said.clear()
    click.echo(suite.document(reports, number) if as_json else suite.table(reports, number, suite.PARTS))
    if any(report.faults for report in reports):
        raise SystemExit(1)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End at a SIGTERM as after an error, so that each part takes the servers that it has started with it."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # to be told twice must not keep a part from cleaning up
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
