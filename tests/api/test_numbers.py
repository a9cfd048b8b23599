"""A number of any length is judged: wherever digits may come in, 5,000 of them get an answer, and never a 500.

Why from the document of the API: it names every place where a client can put something, also those that are new.
"""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids

from tests.api.asking import create

DIGITS = {
    "5,000 digits": "9" * 5000, "20 digits": "9" * 20, "zeros": "0" * 300 + "1", "negative": "-" + "9" * 400,
    "a fraction": "1." + "3" * 400, "an exponent": "1e400", "far too large an exponent": "1e" + "9" * 50,
    "other digits": "\u0663\u0663\u0663", "superscript": "\u00b2", "in a list": "1," + "9" * 4400,
}  # fmt: skip
SKIPPED = ("events.stream",)
HEADERS = (
    "If-Match", "If-None-Match", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Forwarded-For", "X-Forwarded-Proto",
    "traceparent", "Accept", "Accept-Encoding", "Access-Control-Request-Headers",
)  # fmt: skip


@pytest.fixture
def plain(server) -> Iterator[httpx2.Client]:
    """A client whose requests need not be described by the document."""
    with server.client(event_hooks={}) as client:
        yield client


@pytest.fixture
def operations(api, a_task) -> list[tuple[str, str, Any]]:
    """Every operation: method, path with ids that exist where there are some, and its description."""
    document = api.get("/openapi.json").json()
    user = api.get("/v1/users/me").json()
    known = {"tasks": a_task["id"], "projects": a_task["project_id"], "users": user["id"]}
    found = []
    for path, methods in document["paths"].items():
        kind = path.split("/")[1]
        for method, operation in methods.items():
            if method in ("get", "post", "put", "patch", "delete") and operation.get("operationId") not in SKIPPED:
                found.append((method.upper(), path.replace("{id}", known.get(kind, ids.new("task"))), operation))
    assert len(found) > 80
    return found


