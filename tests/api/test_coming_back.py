"""Tasks that are restored, repeated, made from a template, moved or undone keep the rules of a task that is created.

Why together: a rule that one of these ways forgets makes a task that nobody could create, and that refuses all changes.
What was read can always be sent back.
"""

from itertools import pairwise

import pytest
from taskade_server.kit import ids, time

from tests.api.asking import codes, create, listed, names, places, problem

TODAY = time.day_of(time.now_ms())
TODO = {"key": "todo", "category": "todo"}
DOING = {"key": "doing", "category": "doing"}
DONE = {"key": "done", "category": "done"}


def read(client, task):
    return client.get(f"/v1/tasks/{task['id']}").json()


def change(client, kind, thing, **body):
    response = client.patch(f"/v1/{kind}/{thing['id']}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def act(client, task, verb, **body):
    response = client.post(f"/v1/tasks/{task['id']}/{verb}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def delete(client, kind, thing):
    assert client.delete(f"/v1/{kind}/{thing['id']}").status_code == 204


def assert_can_be_sent_back(client, task):
    """PUT of what was read changes nothing, and so does a change of something else."""
    now = read(client, task)
    response = client.put(f"/v1/tasks/{task['id']}", json=now)
    assert (response.status_code, response.json()) == (200, now)
    assert client.patch(f"/v1/tasks/{task['id']}", json={"name": "Renamed"}).status_code == 200


# ---- restored --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("was_done", [False, True], ids=["open", "done"])
def test_a_task_whose_status_is_gone_comes_back_as_open_or_as_done_as_it_was(api, was_done):
    other = DONE | {"key": "closed"}
    project = create(api, "projects", name="x", statuses=[TODO, DOING, DONE, other])
    task = create(api, "tasks", name="x", project_id=project["id"], status="closed" if was_done else "doing")
    delete(api, "tasks", task)
    change(api, "projects", project, statuses=[TODO, DONE])
    back = act(api, task, "restore")
    assert back["status"] == ("done" if was_done else "todo")
    assert back["completed_at"] == task["completed_at"]
    assert_can_be_sent_back(api, task)


def test_an_open_task_stays_open_when_its_status_has_become_a_done_one(api):
    project = create(api, "projects", name="x", statuses=[TODO, DOING, DONE])
    task = create(api, "tasks", name="x", project_id=project["id"], status="doing")
    below = create(api, "tasks", name="below", parent_id=task["id"], status="doing")
    delete(api, "tasks", task)
    change(api, "projects", project, statuses=[TODO, DOING | {"category": "done"}, DONE])
    act(api, task, "restore")
    for one in (task, below):
        now = read(api, one)
        assert (now["status"], now["completed_at"]) == ("todo", None)
        assert act(api, one, "complete")["completed_at"] is not None


def test_a_subtask_stays_open_when_its_status_is_a_done_one_where_it_goes(api):
    here = create(api, "projects", name="x", statuses=[TODO, DOING, DONE])
    there = create(api, "projects", name="x", statuses=[TODO, DOING | {"category": "done"}, DONE])
    task = create(api, "tasks", name="x", project_id=here["id"])
    below = create(api, "tasks", name="below", parent_id=task["id"], status="doing")
    act(api, task, "move", project_id=there["id"])
    now = read(api, below)
    assert (now["project_id"], now["status"], now["completed_at"]) == (there["id"], "todo", None)


def test_a_workflow_that_begins_with_its_end_starts_tasks_where_they_are_open(api):
    project = create(api, "projects", name="x", statuses=[DONE, DOING])
    task = create(api, "tasks", name="x", project_id=project["id"], recurrence="FREQ=DAILY")
    assert (task["status"], task["completed_at"]) == ("doing", None)
    act(api, task, "complete")
    (following,) = listed(api, "tasks", project_id=project["id"], status="doing")
    assert following["completed_at"] is None
    assert act(api, task, "reopen")["status"] == "doing"


def test_what_would_come_back_too_deep_stays_in_the_trash(api, a_project):
    chain = [create(api, "tasks", name="1", project_id=a_project["id"])]
    for number in range(2, 18):
        chain.append(create(api, "tasks", name=str(number), parent_id=chain[-1]["id"]))
    upper = create(api, "tasks", name="upper", project_id=a_project["id"])
    lower = create(api, "tasks", name="lower", parent_id=upper["id"])
    create(api, "tasks", name="lowest", parent_id=lower["id"])
    delete(api, "tasks", lower)
    act(api, upper, "move", parent_id=chain[-1]["id"])  # level 18: lower would be on 19, lowest on 20
    assert api.post(f"/v1/tasks/{lower['id']}/restore").status_code == 200
    delete(api, "tasks", lower)
    act(api, upper, "move", parent_id=None)
    act(api, chain[0], "move", parent_id=create(api, "tasks", name="0", project_id=a_project["id"])["id"])
    act(api, upper, "move", parent_id=chain[-1]["id"])
    refused = problem(api.post(f"/v1/tasks/{lower['id']}/restore"), 409)
    assert "20 levels" in refused["detail"]
    act(api, upper, "move", parent_id=None)
    assert api.post(f"/v1/tasks/{lower['id']}/restore").status_code == 200


def test_subtasks_that_are_made_together_nest_20_levels_deep(api, a_project):
    names = [ids.new("task") for _ in range(21)]
    tasks = [{"id": names[0], "name": "x", "project_id": a_project["id"]}]
    tasks += [{"id": name, "name": "x", "parent_id": above} for above, name in pairwise(names)]
    refused = problem(api.post("/v1/tasks/bulk", json={"tasks": tasks}), 422)
    assert (places(refused), codes(refused)) == (["/tasks/20/parent_id"], ["too_deep"])
    assert api.post("/v1/tasks/bulk", json={"tasks": tasks[:20]}).status_code == 201


def test_tasks_in_the_trash_count_where_a_circle_of_blockers_would_close(api, a_project):
    a, b, x = (create(api, "tasks", name=name, project_id=a_project["id"]) for name in "abx")
    change(api, "tasks", b, blocked_by=[x["id"]])
    change(api, "tasks", a, blocked_by=[b["id"]])
    delete(api, "tasks", b)
    refused = problem(api.patch(f"/v1/tasks/{x['id']}", json={"blocked_by": [a["id"]]}), 422)
    assert (places(refused), codes(refused)) == (["/blocked_by/0"], ["cycle"])
    act(api, b, "restore")
    assert read(api, x)["blocked_by"] == []


def test_tasks_that_the_caller_cannot_see_count_where_a_circle_of_blockers_would_close(api, as_member, a_project):
    hidden = create(api, "projects", name="hidden", visibility="private")
    a, b = (create(api, "tasks", name=name, project_id=a_project["id"]) for name in "ab")
    between = create(api, "tasks", name="between", project_id=hidden["id"], blocked_by=[b["id"]])
    change(api, "tasks", a, blocked_by=[between["id"]])
    refused = problem(as_member.patch(f"/v1/tasks/{b['id']}", json={"blocked_by": [a["id"]]}), 422)
    assert codes(refused) == ["cycle"]


def test_blockers_may_change_places_in_one_bulk_request(api, a_project):
    """What is replaced by the same request no longer blocks."""
    a, b, c = (create(api, "tasks", name=name, project_id=a_project["id"]) for name in "abc")
    change(api, "tasks", a, blocked_by=[b["id"]])
    change(api, "tasks", c, blocked_by=[a["id"]])
    body = {"ids": [a["id"], b["id"]], "set": {"blocked_by": [c["id"]]}}
    refused = problem(api.patch("/v1/tasks/bulk", json=body), 422)
    assert "cycle" in codes(refused)
    body = {"ids": [c["id"], a["id"]], "set": {"blocked_by": [b["id"]]}}
    assert api.patch("/v1/tasks/bulk", json=body).status_code == 200


def test_an_assignee_who_has_left_stays_with_what_is_restored_but_gets_no_new_occurrence(api, invite, home, a_project):
    lea = invite("member")
    task = create(api, "tasks", name="x", project_id=a_project["id"], assignee=lea.id, recurrence="FREQ=DAILY")
    delete(api, "tasks", task)
    assert api.delete(f"/v1/workspaces/{home}/members/{lea.id}").status_code == 204
    assert act(api, task, "restore")["assignee"] == lea.id
    assert_can_be_sent_back(api, task)
    act(api, task, "complete")
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert following["assignee"] is None


def test_a_restored_inbox_is_no_second_one(api, invite):
    bob = invite("member").client
    first = create(bob, "tasks", name="x")["project_id"]
    assert bob.delete(f"/v1/projects/{first}").status_code == 204
    second = create(bob, "tasks", name="x")["project_id"]
    assert second != first
    assert bob.post(f"/v1/projects/{first}/restore").status_code == 200
    assert create(bob, "tasks", name="y")["project_id"] == second
    assert bob.delete(f"/v1/projects/{second}").status_code == 204
    third = create(bob, "tasks", name="z")["project_id"]
    assert third not in (first, second), "the restored one is a project like others"


def test_who_leaves_and_comes_back_finds_the_inbox_again(api, invite, home):
    bob = invite("member")
    task = create(bob.client, "tasks", name="in")
    assert bob.client.delete(f"/v1/workspaces/{home}/members/me").status_code == 204
    create(api, f"workspaces/{home}/members", user=bob.id, role="member")
    again = create(bob.client, "tasks", name="in again")
    assert again["project_id"] == task["project_id"]
    assert bob.client.get(f"/v1/tasks/{task['id']}").status_code == 200
    operations = [{"method": "POST", "path": "/tasks", "body": {"name": "in a batch"}}]
    assert bob.client.post("/v1/batch", json={"operations": operations}).status_code == 200


def test_who_comes_back_as_a_guest_has_no_inbox(api, invite, home):
    bob = invite("member")
    create(bob.client, "tasks", name="in")
    assert bob.client.delete(f"/v1/workspaces/{home}/members/me").status_code == 204
    create(api, f"workspaces/{home}/members", user=bob.id, role="guest")
    problem(bob.client.post("/v1/tasks", json={"name": "x"}), 403)


# ---- deleted together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["pc", "cp", "gp", "pg", "gcp", "cgp"])
def test_a_bulk_deletion_is_one_whatever_the_order_of_the_ids(api, a_project, chosen):
    p = create(api, "tasks", name="p", project_id=a_project["id"])
    c = create(api, "tasks", name="c", parent_id=p["id"])
    g = create(api, "tasks", name="g", parent_id=c["id"])
    tasks = {"p": p, "c": c, "g": g}
    gone = api.request("DELETE", "/v1/tasks/bulk", json={"ids": [tasks[name]["id"] for name in chosen]})
    assert [task["name"] for task in gone.json()] == list(chosen)
    assert names(api, "tasks", project_id=a_project["id"]) == []
    act(api, p, "restore")
    assert sorted(names(api, "tasks", project_id=a_project["id"])) == ["c", "g", "p"]


# ---- made from a template --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "place", "code"),
    [
        ({"start_in_days": 10, "due_in_days": 3}, "/tasks/0/due_in_days", "invalid_range"),
        ({"estimate": -5}, "/tasks/0/estimate", "out_of_range"),
        ({"estimate": 2_000_000}, "/tasks/0/estimate", "out_of_range"),
        ({"labels": [f"l{number}" for number in range(51)]}, "/tasks/0/labels", "too_many"),
        (
            {"subtasks": [{"name": "s", "start_in_days": 1, "due_in_days": 0}]},
            "/tasks/0/subtasks/0/due_in_days",
            "invalid_range",
        ),
    ],
    ids=["dates", "negative", "huge", "labels", "below"],
)
def test_a_template_has_no_tasks_that_could_not_be_created(api, task, place, code):
    refused = problem(api.post("/v1/templates", json={"name": "x", "tasks": [{"name": "t", **task}]}), 422)
    assert (places(refused), codes(refused)) == ([place], [code])


def test_a_template_makes_tasks_that_can_be_sent_back(api):
    for template in listed(api, "templates", limit=6):
        project = create(api, "projects", name="x", template_id=template["id"])
        for task in listed(api, "tasks", project_id=project["id"], limit=3):
            assert_can_be_sent_back(api, task)


# ---- repeated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        {"due_date": "2030-01-01", "recurrence": "FREQ=WEEKLY;BYDAY=MO;COUNT=1"},
        {"due_date": "2030-01-01", "recurrence": "FREQ=WEEKLY;BYDAY=MO;COUNT=2"},
        {"start_date": "9999-12-31", "recurrence": "FREQ=DAILY"},
        {"due_date": "9999-12-31T23:00:00Z", "recurrence": "FREQ=DAILY;COUNT=5"},
        {"start_date": "9999-12-30", "due_date": "9999-12-30", "recurrence": "FREQ=DAILY"},
        {"due_date": "2096-02-29", "recurrence": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;COUNT=3"},
        {"due_date": "2029-01-02", "recurrence": "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=-1;UNTIL=20290401"},
    ],
    ids=lambda task: task["recurrence"] + task.get("due_date", ""),
)
def test_a_series_can_be_completed_to_its_end(api, task):
    project = create(api, "projects", name="x")
    create(api, "tasks", name="x", project_id=project["id"], **task)
    for _ in range(8):
        found = listed(api, "tasks", project_id=project["id"], completed_at="null")
        if not found:
            break
        assert_can_be_sent_back(api, found[0])
        act(api, found[0], "complete")
    made = listed(api, "tasks", project_id=project["id"])
    assert found == [], "the series goes on beyond its end"
    count = int(task["recurrence"].partition("COUNT=")[2] or 0)
    assert not count or task["due_date"].startswith("9999") or len(made) == count


