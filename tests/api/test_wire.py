"""HTTP itself: methods, types, sizes, headers, compression, limits; what a client library relies on without a thought.

Why bare sockets here and there: a client library repairs or refuses exactly the requests that are of interest.
"""

import gzip
import json
import re
import time

import httpx2
import pytest
import zstandard
from taskade_server.http.documents import asyncapi, openapi

from tests.api.asking import Answer, create, problem, talk
from tests.support.rates import Budget
from tests.support.server import Server

MIB = 1 << 20


# ---- methods and paths -----------------------------------------------------------------------------------------------

METHODS = {
    "/v1/tasks": "GET, HEAD, OPTIONS, POST, QUERY",
    "/v1/tasks/x": "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
    "/v1/tasks/bulk": "DELETE, OPTIONS, PATCH, POST",
    "/v1/tasks/query": "OPTIONS, POST",
    "/v1/tasks/x/complete": "OPTIONS, POST",
    "/v1/users/me": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize("path", METHODS)
def test_a_method_that_a_path_does_not_have(path, api):
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "QUERY", "TRACE", "BREW"):
        if method not in METHODS[path]:
            response = api.request(method, path)
            document = problem(response, 405, "method-not-allowed")
            assert response.headers["allow"] == METHODS[path]
            assert METHODS[path] in document["detail"]


@pytest.mark.parametrize("document", [openapi, asyncapi], ids=["openapi", "asyncapi"])
def test_documents_are_sent_without_spaces(api, document):
    sent = api.get(f"/{document.__name__.rpartition('.')[2]}.json")
    assert sent.text == document.render()
    assert sent.json() == json.loads(document.render(pretty=True))
    assert len(sent.text) < 0.7 * len(document.render(pretty=True))


def test_pages_are_for_reading(api):
    for path in ("/", "/v1", "/health", "/ready", "/openapi.json", "/problems", "/problems/not-found"):
        assert api.get(path).status_code == 200
        response = api.post(path, json={})
        problem(response, 405)
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "path, meant",
    [
        ("/v1/task", "/v1/tasks"),
        ("/v1/taks", "/v1/tasks"),
        ("/v1/project/x", "/v1/projects/x"),
        ("/v1/api_keys", "/v1/api-keys"),
        ("/tasks", "/v1/tasks"),
        ("/problems/not-fuond", "not-found"),
    ],
)
def test_a_path_that_is_misspelled(path, meant, api):
    document = problem(api.get(path), 404, "not-found")
    assert re.search(rf"Did you mean \"?{re.escape(meant)}", document["detail"])


