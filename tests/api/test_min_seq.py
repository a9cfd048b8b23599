"""?min_seq=: a read that shows a certain write, or says that it cannot yet.

Why it waits: a reader that was told of a write by somebody else must not look into a place where it has not arrived.
"""

import threading

import httpx2
import pytest
from taskade_server.http.pipeline.reads import VISIBLE_SECONDS

from tests.api.asking import codes, create, listed, places, problem


def position(response: httpx2.Response) -> str:
    return str(response.headers["commit-seq"])


def test_the_position_of_a_write_can_be_read_from(api, a_project):
    made = api.post("/v1/tasks", json={"name": "x", "project_id": a_project["id"]})
    for path in (f"tasks/{made.json()['id']}", f"tasks?project_id={a_project['id']}", f"projects/{a_project['id']}"):
        response = api.get(f"/v1/{path}", params={"min_seq": position(made)})
        assert response.status_code == 200, response.text
    assert api.post("/v1/tasks/query", params={"min_seq": position(made)}, json={"limit": 1}).status_code == 200
    assert api.request("QUERY", f"/v1/tasks?min_seq={position(made)}", json={"limit": 1}).status_code == 200
    assert api.get("/v1/users/me", params={"min_seq": position(made)}).status_code == 200


def test_a_number_alone_is_of_the_default_workspace(api, me, heads):
    here = heads()[me["workspace_id"]]
    assert listed(api, "tasks", min_seq=here, limit=1) is not None
    assert listed(api, "tasks", min_seq=0, limit=1) is not None


def test_several_positions(api):
    workspace = create(api, "workspaces", name="W")["id"]
    operations = [
        {"method": "POST", "path": "/tasks", "body": {"name": "x"}},
        {"method": "POST", "path": "/projects", "body": {"name": "x", "workspace_id": workspace}},
    ]
    both = position(api.post("/v1/batch", json={"operations": operations}))
    assert both.count(":") == 2
    for spelling in (both, both.replace(", ", ",")):
        assert api.get("/v1/tasks", params={"min_seq": spelling, "limit": 1}).status_code == 200


def test_it_shapes_neither_the_answer_nor_its_validator(api, server, a_task):
    # Who sees a hundred workspaces gets no validator, and the owner may by now.
    key = create(api, "api-keys", name="one workspace", workspace_ids=[a_task["workspace_id"]])
    path = f"/v1/tasks?project_id={a_task['project_id']}&limit=1"
    with server.client(key["secret"]) as client:
        plain = client.get(path)
        waited = client.get(f"{path}&min_seq=1")
        assert (waited.content, waited.headers["etag"]) == (plain.content, plain.headers["etag"])
        assert client.get(f"{path}&min_seq=1", headers={"If-None-Match": plain.headers["etag"]}).status_code == 304
        one = f"/v1/tasks/{a_task['id']}"
        assert client.get(one, params={"min_seq": "1"}).headers["etag"] == '"1"'


def test_the_next_page_does_not_wait_again(api, a_project):
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": "a"}, {"name": "b"}])
    response = api.get(f"/v1/tasks?project_id={a_project['id']}&limit=1&min_seq=1")
    assert "min_seq" not in response.headers["link"]
    assert [task["name"] for task in api.get(response.links["next"]["url"]).json()] == ["b"]


def test_it_waits_for_a_write_that_is_on_its_way(api, server):
    workspace = create(api, "workspaces", name="W")["id"]
    now = position(api.post("/v1/projects", json={"name": "x", "workspace_id": workspace}))
    later = f"{workspace}:{int(now.rpartition(':')[2]) + 1}"

    def write() -> None:
        with server.client() as client:
            assert client.post("/v1/projects", json={"name": "y", "workspace_id": workspace}).status_code == 201

    timer = threading.Timer(0.3, write)
    timer.start()
    asked = {"workspace_id": workspace, "min_seq": later}
    while (answer := api.get("/v1/projects", params=asked)).status_code == 503:
        assert timer.is_alive(), "it was written, and is not there"
    assert [project["name"] for project in answer.json()] == ["x", "y"]
    timer.join()


def test_what_does_not_come_is_not_waited_for_for_ever(api):
    workspace = create(api, "workspaces", name="W")["id"]
    response = api.get("/v1/tasks", params={"min_seq": f"{workspace}:999999"})
    document = problem(response, 503, "position-not-reached")
    assert f"{workspace}:999999" in document["detail"]
    assert response.headers["retry-after"] == "1"
    assert VISIBLE_SECONDS <= 10


@pytest.mark.parametrize(
    "value",
    ["x", "-1", "1.5", "1e3", "", ":", "ws_x:1", "ws_00000000000000000000000000:1", "1:1", "9" * 19, "1,", ",1", "1;2"],
)
def test_what_is_no_position(value, api):
    document = problem(api.get("/v1/tasks", params={"min_seq": value}), 400, "invalid-query")
    assert (codes(document), places(document)) == (["invalid_format"], ["min_seq"])


def test_a_foreign_workspace_tells_nothing(outsider, home):
    """Not even how far its log is."""
    answers = [outsider.get("/v1/tasks", params={"min_seq": f"{home}:{seq}"}) for seq in (1, 10**9)]
    assert [codes(problem(answer, 400)) for answer in answers] == [["invalid_format"]] * 2


def test_twice_is_once_too_often(api):
    assert codes(problem(api.get("/v1/tasks?min_seq=1&min_seq=2"), 400)) == ["repeated"]


def test_it_is_for_reads(api, a_task):
    problem(api.patch(f"/v1/tasks/{a_task['id']}?min_seq=1", json={"name": "x"}), 400)
    problem(api.post("/v1/tasks/bulk?min_seq=1", json={"tasks": [{"name": "x"}]}), 400)


def test_another_process_has_what_one_of_them_wrote(start_server, database):
    if database == "sqlite":
        pytest.skip("one process serves an SQLite database")
    server = start_server("--workers", "2")
    with server.client() as writer:
        for number in range(20):
            made = writer.post("/v1/tasks", json={"name": f"Task {number}"})
            with server.client() as reader:
                path = f"/v1/tasks/{made.json()['id']}"
                assert reader.get(path, params={"min_seq": position(made)}).status_code == 200


def test_without_a_key(server):
    with server.client("") as nobody:
        problem(nobody.get("/v1/tasks?min_seq=1"), 401)
