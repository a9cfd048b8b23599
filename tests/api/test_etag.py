"""Versions: what a reader has is not sent again, and what a writer has not seen is not written over.

Why the tag is the version: a client can compare, store and quote it, and it is the same on every server process.
"""

import itertools

import pytest

from tests.api.asking import create, listed, problem


@pytest.fixture
def everything(api, me, a_project, a_task, invite):
    """The paths of one object of each kind."""
    comment = create(api, "comments", task_id=a_task["id"], body="x")
    template = create(api, "templates", name="x")
    workspace = create(api, "workspaces", name="x")
    key = create(api, "api-keys", name="x")
    return {
        "tasks": f"/v1/tasks/{a_task['id']}",
        "projects": f"/v1/projects/{a_project['id']}",
        "comments": f"/v1/comments/{comment['id']}",
        "templates": f"/v1/templates/{template['id']}",
        "workspaces": f"/v1/workspaces/{workspace['id']}",
        "users": f"/v1/users/{invite('member').id}",
        "api-keys": f"/v1/api-keys/{key['id']}",
    }


NUMBERS = itertools.count(1)


def change_of(kind):
    """A body that changes an object of a kind to something new."""
    return {"body" if kind == "comments" else "name": f"Change {next(NUMBERS)}"}


def with_tag(tag):
    return {"If-Match": tag}


KINDS = ("tasks", "projects", "comments", "templates", "workspaces", "users", "api-keys")


@pytest.mark.parametrize("kind", KINDS)
def test_the_tag_is_the_version(kind, api, everything):
    path = everything[kind]
    read = api.get(path)
    assert read.headers["etag"] == f'"{read.json()["version"]}"'
    changed = api.patch(path, json=change_of(kind))
    assert changed.json()["version"] == read.json()["version"] + 1
    assert changed.headers["etag"] == f'"{changed.json()["version"]}"' == api.get(path).headers["etag"]


