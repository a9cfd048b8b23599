"""The rate limit, in memory and in Valkey: never more than burst + rate x time, and never a wait that is too short.

Why properties: a limiter with windows or timers is right for every schedule its author thought of.
"""

import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import http_sf
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.commands.serve import serve
from taskade_server.config import Config, ConfigError, parse_networks, parse_rate, rates
from taskade_server.http.admission import buckets as memory
from taskade_server.http.admission.buckets import Buckets, MemoryBuckets
from taskade_server.http.admission.limits import FREE, USER_SHARE, Limiter, Limits, Policy, of_user
from taskade_server.http.admission.valkey_buckets import SharedBuckets, Valkey
from taskade_server.kit.errors import RateLimited
from taskade_server.selftest.parts import Options

from tests.faults import rate_limits as schedules
from tests.faults.rate_limits import Schedule, Step, play, together
from tests.unit.examples import THOROUGHNESS, examples

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
RATES = st.integers(1, 1000)
TICK = schedules.TICK
TIMES = st.one_of(st.just(0), st.integers(0, SECOND // TICK), st.integers(0, 3 * MINUTE // TICK)).map(TICK.__mul__)
STEPS = st.lists(
    st.builds(Step, st.sampled_from(schedules.KINDS), TIMES, st.integers(1, 60), TIMES), min_size=1, max_size=40
)
SCHEDULES = st.builds(Schedule, RATES, st.none() | st.integers(1, 50), st.none() | st.integers(1, 2000), STEPS)
NUMBERS = itertools.count()

Make = Callable[..., Limiter]


@pytest.fixture(params=["memory", "valkey"])
def make_buckets(request) -> Iterator[Callable[[], Buckets]]:
    """Makes buckets, each with callers of their own, in the one place or the other."""
    if request.param == "memory":
        yield MemoryBuckets
        return
    client = Valkey(request.getfixturevalue("valkey").patient_url)
    yield lambda: SharedBuckets(client, f"test{next(NUMBERS)}")
    assert client.answers, "what these tests say of Valkey was said of the memory"
    client.close()


@pytest.fixture
def limiter(make_buckets) -> Make:
    """`limiter(60, burst=5)`"""
    return lambda rate, burst=None, most=None: Limiter(Policy("default", rate, burst, most), make_buckets())


def admits(limiter, now, **options):
    """None when admitted, else the seconds to wait."""
    try:
        limiter.charge("a caller", now=now, **options)
    except RateLimited as refusal:
        return int(refusal.headers["retry-after"])
    return None


# ---- the bound, and the promise --------------------------------------------------------------------------------------


@examples(60)
@given(SCHEDULES)
def test_no_window_of_any_schedule_gets_more_and_waiting_as_told_always_helps(make_buckets, schedule):
    assert play(schedule, make_buckets()) == []


def test_many_schedules_many_callers_and_threads():
    """What `make faults` tries, too."""
    report = schedules.run(Options(seed=1, rounds=1000 * THOROUGHNESS))
    assert report.faults == []


def test_the_check_of_windows_finds_what_is_too_much():
    assert not schedules.excess([(0, 5), (MINUTE, 60)], rate=60, burst=5)
    assert schedules.excess([(0, 5), (0, 1)], rate=60, burst=5)
    assert not schedules.excess([(0, 5), (SECOND, 1)], rate=60, burst=5)
    assert schedules.excess([(0, 5), (SECOND - 1, 1)], rate=60, burst=5)
    assert not schedules.excess([(0, 1000), (995 * SECOND, 1)], rate=60, burst=5), "a cost above the burst is a burst"
    assert schedules.excess([(0, 1000), (SECOND // 2, 1)], rate=60, burst=5)


@examples(60)
@given(RATES, st.lists(TIMES, min_size=1, max_size=60))
def test_who_keeps_to_the_rate_is_never_refused(limiter, rate, pauses):
    keeper, now = limiter(rate, burst=1), MINUTE
    for pause in pauses:
        now += pause - (-MINUTE // (rate * TICK)) * TICK
        assert admits(keeper, now) is None


@pytest.mark.parametrize("rate", [7, 60, 101, 999_999])
def test_who_asks_all_the_time_gets_the_rate_and_not_one_more(limiter, rate):
    keen, start, got = limiter(rate, burst=1), MINUTE, 0
    step = max(1, MINUTE // rate // 20 // TICK) * TICK
    for now in range(start, start + 40 * MINUTE // rate, step):
        got += admits(keen, now) is None
    assert 35 <= got <= 41


def test_what_cannot_be_divided_is_not_rounded_in_the_callers_favour():
    keen = Limiter(Policy("default", 7, burst=1))
    assert [admits(keen, MINUTE + MINUTE // 7 * turn) for turn in (0, 1)] == [None, 1]
    assert admits(keen, MINUTE + MINUTE // 7 + 1) is None


def test_a_full_bucket_admits_the_burst_at_once_and_no_more(limiter):
    for rate in (1, 7, 100):
        keen = limiter(rate)
        assert [admits(keen, MINUTE) for _ in range(rate)] == [None] * rate
        assert admits(keen, MINUTE) == -(-60 // rate)


def test_callers_have_budgets_of_their_own(limiter):
    shared = limiter(1)
    shared.charge("one", now=MINUTE)
    shared.charge("another", now=MINUTE)
    with pytest.raises(RateLimited):
        shared.charge("one", now=MINUTE)


def test_threads_together_get_no_more(make_buckets):
    attempts = 2500 if make_buckets is MemoryBuckets else 60
    burst = 8 * attempts // 2
    for _ in range(3):
        assert together(Limiter(Policy("default", burst), make_buckets()), 8, attempts) == burst


def test_many_callers_do_not_make_the_limiter_forget_and_are_forgotten_themselves(monkeypatch):
    monkeypatch.setattr(memory, "_SWEEP_FROM", 100)
    assert schedules.many_callers(1000) == []
    buckets = MemoryBuckets()
    limiter = Limiter(Policy("default", 2), buckets)
    for number in range(5000):
        limiter.charge(f"caller {number}", now=number * MINUTE)
    assert len(buckets) <= 101


# ---- costs -----------------------------------------------------------------------------------------------------------


def test_a_cost_above_the_burst_takes_a_full_bucket_and_is_paid_for(limiter):
    batches = limiter(100)
    assert admits(batches, MINUTE, cost=1000) is None
    assert admits(batches, MINUTE) == 541, "0.6 s for each of 1,000, but for the burst of 100, and one more"
    assert admits(batches, MINUTE, cost=1000) == 600
    assert admits(batches, MINUTE + 541 * SECOND) is None
    assert admits(batches, MINUTE + 600 * SECOND, cost=1000) == 1
    assert admits(batches, MINUTE + 601 * SECOND, cost=1000) is None


def test_who_is_refused_a_batch_is_told_when_it_will_do_whatever_it_turns_out_to_cost(limiter):
    batches = limiter(60, burst=5)
    for _ in range(5):
        assert admits(batches, MINUTE) is None
    assert admits(batches, MINUTE) == 1
    assert admits(batches, MINUTE, might_cost=1000) == 5
    later = MINUTE + 5 * SECOND
    charge = batches.charge("a caller", might_cost=1000, now=later)
    assert dict(charge.raise_to(1000, now=later))[b"x-ratelimit-reset"] == b"1000"
    assert charge.cost == 1000


def test_a_charge_that_cannot_be_raised_is_taken_back(limiter):
    batches = limiter(60, burst=5)
    batches.charge("a caller", 2, now=MINUTE)
    charge = batches.charge("a caller", now=MINUTE)
    with pytest.raises(RateLimited, match="counts as 4"):
        charge.raise_to(4, now=MINUTE)
    charge.give_back(now=MINUTE)
    assert admits(batches, MINUTE, cost=3) is None


def test_what_is_given_back_can_be_used_again(limiter):
    forgiving = limiter(5)
    for _ in range(20):
        charge = forgiving.charge("a caller", now=MINUTE)
        assert dict(charge.headers)[b"x-ratelimit-remaining"] == b"4"
        assert dict(charge.give_back(now=MINUTE))[b"x-ratelimit-remaining"] == b"5"
        assert charge.give_back(now=MINUTE) == charge.headers, "once only"
    assert [admits(forgiving, MINUTE) for _ in range(6)] == [None] * 5 + [12]


def test_what_time_has_given_back_is_not_given_back_again(limiter):
    slow = limiter(60, burst=1)
    first = slow.charge("a caller", now=MINUTE)
    assert admits(slow, MINUTE + SECOND) is None
    first.give_back(now=MINUTE + SECOND)
    assert admits(slow, MINUTE + SECOND) == 1


def test_a_look_costs_nothing_and_tells_the_same(limiter):
    looked_at = limiter(60, burst=2)
    for _ in range(10):
        looked_at.check("a caller", now=MINUTE)
    assert [admits(looked_at, MINUTE) for _ in range(3)] == [None, None, 1]
    with pytest.raises(RateLimited) as refusal:
        looked_at.check("a caller", now=MINUTE)
    assert refusal.value.headers["retry-after"] == "1"
    looked_at.check("a caller", now=MINUTE + SECOND)


def test_what_has_happened_is_noted_even_beyond_the_limit(limiter):
    noting = limiter(60, burst=2)
    for _ in range(5):
        noting.note("a caller", now=MINUTE)
    with pytest.raises(RateLimited) as refusal:
        noting.check("a caller", now=MINUTE)
    assert refusal.value.headers["retry-after"] == "4"


# ---- rates of one's own ----------------------------------------------------------------------------------------------


def test_a_key_may_have_less_than_the_installation_gives_but_not_more(limiter):
    assert [admits(limiter(10), MINUTE, own_rate=3) for _ in range(1)] == [None]
    modest = limiter(10)
    assert [admits(modest, MINUTE, own_rate=3) for _ in range(4)] == [None, None, None, 20]
    eager = limiter(10)
    assert [admits(eager, MINUTE, own_rate=1000) for _ in range(11)] == [None] * 10 + [6]


def test_a_key_may_have_more_where_the_operator_allows_it(limiter):
    raised = limiter(10, most=20)
    assert [admits(raised, MINUTE, own_rate=1000) for _ in range(21)] == [None] * 20 + [3]
    assert [admits(limiter(10, most=20), MINUTE, own_rate=12, cost=12)] == [None]
    plain = limiter(10, most=20)
    assert [admits(plain, MINUTE) for _ in range(11)] == [None] * 10 + [6], (
        "without a rate of its own it has the common one"
    )


def test_without_a_common_limit_only_the_keys_that_have_one_are_limited(limiter):
    off = limiter(None)
    assert off.charge("a caller", 10_000) is FREE and FREE.headers == [] and FREE.give_back() == []
    off.check("a caller")
    off.note("a caller")
    assert [admits(off, MINUTE, own_rate=2) for _ in range(3)] == [None, None, 30]


def test_a_new_rate_does_not_give_a_new_budget(limiter):
    changed = limiter(100)
    assert [admits(changed, MINUTE, own_rate=2) for _ in range(3)] == [None, None, 30]
    assert admits(changed, MINUTE, own_rate=50) == 2, "the minute that was used stays used"


def test_a_burst_of_its_own(limiter):
    tight = limiter(60, burst=2)
    assert [admits(tight, MINUTE) for _ in range(3)] == [None, None, 1]
    assert [admits(limiter(60, burst=100), MINUTE, cost=100)] == [None]


# ---- what the client is told -----------------------------------------------------------------------------------------


def test_the_headers_tell_what_is_left(limiter):
    told = limiter(60)
    headers = dict(told.charge("a caller", now=MINUTE).headers)
    assert headers == {
        b"ratelimit-policy": b'"default";q=60;w=60',
        b"ratelimit": b'"default";r=59;t=1',
        b"x-ratelimit-limit": b"60",
        b"x-ratelimit-remaining": b"59",
        b"x-ratelimit-reset": b"1",
    }
    for _ in range(59):
        headers = dict(told.charge("a caller", now=MINUTE).headers)
    assert headers[b"ratelimit"] == b'"default";r=0;t=60'


@examples(100)
@given(st.integers(1, 10**9), st.none() | st.integers(1, 10**9), st.lists(st.integers(1, 10**6), max_size=5))
def test_the_headers_are_structured_fields(rate, burst, costs):
    """RFC 9651, as draft-ietf-httpapi-ratelimit-headers uses it: lists of strings with integer parameters."""
    limiter = Limiter(Policy("default", rate, burst))
    for cost in [*costs, 1]:
        try:
            headers = dict(limiter.charge("a caller", cost, now=MINUTE).headers)
        except RateLimited as refusal:
            headers = {name.encode(): value.encode() for name, value in refusal.headers.items()}
            assert int(headers[b"retry-after"]) >= int(headers[b"x-ratelimit-reset"]) >= 1
        [(name, policy)] = parsed(headers[b"ratelimit-policy"])
        assert (name, policy) == ("default", {"q": rate, "w": 60})
        [(name, state)] = parsed(headers[b"ratelimit"])
        assert name == "default" and state.keys() == {"r", "t"}
        assert 0 <= state["r"] <= (burst or rate) and state["t"] >= 0


def parsed(field: bytes) -> Any:
    return http_sf.parse(field, tltype="list")


def test_a_refusal_says_how_long_to_wait_and_why(limiter):
    strict = limiter(6, burst=1)
    strict.charge("a caller", now=MINUTE)
    with pytest.raises(RateLimited) as refusal:
        strict.charge("a caller", now=MINUTE)
    assert refusal.value.detail == "The limit is 6 requests a minute; wait 10 s."
    assert refusal.value.extra == {"violated-policies": ["default"]}
    assert refusal.value.headers["retry-after"] == "10"
    assert refusal.value.headers["ratelimit"] == '"default";r=0;t=10'


# ---- all limits together ---------------------------------------------------------------------------------------------


def test_by_address_a_network_of_ipv6_is_one_client():
    limits = Limits.of(Policy("default", 100), anonymous=2, login=2)
    for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::"):
        assert dict(limits.anonymous(address))[b"ratelimit-policy"] == b'"anonymous";q=2;w=60'
    with pytest.raises(RateLimited, match="without an API key; wait 30 s") as refusal:
        limits.anonymous("2001:db8:1:2:abcd::99")
    assert refusal.value.extra == {"violated-policies": ["anonymous"]}
    limits.anonymous("2001:db8:1:3::1")
    limits.anonymous("192.0.2.1")
    assert limits.refused() == {"default": 0, "user": 0, "anonymous": 1, "login": 0}


@pytest.fixture(params=["memory", "valkey"])
def five_at_once(request, monkeypatch):
    """All limits of an installation in which a key may make five requests at once; time stands still, or nearly so."""
    url = request.getfixturevalue("valkey").patient_url if request.param == "valkey" else None
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic_ns=lambda: MINUTE))
    limits = Limits.of(Policy("default", 1, burst=5), anonymous=None, login=None, valkey_url=url)
    yield limits
    limits.close()


def admitted(limits, keys, user):
    """How many requests of so many keys of a user are let in, if each key makes as many as it may."""
    count = 0
    for number in range(keys):
        for _ in range(5):
            try:
                limits.charge(f"{user}'s key {number}", user=user)
            except RateLimited as refusal:
                assert refusal.extra == {"violated-policies": ["user"]}
            else:
                count += 1
    return count


def test_what_the_keys_of_one_user_do_together_is_bounded(five_at_once):
    assert admitted(five_at_once, 10, "ana") == USER_SHARE * 5
    assert admitted(five_at_once, 1, "bob") == 5, "another user has a budget of their own"
    with pytest.raises(RateLimited, match="All keys of one user together may make 4 requests a minute"):
        five_at_once.charge("ana's new key", user="ana")


def test_what_is_given_back_is_given_back_to_the_user_too(five_at_once):
    for number in range(2 * USER_SHARE):
        for _ in range(5):
            five_at_once.charge(f"key {number}", user="ana").give_back()
    assert admitted(five_at_once, 10, "ana") == USER_SHARE * 5


def test_a_charge_that_the_user_cannot_pay_is_not_charged_to_the_key(five_at_once):
    assert admitted(five_at_once, USER_SHARE - 1, "ana") == (USER_SHARE - 1) * 5
    for _ in range(3):
        five_at_once.charge("one", user="ana")
    raised = five_at_once.charge("another", user="ana")
    with pytest.raises(RateLimited, match="All keys of one user"):
        raised.raise_to(4)
    for _ in range(2):
        five_at_once.charge("another", user="ana")
    with pytest.raises(RateLimited, match="All keys of one user"):
        five_at_once.charge("another", user="ana")


@pytest.mark.parametrize(
    ("keys", "rate", "burst"),
    [
        (Policy("default", 10), 40, 40),
        (Policy("default", 10, burst=2), 40, 40),
        (Policy("default", 1, burst=3, most=1000), 4000, 12),
        (Policy("default", None), None, None),
    ],
)
def test_the_bound_of_a_user_leaves_room_for_what_one_key_may_do(keys, rate, burst):
    bound = of_user(keys)
    assert (bound.per_minute, bound.burst) == (rate, burst)


def test_who_guesses_keys_is_not_listened_to_after_a_while():
    limits = Limits.of(Policy("default", 100), anonymous=None, login=2)
    for _ in range(2):
        limits.login_check("192.0.2.1")
        limits.login_failed("192.0.2.1")
    with pytest.raises(RateLimited, match="wrong API keys") as refusal:
        limits.login_check("::ffff:192.0.2.1")
    assert refusal.value.extra == {"violated-policies": ["login"]}
    limits.login_check("192.0.2.2")
    assert limits.anonymous("192.0.2.1") == []


def test_everything_off():
    limits = Limits()
    assert limits.charge("a caller") is FREE
    assert limits.anonymous("192.0.2.1") == []
    limits.login_failed("192.0.2.1")
    limits.login_check("192.0.2.1")
    assert limits.refused() == {} and limits.shared() is None and not limits.waits
    limits.close()


def test_the_settings():
    assert rates("100/minute", None, None, None) == {
        "rate_limit": 100,
        "max_rate_limit": None,
        "anonymous_limit": 60,
        "login_limit": 20,
    }
    off = rates("off", None, None, None)
    assert off["anonymous_limit"] is None and off["login_limit"] is None
    told = rates("off", "1000/minute", "5/minute", "off")
    assert told["max_rate_limit"] == 1000 and told["anonymous_limit"] == 5 and told["login_limit"] is None
    for wrong in ("", "0/minute", "5", "5/second", "-1/minute", "1e3/minute", "²/minute", "9999999999999/minute"):
        with pytest.raises(ConfigError, match="number a minute"):
            parse_rate(wrong)
    with pytest.raises(ConfigError, match="max-rate-limit"):
        rates("100/minute", "off", None, None)
    assert [str(network) for network in parse_networks("10.0.0.0/8, ::1")] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(ConfigError, match="TASKADE_TRUSTED_PROXIES"):
        parse_networks("proxy.example.com")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rate-limit", "5/second", "number a minute"),
        ("--anonymous-limit", "many", "number a minute"),
        ("--max-rate-limit", "1/minute", "--max-rate-limit is at least"),
        ("--valkey-url", "http://127.0.0.1", "--valkey-url starts with"),
        ("--trusted-proxies", "proxy.example.com", "addresses and networks"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(option, value, said, tmp_path):
    done = CliRunner().invoke(serve, ["--data", str(tmp_path / "data"), option, value])
    assert done.exit_code == 1 and done.output.startswith("Error: ") and said in done.output
    assert done.output.count("\n") == 1 and not (tmp_path / "data").exists()


def test_processes_that_count_alone():
    several = Config(database_url="postgresql://localhost/x", workers=2)
    assert several.counts_alone
    assert not replace(several, rate_limit=None).counts_alone
    assert replace(several, rate_limit=None, login_limit=20).counts_alone
    assert not replace(several, valkey_url="valkey://localhost").counts_alone
    assert not replace(several, workers=1).counts_alone


# ---- Valkey ----------------------------------------------------------------------------------------------------------

WORK = """
import sys
from taskade_server.http.admission.limits import Limiter, Policy
from taskade_server.http.admission.valkey_buckets import SharedBuckets, Valkey
from taskade_server.kit.errors import RateLimited

client = Valkey(sys.argv[1])
limiter = Limiter(Policy("default", 1, burst=100), SharedBuckets(client, "together"))
admitted = 0
for _ in range(100):
    try:
        limiter.charge("a caller")
    except RateLimited:
        continue
    admitted += 1
assert client.answers
print(admitted)
"""


def test_processes_together_get_no_more(valkey):
    command = [sys.executable, "-c", WORK, valkey.patient_url]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [int(worker.communicate()[0]) for worker in workers]
    assert sum(said) in (100, 101), "one comes back each minute"


@examples(30)
@given(st.lists(st.tuples(st.integers(-HOUR, HOUR), st.integers(0, 3 * SECOND)), min_size=1, max_size=10))
def test_a_server_clock_that_is_set_back_or_forward(valkey_client, jumps):
    """Set back, it gives nothing and punishes nobody; set forward, it gives a full bucket at most."""
    limiter = Limiter(Policy("default", 60, burst=3), SharedBuckets(valkey_client, f"test{next(NUMBERS)}"))
    now = 1000 * HOUR
    for jump, pause in jumps:
        before = admitted_at(limiter, now)
        assert before <= 3
        now += jump // TICK * TICK
        after = admitted_at(limiter, now)
        assert after <= 3
        if jump <= 0:
            assert after == 0, "nothing for a clock that was set back"
            wait = admits(limiter, now)
            assert wait == 1, "and no punishment"
            now += wait * SECOND
            assert admits(limiter, now) is None
        now += pause // TICK * TICK


def admitted_at(limiter, now):
    """How many are admitted at one moment, until the first refusal."""
    for count in itertools.count():
        if admits(limiter, now) is not None:
            return count
    raise AssertionError


@pytest.fixture
def valkey_client(valkey) -> Iterator[Valkey]:
    client = Valkey(valkey.patient_url)
    yield client
    assert client.answers
    client.close()


def test_keys_go_when_their_buckets_are_full(valkey_client, valkey):
    limiter = Limiter(Policy("default", 60), SharedBuckets(valkey_client, "default"))
    limiter.charge("a caller", 5)
    limiter.charge("another").give_back()
    [connection] = valkey_client._idle
    for caller, seconds in (("a caller", 5), ("another", 0)):
        connection.send_command("PTTL", f"taskade:limit:default:{caller}")
        left = connection.read_response()
        assert 1000 * seconds < left <= 1000 * (seconds + 60)


def test_a_valkey_that_dies_under_use_and_comes_back_is_told_once_and_costs_no_request(valkey, caplog):
    client = Valkey(valkey.patient_url, retry_seconds=0.05)
    limiter = Limiter(Policy("default", 1_000_000), SharedBuckets(client, "default"))
    failed: list[BaseException] = []
    over = threading.Event()

    def work():
        try:
            while not over.is_set():
                charge = limiter.charge("a caller", 2)
                charge.raise_to(3)
                charge.give_back()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    with caplog.at_level(logging.INFO, "taskade"):
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.1)
            valkey.kill()
            until(lambda: not client.answers)
            time.sleep(0.1)
            valkey.start()
            until(lambda: client.answers)
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    said = [record.getMessage() for record in caplog.records if record.name == "taskade"]
    assert [("does not answer" in line, "answers again" in line) for line in said] == [(True, False), (False, True)] * 3
    assert "127.0.0.1" in said[0] and "counts rate limits for itself" in said[0]
    client.close()


def test_a_valkey_that_hangs_is_waited_for_once(valkey, caplog):
    client = Valkey(f"{valkey.url}?socket_timeout=0.2", retry_seconds=0.05)
    limiter = Limiter(Policy("default", 60), SharedBuckets(client, "default"))
    limiter.charge("a caller")
    valkey.pause()
    for _ in range(5):
        limiter.charge("a caller")
    assert not client.answers
    valkey.resume()
    until(lambda: client.answers)
    limiter.charge("a caller")
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2
    client.close()


def test_a_valkey_that_was_restarted_between_two_requests_is_not_missed(valkey, caplog):
    client = Valkey(valkey.patient_url)
    limiter = Limiter(Policy("default", 60), SharedBuckets(client, "default"))
    limiter.charge("a caller")
    valkey.kill()
    valkey.start()
    limiter.charge("a caller")
    assert client.answers and caplog.records == []
    client.close()


def test_without_a_valkey_each_process_counts_in_memory(valkey, caplog):
    valkey.kill()
    limits = Limits.of(Policy("default", 2), anonymous=1, login=1, valkey_url=valkey.url)
    assert limits.waits and limits.shared() is False
    charge = limits.charge("a caller")
    charge.give_back()
    for _ in range(2):
        limits.charge("a caller")
    with pytest.raises(RateLimited):
        limits.charge("a caller")
    limits.anonymous("192.0.2.1")
    with pytest.raises(RateLimited):
        limits.anonymous("192.0.2.1")
    assert len(caplog.records) == 1
    limits.close()


def test_what_one_place_keeps_the_other_does_not_give_back(valkey):
    client = Valkey(valkey.patient_url, retry_seconds=0.05)
    limiter = Limiter(Policy("default", 1, burst=5), SharedBuckets(client, "default"))
    there = [limiter.charge("a caller", 5)]
    valkey.kill()
    here = limiter.charge("a caller", 5)
    there[0].give_back()
    with pytest.raises(RateLimited):
        limiter.charge("a caller")
    valkey.start()
    until(lambda: client.answers)
    limiter.charge("a caller", 5)
    here.give_back()
    with pytest.raises(RateLimited):
        limiter.charge("a caller")
    client.close()


def test_a_password_is_not_told(caplog):
    client = Valkey("valkey://operator:hunter2@127.0.0.1:1/0")
    assert not client.look()
    assert "127.0.0.1:1" in caplog.text and "hunter2" not in caplog.text
    client.close()


def test_a_url_that_cannot_be_understood():
    for url in ("http://127.0.0.1", "valkey://127.0.0.1/0?socket_timeout=soon"):
        with pytest.raises(ValueError):
            Valkey(url)


def until(condition):
    """Wait for something that is bound to happen."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)
