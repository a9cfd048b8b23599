"""Lists: pages, order, totals, includes, chosen fields, search and the trash.

Why so many small cases: a list is what every integration reads first, and one that leaves out a row, shows one
twice or ignores a parameter is wrong in a way that nobody notices.
"""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, names, pages, problem

TEN = ["pear", "Apple", "fig", "apple", "Élan", "banana", "cherry", "date", "Zebra", "elderberry"]


@pytest.fixture
def fruit(api, a_project):
    """Ten tasks in a project, in the order of `TEN`."""
    return create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": name} for name in TEN])


def plant(api, project, *tasks):
    return create(api, "tasks/bulk", project_id=project["id"], tasks=list(tasks))


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_a_list_is_a_bare_array_in_the_order_of_creation(api, a_project, fruit):
    assert listed(api, "tasks", project_id=a_project["id"]) == fruit
    assert [task["name"] for task in fruit] == TEN


@pytest.mark.parametrize("sort", ["", "name", "-name", "-created_at", "due_date", "-priority,name"])
@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
def test_following_the_links_shows_each_row_once(api, a_project, fruit, limit, sort):
    params = {"project_id": a_project["id"], **({"sort": sort} if sort else {})}
    whole = listed(api, "tasks", **params)
    found = pages(api, "tasks", limit=limit, **params)
    assert [task for page in found for task in page] == whole
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 1 <= len(found[-1]) <= limit


def test_the_link_repeats_the_question(api, server, a_project, fruit):
    question = {"project_id": a_project["id"], "sort": "-name", "limit": "2", "fields": "id,name", "name[$ne]": "fig"}
    link = api.get("/v1/tasks", params=question).headers["link"]
    address = urlsplit(link[1 : link.index(">")])
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{server.url}/v1/tasks"
    repeated = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert repeated.pop("cursor")
    assert repeated == question


def test_a_page_may_have_another_size_than_the_one_before(api, a_project, fruit):
    first = api.get("/v1/tasks", params={"project_id": a_project["id"], "limit": 3})
    rest = api.get(first.links["next"]["url"].replace("limit=3", "limit=50"))
    assert first.json() + rest.json() == fruit
    assert "link" not in rest.headers


def test_rows_that_come_and_go_while_paging_disturb_nobody_else(api, a_project, fruit):
    question = {"project_id": a_project["id"], "sort": "name", "limit": 4}
    first = api.get("/v1/tasks", params=question)
    assert [task["name"] for task in first.json()] == ["Apple", "apple", "banana", "cherry"]
    for gone in ("apple", "cherry", "date"):
        [task] = [task for task in fruit if task["name"] == gone]
        assert api.delete(f"/v1/tasks/{task['id']}").status_code == 204
    plant(api, a_project, {"name": "aardvark"}, {"name": "damson"})
    second = api.get(first.links["next"]["url"])
    assert [task["name"] for task in second.json()] == ["damson", "Élan", "elderberry", "fig"]
    third = api.get(second.links["next"]["url"])
    assert [task["name"] for task in third.json()] == ["pear", "Zebra"]
    assert "next" not in third.links


def test_a_list_has_100_rows_unless_asked_for_more(api, a_crowd):
    response = api.get("/v1/tasks", params={"project_id": a_crowd})
    assert len(response.json()) == 100
    assert "next" in response.links
    assert len(listed(api, "tasks", project_id=a_crowd, limit=1000)) == 1000


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1.5", "", "1e2", "٣"])
def test_a_limit_out_of_range_is_refused(api, limit):
    refused = problem(api.get("/v1/tasks", params={"limit": limit}), 400)
    assert codes(refused) == ["out_of_range"]