def test_a_day_of_the_month_that_no_month_has_is_refused(api, a_project):
    for rule in ("FREQ=YEARLY;BYMONTH=12;BYDAY=1MO,8MO", "FREQ=MONTHLY;BYDAY=6MO", "FREQ=YEARLY;BYDAY=54MO"):
        body = {"name": "x", "project_id": a_project["id"], "due_date": "2029-01-02", "recurrence": rule}
        assert codes(problem(api.post("/v1/tasks", json=body), 422)) == ["invalid_rrule"]


@pytest.mark.parametrize("days", [-300, 0, 30])
def test_the_next_occurrence_of_a_task_without_a_due_date_has_none_and_starts_by_the_rule(api, a_project, days):
    start = time.add_days(TODAY, days)
    task = create(api, "tasks", name="x", project_id=a_project["id"], start_date=start, recurrence="FREQ=WEEKLY")
    act(api, task, "complete")
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert (following["start_date"], following["due_date"]) == (time.add_days(start, 7), None)
    (event,) = [one for one in listed(api, "events", object_id=task["id"]) if one["type"] == "task.completed"]
    undone = api.post(f"/v1/events/{event['id']}/revert")
    assert undone.status_code == 200, undone.text
    assert [one["id"] for one in listed(api, "tasks", project_id=a_project["id"])] == [task["id"]]
    act(api, task, "complete")
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert_can_be_sent_back(api, following)


