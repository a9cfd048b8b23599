"""Time zones by their IANA names: when somebody's day begins, what their clock shows, and when it shows a time.

Why the pinned `tzdata` and never the machine's own files: two processes whose machines know different rules would give
one filter two answers, and some machines know none.

Local times are naive datetimes, moments are epoch milliseconds. A local time that is skipped is read with the offset
before the gap, one that comes twice means the first (RFC 5545, section 3.3.5); `datetime` does both with `fold=0`.
What runs at a time, rather than is due then, runs when a gap is over: `first_moment`.
"""

from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

from taskade_server.kit.errors import did_you_mean

DEFAULT: Final = "UTC"
DAY_MS: Final = 86_400_000
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEGINNING: Final = -EPOCH_DAY * DAY_MS + DAY_MS
_END: Final = (date.max.toordinal() - EPOCH_DAY + 1) * DAY_MS

Zone = ZoneInfo | timezone
"""What `get` returns."""


@lru_cache(1)
def names() -> frozenset[str]:
    """All names, those that are kept for the sake of the past included."""
    listed = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(listed.split())


@lru_cache(1024)
def get(name: str) -> Zone:
    """The zone of a name; ValueError, with the nearest name, if there is none."""
    if name == DEFAULT:
        return UTC
    if name not in names():
        near = {known.lower(): known for known in names()}.get(name.lower())
        hint = f' Did you mean "{near}"?' if near else did_you_mean(name, sorted(names()))
        raise ValueError(f'there is no time zone "{name[:80]}"; give an IANA name such as Europe/Berlin.{hint}')
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def local(ms: int, zone: Zone) -> datetime:
    """What a clock in the zone shows at a moment. Beyond the years 1 to 9999 it is the nearest time within them."""
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
        return (moment if zone is UTC else moment.astimezone(zone)).replace(tzinfo=None, fold=0)
    except OverflowError:
        return datetime.min if ms < 0 else datetime.max.replace(microsecond=999_000)


def moment(shown: datetime, zone: Zone) -> int:
    """The moment at which a clock in the zone shows a time, as epoch ms."""
    offset = shown.replace(tzinfo=zone, fold=0).utcoffset() or timedelta()
    return (shown.replace(tzinfo=UTC) - _EPOCH - offset) // timedelta(milliseconds=1)


def first_moment(shown: datetime, zone: Zone) -> int:
    """The first moment (epoch ms) at which a clock in the zone shows a time, or a later one if it skips that."""
    found = moment(shown, zone)
    if zone is UTC or local(found, zone) == shown:
        return found
    # Read with the offset behind the gap, a time that is skipped lies before the gap.
    offset = shown.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
    low, high = (shown.replace(tzinfo=UTC) - _EPOCH - offset) // timedelta(milliseconds=1), found
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if local(middle, zone) > shown else (middle, high)
    return high


def next_change(after: int, until: int, zone: Zone) -> int | None:
    """The first moment (epoch ms) behind `after` at which clocks in the zone are changed; None if none by `until`.

    It looks at one moment of each day: since 1970, no zone has changed its clocks twice within six days.
    """
    if zone is UTC:
        return None
    for low in range(after, until, DAY_MS):
        begin, high = local(low, zone), min(low + DAY_MS, until)
        if local(high, zone) - begin != timedelta(milliseconds=high - low):
            start = low
            while high - low > 1:
                middle = (low + high) // 2
                same = local(middle, zone) - begin == timedelta(milliseconds=middle - start)
                low, high = (middle, high) if same else (low, middle)
            return high
    return None


def day_of(ms: int, zone: Zone) -> date:
    """The day in the zone that a moment lies in. Beyond the years 1 to 9999 it is the nearest day within them."""
    if zone is UTC:
        return date.fromordinal(min(max(ms // DAY_MS + EPOCH_DAY, 1), date.max.toordinal()))
    return local(ms, zone).date()


def start_of(day: date, zone: Zone) -> int:
    """The moment (epoch ms) at which a day begins in the zone: the first that has this date or a later one."""
    if zone is UTC:
        return (day.toordinal() - EPOCH_DAY) * DAY_MS
    return _start_of(day, zone)


def end_of(day: date, zone: Zone) -> int:
    """The moment (epoch ms) at which the day after a day begins in the zone."""
    if day < date.max:
        return start_of(day + timedelta(1), zone)
    return _END if zone is UTC else _END + DAY_MS


@lru_cache(4096)
def _start_of(day: date, zone: Zone) -> int:
    found = moment(datetime(day.year, day.month, day.day), zone)
    if local(found, zone).time() == datetime.min.time() or not _BEGINNING < found < _END:
        return found
    # Midnight is skipped: the day begins where the clock is set forward, at midnight or before.
    low, high = found - DAY_MS, found
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if local(middle, zone).date() >= day else (middle, high)
    return high