def test_the_total_is_counted_when_asked_for(api, a_project, fruit):
    question = {"project_id": a_project["id"], "limit": 2, "name[$contains]": "an"}
    assert "total-count" not in api.get("/v1/tasks", params=question).headers
    response = api.get("/v1/tasks", params=question | {"count": "true"})
    assert response.headers["total-count"] == "2"
    response = api.get("/v1/tasks", params={"project_id": a_project["id"], "limit": 2, "count": "true"})
    assert (response.headers["total-count"], len(response.json())) == ("10", 2)
    assert api.get(response.links["next"]["url"]).headers["total-count"] == "10", "the whole, not what is left"


@pytest.fixture(scope="module")
def a_crowd(api):
    """The id of a project with more tasks than one page can have."""
    project = create(api, "projects", name="A crowd")["id"]
    for count in (1000, 1):
        create(api, "tasks/bulk", project_id=project, tasks=[{"name": "One of many", "labels": ["many"]}] * count)
    return project


# ---- order -----------------------------------------------------------------------------------------------------------


def test_names_sort_without_regard_to_case_and_accents(api, a_project, fruit):
    project = a_project["id"]
    folded = ["Apple", "apple", "banana", "cherry", "date", "Élan", "elderberry", "fig", "pear", "Zebra"]
    assert names(api, "tasks", project_id=project, sort="name") == folded
    # Of two that differ in case alone, case decides.
    assert names(api, "tasks", project_id=project, sort="-name") == list(reversed(folded))


def test_missing_values_come_last_in_either_direction(api, a_project):
    plant(
        api,
        a_project,
        {"name": "never"},
        {"name": "late", "due_date": "2024-03-01"},
        {"name": "early", "due_date": "2024-01-01"},
        {"name": "never either"},
        {"name": "midday", "due_date": "2024-01-01T12:00:00Z"},
    )
    project = a_project["id"]
    dated = ["early", "midday", "late"]
    assert names(api, "tasks", project_id=project, sort="due_date") == [*dated, "never", "never either"]
    assert names(api, "tasks", project_id=project, sort="-due_date") == [*dated[::-1], "never either", "never"]
    for sort in ("due_date", "-due_date"):
        whole = listed(api, "tasks", project_id=project, sort=sort)
        for limit in (1, 2, 3, 4):
            found = pages(api, "tasks", project_id=project, sort=sort, limit=limit)
            assert [task for page in found for task in page] == whole


def test_fixed_words_sort_by_their_meaning(api, a_project):
    plant(api, a_project, *[{"name": word, "priority": word} for word in ("low", "urgent", "none", "high", "medium")])
    by_urgency = ["urgent", "high", "medium", "low", "none"]
    assert names(api, "tasks", project_id=a_project["id"], sort="-priority") == by_urgency


def test_several_keys_each_with_its_direction(api, a_project):
    plant(
        api,
        a_project,
        {"name": "a", "priority": "low", "estimate": 1},
        {"name": "b", "priority": "high", "estimate": 2},
        {"name": "c", "priority": "high"},
        {"name": "d", "priority": "high", "estimate": 3},
        {"name": "e", "priority": "low", "estimate": 1},
    )
    project = a_project["id"]
    for sort in ("-priority,estimate,-name", ["-priority", "estimate", "-name"], "-priority, +estimate ,-name"):
        assert names(api, "tasks", project_id=project, sort=sort) == ["b", "d", "c", "e", "a"]
    assert names(api, "tasks", project_id=project, sort="priority,-estimate") == ["e", "a", "d", "b", "c"]
    found = pages(api, "tasks", project_id=project, sort="priority,-estimate", limit=2)
    assert [task["name"] for page in found for task in page] == ["e", "a", "d", "b", "c"]


def test_custom_fields_sort_numbers_first_then_texts_then_nothing(api, a_project):
    values = {"ten": 10, "nine": 9, "text": "10", "word": "b", "many": ["c", "a"], "half": 0.5}
    tasks = [{"name": name, "custom_fields": {"size": value}} for name, value in values.items()]
    plant(api, a_project, {"name": "none"}, *tasks)
    project = a_project["id"]
    up = ["half", "nine", "ten", "text", "many", "word", "none"]
    assert names(api, "tasks", project_id=project, sort="custom_fields.size") == up
    down = names(api, "tasks", project_id=project, sort="-custom_fields.size")
    assert down == ["ten", "nine", "half", "word", "many", "text", "none"]
    found = pages(api, "tasks", project_id=project, sort="-custom_fields.size", limit=2)
    assert [task["name"] for page in found for task in page] == down


