"""Requests that nobody would send: made from the document's schemas, then damaged; ids come from anywhere.

Why from the document: every operation that exists is tried, also those that are added after this was written.
"""

import base64
import copy
import json
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

ID: Final = re.compile(r"\b([a-z]{2,5})_[0-7][0-9a-hjkmnp-tv-z]{25}\b")
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
PREFIXES: Final = ("ws", "proj", "task", "cmt", "tmpl", "user", "key", "wh", "evt", "dlv", "rpl")
ENOUGH_IDS: Final = 300
BODIES: Final = 0.75
READ_ONLY: Final = {"$ref": "#/components/schemas/ReadOnly"}
DEPTH: Final = 5
PLAIN: Final = frozenset([
    "name", "description", "body", "labels", "priority", "custom_fields", "project_id", "task_id", "tasks", "set",
    "ids", "scopes", "url", "events", "visibility", "settings", "project",
])  # fmt: skip
"""Members of a request that may well succeed."""
NAMED: Final[dict[str, tuple[Any, ...]]] = {
    "status": ("pending", "in_progress", "completed", "done"),
    "recurrence": ("FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO,WE", "FREQ=MONTHLY;BYMONTHDAY=31;COUNT=3", "FREQ=YEARLY"),
    "due_date": ("2027-01-31", "2026-11-30T10:00:00Z", "9999-12-31", "0001-01-01", "2024-02-29T23:59:59.999+14:00"),
    "start_date": ("2026-12-01", "2026-11-01T00:00:00Z", "9999-12-31"),
    "allowed_ips": (["127.0.0.1"], ["127.0.0.0/8", "::1"], []),
    "as_of": ("now", "1", "5", "-1h", "-1s", "2026-01-01", "999999999"),
    "after": (0, 1, 10, "latest"),
    "role": ("guest", "member", "admin", "owner", "viewer", "commenter", "editor"),
    "position": ("a0", "Zz", "a" * 199, "\x7f"),
    "seconds": (1, 2),
    "wait": (0, 1),
    "q": ("task", "a", "zq", "\ufdfa" * 50),
}
HOSTILE: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 2**63, -(2**63), 1e308, 0.1, "", " ", "\x00", "\ud800", "\ufdfa" * 200, "é" * 300, "a" * 70_000,
    [], {}, [[]], [None], {"": ""}, {"$ref": "0.id"}, "{0.id}", "*", "me", "../..", "1" * 5000, "9" * 20, "%00", "true",
)  # fmt: skip


