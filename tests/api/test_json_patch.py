"""JSON Patch (RFC 6902): every operation, and what it may not do.

Why beside the merge patch: it can test, append to a list and remove one element, which a merge patch cannot say.
"""

import json
from typing import Any

import httpx2
import pytest

from tests.api.asking import codes, create, places, problem

TYPE = {"Content-Type": "application/json-patch+json"}


@pytest.fixture
def task(api, a_project):
    return create(
        api,
        "tasks",
        name="Draft",
        project_id=a_project["id"],
        labels=["a", "b", "c"],
        due_date="2030-01-01",
        custom_fields={"hours": 8, "area": "web", "flag": True, "list": ["x", "y"]},
    )


def send(api: httpx2.Client, task: Any, *operations: Any, **headers: str) -> httpx2.Response:
    return api.patch(f"/v1/tasks/{task['id']}", content=json.dumps(operations), headers={**TYPE, **headers})


def changed(api: httpx2.Client, task: Any, *operations: Any) -> dict[str, Any]:
    """What differs afterwards, without what every change touches."""
    response = send(api, task, *operations)
    assert response.status_code == 200, response.text
    after = response.json()
    assert after == api.get(f"/v1/tasks/{task['id']}").json()
    assert response.headers["etag"] == f'"{after["version"]}"'
    return {name: after[name] for name in after if after[name] != task[name] and name not in ("version", "updated_at")}


def refused(api: httpx2.Client, task: Any, status: int, *operations: Any) -> Any:
    document = problem(send(api, task, *operations), status)
    assert api.get(f"/v1/tasks/{task['id']}").json() == task, "nothing was written"
    return document


