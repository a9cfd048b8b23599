"""A customer dashboard on the API: projects found by a custom field, shown with their tasks and members."""


def test_customer_dashboard(node, server, people):
    found = node(server, "dashboard.mjs", customer_id="customer_42", customer_number=4711)
    ticket, second, updated, projects = (found[name] for name in ("ticket", "second", "updated", "projects"))

    assert (ticket["name"], ticket["type"]) == ("Support: Invoice missing", "list")
    details = {"customer_id": "customer_42", "priority": "high", "category": "billing"}
    assert ticket["custom_fields"] == details

    assert [project["id"] for project in projects] == [ticket["id"], second["id"]]
    assert [project["name"] for project in projects] == ["Support: Invoice missing", "Support: Login fails"]
    assert [[task["name"] for task in project["tasks"]] for project in projects] == [
        ["Send March again", "Call back"],
        ["Send March again"],
    ]
    first = projects[0]["tasks"][0]
    assert (first["project_id"], first["assignee"]) == (ticket["id"], people["support_team_lead"])
    assert (people["user_456"], "editor") in [(each["user"], each["role"]) for each in projects[0]["members"]]
    assert people["user_456"] not in [each["user"] for each in projects[1]["members"]]

    # A new status joins the other custom fields, and the client's clock has no say in `updated_at`.
    assert updated["custom_fields"] == details | {"status": "waiting"}
    assert (updated["name"], updated["type"]) == (ticket["name"], ticket["type"])
    assert projects[0]["custom_fields"] == updated["custom_fields"]


def test_customers_known_by_number(node, server, people):
    found = node(server, "dashboard.mjs", customer_id="customer_43", customer_number=4712)
    assert found["numbered"]["custom_fields"]["customer_id"] == 4712
    assert [project["id"] for project in found["projectsOfNumber"]] == [found["numbered"]["id"]]
    assert found["projectsOfNobody"] == []
