"""Workspaces, projects and tasks with axios: the examples' calls, what they change and what stays."""

from tests.story.world import create, listed


def changed(before, after):
    """The names of the members that differ."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_workspaces(node, server):
    found = node(server, "workspaces.mjs")
    new, updated, merged = found["newWorkspace"], found["updated"], found["merged"]
    assert (new["name"], new["description"]) == ("API Development Workspace", "For custom API integrations")
    assert new in found["workspaces"]
    assert len(found["workspaces"]) >= 2, "the owner's first workspace is there, too"

    assert updated["settings"] == new["settings"] | {"theme": "dark", "notifications": True}
    assert changed(new, updated) == {"settings", "updated_at", "version"}
    assert merged["settings"] == updated["settings"] | {"notifications": False}
    assert found["stored"] == merged


def test_lists_reach_across_workspaces(api):
    """A list without a workspace shows what is in any of them, in the order in which it was made."""
    sales, support = (create(api, "workspaces", name=name)["id"] for name in ("Sales", "Support"))
    projects = [
        create(api, "projects", name=f"Across {number}", workspace_id=workspace)
        for number, workspace in enumerate((support, sales, support))
    ]
    tasks = [
        create(api, "tasks", name=f"Call {number}", project_id=projects[number % 3]["id"], labels=["across"])
        for number in range(6)
    ]
    everything = listed(api, "projects", limit=1000)
    assert [project for project in everything if project in projects] == projects
    assert [task for task in listed(api, "tasks", limit=1000) if task in tasks] == tasks
    assert listed(api, "tasks", labels="across") == tasks
    assert listed(api, "tasks", labels="across", sort="-name") == tasks[::-1]
    assert listed(api, "tasks", workspace_id=sales) == [tasks[1], tasks[4]]


def test_projects(node, server, api):
    workspace = create(api, "workspaces", name="Sales")
    board = create(api, "projects", name="Pipeline", type="board", workspace_id=workspace["id"])
    create(api, "projects", name="Not a board", type="list", workspace_id=workspace["id"])
    create(api, "projects", name="A board elsewhere", type="board")
    template = create(
        api,
        "templates",
        name="Onboarding",
        workspace_id=workspace["id"],
        project={"type": "board", "description": "From hello to live"},
        tasks=[{"name": "Say hello"}, {"name": "Import the data", "priority": "high"}, {"name": "Go live"}],
    )
    existing = create(api, "projects", name="Existing", description="old", custom_fields={"region": "north"})

    found = node(
        server,
        "projects.mjs",
        workspace_id=workspace["id"],
        template_id=template["id"],
        project_id=existing["id"],
    )
    assert found["projects"] == [board]

    project = found["project"]
    assert (project["name"], project["type"]) == ("Customer Onboarding", "board")
    assert (project["workspace_id"], project["template_id"]) == (workspace["id"], template["id"])
    assert [(task["name"], task["priority"]) for task in found["tasks"]] == [
        ("Say hello", "none"),
        ("Import the data", "high"),
        ("Go live", "none"),
    ]

    patched = found["patched"]
    assert (patched["description"], patched["due_date"]) == ("Updated project description", "2024-02-01")
    assert changed(found["before"], patched) == {"description", "due_date", "updated_at", "version"}
    assert found["stored"] == patched


def test_a_project_from_a_built_in_template(api):
    templates = [template for template in listed(api, "templates") if template["tasks"]]
    assert len(templates) >= 3
    for template in templates[:3]:
        project = create(api, "projects", name="From a template", template_id=template["id"])
        names = {task["name"] for task in listed(api, "tasks", project_id=project["id"], limit=1000)}
        assert {task["name"] for task in template["tasks"]} <= names


def test_tasks(node, server, api, people):
    project = create(api, "projects", name="Tasks story")
    elsewhere = create(api, "projects", name="Tasks story, elsewhere")

    def task(name, due_date, **other):
        usual = {"project_id": project["id"], "assignee": "user_456", "status": "pending"}
        return {"name": name, "due_date": due_date} | usual | other

    wanted = [
        task("The day before", "2024-01-30"),
        task("A moment before", "2024-01-30T23:59:59.999Z"),
        task("Half a year before", "2023-07-31"),
    ]
    near_misses = [
        task("On the day", "2024-01-31"),
        task("First moment of the day", "2024-01-31T00:00:00Z"),
        task("After", "2024-02-01"),
        task("Never", None),
        task("Tom's", "2024-01-30", assignee="user_789"),
        task("Nobody's", "2024-01-30", assignee=None),
        task("Begun", "2024-01-30", status="in_progress"),
        task("Done", "2024-01-30", status="completed"),
        task("Elsewhere", "2024-01-30", project_id=elsewhere["id"]),
    ]
    created = create(api, "tasks/bulk", tasks=[*wanted, *near_misses])
    existing = create(
        api,
        "tasks",
        name="Existing",
        description="**Keep** me",
        project_id=elsewhere["id"],
        assignee="user_123",
        labels=["kept"],
        due_date="2024-03-01",
        custom_fields={"phase": "one"},
    )

    found = node(server, "tasks.mjs", project_id=project["id"], task_id=existing["id"])
    assert found["tasks"] == created[: len(wanted)]

    inbox = found["inbox"]["id"]
    assert [(new["name"], new["assignee"]) for new in found["newTasks"]] == [
        ("Design mockups", people["user_123"]),
        ("Write documentation", people["user_456"]),
        ("Code review", people["user_789"]),
    ]
    assert {(new["project_id"], new["status"]) for new in found["newTasks"]} == {(inbox, "pending")}
    assert found["single"]["project_id"] == inbox
    assert listed(api, "tasks", project_id=inbox, limit=1000)[-4:] == [*found["newTasks"], found["single"]]

    before, updated, harder = found["before"], found["updated"], found["harder"]
    assert before == existing
    assert (updated["name"], updated["priority"]) == ("Updated task name", "high")
    assert updated["custom_fields"] == {"phase": "one", "estimated_hours": 8, "difficulty": "medium"}
    assert changed(before, updated) == {"name", "priority", "custom_fields", "updated_at", "version"}
    assert harder["custom_fields"] == {"phase": "one", "estimated_hours": 8, "difficulty": "hard"}
    assert found["stored"] == harder


def test_what_was_read_can_be_changed_and_sent_back(api, people):
    """Also what a client may not set, if it says what is so; `version` and `updated_at` are never looked at."""
    task = create(api, "tasks", name="Read me", assignee="user_456", labels=["a"], due_date="2024-05-01")
    sent = task | {"updated_at": "2001-01-01T00:00:00.000Z", "version": 99, "name": "Sent back"}
    response = api.put(f"/v1/tasks/{task['id']}", json=sent)
    assert response.status_code == 200, response.text
    assert changed(task, response.json()) == {"name", "updated_at", "version"}
    assert response.json()["updated_at"] >= task["updated_at"]
    refused = api.put(f"/v1/tasks/{task['id']}", json=sent | {"created_by": people["user_789"]})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "read_only")
