"""What the stories find on the server: the people of the examples, and a month full of near misses.

Why near misses: a filter that returns the wanted tasks has shown little until it has left out those that
differ in one respect only.
"""

from typing import Any, NamedTuple

import httpx2

PEOPLE = {"user_123": "Mia", "user_456": "Ana", "user_789": "Tom", "support_team_lead": "Sam"}


class January(NamedTuple):
    """A project and what the examples' big question finds there: (id, assignee's name, project's name)."""

    project_id: str
    rows: list[list[str]]


def create(client: httpx2.Client, resource: str, **body: Any) -> Any:
    """The answer to a POST that is expected to succeed."""
    response = client.post(f"/v1/{resource}", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def listed(client: httpx2.Client, resource: str, **params: Any) -> Any:
    """The answer to a list request that is expected to succeed."""
    response = client.get(f"/v1/{resource}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def invite_people(client: httpx2.Client) -> dict[str, str]:
    """Invite everybody into the owner's workspace; returns the ids by handle."""
    return {
        handle: create(client, "users", name=name, email=f"{handle}@example.com", handle=handle)["id"]
        for handle, name in PEOPLE.items()
    }


def plant_january(client: httpx2.Client) -> January:
    """What the question asks for (Ana's and Tom's urgent or client work of January 2024), and near misses."""
    project = create(client, "projects", name="January launch")
    elsewhere = create(client, "projects", name="Another launch")

    def task(due_date: str | None, **other: Any) -> dict[str, Any]:
        usual = {
            "project_id": project["id"],
            "assignee": "user_456",
            "priority": "high",
            "labels": ["urgent"],
        }
        return {"name": "A task", "due_date": due_date} | usual | other

    wanted = [
        task("2024-01-01", labels=["client-work", "urgent"]),
        task("2024-01-15", assignee="user_789", labels=["internal", "client-work"]),
        task("2024-01-15"),
        task("2024-01-31"),
        task("2024-01-31T18:30:00Z", assignee="user_789"),
    ]
    near_misses = [
        task("2023-12-31"),
        task("2023-12-31T23:59:59.999Z"),
        task("2024-02-01"),
        task("2024-02-01T00:00:00Z"),
        task(None),
        task("2024-01-15", assignee="user_123"),
        task("2024-01-15", assignee=None),
        task("2024-01-15", priority="urgent"),
        task("2024-01-15", priority="medium"),
        task("2024-01-15", priority="none"),
        task("2024-01-15", labels=["internal"]),
        task("2024-01-15", labels=["urgent-later", "client"]),
        task("2024-01-15", labels=[]),
        task("2024-01-15", project_id=elsewhere["id"]),
    ]
    in_the_trash = task("2024-01-15")
    created = create(client, "tasks/bulk", tasks=[*wanted, *near_misses, in_the_trash])
    assert client.delete(f"/v1/tasks/{created[-1]['id']}").status_code == 204
    # `sort=-due_date`: the latest first, and of two on the same day the one created later.
    return January(
        project["id"],
        [
            [made["id"], PEOPLE[asked["assignee"]], "January launch"]
            for made, asked in reversed(list(zip(created[: len(wanted)], wanted, strict=True)))
        ],
    )
