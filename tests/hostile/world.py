"""The people of the fuzzer: workspaces, users of every role, limited keys; and what puts them back when they are gone.

Why a keeper: they remove, demote and delete each other, and a world in which nobody may do anything finds no fault.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from click.testing import CliRunner
from taskade_server.commands.keys import keys

from tests.hostile.rights import Caller
from tests.support.server import Server

ROLES: Final = ("owner", "admin", "member", "editor", "guest", "viewer", "commenter", "leaver")
_WORKSPACE_ROLE: Final = {"editor": "member", "viewer": "member", "commenter": "guest", "leaver": "member"}
_PROJECT_ROLE: Final = {"viewer": "viewer", "commenter": "commenter", "guest": "editor", "leaver": "viewer"}
MAX_KEYS: Final = 8


@dataclass(slots=True)
class Credential:
    """A key in use: its secret, and whose rights it has."""

    secret: str
    caller: Caller


@dataclass(slots=True)
class Person:
    """Somebody who sends requests, with some keys; the first may do all that the user may."""

    name: str
    user_id: str | None
    email: str
    role: str
    credentials: list[Credential] = field(default_factory=list)


class World:
    """The workspaces and the people in them. `root` owns the workspaces and takes no part."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._root = httpx2.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.key}"},
            timeout=120,
            trust_env=False,
            verify=False,
        )
        self.workspaces: list[str] = []
        self.people: list[Person] = []

    def close(self) -> None:
        self._root.close()

    def build(self) -> None:
        """Three workspaces; all roles in the first, some in two, one stranger in the last."""
        self._renew_workspaces()
        for role in ROLES:
            self.people.append(self._invite(role))
        stranger = self._invite("stranger")
        self.people += [stranger, Person("nobody", None, "", "", [Credential("", Caller(None, None))])]
        for person in self.people[:-1]:
            self._limited_keys(person)
        self._projects()

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._root.post(f"/v1/{path}", json=body)
        return answer.json() if answer.status_code < 300 else {}

    def _renew_workspaces(self) -> None:
        """Three that live."""
        alive = {one["id"] for one in self._root.get("/v1/workspaces", params={"limit": 1000}).json()}
        self.workspaces = [one for one in self.workspaces if one in alive]
        while len(self.workspaces) < 3:
            self.workspaces.append(self._post("workspaces", name=f"World {len(self.workspaces)}")["id"])

    def _invite(self, role: str) -> Person:
        place = self.workspaces[2 if role == "stranger" else 0]
        email = f"{role}-{self._chance.randrange(10**9)}@example.com"
        given = "owner" if role == "stranger" else _WORKSPACE_ROLE.get(role, role)
        user = self._post("users", name=f"A {role}", email=email, role=given, workspace_id=place)
        person = Person(role, user["id"], email, given)
        self._give_key(person)
        if role in ("admin", "member", "guest"):
            self._post(f"workspaces/{self.workspaces[1]}/members", user=user["id"], role="member")
        return person

    def _give_key(self, person: Person) -> bool:
        """A key with all that the user may do, first of their keys. False if there is no such user any more."""
        server = self._server
        place = ["--database-url", server.database_url] if server.database_url else ["--data", str(server.data)]
        done = CliRunner().invoke(keys, ["create", "--name", "hostile", "--user", person.email, *place])
        if done.exit_code != 0:
            return False
        # In its last line: what other threads print meanwhile is caught, too.
        secret = done.stdout.split()[-1]
        key_id = secret.partition("_")[2].partition("_")[0]
        person.credentials = [Credential(secret, Caller(person.user_id, f"key_{key_id}")), *person.credentials[1:]]
        return True

    @contextmanager
    def _as(self, credential: Credential) -> Iterator[httpx2.Client]:
        headers = {"Authorization": f"Bearer {credential.secret}"}
        url = self._server.url
        with httpx2.Client(base_url=url, headers=headers, timeout=120, trust_env=False, verify=False) as client:
            yield client

    def _limited_keys(self, person: Person) -> None:
        """Keys that can do less, by scope, workspace, project and address."""
        limits: list[dict[str, Any]] = [
            {"scopes": ["tasks:read"]},
            {"scopes": ["projects:write", "comments:read"]},
            {"scopes": ["api-keys:write", "webhooks:write", "tasks:write"]},
            {"scopes": ["*"], "workspace_ids": [self.workspaces[0]]},
            {"scopes": ["*"], "allowed_ips": ["10.0.0.0/8"]},
        ]
        with self._as(person.credentials[0]) as client:
            project = client.post("/v1/projects", json={"name": "Own", "visibility": "private"})
            if project.status_code == 201:
                limits.append({"scopes": ["*"], "project_ids": [project.json()["id"]]})
            for limit in limits:
                made = client.post("/v1/api-keys", json={"name": "limited", **limit})
                if made.status_code == 201:
                    document = made.json()
                    person.credentials.append(Credential(document["secret"], Caller(person.user_id, document["id"])))

    def _projects(self) -> None:
        """In each workspace one that all see and one that is private, with whom a role restricts."""
        for workspace in self.workspaces:
            for visibility in ("workspace", "private"):
                body = {"name": f"A {visibility}", "visibility": visibility, "workspace_id": workspace}
                project = self._post("projects", **body)["id"]
                for person in self.people:
                    if person.name in _PROJECT_ROLE and self._chance.random() < 0.7:
                        self._post(f"projects/{project}/members", user=person.user_id, role=_PROJECT_ROLE[person.name])

    def keep(self) -> None:
        """Put back who was removed, demoted or deleted; workspaces, too."""
        self._renew_workspaces()
        for person in self.people:
            if person.user_id is None:
                continue
            with self._as(person.credentials[0]) as client:
                answer = client.get("/v1/users/me")
            if answer.status_code in (401, 403) and not self._give_key(person):
                renewed = self._invite(person.name)
                person.user_id, person.email, person.credentials = renewed.user_id, renewed.email, renewed.credentials
            if self._chance.random() < 0.5:
                place = self.workspaces[2 if person.name == "stranger" else 0]
                self._post(f"workspaces/{place}/members", user=person.user_id, role=person.role)
        if self._chance.random() < 0.3:
            self._projects()
