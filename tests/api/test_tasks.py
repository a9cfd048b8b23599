"""Tasks: what a client may leave out, what changes with what, and how a task is done, moved, repeated, thrown away."""

import pytest
from taskade_server.kit import ids, time

from tests.api.asking import codes, create, listed, names, places, problem

TODAY = time.day_of(time.now_ms())


def read(client, task):
    return client.get(f"/v1/tasks/{task['id']}").json()


def change(client, task, **body):
    """The task after a change that is expected to succeed."""
    response = client.patch(f"/v1/tasks/{task['id']}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def act(client, task, verb, **body):
    response = client.post(f"/v1/tasks/{task['id']}/{verb}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def order(client, project, **params):
    return names(client, "tasks", project_id=project["id"], sort="position", **params)


# ---- creating --------------------------------------------------------------------------------------------------------


def test_a_name_is_enough(api, me, home, a_project):
    response = api.post("/v1/tasks", json={"name": "Design mockups", "project_id": a_project["id"]})
    task = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/tasks/{task['id']}"
    assert api.get(response.headers["location"]).json() == task
    assert ids.is_id(task["id"], "task")
    assert task["created_at"] == task["updated_at"]
    made = {"id", "position", "created_at", "updated_at"}
    assert {name: value for name, value in task.items() if name not in made} == {
        "workspace_id": home,
        "project_id": a_project["id"],
        "parent_id": None,
        "name": "Design mockups",
        "description": None,
        "status": "pending",
        "priority": "none",
        "assignee": None,
        "labels": [],
        "start_date": None,
        "due_date": None,
        "completed_at": None,
        "estimate": None,
        "recurrence": None,
        "recurrence_from": "due_date",
        "timezone": None,
        "blocked_by": [],
        "created_by": me["id"],
        "version": 1,
        "deleted_at": None,
        "custom_fields": {},
    }


def test_everything_that_can_be_given_is_kept(api, me, a_project, a_task):
    given = {
        "id": ids.new("task"),
        "project_id": a_project["id"],
        "parent_id": a_task["id"],
        "name": '  Ünïcode 😀 & "quotes" \\ \' % _ <b>  ',
        "description": "# Markdown\n\n- a\n- b\ttab\r\n",
        "status": "in_progress",
        "priority": "urgent",
        "assignee": me["id"],
        "labels": ["a", "ä", "client-work"],
        "start_date": "2024-01-15",
        "due_date": "2024-01-31T18:30:00.000Z",
        "position": "b",
        "estimate": 2.5,
        "recurrence": "FREQ=WEEKLY;BYDAY=MO",
        "blocked_by": [a_task["id"]],
        "custom_fields": {"n": 8, "x": 0.1, "t": "text", "b": False, "l": ["x", "y"], "ключ": "", "a.b": "dot"},
    }
    task = create(api, "tasks", **given)
    assert {name: task[name] for name in given} == given
    assert read(api, task) == task


def test_a_task_without_a_project_goes_to_ones_own_inbox(api, as_member, home):
    first, second = create(as_member, "tasks", name="First"), create(as_member, "tasks", name="Second")
    assert first["project_id"] == second["project_id"]
    inbox = as_member.get(f"/v1/projects/{first['project_id']}").json()
    assert (inbox["name"], inbox["visibility"], inbox["workspace_id"]) == ("Inbox", "private", home)
    assert create(api, "tasks", name="Somebody else's")["project_id"] != first["project_id"]
    as_member.delete(f"/v1/projects/{inbox['id']}")
    assert create(as_member, "tasks", name="Third")["project_id"] != inbox["id"], "a new one, when it was thrown away"


def test_a_subtask_lives_where_its_parent_does(api, a_project, a_task):
    assert create(api, "tasks", name="Below", parent_id=a_task["id"])["project_id"] == a_project["id"]
    elsewhere = create(api, "projects", name="Elsewhere")["id"]
    refused = api.post("/v1/tasks", json={"name": "x", "parent_id": a_task["id"], "project_id": elsewhere})
    assert places(problem(refused, 422)) == ["/parent_id"]


@pytest.mark.parametrize("reference", ["id", "handle", "email", "me"])
def test_a_person_is_named_by_id_handle_address_or_me(api, me, a_project, reference):
    name = "me" if reference == "me" else me[reference]
    assert create(api, "tasks", name="x", project_id=a_project["id"], assignee=name)["assignee"] == me["id"]


def test_only_members_of_the_workspace_can_be_assigned(api, a_task, a_stranger):
    for reference in (
        a_stranger.id,
        a_stranger.email,
        "nobody",
        "nobody@example.com",
        ids.new("user"),
        ids.new("task"),
    ):
        refused = api.patch(f"/v1/tasks/{a_task['id']}", json={"assignee": reference})
        assert (places(problem(refused, 422)), codes(refused.json())) == (["/assignee"], ["unknown_reference"])
    assert read(api, a_task) == a_task


def test_an_id_is_taken_once(api, a_task):
    refused = problem(api.post("/v1/tasks", json={"id": a_task["id"], "name": "Again"}), 409)
    assert (places(refused), codes(refused)) == (["/id"], ["id_in_use"])
    api.delete(f"/v1/tasks/{a_task['id']}")
    problem(api.post("/v1/tasks", json={"id": a_task["id"], "name": "Again"}), 409)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"due_date": "2024-01-15T10:30:00+02:00"}, {"due_date": "2024-01-15T08:30:00.000Z"}),
        ({"labels": ["a", "b", "a"]}, {"labels": ["a", "b"]}),
        ({"labels": None}, {"labels": []}),
        ({"custom_fields": {"a": None, "b": 1}}, {"custom_fields": {"b": 1}}),
        ({"custom_fields": None}, {"custom_fields": {}}),
        ({"status": None}, {"status": "pending"}),
        ({"estimate": 3}, {"estimate": 3}),
        ({"blocked_by": None}, {"blocked_by": []}),
        ({"priority": None}, {"priority": "none"}),
        ({"version": 1, "completed_at": None, "created_at": None}, {"version": 1, "completed_at": None}),
    ],
    ids=str,
)
def test_what_is_given_in_another_form_is_kept_in_one(api, a_project, given, kept):
    task = create(api, "tasks", name="x", project_id=a_project["id"], **given)
    assert {name: task[name] for name in kept} == kept


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({}, "/name", "required"),
        ({"name": None}, "/name", "required"),
        ({"name": " "}, "/name", "too_short"),
        ({"name": 5}, "/name", "wrong_type"),
        ({"name": "x" * 501}, "/name", "too_long"),
        ({"name": "x", "version": 7}, "/version", "read_only"),
        ({"name": "x", "priority": 1}, "/priority", "not_allowed"),
        ({"name": "x", "status": "done"}, "/status", "unknown_status"),
        ({"name": "x", "estimate": -1}, "/estimate", "out_of_range"),
        ({"name": "x", "estimate": "3"}, "/estimate", "wrong_type"),
        ({"name": "x", "estimate": True}, "/estimate", "wrong_type"),
        ({"name": "x", "due_date": 1705314600}, "/due_date", "wrong_type"),
        ({"name": "x", "due_date": "2024-02-30"}, "/due_date", "invalid_date"),
        ({"name": "x", "start_date": "2024-02-02", "due_date": "2024-02-01"}, "/due_date", "invalid_range"),
        ({"name": "x", "labels": ["a", ""]}, "/labels/1", "invalid_format"),
        ({"name": "x", "labels": ["a,b"]}, "/labels/0", "invalid_format"),
        ({"name": "x", "labels": [str(n) for n in range(51)]}, "/labels", "too_many"),
        ({"name": "x", "position": "B"}, "/position", "invalid_format"),
        ({"name": "x", "position": "b0"}, "/position", "invalid_format"),
        ({"name": "x", "recurrence": "weekly"}, "/recurrence", "invalid_rrule"),
        ({"name": "x", "recurrence": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "/recurrence", "invalid_rrule"),
        ({"name": "x", "custom_fields": {"a": {"b": 1}}}, "/custom_fields/a", "wrong_type"),
        ({"name": "x", "custom_fields": {"a": [1]}}, "/custom_fields/a", "wrong_type"),
        ({"name": "x", "custom_fields": {"$a": 1}}, "/custom_fields/$a", "invalid_key"),
        ({"name": "x", "custom_fields": {"": 1}}, "/custom_fields/", "invalid_key"),
        ({"name": "x", "custom_fields": {"a/b": 1}}, "/custom_fields/a~1b", "invalid_key"),
        ({"name": "x", "custom_fields": {"a": 2**53}}, "/custom_fields/a", "out_of_range"),
        ({"name": "x", "custom_fields": {str(n): 1 for n in range(101)}}, "/custom_fields", "too_many"),
        ({"name": "x", "project_id": "inbox"}, "/project_id", "invalid_id"),
        ({"name": "x", "blocked_by": "task"}, "/blocked_by", "wrong_type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_told_with_its_place(api, heads, body, place, code):
    before = heads()
    refused = problem(api.post("/v1/tasks", json=body), 422, "validation-failed")
    assert (places(refused), codes(refused)) == ([place], [code])
    assert heads() == before


# ---- changing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_leaves_what_it_does_not_mention(api, a_project, method):
    task = create(
        api,
        "tasks",
        name="Before",
        description="Kept",
        labels=["kept"],
        project_id=a_project["id"],
        custom_fields={"kept": 1, "changed": 1, "removed": 1},
    )
    body = {"name": "After", "custom_fields": {"changed": 2, "removed": None, "new": 3}}
    response = api.request(method, f"/v1/tasks/{task['id']}", json=body)
    changed = response.json()
    assert response.status_code == 200
    assert changed["custom_fields"] == {"kept": 1, "changed": 2, "new": 3}
    assert changed["version"] == 2
    assert {name for name in task if task[name] != changed[name]} == {"name", "custom_fields", "version", "updated_at"}
    assert read(api, task) == changed


def test_null_clears(api, a_project, me):
    full = create(
        api,
        "tasks",
        name="x",
        project_id=a_project["id"],
        description="d",
        assignee="me",
        labels=["l"],
        start_date="2024-01-01",
        due_date="2024-01-02",
        estimate=1,
        custom_fields={"a": 1},
    )
    cleared = dict.fromkeys(
        ("description", "assignee", "labels", "start_date", "due_date", "estimate", "custom_fields")
    )
    changed = change(api, full, **cleared)
    assert (changed["labels"], changed["custom_fields"]) == ([], {})
    assert {changed[name] for name in cleared if name not in ("labels", "custom_fields")} == {None}


def test_what_was_read_can_be_sent_back(api, a_project, me, expect_events):
    task = create(
        api,
        "tasks",
        name="x",
        project_id=a_project["id"],
        assignee="me",
        due_date="2024-01-15",
        estimate=1.5,
        custom_fields={"a": ["x"]},
        recurrence="FREQ=DAILY",
    )
    with expect_events():
        for method in ("PUT", "PATCH"):
            response = api.request(method, f"/v1/tasks/{task['id']}", json=task)
            assert response.json() == task
            assert "commit-seq" not in response.headers


def test_a_change_that_changes_nothing_is_none(api, a_task, expect_events):
    with expect_events():
        assert change(api, a_task, name=a_task["name"], labels=[], custom_fields={"none": None}) == a_task
        assert change(api, a_task) == a_task


@pytest.mark.parametrize("member", ["workspace_id", "id"])
def test_what_cannot_change_after_creation_is_told(api, a_task, member):
    other = ids.new("ws" if member == "workspace_id" else "task")
    refused = problem(api.patch(f"/v1/tasks/{a_task['id']}", json={member: other}), 422)
    assert (places(refused), codes(refused)) == ([f"/{member}"], ["read_only"])


# ---- doing -----------------------------------------------------------------------------------------------------------


def test_a_task_is_completed_and_reopened(api, a_task):
    done = act(api, a_task, "complete")
    assert done["status"] == "completed"
    assert abs(time.parse_ms(done["completed_at"]) - time.now_ms()) < 10_000
    assert act(api, a_task, "complete") == done, "once more changes nothing"
    open_again = act(api, a_task, "reopen")
    assert (open_again["status"], open_again["completed_at"]) == ("pending", None)
    assert act(api, a_task, "reopen") == open_again


def test_the_status_decides_whether_a_task_is_done(api, a_task):
    done = change(api, a_task, status="completed")
    assert done["completed_at"]
    assert change(api, a_task, name="Renamed")["completed_at"] == done["completed_at"]
    assert change(api, a_task, status="in_progress")["completed_at"] is None
    assert create(api, "tasks", name="x", status="completed")["completed_at"]


def test_a_project_has_its_own_words_for_done(api):
    statuses = [
        {"key": "idea", "category": "todo"},
        {"key": "shipped", "category": "done"},
        {"key": "dropped", "category": "done"},
    ]
    project = create(api, "projects", name="x", statuses=statuses)["id"]
    task = create(api, "tasks", name="x", project_id=project)
    assert task["status"] == "idea"
    shipped = act(api, task, "complete")
    assert shipped["status"] == "shipped"
    dropped = change(api, task, status="dropped")
    assert dropped["completed_at"] == shipped["completed_at"], "from done to done"
    assert act(api, task, "reopen")["status"] == "idea"
    refused = problem(api.patch(f"/v1/tasks/{task['id']}", json={"status": "completed"}), 422)
    assert "idea, shipped, dropped" in refused["errors"][0]["detail"]


# ---- moving ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(api, a_project):
    """Four tasks in a row."""
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": name} for name in "abcd"])
    return dict(zip("abcd", made, strict=True))


def test_tasks_are_moved_before_and_after_one_another(api, a_project, queue):
    assert order(api, a_project) == list("abcd")
    act(api, queue["d"], "move", before=queue["b"]["id"])
    assert order(api, a_project) == list("adbc")
    act(api, queue["a"], "move", after=queue["c"]["id"])
    assert order(api, a_project) == list("dbca")
    act(api, queue["c"], "move", before=queue["d"]["id"])
    assert order(api, a_project) == list("cdba")
    for _ in range(30):
        act(api, queue["a"], "move", before=queue["b"]["id"])
        act(api, queue["b"], "move", before=queue["a"]["id"])
    assert order(api, a_project) == list("cdba")


def test_moving_rewrites_one_task_only(api, a_project, queue, expect_events):
    with expect_events("task.updated", "task.moved"):
        act(api, queue["d"], "move", before=queue["a"]["id"])


def test_tasks_are_moved_below_one_another_and_up_again(api, a_project, queue):
    act(api, queue["b"], "move", parent_id=queue["a"]["id"])
    act(api, queue["c"], "move", after=queue["b"]["id"])
    assert names(api, "tasks", parent_id=queue["a"]["id"], sort="position") == ["b", "c"]
    assert order(api, a_project, parent_id="null") == ["a", "d"]
    assert act(api, queue["b"], "move", parent_id=None)["parent_id"] is None
    assert order(api, a_project, parent_id="null") == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ""),
        ({"before": "a", "after": "b"}, "/after"),
        ({"before": "d"}, "/before"),
        ({"after": "nothing"}, "/after"),
        ({"after": 5}, "/after"),
        ({"position": "b"}, "/position"),
        ({"project_id": "nothing"}, "/project_id"),
    ],
    ids=str,
)
def test_a_place_that_cannot_be_is_refused(api, queue, body, place):
    body = {key: queue[value]["id"] if value in queue else value for key, value in body.items()}
    refused = problem(api.post(f"/v1/tasks/{queue['d']['id']}/move", json=body), 422)
    assert places(refused) == [place]
    assert read(api, queue["d"]) == queue["d"]


