"""Where requests may go: every spelling and every address of the inside, and that not one packet is sent there.

Why packets are counted: an error alone does not show that nobody was spoken to. Python's audit events see each look-up
and each connection of this process, and two sockets listen where a forged address would lead.
"""

import asyncio
import ipaddress
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit.destinations import Refused, Rules, header_refusal
from taskade_server.outbound.client import Outbound

from tests.unit.examples import examples

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
EVENTS: list[tuple[str, Any]] = []
WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
WATCHING: list[bool] = []
sys.addaudithook(lambda event, args: EVENTS.append((event, args)) if WATCHING and event in WATCHED else None)

NETWORKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/96", "::1/128",
    "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001::/32", "2001:2::/48", "2001:10::/28",
    "2001:20::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fd00::/8",
    "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip
SINGLE = [
    "127.0.0.1", "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "255.255.255.255", "0.0.0.0", "::", "fd00:ec2::254", "fe80::a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::80ff:fffe",
    "::ffff:0:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:192.168.1.1",
    "::ffff:0.0.0.0", "::ffff:100.64.0.1",
]  # fmt: skip
DENIED = sorted(
    {str(edge) for text in NETWORKS for network in [ipaddress.ip_network(text)] for edge in (network[0], network[-1])}
    | set(SINGLE)
)
SPELLINGS = [
    # numbers that a resolver or a browser takes for 127.0.0.1 or another address of the inside
    *(f"http://{host}:{{port}}/" for host in (
        "0x7f.1", "0x7f.0x0.0x0.0x1", "0x7f000001", "0X7F000001", "0177.0.0.1", "0177.0.0.01", "00177.0.0.1",
        "017700000001", "2130706433", "4294967297", "127.1", "127.0.1", "127.0.0.1.", "127.0.0.001", "127.00.0.1",
        "1", "0", "0x0", "0x", "00000000", "127.0.0.0x1", "127.0.0.1.5", "256.256.256.256", "127.0.0.256", "a.b.0x7f",
        "name.1", "1e3.1", "10.0.0.1.", "0xa9fea9fe", "2852039166", "169.254.43518", "0251.0376.0251.0376",
        "3232235521",
    )),
    # other digits, dots and letters that fold to ASCII
    "http://１２７.0.0.1:{port}/", "http://127。0。0。1:{port}/", "http://127．0．0．1:{port}/", "http://127｡0｡0｡1:{port}/",
    "http://①②⑦.0.0.1:{port}/", "http://ⓛocalhost:{port}/", "http://ｌｏｃａｌｈｏｓｔ:{port}/", "http://loca\u00adlhost:{port}/",
    "http://local\u200bhost:{port}/", "http://127.0.0.1\u3002:{port}/", "http://١٢٧.0.0.1/", "http://lоcalhost:{port}/",
    # names of this machine
    "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://LocalHost.:{port}/", "http://a.localhost:{port}/",
    "http://a.b.LOCALHOST.:{port}/", "https://localhost/",
    # IPv6 spelled in other ways, with zones, without brackets, with remains
    "http://[::]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/", "http://[0000::0001]:{port}/", "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/", "http://[fe80::1%25eth0]/", "http://::1:{port}/", "http://[::1:{port}/", "http://::1]/",
    "http://[::127.0.0.1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::FFFF:7F00:1]:{port}/",
    "http://[::ffff:0x7f.1]:{port}/", "http://[127.0.0.1]:{port}/", "http://[localhost]:{port}/", "http://[::1].:{port}/",
    "http://[::1]a:{port}/", "http://a[::1]:{port}/", "http://[v1.::1]:{port}/", "http://[::1]]/", "http://[]/",
    # whom it is said to be, and whom it is
    "http://example.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}@example.com/", "http://user:pass@example.com/",
    "http://@example.com/", "http://:@127.0.0.1/", "http://example.com%40127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1/", "http://a@b@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@example.com/",
    "http://example.com#@127.0.0.1/", "http://example.com/#x",
    # what parsers disagree on
    "http:\\\\127.0.0.1:{port}\\", "http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/",
    "http:///127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "//127.0.0.1:{port}/",
    "http:////127.0.0.1/", "http://?@127.0.0.1/", "http:// 127.0.0.1/", "http://127.0.0.1 /", " http://127.0.0.1/",
    "http://127.0.0.1\t/", "ht\ntp://127.0.0.1/", "http://127.0.0.1\r\nHost: a/", "http://exa\tmple.com/",
    "http://example.com/\r\nX: y", "http://example.com/a b", "http://example.com/\x00", "http://example.com/\x7f",
    "http://example.com:{port}\n/", "http://127.0.0.1%00.example.com/", "http://%31%32%37.0.0.1:{port}/",
    "http://127%2e0%2e0%2e1:{port}/", "http://127.0.0.1%2f@example.com/", "http://example.com%23.127.0.0.1/",
    "http://example..com/", "http://.example.com/", "http://example.com../", "http://-example.com/", "http://exa!mple.com/",
    "http://example.com,127.0.0.1/", "http://example.com;127.0.0.1/", "http://*.example.com/", "http://$HOST/",
    f"http://{'a' * 64}.example.com/", f"http://{'a.' * 130}com/", f"http://example.com/{'a' * 2048}",
    "http://", "http:///", "", "http",
    # other schemes and ports
    "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/", "ws://127.0.0.1/",
    "data:text/plain,x", "javascript:alert(1)", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun/", "jar:http://a/",
    "httpx://127.0.0.1/", "HTTP+X://127.0.0.1/", "ldap://127.0.0.1/", "://127.0.0.1/", "https;//127.0.0.1/",
    "http://example.com:0/", "http://example.com:65536/", "http://example.com:99999/", "http://example.com:-1/",
    "http://example.com:+80/", "http://example.com: 80/", "http://example.com:8_0/", "http://example.com:８０/",
    "http://example.com:0x50/", "http://example.com:80:80/", "http://example.com:/", "http://example.com:22/",
    "http://example.com:25/", "https://example.com:587/", "http://example.com:6667/",
]  # fmt: skip