def names_of(operation: Any, document: Any, place: str) -> list[str]:
    """The parameters of an operation that stand in some place."""
    found = []
    for entry in operation.get("parameters", ()):
        parameter = document["components"]["parameters"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
        if parameter["in"] == place:
            found.append(parameter["name"])
    return found


def judged(answer: httpx2.Response, *what: Any) -> None:
    assert answer.status_code < 500 or answer.status_code == 503, (*what, answer.status_code, answer.text[:300])


@pytest.mark.parametrize("case", ["5,000 digits", "superscript"])
def test_in_every_parameter_of_a_query(plain, api, operations, case):
    document = api.get("/openapi.json").json()
    asked = 0
    for method, path, operation in operations:
        if method != "GET" or "{" in path:
            continue
        for name in [*names_of(operation, document, "query"), "limit", "min_seq", "as_of", "custom_fields[a][$gt]"]:
            judged(plain.get(f"/v1{path}", params={name: DIGITS[case]}), path, name)
            asked += 1
    assert asked > 200


@pytest.mark.parametrize("case", DIGITS)
@pytest.mark.parametrize("path", ["/tasks", "/events", "/audit", "/projects"])
def test_in_the_parameters_that_take_numbers_and_in_their_names(plain, path, case):
    names = [
        "limit", "cursor", "after", "before", "wait", "min_seq", "as_of", "estimate", "version", "due_date",
        "estimate[$gt]", "version[$in]", "custom_fields[a][$gt]", f"labels[{DIGITS[case][:2000]}]",
    ]  # fmt: skip
    for name in names:
        judged(plain.get(f"/v1{path}", params={name: DIGITS[case]}), path, name)


@pytest.mark.parametrize("case", ["5,000 digits", "superscript"])
def test_in_every_path(plain, operations, case):
    digits = DIGITS[case]
    for method, path, _ in operations:
        parts = path.split("/")
        for index in range(2, len(parts)):
            answer = plain.request(method, f"/v1{'/'.join([*parts[:index], digits, *parts[index + 1 :]])}", json={})
            judged(answer, method, path)
            assert answer.status_code != 200 or parts[index] != digits
    for path in (f"/{digits}", f"/v{digits}/tasks", f"/problems/{digits}", f"/v1/{digits}"):
        assert plain.get(path).status_code == 404


@pytest.mark.parametrize("case", DIGITS)
def test_in_every_header(plain, a_task, case):
    one = f"/v1/tasks/{a_task['id']}"
    for name in HEADERS:
        value = DIGITS[case].encode()
        for method, path in (
            ("GET", "/v1/tasks?limit=1"),
            ("GET", one),
            ("OPTIONS", "/v1/tasks"),
            ("PATCH", one),
            ("GET", "/v1/events?limit=1"),
        ):
            body = {"json": {"priority": "low"}} if method == "PATCH" else {}
            judged(plain.request(method, path, headers={name: value}, **body), name, path)
    for length in (b"9" * 5000, b"-1", b"\xb2", b"1e3"):
        try:
            answer = plain.request("POST", "/v1/tasks", headers={"content-length": length}, content=b"{}")
        except httpx2.TransportError:
            continue  # the connection's parser hangs up
        assert 400 <= answer.status_code < 500


def members(schema: Any, document: Any) -> set[str]:
    """The names of all members that the schema of a body has, one level deep."""
    if "$ref" in schema:
        return members(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    found = set(schema.get("properties", ()))
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found |= members(inner, document)
    return found


@pytest.mark.parametrize("case", ["5,000 digits", "a fraction"])
def test_in_every_member_of_a_body(plain, api, operations, case):
    """As a number of JSON, and as a text; on top and in a list."""
    document = api.get("/openapi.json").json()
    digits, asked = DIGITS[case], 0
    for method, path, operation in operations:
        body = operation.get("requestBody")
        if body is None or "{" in path:
            continue
        content = document["components"]["requestBodies"][body["$ref"].rpartition("/")[2]] if "$ref" in body else body
        schema = content["content"]["application/json"]["schema"]
        for name in sorted(members(schema, document)):
            for value in (digits, f'"{digits}"', f'["{digits}"]'):
                answer = plain.request(
                    method,
                    f"/v1{path}",
                    content=f'{{"{name}": {value}}}',
                    params={"dry_run": "true"},
                    headers={"Content-Type": "application/json"},
                )
                judged(answer, method, path, name)
                asked += 1
    assert asked > 200


@pytest.mark.parametrize("case", DIGITS)
def test_in_the_references_and_versions_of_a_batch(plain, a_project, case):
    digits = DIGITS[case]
    first = {"id": "a", "method": "GET", "path": f"/tasks?project_id={a_project['id']}"}
    for second in (
        {"method": "GET", "path": f"/tasks/{{{digits}.id}}"},
        {"method": "GET", "path": f"/tasks/{{a.{digits}.id}}"},
        {"method": "GET", "path": f"/tasks?limit={digits}"},
        {"method": "POST", "path": "/tasks", "body": {"name": {"$ref": f"a.{digits}"}}},
        {"method": "POST", "path": "/tasks", "body": {"name": {"$ref": f"{digits}.id"}}},
        {"method": "PATCH", "path": f"/projects/{a_project['id']}", "body": {"name": "x"}, "if_match": digits},
        {"id": digits, "method": "GET", "path": "/tasks"},
    ):
        answer = plain.post("/v1/batch", json={"operations": [first, second]})
        judged(answer, second)
        may_fit = "limit" in str(second["path"]) or "if_match" in second
        assert 400 <= answer.status_code < 500 or may_fit


@pytest.mark.parametrize("case", DIGITS)
def test_in_a_json_patch(plain, a_task, case):
    digits, path = DIGITS[case], f"/v1/tasks/{a_task['id']}"
    for operation in (
        {"op": "add", "path": f"/labels/{digits}", "value": "x"},
        {"op": "remove", "path": f"/labels/{digits}"},
        {"op": "move", "from": f"/labels/{digits}", "path": "/name"},
        {"op": "replace", "path": "/estimate", "value": digits},
    ):
        answer = plain.patch(path, json=[operation], headers={"Content-Type": "application/json-patch+json"})
        judged(answer, operation)
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("part", ["COUNT", "INTERVAL", "BYMONTHDAY", "BYSETPOS", "BYDAY", "UNTIL", "BYHOUR"])
@pytest.mark.parametrize("digits", ["9" * 30, "9" * 450, "0" * 300 + "1", "-" + "9" * 300], ids=len)
def test_in_a_recurrence(api, a_project, part, digits):
    rule = f"FREQ=DAILY;{part}={digits}{'MO' if part == 'BYDAY' else ''}"
    body = {"name": "x", "project_id": a_project["id"], "due_date": "2026-01-04", "recurrence": rule}
    answer = api.post("/v1/tasks", json=body)
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        assert api.post(f"/v1/tasks/{answer.json()['id']}/complete").status_code < 500


def test_in_the_address_of_a_webhook(api, a_project):
    for port in ("9" * 20, "9" * 1000, "0" * 500 + "80"):
        body = {"url": f"http://127.0.0.1:{port}/x", "project_id": a_project["id"]}
        answer = api.post("/v1/webhooks", json=body)
        assert answer.status_code in (201, 422), answer.text
        if answer.status_code == 201:
            assert api.delete(f"/v1/webhooks/{answer.json()['id']}").status_code == 204


def test_a_number_that_fits_is_still_taken(api, a_project):
    made = create(api, "tasks", name="x", project_id=a_project["id"], estimate=3.0, custom_fields={"a": 2**53 - 1})
    assert (made["estimate"], made["custom_fields"]) == (3, {"a": 2**53 - 1})
    assert api.get("/v1/tasks?limit=0000010").status_code == 200
