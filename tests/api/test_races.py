"""Two requests at once may do together what one after the other could do, and nothing else, on both databases.

Why a gate: on PostgreSQL every change of a workspace ends with a lock of the same row. A test that holds this row lets
all requests come as far as they come without it, past everything that they read too early, before the first of them is
done. What would be a lucky hit otherwise happens each time. SQLite lets one request write at a time, so there the same
requests are only sent at once.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg
import pytest
from taskade_server.domain import soundness

from tests.api.asking import create, listed, names

Call = Callable[[], httpx2.Response]
ATTEMPTS = 2
TODO, DOING, DONE = ({"key": key, "category": key} for key in ("todo", "doing", "done"))


@contextmanager
def gate(url: str, workspace: str, count: int, done: list[Any]) -> Iterator[None]:
    """Hold back the ends of all changes of a workspace until so many requests wait for something, or are done."""
    with psycopg.connect(url) as connection, connection.transaction():
        connection.execute("SELECT seq FROM log_heads WHERE workspace_id = %s FOR UPDATE", (workspace,))
        yield
        waiting = (
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        # A server takes so many changes at a time: the others wait for their turn, and come after the gate has opened.
        seen, same = 0, 0
        while seen < count and same < 25:
            (found,) = connection.execute(waiting).fetchone() or (0,)
            same = same + 1 if found and found + len(done) == seen else 0
            seen = found + len(done)
            time.sleep(0.02)


@pytest.fixture
def at_once(server, home):
    """Sends requests at the same moment; returns the answers in order."""

    def run(*calls: Call, workspace: str = home) -> list[httpx2.Response]:
        done: list[int] = []
        start = threading.Barrier(len(calls) + 1)

        def one(call: Call) -> httpx2.Response:
            start.wait()
            try:
                return call()
            finally:
                done.append(1)

        with ThreadPoolExecutor(len(calls)) as threads:
            answers = [threads.submit(one, call) for call in calls]
            if server.database_url:
                with gate(server.database_url, workspace, len(calls), done):
                    start.wait()
            else:
                start.wait()
            return [answer.result() for answer in answers]

    return run


@pytest.fixture(autouse=True)
def sound(database_of):
    """Whatever the requests did, no rule of the domain is broken afterwards."""
    before = set(database_of.read_sync(soundness.broken))
    yield
    assert set(database_of.read_sync(soundness.broken)) <= before


def statuses(answers: list[httpx2.Response]) -> list[int]:
    """The statuses of answers, lowest first; none may be a fault of the server."""
    found = sorted(answer.status_code for answer in answers)
    assert all(status < 500 for status in found), [answer.text for answer in answers]
    return found


def patch(api, kind, thing, **body) -> Call:
    return lambda: api.patch(f"/v1/{kind}/{thing['id']}", json=body)


def post(api, path, **body) -> Call:
    return lambda: api.post(f"/v1/{path}", json=body)


def delete(api, path) -> Call:
    return lambda: api.delete(f"/v1/{path}")


def some(api, project, count):
    return create(api, "tasks/bulk", project_id=project["id"], tasks=[{"name": str(n)} for n in range(count)])


# ---- blockers and parents --------------------------------------------------------------------------------------------


def blocking(api, task, blocker, how) -> Call:
    body = {"blocked_by": [blocker["id"]]}
    if how == "bulk":
        return lambda: api.patch("/v1/tasks/bulk", json={"ids": [task["id"]], "set": body})
    if how == "batch":
        operation = {"method": "PATCH", "path": f"/tasks/{task['id']}", "body": body}
        return post(api, "batch", operations=[operation])
    if how == "JSON Patch":
        change = [{"op": "add", "path": "/blocked_by/-", "value": blocker["id"]}]
        headers = {"Content-Type": "application/json-patch+json"}
        return lambda: api.request("PATCH", f"/v1/tasks/{task['id']}", json=change, headers=headers)
    return patch(api, "tasks", task, **body)


@pytest.mark.parametrize("how", ["PATCH", "bulk", "batch", "JSON Patch"])
@pytest.mark.parametrize("count", [2, 3])
def test_tasks_do_not_come_to_block_each_other_in_a_circle(api, at_once, a_project, how, count):
    for _ in range(ATTEMPTS):
        tasks = some(api, a_project, count)
        calls = [blocking(api, task, tasks[place - 1], how) for place, task in enumerate(tasks)]
        assert statuses(at_once(*calls)) == [200] * (count - 1) + [422]


@pytest.mark.parametrize("count", [2, 3])
def test_tasks_do_not_come_to_lie_below_each_other(api, at_once, a_project, count):
    for _ in range(ATTEMPTS):
        tasks = some(api, a_project, count)
        calls = [
            post(api, f"tasks/{task['id']}/move", parent_id=tasks[place - 1]["id"]) for place, task in enumerate(tasks)
        ]
        assert statuses(at_once(*calls)) == [200] * (count - 1) + [422]


def a_chain(api, project, length):
    found = [create(api, "tasks", name="1", project_id=project["id"])]
    while len(found) < length:
        found.append(create(api, "tasks", name="x", parent_id=found[-1]["id"]))
    return found


def test_what_is_made_and_what_is_moved_at_once_is_no_deeper_than_allowed(api, at_once, a_project):
    upper, lower = a_chain(api, a_project, 10), a_chain(api, a_project, 10)
    calls = [
        post(api, f"tasks/{lower[0]['id']}/move", parent_id=upper[-1]["id"]),
        post(api, "tasks", name="made", parent_id=lower[-1]["id"]),
    ]
    assert statuses(at_once(*calls)) in ([200, 422], [201, 422])


def test_what_is_restored_and_what_is_moved_at_once_is_no_deeper_than_allowed(api, at_once, a_project):
    upper, lower = a_chain(api, a_project, 10), a_chain(api, a_project, 10)
    gone = create(api, "tasks", name="gone", parent_id=lower[-1]["id"])
    api.delete(f"/v1/tasks/{gone['id']}")
    calls = [
        post(api, f"tasks/{lower[0]['id']}/move", parent_id=upper[-1]["id"]),
        post(api, f"tasks/{gone['id']}/restore"),
    ]
    assert statuses(at_once(*calls)) in ([200, 422], [200, 409])


def test_what_is_moved_in_two_places_at_once_is_no_deeper_than_allowed(api, at_once, a_project):
    one, two, three = (a_chain(api, a_project, 8) for _ in range(3))
    calls = [
        post(api, f"tasks/{two[0]['id']}/move", parent_id=one[-1]["id"]),
        post(api, f"tasks/{three[0]['id']}/move", parent_id=two[-1]["id"]),
    ]
    assert statuses(at_once(*calls)) == [200, 422]


# ---- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_tasks_that_are_moved_to_one_place_have_positions_of_their_own(api, at_once, a_project, count):
    for _ in range(ATTEMPTS):
        first, *tasks = some(api, a_project, count + 1)
        calls = [post(api, f"tasks/{task['id']}/move", before=first["id"]) for task in tasks]
        assert statuses(at_once(*calls)) == [200] * count


def test_tasks_that_ask_for_one_position_get_their_own(api, at_once, a_project):
    one, two = some(api, a_project, 2)
    elsewhere = some(api, create(api, "projects", name="x"), 1)[0]
    assert patch(api, "tasks", elsewhere, position="b")().status_code == 200
    gone = create(api, "tasks", name="gone", project_id=a_project["id"], position="b")
    api.delete(f"/v1/tasks/{gone['id']}")
    operation = {"method": "PATCH", "path": f"/tasks/{two['id']}", "body": {"position": "b"}}
    calls = [
        post(api, "tasks", name="x", project_id=a_project["id"], position="b"),
        post(api, "tasks/bulk", tasks=[{"name": "x", "project_id": a_project["id"], "position": "b"}] * 2),
        patch(api, "tasks", one, position="b"),
        patch(api, "tasks", elsewhere, project_id=a_project["id"]),
        post(api, f"tasks/{gone['id']}/restore"),
        post(api, "batch", operations=[operation]),
    ]
    assert max(statuses(at_once(*calls))) == 201
    found = listed(api, "tasks", project_id=a_project["id"])
    assert len(found) == 7
    assert max(Counter(task["position"] for task in found).values()) == 1


def test_neighbours_get_new_positions_while_they_are_changed(api, at_once, a_project):
    low, high = "b" * 199 + "b", "b" * 199 + "c"
    entries = [{"name": "a", "position": low}, {"name": "b", "position": high}, {"name": "c"}]
    first, last, third = create(api, "tasks/bulk", project_id=a_project["id"], tasks=entries)
    calls = [
        post(api, f"tasks/{third['id']}/move", after=first["id"]),
        patch(api, "tasks", first, name="a changed"),
        patch(api, "tasks", last, name="b changed"),
    ]
    for answer in at_once(*calls):
        # The one between whose neighbours there is no room may find both of them in use, and says so.
        assert answer.status_code in (200, 409), answer.text
    act = api.post(f"/v1/tasks/{third['id']}/move", json={"after": first["id"]})
    assert act.status_code == 200
    assert names(api, "tasks", project_id=a_project["id"], sort="position") == ["a changed", "c", "b changed"]


# ---- projects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["created", "changed", "restored", "moved"])
def test_no_task_is_left_in_a_status_that_is_removed(api, at_once, way):
    for _ in range(ATTEMPTS):
        project = create(api, "projects", name="x", statuses=[TODO, DOING, DONE])
        other = create(api, "projects", name="y", statuses=[TODO, DOING, DONE])
        task = create(api, "tasks", name="x", project_id=(other if way == "moved" else project)["id"])
        calls = {
            "created": post(api, "tasks", name="x", project_id=project["id"], status="doing"),
            "changed": patch(api, "tasks", task, status="doing"),
            "restored": post(api, f"tasks/{task['id']}/restore"),
            "moved": patch(api, "tasks", task, project_id=project["id"], status="doing"),
        }
        if way == "restored":
            patch(api, "tasks", task, status="doing")()
            api.delete(f"/v1/tasks/{task['id']}")
        at_once(calls[way], patch(api, "projects", project, statuses=[TODO, DONE]))
        (found,) = listed(api, "tasks", project_id=project["id"], limit=1, sort="-created_at") or [{"status": "todo"}]
        keys = [entry["key"] for entry in api.get(f"/v1/projects/{project['id']}").json()["statuses"]]
        assert found["status"] in keys


@pytest.mark.parametrize("what", ["a task", "a bulk", "a moved task", "a comment", "a subtask", "a restored task"])
def test_nothing_live_is_left_in_what_is_deleted(api, at_once, what):
    for _ in range(ATTEMPTS):
        project, other = create(api, "projects", name="x"), create(api, "projects", name="y")
        task = create(api, "tasks", name="x", project_id=project["id"])
        elsewhere = create(api, "tasks", name="x", project_id=other["id"])
        below = create(api, "tasks", name="x", parent_id=task["id"])
        container = f"projects/{project['id']}"
        calls = {
            "a task": post(api, "tasks", name="x", project_id=project["id"]),
            "a bulk": post(api, "tasks/bulk", project_id=project["id"], tasks=[{"name": "x"}] * 3),
            "a moved task": post(api, f"tasks/{elsewhere['id']}/move", project_id=project["id"]),
            "a comment": post(api, "comments", task_id=task["id"], body="x"),
            "a subtask": post(api, "tasks", name="x", parent_id=task["id"]),
            "a restored task": post(api, f"tasks/{below['id']}/restore"),
        }
        if what in ("a comment", "a subtask", "a restored task"):
            container = f"tasks/{task['id']}"
        if what == "a restored task":
            api.delete(f"/v1/tasks/{below['id']}")
        statuses(at_once(calls[what], delete(api, container)))
        assert listed(api, "tasks", project_id=project["id"], parent_id=task["id"]) == []


def test_a_project_is_made_from_a_template_or_the_template_is_gone(api, at_once):
    for _ in range(ATTEMPTS):
        template = create(api, "templates", name="x", tasks=[{"name": "one"}])
        found = at_once(
            post(api, "projects", name="x", template_id=template["id"]), delete(api, f"templates/{template['id']}")
        )
        assert statuses(found) in ([201, 204], [204, 422])


def test_a_series_goes_on_once_however_often_its_task_is_completed(api, at_once, a_project):
    rule = {"due_date": "2030-01-01", "recurrence": "FREQ=DAILY;COUNT=3"}
    task = create(api, "tasks", name="x", project_id=a_project["id"], **rule)
    assert statuses(at_once(*[post(api, f"tasks/{task['id']}/complete")] * 4)) == [200] * 4
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert following["recurrence"] == "FREQ=DAILY;COUNT=2"


# ---- people ----------------------------------------------------------------------------------------------------------


def test_everybody_has_one_inbox(api, at_once, invite, home):
    for _ in range(ATTEMPTS):
        bob = invite("member")
        assert statuses(at_once(*[post(bob.client, "tasks", name="x")] * 3)) == [201] * 3
        assert len({task["project_id"] for task in listed(bob.client, "tasks", created_by=bob.id)}) == 1
        first = listed(bob.client, "tasks", created_by=bob.id)[0]["project_id"]
        bob.client.delete(f"/v1/projects/{first}")
        statuses(at_once(post(bob.client, "tasks", name="y"), post(bob.client, f"projects/{first}/restore")))
        bob.client.delete(f"/v1/workspaces/{home}/members/me")
        create(api, f"workspaces/{home}/members", user=bob.id, role="member")
        assert statuses(at_once(*[post(bob.client, "tasks", name="z")] * 3)) == [201] * 3


def test_a_workspace_keeps_an_owner_when_all_of_them_leave_at_once(api, at_once, invite):
    workspace = create(api, "workspaces", name="x")["id"]
    other = invite("owner", workspace_id=workspace)
    path = f"workspaces/{workspace}/members/me"
    answers = at_once(delete(api, path), delete(other.client, path), workspace=workspace)
    assert statuses(answers) == [204, 409]


@pytest.mark.parametrize("member", ["email", "handle"])
def test_two_people_do_not_share_a_name(api, at_once, invite, member):
    for attempt in range(ATTEMPTS):
        value = f"twin{attempt}-{member}"
        body = (
            {"name": "Twin", "email": f"{value}@example.com"}
            if member == "email"
            else {"name": "Twin", "handle": value, "kind": "service"}
        )
        assert statuses(at_once(*[post(api, "users", **body)] * 3)) == [201, 409, 409]
        one, two = invite("member"), invite("member")
        change = {member: f"{value}-2@example.com" if member == "email" else f"{value}-2"}
        calls = [patch(person.client, "users", {"id": person.id}, **change) for person in (one, two)]
        assert statuses(at_once(*calls)) == [200, 409]


def test_somebody_who_leaves_the_workspace_is_no_member_of_its_projects(api, at_once, invite, home, a_project):
    for _ in range(ATTEMPTS):
        bob = invite("member")
        calls = [
            post(api, f"projects/{a_project['id']}/members", user=bob.id, role="viewer"),
            delete(bob.client, f"workspaces/{home}/members/me"),
        ]
        statuses(at_once(*calls))
        members = [one["user"] for one in listed(api, f"projects/{a_project['id']}/members")]
        assert bob.id not in members


def test_one_person_becomes_a_member_once(api, at_once, invite, a_project):
    bob = invite("member")
    calls = [
        post(api, f"projects/{a_project['id']}/members", user=bob.id, role=role)
        for role in ("viewer", "editor", "viewer")
    ]
    assert statuses(at_once(*calls))[0] == 201
    assert [one["user"] for one in listed(api, f"projects/{a_project['id']}/members")].count(bob.id) == 1


def test_a_workspace_has_no_more_webhooks_than_it_may(api, at_once):
    workspace = create(api, "workspaces", name="x")["id"]
    body = {"url": "https://example.com/hooks", "events": ["task.*"], "workspace_id": workspace}
    for _ in range(199):
        create(api, "webhooks", **body)
    answers = at_once(*[post(api, "webhooks", **body)] * 3, workspace=workspace)
    assert statuses(answers) == [201, 422, 422]
