"""Random recurrence rules in random time zones, judged by the oracle: the server's answer and the standard's.

    python -m tests.support.recurring 100000 --seed 1

tries so many, prints what differs and how many, and ends with 1 if any do. The suite tries a few of them each time.

Why chains: the server keeps no start of a series, only the task that is due now. Four occurrences in a row, each
computed from the one before, show that nothing is lost on the way; the oracle computes all of them from the first.
"""

import argparse
import random
import sys
import time as clock
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice
from typing import NamedTuple

from taskade_server.domain import occurrences
from taskade_server.kit import zones

from tests.support import rfc5545

ZONES = (
    "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata",
    "Africa/Casablanca", "Pacific/Apia", "America/St_Johns", "Pacific/Chatham", "Antarctica/Troll", "Africa/Cairo",
    "Asia/Beirut", "America/Santiago", "Atlantic/Azores", "America/Havana", "America/Nuuk", "Pacific/Kiritimati",
    "Europe/Dublin", "Asia/Tehran", "America/Asuncion", "UTC",
)  # fmt: skip
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
CHAIN = 4
YEARS = 12


class Case(NamedTuple):
    """A task that is due, with its rule; `due` is a date or a time in UTC."""

    rule: str
    due: str
    zone: str
    until: str


def some(pick: random.Random, numbers: list[int], most: int = 3) -> str:
    """Some of the numbers, as a rule lists them."""
    return ",".join(map(str, pick.sample(numbers, pick.randint(1, min(most, len(numbers))))))


