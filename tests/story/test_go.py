"""Tasks with Go's net/http: created at once, changed, read page by page, deleted."""

from tests.story.world import create


def test_tasks(go, server, api, people):
    project = create(api, "projects", name="Go tasks")["id"]
    found = go(server, "tasks", project_id=project)
    names = ["Design mockups", "Write documentation", "Code review"]
    assert [task["name"] for task in found["created"]] == names
    assert [task["assignee"] for task in found["created"]] == [
        people[handle] for handle in ("user_123", "user_456", "user_789")
    ]
    assert {task["project_id"] for task in found["created"]} == {project}

    updated = found["updated"]
    assert (updated["name"], updated["priority"]) == ("Updated task name", "high")
    assert updated["labels"] == ["design"], "what the change did not name stays"
    assert updated["custom_fields"] == {"estimated_hours": 8, "difficulty": "medium"}

    assert found["pages"] == ["Updated task name", "Write documentation", "Code review"]
    assert found["deleted"] == 204
    assert [task["name"] for task in found["left"]] == ["Updated task name", "Write documentation"]
