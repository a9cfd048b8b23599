"""The guarantees that hold between requests: one effect, all or nothing, and an order that explains what everybody saw.

In short; `make faults ARGS=--long` and, for `once`, `taskade selftest once --long` run them for as long as it takes.
"""

import pytest
from taskade_server.selftest import once
from taskade_server.selftest.parts import Options

from tests.faults import batches, consistency
from tests.faults.consistency import Transaction, judge


def quiet(line: str) -> None:
    pass


@pytest.fixture
def options(fresh_database, database):
    url = fresh_database if database == "postgresql" else ""
    return Options(seed=7, database_url=url, say=quiet)


def test_many_identical_requests_with_one_key_have_one_effect(options):
    options.rounds = 8
    report = once.run(options)
    assert report.faults == []
    assert report.figures["answers of first attempts"] == 8
    assert int(report.figures["answers given again"]) >= 8


def test_a_batch_is_seen_whole_or_not_at_all(options):
    options.rounds = 30
    report = batches.run(options)
    assert report.faults == []
    assert int(report.figures["failed on purpose"]) > 10
    assert int(report.figures["looks meanwhile"]) > 30


def test_there_is_an_order_that_explains_what_all_clients_saw(options):
    options.rounds = 40
    report = consistency.run(options)
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
