"""A workspace that looks like real work, as plain data: a small company that makes an app for shared bikes.

Why the content lies in demo.json: it is prose, written by hand, in which a date is a distance from today. Here it only
becomes create bodies, the same ones for the same day and seed, so that examples and screenshots stay as they are.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from typing import Any, Final

from taskade_server.domain import identity, projects, tasks, workspaces
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.kit import json
from taskade_server.kit.errors import Clash
from taskade_server.store.database import Tx

WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
WORKDAYS: Final = WEEKDAYS[:5]


@dataclass(frozen=True, slots=True)
class Project:
    """A body for POST /v1/projects; its members are named by their handles."""

    key: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A body for POST /v1/tasks; project, parent and blockers are keys of this data and come earlier in it."""

    key: str
    project: str
    parent: str | None
    blocked_by: tuple[str, ...]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comment:
    """A remark by a person (a handle) on a task (a key)."""

    task: str
    author: str
    body: str


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything in the order in which it can be created; `people` are bodies for POST /v1/users."""

    workspace: dict[str, Any]
    people: list[dict[str, Any]]
    projects: list[Project]
    tasks: list[Task]
    comments: list[Comment]


def build(rng_seed: int = 7, *, today: date | None = None) -> Demo:
    """The demo as of `today`; the seed draws only the estimates that the authors left open."""
    today = today or date.today()
    source: dict[str, Any] = json.decode(resources.files(__package__).joinpath("demo.json").read_bytes())
    settings = {project["key"]: project for project in source["projects"]}
    rng = random.Random(rng_seed)
    parents = {task["parent"] for task in source["tasks"]}
    tasks = []
    for task in source["tasks"]:
        project = settings[task["project"]]
        body = _task_body(task["body"], project["body"]["fields"], today)
        # A task with subtasks has their estimates; one of its own would count the work twice.
        if "estimate" not in body and task["key"] not in parents and project["estimates"]:
            body["estimate"] = rng.choice(project["estimates"])
        tasks.append(Task(task["key"], task["project"], task["parent"], tuple(task["blocked_by"]), body))
    return Demo(
        workspace=source["workspace"],
        people=source["people"],
        projects=[Project(key, _dated(project["body"], today)) for key, project in settings.items()],
        tasks=tasks,
        comments=[Comment(**comment) for comment in source["comments"]],
    )


def _task_body(source: Mapping[str, Any], fields: list[dict[str, Any]], today: date) -> dict[str, Any]:
    body = _dated(source, today)
    days = {field["key"] for field in fields if field["type"] == "date"}
    custom = body.get("custom_fields", {})
    if days & custom.keys():
        body["custom_fields"] = {k: _day(today, v, WORKDAYS) if k in days else v for k, v in custom.items()}
    return body


def _dated(source: Mapping[str, Any], today: date) -> dict[str, Any]:
    """A copy with dates instead of distances; what recurs on certain weekdays starts on one of them."""
    body = dict(source)
    rule = dict(part.split("=") for part in body.get("recurrence", "FREQ=DAILY").split(";"))
    allowed = tuple(rule["BYDAY"].split(",")) if "BYDAY" in rule else WORKDAYS
    clock = body.pop("due_time", None)
    for name in ("start", "due"):
        distance = body.pop(f"{name}_in_days", None)
        if distance is not None:
            body[f"{name}_date"] = _day(today, distance, allowed)
    if clock is not None:
        body["due_date"] += f"T{clock}:00.000Z"
    return body


def _day(today: date, distance: int, allowed: tuple[str, ...]) -> str:
    """The first allowed day that is at least so far from today; moving all days alike keeps their order."""
    day = today + timedelta(days=distance)
    while WEEKDAYS[day.weekday()] not in allowed:
        day += timedelta(days=1)
    return day.isoformat()


# ---- writing it ------------------------------------------------------------------------------------------------------


def load(tx: Tx, owner: Context, demo: Demo) -> str:
    """Write the demo as the owner, each comment as its author; returns a summary. Clash if it is there already."""
    if tx.one("SELECT 1 FROM users WHERE email = ?", (demo.people[0]["email"],)):
        raise Clash("The demo workspace is there already; use another data folder for a second one.")
    workspace = json.decode(workspaces.create(tx, owner, demo.workspace))
    projects.add_builtin_templates(tx, owner, workspace["id"])
    people = {
        person["handle"]: json.decode(
            identity.create_user(tx, owner, {**person, "workspace_id": workspace["id"], "role": "admin"})
        )["id"]
        for person in demo.people
    }
    containers = {
        project.key: json.decode(projects.create(tx, owner, {**project.body, "workspace_id": workspace["id"]}))["id"]
        for project in demo.projects
    }
    written: dict[str, str] = {}
    for task in demo.tasks:
        references = {
            "project_id": containers[task.project],
            "parent_id": written[task.parent] if task.parent else None,
            "blocked_by": [written[key] for key in task.blocked_by],
        }
        written[task.key] = json.decode(tasks.create(tx, owner, {**task.body, **references}))["id"]
    for comment in demo.comments:
        author = _as(tx, owner, people[comment.author], workspace["id"])
        tasks.create_comment(tx, author, {"task_id": written[comment.task], "body": comment.body})
    counts = f"{len(people)} people, {len(containers)} projects, {len(written)} tasks, {len(demo.comments)} comments"
    return f'Made the workspace "{workspace["name"]}" ({workspace["id"]}): {counts}.'


def _as(tx: Tx, owner: Context, user_id: str, workspace_id: str) -> Context:
    principal = Principal(user_id, None, frozenset("*"), identity.grants_of(tx, user_id), workspace_id)
    return Context(principal, Actor(user_id), owner.secret)