FIELDS = {"hours": 8, "area": "web", "flag": True, "list": ["x", "y"]}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in FIELDS.items() if name not in names}


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "replace": ([{"op": "replace", "path": "/name", "value": "New"}], {"name": "New"}),
    "replace by null": ([{"op": "replace", "path": "/due_date", "value": None}], {"due_date": None}),
    "remove": ([{"op": "remove", "path": "/due_date"}], {"due_date": None}),
    "add": ([{"op": "add", "path": "/priority", "value": "high"}], {"priority": "high"}),
    "append": ([{"op": "add", "path": "/labels/-", "value": "d"}], {"labels": ["a", "b", "c", "d"]}),
    "insert": ([{"op": "add", "path": "/labels/1", "value": "d"}], {"labels": ["a", "d", "b", "c"]}),
    "remove an element": ([{"op": "remove", "path": "/labels/1"}], {"labels": ["a", "c"]}),
    "replace an element": ([{"op": "replace", "path": "/labels/0", "value": "z"}], {"labels": ["z", "b", "c"]}),
    "move an element": ([{"op": "move", "from": "/labels/2", "path": "/labels/0"}], {"labels": ["c", "a", "b"]}),
    "add a custom field": (
        [{"op": "add", "path": "/custom_fields/new", "value": 1}], {"custom_fields": {**FIELDS, "new": 1}},
    ),
    "remove a custom field": ([{"op": "remove", "path": "/custom_fields/hours"}], {"custom_fields": without("hours")}),
    "replace all custom fields": (
        [{"op": "replace", "path": "/custom_fields", "value": {"only": 1}}], {"custom_fields": {"only": 1}},
    ),
    "clear all custom fields": ([{"op": "replace", "path": "/custom_fields", "value": {}}], {"custom_fields": {}}),
    "move a custom field": (
        [{"op": "move", "from": "/custom_fields/hours", "path": "/estimate"}],
        {"estimate": 8, "custom_fields": without("hours")},
    ),
    "copy": ([{"op": "copy", "from": "/name", "path": "/description"}], {"description": "Draft"}),
    "an element of a custom field": (
        [{"op": "add", "path": "/custom_fields/list/-", "value": "z"}],
        {"custom_fields": {**FIELDS, "list": ["x", "y", "z"]}},
    ),
    "a test that holds": (
        [{"op": "test", "path": "/labels", "value": ["a", "b", "c"]},
         {"op": "replace", "path": "/name", "value": "New"}],
        {"name": "New"},
    ),
    "a test of an object": (
        [{"op": "test", "path": "/custom_fields", "value": dict(reversed(FIELDS.items()))},
         {"op": "remove", "path": "/labels/0"}],
        {"labels": ["b", "c"]},
    ),
    "each sees the one before": (
        [{"op": "replace", "path": "/name", "value": "A"}, {"op": "copy", "from": "/name", "path": "/description"},
         {"op": "replace", "path": "/name", "value": "B"}, {"op": "test", "path": "/description", "value": "A"}],
        {"name": "B", "description": "A"},
    ),
    "there and back": (
        [{"op": "replace", "path": "/name", "value": "A"}, {"op": "replace", "path": "/name", "value": "Draft"}], {},
    ),
    "nothing": ([], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operations(case, api, task):
    operations, expected = CASES[case]
    found = changed(api, task, *operations)
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize("case", ["there and back", "nothing"])
def test_a_change_of_nothing_is_none(case, api, task, heads):
    before = heads()
    assert send(api, task, *CASES[case][0]).headers["etag"] == '"1"'
    assert heads() == before


@pytest.mark.parametrize("value", ["Other", None, 1, ["Draft"], "draft"])
def test_a_test_that_fails(value, api, task, heads):
    before = heads()
    operations = [{"op": "remove", "path": "/due_date"}, {"op": "test", "path": "/name", "value": value}]
    document = refused(api, task, 409, *operations)
    assert (document["code"], codes(document), places(document)) == ("conflict", ["test_failed"], ["/1"])
    assert heads() == before


def test_a_test_tells_true_from_one(api, task):
    refused(api, task, 409, {"op": "test", "path": "/custom_fields/flag", "value": 1})
    refused(api, task, 409, {"op": "test", "path": "/version", "value": True})


def test_a_test_of_the_version_is_like_if_match(api, task):
    rename = {"op": "replace", "path": "/name", "value": "New"}
    refused(api, task, 409, {"op": "test", "path": "/version", "value": 2}, rename)
    assert changed(api, task, {"op": "test", "path": "/version", "value": 1}, rename) == {"name": "New"}
    problem(send(api, task, rename, **{"If-Match": '"1"'}), 412)


READ_ONLY = {
    "replace the id": {"op": "replace", "path": "/id", "value": "task_00000000000000000000000000"},
    "remove the id": {"op": "remove", "path": "/id"},
    "the version": {"op": "replace", "path": "/version", "value": 99},
    "a time": {"op": "replace", "path": "/created_at", "value": "2030-01-01T00:00:00.000Z"},
    "the end": {"op": "add", "path": "/completed_at", "value": "2030-01-01T00:00:00.000Z"},
    "move it away": {"op": "move", "from": "/created_by", "path": "/description"},
}


@pytest.mark.parametrize("case", READ_ONLY)
def test_what_only_the_server_sets(case, api, task):
    """Unlike in a merge patch, where it may be a copy of what was read: here somebody asks for that very change."""
    document = refused(api, task, 422, READ_ONLY[case])
    assert "read_only" in codes(document)
    assert set(places(document)) <= {f"/{name}" for name in task}


WRONG: dict[str, Any] = {
    "no such place": {"op": "remove", "path": "/custom_fields/none"},
    "no such element": {"op": "replace", "path": "/labels/3", "value": "x"},
    "an element after the end": {"op": "add", "path": "/labels/4", "value": "x"},
    "a number with a leading zero": {"op": "remove", "path": "/labels/01"},
    "the place behind the last": {"op": "remove", "path": "/labels/-"},
    "below a text": {"op": "add", "path": "/name/x", "value": 1},
    "below null": {"op": "add", "path": "/description/x", "value": 1},
    "below a number": {"op": "add", "path": "/version/x", "value": 1},
    "no pointer": {"op": "remove", "path": "name"},
    "a bad escape": {"op": "remove", "path": "/custom_fields/are~2"},
    "an unknown operation": {"op": "rename", "path": "/name", "value": "x"},
    "no operation": {"path": "/name", "value": "x"},
    "no path": {"op": "remove"},
    "no value": {"op": "add", "path": "/name"},
    "no from": {"op": "move", "path": "/name"},
    "from nowhere": {"op": "copy", "from": "/nothing", "path": "/name"},
    "into itself": {"op": "move", "from": "/custom_fields", "path": "/custom_fields/below"},
    "path is no text": {"op": "remove", "path": 1},
    "path is a list": {"op": "remove", "path": ["name"]},
    "from is no text": {"op": "copy", "from": {}, "path": "/name"},
    "op is a list": {"op": [], "path": "/name"},
    "a text": "remove /name",
    "a list": ["remove", "/name"],
    "null": None,
    "everything away": {"op": "remove", "path": ""},
    "a list instead": {"op": "replace", "path": "", "value": []},
    "null instead": {"op": "replace", "path": "", "value": None},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_operation_or_cannot_be_done(case, api, task):
    document = refused(api, task, 422, {"op": "replace", "path": "/name", "value": "New"}, WRONG[case])
    assert document["code"] == "validation-failed"


RULES = {
    "a required member": ({"op": "remove", "path": "/name"}, "/name"),
    "a wrong type": ({"op": "replace", "path": "/labels", "value": "x"}, "/labels"),
    "an unknown member": ({"op": "add", "path": "/asignee", "value": "me"}, "/asignee"),
    "an unknown person": ({"op": "add", "path": "/assignee", "value": "nobody"}, "/assignee"),
    "a wrong choice": ({"op": "add", "path": "/priority", "value": "hgih"}, "/priority"),
}


@pytest.mark.parametrize("case", RULES)
def test_the_same_rules_as_for_a_merge_patch(case, api, task):
    operation, place = RULES[case]
    assert places(refused(api, task, 422, operation)) == [place]


def test_copies_cannot_grow_without_bound(api, task):
    """Thirty doublings would be a billion copies."""
    double = [{"op": "copy", "from": "/custom_fields", "path": f"/custom_fields/a{level}"} for level in range(30)]
    document = refused(api, task, 422, {"op": "add", "path": "/custom_fields/x", "value": ["x" * 100] * 10}, *double)
    assert codes(document) == ["invalid_operation"]
    assert "copies too much" in document["detail"]


def test_nor_can_depth(api, task):
    deep: Any = {}
    for _ in range(28):
        deep = {"a": deep}
    operations = [
        {"op": "add", "path": "/custom_fields/x" + "/a" * (28 * level), "value": deep} for level in range(120)
    ]
    refused(api, task, 422, *operations)


def test_at_most_a_thousand_operations(api, task):
    one = {"op": "test", "path": "/name", "value": "Draft"}
    assert changed(api, task, *[one] * 1000) == {}
    refused(api, task, 422, *[one] * 1001)


@pytest.mark.parametrize("body", ["{}", '"x"', "1", "null", '{"op": "remove", "path": "/name"}'])
def test_a_patch_is_an_array(body, api, task):
    problem(api.patch(f"/v1/tasks/{task['id']}", content=body, headers=TYPE), 400)


def test_only_patch_takes_it(api, task):
    operations = json.dumps([{"op": "replace", "path": "/name", "value": "New"}])
    for method, path in (("PUT", f"tasks/{task['id']}"), ("POST", "tasks"), ("PATCH", "tasks/bulk")):
        problem(api.request(method, f"/v1/{path}", content=operations, headers=TYPE), 415)


KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "projects": ({"name": "x", "fields": [{"key": "a", "name": "A", "type": "text"}]},
                 {"op": "replace", "path": "/fields/0/name", "value": "B"}),
    "workspaces": ({"name": "x", "settings": {"a": {"b": 1}}}, {"op": "add", "path": "/settings/a/c", "value": 2}),
    "workspaces with odd names": (
        {"name": "x", "settings": {"a/b": {"m~n": 1, "": 2}}}, {"op": "remove", "path": "/settings/a~1b/m~0n"},
    ),
    "templates": ({"name": "x", "tasks": [{"name": "a"}]},
                  {"op": "add", "path": "/tasks/-", "value": {"name": "b"}}),
    "api-keys": ({"name": "x", "scopes": ["tasks:read", "projects:read"]}, {"op": "remove", "path": "/scopes/0"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_resource_takes_it(kind, api):

    body, operation = KINDS[kind]
    path = kind.partition(" ")[0]
    made = create(api, path, **body)
    response = api.patch(f"/v1/{path}/{made['id']}", content=json.dumps([operation]), headers=TYPE)
    assert response.status_code == 200, response.text
    after = response.json()
    if kind == "projects":
        assert [field["name"] for field in after["fields"]] == ["B"]
    elif kind == "workspaces":
        assert after["settings"] == {"a": {"b": 1, "c": 2}}
    elif kind == "workspaces with odd names":
        assert after["settings"] == {"a/b": {"": 2}}
    elif kind == "templates":
        assert [task["name"] for task in after["tasks"]] == ["a", "b"]
    else:
        assert len(after["scopes"]) == 1


def test_it_needs_the_right_to_write(as_viewer, outsider, task):
    rename = {"op": "replace", "path": "/name", "value": "New"}
    problem(send(as_viewer, task, rename), 403)
    problem(send(outsider, task, {"op": "test", "path": "/name", "value": "Draft"}), 404)


def test_in_a_batch_a_patch_is_a_merge_patch(api, task):
    operation = {"method": "PATCH", "path": f"/tasks/{task['id']}", "body": [{"op": "remove", "path": "/name"}]}
    problem(api.post("/v1/batch", json={"operations": [operation]}), 422, "batch-failed")
