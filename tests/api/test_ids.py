"""An id is given once: nobody gets it again, whatever became of its object, and nothing kept by it changes its owner.

Why a table of all resources: the rule is one for all of them, and a resource that is added later is tried, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
import pytest
from taskade_server.domain.identity import MEMBER
from taskade_server.engine import log
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import ids, json
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import deliveries

from tests.api.asking import create, problem

GIVEN_BY_CLIENTS = sorted(name for name, resource in REGISTRY.items() if resource is not MEMBER)


class Way(NamedTuple):
    """How an object of a resource comes about: the path, and the members of the body for a client."""

    path: str
    body: Callable[[httpx2.Client], dict[str, Any]]


def _with_project(client: httpx2.Client) -> dict[str, Any]:
    return {"name": "Again", "project_id": create(client, "projects", name="For a task")["id"]}


def _with_task(client: httpx2.Client) -> dict[str, Any]:
    return {"body": "Again", "task_id": create(client, "tasks", **_with_project(client))["id"]}


WAYS = {
    "workspace": Way("workspaces", lambda client: {"name": "Again"}),
    "user": Way("users", lambda client: {"name": "Again", "email": f"{ids.new('x')}@example.com"}),
    "api_key": Way("api-keys", lambda client: {"name": "Again"}),
    "project": Way("projects", lambda client: {"name": "Again"}),
    "template": Way("templates", lambda client: {"name": "Again"}),
    "task": Way("tasks", _with_project),
    "comment": Way("comments", _with_task),
    "webhook": Way("webhooks", lambda client: {"url": "https://example.com/hook", "events": ["task.created"]}),
    "automation": Way(
        "automations",
        lambda client: {"name": "x", "trigger": {"on": "manual"}, "actions": [{"do": "stop"}], **_with_project(client)},
    ),
    "secret": Way("secrets", lambda client: {"name": f"s{ids.new('x')[-12:]}", "hosts": ["a.example"], "value": "x"}),
}


def refused(answer: httpx2.Response) -> None:
    """The answer says that the id was given before."""
    document = problem(answer, 409, "conflict")
    assert [entry["code"] for entry in document["errors"]] == ["id_in_use"]


def purged(db: Database, name: str, object_id: str) -> None:
    """What the trash does after 30 days."""
    resource = REGISTRY[name]

    def unit(tx: Tx) -> None:
        row = tx.one(f"SELECT n, doc FROM {resource.table} WHERE id = ?", (object_id,))
        assert row is not None
        doc = json.decode(row[1])
        log.apply(tx, Actor(None), [Change(resource, "purged", dict(doc), doc, row[0])])

    db.write_sync(unit)


def test_the_table_knows_every_resource():
    assert sorted(WAYS) == GIVEN_BY_CLIENTS


@pytest.mark.parametrize("name", GIVEN_BY_CLIENTS)
def test_an_id_that_was_given_once_is_never_free_again(api, outsider, as_member, database_of, name):
    way, wanted = WAYS[name], ids.new(REGISTRY[name].prefix)
    path = f"/v1/{way.path}"
    create(api, way.path, **way.body(api), id=wanted)
    # Members invite nobody, and make no secrets.
    askers = [api, outsider] if name in ("user", "secret") else [api, outsider, as_member]
    tries = [(client, {**way.body(client), "id": wanted}) for client in askers]

    def try_again() -> None:
        for client, body in tries:
            refused(client.post(path, json=body))

    try_again()
    assert api.delete(f"{path}/{wanted}").status_code == 204
    try_again()
    if REGISTRY[name].trash and not REGISTRY[name].lasting:
        purged(database_of, name, wanted)
        assert api.get(f"{path}/{wanted}").status_code == 404
        try_again()


def test_bulk_creation_names_each_id_that_was_given_before(api, outsider, database_of, a_project):
    gone, live, doubled = (ids.new("task") for _ in range(3))
    for wanted in (gone, live):
        create(api, "tasks", name="First", project_id=a_project["id"], id=wanted)
    assert api.delete(f"/v1/tasks/{gone}").status_code == 204
    purged(database_of, "task", gone)
    chosen = [gone, ids.new("task"), live, doubled, doubled]
    answer = outsider.post("/v1/tasks/bulk", json={"tasks": [{"name": "Again", "id": one} for one in chosen]})
    found = problem(answer, 409)["errors"]
    assert [(entry["code"], entry["pointer"]) for entry in found] == [
        ("id_in_use", f"/tasks/{place}/id") for place in (0, 2, 4)
    ]


def test_an_id_is_not_free_again_within_the_batch_that_uses_it(api, a_project):
    wanted = ids.new("task")
    body = {"id": wanted, "name": "Once", "project_id": a_project["id"]}
    operations = [
        {"method": "POST", "path": "/tasks", "body": body},
        {"method": "DELETE", "path": f"/tasks/{wanted}"},
        {"method": "POST", "path": "/tasks", "body": body},
    ]
    document = problem(api.post("/v1/batch", json={"operations": operations}), 409)
    assert [entry["code"] for entry in document["errors"]] == ["id_in_use"]


def test_a_deleted_object_comes_back_under_its_own_id(api, a_task):
    """Restoring it, or undoing its deletion, is no new use of the id."""
    path = f"/v1/tasks/{a_task['id']}"
    assert api.delete(path).status_code == 204
    assert api.post(f"{path}/restore").json()["id"] == a_task["id"]
    assert api.delete(path).status_code == 204
    last = api.get("/v1/events", params={"object_id": a_task["id"], "order": "desc", "limit": 1}).json()[0]
    assert api.post(f"/v1/events/{last['id']}/revert").status_code == 200
    assert api.get(path).status_code == 200


def test_what_waits_for_a_webhook_ends_with_it(api, database_of, a_project):
    """In the same transaction: no moment is left in which it could be sent."""
    hook = create(api, "webhooks", url="https://example.com/hook", events=["task.created"], project_id=a_project["id"])
    workspace = hook["workspace_id"]

    def wait(tx: Tx) -> None:
        fresh = [
            deliveries.Delivery(
                ids.new("dlv"),
                hook["id"],
                workspace,
                seq,
                ids.new("evt"),
                "task.created",
                f"task_{seq}",
                None,
                deliveries.PENDING,
                0,
                0,
                2**50,
                1,
                None,
                None,
                None,
                None,
            )
            for seq in range(3)
        ]
        deliveries.add(tx, fresh)
        deliveries.note_failure(tx, hook["id"], workspace, 1, None)

    database_of.write_sync(wait)
    assert api.get(f"/v1/webhooks/{hook['id']}/health").json()["pending"] == 3
    assert api.delete(f"/v1/webhooks/{hook['id']}").status_code == 204
    left = database_of.read_sync(lambda tx: deliveries.newest(tx, hook["id"], workspace, deliveries.Filter(), None, 9))
    assert {(one.state, one.next_at) for one in left} == {(deliveries.CANCELLED, None)}
    states = "SELECT 1 FROM webhook_states WHERE webhook_id = ?"
    assert database_of.read_sync(lambda tx: tx.one(states, (hook["id"],))) is None


def test_deliveries_are_asked_for_with_their_workspace(api, database_of, a_project):
    hook = create(api, "webhooks", url="https://example.com/hook", events=["task.created"], project_id=a_project["id"])
    foreign = deliveries.Delivery(
        ids.new("dlv"),
        hook["id"],
        ids.new("ws"),
        1,
        ids.new("evt"),
        "task.created",
        "task_1",
        None,
        deliveries.FAILED,
        1,
        0,
        None,
        1,
        1,
        None,
        None,
        None,
    )
    database_of.write_sync(lambda tx: deliveries.add(tx, [foreign]))
    path = f"/v1/webhooks/{hook['id']}/deliveries"
    assert api.get(path).json() == []
    assert api.get(f"{path}/{foreign.id}").status_code == 404
    assert api.post(f"{path}/{foreign.id}/resend").status_code == 404


# ---- what could be taken for an id, or for a number ------------------------------------------------------------------


def test_a_handle_is_never_taken_for_an_id(api, me, a_task):
    """Nor for `me`: wherever a user is named, either means somebody else."""
    person = create(api, "users", name="Me", email="me@example.com")
    assert person["handle"] != "me"
    named = create(api, "users", name="Somebody", email=f"{me['id']}@example.com")
    assert named["handle"] != me["id"]
    for handle in (me["id"], "me", a_task["id"], ids.new("ws")):
        body = {"name": "Another", "email": f"{ids.new('x')}@example.com", "handle": handle}
        for answer in (
            api.post("/v1/users", json=body),
            api.patch(f"/v1/users/{named['id']}", json={"handle": handle}),
        ):
            document = problem(answer, 422)
            assert [(entry["code"], entry["pointer"]) for entry in document["errors"]] == [("not_allowed", "/handle")]
    assert api.put(f"/v1/users/{named['id']}", json=named).status_code == 200


def test_a_version_is_asked_for_also_where_there_is_nothing_to_restore(api, a_task):
    path, present = f"/v1/tasks/{a_task['id']}/restore", f'"{a_task["version"]}"'
    problem(api.post(path, headers={"If-Match": '"999"'}), 412, "precondition-failed")
    problem(api.post(path, headers={"If-None-Match": present}), 412, "precondition-failed")
    for headers in ({"If-Match": present}, {}):
        assert api.post(path, headers=headers).json() == a_task


LONG = ("9" * 5000, "\u00b2")
"""More digits than Python reads as a number, and a digit that is none."""


def test_a_number_of_any_length_is_judged_wherever_a_parameter_may_be_one(api, a_project, a_task):
    """Every parameter of every operation that reads, as the API's own description lists them."""
    hook = create(api, "webhooks", url="https://example.com/hook", events=["task.created"])["id"]
    document = api.get("/openapi.json").json()
    found = {"tasks": a_task["id"], "projects": a_project["id"], "webhooks": hook}
    asked = 0
    for path, operations in document["paths"].items():
        if "get" not in operations or path.endswith("/stream"):
            continue
        for entry in operations["get"].get("parameters", []):
            name = entry.get("$ref", "").rpartition("/")[2]
            parameter = document["components"]["parameters"][name] if name else entry
            if parameter["in"] != "query":
                continue
            place = path.replace("{id}", found.get(path.split("/")[1], "x")).replace("{user}", "x")
            for value in LONG:
                answer = api.get(f"/v1{place}", params={parameter["name"]: value})
                asked += 1
                assert answer.status_code < 500, (place, parameter["name"], answer.text[:300])
    assert asked > 500


