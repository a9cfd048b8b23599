"""`taskade automations`: what it prints about automations and their runs, and the runs that it starts."""

import json

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.kit import ids

from tests.api.test_automations import a_task_in, batch, patch, settled
from tests.api.test_tools_listen import Tool
from tests.support.processes import free_port

URGENT = {"on": "event", "types": ["task.updated"], "changed": {"priority": {"to": ["urgent"]}}}


@pytest.fixture
def run(server):
    def call(*arguments, url=server.url, key=server.key):
        environment = {"TASKADE_URL": url, "TASKADE_API_KEY": key}
        return CliRunner().invoke(main, ["automations", *arguments], env=environment)

    return call


def printed(done):
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def documents(done):
    return [json.loads(line) for line in printed(done)]


def refusal(done):
    assert done.exit_code == 1, done.output
    return done.stderr


def by_hand(automate, **more):
    trigger = {"on": "manual", "input": {"why": "text", "count": "number"}}
    action = batch(patch('/tasks/{"$ref": "now.id"}', description={"$ref": "input.why"}))
    return automate(action, trigger=trigger, **more)


# ---- list ------------------------------------------------------------------------------------------------------------


def test_the_list_tells_id_state_trigger_and_name(run, api, a_project, automate):
    rule, other = automate(batch(patch(labels=["x"])), name="Eins"), by_hand(automate, name="Zwei")
    api.patch(f"/v1/automations/{other['id']}", json={"enabled": False})
    lines = [line.split() for line in printed(run("list", "--project", a_project["id"]))]
    assert lines == [[rule["id"], "enabled", "event", "Eins"], [other["id"], "disabled", "manual", "Zwei"]]
    (first, _) = documents(run("list", "--project", a_project["id"], "--json"))
    assert first == api.get(f"/v1/automations/{rule['id']}").json()


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_the_newest_one_last(run, api, a_project, automate):
    rule = automate(batch(patch(estimate=1)), name="Runs of mine")
    tasks = [a_task_in(api, a_project) for _ in range(3)]
    found = settled(api, rule, 3)
    lines = printed(run("runs", rule["id"]))
    assert [line.split()[2:] for line in lines] == [
        [one["id"], "succeeded", "event", task["id"]] for one, task in zip(found, tasks, strict=True)
    ]
    assert printed(run("runs", "Runs of mine", "--limit", "2")) == lines[1:]
    assert printed(run("runs", rule["id"], "--object", f"{tasks[0]['id']},{tasks[1]['id']}")) == lines[:2]
    assert printed(run("runs", rule["id"], "--event", found[2]["event_id"])) == lines[2:]
    assert printed(run("runs", rule["id"], "--state", "failed,skipped")) == []
    assert printed(run("runs", rule["id"], "--before", "2020-01-01T00:00:00Z")) == []
    assert documents(run("runs", rule["id"], "--after", found[1]["created_at"], "--json"))[-1] == found[-1]


def test_why_a_run_ended_so_is_told(run, api, a_project, automate):
    rule = automate(batch(patch(status="nonsense")))
    a_task_in(api, a_project)
    settled(api, rule)
    (line,) = printed(run("runs", rule["id"]))
    assert "  failed  " in line and "batch-failed: /actions/0: " in line


