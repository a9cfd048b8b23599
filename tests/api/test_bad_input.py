"""What is wrong with a request is said, whole and in its place, and a request that is refused leaves nothing.

Why each test asks the logs: a refusal that has written something is the worst answer there is, and only the log
of every workspace together can show that it has not.
"""

import json
import re
import socket
from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids, signing

from tests.api.asking import codes, create, listed, places, problem, talk

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def refused(api, heads):
    """Sends a request that has to be refused; returns the problem document."""

    def send(method, path, status, **options):
        before = heads()
        document = problem(api.request(method, f"/v1{path}", **options), status)
        assert heads() == before, "something was written"
        return document

    return send


@pytest.mark.parametrize("path", ["/tasks/{}", "/tasks", "/users/me", "/events", "/audit", "/events/stream"])
def test_what_is_only_read_takes_no_body(api, refused, a_task, path):
    path = path.format(a_task["id"])
    if path != "/events/stream":
        assert api.get(f"/v1{path}").status_code == 200  # from now on the answer may be a kept one
    for content in (b'{"name": "x"}', b"null", b"[]", b"x" * 10_000):
        document = refused("GET", path, 400, content=content, headers=JSON)
        assert codes(document) == ["not_allowed"]
    refused("GET", path, 400, content=iter([b"a chunk"]), headers=JSON)
    if path != "/events/stream":
        for content in (b"", b"{}"):
            assert api.request("GET", f"/v1{path}", content=content, headers=JSON).status_code == 200


@pytest.mark.parametrize("sort", ["name,-name", "name,name"])
def test_a_list_is_sorted_by_each_key_once(api, refused, sort):
    for document in (
        refused("GET", "/tasks", 400, params={"sort": sort}),
        refused("POST", "/tasks/query", 400, json={"sort": sort}),
    ):
        assert codes(document) == ["repeated"]


@pytest.mark.parametrize("name", ["estimate", "custom_fields.size"])
def test_infinity_is_no_number_to_compare_with(api, refused, name):
    for value in ("1e999", "-1e400"):
        document = refused("GET", "/tasks", 400, params={f"{name}[$gt]": value})
        assert codes(document) == ["out_of_range"]
        refused("POST", "/tasks/query", 400, content=f'{{"filter": {{"{name}": {{"$lt": {value}}}}}}}', headers=JSON)
    assert api.get("/v1/tasks", params={f"{name}[$gt]": "1e300"}).status_code == 200


def only_fault(document):
    (fault,) = document["errors"]
    return fault


