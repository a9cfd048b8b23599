"""Bulk: up to a thousand tasks with one request, all of them or none."""

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, names, places, problem


@pytest.fixture
def five(api, a_project):
    """The ids of five tasks of a project."""
    tasks = [{"name": f"Task {number}", "priority": "high" if number % 2 else "low"} for number in range(5)]
    return [task["id"] for task in create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)]


def ask(client, method, **body):
    return client.request(method, "/v1/tasks/bulk", json=body)


# ---- creating --------------------------------------------------------------------------------------------------------


def test_many_are_created_in_the_order_given(api, a_project, me):
    other = create(api, "projects", name="Another")["id"]
    given = [
        {"name": "Design mockups", "assignee": "me"},
        {"name": "Write documentation", "labels": ["docs"]},
        {"name": "Elsewhere", "project_id": other},
    ]
    response = ask(api, "POST", tasks=given, project_id=a_project["id"])
    made = response.json()
    assert response.status_code == 201
    assert [task["name"] for task in made] == ["Design mockups", "Write documentation", "Elsewhere"]
    assert made[0]["assignee"] == me["id"]
    assert [task["project_id"] for task in made] == [a_project["id"], a_project["id"], other]
    assert listed(api, "tasks", project_id=a_project["id"]) == made[:2]
    assert made == [api.get(f"/v1/tasks/{task['id']}").json() for task in made]


def test_without_a_project_they_go_to_the_inbox(as_member):
    made = create(as_member, "tasks/bulk", tasks=[{"name": "a"}, {"name": "b"}])
    inbox = create(as_member, "tasks", name="c")["project_id"]
    assert {task["project_id"] for task in made} == {inbox}


def test_later_ones_may_refer_to_earlier_ones(api, a_project):
    top, below = ids.new("task"), ids.new("task")
    tasks = [
        {"id": top, "name": "Top"},
        {"id": below, "name": "Below", "parent_id": top},
        {"name": "Waiting", "parent_id": below, "blocked_by": [top]},
    ]
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
    assert [task["parent_id"] for task in made] == [None, top, below]
    assert made[2]["blocked_by"] == [top]


def test_a_thousand_at_once_and_not_one_more(api, a_project):
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": str(n)} for n in range(1000)])
    assert names(api, "tasks", project_id=a_project["id"], limit=1000) == [str(n) for n in range(1000)]
    assert len({task["position"] for task in made}) == 1000
    refused = problem(ask(api, "POST", tasks=[{"name": "x"}] * 1001, project_id=a_project["id"]), 422)
    assert places(refused) == ["/tasks"]


def test_one_fault_keeps_all_from_being_written(api, a_project, heads):
    tasks = [{"name": f"Task {number}"} for number in range(20)]
    tasks[7]["assignee"] = "nobody"
    tasks[17] = {"nam": "x", "due_date": "soon"}
    before = heads()
    refused = problem(ask(api, "POST", tasks=tasks, project_id=a_project["id"]), 422)
    assert places(refused) == ["/tasks/7/assignee", "/tasks/17/nam", "/tasks/17/due_date", "/tasks/17/name"]
    assert heads() == before
    assert listed(api, "tasks", project_id=a_project["id"]) == []


def test_an_id_cannot_be_taken_twice_in_one_request(api, a_project, five):
    again = ids.new("task")
    tasks = [{"id": again, "name": "a"}, {"id": again, "name": "b"}, {"id": five[0], "name": "c"}]
    refused = problem(ask(api, "POST", tasks=tasks, project_id=a_project["id"]), 409)
    assert (places(refused), codes(refused)) == (["/tasks/1/id", "/tasks/2/id"], ["id_in_use", "id_in_use"])


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["/tasks"]),
        ({"tasks": []}, ["/tasks"]),
        ({"tasks": {"name": "x"}}, ["/tasks"]),
        ({"tasks": ["x", None]}, ["/tasks/0", "/tasks/1"]),
        ({"tasks": [{"name": "x"}], "project": "x"}, ["/project"]),
        ({"tasks": [{"name": "x"}], "project_id": 5}, ["/tasks/0/project_id"]),
        ([{"name": "x"}], [""]),
    ],
    ids=str,
)
def test_what_is_no_bulk_creation(api, body, wrong):
    refused = problem(api.post("/v1/tasks/bulk", json=body), 422)
    assert places(refused) == wrong


