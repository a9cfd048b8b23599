"""Filters: what each operator finds among a dozen tasks that differ in one respect each.

Why by name: a filter is right when it finds these and leaves those out; every line below says both.
"""

import json
from typing import Any

import pytest

from tests.api.asking import codes, create, listed, names, places, problem

TASKS: dict[str, Any] = {
    "plain": {},
    "high": {"priority": "high", "estimate": 3},
    "urgent": {"priority": "urgent", "status": "in_progress", "estimate": 10},
    "dated": {"due_date": "2024-01-15"},
    "timed": {"due_date": "2024-01-15T18:30:00Z"},
    "next day": {"due_date": "2024-01-16", "start_date": "2024-01-10"},
    "labelled": {"labels": ["urgent", "client-work"]},
    "labelled too": {"labels": ["urgent-later"]},
    "mine": {"assignee": "me"},
    "Tom's": {"assignee": "tom"},
    "customer 8": {"custom_fields": {"customer": 8, "area": "web", "paid": True, "2024": "a"}},
    "customer 10": {"custom_fields": {"customer": 10, "area": ["web", "api"], "paid": False}},
    "customer x": {"custom_fields": {"customer": "x", "area": "a, b"}},
    "Straße 5%": {"description": "nothing"},
}
ALL = list(TASKS)


def but(*left_out):
    return [name for name in ALL if name not in left_out]


@pytest.fixture(scope="module")
def world(api):
    """The id of a project with these tasks; `subtask` and `blocked` are added to them."""
    email = "tom.of.filters@example.com"
    # The server may know him from an earlier time: the process that runs these tests may come back to them.
    known = listed(api, "users", email=email)
    tom = (known[0] if known else create(api, "users", name="Tom", email=email, handle="tom"))["id"]
    project = create(api, "projects", name="Filters")["id"]
    made = create(api, "tasks/bulk", project_id=project, tasks=[{"name": name, **more} for name, more in TASKS.items()])
    return {"project": project, "tom": tom, "email": email, "ids": {task["name"]: task["id"] for task in made}}


@pytest.fixture
def found(api, world):
    """Asks for the names that a filter finds."""

    def ask(**params):
        return names(api, "tasks", project_id=world["project"], **params)

    return ask


