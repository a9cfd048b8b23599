"""Recurring tasks: the next date by an RRULE, and rules that never end, never come or never stop searching."""

import pytest
from dateutil import rrule
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain.occurrences import counted_down, require_day
from taskade_server.kit import time

from tests.unit.examples import examples
from tests.unit.occurring import next_due

DAYS = st.dates(min_value=time.to_datetime(0).date(), max_value=time.to_datetime(4_000_000_000_000).date())


@pytest.mark.parametrize(
    ("rule", "due", "following"),
    [
        ("FREQ=DAILY", "2024-02-28", "2024-02-29"),
        ("FREQ=DAILY;INTERVAL=3", "2024-01-30", "2024-02-02"),
        ("FREQ=WEEKLY", "2024-01-15", "2024-01-22"),
        ("FREQ=WEEKLY;BYDAY=MO,WE", "2024-01-15", "2024-01-17"),
        ("FREQ=WEEKLY;BYDAY=MO", "2024-01-17", "2024-01-22"),  # the due date need not be one of the rule's
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO", "2024-01-15", "2024-01-29"),
        ("FREQ=MONTHLY", "2024-01-15", "2024-02-15"),
        ("FREQ=MONTHLY", "2024-01-31", "2024-03-31"),  # RFC 5545 skips months without a 31st
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "2024-01-31", "2024-02-29"),
        ("FREQ=MONTHLY;BYDAY=1MO", "2024-01-15", "2024-02-05"),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2024-01-31", "2024-02-29"),
        ("FREQ=YEARLY", "2024-02-29", "2028-02-29"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "1896-02-29", "1904-02-29"),
        ("FREQ=YEARLY;INTERVAL=100", "2024-01-15", "2124-01-15"),
        ("RRULE:FREQ=DAILY", "2024-01-15", "2024-01-16"),
        ("freq=weekly;byday=mo", "2024-01-15", "2024-01-22"),
        ("FREQ=DAILY;BYHOUR=9", "2024-01-15", "2024-01-16"),  # a day has no hours: the next is another day
        ("FREQ=WEEKLY", "2024-01-15T10:30:00.000Z", "2024-01-22T10:30:00.000Z"),
        ("FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0;BYSECOND=0", "2024-01-15T09:00:00.000Z", "2024-01-15T17:00:00.000Z"),
        ("FREQ=DAILY;UNTIL=20240116", "2024-01-15", "2024-01-16"),
        ("FREQ=DAILY;UNTIL=20240115T235959Z", "2024-01-15", None),
        ("FREQ=DAILY;UNTIL=20240116", "2024-01-15T10:30:00.000Z", "2024-01-16T10:30:00.000Z"),
        ("FREQ=DAILY;UNTIL=20240116T000000Z", "2024-01-15T10:30:00.000Z", None),
        ("FREQ=DAILY;COUNT=2", "2024-01-15", "2024-01-16"),
        ("FREQ=DAILY;BYDAY=1MO", "2024-01-15", "2024-01-22"),  # which Monday is no question in a daily rule
        ("FREQ=DAILY;BYMONTH=3", "2024-01-15", "2024-03-01"),
        ("FREQ=DAILY;INTERVAL=2;BYDAY=MO", "2024-01-15", "2024-01-29"),
        ("FREQ=DAILY;INTERVAL=2;BYDAY=MO;BYHOUR=9", "2024-01-15T10:30:00.000Z", "2024-01-29T09:30:00.000Z"),
        ("FREQ=DAILY;INTERVAL=29;BYDAY=TU", "2024-01-15", "2024-02-13"),
        ("FREQ=DAILY;INTERVAL=50;BYDAY=TU", "2024-01-15", "2024-03-05"),
        ("FREQ=DAILY;COUNT=1", "2024-01-15", None),
        ("FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2", "2026-11-04", "2026-11-11"),  # of the whole week, not of its rest
        ("FREQ=DAILY", "9999-12-31", None),
        ("FREQ=DAILY", "9999-12-30", "9999-12-31"),
        ("FREQ=DAILY", "0001-01-01", "0001-01-02"),
    ],
)
def test_the_next_date(rule, due, following):
    assert next_due(rule, due) == following


def test_a_task_without_a_date_recurs_from_today():
    tomorrow = time.add_days(time.day_of(time.now_ms()), 1)
    assert next_due("FREQ=DAILY", None) == tomorrow


@pytest.mark.parametrize(
    "rule",
    [
        "", "weekly", "FREQ", "FREQ=", "FREQ=DAILY;", "FREQ=HOURLY", "FREQ=MINUTELY", "FREQ=SECONDLY", "FREQ=SOMETIMES",
        "INTERVAL=2", "FREQ=DAILY;FREQ=WEEKLY", "FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;INTERVAL=-1", "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=x", "FREQ=DAILY;COLOR=RED", "FREQ=WEEKLY;BYDAY=XX", "FREQ=DAILY;UNTIL=soon",
        "FREQ=DAILY;UNTIL=20240230", "FREQ=DAILY\nEXDATE:20240116", "DTSTART:20240101\nRRULE:FREQ=DAILY",
        "EXDATE:20240101;FREQ=DAILY", "FREQ=DAILY;BYHOUR=25", "FREQ=DAILY;BYSETPOS=2",
        f"FREQ=DAILY;BYHOUR={','.join(map(str, range(24)))};BYMINUTE={','.join(map(str, range(5)))}",
    ],
)  # fmt: skip
def test_what_is_no_rule(rule):
    with pytest.raises(ValueError):
        next_due(rule, "2024-01-15")


@pytest.mark.parametrize("count", ["", ";COUNT=1", ";COUNT=5", ";UNTIL=20240101"])
@pytest.mark.parametrize("due", ["2024-01-15", "9999-12-31", "2024-02-29T10:30:00.000Z", None])
def test_a_rule_has_to_name_a_day_wherever_it_starts_or_ends(due, count):
    require_day(f"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29{count}", due)
    for never in ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=4,6"):
        with pytest.raises(ValueError, match="never comes"):
            require_day(f"{never}{count}", due)


@st.composite
def rules(draw):
    frequency = draw(st.sampled_from(["DAILY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 3))}"]
    if draw(st.booleans()):
        parts.append(
            f"BYDAY={','.join(draw(st.lists(st.sampled_from(['MO', 'TU', 'FR', 'SU']), min_size=1, unique=True)))}"
        )
    if draw(st.booleans()):
        parts.append(f"BYMONTHDAY={draw(st.sampled_from(['1', '15', '31', '-1']))}")
    return ";".join(parts)


@examples(60)
@given(rules(), DAYS)
def test_it_is_the_rule_of_the_standard(rule, day):
    following = next_due(rule, day.isoformat())
    start = time.to_datetime(time.parse_ms(day.isoformat())).replace(tzinfo=None)
    wanted = rrule.rrulestr(rule, dtstart=start).after(start)
    assert wanted is not None
    assert following == str(wanted.date())


@examples(60)
@given(rules(), DAYS, st.integers(1, 8))
def test_a_counted_rule_makes_that_many_tasks(rule, day, count):
    due: str | None = next_due(rule, day.isoformat())  # begin at a day of the rule
    rule, made = f"{rule};COUNT={count}", 0
    while due is not None:
        made += 1
        assert made <= count
        due, rule = next_due(rule, due), counted_down(rule)
    assert made == count
