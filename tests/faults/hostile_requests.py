"""Single requests that no honest client makes, and how a server may answer each.

Why each names its statuses: a server that answers 500 to an attack has been hit, even if it goes on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.load_clients import head

MIB: Final = 1 << 20
JSON: Final = "Content-Type: application/json"
CHUNKS: Final = "Transfer-Encoding: chunked"
DAILY: Final = "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile request: its parts, sent one after the other, and the statuses that are right.

    Status 0 stands for a connection that is just closed.
    """

    name: str
    parts: Callable[[], list[bytes]]
    statuses: tuple[int, ...]


class RequestBuilder:
    """Makes requests with one key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def raw(self, method: str, path: str, *lines: str, body: bytes = b"") -> list[bytes]:
        """A request as it is said here."""
        return [head(method, path, self.key, *lines), body]

    def post(self, path: str, body: bytes, *lines: str) -> list[bytes]:
        """A POST with this body."""
        return self.raw("POST", path, JSON, f"Content-Length: {len(body)}", *lines, body=body)

    def send(self, path: str, value: Any) -> list[bytes]:
        """A POST with this value as JSON."""
        return self.post(path, json.dumps(value).encode())

    def query(self, **members: Any) -> list[bytes]:
        """A query of tasks."""
        return self.send("/v1/tasks/query", members)

    def chunked(self, body: bytes) -> list[bytes]:
        """A POST of a task with a body in chunks."""
        return self.raw("POST", "/v1/tasks", JSON, CHUNKS, body=body)


def attacks(key: str) -> list[Attack]:
    """Requests that are meant to stall a server, to make it swell, or to make two of one."""
    build = RequestBuilder(key)
    return [*_bodies(build), *_queries(build), *_batches(build), *_heads(build), *_smuggled(build), *_addresses(build)]


def _bodies(build: RequestBuilder) -> list[Attack]:
    post, send = build.post, build.send
    return [
        Attack("a hundred thousand levels", lambda: post("/v1/tasks", b"[" * 100_000), (400,)),
        Attack("8 MiB of lists", lambda: post("/v1/tasks/bulk", b"[" + b"[]," * 2_700_000 + b"1]"), (400,)),
        Attack("8 MiB of objects", lambda: post("/v1/tasks/bulk", b"[" + b"{}," * 2_700_000 + b"1]"), (400,)),
        Attack("8 MiB of numbers", lambda: post("/v1/tasks/bulk", b"[" + b"1," * 4_000_000 + b"1]"), (400,)),
        Attack("600,000 keys", lambda: send("/v1/batch", dict.fromkeys(map(str, range(600_000)), 1)), (400,)),
        Attack("80,000 unknown members", lambda: send("/v1/tasks", {f"m{n}": 1 for n in range(80_000)}), (400,)),
        Attack("900 unknown members", lambda: send("/v1/tasks", {f"m{n}": 1 for n in range(900)}), (422,)),
        Attack("a text without end", lambda: post("/v1/tasks/bulk", b'["' + b'\\"' * (4 * MIB - 2)), (400,)),
        Attack("a number of a million digits", lambda: post("/v1/tasks", b"9" * 1_000_000), (400,)),
        Attack("a day that never comes", lambda: send("/v1/tasks", {"name": "x", "recurrence": DAILY}), (422,)),
        Attack(
            "100 MiB in chunks", lambda: [*build.chunked(b""), *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 1600], (413,)
        ),
        Attack(
            "a length of 100 GB", lambda: build.raw("POST", "/v1/tasks", JSON, "Content-Length: 99999999999"), (413,)
        ),
        Attack(
            "a bomb of gzip", lambda: post("/v1/tasks", b"\x1f\x8b" + bytes(2000), "Content-Encoding: gzip"), (415,)
        ),
        Attack("50,000 chunks of a byte", lambda: build.chunked(b"1\r\n \r\n" * 50_000), (400,)),
    ]


def _queries(build: RequestBuilder) -> list[Attack]:
    query = build.query
    names = [{"name": str(number)} for number in range(1000)]
    return [
        Attack("a filter of 1,000 conditions", lambda: query(filter={"$or": names}), (400,)),
        Attack("1,000 unknown people", lambda: query(filter={"assignee": [f"x{n}" for n in range(1000)]}), (400,)),
        Attack("many a's, for a pattern", lambda: query(filter={"name": {"$contains": "a" * 100_000 + "!"}}), (200,)),
        Attack("a search for 100,000 words", lambda: query(q=" ".join(f"w{n}" for n in range(100_000))), (400,)),
        Attack("60,000 fields", lambda: query(fields=",".join(f"f{n}" for n in range(60_000))), (400,)),
        Attack("1,000 parameters",
             lambda: build.raw("GET", "/v1/tasks?" + "&".join(f"p{n}=1" for n in range(1000))), (400,)),
    ]  # fmt: skip


def _batches(build: RequestBuilder) -> list[Attack]:
    def batch(*operations: Any) -> list[bytes]:
        return build.send("/v1/batch", {"operations": operations})

    def task(**body: Any) -> dict[str, Any]:
        return {"method": "POST", "path": "/tasks", "body": {"name": "x", **body}}

    reads = [{"id": f"o{n}", "method": "GET", "path": "/users/me"} for n in range(500)]
    missing = [{"$ref": f"n{n}.id"} for n in range(20_000)]
    large = {"id": "a", **task(description="d" * 90_000)}
    return [
        Attack("20,000 references to nothing", lambda: batch(*reads, task(labels=missing)), (422,)),
        Attack("30,000 references to 90 kB",
             lambda: batch(large, task(description='{"$ref":"a.description"}' * 30_000)),
             (422,)),
        Attack("1,000 operations that are none", lambda: batch(*[dict.fromkeys(map(str, range(90)))] * 1000), (422,)),
    ]  # fmt: skip


def _heads(build: RequestBuilder) -> list[Attack]:
    raw = build.raw
    return [
        Attack("10,000 headers", lambda: raw("GET", "/v1/tasks", *["a: b"] * 10_000), (431,)),
        Attack("a header of 1 MiB", lambda: raw("GET", "/v1/tasks", f"X: {'a' * MIB}"), (431,)),
        Attack("an address of 1 MiB", lambda: raw("GET", f"/v1/{'a' * MIB}"), (414, 431)),
        Attack("an address of 60 kB", lambda: raw("GET", f"/v1/{'a' * 60_000}"), (404,)),
    ]


def _smuggled(build: RequestBuilder) -> list[Attack]:
    """Two requests to one parser, one to another."""
    raw, chunked = build.raw, build.chunked
    second = head("DELETE", "/v1/users/me", build.key)
    return [
        Attack("a length and chunks",
             lambda: raw("POST", "/v1/tasks", JSON, "Content-Length: 5", CHUNKS, body=b"0\r\n\r\n" + second), (400,)),
        Attack("two lengths",
             lambda: raw("POST", "/v1/tasks", JSON, "Content-Length: 2", "Content-Length: 40", body=b"{}" + second),
             (400,)),
        Attack("a signed length", lambda: raw("POST", "/v1/tasks", JSON, "Content-Length: +2", body=b"{}"), (400,)),
        Attack("a folded header", lambda: raw("GET", "/v1/tasks", "X: a\r\n b"), (400,)),
        Attack("two hosts", lambda: raw("GET", "/v1/users/me", "Host: elsewhere.example"), (400,)),
        Attack("two keys", lambda: raw("GET", "/v1/users/me", "Authorization: Bearer another"), (400,)),
        Attack("chunks of endless size", lambda: chunked(b"f" * 17 + b"\r\n"), (400,)),
        Attack("chunks of no size", lambda: chunked(b"zz\r\n"), (400,)),
        Attack("chunks and no chunks", lambda: raw("POST", "/v1/tasks", JSON, f"{CHUNKS}, identity", body=b"0\r\n\r\n"),
             (400,)),
        Attack("chunks of gzip",
             lambda: raw("POST", "/v1/tasks", JSON, "Transfer-Encoding: gzip, chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
             (415,)),
    ]  # fmt: skip


def _addresses(build: RequestBuilder) -> list[Attack]:
    def bare(line: bytes) -> list[bytes]:
        return [line + b" HTTP/1.1\r\nHost: x\r\n\r\n"]

    return [
        Attack("an address with a host", lambda: build.raw("GET", "http://elsewhere.example/v1/users/me"), (200,)),
        Attack("an address that is not ASCII", lambda: bare("GET /v1/täsks".encode()), (404,)),
        Attack("an address that is no text", lambda: bare(b"GET /v1/\xff\xfe"), (400, 404)),
        Attack("a way out of the folder", lambda: bare(b"GET /v1/../../../etc/passwd"), (404,)),
        Attack("a tunnel", lambda: bare(b"CONNECT elsewhere.example:80"), (0, 404, 405)),
    ]