CASES = [
    ({}, ALL),
    # equal, any of, none of
    ({"priority": "high"}, ["high"]),
    ({"priority[$eq]": "high"}, ["high"]),
    ({"priority": ["high", "urgent"]}, ["high", "urgent"]),
    ({"priority": "high,urgent"}, ["high", "urgent"]),
    ({"priority[]": ["high", "urgent"]}, ["high", "urgent"]),
    ({"priority[0]": "high", "priority[1]": "urgent"}, ["high", "urgent"]),
    ({"priority[$in]": "high,urgent"}, ["high", "urgent"]),
    ({"priority[$in][]": ["high", "urgent"]}, ["high", "urgent"]),
    ({"priority[$in][0]": "high", "priority[$in][1]": "urgent"}, ["high", "urgent"]),
    ({"priority[$nin]": "none,urgent"}, ["high"]),
    ({"priority[$ne]": "none"}, ["high", "urgent"]),
    ({"status": "in_progress"}, ["urgent"]),
    # fixed words have an order
    ({"priority[$gte]": "high"}, ["high", "urgent"]),
    ({"priority[$gt]": "high"}, ["urgent"]),
    ({"priority[$lt]": "low"}, but("high", "urgent")),
    # several conditions hold together
    ({"priority[$gte]": "high", "status": "pending"}, ["high"]),
    ({"estimate[$gt]": "1", "estimate[$lt]": "5"}, ["high"]),
    # numbers compare as numbers
    ({"estimate[$gte]": "9"}, ["urgent"]),
    ({"estimate": "3.0"}, ["high"]),
    ({"estimate[$in]": ["3", "10"]}, ["high", "urgent"]),
    # days and times
    ({"due_date": "2024-01-15"}, ["dated", "timed"]),
    ({"due_date[$lte]": "2024-01-15"}, ["dated", "timed"]),
    ({"due_date[$lt]": "2024-01-15T18:30:00Z"}, []),  # a date is compared with the day of a time
    ({"due_date[$gte]": "2024-01-15T20:00:00Z", "due_date[$lt]": "2024-01-16"}, ["dated"]),
    ({"due_date[$gt]": "2024-01-15T17:00:00Z"}, ["timed", "next day"]),
    ({"due_date": "2024-01-15T00:00:00Z"}, []),
    ({"due_date[$lte]": "2024-01-15T18:30:00Z"}, ["dated", "timed"]),
    ({"due_date": "2024-01-15T18:30:00Z"}, ["timed"]),
    ({"due_date": "2024-01-15T20:30:00+02:00"}, ["timed"]),
    ({"due_date[$gt]": "2024-01-15"}, ["next day"]),
    ({"due_date[$gte]": "2024-01-15", "due_date[$lt]": "2024-01-16"}, ["dated", "timed"]),
    ({"due_date[$in]": ["2024-01-15", "2024-01-16"]}, ["dated", "timed", "next day"]),
    ({"due_date[$ne]": "2024-01-15"}, but("dated", "timed")),
    ({"due_before": "2024-01-15"}, []),
    ({"due_before": "2024-01-16"}, ["dated", "timed"]),
    ({"due_after": "2024-01-15T18:30:00Z"}, ["next day"]),
    ({"start_after": "2024-01-01"}, ["next day"]),
    ({"created_after": "-1d"}, ALL),
    ({"created_at[$gte]": "today"}, ALL),
    ({"created_before": "-1d"}, []),
    ({"due_date[$lt]": "today"}, ["dated", "timed", "next day"]),
    ({"due_date[$gt]": "+2w"}, []),
    # missing values
    ({"due_date": "null", "priority": "high"}, ["high"]),
    ({"due_date": ""}, but("dated", "timed", "next day")),
    ({"due_date[$exists]": "true"}, ["dated", "timed", "next day"]),
    ({"due_date[$exists]": "false"}, but("dated", "timed", "next day")),
    ({"due_date[$ne]": "null"}, ["dated", "timed", "next day"]),
    ({"assignee": "null", "estimate[$ne]": "null"}, ["high", "urgent"]),
    ({"assignee[$in]": "me,null", "priority": "none", "due_date": "null", "labels": "null",
      "custom_fields.customer": "null"}, ["plain", "mine", "Straße 5%"]),
    # people
    ({"assignee": "me"}, ["mine"]),
    ({"assignee": "tom"}, ["Tom's"]),
    ({"assignee": "TOM"}, ["Tom's"]),
    ({"assignee": "tom.of.filters@example.com"}, ["Tom's"]),
    ({"assignee": "tom,me"}, ["mine", "Tom's"]),
    ({"assignee[$ne]": "tom"}, but("Tom's")),
    # labels
    ({"labels": "urgent"}, ["labelled"]),
    ({"labels[$in]": "client-work,urgent-later"}, ["labelled", "labelled too"]),
    ({"labels[$in]": "urgent,client-work"}, ["labelled"]),
    ({"labels[$nin]": "urgent"}, but("labelled")),
    ({"labels[$contains]": "urgent"}, ["labelled"]),
    ({"labels[$prefix]": "urgent"}, ["labelled", "labelled too"]),
    ({"labels[$exists]": "true"}, ["labelled", "labelled too"]),
    ({"$and[0][labels]": "urgent", "$and[1][labels]": "client-work"}, ["labelled"]),
    ({"$and[0][labels]": "urgent", "$and[1][labels]": "urgent-later"}, []),
    # texts
    ({"name": "high"}, ["high"]),
    ({"name": "HIGH"}, []),
    ({"name[$contains]": "LABELLED"}, ["labelled", "labelled too"]),
    ({"name[$contains]": "STRASSE"}, ["Straße 5%"]),
    ({"name[$contains]": "5%"}, ["Straße 5%"]),
    ({"name[$contains]": "%"}, ["Straße 5%"]),
    ({"name[$contains]": "_"}, []),
    ({"name[$prefix]": "customer"}, ["customer 8", "customer 10", "customer x"]),
    ({"name[$prefix]": "ustomer"}, []),
    # custom fields
    ({"custom_fields.customer": "8"}, ["customer 8"]),
    ({"custom_fields[customer]": "8"}, ["customer 8"]),
    ({"custom_fields.customer[$gt]": "8"}, ["customer 10"]),
    ({"custom_fields[customer][$gte]": "8"}, ["customer 8", "customer 10"]),
    ({"custom_fields.customer[$gte]": "w"}, ["customer x"]),
    ({"custom_fields.customer[$exists]": "true", "custom_fields.paid": "true"}, ["customer 8"]),
    ({"custom_fields.paid": "false"}, ["customer 10"]),
    ({"custom_fields.area": "web"}, ["customer 8", "customer 10"]),
    ({"custom_fields.area[$in]": "api,x"}, ["customer 10"]),
    ({"custom_fields.area": "a, b"}, ["customer x"]),
    ({"custom_fields.area[$contains]": "eb"}, ["customer 8", "customer 10"]),
    ({"custom_fields.customer[$ne]": "8"}, but("customer 8")),
    ({"custom_fields.customer": "null"}, but("customer 8", "customer 10", "customer x")),
    ({"custom_fields[2024]": "a"}, ["customer 8"]),
    ({"custom_fields.2024": "a"}, ["customer 8"]),
    # groups
    ({"$or[0][priority]": "urgent", "$or[1][labels]": "urgent"}, ["urgent", "labelled"]),
    ({"$not[priority]": "none"}, ["high", "urgent"]),
    ({"$not[$or][0][priority]": "none", "$not[$or][1][estimate][$gt]": "5"}, ["high"]),
    ({"$or[0][$and][0][priority]": "high", "$or[0][$and][1][estimate]": "3", "$or[1][assignee]": "tom"},
     ["high", "Tom's"]),
    ({"$or[0][due_before]": "2024-01-16", "$or[1][custom_fields][customer][$gt]": "9"},
     ["dated", "timed", "customer 10"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "wanted"), CASES, ids=lambda value: json.dumps(value) if isinstance(value, dict) else ""
)
def test_what_a_filter_finds(found, params, wanted):
    assert found(**params) == wanted


DOCUMENTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"priority": {"$in": ["high", "urgent"]}}, ["high", "urgent"]),
    ({"priority": ["high", "urgent"]}, ["high", "urgent"]),
    ({"priority": {"$in": []}}, []),
    ({"priority": {"$nin": []}}, ALL),
    ({"due_date": None, "estimate": {"$ne": None}}, ["high", "urgent"]),
    ({"assignee": {"$in": ["tom", None]}, "priority": {"$gte": "high"}}, ["high", "urgent"]),
    ({"estimate": 3}, ["high"]),
    ({"estimate": {"$gt": 2.5, "$lt": 1e3}}, ["high", "urgent"]),
    ({"due_date": {"$exists": True}}, ["dated", "timed", "next day"]),
    ({"custom_fields.customer": 8}, ["customer 8"]),
    ({"custom_fields": {"customer": {"$gte": 8}, "area": "api"}}, ["customer 10"]),
    ({"custom_fields.paid": True}, ["customer 8"]),
    ({"custom_fields.customer": {"$in": [8, "x"]}}, ["customer 8", "customer x"]),
    ({"name": "a,b"}, []),
    ({"$or": [{"name": "high"}, {"$not": {"name": {"$ne": "mine"}}}]}, ["high", "mine"]),
    ({"$or": [{"priority": "high"}], "status": "pending"}, ["high"]),
    ({"$and": [{"priority": "high"}, {"estimate": 3}]}, ["high"]),
    ({"$not": {"priority": "none", "status": "pending"}}, ["high", "urgent"]),
    ({}, ALL),
]


