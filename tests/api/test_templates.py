"""Templates: blueprints from which a project comes with its workflow and its tasks, in one transaction."""

from typing import Any

import pytest
from taskade_server.kit import time

from tests.api.asking import codes, create, listed, names, places, problem

BLUEPRINT: dict[str, Any] = {
    "name": "Customer onboarding",
    "description": "From contract to daily use",
    "project": {
        "description": "One for each customer",
        "type": "board",
        "color": "#3b82f6",
        "statuses": [
            {"key": "open", "name": "Open", "category": "todo"},
            {"key": "waiting", "name": "Waiting", "category": "doing"},
            {"key": "done", "name": "Done", "category": "done"},
        ],
        "fields": [{"key": "hours", "name": "Hours", "type": "number", "options": []}],
    },
    "tasks": [
        {
            "name": "Kick-off",
            "description": "Say *hello*",
            "priority": "high",
            "labels": ["meeting"],
            "start_in_days": 0,
            "due_in_days": 3,
            "estimate": 1.5,
            "subtasks": [
                {"name": "Invite", "due_in_days": -1},
                {"name": "Prepare", "subtasks": [{"name": "Slides", "status": "waiting"}]},
            ],
        },
        {"name": "Sign", "status": "done"},
    ],
}


def in_days(count):
    return time.add_days(time.day_of(time.now_ms()), count)


@pytest.fixture
def a_template(api):
    return create(api, "templates", **BLUEPRINT)


def test_a_template_is_kept_whole(api, a_template, home):
    assert a_template["workspace_id"] == home
    assert api.get(f"/v1/templates/{a_template['id']}").json() == a_template
    assert {name: a_template[name] for name in ("name", "description", "project")} == {
        name: BLUEPRINT[name] for name in ("name", "description", "project")
    }
    kick_off = a_template["tasks"][0]
    assert [task["name"] for task in kick_off["subtasks"]] == ["Invite", "Prepare"]
    assert kick_off["subtasks"][1]["subtasks"][0]["status"] == "waiting"


def test_a_project_from_a_template_has_its_workflow_and_its_tasks(api, a_template, me):
    project = create(api, "projects", name="Acme", template_id=a_template["id"])
    assert (project["name"], project["template_id"]) == ("Acme", a_template["id"])
    for name in ("description", "type", "color", "statuses", "fields"):
        assert project[name] == BLUEPRINT["project"][name]
    tasks = listed(api, "tasks", project_id=project["id"])
    assert [(task["name"], task["status"], task["due_date"]) for task in tasks] == [
        ("Kick-off", "open", in_days(3)),
        ("Invite", "open", in_days(-1)),
        ("Prepare", "open", None),
        ("Slides", "waiting", None),
        ("Sign", "done", None),
    ]
    kick_off, invite, prepare, slides, sign = tasks
    assert (kick_off["priority"], kick_off["labels"], kick_off["estimate"]) == ("high", ["meeting"], 1.5)
    assert (kick_off["description"], kick_off["start_date"]) == ("Say *hello*", in_days(0))
    assert [task["parent_id"] for task in tasks] == [None, kick_off["id"], kick_off["id"], prepare["id"], None]
    assert sign["completed_at"]
    assert {task["created_by"] for task in tasks} == {me["id"]}
    assert names(api, "tasks", project_id=project["id"], sort="position", parent_id="null") == ["Kick-off", "Sign"]
    assert slides["parent_id"] == prepare["id"]
    assert invite["version"] == 1


def test_what_the_request_says_goes_before_what_the_template_says(api, a_template):
    given = {"type": "list", "description": "My own", "color": "red", "due_date": "2030-01-01"}
    project = create(api, "projects", name="Acme", template_id=a_template["id"], **given)
    assert {name: project[name] for name in given} == given
    statuses = [{"key": "a", "name": None, "category": "todo"}, {"key": "b", "name": None, "category": "done"}]
    project = create(api, "projects", name="Acme", template_id=a_template["id"], statuses=statuses)
    assert project["statuses"] == statuses
    assert {task["status"] for task in listed(api, "tasks", project_id=project["id"])} <= {"a", "b"}


