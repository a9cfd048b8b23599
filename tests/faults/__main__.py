"""What `taskade selftest` does not try on a user's machine: guarantees between requests, rate limits, hostile clients.

python -m tests.faults                     all parts, about a minute
python -m tests.faults hostile --long      one part at length
"""

import secrets
import sys
from typing import Final

import click
from taskade_server.selftest import suite
from taskade_server.selftest.parts import Options

from tests.faults import batches, consistency, hostile_clients, rate_limits

PARTS: Final[suite.Parts] = {
    "batches": ("batches that fail in their midst, beside readers", batches.run),
    "consistency": ("what concurrent clients see, against one order of all", consistency.run),
    "limits": ("rate limits against random schedules", rate_limits.run),
    "hostile": ("a healthy client among hundreds of hostile ones", hostile_clients.run),
}


@click.command()
@click.argument("names", nargs=-1, metavar="[PART]...", type=click.Choice([*PARTS]))
@click.option("--long", is_flag=True, help="Every part at length.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="How often each part tries; by default its own.")
@click.option("--seed", type=int, metavar="N", help="Repeats what another run asked for, if not its timing.")
@click.option(
    "--database-url",
    default="",
    metavar="URL",
    help="PostgreSQL for batches, consistency and hostile, in schemas of their own.",
)
def main(names: tuple[str, ...], long: bool, rounds: int | None, seed: int | None, database_url: str) -> None:
    """Try what has to hold between requests, and among clients that mean harm. It uses servers of its own."""
    number = secrets.randbelow(1_000_000) if seed is None else seed
    said = suite.Progress(sys.stderr)
    options = Options(number, long=long, rounds=rounds, database_url=database_url, say=said)
    reports = suite.run(names or tuple(PARTS), options, PARTS)
    said.clear()
    click.echo(suite.table(reports, number, PARTS))
    if any(report.faults for report in reports):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