@pytest.mark.parametrize(
    ("document", "wanted"), DOCUMENTS, ids=lambda value: json.dumps(value) if isinstance(value, dict) else ""
)
def test_what_a_document_finds(api, world, document, wanted):
    within = {"$and": [{"project_id": world["project"]}, document]} if document else {"project_id": world["project"]}
    by_body = api.post("/v1/tasks/query", json={"filter": within})
    assert [task["name"] for task in by_body.json()] == wanted
    assert names(api, "tasks", filter=json.dumps(within)) == wanted
    assert names(api, "tasks", filter=json.dumps(document), project_id=world["project"]) == wanted


def test_ids_find_their_tasks(api, world, found):
    ids = world["ids"]
    assert found(id=ids["high"]) == ["high"]
    assert found(id=[ids["high"], ids["mine"]]) == ["high", "mine"]
    assert found(**{"id[$nin]": ",".join(list(ids.values())[:12])}) == ALL[12:]
    assert names(api, "projects", id=world["project"]) == ["Filters"]
    assert [user["name"] for user in listed(api, "users", handle="tom")] == ["Tom"]


def test_subtasks_and_blockers_are_found_by_their_task(api, a_project):
    project = a_project["id"]
    first = create(api, "tasks", name="First", project_id=project)["id"]
    create(api, "tasks", name="Below", parent_id=first)
    create(api, "tasks", name="Waiting", project_id=project, blocked_by=[first])
    assert names(api, "tasks", parent_id=first) == ["Below"]
    assert names(api, "tasks", blocked_by=first) == ["Waiting"]
    assert names(api, "tasks", project_id=project, parent_id="null") == ["First", "Waiting"]
    assert names(api, "tasks", project_id=project, **{"blocked_by[$exists]": "false"}) == ["First", "Below"]


