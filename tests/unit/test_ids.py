"""Ids: UUIDv7 in 26 characters, which sort in the order of their making, whatever the clock does."""

import re
import time
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import ids

from tests.unit.examples import examples


def number_of(object_id):
    """The 128 bits of an id."""
    value = 0
    for char in object_id.partition("_")[2]:
        value = value * 32 + ids.ALPHABET.index(char)
    return value


def test_an_id_is_a_uuid_of_version_7(monkeypatch):
    monkeypatch.setattr(ids, "_last_ms", 0)  # a test before this one may have set the clock ahead
    before = time.time_ns() // 1_000_000
    for made in (ids.new("task"), *ids.many("task", 100)):
        unpacked = uuid.UUID(int=number_of(made))
        assert (unpacked.version, unpacked.variant) == (7, uuid.RFC_4122)
        assert before - 1000 <= unpacked.int >> 80 <= time.time_ns() // 1_000_000 + 1000


def test_ids_sort_as_they_were_made():
    made = [ids.new("task") for _ in range(20_000)]
    for count in (0, 1, 2, 9000):  # more than the counter of one millisecond holds
        more = ids.many("task", count)
        assert len(more) == count
        made += [*more, ids.new("task")]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(ids.is_id(one, "task") for one in made)


def test_no_two_threads_get_the_same():
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ids.new("task"), range(8000)))
        made += [one for some in pool.map(lambda _: ids.many("task", 100), range(80)) for one in some]
    assert len(set(made)) == len(made)


def test_what_is_random_in_an_id_is_so_in_each_of_many():
    """Each character behind the time is any of the 32, and no id repeats a part of another."""
    made = ids.many("task", 2000)
    for place in range(-12, 0):
        assert len({one[place] for one in made}) == 32
    assert len({one[-12:] for one in made}) == len(made)


def test_a_clock_that_steps_back_does_not_disturb_the_order(monkeypatch):
    made = [ids.new("task")]
    now = time.time_ns()
    for step in (0, -3_600_000_000_000, 1_000_000, -86_400_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda step=step: now + step)
        made += [ids.new("task") for _ in range(5000)]  # more than the counter of one millisecond holds
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_text_that_is_too_long_is_not_remembered():
    """It may be a megabyte of somebody's request, and the next one another."""
    tracemalloc.start()
    try:
        assert not any(ids.is_id(f"task_{number}" + "x" * 1_000_000, "task") for number in range(20))
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


@examples(200)
@given(st.integers(0, 2**128 - 1))
def test_every_number_has_its_text(value):
    text = f"task_{ids.encode(value)}"
    assert number_of(text) == value
    assert ids.is_id(text, "task")
    assert re.fullmatch(ids.pattern("task"), text)


@examples(200)
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_texts_sort_as_their_numbers(one, other):
    assert (ids.encode(one) < ids.encode(other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task_",
        "task",
        "task_123",
        "proj_01j9zq3v5kfg8wt2m4n6p8r0s2",  # another kind
        "task_01J9ZQ3V5KFG8WT2M4N6P8R0S2",  # capitals
        "task_01j9zq3v5kfg8wt2m4n6p8r0si",  # no letter of the alphabet: i, l, o and u are left out
        "task_81j9zq3v5kfg8wt2m4n6p8r0s2",  # more than 128 bits
        "task_01j9zq3v5kfg8wt2m4n6p8r0s2\n",
        "task_01j9zq3v5kfg8wt2m4n6p8r0s٢",
        "task-01j9zq3v5kfg8wt2m4n6p8r0s2",
        "task_task_01j9zq3v5kfg8wt2m4n6p",
    ],
)
def test_what_is_no_id(text):
    assert not ids.is_id(text, "task")


def test_an_id():
    assert ids.is_id("task_01j9zq3v5kfg8wt2m4n6p8r0s2", "task")
    assert ids.is_id("api_01j9zq3v5kfg8wt2m4n6p8r0s2", "api")