@dataclass(slots=True)
class Request:
    """One request as it is sent; `operation` is its id in the document, or what else it is."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    operation: str


class Pool:
    """What a caller can know: ids by prefix, positions of logs, cursors and tokens. The newest are kept."""

    def __init__(self) -> None:
        self._ids: dict[str, deque[str]] = {}
        self.texts: dict[str, deque[str]] = {}

    def learn(self, body: str, headers: dict[str, str]) -> None:
        """Take the ids and tokens from an answer."""
        for found in ID.finditer(body[:100_000]):
            self._ids.setdefault(found[1], deque(maxlen=ENOUGH_IDS)).append(found[0])
        for name in ("commit-seq", "etag"):
            if name in headers:
                self._keep(name, headers[name])
        if link := re.search(r"[?&]cursor=([^&>]+)", headers.get("link", "")):
            self._keep("cursor", link[1])
        for name, value in re.findall(r'"(next|ticket|email|handle)":"([^"]{3,300})"', body[:20_000]):
            self._keep({"next": "since"}.get(name, name), value)

    def _keep(self, name: str, value: str) -> None:
        self.texts.setdefault(name, deque(maxlen=50)).append(value)

    def id(self, chance: random.Random, prefix: str) -> str | None:
        known = self._ids.get(prefix)
        return chance.choice(known) if known else None

    def text(self, chance: random.Random, name: str) -> str | None:
        known = self.texts.get(name)
        return chance.choice(known) if known else None


@dataclass(slots=True)
class Generator:
    """Makes requests for one caller. `everybody` has what anybody has seen; `own`, what this caller has."""

    document: dict[str, Any]
    chance: random.Random
    everybody: Pool
    hook_url: str
    own: Pool = field(default_factory=Pool)
    sent: set[str] = field(default_factory=set)
    """The markers that this caller has sent."""
    plain: bool = False
    """Whether the present request is to be one that may well succeed: few members, ids of one's own."""

    # -- texts and ids

    def marker(self) -> str:
        """A word that is in no other text."""
        word = "zqu" + "".join(self.chance.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=11))
        self.sent.add(word)
        return word

    def id(self, prefix: str) -> str:
        """Mostly an id that this caller knows; else another's, one of another kind, or one that never was."""
        dice = 0.4 if self.plain else self.chance.random()
        if dice < 0.07:
            return new_id(prefix, self.chance)
        if dice < 0.1:
            prefix = self.chance.choice(PREFIXES)
        pools = (self.everybody, self.own) if dice < 0.35 else (self.own, self.everybody)
        for pool in pools:
            if (found := pool.id(self.chance, prefix)) is not None:
                return found
        return f"{prefix}_01j9zq3v5kfg8wt2m4n6p8r0s2"

    def person(self) -> str:
        kind = self.chance.choice(["id", "id", "email", "handle", "me"])
        if kind == "me":
            return "me"
        return (self.everybody.text(self.chance, kind) if kind != "id" else None) or self.id("user")

    # -- values by schema

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        return schema

    def value(self, schema: dict[str, Any], name: str = "", depth: int = 0) -> Any:
        """A value that a schema allows, as far as it tells by its form."""
        schema = self.resolve(schema)
        if name in NAMED and self.chance.random() < BODIES and not (self.plain and name == "as_of"):
            return copy.deepcopy(self.chance.choice(NAMED[name]))
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.chance.choice(schema["enum"])
        for group in ("anyOf", "oneOf"):
            if group in schema and not ("properties" in schema and self.chance.random() < BODIES):
                return self.value(self.chance.choice(schema[group]), name, depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = self.chance.choice([one for one in kind if one != "null" or self.chance.random() < 0.2] or kind)
        makers: dict[Any, Callable[[], Any]] = {
            "null": lambda: None,
            "boolean": lambda: self.chance.random() < 0.5,
            "integer": lambda: self._number(schema),
            "number": lambda: self._number(schema) + self.chance.choice([0, 0.5]),
            "string": lambda: self._string(schema, name),
            "array": lambda: self._array(schema, name, depth),
            "object": lambda: self._object(schema, name, depth),
        }
        return makers.get(kind, self._anything)()

    def _anything(self) -> Any:
        return self.chance.choice([None, 1, self.marker(), [self.marker()], {"a": self.marker()}])

    def _number(self, schema: dict[str, Any]) -> int:
        low = int(schema.get("minimum", 0))
        high = min(int(schema.get("maximum", 50)), 2**53)
        return self.chance.choice([low, high, self.chance.randint(low, max(low, min(high, low + 50)))])

    def _string(self, schema: dict[str, Any], name: str) -> str:
        pattern = str(schema.get("pattern", ""))
        if found := re.match(r"\^([a-z]{2,5})_\[", pattern):
            return self.id(found[1])
        if pattern.startswith("^[a-z]+_["):  # of any kind
            return self.id(self.chance.choice(PREFIXES))
        if name in ("assignee", "user", "author", "created_by", "actor"):
            return self.person()
        if name == "url":
            return self.hook_url
        if name == "email":
            return f"{self.marker()}@example.com"
        if name == "secret":  # in no event: nobody could tell later whose it is
            return self.chance.choice(["", "a secret of our own", "whsec_" + "QQ" * 16, "\ud800"])
        if name in ("handle", "key") or pattern.startswith("^[a-z][a-z0-9_-]"):  # the name of a secret
            return self.marker()
        if name == "host":
            return f"{self.marker()}.example"
        if schema.get("format") in ("date", "date-time") or name.endswith(("_at", "_before", "_after", "from", "to")):
            return self.chance.choice(["2026-11-30", "2026-01-01T00:00:00Z", "-2h", "+7d"])
        if name in ("cursor", "since", "ticket"):
            return self.everybody.text(self.chance, name) or "x"
        if name == "path":
            return self.path_of_batch()
        size = self.chance.random()
        most = int(schema.get("maxLength", 200))
        if size < 0.01:
            return (self.marker() + " ") * (most // 16) or "x"
        return self.chance.choice(["", "Über ", "任务 ", "a b "]) + self.marker()

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        most = min(int(schema.get("maxItems", 20)), 500)
        size = most if self.chance.random() < 0.01 else min(most, self.chance.choice([0, 1, 1, 2, 3]))
        size = max(size, int(schema.get("minItems", 0)))
        if depth > DEPTH:
            size = int(schema.get("minItems", 0))
        return [self.value(schema.get("items", {}), name.removesuffix("s"), depth + 1) for _ in range(size)]

    def _object(self, schema: dict[str, Any], name: str, depth: int) -> dict[str, Any]:
        if name in ("filter", "query") and "properties" not in schema:
            schema = self.resolve({"$ref": "#/components/schemas/TaskFilter"})
        members = {key: item for key, item in schema.get("properties", {}).items() if item != READ_ONLY}
        needed = [key for key in schema.get("required", []) if key in members]
        others = [key for key in members if key not in needed and (key != "id" or self.chance.random() < 0.15)]
        if self.plain and depth < 2:
            others = [key for key in others if key in PLAIN]
        many = self.chance.choice([0, 1, 1, 2, 3, 6]) if depth <= DEPTH else 0
        chosen = needed + self.chance.sample(others, min(many, len(others)))
        made = {key: self.value(members[key], key, depth + 1) for key in chosen}
        if not members and schema.get("additionalProperties") is not False and self.chance.random() < 0.6:
            made[self.chance.choice(["size", "x y", self.marker()])] = self.chance.choice([1, "a", None, self.marker()])
        return made

    # -- requests

    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Method, path and operation of all that the document has."""
        return [
            ("QUERY" if method == "x-query" else method.upper(), path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        ]

    def request(self, method: str, path: str, operation: dict[str, Any]) -> Request:
        """A request for an operation: every second one plain, every eighth one damaged."""
        self.plain = self.chance.random() < 0.5
        damaged = not self.plain and self.chance.random() < 0.25
        headers: dict[str, str] = {}
        query: list[tuple[str, str]] = []
        address = path
        for item in operation.get("parameters", []):
            parameter = self.resolve(item)
            schema = parameter.get("schema") or parameter["content"]["application/json"]["schema"]
            if parameter["in"] == "path":
                made = str(self.value(schema, parameter["name"]))
                made = str(self.chance.choice(HOSTILE)) if damaged and self.chance.random() < 0.2 else made
                address = address.replace("{" + parameter["name"] + "}", _quoted(made[:3000]))
            elif parameter["in"] == "query":
                query += self._query(parameter, schema, damaged)
            else:
                self._header(parameter, headers)
        if operation["operationId"].endswith(("events.stream", "/events/stream")):
            query = [pair for pair in query if pair[0] != "seconds"] + [("seconds", "1")]
        body, headers["Content-Type"] = self._body(operation, damaged)
        if damaged and self.chance.random() < 0.1:
            method = self.chance.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS", "HEAD"])
        asked = f"?{urlencode(query, errors='replace')}" if query else ""
        return Request(method, f"/v1{address}{asked}"[:60_000], headers, body, operation["operationId"])

    def _query(self, parameter: dict[str, Any], schema: dict[str, Any], damaged: bool) -> list[tuple[str, str]]:
        name = parameter["name"]
        likely = {"include": 0.3, "dry_run": 0.08, "min_seq": 0.04, "seconds": 1, "after": 0.5, "workspace_id": 0.3}
        if not parameter.get("required") and self.chance.random() >= likely.get(name, 0.06):
            return []
        if name == "min_seq":
            return [(name, self.everybody.text(self.chance, "commit-seq") or "x:1")]
        made = self.chance.choice(HOSTILE) if damaged and self.chance.random() < 0.3 else self.value(schema, name)
        if parameter.get("style") == "deepObject" and isinstance(made, dict):
            return [(f"{name}[{key}]", _flat(item)) for key, item in made.items()]
        return [(name, _flat(made))] * (2 if damaged and self.chance.random() < 0.1 else 1)

    def _header(self, parameter: dict[str, Any], headers: dict[str, str]) -> None:
        name, dice = parameter["name"], self.chance.random()
        if name == "Idempotency-Key" and dice < 0.15:
            headers[name] = f"again-{self.chance.randrange(12)}"
        elif name in ("If-Match", "If-None-Match") and dice < 0.08:
            headers[name] = self.everybody.text(self.chance, "etag") or "*"
        elif name == "Prefer" and dice < 0.05:
            headers[name] = "return=minimal"

    def _body(self, operation: dict[str, Any], damaged: bool) -> tuple[bytes, str]:
        content = operation.get("requestBody", {}).get("content")
        if not content:
            return b"", "application/json"
        media = self.chance.choice(list(content))
        made = self.batch() if operation["operationId"] == "batch" else self.value(content[media]["schema"])
        if damaged:
            dice = self.chance.random()
            if dice < 0.1:
                return self.chance.choice(
                    [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"a":1,"a":2}', b"1e999", b"NaN"]
                ), media
            made = self._damage(made)
        return json.dumps(made).encode(), media

    def _damage(self, made: Any) -> Any:
        """The value with one of its parts replaced."""
        if isinstance(made, dict) and made and self.chance.random() < 0.85:
            key = self.chance.choice(list(made))
            return {**made, key: self._damage(made[key])}
        if isinstance(made, list) and made and self.chance.random() < 0.85:
            index = self.chance.randrange(len(made))
            return [*made[:index], self._damage(made[index]), *made[index + 1 :]]
        return self.chance.choice(HOSTILE)

    def opening(self) -> list[Request]:
        """What somebody does first, and now and then again: two projects, and something in each, in their own words."""

        def post(path: str, **body: Any) -> Request:
            return Request("POST", f"/v1/{path}", _json_headers(), json.dumps(body).encode(), f"{path}.create")

        found = [
            post("templates", name=self.marker(), tasks=[{"name": self.marker()}]),
            post("webhooks", url=self.hook_url, events=["*"], description=self.marker()),
        ]
        for visibility in ("workspace", "private"):
            project, task = new_id("proj", self.chance), new_id("task", self.chance)
            found += [
                post("projects", id=project, name=self.marker(), visibility=visibility, description=self.marker()),
                post("tasks", id=task, project_id=project, name=self.marker(), description=self.marker()),
                post("tasks", project_id=project, parent_id=task, name=self.marker(), labels=[self.marker()]),
                post("comments", task_id=task, body=self.marker()),
            ]
        return found

    # -- batches

    def batch(self) -> dict[str, Any]:
        """Some operations, sometimes with references to those before."""
        size = 100 if self.chance.random() < 0.02 else self.chance.randint(1, 6)
        made = []
        for number in range(size):
            method, path, operation = self.chance.choice(self.operations())
            one = self.request(method, path, operation)
            entry: dict[str, Any] = {"method": one.method, "path": one.path}
            if self.chance.random() < 0.3:
                entry["id"] = f"op{number}"
            if one.body:
                entry["body"] = _loaded(one.body)
                if number and isinstance(entry["body"], dict) and self.chance.random() < 0.2:
                    entry["body"]["project_id"] = {"$ref": f"{self.chance.randrange(number)}.id"}
            made.append(entry)
        return {"operations": made}

    def path_of_batch(self) -> str:
        return f"/tasks/{self.id('task')}"


def new_id(prefix: str, chance: random.Random) -> str:
    """An id that never was."""
    return f"{prefix}_{chance.choice('01234567')}{''.join(chance.choices(ALPHABET, k=25))}"


def _json_headers() -> dict[str, str]:
    return {"Content-Type": "application/json"}


def _flat(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="*@:") or "%20"


def _loaded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return base64.b64encode(body).decode()