def test_completion_is_found_by_its_time(api, a_project):
    for name, status in (("Done", "completed"), ("Open", "pending")):
        create(api, "tasks", name=name, status=status, project_id=a_project["id"])
    question = {"project_id": a_project["id"]}
    assert names(api, "tasks", **question, **{"completed_at[$gte]": "yesterday"}) == ["Done"]
    assert names(api, "tasks", **question, completed_after="-1h") == ["Done"]
    assert names(api, "tasks", **question, completed_at="null") == ["Open"]
    assert names(api, "tasks", **question, completed_before="yesterday") == []


def test_filters_follow_changes(api, a_project, a_task):
    question = {"project_id": a_project["id"]}
    change = {"labels": ["new"], "custom_fields": {"size": 3}, "due_date": "2030-01-01", "priority": "high"}
    api.patch(f"/v1/tasks/{a_task['id']}", json=change)
    conditions = {"labels": "new", "custom_fields.size[$gt]": "2", "due_after": "2029-01-01", "priority": "high"}
    assert names(api, "tasks", **question, **conditions) == ["A task"]
    taken_back: dict[str, Any] = {"labels": [], "custom_fields": {"size": None}, "due_date": None, "priority": "low"}
    api.patch(f"/v1/tasks/{a_task['id']}", json=taken_back)
    for name, value in conditions.items():
        assert names(api, "tasks", **question, **{name: value}) == [], name


def test_other_resources_take_filters_too(api, home, a_project, a_task, me):
    project = create(api, "projects", name="Board of filters", type="board", custom_fields={"customer_id": "c42"})
    assert listed(api, "projects", workspace_id=home, type="board", **{"custom_fields.customer_id": "c42"}) == [project]
    comment = create(api, "comments", task_id=a_task["id"], body="A remark")
    assert listed(api, "comments", task_id=a_task["id"], author="me") == [comment]
    assert listed(api, "comments", task_id=a_task["id"], **{"author[$ne]": "me"}) == []
    assert [key["id"] for key in listed(api, "api-keys", **{"name[$contains]": "no such key"})] == []
    assert me["id"] in [user["id"] for user in listed(api, "users", kind="person", q="owner")]


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"priority": "hgih"}, "priority", "not_allowed", 'Did you mean "high"?'),
    ({"asignee": "tom"}, "asignee", "unknown_parameter", 'Did you mean "assignee"?'),
    ({"due_date[$gt]": "soon"}, "due_date[$gt]", "invalid_date", "relative values"),
    ({"due_date": "2024-02-30"}, "due_date", "invalid_date", "there is no such day"),
    ({"due_date[$get]": "today"}, "due_date[$get]", "unknown_operator", 'Did you mean "$gt"?'),
    ({"estimate": "many"}, "estimate", "wrong_type", "number"),
    ({"estimate[$contains]": "1"}, "estimate[$contains]", "not_allowed", "no text"),
    ({"assignee[$gt]": "tom"}, "assignee[$gt]", "not_allowed", "$eq"),
    ({"labels[$gt]": "a"}, "labels[$gt]", "not_allowed", "$in"),
    ({"name[$contains]": ""}, "name[$contains]", "wrong_type", "not empty"),
    ({"assignee": "nobody"}, "assignee", "unknown_reference", "handle"),
    ({"due_date[$exists]": "perhaps"}, "due_date[$exists]", "wrong_type", "true or false"),
    ({"description": "x"}, "description", "unknown_parameter", ""),
    ({"deleted_at": "null"}, "deleted_at", "unknown_parameter", ""),
    ({"custom_fields": "x"}, "custom_fields", "malformed_parameter", "custom_fields.key"),
    ({"custom_fields[$exists]": "true"}, "custom_fields[$exists]", "malformed_parameter", "custom_fields.key"),
    ({"custom_fields.": "x"}, "custom_fields.", "malformed_parameter", "custom_fields.key"),
    ({"$or": "x"}, "$or", "wrong_type", "list"),
    ({"sort": "custom_fields."}, "sort", "unknown_sort", "custom_fields.<key>"),
    ({"sort": "custom_fields.$size"}, "sort", "unknown_sort", "custom_fields.<key>"),
    ({"due_date": "[object Object]"}, "due_date", "malformed_parameter", "qs"),
    ({"due_date[": "x"}, "due_date[", "malformed_parameter", "balanced"),
    ({"due_date]": "x"}, "due_date]", "malformed_parameter", "balanced"),
    ({"filter": "{"}, "filter", "malformed_json", "JSON"),
    ({"filter": "[]"}, "filter", "wrong_type", "object"),
    ({"filter": '{"asignee":"tom"}'}, "filter", "unknown_parameter", 'Did you mean "assignee"?'),
]  # fmt: skip


