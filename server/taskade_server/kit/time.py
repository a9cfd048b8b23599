"""Times as epoch milliseconds inside, RFC 3339 outside; dates stay dates.

Why integers: they compare the same in Python, SQLite and PostgreSQL, take eight bytes in an index and have no time zone
to forget. Which moments a date means is a question of somebody's time zone (`zones`); without one it is UTC's.
The system's clock may jump: small steps back are bridged, so that times do not run backwards for no reason; a large one
means that the clock was wrong before, and is followed. What keeps a time that lies ahead has to bear with either.
"""

import logging
import re
import threading
import time
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from taskade_server.kit import zones
from taskade_server.kit.zones import Zone

DAY_MS: Final = zones.DAY_MS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?([Zz]|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_RELATIVE: Final = re.compile(r"([+-]\d{1,5})([hdwmy])", re.ASCII)

BRIDGED_MS: Final = 5_000
"""A clock that steps back by no more stands still until it has caught up; by more, and it is followed."""

logger: Final = logging.getLogger("taskade")
_lock = threading.Lock()
_last = 0
_steps = 0


def now_ms() -> int:
    """The current time in epoch milliseconds. Within the process it steps back only if the clock does so by much."""
    global _last, _steps
    with _lock:
        now = time.time_ns() // 1_000_000
        back = _last - now
        if back > BRIDGED_MS:
            _steps += 1
        _last = max(_last, now) if back <= BRIDGED_MS else now
        found = _last
    if back > BRIDGED_MS:
        logger.warning("The clock was set back by %.1f seconds; times follow it.", back / 1000)
    return found


def steps_back() -> int:
    """How often the clock was set back by so much that it was followed: a reason to look again at times ahead."""
    return _steps


@lru_cache(1024)
def format_ms(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 UTC with milliseconds: `2024-01-15T10:30:00.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return (
        f"{moment.strftime('%Y-%m-%dT%H:%M:%S') if moment.year >= 1000 else moment.isoformat()[:19]}.{ms % 1000:03d}Z"
    )


def to_datetime(ms: int) -> datetime:
    """Epoch milliseconds as an aware datetime in UTC, for libraries that want one."""
    return _EPOCH + timedelta(milliseconds=ms)


def is_date(text: str) -> bool:
    """Whether the text is a date without a time (`2024-02-30` has the form but is refused by `parse_ms`)."""
    return len(text) == 10 and _DATE.fullmatch(text) is not None


@lru_cache(4096)
def parse_ms(text: str) -> int:
    """A date or an RFC 3339 time as epoch milliseconds; without an offset it is UTC. ValueError says what is wrong."""
    if is_date(text):
        return _date_ms(text)
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("must be a date (2024-01-31) or a time (2024-01-31T10:30:00Z)")
    day, hour, minute, second, fraction, zone = found.groups()
    start = _date_ms(day)
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        raise ValueError(f"there is no such time of day: {hour}:{minute}:{second or '00'}")
    ms = start + ((int(hour) * 60 + int(minute)) * 60 + min(int(second or 0), 59)) * 1000
    ms += int((fraction or "0").ljust(3, "0")[:3])
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            raise ValueError(f"there is no such offset: {zone}")
        ms -= sign * (hours * 60 + minutes) * 60_000
    if not MIN_MS <= ms <= MAX_MS:
        raise ValueError("must lie between the years 1 and 9999")
    return ms


@lru_cache(4096)
def normalize(text: str) -> str:
    """The canonical form of a date or time: dates as they are, times in UTC with milliseconds."""
    ms = parse_ms(text)
    return text if is_date(text) else format_ms(ms)


def relative(text: str, now: int, zone: Zone = UTC) -> int | date | None:
    """What `today`, `yesterday`, `tomorrow`, `now`, `-7d`, `+2w`, `-3h` mean: a moment, or a day in the zone.

    None for another text.
    """
    if text == "now":
        return now
    named = {"today": 0, "yesterday": -1, "tomorrow": 1}.get(text)
    found = None if named is not None else _RELATIVE.fullmatch(text)
    if named is None and found is None:
        return None
    amount, unit = (named or 0, "d") if found is None else (int(found[1]), found[2])
    if unit == "h":
        return now + amount * 3_600_000
    today = zones.day_of(now, zone)
    if unit in "dw":
        wanted = today.toordinal() + amount * (7 if unit == "w" else 1)
        return date.fromordinal(min(max(wanted, 1), date.max.toordinal()))
    return add_months(today, amount * (12 if unit == "y" else 1))


def meant(text: str, now: int, zone: Zone = UTC) -> int | date:
    """What a time, a date or a relative value means: a moment, or a day in the zone. ValueError for another text."""
    found = relative(text, now, zone)
    if found is not None:
        return found
    ms = parse_ms(text)
    return day(text) if is_date(text) else ms


def moment_ms(text: str, now: int, zone: Zone = UTC) -> int:
    """Return what a time, a date or a relative value means as epoch milliseconds: of a day its beginning in the zone.

    ValueError for another text.
    """
    found = meant(text, now, zone)
    return zones.start_of(found, zone) if isinstance(found, date) else found


def day(text: str) -> date:
    """A date as a date; ValueError says what is wrong."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such day: {text}") from error


def add_days(text: str, days: int) -> str:
    """A date or time moved by whole days, in its canonical form."""
    ms = parse_ms(text) + days * DAY_MS
    return format_ms(ms)[:10] if is_date(text) else format_ms(ms)


def add_months(day: date, months: int) -> date:
    """The same day some months later, or earlier if negative: the last of that month if it is too short.

    It stays within the years 1 to 9999.
    """
    year, month = divmod(min(max(day.year * 12 + day.month - 1 + months, 12), 9999 * 12 + 11), 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def day_of(ms: int) -> str:
    """The UTC date of a time."""
    return format_ms(ms)[:10]


def _date_ms(text: str) -> int:
    return (day(text).toordinal() - zones.EPOCH_DAY) * DAY_MS


MIN_MS: Final = _date_ms("0001-01-01")
MAX_MS: Final = _date_ms("9999-12-31") + DAY_MS - 1
"""The last moment that can be written."""