@pytest.mark.parametrize("number", LONG)
def test_a_number_of_any_length_is_judged_in_bodies_and_headers(api, a_task, a_project, number):
    first = {"method": "GET", "path": "/tasks?limit=1"}
    references = [
        {"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"name": {"$ref": f"0.{number}.name"}}},
        {"method": "PATCH", "path": f"/tasks/{a_task['id']}", "body": {"name": {"$ref": f"{number}.0.name"}}},
    ]
    requests: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("POST", "/v1/batch", {"operations": [first, one]}, {}) for one in references
    ]
    patch, path = {"Content-Type": "application/json-patch+json"}, f"/v1/tasks/{a_task['id']}"
    requests += [
        ("PATCH", path, [{"op": "replace", "path": f"/labels/{number}", "value": "x"}], patch),
        ("PATCH", path, {"name": "x"}, {"If-Match": f'"{number}"'.encode()}),
        ("POST", "/v1/tasks/query", {"limit": number}, {}),
        ("PATCH", path, {"recurrence": f"FREQ=DAILY;INTERVAL={number}"[:500]}, {}),
        ("PATCH", path, {"due_date": number}, {}),
        ("GET", f"/v1/tasks/{number}", None, {}),
    ]
    for method, where, body, headers in requests:
        answer = api.request(method, where, json=body, headers=headers)
        assert 400 <= answer.status_code < 500, (method, where, answer.text[:300])