@pytest.fixture(scope="module")
def traps() -> Iterator[tuple[int, list[socket.socket]]]:
    """Sockets that listen on this machine, on one port of both families; nobody may ever connect to them."""
    with socket.socket(socket.AF_INET) as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("0.0.0.0", 0))
        port = four.getsockname()[1]
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::", port))
        four.listen()
        six.listen()
        WATCHING.append(True)
        yield port, [four, six]
        WATCHING.clear()


def attempt(url: str, answers: list[str] | None = None, allowed: Any = (), seconds: float = 60.0) -> Any:
    """One exchange; with `answers` these are what the name resolves to."""

    async def resolve(host: str) -> list[str]:
        assert answers is not None, f"{host} was looked up"
        return answers

    async def main() -> Any:
        client = Outbound(allowed, resolver=resolve)
        try:
            return await client.post(url, body=b"{}", headers={}, timeout=seconds)
        finally:
            await client.close()

    return asyncio.run(main())


def check_untouched(traps: list[socket.socket]) -> None:
    assert EVENTS == []
    assert select.select(traps, [], [], 0)[0] == []


def url_of(address: str, port: int) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def test_a_packet_would_be_seen():
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        WATCHING.append(True)
        EVENTS.clear()
        assert attempt(f"http://127.0.0.1:{trap.getsockname()[1]}/", allowed=LOOPBACK, seconds=0.5).error == "timeout"
        WATCHING.pop()
        assert [event for event, _ in EVENTS] == ["socket.connect"]
        assert select.select([trap], [], [], 0)[0] == [trap]


def test_there_are_enough_cases():
    assert len(SPELLINGS) >= 150
    assert len(DENIED) >= 80


@pytest.mark.parametrize("address", DENIED)
def test_nothing_is_sent_to_an_address_of_the_inside(address, traps):
    port, sockets = traps
    EVENTS.clear()
    found = attempt(url_of(address, port))
    assert found.error == "denied_address"
    assert "TASKADE_OUTBOUND_ALLOW" in found.detail
    assert (found.status, found.address) == (None, None)
    check_untouched(sockets)
    assert Rules().refusal(url_of(address, port)) == found.detail