# ---- changing --------------------------------------------------------------------------------------------------------


def test_the_chosen_are_changed(api, a_project, five):
    change = {"status": "in_progress", "labels": ["both"], "custom_fields": {"n": 1}}
    response = ask(api, "PATCH", ids=[five[3], five[1]], set=change)
    assert response.status_code == 200
    assert [task["id"] for task in response.json()] == [five[3], five[1]], "in the order of the ids"
    assert all({name: task[name] for name in change} == change for task in response.json())
    assert names(api, "tasks", project_id=a_project["id"], labels="both") == ["Task 1", "Task 3"]
    assert {task["version"] for task in response.json()} == {2}


def test_what_a_filter_selects_is_changed(api, a_project, five):
    selected = {"project_id": a_project["id"], "priority": "high"}
    response = ask(api, "PATCH", filter=selected, set={"assignee": "me"})
    assert [task["name"] for task in response.json()] == ["Task 1", "Task 3"]
    assert len(listed(api, "tasks", project_id=a_project["id"], assignee="me")) == 2
    nothing = ask(api, "PATCH", filter={**selected, "name": "no such"}, set={"assignee": None})
    assert (nothing.status_code, nothing.json()) == (200, [])


def test_completing_many_makes_the_next_of_each_recurring_one(api, a_project, expect_events):
    tasks = [{"name": name, "recurrence": "FREQ=DAILY", "due_date": "2024-01-15"} for name in "ab"] + [{"name": "c"}]
    chosen = [task["id"] for task in create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)]
    events = ["task.updated", "task.completed"] * 3 + ["task.created"] * 2
    with expect_events(*events):
        done = ask(api, "PATCH", ids=chosen, set={"status": "completed"}).json()
    assert [(task["name"], task["status"]) for task in done] == [
        ("a", "completed"),
        ("b", "completed"),
        ("c", "completed"),
    ]
    following = listed(api, "tasks", project_id=a_project["id"], completed_at="null")
    assert [(task["name"], task["due_date"]) for task in following] == [("a", "2024-01-16"), ("b", "2024-01-16")]


def test_what_does_not_change_has_no_event(api, a_project, five, expect_events):
    with expect_events("task.updated", "task.updated"):
        changed = ask(api, "PATCH", ids=five, set={"priority": "low"}).json()
    assert [task["version"] for task in changed] == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=str)
def test_a_family_moves_together_whatever_the_order(api, a_project, order):
    """Moving a task moves its subtasks: who is chosen and moved along is moved once."""
    top = create(api, "tasks", name="Top", project_id=a_project["id"])
    below = create(api, "tasks", name="Below", parent_id=top["id"])
    deeper = create(api, "tasks", name="Deeper", parent_id=below["id"])
    family = [task["id"] for task in (top, below, deeper)]
    there = create(api, "projects", name="There")["id"]
    moved = ask(api, "PATCH", ids=[family[place] for place in order], set={"project_id": there, "labels": ["moved"]})
    assert moved.status_code == 200, moved.text
    found = listed(api, "tasks", project_id=there, labels="moved")
    assert [task["id"] for task in found] == family
    assert sorted(moved.json(), key=lambda task: task["id"]) == found, "the answer tells what is stored"
    assert {task["version"] for task in found} == {2}
    assert [task["parent_id"] for task in found] == [None, *family[:2]], "and stays a family"