def a_rule(pick: random.Random) -> str:
    """A rule with any of the parts that the server takes, but COUNT and UNTIL."""
    frequency = pick.choice(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"])
    parts = {"FREQ": frequency}
    if pick.random() < 0.4:
        parts["INTERVAL"] = str(pick.randint(1, 5))
    if pick.random() < 0.3:
        parts["WKST"] = pick.choice(WEEKDAYS)
    if pick.random() < 0.25:
        parts["BYMONTH"] = some(pick, list(range(1, 13)))
    if frequency == "YEARLY" and pick.random() < 0.15:
        parts["BYWEEKNO"] = some(pick, [1, 2, 13, 20, 44, 51, 52, 53, -1, -2, -53])
    if frequency == "YEARLY" and pick.random() < 0.2:
        parts["BYYEARDAY"] = some(pick, [1, 59, 60, 90, 100, 300, 365, 366, -1, -100, -366])
    if frequency != "WEEKLY" and pick.random() < 0.3:
        parts["BYMONTHDAY"] = some(pick, [1, 2, 13, 15, 28, 29, 30, 31, -1, -2, -31])
    if pick.random() < 0.5:
        ordinals = frequency in ("MONTHLY", "YEARLY") and "BYWEEKNO" not in parts
        numbers = ["", "", "1", "2", "-1", "5", "-5"] if ordinals else [""]
        days = {pick.choice(numbers) + pick.choice(WEEKDAYS) for _ in range(pick.randint(1, 5))}
        parts["BYDAY"] = ",".join(sorted(days))
    if pick.random() < 0.3:
        parts["BYHOUR"] = some(pick, [*range(4), *range(4), 9, 17, 23])
    if pick.random() < 0.25:
        parts["BYMINUTE"] = some(pick, [0, 15, 30, 45, 59])
    if len(parts) > 1 and any(name.startswith("BY") for name in parts) and pick.random() < 0.3:
        parts["BYSETPOS"] = some(pick, [1, 2, 3, -1, -2], 2)
    return ";".join(f"{name}={value}" for name, value in parts.items())


@cache
def changes(place: str, begin: int, end: int) -> list[datetime]:
    """The moments of some years at which the clocks of a zone are changed, to the hour."""
    where, found = rfc5545.zone(place), []
    day = datetime(begin, 1, 1, tzinfo=UTC)
    while day.year < end:
        offsets = [(day + timedelta(hours=hour)).astimezone(where).utcoffset() for hour in range(25)]
        found += [day + timedelta(hours=hour) for hour in range(24) if offsets[hour] != offsets[hour + 1]]
        day += timedelta(days=1)
    return found


def a_case(pick: random.Random) -> Case:
    """Most are due in the days before a change of the clocks, in the hours in which it happens."""
    place = pick.choice(ZONES)
    near = changes(place, 2005, 2031)
    if near and pick.random() < 0.6:
        moment = pick.choice(near) - timedelta(days=pick.randint(0, 4), minutes=15 * pick.randint(-10, 10))
    else:
        moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=15 * pick.randint(0, 35 * 365 * 96))
    due = moment.strftime("%Y-%m-%d") if pick.random() < 0.2 else moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    until = moment + timedelta(days=pick.randint(0, 40), hours=pick.randint(0, 24))
    form = pick.choice(["", "", "", "%Y%m%d", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S"])
    return Case(a_rule(pick), due, place, until.strftime(form))


def answered(case: Case) -> list[str]:
    """The server's chain, each occurrence from the one before."""
    rule, due, found = case.rule + (f";UNTIL={case.until}" if case.until else ""), case.due, []
    for _ in range(CHAIN):
        task = {"due_date": due, "start_date": None, "completed_at": due, "recurrence_from": "due_date"}
        following = occurrences.following(task, rule, zones.get(case.zone))
        if following is None:
            break
        due, rule = following.at, following.rule
        found.append(due)
    return found


def right(case: Case) -> list[str]:
    """The oracle's: all from the first."""
    place = rfc5545.zone(case.zone)
    if len(case.due) == 10:
        start = datetime.fromisoformat(case.due)
        # "These rule parts MUST be ignored" where the start is a date (section 3.3.10).
        parts = [part for part in case.rule.split(";") if not part.startswith(("BYHOUR", "BYMINUTE", "BYSECOND"))]
        days = sorted_once(local.date() for local in rfc5545.occurrences(";".join(parts), start, years(case)))
        fitting = (str(day) for day in days if day > start.date() and day <= last_day(case))
        return list(islice(fitting, CHAIN))
    due = datetime.fromisoformat(case.due)
    found: list[str] = []
    for moment in rfc5545.moments(case.rule, due, place, years(case)):
        if len(found) == CHAIN or not is_before_the_end(case, moment):
            break
        found.append(moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    return found


def years(case: Case) -> int:
    """How many years the oracle looks at: UNTIL is some weeks away."""
    return 1 if case.until else YEARS


def sorted_once(days: Iterator[date]) -> Iterator[date]:
    """Days in order, without repetitions: a rule of dates has no times."""
    last = None
    for day in days:
        if day != last:
            yield day
        last = day


def last_day(case: Case) -> date:
    """The last day that UNTIL allows to a rule of dates."""
    if not case.until:
        return date.max
    until = datetime.strptime(case.until[:15], "%Y%m%dT%H%M%S" if "T" in case.until else "%Y%m%d")
    if case.until.endswith("Z"):
        return rfc5545.shown(until.replace(tzinfo=UTC), rfc5545.zone(case.zone)).date()
    return until.date()


def is_before_the_end(case: Case, moment: datetime) -> bool:
    """Whether UNTIL allows a moment."""
    if not case.until:
        return True
    place = rfc5545.zone(case.zone)
    if "T" not in case.until:
        return rfc5545.shown(moment, place).strftime("%Y%m%d") <= case.until
    until = datetime.strptime(case.until[:15], "%Y%m%dT%H%M%S")
    end = until.replace(tzinfo=UTC) if case.until.endswith("Z") else rfc5545.moment_of(until, place)
    return moment <= end


def differs(case: Case) -> str | None:
    """What is wrong with the server's answer; None if nothing is."""
    found, wanted = answered(case), right(case)
    if found[: len(wanted)] != wanted:
        return f"{case}\n  answered {found}\n  right    {wanted}"
    # Beyond the years that the oracle looks at the server may know more.
    horizon = str(int(case.due[:4]) + YEARS)
    if any(more < horizon for more in found[len(wanted) :]):
        return f"{case}\n  answered {found}\n  right    {wanted} and no more"
    return None


def main() -> int:
    """Try many, and say how it went."""
    parser = argparse.ArgumentParser(description="Compare recurrence with RFC 5545.")
    parser.add_argument("number", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    pick, wrong, begin = random.Random(asked.seed), 0, clock.monotonic()
    for number in range(1, asked.number + 1):
        fault = differs(a_case(pick))
        if fault:
            wrong += 1
            print(fault, flush=True)
        if number % 10_000 == 0:
            print(f"{number:,} tried, {wrong} differences, {clock.monotonic() - begin:.0f} s", flush=True)
    print(f"{asked.number:,} random rules, zones and dates: {wrong} differences (tzdata of {len(ZONES)} zones)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