def test_lists_reach_across_workspaces_in_order(api, as_member, a_member):
    """Everything one may see is one list, whatever workspace it is in."""
    made = []
    label = ids.new("x")
    for number in range(3):
        workspace = create(api, "workspaces", name=f"Team {number}")["id"]
        create(api, f"workspaces/{workspace}/members", user=a_member.id, role="member")
        made.append(create(api, "projects", name="A project", workspace_id=workspace)["id"])
    tasks = []
    for turn in range(2):
        for project in made:
            task = {"project_id": project, "labels": [label], "name": f"{turn}", "due_date": f"2024-01-0{3 - turn}"}
            tasks.append(create(as_member, "tasks", **task)["id"])
    for sort, wanted in (
        ("", tasks),
        ("-created_at", tasks[::-1]),
        ("due_date", tasks[3:] + tasks[:3]),
        ("-due_date,name", tasks[:3] + tasks[3:]),
        ("completed_at", tasks),
    ):
        found = pages(as_member, "tasks", labels=label, limit=2, **({"sort": sort} if sort else {}))
        assert [task["id"] for page in found for task in page] == wanted, sort


# ---- includes and fields ---------------------------------------------------------------------------------------------


@pytest.fixture
def family(api, a_project, me):
    """A parent with two subtasks, a blocker and a comment."""
    project = a_project["id"]
    blocker = create(api, "tasks", name="Blocker", project_id=project)
    parent = create(api, "tasks", name="Parent", project_id=project, assignee="me", blocked_by=[blocker["id"]])
    children = [create(api, "tasks", name=name, parent_id=parent["id"]) for name in ("First", "Second")]
    comment = create(api, "comments", task_id=parent["id"], body="A remark")
    return {"parent": parent, "blocker": blocker, "children": children, "comment": comment, "me": me}


def test_an_include_takes_the_place_of_the_id(api, family):
    task_id = family["parent"]["id"]
    [task] = listed(api, "tasks", id=task_id, include="assignee,created_by,blocked_by")
    assert (task["assignee"], task["created_by"]) == (family["me"], family["me"])
    assert task["blocked_by"] == [family["blocker"]]
    rest = {"assignee", "created_by", "blocked_by"}
    assert {key: value for key, value in task.items() if key not in rest} == {
        key: value for key, value in family["parent"].items() if key not in rest
    }


def test_an_include_beside_the_id_is_added(api, family, a_project, home):
    task_id = family["parent"]["id"]
    [task] = listed(api, "tasks", id=task_id, include="project,workspace,parent,subtasks,comments")
    assert task["project_id"] == a_project["id"]
    assert task["project"] == a_project
    assert task["workspace"]["id"] == home
    assert task["parent"] is None
    assert task["subtasks"] == family["children"]
    assert task["comments"] == [family["comment"]]


@pytest.mark.parametrize(
    "params",
    [
        {"include": "assignee,project"},
        {"include": ["assignee", "project"]},
        {"include[]": ["assignee", "project"]},
        {"include[0]": "assignee", "include[1]": "project"},
    ],
    ids=str,
)
def test_spellings_of_include(api, family, params):
    [task] = listed(api, "tasks", id=family["parent"]["id"], **params)
    assert task["assignee"]["name"] == family["me"]["name"]
    assert task["project"]["name"] == "A project"