def test_who_is_chosen_without_what_stands_between_stays_in_the_family_too(api, a_project):
    top = create(api, "tasks", name="Top", project_id=a_project["id"])
    below = create(api, "tasks", name="Below", parent_id=top["id"])
    deeper = create(api, "tasks", name="Deeper", parent_id=below["id"])
    there = create(api, "projects", name="There")["id"]
    ask(api, "PATCH", ids=[deeper["id"], top["id"]], set={"project_id": there})
    found = listed(api, "tasks", project_id=there)
    assert [task["parent_id"] for task in found] == [None, top["id"], below["id"]]
    back = ask(api, "PATCH", ids=[deeper["id"], below["id"]], set={"project_id": a_project["id"]}).json()
    assert [(task["name"], task["parent_id"]) for task in back] == [("Deeper", below["id"]), ("Below", None)]


def test_one_fault_keeps_all_from_being_changed(api, a_project, five, heads):
    before = heads()
    for change, wrong in (
        ({"nam": "x"}, "/set/nam"),
        ({"status": "done"}, "/set/status"),
        ({"assignee": "nobody"}, "/set/assignee"),
        ({"parent_id": five[2]}, "/set/parent_id"),
        ({"id": ids.new("task")}, "/set/id"),
    ):
        refused = problem(ask(api, "PATCH", ids=five, set=change), 422)
        assert set(places(refused)) == {wrong}
    refused = problem(ask(api, "PATCH", ids=[five[0], ids.new("task"), "x"], set={"name": "x"}), 422)
    assert (places(refused), set(codes(refused))) == (["/ids/1", "/ids/2"], {"unknown_reference"})
    assert heads() == before


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"set": {"name": "x"}}, ""),
        ({"ids": ["A"], "filter": {"priority": "high"}, "set": {"name": "x"}}, ""),
        ({"ids": ["A"]}, "/set"),
        ({"ids": ["A"], "set": []}, "/set"),
        ({"ids": [], "set": {"name": "x"}}, "/ids"),
        ({"ids": "A", "set": {"name": "x"}}, "/ids"),
        ({"ids": [5], "set": {"name": "x"}}, "/ids"),
        ({"filter": {}, "set": {"name": "x"}}, "/filter"),
        ({"filter": "all", "set": {"name": "x"}}, "/filter"),
        ({"filter": {"$and": [{}]}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"$or": [{}, {"priority": "high"}]}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"$and": [{"$or": [{"$and": [{}]}]}, {}]}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"labels": {"$nin": []}}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"custom_fields": {"a": {"$nin": []}}}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"$not": {"labels": {"$in": []}}}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"$not": {"$not": {}}}, "set": {"name": "x"}}, "/filter"),
        ({"filter": {"id": {"$exists": True}, "created_at": {"$ne": None}}, "set": {"name": "x"}}, "/filter"),
        ({"ids": ["A"], "set": {"name": "x"}, "sett": 1}, "/sett"),
    ],
    ids=str,
)
def test_what_is_no_bulk_change(api, five, heads, body, place):
    before = heads()
    filled = body | ({"ids": [five[0]]} if body.get("ids") == ["A"] else {})
    assert place in places(problem(ask(api, "PATCH", **filled), 422))
    assert heads() == before


@pytest.mark.parametrize(
    "document",
    [{}, {"$and": [{}]}, {"labels": {"$nin": []}}, {"$not": {"id": {"$exists": False}}}, {"$or": [{}]}],
    ids=str,
)
def test_what_excludes_no_task_deletes_none(api, five, heads, document):
    before = heads()
    refused = problem(ask(api, "DELETE", filter=document), 422)
    assert (places(refused), codes(refused)) == (["/filter"], ["wrong_type"])
    assert heads() == before


@pytest.mark.parametrize("document", [{"custom_fields": {}}, {"$and": [{"custom_fields": {}}]}], ids=str)
def test_custom_fields_without_a_key_are_a_fault_wherever_they_stand(api, five, heads, document):
    before = heads()
    responses = [
        ask(api, "DELETE", filter=document),
        ask(api, "PATCH", filter=document, set={"name": "x"}),
        api.post("/v1/tasks/query", json={"filter": document}),
    ]
    for response in responses:
        (place,) = places(problem(response, 400))
        assert place.startswith("/filter") and place.endswith("/custom_fields")
    assert heads() == before