@pytest.mark.parametrize(("params", "place", "code", "hint"), REFUSED, ids=[json.dumps(case[0]) for case in REFUSED])
def test_what_cannot_be_asked_is_refused_with_a_reason(api, world, params, place, code, hint):
    refused = problem(api.get("/v1/tasks", params=params), 400, "invalid-query")
    assert (places(refused), codes(refused)) == ([place], [code])
    assert hint in refused["errors"][0]["detail"]


def test_all_faults_are_told_at_once(api, world):
    params = {
        "asignee": "tom",
        "priority": "hgih",
        "due_date[$gt]": "soon",
        "sort": "nam",
        "limit": "0",
        "include": "x",
    }
    refused = problem(api.get("/v1/tasks", params=params), 400)
    assert sorted(places(refused)) == sorted(params)


def test_a_document_names_the_place_by_a_pointer(api, world):
    document = {"filter": {"$or": [{"priority": "high"}, {"labels": {"$in": ["a"]}, "asignee": "tom"}]}, "sort": "nam"}
    refused = problem(api.post("/v1/tasks/query", json=document), 400)
    assert sorted(places(refused)) == ["/filter/$or/1/asignee", "/sort"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"$or": [{"priority": "high"}] * 201}, "too_many"),
        ({"$not": {"$not": {"$not": {"$not": {"$not": {"priority": "high"}}}}}}, "too_deep"),
        ({"name": {"$in": ["x"] * 1001}}, "too_many"),
    ],
    ids=["201 conditions", "6 levels", "1001 values"],
)
def test_there_are_limits(api, world, document, code):
    refused = problem(api.post("/v1/tasks/query", json={"filter": document}), 400)
    assert codes(refused) == [code]


def test_many_long_lists_of_values(api, world):
    """More values than a statement of SQLite can have parameters."""
    lists = [{"name": {"$in": [f"{place} {number}" for number in range(999)] + ["mine"]}} for place in range(60)]
    document = {"$and": [{"project_id": world["project"]}, *lists]}
    assert [task["name"] for task in api.post("/v1/tasks/query", json={"filter": document}).json()] == ["mine"]


def test_just_within_the_limits(api, world):
    deepest = {"$not": {"$not": {"$not": {"name": {"$in": ["mine"] * 1000}}}}}
    within = {"project_id": world["project"], "$or": [{"name": "high"}] * 198 + [deepest]}
    assert [task["name"] for task in api.post("/v1/tasks/query", json={"filter": within}).json()] == but("mine")


def test_sorts_and_includes_have_limits_too(api, world):
    nine = "name,status,priority,due_date,start_date,created_at,updated_at,position,estimate"
    assert codes(problem(api.get("/v1/tasks", params={"sort": nine}), 400)) == ["too_many"]
    nine = "assignee,project,parent,workspace,subtasks,comments,blocked_by,created_by,project.members"
    assert codes(problem(api.get("/v1/tasks", params={"include": nine}), 400)) == ["too_many"]
    deep = problem(api.get("/v1/tasks", params={"include": "project.members.user"}), 400)
    assert codes(deep) == ["too_deep"]