def test_no_task_lies_below_itself(api, queue):
    for upper, lower in (("a", "b"), ("b", "c")):
        act(api, queue[lower], "move", parent_id=queue[upper]["id"])
    for wrong in ("a", "b", "c"):
        refused = problem(api.post(f"/v1/tasks/{queue['a']['id']}/move", json={"parent_id": queue[wrong]["id"]}), 422)
        assert codes(refused) == ["cycle"]
        refused = problem(api.patch(f"/v1/tasks/{queue['a']['id']}", json={"parent_id": queue[wrong]["id"]}), 422)
        assert (places(refused), codes(refused)) == (["/parent_id"], ["cycle"])


def test_tasks_do_not_block_one_another_in_a_circle(api, queue):
    change(api, queue["a"], blocked_by=[queue["b"]["id"]])
    change(api, queue["b"], blocked_by=[queue["c"]["id"], queue["d"]["id"]])
    for wrong in ("a", "b"):
        blockers = [queue["d"]["id"], queue[wrong]["id"]]
        refused = problem(api.patch(f"/v1/tasks/{queue['c']['id']}", json={"blocked_by": blockers}), 422)
        assert (places(refused), codes(refused)) == (["/blocked_by/1"], ["cycle"])
    refused = problem(api.patch(f"/v1/tasks/{queue['c']['id']}", json={"blocked_by": [queue["c"]["id"]]}), 422)
    assert codes(refused) == ["cycle"]


