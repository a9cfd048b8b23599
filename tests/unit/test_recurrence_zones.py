"""Recurrence in time zones: against the oracle, and on every day from 2024 to 2030 on which a clock is changed."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import zones

from tests.support import recurring, rfc5545
from tests.unit.examples import examples
from tests.unit.occurring import following, next_due

SOME = (
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "America/Santiago",
    "Africa/Cairo",
)
CHANGES = [(name, day) for name in SOME for day in recurring.changes(name, 2024, 2031)]


def utc(moment):
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@examples(150)
@given(st.integers(0, 10**9))
def test_occurrences_are_those_of_the_standard_in_any_zone(seed):
    assert recurring.differs(recurring.a_case(random.Random(seed))) is None


def test_the_zones_have_as_many_changes_as_the_law_says():
    counted = {name: sum(one == name for one, _ in CHANGES) for name in SOME}
    none = {"America/Sao_Paulo": 0, "Asia/Kolkata": 0}
    casablanca = counted.pop("Africa/Casablanca")  # it has given it up by a late law, which the data may not know yet
    assert casablanca >= 5
    assert counted == dict.fromkeys(counted, 14) | none


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=lambda value: str(value)[:16])
def test_a_daily_task_keeps_its_local_time_through_every_change_of_the_clocks(name, change):
    place = rfc5545.zone(name)
    day = rfc5545.shown(change, place).replace(hour=0, minute=0) - timedelta(days=2)
    for minutes in range(0, 24 * 60, 15):
        local = day + timedelta(minutes=minutes)
        due, rule, found = utc(rfc5545.moment_of(local, place)), "FREQ=DAILY", []
        for _ in range(4):
            made = following(rule, due, name)
            assert made is not None
            due, rule = made.at, made.rule
            found.append(due)
        wanted = [rfc5545.moment_of(local + timedelta(days=number), place) for number in range(1, 5)]
        assert found == [utc(moment) for moment in wanted], local


@pytest.mark.parametrize("name", [*SOME, "Pacific/Apia", "America/Havana", "America/St_Johns"])
def test_days_begin_and_end_where_a_clock_says(name):
    """By looking at the clock each quarter of an hour for some days around each change."""
    place = rfc5545.zone(name)
    for change in recurring.changes(name, 2010, 2031):
        begin = change - timedelta(days=2)
        moments = [begin + timedelta(minutes=15 * number) for number in range(4 * 24 * 4)]
        for moment, following_one in pairwise(moments):
            today, tomorrow = (rfc5545.shown(one, place).date() for one in (moment, following_one))
            ms = int(moment.timestamp() * 1000)
            assert zones.day_of(ms, zones.get(name)) == today
            assert zones.local(ms, zones.get(name)) == rfc5545.shown(moment, place)
            if tomorrow > today and name != "America/St_Johns":  # there it was at one minute past midnight
                start = int(following_one.timestamp() * 1000)
                assert zones.start_of(tomorrow, zones.get(name)) == start, (moment, tomorrow)
                assert zones.end_of(today, zones.get(name)) in (start, zones.start_of(today + timedelta(1), place))


@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_have_days_in_all_zones(name, day):
    there, one = zones.get(name), datetime.fromisoformat(day).date()
    assert zones.start_of(one, there) < zones.end_of(one, there)


@pytest.mark.parametrize("day", ["0001-01-01", "0001-01-02", "9999-12-30", "9999-12-31"])
def test_the_first_and_the_last_days_begin_and_end_in_every_zone(day):
    one = datetime.fromisoformat(day).date()
    for name in zones.names():
        there = zones.get(name)
        begin, end = zones.start_of(one, there), zones.end_of(one, there)
        # The offset is what it was, or will be, all that time: no clock is changed there.
        hours = (end - begin) / 3_600_000
        assert (hours == 24) if day != "9999-12-31" else (hours >= 24), name
        for ms in (begin, begin + 1, end - 1, end):
            assert abs((zones.day_of(ms, there) - one).days) <= 1, name


# ---- what people write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "due", "rule", "wanted"),
    [
        ("America/New_York", "2026-11-30T20:00-05:00", "FREQ=WEEKLY;BYDAY=MO", "2026-12-08T01:00:00.000Z"),
        ("Asia/Tokyo", "2026-11-30T08:00+09:00", "FREQ=WEEKLY;BYDAY=MO", "2026-12-06T23:00:00.000Z"),
        ("America/New_York", "2026-12-04T20:00-05:00", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "2026-12-08T01:00:00.000Z"),
        ("Asia/Tokyo", "2026-12-01T08:00+09:00", "FREQ=MONTHLY;BYMONTHDAY=1", "2026-12-31T23:00:00.000Z"),
        ("Asia/Tokyo", "2026-12-01T08:00+09:00", "FREQ=MONTHLY", "2026-12-31T23:00:00.000Z"),
        ("Asia/Tokyo", "2027-03-01T08:00+09:00", "FREQ=MONTHLY", "2027-03-31T23:00:00.000Z"),
        ("America/New_York", "2027-01-30T20:00-05:00", "FREQ=MONTHLY", "2027-03-31T00:00:00.000Z"),
        ("Europe/Berlin", "2026-10-20T09:00+02:00", "FREQ=WEEKLY", "2026-10-27T08:00:00.000Z"),
        ("Europe/Berlin", "2026-06-20T09:00+02:00", "FREQ=DAILY;BYHOUR=9;BYMINUTE=0", "2026-06-21T07:00:00.000Z"),
        ("America/New_York", "2026-01-04T23:30-05:00", "FREQ=DAILY;UNTIL=20260105", "2026-01-06T04:30:00.000Z"),
        ("America/New_York", "2026-01-05T23:30-05:00", "FREQ=DAILY;UNTIL=20260105", None),
        ("America/New_York", "2026-01-04T09:00-05:00", "FREQ=DAILY;UNTIL=20260105T090000", "2026-01-05T14:00:00.000Z"),
        ("America/New_York", "2026-01-04T09:00-05:00", "FREQ=DAILY;UNTIL=20260105T090000Z", None),
    ],
)
def test_a_rule_counts_in_the_zone(zone, due, rule, wanted):
    assert next_due(rule, due, zone) == wanted


def test_a_time_that_a_clock_skips_is_later_once_and_then_on_time_again():
    late = following("FREQ=DAILY", "2026-03-28T01:30:00.000Z", "Europe/Berlin")
    assert late is not None
    assert (late.at, late.rule) == ("2026-03-29T01:30:00.000Z", "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0")
    assert next_due(late.rule, late.at, "Europe/Berlin") == "2026-03-30T00:30:00.000Z"


def test_a_day_that_an_island_skips_is_no_other_weekday_from_then_on():
    late = following("FREQ=WEEKLY", "2011-12-23T19:00:00.000Z", "Pacific/Apia")  # a Friday, 09:00
    assert late is not None
    assert late.at == "2011-12-30T19:00:00.000Z" and "BYDAY=FR" in late.rule  # 31 December, 09:00
    assert next_due(late.rule, late.at, "Pacific/Apia") == "2012-01-05T19:00:00.000Z"


# ---- what moves along ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "due", "start", "wanted"),
    [
        ("FREQ=DAILY;BYHOUR=9,17", "2026-01-04T09:00Z", "2026-01-04T08:00Z",
         ["2026-01-04T16:00", "2026-01-05T08:00", "2026-01-05T16:00", "2026-01-06T08:00"]),
        ("FREQ=DAILY;BYHOUR=7,23", "2026-01-04T07:00Z", "2026-01-04",
         ["2026-01-04", "2026-01-05", "2026-01-05", "2026-01-06"]),
        ("FREQ=WEEKLY", "2026-01-04", "2026-01-02T15:00Z", ["2026-01-09T15:00", "2026-01-16T15:00"]),
        ("FREQ=MONTHLY", "2026-01-31", "2026-01-30", ["2026-03-30", "2026-05-30"]),
    ],
)  # fmt: skip
def test_the_start_keeps_its_distance(rule, due, start, wanted):
    found = []
    for _ in wanted:
        made = following(rule, due, start_date=start)
        assert made is not None
        due, rule, start = made.at, made.rule, made.moved(start)
        found.append(start[:16] if "T" in start else start)
    assert found == wanted


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=lambda value: str(value)[:16])
def test_the_start_keeps_its_distance_on_the_clock_through_every_change(name, change):
    place = rfc5545.zone(name)
    day = rfc5545.shown(change, place).replace(hour=0, minute=0)
    begin, end = day - timedelta(days=3, hours=-9), day - timedelta(days=1, hours=-17)
    due, start = utc(rfc5545.moment_of(end, place)), utc(rfc5545.moment_of(begin, place))
    made = following("FREQ=DAILY;INTERVAL=2", due, name)
    assert made is not None
    assert made.moved(start) == utc(rfc5545.moment_of(begin + timedelta(days=2), place))
    assert made.moved("2026-01-01") == "2026-01-03"


# ---- from completion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "due", "completed", "wanted"),
    [
        ("FREQ=DAILY", "2026-01-04", "2026-11-30T12:00Z", "2026-12-01"),
        ("FREQ=DAILY;INTERVAL=3", "2026-01-04", "2026-11-30T12:00Z", "2026-12-03"),
        ("FREQ=WEEKLY", "2026-01-04", "2026-11-30T12:00Z", "2026-12-07"),
        ("FREQ=WEEKLY;BYDAY=FR", "2026-01-04", "2026-11-30T12:00Z", "2026-12-04"),
        ("FREQ=DAILY", "2026-01-04", "2026-11-30T23:30Z", "2026-12-02"),  # it is 1 December there
        ("FREQ=DAILY", "2026-11-20T08:00Z", "2026-11-30T12:00Z", "2026-12-01T08:00:00.000Z"),
        ("FREQ=DAILY", "2026-07-20T07:00Z", "2026-11-30T05:00Z", "2026-12-01T08:00:00.000Z"),  # 09:00 on the clock
        ("FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0", "2026-11-20T08:00Z", "2026-11-30T12:00Z", "2026-11-30T16:00:00.000Z"),
        ("FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0", "2026-11-20T08:00Z", "2026-11-30T18:00Z", "2026-12-01T08:00:00.000Z"),
        ("FREQ=MONTHLY", None, "2026-11-30T12:00Z", "2026-12-30"),
    ],
)
def test_from_completion_in_berlin(rule, due, completed, wanted):
    assert next_due(rule, due, "Europe/Berlin", completed_at=completed, recurrence_from="completion") == wanted
