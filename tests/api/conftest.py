"""Who is there in the tests of the API: people with different rights, and a project to work in.

Why people last as long as the server: each comes with a key of their own, and rights are tested by what the
same few people may do in many projects.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx2
import pytest
from taskade_server.engine import log
from taskade_server.engine.log import Event
from taskade_server.kit import ids
from taskade_server.store.database import Database, connect

from tests.api.asking import create, listed
from tests.support.server import Server

KeyWith = Callable[..., httpx2.Client]
ExpectEvents = Callable[..., AbstractContextManager[list[Event]]]


class Person(NamedTuple):
    """Somebody with a key of their own, and a client that uses it."""

    id: str
    email: str
    client: httpx2.Client


Invite = Callable[..., Person]


@pytest.fixture(scope="session")
def invite(server: Server, api: httpx2.Client) -> Iterator[Invite]:
    """Invites somebody: `invite("guest")`, `invite("owner", workspace_id=...)`; they come with a key."""
    clients: list[httpx2.Client] = []

    def run(role: str, **more: Any) -> Person:
        email = f"{ids.new('user')}@example.com"
        user = create(api, "users", name=f"A {role}", email=email, role=role, **more)
        client = server.client(server.create_key("tests", "--user", email))
        clients.append(client)
        return Person(user["id"], email, client)

    yield run
    for client in clients:
        client.close()


@pytest.fixture
def somebody(api: httpx2.Client, server: Server) -> Callable[[str], tuple[str, str, str]]:
    """Makes people whose one key may be taken away: `somebody("member")` gives (id, key's id, secret)."""

    def run(role: str) -> tuple[str, str, str]:
        user = create(api, "users", name=f"A {role}", email=f"{ids.new('user')}@example.com", role=role)
        secret = server.create_key("theirs", "--user", user["email"])
        with server.client(secret) as client:
            (key,) = listed(client, "api-keys")
        return user["id"], key["id"], secret

    return run


@pytest.fixture(scope="session")
def me(api: httpx2.Client) -> Any:
    """The owner's user."""
    return api.get("/v1/users/me").json()


@pytest.fixture(scope="session")
def home(me: Any) -> str:
    """The id of the workspace in which everybody but the outsider is."""
    return str(me["workspace_id"])


@pytest.fixture(scope="session")
def an_admin(invite: Invite) -> Person:
    return invite("admin")


@pytest.fixture(scope="session")
def a_member(invite: Invite) -> Person:
    return invite("member")


@pytest.fixture(scope="session")
def a_guest(invite: Invite) -> Person:
    """A guest, who sees nothing but the projects that they are added to."""
    return invite("guest")


@pytest.fixture(scope="session")
def a_viewer(invite: Invite) -> Person:
    """Another guest, for the role viewer."""
    return invite("guest")


@pytest.fixture(scope="session")
def a_stranger(api: httpx2.Client, invite: Invite, me: Any) -> Person:
    """The owner of another workspace, who shares none with anybody else."""
    workspace = create(api, "workspaces", name="Elsewhere")
    stranger = invite("owner", workspace_id=workspace["id"])
    assert api.delete(f"/v1/workspaces/{workspace['id']}/members/{me['id']}").status_code == 204
    return stranger


@pytest.fixture
def a_project(api: httpx2.Client) -> Any:
    """A project of the owner's workspace."""
    return create(api, "projects", name="A project")


@pytest.fixture
def a_task(api: httpx2.Client, a_project: Any) -> Any:
    """A task in `a_project`."""
    return create(api, "tasks", name="A task", project_id=a_project["id"])


@pytest.fixture
def automate(api: httpx2.Client, a_project: Any) -> Iterator[Callable[..., Any]]:
    """Makes automations of the project, which are gone after the test."""
    made: list[str] = []

    def run(*actions: Any, trigger: Any = None, client: httpx2.Client = api, **more: Any) -> Any:
        body = {
            "name": "A rule",
            "project_id": a_project["id"],
            "trigger": trigger or {"on": "event", "types": ["task.created"]},
            "actions": list(actions),
            **more,
        }
        found = create(client, "automations", **body)
        made.append(found["id"])
        return found

    yield run
    for automation_id in made:
        api.delete(f"/v1/automations/{automation_id}")


@pytest.fixture
def as_member(a_member: Person) -> httpx2.Client:
    """A client of a member of the workspace."""
    return a_member.client


@pytest.fixture
def as_guest(api: httpx2.Client, a_guest: Person, a_project: Any) -> httpx2.Client:
    """A client of a guest who edits `a_project`."""
    create(api, f"projects/{a_project['id']}/members", user=a_guest.id, role="editor")
    return a_guest.client


@pytest.fixture
def as_viewer(api: httpx2.Client, a_viewer: Person, a_project: Any) -> httpx2.Client:
    """A client of a guest who may look at `a_project`."""
    create(api, f"projects/{a_project['id']}/members", user=a_viewer.id, role="viewer")
    return a_viewer.client


@pytest.fixture
def outsider(a_stranger: Person) -> httpx2.Client:
    """A client of somebody from another workspace."""
    return a_stranger.client


@pytest.fixture(scope="session")
def key_with(server: Server, api: httpx2.Client) -> Iterator[KeyWith]:
    """Clients with a key of the owner that can do less: `key_with(["tasks:read"], project_ids=[...])`."""
    clients: list[httpx2.Client] = []

    def run(scopes: list[str], **limits: Any) -> httpx2.Client:
        key = create(api, "api-keys", name="tests", scopes=scopes, **limits)
        clients.append(server.client(key["secret"]))
        return clients[-1]

    yield run
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def database_of(server: Server) -> Iterator[Database]:
    """The shared server's database, to look at what no answer tells."""
    with connect(server.database_url or server.data / "taskade.db", patient=True) as db:
        yield db


@pytest.fixture(scope="session")
def heads(database_of: Database) -> Callable[[], dict[str, int]]:
    """Asks how long each workspace's log is: as long as nothing is written, no log grows."""

    def read() -> dict[str, int]:
        rows = database_of.read_sync(lambda tx: tx.all("SELECT workspace_id, seq FROM log_heads"))
        return {row[0]: row[1] for row in rows}

    return read


@pytest.fixture
def expect_events(database_of: Database, heads: Callable[[], dict[str, int]]) -> ExpectEvents:
    """Says which events happen inside a block, and that no others do: `with expect_events("task.updated") as seen:`."""

    @contextmanager
    def block(*types: str) -> Iterator[list[Event]]:
        before = heads()
        seen: list[Event] = []
        yield seen
        for name in heads():
            seen += database_of.read_sync(partial(log.read_after, workspace_id=name, seq=before.get(name, 0)))
        assert [event.type for event in seen] == list(types)

    return block
