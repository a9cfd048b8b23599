"""Secrets without a server: which hosts there are, who is handed a value, and how values are taken out of texts."""

import base64
import json as standard_json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain import secrets
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.kit import ids, json
from taskade_server.kit.destinations import Refused, Rules, plain_host
from taskade_server.kit.errors import Clash, Forbidden, NotFound
from taskade_server.store.database import Database

from tests.unit import world

HOME, ELSEWHERE = world.WORKSPACES
ANA = world.USERS[0]
VALUE = 'p4t-"eu1"/3f+9c=27 ü😀\\n'


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


def context(role: str = "owner") -> Context:
    grants = {name: Grant(name, role) for name in (HOME, ELSEWHERE)}
    return Context(Principal(ANA, None, frozenset("*"), grants, HOME), Actor(ANA), world.SECRET)


def made(db: Database, name: str, hosts: list[str], value: str = VALUE, workspace_id: str = HOME) -> str:
    """The id of a new secret."""
    body = {"name": name, "hosts": hosts, "value": value, "workspace_id": workspace_id}
    return str(json.decode(db.write_sync(lambda tx: secrets.create(tx, context(), body)))["id"])


# ---- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, host",
    [
        ("api.example.com", "api.example.com"), ("API.Example.COM.", "api.example.com"), ("intranet", "intranet"),
        ("bücher.example", "xn--bcher-kva.example"), ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("192.0.2.1", "192.0.2.1"), ("127.0.0.1", "127.0.0.1"),
        ("2001:DB8::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("localhost", "localhost"),
        ("my_service.internal", "my_service.internal"),
    ],
)  # fmt: skip
def test_a_host_is_written_in_one_way(text, host):
    assert plain_host(text) == host
    assert plain_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "https://api.example.com", "api.example.com/", "api.example.com:443", "[2001:db8::1]:443", "a b",
        "*.example.com", "*", "me@example.com", "example..com", "-a.example", "0x7f.1", "127.1", "1.2.3.4.5",
        "fe80::1%2", "straße.example", "ｅxample.com", "a.example?x", "a.example#x", "a\\b", "a" * 64,
        ".".join(["a" * 50] * 6),
        "ex\u200dample.com", "\ud800.com", ".", "::g",
    ],
)  # fmt: skip
def test_what_is_no_host_or_more_than_one_is_refused(text):
    with pytest.raises(Refused) as refused:
        plain_host(text)
    assert str(refused.value).endswith(".")


@given(st.text(min_size=1, max_size=40))
def test_a_host_is_what_the_outbound_client_reads_in_a_url(text):
    """So that a comparison of the two decides."""
    try:
        host = plain_host(text)
    except Refused:
        return
    url = f"https://[{host}]/" if ":" in host else f"https://{host}/"
    try:
        assert Rules().parse(url).host == host
    except Refused as refused:
        assert refused.code == "denied_address"


# ---- handing a value out ---------------------------------------------------------------------------------------------


def test_a_value_is_opened_for_its_hosts(db):
    made(db, "open", ["api.example.com", "bücher.example"])
    for host in ("api.example.com", "API.EXAMPLE.COM", "api.example.com.", "bücher.example", "xn--bcher-kva.example"):
        found = db.read_sync(lambda tx, host=host: secrets.open_for(tx, world.SECRET, HOME, "open", host))
        assert found == VALUE


@pytest.mark.parametrize(
    "host", ["example.com", "evil.example", "api.example.com.evil.example", "xapi.example.com", "", "*", "a b", "::1"]
)
def test_a_value_is_opened_for_no_other_host(db, host):
    name = f"s{ids.new('x')[-12:]}"
    made(db, name, ["api.example.com", "b.example"])
    with pytest.raises(Forbidden) as refused:
        db.read_sync(lambda tx: secrets.open_for(tx, world.SECRET, HOME, name, host))
    said = str(refused.value)
    assert name in said and "api.example.com, b.example" in said and VALUE not in said


