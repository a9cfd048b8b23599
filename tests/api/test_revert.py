"""Undo: what is reverted is as it was, by the same rules and rights as any change, or not touched at all.

Why random: an integration that goes wild does everything in any order; whatever it did, its undoing has to give back
every document, and the undoing of the undoing what the integration had made.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, places, problem

PASSING = ("version", "updated_at")


@pytest.fixture
def wild(server, api):
    """A key of the owner that goes wild: its client and its id."""
    key = create(api, "api-keys", name="An integration")
    with server.client(key["secret"]) as client:
        yield client, key["id"]


def revert(client, expected=200, dry_run=False, **body):
    response = client.post("/v1/events/revert", json=body, params={"dry_run": "true"} if dry_run else {})
    assert response.status_code == expected, response.text
    return response.json()


def request_of(response):
    assert response.status_code < 300, response.text
    return response.headers["x-request-id"]


def newest(api, object_id, kind=""):
    """The newest event about an object."""
    found = listed(api, "events", object_id=object_id, order="desc", **({"types": kind} if kind else {}))
    return found[0]


def kept(document):
    return {name: value for name, value in document.items() if name not in PASSING}


class Place:
    """A workspace, everything that is in it, and random changes of that."""

    def __init__(self, api, people, seed):
        self.api, self.chance = api, random.Random(seed)
        self.workspace = create(api, "workspaces", name="A place")["id"]
        self.people = people
        for person in people:
            create(api, f"workspaces/{self.workspace}/members", user=person)
        self.projects = [
            create(api, "projects", name=name, workspace_id=self.workspace, fields=[{"key": "size", "type": "number"}])[
                "id"
            ]
            for name in ("One", "Two")
        ]
        self.tasks: list[str] = []
        self.comments: list[str] = []
        self.templates = [create(api, "templates", name="Mine", workspace_id=self.workspace)["id"]]
        for _ in range(40):
            self.change(api, calm=True)

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind in ("projects", "tasks", "comments", "templates"):
            for item in listed(self.api, kind, workspace_id=self.workspace, limit=1000):
                found[item["id"]] = kept(item)
        for place in (
            f"workspaces/{self.workspace}",
            *(f"projects/{name}" for name in found if name.startswith("proj_")),
        ):
            members = listed(self.api, f"{place}/members", limit=1000)
            found[place] = sorted((item["user"], item["role"]) for item in members)
        found["workspace"] = kept(self.api.get(f"/v1/workspaces/{self.workspace}").json())
        return found

    def do(self, client, method, path, **body):
        response = client.request(method, f"/v1/{path}", **({"json": body} if body else {}))
        assert response.status_code < 500, response.text
        return response.json()["id"] if response.status_code == 201 else ""

    def change(self, client, *, calm: bool = False) -> None:
        pick: Any = self.chance.choice
        actions = [self.task, self.task, self.patch, self.patch, self.move, self.comment, self.finish]
        pick(
            actions
            if calm
            else [*actions, *actions, self.trash, self.trash, self.project, self.project, self.member, self.other]
        )(client)

    def task(self, client):
        more = {}
        if self.tasks and self.chance.randrange(3) == 0:
            more = {"parent_id": self.chance.choice(self.tasks)}
        else:
            more = {"project_id": self.chance.choice(self.projects)}
        made = self.do(client, "POST", "tasks", name=str(self.chance.random()), **more)
        self.tasks += [made] if made else []

    def patch(self, client):
        pick: Any = self.chance.choice
        body = pick(
            [
                {"name": str(self.chance.random())},
                {"labels": pick([[], ["a"], ["a", "b"]])},
                {"assignee": pick(self.people)},
                {"assignee": None},
                {"custom_fields": {pick("abc"): pick([1, "x", None])}},
                {"custom_fields": {"size": pick([1, 2, None])}},
                {"due_date": pick([None, "2024-05-01"])},
                {"recurrence": pick([None, "FREQ=DAILY"])},
                {"blocked_by": [pick(self.tasks)]} if self.tasks else {},
                {"status": pick(["pending", "completed", "extra"])},
                {"priority": "high", "description": "x", "estimate": 3},
            ]
        )
        if self.tasks and body:
            self.do(client, "PATCH", f"tasks/{pick(self.tasks)}", **body)

    def move(self, client):
        pick: Any = self.chance.choice
        if self.tasks:
            place = pick(
                [
                    {"project_id": pick(self.projects)},
                    {"parent_id": None},
                    {"parent_id": pick(self.tasks)},
                    {"after": pick(self.tasks)},
                ]
            )
            self.do(client, "POST", f"tasks/{pick(self.tasks)}/move", **place)

    def finish(self, client):
        if self.tasks:
            self.do(
                client, "POST", f"tasks/{self.chance.choice(self.tasks)}/{self.chance.choice(['complete', 'reopen'])}"
            )

    def comment(self, client):
        pick: Any = self.chance.choice
        if self.comments and pick([True, False]):
            self.do(client, "PATCH", f"comments/{pick(self.comments)}", body=str(self.chance.random()))
        elif self.tasks:
            made = self.do(client, "POST", "comments", task_id=pick(self.tasks), body="x")
            self.comments += [made] if made else []

    def trash(self, client):
        pick: Any = self.chance.choice
        kind = pick(["tasks", "tasks", "comments", "projects"])
        if names := getattr(self, kind):
            self.do(client, *pick([("DELETE", f"{kind}/{pick(names)}"), ("POST", f"{kind}/{pick(names)}/restore")]))

    def project(self, client):
        pick: Any = self.chance.choice
        extra = [{"key": "pending", "category": "todo"}, {"key": "completed", "category": "done"}]
        body = pick(
            [
                {"name": str(self.chance.random())},
                {"statuses": extra},
                {"statuses": [*extra, {"key": "extra", "category": "doing"}]},
                {"custom_fields": {pick("ab"): pick([1, None])}},
                {"color": pick(["red", None]), "description": "x"},
                {},
            ]
        )
        if body:
            self.do(client, "PATCH", f"projects/{pick(self.projects)}", **body)
        elif pick([True, False]):
            self.do(client, "POST", f"projects/{pick(self.projects)}/{pick(['archive', 'unarchive'])}")
        else:
            made = self.do(
                client,
                "POST",
                "projects",
                name="New",
                workspace_id=self.workspace,
                members=self.people,
                template_id=pick([None, *self.templates]),
            )
            self.projects += [made] if made else []

    def member(self, client):
        pick: Any = self.chance.choice
        place = pick([f"workspaces/{self.workspace}/members", f"projects/{pick(self.projects)}/members"])
        role = pick(["guest", "member"]) if place.startswith("w") else pick(["viewer", "editor"])
        self.do(
            client,
            *pick([("POST", place), ("DELETE", f"{place}/{pick(self.people)}")]),
            user=pick(self.people),
            role=role,
        )

    def other(self, client):
        pick: Any = self.chance.choice
        if pick([True, False]):
            self.do(
                client,
                "PATCH",
                f"workspaces/{self.workspace}",
                settings={pick("ab"): pick([1, {"x": 1}, {"y": 2}])},
                name=str(self.chance.random()),
            )
        else:
            self.do(client, "PATCH", f"templates/{pick(self.templates)}", name=str(self.chance.random()))


@pytest.mark.parametrize("seed", range(3))
def test_everything_that_a_key_did_is_undone_and_so_is_the_undoing(api, wild, invite, seed):
    client, key = wild
    place = Place(api, [invite("member").id, invite("member").id], seed)
    before = place.everything()
    for _ in range(60):
        place.change(client)
    after = place.everything()
    assert after != before
    preview = revert(api, dry_run=True, api_key_id=key, since="-1h")
    assert place.everything() == after, "a preview changes nothing"
    response = api.post("/v1/events/revert", json={"api_key_id": key, "since": "-1h"})
    assert response.status_code == 200, response.text
    assert place.everything() == before
    done = response.json()
    assert done["reverted"] == preview["reverted"]
    assert [change["type"] for change in done["changes"]] == [change["type"] for change in preview["changes"]]
    revert(api, request_id=request_of(response))
    assert place.everything() == after


# ---- one change ------------------------------------------------------------------------------------------------------


def undo(client, event, expected=200):
    response = client.post(f"/v1/events/{event['id']}/revert")
    assert response.status_code == expected, response.text
    return response.json()


def test_an_update_is_undone_member_by_member(api, as_member, a_task, expect_events):
    path = f"/v1/tasks/{a_task['id']}"
    api.patch(path, json={"name": "WRONG", "labels": ["x"], "custom_fields": {"a": 1}})
    event = newest(api, a_task["id"])
    as_member.patch(path, json={"priority": "high", "custom_fields": {"b": 2}})
    with expect_events("task.updated") as seen:
        done = undo(api, event)
    assert done["reverted"] == [event["id"]]
    assert done["changes"][0]["previous"]["name"] == "WRONG"
    task = api.get(path).json()
    assert (task["name"], task["labels"], task["custom_fields"]) == (a_task["name"], [], {"b": 2})
    assert task["priority"] == "high", "what others changed stays"
    assert seen[0].origin == f'{{"type":"revert","event_id":"{event["id"]}"}}'


def test_completing_and_reopening_are_undone_with_their_times_and_events(api, a_task, expect_events):
    path = f"/v1/tasks/{a_task['id']}"
    api.patch(path, json={"recurrence": "FREQ=DAILY", "due_date": "2024-01-15"})
    before = kept(api.get(path).json())
    completing = api.post(f"{path}/complete")
    with expect_events("task.updated", "task.reopened", "task.deleted"):
        revert(api, request_id=request_of(completing))
    assert kept(api.get(path).json()) == before, "and its successor is gone"
    api.patch(path, json={"recurrence": None})
    completed = kept(api.post(f"{path}/complete").json())
    reopening = api.post(f"{path}/reopen")
    with expect_events("task.updated", "task.completed"):
        revert(api, request_id=request_of(reopening))
    assert kept(api.get(path).json()) == completed


def test_a_narrower_event_stands_for_its_change(api, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    api.post(f"{path}/complete")
    undo(api, newest(api, a_task["id"], "task.completed"))
    assert kept(api.get(path).json()) == kept(a_task)


@pytest.mark.parametrize("resource", ["projects", "tasks", "templates", "workspaces", "users"])
def test_creation_and_deletion_are_undone(api, a_project, resource):
    inside = {"tasks": {"project_id": a_project["id"]}, "users": {"email": f"{ids.new('user')}@example.com"}}
    made = create(api, resource, name="x", **inside.get(resource, {}))
    path = f"/v1/{resource}/{made['id']}"
    place = {"workspace_id": made["workspace_id"]}

    def of(kind):
        name = f"{resource[:-1]}.{kind}"
        return listed(api, "events", object_id=made["id"], types=name, order="desc", **place)[0]

    creation = of("created")
    undo(api, creation)
    problem(api.get(path), 404)
    if resource == "workspaces":
        return  # its log is out of sight now
    undo(api, of("deleted"))
    assert api.get(path).json()["name"] == "x"
    api.delete(path)
    undo(api, of("deleted"))
    undo(api, of("restored"))
    problem(api.get(path), 404)


def test_members_archiving_and_keys(api, a_project, a_member):
    path = f"projects/{a_project['id']}"
    create(api, f"{path}/members", user=a_member.id, role="viewer")
    member = listed(api, f"{path}/members")[-1]["id"]
    api.patch(f"/v1/{path}/members/{a_member.id}", json={"role": "editor"})
    undo(api, newest(api, member))
    assert listed(api, f"{path}/members")[-1]["role"] == "viewer"
    api.delete(f"/v1/{path}/members/{a_member.id}")
    undo(api, newest(api, member))
    assert [(one["user"], one["role"]) for one in listed(api, f"{path}/members")][-1] == (a_member.id, "viewer")
    archived = api.post(f"/v1/{path}/archive").json()
    api.post(f"/v1/{path}/unarchive")
    undo(api, newest(api, a_project["id"], "project.updated"))
    assert kept(api.get(f"/v1/{path}").json()) == kept(archived)
    key = create(api, "api-keys", name="x")
    api.patch(f"/v1/api-keys/{key['id']}", json={"name": "y", "scopes": ["tasks:read"]})
    undo(api, newest(api, key["id"]))
    assert api.get(f"/v1/api-keys/{key['id']}").json()["scopes"] == ["*"]


def test_a_membership_that_others_changed_is_in_the_way(api, a_project, a_member):
    path = f"projects/{a_project['id']}/members"
    create(api, path, user=a_member.id, role="viewer")
    member = listed(api, path)[-1]["id"]
    added = newest(api, member)
    api.patch(f"/v1/{path}/{a_member.id}", json={"role": "editor"})
    assert undo(api, added, 409)["conflicts"][0]["member"] == "role"


def test_a_removed_member_is_let_in_again_though_nobody_sees_them_any_more(api, invite):
    workspace = create(api, "workspaces", name="x")["id"]
    stranger = invite("owner", workspace_id=workspace)
    elsewhere = create(stranger.client, "workspaces", name="theirs")["id"]
    response = api.delete(f"/v1/workspaces/{workspace}/members/{stranger.id}")
    assert stranger.client.get(f"/v1/workspaces/{workspace}").status_code == 404
    revert(api, request_id=request_of(response))
    assert stranger.client.get(f"/v1/workspaces/{workspace}").status_code == 200
    assert elsewhere


def test_a_project_from_a_template_goes_with_what_came_along(api):
    template = listed(api, "templates", limit=1)[0]["id"]
    project = create(api, "projects", name="x", template_id=template)["id"]
    tasks = listed(api, "tasks", project_id=project)
    undo(api, newest(api, project))
    problem(api.get(f"/v1/projects/{project}"), 404)
    undo(api, newest(api, project))
    assert len(listed(api, "tasks", project_id=project)) == len(tasks) > 1


# ---- what stands in the way ------------------------------------------------------------------------------------------


def test_later_changes_of_the_same_member_conflict(api, as_member, a_task, heads):
    path = f"/v1/tasks/{a_task['id']}"
    api.patch(path, json={"name": "WRONG", "estimate": 3})
    wrong = newest(api, a_task["id"])
    as_member.patch(path, json={"name": "Mended"})
    mended = newest(api, a_task["id"])
    before = heads()
    response = api.post(f"/v1/events/{wrong['id']}/revert")
    assert problem(response, 409, "revert-conflict")["conflicts"] == [
        {
            "resource": "task",
            "object_id": a_task["id"],
            "member": "name",
            "event_id": wrong["id"],
            "later_event_id": mended["id"],
        }
    ]
    assert heads() == before
    revert(api, event_ids=[wrong["id"], mended["id"]])
    assert kept(api.get(path).json()) == kept(a_task)


def test_nothing_is_lost_to_somebody_who_changes_it_at_the_same_moment(server, api, a_project):
    """Either the undoing sees the change and refuses, or the change comes after it."""
    tasks = [{"name": f"Task {n}"} for n in range(40)]
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
    chosen = [task["id"] for task in made]

    def hurry(name: str) -> None:
        with server.client() as client:
            for task in reversed(chosen):
                assert client.patch(f"/v1/tasks/{task}", json={"name": name}).status_code == 200

    with ThreadPoolExecutor(1) as pool:
        for n in range(5):
            wrong = api.request("PATCH", "/v1/tasks/bulk", json={"ids": chosen, "set": {"name": f"WRONG {n}"}})
            other = pool.submit(hurry, f"Right {n}")
            undone = api.post("/v1/events/revert", json={"request_id": request_of(wrong)})
            other.result()
            assert undone.status_code in (200, 409), undone.text
            found = listed(api, "tasks", project_id=a_project["id"])
            assert {task["name"] for task in found} == {f"Right {n}"}


def test_custom_fields_conflict_key_by_key(api, as_member, a_task):
    path = f"/v1/tasks/{a_task['id']}"
    api.patch(path, json={"custom_fields": {"a": 1}})
    wrong = newest(api, a_task["id"])
    as_member.patch(path, json={"custom_fields": {"a": 2}})
    assert undo(api, wrong, 409)["conflicts"][0]["member"] == "custom_fields.a"


def test_undoing_twice_conflicts_with_the_undoing(api, a_task):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "WRONG"})
    wrong = newest(api, a_task["id"])
    undo(api, wrong)
    assert undo(api, wrong, 409)["conflicts"][0]["later_event_id"] == newest(api, a_task["id"])["id"]


def test_what_others_changed_or_put_inside_keeps_something_new(api, as_member, a_project):
    made = api.post("/v1/tasks", json={"name": "x", "project_id": a_project["id"]})
    task = made.json()["id"]
    comment = create(as_member, "comments", task_id=task, body="Mine")["id"]
    conflict = revert(api, 409, request_id=request_of(made))["conflicts"][0]
    assert (conflict["object_id"], conflict["later_event_id"]) == (task, newest(api, comment)["id"])
    as_member.delete(f"/v1/comments/{comment}")
    as_member.patch(f"/v1/tasks/{task}", json={"name": "Better"})
    assert revert(api, 409, request_id=request_of(made))["conflicts"][0]["member"] == "name"


def test_what_was_deleted_since_is_in_the_way_of_old_values(api, a_task):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "WRONG"})
    wrong = newest(api, a_task["id"])
    api.delete(f"/v1/tasks/{a_task['id']}")
    assert undo(api, wrong, 409)["conflicts"][0]["member"] == "deleted_at"


def test_the_rules_of_a_change_by_hand_hold(api, as_member, a_project, a_task):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"status": "in_progress"})
    event = newest(api, a_task["id"])
    statuses = [{"key": "in_progress", "category": "todo"}, {"key": "done", "category": "done"}]
    assert as_member.patch(f"/v1/projects/{a_project['id']}", json={"statuses": statuses}).status_code == 200
    refused = problem(api.post(f"/v1/events/{event['id']}/revert"), 422, "validation-failed")
    assert codes(refused) == ["unknown_status"]
    assert places(refused) == [f"/{a_task['id']}/status"]


def test_some_things_nobody_can_undo(api):
    key = create(api, "api-keys", name="x")["id"]
    api.delete(f"/v1/api-keys/{key}")
    refused = problem(api.post(f"/v1/events/{newest(api, key)['id']}/revert"), 422, "not-revertible")
    assert "secret" in refused["detail"]


# ---- who may ---------------------------------------------------------------------------------------------------------


def test_it_takes_the_right_to_make_the_change_by_hand(api, as_viewer, outsider, key_with, a_task, a_member):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "WRONG"})
    wrong = newest(api, a_task["id"])
    problem(as_viewer.post(f"/v1/events/{wrong['id']}/revert"), 403, "forbidden")
    problem(outsider.post(f"/v1/events/{wrong['id']}/revert"), 404)
    refused = problem(key_with(["tasks:read"]).post(f"/v1/events/{wrong['id']}/revert"), 403, "forbidden")
    assert "tasks:write" in refused["detail"]
    comment = create(api, "comments", task_id=a_task["id"], body="x")["id"]
    api.patch(f"/v1/comments/{comment}", json={"body": "y"})
    problem(a_member.client.post(f"/v1/events/{newest(api, comment)['id']}/revert"), 403)


def test_half_of_a_request_is_not_undone(api, as_member, a_project):
    secret = create(api, "projects", name="Secret", visibility="private")["id"]
    operations = [
        {"method": "POST", "path": "/tasks", "body": {"name": "x", "project_id": where}}
        for where in (a_project["id"], secret)
    ]
    done = api.post("/v1/batch", json={"operations": operations})
    problem(as_member.post("/v1/events/revert", json={"request_id": request_of(done)}), 403, "forbidden")
    revert(api, request_id=request_of(done))


def test_what_is_not_there_cannot_be_undone(api, outsider):
    for name in (ids.new("evt"), "evt_x", "x"):
        problem(api.post(f"/v1/events/{name}/revert"), 404, "not-found")
    for body in (
        {"request_id": ids.new("req")},
        {"event_ids": [ids.new("evt")]},
        {"api_key_id": ids.new("key"), "since": "-1h"},
    ):
        problem(api.post("/v1/events/revert", json=body), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({}, "", "required"),
        ({"request_id": "req_x"}, "/request_id", "invalid_format"),
        ({"request_id": 1}, "/request_id", "invalid_format"),
        ({"requestid": "x"}, "/requestid", "unknown_field"),
        ({"request_id": ids.new("req"), "event_ids": []}, "", "required"),
        ({"request_id": ids.new("req"), "since": "-1h"}, "/since", "not_allowed"),
        ({"event_ids": []}, "/event_ids", "wrong_type"),
        ({"event_ids": ["x"] * 1001}, "/event_ids", "wrong_type"),
        ({"event_ids": [1]}, "/event_ids", "wrong_type"),
        ({"api_key_id": ids.new("key")}, "/since", "required"),
        ({"api_key_id": ids.new("key"), "since": "soon"}, "/since", "invalid_format"),
        ({"api_key_id": ids.new("key"), "since": "2999-01-01"}, "/since", "invalid_format"),
        ({"api_key_id": ids.new("key"), "since": 5}, "/since", "invalid_format"),
        ({"api_key_id": "x", "since": "-1h"}, "/api_key_id", "invalid_format"),
        ({"api_key_id": ids.new("key"), "since": "-1h", "workspace_id": "ws_x"}, "/workspace_id", "unknown_reference"),
    ],
)
def test_what_is_wrong_is_named(api, body, place, code):
    refused = problem(api.post("/v1/events/revert", json=body), 422, "validation-failed")
    assert (places(refused)[0], codes(refused)[0]) == (place, code)


def test_bodies_that_are_none(api, a_task):
    problem(api.post("/v1/events/revert"), 400, "malformed-request")
    problem(api.post(f"/v1/events/{newest(api, a_task['id'])['id']}/revert", json={"a": 1}), 422)
    problem(api.post("/v1/events/revert", json={"event_ids": []}, params={"x": "1"}), 400)


# ---- many ------------------------------------------------------------------------------------------------------------


def test_a_request_with_a_thousand_tasks_is_undone_at_once_and_more_are_refused(api, wild, a_project):
    client, key = wild
    for _ in range(2):
        tasks = [{"name": str(n)} for n in range(600)]
        made = client.post("/v1/tasks/bulk", json={"project_id": a_project["id"], "tasks": tasks})
    refused = problem(api.post("/v1/events/revert", json={"api_key_id": key, "since": "-1h"}), 422)
    assert codes(refused) == ["too_many"]
    done = revert(api, request_id=request_of(made))
    assert len(done["reverted"]) == len(done["changes"]) == 600
    assert len(listed(api, "tasks", project_id=a_project["id"], limit=1000)) == 600


def test_a_batch_is_undone_as_a_whole(api, a_project, a_task):
    operations = [
        {"id": "p", "method": "POST", "path": "/projects", "body": {"name": "New"}},
        {"id": "t", "method": "POST", "path": "/tasks", "body": {"name": "New", "project_id": {"$ref": "p.id"}}},
        {"method": "POST", "path": f"/tasks/{a_task['id']}/move", "body": {"project_id": {"$ref": "p.id"}}},
        {"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"parent_id": {"$ref": "t.id"}, "name": "x"}},
        {"method": "DELETE", "path": f"/projects/{a_project['id']}"},
    ]
    done = api.post("/v1/batch", json={"operations": operations})
    after = kept(api.get(f"/v1/tasks/{a_task['id']}").json())
    undone = api.post("/v1/events/revert", json={"request_id": request_of(done)})
    assert kept(api.get(f"/v1/tasks/{a_task['id']}").json()) == kept(a_task)
    assert api.get(f"/v1/projects/{a_project['id']}").status_code == 200
    revert(api, request_id=request_of(undone))
    assert kept(api.get(f"/v1/tasks/{a_task['id']}").json()) == after


def test_what_is_new_leaves_a_status_before_it_goes(api, a_project, a_task):
    """And what was there before has its own status again before another one goes."""
    before = kept(api.get(f"/v1/projects/{a_project['id']}").json())
    statuses = [*a_project["statuses"], {"key": "extra", "name": "Extra", "category": "doing"}]
    task = {"name": "New", "project_id": a_project["id"], "status": "extra"}
    operations = [
        {"method": "PATCH", "path": f"/projects/{a_project['id']}", "body": {"statuses": statuses}},
        {"method": "POST", "path": "/tasks", "body": task},
        {"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"status": "extra"}},
        {"method": "PATCH", "path": f"/projects/{a_project['id']}", "body": {"statuses": statuses[1:]}},
    ]
    done = api.post("/v1/batch", json={"operations": operations})
    revert(api, request_id=request_of(done))
    assert kept(api.get(f"/v1/projects/{a_project['id']}").json()) == before
    assert [kept(item) for item in listed(api, "tasks", project_id=a_project["id"])] == [kept(a_task)]


def test_sent_twice_with_a_key_it_is_done_once(api, a_task):
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "WRONG"})
    path, headers = f"/v1/events/{newest(api, a_task['id'])['id']}/revert", {"Idempotency-Key": ids.new("req")}
    first = api.post(path, headers=headers)
    again = api.post(path, headers=headers)
    assert (first.status_code, again.status_code, first.text) == (200, 200, again.text)


def test_a_time_span(api, wild, a_project):
    client, key = wild
    one = create(client, "tasks", name="one", project_id=a_project["id"])
    two = create(client, "tasks", name="two", project_id=a_project["id"])
    assert revert(api, api_key_id=key, since="-1h", until="-1m") == {"reverted": [], "changes": []}
    if one["created_at"] != two["created_at"]:
        done = revert(api, api_key_id=key, since=two["created_at"], workspace_id=two["workspace_id"])
        assert [change["object_id"] for change in done["changes"]] == [two["id"]]
