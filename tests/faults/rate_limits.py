"""Part `limits`: random schedules of requests against the rate limiter, and its bound checked in every window of each.

Why all windows: a limiter that resets on the minute holds in the windows that its author drew, and lets twice as much
through in the ones between them.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from random import Random
from typing import Final

from taskade_server.http.admission.buckets import Buckets, MemoryBuckets
from taskade_server.http.admission.limits import Charge, Limiter, Policy
from taskade_server.kit.errors import RateLimited
from taskade_server.selftest.parts import Options, Report

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
# Moments are whole microseconds, which is what a Valkey counts in.
TICK: Final = 1000
KINDS: Final = ("charge", "charge", "charge", "free", "batch", "check", "late")
THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Step:
    """After a pause (ns): a request that costs something, one that turns out `free` (a 304), or a batch.

    `during` is how long it takes until a free request or a batch is known for what it is. While a `late` one takes its
    time, the caller goes on with the next step.
    """

    kind: str
    pause: int
    cost: int = 1
    during: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one caller does, under which limit."""

    rate: int
    burst: int | None
    own_rate: int | None
    steps: Sequence[Step]

    @property
    def policy(self) -> Policy:
        return Policy("default", self.rate, self.burst)


def draw(random: Random) -> Schedule:
    """A schedule, with all that is mean about one: bursts, idle minutes, costs above the burst."""
    rate = random.choice((1, 7, 60, random.randint(1, 1000), random.randint(1, 1_000_000)))
    burst = random.choice((None, 1, random.randint(1, 50)))
    own_rate = random.choice((None, None, random.randint(1, 2000)))
    longest = random.choice((SECOND // 100, SECOND, 3 * MINUTE))
    steps = []
    for _ in range(random.randint(5, 50)):
        kind = random.choice(KINDS)
        pause = random.choice((0, 0, random.randint(0, longest)))
        cost = random.choice((1, 1, 1, random.randint(1, 3 * min(burst or rate, 1000))))
        during = random.choice((0, TICK, random.randint(0, longest)))
        steps.append(Step(kind, pause // TICK * TICK, cost, during // TICK * TICK))
    return Schedule(rate, burst, own_rate, steps)


def play(schedule: Schedule, buckets: Buckets | None = None, caller: str = "a caller") -> list[str]:
    """Let a caller do it; what was wrong, in words."""
    player = _Player(schedule, Limiter(schedule.policy, buckets), caller)
    for step in schedule.steps:
        player.do(step)
    return player.faults + excess(player.admitted, *bounds(schedule))


def bounds(schedule: Schedule) -> tuple[int, int]:
    """The rate and the burst that hold for the caller."""
    rate = schedule.rate if schedule.own_rate is None else min(schedule.own_rate, schedule.rate)
    burst = rate if schedule.burst is None else schedule.burst
    return rate, burst if schedule.own_rate is None else min(burst, rate)


def excess(admitted: Sequence[tuple[int, int]], rate: int, burst: int) -> list[str]:
    """The windows in which more was admitted than the burst (or the largest cost) and the rate allow."""
    charges = sorted(admitted)
    sums = [0, *accumulate(cost for _, cost in charges)]
    for first, (start, _) in enumerate(charges):
        largest = 0
        for last in range(first, len(charges)):
            end, cost = charges[last]
            largest = max(largest, cost)
            got = sums[last + 1] - sums[first]
            # In whole numbers: what is admitted must not exceed the bound by anything.
            if (got - max(burst, largest)) * MINUTE > rate * (end - start):
                return [f"{got} were admitted within {(end - start) / SECOND:.6f} s, at {rate} a minute, burst {burst}"]
    return []


class _Player:
    """One caller. `admitted` has the moments and costs of all that was charged for good."""

    def __init__(self, schedule: Schedule, limiter: Limiter, caller: str) -> None:
        self.faults: list[str] = []
        self.admitted: list[tuple[int, int]] = []
        self._own_rate = schedule.own_rate
        self._limiter = limiter
        self._caller = caller
        self._now = MINUTE
        self._pending: list[tuple[int, Charge]] = []

    def do(self, step: Step) -> None:
        """One step; after a refusal the step once more, at the moment for which success was promised."""
        self._pass(step.pause)
        for attempt in (1, 2):
            wait = self._try(step)
            if wait is None:
                return
            if wait < 1 or attempt == 2:
                self.faults.append(
                    f"refused with Retry-After {wait}" + (" after waiting as told" if attempt == 2 else "")
                )
                return
            self._pass(wait * SECOND)

    def _pass(self, pause: int) -> None:
        """Let time pass; what turns out free meanwhile is given back at its moment."""
        until = self._now + pause
        for due, charge in sorted((entry for entry in self._pending if entry[0] <= until), key=itemgetter(0)):
            charge.give_back(now=due)
        self._pending = [entry for entry in self._pending if entry[0] > until]
        self._now = until

    def _try(self, step: Step) -> int | None:
        begun = self._now
        try:
            if step.kind == "check":
                self._limiter.check(self._caller, self._own_rate, now=begun)
                return None
            cost = step.cost if step.kind == "charge" else 1
            charge = self._limiter.charge(self._caller, cost, self._own_rate, step.cost, now=begun)
            if step.kind == "late":
                self._pending.append((begun + step.during, charge))
            elif step.kind != "charge":
                self._pass(step.during)
                self._finish(step, charge)
        except RateLimited as refusal:
            return int(refusal.headers["retry-after"])
        if step.kind in ("charge", "batch"):
            # A batch of one is charged already when it is known to be that.
            self.admitted.append((self._now if step.cost > 1 else begun, step.cost))
        return None

    def _finish(self, step: Step, charge: Charge) -> None:
        if step.kind == "free":
            charge.give_back(now=self._now)
        else:
            charge.raise_to(step.cost, now=self._now)


def many_callers(keys: int) -> list[str]:
    """Far more callers than are kept once they are idle must not make the limiter forget who has used anything."""
    limiter = Limiter(Policy("default", 60, 2))
    limiter.charge("a caller", now=MINUTE)
    now = MINUTE + SECOND - 1  # all but a nanosecond of it is there again
    for number in range(keys):
        limiter.charge(f"caller {number}", now=now)
    try:
        limiter.charge("a caller", 2, now=now)
    except RateLimited:
        limiter.charge("a caller", 2, now=now + 1)
        return []
    return [f"{keys} other callers reset the budget of one that had used it"]


def together(limiter: Limiter, threads: int, attempts: int) -> int:
    """How many charges are admitted when threads make them at the same time, switching as often as can be."""
    admitted = [0] * threads
    gate = threading.Barrier(threads)

    def work(number: int) -> None:
        gate.wait()
        for _ in range(attempts):
            try:
                limiter.charge("a caller", now=MINUTE)
            except RateLimited:
                continue
            admitted[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    return sum(admitted)


def run(options: Options, make: Callable[[], Buckets] = MemoryBuckets) -> Report:
    """Schedules, many callers, and threads."""
    report = Report("limits")
    random = options.random("limits")
    schedules, keys = options.count(1000, 10_000), 100_000
    for number in range(1, schedules + 1):
        schedule = draw(random)
        report.faults += [f"{fault}: {schedule}" for fault in play(schedule, make())]
        if number % 1000 == 0:
            options.say(f"{number} of {schedules} schedules")
    report.faults += many_callers(keys)
    burst = 10_000
    admitted = together(Limiter(Policy("default", burst), make()), THREADS, 2 * burst // THREADS)
    if admitted != burst:
        report.faults.append(f"{THREADS} threads together got {admitted} requests instead of {burst}")
    report.figures = {"schedules": schedules, "callers at once": keys, "threads": THREADS}
    return report
