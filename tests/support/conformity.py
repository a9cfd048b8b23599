"""Whether an exchange with the server is one that its OpenAPI document describes.

Why stricter than a validator of the document alone: the document leaves room for members of later versions and lets
`fields` cut an answer short; a server that sends members nobody wrote down, or leaves some out unasked, is wrong all
the same. A request that succeeds must be documented, too: otherwise the document promises less than the server takes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx2
import jsonschema_rs
from taskade_server.domain.identity import MEMBER
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine import schema as schemas
from taskade_server.engine.model import CUSTOM_KEY
from taskade_server.http.documents import headers as documents_headers
from taskade_server.http.documents import openapi

from tests.support import described

Schema = dict[str, Any]
BASE = "urn:taskade"
CREATIONS = {"member": ("WorkspaceMemberCreate", "ProjectMemberCreate")}
URI_TOO_LONG = 414  # answered by the connection's parser, without a document
TRANSPORT = frozenset(
    ["connection", "content-encoding", "content-length", "content-type", "date", "server", "transfer-encoding", "vary"]
)
NEEDED = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after"}
"""The header that an error has to have: the document has one response for all errors that any request can meet."""


class NonconformingError(AssertionError):
    """The exchange differs from the document; the message says where."""


class Exchange(NamedTuple):
    """A request and its answer, whatever client made it. Header names are in lower case."""

    method: str
    url: str
    sent: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def parameters(self) -> list[str]:
        return [name for name, _ in parse_qsl(urlsplit(self.url).query, keep_blank_values=True)]


def check(request: httpx2.Request, response: httpx2.Response) -> None:
    """Raise NonconformingError unless the document describes the exchange. Streams are left alone."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if headers.get("content-type", "").startswith("text/event-stream"):
        return
    body = b"" if request.method == "HEAD" else response.read()
    verify(Exchange(request.method, str(request.url), request.read(), response.status_code, headers, body))


def watch(response: httpx2.Response) -> None:
    """The same as an event hook of a client."""
    check(response.request, response)


def verify(exchange: Exchange) -> None:
    """Raise NonconformingError unless the document describes the exchange."""
    faults = list(_faults(exchange))
    if faults:
        line = f"{exchange.method} {exchange.url[:300]} answered {exchange.status}"
        raise NonconformingError("\n  ".join([f"{line}, which the OpenAPI document does not describe:", *faults]))


def _faults(exchange: Exchange) -> Iterator[str]:
    operations = _operations_of(exchange.path)
    if exchange.status >= 400 and exchange.status != URI_TOO_LONG:
        yield from _problem_faults(exchange)
    if operations is None:
        # A page beside the API, or a path that does not exist.
        if exchange.path.startswith("/v1/") and exchange.status != 404 and exchange.method != "OPTIONS":
            yield "no such path"
        return
    operation = operations.get("get" if exchange.method == "HEAD" else exchange.method.lower())
    if operation is None:
        yield from _undocumented_method(exchange, operations)
        return
    if exchange.status == URI_TOO_LONG:
        yield from (["a body"] if exchange.body else [])
        return
    response = _response(operation, exchange.status)
    if response is None:
        yield f"the statuses are {', '.join(operation['responses'])}"
        return
    if NEEDED.get(exchange.status, "date") not in exchange.headers:
        yield f"the header {NEEDED[exchange.status]} is missing"
    yield from _header_faults(exchange, response)
    if exchange.method != "HEAD":
        yield from _body_faults(exchange, operation, response)
    if exchange.status < 300:
        yield from _request_faults(exchange, operation)


def _response(operation: Schema, status: int) -> Schema | None:
    """What the document has for a status; the default stands for the statuses that it has examples of, no others."""
    if str(status) in operation["responses"]:
        return resolve(operation["responses"][str(status)])
    if (
        status == 204
        and "200" in operation["responses"]
        and any("Prefer" in str(one) for one in operation["parameters"])
    ):
        return {name: part for name, part in resolve(operation["responses"]["200"]).items() if name != "content"}
    default = resolve(operation["responses"]["default"])
    examples = default["content"][documents_headers.PROBLEM]["examples"].values()
    return default if any(example["value"]["status"] == status for example in examples) else None


