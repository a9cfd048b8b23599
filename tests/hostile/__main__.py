"""The command: `python -m tests.hostile --minutes 60 --seed 7 [--postgresql]`, which is `make hostile`.

Ends with status 1 if a fault was found. Whatever was sent is in the journal, one JSON document a line.
"""

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.hostile.run import Fuzzer, Options
from tests.support.postgres import PostgreSQL
from tests.support.processes import make_run_folder, remove
from tests.support.server import Server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--requests", type=int, default=0, help="end after so many requests")
    parser.add_argument("--seed", type=int, default=None, help="what chance begins with (default: another each time)")
    parser.add_argument(
        "--postgresql", action="store_true", help="on PostgreSQL, started for the run (default: SQLite)"
    )
    parser.add_argument("--max-standstill-ms", type=float, default=0, help="fail if /health once takes longer")
    parser.add_argument("--journal", type=Path, default=None, help="where every request is written down")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(10**6)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True)))
        journal = chosen.journal or Path(tempfile.gettempdir()) / f"hostile-{seed}.jsonl"
        url = ""
        if chosen.postgresql:
            run_folder = make_run_folder()
            stack.callback(remove, run_folder)
            postgres = PostgreSQL.of_its_own(run_folder)
            stack.callback(postgres.stop)
            url = postgres.create_database()
        server = Server(folder / "data", url).start()
        stack.callback(server.kill)
        print(f"seed {seed}, {'PostgreSQL' if url else 'SQLite'}, journal {journal}", flush=True)
        options = Options(
            seed=seed,
            seconds=chosen.minutes * 60,
            requests=chosen.requests,
            max_standstill_ms=chosen.max_standstill_ms,
            journal=journal,
        )
        outcome = Fuzzer(server, options, lambda text: print(text, flush=True)).run()
    print(f"\nlongest standstill {outcome.standstill_ms:.0f} ms, while this was under way:\n    {outcome.standstill}")
    print(f"\n{len(outcome.faults)} faults")
    for fault in outcome.faults:
        print(f"- {fault}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
