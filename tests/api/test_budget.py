"""Every request has one budget of work, whatever it is made of: what exceeds it is refused whole, with advice.

Why nothing here looks at a clock: work is counted, so that a busy machine refuses neither more nor less.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import httpx2
import pytest
from taskade_server.domain.projects import MAX_TEMPLATE_TASKS, TEMPLATE
from taskade_server.engine import edit, log
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import ids
from taskade_server.kit.budget import WRITE
from taskade_server.store.database import Database

from tests.api.asking import codes, create, listed, places, problem
from tests.support.server import Server

GROWS = "\ufdfa"
"""One character that becomes eighteen when it is normalised."""
RARE = "FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO"
"""A day that comes every 28 years, searched for week by week."""


def too_much(answer: httpx2.Response) -> Any:
    assert answer.status_code == 422, answer.text[:500]
    found = answer.json()
    assert found["code"] == "too-much-work", found
    assert "nothing was written" in found["detail"] and "parts" in found["detail"]
    return found


def batch(client: httpx2.Client, *operations: tuple[str, str, Any], **headers: str) -> httpx2.Response:
    listed = [{"method": method, "path": path, "body": body} for method, path, body in operations]
    return client.post("/v1/batch", json={"operations": listed}, headers=headers)


def bulk(client: httpx2.Client, project: str, count: int, **members: Any) -> list[str]:
    """The ids of so many new tasks."""
    made: list[str] = []
    for start in range(0, count, 1000):
        tasks = [{"name": f"Task {n}", **members} for n in range(start, min(count, start + 1000))]
        made += [task["id"] for task in create(client, "tasks/bulk", project_id=project, tasks=tasks)]
    return made


# ---- what has to go on working ---------------------------------------------------------------------------------------


def test_a_bulk_request_of_a_thousand_tasks_fits(api, a_project):
    tasks = [
        {"name": f"Task {n}", "labels": ["a", "b"], "description": "A few words. " * 10, "custom_fields": {"size": n}}
        for n in range(1000)
    ]
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
    chosen = [task["id"] for task in made]
    changed = api.patch("/v1/tasks/bulk", json={"ids": chosen, "set": {"priority": "high", "labels": ["c"]}})
    assert changed.status_code == 200, changed.text[:500]
    gone = api.request("DELETE", "/v1/tasks/bulk", json={"filter": {"project_id": a_project["id"]}})
    assert gone.status_code == 200 and len(gone.json()) == 1000


def test_a_batch_of_a_thousand_changes_fits(api, a_project):
    operations = [("POST", "/tasks", {"name": f"Task {n}", "project_id": a_project["id"]}) for n in range(1000)]
    made = batch(api, *operations)
    assert made.status_code == 200, made.text[:500]
    chosen = [result["body"]["id"] for result in made.json()["results"]]
    changed = batch(api, *[("PATCH", f"/tasks/{name}", {"status": "completed"}) for name in chosen])
    assert changed.status_code == 200, changed.text[:500]


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_crowd(api: httpx2.Client) -> tuple[str, str]:
    """A task with as many subtasks as may go anywhere together, and its project."""
    project = create(api, "projects", name="Crowded")["id"]
    root = create(api, "tasks", name="Root", project_id=project)["id"]
    bulk(api, project, edit.MAX_TOGETHER - 1, parent_id=root)
    return root, project


def test_thousands_of_tasks_go_to_the_trash_together_and_come_back(api, a_crowd):
    root, project = a_crowd
    elsewhere = create(api, "projects", name="Elsewhere")["id"]
    for there in (elsewhere, project):
        assert api.post(f"/v1/tasks/{root}/move", json={"project_id": there}).status_code == 200
        assert api.get("/v1/tasks", params={"project_id": there, "limit": 1, "count": "true"}).headers[
            "total-count"
        ] == str(edit.MAX_TOGETHER)
    assert api.delete(f"/v1/tasks/{root}").status_code == 204
    assert api.post(f"/v1/tasks/{root}/restore").status_code == 200
    assert api.delete(f"/v1/projects/{project}").status_code == 204
    assert api.post(f"/v1/projects/{project}/restore").status_code == 200


def test_more_tasks_than_that_go_nowhere_and_the_refusal_says_how_to_go_on(api, a_crowd):
    root, project = a_crowd
    extra = bulk(api, project, 2, parent_id=root)
    elsewhere = create(api, "projects", name="Elsewhere")["id"]
    refused = [
        api.delete(f"/v1/tasks/{root}"),
        api.delete(f"/v1/projects/{project}"),
        api.post(f"/v1/tasks/{root}/move", json={"project_id": elsewhere}),
        api.patch(f"/v1/tasks/{root}", json={"project_id": elsewhere}),
        api.request("DELETE", "/v1/tasks/bulk", json={"ids": [root]}),
    ]
    for answer in refused:
        assert codes(problem(answer, 422)) == ["too_many"]
        assert "DELETE /tasks/bulk" in answer.json()["detail"]
    assert api.request("DELETE", "/v1/tasks/bulk", json={"ids": extra}).status_code == 200
    assert api.delete(f"/v1/tasks/{root}").status_code == 204, "in parts it goes"
    api.post(f"/v1/tasks/{root}/restore")


@pytest.mark.parametrize("turned", [False, True])
def test_what_one_request_deletes_comes_back_together_however_its_ids_were_ordered(api, a_project, turned):
    top = create(api, "tasks", name="Top", project_id=a_project["id"])["id"]
    middle = create(api, "tasks", name="Middle", project_id=a_project["id"], parent_id=top)["id"]
    low = create(api, "tasks", name="Low", project_id=a_project["id"], parent_id=middle)["id"]
    create(api, "comments", task_id=low, body="Below all")
    chosen = [low, top] if turned else [top, low]
    gone = api.request("DELETE", "/v1/tasks/bulk", json={"ids": chosen}).json()
    assert [task["id"] for task in gone] == chosen and all(task["deleted_at"] for task in gone)
    assert api.post(f"/v1/tasks/{top}/restore").status_code == 200
    assert {task["id"] for task in listed(api, "tasks", project_id=a_project["id"])} == {top, middle, low}
    assert [comment["body"] for comment in listed(api, "comments", task_id=low)] == ["Below all"]


# ---- templates -------------------------------------------------------------------------------------------------------


def tree(outer: int, inner: int) -> list[dict[str, Any]]:
    return [{"name": "t", "subtasks": [{"name": "s"}] * inner} for _ in range(outer)]


def test_the_tasks_of_a_template_are_counted_with_those_below_others(api):
    template = create(api, "templates", name="As large as may be", tasks=tree(20, 9))
    made = create(api, "projects", name="x", template_id=template["id"])["id"]
    assert len(listed(api, "tasks", project_id=made, limit=1000)) == MAX_TEMPLATE_TASKS
    for body in ({"tasks": tree(200, 60)}, {"tasks": [*tree(20, 9), {"name": "One more"}]}):
        for answer in (
            api.post("/v1/templates", json={"name": "Bomb", **body}),
            api.patch(f"/v1/templates/{template['id']}", json=body),
        ):
            assert codes(problem(answer, 422)) == ["too_many"] and places(problem(answer, 422)) == ["/tasks"]


def test_an_old_template_that_is_larger_makes_no_project(api, database_of: Database, me):
    template = create(api, "templates", name="Old", tasks=tree(2, 1))

    def grow(tx: Any) -> None:
        n, text = tx.one("SELECT n, doc FROM templates WHERE id = ?", (template["id"],))
        before = json.loads(text)
        after = {**before, "tasks": before["tasks"] * (MAX_TEMPLATE_TASKS // 2)}
        log.apply(tx, Actor(me["id"]), [Change(TEMPLATE, "updated", after, before, n)])

    database_of.write_sync(grow)
    answer = api.post("/v1/projects", json={"name": "x", "template_id": template["id"]})
    assert places(problem(answer, 422)) == ["/template_id"]
    assert "PATCH /templates" in answer.json()["detail"]


# ---- texts and values ------------------------------------------------------------------------------------------------


def test_a_text_that_grows_when_it_is_normalised_is_taken_alone_but_not_by_the_dozen(api, a_project):
    body = {"name": "t", "project_id": a_project["id"], "description": GROWS * 100_000}
    made = create(api, "tasks", **body)
    assert made["description"] == body["description"]
    too_much(batch(api, *[("POST", "/tasks", body)] * 10))
    for more in ({}, {"q": "\u0635\u0644\u0649"}):
        found = listed(api, "tasks", project_id=a_project["id"], fields="id", **more)
        assert found == [{"id": made["id"]}]


def test_names_that_grow_are_counted_as_well(api, a_project):
    tasks = [{"name": GROWS * 500}] * 500
    too_much(api.post("/v1/tasks/bulk", json={"project_id": a_project["id"], "tasks": tasks}))


def test_values_of_custom_fields_and_labels_are_counted(api, a_project):
    fields = {"custom_fields": {f"c{n}": f"value {n}" for n in range(90)}}
    labels = {"labels": [f"label {n}" for n in range(50)]}
    for members in (fields, labels):
        body = {"project_id": a_project["id"], "tasks": [{"name": "t", **members}] * 1000}
        too_much(api.post("/v1/tasks/bulk", json=body))
        create(api, "tasks/bulk", **{**body, "tasks": body["tasks"][:100]})


def test_one_patch_for_many_tasks_is_counted_once_for_each(api, a_project):
    chosen = bulk(api, a_project["id"], 500)
    fields = {f"c{n}": ["x" * 150] * 100 for n in range(50)}
    too_much(api.patch("/v1/tasks/bulk", json={"ids": chosen, "set": {"custom_fields": fields}}))
    one = api.patch("/v1/tasks/bulk", json={"ids": chosen[:1], "set": {"custom_fields": {"c0": ["x"]}}})
    assert one.status_code == 200


def test_a_json_patch_that_copies_what_it_copied_is_counted(api, a_task):
    operations: list[dict[str, Any]] = [{"op": "add", "path": "/custom_fields/a", "value": ["x"] * 90}]
    for number in range(12):
        operations.append({"op": "copy", "from": "/custom_fields", "path": f"/custom_fields/b{number}"})
        operations.append({"op": "test", "path": "/custom_fields/a", "value": ["x"] * 90})
    answer = api.patch(
        f"/v1/tasks/{a_task['id']}", json=operations, headers={"Content-Type": "application/json-patch+json"}
    )
    assert answer.status_code == 422, answer.text[:500]
    assert api.get(f"/v1/tasks/{a_task['id']}").json() == a_task


# ---- recurrence ------------------------------------------------------------------------------------------------------


def test_rules_whose_next_day_is_far_away_share_the_budget_of_their_request(api, a_project):
    body = {"name": "t", "project_id": a_project["id"], "due_date": "2026-02-28", "recurrence": RARE}
    create(api, "tasks", **body)
    too_much(batch(api, *[("POST", "/tasks", body)] * 60))
    too_much(api.post("/v1/tasks/bulk", json={"tasks": [body] * 60}))


def test_a_rule_that_is_searched_for_in_vain_is_refused_even_with_a_count(api, a_project):
    for rule in ("FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30;COUNT=2", "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=4,6;COUNT=2"):
        answer = api.post("/v1/tasks", json={"name": "t", "project_id": a_project["id"], "recurrence": rule})
        assert codes(problem(answer, 422)) == ["invalid_rrule"]


# ---- batches ---------------------------------------------------------------------------------------------------------


@contextmanager
def nobody_can_write(server: Server) -> Iterator[None]:
    """Hold the one lock of SQLite for writing; on PostgreSQL there is none, and a read waits for nobody anyway."""
    if server.database_url:
        yield
        return
    connection = apsw.Connection(str(server.data / "taskade.db"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_batch_of_reads_does_not_wait_for_the_writer_nor_let_it_wait(api, a_project, server: Server):
    chosen = bulk(api, a_project["id"], 300)
    operations: list[tuple[str, str, Any]] = [("GET", f"/tasks/{name}", None) for name in chosen]
    operations.append(("QUERY", "/tasks", {"filter": {"project_id": a_project["id"]}}))
    operations.append(("POST", "/tasks/query", {"filter": {"project_id": a_project["id"]}}))
    with nobody_can_write(server):
        for headers in ({}, {"Idempotency-Key": ids.new("req")}):
            answer = batch(api, *operations, **headers)
            assert answer.status_code == 200, answer.text[:500]
            assert [result["status"] for result in answer.json()["results"]] == [200] * 302


def test_a_batch_of_reads_sees_one_moment_and_refuses_as_a_whole(api, a_project, a_task):
    answer = batch(api, ("GET", f"/tasks/{a_task['id']}", None), ("GET", f"/tasks/{ids.new('task')}", None))
    assert answer.status_code == 404 and answer.json()["code"] == "batch-failed"


def test_what_references_put_in_is_counted(api, a_project):
    bulk(api, a_project["id"], 1000, description="x" * 500)
    first = {"id": "all", "method": "GET", "path": f"/tasks?project_id={a_project['id']}&limit=1000"}
    write = {"method": "POST", "path": "/tasks", "body": {"name": "t", "description": {"$ref": "all"}}}
    answer = api.post("/v1/batch", json={"operations": [first, *[write] * 14]})
    assert answer.status_code == 422


def test_the_budget_of_a_change_is_what_the_guide_says():
    assert WRITE == 250_000
