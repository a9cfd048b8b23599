"""Recurrence rules against an oracle that reads RFC 5545 literally, and against the examples of the RFC."""

from datetime import datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import recurrence

from tests.support import rfc5545
from tests.unit.examples import examples

WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def chain(rule, start, number):
    """The moments that follow one another when each is computed from the one before, with the start kept."""
    parsed, moment = recurrence.parse(rule), start
    found: list[datetime] = []
    while len(found) < number:
        following = recurrence.next_after(parsed, moment, whole_days=False)
        if following is None:
            break
        found.append(following)
        moment = following
    return found


def listed(numbers, most=3):
    return st.lists(numbers, min_size=1, max_size=most, unique=True).map(lambda found: ",".join(map(str, found)))


@st.composite
def rules(draw):
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = {"FREQ": frequency}
    if draw(st.booleans()):
        parts["INTERVAL"] = str(draw(st.integers(1, 4)))
    if draw(st.booleans()):
        parts["WKST"] = draw(st.sampled_from(WEEKDAYS))
    if draw(st.integers(0, 2)) == 0:
        parts["BYMONTH"] = draw(listed(st.integers(1, 12)))
    if frequency == "YEARLY" and draw(st.integers(0, 3)) == 0:
        parts["BYWEEKNO"] = draw(listed(st.sampled_from([1, 2, 20, 51, 52, 53, -1, -2, -53])))
    if frequency == "YEARLY" and draw(st.integers(0, 4)) == 0:
        parts["BYYEARDAY"] = draw(listed(st.sampled_from([1, 59, 60, 100, 365, 366, -1, -100, -366])))
    if frequency != "WEEKLY" and draw(st.integers(0, 2)) == 0:
        parts["BYMONTHDAY"] = draw(listed(st.sampled_from([1, 2, 13, 15, 28, 29, 30, 31, -1, -2, -31])))
    if draw(st.booleans()):
        ordinals = frequency in ("MONTHLY", "YEARLY") and "BYWEEKNO" not in parts
        numbers = ["", "", "1", "2", "-1", "5", "-5"] if ordinals else [""]
        weekday = st.tuples(st.sampled_from(numbers), st.sampled_from(WEEKDAYS)).map("".join)
        parts["BYDAY"] = draw(listed(weekday, 5))
    if draw(st.integers(0, 3)) == 0:
        parts["BYHOUR"] = draw(listed(st.integers(0, 23)))
    if any(name.startswith("BY") for name in parts) and draw(st.integers(0, 1)) == 0:
        parts["BYSETPOS"] = draw(listed(st.sampled_from([1, 2, 3, -1, -2]), 2))
    return ";".join(f"{name}={value}" for name, value in parts.items())


STARTS = st.datetimes(datetime(1995, 1, 1), datetime(2035, 12, 31)).map(lambda moment: moment.replace(microsecond=0))


@examples(150)
@given(rules(), STARTS)
def test_the_next_moment_is_that_of_the_standard(rule, start):
    found = recurrence.next_after(recurrence.parse(rule), start, whole_days=False)
    following = (moment for moment in rfc5545.occurrences(rule, start, 12) if moment > start)
    wanted = next(following, None)
    if wanted is None:  # perhaps much later
        assert found is None or found.year > start.year + 10
    elif found is None:  # a daily rule is searched for 27 years of days
        assert wanted.year > start.year + 25
    else:
        assert found == wanted