def test_includes_on_one_resource_and_deeper(api, family, a_project, a_member):
    create(api, f"projects/{a_project['id']}/members", user=a_member.id, role="editor")
    task = api.get(f"/v1/tasks/{family['parent']['id']}", params={"include": "project.members,subtasks.created_by"})
    assert [member["user"] for member in task.json()["project"]["members"]] == [a_member.id]
    assert {child["created_by"]["id"] for child in task.json()["subtasks"]} == {family["me"]["id"]}
    project = api.get(f"/v1/projects/{a_project['id']}", params={"include": "tasks,members.user"}).json()
    assert [task["name"] for task in project["tasks"]] == ["Blocker", "Parent", "First", "Second"]
    assert [member["user"]["id"] for member in project["members"]] == [a_member.id]


def test_what_is_missing_is_included_as_null_or_empty(api, a_task, a_project):
    [task] = listed(api, "tasks", id=a_task["id"], include="assignee,parent,subtasks,comments,blocked_by")
    found = [task[name] for name in ("assignee", "parent", "subtasks", "comments", "blocked_by")]
    assert found == [None, None, [], [], []]
    [project] = listed(
        api, "projects", id=create(api, "projects", name="Empty")["id"], include="tasks,members,template"
    )
    assert [project[name] for name in ("tasks", "members", "template")] == [[], [], None]


def test_what_lies_in_the_trash_is_not_included(api, family):
    for gone in (family["children"][0], family["blocker"]):
        assert api.delete(f"/v1/tasks/{gone['id']}").status_code == 204
    assert api.delete(f"/v1/comments/{family['comment']['id']}").status_code == 204
    task = api.get(f"/v1/tasks/{family['parent']['id']}", params={"include": "subtasks,comments,blocked_by"}).json()
    assert [child["name"] for child in task["subtasks"]] == ["Second"]
    assert task["comments"] == []
    assert task["blocked_by"] == [family["blocker"]["id"]], "the reference stays, as an id"


def test_the_key_of_a_custom_field_may_have_commas(api, a_project):
    """Behind a backslash, which no key has."""
    project = a_project["id"]
    for name, size in (("B", 2), ("A", 1), ("C", 3)):
        create(api, "tasks", name=name, project_id=project, custom_fields={"w, h,d": size, "w": 0})
    assert names(api, "tasks", project_id=project, sort=r"custom_fields.w\, h\,d") == ["A", "B", "C"]
    assert names(api, "tasks", project_id=project, sort=r"custom_fields.w,-custom_fields.w\, h\,d") == ["C", "B", "A"]
    found = pages(api, "tasks", project_id=project, sort=r"-custom_fields.w\, h\,d", limit=2)
    assert [task["name"] for page in found for task in page] == ["C", "B", "A"]
    body = {"filter": {"project_id": project}, "sort": [r"-custom_fields.w\, h\,d", "name"]}
    assert [task["name"] for task in api.post("/v1/tasks/query", json=body).json()] == ["C", "B", "A"]


def test_custom_fields_that_are_called_like_members_confuse_no_include(api, me, a_project, a_task):
    """Includes are spliced into stored text: what looks like a member further down must not be taken for one."""
    other = create(api, "tasks", name='Its "assignee":"me" is a name', project_id=a_project["id"])
    values = {"assignee": me["id"], "parent_id": a_task["id"], "created_by": "x", "id": a_task["id"], "project_id": "x"}
    task = create(api, "tasks", name="Odd", project_id=a_project["id"], custom_fields=values)
    [found] = listed(api, "tasks", id=task["id"], include="assignee,parent,created_by,project,subtasks")
    assert (found["assignee"], found["parent"], found["subtasks"]) == (None, None, [])
    assert (found["created_by"]["id"], found["project"]["id"]) == (me["id"], a_project["id"])
    assert found["custom_fields"] == values
    [found] = listed(api, "tasks", id=other["id"], include="assignee")
    assert found == other


def test_includes_of_many_rows_are_cut_at_1000_and_say_so(api, a_crowd):
    project = api.get(f"/v1/projects/{a_crowd}", params={"include": "tasks"}).json()
    assert len(project["tasks"]) == 1000
    assert project["tasks_truncated"] is True


