"""Operations that run without a request: from a worker, with names of its own and a reason that the events tell."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from taskade_server import app
from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.api.operations import Operations
from taskade_server.http.api.route import Route
from taskade_server.http.api.routing import Table
from taskade_server.http.routes import all_routes, build
from taskade_server.http.wire.call import Call
from taskade_server.kit import json
from taskade_server.kit.errors import BatchFailed
from taskade_server.selftest.host import SECRET, Host, quiet
from taskade_server.store.database import Tx

from tests.unit import world

WORKSPACE, PROJECT = world.WORKSPACES[0], world.PROJECTS[0]
ORIGIN = '{"type":"automation","automation_id":"auto_1"}'
CALL = Call(world.a_member(WORKSPACE), world.SECRET, "req_1", [], origin=ORIGIN)


@pytest.fixture(scope="module", autouse=True)
def a_world(db):
    db.write_sync(world.found_world)


def run(db: Any, *operations: Any, **given: Any) -> list[Any]:
    table = build().operations
    found, issues = table.prepare(list(operations), "/actions/0/operations", given)
    assert issues == []
    return [json.decode(result.to_json()) for result in db.write_sync(lambda tx: table.run(tx, CALL, found, given))]


def comment(name: Any) -> dict[str, Any]:
    return {"method": "POST", "path": "/tasks", "body": {"name": name, "project_id": PROJECT}}


def test_given_names_stand_beside_earlier_operations(db):
    event = {"data": {"name": '{"$ref": "now"}', "labels": ["a"]}}
    first, second = run(
        db,
        {**comment('{"$ref": "event.data.name", "format": "upper"} at {"$ref": "now"}'), "id": "made"},
        {"method": "PATCH", "path": "/tasks/{made.id}", "body": {"labels": {"$ref": "event.data.labels"}}},
        event=event,
        now="2024-01-31",
    )
    assert (first["id"], first["status"], first["body"]["name"]) == ("made", 201, '{"$REF": "NOW"} at 2024-01-31')
    assert (second["body"]["id"], second["body"]["labels"]) == (first["body"]["id"], ["a"])


def test_events_say_what_led_to_them(db):
    (made,) = run(db, comment("Led to"))
    found = db.read_sync(lambda tx: tx.all("SELECT origin FROM events WHERE object_id = ?", (made["body"]["id"],)))
    assert found
    assert {row[0] for row in found} == {ORIGIN}


def test_issues_have_pointers_below_the_prefix_and_name_what_is_known():
    operations = [
        {**comment({"$ref": "evnt.name"}), "id": "event"},
        {"method": "GET", "path": "/taks"},
        comment({"$ref": "0.name", "fromat": "upper"}),
        {"method": "POST", "path": "/batch", "body": {"operations": []}},
    ]
    issues = build().operations.check(operations, "/actions/2/operations", ["event", "now"])
    assert [(issue.pointer, issue.code) for issue in issues] == [
        ("/actions/2/operations/0/id", "duplicate"),
        ("/actions/2/operations/0", "unknown_reference"),
        ("/actions/2/operations/1/path", "not_found"),
        ("/actions/2/operations/2/body/name/fromat", "unknown_field"),
        ("/actions/2/operations/3/path", "not_allowed"),
    ]
    assert "nor one of event, now" in issues[1].detail
    assert 'Did you mean "event"?' in issues[1].detail


def test_a_failure_has_its_place_below_the_prefix(db):
    with pytest.raises(BatchFailed) as failed:
        run(db, comment("x"), comment({"$ref": "event.nane"}), event={})
    assert failed.value.extra["pointer"] == "/actions/0/operations/1"
    assert [issue.pointer for issue in failed.value.errors] == ["/actions/0/operations/1/body"]


def test_the_caller_is_looked_up_again_after_a_change_of_rights(db, monkeypatch):
    looked_up = []

    def refresh(tx: Tx) -> Principal:
        looked_up.append(tx)
        return CALL.principal

    call = Call(CALL.principal, world.SECRET, "req_2", [], refresh=refresh)
    operations = build().operations
    found, _ = operations.prepare([{"method": "GET", "path": "/tasks?limit=1"}] * 3, "/operations")
    monkeypatch.setattr(log, "rights_changes", lambda tx: 1)
    db.write_sync(lambda tx: operations.run(tx, call, found, {}))
    assert len(looked_up) == 1


def test_the_table_is_complete_for_routes_that_were_given_the_operations():
    assert build() is build()
    assert build().operations.check([{"method": "GET", "path": "/users/me"}], "") == []
    assert [issue.code for issue in Operations().check([{"method": "GET", "path": "/users/me"}], "")] == ["not_found"]


# ---- routes that roll back -------------------------------------------------------------------------------------------


def test_only_a_write_of_its_own_can_be_rolled_back():
    route = next(route for route in all_routes() if (route.method, route.path) == ("POST", "/tasks"))
    with pytest.raises(ValueError, match="rolls back"):
        replace(route, rolls_back=True)
    assert replace(route, rolls_back=True, batchable=False).rolls_back


def test_a_route_that_rolls_back_leaves_nothing(tmp_path: Path):
    creation = next(route for route in all_routes() if (route.method, route.path) == ("POST", "/tasks"))
    trying: Route = replace(creation, path="/tasks/try", operation_id="tryTask", rolls_back=True, batchable=False)
    host = Host(tmp_path).open()
    try:
        asyncio.run(_try(host, trying))
    finally:
        host.close()


async def _try(host: Host, trying: Route) -> None:
    application = app.Application(quiet(host.folder), host.db, SECRET)
    application.pipeline.dispatch.table = Table([*all_routes(), trying])
    host._application = application
    project = json.decode((await host.ask("POST", "/v1/projects", {"name": "P"})).body)["id"]
    body = {"name": "Never", "project_id": project}
    first = await host.ask("POST", "/v1/tasks/try", body, "one key")
    again = await host.ask("POST", "/v1/tasks/try", body, "one key")
    for answer in (first, again):
        assert (answer.status, json.decode(answer.body)["name"]) == (201, "Never")
        assert answer.headers["dry-run"] == "true"
        assert not {"commit-seq", "idempotent-replayed"} & set(answer.headers)
    assert first.body != again.body, "each is made anew"
    assert json.decode((await host.ask("GET", f"/v1/tasks?project_id={project}")).body) == []
    asked = await host.ask("POST", "/v1/tasks/try?dry_run=false", body)
    assert (asked.status, b"dry_run" in asked.body) == (400, True)
