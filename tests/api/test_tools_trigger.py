"""`taskade trigger`: it makes real changes through the API, says which, and says plainly what it cannot do."""

import json

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import main

from tests.api.asking import create
from tests.support.processes import free_port


@pytest.fixture
def run(server):
    def call(*arguments, url=server.url, key=server.key):
        environment = {"TASKADE_URL": url, "TASKADE_API_KEY": key}
        return CliRunner().invoke(main, ["trigger", *arguments], env=environment)

    return call


def result(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_event_really_happens(run, expect_events, a_project):
    with expect_events("task.created", "task.updated", "task.completed") as seen:
        told = result(run("task.completed", "--project", a_project["id"], "--json"))
    (made,) = told["made"]
    assert told["event_id"] == seen[-1].id
    assert {event.object_id for event in seen} == {made["id"]}
    assert told["requests"][-1] == {
        "method": "POST",
        "path": f"/tasks/{made['id']}/complete",
        "commit_seq": f"{seen[-1].workspace_id}:{seen[-1].seq}",
    }


def test_it_makes_what_is_needed_first_and_says_so(run, expect_events):
    with expect_events("project.created", "task.created", "comment.created"):
        done = run("comment.created")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["made"] * 3 + ["sent"] * 3 + ["event"]


def test_members_of_the_subject(run, api, a_project):
    given = ["priority=urgent", "custom_fields.effort=3", "custom_fields.who=me", 'labels=["a","b"]', "name=a=b"]
    arguments = [part for pair in given for part in ("--data", pair)]
    told = result(run("task.created", "--project", a_project["id"], "--json", *arguments))
    task = api.get(f"/v1/tasks/{told['made'][0]['id']}").json()
    assert (task["priority"], task["labels"], task["name"]) == ("urgent", ["a", "b"], "a=b")
    assert task["custom_fields"] == {"effort": 3, "who": "me"}


def test_members_of_a_change(run, expect_events, a_project):
    with expect_events("task.created", "task.updated") as seen:
        run("task.updated", "--project", a_project["id"], "--data", "estimate=5")
    assert json.loads(seen[1].previous or "")["estimate"] is None
    assert json.loads(seen[1].data)["estimate"] == 5


def test_cleaning_up(run, api, expect_events):
    types = ["project.created", "task.created", "comment.created", "comment.deleted", "task.deleted", "project.deleted"]
    with expect_events(*types):
        told = result(run("comment.created", "--cleanup", "--json"))
    assert sorted(told["deleted"]) == sorted(thing["id"] for thing in told["made"])
    assert all(api.get(f"/v1/{thing['resource']}/{thing['id']}").status_code == 404 for thing in told["made"])


def test_what_is_deleted_already_is_not_deleted_again(run, expect_events, a_project):
    with expect_events("task.created", "task.deleted"):
        assert result(run("task.deleted", "--project", a_project["id"], "--cleanup", "--json"))["deleted"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task.complete"], 'Did you mean "task.completed"?'),
        (["task.purged"], "30 days"),
        (["task.created", "--data", "priority"], "NAME=VALUE"),
        (["task.created", "--data", "a=1", "--data", "a.b=1"], "two values"),
        (["task.created", "--data", "priority=hihg"], 'Did you mean "high"?'),
        (["task.created", "--project", "proj_0"], "project_id takes an id"),
        ([], "--list"),
    ],
    ids=str,
)
def test_what_it_cannot_do(run, expect_events, arguments, words):
    with expect_events(*(["project.created"] if "priority=hihg" in arguments else [])):
        done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert done.stdout == "" or "priority=hihg" in arguments
    assert words in done.stderr


def test_servers_and_keys_that_do_not_work(run, api):
    reader = create(api, "api-keys", name="reader", scopes=["tasks:read"])["secret"]
    for options, words in (
        ({"url": f"http://127.0.0.1:{free_port()}"}, "nothing listens there"),
        ({"url": "ftp://127.0.0.1"}, "an address such as"),
        ({"url": "http://127.0.0.1:99999"}, "is not an address"),
        ({"key": ""}, "TASKADE_API_KEY"),
        ({"key": "tsk_ü"}, "characters that no key has"),
        ({"key": "tsk_1_2"}, "does not take the key"),
        ({"key": reader}, "lacks the scope"),
    ):
        done = run("task.created", **options)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_list_is_for_programs_too(run):
    assert "task.completed" in run("--list").stdout.splitlines()
