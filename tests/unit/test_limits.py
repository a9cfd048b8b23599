"""The rate limit: never more than burst + rate x time, and never a wait that turns out too short.

Why properties: a limiter with windows or timers is right for every schedule its author thought of.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.http import limits
from taskade_server.http.limits import Limiter
from taskade_server.kit.errors import RateLimited

from tests.unit.examples import examples

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
RATES = st.integers(1, 1000)
PAUSES = st.lists(st.one_of(st.just(0), st.integers(0, SECOND), st.integers(0, 3 * MINUTE)), min_size=1, max_size=120)


def admits(limiter, now, **options):
    """None when admitted, else the seconds to wait."""
    try:
        limiter.take("a caller", now=now, **options)
    except RateLimited as refusal:
        return int(refusal.headers["retry-after"])
    return None


@examples(60)
@given(RATES, st.none() | st.integers(1, 50), PAUSES)
def test_never_more_than_the_burst_and_the_rate(rate, burst, pauses):
    limiter, now, admitted = Limiter(rate, burst), 5 * SECOND, []
    for pause in pauses:
        now += pause
        if admits(limiter, now) is None:
            admitted.append(now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            bound = (burst or rate) + rate * (admitted[last] - start) / MINUTE
            assert last - first + 1 <= bound + 1e-6


@examples(60)
@given(RATES, st.none() | st.integers(1, 50), PAUSES, st.none() | st.integers(1, 2000))
def test_waiting_as_told_always_helps(rate, burst, pauses, own_rate):
    limiter, now = Limiter(rate, burst), 5 * SECOND
    for pause in pauses:
        now += pause
        wait = admits(limiter, now, own_rate=own_rate)
        if wait is not None:
            assert wait >= 1
            now += wait * SECOND
            assert admits(limiter, now, own_rate=own_rate) is None


@examples(60)
@given(RATES, PAUSES)
def test_who_keeps_to_the_rate_is_never_refused(rate, pauses):
    limiter, now = Limiter(rate, burst=1), 5 * SECOND
    for pause in pauses:
        now += pause + -(-MINUTE // rate)
        assert admits(limiter, now) is None


@examples(60)
@given(st.integers(1, 100))
def test_a_full_bucket_admits_the_burst_at_once_and_no_more(rate):
    limiter = Limiter(rate)
    assert [admits(limiter, SECOND) for _ in range(rate)] == [None] * rate
    assert admits(limiter, SECOND) == -(-60 // rate)


def test_the_headers_tell_what_is_left():
    limiter = Limiter(60)
    headers = dict(limiter.take("a caller", now=SECOND))
    assert headers[b"ratelimit-policy"] == b'"default";q=60;w=60'
    assert headers[b"ratelimit"] == b'"default";r=59;t=1'
    assert headers[b"x-ratelimit-limit"] == b"60"
    assert headers[b"x-ratelimit-remaining"] == b"59"
    for _ in range(59):
        headers = dict(limiter.take("a caller", now=SECOND))
    assert headers[b"ratelimit"] == b'"default";r=0;t=60'


def test_callers_have_budgets_of_their_own():
    limiter = Limiter(1)
    limiter.take("one", now=SECOND)
    limiter.take("another", now=SECOND)
    with pytest.raises(RateLimited):
        limiter.take("one", now=SECOND)


def test_a_key_may_have_less_than_the_installation_gives_but_not_more():
    limiter = Limiter(10)
    assert [admits(limiter, SECOND, own_rate=3) for _ in range(4)] == [None, None, None, 20]
    eager = Limiter(10)
    assert [admits(eager, SECOND, own_rate=1000) for _ in range(11)] == [None] * 10 + [6]


def test_what_is_given_back_can_be_used_again():
    limiter = Limiter(5)
    for _ in range(50):
        limiter.take("a caller", now=SECOND)
        limiter.give_back("a caller", 1)
    assert [admits(limiter, SECOND) for _ in range(6)] == [None] * 5 + [12]


@examples(60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3 * SECOND)), max_size=60))
def test_giving_back_never_makes_more_of_it(steps):
    limiter, now, charged = Limiter(60, burst=5), 5 * SECOND, []
    for free, pause in steps:
        now += pause
        if admits(limiter, now) is None:
            limiter.give_back("a caller", 1) if free else charged.append(now)
    for first, start in enumerate(charged):
        for last in range(first, len(charged)):
            assert last - first + 1 <= 5 + 60 * (charged[last] - start) / MINUTE + 1e-6


def test_a_crowd_does_not_make_the_limiter_forget_who_is_over_the_limit(monkeypatch):
    """Memory is bounded by forgetting full buckets, never by handing out a budget anew."""
    monkeypatch.setattr(limits, "_SWEEP_FROM", 100)
    limiter = Limiter(2)
    limiter._sweep_size = 100
    assert [admits(limiter, SECOND) for _ in range(3)] == [None, None, 30]
    for number in range(1000):
        limiter.take(f"caller {number}", now=SECOND + number)
    assert admits(limiter, 2 * SECOND) == 29
    for number in range(1000):
        limiter.take(f"later caller {number}", now=10 * MINUTE + number)
    assert len(limiter._full_at) <= 2100
