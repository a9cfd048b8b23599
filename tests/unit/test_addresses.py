"""Which address a request comes from: only what trusted proxies say of others is believed.

Why tables: each row is a header that somebody sends.
"""

import ipaddress

import pytest
from taskade_server.http.wire.addresses import Proxies, client_address, subscriber

TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.7", "192.0.2.7"),  # what the client itself has sent is not believed
        ("10.0.0.1", "203.0.113.9, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("192.0.2.7", "203.0.113.9", "192.0.2.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7,", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7:51234", "192.0.2.7"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]:51234", "2001:db8::1"),
        ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:ffff::5", "2001:db8::1", "2001:db8::1"),
        ("", "192.0.2.7", ""),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy(peer, forwarded_for, client):
    assert client_address(peer, forwarded_for, TRUSTED) == client


def test_a_header_in_several_lines():
    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"host", b"x"), (b"x-forwarded-for", b"192.0.2.7, 10.0.0.2")]
    assert Proxies(TRUSTED).client("10.0.0.1", headers) == "192.0.2.7"
    assert Proxies(TRUSTED).client("10.0.0.1", [(b"host", b"x")]) == "10.0.0.1"


def test_without_trust_nothing_is_believed_and_the_operator_is_told_once(caplog):
    proxies = Proxies()
    headers = [(b"x-forwarded-for", b"192.0.2.7")]
    assert proxies.client("8.8.8.8", headers) == "8.8.8.8"
    assert caplog.records == [], "anybody may send the header"
    for _ in range(3):
        assert proxies.client("10.0.0.1", headers) == "10.0.0.1"
    assert len(caplog.records) == 1 and "TASKADE_TRUSTED_PROXIES" in caplog.text


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False),  # all of IPv4 behind one translator
        ("64:ff9b::192.0.2.1", "192.0.2.1", True),
        ("", "", True),
        ("/run/a.sock", "/run/b.sock", False),
    ],
)
def test_what_counts_as_one_client(one, another, same):
    assert (subscriber(one) == subscriber(another)) is same