def test_subtasks_nest_20_levels_deep(api, a_task):
    parent = a_task
    for _ in range(19):
        parent = create(api, "tasks", name="Deeper", parent_id=parent["id"])
    refused = problem(api.post("/v1/tasks", json={"name": "Too deep", "parent_id": parent["id"]}), 422)
    assert (places(refused), codes(refused)) == (["/parent_id"], ["too_deep"])
    tall = create(api, "tasks", name="x", project_id=a_task["project_id"])
    create(api, "tasks", name="x", parent_id=tall["id"])
    above = read(api, parent)["parent_id"]
    refused = problem(api.post(f"/v1/tasks/{tall['id']}/move", json={"parent_id": above}), 422)
    assert codes(refused) == ["too_deep"], "what lies below it counts"


def test_a_task_takes_its_subtasks_and_comments_to_another_project(api, a_project, a_task):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    deeper = create(api, "tasks", name="Deeper", parent_id=below["id"], status="completed")
    comments = [create(api, "comments", task_id=task["id"], body="x")["id"] for task in (a_task, deeper)]
    statuses = [{"key": "todo", "category": "todo"}, {"key": "done", "category": "done"}]
    there = create(api, "projects", name="There", statuses=statuses)["id"]
    moved = act(api, a_task, "move", project_id=there)
    assert (moved["project_id"], moved["status"]) == (there, "todo")
    assert [(task["name"], task["status"]) for task in listed(api, "tasks", project_id=there)] == [
        ("A task", "todo"),
        ("Below", "todo"),
        ("Deeper", "done"),
    ]
    assert read(api, deeper)["completed_at"] == deeper["completed_at"]
    assert [comment["id"] for comment in listed(api, "comments", project_id=there)] == comments
    assert listed(api, "tasks", project_id=a_project["id"]) == []


