"""Durations: their form, and where they lead, against a walk over the clock at every change from 2024 to 2030."""

import calendar
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import durations, time, zones
from taskade_server.kit.durations import Duration, parse

from tests.support import rfc5545, walked
from tests.support.walked import CHANGES, MINUTE, ZONES, ms
from tests.unit.examples import examples

MOMENTS = st.integers(time.parse_ms("1990-01-01"), time.parse_ms("2060-01-01"))


def of(text):
    found = parse(text)
    assert found is not None, text
    return found


def led(text, moment, zone):
    return time.format_ms(of(text).after(time.parse_ms(moment), zones.get(zone)))[:16]


# ---- their form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("P2D", Duration(days=2)),
        ("P1W", Duration(days=7)),
        ("P1W2D", Duration(days=9)),
        ("PT5M", Duration(seconds=300)),
        ("P5M", Duration(months=5)),
        ("P1Y6M", Duration(months=18)),
        ("P1DT12H", Duration(days=1, seconds=43_200)),
        ("-P1D", Duration(days=-1)),
        ("-P1Y2M3W4DT5H6M7S", Duration(-14, -25, -18_367)),
        ("P0D", Duration()),
        ("-P0D", Duration()),
        ("PT0S", Duration()),
        ("P010D", Duration(days=10)),
        ("P10Y", Duration(months=120)),
        ("P3652D", Duration(days=3652)),
        ("PT87660H", Duration(seconds=315_576_000)),
    ],
)
def test_what_a_text_stands_for(text, wanted):
    assert parse(text) == wanted
    assert durations.check(text, "/for", negative=True) == []


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("", None), ("P", None), ("PT", None), ("P1DT", None), ("-P", None), ("P1", None), ("PD", None),
        ("P1D1W", None), ("P1.5D", None), ("PT0,5H", None), ("P-1D", None), ("--P1D", None), ("P1D ", "P1D"),
        ("P1D\n", "P1D"), ("P\u0661D", None), ("p2d", "P2D"), ("+P1D", "P1D"), ("P5H", "PT5H"), ("P30S", "PT30S"),
        ("-7d", "-P7D"), ("7d", "P7D"), ("+2w", "P2W"), ("3h", "PT3H"), ("1y", "P1Y"), ("2 days", "P2D"),
        ("1 week", "P1W"), ("30min", "PT30M"), ("5 minutes", "PT5M"), ("2 Hours", "PT2H"), ("5m", None),
        ("PT1D", None), ("20y", None), ("P" + "9" * 5000 + "D", None),
    ],
)  # fmt: skip
def test_another_form_is_no_duration_and_the_right_one_is_told(text, suggested):
    assert parse(text) is None
    (fault,) = durations.check(text, "/for", negative=True)
    assert (fault.code, fault.pointer) == ("invalid_format", "/for")
    assert "P2D" in fault.detail and "PT5M" in fault.detail
    assert fault.detail.endswith(f" Did you mean {suggested}?" if suggested else "are whole.")


@pytest.mark.parametrize("value", [None, 5, 1.5, True, [], {}])
def test_what_is_no_text_is_told_the_form(value):
    (fault,) = durations.check(value, "/for")
    assert fault.code == "wrong_type" and "P2D" in fault.detail


@pytest.mark.parametrize(
    "text",
    ["P11Y", "P10Y1D", "P10YT1S", "P121M", "P3653D", "P522W", "PT87661H", "-P11Y", "P999999999Y", "PT999999999H"],
)
def test_ten_years_are_the_longest(text):
    assert parse(text) is None
    (fault,) = durations.check(text, "/for", negative=True)
    assert fault.code == "out_of_range" and "10 years" in fault.detail


def test_what_goes_back_is_right_only_where_it_may():
    (fault,) = durations.check("-P1D", "/for")
    assert fault.code == "out_of_range" and "P1D without the minus" in fault.detail
    assert durations.check("-P1D", "/for", negative=True) == [] == durations.check("-P0D", "/for")
    assert of("-PT1S").is_negative and not of("-P0D").is_negative and not of("P1D").is_negative


# ---- where they lead -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment", "zone", "wanted"),
    [
        ("P1D", "2026-03-28T01:30Z", "Europe/Berlin", "2026-03-29T01:00"),  # 02:30 is skipped
        ("P1D", "2026-03-27T23:30Z", "Europe/Berlin", "2026-03-28T23:30"),
        ("P1D", "2026-03-28T12:00Z", "Europe/Berlin", "2026-03-29T11:00"),
        ("PT24H", "2026-03-28T12:00Z", "Europe/Berlin", "2026-03-29T12:00"),
        ("P1D", "2026-10-24T00:30Z", "Europe/Berlin", "2026-10-25T00:30"),  # the first of two
        ("-P1D", "2026-10-26T01:30Z", "Europe/Berlin", "2026-10-25T00:30"),
        ("-P1D", "2026-03-30T00:30Z", "Europe/Berlin", "2026-03-29T01:00"),
        ("P1DT12H", "2026-03-28T12:00Z", "Europe/Berlin", "2026-03-29T23:00"),
        ("P0D", "2026-10-25T01:30Z", "Europe/Berlin", "2026-10-25T01:30"),  # the second of two stays
        ("PT1H", "2026-10-25T00:30Z", "Europe/Berlin", "2026-10-25T01:30"),
        ("P1M", "2026-01-31T12:00Z", "UTC", "2026-02-28T12:00"),
        ("P1M", "2028-01-31T12:00Z", "UTC", "2028-02-29T12:00"),
        ("P1M1D", "2026-01-31T12:00Z", "UTC", "2026-03-01T12:00"),
        ("-P1M", "2026-03-31T12:00Z", "UTC", "2026-02-28T12:00"),
        ("P1Y", "2028-02-29T12:00Z", "UTC", "2029-02-28T12:00"),
        ("-P1Y1M", "2026-01-31T12:00Z", "UTC", "2024-12-31T12:00"),
        ("P1M", "2026-01-30T23:30Z", "Europe/Berlin", "2026-02-27T23:30"),  # it is 31 January there
        ("P1D", "2011-12-29T19:00Z", "Pacific/Apia", "2011-12-30T10:00"),  # 30 December is skipped
        ("P1D", "9999-12-31T12:00Z", "UTC", "9999-12-31T23:59"),
        ("P10Y", "9999-06-30T12:00Z", "Europe/Berlin", "9999-12-31T23:59"),
        ("-P1D", "0001-01-01T12:00Z", "UTC", "0001-01-01T00:00"),
        ("PT1H", "9999-12-31T23:30Z", "Asia/Kathmandu", "9999-12-31T23:59"),
    ],
)
def test_where_a_duration_leads(text, moment, zone, wanted):
    assert led(text, moment, zone) == wanted


