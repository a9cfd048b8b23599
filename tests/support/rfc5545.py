"""An oracle for recurrence rules: RFC 5545, section 3.3.10, read literally, without any care for speed.

It shares nothing with the server: it expands and limits sets step by step, in the order of the table of the RFC, where
the server asks of each day whether all parts of a rule hold for it. And it finds the moment of a local time by trying
all offsets that a zone has around it, where the server trusts `datetime`.
"""

import heapq
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

NAMES = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


@cache
def zone(name: str) -> ZoneInfo:
    """A time zone as the pinned data has it, whatever the machine knows."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def shown(moment: datetime, place: ZoneInfo) -> datetime:
    """What a clock in the zone shows at a moment."""
    return moment.astimezone(place).replace(tzinfo=None, fold=0)


def moment_of(local: datetime, place: ZoneInfo) -> datetime:
    """The moment of a local time (section 3.3.5).

    "If the local time described occurs more than once", it is the first; if it does not occur, it is read with "the
    UTC offset before the gap".
    """
    near = local.replace(tzinfo=UTC)
    offsets = _offsets(local.date(), place)
    there = sorted(near - offset for offset in offsets if shown(near - offset, place) == local)
    return there[0] if there else near - offsets[0]


@cache
def _offsets(day: date, place: ZoneInfo) -> list[timedelta]:
    """The offsets that a zone has around a day, in the order in which they come."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    found: list[timedelta] = []
    for hours in range(-42, 43, 3):
        offset = (noon + timedelta(hours=hours)).astimezone(place).utcoffset()
        if offset is not None and offset not in found:
            found.append(offset)
    return found


def moments(rule: str, due: datetime, place: ZoneInfo, years: int) -> Iterator[datetime]:
    """All moments of a rule behind `due` (its DTSTART, aware), each once, in the order in which they come.

    Local times that a clock skips are later than they look, perhaps later than others of the same day: so all local
    times of the day of `due` are looked at, and some of the next day before one is told.
    """
    waiting: list[datetime] = []
    last = due
    for local in occurrences(rule, shown(due, place), years, whole_day=True):
        now = moment_of(local, place)
        while waiting and waiting[0] < now - timedelta(hours=26):
            if waiting[0] > last:
                last = waiting[0]
                yield last
            heapq.heappop(waiting)
        heapq.heappush(waiting, now)
    while waiting:
        found = heapq.heappop(waiting)
        if found > last:
            last = found
            yield found


def occurrences(rule: str, start: datetime, years: int, *, whole_day: bool = False) -> Iterator[datetime]:
    """All moments of a rule from `start` (its DTSTART) on, in order, for about so many years.

    With `whole_day` those of the day of the start that are before it, too.
    """
    first = datetime(start.year, start.month, start.day) if whole_day else start
    parts = dict(part.split("=") for part in rule.split(";"))
    interval = int(parts.get("INTERVAL", "1"))
    wkst = NAMES.index(parts.get("WKST", "MO"))
    frequency = parts["FREQ"]
    for number, (begin, end) in enumerate(_intervals(frequency, start.date(), wkst, years)):
        if number % interval:
            continue
        days = _expand(parts, frequency, begin, end, start.date(), wkst)
        moments = sorted({moment for day in days for moment in _expand_times(parts, day, start)})
        if "BYSETPOS" in parts:
            picked = set()
            for text in parts["BYSETPOS"].split(","):
                place = int(text)
                if abs(place) <= len(moments):
                    picked.add(moments[place - 1 if place > 0 else place])
            moments = sorted(picked)
        yield from (moment for moment in moments if moment >= first)


def _intervals(frequency: str, first: date, wkst: int, years: int) -> Iterator[tuple[date, date]]:
    """Consecutive intervals of the frequency, as first and last day, from the one that holds the first day."""
    if frequency == "DAILY":
        begin = first
    elif frequency == "WEEKLY":
        begin = first
        while begin.weekday() != wkst:
            begin -= timedelta(days=1)
    elif frequency == "MONTHLY":
        begin = first.replace(day=1)
    else:
        begin = first.replace(month=1, day=1)
    stop = first.year + years
    while begin.year <= stop:
        if frequency == "DAILY":
            following = begin + timedelta(days=1)
        elif frequency == "WEEKLY":
            following = begin + timedelta(days=7)
        elif frequency == "MONTHLY":
            following = (begin + timedelta(days=31)).replace(day=1)
        else:
            following = begin.replace(year=begin.year + 1)
        yield begin, following - timedelta(days=1)
        begin = following


