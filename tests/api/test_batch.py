"""POST /batch: what several operations do together is what they do one after the other, or nothing at all.

Why each fault is looked for in the log as well: an answer that says "nothing was written" is worth what the tables say.
"""

import json
from typing import Any

import httpx2
import pytest
from taskade_server.http.api.batch import MAX_OPERATIONS
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, places, problem


def op(method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
    """One operation."""
    return {"method": method, "path": path, **({} if body is None else {"body": body}), **more}


def send(client: httpx2.Client, *operations: Any, **options: Any) -> httpx2.Response:
    return client.post("/v1/batch", json={"operations": list(operations)}, **options)


def run(client: httpx2.Client, *operations: Any, **options: Any) -> Any:
    """The results of a batch that has to succeed."""
    response = send(client, *operations, **options)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert len(results) == len(operations)
    return results


def refused(client: httpx2.Client, *operations: Any) -> Any:
    """The problem of a batch in which something was wrong before anything ran."""
    return problem(send(client, *operations), 422, "validation-failed")


def failed(client: httpx2.Client, status: int, index: int, *operations: Any) -> Any:
    """The problem of the operation that failed, after a look at the batch's own."""
    document = problem(send(client, *operations), status, "batch-failed")
    assert document["pointer"] == f"/operations/{index}"
    assert document["operation"]["index"] == index
    inner = document["operation"]["problem"]
    assert inner["status"] == status
    assert inner["detail"] in document["detail"]
    return inner


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_operations_run_in_order_and_answer_as_they_would_alone(api, a_project, a_task, expect_events):
    other = create(api, "tasks", name="Superfluous", project_id=a_project["id"])
    with expect_events("task.updated", "task.completed", "task.created", "task.deleted") as seen:
        response = send(
            api,
            op("PUT", f"/tasks/{a_task['id']}", {"status": "completed"}),
            op("POST", "/tasks", {"name": "Follow-up task", "project_id": a_project["id"]}),
            op("DELETE", f"/tasks/{other['id']}"),
        )
    done, made, gone = response.json()["results"]
    assert [set(result) for result in (done, made, gone)] == [{"status", "headers", "body"}] * 3
    assert (done["status"], done["headers"]) == (200, {"ETag": '"2"'})
    assert done["body"] == api.get(f"/v1/tasks/{a_task['id']}").json()
    assert (made["status"], made["body"]["name"]) == (201, "Follow-up task")
    assert made["headers"] == {"ETag": '"1"', "Location": f"/v1/tasks/{made['body']['id']}"}
    assert made["body"] == api.get(made["headers"]["Location"]).json()
    assert gone == {"status": 204, "headers": {}, "body": None}
    problem(api.get(f"/v1/tasks/{other['id']}"), 404)
    assert response.headers["commit-seq"] == f"{a_task['workspace_id']}:{seen[-1].seq}"
    assert {event.request_id for event in seen} == {response.headers["x-request-id"]}


def test_the_version_in_the_path_and_the_case_of_the_method_do_not_matter(api, a_task):
    path = f"/tasks/{a_task['id']}"
    results = run(api, op("get", f"/v1{path}"), op("patch", f"/v1{path}", {"name": "New"}), op("GET", path))
    assert [result["body"]["name"] for result in results] == [a_task["name"], "New", "New"]


def test_a_read_sees_what_was_written_before_it(api, a_project):
    path = f"/tasks?project_id={a_project['id']}&fields=name&count=true"
    first, _, second, _, third, _, fourth, search = run(
        api,
        op("GET", path),
        op("POST", "/tasks", {"name": "Zebra crossing", "project_id": a_project["id"], "labels": ["a"]}, id="made"),
        op("GET", path),
        op("PATCH", "/tasks/{made.id}", {"name": "Zebra herd", "labels": ["b"]}),
        op("QUERY", "/tasks", {"filter": {"labels": "b", "project_id": a_project["id"]}, "fields": ["name"]}),
        op("DELETE", "/tasks/{made.id}"),
        op("GET", path),
        op("POST", "/tasks/query", {"deleted": True, "filter": {"project_id": a_project["id"]}, "fields": ["name"]}),
    )
    assert (first["body"], fourth["body"]) == ([], [])
    assert [first["headers"]["Total-Count"], second["headers"]["Total-Count"]] == ["0", "1"]
    assert (second["body"], third["body"]) == ([{"name": "Zebra crossing"}], [{"name": "Zebra herd"}])
    assert search["body"] == [{"name": "Zebra herd"}]


def test_a_search_in_a_batch_finds_what_the_batch_wrote(api, a_project):
    word = ids.new("task")
    _, found = run(
        api,
        op("POST", "/tasks", {"name": f"About {word}", "project_id": a_project["id"]}),
        op("GET", f"/tasks?q={word}&fields=name"),
    )
    assert found["body"] == [{"name": f"About {word}"}]
    assert listed(api, "tasks", q=word, fields="name") == [{"name": f"About {word}"}]


def test_lists_have_a_link_to_a_page_that_can_be_fetched(api, a_project):
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": "One"}, {"name": "Two"}])
    (page,) = run(api, op("GET", f"/tasks?project_id={a_project['id']}&limit=1&fields=name"))
    assert page["body"] == [{"name": "One"}]
    address = page["headers"]["Link"].partition(">")[0].lstrip("<")
    assert api.get(address).json() == [{"name": "Two"}]


def test_no_validator_for_what_a_batch_listed(api, a_project):
    """What a list in a batch shows is not what the same list shows before or after it."""
    path = f"/tasks?project_id={a_project['id']}"
    before = api.get(f"/v1{path}").headers["etag"]
    _, inside = run(api, op("POST", "/tasks", {"name": "New", "project_id": a_project["id"]}), op("GET", path))
    assert "ETag" not in inside["headers"]
    dry = run(api, op("PATCH", "/users/me".replace("me", api.get("/v1/users/me").json()["id"]), {}), op("GET", path))
    assert "ETag" not in dry[1]["headers"]
    assert api.get(f"/v1{path}", headers={"If-None-Match": before}).status_code == 200


def test_bulk_operations_and_verbs_may_be_part_of_it(api, a_project):
    made, changed, moved, archived = run(
        api,
        op("POST", "/tasks/bulk", {"project_id": a_project["id"], "tasks": [{"name": "a"}, {"name": "b"}]}),
        op("PATCH", "/tasks/bulk", {"ids": [{"$ref": "0.0.id"}, {"$ref": "0.1.id"}], "set": {"priority": "high"}}),
        op("POST", "/tasks/{0.1.id}/move", {"parent_id": {"$ref": "0.0.id"}}),
        op("POST", f"/projects/{a_project['id']}/archive"),
    )
    assert (made["status"], [task["priority"] for task in changed["body"]]) == (201, ["high", "high"])
    assert moved["body"]["parent_id"] == made["body"][0]["id"]
    assert archived["body"]["archived_at"] is not None


def test_a_thousand_operations_and_not_one_more(api, a_project):
    create_one = op("POST", "/tasks", {"name": "One of many", "project_id": a_project["id"]})
    document = refused(api, *[create_one] * (MAX_OPERATIONS + 1))
    assert (places(document), codes(document)) == (["/operations"], ["wrong_type"])
    assert "1,000" in document["detail"]
    assert listed(api, "tasks", project_id=a_project["id"]) == []
    results = run(api, *[create_one] * MAX_OPERATIONS)
    made = [result["body"]["id"] for result in results]
    assert len(set(made)) == MAX_OPERATIONS
    assert [task["id"] for task in listed(api, "tasks", project_id=a_project["id"], limit=1000)] == made


@pytest.mark.parametrize("body", [None, [], {}, {"operations": []}, {"operations": {}}, {"operations": None}, "x", 1])
def test_a_body_without_operations(api, body):
    response = api.post("/v1/batch", **({} if body is None else {"json": body}))
    problem(response, 400 if body is None else 422)


def test_results_that_are_too_large_for_one_answer(api, heads):
    project = create(api, "projects", name="Big")["id"]
    long = "x" * 20_000
    create(api, "tasks/bulk", project_id=project, tasks=[{"name": "Big", "description": long} for _ in range(250)])
    before = heads()
    read = op("GET", f"/tasks?project_id={project}&limit=250")
    document = problem(send(api, op("POST", "/tasks", {"name": "Undone"}), *[read] * 8), 422, "batch-failed")
    assert document["pointer"] == "/operations/7"
    assert "32 MiB" in document["detail"]
    assert heads() == before


def test_an_empty_answer_for_those_who_prefer_it(api, a_project):
    made = op("POST", "/tasks", {"name": "Quiet", "project_id": a_project["id"]})
    response = send(api, made, made, headers={"Prefer": "return=minimal"})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["preference-applied"] == "return=minimal"
    assert len(listed(api, "tasks", project_id=a_project["id"])) == 2


# ---- references ------------------------------------------------------------------------------------------------------


def test_references_by_name_and_by_number_everywhere(api):
    project, first, second, read, found, byname = run(
        api,
        op("POST", "/projects", {"name": "Launch", "custom_fields": {"code": "L 1/2"}}, id="project"),
        op("POST", "/tasks", {"name": "First", "project_id": {"$ref": "project.id"}, "labels": ["x", "y"]}),
        op(
            "POST",
            "/tasks",
            {
                "name": 'After {"$ref": "1.name"} of {"$ref":"project.name"}, version {"$ref": "0.version"}',
                "project_id": '{"$ref": "project.id"}',
                "blocked_by": [{"$ref": "1.id"}],
                "labels": {"$ref": "1.labels"},
                "custom_fields": {"from": {"$ref": "1.labels.1"}, "code": {"$ref": "project.custom_fields.code"}},
            },
            id="second",
        ),
        op("GET", '/tasks/{"$ref": "second.id"}?fields=id'),
        op("GET", '/tasks?project_id={"$ref": "0.id"}&custom_fields.code={project.custom_fields.code}&fields=id'),
        op("GET", "/tasks/{2.id}?fields=id,name"),
    )
    task = second["body"]
    assert task["name"] == "After First of Launch, version 1"
    assert (task["project_id"], first["body"]["project_id"]) == (project["body"]["id"], project["body"]["id"])
    assert (task["blocked_by"], task["labels"]) == ([first["body"]["id"]], ["x", "y"])
    assert task["custom_fields"] == {"from": "y", "code": "L 1/2"}
    assert read["body"] == {"id": task["id"]}
    assert found["body"] == [{"id": task["id"]}]
    assert byname["body"] == {"id": task["id"], "name": task["name"]}
    assert [result.get("id") for result in (project, first, second)] == ["project", None, "second"]


def test_a_reference_to_a_whole_result_and_to_an_element_of_a_list(api, a_task):
    """What was read can be sent back, also within a batch."""
    path = f"/tasks?project_id={a_task['project_id']}"
    whole, _, copied = run(
        api,
        op("GET", path),
        op("PATCH", "/tasks/{0.0.id}", {"$ref": "0.0"}),
        op(
            "POST",
            "/tasks",
            {
                "name": {"$ref": "0.0.name"},
                "project_id": {"$ref": "0.0.project_id"},
                "due_date": {"$ref": "0.0.due_date"},
            },
        ),
    )
    assert whole["body"] == [a_task]
    assert (copied["body"]["name"], copied["body"]["due_date"]) == (a_task["name"], None)


def test_what_a_reference_put_into_a_parameter_is_one_value(api, a_project):
    label = "a&b=c #%"
    create(api, "tasks", name="Odd", project_id=a_project["id"], labels=[label])
    _, found = run(
        api,
        op("GET", f"/tasks?project_id={a_project['id']}"),
        op("GET", f"/tasks?project_id={a_project['id']}&labels={{0.0.labels.0}}&fields=labels"),
    )
    assert found["body"] == [{"labels": [label]}]


@pytest.mark.parametrize("name", ["../projects", "a/b", "a?b=c", "a b", "é/", ".."])
def test_what_a_reference_put_into_a_path_stays_one_segment(name, api, a_project, heads):
    before = heads()
    inner = failed(
        api,
        404 if name == ".." else 422,
        1,
        op("POST", "/tasks", {"name": name, "project_id": a_project["id"]}),
        op("GET", "/tasks/{0.name}"),
    )
    assert inner["code"] in ("validation-failed", "not-found")
    assert heads() == before


def test_a_reference_may_not_turn_an_operation_into_another(api, a_project):
    """`/tasks/{x}` with x = "bulk" would be another route, with other checks."""
    named = op("POST", "/tasks", {"name": "bulk", "project_id": a_project["id"]})
    failed(api, 404, 1, named, op("PATCH", "/tasks/{0.name}", {"ids": [ids.new("task")], "set": {}}))


BAD = {
    "later": op("GET", "/tasks/{1.id}"),
    "itself": op("POST", "/tasks", {"name": {"$ref": "0.name"}}),
    "itself by name": op("POST", "/tasks", {"name": {"$ref": "me.name"}}, id="me"),
    "nobody": op("POST", "/tasks", {"name": "x", "custom_fields": {"a": [{"$ref": "nobody.id"}]}}),
    "nobody in a text": op("POST", "/tasks", {"name": 'After {"$ref": "nobody.id"}'}),
    "nobody in a parameter": op("GET", '/tasks?project_id={"$ref": "nobody.id"}'),
    "nothing": op("POST", "/tasks", {"name": {"$ref": ""}}),
}


@pytest.mark.parametrize("case", BAD)
def test_references_to_what_is_not_there_yet(case, api, heads):
    before = heads()
    document = refused(api, BAD[case], op("GET", "/users/me"))
    assert (codes(document), places(document)) == (["unknown_reference"], ["/operations/0"])
    assert heads() == before


def test_a_member_that_a_result_does_not_have(api, a_project, heads):
    before = heads()
    for reference in ("0.nane", "0.name.x", "0.labels.0", "0.labels.-1", "0.labels.x", "0..id"):
        inner = failed(
            api,
            422,
            1,
            op("POST", "/tasks", {"name": "x", "project_id": a_project["id"]}),
            op("POST", "/tasks", {"name": {"$ref": reference}}),
        )
        assert codes(inner) == ["unknown_reference"], reference
        assert reference in inner["detail"]
    assert heads() == before


def test_a_name_that_is_nearly_right(api):
    document = refused(api, op("POST", "/projects", {"name": "x"}, id="project"), op("GET", "/projects/{projcet.id}"))
    assert 'Did you mean "project"?' in document["errors"][0]["detail"]


# ---- faults that are told before anything runs -----------------------------------------------------------------------


def test_every_fault_of_every_operation_is_told_at_once(api, heads):
    before = heads()
    document = refused(
        api,
        op("POST", "/tasks", {"name": "Right"}),
        {"metod": "GET", "path": "/tasks"},
        op("GET", "tasks"),
        op("GET", "/taks"),
        op("DELETE", "/users/me"),
        op("POST", "/batch", {"operations": []}),
        op("POST", "/api-keys", {"name": "A secret"}),
        op("GET", "/users/me", {"name": "x"}),
        op("GET", "/users/me", id="1st"),
        op("GET", "/users/me", id="twice"),
        op("GET", "/users/me", id="twice"),
        op("GET", "/users/me", if_match=True),
        op("PATCH", "/tasks/{99.id}", {}),
        "GET /tasks",
        op("GET", "/users/me", headers={}),
        op("GET", "/health"),
    )
    assert list(zip(places(document), codes(document), strict=True)) == [
        ("/operations/1/metod", "unknown_field"),
        ("/operations/1/method", "required"),
        ("/operations/2/path", "required"),
        ("/operations/3/path", "not_found"),
        ("/operations/4/path", "method_not_allowed"),
        ("/operations/5/path", "not_allowed"),
        ("/operations/6/path", "not_allowed"),
        ("/operations/7/body", "not_allowed"),
        ("/operations/8/id", "invalid_format"),
        ("/operations/10/id", "duplicate"),
        ("/operations/11/if_match", "wrong_type"),
        ("/operations/12", "unknown_reference"),
        ("/operations/13", "wrong_type"),
        ("/operations/14/headers", "unknown_field"),
        ("/operations/15/path", "not_found"),
    ]
    assert document["detail"].startswith("The batch has 15 faults")
    assert 'Did you mean "method"?' in document["errors"][0]["detail"]
    assert "Did you mean /v1/tasks?" in document["errors"][3]["detail"]
    assert heads() == before


def test_members_beside_the_operations(api):
    document = problem(api.post("/v1/batch", json={"operations": [op("GET", "/users/me")], "atomic": False}), 422)
    assert (places(document), codes(document)) == (["/atomic"], ["unknown_field"])
    listed_twice = api.post("/v1/batch?limit=3", json={"operations": [op("GET", "/users/me")]})
    assert codes(problem(listed_twice, 400)) == ["unknown_parameter"]


@pytest.mark.parametrize("number", [0, 1])
def test_names_cannot_be_mistaken_for_numbers(number, api):
    document = refused(api, op("GET", "/users/me", id=str(number)), op("GET", "/users/me"))
    assert codes(document) == ["invalid_format"]


# ---- all or nothing --------------------------------------------------------------------------------------------------


def test_the_five_hundredth_operation_fails_and_nothing_has_changed(api, a_project, a_task, heads):
    path = f"/v1/tasks/{a_task['id']}"
    before, document = heads(), api.get(path).json()
    operations = [op("PATCH", f"/tasks/{a_task['id']}", {"name": f"Name {number}"}) for number in range(250)]
    operations += [op("POST", "/tasks", {"name": "New", "project_id": a_project["id"]}) for _ in range(249)]
    operations += [op("POST", "/tasks", {"name": "", "priority": "hgih"}, id="culprit")]
    operations += [op("DELETE", f"/tasks/{a_task['id']}")] * 100
    response = send(api, *operations)
    told = problem(response, 422, "batch-failed")
    assert (told["pointer"], told["operation"]["index"], told["operation"]["id"]) == ("/operations/499", 499, "culprit")
    assert places(told) == ["/operations/499/body/name", "/operations/499/body/priority"]
    assert places(told["operation"]["problem"]) == ["/name", "/priority"]
    assert told["detail"].startswith('Operation 499 "culprit" (POST /tasks) failed: ')
    assert "commit-seq" not in response.headers
    assert heads() == before
    assert api.get(path).json() == document
    assert [task["id"] for task in listed(api, "tasks", project_id=a_project["id"])] == [a_task["id"]]
    assert listed(api, "tasks", q="New", project_id=a_project["id"]) == []


FAILURES = {
    404: op("GET", "/tasks/task_00000000000000000000000000"),
    400: op("GET", "/tasks?asignee=ana"),
    422: op("POST", "/tasks", {"name": "x", "assignee": "nobody at all"}),
}


@pytest.mark.parametrize("status", FAILURES)
def test_the_batch_answers_as_the_operation_would(status, api, a_project, heads):
    before = heads()
    operation = FAILURES[status]
    inner = failed(api, status, 1, op("POST", "/tasks", {"name": "x", "project_id": a_project["id"]}), operation)
    options = {"json": operation["body"]} if "body" in operation else {}
    alone = problem(api.request(operation["method"], f"/v1{operation['path']}", **options), status)
    hidden = ("request_id", "instance")
    assert {name: inner[name] for name in inner if name not in hidden} == {
        name: alone[name] for name in alone if name not in hidden
    }
    assert heads() == before


def test_a_clash(api, a_task, heads):
    before = heads()
    new = ids.new("task")
    inner = failed(
        api, 409, 1, op("POST", "/tasks", {"id": new, "name": "x"}), op("POST", "/tasks", {"id": new, "name": "Twice"})
    )
    assert codes(inner) == ["id_in_use"]
    failed(api, 409, 0, op("POST", "/tasks", {"id": a_task["id"], "name": "Twice"}))
    assert heads() == before


def test_each_operation_may_name_the_version_it_has_seen(api, a_project, heads):
    first, second = (create(api, "tasks", name=name, project_id=a_project["id"])["id"] for name in "ab")
    api.patch(f"/v1/tasks/{second}", json={"name": "Changed meanwhile"})
    before = heads()
    for seen in (1, '"1"', "1"):
        response = send(
            api,
            op("PATCH", f"/tasks/{first}", {"name": "A"}, if_match=1),
            op("PATCH", f"/tasks/{second}", {"name": "B"}, if_match=seen),
        )
        document = problem(response, 412, "batch-failed")
        assert document["pointer"] == "/operations/1"
        assert document["operation"]["problem"]["current"]["version"] == 2
        assert response.headers["etag"] == '"2"'
    assert heads() == before
    results = run(
        api,
        op("PATCH", f"/tasks/{first}", {"name": "A"}, if_match='"1"'),
        op("PATCH", f"/tasks/{second}", {"name": "B"}, if_match=2),
        op("PATCH", f"/tasks/{first}", {"name": "AA"}, if_match=2),
        op("DELETE", f"/tasks/{second}", if_match="*"),
    )
    assert [result["headers"].get("ETag") for result in results] == ['"2"', '"3"', '"3"', None]


def test_a_header_of_the_request_is_no_version_of_its_operations(api, a_task):
    """`If-Match` names one object, and a batch has many."""
    response = send(api, op("PATCH", f"/tasks/{a_task['id']}", {"name": "x"}), headers={"If-Match": '"99"'})
    problem(response, 400, "malformed-request")


# ---- rights ----------------------------------------------------------------------------------------------------------


def test_rights_gained_within_the_batch_count_at_once(api, me, heads):
    workspace, project, task, template, listing = run(
        api,
        op("POST", "/workspaces", {"name": "New"}, id="ws"),
        op("POST", "/projects", {"name": "Hidden", "workspace_id": {"$ref": "ws.id"}, "visibility": "private"}, id="p"),
        op("POST", "/tasks", {"name": "Inside", "project_id": {"$ref": "p.id"}}),
        op("POST", "/templates", {"name": "Mine", "workspace_id": {"$ref": "ws.id"}}),
        op("GET", "/tasks?workspace_id={ws.id}&fields=name"),
    )
    made = workspace["body"]["id"]
    assert {item["body"]["workspace_id"] for item in (project, task, template)} == {made}
    assert listing["body"] == [{"name": "Inside"}]
    assert heads()[made] > 0


def test_rights_lost_within_the_batch_are_lost_at_once(api, an_admin, heads):
    workspace = create(api, "workspaces", name="Shared")["id"]
    create(api, f"workspaces/{workspace}/members", user=an_admin.id, role="admin")
    project = create(api, "projects", name="P", workspace_id=workspace)["id"]
    before = heads()
    leave = op("DELETE", f"/workspaces/{workspace}/members/{an_admin.id}")
    write = op("POST", "/tasks", {"name": "After the fact", "project_id": project})
    failed(an_admin.client, 422, 2, write, leave, write)
    failed(an_admin.client, 404, 1, leave, op("GET", f"/projects/{project}"))
    assert heads() == before
    assert listed(an_admin.client, "projects", id=project) != [], "the membership is there as before"
    made, _ = run(an_admin.client, write, leave)
    assert made["status"] == 201
    problem(an_admin.client.get(f"/v1/projects/{project}"), 404)


def test_a_role_that_sinks_within_the_batch(api, a_guest):
    project = create(api, "projects", name="P", members=[{"user": a_guest.id, "role": "editor"}])["id"]
    me_here = f"/projects/{project}/members/{a_guest.id}"
    write = op("POST", "/tasks", {"name": "x", "project_id": project})
    failed(a_guest.client, 403, 2, write, op("PATCH", me_here, {"role": "viewer"}), write)
    assert listed(api, "tasks", project_id=project) == []


def test_a_key_that_is_narrowed_within_the_batch(api, key_with):
    client = key_with(["*"])
    key = next(key for key in listed(client, "api-keys", sort="-created_at") if key["name"] == "tests")
    narrow = op("PATCH", f"/api-keys/{key['id']}", {"scopes": ["projects:read", "api-keys:write"]})
    failed(client, 403, 1, narrow, op("GET", "/tasks"))
    failed(client, 401, 1, op("DELETE", f"/api-keys/{key['id']}"), op("GET", "/tasks"))
    assert client.get("/v1/tasks").status_code == 200


def test_each_operation_needs_its_own_scope(api, key_with, a_project, heads):
    client = key_with(["tasks:write", "projects:read"])
    before = heads()
    write = op("POST", "/tasks", {"name": "x", "project_id": a_project["id"]})
    inner = failed(client, 403, 2, write, op("GET", "/projects"), op("PATCH", f"/projects/{a_project['id']}", {}))
    assert "projects:write" in inner["detail"]
    assert heads() == before
    assert run(client, write, op("GET", f"/projects/{a_project['id']}"))[1]["body"] == a_project


def test_what_one_may_not_see_is_not_there(outsider, a_task):
    inner = failed(outsider, 404, 1, op("GET", "/users/me"), op("GET", f"/tasks/{a_task['id']}"))
    assert a_task["name"] not in json.dumps(inner)
    assert run(outsider, op("GET", f"/tasks?id={a_task['id']}"))[0]["body"] == []


def test_without_a_key(server, a_task):
    with server.client("") as nobody:
        problem(send(nobody, op("GET", f"/tasks/{a_task['id']}")), 401, "unauthenticated")


def test_what_a_batch_found_out_and_took_back_is_forgotten(api, invite):
    """A person is known by another handle inside a batch that fails: afterwards by the old one, in every list."""
    person, handle = invite("member"), f"h{ids.new('user')[-20:]}"
    rename = op("PATCH", f"/users/{person.id}", {"handle": handle})
    found = op("GET", f"/tasks?assignee={handle}")
    failed(api, 404, 2, rename, found, FAILURES[404])
    assert codes(problem(api.get("/v1/tasks", params={"assignee": handle}), 400)) == ["unknown_reference"]
    run(api, rename, found, params={"dry_run": "true"})
    assert codes(problem(api.get("/v1/tasks", params={"assignee": handle}), 400)) == ["unknown_reference"]
    run(api, rename, found)
    assert listed(api, "tasks", assignee=handle) == []


# ---- with the other promises -----------------------------------------------------------------------------------------


def test_a_dry_run_of_a_batch(api, a_project, heads):
    before = heads()
    response = send(
        api,
        op("POST", "/projects", {"name": "Never"}, id="p"),
        op("POST", "/tasks", {"name": "Never", "project_id": {"$ref": "p.id"}}),
        op("GET", "/tasks?project_id={p.id}&fields=name"),
        params={"dry_run": "true"},
    )
    project, _, seen = response.json()["results"]
    assert response.headers["dry-run"] == "true"
    assert "commit-seq" not in response.headers
    assert (seen["body"], heads()) == ([{"name": "Never"}], before)
    problem(api.get(f"/v1/projects/{project['body']['id']}"), 404)


def test_dry_run_is_for_the_whole_batch(api):
    failed(api, 400, 0, op("POST", "/tasks?dry_run=true", {"name": "x"}))


def test_a_batch_that_is_sent_again(api, a_project, heads):
    operations = [
        op("POST", "/tasks", {"name": "Once", "project_id": a_project["id"]}, id="t"),
        op("POST", "/tasks/{t.id}/complete"),
    ]
    key = {"Idempotency-Key": ids.new("req")}
    first = send(api, *operations, headers=key)
    before = heads()
    second = send(api, *operations, headers=key)
    assert (second.status_code, second.content) == (200, first.content)
    assert second.headers["idempotent-replayed"] == "true"
    assert heads() == before
    problem(send(api, *operations[:1], headers=key), 422, "idempotency-key-reused")
    problem(send(api, *operations[::-1], headers=key), 422)


def test_a_batch_costs_one_and_one_more_for_every_fifty(start_server):
    server = start_server(rate_limit="10/minute")
    read = op("GET", "/users/me")
    with server.client() as client:
        response = send(client, *[read] * 280)
        assert (response.status_code, response.headers["x-ratelimit-remaining"]) == (200, "4")
        assert response.headers["ratelimit"].startswith('"default";r=4;')
        refusal = send(client, *[read] * 350)
        problem(refusal, 429, "quota-exceeded")
        assert "This request counts as 8." in refusal.json()["detail"]
        assert 1 <= int(refusal.headers["retry-after"]) <= 24
        assert send(client, *[read] * 30).headers["x-ratelimit-remaining"] in ("3", "4")


def test_a_failed_batch_costs_as_much_and_a_replay_nothing(start_server):
    server = start_server(rate_limit="20/minute")
    write, key = op("POST", "/tasks", {"name": "x"}), {"Idempotency-Key": "once"}
    with server.client() as client:
        assert send(client, *[write] * 350, headers=key).headers["x-ratelimit-remaining"] == "12"
        for _ in range(5):
            again = send(client, *[write] * 350, headers=key)
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["x-ratelimit-remaining"] in ("12", "13")
        spent = send(client, *[write] * 299, FAILURES[404])
        assert (spent.status_code, spent.headers["x-ratelimit-remaining"]) in ((404, "5"), (404, "6"))


def test_a_batch_larger_than_the_bucket_needs_a_full_one(start_server):
    server = start_server(rate_limit="10/minute")
    read = op("GET", "/users/me")
    with server.client() as client:
        assert send(client, *[read] * 1000).status_code == 200, "the bucket was full"
        refusal = client.get("/v1/users/me")
        problem(refusal, 429)
        assert int(refusal.headers["retry-after"]) > 60


def test_what_references_make_has_a_depth_too(api):
    """Each step puts the last result one level deeper; the whole is refused where a body of that depth would be."""
    operations = [{"id": "s0", "method": "POST", "path": "/workspaces", "body": {"name": "Deep"}}]
    for n in range(1, 60):
        inner = {"$ref": f"s{n - 1}.settings"} if n > 1 else {}
        body = {"settings": {"a": inner}}
        operations.append({"id": f"s{n}", "method": "PATCH", "path": "/workspaces/{s0.id}", "body": body})
    document = problem(api.post("/v1/batch", json={"operations": operations}), 422, "batch-failed")
    assert "Nested deeper than 32" in document["detail"]


def test_a_version_is_only_named_where_there_is_one(api):
    operations = [
        {"method": "POST", "path": "/tasks", "body": {"name": "x"}, "if_match": 1},
        {"method": "GET", "path": "/tasks", "if_match": 1},
    ]
    document = problem(api.post("/v1/batch", json={"operations": operations}), 422)
    assert places(document) == ["/operations/0/if_match", "/operations/1/if_match"]
    document = problem(api.post("/v1/tasks", json={"name": "x"}, headers={"If-Match": '"1"'}), 400)
    assert codes(document) == ["not_allowed"]


def test_a_batch_that_is_refused_for_its_length_does_not_cost_more_than_the_longest(start_server):
    server = start_server(rate_limit="21/minute")
    with server.client() as client:
        refused = client.post("/v1/batch", json={"operations": [0] * 50_000})
        problem(refused, 422)
        left = client.get("/v1/tasks")
        assert left.status_code == 429 or int(left.headers["x-ratelimit-remaining"]) <= 2
