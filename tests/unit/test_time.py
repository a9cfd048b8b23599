"""Times: RFC 3339 outside, milliseconds inside; what is no time is refused with a reason."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import time

from tests.unit.examples import examples

DATES = st.dates()
MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = time.parse_ms("2024-01-31T10:30:00Z")


def ms_of(moment):
    return (moment - EPOCH) // timedelta(milliseconds=1)


@examples(200)
@given(MOMENTS)
def test_what_is_written_can_be_read(moment):
    text = time.format_ms(ms_of(moment))
    assert time.parse_ms(text) == ms_of(moment)
    assert time.normalize(text) == text
    assert len(text) == len("2024-01-15T10:30:00.000Z")


@examples(200)
@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)), OFFSETS)
def test_offsets_are_taken_into_account(moment, offset):
    moment = moment.replace(tzinfo=offset, microsecond=0)
    assert time.parse_ms(moment.isoformat()) == ms_of(moment)


@examples(200)
@given(DATES)
def test_a_date_stays_a_date_and_means_the_start_of_its_day(day):
    assert time.normalize(day.isoformat()) == day.isoformat()
    assert time.parse_ms(day.isoformat()) == time.parse_ms(f"{day.isoformat()}T00:00:00.000Z")
    assert time.day_of(time.parse_ms(day.isoformat())) == day.isoformat()


@examples(200)
@given(MOMENTS, MOMENTS)
def test_written_times_sort_as_time_goes(one, other):
    assert (time.format_ms(ms_of(one)) < time.format_ms(ms_of(other))) == (one < other)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("2024-01-15T10:30:00Z", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15t10:30:00z", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15 10:30", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15T10:30:00", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15T10:30:00.123456789Z", "2024-01-15T10:30:00.123Z"),
        ("2024-01-15T10:30:00.5Z", "2024-01-15T10:30:00.500Z"),
        ("2024-01-15T10:30:00+05:30", "2024-01-15T05:00:00.000Z"),
        ("2024-01-15T23:30:00-0200", "2024-01-16T01:30:00.000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
        ("2024-02-29", "2024-02-29"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_ways_to_write_a_time(text, normal):
    assert time.normalize(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", "today", "2024", "2024-01", "2024-1-5", "24-01-15", "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-10",
        "0000-01-01", "10000-01-01", "2024-01-15T", "2024-01-15T24:00:00Z", "2024-01-15T10:60:00Z",
        "2024-01-15T10:30:61Z", "2024-01-15T10:30:00+24:00", "2024-01-15T10:30:00Z ", " 2024-01-15", "2024-01-15\n",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "२०२४-०१-१५", "2024-01-15T१२:30:00Z", "20240115",
        "2024-W03-1", "1705314600", "2024-01-15T10Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"must|there is no"):
        time.parse_ms(text)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", "2024-01-31"),
        ("yesterday", "2024-01-30"),
        ("tomorrow", "2024-02-01"),
        ("-7d", "2024-01-24"),
        ("+2w", "2024-02-14"),
        ("+1m", "2024-02-29"),  # there is no 31st of February
        ("-1y", "2023-01-31"),
    ],
)
def test_relative_days(text, day):
    assert time.relative(text, NOW) == date.fromisoformat(day)
    assert time.moment_ms(text, NOW) == time.parse_ms(day)


def test_relative_moments():
    assert time.relative("now", NOW) == NOW
    assert time.relative("-3h", NOW) == time.parse_ms("2024-01-31T07:30:00Z")


@pytest.mark.parametrize("text", ["", "7d", "-d", "-7x", "- 7d", "-7D", "Today", "-123456d", "-७d", "+1w "])
def test_what_is_not_relative(text):
    assert time.relative(text, NOW) is None


@examples(200)
@given(
    st.dates(min_value=date(2, 1, 1), max_value=date(9990, 12, 31)),
    st.integers(-99, 99),
    st.sampled_from([("d", "days"), ("w", "weeks"), ("m", "months"), ("y", "years")]),
)
def test_relative_days_are_what_a_calendar_says(day, amount, unit):
    try:
        wanted = day + relativedelta(**{unit[1]: amount})
    except (ValueError, OverflowError):
        return
    assert time.relative(f"{amount:+}{unit[0]}", time.parse_ms(day.isoformat()) + 3_600_000) == wanted


@pytest.mark.parametrize("text", ["-99999d", "-99999w", "-99999m", "-99999y", "+99999y", "+99999m", "+99999h"])
def test_far_away_days_are_no_error(text):
    assert (time.moment_ms(text, NOW) < NOW) == text.startswith("-")


@examples(200)
@given(DATES, st.integers(-3000, 3000))
def test_adding_days(day, amount):
    try:
        wanted = day + timedelta(days=amount)
    except OverflowError:
        return
    assert time.add_days(day.isoformat(), amount) == wanted.isoformat()
    assert time.add_days(f"{day.isoformat()}T08:15:00.000Z", amount) == f"{wanted.isoformat()}T08:15:00.000Z"


def test_a_small_step_back_of_the_clock_is_bridged(a_clock):
    before = time.now_ms()
    a_clock.offset_ms = -time.BRIDGED_MS
    assert time.now_ms() == before
    a_clock.offset_ms = 1
    assert time.now_ms() == before + 1


@pytest.mark.parametrize("ahead", [time.BRIDGED_MS + 1, 3_600_000, 31 * time.DAY_MS])
def test_a_clock_that_was_ahead_is_followed_back(a_clock, caplog, ahead):
    before, steps = time.now_ms(), time.steps_back()
    a_clock.offset_ms = ahead
    assert time.now_ms() == before + ahead
    a_clock.offset_ms = 0
    assert [time.now_ms(), time.now_ms()] == [before, before]
    assert time.steps_back() == steps + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
