"""Schedules: against a walk over the clock at every change from 2024 to 2030, and what is wrong with a document."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import time, zones
from taskade_server.kit.schedules import Schedule, check

from tests.support import recurring, rfc5545, walked
from tests.support.walked import CHANGES, MINUTE, ZONES, Cron, ms
from tests.unit.examples import examples

EXPRESSIONS = (
    "0 9 * * 1-5", "0 0 * * *", "30 0 * * *", "0 1 * * *", "30 1 * * *", "45 1 * * *", "0 2 * * *", "15 2 * * *",
    "30 2 * * *", "59 2 * * *", "0 3 * * *", "30 3 * * *", "0,10,20,30,40,50 0-4 * * *", "0-59 1-3 * * *",
    "0 0-23 * * *", "0 * * * *", "30 * * * *", "*/15 * * * *", "7-59/20 1-3 * * *", "* 2 * * *",
    "*/30 2 * * *", "30 */2 * * *", "0 */3 * * *", "45 */12 * * *", "0 2 * * SUN", "30 1 1-7,25-31 * SUN",
)  # fmt: skip


def around(change):
    """From some hours before a change to the same time on the day after."""
    begin = change.replace(minute=0) - timedelta(hours=6)
    return begin, begin + timedelta(hours=33)


def scheduled(cron, zone, begin, end):
    """The moments from `begin` to `end`, both included."""
    schedule = Schedule.of({"cron": cron}, zone)
    return [time.to_datetime(moment) for moment in schedule.between(ms(begin) - 1, ms(end), 10_000)]


def texts(moments):
    return [time.format_ms(moment)[:16] for moment in moments]


def from_on(document, zone, begin, number):
    return texts(Schedule.of(document, zone).between(time.parse_ms(begin), time.MAX_MS, number))


# ---- cron, as a clock shows it ---------------------------------------------------------------------------------------


def test_the_zones_have_the_changes_that_the_law_says():
    counted = {name: sum(one == name for one, _ in CHANGES) for name in ZONES}
    assert counted.pop("Africa/Casablanca") >= 5  # it has given it up by a late law, which the data may not know yet
    none = dict.fromkeys(("Asia/Kathmandu", "Pacific/Apia", "UTC"), 0)
    assert counted == dict.fromkeys(counted, 14) | none


@pytest.mark.parametrize(("zone", "change"), CHANGES, ids=lambda value: str(value)[:16])
def test_cron_runs_as_a_walk_over_the_clock_says_at_each_change(zone, change):
    begin, end = around(change)
    minutes = walked.walk(zone, begin, end)
    for expression in EXPRESSIONS:
        assert scheduled(expression, zone, begin, end) == walked.runs_of(Cron(expression), minutes), expression


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("day", [datetime(2026, 2, 28, 3, 59, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)])
def test_cron_runs_as_a_walk_over_the_clock_says_on_ordinary_days(zone, day):
    end = day + timedelta(hours=30)
    minutes = walked.walk(zone, day, end)
    for expression in EXPRESSIONS:
        found = scheduled(expression, zone, day, end)
        assert found == walked.runs_of(Cron(expression), minutes), expression


def test_cron_runs_as_a_walk_over_the_clock_says_where_a_whole_day_is_skipped():
    begin = datetime(2011, 12, 29, 1, tzinfo=UTC)
    minutes = walked.walk("Pacific/Apia", begin, begin + timedelta(days=3))
    for expression in (*EXPRESSIONS, "0 9 30 12 *", "0 9,17 30 * *", "0 9 30 * FRI", "*/20 9 30 12 *"):
        found = scheduled(expression, "Pacific/Apia", begin, begin + timedelta(days=3))
        assert found == walked.runs_of(Cron(expression), minutes), expression


def numbers(smallest, largest):
    number = st.integers(smallest, largest)
    a_range = st.tuples(number, number).filter(lambda two: two[0] < two[1]).map(lambda two: f"{two[0]}-{two[1]}")
    step = st.integers(1, largest // 2).map(str)
    term = st.one_of(number.map(str), number.map(str), a_range, st.tuples(a_range, step).map("/".join))
    some = st.lists(term, min_size=1, max_size=3).map(",".join)
    return st.one_of(some, some, st.just("*"), step.map(lambda one: f"*/{one}"))


DAYS = st.one_of(st.just("*"), numbers(1, 31))
CRONS = st.tuples(
    numbers(0, 59), numbers(0, 23), DAYS, st.just("*") | numbers(1, 12), st.just("*") | numbers(0, 7)
).map(" ".join)


@examples(120)
@given(CRONS, st.sampled_from(CHANGES), st.integers(0, 33 * 60))
def test_any_expression_runs_as_a_walk_over_the_clock_says_from_any_moment_on(cron, place, later):
    zone, change = place
    begin, end = around(change)
    if check({"cron": cron}, ""):
        return  # such a day never comes
    wanted = walked.runs_of(Cron(cron), walked.walk(zone, begin, end))
    assert scheduled(cron, zone, begin, end) == wanted
    after = begin + timedelta(minutes=later)
    first = next((moment for moment in wanted if moment > after), None)
    found = Schedule.of({"cron": cron}, zone).next(ms(after))
    assert found == ms(first) if first else found is None or found > ms(end)


@pytest.mark.parametrize(
    ("cron", "zone", "begin", "wanted"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["2026-03-29T01:00", "2026-03-30T00:15"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45Z", ["2026-10-26T01:30"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:59Z",
         ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
        ("*/30 2 25 10 *", "Europe/Berlin", "2026-01-01",
         ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2027-10-25T00:00"]),
        ("*/30 2 25 10 *", "Europe/Berlin", "2026-10-25T00:59Z", ["2026-10-25T01:00", "2026-10-25T01:30"]),
        ("0 */2 29 3 *", "Europe/Berlin", "2026-01-01", ["2026-03-28T23:00", "2026-03-29T02:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 29 2 */7", "UTC", "2026-01-01", ["2032-02-29T00:00", "2060-02-29T00:00"]),
        ("0 12 L * *", "UTC", "2028-02-01", ["2028-02-29T12:00", "2028-03-31T12:00"]),
        ("0 12 LW * *", "UTC", "2026-01-01", ["2026-01-30T12:00", "2026-02-27T12:00"]),
        ("0 12 * * 5L", "UTC", "2026-01-01", ["2026-01-30T12:00", "2026-02-27T12:00"]),
        ("0 12 * * MON#1", "UTC", "2026-01-01", ["2026-01-05T12:00", "2026-02-02T12:00"]),
        ("0 0 13 * FRI", "UTC", "2026-01-08T12:00Z", ["2026-01-09T00:00", "2026-01-13T00:00", "2026-01-16T00:00"]),
        ("0 0 */2 * FRI", "UTC", "2026-01-01", ["2026-01-09T00:00", "2026-01-23T00:00"]),
    ],
)  # fmt: skip
def test_what_people_write(cron, zone, begin, wanted):
    assert from_on({"cron": cron}, zone, begin, len(wanted)) == wanted


# ---- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "change"), CHANGES, ids=lambda value: str(value)[:16])
def test_a_daily_rule_runs_as_a_walk_over_the_clock_says_at_each_change(zone, change):
    begin, end = around(change)
    minutes = walked.walk(zone, begin, end)
    first, last = minutes[0][1], minutes[-1][1]
    for at in range(0, 24 * 60, 15):
        days = [first.date() + timedelta(days=number) for number in range(5)]
        local = [datetime(day.year, day.month, day.day, at // 60, at % 60) for day in days]
        wanted = walked.runs_at([one for one in local if first <= one <= last], minutes)
        schedule = Schedule.of({"rrule": "FREQ=DAILY", "at": f"{at // 60:02}:{at % 60:02}"}, zone)
        assert [time.to_datetime(one) for one in schedule.between(ms(begin) - 1, ms(end), 10)] == wanted, at


def moment_of(local, place):
    """What a local time means, by looking: the first moment at which a clock shows it, or a later one."""
    near = local.replace(tzinfo=UTC) - timedelta(hours=16)
    low = next(number for number in range(33) if rfc5545.shown(near + timedelta(hours=number + 1), place) >= local)
    return next(
        near + timedelta(hours=low) + MINUTE * number
        for number in range(61)
        if rfc5545.shown(near + timedelta(hours=low) + MINUTE * number, place) >= local
    )


@examples(60)
@given(st.integers(0, 10**9))
def test_rules_run_when_the_standard_says_long_after_their_start(seed):
    pick = random.Random(seed)
    rule = recurring.a_rule(pick)
    if "BYHOUR" in rule or "BYMINUTE" in rule or "BYSECOND" in rule:
        rule = ";".join(
            part for part in rule.split(";") if part.split("=")[0] not in ("BYHOUR", "BYMINUTE", "BYSECOND")
        )
    if "BYSETPOS" in rule and not any(part[:2] == "BY" and part[:8] != "BYSETPOS" for part in rule.split(";")):
        rule = ";".join(part for part in rule.split(";") if part[:8] != "BYSETPOS")
    start = date(2015, 1, 1) + timedelta(days=pick.randrange(4000))
    zone, at = pick.choice(ZONES), f"{pick.choice([0, 1, 2, 2, 3, 23]):02}:{pick.choice([0, 15, 30, 45]):02}"
    document = {"rrule": rule, "at": at, "start": start.isoformat()}
    if check(document, ""):
        return  # such a day never comes
    place = rfc5545.zone(zone)
    begin = datetime.fromisoformat(f"{start}T{at}")
    after = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(days=pick.randrange(5500), minutes=pick.randrange(1440))
    near = (one for one in rfc5545.occurrences(rule, begin, 18) if one.replace(tzinfo=UTC) > after - timedelta(days=2))
    wanted = []
    for local in near:
        moment = moment_of(local, place)
        if moment > after and moment not in wanted:
            wanted.append(moment)
        if len(wanted) == 3:
            break
    found = Schedule.of(document, zone).between(ms(after), time.MAX_MS, 3)
    assert [time.to_datetime(one) for one in found[: len(wanted)]] == wanted, (document, zone, after)


@pytest.mark.parametrize(
    ("document", "begin", "wanted"),
    [
        ({"rrule": "FREQ=DAILY", "at": "02:30"}, "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ({"rrule": "FREQ=DAILY", "at": "02:30"}, "2026-10-24T12:00Z", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ({"rrule": "FREQ=DAILY", "at": "02:30"}, "2026-10-25T00:45Z", ["2026-10-26T01:30"]),
        ({"rrule": "FREQ=WEEKLY;INTERVAL=2", "at": "09:00", "start": "2026-01-05"}, "2026-10-24",
         ["2026-10-26T08:00", "2026-11-09T08:00"]),
        ({"rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR", "at": "09:00", "start": "2026-01-07"}, "2026-01-01",
         ["2026-01-09T08:00", "2026-01-19T08:00", "2026-01-23T08:00"]),
        ({"rrule": "FREQ=MONTHLY", "at": "09:00", "start": "2026-01-31"}, "2026-02-01", ["2026-03-31T07:00"]),
        ({"rrule": "FREQ=YEARLY", "at": "09:00", "start": "1990-05-05"}, "2026-02-01", ["2026-05-05T07:00"]),
        ({"rrule": "FREQ=DAILY;INTERVAL=3", "at": "09:00", "start": "1901-01-01"}, "2026-01-01", ["2026-01-02T08:00"]),
        ({"rrule": "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "at": "17:00"}, "2026-01-01",
         ["2026-01-30T16:00", "2026-02-27T16:00"]),
        ({"rrule": "FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0,30"}, "2026-01-01T08:15Z",
         ["2026-01-01T08:30", "2026-01-01T16:00", "2026-01-01T16:30", "2026-01-02T08:00"]),
        ({"rrule": "FREQ=DAILY", "at": "09:00", "start": "2027-01-01"}, "2026-01-01", ["2027-01-01T08:00"]),
    ],
)  # fmt: skip
def test_rules_in_berlin(document, begin, wanted):
    assert from_on(document, "Europe/Berlin", begin, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("until", "number"),
    [("20260103", 3), ("20260103T090000", 3), ("20260103T085959", 2), ("20260103T080000Z", 3), ("20260103T075959Z", 2)],
)
def test_a_rule_runs_until_its_end_with_it(until, number):
    document = {"rrule": f"FREQ=DAILY;UNTIL={until}", "at": "09:00"}
    assert len(from_on(document, "Europe/Berlin", "2026-01-01", 10)) == number


# ---- any schedule ----------------------------------------------------------------------------------------------------


@examples(60)
@given(st.sampled_from(EXPRESSIONS) | CRONS, st.sampled_from(CHANGES), st.integers(-(10**8), 10**8))
def test_moments_come_in_order_and_one_by_one_as_together(cron, place, later):
    zone, change = place
    if check({"cron": cron}, ""):
        return
    schedule = Schedule.of({"cron": cron}, zone)
    after = ms(change) + later
    together = schedule.between(after, time.MAX_MS, 20)
    assert all(one < other for one, other in pairwise([after, *together]))
    reached, found = after, []
    for _ in together:
        following = schedule.next(reached)
        assert following is not None
        found.append(reached := following)
    assert found == together
    assert schedule.between(after, together[-1], 100) == together
    assert schedule.between(after, together[-1] - 1, 100) == together[:-1]


def test_nothing_is_between_moments_of_which_the_later_one_comes_first():
    schedule = Schedule.of({"cron": "* * * * *"}, "UTC")
    assert schedule.between(60_000, 0, 10) == [] and schedule.between(0, 10**12, 0) == []
    assert schedule.between(0, 120_000, 10) == [60_000, 120_000]
    assert schedule.next(59_999) == 60_000 and schedule.next(60_000) == 120_000


@pytest.mark.parametrize(
    ("document", "after"),
    [
        ({"rrule": "FREQ=DAILY;UNTIL=20260101", "at": "09:00"}, "2026-01-02"),
        ({"rrule": "FREQ=YEARLY;UNTIL=20260101", "at": "09:00", "start": "2020-05-05"}, "2025-05-06"),
        ({"rrule": "FREQ=YEARLY", "at": "09:00", "start": "2020-05-05"}, "9999-05-06"),
        ({"cron": "0 0 1 1 *"}, "9999-01-02"),
        ({"cron": "*/5 * 1 1 *"}, "9999-01-03"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia"])
def test_what_never_runs_again_has_no_next_moment(document, after, zone):
    schedule = Schedule.of(document, zone)
    assert schedule.next(time.parse_ms(after)) is None
    assert schedule.between(time.parse_ms(after), time.MAX_MS, 10) == []


def test_a_search_for_what_never_runs_again_ends(monkeypatch):
    """A rule of which the days are no more: the search gives up after its steps, cron's after 50 years."""
    looked_at, local = [], zones.local

    def counted(moment, zone):
        looked_at.append(moment)
        return local(moment, zone)

    monkeypatch.setattr(zones, "local", counted)
    rule = Schedule.of({"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", "at": "09:00"}, "Europe/Berlin")
    assert rule.next(time.parse_ms("2072-03-01")) is None
    assert Schedule("Europe/Berlin", cron="*/5 0 LW * */6").next(time.parse_ms("2026-01-01")) is None
    assert from_on({"cron": "*/5 * 29 2 */7"}, "Europe/Berlin", "2060-03-01", 1) == ["2088-02-28T23:00"]
    assert len(looked_at) < 200