# ---- the bytes of a body ---------------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": (b"", "empty"),
    "cut off": (b'{"name": "x"', "line 1"),
    "no JSON": (b"name=x", "line 1"),
    "two documents": (b'{"name": "x"} {}', "line 1"),
    "a comma too many": (b'{"name": "x",}', "line 1"),
    "single quotes": (b"{'name': 'x'}", "line 1"),
    "a comment": (b'{"name": "x" /* y */}', "line 1"),
    "a line break in a text": (b'{"name": "x\ny"}', "line 1"),
    "not UTF-8": (b'{"name": "\xff"}', "UTF-8"),
    "UTF-16": ('{"name": "x"}'.encode("utf-16"), "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"name": "x"}', "BOM"),
    "NaN": (b'{"name": "x", "estimate": NaN}', "NaN"),
    "Infinity": (b'{"name": "x", "estimate": Infinity}', "Infinity"),
    "minus Infinity": (b'{"name": "x", "estimate": -Infinity}', "-Infinity"),
    "a number beyond floats": (b'{"name": "x", "estimate": 1e999}', "64 bits"),
    "a number beyond 64 bits": (b'{"name": "x", "estimate": 99999999999999999999}', "64 bits"),
    "a number of 5,000 digits": (b'{"name": "x", "estimate": ' + b"9" * 5000 + b"}", "digits"),
    "a key that stands twice": (b'{"name": "x", "name": "y"}', '"name" stands twice'),
    "a key that stands twice inside": (b'{"name": "x", "custom_fields": {"a": 1, "a": 2}}', '"a" stands twice'),
    "NUL in a text": (b'{"name": "a\\u0000b"}', "NUL"),
    "NUL in a key": (b'{"na\\u0000me": "x"}', "NUL"),
    "half a surrogate pair": (b'{"name": "\\ud800"}', "surrogate"),
    "the other half": (b'{"name": "x\\udc00"}', "surrogate"),
    "the halves in the wrong order": (b'{"name": "\\udc00\\ud800"}', "surrogate"),
    "half a pair in a key": (b'{"\\ud800": "x"}', "surrogate"),
    "33 levels": (b'{"name": ' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32"),
    "100,000 levels": (b"[" * 100_000, "deeper than 32"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body(case, refused):
    body, said = MALFORMED[case]
    document = refused("POST", "/tasks", 400, content=body, headers=JSON)
    assert document["code"] == "malformed-request"
    assert said in only_fault(document)["detail"]


def test_the_place_of_a_bad_value_is_told(refused):
    body = b'{"tasks": [{"name": "x"}, {"name": "y", "custom_fields": {"a/b": "\\ud800"}}]}'
    document = refused("POST", "/tasks/bulk", 400, content=body, headers=JSON)
    assert places(document) == ["/tasks/1/custom_fields/a~1b"]


@pytest.mark.parametrize("method, path", [("PATCH", ""), ("PUT", ""), ("POST", "/move"), ("DELETE", "")])
def test_every_write_refuses_a_malformed_body(method, path, refused, a_task):
    refused(method, f"/tasks/{a_task['id']}{path}", 400, content=b"{", headers=JSON)


@pytest.mark.parametrize("body", [[], "x", 1, True, [{"name": "x"}]])
def test_a_body_that_is_no_object(body, refused, a_task):
    for method, path in (("POST", "/tasks"), ("PATCH", f"/tasks/{a_task['id']}"), ("POST", "/tasks/bulk")):
        fault = only_fault(refused(method, path, 422, json=body))
        assert (fault["pointer"], fault["code"]) == ("", "wrong_type")
    for path in ("/users", "/projects", "/comments", "/templates", "/workspaces", "/api-keys"):
        refused("POST", path, 422, json=body)
    refused("POST", "/tasks/query", 400, json=body)


def test_null_is_no_body(refused, a_task):
    refused("POST", "/tasks", 400, json=None, content=b"null", headers=JSON)
    refused("PATCH", f"/tasks/{a_task['id']}", 400, content=b"null", headers=JSON)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_a_body_of_another_type(kind, refused):
    document = refused("POST", "/tasks", 415, content=b'{"name": "x"}', headers={"Content-Type": kind})
    assert document["code"] == "unsupported-media-type" and "application/json" in document["detail"]


def test_a_body_in_another_encoding(refused):
    headers = {"Content-Type": "application/json; charset=latin-1"}
    refused("POST", "/tasks", 415, content=b'{"name": "x"}', headers=headers)


def test_a_body_that_is_cut_off_writes_nothing(server, api, heads, a_project):
    body = json.dumps({"name": "Half", "project_id": a_project["id"]}).encode()
    head = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    before = heads()
    for sent in (b"", body[:1], body[:-1]):
        answer = talk(server.port, head, sent, finish=True)
        assert answer is not None and answer.status == 400, "who still listens is told"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + sent)
    chunked = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    answer = talk(server.port, chunked, b"%x\r\n%s\r\n" % (len(body), body), finish=True)
    assert answer is not None and answer.status == 400, "the last chunk is missing"
    assert heads() == before
    assert listed(api, "tasks", project_id=a_project["id"]) == []
    answer = talk(server.port, head, body)
    assert answer is not None and answer.status == 201, "whole it is taken"


# ---- what a body says ------------------------------------------------------------------------------------------------

FAULTY_TASKS = {
    "no name": ({}, "/name", "required"),
    "a name that is null": ({"name": None}, "/name", "required"),
    "an empty name": ({"name": ""}, "/name", "too_short"),
    "a name of spaces": ({"name": " \t\n"}, "/name", "too_short"),
    "a name that is a number": ({"name": 5}, "/name", "wrong_type"),
    "a name too long": ({"name": "x" * 501}, "/name", "too_long"),
    "a description too long": ({"name": "x", "description": "x" * 100_001}, "/description", "too_long"),
    "a priority that is none": ({"name": "x", "priority": "hihg"}, "/priority", "not_allowed"),
    "a priority in a list": ({"name": "x", "priority": ["high"]}, "/priority", "not_allowed"),
    "a time of completion": ({"name": "x", "completed_at": "2024-01-15"}, "/completed_at", "read_only"),
    "a status the project lacks": ({"name": "x", "status": "done"}, "/status", "unknown_status"),
    "a day that does not exist": ({"name": "x", "due_date": "2024-02-30"}, "/due_date", "invalid_date"),
    "a leap day in another year": ({"name": "x", "due_date": "2023-02-29"}, "/due_date", "invalid_date"),
    "a time that does not exist": ({"name": "x", "due_date": "2024-01-01T25:00:00Z"}, "/due_date", "invalid_date"),
    "a date of another country": ({"name": "x", "due_date": "31.01.2024"}, "/due_date", "invalid_date"),
    "a date in other digits": ({"name": "x", "due_date": "２０２４-01-01"}, "/due_date", "invalid_date"),
    "a time before the year 1": ({"name": "x", "due_date": "0001-01-01T00:00:00+01:00"}, "/due_date", "invalid_date"),
    "a time stamp": ({"name": "x", "due_date": 1704067200}, "/due_date", "wrong_type"),
    "an end before the start": (
        {"name": "x", "start_date": "2024-02-01", "due_date": "2024-01-31"}, "/due_date", "invalid_range"),
    "labels as a text": ({"name": "x", "labels": "urgent"}, "/labels", "wrong_type"),
    "a label that is empty": ({"name": "x", "labels": ["a", ""]}, "/labels/1", "invalid_format"),
    "a label with a comma": ({"name": "x", "labels": ["a,b"]}, "/labels/0", "invalid_format"),
    "a label too long": ({"name": "x", "labels": ["x" * 101]}, "/labels/0", "invalid_format"),
    "labels without end": ({"name": "x", "labels": [str(n) for n in range(51)]}, "/labels", "too_many"),
    "an estimate below zero": ({"name": "x", "estimate": -1}, "/estimate", "out_of_range"),
    "an estimate that is a text": ({"name": "x", "estimate": "3"}, "/estimate", "wrong_type"),
    "an estimate that is true": ({"name": "x", "estimate": True}, "/estimate", "wrong_type"),
    "an estimate without end": ({"name": "x", "estimate": 1e300}, "/estimate", "out_of_range"),
    "a person nobody knows": ({"name": "x", "assignee": "nobody"}, "/assignee", "unknown_reference"),
    "a person who is a number": ({"name": "x", "assignee": 5}, "/assignee", "wrong_type"),
    "a project that never was": (
        {"name": "x", "project_id": ids.new("proj")}, "/project_id", "unknown_reference"),
    "a project that is a task": ({"name": "x", "project_id": ids.new("task")}, "/project_id", "invalid_id"),
    "a parent that never was": ({"name": "x", "parent_id": ids.new("task")}, "/parent_id", "unknown_reference"),
    "a blocker that never was": ({"name": "x", "blocked_by": [ids.new("task")]}, "/blocked_by/0", "unknown_reference"),
    "a blocker in no list": ({"name": "x", "blocked_by": ids.new("task")}, "/blocked_by", "wrong_type"),
    "an id of one's own making": ({"name": "x", "id": "task_1"}, "/id", "invalid_id"),
    "an id of another kind": ({"name": "x", "id": ids.new("proj")}, "/id", "invalid_id"),
    "a rule that is none": ({"name": "x", "recurrence": "every monday"}, "/recurrence", "invalid_rrule"),
    "a rule by the second": ({"name": "x", "recurrence": "FREQ=SECONDLY"}, "/recurrence", "invalid_rrule"),
    "a position with spaces": ({"name": "x", "position": "a b"}, "/position", "invalid_format"),
    "custom fields in a list": ({"name": "x", "custom_fields": []}, "/custom_fields", "wrong_type"),
    "a custom object": ({"name": "x", "custom_fields": {"a": {"b": 1}}}, "/custom_fields/a", "wrong_type"),
    "a custom key with a slash": ({"name": "x", "custom_fields": {"a/b": 1}}, "/custom_fields/a~1b", "invalid_key"),
    "a custom number too large": (
        {"name": "x", "custom_fields": {"a": 2**53}}, "/custom_fields/a", "out_of_range"),
    "custom fields without end": (
        {"name": "x", "custom_fields": {f"k{n}": n for n in range(101)}}, "/custom_fields", "too_many"),
    "an unknown member": ({"name": "x", "asignee": "me"}, "/asignee", "unknown_field"),
    "an unknown member with odd signs": ({"name": "x", "a/b~c": 1}, "/a~1b~0c", "unknown_field"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTY_TASKS)
def test_a_faulty_task(case, refused):
    body, pointer, code = FAULTY_TASKS[case]
    fault = only_fault(refused("POST", "/tasks", 422, json=body))
    assert (fault["pointer"], fault["code"]) == (pointer, code)
    again = refused("POST", "/tasks/bulk", 422, json={"tasks": [{"name": "fine"}, body]})
    fault = only_fault(again)
    assert (fault["pointer"], fault["code"]) == (f"/tasks/1{pointer}", code)


@pytest.mark.parametrize("case", [case for case in FAULTY_TASKS if "id of" not in case and case != "no name"])
def test_a_faulty_change_of_a_task(case, refused, a_task):
    body, pointer, code = FAULTY_TASKS[case]
    for method in ("PATCH", "PUT"):
        fault = only_fault(refused(method, f"/tasks/{a_task['id']}", 422, json=body))
        assert (fault["pointer"], fault["code"]) == (pointer, code)


def test_every_fault_is_told_at_once(refused):
    body = {"name": "", "priority": "x", "due_date": "2024-02-30", "labels": [""], "colour": 1, "estimate": -1}
    document = refused("POST", "/tasks", 422, json=body)
    assert sorted(places(document)) == ["/colour", "/due_date", "/estimate", "/labels/0", "/name", "/priority"]
    assert "6 faults" in document["detail"]
    references = {"name": "x", "assignee": "nobody", "status": "x", "parent_id": ids.new("task")}
    assert sorted(places(refused("POST", "/tasks", 422, json=references))) == ["/assignee", "/parent_id", "/status"]
    tasks = {"tasks": [{"name": ""}, {"name": "fine"}, {"name": "x", "status": "x"}]}
    assert places(refused("POST", "/tasks/bulk", 422, json=tasks)) == ["/tasks/0/name", "/tasks/2/status"]


def test_what_was_probably_meant(refused, a_task):
    for body, word in (({"asignee": "me"}, "assignee"), ({"priority": "hihg"}, "high"), ({"label": []}, "labels")):
        for method, path in (("POST", "/tasks"), ("PATCH", f"/tasks/{a_task['id']}")):
            (fault,) = refused(method, path, 422, json={"name": "x", **body})["errors"]
            assert f'Did you mean "{word}"?' in fault["detail"]
    for path, body, word in (
        ("/projects", {"name": "x", "visibilty": "private"}, "visibility"),
        ("/users", {"name": "x", "email": f"{ids.new('user')}@example.com", "hanlde": "x"}, "handle"),
        ("/tasks/bulk", {"task": []}, "tasks"),
        (f"/tasks/{a_task['id']}/move", {"project": a_task["project_id"]}, "project_id"),
    ):
        (fault, *_) = refused("POST", path, 422, json=body)["errors"]
        assert f'Did you mean "{word}"?' in fault["detail"]


def test_no_task_lies_below_itself(api, refused, a_task):
    child = create(api, "tasks", name="Child", parent_id=a_task["id"])
    grandchild = create(api, "tasks", name="Grandchild", parent_id=child["id"])
    for below in (a_task, child, grandchild):
        for method, path in (("PATCH", ""), ("POST", "/move")):
            path = f"/tasks/{a_task['id']}{path}"
            fault = only_fault(refused(method, path, 422, json={"parent_id": below["id"]}))
            assert (fault["pointer"], fault["code"]) == ("/parent_id", "cycle")


def test_no_tasks_block_each_other_in_a_circle(api, refused, a_task):
    second = create(api, "tasks", name="Second", blocked_by=[a_task["id"]])
    third = create(api, "tasks", name="Third", blocked_by=[second["id"]])
    for blocker in (a_task, second, third):
        body = {"blocked_by": [blocker["id"]]}
        fault = only_fault(refused("PATCH", f"/tasks/{a_task['id']}", 422, json=body))
        assert (fault["pointer"], fault["code"]) == ("/blocked_by/0", "cycle")


def test_one_change_of_several_tasks_makes_no_circle_either(api, refused, a_project):
    one, two = (create(api, "tasks", name=name, project_id=a_project["id"])["id"] for name in ("one", "two"))
    for name, value in (("parent_id", two), ("blocked_by", [two])):
        document = refused("PATCH", "/tasks/bulk", 422, json={"ids": [one, two], "set": {name: value}})
        assert set(codes(document)) == {"cycle"}


def test_levels_without_end(api, refused, a_task):
    parent = a_task["id"]
    for _ in range(19):
        parent = create(api, "tasks", name="Deeper", parent_id=parent)["id"]
    assert codes(refused("POST", "/tasks", 422, json={"name": "x", "parent_id": parent})) == ["too_deep"]
    tall = create(api, "tasks", name="Tall", project_id=a_task["project_id"])["id"]
    create(api, "tasks", name="x", parent_id=tall)
    above = api.get(f"/v1/tasks/{parent}").json()["parent_id"]
    document = refused("PATCH", f"/tasks/{tall}", 422, json={"parent_id": above})
    assert codes(document) == ["too_deep"], "the subtasks that come along count, too"


def test_a_parent_in_another_project(api, refused, a_task):
    other = create(api, "projects", name="Other")["id"]
    fault = only_fault(
        refused("POST", "/tasks", 422, json={"name": "x", "project_id": other, "parent_id": a_task["id"]})
    )
    assert (fault["pointer"], fault["code"]) == ("/parent_id", "mismatch")


def test_ids_that_were_given_already(refused, a_task):
    fault = only_fault(refused("POST", "/tasks", 409, json={"name": "x", "id": a_task["id"]}))
    assert (fault["pointer"], fault["code"]) == ("/id", "id_in_use")
    twice = [{"name": "x", "id": ids.new("task")}] * 2
    assert places(refused("POST", "/tasks/bulk", 409, json={"tasks": twice})) == ["/tasks/1/id"]


def test_what_cannot_change(refused, a_task, a_project):
    for path, body in (
        (f"/tasks/{a_task['id']}", {"id": ids.new("task")}),
        (f"/tasks/{a_task['id']}", {"workspace_id": ids.new("ws")}),
        (f"/projects/{a_project['id']}", {"template_id": ids.new("tmpl")}),
    ):
        fault = only_fault(refused("PATCH", path, 422, json=body))
        assert (fault["pointer"], fault["code"]) == (f"/{next(iter(body))}", "read_only")


def test_what_one_read_may_be_sent_back(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    for params in ({}, {"include": "assignee,project,subtasks,comments,created_by"}):
        read = api.get(path, params=params).json()
        assert api.patch(path, json=read).json()["version"] == a_task["version"]


def test_custom_fields_have_the_types_that_the_project_declares(api, refused):
    declared = {"size": "number", "when": "date", "who": "user", "done": "checkbox", "link": "url", "note": "text"}
    fields: list[Any] = [{"key": key, "type": kind} for key, kind in declared.items()]
    fields += [{"key": "kind", "type": "select", "options": ["a", "b"]}]
    fields += [{"key": "tags", "type": "multi", "options": ["a", "b"]}]
    project = create(api, "projects", name="Typed", fields=fields)["id"]
    wrong = {
        "size": "1",
        "when": "2024-02-30",
        "who": "nobody",
        "done": 1,
        "link": "x",
        "note": 1,
        "kind": "c",
        "tags": ["a", "c"],
    }
    document = refused("POST", "/tasks", 422, json={"name": "x", "project_id": project, "custom_fields": wrong})
    assert sorted(places(document)) == sorted(f"/custom_fields/{key}" for key in wrong)


def test_a_workflow_that_is_none(api, refused, a_task):
    done, todo = {"key": "d", "category": "done"}, {"key": "t", "category": "todo"}
    for statuses, place in (
        ([], "/statuses"),
        ([done], "/statuses"),
        ([todo], "/statuses"),
        ([todo, done, todo], "/statuses/2/key"),
        ([todo, {"key": "d", "category": "finished"}], "/statuses/1/category"),
        ([todo, {"category": "done"}], "/statuses/1/key"),
        ([todo, {**done, "colour": "x"}], "/statuses/1/colour"),
        ([todo, "done"], "/statuses/1"),
    ):
        document = refused("POST", "/projects", 422, json={"name": "x", "statuses": statuses})
        assert place in places(document), statuses
    path = f"/projects/{a_task['project_id']}"
    assert codes(refused("PATCH", path, 422, json={"statuses": [todo, done]})) == ["status_in_use"]


def test_bulk_bodies(refused, a_task):
    for body, place in (
        ({}, "/tasks"),
        ({"tasks": []}, "/tasks"),
        ({"tasks": {}}, "/tasks"),
        ({"tasks": [{"name": "x"}] * 1001}, "/tasks"),
        ({"tasks": ["x"]}, "/tasks/0"),
        ({"tasks": [{"name": "x"}], "project_id": 5}, "/tasks/0/project_id"),
    ):
        assert places(refused("POST", "/tasks/bulk", 422, json=body)) == [place]
    name, chosen = {"name": "x"}, [a_task["id"]]
    changes: tuple[tuple[Any, str], ...] = (
        ({"set": name}, ""),
        ({"set": name, "ids": chosen, "filter": {"id": chosen}}, ""),
        ({"set": name, "ids": []}, "/ids"),
        ({"set": name, "ids": [1]}, "/ids"),
        ({"set": name, "ids": chosen * 1001}, "/ids"),
        ({"set": name, "ids": [*chosen, ids.new("task")]}, "/ids/1"),
        ({"set": name, "filter": {}}, "/filter"),
        ({"ids": chosen}, "/set"),
        ({"ids": chosen, "set": {"name": ""}}, "/set/name"),
        ({"ids": chosen, "set": {"colour": ""}}, "/set/colour"),
    )
    for body, place in changes:
        assert places(refused("PATCH", "/tasks/bulk", 422, json=body)) == [place]
    wrong = {"set": name, "filter": {"colour": "red"}}
    assert places(refused("PATCH", "/tasks/bulk", 400, json=wrong)) == ["/filter/colour"]


def test_operations_without_a_body_refuse_one(refused, a_task):
    path = f"/tasks/{a_task['id']}"
    for method, target in (("POST", f"{path}/complete"), ("POST", f"{path}/reopen"), ("DELETE", path)):
        assert codes(refused(method, target, 422, json={"status": "completed"})) == ["not_allowed"]


# ---- what a URL says -------------------------------------------------------------------------------------------------

FAULTY_QUERIES = {
    "an unknown filter": ("asignee=me", "asignee", "unknown_parameter", "assignee"),
    "an unknown option": ("limitt=5", "limitt", "unknown_parameter", "limit"),
    "a member that cannot be filtered": ("description=x", "description", "unknown_parameter", ""),
    "an unknown operator": ("due_date[$gtt]=2024-01-01", "due_date[$gtt]", "unknown_operator", "$gt"),
    "an operator without its sign": ("due_date[gte]=2024-01-01", "due_date[gte]", "unknown_operator", "$gte"),
    "an operator that does not apply": ("labels[$gt]=a", "labels[$gt]", "not_allowed", ""),
    "an include that is none": ("include=asignee", "include", "unknown_include", "assignee"),
    "an include below one": ("include=project.member", "include", "unknown_include", "members"),
    "an include too deep": ("include=project.members.user", "include", "too_deep", ""),
    "a sort key that is none": ("sort=-due_dat", "sort", "unknown_sort", "due_date"),
    "a sort key that has no order": ("sort=labels", "sort", "unknown_sort", ""),
    "a member that is none": ("fields=id,nmae", "fields", "unknown_field", "name"),
    "a limit of 0": ("limit=0", "limit", "out_of_range", ""),
    "a limit of 1001": ("limit=1001", "limit", "out_of_range", ""),
    "a limit of abc": ("limit=abc", "limit", "out_of_range", ""),
    "a limit below zero": ("limit=-1", "limit", "out_of_range", ""),
    "a limit in other digits": ("limit=%D9%A3", "limit", "out_of_range", ""),
    "two limits": ("limit=1&limit=2", "limit", "repeated", ""),
    "a count of maybe": ("count=maybe", "count", "wrong_type", ""),
    "a deleted of maybe": ("deleted=maybe", "deleted", "wrong_type", ""),
    "a priority that is none": ("priority=hihg", "priority", "not_allowed", "high"),
    "a day that does not exist": ("due_date=2024-02-30", "due_date", "invalid_date", ""),
    "a person nobody knows": ("assignee=nobody", "assignee", "unknown_reference", ""),
    "a project that is none": ("project_id=x", "project_id", "unknown_reference", ""),
    "an estimate that is no number": ("estimate[$gt]=many", "estimate[$gt]", "wrong_type", ""),
    "an exists of maybe": ("assignee[$exists]=maybe", "assignee[$exists]", "wrong_type", ""),
    "an empty text to look for": ("name[$contains]=", "name[$contains]", "wrong_type", ""),
    "a bracket that is open": ("due_date[$gte=2024-01-01", "due_date[$gte", "malformed_parameter", ""),
    "a name that is empty": ("=x", "", "malformed_parameter", ""),
    "a JavaScript object": ("filter=[object%20Object]", "filter", "malformed_parameter", ""),
    "a custom field without a name": ("custom_fields.=x", "custom_fields.", "malformed_parameter", ""),
    "NUL in a value": ("name=a%00b", "name", "invalid_text", ""),
    "NUL in a name": ("na%00me=x", "name", "invalid_text", ""),
    "a group of nothing": ("$or=x", "$or", "wrong_type", ""),
    "a filter that is no JSON": ("filter={", "filter", "malformed_json", ""),
    "a filter with NaN": ('filter={"estimate":NaN}', "filter", "malformed_json", ""),
    "a filter with a key twice": ('filter={"name":"a","name":"b"}', "filter", "malformed_json", ""),
    "a filter that is a list": ("filter=[]", "filter", "wrong_type", ""),
    "an unknown member of a filter": ('filter={"asignee":"me"}', "filter", "unknown_parameter", "assignee"),
    "a cursor that is none": ("cursor=abc", "cursor", "invalid_cursor", ""),
    "a cursor that is empty": ("cursor=", "cursor", "invalid_cursor", ""),
    "a cursor of other signs": ("cursor=%C3%A9", "cursor", "invalid_cursor", ""),
    "6 levels": ("$not[$not][$not][$not][$not][name]=x", "", "too_deep", ""),
}


@pytest.mark.parametrize("case", FAULTY_QUERIES)
def test_a_faulty_query(case, refused):
    query, parameter, code, meant = FAULTY_QUERIES[case]
    document = refused("GET", f"/tasks?{query}", 400)
    assert document["code"] == "invalid-query"
    fault = only_fault(document)
    if parameter:
        assert fault["parameter"] == parameter
    if code:
        assert fault["code"] == code
    if meant:
        assert f'Did you mean "{meant}"?' in fault["detail"]


@pytest.mark.parametrize("query", ["name=%FF", "name=%ED%A0%80", "%FF=x", "name=%C3"])
def test_a_query_that_is_not_utf_8(query, refused):
    assert "UTF-8" in refused("GET", f"/tasks?{query}", 400)["detail"]


def test_every_fault_of_a_query_is_told_at_once(refused):
    document = refused(
        "GET", "/tasks?asignee=x&sort=x&include=y&fields=z&limit=0&priority=w&cursor=v&due_date[$q]=1", 400
    )
    expected = ["asignee", "cursor", "due_date[$q]", "fields", "include", "limit", "priority", "sort"]
    assert sorted(places(document)) == expected


def test_limits_of_a_query(api, refused):
    leaves = [{"name": str(number)} for number in range(201)]
    assert codes(refused("POST", "/tasks/query", 400, json={"filter": {"$or": leaves}})) == ["too_many"]
    assert api.post("/v1/tasks/query", json={"filter": {"$or": leaves[1:]}}).status_code == 200
    query = "&".join(f"$or[{number}][name]=x" for number in range(201))
    assert codes(refused("GET", f"/tasks?{query}", 400)) == ["too_many"]
    assert "400" in refused("GET", f"/tasks?{'&'.join(['name=x'] * 401)}", 400)["detail"]

    deep: dict[str, Any] = {"name": "x"}
    for _ in range(4):
        deep = {"$not": deep}
    assert api.post("/v1/tasks/query", json={"filter": deep}).status_code == 200, "5 levels"
    assert codes(refused("POST", "/tasks/query", 400, json={"filter": {"$not": deep}})) == ["too_deep"]

    keys = "name,status,priority,start_date,due_date,completed_at,position,estimate,created_at"
    assert codes(refused("GET", f"/tasks?sort={keys}", 400)) == ["too_many"]
    assert api.get("/v1/tasks", params={"sort": keys.rpartition(",")[0]}).status_code == 200

    relations = "assignee,project,parent,workspace,subtasks,comments,blocked_by,created_by"
    assert codes(refused("GET", f"/tasks?include={relations},project.members", 400)) == ["too_many"]
    assert api.get("/v1/tasks", params={"include": relations}).status_code == 200

    values = [str(number) for number in range(1001)]
    assert codes(refused("POST", "/tasks/query", 400, json={"filter": {"labels": {"$in": values}}})) == ["too_many"]


QUERY_BODIES = {
    "an unknown member": ({"filtre": {}}, "/filtre", "unknown_field", "filter"),
    "a filter of a member": ({"assignee": "me"}, "/assignee", "unknown_field", ""),
    "a filter that is a text": ({"filter": "name=x"}, "/filter", "wrong_type", ""),
    "an unknown filter": ({"filter": {"asignee": "me"}}, "/filter/asignee", "unknown_parameter", "assignee"),
    "an unknown operator": ({"filter": {"name": {"$equals": 1}}}, "/filter/name/$equals", "unknown_operator", ""),
    "one in a group": (
        {"filter": {"$or": [{"name": "x"}, {"a/b": 1}]}}, "/filter/$or/1/a~1b", "unknown_parameter", ""),
    "a day that does not exist": (
        {"filter": {"due_date": {"$gt": "2024-02-30"}}}, "/filter/due_date/$gt", "invalid_date", ""),
    "a number for a day": ({"filter": {"due_date": 5}}, "/filter/due_date", "wrong_type", ""),
    "an object for a value": ({"filter": {"priority": {"$in": [{}]}}}, "/filter/priority/$in", "wrong_type", ""),
    "a sort key that is none": ({"sort": "nmae"}, "/sort", "unknown_sort", "name"),
    "a sort key that is a number": ({"sort": [5]}, "/sort", "wrong_type", ""),
    "a limit that is a text": ({"limit": "abc"}, "/limit", "out_of_range", ""),
    "a limit of 1.5": ({"limit": 1.5}, "/limit", "out_of_range", ""),
    "a limit that is true": ({"limit": True}, "/limit", "out_of_range", ""),
    "an include that is none": ({"include": ["asignee"]}, "/include", "unknown_include", "assignee"),
    "a member that is none": ({"fields": ["nmae"]}, "/fields", "unknown_field", "name"),
    "a search for an object": ({"q": {"a": 1}}, "/q", "wrong_type", ""),
    "a cursor that is none": ({"cursor": "abc"}, "/cursor", "invalid_cursor", ""),
    "a cursor that is a number": ({"cursor": 5}, "/cursor", "invalid_cursor", ""),
    "a count of maybe": ({"count": "maybe"}, "/count", "wrong_type", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", QUERY_BODIES)
@pytest.mark.parametrize("method, path", [("QUERY", "/tasks"), ("POST", "/tasks/query")])
def test_a_faulty_query_in_a_body(case, method, path, refused):
    body, pointer, code, meant = QUERY_BODIES[case]
    fault = only_fault(refused(method, path, 400, json=body))
    assert (fault["pointer"], fault["code"]) == (pointer, code)
    assert not meant or f'Did you mean "{meant}"?' in fault["detail"]


def test_a_query_needs_its_body_in_the_body(refused):
    refused("POST", "/tasks/query", 400)
    document = refused("POST", "/tasks/query?limit=5", 400, json={})
    assert places(document) == ["limit"]


def test_a_cursor_is_bound_to_its_query(api, refused, a_project):
    for number in range(3):
        create(api, "tasks", name=str(number), project_id=a_project["id"])
    where = f"project_id={a_project['id']}&limit=1"
    cursor = httpx2.URL(api.get(f"/v1/tasks?{where}").links["next"]["url"]).params["cursor"]
    for more in ("", "&fields=name", "&include=project"):
        assert [task["name"] for task in api.get(f"/v1/tasks?{where}&cursor={cursor}{more}").json()] == ["1"]
    for other in (f"/tasks?{where}&sort=name", f"/tasks?{where}&q=x", "/tasks?limit=1", f"/tasks?{where}&deleted=true"):
        document = refused("GET", f"{other}&cursor={cursor}", 400)
        assert (places(document), codes(document)) == (["cursor"], ["cursor_of_another_query"])
    assert codes(refused("GET", f"/projects?cursor={cursor}", 400)) == ["cursor_of_another_query"]
    for forged in (
        cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB"),
        cursor[1:],
        cursor + "A",
        cursor[:8],
        signing.seal(b"a secret of somebody else, of any length", b'["x",1]'),
    ):
        assert codes(refused("GET", f"/tasks?{where}&cursor={forged}", 400)) == ["invalid_cursor"]


def test_single_objects_take_include_and_fields_only(refused, a_task):
    path = f"/tasks/{a_task['id']}"
    for query, place in (("incldue=project", "incldue"), ("limit=1", "limit"), ("fields=x", "fields")):
        for method, options in (("GET", {}), ("PATCH", {"json": {"name": "x"}})):
            assert places(refused(method, f"{path}?{query}", 400, **options)) == [place]
    for method, target in (("DELETE", path), ("POST", "/tasks/bulk")):
        extra: dict[str, Any] = {"json": {"tasks": []}} if method == "POST" else {}
        assert places(refused(method, f"{target}?force=true", 400, **extra)) == ["force"]


# ---- paths -----------------------------------------------------------------------------------------------------------

STRANGE_IDS = [
    "task_", "1", "-1", "%00", "a%00b", "%FF", "%ED%A0%80", "%F0%9F%98%80", "..%2F..%2Fetc%2Fpasswd", "'%20OR%201=1--",
    "%25", "*", "me", "null", "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE_IDS, ids=[name[:20] for name in STRANGE_IDS])
def test_a_strange_id_is_not_found(name, refused, a_project):
    for method, path, options in (
        ("GET", f"/tasks/{name}", {}),
        ("PATCH", f"/tasks/{name}", {"json": {"name": "x"}}),
        ("DELETE", f"/tasks/{name}", {}),
        ("POST", f"/tasks/{name}/complete", {}),
        ("GET", f"/users/{name}", {}),
        ("GET", f"/api-keys/{name}", {}),
        ("GET", f"/projects/{name}/members", {}),
        ("DELETE", f"/projects/{a_project['id']}/members/{name}", {}),
    ):
        if path in ("/users/me", f"/projects/{a_project['id']}/members/me"):
            continue  # where people are meant, this is somebody
        document = refused(method, path, 404, **options)
        assert len(document["detail"]) < 400


def test_an_id_of_another_kind_is_not_found(refused, a_task, a_project):
    refused("GET", f"/tasks/{a_project['id']}", 404)
    refused("GET", f"/projects/{a_task['id']}", 404)
    refused("DELETE", f"/comments/{a_task['id']}", 404)


def test_what_lies_in_the_trash_is_gone_but_says_where_it_is(api, refused, a_task):
    path = f"/tasks/{a_task['id']}"
    api.delete(f"/v1{path}")
    assert f"/v1{path}/restore" in refused("GET", path, 404)["detail"]
    refused("PATCH", path, 404, json={"name": "x"})
    refused("DELETE", path, 404)
    refused("POST", "/comments", 422, json={"task_id": a_task["id"], "body": "x"})
    assert codes(refused("POST", "/tasks", 409, json={"name": "x", "id": a_task["id"]})) == ["id_in_use"]


def test_no_answer_tells_about_the_inside(api):
    for path in ("/tasks?name='", "/tasks?sort=t.doc", "/tasks?q=%22%20OR%201", "/tasks?custom_fields.a'b=1"):
        response = api.get(f"/v1{path}")
        assert response.status_code == 200 or problem(response, 400)
        assert not re.search(r"select|sqlite|psycopg|traceback|\.py\b", response.text, re.IGNORECASE)
