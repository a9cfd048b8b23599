"""Comments: who said what about a task, and what becomes of it when the task goes."""

import pytest

from tests.api.asking import codes, create, listed, places, problem


@pytest.fixture
def a_comment(api, a_task):
    return create(api, "comments", task_id=a_task["id"], body="Looks **good** to me.")


def test_a_comment_knows_its_author_and_its_place(api, me, home, a_project, a_task):
    response = api.post("/v1/comments", json={"task_id": a_task["id"], "body": "Looks good to me."})
    comment = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/comments/{comment['id']}"
    assert api.get(response.headers["location"]).json() == comment
    assert {name: comment[name] for name in ("task_id", "project_id", "workspace_id", "author", "body", "version")} == {
        "task_id": a_task["id"],
        "project_id": a_project["id"],
        "workspace_id": home,
        "author": me["id"],
        "body": "Looks good to me.",
        "version": 1,
    }


def test_the_author_is_who_says_it(api, as_member, a_member, a_task):
    """Nobody speaks in somebody else's name."""
    body = {"task_id": a_task["id"], "body": "x", "author": api.get("/v1/users/me").json()["id"]}
    assert places(problem(as_member.post("/v1/comments", json=body), 422)) == ["/author"]
    assert create(as_member, "comments", **{**body, "author": a_member.id})["author"] == a_member.id


def test_comments_of_a_task_in_the_order_they_were_made(api, as_member, a_task, a_project):
    for client, body in ((api, "First"), (as_member, "Second"), (api, "Third")):
        create(client, "comments", task_id=a_task["id"], body=body)
    other = create(api, "tasks", name="Another", project_id=a_project["id"])
    create(api, "comments", task_id=other["id"], body="Elsewhere")
    assert [comment["body"] for comment in listed(api, "comments", task_id=a_task["id"])] == [
        "First",
        "Second",
        "Third",
    ]
    assert [comment["body"] for comment in listed(api, "comments", task_id=a_task["id"], author="me")] == [
        "First",
        "Third",
    ]
    assert len(listed(api, "comments", project_id=a_project["id"])) == 4
    found = listed(api, "comments", project_id=a_project["id"], q="else", include="author,task")
    assert [(comment["author"]["handle"], comment["task"]["name"]) for comment in found] == [("owner", "Another")]


def test_only_its_author_changes_a_comment(api, as_member, a_comment):
    path = f"/v1/comments/{a_comment['id']}"
    problem(as_member.patch(path, json={"body": "Put into your mouth"}), 403)
    changed = api.patch(path, json={"body": "Looks better now."}).json()
    assert changed["body"] == "Looks better now."
    assert changed["version"] == 2
    assert api.put(path, json=changed).json() == changed


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({"body": "x"}, "/task_id", "required"),
        ({"task_id": "T", "body": ""}, "/body", "too_short"),
        ({"task_id": "T", "body": None}, "/body", "required"),
        ({"task_id": "T"}, "/body", "required"),
        ({"task_id": "T", "body": "x" * 50_001}, "/body", "too_long"),
        ({"task_id": "T", "text": "x", "body": "x"}, "/text", "unknown_field"),
        ({"task_id": "task_00000000000000000000000000", "body": "x"}, "/task_id", "unknown_reference"),
        ({"task_id": "proj_00000000000000000000000000", "body": "x"}, "/task_id", "invalid_id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_comment(api, a_task, heads, body, place, code):
    before = heads()
    filled = {name: a_task["id"] if value == "T" else value for name, value in body.items()}
    refused = problem(api.post("/v1/comments", json=filled), 422)
    assert (places(refused), codes(refused)) == ([place], [code])
    assert heads() == before


def test_a_comment_stays_at_its_task(api, a_comment, a_project):
    other = create(api, "tasks", name="Another", project_id=a_project["id"])
    refused = problem(api.patch(f"/v1/comments/{a_comment['id']}", json={"task_id": other["id"]}), 422)
    assert codes(refused) == ["read_only"]


def test_a_comment_goes_to_the_trash_and_comes_back(api, a_comment, a_task):
    path = f"/v1/comments/{a_comment['id']}"
    assert api.delete(path).status_code == 204
    problem(api.get(path), 404)
    assert listed(api, "comments", task_id=a_task["id"]) == []
    assert [comment["id"] for comment in listed(api, "comments", task_id=a_task["id"], deleted="true")] == [
        a_comment["id"]
    ]
    assert api.post(f"{path}/restore").json()["body"] == a_comment["body"]
    assert len(listed(api, "comments", task_id=a_task["id"])) == 1


def test_a_comment_does_not_come_back_before_its_task(api, a_comment, a_task):
    path = f"/v1/comments/{a_comment['id']}"
    api.delete(path)
    api.delete(f"/v1/tasks/{a_task['id']}")
    assert "task" in problem(api.post(f"{path}/restore"), 409)["detail"]
    api.post(f"/v1/tasks/{a_task['id']}/restore")
    problem(api.get(path), 404)
    assert api.post(f"{path}/restore").status_code == 200