def test_a_start_alone_keeps_its_time_of_day_or_goes_by_the_completion(api, a_project):
    starting = {"project_id": a_project["id"], "start_date": "2026-01-05T08:30:00Z", "recurrence": "FREQ=DAILY"}
    act(api, create(api, "tasks", name="x", **starting), "complete")
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert (following["start_date"], following["due_date"]) == ("2026-01-06T08:30:00.000Z", None)
    body = starting | {"start_date": "2026-01-05", "recurrence_from": "completion", "timezone": "UTC"}
    done = act(api, create(api, "tasks", name="y", **body), "complete")
    (following,) = listed(api, "tasks", project_id=a_project["id"], completed_at="null", name="y")
    day = time.add_days(done["completed_at"][:10], 1)
    assert (following["start_date"], following["due_date"]) == (day, None)


def test_numbers_of_weekdays_need_a_month_or_a_year(api, a_project):
    body = {"name": "x", "project_id": a_project["id"]}
    for rule in ("FREQ=WEEKLY;BYDAY=1MO", "FREQ=DAILY;BYDAY=MO,-1FR", "rrule:freq=weekly;byday=+2tu"):
        refused = problem(api.post("/v1/tasks", json=body | {"recurrence": rule}), 422)
        assert (places(refused), codes(refused)) == (["/recurrence"], ["invalid_rrule"])
        assert "only with FREQ=MONTHLY or FREQ=YEARLY" in refused["errors"][0]["detail"]
    weeks = body | {"recurrence": "FREQ=YEARLY;BYWEEKNO=20;BYDAY=1MO"}
    assert places(problem(api.post("/v1/tasks", json=weeks), 422)) == ["/recurrence"]
    for rule in ("FREQ=MONTHLY;BYDAY=1MO", "FREQ=YEARLY;BYDAY=-1FR", "FREQ=WEEKLY;BYDAY=MO"):
        create(api, "tasks", recurrence=rule, **body)