@pytest.mark.parametrize("address", DENIED)
def test_nothing_is_sent_to_a_name_that_leads_there(address, traps):
    port, sockets = traps
    for answers in ([address], ["8.8.8.8", address], [address, "2606:4700::1"], ["8.8.8.8"] * 7 + [address]):
        EVENTS.clear()
        found = attempt(f"http://example.com:{port}/", answers)
        assert found.error == "denied_address"
        assert address not in found.detail, "what the inner DNS says is nobody's business"
        check_untouched(sockets)


@pytest.mark.parametrize("url", SPELLINGS, ids=ascii)
def test_nothing_is_sent_for_a_spelling_that_two_readers_may_understand_differently(url, traps):
    port, sockets = traps
    url = url.replace("{port}", str(port))
    EVENTS.clear()
    for allowed in ((), LOOPBACK):
        found = attempt(url, ["127.0.0.1"], () if Rules(allowed).refusal(url) is None else allowed)
        assert found.error in ("bad_url", "denied_address")
        assert found.detail.endswith((".", "TASKADE_OUTBOUND_ALLOW."))
        check_untouched(sockets)
    assert Rules().refusal(url) is not None


@pytest.mark.parametrize("answer", ["fe80::1%eth0", "fe80::1%2", "fd00::1%lo", "2606:4700::1%eth0"])
def test_an_address_with_a_zone_is_of_the_inside(answer, traps):
    EVENTS.clear()
    assert attempt("http://example.com/", [answer]).error == "denied_address"
    check_untouched(traps[1])


@pytest.mark.parametrize(
    "answers", [[], ["example.org"], ["127.1"], ["0x7f.1"], ["8.8.8.8", "::1%"], [""], ["1.2.3.4:80"]]
)
def test_answers_that_are_no_addresses(answers, traps):
    EVENTS.clear()
    assert attempt("http://example.com/", answers).error == "dns_failure"
    check_untouched(traps[1])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://Example.COM:8443/hook?x=1&y=[2]",
        "https://xn--bcher-kva.example/",
        "https://a_b.example.com./x",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]:8080/",
        "http://[::ffff:8.8.8.8]/",
        "https://example.com/ünï?ö=✓",
        "https://example.com/a%20b%0d%0a",
        "https://1.example.com/",
        "https://example.com:65535/?@127.0.0.1",
        "https://example.com?a=http://127.0.0.1/",
        "https://localhost.example.com/",
    ],
)
def test_what_can_be_registered(url):
    assert Rules().refusal(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.com/", "must begin with https:// or http://"),
        ("http://me:secret@example.com/", "user name or password"),
        ("http://example.com\\x", "backslash"),
        ("http://bücher.example/", "xn-- form"),
        ("http://example.com/ x", "space or an invisible character"),
        ("http://example.com/#x", "fragment"),
        ("http://0x7f.1/", "usual spelling"),
        ("http://example.com:25/", "Port 25"),
        ("http://a..b/", "not a host name"),
        ("http://10.0.0.1/", "10.0.0.1 is not a public address (private)"),
        ("http://[64:ff9b::a00:1]/", "(NAT64)"),
        ("http://localhost/", "this server's own machine"),
    ],
)
def test_what_is_said_of_a_url(url, words):
    assert words in str(Rules().refusal(url))


def test_a_url_taken_apart():
    found = Rules().parse("HTTPS://Example.COM.:443/a%20b/ü?q=é|x")
    assert (found.scheme, found.host, found.port) == ("https", "example.com", 443)
    assert (found.target, found.authority) == ("/a%20b/%C3%BC?q=%C3%A9|x", "example.com")
    assert Rules().parse("http://example.com:8080?x").target == "/?x"
    assert Rules().parse("http://example.com:443/").authority == "example.com:443"
    assert Rules(LOOPBACK).parse("http://[0::1]:81/").authority == "[::1]:81"


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0",
        "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "8.8.8.8",
        "::ffff:1.1.1.1", "2001:200::", "2001:4860:4860::8888", "2003::", "2606:4700::1111", "2a00::1", "3ffe::",
    ],
)  # fmt: skip
def test_the_outside_is_not_denied(address):
    assert Rules().denied(ipaddress.ip_address(address)) is None


@examples(2000)
@given(st.ip_addresses())
def test_what_python_calls_private_is_denied_too(address):
    if not address.is_global and getattr(address, "ipv4_mapped", None) is None:
        assert Rules().denied(address) is not None


