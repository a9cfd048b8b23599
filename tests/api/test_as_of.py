"""Reading an object as it was: by position, by time, and only what one may see today."""

import pytest
from taskade_server.kit import ids, time

from tests.api.asking import codes, create, places, problem


def seq_of(response):
    assert response.status_code < 300, response.text
    return int(response.headers["commit-seq"].rpartition(":")[2])


@pytest.fixture
def story(api, a_project):
    """A task with three names, its documents by position."""
    made = api.post("/v1/tasks", json={"name": "one", "project_id": a_project["id"]})
    path = f"/v1/tasks/{made.json()['id']}"
    found = [made, api.patch(path, json={"name": "two"}), api.patch(path, json={"name": "three", "labels": ["x"]})]
    return path, [(seq_of(answer), answer.json()) for answer in found]


def test_each_state_is_there_from_its_event_to_the_next(api, story, home):
    path, states = story
    for position, (seq, document) in enumerate(states):
        for wanted in (str(seq), f"{home}:{seq}"):
            answer = api.get(path, params={"as_of": wanted})
            assert answer.json() == document
        if position:
            assert api.get(path, params={"as_of": seq - 1}).json() == states[position - 1][1]
    problem(api.get(path, params={"as_of": states[0][0] - 1}), 404, "not-found")


def test_by_time(api, story):
    path, states = story
    assert api.get(path, params={"as_of": "now"}).json() == states[-1][1]
    assert api.get(path, params={"as_of": states[-1][1]["updated_at"]}).json() == states[-1][1]
    just_before = time.format_ms(time.parse_ms(states[0][1]["created_at"]) - 1)
    for wanted in (just_before, "2024-01-15", "-1d"):
        problem(api.get(path, params={"as_of": wanted}), 404, "not-found")


def test_etag_and_fields(api, story):
    path, states = story
    answer = api.get(path, params={"as_of": states[0][0], "fields": "name"})
    assert answer.json() == {"name": "one"}
    again = api.get(
        path, params={"as_of": states[0][0], "fields": "name"}, headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304
    refused = problem(api.get(path, params={"as_of": states[0][0], "include": "project"}), 400)
    assert places(refused) == ["include"]


def test_what_was_deleted_then_was_not_there(api, story):
    path, states = story
    gone = seq_of(api.delete(path))
    assert api.get(path, params={"as_of": gone - 1}).json() == states[-1][1], "the past of what is in the trash"
    problem(api.get(path, params={"as_of": gone}), 404)
    back = seq_of(api.post(f"{path}/restore"))
    assert api.get(path, params={"as_of": back}).json()["name"] == "three"
    problem(api.get(path, params={"as_of": back - 1}), 404)


@pytest.mark.parametrize("wanted", ["99999999", "2999-01-01", "+2h", "yesteryear", "", "-1", "1.5", "ws_x:1", "12:1"])
def test_no_such_position(api, story, wanted):
    refused = problem(api.get(story[0], params={"as_of": wanted}), 400, "invalid-query")
    assert places(refused) == ["as_of"]
    assert codes(refused)[0] in ("out_of_range", "invalid_format", "other_workspace")


def test_lists_say_that_they_have_no_past(api):
    for path in ("tasks", "projects"):
        refused = problem(api.get(f"/v1/{path}", params={"as_of": "1"}), 400, "invalid-query")
        assert places(refused) == ["as_of"]
        assert "reads one object" in refused["errors"][0]["detail"]


def test_the_rights_of_today_and_the_place_of_then(api, as_guest, outsider, a_project, story):
    path, states = story
    first = {"as_of": states[0][0]}
    assert as_guest.get(path, params=first).json() == states[0][1]
    problem(outsider.get(path, params=first), 404)
    hidden = create(api, "projects", name="Elsewhere", visibility="private")["id"]
    moved = seq_of(api.post(f"{path}/move", json={"project_id": hidden}))
    problem(as_guest.get(path, params=first), 404)
    back = seq_of(api.post(f"{path}/move", json={"project_id": a_project["id"]}))
    assert api.get(path, params={"as_of": moved}).json()["project_id"] == hidden
    problem(as_guest.get(path, params={"as_of": moved}), 404)
    assert as_guest.get(path, params={"as_of": back}).json()["project_id"] == a_project["id"]


def test_every_kind_of_resource_has_a_past(api, home, a_task):
    things = [
        create(api, "workspaces", name="x"), create(api, "projects", name="x"), create(api, "templates", name="x"),
        create(api, "comments", task_id=a_task["id"], body="x"), create(api, "api-keys", name="x"),
        create(api, "users", name="x", email=f"{ids.new('user')}@example.com"),
    ]  # fmt: skip
    kinds = ("workspaces", "projects", "templates", "comments", "api-keys", "users")
    for kind, thing in zip(kinds, things, strict=True):
        thing.pop("secret", None)
        path = f"/v1/{kind}/{thing['id']}"
        answer = api.patch(path, json={"body": "y"} if kind == "comments" else {"name": "y"})
        assert api.get(path, params={"as_of": seq_of(answer) - 1}).json() == thing
    batch = api.post("/v1/batch", json={"operations": [{"method": "GET", "path": f"/tasks/{a_task['id']}?as_of=now"}]})
    assert batch.json()["results"][0]["body"] == a_task


def test_the_past_of_a_user_is_not_told_to_those_who_met_them_in_another_workspace(api, invite, me):
    other = create(api, "workspaces", name="Another")["id"]
    owner, user = invite("owner", workspace_id=other), invite("member")
    before = user.client.get(f"/v1/users/{user.id}").json()["updated_at"]
    user.client.patch(f"/v1/users/{user.id}", json={"name": "A new name"}).raise_for_status()
    create(api, f"workspaces/{other}/members", user=user.id, role="member")
    assert owner.client.get(f"/v1/users/{user.id}").json()["name"] == "A new name"
    for wanted in (before, "now", "999999999"):
        refused = problem(owner.client.get(f"/v1/users/{user.id}", params={"as_of": wanted}), 404)
        assert me["workspace_id"] not in str(refused)
    assert user.client.get(f"/v1/users/{user.id}", params={"as_of": before}).json()["name"] != "A new name"