def test_a_value_is_opened_in_its_workspace_alone(db):
    made(db, "there", ["api.example.com"], workspace_id=ELSEWHERE)
    for name in ("there", "nowhere"):
        with pytest.raises(NotFound, match=name):
            db.read_sync(lambda tx, name=name: secrets.open_for(tx, world.SECRET, HOME, name, "api.example.com"))


def test_a_value_is_bound_to_its_secret_and_to_the_installation(db):
    """Who can write the database, but not read the key, cannot lead a value to other hosts by copying it."""
    first = made(db, "first", ["one.example"], "the first value")
    second = made(db, "second", ["two.example"], "the second value")
    with pytest.raises(Clash, match="PATCH"):
        db.read_sync(lambda tx: secrets.open_for(tx, b"another secret, as long as it", HOME, "first", "one.example"))
    copy = "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE id = ?) WHERE id = ?"
    db.write_sync(lambda tx: tx.run(copy, (first, second)))
    with pytest.raises(Clash) as refused:
        db.read_sync(lambda tx: secrets.open_for(tx, world.SECRET, HOME, "second", "two.example"))
    assert "the first value" not in str(refused.value)


# ---- masking ---------------------------------------------------------------------------------------------------------


def spellings(value: str) -> dict[str, str]:
    """How a value may be written by what sends it and by what answers."""
    raw = value.encode()
    return {
        "as it is": value,
        "in JSON": standard_json.dumps(value)[1:-1],
        "in JSON of UTF-8": standard_json.dumps(value, ensure_ascii=False)[1:-1],
        "in JSON with slashes escaped": standard_json.dumps(value)[1:-1].replace("/", "\\/"),
        "in JSON as numbers": "".join(f"\\u{unit:04X}" for unit in utf_16(value)),
        "in a URL": quote(value, safe=""),
        "in a path": quote(value),
        "in a form": quote_plus(value),
        "in lower case": "".join(f"%{byte:02x}" for byte in raw),
        "by a script": quote(value, safe="!*'()"),
        "in base64": base64.b64encode(raw).decode(),
        "in base64 of URLs": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "in base64 in a URL": quote(base64.b64encode(raw).decode(), safe=""),
    }


def utf_16(text: str) -> list[int]:
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2)]


@pytest.mark.parametrize("how", spellings(VALUE))
def test_each_spelling_of_a_value_is_masked(how):
    text = f'before "{spellings(VALUE)[how]}" after'
    assert secrets.mask(text, {"crm": VALUE}) == 'before "[secret crm]" after'


def test_a_text_without_the_value_stays_as_it_is():
    for text in ("", "100%", "a\\b", '{"a": "\\u00e9 + %zz"}', "%C3%28 + \\", "p4t"):
        assert secrets.mask(text, {"crm": VALUE, "none": ""}) == text


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "robot@example.com"])
def test_a_value_inside_of_a_basic_credential_is_masked(user):
    value = "the-token-of-the-crm"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        header = f"Basic {encode(f'{user}:{value}'.encode()).decode()}"
        masked = secrets.mask(header, {"crm": value})
        assert "[secret crm]" in masked
        rest = masked.partition("[secret crm]")[0].removeprefix("Basic ")
        known = encode(f"{user}:".encode()).decode()
        assert known.startswith(rest), "what is left tells nothing of the value"
        assert masked.endswith("[secret crm]")


def test_several_values_are_masked_by_their_own_names_even_where_they_overlap():
    assert secrets.mask("one two", {"a": "one", "b": "two"}) == "[secret a] [secret b]"
    assert secrets.mask("xabcdefx", {"a": "abcd", "b": "cdef"}) == "x[secret a]x"
    assert secrets.mask("abcdef", {"short": "abc", "long": "abcdef"}) == "[secret long]"
    assert secrets.mask("tokentoken", {"a": "token"}) == "[secret a][secret a]"


@given(
    value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=7, max_size=30),
    how=st.sampled_from(list(spellings(VALUE))),
)
def test_nothing_is_left_of_any_value_in_any_spelling(value, how):
    assert secrets.mask(f"\x00{spellings(value)[how]}\x00", {"crm": value}) == "\x00[secret crm]\x00"
