"""What somebody probably meant is said where it was said wrong, and the fault itself is the `detail`.

Why a table of other people's words: those who come from another API do not misspell our names, they use theirs.
"""

from typing import Any

import pytest
from taskade_server.kit import ids

from tests.api.asking import codes, create, listed, places, problem

NOWHERE = "http://127.0.0.1:59999/hints"


def refusal(response: Any, status: int) -> tuple[str, str]:
    """The place and the words of the one fault of an answer, whose `detail` has to be those words."""
    document = problem(response, status)
    (fault,) = document["errors"]
    assert document["detail"] == fault["detail"] != document["title"]
    return fault.get("parameter", fault.get("pointer")), document["detail"]


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("page=2", "cursor"), ("offset=100", "cursor"), ("page_token=x", "cursor"), ("skip=5", "cursor"),
        ("starting_after=x", "cursor"), ("per_page=50", "limit"), ("perPage=50", "limit"), ("page_size=5", "limit"),
        ("max_results=5", "limit"), ("$top=5", "limit"), ("Limit=5", "limit"), ("order=name", "sort"),
        ("order_by=name", "sort"), ("orderBy=name", "sort"), ("sort_by=name", "sort"), ("search=x", "q"),
        ("query=x", "q"), ("keyword=x", "q"), ("expand=project", "include"), ("embed=project", "include"),
        ("select=name", "fields"), ("only=name", "fields"), ("where=x", "filter"), ("trashed=true", "deleted"),
        ("total=true", "count"), ("projectId=x", "project_id"), ("project=x", "project_id"), ("state=x", "status"),
        ("tag=x", "labels"), ("assigned_to=me", "assignee"), ("due=today", "due_date"), ("deadline=today", "due_date"),
        ("asignee=me", "assignee"), ("titel=x", None), ("title=x", "name"),
    ],
)  # fmt: skip
def test_a_parameter_of_another_api_is_answered_with_ours(api, theirs, ours):
    place, said = refusal(api.get(f"/v1/tasks?{theirs}"), 400)
    assert place == theirs.partition("=")[0]
    assert (f'Did you mean "{ours}"?' in said) == (ours is not None), said
    assert "Parameters: filter, sort, limit" in said and "Filters: assignee" in said
    assert ("Link header" in said) == (ours == "cursor")


@pytest.mark.parametrize(("theirs", "ours"), [("page=2", "after"), ("offset=9", "after"), ("since=9", "after"),
                                              ("per_page=5", "limit"), ("type=task.created", "types"),
                                              ("event_types=task.created", "types")])  # fmt: skip
def test_so_is_one_of_events(api, theirs, ours):
    assert f'Did you mean "{ours}"?' in refusal(api.get(f"/v1/events?{theirs}"), 400)[1]


def test_so_is_one_of_a_single_resource(api, a_task):
    assert 'Did you mean "include"?' in refusal(api.get(f"/v1/tasks/{a_task['id']}?expand=project"), 400)[1]
    assert 'Did you mean "fields"?' in refusal(api.get(f"/v1/tasks/{a_task['id']}?select=name"), 400)[1]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("due_date[gte]=today", '"$gte"'), ("due_date[>=]=today", '"$gte"'), ("due_date[>]=today", '"$gt"'),
        ("due_date[min]=today", '"$gte"'), ("due_date[to]=today", '"$lte"'), ("name[like]=x", '"$contains"'),
        ("name[startswith]=x", '"$prefix"'), ("status[!=]=pending", '"$ne"'), ("status[not_in]=pending", '"$nin"'),
        ("assignee[isnull]=true", '"$exists"'), ("status[IN]=pending", '"$in"'),
        ("due_date>=2024-01-31", "due_date[$gte]=..."), ("due_date<=2024-01-31", "due_date[$lte]=..."),
        ("status!=pending", "status[$ne]=..."), ("due_date>2024-01-31", "due_date[$gt]=..."),
        ("due_date__gte=today", "due_date[$gte]=..."), ("due_date.lt=today", "due_date[$lt]=..."),
        ("priority__in=high", "priority[$in]=..."), ("name__icontains=x", "name[$contains]=..."),
        ("due_date_from=today", "due_date[$gte]=..."), ("status_not=pending", "status[$ne]=..."),
    ],
)  # fmt: skip
def test_an_operator_of_another_api_is_answered_with_ours(api, theirs, ours):
    assert f"Did you mean {ours}?" in refusal(api.get(f"/v1/tasks?{theirs}"), 400)[1]


