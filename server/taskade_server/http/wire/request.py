"""Requests and replies as the handlers see them, and their translation from and to ASGI.

Why an own layer this thin: a framework's request object costs more than reading a task from the database does. And why
structs: making one with its defaults takes a third of what an `__init__` takes.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from taskade_server.http.wire.addresses import DIRECT, Proxies
from taskade_server.kit import ids
from taskade_server.kit.errors import Malformed

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_LENGTH_DIGITS: Final = 18
_ASCII: Final = "".join(map(chr, range(128)))
# Headers of which there can be but one: two parsers that choose differently are how requests are smuggled.
_SINGLE: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"idempotency-key",
    }
)
# A host as it may stand in a link: a name, an IPv4 or a bracketed IPv6 address, perhaps with a port.
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)


class Request(msgspec.Struct, eq=False):
    """The parts of an ASGI request that the pipeline needs. Headers stay bytes until `header` decodes one.

    Made of its scope and the proxies in front of the server; all else follows from these.
    """

    scope: Scope
    proxies: Proxies = DIRECT
    method: str = ""
    path: str = ""
    headers: dict[bytes, bytes] = {}
    request_id: str = ""
    _client: str | None = None

    def __post_init__(self) -> None:
        scope = self.scope
        self.method = scope["method"]
        raw = scope.get("raw_path") or b""
        self.path = decoded_path(raw.decode("latin-1")) if b"%2" in raw else scope["path"]
        self.headers = dict(scope["headers"])
        self.request_id = ids.new("req")

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Request({self.request_id!r})"

    def header(self, name: bytes) -> str:
        """A header by its lower-case name; empty if it is missing."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def query_string(self) -> str:
        """The URL's part behind the question mark, still encoded."""
        return decoded_query(self.scope["query_string"])

    @property
    def client(self) -> str:
        """The address of the client, as far as the proxies in between can be trusted."""
        if self._client is None:
            peer = self.scope.get("client")
            if peer and b"x-forwarded-for" in self.headers:
                self._client = self.proxies.client(peer[0], self.scope["headers"])
            else:
                self._client = peer[0] if peer else ""
        return self._client

    @property
    def claimed_caller(self) -> bytes:
        """The caller as the request claims, for taking turns: it is not checked, and it is secret."""
        credential = self.headers.get(b"authorization")
        if credential is not None and credential.count(b" ") == 1 and b"\t" not in credential:
            return credential  # the usual spelling, as `claimed_caller` would find after more steps
        return claimed_caller(credential, self.scope.get("client"))

    @property
    def base_url(self) -> str:
        """Scheme and host as the client sees them; empty if it named no host, so that links are relative."""
        host = self.header(b"host")
        if _HOST.fullmatch(host) is None:
            return ""
        scheme = self.scope.get("scheme", "http")
        if b"x-forwarded-proto" in self.headers:
            peer = self.scope.get("client")
            scheme = self.proxies.scheme(peer[0] if peer else "", self.header(b"x-forwarded-proto"), scheme)
        return f"{scheme}://{host}"


def claimed_caller(credential: bytes | None, peer: Sequence[Any] | None) -> bytes:
    """Return the credential, the same however it is spaced; without one the address of the peer, (host, port)."""
    if credential:
        return b" ".join(credential.split()) if b"  " in credential or b"\t" in credential else credential
    return peer[0].encode() if peer else b""


def decoded_path(path: str) -> str:
    """A percent-encoded path as text. An encoded slash stays `%2F`: it is part of a segment and separates none."""
    return unquote(_ENCODED_SLASH.sub("%252F", path)) if "%" in path else path


def decoded_query(raw: bytes) -> str:
    """A query string as text, still percent-encoded."""
    # curl sends a URL as it was typed, "é" and all.
    return raw.decode() if raw.isascii() else quote(raw, safe=_ASCII)


def check_headers(request: Request) -> None:
    """Malformed if a header that may stand once stands more often, or HTTP/1.1 comes without Host (RFC 9112, 3.2)."""
    if not request.headers.get(b"host") and request.scope.get("http_version") == "1.1":
        raise Malformed("The request has no Host header, which HTTP/1.1 requires.")
    seen: set[bytes] = set()
    for name, _ in request.scope["headers"]:
        if name in _SINGLE and name in seen:
            raise Malformed(f"The header {name.decode('latin-1')} stands more than once.")
        seen.add(name)