@pytest.mark.parametrize(
    "path", ["/v1/qqq", "/v2/tasks", "/v1/tasks/x/y", "/v1/tasks/x/complete/y", "/../etc/passwd", "/v1x"]
)
def test_a_path_that_is_none(path, server, api):
    problem(api.get(path), 404)
    problem(api.post(path, json={}), 404)
    answer = talk(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer is not None and answer.status == 404


def test_a_slash_at_the_end_changes_nothing(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    for one in (path, "/v1/users/me", f"{path}?fields=id"):
        start, mark, query = one.partition("?")
        assert api.get(f"{start}/{mark}{query}").json() == api.get(one).json()
    assert api.post("/v1/tasks/", json={"name": "x"}).status_code == 201
    assert api.post(f"{path}/complete/").status_code == 200
    assert api.patch(f"{path}/", json={"name": "x"}).status_code == 200


def test_head_is_get_without_a_body(server, api, a_task):
    for path in (f"/v1/tasks/{a_task['id']}", "/v1/tasks?limit=1", "/health", "/openapi.json"):
        headers = {"Accept-Encoding": "identity"}
        head, get = api.head(path, headers=headers), api.get(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "etag", "link", "content-length"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)
    missing = api.head("/v1/tasks/x")
    assert (missing.status_code, missing.content) == (404, b"")
    assert missing.headers["content-type"] == "application/problem+json"
    with server.client("") as client:
        assert client.head("/v1/tasks").status_code == 401


def test_put_is_the_same_merge_patch(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    api.patch(path, json={"description": "Kept", "labels": ["a"], "custom_fields": {"a": 1, "b": 2}})
    put = api.put(path, json={"name": "Put", "labels": None, "custom_fields": {"a": None, "c": 3}}).json()
    assert (put["name"], put["description"], put["labels"]) == ("Put", "Kept", [])
    assert put["custom_fields"] == {"b": 2, "c": 3}
    patched = api.patch(path, json={"name": "Patched", "custom_fields": {"a": 1}}).json()
    assert (patched["name"], patched["description"]) == ("Patched", "Kept")
    assert patched["custom_fields"] == {"a": 1, "b": 2, "c": 3}


# ---- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*", "text/*;q=0.9"])
def test_who_wants_no_json_gets_none(accept, api, heads):
    before = heads()
    document = problem(api.get("/v1/tasks", headers={"Accept": accept}), 406, "not-acceptable")
    assert "application/json" in api.get("/problems/not-acceptable").json()["what_to_do"], document
    problem(api.post("/v1/tasks", json={"name": "x"}, headers={"Accept": accept}), 406)
    assert heads() == before


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "APPLICATION/JSON",
        "Application/*",
        "application/json; charset=utf-8",
        "text/html, application/xhtml+xml, */*;q=0.1",
        "application/problem+json, application/vnd.api+json",
    ],
)
def test_who_wants_json_gets_it(accept, api):
    response = api.get("/v1/users/me", headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"', "text/json"]
)
def test_types_of_a_body(kind, api):
    response = api.post("/v1/tasks", content='{"name": "Größe"}'.encode(), headers={"Content-Type": kind})
    assert (response.status_code, response.json()["name"]) == (201, "Größe")


def test_a_merge_patch_may_say_so(api, a_task):
    headers = {"Content-Type": "application/merge-patch+json"}
    response = api.patch(f"/v1/tasks/{a_task['id']}", content=b'{"name": "Changed"}', headers=headers)
    assert response.json()["name"] == "Changed"


def test_a_body_needs_a_type(server, api, heads):
    before = heads()
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        problem(api.post("/v1/tasks", content=b'{"name": "x"}', headers=headers), 415, "unsupported-media-type")
    assert heads() == before


def test_signs_in_a_url_need_not_be_encoded(server, api, a_project):
    create(api, "tasks", name="Café", project_id=a_project["id"])
    for query in ("q=Café", "name=Café", "name[$prefix]=Caf", "name[$contains]=é"):
        request = f"GET /v1/tasks?project_id={a_project['id']}&{query} HTTP/1.1\r\nHost: x\r\n"
        answer = talk(server.port, f"{request}Authorization: Bearer {server.key}\r\n\r\n".encode())
        assert answer is not None and answer.status == 200
        assert [task["name"] for task in answer.json()] == ["Café"], query


# ---- sizes -----------------------------------------------------------------------------------------------------------


def head_of(server: Server, path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.key}"]
    return "\r\n".join([*lines, "Content-Type: application/json", *headers, "", ""]).encode()


@pytest.mark.parametrize("path, limit", [("/v1/tasks", MIB), ("/v1/tasks/query", MIB), ("/v1/tasks/bulk", 8 * MIB)])
def test_a_body_that_says_it_is_too_large(path, limit, server, heads):
    before = heads()
    answer = talk(server.port, head_of(server, path, f"Content-Length: {limit + 1}"))
    assert answer is not None and answer.status == 413, "before a byte of it is sent"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "body-too-large" and f"{limit // 1024:,} KiB" in answer.json()["detail"]
    assert heads() == before


@pytest.mark.parametrize("path, limit", [("/v1/tasks", MIB), ("/v1/tasks/bulk", 8 * MIB)])
def test_a_body_that_turns_out_too_large(path, limit, server, heads):
    before = heads()
    start = head_of(server, path, "Transfer-Encoding: chunked") + b'b\r\n{"name": "x\r\n'
    chunks = [b"10000\r\n" + b"x" * 0x10000 + b"\r\n"] * (limit // 0x10000)
    answer = talk(server.port, start, *chunks)
    assert answer is not None and answer.status == 413, "without waiting for its end"
    assert heads() == before


def test_a_body_as_large_as_allowed(api):
    body = json.dumps({"name": "x", "description": "y"}).encode()
    padded = body + b" " * (MIB - len(body))
    assert api.post("/v1/tasks", content=padded, headers={"Content-Type": "application/json"}).status_code == 201

    def pieces():
        for start in range(0, len(padded), 50_000):
            yield padded[start : start + 50_000]

    with httpx2.Client(base_url=api.base_url, headers=api.headers, trust_env=False, timeout=120) as client:
        response = client.post("/v1/tasks", content=pieces(), headers={"Content-Type": "application/json"})
        assert response.status_code == 201
        response = client.post("/v1/tasks", content=iter([padded, b" "]), headers={"Content-Type": "application/json"})
        assert response.status_code == 413


def test_a_client_that_waits_for_a_word_gets_one(server):
    body = b'{"name": "Waited"}'
    start = head_of(server, "/v1/tasks", f"Content-Length: {len(body)}", "Expect: 100-continue")
    answer = talk(server.port, start)
    assert answer is not None and answer.status in (100, 201)


# ---- headers ---------------------------------------------------------------------------------------------------------


def test_every_answer_has_an_id(server, api):
    answers = [
        api.get("/v1/tasks"), api.get("/v1/tasks/x"), api.get("/nowhere"), api.get("/health"), api.options("/v1/tasks"),
        api.delete("/v1/tasks"), api.post("/v1/tasks", json={}), api.get("/v1/tasks?x=1"),
    ]  # fmt: skip
    with server.client("") as client:
        answers.append(client.get("/v1/tasks"))
    found = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(found)) == len(found) and all(re.fullmatch("req_[0-9a-z]{26}", one) for one in found)
    assert problem(answers[1], 404)["instance"] == "/v1/tasks/x"


def test_a_new_object_tells_where_it_is(api, a_task):
    for resource, body in (
        ("tasks", {"name": "x"}),
        ("projects", {"name": "x"}),
        ("comments", {"body": "x", "task_id": a_task["id"]}),
        ("templates", {"name": "x"}),
        ("workspaces", {"name": "x"}),
        ("users", {"name": "x", "kind": "service"}),
        ("api-keys", {"name": "x"}),
    ):
        response = api.post(f"/v1/{resource}", json=body)
        assert response.status_code == 201
        found = api.get(response.headers["location"])
        assert {"secret": found.json().get("secret"), **response.json()}.items() >= found.json().items()


def test_every_write_tells_its_place_in_the_log(api, a_task, home, heads):
    path = f"/v1/tasks/{a_task['id']}"
    for method, target, options in (
        ("POST", "/v1/tasks", {"json": {"name": "x", "project_id": a_task["project_id"]}}),
        ("PATCH", path, {"json": {"name": "Changed"}}),
        ("POST", f"{path}/complete", {}),
        ("DELETE", path, {}),
        ("POST", f"{path}/restore", {}),
    ):
        response = api.request(method, target, **options)
        assert response.headers["commit-seq"] == f"{home}:{heads()[home]}"
    assert "commit-seq" not in api.get(path).headers
    assert "commit-seq" not in api.patch(path, json={"name": ""}).headers
    other = api.post("/v1/workspaces", json={"name": "x"})
    assert other.headers["commit-seq"].startswith(f"{other.json()['id']}:")


def test_the_next_page_is_a_whole_address(server, api, a_project):
    tasks = [{"name": str(number), "labels": ["a b", "c&d"]} for number in range(5)]
    create(api, "tasks/bulk", tasks=tasks, project_id=a_project["id"])
    params = {"project_id": a_project["id"], "labels": "c&d", "sort": "-name", "limit": 2, "fields": "name"}
    response, pages = api.get("/v1/tasks/", params=params), []
    while True:
        pages.append([task["name"] for task in response.json()])
        if "link" not in response.headers:
            break
        assert response.headers["link"].startswith(f"<{server.url}/v1/tasks")
        assert response.links["next"]["rel"] == "next"
        response = httpx2.get(response.links["next"]["url"], headers=api.headers, trust_env=False, timeout=120)
    assert pages == [["4", "3"], ["2", "1"], ["0"]]


def test_behind_a_trusted_proxy_the_next_page_has_the_address_that_the_client_knows(start_server):
    server = start_server("--trusted-proxies", "127.0.0.1")
    with server.client() as client:
        create(client, "tasks/bulk", tasks=[{"name": "x"}] * 2)
        headers = {"Host": "api.example.com", "X-Forwarded-Proto": "https"}
        link = client.get("/v1/tasks", params={"limit": 1}, headers=headers).headers["link"]
        assert link.startswith("<https://api.example.com/v1/tasks?limit=1&cursor=")
        headers["X-Forwarded-Proto"] = "javascript"
        link = client.get("/v1/tasks", params={"limit": 1}, headers=headers).headers["link"]
        assert link.startswith("<http://api.example.com/v1/tasks?limit=1&cursor=")


def test_a_stranger_cannot_choose_the_scheme_or_the_text_of_a_link(api):
    create(api, "tasks/bulk", tasks=[{"name": "x"}] * 2)
    headers = {"Host": "api.example.com", "X-Forwarded-Proto": "https"}
    link = api.get("/v1/tasks", params={"limit": 1}, headers=headers).headers["link"]
    assert link.startswith("<http://api.example.com/v1/tasks?limit=1&cursor=")
    for host in ("a b", "a>; rel=next, <b", "a/b", "user@a", "a:123456"):
        response = api.get("/v1/tasks", params={"limit": 1}, headers={"Host": host})
        assert response.status_code == 400 or response.headers["link"].startswith("</v1/tasks?limit=1&cursor=")


def test_a_client_that_names_no_host_gets_a_relative_link(server, api):
    create(api, "tasks/bulk", tasks=[{"name": "x"}] * 2)
    key = api.headers["Authorization"].encode()
    answer = talk(server.port, b"GET /v1/tasks?limit=1 HTTP/1.0\r\nAuthorization: " + key + b"\r\n\r\n")
    assert answer and answer.status == 200 and answer.headers["link"].startswith("</v1/tasks?limit=1&cursor=")
    answer = talk(server.port, b"GET /v1/tasks?limit=1 HTTP/1.1\r\nAuthorization: " + key + b"\r\n\r\n")
    assert answer and answer.status == 400 and "Host" in json.loads(answer.body)["detail"]


def test_an_encoded_slash_is_part_of_its_segment(api):
    for path in ("/v1/users%2fme", "/v1/users%2Fme", "/v1//users/me", "/v1/users//me", "//v1/users/me"):
        problem(api.get(httpx2.URL(f"{api.base_url.join('/')}".rstrip("/") + path)), 404)
    detail = problem(api.get("/v1/tasks/a%2Fb"), 404)["detail"]
    assert "a%2Fb" in detail
    operation = {"method": "GET", "path": "/users%2Fme"}
    problem(api.post("/v1/batch", json={"operations": [operation]}), 422)
    task = create(api, "tasks", name="x")
    assert api.get(f"/v1/tasks/{task['id'].replace('_', '%5F')}").status_code == 200, "other letters may be encoded"


SUFFIXES = ["-gzip", "--gzip", ";gzip", "-br", "-zstd", "-deflate"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_entity_tags_that_a_compressing_proxy_has_changed_are_known(suffix, invite):
    # Somebody new: lists of whoever is in more than a hundred workspaces have no tag.
    api = invite("member").client
    task = create(api, "tasks", name="x")
    place = f"/v1/tasks/{task['id']}"
    assert api.get(place, headers={"If-None-Match": f'"1{suffix}"'}).status_code == 304
    assert api.get(place, headers={"If-None-Match": f'W/"1{suffix}"'}).status_code == 304
    assert api.patch(place, headers={"If-Match": f'"1{suffix}"'}, json={"name": "y"}).status_code == 200
    problem(api.patch(place, headers={"If-Match": f'"1{suffix}"'}, json={"name": "z"}), 412)
    listed = api.get("/v1/tasks").headers["etag"]
    changed = listed.removesuffix('"') + suffix + '"'
    assert api.get("/v1/tasks", headers={"If-None-Match": changed}).status_code == 304


def test_a_compressed_answer_has_an_entity_tag_of_its_own(api):
    task = create(api, "tasks", name="x", description="long " * 10_000)
    place, tags = f"/v1/tasks/{task['id']}", set()
    with httpx2.Client(base_url=api.base_url, headers=api.headers, trust_env=False, timeout=120) as client:
        for encoding in ("identity", "gzip", "zstd"):
            response = client.head(place, headers={"Accept-Encoding": encoding})
            tags.add(response.headers["etag"])
            again = {"Accept-Encoding": encoding, "If-None-Match": response.headers["etag"]}
            assert client.get(place, headers=again).status_code == 304
    assert tags == {'"1"', '"1-gzip"', '"1-zstd"'}


def test_the_public_address_wins(start_server):
    server = start_server(environment={"TASKADE_PUBLIC_URL": "https://tasks.example.com/"})
    with server.client() as client:
        create(client, "tasks/bulk", tasks=[{"name": "x"}] * 2)
        link = client.get("/v1/tasks", params={"limit": 1}).headers["link"]
    assert link.startswith("<https://tasks.example.com/v1/tasks?limit=1&cursor=")


def test_browsers_may_call_from_anywhere(server, api):
    origin = {"Origin": "https://app.example.com"}
    with server.client("") as browser:
        asked = {**origin, "Access-Control-Request-Method": "PATCH"}
        preflight = browser.options("/v1/tasks/x", headers=asked)
        refused = browser.get("/v1/tasks", headers=origin)
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in preflight.headers["access-control-allow-methods"].split(", ")
    allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "if-match", "if-none-match"} <= set(allowed)
    assert int(preflight.headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in preflight.headers, "there are no cookies"
    for response in (api.get("/v1/tasks", headers=origin), problem(refused, 401) and refused):
        assert response.headers["access-control-allow-origin"] == "*"
        exposed = set(response.headers["access-control-expose-headers"].lower().split(", "))
        assert {"etag", "link", "location", "total-count", "commit-seq", "retry-after", "x-request-id"} <= exposed
    assert "access-control-allow-origin" not in api.get("/v1/tasks").headers


@pytest.mark.parametrize("asked", ["authorization,baggage,sentry-trace", "x-my-own, X-Requested-With", "cache-control"])
def test_a_page_may_send_any_header(asked, server):
    with server.client("") as browser:
        headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
        allowed = browser.options("/v1/tasks", headers={**headers, "Access-Control-Request-Headers": asked})
        usual = browser.options("/v1/tasks", headers=headers)
        odd = browser.options("/v1/tasks", headers={**headers, "Access-Control-Request-Headers": "a" * 2000})
    assert allowed.headers["access-control-allow-headers"] == asked
    assert "Authorization" in usual.headers["access-control-allow-headers"]
    assert odd.headers["access-control-allow-headers"] == usual.headers["access-control-allow-headers"]


def test_the_server_as_a_whole_says_what_it_can_do(server):
    answer = talk(server.port, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer and answer.status == 204 and "QUERY" in answer.headers["allow"]


def test_options_tell_what_a_path_can_do(api):
    for path, methods in METHODS.items():
        response = api.options(path)
        assert (response.status_code, response.headers["allow"]) == (204, methods)
    problem(api.options("/v1/nothing"), 404)


# ---- compression -----------------------------------------------------------------------------------------------------


@pytest.fixture
def a_long_list(api, a_project):
    """The address of a list of some 100 KB."""
    tasks = [{"name": f"Task {number}", "description": "The same words. " * 20} for number in range(200)]
    create(api, "tasks/bulk", tasks=tasks, project_id=a_project["id"])
    return f"/v1/tasks?limit=1000&project_id={a_project['id']}"


def fetch(server, path, accepted):
    line = f"Accept-Encoding: {accepted}\r\n" if accepted is not None else ""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n{line}\r\n"
    answer = talk(server.port, request.encode())
    assert answer is not None and answer.status == 200
    return answer


def unpacked(answer: Answer) -> bytes:
    """The body of an answer as it was before it was compressed."""
    match answer.headers.get("content-encoding"):
        case "gzip":
            return gzip.decompress(answer.body)
        case "zstd":
            return zstandard.decompress(answer.body)
    return answer.body


def test_long_answers_are_compressed(server, a_long_list):
    plain = fetch(server, a_long_list, None)
    assert "content-encoding" not in plain.headers and len(plain.json()) == 200
    expected = {
        "gzip": "gzip",
        "gzip, deflate": "gzip",
        "gzip, deflate, br, zstd": "zstd",
        "zstd": "zstd",
        "GZIP": "gzip",
        "gzip;q=0.5": "gzip",
        "zstd;q=0, gzip": "gzip",
        "gzip;q=0": None,
        "gzip; q=0.0, zstd;q=0": None,
        "identity": None,
        "br": None,
        "": None,
    }
    for accepted, encoding in expected.items():
        answer = fetch(server, a_long_list, accepted)
        assert answer.headers.get("content-encoding") == encoding, accepted
        assert answer.headers["vary"] == "accept-encoding", "a cache has to know, whatever came of it"
        assert unpacked(answer) == plain.body
        assert encoding is None or len(answer.body) < len(plain.body) / 4


def test_short_answers_are_not(server):
    answer = fetch(server, "/v1/users/me", "gzip, zstd")
    assert "content-encoding" not in answer.headers


def test_head_tells_the_size_of_what_get_would_send(server, a_long_list):
    request = f"Authorization: Bearer {server.key}\r\nAccept-Encoding: gzip\r\n\r\n"
    got = talk(server.port, f"GET {a_long_list} HTTP/1.1\r\nHost: x\r\n{request}".encode())
    with server.client(event_hooks={}) as client:
        head = client.head(a_long_list, headers={"Accept-Encoding": "gzip"})
    assert got is not None and head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-encoding"] == "gzip"


# ---- rate limits -----------------------------------------------------------------------------------------------------


def limits_of(response):
    return {name: value for name, value in response.headers.items() if "ratelimit" in name.lower()}


def test_a_budget_is_told_and_kept(start_server):
    server = start_server("--rate-burst", "5", rate_limit="1/minute")
    with server.client() as client:
        budget = Budget(5)
        for number in range(5):
            # What is refused costs, too: a client in a loop of errors must not be free.
            found = limits_of(budget.after(client.get("/v1/users/me" if number % 2 else "/v1/tasks/x")))
            assert found["ratelimit-policy"] == '"default";q=1;w=60'
            assert found["x-ratelimit-limit"] == "5"
            assert found["ratelimit"].startswith('"default";')
        refused = budget.refusal(lambda: client.get("/v1/users/me"))
        document = problem(refused, 429, "quota-exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["retry-after"] in document["detail"]
        assert document["violated-policies"] == ["default"]
        assert limits_of(refused)["x-ratelimit-remaining"] == "0"
        budget.refusal(lambda: client.post("/v1/tasks", json={"name": "x"}))
        # Another key has a budget of its own, and so has the address of those without one; health checks are free.
        assert client.get("/health").status_code == 200 and not limits_of(client.get("/health"))
    with server.client(server.create_key("another")) as client:
        Budget(5).after(client.get("/v1/users/me"))
    with server.client("") as client:
        Budget(60, 60).after(client.get("/v1/users/me"))


def test_after_the_wait_a_request_succeeds(start_server):
    server = start_server(rate_limit="120/minute")
    with server.client(event_hooks={}) as client:
        refused = next(
            answer for answer in (client.get("/v1/users/me") for _ in range(400)) if answer.status_code == 429
        )
        for _ in range(20):  # refusals do not lengthen the wait
            client.get("/v1/users/me")
        wait = int(refused.headers["retry-after"])
        assert wait == 1
        time.sleep(wait)
        assert client.get("/v1/users/me").status_code == 200


def test_what_one_has_already_costs_nothing(start_server):
    server = start_server("--rate-burst", "20", rate_limit="1/minute")
    with server.client() as client:
        budget = Budget(20)
        tag = budget.after(client.get("/v1/users/me")).headers["etag"]
        for _ in range(10):
            assert client.get("/v1/users/me", headers={"If-None-Match": tag}).status_code == 304
        budget.after(client.get("/v1/users/me"))


def test_a_key_may_have_a_lower_limit(start_server):
    server = start_server(rate_limit="100/minute")
    with server.client() as client:
        key = create(client, "api-keys", name="x", rate_limit=1)["secret"]
        high = create(client, "api-keys", name="x", rate_limit=1000)["secret"]
    with server.client(key) as client:
        lower = Budget(1)
        assert limits_of(lower.after(client.get("/v1/users/me")))["x-ratelimit-limit"] == "1"
        lower.refusal(lambda: client.get("/v1/users/me"))
    with server.client(high) as client:
        assert limits_of(client.get("/v1/users/me"))["x-ratelimit-limit"] == "100", "not more than the installation's"


def test_without_a_limit_there_are_no_headers(api):
    assert not limits_of(api.get("/v1/users/me"))
