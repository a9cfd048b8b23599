"""The next date of a recurrence rule (RFC 5545, section 3.3.10), computed from the calendar alone.

Why computed here: the libraries take the set that BYSETPOS counts in from the start date on instead of from the whole
week, and search to the year 9999 for a day that never comes. Here each period (day, week, month or year) gives its
whole set, and the number of days that are looked at is bounded.

Dates and times are those of a clock on somebody's wall: naive datetimes. `next_in` finds the moments at which a clock
in some time zone shows them.
"""

import re
from calendar import isleap, monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import product
from math import prod
from typing import Final

from taskade_server.kit import zones
from taskade_server.kit.zones import Zone

FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
MAX_TIMES: Final = 100
"""The most times that a rule may name on one day."""
MAX_STEPS: Final = 20_000
"""The most days and periods, taken together, that a search looks at: 27 years of days for a daily rule with conditions,
centuries for a yearly one. A rule that names none of these days has no next date."""
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_NUMBER: Final = re.compile(r"([+-]?)0*([0-9]{1,3})", re.ASCII)
_WEEKDAY: Final = re.compile(r"([+-]?[0-9]{0,2})(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_UNTIL: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:T(\d{2}):?(\d{2}):?(\d{2})(Z?))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """A recurrence rule. Empty tuples stand for parts that the rule does not have.

    `weekdays` holds pairs of an ordinal (0: each one) and a weekday (0: Monday). `until` is a date, or a datetime that
    is aware (UTC) when the rule writes it with a Z. `count` is None for a rule without one.
    """

    frequency: str
    interval: int = 1
    count: int | None = None
    until: date | datetime | None = None
    week_start: int = 0
    months: tuple[int, ...] = ()
    week_numbers: tuple[int, ...] = ()
    year_days: tuple[int, ...] = ()
    month_days: tuple[int, ...] = ()
    weekdays: tuple[tuple[int, int], ...] = ()
    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()


# ---- reading a rule --------------------------------------------------------------------------------------------------

# Part: the member of Rule, the smallest and the largest number, and whether it may be counted from the end.
_NUMBERS: Final[dict[str, tuple[str, int, int, bool]]] = {
    "BYMONTH": ("months", 1, 12, False),
    "BYWEEKNO": ("week_numbers", 1, 53, True),
    "BYYEARDAY": ("year_days", 1, 366, True),
    "BYMONTHDAY": ("month_days", 1, 31, True),
    "BYHOUR": ("hours", 0, 23, False),
    "BYMINUTE": ("minutes", 0, 59, False),
    "BYSECOND": ("seconds", 0, 59, False),
    "BYSETPOS": ("positions", 1, 366, True),
}
_PARTS: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_NUMBERS)


@lru_cache(1024)
def parse(text: str) -> Rule:
    """The rule that a text such as `FREQ=WEEKLY;BYDAY=MO` stands for. ValueError says what is wrong with it."""
    pairs = [part.partition("=") for part in text.upper().removeprefix("RRULE:").split(";")]
    parts = {name: value for name, _, value in pairs}
    if len(parts) != len(pairs) or not all(name and value for name, value in parts.items()):
        raise ValueError("each part is NAME=VALUE and stands once")
    for name in parts:
        if name not in _PARTS:
            raise ValueError(f"there is no part {name[:40]}; the parts are {', '.join(_PARTS)}")
    if parts.get("FREQ") not in FREQUENCIES:
        raise ValueError("FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY")
    for name in ("INTERVAL", "COUNT"):
        if not _WHOLE.fullmatch(parts.get(name, "1")):
            raise ValueError(f"{name} must be a whole number from 1 to 999999")
    numbers = {
        member: _numbers(name, parts[name], smallest, largest, from_end)
        for name, (member, smallest, largest, from_end) in _NUMBERS.items()
        if name in parts
    }
    rule = Rule(
        frequency=parts["FREQ"],
        interval=int(parts.get("INTERVAL", "1")),
        count=int(parts["COUNT"]) if "COUNT" in parts else None,
        until=_until(parts["UNTIL"]) if "UNTIL" in parts else None,
        week_start=_week_start(parts.get("WKST", "MO")),
        weekdays=_weekdays(parts["BYDAY"], ordinals=parts["FREQ"] in ("MONTHLY", "YEARLY")) if "BYDAY" in parts else (),
        **numbers,
    )
    _check(rule, parts)
    return rule


def check_new(text: str) -> None:
    """ValueError if a rule that is written now has what only rules of long ago may have: numbers that say nothing."""
    parts = dict(part.partition("=")[::2] for part in text.upper().removeprefix("RRULE:").split(";"))
    if parts.get("FREQ") in ("DAILY", "WEEKLY") and any(character.isdigit() for character in parts.get("BYDAY", "")):
        raise ValueError("BYDAY takes numbers, as in 1MO, only with FREQ=MONTHLY or FREQ=YEARLY")


def _check(rule: Rule, parts: dict[str, str]) -> None:
    if prod(max(1, len(values)) for values in (rule.hours, rule.minutes, rule.seconds)) > MAX_TIMES:
        raise ValueError(f"a day has at most {MAX_TIMES} times")
    if rule.positions and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise ValueError("BYSETPOS chooses from what another part, such as BYDAY, names")
    if rule.week_numbers and rule.frequency != "YEARLY":
        raise ValueError("BYWEEKNO needs FREQ=YEARLY")
    if rule.week_numbers and any(ordinal for ordinal, _ in rule.weekdays):
        raise ValueError("with BYWEEKNO, BYDAY takes weekdays without a number")
    in_month = rule.frequency == "MONTHLY" or bool(rule.months)
    if in_month and any(abs(ordinal) > 5 for ordinal, _ in rule.weekdays):
        raise ValueError("a month has at most five of each weekday, so BYDAY takes numbers up to 5 here")


def _numbers(name: str, text: str, smallest: int, largest: int, from_end: bool) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.split(","):
        match = _NUMBER.fullmatch(item)
        if match is None or not smallest <= int(match[2]) <= largest or (match[1] == "-" and not from_end):
            counted = f", or -{smallest} to -{largest} counted from the end" if from_end else ""
            raise ValueError(f"{name} takes numbers from {smallest} to {largest}{counted}")
        found.add(-int(match[2]) if match[1] == "-" else int(match[2]))
    return tuple(sorted(found))


def _weekdays(text: str, *, ordinals: bool) -> tuple[tuple[int, int], ...]:
    """The pairs of BYDAY. Only a month or a year has a first Monday: elsewhere the number says nothing."""
    found: set[tuple[int, int]] = set()
    for item in text.split(","):
        match = _WEEKDAY.fullmatch(item)
        if match is None or match[1] in ("+", "-") or not -53 <= int(match[1] or 1) <= 53 or int(match[1] or 1) == 0:
            raise ValueError("BYDAY takes MO, TU, WE, TH, FR, SA, SU, with a number as in 1MO or -1FR")
        found.add((int(match[1] or 0) if ordinals else 0, WEEKDAYS.index(match[2])))
    return tuple(sorted(found))


def _week_start(text: str) -> int:
    if text not in WEEKDAYS:
        raise ValueError("WKST is a weekday: MO, TU, WE, TH, FR, SA or SU")
    return WEEKDAYS.index(text)


def _until(text: str) -> date | datetime:
    found = _UNTIL.fullmatch(text)
    if found is None:
        raise ValueError("UNTIL is a date (20240131) or a time (20240131T103000Z)")
    day = date.fromisoformat("-".join(found.group(1, 2, 3)))
    if found[4] is None:
        return day
    return datetime.fromisoformat(f"{day}T{':'.join(found.group(4, 5, 6))}{'+00:00' if found[7] else ''}")


# ---- searching -------------------------------------------------------------------------------------------------------


def next_after(
    rule: Rule, start: datetime, *, whole_days: bool, spend: Callable[[int], None] = lambda steps: None
) -> datetime | None:
    """The first moment of a rule after `start`, which is the start of the rule (DTSTART), too; None if there is none.

    With `whole_days` the rule names dates: its times are ignored, and the result is midnight. COUNT and UNTIL are the
    caller's to apply. `spend` is called with the number of steps (days and periods) that are about to be looked at, and
    may raise.
    """
    for shown in moments(rule, start, whole_days=whole_days, spend=spend):
        if shown.date() > start.date() or (not whole_days and shown > start):
            return shown
    return None


def next_in(
    rule: Rule, start: datetime, after: int, zone: Zone, spend: Callable[[int], None] = lambda steps: None
) -> tuple[datetime, int] | None:
    """The first moment of a rule behind `after` (epoch ms) in a zone where a clock shows `start` at the rule's start.

    First what the rule names, then the moment. The two differ where the clock is set forward: a time that it skips is
    as much later (RFC 5545, section 3.3.5), perhaps even later than one that the rule names behind it.
    """
    found: tuple[datetime, int] | None = None
    reached = start
    for shown in moments(rule, start, whole_days=False, spend=spend):
        if found is not None and shown >= reached:
            break
        at = zones.moment(shown, zone)
        if shown.date() >= start.date() and at > after and (found is None or at < found[1]):
            found, reached = (shown, at), zones.local(at, zone)
            if reached <= shown:
                break
    return found


def moments(
    rule: Rule, start: datetime, *, whole_days: bool, spend: Callable[[int], None] = lambda steps: None
) -> Iterator[datetime]:
    """What a rule names, in order, from the beginning of the period that `start` lies in: some may be before `start`.

    It ends with all steps, and some days behind UNTIL, wherever that day is looked at from.
    """
    rule = completed(rule, start.date())
    last = (date.max if rule.until is None else date(*rule.until.timetuple()[:3])).toordinal() + 2
    times = [time()] if whole_days else times_of(rule, start)
    steps = 0
    for days in _periods(rule, start.date()):
        steps += len(days) + 1
        if steps > MAX_STEPS or (days and days[0].toordinal() > last):
            return
        spend(len(days) + 1)
        named = [datetime.combine(day, moment) for day in days if _names(rule, day) for moment in times]
        yield from _chosen(named, rule.positions) if rule.positions else named


def last_moment(until: date | datetime, zone: Zone) -> int:
    """The last moment (epoch ms) that a rule of times allows: of a date its end."""
    if not isinstance(until, datetime):
        return zones.end_of(until, zone) - 1
    return zones.moment(until.replace(tzinfo=None), UTC if until.tzinfo else zone)


def completed(rule: Rule, first: date) -> Rule:
    """The rule with what it leaves to its start: the day of the week, month or year."""
    if rule.year_days or rule.month_days or rule.weekdays or rule.frequency == "DAILY":
        return rule
    if rule.frequency == "WEEKLY" or rule.week_numbers:
        return replace(rule, weekdays=((0, first.weekday()),))
    if rule.frequency == "MONTHLY":
        return replace(rule, month_days=(first.day,))
    return replace(rule, months=rule.months or (first.month,), month_days=(first.day,))


def times_of(rule: Rule, start: datetime) -> list[time]:
    """The times of a day that a rule names: what it leaves open is that of its start."""
    named = product(rule.hours or (start.hour,), rule.minutes or (start.minute,), rule.seconds or (start.second,))
    return [time(hour, minute, second, start.microsecond) for hour, minute, second in named]


def _chosen(moments: list[datetime], positions: tuple[int, ...]) -> list[datetime]:
    places = {position - 1 if position > 0 else len(moments) + position for position in positions}
    return [moment for place, moment in enumerate(moments) if place in places]


def _periods(rule: Rule, first: date) -> Iterator[list[date]]:
    """For each period from that of `first` on, in order: the days that may be named."""
    step = _STEPS[rule.frequency]
    for index in range(MAX_STEPS):
        try:
            yield step(rule, first, index * rule.interval)
        except (ValueError, OverflowError):  # beyond the year 9999
            return


def _day(rule: Rule, first: date, ahead: int) -> list[date]:
    return [first + timedelta(ahead)]


def _week(rule: Rule, first: date, ahead: int) -> list[date]:
    behind = (first.weekday() - rule.week_start) % 7
    begin = first.toordinal() - behind + 7 * ahead
    return [date.fromordinal(day) for day in range(max(begin, 1), min(begin + 7, date.max.toordinal() + 1))] or _over()


def _month(rule: Rule, first: date, ahead: int) -> list[date]:
    months = first.year * 12 + first.month - 1 + ahead
    return _days_of_month(rule, months // 12, months % 12 + 1)


def _year(rule: Rule, first: date, ahead: int) -> list[date]:
    year = first.year + ahead
    if year > MAXYEAR:
        return _over()
    return [day for month in range(1, 13) for day in _days_of_month(rule, year, month)]


def _over() -> list[date]:
    raise OverflowError


def _days_of_month(rule: Rule, year: int, month: int) -> list[date]:
    """The days of a month, without those that BYMONTH or BYMONTHDAY exclude."""
    if year > MAXYEAR:
        return _over()
    if rule.months and month not in rule.months:
        return []
    last = monthrange(year, month)[1]
    if not rule.month_days:
        return [date(year, month, day) for day in range(1, last + 1)]
    named = {day if day > 0 else last + 1 + day for day in rule.month_days}
    return [date(year, month, day) for day in sorted(named) if 1 <= day <= last]


_STEPS: Final[dict[str, Callable[[Rule, date, int], list[date]]]] = {
    "DAILY": _day,
    "WEEKLY": _week,
    "MONTHLY": _month,
    "YEARLY": _year,
}


# ---- what a rule names -----------------------------------------------------------------------------------------------


def _names(rule: Rule, day: date) -> bool:
    """Whether every part of a completed rule holds for a day. What excludes most days at least cost is asked first."""
    weekday = day.weekday()
    ordinals = [ordinal for ordinal, named in rule.weekdays if named == weekday]
    if (rule.weekdays and not ordinals) or (rule.months and day.month not in rule.months):
        return False
    if rule.month_days and not _is_named(day.day, monthrange(day.year, day.month)[1], rule.month_days):
        return False
    if rule.year_days and not _is_named(*_day_of_year(day), rule.year_days):
        return False
    if any(ordinals) and 0 not in ordinals:
        in_month = rule.frequency == "MONTHLY" or bool(rule.months)
        place, length = (day.day, monthrange(day.year, day.month)[1]) if in_month else _day_of_year(day)
        if (place - 1) // 7 + 1 not in ordinals and -((length - place) // 7 + 1) not in ordinals:
            return False
    return not rule.week_numbers or _is_named(*_week_number(day, rule.week_start), rule.week_numbers)


def _day_of_year(day: date) -> tuple[int, int]:
    """The number of a day in its year, and how many days that year has."""
    return day.toordinal() - date(day.year, 1, 1).toordinal() + 1, 365 + isleap(day.year)


def _is_named(number: int, length: int, named: tuple[int, ...]) -> bool:
    """Whether a number from 1 to `length` is among numbers that count from the start or (negative) from the end."""
    return number in named or number - length - 1 in named


def _week_number(day: date, week_start: int) -> tuple[int, int]:
    """The number of the week of a day, and how many weeks that year of weeks has.

    As in ISO 8601, with any weekday as the first: a week belongs to the year in which most of its days lie.
    """
    # The fourth day of a week lies in the year that the week belongs to.
    middle = day.toordinal() - (day.weekday() - week_start) % 7 + 3
    year = date.fromordinal(min(max(middle, 1), date.max.toordinal())).year
    begin = _first_week(year, week_start)
    end = _first_week(year + 1, week_start) if year < MAXYEAR else begin + 52 * 7
    return (middle - begin) // 7 + 1, (end - begin) // 7


@lru_cache(128)
def _first_week(year: int, week_start: int) -> int:
    """The ordinal of the day on which the first week of a year begins: the week that has 4 January in it."""
    fourth = date(year, 1, 4)
    return fourth.toordinal() - (fourth.weekday() - week_start) % 7
