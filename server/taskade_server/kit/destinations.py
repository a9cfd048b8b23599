"""Where requests may be sent: which URLs are plain enough, and which addresses are nobody's inside.

Why one spelling only: what this module reads and what a resolver, a library or a proxy reads must be the same host.
Every URL that two readers may understand differently (`0x7f.1`, `a@b`, a backslash, a zone) is refused, not repaired.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL: Final = 2048
SETTING: Final = "TASKADE_OUTBOUND_ALLOW"
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x20\x7f-\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff\ud800-\udfff]"
)
_AUTHORITY: Final = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME: Final = re.compile("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_VALUE: Final = re.compile("(?:[!-~](?:[ -~]{0,4094}[!-~])?)?")
_RESERVED: Final = re.compile(
    "host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|accept-encoding|proxy-.*",
    re.IGNORECASE,
)
# Ports of protocols that take a request for their own commands, as browsers refuse them (Fetch Standard, "bad port").
_BAD_PORTS: Final = frozenset(
    (
        0,
        1,
        7,
        9,
        11,
        13,
        15,
        17,
        19,
        20,
        21,
        22,
        23,
        25,
        37,
        42,
        43,
        53,
        69,
        77,
        79,
        87,
        95,
        101,
        102,
        103,
        104,
        109,
        110,
        111,
        113,
        115,
        117,
        119,
        123,
        135,
        137,
        139,
        143,
        161,
        179,
        389,
        427,
        465,
        512,
        513,
        514,
        515,
        526,
        530,
        531,
        532,
        540,
        548,
        554,
        556,
        563,
        587,
        601,
        636,
        989,
        990,
        993,
        995,
        1719,
        1720,
        1723,
        2049,
        3659,
        4045,
        4190,
        5060,
        5061,
        6000,
        6566,
        6665,
        6666,
        6667,
        6668,
        6669,
        6679,
        6697,
        10080,
    )
)


def _networks(table: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ipaddress.ip_network(part), kind) for kind, parts in table.items() for part in parts.split())


# More than the standard library's `is_private`, which lets multicast, NAT64, 6to4 and clouds' own addresses pass.
_DENIED_4: Final = _networks(
    {
        "unspecified": "0.0.0.0/8",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        "shared (carrier-grade NAT)": "100.64.0.0/10",
        "loopback": "127.0.0.0/8",
        "link-local": "169.254.0.0/16",
        "reserved": "192.0.0.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24 240.0.0.0/4",
        "documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
        "benchmarking": "198.18.0.0/15",
        "multicast": "224.0.0.0/4",
        "cloud metadata": "168.63.129.16/32",
    }
)
_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
_DENIED_6: Final = _networks(
    {
        "reserved": "2001::/23 2620:4f:8000::/48",  # with Teredo, ORCHID and benchmarking in the first
        "documentation": "2001:db8::/32 3fff::/20",
        "6to4": "2002::/16",
    }
)
# What lies outside 2000::/3 is denied anyway; these only have a name for the sentence.
_KINDS_6: Final = _networks(
    {
        "unspecified": "::/128",
        "loopback": "::1/128",
        "IPv4-compatible": "::/96",
        "NAT64": "64:ff9b::/96 64:ff9b:1::/48",
        "discard-only": "100::/64",
        "private": "fc00::/7",
        "link-local": "fe80::/10",
        "site-local": "fec0::/10",
        "multicast": "ff00::/8",
        "reserved": "::/0",
    }
)


class Refused(ValueError):
    """No request is sent there: `code` is for programs, the message is one sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL taken apart. `host` is in lower case, without brackets or a final dot; `target` is what a request names."""

    scheme: str
    host: str
    port: int
    target: str
    literal: Address | None

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == {"http": 80, "https": 443}[self.scheme] else f"{shown}:{self.port}"


def plain(address: Address) -> Address:
    """The address that is really connected to: an IPv4 address may come wrapped in an IPv6 one."""
    return getattr(address, "ipv4_mapped", None) or address


class Rules:
    """What an installation allows. Addresses in `allowed` may be reached although they are not public."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def denied(self, address: Address) -> str | None:
        """What is wrong with an address, in a word; None if requests may be sent to it."""
        address = plain(address)
        if getattr(address, "scope_id", None) is not None:
            return "link-local"
        if any(address in network for network in self._allowed):
            return None
        if address.version == 4:
            return next((kind for network, kind in _DENIED_4 if address in network), None)
        kinds = _DENIED_6 if address in _GLOBAL_6 else _KINDS_6
        return next((kind for network, kind in kinds if address in network), None)

    def parse(self, url: str) -> Destination:
        """A URL taken apart. Refused if it cannot be sent to whatever its name resolves to."""
        if len(url) > MAX_URL:
            raise Refused("bad_url", f"The URL is longer than {MAX_URL:,} characters.")
        if _UNPRINTABLE.search(url):
            raise Refused("bad_url", "The URL contains a space or an invisible character; percent-encode it.")
        if "\\" in url:
            raise Refused("bad_url", "The URL contains a backslash; percent-encode it, or write a slash.")
        found = _URL.fullmatch(url)
        if found is None or found["scheme"].lower() not in ("http", "https"):
            raise Refused("bad_url", "The URL must begin with https:// or http://.")
        if "@" in found["authority"]:
            raise Refused("bad_url", "The URL must not contain a user name or password; use a header for credentials.")
        if found["fragment"]:
            raise Refused("bad_url", "The URL must not have a fragment (#...), since that is never sent.")
        scheme = found["scheme"].lower()
        host, port, literal = self._parse_authority(found["authority"], 443 if scheme == "https" else 80)
        target = quote((found["path"] or "/") + (found["query"] or ""), safe="".join(map(chr, range(0x21, 0x7F))))
        return Destination(scheme, host, port, target, literal)

    def _parse_authority(self, text: str, default_port: int) -> tuple[str, int, Address | None]:
        if not text.isascii():
            raise Refused("bad_url", "The host must be ASCII; write an international name in its xn-- form.")
        found = _AUTHORITY.fullmatch(text.lower())
        if found is None:
            raise Refused("bad_url", "The URL's host is not a name or an address, with a port if need be.")
        port = int(found["port"]) if found["port"] else default_port
        if port > 65535 or port in _BAD_PORTS:
            raise Refused("bad_url", f"Port {port} is not one that a web server listens on.")
        literal = _literal(found["six"], found["name"])
        if literal is None:
            name = found["name"].removesuffix(".")
            if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
                raise Refused("bad_url", f'"{found["name"]}" is not a host name.')
            if name == "localhost" or name.endswith(".localhost"):
                self._check_localhost(name)
            return name, port, None
        kind = self.denied(literal)
        if kind is not None:
            advice = _LOCAL_ADVICE if literal.is_loopback else _ADVICE
            raise Refused("denied_address", f"{literal} is not a public address ({kind}). {advice}")
        return str(literal), port, literal

    def _check_localhost(self, name: str) -> None:
        if all(self.denied(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")):
            raise Refused("denied_address", f"{name} is this server's own machine (loopback). {_LOCAL_ADVICE}")

    def vet(self, host: str, answers: Sequence[str]) -> list[Address]:
        """The addresses of a name, each of which may be connected to. Refused if one must not be.

        One denied address condemns the rest: an honest name has no reason to point outside and inside at once.
        """
        addresses: list[Address] = []
        for answer in answers:
            try:
                address = ipaddress.ip_address(answer)
            except ValueError:
                raise Refused("dns_failure", f"The name {host} has an answer that is not an address.") from None
            kind = self.denied(address)
            if kind is not None:
                # Not which one: that would tell everybody who may register a URL what the inner DNS says.
                raise Refused("denied_address", f"{host} resolves to an address that is not public ({kind}). {_ADVICE}")
            if plain(address) not in addresses:
                addresses.append(plain(address))
        if not addresses:
            raise Refused("dns_failure", f"The name {host} has no address.")
        return addresses

    def refusal(self, url: str) -> str | None:
        """Why a URL cannot be registered, in one sentence; None if nothing is wrong with it so far."""
        try:
            self.parse(url)
        except Refused as refused:
            return str(refused)
        return None


def plain_host(text: str) -> str:
    """A host name or an address as `Destination.host` has it: in lower case, ASCII, without brackets or a final dot.

    Refused for anything else, such as a URL, a port or a wildcard. What is not public is not refused: whether it may be
    reached is decided when a request is sent.
    """
    if "/" in text or "@" in text or "?" in text or "#" in text:
        raise Refused("bad_host", f'"{text[:80]}" is more than a host: write api.example.com, not the whole URL.')
    if "*" in text:
        raise Refused("bad_host", f'"{text[:80]}" has a wildcard, which no host has: name each host.')
    host = text if text.isascii() else _ascii_name(text)
    literal_6 = host.count(":") > 1 and "[" not in host
    found = _AUTHORITY.fullmatch(f"[{host}]".lower() if literal_6 else host.lower())
    if found is None:
        raise Refused("bad_host", f'"{text[:80]}" is not a host name, such as api.example.com, or an address.')
    if found["port"]:
        raise Refused("bad_host", f'"{text[:80]}" has a port: leave it out, as a host stands for all its ports.')
    literal = _literal(found["six"], found["name"])
    if literal is not None:
        return str(literal)
    name = found["name"].removesuffix(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        raise Refused("bad_host", f'"{text[:80]}" is not a host name.')
    return name


def _ascii_name(text: str) -> str:
    """An international name in its `xn--` form (RFC 3490). Refused where the form does not lead back to the name.

    So that what RFC 3490 and RFC 5891 make two names of, such as one with a sharp s, is none.
    """
    advice = f'"{text[:80]}" has more than one reading as a host name; write it in its xn-- form.'
    try:
        found = text.lower().encode("idna")
        if found.decode("idna") == text.lower():
            return found.decode()
    except UnicodeError:
        pass
    raise Refused("bad_host", advice)


def header_refusal(name: str, value: str) -> str | None:
    """Why a header cannot be sent, in one sentence; None if it can."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a header's name: letters, digits and hyphens are."
    if _RESERVED.fullmatch(name):
        return f"The header {name} is set by the connection itself."
    if not _VALUE.fullmatch(value):
        return f"The value of {name} must be printable ASCII of at most 4,096 characters, without spaces around it."
    return None


_ADVICE: Final = f"Whoever runs this server can allow it with {SETTING}."
_LOCAL_ADVICE: Final = (
    "To try a receiver on this machine, start the server with --dev, or let `taskade listen` forward events to it."
    f" {_ADVICE}"
)


NOWHERE_INSIDE: Final = Rules()
"""The rules where the operator allows nothing beyond what is public."""


def _literal(six: str | None, name: str | None) -> Address | None:
    """The address that a host spells out, if it is one. Refused for any spelling but the usual."""
    try:
        if six is not None:
            return ipaddress.IPv6Address(six)
        assert name is not None
        if _NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]):
            return ipaddress.IPv4Address(name)
    except ValueError:
        raise Refused(
            "bad_url", f'"{six or name}" is not an address in its usual spelling, such as 192.0.2.1.'
        ) from None
    return None


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this machine: `localhost` or a number, and no name that may lead elsewhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_PROXY: Final = re.compile(r"http://(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[a-z0-9_.-]+)):(?P<port>[0-9]{1,5})/?")


def split_proxy(url: str) -> tuple[str, int]:
    """Host and port of an HTTP proxy's URL. ValueError, with one sentence, for anything else."""
    found = _PROXY.fullmatch(url.lower())
    if found is None or int(found["port"]) > 65535:
        raise ValueError("A proxy is given as http://host:port, without a user name.")
    return found["six"] or found["host"], int(found["port"])