@pytest.mark.parametrize(
    "document", [{"labels": {"$in": []}}, {"$not": {}}, {"$and": [{"id": {"$in": []}}, {}]}], ids=str
)
def test_a_filter_that_selects_nothing_changes_nothing(api, five, document):
    assert ask(api, "DELETE", filter=document).json() == []
    assert len(listed(api, "tasks", id=",".join(five))) == 5


def test_a_wrong_filter_is_told_like_in_a_list(api, five):
    refused = problem(ask(api, "PATCH", filter={"asignee": "me"}, set={"name": "x"}), 400)
    assert places(refused) == ["/filter/asignee"]


def test_a_filter_that_selects_more_than_a_thousand_changes_nothing(api, a_project, heads):
    for count in (1000, 1):
        create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": "x"}] * count)
    before = heads()
    for method, more in (("PATCH", {"set": {"name": "y"}}), ("DELETE", {})):
        refused = problem(ask(api, method, filter={"project_id": a_project["id"]}, **more), 422)
        assert (places(refused), codes(refused)) == (["/filter"], ["too_many"])
    assert heads() == before
    api.delete(f"/v1/tasks/{listed(api, 'tasks', project_id=a_project['id'], limit=1)[0]['id']}")
    changed = ask(api, "PATCH", filter={"project_id": a_project["id"]}, set={"name": "y"}).json()
    assert len(changed) == 1000


# ---- changing, with values for each ----------------------------------------------------------------------------------


def test_each_gets_values_of_its_own(api, a_project, five, expect_events):
    changes = [
        {"id": five[3], "name": "Renamed", "labels": ["a"]},
        {"id": five[0], "if_match": 1, "status": "completed", "custom_fields": {"n": 1}},
        {"id": five[1], "priority": "high"},
    ]
    with expect_events("task.updated", "task.updated", "task.completed"):
        response = ask(api, "PATCH", tasks=changes)
    assert response.status_code == 200, response.text
    done = response.json()
    assert [task["id"] for task in done] == [five[3], five[0], five[1]], "in the order given"
    assert [task["version"] for task in done] == [2, 2, 1], "what does not change has no event"
    assert (done[0]["name"], done[0]["labels"], done[1]["status"]) == ("Renamed", ["a"], "completed")
    assert done[1]["custom_fields"] == {"n": 1} and done[1]["completed_at"]
    assert [api.get(f"/v1/tasks/{task['id']}").json() for task in done] == done


def test_what_was_read_can_be_sent_back_whole(api, a_project, five):
    read = listed(api, "tasks", project_id=a_project["id"], include="assignee,project")
    for number, task in enumerate(read):
        task["estimate"] = number
    changed = ask(api, "PATCH", tasks=read)
    assert changed.status_code == 200, changed.text
    assert [task["estimate"] for task in changed.json()] == [0, 1, 2, 3, 4]


def test_a_thousand_changes_and_not_one_more(api, a_project):
    made = create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": str(n)} for n in range(1000)])
    changes = [{"id": task["id"], "name": f"Task {n}", "if_match": task["version"]} for n, task in enumerate(made)]
    assert [task["name"] for task in ask(api, "PATCH", tasks=changes).json()] == [f"Task {n}" for n in range(1000)]
    refused = problem(ask(api, "PATCH", tasks=[*changes, {"id": ids.new("task")}]), 422)
    assert places(refused) == ["/tasks"]


