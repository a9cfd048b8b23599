"""What makes each type of event happen: the real requests, in order, with what they need made first.

Why a table by type and not a sample that is sent: what a receiver is tried with must be what it will get, in the order
and with the company in which it comes (completing a task is `task.updated` first).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from taskade_server.kit import ids
from taskade_server.tools.client import Api, Failed

Body = dict[str, Any]
_AFTER_30_DAYS: Final = "It happens by itself to what has been in the trash for 30 days; no request can cause it."
IMPOSSIBLE: Final[Mapping[str, str]] = {
    **{f"{name}.purged": _AFTER_30_DAYS for name in ("task", "comment", "project", "template")},
    "webhook.disabled": "The server does so when an endpoint answers 410, or has taken nothing for five days.",
    "automation.disabled": "The server does so when ten runs in a row have failed, or its API key is gone.",
}
"""Types that no request causes, and why."""


@dataclass(slots=True)
class Made:
    """Something that was created on the way."""

    kind: str
    id: str
    name: str
    path: str


@dataclass(slots=True)
class Scene:
    """One run: where it happens, what it has made so far, and each request with the position of the log after it.

    `data` is merged into the body that the event is about.
    """

    api: Api
    data: Body = field(default_factory=dict)
    project: str | None = None
    made: list[Made] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def make(self, resource: str, **body: Any) -> Any:
        """Create something that the event needs."""
        found = self.send("POST", f"/{resource}", body)
        name = found.get("name") or found.get("body") or found["id"]
        self.made.append(Made(resource, found["id"], name, f"/{resource}/{found['id']}"))
        return found

    def subject(self, resource: str, **body: Any) -> Any:
        """Create what the event is about."""
        return self.make(resource, **merged(body, self.data))

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Any other request."""
        found, headers = self.api.exchange(method, path, body)
        self.requests.append((method, path, headers.get("commit-seq", "")))
        return found

    def a_project(self) -> str:
        """The project to work in: the one that was asked for, or a new one."""
        if self.project is None:
            self.project = self.make("projects", name="Made by taskade trigger")["id"]
        return self.project

    def caused(self, kind: str) -> Body | None:
        """The event of a type that the last request caused; None if the key may not see it."""
        workspace_id, _, seq = self.requests[-1][2].partition(",")[0].rpartition(":")
        if not seq:
            return None
        chosen = {"workspace_id": workspace_id, "types": kind, "before": int(seq) + 1, "limit": 1}
        try:
            found: list[Body] = self.api.ask("GET", "/events", **chosen)
        except Failed:
            return None
        return found[0] if found else None

    def clean_up(self) -> list[Made]:
        """Delete what was made, the last first; what is gone already is left. Returns what was deleted."""
        done = []
        for thing in reversed(self.made):
            if thing.path not in self.gone:
                self.send("DELETE", thing.path)
                done.append(thing)
        return done


def merged(body: Body, changes: Body) -> Body:
    """A body with changes; objects merge."""
    result = dict(body)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


# ---- what can be made ------------------------------------------------------------------------------------------------


def _task(scene: Scene, **more: Any) -> Any:
    return scene.subject("tasks", **{"name": "Design mockups", "project_id": scene.a_project(), **more})


def _comment(scene: Scene) -> Any:
    task = scene.make("tasks", name="Design mockups", project_id=scene.a_project())
    return scene.subject("comments", task_id=task["id"], body="Looks good to me.")


def _project(scene: Scene) -> Any:
    return scene.subject("projects", name="Customer onboarding", description="From contract to first login.")


def _template(scene: Scene) -> Any:
    return scene.subject("templates", name="Customer onboarding", tasks=[{"name": "Kick-off call", "due_in_days": 3}])


def _workspace(scene: Scene) -> Any:
    return scene.subject("workspaces", name="Product team")


def _user(scene: Scene) -> Any:
    return scene.subject("users", name="Ana Lima", email=_address())


def _api_key(scene: Scene) -> Any:
    return scene.subject("api-keys", name="CI on the build server", scopes=["tasks:read"])


def _webhook(scene: Scene) -> Any:
    # Not enabled: to make a webhook happen is not to send anything to anybody.
    body = {"url": "https://example.com/hooks/taskade", "events": ["task.completed"], "enabled": False}
    return scene.subject("webhooks", **body)


def _secret(scene: Scene) -> Any:
    name = f"trigger-{ids.new('sec')[-12:]}"
    return scene.subject("secrets", name=name, hosts=["api.crm.example"], value=ids.new("value"))


