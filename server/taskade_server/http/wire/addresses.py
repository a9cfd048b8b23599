"""Which address a request comes from, and which addresses count as one client.

Why X-Forwarded-For is read only from trusted peers: whoever sends it chooses it, so believing it hands every limit by
address, and every key that is bound to an address, to the client.
"""

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from typing import Final

logger: Final = logging.getLogger("taskade")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SUBSCRIBER: Final = 64
"""The network that one subscriber of an IPv6 provider gets at the least; all addresses in it are one client's."""


class Proxies:
    """The proxies in front of the server. Without any, the connection's own address is the client's."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self._warned = False

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client's address, from the connection's address and the request's headers."""
        lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        if not lines:
            return peer
        if not self._trusted:
            self._warn(peer)
            return peer
        return client_address(peer, ", ".join(lines), self._trusted)

    def scheme(self, peer: str, forwarded_proto: str, scheme: str) -> str:
        """`http` or `https`, as the client used it. `forwarded_proto` counts if a trusted proxy sent it."""
        if forwarded_proto not in ("http", "https"):
            return scheme
        address = parse(peer)
        trusted = address is not None and any(address in network for network in self._trusted)
        return forwarded_proto if trusted else scheme

    def _warn(self, peer: str) -> None:
        """Once, and only about a neighbour: anybody may send the header."""
        address = parse(peer)
        if not self._warned and address is not None and address.is_private:
            self._warned = True
            logger.warning(
                "A proxy at %s names its clients in X-Forwarded-For, but is not in TASKADE_TRUSTED_PROXIES:"
                " all its clients count as one address.",
                peer,
            )


DIRECT: Final = Proxies()
"""No proxies: the default."""


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The nearest address that is not a trusted proxy.

    Each proxy appends whom it was called by, so the list is read from its end, and only as far as trust goes.
    """
    known = peer
    hops = [hop.strip() for hop in forwarded_for.split(",")] if forwarded_for else []
    while hops:
        address = parse(known)
        if address is None or not any(address in network for network in trusted):
            break
        named = parse(hops.pop())
        if named is None:
            break
        known = str(named)
    return known


def parse(text: str) -> Address | None:
    """An address as proxies write it, perhaps with a port; one of IPv4 in the clothes of IPv6 is one of IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def subscriber(text: str) -> str:
    """What limits by address count as one client: an IPv4 address, or the /64 of an IPv6 address."""
    address = parse(text)
    if address is None:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> _SUBSCRIBER << _SUBSCRIBER, _SUBSCRIBER)))
    return str(address)
