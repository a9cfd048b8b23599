"""The guarantees that hold between requests: one effect, all or nothing, and an order that explains what everybody saw.

The parts of `taskade selftest` in their short form; `taskade selftest --long` runs them for as long as it takes.
"""

import pytest
from taskade_server.selftest import batches, consistency, once
from taskade_server.selftest.consistency import Transaction, judge
from taskade_server.selftest.parts import Orders


def quiet(line: str) -> None:
    pass


@pytest.fixture
def orders(fresh_database, database):
    url = fresh_database if database == "postgresql" else ""
    return Orders(seed=7, database_url=url, say=quiet)


def test_many_identical_requests_with_one_key_have_one_effect(orders):
    orders.rounds = 8
    report = once.run(orders)
    assert report.faults == []
    assert report.figures["answers of first attempts"] == 8
    assert int(report.figures["answers given again"]) >= 8


def test_a_batch_is_seen_whole_or_not_at_all(orders):
    orders.rounds = 30
    report = batches.run(orders)
    assert report.faults == []
    assert int(report.figures["failed on purpose"]) > 10
    assert int(report.figures["looks meanwhile"]) > 30


def test_there_is_an_order_that_explains_what_all_clients_saw(orders):
    orders.rounds = 40
    report = consistency.run(orders)
    assert report.faults == []
    assert int(report.figures["appends"]) > 40


WROTE_A = Transaction("a", 0.0, 1.0, appended={"x": "a/0", "y": "a/1"})
WROTE_B = Transaction("b", 2.0, 3.0, appended={"x": "b/0"})
FINAL = {"x": ["a/0", "b/0"], "y": ["a/1"]}


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        pytest.param(Transaction("r", 4.0, 5.0, read={"x": ["a/0"]}), "no order explains", id="a stale read"),
        pytest.param(Transaction("r", 0.5, 5.0, read={"x": ["a/0"], "y": []}), "no order explains", id="half a batch"),
        pytest.param(Transaction("r", 4.0, 5.0, read={"x": ["b/0"]}), "never was", id="another order"),
        pytest.param(Transaction("r", 4.0, 5.0, appended={"x": "r/0"}), "appended and lost", id="a lost append"),
    ],
)
def test_the_judge_of_consistency_can_tell(reading, said):
    assert judge([WROTE_A, WROTE_B], FINAL) == []
    fine = Transaction("f", 1.5, 5.0, read={"x": ["a/0"], "y": ["a/1"]})
    assert judge([WROTE_A, WROTE_B, fine], FINAL) == []
    (fault, *_) = judge([WROTE_A, WROTE_B, reading], FINAL)
    assert said in fault