def test_a_subtask_that_moves_to_another_project_leaves_its_parent(api, a_task):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    there = create(api, "projects", name="There")["id"]
    assert act(api, below, "move", project_id=there)["parent_id"] is None
    back = change(api, below, project_id=a_task["project_id"], parent_id=a_task["id"])
    assert (back["project_id"], back["parent_id"]) == (a_task["project_id"], a_task["id"])
    assert change(api, below, project_id=there)["parent_id"] is None


def test_a_task_stays_in_its_workspace(api, a_task):
    workspace = create(api, "workspaces", name="Elsewhere")["id"]
    project = create(api, "projects", name="Elsewhere", workspace_id=workspace)["id"]
    for refused in (
        api.post(f"/v1/tasks/{a_task['id']}/move", json={"project_id": project}),
        api.patch(f"/v1/tasks/{a_task['id']}", json={"project_id": project}),
    ):
        assert places(problem(refused, 422)) == ["/project_id"]
    refused = api.post("/v1/tasks", json={"name": "x", "project_id": project, "workspace_id": a_task["workspace_id"]})
    assert places(problem(refused, 422)) == ["/workspace_id"]
    refused = api.post("/v1/tasks", json={"name": "x", "project_id": project, "blocked_by": [a_task["id"]]})
    assert places(problem(refused, 422)) == ["/blocked_by/0"]


