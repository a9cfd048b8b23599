"""An oracle for clocks: what a clock in a zone shows, minute by minute, and what cron and a local time mean on it.

It shares nothing with the server or with any library for cron: it looks at a clock each minute, where the server
computes with offsets, and compares what it sees with the fields of an expression.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache

from tests.support import recurring, rfc5545

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Apia",
    "Africa/Casablanca",
    "UTC",
)
CHANGES = [(name, change) for name in ZONES for change in recurring.changes(name, 2024, 2031)]
MINUTE = timedelta(minutes=1)
_NAMES = {name: str(number) for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_NAMES |= {name: str(number) for number, name in enumerate(_MONTHS, 1)}


def ms(moment: datetime) -> int:
    """An aware time as epoch milliseconds."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def numbers(field: str, smallest: int, largest: int) -> set[int]:
    """The numbers that a field of cron names."""
    found: set[int] = set()
    for term in field.split(","):
        body, _, step = re.sub("[A-Z]{3}", lambda name: _NAMES[name[0]], term.upper()).partition("/")
        first, _, last = body.partition("-")
        if body == "*":
            found.update(range(smallest, largest + 1, int(step or 1)))
        else:
            end = int(last or first) if last or not step else largest
            found.update(range(int(first), end + 1, int(step or 1)))
    return found


class Cron:
    """A cron expression with numbers, names, lists, ranges and steps."""

    def __init__(self, text: str) -> None:
        minute, hour, day, month, weekday = text.split()
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days, self.months = numbers(day, 1, 31), numbers(month, 1, 12)
        self.weekdays = {number % 7 for number in numbers(weekday, 0, 7)}
        self.needs_both = day[0] == "*" or weekday[0] == "*"
        self.elapsed = "*" in minute + hour or "/" in minute

    def shows(self, shown: datetime) -> bool:
        """Whether it names what a clock shows."""
        return shown.minute in self.minutes and shown.hour in self.hours and self._names(shown)

    def _names(self, shown: datetime) -> bool:
        if shown.month not in self.months:
            return False
        of_day, of_week = shown.day in self.days, shown.isoweekday() % 7 in self.weekdays
        return (of_day and of_week) if self.needs_both else (of_day or of_week)


@cache
def walk(name: str, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute from a moment to another with what a clock in the zone shows then."""
    place = rfc5545.zone(name)
    moments = [begin + MINUTE * number for number in range((end - begin) // MINUTE + 1)]
    return [(moment, rfc5545.shown(moment, place)) for moment in moments]


def runs_of(cron: Cron, minutes: list[tuple[datetime, datetime]]) -> list[datetime]:
    """The moments within a walk at which cron runs."""
    if cron.elapsed:
        return [moment for moment, shown in minutes if cron.shows(shown)]
    return runs_at(filter(cron.shows, _places(minutes)), minutes)


def runs_at(wanted: Iterable[datetime], minutes: list[tuple[datetime, datetime]]) -> list[datetime]:
    """The moments within a walk at which something runs at local times.

    That is the first minute with that time, or with a later one if there is none: and only once for the same minute.
    """
    found: set[datetime] = set()
    for time in wanted:
        there = first_with(time, minutes)
        if there is not None:
            found.add(there)
    return sorted(found)


def first_with(time: datetime, minutes: list[tuple[datetime, datetime]]) -> datetime | None:
    """The first minute of a walk at which a clock shows a time, or has passed over it."""
    return _places(minutes).get(time)


_known: dict[int, tuple[list[tuple[datetime, datetime]], dict[datetime, datetime]]] = {}


def _places(minutes: list[tuple[datetime, datetime]]) -> dict[datetime, datetime]:
    """For each local time of a walk, in order, the moment that it means: those that are skipped are among them."""
    known = _known.get(id(minutes))
    if known is None or known[0] is not minutes:
        found: dict[datetime, datetime] = {}
        latest = minutes[0][1] - MINUTE
        for moment, shown in minutes:
            while latest < shown:
                latest += MINUTE
                found[latest] = moment
        known = _known[id(minutes)] = (minutes, found)
    return known[1]