def _automation(scene: Scene) -> Any:
    # Not enabled: to make an automation happen is not to let it do anything.
    comment = {"task_id": '{"$ref": "event.data.id"}', "body": "Who can review this?"}
    actions = [{"do": "batch", "operations": [{"method": "POST", "path": "/comments", "body": comment}]}]
    trigger = {"on": "event", "types": ["task.created"]}
    body = {"name": "Ask for a review", "trigger": trigger, "actions": actions, "enabled": False}
    return scene.subject("automations", **body)


def _address() -> str:
    return f"trigger-{ids.new('user')[-12:]}@example.com"


_MAKERS: Final[Mapping[str, tuple[str, Callable[[Scene], Any], Body]]] = {
    "task": ("tasks", _task, {"priority": "high"}),
    "comment": ("comments", _comment, {"body": "Looks *very* good to me."}),
    "project": ("projects", _project, {"due_date": "2030-02-01"}),
    "template": ("templates", _template, {"description": "The first four weeks with a new customer."}),
    "workspace": ("workspaces", _workspace, {"settings": {"theme": "dark"}}),
    "user": ("users", _user, {"name": "Ana Lima-Berg"}),
    "api_key": ("api-keys", _api_key, {"scopes": ["tasks:read", "projects:read"]}),
    "webhook": ("webhooks", _webhook, {"events": ["task.*"]}),
    "secret": ("secrets", _secret, {"description": "The token of the billing robot."}),
    "automation": ("automations", _automation, {"mode": "single"}),
}


# ---- what can be done with it ----------------------------------------------------------------------------------------


def _create(kind: str, scene: Scene) -> None:
    _MAKERS[kind][1](scene)


def _update(kind: str, scene: Scene) -> None:
    resource, make, patch = _MAKERS[kind]
    data, scene.data = scene.data, {}
    thing = make(scene)
    scene.send("PATCH", f"/{resource}/{thing['id']}", data or patch)


def _delete(kind: str, scene: Scene) -> None:
    resource, make, _ = _MAKERS[kind]
    path = f"/{resource}/{make(scene)['id']}"
    scene.send("DELETE", path)
    scene.gone.add(path)


def _restore(kind: str, scene: Scene) -> None:
    resource, make, _ = _MAKERS[kind]
    path = f"/{resource}/{make(scene)['id']}"
    scene.send("DELETE", path)
    scene.send("POST", f"{path}/restore")


def _assign(scene: Scene) -> None:
    task = _task(scene)
    scene.send("PATCH", f"/tasks/{task['id']}", {"assignee": "me"})


def _complete(scene: Scene) -> None:
    scene.send("POST", f"/tasks/{_task(scene)['id']}/complete")


def _reopen(scene: Scene) -> None:
    task = _task(scene)
    scene.send("POST", f"/tasks/{task['id']}/complete")
    scene.send("POST", f"/tasks/{task['id']}/reopen")


def _move(scene: Scene) -> None:
    parent = scene.make("tasks", name="Design", project_id=scene.a_project())
    scene.send("POST", f"/tasks/{_task(scene)['id']}/move", {"parent_id": parent["id"]})


def _archive(scene: Scene) -> None:
    scene.send("POST", f"/projects/{_project(scene)['id']}/archive")


def _unarchive(scene: Scene) -> None:
    path = f"/projects/{_project(scene)['id']}"
    scene.send("POST", f"{path}/archive")
    scene.send("POST", f"{path}/unarchive")


def _add_member(scene: Scene) -> str:
    user = scene.make("users", name="Ana Lima", email=_address())
    members = f"/projects/{scene.a_project()}/members"
    scene.send("POST", members, merged({"user": user["id"], "role": "viewer"}, scene.data))
    return f"{members}/{user['id']}"


def _change_member(scene: Scene) -> None:
    scene.send("PATCH", _add_member(scene), {"role": "editor"})


def _remove_member(scene: Scene) -> None:
    scene.send("DELETE", _add_member(scene))


def _general() -> dict[str, Callable[[Scene], Any]]:
    """Creating, changing, deleting and restoring whatever can be made."""
    verbs = {"created": _create, "updated": _update, "deleted": _delete, "restored": _restore}
    return {
        f"{kind}.{action}": partial(verb, kind)
        for kind in _MAKERS
        for action, verb in verbs.items()
        if action != "restored" or kind not in ("api_key", "webhook", "secret", "automation")
    }


TRIGGERS: Final[Mapping[str, Callable[[Scene], Any]]] = {
    **_general(),
    "task.assigned": _assign,
    "task.completed": _complete,
    "task.reopened": _reopen,
    "task.moved": _move,
    "project.archived": _archive,
    "project.unarchived": _unarchive,
    "member.added": _add_member,
    "member.updated": _change_member,
    "member.removed": _remove_member,
}
"""What makes an event of each type happen."""