def test_fields_choose_members(api, family):
    task_id = family["parent"]["id"]
    assert listed(api, "tasks", id=task_id, fields="name,id") == [{"name": "Parent", "id": task_id}]
    assert listed(api, "tasks", id=task_id, **{"fields[]": ["name", "custom_fields"]}) == [
        {"name": "Parent", "custom_fields": {}}
    ]
    one = api.get(f"/v1/tasks/{task_id}", params={"fields": "status"})
    assert one.json() == {"status": "pending"}
    [task] = listed(api, "tasks", id=task_id, fields="name", include="assignee,subtasks")
    assert set(task) == {"name", "assignee", "subtasks"}
    assert task["assignee"]["id"] == family["me"]["id"]


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("mockups", ["Design mockups"]),
        ("MOCK", ["Design mockups"]),  # the beginning of a word, in any case
        ("mockups design", ["Design mockups"]),  # in any order
        ("ockups", []),  # not its middle
        ("cafe", ["Café menü"]),  # without accents
        ("CAFÉ", ["Café menü"]),
        ("strasse", ["Straße fegen"]),
        ("draft", ["Write report"]),  # the description, too
        ("report Design", []),  # all words
        ("re-design", ["Re-design, again"]),  # punctuation separates words
        ("again re", ["Re-design, again"]),
        ("日本", ["日本語 task"]),
        ("task", ["日本語 task"]),
        ('"quoted" OR *', ["Say \"quoted\" or 'x' & y | z"]),  # no operators of any database
        ("x & y | z", ["Say \"quoted\" or 'x' & y | z"]),
        ("2024", ["Plan 2024"]),
        ("nowhere", []),
    ],
)
def test_search(api, searchable, q, found):
    assert names(api, "tasks", project_id=searchable, q=q) == found


@pytest.fixture(scope="module")
def searchable(api):
    project = create(api, "projects", name="Searchable")["id"]
    texts = ["Design mockups", "Café menü", "Straße fegen", "Re-design, again", "日本語 task", "Plan 2024"]
    tasks = [{"name": text} for text in [*texts, "Say \"quoted\" or 'x' & y | z"]]
    tasks.append({"name": "Write report", "description": "A first *draft*."})
    create(api, "tasks/bulk", project_id=project, tasks=tasks)
    return project


def test_search_follows_changes(api, a_project, a_task):
    project = {"project_id": a_project["id"]}
    api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "Zucchini", "description": "with basil"})
    assert names(api, "tasks", q="zucc basil", **project) == ["Zucchini"]
    api.patch(f"/v1/tasks/{a_task['id']}", json={"description": None})
    assert names(api, "tasks", q="basil", **project) == []
    assert names(api, "tasks", q="task", **project) == []
    api.delete(f"/v1/tasks/{a_task['id']}")
    assert names(api, "tasks", q="zucchini", **project) == []
    assert names(api, "tasks", q="zucchini", deleted="true", **project) == ["Zucchini"]
    api.post(f"/v1/tasks/{a_task['id']}/restore")
    assert names(api, "tasks", q="zucchini", **project) == ["Zucchini"]


def test_search_goes_with_filters_order_and_pages(api, a_project):
    tasks = [{"name": f"Order {number}", "priority": "high" if number % 2 else "low"} for number in range(7)]
    plant(api, a_project, *tasks, {"name": "Disorder"})
    question = {"project_id": a_project["id"], "q": "order", "priority": "high", "sort": "-name"}
    assert names(api, "tasks", **question) == ["Order 5", "Order 3", "Order 1"]
    found = pages(api, "tasks", limit=2, **question)
    assert [[task["name"] for task in page] for page in found] == [["Order 5", "Order 3"], ["Order 1"]]


