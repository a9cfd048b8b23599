"""Headers of responses in the OpenAPI document."""

from typing import Final

from taskade_server.engine.schema import Schema, sample_id
from taskade_server.kit import ids

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TASK: Final = f"/v1/tasks/{sample_id('task')}"
_HEADER_NAMES: Final = {"ListETag": "ETag"}
WRITTEN: Final = ("Commit-Seq", "Idempotent-Replayed", "Preference-Applied", "Dry-Run")
"""Headers of every successful write, each where it applies."""
EVERYWHERE: Final = (
    "X-Request-Id", "RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip
"""Headers of every response. The document names them with the errors and in its introduction, not with each success."""
HEADERS: Final[Schema] = {
    "X-Request-Id": {"required": True, "schema": {"type": "string", "pattern": ids.pattern("req")},
                     "description": "The id of the request, under which the server's log has it.",
                     "example": sample_id("req")},
    "ETag": {"required": True, "schema": {"type": "string", "pattern": '^"[0-9]+(-[0-9a-f]+)?(-gzip|-zstd)?"$'},
             "example": '"3"',
             "description": "The version of the resource, for `If-Match` and `If-None-Match`."},
    "Location": {"required": True, "schema": {"type": "string", "format": "uri-reference"},
                 "description": "The address of what was created.", "example": TASK},
    "Link": {"schema": {"type": "string"}, "example": '<http://127.0.0.1:8000/v1/tasks?cursor=AbC...>; rel="next"',
             "description": "The address of the next page (RFC 8288). The last page has no such header."},
    "Next-After": {"schema": {"type": "integer", "minimum": 0}, "example": 123,
                   "description": "The `after` of the next request. Absent with `order=desc`."},
    "X-Accel-Buffering": {"schema": {"type": "string"}, "example": "no",
                          "description": "Tells proxies to pass each message on at once."},
    "Content-Disposition": {"schema": {"type": "string"}, "example": 'attachment; filename="audit.jsonl"',
                            "description": "A name for the file."},
    "Cache-Control": {"schema": {"type": "string"}, "example": "no-store",
                      "description": "Tells caches not to keep the response."},
    "Total-Count": {"schema": {"type": "integer", "minimum": 0}, "example": 1234,
                    "description": "How many there are on all pages together; only with `count=true`."},
    "Commit-Seq": {"schema": {"type": "string", "pattern": r"^ws_[0-9a-z]{26}:[0-9]+(, ws_[0-9a-z]{26}:[0-9]+)*$"},
                   "description": "The workspace and the position of its log after the write: the `min_seq` of a read"
                   " that must see the write. Absent if nothing changed.",
                   "example": f"{sample_id('ws')}:123"},
    "ListETag": {"schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'}, "example": 'W/"5f2d9c1e0a7b4c3d2e1f0a9b"',
                 "description": "Changes with every change that the caller can see; for `If-None-Match`."},
    "Idempotent-Replayed": {"schema": {"type": "string", "const": "true"}, "example": "true",
                            "description": "Present if this is the response to an earlier request with the same"
                            " `Idempotency-Key`."},
    "Preference-Applied": {"schema": {"type": "string"}, "example": "return=minimal",
                           "description": "The preference that was followed (RFC 7240)."},
    "Dry-Run": {"schema": {"type": "string", "const": "true"}, "example": "true",
                "description": "Present if the request was a dry run, so that nothing was written."},
    "Allow": {"schema": {"type": "string"}, "example": "GET, HEAD, OPTIONS",
              "description": "With 405: the methods that the path supports."},
    "WWW-Authenticate": {"schema": {"type": "string"}, "example": 'Bearer realm="taskade"',
                         "description": "With 401: how to authenticate (RFC 6750)."},
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "example": 3,
                    "description": "With 429, 503 and `idempotency-key-in-use`: how many seconds to wait before the"
                    " request is sent again."},
    "RateLimit-Policy": {"schema": {"type": "string"}, "example": '"default";q=100;w=60',
                         "description": "The limits that apply (draft-ietf-httpapi-ratelimit-headers)."},
    "RateLimit": {"schema": {"type": "string"}, "example": '"default";r=42;t=17',
                  "description": "How much of each limit is left."},
    "X-RateLimit-Limit": {"schema": {"type": "integer", "minimum": 1}, "example": 100,
                          "description": "How many requests may be made at once."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer", "minimum": 0}, "example": 42,
                              "description": "How many requests are left now."},
    "X-RateLimit-Reset": {"schema": {"type": "integer", "minimum": 0}, "example": 17,
                          "description": "In how many seconds all requests are available again."},
}  # fmt: skip


def header_refs(*names: str) -> Schema:
    """References to headers of the components, by the name that the header has in a response."""
    return {_HEADER_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in names}
