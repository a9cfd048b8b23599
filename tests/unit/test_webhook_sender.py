"""What a sender does with its endpoints, with a clock of the tests and answers made up at random.

Why a real database beside an unreal clock: order is in the rows, and three days of retries are not to be waited for.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taskade_server.consumers import log_reader, matching, sender, webhooks
from taskade_server.consumers.pace import Pace
from taskade_server.consumers.sender import EndpointQueue, Sender, next_wait, outcome_of
from taskade_server.domain import webhooks as domain_webhooks
from taskade_server.domain.webhooks import Endpoint
from taskade_server.engine.log import Event
from taskade_server.kit import ids, time, webhook_signatures
from taskade_server.kit.budget import Budget
from taskade_server.outbound.connection import Exchange
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import FAILED, PENDING, SUCCEEDED, Delivery

OK = Exchange(status=200)
HOOKS = ["wh_a", "wh_b"]


def endpoint(**more):
    return Endpoint(
        **{
            "id": "wh_a",
            "workspace_id": "ws_1",
            "url": "http://example.com/",
            "headers": {},
            "rate_limit": None,
            "max_concurrency": 10,
            "thin": False,
            "user_id": "user_1",
            "version": 1,
            "closed": "",
            **more,
        }
    )


def delivery(seq, hook="wh_a", about="task_1", at=1, **more):
    made = Delivery(
        f"dlv_{hook}_{seq}",
        hook,
        "ws_1",
        seq,
        f"evt_{seq}",
        "task.updated",
        about,
        None,
        PENDING,
        0,
        0,
        at,
        at,
        None,
        None,
        None,
        None,
    )
    return made._replace(**more)


def failed(status=500, **more):
    return Exchange(status=status, **more)


def wait_after(attempts, exchange):
    """The seconds until the next attempt, for exchanges that are not the last."""
    wait = next_wait(attempts, exchange)
    assert wait is not None
    return wait


# ---- the schedule ----------------------------------------------------------------------------------------------------


def test_ten_attempts_in_three_days_each_a_fifth_more_or_less():
    assert next_wait(10, failed()) is None
    waits = [wait_after(attempts, failed()) for attempts in range(1, 10)]
    for wait, planned in zip(waits, sender.SCHEDULE, strict=True):
        assert 0.8 * planned <= wait <= 1.2 * planned
    assert sum(sender.SCHEDULE) == 75 * 3600 + 35 * 60 + 5
    assert len({next_wait(1, failed()) for _ in range(20)}) > 1, "those that failed together do not come back together"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_is_kept_within_a_day(status):
    assert wait_after(1, failed(status, retry_after=1000)) == 1000
    assert wait_after(1, failed(status, retry_after=10**9)) == 86_400
    assert wait_after(1, failed(status, retry_after=0)) >= 4
    assert wait_after(1, failed(500, retry_after=1000)) < 10


@pytest.mark.parametrize(
    ("exchange", "state", "error"),
    [
        (Exchange(status=200), SUCCEEDED, None),
        (Exchange(status=204), SUCCEEDED, None),
        (Exchange(status=302), PENDING, "redirect"),
        (Exchange(status=400), PENDING, "bad_status"),
        (Exchange(status=410), FAILED, "gone"),
        (Exchange(status=500), PENDING, "bad_status"),
        (Exchange(error="timeout", detail="Too slow."), PENDING, "timeout"),
        (Exchange(status=200, error="reset", detail="Cut off."), PENDING, "reset"),
    ],
)
def test_what_answers_mean(exchange, state, error):
    outcome = outcome_of(delivery(1), 1000, exchange)
    assert (outcome.state, outcome.attempt.error) == (state, error)
    assert (outcome.next_at is not None) == (state == PENDING)
    assert (outcome.attempt.detail is None) == (error is None)


def test_what_is_sent_again_on_request_has_the_whole_schedule_before_it():
    again = delivery(1, attempts=10, base=10)
    assert (outcome_of(again, 0, failed()).next_at or 0) in range(4_000, 7_000)
    assert outcome_of(delivery(1, attempts=9), 0, failed()).state == FAILED
    assert outcome_of(delivery(1, type=deliveries.TEST), 0, failed()).state == FAILED


# ---- an endpoint -----------------------------------------------------------------------------------------------------


def begin(queue, count):
    for seq in range(count):
        queue.waiting.append(delivery(seq))
        queue.begin()


def test_never_more_at_a_time_than_allowed():
    queue = EndpointQueue(endpoint(max_concurrency=3))
    begin(queue, 2)
    assert queue.room(0) == 1
    begin(queue, 1)
    assert queue.room(0) == 0
    queue.end(OK, 0)
    assert queue.room(0) == 1


def test_never_faster_than_allowed():
    queue = EndpointQueue(endpoint(rate_limit=60))
    sent = 0
    for tick in range(1001):
        now = tick / 10
        for _ in range(queue.room(now)):
            queue.waiting.append(delivery(sent))
            queue.begin()
            queue.end(OK, now)
            sent += 1
    assert 100 <= sent <= 101
    assert queue.opens_at(100.0) > 100.0


def test_what_fails_is_left_alone_until_one_attempt_tells_that_it_is_back():
    queue = EndpointQueue(endpoint())
    now = 0.0
    for _ in range(sender.OPEN_AFTER):
        assert queue.room(now) > 0
        begin(queue, 1)
        queue.end(failed(), now)
    pauses = []
    for _ in range(10):
        assert queue.room(now) == 0
        pauses.append(queue.opens_at(now) - now)
        now = queue.opens_at(now)
        assert queue.room(now) == 1, "one attempt, not ten"
        begin(queue, 1)
        assert queue.room(now) == 0
        queue.end(failed(), now)
    assert pauses[0] < 13 and 240 <= pauses[-1] <= 360
    now = queue.opens_at(now)
    begin(queue, 1)
    queue.end(OK, now)
    assert queue.room(now) == 10


def test_who_asks_for_time_gets_it():
    queue = EndpointQueue(endpoint())
    begin(queue, 1)
    queue.end(failed(429, retry_after=90), 10.0)
    assert queue.room(99) == 0 and queue.room(100) == 10
    begin(queue, 1)
    queue.end(failed(503), 100.0)
    assert queue.room(100.5) == 0 and queue.room(103) == 10
    begin(queue, 1)
    queue.end(Exchange(error=sender.INTERNAL), 103.0)
    assert queue.room(103) == 10, "a fault of this server tells nothing about the endpoint"


def test_a_change_of_the_webhook_gives_it_another_chance():
    queue = EndpointQueue(endpoint())
    for _ in range(sender.OPEN_AFTER):
        begin(queue, 1)
        queue.end(failed(), 0)
    queue.change(endpoint(version=2, max_concurrency=100))
    assert queue.room(0) == 0, "what cannot have mended it is no chance"
    queue.change(endpoint(version=3, url="http://example.com/mended"))
    assert queue.room(0) == 10


# ---- order, whatever fails -------------------------------------------------------------------------------------------


def forget(tx):
    for table in ("deliveries", "attempts", "webhook_states"):
        tx.run(f"DELETE FROM {table}")


class World:
    """Events about a few objects for two webhooks, and a clock that goes to the next due time by itself."""

    def __init__(self, db, answers):
        self.db = db
        self.now = 1_000_000
        self.answers = answers
        self.seq = 0
        self.told = defaultdict(list)
        self.under_way = {}
        db.write_sync(forget)

    def add(self, about):
        self.seq += 1
        for hook in HOOKS:
            self.db.write_sync(partial(deliveries.add, fresh=[delivery(self.seq, hook, about, self.now)]))

    def resend(self, number):
        def unit(tx):
            found = deliveries.newest(tx, HOOKS[0], "ws_1", deliveries.Filter(), None, 100)
            if found:
                deliveries.queue_again(tx, [found[number % len(found)]], self.now)

        self.db.write_sync(unit)

    def begin(self, number):
        """An attempt of something that is due; or the clock goes on to when something is."""

        def unit(tx):
            due = [one for hook in HOOKS for one in deliveries.due(tx, hook, "ws_1", self.now, 100)]
            free = [one for one in due if one.id not in self.under_way]
            if free:
                chosen = free[number % len(free)]
                self.under_way[chosen.id] = chosen
            elif not due:
                self.now = max(self.now, min(deliveries.due_times(tx).values(), default=self.now))

        self.db.read_sync(unit)

    def end(self, number):
        """An attempt that is under way is over."""
        if self.under_way:
            chosen = self.under_way.pop([*self.under_way][number % len(self.under_way)])
            answer = next(self.answers)
            self.db.write_sync(partial(deliveries.record, outcomes=[outcome_of(chosen, self.now, answer)]))
            self.told[chosen.webhook_id, chosen.object_id].append((chosen.seq, answer.ok))

    def lanes(self):
        """The pending deliveries of each object, in order, with whether they may be sent."""
        found = defaultdict(list)
        rows = self.db.read_sync(
            lambda tx: tx.all(
                "SELECT webhook_id, object_id, next_at FROM deliveries WHERE state = 'pending' ORDER BY seq"
            )
        )
        for hook, about, next_at in rows:
            found[hook, about].append(next_at is not None)
        return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["task_1", "task_2"])),
        st.tuples(st.just("begin"), st.integers(0, 50)),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(st.just("resend"), st.integers(0, 50)),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_of_each_object_exactly_the_first_pending_event_may_be_sent(sqlite_db, steps, seed):
    """Whatever comes, fails and is asked for again; so nobody waits for another object, and nothing for ever."""
    rng = random.Random(seed)
    answers = iter(lambda: rng.choice([OK, failed(), failed(410), failed(429, retry_after=5)]), None)
    world = World(sqlite_db, answers)
    resent = False
    for what, how in steps:
        getattr(world, what)(how)
        resent = resent or what == "resend"
        for lane in world.lanes().values():
            assert lane == [True] + [False] * (len(lane) - 1)
    world.answers = iter(lambda: OK, None)
    for _ in range(2000):
        if not world.lanes() and not world.under_way:
            break
        world.begin(rng.randrange(50))
        world.end(rng.randrange(50))
    assert not world.lanes(), "everything ends"
    if not resent:
        for sent in world.told.values():
            assert [seq for seq, _ in sent] == sorted(seq for seq, _ in sent)


def test_units_about_the_same_webhook_take_turns(postgresql_db):
    """One puts a delivery behind another that a second one ends just then: neither sees what the other does."""
    db = postgresql_db
    first, second = delivery(1), delivery(2)
    db.write_sync(forget)
    db.write_sync(lambda tx: deliveries.add(tx, [first]))

    async def scene():
        added, go_on = asyncio.Event(), SimpleNamespace(now=False)
        loop = asyncio.get_running_loop()

        def add(tx):
            deliveries.add(tx, [second])
            loop.call_soon_threadsafe(added.set)
            while not go_on.now:
                tx.one("SELECT pg_sleep(0.01)")

        adding = asyncio.create_task(db.write(add))
        await added.wait()
        recording = asyncio.create_task(db.write(lambda tx: deliveries.record(tx, [outcome_of(first, 5, OK)])))
        await asyncio.sleep(0.2)
        go_on.now = True
        await asyncio.gather(adding, recording)

    asyncio.run(scene())
    assert db.read_sync(lambda tx: deliveries.due(tx, "wh_a", "ws_1", 10, 10))[0].seq == 2


# ---- what no attempt may stop ----------------------------------------------------------------------------------------


def test_an_attempt_that_the_database_refuses_holds_up_no_other(db):
    """Without what came back it is kept all the same."""
    db.write_sync(forget)
    both = [delivery(1), delivery(2, about="task_2")]
    db.write_sync(lambda tx: deliveries.add(tx, both))
    nobody: Any = None
    nothing: Any = None  # which the column does not take
    lease: Any = SimpleNamespace(hold=lambda tx: None)
    queue = EndpointQueue(endpoint())

    async def scene():
        carrier = Sender(db, nobody, b"", lease, asyncio.Event(), (0, 1), Counter(), Pace())
        good, bad = (outcome_of(one, 5, Exchange(status=200, body=b"fine")) for one in both)
        carrier._outcomes = [(queue, good), (queue, bad._replace(attempt=bad.attempt._replace(response_body=nothing)))]
        await carrier._record()

    asyncio.run(scene())
    found = db.read_sync(lambda tx: deliveries.newest(tx, "wh_a", "ws_1", deliveries.Filter(), None, 10))
    assert [one.state for one in found] == [SUCCEEDED, SUCCEEDED]
    kept = [db.read_sync(lambda tx, one=one: deliveries.attempts_of(tx, one.id))[0].response_body for one in both]
    assert kept == ["fine", ""]


def test_the_body_of_a_thin_webhook_is_short():
    event = sender.test_event(delivery(7, event_id=ids.new("evt")), "user_1")
    body = json.loads(sender.body_of(event, 6, thin=True))
    assert body["data"] == {"id": event.object_id} and body["previous_seq"] == 6
    assert body["timestamp"] == time.format_ms(1)


def test_an_event_that_no_filter_can_judge_is_on_record_and_holds_up_no_other(db):
    db.write_sync(forget)
    events = [
        Event(
            "ws_1",
            seq,
            f"evt_{seq}",
            "task.updated",
            "task",
            f"task_{seq}",
            None,
            None,
            None,
            None,
            1,
            data,
            None,
            None,
            None,
            None,
        )
        for seq, data in ((1, "{}"), (2, "no JSON"), (3, "{}"))
    ]

    def fits(event, facts, budget):
        return bool(facts())

    subscription: Any = SimpleNamespace(
        id="wh_a",
        workspace_id="ws_1",
        concerns=lambda event: True,
        fits=fits,
        fault=None,
        enabled=True,
        was_enabled=lambda seq: True,
    )
    page = matching.EventPage("ws_1", 0, events, [subscription])
    assert all(matching.match_events(page, Budget(log_reader.TURN_STEPS)))
    db.write_sync(lambda tx: webhooks._deliver(tx, "wh_a", page.matches["wh_a"]))
    found = db.read_sync(lambda tx: deliveries.newest(tx, "wh_a", "ws_1", deliveries.Filter(), None, 10))
    assert [(one.seq, one.state, one.previous_seq) for one in found] == [
        (3, PENDING, 2),
        (2, FAILED, 1),
        (1, PENDING, None),
    ]
    (attempt,) = db.read_sync(lambda tx: deliveries.attempts_of(tx, found[1].id))
    assert attempt.error == "internal_error" and "filter" in (attempt.detail or "")


def test_an_attempt_lasts_no_longer_than_the_lease(db):
    """Whoever has the next lease may send the next event, so this one must be over."""
    given: list[float] = []

    class Out:
        async def post(self, url: str, *, timeout: float, **rest: object) -> Exchange:
            given.append(timeout)
            return OK

    async def scene():
        out: Any = Out()
        keys = [webhook_signatures.new_secret()]
        told: Any = SimpleNamespace(
            id="wh_a",
            url="http://example.com/",
            headers={},
            thin=False,
            user_id="user_1",
            signing_keys=lambda secret, at: keys,
        )
        for left in (25.0, 7.0, -1.0):
            lease: Any = SimpleNamespace(left=left)
            carrier = Sender(db, out, b"", lease, asyncio.Event(), (0, 1), Counter(), Pace())
            await carrier._send(told, delivery(1, type=deliveries.TEST), None, 1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scene())
    assert given == [sender.TIMEOUT_SECONDS, 7.0]


# ---- what endpoints deserve ------------------------------------------------------------------------------------------


def test_what_takes_nothing_for_five_days_is_disabled(db, monkeypatch):
    """A success begins the count anew, and so does a pause of days; a fault of this server does not count."""
    db.write_sync(forget)
    disabled: list[str] = []
    monkeypatch.setattr(domain_webhooks, "disable", lambda tx, webhook_id, reason: disabled.append(reason))
    day = time.DAY_MS

    def happens(at, exchange):
        db.write_sync(lambda tx: sender.note(tx, [outcome_of(delivery(1), at, exchange)], None))

    happens(0, failed())
    happens(4 * day, failed())
    happens(4 * day + 1, OK)
    happens(5 * day, failed())
    happens(11 * day, Exchange(error=sender.INTERNAL, detail="Ours."))
    assert disabled == []
    happens(11 * day, failed())
    assert disabled == [], "nobody tried for six days"
    for number in range(12, 17):
        happens(number * day, failed())
    assert disabled == []
    happens(17 * day, failed())
    assert disabled == ["failing"]
    happens(11 * day, failed(410))
    assert "gone" in disabled


def test_what_is_over_is_forgotten_in_time_and_what_nobody_is_there_for_ends(db):
    """No webhook is there, as after it was deleted."""
    db.write_sync(forget)
    old, young, orphan = delivery(1), delivery(2, about="task_2"), delivery(3, about="task_3")
    db.write_sync(lambda tx: deliveries.add(tx, [old, young, orphan]))
    db.write_sync(lambda tx: deliveries.record(tx, [outcome_of(old, 1_000, OK), outcome_of(young, 5_000, OK)]))
    db.write_sync(lambda tx: webhooks.clean(tx, 2_000))
    found = db.read_sync(lambda tx: deliveries.newest(tx, "wh_a", "ws_1", deliveries.Filter(), None, 10))
    assert [(one.seq, one.state) for one in found] == [(3, deliveries.CANCELLED), (2, SUCCEEDED)]
    assert db.read_sync(lambda tx: deliveries.attempts_of(tx, old.id)) == []
    assert len(db.read_sync(lambda tx: deliveries.attempts_of(tx, young.id))) == 1
