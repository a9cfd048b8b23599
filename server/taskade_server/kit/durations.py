"""Durations as ISO 8601 writes them (`P2D`, `PT5M`, `-P1M`), and the moment that lies such a time ahead or back.

Why two ways of counting: who waits for two days means the same time of day, also when the clocks are changed in
between, and who waits for two hours means two hours. Years, months, weeks and days go by the calendar of a time zone,
hours and shorter units by the time that passes; in a mixed duration the calendar comes first. A month from 31 January
is the last day of February. A local time that the clocks skip is the first moment behind the gap, one that comes twice
the first.

Relative values such as `-7d` (`time.relative`) are something else: they name a day, these keep the time of day. The day
is the same for both.
"""

import re
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from functools import lru_cache
from typing import Final

from taskade_server.kit import time, zones
from taskade_server.kit.errors import Issue
from taskade_server.kit.zones import Zone

MAX_YEARS: Final = 10
"""The longest duration. A year counts as 365.25 days here, a month as the twelfth part of it."""
FORM: Final = (
    "an ISO 8601 duration such as P2D (days), P1W (weeks), P1M (months), PT5M (minutes), PT2H (hours) or P1DT12H;"
    " hours, minutes and seconds stand behind a T, and numbers are whole"
)
_MONTH_SECONDS: Final = 2_629_800
_MAX_SECONDS: Final = MAX_YEARS * 12 * _MONTH_SECONDS
_DURATION: Final = re.compile(
    r"(-?)P(?=.)(?:([0-9]{1,9})Y)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})S)?)?",
    re.ASCII,
)
_OTHER: Final = re.compile(r"([+-]?)([0-9]{1,9})\s*(h|d|w|y|s|min|hours?|days?|weeks?|years?|minutes?)", re.ASCII)
"""How people write durations elsewhere. Nothing of a single m, which is months here and minutes there."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration in units of three kinds: months (a year has 12), days (a week has 7) and seconds.

    All of them are negative in one that goes back.
    """

    months: int = 0
    days: int = 0
    seconds: int = 0

    def __neg__(self) -> "Duration":
        return Duration(-self.months, -self.days, -self.seconds)

    @property
    def is_negative(self) -> bool:
        """Whether it goes back."""
        return min(self.months, self.days, self.seconds) < 0

    def after(self, moment: int, zone: Zone) -> int:
        """The moment (epoch ms) so long after another, by the calendar of a zone; before it if this is negative.

        Beyond the years 1 to 9999 it is the nearest moment within them.
        """
        found = self._by_calendar(moment, zone) if self.months or self.days else moment
        return min(max(found + self.seconds * 1000, time.MIN_MS), time.MAX_MS)

    def before(self, moment: int, zone: Zone) -> int:
        """The moment (epoch ms) so long before another: `after` of the duration that goes the other way."""
        return (-self).after(moment, zone)

    def _by_calendar(self, moment: int, zone: Zone) -> int:
        shown = zones.local(moment, zone)
        year = (shown.year * 12 + shown.month - 1 + self.months) // 12
        try:
            if not MINYEAR <= year <= MAXYEAR:
                raise OverflowError
            day = time.add_months(shown.date(), self.months)
            return zones.first_moment(datetime.combine(day, shown.time()) + timedelta(days=self.days), zone)
        except OverflowError:
            return time.MIN_MS if self.is_negative else time.MAX_MS


def parse(text: str) -> Duration | None:
    """The duration that a text stands for; None if it has another form, or is longer than ten years."""
    found = _read(text)
    return found if found is not None and _is_bounded(found) else None


def check(value: object, pointer: str, *, negative: bool = False) -> list[Issue]:
    """The fault of a duration in a document, if it has one. One that goes back is right only if `negative`."""
    if not isinstance(value, str):
        return [Issue("wrong_type", f"Give a text: {FORM}.", pointer=pointer)]
    found = _read(value)
    if found is None:
        return [Issue("invalid_format", f"Give {FORM}.{_suggested(value)}", pointer=pointer)]
    if not _is_bounded(found):
        return [Issue("out_of_range", f"A duration has at most {MAX_YEARS} years (P10Y, P3652D).", pointer=pointer)]
    if found.is_negative and not negative:
        detail = f"This goes forward only: write {value[1:]} without the minus sign."
        return [Issue("out_of_range", detail, pointer=pointer)]
    return []


@lru_cache(1024)
def _read(text: str) -> Duration | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    years, months, weeks, days, hours, minutes, seconds = (int(number or 0) for number in found.groups()[1:])
    duration = Duration(years * 12 + months, weeks * 7 + days, (hours * 60 + minutes) * 60 + seconds)
    return -duration if found[1] else duration


def _is_bounded(found: Duration) -> bool:
    return abs(found.months * _MONTH_SECONDS + found.days * 86_400 + found.seconds) <= _MAX_SECONDS


def _suggested(text: str) -> str:
    """A sentence with the duration that was most likely meant; empty if none comes to mind."""
    meant = text.strip().upper().removeprefix("+")
    other = _OTHER.fullmatch(text.strip().lower())
    if other is not None:
        unit = "M" if other[3].startswith("min") else other[3][0].upper()
        meant = (
            f"{other[1].removeprefix('+')}P{'T' if unit in 'HS' or other[3].startswith('min') else ''}{other[2]}{unit}"
        )
    elif re.fullmatch(r"-?P[0-9]{1,9}[HS]", meant):
        meant = meant.replace("P", "PT")
    return f" Did you mean {meant}?" if parse(meant) is not None else ""