# ---- repeating -------------------------------------------------------------------------------------------------------


def test_completing_a_recurring_task_makes_the_next_one(api, a_project, a_task, me):
    task = create(
        api,
        "tasks",
        name="Water the plants",
        project_id=a_project["id"],
        assignee="me",
        labels=["home"],
        start_date="2024-01-13",
        due_date="2024-01-15",
        recurrence="FREQ=WEEKLY;BYDAY=MO",
        estimate=1,
        blocked_by=[a_task["id"]],
        custom_fields={"where": "balcony"},
        description="All of them",
    )
    done = act(api, task, "complete")
    assert (done["status"], done["due_date"], done["recurrence"]) == ("completed", "2024-01-15", None)
    [following] = listed(api, "tasks", project_id=a_project["id"], labels="home", completed_at="null")
    assert (following["start_date"], following["due_date"]) == ("2024-01-20", "2024-01-22")
    assert (following["status"], following["completed_at"], following["version"]) == ("pending", None, 1)
    for name in ("name", "description", "assignee", "labels", "recurrence", "estimate", "custom_fields", "project_id"):
        assert following[name] == task[name]
    assert following["blocked_by"] == []
    act(api, done, "reopen")
    act(api, done, "complete")
    assert len(listed(api, "tasks", project_id=a_project["id"], labels="home")) == 2, "the rule has moved on"


