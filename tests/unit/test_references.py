"""References: what is put in has the shape that it was written for, whatever a value holds.

Why values are generated: a name that anybody may give a task is text from a stranger, put into requests that run with
the rights of somebody else.
"""

import json
import time
from contextlib import suppress
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from taskade_server.kit import references
from taskade_server.kit.budget import UNLIMITED, Budget, BudgetSpent
from taskade_server.kit.errors import Invalid
from taskade_server.kit.references import FaultyReference, Reference, Values

from tests.unit.examples import examples

INJECTED = [
    '{"$ref": "event.secret"}', '{"$ref":"event.secret","format":"upper"}', "{event.secret}", "{{event.secret}}",
    "${event.secret}", "a\r\nX-Header: b", "../projects", "..%2f..", "%2f", "%252f", "a/b", "a?b=c", "a&b=c", "a#b",
    '"', "\\", '", "x": "', "}", "{", "\u2028",
]  # fmt: skip
TEXTS = st.sampled_from(INJECTED) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9
)
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("$ref"), inner, max_size=3),
    max_leaves=8,
)
EVENT = {
    "data": {
        "id": "task_1",
        "name": "Straße",
        "due": "2024-03-31T23:30:00.000Z",
        "none": None,
        "n": 12,
        "labels": ["x", "y"],
    }
}


def values(named: Any, budget: Budget | None = None) -> Values:
    return Values(budget or Budget(UNLIMITED), named)


def put(body: Any, event: Any = EVENT) -> Any:
    """A body with the values of one event in it, after the checks that come before anything runs."""
    assert references.find("", body).issues == []
    return values({"event": event}).body(body)


def faults(body: Any, path: str = "") -> list[tuple[str | None, str]]:
    return [(issue.pointer, issue.code) for issue in references.find(path, body).issues]


# ---- values are data -------------------------------------------------------------------------------------------------


@examples(100)
@given(JSON)
def test_a_reference_in_place_of_a_value_is_the_value_itself(value):
    body = {"a": [{"$ref": "event.v"}], "b": '{"$ref": "event.v"}', "c": {"$ref": "event.no", "default": 1}}
    assert put(body, {"v": value, "secret": "s"}) == {"a": [value], "b": value, "c": 1}


@examples(100)
@given(TEXTS, TEXTS)
@example('{"$ref": "event.', 'b"}')
@example('{"$ref": ', '"event.secret"}')
def test_what_is_put_into_a_text_is_not_looked_at_again(first, second):
    text = '<{"$ref": "event.a"}{"$ref": "event.b"}>'
    assert put({"name": text}, {"a": first, "b": second, "secret": "s"}) == {"name": f"<{first}{second}>"}
    filled = put({"name": f"{text} x"}, {"a": first, "b": second, "secret": "s"})
    assert filled == {"name": f"<{first}{second}> x"}


@examples(100)
@given(JSON)
def test_other_values_in_a_text_are_json(value):
    filled = put({"name": 'is {"$ref": "event.v"}'}, {"v": value})["name"].removeprefix("is ")
    assert filled == value if isinstance(value, str) else json.loads(filled) == value


@examples(100)
@given(JSON)
@example("a/b")
@example("%2f")
@example("é")
@example("a\n")
def test_what_is_put_into_a_path_stays_one_plain_segment(value):
    path = references.template("/tasks/{event.v}/move")
    assert path.shape == "/tasks/-/move"
    try:
        filled, _ = values({"event": {"v": value, "secret": "s"}}).path(path)
    except Invalid:
        return
    before, tasks, word, move = filled.split("/")
    assert (before, tasks, word, move) == ("", "tasks", str(value), "move")
    assert not set(word) & set("%?#/\\ \r\n{}\"'")


@examples(100)
@given(JSON)
def test_what_is_put_into_a_parameter_stays_one_value(value):
    path = references.template('/tasks?a={"$ref": "event.v"}&b=c')
    filled, query_string = values({"event": {"v": value, "secret": "s"}}).path(path)
    first, second = query_string.split("&")
    assert (filled, second, first[:2]) == ("/tasks", "b=c", "a=")
    assert unquote(first[2:]) == references.as_text(value)
    assert query_string.isascii()
    assert not set(first[2:]) & set("=#+ \r\n{}/")