@pytest.mark.parametrize(
    ("document", "ours"),
    [
        ({"OR": [{"name": "x"}]}, '"$or"'), ({"not": {"name": "x"}}, '"$not"'),
        ({"due_date": {"gte": "today"}}, '"$gte"'),
        ({"due_date__lt": "today"}, '{"due_date": {"$lt": ...}}'), ({"title": "x"}, '"name"'),
    ],
    ids=str,
)  # fmt: skip
def test_so_is_one_in_a_filter_document(api, document, ours):
    answers = (
        api.post("/v1/tasks/query", json={"filter": document}),
        api.patch("/v1/tasks/bulk", json={"filter": document, "set": {"name": "x"}}),
    )
    for answer in answers:
        document = problem(answer, 400)
        assert f"Did you mean {ours}?" in document["detail"] and len(document["errors"]) == 1


def test_a_filter_in_brackets_is_answered_with_the_form_that_works(api):
    assert "leave the word filter out" in refusal(api.get("/v1/tasks?filter[status]=pending"), 400)[1]


@pytest.mark.parametrize("name", ["limit", "cursor", "q", "count", "deleted", "filter"])
def test_a_parameter_that_stands_twice_is_called_that(api, name):
    document = problem(api.get(f"/v1/tasks?{name}=1&{name}=2"), 400)
    assert (places(document), codes(document)) == ([name], ["repeated"])


def test_several_faults_are_counted_and_listed(api):
    document = problem(api.get("/v1/tasks?page=1&nmae=x"), 400)
    assert document["detail"] == "The request has 2 faults; `errors` lists them." and len(places(document)) == 2
    document = problem(api.post("/v1/tasks", json={"title": "x"}), 422)
    assert document["detail"] == "The body has 2 faults; nothing was written."
    assert 'Did you mean "name"?' in document["errors"][0]["detail"]


def test_a_fault_deep_in_a_body_says_where(api, a_project):
    body = {"tasks": [{"name": "x"}, {"name": "x", "priority": "hihg"}], "project_id": a_project["id"]}
    document = problem(api.post("/v1/tasks/bulk", json=body), 422)
    assert document["detail"].endswith('Did you mean "high"? (at /tasks/1/priority).')


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/task", "/v1/tasks"), ("/v1/todos", "/v1/tasks"), ("/v1/issues/1", "/v1/tasks/1"),
        ("/v1/boards", "/v1/projects"), ("/v1/teams", "/v1/workspaces"), ("/v1/me", "/v1/users/me"),
        ("/v1/user/me", "/v1/users/me"), ("/v1/apikeys", "/v1/api-keys"), ("/v1/hooks", "/v1/webhooks"),
        ("/v1/tasks/T/comments", "/v1/comments?task_id=T"), ("/v1/projects/P/tasks", "/v1/tasks?project_id=P"),
        ("/v1/tasks/T/completed", "/v1/tasks/T/complete"), ("/v1/team/W/members", "/v1/workspaces/W/members"),
        ("/tasks", "/v1/tasks"), ("/api/v1/tasks", "/v1/tasks"), ("/api/tasks/5", "/v1/tasks/5"),
        ("/v2/tasks", "/v1/tasks"),
        ("/docs", "/openapi.json"), ("/swagger", "/openapi.json"), ("/healthz", "/health"), ("/livez", "/health"),
        ("/readyz", "/ready"),
    ],
)  # fmt: skip
def test_a_path_of_another_api_is_answered_with_ours(api, path, meant):
    document = problem(api.get(path), 404)
    assert f"Did you mean {meant}?" in document["detail"], document["detail"]


def test_a_path_below_an_object_is_answered_with_those_there_are(api):
    assert "complete, move, reopen, restore" in problem(api.get("/v1/tasks/T/foo"), 404)["detail"]
    document = problem(api.post("/v1/tasks/T"), 405)
    assert "DELETE, GET, HEAD, OPTIONS, PATCH, PUT" in document["detail"]
    assert "Did you mean" not in problem(api.get("/v1/nonsense"), 404)["detail"]


