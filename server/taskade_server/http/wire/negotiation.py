"""Accept, Prefer, entity tags and CORS: what a client takes, has already, and may see."""

import re
from typing import Any, Final

from taskade_server.http.wire.reply import Headers
from taskade_server.http.wire.request import Request
from taskade_server.kit.errors import Issue

# What servers and proxies that compress put behind an entity tag: "1-gzip", "1--gzip" and "1;gzip" are the tag "1".
_TAG_SUFFIX: Final = re.compile(r'[-;]{1,2}(?:gzip|br|zstd|deflate)(?=")')


# The names of headers in a preflight request (RFC 9110, section 5.1), and no more of them than browsers send.
_HEADER_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")


def accepts(accept: str, media: tuple[str, ...]) -> bool:
    """Whether an Accept header allows one of some types, JSON among them or not."""
    if any(kind.endswith("json") for kind in media) and accepts_json(accept):
        return True
    lower = accept.lower()
    return (
        not accept or "*/*" in lower or any(kind in lower or f"{kind.partition('/')[0]}/*" in lower for kind in media)
    )


def accepts_json(accept: str) -> bool:
    """Whether an Accept header allows JSON."""
    if not accept or accept == "*/*" or "application/json" in accept or "*/*" in accept or "application/*" in accept:
        return True
    lower = accept.lower()
    return "+json" in lower or "application/json" in lower or "application/*" in lower


def names_etag(header: bytes, etag: str) -> bool:
    """Whether an If-None-Match header names an ETag (weak comparison, RFC 9110 section 8.8.3.2)."""
    text = _TAG_SUFFIX.sub("", header.decode("latin-1"))
    return text.strip() == "*" or etag.removeprefix("W/") in [
        part.strip().removeprefix("W/") for part in text.split(",")
    ]


def prefers_minimal(request: Request) -> bool:
    """Whether the client prefers not to be sent what it wrote (RFC 7240)."""
    header = request.headers.get(b"prefer")
    return header is not None and "return=minimal" in header.decode("latin-1").lower().replace(" ", "").replace('"', "")


def versions(header: bytes | None) -> frozenset[str] | None:
    """The versions that an If-Match header names.

    Left out are what stands behind the version in the tag of an answer with includes, and the suffix of a proxy.
    """
    if header is None:
        return None
    parts = _TAG_SUFFIX.sub("", header.decode("latin-1")).split(",")
    return frozenset(part.strip().removeprefix("W/").strip('"').partition("-")[0] for part in parts)


def named_version(given: Any, pointer: str, issues: list[Issue]) -> frozenset[str] | None:
    """The version that an `if_match` inside of a body names, as `versions`; a fault of it goes to the issues."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        detail = 'if_match is a version or an ETag, such as 3 or "\\"3\\"".'
        issues.append(Issue("wrong_type", detail, pointer=f"{pointer}/if_match"))
        return None
    return versions(str(given).encode("latin-1", "replace"))


def tagged(encoding: bytes, header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """A header of a compressed answer. A strong entity tag stands for its bytes, so that it names the encoding, too."""
    name, value = header
    if name != b"etag" or not value.startswith(b'"'):
        return header
    return name, value[:-1] + b"-" + encoding + b'"'


_EXPOSED: Final = (
    b"ETag, Link, Location, Total-Count, Commit-Seq, Dry-Run, Idempotent-Replayed, Preference-Applied, Retry-After, "
    b"Next-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    b"X-Request-Id"
)
VARY: Final = (b"vary", b"origin")
"""What follows is in answers to browsers only, so that a cache must not give one of these to the other."""
CORS: Final[Headers] = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]


def preflight(methods: list[str], requested: bytes) -> Headers:
    """The headers of an answer to OPTIONS: what the path supports, and that browsers may use it from any origin.

    `requested` is the value of Access-Control-Request-Headers, which is allowed as it is. Any origin and any header are
    safe here: credentials travel in the Authorization header only, never in a cookie.
    """
    allow = ", ".join(methods).encode()
    return [
        (b"allow", allow),
        (b"access-control-allow-methods", allow),
        (b"access-control-allow-headers", requested if _HEADER_NAMES.fullmatch(requested) else _USUAL_HEADERS),
        (b"access-control-max-age", b"86400"),
        (b"vary", b"access-control-request-headers"),
    ]


_USUAL_HEADERS: Final = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, Traceparent, "
    b"Tracestate, Baggage"
)
