"""Order keys: there is always room between two of them, so moving a task rewrites that task only."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from taskade_server.domain import ordering
from taskade_server.kit import ids

from tests.unit.examples import examples

KEYS = st.from_regex(re.compile(ordering.PATTERN), fullmatch=True).filter(lambda key: len(key) <= 40)


def is_key(text):
    return re.fullmatch(ordering.PATTERN, text) is not None


@examples(200)
@given(st.none() | KEYS, st.none() | KEYS)
def test_there_is_always_a_key_in_between(low, high):
    assume(low is None or high is None or low != high)
    if low is not None and high is not None and low > high:
        low, high = high, low
    key = ordering.between(low, high)
    assert is_key(key)
    assert low is None or low < key
    assert high is None or key < high


@examples(200)
@given(KEYS, KEYS)
def test_keys_in_the_wrong_order_are_refused(one, other):
    with pytest.raises(ValueError, match="before"):
        ordering.between(max(one, other), min(one, other))


@examples(200)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200))
def test_any_sequence_of_moves_keeps_the_order(places):
    keys = [ordering.initial(ids.new("task"))]
    for place in places:
        place %= len(keys) + 1
        low = keys[place - 1] if place else None
        high = keys[place] if place < len(keys) else None
        keys.insert(place, ordering.between(low, high))
    assert keys == sorted(set(keys))
    assert all(map(is_key, keys))


@pytest.mark.parametrize("to_the_top", [True, False], ids=["to the top", "to the end"])
def test_two_thousand_tasks_moved_one_after_the_other_still_have_keys_that_a_client_may_send_back(to_the_top):
    key = ordering.initial(ids.new("task"))
    for _ in range(2000):
        key = ordering.between(None, key) if to_the_top else ordering.between(key, None)
        assert is_key(key), f"{len(key)} characters"


def test_the_same_gap_can_be_split_hundreds_of_times():
    low, high = ordering.initial(ids.new("task")), ordering.initial(ids.new("task"))
    for _ in range(400):
        high = ordering.between(low, high)
        assert is_key(high), f"{len(high)} characters"


def test_new_tasks_come_behind_older_ones():
    keys = [ordering.initial(ids.new("task")) for _ in range(3000)]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert all(map(is_key, keys))


@examples(200)
@given(st.none() | KEYS, st.none() | KEYS, st.integers(1, 300))
def test_keys_are_spread_evenly_between_two_others(low, high, count):
    assume(low is None or high is None or low != high)
    if low is not None and high is not None and low > high:
        low, high = high, low
    keys = ordering.spread(low, high, count)
    assert len(keys) == count
    assert keys == sorted(set(keys))
    assert all(map(is_key, keys))
    assert not any(map(ordering.is_initial, keys))
    assert low is None or low < keys[0]
    assert high is None or keys[-1] < high
    assert low is not None or high is not None or max(map(len, keys)) <= 3


def test_the_key_of_a_new_task_is_never_given_to_another():
    """Tasks are made without a look at the others, so what lies in between has to keep out of their way."""
    low, high = "01j9zq3v5kfg8wt2h0123456" + "78g", "01j9zq3v5kfg8wt2h0123456" + "78j"
    assert ordering.is_initial(low[:-1] + "h")
    key = ordering.between(low, high)
    assert low < key < high
    assert not ordering.is_initial(key)


def test_ids_that_clients_number_themselves_have_different_keys():
    keys = [ordering.initial(f"task_{number:026}") for number in range(100)]
    assert len(set(keys)) == 100