# ---- the trash -------------------------------------------------------------------------------------------------------


def test_every_method_says_that_an_object_is_in_the_trash(api, a_project, a_task):
    task = f"/v1/tasks/{a_task['id']}"
    assert api.delete(task).status_code == 204
    since = api.get("/v1/tasks", params={"deleted": "true", "id": a_task["id"]}).json()[0]["deleted_at"]
    said = f"The task {a_task['id']} is in the trash since {since}; POST {task}/restore brings it back."
    answers = [
        api.get(task), api.put(task, json={"name": "x"}), api.patch(task, json={"name": "x"}), api.delete(task),
        api.post(f"{task}/complete"), api.post(f"{task}/reopen"),
        api.post(f"{task}/move", json={"project_id": a_project["id"]}),
        api.patch(task, content=b"[]", headers={"Content-Type": "application/json-patch+json"}),
    ]  # fmt: skip
    for answer in answers:
        assert problem(answer, 404)["detail"] == said
    body = {"name": "x", "project_id": a_project["id"]}
    for answer, place in (
        (api.post("/v1/comments", json={"task_id": a_task["id"], "body": "x"}), "/task_id"),
        (api.post("/v1/tasks", json={**body, "parent_id": a_task["id"]}), "/parent_id"),
        (api.patch("/v1/tasks/bulk", json={"ids": [a_task["id"]], "set": {"name": "x"}}), "/ids/0"),
        (api.post("/v1/tasks", json={**body, "blocked_by": [a_task["id"]]}), "/blocked_by/0"),
    ):
        document = problem(answer, 422)
        assert places(document) == [place] and document["errors"][0]["detail"] == said
    batch = {"operations": [{"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"name": "x"}}]}
    assert said in problem(api.post("/v1/batch", json=batch), 404)["detail"]
    assert api.post(f"{task}/restore").status_code == 200


def test_what_went_to_the_trash_with_another_says_with_which(api, a_project, a_task):
    assert api.delete(f"/v1/projects/{a_project['id']}").status_code == 204
    document = problem(api.patch(f"/v1/tasks/{a_task['id']}", json={"name": "x"}), 404)
    assert f"where it went with the project {a_project['id']}" in document["detail"]
    assert f"POST /v1/projects/{a_project['id']}/restore" in document["detail"]
    place, said = refusal(api.post("/v1/tasks", json={"name": "x", "project_id": a_project["id"]}), 422)
    assert place == "/project_id" and f"POST /v1/projects/{a_project['id']}/restore brings it back" in said


def test_nobody_is_told_of_the_trash_of_others(a_stranger, api, a_task):
    assert api.delete(f"/v1/tasks/{a_task['id']}").status_code == 204
    for answer in (
        a_stranger.client.get(f"/v1/tasks/{a_task['id']}"),
        a_stranger.client.delete(f"/v1/tasks/{a_task['id']}"),
    ):
        assert problem(answer, 404)["detail"] == f"There is no task {a_task['id']} that this key can see."


# ---- statuses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_flow(api):
    """A project with statuses of its own."""
    statuses = [
        {"key": "draft", "name": "Draft", "category": "todo"},
        {"key": "live", "name": "Live", "category": "done"},
    ]
    return create(api, "projects", name="A flow", statuses=statuses)


def test_a_status_that_no_project_has_is_told_in_filters(api, a_flow, a_project):
    for query in ("status=drafft", "status[$ne]=drafft", "status[$in]=pending,drafft", 'filter={"status":"drafft"}'):
        document = problem(api.get(f"/v1/tasks?{query}"), 400)
        assert codes(document) == ["unknown_status"] and '"drafft"' in document["detail"], query
    place, said = refusal(api.get(f"/v1/tasks?project_id={a_flow['id']}&status=drafft"), 400)
    assert place == "status"
    assert said == 'The project has no status "drafft". Did you mean "draft"? Its statuses: draft, live.'
    problem(api.get(f"/v1/tasks?project_id={a_flow['id']}&status=pending"), 400)
    body = {"filter": {"$or": [{"status": "drafft"}, {"name": "x"}]}}
    assert places(problem(api.post("/v1/tasks/query", json=body), 400)) == ["/filter/$or/0/status"]
    bulk = {"filter": {"status": "drafft"}, "set": {"name": "x"}}
    problem(api.patch("/v1/tasks/bulk", json=bulk), 400)
    problem(api.request("DELETE", "/v1/tasks/bulk", json={"filter": {"status": "drafft"}}), 400)


def test_a_status_that_some_project_has_is_none_to_complain_of(api, a_flow, a_project):
    task = create(api, "tasks", name="x", project_id=a_flow["id"])
    assert [one["id"] for one in listed(api, "tasks", status="draft", id=task["id"])] == [task["id"]]
    assert listed(api, "tasks", status="draft", project_id=[a_flow["id"], a_project["id"]])[0]["id"] == task["id"]
    for query in ("status=in_progress", "status[$prefix]=nonsense", "status=nonsense&deleted=true"):
        assert api.get(f"/v1/tasks?{query}&project_id={a_project['id']}").status_code == 200, query
    assert listed(api, "tasks", project_id=ids.new("proj"), status="nonsense") == [], "of that nothing is known"
    assert listed(api, "events", types="task.*", filter='{"status":"nonsense"}') == [], "there may have been one"


def test_a_status_that_is_removed_is_known_no_more(api, a_flow):
    """However often it was asked for before: what a request referred to is not remembered."""
    key = f"k{ids.new('req')[-12:]}"
    path = f"/v1/projects/{a_flow['id']}"
    with_it = [*a_flow["statuses"], {"key": key, "name": "Odd", "category": "todo"}]
    queries = (f"status={key}", f"status={key}&project_id={a_flow['id']}")
    for statuses, status in ((with_it, 200), (a_flow["statuses"], 400), (with_it, 200)):
        api.patch(path, json={"statuses": statuses}).raise_for_status()
        for query in queries:
            assert [api.get(f"/v1/tasks?{query}").status_code for _ in range(3)] == [status] * 3, query
    api.delete(path).raise_for_status()
    problem(api.get(f"/v1/tasks?status={key}"), 400)


def test_nobody_learns_of_the_statuses_of_projects_that_they_do_not_see(a_stranger, api, a_flow):
    problem(a_stranger.client.get("/v1/tasks?status=live"), 400)


# ---- e-mail addresses and webhooks -----------------------------------------------------------------------------------

UNSEEN = [
    "\u200b",
    "\u00ad",
    "\u202e",
    "\u2060",
    "\ufeff",
    "\u00a0",
    "\u3164",
    "\u180e",
    "\ufe0f",
    "\U000e0041",
    "\u2800",
]


@pytest.mark.parametrize("char", UNSEEN, ids=lambda char: f"U+{ord(char):04X}")
def test_an_email_address_has_no_character_that_nobody_sees(api, char):
    email = f"an{char}a.{ids.new('user')}@example.com"
    place, said = refusal(api.post("/v1/users", json={"name": "Ana", "email": email}), 422)
    assert place == "/email" and f"U+{ord(char):04X}" in said
    made = create(api, "users", name="Ana", email=email.replace(char, ""))
    place, said = refusal(api.patch(f"/v1/users/{made['id']}", json={"email": email}), 422)
    assert place == "/email" and f"U+{ord(char):04X}" in said


@pytest.mark.parametrize("local", ["josé", "用户", "мария", "o'neil", "a+b"])
def test_an_email_address_may_be_of_any_script(api, local):
    email = f"{local}.{ids.new('user')[-6:]}@example.com"
    assert create(api, "users", name="x", email=email)["email"] == email


def test_a_key_of_some_projects_makes_only_webhooks_that_it_can_see(key_with, a_project):
    limited = key_with(["*"], project_ids=[a_project["id"]])
    place, said = refusal(limited.post("/v1/webhooks", json={"url": NOWHERE}), 422)
    assert place == "/project_id" and a_project["id"] in said
    made = create(limited, "webhooks", url=NOWHERE, project_id=a_project["id"])
    path = f"/v1/webhooks/{made['id']}"
    assert limited.get(path).status_code == 200
    assert refusal(limited.patch(path, json={"project_id": None}), 422)[0] == "/project_id"
    assert limited.delete(path).status_code == 204