def test_runs_are_followed(server, api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D", "until": {"priority": "urgent"}})
    first = a_task_in(api, a_project)
    settled(api, rule, 1, "waiting")
    with Tool(server.url, server.key, "automations", "runs", rule["id"], "--follow", "--json") as tool:
        seen = [json.loads(tool.line())]
        api.patch(f"/v1/tasks/{first['id']}", json={"priority": "urgent"})
        while seen[-1]["state"] != "succeeded":
            seen.append(json.loads(tool.line()))
        assert seen[0]["state"] == "waiting"
        second = a_task_in(api, a_project)
        assert json.loads(tool.line())["object_id"] == second["id"]
        assert tool.interrupt() == 0
    assert {one["object_id"] for one in seen} == {first["id"]}


# ---- show ------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_timeline(run, api, a_project, automate):
    choose = {"do": "if", "condition": {"priority": "urgent"}, "then": [batch(patch(estimate=1))]}
    rule = automate(choose, batch(patch(labels=["seen"])))
    task = a_task_in(api, a_project, priority="urgent")
    (found,) = settled(api, rule)
    head, *about = printed(run("show", found["id"]))
    assert head.split() == [found["id"], "succeeded"]
    words = [line.split() for line in about]
    assert ["automation", rule["id"], "version", "1"] in words
    assert ["cause", "event", found["event_id"], task["id"]] in words
    assert ["changes", found["request_id"]] in words
    steps = [line for line in words if line and line[0].isdigit()]
    assert [line[:4] for line in steps] == [
        ["0", "succeeded", "if", "/actions/0"],
        ["1", "succeeded", "batch", "/actions/0/then/0"],
        ["2", "succeeded", "batch", "/actions/1"],
    ]
    assert ["held:", "true"] in words
    assert words.count(["PATCH", '/tasks/{"$ref":', '"event.data.id"}', "->", task["id"]]) == 2
    (document,) = documents(run("show", found["id"], "--automation", rule["id"], "--json"))
    assert document == api.get(f"/v1/automations/{rule['id']}/runs/{found['id']}").json()


def test_a_failure_is_shown_with_its_problem(run, api, a_project, automate):
    rule = automate(batch(patch(status="nonsense")))
    a_task_in(api, a_project)
    (found,) = settled(api, rule)
    text = "\n".join(printed(run("show", found["id"])))
    assert "reason      batch-failed" in text
    assert "\n     batch-failed (422): " in text


def test_a_run_that_waits_says_when_it_goes_on(run, api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D"})
    a_task_in(api, a_project)
    (found,) = settled(api, rule, 1, "waiting")
    lines = [line.split() for line in printed(run("show", found["id"]))]
    assert ["goes", "on", *found["continues_at"][:19].split("T")] in lines


# ---- start -----------------------------------------------------------------------------------------------------------


def test_an_automation_is_started_by_hand(run, api, a_project, automate):
    rule = by_hand(automate, name="By this hand")
    tasks = [a_task_in(api, a_project) for _ in range(2)]
    about = [part for task in tasks for part in ("--about", task["id"])]
    found = documents(
        run("start", "By this hand", *about, "--input", "why=a = b", "--input", "count=3", "--wait", "120", "--json")
    )
    assert [(one["state"], one["object_id"]) for one in found] == [("succeeded", task["id"]) for task in tasks]
    assert [api.get(f"/v1/tasks/{task['id']}").json()["description"] for task in tasks] == ["a = b"] * 2
    assert found[::-1] == api.get(f"/v1/automations/{rule['id']}/runs").json()


def test_without_waiting_it_says_what_was_started(run, api, a_project, automate):
    rule = automate({"do": "wait", "for": "P1D"}, trigger={"on": "manual"})
    (line,) = printed(run("start", rule["id"]))
    assert line.split()[3:] == ["queued", "manual", "-"]
    settled(api, rule, 1, "waiting")


def test_a_run_that_does_not_succeed_is_a_failure(run, api, a_project, automate):
    rule = automate(batch(patch("/tasks/task_nonsense", name="x")), trigger={"on": "manual"})
    done = run("start", rule["id"], "--wait", "120")
    assert done.exit_code == 1
    assert "batch-failed" in done.stdout


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_what_there_is_not_is_told(run, automate):
    rule = by_hand(automate)
    nobody = ids.new("auto")
    assert 'There is no automation "Nobody\'s"' in refusal(run("runs", "Nobody's"))
    assert nobody in refusal(run("runs", nobody))
    assert "No automation that this key can see has a run" in refusal(run("show", ids.new("run")))
    assert "404" in refusal(run("show", ids.new("run"), "--automation", rule["id"]))
    assert "state" in refusal(run("runs", rule["id"], "--state", "done"))
    assert "--input takes NAME=VALUE" in refusal(run("start", rule["id"], "--input", "why"))
    assert "wh" in refusal(run("start", rule["id"], "--input", "wy=x"))


def test_a_name_of_several_is_told(run, automate):
    for _ in range(2):
        by_hand(automate, name="Twice")
    assert "Several automations" in refusal(run("start", "Twice"))


def test_no_key_and_no_server(run):
    assert "Give an API key" in refusal(run("list", key=""))
    assert "nothing listens there" in refusal(run("list", url=f"http://127.0.0.1:{free_port()}"))


# ---- trying ----------------------------------------------------------------------------------------------------------


def test_a_test_shows_what_would_be_done_and_does_nothing(run, api, a_project, automate):
    rule = automate(batch(patch(labels=["seen"])), condition={"priority": "urgent"}, name="To be tried")
    task = a_task_in(api, a_project)
    lines = printed(run("test", "To be tried", "--object", task["id"]))
    assert lines[0] == "would end as succeeded"
    assert lines[-1].split() == ["would", "cause", "task.updated", task["id"]]
    sample = json.dumps({"data": {**task, "priority": "urgent"}})
    (told,) = documents(run("test", rule["id"], "--sample", sample, "--json"))
    assert (told["starts"], told["state"]) == (True, "succeeded")
    assert api.get(f"/v1/tasks/{task['id']}").json()["labels"] == []


def test_what_would_not_start_is_told_with_the_comparison_that_does_not_hold(run, api, a_project, automate):
    rule = automate(batch(patch(labels=["seen"])), condition={"priority": "urgent", "assignee": None})
    task = a_task_in(api, a_project)
    (event,) = api.get("/v1/events", params={"object_id": task["id"], "types": "task.created"}).json()
    done = run("test", rule["id"], "--event", event["id"])
    assert done.exit_code == 1
    assert "would end as skipped  condition: " in done.stdout
    lines = printed(run("explain", rule["id"], event["id"]))
    assert any(line.split()[:2] == ["NO", "condition"] for line in lines)
    assert any(line.split()[:3] == ["NO", "priority", "$eq"] and line.endswith('(it is "none")') for line in lines)
    assert any(line.split()[:2] == ["yes", "types"] for line in lines)
    (told,) = documents(run("explain", rule["id"], event["id"], "--json"))
    assert told["starts"] is False


def test_what_started_a_run_is_explained_with_the_run(run, api, a_project, automate):
    rule = automate(batch(patch(labels=["seen"])))
    a_task_in(api, a_project)
    (found,) = settled(api, rule)
    lines = printed(run("explain", rule["id"], found["event_id"]))
    assert all(line.split()[0] == "yes" for line in lines[:-1])
    assert found["id"] in lines[-1]


def before(client, project) -> str:
    """A position of the log behind which there is little more than the project: others have written much before it."""
    (event,) = client.get("/v1/events", params={"object_id": project["id"]}).json()
    return str(event["seq"])


def test_a_rule_in_a_file_is_tried_on_the_past(run, api, a_project, tmp_path):
    tasks = [a_task_in(api, a_project) for _ in range(2)]
    body = {
        "name": "x",
        "project_id": a_project["id"],
        "trigger": {"on": "event", "types": ["task.created"]},
        "actions": [batch(patch(labels=["seen"]))],
    }
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(body))
    head, *rest = printed(run("preview", "--file", str(path), "--after", before(api, a_project), "--trials", "1"))
    assert head.startswith("2 runs about 2 objects, by ")
    assert [line.split()[-1] for line in rest[:2]] == [task["id"] for task in tasks]
    assert "would end as succeeded" in rest
    (told,) = documents(run("preview", "--file", str(path), "--trials", "0", "--json"))
    assert (told["count"], told["trials"]) == (2, [])


def test_a_rule_that_there_is_is_tried_on_the_past(run, api, a_project, automate):
    a_task_in(api, a_project)
    rule = automate(batch(patch(labels=["seen"])))
    (told,) = documents(run("preview", rule["id"], "--after", before(api, a_project), "--json"))
    assert told["count"] == 1
    (less,) = documents(run("preview", rule["id"], "--after", str(told["starts"][0]["seq"]), "--json"))
    assert less["count"] == 0


def test_what_cannot_be_tried_is_told(run, automate, tmp_path):
    rule = by_hand(automate)
    path = tmp_path / "rule.json"
    path.write_text("{")
    assert "--file is no JSON" in refusal(run("preview", "--file", str(path)))
    assert run("preview").exit_code == 2
    assert "--sample is no JSON" in refusal(run("test", rule["id"], "--sample", "{"))
    assert "evt_" in refusal(run("explain", rule["id"], ids.new("evt")))
