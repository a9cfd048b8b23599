"""The recipes for automations: each can be created as it stands on the page, and does what its heading says.

What an event or a hand starts is let run here. Of those that wait for a time, only the definition is tried: time is
tried in the tests of the API.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.asking import create, listed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "automation-recipes.md"
RECIPE = re.compile(r"^### (.+?)$(?:(?!^### ).)*?^```json\n(.*?)^```$", re.M | re.S)
RECIPES = dict(RECIPE.findall(PAGE.read_text(encoding="utf-8")))
PATIENCE = 120


class Scene:
    """Two projects, two people, and the automation of one recipe."""

    def __init__(self, api: httpx2.Client, recipe: str) -> None:
        self.api = api
        for handle in ("ana", "tom"):
            api.post("/v1/users", json={"name": handle.title(), "handle": handle, "email": f"{handle}@recipes.example"})
        self.project, self.other = (create(api, "projects", name=name)["id"] for name in ("A project", "Another one"))
        self.template = str(create(api, "tasks", name="A template", project_id=self.project)["id"])
        text = RECIPES[recipe]
        for name, found in (("PROJECT", self.project), ("OTHER_PROJECT", self.other), ("TASK", self.template)):
            text = text.replace(f"YOUR_{name}", found)
        self.automation = create(api, "automations", **json.loads(text))

    def task(self, **members: Any) -> str:
        members = {"name": "A task", **members}
        place = {} if "parent_id" in members else {"project_id": self.project}
        return str(create(self.api, "tasks", **place, **members)["id"])

    def comment(self, task: str, body: str) -> str:
        return str(create(self.api, "comments", task_id=task, body=body)["id"])

    def change(self, task: str, **members: Any) -> None:
        response = self.api.patch(f"/v1/tasks/{task}", json=members)
        assert response.status_code == 200, response.text

    def user(self, handle: str) -> str:
        (found,) = listed(self.api, "users", handle=handle)
        return str(found["id"])

    def start(self, **body: Any) -> None:
        response = self.api.post(f"/v1/automations/{self.automation['id']}/runs", json=body)
        assert response.status_code == 202, response.text

    def runs(self, count: int = 1) -> None:
        """Waits until so many runs are over, all of them with success."""
        until = time.monotonic() + PATIENCE
        while True:
            found = listed(self.api, f"automations/{self.automation['id']}/runs")
            if sum(run["finished_at"] is not None for run in found) >= count:
                break
            assert time.monotonic() < until, found
            time.sleep(0.05)
        told = [(run["state"], run["detail"]) for run in found]
        assert {state for state, _ in told} == {"succeeded"}, told

    def now(self, task: str) -> Any:
        return self.api.get(f"/v1/tasks/{task}").json()

    def comments(self, task: str) -> list[str]:
        return [comment["body"] for comment in listed(self.api, "comments", task_id=task, sort="created_at")]

    def names(self, **filters: Any) -> list[str]:
        return [task["name"] for task in listed(self.api, "tasks", sort="created_at", **filters)]


@pytest.fixture
def scene(api: httpx2.Client) -> Any:
    """Makes the scene of a recipe; its automation is gone after the test."""
    made: list[Scene] = []

    def make(recipe: str) -> Scene:
        made.append(Scene(api, recipe))
        return made[-1]

    yield make
    for one in made:
        api.delete(f"/v1/automations/{one.automation['id']}")


# ---- what each does --------------------------------------------------------------------------------------------------


def rota(scene: Scene) -> None:
    for handle in ("ana", "tom"):
        create(scene.api, "tasks", name=handle, assignee=handle, project_id=scene.other)
    tasks = [scene.task() for _ in range(3)]
    scene.runs(3)
    assert [scene.now(task)["assignee"] for task in tasks] == [scene.user(name) for name in ("ana", "tom", "ana")]


def reopened(scene: Scene) -> None:
    task = scene.task(assignee="ana", status="completed")
    scene.change(task, status="pending")
    scene.runs()
    assert scene.now(task)["assignee"] is None


def handed_over(scene: Scene) -> None:
    task, done = scene.task(assignee="ana"), scene.task(assignee="ana", status="completed")
    ana, tom = scene.user("ana"), scene.user("tom")
    scene.start(object_ids=[ana], input={"to": tom})
    scene.runs()
    assert (scene.now(task)["assignee"], scene.now(done)["assignee"]) == (tom, ana)
    assert scene.comments(task) == ["Handed over by Ana."]


def labelled(scene: Scene) -> None:
    plain, labelled, task = (
        scene.task(),
        scene.task(name="Invoice", labels=["x"]),
        scene.task(name="Pay the Invoice 12"),
    )
    scene.runs()
    assert [scene.now(one)["labels"] for one in (plain, labelled, task)] == [[], ["x"], ["billing"]]


def important(scene: Scene) -> None:
    new, task = scene.task(labels=["vip"]), scene.task()
    scene.change(task, labels=["a", "vip"])
    scene.runs(2)
    assert [scene.now(one)["priority"] for one in (new, task)] == ["urgent", "urgent"]


def begun(scene: Scene) -> None:
    task = scene.task()
    scene.change(task, status="in_progress")
    scene.runs()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", scene.now(task)["start_date"])


def begun_by_comment(scene: Scene) -> None:
    task, done = scene.task(), scene.task(status="completed")
    scene.comment(task, "I am on it")
    scene.comment(done, "Well done")
    scene.runs(2)
    assert [scene.now(one)["status"] for one in (task, done)] == ["in_progress", "completed"]


def inherited(scene: Scene) -> None:
    parent = scene.task(custom_fields={"customer": "Acme"})
    task = scene.task(parent_id=parent)
    scene.runs()
    assert scene.now(task)["custom_fields"] == {"customer": "Acme"}


def moved(scene: Scene) -> None:
    task = scene.task(due_date="2030-01-01")
    scene.change(task, due_date="2030-02-01")
    scene.runs()
    assert scene.comments(task) == ["Due 2030-02-01 instead of 2030-01-01."]


def thanked(scene: Scene) -> None:
    task = scene.task()
    scene.change(task, status="completed")
    scene.runs()
    (said,) = scene.comments(task)
    assert said.startswith("Thank you, ")


def onboarded(scene: Scene) -> None:
    task = scene.task(name="Acme", labels=["onboarding"])
    scene.runs()
    assert scene.names(parent_id=task) == ["Sign the contract", "Give access to Acme", "Train the team"]


def copied(scene: Scene) -> None:
    for name in ("Write the notes", "Tell the customers"):
        scene.task(name=name, parent_id=scene.template, estimate=2)
    task = scene.task()
    scene.change(task, labels=["release"])
    scene.runs()
    assert scene.names(parent_id=task, estimate=2) == ["Write the notes", "Tell the customers"]


def held_back(scene: Scene) -> None:
    task = scene.task(labels=["release"])
    part = scene.task(name="A part", parent_id=task)
    scene.change(task, status="completed")
    scene.runs()
    assert (scene.now(task)["status"], scene.comments(task)) == ("pending", ['"A part" is not done yet.'])
    for one in (part, task):
        scene.change(one, status="completed")
    scene.runs(2)
    assert scene.now(task)["status"] == "completed"


def completed_with_parts(scene: Scene) -> None:
    task = scene.task()
    parts = [scene.task(parent_id=task) for _ in range(2)]
    scene.change(parts[0], status="completed")
    scene.runs()
    assert scene.now(task)["status"] == "pending"
    scene.change(parts[1], status="completed")
    scene.runs(2)
    assert scene.now(task)["status"] == "completed"


def mirrored(scene: Scene) -> None:
    task = scene.task(name="To both", labels=["mirror"], due_date="2030-01-01")
    scene.runs()
    (copy,) = listed(scene.api, "tasks", project_id=scene.other)
    assert (copy["name"], copy["due_date"], copy["custom_fields"]) == ("To both", "2030-01-01", {"mirror_of": task})
    assert scene.comments(task) == [f"Mirrored as {copy['id']}."]


def copies_completed(scene: Scene) -> None:
    task = scene.task()
    copy = create(scene.api, "tasks", name="x", project_id=scene.other, custom_fields={"mirror_of": task})["id"]
    scene.change(task, status="completed")
    scene.runs()
    assert scene.now(copy)["status"] == "completed"


def project_begun(scene: Scene) -> None:
    project = create(scene.api, "projects", name="Client Acme")["id"]
    scene.runs()
    assert scene.names(project_id=project) == ["Invite the team", "Agree on dates"]


TRIED: dict[str, Callable[[Scene], None]] = {
    "Assign new tasks by rota": rota,
    "Take the assignee away when a task is reopened": reopened,
    "Hand all open tasks of a person to somebody else": handed_over,
    "Label by a word in the name": labelled,
    "Priority by label": important,
    "Note when work begins": begun,
    "Begin a task when somebody comments on it": begun_by_comment,
    "Give subtasks the customer of their parent": inherited,
    "Tell by how much a date was moved": moved,
    "Thank whoever completes a task": thanked,
    "A checklist for each new customer": onboarded,
    "Copy the subtasks of a template task": copied,
    "No release before its subtasks are done": held_back,
    "Complete a task with its last subtask": completed_with_parts,
    "Mirror tasks to another project": mirrored,
    "Complete the copies, too": copies_completed,
    "First tasks for each new project": project_begun,
}


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_can_be_created_and_does_what_it_says(recipe, scene):
    made = scene(recipe)
    if recipe in TRIED:
        TRIED[recipe](made)


def test_only_what_waits_for_a_time_is_not_tried():
    untried = {name: json.loads(text) for name, text in RECIPES.items() if name not in TRIED}
    waits = {"Ask after three days whether the customer answered"}
    assert {name for name, body in untried.items() if body["trigger"]["on"] in ("event", "manual")} == waits
    assert TRIED.keys() <= RECIPES.keys()


def test_there_is_a_document_below_every_heading():
    headings = re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert list(RECIPES) == headings
    assert len(headings) >= 20
