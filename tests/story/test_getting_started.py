"""Getting started with nothing but curl: the commands of the examples with the real host, key and ids."""

import json

import pytest

from tests.story.world import create, listed

FIRST_CALL = """curl -H "Authorization: Bearer YOUR_API_KEY" \\
     https://api.taskade.com/v1/projects"""

FIRST_TASK = """curl -X POST https://api.taskade.com/v1/tasks \\
  -H "Authorization: Bearer YOUR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"name": "API Test Task", "project_id": "your_project_id"}'"""

STATUS = " -w '\\n%{http_code}'"


@pytest.fixture
def paste(shell, server):
    """Fills in the address and the key, runs the command, and returns the status and the body."""

    def run(command, key=None):
        command = command.replace("https://api.taskade.com", server.url)
        command = command.replace("YOUR_API_KEY", key or server.key)
        body, _, status = shell(command + STATUS).rpartition("\n")
        return int(status), json.loads(body) if body else None

    return run


def test_the_first_call_lists_the_projects_with_full_details(paste, api):
    project = create(api, "projects", name="First project", description="made before")
    status, projects = paste(FIRST_CALL)
    assert status == 200
    assert isinstance(projects, list)
    assert project in projects
    assert {"id", "name", "description", "type", "created_at", "updated_at", "workspace_id"} <= project.keys()


def test_the_first_task_lands_in_its_project(paste, api):
    project = create(api, "projects", name="Project of the first task")
    status, task = paste(FIRST_TASK.replace("your_project_id", project["id"]))
    assert status == 201
    assert (task["name"], task["project_id"], task["status"]) == ("API Test Task", project["id"], "pending")
    assert listed(api, "tasks", project_id=project["id"]) == [task]


def test_a_project_from_its_creation_to_its_end(paste):
    curl = 'curl -s -H "Authorization: Bearer YOUR_API_KEY" -H "Content-Type: application/json" '
    body = """-d '{"name": "New Project", "description": "API-created project"}'"""
    status, created = paste(f"{curl} -X POST https://api.taskade.com/v1/projects {body}")
    assert status == 201
    assert (created["name"], created["description"]) == ("New Project", "API-created project")
    assert created["id"].startswith("proj_")
    assert created["workspace_id"].startswith("ws_")

    address = f"https://api.taskade.com/v1/projects/{created['id']}"
    assert paste(f"{curl} {address}") == (200, created)

    status, updated = paste(f"""{curl} -X PUT {address} -d '{{"name": "Renamed"}}'""")
    assert (status, updated["name"], updated["description"]) == (200, "Renamed", "API-created project")

    assert paste(f"{curl} -X DELETE {address}") == (204, None)
    status, problem = paste(f"{curl} {address}")
    assert (status, problem["status"], problem["code"]) == (404, 404, "not-found")


def test_a_wrong_key_is_told_so(paste, shell, server):
    status, problem = paste(FIRST_CALL, key="YOUR-API-KEY")
    assert (status, problem["status"], problem["code"]) == (401, 401, "unauthenticated")
    head = shell(f"curl -s -o /dev/null -D - {server.url}/v1/projects").lower()
    assert head.split()[1] == "401"
    assert "\nwww-authenticate: bearer" in head
    assert "\ncontent-type: application/problem+json" in head
