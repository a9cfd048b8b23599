"""JSON from outside: whatever two readers could understand differently, or a database cannot keep, is refused."""

import json as plain
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import json, portable_json, strict_json

from tests.support import toolchains
from tests.unit.examples import examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


@examples(200)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_every_document_is_read_as_it_was_written(value, ascii_only, indent):
    text = plain.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert strict_json.decode_strict(text.encode()) == value
    assert json.decode(json.encode(value)) == value


@examples(200)
@given(VALUES)
def test_what_is_written_is_compact(value):
    text = json.encode(value)
    assert plain.loads(text) == value
    outside_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert not any(char.isspace() for char in outside_strings)


@examples(200)
@given(st.binary(max_size=12))
def test_any_bytes_are_read_or_refused(body):
    try:
        strict_json.decode_strict(body)
    except strict_json.Faulty as error:
        assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Not JSON at line 1, column 1"),
        (b"{", "Not JSON"),
        (b'{"a": 1,}', "Not JSON"),
        (b'{"name": "cut o', "Not JSON"),
        (b"{'a': 1}", "Not JSON"),
        (b"[1] [2]", "Not JSON"),
        (b"[1]\x00", "Not JSON"),
        (b'"a\nb"', "Not JSON"),
        (b"[01]", "Not JSON"),
        (b"nul", "Not JSON"),
        (b"// a comment\n1", "Not JSON"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b'"\xc3"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "Not JSON|UTF-8"),
        (b'{"a": 1, "a": 1}', '"a" stands twice'),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', '"a" stands twice'),
        (b'{"a" :1, "a":2}', '"a" stands twice'),
        (b'{"a"\n:1, "a":"\\":"}', '"a" stands twice'),
        (b"NaN", "NaN is not"),
        (b'{"a": [Infinity]}', "Infinity is not"),
        (b"-Infinity", "-Infinity is not"),
        (b"1e999", "out of range"),
        (b'{"a": [-1e999]}', "out of range"),
        (b'{"a": 18446744073709551616}', "out of range"),
        (b"-9223372036854775809", "out of range"),
        (b"1" * 400, "out of range"),
        (b"1" * 5000, "too many digits"),
        (nested(33).encode(), "deeper than 32"),
        (nested(33, '{"a":[', "]}").encode(), "deeper than 32"),
        (nested(100_000).encode(), "deeper than 32"),
        (b'"\\u0000"', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b'{"a\\udfff": 1}', "surrogate"),
    ],
)
def test_what_is_refused(body, reason):
    with pytest.raises(strict_json.Faulty, match=reason):
        strict_json.decode_strict(body)


PIECES = st.sampled_from(
    [b"1", b"-1e30", b"1e999", b"9223372036854775808", b"null", b'"a"', b'"\\":"', b'" :"', b'"\\u0000"', b'"\\ud800"']
)
MEMBERS = st.tuples(
    st.sampled_from([b'"a"', b'"b"', b'"\\u0061"', b'"\\":"']), st.sampled_from([b":", b": ", b" :", b"\t:"])
).map(b"".join)
DOUBTFUL = st.recursive(
    PIECES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: b"[" + b",".join(found) + b"]")
        | st.lists(st.tuples(MEMBERS, inner).map(b"".join), max_size=3).map(
            lambda found: b"{" + b", ".join(found) + b"}"
        )
    ),
    max_leaves=12,
)


@examples(500)
@given(DOUBTFUL)
def test_the_quick_parser_takes_nothing_that_the_slow_one_refuses(body):
    outcomes = []
    for read in (strict_json.decode_strict, strict_json._decode_doubtful):
        try:
            outcomes.append(repr(read(body)))
        except strict_json.Faulty as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b" 1\n", 1),
        (b"9223372036854775807", 2**63 - 1),
        (b"1e308", 1e308),
        (b"-0.0", 0.0),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\xf0\x9f\x98\x80"', "😀"),
        (b'{"a": {"a": 1}, "b": {"a": 2}}', {"a": {"a": 1}, "b": {"a": 2}}),
        (nested(32).encode(), plain.loads(nested(32))),
    ],
)
def test_what_is_accepted(body, value):
    assert strict_json.decode_strict(body) == value


@pytest.mark.parametrize("number", ["9" * 19, "1e999", "-9e+300000"])
@pytest.mark.parametrize("before", range(24))
def test_a_large_number_is_found_wherever_a_long_text_is_cut(number, before):
    spaces = " " * (strict_json.PIECE - before)
    with pytest.raises(strict_json.Faulty, match=r"range|digits"):
        strict_json.decode_strict(f'{spaces}{{"a" :{number}}}{spaces}'.encode())


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": ["x", {"b/c": "\\u0000"}]}', "/a/1/b~1c"),
        (b'{"a": ["x", "\\ud800"]}', "/a/1"),
        (b'{"a": {"b": 1e999}}', "/a/b"),
    ],
)
def test_the_place_is_named(body, pointer):
    with pytest.raises(strict_json.Faulty) as refusal:
        strict_json.decode_strict(body)
    assert refusal.value.pointer == pointer