@examples(100)
@given(TEXTS)
def test_a_default_is_put_in_as_it_is(text):
    body = {"a": {"$ref": "event.no", "default": text, "format": "upper"}}
    if '"$ref"' in text:
        assert faults(body) == [("/body/a/default", "not_allowed")]
    else:
        assert put(body) == {"a": text}


def test_a_question_mark_in_a_reference_does_not_begin_the_parameters():
    path = references.template('/tasks/{"$ref": "event.no", "default": "who?"}?q={"$ref": "event.no", "default": "a?"}')
    assert path.shape == "/tasks/-"
    with pytest.raises(Invalid, match="plain word"):
        values({"event": {}}).path(path)
    path = references.template('/tasks?q={"$ref": "event.no", "default": "a?&b"}&c=d?')
    assert values({"event": {}}).path(path) == ("/tasks", "q=a%3F%26b&c=d?")


# ---- the ways to a value ---------------------------------------------------------------------------------------------


@examples(100)
@given(JSON, st.data())
def test_every_value_is_found_by_the_way_to_it(value, data):
    way, node = ["event"], value
    while isinstance(node, dict | list) and node and data.draw(st.booleans()):
        keys = [key for key in node if "." not in key] if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        way.append(str(key))
        node = node[key]
    named = values({"event": value})
    assert named.get(Reference(".".join(way))) is node
    named.add(["0", "step"], json.dumps(value))
    assert named.get(Reference(".".join(["step", *way[1:]]))) == node


@pytest.mark.parametrize(
    "way",
    [
        "event.nane",
        "event.data.name.x",
        "event.data.labels.2",
        "event.data.labels.-1",
        "event..data",
        "event.",
        "event.data.labels.²",
        "later.id",
    ],
)
def test_a_way_that_leads_nowhere_is_told_or_has_a_default(way):
    with pytest.raises(Invalid) as told:
        values({"event": EVENT}).body({"a": {"$ref": way}})
    assert way in told.value.detail
    assert [issue.code for issue in told.value.errors] == ["unknown_reference"]
    assert put({"a": {"$ref": way, "default": []}}) == {"a": []}
    assert put({"a": f'x{{"$ref": "{way}", "default": null}}'}) == {"a": "xnull"}


def test_a_default_does_not_stand_for_null():
    assert put({"a": {"$ref": "event.data.none", "default": "x"}}) == {"a": None}


def test_an_empty_result_is_null():
    named = values({})
    named.add(["0"], "")
    assert named.get(Reference("0")) is None


# ---- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "form", "made"),
    [
        ("name", "upper", "STRASSE"),
        ("name", "lower", "straße"),
        ("name", "truncate:3", "Str"),
        ("name", "truncate:99", "Straße"),
        ("name", "json", '"Straße"'),
        ("labels", "json", '["x","y"]'),
        ("due", "date", "2024-03-31"),
        ("n", "number", 12),
        ("n", "truncate:1", "1"),
        ("none", "json", "null"),
        ("none", "upper", None),
        ("none", "date", None),
        ("none", "number", None),
    ],
)
def test_formats(way, form, made):
    reference = {"$ref": f"event.data.{way}", "format": form}
    assert put({"a": reference}) == {"a": made}
    shown = made if isinstance(made, str) else json.dumps(made)
    assert put({"a": f"<{json.dumps(reference)}>"}) == {"a": f"<{shown}>"}
    assert put({"a": json.dumps(dict(reversed(reference.items())), indent=1)}) == {"a": made}


@pytest.mark.parametrize(
    ("value", "number"),
    [("12", 12), ("-0.5", -0.5), ("1e3", 1000.0), (1.5, 1.5), (7, 7)],
)
def test_texts_that_are_numbers(value, number):
    made = references.formatted(value, "number")
    assert (made, type(made)) == (number, type(number))


NO_NUMBERS: list[Any] = ["", " 1", "1 ", "0x1", "1e999", "NaN", "٣", "01", "9" * 5000, True, [], {}]
NO_DATES: list[Any] = ["", "today", "2024-02-30", 5, True, []]
NO_TEXTS: list[Any] = [True, [], {}]