def test_one_fault_of_one_keeps_all_from_being_changed(api, a_project, five, heads):
    before = heads()
    faulty = [
        {"id": five[0], "name": "fine"},
        {"id": five[1], "nam": "x", "due_date": "soon"},
        {"id": five[2], "assignee": "nobody"},
        {"id": five[3], "if_match": [3]},
    ]
    refused = problem(ask(api, "PATCH", tasks=faulty), 422)
    assert set(places(refused)) == {"/tasks/1/nam", "/tasks/1/due_date", "/tasks/2/assignee", "/tasks/3/if_match"}
    unseen = problem(ask(api, "PATCH", tasks=[{"id": five[0], "name": "x"}, {"id": ids.new("task")}, {"id": "x"}]), 422)
    assert (places(unseen), set(codes(unseen))) == (["/tasks/1/id", "/tasks/2/id"], {"unknown_reference"})
    assert heads() == before


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"tasks": []}, ["/tasks"]),
        ({"tasks": {"id": "A"}}, ["/tasks"]),
        ({"tasks": None}, ["/tasks"]),
        ({"tasks": [{"name": "x"}]}, ["/tasks/0/id"]),
        ({"tasks": [5, {"id": 5}]}, ["/tasks/0", "/tasks/1/id"]),
        ({"tasks": [{"id": "A", "name": "x"}, {"id": "A", "name": "y"}]}, ["/tasks/1/id"]),
        ({"tasks": [{"id": "A"}], "set": {"name": "x"}}, ["/set"]),
        ({"tasks": [{"id": "A"}], "ids": ["A"]}, ["/ids"]),
    ],
    ids=str,
)
def test_what_is_no_change_with_values_for_each(api, body, wrong, heads):
    before = heads()
    assert places(problem(ask(api, "PATCH", **body), 422)) == wrong
    assert heads() == before


@pytest.mark.parametrize("named", [1, "1", '"1"', 'W/"1"'], ids=str)
def test_a_version_that_is_gone_is_told_with_the_task_as_it_is(api, five, heads, named):
    changed = api.patch(f"/v1/tasks/{five[2]}", json={"name": "Somebody was faster"}).json()
    before = heads()
    changes = [{"id": five[0], "name": "x", "if_match": 1}, {"id": five[2], "name": "x", "if_match": named}]
    refused = problem(ask(api, "PATCH", tasks=changes), 412, "precondition-failed")
    assert (refused["pointer"], refused["current"]) == ("/tasks/1/if_match", changed)
    assert heads() == before
    changes[1]["if_match"] = changed["version"]
    assert ask(api, "PATCH", tasks=changes).status_code == 200


def test_changes_of_several_are_judged_together(api, a_project, five):
    """They may build a family among themselves, in any order, but no circle."""
    changes = [{"id": five[2], "parent_id": five[1]}, {"id": five[1], "parent_id": five[0]}]
    assert [task["parent_id"] for task in ask(api, "PATCH", tasks=changes).json()] == [five[1], five[0]]
    turned = [
        {"id": five[0], "parent_id": five[2]},
        {"id": five[1], "parent_id": None},
        {"id": five[2], "parent_id": five[1]},
    ]
    assert ask(api, "PATCH", tasks=turned).status_code == 200
    circle = [{"id": five[3], "parent_id": five[4]}, {"id": five[4], "parent_id": five[3]}]
    assert problem(ask(api, "PATCH", tasks=circle), 422)
    blocking = [{"id": five[3], "blocked_by": [five[4]]}, {"id": five[4], "blocked_by": [five[3]]}]
    assert problem(ask(api, "PATCH", tasks=blocking), 422)


def test_a_change_of_several_can_be_tried_repeated_and_undone(api, a_project, five, heads):
    body = {"tasks": [{"id": five[0], "name": "First"}, {"id": five[1], "name": "Second"}]}
    before = heads()
    tried = api.patch("/v1/tasks/bulk?dry_run=true", json=body)
    assert [task["name"] for task in tried.json()] == ["First", "Second"] and heads() == before
    header = {"Idempotency-Key": ids.new("task")}
    first, again = (api.patch("/v1/tasks/bulk", json=body, headers=header) for _ in range(2))
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    undone = api.post("/v1/events/revert", json={"request_id": first.headers["x-request-id"]})
    assert undone.status_code == 200, undone.text
    assert names(api, "tasks", project_id=a_project["id"])[:2] == ["Task 0", "Task 1"]