# ---- the form that survives JavaScript -------------------------------------------------------------------------------

ROUND_TRIP = """
let rest = ''
process.stdin.setEncoding('utf8')
process.stdin.on('data', (data) => {
  const lines = (rest + data).split('\\n')
  rest = lines.pop()
  for (const line of lines) process.stdout.write(JSON.stringify(JSON.parse(line)) + '\\n')
})
"""


@pytest.fixture(scope="module")
def through_javascript():
    """Send a JSON text through JSON.parse and JSON.stringify of Node.js, one process for all."""
    with subprocess.Popen([toolchains.node(), "-e", ROUND_TRIP], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        source, sink = node.stdout, node.stdin

        def send(text: str) -> str:
            sink.write(text.encode() + b"\n")
            sink.flush()
            return source.readline().decode().removesuffix("\n")

        yield send
        sink.close()


NUMBERS = (
    st.floats(allow_nan=False).map(repr).filter(lambda text: "inf" not in text)
    | st.integers(-(2**70), 2**70).map(str)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.decimals(-1000, 1000, places=3).map(str).filter(lambda text: "E" not in text)
    | st.sampled_from(["1.0", "1e21", "1e20", "1e-6", "1e-7", "-0.0", "-0", "5e-324", "1e999", str(2**53 + 1)])
)
ODD = ['"\\/"', '"\\u0041"', '"\\u0008\\u000a"', '"\\u007f\\u2028"', '"\\ud800"', '"\\uDEAD"', '"x\\"7"']
STRINGS = (
    st.text(st.characters(exclude_categories=[])).map(plain.dumps)
    | st.text().map(lambda text: plain.dumps(text, ensure_ascii=False))
    | st.sampled_from(ODD)
)
# No key has a backslash: V8 13.6 reads {"\\n":0} as {"\\\\":0} if it has read enough of the latter before.
KEYS = (
    STRINGS.filter(lambda text: "\\" not in plain.loads(text))
    | st.integers(0, 2**33).map(lambda number: f'"{number}"')
    | st.integers(0, 9).map(lambda number: f'"{number}"')
    | st.sampled_from(
        ['"__proto__"', '"toJSON"', '""', '"01"', '"-1"', '"4294967294"', '"4294967295"', '"constructor"']
    )
)
DOCUMENTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda found: f"[{','.join(found)}]")
        | st.lists(st.tuples(KEYS, inner), max_size=5, unique_by=lambda member: plain.loads(member[0])).map(
            lambda found: "{" + ",".join(f"{key}:{value}" for key, value in found) + "}"
        )
    ),
    max_leaves=15,
)


@examples(1500)
@given(DOCUMENTS)
def test_a_portable_text_is_what_javascript_would_write(through_javascript, text):
    found = portable_json.portable(text)
    assert found == through_javascript(text)
    assert portable_json.portable(found) == found == through_javascript(found)


@examples(300)
@given(st.lists(st.tuples(st.text("ab2'\"\n/", max_size=4), st.sampled_from([0, 1.5, 12.0, True, "x"])), max_size=6))
def test_a_portable_value_is_the_same_to_javascript_too(through_javascript, members):
    found = portable_json.portable(dict(members))
    assert found == through_javascript(json.encode(dict(members)))


@pytest.mark.parametrize(
    ("text", "quick"),
    [
        ('{"id":"task_1","n":12,"f":-0.25,"t":[true,false,null,0],"e":"a\\n\\"b\\u001f","o":{},"l":[],"x":""}', True),
        ("[123456789012345,0.000001,99.99]", True),
        ('{"4294967296x":1,"01":2}', True),
        ("[1234567890123456]", False),
        ("[-0]", False),
        ("[1.0]", False),
        ("[1e3]", False),
        ("[0.0000001]", False),
        ('{"a":1,"7":2}', False),
        ('"\\/"', False),
        ('"\\u000a"', False),
        ("[1, 2]", False),
        (f"[0.{'1' * 16}]", False),
    ],
)
def test_what_is_portable_already_is_seen_at_once(text, quick):
    assert bool(portable_json._PORTABLE.fullmatch(text)) is quick


def test_a_long_text_is_looked_through_in_linear_time(through_javascript):
    text = json.encode({"a": ["x" * 50_000 + '"\\' * 20_000, "12" * 50_000, [1.5, 2] * 20_000], "b": 0.5})
    assert portable_json.portable(text) is text
    assert through_javascript(text) == text