@pytest.mark.parametrize(
    ("form", "value"),
    [
        *(("number", value) for value in NO_NUMBERS),
        *(("date", value) for value in NO_DATES),
        *((form, value) for form in ("upper", "lower", "truncate:3") for value in NO_TEXTS),
    ],
)
def test_values_that_a_format_is_not_for(form, value):
    with pytest.raises(Invalid) as told:
        references.formatted(value, form)
    assert form.partition(":")[0] in told.value.detail
    assert [issue.code for issue in told.value.errors] == ["invalid_value"]


def test_a_day_is_that_of_the_zone():
    named = Values(Budget(UNLIMITED), {"event": EVENT}, ZoneInfo("Europe/Berlin"))
    assert named.get(Reference("event.data.due", "date")) == "2024-04-01"
    assert references.formatted("2024-03-31", "date", ZoneInfo("Pacific/Apia")) == "2024-03-31"


# ---- what is refused before anything runs ----------------------------------------------------------------------------


WRONG = {
    "member": ({"$ref": "a.b", "fromat": "upper"}, "/fromat", "unknown_field"),
    "member with a slash": ({"$ref": "a.b", "a/b": 1}, "/a~1b", "unknown_field"),
    "path": ({"$ref": 5}, "/$ref", "wrong_type"),
    "path of two": ({"$ref": None, "default": 1}, "/$ref", "wrong_type"),
    "format": ({"$ref": "a.b", "format": "uper"}, "/format", "invalid_value"),
    "format is null": ({"$ref": "a.b", "format": None}, "/format", "invalid_value"),
    "format is a list": ({"$ref": "a.b", "format": ["upper"]}, "/format", "invalid_value"),
    "format is only described": ({"$ref": "a.b", "format": "truncate:N"}, "/format", "invalid_value"),
    "truncate without a number": ({"$ref": "a.b", "format": "truncate:"}, "/format", "invalid_value"),
    "truncate to nothing": ({"$ref": "a.b", "format": "truncate:0"}, "/format", "invalid_value"),
    "truncate to less": ({"$ref": "a.b", "format": "truncate:-1"}, "/format", "invalid_value"),
    "default": ({"$ref": "a.b", "default": [{"$ref": "a.c"}]}, "/default", "not_allowed"),
    "default in a text": ({"$ref": "a.b", "default": 'x {"$ref": "a.c"}'}, "/default", "not_allowed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_reference_is_told_with_its_place(case):
    reference, member, code = WRONG[case]
    assert faults({"x": [1, reference]}) == [(f"/body/x/1{member}", code)]
    assert faults({"x/y": f"a {json.dumps(reference)} b"}) == [(f"/body/x~1y{member}", code)]
    assert faults(None, f"/tasks?q={json.dumps(reference)}") == [(f"/path{member}", code)]


def test_advice_names_what_was_meant():
    (issue,) = references.find("", {"x": {"$ref": "a.b", "format": "uper"}}).issues
    assert 'Did you mean "upper"?' in issue.detail
    (issue,) = references.find("", {"x": {"$ref": "a.b", "defalt": 1}}).issues
    assert 'Did you mean "default"?' in issue.detail


@pytest.mark.parametrize(
    "text",
    ['{"$ref": "a.b"', '{"$ref": "a.b",}', '{"$ref": 5 5}', '{"$ref":', '{"$ref": "a", "$ref": "b"}', '{"$ref": NaN}',
     '{"$ref": "a.b", "default": "\\ud800"}', '{"$ref": "a.b", "default": ' + "[" * 40 + "]" * 40 + "}",
     '{"$ref": "a.b", "default": ' + "[" * 9000, '{"$ref": "a.b", "default": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_what_begins_like_a_reference_has_to_be_one(text):
    assert faults({"x": f"a {text} b"}) == [("/body/x", "invalid_format")]
    with pytest.raises(FaultyReference):
        references.template(f"/tasks/{text}")
    assert not references.is_reference(text)


@pytest.mark.parametrize(
    "text", ["{}", '{"a": 1}', "$ref", '"$ref"', '{"a": "$ref"}', '{"a": {"b": "{c.d}"}}', "{a.b}"]
)
def test_other_texts_are_left_alone(text):
    assert references.find("", {"x": text, "y": {"z": [text]}}).references == []
    assert put({"x": text}) == {"x": text}
    assert put(text) == text


def test_references_are_found_everywhere():
    body = {"a": {"$ref": "b1.x"}, "b": [{"c": 'x {"$ref": "b2.x"} {"format": "upper", "$ref": "b3"}'}], "d": "{p9.x}"}
    found = references.find('/tasks/{p1.x}?a={"$ref": "p2.x", "default": "{p9.y}"}&b={p3.x.0}', body)
    assert sorted(one.path for one in found.references) == ["b1.x", "b2.x", "b3", "p1.x", "p2.x", "p3.x.0"]
    assert references.find("", [{"$ref": "a"}, '{"$ref": "b"}']).references[0].name in ("a", "b")
    assert [one.path for one in references.find("", {"$ref": "a.b"}).references] == ["a.b"]
    assert [one.path for one in references.find("", '{"$ref": "a.b"}').references] == ["a.b"]


def test_names_that_nobody_knows():
    found = references.find("/x/{evnt.id}", {"a": {"$ref": "input.x"}, "b": [{"$ref": "evnt.y", "default": 1}] * 200})
    issues = found.unknown({"event", "input"}, "is wrong.")
    assert len(issues) == 100
    assert {issue.code for issue in issues} == {"unknown_reference"}
    assert issues[0].detail == '"evnt.id" is wrong. Did you mean "event"?'


@pytest.mark.parametrize(
    ("node", "stands"),
    [
        ({"$ref": "a"}, True),
        ({"$ref": "a", "default": []}, True),
        ('{"$ref": "a", "format": "json"}', True),
        ('{"$ref": "a"}', True),
        ('{"$ref": "a"} ', False),
        ("x", False),
        ([], False),
        (None, False),
        ({}, False),
    ],
)
def test_whether_a_value_will_stand_here(node, stands):
    assert references.is_reference(node) is stands


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_what_references_put_in_is_charged_and_bounded():
    named, budget = {"event": {"text": "x" * 1000, "n": 1}}, Budget(UNLIMITED)
    values(named, budget).body({"a": {"$ref": "event.text"}})
    assert budget.used == 101
    values(named, budget).body({"a": 'y{"$ref": "event.n"}'})
    assert 200 <= budget.used <= 210, "what is no text counts as the whole of what it is in"
    with pytest.raises(BudgetSpent):
        values(named, Budget(1000)).body({"a": [{"$ref": "event.text"}] * 11})
    large = values({"event": "x" * (1 << 20)})
    large.body([{"$ref": "event"}] * 16)
    with pytest.raises(Invalid, match="16 MiB"):
        large.body({"$ref": "event"})


def test_what_a_format_makes_longer_is_charged_too():
    budget = Budget(UNLIMITED)
    values({"event": "\x01" * 1000}, budget).body({"$ref": "event", "format": "json"})
    assert budget.used >= 700


def test_a_body_that_could_not_have_been_sent_is_refused():
    deep: Any = "x"
    for _ in range(31):
        deep = [deep]
    assert put({"a": {"$ref": "event"}}, deep)
    with pytest.raises(Invalid, match="deeper"):
        put([{"a": {"$ref": "event"}}], deep)


LONG = [
    '{"$ref":', '{"$ref":[', '{"a":1,', '{"a":"', '{"', '{"$ref":"a","default":', '{"default":{', '{"a":"{",', "{ ",
    '"$ref"{"\\"', '{"default":"', '{":":","', "{a.", "{a", '{"$ref": "a"}', '{"$ref": "a", "format": "json"}',
]  # fmt: skip


@pytest.mark.parametrize("text", LONG)
def test_no_text_takes_more_time_than_it_is_long(text):
    """Looked through anew from each brace, a text of this length would take minutes."""
    long = text * (400_000 // len(text)) + '"$ref"'
    began = time.process_time()
    for path in (False, True):
        with suppress(FaultyReference):
            references.parts(long, path=path)
    assert time.process_time() - began < 5