def test_the_rules_of_a_zone_are_asked_each_time(monkeypatch):
    schedule = Schedule.of({"cron": "0 9 * * *"}, "Europe/Berlin")
    at = time.parse_ms("2026-01-01")
    assert texts([schedule.next(at) or 0]) == ["2026-01-01T08:00"]
    elsewhere = zones.get("Asia/Kathmandu")
    monkeypatch.setattr(zones, "get", lambda name: elsewhere)  # as if a law had changed
    assert texts([schedule.next(at) or 0]) == ["2026-01-01T03:15"]


def test_a_schedule_is_made_of_what_is_right_only():
    with pytest.raises(ValueError, match="five fields"):
        Schedule.of({"cron": "* * * * * *"}, "UTC")
    with pytest.raises(ValueError, match="Did you mean"):
        Schedule.of({"cron": "* * * * *"}, "Europe/Berln")
    assert Schedule.of({"cron": "* * * * *", "rrule": None, "at": None}, "UTC").next(0) == 60_000


# ---- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"cron": "0 9 * * 1-5"}, {}),
        ({"cron": "*/60 */24 * * *"}, {}),
        ({"cron": "0 9 1,15 JAN-MAR mon"}, {}),
        ({"cron": " 0\t9 * * * "}, {}),
        ({"cron": "0 0 30 2 MON"}, {}),  # either is enough
        ({"rrule": "FREQ=WEEKLY;BYDAY=MO", "at": "09:00", "start": "2026-01-05"}, {}),
        ({"rrule": "FREQ=WEEKLY;BYDAY=MO;UNTIL=20301231", "at": "23:59"}, {}),
        ("0 9 * * *", {"/t": ("wrong_type", "object")}),
        (None, {"/t": ("wrong_type", "object")}),
        ({}, {"/t": ("required", "cron")}),
        ({"cron": None}, {"/t": ("required", "cron")}),
        ({"corn": "0 9 * * *"}, {"/t/corn": ("unknown_field", 'Did you mean "cron"?'), "/t": ("required", "cron")}),
        ({"cron": "0 9 * * *", "a/b": 1}, {"/t/a~1b": ("unknown_field", "Allowed: cron, rrule, at, start")}),
        ({"cron": "0 9 * * *", "rrule": "FREQ=DAILY"}, {"/t/rrule": ("not_allowed", "not both")}),
        ({"cron": "0 9 * * *", "at": "09:00"}, {"/t/at": ("not_allowed", "first two fields")}),
        ({"cron": "0 9 * * *", "start": "2026-01-05"}, {"/t/start": ("not_allowed", "belongs to rrule")}),
        ({"cron": 5}, {"/t/cron": ("wrong_type", "text with five fields")}),
        ({"cron": ""}, {"/t/cron": ("invalid_cron", "five fields, not 0")}),
        ({"cron": "0 0 9 * * 1"}, {"/t/cron": ("invalid_cron", "no seconds")}),
        ({"cron": "@daily"}, {"/t/cron": ("invalid_cron", '"0 0 * * *"')}),
        ({"cron": "@reboot"}, {"/t/cron": ("invalid_cron", "five fields")}),
        ({"cron": "60 9 * * *"}, {"/t/cron": ("invalid_cron", 'The minute "60" is not right: 0 to 59')}),
        ({"cron": "0 24 * * *"}, {"/t/cron": ("invalid_cron", "The hour")}),
        ({"cron": "0 9 0 * *"}, {"/t/cron": ("invalid_cron", "The day of the month")}),
        ({"cron": "0 9 * 13 *"}, {"/t/cron": ("invalid_cron", "The month")}),
        ({"cron": "0 9 * * 8"}, {"/t/cron": ("invalid_cron", "The day of the week")}),
        ({"cron": "0 22-2 * * *"}, {"/t/cron": ("invalid_cron", "upward")}),
        ({"cron": "*/90 * * * *"}, {"/t/cron": ("invalid_cron", "steps (*/5) of at most 60")}),
        ({"cron": "5-5/2 * * * *"}, {"/t/cron": ("invalid_cron", "The minute")}),
        ({"cron": "0 0 L/2 * *"}, {"/t/cron": ("invalid_cron", "The day of the month")}),
        ({"cron": "*/0 * * * *"}, {"/t/cron": ("invalid_cron", "The minute")}),
        ({"cron": "0 9 ? * *"}, {"/t/cron": ("invalid_cron", "The day of the month")}),
        ({"cron": "0 9 * * \u017fun"}, {"/t/cron": ("invalid_cron", "The day of the week")}),
        ({"cron": "0 0 30 2 *"}, {"/t/cron": ("invalid_cron", "never comes")}),
        ({"cron": "0 0 31 4,6,9,11 *"}, {"/t/cron": ("invalid_cron", "never comes")}),
        ({"cron": "0 0 LW * */6"}, {"/t/cron": ("invalid_cron", "never comes")}),
        ({"cron": "0," * 100 + "0 * * * *"}, {"/t/cron": ("invalid_cron", "at most 200 characters")}),
        ({"rrule": "FREQ=DAILY"}, {"/t/at": ("required", "09:00")}),
        ({"rrule": "FREQ=DAILY;BYHOUR=9"}, {"/t/at": ("required", "BYMINUTE")}),
        ({"rrule": "FREQ=DAILY;BYHOUR=9;BYMINUTE=0", "at": "09:00"}, {"/t/at": ("not_allowed", "not both")}),
        ({"rrule": "FREQ=DAILY", "at": "9:00"}, {"/t/at": ("invalid_format", 'Write "09:00"')}),
        ({"rrule": "FREQ=DAILY", "at": "24:00"}, {"/t/at": ("invalid_format", "HH:MM")}),
        ({"rrule": "FREQ=DAILY", "at": "09:00:00"}, {"/t/at": ("invalid_format", "without seconds")}),
        ({"rrule": "FREQ=DAILY", "at": 9}, {"/t/at": ("wrong_type", "09:00")}),
        ({"rrule": 5, "at": "09:00"}, {"/t/rrule": ("wrong_type", "FREQ=WEEKLY")}),
        ({"rrule": "FREQ=DAILY", "at": "09:00", "start": "soon"}, {"/t/start": ("invalid_format", "2026-01-05")}),
        ({"rrule": "FREQ=DAILY", "at": "09:00", "start": "2026-02-30"}, {"/t/start": ("invalid_date", "no such day")}),
        ({"rrule": "FREQ=DAILY;COUNT=3", "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "UNTIL")}),
        ({"rrule": "FREQ=DAILY;BYSECOND=0,30", "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "once a minute")}),
        ({"rrule": "FREQ=MINUTELY", "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "DAILY, WEEKLY")}),
        ({"rrule": "FREQ=WEEKLY;BYDAY=1MO", "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "BYDAY takes numbers")}),
        ({"rrule": "FREQ=DAILY;WKST=" + "M" * 500, "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "500 characters")}),
        ({"rrule": "FREQ=DAILY;INTERVAL=2", "at": "09:00"}, {"/t/start": ("required", "INTERVAL=2")}),
        ({"rrule": "FREQ=WEEKLY", "at": "09:00"}, {"/t/start": ("required", "BYDAY=MO")}),
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "at": "09:00"}, {"/t/rrule": ("invalid_rrule", "never")}),
        ({"rrule": "FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29", "at": "09:00", "start": "2025-01-01"},
         {"/t/rrule": ("invalid_rrule", "never")}),
        ({"rrule": "FREQ=DAILY;UNTIL=20250101", "at": "09:00", "start": "2026-01-01"},
         {"/t/rrule": ("invalid_rrule", "before the first run")}),
        ({"rrule": "FREQ=WEEKLY;COUNT=2", "at": "9", "start": "x", "cron2": 1},
         {"/t/cron2": ("unknown_field", "cron"), "/t/at": ("invalid_format", "HH:MM"),
          "/t/start": ("invalid_format", "date"), "/t/rrule": ("invalid_rrule", "COUNT")}),
    ],
)  # fmt: skip
def test_each_fault_is_told_with_its_place_and_what_to_do(document, wanted):
    faults = check(document, "/t")
    assert {fault.pointer: fault.code for fault in faults} == {place: code for place, (code, _) in wanted.items()}
    assert len(faults) == len(wanted)
    for fault in faults:
        assert wanted[fault.pointer][1] in fault.detail
    if not faults:
        Schedule.of(document, "Europe/Berlin")


def test_faults_of_all_fields_are_told_at_once():
    places = [fault.detail.split('"')[0].strip() for fault in check({"cron": "60 24 0 13 8"}, "")]
    assert places == ["The minute", "The hour", "The day of the month", "The month", "The day of the week"]


def test_a_document_full_of_unknown_names_is_little_work():
    assert len(check({f"x{number}": 1 for number in range(1000)}, "")) == 101


@examples(300)
@given(
    st.text(st.sampled_from("0123456789*/,-#LWMONFRIJAN \t?@"), max_size=30)
    | st.lists(st.text(st.sampled_from("0159*/,-#LW"), min_size=1, max_size=5), min_size=5, max_size=5).map(" ".join)
    | st.text(max_size=20)
)
def test_any_text_is_either_a_schedule_or_has_a_fault(text):
    faults = check({"cron": text}, "")
    assert all(fault.pointer == "/cron" and fault.code == "invalid_cron" and fault.detail for fault in faults)
    if not faults:
        assert Schedule.of({"cron": text}, "Europe/Berlin").next(0) is not None
