"""`python -m benchmarks`: compare with the peers, or question a million tasks. Prints a report and keeps it in results.

Only complete runs are written, so that what lies there can be quoted.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import compare, hostile, load, machine, million, scaling, search, streams, webhooks
from benchmarks.report import Report


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and shorter runs: a first impression")
    parser.add_argument("--million", action="store_true", help="load 1,000,000 tasks, and measure filters on them")
    parser.add_argument("--scaling", action="store_true", help="one and two processes on PostgreSQL")
    parser.add_argument(
        "--streams", action="store_true", help="1,000 streams, and readers that break off (printed only)"
    )
    parser.add_argument("--webhooks", action="store_true", help="drain a backlog of deliveries, and time single ones")
    parser.add_argument(
        "--hostile", action="store_true", help="known attacks and random large requests: how long others have to wait"
    )
    parser.add_argument("--search", action="store_true", help="what finding words of each script costs, before and now")
    parser.add_argument("--tasks", type=int, metavar="N", help="another number of tasks (the result is not written)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --million: keep the data here, and use it again")
    parser.add_argument(
        "--peers",
        metavar="A,B",
        default=",".join(compare.PEERS),
        help="measure only these (the result is not written); default: %(default)s",
    )
    given = parser.parse_args()
    if unknown := set(given.peers.split(",")) - set(compare.PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}; there are {', '.join(compare.PEERS)}")
    if given.keep and not given.million:
        parser.error("--keep is for --million")
    return given


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="bench-") as made:
            yield Path(made)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()


def main() -> None:
    given = arguments()
    if not (given.streams or given.hostile or given.search or given.webhooks):
        load.build()
    if given.scaling:
        machine.share_cores()
    else:
        machine.join_clients()
    with folder(given.keep) as data:
        if given.streams:
            print(streams.run(data))
            return
        name, report = _run(given, data)
    print(report.text)
    other_plan = given.tasks is not None or given.peers != ",".join(compare.PEERS)
    if not other_plan and (name == "quick" or not given.quick):
        report.write(name)
        print(f"Written to benchmarks/results/{name}.md and {name}.json")


def _run(given: argparse.Namespace, data: Path) -> tuple[str, Report]:
    """The report that was asked for, and the name under which a complete one is kept."""
    if given.hostile:
        return "hostile", hostile.run(data, quick=given.quick)
    if given.search:
        return "search", search.run(data, quick=given.quick)
    if given.webhooks:
        return "webhooks", webhooks.run(data, webhooks.QUICK if given.quick else webhooks.FULL)
    if given.scaling:
        return "scaling", scaling.run(data)
    if given.million:
        return "million", million.run(given.tasks or 1_000_000, data, keep=given.keep is not None)
    plan = compare.QUICK if given.quick else compare.FULL
    plan = replace(plan, tasks=given.tasks or plan.tasks)
    return "quick" if given.quick else "latest", compare.run(plan, given.peers.split(","), data)


if __name__ == "__main__":
    main()