@pytest.mark.parametrize("kind", ["task.completed", "task.updated"])
@pytest.mark.parametrize("due", [None, "2030-01-01"])
def test_undoing_a_completion_takes_the_next_occurrence_with_it(api, a_project, kind, due):
    task = create(api, "tasks", name="x", project_id=a_project["id"], due_date=due, recurrence="FREQ=DAILY;COUNT=5")
    act(api, task, "complete")
    events = listed(api, "events", object_id=task["id"], after=0)
    event = next(one for one in events if one["type"] == kind)
    undone = api.post(f"/v1/events/{event['id']}/revert")
    assert undone.status_code == 200, undone.text
    assert [one["id"] for one in listed(api, "tasks", project_id=a_project["id"])] == [task["id"]]
    assert read(api, task)["recurrence"] == "FREQ=DAILY;COUNT=5"
    act(api, task, "complete")
    assert len(listed(api, "tasks", project_id=a_project["id"], completed_at="null")) == 1


def test_undoing_one_of_many_completions_takes_its_own_next_occurrence(api, a_project):
    days = ["2030-01-01", "2030-01-02", "2030-01-03"]
    entries = [{"name": "x", "due_date": day, "recurrence": "FREQ=WEEKLY"} for day in days]
    tasks = create(api, "tasks/bulk", project_id=a_project["id"], tasks=entries)
    body = {"ids": [task["id"] for task in tasks], "set": {"status": "completed"}}
    assert api.patch("/v1/tasks/bulk", json=body).status_code == 200
    event = next(
        one for one in listed(api, "events", object_id=tasks[1]["id"], after=0) if one["type"] == "task.completed"
    )
    assert api.post(f"/v1/events/{event['id']}/revert").status_code == 200
    open_days = sorted(one["due_date"] for one in listed(api, "tasks", project_id=a_project["id"], completed_at="null"))
    assert open_days == ["2030-01-02", "2030-01-08", "2030-01-10"]