def test_a_template_and_the_projects_made_from_it_go_their_own_ways(api, a_template):
    project = create(api, "projects", name="Acme", template_id=a_template["id"])
    path = f"/v1/templates/{a_template['id']}"
    changed = api.patch(path, json={"name": "Renamed", "tasks": [{"name": "Only this"}]}).json()
    assert [task["name"] for task in changed["tasks"]] == ["Only this"]
    assert changed["project"] == a_template["project"]
    assert len(listed(api, "tasks", project_id=project["id"])) == 5
    assert (
        len(listed(api, "tasks", project_id=create(api, "projects", name="x", template_id=a_template["id"])["id"])) == 1
    )
    assert api.delete(path).status_code == 204
    assert api.get(f"/v1/projects/{project['id']}").json()["template_id"] == a_template["id"]
    refused = problem(api.post("/v1/projects", json={"name": "x", "template_id": a_template["id"]}), 422)
    assert places(refused) == ["/template_id"]
    assert api.post(f"{path}/restore").json()["name"] == "Renamed"


def test_a_project_is_made_where_its_template_is_unless_told_otherwise(api):
    workspace = create(api, "workspaces", name="Elsewhere")["id"]
    template = create(api, "templates", name="x", workspace_id=workspace, tasks=[{"name": "x"}])
    assert create(api, "projects", name="x", template_id=template["id"])["workspace_id"] == workspace


@pytest.mark.parametrize(
    "wrong",
    [{"template_id": "tmpl_00000000000000000000000000"}, {"template_id": "template_456"}, {"template_id": 5}],
    ids=str,
)
def test_an_unknown_template_makes_nothing(api, heads, wrong):
    before = heads()
    refused = problem(api.post("/v1/projects", json={"name": "x", **wrong}), 422)
    assert places(refused) == ["/template_id"]
    assert heads() == before


def test_a_wrong_request_for_a_project_from_a_template_makes_nothing(api, a_template, heads):
    before = heads()
    body = {"name": "", "template_id": a_template["id"], "due_date": "soon"}
    assert places(problem(api.post("/v1/projects", json=body), 422)) == ["/name", "/due_date"]
    assert heads() == before


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({}, "/name", "required"),
        ({"name": "x", "tasks": [{"name": "x"}, {}]}, "/tasks/1/name", "required"),
        ({"name": "x", "tasks": [{"name": "x", "status": "done"}]}, "/tasks/0/status", "unknown_status"),
        (
            {"name": "x", "tasks": [{"name": "x", "subtasks": [{"name": "y", "status": "done"}]}]},
            "/tasks/0/subtasks/0/status",
            "unknown_status",
        ),
        ({"name": "x", "tasks": [{"name": "x", "due": 3}]}, "/tasks/0/due", "unknown_field"),
        ({"name": "x", "tasks": [{"name": "x", "due_in_days": 1.5}]}, "/tasks/0/due_in_days", "wrong_type"),
        ({"name": "x", "tasks": [{"name": "x", "priority": "hgih"}]}, "/tasks/0/priority", "not_allowed"),
        ({"name": "x", "project": {"statuses": []}}, "/project/statuses", "invalid_workflow"),
        ({"name": "x", "project": {"kind": "board"}}, "/project/kind", "unknown_field"),
        ({"name": "x", "project": []}, "/project", "wrong_type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_with_a_blueprint_is_told_with_its_place(api, body, place, code):
    refused = problem(api.post("/v1/templates", json=body), 422)
    assert (places(refused), codes(refused)) == ([place], [code])


def test_every_built_in_template_makes_a_project(api, home):
    built_in = [template for template in listed(api, "templates", limit=1000) if template["workspace_id"] == home][:6]
    assert len({template["name"] for template in built_in}) == 6
    for template in built_in:
        project = create(api, "projects", name=template["name"], template_id=template["id"])
        tasks = listed(api, "tasks", project_id=project["id"], limit=1000)
        assert len(tasks) >= len(template["tasks"]) > 0
        assert {task["status"] for task in tasks} <= {status["key"] for status in project["statuses"]}