@pytest.mark.parametrize(("zone", "change"), CHANGES, ids=lambda value: str(value)[:16])
def test_days_lead_where_a_walk_over_the_clock_says_at_each_change(zone, change):
    begin = change - timedelta(hours=10)
    minutes = walked.walk(zone, begin, begin + timedelta(hours=20))
    there = zones.get(zone)
    local = rfc5545.shown(change, rfc5545.zone(zone)).replace(minute=0)
    for days in (1, -1, 3):
        for quarter in range(-12, 12):
            wanted = local + timedelta(minutes=15 * quarter)
            moment = rfc5545.moment_of(wanted - timedelta(days=days), rfc5545.zone(zone))
            found = time.to_datetime(Duration(days=days).after(ms(moment), there))
            assert found == walked.first_with(wanted, minutes), (days, wanted)


def later(shown, duration):
    """The local time that the calendar's part of a duration leads to, one month and one day at a time."""
    day, sign = shown.day, 1 if duration.months > 0 else -1
    year, month = shown.year, shown.month
    for _ in range(abs(duration.months)):
        month += sign
        if month in (0, 13):
            year, month = year + sign, 12 if month == 0 else 1
    found = date(year, month, min(day, calendar.monthrange(year, month)[1]))
    step = timedelta(days=1 if duration.days > 0 else -1)
    for _ in range(abs(duration.days)):
        found += step
    return datetime.combine(found, shown.time())


@st.composite
def any_duration(draw):
    units = st.one_of(st.just(0), st.integers(0, 40))
    years, months, weeks, days, hours, minutes, seconds = (draw(units) for _ in range(7))
    sign = draw(st.sampled_from(["", "-"]))
    return f"{sign}P{years // 8}Y{months}M{weeks}W{days}DT{hours}H{minutes}M{seconds}S"


@examples(200)
@given(any_duration(), MOMENTS, st.sampled_from(ZONES))
def test_any_duration_leads_where_the_calendar_and_the_clock_say(text, moment, zone):
    duration, place = of(text), rfc5545.zone(zone)
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)
    reached = start
    if duration.months or duration.days:
        wanted = later(rfc5545.shown(start, place), duration)
        walk = wanted.replace(tzinfo=UTC) - timedelta(hours=15)  # no zone here is further ahead
        while rfc5545.shown(walk + timedelta(hours=1), place) < wanted:
            walk += timedelta(hours=1)
        while rfc5545.shown(walk + MINUTE, place) < wanted:
            walk += MINUTE
        # Within this minute the clock comes to the time, or passes over it.
        exact = walk + (wanted - rfc5545.shown(walk, place))
        reached = exact if exact <= walk + MINUTE else walk + MINUTE - (walk - walk.replace(second=0, microsecond=0))
    assert duration.after(moment, zones.get(zone)) == ms(reached + timedelta(seconds=duration.seconds))


@examples(200)
@given(any_duration(), MOMENTS, st.sampled_from(ZONES))
def test_forward_is_never_earlier_and_back_is_the_other_way(text, moment, zone):
    duration, there = of(text), zones.get(zone)
    found = duration.after(moment, there)
    assert found <= moment if duration.is_negative else found >= moment
    assert (-duration).before(moment, there) == found
    back = -duration
    assert -back == duration


@examples(200)
@given(st.integers(-500, 500), st.sampled_from("dwmy"), MOMENTS, st.sampled_from(ZONES))
def test_they_name_the_days_that_relative_values_name(amount, unit, moment, zone):
    amount = amount // 60 if unit == "y" else amount // 5 if unit == "m" else amount
    there = zones.get(zone)
    duration = of(f"{'-' if amount < 0 else ''}P{abs(amount)}{unit.upper()}")
    assert zones.day_of(duration.after(moment, there), there) == time.relative(f"{amount:+d}{unit}", moment, there)


@examples(50)
@given(st.integers(-500, 500), MOMENTS, st.sampled_from(ZONES))
def test_hours_are_those_of_relative_values(amount, moment, zone):
    duration = of(f"{'-' if amount < 0 else ''}PT{abs(amount)}H")
    assert duration.after(moment, zones.get(zone)) == time.relative(f"{amount:+d}h", moment, zones.get(zone))