# ---- moved -----------------------------------------------------------------------------------------------------------


def test_values_have_to_fit_the_fields_of_the_project_that_a_task_moves_to(api, a_project):
    there = create(api, "projects", name="x", fields=[{"key": "hours", "type": "number"}])
    task = create(api, "tasks", name="x", project_id=a_project["id"], custom_fields={"hours": "many"})
    upper = create(api, "tasks", name="upper", project_id=a_project["id"])
    below = create(api, "tasks", name="below", parent_id=upper["id"], custom_fields={"hours": "few"})
    refused = problem(api.post(f"/v1/tasks/{task['id']}/move", json={"project_id": there["id"]}), 422)
    assert (places(refused), codes(refused)) == (["/custom_fields/hours"], ["wrong_type"])
    refused = problem(api.post(f"/v1/tasks/{upper['id']}/move", json={"project_id": there["id"]}), 422)
    assert places(refused) == ["/project_id"]
    assert below["id"] in refused["errors"][0]["detail"]
    change(api, "tasks", task, project_id=there["id"], custom_fields={"hours": 3})


def test_values_that_no_longer_fit_changed_fields_can_be_sent_back(api, a_project):
    task = create(api, "tasks", name="x", project_id=a_project["id"], custom_fields={"hours": "many"})
    change(api, "projects", a_project, fields=[{"key": "hours", "type": "number"}])
    assert_can_be_sent_back(api, task)
    delete(api, "tasks", task)
    assert act(api, task, "restore")["custom_fields"] == {"hours": "many"}
    assert_can_be_sent_back(api, task)