def test_rights_are_those_of_a_single_change(api, as_viewer, as_guest, outsider, a_task):
    body = {"tasks": [{"id": a_task["id"], "name": "Mine now"}]}
    for client in (as_viewer, as_guest):
        alone = client.patch(f"/v1/tasks/{a_task['id']}", json={"name": "Mine now"}).status_code
        assert client.patch("/v1/tasks/bulk", json=body).status_code == alone
    problem(outsider.patch("/v1/tasks/bulk", json=body), 422)


def test_a_refusal_says_which_entry_it_is_about(api, as_guest, a_guest, a_task, a_project):
    """The guest may write some tasks of the request, and only look at others."""
    other = create(api, "projects", name="To look at")["id"]
    create(api, f"projects/{other}/members", user=a_guest.id, role="viewer")
    task = create(api, "tasks", name="Seen", project_id=other)["id"]
    mine = a_task["id"]
    refused = [
        ("PATCH", {"tasks": [{"id": mine, "name": "x"}, {"id": task, "name": "x"}]}, "/tasks/1", task),
        ("PATCH", {"tasks": [{"id": mine, "project_id": other}]}, "/tasks/0/project_id", mine),
        ("PATCH", {"ids": [mine, task], "set": {"name": "x"}}, "/ids/1", task),
        ("PATCH", {"ids": [mine], "set": {"project_id": other}}, "/set/project_id", mine),
        ("PATCH", {"filter": {"id": {"$in": [mine, task]}}, "set": {"name": "x"}}, "/filter", task),
        ("DELETE", {"ids": [mine, task]}, "/ids/1", task),
        ("DELETE", {"filter": {"id": {"$in": [mine, task]}}}, "/filter", task),
        ("POST", {"tasks": [{"name": "x", "project_id": a_project["id"]}, {"name": "x", "project_id": other}]},
         "/tasks/1", ""),
    ]  # fmt: skip
    for method, body, pointer, about in refused:
        document = problem(as_guest.request(method, "/v1/tasks/bulk", json=body), 403)
        assert document["pointer"] == pointer and about in document["detail"], (method, body)
    alone = problem(as_guest.patch(f"/v1/tasks/{task}", json={"name": "x"}), 403)
    assert "pointer" not in alone, "the URL names it"


# ---- deleting --------------------------------------------------------------------------------------------------------


def test_the_chosen_go_to_the_trash_with_what_is_below_them(api, a_project, five):
    create(api, "tasks", name="Below", parent_id=five[1])
    response = ask(api, "DELETE", ids=[five[1], five[3]])
    assert response.status_code == 200
    assert [task["id"] for task in response.json()] == [five[1], five[3]]
    assert all(task["deleted_at"] for task in response.json())
    assert names(api, "tasks", project_id=a_project["id"]) == ["Task 0", "Task 2", "Task 4"]
    api.post(f"/v1/tasks/{five[1]}/restore")
    assert names(api, "tasks", project_id=a_project["id"]) == ["Task 0", "Task 1", "Task 2", "Task 4", "Below"]


def test_what_a_filter_selects_goes_to_the_trash(api, a_project, five):
    ask(api, "DELETE", filter={"project_id": a_project["id"], "priority": "low"})
    assert names(api, "tasks", project_id=a_project["id"]) == ["Task 1", "Task 3"]


def test_a_task_chosen_with_its_parent_goes_once(api, a_project, five, expect_events):
    below = create(api, "tasks", name="Below", parent_id=five[0])["id"]
    with expect_events("task.deleted", "task.deleted"):
        gone = ask(api, "DELETE", ids=[below, five[0], below])
    assert gone.status_code == 200
    with expect_events():
        problem(ask(api, "DELETE", ids=[five[1], below]), 422)
    assert names(api, "tasks", project_id=a_project["id"]) == ["Task 1", "Task 2", "Task 3", "Task 4"]