def _undocumented_method(exchange: Exchange, operations: Schema) -> Iterator[str]:
    expected = {*operations, "options", *(["head"] if "get" in operations else [])}
    allowed = {method.strip().lower() for method in exchange.headers.get("allow", "").split(",")}
    if exchange.status != (204 if exchange.method == "OPTIONS" else 405):
        yield f"the method {exchange.method} is not documented"
    elif allowed != expected:
        yield f"Allow says {sorted(allowed)}, the document {sorted(expected)}"


def _problem_faults(exchange: Exchange) -> Iterator[str]:
    if exchange.headers.get("content-type") != documents_headers.PROBLEM:
        yield f"an error has the type {documents_headers.PROBLEM}, not {exchange.headers.get('content-type')}"
        return
    if exchange.method == "HEAD":
        return
    problem = json.loads(exchange.body)
    yield from _schema_faults({"$ref": "#/components/schemas/Problem"}, problem)
    if problem.get("status") != exchange.status:
        yield f"the problem's status is {problem.get('status')}"
    if problem.get("type") != f"/problems/{problem.get('code')}":
        yield f"the problem's type is {problem.get('type')}"
    if problem.get("request_id") != exchange.headers.get("x-request-id"):
        yield "the problem's request_id is not that of the header"
    if problem.get("code") == "batch-failed":
        yield from _batch_faults(exchange, problem)
    elif problem.get("code") not in _codes().get(exchange.status, ()):
        yield f"{problem.get('code')} is not documented for {exchange.status}"


def _batch_faults(exchange: Exchange, problem: Schema) -> Iterator[str]:
    """A batch fails with the status of the operation that failed."""
    inner = problem["operation"]["problem"]
    yield from (
        f"operation.problem: {fault}" for fault in _schema_faults({"$ref": "#/components/schemas/Problem"}, inner)
    )
    if exchange.path != "/v1/batch":
        yield "batch-failed is for batches"
    if problem.get("pointer") != f"/operations/{problem['operation']['index']}":
        yield f"the pointer is {problem.get('pointer')}, the operation {problem['operation']['index']}"
    if inner["status"] != exchange.status or inner["code"] not in _codes().get(exchange.status, ()):
        yield f"the operation's problem is {inner['status']} {inner['code']}"


def _header_faults(exchange: Exchange, response: Schema) -> Iterator[str]:
    everywhere = documents_headers.header_refs(*documents_headers.EVERYWHERE)
    named = {**response.get("headers", {}), **everywhere}
    documented = {name.lower(): resolve(header) for name, header in named.items()}
    for name, header in documented.items():
        value = exchange.headers.get(name)
        if value is None:
            if header.get("required"):
                yield f"the header {name} is missing"
        else:
            kind = header["schema"].get("type")
            typed = int(value) if kind == "integer" and value.isdigit() else value
            yield from (f"header {name}: {fault}" for fault in _schema_faults(header["schema"], typed))
    for name in exchange.headers:
        if name not in documented and name not in TRANSPORT and not name.startswith("access-control-"):
            yield f"the header {name} is not documented"


def _body_faults(exchange: Exchange, operation: Schema, response: Schema) -> Iterator[str]:
    content = response.get("content")
    kind = exchange.headers.get("content-type")
    if exchange.headers.get("preference-applied") == "return=minimal" and exchange.status < 300:
        content = None
    if content is None:
        if exchange.body:
            yield "the document has no body"
        return
    if kind not in content:
        yield f"the type is {kind}, the document has {', '.join(content)}"
        return
    if exchange.status < 300 and str(kind).endswith("json"):
        schema = content[kind]["schema"]
        named = {name.partition("[")[0] for name in exchange.parameters}
        cut = "fields" in named or _asks_for_fields(exchange, operation)
        yield from _schema_faults(_cut(schema) if cut else schema, json.loads(exchange.body))


def _asks_for_fields(exchange: Exchange, operation: Schema) -> bool:
    if "requestBody" not in operation or not exchange.sent:
        return False
    sent = json.loads(exchange.sent)
    return isinstance(sent, dict) and "fields" in sent


def _cut(schema: Schema) -> Schema:
    """The schema of an answer that `fields` cuts."""
    return {**schema, "items": _cut(schema["items"])} if "items" in schema else described.cut(resolve(schema))