def test_an_empty_search_is_none_and_one_without_words_is_refused(api, a_project, a_task):
    assert names(api, "tasks", project_id=a_project["id"], q="") == ["A task"]
    for q in ("---", '"', "&|"):
        assert problem(api.get("/v1/tasks", params={"q": q}), 400)["errors"][0]["parameter"] == "q"


# ---- the trash -------------------------------------------------------------------------------------------------------


def test_the_trash_is_a_list_of_its_own(api, a_project, fruit):
    project = {"project_id": a_project["id"]}
    for task in fruit[:4]:
        assert api.delete(f"/v1/tasks/{task['id']}").status_code == 204
    assert names(api, "tasks", **project) == TEN[4:]
    assert names(api, "tasks", **project, deleted="true", sort="name") == ["Apple", "apple", "fig", "pear"]
    response = api.get("/v1/tasks", params=project | {"deleted": "true", "count": "true", "limit": 3})
    assert response.headers["total-count"] == "4"
    assert len(response.json() + api.get(response.links["next"]["url"]).json()) == 4
    assert all(task["deleted_at"] for task in response.json())


def test_what_lies_in_the_trash_is_not_found_but_says_how_to_get_it_back(api, a_task):
    api.delete(f"/v1/tasks/{a_task['id']}")
    gone = problem(api.get(f"/v1/tasks/{a_task['id']}"), 404)
    way_back = f"/v1/tasks/{a_task['id']}/restore"
    assert way_back in gone["detail"]
    problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}), 404)
    problem(api.delete(f"/v1/tasks/{a_task['id']}"), 404)
    back = api.post(way_back)
    assert back.status_code == 200
    assert back.json()["deleted_at"] is None
    assert api.get(f"/v1/tasks/{a_task['id']}").json() == back.json()
    assert api.post(way_back).json() == back.json(), "once more changes nothing"


# ---- a document instead of parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("QUERY", "/v1/tasks"), ("POST", "/v1/tasks/query")])
def test_a_document_says_what_parameters_say(api, a_project, fruit, method, path):
    document = {
        "filter": {"project_id": a_project["id"], "name": {"$contains": "e"}},
        "sort": ["-name"],
        "limit": 3,
        "include": ["project"],
        "fields": ["name"],
        "count": True,
    }
    asked = {**document, "filter": json.dumps(document["filter"]), "count": "true"}
    by_parameters = api.get("/v1/tasks", params=asked)
    by_document = api.request(method, path, json=document)
    assert by_document.json() == by_parameters.json()
    assert [task["name"] for task in by_document.json()] == ["Zebra", "pear", "elderberry"]
    assert by_document.headers["total-count"] == "7"
    second = api.request(method, by_document.links["next"]["url"], json=document)
    assert second.json() == api.get(by_parameters.links["next"]["url"]).json()
    cursor = parse_qs(urlsplit(second.links["next"]["url"]).query)["cursor"][0]
    third = api.request(method, path, json=document | {"cursor": cursor})
    assert [task["name"] for task in third.json()] == ["Apple"]
    assert "next" not in third.links


def test_a_cursor_is_good_for_one_question_only(api, a_project, fruit):
    project = a_project["id"]

    def cursor_of(**params):
        link = api.get("/v1/tasks", params={"limit": 2, **params}).links["next"]["url"]
        return parse_qs(urlsplit(link).query)["cursor"][0]

    cursor = cursor_of(filter=json.dumps({"project_id": project}))
    for other in (
        {"filter": json.dumps({"project_id": project, "status": "pending"})},
        {"project_id": project, "sort": "name"},
        {"project_id": project, "q": "a"},
        {"project_id": project, "deleted": "true"},
        {},
    ):
        refused = problem(api.get("/v1/tasks", params={**other, "cursor": cursor}), 400)
        assert codes(refused) == ["cursor_of_another_query"], other
    refused = problem(api.get("/v1/projects", params={"cursor": cursor}), 400)
    assert codes(refused) == ["cursor_of_another_query"]