def _all_days(begin: date, end: date) -> list[date]:
    return [begin + timedelta(days=offset) for offset in range((end - begin).days + 1)]


def _expand(parts: dict[str, str], frequency: str, begin: date, end: date, first: date, wkst: int) -> set[date]:
    """The days of one interval. Each part in turn limits the set, or is what it is expanded by."""
    days = set(_all_days(begin, end))
    if "BYMONTH" in parts:
        months = {int(text) for text in parts["BYMONTH"].split(",")}
        days = {day for day in days if day.month in months}
    if "BYWEEKNO" in parts:
        wanted = {int(text) for text in parts["BYWEEKNO"].split(",")}
        days = {day for day in days if _in_weeks(day, wanted, wkst)}
    if "BYYEARDAY" in parts:
        days = {
            day for day in days for text in parts["BYYEARDAY"].split(",") if day == _nth_of_year(day.year, int(text))
        }
    if "BYMONTHDAY" in parts:
        days = {day for day in days for text in parts["BYMONTHDAY"].split(",") if day == _nth_of_month(day, int(text))}
    if "BYDAY" in parts:
        days = {day for day in days for text in parts["BYDAY"].split(",") if _is_weekday(parts, frequency, day, text)}
    return days & _from_start(parts, frequency, days, first)


def _from_start(parts: dict[str, str], frequency: str, days: set[date], first: date) -> set[date]:
    """What DTSTART decides where the rule says nothing."""
    if {"BYYEARDAY", "BYMONTHDAY", "BYDAY"} & parts.keys():
        return days
    if frequency == "WEEKLY" or "BYWEEKNO" in parts:
        return {day for day in days if day.weekday() == first.weekday()}
    if frequency == "MONTHLY" or (frequency == "YEARLY" and "BYMONTH" in parts):
        return {day for day in days if day.day == first.day}
    if frequency == "YEARLY":
        return {day for day in days if (day.month, day.day) == (first.month, first.day)}
    return days


def _is_weekday(parts: dict[str, str], frequency: str, day: date, text: str) -> bool:
    if NAMES[day.weekday()] != text[-2:]:
        return False
    ordinal = text[:-2]
    if not ordinal:
        return True
    if frequency == "MONTHLY" or "BYMONTH" in parts:
        begin = day.replace(day=1)
        end = (begin + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    else:
        begin, end = date(day.year, 1, 1), date(day.year, 12, 31)
    alike = _alike(begin, end, day.weekday())
    place = int(ordinal)
    return abs(place) <= len(alike) and alike[place - 1 if place > 0 else place] == day


@cache
def _alike(begin: date, end: date, weekday: int) -> list[date]:
    return [day for day in _all_days(begin, end) if day.weekday() == weekday]


def _nth_of_year(year: int, number: int) -> date | None:
    found = (
        date(year, 1, 1) + timedelta(days=number - 1) if number > 0 else date(year, 12, 31) + timedelta(days=number + 1)
    )
    return found if found.year == year else None


def _nth_of_month(day: date, number: int) -> date | None:
    begin = day.replace(day=1)
    following = (begin + timedelta(days=31)).replace(day=1)
    found = begin + timedelta(days=number - 1) if number > 0 else following + timedelta(days=number)
    return found if begin <= found < following else None


@cache
def _weeks_of(year: int, wkst: int) -> list[date]:
    """The first days of the weeks of a year: week one is the first with at least four days in the year."""
    begin = date(year, 1, 1)
    while begin.weekday() != wkst:
        begin -= timedelta(days=1)
    if sum(day.year == year for day in _all_days(begin, begin + timedelta(days=6))) < 4:
        begin += timedelta(days=7)
    found = []
    while sum(day.year == year for day in _all_days(begin, begin + timedelta(days=6))) >= 4:
        found.append(begin)
        begin += timedelta(days=7)
    return found


def _in_weeks(day: date, wanted: set[int], wkst: int) -> bool:
    for year in (day.year - 1, day.year, day.year + 1):
        weeks = _weeks_of(year, wkst)
        for index, begin in enumerate(weeks):
            if begin <= day <= begin + timedelta(days=6):
                return index + 1 in wanted or index - len(weeks) in wanted
    return False


def _expand_times(parts: dict[str, str], day: date, start: datetime) -> list[datetime]:
    def named(name: str, default: int) -> list[int]:
        return [int(text) for text in parts[name].split(",")] if name in parts else [default]

    return [
        datetime(day.year, day.month, day.day, hour, minute, second, start.microsecond)
        for hour in named("BYHOUR", start.hour)
        for minute in named("BYMINUTE", start.minute)
        for second in named("BYSECOND", start.second)
    ]
