"""A daily report on the API: what was completed since yesterday, counted and written back as a table."""

from datetime import date, timedelta

from tests.story.world import create, invite_people, listed


def test_daily_report(node, start_server):
    # A server of its own: the report asks for everything that was completed.
    server = start_server()
    with server.client() as api:
        invite_people(api)
        website = create(api, "projects", name="Website")["id"]
        app = create(api, "projects", name="App")["id"]
        done = {"status": "completed", "project_id": website}
        tasks = create(
            api,
            "tasks/bulk",
            tasks=[
                {"name": "Header", "assignee": "user_456", **done},
                {"name": "Footer", "assignee": "user_456", "priority": "high", **done},
                {"name": "Log in", "assignee": "user_456", **done, "project_id": app},
                {"name": "Fonts", "assignee": "user_789", "priority": "urgent", **done},
                {"name": "Tidy up", "project_id": app},
                {"name": "Not done", "assignee": "user_789", "project_id": app},
                {"name": "Done too early", "assignee": "user_123", **done},
                {"name": "Done and deleted", "assignee": "user_123", **done},
            ],
        )
        ids = {task["name"]: task["id"] for task in tasks}
        assert api.patch(f"/v1/tasks/{ids['Tidy up']}", json={"status": "completed"}).json()["completed_at"]
        reopened = api.patch(f"/v1/tasks/{ids['Done too early']}", json={"status": "pending"}).json()
        assert reopened["completed_at"] is None
        assert api.delete(f"/v1/tasks/{ids['Done and deleted']}").status_code == 204

    found = node(server, "report.mjs")
    report = found["report"]
    assert report == {
        "date": report["date"],
        "total_completed": 5,
        "by_assignee": {"Ana": 3, "Tom": 1, "Unassigned": 1},
        "by_project": {"Website": 3, "App": 2},
        "productivity_score": 1 + 3 + 1 + 5 + 1,
    }
    assert found["project"]["name"] == f"Daily Report - {report['date']}"
    assert found["project"]["type"] == "table"
    assert [(row["name"], row["custom_fields"]) for row in found["rows"]] == [
        ("Ana", {"tasks_completed": 3}),
        ("Tom", {"tasks_completed": 1}),
        ("Unassigned", {"tasks_completed": 1}),
    ]


def test_a_date_stands_for_its_day_where_times_are_compared(api):
    project = create(api, "projects", name="Days")["id"]
    done = create(api, "tasks", name="Done", project_id=project, status="completed")
    undone = create(api, "tasks", name="Not done", project_id=project)
    # The server's own clock says which day it is, so midnight cannot come between.
    day = date.fromisoformat(done["completed_at"][:10])
    before, after = day - timedelta(days=1), day + timedelta(days=1)

    def names(**operators):
        params = {f"completed_at[${name}]": str(value) for name, value in operators.items()}
        return [task["name"] for task in listed(api, "tasks", project_id=project, **params)]

    assert names(gte=before) == names(gte=day) == ["Done"]
    assert names(gte=after) == []
    assert names(lte=day) == names(lt=after) == ["Done"]
    assert names(lte=before) == names(lt=day) == []
    assert names(gte=day, lte=day) == ["Done"]
    assert listed(api, "tasks", project_id=project, completed_at="null") == [undone]