# From the examples of RFC 5545, section 3.8.5.3; each starts on 1997-09-02 09:00 or the day given.
@pytest.mark.parametrize(
    ("rule", "start", "wanted"),
    [
        ("FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU,TH", "1997-09-02", "1997-09-04 1997-09-16 1997-09-18 1997-09-30"),
        ("FREQ=MONTHLY;BYDAY=1FR", "1997-09-05", "1997-10-03 1997-11-07 1997-12-05"),
        ("FREQ=MONTHLY;BYDAY=-2MO", "1997-09-22", "1997-10-20 1997-11-17 1997-12-22"),
        ("FREQ=MONTHLY;BYMONTHDAY=-3", "1997-09-28", "1997-10-29 1997-11-28 1997-12-29"),
        ("FREQ=YEARLY;INTERVAL=3;BYYEARDAY=1,100,200", "1997-01-01", "1997-04-10 1997-07-19 2000-01-01 2000-04-09"),
        ("FREQ=YEARLY;BYDAY=20MO", "1997-05-19", "1998-05-18 1999-05-17"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997-05-12", "1998-05-11 1999-05-17"),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "1997-09-02", "1998-02-13 1998-03-13 1998-11-13 1999-08-13 2000-10-13"),
        ("FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13", "1997-09-13", "1997-10-11 1997-11-08 1997-12-13"),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
            "1996-11-05",
            "2000-11-07 2004-11-02",
        ),
        ("FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04", "1997-10-07 1997-11-06"),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "1997-09-29", "1997-10-30 1997-11-27 1997-12-30"),
        ("FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2", "2026-11-04", "2026-11-11 2026-11-18"),
        ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=2,4", "2026-11-03", "2026-11-05 2026-11-10 2026-11-12"),
        ("FREQ=WEEKLY;WKST=WE;BYDAY=MO,TU,WE;BYSETPOS=1", "2024-11-10", "2024-11-13"),
    ],
)
def test_the_examples_of_the_standard(rule, start, wanted):
    begin = datetime.fromisoformat(f"{start}T09:00:00")
    dates = wanted.split()
    assert [str(moment.date()) for moment in chain(rule, begin, len(dates))] == dates
    oracle = (moment for moment in rfc5545.occurrences(rule, begin, 15) if moment > begin)
    assert [str(moment.date()) for moment in islice(oracle, len(dates))] == dates


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYEASTER=0", "FREQ=DAILY;BYMONTH=13", "FREQ=DAILY;BYMONTH=0", "FREQ=MONTHLY;BYMONTHDAY=32",
        "FREQ=YEARLY;BYWEEKNO=54", "FREQ=MONTHLY;BYWEEKNO=2", "FREQ=YEARLY;BYWEEKNO=2;BYDAY=1MO",
        "FREQ=MONTHLY;BYDAY=0MO",
        "FREQ=MONTHLY;BYDAY=54MO", "FREQ=MONTHLY;BYDAY=6MO", "FREQ=YEARLY;BYMONTH=12;BYDAY=1MO,8MO",
        "FREQ=DAILY;BYSETPOS=1", "FREQ=DAILY;WKST=XX", "FREQ=DAILY;BYHOUR=-1",
        f"FREQ=DAILY;INTERVAL={'9' * 5000}", f"FREQ=YEARLY;BYYEARDAY={'9' * 5000}", "FREQ=DAILY;UNTIL=20240230",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(ValueError):
        recurrence.parse(rule)


@pytest.mark.parametrize(
    "rule",
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=4,6", "FREQ=YEARLY;INTERVAL=999999",
     "FREQ=YEARLY;BYMONTH=2;BYDAY=5MO;BYMONTHDAY=28", "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
     "FREQ=YEARLY;BYWEEKNO=1;BYMONTH=6"],
)  # fmt: skip
def test_a_day_that_never_comes_is_searched_for_in_a_bounded_number_of_steps(rule):
    spent: list[int] = []
    start = datetime(2024, 1, 15)
    assert recurrence.next_after(recurrence.parse(rule), start, whole_days=True, spend=spent.append) is None
    assert sum(spent) <= recurrence.MAX_STEPS


@pytest.mark.parametrize("day", ["9999-12-31", "9999-12-01", "0001-01-01"])
@pytest.mark.parametrize("frequency", recurrence.FREQUENCIES)
@pytest.mark.parametrize(
    "more", ["", ";BYDAY=MO", ";BYMONTHDAY=1", ";INTERVAL=999999", ";BYMONTH=1;BYDAY=MO;BYSETPOS=-1"]
)
def test_the_ends_of_the_calendar_are_no_error(day, frequency, more):
    found = recurrence.next_after(
        recurrence.parse(f"FREQ={frequency}{more}"), datetime.fromisoformat(day), whole_days=True
    )
    assert found is None or found > datetime.fromisoformat(day)