def test_a_counted_rule_comes_to_its_end(api, a_project):
    create(
        api, "tasks", name="Thrice", project_id=a_project["id"], due_date="2024-01-15", recurrence="FREQ=DAILY;COUNT=3"
    )
    for due in ("2024-01-15", "2024-01-16", "2024-01-17"):
        [task] = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
        assert task["due_date"] == due
        change(api, task, status="completed")
    assert listed(api, "tasks", project_id=a_project["id"], completed_at="null") == []


# ---- throwing away ---------------------------------------------------------------------------------------------------


def test_a_deleted_task_takes_everything_below_it_and_brings_it_back(api, a_project, a_task):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    create(api, "tasks", name="Deeper", parent_id=below["id"])
    before = create(api, "tasks", name="Thrown away before", parent_id=a_task["id"])
    comment = create(api, "comments", task_id=below["id"], body="A remark")
    api.delete(f"/v1/tasks/{before['id']}")
    assert api.delete(f"/v1/tasks/{a_task['id']}").status_code == 204
    project = {"project_id": a_project["id"]}
    assert names(api, "tasks", **project) == []
    assert len(names(api, "tasks", **project, deleted="true")) == 4
    problem(api.get(f"/v1/comments/{comment['id']}"), 404)
    assert api.post(f"/v1/tasks/{a_task['id']}/restore").status_code == 200
    assert names(api, "tasks", **project) == ["A task", "Below", "Deeper"]
    assert listed(api, "comments", task_id=below["id"])[0]["body"] == "A remark"
    assert names(api, "tasks", **project, deleted="true") == ["Thrown away before"]


def test_a_task_comes_back_only_when_its_place_is_there(api, a_project, a_task):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    for task in (below, a_task):
        api.delete(f"/v1/tasks/{task['id']}")
    assert "parent" in problem(api.post(f"/v1/tasks/{below['id']}/restore"), 409)["detail"]
    api.delete(f"/v1/projects/{a_project['id']}")
    for task in (below, a_task):
        assert "project" in problem(api.post(f"/v1/tasks/{task['id']}/restore"), 409)["detail"]
    api.post(f"/v1/projects/{a_project['id']}/restore")
    for task in (a_task, below):
        assert api.post(f"/v1/tasks/{task['id']}/restore").status_code == 200
    assert names(api, "tasks", project_id=a_project["id"]) == ["A task", "Below"]


