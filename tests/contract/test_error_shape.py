"""One shape for every error: each is provoked, and each answers with the same members and tells nothing of the inside.

Why each: clients write one handler for all of them, and the error that nobody ever saw is the one that breaks it.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from taskade_server.http.pipeline import idempotency
from taskade_server.http.pipeline.problems import as_problem, problem_reply
from taskade_server.http.wire.request import Request
from taskade_server.http.wire.send import send as send_reply
from taskade_server.kit import errors, ids
from taskade_server.kit.budget import BudgetSpent
from taskade_server.store import database as store

from tests.support import conformity
from tests.support.server import Server

Answer = httpx2.Response
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
EXTRA = {"conflicts", "event_id", "errors", "current", "operation", "pointer", "violated-policies"}
INSIDES = ("Traceback", "SELECT ", "INSERT ", ".py", "site-packages", "sqlite", "psycopg")


def conflict(api: httpx2.Client) -> Answer:
    task = api.post("/v1/tasks", json={"name": "Only once"}).json()
    return api.post("/v1/tasks", json={"id": task["id"], "name": "Twice"})


def outdated(api: httpx2.Client) -> Answer:
    task = api.post("/v1/tasks", json={"name": "As it was"}).json()
    return api.patch(f"/v1/tasks/{task['id']}", json={"name": "New"}, headers={"If-Match": '"99"'})


def reused(api: httpx2.Client) -> Answer:
    key = {"Idempotency-Key": ids.new("req")}
    api.post("/v1/tasks", json={"name": "With this key"}, headers=key)
    return api.post("/v1/tasks", json={"name": "Something else"}, headers=key)


def in_vain(api: httpx2.Client) -> Answer:
    operations = [{"method": "GET", "path": "/users/me"}, {"method": "POST", "path": "/tasks", "body": {"name": ""}}]
    return api.post("/v1/batch", json={"operations": operations})


def undone_twice(api: httpx2.Client) -> Answer:
    task = api.post("/v1/tasks", json={"name": "As it was"}).json()["id"]
    api.patch(f"/v1/tasks/{task}", json={"name": "New"})
    event = api.get("/v1/events", params={"object_id": task, "order": "desc", "limit": 1}).json()[0]["id"]
    api.post(f"/v1/events/{event}/revert")
    return api.post(f"/v1/events/{event}/revert")


def key_undone(api: httpx2.Client) -> Answer:
    key = api.post("/v1/api-keys", json={"name": "Gone"}).json()["id"]
    api.delete(f"/v1/api-keys/{key}")
    event = api.get("/v1/events", params={"object_id": key, "order": "desc", "limit": 1}).json()[0]["id"]
    return api.post(f"/v1/events/{event}/revert")


PROVOKED: dict[str, Callable[[httpx2.Client], Answer]] = {
    "malformed-request": lambda api: api.post("/v1/tasks", content="{", headers={"Content-Type": "application/json"}),
    "invalid-query": lambda api: api.get("/v1/tasks", params={"asignee": "ana"}),
    "unauthenticated": lambda api: api.get("/v1/tasks", headers={"Authorization": "Bearer tsk_wrong"}),
    "not-found": lambda api: api.get("/v1/tasks/task_00000000000000000000000000"),
    "method-not-allowed": lambda api: api.patch("/v1/users/me", json={}),
    "not-acceptable": lambda api: api.get("/v1/tasks", headers={"Accept": "text/html"}),
    "conflict": conflict,
    "precondition-failed": outdated,
    "revert-conflict": undone_twice,
    "not-revertible": key_undone,
    "body-too-large": lambda api: api.post("/v1/tasks", json={"name": "x" * 2**20}),
    "unsupported-media-type": lambda api: api.post(
        "/v1/tasks", content="name=x", headers={"Content-Type": "text/plain"}
    ),
    "validation-failed": lambda api: api.post("/v1/tasks", json={"name": " ", "priority": "hgih"}),
    "idempotency-key-reused": reused,
    "batch-failed": in_vain,
}
ELSEWHERE: dict[str, Callable[[httpx2.Client], Answer]] = {
    "a path that is none of ours": lambda api: api.get("/nothing/here"),
    "an unknown path of the API": lambda api: api.get("/v1/taks"),
    "a write to a page": lambda api: api.post("/health", json={}),
    "an unknown error code": lambda api: api.get("/problems/unknown"),
}
# What a test cannot bring about from outside: the failures of the machine, as the pipeline meets them.
INSIDE: dict[str, Exception] = {
    "internal": ZeroDivisionError("division by zero in secret.py"),
    "request-timeout": errors.RequestTimeout(),
    "gone": errors.Gone(),
    "token-expired": errors.TokenExpired(),
    "unavailable": store.Unavailable("connection to 10.0.0.1 refused"),
    "outcome-unknown": store.OutcomeUnknown("fsync failed"),
    "too-much-work": BudgetSpent(),
    "query-too-expensive": store.QueryTooExpensive("interrupted"),
    "idempotency-key-in-use": idempotency.in_use(),
    "position-not-reached": errors.Behind(headers={"retry-after": "1"}),
    "too-many-streams": errors.TooManyStreams(headers={"retry-after": "5"}),
}
BY_OTHER_KEYS = {"forbidden", "quota-exceeded"}


def look_at(problem: dict[str, Any], code: str) -> None:
    assert problem["code"] == code
    assert set(problem) - EXTRA == MEMBERS
    assert [word for word in INSIDES if word in str(problem)] == []


def test_every_error_is_provoked():
    assert {*PROVOKED, *INSIDE, *BY_OTHER_KEYS} == {cls.code for cls in errors.problem_classes()}


@pytest.mark.parametrize("code", PROVOKED)
def test_errors_a_client_causes(api, code):
    look_at(PROVOKED[code](api).json(), code)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_errors_beside_the_api(api, place):
    answer = ELSEWHERE[place](api)
    look_at(answer.json(), answer.json()["code"])
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_that_may_not(server: Server):
    with server.client(server.create_key("reader", "--scopes", "tasks:read")) as reader:
        look_at(reader.post("/v1/tasks", json={"name": "Not mine to write"}).json(), "forbidden")


def test_too_many_requests(start_server):
    server = start_server(rate_limit="1/minute")
    with server.client() as client:
        answers = [client.get("/v1/users/me") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    look_at(answers[-1].json(), "quota-exceeded")
    assert int(answers[-1].headers["retry-after"]) > 0


@pytest.mark.parametrize("code", INSIDE)
def test_failures_inside(code, caplog):
    exchange = send(INSIDE[code])
    conformity.verify(exchange)
    look_at(json.loads(exchange.body), code)
    assert ("POST /anywhere failed" in caplog.text) == (code == "internal"), (
        "what is not foreseen is logged, for the operator alone"
    )


def send(failure: Exception) -> conformity.Exchange:
    """The answer to a request whose handling failed."""
    scope = {"type": "http", "method": "POST", "path": "/anywhere", "query_string": b"", "headers": []}
    request = Request(scope)
    sent: list[Any] = []

    async def respond(message: Any) -> None:
        sent.append(message)

    asyncio.run(send_reply(request, problem_reply(request, as_problem(failure, request)), respond))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return conformity.Exchange("POST", "/anywhere", b"", sent[0]["status"], headers, sent[1]["body"])


@pytest.mark.parametrize("cls", errors.problem_classes(), ids=lambda cls: cls.code)
def test_the_type_of_an_error_leads_to_its_page(api, cls):
    page = api.get(cls().to_dict("/", "")["type"]).json()
    assert (page["code"], page["status"], page["what_to_do"]) == (cls.code, cls.status, cls.advice)


def test_a_text_that_cannot_be_repeated_is_still_an_error_of_that_shape(api):
    look_at(api.get("/v1/tasks", params={"\x00": "x"}).json(), "invalid-query")
    look_at(api.get("/v1/tasks?%ff=1").json(), "invalid-query")
    look_at(api.get("/v1/%ff").json(), "not-found")