def _request_faults(exchange: Exchange, operation: Schema) -> Iterator[str]:
    documented = {resolve(parameter)["name"] for parameter in operation["parameters"]}
    for name in exchange.parameters:
        stem = re.split(r"[\[.]", name)[0]
        if stem not in documented and stem not in ("$and", "$or", "$not"):
            yield f"the parameter {name[:100]} is not documented"
    if exchange.sent and "requestBody" in operation:
        sent = json.loads(exchange.sent)
        content = operation["requestBody"]["content"]
        media = (
            described.JSON_PATCH
            if isinstance(sent, list) and described.JSON_PATCH in content
            else documents_headers.JSON
        )
        schema = content[media]["schema"]
        if isinstance(sent, dict) and exchange.method in ("PATCH", "PUT"):
            sent = {name: _changes(value) if name == "tasks" else _unexpanded(value) for name, value in sent.items()}
        yield from (f"request body: {fault}" for fault in _schema_faults(schema, sent))


def _changes(value: Any) -> Any:
    """The changes of a bulk request, each of which may be what was read."""
    if not isinstance(value, list) or not all(isinstance(change, dict) for change in value):
        return value
    return [{name: _unexpanded(member) for name, member in change.items()} for change in value]


def _unexpanded(value: Any) -> Any:
    """What `include` expanded may come back: the text of the update schemas says so, their types keep to the ids."""
    if isinstance(value, list):
        return [_unexpanded(item) for item in value]
    return value["id"] if isinstance(value, dict) and "version" in value and "id" in value else value


# ---- the document ----------------------------------------------------------------------------------------------------


@cache
def document() -> Schema:
    """The document with every answer closed against members it does not declare.

    Some of what the server takes the document says in words, since generated clients are better off without it: bodies
    that create something may hold read-only members, as null or as what they will be; filters may hold
    `custom_fields.key`, and batches methods in lower case.
    """
    found = described.with_patches(described.with_queries(json.loads(openapi.render())))
    known = found["components"]["schemas"]
    for name in known:
        known[name] = described.merged(found, known[name])
    methods = known["BatchOperation"]["properties"]["method"]["enum"]
    methods += [method.lower() for method in methods]
    for name in [name for name in known if "custom_fields" in known[name].get("properties", {})]:
        if name.endswith("Filter"):
            dotted = {rf"^custom_fields\.{CUSTOM_KEY}$": {"$ref": "#/components/schemas/CustomCondition"}}
            known[name]["patternProperties"] = dotted
    for resource in (*RESOURCES, MEMBER):
        fixed = {member.name: schemas.fixed(member) for member in schemas.public(resource) if not member.writable}
        for name in CREATIONS.get(resource.name, (f"{schemas.title(resource)}Create",)):
            known[name]["properties"] = {**fixed, **known[name]["properties"]}
    closed: Schema = _closed(found)
    return closed


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def resolve(node: Schema) -> Schema:
    """A part of the document, or what it refers to."""
    reference = node.get("$ref")
    if reference is None:
        return node
    found: Any = document()
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return resolve(found)


@cache
def _templates() -> list[tuple[re.Pattern[str], Schema]]:
    paths = document()["paths"]
    ordered = sorted(paths, key=lambda path: (path.count("{"), path))
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", f"/v1{path}/?")), paths[path]) for path in ordered]


def _operations_of(path: str) -> Schema | None:
    operations = next((found for pattern, found in _templates() if pattern.fullmatch(path)), None)
    if operations is None:
        return None
    return {("query" if name == "x-query" else name): operation for name, operation in operations.items()}


@cache
def _codes() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for response in document()["components"]["responses"].values():
        for content in response.get("content", {}).values():
            for code, sample in content.get("examples", {}).items():
                found.setdefault(sample["value"]["status"], set()).add(code)
    return found


@cache
def _validator(schema: str) -> jsonschema_rs.Validator:
    registry = jsonschema_rs.Registry([(BASE, document())])
    return jsonschema_rs.Draft202012Validator(json.loads(schema), registry=registry, validate_formats=True)


def _schema_faults(schema: Schema, value: Any) -> Iterable[str]:
    text = json.dumps(schema).replace('"$ref": "#/', f'"$ref": "{BASE}#/')
    validator = _validator(text)
    if validator.is_valid(value):
        return []
    return [
        f"/{'/'.join(map(str, error.instance_path))}: {error.message[:300]}" for error in validator.iter_errors(value)
    ]