def test_what_is_created_has_a_tag(api, a_project):
    for resource, body in (("tasks", {"name": "x"}), ("projects", {"name": "x"}), ("api-keys", {"name": "x"})):
        response = api.post(f"/v1/{resource}", json=body)
        assert response.headers["etag"] == f'"{response.json()["version"]}"' == '"1"'


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_has_is_not_sent_again(kind, api, everything):
    path = everything[kind]
    tag = api.get(path).headers["etag"]
    for header in (tag, f"W/{tag}", f'"0", {tag}', f'"0",W/{tag},"9"', "*"):
        for method in ("GET", "HEAD"):
            response = api.request(method, path, headers={"If-None-Match": header})
            assert (response.status_code, response.content) == (304, b""), header
            assert response.headers["etag"] == tag
            assert "content-type" not in response.headers
    for header in ('"0"', "x", '""', tag.strip('"') + "0"):
        assert api.get(path, headers={"If-None-Match": header}).status_code == 200, header
    api.patch(path, json=change_of(kind))
    assert api.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_an_include_makes_another_tag(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    plain, params = api.get(path), {"include": "project"}
    expanded = api.get(path, params=params)
    tag = expanded.headers["etag"]
    assert tag != plain.headers["etag"]
    assert api.get(path, params=params, headers={"If-None-Match": tag}).status_code == 304
    assert api.get(path, params=params, headers={"If-None-Match": plain.headers["etag"]}).status_code == 200
    assert api.get(path, params={"fields": "id"}).headers["etag"] not in (tag, plain.headers["etag"])
    api.patch(f"/v1/projects/{a_task['project_id']}", json={"name": "Renamed"})
    again = api.get(path, params=params, headers={"If-None-Match": tag})
    assert (again.status_code, again.json()["project"]["name"]) == (200, "Renamed")
    changed = api.patch(path, json={"name": "Changed"}, headers=with_tag(again.headers["etag"]))
    assert changed.status_code == 200, "the task itself is what the writer has seen"
    problem(api.patch(path, json={"name": "x"}, headers=with_tag(again.headers["etag"])), 412)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_what_one_has_not_seen_is_not_written_over(kind, method, api, everything, heads, invite):
    path = everything[kind]
    if (kind, method) == ("users", "DELETE"):
        path = f"/v1/users/{invite('guest').id}"
    options = {} if method == "DELETE" else {"json": change_of(kind)}
    seen = api.get(path).headers["etag"]
    api.patch(path, json=change_of(kind))
    before, current = heads(), api.get(path)
    for header in (seen, f'"0", {seen}', "x", '""'):
        response = api.request(method, path, headers=with_tag(header), **options)
        document = problem(response, 412, "precondition-failed")
        assert response.headers["etag"] == current.headers["etag"]
        assert document["current"] == current.json()
    assert heads() == before
    done = api.request(method, path, headers=with_tag(f'"0", {current.headers["etag"]}'), **options)
    assert done.status_code == (204 if method == "DELETE" else 200)


def test_any_version_will_do(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    for header in ("*", 'W/"2"'):
        assert api.patch(path, json=change_of("tasks"), headers=with_tag(header)).status_code == 200
    problem(api.patch(f"{path}0", json={"name": "x"}, headers=with_tag("*")), 404)


VERBS = {
    "complete": {}, "reopen": {}, "move": {"parent_id": None}, "archive": {}, "unarchive": {}, "restore": {},
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_look_at_the_version_too(verb, api, everything, heads):
    path = everything["projects" if "archive" in verb else "tasks"]
    if verb == "restore":
        api.delete(path)
    if verb in ("reopen", "unarchive"):
        api.post(f"{path}/{'complete' if verb == 'reopen' else 'archive'}")
    before = heads()
    refused = problem(api.post(f"{path}/{verb}", json=VERBS[verb], headers=with_tag('"99"')), 412)
    assert heads() == before
    tag = f'"{refused["current"]["version"]}"'
    assert api.post(f"{path}/{verb}", json=VERBS[verb], headers=with_tag(tag)).status_code == 200


def test_members_have_versions_of_their_own(api, a_project, a_member):
    members = f"/v1/projects/{a_project['id']}/members"
    for name in ("a", "b", "c"):
        api.patch(f"/v1/projects/{a_project['id']}", json={"name": name})
    added = api.post(members, json={"user": a_member.id, "role": "viewer"})
    assert added.headers["etag"] == '"1"', "while the project is at version 4"
    path = f"{members}/{a_member.id}"
    changed = api.patch(path, json={"role": "editor"}, headers=with_tag('"1"'))
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    for response in (
        api.patch(path, json={"role": "viewer"}, headers=with_tag('"1"')),
        api.delete(path, headers=with_tag('"4"')),
    ):
        assert problem(response, 412)["current"]["role"] == "editor"
    assert api.delete(path, headers=with_tag('"2"')).status_code == 204


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["*", '"1"'])
def test_a_request_about_no_single_object_refuses_both(api, a_task, heads, header, value):
    before = heads()
    for method, path, body in (
        ("PATCH", "tasks/bulk", {"ids": [a_task["id"]], "set": {"name": "x"}}),
        ("PATCH", "tasks/bulk", {"tasks": [{"id": a_task["id"], "name": "x"}]}),
        ("POST", "tasks/bulk", {"tasks": [{"name": "x"}]}),
        ("DELETE", "tasks/bulk", {"ids": [a_task["id"]]}),
        ("POST", "tasks", {"name": "x"}),
        ("POST", "batch", {"operations": [{"method": "POST", "path": "/tasks", "body": {"name": "x"}}]}),
    ):
        refused = problem(api.request(method, f"/v1/{path}", json=body, headers={header: value}), 400)
        assert [(issue["code"], issue["parameter"]) for issue in refused["errors"]] == [("not_allowed", header)]
    assert heads() == before


def test_if_none_match_forbids_a_write(api, a_task, heads):
    path, tag = f"/v1/tasks/{a_task['id']}", '"1"'
    before = heads()
    for header in ("*", tag, f'"5", {tag}'):
        for method in ("PUT", "PATCH", "DELETE"):
            options = {} if method == "DELETE" else {"json": {"name": "x"}}
            problem(api.request(method, path, headers={"If-None-Match": header}, **options), 412)
    assert heads() == before
    changed = api.patch(path, json={"name": "x"}, headers={"If-None-Match": '"2"'})
    assert (changed.status_code, changed.json()["version"]) == (200, 2), "the tag after the write does not count"


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_nothing_is_none(kind, api, everything, heads):
    path = everything[kind]
    read, before = api.get(path), heads()
    same = {name: read.json()[name] for name in change_of(kind)}
    for method, body in (("PATCH", {}), ("PATCH", same), ("PUT", same), ("PATCH", read.json())):
        response = api.request(method, path, json=body)
        assert (response.status_code, response.headers["etag"]) == (200, read.headers["etag"])
        assert "commit-seq" not in response.headers
    assert heads() == before
    assert api.get(path).json()["updated_at"] == read.json()["updated_at"]


def test_verbs_that_change_nothing(api, everything, heads):
    task, project = everything["tasks"], everything["projects"]
    for path, verb, body in ((task, "reopen", {}), (project, "unarchive", {}), (task, "move", {"parent_id": None})):
        before = heads()
        assert api.post(f"{path}/{verb}", json=body).headers["etag"] == '"1"'
        assert heads() == before
    api.post(f"{task}/complete")
    before, completed = heads(), api.get(task).json()
    assert api.post(f"{task}/complete").json() == completed
    assert heads() == before


def test_of_two_writers_with_the_same_version_one_wins(api, as_member, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    answers = [
        client.patch(path, json={"name": name}, headers=with_tag('"1"')).status_code
        for client, name in ((api, "Mine"), (as_member, "Theirs"))
    ]
    assert answers == [200, 412]
    assert listed(api, "tasks", id=a_task["id"])[0]["name"] == "Mine"