def test_a_task_comes_back_to_where_its_parent_is_now(api, a_task):
    below = create(api, "tasks", name="Below", parent_id=a_task["id"])
    deeper = create(api, "tasks", name="Deeper", parent_id=below["id"])
    api.delete(f"/v1/tasks/{below['id']}")
    there = create(api, "projects", name="There")["id"]
    act(api, a_task, "move", project_id=there)
    back = act(api, below, "restore")
    assert (back["project_id"], back["parent_id"]) == (there, a_task["id"])
    assert (read(api, deeper)["project_id"], read(api, deeper)["parent_id"]) == (there, below["id"])


def test_nothing_new_refers_to_what_is_in_the_trash(api, a_project, a_task):
    gone = create(api, "tasks", name="Gone", project_id=a_project["id"])["id"]
    api.delete(f"/v1/tasks/{gone}")
    for body, place in (({"parent_id": gone}, "/parent_id"), ({"blocked_by": [gone]}, "/blocked_by/0")):
        refused = problem(api.patch(f"/v1/tasks/{a_task['id']}", json=body), 422)
        assert (places(refused), codes(refused)) == ([place], ["unknown_reference"])
    refused = problem(api.post("/v1/comments", json={"task_id": gone, "body": "x"}), 422)
    assert places(refused) == ["/task_id"]


# ---- declared custom fields ------------------------------------------------------------------------------------------

FIELDS = [
    {"key": "hours", "type": "number"},
    {"key": "level", "type": "select", "options": ["easy", "hard"]},
    {"key": "areas", "type": "multi", "options": ["web", "api"]},
    {"key": "seen", "type": "checkbox"},
    {"key": "day", "type": "date"},
    {"key": "link", "type": "url"},
    {"key": "reviewer", "type": "user"},
    {"key": "note", "type": "text"},
]


@pytest.fixture
def typed(api):
    """The id of a project that declares custom fields."""
    return create(api, "projects", name="Typed", fields=FIELDS)["id"]


def test_declared_fields_have_their_types(api, me, typed):
    given = {
        "hours": 8, "level": "hard", "areas": ["api"], "seen": True, "day": "2024-01-15T10:30:00+02:00",
        "link": "https://example.com/x", "reviewer": "owner", "note": "x", "undeclared": ["anything"],
    }  # fmt: skip
    task = create(api, "tasks", name="x", project_id=typed, custom_fields=given)
    kept = given | {"day": "2024-01-15T08:30:00.000Z", "reviewer": me["id"]}
    assert task["custom_fields"] == kept
    assert change(api, task, custom_fields={"hours": None})["custom_fields"] == {
        name: value for name, value in kept.items() if name != "hours"
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hours", "8"),
        ("hours", True),
        ("level", "medium"),
        ("areas", "web"),
        ("areas", ["web", "ios"]),
        ("seen", "yes"),
        ("day", "soon"),
        ("link", "javascript:alert(1)"),
        ("reviewer", "nobody"),
        ("note", 5),
    ],
)
def test_a_value_of_another_type_is_refused(api, typed, key, value):
    refused = problem(
        api.post("/v1/tasks", json={"name": "x", "project_id": typed, "custom_fields": {key: value}}), 422
    )
    assert places(refused) == [f"/custom_fields/{key}"]


def test_a_value_from_before_the_declaration_does_not_stand_in_the_way(api, a_project, a_task):
    change(api, a_task, custom_fields={"hours": "eight"})
    api.patch(f"/v1/projects/{a_project['id']}", json={"fields": FIELDS})
    changed = change(api, a_task, name="Renamed", custom_fields={"note": "x"})
    assert changed["custom_fields"] == {"hours": "eight", "note": "x"}
    problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"custom_fields": {"hours": "nine"}}), 422)


def test_true_is_not_one(api, a_project):
    """To Python they are equal, so that a change from one to the other is easily taken for none."""
    task = create(api, "tasks", name="x", project_id=a_project["id"], custom_fields={"flag": True, "list": ["1"]})
    changed = api.patch(f"/v1/tasks/{task['id']}", json={"custom_fields": {"flag": 1}}).json()
    assert changed["version"] == 2
    assert changed["custom_fields"]["flag"] is not True
    found = api.get("/v1/tasks", params={"project_id": a_project["id"], "custom_fields.flag": "1"}).json()
    assert [one["id"] for one in found] == [task["id"]]
