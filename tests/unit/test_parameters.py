"""The one reader of plain query parameters: what it gives, and that everything wrong is told at once."""

import pytest
from taskade_server.http.wire.parameters import MAX_VALUES, Parameters
from taskade_server.http.wire.query_string import pairs
from taskade_server.kit.errors import InvalidQuery

ALLOWED = ("after", "limit", "state", "type")


def read(query_string: str) -> Parameters:
    return Parameters(pairs(query_string), ALLOWED, ["state", "type"])


def faults(parameters: Parameters) -> list[tuple[str | None, str]]:
    with pytest.raises(InvalidQuery) as caught:
        parameters.fail()
    return [(issue.parameter, issue.code) for issue in caught.value.errors]


def test_parameters_are_read():
    found = read("limit=5&state=a,b&after=2024-01-15T10:30:00Z&state=c")
    assert found.number("limit", 100, 1000) == 5
    assert (found.several("state"), found.several("type")) == (["a", "b", "c"], [])
    assert found.instant("after") == 1705314600000
    found.fail()


def test_what_is_not_given_has_its_default():
    found = read("")
    assert (found.number("limit", 100, 1000), found.text("after"), found.instant("after")) == (100, None, None)
    found.fail()


@pytest.mark.parametrize("value", ["0", "1001", "-1", "+1", "x", "", "1.0", "٣"])
def test_a_number_that_is_none_is_a_fault(value):
    found = read(f"limit={value}")
    assert found.number("limit", 100, 1000) == 100
    assert faults(found) == [("limit", "out_of_range")]


def test_everything_wrong_is_told_at_once():
    found = read(f"limitt=1&limit=0&limit=1&after=now&{'&'.join(['type=x'] * (MAX_VALUES + 1))}")
    assert (found.number("limit", 100, 1000), found.instant("after")) == (100, None)
    assert faults(found) == [
        ("limitt", "unknown_parameter"),
        ("limit", "repeated"),
        ("type", "too_many"),
        ("limit", "out_of_range"),
        ("after", "invalid_format"),
    ]
    assert found.issues[0].detail == (
        'There is no parameter "limitt". Did you mean "limit"? Allowed: after, limit, state, type.'
    )
