"""Every documented limit at its edge: so much works, one more is refused, with the documented status.

Why both: a limit that is tested only far beyond its edge may be anywhere, and one that is tested only at its edge may
not be there at all.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.api.asking import codes, create, problem, talk

MIB = 1 << 20
JSON = {"Content-Type": "application/json"}
# A character that takes six bytes as JSON.
SIX_TIMES = "\x01"
Send = Callable[[Any, int], Any]


class Edge(NamedTuple):
    """`send(client, n)` makes the request; `fine` is the status up to `most`, `refused` the one beyond."""

    most: int
    send: Send
    fine: int
    refused: int
    code: str


def post(path: str, body: Callable[[int], Any]) -> Send:
    return lambda client, n: client.post(f"/v1{path}", json=body(n))


def raw(path: str, body: Callable[[int], bytes]) -> Send:
    return lambda client, n: client.post(f"/v1{path}", content=body(n), headers=JSON)


def get(path: str, query: Callable[[int], str]) -> Send:
    return lambda client, n: client.get(f"/v1{path}?{query(n)}")


def task(**members: Callable[[int], Any]) -> Send:
    return post("/tasks", lambda n: {"name": "x", **{name: make(n) for name, make in members.items()}})


def query(make: Callable[[int], Any]) -> Send:
    return post("/tasks/query", make)


def names(n: int, prefix: str = "x") -> list[str]:
    return [f"{prefix}{number}" for number in range(n)]


def nested(n: int) -> Any:
    """A filter of so many levels."""
    found: dict[str, Any] = {"name": "x"}
    for _ in range(n - 1):
        found = {"$not": found}
    return found


def sized(start: bytes, n: int) -> bytes:
    return start + b" " * (n - len(start))


def hours(n: int) -> str:
    """A rule with so many times a day (a multiple of 20)."""
    return f"FREQ=DAILY;BYHOUR={','.join(map(str, range(n // 5)))};BYMINUTE=0,1,2,3,4"


RELATIONS = ("assignee", "project", "parent", "workspace", "subtasks", "comments", "blocked_by", "created_by")
SORTABLE = (
    "name",
    "status",
    "priority",
    "start_date",
    "due_date",
    "completed_at",
    "position",
    "estimate",
    "created_at",
)

EDGES = {
    "bytes of a body": Edge(MIB, raw("/tasks", lambda n: sized(b'{"name":"x"}', n)), 201, 413, "body-too-large"),
    "bytes of a bulk": Edge(
        8 * MIB, raw("/tasks/bulk", lambda n: sized(b'{"tasks":[{"name":"x"}]}', n)), 201, 413, "body-too-large"
    ),
    "levels of JSON": Edge(
        32, raw("/tasks", lambda n: b'{"x":' + b"[" * (n - 1) + b"]" * (n - 1) + b"}"), 422, 400, "malformed_json"
    ),
    "values": Edge(
        100_000, raw("/tasks/bulk", lambda n: json.dumps({"x": [1] * (n - 2)}).encode()), 422, 400, "malformed_json"
    ),
    "members of an object": Edge(
        1000, task(custom_fields=lambda n: dict.fromkeys(names(n), 1)), 422, 400, "malformed_json"
    ),
    "a whole number": Edge(2**53 - 1, task(custom_fields=lambda n: {"a": n}), 201, 422, "out_of_range"),
    "parameters": Edge(400, get("/tasks", lambda n: "&".join(["name=x"] * n)), 200, 400, "invalid-query"),
    "objects on a page": Edge(1000, get("/tasks", lambda n: f"limit={n}"), 200, 400, "out_of_range"),
    "conditions": Edge(
        200, query(lambda n: {"filter": {"$or": [{"name": name} for name in names(n)]}}), 200, 400, "too_many"
    ),
    "levels of a filter": Edge(5, query(lambda n: {"filter": nested(n)}), 200, 400, "too_deep"),
    "values of a condition": Edge(1000, query(lambda n: {"filter": {"labels": names(n)}}), 200, 400, "too_many"),
    "sort keys": Edge(8, get("/tasks", lambda n: f"sort={','.join(SORTABLE[:n])}"), 200, 400, "too_many"),
    "includes": Edge(
        8, get("/tasks", lambda n: f"include={','.join((*RELATIONS, 'project.members')[:n])}"), 200, 400, "too_many"
    ),
    "fields": Edge(100, get("/tasks", lambda n: f"fields={','.join(['name'] * n)}"), 200, 400, "too_many"),
    "characters of a search": Edge(1000, query(lambda n: {"q": "x" * n}), 200, 400, "too_long"),
    "tasks in a bulk": Edge(
        1000, post("/tasks/bulk", lambda n: {"tasks": [{"name": "x"}] * n}), 201, 422, "wrong_type"
    ),
    "characters of a name": Edge(500, task(name=lambda n: "x" * n), 201, 422, "too_long"),
    "characters of a description": Edge(100_000, task(description=lambda n: "é" * n), 201, 422, "too_long"),
    "labels": Edge(50, task(labels=names), 201, 422, "too_many"),
    "custom fields": Edge(100, task(custom_fields=lambda n: dict.fromkeys(names(n), 1)), 201, 422, "too_many"),
    "characters of a custom field": Edge(5000, task(custom_fields=lambda n: {"a": "x" * n}), 201, 422, "too_long"),
    "operations of a batch": Edge(
        1000,
        post("/batch", lambda n: {"operations": [{"method": "GET", "path": "/users/me"}] * n}),
        200,
        422,
        "wrong_type",
    ),
}


@pytest.mark.parametrize("what", EDGES)
def test_so_much_and_no_more(what, api):
    edge = EDGES[what]
    assert edge.send(api, edge.most).status_code == edge.fine
    document = problem(edge.send(api, edge.most + 1), edge.refused)
    assert edge.code in (document["code"], *codes(document)), document


def test_levels_of_subtasks(api, a_project):
    parent = create(api, "tasks", name="1", project_id=a_project["id"])
    for level in range(2, 21):
        parent = create(api, "tasks", name=str(level), parent_id=parent["id"])
    document = problem(api.post("/v1/tasks", json={"name": "21", "parent_id": parent["id"]}), 422)
    assert codes(document) == ["too_deep"]


def test_times_a_day_of_a_recurrence(api):
    assert api.post("/v1/tasks", json={"name": "x", "recurrence": hours(100)}).status_code == 201
    document = problem(api.post("/v1/tasks", json={"name": "x", "recurrence": hours(105)}), 422)
    assert codes(document) == ["invalid_rrule"] and "100" in document["errors"][0]["detail"]


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
def test_headers(count, status, server):
    lines = ["Host: x", f"Authorization: Bearer {server.key}", *names(count - 2, "X-A: ")]
    answer = talk(server.port, "\r\n".join(["GET /v1/users/me HTTP/1.1", *lines, "", ""]).encode())
    assert answer is not None and answer.status == status


@pytest.mark.parametrize(("size", "status"), [(63_000, 200), (130_000, 431)])
def test_bytes_of_a_head(size, status, server):
    """64 KiB are taken in any case; how much more depends on how they arrive."""
    head = f"GET /v1/users/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nX-Large: "
    answer = talk(server.port, f"{head}{'a' * (size - len(head) - 4)}\r\n\r\n".encode())
    assert answer is not None and answer.status == status


@pytest.mark.parametrize(("pieces", "status"), [(1000, 201), (1100, 400)])
def test_pieces_of_a_body(pieces, status, server):
    """Ever so small ones; of 64 bytes and more there may be any number."""
    head = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    crumbs = b"1\r\n \r\n" * (pieces - 1) + b"c\r\n" + b'{"name":"x"}' + b"\r\n0\r\n\r\n"
    answer = talk(server.port, head.encode(), crumbs)
    assert answer is not None and answer.status == status, answer


def test_no_more_than_a_hundred_faults_are_told(api):
    document = problem(api.post("/v1/tasks", json={"name": "x", **dict.fromkeys(names(99), 1)}), 422)
    assert len(document["errors"]) == 99 and "99 faults" in document["detail"]
    document = problem(api.post("/v1/tasks", json={"name": "x", **dict.fromkeys(names(500), 1)}), 422)
    assert len(document["errors"]) == 100 and "more than 100 faults" in document["detail"]
    for path, body in (
        ("/tasks/query", {"filter": dict.fromkeys(names(500), 1)}),
        ("/tasks/query", {"filter": {"name": {f"${name}": 1 for name in names(500)}}}),
        ("/tasks/query", dict.fromkeys(names(500), 1)),
    ):
        assert len(problem(api.post(f"/v1{path}", json=body), 400)["errors"]) == 100


def test_a_page_ends_at_eight_megabytes_and_the_next_one_goes_on(api, a_project):
    """Large objects make a page shorter than `limit`; nothing is left out, nothing comes twice."""
    made = []
    for number in range(4):
        tasks = [{"name": f"{number}", "estimate": number % 3, "description": SIX_TIMES * 90_000} for _ in range(9)]
        made += api.post("/v1/tasks/bulk", json={"tasks": tasks, "project_id": a_project["id"]}).json()
    for sort in ("", "estimate", "-name"):
        params = {"project_id": a_project["id"], "limit": 1000, **({"sort": sort} if sort else {})}
        pages, response = [], api.get("/v1/tasks", params=params)
        while True:
            assert response.status_code == 200 and len(response.content) < 17 * MIB
            pages.append(response.json())
            if "next" not in response.links:
                break
            response = api.get(response.links["next"]["url"])
        assert len(pages) > 1
        found = [one["id"] for page in pages for one in page]
        assert sorted(found) == sorted(one["id"] for one in made)
        if sort:
            values = [one[sort.lstrip("-")] for page in pages for one in page]
            assert values == sorted(values, reverse=sort.startswith("-"))


def test_what_includes_may_add(api):
    """32 MiB; 100 kB for each of the tasks is too much for all, but not for some."""
    project = create(api, "projects", name="x", description="p" * 100_000)
    create(api, "tasks/bulk", tasks=[{"name": "x"}] * 340, project_id=project["id"])
    params = {"project_id": project["id"], "include": "project", "limit": 320}
    assert len(api.get("/v1/tasks", params=params).content) > 30 * MIB
    document = problem(api.get("/v1/tasks", params=params | {"limit": 340}), 400)
    assert codes(document) == ["too_many"] and "32 MiB" in document["errors"][0]["detail"]


def test_what_a_bulk_change_may_hold(api, a_project):
    """So much that it can be written in the time that others have to wait: many small tasks, or some large ones."""
    ids: list[str] = []
    for _ in range(5):
        tasks = [{"name": "x", "description": SIX_TIMES * 99_000}] * 12
        ids += [one["id"] for one in create(api, "tasks/bulk", tasks=tasks, project_id=a_project["id"])]
    assert api.patch("/v1/tasks/bulk", json={"ids": ids[:10], "set": {"priority": "low"}}).status_code == 200
    document = problem(api.patch("/v1/tasks/bulk", json={"ids": ids, "set": {"priority": "high"}}), 422)
    assert codes(document) == ["too_many"] and "32 MiB" in document["detail"], "they would all be in memory"
    found = api.get("/v1/tasks", params={"project_id": a_project["id"], "priority": "high", "fields": "id"})
    assert found.json() == [], "nothing was written"


def test_what_references_of_a_batch_may_put_in(api):
    large = {"id": "a", "method": "POST", "path": "/tasks", "body": {"name": "x", "description": "d" * 90_000}}
    copy = {"method": "POST", "path": "/tasks", "body": {"name": "x", "description": {"$ref": "a.description"}}}
    assert api.post("/v1/batch", json={"operations": [large, *[copy] * 20]}).status_code == 200
    problem(api.post("/v1/batch", json={"operations": [large, *[copy] * 190]}), 422, "too-much-work")
