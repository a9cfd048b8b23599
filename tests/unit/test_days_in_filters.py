"""What conditions with days mean in a time zone, by looking at the clock there: today, overdue, and random ones.

Why with a clock of the test's own: the days on which clocks are changed are few, and none of them is today.
"""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain.tasks import TASK
from taskade_server.engine import filters
from taskade_server.engine.filters import Facts, Parser
from taskade_server.kit import time, zones

from tests.support import recurring, rfc5545
from tests.unit.examples import examples

SIX = (
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
)
EMPTY = dict.fromkeys(TASK.fields) | {"labels": [], "blocked_by": [], "custom_fields": {}}


def utc(moment):
    return time.format_ms(int(moment.timestamp()) * 1000)


def finds(document, zone, now, member, value):
    """Whether a filter finds a task with this date or time, asked at a moment by somebody in the zone."""
    parser = Parser(TASK, lambda *_: None, now, typed=True, zone=zones.get(zone))
    node = parser.parse(document)
    assert not parser.issues
    return filters.holds(node, Facts(TASK, {**EMPTY, member: value}))


@pytest.mark.parametrize("name", SIX)
def test_today_and_overdue_on_every_day_of_a_change(name):
    place = rfc5545.zone(name)
    for change in recurring.changes(name, 2024, 2031):
        for minutes in range(-30 * 60, 31 * 60, 310):
            moment = change + timedelta(minutes=minutes)
            now, today = int(moment.timestamp()) * 1000, rfc5545.shown(moment, place).date()
            for hours in range(-50, 51, 9):
                other = moment + timedelta(hours=hours)
                day = rfc5545.shown(other, place).date()
                for value in (str(day), utc(other)):
                    for condition, wanted in {
                        "today": day == today,
                        "-1d": day == today - timedelta(1),
                        "+1w": day == today + timedelta(7),
                    }.items():
                        assert finds({"due_date": condition}, name, now, "due_date", value) == wanted
                    overdue = {"due_date": {"$lt": "today"}, "completed_at": None}
                    assert finds(overdue, name, now, "due_date", value) == (day < today)
                    missed = day < today if value == str(day) else other < moment
                    assert finds({"due_before": "now"}, name, now, "due_date", value) == missed
                created = {"created_at": {"$gte": "today", "$lt": "tomorrow"}}
                assert finds(created, name, now, "created_at", utc(other)) == (day == today)


def moments(begin, end):
    return st.datetimes(begin, end).map(lambda found: found.replace(microsecond=0, tzinfo=UTC))


NEAR = moments(datetime(2026, 3, 26), datetime(2026, 4, 2))
COMPARED = {
    "$eq": lambda a, b: a == b, "$ne": lambda a, b: a != b, "$gt": lambda a, b: a > b, "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b, "$lte": lambda a, b: a <= b,
}  # fmt: skip


@examples(400)
@given(
    st.sampled_from([*SIX, "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"]),
    st.sampled_from(sorted(COMPARED)),
    NEAR,
    NEAR,
    st.booleans(),
    st.booleans(),
)
def test_what_has_no_time_is_compared_as_a_date(name, operator, value, operand, dated, compared_with_date):
    place = rfc5545.zone(name)
    days: tuple[date, date] = (rfc5545.shown(value, place).date(), rfc5545.shown(operand, place).date())
    stored = str(days[0]) if dated else utc(value)
    asked = str(days[1]) if compared_with_date else utc(operand)
    both_are_times = not dated and not compared_with_date
    wanted = COMPARED[operator](*((value, operand) if both_are_times else days))
    if dated and not compared_with_date and operator in ("$eq", "$ne"):
        wanted = operator == "$ne"  # a day is no moment
    assert finds({"due_date": {operator: asked}}, name, 0, "due_date", stored) == wanted