@examples(500)
@given(st.ip_addresses(v=4), st.sampled_from(["::{}", "64:ff9b::{}", "::ffff:0:{}", "100::{}", "fe80::{}", "fc00::{}"]))
def test_an_address_within_an_address_is_denied(inner, form):
    assert Rules().denied(ipaddress.ip_address(form.format(inner))) is not None
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | int(inner) << 80)
    teredo = ipaddress.IPv6Address((0x20010000 << 96) | int(inner) ^ 0xFFFFFFFF)
    assert Rules().denied(six_to_four) is not None
    assert Rules().denied(teredo) is not None
    mapped = ipaddress.ip_address(f"::ffff:{inner}")
    assert Rules().denied(mapped) == Rules().denied(inner)


@examples(500)
@given(st.text(st.sampled_from("htps:/[]@.0127x#?\\%a一 \t"), max_size=24))
def test_no_text_is_too_odd(text):
    for url in (text, "http://" + text):
        try:
            found = Rules().parse(url)
        except Refused as refused:
            assert refused.code in ("bad_url", "denied_address")
            assert str(refused).endswith(".")
        else:
            assert found.host.isascii()
            assert found.target.startswith("/")


def test_the_operator_allows():
    rules = Rules([ipaddress.ip_network("10.1.2.0/24"), ipaddress.ip_network("fd00:1::/64")])
    for url in ("http://10.1.2.3/", "http://[::ffff:10.1.2.3]/", "http://[fd00:1::5]:8080/"):
        assert rules.refusal(url) is None
    for url in (
        "http://10.1.3.1/",
        "http://[fd00:2::5]/",
        "http://localhost/",
        "http://127.0.0.1/",
        "http://10.1.515/",
    ):
        assert rules.refusal(url) is not None
    assert [str(address) for address in rules.vet("a.example", ["10.1.2.3", "8.8.8.8", "::ffff:8.8.8.8"])] == [
        "10.1.2.3",
        "8.8.8.8",
    ]
    with pytest.raises(Refused):
        rules.vet("a.example", ["10.1.2.3", "10.1.3.3"])
    assert Rules([ipaddress.ip_network("::1/128")]).refusal("http://localhost:8080/") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"), ("a b", "x"), ("a:", "x"), ("a\r\nb", "x"), ("ä", "x"), ("a" * 201, "x"), ("X-A", "a\r\nX-B: c"),
        ("X-A", "a\nb"), ("X-A", "\x00"), ("X-A", " a"), ("X-A", "a\t"), ("X-A", "ü"), ("X-A", "a" * 4097),
        ("Host", "x"), ("HOST", "x"), ("Content-Length", "0"), ("transfer-encoding", "chunked"),
        ("Connection", "close"), ("TE", "x"), ("Upgrade", "h2c"), ("Expect", "100-continue"),
        ("Proxy-Authorization", "x"), ("accept-encoding", "gzip"), ("Keep-Alive", "1"), ("Trailer", "x"),
    ],
)  # fmt: skip
def test_headers_that_are_not_sent(name, value, traps):
    EVENTS.clear()
    assert header_refusal(name, value) is not None

    async def main() -> Any:
        return await Outbound(LOOPBACK).post(f"http://127.0.0.1:{traps[0]}/", body=b"", headers=[(name, value)])

    found = asyncio.run(main())
    assert found.error == "bad_header"
    check_untouched(traps[1])


@pytest.mark.parametrize(("name", "value"), [("X-A", ""), ("Authorization", "Bearer a b=="), ("x", "a" * 4096)])
def test_headers_that_are(name, value):
    assert header_refusal(name, value) is None


@pytest.mark.parametrize("url", ["http://localhost:3000/hooks", "http://127.0.0.1:3000/hooks", "http://[::1]:3000/"])
def test_a_receiver_on_this_machine_is_told_of_the_ways_that_are_meant_for_it(url):
    refused = Rules().refusal(url)
    assert refused is not None and "--dev" in refused and "taskade listen" in refused
    elsewhere = Rules().refusal("http://10.0.0.1/hooks")
    assert elsewhere is not None and "--dev" not in elsewhere
